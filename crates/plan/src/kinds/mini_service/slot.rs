//! One slot: which of its containers stays, which goes, and the chain of steps from here to there.

use std::collections::BTreeMap;

use qm_api::conditions::Reason;
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use qm_api::spec::container::UpdateOrder;
use qm_api::time::Timestamp;

use super::target::Target;
use super::{Planner, VolumesMade, drift, rollout};
use crate::desired::{DesiredFile, DesiredMount, MountSource, Rollout, restart_policy};
use crate::leaf::engine_resources;
use crate::observed::{Container, EngineHealth, Health, RunState};
use crate::own::{healthy_at, is_healthy};
use crate::plan::Plan;
use crate::reload::Verb;
use crate::stamp::Stamp;
use crate::step::{Action, Body, Cause, ContainerRef, FileWrite, ImageRef, Join, Step, Wait};

/// The containers of one slot, sorted into the one that stays and the ones that go.
pub(super) struct Slot<'a> {
    pub(super) number: u32,
    pub(super) keep: Option<&'a Container>,
    pub(super) outdated: Vec<&'a Container>,
}

pub(super) fn plan_slots(planner: &Planner<'_>, target: &Target, slots: BTreeMap<u32, Vec<&Container>>, plan: &mut Plan) {
    let mut volumes = VolumesMade::new();
    let slots: Vec<Slot<'_>> = slots
        .into_iter()
        .map(|(number, containers)| {
            let (current, outdated): (Vec<_>, Vec<_>) = containers.into_iter().partition(|c| is_current(planner, target, c));
            let mut current = current;
            current.sort_by_key(|c| (advancement(c), c.created_at, c.id.clone()));
            let keep = current.first().copied();
            for extra in current.iter().skip(1) {
                planner.remove(plan, extra, Cause::Superseded, Vec::new(), Vec::new());
            }
            Slot { number, keep, outdated }
        })
        .collect();
    let mut turns = Turns::of(planner, &slots);
    for slot in &slots {
        let rationed = turns.ration(planner, slot);
        for old in slot.outdated.iter().filter(|old| may_serve(planner, old)) {
            drift::plan_moves(planner, slot.number, old, plan);
        }
        plan_slot(planner, target, slot, rationed, &mut volumes, plan);
    }
    plan.rollout = rollout::progress(planner, target, &slots);
}

/// Who may be replaced now: so many replicas at a time, the next when the last one has proven itself.
struct Turns {
    free: usize,
    /// Slots that are down, or in the middle of a replacement.
    busy: Vec<u32>,
    /// Slots that are healthy, and not for long enough; with the instant at which they are.
    settling: Vec<(u32, Timestamp)>,
}

impl Turns {
    fn of(planner: &Planner<'_>, slots: &[Slot<'_>]) -> Self {
        let busy: Vec<u32> = slots.iter().filter(|s| is_down(planner, s) || is_taking_over(planner, s)).map(|s| s.number).collect();
        let settling: Vec<(u32, Timestamp)> =
            slots.iter().filter(|s| !busy.contains(&s.number)).filter_map(|s| Some((s.number, settles_at(planner, s.keep?)?))).collect();
        let free = (planner.spec.parallelism as usize).saturating_sub(busy.len() + settling.len());
        Self { free, busy, settling }
    }

    /// What a slot must wait for before its old container is put at risk. Only that costs availability, so only that is rationed.
    fn ration(&mut self, planner: &Planner<'_>, slot: &Slot<'_>) -> Option<Wait> {
        let has_newcomer = slot.keep.is_some_and(|k| healthy(planner, k) || starts_first(planner, slot) && k.state == RunState::Running);
        let costs = !has_newcomer && slot.outdated.iter().any(|c| may_serve(planner, c));
        if !costs {
            return None;
        }
        if let Rollout::Paused { message } = &planner.desired.rollout {
            return Some(Wait::Paused { message: message.clone() });
        }
        if self.free == 0 && !planted(Mutant::AllAtOnce) {
            return Some(match self.settling.iter().map(|(_, until)| *until).min() {
                Some(until) if self.busy.is_empty() => {
                    Wait::Settled { slots: self.settling.iter().map(|(slot, _)| *slot).collect(), until }
                }
                _ => Wait::Replicas { slots: self.busy.clone() },
            });
        }
        self.free = self.free.saturating_sub(1);
        self.busy.push(slot.number);
        None
    }
}

