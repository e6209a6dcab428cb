//! What some towns have beside services with containers: something outside that is probed, a part that an app reports for, and a job; with
//! the rules that hold for them, and for edges to them, at every moment.
//!
//! All of it is drawn apart from the rest of a town.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use qm_dockersim::{Engine, Now};
use serde_json::{Value, json};

use super::judge::{Real, ask, containers};
use super::rng::Rng;
use super::stage::{Stage, because};
use super::town::{Edge, IMAGE, Id, Town};

/// What is outside.
pub const OUTSIDE: &str = "outside";
/// The part.
pub const PART: &str = "part";
/// The job.
pub const INIT: &str = "init";

/// How what is outside is called in the network, before its namespace.
const HOST: &str = "outside-";
/// When the probes must have told that it went, or came, in milliseconds: two failures 2 s apart, their time-outs, and some time.
const PROBED_MS: u64 = 20_000;
/// How long a dependency may be down, after what is tolerated, until those who need it are so too, in milliseconds: they are looked at once
/// a second.
const TOLD_MS: u64 = 3_000;

/// The annex of a namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Annex {
    /// How the part depends on what is outside.
    pub edge: Edge,
    /// The input of the job.
    pub input: u64,
    /// How long its container takes, in seconds.
    pub takes_s: u64,
}

impl Annex {
    /// Draws one.
    pub fn draw(rng: &mut Rng, namespace: &str) -> Self {
        let edge = super::town::draw_edge(rng, (namespace.to_owned(), OUTSIDE.to_owned()));
        Self { edge: of_a_part(edge), input: rng.below(3), takes_s: rng.below(20) }
    }

    /// Changes it; says what.
    pub fn change(&mut self, rng: &mut Rng) -> String {
        if rng.chance(60) {
            // Now and then it comes back to what it was.
            self.input = rng.below(4);
            return format!("input of the job: {}", self.input);
        }
        self.edge = of_a_part(super::town::draw_edge(rng, self.edge.on.clone()));
        format!("edge of the part: {:?}", self.edge)
    }

    /// The documents of it.
    pub fn documents(&self, reporter: Option<&str>) -> Vec<(&'static str, Value)> {
        let on = &self.edge.on.0;
        let outside = json!({ "external": {
            "probe": { "tcp": { "host": format!("{HOST}{on}"), "port": 7000 } }, "interval": "2s", "timeout": "1s", "failureThreshold": 2,
        }});
        let job = json!({ "job": { "container": {
            "image": IMAGE, "command": ["sh", "-c", format!("sleep {}; echo done", self.takes_s)], "env": { "V": self.input.to_string() },
        }}});
        let part = reporter.map(|reporter| {
            let edge = super::town::edge_json(&self.edge, on);
            (PART, json!({ "logical": { "reportedBy": reporter, "heartbeat": "5s" }, "dependsOn": [edge] }))
        });
        [(OUTSIDE, outside), (INIT, job)].into_iter().chain(part).collect()
    }
}

/// A part has no container to stop, and the plain verb is all that its app is told.
fn of_a_part(mut edge: Edge) -> Edge {
    if edge.on_down == "Stop" {
        edge.on_down = "Block";
    }
    edge.change = None;
    edge.up = edge.up.map(|_| "Signal");
    edge
}

/// Who is there outside.
#[derive(Debug, Default)]
pub struct Outside(Mutex<BTreeSet<String>>);

impl Outside {
    /// Whether this host is there; `None` = it is none of these.
    pub fn accepts(&self, host: &str) -> Option<bool> {
        let namespace = host.strip_prefix(HOST)?;
        Some(!self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(namespace))
    }

    fn set(&self, namespace: &str, is_down: bool) {
        let mut down = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = if is_down { down.insert(namespace.to_owned()) } else { down.remove(namespace) };
    }
}

/// What the judge remembers of the annexes.
#[derive(Debug, Default)]
pub struct Annexes {
    /// Since when what is outside of a namespace has been as it is.
    outside: BTreeMap<String, (bool, u64)>,
    /// How often what is outside came back.
    returns: BTreeMap<String, usize>,
    /// The reloads that each part was told.
    told: BTreeMap<String, BTreeSet<String>>,
    /// Inputs with which each job was seen to succeed.
    done: BTreeSet<(String, String)>,
    /// The beginnings of names of runs that were seen to succeed.
    succeeded: BTreeSet<(String, String)>,
    /// Since when each service has been seen not to be usable, and since when it says so: between two looks it may have been well.
    bad_since: BTreeMap<Id, (u64, String)>,
}

