//! Hostile input: an error at a place, quickly and in bounded memory.

mod common;

use common::service;
use qm_api::codes::Code;
use qm_api::manifest::{Limits, ParsedFile, parse_file, references};

fn parse(bytes: &[u8]) -> ParsedFile {
    parse_file(&"m.yaml".into(), bytes, &Limits::default())
}

/// The code of the first violation and its line.
fn first(file: &ParsedFile) -> Option<(Code, u32)> {
    file.violations.first().map(|violation| (violation.code, violation.place.as_ref().map_or(0, |place| place.line)))
}

#[test]
fn deep_nesting() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        "[".repeat(100_000) + &"]".repeat(100_000),
        "? ".repeat(100_000),
    ] {
        let file = parse(format!("# quaymaster.dev\n{text}").as_bytes());
        assert!(file.is_broken && file.is_ours, "{}", &text[..8]);
        assert!(matches!(first(&file), Some((Code::TooLarge | Code::Syntax, 2))), "{:?}", file.violations);
    }
    let steps: String = (0..3_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    assert!(parse(steps.as_bytes()).is_broken);
}

#[test]
fn alias_bombs() {
    let mut bomb = String::from("apiVersion: quaymaster.dev/v1alpha1\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..40 {
        bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "));
    }
    assert_eq!(first(&parse(bomb.as_bytes())).map(|(code, _)| code), Some(Code::TooLarge));
    let long = format!("apiVersion: quaymaster.dev/v1alpha1\na: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 1000].join(", "));
    assert_eq!(first(&parse(long.as_bytes())), Some((Code::TooLarge, 3)));
    let mut deep = String::from("apiVersion: quaymaster.dev/v1alpha1\na0: &a0 [x]\n");
    for i in 1..100 {
        deep += &format!("a{i}: &a{i} [*a{}]\n", i - 1);
    }
    assert_eq!(first(&parse(deep.as_bytes())).map(|(code, _)| code), Some(Code::TooLarge));
    let own = parse(b"apiVersion: quaymaster.dev/v1alpha1\na: &a [*a]\n");
    assert_eq!(first(&own), Some((Code::Syntax, 2)));
    let merges = format!(
        "apiVersion: quaymaster.dev/v1alpha1\na: &a {{}}\nb:\n  <<: [{}]\n{}",
        vec!["*a"; 100_000].join(","),
        (0..50_000).map(|i| format!("  k{i}: 1\n")).collect::<String>()
    );
    parse(merges.as_bytes());
}

#[test]
fn sizes() {
    let huge = vec![b'a'; 100 << 20];
    assert_eq!(first(&parse(&huge)), Some((Code::TooLarge, 0)));
    assert!(references(&"m.yaml".into(), &huge).is_empty());
    let scalar = service("n", "a", &format!("    env: {{A: {}}}\n", "x".repeat(3 << 20)));
    assert_eq!(first(&parse(scalar.as_bytes())), None);
    let keys: String = (0..200_000).map(|i| format!("    k{i}: 1\n")).collect();
    let file = parse(service("n", "a", &keys).as_bytes());
    assert_eq!((first(&file), file.violations.len()), (Some((Code::UnknownField, 7)), 1000));
    // A thousand warnings hide no error.
    let warned: String = (0..600)
        .map(|i| service("n", &format!("s{i}"), "    secrets: [{name: s}]\n  drift: {ignore: [/container/replicas]}\n") + "---\n")
        .collect();
    let file = parse((warned + &service("n", "last", "    bogus: 1\n")).as_bytes());
    assert_eq!((file.warnings, file.errors, file.violations.len(), file.bad.len()), (1200, 1, 1001, 1));
    let doubles = service("n", "a", &format!("    env:\n{}", "      A: 1\n".repeat(100_000)));
    let file = parse(doubles.as_bytes());
    assert_eq!((first(&file).map(|(code, _)| code), file.is_broken, file.documents.len()), (Some(Code::DuplicateKey), true, 0));
}

#[test]
fn documents() {
    let text = |count: usize| {
        (0..count)
            .map(|i| format!("apiVersion: quaymaster.dev/v1alpha1\nkind: Network\nmetadata: {{name: n{i}}}\nspec: {{}}\n---\n"))
            .collect::<String>()
    };
    let file = parse(text(9_999).as_bytes());
    assert_eq!((file.documents.len(), first(&file)), (9_999, None));
    assert_eq!(first(&parse(text(10_001).as_bytes())), Some((Code::TooLarge, 50_000)));
    let items = (0..10_001).map(|_| "- {a: 1}\n").collect::<String>();
    let list = format!("apiVersion: v1\nkind: List\nmetadata: {{a: quaymaster.dev}}\nitems:\n{items}");
    assert_eq!(first(&parse(list.as_bytes())).map(|(code, _)| code), Some(Code::TooLarge));
}

#[test]
fn bytes_that_are_no_text() {
    let head = "apiVersion: quaymaster.dev/v1alpha1\nkind: MiniService\n".as_bytes();
    for (tail, line) in
        [(&b"metadata: {name: caf\xe9}"[..], 3), (b"\n\n# \0", 5), (b"a: \x1b[31m", 3), (b"\xc3", 3), (b"\xef\xbf\xbd\n\xf0\x9f", 4)]
    {
        let file = parse(&[head, tail].concat());
        assert_eq!(first(&file), Some((Code::Encoding, line)), "{tail:?}");
        assert!(file.is_ours && file.is_broken);
    }
    assert!(parse(b"").documents.is_empty());
    assert_eq!(first(&parse(b"\n\n# only a comment\n")), None);
    let utf16: Vec<u8> = "kind: MiniService".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(first(&parse(&utf16)), Some((Code::Encoding, 1)));
}

#[test]
fn odd_names() {
    for name in [
        "\u{202e}evil",
        "a\u{0}b",
        "ａ",
        "\u{1F600}",
        "a/../b",
        "..",
        "-a",
        "A",
        "'a b'",
        "\"\\u0000\"",
        "\"\"",
        "~",
        "5",
        "true",
        "a\u{301}",
    ] {
        let text = service("n", name, "");
        let file = parse(text.as_bytes());
        assert!(file.documents.is_empty() && file.has_errors(), "{name:?}");
        for violation in &file.violations {
            let place = violation.place.as_ref().expect("every violation of a file has a place");
            assert!(text.get(place.start..place.end).is_some(), "{name:?}: {place:?}");
        }
    }
    assert!(parse(service("n", &"a".repeat(64), "").as_bytes()).has_errors());
    assert!(!parse(service("n", &"a".repeat(63), "").as_bytes()).has_errors());
}
