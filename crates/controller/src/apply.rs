//! Brings what sources declare into the store: one transaction a settled set; removals only where absence is certain (DESIGN 3.4, 3.5).
//!
//! Owns the prune guard: losing all, or more than half and over three, of a source's objects waits for a person. Sources themselves are
//! somebody else's; what comes in is parsed files and attachments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use qm_api::admit::{Admission, Attached, Candidate, FileInput, Known, LastGood, Set, Unreadable, admit_set, last_good};
use qm_api::conditions::Reason;
use qm_api::field::Violation;
use qm_api::kinds::mini_container;
use qm_api::kinds::mini_service::KIND as SERVICE;
use qm_api::manifest::{self, ParsedFile};
use qm_api::meta::{API_VERSION, Object, ObjectKey, OwnerReference};
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use qm_plan::leaf::hex_digest;
use qm_store::{Durability, Outcome, Precondition, Snapshot, StoreError};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::controller::Controller;
use crate::feed::encode_content;
use crate::intents;
use crate::records::{ATTACHMENT, FILES, IMPLICIT, REVISION, SOURCE, SOURCE_PATH, TEARDOWN};

/// The kinds that sources declare.
pub(crate) const DECLARED: [&str; 3] = [SERVICE, "Network", mini_container::KIND];

/// One source as it is now.
#[derive(Clone, Debug, Default)]
pub struct SourceInput {
    /// Its id.
    pub id: Name,
    /// Where it is, for people.
    pub place: String,
    /// Its manifests, parsed.
    pub files: Vec<Arc<ParsedFile>>,
    /// The files that manifests refer to, by path.
    pub attachments: BTreeMap<Name, Attached>,
    /// Manifests that could not be read.
    pub unreadable: Vec<Unreadable>,
    /// What is missing is really gone.
    pub absence_counts: bool,
    /// What is wrong with the source as a whole.
    pub problem: Option<String>,
    /// Files that wait to settle, each with why.
    pub held: Vec<(String, String)>,
}

/// Removals of a source that wait for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPrune {
    /// What to approve.
    pub step_hash: String,
    /// In words.
    pub message: String,
    /// What would be removed.
    pub objects: Vec<ObjectKey>,
}

/// What came of the last application.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every violation and warning.
    pub violations: Vec<Violation>,
    /// Frozen namespaces with the violations that froze them.
    pub frozen: BTreeMap<Name, Vec<Violation>>,
    /// Held removals by source.
    pub held: BTreeMap<Name, HeldPrune>,
    /// Documents of other API groups.
    pub skipped: usize,
    /// At least one application is done.
    pub applied: bool,
}

/// The sources and what came of them.
#[derive(Debug)]
pub struct Sources {
    expected: BTreeSet<Name>,
    current: Mutex<BTreeMap<Name, Arc<SourceInput>>>,
    report: Mutex<Report>,
    last_good: Mutex<LastGood>,
    wake: Notify,
}

impl Sources {
    /// Sources of which nothing is known yet; nothing is applied before each of them was heard of.
    pub fn new(expected: impl IntoIterator<Item = Name>) -> Self {
        Self {
            expected: expected.into_iter().collect(),
            current: Mutex::default(),
            report: Mutex::default(),
            last_good: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Takes a source as it is now.
    pub fn set(&self, input: SourceInput) {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).insert(input.id.clone(), Arc::new(input));
        self.wake.notify_one();
    }

    /// Wants another application: something that was waited for may have come.
    pub fn poke(&self) {
        self.wake.notify_one();
    }

    /// What came of the last application.
    pub fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The sources as they are now.
    pub fn current(&self) -> Vec<Arc<SourceInput>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn inputs(&self) -> Option<Vec<Arc<SourceInput>>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.expected.iter().all(|id| current.contains_key(id)).then(|| current.values().cloned().collect())
    }
}

