//! When a service reloads for its dependencies, and what its plans do about it: tables over manifests and what was counted.

#[expect(dead_code, reason = "the model has more than these tables need")]
mod model;

use std::collections::BTreeMap;

use insta::assert_snapshot;
use model::{Model, service};
use qm_api::graph::Dependency;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::kinds::mini_service::PendingReload;
use qm_plan::observed::RunState;
use qm_plan::reload::{Counted, Decision, Memory, RELOADS, Standing, Verb, decide, name};
use qm_plan::step::Cause;

fn on(name: &str) -> ObjectKey {
    ObjectKey::new("MiniService", "n", name)
}

fn edges(text: &str) -> Vec<Dependency> {
    service("{image: a:1}", text).dependencies
}

fn seen(counts: &[(&str, u64, u64, u64)]) -> Memory {
    let counted = |(_, losses_ended, changes_ended, revision): &(&str, u64, u64, u64)| Counted {
        losses_ended: *losses_ended,
        changes_ended: *changes_ended,
        revision: *revision,
    };
    Memory { seen: counts.iter().map(|c| (name(&on(c.0)), counted(c))).collect(), recent: Vec::new() }
}

/// One that has been usable since `since_ms`, when it also returned and changed.
fn standing(losses_ended: u64, changes_ended: u64, revision: u64, since_ms: i64) -> Standing {
    Standing {
        counted: Counted { losses_ended, changes_ended, revision },
        returned_at: Some(Timestamp::from_millis(since_ms)),
        changed_at: Some(Timestamp::from_millis(since_ms)),
        usable_since_ms: Some(since_ms),
    }
}

/// The decision in words, with nothing that is still to reload.
fn look(edges: &[Dependency], memory: &Memory, nodes: &[(&str, Standing)], now_ms: i64) -> String {
    look_beside(edges, memory, nodes, &[], now_ms)
}

/// The same while these are still to reload, or being changed.
fn look_beside(edges: &[Dependency], memory: &Memory, nodes: &[(&str, Standing)], unsettled: &[&str], now_ms: i64) -> String {
    let nodes: BTreeMap<ObjectKey, Standing> = nodes.iter().map(|(name, standing)| (on(name), *standing)).collect();
    let is_unsettled = |key: &ObjectKey| unsettled.iter().any(|name| on(name) == *key);
    match decide(edges, memory, |key| nodes.get(key).copied(), is_unsettled, Timestamp::from_millis(now_ms), now_ms) {
        Decision::Nothing => "nothing".to_owned(),
        Decision::Note(_) => "note".to_owned(),
        Decision::Wait(until) => format!("wait {until:?}"),
        Decision::Spent { evidence, .. } => format!("spent: {evidence}"),
        Decision::Reload { verb, triggers, .. } => {
            let triggers: Vec<String> = triggers.iter().map(ToString::to_string).collect();
            format!("{verb:?}: {}", triggers.join(", "))
        }
    }
}

#[test]
fn each_edge_asks_for_what_it_says() {
    let cases = [
        ("{service: db}", (1, 0, 1), "note"),
        ("{service: db, onUp: Restart}", (1, 0, 1), "Restart: n/db returned"),
        ("{service: db, onUp: Restart}", (0, 0, 2), "note"),
        ("{service: db, onUp: Restart}", (0, 1, 1), "note"),
        ("{service: db, onUp: Restart}", (0, 0, 1), "nothing"),
        ("{service: db, onChange: Signal}", (0, 0, 2), "Signal: n/db changed"),
        ("{service: db, onChange: Signal}", (0, 1, 1), "Signal: n/db changed"),
        ("{service: db, onChange: Signal}", (1, 0, 1), "note"),
        ("{service: db, onUp: Signal, onChange: Rebuild, stage: Create}", (1, 0, 2), "Recreate: n/db returned, n/db changed"),
        ("{service: db, onUp: Rebuild, stage: Credentials}", (1, 0, 1), "Signal: n/db returned"),
        ("{service: db, onUp: Rebuild}", (1, 0, 1), "Restart: n/db returned"),
        ("{service: db, onDown: Ignore, onUp: Restart}", (3, 0, 1), "Restart: n/db returned"),
    ];
    for (edge, (losses, changes, revision), expected) in cases {
        let found =
            look(&edges(&format!("[{edge}]")), &seen(&[("db", 0, 0, 1)]), &[("db", standing(losses, changes, revision, 0))], 10_000);
        assert_eq!(found, expected, "{edge} with {losses} losses, {changes} changes, revision {revision}");
    }
}

