//! Renaming, changing limits in place, removing.

use serde_json::{Value, json};

use super::Case;
use super::subject::{Subject, has, text};

pub(super) const CASES: &[Case] = &[
    ("rename", rename),
    ("rename-refused", rename_refused),
    ("update", update),
    ("update-refused", update_refused),
    ("update-stopped", update_stopped),
    ("update-lifts", update_lifts),
    ("remove", remove),
    ("remove-running", remove_running),
    ("remove-volumes", remove_volumes),
];

fn rename(s: &Subject) {
    let id = s.start("a", json!({}));
    s.act(&s.name("a"), &format!("rename?name={}", s.name("b"))).empty(204);
    assert_eq!(s.inspect(&s.name("b"))["Id"], json!(id));
    s.get(&format!("/containers/{}/json", s.name("a"))).refused(404, &format!("No such container: {}", s.name("a")));
    s.create("a", json!({}));
    let list = s.filtered("/containers/json", &json!({ "id": [id] })).ok(200);
    assert_eq!(list[0]["Names"], json!([format!("/{}", s.name("b"))]));
}

fn rename_refused(s: &Subject) {
    let a = s.create("a", json!({}));
    let b = s.create("b", json!({}));
    let message = format!(
        "Error when allocating new name: Conflict. The container name \"/{}\" is already in use by container \"{b}\". You have to \
         remove (or rename) that container to be able to reuse that name.",
        s.name("b")
    );
    s.act(&a, &format!("rename?name={}", s.name("b"))).refused(409, &message);
    let same = "Renaming a container with the same name as its current name";
    s.act(&a, &format!("rename?name={}", s.name("a"))).refused(400, same);
    s.act(&a, "rename").refused(400, "Neither old nor new names may be empty");
    s.act(&a, "rename?name=").refused(400, "Neither old nor new names may be empty");
    let bad = "Error when allocating new name: Invalid container name (/-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed";
    s.act(&a, "rename?name=-x").refused(400, bad);
    s.act("conf-nonesuch", "rename?name=conf-x").refused(404, "No such container: conf-nonesuch");
    assert_eq!(s.inspect(&a)["Name"], json!(format!("/{}", s.name("a"))));
}

#[track_caller]
fn change(s: &Subject, id: &str, patch: &Value) -> super::Reply {
    s.send(&format!("/containers/{id}/update"), patch)
}

fn update(s: &Subject) {
    let id = s.start("a", json!({}));
    let patch = json!({
        "Memory": 67_108_864, "MemorySwap": 134_217_728, "NanoCpus": 500_000_000, "PidsLimit": 50, "CpuShares": 512,
        "MemoryReservation": 33_554_432, "RestartPolicy": { "Name": "unless-stopped", "MaximumRetryCount": 0 },
    });
    assert_eq!(change(s, &id, &patch).ok(200), json!({ "Warnings": null }));
    has(&s.inspect(&id)["HostConfig"], &patch);
    // What is not said stays.
    change(s, &id, &json!({})).ok(200);
    change(s, &id, &json!({ "CpuShares": 256 })).ok(200);
    has(&s.inspect(&id)["HostConfig"], &json!({ "Memory": 67_108_864, "CpuShares": 256, "PidsLimit": 50 }));
    assert_eq!(s.inspect(&id)["State"]["Status"], "running");
}

fn update_refused(s: &Subject) {
    let id = s.start("a", json!({ "HostConfig": { "Memory": 67_108_864, "NanoCpus": 500_000_000 } }));
    let cpus = s.get("/info").ok(200)["NCPU"].as_u64().unwrap_or_default();
    let range = format!("Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available");
    change(s, &id, &json!({ "Memory": 1000 })).refused(400, "Minimum memory limit allowed is 6MB");
    let swap = "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time";
    change(s, &id, &json!({ "Memory": 268_435_456 })).refused(409, &format!("Cannot update container {id}: {swap}"));
    change(s, &id, &json!({ "NanoCpus": 1_000_000_000_000_i64 })).refused(400, &range);
    let quota = "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set";
    let reply = change(s, &id, &json!({ "CpuQuota": 50_000, "CpuPeriod": 100_000 }));
    reply.refused(409, &format!("Cannot update container {id}: {quota}"));
    change(s, &id, &json!({ "RestartPolicy": { "Name": "foo" } })).refused(400, "invalid restart policy 'foo'");
    let count = "maximum retry count cannot be used with restart policy 'always'";
    change(s, &id, &json!({ "RestartPolicy": { "Name": "always", "MaximumRetryCount": 2 } })).refused(400, count);
    s.post(&format!("/containers/{id}/update")).refused(500, "EOF");
    change(s, "conf-nonesuch", &json!({ "RestartPolicy": { "Name": "foo" } })).refused(404, "No such container: conf-nonesuch");
    let auto = s.create("b", json!({ "HostConfig": { "AutoRemove": true } }));
    let message = "Restart policy cannot be updated because AutoRemove is enabled for the container";
    let reply = change(s, &auto, &json!({ "RestartPolicy": { "Name": "always" } }));
    reply.refused(409, &format!("Cannot update container {auto}: {message}"));
    has(&s.inspect(&id)["HostConfig"], &json!({ "Memory": 67_108_864, "NanoCpus": 500_000_000, "CpuQuota": 0 }));
}

