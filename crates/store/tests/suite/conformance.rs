//! What holds for every backend in both modes.

use std::sync::Arc;

use qm_api::meta::{Object, ObjectKey};
use qm_store::backend::{Memory, Redb};
use qm_store::{
    Backend, ChangeKind, CommitMode, Durability, Expired, Flush, Options, Outcome, Precondition, Retry, Store, StoreError, Write,
};
use serde_json::{Value, json};

use crate::place::{self, NOW, Place, commit, contents, create, durable, everywhere, key, object, regardless};

#[tokio::test]
async fn an_object_comes_back_whole_after_a_restart() {
    for (place, mode) in everywhere() {
        let store = place.open(mode);
        let mut made = object("app", json!({"image": "a:1", "weight": 0.1, "big": 12345678901234567890u64, "nested": [{"a": null}]}));
        made.meta.labels.insert("tier".into(), "web".into());
        made.meta.finalizers.push("quaymaster.dev/cleanup".into());
        made.status = Arc::new(json!({"usable": true}));
        durable(&store, |tx| tx.create(made.clone())).await.unwrap();
        let before = contents(&store);
        drop(store);
        let store = place.open(mode);
        assert_eq!(contents(&store), before, "{}", place.name());
        let stored = store.snapshot().get(&key("app")).cloned().unwrap();
        assert_eq!((stored.meta.generation, &stored.spec, &stored.status), (1, &made.spec, &made.status));
        assert!(store.resource_version() >= stored.meta.resource_version);
    }
}

#[tokio::test]
async fn every_refusal_says_why_and_changes_nothing() {
    for (place, mode) in everywhere() {
        let store = place.open(mode);
        let app = create(&store, "app").await;
        let version = app.meta.resource_version;
        let stale = Object { meta: qm_api::meta::Meta { resource_version: version + 40, ..app.meta.clone() }, ..Object::clone(&app) };
        let unversioned = object("app", json!({}));
        let missing = Object { key: key("gone"), ..stale.clone() };
        let uid = |uid: &str| Precondition { uid: Some(uid.into()), resource_version: None };
        let at = |version| Precondition { uid: None, resource_version: Some(version) };
        let before = (contents(&store), store.resource_version());
        type Fill = Box<dyn FnOnce(&mut qm_store::Tx) -> &mut qm_store::Tx>;
        let refusals: Vec<(Fill, &str, Retry)> = vec![
            (Box::new(|tx| tx.create(object("app", json!({})))), "MiniService shop/app exists already", Retry::Conflict),
            (Box::new(|tx| tx.put(stale)), "MiniService shop/app has changed: expected version 42, it is at 2", Retry::Conflict),
            (Box::new(|tx| tx.put(unversioned)), "MiniService shop/app was put without the version it was read at", Retry::Terminal),
            (Box::new(|tx| tx.put(missing)), "MiniService shop/gone was not found", Retry::Conflict),
            (Box::new(|tx| tx.put_status(key("gone"), None, Arc::default())), "MiniService shop/gone was not found", Retry::Conflict),
            (
                Box::new(|tx| tx.put_status(key("app"), Some(1), Arc::new(json!(1)))),
                "MiniService shop/app has changed: expected version 1, it is at 2",
                Retry::Conflict,
            ),
            (Box::new(|tx| tx.delete(key("gone"), regardless(), NOW)), "MiniService shop/gone was not found", Retry::Conflict),
            (
                Box::new(move |tx| tx.delete(key("app"), uid("other"), NOW)),
                "MiniService shop/app is another object now: expected uid other, it is uid-app",
                Retry::Conflict,
            ),
            (
                Box::new(move |tx| tx.delete(key("app"), at(1), NOW)),
                "MiniService shop/app has changed: expected version 1, it is at 2",
                Retry::Conflict,
            ),
            (
                Box::new(|tx| tx.create(Object { key: ObjectKey::new("Kind", "a\0b", "c"), ..object("x", json!({})) })),
                "`Kind a\0b/c` cannot be the key of an object: kind and name must be given, without NUL",
                Retry::Terminal,
            ),
            (Box::new(|tx| tx.fence(&"change/app".into(), 3)), "lease change/app is no longer held with token 3", Retry::Terminal),
        ];
        for (fill, text, retry) in refusals {
            // A good operation before the bad one must not happen either.
            let refused = durable(&store, |tx| {
                tx.create(object("companion", json!({})));
                fill(tx)
            });
            let error = refused.await.unwrap_err();
            assert_eq!((error.to_string().as_str(), error.retry()), (text, retry));
            assert_eq!((contents(&store), store.resource_version()), before, "{text}");
        }
        drop(store);
        assert_eq!(contents(&place.open(mode)), before.0);
    }
}

