//! Events: a bounded ring with sequence numbers, and who wants to hear which.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::filter::Filters;
use super::reply::Failure;

/// How many events of the past `since` can bring back.
const REPLAY: usize = 256;
/// How far a follower may lag behind.
const RING: usize = 65_536;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

impl Kind {
    /// The word in the event.
    pub fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The place in the order of all events, from 1.
    pub seq: u64,
    /// When, in Unix nanoseconds.
    pub time_ns: i64,
    /// What it is about.
    pub kind: Kind,
    /// What happened.
    pub action: Arc<str>,
    /// The id of what it is about.
    pub actor: Arc<str>,
    /// The labels of a container or an image.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The other attributes.
    pub attributes: Vec<(&'static str, Arc<str>)>,
}

impl Event {
    /// The value of one attribute.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(k, _)| *k == key).map(|(_, v)| &**v).or_else(|| self.labels.get(key).map(String::as_str))
    }

    /// The line that goes over the wire.
    pub fn line(&self) -> Vec<u8> {
        let mut attributes: Map<String, Value> = self.labels.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        attributes.extend(self.attributes.iter().map(|(k, v)| ((*k).to_owned(), json!(&**v))));
        let mut line = json!({
            "Type": self.kind.word(),
            "Action": &*self.action,
            "Actor": { "ID": &*self.actor, "Attributes": attributes },
            "scope": "local",
            "time": self.time_ns.div_euclid(1_000_000_000),
            "timeNano": self.time_ns,
        });
        if matches!(self.kind, Kind::Container | Kind::Image) {
            line["status"] = json!(&*self.action);
            line["id"] = json!(&*self.actor);
        }
        if self.kind == Kind::Container
            && let Some(image) = self.attributes.iter().find(|(k, _)| *k == "image")
        {
            line["from"] = json!(&*image.1);
        }
        let mut bytes = line.to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    }
}

/// The last events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ring {
    events: VecDeque<Event>,
    last: u64,
}

impl Ring {
    pub(crate) fn push(&mut self, mut event: Event) {
        self.last += 1;
        event.seq = self.last;
        if self.events.len() >= RING {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Events after `seq`.
    pub(crate) fn since(&self, seq: u64) -> impl Iterator<Item = &Event> {
        let first = self.last + 1 - self.events.len() as u64;
        let skip = (seq + 1).saturating_sub(first) as usize;
        self.events.range(skip.min(self.events.len())..)
    }

    /// Where a follower begins who wants what happened from `ns` on.
    pub(crate) fn replay_from(&self, ns: i64) -> u64 {
        let from = self.events.len().saturating_sub(REPLAY);
        self.events.range(from..).find(|e| e.time_ns >= ns).map_or(self.last, |e| e.seq - 1)
    }
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct EventFilter(Filters);

impl EventFilter {
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, Failure> {
        Ok(Self(Filters::parse(text)?))
    }

    pub(crate) fn wants(&self, event: &Event) -> bool {
        let f = &self.0;
        f.any_of("type", |v| v == event.kind.word())
            && f.any_of("event", |v| {
                let word = event.action.split(':').next().unwrap_or_default();
                v == &*event.action || (matches!(v, "health_status" | "exec_create" | "exec_start") && v == word)
            })
            && f.any_of("scope", |v| v == "local")
            && f.any_of("container", |v| matches_actor(event, Kind::Container, v))
            && f.any_of("network", |v| matches_actor(event, Kind::Network, v))
            && f.any_of("volume", |v| matches_actor(event, Kind::Volume, v))
            && f.any_of("image", |v| {
                let name = event.attribute(if event.kind == Kind::Image { "name" } else { "image" }).unwrap_or_default();
                &*event.actor == v || name == v || name.rsplit_once(':').is_some_and(|(repository, _)| repository == v)
            })
            && f.all_of("label", |v| match v.split_once('=') {
                Some((key, value)) => event.attribute(key) == Some(value),
                None => event.attribute(v).is_some(),
            })
    }
}

fn matches_actor(event: &Event, kind: Kind, value: &str) -> bool {
    event.kind == kind
        && (event.actor.starts_with(value) && !value.is_empty()
            || event.attribute("name").is_some_and(|n| n == value || n.trim_start_matches('/') == value))
}
