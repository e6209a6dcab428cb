//! One node: what is known of it, and how its view follows from that and from the views of its dependencies.

use std::sync::Arc;

use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::graph::Dependency;
use qm_api::meta::ObjectKey;
use qm_api::mutant::{Mutant, planted};
use qm_api::spec::edge::OnDown;
use qm_api::spec::quantity::Tolerate;
use qm_api::time::Timestamp;

use super::loss::{DownCause, History, Standing};
use super::rollup::{Sum, sum_up};
use super::snapshot::{Blocker, NodeView, OwnView, Tolerated};
use super::{Now, Rollup};
use crate::own::Own;

/// Index of a node; used again after its node vanished.
pub(super) type NodeId = usize;

/// What was last known of a node that cannot be observed now, and until when that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) availability: Availability,
    pub(super) reason: Reason,
    pub(super) since: Timestamp,
    /// Monotonic milliseconds.
    pub(super) until_ms: u64,
}

/// What is known of a node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) key: ObjectKey,
    /// The same, shared by all paths that lead through it.
    hop: Arc<ObjectKey>,
    pub(super) own: Own,
    pub(super) recorded: Option<Recorded>,
    pub(super) grace_ms: u64,
    pub(super) critical: bool,
    /// It is the sum of its dependencies.
    pub(super) rollup: Option<Rollup>,
    /// A planned change is under way.
    pub(super) changing: bool,
    pub(super) history: History,
    pub(super) level: u32,
    pub(super) dependencies: Arc<[Dependency]>,
    /// The node of each dependency, where it exists.
    pub(super) edges: Vec<Option<NodeId>>,
    pub(super) dependents: Vec<NodeId>,
    /// Its own index, for looking up what was last published of it.
    pub(super) id: NodeId,
    born: Timestamp,
}

/// What one edge contributes.
enum Contribution {
    Nothing,
    /// The dependency is off by configuration and the dependent cannot do without it.
    Skips,
    /// The dependency is lost, and that does not count before this monotonic millisecond.
    Tolerated {
        until_ms: i64,
    },
    /// It counts.
    Lowers {
        availability: Availability,
        /// The workload is to be stopped.
        stops: bool,
        /// It will be at this monotonic millisecond, if nothing changes.
        stops_at_ms: Option<i64>,
    },
}

impl Node {
    pub(super) fn new(key: ObjectKey, id: NodeId, now: Now) -> Self {
        Self {
            hop: Arc::new(key.clone()),
            key,
            own: Own::Pending,
            recorded: None,
            grace_ms: 0,
            critical: false,
            rollup: None,
            changing: false,
            history: History::default(),
            level: 0,
            dependencies: Arc::from([]),
            edges: Vec::new(),
            dependents: Vec::new(),
            id,
            born: now.wall,
        }
    }

    pub(super) fn set_own(&mut self, own: Own, now: Now) {
        let is_unseen = matches!(own, Own::Unseen { .. } | Own::Pending);
        match (&self.own, is_unseen) {
            // What was seen last is what counts while we are blind.
            (Own::Seen { availability, reason, .. }, true) => {
                self.recorded = Some(Recorded {
                    // As it was told: a critical node that failed is not less of a failure while nobody sees it.
                    availability: self.escalated(*availability),
                    reason: *reason,
                    since: now.wall,
                    until_ms: match planted(Mutant::NoGrace) {
                        true => now.mono_ms,
                        false => now.mono_ms.saturating_add(self.grace_ms),
                    },
                });
            }
            (_, true) => {}
            (_, false) => self.recorded = None,
        }
        self.own = own;
    }

