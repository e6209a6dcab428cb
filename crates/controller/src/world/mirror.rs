//! The mirror's part of the picture: what the engine has, and the indexes over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use qm_api::meta::ObjectKey;
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use qm_plan::budget::Budget;
use qm_plan::leaf;
use qm_plan::observed::{Container, Health, Image, Network, RunState};
use qm_plan::stamp::{COMPOSE_PROJECT, Stamp};

use super::{Inner, Link, World};
use crate::docker::Facts;
use crate::docker::convert::Listed;
use crate::mirror::Thing;

/// All that the engine listed at once.
#[derive(Debug, Default)]
pub struct Listing {
    /// Containers stamped by this instance, inspected.
    pub ours: Vec<Container>,
    /// All others.
    pub others: Vec<Listed>,
    /// Networks.
    pub networks: Vec<Network>,
    /// Volumes by name.
    pub volumes: Vec<Name>,
    /// Containers of ours that could not be inspected, with their owner.
    pub failed: Vec<(Name, ObjectKey, String)>,
}

/// Whether an event was about something foreign, and therefore needs no look at the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// It was, and what it says is in the picture.
    Noted,
    /// It may be about something of ours.
    No,
}

impl World {
    /// The engine answered, and this is all that it has: both become true at once, so that nothing is unknown in between.
    pub fn connected(&self, facts: Facts, listing: Listing) {
        let mut inner = self.lock();
        inner.link = Link::Up(facts);
        self.take_listing(inner, listing);
    }

    /// The engine cannot be reached: everything observed through it is stale from now on.
    pub fn lost(&self, message: String) {
        let mut inner = self.lock();
        if let Link::Lost { message: old, .. } = &mut inner.link {
            let is_first = old.is_empty();
            *old = message;
            if !is_first {
                return;
            }
            let touched = inner.everything();
            self.settle(inner, touched);
            return;
        }
        inner.link = Link::Lost { message, since: self.clock.wall() };
        inner.listed = false;
        let touched = inner.everything();
        self.settle(inner, touched);
    }

    /// The facts of the engine while it is connected.
    pub fn facts(&self) -> Option<Facts> {
        match &self.lock().link {
            Link::Up(facts) => Some(facts.clone()),
            Link::Lost { .. } => None,
        }
    }

    /// Why, and since when, the engine cannot be reached.
    pub fn link_problem(&self) -> Option<(String, qm_api::time::Timestamp)> {
        match &self.lock().link {
            Link::Up(_) => None,
            Link::Lost { message, since } => Some((message.clone(), *since)),
        }
    }

    /// Whether the engine's things are all known.
    pub fn is_listed(&self) -> bool {
        self.lock().listed
    }

    /// Takes a whole listing in place of all that was known of the engine, except what was learned of single things while it was made: the
    /// listing may be older, and a thing that was just created is not to vanish from the picture.
    pub fn replace(&self, mut listing: Listing, learned: &BTreeSet<Thing>) {
        let inner = self.lock();
        inner.keep_learned(&mut listing, learned);
        self.take_listing(inner, listing);
    }

