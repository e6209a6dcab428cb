//! One pass of one key: observe, plan, check, act, record (DESIGN 4, steps 4 to 9).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use qm_api::conditions::Reason;
use qm_api::kinds::mini_container;
use qm_api::kinds::mini_service;
use qm_api::meta::{Object, ObjectKey};
use qm_api::mutant::{Mutant, planted};
use qm_plan::budget::Budget;
use qm_plan::check::check;
use qm_plan::desired::{DesiredService, HealthKind, Rollout};
use qm_plan::kinds::mini_container::plan_mini_container;
use qm_plan::kinds::mini_service::{Context, Gate, Held, JobContext, Others, PendingReload, plan_service};
use qm_plan::kinds::network::plan_network;
use qm_plan::kinds::orphan::plan_orphans;
use qm_plan::own::Trouble;
use qm_plan::plan::{Finding, Plan, Progress, ProgressState};
use qm_plan::step::Wait;
use qm_store::{Durability, Precondition, StoreError};

use crate::adopt::AdoptError;
use crate::controller::Controller;
use crate::docker::DockerError;
use crate::docker::error::Retry;
use crate::events::EventType;
use crate::intents;
use crate::mirror::Thing;
use crate::records;

/// A clean object is looked at again after this long, in milliseconds; no call is made for it.
const RESYNC_MS: u64 = 600_000;
/// The first pause after a failure, in milliseconds; it doubles ..
const FIRST_BACKOFF_MS: u64 = 500;
/// .. up to here.
const LAST_BACKOFF_MS: u64 = 60_000;
/// How long after a lock that somebody else had the plan is made again, in milliseconds.
const WITHHELD_MS: u64 = 500;
/// The brake: the same step, so often in so long, brings us nowhere.
const SAME_STEP: Budget = Budget { tries: 12, window_ms: 600_000 };

/// When a key wants its next pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// At once: something was done.
    Now,
    /// At this monotonic millisecond, or when something changes.
    At(u64),
    /// The object is gone.
    Never,
}

impl Controller {
    /// Does one pass.
    pub(crate) async fn pass(self: &Arc<Self>, key: &ObjectKey) -> Next {
        let began = self.clock.mono_ms();
        self.remember(key, |m| m.pass_began_ms = began);
        let object = self.store.snapshot().get(key).cloned();
        let next = match (object, key.kind.as_str()) {
            (Some(object), mini_service::KIND) => self.pass_service(&object).await,
            (Some(object), "Network") => self.pass_network(&object).await,
            (Some(object), mini_container::KIND) => self.pass_parent(&object).await,
            (_, mini_service::KIND | "Network") => self.pass_orphan(key).await,
            _ => Ok(Next::Never),
        };
        let result = match &next {
            Ok(Next::Now) => "requeue",
            Ok(_) => "success",
            Err(_) => "error",
        };
        let seconds = self.clock.mono_ms().saturating_sub(began) as f64 / 1_000.0;
        self.metrics.reconcile_total.with_label_values(&[key.kind.as_str(), result]).inc();
        self.metrics.reconcile_seconds.with_label_values(&[key.kind.as_str()]).observe(seconds);
        match next {
            Ok(next) => next,
            Err(error) => {
                self.metrics.reconcile_errors_total.with_label_values(&[key.kind.as_str()]).inc();
                tracing::warn!(object = %key, error = %error, "a pass could not be recorded");
                self.back_off(key)
            }
        }
    }

    fn back_off(&self, key: &ObjectKey) -> Next {
        self.metrics.queue_retries.inc();
        let failures = self.remember(key, |m| {
            m.failures = m.failures.saturating_add(1);
            m.failures
        });
        let pause = FIRST_BACKOFF_MS.saturating_mul(1 << (failures - 1).min(10)).min(LAST_BACKOFF_MS);
        let until = self.clock.mono_ms() + pause;
        self.remember(key, |m| m.backoff_until_ms = until);
        if planted(Mutant::GiveUp) {
            return Next::Never;
        }
        Next::At(until)
    }

