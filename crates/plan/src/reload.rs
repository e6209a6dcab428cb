//! Decides when a service reloads because a dependency returned or changed (DESIGN 3.2, "Reloads"): each change once, when the dependency
//! has stayed usable for long enough and nothing beneath it is still to reload. Pure: what was counted comes from the store.

use std::collections::BTreeMap;

use qm_api::graph::Dependency;
use qm_api::meta::ObjectKey;
use qm_api::spec::edge::{Reload, Stage};
use qm_api::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::budget::Budget;

/// So many reloads of one service by its dependencies in so long, and something flaps.
pub const RELOADS: Budget = Budget { tries: 5, window_ms: 600_000 };

/// What has been counted of a node. Counts only grow; only the equality of revisions means something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// Losses that were seen and have ended.
    pub losses_ended: u64,
    /// Planned changes that took it down and are done.
    pub changes_ended: u64,
    /// The revision that was rolled out last.
    pub revision: u64,
}

/// How a dependency stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What the store has counted of it.
    pub counted: Counted,
    /// When it last returned, by the wall clock.
    pub returned_at: Option<Timestamp>,
    /// When it last changed, by the wall clock.
    pub changed_at: Option<Timestamp>,
    /// Since when it has been usable without a break, in monotonic milliseconds; `None` = it is not.
    pub usable_since_ms: Option<i64>,
}

/// What is done to the containers; a later one does all that an earlier one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// They are sent the reload signal.
    Signal,
    /// They are stopped and started.
    Restart,
    /// New ones take their place.
    Recreate,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Signal, Self::Restart, Self::Recreate];

    /// The word in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Restart => "restart",
            Self::Recreate => "recreate",
        }
    }
}

/// What happened to a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// A loss has ended.
    Returned,
    /// A new revision is rolled out, or a planned change is done.
    Changed,
}

/// Why a service reloads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// Which dependency.
    pub on: ObjectKey,
    /// What happened to it.
    pub what: What,
}

impl std::fmt::Display for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = match self.what {
            What::Returned => "returned",
            What::Changed => "changed",
        };
        write!(f, "{}/{} {word}", self.on.namespace, self.on.name)
    }
}

/// What a service has reacted to already, by dependency, and when it last reloaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Counts that were reacted to, as `KIND/NAMESPACE/NAME` has them.
    #[serde(default)]
    pub seen: BTreeMap<String, Counted>,
    /// When it reloaded, within the budget's window.
    #[serde(default)]
    pub recent: Vec<Timestamp>,
}

/// What is to be done about the dependencies of a service.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing has happened.
    Nothing,
    /// Something has happened that asks for no reload: remember it.
    Note(Memory),
    /// A reload is due, and waits: until this monotonic millisecond, or for news of a dependency.
    Wait(Option<i64>),
    /// It reloads, once for all of these.
    Reload {
        /// What is done.
        verb: Verb,
        /// Why.
        triggers: Vec<Trigger>,
        /// Containers that were started after this instant have seen it all.
        after: Timestamp,
        /// What to remember.
        memory: Memory,
    },
    /// It reloads again and again: something flaps. Until then, with the evidence.
    Spent {
        /// When the budget allows the next.
        until: Timestamp,
        /// What happened, in words.
        evidence: String,
    },
}

/// What a verb of an edge comes to; `None` = nothing.
pub fn verb(reload: Reload, stage: Stage) -> Option<Verb> {
    match (reload, stage) {
        (Reload::Ignore, _) => None,
        // Until there are secrets to fetch, what is left of their stage is the signal.
        (Reload::Signal, _) | (Reload::Rebuild, Stage::Credentials) => Some(Verb::Signal),
        (Reload::Restart, _) | (Reload::Rebuild, Stage::Start) => Some(Verb::Restart),
        (Reload::Rebuild, Stage::Create) => Some(Verb::Recreate),
    }
}

/// The name of a node in [`Memory::seen`].
pub fn name(key: &ObjectKey) -> String {
    format!("{}/{}/{}", key.kind, key.namespace, key.name)
}

/// Whether an edge reacts to anything.
pub fn reacts(dependency: &Dependency) -> bool {
    dependency.on_up != Reload::Ignore || dependency.on_change != Reload::Ignore
}

/// Whether a dependency has had news that ask for a reload and were not reacted to.
pub fn is_due(dependency: &Dependency, counted: Counted, memory: &Memory) -> bool {
    memory.seen.get(&name(&dependency.on)).is_some_and(|seen| !news(dependency, counted, *seen).is_empty())
}

