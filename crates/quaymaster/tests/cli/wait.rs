//! `wait`: now, later, never, gone, over a lost watch.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::fake::{Asked, Fake, Reply};

fn object(name: &str, usable: bool) -> Value {
    let (word, reason) = if usable { ("Available", "Healthy") } else { ("TemporarilyUnavailable", "DependencyUnavailable") };
    let ready = if usable { "True" } else { "False" };
    let db = json!({"kind": "MiniService", "namespace": "notify", "name": "db", "availability": "Unavailable", "reason": "ImageMissing", "path": ["db"]});
    json!({
        "kind": "MiniService", "metadata": {"name": name, "namespace": "notify", "generation": 1},
        "status": {
            "observedGeneration": 1, "availability": word, "usable": usable, "reason": reason,
            "blockedBy": if usable { json!([]) } else { json!([db]) },
            "conditions": [{"type": "Ready", "status": ready, "reason": reason}],
        },
    })
}

fn list(items: Vec<Value>) -> Reply {
    Reply::Json(200, json!({"kind": "List", "metadata": {"resourceVersion": "7"}, "items": items}))
}

fn is_watch(asked: &Asked) -> bool {
    asked.path.contains("watch=true")
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

#[test]
fn now() {
    let fake = Fake::new(|_| list(vec![object("app", true)]));
    for goal in ["usable", "ready"] {
        let ran = fake.run(&["wait", "msvc/app", "-n", "notify", "--for", goal, "--timeout", "10s"]);
        assert_eq!((ran.code, ran.out, ran.err), (0, format!("miniservice/app {goal}\n"), String::new()));
    }
    let path = "GET /apis/quaymaster.dev/v1alpha1/namespaces/notify/miniservices?fieldSelector=metadata.name%3Dapp";
    assert_eq!(fake.log(), [path, path]);
}

#[test]
fn later_over_the_watch_and_from_where_the_list_was() {
    let fake = Fake::new(|asked| match is_watch(asked) {
        false => list(vec![]),
        true => Reply::LinesAndHold(vec![
            event("ADDED", object("app", false)),
            event("BOOKMARK", json!({"metadata": {"resourceVersion": "9"}})),
            event("MODIFIED", object("app", true)),
        ]),
    });
    let ran = fake.run(&["wait", "msvc/app", "-n", "notify", "--for", "usable", "--timeout", "30s"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "miniservice/app usable\n"));
    let told = [
        "waiting for miniservice/app to be usable: it does not exist yet",
        "waiting for miniservice/app to be usable: TemporarilyUnavailable, DependencyUnavailable",
    ];
    assert_eq!(ran.err.lines().collect::<Vec<_>>(), told);
    assert!(fake.log()[1].ends_with("?fieldSelector=metadata.name%3Dapp&resourceVersion=7&watch=true"), "{:?}", fake.log());
    assert_eq!(fake.log().len(), 2, "it watches and does not poll");
}

#[test]
fn never() {
    let fake = Fake::new(|asked| if is_watch(asked) { Reply::LinesAndHold(vec![]) } else { list(vec![object("app", false)]) });
    let ran = fake.run(&["wait", "msvc/app", "msvc/web", "-n", "notify", "--for", "usable", "--timeout", "300ms"]);
    assert_eq!((ran.code, ran.out.as_str()), (4, ""));
    let told: Vec<&str> = ran.err.lines().skip_while(|line| !line.starts_with("timed out")).collect();
    let expected = [
        "timed out after 300ms:",
        "  miniservice/app is not usable: TemporarilyUnavailable, DependencyUnavailable",
        "    blocked by MiniService notify/db: Unavailable, ImageMissing",
        "  miniservice/web is not usable: TemporarilyUnavailable, DependencyUnavailable",
        "    blocked by MiniService notify/db: Unavailable, ImageMissing",
    ];
    assert_eq!(told, expected);
}

#[test]
fn deleted() {
    let gone = Fake::new(|_| list(vec![]));
    let ran = gone.run(&["wait", "qnet/data", "-n", "notify", "--for", "deleted"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "network/data deleted\n"));
    let going = Fake::new(|asked| match is_watch(asked) {
        false => list(vec![object("app", true)]),
        true => Reply::LinesAndHold(vec![event("MODIFIED", object("app", false)), event("DELETED", object("app", false))]),
    });
    let ran = going.run(&["wait", "msvc/app", "-n", "notify", "--for", "deleted", "--timeout", "30s"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "miniservice/app deleted\n"));
}

#[test]
fn a_watch_that_ends_breaks_or_expires_is_begun_again() {
    let endings: [fn() -> Reply; 4] = [
        || Reply::Lines(vec![]),
        || Reply::Broken("{\"type\":".to_owned()),
        || Reply::Lines(vec![event("ERROR", json!({"kind": "Status", "code": 410, "message": "too old"}))]),
        || Reply::status(410, "Expired", "too old"),
    ];
    for (at, ending) in endings.into_iter().enumerate() {
        let lists = AtomicUsize::new(0);
        let fake = Fake::new(move |asked| match is_watch(asked) {
            true => ending(),
            false => list(vec![object("app", lists.fetch_add(1, Ordering::Relaxed) > 0)]),
        });
        let ran = fake.run(&["wait", "msvc/app", "-n", "notify", "--for", "usable", "--timeout", "30s"]);
        assert_eq!((ran.code, ran.out.as_str()), (0, "miniservice/app usable\n"), "{at}: {}", ran.err);
        assert_eq!(fake.log().len(), 3, "{at}");
    }
}

#[test]
fn what_can_never_be_waited_for() {
    let fake = Fake::new(|_| Reply::status(403, "Forbidden", "not yours"));
    let ran = fake.run(&["wait", "qnet/data", "--for", "usable"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("wait for network/data with --for ready"), "{}", ran.err);
    let ran = fake.run(&["wait", "msvc/app"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, "error: not yours\n"));
}