/// Whether the new container of a slot is started beside the old one. A volume without a name that is carried along would have two
/// writers: there the old one ends first, whatever the manifest says.
fn starts_first(planner: &Planner<'_>, slot: &Slot<'_>) -> bool {
    planner.spec.order == UpdateOrder::StartFirst && slot.outdated.iter().all(|old| old.anonymous_volumes.is_empty())
}

/// Its new container was started beside the old one and is not healthy yet.
fn is_taking_over(planner: &Planner<'_>, slot: &Slot<'_>) -> bool {
    !slot.outdated.is_empty()
        && starts_first(planner, slot)
        && slot.keep.is_some_and(|k| k.state == RunState::Running && !healthy(planner, k))
}

/// When a container has been healthy for long enough for the next one to be replaced; `None` = it has.
fn settles_at(planner: &Planner<'_>, container: &Container) -> Option<Timestamp> {
    settles_after(planner, container, planner.spec.monitor_ms.saturating_add(planner.spec.delay_ms))
}

/// When a healthy container has been so for `pause` milliseconds; `None` = it has.
pub(super) fn settles_after(planner: &Planner<'_>, container: &Container, pause: u64) -> Option<Timestamp> {
    if pause == 0 || !healthy(planner, container) {
        return None;
    }
    let since = healthy_at(planner.spec, container, planner.ctx.view.health.get(&container.id)).or(container.started_at)?;
    let until = since.plus_millis(pause as i64);
    // A start in the future was before the clock went back: long ago.
    (since <= planner.ctx.now && until > planner.ctx.now).then_some(until)
}

pub(super) fn healthy(planner: &Planner<'_>, container: &Container) -> bool {
    is_healthy(planner.spec, container, planner.ctx.view.health.get(&container.id))
}

/// It serves, or it ran before this process looked and was not asked yet: unknown is not down.
fn may_serve(planner: &Planner<'_>, container: &Container) -> bool {
    let is_unprobed = planner.ctx.view.health.get(&container.id) == Some(&Health::Unprobed);
    healthy(planner, container) || (container.state == RunState::Running && is_unprobed)
}

/// A slot that serves nobody now, for whatever reason: in the middle of a replacement, or down by itself. Another one may be taken down
/// only while few enough are.
fn is_down(planner: &Planner<'_>, slot: &Slot<'_>) -> bool {
    !slot.keep.iter().chain(&slot.outdated).any(|c| healthy(planner, c))
}

fn is_current(planner: &Planner<'_>, target: &Target, container: &Container) -> bool {
    // Until the image is known nothing can be called outdated.
    target.pull.is_some()
        || container.image_id == target.image_id
            && container.stamp.as_ref().is_some_and(|s| s.spec_hash == target.hash.as_str())
            && !drift::has_limit_to_lift(planner, container)
            && !is_to_be_recreated(planner, container)
}

fn is_to_be_recreated(planner: &Planner<'_>, container: &Container) -> bool {
    planner.ctx.reload.is_some_and(|reload| reload.verb == Verb::Recreate && reload.concerns(container))
}

fn advancement(container: &Container) -> u8 {
    match container.state {
        RunState::Running => 0,
        RunState::Restarting => 1,
        RunState::Paused => 2,
        RunState::Exited => 3,
        RunState::Created => 4,
        RunState::Dead | RunState::Removing => 5,
    }
}

fn plan_slot(planner: &Planner<'_>, target: &Target, slot: &Slot<'_>, rationed: Option<Wait>, volumes: &mut VolumesMade, plan: &mut Plan) {
    match slot.keep {
        Some(keep) if matches!(keep.state, RunState::Removing) => {
            // Its name and its place are free in a moment; the engine's event brings us back.
        }
        Some(keep) if keep.state == RunState::Dead => {
            planner.remove(plan, keep, Cause::Missing, Vec::new(), Vec::new());
        }
        Some(keep) => keep_container(planner, slot, keep, rationed, plan),
        None => make_container(planner, target, slot, rationed, volumes, plan),
    }
}