    fn take_listing(&self, mut inner: std::sync::MutexGuard<'_, Inner>, mut listing: Listing) {
        // What was adopted while the listing was made is in it as somebody else's.
        let (adopted, others): (Vec<_>, Vec<_>) = listing.others.into_iter().partition(|other| inner.adopted.contains_key(&other.id));
        listing.others = others;
        listing.ours.extend(adopted.iter().filter_map(|other| inner.containers.get(&other.id)).map(|c| (**c).clone()));
        let was_listed = inner.listed;
        let mut touched = BTreeSet::new();
        let gone: Vec<Name> = {
            let seen: BTreeSet<&Name> = listing.ours.iter().map(|c| &c.id).chain(listing.failed.iter().map(|f| &f.0)).collect();
            inner.containers.keys().filter(|id| !seen.contains(id)).cloned().collect()
        };
        for id in gone {
            if was_listed {
                inner.mirror_differences += 1;
            }
            touched.extend(inner.drop_container(&id, self.clock.wall()));
        }
        inner.others.clear();
        inner.names.retain(|_, _| false);
        inner.foreign_projects.clear();
        inner.gaps.clear();
        let kept: Vec<(Name, Name)> = inner.containers.values().map(|c| (c.name.clone(), c.id.clone())).collect();
        inner.names.extend(kept);
        for container in listing.ours {
            let differs = inner.containers.get(&container.id).is_some_and(|old| **old != container);
            if was_listed && differs {
                inner.mirror_differences += 1;
            }
            let (id, runs) = (container.id.clone(), container.state == RunState::Running);
            touched.extend(inner.put_container(container, self));
            // Whoever started while nobody looked is not known to be starting.
            if runs {
                inner.health.entry(id).or_insert(Health::Unprobed);
            }
        }
        for other in listing.others {
            inner.put_other(other, &self.instance);
        }
        for (id, owner, message) in listing.failed {
            touched.insert(owner.clone());
            inner.gaps.insert(id, (owner, message));
        }
        inner.networks.clear();
        inner.networks_by_owner.clear();
        for network in listing.networks {
            inner.put_network(network, &self.instance);
        }
        inner.volumes = listing.volumes.into_iter().collect();
        // What an image reference means may have changed while nobody listened.
        inner.images.clear();
        inner.listed = true;
        touched.extend(inner.everything());
        touched.extend(inner.orphan_owners());
        self.settle(inner, touched);
    }

    /// The stamp of something adopted.
    pub fn adopted(&self, id: &Name) -> Option<Stamp> {
        self.lock().adopted.get(id).cloned()
    }

    /// A container with the stamp that it was adopted with, if it was.
    pub fn as_adopted(&self, mut container: Container) -> Container {
        if container.stamp.is_none()
            && let Some(stamp) = self.adopted(&container.id)
        {
            container.stamp = Some(stamp);
            container.adopted = true;
        }
        container
    }

    /// These things are ours from now on, as if they had these stamps.
    pub fn adopt(&self, things: BTreeMap<Name, Stamp>) {
        let mut inner = self.lock();
        let mut touched = BTreeSet::new();
        for (id, stamp) in things {
            touched.insert(stamp.owner.clone());
            inner.adopted.insert(id.clone(), stamp);
            if let Some(network) = inner.networks.remove(&id) {
                touched.extend(inner.forget_network(&network));
                touched.extend(inner.put_network((*network).clone(), &self.instance));
            }
        }
        self.settle(inner, touched);
    }

    /// These things are gone: their stamps are of no use.
    pub fn disown(&self, ids: &BTreeSet<Name>) {
        self.lock().adopted.retain(|id, _| !ids.contains(id));
    }

    /// Nothing is adopted for this object any more.
    pub fn forget_adopted(&self, owner: &ObjectKey) {
        self.lock().adopted.retain(|_, stamp| stamp.owner != *owner);
    }

    /// Who of these containers is there and somebody else's, by name, with its id.
    pub fn strangers(&self, names: &[Name]) -> BTreeMap<Name, Name> {
        let inner = self.lock();
        let id_of = |name: &Name| inner.names.get(name).filter(|id| inner.others.get(*id).is_some_and(|o| o.stamp.is_none()));
        names.iter().filter_map(|name| Some((name.clone(), id_of(name)?.clone()))).collect()
    }

    /// A network of this name that nobody has stamped or adopted.
    pub fn strange_network(&self, name: &Name) -> Option<Arc<Network>> {
        self.lock().networks.values().find(|n| n.name == *name && n.stamp.is_none()).cloned()
    }

    /// Whether the engine has a container or network with this id.
    pub fn has(&self, id: &Name) -> bool {
        let inner = self.lock();
        inner.containers.contains_key(id) || inner.others.contains_key(id) || inner.networks.contains_key(id)
    }

