//! Backups: whole or refused, and only into an empty store.

use std::time::Duration;

use qm_store::backend::Memory;
use qm_store::{CommitMode, MonoMillis, RestoreError, restore};
use serde_json::json;

use crate::place::{Place, contents, create, durable, key, object, regardless};

async fn backup() -> (Vec<u8>, qm_store::Store) {
    let store = Place::Memory(Memory::new()).open(CommitMode::Inline);
    store.leases().acquire(&"l".into(), &"me".into(), Duration::from_secs(1), MonoMillis(0)).await.unwrap();
    for name in ["a", "b", "c"] {
        create(&store, name).await;
    }
    durable(&store, |tx| tx.delete(key("c"), regardless(), crate::place::NOW)).await.unwrap();
    let mut bytes = Vec::new();
    store.backup(&mut bytes).unwrap();
    (bytes, store)
}

#[tokio::test]
async fn a_backup_is_lines_of_json() {
    let (bytes, _) = backup().await;
    insta::assert_snapshot!(String::from_utf8(bytes).unwrap(), @r#"
    {"format":"quaymaster-backup/1","resourceVersion":5,"fence":1}
    {"apiVersion":"quaymaster.dev/v1alpha1","key":{"kind":"MiniService","namespace":"shop","name":"a"},"meta":{"uid":"uid-a","resourceVersion":2,"generation":1,"creationTimestamp":"2026-09-21T14:13:20.000000Z"},"spec":{"image":"a"},"status":null}
    {"apiVersion":"quaymaster.dev/v1alpha1","key":{"kind":"MiniService","namespace":"shop","name":"b"},"meta":{"uid":"uid-b","resourceVersion":3,"generation":1,"creationTimestamp":"2026-09-21T14:13:20.000000Z"},"spec":{"image":"b"},"status":null}
    {"objects":2,"sha256":"e93c7af7c5ff8afcf83b20ff88275a01ce1053d65f16d4c9c3b7ca127374323c"}
    "#);
}

#[tokio::test]
async fn a_restored_store_has_the_same_objects_and_goes_on_above() {
    let (bytes, source) = backup().await;
    for place in Place::all() {
        let restored = restore(&bytes[..], &mut *place.backend()).unwrap();
        assert_eq!((restored.objects, restored.resource_version), (2, source.resource_version()));
        let store = place.open(CommitMode::Inline);
        assert_eq!(contents(&store), contents(&source));
        let next = create(&store, "next").await;
        assert!(next.meta.resource_version > source.resource_version());
        let lease = store.leases().acquire(&"l".into(), &"other".into(), Duration::from_secs(1), MonoMillis(0)).await.unwrap();
        assert!(lease.token > 1);
        drop(store);
        assert!(matches!(restore(&bytes[..], &mut *place.backend()), Err(RestoreError::NotEmpty { objects: 3, leases: 1 })));
        assert_eq!(place.open(CommitMode::Inline).snapshot().len(), 3);
    }
}

#[tokio::test]
async fn versions_do_not_go_back_when_the_emptied_store_was_ahead() {
    let (bytes, source) = backup().await;
    let place = Place::Memory(Memory::new());
    let store = place.open(CommitMode::Inline);
    for _ in 0..20 {
        durable(&store, |tx| tx.create(object("x", json!({})))).await.unwrap();
        durable(&store, |tx| tx.delete(key("x"), regardless(), crate::place::NOW)).await.unwrap();
    }
    let ahead = store.resource_version();
    assert!(ahead > source.resource_version());
    drop(store);
    restore(&bytes[..], &mut *place.backend()).unwrap();
    assert!(place.open(CommitMode::Inline).resource_version() >= ahead);
}

#[tokio::test]
async fn a_backup_that_was_cut_or_changed_is_refused_before_anything_is_written() {
    let (bytes, _) = backup().await;
    let text = String::from_utf8(bytes.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let join = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let mut cases: Vec<(String, String)> = (0..lines.len()).map(|n| (format!("only {n} lines"), join(&lines[..n]))).collect();
    cases.push(("one object less".into(), join(&[lines[0], lines[1], lines[3]])));
    cases.push(("one object twice".into(), join(&[lines[0], lines[1], lines[1], lines[3]])));
    cases.push(("two backups".into(), format!("{text}{text}")));
    cases.push(("another value".into(), text.replace("\"image\":\"b\"", "\"image\":\"z\"")));
    cases.push(("another version".into(), text.replacen("\"resourceVersion\":5", "\"resourceVersion\":9", 1)));
    cases.push(("another format".into(), text.replace("backup/1", "backup/2")));
    cases.push(("an object from the future".into(), text.replacen("\"resourceVersion\":3", "\"resourceVersion\":3000", 1)));
    for (what, changed) in cases {
        let place = Place::Memory(Memory::new());
        let result = restore(changed.as_bytes(), &mut *place.backend());
        assert!(result.is_err() && changed != text, "{what}");
        assert_eq!(place.backend().load().unwrap(), [], "{what}");
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        let place = Place::Memory(Memory::new());
        assert!(restore(&flipped[..], &mut *place.backend()).is_err(), "byte {at}");
        assert!(bytes.len() - 1 == at || restore(&bytes[..at], &mut *place.backend()).is_err(), "cut at {at}");
        assert_eq!(place.backend().load().unwrap(), []);
    }
}
