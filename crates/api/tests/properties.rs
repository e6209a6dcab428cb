//! What holds for any input.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::service;
use proptest::prelude::*;
use qm_api::admit::{Admission, FileInput, Known, LastGood, Set, admit_object, admit_set};
use qm_api::field::Severity;
use qm_api::manifest::{Limits, parse_file, references};
use qm_api::name::Name;
use serde_json::{Value, json};

fn admit(files: &[FileInput]) -> Admission {
    admit_set(&Set { files, attachments: &BTreeMap::new(), existing: &Known::default(), unreadable: &[] }, &LastGood::new())
}

fn file(path: &str, text: &[u8]) -> FileInput {
    FileInput { source: "s".into(), parsed: Arc::new(parse_file(&Name::from(path), text, &Limits::default())) }
}

/// Pieces that YAML and our schema care about.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "apiVersion: quaymaster.dev/v1alpha1\n",
        "kind: MiniService\n",
        "kind: Network\n",
        "kind: List\n",
        "items:\n",
        "metadata:",
        "spec:",
        "container:",
        "\n  ",
        "\n    ",
        "name: a",
        "namespace: n",
        "{",
        "}",
        "[",
        "]",
        ", ",
        ": ",
        "- ",
        "&a ",
        "*a",
        "<<: ",
        "!x ",
        "\"",
        "'",
        "|",
        ">",
        "#",
        "---\n",
        "...\n",
        "\t",
        "\r\n",
        "\u{feff}",
        "é",
        "dependsOn: [{service: b}]",
        "subnet: 10.0.0.0/8",
        "image: x",
        "null",
        "~",
        "1.5",
        "0x",
        "%YAML 1.2\n",
        "? ",
        "\u{85}",
        "\u{2028}",
    ];
    prop_oneof![4 => prop::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,6}"]
}

/// Any JSON value, with keys that the schema knows among them.
fn any_json() -> impl Strategy<Value = Value> {
    let keys = prop::sample::select(vec![
        "container",
        "image",
        "env",
        "replicas",
        "health",
        "tcp",
        "port",
        "dependsOn",
        "service",
        "volumes",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~é]{0,8}".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keys.clone(), inner, 0..5)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Value>()),
        ]
    })
}

fn small_service() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c", "d"]);
    let namespace = prop::sample::select(vec!["n", "m"]);
    let extra = prop::sample::select(vec![
        "",
        "    replica: 1\n",
        "  dependsOn: [{service: a}]\n",
        "  dependsOn: [{service: b}, {service: c, namespace: m}]\n",
        "    ports: [{target: 1, published: 80}]\n",
        "    volumes: [{name: v, target: /v}]\n",
        "    networks: [x]\n",
        "    env: {A: [\n",
    ]);
    (namespace, name, extra).prop_map(|(namespace, name, extra)| service(namespace, name, extra))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        admit(&[file("m.yaml", &bytes)]);
        references(&"m.yaml".into(), &bytes);
    }

    #[test]
    fn any_text_is_answered_with_places_inside_it(pieces in prop::collection::vec(piece(), 0..40)) {
        let text = pieces.concat();
        references(&"m.yaml".into(), text.as_bytes());
        for violation in admit(&[file("m.yaml", text.as_bytes())]).violations {
            let place = violation.place.expect("a violation of a file has a place");
            prop_assert!(place.start <= place.end && text.get(place.start..place.end).is_some(), "{place:?} {text:?}");
            prop_assert!(!violation.message.is_empty());
        }
    }

    #[test]
    fn a_damaged_manifest_is_answered_with_places_inside_it(from in 0..6_000_usize, length in 0..60_usize, piece in piece(), keep in any::<bool>()) {
        let whole = include_str!("every-field.yaml");
        let floor = |at: usize| (0..=at.min(whole.len())).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
        let (start, end) = (floor(from), floor(from + length));
        let text = [&whole[..start], &piece, if keep { &whole[start..] } else { &whole[end..] }].concat();
        let admission = admit(&[file("m.yaml", text.as_bytes())]);
        prop_assert!(admission.objects.iter().all(|object| !admission.frozen.contains_key(&object.key.namespace)));
        for violation in admission.violations {
            let place = violation.place.expect("a violation of a file has a place");
            prop_assert!(text.get(place.start..place.end).is_some(), "{place:?}");
        }
    }

    #[test]
    fn json_and_yaml_are_admitted_equally(spec in any_json()) {
        let value = json!({"apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniService", "metadata": {"name": "a", "namespace": "n"}, "spec": spec});
        let from_api = admit_object(&value, &Known::default());
        let text = serde_json::to_string_pretty(&value).unwrap();
        let from_file = admit(&[file("m.json", text.as_bytes())]);
        let errors = |violations: &[qm_api::field::Violation]| {
            let mut list: Vec<_> = violations.iter().filter(|v| v.severity == Severity::Error).map(|v| (v.code, v.path.clone(), v.message.clone())).collect();
            list.sort();
            list
        };
        match from_api {
            Ok(candidate) => {
                prop_assert_eq!(from_file.objects.len(), 1, "{:?}", from_file.violations);
                prop_assert_eq!(&candidate.spec, &from_file.objects[0].spec);
            }
            Err(violations) => prop_assert_eq!(errors(&violations), errors(&from_file.violations)),
        }
    }

    #[test]
    fn the_order_of_files_changes_nothing(texts in prop::collection::vec(small_service(), 1..8), seed in any::<u64>()) {
        let files: Vec<FileInput> = texts.iter().enumerate().map(|(i, text)| file(&format!("{i}.yaml"), text.as_bytes())).collect();
        let mut shuffled = files.clone();
        shuffled.sort_by_key(|input| (input.parsed.path.len() as u64 ^ seed.wrapping_mul(u64::from(input.parsed.path.as_bytes()[0]) + 7)) >> 3);
        prop_assert_eq!(admit(&files), admit(&shuffled));
    }

    #[test]
    fn what_is_admitted_stands_in_no_frozen_namespace_and_decodes(texts in prop::collection::vec(small_service(), 1..8)) {
        let files: Vec<FileInput> = texts.iter().enumerate().map(|(i, text)| file(&format!("{i}.yaml"), text.as_bytes())).collect();
        let admission = admit(&files);
        for object in &admission.objects {
            prop_assert!(!admission.frozen.contains_key(&object.key.namespace));
            prop_assert!(qm_api::registry::AnySpec::from_value(&object.key.kind, &object.spec).unwrap().is_ok());
        }
        for indexes in admission.frozen.values() {
            prop_assert!(indexes.iter().all(|at| admission.violations[*at].severity == Severity::Error));
        }
    }
}
