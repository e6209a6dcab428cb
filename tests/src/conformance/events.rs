//! Events: their exact order, and the attributes that clients read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::subject::{Subject, has, text};
use super::{Area, Case};

pub(super) const CASES: &[Case] = &[
    Case { area: Area::Events, name: "events-life", run: life },
    Case { area: Area::Events, name: "events-attributes", run: attributes },
    Case { area: Area::Events, name: "events-ends", run: ends },
    Case { area: Area::Events, name: "events-networks", run: networks },
    Case { area: Area::Events, name: "events-volumes", run: volumes },
    Case { area: Area::Events, name: "events-images", run: images },
    Case { area: Area::Events, name: "events-exec-and-health", run: exec_and_health },
    Case { area: Area::Events, name: "events-filters", run: filters },
    Case { area: Area::Events, name: "events-live", run: live },
];

/// Type and action of the events of things that are known here, one a line: others use the engine too.
fn told(s: &Subject, known: &[&str]) -> Vec<String> {
    let ours = |e: &Value| known.iter().any(|id| e["Actor"]["ID"] == **id || e["Actor"]["Attributes"]["container"] == **id);
    s.events(&json!({})).iter().filter(|e| ours(e)).map(|e| format!("{} {}", text(&e["Type"]), text(&e["Action"]))).collect()
}

/// Waits until that is what was told, in that order.
#[track_caller]
fn until_told(s: &Subject, known: &[&str], wanted: &[&str]) {
    s.until(|| {
        let told = told(s, known);
        if told == wanted { Ok(()) } else { Err(format!("told {told:#?}")) }
    });
}

/// The event of a container with this action; there must be one.
#[track_caller]
fn event(s: &Subject, id: &str, action: &str) -> Value {
    let events = s.events(&json!({ "container": [id], "event": [action] }));
    assert_eq!(events.len(), 1, "{action}: {events:?}");
    events[0].clone()
}

fn life(s: &Subject) {
    let network = s.name("net");
    let net = s.network("net", json!({}));
    let id = s.create("a", json!({ "Volumes": { "/data": {} }, "HostConfig": { "NetworkMode": network } }));
    let volume = text(&s.inspect(&id)["Mounts"][0]["Name"]);
    let act = |what: &str| s.post(&format!("/containers/{id}/{what}")).empty(204);
    let known = [net.as_str(), &id, &volume];
    let mut wanted = vec!["network create", "volume create", "container create"];
    let up = ["network connect", "volume mount", "container start"];
    let down = ["container kill", "container die", "network disconnect", "volume unmount"];
    until_told(s, &known, &wanted);
    act("start");
    wanted.extend(up);
    act(&format!("rename?name={}", s.name("b")));
    s.send(&format!("/containers/{id}/update"), &json!({ "PidsLimit": 9 })).ok(200);
    act("pause");
    act("unpause");
    wanted.extend(["container rename", "container update", "container pause", "container unpause"]);
    until_told(s, &known, &wanted);
    // A restart is a stop and a start, and then itself.
    act("restart?t=5");
    wanted.extend(down.iter().chain(&["container stop"]).chain(&up).chain(&["container restart"]));
    until_told(s, &known, &wanted);
    act("stop?t=5");
    wanted.extend(down.iter().chain(&["container stop"]));
    act("start");
    wanted.extend(up);
    // A kill is no stop.
    act("kill");
    wanted.extend(down);
    until_told(s, &known, &wanted);
    s.delete(&format!("/containers/{id}?v=1")).empty(204);
    s.delete(&format!("/networks/{net}")).empty(204);
    wanted.extend(["volume destroy", "container destroy", "network destroy"]);
    until_told(s, &known, &wanted);
}

fn attributes(s: &Subject) {
    let id = s.start("a", json!({ "Labels": { "x": "y" } }));
    s.post(&format!("/containers/{id}/rename?name={}", s.name("b"))).empty(204);
    s.post(&format!("/containers/{id}/stop?t=5")).empty(204);
    s.delete(&format!("/containers/{id}")).empty(204);
    let common = |name: &str| json!({ "image": "busybox:local", "name": s.name(name), "x": "y" });
    for (action, name, more) in [
        ("create", "a", json!({})),
        ("start", "a", json!({})),
        ("rename", "b", json!({ "oldName": format!("/{}", s.name("a")) })),
        ("kill", "b", json!({ "signal": "15" })),
        ("die", "b", json!({ "exitCode": "143" })),
        ("stop", "b", json!({})),
        ("destroy", "b", json!({})),
    ] {
        let told = event(s, &id, action);
        let mut wanted = common(name);
        super::subject::merge(&mut wanted, more);
        assert_eq!(told["Actor"], json!({ "ID": id, "Attributes": wanted }), "{action}");
        // The older fields are still there.
        has(
            &told,
            &json!({ "Type": "container", "Action": action, "scope": "local", "status": action, "id": id, "from": "busybox:local" }),
        );
        let nanos = told["timeNano"].as_i64().expect("a number");
        assert_eq!(told["time"].as_i64(), Some(nanos / 1_000_000_000));
    }
}

