//! `explain`: why a service is as it is, in sentences with the chain drawn; or what an error code means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::Args;
use qm_api::codes::Code;
use qm_api::kinds::{mini_container, mini_service};
use qm_api::time::Timestamp;
use serde_json::Value;

use super::cause::{advice, causes};
use super::events::{EventsOf, involved, last_seen};
use super::target::{BASE, Target, namespace_name, namespace_or_default, object_path, target, with_query};
use super::{CliError, Connect, Done, End};
use crate::output::{self, Style, Tone, cell};

/// Explain why a service is as it is, or what an error code means
///
/// For a service: since when it is so, whose fault that is, what heals it, what you can do, and why its containers were started last.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster explain msvc/app -n notify
  quaymaster explain mctr/worker -n notify
  quaymaster explain QM0007
  quaymaster explain")]
pub(crate) struct ExplainArgs {
    /// KIND/NAME, or a code; without one, all codes are listed
    #[arg(value_name = "KIND/NAME|CODE")]
    what: Option<String>,
    /// The namespace [default: default]
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn explain(args: &ExplainArgs) -> Done {
    let Some(text) = &args.what else {
        let list: String = Code::all().map(|code| format!("{code}  {}\n", code.title())).collect();
        output::print(&list)?;
        return Ok(End::Fine);
    };
    if !text.contains('/') {
        let usage = || {
            let message =
                format!("there is no code {text}; `quaymaster explain` lists all, `quaymaster explain msvc/{text}` is about a service");
            CliError::Usage(message)
        };
        let code = Code::parse(text).ok_or_else(usage)?;
        output::print(&format!("{}\n", code.page().trim_end()))?;
        return Ok(End::Fine);
    }
    let target = target(text).map_err(CliError::Usage)?;
    if ![mini_service::KIND, mini_container::KIND].contains(&target.kind.0.kind) {
        return Err(CliError::Usage(format!("{text} has no availability to explain; `quaymaster describe {text}` shows it")));
    }
    about(args, &target).await
}

async fn about(args: &ExplainArgs, target: &Target) -> Done {
    let client = args.connect.client();
    let namespace = namespace_or_default(args.namespace.as_deref());
    let object = client.get(&object_path(target, namespace)).await?;
    let filter = involved(&EventsOf { kind: target.kind.0.kind, name: &target.name });
    let events = client.get(&with_query(&format!("/api/v1/namespaces/{namespace}/events"), &[("fieldSelector", &filter)])).await?;
    let overview = client.get("/quaymaster/v1/overview").await?;
    let services = client.get(&format!("{BASE}/miniservices")).await?;
    let parents = client.get(&format!("{BASE}/minicontainers")).await?;
    let world = World { services: list(&services, "items"), parents: list(&parents, "items"), overview: &overview };
    output::print(&render(&object, &events, &world, output::now(), Style::of_stdout()))?;
    Ok(End::Fine)
}

/// What is around the object.
pub(crate) struct World<'a> {
    services: &'a [Value],
    parents: &'a [Value],
    overview: &'a Value,
}

