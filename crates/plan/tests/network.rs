//! Planner of Network and of orphans: tables of observed -> plan as text.

use std::collections::BTreeSet;
use std::sync::Arc;

use insta::assert_snapshot;
use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::check::{Refusal, check};
use qm_plan::desired::DesiredNetwork;
use qm_plan::kinds::network::{NetworkView, Stand, User, break_step, place, plan_network, stand};
use qm_plan::kinds::orphan::plan_orphans;
use qm_plan::observed::{Attachment, Container, EngineHealth, Gap, Network, Place, RunState};
use qm_plan::stamp::Stamp;
use qm_plan::step::{Action, NetworkBody};

fn desired() -> DesiredNetwork {
    let spec = serde_json::json!({"subnet": "10.9.0.0/24", "internal": true});
    DesiredNetwork::from_object(&Object::new(ObjectKey::new("Network", "n", "data"), "u", Timestamp::default(), spec)).unwrap()
}

/// The same network as its next manifest wants it.
fn changed(spec: serde_json::Value) -> DesiredNetwork {
    DesiredNetwork::from_object(&Object::new(ObjectKey::new("Network", "n", "data"), "u", Timestamp::default(), spec)).unwrap()
}

fn plan(desired: &DesiredNetwork, view: &NetworkView) -> qm_plan::plan::Plan {
    plan_network(desired, view, &Name::from("default"), &BTreeSet::new(), None)
}

/// What the engine has after a network was made as planned.
fn made(plan: &qm_plan::plan::Plan) -> NetworkView {
    let Action::CreateNetwork { body } = &plan.steps[0].action else { panic!("{plan}") };
    made_of(body)
}

fn made_of(body: &NetworkBody) -> NetworkView {
    let network = Network {
        id: "id-1".into(),
        name: body.name.as_str().into(),
        stamp: Stamp::read(&body.labels),
        project: None,
        driver: body.driver.clone(),
        options: body.options.clone(),
        subnets: body.subnet.iter().cloned().collect(),
        gateway: body.gateway.clone(),
        internal: body.internal,
        attachable: body.attachable,
        created_at: Timestamp::default(),
    };
    NetworkView { networks: vec![Arc::new(network)], ..NetworkView::default() }
}

#[test]
fn a_network_is_made_once() {
    let desired = desired();
    let first = plan(&desired, &NetworkView::default());
    assert_snapshot!(first.to_string());
    let there = made(&first);
    assert!(plan(&desired, &there).is_empty(), "the fixpoint");
    let gone = NetworkView { was_there: true, ..NetworkView::default() };
    assert!(plan(&desired, &gone).to_string().contains("missing"));
}

#[test]
fn blindness_foreign_projects_and_taken_names_make_nothing() {
    let desired = desired();
    let views = [
        NetworkView { gaps: vec![Gap::Engine { message: "away".into(), since: Timestamp::default() }], ..NetworkView::default() },
        NetworkView { foreign_project: Some("n".into()), ..NetworkView::default() },
        NetworkView { name_taken: Some("other".into()), ..NetworkView::default() },
    ];
    for view in views {
        let plan = plan(&desired, &view);
        assert!(plan.steps.is_empty() && !plan.findings.is_empty(), "{plan}");
    }
}

#[test]
fn removal_waits_for_those_who_use_it() {
    let mut desired = desired();
    let mut view = made(&plan(&desired, &NetworkView::default()));
    desired.deleting = true;
    view.wanted_by = vec![ObjectKey::new("MiniService", "n", "app")];
    view.attached = std::collections::BTreeMap::from([("n1".into(), 1)]);
    let waiting = plan(&desired, &view);
    assert!(waiting.runnable().is_empty());
    view.wanted_by.clear();
    let foreign_inside = plan(&desired, &view);
    assert!(foreign_inside.runnable().is_empty(), "a container of somebody else is in it");
    view.attached.clear();
    let free = plan(&desired, &view);
    assert_snapshot!(format!("{waiting}\n{foreign_inside}\n{free}"));
    assert!(plan(&desired, &NetworkView::default()).finalized);
}

#[test]
fn orphans_go_only_when_approved_and_nothing_foreign_ever() {
    let view = made(&plan(&desired(), &NetworkView::default()));
    let waiting = plan_orphans(&[], &view.networks, &BTreeSet::new());
    assert!(waiting.runnable().is_empty());
    let approved = BTreeSet::from([waiting.steps[0].hash()]);
    let free = plan_orphans(&[], &view.networks, &approved);
    assert_eq!(free.runnable(), [0]);
    let ours = BTreeSet::from([Name::from("id-1")]);
    assert_eq!(check(&free, &ours, &approved), Ok(()));
    assert_eq!(check(&free, &ours, &BTreeSet::new()), Err(Refusal::Unapproved { step: 0 }));
    assert_eq!(check(&free, &BTreeSet::new(), &approved), Err(Refusal::Foreign { step: 0, id: "id-1".into() }));
}

