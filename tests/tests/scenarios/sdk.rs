//! Apps that use the Rust client: the axum example in a container of nobody, and the client in this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::Request;
use qm_sdk::{Answer, AskChange, Availability, Client, Error, LockMode, RequiresLayer};
use qm_tests::support::docker::Docker;
use qm_tests::support::engine;
use qm_tests::support::http::{self as plain, Place};
use qm_tests::support::manifests::{self, Service, sleeper, web};
use qm_tests::support::operator::built;
use qm_tests::support::wait;
use qm_tests::support::world::World;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower_service::Service as _;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// An image of the example, for one test: made before its world and gone after it.
struct Image {
    docker: Docker,
    name: String,
}

impl Image {
    fn make() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let docker = engine::shared();
        let name = format!("qm-example-axum:test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let tests = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is"));
        let mut script = Command::new(tests.join("../examples/axum/image.sh"));
        script.arg(built("qm-example-axum", "QM_EXAMPLE_AXUM")).arg(&name);
        script.env("DOCKER_HOST", format!("unix://{}", docker.socket().display()));
        let made = script.output().expect("the script runs");
        assert!(made.status.success(), "{made:?}");
        Self { docker, name }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.docker.is_up() {
            self.docker.forget_image(&self.name);
        }
    }
}

fn database() -> Service {
    sleeper("database")
        .set("command", json!(["nc", "-ll", "-p", "5432", "-e", "cat"]))
        .set("health", json!({ "tcp": { "port": 5432 }, "interval": "1s", "timeout": "2s", "retries": 2, "startPeriod": "20s" }))
}

/// The part of the shop that uses the database.
fn part() -> Service {
    let edge = json!({ "service": "database", "onUp": "Restart", "debounce": "500ms" });
    sleeper("shop-db").only("logical", json!({ "reportedBy": "shop", "heartbeat": "1s" })).edge(edge)
}

/// The example, for a time without an operator that is short enough for a test.
fn shop(name: &str, image: &str, namespace: &str, then: &str) -> Service {
    let health =
        json!({ "http": { "port": 8080, "path": "/healthz" }, "interval": "1s", "timeout": "2s", "retries": 3, "startPeriod": "20s" });
    sleeper(name)
        .image(image)
        .set("command", json!(["/bin/shop"]))
        .set("pullPolicy", json!("Never"))
        .set("user", json!("65534:65534"))
        .set("statusSocket", json!(true))
        .set("readOnly", json!(true))
        .set("health", health)
        .set(
            "env",
            json!({
                "QUAYMASTER_NAMESPACE": namespace, "DATABASE": "database:5432", "AWAY_LAST_KNOWN_SECONDS": "3", "AWAY_THEN": then,
            }),
        )
        .edge(json!({ "service": "database", "onDown": "Ignore" }))
}

