//! Which steps need the change of their service: those after which no replica serves any more, by our own act (DESIGN 3.3). A roll that
//! keeps a healthy replica needs nothing.

use std::collections::BTreeSet;

use qm_api::name::Name;

use super::Context;
use crate::desired::DesiredContainer;
use crate::locks::Standing;
use crate::observed::{Container, Health, RunState};
use crate::own::is_healthy;
use crate::plan::Plan;
use crate::step::{Action, ContainerRef, ImageRef, Lease, Wait};

/// Marks the steps that take the last replicas down that serve; they wait while others are in the way.
pub(super) fn need_change(spec: &DesiredContainer, ctx: &Context<'_>, plan: &mut Plan) {
    let serving: BTreeSet<Name> = ctx.view.containers.iter().filter(|c| may_serve(spec, ctx, c)).map(|c| c.id.clone()).collect();
    if serving.is_empty() {
        // Nobody is served now: whatever is done takes nothing from anybody.
        return;
    }
    let takes = |index: &usize| taken_down(&plan.steps[*index].action).is_some_and(|id| serving.contains(id));
    let takers: Vec<usize> = soon(plan).into_iter().filter(takes).collect();
    let going: BTreeSet<&Name> = takers.iter().filter_map(|index| taken_down(&plan.steps[*index].action)).collect();
    if going.len() < serving.len() {
        return;
    }
    for index in &takers {
        plan.steps[*index].needs = Some(Lease::Change);
    }
    if let Standing::Taken { by } = &ctx.lock {
        // What is written for a start that waits too is written when that comes: now it would be again and again.
        let writes = (0..plan.steps.len()).filter(|index| writes_for_a_start(&plan.steps[*index].action));
        for index in takers.iter().copied().chain(writes).collect::<BTreeSet<_>>() {
            plan.steps[index].waits.push(Wait::InUse { by: by.clone() });
        }
    }
}

/// Files go into a container that is there and was not started yet.
fn writes_for_a_start(action: &Action) -> bool {
    matches!(action, Action::WriteFiles { container: ContainerRef::Id(_), .. })
}

/// The steps that wait for nothing: not for a condition, and not for an image that is still to be pulled either, which can take long.
fn soon(plan: &Plan) -> Vec<usize> {
    let mut late: BTreeSet<usize> = BTreeSet::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let needs_image = matches!(step.action, Action::CreateContainer { image: ImageRef::AfterPull, .. });
        if needs_image || !step.waits.is_empty() || step.after.iter().any(|before| late.contains(before)) {
            late.insert(index);
        }
    }
    (0..plan.steps.len()).filter(|index| !late.contains(index)).collect()
}

/// The container that serves nobody after this. One that serves is never removed without being stopped first.
fn taken_down(action: &Action) -> Option<&Name> {
    match action {
        Action::Stop { container, .. } | Action::Restart { container, .. } => Some(container),
        _ => None,
    }
}

/// It serves, or it ran before this process looked and was not asked yet: unknown is not down.
fn may_serve(spec: &DesiredContainer, ctx: &Context<'_>, container: &Container) -> bool {
    let health = ctx.view.health.get(&container.id);
    is_healthy(spec, container, health) || (container.state == RunState::Running && health == Some(&Health::Unprobed))
}
