//! The planner of MiniService: containers in numbered slots, each slot on its own, replicas rolled a few at a time.
//!
//! Everything is decided from what is observed now; nothing is remembered between two passes. That is what makes a crash anywhere
//! safe: the next pass sees the half-done work and goes on from there. Start at [`plan_service`].

mod drift;
mod job;
mod lock;
mod rollout;
mod slot;
mod target;

use std::collections::{BTreeMap, BTreeSet};

use qm_api::conditions::Reason;
use qm_api::graph::Dependency;
use qm_api::kinds::mini_service::DriftMode;
use qm_api::meta::ObjectKey;
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use qm_api::spec::edge::Start;
use qm_api::time::Timestamp;

use crate::desired::{DesiredContainer, DesiredService, Form, Rollout};
use crate::job::Results;
use crate::locks::Standing;
use crate::observed::{Container, Gap, Image, RunState, ServiceView};
use crate::plan::{Finding, Plan, Revision};
use crate::reload::{RELOADS, Verb};
use crate::step::{Action, Cause, ContainerRef, Step, Wait};

/// How a dependency stands, as far as the start of its dependent is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// It may be used now.
    pub usable: bool,
    /// It is known to need a change.
    pub bad: bool,
}

/// A reload that is to be outlived: containers by id with the start time they had when it was decided.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingReload {
    /// What is done to them.
    pub verb: Verb,
    /// Why.
    pub cause: Cause,
    /// What must be outlived.
    pub containers: BTreeMap<Name, Option<Timestamp>>,
}

impl PendingReload {
    /// Whether a container still is what it was when the reload was decided.
    pub fn concerns(&self, container: &Container) -> bool {
        match (self.verb, self.containers.get(&container.id)) {
            (_, None) => false,
            (Verb::Recreate, Some(_)) => true,
            (Verb::Signal | Verb::Restart, Some(started_at)) => *started_at == container.started_at,
        }
    }
}

/// A field that was changed again so soon after it was put back waits until so long after that, in milliseconds: whoever changes it means
/// it, and two who mend each other's work must not keep the engine busy (DESIGN 3.4, "Drift").
pub const CONTEST_MS: i64 = 300_000;

/// What is remembered of drift. Losing it costs patience and nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DriftMemory {
    /// When each difference was seen first, by replica and cause, in words.
    pub seen: BTreeMap<(u32, String), Timestamp>,
    /// Fields, by replica, that steps were taken to put back and that were not seen as wanted since.
    pub repairing: BTreeSet<(u32, String)>,
    /// When each field, by replica, was last seen as wanted again after steps had been taken.
    pub put_back: BTreeMap<(u32, String), Timestamp>,
}

impl DriftMemory {
    /// Notes the differences that a plan found: those that are new are first seen now, those that are gone are forgotten, and where we
    /// had a hand in that, they are put back. Not for plans that were made without seeing everything.
    pub fn see(&mut self, plan: &Plan, now: Timestamp) {
        let found = plan.steps.iter().filter(|s| s.cause.is_drift()).map(|s| (s.slot, s.cause.to_string()));
        self.seen = found.map(|key| (key.clone(), self.seen.get(&key).copied().unwrap_or(now))).collect();
        let drifting: BTreeSet<(u32, String)> = plan.steps.iter().filter_map(field_of).collect();
        let (still, done) = std::mem::take(&mut self.repairing).into_iter().partition(|field| drifting.contains(field));
        self.repairing = still;
        self.put_back.retain(|_, at| *at <= now && at.plus_millis(CONTEST_MS) > now);
        self.put_back.extend(BTreeSet::into_iter(done).map(|field| (field, now)));
    }

    /// Notes that a step was taken.
    pub fn took(&mut self, step: &Step) {
        self.repairing.extend(field_of(step));
    }

    /// Until when a field is left alone that was changed again after it was put back.
    fn contested(&self, field: &(u32, String), now: Timestamp) -> Option<Timestamp> {
        let at = self.put_back.get(field).filter(|at| **at <= now)?;
        Some(at.plus_millis(CONTEST_MS)).filter(|until| *until > now)
    }
}