/// What happened since, with the verbs that it asks for.
fn news(dependency: &Dependency, counted: Counted, seen: Counted) -> Vec<(What, Verb)> {
    let returned = counted.losses_ended > seen.losses_ended;
    let changed = counted.changes_ended > seen.changes_ended || counted.revision != seen.revision;
    let asks = [(returned, What::Returned, dependency.on_up), (changed, What::Changed, dependency.on_change)];
    asks.into_iter().filter(|(holds, ..)| *holds).filter_map(|(_, what, reload)| Some((what, verb(reload, dependency.stage)?))).collect()
}

/// Decides. `standing` tells how each dependency stands; `None` = it was never usable. `is_unsettled` = a dependency, or one that it needs at
/// whatever distance, is still to reload or being changed; it is asked only when a reload is due.
pub fn decide(
    dependencies: &[Dependency],
    memory: &Memory,
    standing: impl Fn(&ObjectKey) -> Option<Standing>,
    is_unsettled: impl Fn(&ObjectKey) -> bool,
    now: Timestamp,
    now_ms: i64,
) -> Decision {
    let mut next = Memory { seen: BTreeMap::new(), ..memory.clone() };
    let mut triggers: Vec<Trigger> = Vec::new();
    let mut deepest: Option<Verb> = None;
    let mut after = Timestamp::default();
    let mut wait: Option<Option<i64>> = None;
    for dependency in dependencies.iter().filter(|d| reacts(d)) {
        let key = name(&dependency.on);
        let seen = memory.seen.get(&key).copied();
        let Some(standing) = standing(&dependency.on) else {
            next.seen.extend(seen.map(|seen| (key, seen)));
            continue;
        };
        // Who looks for the first time has missed nothing.
        let news = seen.map(|seen| news(dependency, standing.counted, seen)).unwrap_or_default();
        if news.is_empty() {
            next.seen.insert(key, standing.counted);
            continue;
        }
        let instants = news.iter().filter_map(|(what, _)| match what {
            What::Returned => standing.returned_at,
            What::Changed => standing.changed_at,
        });
        let at = instants.max().and_then(|at| if at <= now { Some(at) } else { usable_since(&standing, now, now_ms) });
        let ready = ready_at(dependency, &standing, at, now, now_ms);
        match ready {
            // It is down again: what it asks for waits for its return, others do not wait for that.
            None => {
                next.seen.extend(seen.map(|seen| (key, seen)));
                continue;
            }
            Some(until) if until > now_ms => wait = Some(earlier(wait, Some(until))),
            Some(_) => {}
        }
        deepest = deepest.max(news.iter().map(|(_, verb)| *verb).max());
        triggers.extend(news.into_iter().map(|(what, _)| Trigger { on: dependency.on.clone(), what }));
        after = after.max(at.unwrap_or(now));
        next.seen.insert(key, standing.counted);
    }
    if let Some(until) = wait {
        return Decision::Wait(until);
    }
    let Some(verb) = deepest else {
        return if next.seen == memory.seen { Decision::Nothing } else { Decision::Note(next) };
    };
    // Level by level: what a dependency without news is still to do, it will have done when its own change is the next news.
    if dependencies.iter().filter(|d| reacts(d)).any(|d| is_unsettled(&d.on)) {
        return Decision::Wait(None);
    }
    triggers.sort();
    triggers.dedup();
    next.recent.retain(|at| *at <= now && at.plus_millis(RELOADS.window_ms as i64) > now);
    if next.recent.len() >= RELOADS.tries as usize {
        let until = next.recent[0].plus_millis(RELOADS.window_ms as i64);
        let evidence = triggers.iter().map(Trigger::to_string).collect::<Vec<_>>().join(", ");
        return Decision::Spent { until, evidence };
    }
    next.recent.push(now);
    Decision::Reload { verb, triggers, after, memory: next }
}

/// Since when a dependency has been usable by the wall clock as it goes now. An instant in the future was before the clock went back: what
/// happened then was over by this one.
fn usable_since(standing: &Standing, now: Timestamp, now_ms: i64) -> Option<Timestamp> {
    standing.usable_since_ms.map(|since_ms| now.plus_millis(since_ms.saturating_sub(now_ms).min(0)))
}

/// When a dependency has been usable for long enough, in monotonic milliseconds; `None` = it is not usable.
fn ready_at(dependency: &Dependency, standing: &Standing, at: Option<Timestamp>, now: Timestamp, now_ms: i64) -> Option<i64> {
    let usable_since = standing.usable_since_ms?;
    let happened_ms = at.filter(|at| *at <= now).map_or(usable_since, |at| now_ms.saturating_sub(now.millis_since(at)));
    Some(usable_since.max(happened_ms).saturating_add(i64::try_from(dependency.debounce_ms).unwrap_or(i64::MAX)))
}

/// The earlier of two waits, where `None` inside waits for news.
fn earlier(wait: Option<Option<i64>>, until: Option<i64>) -> Option<i64> {
    match (wait.flatten(), until) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
