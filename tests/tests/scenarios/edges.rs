//! What the loss, the return and the change of a dependency do to those that depend on it: each as its edge says, once, in level order
//! (MISSION, scenarios 3, 4, 7, 8 and 21; Vault is a stub outside that can be stopped).

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qm_tests::support::manifests::{Service, sleeper, web};
use qm_tests::support::world::World;
use serde_json::{Value, json};

/// The start of the container of each service.
fn starts(world: &World, services: &[&str]) -> BTreeMap<String, (String, String)> {
    services
        .iter()
        .map(|service| {
            let (id, started_at, _) = world.container(service).life();
            ((*service).to_owned(), (id, started_at))
        })
        .collect()
}

/// How often each service was restarted or signalled because of its dependencies.
fn reloads(world: &World, verb: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in world.operator.events(&world.namespace) {
        let mut words = event.split(' ');
        let (Some(name), Some(_reason), Some(found)) = (words.next(), words.next(), words.next()) else { continue };
        if found == verb && (event.contains(" returned") || event.contains(" changed")) {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

fn town() -> Vec<Service> {
    let to = |service: &str, rest: Value| {
        let mut edge = json!({ "service": service, "debounce": "500ms" });
        edge.as_object_mut().expect("an edge").extend(rest.as_object().expect("fields").clone());
        edge
    };
    vec![
        web("redis"),
        web("worker").edge(to("redis", json!({ "onUp": "Restart" }))),
        // A diamond: it needs redis and the worker that restarts for redis.
        web("api").edge(to("redis", json!({ "onUp": "Restart" }))).edge(to("worker", json!({ "onChange": "Restart" }))),
        web("beat").edge(to("redis", json!({ "onDown": "Degrade", "onUp": "Signal" }))).set("reloadSignal", json!("SIGUSR1")),
        web("cache").edge(to("redis", json!({ "onDown": "Ignore" }))),
        web("plain").edge(to("redis", json!({ "tolerate": "1s" }))),
        web("feed").edge(to("redis", json!({ "onDown": "Stop", "tolerate": "1s", "onUp": "Restart" }))),
    ]
}

#[test]
fn scenario_8_redis_dies_and_each_follows_its_edge_and_reloads_once() {
    let names = ["worker", "api", "beat", "cache", "plain", "feed"];
    // Its own signal is ignored by what serves; the shell would die of it.
    let services: Vec<Service> = town()
        .into_iter()
        .map(|s| s.set("command", json!(["sh", "-c", "trap '' USR1; mkdir -p /www; echo fine >/www/index.html; httpd -f -p 8080 -h /www"])))
        .collect();
    let mut world = World::up(&services);
    let before = starts(&world, &names);
    let ns = world.namespace.clone();
    // Nobody repairs what is suspended.
    assert!(world.operator.cli(&["suspend", "msvc/redis", "-n", &ns, "--reason", "test"]).status.success());
    let redis = world.container("redis").id;
    world.docker.must("POST", &format!("/containers/{redis}/stop?t=1"), None);
    for (name, severity) in [("redis", 4), ("worker", 4), ("api", 4), ("beat", 3), ("plain", 4), ("feed", 4)] {
        world.until_status(name, "follows its edge", |s| s["severity"] == severity);
    }
    assert_eq!(world.status("cache")["severity"], 1);
    let api = world.status("api");
    let roots: Vec<&Value> = api["blockedBy"].as_array().into_iter().flatten().map(|b| &b["name"]).collect();
    assert_eq!(roots, ["redis"], "the culprit is named once: {api:#}");
    world.until_event("feed", "Stopped", "stop replica 1: ");
    assert_eq!(world.docker.inspect(&world.name("feed")).expect("it is there").state, "exited");
    assert!(reloads(&world, "restart").is_empty(), "nobody reloads for a loss");

    assert!(world.operator.cli(&["resume", "msvc/redis", "-n", &ns, "--reason", "test"]).status.success());
    world.settled(7);
    world.until_event("api", "Started", "restart replica 1: ");
    world.settled(7);
    world.quiet();
    assert_eq!(reloads(&world, "restart"), counts(&[("worker", 1), ("api", 1)]), "{:#?}", world.operator.events(&ns));
    assert_eq!(reloads(&world, "signal"), counts(&[("beat", 1)]));
    let after = starts(&world, &names);
    let same: Vec<&str> = names.into_iter().filter(|n| before[*n] == after[*n]).collect();
    assert_eq!(same, ["beat", "cache", "plain"], "these go on as they were");
    assert!(names.iter().all(|n| before[*n].0 == after[*n].0), "nobody got another container");
    assert!(after["worker"].1 < after["api"].1, "level by level");
    assert_eq!(world.reconcile_all(8), 0);

    // A restart of the operator fires nothing.
    world.operator.stop();
    world.operator.start();
    world.settled(7);
    world.quiet();
    assert_eq!(starts(&world, &names), after);
}

#[test]
fn a_planned_change_is_no_loss_and_a_new_revision_reloads_who_asks_for_it() {
    let follows = json!({ "service": "db", "onDown": "Stop", "tolerate": "0s", "onUp": "Restart", "onChange": "Rebuild", "stage": "Create", "debounce": "500ms" });
    let services = |version: &str| {
        vec![
            web("db").set("env", json!({ "VERSION": version })),
            web("app").edge(follows.clone()),
            web("other").edge(json!({ "service": "db", "onUp": "Restart", "debounce": "500ms" })),
        ]
    };
    let mut world = World::up(&services("1"));
    let (app, other) = (world.container("app"), world.container("other"));
    world.write("all.yaml", &services("2"));
    world.until_event("app", "Created", "changed");
    world.settled(3);
    world.quiet();
    assert_ne!(world.container("app").id, app.id, "a rebuild from creation is a new container");
    assert_eq!(world.container("other").life(), other.life(), "a change is no return");
    let events = world.operator.events(&world.namespace);
    assert!(!events.iter().any(|e| e.contains("is lost")), "our own change stops nobody: {events:#?}");
    let created = events.iter().filter(|e| e.starts_with("app Created create replica 1: ") && e.contains("changed")).count();
    assert_eq!(created, 1, "{events:#?}");
    assert_eq!(world.reconcile_all(4), 0);
}

#[test]
fn what_a_person_blocks_is_not_used_and_counts_as_changed() {
    let follows = json!({ "service": "db", "onDown": "Stop", "tolerate": "0s", "onUp": "Restart", "debounce": "500ms" });
    let changes = json!({ "service": "db", "onChange": "Restart", "debounce": "500ms" });
    let mut world = World::up(&[web("db"), web("app").edge(follows), web("page").needs("app"), web("pool").edge(changes)]);
    let ns = world.namespace.clone();
    let pool = world.name("pool");
    let lives = |world: &World| world.lives().into_iter().filter(|(name, _)| *name != pool).collect::<BTreeMap<_, _>>();
    let (before, pool_before) = (lives(&world), world.lives()[&pool].clone());
    let blocked = world.operator.cli(&["block", "msvc/db", "-n", &ns, "--reason", "restore under way"]);
    assert!(blocked.status.success(), "{blocked:?}");
    let status = world.until_status("db", "is blocked", |s| s["severity"] == 4);
    assert_eq!((status["reason"].as_str(), status["usable"].as_bool()), (Some("BlockedByPerson"), Some(false)));
    assert!(status["message"].as_str().unwrap_or_default().ends_with(": restore under way"), "{status}");
    world.until_status("app", "follows its edge", |s| s["severity"] == 4 && s["reason"] == "DependencyChanging");
    world.until_status("page", "follows too", |s| s["severity"] == 4);
    // It is durable.
    world.operator.kill();
    world.operator.start();
    world.until_status("db", "is blocked over a restart", |s| s["reason"] == "BlockedByPerson");
    world.quiet();
    assert_eq!((lives(&world), &world.lives()[&pool]), (before.clone(), &pool_before), "nobody is stopped for what a person means");
    assert!(world.operator.cli(&["unblock", "msvc/db", "-n", &ns]).status.success());
    world.settled(4);
    world.until_event("pool", "Started", "restart replica 1: ");
    world.settled(4);
    world.quiet();
    assert_eq!(lives(&world), before, "nothing has returned: who reacts to that goes on");
    assert_eq!(reloads(&world, "restart"), counts(&[("pool", 1)]), "it was changed: who reacts to that reloads");
    // One with an end ends by itself.
    assert!(world.operator.cli(&["block", "msvc/db", "-n", &ns, "--for", "2s"]).status.success());
    world.until_status("db", "is blocked", |s| s["severity"] == 4);
    world.settled(4);
    let twice = world.operator.cli(&["unblock", "msvc/db", "-n", &ns]);
    assert_eq!(twice.status.code(), Some(1), "{twice:?}");
}

/// Something outside that answers HTTP, and can be stopped.
struct Stub {
    port: u16,
    is_up: Arc<AtomicBool>,
}

impl Stub {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let is_up = Arc::new(AtomicBool::new(true));
        let up = is_up.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = [0_u8; 1024];
                let _ = stream.read(&mut request);
                let code = if up.load(Ordering::Relaxed) { "200 OK" } else { "503 Service Unavailable" };
                let _ = stream.write_all(format!("HTTP/1.1 {code}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes());
            }
        });
        Self { port, is_up }
    }

    fn service(&self, name: &str) -> Service {
        let probe = json!({ "http": { "url": format!("http://127.0.0.1:{}/v1/sys/health", self.port) } });
        sleeper(name).only("external", json!({ "probe": probe, "interval": "200ms", "timeout": "1s", "failureThreshold": 2 }))
    }
}

#[test]
fn scenario_3_and_4_vault_is_away_and_only_what_cannot_do_without_it_flips() {
    let stub = Stub::new();
    let needs = |rest: Value| {
        let mut edge = json!({ "service": "vault", "debounce": "500ms" });
        edge.as_object_mut().expect("an edge").extend(rest.as_object().expect("fields").clone());
        edge
    };
    let services = vec![
        stub.service("vault"),
        web("jwt").edge(needs(json!({ "start": "Wait", "onDown": "Ignore" }))),
        web("mongo").edge(needs(json!({ "tolerate": "3s", "onUp": "Restart" }))),
        web("app").needs("mongo").edge(needs(json!({ "onDown": "Ignore" }))),
    ];
    let mut world = World::up(&services);
    let names = ["jwt", "mongo", "app"];
    let before = starts(&world, &names);
    stub.is_up.store(false, Ordering::Relaxed);
    world.until_status("vault", "is 4", |s| s["severity"] == 4);
    let tolerated = world.until_status("mongo", "tolerates it", |s| {
        s["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "DependencyStale" && c["status"] == "True")
    });
    assert_eq!((tolerated["usable"].clone(), tolerated["dependencies"][0]["tolerated"].clone()), (json!(true), json!(true)));
    let blocked = world.until_status("mongo", "flips when that is over", |s| s["severity"] == 4);
    assert_eq!(blocked["blockedBy"][0]["name"], "vault");
    assert_eq!(world.until_status("app", "follows", |s| s["severity"] == 4)["blockedBy"][0]["path"].as_array().map(Vec::len), Some(2));
    assert_eq!(world.status("jwt")["severity"], 1);
    assert_eq!(starts(&world, &names), before, "no container restarts for a loss");

    stub.is_up.store(true, Ordering::Relaxed);
    world.until_event("mongo", "Started", "returned");
    world.settled(4);
    world.quiet();
    assert_eq!(reloads(&world, "restart"), counts(&[("mongo", 1)]));
    let after = starts(&world, &names);
    assert_eq!((&after["jwt"], &after["app"]), (&before["jwt"], &before["app"]), "untouched");
}
