use std::sync::Arc;

use proptest::prelude::*;
use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::graph::{Dependency, Graph};
use qm_api::meta::ObjectKey;
use qm_api::spec::edge::{Edge, OnDown};
use qm_api::time::Timestamp;

use super::{DownCause, Engine, Epoch, Now, Remembered, Rollup, Settings};
use crate::own::Own;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("MiniService", "n", name)
}

fn now(ms: u64) -> Now {
    Now { wall: Timestamp::from_millis(ms as i64), mono_ms: ms }
}

fn graph(edges: &[(&str, &[(&str, OnDown)])]) -> Graph {
    Graph::build(edges.iter().map(|(from, to)| (key(from), to.iter().map(|(on, down)| edge(on, *down)).collect())))
}

fn edge(on: &str, down: OnDown) -> Dependency {
    // Without tolerance nothing depends on what was before.
    Dependency::resolve(&"n".into(), &Edge { service: Some(on.to_owned()), ..tolerating(0, down) }).unwrap()
}

fn engine(graph: &Graph) -> Engine {
    let mut engine = Engine::default();
    engine.set_graph(graph, &|_| Settings { grace_ms: 30_000, critical: false, rollup: None }, now(0));
    engine
}

fn up() -> Own {
    Own::seen(Availability::Available, Reason::Healthy, "")
}

fn down() -> Own {
    Own::seen(Availability::TemporarilyUnavailable, Reason::NotRunning, "gone")
}

fn severities(engine: &Engine) -> Vec<(String, u8)> {
    engine.snapshot().iter().map(|n| (n.key.name.to_string(), n.severity())).collect()
}

#[test]
fn each_edge_contributes_as_it_says() {
    use OnDown::*;
    let g = graph(&[
        ("db", &[]),
        ("block", &[("db", Block)]),
        ("degrade", &[("db", Degrade)]),
        ("ignore", &[("db", Ignore)]),
        ("stop", &[("db", Stop)]),
        ("far", &[("block", Block)]),
    ]);
    let mut e = engine(&g);
    for name in ["db", "block", "degrade", "ignore", "stop", "far"] {
        e.observe(&key(name), up(), now(1));
    }
    assert!(severities(&e).iter().all(|(_, s)| *s == 1));
    let changed = e.observe(&key("db"), down(), now(2));
    let want = [("block", 4), ("db", 4), ("degrade", 3), ("far", 4), ("ignore", 1), ("stop", 4)];
    assert_eq!(severities(&e), want.map(|(n, s)| (n.to_owned(), s)));
    assert_eq!(changed.first(), Some(&key("db")), "levels in order");
    assert!(!changed.contains(&key("ignore")), "propagation ends at an Ignore edge");
    let far = e.snapshot().get(&key("far")).cloned().unwrap();
    assert_eq!(far.blocked_by.len(), 1, "the culprit is the root, once");
    assert_eq!(far.blocked_by[0].key, key("db"));
    assert_eq!(far.blocked_by[0].path, ["block", "db"].map(|name| Arc::new(key(name))));
    assert_eq!(far.reason, Reason::DependencyUnavailable);
    e.observe(&key("db"), up(), now(3));
    assert!(severities(&e).iter().all(|(_, s)| *s == 1), "all heal by themselves");
}

#[test]
fn a_diamond_counts_its_culprit_once() {
    use OnDown::*;
    let g = graph(&[("a", &[]), ("b", &[("a", Block)]), ("c", &[("a", Block)]), ("d", &[("b", Block), ("c", Block)])]);
    let mut e = engine(&g);
    for name in ["a", "b", "c", "d"] {
        e.observe(&key(name), up(), now(1));
    }
    let before = e.stats().nodes;
    e.observe(&key("a"), down(), now(2));
    assert_eq!(e.stats().nodes - before, 4, "each node is computed once");
    assert_eq!(e.snapshot().get(&key("d")).unwrap().blocked_by.len(), 1);
}