    /// Takes one container as it is now; `None` = it is gone.
    pub fn put_container(&self, id: &Name, container: Option<(Option<Container>, Listed)>) {
        let mut inner = self.lock();
        let mut touched = BTreeSet::new();
        // Whoever waited for it to be read goes on, even when nothing changed.
        touched.extend(inner.gaps.remove(id).map(|(owner, _)| owner));
        let moved = inner.changed_attachments(id, container.as_ref().and_then(|(ours, _)| ours.as_ref()));
        match container {
            None => {
                let owner = inner.drop_container(id, self.clock.wall());
                // What was kept because of it may go now.
                touched.extend(owner.iter().flat_map(|owner| inner.needed_by(owner)));
                touched.extend(owner);
                touched.extend(inner.drop_other(id));
            }
            Some((Some(ours), _)) => {
                touched.extend(inner.drop_other(id));
                touched.extend(inner.put_container(ours, self));
            }
            Some((None, other)) => {
                touched.extend(inner.drop_container(id, self.clock.wall()));
                touched.extend(inner.drop_other(id));
                touched.extend(inner.put_other(other, &self.instance));
            }
        }
        // Who waits for others to join or leave a network goes on.
        touched.extend(moved.iter().flat_map(|network| inner.movers(network)));
        self.settle(inner, touched);
    }

    /// Takes what an event says of a container, if that is a foreign one: its attributes hold the name and every label.
    pub fn note_foreign(&self, id: &Name, action: &str, attributes: &BTreeMap<String, String>) -> Foreign {
        let stamp = Stamp::read(attributes);
        let mut inner = self.lock();
        let is_ours = stamp.as_ref().is_some_and(|s| s.is_of(&self.instance)) || inner.containers.contains_key(id);
        let Some(name) = attributes.get("name").filter(|_| !is_ours) else { return Foreign::No };
        let mut touched = BTreeSet::new();
        if action == "destroy" {
            touched.extend(inner.drop_other(id));
        } else {
            let known = inner.others.get(id);
            let network_ids = known.map(|o| o.network_ids.clone()).unwrap_or_default();
            let project = attributes.get(COMPOSE_PROJECT).map(Name::from);
            let other = Listed { id: id.clone(), name: name.trim_start_matches('/').into(), stamp, project, network_ids };
            if known == Some(&other) {
                return Foreign::Noted;
            }
            touched.extend(inner.drop_other(id));
            touched.extend(inner.put_other(other, &self.instance));
        }
        self.settle(inner, touched);
        Foreign::Noted
    }

    /// Takes what an event says of a foreign container that joined or left a network.
    pub fn note_attachment(&self, container: &Name, network: &Name, joined: bool) -> Foreign {
        let mut inner = self.lock();
        let Some(other) = inner.others.get_mut(container) else { return Foreign::No };
        other.network_ids.retain(|id| id != network);
        if joined {
            other.network_ids.push(network.clone());
        }
        // A network that is to go waits for those who still use it.
        let waiting = inner.movers(network).into_iter().collect();
        self.settle(inner, waiting);
        Foreign::Noted
    }

    /// One container could not be read. Gives whether it is one of ours, whose owner then has a gap.
    pub fn container_unreadable(&self, id: &Name, message: String) -> bool {
        let mut inner = self.lock();
        let owner = inner.containers.get(id).and_then(|c| c.stamp.as_ref()).map(|s| s.owner.clone());
        let Some(owner) = owner else { return false };
        inner.gaps.insert(id.clone(), (owner.clone(), message));
        self.settle(inner, BTreeSet::from([owner]));
        true
    }

