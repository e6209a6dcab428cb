//! The operator killed on either side of every single write of a transition of a whole platform, and started again: the same end, nothing
//! left over, nothing left to do. The example `platform`, in virtual time; five services on a real engine are in `scenarios/kill_points.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::calm;
use super::judge::{ask, containers};
use super::stage::{Stage, because};
use super::town::{IMAGE, OTHER_IMAGE};

/// Everything must be as wanted within this virtual time, in milliseconds.
const PATIENCE_MS: u64 = 1_200_000;
/// More writes than any transition needs.
const MOST_WRITES: u64 = 2_000;

/// Files by their path in the folder.
pub type Files = BTreeMap<String, String>;

/// From one set of manifests to another.
#[derive(Clone, Debug)]
pub struct Transition {
    /// What it is.
    pub name: &'static str,
    before: Files,
    after: Files,
}

/// Where in a transition the operator dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// At the n-th write; from 1.
    pub write: u64,
    /// The write takes effect first.
    pub after: bool,
}

/// All transitions of a platform: from nothing, to another image in both orders, to other networks beside the old ones and in their place,
/// and to nothing.
pub fn transitions(platform: &Files) -> Vec<Transition> {
    // One document stays, in a namespace of its own: this is no folder emptied by mistake.
    let rest = json!({
        "apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniService", "metadata": { "name": "rest", "namespace": "other" },
        "spec": { "container": { "image": IMAGE, "command": ["serve"] } },
    });
    let rest: Files = BTreeMap::from([("other.yaml".to_owned(), rest.to_string())]);
    // The simulated shell runs no scripts from files and writes none: what looks for such a file is content with less.
    let platform = &edit(platform, |_, text| {
        let steps = ["migrate-postgres", "index-mongo", "declare-queues", "make-buckets"];
        let text = steps.iter().fold(text, |text, step| text.replace(&format!("[sh, /srv/init.sh, {step}]"), "[\"true\"]"));
        text.replace("[test, -f, /tmp/done]", "[\"true\"]").replace("[test, -f, /tmp/alive]", "[\"true\"]")
    });
    let with_rest = |files: Files| -> Files { files.into_iter().chain(rest.clone()).collect() };
    let both_orders = edit(platform, |path, text| {
        let starts_first = path.starts_with("apps/") || path.starts_with("monitoring/");
        if starts_first { text.replace("\n    init: true\n", "\n    init: true\n    update: {order: StartFirst}\n") } else { text }
    });
    let other_image = edit(&both_orders, |_, text| text.replace(IMAGE, OTHER_IMAGE));
    let range = |range: &str| {
        edit(platform, |path, text| match path {
            "networks.yaml" => text.replacen("spec: {internal: true, ", &format!("spec: {{internal: true, subnet: {range}, "), 1),
            _ => text,
        })
    };
    let whole = || with_rest(platform.clone());
    vec![
        Transition { name: "deploy", before: rest.clone(), after: whole() },
        Transition { name: "image", before: with_rest(both_orders), after: with_rest(other_image) },
        Transition { name: "network-beside", before: with_rest(range("10.76.0.0/24")), after: with_rest(range("10.77.0.0/24")) },
        Transition { name: "network-broken", before: with_rest(range("10.76.0.0/24")), after: with_rest(range("10.76.0.0/22")) },
        Transition { name: "delete", before: whole(), after: rest },
    ]
}

fn edit(files: &Files, change: impl Fn(&str, String) -> String) -> Files {
    files.iter().map(|(path, text)| (path.clone(), change(path, text.clone()))).collect()
}

/// Plays one transition with the operator killed at a point, or at none; says how many writes it took and what is wrong at the end.
///
/// # Errors
/// What is wrong at the end, in words.
pub async fn play(transition: &Transition, point: Option<Point>) -> Result<u64, String> {
    let mut stage = Stage::new(1, false);
    let engine = stage.sim.clone();
    let engine = tokio::spawn(async move { engine.run().await });
    stage.write(&transition.before);
    stage.boot();
    let result = async {
        arrive(&mut stage, &transition.before).await.map_err(|wrong| format!("before it began: {wrong}"))?;
        stage.set_trap(point.map_or(MOST_WRITES, |p| p.write), point.is_some_and(|p| p.after));
        stage.write(&transition.after);
        arrive(&mut stage, &transition.after).await?;
        Ok(MOST_WRITES - stage.writes_to_trap().unwrap_or(MOST_WRITES))
    };
    let result = result.await;
    engine.abort();
    result
}

