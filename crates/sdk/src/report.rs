//! Owns [`Reporter`]: what an app says of a part of it, again and again, and the reloads that it is told to carry out.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::link::{Error, Link};
use crate::verdict::Picture;
use crate::wire::{Availability, Beat, Beaten, Reload};

/// How soon a beat is tried again that nobody took.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The shortest time between beats: who reports nothing new is not asked for more.
const SHORTEST: Duration = Duration::from_millis(100);

/// How a part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How available it is.
    pub availability: Availability,
    /// Why, in a sentence for people; may be empty.
    pub reason: String,
    /// What cannot be done with it now although it may be used.
    pub blocked_operations: Vec<String>,
}

impl Default for Report {
    fn default() -> Self {
        Self { availability: Availability::Available, reason: String::new(), blocked_operations: Vec::new() }
    }
}

/// What the task is to say.
#[derive(Clone, Debug, Default)]
struct Saying {
    report: Report,
    ack: Option<String>,
}

/// What the task was told.
#[derive(Clone, Debug, Default)]
struct Told {
    reload: Option<Reload>,
    trouble: Option<String>,
}

/// Reports for a part of this app for as long as it lives. A part that nobody reports for is `Silent`: do not keep it for a part that
/// does not work, and do not drop it for one that does.
#[derive(Debug)]
pub struct Reporter {
    saying: watch::Sender<Saying>,
    told: watch::Receiver<Told>,
    task: JoinHandle<()>,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reporter {
    pub(crate) fn start(link: Link, part: &str, picture: watch::Receiver<Picture>) -> Self {
        let (saying, says) = watch::channel(Saying::default());
        let (telling, told) = watch::channel(Told::default());
        let task = tokio::spawn(beat(Heart { link, part: part.to_owned() }, says, telling, picture));
        Self { saying, told, task }
    }

    /// Says how the part is, from now on: at once where that is news.
    pub fn set(&self, report: Report) {
        self.saying.send_if_modified(|saying| {
            let is_news = saying.report != report;
            saying.report = report;
            is_news
        });
    }

    /// Waits for the next reload that is to be carried out. The same is given again until [`Reporter::done`] has said that it is.
    pub async fn reload(&self) -> Reload {
        let mut told = self.told.clone();
        loop {
            let acked = self.saying.borrow().ack.clone();
            let is_open = |told: &Told| told.reload.as_ref().is_some_and(|reload| Some(&reload.id) != acked.as_ref());
            let found = told.wait_for(is_open).await.ok().and_then(|told| told.reload.clone());
            match found {
                Some(reload) => return reload,
                // The task has ended, with its runtime.
                None => std::future::pending().await,
            }
        }
    }

    /// Says that a reload was carried out.
    pub fn done(&self, reload: &Reload) {
        self.saying.send_modify(|saying| saying.ack = Some(reload.id.clone()));
    }

    /// Why the last report was not taken, if it was not.
    pub fn trouble(&self) -> Option<String> {
        self.told.borrow().trouble.clone()
    }
}

struct Heart {
    link: Link,
    part: String,
}

impl Heart {
    async fn beat(&self, saying: &Saying) -> Result<Beaten, Error> {
        let Saying { report, ack } = saying;
        let beat = Beat {
            availability: report.availability,
            reason: &report.reason,
            blocked_operations: &report.blocked_operations,
            ack: ack.as_deref(),
        };
        self.link.post(&format!("/heartbeat/{}/{}", self.link.namespace(), self.part), &beat, Duration::ZERO).await
    }
}

async fn beat(heart: Heart, mut says: watch::Receiver<Saying>, telling: watch::Sender<Told>, mut picture: watch::Receiver<Picture>) {
    loop {
        let saying = says.borrow_and_update().clone();
        let seen = picture.borrow_and_update().reloads.get(&heart.part).cloned();
        let next = match heart.beat(&saying).await {
            Ok(Beaten { heartbeat, reload }) => {
                telling.send_replace(Told { reload, trouble: None });
                // A beat that is late by one half is in time.
                Instant::now() + (millis(&heartbeat).unwrap_or(TRY_AGAIN) / 2).max(SHORTEST)
            }
            Err(error) => {
                telling.send_modify(|told| told.trouble = Some(error.to_string()));
                Instant::now() + TRY_AGAIN
            }
        };
        // Sooner where there is something to say, or the watch tells of something to do.
        let is_told = picture.wait_for(|picture| picture.reloads.get(&heart.part) != seen.as_ref());
        tokio::select! {
            () = sleep_until(next) => {}
            changed = says.changed() => if changed.is_err() { return },
            told = is_told => if told.is_err() { return },
        }
    }
}

/// `15000ms`.
fn millis(text: &str) -> Option<Duration> {
    text.strip_suffix("ms")?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_of_the_operator_is_read() {
        assert_eq!(millis("15000ms"), Some(Duration::from_secs(15)));
        assert_eq!(millis("15s"), None);
    }
}
