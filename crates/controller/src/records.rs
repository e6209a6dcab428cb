//! Owns the internal kinds that the controller keeps in the store: revisions, pending reloads, epochs, attachments, events.

use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::job::Results;
use qm_plan::kinds::mini_service::PendingReload;
use qm_plan::plan::Revision;
use qm_plan::reload::{Counted, Memory as ReloadMemory, Verb};
use qm_plan::step::Cause;
use qm_store::Snapshot;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Kind: one revision of a service, named `<service>.<number>`.
pub const REVISION: &str = "Revision";
/// Kind: a reload that must be outlived, named after its service.
pub const PENDING_RELOAD: &str = "PendingReload";
/// Kind: what a service has reacted to of its dependencies, named after it.
pub const RELOADS: &str = "Reloads";
/// Kind: containers that were stopped for a lost dependency, named after their service.
pub const STOPPED: &str = "Stopped";
/// Kind: why a service does not run the revision that its manifest says, named after the service.
pub const ROLLBACK: &str = "Rollback";
/// Kind: what was adopted for an object, named `<kind>.<name>` after it.
pub const ADOPTION: &str = "Adoption";
/// Kind: what a job has run, named after it.
pub const JOB_RESULTS: &str = "JobResults";
/// Kind: how often a node was lost and changed, named after its service.
pub const EPOCH: &str = "Epoch";
/// Kind: a service has, or lately had, processes that use it, named after the service. Who they are is known in memory alone.
pub const USERS: &str = "Lease";
/// Kind: the content of a file that specs refer to, named by its digest; no namespace.
pub const ATTACHMENT: &str = "Attachment";
/// Kind: an event, served as core/v1.
pub const EVENT: &str = "Event";

/// Annotation: the source an object comes from.
pub const SOURCE: &str = "quaymaster.dev/source";
/// Annotation: the place in the source, `path:line`.
pub const SOURCE_PATH: &str = "quaymaster.dev/source-path";
/// Annotation: the files the spec refers to, as JSON `{"as written": "digest"}`.
pub const FILES: &str = "quaymaster.dev/files";
/// Annotation: nobody wrote this object; it follows from others.
pub const IMPLICIT: &str = "quaymaster.dev/implicit";
/// The finalizer of everything that has something in an engine.
pub const TEARDOWN: &str = "quaymaster.dev/teardown";

/// So long after a rollout was complete a failure still is the update's, in milliseconds.
pub const TRIAL_MS: i64 = 60_000;
/// How many revisions are kept.
pub const REVISIONS_KEPT: usize = 5;

/// A stored revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionRecord {
    /// The service's name.
    pub service: Name,
    /// When it was made.
    pub created_at: Timestamp,
    /// The revision.
    pub revision: Revision,
    /// What its rollout was made of, once that was complete: `spec.container`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Value>,
    /// The files that the container refers to, as written, with their digests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// When its rollout was complete for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Timestamp>,
}

impl RevisionRecord {
    /// Whether it was complete for long enough: from then on what happens to it is no fault of the update. One that was complete in the
    /// future was so before the clock went back.
    pub fn trial_is_over(&self, now: Timestamp) -> bool {
        self.proven_at.is_some_and(|at| at > now || at.plus_millis(TRIAL_MS) <= now)
    }
}

/// A stored rollback, or the pause of a failed rollout. It holds while its inputs stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollbackRecord {
    /// The generation that is not carried out.
    pub generation: u64,
    /// The files that its spec refers to, as the object's annotation says.
    #[serde(default)]
    pub files: Option<String>,
    /// The number of the revision that failed or was taken back.
    pub failed: u64,
    /// The number of the one that runs; absent = the rollout is only paused.
    #[serde(default)]
    pub to: Option<u64>,
    /// Who asked for it; absent = the operator decided.
    #[serde(default)]
    pub actor: Option<String>,
    /// The evidence, or the person's reason.
    pub evidence: String,
    /// When.
    pub at: Timestamp,
}

impl RollbackRecord {
    /// Whether the object still is what this was decided about.
    pub fn holds(&self, object: &Object) -> bool {
        self.generation == object.meta.generation && self.files == object.meta.annotations.get(FILES).map(ToString::to_string)
    }

    /// What happened and what ends it, for people.
    pub fn message(&self, service: &ObjectKey) -> String {
        let why = match &self.actor {
            Some(actor) if self.evidence.is_empty() => format!("revision {} was taken back by {actor}", self.failed),
            Some(actor) => format!("revision {} was taken back by {actor}: {}", self.failed, self.evidence),
            None => format!("revision {} failed: {}", self.failed, self.evidence),
        };
        let now = self.to.map_or_else(|| "no further replica is replaced".to_owned(), |to| format!("revision {to} runs"));
        format!("{why}; {now} until the manifest changes, or `quaymaster retry msvc/{} -n {}`", service.name, service.namespace)
    }
}