/// The slot has its container: put right what differs, start it, and take the old ones away.
fn keep_container(planner: &Planner<'_>, slot: &Slot<'_>, keep: &Container, rationed: Option<Wait>, plan: &mut Plan) {
    let mut before = drift::plan_networks(planner, slot.number, keep, plan);
    before.extend(drift::plan_resources(planner, slot.number, keep, plan));
    let mut old_gone: Vec<usize> = Vec::new();
    if should_start(planner, keep) {
        let mut waits = planner.start_waits(Some(keep.finished_at.unwrap_or(keep.created_at)));
        waits.extend(rationed.clone());
        if keep.state == RunState::Created && has_writes(planner) {
            let write = write_files(planner, slot.number, ContainerRef::Id(keep.id.clone()), new_or_missing(planner));
            before = vec![plan.push(Step { waits: waits.clone(), after: before, ..write })];
        }
        if !starts_first(planner, slot) {
            before.extend(stop_outdated(planner, slot, &waits, &before, plan));
        }
        let cause = if keep.state == RunState::Created {
            slot.outdated.first().map_or_else(|| new_or_missing(planner), |old| revision_cause(planner, old, keep_revision(keep), None))
        } else if was_stopped_for_a_dependency(planner, keep) {
            Cause::DependencyReturned
        } else {
            Cause::NotRunning { state: keep.state.word().to_owned() }
        };
        let start = planner.step(slot.number, Action::Start { container: ContainerRef::Id(keep.id.clone()) }, cause);
        let start = plan.push(Step { waits, after: before, ..start });
        old_gone.push(start);
    } else if keep.state == RunState::Paused {
        let cause = planner.difference("state", "paused".to_owned(), "running".to_owned());
        plan.push(planner.step(slot.number, Action::Unpause { container: keep.id.clone() }, cause));
    } else {
        reload(planner, slot.number, keep, plan);
    }
    let mut renamed_after = Vec::new();
    for old in &slot.outdated {
        if starts_first(planner, slot) {
            renamed_after.extend(planner.remove(plan, old, Cause::Superseded, takeover(planner, slot, old), old_gone.clone()));
        } else if old_gone.is_empty() {
            // Somebody else started the new one: the old one stays as long as it is needed.
            renamed_after.extend(planner.remove(plan, old, Cause::Superseded, rationed.iter().cloned().collect(), Vec::new()));
        } else {
            // It was stopped before the new one was started.
            let action = Action::RemoveContainer { container: old.id.clone() };
            let step = planner.step(slot.number, action, Cause::Superseded);
            renamed_after.push(plan.push(Step { after: old_gone.clone(), ..step }));
        }
    }
    rename(planner, slot, keep, renamed_after, plan);
}

/// An old container goes when the new one is healthy, unless it is known to serve nobody: beside the new one it is in nobody's way.
fn takeover(planner: &Planner<'_>, slot: &Slot<'_>, old: &Container) -> Vec<Wait> {
    let is_ill =
        matches!(planner.ctx.view.health.get(&old.id), Some(Health::Unhealthy { .. })) || old.engine_health == EngineHealth::Unhealthy;
    let is_of_use = old.state == RunState::Running && !is_ill;
    let is_ready = slot.keep.is_some_and(|keep| healthy(planner, keep)) || planted(Mutant::TakesOverEarly);
    if is_ready || !is_of_use { Vec::new() } else { vec![Wait::Replicas { slots: vec![slot.number] }] }
}

fn keep_revision(keep: &Container) -> u64 {
    keep.stamp.as_ref().map_or(0, |s| s.revision)
}

fn rename(planner: &Planner<'_>, slot: &Slot<'_>, keep: &Container, after: Vec<usize>, plan: &mut Plan) {
    let wanted = planner.canonical_name(slot.number);
    if keep.name == wanted.as_str() || keep.adopted {
        return;
    }
    if let Some(holder) = planner.ctx.view.names_taken.get(wanted.as_str()) {
        plan.findings.push(planner.finding(
            Reason::NameConflict,
            format!("the name {wanted} belongs to the container {holder} that is not ours: rename or remove it"),
            false,
        ));
        return;
    }
    let is_newcomer = keep.name.starts_with(&format!("{wanted}-r"));
    let cause = if is_newcomer { Cause::Superseded } else { planner.difference("name", keep.name.to_string(), wanted.clone()) };
    let step = planner.step(slot.number, Action::Rename { container: keep.id.clone(), to: wanted }, cause);
    plan.push(Step { after, ..step });
}

/// Whether a container that does not run should be started. The restart policy decides about one that ended by itself.
fn should_start(planner: &Planner<'_>, container: &Container) -> bool {
    use qm_api::spec::container::Restart;
    if was_stopped_for_a_dependency(planner, container) {
        return true;
    }
    match (container.state, planner.spec.restart) {
        (RunState::Created, _) => !planted(Mutant::HalfDoneIsDone),
        (RunState::Exited, Restart::Always) => !planted(Mutant::StoppedStays),
        (RunState::Exited, Restart::OnFailure) => container.exit_code != 0,
        _ => false,
    }
}

