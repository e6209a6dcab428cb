//! One case for every leaf of `spec.container`: a change of it costs what the table says, and ends where nothing is left to do.

use std::collections::BTreeMap;

use qm_plan::leaf::{Effect, LEAVES};
use qm_tests::support::docker::Docker;
use qm_tests::support::manifests;
use qm_tests::support::simulator;
use qm_tests::support::world::{LONG, World};
use serde_json::{Value, json};

/// Leaves that no manifest can change from one valid value to another here, with why.
const WITHOUT_A_CASE: [(&str, &str); 4] = [
    ("health.grpc.port", "grpc checks are refused by this release"),
    ("health.grpc.service", "grpc checks are refused by this release"),
    ("health.http.scheme", "only http is served by this release"),
    ("health.image", "the image of the tests has no HEALTHCHECK"),
];

/// Leaves of checks over the network: nobody reaches an address of a simulated engine from outside.
const DIALLED: [&str; 5] = ["health.http.headers{}", "health.http.path", "health.http.port", "health.http.status", "health.tcp.port"];

const SERVE: &str =
    "mkdir -p /www; echo fine >/www/index.html; cp /www/index.html /www/other.html; httpd -p 8081 -h /www; exec httpd -f -p 8080 -h /www";

/// What the container has before and after, besides what all have. `port` is the case's own.
fn case(leaf: &str, port: u16, network: &str) -> Option<(Value, Value)> {
    let http = |extra: Value| {
        let mut check = json!({ "port": 8080, "path": "/index.html" });
        merge(&mut check, &extra);
        json!({ "command": ["sh", "-c", SERVE], "health": { "http": check, "interval": "1s", "startPeriod": "20s" } })
    };
    let checked = |extra: Value| {
        let mut health = json!({ "command": ["true"], "interval": "1s" });
        merge(&mut health, &extra);
        json!({ "health": health })
    };
    let config = |name: &str, target: &str, mode: &str, content: &str| json!({ "configs": [{ "name": name, "target": target, "mode": mode, "content": content }] });
    let published = |target: u16, host: &str, published: u16, protocol: &str| json!({ "ports": [{ "target": target, "host": host, "published": published, "protocol": protocol }] });
    let mount = |extra: Value| {
        let mut mount = json!({ "target": "/data" });
        merge(&mut mount, &extra);
        json!({ "volumes": [mount] })
    };
    let tmpfs = |size: &str, mode: &str| mount(json!({ "tmpfs": { "size": size, "mode": mode } }));
    let resources = |extra: Value| json!({ "resources": extra });
    let update = |extra: Value| json!({ "update": extra });
    let one = |field: &str, value: Value| json!({ field: value });
    let nothing = json!({});
    Some(match leaf {
        "bootOrder" => (nothing, one("bootOrder", json!("Strict"))),
        "capAdd[]" => (nothing, one("capAdd", json!(["NET_ADMIN"]))),
        "capDrop[]" => (nothing, one("capDrop", json!(["MKNOD"]))),
        "command[]" => (nothing, one("command", json!(["sleep", "86401"]))),
        "configs[].content" => (config("c", "/etc/c", "0444", "a"), config("c", "/etc/c", "0444", "b")),
        "configs[].file" => {
            let file = |name: &str| json!({ "configs": [{ "name": "c", "target": "/etc/c", "file": name }] });
            (file("a.env"), file("b.env"))
        }
        "configs[].mode" => (config("c", "/etc/c", "0444", "a"), config("c", "/etc/c", "0440", "a")),
        "configs[].name" => (config("c", "/etc/c", "0444", "a"), config("d", "/etc/c", "0444", "a")),
        "configs[].target" => (config("c", "/etc/c", "0444", "a"), config("c", "/etc/d", "0444", "a")),
        "dns[]" => (nothing, one("dns", json!(["192.0.2.1"]))),
        "entrypoint[]" => (nothing, json!({ "entrypoint": ["sleep"], "command": ["86400"] })),
        "envFile[]" => (one("envFile", json!(["a.env"])), one("envFile", json!(["b.env"]))),
        "env{}" => (one("env", json!({ "A": "1" })), one("env", json!({ "A": "2" }))),
        "extraHosts{}" => (nothing, one("extraHosts", json!({ "printer": "192.0.2.7" }))),
        "follow" => (nothing, one("follow", json!("Tag"))),
        "health.command[]" => (checked(json!({})), checked(json!({ "command": ["test", "-d", "/"] }))),
        "health.http.headers{}" => (http(json!({})), http(json!({ "headers": { "X-A": "b" } }))),
        "health.http.path" => (http(json!({})), http(json!({ "path": "/other.html" }))),
        "health.http.port" => (http(json!({})), http(json!({ "port": 8081 }))),
        "health.http.status" => (http(json!({})), http(json!({ "status": 200 }))),
        "health.interval" => (checked(json!({})), checked(json!({ "interval": "2s" }))),
        "health.retries" => (checked(json!({})), checked(json!({ "retries": 5 }))),
        "health.startPeriod" => (checked(json!({})), checked(json!({ "startPeriod": "3s" }))),
        "health.tcp.port" => {
            let tcp = |port: u16| json!({ "command": ["sh", "-c", SERVE], "health": { "tcp": { "port": port }, "interval": "1s", "startPeriod": "20s" } });
            (tcp(8080), tcp(8081))
        }
        "health.timeout" => (checked(json!({})), checked(json!({ "timeout": "3s" }))),
        "image" => (nothing, one("image", json!("busybox:two"))),
        "init" => (nothing, one("init", json!(false))),
        "labels{}" => (nothing, one("labels", json!({ "a": "b" }))),
        "logging.driver" => (one("logging", json!({ "driver": "json-file" })), one("logging", json!({ "driver": "none" }))),
        "logging.options{}" => {
            let log = |size: &str| one("logging", json!({ "driver": "json-file", "options": { "max-size": size } }));
            (log("5m"), log("6m"))
        }
        "networkOptions{}.aliases[]" => {
            let named = |alias: &str| json!({ "networks": ["other"], "networkOptions": { "other": { "aliases": [alias] } } });
            (named("x"), named("y"))
        }
        "networkOptions{}.ipv4" => {
            let at = |last: u8| json!({ "networks": ["fixed"], "networkOptions": { "fixed": { "ipv4": format!("{network}.{last}") } } });
            (at(9), at(10))
        }
        "networks[]" => (one("networks", json!(["other"])), one("networks", json!(["other", "fixed"]))),
        "ports[].host" => (published(80, "127.0.0.1", port, "tcp"), published(80, "127.0.0.2", port, "tcp")),
        "ports[].protocol" => (published(80, "127.0.0.1", port, "tcp"), published(80, "127.0.0.1", port, "udp")),
        "ports[].published" => (published(80, "127.0.0.1", port, "tcp"), published(80, "127.0.0.1", port + 1, "tcp")),
        "ports[].target" => (published(80, "127.0.0.1", port, "tcp"), published(81, "127.0.0.1", port, "tcp")),
        "pullPolicy" => (nothing, one("pullPolicy", json!("Never"))),
        "readOnly" => (nothing, one("readOnly", json!(true))),
        "reloadSignal" => (nothing, one("reloadSignal", json!("SIGUSR1"))),
        "replicas" => (nothing, one("replicas", json!(2))),
        "resources.cpus" => (resources(json!({ "cpus": "0.5" })), resources(json!({ "cpus": "0.25" }))),
        "resources.memory" => (resources(json!({ "memory": "64Mi" })), resources(json!({ "memory": "48Mi" }))),
        "resources.pids" => (resources(json!({ "pids": 50 })), resources(json!({ "pids": 60 }))),
        "resources.reservations.cpus" => {
            (resources(json!({ "reservations": { "cpus": "0.25" } })), resources(json!({ "reservations": { "cpus": "0.5" } })))
        }
        "resources.reservations.memory" => {
            (resources(json!({ "reservations": { "memory": "16Mi" } })), resources(json!({ "reservations": { "memory": "24Mi" } })))
        }
        "restart" => (nothing, one("restart", json!("OnFailure"))),
        "secrets[].name" => {
            (one("secrets", json!([{ "name": "a", "target": "/run/a" }])), one("secrets", json!([{ "name": "b", "target": "/run/a" }])))
        }
        "secrets[].target" => {
            (one("secrets", json!([{ "name": "a", "target": "/run/a" }])), one("secrets", json!([{ "name": "a", "target": "/run/b" }])))
        }
        "startBudget.tries" => (nothing, one("startBudget", json!({ "tries": 7 }))),
        "startBudget.window" => (nothing, one("startBudget", json!({ "window": "7m" }))),
        "statusSocket" => (nothing, one("statusSocket", json!(true))),
        "stopGracePeriod" => (nothing, one("stopGracePeriod", json!("3s"))),
        "stopSignal" => (nothing, one("stopSignal", json!("SIGINT"))),
        "sysctls{}" => (one("sysctls", json!({ "net.core.somaxconn": "512" })), one("sysctls", json!({ "net.core.somaxconn": "600" }))),
        "ulimits{}.hard" => (
            one("ulimits", json!({ "nofile": { "soft": 512, "hard": 1024 } })),
            one("ulimits", json!({ "nofile": { "soft": 512, "hard": 2048 } })),
        ),
        "ulimits{}.soft" => (
            one("ulimits", json!({ "nofile": { "soft": 512, "hard": 1024 } })),
            one("ulimits", json!({ "nofile": { "soft": 600, "hard": 1024 } })),
        ),
        "update.delay" => (nothing, update(json!({ "delay": "1s" }))),
        "update.monitor" => (nothing, update(json!({ "monitor": "1s" }))),
        "update.onFailure" => (nothing, update(json!({ "onFailure": "Pause" }))),
        "update.order" => (nothing, update(json!({ "order": "StartFirst" }))),
        "update.parallelism" => (nothing, update(json!({ "parallelism": 2 }))),
        "update.timeout" => (nothing, update(json!({ "timeout": "5m" }))),
        "user" => (nothing, one("user", json!("1000"))),
        "volumes[].bind" => (mount(json!({ "bind": "/tmp" })), mount(json!({ "bind": "/var/tmp" }))),
        "volumes[].name" => (mount(json!({ "name": "one" })), mount(json!({ "name": "two" }))),
        "volumes[].readOnly" => (mount(json!({ "name": "three" })), mount(json!({ "name": "three", "readOnly": true }))),
        "volumes[].shared" => (mount(json!({ "name": "four" })), mount(json!({ "name": "four", "shared": true }))),
        "volumes[].target" => (mount(json!({ "name": "five" })), mount(json!({ "name": "five", "target": "/elsewhere" }))),
        "volumes[].tmpfs.mode" => (tmpfs("1Mi", "1777"), tmpfs("1Mi", "0700")),
        "volumes[].tmpfs.size" => (tmpfs("1Mi", "1777"), tmpfs("2Mi", "1777")),
        "workingDir" => (nothing, one("workingDir", json!("/tmp"))),
        _ => return None,
    })
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

/// The name of a leaf's service.
fn name(leaf: &str) -> String {
    let word = |c: char| match c {
        'a'..='z' | '0'..='9' => Some(c),
        '.' => Some('-'),
        _ => None,
    };
    let text: String = leaf.to_ascii_lowercase().chars().filter_map(word).collect();
    text.trim_matches('-').to_owned()
}

fn service(namespace: &str, leaf: &str, extra: &Value) -> Value {
    let mut container =
        json!({ "image": "busybox:local", "command": ["sleep", "86400"], "init": true, "stopGracePeriod": "1s", "networks": ["other"] });
    merge(&mut container, extra);
    json!({
        "apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniService",
        "metadata": { "name": name(leaf), "namespace": namespace }, "spec": { "container": container },
    })
}

#[test]
fn every_leaf_has_a_case() {
    for (leaf, _) in LEAVES {
        let excused = WITHOUT_A_CASE.iter().any(|(without, _)| without == leaf);
        assert_ne!(case(leaf, 1, "10.0.0").is_some(), excused, "{leaf}");
    }
}

/// A leaf, what its change costs, and the container before and after.
type Case = (&'static str, Effect, Value, Value);

/// Deploys a service for every leaf, changes every leaf at once, and looks at what each change cost.
fn play(docker: Docker, skip: &[&str]) {
    let mut world = World::on(docker);
    let ns = world.namespace.clone();
    let network = format!("10.{}.{}", 100 + std::process::id() % 50, std::process::id() / 50 % 250);
    for (file, text) in [("a.env", "A=1\n"), ("b.env", "A=2\n")] {
        manifests::put(&world.file(file), text);
    }
    let base_port = 20_000 + (std::process::id() % 100) as u16 * 120;
    let cases: Vec<Case> = (0_u16..)
        .zip(LEAVES)
        .filter(|(_, (leaf, _))| !skip.contains(leaf))
        .filter_map(|(i, (leaf, effect))| case(leaf, base_port + 2 * i, &network).map(|(before, after)| (*leaf, *effect, before, after)))
        .collect();
    let write = |world: &World, pick: fn(&Case) -> &Value| {
        let mut fixed = manifests::network(&ns, "fixed");
        let mut other = manifests::network(&ns, "other");
        other["spec"] = json!({ "subnet": format!("{network}.128/25") });
        fixed["spec"] = json!({ "subnet": format!("{network}.0/28") });
        let mut documents = vec![fixed, other];
        documents.extend(cases.iter().map(|case| service(&ns, case.0, pick(case))));
        manifests::put(&world.file("all.yaml"), &manifests::text(&documents));
        let valid = world.operator.cli(&["validate", &world.operator.setup.manifests.display().to_string()]);
        assert!(valid.status.success(), "{}", String::from_utf8_lossy(&valid.stdout));
    };
    write(&world, |case| &case.2);
    world.operator.start();
    world.settled(cases.len());
    let before = world.lives();
    write(&world, |case| &case.3);
    // Those whose change takes a new container say when it is there.
    world.operator.until_within(LONG, "every change taken up", |o| {
        let late: Vec<String> = o
            .list("miniservices", &ns)
            .iter()
            .filter(|s| s["metadata"]["generation"] != 2 || s["status"]["observedGeneration"] != 2)
            .map(|s| s["metadata"]["name"].to_string())
            .collect();
        if late.is_empty() { Ok(()) } else { Err(format!("{late:?}")) }
    });
    world.settled(cases.len());
    let after = world.lives();
    let mut counts: BTreeMap<Effect, usize> = BTreeMap::new();
    for (leaf, effect, ..) in &cases {
        let container = world.name(&name(leaf));
        let is_same = before.get(&container) == after.get(&container);
        assert_eq!(
            is_same,
            *effect != Effect::Replace,
            "{leaf} is {effect:?}: {:?} -> {:?}",
            before.get(&container),
            after.get(&container)
        );
        *counts.entry(*effect).or_default() += 1;
    }
    println!("{counts:?}");
    let plan = world.operator.cli(&["plan"]);
    assert_eq!(String::from_utf8_lossy(&plan.stdout), "Nothing to do.\n");
}

#[test]
fn a_change_of_every_leaf_costs_what_the_table_says() {
    play(qm_tests::support::engine::shared(), &[]);
}

#[test]
fn a_change_of_every_leaf_costs_the_same_on_the_simulator() {
    play(Docker::new(simulator::shared()), &DIALLED);
}
