use super::*;

fn read(text: &str) -> Result<Vec<Drill<Said>>, Vec<String>> {
    let line = |v: &Violation| {
        let place = v.place.as_ref().map(|p| format!("{}:{}", p.line, p.column)).unwrap_or_default();
        let help = if v.help.is_empty() { String::new() } else { format!(" ({})", v.help) };
        format!("{place} {} {}{help}", v.code, v.message)
    };
    parse(&"x.drill.yaml".into(), text.as_bytes()).map_err(|violations| violations.iter().map(line).collect())
}

fn step(text: &str) -> String {
    format!("drill: d\nsteps:\n  - {text}\n")
}

const PINNED: &str = r#"drill: vault away for ten minutes
given: {manifests: ., world: {}}
steps:
  - {at: 0s, do: "down vault for 10m"}
  - {at: 9m, expect: {notify/app-db: {availability: 4, because: vault}, notify/jwt: {usable: true}}}
  - {at: end, expect: {restarts: 0, all: usable}}
"#;

#[test]
fn the_pinned_form_is_read() {
    let drills = read(PINNED).unwrap();
    let [drill] = drills.as_slice() else { panic!("{drills:?}") };
    assert_eq!(drill.name, "vault away for ten minutes");
    assert_eq!((drill.given.manifests[0].text.as_str(), drill.given.start, drill.given.names_images), (".", Start::Warm, false));
    let times: Vec<At> = drill.steps.iter().map(|step| step.at).collect();
    assert_eq!(times, [At::Ms(0), At::Ms(540_000), At::End]);
    let What::Do(acts) = &drill.steps[0].what else { panic!("{drill:?}") };
    assert_eq!((acts[0].verb, acts[0].on.text.as_str()), (Verb::Down { for_ms: Some(600_000) }, "vault"));
    let What::Expect(expected) = &drill.steps[1].what else { panic!("{drill:?}") };
    let Claim::Of(on, Quality::Availability(Availability::TemporarilyUnavailable)) = &expected[0].what else { panic!("{expected:?}") };
    assert_eq!((on.text.as_str(), on.at.span.line, on.at.span.column), ("notify/app-db", 5, 23));
    let What::Expect(expected) = &drill.steps[2].what else { panic!("{drill:?}") };
    assert!(matches!((&expected[0].what, &expected[1].what), (Claim::Restarts(0), Claim::All(Together::Usable))));
}