#[test]
fn unknown_keeps_the_last_known_for_its_grace_only() {
    let g = graph(&[("a", &[]), ("b", &[("a", OnDown::Block)])]);
    let mut e = engine(&g);
    e.observe(&key("a"), up(), now(1));
    e.observe(&key("b"), up(), now(1));
    let blind = Own::Unseen { reason: Reason::EngineUnreachable, message: "no engine".into() };
    let changed = e.observe(&key("a"), blind.clone(), now(1_000));
    assert_eq!(changed, [key("a")], "a dependent sees nothing of it");
    let a = e.snapshot().get(&key("a")).cloned().unwrap();
    assert!(a.stale && a.usable() && a.availability == Availability::Available);
    assert_eq!(e.next_deadline_ms(), Some(31_000));
    assert!(e.advance(now(30_999)).is_empty());
    let changed = e.advance(now(31_000));
    assert_eq!(changed, [key("a"), key("b")]);
    let a = e.snapshot().get(&key("a")).cloned().unwrap();
    assert_eq!((a.severity(), a.reason, a.stale), (4, Reason::EngineUnreachable, false));
    e.observe(&key("a"), up(), now(40_000));
    assert!(e.snapshot().get(&key("b")).unwrap().usable());
}

#[test]
fn a_restart_trusts_what_was_recorded_for_the_grace() {
    let g = graph(&[("a", &[]), ("b", &[("a", OnDown::Block)])]);
    let mut e = engine(&g);
    assert_eq!(e.snapshot().get(&key("a")).unwrap().reason, Reason::Pending);
    let since = Timestamp::from_millis(-5_000);
    e.observe(&key("b"), Own::Unseen { reason: Reason::EngineUnreachable, message: "not yet".into() }, now(0));
    for name in ["a", "b"] {
        e.seed(&key(name), Availability::Available, Reason::Healthy, since, now(0));
    }
    let a = e.snapshot().get(&key("a")).cloned().unwrap();
    assert!(a.usable() && a.stale && a.since == since, "the last known counts, since when it did");
    e.observe(&key("a"), up(), now(10));
    let a = e.snapshot().get(&key("a")).cloned().unwrap();
    assert!(a.usable() && !a.stale && a.since == since);
    e.advance(now(30_000));
    let b = e.snapshot().get(&key("b")).cloned().unwrap();
    assert_eq!((b.severity(), b.own.reason), (4, Reason::EngineUnreachable), "what is never seen again is unknown in the end");
}

#[test]
fn a_disabled_dependency_skips_those_who_cannot_do_without_it() {
    use OnDown::*;
    let g = graph(&[("a", &[]), ("b", &[("a", Block)]), ("c", &[("a", Degrade)]), ("d", &[("b", Block)])]);
    let mut e = engine(&g);
    for name in ["b", "c", "d"] {
        e.observe(&key(name), up(), now(1));
    }
    e.observe(&key("a"), Own::Off(Reason::Disabled), now(1));
    let s = e.snapshot();
    assert_eq!(s.get(&key("b")).unwrap().off, Some(Reason::Skipped));
    assert_eq!(s.get(&key("d")).unwrap().off, Some(Reason::Skipped));
    assert_eq!(s.get(&key("c")).unwrap().severity(), 1);
}

fn arbitrary_own() -> impl Strategy<Value = Own> {
    prop_oneof![
        4 => Just(up()),
        2 => Just(down()),
        1 => Just(Own::seen(Availability::PartiallyAvailable, Reason::SomeReplicasHealthy, "some")),
        1 => Just(Own::seen(Availability::Unavailable, Reason::CrashLoop, "loops")),
        1 => Just(Own::Off(Reason::Disabled)),
    ]
}

const SIZE: usize = 12;

fn arbitrary_graph() -> impl Strategy<Value = Vec<Vec<(usize, OnDown)>>> {
    let down = prop_oneof![Just(OnDown::Ignore), Just(OnDown::Degrade), Just(OnDown::Block), Just(OnDown::Stop)];
    let node = prop::collection::vec((any::<prop::sample::Index>(), down), 0..4);
    prop::collection::vec(node, SIZE).prop_map(|nodes| {
        let to_lower = |(from, edges): (usize, Vec<(prop::sample::Index, OnDown)>)| {
            edges.into_iter().filter(|_| from > 0).map(|(to, down)| (to.index(from.max(1)), down)).collect()
        };
        nodes.into_iter().enumerate().map(to_lower).collect()
    })
}

