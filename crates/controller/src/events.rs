//! Owns events: what happened to an object, for people. Same ones are counted, not repeated; at most 50 an object, for 24 hours.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use qm_api::conditions::Reason;
use qm_api::meta::{Object, ObjectKey};
use qm_api::time::Timestamp;
use qm_store::{Durability, Precondition, Store};
use serde_json::json;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::records::EVENT;

/// Events kept an object.
const KEPT: usize = 50;
/// How long an event is kept, in milliseconds.
const TERM_MS: i64 = 24 * 3_600_000;

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    /// It went as it should.
    Normal,
    /// It did not.
    Warning,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Happening {
    /// To whom.
    pub object: ObjectKey,
    /// The object's uid, if it is known.
    pub uid: qm_api::name::Name,
    /// Whether it is good news.
    pub kind: EventType,
    /// What kind of thing.
    pub reason: Reason,
    /// In words.
    pub message: String,
}

#[derive(Debug, Default)]
struct Pending {
    counts: BTreeMap<Happening, (u64, Timestamp, Timestamp)>,
    /// First arrival order, so that the store sees events as they came.
    order: Vec<Happening>,
}

/// Collects events and writes them in batches.
#[derive(Debug)]
pub struct Events {
    store: Store,
    clock: Clock,
    pending: Mutex<Pending>,
    wake: Notify,
    written: Mutex<BTreeMap<ObjectKey, Vec<(Happening, ObjectKey)>>>,
}

impl Events {
    /// A recorder over a store.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, pending: Mutex::default(), wake: Notify::new(), written: Mutex::default() }
    }

    /// Records a happening; it is in the store soon.
    pub fn record(&self, happening: Happening) {
        let now = self.clock.wall();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        match pending.counts.get_mut(&happening) {
            Some((count, _, last)) => {
                *count += 1;
                *last = now;
            }
            None => {
                pending.counts.insert(happening.clone(), (1, now, now));
                pending.order.push(happening);
            }
        }
        drop(pending);
        self.wake.notify_one();
    }

    /// Writes for ever.
    pub async fn run(&self) {
        loop {
            self.flush().await;
            self.wake.notified().await;
        }
    }

    /// Writes what is pending.
    pub async fn flush(&self) {
        let (order, mut counts) = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut pending.order), std::mem::take(&mut pending.counts))
        };
        for happening in order {
            let Some((count, first, last)) = counts.remove(&happening) else { continue };
            if let Err(error) = self.write(&happening, count, first, last).await {
                tracing::warn!(object = %happening.object, error = %error, "an event could not be stored: {}", happening.message);
            }
        }
    }

    async fn write(&self, happening: &Happening, count: u64, first: Timestamp, last: Timestamp) -> Result<(), qm_store::StoreError> {
        let known = {
            let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.get(&happening.object).and_then(|list| list.iter().find(|(h, _)| h == happening)).map(|(_, key)| key.clone())
        };
        if let Some(old) = known.and_then(|key| self.store.snapshot().get(&key).cloned()) {
            let mut object = (*old).clone();
            let mut spec = (*object.spec).clone();
            spec["count"] = json!(spec["count"].as_u64().unwrap_or(1) + count);
            spec["lastTimestamp"] = json!(last.to_seconds_string());
            object.spec = std::sync::Arc::new(spec);
            let mut tx = self.store.tx();
            tx.put(object);
            return tx.commit(Durability::Soon).await.map(drop);
        }
        let uid = self.clock.uid();
        let name = format!("{}.{}", happening.object.name, uid);
        let key = ObjectKey::new(EVENT, happening.object.namespace.clone(), name);
        let spec = json!({
            "involvedObject": {
                "apiVersion": qm_api::meta::API_VERSION,
                "kind": happening.object.kind,
                "namespace": happening.object.namespace,
                "name": happening.object.name,
                "uid": happening.uid,
            },
            "reason": happening.reason,
            "message": happening.message,
            "type": match happening.kind { EventType::Normal => "Normal", EventType::Warning => "Warning" },
            "count": count,
            "firstTimestamp": first.to_seconds_string(),
            "lastTimestamp": last.to_seconds_string(),
            "eventTime": first,
            "source": {"component": "quaymaster"},
            "reportingComponent": "quaymaster",
            "reportingInstance": "",
        });
        let mut object = Object::new(key.clone(), uid, first, spec);
        object.api_version = "v1".into();
        let mut tx = self.store.tx();
        tx.create(object);
        let evicted = {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let list = written.entry(happening.object.clone()).or_default();
            list.push((happening.clone(), key));
            (list.len() > KEPT).then(|| list.remove(0).1)
        };
        if let Some(old) = evicted.filter(|key| self.store.snapshot().get(key).is_some()) {
            tx.delete(old, Precondition::default(), last);
        }
        tx.commit(Durability::Soon).await.map(drop)
    }

    /// Takes events that were stored by an earlier process into account, and removes those that are too old.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn sweep(&self) -> Result<(), qm_store::StoreError> {
        let now = self.clock.wall();
        let snapshot = self.store.snapshot();
        let mut by_object: BTreeMap<ObjectKey, Vec<(u64, ObjectKey)>> = BTreeMap::new();
        let mut old: Vec<ObjectKey> = Vec::new();
        for event in snapshot.list(EVENT, None) {
            let last = event.spec["lastTimestamp"].as_str().and_then(|t| Timestamp::parse(t).ok()).unwrap_or_default();
            if now.millis_since(last) > TERM_MS {
                old.push(event.key.clone());
                continue;
            }
            let about = &event.spec["involvedObject"];
            let text = |field: &str| about[field].as_str().unwrap_or_default().to_owned();
            let object = ObjectKey::new(text("kind"), text("namespace"), text("name"));
            by_object.entry(object).or_default().push((event.meta.resource_version, event.key.clone()));
        }
        for list in by_object.values_mut() {
            list.sort();
            let excess = list.len().saturating_sub(KEPT);
            old.extend(list.drain(..excess).map(|(_, key)| key));
        }
        if old.is_empty() {
            return Ok(());
        }
        {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            for list in written.values_mut() {
                list.retain(|(_, key)| !old.contains(key));
            }
            written.retain(|_, list| !list.is_empty());
        }
        let mut tx = self.store.tx();
        for key in old {
            tx.delete(key, Precondition::default(), now);
        }
        tx.commit(Durability::Soon).await.map(drop)
    }
}
