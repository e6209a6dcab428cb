//! Owns the one task that follows what the operator tells of the namespace, and finds it again when it was away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::events::{Event, Reader};
use crate::link::{Error, Link};
use crate::verdict::{Contact, Picture};
use crate::wire::{Answer, Reload};

/// The operator says at least every 15 s that it is still there; one that is silent for longer is away, whatever the socket says.
const SILENCE: Duration = Duration::from_secs(20);
/// How soon it is looked for again, first and at most: a socket in the file system costs next to nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Gone {
    service: String,
}

#[derive(Deserialize)]
struct ReloadOf {
    service: String,
    id: String,
    verb: String,
    #[serde(default)]
    because: Vec<String>,
}

/// Keeps the picture true for as long as somebody looks at it.
pub(crate) async fn follow(link: Link, picture: watch::Sender<Picture>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut stream = Stream { picture: &picture, coming: Some(BTreeMap::new()), heard: Instant::now() };
        let Err(error) = stream.read(&link).await;
        if stream.coming.is_none() {
            pause = FIRST_PAUSE;
        }
        let until = stream.heard;
        picture.send_modify(|picture| {
            picture.trouble = Some(error.to_string());
            if picture.contact == Contact::Now {
                picture.contact = Contact::Lost(until);
            }
        });
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One connection.
struct Stream<'a> {
    picture: &'a watch::Sender<Picture>,
    /// What is told at the beginning, until all of it is there; then nothing.
    coming: Option<BTreeMap<String, Arc<Answer>>>,
    /// When it was surely there.
    heard: Instant,
}

impl Stream<'_> {
    /// Reads until it ends.
    async fn read(&mut self, link: &Link) -> Result<std::convert::Infallible, Error> {
        let mut body = link.open(&format!("/watch/{}", link.namespace())).await?;
        let mut reader = Reader::default();
        loop {
            let Ok(frame) = timeout(SILENCE, body.frame()).await else { return Err(link.away("it is silent")) };
            // Also the end of a stream is a word of somebody who was there.
            self.heard = Instant::now();
            let frame = frame.ok_or_else(|| link.ended())?.map_err(|error| link.away(error))?;
            let Ok(data) = frame.into_data() else { continue };
            let events = reader.take(&data).ok_or_else(|| Error::Unreadable("an event without an end".to_owned()))?;
            self.apply(&events)?;
        }
    }

    fn apply(&mut self, events: &[Event]) -> Result<(), Error> {
        let mut changes = Vec::new();
        for event in events {
            match event.name.as_str() {
                "usable" => {
                    let answer: Answer = parse(event)?;
                    match &mut self.coming {
                        Some(coming) => drop(coming.insert(answer.service.clone(), Arc::new(answer))),
                        None => changes.push(Change::Usable(answer)),
                    }
                }
                "synced" => changes.extend(self.coming.take().map(Change::Synced)),
                "gone" => changes.push(Change::Gone(parse::<Gone>(event)?.service)),
                "reload" => changes.push(Change::Reload(parse(event)?)),
                // Of a newer operator.
                _ => {}
            }
        }
        if !changes.is_empty() {
            self.picture.send_modify(|picture| changes.into_iter().for_each(|change| change.make(picture)));
        }
        Ok(())
    }
}

enum Change {
    Synced(BTreeMap<String, Arc<Answer>>),
    Usable(Answer),
    Gone(String),
    Reload(ReloadOf),
}

impl Change {
    fn make(self, picture: &mut Picture) {
        match self {
            Self::Synced(services) => {
                picture.services = services;
                picture.contact = Contact::Now;
                picture.trouble = None;
            }
            Self::Usable(answer) => drop(picture.services.insert(answer.service.clone(), Arc::new(answer))),
            Self::Gone(service) => drop(picture.services.remove(&service)),
            Self::Reload(ReloadOf { service, id, verb, because }) => drop(picture.reloads.insert(service, Reload { id, verb, because })),
        }
    }
}

fn parse<T: DeserializeOwned>(event: &Event) -> Result<T, Error> {
    serde_json::from_str(&event.data).map_err(|error| Error::Unreadable(format!("an event `{}`: {error}", event.name)))
}