/// A stopped container without a limit refuses memory alone: its swap, 0, is less.
fn update_stopped(s: &Subject) {
    let id = s.create("a", json!({}));
    let swap = "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time";
    change(s, &id, &json!({ "Memory": 67_108_864 })).refused(409, &format!("Cannot update container {id}: {swap}"));
    let patch = json!({ "Memory": 67_108_864, "MemorySwap": 134_217_728, "RestartPolicy": { "Name": "always", "MaximumRetryCount": 0 } });
    change(s, &id, &patch).ok(200);
    has(&s.inspect(&id)["HostConfig"], &patch);
}

/// The words with which limits are taken back.
fn update_lifts(s: &Subject) {
    let id = s.start("a", json!({ "HostConfig": { "MemoryReservation": 33_554_432, "PidsLimit": 50, "CpuShares": 512 } }));
    change(s, &id, &json!({ "MemoryReservation": -1, "PidsLimit": 0, "CpuShares": 1024 })).ok(200);
    has(&s.inspect(&id)["HostConfig"], &json!({ "MemoryReservation": -1, "PidsLimit": 0, "CpuShares": 1024 }));
}

fn remove(s: &Subject) {
    let id = s.create("a", json!({}));
    s.delete(&format!("/containers/{id}")).empty(204);
    s.delete(&format!("/containers/{id}")).refused(404, &format!("No such container: {id}"));
    s.get(&format!("/containers/{id}/json")).refused(404, &format!("No such container: {id}"));
    for act in ["start", "stop", "restart", "pause", "unpause", "wait"] {
        s.act(&id, act).refused(404, &format!("No such container: {id}"));
    }
    s.get(&format!("/containers/{id}/logs?stdout=1")).refused(404, &format!("No such container: {id}"));
    s.get(&format!("/containers/{id}/top")).refused(404, &format!("No such container: {id}"));
}

fn remove_running(s: &Subject) {
    let id = s.start("a", json!({}));
    let running = format!("You cannot remove a running container {id}. Stop the container before attempting removal or force remove");
    s.delete(&format!("/containers/{id}")).refused(409, &running);
    s.act(&id, "pause").empty(204);
    let paused =
        format!("You cannot remove a paused container {id}. Unpause and then stop the container before attempting removal or force remove");
    s.delete(&format!("/containers/{id}")).refused(409, &paused);
    s.delete(&format!("/containers/{id}?force=1")).empty(204);
    s.delete(&format!("/containers/{id}?force=1")).refused(404, &format!("No such container: {id}"));
}

/// `v=1` takes the volumes that have no name of their own, and no others.
fn remove_volumes(s: &Subject) {
    let named = s.name("named");
    let patch =
        json!({ "Volumes": { "/anon": {} }, "HostConfig": { "Mounts": [{ "Type": "volume", "Source": named, "Target": "/named" }] } });
    let anonymous = |id: &str| {
        let shown = s.inspect(id);
        let all = shown["Mounts"].as_array().into_iter().flatten();
        all.clone().find(|m| m["Destination"] == "/anon").map(|m| text(&m["Name"])).expect("the volume is there")
    };
    let id = s.create("a", patch.clone());
    let kept = anonymous(&id);
    s.delete(&format!("/containers/{id}")).empty(204);
    s.get(&format!("/volumes/{kept}")).ok(200);
    s.delete(&format!("/volumes/{kept}")).empty(204);
    let id = s.create("a", patch);
    let gone = anonymous(&id);
    s.delete(&format!("/containers/{id}?v=1")).empty(204);
    s.get(&format!("/volumes/{gone}")).refused(404, &format!("get {gone}: no such volume"));
    s.get(&format!("/volumes/{named}")).ok(200);
}
