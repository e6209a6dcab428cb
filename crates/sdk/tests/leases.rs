//! Leases and silence in virtual time, against an operator that is played by this test.

use std::time::Duration;

use qm_sdk::{AskChange, Availability, Basis, Client, Report, Then, WhenAway};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};

const TERM: Duration = Duration::from_secs(15);

/// The operator's end of a socket; nobody answers there but the test.
struct Played {
    listener: UnixListener,
    home: TempDir,
}

/// A request that is not answered yet.
struct Asked {
    stream: UnixStream,
    what: String,
    body: Value,
}

impl Played {
    fn new() -> Self {
        let home = TempDir::new().expect("the temporary folder can be written");
        let listener = UnixListener::bind(home.path().join("app.sock")).expect("a socket can be had");
        Self { listener, home }
    }

    fn client(&self) -> Client {
        let away = WhenAway { last_known_for: Duration::from_secs(30), then: Then::Closed };
        let builder = Client::builder().socket(self.home.path().join("app.sock")).namespace("shop").when_away(away);
        builder.start().expect("it has all it needs")
    }

    /// The next request that is none for the watch.
    async fn asked(&self) -> Asked {
        loop {
            let asked = self.any().await;
            if asked.what != "GET /watch/shop" {
                return asked;
            }
        }
    }

    async fn any(&self) -> Asked {
        let (mut stream, _) =
            timeout(Duration::from_secs(600), self.listener.accept()).await.expect("somebody comes").expect("it is heard");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a request has a head"));
        }
        let head = String::from_utf8(head).expect("a head is text");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|n| n.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await.expect("a body is as long as it says");
        let what = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
        Asked { stream, what, body: serde_json::from_slice(&body).unwrap_or_default() }
    }
}

impl Asked {
    fn is(&self, verb: &str, body: &Value) {
        let path = "/apis/quaymaster.dev/v1alpha1/namespaces/shop/miniservices/db/lock";
        assert_eq!((self.what.as_str(), &self.body), (format!("POST {path}{verb}").as_str(), body));
    }

    async fn answer(mut self, status: &str, body: Value) {
        let body = body.to_string();
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        self.stream.write_all(text.as_bytes()).await.expect("the client listens");
    }

    async fn grant(self) {
        let answer =
            json!({ "mode": self.body["mode"], "holder": self.body["holder"], "token": 7, "termMs": 15_000, "changeWaits": false });
        self.answer("200 OK", answer).await;
    }
}

fn change() -> AskChange {
    AskChange::within(Duration::from_secs(20)).holder("batch")
}

