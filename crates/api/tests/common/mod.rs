//! What the tests of admission share: a set from texts, and violations as text.
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use qm_api::admit::{Admission, Attached, FileInput, Known, LastGood, Set, admit_set};
use qm_api::field::{Severity, Violation};
use qm_api::manifest::{Limits, parse_file};
use qm_api::name::Name;

/// A mini service `ns/name` with a container and, indented by two, more lines of spec.
pub(crate) fn service(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: quaymaster.dev/v1alpha1\nkind: MiniService\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  container:\n    image: busybox:1\n{spec}"
    )
}

/// The files as inputs of one source `s`.
pub(crate) fn inputs(files: &[(&str, &str)]) -> Vec<FileInput> {
    let parse = |(path, text): &(&str, &str)| parse_file(&Name::from(*path), text.as_bytes(), &Limits::default());
    files.iter().map(|file| FileInput { source: "s".into(), parsed: Arc::new(parse(file)) }).collect()
}

/// Admits files with nothing else around.
pub(crate) fn admit(files: &[(&str, &str)]) -> Admission {
    admit_with(files, &BTreeMap::new(), &LastGood::new())
}

/// Admits files with attachments and a past.
pub(crate) fn admit_with(files: &[(&str, &str)], attachments: &BTreeMap<(Name, Name), Attached>, last: &LastGood) -> Admission {
    let files = inputs(files);
    admit_set(&Set { files: &files, attachments, existing: &Known::default(), unreadable: &[] }, last)
}

/// One violation as text, with what it points at.
pub(crate) fn render(violation: &Violation, texts: &BTreeMap<&str, &str>) -> String {
    let mut out = String::new();
    let severity = if violation.severity == Severity::Error { "error" } else { "warning" };
    let place = violation.place.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let _ = writeln!(out, "{place}: {severity} {} [{}] {}", violation.code, violation.path, violation.message);
    if let Some(place) = &violation.place
        && let Some(text) = texts.get(place.file.as_str()).and_then(|text| text.get(place.start..place.end))
    {
        let _ = writeln!(out, "  at: {:?}", text.chars().take(40).collect::<String>());
    }
    if !violation.help.is_empty() {
        let _ = writeln!(out, "  help: {}", violation.help);
    }
    for (place, text) in &violation.related {
        let _ = writeln!(out, "  also: {place}: {text}");
    }
    out
}

/// All of an admission as text.
pub(crate) fn render_all(admission: &Admission, files: &[(&str, &str)]) -> String {
    let texts: BTreeMap<&str, &str> = files.iter().copied().collect();
    let mut out: String = admission.violations.iter().map(|violation| render(violation, &texts)).collect();
    let objects: Vec<String> = admission.objects.iter().map(|object| object.key.to_string()).collect();
    let frozen: Vec<&str> = admission.frozen.keys().map(Name::as_str).collect();
    let _ = writeln!(out, "objects: {objects:?} frozen: {frozen:?} held: {:?} skipped: {}", admission.prune_held, admission.skipped);
    out
}