fn build(nodes: &[Vec<(usize, OnDown)>]) -> Graph {
    let name = |i: usize| format!("s{i:02}");
    let to_edge = |from: usize, (to, down): &(usize, OnDown)| match is_parent(&name(from)) {
        true => Dependency::child(key(&name(*to))),
        false => edge(&name(*to), *down),
    };
    Graph::build(nodes.iter().enumerate().map(|(i, edges)| (key(&name(i)), edges.iter().map(|edge| to_edge(i, edge)).collect())))
}

/// Every fourth node is a mini container.
fn is_parent(name: &str) -> bool {
    matches!(name, "s03" | "s07" | "s11")
}

fn mixed_engine(graph: &Graph) -> Engine {
    let mut engine = Engine::default();
    let rollup = Some(Rollup { allow_empty: false, deleting: false });
    engine.set_graph(graph, &|k| Settings { grace_ms: 30_000, critical: false, rollup: rollup.filter(|_| is_parent(&k.name)) }, now(0));
    engine
}

proptest! {
    #[test]
    fn incremental_equals_from_scratch_in_any_order(
        nodes in arbitrary_graph(),
        changes in prop::collection::vec((0..SIZE, arbitrary_own()), 0..40),
    ) {
        let g = build(&nodes);
        let mut incremental = mixed_engine(&g);
        let mut last = vec![None; SIZE];
        for (at, (node, own)) in changes.iter().enumerate() {
            incremental.observe(&key(&format!("s{node:02}")), own.clone(), now(at as u64));
            last[*node] = Some(own.clone());
        }
        let mut scratch = mixed_engine(&g);
        for (node, own) in last.iter().enumerate().rev() {
            if let Some(own) = own {
                scratch.observe(&key(&format!("s{node:02}")), own.clone(), now(999));
            }
        }
        let view = |e: &Engine| -> Vec<_> {
            e.snapshot().iter().map(|n| (n.key.clone(), n.severity(), n.off, n.reason, n.blocked_by.clone())).collect()
        };
        prop_assert_eq!(view(&incremental), view(&scratch));
    }

    #[test]
    fn a_rise_of_a_dependency_never_lowers_anybody(
        nodes in arbitrary_graph(),
        owns in prop::collection::vec(arbitrary_own(), SIZE),
        risen in 0..SIZE,
    ) {
        let g = build(&nodes);
        let mut e = mixed_engine(&g);
        for (node, own) in owns.iter().enumerate() {
            e.observe(&key(&format!("s{node:02}")), own.clone(), now(1));
        }
        // A node that comes back on the scale may bring others back on it; that is no lowering.
        prop_assume!(!matches!(owns[risen], Own::Off(_)));
        let before = severities(&e);
        e.observe(&key(&format!("s{risen:02}")), up(), now(2));
        for ((name, old), (_, new)) in before.iter().zip(severities(&e)) {
            prop_assert!(new <= *old, "{} went from {} to {}", name, old, new);
        }
    }

    #[test]
    fn only_the_affected_and_their_edges_are_visited(nodes in arbitrary_graph(), changed in 0..SIZE) {
        let g = build(&nodes);
        let mut e = mixed_engine(&g);
        for node in 0..SIZE {
            e.observe(&key(&format!("s{node:02}")), up(), now(1));
        }
        let before = e.stats();
        let affected = e.observe(&key(&format!("s{changed:02}")), down(), now(2));
        let visited = e.stats().nodes - before.nodes;
        let neighbours: usize = affected.iter().map(|k| g.dependents(k).len()).sum();
        prop_assert!(visited as usize <= 1 + affected.len() + neighbours, "{} visits for {} affected", visited, affected.len());
    }
}

fn resolved(edge: Edge) -> Dependency {
    Dependency::resolve(&"n".into(), &Edge { service: Some("db".to_owned()), ..edge }).unwrap()
}

