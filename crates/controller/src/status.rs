//! The one status writer: computes status from the picture of the world and writes it when it differs (DESIGN 4, step 8).
//!
//! A status write never starts a pass: watchers of the store look at specs only. Statuses of many objects go into one transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use qm_api::availability::Availability;
use qm_api::conditions::{Condition, ConditionStatus, ConditionType, Reason, set_condition};
use qm_api::kinds::mini_container::{self, Children, MiniContainerStatus};
use qm_api::kinds::mini_service::{self, DependencyStatus, MiniServiceStatus, RevisionSummary, SlotStatus};
use qm_api::kinds::network::NetworkStatus;
use qm_api::lock::LockMode;
use qm_api::meta::{Object, ObjectKey};
use qm_api::spec::report::{BlockedBy, Dependents};
use qm_api::time::Timestamp;
use qm_plan::availability::{DownCause, NodeView, counts};
use qm_plan::desired::{DesiredService, Rollout};
use qm_plan::kinds::mini_container::left_in_words;
use qm_plan::kinds::network::current;
use qm_plan::observed::ServiceView;
use qm_plan::own::{healthy_at, replicas};
use qm_plan::plan::Finding;
use qm_plan::reload::{Verb, reacts};
use qm_store::{Durability, Store, StoreError};
use serde_json::Value;

use crate::controller::{Controller, Memory};
use crate::events::EventType;
use crate::intents;
use crate::jobs::RUN_ENDS;
use crate::records::{EPOCH, EpochRecord, epoch};

/// Dependents named in a status.
const NAMED: usize = 50;
/// Statuses in one transaction.
const BATCH: usize = 256;

/// Writes for ever.
pub async fn run(controller: Arc<Controller>) {
    loop {
        let batch = controller.world.next_status_batch().await;
        let keys: Vec<ObjectKey> = batch.into_iter().collect();
        for keys in keys.chunks(BATCH) {
            write(&controller, keys).await;
        }
    }
}

async fn write(controller: &Controller, keys: &[ObjectKey]) {
    let snapshot = controller.store.snapshot();
    let mut tx = controller.store.tx();
    let mut any = false;
    for key in keys {
        let Some(object) = snapshot.get(key) else {
            controller.drop_metrics(key);
            continue;
        };
        let status = match key.kind.as_str() {
            mini_service::KIND => controller.service_status(object).map(plain),
            mini_container::KIND => controller.parent_status(object).map(plain),
            "Network" => Some(plain(controller.network_status(object))),
            _ => None,
        };
        let Some(status) = status else { continue };
        if *object.status != status {
            controller.tell_change(key, &object.status, &status);
            tx.put_status(key.clone(), None, Arc::new(status));
            any = true;
        }
    }
    if any && let Err(error) = tx.commit(Durability::Soon).await {
        // One object of the batch may be gone by now: the others must not suffer for it.
        tracing::debug!(error = %error, "a batch of statuses was refused; one at a time");
        for key in keys {
            one_by_one(&controller.store, controller, key).await;
        }
    }
    for key in keys {
        if let Err(error) = controller.count_epoch(key).await {
            // What dependents react to must not be lost: it is tried again in a moment.
            tracing::warn!(object = %key, error = %error, "an epoch could not be stored");
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            controller.world.mark_status([key.clone()]);
        }
    }
}

async fn one_by_one(store: &Store, controller: &Controller, key: &ObjectKey) {
    let snapshot = store.snapshot();
    let Some(object) = snapshot.get(key) else { return };
    let status = match key.kind.as_str() {
        mini_service::KIND => controller.service_status(object).map(plain),
        mini_container::KIND => controller.parent_status(object).map(plain),
        _ => Some(plain(controller.network_status(object))),
    };
    let Some(status) = status else { return };
    let mut tx = store.tx();
    tx.put_status(key.clone(), None, Arc::new(status));
    match tx.commit(Durability::Soon).await {
        Ok(_) | Err(StoreError::NotFound { .. }) => {}
        Err(error) => {
            tracing::warn!(object = %key, error = %error, "a status could not be stored");
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            controller.world.mark_status([key.clone()]);
        }
    }
}

fn plain(status: impl serde::Serialize) -> Value {
    serde_json::to_value(status).expect("a status is plain data")
}

