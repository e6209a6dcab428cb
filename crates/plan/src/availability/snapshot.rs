//! The published result: one immutable view a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::graph::Dependency;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_api::time::Timestamp;

use super::loss::{DownCause, History};
use super::node::NodeId;

/// Names kept of a path to a culprit; the nearest ones.
const PATH_LIMIT: usize = 32;
/// Culprits kept a node.
const BLOCKER_LIMIT: usize = 8;

/// A node that keeps another from being fully available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// Which.
    pub key: ObjectKey,
    /// Its own availability.
    pub availability: Availability,
    /// Why it is so.
    pub reason: Reason,
    /// The way to it, nearest first; at most 32 names.
    pub path: Vec<Arc<ObjectKey>>,
}

/// A dependency that is lost and whose loss does not count yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tolerated {
    /// Which.
    pub on: ObjectKey,
    /// Until when, in monotonic milliseconds.
    pub until_ms: i64,
}

/// How a node is by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnView {
    /// How available.
    pub availability: Availability,
    /// Why.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

/// How a node is, all counted.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Which.
    pub key: ObjectKey,
    /// The same, shared by all paths that lead through it.
    pub(super) hop: Arc<ObjectKey>,
    /// Why it is off the scale, if it is.
    pub off: Option<Reason>,
    /// How available; meaningless when it is off.
    pub availability: Availability,
    /// It cannot be observed now; this is what was last known.
    pub stale: bool,
    /// Why.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// Since when it has this availability.
    pub since: Timestamp,
    /// Its level.
    pub level: u32,
    /// How it is by itself.
    pub own: OwnView,
    /// Who keeps it from being fully available, at most 8.
    pub blocked_by: Vec<Blocker>,
    /// What it depends on.
    pub dependencies: Arc<[Dependency]>,
    /// Why it may not be used, where it may not.
    pub down: Option<DownCause>,
    /// What it has been through.
    pub history: History,
    /// Dependencies whose loss is tolerated for now.
    pub tolerated: Vec<Tolerated>,
    /// The lost dependency for which its workload is to be stopped until that returns.
    pub stopped_for: Option<ObjectKey>,
    /// The dependency that is off and for which it is [`Reason::Skipped`].
    pub skipped_for: Option<ObjectKey>,
}

impl NodeView {
    /// Whether it may be used now.
    pub fn usable(&self) -> bool {
        self.off.is_none() && self.availability.is_usable()
    }

    /// The severity from 1 to 6; 0 when it is off.
    pub fn severity(&self) -> u8 {
        if self.off.is_some() { 0 } else { self.availability.severity() }
    }

    /// Whether dependents could come out otherwise with `new` in place of this view.
    pub(super) fn differs_for_dependents(&self, new: &Self) -> bool {
        self.usable() != new.usable()
            || self.off != new.off
            || self.history.loss != new.history.loss
            || (!new.usable()
                && (self.down != new.down
                    || self.own != new.own
                    || self.blocked_by != new.blocked_by
                    || self.availability != new.availability))
    }

    /// The culprits that a dependent has through this node: itself if it is unusable by itself, and its own culprits.
    pub fn blockers_for_dependent(&self, into: &mut Vec<Blocker>) {
        // Asked before a path is made: in a graph with many ways to one culprit most of them are not wanted.
        let is_wanted = |into: &[Blocker], key: &ObjectKey| into.len() < BLOCKER_LIMIT && !into.iter().any(|b| b.key == *key);
        if (!self.own.availability.is_usable() || self.off.is_some()) && is_wanted(into, &self.key) {
            into.push(Blocker {
                key: self.key.clone(),
                availability: self.own.availability,
                reason: self.off.unwrap_or(self.own.reason),
                path: vec![self.hop.clone()],
            });
        }
        for blocker in self.blocked_by.iter().filter(|b| !b.availability.is_usable()) {
            if !is_wanted(into, &blocker.key) {
                continue;
            }
            let mut path = Vec::with_capacity((blocker.path.len() + 1).min(PATH_LIMIT));
            path.push(self.hop.clone());
            path.extend(blocker.path.iter().take(PATH_LIMIT - 1).cloned());
            let Blocker { key, availability, reason, .. } = blocker;
            into.push(Blocker { key: key.clone(), availability: *availability, reason: *reason, path });
        }
    }
}

/// The state of the whole graph at one version. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    version: u64,
    ids: Arc<BTreeMap<ObjectKey, NodeId>>,
    views: imbl::Vector<Option<Arc<NodeView>>>,
}

impl Snapshot {
    pub(super) fn new(version: u64, ids: Arc<BTreeMap<ObjectKey, NodeId>>, views: imbl::Vector<Option<Arc<NodeView>>>) -> Self {
        Self { version, ids, views }
    }

    /// Counts changes of any view since the engine was made.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// One node.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<NodeView>> {
        self.views.get(*self.ids.get(key)?)?.as_ref()
    }

    /// The nodes of one kind in a namespace, sorted by name.
    pub fn of_namespace(&self, kind: &str, namespace: &Name) -> impl Iterator<Item = &Arc<NodeView>> {
        let first = ObjectKey::new(kind, namespace.clone(), "");
        let (kind, namespace) = (first.kind.clone(), namespace.clone());
        let ids = self.ids.range(first..).take_while(move |(key, _)| key.kind == kind && key.namespace == namespace);
        ids.filter_map(|(_, id)| self.views.get(*id)?.as_ref())
    }

    /// All nodes, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<NodeView>> {
        self.ids.values().filter_map(|id| self.views.get(*id)?.as_ref())
    }
}
