//! Adoption (DESIGN 3.4): what somebody else made is ours from now on, as it is. Nothing is done to it: the store remembers its id with
//! the stamp that it would have, and the next replacement brings a stamp of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use qm_api::conditions::Reason;
use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_plan::desired::{DesiredNetwork, DesiredService, Form, described_form};
use qm_plan::kinds::network::adopted_hash;
use qm_plan::leaf;
use qm_plan::stamp::Stamp;
use qm_store::{Durability, Snapshot, StoreError};

use crate::controller::Controller;
use crate::docker::DockerError;
use crate::docker::describe::Described;
use crate::events::EventType;
use crate::records::{ADOPTION, AdoptedStamp, AdoptionRecord, RevisionRecord, adoption_key};
use crate::world::World;

/// The revision that something adopted stands for: the first.
const ADOPTED_REVISION: u64 = 1;

/// Why something could not be adopted now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptError {
    /// The engine could not be asked.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads what was adopted before from the store into the world.
pub(crate) fn load(snapshot: &Snapshot, world: &World) {
    for object in snapshot.list(ADOPTION, None) {
        let Ok(record) = object.decode_spec::<AdoptionRecord>() else {
            tracing::warn!(key = %object.key, "an adoption record cannot be read and is left out");
            continue;
        };
        let Some((kind, name)) = object.key.name.split_once('.') else { continue };
        let owner = ObjectKey::new(kind, object.key.namespace.clone(), name);
        let Some(uid) = snapshot.get(&owner).map(|o| o.meta.uid.clone()) else { continue };
        world.adopt(record.things.into_iter().map(|(id, adopted)| (id, stamp(world, &owner, &uid, adopted))).collect());
    }
}

fn stamp(world: &World, owner: &ObjectKey, uid: &Name, adopted: AdoptedStamp) -> Stamp {
    Stamp {
        instance: world.instance.clone(),
        owner: owner.clone(),
        uid: uid.clone(),
        spec_hash: adopted.spec_hash,
        revision: ADOPTED_REVISION,
        slot: adopted.slot,
        image: adopted.image,
    }
}

impl Controller {
    /// Adopts the containers that a service names and that are there, unless they are ours already.
    ///
    /// # Errors
    /// When the engine could not be asked, or the store refused; nothing was adopted then.
    pub(crate) async fn adopt_containers(&self, object: &Object, desired: &DesiredService) -> Result<(), AdoptError> {
        if desired.adopt.is_empty() || desired.deleting || !self.world.is_listed() {
            return Ok(());
        }
        let key = &desired.key;
        let strangers = self.world.strangers(&desired.adopt);
        let mut things = BTreeMap::new();
        let mut containers = Vec::new();
        let mut first: Option<Described> = None;
        for (slot, name) in (1_u32..).zip(&desired.adopt) {
            let Some(id) = strangers.get(name) else { continue };
            let Some((container, described)) = self.docker.describe(id, &key.namespace).await? else { continue };
            let Ok(form) = described_form(key, &described.container) else { continue };
            // Another name of the same image is the same image.
            let image: Name = desired.container().map_or(form.image.as_str(), |c| c.image.as_str()).into();
            let spec_hash = leaf::spec_hash(&form, &container.image_id).as_str().into();
            things.insert(id.clone(), AdoptedStamp { slot, spec_hash, image });
            containers.push((id.clone(), container));
            first.get_or_insert(described);
        }
        let Some(first) = first else { return self.forget_gone(key).await };
        self.remember_adopted(key, things).await?;
        for (id, container) in containers {
            let container = self.world.as_adopted(container);
            let listed = crate::docker::convert::as_listed(&container, container.project.clone());
            let message = format!("{} is ours from now on, as it is; nothing was restarted", container.name);
            self.world.put_container(&id, Some((Some(container), listed)));
            self.tell(key, EventType::Normal, Reason::Adopted, message);
        }
        self.record_adopted_revision(object, desired, &first).await?;
        Ok(())
    }

