//! `wait`: until objects are usable, ready or gone. Watches, and never polls; a lost operator is looked for again until the time is up.

use std::fmt::Write as _;
use std::time::Duration as StdDuration;

use clap::{Args, ValueEnum};
use futures_util::stream::{FuturesUnordered, StreamExt};
use qm_api::kinds::{mini_container, mini_service};
use qm_api::spec::quantity::Duration;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use super::target::{Target, list_path, namespace_name, namespace_or_default, target, with_query};
use super::{CliError, Connect, Done, End, duration};
use crate::client::{Client, ClientError, Event, EventKind, Form};
use crate::output::{self, cell};

/// How long to leave a lost operator alone before looking for it again.
const LOOK_AGAIN: StdDuration = StdDuration::from_millis(500);

/// Wait until objects are usable, ready or deleted
///
/// An object that does not exist yet is waited for. Exits 4 when the time is up, and says what was missing.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster wait msvc/app -n notify --for usable --timeout 60s
  quaymaster wait msvc/app msvc/worker qnet/data -n notify --for ready
  quaymaster wait msvc/old -n notify --for deleted")]
pub(crate) struct WaitArgs {
    /// KIND/NAME; several may be given
    #[arg(required = true, value_name = "KIND/NAME", value_parser = target)]
    targets: Vec<Target>,
    /// The namespace [default: default]
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    /// What to wait for
    #[arg(long = "for", value_enum, value_name = "STATE", default_value_t = Goal::Ready)]
    goal: Goal,
    /// How long at most
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    connect: Connect,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Goal {
    /// It may be used now.
    Usable,
    /// Its newest generation is applied and healthy.
    Ready,
    /// It is gone.
    Deleted,
}

impl Goal {
    const fn word(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Ready => "ready",
            Self::Deleted => "deleted",
        }
    }

    /// Whether the object, or its absence, is what is waited for.
    pub(crate) fn is_met(self, object: Option<&Value>) -> bool {
        let Some(object) = object else { return self == Self::Deleted };
        let (meta, status) = (&object["metadata"], &object["status"]);
        match self {
            Self::Usable => status["usable"] == true,
            Self::Ready => {
                let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
                let is_current = status["observedGeneration"].is_u64() && status["observedGeneration"] == meta["generation"];
                is_current && meta["deletionTimestamp"].is_null() && status["conditions"].as_array().into_iter().flatten().any(is_ready)
            }
            Self::Deleted => false,
        }
    }
}

/// One target, and how it is as far as we know.
struct Waiting<'a> {
    target: &'a Target,
    goal: Goal,
    list: String,
    filter: String,
    last: Option<Value>,
    told: String,
}

pub(crate) async fn wait(args: &WaitArgs) -> Done {
    let has_usability = |target: &&Target| matches!(target.kind.0.kind, mini_service::KIND | mini_container::KIND);
    if args.goal == Goal::Usable
        && let Some(odd) = args.targets.iter().find(|target| !has_usability(target))
    {
        let message = format!("only mini services and mini containers are usable or not; wait for {} with --for ready", odd.label());
        return Err(CliError::Usage(message));
    }
    let client = args.connect.client();
    let deadline = Instant::now() + args.timeout.as_std();
    let namespace = namespace_or_default(args.namespace.as_deref());
    let mut waiting: Vec<Waiting<'_>> = args.targets.iter().map(|target| Waiting::new(target, args.goal, namespace)).collect();
    let mut running: FuturesUnordered<_> = waiting.iter_mut().map(|waiting| waiting.run(&client, deadline)).collect();
    let mut unmet = 0_usize;
    while let Some(result) = running.next().await {
        unmet += usize::from(!result?);
    }
    drop(running);
    if unmet == 0 {
        return Ok(End::Fine);
    }
    output::note(&format!("timed out after {}:", args.timeout));
    let open = waiting.iter().filter(|waiting| !waiting.goal.is_met(waiting.last.as_ref()));
    open.for_each(|waiting| output::note(output::indent(&why(waiting), "  ").trim_end()));
    Ok(End::TimedOut)
}

impl<'a> Waiting<'a> {
    fn new(target: &'a Target, goal: Goal, namespace: &str) -> Self {
        let list = list_path(target.kind, Some(namespace));
        Self { target, goal, list, filter: format!("metadata.name={}", target.name), last: None, told: String::new() }
    }

    /// Whether the goal was met in time.
    async fn run(&mut self, client: &Client, deadline: Instant) -> Result<bool, CliError> {
        let mut has_answered = false;
        loop {
            match timeout_at(deadline, self.follow(client, &mut has_answered)).await {
                Err(_) => return Ok(false),
                Ok(Ok(true)) => {
                    output::print(&format!("{} {}\n", self.target.label(), self.goal.word()))?;
                    return Ok(true);
                }
                // The watch ended; the server may do that at any time.
                Ok(Ok(false)) => {}
                // Whoever was there once may come back; somebody who never was is an error at once.
                Ok(Err(error)) if has_answered && error.is_passing() => self.tell(&format!("{error}; looking for it again")),
                Ok(Err(error)) => return Err(error.into()),
            }
            if timeout_at(deadline, sleep(LOOK_AGAIN)).await.is_err() {
                return Ok(false);
            }
        }
    }

