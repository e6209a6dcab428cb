//! Owns conditions and the closed list of reasons: every "why" that a status, an event or a metric may give.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What a condition speaks of. `Ready`, `Reconciling` and `Stalled` mean what kstatus says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ConditionType {
    /// This generation is applied and healthy.
    Ready,
    /// The operator is working on it, or waits for something that will come.
    Reconciling,
    /// Only a change by a person, or the passing of a budget's window, can help.
    Stalled,
    /// It may be used now.
    Usable,
    /// The world differs from the spec, and the difference is only reported.
    Drifted,
    /// An older revision runs in place of the wanted one.
    RolledBack,
    /// Its secrets are older than they should be.
    SecretsStale,
    /// A dependency is lost, and the loss is tolerated for now.
    DependencyStale,
    /// A person suspended it.
    Suspended,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    Unknown,
}

/// One condition of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it speaks of.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The generation that this was found for.
    pub observed_generation: u64,
    /// When the status last changed.
    pub last_transition_time: Timestamp,
}

/// Sets `condition` in the sorted list, keeping the transition time where the status did not change.
pub fn set_condition(conditions: &mut Vec<Condition>, mut condition: Condition) {
    match conditions.binary_search_by_key(&condition.kind, |c| c.kind) {
        Ok(at) => {
            if conditions[at].status == condition.status {
                condition.last_transition_time = conditions[at].last_transition_time;
            }
            conditions[at] = condition;
        }
        Err(at) => conditions.insert(at, condition),
    }
}

/// Why something is as it is: one closed list for conditions, availability, events and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    /// All is as wanted.
    AsWanted,
    /// All wanted replicas are healthy, or the probe succeeds.
    Healthy,
    /// Some of the wanted replicas are healthy.
    SomeReplicasHealthy,
    /// A job has succeeded for its present input, or in its last scheduled run.
    Succeeded,
    /// A job runs, or is about to.
    JobRunning,
    /// A job failed as often as it may, or in its last scheduled run.
    JobFailed,
    /// A job has no run behind it and waits for its schedule.
    Scheduled,
    /// A run of a job was left out.
    RunSkipped,
    /// Not observed yet.
    Pending,
    /// Waits for a dependency.
    WaitingForDependency,
    /// An image is being pulled.
    Pulling,
    /// Containers are being created.
    Creating,
    /// Containers start or are not healthy yet.
    Starting,
    /// Containers run and their check fails.
    Unhealthy,
    /// No container runs.
    NotRunning,
    /// A container ended.
    Exited,
    /// Containers end again and again right after their start.
    CrashLoop,
    /// The image is not there and cannot be pulled.
    ImageMissing,
    /// The registry cannot be reached.
    RegistryUnreachable,
    /// The registry wants credentials, or other ones.
    RegistryDenied,
    /// The tag points to another image by now.
    ImageOutdated,
    /// The engine refused the configuration.
    ConfigurationRefused,
    /// A host port is taken.
    PortTaken,
    /// The disk is full.
    DiskFull,
    /// The engine cannot be reached.
    EngineUnreachable,
    /// Something could not be observed.
    Unknown,
    /// A dependency is not usable.
    DependencyUnavailable,
    /// No child of it is usable.
    ChildrenUnavailable,
    /// Some of its children are not usable.
    SomeChildrenUnavailable,
    /// It has no enabled child.
    NoChildren,
    /// A dependency is being changed by us or by a person.
    DependencyChanging,
    /// A dependency is lost and the loss is tolerated for now.
    DependencyTolerated,
    /// A probe fails.
    ProbeFailed,
    /// An app says so of a part of it.
    Reported,
    /// A part of an app cannot do this operation now.
    OperationBlocked,
    /// An app that should report is silent.
    Silent,
    /// `enabled: false`.
    Disabled,
    /// `replicas: 0`.
    ScaledToZero,
    /// A dependency that it cannot do without is off, so it is not run.
    Skipped,
    /// A person suspended it.
    Suspended,
    /// A person blocked it.
    BlockedByPerson,
    /// Being replaced, updated or restarted by the operator.
    Rolling,
    /// A person asked for a restart.
    RestartRequested,
    /// Being deleted.
    Deleting,
    /// A step waits for a person's approval.
    ApprovalNeeded,
    /// Removal is held because too much of a source vanished at once.
    PruneHeld,
    /// The world was changed by somebody else.
    Drift,
    /// Somebody changes a field again and again.
    Contested,
    /// Dependencies come and go, and it would reload again and again.
    Flapping,
    /// The same step does not bring us forward.
    NoProgress,
    /// An update failed or was taken back: an older revision runs in place of the wanted one.
    RolledBack,
    /// An update failed, and no further replica is replaced.
    RolloutPaused,
    /// The namespace's name is in use by a foreign project.
    NamespaceInUse,
    /// Something foreign has the name that we need.
    NameConflict,
    /// What somebody else made is ours from now on, as it is.
    Adopted,
    /// What is to be adopted is not there, or has what no manifest can say.
    NotAdoptable,
    /// A network that is needed is not there yet.
    NetworkMissing,
    /// A network is in use and must be broken to be replaced.
    NetworkInUse,
    /// Another network has the address range that is needed.
    AddressRangeTaken,
    /// Valid, but this version does not do it yet.
    NotInEffect,
    /// The manifest is bad; the last good one stays in effect.
    Frozen,
    /// Created as wanted.
    Created,
    /// Started.
    Started,
    /// Stopped.
    Stopped,
    /// Removed.
    Removed,
    /// Replaced by a new revision.
    Replaced,
    /// Changed in place.
    Updated,
    /// Put back as wanted after somebody else changed it.
    Repaired,
    /// A step failed.
    StepFailed,
    /// The checker refused a plan.
    PlanRefused,
    /// A person did something.
    Intent,
    /// The availability changed.
    AvailabilityChanged,
    /// Somebody holds it for a change: it must not be used meanwhile.
    Changing,
    /// A change waits until nobody uses it, or changes it.
    InUse,
    /// A change of it has ended.
    Unlocked,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