    /// What was adopted is a revision like any other: a change is told apart from it, and a rollback may come back to it.
    async fn record_adopted_revision(&self, object: &Object, desired: &DesiredService, described: &Described) -> Result<(), StoreError> {
        let key = &desired.key;
        if !self.revisions_of(key).is_empty() {
            return Ok(());
        }
        let Ok(mut form) = described_form(key, &described.container) else { return Ok(()) };
        if let Some(wanted) = desired.container() {
            form.image.clone_from(&wanted.image);
        }
        let as_it_is = DesiredService { form: Form::Container(Box::new(form)), ..desired.clone() };
        let Some(revision) = self.plan_service(object, &as_it_is).revision else { return Ok(()) };
        let container = serde_json::to_value(&described.container).ok();
        let now = self.clock.wall();
        let record = RevisionRecord {
            service: key.name.clone(),
            created_at: now,
            revision,
            container,
            files: BTreeMap::new(),
            proven_at: Some(now),
        };
        self.put_revision(key, record).await
    }

    /// Adopts the network that a Network names and that is there, unless it is ours already.
    ///
    /// # Errors
    /// When the store refused; nothing was adopted then.
    pub(crate) async fn adopt_network(&self, desired: &DesiredNetwork) -> Result<(), StoreError> {
        let Some(name) = desired.adopt.as_ref().filter(|_| !desired.deleting && self.world.is_listed()) else { return Ok(()) };
        let Some(network) = self.world.strange_network(name) else { return Ok(()) };
        let adopted = AdoptedStamp { slot: 0, spec_hash: adopted_hash(desired, &network).as_str().into(), image: Name::default() };
        self.remember_adopted(&desired.key, BTreeMap::from([(network.id.clone(), adopted)])).await?;
        let message = format!("the network {name} is ours from now on, as it is");
        self.tell(&desired.key, EventType::Normal, Reason::Adopted, message);
        Ok(())
    }

    /// Durable before anything follows from it.
    async fn remember_adopted(&self, key: &ObjectKey, things: BTreeMap<Name, AdoptedStamp>) -> Result<(), StoreError> {
        let snapshot = self.store.snapshot();
        let Some(uid) = snapshot.get(key).map(|o| o.meta.uid.clone()) else { return Ok(()) };
        let mut record: AdoptionRecord = snapshot.get(&adoption_key(key)).and_then(|o| o.decode_spec().ok()).unwrap_or_default();
        record.things.retain(|id, _| self.world.has(id));
        record.things.extend(things.clone());
        self.put_adoption(key, &record).await?;
        self.world.adopt(things.into_iter().map(|(id, adopted)| (id, stamp(&self.world, key, &uid, adopted))).collect());
        Ok(())
    }

    /// What was adopted and is not there any more needs no stamp.
    async fn forget_gone(&self, key: &ObjectKey) -> Result<(), AdoptError> {
        let known = self.world.adopted_by(key);
        if known.is_empty() || known.keys().all(|id| self.world.has(id)) {
            return Ok(());
        }
        let snapshot = self.store.snapshot();
        let mut record: AdoptionRecord = snapshot.get(&adoption_key(key)).and_then(|o| o.decode_spec().ok()).unwrap_or_default();
        record.things.retain(|id, _| self.world.has(id));
        self.put_adoption(key, &record).await?;
        self.world.forget_adopted(key);
        self.world.adopt(known.into_iter().filter(|(id, _)| self.world.has(id)).collect());
        Ok(())
    }

    async fn put_adoption(&self, key: &ObjectKey, record: &AdoptionRecord) -> Result<(), StoreError> {
        let record_key = adoption_key(key);
        let spec = serde_json::to_value(record).expect("an adoption is plain data");
        let mut tx = self.store.tx();
        match self.store.snapshot().get(&record_key) {
            Some(old) => {
                let mut object = (**old).clone();
                object.spec = Arc::new(spec);
                tx.put(object);
            }
            None => {
                tx.create(Object::new(record_key, self.clock.uid(), self.clock.wall(), spec));
            }
        }
        tx.commit(Durability::Durable).await.map(drop)
    }
}
