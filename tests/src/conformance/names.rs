//! By what a container or a network can be called.

use serde_json::json;

use super::Case;
use super::subject::Subject;

pub(super) const CASES: &[Case] = &[("id-prefix", id_prefix), ("id-ambiguous", id_ambiguous), ("name-before-id", name_before_id)];

fn id_prefix(s: &Subject) {
    let id = s.create("a", json!({}));
    let name = s.name("a");
    for reference in [&id[..], &id[..12], &id[..20], &name] {
        assert_eq!(s.inspect(reference)["Id"], json!(id), "{reference}");
    }
    // A part of a name is no name.
    let part = &name[..name.len() - 1];
    s.get(&format!("/containers/{part}/json")).refused(404, &format!("No such container: {part}"));
}

/// Seventeen ids cannot all begin differently.
fn id_ambiguous(s: &Subject) {
    let ids: Vec<String> = (0..17).map(|i| s.create(&format!("c{i}"), json!({}))).collect();
    let doubled = ids.iter().enumerate().find_map(|(at, id)| ids[..at].iter().find(|other| other[..1] == id[..1]).map(|_| &id[..1]));
    let prefix = doubled.expect("two of seventeen ids begin alike");
    let message = format!("Multiple IDs found with provided prefix: {prefix}");
    s.get(&format!("/containers/{prefix}/json")).refused(500, &message);
    s.act(prefix, "start").refused(500, &message);
}

fn name_before_id(s: &Subject) {
    let id = s.create("a", json!({}));
    // Twelve hexadecimal digits are a name as well.
    let made = s.send(&format!("/containers/create?name={}", &id[..12]), &s.body(json!({}))).ok(201);
    let other = made["Id"].as_str().unwrap_or_default().to_owned();
    let found = s.get(&format!("/containers/{}/json", &id[..12])).ok(200);
    s.delete(&format!("/containers/{other}")).empty(204);
    assert_eq!(found["Id"], json!(other));
}
