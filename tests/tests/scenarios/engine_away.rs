//! dockerd itself stops and starts: with live-restore, without it, and with the whole machine.

use qm_tests::support::engine::{Engine, Options};
use qm_tests::support::manifests::{Service, web};
use qm_tests::support::world::World;

fn services() -> Vec<Service> {
    let grace = |s: Service| s.spec("unknownGrace", "3s".into());
    vec![grace(web("store")), grace(web("app").needs("store"))]
}

fn up(engine: &Engine) -> World {
    let mut world = World::on(engine.docker());
    world.write("all.yaml", &services());
    world.operator.start();
    world.settled(2);
    world
}

fn until_unreachable(world: &mut World) {
    for service in ["store", "app"] {
        world.until_status(service, "unreachable after its grace", |s| {
            s["usable"] == false && (s["reason"] == "EngineUnreachable" || s["reason"] == "DependencyUnavailable")
        });
    }
}

#[test]
fn with_live_restore_nothing_happens_to_containers_and_status_says_what_is_not_known() {
    let mut engine = Engine::start(Options { live_restore: true });
    let mut world = up(&engine);
    let before = world.lives();
    let mark = world.proxy.mark();
    engine.stop();
    world.until_status("store", "stale, and usable for its grace", |s| s["stale"] == true && s["usable"] == true);
    until_unreachable(&mut world);
    engine.launch();
    world.settled(2);
    assert_eq!(world.lives(), before);
    assert_eq!(world.proxy.writes_since(mark), []);
    assert_eq!(world.reconcile_all(3), 0);
    drop(world);
}

#[test]
fn without_live_restore_the_loss_is_seen_and_healed() {
    let mut engine = Engine::start(Options::default());
    let mut world = up(&engine);
    let before = world.lives();
    engine.stop();
    until_unreachable(&mut world);
    engine.launch();
    world.settled(2);
    let after = world.lives();
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "nothing is doubled");
    for (name, life) in &after {
        assert_eq!(life.0, before[name].0, "{name} is the same container");
        assert_ne!(life.1, before[name].1, "{name} was started again");
    }
    assert_eq!(world.reconcile_all(3), 0);
    drop(world);
}

#[test]
fn after_a_reboot_everything_is_there_once() {
    let mut engine = Engine::start(Options::default());
    let mut world = up(&engine);
    let before = world.lives();
    world.operator.kill();
    engine.stop();
    engine.launch();
    world.operator.start();
    world.settled(2);
    let after = world.lives();
    let ids = |lives: &std::collections::BTreeMap<String, (String, String, u64)>| lives.values().map(|l| l.0.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&before), ids(&after));
    assert_eq!(world.reconcile_all(3), 0);
    drop(world);
}
