//! Planner of MiniService: tables of manifest + observed -> plan as text, each ending in its fixpoint on a model of the engine; and
//! properties over arbitrary half-done worlds.

mod model;

use std::collections::BTreeMap;
use std::sync::Arc;

use insta::assert_snapshot;
use model::{Model, service};
use proptest::prelude::*;
use qm_api::conditions::Reason;
use qm_api::kinds::mini_service::DriftMode;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::desired::{Files, MountSource, Rollout};
use qm_plan::kinds::mini_service::Gate;
use qm_plan::locks::Standing;
use qm_plan::observed::{Attachment, Gap, Health, Image, Network, Older, Place, RunState};
use qm_plan::plan::{Progress, ProgressState};
use qm_plan::step::{Action, Lease, Step, Wait};

#[test]
fn a_new_service_is_made_connected_and_started() {
    let mut model = Model::new(service("{image: a:1, networks: [data, edge], volumes: [{name: d, target: /d}]}", ""));
    assert_snapshot!(model.plan());
    model.settle();
    assert_snapshot!(model.world());
}

#[test]
fn an_image_that_is_not_there_is_pulled_first() {
    let mut model = Model::new(service("{image: a:1, networks: [data]}", ""));
    model.view.image = Some(Image::Absent);
    assert_snapshot!(model.plan());
    model.settle();
    assert_snapshot!(model.world());
}

#[test]
fn a_start_waits_for_its_dependency_and_the_creation_does_not() {
    let mut model = Model::new(service("{image: a:1, networks: [data]}", "[{service: db}, {service: cache, onDown: Degrade}]"));
    model.gates.insert(ObjectKey::new("MiniService", "n", "db"), Gate { usable: false, bad: false });
    model.gates.insert(ObjectKey::new("MiniService", "n", "cache"), Gate { usable: false, bad: true });
    assert_snapshot!(model.plan());
    model.settle();
    assert_snapshot!(model.plan());
    model.gates.insert(ObjectKey::new("MiniService", "n", "db"), Gate { usable: true, bad: false });
    model.settle();
    assert_snapshot!(model.world());
}

#[test]
fn a_try_ends_after_its_timeout_and_when_the_clock_went_back() {
    let mut model = Model::new(service("{image: a:1, networks: [data]}", "[{service: db, start: Try, startTimeout: 60s}]"));
    model.gates.insert(ObjectKey::new("MiniService", "n", "db"), Gate { usable: false, bad: false });
    model.settle();
    let tries = |model: &mut Model, clock: i64| {
        model.clock = clock;
        model.current().steps.iter().any(|s| matches!(s.action, Action::Start { .. }) && s.waits.is_empty())
    };
    let made = model.view.containers[0].created_at.as_millis();
    assert!(!tries(&mut model, made + 59_000));
    assert!(!tries(&mut model, made - 30_000), "the engine's clock is a little ahead");
    assert!(tries(&mut model, made + 60_000));
    assert!(tries(&mut model, made - 7_200_000), "nobody waits until a clock that went back has come again");
}

#[test]
fn a_new_image_replaces_replica_by_replica_and_carries_unnamed_volumes() {
    let mut model = Model::new(service("{image: a:1, networks: [data], replicas: 2}", ""));
    model.settle();
    for container in &mut model.view.containers {
        Arc::make_mut(container).anonymous_volumes.insert("/var/lib/x".into(), "f".repeat(64));
    }
    model.change(service("{image: a:2, networks: [data], replicas: 2}", ""));
    assert_snapshot!(model.plan());
    let plan = model.current();
    let created = |step: &Step| step.after.iter().any(|i| matches!(plan.steps[*i].action, Action::CreateContainer { .. }));
    let mut stops = plan.steps.iter().filter(|s| matches!(s.action, Action::Stop { .. })).peekable();
    assert!(stops.peek().is_some() && stops.all(created), "what cannot be replaced is not taken down");
    model.step();
    assert_snapshot!(model.plan());
    model.settle();
    assert_snapshot!(model.world());
    assert!(model.carried.iter().all(|(target, volume)| target == "/var/lib/x" && *volume == "f".repeat(64)));
    assert_eq!(model.carried.len(), 2);
}

#[test]
fn start_first_takes_nobody_down_before_the_new_one_is_healthy() {
    let spec = |image: &str| {
        format!("{{image: {image}, networks: [data], replicas: 2, health: {{tcp: {{port: 1}}}}, update: {{order: StartFirst}}}}")
    };
    let mut model = Model::new(service(&spec("a:1"), ""));
    model.settle();
    model.change(service(&spec("a:2"), ""));
    assert_snapshot!(model.plan());
    let serving = |model: &Model| model.view.containers.iter().filter(|c| model.is_healthy(c)).count();
    let mut most = 0;
    while model.step() {
        assert!(serving(&model) >= 2, "{}", model.world());
        most = most.max(model.view.containers.iter().filter(|c| c.state == RunState::Running).count());
    }
    assert_eq!(most, 3, "one replica at a time");
    assert_snapshot!(model.world());
}

