//! `describe`: one object for people: what is wanted, what is, why, and what happened.

use std::fmt::Write as _;

use clap::Args;
use qm_api::time::Timestamp;
use serde_json::Value;

use super::events::{EventsOf, event_rows, involved};
use super::target::{KindArg, Selection, Target, list_path, namespace_name, namespace_or_default, object_path, selection, with_query};
use super::{CliError, Connect, Done, End};
use crate::client::Client;
use crate::output::{self, Style, Tone, cell};

/// Show one object with its conditions, containers, dependencies and events
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster describe msvc/app -n notify
  quaymaster describe qnet data -n notify")]
pub(crate) struct DescribeArgs {
    /// KIND/NAME.., or KIND NAME..
    #[arg(required = true, value_name = "KIND/NAME")]
    what: Vec<String>,
    /// The namespace [default: default]
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn describe(args: &DescribeArgs) -> Done {
    let client = args.connect.client();
    let namespace = namespace_or_default(args.namespace.as_deref());
    let targets = match selection(&args.what)? {
        Selection::Objects(targets) => targets,
        Selection::Kinds(kinds) => all_of(&client, &kinds, namespace).await?,
    };
    for (at, target) in targets.iter().enumerate() {
        let object = client.get(&object_path(target, namespace)).await?;
        let filter = involved(&EventsOf { kind: target.kind.0.kind, name: &target.name });
        let events = client.get(&with_query(&format!("/api/v1/namespaces/{namespace}/events"), &[("fieldSelector", &filter)])).await;
        if at > 0 {
            output::print("\n\n")?;
        }
        let text = render(&object, events.as_ref().unwrap_or(&Value::Null), output::now(), Style::of_stdout());
        output::print(&text)?;
        if let Err(error) = events {
            output::note(&format!("the events cannot be had: {error}"));
        }
    }
    Ok(End::Fine)
}

async fn all_of(client: &Client, kinds: &[KindArg], namespace: &str) -> Result<Vec<Target>, CliError> {
    let mut targets = Vec::new();
    for kind in kinds {
        let list = client.get(&list_path(*kind, Some(namespace))).await?;
        let names = list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str());
        targets.extend(names.map(|name| Target { kind: *kind, name: name.to_owned() }));
    }
    Ok(targets)
}

/// Lines of `Key:  value`, the values under each other.
struct Sheet {
    text: String,
    style: Style,
}

impl Sheet {
    fn line(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            let _ = writeln!(self.text, "{:<15}{value}", format!("{key}:"));
        }
    }

    fn section(&mut self, title: &str, body: &str) {
        if !body.is_empty() {
            let _ = writeln!(self.text, "\n{}", self.style.paint(Tone::Strong, &format!("{title}:")));
            self.text.push_str(&output::indent(body, "  "));
        }
    }
}

/// One object with its events.
pub(crate) fn render(object: &Value, events: &Value, now: Timestamp, style: Style) -> String {
    let mut sheet = Sheet { text: String::new(), style };
    head(&mut sheet, object, now);
    let (spec, status) = (&object["spec"], &object["status"]);
    if matches!(object["kind"].as_str(), Some("MiniService" | "MiniContainer")) {
        service_status(&mut sheet, object, now);
    }
    sheet.section("Spec", &output::yaml(spec));
    sheet.section("Conditions", &conditions(status, now));
    if object["kind"] == "MiniContainer" {
        let names: Vec<String> = list(&status["children"]["names"]).map(cell).collect();
        sheet.section("Children", &if names.is_empty() { String::new() } else { format!("{}\n", names.join(", ")) });
        sheet.section("Blocked by", &blocked_by(status, &cell(&object["metadata"]["name"]), style));
        sheet.section("Dependents", &dependents(status));
    }
    if object["kind"] == "MiniService" {
        sheet.section("Runs", &super::job::table(&status["job"]["lastRuns"], now));
        sheet.section("Output of the newest run", status["job"]["lastRuns"][0]["output"].as_str().unwrap_or_default());
        sheet.section("Containers", &slots(status, now));
        sheet.section("Dependencies", &dependencies(status));
        sheet.section("Blocked by", &blocked_by(status, &cell(&object["metadata"]["name"]), style));
        sheet.section("Dependents", &dependents(status));
        sheet.section("History", &history(status, now));
    }
    let findings: String = list(&status["findings"]).map(|finding| format!("{}\n", cell(finding))).collect();
    sheet.section("Findings", &findings);
    let rows = event_rows(events, now, false);
    let headings = ["AGE", "TYPE", "REASON", "MESSAGE"].map(str::to_owned);
    let drawn = if rows.is_empty() { "none\n".to_owned() } else { output::table(Some(&headings), &rows, &[]) };
    sheet.section("Events", &drawn);
    sheet.text
}

