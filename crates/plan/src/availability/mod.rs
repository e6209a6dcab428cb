//! The availability engine (DESIGN 3.1, 3.2): own health in, every node's availability out, along the dependency graph.
//!
//! Incremental: a change visits the nodes it affects and their edges, no others. Pure: time comes in as [`Now`]. The result is a
//! [`Snapshot`], cheap to clone and never changed after it was given away. Start at [`Engine::observe`].

mod loss;
mod node;
mod rollup;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::graph::Graph;
use qm_api::meta::ObjectKey;
use qm_api::time::Timestamp;

use crate::own::Own;
pub use loss::{DownCause, Epoch, History, Loss};
use node::{Node, NodeId, Recorded};
pub use rollup::{Counts, Rollup, counts};
pub use snapshot::{Blocker, NodeView, OwnView, Snapshot};

/// The two clocks: the wall for what people read, the monotonic one for every term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock.
    pub wall: Timestamp,
    /// Monotonic milliseconds of this process.
    pub mono_ms: u64,
}

/// What the manifests say of a node besides its edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long what was last known of it counts while it cannot be seen, in milliseconds.
    pub grace_ms: u64,
    /// Its failure is a failure of the system.
    pub critical: bool,
    /// It sums up what it depends on instead of being something by itself.
    pub rollup: Option<Rollup>,
}

/// What the store remembers of a node that this process has not observed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// What was counted.
    pub epoch: Epoch,
    /// It was down when the store heard of it last, for this reason ..
    pub down: Option<DownCause>,
    /// .. and it is so since then.
    pub since: Timestamp,
}

/// Work done since the engine was made; for tests and the bench.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nodes computed.
    pub nodes: u64,
    /// Edges looked at.
    pub edges: u64,
}

/// The engine.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    ids: Arc<BTreeMap<ObjectKey, NodeId>>,
    nodes: Vec<Option<Node>>,
    views: imbl::Vector<Option<Arc<NodeView>>>,
    deadlines: BTreeSet<(u64, NodeId)>,
    version: u64,
    stats: Stats,
}

impl Engine {
    /// Takes a new graph: nodes appear as never observed, keep what was known of them, or vanish. Gives the nodes whose view changed.
    pub fn set_graph(&mut self, graph: &Graph, settings: &impl Fn(&ObjectKey) -> Settings, now: Now) -> Vec<ObjectKey> {
        let mut ids: BTreeMap<ObjectKey, NodeId> = BTreeMap::new();
        let mut free: BTreeSet<NodeId> = (0..self.nodes.len()).collect();
        for key in graph.nodes() {
            if let Some(id) = self.ids.get(key) {
                free.remove(id);
                ids.insert(key.clone(), *id);
            }
        }
        for id in &free {
            self.deadlines.retain(|(_, at)| at != id);
            self.nodes[*id] = None;
            self.views.set(*id, None);
        }
        for key in graph.nodes() {
            if !ids.contains_key(key) {
                let id = free.pop_first().unwrap_or_else(|| {
                    self.nodes.push(None);
                    self.views.push_back(None);
                    self.nodes.len() - 1
                });
                self.nodes[id] = Some(Node::new(key.clone(), id, now));
                ids.insert(key.clone(), id);
            }
        }
        let mut dirty = BTreeSet::new();
        for (key, id) in &ids {
            let dependencies = graph.dependencies(key);
            let edges: Vec<Option<NodeId>> = dependencies.iter().map(|d| ids.get(&d.on).copied()).collect();
            let dependents: Vec<NodeId> = graph.dependents(key).iter().filter_map(|d| ids.get(d).copied()).collect();
            let node = self.nodes[*id].as_mut().expect("every id in use has a node");
            let Settings { grace_ms, critical, rollup } = settings(key);
            node.grace_ms = grace_ms;
            node.dependents = dependents;
            if node.critical != critical
                || node.rollup != rollup
                || node.level != graph.level(key)
                || node.edges != edges
                || *node.dependencies != *dependencies
                || self.views[*id].is_none()
            {
                node.critical = critical;
                node.rollup = rollup;
                node.level = graph.level(key);
                node.edges = edges;
                node.dependencies = Arc::from(dependencies);
                dirty.insert((node.level, *id));
            }
        }
        self.ids = Arc::new(ids);
        self.propagate(dirty, now)
    }

    /// What the store last recorded of a node that this process has not observed yet: it counts, marked stale, for the node's grace.
    pub fn seed(&mut self, key: &ObjectKey, availability: Availability, reason: Reason, since: Timestamp, now: Now) -> Vec<ObjectKey> {
        let Some(id) = self.ids.get(key).copied() else { return Vec::new() };
        let node = self.nodes[id].as_mut().expect("every id in use has a node");
        if !matches!(node.own, Own::Pending | Own::Unseen { .. }) || node.recorded.is_some() {
            return Vec::new();
        }
        node.recorded = Some(Recorded { availability, reason, since, until_ms: now.mono_ms.saturating_add(node.grace_ms) });
        self.touch(id, now)
    }