/// Waits until all is as wanted, then shows that nothing is left to do. An operator that dies on the way is started again.
async fn arrive(stage: &mut Stage, files: &Files) -> Result<(), String> {
    let deadline = stage.shared.now().mono_ms + PATIENCE_MS;
    loop {
        tokio::select! {
            biased;
            () = stage.crashed() => {
                stage.kill(false);
                tokio::time::sleep(Duration::from_secs(1)).await;
                stage.boot();
            }
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        if !stage.runs() {
            continue;
        }
        calm::approve_what_is_held(stage).await;
        let wrong = wrong(stage, files).await;
        if wrong.is_empty() {
            return Ok(());
        }
        if stage.shared.now().mono_ms > deadline {
            return Err(wrong.into_iter().take(5).collect::<Vec<_>>().join("; "));
        }
    }
}

/// What is not as the files say, in words: judged from the engine and the published statuses.
async fn wrong(stage: &mut Stage, files: &Files) -> Vec<String> {
    let Some(store) = stage.store() else { return vec!["no operator".to_owned()] };
    let snapshot = store.snapshot();
    let mut wrong = Vec::new();
    let declared =
        |kind: &str| files.values().map(|t| t.matches(&format!("kind: {kind}\n")).count()).sum::<usize>() + json_documents(files, kind);
    let mut names = BTreeSet::new();
    let (mut services, mut unready) = (0, Vec::new());
    for object in snapshot.list("MiniService", None) {
        services += 1;
        let is =
            |kind: &str| object.status["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True");
        let is_current = object.status["observedGeneration"] == object.meta.generation;
        if !(is("Ready") && is("Usable") && is_current) {
            unready.push(format!("{} {}: {}", object.key.name, object.status["reason"], object.status["message"]));
        }
        // A job that has succeeded has no container.
        let is_job = object.spec["job"].is_object();
        let container = if is_job { &object.spec["job"]["container"] } else { &object.spec["container"] };
        let replicas = if is_job { 0 } else { container["replicas"].as_u64().unwrap_or(1) };
        names.extend((1..=replicas).map(|slot| format!("{}-{}-{slot}", object.key.namespace, object.key.name)));
        let image = container["image"].as_str().unwrap_or_default();
        if !files.values().any(|text| text.contains(image)) {
            wrong.push(format!("{} still wants {image}", object.key));
        }
    }
    if services != declared("MiniService") || !unready.is_empty() {
        wrong.push(format!("{services} services of {}, not ready: {unready:?}", declared("MiniService")));
    }
    let now = stage.shared.now();
    let (found, networks) = stage.sim.with(|engine| {
        let mut found = containers(engine, now);
        found.retain(super::judge::Real::is_ours);
        found.iter_mut().for_each(|c| c.inspect(engine, now));
        (found, ask(engine, now, "GET", "/networks", &[], &Value::Null).1)
    });
    let found_names: BTreeSet<String> = found.iter().map(|c| c.name.clone()).collect();
    if found_names != names || found.len() != names.len() {
        let differ: Vec<&String> = found_names.symmetric_difference(&names).collect();
        wrong.push(format!("{} containers, should be {}: {differ:?}", found.len(), names.len()));
    }
    for container in &found {
        let is_wanted = files.values().any(|text| text.contains(&container.image));
        if container.state != "running" || !is_wanted {
            wrong.push(format!("{} is {} and made from {}", container.name, container.state, container.image));
        }
    }
    let ours: Vec<&Value> =
        networks.as_array().into_iter().flatten().filter(|n| n["Labels"]["quaymaster.dev/instance"] == super::judge::INSTANCE).collect();
    // The service that stays is in the implicit network of its namespace.
    if ours.len() != declared("Network") + 1 {
        wrong.push(format!("{} networks, should be {}", ours.len(), declared("Network") + 1));
    }
    for range in files.values().flat_map(|t| t.split("subnet: ").skip(1).filter_map(|rest| rest.split(',').next())) {
        if !ours.iter().any(|n| n["IPAM"]["Config"][0]["Subnet"] == range) {
            wrong.push(format!("no network has the range {range}"));
        }
    }
    if !wrong.is_empty() {
        return wrong;
    }
    let (_, plan) = stage.api("POST", "/quaymaster/v1/plan", Some(json!({}))).await;
    let steps = plan["plan"]["steps"].as_array().cloned().unwrap_or_default();
    wrong.extend(steps.iter().map(|s| format!("still to do: {} {} {}", s["verb"], s["object"]["name"], s["causeText"])));
    if wrong.is_empty() {
        stage.act("/actions/reconcile", because("once more")).await;
    }
    wrong
}

fn json_documents(files: &Files, kind: &str) -> usize {
    let is = |text: &&String| serde_json::from_str::<Value>(text).is_ok_and(|v| v["kind"] == kind);
    files.values().filter(is).count()
}
