//! Bad input of every kind: what is refused, what waits, and what is said about it.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use qm_tests::support::manifests::{sleeper, web};
use qm_tests::support::operator::Operator;
use qm_tests::support::proxy::Faults;
use qm_tests::support::world::World;
use serde_json::{Value, json};

#[test]
fn without_docker_the_operator_waits_says_so_and_begins_when_it_comes() {
    let mut world = World::new();
    world.write("all.yaml", &[sleeper("app")]);
    world.proxy.vanish();
    world.operator.start();
    world.operator.until("it is not ready, and says why", |o| {
        let answer = o.get("/readyz")?;
        if answer.code == 503 && answer.text().contains("cannot be reached") {
            Ok(())
        } else {
            Err(format!("{} {}", answer.code, answer.text()))
        }
    });
    assert!(world.operator.get("/healthz").unwrap().is_ok(), "it lives all the same");
    world.proxy.come_back();
    world.settled(1);
    world.operator.until("it is ready", |o| {
        let answer = o.get("/readyz")?;
        if answer.is_ok() { Ok(()) } else { Err(answer.text()) }
    });
}

fn refused_version(newest: &str, oldest: &str, says: &str) {
    let mut world = World::new();
    world.write("all.yaml", &[sleeper("app")]);
    world.proxy.set(Faults { version: Some((newest.to_owned(), oldest.to_owned())), ..Faults::default() });
    world.operator.start();
    world.operator.until(&format!("the engine is refused: {says}"), |o| {
        let engine = o.overview()["engine"].clone();
        let message = engine["message"].as_str().unwrap_or_default();
        if engine["reachable"] == false && message.contains(says) { Ok(()) } else { Err(engine.to_string()) }
    });
    assert_eq!(world.proxy.writes_since(0), []);
    world.proxy.set(Faults::default());
    world.settled(1);
}

#[test]
fn an_engine_that_is_too_old_is_refused_with_advice() {
    refused_version("1.40", "1.12", "use Docker 20.10 or newer");
}

#[test]
fn an_engine_that_is_too_new_is_refused_with_advice() {
    refused_version("2.10", "1.99", "use a newer Quaymaster");
}

#[test]
fn a_taken_port_is_named_and_used_when_it_is_free() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let mut world = World::new();
    let ports = json!([{ "target": 8080, "published": port, "host": "127.0.0.1" }]);
    world.write("all.yaml", &[web("app").set("ports", ports), sleeper("other")]);
    world.operator.start();
    let status = world.until_status("app", "the port is taken", |s| s["reason"] == "PortTaken");
    assert_eq!((&status["severity"], &status["usable"]), (&json!(4), &json!(false)), "waiting can help: {status:#}");
    assert!(status["message"].as_str().unwrap_or_default().contains(&port.to_string()), "{status:#}");
    world.until_status("other", "its sibling runs", |s| s["usable"] == true);
    drop(holder);
    world.settled(2);
}

#[test]
fn a_missing_image_is_named_and_its_siblings_go_on() {
    let mut world = World::new();
    let missing = sleeper("app").image("busybox:absent").set("pullPolicy", "Never".into());
    world.write("all.yaml", &[missing, sleeper("other")]);
    world.operator.start();
    let status = world.until_status("app", "the image is missing", |s| s["reason"] == "ImageMissing");
    assert_eq!((&status["severity"], &status["usable"]), (&json!(5), &json!(false)), "only a change can help: {status:#}");
    assert!(status["message"].as_str().unwrap_or_default().contains("busybox:absent"), "{status:#}");
    world.until_status("other", "its sibling runs", |s| s["usable"] == true);
    world.write("all.yaml", &[sleeper("app"), sleeper("other")]);
    world.settled(2);
}

