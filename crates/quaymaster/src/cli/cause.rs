//! Finds the one root cause of each service that is not usable, and says what heals it and what a person can do. Pure.

use std::collections::{BTreeMap, BTreeSet};

use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::output::cell;

/// Kind, namespace, name.
type Key = (String, String, String);

/// What keeps services from being usable.
#[derive(Clone, Debug)]
pub(crate) struct Cause<'a> {
    /// The node at fault; `None` is the engine.
    pub(crate) key: Option<Key>,
    /// How available it is.
    pub(crate) availability: String,
    /// Why, for programs.
    pub(crate) reason: String,
    /// Why, for people.
    pub(crate) message: String,
    /// The services that it keeps down, itself left out, as `namespace/name`.
    pub(crate) blocked: Vec<String>,
    /// The object at fault, where it is a service that we know.
    object: Option<&'a Value>,
    /// Since when, where no object says it.
    since: Value,
}

impl Cause<'_> {
    /// `namespace/name`, with the kind where it is no service.
    pub(crate) fn title(&self) -> String {
        match &self.key {
            None => "the engine".to_owned(),
            Some((kind, namespace, name)) if kind == "MiniService" => format!("{namespace}/{name}"),
            Some((kind, namespace, name)) => format!("{kind} {namespace}/{name}"),
        }
    }

    /// Since when, as an instant; null where nobody knows.
    pub(crate) fn since(&self) -> Value {
        self.object.map_or_else(|| self.since.clone(), |object| object["status"]["since"].clone())
    }

    fn severity(&self) -> u8 {
        severity(&self.availability)
    }
}

/// The container of a service, or of a job.
fn container_of(object: &Value) -> &Value {
    let spec = &object["spec"];
    if spec["job"].is_object() { &spec["job"]["container"] } else { &spec["container"] }
}

fn word<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(Value::from(text)).ok()
}

fn severity(text: &str) -> u8 {
    word::<Availability>(text).map_or(0, Availability::severity)
}

fn key_of(object: &Value) -> Key {
    let meta = &object["metadata"];
    ("MiniService".to_owned(), cell(&meta["namespace"]), cell(&meta["name"]))
}

/// The causes, worst first, then those that keep most down.
pub(crate) fn causes<'a>(overview: &Value, services: &'a [Value]) -> Vec<Cause<'a>> {
    let known: BTreeMap<Key, &Value> = services.iter().map(|service| (key_of(service), service)).collect();
    let mut causes: BTreeMap<Option<Key>, Cause<'a>> = BTreeMap::new();
    for (key, service) in &known {
        if is_wanting(service) {
            let found = root(key, service, &known, &overview["engine"]);
            let cause = causes.entry(found.key.clone()).or_insert(found);
            if cause.key.as_ref() != Some(key) {
                cause.blocked.push(format!("{}/{}", key.1, key.2));
            }
        }
    }
    let mut causes: Vec<Cause<'a>> = causes.into_values().collect();
    causes.sort_by(|a, b| b.severity().cmp(&a.severity()).then(b.blocked.len().cmp(&a.blocked.len())).then(a.key.cmp(&b.key)));
    causes
}

/// Wanted, and not usable. What is disabled is off the scale.
fn is_wanting(service: &Value) -> bool {
    let status = &service["status"];
    let is_off = status.is_object() && status["availability"].is_null();
    service["metadata"].is_object() && !is_off && status["usable"] != true
}

/// Follows what keeps a service down to the end.
fn root<'a>(key: &Key, service: &'a Value, known: &BTreeMap<Key, &'a Value>, engine: &Value) -> Cause<'a> {
    let (mut key, mut service) = (key.clone(), service);
    let mut seen: BTreeSet<Key> = BTreeSet::new();
    loop {
        seen.insert(key.clone());
        let reason = cell(&service["status"]["reason"]);
        if word(&reason) == Some(Reason::EngineUnreachable) {
            return engine_away(engine);
        }
        let Some(culprit) = culprit(&service["status"], &reason) else { return own(key, service) };
        let next = (cell(&culprit["kind"]), cell(&culprit["namespace"]), cell(&culprit["name"]));
        match known.get(&next) {
            _ if seen.contains(&next) => return own(key, service),
            Some(known) if is_wanting(known) => (key, service) = (next, known),
            _ => return foreign(next, culprit),
        }
    }
}

