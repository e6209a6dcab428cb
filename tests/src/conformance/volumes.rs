//! Volumes.

use serde_json::{Value, json};

use super::subject::{Subject, has, is_id, text};
use super::{Area, Case};
use crate::support::docker::percent;

pub(super) const CASES: &[Case] = &[
    Case { area: Area::Volumes, name: "volume-create", run: create },
    Case { area: Area::Volumes, name: "volume-refused", run: refused },
    Case { area: Area::Volumes, name: "volume-list", run: list },
    Case { area: Area::Volumes, name: "volume-in-use", run: in_use },
    Case { area: Area::Volumes, name: "volume-content", run: content },
    Case { area: Area::Volumes, name: "volume-prune", run: prune },
];

fn create(s: &Subject) {
    let name = s.name("v");
    let first = s.send("/volumes/create", &json!({ "Name": name, "Labels": { "a": "1" } })).ok(201);
    has(&first, &json!({ "Name": name, "Driver": "local", "Scope": "local", "Labels": { "a": "1" }, "Options": null }));
    assert!(text(&first["Mountpoint"]).ends_with(&format!("/volumes/{name}/_data")), "{first}");
    assert!(text(&first["CreatedAt"]).ends_with('Z'), "{first}");
    // Made again it is the same volume, with the labels that it had.
    assert_eq!(s.send("/volumes/create", &json!({ "Name": name, "Labels": { "a": "2" } })).ok(201), first);
    assert_eq!(s.get(&format!("/volumes/{name}")).ok(200), first);
    let nameless = text(&s.send("/volumes/create", &json!({})).ok(201)["Name"]);
    s.owes(&nameless);
    assert!(is_id(&nameless), "{nameless}");
    s.delete(&format!("/volumes/{name}")).empty(204);
    s.delete(&format!("/volumes/{name}")).refused(404, &format!("get {name}: no such volume"));
    s.delete(&format!("/volumes/{name}?force=1")).empty(204);
    s.get(&format!("/volumes/{name}")).refused(404, &format!("get {name}: no such volume"));
}

fn refused(s: &Subject) {
    let name = s.name("v");
    s.send("/volumes/create", &json!({ "Name": name, "Driver": "nope" }))
        .refused(404, &format!("create {name}: error looking up volume plugin nope: plugin \"nope\" not found"));
    s.send("/volumes/create", &json!({ "Name": "-v" })).refused(
        400,
        "create -v: \"-v\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
         If you intended to pass a host directory, use absolute path",
    );
}

fn list(s: &Subject) {
    let label = s.name("label");
    for part in ["a", "b"] {
        s.send("/volumes/create", &json!({ "Name": s.name(part), "Labels": { label.clone(): part } })).ok(201);
    }
    let found = |filters: Value| -> Vec<String> {
        let list = s.filtered("/volumes", &filters).ok(200);
        let mut names: Vec<String> = list["Volumes"].as_array().into_iter().flatten().map(|v| text(&v["Name"])).collect();
        names.sort();
        names.into_iter().map(|n| n.trim_start_matches(s.prefix()).to_owned()).collect()
    };
    assert_eq!(found(json!({ "label": [label] })), ["a", "b"]);
    assert_eq!(found(json!({ "label": [format!("{label}=b")] })), ["b"]);
    assert_eq!(found(json!({ "name": [s.prefix()] })), ["a", "b"]);
    assert_eq!(found(json!({ "driver": ["local"], "name": [s.name("a")] })), ["a"]);
    let user = json!({ "HostConfig": { "Mounts": [{ "Type": "volume", "Source": s.name("a"), "Target": "/data" }] } });
    s.create("c", user);
    assert_eq!(found(json!({ "dangling": ["true"], "name": [s.prefix()] })), ["b"]);
    assert_eq!(found(json!({ "dangling": ["false"], "name": [s.prefix()] })), ["a"]);
    has(&s.filtered("/volumes", &json!({ "name": [s.name("none")] })).ok(200), &json!({ "Volumes": [], "Warnings": null }));
}

fn in_use(s: &Subject) {
    let name = s.name("v");
    let user = json!({ "HostConfig": { "Mounts": [{ "Type": "volume", "Source": name, "Target": "/data" }] } });
    let id = s.create("c", user);
    // By a container that does not run, too; force changes nothing.
    for force in ["", "?force=1"] {
        s.delete(&format!("/volumes/{name}{force}")).refused(409, &format!("remove {name}: volume is in use - [{id}]"));
    }
    s.delete(&format!("/containers/{id}?v=1")).empty(204);
    // A volume with a name stays, whatever its container took along.
    s.delete(&format!("/volumes/{name}")).empty(204);
}

fn content(s: &Subject) {
    let mounts = json!([{ "Type": "volume", "Source": s.name("v"), "Target": "/data" }]);
    let line = |line: &str| json!({ "Cmd": ["sh", "-c", line], "HostConfig": { "Mounts": mounts } });
    let writes = s.start("writes", line("echo kept > /data/file"));
    has(&s.until_state(&writes, "exited")["State"], &json!({ "ExitCode": 0 }));
    s.delete(&format!("/containers/{writes}")).empty(204);
    let reads = s.start("reads", line("test -e /data/file"));
    has(&s.until_state(&reads, "exited")["State"], &json!({ "ExitCode": 0 }));
}

fn prune(s: &Subject) {
    let label = s.name("label");
    s.send("/volumes/create", &json!({ "Name": s.name("idle"), "Labels": { label.clone(): "" } })).ok(201);
    s.send("/volumes/create", &json!({ "Name": s.name("busy"), "Labels": { label.clone(): "" } })).ok(201);
    s.create("c", json!({ "HostConfig": { "Mounts": [{ "Type": "volume", "Source": s.name("busy"), "Target": "/data" }] } }));
    let filters = percent(&json!({ "label": [label] }).to_string());
    let pruned = s.post(&format!("/volumes/prune?filters={filters}")).ok(200);
    has(&pruned, &json!({ "VolumesDeleted": [s.name("idle")], "SpaceReclaimed": 0 }));
    s.get(&format!("/volumes/{}", s.name("busy"))).ok(200);
}
