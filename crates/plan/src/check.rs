//! Judges plans by invariants that the planner does not know of: a second pair of eyes before anything is done (DESIGN 4, step 6).

use std::collections::{BTreeMap, BTreeSet};

use qm_api::name::Name;

use crate::plan::Plan;
use crate::step::{Action, ContainerRef};

/// What a plan must not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A step comes before one that it needs.
    #[error("step {step} needs step {needs}, which does not come before it")]
    Order {
        /// The step.
        step: usize,
        /// What it needs.
        needs: usize,
    },
    /// A step uses a container that no create step makes.
    #[error("step {step} uses what step {made} should have made")]
    NotMade {
        /// The step.
        step: usize,
        /// The step that makes nothing.
        made: usize,
    },
    /// A step takes something away that is not stamped as this instance's.
    #[error("step {step} would touch {id}, which is not ours")]
    Foreign {
        /// The step.
        step: usize,
        /// The thing.
        id: Name,
    },
    /// Two containers of one plan would have one name.
    #[error("step {step} would give the name {name} a second time")]
    Twice {
        /// The step.
        step: usize,
        /// The name.
        name: String,
    },
    /// A step that needs approval would be taken without one.
    #[error("step {step} needs approval and does not wait for it")]
    Unapproved {
        /// The step.
        step: usize,
    },
}

/// Judges a plan. `ours` = the ids of containers and networks stamped by this instance; `approved` = the step hashes people approved.
///
/// # Errors
/// The first invariant that the plan breaks; the plan must then not be carried out at all.
pub fn check(plan: &Plan, ours: &BTreeSet<Name>, approved: &BTreeSet<String>) -> Result<(), Refusal> {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, step) in plan.steps.iter().enumerate() {
        if let Some(needs) = step.after.iter().find(|needs| **needs >= index) {
            return Err(Refusal::Order { step: index, needs: *needs });
        }
        let (existing, made) = subject(&step.action);
        if let Some(made) = made
            && !matches!(plan.steps.get(made).map(|s| &s.action), Some(Action::CreateContainer { .. }) if step.after.contains(&made) || reaches(plan, index, made))
        {
            return Err(Refusal::NotMade { step: index, made });
        }
        if let Some(id) = existing
            && !ours.contains(id)
        {
            return Err(Refusal::Foreign { step: index, id: id.clone() });
        }
        if let Action::CreateContainer { name, .. } = &step.action
            && names.insert(name, index).is_some()
        {
            return Err(Refusal::Twice { step: index, name: name.clone() });
        }
        if step.needs_approval && step.waits.is_empty() && !approved.contains(&step.hash()) {
            return Err(Refusal::Unapproved { step: index });
        }
    }
    Ok(())
}

fn reaches(plan: &Plan, from: usize, to: usize) -> bool {
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        for before in &plan.steps[at].after {
            if *before == to {
                return true;
            }
            open.push(*before);
        }
    }
    false
}

/// The existing thing that an action changes, and the step whose product it uses.
fn subject(action: &Action) -> (Option<&Name>, Option<usize>) {
    match action {
        Action::Pull { .. }
        | Action::CreateVolume { .. }
        | Action::PlaceFiles { .. }
        | Action::CreateContainer { .. }
        | Action::CreateNetwork { .. } => (None, None),
        Action::WriteFiles { container, .. } | Action::Connect { container, .. } | Action::Start { container } => match container {
            ContainerRef::Id(id) => (Some(id), None),
            ContainerRef::Made(index) => (None, Some(*index)),
        },
        Action::Disconnect { container, .. }
        | Action::Stop { container, .. }
        | Action::Restart { container, .. }
        | Action::Signal { container, .. }
        | Action::Unpause { container }
        | Action::Rename { container, .. }
        | Action::Update { container, .. }
        | Action::RemoveContainer { container } => (Some(container), None),
        Action::RemoveNetwork { network, .. } => (Some(network), None),
    }
}