#[test]
fn verbs_are_read() {
    let minute = Some(60_000);
    for (text, verb) in [
        ("down x", Verb::Down { for_ms: None }),
        ("down x for 1m", Verb::Down { for_ms: minute }),
        ("down x 1m", Verb::Down { for_ms: minute }),
        ("up x", Verb::Up),
        ("  crash   x ", Verb::Crash),
        ("slow x 5s", Verb::Slow { takes_ms: 5_000, for_ms: None }),
        ("slow x 5s for 1m", Verb::Slow { takes_ms: 5_000, for_ms: minute }),
        ("block x for 60s", Verb::Block { for_ms: minute }),
        ("unblock x", Verb::Unblock),
    ] {
        assert_eq!(act(text), Ok((verb, "x".to_owned())), "{text}");
    }
    for (text, wrong) in [
        ("", "`` is nothing that can be done in a drill"),
        ("dwn x", "`dwn` is nothing that can be done in a drill"),
        ("down", "`down` names no service"),
        ("down x for", "`down x for` has `for` where a time must be"),
        ("down x for ten", "`down x for ten` has `ten` where a time must be"),
        ("down x for 1m please", "`down x for 1m please` goes on with `1m`"),
        ("crash x for 1m", "`crash x for 1m` goes on with `1m`"),
        ("slow x", "`slow x` does not say how slow"),
    ] {
        assert_eq!(act(text).unwrap_err().0, wrong, "{text}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_its_place() {
    let table = [
        (String::new(), "0:0 QM0011 the file has no drill (begin with `drill: what it is about`)"),
        ("drill: [".to_owned(), "QM0001"),
        ("- a\n".to_owned(), "1:1 QM0008 a drill must be a map with `drill` and `steps`, not a list"),
        ("drill: d\n".to_owned(), "1:1 QM0011 `steps` is missing (add what happens and what is expected)"),
        ("steps: [{at: 0s, do: up x}]\n".to_owned(), "1:1 QM0011 `drill` is missing (add `drill: what it is about`)"),
        (
            "drill: d\nstep: []\nsteps: [{at: 0s, do: up x}]\n".to_owned(),
            "2:1 QM0007 there is no field `step` in a drill (did you mean `steps`?)",
        ),
        ("drill: d\nsteps: []\n".to_owned(), "2:1 QM0011 there are no steps (add what happens and what is expected)"),
        (
            "drill: d\ngiven: {manifest: .}\nsteps: [{at: 0s, do: up x}]\n".to_owned(),
            "2:9 QM0007 there is no field `manifest` in `given` (did you mean `manifests`?)",
        ),
        (
            "drill: d\ngiven: {start: Hot}\nsteps: [{at: 0s, do: up x}]\n".to_owned(),
            "2:16 QM0009 `given.start` must be one of `Warm` and `Cold`, not `Hot`",
        ),
        ("drill: d\ngiven: {world: {container: []}}\nsteps: [{at: 0s, do: up x}]\n".to_owned(), "QM0009 the world is not right: "),
        (step("{do: up x}"), "3:6 QM0011 `at` is missing in `steps[0]` (a time such as 0s or 9m, or `end`)"),
        (step("{at: soon, do: up x}"), "3:10 QM0012 `soon` is not a duration"),
        (step("{at: 0s}"), "3:6 QM0019 `steps[0]` must have one of `do` and `expect`"),
        (step("{at: 0s, do: up x, expect: {restarts: 0}}"), "QM0019 `steps[0]` must have one of `do` and `expect`"),
        (step("{at: end, do: up x}"), "QM0030 nothing can be done at the end"),
        (
            step("{at: 0s, do: fly x}"),
            "3:18 QM0012 `fly` is nothing that can be done in a drill (write one of: down SERVICE [for TIME], up SERVICE",
        ),
        (step("{at: 0s, expect: {}}"), "QM0011 nothing is expected (name a service, or say `all: usable`)"),
        (
            step("{at: 0s, expect: {x: {usabel: true}}}"),
            "3:27 QM0007 there is no field `usabel` in `steps[0].expect.x` (did you mean `usable`?)",
        ),
        (step("{at: 0s, expect: {x: 4}}"), "3:26 QM0008 `steps[0].expect.x` must be a map such as {usable: true}, not a number"),
        (
            step("{at: 0s, expect: {x: {availability: 7}}}"),
            "QM0009 `steps[0].expect.x.availability` must be a number from 1 to 6 or its name, not `7` (1 Available, 2",
        ),
        (
            step("{at: 0s, expect: {x: {reason: Helthy}}}"),
            "3:35 QM0009 `Helthy` is no reason that the operator gives (did you mean `Healthy`?)",
        ),
        (step("{at: 0s, expect: {restarts: -1}}"), "QM0008 `steps[0].expect.restarts` must be a number from 0, not a number"),
        (step("{at: 0s, expect: {all: good}}"), "QM0009 `steps[0].expect.all` must be one of `usable` and `available`, not `good`"),
        (step("{at: 2s, do: up x}\n  - {at: 1s, do: up x}"), "4:10 QM0010 a step is earlier than the one before it"),
        (step("{at: end, expect: {restarts: 0}}\n  - {at: 1s, do: up x}"), "4:10 QM0010 a step is earlier than the one before it"),
    ];
    for (text, wanted) in table {
        let wrong = read(&text).expect_err(&text);
        assert!(wrong.iter().any(|line| line.contains(wanted)), "{text}\nwanted {wanted}\nfound  {wrong:#?}");
    }
}

#[test]
fn all_of_it_is_told_at_once() {
    let wrong = read("drill: d\nsteps:\n  - {at: 0s, do: fly x}\n  - {at: x, expect: {a: {b: 1, usable: 2}}}\n").unwrap_err();
    assert_eq!(wrong.len(), 4, "{wrong:#?}");
}

#[test]
fn a_file_may_have_several_drills_and_lists_of_everything() {
    let text = "drill: a\ngiven: {manifests: [., ../more], start: Cold}\nsteps: [{at: 0, do: [down x, crash y]}]\n---\ndrill: b\nsteps: [{at: end, expect: {order: [a, b], x: {because: [y, z], events: [Started]}}}]\n";
    let drills = read(text).unwrap();
    assert_eq!(drills.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((drills[0].given.manifests.len(), drills[0].given.start), (2, Start::Cold));
    let What::Expect(expected) = &drills[1].steps[0].what else { panic!("{drills:?}") };
    assert!(matches!(&expected[0].what, Claim::Order(order) if order.len() == 2));
    assert!(matches!(&expected[1].what, Claim::Of(_, Quality::Because(of)) if of.len() == 2));
    assert!(matches!(&expected[2].what, Claim::Of(_, Quality::Events(of)) if of == &[Reason::Started]));
}

/// Renew it with `quaymaster schema --drill > schemas/drills/drill.json`.
#[test]
fn the_schema_is_as_recorded_and_knows_every_field() {
    let root = std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is")).join("../..");
    let recorded = std::fs::read_to_string(root.join("schemas/drills/drill.json")).unwrap();
    assert!(recorded == crate::output::json(&schema()), "run `quaymaster schema --drill > schemas/drills/drill.json`");
    let step = &schema()["properties"]["steps"]["items"]["properties"];
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    assert_eq!(keys(&step["expect"]["properties"]), words(&TOTALS));
    assert_eq!(keys(&step["expect"]["additionalProperties"]["properties"]), words(&QUALITIES));
    assert!(reasons().len() > 40 && reasons().contains(&"DependencyUnavailable".to_owned()));
}

#[test]
fn the_drills_of_the_guide_are_valid() {
    let root = std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is")).join("../..");
    let guide = std::fs::read_to_string(root.join("docs/guide/drills.md")).unwrap();
    let drills: Vec<&str> = guide.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!drills.is_empty());
    for drill in drills {
        assert!(read(drill).is_ok(), "{drill}\n{:?}", read(drill));
    }
}