/// The rollback of a service, whether or not it still holds.
pub fn rollback(snapshot: &Snapshot, service: &ObjectKey) -> Option<RollbackRecord> {
    read(snapshot, ROLLBACK, service)
}

/// What was adopted for one object, by the engine's ids: their stamps, which are not in the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdoptionRecord {
    /// The stamps.
    pub things: BTreeMap<Name, AdoptedStamp>,
}

/// The stamp of something adopted, without its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdoptedStamp {
    /// Its slot; 0 for a network.
    pub slot: u32,
    /// The spec-hash that it would have, had it been made from a manifest.
    pub spec_hash: Name,
    /// The image reference; empty for a network.
    #[serde(default)]
    pub image: Name,
}

/// The key of the adoption record of an object.
pub fn adoption_key(object: &ObjectKey) -> ObjectKey {
    ObjectKey::new(ADOPTION, object.namespace.clone(), format!("{}.{}", object.kind, object.name))
}

/// A stored pending reload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingReloadRecord {
    /// What is to be done.
    pub verb: Verb,
    /// Who asked; empty where it follows from dependencies.
    #[serde(default)]
    pub actor: String,
    /// In their words.
    #[serde(default)]
    pub reason: String,
    /// What happened to dependencies, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<String>,
    /// Under which an app says that it has reloaded a part of itself; nothing else ends such a one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Name>,
    /// Containers with the start times that must be outlived.
    pub containers: BTreeMap<Name, Option<Timestamp>>,
}

impl From<PendingReloadRecord> for PendingReload {
    fn from(record: PendingReloadRecord) -> Self {
        let cause = match record.triggers.is_empty() {
            true => Cause::Asked { actor: record.actor, reason: record.reason },
            false => Cause::Reload { triggers: record.triggers },
        };
        Self { verb: record.verb, cause, containers: record.containers }
    }
}

/// What was stopped for a lost dependency: containers with the start times they had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoppedRecord {
    /// The containers.
    pub containers: BTreeMap<Name, Option<Timestamp>>,
}

/// A stored epoch: what has happened to a node that its dependents may have to react to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EpochRecord {
    /// Observed losses that have ended.
    pub losses_ended: u64,
    /// The last revision that was rolled out and usable.
    pub revision: u64,
    /// The node is in an observed loss now.
    #[serde(default)]
    pub lost: bool,
    /// Planned changes that took it down and are done.
    #[serde(default)]
    pub changes_ended: u64,
    /// A planned change keeps it down now.
    #[serde(default)]
    pub changing: bool,
    /// When the last loss ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned_at: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
}

impl EpochRecord {
    /// What dependents compare.
    pub fn counted(&self) -> Counted {
        Counted { losses_ended: self.losses_ended, changes_ended: self.changes_ended, revision: self.revision }
    }
}

/// What has been counted of a node; `None` = it was never usable.
pub fn epoch(snapshot: &Snapshot, node: &ObjectKey) -> Option<EpochRecord> {
    read(snapshot, EPOCH, node)
}

/// What a job has run.
pub fn job_results(snapshot: &Snapshot, job: &ObjectKey) -> Option<Results> {
    read(snapshot, JOB_RESULTS, job)
}

/// What a service has reacted to.
pub fn reloads(snapshot: &Snapshot, service: &ObjectKey) -> ReloadMemory {
    read(snapshot, RELOADS, service).unwrap_or_default()
}

/// What was stopped for a lost dependency.
pub fn stopped(snapshot: &Snapshot, service: &ObjectKey) -> Option<StoppedRecord> {
    read(snapshot, STOPPED, service)
}

fn read<T: serde::de::DeserializeOwned>(snapshot: &Snapshot, kind: &str, service: &ObjectKey) -> Option<T> {
    let object = snapshot.get(&ObjectKey::new(kind, service.namespace.clone(), service.name.clone()))?;
    match object.decode_spec() {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(key = %object.key, error = %error, "a record cannot be read and is left out");
            None
        }
    }
}

/// The key of a revision record.
pub fn revision_key(service: &ObjectKey, number: u64) -> ObjectKey {
    ObjectKey::new(REVISION, service.namespace.clone(), format!("{}.{number}", service.name))
}

/// The recorded revisions of a service, newest first.
pub fn revisions(snapshot: &Snapshot, service: &ObjectKey) -> Vec<RevisionRecord> {
    let mut records: Vec<RevisionRecord> = snapshot
        .list(REVISION, Some(&service.namespace))
        .filter(|object| object.key.name.rsplit_once('.').is_some_and(|(name, _)| name == service.name.as_str()))
        .filter_map(|object| match object.decode_spec::<RevisionRecord>() {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::warn!(key = %object.key, error = %error, "a revision record cannot be read and is left out");
                None
            }
        })
        .collect();
    records.sort_by_key(|r| std::cmp::Reverse(r.revision.number));
    records
}

/// The pending reload of a service.
pub fn pending_reload(snapshot: &Snapshot, service: &ObjectKey) -> Option<PendingReloadRecord> {
    read(snapshot, PENDING_RELOAD, service)
}
