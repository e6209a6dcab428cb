//! Owns the record of a drill: how every node stood at its beginning, and everything that happened since, in virtual time. Pure.

use std::collections::BTreeMap;

use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::meta::ObjectKey;
use serde_json::{Value, json};

use super::bind::shown;

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// `None` = it is off by configuration.
    pub(crate) availability: Option<Availability>,
    pub(crate) usable: bool,
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// Who is to blame, by their own fault.
    pub(crate) because: Vec<ObjectKey>,
}

impl Standing {
    /// Whether people would call it the same: words in a message change while nothing happens.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let of = |s: &Self| (s.availability, s.usable, s.reason, s.because.clone());
        of(self) == of(other)
    }

    /// `4 TemporarilyUnavailable DependencyUnavailable, because of notify/vault`.
    pub(crate) fn words(&self) -> String {
        let availability = match self.availability {
            Some(availability) => format!("{} {availability}", availability.severity()),
            None => "off".to_owned(),
        };
        let is_locked = self.availability.is_some_and(Availability::is_usable) && !self.usable;
        let locked = if is_locked { ", not usable" } else { "" };
        let culprits: Vec<String> = self.because.iter().map(shown).collect();
        let because = if culprits.is_empty() { String::new() } else { format!(", because of {}", culprits.join(", ")) };
        format!("{availability} {}{locked}{because}", self.reason)
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Milliseconds since the beginning.
    pub(crate) at_ms: u64,
    pub(crate) on: ObjectKey,
    pub(crate) what: Happened,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Happened {
    /// The drill did something to it.
    Act(String),
    /// A container of it ended.
    Ended { slot: u32, code: i64 },
    /// It stands in another way.
    Stands(Standing),
    /// It reloads: how, and for whom.
    Reloads { verb: String, because: Vec<String> },
    /// A container of it was started. `again` = this is a restart that the drill did not ask for.
    Started { slot: u32, again: bool },
    /// The operator told of it.
    Told { reason: Reason, is_warning: bool, message: String },
}

impl Happened {
    /// The place among things of the same moment: causes before effects.
    fn rank(&self) -> u8 {
        match self {
            Self::Act(_) => 0,
            Self::Reloads { .. } => 1,
            Self::Ended { .. } => 2,
            Self::Started { .. } => 3,
            Self::Stands(_) => 4,
            Self::Told { .. } => 5,
        }
    }

    /// Whether the world is another one after it.
    pub(crate) fn is_change(&self) -> bool {
        !matches!(self, Self::Told { .. })
    }
}

impl Entry {
    /// The line of a timeline; what was only told has none.
    pub(crate) fn words(&self) -> Option<String> {
        let numbered = |slot: &u32| if *slot == 0 { String::new() } else { format!(" {slot}") };
        Some(match &self.what {
            Happened::Act(text) => format!("<- {text}"),
            Happened::Ended { slot, code } => format!("container{} ended with code {code}", numbered(slot)),
            Happened::Stands(standing) => standing.words(),
            Happened::Reloads { verb, because } => format!("reloads ({verb}): {}", because.join(", ")),
            Happened::Started { slot, again: true } => format!("container{} started again", numbered(slot)),
            Happened::Started { slot, again: false } => format!("container{} started", numbered(slot)),
            Happened::Told { .. } => return None,
        })
    }

    fn json(&self) -> Value {
        let mut value = match &self.what {
            Happened::Act(text) => json!({ "act": text }),
            Happened::Ended { slot, code } => json!({ "ended": { "slot": slot, "code": code } }),
            Happened::Stands(s) => json!({ "stands": standing_json(s) }),
            Happened::Reloads { verb, because } => json!({ "reloads": { "verb": verb, "because": because } }),
            Happened::Started { slot, again } => json!({ "started": { "slot": slot, "again": again } }),
            Happened::Told { reason, is_warning, message } => {
                json!({ "event": { "reason": reason, "warning": is_warning, "message": message } })
            }
        };
        value["at"] = seconds(self.at_ms);
        value["service"] = shown(&self.on).into();
        value
    }
}

/// Virtual time for programs.
pub(crate) fn seconds(ms: u64) -> Value {
    // Whole milliseconds have an exact form with three digits.
    serde_json::from_str(&format!("{}.{:03}", ms / 1_000, ms % 1_000)).unwrap_or_default()
}

/// Virtual time for people: `9m0.0s`.
pub(crate) fn clock(ms: u64) -> String {
    let (hours, minutes, seconds, tenths) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms / 100 % 10);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}.{tenths}s"),
        (0, _) => format!("{minutes}m{seconds:02}.{tenths}s"),
        _ => format!("{hours}h{minutes:02}m{seconds:02}.{tenths}s"),
    }
}

fn standing_json(standing: &Standing) -> Value {
    let because: Vec<String> = standing.because.iter().map(shown).collect();
    json!({
        "availability": standing.availability, "severity": standing.availability.map_or(0, Availability::severity),
        "usable": standing.usable, "reason": standing.reason, "message": standing.message, "because": because,
    })
}

/// Everything that happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    /// How each node stood at the beginning.
    begin: BTreeMap<ObjectKey, Standing>,
    /// How each stands now.
    now: BTreeMap<ObjectKey, Standing>,
    levels: BTreeMap<ObjectKey, u32>,
    entries: Vec<Entry>,
}

