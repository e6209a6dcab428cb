//! The planner of Network: one bridge network for each, found by its stamp.

use std::collections::BTreeMap;
use std::sync::Arc;

use qm_api::conditions::Reason;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use serde_json::json;

use crate::desired::{DesiredNetwork, engine_name};
use crate::leaf::hex_digest;
use crate::observed::{Gap, Network};
use crate::plan::{Finding, Plan};
use crate::stamp::Stamp;
use crate::step::{Action, Cause, NetworkBody, Step, Wait};

/// Everything observed that concerns one network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkView {
    /// Networks stamped for it by this instance, oldest first.
    pub networks: Vec<Arc<Network>>,
    /// The id of a network that holds the engine name and is not ours.
    pub name_taken: Option<Name>,
    /// How many containers are attached to each of the networks stamped for it, running or not, whoever they belong to.
    pub attached: BTreeMap<Name, usize>,
    /// Mini services that still want it; deletion waits for them.
    pub wanted_by: Vec<ObjectKey>,
    /// A foreign project that uses the namespace's name.
    pub foreign_project: Option<String>,
    /// Parts that could not be read.
    pub gaps: Vec<Gap>,
    /// It was seen before: a missing one was taken away by somebody.
    pub was_there: bool,
}

/// The spec-hash of a network: nothing of a network can be changed in place.
pub fn spec_hash(desired: &DesiredNetwork) -> String {
    let mut values: BTreeMap<&str, serde_json::Value> = BTreeMap::new();
    values.insert("driver", json!(desired.driver));
    for (name, map) in [("options", &desired.options), ("labels", &desired.labels)] {
        if !map.is_empty() {
            values.insert(name, json!(map));
        }
    }
    for (name, text) in [("subnet", &desired.subnet), ("gateway", &desired.gateway)] {
        if let Some(text) = text {
            values.insert(name, json!(text));
        }
    }
    for (name, flag) in [("internal", desired.internal), ("attachable", desired.attachable)] {
        if flag {
            values.insert(name, json!(true));
        }
    }
    hex_digest(json!(values).to_string().as_bytes())
}

/// The network that a desired one stands for now: the oldest with the wanted hash (a later twin was made because the answer to the first
/// creation was lost), else the newest.
pub fn current<'a>(desired: &DesiredNetwork, networks: &'a [Arc<Network>]) -> Option<&'a Arc<Network>> {
    let hash = spec_hash(desired);
    let matches = |n: &&Arc<Network>| n.stamp.as_ref().is_some_and(|s| s.spec_hash == hash.as_str());
    let age = |n: &&Arc<Network>| (n.created_at, n.id.clone());
    networks.iter().filter(matches).min_by_key(age).or_else(|| networks.iter().max_by_key(age))
}

/// Plans one network.
pub fn plan_network(desired: &DesiredNetwork, view: &NetworkView, instance: &Name, suspended: Option<&str>) -> Plan {
    let mut plan = Plan::default();
    let finding = |reason, message: String, stalls| Finding { object: desired.key.clone(), reason, message, stalls };
    if !view.gaps.is_empty() {
        plan.findings.push(finding(Reason::EngineUnreachable, "the engine's networks cannot be observed".into(), false));
        return plan;
    }
    if desired.deleting {
        plan_removal(desired, view, &mut plan);
        suspend(&mut plan, suspended);
        return plan;
    }
    if let Some(project) = &view.foreign_project {
        plan.findings.push(finding(
            Reason::NamespaceInUse,
            format!("the project `{project}` of another tool runs under this namespace's name: choose another namespace, or stop it"),
            true,
        ));
        return plan;
    }
    let hash = spec_hash(desired);
    match current(desired, &view.networks) {
        Some(network) if network.stamp.as_ref().is_some_and(|s| s.spec_hash == hash.as_str()) => {
            remove_twins(desired, view, &network.id, &hash, &mut plan);
        }
        Some(network) => plan.findings.push(finding(
            Reason::NotInEffect,
            format!("the network {} differs from the manifest; replacing a network in use is not built yet: remove and create it under another name", network.name),
            false,
        )),
        None => {
            if let Some(id) = &view.name_taken {
                let name = engine_name(&desired.key.namespace, &desired.key.name);
                plan.findings.push(finding(Reason::NameConflict, format!("a network `{name}` that is not ours exists ({id}): remove or rename it"), true));
                return plan;
            }
            let cause = if view.was_there { Cause::Missing } else { Cause::New };
            plan.push(create(desired, instance, &hash, cause));
        }
    }
    suspend(&mut plan, suspended);
    plan
}

fn create(desired: &DesiredNetwork, instance: &Name, hash: &str, cause: Cause) -> Step {
    let stamp = Stamp {
        instance: instance.clone(),
        owner: desired.key.clone(),
        uid: desired.uid.clone(),
        spec_hash: hash.into(),
        revision: 1,
        slot: 0,
        image: Name::default(),
    };
    let mut labels = desired.labels.clone();
    labels.extend(stamp.labels(desired.generation));
    let body = NetworkBody {
        name: engine_name(&desired.key.namespace, &desired.key.name),
        driver: desired.driver.clone(),
        options: desired.options.clone(),
        subnet: desired.subnet.clone(),
        gateway: desired.gateway.clone(),
        internal: desired.internal,
        attachable: desired.attachable,
        labels,
    };
    step(desired, Action::CreateNetwork { body: Box::new(body) }, cause, Vec::new())
}

/// Two of one name are one too many: the engine finds neither by it.
fn remove_twins(desired: &DesiredNetwork, view: &NetworkView, kept: &Name, hash: &str, plan: &mut Plan) {
    let is_twin = |n: &&Arc<Network>| n.id != *kept && n.stamp.as_ref().is_some_and(|s| s.spec_hash == hash);
    for twin in view.networks.iter().filter(is_twin) {
        let containers = view.attached.get(&twin.id).copied().unwrap_or(0);
        let waits = if containers > 0 { vec![Wait::Left { containers }] } else { Vec::new() };
        plan.push(step(desired, Action::RemoveNetwork { network: twin.id.clone() }, Cause::Superseded, waits));
    }
}

fn plan_removal(desired: &DesiredNetwork, view: &NetworkView, plan: &mut Plan) {
    if view.networks.is_empty() {
        plan.finalized = true;
        return;
    }
    let mut waits: Vec<Wait> = view.wanted_by.iter().map(|who| Wait::Gone { who: who.clone() }).collect();
    let containers: usize = view.attached.values().sum();
    if containers > 0 && waits.is_empty() {
        waits.push(Wait::Left { containers });
    }
    for network in &view.networks {
        plan.push(step(desired, Action::RemoveNetwork { network: network.id.clone() }, Cause::Deleted, waits.clone()));
    }
}

fn suspend(plan: &mut Plan, by: Option<&str>) {
    if let Some(by) = by {
        plan.steps.iter_mut().for_each(|s| s.waits.push(Wait::Suspended { by: by.to_owned() }));
        plan.finalized = false;
    }
}

fn step(desired: &DesiredNetwork, action: Action, cause: Cause, waits: Vec<Wait>) -> Step {
    Step { action, object: desired.key.clone(), slot: 0, cause, waits, after: Vec::new(), needs_approval: false }
}
