//! Random transactions, restarts and crashes against a plain map.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use qm_api::meta::{Object, ObjectKey};
use qm_store::{ChangeKind, CommitMode, Durability, Outcome, Precondition, Store, StoreError, Watch};
use serde_json::json;

use crate::place::{NOW, Place, key, object};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// How the version that an operation expects relates to the real one.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Current,
    Stale,
}

#[derive(Clone, Debug)]
enum Op {
    Create { name: usize, spec: u8, finalizer: bool },
    Put { name: usize, spec: u8, label: u8, finalizer: bool, expect: Expect },
    Status { name: usize, status: u8, expect: Option<Expect> },
    Delete { name: usize, uid_matches: bool },
}

#[derive(Clone, Debug)]
enum Act {
    Commit { ops: Vec<Op>, durability: Durability },
    Sync,
    Restart,
    Crash,
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    version: u64,
    generation: u64,
    spec: u8,
    label: u8,
    status: Option<u8>,
    finalizer: bool,
    deleting: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    rows: BTreeMap<ObjectKey, Row>,
    version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    Written,
    Unchanged,
    Removed,
}

impl Model {
    fn bump(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// `None` = refused.
    fn apply(&mut self, op: &Op) -> Option<Expected> {
        match *op {
            Op::Create { name, spec, finalizer } => {
                if self.rows.contains_key(&key(NAMES[name])) {
                    return None;
                }
                let version = self.bump();
                let row = Row { version, generation: 1, spec, label: 0, status: None, finalizer, deleting: false };
                self.rows.insert(key(NAMES[name]), row);
                Some(Expected::Written)
            }
            Op::Put { name, spec, label, finalizer, expect } => {
                let old = self.rows.get(&key(NAMES[name]))?.clone();
                if matches!(expect, Expect::Stale) {
                    return None;
                }
                let mut new = Row { spec, label, finalizer, ..old.clone() };
                if new == old {
                    return Some(Expected::Unchanged);
                }
                new.generation += u64::from(spec != old.spec);
                new.version = self.bump();
                if new.deleting && !new.finalizer {
                    self.rows.remove(&key(NAMES[name]));
                    return Some(Expected::Removed);
                }
                self.rows.insert(key(NAMES[name]), new);
                Some(Expected::Written)
            }
            Op::Status { name, status, expect } => {
                let old = self.rows.get(&key(NAMES[name]))?.clone();
                if matches!(expect, Some(Expect::Stale)) {
                    return None;
                }
                if old.status == Some(status) {
                    return Some(Expected::Unchanged);
                }
                let version = self.bump();
                self.rows.insert(key(NAMES[name]), Row { status: Some(status), version, ..old });
                Some(Expected::Written)
            }
            Op::Delete { name, uid_matches } => {
                let old = self.rows.get(&key(NAMES[name]))?.clone();
                if !uid_matches {
                    return None;
                }
                if !old.finalizer {
                    self.bump();
                    self.rows.remove(&key(NAMES[name]));
                    return Some(Expected::Removed);
                }
                if old.deleting {
                    return Some(Expected::Unchanged);
                }
                let version = self.bump();
                self.rows.insert(key(NAMES[name]), Row { deleting: true, version, ..old });
                Some(Expected::Written)
            }
        }
    }
}

fn row(object: &Object) -> Row {
    Row {
        version: object.meta.resource_version,
        generation: object.meta.generation,
        spec: u8::try_from(object.spec["n"].as_u64().unwrap()).unwrap(),
        label: object.meta.labels.get("l").map_or(0, |label| label.parse().unwrap()),
        status: object.status["n"].as_u64().map(|status| u8::try_from(status).unwrap()),
        finalizer: !object.meta.finalizers.is_empty(),
        deleting: object.is_deleting(),
    }
}

fn rows(store: &Store) -> BTreeMap<ObjectKey, Row> {
    store.snapshot().iter().map(|object| (object.key.clone(), row(object))).collect()
}

/// Puts an operation into a transaction; the versions expected are those the model has now, operations before it included.
fn fill(tx: &mut qm_store::Tx, op: &Op, model: &Model) {
    let version = |name: usize, expect| match (model.rows.get(&key(NAMES[name])), expect) {
        (Some(row), Expect::Current) => row.version,
        (Some(row), Expect::Stale) => row.version + 1_000_000,
        (None, _) => 1,
    };
    let finalizers = |wanted: bool| if wanted { vec!["f".into()] } else { Vec::new() };
    match *op {
        Op::Create { name, spec, finalizer } => {
            let mut object = object(NAMES[name], json!({ "n": spec }));
            object.meta.finalizers = finalizers(finalizer);
            tx.create(object);
        }
        Op::Put { name, spec, label, finalizer, expect } => {
            let mut object = object(NAMES[name], json!({ "n": spec }));
            object.meta.finalizers = finalizers(finalizer);
            object.meta.resource_version = version(name, expect);
            if label > 0 {
                object.meta.labels.insert("l".into(), label.to_string().into());
            }
            if let Some(status) = model.rows.get(&key(NAMES[name])).and_then(|row| row.status) {
                object.status = Arc::new(json!({ "n": status }));
            }
            tx.put(object);
        }
        Op::Status { name, status, expect } => {
            tx.put_status(key(NAMES[name]), expect.map(|expect| version(name, expect)), Arc::new(json!({ "n": status })));
        }
        Op::Delete { name, uid_matches } => {
            let uid = if uid_matches { format!("uid-{}", NAMES[name]) } else { "another".to_owned() };
            tx.delete(key(NAMES[name]), Precondition { uid: Some(uid.into()), resource_version: None }, NOW);
        }
    }
}

fn drain(watch: &mut Watch, mirror: &mut BTreeMap<ObjectKey, Arc<Object>>) {
    while let Some(batch) = watch.try_next().unwrap() {
        assert_eq!(batch.changes.last().unwrap().object.meta.resource_version, batch.resource_version);
        for change in &batch.changes {
            let previous = match change.kind {
                ChangeKind::Put => mirror.insert(change.object.key.clone(), Arc::clone(&change.object)),
                ChangeKind::Delete => mirror.remove(&change.object.key),
            };
            assert_eq!(previous, change.previous);
        }
    }
}

/// One run: `history` holds every accepted state since the last one known to be on disk, oldest first.
async fn run(place: &Place, mode: CommitMode, acts: Vec<Act>) {
    let mut store = place.open(mode);
    let mut model = Model { version: store.resource_version(), ..Model::default() };
    let mut history = vec![model.clone()];
    let mut highest = model.version;
    let mut watch = store.watch(store.resource_version()).unwrap();
    let mut mirror = BTreeMap::new();
    for act in acts {
        match act {
            Act::Commit { ops, durability } => {
                let mut draft = model.clone();
                let mut tx = store.tx();
                let mut expected = Some(Vec::new());
                for op in &ops {
                    fill(&mut tx, op, &draft);
                    expected = expected.and_then(|mut all| draft.apply(op).map(|one| (all.push(one), all).1));
                }
                match (tx.commit(durability).await, expected) {
                    (Ok(committed), Some(expected)) => {
                        model = draft;
                        let found: Vec<Expected> = committed.outcomes.iter().map(kind).collect();
                        assert_eq!((found, committed.resource_version), (expected, model.version));
                        history.push(model.clone());
                        if durability == Durability::Durable {
                            history.drain(..history.len() - 1);
                        }
                    }
                    (Err(StoreError::Backend(error)), _) => panic!("{error}"),
                    (Err(_), None) => {}
                    (answer, expected) => panic!("{answer:?}, expected {expected:?}"),
                }
            }
            Act::Sync => {
                store.sync().await.unwrap();
                history.drain(..history.len() - 1);
            }
            Act::Restart | Act::Crash => {
                if matches!(act, Act::Restart) {
                    store.sync().await.unwrap();
                    history.drain(..history.len() - 1);
                } else {
                    place.crash();
                }
                drop(store);
                place.crash();
                store = place.open(mode);
                let found = rows(&store);
                let survived = history.iter().rev().find(|state| state.rows == found);
                model = Model {
                    version: store.resource_version(),
                    ..survived.unwrap_or_else(|| panic!("{found:?} not in {history:?}")).clone()
                };
                history = vec![model.clone()];
                assert!(model.version >= highest, "version {} after {highest}", model.version);
                watch = store.watch(store.resource_version()).unwrap();
                mirror = store.snapshot().iter().map(|object| (object.key.clone(), Arc::clone(object))).collect();
            }
        }
        assert_eq!((rows(&store), store.resource_version()), (model.rows.clone(), model.version));
        highest = highest.max(model.version);
        drain(&mut watch, &mut mirror);
        assert!(mirror.values().eq(store.snapshot().iter()));
    }
}

fn kind(outcome: &Outcome) -> Expected {
    match outcome {
        Outcome::Written(_) => Expected::Written,
        Outcome::Unchanged(_) => Expected::Unchanged,
        Outcome::Removed(_) => Expected::Removed,
    }
}

fn op() -> impl Strategy<Value = Op> {
    let expect = || prop_oneof![9 => Just(Expect::Current), 1 => Just(Expect::Stale)];
    prop_oneof![
        3 => (0..4usize, 0..3u8, any::<bool>()).prop_map(|(name, spec, finalizer)| Op::Create { name, spec, finalizer }),
        4 => (0..4usize, 0..3u8, 0..2u8, any::<bool>(), expect())
            .prop_map(|(name, spec, label, finalizer, expect)| Op::Put { name, spec, label, finalizer, expect }),
        3 => (0..4usize, 0..3u8, prop::option::of(expect())).prop_map(|(name, status, expect)| Op::Status { name, status, expect }),
        2 => (0..4usize, prop::bool::weighted(0.9)).prop_map(|(name, uid_matches)| Op::Delete { name, uid_matches }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let durability = prop_oneof![Just(Durability::Durable), Just(Durability::Soon), Just(Durability::Soon)];
    prop_oneof![
        20 => (prop::collection::vec(op(), 1..4), durability).prop_map(|(ops, durability)| Act::Commit { ops, durability }),
        1 => Just(Act::Sync),
        1 => Just(Act::Restart),
        1 => Just(Act::Crash),
    ]
}

fn check(cases: u32, mode: CommitMode, place: fn() -> Place) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let acts = prop::collection::vec(act(), 1..60);
    runner
        .run(&acts, |acts| {
            runtime.block_on(run(&place(), mode, acts));
            Ok(())
        })
        .unwrap();
}

#[test]
fn memory_inline_agrees_with_the_model() {
    check(400, CommitMode::Inline, || Place::Memory(qm_store::backend::Memory::new()));
}

#[test]
fn memory_threaded_agrees_with_the_model() {
    check(100, CommitMode::Thread, || Place::Memory(qm_store::backend::Memory::new()));
}

#[test]
fn redb_inline_agrees_with_the_model() {
    check(60, CommitMode::Inline, || Place::Disk(crate::disk::Disk::new()));
}

#[test]
fn redb_threaded_agrees_with_the_model() {
    check(40, CommitMode::Thread, || Place::Disk(crate::disk::Disk::new()));
}
