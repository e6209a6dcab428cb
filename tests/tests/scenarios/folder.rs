//! What happens to a folder of manifests while people work in it: nothing that should run stops.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use qm_tests::support::manifests::{self, Service, sleeper};
use qm_tests::support::wait;
use qm_tests::support::world::World;

fn three() -> Vec<Service> {
    vec![sleeper("a"), sleeper("b"), sleeper("c")]
}

fn git(dir: &Path, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).args(["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "init.defaultBranch=one"]);
    let done = command.args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null").output().expect("git is there");
    assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_hundred_branch_switches_stop_nothing() {
    let mut world = World::new();
    let dir = world.operator.setup.manifests.clone();
    for (at, service) in three().iter().enumerate() {
        world.write(&format!("{at}.yaml"), std::slice::from_ref(service));
    }
    git(&dir, &["init", "-q"]);
    git(&dir, &["add", "."]);
    git(&dir, &["commit", "-qm", "one file a service"]);
    git(&dir, &["checkout", "-qb", "two"]);
    git(&dir, &["rm", "-q", "0.yaml", "1.yaml"]);
    fs::create_dir(dir.join("deep")).unwrap();
    world.write("deep/rest.yaml", &three()[..2]);
    git(&dir, &["add", "."]);
    git(&dir, &["commit", "-qm", "two services in one file, elsewhere"]);
    world.operator.start();
    world.settled(3);
    let before = world.lives();
    let mark = world.proxy.mark();
    for at in 0..100 {
        git(&dir, &["checkout", "-q", if at % 2 == 0 { "one" } else { "two" }]);
    }
    // The last word has been heard when a service that comes now is there.
    world.write("new.yaml", &[sleeper("new")]);
    world.settled(4);
    let after = world.lives();
    for (name, life) in &before {
        assert_eq!(after.get(name), Some(life), "{name}");
    }
    let stops: Vec<_> =
        world.proxy.writes_since(mark).into_iter().filter(|c| c.route != "/containers/create" && !c.route.ends_with("/start")).collect();
    assert_eq!(stops, []);
}

#[test]
fn a_valid_beginning_of_a_file_for_a_second_removes_nothing() {
    let mut world = World::new();
    world.operator.setup.settle = "2s".to_owned();
    world.write("all.yaml", &three());
    world.operator.start();
    world.settled(3);
    let before = world.lives();
    let mark = world.proxy.mark();
    let path = world.file("all.yaml");
    let whole = fs::read_to_string(&path).unwrap();
    let first = whole.find("---\n").expect("there are several documents");
    fs::write(&path, &whole[..first]).unwrap();
    wait::throughout(Duration::from_secs(1), || match world.proxy.writes_since(mark).is_empty() {
        true => Ok(()),
        false => Err(format!("{:?}", world.proxy.writes_since(mark))),
    })
    .unwrap();
    fs::write(&path, &whole).unwrap();
    world.write("new.yaml", &[sleeper("new")]);
    world.settled(4);
    let after = world.lives();
    for (name, life) in &before {
        assert_eq!(after.get(name), Some(life), "{name}");
    }
}

#[test]
fn an_emptied_folder_removes_nothing_before_a_person_says_so() {
    let mut world = World::up(&three());
    let before = world.lives();
    let mark = world.proxy.mark();
    fs::remove_file(world.file("all.yaml")).unwrap();
    let hash = world.operator.until("the removal is held", |o| {
        let source = o.overview()["sources"][0].clone();
        source["pruneHeld"]["stepHash"].as_str().map(str::to_owned).ok_or_else(|| source.to_string())
    });
    assert_eq!(world.operator.metric("quaymaster_prune_held", &[]), 1.0);
    let shown = world.operator.cli(&["status"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("quaymaster approve"), "{shown}");
    assert_eq!(world.lives(), before);
    assert_eq!(world.proxy.writes_since(mark), []);
    let done = world.operator.cli(&["approve", &hash, "--reason", "it is meant"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let (docker, ns) = (world.docker.clone(), world.namespace.clone());
    world.operator.until("all is removed", |_| {
        let left = docker.containers(&ns);
        if left.is_empty() { Ok(()) } else { Err(format!("{:?}", left.keys())) }
    });
}

#[test]
fn a_folder_that_cannot_be_read_changes_nothing_and_is_reported() {
    let mut world = World::up(&three());
    let before = world.lives();
    let mark = world.proxy.mark();
    let dir = world.operator.setup.manifests.clone();
    let aside = dir.with_extension("aside");
    fs::rename(&dir, &aside).unwrap();
    world.operator.until("the source is reported", |o| {
        let source = o.overview()["sources"][0].clone();
        if source["health"] != "Ready" { Ok(()) } else { Err(source.to_string()) }
    });
    assert_eq!(world.lives(), before);
    fs::rename(&aside, &dir).unwrap();
    world.write("new.yaml", &[sleeper("new")]);
    world.settled(4);
    for (name, life) in &before {
        assert_eq!(world.lives().get(name), Some(life), "{name}");
    }
    let removed: Vec<_> =
        world.proxy.writes_since(mark).into_iter().filter(|c| c.method == "DELETE" || c.route.ends_with("/stop")).collect();
    assert_eq!(removed, []);
}

#[test]
fn a_bad_file_freezes_its_namespace_and_says_where_it_is_bad() {
    let mut world = World::up(&three());
    let before = world.lives();
    let bad = fs::read_to_string(world.file("all.yaml")).unwrap().replacen("\"command\"", "\"comand\"", 1);
    manifests::put(&world.file("all.yaml"), &bad);
    let ns = world.namespace.clone();
    let frozen = world.operator.until("the namespace is frozen", |o| {
        let frozen = o.overview()["frozen"].clone();
        let ours = frozen.as_array().into_iter().flatten().find(|f| f["namespace"] == ns.as_str()).cloned();
        ours.ok_or_else(|| frozen.to_string())
    });
    assert!(frozen.to_string().contains("all.yaml") && frozen.to_string().contains("comand"), "{frozen:#}");
    assert_eq!(world.lives(), before);
    world.write("all.yaml", &three());
    world.operator.until("the namespace is free again", |o| {
        let frozen = o.overview()["frozen"].clone();
        if frozen.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(frozen.to_string()) }
    });
    world.settled(3);
    assert_eq!(world.lives(), before);
}