    /// The view, and the monotonic instant at which it changes by the passing of time alone.
    pub(super) fn compute(&self, views: &imbl::Vector<Option<Arc<NodeView>>>, now: Now) -> (NodeView, Option<u64>) {
        let children = || self.edges.iter().map(|edge| edge.and_then(|id| views.get(id)?.as_deref()));
        let sum = self.rollup.map(|rollup| sum_up(rollup, children()));
        let (mut own, mut off, mut stale, mut deadline) = self.own_view(now);
        let mut worst: Option<(Availability, ObjectKey, DownCause)> = None;
        let mut blocked_by: Vec<Blocker> = Vec::new();
        let mut tolerated: Vec<Tolerated> = Vec::new();
        let mut stopped_for: Option<ObjectKey> = None;
        let mut skipped_for: Option<&ObjectKey> = None;
        for (dependency, edge) in self.dependencies.iter().zip(&self.edges) {
            let view = edge.and_then(|id| views.get(id)).and_then(Option::as_ref);
            match contribution(dependency, view, now) {
                Contribution::Nothing => {}
                Contribution::Skips => skipped_for = skipped_for.or(Some(&dependency.on)),
                Contribution::Tolerated { until_ms } => {
                    let at = u64::try_from(until_ms).unwrap_or(0);
                    deadline = Some(deadline.map_or(at, |d| d.min(at)));
                    tolerated.push(Tolerated { on: dependency.on.clone(), until_ms });
                }
                Contribution::Lowers { availability, stops, stops_at_ms } => {
                    if let Some(at) = stops_at_ms.map(|at| u64::try_from(at).unwrap_or(0)) {
                        deadline = Some(deadline.map_or(at, |d| d.min(at)));
                    }
                    let cause = view.and_then(|v| v.down).unwrap_or(DownCause::Unknown);
                    // Among equals the one with the most evidence counts.
                    if worst.as_ref().is_none_or(|(w, _, c)| (availability, cause) > (*w, *c)) {
                        worst = Some((availability, dependency.on.clone(), cause));
                    }
                    if stops && stopped_for.is_none() {
                        stopped_for = Some(dependency.on.clone());
                    }
                    match view {
                        Some(view) => view.blockers_for_dependent(&mut blocked_by),
                        None => blocked_by.push(missing(dependency)),
                    }
                }
            }
        }
        let mut summed: Option<(Reason, String)> = None;
        if let Some(Sum { availability, reason, message, culprit }) = sum {
            own = OwnView { availability: Availability::Available, reason, message: message.clone() };
            stale = children().flatten().any(|child| child.stale);
            match culprit {
                Some((child, cause)) => worst = Some((availability, child, cause)),
                // Nobody below is to blame.
                None => own.availability = availability,
            }
            children()
                .flatten()
                .filter(|child| !child.usable() && child.off.is_none())
                .for_each(|c| c.blockers_for_dependent(&mut blocked_by));
            summed = Some((reason, message));
        }
        if off.is_none() && skipped_for.is_some() {
            off = Some(Reason::Skipped);
        }
        let (availability, reason, message) = match (&worst, skipped_for) {
            (_, Some(on)) if off == Some(Reason::Skipped) => {
                (own.availability, Reason::Skipped, format!("{}/{} is off", on.namespace, on.name))
            }
            (Some((availability, ..)), _)
                if let Some((reason, message)) = summed
                    && *availability > own.availability =>
            {
                (*availability, reason, message)
            }
            (Some((availability, on, DownCause::Changing)), _) if *availability > own.availability && off.is_none() => {
                (*availability, Reason::DependencyChanging, format!("{}/{} is being changed", on.namespace, on.name))
            }
            (Some((availability, on, _)), _) if *availability > own.availability && off.is_none() => {
                (*availability, Reason::DependencyUnavailable, format!("{}/{} is not usable", on.namespace, on.name))
            }
            _ => (own.availability, own.reason, own.message.clone()),
        };
        let stale_since = self.recorded.as_ref().filter(|_| stale).map(|r| r.since);
        let old = self.old_view(views);
        let since = match (old, stale_since) {
            (Some(old), _) if old.off == off && old.availability == availability => old.since,
            // What was last known counts since it was so, not since this process began.
            (_, Some(recorded)) if availability == own.availability => recorded,
            (Some(_), _) => now.wall,
            // As long as its youngest child has been as it is.
            (None, _) if self.rollup.is_some() => children().flatten().map(|child| child.since).max().unwrap_or(self.born),
            (None, _) => self.born,
        };
        let standing = self.standing(availability, off, &own, worst.as_ref().map(|(_, _, cause)| *cause));
        let down = match standing {
            Standing::Down { cause, .. } => Some(cause),
            Standing::Usable | Standing::Off => None,
        };
        let view = NodeView {
            down,
            history: self.history.after(standing, now),
            tolerated,
            stopped_for: stopped_for.filter(|_| off.is_none()),
            skipped_for: skipped_for.filter(|_| off == Some(Reason::Skipped)).cloned(),
            key: self.key.clone(),
            hop: self.hop.clone(),
            off,
            availability,
            stale,
            reason,
            message,
            since,
            level: self.level,
            own,
            blocked_by,
            dependencies: self.dependencies.clone(),
        };
        (view, deadline)
    }

