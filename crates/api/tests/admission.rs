//! Admission as a whole: what is admitted, what freezes what, files and API alike.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{admit, admit_with, inputs, service};
use qm_api::admit::{Admission, Attached, FileInput, Known, LastGood, Set, Unreadable, admit_object, admit_set, last_good};
use qm_api::codes::Code;
use qm_api::manifest::{Limits, parse_file};
use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use serde_json::{Value, json};

fn keys(admission: &Admission) -> Vec<String> {
    admission.objects.iter().map(|object| object.key.to_string()).collect()
}

fn frozen(admission: &Admission) -> Vec<&str> {
    admission.frozen.keys().map(Name::as_str).collect()
}

fn codes(admission: &Admission) -> Vec<Code> {
    admission.violations.iter().map(|violation| violation.code).collect()
}

fn last(entries: &[(&str, &[&str])]) -> LastGood {
    entries.iter().map(|(file, names)| (("s".into(), Name::from(*file)), names.iter().map(|n| Name::from(*n)).collect())).collect()
}

#[test]
fn a_mistake_freezes_the_namespaces_it_touches_and_nothing_else() {
    let good = service("good", "a", "");
    let bad = service("bad", "b", "    replica: 1\n");
    let also = service("bad", "c", "");
    let admission = admit(&[("a.yaml", &good), ("b.yaml", &bad), ("c.yaml", &also)]);
    assert_eq!(keys(&admission), ["MiniService good/a"]);
    assert_eq!(frozen(&admission), ["bad"]);
    assert!(admission.prune_held.is_empty(), "a bad document is no unreadable file");
    assert_eq!(admission.frozen["bad"], [0]);
}

#[test]
fn a_bad_document_freezes_what_its_file_last_spoke_of() {
    let bad = service("new", "b", "    replica: 1\n");
    let past = last(&[("b.yaml", &["old"]), ("gone.yaml", &["other"])]);
    assert_eq!(frozen(&admit_with(&[("b.yaml", &bad)], &BTreeMap::new(), &past)), ["new", "old"]);
    // A good document still speaks of `old`: the bad one was never there.
    let both = format!("{}---\n{bad}", service("old", "a", ""));
    let admission = admit_with(&[("b.yaml", &both)], &BTreeMap::new(), &past);
    assert_eq!((frozen(&admission), keys(&admission)), (vec!["new"], vec!["MiniService old/a".to_owned()]));
    // The namespace cannot be read: everything the file spoke of.
    let unplaced = both.replace("namespace: new", "namespace: [new]");
    assert_eq!(frozen(&admit_with(&[("b.yaml", &unplaced)], &BTreeMap::new(), &past)), ["old"]);
}

#[test]
fn a_document_that_moves_and_cannot_be_joined_stays_where_it_was() {
    let text = |namespace: &str| service(namespace, "a", "  dependsOn: [{service: gone}]\n");
    let good = service("old", "a", "");
    let step = |text: &str, past: &LastGood| {
        let files = inputs(&[("a.yaml", text)]);
        let set = Set { files: &files, attachments: &BTreeMap::new(), existing: &Known::default(), unreadable: &[] };
        let admission = admit_set(&set, past);
        let next = last_good(&set, &admission, past);
        (admission, next)
    };
    let (_, past) = step(&good, &LastGood::new());
    assert_eq!(past, last(&[("a.yaml", &["old"])]));
    let (admission, next) = step(&text("new"), &past);
    assert_eq!((frozen(&admission), &next), (vec!["new", "old"], &past));
    let (admission, next) = step(&service("new", "a", ""), &next);
    assert_eq!((frozen(&admission), next), (vec![], last(&[("a.yaml", &["new"])])));
}

#[test]
fn an_unparsable_file_freezes_what_it_names_and_holds_prune() {
    let text = service("shop", "a", "    env: {A: b\n");
    let admission = admit(&[("a.yaml", &text), ("b.yaml", &service("fine", "b", ""))]);
    assert_eq!(frozen(&admission), ["shop"]);
    assert_eq!(keys(&admission), ["MiniService fine/b"]);
    assert!(admission.prune_held.contains_key("s"));
    // Not ours: skipped without a word, unless it once was ours.
    let foreign = [("x.yaml", "{{ .Values }}: [")];
    let admission = admit(&foreign);
    assert_eq!((admission.skipped, admission.violations.len(), admission.prune_held.len()), (1, 0, 0));
    let admission = admit_with(&foreign, &BTreeMap::new(), &last(&[("x.yaml", &["old"])]));
    assert_eq!(frozen(&admission), ["old"]);
    assert!(admission.prune_held.contains_key("s"));
}