/// The field, by replica, that a step puts back.
fn field_of(step: &Step) -> Option<(u32, String)> {
    let Cause::Drift { field, found, wanted } = &step.cause else { return None };
    // Each network that a container is in or not is a field of its own.
    let name = match (field.as_str(), found.as_str()) {
        ("networks", NOT_JOINED) => format!("networks/{wanted}"),
        ("networks", _) => format!("networks/{found}"),
        (field, _) => field.to_owned(),
    };
    Some((step.slot, name))
}

/// What is said of a container that is not in a network.
const NOT_JOINED: &str = "not joined";

/// Everything besides the manifest that a plan depends on.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The wall clock.
    pub now: Timestamp,
    /// Which Quaymaster.
    pub instance: &'a Name,
    /// What was observed.
    pub view: &'a ServiceView,
    /// How each node that it depends on stands; a missing one is not usable.
    pub gates: &'a BTreeMap<ObjectKey, Gate>,
    /// Recorded revisions, newest first.
    pub revisions: &'a [Revision],
    /// The numbers of those whose rollout was complete once.
    pub proven: &'a BTreeSet<u64>,
    /// What is known of the image of the newest revision, by id.
    pub pinned_image: Option<&'a Image>,
    /// The folder on the engine's host where [`Action::PlaceFiles`] keeps files.
    pub files_dir: &'a str,
    /// The folder on the engine's host in which each namespace has one with its app face.
    pub faces_dir: &'a str,
    /// The generation that was last recorded as done; a difference from an older one is a change, not drift.
    pub settled_generation: u64,
    /// The ids of the networks that its containers were in when all was last as wanted.
    pub settled_networks: &'a BTreeSet<Name>,
    /// The generation for which an image was pulled by this process.
    pub pulled_generation: Option<u64>,
    /// The engine's default logging driver is json-file, which never rotates by itself.
    pub default_log_grows: bool,
    /// Who suspended it, in words.
    pub suspended: Option<String>,
    /// A reload that a person asked for, or that follows from a dependency.
    pub reload: Option<&'a PendingReload>,
    /// The dependency for which it must not run now.
    pub held: Option<Held<'a>>,
    /// It reloads again and again: until when it does not, and what it would reload for.
    pub flapping: Option<(Timestamp, String)>,
    /// Containers that were stopped for a lost dependency, with the start time they had.
    pub stopped: &'a BTreeMap<Name, Option<Timestamp>>,
    /// Starts are held back.
    pub brake: Option<Wait>,
    /// Mini services that depend on this one and are still being taken down.
    pub dependents_leaving: Vec<ObjectKey>,
    /// What is remembered of drift.
    pub drift: &'a DriftMemory,
    /// How the service's lock stands for us.
    pub lock: Standing,
    /// Why containers that are to be adopted are not, in words; empty where all is well.
    pub not_adoptable: Vec<String>,
    /// What is remembered of a job.
    pub job: JobContext<'a>,
}

/// Why a service that is wanted does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held<'a> {
    /// A dependency is lost that stops it.
    Lost(&'a ObjectKey),
    /// A dependency is off that it cannot do without.
    Skipped(&'a ObjectKey),
}

impl Held<'_> {
    /// Why its containers are stopped.
    fn cause(self) -> Cause {
        match self {
            Self::Lost(on) => Cause::DependencyLost { on: on.clone() },
            Self::Skipped(on) => Cause::DependencyOff { on: on.clone() },
        }
    }
}

/// What a job's plan depends on besides.
#[derive(Clone, Copy, Debug)]
pub struct JobContext<'a> {
    /// What it has run; `None` = nothing is remembered of it.
    pub results: Option<&'a Results>,
    /// What else of ours there is in its namespace.
    pub others: Others,
    /// The hashes of steps that people approved.
    pub approved: &'a BTreeSet<String>,
}

impl JobContext<'_> {
    /// Nothing is remembered and nothing is there.
    pub const NOTHING: JobContext<'static> = JobContext { results: None, others: Others::None, approved: &BTreeSet::new() };
}

/// What else of ours there is in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Nothing.
    None,
    /// Things that the store remembers.
    Remembered,
    /// Things too that the store does not remember: it was lost, or they are orphans. What a job has run may be forgotten with them.
    Forgotten,
}