#[test]
fn start_first_with_a_carried_volume_is_stop_first() {
    let spec = |image: &str| format!("{{image: {image}, networks: [data], update: {{order: StartFirst}}}}");
    let mut model = Model::new(service(&spec("a:1"), ""));
    model.settle();
    Arc::make_mut(&mut model.view.containers[0]).anonymous_volumes.insert("/var/lib/x".into(), "f".repeat(64));
    model.change(service(&spec("a:2"), ""));
    let plan = model.current();
    let at = |wanted: fn(&Action) -> bool| plan.steps.iter().position(|s| wanted(&s.action)).unwrap();
    assert!(at(|a| matches!(a, Action::Stop { .. })) < at(|a| matches!(a, Action::Start { .. })), "{plan}");
}

#[test]
fn the_next_replica_waits_until_the_last_one_has_proven_itself() {
    let spec = |image: &str| format!("{{image: {image}, networks: [data], replicas: 2, update: {{monitor: 5s, delay: 1s}}}}");
    let mut model = Model::new(service(&spec("a:1"), ""));
    model.settle();
    model.clock += 60_000;
    model.change(service(&spec("a:2"), ""));
    model.settle();
    let plan = model.current();
    let until: Vec<i64> = plan.steps.iter().flat_map(|s| &s.waits).filter_map(|w| Some(w.until()?.as_millis())).collect();
    let started = model.view.containers.iter().filter_map(|c| c.started_at).max().unwrap().as_millis();
    assert!(!until.is_empty() && until.iter().all(|at| *at == started + 6_000), "{plan}");
    model.clock = started - 3_600_000;
    assert!(!model.current().runnable().is_empty(), "a clock that went back holds nobody");
    model.clock = started + 6_000;
    model.settle();
    assert!(model.current().steps.is_empty());
}

/// A service with two replicas whose second revision is under way, the first one proven.
fn second_revision_under_way(extra: &str) -> Model {
    let spec = |image: &str| format!("{{image: {image}, networks: [data], replicas: 2, health: {{tcp: {{port: 1}}}}, {extra}}}");
    let mut model = Model::new(service(&spec("a:1"), ""));
    model.settle();
    assert_eq!(model.current().rollout, Some(Progress { number: 1, state: ProgressState::Complete }));
    model.proven.insert(1);
    model.new_are_healthy = false;
    model.change(service(&spec("a:2"), ""));
    model.settle();
    model
}

fn state(model: &Model) -> ProgressState {
    model.current().rollout.expect("the revision is known").state
}

#[test]
fn an_update_fails_by_its_timeout_by_falling_ill_and_by_crashing() {
    let mut model = second_revision_under_way("update: {timeout: 1m}");
    let started = model.view.containers.iter().filter_map(|c| c.started_at).max().unwrap().as_millis();
    let deadline = Timestamp::from_millis(started + 60_000);
    assert_eq!(state(&model), ProgressState::Underway(Some(deadline)));
    model.clock = started + 60_000;
    assert!(matches!(state(&model), ProgressState::Failed(text) if text.contains("not healthy 60 s after its start")));
    model.clock = started - 3_600_000;
    assert!(matches!(state(&model), ProgressState::Underway(_)), "a clock that went back lets nothing fail");
    model.clock = started + 1_000;
    let newcomer = model.view.containers.iter().find(|c| c.stamp.as_ref().unwrap().revision == 2).unwrap().id.clone();
    let ill = Health::Unhealthy { message: "refused".into(), healthy_at: Some(Timestamp::from_millis(started)) };
    model.view.health.insert(newcomer.clone(), ill);
    assert!(matches!(state(&model), ProgressState::Failed(text) if text.ends_with("refused")));
    model.view.health.insert(newcomer, Health::Unhealthy { message: "refused".into(), healthy_at: None });
    assert!(matches!(state(&model), ProgressState::Underway(_)), "what was never healthy has its time");
    model.brake = Some(Wait::Budget { until: None, evidence: "ended with code 3".into() });
    assert_eq!(state(&model), ProgressState::Failed("ended with code 3".into()));
    model.proven.insert(2);
    assert!(matches!(state(&model), ProgressState::Underway(None)), "a proven revision has no trial");
    model.proven.remove(&2);
    assert!(matches!(state(&second_revision_under_way("update: {timeout: 1s, onFailure: Continue}")), ProgressState::Underway(None)));
}

