//! Owns the table of every leaf of `spec.container`: what a change of it costs, and the spec-hash made from the ones that cost a
//! replacement.
//!
//! A test holds the table against the JSON Schema: a new field does not compile its way past it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::desired::{DesiredContainer, EngineResources};

/// What a change of a leaf costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The engine can change it on a running container.
    InPlace,
    /// Only a new container can have it; part of the spec-hash.
    Replace,
    /// The engine never learns of it: it steers what we do.
    Ours,
}

/// Every leaf of `spec.container`, by its path in the JSON Schema (`[]` = any element, `{}` = any key), sorted.
pub const LEAVES: &[(&str, Effect)] = &[
    ("bootOrder", Effect::InPlace),
    ("capAdd[]", Effect::Replace),
    ("capDrop[]", Effect::Replace),
    ("command[]", Effect::Replace),
    ("configs[].content", Effect::Replace),
    ("configs[].file", Effect::Replace),
    ("configs[].mode", Effect::Replace),
    ("configs[].name", Effect::Ours),
    ("configs[].target", Effect::Replace),
    ("dns[]", Effect::Replace),
    ("entrypoint[]", Effect::Replace),
    ("envFile[]", Effect::Replace),
    ("env{}", Effect::Replace),
    ("extraHosts{}", Effect::Replace),
    ("follow", Effect::Ours),
    ("health.command[]", Effect::Ours),
    ("health.grpc.port", Effect::Ours),
    ("health.grpc.service", Effect::Ours),
    ("health.http.headers{}", Effect::Ours),
    ("health.http.path", Effect::Ours),
    ("health.http.port", Effect::Ours),
    ("health.http.scheme", Effect::Ours),
    ("health.http.status", Effect::Ours),
    ("health.image", Effect::Ours),
    ("health.interval", Effect::Ours),
    ("health.retries", Effect::Ours),
    ("health.startPeriod", Effect::Ours),
    ("health.tcp.port", Effect::Ours),
    ("health.timeout", Effect::Ours),
    ("image", Effect::Replace),
    ("init", Effect::Replace),
    ("labels{}", Effect::Replace),
    ("logging.driver", Effect::Replace),
    ("logging.options{}", Effect::Replace),
    ("networkOptions{}.aliases[]", Effect::InPlace),
    ("networkOptions{}.ipv4", Effect::InPlace),
    ("networks[]", Effect::InPlace),
    ("ports[].host", Effect::Replace),
    ("ports[].protocol", Effect::Replace),
    ("ports[].published", Effect::Replace),
    ("ports[].target", Effect::Replace),
    ("pullPolicy", Effect::Ours),
    ("readOnly", Effect::Replace),
    ("reloadSignal", Effect::Ours),
    ("replicas", Effect::InPlace),
    ("resources.cpus", Effect::InPlace),
    ("resources.memory", Effect::InPlace),
    ("resources.pids", Effect::InPlace),
    ("resources.reservations.cpus", Effect::InPlace),
    ("resources.reservations.memory", Effect::InPlace),
    ("restart", Effect::InPlace),
    ("secrets[].name", Effect::Ours),
    ("secrets[].target", Effect::Ours),
    ("startBudget.tries", Effect::Ours),
    ("startBudget.window", Effect::Ours),
    ("statusSocket", Effect::Replace),
    ("stopGracePeriod", Effect::Ours),
    ("stopSignal", Effect::Replace),
    ("sysctls{}", Effect::Replace),
    ("ulimits{}.hard", Effect::Replace),
    ("ulimits{}.soft", Effect::Replace),
    ("update.delay", Effect::Ours),
    ("update.monitor", Effect::Ours),
    ("update.onFailure", Effect::Ours),
    ("update.order", Effect::Ours),
    ("update.parallelism", Effect::Ours),
    ("update.timeout", Effect::Ours),
    ("user", Effect::Replace),
    ("volumes[].bind", Effect::Replace),
    ("volumes[].name", Effect::Replace),
    ("volumes[].readOnly", Effect::Replace),
    ("volumes[].shared", Effect::Ours),
    ("volumes[].target", Effect::Replace),
    ("volumes[].tmpfs.mode", Effect::Replace),
    ("volumes[].tmpfs.size", Effect::Replace),
    ("workingDir", Effect::Replace),
];

/// The values that only a new container can have, by top-level field, absent and default ones left out. `image_id` stands for the
/// image: a moved tag is another image, another name of the same image is not.
pub fn replace_values(container: &DesiredContainer, image_id: &str) -> BTreeMap<&'static str, Value> {
    let mut values = BTreeMap::new();
    let mut put = |leaf: &'static str, value: Value| {
        let default = match &value {
            Value::Null => true,
            Value::Bool(b) => !b,
            Value::Array(a) => a.is_empty(),
            Value::Object(o) => o.is_empty(),
            Value::String(_) | Value::Number(_) => false,
        };
        if !default {
            values.insert(leaf, value);
        }
    };
    put("capAdd", json!(container.cap_add));
    put("capDrop", json!(container.cap_drop));
    // An empty list is not the same as an absent one: it clears what the image says.
    put("command", container.command.as_ref().map_or(Value::Null, |c| json!({ "list": c })));
    put("configs", container.files.iter().map(|f| json!([f.target, f.mode, f.digest])).collect());
    put("dns", json!(container.dns));
    put("entrypoint", container.entrypoint.as_ref().map_or(Value::Null, |c| json!({ "list": c })));
    put("env", json!(container.env));
    put("extraHosts", json!(container.extra_hosts));
    put("image", json!(image_id));
    put("init", json!(container.init));
    put("labels", json!(container.labels));
    put("logging", container.logging.as_ref().map_or(Value::Null, |l| json!(l)));
    let mut ports = container.ports.clone();
    ports.sort();
    put("ports", json!(ports));
    put("readOnly", json!(container.read_only));
    put("statusSocket", json!(container.status_socket));
    put("stopSignal", json!(container.stop_signal));
    put("sysctls", json!(container.sysctls));
    put("ulimits", json!(container.ulimits));
    put("user", json!(container.user));
    let mut mounts = container.mounts.clone();
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    put("volumes", json!(mounts));
    put("workingDir", json!(container.working_dir));
    values
}

/// The spec-hash: SHA-256, in hex, of the canonical JSON of [`replace_values`]. Golden values of every release are tests.
pub fn spec_hash(container: &DesiredContainer, image_id: &str) -> String {
    hex_digest(json!(replace_values(container, image_id)).to_string().as_bytes())
}

/// SHA-256 in hex.
pub fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}

/// The resources of a container in the engine's units.
pub fn engine_resources(container: &DesiredContainer) -> EngineResources {
    EngineResources::from(&container.resources)
}
