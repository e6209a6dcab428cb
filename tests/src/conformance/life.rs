//! Starting, stopping, killing, restarting, pausing.

use serde_json::{Value, json};

use super::Case;
use super::subject::{Subject, has, text};

pub(super) const CASES: &[Case] = &[
    ("start-twice", start_twice),
    ("start-missing-program", start_missing_program),
    ("start-body", start_body),
    ("stop-twice", stop_twice),
    ("stop-grace", stop_grace),
    ("stop-signal", stop_signal),
    ("stop-handled", stop_handled),
    ("kill-signals", kill_signals),
    ("kill-not-running", kill_not_running),
    ("restart-lives", restart_lives),
    ("restart-stopped", restart_stopped),
    ("pause-unpause", pause_unpause),
    ("pause-conflicts", pause_conflicts),
    ("paused-stops", paused_stops),
    ("exit-codes", exit_codes),
    ("start-again", start_again),
];

fn start_twice(s: &Subject) {
    let id = s.create("a", json!({}));
    s.act(&id, "start").empty(204);
    s.act(&id, "start").empty(304);
    s.act("conf-nonesuch", "start").refused(404, "No such container: conf-nonesuch");
}

/// The container stays as it was made, with the reason in it.
fn start_missing_program(s: &Subject) {
    let id = s.create("a", json!({ "Cmd": ["/nonesuch", "x"], "HostConfig": { "Init": false } }));
    let reason = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \
                  \"/nonesuch\": stat /nonesuch: no such file or directory: unknown";
    s.act(&id, "start").refused(400, reason);
    let wanted = json!({ "Status": "created", "Running": false, "ExitCode": 127, "Error": reason, "StartedAt": "0001-01-01T00:00:00Z" });
    has(&s.inspect(&id)["State"], &wanted);
    let other = s.create("b", json!({ "Cmd": ["nonesuch"], "HostConfig": { "Init": false } }));
    s.act(&other, "start").refused_like(400, &["exec: \"nonesuch\": executable file not found in $PATH"]);
}

fn start_body(s: &Subject) {
    let id = s.create("a", json!({}));
    let message = "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24";
    s.send(&format!("/containers/{id}/start"), &json!({ "Memory": 1 })).refused(400, message);
}