#[test]
fn a_rollback_runs_the_recorded_revision_and_rests() {
    let mut model = second_revision_under_way("resources: {memory: 64Mi}");
    let older = qm_api::spec::container::Container {
        image: "a:1".to_owned(),
        replicas: Some(7),
        networks: vec!["gone".to_owned()],
        health: model_health(),
        ..Default::default()
    };
    let message = "revision 2 failed: it is bad".to_owned();
    let rollout = Rollout::RolledBack { to: 1, image_id: "sha256:a:1".into(), failed_image: "sha256:a:2".into(), message };
    model.desired.roll_back(&older, &Files::new(), rollout).unwrap();
    model.new_are_healthy = true;
    assert_snapshot!(model.plan());
    model.settle();
    assert_snapshot!(model.world());
    let plan = model.current();
    assert!(plan.steps.is_empty() && plan.revision.is_none(), "{plan}");
    assert_eq!(plan.rollout, None);
    assert_eq!(plan.findings.iter().map(|f| f.reason).collect::<Vec<_>>(), [Reason::RolledBack]);
    assert_eq!(model.revisions.first().unwrap().number, 2, "what failed stays recorded");
}

fn model_health() -> Option<qm_api::spec::health::Health> {
    serde_json::from_value(serde_json::json!({ "tcp": { "port": 1 } })).ok()
}

#[test]
fn a_followed_tag_is_rolled_out_when_it_moves_and_a_pinned_one_is_reported() {
    for (follow, rolls) in [("Pin", false), ("Tag", true)] {
        let mut model = Model::new(service(&format!("{{image: a:1, networks: [data], follow: {follow}}}"), ""));
        model.settle();
        let moved = |id: &str| Some(Image::Present { id: id.into(), has_healthcheck: false, volumes: vec![] });
        model.view.image = moved("sha256:moved");
        model.settle();
        assert_eq!(model.view.containers[0].image_id == "sha256:moved", rolls);
        let findings: Vec<Reason> = model.current().findings.iter().map(|f| f.reason).collect();
        assert_eq!(findings, if rolls { vec![] } else { vec![Reason::ImageOutdated] });
        if !rolls {
            continue;
        }
        // The moved tag was bad, and has moved on since.
        let older = qm_api::spec::container::Container { image: "a:1".to_owned(), ..Default::default() };
        let rollout =
            Rollout::RolledBack { to: 1, image_id: "sha256:a:1".into(), failed_image: "sha256:moved".into(), message: String::new() };
        model.desired.roll_back(&older, &Files::new(), rollout).unwrap();
        model.settle();
        assert_eq!(model.view.containers[0].image_id, "sha256:a:1");
        assert_eq!(model.current().rollout, None);
        model.view.image = moved("sha256:better");
        assert_eq!(state(&model), ProgressState::InputChanged);
    }
}

#[test]
fn reported_drift_waits_and_a_changed_manifest_does_not() {
    let spec = |image: &str| service(&format!("{{image: {image}, networks: [data], replicas: 2}}"), "");
    let mut model = Model::new(spec("a:1"));
    model.desired.drift = DriftMode::Report;
    model.settle();
    Arc::make_mut(&mut model.view.containers[0]).resources.memory_bytes = 7 << 20;
    model.view.containers.remove(1);
    let plan = model.current();
    assert!(!plan.steps.is_empty() && plan.runnable().is_empty(), "{plan}");
    assert!(plan.to_string().contains("[waits: drift is only reported]"), "{plan}");
    let told: Vec<&str> = plan.findings.iter().map(|f| f.message.as_str()).collect();
    assert_eq!(told, ["replica 1: drift: memory is 7340032, should be unlimited", "replica 2: missing"]);
    let mut changed = spec("a:2");
    changed.drift = DriftMode::Report;
    model.change(changed);
    model.settle();
    assert!(model.current().steps.is_empty(), "{}", model.plan());
}

#[test]
fn a_paused_rollout_replaces_nobody_else_and_goes_on_repairing() {
    let mut model = second_revision_under_way("update: {onFailure: Pause}");
    model.desired.rollout = Rollout::Paused { message: "revision 2 failed: it is bad".into() };
    model.new_are_healthy = true;
    model.settle();
    assert_snapshot!(model.plan());
    assert_eq!(model.view.containers.iter().filter(|c| c.stamp.as_ref().unwrap().revision == 1).count(), 1);
}

