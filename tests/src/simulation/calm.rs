//! After the last fault: within a bounded time everything must be as the manifests say, nothing else be left, and nothing be done any more.
//!
//! What must be is computed here from the manifests and the engine alone, without the operator's own planner or graph.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use qm_dockersim::Engine;
use qm_dockersim::Now;
use serde_json::{Value, json};

use super::annex::{self, INIT};
use super::judge::{INSTANCE, Real, ask, containers, fits, is_healthy};
use super::stage::{Stage, because};
use super::town::{Conduct, Id, MISSING_IMAGE, Service, Town};

/// Everything must be right within this time, in milliseconds: budgets have windows of ten minutes, pauses after failures a minute.
const PATIENCE_MS: u64 = 1_500_000;
/// Nothing takes longer than this, in milliseconds, unless a start budget is spent or events were lost: a call that is never answered ends
/// after a minute, and so does the longest pause after a failure. (A pull that brings nothing is given up after five minutes.)
const PROMPT_MS: u64 = 150_000;
/// What was begun for services that need not come up may take so long: a call that is never answered ends after a minute.
const UNDER_WAY_MS: u64 = 300_000;
/// So long a person waits before approving what is held.
const MISTAKES_MS: u64 = 15_000;
/// So long everything must stay right before it counts, in milliseconds.
const STEADY_MS: u64 = 3_000;

