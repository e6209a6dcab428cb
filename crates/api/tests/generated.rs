//! Generated files are up to date, codes have their pages, and the example of every field is complete.
#![expect(clippy::disallowed_methods, reason = "the test compares files of the repository")]

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;

use qm_api::codes::Code;
use qm_api::registry;
use qm_api::schema::{RENEW, Shape, generated};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is")).join("../..")
}

#[test]
fn generated_files_are_up_to_date() {
    let files = generated();
    for (path, text) in &files {
        let found = std::fs::read_to_string(root().join(path)).unwrap_or_default();
        assert!(found == *text, "{path} is stale: run `{RENEW}`");
    }
    for folder in ["schemas", "schemas/crds"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            assert!(entry.path().is_dir() || files.contains_key(&path), "{path} is left over: remove it");
        }
    }
}

#[test]
fn every_code_has_a_page_and_no_page_is_left_over() {
    let pages: BTreeSet<String> = std::fs::read_dir(root().join("docs/errors"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let expected: BTreeSet<String> = Code::all().map(|code| format!("{code}.md")).chain(["README.md".to_owned()]).collect();
    assert_eq!(pages, expected);
}

#[test]
fn editors_and_crds_get_what_they_need() {
    for (path, text) in generated() {
        if path.ends_with(".json") {
            let schema: Value = serde_json::from_str(&text).unwrap();
            assert!(!text.contains("\"null\"") && !text.contains("$ref"), "{path}");
            check_strict(&schema, &path);
        }
        if path.ends_with(".yaml") {
            let file = qm_api::manifest::parse_file(&"crd.yaml".into(), text.as_bytes(), &qm_api::manifest::Limits::default());
            assert_eq!((file.skipped, file.violations.len()), (1, 0), "{path}");
            assert!(!text.contains("quaymaster-scalar"), "{path} is not structural");
        }
    }
}

fn check_strict(schema: &Value, path: &str) {
    match schema {
        Value::Object(map) => {
            if map.get("type").is_some_and(|t| t == "object") && map.contains_key("properties") {
                assert_eq!(map.get("additionalProperties"), Some(&Value::Bool(false)), "{path}: {map:?}");
            }
            map.values().for_each(|below| check_strict(below, path));
        }
        Value::Array(items) => items.iter().for_each(|below| check_strict(below, path)),
        _ => {}
    }
}

#[test]
fn the_example_of_every_field_has_every_field() {
    let text = include_str!("every-field.yaml");
    let admission = common::admit_with(&[("every-field.yaml", text)], &attachments(), &Default::default());
    let errors: BTreeSet<Code> =
        admission.violations.iter().filter(|v| v.severity == qm_api::field::Severity::Error).map(|v| v.code).collect();
    // What is not built yet, and what a job's container has in its schema and must not have.
    let expected = BTreeSet::from([Code::NotSupported, Code::BadCombination]);
    assert_eq!(errors, expected, "{}", common::render_all(&admission, &[("every-field.yaml", text)]));
    let mut used: BTreeSet<String> = BTreeSet::new();
    let stream = qm_api::manifest::yaml::parse(text, &qm_api::manifest::Limits::default());
    for document in &stream.documents {
        let kind = document.get("kind").unwrap().text().unwrap();
        collect(
            kind,
            registry::shape(kind).unwrap(),
            &qm_api::manifest::walk::to_json(document.get("spec").unwrap()).unwrap(),
            "",
            &mut used,
        );
    }
    let wanted: BTreeSet<String> = registry::user_kinds()
        .flat_map(|kind| registry::shape(kind.kind).unwrap().leaves().into_iter().map(move |leaf| format!("{}:{leaf}", kind.kind)))
        // What a template has, a mini service has.
        .filter(|leaf| !leaf.starts_with("MiniContainer:template.spec."))
        .collect();
    let missing: Vec<&String> = wanted.difference(&used).collect();
    assert!(missing.is_empty(), "every-field.yaml lacks {missing:#?}");
}

fn attachments() -> std::collections::BTreeMap<(qm_api::name::Name, qm_api::name::Name), qm_api::admit::Attached> {
    ["every.env", "every.conf"]
        .into_iter()
        .map(|path| (("s".into(), path.into()), qm_api::admit::Attached::File { digest: [0; 32], bytes: b"A=1\n"[..].into() }))
        .collect()
}

fn collect(kind: &str, shape: &Shape, value: &Value, path: &str, used: &mut BTreeSet<String>) {
    match (shape, value) {
        (Shape::Object(fields), Value::Object(map)) if !fields.is_empty() => {
            for (name, field) in fields {
                if let Some(value) = map.get(&**name) {
                    let below = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                    collect(kind, &field.shape, value, &below, used);
                }
            }
        }
        (Shape::Map(shape), Value::Object(map)) => map.values().for_each(|value| collect(kind, shape, value, &format!("{path}{{}}"), used)),
        (Shape::List(shape), Value::Array(items)) => items.iter().for_each(|value| collect(kind, shape, value, &format!("{path}[]"), used)),
        _ => drop(used.insert(format!("{kind}:{path}"))),
    }
}