#[test]
fn what_others_change_is_put_back() {
    type Meddle = fn(&mut qm_plan::observed::Container);
    let cases: [(&str, Meddle); 6] = [
        ("stopped", |c| c.state = RunState::Exited),
        ("paused", |c| c.state = RunState::Paused),
        ("renamed", |c| c.name = "other".into()),
        ("memory", |c| c.resources.memory_bytes = 7 << 20),
        ("disconnected", |c| {
            c.networks.clear();
        }),
        ("restart policy", |c| c.restart_policy = "no".into()),
    ];
    let mut text = String::new();
    for (name, meddle) in cases {
        let mut model = Model::new(service("{image: a:1, networks: [data], resources: {memory: 64Mi}}", ""));
        model.settle();
        meddle(Arc::make_mut(&mut model.view.containers[0]));
        text.push_str(&format!("== {name}\n{}\n", model.plan()));
        model.settle();
    }
    assert_snapshot!(text);
}

/// The network `data` is replaced by another one, and others are still to join it, or to leave the old one.
fn replace_network(model: &mut Model, to_join: &[&str], to_leave: &[&str]) {
    let place = model.view.networks.get_mut("data").unwrap();
    let old = place.current.clone().unwrap();
    let new = Network { id: "net-data-2".into(), name: "n_data-r2".into(), ..(*old).clone() };
    let names = |list: &[&str]| list.iter().map(|name| Name::from(*name)).collect();
    let older = Older { to_join: names(to_join), to_leave: names(to_leave) };
    *place = Place { current: Some(Arc::new(new)), older: BTreeMap::from([(old.id.clone(), older)]), is_outdated: false };
    model.view.known_networks = [old.id.clone(), "net-data-2".into()].into();
}

#[test]
fn a_container_joins_the_next_network_and_leaves_the_old_one_when_all_have_joined() {
    let mut model = Model::new(service("{image: a:1, networks: [data]}", ""));
    model.settle();
    let started = model.view.containers[0].started_at;
    let mut text = String::new();
    model.view.networks.get_mut("data").unwrap().is_outdated = true;
    text.push_str(&format!("== before it is made\n{}\n", model.plan()));
    replace_network(&mut model, &["n-app-1", "n-db-1"], &[]);
    text.push_str(&format!("== others have not joined\n{}\n", model.plan()));
    model.settle();
    assert_eq!(model.world(), "n-app-1 running sha256:a:1 r1 on n_data,n_data-r2");
    replace_network_in_place(&mut model, &[], &["n-web-1", "n-web-2", "n-web-3", "n-web-4", "n-web-5"]);
    text.push_str(&format!("== all have joined, dependents have not left\n{}\n", model.plan()));
    replace_network_in_place(&mut model, &[], &[]);
    text.push_str(&format!("== it may leave\n{}\n", model.plan()));
    model.settle();
    assert_eq!(model.world(), "n-app-1 running sha256:a:1 r1 on n_data-r2");
    assert_eq!(model.view.containers[0].started_at, started, "nothing was restarted");
    assert_snapshot!(text);
}

fn replace_network_in_place(model: &mut Model, to_join: &[&str], to_leave: &[&str]) {
    let names = |list: &[&str]| list.iter().map(|name| Name::from(*name)).collect();
    let place = model.view.networks.get_mut("data").unwrap();
    place.older.values_mut().for_each(|older| *older = Older { to_join: names(to_join), to_leave: names(to_leave) });
}

#[test]
fn a_network_that_is_broken_is_left_at_once_and_joined_when_it_is_back() {
    let mut model = Model::new(service("{image: a:1, networks: [data, edge]}", ""));
    model.desired.drift = DriftMode::Report;
    model.settle();
    replace_network(&mut model, &[], &[]);
    let next = model.view.networks.get_mut("data").unwrap().current.take();
    let mut text = format!("== broken\n{}\n", model.plan());
    model.settle();
    assert_eq!(model.world(), "n-app-1 running sha256:a:1 r1 on n_edge");
    model.view.networks.insert("data".into(), Place { current: next, ..Place::default() });
    text.push_str(&format!("== back, and no drift\n{}\n", model.plan()));
    model.settle();
    assert_eq!(model.world(), "n-app-1 running sha256:a:1 r1 on n_data-r2,n_edge");
    assert_snapshot!(text);
}

#[test]
fn an_old_container_that_waits_for_its_turn_moves_too() {
    let spec = |image: &str| format!("{{image: {image}, networks: [data], replicas: 2, health: {{tcp: {{port: 1}}}}}}");
    let mut model = Model::new(service(&spec("a:1"), ""));
    model.settle();
    model.change(service(&spec("a:2"), ""));
    model.new_are_healthy = false;
    model.settle();
    replace_network(&mut model, &[], &[]);
    model.settle();
    assert_eq!(
        model.world(),
        "n-app-1 running sha256:a:2 r2 on n_data-r2\nn-app-2 running sha256:a:1 r1 on n_data-r2\nn-app-2-r2 created sha256:a:2 r2 on n_data-r2"
    );
}

