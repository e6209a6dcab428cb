//! What others may ask of a running operator: plans, acts of persons, the graph, usability, an overview, logs. Wiring gives these to the
//! API server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use qm_api::kinds::intent::{Act, IntentSpec, KIND as INTENT, Scope};
use qm_api::kinds::mini_container;
use qm_api::kinds::mini_service::KIND as SERVICE;
use qm_api::meta::{Object, ObjectKey};
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::desired::Rollout;
use qm_plan::plan::Plan;
use qm_plan::reload::Verb;
use qm_store::{Durability, Precondition, StoreError};
use serde_json::{Value, json};

use crate::apply::{DECLARED, SourceInput};
use crate::controller::Controller;
use crate::docker::read::LogStream;
use crate::intents;
use crate::records::{FILES, PENDING_RELOAD, PendingReloadRecord, ROLLBACK, RevisionRecord, RollbackRecord};
use crate::run::Operator;

/// Why something that was asked for is not done.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// This release cannot do it.
    #[error("{0}")]
    NotSupported(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
    /// The store refused.
    #[error("the store refused")]
    Store(#[from] StoreError),
    /// A lock is not granted, or not held any more.
    #[error("{message}")]
    Locked {
        /// Why, for programs.
        reason: crate::locks::face::LockReason,
        /// Why, for people.
        message: String,
        /// When asking again makes sense, in seconds.
        retry_after_seconds: Option<u64>,
    },
    /// The manifests that were given are bad.
    #[error("the manifests are not valid")]
    Violations(Vec<qm_api::field::Violation>),
}

/// An act that a person asks for.
#[derive(Clone, Debug)]
pub struct ActRequest {
    /// What.
    pub act: Act,
    /// On what.
    pub scope: Scope,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Option<Timestamp>,
    /// Which step.
    pub step_hash: Option<String>,
    /// Which revision.
    pub to: Option<u64>,
}

impl Operator {
    /// Carries out an act of a person: a durable record first, then what follows from it.
    ///
    /// # Errors
    /// When nothing is in its scope, this release cannot do it, or the store refuses.
    pub async fn act(&self, request: ActRequest) -> Result<Object, AskError> {
        if !request.act.is_supported() {
            return Err(AskError::NotSupported(format!("`{}` is not built yet", request.act.word())));
        }
        let controller = &self.controller;
        let snapshot = controller.store.snapshot();
        let covered: Vec<Arc<Object>> =
            DECLARED.iter().flat_map(|kind| snapshot.list(kind, None)).filter(|o| intents::covers(&request.scope, o)).cloned().collect();
        let names_one = request.scope.name.is_some();
        if names_one && covered.is_empty() {
            let scope = &request.scope;
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            return Err(AskError::NotFound(format!("there is no {} {}/{}", text(&scope.kind), text(&scope.namespace), text(&scope.name))));
        }
        let now = controller.clock.wall();
        if request.until.is_some_and(|until| until <= now) {
            return Err(AskError::Invalid("its end lies in the past".to_owned()));
        }
        let spec = IntentSpec {
            act: request.act,
            scope: request.scope.clone(),
            actor: request.actor,
            reason: request.reason,
            until: request.until,
            step_hash: request.step_hash,
            to: request.to,
            at: now,
        };
        let uid = controller.clock.uid();
        let namespace = request.scope.namespace.clone().unwrap_or_else(|| qm_api::meta::DEFAULT_NAMESPACE.to_owned());
        let key = ObjectKey::new(INTENT, namespace, format!("{}-{uid}", request.act.word()));
        let intent = Object::new(key, uid, now, serde_json::to_value(&spec).expect("an intent is plain data"));
        let mut tx = controller.store.tx();
        match request.act {
            Act::Suspend => {
                tx.create(intent.clone());
            }
            Act::Resume => {
                let ended: Vec<ObjectKey> = intents::active(&snapshot, now)
                    .into_iter()
                    .filter(|(_, i)| i.act == Act::Suspend && is_within(&i.scope, &request.scope))
                    .map(|(key, _)| key)
                    .collect();
                if ended.is_empty() {
                    return Err(AskError::NotFound(wider_suspension(&snapshot, &covered, now)));
                }
                for key in ended {
                    tx.delete(key, Precondition::default(), now);
                }
            }
            Act::Approve => {
                if spec.step_hash.as_deref().is_none_or(str::is_empty) {
                    return Err(AskError::Invalid("an approval needs the hash of a step".to_owned()));
                }
                tx.create(intent.clone());
            }
            Act::Restart => {
                let is_job = |object: &Arc<Object>| object.spec["job"].is_object();
                if let [object] = covered.as_slice()
                    && is_job(object)
                {
                    let message = format!("{} is a job, which runs to its end: `quaymaster job run` runs it again", object.key);
                    return Err(AskError::Invalid(message));
                }
                for object in covered.iter().filter(|o| o.key.kind == SERVICE && !is_job(o)) {
                    self.want_restart(&mut tx, &snapshot, object, &spec);
                }
            }
            Act::Run => {
                let [object] = covered.as_slice() else { return Err(AskError::Invalid("a run names one job".to_owned())) };
                controller.want_run(&mut tx, object, &spec.actor, &spec.reason)?;
            }
            Act::Retry => {
                // What was rolled back is tried again.
                for object in covered.iter().filter(|o| o.key.kind == SERVICE) {
                    controller.forgive_job(&mut tx, object);
                    let record = ObjectKey::new(ROLLBACK, object.key.namespace.clone(), object.key.name.clone());
                    if snapshot.get(&record).is_some() {
                        tx.delete(record, Precondition::default(), now);
                    }
                    // And what reloaded too often may do so again.
                    let memory = crate::records::reloads(&snapshot, &object.key);
                    if !memory.recent.is_empty() {
                        let memory = qm_plan::reload::Memory { recent: Vec::new(), ..memory };
                        controller.put_record(&mut tx, crate::reloads::record_key(crate::records::RELOADS, &object.key), &memory);
                    }
                }
            }
            Act::Rollback => {
                let [object] = covered.as_slice() else {
                    return Err(AskError::Invalid("a rollback names one service".to_owned()));
                };
                let record = self.rollback_to(object, &spec, now)?;
                controller.put_rollback(&mut tx, &object.key, &record);
            }
            Act::Reconcile => {}
            Act::Block => {
                if !covered.iter().any(|o| o.key.kind == SERVICE) {
                    return Err(AskError::Invalid("there is no service in that scope to block".to_owned()));
                }
                tx.create(intent.clone());
            }
            Act::Unblock => {
                let ended: Vec<ObjectKey> = intents::active(&snapshot, now)
                    .into_iter()
                    .filter(|(_, i)| i.act == Act::Block && is_within(&i.scope, &request.scope))
                    .map(|(key, _)| key)
                    .collect();
                if ended.is_empty() {
                    return Err(AskError::NotFound("nothing in that scope is blocked".to_owned()));
                }
                for key in ended {
                    tx.delete(key, Precondition::default(), now);
                }
            }
            Act::Adopt => {}
        }
        let stored = matches!(request.act, Act::Suspend | Act::Approve | Act::Block);
        if !stored {
            // The record of what was asked for is kept as long as an approval is, for `describe`.
            tx.create(intent.clone());
        }
        for key in intents::outdated(&snapshot, now) {
            tx.delete(key, Precondition::default(), now);
        }
        let durability = if planted(Mutant::ActNotDurable) { Durability::Soon } else { Durability::Durable };
        let committed = tx.commit(durability).await?;
        let stored = committed.outcomes.iter().map(|o| o.object()).find(|o| o.key == intent.key);
        let intent = stored.map_or(intent, |o| (**o).clone());
        self.sources.poke();
        if matches!(request.act, Act::Block | Act::Unblock) {
            controller.look_at_blocks();
        }
        for object in &covered {
            if matches!(request.act, Act::Retry) {
                controller.remember(&object.key, |m| {
                    m.failures = 0;
                    m.backoff_until_ms = 0;
                    m.taken.clear();
                    m.drift.put_back.clear();
                });
                controller.world.forgive(&object.key);
            }
            controller.world.queue.add(&object.key);
        }
        if matches!(request.act, Act::Approve) {
            // An approved step may be one that others wait for, as the containers of a network do that is to be broken.
            let inner = controller.world.lock();
            let waiting: BTreeSet<ObjectKey> = inner.orphan_owners().into_iter().chain(inner.everything()).collect();
            drop(inner);
            waiting.iter().for_each(|key| controller.world.queue.add(key));
        }
        controller.world.mark_status(covered.iter().map(|o| o.key.clone()));
        if matches!(
            request.act,
            Act::Suspend | Act::Resume | Act::Retry | Act::Restart | Act::Run | Act::Rollback | Act::Block | Act::Unblock
        ) {
            for object in &covered {
                let words = format!("{} by {}{}", request.act.word(), spec.actor, reason_text(&spec.reason));
                controller.tell(&object.key, crate::events::EventType::Normal, qm_api::conditions::Reason::Intent, words);
            }
        }
        Ok(intent)
    }

    /// What a person's rollback comes to: the named revision, or the newest proven one before that which runs now.
    fn rollback_to(&self, object: &Object, spec: &IntentSpec, now: Timestamp) -> Result<RollbackRecord, AskError> {
        let controller = &self.controller;
        let revisions = controller.revisions_of(&object.key);
        let running = match controller.world.service(&object.key).map(|s| s.rollout.clone()) {
            Some(Rollout::RolledBack { to, .. }) => Some(to),
            _ => revisions.first().map(|r| r.revision.number),
        };
        let (Some(wanted), Some(running)) = (revisions.first().map(|r| r.revision.number), running) else {
            return Err(AskError::NotFound(format!("{} has no revision yet", object.key)));
        };
        let can_run = |r: &&RevisionRecord| r.proven_at.is_some() && r.container.is_some();
        let choice: Vec<String> =
            revisions.iter().filter(can_run).filter(|r| r.revision.number != running).map(|r| r.revision.number.to_string()).collect();
        let choices =
            if choice.is_empty() { "there is none that ever was healthy".to_owned() } else { format!("there are: {}", choice.join(", ")) };
        let found = match spec.to {
            Some(to) => revisions.iter().filter(can_run).find(|r| r.revision.number == to),
            None => revisions.iter().filter(can_run).find(|r| r.revision.number < running),
        };
        let to = found
            .ok_or_else(|| AskError::NotFound(format!("no such revision of {} to go back to; {choices}", object.key)))?
            .revision
            .number;
        if to == wanted {
            return Err(AskError::Invalid(format!("revision {to} is the one that the manifest says: `retry` goes on with it")));
        }
        Ok(RollbackRecord {
            generation: object.meta.generation,
            files: object.meta.annotations.get(FILES).map(ToString::to_string),
            failed: wanted,
            to: Some(to),
            actor: Some(spec.actor.clone()),
            evidence: spec.reason.clone(),
            at: now,
        })
    }

    /// What runs is to be outlived. Parts of apps have nothing that runs here; what is down is started anyway, or is to stay down.
    fn want_restart(&self, tx: &mut qm_store::Tx, snapshot: &qm_store::Snapshot, object: &Object, spec: &IntentSpec) {
        let key = ObjectKey::new(PENDING_RELOAD, object.key.namespace.clone(), object.key.name.clone());
        let running = self.controller.world.containers_of(&object.key).into_iter().filter(|c| c.state.is_up());
        let mut containers: BTreeMap<Name, Option<Timestamp>> = running.map(|c| (c.id.clone(), c.started_at)).collect();
        if containers.is_empty() {
            return;
        }
        // What is pending already may ask for more than a restart.
        let old = crate::records::pending_reload(snapshot, &object.key);
        let verb = old.as_ref().map_or(Verb::Restart, |old| old.verb.max(Verb::Restart));
        containers.extend(old.into_iter().flat_map(|old| old.containers));
        let (actor, reason) = (spec.actor.clone(), spec.reason.clone());
        self.controller.put_record(tx, key, &PendingReloadRecord { verb, triggers: Vec::new(), id: None, actor, reason, containers });
    }

    /// The plan of everything, in level order, as it would be carried out now.
    pub fn plan(&self) -> Plan {
        plan_all(&self.controller)
    }

    /// The graph with its availability.
    pub fn graph(&self) -> Value {
        let snapshot = self.controller.world.availability();
        let graph = self.controller.world.graph();
        let locks = &self.controller.locks;
        let nodes: Vec<Value> = snapshot
            .iter()
            .map(|n| {
                json!({
                    "kind": n.key.kind, "namespace": n.key.namespace, "name": n.key.name, "level": n.level,
                    "availability": n.off.is_none().then_some(n.availability), "severity": n.severity(),
                    "usable": n.usable() && !locks.is_changing(&n.key), "reason": n.off.unwrap_or(n.reason),
                })
            })
            .collect();
        let edges: Vec<Value> = graph
            .nodes()
            .flat_map(|from| graph.dependencies(from).iter().map(move |d| (from, d)))
            .map(|(from, d)| {
                json!({
                    "from": node_text(from), "to": node_text(&d.on), "start": d.start, "onDown": d.on_down, "onUp": d.on_up,
                    "onChange": d.on_change, "counted": d.is_counted(), "owns": from.kind == mini_container::KIND,
                })
            })
            .collect();
        json!({ "nodes": nodes, "edges": edges })
    }

    /// Everything on one screen: engine, sources, frozen namespaces, held removals, suspensions, counts.
    pub fn overview(&self) -> Value {
        let controller = &self.controller;
        let now = controller.clock.wall();
        let snapshot = controller.store.snapshot();
        let report = self.sources.report();
        let engine = match (controller.world.facts(), controller.world.link_problem()) {
            (Some(f), _) => json!({
                "reachable": true, "id": f.id, "version": f.version, "api": format!("{}.{}", f.api.0, f.api.1),
                "address": controller.docker.address().to_string(),
            }),
            (None, problem) => {
                let (message, since) = problem.unwrap_or_default();
                json!({ "reachable": false, "message": message, "since": since, "address": controller.docker.address().to_string() })
            }
        };
        let sources: Vec<Value> = self.sources.current().iter().map(|s| source_json(s, &report)).collect();
        let frozen: Vec<Value> =
            report.frozen.iter().map(|(ns, violations)| json!({ "namespace": ns, "violations": violations })).collect();
        let suspensions: Vec<Value> = intents::active(&snapshot, now)
            .into_iter()
            .filter(|(_, i)| i.act == Act::Suspend)
            .map(|(key, spec)| json!({ "name": key.name, "namespace": key.namespace, "spec": spec }))
            .collect();
        let availability = controller.world.availability();
        let services = || availability.iter().filter(|n| n.key.kind == SERVICE);
        let on: Vec<_> = services().filter(|n| n.off.is_none()).collect();
        let orphans = controller.world.lock().orphan_owners().len();
        json!({
            "instance": controller.world.instance, "engine": engine, "sources": sources, "frozen": frozen,
            "suspensions": suspensions, "orphans": orphans,
            "counts": {
                "services": on.len(),
                "usable": on.iter().filter(|n| n.usable() && !controller.locks.is_changing(&n.key)).count(),
                "off": services().filter(|n| n.off.is_some()).count(),
                "networks": snapshot.list("Network", None).count(),
            },
            "now": now,
        })
    }

    /// The log of a service's containers; lines of several replicas carry their slot.
    ///
    /// # Errors
    /// When there is no such service or it has no container.
    pub fn logs(
        &self,
        key: &ObjectKey,
        slot: Option<u32>,
        follow: bool,
        tail: Option<u64>,
        timestamps: bool,
    ) -> Result<LogStream, AskError> {
        if self.controller.store.snapshot().get(key).is_none() {
            return Err(AskError::NotFound(format!("there is no {key}")));
        }
        let inner = self.controller.world.lock();
        let (mut containers, _) = inner.orphans(key);
        drop(inner);
        containers.retain(|c| c.stamp.as_ref().is_some_and(|s| slot.is_none_or(|wanted| s.slot == wanted)));
        containers.sort_by_key(|c| c.stamp.as_ref().map(|s| (s.slot, s.revision)));
        if containers.is_empty() {
            return Err(AskError::NotFound(format!("{key} has no container now")));
        }
        let many = containers.len() > 1;
        let streams: Vec<LogStream> = containers
            .iter()
            .map(|c| {
                let slot = c.stamp.as_ref().map_or(0, |s| s.slot);
                let stream = self.controller.docker.logs(&c.id, follow, tail, timestamps);
                let prefixed = stream.map(move |chunk| chunk.map(|bytes| if many { prefix_lines(slot, &bytes) } else { bytes }));
                Box::pin(prefixed) as LogStream
            })
            .collect();
        Ok(Box::pin(futures_util::stream::select_all(streams)))
    }

    /// What keeps the operator from being ready.
    pub fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some((message, _)) = self.controller.world.link_problem() {
            reasons.push(format!("the engine cannot be observed: {message}"));
        } else if !self.controller.world.is_listed() {
            reasons.push("the engine was not listed yet".to_owned());
        }
        if !self.sources.report().applied {
            reasons.push("the sources were not applied yet".to_owned());
        }
        reasons
    }
}