/// `db`, and `app` that depends on it so; both up at 1 ms.
fn pair(edge: Edge, critical: bool) -> Engine {
    let g = Graph::build([(key("db"), vec![]), (key("app"), vec![resolved(edge)])]);
    let mut e = Engine::default();
    e.set_graph(&g, &|k| Settings { grace_ms: 30_000, critical: critical && k.name == "db", rollup: None }, now(0));
    for name in ["db", "app"] {
        e.observe(&key(name), up(), now(1));
    }
    e
}

fn app(e: &Engine) -> std::sync::Arc<super::NodeView> {
    e.snapshot().get(&key("app")).cloned().unwrap()
}

fn tolerating(seconds: u64, on_down: OnDown) -> Edge {
    let tolerate = Some(qm_api::spec::quantity::Tolerate::For(qm_api::spec::quantity::Duration::from_secs(seconds)));
    Edge { tolerate, on_down: Some(on_down), ..Edge::default() }
}

#[test]
fn a_loss_counts_when_its_tolerance_is_over() {
    let mut e = pair(tolerating(60, OnDown::Block), false);
    e.observe(&key("db"), down(), now(1_000));
    assert_eq!((app(&e).severity(), app(&e).tolerated[0].until_ms), (1, 61_000));
    assert_eq!(e.next_deadline_ms(), Some(61_000));
    // Another reason for the same loss is the same loss.
    e.observe(&key("db"), Own::seen(Availability::Unavailable, Reason::CrashLoop, "again"), now(30_000));
    e.advance(now(60_999));
    assert_eq!(app(&e).severity(), 1);
    assert_eq!(e.advance(now(61_000)), [key("app")]);
    assert_eq!((app(&e).severity(), app(&e).tolerated.len(), app(&e).blocked_by.len()), (4, 0, 1));
    e.observe(&key("db"), up(), now(70_000));
    assert_eq!(app(&e).severity(), 1);
    // It starts anew with the next loss.
    e.observe(&key("db"), down(), now(80_000));
    assert_eq!((app(&e).severity(), app(&e).tolerated[0].until_ms), (1, 140_000));
}

#[test]
fn what_was_never_usable_is_not_tolerated() {
    let g = Graph::build([(key("db"), vec![]), (key("app"), vec![resolved(tolerating(60, OnDown::Block))])]);
    let mut e = engine(&g);
    e.observe(&key("app"), up(), now(1));
    e.observe(&key("db"), down(), now(1));
    assert_eq!(app(&e).severity(), 4);
    assert!(app(&e).stopped_for.is_none());
}

#[test]
fn only_an_observed_loss_stops_after_its_tolerance() {
    let stop = || Edge { on_down: Some(OnDown::Stop), ..Edge::default() };
    let mut e = pair(stop(), false);
    e.observe(&key("db"), down(), now(1_000));
    assert_eq!((app(&e).severity(), app(&e).stopped_for.clone()), (1, None), "30 s are tolerated by default");
    e.advance(now(31_000));
    assert_eq!((app(&e).severity(), app(&e).stopped_for.clone()), (4, Some(key("db"))));
    e.observe(&key("db"), up(), now(32_000));
    assert_eq!((app(&e).severity(), app(&e).stopped_for.clone()), (1, None));
    // The engine is away: nobody knows, and nobody is stopped.
    e.observe(&key("db"), Own::Unseen { reason: Reason::EngineUnreachable, message: "no".into() }, now(40_000));
    for at in [70_000, 100_000, 200_000] {
        e.advance(now(at));
        assert_eq!(app(&e).stopped_for, None, "at {at}");
    }
    assert_eq!(app(&e).severity(), 4);
    // Seen again, and not up: from now on it is known.
    e.observe(&key("db"), down(), now(210_000));
    e.advance(now(239_999));
    assert_eq!(app(&e).stopped_for, None);
    e.advance(now(240_000));
    assert_eq!(app(&e).stopped_for, Some(key("db")));
}