    async fn pass_service(self: &Arc<Self>, object: &Arc<Object>) -> Result<Next, StoreError> {
        let key = &object.key;
        let Some(desired) = self.world.service(key) else {
            // The stored spec could not be read; whoever feeds the world has said so.
            return Ok(Next::At(self.clock.mono_ms() + RESYNC_MS));
        };
        self.look_up_images(key, &desired).await;
        if let Err(error) = self.adopt_containers(object, &desired).await {
            match error {
                AdoptError::Store(error) => return Err(error),
                AdoptError::Docker(error) => {
                    let message = format!("{} cannot be looked at to be adopted: {}", desired.adopt.join(", "), error.line());
                    self.tell(key, EventType::Warning, Reason::StepFailed, message);
                    self.world.set_trouble(key, Some(error.trouble()));
                    return Ok(self.back_off(key));
                }
            }
        }
        self.decide_reload(key, &desired).await?;
        let plan = self.plan_service(object, &desired);
        self.mind_lock(key, &desired, &plan).await;
        let next = self.carry_out(key, object, plan).await?;
        self.finish_reload(key).await?;
        Ok(next)
    }

    /// Image references nobody looked up yet are looked up before planning; afterwards the mirror keeps them fresh.
    async fn look_up_images(&self, key: &ObjectKey, desired: &DesiredService) {
        let Some(spec) = desired.container() else { return };
        if desired.wanted_replicas() == 0 || !self.world.is_listed() {
            return;
        }
        let mut wanted = Vec::new();
        if self.world.image(&spec.image).is_none() {
            wanted.push(Thing::Image(spec.image.as_str().into()));
        }
        let revisions: Vec<_> = self.revisions_of(key).into_iter().map(|r| r.revision).collect();
        if let Some(pinned) = pinned(desired, &revisions).filter(|id| !id.is_empty())
            && self.world.image(pinned).is_none()
            && !matches!(self.world.image(&spec.image), Some(qm_plan::observed::Image::Present { id, .. }) if id == pinned)
        {
            wanted.push(Thing::Image(pinned.into()));
        }
        if !wanted.is_empty() {
            self.refresher.refresh(wanted).await;
        }
    }

    /// Plans one service from the picture as it is now. Makes no call.
    pub(crate) fn plan_service(&self, object: &Object, desired: &DesiredService) -> Plan {
        let key = &object.key;
        let now = self.now();
        let snapshot = self.store.snapshot();
        let memory = self.remember(key, |m| m.clone());
        let recorded = self.revisions_of(key);
        let proven: BTreeSet<u64> = recorded.iter().filter(|r| r.trial_is_over(now)).map(|r| r.revision.number).collect();
        let revisions: Vec<_> = recorded.into_iter().map(|r| r.revision).collect();
        let reload: Option<PendingReload> = records::pending_reload(&snapshot, key).map(PendingReload::from);
        let stopped = records::stopped(&snapshot, key).unwrap_or_default();
        let availability = self.world.availability();
        let node = availability.get(key);
        let lost = node.and_then(|node| node.stopped_for.as_ref()).map(Held::Lost);
        let held = lost.or_else(|| node.and_then(|node| node.skipped_for.as_ref()).map(Held::Skipped));
        let gates: BTreeMap<ObjectKey, Gate> = desired
            .dependencies
            .iter()
            .filter_map(|d| {
                let view = availability.get(&d.on)?;
                // A node that is off by configuration holds nobody back.
                let usable = view.off.is_some() || view.usable();
                Some((d.on.clone(), Gate { usable, bad: view.off.is_none() && view.availability.severity() >= 5 }))
            })
            .collect();
        let approved = intents::approvals(&snapshot, now);
        let inner = self.world.lock();
        let view = inner.service_view(desired, &approved);
        let dependents_leaving = inner
            .graph
            .dependents(key)
            .iter()
            .filter(|d| inner.services.get(*d).is_some_and(|s| s.deleting) && inner.by_owner.contains_key(*d))
            .cloned()
            .collect();
        let networks = view.networks.values().filter_map(|place| Some(place.current.as_ref()?.id.clone()));
        self.remember(key, |m| m.seen_networks = networks.collect());
        let mut not_adoptable: Vec<String> =
            memory.not_adoptable.iter().filter(|(id, _)| inner.others.contains_key(*id)).map(|(_, why)| why.clone()).collect();
        if revisions.is_empty() && view.containers.is_empty() {
            let absent = desired.adopt.iter().filter(|name| !inner.names.contains_key(*name));
            not_adoptable.extend(absent.map(|name| format!("there is no container {name} to adopt")));
        }
        let uid_of = |owner: &ObjectKey| snapshot.get(owner).map(|o| o.meta.uid.clone());
        let others = if desired.job().is_some() { inner.others_of(key, uid_of) } else { Others::None };
        let results = desired.job().and_then(|_| records::job_results(&snapshot, key));
        let pinned = pinned(desired, &revisions);
        let pinned_image = pinned.and_then(|id| inner.images.get(id)).cloned();
        drop(inner);
        let context = Context {
            now,
            instance: &self.world.instance,
            view: &view,
            gates: &gates,
            revisions: &revisions,
            proven: &proven,
            pinned_image: pinned_image.as_ref(),
            files_dir: &self.places.files,
            faces_dir: &self.places.faces,
            settled_generation: memory.settled_generation,
            settled_networks: &memory.settled_networks,
            pulled_generation: memory.pulled_generation,
            default_log_grows: self.world.facts().is_some_and(|f| f.default_log_grows),
            suspended: intents::suspension(&snapshot, object, now),
            reload: reload.as_ref(),
            held,
            stopped: &stopped.containers,
            flapping: memory.flapping.clone(),
            brake: self.brake(key, desired, &memory),
            dependents_leaving,
            lock: self.locks.standing(key),
            drift: &memory.drift,
            not_adoptable,
            job: JobContext { results: results.as_ref(), others, approved: &approved },
        };
        let plan = plan_service(desired, &context);
        // What was not seen is not put back.
        let is_blind = !view.gaps.is_empty() || plan.findings.iter().any(|f| f.reason == Reason::Unknown);
        if !is_blind {
            self.remember(key, |m| m.drift.see(&plan, now));
        }
        plan
    }

