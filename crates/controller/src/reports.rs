//! What apps say of their parts (the form `logical`): kept in memory, since a report that is older than a few seconds says nothing. An
//! app that has not spoken since this process began is unknown, not down.

use std::collections::BTreeSet;

use qm_api::availability::Availability;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_plan::desired::{DesiredService, Form};
use qm_plan::observed::Report;
use qm_store::{Durability, Precondition, StoreError};
use serde_json::{Value, json};

use crate::controller::Controller;
use crate::ports::AskError;
use crate::records::{self, PENDING_RELOAD};
use crate::reloads::record_key;
use crate::world::World;

/// A report as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// How available the part is.
    pub availability: Availability,
    /// Why, in the app's words.
    pub reason: String,
    /// What cannot be done with it now.
    pub blocked_operations: BTreeSet<String>,
    /// The reload that the app has carried out.
    pub ack: Option<String>,
}

/// What is remembered of an app's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) report: Report,
    pub(crate) blocked_operations: BTreeSet<String>,
    /// When it counts as silent, in monotonic milliseconds.
    pub(crate) silent_at_ms: u64,
    pub(crate) patience_ms: u64,
}

impl World {
    /// Takes what an app says of a part of it.
    pub(crate) fn put_report(&self, desired: &DesiredService, heartbeat: Heartbeat) {
        let Form::Logical(logical) = &desired.form else { return };
        let message = match heartbeat.reason.as_str() {
            "" => format!("{} reports it", logical.reported_by),
            reason => reason.to_owned(),
        };
        let said = Said {
            report: Report::Says { availability: heartbeat.availability, message },
            blocked_operations: heartbeat.blocked_operations,
            silent_at_ms: self.clock.mono_ms().saturating_add(logical.patience_ms()),
            patience_ms: logical.patience_ms(),
        };
        self.with_report(&desired.key, said);
    }

    /// What cannot be done with a service now, although it may be used.
    pub(crate) fn blocked_operations(&self, key: &ObjectKey) -> BTreeSet<String> {
        self.lock().reports.get(key).map(|said| said.blocked_operations.clone()).unwrap_or_default()
    }
}

impl Controller {
    /// Takes a heartbeat; gives how soon the next is wanted, and the reload that the app is to carry out, if there is one.
    ///
    /// # Errors
    /// When there is no such part of an app, or the store refuses.
    pub async fn heartbeat(&self, key: &ObjectKey, heartbeat: Heartbeat) -> Result<Value, AskError> {
        let desired = self.world.service(key).ok_or_else(|| AskError::NotFound(format!("there is no {key}")))?;
        let Form::Logical(logical) = &desired.form else {
            return Err(AskError::Invalid(format!("{key} is not `logical`: nobody reports for it")));
        };
        let ack = heartbeat.ack.clone();
        self.world.put_report(&desired, heartbeat);
        let snapshot = self.store.snapshot();
        let pending = records::pending_reload(&snapshot, key);
        let is_acked = |id: &Name| ack.as_ref().is_some_and(|ack| id == ack.as_str());
        if pending.as_ref().and_then(|record| record.id.as_ref()).is_some_and(is_acked) {
            let record = record_key(PENDING_RELOAD, key);
            // Only the one that was acknowledged: a newer one, for what happened meanwhile, is still to be told.
            let resource_version = snapshot.get(&record).map(|object| object.meta.resource_version);
            let mut tx = self.store.tx();
            tx.delete(record, Precondition { resource_version, ..Precondition::default() }, self.now());
            match tx.commit(Durability::Durable).await {
                Ok(_) | Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let pending = records::pending_reload(&self.store.snapshot(), key);
        let reload = pending
            .filter(|record| record.id.is_some())
            .map(|record| json!({ "id": record.id, "verb": record.verb, "because": record.triggers }));
        Ok(json!({ "heartbeat": format!("{}ms", logical.heartbeat_ms), "reload": reload }))
    }
}