#[test]
fn a_lone_text_where_objects_were_is_a_file_cut_short() {
    let past = last(&[("a.yaml", &["old"])]);
    for text in ["-", "--", "apiV", "[]", "7"] {
        let files = inputs(&[("a.yaml", text)]);
        let set = Set { files: &files, attachments: &BTreeMap::new(), existing: &Known::default(), unreadable: &[] };
        let admission = admit_set(&set, &past);
        assert_eq!((frozen(&admission), codes(&admission)), (vec!["old"], vec![Code::WrongType]), "{text}");
        assert_eq!(last_good(&set, &admission, &past), past, "{text}");
        // Where nothing of ours ever was, it is not our business.
        assert!(admit(&[("a.yaml", text)]).violations.is_empty(), "{text}");
    }
    for text in ["", "---", "# gone\n", "~"] {
        assert!(frozen(&admit_with(&[("a.yaml", text)], &BTreeMap::new(), &past)).is_empty(), "{text:?} says that there is nothing");
    }
    let beside = format!("{}---\n--\n", service("new", "a", ""));
    assert_eq!(frozen(&admit_with(&[("a.yaml", &beside)], &BTreeMap::new(), &past)), ["new", "old"]);
    assert_eq!(frozen(&admit(&[("a.yaml", &beside)])), ["new"]);
}

#[test]
fn a_new_unreadable_file_freezes_nothing_and_holds_prune() {
    let files = inputs(&[("a.yaml", &service("n", "a", ""))]);
    let unreadable = [Unreadable { source: "s".into(), file: "b.yaml".into(), reason: "permission denied".into() }];
    let set = Set { files: &files, attachments: &BTreeMap::new(), existing: &Known::default(), unreadable: &unreadable };
    let admission = admit_set(&set, &LastGood::new());
    assert_eq!((frozen(&admission).len(), keys(&admission).len(), codes(&admission)), (0, 1, vec![Code::Unreadable]));
    assert!(admission.prune_held.contains_key("s"));
    assert_eq!(frozen(&admit_set(&set, &last(&[("b.yaml", &["n"])]))), ["n"]);
}

#[test]
fn a_reference_into_a_frozen_namespace_is_no_second_mistake() {
    let user = service("user", "a", "  dependsOn: [{service: db, namespace: store}, {service: gone, namespace: store}]\n");
    let db = service("store", "db", "    replica: 1\n");
    let admission = admit(&[("a.yaml", &user), ("b.yaml", &db)]);
    assert_eq!((codes(&admission), frozen(&admission)), (vec![Code::UnknownField], vec!["store"]));
    assert_eq!(keys(&admission), ["MiniService user/a"]);
}

#[test]
fn a_cycle_freezes_every_namespace_on_it() {
    let a = service("x", "a", "  dependsOn: [{service: b, namespace: y}]\n");
    let b = service("y", "b", "  dependsOn: [{service: a, namespace: x}]\n");
    let admission = admit(&[("a.yaml", &a), ("b.yaml", &b), ("c.yaml", &service("z", "c", ""))]);
    assert_eq!((frozen(&admission), codes(&admission)), (vec!["x", "y"], vec![Code::Cycle]));
    assert_eq!(admission.violations[0].related.len(), 2);
    assert!(admission.violations[0].message.ends_with("x/a -> y/b -> x/a"), "{}", admission.violations[0].message);
}

#[test]
fn attachments_are_part_of_the_candidate() {
    let text = service("n", "a", "    envFile: [a.env]\n    configs: [{name: c, target: /c, file: ../c.conf}]\n");
    let file = |bytes: &[u8], digest| Attached::File { digest: [digest; 32], bytes: bytes.into() };
    let key = |path: &str| (Name::from("s"), Name::from(path));
    let mut attachments = BTreeMap::from([(key("sub/a.env"), file(b"A=1", 1)), (key("c.conf"), file(b"\xff\0", 2))]);
    let files = [("sub/m.yaml", text.as_str())];
    let admission = admit_with(&files, &attachments, &LastGood::new());
    assert_eq!(codes(&admission), []);
    assert_eq!(admission.objects[0].attachments, BTreeMap::from([("sub/a.env".into(), [1; 32]), ("c.conf".into(), [2; 32])]));
    for bad in [Attached::Missing, Attached::Refused("it is a device".into()), file(b"no equals sign", 3), file(&vec![b'#'; 5 << 20], 4)] {
        attachments.insert(key("sub/a.env"), bad);
        assert_eq!(codes(&admit_with(&files, &attachments, &LastGood::new())), [Code::Attachment]);
    }
}