    /// Whether the start budget of a service is spent: until when, and the last thing that happened.
    fn crash_loop(&self, key: &ObjectKey) -> Option<(qm_api::time::Timestamp, String)> {
        let desired = self.world.service(key)?;
        let spec = desired.container()?;
        self.world.spent_starts(key, Budget { tries: spec.start_tries, window_ms: spec.start_window_ms })
    }

    /// What holds starts back: a spent start budget, or the pause after a failure.
    fn brake(&self, key: &ObjectKey, desired: &DesiredService, memory: &crate::controller::Memory) -> Option<Wait> {
        desired.container()?;
        if let Some((until, evidence)) = self.crash_loop(key) {
            return Some(Wait::Budget { until: Some(until), evidence });
        }
        let left = memory.backoff_until_ms.saturating_sub(self.clock.mono_ms());
        (left > 0).then(|| Wait::Backoff { until: self.now().plus_millis(left as i64) })
    }

    /// A mini container has no steps; it is gone when the last of its children is.
    async fn pass_parent(self: &Arc<Self>, object: &Arc<Object>) -> Result<Next, StoreError> {
        let key = &object.key;
        let Some(desired) = self.world.parent(key) else { return Ok(Next::At(self.clock.mono_ms() + RESYNC_MS)) };
        let children: Vec<ObjectKey> = self.children_of(object).iter().map(|child| child.key.clone()).collect();
        let plan = plan_mini_container(&desired, &children);
        self.world.mark_status([key.clone()]);
        self.carry_out(key, object, plan).await
    }

    /// The children of a mini container that the store has.
    pub(crate) fn children_of(&self, parent: &Object) -> Vec<Arc<Object>> {
        let snapshot = self.store.snapshot();
        let is_child = |o: &&Arc<Object>| o.meta.owner_references.iter().any(|owner| owner.uid == parent.meta.uid);
        snapshot.list(mini_service::KIND, Some(&parent.key.namespace)).filter(is_child).cloned().collect()
    }

    async fn pass_network(self: &Arc<Self>, object: &Arc<Object>) -> Result<Next, StoreError> {
        let desired = self.world.lock().nets.get(&object.key).cloned();
        if let Some(desired) = desired {
            self.adopt_network(&desired).await?;
        }
        let plan = self.plan_network(object);
        self.carry_out(&object.key, object, plan).await
    }

    pub(crate) fn plan_network(&self, object: &Object) -> Plan {
        let key = &object.key;
        let inner = self.world.lock();
        let Some(desired) = inner.nets.get(key).cloned() else { return Plan::default() };
        let mut view = inner.network_view(key);
        drop(inner);
        view.was_there = self.remember(key, |m| m.was_there);
        if !view.networks.is_empty() {
            self.remember(key, |m| m.was_there = true);
        }
        let (snapshot, now) = (self.store.snapshot(), self.now());
        let suspended = intents::suspension(&snapshot, object, now);
        plan_network(&desired, &view, &self.world.instance, &intents::approvals(&snapshot, now), suspended.as_deref())
    }