impl Timeline {
    /// Takes how a node stands; tells whether that is new.
    pub(crate) fn stand(&mut self, at_ms: u64, on: &ObjectKey, level: u32, standing: Standing) -> bool {
        self.levels.insert(on.clone(), level);
        if self.now.get(on).is_some_and(|before| before.is_like(&standing)) {
            return false;
        }
        self.now.insert(on.clone(), standing.clone());
        self.add(at_ms, on, Happened::Stands(standing));
        true
    }

    /// Takes something that happened. Late news of an earlier moment come to their place.
    pub(crate) fn add(&mut self, at_ms: u64, on: &ObjectKey, what: Happened) {
        let level = |key: &ObjectKey| self.levels.get(key).copied().unwrap_or_default();
        let place = |e: &Entry| (e.at_ms, e.what.rank(), level(&e.on), e.on.clone());
        let entry = Entry { at_ms, on: on.clone(), what };
        let own = place(&entry);
        let at = self.entries.partition_point(|e| place(e) <= own);
        self.entries.insert(at, entry);
    }

    /// Everything so far is forgotten but how things stand: the drill begins.
    pub(crate) fn begin(&mut self) {
        self.begin = self.now.clone();
        self.entries.clear();
    }

    /// All that happened, in order.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// All that happened until then.
    pub(crate) fn until(&self, at_ms: u64) -> &[Entry] {
        &self.entries[..self.entries.partition_point(|e| e.at_ms <= at_ms)]
    }

    /// How a node stood then; `None` = it was not there yet.
    pub(crate) fn standing_at(&self, on: &ObjectKey, at_ms: u64) -> Option<&Standing> {
        let changed = self.until(at_ms).iter().rev().find_map(|e| match &e.what {
            Happened::Stands(standing) if e.on == *on => Some(standing),
            _ => None,
        });
        changed.or_else(|| self.begin.get(on))
    }

    /// How a node stood at the beginning.
    pub(crate) fn standing_at_begin(&self, on: &ObjectKey) -> Option<&Standing> {
        self.begin.get(on)
    }

    /// Every node, by level and name.
    pub(crate) fn nodes(&self) -> Vec<&ObjectKey> {
        let mut nodes: Vec<&ObjectKey> = self.now.keys().collect();
        nodes.sort_by_key(|key| (self.levels.get(key).copied().unwrap_or_default(), (*key).clone()));
        nodes
    }

    /// How a node stands now.
    pub(crate) fn standing(&self, on: &ObjectKey) -> Option<&Standing> {
        self.now.get(on)
    }

    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        self.entries.iter().map(Entry::json).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("MiniService", "n", name)
    }

    fn stands(availability: Availability) -> Standing {
        let reason = if availability.is_usable() { Reason::Healthy } else { Reason::ProbeFailed };
        Standing { availability: Some(availability), usable: availability.is_usable(), reason, message: String::new(), because: Vec::new() }
    }

    #[test]
    fn times_are_read_by_people_and_programs() {
        for (ms, text) in [(0, "0.0s"), (2_049, "2.0s"), (540_000, "9m00.0s"), (3_661_900, "1h01m01.9s")] {
            assert_eq!(clock(ms), text);
        }
        assert_eq!(seconds(2_049).to_string(), "2.049");
    }

    #[test]
    fn standings_are_known_at_every_time_and_words_alone_are_no_news() {
        let mut timeline = Timeline::default();
        assert!(timeline.stand(0, &key("a"), 0, stands(Availability::Available)));
        timeline.begin();
        assert!(!timeline.stand(5, &key("a"), 0, Standing { message: "other words".to_owned(), ..stands(Availability::Available) }));
        assert!(timeline.stand(10, &key("a"), 0, stands(Availability::TemporarilyUnavailable)));
        assert!(timeline.stand(20, &key("a"), 0, stands(Availability::Available)));
        let usable = |at| timeline.standing_at(&key("a"), at).map(|s| s.usable);
        assert_eq!([0, 9, 10, 19, 20, 99].map(usable), [true, true, false, false, true, true].map(Some));
        assert_eq!(timeline.standing_at(&key("b"), 99), None);
        assert_eq!((timeline.until(10).len(), timeline.entries().len()), (1, 2));
    }

    #[test]
    fn what_happened_at_once_is_told_by_level_and_causes_come_first() {
        let mut timeline = Timeline::default();
        for (name, level) in [("low", 0), ("high", 1)] {
            timeline.stand(0, &key(name), level, stands(Availability::Available));
        }
        timeline.begin();
        timeline.stand(5, &key("high"), 1, stands(Availability::PartiallyAvailable));
        timeline.stand(5, &key("low"), 0, stands(Availability::TemporarilyUnavailable));
        timeline.add(5, &key("low"), Happened::Act("down low".to_owned()));
        timeline.add(4, &key("low"), Happened::Ended { slot: 1, code: 9 });
        let words: Vec<String> =
            timeline.entries().iter().filter_map(|e| Some(format!("{} {} {}", e.at_ms, e.on.name, e.words()?))).collect();
        insta::assert_snapshot!(words.join("\n"), @r"
        4 low container 1 ended with code 9
        5 low <- down low
        5 low 4 TemporarilyUnavailable ProbeFailed
        5 high 3 PartiallyAvailable Healthy
        ");
    }
}
