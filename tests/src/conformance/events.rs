//! What the engine says of what happens: the order, and what stands in it.

use serde_json::{Value, json};

use super::Case;
use super::subject::{Subject, keys, text};

pub(super) const CASES: &[Case] = &[
    ("events-run", run),
    ("events-attributes", attributes),
    ("events-shape", shape),
    ("events-stop", stop),
    ("events-restart", restart),
    ("events-force-remove", force_remove),
    ("events-failed-start", failed_start),
    ("events-changes", changes),
    ("events-network", network),
    ("events-volume", volume),
    ("events-exec", exec),
    ("events-archive", archive),
    ("events-image", image),
    ("events-filters", filters),
    ("events-interval", interval),
    ("events-followed", followed),
    ("events-refused", refused),
];

/// An event as one line: type, action, and who: a container, or the container in a network or volume.
fn line(event: &Value) -> String {
    format!("{} {}", text(&event["Type"]), text(&event["Action"]))
}

/// All events since the case began that are about these: containers, networks and volumes by id or name.
#[track_caller]
fn about(s: &Subject, who: &[&str]) -> Vec<Value> {
    let mine = |event: &Value| {
        let actor = &event["Actor"];
        let of_container = actor["Attributes"]["container"].as_str().is_some_and(|c| who.contains(&c));
        of_container || actor["ID"].as_str().is_some_and(|id| who.contains(&id))
    };
    s.events(&json!({})).into_iter().filter(mine).collect()
}

#[track_caller]
fn lines(s: &Subject, who: &[&str]) -> Vec<String> {
    about(s, who).iter().map(line).collect()
}

/// Sorted where the engine keeps no order: what the container and its networks say at the same time.
fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

fn run(s: &Subject) {
    let network = s.network("n", json!({}));
    let volume = s.volume("v", json!({}));
    let patch = json!({ "HostConfig": {
        "NetworkMode": s.name("n"), "Mounts": [{ "Type": "volume", "Source": volume, "Target": "/data" }],
    } });
    let id = s.start("a", patch);
    let wanted =
        ["network create", "volume create", "volume create", "container create", "network connect", "volume mount", "container start"];
    // Naming a volume that is there makes it once more.
    assert_eq!(lines(s, &[&id, &network, &volume]), wanted);
}

fn attributes(s: &Subject) {
    let network = s.network("n", json!({}));
    let volume = s.volume("v", json!({}));
    let patch = json!({ "Labels": { "a": "b" }, "HostConfig": {
        "NetworkMode": s.name("n"), "Mounts": [{ "Type": "volume", "Source": volume, "Target": "/data", "ReadOnly": true }],
    } });
    let id = s.start("a", patch);
    s.act(&id, "kill?signal=TERM").empty(204);
    s.until_state(&id, "exited");
    let all = s.until(|| {
        let all = about(s, &[&id, &network, &volume]);
        if all.iter().any(|e| line(e) == "volume unmount") { Ok(all) } else { Err(format!("{all:?}")) }
    });
    let of = |wanted: &str| {
        let found = all.iter().find(|e| line(e) == wanted).unwrap_or_else(|| panic!("{wanted} is missing: {all:?}"));
        found["Actor"]["Attributes"].clone()
    };
    let plain = json!({ "a": "b", "image": "busybox:local", "name": s.name("a") });
    let with = |key: &str, value: &str| {
        let mut all = plain.clone();
        all[key] = json!(value);
        all
    };
    assert_eq!(of("container create"), plain);
    assert_eq!(of("container start"), plain);
    assert_eq!(of("container kill"), with("signal", "15"));
    assert_eq!(of("container die"), with("exitCode", "143"));
    assert_eq!(of("network create"), json!({ "name": s.name("n"), "type": "bridge" }));
    let in_network = json!({ "container": id, "name": s.name("n"), "type": "bridge" });
    assert_eq!(of("network connect"), in_network);
    assert_eq!(of("network disconnect"), in_network);
    assert_eq!(of("volume create"), json!({ "driver": "local" }));
    let mount = json!({ "container": id, "destination": "/data", "driver": "local", "propagation": "", "read/write": "false" });
    assert_eq!(of("volume mount"), mount);
    assert_eq!(of("volume unmount"), json!({ "container": id, "driver": "local" }));
}