impl Annexes {
    /// What is outside goes, or comes back.
    pub fn turn(&mut self, namespace: &str, is_down: bool, now: Now) {
        let was_down = self.outside.get(namespace).is_some_and(|(down, _)| *down);
        if was_down != is_down {
            self.outside.insert(namespace.to_owned(), (is_down, now.mono_ms));
            *self.returns.entry(namespace.to_owned()).or_default() += usize::from(was_down);
        }
    }

    /// What is outside and has gone, by namespace.
    pub fn gone(&self) -> Vec<String> {
        self.outside.iter().filter(|(_, (is_down, _))| *is_down).map(|(namespace, _)| namespace.clone()).collect()
    }

    /// A person lets a job run once more, or nobody knows any more what was run.
    pub fn may_run_again(&mut self, namespace: Option<&str>) {
        self.succeeded.retain(|(of, _)| namespace.is_some_and(|namespace| of != namespace));
    }

    /// A new operator has seen nothing yet.
    pub fn booted(&mut self) {
        self.bad_since.clear();
    }

    /// What of an annex a start may wait for is there: `None` = it is no node of an annex.
    pub fn is_there(&self, town: &Town, id: &Id, within_ms: u64, now: Now) -> Option<bool> {
        let annex = town.annexes.get(&id.0)?;
        match id.1.as_str() {
            OUTSIDE => {
                let (is_down, since) = self.outside.get(&id.0).copied().unwrap_or_default();
                Some(!is_down || since + within_ms >= now.mono_ms)
            }
            INIT => Some(self.done.contains(&(id.0.clone(), annex.input.to_string()))),
            _ => None,
        }
    }

    /// Looks at the containers of jobs.
    pub fn look(&mut self, engine: &mut Engine, all: &[Real], now: Now) {
        for container in all.iter().filter(|c| is_of_job(c) && c.state == "exited") {
            let (_, found) = ask(engine, now, "GET", &format!("/containers/{}/json", container.id), &[], &Value::Null);
            if found["State"]["ExitCode"] != 0 || found["State"]["StartedAt"].as_str().is_none_or(|at| at.starts_with("0001")) {
                continue;
            }
            let env = found["Config"]["Env"].as_array().into_iter().flatten();
            let input = env.filter_map(Value::as_str).find_map(|e| e.strip_prefix("V=")).unwrap_or_default().to_owned();
            self.done.insert((container.owner().0, input));
            self.succeeded.insert((container.owner().0, base(container)));
        }
    }

    /// Before a container of a job is started: what is wrong about it.
    pub fn before_start(&self, container: &Real, all: &[Real]) -> Option<String> {
        if !is_of_job(container) {
            return None;
        }
        let namespace = container.owner().0;
        if let Some(other) = all.iter().find(|c| is_of_job(c) && c.owner().0 == namespace && c.id != container.id && c.state == "running") {
            return Some(format!("the job of {namespace} is started while {} runs", other.name));
        }
        self.succeeded
            .contains(&(namespace.clone(), base(container)))
            .then(|| format!("the job of {namespace} is run again for an input that succeeded"))
    }

    /// Judges what the operator tells of everybody at this moment.
    pub fn judge(&mut self, told: &BTreeMap<Id, Told>, town: &Town, booted_ms: u64, now: Now) -> Vec<String> {
        let mut wrong = Vec::new();
        for (id, of) in told {
            let is_the_same = self.bad_since.get(id).is_some_and(|(_, since)| *since == of.since);
            if of.is_usable {
                self.bad_since.remove(id);
            } else if !is_the_same {
                self.bad_since.insert(id.clone(), (now.mono_ms, of.since.clone()));
            }
        }
        for (id, of) in told {
            let name = format!("{}/{}", id.0, id.1);
            for edge in of.edges.iter().filter(|e| of.is_usable && matches!(e.on_down.as_str(), "Block" | "Stop")) {
                let since = self.bad_since.get(&edge.on).map_or(now.mono_ms, |(since, _)| *since);
                let for_ms = now.mono_ms - since;
                if for_ms > edge.tolerate_ms + TOLD_MS {
                    wrong.push(format!(
                        "{name} is usable although it needs {}/{}, which has been down for {for_ms} ms",
                        edge.on.0, edge.on.1
                    ));
                }
            }
            for hop in &of.blocked_through {
                let is_meant = |e: &&EdgeTold| e.on.1 == *hop && e.on_down != "Ignore";
                if !of.is_usable && !of.edges.iter().any(|e| is_meant(&e)) {
                    wrong.push(format!("{name} is blocked through {hop}, and no edge to it blocks"));
                }
            }
        }
        for (namespace, (is_down, since)) in &self.outside {
            let Some(of) = told.get(&(namespace.clone(), OUTSIDE.to_owned())) else { continue };
            let is_known = now.mono_ms >= since.max(&booted_ms) + PROBED_MS && town.annexes.contains_key(namespace);
            if is_known && of.is_usable == *is_down {
                wrong
                    .push(format!("{namespace}/{OUTSIDE} is down: {is_down}, since {since} ms, and it counts as usable: {}", of.is_usable));
            }
        }
        wrong
    }
}

