//! Feeds the world from the store: what is wanted changes when specs do. Status writes wake nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use qm_api::graph::{Dependency, Graph};
use qm_api::kinds::mini_container::KIND as PARENT;
use qm_api::kinds::mini_service::{KIND as SERVICE, MiniServiceSpec};
use qm_api::meta::{Object, ObjectKey};
use qm_api::spec::container::Container;
use qm_plan::desired::{DesiredError, DesiredNetwork, DesiredParent, DesiredService, Files, Rollout};
use qm_store::{ChangeKind, Snapshot};

use crate::apply::{DECLARED, Sources};
use crate::controller::Controller;
use crate::records::{ATTACHMENT, FILES, ROLLBACK, RevisionRecord, revision_key, rollback};
use crate::world::Wanted;

impl Controller {
    /// Takes everything that the store holds.
    pub fn feed_all(&self) {
        let snapshot = self.store.snapshot();
        let kinds = DECLARED;
        let wanted: Vec<Wanted> = kinds.iter().flat_map(|kind| snapshot.list(kind, None)).flat_map(|o| self.wanted(&snapshot, o)).collect();
        let gone = self.world.known().into_iter().filter(|key| snapshot.get(key).is_none()).map(Wanted::Gone);
        self.world.want(gone.chain(wanted).collect(), Some(graph(&snapshot)));
    }

    /// Takes everything anew after the log went on without us: what went meanwhile is gone, and whoever waited for that is woken.
    fn catch_up(&self, sources: &Sources) {
        self.feed_all();
        self.look_at_blocks();
        sources.poke();
        self.store.snapshot().list(PARENT, None).for_each(|parent| self.world.queue.add(&parent.key));
    }

    /// Follows the store for ever.
    pub async fn feed(self: Arc<Self>, sources: Arc<Sources>) {
        let mut version = self.store.resource_version();
        self.feed_all();
        'watch: loop {
            let mut watch = match self.store.watch(version) {
                Ok(watch) => watch,
                Err(_) => {
                    version = self.store.resource_version();
                    self.catch_up(&sources);
                    continue;
                }
            };
            loop {
                let Ok(batch) = watch.next().await else { continue 'watch };
                version = batch.resource_version;
                let snapshot = self.store.snapshot();
                let mut wanted = Vec::new();
                let mut edges_changed = false;
                for change in &batch.changes {
                    let object = &change.object;
                    if !DECLARED.contains(&object.key.kind.as_str()) {
                        self.wake_for(object);
                        wanted.extend(self.rolled(&snapshot, object));
                        continue;
                    }
                    let previous = change.previous.as_deref();
                    let matters = change.kind == ChangeKind::Delete
                        || previous.is_none_or(|p| {
                            p.spec != object.spec
                                || p.meta.annotations != object.meta.annotations
                                || p.meta.owner_references != object.meta.owner_references
                                || p.is_deleting() != object.is_deleting()
                        });
                    if !matters {
                        continue;
                    }
                    edges_changed |= change.kind == ChangeKind::Delete
                        || previous.is_none_or(|p| {
                            p.meta.owner_references != object.meta.owner_references || dependencies(p) != dependencies(object)
                        });
                    match change.kind {
                        ChangeKind::Delete => {
                            // What reappeared while it was being deleted is made anew now.
                            sources.poke();
                            wanted.push(Wanted::Gone(object.key.clone()));
                            // A parent may go after its last child.
                            parents_of(object).for_each(|parent| self.world.queue.add(&parent));
                        }
                        ChangeKind::Put => {
                            if object.is_deleting() {
                                sources.poke();
                            }
                            // Who owned it until now may be waiting for that.
                            let before = previous.into_iter().flat_map(parents_of);
                            before.filter(|parent| parents_of(object).all(|p| p != *parent)).for_each(|p| self.world.queue.add(&p));
                            // A changed input frees what was spent.
                            self.remember(&object.key, |m| {
                                m.failures = 0;
                                m.backoff_until_ms = 0;
                                m.taken.clear();
                                m.drift.put_back.clear();
                            });
                            wanted.extend(self.wanted(&snapshot, object));
                        }
                    }
                }
                let is_new = |change: &&qm_store::Change| change.previous.is_none() && change.object.key.kind == SERVICE;
                let has_new = batch.changes.iter().any(|change| is_new(&change));
                if !wanted.is_empty() {
                    let graph = edges_changed.then(|| graph(&snapshot));
                    self.world.want(wanted, graph);
                }
                if has_new {
                    // A block of a namespace covers what comes into it.
                    self.look_at_blocks();
                }
            }
        }
    }