#[test]
fn what_cannot_be_adopted_stalls_and_makes_nothing() {
    let mut model = Model::new(service("{image: a:1, networks: [data]}", ""));
    model.not_adoptable = vec!["there is no container shop-web-1 to adopt".into()];
    let plan = model.current();
    assert!(plan.steps.is_empty() && plan.findings.iter().any(|f| f.stalls && f.reason == Reason::NotAdoptable), "{plan}");
}

#[test]
fn an_adopted_container_keeps_its_name_and_networks_until_it_is_replaced() {
    let mut model = Model::new(service("{image: a:1, networks: [data]}", ""));
    model.settle();
    let theirs = Attachment { network_id: "net-theirs".into(), aliases: vec!["odd".into()], fixed_ipv4: None, ipv4: None };
    let container = Arc::make_mut(&mut model.view.containers[0]);
    container.adopted = true;
    container.name = "theirs-1".into();
    container.restart_policy = "always".into();
    container.networks.insert("theirs".into(), theirs);
    container.networks.values_mut().for_each(|a| a.aliases = vec!["odd".into()]);
    assert!(model.current().is_empty(), "{}", model.plan());
    model.change(service("{image: a:2, networks: [data]}", ""));
    model.settle();
    assert_eq!(model.world(), "n-app-1 running sha256:a:2 r2 on n_data");
}

#[test]
fn what_others_may_change_stays_as_they_left_it() {
    let spec = "{image: a:1, networks: [data], resources: {memory: 64Mi, pids: 50}}";
    let mut model = Model::new(service(spec, ""));
    model.desired.ignored = vec!["/container/resources/memory".into(), "/container/networks".into(), "/container/restart".into()];
    model.settle();
    let container = Arc::make_mut(&mut model.view.containers[0]);
    assert_eq!(container.resources.memory_bytes, 64 << 20, "a new container gets what the manifest says");
    container.resources.memory_bytes = 7 << 20;
    container.resources.pids = 7;
    container.restart_policy = "no".into();
    container.networks.clear();
    assert_snapshot!(model.plan());
    model.settle();
    let container = &model.view.containers[0];
    assert_eq!((container.resources.memory_bytes, container.resources.pids, container.restart_policy.as_str()), (7 << 20, 50, "no"));
    assert!(container.networks.is_empty());
    // A limit that others lifted takes no new container either.
    Arc::make_mut(&mut model.view.containers[0]).resources.memory_bytes = 0;
    assert!(model.current().is_empty(), "{}", model.plan());
    model.desired.ignored = vec!["/container/resources".into()];
    Arc::make_mut(&mut model.view.containers[0]).resources.pids = 9;
    assert!(!model.plan().contains("pids"), "{}", model.plan());
}

#[test]
fn drift_is_left_alone_for_as_long_as_the_manifest_says() {
    let mut model = Model::new(service("{image: a:1, networks: [data], resources: {memory: 64Mi}}", ""));
    model.desired.hold_off_ms = 10_000;
    model.settle();
    Arc::make_mut(&mut model.view.containers[0]).resources.memory_bytes = 7 << 20;
    assert!(!model.step(), "{}", model.plan());
    assert_snapshot!(model.plan());
    let until = model.current().steps[0].waits[0].until();
    model.clock += 9_000;
    assert!(!model.step());
    assert_eq!(model.current().steps[0].waits[0].until(), until, "it counts from the first look");
    model.clock += 1_000;
    model.settle();
    assert_eq!(model.view.containers[0].resources.memory_bytes, 64 << 20);
}

