//! Listing containers.

use serde_json::{Value, json};

use super::Case;
use super::subject::{IMAGE, Subject, has, text};

pub(super) const CASES: &[Case] = &[
    ("list-entry", entry),
    ("list-all", all),
    ("list-limit", limit),
    ("list-endpoints", endpoints),
    ("list-labels", labels),
    ("list-name", name),
    ("list-id", id),
    ("list-status", status),
    ("list-exited", exited),
    ("list-ancestor", ancestor),
    ("list-network", network),
    ("list-volume", volume),
    ("list-order", order),
    ("list-bad-filters", bad_filters),
];

/// The parts of the names of the case's containers that are listed, in the order of the list.
#[track_caller]
fn parts(s: &Subject, path: &str, mut filters: Value) -> Vec<String> {
    if filters.get("name").is_none() {
        filters["name"] = json!([s.prefix()]);
    }
    let list = s.filtered(path, &filters).ok(200);
    let names = list.as_array().into_iter().flatten().map(|c| text(&c["Names"][0]));
    names.map(|n| n.trim_start_matches('/').replacen(s.prefix(), "", 1)).collect()
}

const ALL: &str = "/containers/json?all=1";

fn entry(s: &Subject) {
    let id = s.start("a", json!({ "Labels": { "a": "b" }, "Cmd": ["sh", "-c", "sleep 1000"] }));
    let list = s.filtered(ALL, &json!({ "id": [id] })).ok(200);
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    let image = s.get(&format!("/images/{IMAGE}/json")).ok(200);
    let wanted = json!({
        "Id": id, "Names": [format!("/{}", s.name("a"))], "Image": IMAGE, "ImageID": image["Id"], "Command": "sh -c 'sleep 1000'",
        "Ports": [], "Labels": { "a": "b" }, "State": "running", "HostConfig": { "NetworkMode": "none" }, "Mounts": [],
    });
    has(&list[0], &wanted);
    assert!(list[0]["Created"].is_u64() && text(&list[0]["Status"]).starts_with("Up "), "{list}");
    let inspected = s.inspect(&id);
    assert_eq!(list[0]["NetworkSettings"]["Networks"]["none"]["NetworkID"], inspected["NetworkSettings"]["Networks"]["none"]["NetworkID"]);
}

fn all(s: &Subject) {
    s.create("made", json!({}));
    s.start("runs", json!({}));
    let ended = s.start("ended", json!({ "Cmd": ["true"] }));
    s.until_state(&ended, "exited");
    assert_eq!(parts(s, "/containers/json", json!({})), ["runs"]);
    assert_eq!(parts(s, ALL, json!({})), ["ended", "runs", "made"]);
    // A state asked for is a state looked for.
    assert_eq!(parts(s, "/containers/json", json!({ "status": ["created"] })), ["made"]);
    let list = s.filtered(ALL, &json!({ "name": [s.name("made")] })).ok(200);
    has(&list[0], &json!({ "State": "created", "Status": "Created" }));
}

fn limit(s: &Subject) {
    for part in ["a", "b", "c"] {
        s.create(part, json!({}));
    }
    assert_eq!(parts(s, "/containers/json?limit=2", json!({})), ["c", "b"]);
    s.get("/containers/json?limit=x").refused(500, "strconv.Atoi: parsing \"x\": invalid syntax");
}

/// Of a network the list has the addresses, and not what only the container needs.
fn endpoints(s: &Subject) {
    let name = s.name("n");
    let id = s.network("n", json!({}));
    let ends = json!({ "EndpointsConfig": { name.as_str(): { "Aliases": ["web"] } } });
    s.start("a", json!({ "HostConfig": { "NetworkMode": name }, "NetworkingConfig": ends }));
    let list = s.filtered(ALL, &json!({ "name": [s.name("a")] })).ok(200);
    let (listed, shown) = (&list[0]["NetworkSettings"]["Networks"][&name], &s.inspect(&s.name("a"))["NetworkSettings"]["Networks"][&name]);
    has(listed, &json!({ "NetworkID": id, "Aliases": null, "IPAddress": shown["IPAddress"], "MacAddress": shown["MacAddress"] }));
    assert_eq!(shown["Aliases"][0], "web");
}

fn labels(s: &Subject) {
    let key = s.name("key");
    s.create("a", json!({ "Labels": { key.as_str(): "1", "x": "" } }));
    s.create("b", json!({ "Labels": { key.as_str(): "2" } }));
    s.create("c", json!({}));
    assert_eq!(parts(s, ALL, json!({ "label": [key] })), ["b", "a"]);
    assert_eq!(parts(s, ALL, json!({ "label": [format!("{key}=1")] })), ["a"]);
    assert_eq!(parts(s, ALL, json!({ "label": [key, "x"] })), ["a"]);
    assert_eq!(parts(s, ALL, json!({ "label": [format!("{key}=3")] })), [""; 0]);
    // The older spelling of filters.
    assert_eq!(parts(s, ALL, json!({ "label": { format!("{key}=2"): true }, "name": { s.prefix(): true } })), ["b"]);
}

