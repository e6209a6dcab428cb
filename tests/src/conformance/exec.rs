//! Running something in a container.

use serde_json::{Value, json};

use super::subject::{Subject, has, is_id, text};
use super::{Case, Reply};

pub(super) const CASES: &[Case] = &[
    ("exec-output", output),
    ("exec-shown", shown),
    ("exec-detached", detached),
    ("exec-missing-program", missing_program),
    ("exec-env", env),
    ("exec-twice", twice),
    ("exec-refused", refused),
];

#[track_caller]
fn prepare(s: &Subject, id: &str, patch: Value) -> String {
    let mut body = json!({ "AttachStdout": true, "AttachStderr": true });
    super::subject::merge(&mut body, patch);
    let exec = text(&s.send(&format!("/containers/{id}/exec"), &body).ok(201)["Id"]);
    assert!(is_id(&exec));
    exec
}

#[track_caller]
fn run(s: &Subject, exec: &str) -> Reply {
    s.send(&format!("/exec/{exec}/start"), &json!({ "Detach": false, "Tty": false }))
}

fn output(s: &Subject) {
    let id = s.start("a", json!({}));
    let exec = prepare(s, &id, json!({ "Cmd": ["sh", "-c", "echo out; echo err >&2; exit 3"] }));
    let reply = run(s, &exec);
    reply.ok(200);
    assert_eq!(reply.header("content-type").as_deref(), Some("application/vnd.docker.raw-stream"));
    assert_eq!((reply.channel(1), reply.channel(2)), ("out\n".to_owned(), "err\n".to_owned()));
    has(&s.get(&format!("/exec/{exec}/json")).ok(200), &json!({ "Running": false, "ExitCode": 3 }));
    let exec = prepare(s, &id, json!({ "Cmd": ["true"] }));
    assert_eq!(run(s, &exec).frames(), []);
    has(&s.get(&format!("/exec/{exec}/json")).ok(200), &json!({ "Running": false, "ExitCode": 0 }));
}

fn shown(s: &Subject) {
    let id = s.start("a", json!({}));
    let exec = prepare(s, &id, json!({ "Cmd": ["sh", "-c", "exit 3"] }));
    let wanted = json!({
        "ID": exec, "Running": false, "ExitCode": null, "OpenStdin": false, "OpenStderr": true, "OpenStdout": true, "CanRemove": false,
        "ContainerID": id, "DetachKeys": "", "Pid": 0,
        "ProcessConfig": { "tty": false, "entrypoint": "sh", "arguments": ["-c", "exit 3"], "privileged": false },
    });
    assert_eq!(s.get(&format!("/exec/{exec}/json")).ok(200), wanted);
    assert_eq!(s.inspect(&id)["ExecIDs"], json!([exec]));
    run(s, &exec).ok(200);
    assert_eq!(s.inspect(&id)["ExecIDs"], Value::Null);
}

fn detached(s: &Subject) {
    let id = s.start("a", json!({}));
    let exec = prepare(s, &id, json!({ "Cmd": ["sh", "-c", "sleep 0.3; exit 6"], "AttachStdout": false, "AttachStderr": false }));
    s.send(&format!("/exec/{exec}/start"), &json!({ "Detach": true })).empty(200);
    let ended = s.until(|| {
        let shown = s.get(&format!("/exec/{exec}/json")).ok(200);
        if shown["Running"] == false { Ok(shown) } else { Err(shown.to_string()) }
    });
    assert_eq!(ended["ExitCode"], 6);
}

/// It is the output that says so, and an exit code.
fn missing_program(s: &Subject) {
    let id = s.start("a", json!({}));
    let exec = prepare(s, &id, json!({ "Cmd": ["nonesuch"] }));
    let reply = run(s, &exec);
    reply.ok(200);
    let said = reply.text();
    assert!(
        said.contains("OCI runtime exec failed: exec failed:") && said.contains("\"nonesuch\": executable file not found in $PATH"),
        "{said}"
    );
    has(&s.get(&format!("/exec/{exec}/json")).ok(200), &json!({ "Running": false, "ExitCode": 126 }));
}

fn env(s: &Subject) {
    let id = s.start("a", json!({ "Env": ["A=1", "B=2"] }));
    let exec = prepare(s, &id, json!({ "Cmd": ["sh", "-c", "echo $A$B$C"], "Env": ["B=3", "C=4"] }));
    assert_eq!(run(s, &exec).channel(1), "134\n");
}

fn twice(s: &Subject) {
    let id = s.start("a", json!({}));
    let exec = prepare(s, &id, json!({ "Cmd": ["true"] }));
    run(s, &exec).ok(200);
    let again = run(s, &exec);
    assert!(again.text().contains(&format!("Exec command {exec} has already run")), "{again}");
}

fn refused(s: &Subject) {
    let id = s.create("a", json!({}));
    let path = format!("/containers/{id}/exec");
    s.send(&path, &json!({ "Cmd": ["true"] })).refused(409, &format!("Container {id} is not running"));
    s.send(&path, &json!({ "Cmd": [] })).refused(400, "No exec command specified");
    s.send("/containers/conf-nonesuch/exec", &json!({ "Cmd": ["true"] })).refused(404, "No such container: conf-nonesuch");
    s.get("/exec/conf-nonesuch/json").refused(404, "No such exec instance: conf-nonesuch");
    s.send("/exec/conf-nonesuch/start", &json!({})).refused(404, "No such exec instance: conf-nonesuch");
}