#[test]
fn who_looks_for_the_first_time_has_missed_nothing() {
    let edges = edges("[{service: db, onUp: Restart, onChange: Restart}]");
    assert_eq!(look(&edges, &Memory::default(), &[("db", standing(7, 3, 9, 0))], 10_000), "note");
    assert_eq!(look(&edges, &Memory::default(), &[], 10_000), "nothing", "a dependency that was never usable");
}

#[test]
fn a_reload_waits_until_its_dependency_has_stayed() {
    let edges = edges("[{service: db, onUp: Restart, debounce: 5s}]");
    let memory = seen(&[("db", 0, 0, 1)]);
    let at = |now_ms| look(&edges, &memory, &[("db", standing(1, 0, 1, 10_000))], now_ms);
    assert_eq!(
        (at(12_000), at(14_999), at(15_000)),
        ("wait Some(15000)".into(), "wait Some(15000)".into(), "Restart: n/db returned".into())
    );
    let gone = Standing { usable_since_ms: None, ..standing(1, 0, 1, 10_000) };
    assert_eq!(look(&edges, &memory, &[("db", gone)], 60_000), "nothing", "down again: it waits for the return");
}

#[test]
fn several_that_return_reload_it_once() {
    let edges = edges("[{service: db, onUp: Restart}, {service: mq, onUp: Signal, debounce: 20s}, {service: far, onUp: Restart}]");
    let memory = seen(&[("db", 0, 0, 1), ("mq", 0, 0, 1), ("far", 0, 0, 1)]);
    let nodes =
        [("db", standing(1, 0, 1, 0)), ("mq", standing(1, 0, 1, 0)), ("far", Standing { usable_since_ms: None, ..standing(1, 0, 1, 0) })];
    assert_eq!(look(&edges, &memory, &nodes, 10_000), "wait Some(20000)");
    assert_eq!(look(&edges, &memory, &nodes, 20_000), "Restart: n/db returned, n/mq returned", "one that is still away keeps nobody");
}

#[test]
fn level_by_level() {
    let edges = edges("[{service: db, onUp: Restart}, {service: api, onChange: Restart}]");
    let memory = seen(&[("db", 0, 0, 1), ("api", 0, 0, 1)]);
    // The other dependency is still to reload for the same return: that will be its own change, and both are one reload.
    let nodes = [("db", standing(1, 0, 1, 0)), ("api", standing(0, 0, 1, 0))];
    assert_eq!(look_beside(&edges, &memory, &nodes, &["api"], 10_000), "wait None");
    assert_eq!(
        look_beside(&edges, &memory, &nodes, &["other"], 10_000),
        "Restart: n/db returned",
        "what it does not react to keeps nobody"
    );
    // Without news nobody is even asked.
    assert_eq!(look_beside(&edges, &memory, &[("db", standing(0, 0, 1, 0))], &["api"], 10_000), "nothing");
    let settled = [("db", standing(1, 0, 1, 0)), ("api", standing(0, 1, 1, 5_000))];
    assert_eq!(look(&edges, &memory, &settled, 10_000), "Restart: n/api changed, n/db returned");
}

#[test]
fn what_flaps_is_braked() {
    let edges = edges("[{service: db, onUp: Restart}]");
    let mut memory = seen(&[("db", 0, 0, 1)]);
    for n in 1..=u64::from(RELOADS.tries) {
        let now = Timestamp::from_millis(n as i64 * 10_000);
        let Decision::Reload { memory: next, .. } =
            decide(&edges, &memory, |_| Some(standing(n, 0, 1, 0)), |_| false, now, n as i64 * 10_000)
        else {
            panic!("reload {n} is within the budget")
        };
        memory = next;
    }
    assert_eq!(look(&edges, &memory, &[("db", standing(9, 0, 1, 0))], 100_000), "spent: n/db returned");
    assert_eq!(look(&edges, &memory, &[("db", standing(9, 0, 1, 0))], 611_000), "Restart: n/db returned", "the window frees it");
}

fn pending(model: &Model, verb: Verb) -> PendingReload {
    let containers: BTreeMap<Name, Option<Timestamp>> = model.view.containers.iter().map(|c| (c.id.clone(), c.started_at)).collect();
    PendingReload { verb, cause: Cause::Reload { triggers: vec!["n/db returned".to_owned()] }, containers }
}

fn three() -> Model {
    let mut model = Model::new(service("{image: a:1, networks: [data], replicas: 3, health: {tcp: {port: 1}}}", ""));
    model.settle();
    model
}