impl Controller {
    fn tell_change(&self, key: &ObjectKey, old: &Value, new: &Value) {
        let word = |status: &Value| status["availability"].as_str().unwrap_or("off").to_owned();
        if key.kind == "Network" || word(old) == word(new) {
            return;
        }
        let usable = new["usable"].as_bool().unwrap_or(false);
        let kind = if usable || new["availability"].is_null() || old.is_null() { EventType::Normal } else { EventType::Warning };
        let message =
            format!("{} ({}): {}", word(new), new["reason"].as_str().unwrap_or_default(), new["message"].as_str().unwrap_or_default());
        self.tell(key, kind, Reason::AvailabilityChanged, message);
    }

    /// The status of a service, from the picture as it is now; `None` while nothing is known of it.
    pub fn service_status(&self, object: &Object) -> Option<MiniServiceStatus> {
        let key = &object.key;
        let snapshot = self.world.availability();
        let desired = self.world.service(key)?;
        let node = snapshot.get(key)?;
        let memory = self.remember(key, |m| m.clone());
        let suspended = intents::suspension(&self.store.snapshot(), object, self.now());
        let old: Option<MiniServiceStatus> = object.decode_status().ok().flatten();
        let (view, graph) = {
            let inner = self.world.lock();
            (inner.service_view(&desired, &BTreeSet::new()), inner.graph.clone())
        };
        // What cannot be seen is what it was.
        let is_blind = !view.gaps.is_empty();
        let (old_counts, old_slots) = old.as_ref().filter(|_| is_blind).map(|s| (s.replicas, s.slots.clone())).unzip();
        let counts = old_counts.unwrap_or_else(|| desired.replicated().map(|_| replicas(&desired, &view)));
        let dependents = graph.dependents(key);
        let revisions = self.revisions_of(key);
        let mut conditions = old.map(|s| s.conditions).unwrap_or_default();
        let is_whole =
            counts.is_none_or(|c| c.healthy >= c.wanted) && (desired.replicated().is_some() || node.own.availability.is_usable());
        let pulling = memory.pulling.as_deref().map(|image| self.pulls.words(image));
        let lock = self.locks.status(key);
        let changed_by = lock.as_ref().and_then(|lock| lock.holder.as_deref());
        let usable = node.usable() && changed_by.is_none();
        self.set_metrics(key, node, suspended.is_some(), lock.as_ref().map(|lock| lock.mode), &snapshot);
        if desired.job().is_some() {
            self.count_runs_from_zero(key);
        }
        let (reason, message) = match (&pulling, changed_by) {
            (Some(words), _) if !node.usable() => (Reason::Pulling, words.clone()),
            (_, Some(holder)) if node.usable() => (Reason::Changing, format!("{holder} changes it")),
            _ => (node.reason, node.message.clone()),
        };
        for mut condition in conditions_of(object, node, &memory, is_whole, suspended.as_deref(), pulling.as_deref(), self.now()) {
            if condition.kind == ConditionType::Usable && node.usable() && !usable {
                (condition.status, condition.reason, condition.message) = (ConditionStatus::False, reason, message.clone());
            }
            set_condition(&mut conditions, condition);
        }
        Some(MiniServiceStatus {
            observed_generation: if memory.clean || memory.seen_generation > 0 { memory.seen_generation } else { 0 },
            availability: node.off.is_none().then_some(node.availability),
            severity: node.severity(),
            usable,
            stale: node.stale,
            since: node.since,
            reason: node.off.unwrap_or(reason),
            message,
            level: node.level,
            replicas: counts,
            slots: old_slots.unwrap_or_else(|| slots(&desired, &view)),
            blocked_by: blockers(&desired, node, &snapshot).iter().map(blocked_by).collect(),
            dependencies: desired
                .dependencies
                .iter()
                .map(|d| DependencyStatus {
                    kind: d.on.kind.to_string(),
                    namespace: d.on.namespace.to_string(),
                    name: d.on.name.to_string(),
                    on_down: d.on_down,
                    availability: snapshot.get(&d.on).filter(|v| v.off.is_none()).map(|v| v.availability),
                    tolerated: node.tolerated.iter().any(|t| t.on == d.on),
                })
                .collect(),
            dependents: dependents_of(dependents),
            lock,
            job: self.job_status(&desired),
            revision: match &desired.rollout {
                Rollout::RolledBack { to, .. } => Some(*to),
                Rollout::Wanted | Rollout::Paused { .. } => revisions.first().map(|r| r.revision.number),
            },
            history: revisions
                .iter()
                .map(|r| RevisionSummary {
                    number: r.revision.number,
                    image: r.revision.image.clone(),
                    image_id: r.revision.image_id.clone(),
                    created_at: r.created_at,
                    proven_at: r.proven_at,
                })
                .collect(),
            findings: memory.findings.iter().map(|f| format!("{}: {}", f.reason, f.message)).collect(),
            conditions,
        })
    }