/// Admits sources as one set. Objects of the store that come from elsewhere are not looked at: none can, in this release.
pub fn admit(inputs: &[Arc<SourceInput>], last: &LastGood) -> (Admission, LastGood) {
    let files: Vec<FileInput> =
        inputs.iter().flat_map(|i| i.files.iter().map(|f| FileInput { source: i.id.clone(), parsed: f.clone() })).collect();
    let attachments: BTreeMap<(Name, Name), Attached> =
        inputs.iter().flat_map(|i| i.attachments.iter().map(|(path, a)| ((i.id.clone(), path.clone()), a.clone()))).collect();
    let unreadable: Vec<Unreadable> = inputs.iter().flat_map(|i| i.unreadable.iter().cloned()).collect();
    let set = Set { files: &files, attachments: &attachments, existing: &Known::default(), unreadable: &unreadable };
    let admission = admit_set(&set, last);
    let next = last_good(&set, &admission, last);
    (admission, next)
}

/// So often in a row manifests are stored once more at once that met a status write; then that is an error like any other.
const CONFLICTS: u32 = 5;

/// Applies for ever: whenever a source changes, an object is gone, or somebody approved something.
pub async fn run(controller: Arc<Controller>, sources: Arc<Sources>) {
    *sources.last_good.lock().unwrap_or_else(PoisonError::into_inner) = remembered(&controller.store.snapshot());
    let mut retry = std::time::Duration::from_millis(200);
    let mut conflicts = 0;
    loop {
        if let Some(inputs) = sources.inputs() {
            match controller.apply(&sources, &inputs).await {
                Ok(()) => (retry, conflicts) = (std::time::Duration::from_millis(200), 0),
                Err(_) if planted(Mutant::StoreErrorSwallowed) => {}
                // A status was written in between: nothing is wrong, and the next look has it.
                Err(error @ StoreError::Conflict { .. }) if conflicts < CONFLICTS => {
                    tracing::debug!(error = %error, "the manifests are stored once more");
                    conflicts += 1;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(error = %error, "the manifests could not be stored; they will be again");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(std::time::Duration::from_secs(30));
                    continue;
                }
            }
        }
        sources.wake.notified().await;
    }
}

/// Of which namespaces each file last spoke, as far as the store remembers.
fn remembered(snapshot: &Snapshot) -> LastGood {
    let mut last = LastGood::new();
    for object in DECLARED.iter().flat_map(|kind| snapshot.list(kind, None)) {
        if let (Some(source), Some(place)) = (object.meta.annotations.get(SOURCE), object.meta.annotations.get(SOURCE_PATH)) {
            let file = place.rsplit_once(':').map_or(place.as_str(), |(file, _)| file);
            last.entry((source.clone(), file.into())).or_default().insert(object.key.namespace.clone());
        }
    }
    last
}

impl Controller {
    pub(crate) async fn apply(&self, sources: &Sources, inputs: &[Arc<SourceInput>]) -> Result<(), StoreError> {
        let last = sources.last_good.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (admission, next_last) = admit(inputs, &last);
        let snapshot = self.store.snapshot();
        let now = self.now();
        let mut tx = self.store.tx();
        let mut changes = 0_usize;
        let contents: BTreeMap<[u8; 32], Arc<[u8]>> = inputs
            .iter()
            .flat_map(|i| i.attachments.values())
            .filter_map(|a| match a {
                Attached::File { digest, bytes } => Some((*digest, bytes.clone())),
                Attached::Missing | Attached::Refused(_) => None,
            })
            .collect();
        let mut candidates: Vec<Object> = Vec::new();
        for candidate in &admission.objects {
            for (digest, content) in candidate.attachments.values().filter_map(|d| contents.get(d).map(|c| (d, c))) {
                let key = ObjectKey::new(ATTACHMENT, "", hex(digest));
                let is_new = snapshot.get(&key).is_none() && !candidates.iter().any(|o| o.key == key);
                if is_new {
                    candidates.push(Object::new(key, self.clock.uid(), now, encode_content(content)));
                }
            }
            candidates.push(self.object_of(candidate));
        }
        candidates.extend(self.implicit_networks(&admission, &snapshot));
        set_owners(&mut candidates, &admission, &snapshot);
        let wanted: BTreeSet<ObjectKey> = candidates.iter().map(|o| o.key.clone()).collect();
        let files_in_use: BTreeSet<String> = candidates.iter().flat_map(digests_of).collect();
        for candidate in candidates {
            match snapshot.get(&candidate.key) {
                None => {
                    changes += 1;
                    self.mark_forgotten(&mut tx, &candidate, &snapshot);
                    tx.create(candidate);
                }
                // It is created anew when the old one is gone; its removal brings us back here.
                Some(old) if old.is_deleting() => {}
                Some(old) => {
                    let same = old.spec == candidate.spec
                        && old.meta.labels == candidate.meta.labels
                        && old.meta.annotations == candidate.meta.annotations
                        && old.meta.owner_references == candidate.meta.owner_references;
                    if !same {
                        changes += 1;
                        let mut new = (**old).clone();
                        new.spec = candidate.spec;
                        new.meta.labels = candidate.meta.labels;
                        new.meta.annotations = candidate.meta.annotations;
                        new.meta.owner_references = candidate.meta.owner_references;
                        tx.put(new);
                    }
                }
            }
        }
        for unused in unused_attachments(&snapshot, &wanted, &files_in_use) {
            changes += 1;
            tx.delete(unused, Precondition::default(), now);
        }
        let (removals, held) = self.removals(inputs, &admission, &snapshot, &wanted);
        for key in &removals {
            changes += 1;
            tx.delete(key.clone(), Precondition::default(), now);
        }
        if changes > 0 {
            let committed = tx.commit(Durability::Durable).await?;
            let written = committed.outcomes.iter().filter(|o| matches!(o, Outcome::Written(_))).count();
            tracing::info!(objects = admission.objects.len(), written, removed = removals.len(), "manifests applied");
        }
        *sources.last_good.lock().unwrap_or_else(PoisonError::into_inner) = next_last;
        self.note_application(sources, inputs, admission, held);
        Ok(())
    }

