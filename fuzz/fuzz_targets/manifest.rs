//! Any bytes as a manifest: read, admitted, and given a desired form.
//!
//! Beyond not crashing: what is said of a file is the same each time, every place lies in the file, an error freezes its namespace or
//! holds the prune, and what is admitted has a desired form unless it refers to a file that is not there.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use qm_api::admit::{Attached, FileInput, Known, LastGood, Set, admit_set};
use qm_api::field::Severity;
use qm_api::manifest::{Limits, parse_file, references};
use qm_api::meta::Object;
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::desired::{DesiredNetwork, DesiredService, Files};

fuzz_target!(|bytes: &[u8]| {
    let path = Name::from("dir/m.yaml");
    let source = Name::from("fuzz");
    let parsed = parse_file(&path, bytes, &Limits::default());
    let again = parse_file(&path, bytes, &Limits::default());
    assert_eq!(parsed.violations, again.violations, "two readings differ");
    // Line ends are LF, CR LF, CR; the end of the file may be one line further.
    let lines = bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u32 + 2;
    for violation in &parsed.violations {
        let line = violation.place.as_ref().map_or(0, |place| place.line);
        assert!(line <= lines, "line {line} of {lines}: {}", violation.message);
        assert!(!violation.message.is_empty());
    }
    let content: Arc<[u8]> = Arc::from(&b"A=1\n"[..]);
    let wanted = references(&path, bytes);
    let attachments: BTreeMap<(Name, Name), Attached> =
        wanted.iter().map(|name| ((source.clone(), name.clone()), Attached::File { digest: [7; 32], bytes: content.clone() })).collect();
    let files = [FileInput { source: source.clone(), parsed: Arc::new(parsed) }];
    let set = Set { files: &files, attachments: &attachments, existing: &Known::default(), unreadable: &[] };
    let admission = admit_set(&set, &LastGood::new());
    let has_errors = admission.violations.iter().any(|v| v.severity == Severity::Error);
    let has_consequence = !admission.frozen.is_empty() || !admission.prune_held.is_empty();
    assert_eq!(has_errors, has_consequence, "an error has a consequence, and nothing else has");
    for candidate in &admission.objects {
        let mut object = Object::new(candidate.key.clone(), "uid", Timestamp::default(), serde_json::Value::Null);
        object.spec = candidate.spec.clone();
        let container = &candidate.spec["container"];
        let env_files = container["envFile"].as_array().into_iter().flatten().filter_map(|v| v.as_str());
        let configs = container["configs"].as_array().into_iter().flatten().filter_map(|v| v["file"].as_str());
        let files: Files = env_files.chain(configs).map(|written| (written.to_owned(), content.clone())).collect();
        let made = match candidate.key.kind.as_str() {
            "Network" => DesiredNetwork::from_object(&object).map(drop),
            _ => DesiredService::from_object(&object, &files).map(drop),
        };
        if let Err(error) = made {
            panic!("{} is admitted and has no desired form: {error}", candidate.key);
        }
    }
});
