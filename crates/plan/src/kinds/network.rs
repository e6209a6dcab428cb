//! The planner of Network: one network for each, found by its stamp.
//!
//! Nothing of a network can be changed in place: another one takes its place. Where both fit on the engine the new one is made beside
//! the old one, the containers move (each by the plan of its own service, see `mini_service::drift`), and the old one goes when all have
//! left. Where they do not fit, the old one must be broken first, and a person must approve that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use qm_api::conditions::Reason;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_api::spec::names::Cidr;
use serde_json::json;

use crate::desired::{DesiredNetwork, engine_name};
use crate::leaf::hex_digest;
use crate::observed::{Container, Gap, Network, Older, Place};
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
    /// All networks of the engine whose names begin with its engine name, whoever they belong to.
    pub names: BTreeSet<Name>,
    /// Networks that are not this one's and have an address in common with the wanted range: by engine name, and whether they are ours.
    pub in_range: BTreeMap<Name, bool>,
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
    current_of(&spec_hash(desired), networks)
}

fn current_of<'a>(hash: &str, networks: &'a [Arc<Network>]) -> Option<&'a Arc<Network>> {
    let matches = |n: &&Arc<Network>| is_of(n, hash);
    let age = |n: &&Arc<Network>| (n.created_at, n.id.clone());
    networks.iter().filter(matches).min_by_key(age).or_else(|| networks.iter().max_by_key(age))
}

/// How the wanted network stands to those that are there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stand<'a> {
    /// There is none.
    Absent,
    /// It is there.
    There(&'a Arc<Network>),
    /// This one of an older manifest is in use; the wanted one fits beside it.
    Beside(&'a Arc<Network>),
    /// This one of an older manifest is in use and must go before the wanted one can be made.
    InTheWay(&'a Arc<Network>),
}

/// Says how a wanted network stands to those that are stamped for it.
pub fn stand<'a>(desired: &DesiredNetwork, networks: &'a [Arc<Network>]) -> Stand<'a> {
    let hash = spec_hash(desired);
    match current_of(&hash, networks) {
        None => Stand::Absent,
        Some(network) if is_of(network, &hash) => Stand::There(network),
        Some(network) if is_in_the_way(desired, network) => Stand::InTheWay(network),
        Some(network) => Stand::Beside(network),
    }
}

fn is_of(network: &Network, hash: &str) -> bool {
    network.stamp.as_ref().is_some_and(|s| s.spec_hash == hash)
}

/// Whether the engine would refuse the wanted network because of this one: it has the same addresses, the same interface on the host, or
/// the same parent interface.
fn is_in_the_way(desired: &DesiredNetwork, network: &Network) -> bool {
    let same_option = |name: &str| desired.options.get(name).is_some_and(|wanted| network.options.get(name) == Some(wanted));
    let on_parent = matches!(desired.driver.as_str(), "macvlan" | "ipvlan") && desired.driver == network.driver;
    overlaps(desired.subnet.as_deref(), network) || same_option("com.docker.network.bridge.name") || (on_parent && same_option("parent"))
}

/// Whether a wanted address range has an address in common with those of a network.
pub fn overlaps(subnet: Option<&str>, network: &Network) -> bool {
    let Some(wanted) = subnet.and_then(|s| Cidr::parse(s).ok()) else { return false };
    network.subnets.iter().filter_map(|s| Cidr::parse(s).ok()).any(|range| range.overlaps(wanted))
}

/// A service that uses a network.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// Its level in the dependency graph.
    pub level: u32,
    /// Its containers.
    pub containers: Vec<Arc<Container>>,
}

/// Where the containers of a service of this level are to be. `users` = all services that use the network, asked for only while it is
/// replaced; `approved` = the step hashes that people approved.
pub fn place(
    desired: &DesiredNetwork,
    networks: &[Arc<Network>],
    approved: &BTreeSet<String>,
    level: u32,
    users: impl FnOnce() -> Vec<User>,
) -> Place {
    let (current, is_outdated) = match stand(desired, networks) {
        Stand::Absent => return Place::default(),
        Stand::There(network) => (Some(network.clone()), false),
        Stand::Beside(network) => (Some(network.clone()), !desired.deleting),
        Stand::InTheWay(old) if !desired.deleting && approved.contains(&break_step(desired, old).hash()) => (None, false),
        Stand::InTheWay(network) => (Some(network.clone()), false),
    };
    let is_older = |n: &&Arc<Network>| current.as_ref().is_none_or(|current| n.id != current.id && n.name != current.name);
    let mut older: BTreeMap<Name, Older> = networks.iter().filter(is_older).map(|n| (n.id.clone(), Older::default())).collect();
    if let (Some(current), false) = (&current, older.is_empty()) {
        for user in users() {
            for container in user.containers.iter().filter(|c| c.state.is_up()) {
                let has_joined = container.networks.values().any(|a| a.network_id == current.id);
                for attachment in container.networks.values() {
                    let Some(older) = older.get_mut(&attachment.network_id) else { continue };
                    if !has_joined {
                        older.to_join.insert(container.name.clone());
                    }
                    // Who depends on others leaves before them.
                    if user.level > level {
                        older.to_leave.insert(container.name.clone());
                    }
                }
            }
        }
    }
    Place { current, older, is_outdated }
}

