//! What the engine does by itself when a container ends.

use serde_json::json;

use super::Case;
use super::subject::{Subject, has};

pub(super) const CASES: &[Case] = &[
    ("auto-remove", auto_remove),
    ("auto-remove-stopped", auto_remove_stopped),
    ("policy-on-failure", on_failure),
    ("policy-on-failure-fine", on_failure_fine),
    ("policy-always", always),
    ("policy-stopped", stopped),
    ("policy-killed", killed),
    ("policy-added", added),
];

/// Waits until a container is gone.
fn until_gone(s: &Subject, id: &str) {
    s.until(|| {
        let reply = s.get(&format!("/containers/{id}/json"));
        if reply.code() == 404 { Ok(()) } else { Err(reply.to_string()) }
    });
}

fn auto_remove(s: &Subject) {
    let id = s.create("a", json!({ "Cmd": ["true"], "Volumes": { "/anon": {} }, "HostConfig": { "AutoRemove": true } }));
    let volume = s.inspect(&id)["Mounts"][0]["Name"].as_str().unwrap_or_default().to_owned();
    s.act(&id, "start").empty(204);
    until_gone(s, &id);
    // Its nameless volumes go with it.
    s.until(|| {
        let reply = s.get(&format!("/volumes/{volume}"));
        if reply.code() == 404 { Ok(()) } else { Err(reply.to_string()) }
    });
}

fn auto_remove_stopped(s: &Subject) {
    let id = s.start("a", json!({ "HostConfig": { "AutoRemove": true } }));
    s.act(&id, "stop").empty(204);
    until_gone(s, &id);
}

fn on_failure(s: &Subject) {
    let policy = json!({ "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 2 } });
    let id = s.start("a", json!({ "Cmd": ["sh", "-c", "exit 3"], "HostConfig": policy }));
    let shown = s.until(|| {
        let shown = s.inspect(&id);
        let over = shown["State"]["Status"] == "exited" && shown["RestartCount"] == 2;
        if over { Ok(shown) } else { Err(format!("{} {}", shown["State"], shown["RestartCount"])) }
    });
    has(&shown["State"], &json!({ "ExitCode": 3, "Restarting": false, "Running": false }));
    let starts = s.events(&json!({ "container": [id], "event": ["start"] }));
    assert_eq!(starts.len(), 3, "one by hand and two by the engine");
}

fn on_failure_fine(s: &Subject) {
    let policy = json!({ "RestartPolicy": { "Name": "on-failure" } });
    let id = s.start("a", json!({ "Cmd": ["true"], "HostConfig": policy }));
    assert_eq!(s.until_state(&id, "exited")["RestartCount"], 0);
}

fn always(s: &Subject) {
    let policy = json!({ "RestartPolicy": { "Name": "always" } });
    let id = s.start("a", json!({ "Cmd": ["sh", "-c", "exit 0"], "HostConfig": policy }));
    let shown = s.until(|| {
        let shown = s.inspect(&id);
        if shown["RestartCount"].as_u64() >= Some(3) { Ok(shown) } else { Err(shown["RestartCount"].to_string()) }
    });
    assert_ne!(shown["State"]["Status"], "exited", "it is up or about to be");
    // Between two starts it shows that it waits.
    let waits = s.until_state(&id, "restarting");
    has(&waits["State"], &json!({ "Running": true, "Restarting": true, "Pid": 0 }));
    let list = s.filtered("/containers/json?all=1", &json!({ "id": [id], "status": ["restarting", "running", "exited"] })).ok(200);
    assert_eq!(list.as_array().map(Vec::len), Some(1));
}

/// A person's stop is the end, whatever the policy.
fn stopped(s: &Subject) {
    for (part, policy) in [("a", "always"), ("b", "unless-stopped")] {
        let id = s.start(part, json!({ "HostConfig": { "RestartPolicy": { "Name": policy } } }));
        s.act(&id, "stop").empty(204);
        has(&s.inspect(&id), &json!({ "State": { "Status": "exited", "Restarting": false }, "RestartCount": 0 }));
        // Started by hand, it counts from nothing.
        s.act(&id, "start").empty(204);
        has(&s.inspect(&id), &json!({ "State": { "Status": "running" }, "RestartCount": 0 }));
    }
    let loops = json!({ "Cmd": ["sh", "-c", "exit 1"], "HostConfig": { "RestartPolicy": { "Name": "always" } } });
    let id = s.start("c", loops);
    s.until(|| if s.inspect(&id)["RestartCount"].as_u64() >= Some(2) { Ok(()) } else { Err("it did not start again".to_owned()) });
    s.act(&id, "stop").ok(204);
    has(&s.until_state(&id, "exited")["State"], &json!({ "Running": false, "Restarting": false }));
}

/// `docker kill` counts as a person's stop too.
fn killed(s: &Subject) {
    let id = s.start("a", json!({ "HostConfig": { "RestartPolicy": { "Name": "always" } } }));
    s.act(&id, "kill").empty(204);
    has(&s.until_state(&id, "exited"), &json!({ "State": { "ExitCode": 137 }, "RestartCount": 0 }));
}

fn added(s: &Subject) {
    let id = s.start("a", json!({ "Cmd": ["sh", "-c", "sleep 1; exit 2"] }));
    s.send(&format!("/containers/{id}/update"), &json!({ "RestartPolicy": { "Name": "always" } })).ok(200);
    s.until(|| if s.inspect(&id)["RestartCount"].as_u64() >= Some(1) { Ok(()) } else { Err("it did not start again".to_owned()) });
}