#[test]
fn a_planned_change_stops_nobody_and_is_no_return() {
    let mut e = pair(Edge { on_down: Some(OnDown::Stop), tolerate: tolerating(0, OnDown::Stop).tolerate, ..Edge::default() }, false);
    e.set_changing(&key("db"), true, now(10));
    e.observe(&key("db"), down(), now(20));
    assert_eq!((app(&e).severity(), app(&e).reason, app(&e).stopped_for.clone()), (4, Reason::DependencyChanging, None));
    e.observe(&key("db"), up(), now(30));
    e.set_changing(&key("db"), false, now(40));
    let db = |e: &Engine| e.snapshot().get(&key("db")).unwrap().history;
    assert_eq!(db(&e).epoch, Epoch { losses_ended: 0, changes_ended: 1 });
    assert_eq!(db(&e).usable_since_ms, Some(30));
    // One that does not end in time has failed.
    e.set_changing(&key("db"), true, now(50));
    e.observe(&key("db"), down(), now(60));
    e.set_changing(&key("db"), false, now(70));
    assert_eq!((app(&e).reason, app(&e).stopped_for.clone()), (Reason::DependencyUnavailable, Some(key("db"))));
    e.observe(&key("db"), up(), now(80));
    assert_eq!(db(&e).epoch, Epoch { losses_ended: 1, changes_ended: 1 });
    // A failure stays one, whatever is done about it.
    e.observe(&key("db"), down(), now(90));
    e.set_changing(&key("db"), true, now(100));
    e.observe(&key("db"), up(), now(110));
    assert_eq!(db(&e).epoch, Epoch { losses_ended: 2, changes_ended: 1 });
}

#[test]
fn an_outage_that_nobody_saw_is_no_loss() {
    let mut e = pair(Edge::default(), false);
    e.observe(&key("db"), Own::Unseen { reason: Reason::EngineUnreachable, message: "no".into() }, now(1_000));
    e.advance(now(31_000));
    let db = e.snapshot().get(&key("db")).cloned().unwrap();
    assert_eq!((db.severity(), db.down), (4, Some(DownCause::Unknown)));
    e.observe(&key("db"), up(), now(50_000));
    assert_eq!(e.snapshot().get(&key("db")).unwrap().history.epoch, Epoch::default());
}

#[test]
fn a_restart_goes_on_counting_where_the_store_left_off() {
    let g = Graph::build([(key("db"), vec![]), (key("app"), vec![resolved(tolerating(60, OnDown::Block))])]);
    let mut e = engine(&g);
    let since = Timestamp::from_millis(-40_000);
    let epoch = Epoch { losses_ended: 7, changes_ended: 2 };
    e.remember(&key("db"), Remembered { epoch, down: Some(DownCause::Failed), since }, now(0));
    e.observe(&key("app"), up(), now(1));
    e.observe(&key("db"), down(), now(1));
    assert_eq!((app(&e).severity(), app(&e).tolerated[0].until_ms), (1, 20_000), "what is left of a minute");
    e.observe(&key("db"), up(), now(5_000));
    assert_eq!(e.snapshot().get(&key("db")).unwrap().history.epoch, Epoch { losses_ended: 8, changes_ended: 2 });
    // What was usable when the store heard of it last has lost nothing by our restart.
    let mut e = engine(&g);
    e.remember(&key("db"), Remembered { epoch, down: None, since }, now(0));
    e.observe(&key("db"), up(), now(5_000));
    assert_eq!(e.snapshot().get(&key("db")).unwrap().history.epoch, epoch);
}

#[test]
fn a_critical_node_that_fails_is_a_failure_of_the_system() {
    let mut e = pair(Edge { on_down: Some(OnDown::Degrade), ..Edge::default() }, true);
    let db = |e: &Engine| e.snapshot().get(&key("db")).unwrap().severity();
    e.observe(&key("db"), down(), now(1_000));
    assert_eq!((db(&e), app(&e).severity()), (6, 4), "a Degrade edge to it acts as Block");
    e.observe(&key("db"), up(), now(2_000));
    assert_eq!((db(&e), app(&e).severity()), (1, 1));
    e.set_changing(&key("db"), true, now(3_000));
    e.observe(&key("db"), down(), now(3_001));
    assert_eq!((db(&e), app(&e).severity()), (4, 3), "being changed is not failing");
    // What is only on its way up has not failed either.
    let g = graph(&[("db", &[])]);
    let mut e = Engine::default();
    e.set_graph(&g, &|_| Settings { grace_ms: 0, critical: true, rollup: None }, now(0));
    e.observe(&key("db"), down(), now(1));
    assert_eq!(db(&e), 4);
}

