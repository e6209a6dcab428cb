//! An app that reports for its parts over its face, and asks there whether it may use others.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use qm_tests::support::http::{self, Place};
use qm_tests::support::manifests::{Service, sleeper, web};
use qm_tests::support::world::World;
use serde_json::{Value, json};

/// How often the app reports; the manifest says one second.
const BEAT: Duration = Duration::from_millis(250);

/// The app's side of the face: beats for one part, and acknowledges what it is told to reload.
struct App {
    says: Arc<Mutex<Value>>,
    speaks: Arc<AtomicBool>,
    reloads: Arc<Mutex<Vec<Value>>>,
}

impl App {
    fn new(socket: PathBuf, namespace: &str, part: &str) -> Self {
        let app = Self { says: Arc::new(Mutex::new(json!({}))), speaks: Arc::new(AtomicBool::new(false)), reloads: Arc::default() };
        let (says, speaks, reloads) = (app.says.clone(), app.speaks.clone(), app.reloads.clone());
        let path = format!("/heartbeat/{namespace}/{part}");
        std::thread::spawn(move || {
            let mut ack = Value::Null;
            // Ends with the test's process.
            loop {
                std::thread::sleep(BEAT);
                if !speaks.load(Ordering::Relaxed) {
                    continue;
                }
                let mut body = says.lock().expect("no panic").clone();
                body["ack"] = ack.clone();
                let text = body.to_string();
                let answer = http::call(&Place::Unix(socket.clone()), "POST", &path, Some(("application/json", text.as_bytes())));
                let Ok(answer) = answer else { continue };
                ack = answer.json()["reload"]["id"].clone();
                if !ack.is_null() {
                    reloads.lock().expect("no panic").push(answer.json()["reload"].clone());
                }
            }
        });
        app
    }

    fn says(&self, what: Value) {
        *self.says.lock().expect("no panic") = what;
        self.speaks.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_app_reports_for_its_parts() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let logical = json!({ "reportedBy": "app", "heartbeat": "1s" });
    let edge = json!({ "service": "store", "onUp": "Restart", "debounce": "500ms" });
    let services: Vec<Service> = vec![
        sleeper("store"),
        sleeper("app").set("statusSocket", json!(true)).set("user", json!("65534:65534")),
        sleeper("app-db").only("logical", logical).edge(edge),
        web("page").needs("app-db"),
    ];
    world.write("all.yaml", &services);
    world.operator.start();
    let socket = world.operator.home().join("faces").join(&ns).join("app.sock");
    world.operator.until("the app face", |_| if socket.exists() { Ok(()) } else { Err("no socket".to_owned()) });
    let app = App::new(socket.clone(), &ns, "app-db");
    let ask =
        |path: &str| http::call(&Place::Unix(socket.clone()), "GET", path, None).map(|a| (a.code, a.json())).unwrap_or((0, Value::Null));

    // Nobody has spoken for it: what needs it waits.
    world.until_status("page", "waits for the part", |s| s["reason"] == "WaitingForDependency");
    assert_eq!(ask(&format!("/usable/{ns}/app-db")).0, 503);
    world.until_status("app", "runs", |s| s["usable"] == true);
    // The container of an unprivileged user has the socket, and anybody may write to it.
    let seen = world.docker.exec(&world.name("app"), &["sh", "-c", "id -u; stat -c '%a %F' /run/quaymaster/app.sock"]);
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["65534", "666 socket"]);

    app.says(json!({}));
    world.settled(4);
    assert_eq!(ask(&format!("/usable/{ns}/app-db")).0, 200);
    // One operation less.
    app.says(json!({ "availability": "AlmostAvailable", "reason": "a replica is behind", "blockedOperations": ["write"] }));
    world.until_status("app-db", "says so", |s| s["severity"] == 2 && s["message"] == "a replica is behind");
    let (status, refused) = ask(&format!("/usable/{ns}/app-db?operation=write"));
    assert_eq!((status, refused["reason"].as_str(), refused["retryAfter"].as_u64()), (503, Some("OperationBlocked"), Some(5)));
    assert_eq!(ask(&format!("/usable/{ns}/app-db?operation=read")).0, 200);
    app.says(json!({}));
    world.until_status("app-db", "is well", |s| s["severity"] == 1);

    // Silence is not health.
    app.speaks.store(false, Ordering::Relaxed);
    world.until_status("app-db", "is silent", |s| s["reason"] == "Silent" && s["severity"] == 4);
    assert_eq!(world.until_status("page", "is blocked by it", |s| s["severity"] == 4)["blockedBy"][0]["name"], "app-db");
    app.says(json!({}));
    world.settled(4);
    let before = world.lives();

    // A lost dependency returns: the app is told to reload the part, once; nothing is restarted.
    assert!(world.operator.cli(&["suspend", "msvc/store", "-n", &ns, "--reason", "test"]).status.success());
    let store = world.container("store").id;
    world.docker.must("POST", &format!("/containers/{store}/stop?t=1"), None);
    world.until_status("app-db", "is blocked by the store", |s| s["blockedBy"][0]["name"] == "store");
    assert!(world.operator.cli(&["resume", "msvc/store", "-n", &ns, "--reason", "test"]).status.success());
    world.operator.until("the app reloads", |_| match app.reloads.lock().expect("no panic").len() {
        0 => Err("nothing to reload".to_owned()),
        _ => Ok(()),
    });
    world.settled(4);
    world.quiet();
    let told = app.reloads.lock().expect("no panic").clone();
    let ids: std::collections::BTreeSet<String> = told.iter().map(|r| r["id"].to_string()).collect();
    assert_eq!((ids.len(), told[0]["because"].clone()), (1, json!([format!("{ns}/store returned")])), "{told:?}");
    let after = world.lives();
    let same: Vec<&String> = before.keys().filter(|name| before.get(*name) == after.get(*name)).collect();
    assert_eq!(same, [&world.name("app"), &world.name("page")]);

    // The operator is away and comes back: the socket is where it was, and nobody has noticed anything.
    world.operator.stop();
    assert_eq!(ask(&format!("/usable/{ns}/app-db")).0, 0, "nobody answers meanwhile");
    world.operator.start();
    world.settled(4);
    assert_eq!(ask(&format!("/usable/{ns}/app-db")).0, 200);
    assert_eq!(world.lives(), after);
    assert_eq!(
        app.reloads.lock().expect("no panic").iter().map(|r| r["id"].to_string()).collect::<std::collections::BTreeSet<_>>().len(),
        1
    );
}
