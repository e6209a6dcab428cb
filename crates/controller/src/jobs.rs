//! Keeps the records of jobs: what a pass learned is durable before its steps are taken, and what a container wrote is read once, before
//! the container may go. What follows is decided by the planner (ADR 0013).

use std::time::Duration;

use futures_util::StreamExt;
use qm_api::conditions::Reason;
use qm_api::kinds::mini_service::{JobRun, JobState, JobStatus};
use qm_api::meta::{Object, ObjectKey};
use qm_plan::desired::{DesiredJob, DesiredService};
use qm_plan::job::{self, Meaning, Note, OUTPUT_KEPT, PartResult, Proof, Results, Run, Skip, Standing, Wish, input_digest, standing};
use qm_plan::kinds::mini_service::Others;
use qm_plan::plan::Plan;
use qm_store::{Durability, Snapshot, StoreError, Tx};

use crate::controller::Controller;
use crate::events::EventType;
use crate::ports::AskError;
use crate::records::{JOB_RESULTS, job_results};
use crate::reloads::record_key;

/// So many of its last lines are asked for: more than fit into what is kept.
const LINES: u64 = 500;
/// How long the engine may take to hand over what a container wrote.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked.
const TRIES: u32 = 3;

/// How a run of a job may end, in metrics.
pub(crate) const RUN_ENDS: [&str; 3] = ["succeeded", "failed", "skipped"];

impl Controller {
    /// Makes durable what a plan has to note of a job; gives whether there was anything.
    ///
    /// # Errors
    /// When the store refuses.
    pub(crate) async fn record_job(&self, key: &ObjectKey, plan: &Plan) -> Result<bool, StoreError> {
        if plan.notes.is_empty() {
            return Ok(false);
        }
        let mut outputs = Vec::with_capacity(plan.notes.len());
        for note in &plan.notes {
            outputs.push(match note {
                Note::Ended { container, .. } => self.output_of(container).await,
                _ => String::new(),
            });
        }
        // Read after all that took time: a person may have asked for something meanwhile.
        let mut results = job_results(&self.store.snapshot(), key).unwrap_or_default();
        for (note, output) in plan.notes.iter().zip(&outputs) {
            results.apply(note, output);
        }
        let mut tx = self.store.tx();
        self.put_record(&mut tx, record_key(JOB_RESULTS, key), &results);
        tx.commit(Durability::Durable).await?;
        for note in &plan.notes {
            self.tell_note(key, note);
        }
        self.world.mark_status([key.clone()]);
        Ok(true)
    }

    /// The end of what a container wrote.
    async fn output_of(&self, container: &str) -> String {
        let mut problem = String::new();
        for _ in 0..TRIES {
            match tokio::time::timeout(PATIENCE, self.read_output(container)).await {
                Ok(Ok(output)) => return output,
                Ok(Err(error)) => problem = error.to_string(),
                Err(_) => problem = "the engine does not hand it over".to_owned(),
            }
        }
        format!("(its output could not be read: {problem})")
    }