#[test]
fn unseen_time_does_not_count_towards_a_stop() {
    let mut e = pair(Edge { on_down: Some(OnDown::Stop), ..Edge::default() }, false);
    e.observe(&key("db"), Own::Unseen { reason: Reason::EngineUnreachable, message: "no".into() }, now(1_000));
    for at in [31_000, 61_000, 301_000] {
        e.advance(now(at));
    }
    assert_eq!(app(&e).severity(), 4, "five minutes are more than is tolerated");
    // The engine is back, and the dependency is just starting.
    e.observe(&key("db"), down(), now(301_000));
    assert_eq!(app(&e).stopped_for, None, "it was seen to be down only now");
    assert_eq!(e.next_deadline_ms(), Some(331_000));
    e.advance(now(330_999));
    assert_eq!(app(&e).stopped_for, None);
    e.advance(now(331_000));
    assert_eq!(app(&e).stopped_for, Some(key("db")));
}

#[test]
fn what_is_switched_on_again_has_lost_nothing() {
    let mut e = pair(Edge { on_down: Some(OnDown::Stop), tolerate: tolerating(0, OnDown::Stop).tolerate, ..Edge::default() }, true);
    e.observe(&key("db"), Own::Off(Reason::Disabled), now(1_000));
    assert_eq!(app(&e).off, Some(Reason::Skipped));
    e.observe(&key("db"), Own::seen(Availability::TemporarilyUnavailable, Reason::Starting, "on its way"), now(2_000));
    let db = |e: &Engine| e.snapshot().get(&key("db")).cloned().unwrap();
    assert_eq!((db(&e).severity(), app(&e).stopped_for.clone()), (4, None), "neither a failure of the system nor a reason to stop");
    e.observe(&key("db"), up(), now(3_000));
    assert_eq!(db(&e).history.epoch, Epoch::default(), "and nothing has returned");
}

fn parent() -> ObjectKey {
    ObjectKey::new("MiniContainer", "n", "p")
}

/// An engine with one mini container over children of these severities; 0 = off.
fn rolled(children: &[u8], allow_empty: bool) -> Engine {
    let names: Vec<String> = (0..children.len()).map(|n| format!("c{n}")).collect();
    let nodes = names.iter().map(|name| (key(name), vec![]));
    let edges = names.iter().map(|name| Dependency::child(key(name))).collect();
    let g = Graph::build(nodes.chain([(parent(), edges)]));
    let mut e = Engine::default();
    let rollup = Some(Rollup { allow_empty, deleting: false });
    e.set_graph(&g, &|k| Settings { grace_ms: 30_000, critical: true, rollup: rollup.filter(|_| *k == parent()) }, now(0));
    for (name, severity) in names.iter().zip(children) {
        observe_severity(&mut e, name, *severity, 1_000);
    }
    e
}

fn observe_severity(e: &mut Engine, name: &str, severity: u8, at: u64) {
    let own = match severity {
        0 => Own::Off(Reason::Disabled),
        1 => up(),
        2 => Own::seen(Availability::AlmostAvailable, Reason::Reported, "so so"),
        3 => Own::seen(Availability::PartiallyAvailable, Reason::SomeReplicasHealthy, "1 of 2"),
        4 => Own::seen(Availability::TemporarilyUnavailable, Reason::Starting, "not yet"),
        // It is critical: what needs a person has failed.
        _ => Own::seen(Availability::Unavailable, Reason::ImageMissing, "no image"),
    };
    e.observe(&key(name), own, now(at));
}

#[test]
fn a_mini_container_sums_up_its_children() {
    let severity = |children: &[u8], allow_empty| rolled(children, allow_empty).snapshot().get(&parent()).unwrap().severity();
    for (children, sum) in [
        (&[1, 1, 1][..], 1),
        (&[1, 3, 1], 2),
        (&[2, 2], 2),
        (&[1, 1, 4], 3),
        (&[3, 4], 3),
        (&[4, 4], 4),
        (&[1, 5], 4),
        (&[1, 0], 1),
        (&[0, 4], 4),
        (&[0, 0], 5),
        (&[], 5),
    ] {
        assert_eq!(severity(children, false), sum, "{children:?}");
    }
    assert_eq!((severity(&[], true), severity(&[0], true)), (3, 3));
}