#[test]
fn texts_of_every_shape_are_read() {
    let plain = service("n", "a", "    env: {PORT: 1.10, ON: yes, N: 0x10, T: true, Q: '5'}\n");
    let expected = json!({"PORT": "1.10", "ON": "yes", "N": "0x10", "T": "true", "Q": "5"});
    let list = format!("apiVersion: v1\nkind: List\nitems:\n- {}", plain.trim_end().replace('\n', "\n  "));
    let own_list = list.replace("apiVersion: v1\nkind: List", "apiVersion: quaymaster.dev/v1alpha1\nkind: MiniServiceList");
    let anchors = plain.replace("env: {PORT: 1.10,", "labels: &l {ON: x, PORT: 1.10}\n    env: {<<: *l,");
    let value = json!({"apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniService", "metadata": {"name": "a", "annotations": {"long": "x".repeat(5000)}},
        "spec": {"container": {"image": "busybox:1", "env": expected, "command": ["sh", "-c", "a/b \u{1F600} \"q\" \\ \t"]}}});
    let json = serde_json::to_string_pretty(&value).unwrap();
    for (name, text) in [
        ("json with tabs", json.replace("  ", "\t")),
        ("json", json),
        ("json in one line", value.to_string().replace('/', "\\/")),
        ("plain", plain.clone()),
        ("crlf", plain.replace('\n', "\r\n")),
        ("bom", format!("\u{feff}{plain}")),
        ("markers", format!("---\n{plain}...\n---\n")),
        ("list", list),
        ("own list", own_list),
        ("merge", anchors),
    ] {
        let admission = admit(&[("m.yaml", &text)]);
        assert_eq!(codes(&admission), [], "{name}: {:?}", admission.violations);
        assert_eq!(admission.objects[0].spec["container"]["env"], expected, "{name}");
    }
}

#[test]
fn places_are_right_in_crlf_and_unicode_text() {
    let text = "\u{feff}# é\r\napiVersion: quaymaster.dev/v1alpha1\r\nkind: MiniService\r\nmetadata: {name: a}\r\nspec: {container: {image: x, env: {É: 'ü'}, bogus: 1}}\r\n";
    let admission = admit(&[("m.yaml", text)]);
    let place = admission.violations[0].place.clone().unwrap();
    assert_eq!((place.line, &text[place.start..place.end]), (5, "bogus"));
    assert_eq!(text.lines().nth(4).unwrap().chars().skip(place.column as usize - 1).take(5).collect::<String>(), "bogus");
}

fn stored(key: ObjectKey, spec: Value) -> Object {
    Object::new(key, "u", Timestamp::default(), spec)
}

#[test]
fn the_api_is_judged_by_the_same_rules() {
    let value = |spec: Value| json!({"apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniService", "metadata": {"name": "a", "namespace": "n", "uid": "u", "finalizers": ["x"]}, "spec": spec, "status": {}});
    let db = stored(
        ObjectKey::new("MiniService", "n", "db"),
        json!({"container": {"image": "db", "ports": [{"target": 1, "published": 5}]}, "dependsOn": [{"service": "a"}]}),
    );
    let known = Known::of([&db]);
    let admitted = admit_object(&value(json!({"container": {"image": "x"}})), &known).unwrap();
    assert_eq!((admitted.key.to_string().as_str(), admitted.place), ("MiniService n/a", None));
    let table = [
        (json!({"container": {"image": "x", "bogus": 1}}), Code::UnknownField),
        (json!({"container": {"image": "x"}, "dependsOn": [{"service": "gone"}]}), Code::UnknownDependency),
        (json!({"container": {"image": "x"}, "dependsOn": [{"service": "db"}]}), Code::Cycle),
        (json!({"container": {"image": "x", "ports": [{"target": 1, "published": 5}]}}), Code::PortConflict),
        (json!({"container": {"image": "x", "envFile": ["a"]}}), Code::Attachment),
        (json!({}), Code::OneOf),
        (json!(null), Code::WrongType),
    ];
    for (spec, code) in table {
        let violations = admit_object(&value(spec.clone()), &known).unwrap_err();
        assert_eq!(violations.iter().map(|violation| violation.code).collect::<Vec<_>>(), [code], "{spec}");
    }
    assert!(admit_object(&json!([]), &known).is_err());
    let warned = admit_object(&value(json!({"container": {"image": "x", "secrets": [{"name": "s"}]}})), &known).unwrap();
    assert_eq!(warned.warnings[0].code, Code::NotInEffect);
}