/// The step that breaks a network which is in the way: what a person approves.
pub fn break_step(desired: &DesiredNetwork, old: &Network) -> Step {
    let action = Action::RemoveNetwork { network: old.id.clone(), name: old.name.clone() };
    Step { needs_approval: true, ..step(desired, action, difference(desired, old), Vec::new()) }
}

/// What sets the wanted network apart from one that is there.
fn difference(desired: &DesiredNetwork, old: &Network) -> Cause {
    let changed = |field: &str, found: String, wanted: String| Cause::Changed { field: field.to_owned(), found, wanted };
    let or_any = |text: &Option<String>| text.clone().unwrap_or_else(|| "chosen by the engine".to_owned());
    let found_subnet = old.subnets.join(", ");
    if desired.driver != old.driver {
        return changed("driver", old.driver.clone(), desired.driver.clone());
    }
    if desired.subnet.as_ref().is_some_and(|wanted| !old.subnets.contains(wanted)) {
        return changed("subnet", found_subnet, or_any(&desired.subnet));
    }
    if desired.gateway.is_some() && desired.gateway != old.gateway {
        return changed("gateway", or_any(&old.gateway), or_any(&desired.gateway));
    }
    for (field, found, wanted) in [("internal", old.internal, desired.internal), ("attachable", old.attachable, desired.attachable)] {
        if found != wanted {
            return changed(field, found.to_string(), wanted.to_string());
        }
    }
    if let Some((name, wanted)) = desired.options.iter().find(|(name, wanted)| old.options.get(*name) != Some(*wanted)) {
        return changed("driverOptions", format!("{name}: {}", or_any(&old.options.get(name).cloned())), format!("{name}: {wanted}"));
    }
    changed("manifest", format!("revision {}", revision(old)), format!("revision {}", revision(old) + 1))
}

/// The spec-hash that an adopted network gets: that of the manifest where nothing sets the two apart, else none that any manifest has.
pub fn adopted_hash(desired: &DesiredNetwork, network: &Network) -> String {
    match difference(desired, network) {
        Cause::Changed { field, .. } if field == "manifest" => spec_hash(desired),
        _ => format!("adopted:{}", network.id),
    }
}

fn revision(network: &Network) -> u64 {
    network.stamp.as_ref().map_or(0, |s| s.revision.max(1))
}

/// Plans one network. `approved` = the step hashes that people approved.
pub fn plan_network(
    desired: &DesiredNetwork,
    view: &NetworkView,
    instance: &Name,
    approved: &BTreeSet<String>,
    suspended: Option<&str>,
) -> Plan {
    let mut plan = Plan::default();
    if !view.gaps.is_empty() {
        plan.findings.push(finding(desired, Reason::EngineUnreachable, "the engine's networks cannot be observed".into(), false));
        return plan;
    }
    if desired.deleting {
        plan_removal(desired, view, &mut plan);
    } else if let Some(project) = &view.foreign_project {
        plan.findings.push(finding(
            desired,
            Reason::NamespaceInUse,
            format!("the project `{project}` of another tool runs under this namespace's name: choose another namespace, or stop it"),
            true,
        ));
    } else {
        Planner { desired, view, instance, hash: spec_hash(desired) }.bring_up(approved, &mut plan);
    }
    suspend(&mut plan, suspended);
    plan
}

fn finding(desired: &DesiredNetwork, reason: Reason, message: String, stalls: bool) -> Finding {
    Finding { object: desired.key.clone(), reason, message, stalls }
}

struct Planner<'a> {
    desired: &'a DesiredNetwork,
    view: &'a NetworkView,
    instance: &'a Name,
    hash: String,
}

