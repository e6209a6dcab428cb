//! Brings together what reloads are decided from, records what was decided, and says when they are done (DESIGN 3.2). The decision itself
//! is [`qm_plan::reload`]; the steps are the planner's.

use std::collections::{BTreeMap, BTreeSet};

use qm_api::graph::Graph;
use qm_api::meta::ObjectKey;
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::availability::Snapshot as Availability;
use qm_plan::desired::{DesiredService, Form};
use qm_plan::job::Gates;
use qm_plan::plan::Plan;
use qm_plan::reload::{self, Decision, Standing, Trigger, Verb};
use qm_plan::step::{Action, Cause};
use qm_store::{Durability, Precondition, Snapshot, StoreError};

use crate::controller::Controller;
use crate::records::{self, PENDING_RELOAD, PendingReloadRecord, RELOADS, STOPPED};

impl Controller {
    /// Decides whether a service reloads for what happened to its dependencies, and records it: what was reacted to and what is to be
    /// outlived, in one transaction.
    pub(crate) async fn decide_reload(&self, key: &ObjectKey, desired: &DesiredService) -> Result<(), StoreError> {
        self.remember(key, |m| (m.flapping, m.reload_wait_ms) = (None, None));
        if matches!(desired.form, Form::External(_)) || !desired.dependencies.iter().any(reload::reacts) {
            return Ok(());
        }
        let snapshot = self.store.snapshot();
        // One after the other: what is under way ends first. What an app was not told of yet is told of together.
        if records::pending_reload(&snapshot, key).is_some_and(|pending| pending.id.is_none()) {
            return Ok(());
        }
        let (availability, graph, now) = (self.world.availability(), self.world.graph(), self.clock.now());
        let now_ms = i64::try_from(now.mono_ms).unwrap_or(i64::MAX);
        let memory = records::reloads(&snapshot, key);
        let look = Look { snapshot: &snapshot, availability: &availability, graph: &graph, controller: self };
        let (standing, is_unsettled) = (|on: &ObjectKey| look.standing(on), |on: &ObjectKey| look.is_unsettled(on));
        let decision = reload::decide(&desired.dependencies, &memory, standing, is_unsettled, now.wall, now_ms);
        self.remember(key, |m| {
            m.flapping = match &decision {
                Decision::Spent { until, evidence } => Some((*until, evidence.clone())),
                _ => None,
            };
            m.reload_wait_ms = match &decision {
                Decision::Wait(until) => until.and_then(|until| u64::try_from(until).ok()),
                Decision::Spent { until, .. } => Some(now.mono_ms + until.millis_since(now.wall).max(1) as u64),
                _ => None,
            };
        });
        let (memory, pending) = match decision {
            Decision::Nothing | Decision::Wait(_) | Decision::Spent { .. } => return Ok(()),
            Decision::Note(memory) => (memory, None),
            Decision::Reload { verb, triggers, after, memory: next } => {
                // Not remembering what was reacted to reloads again.
                let next = if planted(Mutant::ReloadsAgain) { memory } else { next };
                (next, self.pending(key, verb, &triggers, if planted(Mutant::ReloadsAgain) { now.wall } else { after }, now.wall))
            }
        };
        let mut tx = self.store.tx();
        self.put_record(&mut tx, record_key(RELOADS, key), &memory);
        if let Some(pending) = pending {
            tracing::info!(object = %key, verb = ?pending.verb, "reloads: {}", pending.triggers.join(", "));
            self.metrics.reloads.with_label_values(&[&*key.namespace, &*key.name, pending.verb.word()]).inc();
            self.put_record(&mut tx, record_key(PENDING_RELOAD, key), &pending);
        }
        tx.commit(Durability::Durable).await.map(drop)
    }

