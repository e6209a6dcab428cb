//! A store that cannot be read is refused and left as it is.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;

use qm_store::backend::{Memory, Redb};
use qm_store::{Backend, CommitMode, FORMAT_VERSION, Flush, OpenError, Options, Retry, Store, Write};
use serde_json::json;

use crate::disk::Disk;
use crate::place::{Place, contents, durable, file, object};

async fn filled() -> (tempfile::TempDir, usize) {
    let place = Place::File(tempfile::tempdir().unwrap());
    let store = place.open(CommitMode::Inline);
    for number in 0..40 {
        let made = object(&format!("o-{number}"), json!({"text": "lorem ipsum ".repeat(60)}));
        durable(&store, |tx| tx.create(made)).await.unwrap();
    }
    let count = store.snapshot().len();
    drop(store);
    let Place::File(directory) = place else { unreachable!() };
    (directory, count)
}

fn open(path: &Path) -> Result<Store, OpenError> {
    Store::open(Box::new(Redb::at(path)), Options { commit: CommitMode::Inline, ..Options::default() })
}

#[tokio::test]
async fn truncated_and_foreign_files_are_refused_and_kept() {
    let (directory, _) = filled().await;
    let path = file(&directory);
    let whole = fs::read(&path).unwrap();
    let mut cases: Vec<(String, Vec<u8>)> = [0, 1, 100, 4_096, whole.len() / 2, whole.len() - 4_096, whole.len() - 1]
        .into_iter()
        .map(|length| (format!("cut to {length} bytes"), whole[..length].to_vec()))
        .collect();
    cases.push(("text".to_owned(), b"kind: MiniService\n".repeat(1_000)));
    cases.push(("zeros".to_owned(), vec![0; whole.len()]));
    for (what, bytes) in cases {
        fs::write(&path, &bytes).unwrap();
        let error = open(&path).err().unwrap_or_else(|| panic!("{what}: opened"));
        assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error:?}");
        assert_eq!(error.retry(), Retry::Terminal);
        let text = error.to_string();
        assert!(text.contains("restore") && text.contains(path.to_str().unwrap()), "{text}");
        assert_eq!(fs::read(&path).unwrap().len(), bytes.len(), "{what}");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(open(&path).unwrap().snapshot().len(), 40);
}

/// A flipped bit lies either in a page that holds nothing, and then all is there, or the store is refused.
#[tokio::test]
async fn flipped_bits_are_noticed_or_harmless() {
    let disk = Disk::new();
    let place = Place::Disk(Arc::clone(&disk));
    let store = place.open(CommitMode::Inline);
    for number in 0..40 {
        durable(&store, |tx| tx.create(object(&format!("o-{number}"), json!({"text": "lorem ".repeat(60)})))).await.unwrap();
    }
    let expected = contents(&store);
    drop(store);
    let whole = disk.bytes();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    for step in 0..400 {
        let at = step * used / 400;
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (step % 8);
        let place = Place::Disk(Disk::holding(bytes));
        // In a debug build redb panics where a release build reports damage.
        match panic::catch_unwind(AssertUnwindSafe(|| place.try_open(CommitMode::Inline))) {
            Ok(Ok(store)) if contents(&store) == expected => harmless += 1,
            Ok(Ok(store)) => panic!("bit {} of byte {at}: {} objects of {}", step % 8, store.snapshot().len(), expected.len()),
            Ok(Err(OpenError::Damaged { .. } | OpenError::Newer { .. })) | Err(_) => refused += 1,
            Ok(Err(other)) => panic!("byte {at}: {other:?}"),
        }
    }
    panic::set_hook(hook);
    assert!(refused > 50 && harmless > 0, "{refused} refused, {harmless} harmless");
}

#[test]
fn records_that_make_no_sense_are_damage() {
    let format = (&b"iformat"[..], FORMAT_VERSION.to_string());
    let ceiling = (&b"iceiling"[..], "10".to_owned());
    let stored = r#"{"apiVersion":"v1","meta":{"uid":"u","resourceVersion":11,"generation":1,"creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{}}"#;
    let cases = [
        ("no format", vec![ceiling.clone()]),
        ("a foreign key", vec![format.clone(), (&b"what"[..], String::new())]),
        ("an object that is no JSON", vec![format.clone(), ceiling.clone(), (&b"oA\0\0b"[..], "{".to_owned())]),
        ("a version that was never given out", vec![format.clone(), ceiling.clone(), (&b"oA\0\0b"[..], stored.to_owned())]),
        ("a ceiling that is no number", vec![format.clone(), (&b"iceiling"[..], "ten".to_owned())]),
        ("a lease that is no lease", vec![format.clone(), (&b"ilease/a"[..], "{}".to_owned())]),
    ];
    for (what, records) in cases {
        let mut memory = Memory::new();
        let writes: Vec<_> =
            records.iter().map(|(key, value)| Write { key: key.to_vec(), value: Some(value.clone().into_bytes()) }).collect();
        memory.apply(&writes, Flush::Now).unwrap();
        let before = memory.load().unwrap();
        let error = Store::open(Box::new(memory.clone()), Options::default()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error:?}");
        assert_eq!(memory.load().unwrap(), before, "{what}");
    }
}

#[test]
fn a_store_of_a_newer_release_is_refused_and_kept() {
    for place in Place::all() {
        let mut backend = place.backend();
        backend.load().unwrap();
        let writes = [("iformat", "2"), ("zwhatever", "\u{1}")].map(|(key, value)| Write { key: key.into(), value: Some(value.into()) });
        backend.apply(&writes, Flush::Now).unwrap();
        drop(backend);
        let error = place.try_open(CommitMode::Inline).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 2, known: FORMAT_VERSION }), "{error:?}");
        assert_eq!(error.retry(), Retry::Terminal);
        assert_eq!(place.backend().load().unwrap().len(), 2);
    }
}