fn name(s: &Subject) {
    s.create("web", json!({}));
    s.create("web-2", json!({}));
    let web = s.name("web");
    assert_eq!(parts(s, ALL, json!({ "name": [web] })), ["web-2", "web"]);
    assert_eq!(parts(s, ALL, json!({ "name": [format!("/{web}")] })), ["web-2", "web"]);
    assert_eq!(parts(s, ALL, json!({ "name": [format!("^/{web}$")] })), ["web"]);
    assert_eq!(parts(s, ALL, json!({ "name": [format!("{web}$")] })), ["web"]);
    assert_eq!(parts(s, ALL, json!({ "name": [format!("^{web}$")] })), ["web"]);
    assert_eq!(parts(s, ALL, json!({ "name": [s.name("none"), s.name("web-2")] })), ["web-2"]);
}

fn id(s: &Subject) {
    let id = s.create("a", json!({}));
    s.create("b", json!({}));
    assert_eq!(parts(s, ALL, json!({ "id": [id] })), ["a"]);
    assert_eq!(parts(s, ALL, json!({ "id": [id[..12]] })), ["a"]);
    assert_eq!(parts(s, ALL, json!({ "id": [id[5..20]] })), [""; 0]);
}

fn status(s: &Subject) {
    s.create("made", json!({}));
    s.start("runs", json!({}));
    let paused = s.start("paused", json!({}));
    s.act(&paused, "pause").empty(204);
    for (status, wanted) in [("created", "made"), ("running", "runs"), ("paused", "paused")] {
        assert_eq!(parts(s, ALL, json!({ "status": [status] })), [wanted]);
    }
    assert_eq!(parts(s, ALL, json!({ "status": ["created", "running"] })), ["runs", "made"]);
}

fn exited(s: &Subject) {
    for (part, code) in [("zero", 0), ("seven", 7)] {
        let id = s.start(part, json!({ "Cmd": ["sh", "-c", format!("exit {code}")] }));
        s.until_state(&id, "exited");
    }
    assert_eq!(parts(s, ALL, json!({ "exited": ["7"] })), ["seven"]);
    assert_eq!(parts(s, ALL, json!({ "status": ["exited"] })), ["seven", "zero"]);
}

fn ancestor(s: &Subject) {
    s.create("a", json!({}));
    s.create("b", json!({ "Image": "busybox:two" }));
    let image = text(&s.get(&format!("/images/{IMAGE}/json")).ok(200)["Id"]);
    assert_eq!(parts(s, ALL, json!({ "ancestor": [IMAGE] })), ["a"]);
    assert_eq!(parts(s, ALL, json!({ "ancestor": [image] })), ["a"]);
    assert_eq!(parts(s, ALL, json!({ "ancestor": ["conf-nonesuch"] })), [""; 0]);
}

fn network(s: &Subject) {
    let id = s.network("n", json!({}));
    s.create("a", json!({ "HostConfig": { "NetworkMode": s.name("n") } }));
    s.create("b", json!({}));
    assert_eq!(parts(s, ALL, json!({ "network": [s.name("n")] })), ["a"]);
    s.act(&s.name("a"), "start").empty(204);
    assert_eq!(parts(s, ALL, json!({ "network": [id] })), ["a"]);
    assert_eq!(parts(s, ALL, json!({ "network": ["none"] })), ["b"]);
}

fn volume(s: &Subject) {
    let mounts = json!([{ "Type": "volume", "Source": s.name("v"), "Target": "/data" }]);
    s.create("a", json!({ "HostConfig": { "Mounts": mounts } }));
    s.create("b", json!({}));
    assert_eq!(parts(s, ALL, json!({ "volume": [s.name("v")] })), ["a"]);
    assert_eq!(parts(s, ALL, json!({ "volume": ["/data"] })), ["a"]);
}

fn order(s: &Subject) {
    for part in ["b", "a", "c"] {
        s.create(part, json!({}));
    }
    assert_eq!(parts(s, ALL, json!({})), ["c", "a", "b"]);
    assert_eq!(parts(s, ALL, json!({ "before": [s.name("a")] })), ["b"]);
    assert_eq!(parts(s, ALL, json!({ "since": [s.name("a")] })), ["c"]);
}

fn bad_filters(s: &Subject) {
    s.filtered(ALL, &json!({ "nope": ["x"] })).refused(400, "Invalid filter 'nope'");
    s.filtered(ALL, &json!({ "status": ["x"] })).refused(400, "Invalid filter 'status=x'");
    s.filtered(ALL, &json!({ "health": ["x"] })).refused(400, "Unrecognised filter value for health: x");
    s.get("/containers/json?filters=xx").refused(500, "invalid character 'x' looking for beginning of value");
    s.filtered("/networks", &json!({ "nope": ["x"] })).refused(400, "Invalid filter 'nope'");
    s.filtered("/volumes", &json!({ "nope": ["x"] })).refused(400, "Invalid filter 'nope'");
    s.filtered("/images/json", &json!({ "nope": ["x"] })).refused(400, "Invalid filter 'nope'");
}