    /// What is to be outlived: the containers that were started before it happened. `None` = all were started since.
    fn pending(&self, key: &ObjectKey, verb: Verb, triggers: &[Trigger], after: Timestamp, now: Timestamp) -> Option<PendingReloadRecord> {
        let mut triggers: Vec<String> = triggers.iter().map(Trigger::to_string).collect();
        let nobody = String::new;
        if self.world.service(key).is_some_and(|service| matches!(service.form, Form::Logical(_))) {
            // What the app has not done yet is part of it: the deepest verb, for all that happened.
            let old = records::pending_reload(&self.store.snapshot(), key);
            let verb = old.as_ref().map_or(verb, |old| old.verb.max(verb));
            triggers.extend(old.into_iter().flat_map(|old| old.triggers));
            triggers.sort();
            triggers.dedup();
            let (id, containers) = (Some(self.clock.uid()), BTreeMap::new());
            return Some(PendingReloadRecord { verb, actor: nobody(), reason: nobody(), triggers, id, containers });
        }
        let containers: BTreeMap<Name, Option<Timestamp>> = self
            .world
            .containers_of(key)
            .iter()
            // A start in the future was before the clock went back.
            .filter(|c| c.state.is_up() && c.started_at.is_none_or(|at| at < after || at > now))
            .map(|c| (c.id.clone(), c.started_at))
            .collect();
        (!containers.is_empty()).then(|| PendingReloadRecord { verb, actor: nobody(), reason: nobody(), triggers, id: None, containers })
    }