    /// The status of a mini container; `None` while nothing is known of it.
    pub fn parent_status(&self, object: &Object) -> Option<MiniContainerStatus> {
        let key = &object.key;
        let snapshot = self.world.availability();
        let node = snapshot.get(key)?;
        let graph = self.world.graph();
        let children: Vec<&ObjectKey> = graph.dependencies(key).iter().map(|child| &child.on).collect();
        self.metrics.parent_availability.with_label_values(&[&*key.namespace, &*key.name]).set(i64::from(node.severity()));
        let counts = counts(children.iter().map(|child| snapshot.get(child).map(std::convert::AsRef::as_ref)));
        let dependents = graph.dependents(key);
        let old: Option<MiniContainerStatus> = object.decode_status().ok().flatten();
        let message = match object.is_deleting() {
            true => left_in_words(&self.children_left(object)),
            false => node.message.clone(),
        };
        let mut conditions = old.map(|status| status.conditions).unwrap_or_default();
        let (is_ready, usable) = (node.availability <= Availability::AlmostAvailable && !object.is_deleting(), node.usable());
        let make = |kind, holds: bool| condition(kind, holds, node.reason, &message, object.meta.generation, self.now());
        for condition in
            [make(ConditionType::Ready, is_ready), make(ConditionType::Reconciling, !is_ready), make(ConditionType::Usable, usable)]
        {
            set_condition(&mut conditions, condition);
        }
        Some(MiniContainerStatus {
            observed_generation: self.remember(key, |m| m.seen_generation),
            availability: node.availability,
            severity: node.severity(),
            usable,
            stale: node.stale,
            since: node.since,
            reason: node.reason,
            message,
            level: node.level,
            children: Children {
                total: counts.total,
                enabled: counts.enabled,
                usable: counts.usable,
                available: counts.available,
                summary: format!("{}/{}", counts.usable, counts.enabled),
                names: children.iter().take(NAMED).map(|child| child.name.to_string()).collect(),
            },
            blocked_by: node.blocked_by.iter().map(blocked_by).collect(),
            dependents: dependents_of(dependents),
            conditions,
        })
    }

    /// The children that are still there, each with what it waits for.
    fn children_left(&self, parent: &Object) -> Vec<(ObjectKey, String)> {
        let words = |child: &Arc<Object>| {
            let trouble = self.world.trouble(&child.key).map(|trouble| trouble.message);
            let waits = || self.remember(&child.key, |m| m.waits.join(", "));
            let waits = if child.is_deleting() { trouble.unwrap_or_else(waits) } else { "it is not being deleted".to_owned() };
            (child.key.clone(), waits)
        };
        self.children_of(parent).iter().map(words).collect()
    }

    /// The status of a network.
    pub fn network_status(&self, object: &Object) -> NetworkStatus {
        let key = &object.key;
        let memory = self.remember(key, |m| m.clone());
        let old: NetworkStatus = object.decode_status().ok().flatten().unwrap_or_default();
        let inner = self.world.lock();
        let is_blind = inner.engine_gap().is_some();
        let view = inner.network_view(key);
        let network = inner.nets.get(key).and_then(|wanted| current(wanted, &view.networks).cloned());
        drop(inner);
        let mut status =
            NetworkStatus { observed_generation: memory.seen_generation, conditions: old.conditions.clone(), ..NetworkStatus::default() };
        if is_blind {
            // What cannot be seen is what it was.
            status = NetworkStatus { conditions: status.conditions, ..old };
        } else if let Some(network) = &network {
            status.network_id = Some(network.id.to_string());
            status.engine_name = Some(network.name.to_string());
            status.revision = network.stamp.as_ref().map_or(0, |s| s.revision);
        }
        let stall = memory.findings.iter().find(|f| f.stalls);
        let ready = memory.clean && stall.is_none() && (network.is_some() || is_blind);
        let now = self.now();
        let asks = memory.findings.iter().find(|f| f.reason == Reason::NetworkInUse);
        let trouble = self.world.trouble(key);
        let (reason, message) = match (stall, ready, asks, &trouble) {
            (Some(finding), ..) => (finding.reason, finding.message.clone()),
            (None, true, ..) => (Reason::AsWanted, String::new()),
            (None, false, Some(finding), _) => (Reason::ApprovalNeeded, finding.message.clone()),
            (None, false, None, Some(trouble)) => (trouble.reason, trouble.message.clone()),
            (None, false, None, None) => (Reason::Creating, memory.waits.join("; ")),
        };
        let make = |kind, holds: bool| condition(kind, holds, reason, &message, object.meta.generation, now);
        for condition in [
            make(ConditionType::Ready, ready),
            make(ConditionType::Reconciling, !ready && stall.is_none()),
            make(ConditionType::Stalled, stall.is_some()),
        ] {
            set_condition(&mut status.conditions, condition);
        }
        status
    }