fn is_of_job(container: &Real) -> bool {
    container.is_ours() && container.owner().1 == INIT
}

/// The input's digest in the name of a run, with the step.
fn base(container: &Real) -> String {
    let run = container.label("run");
    format!("{}/{}", run.split('-').next().unwrap_or_default(), container.label("step"))
}

/// An edge as the operator has taken it in.
#[derive(Clone, Debug)]
pub struct EdgeTold {
    on: Id,
    on_down: String,
    tolerate_ms: u64,
}

/// What the operator tells of a service.
#[derive(Clone, Debug)]
pub struct Told {
    /// Whether its availability is 3 or better. Locks are another matter.
    is_usable: bool,
    /// Somebody changes it.
    is_changing: bool,
    /// Since when it is as it is, as its status says.
    since: String,
    /// The first names on the paths to culprits.
    blocked_through: Vec<String>,
    edges: Vec<EdgeTold>,
}

impl Told {
    /// Whether callers are let in.
    pub fn may_be_used(&self) -> bool {
        self.is_usable && !self.is_changing
    }
}

/// What the operator tells of all services now.
pub fn told(stage: &Stage) -> BTreeMap<Id, Told> {
    let (Some(store), Some(operator)) = (stage.store(), stage.operator()) else { return BTreeMap::new() };
    let snapshot = store.snapshot();
    let mut specs: BTreeMap<Id, (Vec<EdgeTold>, String)> = BTreeMap::new();
    for object in snapshot.list("MiniService", None) {
        let id = (object.key.namespace.to_string(), object.key.name.to_string());
        let edges = object.spec["dependsOn"].as_array().into_iter().flatten().map(|edge| read_edge(edge, &id.0)).collect();
        specs.insert(id, (edges, object.status["since"].as_str().unwrap_or_default().to_owned()));
    }
    let mut told = BTreeMap::new();
    let namespaces: BTreeSet<String> = specs.keys().map(|(namespace, _)| namespace.clone()).collect();
    for namespace in namespaces {
        for answer in operator.usable_all(&namespace).1 {
            let facts: Value = serde_json::from_str(&answer.facts).unwrap_or_default();
            let id = (namespace.clone(), answer.service.to_string());
            // Mini containers have no edges of their own, and what was only just written is not counted yet.
            let Some((edges, since)) = specs.get(&id).cloned() else { continue };
            let is_usable = facts["availability"].is_string() && facts["severity"].as_u64().is_some_and(|s| (1..=3).contains(&s));
            let hops = facts["blockedBy"].as_array().into_iter().flatten().filter_map(|c| c["path"][0].as_str());
            let blocked_through = hops.map(str::to_owned).collect();
            told.insert(id, Told { is_usable, is_changing: facts["reason"] == "Changing", since, blocked_through, edges });
        }
    }
    told
}

fn read_edge(edge: &Value, namespace: &str) -> EdgeTold {
    let text = |key: &str| edge[key].as_str().unwrap_or_default().to_owned();
    let on_down = if text("onDown").is_empty() { "Block".to_owned() } else { text("onDown") };
    let seconds = text("tolerate").trim_end_matches('s').parse().ok();
    let tolerate_ms = 1_000 * seconds.unwrap_or(if on_down == "Stop" { 30 } else { 0 });
    let of = if text("namespace").is_empty() { namespace.to_owned() } else { text("namespace") };
    EdgeTold { on: (of, text("service")), on_down, tolerate_ms }
}