    /// How it stands, and whose fault it is where it is down: its own, or that of the dependency with the most evidence.
    fn standing(&self, availability: Availability, off: Option<Reason>, own: &OwnView, worst: Option<DownCause>) -> Standing {
        if off.is_some() {
            return Standing::Off;
        }
        if availability.is_usable() {
            return Standing::Usable;
        }
        if own.availability.is_usable() {
            return Standing::Down { cause: worst.unwrap_or(DownCause::Unknown), own_change: false };
        }
        let cause = match &self.own {
            // A person means it as much as we do.
            Own::Seen { reason: Reason::BlockedByPerson, .. } => DownCause::Changing,
            Own::Seen { .. } if self.changing => DownCause::Changing,
            Own::Seen { .. } => DownCause::Failed,
            // A failure that was seen goes on while nobody can see whether it has ended.
            _ => DownCause::Unknown,
        };
        Standing::Down { cause, own_change: cause == DownCause::Changing }
    }

    /// A failure of what everything rests on is one of the system. What is only on its way up, or being changed, has not failed.
    fn escalated(&self, availability: Availability) -> Availability {
        let is_blocked = matches!(self.own, Own::Seen { reason: Reason::BlockedByPerson, .. });
        let has_failed = !is_blocked && (self.history.was_usable || availability == Availability::Unavailable);
        if self.critical && !availability.is_usable() && has_failed && !self.changing { Availability::SystemFailure } else { availability }
    }

    fn old_view<'a>(&self, views: &'a imbl::Vector<Option<Arc<NodeView>>>) -> Option<&'a Arc<NodeView>> {
        views.get(self.id).and_then(Option::as_ref)
    }

    /// Own health as it counts now: `(own, off, stale, deadline)`.
    fn own_view(&self, now: Now) -> (OwnView, Option<Reason>, bool, Option<u64>) {
        let four =
            |reason, message: &str| OwnView { availability: Availability::TemporarilyUnavailable, reason, message: message.to_owned() };
        let remembered = self.recorded.as_ref().filter(|r| r.until_ms > now.mono_ms || planted(Mutant::EndlessGrace));
        match (&self.own, remembered) {
            (Own::Off(reason), _) => (
                OwnView { availability: Availability::Available, reason: *reason, message: "off by configuration".to_owned() },
                Some(*reason),
                false,
                None,
            ),
            (Own::Seen { availability, reason, message }, _) => {
                (OwnView { availability: self.escalated(*availability), reason: *reason, message: message.clone() }, None, false, None)
            }
            (Own::Pending | Own::Unseen { .. }, Some(recorded)) => {
                let message = match &self.own {
                    Own::Unseen { message, .. } => format!("last known: {message}"),
                    _ => "last known: not observed since the start".to_owned(),
                };
                let until = (!planted(Mutant::EndlessGrace)).then_some(recorded.until_ms);
                (OwnView { availability: recorded.availability, reason: recorded.reason, message }, None, true, until)
            }
            (Own::Pending, None) if self.recorded.is_some() => (four(Reason::Unknown, "not observed since the start"), None, false, None),
            (Own::Pending, None) => (four(Reason::Pending, "not observed yet"), None, false, None),
            (Own::Unseen { reason, message }, None) => (four(*reason, message), None, false, None),
        }
    }
}