    fn set_metrics(
        &self,
        key: &ObjectKey,
        node: &NodeView,
        suspended: bool,
        lock: Option<LockMode>,
        snapshot: &qm_plan::availability::Snapshot,
    ) {
        let labels: [&str; 2] = [&key.namespace, &key.name];
        if node.off.is_some() {
            // Off the scale: no sample. That it had none before is no error.
            drop(self.metrics.availability.remove_label_values(&labels));
        } else {
            self.metrics.availability.with_label_values(&labels).set(i64::from(node.severity()));
        }
        self.metrics.usable.with_label_values(&labels).set(i64::from(node.usable() && lock != Some(LockMode::Change)));
        for mode in [LockMode::Use, LockMode::Change] {
            let labels = [labels[0], labels[1], mode.word()];
            self.metrics.lock_held.with_label_values(&labels).set(i64::from(lock == Some(mode)));
        }
        // Counters that are there before the first event: an increase from nothing is none to who looks at it.
        if node.dependencies.iter().any(reacts) {
            for verb in Verb::ALL {
                self.metrics.reloads.with_label_values(&[labels[0], labels[1], verb.word()]).inc_by(0);
            }
        }
        self.metrics.suspended.with_label_values(&[&key.kind, &key.namespace, &key.name]).set(i64::from(suspended));
        for dependency in node.dependencies.iter() {
            let up = snapshot.get(&dependency.on).is_some_and(|v| v.usable());
            self.metrics.dependency_up.with_label_values(&[&key.namespace, &key.name, &dependency.on.name]).set(i64::from(up));
        }
    }

    fn drop_metrics(&self, key: &ObjectKey) {
        let labels: [&str; 2] = [&key.namespace, &key.name];
        // A sample that was never there is as gone as it should be.
        if key.kind == mini_container::KIND {
            drop(self.metrics.parent_availability.remove_label_values(&labels));
            return;
        }
        for verb in Verb::ALL {
            drop(self.metrics.reloads.remove_label_values(&[labels[0], labels[1], verb.word()]));
        }
        for result in RUN_ENDS {
            drop(self.metrics.job_runs.remove_label_values(&[labels[0], labels[1], result]));
        }
        drop(self.metrics.availability.remove_label_values(&labels));
        drop(self.metrics.usable.remove_label_values(&labels));
        for mode in [LockMode::Use, LockMode::Change] {
            drop(self.metrics.lock_held.remove_label_values(&[labels[0], labels[1], mode.word()]));
        }
        drop(self.metrics.suspended.remove_label_values(&[&key.kind, &key.namespace, &key.name]));
        for other in self.world.graph().nodes() {
            drop(self.metrics.dependency_up.remove_label_values(&[&key.namespace, &key.name, &other.name]));
        }
    }

