//! What its users judge by (MISSION), as far as no other file here is about it. Every test of a scenario has its number in its name, here and
//! in `bad_input`, `edges`, `jobs` and `locks`; the same are played under simulation in `simulated.rs`.

use std::collections::BTreeMap;

use qm_tests::support::manifests::{self, Service, put, sleeper, web};
use qm_tests::support::world::World;
use serde_json::{Value, json};

fn parent(world: &World, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniContainer", "metadata": { "name": name, "namespace": world.namespace },
        "spec": spec,
    })
}

fn labelled(world: &World, service: &Service, group: &str) -> Value {
    let mut document = service.document(&world.namespace);
    document["metadata"]["labels"] = json!({ "group": group });
    document
}

fn write(world: &World, file: &str, documents: &[Value]) {
    put(&world.file(file), &manifests::text(documents));
}

/// Waits until the mini container of this name is as wanted.
fn until_parent(world: &mut World, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/apis/quaymaster.dev/v1alpha1/namespaces/{}/minicontainers/{name}", world.namespace);
    world.operator.until(&format!("{name}: {what}"), |o| {
        let found = o.get(&path)?.json();
        if is(&found["status"]) { Ok(found["status"].clone()) } else { Err(format!("{found:#}")) }
    })
}

/// Twenty services in five levels of four: each needs two of the level below.
fn twenty() -> Vec<Service> {
    let name = |level: usize, at: usize| format!("s{level}{}", at % 4);
    let service = |n: usize| {
        let (level, at) = (n / 4, n % 4);
        let service = web(&name(level, at));
        if level == 0 { service } else { service.needs(&name(level - 1, at)).needs(&name(level - 1, at + 1)) }
    };
    (0..20).map(service).collect()
}

#[test]
fn scenario_1_twenty_services_start_level_by_level_and_nobody_waits_for_a_fixed_time() {
    let world = World::up(&twenty());
    let status = |service: &str| world.status(service);
    let all: BTreeMap<String, Value> = (0..20).map(|n| format!("s{}{}", n / 4, n % 4)).map(|name| (name.clone(), status(&name))).collect();
    for (name, own) in &all {
        assert_eq!(own["level"].to_string(), name[1..2], "{name}");
        let started = own["slots"][0]["startedAt"].as_str().expect("it was started");
        for dependency in own["dependencies"].as_array().into_iter().flatten() {
            let below = &all[dependency["name"].as_str().expect("a name")];
            let healthy = below["slots"][0]["healthyAt"].as_str().expect("it was found healthy");
            assert!(healthy <= started, "{name} started at {started}, and {dependency} was usable at {healthy}");
        }
    }
    // Events tell the order too: within the same second, level by level.
    let order: Vec<String> = world.operator.events(&world.namespace).into_iter().filter(|e| e.contains(" Started ")).collect();
    assert_eq!(order.len(), 20, "{order:#?}");
}

#[test]
fn scenario_10_what_was_missed_is_made_up_for_from_what_is_there() {
    let services = |version: &str| {
        vec![
            sleeper("gone"),
            sleeper("changed").set("env", json!({ "VERSION": version })),
            web("stopped"),
            web("untouched").needs("stopped"),
        ]
    };
    let mut world = World::up(&services("1").into_iter().chain([sleeper("removed")]).collect::<Vec<_>>());
    let before = world.lives();
    world.operator.kill();
    // Five changes that nobody sees.
    world.docker.must("DELETE", &format!("/containers/{}?force=true", world.name("gone")), None);
    world.docker.must("POST", &format!("/containers/{}/stop?t=0", world.name("stopped")), None);
    let now: Vec<Service> = services("2").into_iter().chain([sleeper("added")]).collect();
    world.write("all.yaml", &now);
    world.operator.start();
    world.settled(5);
    world.quiet();
    let after = world.lives();
    let names: Vec<String> = ["added", "changed", "gone", "stopped", "untouched"].map(|name| world.name(name)).into();
    assert_eq!(after.keys().cloned().collect::<Vec<_>>(), names, "what was removed is gone");
    let id = |lives: &BTreeMap<String, (String, String, u64)>, name: &str| lives[&world.name(name)].0.clone();
    for (service, is_same) in [("gone", false), ("changed", false), ("stopped", true), ("untouched", true)] {
        assert_eq!(id(&before, service) == id(&after, service), is_same, "{service}");
    }
    assert_eq!(before[&world.name("untouched")], after[&world.name("untouched")], "it went on as it was");
    assert_eq!(world.reconcile_all(6), 0);
}