/// Plans one mini service.
pub fn plan_service(desired: &DesiredService, ctx: &Context<'_>) -> Plan {
    let mut plan = Plan::default();
    let spec = match &desired.form {
        Form::Container(spec) => spec,
        Form::Job(job) => return job::plan_job(desired, job, ctx),
        Form::External(_) | Form::Logical(_) => {
            plan.finalized = desired.deleting && ctx.view.containers.is_empty();
            return plan;
        }
    };
    if is_blind(desired, ctx, &mut plan) {
        return plan;
    }
    let planner = Planner { desired, spec, ctx };
    if desired.wanted_replicas() == 0 {
        planner.take_down(&mut plan);
    } else if let Some(project) = &ctx.view.foreign_project {
        plan.findings.push(planner.finding(
            Reason::NamespaceInUse,
            format!("the project `{project}` of another tool runs under this namespace's name: choose another namespace, or stop it"),
            true,
        ));
    } else if !ctx.not_adoptable.is_empty() {
        let why = ctx.not_adoptable.join("; ");
        let message = format!("{why}: correct the annotation {}, or remove it to have new ones made", crate::desired::ADOPT);
        plan.findings.push(planner.finding(Reason::NotAdoptable, message, true));
    } else if let Some(held) = ctx.held.filter(|held| !matches!(held, Held::Skipped(_)) || !planted(Mutant::SkippedRuns)) {
        planner.hold_down(held, &mut plan);
    } else {
        planner.bring_up(&mut plan);
    }
    if let Some((until, evidence)) = &ctx.flapping {
        let message = format!(
            "reloaded {} times in {} minutes, and is to again ({evidence}): not before {until}, or `quaymaster retry`",
            RELOADS.tries,
            RELOADS.window_ms / 60_000
        );
        plan.findings.push(planner.finding(Reason::Flapping, message, true));
    }
    match desired.drift {
        DriftMode::Report => report_drift(desired, &mut plan),
        DriftMode::Repair => {
            hold_contested(desired, ctx, &mut plan);
            if desired.hold_off_ms > 0 {
                hold_drift(desired, ctx, &mut plan);
            }
        }
    }
    suspend(ctx, &mut plan);
    lock::need_change(spec, ctx, &mut plan);
    plan
}

/// Tells of what cannot be observed, and whether nothing can be planned because of it.
fn is_blind(desired: &DesiredService, ctx: &Context<'_>, plan: &mut Plan) -> bool {
    for gap in &ctx.view.gaps {
        let what = match gap {
            Gap::Engine { message, .. } if message.is_empty() => "the engine was not listed yet".to_owned(),
            Gap::Engine { message, .. } => format!("the engine cannot be observed: {message}"),
            Gap::Thing { id, message } => format!("{id} cannot be observed: {message}"),
        };
        plan.findings.push(Finding { object: desired.key.clone(), reason: Reason::EngineUnreachable, message: what, stalls: false });
    }
    !ctx.view.gaps.is_empty() && !planted(Mutant::GapIsAbsence)
}

/// Nothing is done to what a person suspended, and it shows on every line.
fn suspend(ctx: &Context<'_>, plan: &mut Plan) {
    if let Some(by) = ctx.suspended.as_ref().filter(|_| !planted(Mutant::SuspendIgnored)) {
        plan.steps.iter_mut().for_each(|step| step.waits.push(Wait::Suspended { by: by.clone() }));
        plan.finalized = false;
    }
}

/// What somebody else changed is told, once a replica and cause, and stays.
fn report_drift(desired: &DesiredService, plan: &mut Plan) {
    let mut told = BTreeSet::new();
    for step in plan.steps.iter_mut().filter(|step| step.cause.is_drift()) {
        step.waits.push(Wait::Reported);
        let message = format!("replica {}: {}", step.slot, step.cause);
        if told.insert(message.clone()) {
            plan.findings.push(Finding { object: desired.key.clone(), reason: Reason::Drift, message, stalls: false });
        }
    }
}

/// Drift that is to be left alone for a while.
fn hold_drift(desired: &DesiredService, ctx: &Context<'_>, plan: &mut Plan) {
    for step in plan.steps.iter_mut().filter(|step| step.cause.is_drift()) {
        // What was seen first in the future was so before the clock went back: now.
        let since = ctx.drift.seen.get(&(step.slot, step.cause.to_string())).copied().filter(|at| *at <= ctx.now).unwrap_or(ctx.now);
        let until = since.plus_millis(i64::try_from(desired.hold_off_ms).unwrap_or(i64::MAX));
        if until > ctx.now {
            step.waits.push(Wait::HoldOff { until });
        }
    }
}