    /// Lists, then watches from there; whether the goal was met before the watch ended.
    async fn follow(&mut self, client: &Client, has_answered: &mut bool) -> Result<bool, ClientError> {
        let list = client.get(&with_query(&self.list, &[("fieldSelector", &self.filter)])).await?;
        *has_answered = true;
        self.last = list["items"].as_array().and_then(|items| items.first()).cloned();
        if self.is_met() {
            return Ok(true);
        }
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let pairs = [("fieldSelector", self.filter.as_str()), ("resourceVersion", version), ("watch", "true")];
        let mut changes = client.watch(&with_query(&self.list, &pairs), Form::Json).await?;
        while let Some(Event { kind, object }) = changes.next().await? {
            match kind {
                EventKind::Added | EventKind::Modified => self.last = Some(object),
                EventKind::Deleted => self.last = None,
                EventKind::Bookmark => continue,
            }
            if self.is_met() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_met(&mut self) -> bool {
        let is_met = self.goal.is_met(self.last.as_ref());
        if !is_met {
            let text = format!("waiting for {} to be {}: {}", self.target.label(), self.goal.word(), state(self.goal, self.last.as_ref()));
            self.tell(&text);
        }
        is_met
    }

    /// Tells it, unless it was just told.
    fn tell(&mut self, text: &str) {
        if self.told != text {
            output::note(text);
            text.clone_into(&mut self.told);
        }
    }
}

/// How an object is, on one line.
pub(crate) fn state(goal: Goal, object: Option<&Value>) -> String {
    let Some(object) = object else { return "it does not exist yet".to_owned() };
    let status = &object["status"];
    if goal == Goal::Deleted {
        let finalizers: Vec<String> = object["metadata"]["finalizers"].as_array().into_iter().flatten().map(cell).collect();
        return match (object["metadata"]["deletionTimestamp"].is_null(), finalizers.is_empty()) {
            (true, _) => "nobody has asked for its deletion".to_owned(),
            (false, true) => "it is being deleted".to_owned(),
            (false, false) => format!("it is being deleted and waits for {}", finalizers.join(", ")),
        };
    }
    if !status.is_object() {
        return "not observed yet".to_owned();
    }
    let ready = status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Ready");
    let (mut text, from) = match (status["availability"].as_str(), ready) {
        (Some(availability), _) => (availability.to_owned(), status),
        (None, Some(ready)) => (format!("Ready is {}", cell(&ready["status"])), ready),
        (None, None) => ("disabled".to_owned(), status),
    };
    for part in [cell(&from["reason"]), cell(&from["message"])] {
        if !part.is_empty() {
            let _ = write!(text, ", {part}");
        }
    }
    if goal == Goal::Ready && status["observedGeneration"] != object["metadata"]["generation"] {
        text.push_str(" (of an older generation)");
    }
    text
}

/// What is missing, with what is in the way.
fn why(waiting: &Waiting<'_>) -> String {
    let mut text = format!("{} is not {}: {}", waiting.target.label(), waiting.goal.word(), state(waiting.goal, waiting.last.as_ref()));
    let blocked = waiting.last.as_ref().and_then(|object| object["status"]["blockedBy"].as_array());
    for culprit in blocked.into_iter().flatten() {
        let name = format!("{} {}/{}", cell(&culprit["kind"]), cell(&culprit["namespace"]), cell(&culprit["name"]));
        let _ = write!(text, "\n  blocked by {name}: {}, {}", cell(&culprit["availability"]), cell(&culprit["reason"]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(generation: u64, seen: u64, usable: bool, ready: &str) -> Value {
        json!({"metadata": {"generation": generation}, "status": {"observedGeneration": seen, "usable": usable, "availability": "Available", "reason": "Starting", "message": "slot 1",
            "conditions": [{"type": "Ready", "status": ready, "reason": "Starting"}]}})
    }

    #[test]
    fn goals() {
        let table = [
            (Goal::Usable, Some(object(2, 1, true, "False")), true),
            (Goal::Usable, Some(object(1, 1, false, "True")), false),
            (Goal::Usable, None, false),
            (Goal::Usable, Some(json!({})), false),
            (Goal::Ready, Some(object(1, 1, false, "True")), true),
            (Goal::Ready, Some(object(2, 1, true, "True")), false),
            (Goal::Ready, Some(object(1, 1, true, "Unknown")), false),
            (Goal::Ready, Some(json!({"metadata": {}, "status": {}})), false),
            (Goal::Ready, None, false),
            (Goal::Deleted, None, true),
            (Goal::Deleted, Some(object(1, 1, true, "True")), false),
        ];
        for (goal, object, met) in table {
            assert_eq!(goal.is_met(object.as_ref()), met, "{goal:?} {object:?}");
        }
    }

    #[test]
    fn states_in_words() {
        let deleting = json!({"metadata": {"deletionTimestamp": "x", "finalizers": ["quaymaster.dev/engine"]}});
        let network = json!({"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "False", "reason": "NetworkInUse"}]}});
        let table = [
            (Goal::Ready, None, "it does not exist yet"),
            (Goal::Ready, Some(json!({})), "not observed yet"),
            (Goal::Ready, Some(object(2, 1, true, "False")), "Available, Starting, slot 1 (of an older generation)"),
            (Goal::Usable, Some(object(2, 1, true, "False")), "Available, Starting, slot 1"),
            (Goal::Ready, Some(network), "Ready is False, NetworkInUse"),
            (Goal::Deleted, Some(deleting), "it is being deleted and waits for quaymaster.dev/engine"),
            (Goal::Deleted, Some(json!({})), "nobody has asked for its deletion"),
        ];
        for (goal, object, text) in table {
            assert_eq!(state(goal, object.as_ref()), text);
        }
    }
}
