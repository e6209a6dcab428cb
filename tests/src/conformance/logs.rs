//! What a container said.

use serde_json::json;

use super::Case;
use super::subject::Subject;

pub(super) const CASES: &[Case] = &[
    ("logs-channels", channels),
    ("logs-tail", tail),
    ("logs-tail-of-all", tail_of_all),
    ("logs-timestamps", timestamps),
    ("logs-since", since),
    ("logs-follow", follow),
    ("logs-tty", tty),
    ("logs-refused", refused),
    ("top", top),
];

/// A container that said three lines on one channel and one on the other, and ended.
fn speaker(s: &Subject) -> String {
    let id = s.start("a", json!({ "Cmd": ["sh", "-c", "echo one; echo two; echo bad >&2; echo three"] }));
    s.until_state(&id, "exited");
    id
}

fn channels(s: &Subject) {
    let id = speaker(s);
    let both = s.get(&format!("/containers/{id}/logs?stdout=1&stderr=1"));
    both.ok(200);
    assert_eq!((both.channel(1), both.channel(2)), ("one\ntwo\nthree\n".to_owned(), "bad\n".to_owned()));
    let out = s.get(&format!("/containers/{id}/logs?stdout=true"));
    assert_eq!(out.frames(), [(1, "one\ntwo\nthree\n".to_owned())]);
    let err = s.get(&format!("/containers/{id}/logs?stderr=1"));
    assert_eq!(err.frames(), [(2, "bad\n".to_owned())]);
}

/// A line of a channel that was not asked for counts.
fn tail_of_all(s: &Subject) {
    let id = s.start("a", json!({ "Cmd": ["sh", "-c", "echo one; sleep 0.2; echo bad >&2"] }));
    s.until_state(&id, "exited");
    assert_eq!(s.get(&format!("/containers/{id}/logs?stdout=1&tail=1")).frames(), []);
    assert_eq!(s.get(&format!("/containers/{id}/logs?stdout=1&tail=2")).channel(1), "one\n");
}

/// The last lines of all channels are taken, so this container has only one.
fn tail(s: &Subject) {
    let id = s.start("a", json!({ "Cmd": ["sh", "-c", "echo one; echo two; echo three"] }));
    s.until_state(&id, "exited");
    for (tail, wanted) in [("2", "two\nthree\n"), ("0", ""), ("all", "one\ntwo\nthree\n"), ("99", "one\ntwo\nthree\n")] {
        assert_eq!(s.get(&format!("/containers/{id}/logs?stdout=1&tail={tail}")).channel(1), wanted, "{tail}");
    }
}

fn timestamps(s: &Subject) {
    let id = speaker(s);
    let log = s.get(&format!("/containers/{id}/logs?stdout=1&timestamps=1")).channel(1);
    let lines: Vec<(&str, &str)> = log.lines().filter_map(|l| l.split_once(' ')).collect();
    assert_eq!(lines.iter().map(|(_, said)| *said).collect::<Vec<_>>(), ["one", "two", "three"]);
    for (time, _) in &lines {
        assert!(time.len() == "2026-11-25T02:52:08.828182081Z".len() && time.ends_with('Z'), "{time}");
    }
    assert!(lines.is_sorted_by_key(|(time, _)| *time));
}

fn since(s: &Subject) {
    let id = speaker(s);
    for (query, wanted) in [("since=1", "one\ntwo\nthree\n"), ("since=2999999999", ""), ("until=1", "")] {
        assert_eq!(s.get(&format!("/containers/{id}/logs?stdout=1&{query}")).channel(1), wanted, "{query}");
    }
    s.get(&format!("/containers/{id}/logs?stdout=1&since=x")).refused(500, "strconv.ParseInt: parsing \"x\": invalid syntax");
}

fn follow(s: &Subject) {
    let id = s.start("a", json!({ "Cmd": ["sh", "-c", "echo one; sleep 0.3; echo two; exit 4"] }));
    // It ends when the container does.
    assert_eq!(s.get(&format!("/containers/{id}/logs?stdout=1&follow=1")).channel(1), "one\ntwo\n");
    assert_eq!(s.until_state(&id, "exited")["State"]["ExitCode"], 4);
}

/// With a terminal there are no channels and no frames.
fn tty(s: &Subject) {
    let id = s.start("a", json!({ "Tty": true, "Cmd": ["sh", "-c", "echo one"] }));
    s.until_state(&id, "exited");
    assert_eq!(s.get(&format!("/containers/{id}/logs?stdout=1&stderr=1")).text(), "one\r\n");
}

fn refused(s: &Subject) {
    let id = s.create("a", json!({}));
    s.get(&format!("/containers/{id}/logs")).refused(400, "Bad parameters: you must choose at least one stream");
    let none = s.get(&format!("/containers/{id}/logs?stdout=1"));
    none.empty(200);
    s.get("/containers/conf-nonesuch/logs?stdout=1").refused(404, "No such container: conf-nonesuch");
}

fn top(s: &Subject) {
    let id = s.create("a", json!({}));
    s.get(&format!("/containers/{id}/top")).refused(409, &format!("Container {id} is not running"));
    s.act(&id, "start").empty(204);
    let shown = s.get(&format!("/containers/{id}/top")).ok(200);
    assert_eq!(shown["Titles"], json!(["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]));
    let rows = shown["Processes"].as_array().cloned().unwrap_or_default();
    assert!(rows.iter().any(|row| row[7] == "sleep 1000"), "{shown}");
}
