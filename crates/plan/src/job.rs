//! Owns what a job has run: the durable record, the notes of planning that change it, and how the job stands by it.
//!
//! The record and the containers together say what was done. A note is durable before any step of its plan is taken: a container is begun
//! in the record before it is started, and its result stands there before it is removed (ADR 0013).

use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::kinds::mini_service::JobState;
use qm_api::name::Name;
use qm_api::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::desired::DesiredJob;
use crate::leaf;
use crate::stamp::JobStamp;

/// So many runs are remembered.
pub const RUNS_KEPT: usize = 10;
/// So much is kept of the end of what a container wrote, in bytes.
pub const OUTPUT_KEPT: usize = 4_096;
/// The first pause after a failure, in milliseconds; it doubles ..
const FIRST_PAUSE_MS: i64 = 10_000;
/// .. up to here.
const LAST_PAUSE_MS: i64 = 360_000;
/// Digits of a digest that name a run.
const DIGITS: usize = 12;

/// What a job has run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// The runs, newest first; never more than [`RUNS_KEPT`].
    pub runs: Vec<Run>,
    /// A run that a person asked for and that is not opened yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<Wish>,
    /// Whether anything may have been run before this record.
    #[serde(default)]
    pub proof: Proof,
    /// Up to this instant it is decided which scheduled runs there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Timestamp>,
    /// A run that was due at this instant was seen in time, and is late because its image is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noticed: Option<Timestamp>,
}

/// A run that a person asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wish {
    /// Who.
    pub actor: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Whether it is known what was run before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// The record tells all.
    #[default]
    Known,
    /// Neither record nor container tells whether it, or a part of it, was made before.
    Unproven,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its name among the runs of the job.
    pub id: Name,
    /// The beginning of its input's digest.
    pub digest: Name,
    /// When it was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Wish>,
    /// Whether it may have been made before.
    #[serde(default)]
    pub proof: Proof,
    /// How it stands.
    pub state: JobState,
    /// When its first container was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Containers of it that failed ..
    #[serde(default)]
    pub failures: u32,
    /// .. of which so many do not count: a person said `retry`.
    #[serde(default)]
    pub forgiven: u32,
    /// Containers of it that are gone, nobody knows with which result.
    #[serde(default)]
    pub lost: u32,
    /// What was begun last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Part>,
    /// The newest result of each step, in the order in which they came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<PartResult>,
}

/// One container's part in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// The step; empty for a job without steps.
    #[serde(default)]
    pub step: Name,
    /// The attempt, from 1.
    pub attempt: u32,
}

/// How a container of a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartResult {
    /// Which part it was.
    pub part: Part,
    /// Its exit code; absent when it is gone, nobody knows with which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// What is to be said of it.
    pub message: String,
    /// The end of what it wrote.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// What the end of a container means for its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The next step's turn.
    GoesOn,
    /// The run has succeeded.
    Succeeded,
    /// It is tried again.
    TriedAgain,
    /// The run has failed.
    Failed,
}

/// Why a run is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Nobody was there when it was due.
    Missed,
    /// The one before it still runs.
    StillRunning,
}

/// A change of the record that must be durable before the plan's steps are taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// Nothing up to this instant is due.
    From(Timestamp),
    /// A run is due and was seen in time; what it needs is not there yet.
    Noticed(Timestamp),
    /// A run begins to exist.
    Opened(Box<Run>),
    /// Runs are left out, the last of them due at this instant.
    Skipped {
        /// When the last of them was due.
        due: Timestamp,
        /// How many.
        count: u32,
        /// Why.
        why: Skip,
    },
    /// A container is about to be started.
    Begun {
        /// Of which run.
        run: Name,
        /// Which part of it.
        part: Part,
        /// When.
        at: Timestamp,
    },
    /// A container has ended. The end of what it wrote goes into the record.
    Ended {
        /// Of which run.
        run: Name,
        /// The container.
        container: Name,
        /// What it was and how it ended; without its output.
        result: Box<PartResult>,
        /// What that means for the run.
        meaning: Meaning,
    },
    /// A container that was begun is gone, and nobody knows how it ended.
    Vanished {
        /// Of which run.
        run: Name,
        /// What is known of it.
        result: Box<PartResult>,
    },
    /// A run is not carried on.
    Closed {
        /// Which.
        run: Name,
        /// When.
        at: Timestamp,
    },
}