    /// Internal records that passes look at. Acts of persons wake whom they concern by themselves.
    fn wake_for(&self, object: &Object) {
        let service = ObjectKey::new(SERVICE, object.key.namespace.clone(), object.key.name.clone());
        match object.key.kind.as_str() {
            crate::records::PENDING_RELOAD => {
                // An app may have to be told.
                self.world.tell_change();
                self.world.queue.add(&service);
                // Who is to reload after it waits for its end.
                self.wake_dependents(&service);
            }
            crate::records::JOB_RESULTS => self.world.mark_status([service]),
            crate::records::EPOCH | crate::records::RELOADS => self.wake_dependents(&service),
            _ => {}
        }
    }

    /// Wakes those that react to what happens to a service, at whatever distance: they reload level by level.
    pub(crate) fn wake_dependents(&self, service: &ObjectKey) {
        let graph = self.world.graph();
        let mut open = vec![service.clone()];
        let mut seen: std::collections::BTreeSet<ObjectKey> = std::collections::BTreeSet::new();
        while let Some(node) = open.pop() {
            for dependent in graph.dependents(&node) {
                if seen.insert(dependent.clone()) {
                    open.push(dependent.clone());
                    if graph.dependencies(dependent).iter().any(qm_plan::reload::reacts) {
                        self.world.queue.add(dependent);
                    }
                }
            }
        }
    }

    /// A rollback that begins or ends changes what is wanted.
    fn rolled(&self, snapshot: &Snapshot, record: &Object) -> Vec<Wanted> {
        if record.key.kind != ROLLBACK {
            return Vec::new();
        }
        let service = snapshot.get(&ObjectKey::new(SERVICE, record.key.namespace.clone(), record.key.name.clone()));
        service.map(|service| self.wanted(snapshot, service)).unwrap_or_default()
    }

    fn wanted(&self, snapshot: &Snapshot, object: &Object) -> Vec<Wanted> {
        let made = match object.key.kind.as_str() {
            SERVICE => service(snapshot, object).map(|s| {
                let job = self.recorded(snapshot, &s).map(|standing| Wanted::Job(s.key.clone(), standing));
                std::iter::once(Wanted::Service(Arc::new(s))).chain(job).collect()
            }),
            PARENT => DesiredParent::from_object(object).map(|p| vec![Wanted::Parent(Arc::new(p))]),
            _ => DesiredNetwork::from_object(object).map(|n| vec![Wanted::Network(Arc::new(n))]),
        };
        match made {
            Ok(wanted) => {
                self.remember(&object.key, |m| m.unreadable = None);
                wanted
            }
            Err(error) => {
                tracing::error!(object = %object.key, error = %error, "a stored object cannot be used");
                self.remember(&object.key, |m| m.unreadable = Some(error.to_string()));
                Vec::new()
            }
        }
    }
}

fn dependencies(object: &Object) -> Vec<Dependency> {
    if object.key.kind != SERVICE {
        return Vec::new();
    }
    match object.decode_spec::<MiniServiceSpec>() {
        Ok(spec) => spec.depends_on.iter().filter_map(|e| Dependency::resolve(&object.key.namespace, e)).collect(),
        Err(_) => Vec::new(),
    }
}