fn shape(s: &Subject) {
    let network = s.network("n", json!({}));
    let id = s.create("a", json!({}));
    let all = about(s, &[&id, &network]);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(sorted(keys(&all[0]).into_iter().map(str::to_owned).collect()), ["Action", "Actor", "Type", "scope", "time", "timeNano"]);
    let made = &all[1];
    let old = ["Action", "Actor", "Type", "from", "id", "scope", "status", "time", "timeNano"];
    assert_eq!(sorted(keys(made).into_iter().map(str::to_owned).collect()), old);
    assert_eq!(
        (&made["status"], &made["id"], &made["from"], &made["scope"]),
        (&json!("create"), &json!(id), &json!("busybox:local"), &json!("local"))
    );
    assert_eq!(made["timeNano"].as_i64().map(|n| n / 1_000_000_000), made["time"].as_i64());
}

fn stop(s: &Subject) {
    let id = s.start("a", json!({}));
    s.act(&id, "stop").empty(204);
    let container = lines(s, &[&id]).into_iter().filter(|l| l.starts_with("container ")).collect::<Vec<_>>();
    assert_eq!(container, ["container create", "container start", "container kill", "container die", "container stop"]);
    assert_eq!(
        lines(s, &[&id]),
        [
            "container create",
            "network connect",
            "container start",
            "container kill",
            "container die",
            "network disconnect",
            "container stop",
        ]
    );
}

fn restart(s: &Subject) {
    let id = s.start("a", json!({}));
    s.act(&id, "restart").empty(204);
    assert_eq!(
        lines(s, &[&id])[3..],
        [
            "container kill",
            "container die",
            "network disconnect",
            "container stop",
            "network connect",
            "container start",
            "container restart",
        ]
    );
}

fn force_remove(s: &Subject) {
    let id = s.start("a", json!({ "Volumes": { "/anon": {} } }));
    let volume = text(&s.inspect(&id)["Mounts"][0]["Name"]);
    s.delete(&format!("/containers/{id}?force=1&v=1")).empty(204);
    let wanted = [
        "volume create",
        "container create",
        "network connect",
        "volume mount",
        "container start",
        "container kill",
        "container die",
        "network disconnect",
        "volume unmount",
        "container destroy",
        "volume destroy",
    ];
    let all = lines(s, &[&id, &volume]);
    assert_eq!(sorted(all.clone()), sorted(wanted.map(str::to_owned).to_vec()));
    let container = |lines: &[String]| lines.iter().filter(|l| l.starts_with("container ")).cloned().collect::<Vec<_>>();
    assert_eq!(container(&all), container(&wanted.map(str::to_owned)));
}

fn failed_start(s: &Subject) {
    let id = s.create("a", json!({ "Cmd": ["/nonesuch"], "HostConfig": { "Init": false } }));
    s.act(&id, "start").ok(400);
    assert_eq!(lines(s, &[&id]), ["container create", "network connect", "network disconnect"]);
}

fn changes(s: &Subject) {
    let id = s.start("a", json!({}));
    s.act(&id, "pause").empty(204);
    s.act(&id, "unpause").empty(204);
    s.act(&id, &format!("rename?name={}", s.name("b"))).empty(204);
    s.send(&format!("/containers/{id}/update"), &json!({ "CpuShares": 512 })).ok(200);
    let all = about(s, &[&id]);
    let mut names: Vec<String> = all[3..].iter().map(line).collect();
    // A daemon under load was seen to tell of a pause twice: it hears of it from containerd.
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    assert_eq!(names, ["container pause", "container unpause", "container rename", "container update"]);
    let renamed = json!({ "image": "busybox:local", "name": s.name("b"), "oldName": format!("/{}", s.name("a")) });
    let rename = all.iter().find(|event| line(event) == "container rename").expect("it was just counted");
    assert_eq!(rename["Actor"]["Attributes"], renamed);
    // What is refused is no event.
    s.act(&id, "start").empty(304);
    s.act(&id, "unpause").ok(500);
    assert_eq!(about(s, &[&id]).len(), all.len());
}