impl Results {
    /// A run by its name.
    pub fn run(&self, id: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.id == *id)
    }

    fn run_mut(&mut self, id: &str) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.id == *id)
    }

    /// The newest run for an input.
    pub fn newest_of(&self, digest: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.digest == *digest)
    }

    /// Changes the record as a note says; `output` is the end of what an ended container wrote.
    pub fn apply(&mut self, note: &Note, output: &str) {
        match note {
            Note::From(at) => self.decided = Some(*at),
            Note::Noticed(due) => self.noticed = Some(*due),
            Note::Skipped { due, .. } => self.decided = Some(*due),
            Note::Opened(run) => {
                self.decided = self.decided.max(run.due);
                if run.asked.is_some() {
                    self.wish = None;
                }
                self.runs.retain(|old| old.id != run.id);
                self.runs.insert(0, (**run).clone());
                // What still runs is not forgotten, however many there are.
                let mut kept = 0;
                self.runs.retain(|old| {
                    kept += 1;
                    kept <= RUNS_KEPT || old.state == JobState::Running
                });
            }
            Note::Begun { run, part, at } => {
                let Some(run) = self.run_mut(run) else { return };
                run.started_at.get_or_insert(*at);
                run.begun = Some(part.clone());
                // From here on the record tells what was made.
                run.proof = Proof::Known;
            }
            Note::Ended { run, result, meaning, .. } => {
                let Some(run) = self.run_mut(run) else { return };
                let mut result = (**result).clone();
                result.output = output.to_owned();
                run.failures += u32::from(matches!(meaning, Meaning::TriedAgain | Meaning::Failed));
                if run.state == JobState::Running {
                    match meaning {
                        Meaning::Succeeded => run.close(JobState::Succeeded, result.finished_at),
                        Meaning::Failed => run.close(JobState::Failed, result.finished_at),
                        Meaning::GoesOn | Meaning::TriedAgain => {}
                    }
                }
                run.put(result);
                // The output of older runs is nobody's business any more.
                for old in self.runs.iter_mut().skip(1).filter(|run| run.state != JobState::Running) {
                    old.results.iter_mut().for_each(|result| result.output.clear());
                }
            }
            Note::Vanished { run, result } => {
                let Some(run) = self.run_mut(run) else { return };
                run.lost += 1;
                run.proof = Proof::Unproven;
                run.put((**result).clone());
            }
            Note::Closed { run, at } => {
                if let Some(run) = self.run_mut(run) {
                    run.close(JobState::Superseded, *at);
                }
            }
        }
    }

    /// A person said `retry`: what has failed so far does not count. Gives whether that changes anything.
    pub fn forgive(&mut self) -> bool {
        let Some(run) = self.runs.first_mut().filter(|run| run.failures > run.forgiven) else { return false };
        match run.state {
            JobState::Failed | JobState::Running => {
                run.forgiven = run.failures;
                run.state = JobState::Running;
                run.finished_at = None;
                true
            }
            JobState::Succeeded | JobState::Superseded => false,
        }
    }
}

impl Run {
    /// A run that is about to begin.
    pub fn new(id: Name, digest: Name) -> Self {
        Self {
            id,
            digest,
            due: None,
            asked: None,
            proof: Proof::Known,
            state: JobState::Running,
            started_at: None,
            finished_at: None,
            failures: 0,
            forgiven: 0,
            lost: 0,
            begun: None,
            results: Vec::new(),
        }
    }

    /// The same run, carried on after it was closed. A part that was begun then and has no result was never started: what runs is not
    /// closed. Its container is gone, and no second one has its name.
    pub fn reopened(&self) -> Self {
        let mut run = Self { state: JobState::Running, finished_at: None, ..self.clone() };
        if run.begun.as_ref().is_some_and(|part| !run.has(part)) {
            run.lost += 1;
            run.begun = None;
        }
        run
    }

    fn close(&mut self, state: JobState, at: Timestamp) {
        self.state = state;
        self.finished_at = Some(at);
    }

    fn put(&mut self, result: PartResult) {
        self.results.retain(|old| old.part.step != result.part.step);
        self.results.push(result);
    }

    /// Whether it is recorded how this part ended.
    pub fn has(&self, part: &Part) -> bool {
        self.results.iter().any(|result| result.part.step == part.step && result.part.attempt >= part.attempt)
    }

    /// How the container that ended last did so.
    pub fn last(&self) -> Option<&PartResult> {
        self.results.last()
    }

    /// What is to be done next: the first step that has not succeeded, with the attempt at it.
    pub fn next(&self, job: &DesiredJob) -> Option<Part> {
        let attempt = self.attempt();
        let is_done = |step: &Name| self.results.iter().any(|result| result.part.step == *step && result.exit_code == Some(0));
        steps(job).into_iter().find(|step| !is_done(step)).map(|step| Part { step, attempt })
    }