/// Composes the plans of all objects in level order: what must be there first, first.
pub(crate) fn plan_all(controller: &Controller) -> Plan {
    let snapshot = controller.store.snapshot();
    let graph = controller.world.graph();
    let mut whole = Plan::default();
    for object in snapshot.list("Network", None).filter(|o| !o.is_deleting()) {
        whole.append(controller.plan_network(object));
    }
    let mut services: Vec<&Arc<Object>> = snapshot.list(SERVICE, None).collect();
    services.sort_by_key(|o| (graph.level(&o.key), o.key.clone()));
    for object in services {
        if let Some(desired) = controller.world.service(&object.key) {
            whole.append(controller.plan_service(object, &desired));
        }
    }
    for object in snapshot.list("Network", None).filter(|o| o.is_deleting()) {
        whole.append(controller.plan_network(object));
    }
    let orphans = controller.world.lock().orphan_owners();
    for owner in orphans {
        whole.append(controller.plan_orphan(&owner));
    }
    whole
}

fn reason_text(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// Whether everything that `inner` covers is covered by `outer`.
fn is_within(inner: &Scope, outer: &Scope) -> bool {
    let part = |inner: &Option<String>, outer: &Option<String>| outer.is_none() || inner == outer;
    part(&inner.kind, &outer.kind)
        && part(&inner.namespace, &outer.namespace)
        && part(&inner.name, &outer.name)
        && part(&inner.source, &outer.source)
}

fn wider_suspension(snapshot: &qm_store::Snapshot, covered: &[Arc<Object>], now: Timestamp) -> String {
    match covered.iter().find_map(|o| intents::suspension(snapshot, o, now)) {
        Some(by) => format!("it is suspended by a wider scope ({by}): resume that scope"),
        None => "nothing in that scope is suspended".to_owned(),
    }
}

fn node_text(key: &ObjectKey) -> String {
    format!("{}/{}/{}", key.kind, key.namespace, key.name)
}

fn source_json(source: &SourceInput, report: &crate::apply::Report) -> Value {
    let held: Vec<Value> = source.held.iter().map(|(path, why)| json!({ "path": path, "why": why })).collect();
    let violations: Vec<&qm_api::field::Violation> =
        report.violations.iter().filter(|v| v.place.as_ref().is_some_and(|p| p.source == source.id)).collect();
    let prune = report.held.get(&source.id).map(|h| {
        let objects: Vec<String> = h.objects.iter().map(ToString::to_string).collect();
        json!({ "message": h.message, "stepHash": h.step_hash, "objects": objects })
    });
    let objects: usize = source.files.iter().map(|f| f.documents.len()).sum();
    json!({
        "id": source.id, "dir": source.place, "health": source.problem.as_deref().unwrap_or("Ready"), "files": source.files.len(),
        "objects": objects, "held": held, "pruneHeld": prune, "violations": violations,
    })
}

fn prefix_lines(slot: u32, bytes: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len() + 16);
    for line in text.split_inclusive('\n') {
        out.push_str(&format!("[{slot}] "));
        out.push_str(line);
    }
    Bytes::from(out)
}
