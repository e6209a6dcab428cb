//! The operator killed on either side of every single write that it makes, and started again: the same end, nothing doubled.

use std::collections::BTreeMap;

use qm_tests::support::engine::{Engine, MISCOUNTS, Options};
use qm_tests::support::manifests::{Service, sleeper, web};
use qm_tests::support::proxy::Side;

use qm_tests::support::world::{LONG, World};
use serde_json::json;

/// More writes than any transition of five services needs: the enumeration ends by itself, or something runs away.
const MOST: usize = 60;

/// Five services of which one has a file, one a volume, two a dependency; two are replaced new container first.
fn services(image: &str) -> Vec<Service> {
    let config = json!([{ "name": "c", "target": "/etc/c.conf", "content": "a = 1\n" }]);
    let all = [
        sleeper("store").set("volumes", json!([{ "name": "data", "target": "/data" }])),
        web("app").needs("store").set("update", json!({ "order": "StartFirst" })),
        sleeper("file").set("configs", config),
        sleeper("plain").set("update", json!({ "order": "StartFirst" })),
        sleeper("last").needs("plain"),
    ];
    all.into_iter().map(|s| s.image(image)).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Image(&'static str),
    Nothing,
}

fn want(world: &World, goal: Goal) {
    match goal {
        Goal::Image(image) => world.write("five.yaml", &services(image)),
        // One document stays, in a namespace of its own, so that this is no folder emptied by mistake.
        Goal::Nothing => std::fs::remove_file(world.file("five.yaml")).expect("the manifests are there"),
    }
}

/// Waits until the world is at its goal, then shows that nothing is left over and nothing left to do.
fn arrive(world: &mut World, engine: &mut Engine, goal: Goal) {
    let (docker, ns) = (world.docker.clone(), world.namespace.clone());
    match goal {
        Goal::Image(image) => {
            let id = docker.image(image).expect("the image is there");
            world.operator.until_within(LONG, &format!("five services with {image}"), |o| {
                let wrong: Vec<String> = o
                    .list("miniservices", &ns)
                    .iter()
                    .filter(|s| s["spec"]["container"]["image"] != image)
                    .map(|s| s["metadata"]["name"].to_string())
                    .collect();
                if wrong.is_empty() { Ok(()) } else { Err(format!("{wrong:?}")) }
            });
            let names = ["store", "app", "file", "plain", "last"].map(|service| world.name(service));
            let wanted: BTreeMap<String, (String, String)> =
                names.into_iter().map(|name| (name, ("running".to_owned(), id.clone()))).collect();
            let found = || -> BTreeMap<String, (String, String)> {
                docker.containers(&ns).into_iter().map(|(name, c)| (name, (c.state, c.image_id))).collect()
            };
            world.operator.until_within(LONG, &format!("five containers with {image}"), |_| {
                let found = found();
                if found == wanted { Ok(()) } else { Err(format!("{found:#?}")) }
            });
            world.settled(5);
            assert_eq!(found(), wanted, "{}", world.operator.log());
            let networks: Vec<String> = docker.networks(&format!("quaymaster.dev/instance={ns}")).into_values().collect();
            assert_eq!(networks, [format!("{ns}_default")]);
            assert_eq!(world.reconcile_all(6), 0, "something is left to do");
        }
        Goal::Nothing => {
            let label = format!("quaymaster.dev/instance={ns}");
            let mut leaks = 0;
            world.operator.until_within(LONG, "nothing left", |o| {
                if leaks == 0 && docker.labelled(&label).is_empty() && o.log().contains(MISCOUNTS) {
                    // Docker 20.10 may miscount the endpoints of a network when a request is cancelled half-way: it shows none, and says
                    // that there are some. Only its restart mends that.
                    println!("the engine counts endpoints that are not there; it is restarted");
                    leaks += 1;
                    engine.stop();
                    engine.launch();
                    o.cli(&["retry", "--all"]);
                }
                let (containers, networks) = (docker.labelled(&label), docker.networks(&label));
                let objects = o.list("miniservices", &ns).len() + o.list("networks", &ns).len();
                match containers.is_empty() && networks.is_empty() && objects == 0 {
                    true => Ok(()),
                    false => Err(format!("{objects} objects, containers {:?}, networks {networks:?}", containers.keys())),
                }
            });
        }
    }
}

/// Goes to a goal with the operator killed at the n-th write. Gives whether there was an n-th write.
fn go_and_be_killed(world: &mut World, goal: Goal, n: usize, side: Side) -> bool {
    world.proxy.trap(n, side);
    want(world, goal);
    // Approved by its own hash where the guard holds it; a kill after that is what the trap is for.
    let proxy = &world.proxy;
    let calm = world.operator.until_within(LONG, &format!("write {n}, or the end of the transition"), |o| {
        if proxy.is_sprung() {
            return Ok(false);
        }
        let sources = o.overview();
        let held = sources["sources"][0]["pruneHeld"]["stepHash"].as_str().filter(|h| !h.is_empty()).map(str::to_owned);
        if let Some(hash) = held {
            let done = o.cli(&["approve", &hash]);
            return Err(format!("approving: {}", String::from_utf8_lossy(&done.stderr)));
        }
        is_done(o, goal).then_some(true).ok_or_else(|| "under way".to_owned())
    });
    if calm {
        world.proxy.release();
        return false;
    }
    world.operator.kill();
    world.proxy.release();
    world.operator.start();
    if goal == Goal::Nothing {
        approve_when_held(world);
    }
    true
}

fn is_done(operator: &qm_tests::support::operator::Operator, goal: Goal) -> bool {
    let ns = operator.setup.instance.clone();
    let services = operator.list("miniservices", &ns);
    match goal {
        Goal::Nothing => services.is_empty() && operator.list("networks", &ns).is_empty(),
        Goal::Image(image) => {
            services.len() == 5
                && services.iter().all(|s| {
                    let ready = s["status"]["conditions"].as_array().is_some_and(|list| {
                        list.iter().any(|c| {
                            c["type"] == "Ready" && c["status"] == "True" && c["observedGeneration"] == s["metadata"]["generation"]
                        })
                    });
                    ready && s["spec"]["container"]["image"] == image && s["status"]["usable"] == true && s["status"]["stale"] != true
                })
        }
    }
}

/// An approval that was given is remembered; one that was not is given now.
fn approve_when_held(world: &mut World) {
    let ns = world.namespace.clone();
    world.operator.until_within(LONG, "the removal under way", |o| {
        let held = o.overview()["sources"][0]["pruneHeld"]["stepHash"].as_str().filter(|h| !h.is_empty()).map(str::to_owned);
        if let Some(hash) = held {
            o.cli(&["approve", &hash]);
            return Err("held".to_owned());
        }
        let left = o.list("miniservices", &ns);
        match left.iter().all(|s| s["metadata"]["deletionTimestamp"].is_string()) {
            true => Ok(()),
            false => Err(format!("{} services are not being deleted", left.len())),
        }
    });
}

const DEPLOY: (&str, Goal) = ("deploy", Goal::Image("busybox:local"));
const CHANGE: (&str, Goal) = ("change", Goal::Image("busybox:two"));
const BACK: (&str, Goal) = ("change", Goal::Image("busybox:local"));
const DELETE: (&str, Goal) = ("delete", Goal::Nothing);

/// Deploy, change the image, delete: each with the operator killed at the n-th write, for n = 1, 2, 3, .. until no transition has that
/// many. A change is the longest: in the end only changes are made, to and fro.
fn every_kill_point(side: Side) {
    let mut engine = Engine::start(Options::default());
    let mut world = World::on(engine.docker());
    world.operator.start();
    let mut writes = BTreeMap::from([("deploy", MOST), ("change", MOST), ("delete", MOST)]);
    let mut now = Goal::Nothing;
    for n in 1..=MOST {
        let round = match now {
            Goal::Nothing => vec![DEPLOY, CHANGE, DELETE],
            Goal::Image("busybox:two") => vec![BACK],
            Goal::Image(_) => vec![CHANGE],
        };
        for (name, goal) in round {
            let is_last = goal == Goal::Nothing && writes["deploy"] < MOST && writes["delete"] < MOST;
            if is_last {
                break;
            }
            if !go_and_be_killed(&mut world, goal, n, side) {
                writes.entry(name).and_modify(|known| *known = (*known).min(n - 1));
            }
            arrive(&mut world, &mut engine, goal);
            now = goal;
        }
        if writes.values().all(|n| *n < MOST) {
            let points: usize = writes.values().sum();
            drop(world);
            println!("killed {side:?} the answer of every write: {points} points, {writes:?}");
            return;
        }
    }
    panic!("a transition of five services takes more than {MOST} writes: {writes:?}");
}

#[test]
fn killed_before_every_write() {
    every_kill_point(Side::Before);
}

#[test]
fn killed_after_every_write() {
    every_kill_point(Side::After);
}
