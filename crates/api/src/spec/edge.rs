//! Owns dependency edges as the user writes them (DESIGN 3.2).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantity::{Duration, Tolerate};

/// One dependency of a service. Exactly one of `service` and `kind` with `name` says on what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// The mini service that this one depends on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Another kind of node to depend on, together with `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The name of the node of that `kind`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The namespace of the dependency. Default: the namespace of the dependent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What gates the start. `Wait`: not before the dependency is usable. `Try`: wait until it is usable, known bad, or `startTimeout`
    /// has passed. `Skip`: do not look. Default: `Wait` for onDown Block and Stop, `Try` for Degrade, `Skip` for Ignore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// How long `start: Try` waits. Default 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<Duration>,
    /// What the loss of the dependency does to this service. `Ignore`: nothing. `Degrade`: it is PartiallyAvailable. `Block`: it is
    /// TemporarilyUnavailable. `Stop`: that, and its containers are stopped until the dependency returns. Default Block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_down: Option<OnDown>,
    /// How long a loss is tolerated before `onDown` applies: a duration, or `Lease`. Default 0s (Stop: 30s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerate: Option<Tolerate>,
    /// What to do with this service when a lost dependency has returned. Default Ignore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_up: Option<Reload>,
    /// What to do with this service when a new revision of the dependency has been rolled out. Default Ignore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_change: Option<Reload>,
    /// Where a `Rebuild` begins. Default Start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// How long the dependency must have stayed usable before a reload starts. Default 2s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debounce: Option<Duration>,
    /// What to do where the engine cannot do the reload asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// What gates the start of a dependent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Start {
    /// Not before the dependency is usable.
    Wait,
    /// Wait until it is usable, known bad, or the time-out has passed.
    Try,
    /// Do not look at the dependency.
    Skip,
}

/// What the loss of a dependency does to its dependent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum OnDown {
    /// Nothing.
    Ignore,
    /// The dependent is PartiallyAvailable (3).
    Degrade,
    /// The dependent is TemporarilyUnavailable (4).
    Block,
    /// As Block, and the dependent's containers are stopped until the dependency returns.
    Stop,
}

/// What to do with a dependent when its dependency returned or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Reload {
    /// Nothing.
    Ignore,
    /// Send `reloadSignal`.
    Signal,
    /// Stop and start the same containers.
    Restart,
    /// Build anew from `stage` on.
    Rebuild,
}

/// Where a rebuild begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Stage {
    /// Fetch secrets, project them, signal.
    Credentials,
    /// That, then restart.
    Start,
    /// That, then replace the containers.
    Create,
}

/// What to do where an engine cannot do a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Fallback {
    /// Restart instead.
    Restart,
}
