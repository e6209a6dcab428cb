//! Volumes.

use serde_json::{Value, json};

use super::Case;
use super::subject::{Subject, has, is_id, text};

pub(super) const CASES: &[Case] = &[
    ("volume-shown", shown),
    ("volume-again", again),
    ("volume-options", options),
    ("volume-nameless", nameless),
    ("volume-refused", refused),
    ("volume-in-use", in_use),
    ("volume-list", list),
    ("volume-prune", prune),
    ("volume-remove", remove),
];

fn shown(s: &Subject) {
    let made = s.send("/volumes/create", &json!({ "Name": s.name("v"), "Labels": { "a": "b" } })).ok(201);
    has(&made, &json!({ "Name": s.name("v"), "Driver": "local", "Labels": { "a": "b" }, "Options": null, "Scope": "local" }));
    assert!(text(&made["Mountpoint"]).ends_with(&format!("/volumes/{}/_data", s.name("v"))));
    assert!(text(&made["CreatedAt"]).ends_with('Z'));
    assert_eq!(s.get(&format!("/volumes/{}", s.name("v"))).ok(200), made);
    let plain = s.send("/volumes/create", &json!({ "Name": s.name("w") })).ok(201);
    assert_eq!(plain["Labels"], Value::Null);
}

/// Made again it is the old one, whatever is asked for.
fn again(s: &Subject) {
    let first = s.send("/volumes/create", &json!({ "Name": s.name("v"), "Labels": { "a": "b" } })).ok(201);
    let second = s.send("/volumes/create", &json!({ "Name": s.name("v"), "Labels": { "x": "y" } })).ok(201);
    assert_eq!(first, second);
}

fn options(s: &Subject) {
    let options = json!({ "type": "tmpfs", "device": "tmpfs", "o": "size=1m" });
    s.volume("v", json!({ "DriverOpts": options }));
    assert_eq!(s.get(&format!("/volumes/{}", s.name("v"))).ok(200)["Options"], options);
    let bad = s.send("/volumes/create", &json!({ "Name": s.name("w"), "DriverOpts": { "foo": "bar" } }));
    bad.refused(400, &format!("create {}: invalid option: \"foo\"", s.name("w")));
}

fn nameless(s: &Subject) {
    let made = s.send("/volumes/create", &json!({})).ok(201);
    let name = text(&made["Name"]);
    s.delete(&format!("/volumes/{name}")).empty(204);
    assert!(is_id(&name), "{name}");
}

fn refused(s: &Subject) {
    let create = |body: Value| s.send("/volumes/create", &body);
    let letters = "create -x: \"-x\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
                   allowed. If you intended to pass a host directory, use absolute path";
    create(json!({ "Name": "-x" })).refused(400, letters);
    let short = "create x: volume name is too short, names should be at least two alphanumeric characters";
    create(json!({ "Name": "x" })).refused(400, short);
    s.get("/volumes/conf-nonesuch").refused(404, "get conf-nonesuch: no such volume");
}

/// Whoever names it holds it, running or not, and force does not help.
fn in_use(s: &Subject) {
    let name = s.volume("v", json!({}));
    let mounts = json!([{ "Type": "volume", "Source": name, "Target": "/data" }]);
    let id = s.create("a", json!({ "HostConfig": { "Mounts": mounts } }));
    let message = format!("remove {name}: volume is in use - [{id}]");
    s.delete(&format!("/volumes/{name}")).refused(409, &message);
    s.delete(&format!("/volumes/{name}?force=1")).refused(409, &message);
    s.delete(&format!("/containers/{id}")).empty(204);
    s.delete(&format!("/volumes/{name}")).empty(204);
}

#[track_caller]
fn parts(s: &Subject, filters: &Value) -> Vec<String> {
    let list = s.filtered("/volumes", filters).ok(200);
    assert_eq!(list["Warnings"], Value::Null);
    let names = list["Volumes"].as_array().into_iter().flatten().map(|v| text(&v["Name"]));
    let mut parts: Vec<String> = names.filter_map(|n| n.strip_prefix(s.prefix()).map(str::to_owned)).collect();
    parts.sort();
    parts
}

fn list(s: &Subject) {
    let key = s.name("key");
    s.volume("a", json!({ "Labels": { key.as_str(): "1" } }));
    s.volume("b", json!({ "Labels": { key.as_str(): "2" } }));
    s.volume("c", json!({}));
    let mounts = json!([{ "Type": "volume", "Source": s.name("b"), "Target": "/data" }]);
    s.create("x", json!({ "HostConfig": { "Mounts": mounts } }));
    assert_eq!(parts(s, &json!({})), ["a", "b", "c"]);
    assert_eq!(parts(s, &json!({ "label": [key] })), ["a", "b"]);
    assert_eq!(parts(s, &json!({ "label": [format!("{key}=1")] })), ["a"]);
    assert_eq!(parts(s, &json!({ "name": [s.name("c")] })), ["c"]);
    assert_eq!(parts(s, &json!({ "name": [s.prefix()] })), ["a", "b", "c"]);
    assert_eq!(parts(s, &json!({ "dangling": ["true"] })), ["a", "c"]);
    assert_eq!(parts(s, &json!({ "dangling": ["false"] })), ["b"]);
    assert_eq!(parts(s, &json!({ "driver": ["local"] })), ["a", "b", "c"]);
    assert_eq!(parts(s, &json!({ "driver": ["nonesuch"] })), [""; 0]);
}

fn prune(s: &Subject) {
    let key = s.name("key");
    let labels = json!({ "Labels": { key.as_str(): "" } });
    s.volume("used", labels.clone());
    s.volume("unused", labels);
    s.volume("other", json!({}));
    let mounts = json!([{ "Type": "volume", "Source": s.name("used"), "Target": "/data" }]);
    s.create("x", json!({ "HostConfig": { "Mounts": mounts } }));
    let filters = crate::support::docker::percent(&json!({ "label": [key] }).to_string());
    let pruned = s.post(&format!("/volumes/prune?filters={filters}")).ok(200);
    assert_eq!(pruned, json!({ "VolumesDeleted": [s.name("unused")], "SpaceReclaimed": 0 }));
    assert_eq!(parts(s, &json!({})), ["other", "used"]);
}

fn remove(s: &Subject) {
    let name = s.volume("v", json!({}));
    s.delete(&format!("/volumes/{name}")).empty(204);
    s.delete(&format!("/volumes/{name}")).refused(404, &format!("get {name}: no such volume"));
    s.delete(&format!("/volumes/{name}?force=1")).empty(204);
}
