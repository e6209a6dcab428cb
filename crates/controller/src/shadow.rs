//! Plans of what is not applied: a copy of the picture and of the store, given other manifests, planned by the very code that plans for
//! real, and thrown away. Nothing is written anywhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use prometheus::Registry;
use qm_api::field::{Severity, Violation};
use qm_api::kinds::mini_service::KIND as SERVICE;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_plan::plan::{Finding, Plan};
use qm_store::backend::Memory;
use qm_store::{CommitMode, Durability, Options, Store};

use crate::apply::{Report, SourceInput, Sources};
use crate::clock::Clock;
use crate::controller::{Controller, Places};
use crate::docker::Docker;
use crate::metrics::Metrics;
use crate::mirror;
use crate::ports::{AskError, plan_all};
use crate::run::Operator;
use crate::world::World;

/// Where an operator keeps things when nobody says otherwise; no operator runs here that could be asked.
const FILES_DIR: &str = "/var/lib/quaymaster/files";
const FACES_DIR: &str = "/run/quaymaster/faces";

impl Operator {
    /// The plan as it would be if these sources were as given. A source that the operator does not have stands for its own objects
    /// only; nothing else is removed for it.
    ///
    /// # Errors
    /// When the given manifests are bad.
    pub async fn plan_with(&self, given: Vec<SourceInput>) -> Result<Plan, AskError> {
        let current = self.sources.current();
        let known: BTreeSet<Name> = current.iter().map(|s| s.id.clone()).collect();
        let all_known = given.iter().all(|g| known.contains(&g.id));
        let mut inputs: Vec<Arc<SourceInput>> =
            if all_known { current.into_iter().filter(|c| given.iter().all(|g| g.id != c.id)).collect() } else { Vec::new() };
        inputs.extend(given.into_iter().map(Arc::new));
        let controller = &self.controller;
        let shadow = shadow(controller.world.shadow(), controller.docker.clone(), controller.clock.clone(), controller.places.clone())?;
        let mut tx = shadow.store.tx();
        for object in controller.store.snapshot().iter().filter(|o| o.key.kind != crate::records::EVENT) {
            let mut copy = (**object).clone();
            copy.meta.resource_version = 0;
            tx.create(copy);
        }
        tx.commit(Durability::Soon).await?;
        let shadow = shadow.reloaded();
        shadow.copy_memory(controller);
        let only = (!all_known).then(|| keys_of(&inputs));
        plan_inputs(&shadow, inputs, only).await
    }
}

/// The plan of manifests against an engine, without an operator.
///
/// # Errors
/// When the engine cannot be reached, or the manifests are bad.
pub async fn plan_offline(docker: Docker, clock: Clock, instance: Name, given: Vec<SourceInput>) -> Result<Plan, AskError> {
    let world = World::new(clock.clone(), instance);
    let facts = docker.connect().await.map_err(|e| AskError::Unavailable(e.line()))?;
    let listing = mirror::list(&docker, &world).await.map_err(|e| AskError::Unavailable(e.line()))?;
    world.connected(facts, listing);
    let shadow = shadow(world, docker, clock, Places { files: FILES_DIR.to_owned(), faces: FACES_DIR.to_owned() })?;
    let inputs: Vec<Arc<SourceInput>> = given.into_iter().map(Arc::new).collect();
    let only = keys_of(&inputs);
    plan_inputs(&shadow, inputs, Some(only)).await
}

fn shadow(world: World, docker: Docker, clock: Clock, places: Places) -> Result<Controller, AskError> {
    let store = Store::open(Box::new(Memory::default()), Options { commit: CommitMode::Inline, ..Options::default() })
        .map_err(|e| AskError::Unavailable(e.to_string()))?;
    let metrics = Metrics::new(&Registry::new()).map_err(|e| AskError::Unavailable(e.to_string()))?;
    let (refresher, _) = mirror::channel();
    Ok(Controller::new(Arc::new(world), store, docker, refresher, clock, metrics, places))
}

fn keys_of(inputs: &[Arc<SourceInput>]) -> BTreeSet<ObjectKey> {
    inputs.iter().flat_map(|i| i.files.iter().flat_map(|f| f.documents.iter().map(|d| d.key.clone()))).collect()
}

async fn plan_inputs(shadow: &Controller, inputs: Vec<Arc<SourceInput>>, only: Option<BTreeSet<ObjectKey>>) -> Result<Plan, AskError> {
    let sources = Sources::new([]);
    shadow.apply(&sources, &inputs).await?;
    let report: Report = sources.report();
    let errors: Vec<Violation> = report.violations.iter().filter(|v| v.severity == Severity::Error).cloned().collect();
    if !errors.is_empty() {
        return Err(AskError::Violations(report.violations));
    }
    shadow.feed_all();
    let services: Vec<_> = shadow.store.snapshot().list(SERVICE, None).filter_map(|o| shadow.world.service(&o.key)).collect();
    for desired in services {
        let Some(spec) = desired.container().filter(|_| desired.wanted_replicas() > 0) else { continue };
        let pinned = shadow.revisions_of(&desired.key).first().map(|r| r.revision.image_id.clone());
        for reference in std::iter::once(spec.image.clone()).chain(pinned.filter(|id| !id.is_empty())) {
            if shadow.world.image(&reference).is_none() {
                let image = shadow.docker.inspect_image(&reference).await.map_err(|e| AskError::Unavailable(e.line()))?;
                shadow.world.put_image(&reference.as_str().into(), image);
            }
        }
    }
    adopt(shadow).await?;
    let mut plan = plan_all(shadow);
    if let Some(only) = only {
        let wanted = |key: &ObjectKey| {
            only.contains(key) || (key.kind == "Network" && key.name == "default" && only.iter().any(|o| o.namespace == key.namespace))
        };
        plan = restrict(plan, wanted);
    }
    for (source, held) in &report.held {
        let object = held.objects.first().cloned().unwrap_or_else(|| ObjectKey::new("Source", "", source.clone()));
        plan.findings.push(Finding { object, reason: qm_api::conditions::Reason::PruneHeld, message: held.message.clone(), stalls: false });
    }
    Ok(plan)
}

/// What would be adopted is adopted in the shadow: the engine is only read.
async fn adopt(shadow: &Controller) -> Result<(), AskError> {
    let unavailable = |error: String| AskError::Unavailable(error);
    let networks: Vec<_> = shadow.world.lock().nets.values().cloned().collect();
    for network in networks {
        shadow.adopt_network(&network).await.map_err(|e| unavailable(e.to_string()))?;
    }
    let objects: Vec<_> = shadow.store.snapshot().list(SERVICE, None).cloned().collect();
    for object in objects {
        let Some(desired) = shadow.world.service(&object.key) else { continue };
        shadow.adopt_containers(&object, &desired).await.map_err(|e| unavailable(e.to_string()))?;
    }
    Ok(())
}

/// The part of a plan that concerns some objects; steps of one object never need those of another.
fn restrict(plan: Plan, wanted: impl Fn(&ObjectKey) -> bool) -> Plan {
    let mut kept = Plan::default();
    let mut new_index = vec![None; plan.steps.len()];
    for (index, mut step) in plan.steps.into_iter().enumerate() {
        if !wanted(&step.object) {
            continue;
        }
        step.after = step.after.iter().filter_map(|i| new_index[*i]).collect();
        step.action.map_made(|made| new_index[made].unwrap_or(made));
        new_index[index] = Some(kept.push(step));
    }
    kept.findings = plan.findings.into_iter().filter(|f| wanted(&f.object)).collect();
    kept
}