    fn object_of(&self, candidate: &Candidate) -> Object {
        let mut object = Object::new(candidate.key.clone(), self.uid_for(&candidate.key), self.now(), Value::Null);
        object.spec = candidate.spec.clone();
        object.meta.labels = candidate.labels.clone();
        object.meta.annotations = candidate.annotations.clone();
        object.meta.finalizers = vec![TEARDOWN.into()];
        object.meta.annotations.insert(SOURCE.into(), candidate.source.clone());
        if let Some(place) = &candidate.place {
            object.meta.annotations.insert(SOURCE_PATH.into(), format!("{}:{}", place.file, place.line).into());
            let files = written_files(&candidate.spec, &place.file, &candidate.attachments);
            if !files.is_empty() {
                object.meta.annotations.insert(FILES.into(), json!(files).to_string().into());
            }
        }
        object
    }

    /// An object that is new to the store takes the uid that its stamped containers carry, if there are any: a lost store comes back.
    fn uid_for(&self, key: &ObjectKey) -> Name {
        let inner = self.world.lock();
        let (containers, networks) = inner.orphans(key);
        let stamped = containers.iter().filter_map(|c| c.stamp.as_ref()).chain(networks.iter().filter_map(|n| n.stamp.as_ref()));
        let uid = stamped.map(|s| s.uid.clone()).find(|uid| !uid.is_empty());
        uid.filter(|_| !planted(Mutant::StampsUnread)).unwrap_or_else(|| self.clock.uid())
    }

    /// A namespace with a service that names no network has a network `default`, as with Compose.
    fn implicit_networks(&self, admission: &Admission, snapshot: &Snapshot) -> Vec<Object> {
        let names_none = |spec: &Value| {
            let container = container_of(spec);
            container.is_object() && container["networks"].as_array().is_none_or(Vec::is_empty)
        };
        let mut namespaces: BTreeSet<Name> =
            admission.objects.iter().filter(|c| c.key.kind == SERVICE && names_none(&c.spec)).map(|c| c.key.namespace.clone()).collect();
        for candidate in admission.objects.iter().filter(|c| c.key.kind == "Network" && c.key.name == "default") {
            namespaces.remove(&candidate.key.namespace);
        }
        namespaces.retain(|ns| {
            let existing = snapshot.get(&ObjectKey::new("Network", ns.clone(), "default"));
            existing.is_none_or(|o| o.meta.annotations.contains_key(IMPLICIT) || !admission.frozen.contains_key(ns))
        });
        namespaces
            .into_iter()
            .map(|ns| {
                let key = ObjectKey::new("Network", ns, "default");
                let mut object = Object::new(key.clone(), self.uid_for(&key), self.now(), json!({}));
                object.meta.finalizers = vec![TEARDOWN.into()];
                object.meta.annotations.insert(IMPLICIT.into(), "true".into());
                object
            })
            .collect()
    }