/// The engine as it is after a plan's creation was carried out in it.
fn and_made(view: &NetworkView, plan: &qm_plan::plan::Plan, id: &str) -> NetworkView {
    let body = plan.steps.iter().find_map(|s| match &s.action {
        Action::CreateNetwork { body } => Some(body),
        _ => None,
    });
    let body = body.unwrap_or_else(|| panic!("{plan}"));
    let mut view = view.clone();
    let mut network = (**made_of(body).networks.first().unwrap()).clone();
    network.id = id.into();
    network.created_at = Timestamp::from_millis(i64::try_from(view.networks.len()).unwrap());
    view.names.insert(network.name.clone());
    view.networks.push(Arc::new(network));
    view
}

#[test]
fn another_range_is_made_beside_and_the_old_one_goes_when_all_have_left() {
    let first = desired();
    let mut view = and_made(&NetworkView::default(), &plan(&first, &NetworkView::default()), "id-1");
    view.attached.insert("id-1".into(), 2);
    let next = changed(serde_json::json!({"subnet": "10.8.0.0/24", "internal": true}));
    let beside = plan(&next, &view);
    assert_eq!(beside.runnable().len(), 1, "the creation, not the removal");
    let mut view = and_made(&view, &beside, "id-2");
    assert_eq!(view.networks[1].name, "n_data-r2");
    let moving = plan(&next, &view);
    view.attached.clear();
    let left = plan(&next, &view);
    view.networks.remove(0);
    assert!(plan(&next, &view).is_empty(), "the fixpoint");
    // Back to the first range: yet another one, whose name is not that of the one before it.
    let back = plan(&first, &view);
    assert_snapshot!(format!("{beside}\n{moving}\n{left}\n{back}"));
    assert_eq!(and_made(&view, &back, "id-3").networks[1].name, "n_data-r3");
}

#[test]
fn a_range_that_overlaps_breaks_the_old_one_when_a_person_approves() {
    let first = desired();
    let mut view = and_made(&NetworkView::default(), &plan(&first, &NetworkView::default()), "id-1");
    view.attached.insert("id-1".into(), 2);
    let next = changed(serde_json::json!({"subnet": "10.9.0.0/16", "internal": true}));
    let asks = plan(&next, &view);
    assert!(asks.runnable().is_empty());
    let hash = asks.steps[0].hash();
    assert_eq!(hash, break_step(&next, &view.networks[0]).hash(), "what services leave it for is what was approved");
    let approved = BTreeSet::from([hash]);
    let plan_approved = |view: &NetworkView| plan_network(&next, view, &Name::from("default"), &approved, None);
    let leaving = plan_approved(&view);
    assert!(leaving.runnable().is_empty(), "it waits for those who are in it");
    view.attached.clear();
    let breaks = plan_approved(&view);
    assert_eq!(breaks.runnable(), [0, 1]);
    assert_eq!(check(&breaks, &BTreeSet::from([Name::from("id-1")]), &approved), Ok(()));
    // The one who approved it did not approve another range.
    let other = changed(serde_json::json!({"subnet": "10.0.0.0/8", "internal": true}));
    assert!(plan_network(&other, &view, &Name::from("default"), &approved, None).runnable().is_empty());
    // The process died in between: the new one is made all the same.
    let gone = plan(&next, &NetworkView { was_there: true, ..NetworkView::default() });
    assert_eq!(gone.runnable(), [0]);
    assert_snapshot!(format!("{asks}\n{leaving}\n{breaks}\n{gone}"));
}

#[test]
fn an_old_one_that_nobody_is_meant_to_be_in_goes_without_being_asked_about() {
    let first = desired();
    let view = and_made(&NetworkView::default(), &plan(&first, &NetworkView::default()), "id-1");
    let second = changed(serde_json::json!({"subnet": "10.8.0.0/24", "internal": true}));
    let mut view = and_made(&view, &plan(&second, &view), "id-2");
    view.attached.insert("id-1".into(), 1);
    // While its successor is in use, the range of the first is wanted again, a little wider.
    let third = changed(serde_json::json!({"subnet": "10.9.0.0/16", "internal": true}));
    assert_snapshot!(plan(&third, &view).to_string());
}

#[test]
fn a_range_that_somebody_else_has_is_said_before_the_engine_refuses() {
    let wanted = desired();
    let foreign = NetworkView { in_range: [("theirs".into(), false)].into(), ..NetworkView::default() };
    let ours = NetworkView { in_range: [("n_other".into(), true)].into(), ..NetworkView::default() };
    let refused = plan(&wanted, &foreign);
    assert!(refused.steps.is_empty() && refused.findings.iter().any(|f| f.stalls), "{refused}");
    assert_snapshot!(format!("{refused}\n{}", plan(&wanted, &ours)));
}