/// The graph of everything stored.
pub fn graph(snapshot: &Snapshot) -> Graph {
    let mut children: BTreeMap<ObjectKey, Vec<Dependency>> = BTreeMap::new();
    for child in snapshot.list(SERVICE, None) {
        for parent in parents_of(child) {
            children.entry(parent).or_default().push(Dependency::child(child.key.clone()));
        }
    }
    let parents = snapshot.list(PARENT, None).map(|o| (o.key.clone(), children.get(&o.key).cloned().unwrap_or_default()));
    Graph::build(snapshot.list(SERVICE, None).map(|o| (o.key.clone(), dependencies(o))).chain(parents))
}

/// The mini containers that own an object.
fn parents_of(object: &Object) -> impl Iterator<Item = ObjectKey> + '_ {
    let owners = object.meta.owner_references.iter().filter(|owner| owner.kind == PARENT);
    owners.map(|owner| ObjectKey::new(PARENT, object.key.namespace.clone(), owner.name.clone()))
}

/// A service as it should run: what its manifest says, or what a rollback that still holds put in its place.
fn service(snapshot: &Snapshot, object: &Object) -> Result<DesiredService, DesiredError> {
    let mut desired = DesiredService::from_object(object, &files(snapshot, object))?;
    let Some(record) = rollback(snapshot, &object.key).filter(|r| r.holds(object)) else { return Ok(desired) };
    let message = record.message(&object.key);
    let Some(to) = record.to else {
        desired.rollout = Rollout::Paused { message };
        return Ok(desired);
    };
    let older = snapshot.get(&revision_key(&object.key, to)).and_then(|o| o.decode_spec::<RevisionRecord>().ok());
    let container = older.as_ref().and_then(|r| serde_json::from_value::<Container>(r.container.clone()?).ok());
    let (Some(older), Some(container)) = (older, container) else {
        // Its record is gone: the manifest is all that is left.
        tracing::warn!(object = %object.key, revision = to, "the revision to go back to is not recorded any more");
        return Ok(desired);
    };
    let failed = snapshot.get(&revision_key(&object.key, record.failed)).and_then(|o| o.decode_spec::<RevisionRecord>().ok());
    let failed_image = failed.map(|r| r.revision.image_id.as_str().into()).unwrap_or_default();
    let rollout = Rollout::RolledBack { to, image_id: older.revision.image_id.as_str().into(), failed_image, message };
    desired.roll_back(&container, &contents(snapshot, older.files), rollout)?;
    Ok(desired)
}

/// The files that a stored spec refers to.
pub fn files(snapshot: &Snapshot, object: &Object) -> Files {
    let Some(list) = object.meta.annotations.get(FILES) else { return Files::new() };
    contents(snapshot, serde_json::from_str(list).unwrap_or_default())
}

fn contents(snapshot: &Snapshot, list: BTreeMap<String, String>) -> Files {
    list.into_iter()
        .filter_map(|(name, digest)| {
            let attachment = snapshot.get(&ObjectKey::new(ATTACHMENT, "", digest))?;
            Some((name, decode_content(&attachment.spec)?.into()))
        })
        .collect()
}

/// The content of an attachment: text where it is text, else hexadecimal digits.
pub fn decode_content(spec: &serde_json::Value) -> Option<Vec<u8>> {
    if let Some(text) = spec["text"].as_str() {
        return Some(text.as_bytes().to_vec());
    }
    let hex = spec["hex"].as_str()?;
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok()).collect()
}

/// The spec of an attachment.
pub fn encode_content(content: &[u8]) -> serde_json::Value {
    match std::str::from_utf8(content) {
        Ok(text) => serde_json::json!({ "text": text }),
        Err(_) => {
            let hex: String = content.iter().map(|b| format!("{b:02x}")).collect();
            serde_json::json!({ "hex": hex })
        }
    }
}