fn network(s: &Subject) {
    let first = s.network("n", json!({}));
    let second = s.network("m", json!({}));
    let id = s.start("a", json!({ "HostConfig": { "NetworkMode": s.name("n") } }));
    s.send(&format!("/networks/{second}/connect"), &json!({ "Container": id })).empty(200);
    s.send(&format!("/networks/{second}/disconnect"), &json!({ "Container": id })).empty(200);
    s.delete(&format!("/networks/{second}")).empty(204);
    // A running container's disconnect is said twice.
    let wanted = ["network create", "network connect", "network disconnect", "network disconnect", "network destroy"];
    let of_second = about(s, &[&second]);
    assert_eq!(of_second.iter().map(line).collect::<Vec<_>>(), wanted);
    assert_eq!(of_second[4]["Actor"]["Attributes"], json!({ "name": s.name("m"), "type": "bridge" }));
    let of_first = about(s, &[&first]);
    assert_eq!(of_first.iter().map(line).collect::<Vec<_>>(), ["network create", "network connect"]);
}

fn volume(s: &Subject) {
    let name = s.volume("v", json!({}));
    s.volume("v", json!({}));
    s.delete(&format!("/volumes/{name}")).empty(204);
    assert_eq!(lines(s, &[&name]), ["volume create", "volume create", "volume destroy"]);
}

fn exec(s: &Subject) {
    let id = s.start("a", json!({}));
    let exec =
        text(&s.send(&format!("/containers/{id}/exec"), &json!({ "Cmd": ["sh", "-c", "exit 2"], "AttachStdout": true })).ok(201)["Id"]);
    s.send(&format!("/exec/{exec}/start"), &json!({})).ok(200);
    let all = s.until(|| {
        let all = about(s, &[&id]);
        if all.iter().any(|e| e["Action"] == "exec_die") { Ok(all) } else { Err(format!("{all:?}")) }
    });
    let names: Vec<String> = all[3..].iter().map(line).collect();
    assert_eq!(names, ["container exec_create: sh -c exit 2", "container exec_start: sh -c exit 2", "container exec_die"]);
    let wanted = json!({ "execID": exec, "exitCode": "2", "image": "busybox:local", "name": s.name("a") });
    assert_eq!(all[5]["Actor"]["Attributes"], wanted);
}

fn archive(s: &Subject) {
    let volume = s.volume("v", json!({}));
    let mounts = json!([{ "Type": "volume", "Source": volume, "Target": "/data" }]);
    let id = s.create("a", json!({ "HostConfig": { "Mounts": mounts } }));
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(0);
    tar.append_data(&mut header, "x", &b""[..]).expect("an archive in memory can be written");
    let bytes = tar.into_inner().expect("an archive in memory can be written");
    s.raw("PUT", &format!("/v1.41/containers/{id}/archive?path=/"), Some(("application/x-tar", &bytes))).empty(200);
    s.get(&format!("/containers/{id}/archive?path=/x")).ok(200);
    s.raw("HEAD", &format!("/v1.41/containers/{id}/archive?path=/x"), None).empty(200);
    s.get(&format!("/containers/{id}/archive?path=/nonesuch")).ok(404);
    // Volumes are mounted for as long as it takes, whatever comes of it.
    let wanted = [
        "container create",
        "volume mount",
        "container extract-to-dir",
        "volume unmount",
        "volume mount",
        "container archive-path",
        "volume unmount",
        "volume mount",
        "volume unmount",
        "volume mount",
        "volume unmount",
    ];
    assert_eq!(lines(s, &[&id]), wanted);
}

fn image(s: &Subject) {
    let id = text(&s.get("/images/busybox:local/json").ok(200)["Id"]);
    let name = format!("{}:one", s.name("i"));
    s.post(&format!("/images/busybox:local/tag?repo={}&tag=one", s.name("i"))).empty(201);
    s.delete(&format!("/images/{name}")).ok(200);
    let all: Vec<Value> = about(s, &[&id]).into_iter().filter(|e| e["Type"] == "image").collect();
    let ours = all.iter().filter(|e| e["Action"] == "tag" && e["Actor"]["Attributes"]["name"] == json!(name)).count();
    assert_eq!(ours, 1, "{all:?}");
    assert!(all.iter().any(|e| e["Action"] == "untag"), "{all:?}");
}

