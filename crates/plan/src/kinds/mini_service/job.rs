//! A job: which run there is to be, which container of it comes next, and which may go (DESIGN 3.7, ADR 0013).
//!
//! Decided from the record and the containers that are there: each container says by its stamp which run, attempt and step it is, and its
//! name is made of them, so that the engine itself refuses a second one. What a pass learns becomes a [`Note`], which is durable before
//! the plan's steps are taken. Start at [`plan_job`].

use std::sync::Arc;

use qm_api::conditions::Reason;
use qm_api::kinds::mini_service::{Concurrency, JobState, MissedRuns};
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use qm_api::spec::container::Follow;
use qm_api::spec::cron::Schedule;
use qm_api::time::Timestamp;

use super::slot::{body, create_volumes, files, has_writes, joins, write_files};
use super::target::{self, Target};
use super::{Context, Held, Others, Planner, VolumesMade, drift, is_blind, suspend};
use crate::desired::{DesiredJob, DesiredService};
use crate::job::{Meaning, Note, Part, PartResult, Proof, Results, Run, Skip, describe, input_digest, short, standing, steps};
use crate::observed::{Container, Image, RunState};
use crate::plan::Plan;
use crate::stamp::JobStamp;
use crate::step::{Action, Cause, ContainerRef, ImageRef, Step, Wait};

/// A run that is so late, in milliseconds, was missed: nobody was there when it was due.
const ON_TIME_MS: i64 = 60_000;
/// The record may be so far ahead of the clock, in milliseconds, before it is not believed: the clock went back.
const AHEAD_MS: i64 = 3_600_000;

/// Plans a job.
pub(super) fn plan_job(desired: &DesiredService, job: &DesiredJob, ctx: &Context<'_>) -> Plan {
    let mut plan = Plan::default();
    let results = ctx.job.results.cloned().unwrap_or_default();
    let mut desk = Desk { planner: Planner { desired, spec: &job.container, ctx }, job, results };
    let mut digest = desk.known_digest();
    if !is_blind(desired, ctx, &mut plan) {
        desk.note_ends(&mut plan);
        if desired.wanted_replicas() == 0 {
            desk.take_down(&mut plan);
        } else if let Some(project) = &ctx.view.foreign_project {
            let message =
                format!("the project `{project}` of another tool runs under this namespace's name: choose another namespace, or stop it");
            plan.findings.push(desk.planner.finding(Reason::NamespaceInUse, message, true));
        } else if let Some(Held::Skipped(on)) = ctx.held {
            // A container that runs may be in the middle of a migration; nothing more is begun.
            let message = format!("not run while {}/{} is off", on.namespace, on.name);
            plan.findings.push(desk.planner.finding(Reason::Skipped, message, false));
            plan.held = true;
            for container in desk.containers() {
                desk.hold_to_deadline(&container, &mut plan);
            }
            desk.clean_up(&mut plan);
            desk.wake(&mut plan);
        } else {
            digest = desk.bring_up(digest, &mut plan);
        }
        suspend(ctx, &mut plan);
    }
    plan.job = Some(standing(job, &desk.results, digest.as_deref(), ctx.now));
    plan
}

struct Desk<'a> {
    planner: Planner<'a>,
    job: &'a DesiredJob,
    /// The record, as it is when all notes of the plan are in it.
    results: Results,
}

/// The container's part of a job, if it has one.
fn stamp(container: &Container) -> Option<&JobStamp> {
    container.stamp.as_ref()?.job.as_ref()
}

