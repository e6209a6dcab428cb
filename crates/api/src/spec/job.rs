//! Owns the wire types of a job, a container that runs to its end, and what admission checks of them beyond their schema.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::container::{Container, Restart};
use super::cron::{Schedule, time_zone};
use super::names;
use super::quantity::Duration;
use super::rules::Rules;
use crate::codes::Code;
use crate::field::FieldPath;
use crate::time::Timestamp;

/// A container that runs to its end.
///
/// Without a schedule it runs once for its input: the image, the command and the steps, the environment, the content of its files, and all
/// else that only a new container can have. What depends on it with `start: Wait` starts when it has succeeded for its present input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// What runs. Fields that only make sense for what runs for ever (`replicas`, `restart`, `health`, `update` and the like) are refused.
    pub container: Container,
    /// Steps, run in order, each in a container of its own of the same image; a retry resumes at the one that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<JobStep>,
    /// When it runs, as a cron expression of five fields, or `@daily` and the like. Default: once per input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The time zone of `schedule`, such as Europe/Zurich. Default UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What to do when it is due and still running. Default Forbid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// What to do with runs that were missed. Default Skip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed_runs: Option<MissedRuns>,
    /// How often a failed run is tried again, with pauses from 10 seconds doubling to 6 minutes. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub retries: Option<u32>,
    /// How long a container of it may run; then it is stopped, and has failed. Default: as long as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline: Option<Duration>,
}

/// One step of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStep {
    /// Its name.
    pub name: String,
    /// Its command.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
}

/// What to do when a scheduled job is due and still running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Concurrency {
    /// Run both.
    Allow,
    /// Leave the new run out.
    #[default]
    Forbid,
    /// End the old run.
    Replace,
}

/// What to do with runs that were missed while nobody looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MissedRuns {
    /// Leave them out.
    #[default]
    Skip,
    /// Run once.
    RunOnce,
}

/// How a run of a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum JobState {
    /// It runs, or waits for its turn: for a dependency, for the pause after a failure, for an approval.
    Running,
    /// All of it ended well.
    Succeeded,
    /// It failed as often as it may.
    Failed,
    /// It was not finished when the job's input changed, or when the next run took its place.
    Superseded,
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// The digest of its present input, where that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// How its newest run stands; absent when it has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
    /// The step that the newest run is at; absent without steps, and when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The attempt that the newest run is at, from 1; 0 when there is no run.
    pub attempt: u32,
    /// When it is due next, for a scheduled job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run: Option<Timestamp>,
    /// The last runs, newest first; at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_runs: Vec<JobRun>,
}

/// One run of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobRun {
    /// Its name: the beginning of the input's digest, with a number when a person asked for it again; the instant when it was due.
    pub run: String,
    /// How it stands.
    pub state: JobState,
    /// The attempt that it is at, or ended with.
    pub attempt: u32,
    /// The step that it is at, or ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// When it was due, for a scheduled run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// Who asked for it, and why, where a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// When its first container was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The exit code of the last container of it that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// What is to be said of the last container of it that ended.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The end of what the last container that ended wrote; kept of the newest run only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

impl Rules {
    /// Everything about a job.
    pub(crate) fn job(&mut self, at: &FieldPath, job: &Job) {
        let container = at.key("container");
        self.container(&container, &job.container);
        self.runs_to_its_end(&container, &job.container);
        self.steps(at, job);
        self.schedule(at, job);
        if job.active_deadline.is_some_and(|duration| duration.as_millis() == 0) {
            self.error(Code::OutOfRange, &at.key("activeDeadline"), "`activeDeadline` must be longer than 0s", "");
        }
    }

    /// What only something that runs for ever can have.
    fn runs_to_its_end(&mut self, at: &FieldPath, container: &Container) {
        let given = [
            ("replicas", container.replicas.is_some(), "each attempt is one container; `enabled: false` turns a job off"),
            ("restart", container.restart.is_some_and(|r| r != Restart::Never), "say `retries` beside `container`"),
            ("bootOrder", container.boot_order.is_some(), "nobody but the operator starts a job"),
            ("health", container.health.is_some(), "how a job ends says how it was: exit code 0 is success"),
            ("update", container.update.is_some(), "a new input is a new run; there is nothing to roll"),
            ("startBudget", container.start_budget.is_some(), "say `retries` beside `container`"),
            ("reloadSignal", container.reload_signal.is_some(), "a job is never reloaded"),
        ];
        for (field, _, help) in given.into_iter().filter(|(_, is_given, _)| *is_given) {
            self.error(Code::BadCombination, &at.key(field), format!("a job runs to its end and has no `{field}`"), help);
        }
    }

    fn steps(&mut self, at: &FieldPath, job: &Job) {
        let mut seen = BTreeSet::new();
        for (i, step) in job.steps.iter().enumerate() {
            let path = at.key("steps").index(i).key("name");
            if let Some(problem) = names::label_error(&step.name) {
                self.error(Code::BadName, &path, format!("`{path}` cannot be `{}`", step.name), problem);
            } else if !seen.insert(&step.name) {
                let help = "what was done is remembered by the step's name: give each its own";
                self.error(Code::BadCombination, &path, format!("two steps are named `{}`", step.name), help);
            }
        }
        for (i, _) in job.steps.iter().enumerate().filter(|(_, step)| step.command.is_empty()) {
            let path = at.key("steps").index(i).key("command");
            self.error(Code::OutOfRange, &path, "a step needs a command", "write it as a list: [app, migrate]");
        }
        if !job.steps.is_empty() && job.container.command.is_some() {
            let help = "make it a step, or leave `steps` out";
            self.error(Code::BadCombination, &at.key("container").key("command"), "each step has a command of its own", help);
        }
    }

    fn schedule(&mut self, at: &FieldPath, job: &Job) {
        let zone = job.time_zone.as_deref().unwrap_or("UTC");
        let is_zone = match time_zone(zone) {
            Ok(_) => true,
            Err(help) => {
                self.error(Code::BadFormat, &at.key("timeZone"), format!("there is no time zone `{zone}`"), help);
                false
            }
        };
        let Some(text) = &job.schedule else {
            let given = [
                ("timeZone", job.time_zone.is_some()),
                ("concurrency", job.concurrency.is_some()),
                ("missedRuns", job.missed_runs.is_some()),
            ];
            for (field, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
                let message = format!("`{field}` is for a job with a schedule");
                self.error(Code::BadCombination, &at.key(field), message, "give it a `schedule`, or remove the field");
            }
            return;
        };
        if let Some(problem) = Schedule::parse(text, if is_zone { zone } else { "UTC" }).err() {
            let help = "write it as \"30 4 * * mon-fri\": minute, hour, day of the month, month, day of the week";
            self.error(Code::BadFormat, &at.key("schedule"), format!("`{text}` is no schedule: {problem}"), help);
        }
        if job.concurrency == Some(Concurrency::Allow) {
            let ports = job.container.ports.iter().position(|port| port.published.is_some());
            if let Some(i) = ports {
                let path = at.key("container").key("ports").index(i).key("published");
                let message = "two runs at a time cannot both publish one port of the host";
                self.error(Code::BadCombination, &path, message, "use `concurrency: Forbid` or `Replace`, or leave `published` out");
            }
            if let Some((network, _)) = job.container.network_options.iter().find(|(_, options)| options.ipv4.is_some()) {
                let path = at.key("container").key("networkOptions").key(network).key("ipv4");
                let message = "two runs at a time cannot both have one address";
                self.error(Code::BadCombination, &path, message, "use `concurrency: Forbid` or `Replace`, or remove `ipv4`");
            }
        }
    }
}