impl<'a> World<'a> {
    fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<&'a Value> {
        let among = if kind == mini_container::KIND { self.parents } else { self.services };
        among.iter().find(|object| object["metadata"]["namespace"] == namespace && object["metadata"]["name"] == name)
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Everything that can be said of one object.
pub(crate) fn render(object: &Value, events: &Value, world: &World<'_>, now: Timestamp, style: Style) -> String {
    let mut text = verdict(object, now, style);
    text.push_str(&tolerated(object));
    let mut section = |title: &str, body: &str| {
        if !body.is_empty() {
            let _ = write!(text, "\n{}\n{}", style.paint(Tone::Strong, title), output::indent(body, "  "));
        }
    };
    section("because", &chain(object, world, style));
    let (heals, commands) = healing(object, world);
    section("what heals it", &heals);
    section("what you can do", &commands);
    section("containers", &starts(object, events, now));
    text
}

fn title(object: &Value) -> String {
    let name = format!("{}/{}", cell(&object["metadata"]["namespace"]), cell(&object["metadata"]["name"]));
    if object["kind"] == mini_container::KIND { format!("{} {name}", mini_container::KIND) } else { name }
}

/// The first sentence: may it be used, how is it, since when, why.
fn verdict(object: &Value, now: Timestamp, style: Style) -> String {
    let (title, status) = (title(object), &object["status"]);
    if !status.is_object() {
        return format!("{title} was not looked at yet.\n");
    }
    let since = output::age(&status["since"], now);
    let since = if since.is_empty() { String::new() } else { format!(" for {since}") };
    let message = cell(&status["message"]);
    let why = if message.is_empty() { cell(&status["reason"]) } else { format!("{} ({message})", cell(&status["reason"])) };
    let stale = if status["stale"] == true { " That is what was last known: it cannot be seen now." } else { "" };
    let Some(word) = status["availability"].as_str() else {
        return format!("{title} is off{since}: {why}. Nobody may use it, and it counts for nobody.\n");
    };
    let may = match (status["usable"] == true, object["metadata"]["deletionTimestamp"].is_string()) {
        (_, true) => "is being deleted",
        (true, false) => "may be used",
        (false, false) => "may not be used",
    };
    format!("{title} {may}: {} ({}){since}, {why}.{stale}\n", style.availability(word), cell(&status["severity"]))
}

fn tolerated(object: &Value) -> String {
    let lost = list(&object["status"], "dependencies").iter().filter(|dependency| dependency["tolerated"] == true);
    lost.map(|d| format!("It goes on without {}/{} for now: the loss is tolerated.\n", cell(&d["namespace"]), cell(&d["name"]))).collect()
}

/// The way from the object to those at fault, drawn as a tree.
fn chain(object: &Value, world: &World<'_>, style: Style) -> String {
    let paths: Vec<Vec<String>> = list(&object["status"], "blockedBy").iter().map(path_of).collect();
    if paths.is_empty() {
        return String::new();
    }
    let mut out = format!("{}\n", title(object));
    branch(&mut out, "", Some(object), &paths, world, style);
    out
}

fn path_of(culprit: &Value) -> Vec<String> {
    let mut path: Vec<String> = list(culprit, "path").iter().map(cell).collect();
    let own = cell(&culprit["name"]);
    if path.last() != Some(&own) {
        path.push(own);
    }
    path
}

fn branch(out: &mut String, indent: &str, object: Option<&Value>, paths: &[Vec<String>], world: &World<'_>, style: Style) {
    let mut below: BTreeMap<&String, Vec<Vec<String>>> = BTreeMap::new();
    for path in paths {
        if let Some((first, rest)) = path.split_first() {
            let paths = below.entry(first).or_default();
            if !rest.is_empty() {
                paths.push(rest.to_vec());
            }
        }
    }
    let count = below.len();
    for (at, (name, paths)) in below.into_iter().enumerate() {
        let is_last = at + 1 == count;
        let (edge, next) = step(object, name, world);
        let corner = if is_last { "└─" } else { "├─" };
        let (place, state) = match next {
            Some(next) => (title(next), state(next, style)),
            None => (name.clone(), String::new()),
        };
        let _ = writeln!(out, "{indent}{corner} {} {place}{state}", style.paint(Tone::Dim, &edge));
        branch(out, &format!("{indent}{}", if is_last { "   " } else { "│  " }), next, &paths, world, style);
    }
}

/// How an object needs the next one on the way, and that one.
fn step<'a>(object: Option<&Value>, name: &str, world: &World<'a>) -> (String, Option<&'a Value>) {
    let Some(object) = object else { return ("needs".to_owned(), None) };
    let namespace = cell(&object["metadata"]["namespace"]);
    if object["kind"] == mini_container::KIND {
        return ("owns".to_owned(), world.find(mini_service::KIND, &namespace, name));
    }
    let found = list(&object["status"], "dependencies").iter().find(|dependency| dependency["name"] == name);
    match found {
        Some(d) => (format!("needs ({})", cell(&d["onDown"])), world.find(&cell(&d["kind"]), &cell(&d["namespace"]), name)),
        None => ("needs".to_owned(), world.find(mini_service::KIND, &namespace, name)),
    }
}

fn state(object: &Value, style: Style) -> String {
    let status = &object["status"];
    let word = status["availability"].as_str().unwrap_or("off");
    let own = list(status, "blockedBy").is_empty();
    let message = cell(&status["message"]);
    let why = if own && !message.is_empty() { format!("{}: {message}", cell(&status["reason"])) } else { cell(&status["reason"]) };
    format!("  {}, {why}", style.availability(word))
}

/// What heals each root of what keeps it down, and the commands that help.
fn healing(object: &Value, world: &World<'_>) -> (String, String) {
    let name = format!("{}/{}", cell(&object["metadata"]["namespace"]), cell(&object["metadata"]["name"]));
    let roots: BTreeSet<String> = list(&object["status"], "blockedBy")
        .iter()
        .map(|culprit| format!("{}/{}", cell(&culprit["namespace"]), cell(&culprit["name"])))
        .collect();
    let all = causes(world.overview, world.services);
    let concern = |cause: &&super::cause::Cause<'_>| {
        let title = cause.title();
        title == name || roots.contains(&title) || cause.blocked.contains(&name)
    };
    let (mut heals, mut commands) = (String::new(), Vec::new());
    for cause in all.iter().filter(concern) {
        let advice = advice(cause);
        let _ = writeln!(heals, "{}: {}", cause.title(), advice.heals);
        commands.extend(advice.commands);
    }
    commands.dedup();
    (heals, commands.into_iter().map(|command| format!("{command}\n")).collect())
}

