//! Every single call to the disk fails once, in three ways, and the disk runs full: what was refused never happened, what was accepted
//! stays, and the store works again as soon as the disk does.

use std::collections::BTreeMap;
use std::sync::Arc;

use qm_api::meta::{Object, ObjectKey};
use qm_store::backend::Redb;
use qm_store::{Backend, CommitMode, Durability, OpenError, Retry, Store, StoreError};
use serde_json::json;

use crate::disk::{Disk, Failing};
use crate::place::{self, NOW, Place, commit, contents, durable, key, object, regardless};

type Contents = Vec<Arc<Object>>;

/// What a run of the workload knows at its end.
struct Run {
    /// The contents after each accepted transaction, oldest first, beginning with the empty store.
    accepted: Vec<Contents>,
    /// The index in `accepted` from which on everything must survive.
    durable: usize,
    /// The highest version anyone has seen.
    highest: u64,
    refused: usize,
}

/// Commits a fixed series of transactions, each of two objects or more, goes on after refusals, and checks that they change nothing.
async fn workload(store: &Store) -> Run {
    let mut run = Run { accepted: vec![contents(store)], durable: 0, highest: store.resource_version(), refused: 0 };
    for round in 0..12u64 {
        let durability = if round % 3 == 2 { Durability::Soon } else { Durability::Durable };
        let before = (contents(store), store.resource_version());
        let names = [format!("a-{round}"), format!("b-{round}")];
        let result = commit(store, durability, |tx| {
            for name in &names {
                tx.create(object(name, json!({"text": "x".repeat(700), "round": round})));
            }
            if round >= 4 && before.0.iter().any(|object| object.key == key(&format!("a-{}", round - 4))) {
                tx.delete(key(&format!("a-{}", round - 4)), regardless(), NOW);
                tx.put_status(key(&format!("b-{}", round - 4)), None, Arc::new(json!({ "round": round })));
            }
            tx
        })
        .await;
        match result {
            Ok(committed) => {
                run.accepted.push(contents(store));
                if durability == Durability::Durable {
                    run.durable = run.accepted.len() - 1;
                }
                assert!(committed.resource_version > run.highest);
                run.highest = committed.resource_version;
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Backend(_)) && error.retry() == Retry::Transient, "{error:?}");
                assert_eq!((contents(store), store.resource_version()), before);
                run.refused += 1;
            }
        }
    }
    run
}

fn open(disk: &Arc<Disk>) -> Result<Store, OpenError> {
    Place::Disk(Arc::clone(disk)).try_open(CommitMode::Inline)
}

/// A disk with an empty database: making a new one whole or not at all is what the link of a finished file is for.
fn blank() -> Arc<Disk> {
    let disk = Disk::new();
    Redb::over(Arc::<Disk>::clone(&disk)).load().unwrap();
    disk
}

/// Opens the store again and checks that it is where the run left it, or at an earlier accepted state no older than `oldest`.
async fn check(disk: &Arc<Disk>, run: &Run, oldest: usize, what: &str) {
    let store = open(disk).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let found = contents(&store);
    let at = run.accepted.iter().rposition(|contents| *contents == found);
    assert!(at.is_some_and(|at| at >= oldest), "{what}: found state {at:?}, {oldest} was on disk");
    let next = durable(&store, |tx| tx.create(object("after", json!({})))).await.unwrap();
    assert!(next.resource_version > run.highest, "{what}: version {} after {}", next.resource_version, run.highest);
}

#[tokio::test]
async fn every_call_fails_once_and_nothing_is_half_done_or_lost() {
    let (mut points, mut refusals) = (0, 0);
    for failing in [Failing::NotDone, Failing::HalfDone, Failing::Done] {
        for crash in [false, true] {
            for n in 1.. {
                let what = format!("call {n} fails ({failing:?}), crash: {crash}");
                let disk = blank();
                disk.fail_nth(n, failing);
                let run = match open(&disk) {
                    Ok(store) => {
                        let run = workload(&store).await;
                        let oldest = if crash { run.durable } else { run.accepted.len() - 1 };
                        if !crash {
                            // The failure may still be waiting for this very call.
                            while store.sync().await.is_err() {}
                        }
                        let armed = disk.is_armed();
                        disk.disarm();
                        if crash {
                            disk.crash();
                        }
                        drop(store);
                        if crash {
                            disk.crash();
                        }
                        check(&disk, &run, oldest, &what).await;
                        if armed {
                            break;
                        }
                        run
                    }
                    Err(error) => {
                        assert_eq!(error.retry(), Retry::Transient, "{what}: {error:?}");
                        if crash {
                            disk.crash();
                        }
                        let run = Run { accepted: vec![Vec::new()], durable: 0, highest: 0, refused: 0 };
                        check(&disk, &run, 0, &what).await;
                        run
                    }
                };
                points += 1;
                refusals += run.refused;
            }
        }
    }
    assert!(points > 300 && refusals > 200, "{points} points of failure, {refusals} refusals: the workload hardly touches the disk");
}

