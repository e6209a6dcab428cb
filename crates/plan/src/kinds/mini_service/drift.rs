//! What can be put right on a container that stays: its networks, its limits, its restart policy.

use std::collections::BTreeSet;
use std::sync::Arc;

use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;

use super::{NOT_JOINED, Planner};
use crate::desired::{DesiredAttachment, EngineResources, engine_name, restart_policy};
use crate::leaf::engine_resources;
use crate::observed::{Attachment, Container, Network, Older, Place, RunState};
use crate::plan::Plan;
use crate::step::{Action, Cause, ContainerRef, Join, Step, Wait};

pub(super) fn join(planner: &Planner<'_>, wanted: &DesiredAttachment, network: Option<&Arc<Network>>) -> Join {
    Join {
        network_id: network.map(|n| n.id.clone()).unwrap_or_default(),
        network_name: network.map_or_else(|| engine_name(&planner.desired.key.namespace, &wanted.network).into(), |n| n.name.clone()),
        aliases: wanted.aliases.clone(),
        ipv4: wanted.ipv4.clone(),
    }
}

/// Plans the attachments of a container; gives the indices of steps that must come before its start.
pub(super) fn plan_networks(planner: &Planner<'_>, slot: u32, container: &Container, plan: &mut Plan) -> Vec<usize> {
    let mut steps = Vec::new();
    if planted(Mutant::DetachedStays) {
        return steps;
    }
    let mut settled: BTreeSet<Name> = BTreeSet::new();
    for wanted in &planner.spec.networks {
        let place = planner.ctx.view.networks.get(&wanted.network);
        settled.extend(plan_move(planner, slot, container, wanted, &mut steps, plan));
        let network = place.and_then(|p| p.current.as_ref());
        let target = join(planner, wanted, network);
        settled.insert(target.network_name.clone());
        let found = container.networks.get(&target.network_name);
        let Some(network) = network else {
            let action = Action::Connect { container: ContainerRef::Id(container.id.clone()), join: target };
            let step = planner.step(slot, action, Cause::Joins { network: wanted.network.to_string() });
            steps.push(plan.push(Step { waits: vec![Wait::Network { name: wanted.network.clone() }], ..step }));
            continue;
        };
        if is_moving(place, container) && found.is_none() {
            // That move joins it.
            continue;
        }
        let Some(difference) = attachment_difference(planner, container, wanted, network, found) else { continue };
        let mut after = Vec::new();
        if let Some(found) = found {
            let network = attachment_ref(planner, &target.network_name, found);
            let action = Action::Disconnect { container: container.id.clone(), network, name: target.network_name.clone() };
            after.push(plan.push(planner.step(slot, action, difference.clone())));
        }
        let action = Action::Connect { container: ContainerRef::Id(container.id.clone()), join: target };
        steps.push(plan.push(Step { after, ..planner.step(slot, action, difference) }));
    }
    // An adopted container stays in networks that are nobody's of ours: until its replacement it is what it was.
    let is_kept = |a: &Attachment| container.adopted && !planner.ctx.view.our_networks.contains(&a.network_id);
    let others_may = may_others(planner, container, "/container/networks");
    for (name, _) in container.networks.iter().filter(|(name, a)| !others_may && !settled.contains(*name) && !is_kept(a)) {
        let cause = match planner.difference("networks", name.to_string(), NOT_JOINED.to_owned()) {
            Cause::Changed { .. } => Cause::Leaves { network: name.to_string() },
            drift => drift,
        };
        let action = Action::Disconnect { container: container.id.clone(), network: name.clone(), name: name.clone() };
        steps.push(plan.push(planner.step(slot, action, cause)));
    }
    steps
}

/// A container that is to go and still serves moves with the others, or nobody in the new network would find it.
pub(super) fn plan_moves(planner: &Planner<'_>, slot: u32, container: &Container, plan: &mut Plan) {
    for wanted in &planner.spec.networks {
        plan_move(planner, slot, container, wanted, &mut Vec::new(), plan);
    }
}

/// Whether others may change this field of a container. One that was never started is still in the making.
fn may_others(planner: &Planner<'_>, container: &Container, pointer: &str) -> bool {
    container.state != RunState::Created && planner.desired.ignores(pointer)
}

/// Whether a container is in a network that another one takes the place of.
fn is_moving(place: Option<&Place>, container: &Container) -> bool {
    place.is_some_and(|place| container.networks.values().any(|a| place.older.contains_key(&a.network_id)))
}