#[test]
fn what_is_changed_again_after_it_was_put_back_is_contested() {
    let mut model = Model::new(service("{image: a:1, networks: [data], resources: {memory: 64Mi}}", ""));
    model.settle();
    let by_hand = |model: &mut Model, mib: i64| Arc::make_mut(&mut model.view.containers[0]).resources.memory_bytes = mib << 20;
    let memory = |model: &Model| model.view.containers[0].resources.memory_bytes >> 20;
    by_hand(&mut model, 7);
    model.settle();
    assert_eq!(memory(&model), 64, "the first time it is put back at once");
    let put_back = model.clock;
    model.clock += 1_000;
    by_hand(&mut model, 8);
    assert!(!model.step(), "{}", model.plan());
    assert_snapshot!(model.plan());
    // Another field is not contested, and neither is what stands still.
    Arc::make_mut(&mut model.view.containers[0]).networks.clear();
    model.settle();
    assert!(!model.view.containers[0].networks.is_empty());
    assert_eq!(memory(&model), 8);
    Arc::make_mut(&mut model.view.containers[0]).state = RunState::Exited;
    model.settle();
    assert_eq!(
        (model.view.containers[0].state, memory(&model)),
        (RunState::Running, 64),
        "a container that is started is started as it should be"
    );
    // Long after it was put back it is a change like any other.
    model.clock = put_back + 2 * qm_plan::kinds::mini_service::CONTEST_MS;
    by_hand(&mut model, 9);
    model.settle();
    assert_eq!(memory(&model), 64);
    model.clock += 1_000;
    by_hand(&mut model, 10);
    assert!(!model.step());
    model.clock += qm_plan::kinds::mini_service::CONTEST_MS;
    model.settle();
    assert_eq!(memory(&model), 64, "waiting ends by itself");
}

#[test]
fn a_limit_that_others_set_again_and_again_replaces_once() {
    let mut model = Model::new(service("{image: a:1, networks: [data]}", ""));
    model.settle();
    let by_hand = |model: &mut Model| Arc::make_mut(&mut model.view.containers[0]).resources.memory_bytes = 7 << 20;
    let first = model.view.containers[0].id.clone();
    by_hand(&mut model);
    model.settle();
    let second = model.view.containers[0].id.clone();
    assert_ne!(first, second, "a limit is lifted by a new container");
    by_hand(&mut model);
    model.settle();
    assert_eq!(model.view.containers[0].id, second, "{}", model.plan());
    model.clock += qm_plan::kinds::mini_service::CONTEST_MS;
    model.settle();
    assert_eq!(model.view.containers[0].resources.memory_bytes, 0);
}

#[test]
fn files_of_a_read_only_container_are_binds() {
    let configs = "configs: [{name: c, target: /etc/c, content: hello, mode: \"0440\"}]";
    let mut model = Model::new(service(&format!("{{image: a:1, networks: [data], readOnly: true, {configs}}}"), ""));
    assert_snapshot!(model.plan());
    let bind = MountSource::Bind("/data/files/2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824-440".to_owned());
    let plan = model.current();
    let bodies = plan.steps.iter().filter_map(|s| match &s.action {
        Action::CreateContainer { body, .. } => Some(body),
        _ => None,
    });
    let bodies: Vec<_> = bodies.collect();
    assert!(bodies.iter().all(|b| b.mounts.iter().any(|m| m.target == "/etc/c" && m.source == bind && m.read_only)));
    assert_eq!(bodies.len(), 1);
    model.settle();
}

#[test]
fn what_is_taken_away_is_made_anew() {
    let mut model = Model::new(service("{image: a:1, networks: [data]}", ""));
    model.settle();
    model.view.containers.clear();
    assert_snapshot!(model.plan());
}

#[test]
fn a_limit_that_cannot_be_lifted_in_place_takes_a_new_container() {
    let mut model = Model::new(service("{image: a:1, networks: [data]}", ""));
    model.settle();
    Arc::make_mut(&mut model.view.containers[0]).resources.memory_bytes = 64 << 20;
    assert_snapshot!(model.plan());
    model.settle();
    assert_eq!(model.view.containers.len(), 1);
}

#[test]
fn scaled_down_disabled_and_deleted_services_lose_containers_not_volumes() {
    let mut model = Model::new(service("{image: a:1, networks: [data], replicas: 3, volumes: [{name: d, target: /d}]}", ""));
    model.settle();
    model.change(service("{image: a:1, networks: [data], replicas: 1, volumes: [{name: d, target: /d}]}", ""));
    let mut text = format!("== down\n{}\n", model.plan());
    model.settle();
    model.desired.deleting = true;
    text.push_str(&format!("== deleted\n{}\n", model.plan()));
    model.settle();
    assert!(model.last.finalized && model.view.containers.is_empty());
    assert_eq!(model.view.volumes.get("n_d"), Some(&true));
    assert_snapshot!(text);
}

#[test]
fn blindness_plans_nothing() {
    let mut model = Model::new(service("{image: a:1, networks: [data]}", ""));
    model.settle();
    model.view.containers.clear();
    model.view.gaps.push(Gap::Engine { message: "gone".into(), since: Default::default() });
    assert!(model.current().steps.is_empty());
}

#[test]
fn a_foreign_project_and_a_foreign_name_are_left_alone() {
    let mut model = Model::new(service("{image: a:1, networks: [data]}", ""));
    model.view.foreign_project = Some("n".into());
    let mut text = format!("{}\n", model.plan());
    model.view.foreign_project = None;
    model.view.names_taken.insert("n-app-1".into(), "foreign".into());
    text.push_str(&model.plan());
    assert_snapshot!(text);
}

