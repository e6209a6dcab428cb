//! Scenario 9. While no replica can serve, a user of the service waits up to its own timeout and then hears `Changing`; nobody sees a
//! half-built state; writers do not starve. A roll that keeps a healthy replica blocks nobody.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use qm_tests::support::http::{self, Place};
use qm_tests::support::manifests::{Service, slow_web, web};
use qm_tests::support::operator::binary;
use qm_tests::support::world::World;
use serde_json::{Value, json};

fn version(service: Service, version: &str) -> Service {
    service.set("env", json!({ "VERSION": version }))
}

/// Asks something of the lock of `app`; gives the code, the body and the header `Retry-After`.
fn lock(world: &World, verb: &str, body: &Value) -> (u16, Value) {
    let path = format!("/apis/quaymaster.dev/v1alpha1/namespaces/{}/miniservices/app/lock{verb}", world.namespace);
    let place = Place::Unix(world.operator.setup.socket.clone());
    let bytes = body.to_string().into_bytes();
    let answer = http::call(&place, "POST", &path, Some(("application/json", &bytes))).expect("the operator answers");
    (answer.code, answer.json())
}

fn usable(world: &World) -> Value {
    let answer = world.operator.get(&format!("/usable/{}/app", world.namespace)).expect("the operator answers");
    let mut body = answer.json();
    body["code"] = answer.code.into();
    body
}

