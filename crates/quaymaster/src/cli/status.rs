//! `status`: one screen. What is not usable, grouped by its one root cause, since when, what heals it and what a person can do; what is
//! held, frozen, suspended or left over; the engine. The grouping is in [`super::cause`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;
use qm_api::time::Timestamp;
use serde_json::{Value, json};

use super::cause::{Advice, Cause, advice, causes};
use super::target::BASE;
use super::{Connect, Done, End, intents};
use crate::output::{self, Style, Tone, cell, count};

/// Show on one screen what is not usable, why, and what you can do
///
/// Exits 1 when something is not usable, frozen, or waits for you.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster status
  quaymaster status --socket ./quaymaster.sock")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    connect: Connect,
}

/// So many names are printed of one group.
const MAX_NAMES: usize = 8;
/// So many lines are printed of one list.
const MAX_LINES: usize = 10;

pub(crate) async fn status(args: &StatusArgs) -> Done {
    let client = args.connect.client();
    let overview = client.get("/quaymaster/v1/overview").await?;
    let services = client.get(&format!("{BASE}/miniservices")).await?;
    let others = [client.get(&format!("{BASE}/networks")).await?, client.get(&format!("{BASE}/minicontainers")).await?];
    let plan = client.post("/quaymaster/v1/plan", &json!({})).await?;
    let told = Told { overview: &overview, services: &services, others: &others, plan: &plan["plan"] };
    let screen = Screen::draw(&told, output::now(), Style::of_stdout());
    output::print(&screen.text)?;
    Ok(if screen.is_fine { End::Fine } else { End::Differs })
}

/// What the operator tells.
pub(crate) struct Told<'a> {
    pub(crate) overview: &'a Value,
    /// The list of services.
    pub(crate) services: &'a Value,
    /// The lists of networks and mini containers.
    pub(crate) others: &'a [Value],
    pub(crate) plan: &'a Value,
}

/// What is shown.
pub(crate) struct Screen {
    pub(crate) text: String,
    /// Nothing wants a person, and all is usable.
    pub(crate) is_fine: bool,
}