/// Why each replica was started or signalled last, newest first.
fn starts(object: &Value, events: &Value, now: Timestamp) -> String {
    let slots = list(&object["status"], "slots");
    let mut lines = String::new();
    for slot in slots {
        let number = cell(&slot["slot"]);
        let tells = |event: &&Value| {
            let message = cell(&event["message"]);
            ["start", "restart", "signal"].iter().any(|verb| message.starts_with(&format!("{verb} replica {number}")))
        };
        let at = |event: &Value| last_seen(event).and_then(|at| Timestamp::parse(at).ok());
        let newest = list(events, "items").iter().filter(tells).max_by_key(|event| at(event));
        let age = output::age(&slot["startedAt"], now);
        let why = newest.map_or_else(
            || "nothing is remembered of its last start".to_owned(),
            |event| format!("{}, {} ago", cell(&event["message"]), output::age(&last_seen(event).map_or(Value::Null, Value::from), now)),
        );
        let _ = writeln!(lines, "replica {number}, {} for {age}: {why}", cell(&slot["state"]));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, severity: u64, reason: &str, rest: Value) -> Value {
        let word =
            ["Available", "Available", "AlmostAvailable", "PartiallyAvailable", "TemporarilyUnavailable", "Unavailable"][severity as usize];
        let mut status = json!({
            "availability": word, "severity": severity, "usable": severity <= 3, "reason": reason, "message": "", "since": "2026-01-01T00:00:00Z",
        });
        status.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({ "kind": "MiniService", "metadata": { "namespace": "n", "name": name }, "spec": { "container": { "image": "x" } }, "status": status })
    }

    fn on(kind: &str, name: &str, on_down: &str, availability: &str) -> Value {
        json!({ "kind": kind, "namespace": "n", "name": name, "onDown": on_down, "availability": availability, "tolerated": false })
    }

    #[test]
    fn a_service_is_explained_down_to_its_roots() {
        let by = |name: &str, path: Value| json!({ "kind": "MiniService", "namespace": "n", "name": name, "availability": "TemporarilyUnavailable", "reason": "Exited", "path": path });
        let db = service("db", 5, "ImageMissing", json!({ "message": "there is no image postgres:99" }));
        let mail = service("worker-mail", 4, "Exited", json!({ "message": "ended with code 1" }));
        let api = service(
            "api",
            4,
            "DependencyUnavailable",
            json!({ "dependencies": [on("MiniService", "db", "Block", "Unavailable")], "blockedBy": [by("db", json!(["db"]))] }),
        );
        let mut worker = service("worker", 4, "ChildrenUnavailable", json!({ "blockedBy": [by("worker-mail", json!(["worker-mail"]))] }));
        worker["kind"] = "MiniContainer".into();
        let web = service(
            "web",
            4,
            "DependencyUnavailable",
            json!({
                "message": "n/api is not usable",
                "dependencies": [
                    on("MiniService", "api", "Block", "TemporarilyUnavailable"),
                    on("MiniContainer", "worker", "Degrade", "TemporarilyUnavailable"),
                ],
                "blockedBy": [by("db", json!(["api", "db"])), by("worker-mail", json!(["worker", "worker-mail"]))],
                "slots": [{ "slot": 1, "state": "running", "startedAt": "2026-01-01T00:00:10Z" }],
            }),
        );
        let services = [db, mail, api, web.clone()];
        let world = World { services: &services, parents: std::slice::from_ref(&worker), overview: &json!({}) };
        let event = |at: &str, message: &str| json!({ "lastTimestamp": at, "message": message });
        let events = json!({ "items": [
            event("2026-01-01T00:00:10Z", "restart replica 1: n/redis returned"),
            event("2026-01-01T00:00:01Z", "start replica 1: new"),
        ] });
        let now = Timestamp::parse("2026-01-01T00:01:00Z").unwrap();
        insta::assert_snapshot!(render(&web, &events, &world, now, Style::default()));
        insta::assert_snapshot!("explain_a_parent", render(&worker, &json!({}), &world, now, Style::default()));
        let fine = service("fine", 1, "Healthy", json!({ "message": "1 of 1 replicas healthy" }));
        insta::assert_snapshot!("explain_what_is_fine", render(&fine, &json!({}), &world, now, Style::default()));
        let mut off = service("off", 1, "Skipped", json!({ "message": "n/search is off" }));
        off["status"]["availability"] = Value::Null;
        assert_eq!(
            verdict(&off, now, Style::default()),
            "n/off is off for 1m: Skipped (n/search is off). Nobody may use it, and it counts for nobody.\n"
        );
    }
}