/// A small file system of its own, unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        Self::run(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", at.to_str().unwrap()]);
        Self(at)
    }

    fn grow(&self, size: &str) {
        Self::run(&["mount", "-o", &format!("remount,size={size}"), self.0.to_str().unwrap()]);
    }

    fn run(words: &[&str]) {
        let done = Command::new(words[0]).args(&words[1..]).output().expect("mount is there");
        assert!(done.status.success(), "{words:?} (these tests need root): {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the operator may still hold the store.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_disk_that_is_full_at_the_start_is_an_error_that_names_it() {
    let mut world = World::new();
    world.operator.setup.data_dir = world.operator.home().join("small");
    let _disk = SmallDisk::mount(world.operator.setup.data_dir.clone(), "4k");
    let (status, log) = world.operator.run_to_end();
    assert!(!status.success());
    assert!(log.contains("store.redb") && log.to_lowercase().contains("no space left"), "{log}");
}

#[test]
fn a_disk_that_fills_up_stops_nothing_and_work_goes_on_when_there_is_room() {
    let mut world = World::new();
    world.operator.setup.data_dir = world.operator.home().join("small");
    let disk = SmallDisk::mount(world.operator.setup.data_dir.clone(), "4m");
    world.write("all.yaml", &[sleeper("a"), sleeper("b")]);
    world.operator.start();
    world.settled(2);
    let before = world.lives();
    // Everything that is left is taken by somebody else, and a manifest comes that needs more than what the store has in reserve.
    let filler = disk.0.join("filler");
    drop(fs::write(&filler, vec![1_u8; 8 << 20]));
    let big = json!([{ "name": "big", "target": "/etc/big", "content": "x".repeat(300_000) }]);
    let many: Vec<_> = (0..6).map(|n| sleeper(&format!("big-{n}")).set("configs", big.clone())).collect();
    world.write("big.yaml", &many);
    let log = world.operator.until("the full disk is told of", |o| {
        let log = o.log();
        if log.to_lowercase().contains("no space left") && log.contains("could not be stored") { Ok(log) } else { Err(log) }
    });
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(world.lives(), before);
    fs::remove_file(&filler).unwrap();
    disk.grow("64m");
    world.settled(8);
    for (name, life) in &before {
        assert_eq!(world.lives().get(name), Some(life), "{name}");
    }
}

#[test]
fn a_second_operator_on_one_data_directory_is_refused() {
    let mut world = World::up(&[sleeper("app")]);
    let mut second = Operator::prepare(&world.proxy.socket(), &format!("{}b", world.namespace));
    second.setup.data_dir = world.operator.setup.data_dir.clone();
    let (status, log) = second.run_to_end();
    assert!(!status.success());
    assert!(log.contains("store.redb"), "{log}");
    assert!(log.contains("another") || log.contains("in use") || log.contains("already"), "{log}");
    world.settled(1);
}

#[test]
fn a_second_operator_of_one_instance_on_one_engine_is_refused_and_told_of_the_first() {
    let mut world = World::up(&[sleeper("app")]);
    let before = world.lives();
    let mark = world.proxy.mark();
    let mut second = Operator::prepare(&world.proxy.socket(), &world.namespace);
    let (status, log) = second.run_to_end();
    assert!(!status.success());
    let data_dir = world.operator.setup.data_dir.display().to_string();
    for word in [format!("pid {}", world.operator.pid()), data_dir, "--instance".to_owned()] {
        assert!(log.contains(&word), "it should name {word}: {log}");
    }
    assert_eq!(world.proxy.writes_since(mark), []);
    assert_eq!(world.lives(), before);
    world.settled(1);
}

#[test]
fn scenario_2_a_cycle_is_refused_with_its_path_and_nothing_is_created() {
    let mut world = World::new();
    world.write("all.yaml", &[sleeper("a").needs("b"), sleeper("b").needs("c"), sleeper("c").needs("a")]);
    let folder = world.operator.setup.manifests.display().to_string();
    let checked = world.operator.cli(&["validate", &folder]);
    let report = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(2), "{report}");
    let paths = ["a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c"];
    let has_path = |text: &str| {
        let plain = text.replace(&format!("{}/", world.namespace), "");
        paths.iter().any(|path| plain.contains(path))
    };
    assert!(has_path(&report), "{report}");
    world.operator.start();
    let frozen = world.operator.until("the namespace is frozen", |o| {
        let frozen = o.overview()["frozen"].clone();
        if frozen.as_array().is_some_and(|f| !f.is_empty()) { Ok(frozen.to_string()) } else { Err(frozen.to_string()) }
    });
    assert!(has_path(&frozen), "{frozen}");
    assert_eq!(world.proxy.writes_since(0), []);
}

#[test]
fn scenario_7_when_one_database_cannot_start_each_dependent_follows_its_edge_and_names_the_culprit() {
    let mut world = World::new();
    let on = |service: &str, on_down: &str| json!({ "service": service, "onDown": on_down });
    let broken = sleeper("db").image("busybox:absent").set("pullPolicy", "Never".into());
    world.write(
        "all.yaml",
        &[
            broken,
            sleeper("sibling"),
            sleeper("ignores").edge(on("db", "Ignore")),
            sleeper("degrades").edge(on("db", "Degrade")),
            sleeper("blocks").edge(on("db", "Block")),
            sleeper("far").needs("blocks"),
        ],
    );
    world.operator.start();
    for (service, severity) in [("db", 5), ("sibling", 1), ("ignores", 1), ("degrades", 3), ("blocks", 4), ("far", 4)] {
        world.until_status(service, &format!("severity {severity}"), |s| s["severity"] == severity);
    }
    let culprits = |world: &World, service: &str| -> Vec<Value> {
        world.status(service)["blockedBy"].as_array().into_iter().flatten().map(|b| b["name"].clone()).collect()
    };
    for service in ["degrades", "blocks", "far"] {
        assert!(culprits(&world, service).contains(&json!("db")), "{service}: {:?}", culprits(&world, service));
    }
    for service in ["sibling", "ignores"] {
        assert_eq!(culprits(&world, service), [""; 0], "{service}");
    }
    let runs = |name: &str| world.docker.inspect(&world.name(name)).is_some_and(|c| c.state == "running");
    assert_eq!(["sibling", "ignores", "degrades", "blocks", "far"].map(runs), [true, true, true, false, false]);
    let answer = world.operator.get(&format!("/usable/{}/far", world.namespace)).unwrap();
    assert_eq!(answer.code, 503);
    assert_eq!(answer.json()["retryAfter"], Value::Null, "a culprit at 5 gives no hope: {}", answer.text());
}