#[test]
fn who_depends_on_a_mini_container_is_told_of_the_child() {
    let names = ["a", "b"].map(key);
    let edge = Edge { kind: Some("MiniContainer".into()), name: Some("p".into()), ..Edge::default() };
    let g = Graph::build([
        (names[0].clone(), vec![]),
        (names[1].clone(), vec![]),
        (parent(), names.iter().cloned().map(Dependency::child).collect()),
        (key("app"), vec![Dependency::resolve(&"n".into(), &edge).unwrap()]),
    ]);
    let mut e = Engine::default();
    let rollup = Some(Rollup { allow_empty: false, deleting: false });
    e.set_graph(&g, &|k| Settings { grace_ms: 30_000, critical: false, rollup: rollup.filter(|_| *k == parent()) }, now(0));
    for name in ["a", "b", "app"] {
        e.observe(&key(name), up(), now(1_000));
    }
    assert_eq!((app(&e).severity(), app(&e).level), (1, 2));
    e.observe(&key("a"), down(), now(2_000));
    assert_eq!(app(&e).severity(), 1, "one child is enough to be used");
    let changed = e.observe(&key("b"), down(), now(3_000));
    assert_eq!(changed, [key("b"), parent(), key("app")]);
    assert_eq!(app(&e).severity(), 4);
    let paths: Vec<Vec<Arc<ObjectKey>>> = app(&e).blocked_by.iter().map(|culprit| culprit.path.clone()).collect();
    assert_eq!(paths, ["a", "b"].map(|child| vec![Arc::new(parent()), Arc::new(key(child))]));
    let view = e.snapshot().get(&parent()).cloned().unwrap();
    assert_eq!(view.message, "none of 2 children is usable: n/a is TemporarilyUnavailable");
    assert_eq!(view.down, Some(DownCause::Failed));
    // A child that works less well concerns the parent and nobody else.
    observe_severity(&mut e, "a", 1, 4_000);
    observe_severity(&mut e, "b", 1, 4_000);
    let before = e.stats();
    observe_severity(&mut e, "b", 3, 5_000);
    assert_eq!(e.stats().nodes - before.nodes, 2);
    assert_eq!(e.snapshot().get(&parent()).unwrap().severity(), 2);
}

#[test]
fn a_planned_change_stays_one_while_nobody_can_see_it() {
    let mut e = pair(Edge::default(), false);
    let unseen = || Own::Unseen { reason: Reason::EngineUnreachable, message: "no".into() };
    let epoch = |e: &Engine| e.snapshot().get(&key("db")).unwrap().history.epoch;
    e.set_changing(&key("db"), true, now(10));
    e.observe(&key("db"), down(), now(20));
    e.observe(&key("db"), unseen(), now(30));
    e.observe(&key("db"), up(), now(40));
    e.set_changing(&key("db"), false, now(50));
    assert_eq!(epoch(&e), Epoch { losses_ended: 0, changes_ended: 1 }, "who asks for it reloads");
    // What was only lost from sight has changed nothing.
    e.observe(&key("db"), unseen(), now(60));
    e.advance(now(60_000));
    e.observe(&key("db"), up(), now(70_000));
    assert_eq!(epoch(&e), Epoch { losses_ended: 0, changes_ended: 1 });
}

#[test]
fn a_critical_node_that_failed_is_no_better_while_nobody_can_see_it() {
    let mut e = pair(Edge { on_down: Some(OnDown::Degrade), ..Edge::default() }, true);
    let db = |e: &Engine| e.snapshot().get(&key("db")).unwrap().severity();
    e.observe(&key("db"), down(), now(10));
    assert_eq!((db(&e), app(&e).usable()), (6, false));
    e.observe(&key("db"), Own::Unseen { reason: Reason::EngineUnreachable, message: "no".into() }, now(20));
    assert_eq!((db(&e), app(&e).usable()), (6, false), "within the grace nothing changes");
}