    /// Takes one network as it is now; `None` = it is gone.
    pub fn put_network(&self, id: &Name, network: Option<Network>) {
        let mut inner = self.lock();
        // Whoever uses it looks again when it changed, not each time that somebody looked at it.
        if let Some(network) = &network
            && inner.networks.get(id).is_some_and(|old| **old == *network)
        {
            return;
        }
        let mut touched = BTreeSet::new();
        if let Some(old) = inner.networks.remove(id) {
            touched.extend(inner.forget_network(&old));
            if network.is_none() {
                touched.extend(inner.waiting_for_range(&old));
            }
        }
        if let Some(network) = network {
            touched.extend(inner.put_network(network, &self.instance));
        }
        let users: Vec<ObjectKey> = touched.iter().flat_map(|key| inner.users_of_network(key)).collect();
        touched.extend(users);
        self.settle(inner, touched);
    }

    /// Takes all networks as they are now, except those that were looked at while they were listed.
    pub fn put_networks(&self, mut networks: Vec<Network>, learned: &BTreeSet<Thing>) {
        let mut inner = self.lock();
        inner.keep_networks(&mut networks, learned);
        let there: BTreeSet<Name> = networks.iter().map(|n| n.id.clone()).collect();
        let old = std::mem::take(&mut inner.networks);
        let mut touched = BTreeSet::new();
        for old in old.values() {
            touched.extend(inner.forget_network(old));
        }
        for network in networks {
            touched.extend(inner.put_network(network, &self.instance));
        }
        for gone in old.values().filter(|n| !there.contains(&n.id)) {
            touched.extend(inner.waiting_for_range(gone));
        }
        let users: Vec<ObjectKey> = touched.iter().flat_map(|key| inner.users_of_network(key)).collect();
        touched.extend(users);
        self.settle(inner, touched);
    }

    /// A volume is there, or gone.
    pub fn put_volume(&self, name: &Name, there: bool) {
        let mut inner = self.lock();
        if there {
            inner.volumes.insert(name.clone());
        } else {
            inner.volumes.remove(name);
        }
    }

    /// What is known of an image, by reference or id.
    pub fn put_image(&self, reference: &Name, image: Image) {
        let mut inner = self.lock();
        if inner.images.get(reference) == Some(&image) {
            return;
        }
        inner.images.insert(reference.clone(), image);
        let users: BTreeSet<ObjectKey> = inner
            .services
            .iter()
            .filter(|(_, s)| s.container().is_some_and(|c| c.image == reference.as_str()))
            .map(|(key, _)| key.clone())
            .collect();
        self.settle(inner, users);
    }

    /// What is known of an image.
    pub fn image(&self, reference: &str) -> Option<Image> {
        self.lock().images.get(reference).cloned()
    }

    /// The images that were looked up so far.
    pub fn known_images(&self) -> Vec<Name> {
        self.lock().images.keys().cloned().collect()
    }

    /// The next exit of this container is ours: it does not count as a failed start.
    pub fn expect_exit(&self, id: &Name) {
        self.lock().expected_exits.insert(id.clone());
    }

    /// The owner of a container of ours.
    pub fn owner_of(&self, id: &Name) -> Option<ObjectKey> {
        self.lock().containers.get(id)?.stamp.as_ref().map(|s| s.owner.clone())
    }

    /// Ids of everything stamped by this instance, for the checker.
    pub fn our_ids(&self, owner: &ObjectKey) -> BTreeSet<Name> {
        let inner = self.lock();
        let (containers, networks) = inner.orphans(owner);
        containers.iter().map(|c| c.id.clone()).chain(networks.iter().map(|n| n.id.clone())).collect()
    }
}

impl Inner {
    fn keep_learned(&self, listing: &mut Listing, learned: &BTreeSet<Thing>) {
        for thing in learned {
            match thing {
                Thing::Container(id) => {
                    listing.ours.retain(|c| c.id != *id);
                    listing.others.retain(|c| c.id != *id);
                    listing.failed.retain(|(failed, ..)| failed != id);
                    listing.ours.extend(self.containers.get(id).map(|c| (**c).clone()));
                    listing.others.extend(self.others.get(id).cloned());
                    listing.failed.extend(self.gaps.get(id).map(|(owner, message)| (id.clone(), owner.clone(), message.clone())));
                }
                Thing::Volume(name) => {
                    listing.volumes.retain(|v| v != name);
                    listing.volumes.extend(self.volumes.get(name).cloned());
                }
                Thing::Networks => listing.networks = self.networks.values().map(|n| (**n).clone()).collect(),
                Thing::Network(_) | Thing::Containers | Thing::Image(_) => {}
            }
        }
        if !learned.contains(&Thing::Networks) {
            self.keep_networks(&mut listing.networks, learned);
        }
    }