/// What is outside of a namespace goes, or comes back.
pub fn turn(stage: &mut Stage, namespace: &str, is_down: bool) {
    let now = stage.shared.now();
    stage.shared.outside.set(namespace, is_down);
    stage.shared.log(&format!("== {HOST}{namespace} {}", if is_down { "goes" } else { "is there" }));
    let mut judge = stage.judge();
    judge.annexes.turn(namespace, is_down, now);
    judge.stirs.changed(&(namespace.to_owned(), OUTSIDE.to_owned()), now);
}

/// The apps of the parts report, as long as a container of theirs runs.
pub async fn report(stage: &mut Stage, town: &Town) {
    if town.annexes.is_empty() {
        return;
    }
    let now = stage.shared.now();
    let all = stage.sim.with(|engine| containers(engine, now));
    let running: BTreeSet<Id> = all.iter().filter(|c| c.is_ours() && c.state == "running").map(Real::owner).collect();
    for (namespace, annex) in &town.annexes {
        let Some(reporter) = town.reporter(namespace) else { continue };
        if !stage.runs() || !running.contains(&(namespace.clone(), reporter.to_owned())) {
            continue;
        }
        let mut mood = Rng::new(stage.shared.now().mono_ms).fork("mood");
        let availability = if mood.chance(90) || stage.is_calm { "Available" } else { "AlmostAvailable" };
        let body = json!({ "availability": availability, "ack": stage.acks.remove(namespace) });
        let (status, answer) = stage.api("POST", &format!("/heartbeat/{namespace}/{PART}"), Some(body)).await;
        let Some(reload) = answer["reload"]["id"].as_str().filter(|_| status == 200) else { continue };
        stage.acks.insert(namespace.clone(), reload.to_owned());
        let mut judge = stage.judge();
        let annexes = &mut judge.annexes;
        let told = annexes.told.entry(namespace.clone()).or_default();
        told.insert(reload.to_owned());
        let (told, returns) = (told.len(), annexes.returns.get(namespace).copied().unwrap_or_default());
        if told > returns {
            judge.violation(format!("the part of {namespace} is told {told} reloads after {returns} returns (its edge: {:?})", annex.edge));
        }
    }
}

/// A person looks at jobs that wait for one: lets those run whose outcome nobody knows, and tries again those that have failed.
pub async fn help_jobs(stage: &mut Stage, town: &Town, statuses: &BTreeMap<Id, Value>) {
    let (_, plan) = stage.api("POST", "/quaymaster/v1/plan", Some(json!({}))).await;
    let is_of_job = |s: &&Value| s["object"]["name"] == INIT && s["needsApproval"] == true;
    let asked: Vec<&Value> = plan["plan"]["steps"].as_array().into_iter().flatten().filter(is_of_job).collect();
    for step in asked {
        let mut body = because("it may run again");
        body["stepHash"] = step["hash"].clone();
        // The answer may be lost: allowed is what was asked for.
        stage.judge().annexes.may_run_again(step["object"]["namespace"].as_str());
        stage.act("/actions/approve", body).await;
    }
    for namespace in town.annexes.keys() {
        let failed = statuses.get(&(namespace.clone(), INIT.to_owned())).is_some_and(|status| status["severity"] == 5);
        if failed {
            stage.act(&format!("/namespaces/{namespace}/miniservices/{INIT}/retry"), because("again")).await;
        }
    }
}

/// How the nodes of annexes must be when all is calm, in words.
///
/// `runs` = whether the containers of a service must be up and stay so.
pub fn wrong(town: &Town, statuses: &BTreeMap<Id, Value>, runs: impl Fn(&Id) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for namespace in town.annexes.keys().filter(|namespace| town.has_services(namespace)) {
        let severity = |name: &str| statuses.get(&(namespace.clone(), name.to_owned())).and_then(|status| status["severity"].as_u64());
        for name in [OUTSIDE, INIT] {
            if severity(name) != Some(1) {
                let status = statuses.get(&(namespace.clone(), name.to_owned()));
                let said = status.map(|s| format!("{}: {}", s["reason"], s["message"])).unwrap_or_default();
                wrong.push(format!("{namespace}/{name} is {:?} ({said}), should be 1", severity(name)));
            }
        }
        // An app that comes and goes reports when it can.
        let reporter = town.reporter(namespace).map(|name| (namespace.clone(), name.to_owned()));
        if reporter.is_some_and(|reporter| runs(&reporter)) && severity(PART) != Some(1) {
            wrong.push(format!("{namespace}/{PART} is {:?}, should be 1", severity(PART)));
        }
    }
    wrong
}