    async fn pass_orphan(self: &Arc<Self>, key: &ObjectKey) -> Result<Next, StoreError> {
        let plan = self.plan_orphan(key);
        if plan.steps.is_empty() {
            return Ok(Next::Never);
        }
        let ours = self.world.our_ids(key);
        let approvals = intents::approvals(&self.store.snapshot(), self.now());
        if check(&plan, &ours, &approvals).is_err() {
            return Ok(Next::Never);
        }
        let executed = self.execute(key, &plan).await;
        Ok(match executed {
            e if e.failure.is_some() => self.back_off(key),
            e if e.taken > 0 => Next::Now,
            _ => Next::Never,
        })
    }

    pub(crate) fn plan_orphan(&self, key: &ObjectKey) -> Plan {
        if self.world.lock().engine_gap().is_some() {
            return Plan::default();
        }
        let (containers, networks) = self.world.lock().orphans(key);
        plan_orphans(&containers, &networks, &intents::approvals(&self.store.snapshot(), self.now()))
    }

    /// Checks a plan, records its revision, takes its steps, and says when to look again.
    async fn carry_out(self: &Arc<Self>, key: &ObjectKey, object: &Object, plan: Plan) -> Result<Next, StoreError> {
        let approvals = intents::approvals(&self.store.snapshot(), self.now());
        if let Err(refusal) = check(&plan, &self.world.our_ids(key), &approvals) {
            tracing::error!(object = %key, %refusal, "a plan was refused");
            self.tell(key, EventType::Warning, Reason::PlanRefused, refusal.to_string());
            self.world.set_trouble(key, Some(Trouble { reason: Reason::PlanRefused, message: refusal.to_string(), terminal: true }));
            return Ok(Next::At(self.clock.mono_ms() + RESYNC_MS));
        }
        let has_notes = self.record_job(key, &plan).await?;
        self.note_plan(key, object, &plan);
        self.note_change(key, &plan);
        match &plan.rollout {
            Some(Progress { number, state: ProgressState::Complete }) => self.prove_revision(key, object, *number).await?,
            Some(Progress { number, state: ProgressState::Failed(evidence) }) if self.take_back(key, object, *number, evidence).await? => {
                // What is wanted is another now: the store's watcher says so in a moment.
                return Ok(Next::At(self.clock.mono_ms() + RESYNC_MS));
            }
            Some(Progress { state: ProgressState::InputChanged, .. }) => {
                // The one that was looked at: a newer one, of a person, stays.
                let record = ObjectKey::new(records::ROLLBACK, key.namespace.clone(), key.name.clone());
                let snapshot = self.store.snapshot();
                let rollout = self.world.service(key).map(|service| service.rollout.clone());
                if let Some(found) = snapshot.get(&record).filter(|o| rollout.is_some_and(|rollout| is_carried_out(o, &rollout))) {
                    let mut tx = self.store.tx();
                    tx.delete(record, Precondition::unchanged(found), self.now());
                    tx.commit(Durability::Durable).await?;
                }
                return Ok(Next::At(self.clock.mono_ms() + RESYNC_MS));
            }
            Some(_) | None => {}
        }
        if plan.finalized {
            if let Err(error) = self.clear_probe(key).await {
                tracing::warn!(object = %key, error = error.line(), "what its probe has left could not be taken away");
                return Ok(self.back_off(key));
            }
            return self.finalize(key, object).await;
        }
        let backing_off = self.remember(key, |m| m.backoff_until_ms) > self.clock.mono_ms();
        if plan.runnable().is_empty() || backing_off {
            return Ok(if has_notes { Next::Now } else { self.look_again(key, object, &plan) });
        }
        if let Some(next) = self.no_progress(key, &plan) {
            return Ok(next);
        }
        if let Some(revision) = &plan.revision {
            self.record_revision(key, revision.clone()).await?;
        }
        self.note_stops(key, &plan).await?;
        let executed = self.execute(key, &plan).await;
        self.note_pull(key, object, &plan, &executed);
        match executed.failure {
            Some(error) => {
                let mut trouble = error.trouble();
                let terminal = trouble.terminal || error.retry() == Retry::Terminal;
                // A conflict means that our picture was old; the picture is fresh now.
                let is_stale_picture = error.retry() == Retry::Conflict && !trouble.terminal && self.remember(key, |m| m.failures) == 0;
                if is_stale_picture {
                    self.remember(key, |m| m.failures = 1);
                    return Ok(Next::Now);
                }
                let mut next = self.back_off(key);
                if terminal {
                    let until = self.clock.mono_ms() + LAST_BACKOFF_MS;
                    self.remember(key, |m| m.backoff_until_ms = until);
                    next = Next::At(until);
                }
                if let (DockerError::Pull(_), Next::At(until)) = (&error, next) {
                    // A registry is often mended by somebody who then waits: they want to know for what.
                    let at = self.now().plus_millis(until.saturating_sub(self.clock.mono_ms()) as i64);
                    trouble.message.push_str(&format!("; next try at {}", at.to_seconds_string()));
                }
                self.world.set_trouble(key, Some(trouble));
                Ok(next)
            }
            None => {
                self.remember(key, |m| m.failures = 0);
                self.world.set_trouble(key, None);
                Ok(match (executed.taken, executed.withheld) {
                    (0, 0) => self.look_again(key, object, &plan),
                    // Somebody was faster at the lock; in a moment the plan says who.
                    (0, _) => {
                        let tried: Vec<String> = plan.runnable().into_iter().map(|i| plan.steps[i].hash()).collect();
                        self.remember(key, |m| tried.iter().for_each(|hash| drop(m.taken.remove(hash))));
                        Next::At(self.clock.mono_ms() + WITHHELD_MS)
                    }
                    _ => Next::Now,
                })
            }
        }
    }

