//! Planner of Network and of orphans: tables of observed -> plan as text.

use std::collections::BTreeSet;
use std::sync::Arc;

use insta::assert_snapshot;
use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::check::{Refusal, check};
use qm_plan::desired::DesiredNetwork;
use qm_plan::kinds::network::{NetworkView, plan_network};
use qm_plan::kinds::orphan::plan_orphans;
use qm_plan::observed::{Gap, Network};
use qm_plan::stamp::Stamp;
use qm_plan::step::Action;

fn desired() -> DesiredNetwork {
    let spec = serde_json::json!({"subnet": "10.9.0.0/24", "internal": true});
    DesiredNetwork::from_object(&Object::new(ObjectKey::new("Network", "n", "data"), "u", Timestamp::default(), spec)).unwrap()
}

fn plan(desired: &DesiredNetwork, view: &NetworkView) -> qm_plan::plan::Plan {
    plan_network(desired, view, &Name::from("default"), None)
}

/// What the engine has after a network was made as planned.
fn made(plan: &qm_plan::plan::Plan) -> NetworkView {
    let Action::CreateNetwork { body } = &plan.steps[0].action else { panic!("{plan}") };
    let network = Network {
        id: "id-1".into(),
        name: body.name.as_str().into(),
        stamp: Stamp::read(&body.labels),
        project: None,
        driver: body.driver.clone(),
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