fn head(sheet: &mut Sheet, object: &Value, now: Timestamp) {
    let meta = &object["metadata"];
    sheet.line("Name", &cell(&meta["name"]));
    sheet.line("Namespace", &cell(&meta["namespace"]));
    sheet.line("Kind", &cell(&object["kind"]));
    sheet.line("Labels", &pairs(&meta["labels"]));
    sheet.line("Annotations", &pairs(&meta["annotations"]));
    let owners: Vec<String> =
        list(&meta["ownerReferences"]).map(|owner| format!("{} {}", cell(&owner["kind"]), cell(&owner["name"]))).collect();
    sheet.line("Owner", &owners.join(", "));
    let age = output::age(&meta["creationTimestamp"], now);
    if !age.is_empty() {
        sheet.line("Created", &format!("{age} ago ({})", cell(&meta["creationTimestamp"])));
    }
    sheet.line("Generation", &generation(object));
    if meta["deletionTimestamp"].is_string() {
        let finalizers: Vec<String> = list(&meta["finalizers"]).map(cell).collect();
        let gone = format!("since {}, waits for {}", output::age(&meta["deletionTimestamp"], now), finalizers.join(", "));
        sheet.line("Deleting", gone.trim_end_matches(", waits for "));
    }
}

fn generation(object: &Value) -> String {
    let (wanted, seen) = (&object["metadata"]["generation"], &object["status"]["observedGeneration"]);
    match seen {
        Value::Null => cell(wanted),
        seen if seen == wanted => cell(wanted),
        seen => format!("{}, status speaks of {}", cell(wanted), cell(seen)),
    }
}

