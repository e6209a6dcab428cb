//! The planner of orphans: things stamped as ours that nothing we remember wants. They are listed, and removed only when approved.

use std::collections::BTreeSet;
use std::sync::Arc;

use qm_api::conditions::Reason;
use qm_api::mutant::{Mutant, planted};

use crate::observed::{Container, Network, RunState};
use crate::plan::{Finding, Plan};
use crate::step::{Action, Cause, Step, Wait};

/// Plans the removal of orphans; each step waits until its hash is in `approvals`.
pub fn plan_orphans(containers: &[Arc<Container>], networks: &[Arc<Network>], approvals: &BTreeSet<String>) -> Plan {
    let mut plan = Plan::default();
    for container in containers {
        let Some(stamp) = &container.stamp else { continue };
        let step = |action, after: Vec<usize>| Step {
            action,
            object: stamp.owner.clone(),
            slot: stamp.slot,
            cause: Cause::Orphan,
            waits: Vec::new(),
            after,
            needs_approval: !planted(Mutant::OrphansGo),
            needs: None,
        };
        // One approval frees the whole chain of one container: the removal is what is approved.
        let remove = step(Action::RemoveContainer { container: container.id.clone() }, Vec::new());
        let approved = approvals.contains(&remove.hash()) || planted(Mutant::OrphansGo);
        let waits = if approved { Vec::new() } else { vec![Wait::Approval] };
        let mut after = Vec::new();
        if matches!(container.state, RunState::Running | RunState::Restarting | RunState::Paused) {
            let mut stop = step(Action::Stop { container: container.id.clone(), grace_seconds: 10 }, Vec::new());
            stop.needs_approval = false;
            stop.waits = waits.clone();
            after.push(plan.push(stop));
        }
        plan.push(Step { waits, after, ..remove });
        plan.findings.push(Finding {
            object: stamp.owner.clone(),
            reason: Reason::ApprovalNeeded,
            message: format!("container {} is stamped as ours and nothing wants it", container.name),
            stalls: false,
        });
    }
    for network in networks {
        let Some(stamp) = &network.stamp else { continue };
        let mut step = Step {
            action: Action::RemoveNetwork { network: network.id.clone(), name: network.name.clone() },
            object: stamp.owner.clone(),
            slot: 0,
            cause: Cause::Orphan,
            waits: Vec::new(),
            after: Vec::new(),
            needs_approval: true,
            needs: None,
        };
        if !approvals.contains(&step.hash()) {
            step.waits.push(Wait::Approval);
        }
        plan.push(step);
    }
    plan
}