impl Planner<'_> {
    fn bring_up(&self, approved: &BTreeSet<String>, plan: &mut Plan) {
        match stand(self.desired, &self.view.networks) {
            Stand::There(network) => {
                for other in self.view.networks.iter().filter(|n| n.id != network.id) {
                    self.remove(other, &[], plan);
                }
            }
            Stand::Absent => {
                if let Some(id) = &self.view.name_taken {
                    let name = engine_name(&self.desired.key.namespace, &self.desired.key.name);
                    let message = format!("a network `{name}` that is not ours exists ({id}): remove or rename it");
                    plan.findings.push(finding(self.desired, Reason::NameConflict, message, true));
                    return;
                }
                let cause = if self.view.was_there { Cause::Missing } else { Cause::New };
                self.create(cause, Vec::new(), plan);
            }
            Stand::Beside(old) => {
                // Those that nobody is meant to be in any more may be in the way all the same.
                let (in_the_way, others): (Vec<_>, Vec<_>) = self.view.networks.iter().partition(|n| is_in_the_way(self.desired, n));
                let before = in_the_way.into_iter().map(|n| self.remove(n, &[], plan)).collect();
                if let Some(create) = self.create(difference(self.desired, old), before, plan) {
                    others.into_iter().for_each(|n| {
                        self.remove(n, &[create], plan);
                    });
                }
            }
            Stand::InTheWay(old) => self.break_first(old, approved, plan),
        }
    }

    /// The old one goes before the new one is made: whoever is in it is cut off for a moment.
    fn break_first(&self, old: &Network, approved: &BTreeSet<String>, plan: &mut Plan) {
        let containers = self.attached(old);
        let mut step = break_step(self.desired, old);
        let hash = step.hash();
        if !approved.contains(&hash) {
            step.waits.push(Wait::Approval);
            let who = if containers == 1 { "1 container is".to_owned() } else { format!("{containers} containers are") };
            let message = format!(
                "{} must be removed before its successor fits ({}): {who} cut off meanwhile; `quaymaster approve {}` lets it happen, another address range avoids it",
                old.name,
                step.cause,
                &hash[..12]
            );
            plan.findings.push(finding(self.desired, Reason::NetworkInUse, message, false));
        }
        if containers > 0 {
            step.waits.push(Wait::Left { containers });
        }
        let cause = step.cause.clone();
        let mut before: Vec<usize> = self
            .view
            .networks
            .iter()
            .filter(|n| n.id != old.id && is_in_the_way(self.desired, n))
            .map(|n| self.remove(n, &[], plan))
            .collect();
        before.push(plan.push(step));
        self.create(cause, before, plan);
    }

    fn attached(&self, network: &Network) -> usize {
        self.view.attached.get(&network.id).copied().unwrap_or(0)
    }

    /// A network that another one takes the place of, or a twin: two of one name are one too many, the engine finds neither by it.
    fn remove(&self, network: &Network, after: &[usize], plan: &mut Plan) -> usize {
        let containers = self.attached(network);
        let waits = if containers > 0 { vec![Wait::Left { containers }] } else { Vec::new() };
        let action = Action::RemoveNetwork { network: network.id.clone(), name: network.name.clone() };
        plan.push(Step { after: after.to_vec(), ..step(self.desired, action, Cause::Superseded, waits) })
    }

    /// Pushes the creation, unless the range belongs to somebody else.
    fn create(&self, cause: Cause, after: Vec<usize>, plan: &mut Plan) -> Option<usize> {
        let mut waits = Vec::new();
        for (name, is_ours) in &self.view.in_range {
            if *is_ours {
                waits.push(Wait::Range { network: name.clone() });
                continue;
            }
            let subnet = self.desired.subnet.as_deref().unwrap_or_default();
            let message = format!("the network `{name}` has addresses of {subnet} and is not ours: remove it, or choose another range");
            plan.findings.push(finding(self.desired, Reason::AddressRangeTaken, message, true));
            return None;
        }
        let (revision, name) = self.next_name();
        let stamp = Stamp {
            instance: self.instance.clone(),
            owner: self.desired.key.clone(),
            uid: self.desired.uid.clone(),
            spec_hash: self.hash.as_str().into(),
            revision,
            slot: 0,
            image: Name::default(),
            job: None,
        };
        let mut labels = self.desired.labels.clone();
        labels.extend(stamp.labels(self.desired.generation));
        let body = NetworkBody {
            name,
            driver: self.desired.driver.clone(),
            options: self.desired.options.clone(),
            subnet: self.desired.subnet.clone(),
            gateway: self.desired.gateway.clone(),
            internal: self.desired.internal,
            attachable: self.desired.attachable,
            labels,
        };
        let action = Action::CreateNetwork { body: Box::new(body) };
        Some(plan.push(Step { after, ..step(self.desired, action, cause, waits) }))
    }

    /// The revision of the next network, and its engine name: the plain one for the first, with `-r<N>` for later ones.
    fn next_name(&self) -> (u64, String) {
        let plain = engine_name(&self.desired.key.namespace, &self.desired.key.name);
        let mut number = self.view.networks.iter().map(|n| revision(n)).max().map_or(1, |newest| newest + 1);
        loop {
            let name = if number == 1 { plain.clone() } else { format!("{plain}-r{number}") };
            if !self.view.names.contains(name.as_str()) {
                return (number, name);
            }
            number += 1;
        }
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
        plan.push(step(
            desired,
            Action::RemoveNetwork { network: network.id.clone(), name: network.name.clone() },
            Cause::Deleted,
            waits.clone(),
        ));
    }
}

fn suspend(plan: &mut Plan, by: Option<&str>) {
    if let Some(by) = by {
        plan.steps.iter_mut().for_each(|s| s.waits.push(Wait::Suspended { by: by.to_owned() }));
        plan.finalized = false;
    }
}

fn step(desired: &DesiredNetwork, action: Action, cause: Cause, waits: Vec<Wait>) -> Step {
    Step { action, object: desired.key.clone(), slot: 0, cause, waits, after: Vec::new(), needs_approval: false, needs: None }
}
