//! The leaf table against the schema, and the golden spec-hashes: a new version must plan nothing on what the last one made.

use std::collections::BTreeMap;

use qm_api::meta::{Object, ObjectKey};
use qm_api::registry;
use qm_api::time::Timestamp;
use qm_plan::desired::{DesiredService, Files};
use qm_plan::leaf::{Effect, LEAVES, replace_values, spec_hash};
use serde_json::{Value, json};

fn container(spec: Value) -> DesiredService {
    let object = Object::new(ObjectKey::new("MiniService", "n", "app"), "u", Timestamp::default(), json!({ "container": spec }));
    DesiredService::from_object(&object, &Files::new()).unwrap()
}

fn hash(spec: Value) -> String {
    spec_hash(container(spec).container().unwrap(), "sha256:0")
}

#[test]
fn every_leaf_of_the_schema_stands_in_the_table() {
    let shape = registry::shape("MiniService").unwrap();
    let wanted: Vec<String> =
        shape.leaves().into_iter().filter_map(|leaf| leaf.strip_prefix("container.").map(ToOwned::to_owned)).collect();
    assert!(wanted.len() > 50, "the schema was not read");
    let table: BTreeMap<&str, Effect> = LEAVES.iter().copied().collect();
    assert_eq!(table.len(), LEAVES.len(), "no leaf stands twice");
    for leaf in &wanted {
        assert!(table.contains_key(leaf.as_str()), "`{leaf}` is not in qm_plan::leaf::LEAVES: say what a change of it costs");
    }
    for leaf in table.keys() {
        assert!(wanted.iter().any(|w| w == leaf), "`{leaf}` is in the table and not in the schema");
    }
    assert!(LEAVES.is_sorted_by_key(|(leaf, _)| *leaf));
}

/// A value for each leaf that differs from its default; the base has what the leaf needs around it.
fn variants() -> Vec<(&'static str, Value)> {
    vec![
        ("bootOrder", json!({"bootOrder": "Strict"})),
        ("capAdd[]", json!({"capAdd": ["NET_ADMIN"]})),
        ("capDrop[]", json!({"capDrop": ["ALL"]})),
        ("command[]", json!({"command": ["x"]})),
        ("configs[].content", json!({"configs": [{"name": "c", "target": "/c", "content": "x"}]})),
        ("dns[]", json!({"dns": ["1.1.1.1"]})),
        ("entrypoint[]", json!({"entrypoint": []})),
        ("env{}", json!({"env": {"A": "1"}})),
        ("extraHosts{}", json!({"extraHosts": {"h": "1.2.3.4"}})),
        ("follow", json!({"follow": "Tag"})),
        ("health.tcp.port", json!({"health": {"tcp": {"port": 1}}})),
        ("init", json!({"init": true})),
        ("labels{}", json!({"labels": {"a": "b"}})),
        ("logging.driver", json!({"logging": {"driver": "local"}})),
        ("networkOptions{}.aliases[]", json!({"networkOptions": {"data": {"aliases": ["x"]}}})),
        ("networks[]", json!({"networks": ["edge"]})),
        ("ports[].target", json!({"ports": [{"target": 80}]})),
        ("pullPolicy", json!({"pullPolicy": "Always"})),
        ("readOnly", json!({"readOnly": true})),
        ("reloadSignal", json!({"reloadSignal": "SIGUSR1"})),
        ("replicas", json!({"replicas": 3})),
        ("resources.cpus", json!({"resources": {"cpus": 0.5}})),
        ("resources.memory", json!({"resources": {"memory": "64Mi"}})),
        ("resources.pids", json!({"resources": {"pids": 9}})),
        ("restart", json!({"restart": "Never"})),
        ("startBudget.tries", json!({"startBudget": {"tries": 9}})),
        ("stopGracePeriod", json!({"stopGracePeriod": "1s"})),
        ("stopSignal", json!({"stopSignal": "SIGINT"})),
        ("sysctls{}", json!({"sysctls": {"net.core.somaxconn": 1}})),
        ("ulimits{}.hard", json!({"ulimits": {"nofile": {"soft": 1, "hard": 2}}})),
        ("update.order", json!({"update": {"order": "StartFirst"}})),
        ("user", json!({"user": 1000})),
        ("volumes[].name", json!({"volumes": [{"name": "d", "target": "/d"}]})),
        ("workingDir", json!({"workingDir": "/x"})),
    ]
}

#[test]
fn the_hash_changes_exactly_with_what_needs_a_new_container() {
    let table: BTreeMap<&str, Effect> = LEAVES.iter().copied().collect();
    let base = hash(json!({"image": "a"}));
    for (leaf, change) in variants() {
        let mut spec = json!({"image": "a"});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(hash(spec) != base, table[leaf] == Effect::Replace, "{leaf} is {:?}", table[leaf]);
    }
    // Another name of the same image is no other image, and the other way round.
    assert_eq!(hash(json!({"image": "b"})), base);
    assert_ne!(spec_hash(container(json!({"image": "a"})).container().unwrap(), "sha256:1"), base);
    // What is written out as its default is the same as what is left out.
    let defaults = json!({"image": "a", "init": false, "readOnly": false, "env": {}, "replicas": 1, "ports": [], "restart": "Always"});
    assert_eq!(hash(defaults), base);
    // The order of what has no order does not matter.
    let ports = |a: u16, b: u16| json!({"image": "a", "ports": [{"target": a}, {"target": b}]});
    assert_eq!(hash(ports(1, 2)), hash(ports(2, 1)));
}

#[test]
fn the_hashes_of_release_0_1_hold() {
    assert_eq!(
        json!(replace_values(container(json!({"image": "a"})).container().unwrap(), "sha256:0")).to_string(),
        r#"{"image":"sha256:0"}"#
    );
    let all = json!({
        "image": "a", "entrypoint": ["e"], "command": ["c"], "env": {"A": "1"}, "user": "1", "workingDir": "/w", "capAdd": ["B", "A"],
        "capDrop": ["C"], "readOnly": true, "init": true, "stopSignal": "SIGINT", "extraHosts": {"h": "1.1.1.1"}, "dns": ["1.1.1.1"],
        "sysctls": {"s": 1}, "ulimits": {"nofile": {"soft": 1, "hard": 2}}, "labels": {"l": "v"}, "logging": {"driver": "local"},
        "ports": [{"target": 80, "published": 8080, "host": "127.0.0.1", "protocol": "udp"}],
        "volumes": [{"name": "d", "target": "/d"}, {"bind": "/b", "target": "/b", "readOnly": true}, {"tmpfs": {"size": "1Mi", "mode": "1777"}, "target": "/t"}],
        "configs": [{"name": "c", "target": "/c", "content": "x", "mode": "0400"}],
    });
    insta::assert_snapshot!("golden_0_1", format!("{}\n{}", hash(json!({"image": "a"})), hash(all)));
}