#[test]
fn scenario_11_a_mini_container_sums_up_its_children() {
    let mut world = World::new();
    let good = |name: &str| sleeper(name);
    let bad = |name: &str| sleeper(name).image("busybox:nothere").set("pullPolicy", json!("Never"));
    let limited = |name: &str| sleeper(name).edge(json!({ "service": "x3", "onDown": "Degrade" }));
    let groups: [(&str, Vec<Service>, u8, &str); 4] = [
        ("one-missing", vec![good("a1"), good("a2"), bad("x3")], 3, "2/3"),
        ("all-missing", vec![bad("b1"), bad("b2"), bad("b3")], 4, "0/3"),
        ("all-well", vec![good("c1"), good("c2"), good("c3")], 1, "3/3"),
        ("one-limited", vec![good("d1"), limited("d2"), good("d3")], 2, "3/3"),
    ];
    let mut documents = Vec::new();
    for (name, services, ..) in &groups {
        documents.extend(services.iter().map(|service| labelled(&world, service, name)));
        documents.push(parent(&world, name, json!({ "selector": { "matchLabels": { "group": name } } })));
    }
    documents.push(parent(&world, "empty", json!({ "selector": { "matchLabels": { "group": "none" } } })));
    documents.push(parent(&world, "may-be-empty", json!({ "selector": { "matchLabels": { "group": "none" } }, "allowEmpty": true })));
    write(&world, "all.yaml", &documents);
    world.operator.start();
    for (name, _, severity, summary) in &groups {
        let status = until_parent(&mut world, name, "the sum", |s| s["severity"] == *severity && s["children"]["summary"] == *summary);
        assert_eq!(status["usable"], *severity <= 3, "{status:#}");
    }
    until_parent(&mut world, "empty", "5", |s| s["severity"] == 5 && s["reason"] == "NoChildren");
    until_parent(&mut world, "may-be-empty", "3", |s| s["severity"] == 3 && s["usable"] == true);
    let status = until_parent(&mut world, "all-missing", "its culprits", |s| s["blockedBy"].as_array().is_some_and(|b| b.len() == 3));
    assert_eq!(status["blockedBy"][0]["path"], json!(["b1"]), "{status:#}");
    // A child says whose it is.
    let child = world.operator.service(&world.namespace, "a1");
    assert_eq!(child["metadata"]["ownerReferences"][0]["name"], "one-missing", "{child:#}");
    // What no mini container and no service is called is not found, and a second owner is refused.
    let missing = world.operator.cli(&["get", "mctr/nobody", "-n", &world.namespace]);
    assert!(!missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("nobody"), "{missing:?}");
    documents.push(parent(&world, "second", json!({ "selector": { "matchLabels": { "group": "all-well" } } })));
    write(&world, "all.yaml", &documents);
    let namespace = world.namespace.clone();
    world.operator.until("the refusal of a second owner", |o| {
        let report = o.overview();
        let text = report["frozen"].to_string();
        if text.contains("already belongs to") { Ok(()) } else { Err(format!("{namespace}: {report:#}")) }
    });
}

