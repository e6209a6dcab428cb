//! Waiting for a container.

use serde_json::{Value, json};

use super::subject::Subject;
use super::{Case, Recorder};

pub(super) const CASES: &[Case] =
    &[("wait-ended", ended), ("wait-end", end), ("wait-next-exit", next_exit), ("wait-removed", removed), ("wait-created", created)];

fn ended(s: &Subject) {
    let id = s.start("a", json!({ "Cmd": ["sh", "-c", "exit 7"] }));
    assert_eq!(s.act(&id, "wait").ok(200), json!({ "Error": null, "StatusCode": 7 }));
    assert_eq!(s.act(&id, "wait?condition=not-running").ok(200), json!({ "Error": null, "StatusCode": 7 }));
}

/// Waits while `then` goes on. The engine begins its answer as soon as it waits.
fn while_waiting(s: &Subject, id: &str, condition: &str, then: impl FnOnce()) -> Value {
    let waiting = Recorder::start(s.place(), "POST", &format!("/v1.41/containers/{id}/wait?condition={condition}"));
    then();
    let said = waiting.until(0, |answer| answer.get("StatusCode").is_some());
    said.into_iter().next_back().unwrap_or_default()
}

fn end(s: &Subject) {
    let id = s.start("a", json!({}));
    let answer = while_waiting(s, &id, "not-running", || s.act(&id, "kill").empty(204));
    assert_eq!(answer, json!({ "Error": null, "StatusCode": 137 }));
}

fn next_exit(s: &Subject) {
    let id = s.start("a", json!({}));
    s.act(&id, "stop").empty(204);
    let answer = while_waiting(s, &id, "next-exit", || {
        s.act(&id, "start").empty(204);
        s.act(&id, "kill?signal=9").empty(204);
    });
    assert_eq!(answer, json!({ "Error": null, "StatusCode": 137 }));
}

fn removed(s: &Subject) {
    let id = s.start("a", json!({ "Cmd": ["sh", "-c", "exit 7"] }));
    s.until_state(&id, "exited");
    let answer = while_waiting(s, &id, "removed", || s.delete(&format!("/containers/{id}")).empty(204));
    assert_eq!(answer, json!({ "Error": null, "StatusCode": 7 }));
}

/// One that never ran does not run.
fn created(s: &Subject) {
    let id = s.create("a", json!({}));
    assert_eq!(s.act(&id, "wait?condition=not-running").ok(200), json!({ "Error": null, "StatusCode": 0 }));
    s.act("conf-nonesuch", "wait").refused(404, "No such container: conf-nonesuch");
}