    /// What the plan means for the lock: a change that others are in the way of is wished for, one that is not needed any more is over.
    async fn mind_lock(&self, key: &ObjectKey, desired: &DesiredService, plan: &Plan) {
        let timeout = desired.container().map_or(0, |c| c.update_timeout_ms);
        let now = self.clock.mono_ms();
        let in_the_way = plan.steps.iter().flat_map(|s| &s.waits).find(|w| matches!(w, Wait::InUse { .. }));
        if let Some(wait) = in_the_way {
            if self.locks.wish(key, now.saturating_add(timeout)) {
                let message = format!("a change of it waits for {wait}, at most {} s for its users", timeout / 1_000);
                self.tell(key, EventType::Normal, Reason::InUse, message);
            }
            return;
        }
        let needed = plan.steps.iter().any(|s| s.needs.is_some());
        let is_blind = plan.findings.iter().any(|f| matches!(f.reason, Reason::EngineUnreachable | Reason::Unknown));
        if needed || is_blind || !self.locks.is_wanted(key) {
            return;
        }
        let is_under_way = match self.world.availability().get(key) {
            None => false,
            Some(node) if node.off.is_some() => !plan.steps.is_empty(),
            // Who needs a change by a person is not being changed by us any more.
            Some(node) => !node.own.availability.is_usable() && node.own.availability.severity() < 5,
        };
        let is_late = self.locks.held_since_ms(key).is_some_and(|since| now >= since.saturating_add(timeout));
        if !is_under_way || is_late {
            self.locks.let_go(key).await;
        }
    }

    fn note_pull(&self, key: &ObjectKey, object: &Object, plan: &Plan, executed: &crate::execute::Executed) {
        let pulled = executed.failure.is_none() && plan.steps.iter().any(|s| matches!(s.action, qm_plan::step::Action::Pull { .. }));
        if pulled {
            self.remember(key, |m| m.pulled_generation = Some(object.meta.generation));
        }
    }