/// Moves a container out of networks that another one takes the place of: it joins first and leaves when everybody has joined, so that
/// at any time each is found by each. Gives the names of those that it leaves; pushes to `needed` what must come before its start.
fn plan_move(
    planner: &Planner<'_>,
    slot: u32,
    container: &Container,
    wanted: &DesiredAttachment,
    needed: &mut Vec<usize>,
    plan: &mut Plan,
) -> Vec<Name> {
    let Some(place) = planner.ctx.view.networks.get(&wanted.network) else { return Vec::new() };
    let target = join(planner, wanted, place.current.as_ref());
    if place.is_outdated {
        plan_coming_move(planner, slot, container, wanted, place, plan);
    }
    let mut left = Vec::new();
    let mut joined: Option<usize> = None;
    for (name, attachment) in &container.networks {
        let Some(older) = place.older.get(&attachment.network_id) else { continue };
        left.push(name.clone());
        let to = match &place.current {
            Some(network) => network.name.to_string(),
            None => format!("the new {}", wanted.network),
        };
        let cause = Cause::Moves { from: name.to_string(), to };
        let has_joined = container.networks.contains_key(&target.network_name);
        if place.current.is_some() && !has_joined && joined.is_none() {
            let action = Action::Connect { container: ContainerRef::Id(container.id.clone()), join: target.clone() };
            joined = Some(plan.push(planner.step(slot, action, cause.clone())));
        }
        let waits = if container.state.is_up() { leaving_waits(place, older, name, container) } else { Vec::new() };
        let action =
            Action::Disconnect { container: container.id.clone(), network: attachment_ref(planner, name, attachment), name: name.clone() };
        plan.push(Step { waits, after: joined.into_iter().collect(), ..planner.step(slot, action, cause) });
    }
    needed.extend(joined);
    left
}

/// What a running container waits for before it leaves a network. Nothing, where the network must be broken.
fn leaving_waits(place: &Place, older: &Older, name: &Name, container: &Container) -> Vec<Wait> {
    let Some(current) = &place.current else { return Vec::new() };
    if planted(Mutant::LeavesEarly) {
        return Vec::new();
    }
    let others = |names: &BTreeSet<Name>| names.iter().filter(|name| **name != container.name).cloned().collect::<Vec<Name>>();
    let (to_join, to_leave) = (others(&older.to_join), others(&older.to_leave));
    if !to_join.is_empty() {
        return vec![Wait::Joined { containers: to_join, network: current.name.clone() }];
    }
    if to_leave.is_empty() { Vec::new() } else { vec![Wait::LeftFirst { containers: to_leave, network: name.clone() }] }
}

/// The move that follows when the network's own plan has made the next one: for who reads the plan of everything.
fn plan_coming_move(planner: &Planner<'_>, slot: u32, container: &Container, wanted: &DesiredAttachment, place: &Place, plan: &mut Plan) {
    let Some(current) = place.current.as_ref().filter(|current| container.networks.contains_key(&current.name)) else { return };
    let cause = Cause::Moves { from: current.name.to_string(), to: format!("the new {}", wanted.network) };
    let waits = vec![Wait::Network { name: wanted.network.clone() }];
    let connect = Action::Connect { container: ContainerRef::Id(container.id.clone()), join: join(planner, wanted, None) };
    let connect = plan.push(Step { waits, ..planner.step(slot, connect, cause.clone()) });
    let leave = Action::Disconnect { container: container.id.clone(), network: current.id.clone(), name: current.name.clone() };
    plan.push(Step { after: vec![connect], ..planner.step(slot, leave, cause) });
}

/// What the engine finds an attachment by: of a network that is gone its name only, of one that is there the id is unmistakable.
fn attachment_ref(planner: &Planner<'_>, name: &Name, attachment: &Attachment) -> Name {
    let is_there = planner.ctx.view.known_networks.contains(&attachment.network_id);
    if is_there { attachment.network_id.clone() } else { name.clone() }
}

fn attachment_difference(
    planner: &Planner<'_>,
    container: &Container,
    wanted: &DesiredAttachment,
    network: &Network,
    found: Option<&Attachment>,
) -> Option<Cause> {
    let name = &wanted.network;
    let Some(found) = found else {
        if may_others(planner, container, "/container/networks") {
            return None;
        }
        // Nobody took it out of a network that was not there when all was as wanted.
        if !planner.ctx.settled_networks.contains(&network.id) {
            return Some(Cause::Joins { network: name.to_string() });
        }
        return Some(match planner.difference("networks", NOT_JOINED.to_owned(), name.to_string()) {
            Cause::Changed { .. } => Cause::Joins { network: name.to_string() },
            drift => drift,
        });
    };
    // A container that was never started knows the network by the name it was given.
    if !found.network_id.is_empty() && found.network_id != network.id {
        return Some(planner.difference("networks", format!("an older {name}"), name.to_string()));
    }
    if may_others(planner, container, "/container/networkOptions") {
        return None;
    }
    // What was adopted may have been called otherwise: its own name comes with the replacement.
    let is_due = |alias: &&String| !(container.adopted && alias.as_str() == planner.desired.key.name.as_str());
    if let Some(missing) = wanted.aliases.iter().filter(is_due).find(|alias| !found.aliases.contains(alias)) {
        return Some(planner.difference("aliases", format!("without {missing}"), wanted.aliases.join(", ")));
    }
    if wanted.ipv4.is_some() && wanted.ipv4 != found.fixed_ipv4 {
        let text = |ip: &Option<String>| ip.clone().unwrap_or_else(|| "none".to_owned());
        return Some(planner.difference("ipv4", text(&found.fixed_ipv4), text(&wanted.ipv4)));
    }
    None
}