    /// What the store remembers of a node's losses: it was usable once, and may have been lost since. Counts go on from there.
    pub fn remember(&mut self, key: &ObjectKey, remembered: Remembered, now: Now) -> Vec<ObjectKey> {
        let Some(id) = self.ids.get(key).copied() else { return Vec::new() };
        let node = self.nodes[id].as_mut().expect("every id in use has a node");
        let now_ms = i64::try_from(now.mono_ms).unwrap_or(i64::MAX);
        // A loss in the future began before the clock went back: now.
        let ago_ms = now.wall.millis_since(remembered.since).max(0);
        let since_ms = now_ms - ago_ms;
        let failed = |cause| (cause == DownCause::Failed).then_some(since_ms);
        let loss = |cause| Loss { since_ms, cause, own_change: cause == DownCause::Changing, failed_since_ms: failed(cause) };
        node.history = History { was_usable: true, loss: remembered.down.map(loss), usable_since_ms: None, epoch: remembered.epoch };
        self.touch(id, now)
    }

    /// Whether a planned change is under way at a node.
    pub fn is_changing(&self, key: &ObjectKey) -> bool {
        self.ids.get(key).and_then(|id| self.nodes[*id].as_ref()).is_some_and(|node| node.changing)
    }

    /// Says that a planned change of ours, or a person's, is under way at a node, or that it is not any more.
    pub fn set_changing(&mut self, key: &ObjectKey, changing: bool, now: Now) -> Vec<ObjectKey> {
        let Some(id) = self.ids.get(key).copied() else { return Vec::new() };
        let node = self.nodes[id].as_mut().expect("every id in use has a node");
        if node.changing == changing {
            return Vec::new();
        }
        node.changing = changing;
        self.touch(id, now)
    }

    /// Takes what was observed of a node by itself. Gives the nodes whose view changed, in the order of their levels.
    pub fn observe(&mut self, key: &ObjectKey, own: Own, now: Now) -> Vec<ObjectKey> {
        let Some(id) = self.ids.get(key).copied() else { return Vec::new() };
        let node = self.nodes[id].as_mut().expect("every id in use has a node");
        if node.own == own {
            return Vec::new();
        }
        node.set_own(own, now);
        self.touch(id, now)
    }

    /// Lets time pass: graces end. Gives the nodes whose view changed.
    pub fn advance(&mut self, now: Now) -> Vec<ObjectKey> {
        let mut dirty = BTreeSet::new();
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= now.mono_ms
        {
            self.deadlines.pop_first();
            if let Some(node) = &self.nodes[id] {
                dirty.insert((node.level, id));
            }
        }
        self.propagate(dirty, now)
    }

    /// The monotonic instant at which [`Engine::advance`] has something to do.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The state as of now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.version, self.ids.clone(), self.views.clone())
    }

    /// Work done so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn touch(&mut self, id: NodeId, now: Now) -> Vec<ObjectKey> {
        let level = self.nodes[id].as_ref().map_or(0, |n| n.level);
        self.propagate(BTreeSet::from([(level, id)]), now)
    }

    /// Recomputes from `dirty` on, lowest level first, until nothing changes. Edges outside the level order (a Degrade edge that does
    /// not gate) may bring a node back; it settles, since such an edge never makes a usable node unusable.
    fn propagate(&mut self, mut dirty: BTreeSet<(u32, NodeId)>, now: Now) -> Vec<ObjectKey> {
        let mut changed: Vec<ObjectKey> = Vec::new();
        let mut seen: BTreeSet<NodeId> = BTreeSet::new();
        while let Some((_, id)) = dirty.pop_first() {
            let Some(node) = &mut self.nodes[id] else { continue };
            self.stats.nodes += 1;
            self.stats.edges += node.edges.len() as u64;
            let (view, deadline) = node.compute(&self.views, now);
            node.history = view.history;
            if let Some(at) = deadline {
                self.deadlines.insert((at, id));
            }
            if self.views[id].as_deref() == Some(&view) {
                continue;
            }
            let old = self.views[id].as_deref();
            let matters = old.is_none_or(|old| old.differs_for_dependents(&view));
            let matters_above = matters || old.is_none_or(|old| old.availability != view.availability || old.stale != view.stale);
            if seen.insert(id) {
                changed.push(view.key.clone());
            }
            self.views.set(id, Some(Arc::new(view)));
            if matters_above {
                for dependent in &self.nodes[id].as_ref().expect("just computed").dependents {
                    let node = self.nodes[*dependent].as_ref();
                    if let Some(node) = node.filter(|node| matters || node.rollup.is_some()) {
                        dirty.insert((node.level, *dependent));
                    }
                }
            }
        }
        if !changed.is_empty() {
            self.version += 1;
        }
        changed
    }
}

#[cfg(test)]
mod tests;