impl Screen {
    /// Draws the operator's overview with all services.
    pub(crate) fn draw(told: &Told<'_>, now: Timestamp, style: Style) -> Self {
        let Told { overview, services, others, plan } = *told;
        let mut screen = Self { text: String::new(), is_fine: true };
        screen.head(overview, now, style);
        screen.engine(&overview["engine"], now, style);
        let causes = causes(overview, list(services, "items"));
        screen.not_usable(&causes, now, style);
        screen.limited(list(services, "items"), style);
        screen.stalled(list(services, "items").iter().chain(others.iter().flat_map(|of_kind| list(of_kind, "items"))), style);
        screen.held(overview, style);
        screen.approvals(plan, style);
        screen.frozen(overview, style);
        screen.sources(overview, style);
        screen.suspended(overview, now, style);
        screen.orphans(&overview["orphans"], style);
        if screen.is_fine {
            let _ = writeln!(screen.text, "\n{}", style.paint(Tone::Good, "All is well."));
        }
        screen
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "{text}");
    }

    fn section(&mut self, style: Style, tone: Tone, title: &str) {
        let _ = writeln!(self.text, "\n{}", style.paint(tone, title));
    }

    fn head(&mut self, overview: &Value, now: Timestamp, style: Style) {
        let counts = &overview["counts"];
        let number = |key: &str| usize::try_from(counts[key].as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
        let up = output::age(&overview["startedAt"], now);
        let up = if up.is_empty() { up } else { format!(", up {up}") };
        let usable = format!("{} of {} usable", number("usable"), count(number("services"), "service"));
        let usable = style.paint(if number("usable") == number("services") { Tone::Good } else { Tone::Bad }, &usable);
        let version = cell(&overview["version"]);
        let version = if version.is_empty() { version } else { format!(", quaymaster {version}") };
        let line = format!("{usable}, {}  (instance {}{version}{up})", count(number("networks"), "network"), cell(&overview["instance"]));
        self.line(&line);
    }

    fn engine(&mut self, engine: &Value, now: Timestamp, style: Style) {
        let age = output::age(&engine["since"], now);
        if engine["reachable"] != false {
            let version = cell(&engine["version"]);
            if !version.is_empty() {
                self.line(&format!("engine: Docker {version}, API {}, reachable", cell(&engine["api"])));
            }
            return;
        }
        self.is_fine = false;
        let since = if age.is_empty() { age } else { format!(" for {age}") };
        let message = cell(&engine["message"]);
        let message = if message.is_empty() { message } else { format!(": {message}") };
        self.line(&style.paint(Tone::Bad, &format!("engine: not reachable{since}{message}")));
        self.line("      you can: start Docker; or try things out without it: quaymaster run --engine sim ..");
    }

    fn not_usable(&mut self, causes: &[Cause<'_>], now: Timestamp, style: Style) {
        if causes.is_empty() {
            return;
        }
        self.is_fine = false;
        self.section(style, Tone::Bad, "NOT USABLE");
        for cause in causes {
            let since = output::age(&cause.since(), now);
            let since = if since.is_empty() { since } else { format!(", for {since}") };
            let name = style.paint(Tone::Strong, &cause.title());
            self.line(&format!("  {name}  {}: {}{since}", style.availability(&cause.availability), cause.reason));
            if !cause.message.is_empty() {
                self.line(&format!("      {}", cause.message));
            }
            let Advice { heals, commands } = advice(cause);
            self.line(&format!("      heals:   {heals}"));
            for (at, command) in commands.iter().enumerate() {
                self.line(&format!("      {} {command}", if at == 0 { "you can:" } else { "        " }));
            }
            if !cause.blocked.is_empty() {
                self.line(&format!("      keeps down {}: {}", count(cause.blocked.len(), "service"), names(&cause.blocked)));
            }
        }
    }

    fn limited(&mut self, services: &[Value], style: Style) {
        let is_limited = |service: &&Value| service["status"]["usable"] == true && service["status"]["severity"].as_u64().unwrap_or(0) > 1;
        let limited: Vec<&Value> = services.iter().filter(is_limited).collect();
        if limited.is_empty() {
            return;
        }
        self.section(style, Tone::Warn, "USABLE WITH LIMITS");
        for service in limited.iter().take(MAX_LINES) {
            let (meta, status) = (&service["metadata"], &service["status"]);
            let mut line = format!(
                "  {}/{}  {}: {}",
                cell(&meta["namespace"]),
                cell(&meta["name"]),
                style.availability(&cell(&status["availability"])),
                cell(&status["reason"])
            );
            if let Some(message) = status["message"].as_str().filter(|message| !message.is_empty()) {
                let _ = write!(line, " ({})", output::clean(message));
            }
            self.line(&line);
        }
        self.more(limited.len(), "quaymaster get msvc -A");
    }

    fn more(&mut self, all: usize, command: &str) {
        if all > MAX_LINES {
            self.line(&format!("  and {} more: {command}", all - MAX_LINES));
        }
    }

    fn held(&mut self, overview: &Value, style: Style) {
        let held: Vec<&Value> = list(overview, "sources").iter().filter(|source| source["pruneHeld"].is_object()).collect();
        if held.is_empty() {
            return;
        }
        self.is_fine = false;
        self.section(style, Tone::Warn, "REMOVAL HELD");
        for source in held {
            let prune = &source["pruneHeld"];
            let objects: Vec<String> = list(prune, "objects").iter().map(object_name).collect();
            self.line(&format!("  source {}: {}", cell(&source["id"]), cell(&prune["message"])));
            if !objects.is_empty() {
                self.line(&format!("      {}: {}", count(objects.len(), "object"), names(&objects)));
            }
            let hash: String = cell(&prune["stepHash"]).chars().take(12).collect();
            match hash.is_empty() {
                true => self.line(&format!("      you can: correct the files in {}; removal goes on by itself", cell(&source["dir"]))),
                false => {
                    self.line(&format!("      you can: quaymaster approve {hash}    (if they are to go)"));
                    self.line(&format!("               put the files back into {}    (if not)", cell(&source["dir"])));
                }
            }
        }
    }

    /// Usable, or never used, and it does not go on without a person.
    fn stalled<'v>(&mut self, objects: impl Iterator<Item = &'v Value>, style: Style) {
        let lines: Vec<String> = objects.filter_map(stalled_line).collect();
        if lines.is_empty() {
            return;
        }
        self.is_fine = false;
        self.section(style, Tone::Warn, "STALLED");
        lines.iter().take(MAX_LINES).for_each(|line| self.line(line));
        self.more(lines.len(), "quaymaster events -A");
    }

    /// Steps that a person must say yes to; held removals and orphans have sections of their own.
    fn approvals(&mut self, plan: &Value, style: Style) {
        let is_orphan = |step: &Value| step["causeText"] == "orphan";
        let steps: Vec<Value> = list(plan, "steps").iter().filter(|step| !is_orphan(step)).cloned().collect();
        let waiting = intents::waiting(&json!({ "steps": steps }), &Value::Null);
        if waiting.is_empty() {
            return;
        }
        self.is_fine = false;
        self.section(style, Tone::Warn, "WAITS FOR APPROVAL");
        for step in waiting.iter().take(MAX_LINES) {
            self.line(&format!("  {}", step.text));
            self.line(&format!("      you can: quaymaster approve {}", intents::short(&step.hash)));
        }
        self.more(waiting.len(), "quaymaster plan");
    }

    fn frozen(&mut self, overview: &Value, style: Style) {
        let frozen = list(overview, "frozen");
        if frozen.is_empty() {
            return;
        }
        self.is_fine = false;
        self.section(style, Tone::Bad, "FROZEN");
        for entry in frozen {
            self.line(&format!("  namespace {} stays at its last good state until its manifests are right", cell(&entry["namespace"])));
            let violations = list(entry, "violations");
            for violation in violations.iter().take(MAX_LINES) {
                self.line(&format!("      {}", violation_line(violation, overview)));
            }
            self.more(violations.len(), "quaymaster validate");
            let dirs: BTreeMap<String, ()> = violations.iter().filter_map(|v| source_dir(v, overview)).map(|dir| (dir, ())).collect();
            let dirs: Vec<String> = dirs.into_keys().collect();
            self.line(format!("      you can: quaymaster validate {}", dirs.join(" ")).trim_end());
        }
    }

    fn sources(&mut self, overview: &Value, style: Style) {
        let mut lines = Vec::new();
        for source in list(overview, "sources") {
            let id = cell(&source["id"]);
            let health = health(&source["health"]);
            if !health.is_empty() && health != "Ready" {
                self.is_fine &= health.starts_with("Degraded");
                lines.push(format!("  source {id}: {health}"));
            }
            for held in list(source, "held") {
                lines.push(format!("  source {id}: {} waits: {}", cell(&held["path"]), cell(&held["why"])));
            }
            let violations = list(source, "violations");
            let told = |violation: &Value| list(overview, "frozen").iter().any(|entry| list(entry, "violations").contains(violation));
            for violation in violations.iter().filter(|violation| !told(violation)) {
                self.is_fine &= violation["severity"] != "Error";
                lines.push(format!("  {}", violation_line(violation, overview)));
            }
        }
        if lines.is_empty() {
            return;
        }
        self.section(style, Tone::Warn, "SOURCES");
        lines.iter().take(MAX_LINES).for_each(|line| self.line(line));
        self.more(lines.len(), "quaymaster validate");
    }

    fn suspended(&mut self, overview: &Value, now: Timestamp, style: Style) {
        let suspensions = list(overview, "suspensions");
        if suspensions.is_empty() {
            return;
        }
        self.section(style, Tone::Warn, "SUSPENDED");
        for suspension in suspensions.iter().take(MAX_LINES) {
            let spec = suspension.get("spec").unwrap_or(suspension);
            let (what, flags) = scope(&spec["scope"]);
            let mut line = format!("  {what}, by {}", cell(&spec["actor"]));
            let age = output::age(&spec["at"], now);
            if !age.is_empty() {
                let _ = write!(line, " {age} ago");
            }
            if spec["until"].is_string() {
                let _ = write!(line, ", until {}", cell(&spec["until"]));
            }
            if let Some(reason) = spec["reason"].as_str().filter(|reason| !reason.is_empty()) {
                let _ = write!(line, ": {}", output::clean(reason));
            }
            self.line(&line);
            self.line(&format!("      you can: quaymaster resume {flags}"));
        }
        self.more(suspensions.len(), "quaymaster get intents -A");
    }

    fn orphans(&mut self, orphans: &Value, style: Style) {
        let number = orphans.as_u64().unwrap_or_else(|| orphans.as_array().map_or(0, |list| list.len() as u64));
        if number > 0 {
            self.is_fine = false;
            self.section(style, Tone::Warn, "ORPHANS");
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            self.line(&format!("  {} of ours that no manifest knows; none is removed without approval", count(number, "thing")));
            self.line("      you can: quaymaster plan    (lists them with the hash to approve)");
        }
    }
}