/// What somebody changed again after it was put back is left alone for a while, and told once a replica and field.
fn hold_contested(desired: &DesiredService, ctx: &Context<'_>, plan: &mut Plan) {
    let contested = |step: &Step| {
        let field = field_of(step)?;
        let until = ctx.drift.contested(&field, ctx.now)?;
        Some((field, until))
    };
    let mut told = BTreeSet::new();
    for at in 0..plan.steps.len() {
        let Some(((slot, field), until)) = contested(&plan.steps[at]) else { continue };
        // A container that does not run serves nobody: it is started as it should be.
        let lets_start = |step: &Step| step.after.contains(&at) && matches!(step.action, Action::Start { container: ContainerRef::Id(_) });
        if plan.steps.iter().any(lets_start) {
            continue;
        }
        let cause = plan.steps[at].cause.to_string();
        plan.steps[at].waits.push(Wait::Contested { until });
        if told.insert((slot, field)) {
            let message = format!("replica {slot}: {cause}, changed again after it was put back: left alone until {until}");
            plan.findings.push(Finding { object: desired.key.clone(), reason: Reason::Contested, message, stalls: false });
        }
    }
}

struct Planner<'a> {
    desired: &'a DesiredService,
    spec: &'a DesiredContainer,
    ctx: &'a Context<'a>,
}