    /// Keeps what a plan says for the status, and tells of new findings once.
    fn note_plan(&self, key: &ObjectKey, object: &Object, plan: &Plan) {
        if let Some(standing) = &plan.job {
            self.world.set_job(key, standing.clone());
        }
        if plan.findings.iter().any(|f| matches!(f.reason, Reason::EngineUnreachable | Reason::Unknown)) {
            // A plan made blind says nothing about the world: what was known of it stays.
            self.remember(key, |m| m.findings = plan.findings.clone());
            return;
        }
        let clean = plan.steps.is_empty() && !plan.finalized;
        // The pause after a failure is no reason: the failure is, and that stands in the status.
        let is_reason = |w: &&Wait| !matches!(w, Wait::Backoff { .. });
        let mut waits: Vec<String> = plan.steps.iter().flat_map(|s| s.waits.iter().filter(is_reason).map(ToString::to_string)).collect();
        waits.sort();
        waits.dedup();
        let (news, changed) = self.remember(key, |m| {
            let news: Vec<_> = plan.findings.iter().filter(|f| !m.findings.contains(f)).cloned().collect();
            let changed =
                m.clean != clean || m.waits != waits || m.findings != plan.findings || m.seen_generation != object.meta.generation;
            m.findings = plan.findings.clone();
            m.waits = waits;
            m.clean = clean;
            m.seen_generation = object.meta.generation;
            if clean && !plan.held && !plan.findings.iter().any(|f| f.stalls) {
                m.settled_generation = object.meta.generation;
                m.settled_networks = m.seen_networks.clone();
                // Everything was as wanted: what is to do again from here on is something new, not the same without progress.
                m.taken.clear();
            }
            (news, changed)
        });
        // Losses of sight are told by availability, rollbacks when they are decided.
        let is_told =
            |f: &&Finding| matches!(f.reason, Reason::EngineUnreachable | Reason::Unknown | Reason::RolledBack | Reason::RolloutPaused);
        for finding in news.iter().filter(|f| !is_told(f)) {
            self.tell(key, EventType::Warning, finding.reason, finding.message.clone());
        }
        let stalling = plan.findings.iter().find(|f| f.stalls);
        if let Some(finding) = stalling {
            self.world.set_trouble(key, Some(Trouble { reason: finding.reason, message: finding.message.clone(), terminal: true }));
        } else if let Some((_, evidence)) = self.crash_loop(key) {
            let message = format!("it fails again and again right after its start: {evidence}");
            self.world.set_trouble(key, Some(Trouble { reason: Reason::CrashLoop, message, terminal: true }));
        } else if let Some(message) = start_gate(plan) {
            self.world.set_trouble(key, Some(Trouble { reason: Reason::WaitingForDependency, message, terminal: false }));
        } else if clean || self.world.trouble(key).is_some_and(|t| t.reason == Reason::WaitingForDependency) {
            self.remember(key, |m| m.failures = 0);
            self.world.set_trouble(key, None);
        }
        if changed {
            self.world.mark_status([key.clone()]);
        }
    }

    /// The brake against going in circles: the same step taken again and again within ten minutes stops the object.
    fn no_progress(&self, key: &ObjectKey, plan: &Plan) -> Option<Next> {
        let now = self.now();
        let runnable: Vec<String> = plan.runnable().into_iter().map(|i| plan.steps[i].hash()).collect();
        let spent = self.remember(key, |m| {
            m.taken.retain(|_, spent| spent.is_recent(SAME_STEP, now));
            runnable.iter().find_map(|hash| m.taken.get(hash)?.is_spent(SAME_STEP, now).map(|(until, text)| (until, text.to_owned())))
        });
        if let Some((until, evidence)) = spent {
            let message = format!("the same step was taken {} times in ten minutes and is still to do: {evidence}", SAME_STEP.tries);
            self.tell(key, EventType::Warning, Reason::NoProgress, message.clone());
            self.world.set_trouble(key, Some(Trouble { reason: Reason::NoProgress, message, terminal: true }));
            let pause = until.millis_since(now).max(1_000) as u64;
            return Some(Next::At(self.clock.mono_ms() + pause));
        }
        self.remember(key, |m| {
            for (index, hash) in plan.runnable().into_iter().zip(runnable) {
                m.taken.entry(hash).or_default().record(SAME_STEP, now, plan.steps[index].to_string());
            }
        });
        None
    }