    /// Keeps the epoch of a node: how many observed losses have ended, and the last revision that was usable.
    async fn count_epoch(&self, key: &ObjectKey) -> Result<(), StoreError> {
        if key.kind != mini_service::KIND {
            return Ok(());
        }
        let snapshot = self.world.availability();
        let Some(node) = snapshot.get(key).filter(|n| n.history.was_usable) else { return Ok(()) };
        let record_key = ObjectKey::new(EPOCH, key.namespace.clone(), key.name.clone());
        let store = self.store.snapshot();
        if store.get(key).is_none_or(|o| o.is_deleting()) {
            return Ok(());
        }
        let stored = epoch(&store, key);
        let old = stored.unwrap_or_default();
        let (counted, loss) = (node.history.epoch, node.history.loss);
        let mut new = EpochRecord {
            losses_ended: counted.losses_ended,
            changes_ended: counted.changes_ended,
            lost: loss.is_some_and(|l| l.cause == DownCause::Failed),
            changing: loss.is_some_and(|l| l.cause == DownCause::Changing && l.own_change),
            revision: if node.usable() { self.running_revision(key).unwrap_or(old.revision) } else { old.revision },
            ..old
        };
        // A fresh store records epochs without anything following from it.
        if stored.is_some() {
            // Who started after these instants has seen it as it is now, however late this is written.
            let now = self.clock.now();
            let usable_since = node.history.usable_since_ms.map_or(now.wall, |since_ms| {
                let now_ms = i64::try_from(now.mono_ms).unwrap_or(i64::MAX);
                now.wall.plus_millis(since_ms.saturating_sub(now_ms).min(0))
            });
            if new.losses_ended != old.losses_ended {
                new.returned_at = Some(usable_since);
            }
            if new.revision != old.revision {
                // An end that was not seen leaves the one before it, which this change is later than.
                let alone_since = self.world.alone_since(key).filter(|at| old.changed_at.is_none_or(|before| *at > before));
                new.changed_at = Some(alone_since.unwrap_or(usable_since));
            } else if new.changes_ended != old.changes_ended {
                new.changed_at = Some(usable_since);
            }
        }
        if stored == Some(new) {
            return Ok(());
        }
        let mut tx = self.store.tx();
        self.put_record(&mut tx, record_key, &new);
        tx.commit(Durability::Durable).await.map(drop)
    }
}

impl Controller {
    /// The revision that is rolled out: the one that is to run, when nothing else runs. `None` while that is not so, or there are none.
    fn running_revision(&self, key: &ObjectKey) -> Option<u64> {
        let wanted = match &self.world.service(key)?.rollout {
            Rollout::RolledBack { to, .. } => *to,
            Rollout::Wanted | Rollout::Paused { .. } => self.revisions_of(key).first()?.revision.number,
        };
        let containers = self.world.containers_of(key);
        let mut running = containers.iter().filter(|c| c.state.is_up()).map(|c| c.stamp.as_ref().map_or(0, |s| s.revision)).peekable();
        (running.peek().is_some() && running.all(|revision| revision == wanted)).then_some(wanted)
    }
}

/// Who keeps a service from being available: through its edges and, while its start waits, through the gates of the start.
fn blockers(desired: &DesiredService, node: &NodeView, snapshot: &qm_plan::availability::Snapshot) -> Vec<qm_plan::availability::Blocker> {
    let mut blockers = node.blocked_by.clone();
    if node.own.reason == Reason::WaitingForDependency {
        for dependency in desired.dependencies.iter().filter(|d| d.start != qm_api::spec::edge::Start::Skip) {
            if let Some(view) = snapshot.get(&dependency.on).filter(|v| !v.usable() && v.off.is_none()) {
                view.blockers_for_dependent(&mut blockers);
            }
        }
    }
    blockers
}

fn dependents_of(keys: &[ObjectKey]) -> Dependents {
    Dependents { count: keys.len() as u32, names: keys.iter().take(NAMED).map(|d| format!("{}/{}", d.namespace, d.name)).collect() }
}

fn blocked_by(blocker: &qm_plan::availability::Blocker) -> BlockedBy {
    BlockedBy {
        kind: blocker.key.kind.to_string(),
        namespace: blocker.key.namespace.to_string(),
        name: blocker.key.name.to_string(),
        availability: blocker.availability,
        reason: blocker.reason,
        path: blocker.path.iter().map(|k| k.name.to_string()).collect(),
    }
}

fn slots(desired: &DesiredService, view: &ServiceView) -> Vec<SlotStatus> {
    let Some(spec) = desired.container() else { return Vec::new() };
    let mut slots: Vec<SlotStatus> = view
        .containers
        .iter()
        .filter_map(|c| {
            let stamp = c.stamp.as_ref()?;
            Some(SlotStatus {
                slot: stamp.slot,
                container_id: c.id.to_string(),
                revision: stamp.revision,
                state: c.state.word().to_owned(),
                started_at: c.started_at,
                healthy_at: healthy_at(spec, c, view.health.get(&c.id)),
            })
        })
        .collect();
    slots.sort_by(|a, b| (a.slot, a.revision, &a.container_id).cmp(&(b.slot, b.revision, &b.container_id)));
    slots
}

fn condition(kind: ConditionType, holds: bool, reason: Reason, message: &str, generation: u64, now: Timestamp) -> Condition {
    Condition {
        kind,
        status: if holds { ConditionStatus::True } else { ConditionStatus::False },
        reason,
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: now,
    }
}