fn pairs(map: &Value) -> String {
    let pairs: Vec<String> = map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", cell(value))).collect();
    pairs.join(", ")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn service_status(sheet: &mut Sheet, object: &Value, now: Timestamp) {
    let status = &object["status"];
    if !status.is_object() {
        sheet.line("Availability", "not observed yet");
        return;
    }
    let word = status["availability"].as_str().unwrap_or("disabled");
    let stale = if status["stale"] == true { ", last known: it cannot be observed now" } else { "" };
    let since = output::age(&status["since"], now);
    let since = if since.is_empty() { since } else { format!(", for {since}") };
    let availability = format!("{} ({}){since}{stale}", sheet.style.availability(word), cell(&status["severity"]));
    sheet.line("Availability", &availability);
    let usable = if status["usable"] == true { sheet.style.paint(Tone::Good, "yes") } else { sheet.style.paint(Tone::Bad, "no") };
    sheet.line("Usable", &usable);
    let message = cell(&status["message"]);
    let reason = cell(&status["reason"]);
    sheet.line("Reason", &if message.is_empty() { reason } else { format!("{reason}: {message}") });
    sheet.line("Level", &cell(&status["level"]));
    if let Some(replicas) = status["replicas"].as_object() {
        let number = |key: &str| replicas.get(key).map(cell).unwrap_or_default();
        sheet.line("Replicas", &format!("{} wanted, {} running, {} healthy", number("wanted"), number("running"), number("healthy")));
    }
    if let Some(children) = status["children"].as_object() {
        let number = |key: &str| children.get(key).map(cell).unwrap_or_default();
        let counts = ["total", "enabled", "usable", "available"].map(|key| format!("{} {key}", number(key)));
        sheet.line("Children", &counts.join(", "));
    }
    sheet.line("Job", &super::job::summary(status, now));
    sheet.line("Revision", &cell(&status["revision"]));
}

fn conditions(status: &Value, now: Timestamp) -> String {
    let row = |condition: &Value| {
        let text = |key: &str| cell(&condition[key]);
        vec![text("type"), text("status"), text("reason"), output::age(&condition["lastTransitionTime"], now), text("message")]
    };
    let rows: Vec<Vec<String>> = list(&status["conditions"]).map(row).collect();
    section_table(&["TYPE", "STATUS", "REASON", "FOR", "MESSAGE"], &rows)
}

fn slots(status: &Value, now: Timestamp) -> String {
    let row = |slot: &Value| {
        let id: String = cell(&slot["containerId"]).chars().take(12).collect();
        let healthy = output::age(&slot["healthyAt"], now);
        let started = output::age(&slot["startedAt"], now);
        vec![cell(&slot["slot"]), id, cell(&slot["revision"]), cell(&slot["state"]), started, healthy]
    };
    let rows: Vec<Vec<String>> = list(&status["slots"]).map(row).collect();
    section_table(&["SLOT", "CONTAINER", "REVISION", "STATE", "STARTED", "HEALTHY"], &rows)
}

fn dependencies(status: &Value) -> String {
    let row = |dependency: &Value| {
        let name = format!("{}/{}", cell(&dependency["namespace"]), cell(&dependency["name"]));
        let availability = dependency["availability"].as_str().unwrap_or("disabled").to_owned();
        let tolerated = if dependency["tolerated"] == true { "loss tolerated".to_owned() } else { String::new() };
        vec![cell(&dependency["kind"]), name, cell(&dependency["onDown"]), availability, tolerated]
    };
    let rows: Vec<Vec<String>> = list(&status["dependencies"]).map(row).collect();
    section_table(&["KIND", "NAME", "ON-DOWN", "AVAILABILITY", ""], &rows)
}

/// The chains that end at what keeps it from being available: `app <- worker <- postgres`.
fn blocked_by(status: &Value, name: &str, style: Style) -> String {
    let chain = |culprit: &Value| {
        let own = cell(&culprit["name"]);
        let mut stops: Vec<String> = vec![name.to_owned()];
        stops.extend(list(&culprit["path"]).map(cell));
        if stops.last() != Some(&own) {
            stops.push(own.clone());
        }
        let word = cell(&culprit["availability"]);
        let place = format!("{} {}/{own}", cell(&culprit["kind"]), cell(&culprit["namespace"]));
        format!("{place} is {}: {}\n  {}\n", style.availability(&word), cell(&culprit["reason"]), stops.join(" <- "))
    };
    list(&status["blockedBy"]).map(chain).collect()
}

fn dependents(status: &Value) -> String {
    let dependents = &status["dependents"];
    let names: Vec<String> = list(&dependents["names"]).map(cell).collect();
    let all = usize::try_from(dependents["count"].as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
    match all.saturating_sub(names.len()) {
        _ if all == 0 => String::new(),
        0 => format!("{}\n", names.join(", ")),
        more => format!("{} and {more} more\n", names.join(", ")),
    }
}

fn history(status: &Value, now: Timestamp) -> String {
    let row = |revision: &Value| {
        let id: String = cell(&revision["imageId"]).trim_start_matches("sha256:").chars().take(12).collect();
        let proven = if revision["provenAt"].is_string() { "yes" } else { "no" };
        vec![cell(&revision["number"]), cell(&revision["image"]), id, proven.to_owned(), output::age(&revision["createdAt"], now)]
    };
    let rows: Vec<Vec<String>> = list(&status["history"]).map(row).collect();
    section_table(&["REVISION", "IMAGE", "IMAGE-ID", "GOOD", "AGE"], &rows)
}

fn section_table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    if rows.is_empty() { String::new() } else { output::table(Some(&headings), rows, &[]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-22T10:00:00Z").unwrap()
    }

    fn service() -> Value {
        json!({
            "apiVersion": "quaymaster.dev/v1alpha1",
            "kind": "MiniService",
            "metadata": {
                "name": "app", "namespace": "notify", "generation": 3, "labels": {"tier": "web", "team": "a"},
                "creationTimestamp": "2026-11-20T10:00:00Z", "uid": "u", "resourceVersion": "7",
            },
            "spec": {"container": {"image": "example/app:1.4", "ports": [{"target": 8080}]}, "dependsOn": [{"service": "worker"}]},
            "status": {
                "observedGeneration": 2, "availability": "TemporarilyUnavailable", "severity": 4, "usable": false, "stale": true,
                "since": "2026-11-22T09:54:50.000000Z", "reason": "DependencyUnavailable", "message": "worker is not usable", "level": 2,
                "replicas": {"wanted": 2, "running": 2, "healthy": 1},
                "slots": [{"slot": 1, "containerId": "0123456789abcdef", "revision": 4, "state": "running", "startedAt": "2026-11-22T09:00:00Z", "healthyAt": "2026-11-22T09:00:02Z"}],
                "blockedBy": [{"kind": "MiniService", "namespace": "notify", "name": "postgres", "availability": "Unavailable", "reason": "ImageMissing", "path": ["worker", "postgres"]}],
                "dependencies": [
                    {"kind": "MiniService", "namespace": "notify", "name": "worker", "onDown": "Block", "availability": "TemporarilyUnavailable", "tolerated": false},
                    {"kind": "MiniService", "namespace": "notify", "name": "vault", "onDown": "Degrade", "availability": "Unavailable", "tolerated": true},
                    {"kind": "MiniService", "namespace": "notify", "name": "beta", "onDown": "Ignore", "tolerated": false},
                ],
                "dependents": {"count": 3, "names": ["notify/edge", "notify/front"]},
                "revision": 4,
                "history": [{"number": 4, "image": "example/app:1.4", "imageId": "sha256:fedcba9876543210", "createdAt": "2026-11-22T08:00:00Z"}],
                "findings": ["the image declares the volume /data, and no named volume is mounted there"],
                "conditions": [
                    {"type": "Ready", "status": "False", "reason": "DependencyUnavailable", "message": "worker is not usable", "observedGeneration": 2, "lastTransitionTime": "2026-11-22T09:54:50Z"},
                    {"type": "Usable", "status": "False", "reason": "DependencyUnavailable", "observedGeneration": 2, "lastTransitionTime": "2026-11-22T09:54:50Z"},
                ],
            },
        })
    }

    #[test]
    fn a_service_with_everything() {
        let events = json!({"items": [
            {"type": "Warning", "reason": "StepFailed", "message": "pull of x failed", "count": 3, "lastTimestamp": "2026-11-22T09:59:00Z", "involvedObject": {"kind": "MiniService", "name": "app", "namespace": "notify"}},
            {"type": "Normal", "reason": "Created", "message": "created notify-app-1", "count": 1, "lastTimestamp": "2026-11-22T09:00:00Z", "involvedObject": {"kind": "MiniService", "name": "app", "namespace": "notify"}},
        ]});
        insta::assert_snapshot!("describe_service", render(&service(), &events, now(), Style::PLAIN));
    }

    #[test]
    fn little_is_known() {
        let fresh = json!({"kind": "MiniService", "metadata": {"name": "new", "namespace": "n", "generation": 1}, "spec": {"container": {"image": "x"}}});
        insta::assert_snapshot!("describe_fresh", render(&fresh, &Value::Null, now(), Style::PLAIN));
        let network = json!({"kind": "Network", "metadata": {"name": "data", "namespace": "n", "generation": 1, "deletionTimestamp": "2026-11-22T09:59:00Z", "finalizers": ["quaymaster.dev/engine"]},
            "spec": {"zone": "data"}, "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "AsWanted", "lastTransitionTime": "2026-11-22T09:00:00Z"}]}});
        insta::assert_snapshot!("describe_network", render(&network, &json!({"items": []}), now(), Style::PLAIN));
        assert_eq!(render(&Value::Null, &Value::Null, now(), Style::PLAIN).lines().count(), 6);
    }
}
