//! What somebody else does to our containers and networks is put right, with its cause in an event; what is not ours stands untouched.

use qm_tests::support::docker::Container;
use qm_tests::support::manifests::{self, Service, sleeper, web};
use qm_tests::support::world::World;
use serde_json::json;

/// A town of two services and two strangers that look like family.
struct Town {
    world: World,
    strangers: Vec<Container>,
}

fn services() -> Vec<Service> {
    vec![
        web("store").set("networks", json!(["back"])),
        web("app").needs("store").set("networks", json!(["back", "front"])).set("resources", json!({ "memory": "32Mi" })),
    ]
}

impl Town {
    fn new() -> Self {
        let mut world = World::new();
        let ns = world.namespace.clone();
        let a = world.docker.run_foreign(&format!("{ns}-app-2"), &json!({ "test": ns, "app": "app", "com.docker.compose.service": "app" }));
        let almost_ours = json!({
            "test": ns, "quaymaster.dev/kind": "MiniService", "quaymaster.dev/namespace": ns, "quaymaster.dev/name": "app",
            "quaymaster.dev/instance": "another", "quaymaster.dev/slot": "1",
        });
        let b = world.docker.run_foreign(&format!("{ns}_app_1"), &almost_ours);
        let strangers = [a, b].iter().map(|id| world.docker.inspect(id).expect("a stranger is there")).collect();
        let networks = ["back", "front"].map(|name| manifests::network(&ns, name));
        manifests::put(&world.file("networks.yaml"), &manifests::text(&networks));
        world.write("services.yaml", &services());
        world.operator.start();
        world.settled(2);
        Self { world, strangers }
    }

    /// Waits until all is as wanted again, and looks at what must be so after every repair.
    fn healed(&mut self) {
        self.world.settled(2);
        let ns = self.world.namespace.clone();
        let ours = self.world.docker.labelled(&format!("quaymaster.dev/instance={ns}"));
        let names: Vec<&str> = ours.keys().map(String::as_str).collect();
        assert_eq!(names, [self.world.name("app"), self.world.name("store")], "nothing is doubled");
        let networks = |service: &str| ours[&self.world.name(service)].networks.iter().cloned().collect::<Vec<_>>();
        assert_eq!(networks("app"), [format!("{ns}_back"), format!("{ns}_front")]);
        assert_eq!(networks("store"), [format!("{ns}_back")]);
        assert_eq!(ours[&self.world.name("app")].memory, 32 << 20);
        assert!(ours.values().all(|c| c.state == "running"), "{ours:?}");
        for stranger in &self.strangers {
            assert_eq!(self.world.docker.inspect(&stranger.id).as_ref(), Some(stranger), "a stranger was touched");
        }
        assert_eq!(self.world.reconcile_all(4), 0, "there is something left to do");
    }
}

#[test]
fn a_removed_container_is_made_again() {
    let mut town = Town::new();
    let old = town.world.container("store");
    town.world.docker.remove(&old.id);
    town.world.until_event("store", "Repaired", "create replica 1: missing");
    town.healed();
    assert_ne!(town.world.container("store").id, old.id);
}

#[test]
fn a_stopped_container_is_started_again() {
    let mut town = Town::new();
    let old = town.world.container("store");
    town.world.docker.must("POST", &format!("/containers/{}/stop?t=1", old.id), None);
    town.world.until_event("store", "Repaired", "start replica 1: is exited, should run");
    town.healed();
    assert_eq!(town.world.container("store").id, old.id);
}

#[test]
fn a_killed_container_is_started_again() {
    let mut town = Town::new();
    let old = town.world.container("app");
    town.world.docker.must("POST", &format!("/containers/{}/kill", old.id), None);
    town.world.until_event("app", "Repaired", "start replica 1: is exited, should run");
    town.healed();
    assert_eq!(town.world.container("app").id, old.id);
}

#[test]
fn a_renamed_container_gets_its_name_back() {
    let mut town = Town::new();
    let old = town.world.container("app");
    town.world.docker.must("POST", &format!("/containers/{}/rename?name={}-other", old.id, town.world.namespace), None);
    town.world.until_event("app", "Repaired", "drift: name");
    town.healed();
    assert_eq!(town.world.container("app").life(), old.life(), "a rename needs no restart");
}

#[test]
fn what_is_changed_again_after_a_repair_is_contested_until_somebody_decides() {
    let mut town = Town::new();
    let old = town.world.container("app");
    let set = |town: &Town, mib: u64| {
        let body = json!({ "Memory": mib << 20, "MemorySwap": (2 * mib) << 20 });
        town.world.docker.must("POST", &format!("/containers/{}/update", old.id), Some(&body));
    };
    set(&town, 64);
    town.world.until_event("app", "Repaired", "drift: memory");
    town.world.settled(2);
    set(&town, 48);
    town.world.until_event("app", "Contested", "changed again after it was put back");
    assert_eq!(town.world.reconcile_all(4), 0, "it is left alone");
    assert_eq!(town.world.container("app").memory, 48 << 20);
    let status = town.world.status("app");
    let drifted = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Drifted").cloned();
    assert_eq!(drifted.map(|c| (c["status"].clone(), c["reason"].clone())), Some((json!("True"), json!("Contested"))), "{status}");
    assert_eq!(status["usable"], true);
    // A person who says so has it put back now.
    let ns = town.world.namespace.clone();
    let retry = town.world.operator.cli(&["retry", "msvc/app", "-n", &ns, "--reason", "the script is off"]);
    assert!(retry.status.success(), "{retry:?}");
    town.healed();
    assert_eq!(town.world.container("app").life(), old.life(), "nothing was restarted");
}