#[test]
fn replicas_reload_one_after_the_other() {
    for verb in [Verb::Signal, Verb::Restart] {
        let mut model = three();
        let before: Vec<(Name, Option<Timestamp>)> = model.view.containers.iter().map(|c| (c.id.clone(), c.started_at)).collect();
        model.clock += 60_000;
        model.reload = Some(pending(&model, verb));
        assert_snapshot!(format!("{verb:?}"), model.plan());
        model.settle();
        let after: Vec<(Name, Option<Timestamp>)> = model.view.containers.iter().map(|c| (c.id.clone(), c.started_at)).collect();
        let ids = |list: &[(Name, Option<Timestamp>)]| list.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&before), ids(&after), "the same containers");
        let restarted = before.iter().zip(&after).filter(|(a, b)| a.1 != b.1).count();
        assert_eq!(restarted, if verb == Verb::Restart { 3 } else { 0 });
    }
}

#[test]
fn a_rebuild_from_creation_replaces_each_container_once() {
    let mut model = three();
    let before: Vec<Name> = model.view.containers.iter().map(|c| c.id.clone()).collect();
    model.reload = Some(pending(&model, Verb::Recreate));
    assert_snapshot!(model.plan());
    model.settle();
    assert!(model.view.containers.iter().all(|c| !before.contains(&c.id) && c.state == RunState::Running), "{}", model.world());
    assert_eq!(model.view.containers.len(), 3);
    assert!(model.current().is_empty(), "{}", model.plan());
}

#[test]
fn a_lost_dependency_stops_and_its_return_starts_whatever_the_restart_policy_says() {
    for restart in ["Always", "OnFailure", "Never"] {
        let mut model =
            Model::new(service(&format!("{{image: a:1, networks: [data], restart: {restart}}}"), "[{service: db, onDown: Stop}]"));
        model.gates.insert(on("db"), qm_plan::kinds::mini_service::Gate { usable: true, bad: false });
        model.settle();
        let id = model.view.containers[0].id.clone();
        model.stopped_for = Some(on("db"));
        if restart == "Always" {
            assert_snapshot!(model.plan());
        }
        // The record that is written before the call.
        model.stopped = model.view.containers.iter().map(|c| (c.id.clone(), c.started_at)).collect();
        model.settle();
        assert_eq!(model.view.containers[0].state, RunState::Exited);
        model.stopped_for = None;
        assert_eq!(model.current().steps[0].cause, Cause::DependencyReturned, "{}", model.plan());
        model.settle();
        assert_eq!((model.view.containers[0].id.clone(), model.view.containers[0].state), (id, RunState::Running));
    }
}

#[test]
fn who_is_skipped_is_not_run_and_goes_on_with_the_same_containers_when_the_dependency_is_on_again() {
    let mut model = Model::new(service("{image: a:1, networks: [data], restart: Never}", "[{service: db}]"));
    model.skipped_for = Some(on("db"));
    assert!(model.current().is_empty(), "nothing is created: {}", model.plan());
    model.skipped_for = None;
    model.gates.insert(on("db"), qm_plan::kinds::mini_service::Gate { usable: true, bad: false });
    model.settle();
    let id = model.view.containers[0].id.clone();
    model.skipped_for = Some(on("db"));
    assert_snapshot!(model.plan());
    model.stopped = model.view.containers.iter().map(|c| (c.id.clone(), c.started_at)).collect();
    model.settle();
    assert_eq!(model.view.containers[0].state, RunState::Exited);
    model.skipped_for = None;
    assert_eq!(model.current().steps[0].cause, Cause::DependencyReturned, "{}", model.plan());
    model.settle();
    assert_eq!((model.view.containers[0].id.clone(), model.view.containers[0].state), (id, RunState::Running));
}

#[test]
fn what_was_skipped_is_new_afterwards_and_no_drift() {
    let mut desired = service("{image: a:1, networks: [data]}", "[{service: db}]");
    desired.drift = qm_api::kinds::mini_service::DriftMode::Report;
    let mut model = Model::new(desired);
    model.gates.insert(on("db"), qm_plan::kinds::mini_service::Gate { usable: true, bad: false });
    model.skipped_for = Some(on("db"));
    model.settle();
    model.skipped_for = None;
    model.settle();
    assert_eq!(model.view.containers.len(), 1, "reported drift would wait for ever: {}", model.plan());
}

#[test]
fn a_clock_that_went_back_restarts_nobody_who_was_started_since() {
    let db = edges("[{service: db, onUp: Restart}]");
    // It returned at 900 s; the clock was put back by 800 s ten seconds later, and 20 s have passed since then.
    let mut nodes = standing(1, 0, 1, 100_000);
    nodes.returned_at = Some(Timestamp::from_millis(900_000));
    let (now, now_ms) = (Timestamp::from_millis(130_000), 130_000);
    let decision = decide(&db, &seen(&[("db", 0, 0, 1)]), |_| Some(nodes), |_| false, now, now_ms);
    let Decision::Reload { after, .. } = decision else { panic!("{decision:?}") };
    assert_eq!(after, Timestamp::from_millis(100_000), "since then it has been usable, whatever the clock said");
}