#[tokio::test]
async fn the_generation_counts_changes_of_the_spec_and_equal_puts_are_nothing() {
    for (place, mode) in everywhere() {
        let store = place.open(mode);
        let mut current = create(&store, "app").await;
        let mut watch = store.watch(store.resource_version()).unwrap();
        type Step = (&'static str, fn(&mut Object), u64, bool);
        let steps: Vec<Step> = vec![
            ("the same", |_| {}, 1, false),
            (
                "a foreign uid and times",
                |o| {
                    o.meta.uid = "thief".into();
                    o.meta.creation_timestamp = NOW.plus_millis(5);
                    o.meta.deletion_timestamp = Some(NOW);
                    o.meta.generation = 99;
                },
                1,
                false,
            ),
            ("equal JSON in a new place", |o| o.spec = Arc::new(json!({"image": "app"})), 1, false),
            ("a label", |o| drop(o.meta.labels.insert("a".into(), "b".into())), 1, true),
            ("the spec", |o| o.spec = Arc::new(json!({"image": "b"})), 2, true),
            ("the status", |o| o.status = Arc::new(json!({"usable": true})), 2, true),
            ("spec and status", |o| (o.spec, o.status) = (Arc::new(Value::Null), Arc::new(Value::Null)), 3, true),
        ];
        for (what, change, generation, changes) in steps {
            let mut wanted = Object::clone(&current);
            change(&mut wanted);
            let committed = durable(&store, |tx| tx.put(wanted)).await.unwrap();
            let outcome = &committed.outcomes[0];
            assert_eq!(matches!(outcome, Outcome::Written(_)), changes, "{what}");
            assert_eq!(outcome.object().meta.generation, generation, "{what}");
            assert_eq!(outcome.object().meta.resource_version, current.meta.resource_version + u64::from(changes), "{what}");
            assert_eq!(outcome.object().meta.uid, "uid-app");
            assert_eq!((outcome.object().meta.creation_timestamp, outcome.object().meta.deletion_timestamp), (NOW, None));
            assert_eq!(committed.resource_version, outcome.object().meta.resource_version);
            let seen = watch.try_next().unwrap();
            assert_eq!(seen.is_some(), changes, "{what}");
            if let Some(batch) = seen {
                assert_eq!(batch.changes[0].previous.as_deref(), Some(&*current));
                assert_eq!(&batch.changes[0].object, outcome.object());
            }
            current = Arc::clone(outcome.object());
        }
        let unchanged = durable(&store, |tx| tx.put_status(key("app"), None, Arc::new(Value::Null))).await.unwrap();
        assert!(matches!(&unchanged.outcomes[0], Outcome::Unchanged(_)));
    }
}

#[tokio::test]
async fn deletion_waits_for_finalizers_and_its_event_has_a_new_version() {
    for (place, mode) in everywhere() {
        let store = place.open(mode);
        let mut watch = store.watch(store.resource_version()).unwrap();
        let mut made = object("app", json!({}));
        made.meta.finalizers = vec!["a".into(), "b".into()];
        durable(&store, |tx| tx.create(made)).await.unwrap();
        let deleted = durable(&store, |tx| tx.delete(key("app"), regardless(), NOW)).await.unwrap();
        let Outcome::Written(marked) = &deleted.outcomes[0] else { panic!("{deleted:?}") };
        assert_eq!(marked.meta.deletion_timestamp, Some(NOW));
        let again = durable(&store, |tx| tx.delete(key("app"), regardless(), NOW.plus_millis(9))).await.unwrap();
        assert_eq!(again.outcomes, [Outcome::Unchanged(Arc::clone(marked))]);
        let mut one_left = Object::clone(marked);
        one_left.meta.finalizers.remove(0);
        one_left.meta.deletion_timestamp = None;
        let kept = durable(&store, |tx| tx.put(one_left)).await.unwrap();
        let Outcome::Written(kept) = &kept.outcomes[0] else { panic!("{kept:?}") };
        assert_eq!(kept.meta.deletion_timestamp, Some(NOW));
        let mut none_left = Object::clone(kept);
        none_left.meta.finalizers.clear();
        let gone = durable(&store, |tx| tx.put(none_left)).await.unwrap();
        let Outcome::Removed(last) = &gone.outcomes[0] else { panic!("{gone:?}") };
        assert_eq!(last.meta.resource_version, kept.meta.resource_version + 1);
        assert!(store.snapshot().is_empty());
        let mut kinds = Vec::new();
        while let Some(batch) = watch.try_next().unwrap() {
            kinds.extend(batch.changes.iter().map(|change| (change.kind, change.object.meta.resource_version)));
        }
        assert_eq!(kinds, [(ChangeKind::Put, 2), (ChangeKind::Put, 3), (ChangeKind::Put, 4), (ChangeKind::Delete, 5)]);
        drop(store);
        assert!(place.open(mode).snapshot().is_empty());
    }
}

#[tokio::test]
async fn one_transaction_is_one_batch_and_each_operation_sees_the_ones_before_it() {
    for (place, mode) in everywhere() {
        let store = place.open(mode);
        let old = create(&store, "app").await;
        let start = store.resource_version();
        let mut watch = store.watch(start).unwrap();
        let committed = durable(&store, |tx| {
            tx.delete(key("app"), regardless(), NOW);
            tx.create(object("app", json!({"image": "anew"})));
            tx.put_status(key("app"), None, Arc::new(json!({"usable": false})));
            tx.create(object("other", json!({})))
        })
        .await
        .unwrap();
        assert_eq!(committed.resource_version, start + 4);
        let batch = watch.next().await.unwrap();
        assert_eq!(batch.resource_version, start + 4);
        let seen: Vec<_> = batch.changes.iter().map(|c| (c.kind, c.object.meta.resource_version - start, c.previous.is_some())).collect();
        assert_eq!(
            seen,
            [(ChangeKind::Delete, 1, true), (ChangeKind::Put, 2, false), (ChangeKind::Put, 3, true), (ChangeKind::Put, 4, false)]
        );
        assert_eq!(batch.changes[0].previous, Some(old));
        assert_eq!(watch.try_next().unwrap(), None);
        // A client may go on from the version of an object in the middle of the transaction.
        let rest = store.watch(start + 2).unwrap().next().await.unwrap();
        assert_eq!((rest.resource_version, rest.changes.len()), (start + 4, 2));
    }
}

#[tokio::test]
async fn a_snapshot_does_not_move_and_lists_by_kind_and_namespace() {
    let store = Place::Memory(Memory::new()).open(CommitMode::Inline);
    let keys = [("A", "", "x"), ("B", "m", "x"), ("B", "m", "y"), ("B", "m2", "x"), ("BB", "m", "x")];
    durable(&store, |tx| {
        for (kind, namespace, name) in keys {
            tx.create(Object::new(ObjectKey::new(kind, namespace, name), "u", NOW, json!({})));
        }
        tx
    })
    .await
    .unwrap();
    let snapshot = store.snapshot();
    durable(&store, |tx| tx.delete(ObjectKey::new("B", "m", "x"), regardless(), NOW)).await.unwrap();
    let list = |kind: &str, namespace| -> Vec<String> { snapshot.list(kind, namespace).map(|object| object.key.to_string()).collect() };
    assert_eq!(list("B", None), ["B m/x", "B m/y", "B m2/x"]);
    assert_eq!(list("B", Some("m")), ["B m/x", "B m/y"]);
    assert_eq!(list("A", Some("")), ["A x"]);
    assert_eq!(list("C", None), [""; 0]);
    assert_eq!((snapshot.len(), store.snapshot().len()), (5, 4));
    assert_eq!(snapshot.resource_version() + 1, store.resource_version());
}

#[tokio::test]
async fn a_slow_watcher_and_an_unknown_version_expire() {
    let options = Options { commit: CommitMode::Inline, log_batches: 3, ..Options::default() };
    let store = Store::open(Box::new(Memory::new()), options).unwrap();
    let start = store.resource_version();
    let mut slow = store.watch(start).unwrap();
    let mut quick = store.watch(start).unwrap();
    for name in ["a", "b", "c"] {
        create(&store, name).await;
    }
    assert_eq!(quick.next().await.unwrap().resource_version, start + 1);
    create(&store, "d").await;
    let expired = Expired { after: start, oldest: start + 1, newest: start + 4 };
    assert_eq!(slow.next().await, Err(expired));
    assert_eq!(store.watch(start).unwrap_err(), expired);
    assert_eq!(store.watch(start + 5).unwrap_err().after, start + 5);
    assert_eq!(quick.next().await.unwrap().resource_version, start + 2);
}

#[tokio::test]
async fn a_watch_waits_and_wakes_in_order() {
    for (place, mode) in everywhere() {
        let store = place.open(mode);
        let (woken, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut watchers = Vec::new();
        for number in 0..8 {
            let mut watch = store.watch(store.resource_version()).unwrap();
            let woken = woken.clone();
            watchers.push(tokio::spawn(async move {
                let batch = watch.next().await.unwrap();
                woken.send((number, batch.resource_version)).unwrap();
            }));
        }
        tokio::task::yield_now().await;
        create(&store, "app").await;
        for watcher in watchers {
            watcher.await.unwrap();
        }
        drop(woken);
        let mut seen = Vec::new();
        while let Some(one) = order.recv().await {
            seen.push(one);
        }
        assert_eq!(seen, (0..8).map(|number| (number, 2)).collect::<Vec<_>>(), "{}", place.name());
    }
}

#[tokio::test]
async fn a_crash_loses_soon_writes_whole_and_versions_go_on_above_them() {
    for place in Place::all() {
        let store = place.open(CommitMode::Inline);
        create(&store, "kept").await;
        for number in 0..5 {
            let status = Arc::new(json!({ "number": number }));
            commit(&store, Durability::Soon, |tx| {
                tx.put_status(key("kept"), None, status);
                tx.create(object(&format!("soon-{number}"), json!({})))
            })
            .await
            .unwrap();
        }
        let highest = store.resource_version();
        assert_eq!(store.snapshot().len(), 6);
        place.crash();
        drop(store);
        place.crash();
        let store = place.open(CommitMode::Inline);
        assert_eq!(store.snapshot().len(), 1, "{}", place.name());
        assert!(store.snapshot().get(&key("kept")).unwrap().status.is_null());
        let anew = create(&store, "anew").await;
        assert!(anew.meta.resource_version > highest, "{}", place.name());
    }
}

#[tokio::test]
async fn versions_never_go_back_over_many_crashes_and_block_borders() {
    for place in Place::all() {
        let mut highest = 0;
        for round in 0..4 {
            let store = place.open(CommitMode::Inline);
            for number in 0..700 {
                let name = format!("o-{round}-{number}");
                let made = commit(&store, Durability::Soon, |tx| tx.create(object(&name, json!({})))).await.unwrap();
                assert!(made.resource_version > highest);
                highest = made.resource_version;
            }
            drop(store);
            place.crash();
        }
    }
}

#[tokio::test]
async fn sync_makes_everything_accepted_survive() {
    for (place, mode) in everywhere() {
        let store = place.open(mode);
        commit(&store, Durability::Soon, |tx| tx.create(object("app", json!({})))).await.unwrap();
        store.sync().await.unwrap();
        let before = contents(&store);
        place.crash();
        drop(store);
        place.crash();
        assert_eq!(contents(&place.open(mode)), before, "{}", place.name());
    }
}

#[tokio::test(start_paused = true)]
async fn an_inline_store_flushes_with_the_first_commit_after_its_time() {
    for place in Place::all() {
        let store = place.open(CommitMode::Inline);
        create(&store, "app").await;
        for name in ["first", "second"] {
            commit(&store, Durability::Soon, |tx| tx.create(object(name, json!({})))).await.unwrap();
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
        }
        place.crash();
        drop(store);
        assert_eq!(place.open(CommitMode::Inline).snapshot().len(), 3, "{}", place.name());
    }
}

#[tokio::test]
async fn dropping_a_threaded_store_flushes_it() {
    for place in Place::all() {
        let store = place.open(CommitMode::Thread);
        commit(&store, Durability::Soon, |tx| tx.create(object("app", json!({})))).await.unwrap();
        drop(store);
        place.crash();
        assert_eq!(place.open(CommitMode::Thread).snapshot().len(), 1, "{}", place.name());
    }
}

#[tokio::test]
async fn a_fence_holds_only_for_the_current_token() {
    let store = Place::Memory(Memory::new()).open(CommitMode::Inline);
    let (leases, name) = (store.leases(), "change/app".into());
    let term = std::time::Duration::from_secs(1);
    let old = leases.acquire(&name, &"one".into(), term, qm_store::MonoMillis(0)).await.unwrap();
    durable(&store, |tx| tx.fence(&name, old.token).create(object("app", json!({})))).await.unwrap();
    let new = leases.acquire(&name, &"two".into(), term, qm_store::MonoMillis(1_000)).await.unwrap();
    let refused = durable(&store, |tx| tx.fence(&name, old.token).create(object("late", json!({})))).await;
    assert!(matches!(refused, Err(StoreError::Fenced { token, current, .. }) if token == old.token && current == Some(new.token)));
    assert_eq!(store.snapshot().len(), 1);
}

/// The raw contract of a backend, below the store.
#[test]
fn backends_keep_batches_in_order_and_give_records_back_sorted() {
    for place in Place::all() {
        let set = |key: &str, value: &str| Write { key: key.into(), value: Some(value.into()) };
        let mut backend = place.backend();
        assert_eq!(backend.load().unwrap(), []);
        backend.apply(&[set("b", "1"), set("a", "1"), set("c", "1")], Flush::Later).unwrap();
        backend.apply(&[set("a", "2"), Write { key: "c".into(), value: None }], Flush::Later).unwrap();
        backend.apply(&[set("a", "3")], Flush::Now).unwrap();
        backend.apply(&[set("lost", "1"), Write { key: "a".into(), value: None }], Flush::Later).unwrap();
        drop(backend);
        place.crash();
        let expected = [("a", "3"), ("b", "1")].map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()));
        assert_eq!(place.backend().load().unwrap(), expected, "{}", place.name());
    }
}

#[test]
fn a_copy_put_aside_is_whole_and_never_over_another() {
    let directory = tempfile::tempdir().unwrap();
    let path = place::file(&directory);
    let mut backend = Redb::at(&path);
    backend.load().unwrap();
    backend.apply(&[Write { key: "a".into(), value: Some("1".into()) }], Flush::Now).unwrap();
    backend.preserve("format-1").unwrap();
    backend.apply(&[Write { key: "a".into(), value: Some("2".into()) }], Flush::Now).unwrap();
    backend.preserve("format-1").unwrap();
    for (copy, value) in [("store.redb.format-1", "1"), ("store.redb.format-1.1", "2")] {
        assert_eq!(Redb::at(directory.path().join(copy)).load().unwrap(), [(b"a".to_vec(), value.as_bytes().to_vec())]);
    }
}