fn filters(s: &Subject) {
    let key = s.name("key");
    let network = s.network("n", json!({}));
    let a = s.start("a", json!({ "Labels": { key.as_str(): "1" }, "HostConfig": { "NetworkMode": s.name("n") } }));
    let b = s.start("b", json!({}));
    s.act(&a, "kill").empty(204);
    s.until_state(&a, "exited");
    let found = |filters: Value| s.events(&filters).iter().map(line).collect::<Vec<_>>();
    assert_eq!(found(json!({ "container": [a], "event": ["start", "die"] })), ["container start", "container die"]);
    assert_eq!(found(json!({ "container": [s.name("b")], "type": ["container"] })), ["container create", "container start"]);
    assert_eq!(found(json!({ "label": [format!("{key}=1")], "event": ["create"] })), ["container create"]);
    assert_eq!(found(json!({ "network": [network], "event": ["connect"] })), ["network connect"]);
    assert_eq!(found(json!({ "network": [s.name("n")], "event": ["create"] })), ["network create"]);
    assert_eq!(found(json!({ "container": [a, b], "event": ["create"] })), ["container create"; 2]);
    assert_eq!(found(json!({ "container": [a], "image": ["busybox:local"], "event": ["create"] })), ["container create"]);
    assert_eq!(found(json!({ "container": [a], "type": ["volume"] })), [""; 0]);
}

/// Both ends belong to the interval, and what was before is not told.
fn interval(s: &Subject) {
    let id = s.create("a", json!({}));
    let between = s.now();
    s.act(&id, "start").empty(204);
    let filters = crate::support::docker::percent(&json!({ "container": [id], "type": ["container"] }).to_string());
    let ask = |query: String| s.get(&format!("/events?{query}&filters={filters}")).lines().iter().map(line).collect::<Vec<_>>();
    assert_eq!(ask(format!("since={between}&until={}", s.now())), ["container start"]);
    assert_eq!(ask(format!("since=0&until={between}")), ["container create"]);
    // An end makes it a question about the past.
    assert_eq!(ask(format!("until={}", s.now())), ["container create", "container start"]);
    let start = about(s, &[&id]).iter().find(|e| e["Action"] == "start").and_then(|e| e["timeNano"].as_i64()).expect("it has a time");
    let exact = format!("{}.{:09}", start / 1_000_000_000, start % 1_000_000_000);
    assert_eq!(ask(format!("since={exact}&until={exact}")), ["container start"]);
}

/// Followers hear it in the order in which the engine tells it afterwards.
fn followed(s: &Subject) {
    let recorder = s.record();
    // A follower hears only what happens after its request was served, which the engine does not show: until the first, ask again.
    s.until(|| {
        s.send("/volumes/create", &json!({ "Name": s.name("v") })).ok(201);
        if recorder.since(0).iter().any(|e| e["Actor"]["ID"] == json!(s.name("v"))) { Ok(()) } else { Err("nothing came".to_owned()) }
    });
    let mark = recorder.mark();
    let id = s.start("a", json!({}));
    s.act(&id, "stop").empty(204);
    let heard = recorder.until(mark, |e| e["Action"] == "stop" && e["Actor"]["ID"] == json!(id));
    let mine = |e: &&Value| e["Actor"]["ID"] == json!(id) || e["Actor"]["Attributes"]["container"] == json!(id);
    assert_eq!(heard.iter().filter(mine).cloned().collect::<Vec<_>>(), about(s, &[&id]));
}

fn refused(s: &Subject) {
    s.get("/events?since=x").refused(500, "strconv.ParseInt: parsing \"x\": invalid syntax");
    s.get("/events?since=2&until=1").refused(400, "`since` time (2) cannot be after `until` time (1)");
}
