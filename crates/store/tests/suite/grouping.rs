//! The writer thread: what waits together is stored together, fails together, and is flushed without being asked.

use std::sync::mpsc;
use std::time::Duration;

use qm_store::backend::Memory;
use qm_store::{Backend, BackendError, Durability, Flush, Options, Records, Store, StoreError, Write};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::place::{commit, contents, durable, object};

/// A backend whose every batch is announced and waits for permission.
struct Gated {
    memory: Memory,
    announce: UnboundedSender<(usize, Flush)>,
    permits: mpsc::Receiver<bool>,
}

struct Gate {
    announced: UnboundedReceiver<(usize, Flush)>,
    permit: mpsc::Sender<bool>,
}

fn gated() -> (Gated, Gate) {
    let (announce, announced) = unbounded_channel();
    let (permit, permits) = mpsc::channel();
    (Gated { memory: Memory::new(), announce, permits }, Gate { announced, permit })
}

impl Backend for Gated {
    fn load(&mut self) -> Result<Records, BackendError> {
        self.memory.load()
    }

    fn apply(&mut self, writes: &[Write], flush: Flush) -> Result<(), BackendError> {
        // The test may have ended and taken the gate away.
        let _ = self.announce.send((writes.len(), flush));
        match self.permits.recv() {
            Ok(false) => Err(std::io::Error::other("no permit").into()),
            Ok(true) | Err(_) => self.memory.apply(writes, flush),
        }
    }

    fn preserve(&mut self, label: &str) -> Result<(), BackendError> {
        self.memory.preserve(label)
    }
}

fn open(gated: Gated, gate: &Gate, sync_every: Duration) -> Store {
    gate.permit.send(true).unwrap();
    Store::open(Box::new(gated), Options { sync_every, ..Options::default() }).unwrap()
}

/// Hands over one transaction, which the backend holds back, then ten more.
async fn pile_up(store: &Store, gate: &mut Gate) -> Vec<tokio::task::JoinHandle<Result<qm_store::Committed, StoreError>>> {
    let mut tasks = Vec::new();
    for number in 0..11 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move { durable(&store, |tx| tx.create(object(&format!("o-{number}"), json!({})))).await }));
        if number == 0 {
            // The store's first records, then the first object and its reserved versions.
            assert_eq!(gate.announced.recv().await, Some((3, Flush::Now)));
            assert_eq!(gate.announced.recv().await, Some((2, Flush::Now)));
        }
    }
    tokio::task::yield_now().await;
    assert!(contents(store).is_empty(), "published before the backend took it");
    tasks
}

#[tokio::test]
async fn what_waits_together_is_one_batch() {
    let (gated, mut gate) = gated();
    let store = open(gated, &gate, Duration::from_secs(3_600));
    let tasks = pile_up(&store, &mut gate).await;
    gate.permit.send(true).unwrap();
    assert_eq!(gate.announced.recv().await, Some((10, Flush::Now)));
    gate.permit.send(true).unwrap();
    for (number, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap().unwrap().resource_version, number as u64 + 2);
    }
    assert_eq!(store.snapshot().len(), 11);
}

#[tokio::test]
async fn what_waits_together_fails_together_and_is_undone() {
    let (gated, mut gate) = gated();
    let memory = gated.memory.clone();
    let store = open(gated, &gate, Duration::from_secs(3_600));
    let tasks = pile_up(&store, &mut gate).await;
    for permit in [true, false, false] {
        gate.permit.send(permit).unwrap();
    }
    for (number, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap().is_ok(), number == 0);
    }
    assert_eq!((store.snapshot().len(), store.resource_version()), (1, 2));
    assert_eq!(gate.announced.recv().await, Some((10, Flush::Now)));
    assert_eq!(gate.announced.recv().await, Some((10, Flush::Now)), "the undoing, which failed too");
    // What is in doubt goes with the next transaction, even with one that could wait.
    gate.permit.send(true).unwrap();
    commit(&store, Durability::Soon, |tx| tx.create(object("next", json!({})))).await.unwrap();
    assert_eq!(gate.announced.recv().await, Some((11, Flush::Now)));
    memory.forget_unsynced();
    assert_eq!(memory.clone().load().unwrap().len(), 5, "three records of the store's own, two objects");
}

#[tokio::test]
async fn what_may_wait_is_flushed_without_being_asked() {
    let (gated, mut gate) = gated();
    let store = open(gated, &gate, Duration::from_millis(1));
    drop(gate.permit);
    durable(&store, |tx| tx.create(object("first", json!({})))).await.unwrap();
    commit(&store, Durability::Soon, |tx| tx.create(object("second", json!({})))).await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&(0, Flush::Now)) {
        seen.push(gate.announced.recv().await.unwrap());
    }
    assert_eq!(seen, [(3, Flush::Now), (2, Flush::Now), (1, Flush::Later), (0, Flush::Now)]);
}
