//! What Compose runs is taken over as it is: twenty files of different kinds, and no container is touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use qm_tests::support::docker::Docker;
use qm_tests::support::manifests::sleeper;
use qm_tests::support::world::{LONG, World};

/// Names Docker Compose's program; `docker-compose` by default.
const COMPOSE: &str = "COMPOSE";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("compose")
}

/// The projects, named after their files.
fn projects() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).expect("the Compose files are there").map(|e| e.expect("a folder can be read").path());
    let mut names: Vec<String> = entries
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// Compose, run on this world's engine for one project.
fn compose(docker: &Docker, project: &str, arguments: &[&str]) -> String {
    let program = std::env::var(COMPOSE).unwrap_or_else(|_| "docker-compose".to_owned());
    let mut command = Command::new(&program);
    command.arg("-p").arg(project).arg("-f").arg(folder().join(format!("{project}.yaml"))).args(arguments);
    command.env("DOCKER_HOST", format!("unix://{}", docker.socket().display()));
    let done = command.output().unwrap_or_else(|e| panic!("Compose v2 is needed: `{program}` cannot be run ({e}); name it in {COMPOSE}"));
    assert!(done.status.success(), "{project}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// `quaymaster` without an operator, on this world's engine.
fn alone(world: &World, arguments: &[&str]) -> Output {
    let mut command = Command::new(qm_tests::support::operator::binary());
    command.args(arguments).env("DOCKER_HOST", format!("unix://{}", world.docker.socket().display()));
    command.env("QUAYMASTER_SOCKET", world.operator.home().join("none.sock"));
    command.output().expect("the binary can be run")
}

/// Ids and starts of every container of the engine that Compose made.
fn lives(world: &World) -> BTreeMap<String, (String, String, u64)> {
    let labelled = world.docker.labelled("com.docker.compose.project");
    labelled.into_iter().map(|(name, c)| (name, c.life())).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Takes the projects away, whatever becomes of the test.
struct Down(Docker, Vec<String>);

impl Drop for Down {
    fn drop(&mut self) {
        self.0.sweep("quaymaster.dev/instance=adopting");
        for project in &self.1 {
            compose(&self.0, project, &["down", "--volumes", "--timeout", "0"]);
        }
    }
}

#[test]
fn twenty_compose_files_are_adopted_and_nothing_is_touched() {
    let mut world = World::new();
    world.operator.setup.instance = "adopting".to_owned();
    let projects = projects();
    assert!(projects.len() >= 20, "{projects:?}");
    let _down = Down(world.docker.clone(), projects.clone());
    for project in &projects {
        compose(&world.docker, project, &["up", "--detach", "--quiet-pull"]);
    }
    let before = lives(&world);
    assert!(before.len() > 30, "{} containers", before.len());
    let manifests = world.operator.setup.manifests.clone();
    let mut listed = String::new();
    for project in &projects {
        let file = manifests.join(format!("{project}.yaml"));
        let done = alone(&world, &["init", "--from-running", project, "--output", &file.display().to_string()]);
        assert!(done.status.success(), "{project}: {}", text(&done.stderr));
        listed.push_str(&text(&done.stderr));
    }
    // What has no counterpart is listed, never dropped.
    for words in [
        "monitor is left out and stays as it is; it has network_mode host",
        "shell: no field yet for tty: on",
        "shell: no field yet for hostname: desk",
        "app: no field yet for security_opt: no-new-privileges:true",
        "failed: no field yet for no more than 3 restarts",
        "app: no field yet for that its start waits for migrate to end well",
        "app: no field yet for dns_search: lan.test",
    ] {
        assert!(listed.contains(words), "{words} is not in\n{listed}");
    }
    let dir = manifests.display().to_string();
    let plan = alone(&world, &["plan", &dir]);
    assert_eq!(text(&plan.stdout), "Nothing to do.\n", "{}", text(&plan.stderr));
    assert!(plan.status.success());
    // A manifest that says something else plans a replacement, with what differs.
    let other = world.operator.home().join("other");
    std::fs::create_dir(&other).expect("a folder can be made");
    let queue = std::fs::read_to_string(manifests.join("c02-queue.yaml")).expect("it was written");
    std::fs::write(other.join("queue.yaml"), queue.replace("busybox:local", "busybox:two")).expect("a file can be written");
    let differs = alone(&world, &["plan", &other.display().to_string()]);
    assert_eq!(differs.status.code(), Some(1));
    let said = text(&differs.stdout);
    assert!(
        said.contains("create MiniService c02-queue/queue.1  revision 1 -> 2: image") && said.contains("Plan: 4 to replace."),
        "{said}"
    );
    // First only watched, then for real.
    world.operator.setup.observe = true;
    world.operator.start();
    let adopted = wait_adopted(&mut world);
    println!("{adopted} services of {} projects, {} containers", projects.len(), before.len());
    assert_eq!(lives(&world), before);
    assert!(world.operator.cli(&["resume", "--all"]).status.success());
    world.quiet();
    let plan = world.operator.cli(&["plan"]);
    assert_eq!(text(&plan.stdout), "Nothing to do.\n");
    assert_eq!(lives(&world), before, "nothing was touched");
    // And after a restart, and when the store is lost.
    world.operator.stop();
    world.operator.setup.observe = false;
    world.operator.start();
    assert_eq!(wait_adopted(&mut world), adopted);
    world.operator.stop();
    std::fs::remove_dir_all(&world.operator.setup.data_dir).expect("the store is there");
    world.operator.start();
    assert_eq!(wait_adopted(&mut world), adopted);
    world.quiet();
    assert_eq!(text(&world.operator.cli(&["plan"]).stdout), "Nothing to do.\n");
    assert_eq!(lives(&world), before, "nothing was touched");
    // The first change replaces what changed, and brings the stamp.
    let file = manifests.join("c02-queue.yaml");
    let changed = std::fs::read_to_string(&file).expect("it was written").replace("86400", "86402");
    qm_tests::support::manifests::put(&file, &changed);
    world.operator.until_within(LONG, "the queue's four containers replaced", |o| {
        let stamped = world.docker.labelled("quaymaster.dev/instance=adopting");
        let names: Vec<&String> = stamped.keys().collect();
        let wanted = ["c02-queue-queue-1", "c02-queue-worker-1", "c02-queue-worker-2", "c02-queue-worker-3"];
        if names == wanted && stamped.values().all(|c| c.state == "running") { Ok(()) } else { Err(format!("{names:?}\n{}", o.log())) }
    });
    let after = lives(&world);
    let kept = before.iter().filter(|(name, life)| after.get(*name) == Some(life)).count();
    assert_eq!(kept, before.len() - 4, "nothing else was touched");
    world.operator.stop();
}

#[test]
fn what_cannot_be_adopted_is_left_alone_and_said() {
    let mut world = World::new();
    let name = format!("{}-theirs", world.namespace);
    let theirs = world.docker.run_foreign(&name, &serde_json::json!({ "test": world.namespace }));
    let adopt = |service: &str, container: &str| {
        let mut document = sleeper(service).document(&world.namespace);
        document["metadata"]["annotations"] = serde_json::json!({ "quaymaster.dev/adopt": container });
        document
    };
    let documents = [adopt("lonely", &name), adopt("absent", "nobody-1")];
    qm_tests::support::manifests::put(&world.file("all.yaml"), &qm_tests::support::manifests::text(&documents));
    world.operator.start();
    let is_stalled = |status: &serde_json::Value, words: &str| {
        let conditions = status["conditions"].as_array();
        conditions.is_some_and(|list| {
            let said = |c: &serde_json::Value| c["message"].as_str().is_some_and(|m| m.contains(words));
            list.iter().any(|c| c["type"] == "Stalled" && c["status"] == "True" && c["reason"] == "NotAdoptable" && said(c))
        })
    };
    world.until_status("lonely", "it says why", |s| is_stalled(s, "it has network_mode none"));
    world.until_status("absent", "it says why", |s| is_stalled(s, "there is no container nobody-1 to adopt"));
    world.until_event("lonely", "NotAdoptable", "network_mode none");
    assert_eq!(world.containers().len(), 0, "nothing was made");
    assert_eq!(world.reconcile_all(3), 0, "and nobody is asked again and again");
    let left = world.docker.inspect(&theirs).expect("it is there");
    assert_eq!((left.state.as_str(), left.name.as_str()), ("running", name.as_str()));
    world.docker.remove(&theirs);
}

#[test]
fn every_compose_file_is_translated_into_valid_manifests() {
    let world = World::new();
    let program = std::env::var(COMPOSE).unwrap_or_else(|_| "docker-compose".to_owned());
    let manifests = world.operator.setup.manifests.display().to_string();
    for project in projects() {
        let from = folder().join(format!("{project}.yaml")).display().to_string();
        let to = format!("{manifests}/{project}.yaml");
        let done = alone(&world, &["init", "--from-compose", &from, "--namespace", &project, "--output", &to, "--compose", &program]);
        assert!(done.status.success(), "{project}: {}", text(&done.stderr));
    }
    let valid = alone(&world, &["validate", &manifests]);
    assert!(valid.status.success(), "{}", text(&valid.stdout));
    // A file that Compose refuses, and a Compose that is not there, say so.
    let broken = world.operator.home().join("broken.yaml");
    std::fs::write(&broken, "services: [1]\n").expect("a file can be written");
    let refused = alone(&world, &["init", "--from-compose", &broken.display().to_string(), "--compose", &program]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    let absent = alone(&world, &["init", "--from-compose", &broken.display().to_string(), "--compose", "no-such-compose"]);
    assert_eq!(absent.status.code(), Some(3), "{}", text(&absent.stderr));
}

/// Waits until every service of the manifests has been looked at; gives how many there are.
fn wait_adopted(world: &mut World) -> usize {
    world.operator.until_within(LONG, "every service adopted", |o| {
        let answer = o.get("/apis/quaymaster.dev/v1alpha1/miniservices").map(|a| a.json())?;
        let services = answer["items"].as_array().cloned().unwrap_or_default();
        let unready: Vec<String> = services
            .iter()
            .filter(|s| s["status"]["slots"].as_array().is_none_or(|slots| slots.iter().any(|slot| slot["containerId"].is_null())))
            .map(|s| format!("{}/{}: {}", s["metadata"]["namespace"], s["metadata"]["name"], s["status"]["message"]))
            .collect();
        if services.len() > 30 && unready.is_empty() {
            Ok(services.len())
        } else {
            Err(format!("{} services; {unready:?}", services.len()))
        }
    })
}