#[tokio::test]
async fn opening_an_existing_store_survives_the_failure_of_any_call() {
    let original = Disk::new();
    let store = open(&original).unwrap();
    let run = workload(&store).await;
    store.sync().await.unwrap();
    drop(store);
    let bytes = original.bytes();
    for n in 1.. {
        let disk = Disk::holding(bytes.clone());
        disk.fail_nth(n, Failing::HalfDone);
        let opened = open(&disk);
        let armed = disk.is_armed();
        disk.disarm();
        match opened {
            Ok(store) => assert_eq!(Some(&contents(&store)), run.accepted.last(), "call {n}"),
            Err(error) => assert_eq!(error.retry(), Retry::Transient, "call {n}: {error:?}"),
        }
        check(&disk, &run, run.accepted.len() - 1, &format!("call {n}")).await;
        if armed {
            assert!(n > 10, "opening makes {n} calls only");
            return;
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_the_store_goes_on_when_there_is_space() {
    for mode in [CommitMode::Inline, CommitMode::Thread] {
        let disk = Disk::new();
        let place = Place::Disk(Arc::clone(&disk));
        let store = place.open(mode);
        durable(&store, |tx| tx.create(object("first", json!({})))).await.unwrap();
        disk.set_capacity(disk.bytes().len() as u64 + (5 << 20));
        let mut model: BTreeMap<ObjectKey, Arc<Object>> = contents(&store).into_iter().map(|object| (object.key.clone(), object)).collect();
        let mut refused = 0;
        for number in 0..60 {
            let made = object(&format!("big-{number}"), json!({"text": "x".repeat(200_000)}));
            match durable(&store, |tx| tx.create(made)).await {
                Ok(committed) => {
                    let object = committed.outcomes[0].object();
                    model.insert(object.key.clone(), Arc::clone(object));
                }
                Err(error) => {
                    assert_eq!(error.retry(), Retry::Transient);
                    assert_eq!(error.to_string(), "the disk that holds the store is full: free some space and it goes on by itself");
                    refused += 1;
                }
            }
            assert_eq!(contents(&store), model.values().cloned().collect::<Vec<_>>());
        }
        assert!(refused > 0 && model.len() > 1, "{refused} refused, {} accepted", model.len());
        // What may wait is still taken on trust once, but no longer when it was seen that the disk does not take it.
        let big = |name: &str| object(name, json!({"text": "x".repeat(200_000)}));
        let soon = commit(&store, Durability::Soon, |tx| tx.create(big("soon"))).await.unwrap();
        model.insert(key("soon"), Arc::clone(soon.outcomes[0].object()));
        assert!(matches!(store.sync().await, Err(StoreError::Backend(_))));
        assert!(matches!(commit(&store, Durability::Soon, |tx| tx.create(big("later"))).await, Err(StoreError::Backend(_))));
        assert_eq!(contents(&store), model.values().cloned().collect::<Vec<_>>());
        disk.set_capacity(u64::MAX);
        let made = durable(&store, |tx| tx.create(object("after", json!({"text": "x".repeat(200_000)})))).await.unwrap();
        model.insert(key("after"), Arc::clone(made.outcomes[0].object()));
        drop(store);
        disk.crash();
        assert_eq!(contents(&place.open(mode)), model.into_values().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn soon_writes_outlive_a_failed_flush() {
    let disk = Disk::new();
    let store = open(&disk).unwrap();
    durable(&store, |tx| tx.create(object("first", json!({})))).await.unwrap();
    for number in 0..5 {
        let name = format!("soon-{number}");
        commit(&store, Durability::Soon, |tx| tx.create(object(&name, json!({})))).await.unwrap();
    }
    disk.fail_nth(3, Failing::HalfDone);
    store.sync().await.unwrap_err();
    assert_eq!(store.snapshot().len(), 6);
    store.sync().await.unwrap();
    disk.crash();
    drop(store);
    disk.crash();
    assert_eq!(open(&disk).unwrap().snapshot().len(), 6);
}

#[test]
fn a_file_in_use_is_said_to_be_so() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::File(directory);
    let store = place.open(CommitMode::Inline);
    let error = place.try_open(CommitMode::Inline).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }) && error.retry() == Retry::Transient, "{error:?}");
    drop(store);
    place.open(CommitMode::Inline);
}

#[tokio::test]
async fn a_crash_while_the_file_was_made_leaves_nothing_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = place::file(&directory);
    for leftover in [&b""[..], b"half a database"] {
        std::fs::write(path.with_extension("redb.new"), leftover).unwrap();
        let store = Store::open(Box::new(Redb::at(&path)), qm_store::Options::default()).unwrap();
        durable(&store, |tx| tx.create(object("app", json!({})))).await.unwrap();
        drop(store);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_directory_that_is_not_there_is_an_error_that_can_pass() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Box::new(Redb::at(directory.path().join("missing").join("store.redb")));
    let error = Store::open(backend, qm_store::Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Backend(_)), "{error:?}");
}
