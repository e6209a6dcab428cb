//! Network: a Docker network and its zone.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::spec::quantity::Scalar;

/// A Docker network of a namespace. Its engine name is `<namespace>_<name>`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "quaymaster.dev",
    version = "v1alpha1",
    kind = "Network",
    plural = "networks",
    singular = "network",
    shortname = "qnet",
    category = "quaymaster",
    namespaced,
    status = "NetworkStatus",
    doc = "A Docker network and its zone."
)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSpec {
    /// The zone that its members are in, e.g. `dmz`, `data`, `monitoring` (not judged yet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The engine's network driver. Default bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The driver's options.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_options: BTreeMap<String, Scalar>,
    /// The address range in CIDR form, e.g. `172.30.0.0/24`. Default: the engine picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// The gateway's address within `subnet`. Default: the engine picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// No way out of the host. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal: Option<bool>,
    /// Encrypt traffic between hosts (overlay networks only; not in effect on a single host). Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Let containers that are not ours join by hand. Always so for bridge networks; matters for overlay networks. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachable: Option<bool>,
    /// Labels of the network. `quaymaster.dev/` and `com.docker.compose.` are reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Scalar>,
}

/// What is reported of a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    /// The generation that this status speaks of.
    pub observed_generation: u64,
    /// The engine's id of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_id: Option<String>,
    /// The engine's name of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_name: Option<String>,
    /// The revision of the network, from 1.
    #[serde(default)]
    pub revision: u64,
    /// The conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