/// The worst of what keeps it down, if others do: a dependency that blocks it is lost, or a step of it waits for one. What needs a
/// change of its own is its own root, whatever else is down.
fn culprit<'a>(status: &'a Value, reason: &str) -> Option<&'a Value> {
    let by_others = [Reason::DependencyUnavailable, Reason::DependencyChanging, Reason::WaitingForDependency, Reason::Skipped];
    let is_by_others = |reason: &str| word::<Reason>(reason).is_some_and(|reason| by_others.contains(&reason));
    if status["severity"].as_u64() >= Some(5) && !is_by_others(reason) {
        return None;
    }
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let waits = conditions.filter(|condition| condition["type"] == "Ready").any(|condition| is_by_others(&cell(&condition["reason"])));
    let lost: Vec<&Value> = status["dependencies"].as_array().into_iter().flatten().filter(|dependency| is_lost(dependency)).collect();
    let is_culprit = |culprit: &&Value| {
        let first = culprit["path"].get(0).unwrap_or(&culprit["name"]);
        let blocks = lost.iter().any(|dependency| dependency["name"] == *first || dependency["name"] == culprit["name"]);
        severity(&cell(&culprit["availability"])) >= 4 && (blocks || waits || is_by_others(reason))
    };
    let length = |culprit: &Value| culprit["path"].as_array().map_or(0, Vec::len);
    // The first of the worst: the order of the list is the operator's.
    let all = status["blockedBy"].as_array()?.iter().rev().filter(is_culprit);
    all.max_by_key(|culprit| (severity(&cell(&culprit["availability"])), length(culprit)))
}

/// Its loss takes the dependent down.
fn is_lost(dependency: &Value) -> bool {
    let takes_down = dependency["onDown"] == "Block" || dependency["onDown"] == "Stop";
    takes_down && dependency["tolerated"] != true && severity(&cell(&dependency["availability"])) >= 4
}

fn own(key: Key, service: &Value) -> Cause<'_> {
    let status = &service["status"];
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    Cause {
        key: Some(key),
        availability: or(cell(&status["availability"]), "TemporarilyUnavailable"),
        reason: or(cell(&status["reason"]), "Pending"),
        message: cell(&status["message"]),
        blocked: Vec::new(),
        object: Some(service),
        since: Value::Null,
    }
}

fn foreign<'a>(key: Key, culprit: &Value) -> Cause<'a> {
    Cause {
        key: Some(key),
        availability: cell(&culprit["availability"]),
        reason: cell(&culprit["reason"]),
        message: String::new(),
        blocked: Vec::new(),
        object: None,
        since: Value::Null,
    }
}

fn engine_away<'a>(engine: &Value) -> Cause<'a> {
    Cause {
        key: None,
        availability: Availability::TemporarilyUnavailable.to_string(),
        reason: Reason::EngineUnreachable.to_string(),
        message: cell(&engine["message"]),
        blocked: Vec::new(),
        object: None,
        since: engine["since"].clone(),
    }
}

/// What heals it, and the commands that help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advice {
    pub(crate) heals: &'static str,
    pub(crate) commands: Vec<String>,
}