/// Where a service's only replica listens.
fn address(world: &World, service: &str) -> SocketAddr {
    let inspected = world.docker.must("GET", &format!("/containers/{}/json", world.name(service)), None);
    let networks = inspected["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
    let ip = networks.values().find_map(|n| n["IPAddress"].as_str().filter(|ip| !ip.is_empty()).map(str::to_owned));
    format!("{}:8080", ip.expect("it has an address")).parse().expect("an address is one")
}

/// Waits for an answer of the shop.
fn until(place: SocketAddr, path: &str, what: &str, is: impl Fn(&plain::Answer) -> bool) -> plain::Answer {
    let found = wait::until(LONG, || {
        let answer = plain::call(&Place::Tcp(place), "GET", path, None).map_err(|e| e.to_string())?;
        if is(&answer) { Ok(answer) } else { Err(format!("{} {}", answer.code, answer.text())) }
    });
    found.unwrap_or_else(|why| panic!("waited for {what}: {why}"))
}

fn hands_off(world: &World, verb: &str, service: &str) {
    let done = world.operator.cli(&[verb, &format!("msvc/{service}"), "-n", &world.namespace, "--reason", "test"]);
    assert!(done.status.success(), "{done:?}");
}

fn stop(world: &World, service: &str) {
    hands_off(world, "suspend", service);
    world.docker.must("POST", &format!("/containers/{}/stop?t=1", world.container(service).id), None);
}

#[test]
fn a_route_is_there_while_its_database_is() {
    let image = Image::make();
    let mut world = World::new();
    let ns = world.namespace.clone();
    world.write("all.yaml", &[database(), shop("shop", &image.name, &ns, "closed"), part()]);
    world.operator.start();
    world.settled(3);
    let place = address(&world, "shop");
    until(place, "/orders", "an answer", |a| a.code == 200 && a.text() == "two teas\n");
    until(place, "/save", "an answer", |a| a.code == 200);
    let life = world.container("shop").life();
    let inspected = world.docker.must("GET", &format!("/containers/{}/json", world.name("shop")), None);
    assert_eq!(inspected["Config"]["User"], "65534:65534");

    stop(&world, "database");
    for path in ["/orders", "/save"] {
        let refused = until(place, path, "a refusal", |a| a.code == 503);
        let body = refused.json();
        assert_eq!((&body["service"], &body["usable"], &body["severity"]), (&json!("shop-db"), &json!(false), &json!(4)), "{body}");
        assert_eq!((&body["blockedBy"][0]["name"], &body["blockedBy"][0]["path"]), (&json!("database"), &json!(["database"])), "{body}");
        assert_eq!(plain::header(&refused.head, "retry-after"), Some("5".to_owned()), "{}", refused.head);
    }
    until(place, "/healthz", "the shop itself", |a| a.code == 200);

    hands_off(&world, "resume", "database");
    until(place, "/orders", "an answer", |a| a.code == 200);
    until(place, "/save", "an answer", |a| a.code == 200);
    // It was told to open its pool anew, and has said that it did.
    until(place, "/pool", "a new pool", |a| a.text() == "opened 2 times\n");
    world.settled(3);
    world.quiet();
    until(place, "/pool", "no other one", |a| a.text() == "opened 2 times\n");
    assert_eq!(world.container("shop").life(), life, "nothing was restarted");
}

#[test]
fn while_the_operator_is_away_what_was_known_holds_and_then_what_was_chosen() {
    let image = Image::make();
    let mut world = World::new();
    let ns = world.namespace.clone();
    let services = [database(), shop("shop", &image.name, &ns, "closed"), shop("open-shop", &image.name, &ns, "open"), part()];
    world.write("all.yaml", &services);
    world.operator.start();
    world.settled(4);
    let (place, open) = (address(&world, "shop"), address(&world, "open-shop"));
    until(place, "/orders", "an answer", |a| a.code == 200);
    until(open, "/orders", "an answer", |a| a.code == 200);
    let lives = world.lives();

    world.operator.kill();
    let held = AtomicBool::new(false);
    let refused = until(place, "/orders", "the end of what was known", |a| {
        held.fetch_or(a.code == 200, Ordering::Relaxed);
        a.code == 503
    });
    let body = refused.json();
    assert!(held.load(Ordering::Relaxed), "what was known last went on holding");
    assert_eq!((&body["reason"], &body["stale"], &body["retryAfter"]), (&json!("OperatorAway"), &json!(true), &json!(5)), "{body}");
    assert_eq!(plain::call(&Place::Tcp(open), "GET", "/orders", None).map(|a| a.code).ok(), Some(200), "by its own choice");

    world.operator.start();
    until(place, "/orders", "an answer again", |a| a.code == 200);
    world.settled(4);
    assert_eq!(world.lives(), lives, "nothing was restarted");
}

/// A world whose face this process can ask, and a client on it.
fn asked(services: &[Service]) -> (World, Runtime, Client, PathBuf) {
    let world = World::up(services);
    let socket = world.operator.home().join("faces").join(&world.namespace).join("app.sock");
    let runtime = Runtime::new().expect("a runtime can be made");
    let client = runtime.block_on(async {
        let client = Client::builder().socket(&socket).namespace(&world.namespace).start().expect("it has all it needs");
        within("contact", client.contact()).await;
        client
    });
    (world, runtime, client, socket)
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

fn ask(socket: &Path, path: &str) -> Value {
    plain::call(&Place::Unix(socket.to_owned()), "GET", path, None).expect("the face answers").json()
}

/// The answers of the operator and of the client, but for what changes by itself.
fn alike(told: &Value, known: &Answer) {
    let mut known = serde_json::to_value(known).expect("an answer is JSON");
    known["version"] = told["version"].clone();
    assert_eq!(told, &known);
}

#[test]
fn the_client_says_what_the_operator_says() {
    let off = web("off").set("replicas", json!(0));
    let part = sleeper("part").only("logical", json!({ "reportedBy": "app", "heartbeat": "1s" }));
    let (mut world, runtime, client, socket) = asked(&[sleeper("app").set("statusSocket", json!(true)), web("page").needs("app")]);
    let ns = world.namespace.clone();
    world.write("all.yaml", &[sleeper("app").set("statusSocket", json!(true)), web("page").needs("app"), part, off]);
    // Parents: one by its own name, one whose name a service has too.
    let parent = |name: &str| {
        json!({
            "apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniContainer", "metadata": { "name": name, "namespace": ns },
            "spec": { "selector": { "matchLabels": { "of": name } }, "allowEmpty": true },
        })
    };
    manifests::put(&world.file("parents.yaml"), &manifests::text(&[parent("all"), parent("page")]));
    let _inside = runtime.enter();
    let reporter = client.reporter("part");
    runtime.block_on(within("the part", client.wait_usable("part")));
    reporter.set(qm_sdk::Report {
        availability: Availability::AlmostAvailable,
        reason: "a replica is behind".to_owned(),
        blocked_operations: vec!["write".to_owned()],
    });
    world.until_status("part", "says so", |s| s["severity"] == 2);
    stop(&world, "app");
    world.until_status("page", "is blocked", |s| s["severity"] == 4);
    let verdict = |name: &str, operation: Option<&str>| client.usable(name, operation).answer;
    let same = |name: &str, operation: Option<&str>| {
        let query = operation.map(|o| format!("?operation={o}")).unwrap_or_default();
        let compared = wait::until(LONG, || {
            let (told, known) = (ask(&socket, &format!("/usable/{ns}/{name}{query}")), verdict(name, operation));
            let is_same = told["reason"] == json!(known.reason) && told["message"] == json!(known.message);
            if is_same { Ok((told, known)) } else { Err(format!("{told} {known:?}")) }
        });
        let (told, known) = compared.expect("the client hears of it");
        alike(&told, &known);
        known
    };
    assert_eq!(same("page", None).blocked_by[0].name, "app");
    assert_eq!(same("part", Some("write")).reason, "OperationBlocked");
    assert!(same("part", Some("read")).usable);
    assert!(!same("app", None).usable);
    same("off", None);
    assert!(same("all", None).usable, "a parent without children that may be empty");
    let batch = ask(&socket, &format!("/usable/{ns}"));
    let names: Vec<&str> = batch["services"].as_array().into_iter().flatten().filter_map(|s| s["service"].as_str()).collect();
    assert_eq!(names, ["app", "off", "page", "part", "all"], "a service goes before a parent of its name");
    assert_eq!(verdict("nobody", None).reason, "NotFound");
    // The scale and the words of the locks are the operator's.
    for severity in [
        qm_api::availability::Availability::Available,
        qm_api::availability::Availability::AlmostAvailable,
        qm_api::availability::Availability::PartiallyAvailable,
        qm_api::availability::Availability::TemporarilyUnavailable,
        qm_api::availability::Availability::Unavailable,
        qm_api::availability::Availability::SystemFailure,
    ] {
        let word = serde_json::to_value(severity).expect("a word");
        let ours: Availability = serde_json::from_value(word).expect("the client knows it");
        assert_eq!(ours.severity(), severity.severity());
    }
    for mode in [qm_api::lock::LockMode::Use, qm_api::lock::LockMode::Change] {
        serde_json::from_value::<LockMode>(serde_json::to_value(mode).expect("a word")).expect("the client knows it");
    }
}

#[test]
fn a_change_keeps_users_out_and_lets_them_in_again() {
    let (mut world, runtime, client, _) = asked(&[web("db").set("statusSocket", json!(true))]);
    runtime.block_on(async {
        let term = Duration::from_secs(1);
        let user = within("a use", client.hold_use("db", Duration::from_secs(5))).await.expect("nobody changes it");
        let second = client.hold_use("db", Duration::ZERO).await.expect("it is counted here");
        let refused = client.lock_change("db", AskChange::within(Duration::ZERO)).await.expect_err("it is used");
        assert!(matches!(&refused, Error::Refused { code: 409, reason, .. } if reason == "InUse"), "{refused:?}");
        assert!(refused.is_busy());

        // A writer waits: who is inside goes on, nobody new gets in, and the lease ends with the last one.
        let writing = tokio::spawn({
            let client = client.clone();
            async move { client.lock_change("db", AskChange::within(LONG).term(term)).await }
        });
        let blocked = within("the drain", async {
            loop {
                match client.hold_use("db", Duration::from_millis(10)).await {
                    Ok(guard) => drop(guard),
                    Err(blocked) => return blocked,
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!((blocked.reason(), blocked.retry_after().is_some()), ("Changing", true));
        drop(second);
        assert!(!user.is_lost() && !writing.is_finished());
        drop(user);
        let change = within("the change", writing).await.expect("no panic").expect("nobody uses it any more");
        assert!(change.token() > 0 && !change.is_lost());

        // Meanwhile the picture says so, and the lease outlives its term by far.
        within("the news", async {
            while client.usable("db", None).answer.reason != "Changing" {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let reading = tokio::spawn({
            let layer = RequiresLayer::new(client.clone(), "db").holding_use(LONG);
            let mut router = Router::new().route("/", get(|| async { "read" })).layer(layer);
            async move { router.call(Request::new(Body::empty())).await }
        });
        let kept = tokio::task::spawn_blocking(move || {
            let held = wait::throughout(3 * term, || if change.is_lost() { Err("it is lost".to_owned()) } else { Ok(()) });
            (change, held)
        });
        let (change, held) = kept.await.expect("no panic");
        assert_eq!(held, Ok(()));
        assert!(!reading.is_finished(), "nobody uses it meanwhile");
        let token = change.token();
        within("the release", change.release()).await.expect("it was held");
        let Ok(read) = within("the waiting request", reading).await.expect("no panic");
        assert_eq!(read.status(), 200, "nobody changes it any more");
        let next = within("the next change", client.lock_change("db", AskChange::within(LONG).term(term))).await.expect("nobody uses it");
        assert!(next.token() > token, "the fence goes up");

        let is_told = || client.usable("db", None).check().is_err_and(|blocked| blocked.reason() == "Changing");
        within("the news of it", async {
            while !is_told() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;

        // Without an operator nobody renews: the guard knows by its own clock.
        world.operator.kill();
        let lost = within("the loss", next.lost()).await;
        assert!(next.is_lost() && lost.to_string().contains("within its term"), "{lost}");
        next.release().await.expect_err("there is nothing to give back");
        // What was being changed when the operator was last heard may still be.
        let blocked = within("a use", client.hold_use("db", LONG)).await.expect_err("somebody may be changing it");
        assert_eq!(blocked.answer().reason, "Changing");
        // Of what nobody changed then a use is let in without a lease, and says so.
        let user = within("a use", client.hold_use("other", LONG)).await.expect("nobody can change it");
        assert!(user.is_lost());
    });
}