#[tokio::test(start_paused = true)]
async fn a_change_is_renewed_at_a_third_of_its_term_and_given_back() {
    let played = Played::new();
    let client = played.client();
    let held = json!({ "holder": "batch", "token": 7, "mode": "change" });
    let asking = tokio::spawn(async move { client.lock_change("db", change()).await });
    let asked = played.asked().await;
    asked.is("", &json!({ "mode": "change", "holder": "batch", "waitMs": 20_000 }));
    // Somebody was in the way.
    asked.answer("409 Conflict", json!({ "reason": "InUse", "message": "it is in use", "details": { "retryAfterSeconds": 1 } })).await;
    let asked = played.asked().await;
    let began = Instant::now();
    asked.grant().await;
    let guard = asking.await.expect("no panic").expect("it is granted");
    assert_eq!((guard.token(), guard.is_lost()), (7, false));
    for count in 1..4 {
        let asked = played.asked().await;
        asked.is("/renew", &held);
        let since = began.elapsed();
        assert!(since >= count * TERM / 3 && since < count * TERM / 3 + TERM / 6, "{since:?}");
        asked.grant().await;
    }
    let (released, asked) = tokio::join!(guard.release(), async {
        let asked = played.asked().await;
        asked.is("/release", &json!({ "holder": "batch", "token": 7 }));
        asked.answer("200 OK", json!({})).await;
    });
    released.expect("it was held");
    let () = asked;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_lost_with_its_term_or_with_a_word_and_is_given_back_on_drop() {
    let played = Played::new();
    let client = played.client();
    let take = async || {
        let (guard, asked) = tokio::join!(client.lock_change("db", change()), async {
            let asked = played.asked().await;
            let at = Instant::now();
            asked.grant().await;
            at
        });
        (guard.expect("it is granted"), asked)
    };
    // Nobody answers any more: it ends one term after it was asked for, and not later.
    let (guard, granted) = take().await;
    let mut silent = Vec::new();
    let lost = tokio::select! {
        lost = guard.lost() => lost,
        () = async { loop { silent.push(played.any().await) } } => unreachable!("it never ends"),
    };
    assert_eq!(lost.to_string(), "the lock is lost: it could not be renewed within its term");
    assert!(guard.is_lost() && granted.elapsed() <= TERM, "{:?}", granted.elapsed());
    guard.release().await.expect_err("there is nothing to give back");
    drop(silent);

    // Somebody says that it is over: at once.
    let (guard, _) = take().await;
    let asked = played.asked().await;
    asked.answer("409 Conflict", json!({ "reason": "Stale", "message": "token 7 is not current any more" })).await;
    assert_eq!(guard.lost().await.to_string(), "the lock is lost: token 7 is not current any more");
    drop(guard);

    // What passes is tried again within the term.
    let (guard, _) = take().await;
    played.asked().await.answer("503 Service Unavailable", json!({ "reason": "ServiceUnavailable", "message": "the store" })).await;
    played.asked().await.grant().await;
    assert!(!guard.is_lost());
    drop(guard);
    played.asked().await.is("/release", &json!({ "holder": "batch", "token": 7 }));
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_hangs_is_away() {
    let played = Played::new();
    let client = played.client();
    let mut watch = played.any().await.stream;
    let event = json!({
        "namespace": "shop", "service": "db", "usable": true, "availability": "Available", "severity": 1, "reason": "Healthy",
        "message": "", "stale": false, "blockedBy": [], "retryAfter": null, "version": "1",
    });
    let text = format!("HTTP/1.1 200 OK\r\n\r\nevent: usable\ndata: {event}\n\nevent: synced\ndata: {{}}\n\n");
    watch.write_all(text.as_bytes()).await.expect("the client listens");
    client.contact().await;
    // It says that it is still there, for a while.
    for _ in 0..3 {
        sleep(Duration::from_secs(15)).await;
        watch.write_all(b": still there\n\n").await.expect("the client listens");
        assert_eq!(client.usable("db", None).basis, Basis::Told);
    }
    let mut seen = Vec::new();
    for _ in 0..40 {
        sleep(Duration::from_secs(1)).await;
        let verdict = client.usable("db", None);
        if seen.last() != Some(&(verdict.basis, verdict.is_usable())) {
            seen.push((verdict.basis, verdict.is_usable()));
        }
    }
    assert_eq!(seen, [(Basis::Told, true), (Basis::LastKnown, true), (Basis::Chosen, false)], "its socket is open all the time");
}

#[tokio::test(start_paused = true)]
async fn a_part_is_reported_for_and_reloads_once() {
    let played = Played::new();
    let client = played.client();
    let reporter = client.reporter("app-db");
    let beat = json!({ "availability": "Available", "reason": "", "blockedOperations": [], "ack": null });
    let asked = played.asked().await;
    assert_eq!((asked.what.as_str(), &asked.body), ("POST /heartbeat/shop/app-db", &beat));
    let reload = json!({ "id": "r1", "verb": "Restart", "because": ["shop/db returned"] });
    asked.answer("200 OK", json!({ "heartbeat": "15000ms", "reload": reload })).await;
    let told = reporter.reload().await;
    assert_eq!((told.id.as_str(), told.verb.as_str()), ("r1", "Restart"));
    assert_eq!(reporter.reload().await, told, "until it is done");
    reporter.done(&told);
    let asked = played.asked().await;
    assert_eq!(asked.body["ack"], "r1", "at once");
    asked.answer("200 OK", json!({ "heartbeat": "15000ms", "reload": null })).await;
    // News are said at once; nothing new, as often as the operator wants it.
    let said = Instant::now();
    let report = Report { availability: Availability::AlmostAvailable, blocked_operations: vec!["write".to_owned()], ..Report::default() };
    reporter.set(report.clone());
    let asked = played.asked().await;
    assert_eq!((&asked.body["availability"], &asked.body["blockedOperations"]), (&json!("AlmostAvailable"), &json!(["write"])));
    assert!(said.elapsed() < Duration::from_secs(1), "{:?}", said.elapsed());
    asked.answer("200 OK", json!({ "heartbeat": "15000ms", "reload": null })).await;
    reporter.set(report);
    let said = Instant::now();
    played.asked().await.answer("404 Not Found", json!({ "message": "there is no app-db" })).await;
    let since = said.elapsed();
    assert!(since > Duration::from_secs(5) && since < Duration::from_secs(15), "{since:?}");
    let asked = played.asked().await;
    assert_eq!(reporter.trouble().as_deref(), Some("there is no app-db"));
    drop(asked);
}