/// What to tell about a cause.
pub(crate) fn advice(cause: &Cause<'_>) -> Advice {
    let Some((kind, namespace, name)) = &cause.key else {
        let commands = vec!["systemctl status docker".to_owned()];
        return Advice { heals: "by itself, when the engine answers again; containers go on meanwhile", commands };
    };
    let target = format!("{}/{name} -n {namespace}", if kind == "MiniService" { "msvc".to_owned() } else { kind.to_lowercase() });
    let has_container = cause.object.is_some_and(|object| container_of(object).is_object());
    let describe = format!("quaymaster describe {target}");
    let logs = if has_container { format!("quaymaster logs {name} -n {namespace} --tail 50") } else { describe.clone() };
    let retry = format!("quaymaster retry {target}");
    let image = cause.object.map(|object| cell(&container_of(object)["image"])).filter(|image| !image.is_empty());
    let pull = image.map(|image| format!("docker pull {image}"));
    let is_suspended = cause.object.is_some_and(|object| {
        let conditions = object["status"]["conditions"].as_array();
        conditions.is_some_and(|list| list.iter().any(|c| c["type"] == "Suspended" && c["status"] == "True"))
    });
    let (heals, commands) = match word::<Reason>(&cause.reason) {
        Some(Reason::Pending | Reason::Creating | Reason::Starting | Reason::NotRunning | Reason::Exited | Reason::Drift)
            if is_suspended =>
        {
            ("when it is resumed, or its suspension ends", vec![format!("quaymaster resume {target}"), describe])
        }
        Some(Reason::Pending | Reason::Creating | Reason::Starting | Reason::Pulling | Reason::Rolling | Reason::RestartRequested) => {
            ("by itself, when it is done", vec![format!("quaymaster wait {target} --for usable"), logs])
        }
        Some(Reason::JobRunning) => ("by itself, when the job has succeeded", vec![format!("quaymaster wait {target} --for usable"), logs]),
        Some(Reason::JobFailed) => ("not by itself: the job has failed as often as it may", vec![describe, logs, retry]),
        Some(Reason::Unhealthy | Reason::ProbeFailed | Reason::Silent) => {
            let restart = has_container.then(|| format!("quaymaster restart {target}"));
            ("by itself, as soon as its check succeeds", [Some(logs), restart].into_iter().flatten().collect())
        }
        Some(Reason::NotRunning | Reason::Exited | Reason::Drift) => ("by itself: the operator starts it again", vec![logs]),
        Some(Reason::CrashLoop) => ("not before its start budget is free again, or its manifest changes", vec![logs, retry]),
        Some(Reason::ImageMissing) => {
            ("when its manifest names an image that exists, or the image is there", [pull, Some(retry)].into_iter().flatten().collect())
        }
        Some(Reason::RegistryDenied) => ("within a minute of when the registry is shown credentials that it takes", vec![retry]),
        Some(Reason::RegistryUnreachable) => ("by itself, when the registry answers again", vec![retry]),
        Some(Reason::ConfigurationRefused) => ("when its manifest is changed: the engine refuses it", vec![describe]),
        Some(Reason::PortTaken) => ("by itself, when the host port is free", vec![describe, retry]),
        Some(Reason::DiskFull) => ("by itself, when the disk has space", vec!["docker system df".to_owned(), retry]),
        Some(Reason::BlockedByPerson) => ("when it is unblocked, or the block ends", vec![format!("quaymaster unblock {target}")]),
        Some(Reason::Suspended) => ("when it is resumed", vec![format!("quaymaster resume {target}")]),
        Some(Reason::ApprovalNeeded | Reason::PruneHeld | Reason::NetworkInUse) => {
            ("when you approve the step that waits", vec!["quaymaster plan    (prints the hash to approve)".to_owned()])
        }
        Some(Reason::NamespaceInUse | Reason::NameConflict) => {
            ("when what is foreign has gone, or the manifest has another name", vec![describe, retry])
        }
        Some(Reason::Contested) => {
            ("by itself, some minutes after the last change by others", vec![format!("quaymaster events --for {target}")])
        }
        Some(Reason::NoProgress | Reason::StepFailed | Reason::PlanRefused) => {
            ("not by itself: the same step fails again and again", vec![format!("quaymaster events --for {target}"), retry])
        }
        Some(Reason::Frozen) => ("when its manifest is right", vec!["quaymaster validate DIR".to_owned()]),
        Some(Reason::Deleting) => ("it is on its way out", vec![describe]),
        _ => ("when its cause has gone", vec![describe]),
    };
    Advice { heals, commands }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, severity: u64, reason: &str, dependencies: Value, blocked_by: Value) -> Value {
        let word = if severity == 5 { "Unavailable" } else { "TemporarilyUnavailable" };
        json!({"metadata": {"namespace": "n", "name": name}, "status": {"availability": word, "severity": severity, "usable": false, "reason": reason, "dependencies": dependencies, "blockedBy": blocked_by}})
    }

    fn on(name: &str, on_down: &str) -> Value {
        json!([{"kind": "MiniService", "namespace": "n", "name": name, "onDown": on_down, "availability": "TemporarilyUnavailable", "tolerated": false}])
    }

    fn by(name: &str, path: &[&str]) -> Value {
        json!([{"kind": "MiniService", "namespace": "n", "name": name, "availability": "TemporarilyUnavailable", "reason": "Unhealthy", "path": path}])
    }

    /// The title of the cause of `app`, which is the first of the services.
    fn cause_of_app(services: &[Value]) -> String {
        let causes = causes(&json!({}), services);
        let found = causes.iter().find(|cause| cause.title() == "n/app" || cause.blocked.iter().any(|name| name == "n/app"));
        found.map(Cause::title).unwrap_or_default()
    }

    #[test]
    fn roots() {
        let db = service("db", 4, "Unhealthy", json!([]), json!([]));
        let web = service("web", 4, "Creating", on("db", "Block"), by("db", &["db"]));
        let mut tried = service("app", 4, "Creating", on("db", "Degrade"), by("db", &["db"]));
        tried["status"]["conditions"] = json!([{"type": "Ready", "status": "False", "reason": "WaitingForDependency"}]);
        let table = [
            ("blocked", vec![service("app", 4, "DependencyUnavailable", on("db", "Block"), by("db", &["db"])), db.clone()], "n/db"),
            ("gated before its first start", vec![service("app", 4, "Creating", on("db", "Block"), by("db", &["db"])), db.clone()], "n/db"),
            (
                "over two",
                vec![service("app", 4, "Creating", on("web", "Block"), by("db", &["web", "db"])), web.clone(), db.clone()],
                "n/db",
            ),
            (
                "fails while a mere help is down",
                vec![service("app", 4, "Unhealthy", on("db", "Degrade"), by("db", &["db"])), db.clone()],
                "n/app",
            ),
            ("waits although the edge only degrades", vec![tried, db.clone()], "n/db"),
            ("needs a change itself", vec![service("app", 5, "ImageMissing", on("db", "Block"), by("db", &["db"])), db.clone()], "n/app"),
            ("the culprit is not declared", vec![service("app", 4, "DependencyUnavailable", on("db", "Block"), by("db", &["db"]))], "n/db"),
            ("round and round", vec![service("app", 4, "DependencyUnavailable", on("app", "Block"), by("app", &["app"]))], "n/app"),
            ("never observed", vec![json!({"metadata": {"namespace": "n", "name": "app"}})], "n/app"),
            (
                "no engine",
                vec![
                    service("app", 4, "DependencyUnavailable", on("x", "Block"), by("x", &["x"])),
                    service("x", 4, "EngineUnreachable", json!([]), json!([])),
                ],
                "the engine",
            ),
        ];
        for (what, services, expected) in table {
            assert_eq!(cause_of_app(&services), expected, "{what}");
        }
    }
}
