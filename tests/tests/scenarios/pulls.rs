//! Images from a real registry: who may have them, how many are pulled at once, and what a status says meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use qm_tests::support::docker::Docker;
use qm_tests::support::manifests::{put, sleeper};
use qm_tests::support::operator::Operator;
use qm_tests::support::registry::{PASSWORD, Registry, SlowDoor, USER, auth_header, credentials};
use qm_tests::support::world::World;
use serde_json::{Value, json};

/// A name of an image, which goes with the test.
struct Pulled<'a>(&'a Docker, String);

impl Drop for Pulled<'_> {
    fn drop(&mut self) {
        if self.0.is_up() {
            // Containers still have it: the name goes, and they do in a moment.
            self.0.call("DELETE", &format!("/images/{}?force=1", self.1), None);
        }
    }
}

fn put_credentials(file: &Path, text: &str) {
    put(file, text);
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("the mode of an own file can be changed");
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

fn retry(world: &World, service: &str) {
    let done = world.operator.cli(&["retry", &format!("msvc/{service}"), "-n", &world.namespace]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn message_has(status: &Value, parts: &[&str]) -> bool {
    let message = status["message"].as_str().unwrap_or_default();
    parts.iter().all(|part| message.contains(part))
}

/// Whatever of the operator can be read by anybody.
fn everything_said(world: &World) -> BTreeMap<&'static str, String> {
    let get = |path: &str| world.operator.get(path).map(|a| a.text()).unwrap_or_default();
    let cli = |arguments: &[&str]| String::from_utf8_lossy(&world.operator.cli(arguments).stdout).into_owned();
    let namespace = &world.namespace;
    BTreeMap::from([
        ("services", get(&format!("/apis/quaymaster.dev/v1alpha1/namespaces/{namespace}/miniservices"))),
        ("events", get(&format!("/api/v1/namespaces/{namespace}/events"))),
        ("overview", get("/quaymaster/v1/overview")),
        ("metrics", world.operator.metrics()),
        ("plan", cli(&["plan", "--format", "json"])),
        ("describe", cli(&["describe", "msvc", "-n", namespace])),
        ("log", world.operator.whole_log()),
    ])
}

#[test]
fn a_private_image_is_had_as_soon_as_the_credentials_are_there_and_they_are_shown_to_nobody() {
    let registry = Registry::start();
    let mut world = World::new();
    let docker = world.docker.clone();
    let image = registry.push(&docker, "busybox:local", "acme/app", "1");
    let _gone = Pulled(&docker, image.clone());
    let file = world.operator.home().join("registries.json");
    put_credentials(&file, r#"{"auths": {}}"#);
    let name = file.display().to_string();
    world.operator.setup.arguments = vec!["--registry-credentials".to_owned(), name.clone()];
    world.operator.setup.log = Some("trace".to_owned());
    // The one is retried by hand, the other comes by itself.
    world.write("all.yaml", &[sleeper("app").image(&image), sleeper("other").image(&image)]);
    world.operator.start();

    let advice = format!("put credentials for {} into {name}", registry.host());
    for service in ["app", "other"] {
        let status = world.until_status(service, "denied, with what to do and when it is tried again", |s| {
            s["reason"] == "RegistryDenied" && message_has(s, &["no basic auth credentials", &advice, "next try at 20"])
        });
        assert_eq!(status["availability"], "Unavailable", "{status:#}");
        assert_eq!(condition(&status, "Stalled")["reason"], "RegistryDenied");
        assert_eq!(condition(&status, "Reconciling")["status"], "False", "nothing is pulled between two tries");
    }
    let shown = world.operator.cli(&["status"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("put credentials for"), "{shown}");

    put_credentials(&file, &credentials(registry.host(), USER, "wrong"));
    retry(&world, "app");
    let renew = format!("does not take the credentials that {name} has for it");
    world.until_status("app", "refused", |s| s["reason"] == "RegistryDenied" && message_has(s, &[&renew]));

    put_credentials(&file, "{");
    retry(&world, "app");
    let broken = format!("the registry credentials file {name} cannot be used: it is no JSON");
    let status = world.until_status("app", "the file is named", |s| message_has(s, &[&broken]));
    assert_eq!(status["availability"], "TemporarilyUnavailable", "{status:#}");

    put_credentials(&file, &credentials(registry.host(), USER, PASSWORD));
    world.settled(2);
    for (what, text) in everything_said(&world) {
        let auth = auth_header(USER, PASSWORD);
        let in_file = credentials(registry.host(), USER, PASSWORD);
        let in_file = in_file.split('"').find(|part| part.ends_with('=') || part.len() == 20).unwrap_or(PASSWORD);
        for secret in [PASSWORD, &auth, &auth.replace('-', "+").replace('_', "/"), in_file] {
            assert!(!text.contains(secret), "{what} tells {secret}:\n{text}");
        }
    }
    assert_eq!(world.reconcile_all(3), 0);
}

#[test]
fn one_pull_serves_all_who_want_the_image_and_the_next_waits_for_its_turn() {
    let registry = Registry::start();
    let mut world = World::new();
    let docker = world.docker.clone();
    let door = SlowDoor::before(&registry, 4 * 1024 * 1024);
    let images = ["acme/one", "acme/two"].map(|repository| door.through(&registry.push_large(&docker, repository, 10 * 1024 * 1024)));
    let _gone = images.clone().map(|image| Pulled(&docker, image));
    let file = world.operator.home().join("registries.json");
    let host = images[0].split('/').next().unwrap_or_default();
    put_credentials(&file, &credentials(host, USER, PASSWORD));
    let file = file.display().to_string();
    world.operator.setup.arguments = ["--registry-credentials", &file, "--parallel-pulls", "1"].map(str::to_owned).to_vec();
    world.write("all.yaml", &[sleeper("a").image(&images[0]), sleeper("b").image(&images[1]), sleeper("c").image(&images[0])]);
    world.operator.start();

    // What each service said of its pull, one after the other.
    let mut said: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut in_status = String::new();
    let namespace = world.namespace.clone();
    world.operator.until_within(qm_tests::support::world::LONG, "three services that run", |o| {
        let mut usable = 0;
        for service in ["a", "b", "c"] {
            let status = o.service(&namespace, service)["status"].clone();
            usable += usize::from(status["usable"] == true);
            let at_work = condition(&status, "Reconciling");
            if at_work["status"] == "True" && at_work["reason"] == "Pulling" {
                let message = at_work["message"].as_str().unwrap_or_default().to_owned();
                if said.get(service).and_then(|s| s.last()) != Some(&message) {
                    if message.ends_with('%') && in_status.is_empty() {
                        in_status = String::from_utf8_lossy(&o.cli(&["status"]).stdout).into_owned();
                    }
                    said.entry(service).or_default().push(message);
                }
            }
        }
        if usable == 3 { Ok(()) } else { Err(format!("{usable} are usable; {said:#?}")) }
    });
    world.settled(3);

    assert!(in_status.contains("pulling 127.0.0.1:") && in_status.contains(" %"), "{in_status}");
    let all: Vec<&String> = said.values().flatten().collect();
    assert!(all.iter().any(|s| s.ends_with("waits for its turn, 1 other pull is under way")), "{said:#?}");
    for (service, said) in &said {
        let percents: Vec<u32> = said.iter().filter_map(|s| s.strip_suffix(" %")?.rsplit_once(' ')?.1.parse().ok()).collect();
        assert!(percents.len() >= 2, "{service} tells how far it is: {said:#?}");
        assert!(percents.is_sorted() && percents.last() <= Some(&100), "{service} never goes back: {percents:?}");
        let status = world.status(service);
        assert_eq!(condition(&status, "Reconciling")["status"], "False", "{status:#}");
        assert_eq!(condition(&status, "Reconciling")["reason"], "AsWanted", "{status:#}");
    }
    assert_eq!(world.proxy.count("/images/create"), 2, "{:?}", world.proxy.calls());
    assert_eq!(world.reconcile_all(4), 0);
}

#[test]
fn a_credentials_file_that_cannot_be_used_at_the_start_is_the_end_of_it() {
    let mut operator = Operator::prepare(Path::new("/nonexistent/docker.sock"), "no-credentials");
    let file: PathBuf = operator.home().join("registries.json");
    operator.setup.arguments = vec!["--registry-credentials".to_owned(), file.display().to_string()];
    for text in [None, Some("{"), Some(r#"{"auths": {"r.x": {"auth": "hunter2"}}}"#)] {
        if let Some(text) = text {
            put_credentials(&file, text);
        }
        let (status, log) = operator.run_to_end();
        assert_eq!(status.code(), Some(2), "{log}");
        let named = format!("the registry credentials file {} cannot be used", file.display());
        assert!(log.contains(&named) && log.contains("docker --config DIR login REGISTRY"), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}

#[test]
fn what_has_no_effect_in_a_credentials_file_is_told_at_the_start() {
    let mut operator = Operator::prepare(Path::new("/nonexistent/docker.sock"), "warned-of-credentials");
    let file = operator.home().join("registries.json");
    fs::write(&file, json!({ "auths": { "r.x": {} }, "credsStore": "pass" }).to_string()).expect("a file can be written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("the mode of an own file can be changed");
    operator.setup.arguments = vec!["--registry-credentials".to_owned(), file.display().to_string()];
    operator.start();
    let log = operator.whole_log();
    for part in ["`credsStore` is not supported", "base64 of user:password", "r.x", "chmod 600"] {
        assert!(log.contains(part), "{part}: {log}");
    }
}