fn stop_twice(s: &Subject) {
    let id = s.start("a", json!({}));
    s.act(&id, "stop").empty(204);
    let shown = s.inspect(&id);
    has(&shown["State"], &json!({ "Status": "exited", "Running": false, "ExitCode": 143, "Pid": 0, "Error": "" }));
    assert_ne!(shown["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
    s.act(&id, "stop").empty(304);
    s.act(&s.create("b", json!({})), "stop").empty(304);
    s.act("conf-nonesuch", "stop").refused(404, "No such container: conf-nonesuch");
}

/// Process 1 hears no SIGTERM that it does not handle: it is killed when its time is over, the request's or its own.
fn stop_grace(s: &Subject) {
    let id = s.start("a", json!({ "HostConfig": { "Init": false } }));
    s.act(&id, "stop?t=1").empty(204);
    assert_eq!(s.inspect(&id)["State"]["ExitCode"], 137);
    let id = s.start("b", json!({ "StopTimeout": 1, "HostConfig": { "Init": false } }));
    s.act(&id, "stop").empty(204);
    assert_eq!(s.inspect(&id)["State"]["ExitCode"], 137);
    let id = s.start("c", json!({ "HostConfig": { "Init": false } }));
    s.act(&id, "stop?t=0").empty(204);
    assert_eq!(s.inspect(&id)["State"]["ExitCode"], 137);
    s.act(&s.start("d", json!({})), "stop?t=x").refused(500, "strconv.Atoi: parsing \"x\": invalid syntax");
}

/// Starts a container and waits until its process is there: a signal before that reaches an init that does not pass it on yet.
fn start_listening(s: &Subject, part: &str, mut patch: Value) -> String {
    patch["Cmd"] = json!(["sh", "-c", "echo ready; sleep 1000"]);
    let id = s.start(part, patch);
    until_ready(s, &id);
    id
}

fn until_ready(s: &Subject, id: &str) {
    s.until(|| {
        let log = s.get(&format!("/containers/{id}/logs?stdout=1")).channel(1);
        if log == "ready\n" { Ok(()) } else { Err(log) }
    });
}

fn stop_signal(s: &Subject) {
    let id = start_listening(s, "a", json!({ "StopSignal": "SIGINT" }));
    s.act(&id, "stop").empty(204);
    assert_eq!(s.inspect(&id)["State"]["ExitCode"], 130);
    let kills = s.events(&json!({ "container": [id], "event": ["kill"] }));
    assert_eq!(kills.len(), 1);
    assert_eq!(kills[0]["Actor"]["Attributes"]["signal"], "2");
}

fn stop_handled(s: &Subject) {
    let command = json!(["sh", "-c", "trap 'exit 5' TERM; echo ready; sleep 1000 & wait"]);
    let id = s.start("a", json!({ "Cmd": command, "HostConfig": { "Init": false } }));
    until_ready(s, &id);
    s.act(&id, "stop").empty(204);
    assert_eq!(s.inspect(&id)["State"]["ExitCode"], 5);
}

fn kill_signals(s: &Subject) {
    for (part, query, code) in [("a", "", 137), ("b", "?signal=SIGTERM", 143), ("c", "?signal=2", 130), ("d", "?signal=HUP", 129)] {
        let id = start_listening(s, part, json!({}));
        s.act(&id, &format!("kill{query}")).empty(204);
        assert_eq!(s.until_state(&id, "exited")["State"]["ExitCode"], code, "{query}");
    }
    let id = s.start("e", json!({}));
    s.act(&id, "kill?signal=SIGFOO").refused(400, "Invalid signal: SIGFOO");
    s.act(&id, "kill?signal=99").refused(500, &format!("Cannot kill container: {id}: The linux daemon does not support signal 99"));
    assert_eq!(s.inspect(&id)["State"]["Status"], "running");
}

fn kill_not_running(s: &Subject) {
    let id = s.create("a", json!({}));
    let name = s.name("a");
    s.act(&name, "kill").refused(409, &format!("Cannot kill container: {name}: Container {id} is not running"));
    s.act("conf-nonesuch", "kill").refused(404, "Cannot kill container: conf-nonesuch: No such container: conf-nonesuch");
}

fn restart_lives(s: &Subject) {
    let id = s.start("a", json!({}));
    let before = s.inspect(&id);
    s.act(&id, "restart?t=1").empty(204);
    let after = s.inspect(&id);
    has(&after["State"], &json!({ "Status": "running", "ExitCode": 0 }));
    assert!(text(&before["State"]["StartedAt"]) < text(&after["State"]["StartedAt"]));
    // Only what the engine does by itself is counted.
    assert_eq!(after["RestartCount"], 0);
    assert_eq!(before["Id"], after["Id"]);
}

fn restart_stopped(s: &Subject) {
    let id = s.create("a", json!({}));
    s.act(&id, "restart?t=0").empty(204);
    assert_eq!(s.inspect(&id)["State"]["Status"], "running");
    let failing = s.create("b", json!({ "HostConfig": { "NetworkMode": s.name("none") } }));
    let message = format!("Cannot restart container {}: network {} not found", s.name("b"), s.name("none"));
    s.act(&s.name("b"), "restart").refused(500, &message);
    assert_eq!(s.inspect(&failing)["State"]["Status"], "created");
    s.act("conf-nonesuch", "restart").refused(404, "No such container: conf-nonesuch");
}

fn pause_unpause(s: &Subject) {
    let id = s.start("a", json!({}));
    s.act(&id, "pause").empty(204);
    has(&s.inspect(&id)["State"], &json!({ "Status": "paused", "Running": true, "Paused": true }));
    let list = s.filtered("/containers/json", &json!({ "id": [id] })).ok(200);
    assert_eq!(list[0]["State"], "paused");
    assert!(text(&list[0]["Status"]).ends_with(" (Paused)"), "{list}");
    s.act(&id, "unpause").empty(204);
    has(&s.inspect(&id)["State"], &json!({ "Status": "running", "Running": true, "Paused": false }));
}

fn pause_conflicts(s: &Subject) {
    let id = s.create("a", json!({}));
    s.act(&id, "pause").refused(409, &format!("Container {id} is not running"));
    s.act(&id, "unpause").refused(500, &format!("Container {id} is not paused"));
    s.act(&id, "start").empty(204);
    s.act(&id, "unpause").refused(500, &format!("Container {id} is not paused"));
    s.act(&id, "pause").empty(204);
    s.act(&id, "pause").refused(409, &format!("Container {id} is already paused"));
    s.act(&id, "start").refused(409, "cannot start a paused container, try unpause instead");
    let exec = s.send(&format!("/containers/{id}/exec"), &json!({ "Cmd": ["true"] }));
    exec.refused(409, &format!("Container {id} is paused, unpause the container before exec"));
    s.act("conf-nonesuch", "pause").refused(404, "No such container: conf-nonesuch");
}

fn paused_stops(s: &Subject) {
    let id = s.start("a", json!({}));
    s.act(&id, "pause").empty(204);
    s.act(&id, "stop?t=1").empty(204);
    has(&s.inspect(&id)["State"], &json!({ "Status": "exited", "Paused": false }));
    let id = s.start("b", json!({}));
    s.act(&id, "pause").empty(204);
    s.act(&id, "kill").empty(204);
    has(&s.until_state(&id, "exited")["State"], &json!({ "ExitCode": 137, "Paused": false }));
}

fn exit_codes(s: &Subject) {
    for (part, command, code) in [("a", "exit 0", 0), ("b", "exit 7", 7), ("c", "exit 255", 255), ("d", "false", 1)] {
        let id = s.start(part, json!({ "Cmd": ["sh", "-c", command] }));
        let shown = s.until_state(&id, "exited");
        has(&shown["State"], &json!({ "Running": false, "ExitCode": code, "OOMKilled": false, "Dead": false, "Error": "", "Pid": 0 }));
        let list = s.filtered("/containers/json?all=1", &json!({ "id": [id] })).ok(200);
        assert!(text(&list[0]["Status"]).starts_with(&format!("Exited ({code}) ")), "{list}");
    }
}

fn start_again(s: &Subject) {
    let id = s.start("a", json!({ "Cmd": ["sh", "-c", "exit 3"] }));
    let first = s.until_state(&id, "exited");
    s.act(&id, "start").empty(204);
    let second = s.until(|| {
        let shown = s.inspect(&id);
        let over = shown["State"]["Status"] == "exited" && shown["State"]["FinishedAt"] != first["State"]["FinishedAt"];
        if over { Ok(shown) } else { Err(shown["State"].to_string()) }
    });
    has(&second["State"], &json!({ "ExitCode": 3 }));
    assert_eq!(second["RestartCount"], 0);
}