impl Desk<'_> {
    fn ctx(&self) -> &Context<'_> {
        self.planner.ctx
    }

    fn note(&mut self, note: Note, plan: &mut Plan) {
        self.results.apply(&note, "");
        plan.notes.push(note);
    }

    /// The containers that are part of a job, oldest first.
    fn containers(&self) -> Vec<Arc<Container>> {
        let mut list: Vec<Arc<Container>> = self.ctx().view.containers.iter().filter(|c| stamp(c).is_some()).cloned().collect();
        list.sort_by_key(|c| (c.created_at, c.id.clone()));
        list
    }

    /// The digest of the input, where the image is known without a look at the engine: from the revision that was made of it.
    fn known_digest(&self) -> Option<Name> {
        let ctx = self.ctx();
        let moved = match (&ctx.view.image, self.planner.spec.follow) {
            (Some(Image::Present { id, .. }), Follow::Tag) => Some(id.clone()),
            _ => None,
        };
        let pinned = || {
            let newest = ctx.revisions.first().filter(|revision| revision.image == self.planner.spec.image)?;
            Some(Name::from(newest.image_id.as_str()))
        };
        moved.or_else(pinned).map(|image| input_digest(self.job, &image))
    }

    /// What has ended, or is gone, since the record was made. Runs that the record does not know are taken from their containers.
    fn note_ends(&mut self, plan: &mut Plan) {
        for container in self.containers() {
            let Some(part_of) = stamp(&container).cloned() else { continue };
            if self.results.run(&part_of.run).is_none() {
                let run = self.recovered(&container, &part_of);
                self.note(Note::Opened(Box::new(run)), plan);
            }
            self.note_begun(&container, &part_of, plan);
            self.note_end(&container, &part_of, plan);
        }
        let gone: Vec<(Name, Part)> = self
            .results
            .runs
            .iter()
            .filter(|run| run.state == JobState::Running)
            .filter_map(|run| Some((run.id.clone(), run.begun.clone()?)))
            .filter(|(run, part)| {
                let is_it = |c: &Arc<Container>| stamp(c).is_some_and(|s| s.run == *run && Part::from(s) == *part);
                !self.ctx().view.containers.iter().any(is_it) && self.results.run(run).is_some_and(|r| !r.has(part))
            })
            .collect();
        for (run, part) in gone {
            let message = "is gone, and nobody knows how it ended".to_owned();
            let result =
                PartResult { part, exit_code: None, started_at: None, finished_at: self.ctx().now, message, output: String::new() };
            self.note(Note::Vanished { run, result: Box::new(result) }, plan);
        }
    }

    /// A container that was started and that the record does not know of as begun: the record was lost, or somebody else started it. Should it
    /// be gone later, nobody would know how it ended.
    fn note_begun(&mut self, container: &Container, part_of: &JobStamp, plan: &mut Plan) {
        let part = Part::from(part_of);
        let (Some(run), Some(at)) = (self.results.run(&part_of.run), container.started_at) else { return };
        let is_known = run.has(&part) || run.begun.as_ref().is_some_and(|begun| *begun == part || begun.attempt > part.attempt);
        if run.state == JobState::Running && !is_known {
            self.note(Note::Begun { run: part_of.run.clone(), part, at }, plan);
        }
    }

    fn note_end(&mut self, container: &Container, part_of: &JobStamp, plan: &mut Plan) {
        let part = Part::from(part_of);
        let Some(run) = self.results.run(&part_of.run) else { return };
        let could_not_start = container.state == RunState::Created && run.begun.as_ref() == Some(&part) && !container.error.is_empty();
        let has_ended = matches!(container.state, RunState::Exited | RunState::Dead) || could_not_start;
        if !has_ended || run.has(&part) {
            return;
        }
        let exit_code = if could_not_start && container.exit_code == 0 { 128 } else { container.exit_code };
        let meaning = match exit_code {
            0 if steps(self.job).last() == Some(&part.step) => Meaning::Succeeded,
            0 => Meaning::GoesOn,
            _ if run.failures - run.forgiven.min(run.failures) >= self.job.retries => Meaning::Failed,
            _ => Meaning::TriedAgain,
        };
        let result = PartResult {
            part,
            exit_code: Some(exit_code),
            started_at: container.started_at,
            finished_at: container.finished_at.unwrap_or(self.ctx().now),
            message: self.ending(container, exit_code),
            output: String::new(),
        };
        let note = Note::Ended { run: part_of.run.clone(), container: container.id.clone(), result: Box::new(result), meaning };
        self.note(note, plan);
    }

    fn ending(&self, container: &Container, exit_code: i64) -> String {
        let lasted = container.finished_at.zip(container.started_at).map(|(end, start)| end.millis_since(start));
        let deadline = self.job.deadline_ms.filter(|deadline| exit_code != 0 && lasted.is_some_and(|ms| ms >= *deadline as i64));
        match (deadline, container.error.as_str()) {
            (Some(deadline), _) => format!("was stopped after {} s, as long as it may run", deadline / 1_000),
            (None, "") => format!("ended with code {exit_code}"),
            (None, error) => format!("ended with code {exit_code}: {error}"),
        }
    }

    /// A run that only its container tells of: the record was lost. The steps before the container's have succeeded, or it would not be.
    fn recovered(&self, container: &Container, part_of: &JobStamp) -> Run {
        let hash = container.stamp.as_ref().map(|s| s.spec_hash.clone()).unwrap_or_default();
        let mut run = Run::new(part_of.run.clone(), short(&hash));
        run.due = part_of.due;
        run.failures = part_of.attempt.saturating_sub(1);
        run.started_at = container.started_at;
        run.begun = container.started_at.map(|_| Part::from(part_of));
        let before = steps(self.job).into_iter().take_while(|step| *step != part_of.step);
        run.results = before
            .map(|step| PartResult {
                part: Part { step, attempt: part_of.attempt },
                exit_code: Some(0),
                started_at: None,
                finished_at: container.created_at,
                message: "ended with code 0, as the step after it shows".to_owned(),
                output: String::new(),
            })
            .collect();
        run
    }

    /// Nothing is wanted: what runs is stopped, and goes when it is recorded how it ended; all goes at once with the job itself.
    fn take_down(&mut self, plan: &mut Plan) {
        if self.planner.desired.deleting {
            plan.notes.clear();
            self.planner.take_down(plan);
            return;
        }
        let cause = Cause::Off { reason: self.planner.desired.off.unwrap_or(Reason::Disabled) };
        for container in &self.planner.ctx.view.containers {
            let is_recorded = stamp(container).is_none_or(|s| self.results.run(&s.run).is_none_or(|run| run.has(&Part::from(s))));
            if container.state.is_up() && stamp(container).is_some() {
                let action = Action::Stop { container: container.id.clone(), grace_seconds: self.planner.grace_seconds() };
                plan.push(self.planner.step(slot(container), action, cause.clone()));
            } else if is_recorded || container.state == RunState::Created {
                self.planner.remove(plan, container, cause.clone(), Vec::new(), Vec::new());
            }
        }
    }

    /// Brings the job on; gives the digest of its input.
    fn bring_up(&mut self, known: Option<Name>, plan: &mut Plan) -> Option<Name> {
        let due = self.due();
        if !self.has_work(known.as_deref(), due.is_some()) {
            self.clean_up(plan);
            self.wake(plan);
            return known;
        }
        let Some(target) = target::resolve(&self.planner, plan) else {
            self.clean_up(plan);
            self.wake(plan);
            return known;
        };
        let digest = target.pull.is_none().then(|| input_digest(self.job, &target.image_id));
        self.close_outdated(digest.as_deref(), plan);
        match &self.job.schedule {
            Some(_) => self.open_due(due, digest.as_deref(), plan),
            None => self.open_once(digest.as_deref(), plan),
        }
        let mut volumes = VolumesMade::new();
        let short = digest.as_deref().map(short);
        let running: Vec<Run> = self.results.runs.iter().rev().filter(|run| run.state == JobState::Running).cloned().collect();
        for run in running {
            let is_current = short.as_ref().is_none_or(|short| run.digest == *short);
            self.advance(&run, is_current, &target, digest.as_deref().unwrap_or_default(), &mut volumes, plan);
        }
        self.clean_up(plan);
        self.wake(plan);
        digest
    }

    /// Whether anything is to be run: an image is neither looked for nor pulled for what is done.
    fn has_work(&self, known: Option<&str>, is_due: bool) -> bool {
        let runs = || self.results.runs.iter().any(|run| run.state == JobState::Running);
        if self.results.wish.is_some() || is_due || runs() {
            return true;
        }
        let newest = known.and_then(|digest| self.results.newest_of(&short(digest)));
        let is_over = newest.is_some_and(|run| matches!(run.state, JobState::Succeeded | JobState::Failed));
        self.job.schedule.is_none() && (!is_over || planted(Mutant::JobRunsAgain))
    }

    fn has_container(&self, run: &Run, is: impl Fn(&Container) -> bool) -> bool {
        self.ctx().view.containers.iter().any(|c| stamp(c).is_some_and(|s| s.run == run.id) && is(c))
    }

    /// Runs of another input end where they are: what runs ends by itself, and nothing of it is begun any more.
    fn close_outdated(&mut self, digest: Option<&str>, plan: &mut Plan) {
        let Some(digest) = digest.map(short) else { return };
        let outdated = |run: &&Run| {
            run.state == JobState::Running
                && run.digest != digest
                && !self.has_container(run, |c| c.state.is_up() || c.state == RunState::Removing)
        };
        let closed: Vec<Name> = self.results.runs.iter().filter(outdated).map(|run| run.id.clone()).collect();
        for run in closed {
            self.note(Note::Closed { run, at: self.ctx().now }, plan);
        }
    }

    fn open(&mut self, run: Run, plan: &mut Plan) {
        if self.ctx().suspended.is_some() {
            // Only the plan shows it.
            self.results.apply(&Note::Opened(Box::new(run)), "");
        } else {
            self.note(Note::Opened(Box::new(run)), plan);
        }
    }

    fn is_busy(&self) -> bool {
        self.results.runs.iter().any(|run| run.state == JobState::Running)
    }

    /// A name that no run has: the beginning of the digest, with a number from the second on.
    fn fresh_id(&self, first: &str) -> Name {
        let is_free = |id: &String| self.results.run(id).is_none();
        let numbered = (2_u32..).map(|n| format!("{first}-{n}"));
        std::iter::once(first.to_owned()).chain(numbered).find(is_free).unwrap_or_default().into()
    }

    /// The one run for the present input, and another one when a person asks for it.
    fn open_once(&mut self, digest: Option<&str>, plan: &mut Plan) {
        // While the image is not known nobody can tell which run it is: the plan shows one without a name.
        let digest = digest.map(short).unwrap_or_default();
        let newest = self.results.newest_of(&digest).map(|run| run.state);
        let is_first = newest.is_none_or(|state| state == JobState::Superseded || planted(Mutant::JobRunsAgain));
        // Two inputs at once would be in each other's way: the older one ends first.
        if self.is_busy() || (self.results.wish.is_none() && !is_first) {
            return;
        }
        // What was not finished when the input changed goes on where it was when the input comes back.
        let unfinished = self.results.newest_of(&digest).filter(|run| run.state == JobState::Superseded && self.results.wish.is_none());
        let mut run = match unfinished {
            Some(run) => run.reopened(),
            None => Run { asked: self.results.wish.clone(), ..Run::new(self.fresh_id(&digest), digest) },
        };
        // A run that a person asks for is meant, whatever was before.
        let others = self.ctx().job.others;
        let may_have_run = self.results.proof == Proof::Unproven || (self.ctx().job.results.is_none() && others == Others::Forgotten);
        let is_forgotten = may_have_run && self.results.runs.is_empty();
        if is_forgotten && run.asked.is_none() {
            run.proof = Proof::Unproven;
        }
        if run.digest.is_empty() {
            self.results.apply(&Note::Opened(Box::new(run)), "");
        } else {
            self.open(run, plan);
        }
    }

    /// From when on runs may be due.
    fn decided(&self) -> Option<Timestamp> {
        self.results.decided.filter(|decided| decided.millis_since(self.ctx().now) <= AHEAD_MS)
    }

    /// The run that is due now, and how many were since the last decision.
    fn due(&self) -> Option<(Timestamp, u32)> {
        let schedule: &Schedule = self.job.schedule.as_ref()?;
        if self.ctx().suspended.is_some() {
            return None;
        }
        schedule.last_between(self.decided()?, self.ctx().now)
    }

    fn open_due(&mut self, due: Option<(Timestamp, u32)>, digest: Option<&str>, plan: &mut Plan) {
        let now = self.ctx().now;
        let allows = self.job.concurrency == Concurrency::Allow;
        // Somebody was there, so what comes late because its image has to be pulled was not missed.
        let is_late = |due: Timestamp| now.millis_since(due) > ON_TIME_MS;
        if let Some((due, _)) = due.filter(|(due, _)| !is_late(*due) && digest.is_none() && self.results.noticed != Some(*due)) {
            self.note(Note::Noticed(due), plan);
        }
        let Some(digest) = digest.map(short) else { return };
        if self.results.wish.is_some() && (allows || !self.is_busy()) {
            let mut run = Run::new(self.fresh_id("asked"), digest.clone());
            run.asked = self.results.wish.clone();
            self.open(run, plan);
        }
        let Some((due, count)) = due else { return };
        let was_noticed = self.results.noticed == Some(due);
        let skip = if is_late(due) && !was_noticed && self.job.missed_runs == MissedRuns::Skip {
            Some(Skip::Missed)
        } else if self.is_busy() && self.job.concurrency == Concurrency::Forbid {
            Some(Skip::StillRunning)
        } else {
            None
        };
        if let Some(why) = skip {
            self.note(Note::Skipped { due, count, why }, plan);
            return;
        }
        if self.job.concurrency == Concurrency::Replace {
            let running: Vec<Name> = self.results.runs.iter().filter(|r| r.state == JobState::Running).map(|r| r.id.clone()).collect();
            for run in running {
                self.note(Note::Closed { run, at: now }, plan);
            }
        }
        let mut run = Run::new(self.fresh_id(&instant_word(due)), digest);
        run.due = Some(due);
        self.open(run, plan);
    }

    /// Looks again when the next run is due. A job that was never looked at has missed nothing.
    fn wake(&mut self, plan: &mut Plan) {
        let Some(schedule) = &self.job.schedule else { return };
        let now = self.ctx().now;
        let next = schedule.next_after(self.decided().unwrap_or(now));
        plan.look_at(next.filter(|at| *at > now));
        if self.decided().is_none() && self.ctx().suspended.is_none() {
            self.note(Note::From(now), plan);
        }
    }

    /// The next container of a run: made, started, or left to run.
    fn advance(&mut self, run: &Run, is_current: bool, target: &Target, digest: &str, volumes: &mut VolumesMade, plan: &mut Plan) {
        let Some(part) = run.next(self.job).filter(|_| is_current) else {
            // Of an older input: it ends by itself, within its time.
            for container in self.containers().iter().filter(|c| stamp(c).is_some_and(|s| s.run == run.id)) {
                self.hold_to_deadline(container, plan);
            }
            return;
        };
        let wanted = part.stamp(run);
        let there = self.containers().into_iter().find(|c| stamp(c).is_some_and(|s| s.run == wanted.run && Part::from(s) == part));
        match there {
            None => self.make(run, &part, target, digest, volumes, plan),
            Some(container) if container.state == RunState::Created => self.start(run, &part, &container, plan),
            Some(container) => self.hold_to_deadline(&container, plan),
        }
    }

    fn cause(&self, run: &Run, part: &Part) -> Cause {
        Cause::Run { run: run.id.clone(), part: describe(self.job, part) }
    }

    fn slot_of(&self, part: &Part) -> u32 {
        1 + self.job.steps.iter().position(|step| part.step == step.name.as_str()).unwrap_or(0) as u32
    }

    fn hold_to_deadline(&self, container: &Container, plan: &mut Plan) {
        if container.state == RunState::Running {
            // It may have to leave a network that another one takes the place of.
            drift::plan_moves(&self.planner, slot(container), container, plan);
        }
        let (Some(deadline), Some(started), true) = (self.job.deadline_ms, container.started_at, container.state.is_up()) else { return };
        let until = started.plus_millis(i64::try_from(deadline).unwrap_or(i64::MAX));
        // A start in the future was before the clock went back.
        if started > self.ctx().now || until > self.ctx().now {
            plan.look_at(Some(until.min(self.ctx().now.plus_millis(i64::try_from(deadline).unwrap_or(i64::MAX)))));
            return;
        }
        let action = Action::Stop { container: container.id.clone(), grace_seconds: self.planner.grace_seconds() };
        plan.push(self.planner.step(slot(container), action, Cause::DeadlinePassed { seconds: deadline / 1_000 }));
    }

    /// Starts a container that is there: networks and files first, in case whoever made it did not come so far.
    fn start(&mut self, run: &Run, part: &Part, container: &Container, plan: &mut Plan) {
        let (slot, cause) = (self.slot_of(part), self.cause(run, part));
        let id = || ContainerRef::Id(container.id.clone());
        let mut waits = self.planner.start_waits(Some(container.created_at));
        let (missing, joins) = joins(&self.planner);
        waits.extend(missing);
        let mut before = Vec::new();
        for join in joins.into_iter().filter(|join| !join.network_id.is_empty() && !container.networks.contains_key(&join.network_name)) {
            before.push(plan.push(self.planner.step(slot, Action::Connect { container: id(), join }, cause.clone())));
        }
        if has_writes(&self.planner) {
            // When it starts, and not again and again while the start waits.
            let write = write_files(&self.planner, slot, id(), cause.clone());
            before = vec![plan.push(Step { waits: waits.clone(), after: before, ..write })];
        }
        let is_begun = run.begun.as_ref() == Some(part);
        if waits.is_empty() && self.ctx().suspended.is_none() && !is_begun {
            self.note(Note::Begun { run: run.id.clone(), part: part.clone(), at: self.ctx().now }, plan);
        }
        let step = self.planner.step(slot, Action::Start { container: id() }, cause);
        plan.push(Step { waits, after: before, ..step });
    }

    /// Makes the container of a part. It is started in a pass of its own, when the record says that it was begun.
    fn make(&self, run: &Run, part: &Part, target: &Target, digest: &str, volumes: &mut VolumesMade, plan: &mut Plan) {
        let (number, cause) = (self.slot_of(part), self.cause(run, part));
        let command = self.job.steps.iter().find(|step| part.step == step.name.as_str()).map(|step| step.command.clone());
        let mut spec = self.job.container.clone();
        spec.command = command.or(spec.command);
        let planner = Planner { spec: &spec, ..self.planner };
        let desired = planner.desired;
        let step_name = if part.step.is_empty() { String::new() } else { format!("-{}", part.step) };
        let run_name = if run.id.is_empty() { "run" } else { run.id.as_str() };
        let name = format!("{}-{}-{run_name}-{}{step_name}", desired.key.namespace, desired.key.name, part.attempt);
        if let Some(holder) = planner.ctx.view.names_taken.get(name.as_str()) {
            let message = format!("the name {name} belongs to the container {holder} that is not ours: rename or remove it");
            plan.findings.push(planner.finding(Reason::NameConflict, message, true));
            return;
        }
        let mut before: Vec<usize> = target.pull.into_iter().collect();
        let (mut waits, joins) = joins(&planner);
        let mut body = body(&planner, target, number, &[], joins.first().cloned());
        let mut stamp = crate::stamp::Stamp::read(&body.labels).unwrap_or_else(|| unreachable!("a body is stamped"));
        (stamp.spec_hash, stamp.job) = (digest.into(), Some(part.stamp(run)));
        body.labels.extend(stamp.labels(desired.generation));
        let image = if target.pull.is_some() { ImageRef::AfterPull } else { ImageRef::Id(target.image_id.clone()) };
        let mut create = planner.step(number, Action::CreateContainer { name, image, body: Box::new(body) }, cause.clone());
        self.ask(run, part, &mut create, plan);
        waits.append(&mut create.waits);
        waits.extend(run.pause(planner.ctx.now).map(|until| Wait::Backoff { until }));
        waits.extend(planner.ctx.brake.clone());
        let others = |action, before| Step { waits: waits.clone(), after: before, ..planner.step(number, action, cause.clone()) };
        before.extend(create_volumes(&planner, volumes, plan));
        if spec.read_only && !spec.files.is_empty() {
            before.push(plan.push(others(Action::PlaceFiles { files: files(&planner) }, Vec::new())));
        }
        let create = plan.push(Step { waits: waits.clone(), after: before, ..create });
        let made = || ContainerRef::Made(create);
        let mut before = vec![create];
        for join in joins.into_iter().skip(1) {
            before.push(plan.push(others(Action::Connect { container: made(), join }, vec![create])));
        }
        if has_writes(&planner) {
            let write = write_files(&planner, number, made(), cause.clone());
            before.push(plan.push(Step { waits: waits.clone(), after: vec![create], ..write }));
        }
        let mut waits = planner.start_waits(Some(planner.ctx.now));
        waits.push(Wait::Begun);
        let start = planner.step(number, Action::Start { container: made() }, cause.clone());
        plan.push(Step { waits, after: before, ..start });
    }

    /// A run that may have been made before waits for a person, unless there is nothing that it could harm.
    fn ask(&self, run: &Run, part: &Part, create: &mut Step, plan: &mut Plan) {
        if run.proof == Proof::Known || self.ctx().job.others == Others::None {
            return;
        }
        create.needs_approval = true;
        let hash = create.hash();
        if self.ctx().job.approved.contains(&hash) {
            return;
        }
        create.waits.push(Wait::Approval);
        let DesiredService { key, .. } = self.planner.desired;
        let message = format!(
            "nobody knows whether it has run before ({}): `quaymaster approve {}` lets it run, and so does `quaymaster job run msvc/{} -n {}`",
            describe(self.job, part),
            &hash[..12],
            key.name,
            key.namespace
        );
        plan.findings.push(self.planner.finding(Reason::ApprovalNeeded, message, false));
    }

    /// Takes away what is recorded and superseded. What failed last stays for people to look at, until the next attempt or success.
    fn clean_up(&self, plan: &mut Plan) {
        for container in &self.planner.ctx.view.containers {
            let Some(part_of) = stamp(container) else {
                // From when it was no job.
                self.planner.remove(plan, container, Cause::Superseded, Vec::new(), Vec::new());
                continue;
            };
            let run = self.results.run(&part_of.run);
            let is_recorded = run.is_some_and(|run| run.has(&Part::from(part_of)));
            let is_carried_on = run.is_some_and(|run| run.state == JobState::Running);
            match (is_recorded, is_carried_on) {
                (true, _) if run.is_some_and(|run| self.is_kept(run, container, part_of)) => {}
                (true, _) if !container.state.is_up() => {
                    self.planner.remove(plan, container, Cause::Recorded, Vec::new(), Vec::new());
                }
                (true, _) | (false, false) => {
                    self.planner.remove(plan, container, Cause::Superseded, Vec::new(), Vec::new());
                }
                (false, true) => {}
            }
        }
    }

    fn is_kept(&self, run: &Run, container: &Container, part_of: &JobStamp) -> bool {
        let is_newest = self.results.runs.first().is_some_and(|newest| newest.id == run.id);
        let has_failed = run.last().is_some_and(|last| last.part == Part::from(part_of) && last.exit_code != Some(0));
        let goes_on = matches!(run.state, JobState::Running | JobState::Failed);
        let next = |c: &Container| stamp(c).is_some_and(|s| s.attempt > part_of.attempt);
        // It must not keep a network from being taken away.
        let is_in_the_way = |network: &Name| self.ctx().view.networks.values().any(|place| place.older.contains_key(network));
        is_newest
            && goes_on
            && has_failed
            && !self.has_container(run, next)
            && !container.networks.values().any(|attachment| is_in_the_way(&attachment.network_id))
    }
}

fn slot(container: &Container) -> u32 {
    container.stamp.as_ref().map_or(0, |stamp| stamp.slot)
}

/// An instant as a part of a name: `202611270430`, in UTC.
fn instant_word(at: Timestamp) -> String {
    at.to_seconds_string().chars().filter(char::is_ascii_digit).take(12).collect()
}
