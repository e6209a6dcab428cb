//! Network: a Docker network and its zone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes::Code;
use crate::conditions::Condition;
use crate::field::{FieldPath, Problem};
use crate::spec::names::{self, Cidr};
use crate::spec::quantity::Scalar;
use crate::spec::rules::Rules;

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

/// The kind's name.
pub const KIND: &str = "Network";

/// What is wrong with a spec beyond its schema, as far as it can be told from the spec alone.
pub fn validate(spec: &NetworkSpec, at: &FieldPath) -> Vec<Problem> {
    let mut rules = Rules::default();
    if let Some(zone) = &spec.zone {
        if let Some(problem) = names::label_error(zone) {
            rules.error(Code::BadName, &at.key("zone"), format!("a zone cannot be called `{zone}`"), problem);
        }
        rules.not_in_effect(&at.key("zone"), "`zone`");
    }
    let subnet = spec.subnet.as_deref().map(Cidr::parse);
    if let Some(Err(problem)) = &subnet {
        rules.error(Code::BadAddress, &at.key("subnet"), "the subnet cannot be used", problem.as_str());
    }
    if let Some(gateway) = &spec.gateway {
        let path = at.key("gateway");
        match (gateway.parse::<Ipv4Addr>(), &subnet) {
            (Err(_), _) => rules.error(Code::BadAddress, &path, format!("`{gateway}` is no IPv4 address"), "write it as 172.30.0.1"),
            (Ok(_), None) => rules.error(Code::BadCombination, &path, "a gateway needs a subnet", "give `subnet`, or remove `gateway`"),
            (Ok(address), Some(Ok(range))) if !range.contains(address) || address == range.first || address == range.last() => {
                rules.error(
                    Code::BadAddress,
                    &path,
                    format!("{address} is no address for a container of the subnet"),
                    format!("choose one from {} to {}, without these two", range.first, range.last()),
                );
            }
            _ => {}
        }
    }
    if let Some(driver) = &spec.driver
        && driver.is_empty()
    {
        rules.error(Code::BadFormat, &at.key("driver"), "the driver has no name", "write bridge, or remove it");
    }
    if spec.encrypted == Some(true) {
        rules.not_in_effect(&at.key("encrypted"), "`encrypted`");
    }
    rules.engine_labels(&at.key("labels"), &spec.labels);
    rules.problems
}