impl Planner<'_> {
    fn finding(&self, reason: Reason, message: String, stalls: bool) -> Finding {
        Finding { object: self.desired.key.clone(), reason, message, stalls }
    }

    fn step(&self, slot: u32, action: Action, cause: Cause) -> Step {
        Step {
            action,
            object: self.desired.key.clone(),
            slot,
            cause,
            waits: Vec::new(),
            after: Vec::new(),
            needs_approval: false,
            needs: None,
        }
    }

    fn grace_seconds(&self) -> i64 {
        self.spec.stop_grace_ms.div_ceil(1_000) as i64
    }

    /// Nothing is wanted: stop and remove every container, after those who depend on us are gone.
    fn take_down(&self, plan: &mut Plan) {
        let cause = match self.desired.off {
            _ if self.desired.deleting => Cause::Deleted,
            Some(reason) => Cause::Off { reason },
            None => Cause::ScaledDown,
        };
        let waits: Vec<Wait> = if self.desired.deleting && !planted(Mutant::DeleteAnyOrder) {
            self.ctx.dependents_leaving.iter().map(|who| Wait::Gone { who: who.clone() }).collect()
        } else {
            Vec::new()
        };
        for container in &self.ctx.view.containers {
            self.remove(plan, container, cause.clone(), waits.clone(), Vec::new());
        }
        let nothing_left = self.ctx.view.containers.is_empty() || planted(Mutant::FinalizedEarly);
        plan.finalized = self.desired.deleting && nothing_left;
    }

    /// Stops (where it runs) and removes a container; gives the index of the last step.
    fn remove(&self, plan: &mut Plan, container: &Container, cause: Cause, waits: Vec<Wait>, after: Vec<usize>) -> Option<usize> {
        let slot = container.stamp.as_ref().map_or(0, |s| s.slot);
        if container.state == RunState::Removing {
            return None;
        }
        let mut before = after;
        if container.state.is_up() {
            let action = Action::Stop { container: container.id.clone(), grace_seconds: self.grace_seconds() };
            before = vec![plan.push(Step { waits: waits.clone(), after: before, ..self.step(slot, action, cause.clone()) })];
        }
        let action = Action::RemoveContainer { container: container.id.clone() };
        Some(plan.push(Step { waits, after: before, ..self.step(slot, action, cause) }))
    }

    /// A dependency that it must not run without is lost, or off: what runs is stopped and stays as it is. Meanwhile it only follows its
    /// networks: one that is replaced or removed waits for everybody to leave.
    fn hold_down(&self, held: Held<'_>, plan: &mut Plan) {
        plan.held = true;
        for container in self.ctx.view.containers.iter().filter(|c| c.state != RunState::Removing) {
            let slot = container.stamp.as_ref().map_or(0, |s| s.slot);
            drift::plan_networks(self, slot, container, plan);
            if !container.state.is_up() {
                continue;
            }
            let action = Action::Stop { container: container.id.clone(), grace_seconds: self.grace_seconds() };
            plan.push(self.step(slot, action, held.cause()));
        }
        let (reason, message) = match held {
            Held::Lost(on) => (Reason::DependencyUnavailable, format!("stopped until {}/{} returns", on.namespace, on.name)),
            Held::Skipped(on) => (Reason::Skipped, format!("not run while {}/{} is off", on.namespace, on.name)),
        };
        plan.findings.push(self.finding(reason, message, false));
    }

    fn bring_up(&self, plan: &mut Plan) {
        let target = match target::resolve(self, plan) {
            Some(target) => target,
            None => return,
        };
        let wanted = self.desired.wanted_replicas();
        let mut slots: BTreeMap<u32, Vec<&Container>> = (1..=wanted).map(|slot| (slot, Vec::new())).collect();
        for container in &self.ctx.view.containers {
            let slot = container.stamp.as_ref().map_or(0, |s| s.slot);
            match slots.get_mut(&slot) {
                Some(list) => list.push(container),
                None => {
                    let cause = if slot == 0 { Cause::Superseded } else { Cause::ScaledDown };
                    self.remove(plan, container, cause, Vec::new(), Vec::new());
                }
            }
        }
        slot::plan_slots(self, &target, slots, plan);
        self.report_unnamed_volumes(plan);
        self.report_rollout(plan);
    }

    fn report_rollout(&self, plan: &mut Plan) {
        let message = match &self.desired.rollout {
            Rollout::Wanted => return,
            Rollout::RolledBack { message, .. } | Rollout::Paused { message } => message.clone(),
        };
        let reason = if matches!(self.desired.rollout, Rollout::Paused { .. }) { Reason::RolloutPaused } else { Reason::RolledBack };
        plan.findings.push(self.finding(reason, message, false));
    }

    fn report_unnamed_volumes(&self, plan: &mut Plan) {
        let Some(Image::Present { volumes, .. }) = &self.ctx.view.image else { return };
        for path in
            volumes.iter().filter(|path| !self.spec.mounts.iter().any(|m| m.target.trim_end_matches('/') == path.trim_end_matches('/')))
        {
            plan.findings.push(self.finding(
                Reason::AsWanted,
                format!("the image declares the volume {path}: give it a name under `volumes`, or its data is hard to find again"),
                false,
            ));
        }
    }

    /// What the start of a container that has waited since `since` must wait for.
    fn start_waits(&self, since: Option<Timestamp>) -> Vec<Wait> {
        let mut waits: Vec<Wait> = self.desired.dependencies.iter().filter_map(|d| self.gate(d, since)).collect();
        waits.extend(self.ctx.brake.clone());
        waits
    }

    fn gate(&self, dependency: &Dependency, since: Option<Timestamp>) -> Option<Wait> {
        let gate = self.ctx.gates.get(&dependency.on).copied().unwrap_or(Gate { usable: false, bad: false });
        match dependency.start {
            _ if gate.usable || planted(Mutant::StartUngated) => None,
            Start::Skip => None,
            Start::Wait => Some(Wait::Usable { on: dependency.on.clone() }),
            Start::Try if gate.bad => None,
            Start::Try => {
                let timeout = dependency.start_timeout_ms as i64;
                let until = since.map(|since| since.plus_millis(timeout));
                // A clock that went back must not make the wait longer; the engine's may be ahead of ours by less than the wait.
                let latest = self.ctx.now.plus_millis(timeout.saturating_mul(2));
                match until {
                    Some(until) if until <= self.ctx.now || until > latest => None,
                    until => Some(Wait::Tried { on: dependency.on.clone(), until }),
                }
            }
        }
    }

    fn canonical_name(&self, slot: u32) -> String {
        format!("{}-{}-{slot}", self.desired.key.namespace, self.desired.key.name)
    }

    /// A difference found on a generation that was settled before is drift; on a new one it is the manifest's change.
    fn difference(&self, field: &str, found: String, wanted: String) -> Cause {
        if self.ctx.settled_generation >= self.desired.generation {
            Cause::Drift { field: field.to_owned(), found, wanted }
        } else {
            Cause::Changed { field: field.to_owned(), found, wanted }
        }
    }

    /// This generation was applied before: a slot without a container lost it.
    fn was_settled(&self) -> bool {
        self.ctx.settled_generation >= self.desired.generation
    }
}

/// Volumes of a plan that are already being made, so that two slots do not make one twice.
type VolumesMade = BTreeSet<String>;