    /// The attempt that it is at, from 1.
    pub fn attempt(&self) -> u32 {
        let over = u32::from(self.state == JobState::Failed && self.failures > 0);
        self.failures + self.lost + 1 - over
    }

    /// Until when the next attempt waits; `None` = it need not.
    pub fn pause(&self, now: Timestamp) -> Option<Timestamp> {
        let failures = self.failures - self.forgiven.min(self.failures);
        let failed_at = self.last().filter(|result| result.exit_code != Some(0))?.finished_at;
        let doublings = failures.checked_sub(1)?.min(16);
        let until = failed_at.plus_millis((FIRST_PAUSE_MS << doublings).min(LAST_PAUSE_MS));
        // A failure in the future was before the clock went back.
        (failed_at <= now && until > now).then_some(until)
    }
}

impl Part {
    /// The stamp of its container.
    pub fn stamp(&self, run: &Run) -> JobStamp {
        JobStamp { run: run.id.clone(), attempt: self.attempt, step: self.step.clone(), due: run.due }
    }
}

impl From<&JobStamp> for Part {
    fn from(stamp: &JobStamp) -> Self {
        Self { step: stamp.step.clone(), attempt: stamp.attempt }
    }
}

/// The names of a job's steps; one without a name where it has none.
pub fn steps(job: &DesiredJob) -> Vec<Name> {
    if job.steps.is_empty() { vec![Name::default()] } else { job.steps.iter().map(|step| step.name.as_str().into()).collect() }
}

/// The digest of a job's input: all that only a new container can have, and the steps.
pub fn input_digest(job: &DesiredJob, image_id: &str) -> Name {
    let steps: Vec<_> = job.steps.iter().map(|step| json!([step.name, step.command])).collect();
    let input = json!({ "container": leaf::replace_values(&job.container, image_id), "steps": steps });
    leaf::hex_digest(input.to_string().as_bytes()).into()
}

/// The beginning of a digest, which names runs.
pub fn short(digest: &str) -> Name {
    digest.get(..DIGITS).unwrap_or(digest).into()
}

/// How a job stands, as far as its record tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The beginning of its input's digest; empty while that is not known.
    pub digest: Name,
    /// How available that makes it.
    pub availability: Availability,
    /// Why.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// Its newest run.
    pub state: Option<JobState>,
    /// What its newest run is at.
    pub at: Option<Part>,
    /// When it is due next.
    pub next_run: Option<Timestamp>,
    /// What that means for those that depend on it.
    pub gates: Gates,
}

/// Whether others wait for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gates {
    /// A scheduled job: nobody waits for it.
    Nobody,
    /// It has to run: what depends on it waits, however long that takes.
    Running,
    /// It has nothing to do.
    Nothing,
}

/// How a job stands, by its record.
pub fn standing(job: &DesiredJob, results: &Results, digest: Option<&str>, now: Timestamp) -> Standing {
    let digest = digest.map(short).unwrap_or_default();
    let newest = match job.schedule {
        Some(_) => results.runs.first(),
        None => results.newest_of(&digest).filter(|_| !digest.is_empty()),
    };
    let (availability, reason, message, gates) = match &job.schedule {
        Some(_) => scheduled(results),
        None => once(job, results, newest, now),
    };
    Standing {
        availability,
        reason,
        message,
        state: newest.map(|run| run.state),
        at: newest.filter(|run| run.state == JobState::Running).and_then(|run| run.next(job)),
        next_run: job.schedule.as_ref().and_then(|schedule| schedule.next_after(results.decided.unwrap_or(now).max(now))),
        gates,
        digest,
    }
}

/// A scheduled job gates nothing: it is as usable as ever, and the last run that ended says whether all is well.
fn scheduled(results: &Results) -> (Availability, Reason, String, Gates) {
    let ended = results.runs.iter().find(|run| matches!(run.state, JobState::Succeeded | JobState::Failed));
    match ended {
        Some(run) if run.state == JobState::Failed => {
            (Availability::PartiallyAvailable, Reason::JobFailed, format!("the last run failed: {}", failure(run)), Gates::Nobody)
        }
        Some(run) => (Availability::Available, Reason::Succeeded, format!("the last run succeeded{}", at(run.finished_at)), Gates::Nobody),
        None => (Availability::Available, Reason::Scheduled, "no run has ended yet".to_owned(), Gates::Nobody),
    }
}