/// Whether we stopped it, and it was not started since.
fn was_stopped_for_a_dependency(planner: &Planner<'_>, container: &Container) -> bool {
    container.state == RunState::Exited && planner.ctx.stopped.get(&container.id) == Some(&container.started_at)
}

/// What a pending reload asks of a container that stays.
fn reload(planner: &Planner<'_>, slot: u32, container: &Container, plan: &mut Plan) {
    let Some(pending) = planner.ctx.reload.filter(|pending| pending.concerns(container)) else { return };
    if container.state != RunState::Running {
        return;
    }
    let id = container.id.clone();
    let action = match pending.verb {
        Verb::Signal => Action::Signal { container: id, signal: planner.spec.reload_signal.clone() },
        Verb::Restart => Action::Restart { container: id, grace_seconds: planner.grace_seconds() },
        // It is outdated, and replaced as such.
        Verb::Recreate => return,
    };
    let mut step = planner.step(slot, action, pending.cause.clone());
    // One replica after the other: the next waits until all others are healthy.
    let unhealthy: Vec<u32> = planner
        .ctx
        .view
        .containers
        .iter()
        .filter(|c| c.id != container.id && !healthy(planner, c))
        .filter_map(|c| c.stamp.as_ref().map(|s| s.slot))
        .collect();
    let earlier: Vec<u32> =
        plan.steps.iter().filter(|s| matches!(s.action, Action::Restart { .. } | Action::Signal { .. })).map(|s| s.slot).collect();
    if !unhealthy.is_empty() {
        step.waits.push(Wait::Replicas { slots: unhealthy });
    } else if !earlier.is_empty() {
        step.waits.push(Wait::Replicas { slots: earlier });
    }
    plan.push(step);
}

/// The slot has no container of the wanted revision: make one, then let it take over.
fn make_container(
    planner: &Planner<'_>,
    target: &Target,
    slot: &Slot<'_>,
    rationed: Option<Wait>,
    volumes: &mut VolumesMade,
    plan: &mut Plan,
) {
    let number = slot.number;
    let canonical = planner.canonical_name(number);
    let name = if slot.outdated.is_empty() { canonical } else { newcomers_name(planner, slot, &canonical, target.number) };
    if let Some(holder) = planner.ctx.view.names_taken.get(name.as_str()) {
        plan.findings.push(planner.finding(
            Reason::NameConflict,
            format!("the name {name} belongs to the container {holder} that is not ours: rename or remove it"),
            true,
        ));
        return;
    }
    let cause = slot
        .outdated
        .first()
        .map_or_else(|| new_or_missing(planner), |old| revision_cause(planner, old, target.number, target.values.as_ref()));
    let mut before: Vec<usize> = target.pull.into_iter().collect();
    let (mut create_waits, joins) = joins(planner);
    before.extend(create_volumes(planner, volumes, plan));
    if planner.spec.read_only && !planner.spec.files.is_empty() {
        before.push(plan.push(planner.step(number, Action::PlaceFiles { files: files(planner) }, cause.clone())));
    }
    let image = if target.pull.is_some() { ImageRef::AfterPull } else { ImageRef::Id(target.image_id.clone()) };
    let body = body(planner, target, number, &slot.outdated, joins.first().cloned());
    create_waits.extend(planner.ctx.brake.clone());
    let create = planner.step(number, Action::CreateContainer { name, image, body: Box::new(body) }, cause.clone());
    let create = plan.push(Step { waits: create_waits.clone(), after: before, ..create });
    let made = || ContainerRef::Made(create);
    let mut before = vec![create];
    for join in joins.into_iter().skip(1) {
        let action = Action::Connect { container: made(), join };
        before.push(plan.push(Step { waits: create_waits.clone(), after: vec![create], ..planner.step(number, action, cause.clone()) }));
    }
    let mut waits = planner.start_waits(Some(planner.ctx.now));
    waits.extend(rationed);
    if has_writes(planner) {
        // At once, not when its turn to start has come: somebody else may start it before, and would start it without its files.
        let write = write_files(planner, number, made(), cause.clone());
        before.push(plan.push(Step { waits: create_waits.clone(), after: vec![create], ..write }));
    }
    let beside = starts_first(planner, slot);
    if !beside {
        before.extend(stop_outdated(planner, slot, &waits, &before, plan));
    }
    let start = planner.step(number, Action::Start { container: made() }, cause);
    let start = plan.push(Step { waits, after: before, ..start });
    for old in &slot.outdated {
        if beside {
            planner.remove(plan, old, Cause::Superseded, takeover(planner, slot, old), vec![start]);
            continue;
        }
        let action = Action::RemoveContainer { container: old.id.clone() };
        plan.push(Step { after: vec![start], ..planner.step(number, action, Cause::Superseded) });
    }
}