    /// What is to be removed now, and what must wait for a person.
    fn removals(
        &self,
        inputs: &[Arc<SourceInput>],
        admission: &Admission,
        snapshot: &Snapshot,
        wanted: &BTreeSet<ObjectKey>,
    ) -> (Vec<ObjectKey>, BTreeMap<Name, HeldPrune>) {
        let approvals = intents::approvals(snapshot, self.now());
        let mut removals = Vec::new();
        let mut held = BTreeMap::new();
        let mut by_source: BTreeMap<Name, (usize, Vec<ObjectKey>)> = BTreeMap::new();
        for object in DECLARED.iter().flat_map(|kind| snapshot.list(kind, None)).filter(|o| !o.is_deleting()) {
            let is_wanted = wanted.contains(&object.key);
            let is_frozen = admission.frozen.contains_key(&object.key.namespace);
            if object.meta.annotations.contains_key(IMPLICIT) {
                // Frozen services keep their network, and so do those whose removal is held: they are not in the set, but in the store.
                if !is_wanted && !is_frozen && !is_network_used(snapshot, &object.key, wanted) {
                    removals.push(object.key.clone());
                }
                continue;
            }
            let Some(source) = object.meta.annotations.get(SOURCE) else { continue };
            let entry = by_source.entry(source.clone()).or_default();
            entry.0 += 1;
            if !is_wanted && (!is_frozen || planted(Mutant::Unfrozen)) {
                entry.1.push(object.key.clone());
            }
        }
        for input in inputs {
            let Some((total, lost)) = by_source.remove(&input.id).filter(|(_, lost)| !lost.is_empty()) else { continue };
            if input.problem.is_some()
                || (!input.absence_counts && !planted(Mutant::AbsenceCounts))
                || admission.prune_held.contains_key(&input.id)
            {
                continue;
            }
            let hash = hex_digest(json!({ "prune": input.id, "objects": lost }).to_string().as_bytes());
            let is_much = lost.len() == total || (lost.len() > 3 && lost.len() * 2 > total);
            if is_much && !approvals.contains(&hash) && !planted(Mutant::PruneUnheld) {
                let message = format!(
                    "{} of {total} objects of {} are gone at once; they stay until this is approved: quaymaster approve {}",
                    lost.len(),
                    input.place,
                    &hash[..12]
                );
                held.insert(input.id.clone(), HeldPrune { step_hash: hash, message, objects: lost });
            } else {
                removals.extend(lost);
            }
        }
        (removals, held)
    }

    fn note_application(&self, sources: &Sources, inputs: &[Arc<SourceInput>], admission: Admission, mut held: BTreeMap<Name, HeldPrune>) {
        for (source, message) in &admission.prune_held {
            held.entry(source.clone()).or_insert_with(|| HeldPrune {
                step_hash: String::new(),
                message: format!("nothing is removed while {message}"),
                objects: Vec::new(),
            });
        }
        let frozen: BTreeMap<Name, Vec<Violation>> = admission
            .frozen
            .iter()
            .map(|(ns, at)| (ns.clone(), at.iter().filter_map(|i| admission.violations.get(*i).cloned()).collect()))
            .collect();
        let old = sources.report();
        for namespace in old.frozen.keys().filter(|ns| !frozen.contains_key(*ns)) {
            self.metrics.frozen.with_label_values(&[namespace.as_str()]).set(0);
        }
        for (namespace, violations) in &frozen {
            self.metrics.frozen.with_label_values(&[namespace.as_str()]).set(1);
            if old.frozen.get(namespace) != Some(violations) {
                for v in violations {
                    let place = v.place.as_ref().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(namespace = %namespace, "the namespace stays at its last good manifests: {place}: {}", v.message);
                    if let Some(object) = &v.object {
                        let text = format!("{place}: {} [{}]", v.message, v.code.as_str());
                        self.tell(object, crate::events::EventType::Warning, Reason::Frozen, text);
                    }
                }
            }
        }
        for input in inputs {
            let is_held = held.get(&input.id);
            self.metrics.prune_held.with_label_values(&[input.id.as_str()]).set(i64::from(is_held.is_some()));
            if let Some(prune) = is_held
                && old.held.get(&input.id) != Some(prune)
            {
                tracing::warn!(source = %input.id, "{}", prune.message);
            }
        }
        let report = Report { violations: admission.violations, frozen, held, skipped: admission.skipped, applied: true };
        *sources.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }
}