    async fn read_output(&self, container: &str) -> std::io::Result<String> {
        let mut stream = self.docker.logs(container, false, Some(LINES), false);
        let mut bytes: Vec<u8> = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
            // A character in UTF-8 may take four bytes where its replacement takes three.
            let excess = bytes.len().saturating_sub(2 * OUTPUT_KEPT);
            bytes.drain(..excess);
        }
        Ok(job::tail(&String::from_utf8_lossy(&bytes)).to_owned())
    }

    fn tell_note(&self, key: &ObjectKey, note: &Note) {
        let part = |result: &PartResult| match result.part.step.as_str() {
            "" => format!("attempt {}", result.part.attempt),
            step => format!("attempt {}, step {step}", result.part.attempt),
        };
        match note {
            Note::Ended { run, result, meaning, .. } => {
                let (kind, reason, what) = match meaning {
                    Meaning::Succeeded => (EventType::Normal, Reason::Succeeded, "; the run has succeeded"),
                    Meaning::GoesOn => (EventType::Normal, Reason::JobRunning, ""),
                    Meaning::TriedAgain => (EventType::Warning, Reason::JobFailed, "; it is tried again"),
                    Meaning::Failed => (EventType::Warning, Reason::JobFailed, "; the run has failed"),
                };
                match meaning {
                    Meaning::Succeeded => self.count_run(key, "succeeded"),
                    Meaning::Failed => self.count_run(key, "failed"),
                    Meaning::GoesOn | Meaning::TriedAgain => {}
                }
                self.tell(key, kind, reason, format!("run {run}, {} {}{what}", part(result), result.message));
            }
            Note::Vanished { run, result } => {
                self.tell(key, EventType::Warning, Reason::Unknown, format!("run {run}, {} {}", part(result), result.message));
            }
            Note::Skipped { due, count, why } => {
                let runs = if *count == 1 { "the run".to_owned() } else { format!("{count} runs, the last of them") };
                let why = match why {
                    Skip::Missed => "nobody was there",
                    Skip::StillRunning => "the one before still runs",
                };
                let message = format!("{runs} due at {} is left out: {why}", due.to_seconds_string());
                self.count_run(key, "skipped");
                self.tell(key, EventType::Normal, Reason::RunSkipped, message);
            }
            Note::Closed { run, .. } => {
                self.tell(key, EventType::Normal, Reason::RunSkipped, format!("run {run} is not carried on"));
            }
            Note::From(_) | Note::Noticed(_) | Note::Opened(_) | Note::Begun { .. } => {}
        }
    }

    /// The counters of a job are there before its first run.
    pub(crate) fn count_runs_from_zero(&self, key: &ObjectKey) {
        for result in RUN_ENDS {
            self.metrics.job_runs.with_label_values(&[&*key.namespace, &*key.name, result]).inc_by(0);
        }
    }

    fn count_run(&self, key: &ObjectKey, result: &str) {
        self.metrics.job_runs.with_label_values(&[&*key.namespace, &*key.name, result]).inc();
    }

    /// How a job stands by what the store remembers, before anybody has looked at the engine.
    pub(crate) fn recorded(&self, snapshot: &Snapshot, desired: &DesiredService) -> Option<Standing> {
        let job = desired.job()?;
        let results = job_results(snapshot, &desired.key).unwrap_or_default();
        let revisions = self.revisions_of(&desired.key);
        let newest = revisions.first().map(|r| &r.revision).filter(|revision| revision.image == job.container.image);
        let digest = newest.map(|revision| input_digest(job, &revision.image_id));
        Some(standing(job, &results, digest.as_deref(), self.now()))
    }

    /// A job that is new to the store, in a namespace with things of ours that the store does not know, may have run before: the store was
    /// lost. That is remembered with it: a moment later the others are known again by the stamps that they carry.
    pub(crate) fn mark_forgotten(&self, tx: &mut Tx, object: &Object, snapshot: &Snapshot) {
        let key = &object.key;
        if !object.spec["job"].is_object() || job_results(snapshot, key).is_some() {
            return;
        }
        if self.world.lock().others_of(key, |owner| snapshot.get(owner).map(|o| o.meta.uid.clone())) == Others::Forgotten {
            self.put_record(tx, record_key(JOB_RESULTS, key), &Results { proof: Proof::Unproven, ..Results::default() });
        }
    }

    /// A person wants a job to run again.
    ///
    /// # Errors
    /// When the object is no job.
    pub(crate) fn want_run(&self, tx: &mut Tx, object: &Object, actor: &str, reason: &str) -> Result<(), AskError> {
        if !object.spec["job"].is_object() {
            return Err(AskError::Invalid(format!("{} is no job: only a job can be run", object.key)));
        }
        let mut results = job_results(&self.store.snapshot(), &object.key).unwrap_or_default();
        results.wish = Some(Wish { actor: actor.to_owned(), reason: reason.to_owned() });
        self.put_record(tx, record_key(JOB_RESULTS, &object.key), &results);
        Ok(())
    }

    /// A person said `retry`: what a job has failed so far does not count.
    pub(crate) fn forgive_job(&self, tx: &mut Tx, object: &Object) {
        let Some(mut results) = job_results(&self.store.snapshot(), &object.key) else { return };
        if results.forgive() {
            self.put_record(tx, record_key(JOB_RESULTS, &object.key), &results);
        }
    }

    /// What the status says of a job.
    pub(crate) fn job_status(&self, desired: &DesiredService) -> Option<JobStatus> {
        let job = desired.job()?;
        let standing = self.world.job(&desired.key)?;
        let results = job_results(&self.store.snapshot(), &desired.key).unwrap_or_default();
        let newest = results.runs.first();
        Some(JobStatus {
            digest: standing.digest.to_string(),
            state: standing.state,
            step: standing.at.as_ref().map(|part| part.step.to_string()).filter(|step| !step.is_empty()),
            attempt: standing.at.as_ref().map_or_else(|| newest.map_or(0, Run::attempt), |part| part.attempt),
            next_run: standing.next_run,
            last_runs: runs(job, &results),
        })
    }
}

fn runs(job: &DesiredJob, results: &Results) -> Vec<JobRun> {
    let run = |(at, run): (usize, &Run)| {
        let last = run.last();
        let next = run.next(job).filter(|_| run.state == JobState::Running);
        let step = next.map(|part| part.step).or_else(|| last.map(|result| result.part.step.clone()));
        let asked = run.asked.as_ref().map(|wish| match wish.reason.as_str() {
            "" => wish.actor.clone(),
            reason => format!("{}: {reason}", wish.actor),
        });
        JobRun {
            run: run.id.to_string(),
            state: run.state,
            attempt: run.attempt(),
            step: step.map(|step| step.to_string()).filter(|step| !step.is_empty()),
            due: run.due,
            asked,
            started_at: run.started_at,
            finished_at: run.finished_at,
            exit_code: last.and_then(|result| result.exit_code),
            message: last.map(|result| result.message.clone()).unwrap_or_default(),
            output: last.filter(|_| at == 0).map(|result| result.output.clone()).unwrap_or_default(),
        }
    };
    results.runs.iter().enumerate().take(job::RUNS_KEPT).map(run).collect()
}