/// A name for the one that will take over. An attempt that was given up may still hold the first choice.
fn newcomers_name(planner: &Planner<'_>, slot: &Slot<'_>, canonical: &str, revision: u64) -> String {
    let is_held = |name: &str| slot.outdated.iter().any(|c| c.name == name) || planner.ctx.view.names_taken.contains_key(name);
    let first = format!("{canonical}-r{revision}");
    let others = (2_u32..).map(|n| format!("{first}-{n}"));
    std::iter::once(first.clone()).chain(others).find(|name| !is_held(name)).unwrap_or(first)
}

fn new_or_missing(planner: &Planner<'_>) -> Cause {
    if planner.was_settled() { Cause::Missing } else { Cause::New }
}

/// `values` = those of the revision `to`, where they are not recorded yet.
fn revision_cause(planner: &Planner<'_>, old: &Container, to: u64, values: Option<&serde_json::Value>) -> Cause {
    let from = keep_revision(old);
    if let Some(pending) = planner.ctx.reload.filter(|_| is_to_be_recreated(planner, old)) {
        return pending.cause.clone();
    }
    if from == to {
        return drift::lifted_limit(planner, old);
    }
    let recorded = |number: u64| planner.ctx.revisions.iter().find(|r| r.number == number).map(|r| &r.values);
    let fields = match (recorded(from), values.or_else(|| recorded(to))) {
        (Some(a), Some(b)) => changed_fields(a, b),
        _ => Vec::new(),
    };
    Cause::Revision { from, to, fields }
}

fn changed_fields(a: &serde_json::Value, b: &serde_json::Value) -> Vec<String> {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return Vec::new() };
    let mut fields: Vec<String> = a.keys().chain(b.keys()).filter(|k| a.get(*k) != b.get(*k)).cloned().collect();
    fields.sort();
    fields.dedup();
    fields
}

/// Taking the old ones down waits for all that the new one waits for, and until it is ready to start: no gap that could be avoided, and
/// none at all when the new one cannot even be made.
fn stop_outdated(planner: &Planner<'_>, slot: &Slot<'_>, waits: &[Wait], ready: &[usize], plan: &mut Plan) -> Vec<usize> {
    let mut stops = Vec::new();
    for old in slot.outdated.iter().filter(|old| old.state.is_up()) {
        let action = Action::Stop { container: old.id.clone(), grace_seconds: planner.grace_seconds() };
        let step = planner.step(slot.number, action, Cause::Superseded);
        stops.push(plan.push(Step { waits: waits.to_vec(), after: ready.to_vec(), ..step }));
    }
    stops
}

/// Files are written into a container before its start, unless nothing can be written into it: then they are binds.
pub(super) fn has_writes(planner: &Planner<'_>) -> bool {
    !planner.spec.files.is_empty() && !planner.spec.read_only
}

pub(super) fn files(planner: &Planner<'_>) -> Vec<FileWrite> {
    let write =
        |f: &DesiredFile| FileWrite { target: f.target.clone(), mode: f.mode, digest: f.digest.clone(), content: f.content.clone() };
    planner.spec.files.iter().map(write).collect()
}

pub(super) fn write_files(planner: &Planner<'_>, slot: u32, container: ContainerRef, cause: Cause) -> Step {
    planner.step(slot, Action::WriteFiles { container, files: files(planner) }, cause)
}

pub(super) fn create_volumes(planner: &Planner<'_>, made: &mut VolumesMade, plan: &mut Plan) -> Vec<usize> {
    let mut steps = Vec::new();
    for mount in &planner.spec.mounts {
        let MountSource::Volume(name) = &mount.source else { continue };
        if planner.ctx.view.volumes.get(name) == Some(&false) && made.insert(name.clone()) {
            let stamp = Stamp {
                instance: planner.ctx.instance.clone(),
                owner: planner.desired.key.clone(),
                uid: planner.desired.uid.clone(),
                spec_hash: Name::default(),
                revision: 0,
                slot: 0,
                image: Name::default(),
                job: None,
            };
            let action = Action::CreateVolume { name: name.clone(), labels: stamp.labels(planner.desired.generation) };
            steps.push(plan.push(planner.step(0, action, Cause::New)));
        }
    }
    steps
}

