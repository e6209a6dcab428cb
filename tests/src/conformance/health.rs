//! Health checks that the engine itself makes.

use serde_json::{Value, json};

use super::Case;
use super::subject::{Subject, has, text};

pub(super) const CASES: &[Case] = &[
    ("health-turns", turns),
    ("health-fails", fails),
    ("health-start-period", start_period),
    ("health-none", none),
    ("health-list", list),
];

fn checked(test: Value, retries: u64) -> Value {
    json!({ "Healthcheck": { "Test": test, "Interval": 200_000_000, "Timeout": 5_000_000_000_i64, "Retries": retries } })
}

/// Waits for a health; gives what is shown of it.
#[track_caller]
fn until_health(s: &Subject, id: &str, wanted: &str) -> Value {
    s.until(|| {
        let health = s.inspect(id)["State"]["Health"].take();
        if health["Status"] == wanted { Ok(health) } else { Err(health.to_string()) }
    })
}

fn exec(s: &Subject, id: &str, command: &[&str]) {
    let exec = text(&s.send(&format!("/containers/{id}/exec"), &json!({ "Cmd": command })).ok(201)["Id"]);
    s.send(&format!("/exec/{exec}/start"), &json!({})).ok(200);
}

fn turns(s: &Subject) {
    let id = s.create("a", checked(json!(["CMD", "test", "-f", "/ok"]), 100));
    assert_eq!(s.inspect(&id)["State"].get("Health"), None, "there is none before the start");
    s.act(&id, "start").empty(204);
    let first = s.inspect(&id)["State"]["Health"].take();
    has(&first, &json!({ "Status": "starting" }));
    exec(s, &id, &["touch", "/ok"]);
    let healthy = until_health(s, &id, "healthy");
    assert_eq!(healthy["FailingStreak"], 0);
    let last = healthy["Log"].as_array().and_then(|l| l.last()).cloned().unwrap_or_default();
    has(&last, &json!({ "ExitCode": 0, "Output": "" }));
    assert!(last["Start"].is_string() && last["End"].is_string(), "{last}");
    let words = s.events(&json!({ "container": [id], "event": ["health_status"] }));
    assert_eq!(words.iter().map(|e| text(&e["Action"])).collect::<Vec<_>>(), ["health_status: healthy"]);
    // A start begins anew.
    s.act(&id, "kill").empty(204);
    let stopped = s.until_state(&id, "exited");
    assert_eq!(stopped["State"]["Health"]["Status"], "unhealthy");
}

fn fails(s: &Subject) {
    let id = s.start("a", checked(json!(["CMD-SHELL", "echo no; exit 1"]), 2));
    let unhealthy = until_health(s, &id, "unhealthy");
    assert!(unhealthy["FailingStreak"].as_u64() >= Some(2), "{unhealthy}");
    let last = unhealthy["Log"].as_array().and_then(|l| l.last()).cloned().unwrap_or_default();
    has(&last, &json!({ "ExitCode": 1, "Output": "no\n" }));
    s.until(|| {
        let health = s.inspect(&id)["State"]["Health"].take();
        if health["FailingStreak"].as_u64() >= Some(6) { Ok(()) } else { Err(health.to_string()) }
    });
    assert_eq!(s.inspect(&id)["State"]["Health"]["Log"].as_array().map(Vec::len), Some(5), "only the last five are kept");
    // It is up nevertheless, and nothing restarts it.
    has(&s.inspect(&id), &json!({ "State": { "Status": "running" }, "RestartCount": 0 }));
    let words = s.events(&json!({ "container": [id], "event": ["health_status"] }));
    assert_eq!(words.iter().map(|e| text(&e["Action"])).collect::<Vec<_>>(), ["health_status: unhealthy"]);
}

/// Failures before it is over do not count, a success ends it.
fn start_period(s: &Subject) {
    let mut patch = checked(json!(["CMD", "test", "-f", "/ok"]), 1);
    patch["Healthcheck"]["StartPeriod"] = json!(600_000_000_000_i64);
    let id = s.start("a", patch);
    s.until(|| {
        let health = s.inspect(&id)["State"]["Health"].take();
        if health["Log"].as_array().map(Vec::len) >= Some(3) { Ok(()) } else { Err(health.to_string()) }
    });
    has(&s.inspect(&id)["State"]["Health"], &json!({ "Status": "starting", "FailingStreak": 0 }));
    exec(s, &id, &["touch", "/ok"]);
    until_health(s, &id, "healthy");
    exec(s, &id, &["rm", "/ok"]);
}

fn none(s: &Subject) {
    let id = s.start("a", json!({ "Healthcheck": { "Test": ["NONE"] } }));
    assert_eq!(s.inspect(&id)["State"].get("Health"), None);
    assert_eq!(s.inspect(&id)["Config"]["Healthcheck"], json!({ "Test": ["NONE"] }));
}

fn list(s: &Subject) {
    let fine = s.start("fine", checked(json!(["CMD", "true"]), 1));
    let bad = s.start("bad", checked(json!(["CMD", "false"]), 1));
    let plain = s.start("plain", json!({}));
    until_health(s, &fine, "healthy");
    until_health(s, &bad, "unhealthy");
    for (health, id, word) in [("healthy", fine, " (healthy)"), ("unhealthy", bad, " (unhealthy)"), ("none", plain, "")] {
        let found = s.filtered("/containers/json", &json!({ "name": [s.prefix()], "health": [health] })).ok(200);
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{health}: {found}");
        assert_eq!(found[0]["Id"], json!(id));
        assert!(text(&found[0]["Status"]).ends_with(word), "{found}");
    }
}
