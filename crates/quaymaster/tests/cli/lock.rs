//! `lock`: shown, held while a command runs, refused, lost.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::fake::{Asked, Fake, Reply};

const LOCK: &str = "/apis/quaymaster.dev/v1alpha1/namespaces/shop/miniservices/db/lock";

fn granted(term_ms: u64) -> Reply {
    Reply::Json(201, json!({"mode": "change", "holder": "t", "token": 42, "termMs": term_ms}))
}

fn refused(reason: &str, message: &str) -> Reply {
    Reply::status(409, reason, message)
}

fn is(asked: &Asked, verb: &str) -> bool {
    asked.path == format!("{LOCK}{verb}") && asked.method == "POST"
}

#[test]
fn a_command_runs_with_its_token_and_the_lock_is_given_back() {
    let fake = Fake::new(|asked| if is(asked, "") { granted(15_000) } else { Reply::Json(200, json!({})) });
    let ran = fake.run_before(&["lock", "db", "-n", "shop", "--holder", "t"], &["sh", "-c", "echo token $QUAYMASTER_LOCK_TOKEN; exit 3"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (3, "token 42\n", ""));
    assert_eq!(fake.log(), [format!("POST {LOCK}"), format!("POST {LOCK}/release")]);
    let bodies: Vec<Value> = fake.asked().into_iter().map(|asked| asked.body).collect();
    assert_eq!(bodies[0], json!({"mode": "change", "holder": "t", "waitMs": bodies[0]["waitMs"]}));
    assert!(bodies[0]["waitMs"].as_u64().is_some_and(|ms| (29_000..=30_000).contains(&ms)), "{}", bodies[0]);
    assert_eq!(bodies[1], json!({"holder": "t", "token": 42}));
}

#[test]
fn a_command_that_cannot_be_started_leaves_no_lock_behind() {
    let fake = Fake::new(|asked| if is(asked, "") { granted(15_000) } else { Reply::Json(200, json!({})) });
    let ran = fake.run_before(&["lock", "db", "-n", "shop", "--use"], &["/no/such/program"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("`/no/such/program` cannot be started"), "{}", ran.err);
    assert_eq!(fake.log().last(), Some(&format!("POST {LOCK}/release")));
    assert_eq!(fake.asked()[0].body["mode"], "use");
}

#[test]
fn not_granted_in_time_runs_nothing_and_says_who_has_it() {
    let fake = Fake::new(|_| refused("InUse", "shop/db is in use: web.1"));
    let ran = fake.run_before(&["lock", "db", "-n", "shop", "--wait", "100ms"], &["sh", "-c", "echo ran"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (4, "", "not granted in time: shop/db is in use: web.1\n"));
}

#[test]
fn the_lease_is_renewed_and_a_lost_one_ends_the_command() {
    let renewals = AtomicUsize::new(0);
    let fake = Fake::new(move |asked| match () {
        () if is(asked, "") => granted(900),
        () if is(asked, "/renew") && renewals.fetch_add(1, Ordering::Relaxed) < 2 => Reply::Json(200, json!({})),
        () => refused("Stale", "token 42 of shop/db is not current any more"),
    });
    let ran =
        fake.run_before(&["lock", "db", "-n", "shop"], &["sh", "-c", "trap 'echo told; exit 0' TERM; while true; do sleep 0.05; done"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, "told\n"));
    assert!(ran.err.contains("the lock of miniservice/db was lost (token 42 of shop/db is not current any more)"), "{}", ran.err);
    let log = fake.log();
    assert_eq!(log.iter().filter(|line| line.ends_with("/renew")).count(), 3);
    assert!(!log.iter().any(|line| line.ends_with("/release")), "what is lost is not given back: {log:?}");
}

#[test]
fn what_the_command_has_started_ends_with_a_lost_lease_too() {
    let fake = Fake::new(|asked| match () {
        () if is(asked, "") => granted(900),
        () => refused("Stale", "token 42 of shop/db is not current any more"),
    });
    // The shell is gone at once; what it started takes no notice of being told.
    let ran =
        fake.run_before(&["lock", "db", "-n", "shop"], &["sh", "-c", "(trap '' TERM; exec sleep 60 >/dev/null 2>&1) & echo $!; wait"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let pid: u32 = ran.out.trim().parse().expect("the shell told which");
    let runs = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Between its end and its burial it is a zombie.
        !stat.is_empty() && !stat.contains(") Z ")
    };
    for _ in 0..200 {
        if !runs() {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "another process is waited for")]
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{pid} goes on without its lock");
}

#[test]
fn a_lock_is_shown() {
    let lock = json!({
        "namespace": "shop", "service": "db", "change": {"holder": "backup", "token": 7, "remainingMs": 14_000}, "users": [],
        "waiters": [{"mode": "use", "holder": "web.1"}],
    });
    let answer = lock.clone();
    let fake = Fake::new(move |_| Reply::Json(200, answer.clone()));
    let ran = fake.run(&["lock", "msvc/db", "-n", "shop"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("backup") && ran.out.contains("web.1"), "{}", ran.out);
    let ran = fake.run(&["lock", "msvc/db", "-n", "shop", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).expect("JSON"), lock);
}
