//! Owns [`Plan`]: steps with their order, findings, and the text and JSON forms that people and tests read.

use std::collections::BTreeSet;
use std::fmt;

use qm_api::conditions::Reason;
use qm_api::meta::ObjectKey;
use qm_api::time::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::job::{Note, Standing};
use crate::step::{Action, Body, Cause, Step};

/// Something worth telling that is no step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Whom it concerns.
    pub object: ObjectKey,
    /// What kind of thing it is.
    pub reason: Reason,
    /// In words.
    pub message: String,
    /// Nothing will be done until an input changes.
    pub stalls: bool,
}

/// A revision that must be recorded before the steps are taken.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its number, from 1.
    pub number: u64,
    /// The image reference it was made from.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// The spec-hash.
    pub spec_hash: String,
    /// The values the hash was made from, except secret ones, for telling what changed.
    pub values: Value,
    /// The create body of its first slot.
    pub body: Body,
}

/// What should be done for one object, or for several when plans are composed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The steps, each after all that it names in `after`.
    pub steps: Vec<Step>,
    /// What else was found.
    pub findings: Vec<Finding>,
    /// A revision to be recorded before the first step.
    pub revision: Option<Revision>,
    /// The object's finalizer may go: nothing of it is left.
    pub finalized: bool,
    /// How the rollout of the wanted revision stands, for a service with containers.
    pub rollout: Option<Progress>,
    /// What must be recorded of a job before the first step.
    pub notes: Vec<Note>,
    /// How a job stands, the notes included.
    pub job: Option<Standing>,
    /// When another look is worth it although no step waits for that.
    pub wake: Option<Timestamp>,
    /// It must not run now, so nothing was compared: that there are no steps does not mean that all is as wanted.
    pub held: bool,
}

/// How the rollout of a revision stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The revision's number.
    pub number: u64,
    /// How it stands.
    pub state: ProgressState,
}

/// See [`Progress`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgressState {
    /// Every replica is of this revision, healthy, and has been for long enough.
    Complete,
    /// It goes on; worth another look at this instant.
    Underway(Option<Timestamp>),
    /// An older revision runs, and what it was put in the place of is not what failed any more: the tag that is followed has moved.
    InputChanged,
    /// It failed before it was complete for the first time, with the evidence.
    Failed(String),
}

impl Plan {
    /// Whether there is nothing to do and nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && !self.finalized
    }

    /// Adds a step and gives its index.
    pub fn push(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }

    /// The indices of steps that can be taken now: nothing to wait for, and nothing before them that waits.
    pub fn runnable(&self) -> Vec<usize> {
        let mut blocked: BTreeSet<usize> = BTreeSet::new();
        for (index, step) in self.steps.iter().enumerate() {
            if !step.waits.is_empty() || step.after.iter().any(|before| blocked.contains(before)) {
                blocked.insert(index);
            }
        }
        (0..self.steps.len()).filter(|index| !blocked.contains(index)).collect()
    }

    /// Looks again at this instant at the latest.
    pub fn look_at(&mut self, at: Option<Timestamp>) {
        self.wake = [self.wake, at].into_iter().flatten().min();
    }

    /// Appends another object's plan, shifting its indices.
    pub fn append(&mut self, other: Plan) {
        let shift = self.steps.len();
        self.steps.extend(other.steps.into_iter().map(|mut step| {
            step.after.iter_mut().for_each(|i| *i += shift);
            step.action.map_made(|made| made + shift);
            step
        }));
        self.findings.extend(other.findings);
    }

    /// The JSON form (DETAILS, "Plan and graph").
    pub fn to_json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|s| {
                json!({
                    "hash": s.hash(),
                    "verb": s.action.verb(),
                    "object": s.object,
                    "slot": s.slot,
                    "target": redacted(&s.action),
                    "cause": s.cause,
                    "causeText": s.cause.to_string(),
                    "waits": s.waits.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "after": s.after,
                    "needsApproval": s.needs_approval,
                    "needs": s.needs,
                })
            })
            .collect();
        json!({ "steps": steps, "findings": self.findings, "summary": self.summary() })
    }

    /// The last line of the text form.
    pub fn summary(&self) -> String {
        let mut counts = [0_usize; 4];
        for step in &self.steps {
            let at = match (&step.action, &step.cause) {
                (Action::CreateContainer { .. }, Cause::Revision { .. } | Cause::Reload { .. }) => 2,
                (Action::CreateContainer { .. } | Action::CreateNetwork { .. } | Action::CreateVolume { .. }, _) => 0,
                (Action::RemoveContainer { .. }, Cause::Superseded | Cause::Revision { .. } | Cause::Recorded) => continue,
                (Action::RemoveContainer { .. } | Action::RemoveNetwork { .. }, _) => 3,
                (Action::Pull { .. } | Action::PlaceFiles { .. } | Action::WriteFiles { .. }, _) => continue,
                (Action::Stop { .. } | Action::Start { .. }, Cause::Reload { .. }) => continue,
                (Action::Start { .. } | Action::Connect { .. }, Cause::Run { .. }) => continue,
                (_, Cause::New | Cause::Missing | Cause::Revision { .. } | Cause::Superseded | Cause::Deleted | Cause::Orphan) => continue,
                _ => 1,
            };
            counts[at] += 1;
        }
        let words = ["to create", "to update", "to replace", "to remove"];
        let parts: Vec<String> = counts.iter().zip(words).filter(|(n, _)| **n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        match (self.steps.is_empty(), parts.is_empty()) {
            (true, _) => "Nothing to do.".to_owned(),
            (false, true) => format!("Plan: {} steps.", self.steps.len()),
            (false, false) => format!("Plan: {}.", parts.join(", ")),
        }
    }
}

/// The action as JSON with what it is applied to, without environment values: a plan is read by many.
fn redacted(action: &Action) -> Value {
    let mut value = json!(action);
    if let Some(env) = value.pointer_mut("/createContainer/body/env").and_then(Value::as_array_mut) {
        for entry in env {
            let name = entry.as_str().and_then(|e| e.split_once('=')).map(|(name, _)| name.to_owned());
            if let Some(name) = name {
                *entry = Value::String(name);
            }
        }
    }
    value
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        for finding in &self.findings {
            writeln!(f, "note {}  {}: {}", finding.object, finding.reason, finding.message)?;
        }
        f.write_str(&self.summary())
    }
}
