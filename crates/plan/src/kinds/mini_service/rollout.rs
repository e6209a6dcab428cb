//! How the rollout of a revision stands: complete, under way, or failed (DESIGN 3.4, "Revisions").

use qm_api::spec::container::{Follow, OnFailure};
use qm_api::time::Timestamp;

use super::Planner;
use super::slot::{Slot, healthy, settles_after};
use super::target::Target;
use crate::desired::Rollout;
use crate::observed::{Container, Health, Image, RunState};
use crate::plan::{Progress, ProgressState};
use crate::step::Wait;

/// How it stands; `None` while nobody knows which revision is wanted, and while an older one runs in its place for the same reason as ever.
pub(super) fn progress(planner: &Planner<'_>, target: &Target, slots: &[Slot<'_>]) -> Option<Progress> {
    if target.pull.is_some() {
        return None;
    }
    let number = target.number;
    if let Rollout::RolledBack { image_id, failed_image, .. } = &planner.desired.rollout {
        let has_moved = match &planner.ctx.view.image {
            Some(Image::Present { id, .. }) => planner.spec.follow == Follow::Tag && id != image_id && id != failed_image,
            _ => false,
        };
        return has_moved.then_some(Progress { number, state: ProgressState::InputChanged });
    }
    // Only a revision that was never complete can fail: what happens to a proven one is no fault of the update.
    let is_on_trial = planner.desired.rollout == Rollout::Wanted
        && planner.spec.on_failure != OnFailure::Continue
        && !planner.ctx.proven.contains(&number);
    if is_on_trial && let Some(evidence) = failure(planner, slots) {
        return Some(Progress { number, state: ProgressState::Failed(evidence) });
    }
    let unsettled = |container: &Container| settles_after(planner, container, planner.spec.monitor_ms);
    let is_done = |slot: &Slot<'_>| slot.outdated.is_empty() && slot.keep.is_some_and(|k| healthy(planner, k) && unsettled(k).is_none());
    if slots.iter().all(is_done) {
        return Some(Progress { number, state: ProgressState::Complete });
    }
    let kept = || slots.iter().filter_map(|slot| slot.keep);
    let deadlines = kept().filter(|_| is_on_trial).filter_map(|k| deadline(planner, k));
    let next = kept().filter_map(unsettled).chain(deadlines).filter(|at| *at > planner.ctx.now).min();
    Some(Progress { number, state: ProgressState::Underway(next) })
}

/// Until when a container that was started must be healthy; `None` when it is, or was not started.
fn deadline(planner: &Planner<'_>, container: &Container) -> Option<Timestamp> {
    let waits = container.state == RunState::Running && !healthy(planner, container);
    let started = container.started_at.filter(|at| waits && *at <= planner.ctx.now)?;
    Some(started.plus_millis(planner.spec.update_timeout_ms as i64))
}

/// What shows that the wanted revision does not work.
fn failure(planner: &Planner<'_>, slots: &[Slot<'_>]) -> Option<String> {
    if let Some(Wait::Budget { evidence, .. }) = &planner.ctx.brake {
        return Some(evidence.clone());
    }
    slots.iter().filter_map(|slot| slot.keep).find_map(|container| {
        if let Some(Health::Unhealthy { message, healthy_at: Some(_) }) = planner.ctx.view.health.get(&container.id) {
            return Some(format!("{} was healthy and is not any more: {message}", container.name));
        }
        deadline(planner, container).filter(|at| *at <= planner.ctx.now).map(|_| {
            let seconds = planner.spec.update_timeout_ms / 1_000;
            format!("{} is not healthy {seconds} s after its start", container.name)
        })
    })
}