#[test]
fn suspension_shows_on_every_line_and_stops_all() {
    let mut model = Model::new(service("{image: a:1, networks: [data]}", ""));
    model.suspended = Some("ann".into());
    assert_snapshot!(model.plan());
    assert!(model.current().runnable().is_empty());
}

#[test]
fn a_lost_store_takes_image_and_revision_from_the_stamps() {
    let mut model = Model::new(service("{image: a:1, networks: [data]}", ""));
    model.settle();
    let before = model.world();
    model.revisions.clear();
    model.settled_generation = 0;
    // The tag moved meanwhile: what runs stays what it is.
    model.view.image = Some(Image::Present { id: "sha256:moved".into(), has_healthcheck: false, volumes: vec![] });
    model.images.insert("sha256:moved".into());
    let plan = model.current();
    assert!(plan.steps.is_empty(), "{plan}");
    assert_eq!(plan.revision.as_ref().map(|r| r.number), Some(1));
    model.settle();
    assert_eq!(model.world(), before);
}

fn arbitrary_state() -> impl Strategy<Value = RunState> {
    prop_oneof![
        Just(RunState::Created),
        Just(RunState::Running),
        Just(RunState::Paused),
        Just(RunState::Restarting),
        Just(RunState::Exited),
        Just(RunState::Dead),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any mixture of old and new, half-made and broken containers comes to rest with exactly the wanted ones, and then stays so.
    #[test]
    fn every_half_done_world_comes_to_rest(
        containers in prop::collection::vec((1_u32..5, any::<bool>(), arbitrary_state(), any::<bool>(), 0_u8..3), 0..7),
        replicas in 1_u32..4,
        parallelism in 1_u32..3,
        healthy in any::<bool>(),
        order in prop::sample::select(vec!["StopFirst", "StartFirst"]),
    ) {
        let spec = format!("{{image: a:2, networks: [data], replicas: {replicas}, update: {{parallelism: {parallelism}, order: {order}}}}}");
        let old_spec = format!("{{image: a:1, networks: [data], replicas: {replicas}}}");
        let mut model = Model::new(service(&old_spec, ""));
        model.settle();
        model.view.containers.clear();
        model.change(service(&spec, ""));
        model.healthy = healthy;
        for (slot, is_new, state, connected, name) in containers {
            model.plant(slot, is_new, state, connected, name);
        }
        model.settle();
        let mut by_slot: BTreeMap<u32, usize> = BTreeMap::new();
        for c in &model.view.containers {
            let stamp = c.stamp.as_ref().unwrap();
            *by_slot.entry(stamp.slot).or_default() += 1;
        }
        if healthy {
            prop_assert_eq!(by_slot, (1..=replicas).map(|s| (s, 1)).collect::<BTreeMap<_, _>>());
            for c in &model.view.containers {
                prop_assert!(matches!(c.state, RunState::Running | RunState::Restarting), "{:?}", c.state);
                prop_assert_eq!(c.name.to_string(), format!("n-app-{}", c.stamp.as_ref().unwrap().slot));
                prop_assert!(c.networks.contains_key("n_data"));
            }
        }
    }

    /// While new containers never get healthy, no more than `parallelism` healthy old ones are given up.
    #[test]
    fn a_bad_revision_takes_down_no_more_than_allowed(replicas in 1_u32..6, parallelism in 1_u32..4) {
        let mut model = Model::new(service(&format!("{{image: a:1, networks: [data], replicas: {replicas}, health: {{tcp: {{port: 1}}}}}}"), ""));
        model.settle();
        model.change(service(
            &format!("{{image: a:2, networks: [data], replicas: {replicas}, health: {{tcp: {{port: 1}}}}, update: {{parallelism: {parallelism}}}}}"), ""));
        model.new_are_healthy = false;
        model.settle();
        let healthy = model.view.containers.iter().filter(|c| model.is_healthy(c)).count() as u32;
        prop_assert!(healthy >= replicas.saturating_sub(parallelism), "{} of {} left", healthy, replicas);
    }

    /// With StartFirst none is given up for a new one that never gets healthy, and no more than `parallelism` are tried.
    #[test]
    fn a_bad_revision_beside_the_old_one_takes_nobody_down(replicas in 1_u32..6, parallelism in 1_u32..4) {
        let spec = |image: &str| format!(
            "{{image: {image}, networks: [data], replicas: {replicas}, health: {{tcp: {{port: 1}}}}, update: {{parallelism: {parallelism}, order: StartFirst}}}}");
        let mut model = Model::new(service(&spec("a:1"), ""));
        model.settle();
        model.change(service(&spec("a:2"), ""));
        model.new_are_healthy = false;
        model.settle();
        let healthy = model.view.containers.iter().filter(|c| model.is_healthy(c)).count() as u32;
        let tried = model.view.containers.iter().filter(|c| c.state == RunState::Running && !model.is_healthy(c)).count() as u32;
        prop_assert_eq!((healthy, tried), (replicas, parallelism.min(replicas)));
    }
}

/// The steps that need the change of the service, one a line, with what they wait for.
fn needing(model: &Model) -> Vec<String> {
    model.current().steps.iter().filter(|s| s.needs == Some(Lease::Change)).map(Step::to_string).collect()
}

#[test]
fn only_what_takes_the_last_healthy_replica_down_needs_the_change() {
    let one = |image: &str, more: &str| service(&format!("{{image: '{image}', networks: [data]{more}}}"), "");
    let mut model = Model::new(one("a:1", ""));
    assert_eq!(needing(&model), Vec::<String>::new(), "there is nobody to take down");
    model.settle();
    assert_eq!(needing(&model), Vec::<String>::new(), "nothing is to be done");

    model.change(one("a:2", ""));
    assert_eq!(needing(&model), ["stop MiniService n/app.1  superseded"]);
    // Others are in the way: the step waits, and what comes before it does not.
    model.lock = Standing::Taken { by: vec!["web.1".into(), "web.2".into()] };
    assert_eq!(needing(&model), ["stop MiniService n/app.1  superseded  [waits: web.1, web.2 to let go of it]"]);
    model.settle();
    let running = model.view.containers.iter().filter(|c| c.state == RunState::Running).count();
    assert_eq!((running, model.view.containers.len()), (1, 2), "the new one is made, the old one serves on");
    model.lock = Standing::Ours;
    assert_eq!(needing(&model), ["stop MiniService n/app.1  superseded"]);
    model.settle();
    assert_eq!(model.view.containers.len(), 1);

    // An old one that serves nobody takes nothing from anybody.
    model.lock = Standing::Free;
    model.change(one("a:3", ""));
    model.healthy = false;
    for container in &mut model.view.containers {
        Arc::make_mut(container).state = RunState::Exited;
    }
    assert_eq!(needing(&model), Vec::<String>::new());
}

#[test]
fn while_others_are_in_the_way_files_are_not_written_again_and_again() {
    let one = |image: &str| {
        service(&format!("{{image: '{image}', networks: [data], configs: [{{name: c, target: /etc/c, content: hello}}]}}"), "")
    };
    let mut model = Model::new(one("a:1"));
    model.settle();
    model.change(one("a:2"));
    model.lock = Standing::Taken { by: vec!["web.1".into()] };
    // It comes to rest: whatever can be done is done once.
    model.settle();
    assert_eq!(model.view.containers.len(), 2, "{}", model.world());
    assert!(model.current().runnable().is_empty(), "{}", model.plan());
    model.lock = Standing::Ours;
    model.settle();
    assert_eq!(model.view.containers.len(), 1);
}

#[test]
fn a_roll_that_keeps_a_healthy_replica_needs_nothing() {
    let two = |image: &str, more: &str| service(&format!("{{image: '{image}', networks: [data], replicas: 2{more}}}"), "");
    for more in ["", ", update: {order: StartFirst}"] {
        let mut model = Model::new(two("a:1", more));
        model.settle();
        model.change(two("a:2", more));
        for _ in 0..20 {
            assert_eq!(needing(&model), Vec::<String>::new(), "{}", model.plan());
            model.step();
        }
    }
    // Both at once leave nobody.
    let mut model = Model::new(two("a:1", ", update: {parallelism: 2}"));
    model.settle();
    model.change(two("a:2", ", update: {parallelism: 2}"));
    assert_eq!(needing(&model).len(), 2, "{}", model.plan());
    // Neither is needed before there is an image to make the new one from: a pull can take long.
    model.view.image = Some(Image::Absent);
    assert_eq!(needing(&model), Vec::<String>::new(), "{}", model.plan());
}

#[test]
fn deletion_and_switching_off_need_the_change() {
    let mut model = Model::new(service("{image: 'a:1', networks: [data]}", ""));
    model.settle();
    model.desired.deleting = true;
    assert_eq!(needing(&model), ["stop MiniService n/app.1  deleted"]);
    model.suspended = Some("ada".to_owned());
    assert_eq!(needing(&model), Vec::<String>::new(), "what is suspended keeps nobody out");
    model.suspended = None;
    model.settle();
    assert!(model.view.containers.is_empty());
}