fn ends(s: &Subject) {
    // One that ends by itself is not killed; what it ended with is told.
    let id = s.start("a", json!({ "Cmd": ["sh", "-c", "exit 3"] }));
    until_told(s, &[&id], &["container create", "network connect", "container start", "container die", "network disconnect"]);
    assert_eq!(event(s, &id, "die")["Actor"]["Attributes"]["exitCode"], "3");
    // Removed by force it is killed.
    let forced = s.start("b", json!({}));
    s.delete(&format!("/containers/{forced}?force=1")).empty(204);
    let up = ["container create", "network connect", "container start"];
    let wanted: Vec<&str> =
        up.iter().chain(&["container kill", "container die", "network disconnect", "container destroy"]).copied().collect();
    until_told(s, &[&forced], &wanted);
    assert_eq!(event(s, &forced, "kill")["Actor"]["Attributes"]["signal"], "9");
    // A restart by the engine is a die and a start, and no restart.
    let again =
        json!({ "Cmd": ["sh", "-c", "exit 4"], "HostConfig": { "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 1 } } });
    let again = s.start("c", again);
    let died = ["container die", "network disconnect"];
    let wanted: Vec<&str> = up.iter().chain(&died).chain(&up[1..]).chain(&died).copied().collect();
    until_told(s, &[&again], &wanted);
    // Of a start that fails only the network tells.
    let fails = s.create("d", json!({ "Cmd": ["/no/such/thing"], "HostConfig": { "Init": false } }));
    s.post(&format!("/containers/{fails}/start")).ok(400);
    until_told(s, &[&fails], &["container create", "network connect", "network disconnect"]);
}

fn networks(s: &Subject) {
    let name = s.name("net");
    let net = s.network("net", json!({ "Labels": { "x": "y" } }));
    let other = s.network("other", json!({}));
    let id = s.start("a", json!({ "HostConfig": { "NetworkMode": s.name("other") } }));
    s.send(&format!("/networks/{net}/connect"), &json!({ "Container": id })).empty(200);
    s.send(&format!("/networks/{net}/disconnect"), &json!({ "Container": id, "Force": true })).empty(200);
    s.delete(&format!("/networks/{net}")).empty(204);
    let told: Vec<(String, Value)> =
        s.events(&json!({ "network": [net] })).iter().map(|e| (text(&e["Action"]), e["Actor"]["Attributes"].clone())).collect();
    // Labels of networks are not told; who is sent away while running is told of twice.
    let (alone, with) = (json!({ "name": name, "type": "bridge" }), json!({ "name": name, "type": "bridge", "container": id }));
    let wanted = [("create", &alone), ("connect", &with), ("disconnect", &with), ("disconnect", &with), ("destroy", &alone)];
    assert_eq!(told.iter().map(|(a, v)| (a.as_str(), v)).collect::<Vec<_>>(), wanted);
    until_told(s, &[&other], &["network create", "network connect"]);
}

fn volumes(s: &Subject) {
    let name = s.name("v");
    for _ in 0..2 {
        s.send("/volumes/create", &json!({ "Name": name, "Labels": { "x": "y" } })).ok(201);
    }
    s.delete(&format!("/volumes/{name}")).empty(204);
    // A volume that is there already is told of as if it was made.
    let told = s.events(&json!({ "volume": [name] }));
    assert_eq!(told.len(), 3, "{told:?}");
    for (told, action) in told.iter().zip(["create", "create", "destroy"]) {
        has(told, &json!({ "Type": "volume", "Action": action, "Actor": { "ID": name, "Attributes": { "driver": "local" } } }));
    }
}

fn images(s: &Subject) {
    let repository = s.name("image");
    s.post(&format!("/images/busybox:local/tag?repo={repository}&tag=1")).empty(201);
    s.delete(&format!("/images/{repository}:1")).ok(200);
    let image = s.get("/images/busybox:local/json").ok(200)["Id"].clone();
    let told = s.events(&json!({ "type": ["image"] }));
    let tagged: Vec<&Value> = told.iter().filter(|e| e["Action"] == "tag" && e["Actor"]["ID"] == image).collect();
    has(
        tagged[0],
        &json!({ "Type": "image", "status": "tag", "id": image, "Actor": { "Attributes": { "name": format!("{repository}:1") } } }),
    );
    let untagged: Vec<&Value> = told.iter().filter(|e| e["Action"] == "untag" && e["Actor"]["ID"] == image).collect();
    has(untagged[0], &json!({ "Actor": { "Attributes": { "name": image } } }));
}

fn exec_and_health(s: &Subject) {
    let check = json!({ "Healthcheck": { "Test": ["CMD", "true"], "Interval": 200_000_000 } });
    let id = s.start("a", check);
    let healthy = s.until(|| {
        s.events(&json!({ "container": [id] }))
            .into_iter()
            .find(|e| text(&e["Action"]).starts_with("health_status"))
            .ok_or_else(String::new)
    });
    has(&healthy, &json!({ "Type": "container", "Action": "health_status: healthy", "status": "health_status: healthy" }));
    has(&s.inspect(&id)["State"]["Health"], &json!({ "Status": "healthy" }));
    // Checks and other commands are told by their words.
    let plain = s.start("b", json!({}));
    let exec = text(&s.send(&format!("/containers/{plain}/exec"), &json!({ "Cmd": ["sh", "-c", "exit 2"] })).ok(201)["Id"]);
    s.send(&format!("/exec/{exec}/start"), &json!({ "Detach": true })).ok(200);
    let wanted = [
        "container create",
        "network connect",
        "container start",
        "container exec_create: sh -c exit 2",
        "container exec_start: sh -c exit 2",
        "container exec_die",
    ];
    until_told(s, &[&plain], &wanted);
    has(&event(s, &plain, "exec_die")["Actor"]["Attributes"], &json!({ "execID": exec, "exitCode": "2", "name": s.name("b") }));
}

fn filters(s: &Subject) {
    let a = s.start("a", json!({ "Labels": { "conf.role": s.name("x") } }));
    let b = s.create("b", json!({}));
    let counted = |filters: Value| -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for event in s.events(&filters).iter().filter(|e| [&a, &b].iter().any(|id| e["Actor"]["ID"] == **id)) {
            *counts.entry(text(&event["Action"])).or_default() += 1;
        }
        counts
    };
    let counts = |list: &[(&str, usize)]| -> BTreeMap<String, usize> { list.iter().map(|(a, n)| ((*a).to_owned(), *n)).collect() };
    assert_eq!(counted(json!({})), counts(&[("create", 2), ("start", 1)]));
    assert_eq!(counted(json!({ "event": ["start"] })), counts(&[("start", 1)]));
    assert_eq!(counted(json!({ "container": [s.name("a")] })), counts(&[("create", 1), ("start", 1)]));
    assert_eq!(counted(json!({ "container": [a] })), counts(&[("create", 1), ("start", 1)]));
    assert_eq!(counted(json!({ "label": [format!("conf.role={}", s.name("x"))] })), counts(&[("create", 1), ("start", 1)]));
    assert_eq!(counted(json!({ "type": ["network", "volume"] })), counts(&[]));
    assert_eq!(counted(json!({ "type": ["container", "network"], "event": ["create"] })), counts(&[("create", 2)]));
    // An interval that has ended before the case began tells nothing of it.
    let reply = s.get(&format!("/events?since=1&until=2&filters=%7B%22container%22%3A%5B%22{a}%22%5D%7D"));
    reply.ok(200);
    assert_eq!(reply.header("content-type").as_deref(), Some("application/json"));
    assert!(reply.bytes().is_empty(), "{reply}");
}

fn live(s: &Subject) {
    // A stream that has begun tells what comes, until its end.
    let id = s.create("a", json!({}));
    let since = s.now();
    let now: i64 = since.split('.').next().and_then(|t| t.parse().ok()).expect("seconds");
    let filters = crate::support::docker::percent(&json!({ "container": [id] }).to_string());
    let reply = s.get_while(&format!("/events?since={since}&until={}&filters={filters}", now + 3), || {
        s.post(&format!("/containers/{id}/start")).empty(204)
    });
    let told: Vec<String> = reply.lines().iter().map(|e| text(&e["Action"])).collect();
    assert_eq!(told, ["start"]);
    // With an end and no beginning the past is told as well.
    let all = s.get(&format!("/events?until={}&filters={filters}", s.now()));
    let told: Vec<String> = all.lines().iter().map(|e| text(&e["Action"])).collect();
    assert_eq!(told, ["create", "start"]);
}
