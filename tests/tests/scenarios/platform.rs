//! A platform of twenty services in five levels: order, rest, and the loss of the store.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use qm_tests::support::manifests::{self, Service, slow_web};
use qm_tests::support::world::World;
use serde_json::{Value, json};

const LEVELS: usize = 5;
const WIDTH: usize = 4;

/// Twenty services; each of a level needs two of the level below.
fn platform() -> Vec<Service> {
    let name = |level: usize, at: usize| format!("l{level}-{}", at % WIDTH);
    let of_level = |level: usize| {
        (0..WIDTH).map(move |at| {
            let service = slow_web(&name(level, at), 1.5).set("networks", json!(["back"]));
            match level {
                0 => service,
                _ => service.needs(&name(level - 1, at)).needs(&name(level - 1, at + 1)),
            }
        })
    };
    (0..LEVELS).flat_map(of_level).collect()
}

fn whole_platform() -> World {
    let mut world = World::new();
    manifests::put(&world.file("networks.yaml"), &manifests::text(&[manifests::network(&world.namespace, "back")]));
    world.write("services.yaml", &platform());
    world.operator.start();
    world.settled(LEVELS * WIDTH);
    world
}

/// When the slots of a service started, and when they were first healthy.
struct Times {
    level: u64,
    started: String,
    healthy: String,
    dependencies: Vec<String>,
}

/// Whether an edge is a Wait edge: by its word, or by default.
fn waits(edge: &Value) -> bool {
    match edge["start"].as_str() {
        Some(start) => start == "Wait",
        None => !matches!(edge["onDown"].as_str(), Some("Degrade" | "Ignore")),
    }
}

fn assert_order(times: &BTreeMap<String, Times>) {
    for (name, service) in times {
        for dependency in &service.dependencies {
            let healthy = &times[dependency].healthy;
            assert!(service.started >= *healthy, "{name} started {}, {dependency} was healthy {healthy}", service.started);
        }
    }
}

fn times(world: &World) -> BTreeMap<String, Times> {
    let text = |v: &Value| v.as_str().unwrap_or_else(|| panic!("a time is missing")).to_owned();
    let of = |object: &Value| {
        let (status, spec) = (&object["status"], &object["spec"]);
        // A job is usable from the end of its run on.
        let (slot, run) = (&status["slots"][0], &status["job"]["lastRuns"][0]);
        let (started, healthy) = match spec["job"].is_object() {
            true => (&run["startedAt"], &run["finishedAt"]),
            false => (&slot["startedAt"], &slot["healthyAt"]),
        };
        let times = Times {
            level: status["level"].as_u64().expect("a level is a number"),
            started: text(started),
            healthy: text(healthy),
            dependencies: spec["dependsOn"].as_array().into_iter().flatten().filter(|d| waits(d)).map(|d| text(&d["service"])).collect(),
        };
        (text(&object["metadata"]["name"]), times)
    };
    world.operator.list("miniservices", &world.namespace).iter().map(of).collect()
}

/// Puts the files of a folder into another, with words changed.
fn copy(from: &Path, to: &Path, change: &dyn Fn(String) -> String) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the examples are there").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to, change);
        } else {
            let text = fs::read_to_string(&from).expect("examples are texts");
            fs::write(&to, change(text)).expect("a file can be written");
        }
    }
}

#[test]
fn the_example_platform_goes_from_nothing_to_all_usable_in_order() {
    let mut world = World::new();
    let example = std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is"))
        .join("../examples/platform");
    let namespace = world.namespace.clone();
    // A namespace of its own, and no fixed port: others may run the example beside this test.
    let change = |text: String| text.replace("namespace: notify", &format!("namespace: {namespace}")).replace("published: 18081, ", "");
    copy(&example, &world.operator.setup.manifests, &change);
    world.operator.start();
    let services = world.operator.until("the example to be applied", |o| {
        let services = o.list("miniservices", &namespace).len();
        if services > 0 { Ok(services) } else { Err(o.overview().to_string()) }
    });
    assert!(services >= 20, "{services}");
    world.settled(services);
    assert_order(&times(&world));
    let networks = world.operator.list("networks", &namespace).len();
    assert_eq!(world.reconcile_all(services + networks), 0);
}

#[test]
fn nothing_starts_before_its_dependencies_are_usable_and_one_level_starts_together() {
    let world = whole_platform();
    let times = times(&world);
    assert_order(&times);
    let levels: BTreeSet<u64> = times.values().map(|t| t.level).collect();
    assert_eq!(levels.len(), LEVELS, "{levels:?}");
    for level in levels {
        let of_level: Vec<&Times> = times.values().filter(|t| t.level == level).collect();
        assert_eq!(of_level.len(), WIDTH, "level {level}");
        let mut starts: Vec<(&str, &str)> = of_level.iter().map(|t| (t.started.as_str(), t.healthy.as_str())).collect();
        starts.sort_unstable();
        let overlapping = starts.windows(2).filter(|w| w[1].0 < w[0].1).count();
        assert!(overlapping > 0, "services of level {level} start one after the other: {starts:?}");
    }
}

#[test]
fn a_pass_of_everything_makes_no_call_and_a_lost_store_changes_no_container() {
    let mut world = whole_platform();
    let objects = LEVELS * WIDTH + 1;
    let calls = world.reconcile_all(objects);
    assert_eq!(calls, 0, "{:?}", world.proxy.calls());
    let lives = world.lives();
    assert_eq!(lives.len(), LEVELS * WIDTH);

    world.operator.stop();
    fs::remove_file(world.operator.setup.data_dir.join("store.redb")).expect("the store is one file");
    let mark = world.proxy.mark();
    world.operator.start();
    world.settled(LEVELS * WIDTH);
    assert_eq!(world.lives(), lives);
    let first_list = world.proxy.since(mark);
    let mut seen = BTreeSet::new();
    for call in &first_list {
        assert!(!call.is_write(), "{call:?}");
        // Images belong to the picture too, and are asked for by those who need them.
        assert!(seen.insert(call.path.clone()) || call.route == "/images/{id}/json", "asked twice: {call:?}");
    }
    let calls = world.reconcile_all(objects);
    assert_eq!(calls, 0, "{:?}", world.proxy.since(mark));
}