    fn keep_networks(&self, networks: &mut Vec<Network>, learned: &BTreeSet<Thing>) {
        let is_learned = |id: &Name| learned.contains(&Thing::Network(id.clone()));
        networks.retain(|n| !is_learned(&n.id));
        networks.extend(self.networks.values().filter(|n| is_learned(&n.id)).map(|n| (**n).clone()));
    }

    pub(crate) fn everything(&self) -> BTreeSet<ObjectKey> {
        self.services.keys().chain(self.nets.keys()).cloned().collect()
    }

    /// The networks that this container of ours has joined or left, or is in no more because it ended.
    fn changed_attachments(&self, id: &Name, now: Option<&Container>) -> BTreeSet<Name> {
        let ids = |c: &Container| c.networks.values().map(|a| (a.network_id.clone(), c.state.is_up())).collect::<BTreeSet<_>>();
        let before = self.containers.get(id).map(|c| ids(c)).unwrap_or_default();
        let after = now.map(ids).unwrap_or_default();
        before.symmetric_difference(&after).map(|(network, _)| network.clone()).collect()
    }

    fn put_container(&mut self, container: Container, world: &World) -> Option<ObjectKey> {
        let owner = container.stamp.as_ref()?.owner.clone();
        let id = container.id.clone();
        let old = self.containers.get(&id).cloned();
        if old.as_deref() == Some(&container) {
            return None;
        }
        if old.as_ref().is_some_and(|o| o.started_at != container.started_at) || container.state != RunState::Running {
            self.health.remove(&id);
        }
        self.count_exit(&owner, old.as_deref(), &container, world);
        let ended = self.last_ended.get(&owner).copied().max(container.finished_at);
        self.last_ended.extend(ended.map(|at| (owner.clone(), at)));
        if let Some(old) = &old
            && self.names.get(&old.name) == Some(&id)
        {
            self.names.remove(&old.name);
        }
        self.names.insert(container.name.clone(), id.clone());
        self.by_owner.entry(owner.clone()).or_default().insert(id.clone());
        self.containers.insert(id, Arc::new(container));
        Some(owner)
    }

    /// A container that ended and was not stopped by us spends the start budget of its replica.
    fn count_exit(&mut self, owner: &ObjectKey, old: Option<&Container>, new: &Container, world: &World) {
        let Some(old) = old else { return };
        if new.finished_at == old.finished_at || new.finished_at.is_none() {
            return;
        }
        if self.expected_exits.remove(&new.id) || planted(Mutant::Brakeless) {
            return;
        }
        let Some(spec) = self.services.get(owner).and_then(|s| s.replicated()) else { return };
        // What an older revision does says nothing about the wanted one.
        let Some(stamp) = new.stamp.as_ref().filter(|s| s.spec_hash == leaf::spec_hash(spec, &new.image_id).as_str()) else { return };
        let budget = Budget { tries: spec.start_tries, window_ms: spec.start_window_ms };
        let evidence = match new.error.as_str() {
            "" => format!("{} ended with code {}", new.name, new.exit_code),
            error => format!("{} ended with code {}: {error}", new.name, new.exit_code),
        };
        self.exits.entry(owner.clone()).or_default().entry(stamp.slot).or_default().record(budget, world.clock.wall(), evidence);
    }