#[test]
fn a_changed_memory_limit_is_put_back_in_place() {
    let mut town = Town::new();
    let old = town.world.container("app");
    let body = json!({ "Memory": 64 << 20, "MemorySwap": 128 << 20 });
    town.world.docker.must("POST", &format!("/containers/{}/update", old.id), Some(&body));
    town.world.until_event("app", "Repaired", "drift: memory");
    town.healed();
    assert_eq!(town.world.container("app").life(), old.life(), "a limit needs no restart");
}

#[test]
fn a_disconnected_container_is_connected_again() {
    let mut town = Town::new();
    let old = town.world.container("app");
    let body = json!({ "Container": old.id, "Force": true });
    town.world.docker.must("POST", &format!("/networks/{}_front/disconnect", town.world.namespace), Some(&body));
    town.world.until_event("app", "Repaired", "drift: networks");
    town.healed();
    assert_eq!(town.world.container("app").life(), old.life(), "a network needs no restart");
}

#[test]
fn a_network_removed_by_hand_is_made_again_and_joined_again() {
    let mut town = Town::new();
    let old = town.world.container("app");
    let network = format!("{}_front", town.world.namespace);
    // The operator joins it again at once, so a colleague has to be quick, or try again.
    let body = json!({ "Container": old.id, "Force": true });
    let removed = (0..200).any(|_| {
        town.world.docker.call("POST", &format!("/networks/{network}/disconnect"), Some(&body));
        town.world.docker.call("DELETE", &format!("/networks/{network}"), None).is_ok()
    });
    assert!(removed, "the network could not be removed");
    town.world.until_event("front", "Repaired", "missing");
    town.healed();
    assert_eq!(town.world.container("app").life(), old.life(), "a network needs no restart");
}

#[test]
fn a_whole_project_taken_down_comes_back() {
    let mut town = Town::new();
    let project = format!("com.docker.compose.project={}", town.world.namespace);
    let old = town.world.lives();
    // What `docker compose -p NS down` does: containers of the project first, then its networks.
    for container in town.world.docker.labelled(&project).values() {
        town.world.docker.call("POST", &format!("/containers/{}/stop?t=1", container.id), None);
        town.world.docker.remove(&container.id);
    }
    for id in town.world.docker.networks(&project).keys() {
        town.world.docker.call("DELETE", &format!("/networks/{id}"), None);
    }
    town.world.until_event("store", "Repaired", "missing");
    town.world.until_event("app", "Repaired", "missing");
    town.healed();
    let new = town.world.lives();
    assert!(old.values().all(|life| !new.values().any(|n| n.0 == life.0)), "{old:?} {new:?}");
}

#[test]
fn a_namespace_that_a_foreign_project_uses_is_refused_until_it_is_free() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let labels = json!({ "test": ns, "com.docker.compose.project": ns, "com.docker.compose.service": "app" });
    let foreign = world.docker.run_foreign(&format!("{ns}-app-7"), &labels);
    let stranger = world.docker.inspect(&foreign);
    world.write("all.yaml", &[sleeper("app")]);
    world.operator.start();
    world.until_status("app", "the namespace is refused", |s| s["reason"] == "NamespaceInUse" && s["usable"] == false);
    assert_eq!(world.containers().len(), 0);
    assert_eq!(world.proxy.writes_since(0), []);
    assert_eq!(world.docker.inspect(&foreign), stranger);
    world.docker.remove(&foreign);
    world.settled(1);
}

#[test]
fn what_others_may_change_stays_and_the_rest_is_put_back_after_a_while() {
    let drift = json!({ "ignore": ["/container/resources/pids"], "holdOff": "1s" });
    let app = sleeper("app").set("resources", json!({ "memory": "32Mi", "pids": 50 })).spec("drift", drift);
    let mut world = World::up(&[app]);
    let old = world.container("app");
    let update = |world: &World, body: &serde_json::Value| {
        world.docker.must("POST", &format!("/containers/{}/update", old.id), Some(body));
    };
    let limit = |world: &World, field: &str| {
        world.docker.must("GET", &format!("/containers/{}/json", old.id), None)["HostConfig"][field].as_i64().unwrap_or_default()
    };
    let memory = |mib: i64| json!({ "Memory": mib << 20, "MemorySwap": mib << 21 });
    update(&world, &json!({ "PidsLimit": 99 }));
    update(&world, &memory(48));
    world.until_event("app", "Repaired", "memory");
    assert_eq!((limit(&world, "Memory"), limit(&world, "PidsLimit")), (32 << 20, 99), "the one was put back, the other one stays");
    assert_eq!(world.container("app").life(), old.life());
    assert_eq!(world.reconcile_all(2), 0, "nothing is left to do");
}