/// Writes into each object which mini container owns it. A parent that is being deleted owns nothing new: it is made anew afterwards.
fn set_owners(candidates: &mut [Object], admission: &Admission, snapshot: &Snapshot) {
    let owners: BTreeMap<&ObjectKey, &ObjectKey> = admission.objects.iter().filter_map(|c| Some((&c.key, c.owner.as_ref()?))).collect();
    if owners.is_empty() {
        return;
    }
    let mut uids: BTreeMap<ObjectKey, Name> = BTreeMap::new();
    for parent in candidates.iter().filter(|c| c.key.kind == mini_container::KIND) {
        match snapshot.get(&parent.key) {
            None => drop(uids.insert(parent.key.clone(), parent.meta.uid.clone())),
            Some(old) if old.is_deleting() => {}
            Some(old) => drop(uids.insert(parent.key.clone(), old.meta.uid.clone())),
        }
    }
    for candidate in candidates {
        let Some((owner, uid)) = owners.get(&candidate.key).and_then(|owner| Some((*owner, uids.get(*owner)?))) else { continue };
        candidate.meta.owner_references = vec![OwnerReference {
            api_version: API_VERSION.to_owned(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: uid.clone(),
        }];
    }
}

/// The container of a service, or of a job.
fn container_of(spec: &Value) -> &Value {
    if spec["job"].is_object() { &spec["job"]["container"] } else { &spec["container"] }
}

/// Whether a service that stays although it is not in the set needs an implicit network. Those in the set have said so themselves: what
/// the store still has of them is what they were.
fn is_network_used(snapshot: &Snapshot, key: &ObjectKey, wanted: &BTreeSet<ObjectKey>) -> bool {
    snapshot.list(SERVICE, Some(&key.namespace)).filter(|o| !wanted.contains(&o.key)).any(|o| {
        let container = container_of(&o.spec);
        !o.is_deleting() && container.is_object() && container["networks"].as_array().is_none_or(Vec::is_empty)
    })
}

/// The digests of the files that an object's spec refers to.
fn digests_of(object: &Object) -> Vec<String> {
    let files = object.meta.annotations.get(FILES).and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(text).ok());
    files.unwrap_or_default().into_values().collect()
}

/// Stored files that nothing refers to: neither what is wanted now, nor what stays although it is not in the set.
fn unused_attachments(snapshot: &Snapshot, wanted: &BTreeSet<ObjectKey>, in_use: &BTreeSet<String>) -> Vec<ObjectKey> {
    let staying: BTreeSet<String> = snapshot.list(SERVICE, None).filter(|o| !wanted.contains(&o.key)).flat_map(|o| digests_of(o)).collect();
    // A rollback needs the files of its revision. Read in place: there is a record or more a service, and this runs at every change.
    let files =
        |o: &Arc<Object>| o.spec["files"].as_object().map(|files| files.values().filter_map(Value::as_str).map(str::to_owned).collect());
    let of_revisions: BTreeSet<String> = snapshot.list(REVISION, None).filter_map(files).flat_map(|digests: Vec<String>| digests).collect();
    let is_used = |digest: &str| in_use.contains(digest) || staying.contains(digest) || of_revisions.contains(digest);
    let is_unused = |o: &&Arc<Object>| !is_used(o.key.name.as_str());
    snapshot.list(ATTACHMENT, None).filter(is_unused).map(|o| o.key.clone()).collect()
}

/// The files a spec refers to, as written, with the digest of what they resolve to.
fn written_files(spec: &Value, manifest: &str, attachments: &BTreeMap<Name, [u8; 32]>) -> BTreeMap<String, String> {
    let container = container_of(spec);
    let env = container["envFile"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let configs = container["configs"].as_array().into_iter().flatten().filter_map(|c| c["file"].as_str());
    env.chain(configs)
        .filter_map(|written| {
            let path = manifest::resolve(manifest, written)?;
            Some((written.to_owned(), hex(attachments.get(&path)?)))
        })
        .collect()
}

fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}