fn contribution(dependency: &Dependency, view: Option<&Arc<NodeView>>, now: Now) -> Contribution {
    if let Some(until_ms) = view.and_then(|view| tolerated_until(dependency, view))
        && until_ms > i64::try_from(now.mono_ms).unwrap_or(i64::MAX)
    {
        return Contribution::Tolerated { until_ms };
    }
    let hard = matches!(dependency.on_down, OnDown::Block | OnDown::Stop);
    match (view, dependency.on_down) {
        (Some(view), _) if view.usable() => Contribution::Nothing,
        (_, OnDown::Ignore) if !planted(Mutant::IgnoreBlocks) => Contribution::Nothing,
        (Some(view), _) if view.off.is_some() => {
            if hard {
                Contribution::Skips
            } else {
                Contribution::Nothing
            }
        }
        (Some(view), OnDown::Degrade) if view.own.availability == Availability::SystemFailure => {
            Contribution::Lowers { availability: Availability::TemporarilyUnavailable, stops: false, stops_at_ms: None }
        }
        (_, OnDown::Degrade) if planted(Mutant::DegradeIsFine) => Contribution::Nothing,
        (_, OnDown::Block) if planted(Mutant::BlockIsFine) => Contribution::Nothing,
        (_, OnDown::Degrade) => Contribution::Lowers { availability: Availability::PartiallyAvailable, stops: false, stops_at_ms: None },
        (view, OnDown::Block | OnDown::Stop | OnDown::Ignore) => {
            let now_ms = i64::try_from(now.mono_ms).unwrap_or(i64::MAX);
            let at = view.filter(|_| dependency.on_down == OnDown::Stop).and_then(|view| stops_at(dependency, view));
            Contribution::Lowers {
                availability: Availability::TemporarilyUnavailable,
                stops: at.is_some_and(|at| at <= now_ms),
                stops_at_ms: at.filter(|at| *at > now_ms),
            }
        }
    }
}

/// When the loss of a dependency stops its dependent, in monotonic milliseconds. Only an observed loss does, and its tolerance runs from
/// where it was observed: what was never usable has not been lost, what is unknown or being changed may be there.
fn stops_at(dependency: &Dependency, view: &NodeView) -> Option<i64> {
    let loss = view.history.loss.filter(|loss| loss.cause == DownCause::Failed)?;
    Some(loss.failed_since_ms?.saturating_add(tolerance_ms(dependency)))
}

fn tolerance_ms(dependency: &Dependency) -> i64 {
    match dependency.tolerate {
        Tolerate::For(duration) if !planted(Mutant::EndlessTolerance) => i64::try_from(duration.as_millis()).unwrap_or(i64::MAX),
        Tolerate::For(duration) if duration.as_millis() > 0 => i64::MAX,
        Tolerate::For(_) | Tolerate::Lease => 0,
    }
}

/// Until when the loss of a dependency does not count, in monotonic milliseconds. One that was never usable is not tolerated.
fn tolerated_until(dependency: &Dependency, view: &NodeView) -> Option<i64> {
    let loss = view.history.loss?;
    let ms = tolerance_ms(dependency);
    (ms > 0 && dependency.on_down != OnDown::Ignore).then(|| loss.since_ms.saturating_add(ms))
}

fn missing(dependency: &Dependency) -> Blocker {
    Blocker {
        key: dependency.on.clone(),
        availability: Availability::TemporarilyUnavailable,
        reason: Reason::Pending,
        path: vec![Arc::new(dependency.on.clone())],
    }
}