#[test]
fn an_object_of_the_api_is_not_taken_over_by_a_file() {
    let key = ObjectKey::new("MiniService", "n", "a");
    let known = Known::of([&stored(key, json!({"container": {"image": "x"}}))]);
    let files = inputs(&[("a.yaml", &service("n", "a", ""))]);
    let set = Set { files: &files, attachments: &BTreeMap::new(), existing: &known, unreadable: &[] };
    assert_eq!(codes(&admit_set(&set, &LastGood::new())), [Code::Duplicate]);
}

#[test]
fn ten_thousand_services_are_cut_and_joined() {
    let mut files: Vec<FileInput> = Vec::new();
    for i in 0..10_000_u32 {
        let edge = if i % 100 == 0 { String::new() } else { format!("  dependsOn: [{{service: s{}}}]\n", i - 1) };
        let text = service(&format!("n{}", i / 100), &format!("s{i}"), &edge);
        let parsed = parse_file(&Name::from(format!("{i}.yaml")), text.as_bytes(), &Limits::default());
        files.push(FileInput { source: "s".into(), parsed: Arc::new(parsed) });
    }
    let admission =
        admit_set(&Set { files: &files, attachments: &BTreeMap::new(), existing: &Known::default(), unreadable: &[] }, &LastGood::new());
    assert_eq!((admission.objects.len(), admission.violations.len()), (10_000, 0));
    assert_eq!(admission.objects.iter().map(|object| &object.key.namespace).collect::<BTreeSet<_>>().len(), 100);
}

#[test]
fn a_mini_container_makes_services_and_owns_them() {
    let text = r#"
apiVersion: quaymaster.dev/v1alpha1
kind: MiniContainer
metadata: {name: worker, namespace: shop}
spec:
  template:
    labels: {queue: "{{values.queue}}"}
    spec:
      container:
        image: busybox:1
        env: {QUEUE: "{{values.queue}}", WHO: "{{namespace}}.{{name}}"}
        envFile: ["{{name}}.env"]
  items:
  - {name: mail, values: {queue: q-mail}}
  - {name: sms, values: {queue: 7}}
---
apiVersion: quaymaster.dev/v1alpha1
kind: MiniContainer
metadata: {name: data, namespace: shop}
spec: {selector: {matchExpressions: [{key: tier, operator: In, values: [data]}]}}
"#;
    let db = service("shop", "db", "").replace("namespace: shop}", "namespace: shop, labels: {tier: data}}");
    let elsewhere = service("other", "db", "").replace("namespace: other}", "namespace: other, labels: {tier: data}}");
    let file = |text: &str| Attached::File { digest: [7; 32], bytes: text.as_bytes().into() };
    let attachments: BTreeMap<(Name, Name), Attached> =
        ["mail.env", "sms.env"].map(|path| (("s".into(), path.into()), file("A=b\n"))).into_iter().collect();
    let admission = admit_with(&[("a.yaml", text), ("db.yaml", &db), ("other.yaml", &elsewhere)], &attachments, &LastGood::new());
    assert_eq!(codes(&admission), []);
    let owned: Vec<(String, Option<String>)> =
        admission.objects.iter().map(|o| (o.key.to_string(), o.owner.as_ref().map(ToString::to_string))).collect();
    let owner = |name: &str| Some(format!("MiniContainer shop/{name}"));
    assert_eq!(
        owned,
        [
            ("MiniContainer shop/data".to_owned(), None),
            ("MiniContainer shop/worker".to_owned(), None),
            ("MiniService other/db".to_owned(), None),
            ("MiniService shop/db".to_owned(), owner("data")),
            ("MiniService shop/worker-mail".to_owned(), owner("worker")),
            ("MiniService shop/worker-sms".to_owned(), owner("worker")),
        ]
    );
    let sms = &admission.objects[5];
    assert_eq!(sms.spec["container"]["env"], json!({"QUEUE": "7", "WHO": "shop.sms"}));
    assert_eq!(sms.labels, BTreeMap::from([("queue".into(), "7".into())]));
    assert_eq!(sms.attachments.keys().map(Name::as_str).collect::<Vec<_>>(), ["sms.env"]);
    let files = qm_api::manifest::references(&"a.yaml".into(), text.as_bytes());
    assert_eq!(files, [Name::from("mail.env"), Name::from("sms.env")]);
}
