//! Carries out a plan: walks its steps in their order with bounded parallelism, stops at what waits, decides nothing (DESIGN 4, step 7).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use qm_api::conditions::Reason;
use qm_api::meta::ObjectKey;
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use qm_plan::locks::Standing;
use qm_plan::plan::Plan;
use qm_plan::step::{Action, Cause, ContainerRef, ImageRef, Lease, Step};

use crate::controller::Controller;
use crate::docker::DockerError;
use crate::docker::act::Done;
use crate::docker::error::Retry;
use crate::events::EventType;
use crate::mirror::Thing;

/// So often in a row a network may not be let go before that is told: after some eight seconds it is no container that is just ending.
const QUIET_FAILURES: u32 = 4;

/// What came of a plan.
#[derive(Debug, Default)]
pub(crate) struct Executed {
    /// Steps that were taken.
    pub(crate) taken: usize,
    /// Steps that were not, since their lock could not be had.
    pub(crate) withheld: usize,
    /// The first step that failed.
    pub(crate) failure: Option<DockerError>,
}

impl Controller {
    /// Takes every step that can be taken; a failed one stops what comes after it, not its siblings. Returns when the picture of the
    /// world has what was done.
    pub(crate) async fn execute(self: &Arc<Self>, key: &ObjectKey, plan: &Plan) -> Executed {
        let runnable: BTreeSet<usize> = plan.runnable().into_iter().filter(|i| !waits_for_pull(&plan.steps[*i])).collect();
        let mut done: BTreeSet<usize> = BTreeSet::new();
        let mut begun: BTreeSet<usize> = BTreeSet::new();
        let mut made: BTreeMap<usize, Name> = BTreeMap::new();
        let mut executed = Executed::default();
        let mut touched: BTreeSet<Thing> = BTreeSet::new();
        // The first step that needs the change takes it, the others find it.
        let turn = &tokio::sync::Mutex::new(());
        let mut running = FuturesUnordered::new();
        loop {
            for index in &runnable {
                let step = &plan.steps[*index];
                let ready = step.after.iter().all(|before| done.contains(before));
                if ready && begun.insert(*index) {
                    let made = made.clone();
                    running.push(async move {
                        let is_held = match step.needs {
                            None => true,
                            Some(Lease::Change) => {
                                let _turn = turn.lock().await;
                                self.locks.take(key).await == Standing::Ours
                            }
                        };
                        (*index, if is_held { Some(self.take(key, step, &made).await) } else { None })
                    });
                }
            }
            let Some((index, outcome)) = running.next().await else { break };
            let step = &plan.steps[index];
            let Some(outcome) = outcome else {
                executed.withheld += 1;
                continue;
            };
            match outcome {
                Ok(result) => {
                    executed.taken += 1;
                    done.insert(index);
                    if let (Action::CreateContainer { .. }, Some(id)) = (&step.action, &result.container) {
                        made.insert(index, id.clone());
                    }
                    let things = things_of(&result);
                    // What changes availability is looked at at once, the rest at the end.
                    if changes_run_state(&step.action) {
                        let refresher = self.refresher.clone();
                        let now = things.clone();
                        tokio::spawn(async move { refresher.refresh(now).await });
                    }
                    touched.extend(things);
                }
                Err(error) => {
                    touched.extend(doubtful(step, &made, &error));
                    if executed.failure.is_none() {
                        executed.failure = Some(error);
                    }
                }
            }
        }
        drop(running);
        if !touched.is_empty() {
            self.refresher.refresh(touched).await;
        }
        executed
    }

    /// Takes one step: one external call, its event and its metric.
    async fn take(self: &Arc<Self>, key: &ObjectKey, step: &Step, made: &BTreeMap<usize, Name>) -> Result<Done, DockerError> {
        let _permit = match &step.action {
            // These take long and cost the engine little; they must not keep others from starting. Pulls have a limit of their own.
            Action::Pull { .. } | Action::Stop { .. } | Action::Restart { .. } => None,
            _ => Some(self.writes.acquire().await.expect("the semaphore is never closed")),
        };
        if let Action::Stop { container, .. } | Action::Restart { container, .. } | Action::RemoveContainer { container } = &step.action {
            self.world.expect_exit(container);
        }
        if let Cause::Drift { field, .. } = &step.cause {
            self.metrics.drift.with_label_values(&[key.kind.as_str(), field.as_str()]).inc();
        }
        let outcome = match &step.action {
            Action::Pull { reference } => self.pull(key, reference).await,
            action => self.docker.act(action, made, Path::new(&self.places.files)).await,
        };
        let verb = step.action.verb();
        let what = format!("{verb} {}: {}", target_text(step), step.cause);
        match &outcome {
            Ok(_) => {
                self.remember(key, |m| m.drift.took(step));
                if let Action::Signal { container, .. } = &step.action
                    && let Err(error) = self.signalled(key, container).await
                {
                    // It is sent once more, which a signal must bear.
                    tracing::warn!(object = %key, error = %error, "a signal that was sent could not be recorded");
                }
                self.metrics.steps.with_label_values(&[verb, "ok"]).inc();
                tracing::info!(object = %key, "{what}");
                self.tell(key, EventType::Normal, event_reason(step), what);
            }
            Err(error) if error.is_in_use() => {
                self.metrics.steps.with_label_values(&[verb, "busy"]).inc();
                // Containers that are just ending: in a moment it goes, and nobody has to do anything about it.
                if self.remember(key, |m| m.failures) < QUIET_FAILURES {
                    tracing::debug!(object = %key, error = error.line(), "{what}");
                } else {
                    let message = format!("{what}: {}", error.trouble().message);
                    tracing::warn!(object = %key, "{message}");
                    self.tell(key, EventType::Warning, Reason::NetworkInUse, message);
                }
            }
            Err(error) => {
                self.metrics.steps.with_label_values(&[verb, "error"]).inc();
                tracing::warn!(object = %key, error = error.line(), "{what}");
                self.tell(key, EventType::Warning, Reason::StepFailed, format!("{what}: {}", error.line()));
            }
        }
        outcome
    }
}