    /// The earliest instant at which waiting alone changes the plan.
    fn look_again(&self, key: &ObjectKey, object: &Object, plan: &Plan) -> Next {
        let now = self.now();
        let mut at = self.clock.mono_ms() + RESYNC_MS;
        let trial = match plan.rollout {
            Some(Progress { state: ProgressState::Underway(until), .. }) => until,
            _ => None,
        };
        for until in plan.steps.iter().flat_map(|s| s.waits.iter().filter_map(Wait::until)).chain(trial).chain(plan.wake) {
            at = at.min(self.clock.mono_ms() + until.millis_since(now).max(1) as u64);
        }
        let reload = self.remember(key, |m| m.reload_wait_ms);
        let held = self.locks.held_since_ms(key).map(|since| {
            let timeout = self.world.service(key).and_then(|s| Some(s.container()?.update_timeout_ms)).unwrap_or(0);
            since.saturating_add(timeout)
        });
        // What had passed when this pass began was looked at, and nothing came of it: only news can help.
        let (began_ms, soon) = (self.remember(key, |m| m.pass_began_ms), self.clock.mono_ms() + 1);
        let ends = reload.into_iter().chain(self.change_ends_ms(key)).chain(held);
        at = ends.filter(|until| *until > began_ms).map(|until| until.max(soon)).fold(at, u64::min);
        let backoff = self.remember(key, |m| m.backoff_until_ms);
        if backoff > self.clock.mono_ms() {
            at = at.min(backoff);
        }
        if let Some((until, _)) = self.crash_loop(key) {
            at = at.min(self.clock.mono_ms() + until.millis_since(now).max(1) as u64);
        }
        if let Some(until) = self.suspension_ends(object) {
            at = at.min(self.clock.mono_ms() + until.millis_since(now).max(1) as u64);
        }
        Next::At(at)
    }

    fn suspension_ends(&self, object: &Object) -> Option<qm_api::time::Timestamp> {
        let now = self.now();
        let active = intents::active(&self.store.snapshot(), now);
        let covering = active.iter().filter(|(_, i)| i.act == qm_api::kinds::intent::Act::Suspend && intents::covers(&i.scope, object));
        covering.filter_map(|(_, i)| i.until).min()
    }

    /// The container of a probe has no stamp, so no plan takes it away. One that a process left that died is nobody's otherwise.
    async fn clear_probe(&self, key: &ObjectKey) -> Result<(), DockerError> {
        let service = self.world.service(key);
        let check = service.as_ref().and_then(|service| service.health());
        match check.map(|check| &check.kind) {
            Some(HealthKind::Run { .. }) => self.docker.clear_errand(&self.world.instance, key).await.map(drop),
            _ => Ok(()),
        }
    }

    /// Nothing is left of the object in the engine: take our finalizer away, and with it the object.
    async fn finalize(&self, key: &ObjectKey, object: &Object) -> Result<Next, StoreError> {
        let mut without = object.clone();
        without.meta.finalizers.retain(|f| f != records::TEARDOWN);
        let mut tx = self.store.tx();
        tx.put(without);
        // With it, so that no later object of the name finds what this one has done.
        let snapshot = self.store.snapshot();
        for record in self.records_of(key).into_iter().filter(|record| snapshot.get(record).is_some()) {
            tx.delete(record, Precondition::default(), self.now());
        }
        match tx.commit(Durability::Durable).await {
            Ok(_) => {
                self.forget(key).await;
                Ok(Next::Never)
            }
            // It changed meanwhile; the next pass sees how.
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => Ok(Next::Now),
            Err(error) => Err(error),
        }
    }
}

/// Whether this record of a rollback is the one by which a service runs as it does.
fn is_carried_out(record: &Object, rollout: &Rollout) -> bool {
    let to = match rollout {
        Rollout::RolledBack { to, .. } => Some(*to),
        Rollout::Wanted | Rollout::Paused { .. } => None,
    };
    record.decode_spec::<records::RollbackRecord>().is_ok_and(|record| record.to == to)
}

/// What the starts of a plan wait for, where that is a dependency.
fn start_gate(plan: &Plan) -> Option<String> {
    let is_gate = |w: &&Wait| matches!(w, Wait::Usable { .. } | Wait::Tried { .. });
    let mut gates: Vec<String> = plan.steps.iter().flat_map(|s| s.waits.iter().filter(is_gate).map(ToString::to_string)).collect();
    gates.sort();
    gates.dedup();
    (!gates.is_empty()).then(|| format!("its start waits: {}", gates.join(", ")))
}

/// The image of the revision that runs or should: what the engine must still have.
fn pinned<'a>(desired: &'a DesiredService, revisions: &'a [qm_plan::plan::Revision]) -> Option<&'a str> {
    match &desired.rollout {
        Rollout::RolledBack { image_id, .. } => Some(image_id),
        Rollout::Wanted | Rollout::Paused { .. } => revisions.first().map(|r| r.image_id.as_str()),
    }
}