    /// A pending reload whose containers have all been outlived is done, and so is what was stopped for a dependency and runs again.
    pub(crate) async fn finish_reload(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let snapshot = self.store.snapshot();
        let mut done = Vec::new();
        if let Some(pending) = records::pending_reload(&snapshot, key).filter(|pending| pending.id.is_none()) {
            let pending_reload = qm_plan::kinds::mini_service::PendingReload::from(pending);
            if !self.world.is_gap() && !self.world.containers_of(key).iter().any(|c| pending_reload.concerns(c)) {
                done.push(PENDING_RELOAD);
            }
        }
        if let Some(stopped) = records::stopped(&snapshot, key) {
            let is_still = |c: &qm_plan::observed::Container| stopped.containers.get(&c.id) == Some(&c.started_at);
            if !self.world.is_gap() && !self.world.containers_of(key).iter().any(|c| is_still(c)) {
                done.push(STOPPED);
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.tx();
        for kind in done {
            let key = record_key(kind, key);
            if let Some(record) = snapshot.get(&key) {
                // The one that was looked at: what somebody asked for meanwhile stays.
                tx.delete(key, Precondition::unchanged(record), self.now());
            }
        }
        match tx.commit(Durability::Durable).await {
            // The next look sees the newer one.
            Ok(_) | Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A container has got its signal. Recorded after the call: at least once, should the process die in between.
    pub(crate) async fn signalled(&self, key: &ObjectKey, container: &Name) -> Result<(), StoreError> {
        let Some(mut pending) = records::pending_reload(&self.store.snapshot(), key) else { return Ok(()) };
        if pending.verb != Verb::Signal || pending.containers.remove(container).is_none() {
            return Ok(());
        }
        let mut tx = self.store.tx();
        self.put_record(&mut tx, record_key(PENDING_RELOAD, key), &pending);
        tx.commit(Durability::Durable).await.map(drop)
    }

    /// Before containers are stopped for a dependency: who is started again when it returns, whatever its restart policy says.
    pub(crate) async fn note_stops(&self, key: &ObjectKey, plan: &Plan) -> Result<(), StoreError> {
        let stops = |at: usize| match (&plan.steps[at].action, &plan.steps[at].cause) {
            (Action::Stop { container, .. }, Cause::DependencyLost { .. } | Cause::DependencyOff { .. }) => Some(container.clone()),
            _ => None,
        };
        let ids: BTreeSet<Name> = plan.runnable().into_iter().filter_map(stops).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut record = records::stopped(&self.store.snapshot(), key).unwrap_or_default();
        let before = record.clone();
        let containers = self.world.containers_of(key);
        record.containers.extend(containers.iter().filter(|c| ids.contains(&c.id)).map(|c| (c.id.clone(), c.started_at)));
        if record == before {
            return Ok(());
        }
        let mut tx = self.store.tx();
        self.put_record(&mut tx, record_key(STOPPED, key), &record);
        tx.commit(Durability::Durable).await.map(drop)
    }

    /// Notes that a planned change of ours takes containers down, before the first call, and that it is over: the service is usable again
    /// with nothing planned left to do, or it has taken longer than an update may.
    pub(crate) fn note_change(&self, key: &ObjectKey, plan: &Plan) {
        if let Some(job) = &plan.job {
            // Its run is a change that is meant, however long it takes; it was said together with how the job stands.
            self.remember(key, |m| m.changing_since_ms = None);
            if job.gates != Gates::Running && self.world.set_changing(key, false) {
                self.wake_dependents(key);
            }
            return;
        }
        let now_ms = self.clock.mono_ms();
        let is_taking_down = plan.runnable().into_iter().any(|at| {
            let step = &plan.steps[at];
            step.cause.is_planned()
                && matches!(
                    step.action,
                    Action::Stop { .. } | Action::Restart { .. } | Action::RemoveContainer { .. } | Action::Signal { .. }
                )
        });
        let is_planned = plan.steps.iter().any(|step| step.cause.is_planned());
        let is_usable = self.world.availability().get(key).is_some_and(|node| node.own.availability.is_usable() || node.off.is_some());
        let since = self.remember(key, |m| m.changing_since_ms);
        let next = match since {
            None if is_taking_down => Some(now_ms),
            None => None,
            Some(_) if is_usable && !is_planned => None,
            Some(since) if now_ms >= since.saturating_add(self.patience_ms(key)) => None,
            Some(since) => Some(since),
        };
        if next.is_some() != since.is_some() {
            self.remember(key, |m| m.changing_since_ms = next);
            self.world.set_changing(key, next.is_some());
            if next.is_none() {
                // Who is to reload after it may have waited for just that.
                self.wake_dependents(key);
            }
        }
    }

    fn is_changing(&self, key: &ObjectKey) -> bool {
        self.memory().get(key).is_some_and(|m| m.changing_since_ms.is_some())
    }

    /// How long a planned change may take, in milliseconds.
    fn patience_ms(&self, key: &ObjectKey) -> u64 {
        self.world.service(key).and_then(|s| s.container().map(|c| c.update_timeout_ms)).unwrap_or(600_000)
    }

    /// When a planned change has taken too long, in monotonic milliseconds.
    pub(crate) fn change_ends_ms(&self, key: &ObjectKey) -> Option<u64> {
        let since = self.remember(key, |m| m.changing_since_ms)?;
        Some(since.saturating_add(self.patience_ms(key)))
    }
}

/// The key of a record that is named after its service.
pub(crate) fn record_key(kind: &str, service: &ObjectKey) -> ObjectKey {
    ObjectKey::new(kind, service.namespace.clone(), service.name.clone())
}

struct Look<'a> {
    snapshot: &'a Snapshot,
    availability: &'a Availability,
    graph: &'a Graph,
    controller: &'a Controller,
}

impl Look<'_> {
    /// How a dependency stands; `None` = it was never usable.
    fn standing(&self, on: &ObjectKey) -> Option<Standing> {
        let record = records::epoch(self.snapshot, on)?;
        let view = self.availability.get(on)?;
        Some(Standing {
            counted: record.counted(),
            returned_at: record.returned_at,
            changed_at: record.changed_at,
            usable_since_ms: view.history.usable_since_ms.filter(|_| view.usable()),
        })
    }

    /// Whether a node, or one that it needs at whatever distance, is being changed or still to reload: level by level.
    fn is_unsettled(&self, on: &ObjectKey) -> bool {
        let mut open = vec![on];
        let mut seen: BTreeSet<&ObjectKey> = BTreeSet::from([on]);
        while let Some(node) = open.pop() {
            if self.reloads(node) || self.controller.is_changing(node) {
                return true;
            }
            open.extend(self.graph.dependencies(node).iter().map(|d| &d.on).filter(|d| seen.insert(d)));
        }
        false
    }

    fn reloads(&self, node: &ObjectKey) -> bool {
        // An app that does not answer keeps nobody.
        if records::pending_reload(self.snapshot, node).is_some_and(|pending| pending.id.is_none()) {
            return true;
        }
        let reacting: Vec<_> = self.graph.dependencies(node).iter().filter(|d| reload::reacts(d)).collect();
        if reacting.is_empty() {
            return false;
        }
        let memory = records::reloads(self.snapshot, node);
        let is_usable = |on: &ObjectKey| self.availability.get(on).is_some_and(|v| v.usable());
        reacting.into_iter().any(|d| {
            is_usable(&d.on) && records::epoch(self.snapshot, &d.on).is_some_and(|record| reload::is_due(d, record.counted(), &memory))
        })
    }
}