/// How a new container joins its networks, and what making it must wait for.
pub(super) fn joins(planner: &Planner<'_>) -> (Vec<Wait>, Vec<Join>) {
    let mut waits = Vec::new();
    let joins = planner
        .spec
        .networks
        .iter()
        .map(|wanted| {
            let network = planner.ctx.view.networks.get(&wanted.network).and_then(|place| place.current.as_ref());
            if network.is_none() {
                waits.push(Wait::Network { name: wanted.network.clone() });
            }
            drift::join(planner, wanted, network)
        })
        .collect();
    (waits, joins)
}

/// The resolved create body of one slot. Volumes without a name that an old container of the slot has are carried along.
pub(super) fn body(planner: &Planner<'_>, target: &Target, slot: u32, old: &[&Container], network: Option<Join>) -> Body {
    let (spec, desired) = (planner.spec, planner.desired);
    let stamp = Stamp {
        instance: planner.ctx.instance.clone(),
        owner: desired.key.clone(),
        uid: desired.uid.clone(),
        spec_hash: target.hash.as_str().into(),
        revision: target.number,
        slot,
        image: spec.image.as_str().into(),
        job: None,
    };
    let mut labels = spec.labels.clone();
    labels.extend(stamp.labels(desired.generation));
    Body {
        image: target.image.clone(),
        entrypoint: spec.entrypoint.clone(),
        command: spec.command.clone(),
        env: spec.env.iter().map(|(k, v)| format!("{k}={v}")).collect(),
        user: spec.user.clone(),
        working_dir: spec.working_dir.clone(),
        labels,
        ports: spec.ports.clone(),
        mounts: mounts(planner, old),
        resources: engine_resources(spec),
        restart_policy: restart_policy(spec).to_owned(),
        cap_add: spec.cap_add.clone(),
        cap_drop: spec.cap_drop.clone(),
        read_only: spec.read_only,
        init: spec.init,
        stop_signal: spec.stop_signal.clone(),
        stop_timeout_seconds: planner.grace_seconds(),
        extra_hosts: spec.extra_hosts.iter().map(|(host, ip)| format!("{host}:{ip}")).collect(),
        dns: spec.dns.clone(),
        sysctls: spec.sysctls.clone(),
        ulimits: spec.ulimits.iter().map(|(name, u)| (name.clone(), u.soft, u.hard)).collect(),
        logging: spec.logging.clone().or_else(|| planner.ctx.default_log_grows.then(rotating_log)),
        network,
    }
}

fn rotating_log() -> (String, BTreeMap<String, String>) {
    let options = [("max-size", "10m"), ("max-file", "3")];
    ("json-file".to_owned(), options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
}

/// Where a container finds the app face.
const FACE_TARGET: &str = "/run/quaymaster";

fn mounts(planner: &Planner<'_>, old: &[&Container]) -> Vec<DesiredMount> {
    let mut mounts = planner.spec.mounts.clone();
    if planner.spec.read_only {
        mounts.extend(planner.spec.files.iter().map(|f| DesiredMount {
            target: f.target.clone(),
            source: MountSource::Bind(format!("{}/{}", planner.ctx.files_dir, FileWrite::kept_as(&f.digest, f.mode))),
            read_only: true,
        }));
    }
    if planner.spec.status_socket {
        mounts.push(DesiredMount {
            target: FACE_TARGET.to_owned(),
            source: MountSource::Bind(format!("{}/{}", planner.ctx.faces_dir, planner.desired.key.namespace)),
            read_only: true,
        });
    }
    let newest = old.iter().max_by_key(|c| (c.created_at, c.id.clone()));
    let carried = newest.iter().filter(|_| !planted(Mutant::VolumesStay));
    for (target, volume) in carried.flat_map(|c| c.anonymous_volumes.iter()) {
        if !mounts.iter().any(|m| m.target.trim_end_matches('/') == target.trim_end_matches('/')) {
            mounts.push(DesiredMount { target: target.clone(), source: MountSource::Volume(volume.clone()), read_only: false });
        }
    }
    mounts
}