/// Runs `quaymaster lock app` beside the test.
fn locked(world: &World, arguments: &[&str], line: &str) -> Child {
    let mut command = Command::new(binary());
    command.args(["lock", "msvc/app", "-n", &world.namespace]).args(arguments).args(["--", "sh", "-c", line]);
    command.env("QUAYMASTER_SOCKET", &world.operator.setup.socket).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

#[test]
fn scenario_9_while_the_only_replica_is_replaced_users_wait_and_then_hear_changing() {
    let mut world = World::up(&[version(slow_web("app", 4.0), "1")]);
    assert_eq!(usable(&world)["code"], 200);
    let (code, user) = lock(&world, "", &json!({ "mode": "use", "holder": "web.1" }));
    assert_eq!(code, 201, "{user}");

    // The replacement waits for the user, and everybody can see that; nobody new gets in.
    world.write("all.yaml", &[version(slow_web("app", 4.0), "2")]);
    world.until_event("app", "InUse", "web.1");
    world.until_status("app", "the replacement waits", |s| s["lock"]["next"] == "quaymaster" && s["lock"]["mode"] == "use");
    let first = world.container("app").life();
    assert_eq!(usable(&world)["code"], 200, "its user can use it");
    let (code, refusal) = lock(&world, "", &json!({ "mode": "use", "holder": "web.2" }));
    assert_eq!((code, &refusal["reason"]), (409, &json!("Changing")), "{refusal}");
    let token = user["token"].clone();
    assert_eq!(lock(&world, "/renew", &json!({ "holder": "web.1", "token": token, "mode": "use" })).0, 200, "a user goes on");
    assert_eq!(world.container("app").life(), first);

    // It lets go: from here on nobody sees anything but `Changing` until the new one serves.
    assert_eq!(lock(&world, "/release", &json!({ "holder": "web.1", "token": token })).0, 200);
    world.until_status("app", "it is being changed", |s| s["lock"]["holder"] == "quaymaster" && s["usable"] == false);
    let asked = Instant::now();
    let (code, refusal) = lock(&world, "", &json!({ "mode": "use", "holder": "web.2", "waitMs": 700 }));
    assert_eq!((code, &refusal["reason"]), (409, &json!("Changing")), "{refusal}");
    assert!(asked.elapsed() >= Duration::from_millis(700), "it waited for as long as it said");
    assert!(refusal["details"]["retryAfterSeconds"].is_number(), "{refusal}");
    let answer = usable(&world);
    assert_eq!((&answer["code"], &answer["reason"]), (&json!(503), &json!("Changing")), "{answer}");

    // Whoever waits for long enough gets in, and finds the new one whole.
    let (code, user) = lock(&world, "", &json!({ "mode": "use", "holder": "web.2", "waitMs": 60_000 }));
    assert_eq!(code, 201, "{user}");
    assert_eq!(usable(&world)["code"], 200);
    let status = world.status("app");
    assert_eq!((&status["slots"][0]["revision"], &status["replicas"]["healthy"]), (&json!(2), &json!(1)), "{status:#}");
    world.settled(1);
    assert_ne!(world.container("app").life(), first);
}

#[test]
fn scenario_9_a_roll_that_keeps_a_healthy_replica_blocks_nobody() {
    let mut world = World::up(&[version(web("app").set("replicas", json!(2)), "1")]);
    let (code, user) = lock(&world, "", &json!({ "mode": "use", "holder": "web.1" }));
    assert_eq!(code, 201, "{user}");
    let first = world.lives();
    world.write("all.yaml", &[version(web("app").set("replicas", json!(2)), "2")]);
    world.until_status("app", "both are replaced", |s| {
        let slots = s["slots"].as_array().cloned().unwrap_or_default();
        slots.len() == 2 && slots.iter().all(|slot| slot["revision"] == 2) && s["replicas"]["healthy"] == 2
    });
    world.settled(1);
    assert!(world.lives().values().all(|life| first.values().all(|old| old.0 != life.0)));
    let events = world.operator.events(&world.namespace);
    assert!(!events.iter().any(|e| e.starts_with("app InUse") || e.starts_with("app Changing")), "{events:#?}");
}

#[test]
fn an_operator_that_dies_in_the_middle_of_a_change_ends_it() {
    let mut world = World::up(&[version(slow_web("app", 6.0), "1")]);
    world.write("all.yaml", &[version(slow_web("app", 6.0), "2")]);
    world.until_status("app", "it is being changed", |s| s["lock"]["holder"] == "quaymaster");
    world.operator.kill();
    world.operator.start();
    let (code, refusal) = lock(&world, "", &json!({ "mode": "use", "holder": "web.1" }));
    assert_eq!((code, &refusal["reason"]), (409, &json!("Changing")), "the change is still held: {refusal}");
    world.settled(1);
    world.until_status("app", "nobody holds it", |s| s["lock"].is_null() && s["slots"][0]["revision"] == 2);
    assert_eq!(lock(&world, "", &json!({ "mode": "use", "holder": "web.1" })).0, 201);
}

#[test]
fn a_command_holds_a_service_and_a_stale_token_is_refused() {
    let mut world = World::up(&[web("app")]);
    let said = world.operator.home().join("said");
    let go = world.operator.home().join("go");
    let line = format!("echo $QUAYMASTER_LOCK_TOKEN > {}; while ! test -e {}; do sleep 0.1; done; exit 7", said.display(), go.display());
    let backup = locked(&world, &["--change", "--holder", "backup"], &line);
    world.until_status("app", "the command changes it", |s| s["lock"]["holder"] == "backup" && s["usable"] == false);
    let answer = usable(&world);
    assert_eq!((&answer["code"], &answer["reason"]), (&json!(503), &json!("Changing")), "{answer}");
    assert!(world.operator.metric("quaymaster_service_lock_held", &["service=\"app\"", "mode=\"change\""]) >= 1.0);
    let told = world.operator.until("the token", |_| {
        let text = std::fs::read_to_string(&said).unwrap_or_default();
        text.trim().parse::<u64>().map_err(|e| e.to_string())
    });
    assert_eq!(lock(&world, "/check", &json!({ "token": told })).0, 200);
    // A second one waits in vain, and says who has it.
    let ns = world.namespace.clone();
    let late = world.operator.cli(&["lock", "msvc/app", "-n", &ns, "--use", "--wait", "300ms", "--", "true"]);
    assert_eq!(late.status.code(), Some(4), "{late:?}");
    assert!(String::from_utf8_lossy(&late.stderr).contains("backup"), "{late:?}");
    let sheet = world.operator.cli(&["lock", "app", "-n", &ns]);
    assert!(String::from_utf8_lossy(&sheet.stdout).contains("backup"), "{sheet:?}");
    std::fs::write(&go, "").expect("the home can be written");
    let ended = backup.wait_with_output().expect("the command ends");
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    world.until_status("app", "nobody holds it", |s| s["lock"].is_null() && s["usable"] == true);
    let (code, stale) = lock(&world, "/check", &json!({ "token": told }));
    assert_eq!((code, &stale["reason"]), (409, &json!("Stale")), "{stale}");
}

#[test]
fn scenario_9_a_writer_has_its_turn_however_many_use_it() {
    let world = World::up(&[web("app")]);
    let take = |holder: &str, wait: u64| lock(&world, "", &json!({ "mode": "use", "holder": holder, "waitMs": wait }));
    let release = |holder: &str, user: &Value| lock(&world, "/release", &json!({ "holder": holder, "token": user["token"] })).0;
    let (_, mut held) = take("web.0", 0);
    let writer = locked(&world, &["--change", "--wait", "60s"], "true");
    // One user hands over to the next without a gap, until the writer stands in between.
    let mut turns = 0;
    let mut holder = "web.0".to_owned();
    let refused = loop {
        turns += 1;
        assert!(turns < 500, "the writer never came");
        let next = format!("web.{turns}");
        let (code, user) = take(&next, 0);
        if code != 201 {
            break user;
        }
        assert_eq!(release(&holder, &held), 200);
        (holder, held) = (next, user);
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(refused["reason"], "Changing", "{refused}");
    assert_eq!(release(&holder, &held), 200);
    let ended = writer.wait_with_output().expect("the writer ends");
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(take("web.last", 5_000).0, 201, "and users have theirs");
}

#[test]
fn after_a_restart_users_from_before_go_on_and_are_waited_for() {
    let mut world = World::up(&[web("app")]);
    let (code, user) = lock(&world, "", &json!({ "mode": "use", "holder": "web.1" }));
    assert_eq!(code, 201, "{user}");
    world.operator.kill();
    world.operator.start();
    let change = |wait: u64| json!({ "mode": "change", "holder": "batch", "waitMs": wait });
    let (code, refusal) = lock(&world, "", &change(0));
    assert_eq!((code, &refusal["reason"]), (409, &json!("InUse")), "{refusal}");
    assert!(refusal["message"].as_str().is_some_and(|text| text.contains("from before the restart")), "{refusal}");
    // Who was there before goes on with its lease; a token of nobody does not come to life by that.
    assert_eq!(lock(&world, "/renew", &json!({ "holder": "web.1", "token": user["token"], "mode": "use" })).0, 200);
    assert_eq!(lock(&world, "/check", &json!({ "token": 1 })).0, 409);
    assert_eq!(lock(&world, "/release", &json!({ "holder": "web.1", "token": user["token"] })).0, 200);
    // There may be others who were not heard of yet: one term, and not longer.
    let (code, granted) = lock(&world, "", &change(30_000));
    assert_eq!(code, 201, "{granted}");
    assert_eq!(lock(&world, "/release", &json!({ "holder": "batch", "token": granted["token"] })).0, 200);
}