/// Plans limits and restart policy; gives the indices of steps that must come before its start.
pub(super) fn plan_resources(planner: &Planner<'_>, slot: u32, container: &Container, plan: &mut Plan) -> Vec<usize> {
    let mut wanted = wanted_resources(planner, container);
    if planted(Mutant::RestlessDrift) {
        wanted.pids = container.resources.pids + 1;
    }
    let policy = restart_policy(planner.spec);
    let found = container.resources;
    let cause = resource_difference(&found, &wanted).map(|(field, found, wanted)| planner.difference(field, found, wanted)).or_else(|| {
        (!is_policy(container, policy) && !planner.desired.ignores("/container/restart"))
            .then(|| planner.difference("restart", container.restart_policy.to_string(), policy.to_owned()))
    });
    let Some(cause) = cause else { return Vec::new() };
    // What others may change stays as they left it, also when something else is put back.
    let policy = if planner.desired.ignores("/container/restart") { container.restart_policy.as_str() } else { policy };
    let action = Action::Update { container: container.id.clone(), resources: wanted, restart_policy: policy.to_owned() };
    vec![plan.push(planner.step(slot, action, cause))]
}

/// The limits of a container that is there: those that others may change are what they are.
fn wanted_resources(planner: &Planner<'_>, container: &Container) -> EngineResources {
    let (wanted, found) = (engine_resources(planner.spec), container.resources);
    let keep = |name: &str, found: i64, wanted: i64| {
        if planner.desired.ignores(&format!("/container/resources/{name}")) { found } else { wanted }
    };
    EngineResources {
        nano_cpus: keep("cpus", found.nano_cpus, wanted.nano_cpus),
        memory_bytes: keep("memory", found.memory_bytes, wanted.memory_bytes),
        memory_reservation_bytes: keep("reservations/memory", found.memory_reservation_bytes, wanted.memory_reservation_bytes),
        pids: keep("pids", found.pids, wanted.pids),
        cpu_shares: keep("reservations/cpus", found.cpu_shares, wanted.cpu_shares),
    }
}

/// What others call `always` differs from `unless-stopped` only after a restart of the engine, and only for who was stopped: no reason to
/// touch what was adopted.
fn is_policy(container: &Container, wanted: &str) -> bool {
    container.restart_policy == wanted || (container.adopted && container.restart_policy == "always" && wanted == "unless-stopped")
}

fn resource_difference(found: &EngineResources, wanted: &EngineResources) -> Option<(&'static str, String, String)> {
    let fields: [(&'static str, i64, i64); 5] = [
        ("cpus", found.nano_cpus, wanted.nano_cpus),
        ("memory", found.memory_bytes, wanted.memory_bytes),
        ("reservations.memory", found.memory_reservation_bytes, wanted.memory_reservation_bytes),
        ("pids", found.pids, wanted.pids),
        ("reservations.cpus", found.cpu_shares, wanted.cpu_shares),
    ];
    let text = |value: i64| if value == 0 { "unlimited".to_owned() } else { value.to_string() };
    fields.into_iter().find(|(_, found, wanted)| found != wanted).map(|(field, found, wanted)| (field, text(found), text(wanted)))
}

/// Docker can lower and raise the limits of memory and processors in place, but not lift them: that takes a new container.
/// Seen with API 1.41: `Memory: -1` is refused, `NanoCpus: 0` means "no change".
pub(super) fn has_limit_to_lift(planner: &Planner<'_>, container: &Container) -> bool {
    let (found, wanted) = (container.resources, wanted_resources(planner, container));
    (wanted.memory_bytes == 0 && found.memory_bytes > 0) || (wanted.nano_cpus == 0 && found.nano_cpus > 0)
}

pub(super) fn lifted_limit(planner: &Planner<'_>, container: &Container) -> Cause {
    let (field, found, wanted) = resource_difference(&container.resources, &wanted_resources(planner, container))
        .unwrap_or_else(|| ("image", container.image_id.to_string(), "the pinned one".to_owned()));
    planner.difference(field, found, wanted)
}