    fn drop_container(&mut self, id: &Name, now: qm_api::time::Timestamp) -> Option<ObjectKey> {
        let old = self.containers.remove(id)?;
        self.health.remove(id);
        self.expected_exits.remove(id);
        if self.names.get(&old.name) == Some(id) {
            self.names.remove(&old.name);
        }
        let owner = old.stamp.as_ref()?.owner.clone();
        if old.state.is_up() {
            // Its end was not seen: it was not earlier than the last look, and is over now.
            let ended = self.last_ended.get(&owner).copied().max(Some(now));
            self.last_ended.extend(ended.map(|at| (owner.clone(), at)));
        }
        if let Some(ids) = self.by_owner.get_mut(&owner) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
        Some(owner)
    }

    fn put_other(&mut self, other: Listed, instance: &Name) -> Vec<ObjectKey> {
        self.names.insert(other.name.clone(), other.id.clone());
        let is_foreign = other.stamp.as_ref().is_none_or(|s| s.instance != *instance);
        let mut touched = Vec::new();
        if let Some(project) = other.project.as_ref().filter(|_| is_foreign) {
            self.foreign_projects.entry(project.clone()).or_default().insert(other.id.clone());
            touched.extend(self.of_namespace(&project.clone()));
        }
        self.others.insert(other.id.clone(), other);
        touched
    }

    fn drop_other(&mut self, id: &Name) -> Vec<ObjectKey> {
        let Some(old) = self.others.remove(id) else { return Vec::new() };
        if self.names.get(&old.name) == Some(id) {
            self.names.remove(&old.name);
        }
        // A name that becomes free may be one that a service waits for.
        let mut touched: Vec<ObjectKey> = self
            .services
            .keys()
            .filter(|key| {
                old.name
                    .strip_prefix(key.namespace.as_str())
                    .and_then(|r| r.strip_prefix('-'))
                    .is_some_and(|r| r.starts_with(key.name.as_str()))
            })
            .cloned()
            .collect();
        if let Some(project) = &old.project
            && let Some(ids) = self.foreign_projects.get_mut(project)
        {
            ids.remove(id);
            if ids.is_empty() {
                self.foreign_projects.remove(project);
            }
            touched.extend(self.of_namespace(&project.clone()));
        }
        touched
    }

    fn of_namespace(&self, namespace: &Name) -> Vec<ObjectKey> {
        let services = self.services_of(namespace).map(|(key, _)| key.clone());
        services.chain(self.nets.keys().filter(|key| key.namespace == *namespace).cloned()).collect()
    }

    fn put_network(&mut self, mut network: Network, instance: &Name) -> Vec<ObjectKey> {
        let id = network.id.clone();
        if let Some(stamp) = self.adopted.get(&id) {
            network.stamp = Some(stamp.clone());
        }
        let mut touched = Vec::new();
        match network.stamp.as_ref().filter(|s| s.is_of(instance)) {
            Some(stamp) => {
                self.networks_by_owner.entry(stamp.owner.clone()).or_default().insert(id.clone());
                touched.push(stamp.owner.clone());
            }
            None => {
                if let Some(project) = &network.project {
                    self.foreign_projects.entry(project.clone()).or_default().insert(id.clone());
                    touched.extend(self.of_namespace(&project.clone()));
                }
            }
        }
        self.networks.insert(id, Arc::new(network));
        touched
    }

    fn forget_network(&mut self, old: &Network) -> Vec<ObjectKey> {
        let mut touched = Vec::new();
        if let Some(stamp) = &old.stamp {
            if let Some(ids) = self.networks_by_owner.get_mut(&stamp.owner) {
                ids.remove(&old.id);
                if ids.is_empty() {
                    self.networks_by_owner.remove(&stamp.owner);
                }
            }
            touched.push(stamp.owner.clone());
        }
        if let Some(project) = &old.project
            && let Some(ids) = self.foreign_projects.get_mut(project)
        {
            ids.remove(&old.id);
            if ids.is_empty() {
                self.foreign_projects.remove(project);
            }
            touched.extend(self.of_namespace(&project.clone()));
        }
        touched
    }
}