/// Waits until all is right, and judges that it stays so. Where the engine's events told the truth it must be right soon; where not, the
/// next listing may be needed.
pub async fn converge(stage: &mut Stage, town: &Town, events_were_true: bool) {
    let calm_since = stage.shared.now().mono_ms;
    let deadline = calm_since + PATIENCE_MS;
    let mut right_since: Option<u64> = None;
    let mut slow = BTreeSet::new();
    let mut was_prompt = false;
    loop {
        if stage.shared.runaway.load(Ordering::Relaxed) {
            return;
        }
        let missing = what_is_wrong(stage, town).await;
        let statuses = statuses(stage);
        slow.extend(slow_ones(town, &statuses));
        annex::report(stage, town).await;
        slow.extend(contested_ones(stage, &statuses));
        let now = stage.shared.now().mono_ms;
        if missing.is_empty() {
            if now - *right_since.get_or_insert(now) >= STEADY_MS {
                break;
            }
        } else {
            right_since = None;
            if now > deadline {
                log_plan(stage).await;
                let mut judge = stage.judge();
                for text in missing.into_iter().take(6) {
                    judge.violation(format!("never right: {text}"));
                }
                return;
            }
            // What is held by mistake comes free by itself when its file is there again.
            if now > calm_since + MISTAKES_MS {
                approve_what_is_held(stage).await;
                annex::help_jobs(stage, town, &statuses).await;
                slow.extend(retry_what_was_rolled_back(stage, town).await);
            }
            if now > calm_since + PROMPT_MS && !was_prompt {
                was_prompt = true;
                if events_were_true {
                    judge_promptness(stage, town, &slow);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(1_000)).await;
    }
    let took_ms = right_since.unwrap_or(calm_since) - calm_since;
    stage.shared.log(&format!("== everything is right after {took_ms} ms of calm"));
    nothing_to_do(stage, town).await;
}

/// What the operator would do and what it waits for: where to look first when it is never right.
async fn log_plan(stage: &mut Stage) {
    let (_, plan) = stage.api("POST", "/quaymaster/v1/plan", Some(json!({}))).await;
    for step in plan["plan"]["steps"].as_array().into_iter().flatten() {
        let object = &step["object"];
        let line = format!(
            "   plan: {} {}/{}.{} {} waits: {}",
            step["verb"], object["namespace"], object["name"], step["slot"], step["causeText"], step["waits"]
        );
        stage.shared.log(&line);
    }
}

/// Services that cannot come up, or are braked, keep those who need them waiting for as long as they are tried; pulls have their own
/// patience.
fn slow_ones(town: &Town, statuses: &BTreeMap<Id, Value>) -> BTreeSet<Id> {
    let is_slow = |id: &Id, s: &Service| {
        let is_braked = statuses.get(id).is_some_and(|status| status["reason"] == "CrashLoop");
        is_braked || s.wanted() > 0 && (!s.is_good() || s.image.starts_with("registry."))
    };
    // So has a job that failed.
    let jobs = town.annexes.keys().map(|namespace| (namespace.clone(), INIT.to_owned()));
    let jobs = jobs.filter(|id| statuses.get(id).is_none_or(|status| status["usable"] != true));
    town.services.iter().filter(|(id, s)| is_slow(id, s)).map(|(id, _)| id.clone()).chain(jobs).collect()
}

/// What somebody changed again and again is left alone for a while. Whoever changed nothing, or once, contests nothing.
fn contested_ones(stage: &Stage, statuses: &BTreeMap<Id, Value>) -> BTreeSet<Id> {
    let contested: BTreeSet<Id> =
        statuses.iter().filter(|(_, status)| has_finding(status, "Contested")).map(|(id, _)| id.clone()).collect();
    let mut judge = stage.judge();
    if judge.by_hand < 2 {
        for (namespace, name) in &contested {
            judge.violation(format!("{namespace}/{name} counts as contested, and nobody changed anything twice"));
        }
    }
    contested
}

fn has_finding(status: &Value, reason: &str) -> bool {
    status["findings"].as_array().into_iter().flatten().filter_map(Value::as_str).any(|f| f.starts_with(reason))
}

/// Whoever needs nobody slow must have his containers by now.
fn judge_promptness(stage: &Stage, town: &Town, slow: &BTreeSet<Id>) {
    let mut slow = slow.clone();
    loop {
        let before = slow.len();
        let needing = town.services.iter().filter(|(_, s)| s.edges.iter().any(|e| slow.contains(&e.on))).map(|(id, _)| id.clone());
        let needing: Vec<Id> = needing.collect();
        slow.extend(needing);
        if slow.len() == before {
            break;
        }
    }
    let now = stage.shared.now();
    let (all, healthy, _) = stage.sim.with(|engine| really(engine, now, town));
    let good = good_ones(town);
    let must_run = |id: &Id| good.contains(id) && !slow.contains(id) && !is_skipped(town, id);
    for (id, service) in town.services.iter().filter(|(id, _)| must_run(id)) {
        let mine: Vec<&Real> = all.iter().filter(|c| c.is_ours() && c.owner() == *id).collect();
        for text in containers_wrong(id, service, true, &mine, &healthy) {
            stage.judge().violation(format!("not right {PROMPT_MS} ms after everything was calm: {text}"));
        }
    }
}

/// What was rolled back because the engine misbehaved is tried again by a person; gives whom that concerns.
async fn retry_what_was_rolled_back(stage: &mut Stage, town: &Town) -> BTreeSet<Id> {
    let is_held = |status: &Value| has_finding(status, "RolledBack") || has_finding(status, "RolloutPaused");
    let held: BTreeSet<Id> = statuses(stage)
        .into_iter()
        .filter(|(id, status)| is_held(status) && town.services.get(id).is_some_and(Service::is_good))
        .map(|(id, _)| id)
        .collect();
    for id in &held {
        stage.act(&format!("/namespaces/{}/miniservices/{}/retry", id.0, id.1), because("the engine was to blame")).await;
    }
    held
}

/// A prune that is held waits for a person: this one says yes, since by now nothing is a mistake.
pub(super) async fn approve_what_is_held(stage: &mut Stage) {
    let (_, overview) = stage.api("GET", "/quaymaster/v1/overview", None).await;
    let held: Vec<String> = overview["sources"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|s| s["pruneHeld"]["stepHash"].as_str().filter(|h| !h.is_empty()).map(str::to_owned))
        .collect();
    for hash in held {
        let mut body = because("meant");
        body["stepHash"] = hash.into();
        stage.act("/actions/approve", body).await;
    }
    approve_breaks(stage).await;
}

/// A person looks at the plan and approves the networks that must be broken.
pub async fn approve_breaks(stage: &mut Stage) {
    let (_, plan) = stage.api("POST", "/quaymaster/v1/plan", Some(json!({}))).await;
    let steps = plan["plan"]["steps"].as_array().into_iter().flatten();
    let asked = steps.filter(|s| s["verb"] == "remove-network" && s["needsApproval"] == true && s["causeText"] != "orphan");
    for step in asked {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let mut body = because("it may break");
        body["stepHash"] = step["hash"].clone();
        // The answer may be lost: approved is what was asked for.
        stage.judge().approved_breaks.insert((text(&step["object"]["namespace"]), text(&step["object"]["name"])));
        stage.act("/actions/approve", body).await;
    }
}

/// A pass of everything makes no call, and the plan has nothing left but what waits.
async fn nothing_to_do(stage: &mut Stage, town: &Town) {
    // Checks by command are calls; only towns without them can be counted.
    let is_quiet = town
        .services
        .values()
        .all(|s| s.check != super::town::Check::Command && matches!(s.conduct, Conduct::Good { .. }) && s.image != MISSING_IMAGE);
    let mut calls = u64::MAX;
    // A relist may come in between; it does not come three times.
    for _ in 0..3 {
        let before = stage.shared.calls.load(Ordering::Relaxed);
        stage.act("/actions/reconcile", because("once more")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        calls = calls.min(stage.shared.calls.load(Ordering::Relaxed) - before);
    }
    if is_quiet && calls > 0 {
        stage.judge().violation(format!("{calls} calls in a pass that has nothing to do"));
    }
    let deadline = stage.shared.now().mono_ms + UNDER_WAY_MS;
    loop {
        let runnable = runnable(stage, town).await;
        if runnable.is_empty() {
            return;
        }
        if stage.shared.now().mono_ms > deadline {
            stage.judge().violation(format!("all is right and still there is to do: {}", runnable.join("; ")));
            return;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

/// Steps that nothing holds back, in words.
async fn runnable(stage: &mut Stage, town: &Town) -> Vec<String> {
    let (_, plan) = stage.api("POST", "/quaymaster/v1/plan", Some(json!({}))).await;
    let steps = plan["plan"]["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|s| s["waits"].as_array().is_none_or(Vec::is_empty) && s["after"].as_array().is_none_or(Vec::is_empty))
        .filter(|s| is_good_object(town, &s["object"]))
        .map(|s| format!("{} {}", s["verb"], s["causeText"]));
    steps.collect()
}

fn is_good_object(town: &Town, object: &Value) -> bool {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    town.services.get(&(text(&object["namespace"]), text(&object["name"]))).is_none_or(Service::is_good)
}

/// What is not as it must be, in words.
async fn what_is_wrong(stage: &mut Stage, town: &Town) -> Vec<String> {
    let now = stage.shared.now();
    let (all, healthy, networks) = stage.sim.with(|engine| really(engine, now, town));
    let mut wrong = Vec::new();
    let left_over = stage.judge().left_over.clone();
    let statuses = statuses(stage);
    let good = good_ones(town);
    for (id, service) in &town.services {
        let mine: Vec<&Real> = all.iter().filter(|c| c.is_ours() && c.owner() == *id).collect();
        let is_skipped = is_skipped(town, id);
        // Who is not to run is left as it is.
        if !is_skipped {
            wrong.extend(containers_wrong(id, service, good.contains(id), &mine, &healthy));
        }
        let running = mine.iter().filter(|c| is_skipped && c.state == "running");
        wrong.extend(running.map(|c| format!("{} runs, and what it needs is off", c.name)));
        match statuses.get(id) {
            None => wrong.push(format!("{}/{} is not in the store", id.0, id.1)),
            Some(status) => wrong.extend(status_wrong(id, service, town, &mine, &healthy, status, &statuses)),
        }
    }
    for container in all.iter().filter(|c| c.is_ours() && c.label("uid") != "orphan") {
        let is_declared = town.services.contains_key(&container.owner()) || town.is_in_annex(&container.owner());
        if !is_declared && !left_over.contains(&container.id) {
            wrong.push(format!("{} is left of a service that is gone", container.name));
        }
    }
    wrong.extend(networks_wrong(town, &all, &networks, &left_over));
    wrong.extend(parents_wrong(stage, town, &statuses));
    wrong.extend(annex::wrong(town, &statuses, |id| good.contains(id) && !is_skipped(town, id)));
    for id in statuses.keys().filter(|id| !town.services.contains_key(*id) && !town.is_in_annex(id)) {
        wrong.push(format!("{}/{} is still in the store", id.0, id.1));
    }
    wrong
}

/// Each mini container is there with its children, and its published availability follows from theirs.
fn parents_wrong(stage: &Stage, town: &Town, statuses: &BTreeMap<Id, Value>) -> Vec<String> {
    let Some(store) = stage.store() else { return Vec::new() };
    let snapshot = store.snapshot();
    let mut wrong = Vec::new();
    let wanted = town.parents();
    for object in snapshot.list("MiniContainer", None) {
        let id = (object.key.namespace.to_string(), object.key.name.to_string());
        let Some(children) = wanted.get(&id) else {
            wrong.push(format!("the mini container {}/{} is still in the store", id.0, id.1));
            continue;
        };
        let owns = |o: &&std::sync::Arc<qm_api::meta::Object>| o.meta.owner_references.iter().any(|owner| owner.uid == object.meta.uid);
        let owned: BTreeSet<Id> =
            snapshot.list("MiniService", None).filter(owns).map(|o| (o.key.namespace.to_string(), o.key.name.to_string())).collect();
        if owned != *children {
            wrong.push(format!("{}/{} owns {owned:?}, should own {children:?}", id.0, id.1));
        }
        let enabled: Vec<&Value> = children.iter().filter_map(|c| statuses.get(c)).filter(|s| s["availability"].is_string()).collect();
        let (usable, well) =
            (enabled.iter().filter(|s| s["usable"] == true).count(), enabled.iter().filter(|s| s["severity"] == 1).count());
        let expected = match enabled.len() {
            0 => 3,
            n if well == n => 1,
            n if usable == n => 2,
            _ if usable > 0 => 3,
            _ => 4,
        };
        let status = &object.status;
        if status["severity"] != expected || status["children"]["total"] != children.len() {
            let (severity, message) = (&status["severity"], &status["message"]);
            wrong.push(format!("the mini container {}/{} is {severity} ({message}), should be {expected}", id.0, id.1));
        }
    }
    let found = snapshot.list("MiniContainer", None).count();
    if found != wanted.len() {
        wrong.push(format!("{found} mini containers, should be {}", wanted.len()));
    }
    wrong
}

fn really(engine: &mut Engine, now: Now, town: &Town) -> (Vec<Real>, BTreeSet<String>, Value) {
    let mut all = containers(engine, now);
    for container in all.iter_mut().filter(|c| c.is_ours()) {
        container.inspect(engine, now);
        if let Some(service) = town.services.get(&container.owner()) {
            let (_, image) = ask(engine, now, "GET", &format!("/images/{}/json", service.image), &[], &Value::Null);
            container.image_ids.1 = image["Id"].as_str().unwrap_or_default().to_owned();
        }
    }
    let healthy = all
        .iter()
        .filter(|c| c.is_ours())
        .filter(|c| town.services.get(&c.owner()).is_some_and(|s| is_healthy(engine, now, s, c)))
        .map(|c| c.id.clone())
        .collect();
    let (_, networks) = ask(engine, now, "GET", "/networks", &[], &Value::Null);
    // Later ones of one network have other names: whoever is in the one that is wanted now is in it under its first name.
    for container in &mut all {
        container.networks =
            std::mem::take(&mut container.networks).into_iter().map(|(name, ip)| (plain(town, &networks, &name), ip)).collect();
    }
    (all, healthy, networks)
}

fn statuses(stage: &Stage) -> BTreeMap<Id, Value> {
    let Some(store) = stage.store() else { return BTreeMap::new() };
    let snapshot = store.snapshot();
    let objects = snapshot.list("MiniService", None);
    objects.map(|o| ((o.key.namespace.to_string(), o.key.name.to_string()), (*o.status).clone())).collect()
}

/// Services that must come up: they are good themselves, and so is everything that their start waits for.
fn good_ones(town: &Town) -> BTreeSet<Id> {
    let mut good: BTreeSet<Id> = town.services.iter().filter(|(_, s)| s.is_good()).map(|(id, _)| id.clone()).collect();
    loop {
        let before = good.len();
        let keep = |id: &Id| {
            town.services[id].edges.iter().filter(|e| e.gate() == "Wait" || e.on_down == "Stop").all(|e| {
                // One that is off, or not there, holds nobody who does not need it; those who do are skipped.
                town.services.get(&e.on).is_none_or(|on| on.wanted() == 0 || can_be_usable(town, &e.on, &good))
            })
        };
        let kept: BTreeSet<Id> = good.iter().filter(|id| keep(id)).cloned().collect();
        good = kept;
        if good.len() == before {
            return good;
        }
    }
}

fn can_be_usable(town: &Town, id: &Id, good: &BTreeSet<Id>) -> bool {
    good.contains(id)
        && town.services[id]
            .edges
            .iter()
            .filter(|e| matches!(e.on_down, "Block" | "Stop"))
            .all(|e| town.services.get(&e.on).is_none_or(|on| on.wanted() > 0 && can_be_usable(town, &e.on, good)))
}

fn is_skipped(town: &Town, id: &Id) -> bool {
    town.services[id].edges.iter().any(|e| {
        matches!(e.on_down, "Block" | "Stop") && town.services.get(&e.on).is_some_and(|on| on.wanted() == 0 || is_skipped(town, &e.on))
    })
}

fn containers_wrong(id: &Id, service: &Service, must_run: bool, mine: &[&Real], healthy: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = format!("{}/{}", id.0, id.1);
    for container in mine.iter().filter(|c| c.slot() == 0 || c.slot() > service.wanted()) {
        wrong.push(format!("{name}: {} is too much", container.name));
    }
    for slot in 1..=service.wanted() {
        let of_slot: Vec<&&Real> = mine.iter().filter(|c| c.slot() == slot).collect();
        if !must_run {
            continue;
        }
        let [container] = of_slot.as_slice() else {
            wrong.push(format!("{name}: slot {slot} has {} containers", of_slot.len()));
            continue;
        };
        let canonical = format!("{}-{}-{slot}", id.0, id.1);
        if container.name != canonical {
            wrong.push(format!("{name}: {} should be called {canonical}", container.name));
        }
        if !healthy.contains(&container.id) {
            wrong.push(format!("{name}: {} is {} and not healthy", container.name, container.state));
        }
        let wanted: BTreeSet<String> = match service.networks.is_empty() {
            true => BTreeSet::from([format!("{}_default", id.0)]),
            false => service.networks.iter().map(|n| format!("{}_{n}", id.0)).collect(),
        };
        let found: BTreeSet<String> = container.networks.keys().cloned().collect();
        if wanted != found {
            wrong.push(format!("{name}: {} is in {found:?}, should be in {wanted:?}", container.name));
        }
        if !container.env.contains(&format!("V={}", service.env)) {
            wrong.push(format!("{name}: {} has the environment {:?}, should have V={}", container.name, container.env, service.env));
        }
        if container.has_config != service.has_config {
            wrong.push(format!("{name}: {} has its file: {}", container.name, container.has_config));
        }
        // Another name of the same image is the same image.
        let is_same = container.image_ids.0 == container.image_ids.1;
        if container.image != service.image && !container.image.starts_with("sha256:") && !is_same {
            wrong.push(format!("{name}: {} is made from {}, should be from {}", container.name, container.image, service.image));
        }
        if container.memory != service.memory_mib.unwrap_or(0) << 20 {
            wrong.push(format!("{name}: {} may use {} bytes, should be {:?} MiB", container.name, container.memory, service.memory_mib));
        }
    }
    wrong
}

/// The published availability follows from what really is, and from the published availability of the dependencies.
fn status_wrong(
    id: &Id,
    service: &Service,
    town: &Town,
    mine: &[&Real],
    healthy: &BTreeSet<String>,
    status: &Value,
    statuses: &BTreeMap<Id, Value>,
) -> Vec<String> {
    let name = format!("{}/{}", id.0, id.1);
    let mut wrong = Vec::new();
    let severity = status["severity"].as_u64();
    if service.wanted() == 0 || is_skipped(town, id) {
        if severity.is_some_and(|s| s > 0) && status["availability"].is_string() {
            wrong.push(format!("{name} is off and its status says {}", status["availability"]));
        }
        return wrong;
    }
    // What ends again and again is nothing that a single look can judge, except that it is not as it should be.
    if let Conduct::Crashes { after_ms } = service.conduct {
        // An old replica that serves still says more than that the new ones do not; where all are old ones, the update was rolled back.
        let serving = (1..=service.wanted()).filter(|slot| mine.iter().any(|c| c.slot() == *slot && healthy.contains(&c.id))).count();
        let some_serve = status["reason"] == "SomeReplicasHealthy" && serving > 0;
        let all_serve = status["reason"] == "Healthy" && serving == service.wanted() as usize;
        let is_told = status["reason"] == "CrashLoop" || some_serve || all_serve;
        if after_ms < 4_000 && service.image != MISSING_IMAGE && !is_told && gates_open(service, statuses) {
            wrong.push(format!("{name} crashes, and its status says {} {}", status["availability"], status["reason"]));
        }
        return wrong;
    }
    let count = (1..=service.wanted()).filter(|slot| mine.iter().any(|c| c.slot() == *slot && healthy.contains(&c.id))).count() as u64;
    let own = match count {
        n if n == u64::from(service.wanted()) => 1,
        0 => 4,
        _ => 3,
    };
    let mut expected = own;
    for edge in &service.edges {
        let usable = statuses.get(&edge.on).is_some_and(|s| s["usable"] == true);
        let is_off = town.services.get(&edge.on).is_some_and(|on| on.wanted() == 0)
            || statuses.get(&edge.on).is_some_and(|s| s["availability"].is_null());
        if usable || is_off {
            continue;
        }
        let contributes = match edge.on_down {
            "Block" | "Stop" => 4,
            "Degrade" => 3,
            _ => 1,
        };
        expected = expected.max(contributes);
    }
    let fits = severity == Some(expected) || (expected == 4 && severity == Some(5));
    if !fits {
        wrong.push(format!("{name} is {severity:?} ({}: {}), should be {expected}", status["reason"], status["message"]));
    }
    if status["stale"] == true {
        wrong.push(format!("{name} is stale"));
    }
    wrong
}

fn gates_open(service: &Service, statuses: &BTreeMap<Id, Value>) -> bool {
    service.edges.iter().all(|e| e.gate() != "Wait" || statuses.get(&e.on).is_some_and(|s| s["usable"] == true))
}

/// The first name of a network of ours that is as it is wanted now; any other network keeps its own.
fn plain(town: &Town, networks: &Value, name: &str) -> String {
    let found = networks.as_array().into_iter().flatten().find(|n| n["Name"] == name && n["Labels"]["quaymaster.dev/instance"] == INSTANCE);
    match found {
        Some(network) if fits(town, network) => {
            let label = |key: &str| network["Labels"][format!("quaymaster.dev/{key}")].as_str().unwrap_or_default().to_owned();
            format!("{}_{}", label("namespace"), label("name"))
        }
        _ => name.to_owned(),
    }
}

fn networks_wrong(town: &Town, all: &[Real], networks: &Value, left_over: &BTreeSet<String>) -> Vec<String> {
    let mut wanted: BTreeSet<String> = town.networks.keys().map(|(ns, n)| format!("{ns}_{n}")).collect();
    wanted.extend(town.services.iter().filter(|(_, s)| s.networks.is_empty()).map(|((ns, _), _)| format!("{ns}_default")));
    wanted.extend(town.annexes.keys().filter(|ns| town.has_services(ns)).map(|ns| format!("{ns}_default")));
    let is_ours = |n: &&Value| n["Labels"]["quaymaster.dev/instance"] == INSTANCE;
    // An orphan that nobody removes keeps the network that it is in.
    let is_orphan = |c: &&Real| left_over.contains(&c.id) && !town.services.contains_key(&c.owner());
    let is_held = |n: &Value| {
        let name = n["Name"].as_str().unwrap_or_default();
        !fits(town, n) && all.iter().filter(is_orphan).any(|c| c.networks.contains_key(name))
    };
    let mut found: Vec<String> = networks
        .as_array()
        .into_iter()
        .flatten()
        .filter(is_ours)
        .filter(|n| !is_held(n))
        .map(|n| plain(town, networks, n["Name"].as_str().unwrap_or_default()))
        .collect();
    found.sort();
    found.retain(|name| wanted.contains(name) || !left_over.contains(name));
    let expected: Vec<String> = wanted.into_iter().collect();
    if found == expected { Vec::new() } else { vec![format!("the networks are {found:?}, should be {expected:?}")] }
}
