//! Adoption (DESIGN 3.4): what somebody else made is ours from now on, as it is. Nothing is done to it: the store remembers its id with
//! the stamp that it would have, and the next replacement brings a stamp of its own.

use std::collections::{BTreeMap, BTreeSet};

use qm_api::conditions::Reason;
use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_api::spec::container::Container;
use qm_plan::desired::{DesiredNetwork, DesiredService, Form, described_form};
use qm_plan::kinds::network::adopted_hash;
use qm_plan::leaf;
use qm_plan::observed::Image;
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
        job: None,
    }
}

impl Controller {
    /// Adopts the containers that a service names and that are there, unless they are ours already. One that has what no manifest can say
    /// and that it cannot do without is left alone, and the service says so.
    ///
    /// # Errors
    /// When the engine could not be asked, or the store refused; nothing was adopted then.
    pub(crate) async fn adopt_containers(&self, object: &Object, desired: &DesiredService) -> Result<(), AdoptError> {
        if desired.adopt.is_empty() || desired.wanted_replicas() == 0 || !self.world.is_listed() {
            return Ok(());
        }
        let key = &desired.key;
        let refused = self.remember(key, |m| m.not_adoptable.clone());
        let mut things = BTreeMap::new();
        let mut containers = Vec::new();
        let strangers = self.world.strangers(&desired.adopt);
        for (slot, name) in (1_u32..).zip(&desired.adopt) {
            let Some(id) = strangers.get(name).filter(|id| !refused.contains_key(*id)) else { continue };
            let Some((container, described)) = self.docker.describe(id, &key.namespace).await? else { continue };
            if !described.hindrances.is_empty() {
                let message = format!("the container {name} cannot be adopted: it has {}", described.hindrances.join(", "));
                self.remember(key, |m| m.not_adoptable.insert(id.clone(), message));
                continue;
            }
            let Ok(form) = described_form(key, &described.container) else { continue };
            let image = self.adopted_image(desired, &described, &container.image_id);
            let spec_hash = leaf::spec_hash(&form, &container.image_id).as_str().into();
            things.insert(id.clone(), AdoptedStamp { slot, spec_hash, image });
            containers.push((id.clone(), container));
        }
        if things.is_empty() {
            self.forget_gone(key).await?;
        } else {
            self.remember_adopted(key, things).await?;
        }
        for (id, container) in containers {
            let container = self.world.as_adopted(container);
            let listed = crate::docker::convert::as_listed(&container, container.project.clone());
            let message = format!("{} is ours from now on, as it is; nothing was restarted", container.name);
            self.world.put_container(&id, Some((Some(container), listed)));
            self.tell(key, EventType::Normal, Reason::Adopted, message);
        }
        self.record_adopted_revision(object, desired).await
    }

    /// The reference that an adopted container was made from: the manifest's, where that means the very image that it runs.
    fn adopted_image(&self, desired: &DesiredService, described: &Described, image_id: &Name) -> Name {
        let wanted = desired.container().map_or("", |c| c.image.as_str());
        let is_same = matches!(self.world.image(wanted), Some(Image::Present { id, .. }) if id == *image_id);
        if is_same { wanted.into() } else { described.container.image.as_str().into() }
    }

    fn adoption(&self, key: &ObjectKey) -> AdoptionRecord {
        self.store.snapshot().get(&adoption_key(key)).and_then(|o| o.decode_spec().ok()).unwrap_or_default()
    }

    /// What was adopted is a revision like any other: a change is told apart from it, and a rollback may come back to it. Made up for by
    /// the next pass, should the process die right after the adoption.
    async fn record_adopted_revision(&self, object: &Object, desired: &DesiredService) -> Result<(), AdoptError> {
        let key = &desired.key;
        if !self.revisions_of(key).is_empty() {
            return Ok(());
        }
        let things = self.adoption(key).things;
        let first = things.iter().filter(|(id, _)| self.world.has(id)).min_by_key(|(_, adopted)| adopted.slot);
        let Some((id, adopted)) = first else { return Ok(()) };
        let Some((_, described)) = self.docker.describe(id, &key.namespace).await? else { return Ok(()) };
        let container = Container { image: adopted.image.to_string(), ..described.container };
        let Ok(form) = described_form(key, &container) else { return Ok(()) };
        if self.world.image(&container.image).is_none() {
            let image = self.docker.inspect_image(&container.image).await?;
            self.world.put_image(&adopted.image, image);
        }
        let as_it_is = DesiredService { form: Form::Container(Box::new(form)), ..desired.clone() };
        let Some(revision) = self.plan_service(object, &as_it_is).revision else { return Ok(()) };
        let container = serde_json::to_value(&container).ok();
        let now = self.clock.wall();
        let record = RevisionRecord {
            service: key.name.clone(),
            created_at: now,
            revision,
            container,
            files: BTreeMap::new(),
            proven_at: Some(now),
        };
        Ok(self.put_revision(key, record).await?)
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
        let Some(uid) = self.store.snapshot().get(key).map(|o| o.meta.uid.clone()) else { return Ok(()) };
        let mut record = self.adoption(key);
        record.things.retain(|id, _| self.world.has(id));
        record.things.extend(things.clone());
        self.put_adoption(key, &record).await?;
        self.world.adopt(things.into_iter().map(|(id, adopted)| (id, stamp(&self.world, key, &uid, adopted))).collect());
        Ok(())
    }

    /// What was adopted and is not there any more needs no stamp.
    async fn forget_gone(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let mut record = self.adoption(key);
        let gone: BTreeSet<Name> = record.things.keys().filter(|id| !self.world.has(id)).cloned().collect();
        if gone.is_empty() {
            return Ok(());
        }
        record.things.retain(|id, _| !gone.contains(id));
        self.put_adoption(key, &record).await?;
        self.world.disown(&gone);
        Ok(())
    }

    async fn put_adoption(&self, key: &ObjectKey, record: &AdoptionRecord) -> Result<(), StoreError> {
        let mut tx = self.store.tx();
        self.put_record(&mut tx, adoption_key(key), record);
        tx.commit(Durability::Durable).await.map(drop)
    }
}