fn stalled_line(object: &Value) -> Option<String> {
    let (meta, status) = (&object["metadata"], &object["status"]);
    // Who is not usable is listed with the cause of it. What has nothing below it to blame is its own cause.
    let is_listed = object["kind"] == "MiniService" && status["usable"] != true;
    let stands = list(status, "conditions").iter().find(|c| c["type"] == "Stalled" && c["status"] == "True");
    let is_empty = object["kind"] == "MiniContainer" && status["usable"] == false && list(status, "blockedBy").is_empty();
    let said = stands.or(is_empty.then_some(status)).filter(|_| !is_listed)?;
    let name = format!("{} {}/{}", cell(&object["kind"]), cell(&meta["namespace"]), cell(&meta["name"]));
    let message = said["message"].as_str().filter(|message| !message.is_empty()).map(|m| format!(" ({})", output::clean(m)));
    Some(format!("  {name}  {}{}", cell(&said["reason"]), message.unwrap_or_default()))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn names(all: &[String]) -> String {
    let shown = all.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > MAX_NAMES { format!("{shown} and {} more", all.len() - MAX_NAMES) } else { shown }
}

fn object_name(object: &Value) -> String {
    match object.as_str() {
        Some(text) => output::clean(text),
        None => format!("{} {}/{}", cell(&object["kind"]), cell(&object["namespace"]), cell(&object["name"])),
    }
}

fn health(health: &Value) -> String {
    match health {
        Value::Object(parts) => {
            let reason = parts.get("reason").or_else(|| parts.get("message")).map(cell).unwrap_or_default();
            let state = parts.get("state").map(cell).or_else(|| parts.keys().next().cloned()).unwrap_or_default();
            if reason.is_empty() { state } else { format!("{state}: {reason}") }
        }
        other => cell(other),
    }
}

/// The folder of the source that a violation stands in.
fn source_dir(violation: &Value, overview: &Value) -> Option<String> {
    let id = violation["place"]["source"].as_str()?;
    let dir = list(overview, "sources").iter().find(|source| source["id"] == id).and_then(|source| source["dir"].as_str());
    Some(output::clean(dir.unwrap_or(id)))
}

/// `FILE:LINE:COLUMN  CODE message (help)`.
fn violation_line(violation: &Value, overview: &Value) -> String {
    if let Some(text) = violation.as_str() {
        return output::clean(text);
    }
    let place = &violation["place"];
    let file = match source_dir(violation, overview) {
        Some(dir) if !dir.is_empty() => format!("{}/{}", dir.trim_end_matches('/'), cell(&place["file"])),
        _ => cell(&place["file"]),
    };
    let mut line = match place["line"].as_u64() {
        Some(number @ 1..) => format!("{file}:{number}:{}", cell(&place["column"])),
        _ => file,
    };
    let _ = write!(line, "  {} {}", cell(&violation["code"]), cell(&violation["message"]));
    if let Some(help) = violation["help"].as_str().filter(|help| !help.is_empty()) {
        let _ = write!(line, "; {}", output::clean(help));
    }
    line.trim_start().to_owned()
}

/// What an intent is about, and the flags that say the same on the command line.
fn scope(scope: &Value) -> (String, String) {
    let text = |key: &str| scope[key].as_str().map(output::clean);
    match (text("name"), text("namespace"), text("source")) {
        (Some(name), namespace, _) => {
            let namespace = namespace.unwrap_or_else(|| "default".to_owned());
            let kind = text("kind").unwrap_or_else(|| "MiniService".to_owned());
            (format!("{kind} {namespace}/{name}"), format!("{}/{name} -n {namespace}", kind.to_lowercase()))
        }
        (None, Some(namespace), _) => (format!("namespace {namespace}"), format!("-n {namespace}")),
        (None, None, Some(source)) => (format!("source {source}"), format!("--source {source}")),
        (None, None, None) => ("everything".to_owned(), "--all".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-22T10:00:00Z").unwrap()
    }

    fn overview(services: u64, usable: u64) -> Value {
        json!({
            "version": "0.1.0", "instance": "default", "startedAt": "2026-11-22T08:00:00.000000Z",
            "engine": {"reachable": true, "version": "28.0.1", "api": "1.48", "message": "", "since": "2026-11-22T08:00:00Z"},
            "sources": [{"id": "/srv/manifests", "dir": "/srv/manifests", "health": "Ready", "files": 4, "objects": 9, "held": [], "pruneHeld": null, "violations": []}],
            "frozen": [], "suspensions": [], "orphans": 0,
            "counts": {"services": services, "usable": usable, "networks": 2},
        })
    }

    fn service(name: &str, availability: &str, reason: &str) -> Value {
        let severity = ["Available", "AlmostAvailable", "PartiallyAvailable", "TemporarilyUnavailable", "Unavailable", "SystemFailure"]
            .iter()
            .position(|word| *word == availability)
            .unwrap()
            + 1;
        json!({
            "kind": "MiniService", "metadata": {"name": name, "namespace": "notify"},
            "spec": {"container": {"image": "example/app:1"}},
            "status": {"availability": availability, "severity": severity, "usable": severity <= 3, "since": "2026-11-22T09:55:00Z", "reason": reason, "level": 0},
        })
    }

    fn blocked(name: &str, path: &[&str]) -> Value {
        let mut value = service(name, "TemporarilyUnavailable", "DependencyUnavailable");
        let culprit = path.last().unwrap();
        value["status"]["blockedBy"] = json!([{"kind": "MiniService", "namespace": "notify", "name": culprit, "availability": "TemporarilyUnavailable", "reason": "Unhealthy", "path": path}]);
        value
    }

    fn draw(overview: &Value, services: Vec<Value>) -> Screen {
        let services = json!({"items": services});
        let told = Told { overview, services: &services, others: &[], plan: &Value::Null };
        Screen::draw(&told, now(), Style::PLAIN)
    }

    #[test]
    fn all_is_well() {
        let screen = draw(&overview(2, 2), vec![service("app", "Available", "Healthy"), service("redis", "Available", "Healthy")]);
        assert!(screen.is_fine);
        insta::assert_snapshot!("status_fine", screen.text);
    }

    #[test]
    fn one_root_blocks_five() {
        let mut postgres = service("postgres", "TemporarilyUnavailable", "Unhealthy");
        postgres["status"]["message"] = json!("slot 1: tcp 5432: connection refused");
        let mut services = vec![postgres, service("redis", "PartiallyAvailable", "SomeReplicasHealthy")];
        services.extend(["api", "beat", "worker"].map(|name| blocked(name, &["postgres"])));
        // Told only of its direct dependency, it still ends at the root.
        services.push(blocked("edge", &["api"]));
        services.push(blocked("front", &["api", "postgres"]));
        let screen = draw(&overview(7, 1), services);
        assert!(!screen.is_fine);
        insta::assert_snapshot!("status_one_root", screen.text);
    }

    #[test]
    fn frozen_and_held() {
        let mut overview = overview(3, 3);
        let violation = json!({"severity": "Error", "code": "QM0007", "path": "spec.container.imge", "message": "there is no field `imge`", "help": "did you mean `image`?",
            "place": {"source": "/srv/manifests", "file": "app.yaml", "line": 6, "column": 5, "start": 80, "end": 84}});
        let elsewhere = json!({"severity": "Warning", "code": "QM0021", "path": "spec.critical", "message": "`critical` is not in effect yet",
            "place": {"source": "/srv/manifests", "file": "db.yaml", "line": 9, "column": 3, "start": 1, "end": 2}});
        overview["frozen"] = json!([{"namespace": "notify", "violations": [violation]}]);
        overview["sources"][0]["violations"] = json!([violation, elsewhere]);
        overview["sources"][0]["held"] = json!([{"path": "new.yaml", "why": "still open for writing"}]);
        overview["sources"][0]["pruneHeld"] = json!({"message": "5 of 9 objects have vanished from it at once", "stepHash": "0123456789abcdef0123456789abcdef",
            "objects": [{"kind": "MiniService", "namespace": "shop", "name": "cart"}, "MiniService shop/web"]});
        overview["suspensions"] = json!([
            {"kind": "Intent", "spec": {"act": "suspend", "scope": {"namespace": "shop"}, "actor": "ann@host", "reason": "upgrade", "until": "2026-11-22T11:00:00Z", "at": "2026-11-22T09:50:00Z"}},
            {"act": "suspend", "scope": {"kind": "MiniService", "namespace": "notify", "name": "app"}, "actor": "bob@host", "at": "2026-11-22T09:50:00Z"},
            {"act": "suspend", "scope": {}, "actor": "run --observe"},
        ]);
        overview["orphans"] = json!(2);
        let screen = draw(&overview, vec![service("app", "Available", "Healthy")]);
        assert!(!screen.is_fine);
        insta::assert_snapshot!("status_frozen_held", screen.text);
    }

    #[test]
    fn the_engine_is_away() {
        let mut overview = overview(3, 0);
        overview["engine"] =
            json!({"reachable": false, "message": "connect /var/run/docker.sock: connection refused", "since": "2026-11-22T09:57:00Z"});
        overview["sources"][0]["health"] = json!("Unreadable: no such folder");
        let services = ["app", "redis", "vault"].map(|name| service(name, "TemporarilyUnavailable", "EngineUnreachable"));
        let screen = draw(&overview, services.to_vec());
        assert!(!screen.is_fine);
        insta::assert_snapshot!("status_engine_away", screen.text);
    }

    #[test]
    fn what_needs_a_person_says_so() {
        let mut disabled = service("beta", "Available", "Disabled");
        disabled["status"] = json!({"severity": 0, "usable": false, "reason": "Disabled"});
        let services = vec![
            service("bad-image", "Unavailable", "ImageMissing"),
            service("crash", "Unavailable", "CrashLoop"),
            service("port", "TemporarilyUnavailable", "PortTaken"),
            disabled,
            json!({"kind": "MiniService", "metadata": {"name": "fresh", "namespace": "notify"}, "spec": {}}),
        ];
        insta::assert_snapshot!("status_needs_person", draw(&overview(5, 0), services).text);
    }

    #[test]
    fn what_waits_for_a_person_is_not_well() {
        let stalled = json!([{"type": "Stalled", "status": "True", "reason": "RolledBack", "message": "revision 4 failed; 3 runs"}]);
        let mut app = service("app", "Available", "Healthy");
        app["status"]["conditions"] = stalled;
        let empty = json!({
            "kind": "MiniContainer", "metadata": {"name": "workers", "namespace": "notify"},
            "status": {"usable": false, "severity": 5, "reason": "NoChildren", "message": "it owns no mini service"},
        });
        let object = json!({"kind": "Network", "namespace": "notify", "name": "data"});
        let step = json!({"verb": "remove-network", "object": object, "causeText": "superseded", "needsApproval": true, "hash": "0123456789abcdef"});
        let orphan = json!({"verb": "remove", "object": object, "causeText": "orphan", "needsApproval": true, "hash": "fedcba"});
        let (services, others) = (json!({"items": [app]}), [json!({"items": []}), json!({"items": [empty]})]);
        let plan = json!({"steps": [step, orphan]});
        let told = Told { overview: &overview(1, 1), services: &services, others: &others, plan: &plan };
        let screen = Screen::draw(&told, now(), Style::PLAIN);
        assert!(!screen.is_fine);
        insta::assert_snapshot!("status_waits", screen.text);
    }

    #[test]
    fn anything_can_be_drawn() {
        for odd in [json!(null), json!([]), json!({"sources": 3, "frozen": [1, "text", {}], "suspensions": [{}], "engine": []})] {
            assert!(!draw(&odd, vec![json!(null), json!({"status": 3})]).text.is_empty());
        }
    }
}