#[test]
fn what_stands_in_the_way_is_what_the_engine_would_refuse() {
    let first = desired();
    let view = and_made(&NetworkView::default(), &plan(&first, &NetworkView::default()), "id-1");
    let named = |bridge: &str| serde_json::json!({"driverOptions": {"com.docker.network.bridge.name": bridge}});
    let with_bridge = {
        let first = changed(named("br-a"));
        and_made(&NetworkView::default(), &plan(&first, &NetworkView::default()), "id-1")
    };
    let parent = |mode: &str| serde_json::json!({"driver": "macvlan", "driverOptions": {"parent": "eth0", "mode": mode}});
    let with_parent = {
        let first = changed(parent("bridge"));
        and_made(&NetworkView::default(), &plan(&first, &NetworkView::default()), "id-1")
    };
    let rows = [
        ("another range", &view, serde_json::json!({"subnet": "10.8.0.0/24"}), false),
        ("no range of its own", &view, serde_json::json!({}), false),
        ("the same range", &view, serde_json::json!({"subnet": "10.9.0.0/24"}), true),
        ("a part of the range", &view, serde_json::json!({"subnet": "10.9.0.128/25"}), true),
        ("another bridge", &with_bridge, named("br-b"), false),
        (
            "the same bridge",
            &with_bridge,
            serde_json::json!({"internal": true, "driverOptions": {"com.docker.network.bridge.name": "br-a"}}),
            true,
        ),
        ("the same parent", &with_parent, parent("private"), true),
    ];
    for (what, view, spec, in_the_way) in rows {
        let wanted = changed(spec);
        let found = stand(&wanted, &view.networks);
        let expected = if in_the_way { Stand::InTheWay(&view.networks[0]) } else { Stand::Beside(&view.networks[0]) };
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn nobody_leaves_before_all_have_joined_and_dependents_leave_first() {
    let first = desired();
    let view = and_made(&NetworkView::default(), &plan(&first, &NetworkView::default()), "id-1");
    let next = changed(serde_json::json!({"subnet": "10.8.0.0/24", "internal": true}));
    let view = and_made(&view, &plan(&next, &view), "id-2");
    let container = |name: &str, state: RunState, networks: &[&str]| {
        let attachment = |id: &str| Attachment { network_id: id.into(), ..Attachment::default() };
        let mut container = Container {
            id: name.into(),
            name: name.into(),
            stamp: None,
            project: None,
            image_id: Name::default(),
            state,
            exit_code: 0,
            error: String::new(),
            created_at: Timestamp::default(),
            started_at: None,
            finished_at: None,
            restart_count: 0,
            engine_health: EngineHealth::None,
            networks: Default::default(),
            resources: Default::default(),
            restart_policy: Name::default(),
            anonymous_volumes: Default::default(),
            adopted: false,
            inspected: true,
        };
        container.networks.extend(networks.iter().map(|id| (Name::from(*id), attachment(id))));
        Arc::new(container)
    };
    let user = |level: u32, container: Arc<Container>| User { level, containers: vec![container] };
    let users = || {
        vec![
            user(0, container("db", RunState::Running, &["id-1", "id-2"])),
            user(1, container("app", RunState::Running, &["id-1"])),
            user(2, container("web", RunState::Paused, &["id-1", "id-2"])),
            user(2, container("moved", RunState::Running, &["id-2"])),
            user(3, container("ended", RunState::Exited, &["id-1"])),
        ]
    };
    let at = |level: u32| place(&next, &view.networks, &BTreeSet::new(), level, users);
    let names = |set: &BTreeSet<Name>| set.iter().map(Name::to_string).collect::<Vec<_>>().join(",");
    let told = |place: &Place| {
        let older = &place.older[&Name::from("id-1")];
        (place.current.as_ref().map(|n| n.id.to_string()).unwrap_or_default(), names(&older.to_join), names(&older.to_leave))
    };
    let id = "id-2".to_owned();
    assert_eq!(told(&at(0)), (id.clone(), "app".to_owned(), "app,web".to_owned()));
    assert_eq!(told(&at(1)), (id.clone(), "app".to_owned(), "web".to_owned()));
    assert_eq!(told(&at(2)), (id, "app".to_owned(), String::new()));
    // While nothing is replaced nobody is asked for.
    let still = place(&first, &view.networks[..1], &BTreeSet::new(), 0, || panic!("nobody is asked for"));
    assert!(still.older.is_empty() && still.current.is_some());
    // A break is left by all as soon as it is approved, and not before.
    let wide = changed(serde_json::json!({"subnet": "10.9.0.0/16", "internal": true}));
    let only = &view.networks[..1];
    assert!(place(&wide, only, &BTreeSet::new(), 0, users).current.is_some());
    let approved = BTreeSet::from([break_step(&wide, &only[0]).hash()]);
    let broken = place(&wide, only, &approved, 0, users);
    assert!(broken.current.is_none() && broken.older.len() == 1);
}