#[test]
fn a_template_makes_services_and_they_go_with_it_dependents_first() {
    let mut world = World::new();
    let made = |items: Value| {
        json!({
            "template": {
                "labels": { "queue": "{{values.queue}}" },
                "spec": {
                    "container": {
                        "image": "busybox:local", "command": ["sleep", "86400"], "init": true, "stopGracePeriod": "1s",
                        "env": { "QUEUE": "{{values.queue}}" },
                    },
                    "dependsOn": [{ "service": "broker" }],
                },
            },
            "items": items,
        })
    };
    let (mail, sms) =
        (json!({ "name": "mail", "values": { "queue": "q-mail" } }), json!({ "name": "sms", "values": { "queue": "q-sms" } }));
    let app = web("app").edge(json!({ "kind": "MiniContainer", "name": "worker", "onDown": "Degrade" }));
    write(&world, "rest.yaml", &[sleeper("broker").document(&world.namespace), app.document(&world.namespace)]);
    write(&world, "worker.yaml", &[parent(&world, "worker", made(json!([mail, sms])))]);
    world.operator.start();
    world.settled(4);
    until_parent(&mut world, "worker", "both are there", |s| s["severity"] == 1 && s["level"] == 2);
    let env = world.docker.exec(&world.name("worker-sms"), &["sh", "-c", "echo $QUEUE"]);
    assert_eq!(env.trim(), "q-sms");
    let kept = world.container("worker-mail").life();
    // One fewer: it goes, the other one goes on.
    write(&world, "worker.yaml", &[parent(&world, "worker", made(json!([mail])))]);
    until_parent(&mut world, "worker", "one is left", |s| s["children"]["summary"] == "1/1");
    world.settled(3);
    assert_eq!(world.container("worker-mail").life(), kept);
    // All of it, with a child that somebody holds fast: it is named, and what owns it waits.
    let namespace = world.namespace.clone();
    let suspended = world.operator.cli(&["suspend", "mctr/worker", "-n", &namespace, "--reason", "not yet"]);
    assert!(suspended.status.success(), "{suspended:?}");
    write(&world, "rest.yaml", &[sleeper("broker").document(&namespace), web("app").document(&namespace)]);
    std::fs::remove_file(world.file("worker.yaml")).expect("it is there");
    let status = until_parent(&mut world, "worker", "it says what is left", |s| {
        s["reason"] == "Deleting" && s["message"].as_str().is_some_and(|m| m.contains("worker-mail") && m.contains("suspended"))
    });
    assert_eq!(status["usable"], false, "{status:#}");
    let resumed = world.operator.cli(&["resume", "mctr/worker", "-n", &namespace]);
    assert!(resumed.status.success(), "{resumed:?}");
    world.operator.until("the mini container is gone", |o| {
        let left = o.list("minicontainers", &namespace);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
    world.settled(2);
    assert!(world.docker.inspect(&world.name("worker-mail")).is_none());
}

#[test]
fn scenario_21_scale_features_and_what_runs_elsewhere() {
    let mut world = World::new();
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = elsewhere.local_addr().expect("it has an address").port();
    let services = |replicas: u32, feature: bool| {
        vec![
            web("queue"),
            web("worker").set("replicas", replicas.into()).needs("queue").needs("mailhost"),
            sleeper("search").spec("enabled", feature.into()),
            web("page").needs("search"),
            web("shop").edge(json!({ "service": "search", "onDown": "Degrade" })),
            sleeper("mailhost").only("external", json!({ "probe": { "tcp": { "host": "127.0.0.1", "port": port } }, "interval": "1s" })),
        ]
    };
    world.write("all.yaml", &services(0, false));
    world.operator.start();
    let off = |reason: &'static str| move |s: &Value| s["severity"] == 0 && s["reason"] == reason;
    world.until_status("worker", "scaled to nothing", off("ScaledToZero"));
    world.until_status("search", "off", off("Disabled"));
    world.until_status("page", "skipped, not failed", off("Skipped"));
    for service in ["queue", "shop", "mailhost"] {
        world.until_status(service, "well", |s| s["severity"] == 1);
    }
    let level = |world: &World, service: &str| world.status(service)["level"].as_u64();
    assert_eq!((level(&world, "mailhost"), level(&world, "worker")), (Some(0), Some(1)), "its place in the graph is like any other's");
    let containers = world.containers();
    for service in ["worker", "search", "page", "mailhost"] {
        let text = "neither what is off, nor what is skipped, nor what runs elsewhere has a container";
        assert!(!containers.contains_key(&world.name(service)), "{text}: {service}");
    }
    let (queue, shop) = (world.container("queue").life(), world.container("shop").life());

    // Its dependency is gone while nobody needs it: the workers come after it.
    world.docker.must("POST", &format!("/containers/{}/stop?t=0", queue.0), None);
    world.write("all.yaml", &services(2, true));
    world.settled(6);
    let workers = [1, 2].map(|slot| world.docker.inspect(&format!("{}-worker-{slot}", world.namespace)).expect("it runs").life().1);
    let healthy = world.status("queue")["slots"][0]["healthyAt"].as_str().expect("it is healthy").to_owned();
    assert!(workers.iter().all(|started| *started >= healthy), "{workers:?} after {healthy}");
    assert_eq!(world.container("shop").life(), shop, "who can do without it goes on");
    for service in ["search", "page"] {
        world.until_status(service, "on", |s| s["severity"] == 1);
    }

    // Off again: who cannot do without it is stopped, and goes on in the same container when it is there again.
    let (page, shop) = (world.container("page").life(), world.container("shop").life());
    world.write("all.yaml", &services(2, false));
    world.until_status("page", "skipped", off("Skipped"));
    let (name, docker) = (world.name("page"), &world.docker);
    world.operator.until("the page is stopped", |_| match docker.inspect(&name) {
        Some(found) if found.state == "exited" => Ok(()),
        found => Err(format!("{found:?}")),
    });
    world.write("all.yaml", &services(2, true));
    world.until_status("page", "on", |s| s["severity"] == 1);
    let again = world.container("page").life();
    assert_eq!(again.0, page.0, "the same container");
    assert_ne!(again.1, page.1, "started again");
    assert_eq!(world.container("shop").life(), shop, "who can do without it goes on");
}
