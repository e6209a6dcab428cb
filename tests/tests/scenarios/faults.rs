//! Docker misbehaves, or the operator goes away for a moment: no container, no dependent's status and no restart counter changes.

use std::collections::BTreeMap;
use std::time::Duration;

use qm_tests::support::manifests::{sleeper, web};
use qm_tests::support::proxy::{Faults, Side};
use qm_tests::support::wait;
use qm_tests::support::world::World;
use serde_json::Value;

/// What must not change.
#[derive(Debug, PartialEq)]
struct Peace {
    lives: BTreeMap<String, (String, String, u64)>,
    standing: Vec<Value>,
}

fn calm_world() -> (World, Peace) {
    let world = World::up(&[web("store"), web("app").needs("store")]);
    let peace = peace(&world);
    (world, peace)
}

fn peace(world: &World) -> Peace {
    Peace { lives: world.lives(), standing: vec![world.standing("store"), world.standing("app")] }
}

/// Shows that the fault left no trace: everything as it was, no write in between, nothing left to do.
fn unharmed(world: &mut World, before: &Peace, mark: usize) {
    world.settled(2);
    assert_eq!(&peace(world), before, "{}", world.operator.log());
    assert_eq!(world.proxy.writes_since(mark), []);
    assert_eq!(world.reconcile_all(3), 0);
}

fn is_usable(world: &World, service: &str) -> Result<(), String> {
    let answer = world.operator.get(&format!("/usable/{}/{service}", world.namespace))?;
    if answer.code == 200 { Ok(()) } else { Err(format!("{service}: {}", answer.text())) }
}

#[test]
fn the_event_stream_is_cut() {
    let (mut world, before) = calm_world();
    let mark = world.proxy.mark();
    for _ in 0..3 {
        let streams = world.proxy.count("/events");
        world.proxy.cut_events();
        let proxy = &world.proxy;
        world
            .operator
            .until("another event stream", |_| if proxy.count("/events") > streams { Ok(()) } else { Err("not asked for".to_owned()) });
    }
    unharmed(&mut world, &before, mark);
}

#[test]
fn docker_is_slow() {
    let (mut world, before) = calm_world();
    let mark = world.proxy.mark();
    world.proxy.set(Faults { delay: Duration::from_millis(1_500), ..Faults::default() });
    let streams = world.proxy.count("/events");
    world.proxy.cut_events();
    let proxy = &world.proxy;
    world.operator.until("another list from a slow engine", |_| {
        let listed = proxy.since(mark).iter().any(|c| c.route == "/containers/{id}/json" && c.code == Some(200));
        if listed && proxy.count("/events") > streams { Ok(()) } else { Err("not yet".to_owned()) }
    });
    world.proxy.set(Faults::default());
    unharmed(&mut world, &before, mark);
}

#[test]
fn docker_answers_500() {
    let (mut world, before) = calm_world();
    let mark = world.proxy.mark();
    world.proxy.set(Faults { failing: true, ..Faults::default() });
    world.proxy.cut_events();
    let proxy = &world.proxy;
    world.operator.until("several refused calls", |_| {
        let refused = proxy.since(mark).iter().filter(|c| c.code == Some(500)).count();
        if refused >= 3 { Ok(()) } else { Err(format!("{refused}")) }
    });
    is_usable(&world, "app").unwrap();
    world.proxy.set(Faults::default());
    unharmed(&mut world, &before, mark);
}

#[test]
fn the_socket_is_gone_for_twenty_seconds() {
    let (mut world, before) = calm_world();
    let mark = world.proxy.mark();
    world.proxy.vanish();
    wait::throughout(Duration::from_secs(20), || is_usable(&world, "store").and_then(|()| is_usable(&world, "app"))).unwrap();
    assert_eq!(world.operator.overview()["engine"]["reachable"], false);
    world.proxy.come_back();
    unharmed(&mut world, &before, mark);
}

#[test]
fn the_operator_is_restarted() {
    let (mut world, before) = calm_world();
    let mark = world.proxy.mark();
    world.operator.stop();
    world.operator.start();
    unharmed(&mut world, &before, mark);
    world.operator.kill();
    world.operator.start();
    unharmed(&mut world, &before, mark);
}

#[test]
fn a_change_that_nobody_has_acted_on_is_not_ready_after_a_restart() {
    let mut world = World::up(&[sleeper("app")]);
    world.proxy.trap(1, Side::Before);
    world.write("all.yaml", &[sleeper("app").image("busybox:two")]);
    let proxy = &world.proxy;
    world.operator.until("the first write for the change", |_| if proxy.is_sprung() { Ok(()) } else { Err(String::new()) });
    world.operator.kill();
    world.proxy.release();
    // Looking takes long, and acting comes to nothing.
    world.proxy.set(Faults { delay: Duration::from_millis(700), ..Faults::default() });
    world.proxy.trap(1, Side::Before);
    world.operator.start();
    wait::throughout(Duration::from_secs(8), || {
        let app = world.operator.service(&world.namespace, "app");
        let conditions = app["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_ready =
            |c: &Value| c["type"] == "Ready" && c["status"] == "True" && c["observedGeneration"] == app["metadata"]["generation"];
        if conditions.iter().any(is_ready) { Err(format!("the old container counts as the new revision: {app:#}")) } else { Ok(()) }
    })
    .unwrap();
    world.proxy.release();
    world.proxy.set(Faults::default());
    world.settled(1);
}