fn once(job: &DesiredJob, results: &Results, run: Option<&Run>, now: Timestamp) -> (Availability, Reason, String, Gates) {
    let four = |reason, message| (Availability::TemporarilyUnavailable, reason, message, Gates::Running);
    let Some(run) = run.filter(|run| run.state != JobState::Superseded) else {
        return four(Reason::Pending, "it has not run for its present input yet".to_owned());
    };
    let earlier = results.runs.iter().find(|other| other.digest == run.digest && other.state == JobState::Succeeded);
    match (run.state, earlier) {
        (JobState::Failed, _) => (Availability::Unavailable, Reason::JobFailed, failure(run), Gates::Nothing),
        (JobState::Running, None) => {
            let part = run.next(job).unwrap_or_else(|| Part { step: Name::default(), attempt: run.attempt() });
            let doing = describe(job, &part);
            if run.proof == Proof::Unproven {
                return four(Reason::Unknown, format!("nobody knows whether it has run before: {doing} waits"));
            }
            match run.last().filter(|result| result.exit_code != Some(0)) {
                Some(result) if run.begun.as_ref() != Some(&part) => {
                    let when = run.pause(now).map_or_else(String::new, |until| format!(", not before {}", until.to_seconds_string()));
                    four(Reason::JobRunning, format!("{}; next: {doing}{when}", ended(result)))
                }
                _ => four(Reason::JobRunning, doing),
            }
        }
        (_, Some(earlier)) => {
            let again = if run.state == JobState::Running { "; it runs again" } else { "" };
            let message = format!("succeeded{}{again}", at(earlier.finished_at));
            (Availability::Available, Reason::Succeeded, message, Gates::Nothing)
        }
        (JobState::Succeeded | JobState::Superseded, None) => four(Reason::Pending, String::new()),
    }
}

fn at(instant: Option<Timestamp>) -> String {
    instant.map_or_else(String::new, |at| format!(" at {}", at.to_seconds_string()))
}

/// `attempt 2 of 4, step load (2 of 3)`.
pub fn describe(job: &DesiredJob, part: &Part) -> String {
    let mut words = format!("attempt {}", part.attempt);
    if let Some(at) = job.steps.iter().position(|step| part.step == step.name.as_str()) {
        words.push_str(&format!(", step {} ({} of {})", part.step, at + 1, job.steps.len()));
    }
    words
}

fn failure(run: &Run) -> String {
    let Some(result) = run.last() else { return "it failed".to_owned() };
    let attempts = if run.failures == 1 { "1 attempt".to_owned() } else { format!("{} attempts", run.failures) };
    format!("{}, after {attempts}{}", ended(result), last_line(&result.output))
}

/// `step load ended with code 3`.
fn ended(result: &PartResult) -> String {
    if result.part.step.is_empty() { result.message.clone() } else { format!("step {} {}", result.part.step, result.message) }
}

/// The last line of an output that says something, short.
fn last_line(output: &str) -> String {
    let Some(line) = output.lines().rev().map(str::trim).find(|line| !line.is_empty()) else { return String::new() };
    let short: String = line.chars().take(200).collect();
    format!(": {short}")
}

/// The end of an output: at most [`OUTPUT_KEPT`] bytes, from the beginning of a character on.
pub fn tail(output: &str) -> &str {
    let mut from = output.len().saturating_sub(OUTPUT_KEPT);
    while !output.is_char_boundary(from) {
        from += 1;
    }
    &output[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_six_minutes_and_no_clock_holds_longer() {
        let now = Timestamp::from_millis(1_000_000_000);
        let mut run = Run::new("r".into(), "d".into());
        assert_eq!(run.pause(now), None);
        let failed = |at| PartResult {
            part: Part { step: Name::default(), attempt: 1 },
            exit_code: Some(1),
            started_at: None,
            finished_at: at,
            message: String::new(),
            output: String::new(),
        };
        run.put(failed(now));
        for (failures, seconds) in [(1, 10), (2, 20), (3, 40), (6, 320), (7, 360), (1_000, 360)] {
            run.failures = failures;
            assert_eq!(run.pause(now), Some(now.plus_millis(seconds * 1_000)), "{failures}");
            assert_eq!(run.pause(now.plus_millis(seconds * 1_000)), None);
        }
        run.forgiven = 1_000;
        assert_eq!(run.pause(now), None, "a person said retry");
        (run.forgiven, run.failures) = (0, 1);
        assert_eq!(run.pause(now.plus_millis(-5_000)), None, "the clock went back");
    }

    #[test]
    fn a_tail_begins_with_a_character() {
        let text = "ä".repeat(OUTPUT_KEPT);
        assert!(tail(&text).len() <= OUTPUT_KEPT && tail(&text).starts_with('ä'));
        assert_eq!(tail("short"), "short");
        let odd = format!("x{text}");
        assert!(tail(&odd).chars().all(|c| c == 'ä'));
    }
}