fn waits_for_pull(step: &Step) -> bool {
    matches!(step.action, Action::CreateContainer { image: ImageRef::AfterPull, .. })
}

fn changes_run_state(action: &Action) -> bool {
    matches!(action, Action::Start { .. } | Action::Stop { .. } | Action::Restart { .. } | Action::Unpause { .. })
}

fn things_of(done: &Done) -> Vec<Thing> {
    let mut things = Vec::new();
    things.extend(done.container.clone().map(Thing::Container));
    things.extend(done.network.clone().map(Thing::Network));
    things.extend(done.volume.clone().map(Thing::Volume));
    things.extend(done.image.clone().map(Thing::Image));
    things
}

/// After a failure: what may have changed all the same (the answer can be lost after the effect), or what we had a wrong picture of.
fn doubtful(step: &Step, made: &BTreeMap<usize, Name>, error: &DockerError) -> Vec<Thing> {
    let reference = |container: &ContainerRef| match container {
        ContainerRef::Id(id) => Some(Thing::Container(id.clone())),
        ContainerRef::Made(index) => made.get(index).cloned().map(Thing::Container),
    };
    if planted(Mutant::LostAnswerForgotten) {
        return Vec::new();
    }
    let is_unclear = error.retry() != Retry::Terminal;
    match &step.action {
        Action::Pull { reference } => vec![Thing::Image(reference.as_str().into())],
        Action::PlaceFiles { .. } => Vec::new(),
        Action::CreateVolume { name, .. } => vec![Thing::Volume(name.as_str().into())],
        Action::CreateContainer { .. } if is_unclear => vec![Thing::Containers, Thing::Networks],
        Action::CreateContainer { body, .. } => vec![Thing::Image(body.image.as_str().into())],
        Action::CreateNetwork { .. } => vec![Thing::Networks],
        Action::RemoveNetwork { network, .. } => vec![Thing::Network(network.clone())],
        Action::Connect { container, .. } => reference(container).into_iter().chain([Thing::Networks]).collect(),
        Action::WriteFiles { container, .. } | Action::Start { container } => reference(container).into_iter().collect(),
        Action::Disconnect { container, .. }
        | Action::Stop { container, .. }
        | Action::Restart { container, .. }
        | Action::Signal { container, .. }
        | Action::Unpause { container }
        | Action::Rename { container, .. }
        | Action::Update { container, .. }
        | Action::RemoveContainer { container } => vec![Thing::Container(container.clone())],
    }
}

fn event_reason(step: &Step) -> Reason {
    match (&step.action, &step.cause) {
        (_, Cause::Drift { .. } | Cause::Missing | Cause::NotRunning { .. }) => Reason::Repaired,
        (Action::Pull { .. }, _) => Reason::Pulling,
        (Action::CreateContainer { .. } | Action::CreateNetwork { .. } | Action::CreateVolume { .. }, _) => Reason::Created,
        (Action::Signal { .. }, _) => Reason::Updated,
        (Action::Start { .. } | Action::Restart { .. } | Action::Unpause { .. }, _) => Reason::Started,
        (Action::Stop { .. }, _) => Reason::Stopped,
        (Action::RemoveContainer { .. }, Cause::Superseded) => Reason::Replaced,
        (Action::RemoveContainer { .. } | Action::RemoveNetwork { .. }, _) => Reason::Removed,
        _ => Reason::Updated,
    }
}

fn target_text(step: &Step) -> String {
    let is_of_job = matches!(step.cause, Cause::Run { .. } | Cause::DeadlinePassed { .. } | Cause::Recorded);
    let slot = match step.slot {
        0 => String::new(),
        _ if is_of_job => "the container".to_owned(),
        slot => format!("replica {slot}"),
    };
    match &step.action {
        Action::Pull { reference } => reference.clone(),
        Action::CreateVolume { name, .. } => name.clone(),
        Action::CreateNetwork { body } => body.name.clone(),
        Action::Connect { join, .. } => format!("{slot} to {}", join.network_name),
        Action::Disconnect { name, .. } => format!("{slot} from {name}"),
        Action::Rename { to, .. } => format!("{slot} to {to}"),
        Action::RemoveNetwork { name, .. } => name.to_string(),
        _ => slot,
    }
}