fn conditions_of(
    object: &Object,
    node: &NodeView,
    memory: &Memory,
    is_whole: bool,
    suspended: Option<&str>,
    pulling: Option<&str>,
    now: Timestamp,
) -> Vec<Condition> {
    let generation = memory.seen_generation.max(1).min(object.meta.generation);
    let held = memory.findings.iter().find(|f| matches!(f.reason, Reason::RolledBack | Reason::RolloutPaused));
    let stall = memory.findings.iter().find(|f| f.stalls).or(held);
    let is_stalled = stall.is_some() || (node.off.is_none() && node.own.availability.severity() >= 5);
    let ready = memory.clean && memory.seen_generation == object.meta.generation && (is_whole || node.off.is_some()) && !is_stalled;
    let waits = memory.waits.join("; ");
    let (reason, message) = match (stall, ready) {
        (Some(finding), _) => (finding.reason, finding.message.clone()),
        (None, true) => (node.off.unwrap_or(Reason::AsWanted), String::new()),
        // What needs a person says more than what it waits for besides.
        (None, false) if !waits.is_empty() && !is_stalled => (Reason::WaitingForDependency, format!("waits for: {waits}")),
        (None, false) => (node.own.reason, node.own.message.clone()),
    };
    // What stalls it stays true while it is tried once more, and so does that it is tried.
    let (at_work, why, what) = match pulling {
        Some(words) => (true, Reason::Pulling, words),
        None => (!ready && !is_stalled, reason, message.as_str()),
    };
    let (not_ready, lacks) = if is_stalled { (reason, message.as_str()) } else { (why, what) };
    let mut conditions = vec![
        condition(ConditionType::Ready, ready, not_ready, lacks, generation, now),
        condition(ConditionType::Reconciling, at_work, why, what, generation, now),
        condition(ConditionType::Stalled, is_stalled, reason, &message, generation, now),
        condition(ConditionType::Usable, node.usable(), node.reason, &node.message, generation, now),
    ];
    let was_suspended = object.status["conditions"].as_array().is_some_and(|list| list.iter().any(|c| c["type"] == "Suspended"));
    if suspended.is_some() || was_suspended {
        let reason = if suspended.is_some() { Reason::Suspended } else { Reason::AsWanted };
        conditions.push(condition(ConditionType::Suspended, suspended.is_some(), reason, suspended.unwrap_or_default(), generation, now));
    }
    let is_drift = |f: &&Finding| matches!(f.reason, Reason::Drift | Reason::Contested);
    let drifts: Vec<&str> = memory.findings.iter().filter(is_drift).map(|f| f.message.as_str()).collect();
    let is_contested = memory.findings.iter().any(|f| f.reason == Reason::Contested);
    let had_drifted = object.status["conditions"].as_array().is_some_and(|list| list.iter().any(|c| c["type"] == "Drifted"));
    if !drifts.is_empty() || had_drifted {
        let reason = match drifts.is_empty() {
            true => Reason::AsWanted,
            false if is_contested => Reason::Contested,
            false => Reason::Drift,
        };
        conditions.push(condition(ConditionType::Drifted, !drifts.is_empty(), reason, &drifts.join("; "), generation, now));
    }
    let had_lost = object.status["conditions"].as_array().is_some_and(|list| list.iter().any(|c| c["type"] == "DependencyStale"));
    if !node.tolerated.is_empty() || had_lost {
        let names: Vec<String> = node.tolerated.iter().map(|t| format!("{}/{}", t.on.namespace, t.on.name)).collect();
        let (reason, message) = match names.is_empty() {
            true => (Reason::AsWanted, String::new()),
            false => (Reason::DependencyTolerated, format!("lost, and tolerated for now: {}", names.join(", "))),
        };
        conditions.push(condition(ConditionType::DependencyStale, !names.is_empty(), reason, &message, generation, now));
    }
    let is_rolled_back = held.filter(|f| f.reason == Reason::RolledBack);
    let was_rolled_back = object.status["conditions"].as_array().is_some_and(|list| list.iter().any(|c| c["type"] == "RolledBack"));
    if is_rolled_back.is_some() || was_rolled_back {
        let reason = is_rolled_back.map_or(Reason::AsWanted, |f| f.reason);
        let message = is_rolled_back.map_or("", |f| f.message.as_str());
        conditions.push(condition(ConditionType::RolledBack, is_rolled_back.is_some(), reason, message, generation, now));
    }
    conditions
}
