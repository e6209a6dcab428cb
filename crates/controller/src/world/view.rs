//! What concerns one object, cut out of the whole picture for a planner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::desired::{DesiredService, Form, HealthCheck, HealthKind, MountSource};
use qm_plan::kinds::network::{self, NetworkView};
use qm_plan::observed::{Container, Gap, Network, RunState, ServiceView};
use qm_plan::own::external_probe_id;

use super::{Inner, Link, World};

/// Something to be probed.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeTarget {
    /// The container and its start, or `None` for an external service.
    pub container: Option<(Name, Option<Timestamp>)>,
    /// The addresses at which it may be reached.
    pub addresses: Vec<String>,
    /// How.
    pub check: HealthCheck,
}

impl Inner {
    pub(crate) fn engine_gap(&self) -> Option<Gap> {
        match &self.link {
            Link::Lost { message, since } => Some(Gap::Engine { message: message.clone(), since: *since }),
            Link::Up(_) if !self.listed => Some(Gap::Engine { message: String::new(), since: Timestamp::default() }),
            Link::Up(_) => None,
        }
    }

    /// Services of the network's namespace that name it.
    pub(crate) fn users_of_network(&self, network: &ObjectKey) -> Vec<ObjectKey> {
        let names_it = |service: &DesiredService| {
            service.container().is_some_and(|c| c.networks.iter().any(|attachment| attachment.network == network.name))
        };
        self.services_of(&network.namespace).filter(|(_, s)| names_it(s)).map(|(key, _)| key.clone()).collect()
    }

    /// What a service uses: its networks and dependencies. Those that are to go wait for it to be gone first.
    pub(crate) fn needed_by(&self, service: &ObjectKey) -> Vec<ObjectKey> {
        let Some(desired) = self.services.get(service) else { return Vec::new() };
        let networks = desired.container().into_iter().flat_map(|c| &c.networks);
        let networks = networks.map(|a| ObjectKey::new("Network", service.namespace.clone(), a.network.clone()));
        networks.chain(desired.dependencies.iter().map(|d| d.on.clone())).collect()
    }

    pub(crate) fn services_of<'a>(&'a self, namespace: &Name) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<DesiredService>)> + use<'a> {
        let namespace = namespace.clone();
        let first = ObjectKey::new(qm_api::kinds::mini_service::KIND, namespace.clone(), "");
        self.services.range(first..).take_while(move |(key, _)| key.namespace == namespace)
    }

    fn containers_of(&self, owner: &ObjectKey) -> Vec<Arc<Container>> {
        self.by_owner.get(owner).into_iter().flatten().filter_map(|id| self.containers.get(id).cloned()).collect()
    }

    fn networks_of(&self, owner: &ObjectKey) -> Vec<Arc<Network>> {
        self.networks_by_owner.get(owner).into_iter().flatten().filter_map(|id| self.networks.get(id).cloned()).collect()
    }

    fn foreign_project(&self, namespace: &Name) -> Option<String> {
        self.foreign_projects.get(namespace).filter(|ids| !ids.is_empty()).map(|_| namespace.to_string())
    }

    pub(crate) fn service_view(&self, desired: &DesiredService, _instance: &Name) -> ServiceView {
        let key = &desired.key;
        let mut view = ServiceView { containers: self.containers_of(key), ..ServiceView::default() };
        view.health = view.containers.iter().filter_map(|c| Some((c.id.clone(), self.health.get(&c.id)?.clone()))).collect();
        if let Some(health) = self.external_health.get(key) {
            view.health.insert(external_probe_id(), health.clone());
        }
        let Form::Container(spec) = &desired.form else { return view };
        view.gaps.extend(self.engine_gap());
        for (id, (owner, message)) in &self.gaps {
            if owner == key {
                view.gaps.push(Gap::Thing { id: id.clone(), message: message.clone() });
            }
        }
        let own: BTreeSet<&Name> = view.containers.iter().map(|c| &c.id).collect();
        let prefix = format!("{}-{}-", key.namespace, key.name);
        view.names_taken = self
            .names
            .range::<str, _>((std::ops::Bound::Included(prefix.as_str()), std::ops::Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(&prefix))
            .filter(|(_, id)| !own.contains(id))
            .map(|(name, id)| (name.clone(), id.clone()))
            .collect();
        for attachment in &spec.networks {
            let owner = ObjectKey::new("Network", key.namespace.clone(), attachment.network.clone());
            let candidates = self.networks_of(&owner);
            let current = self.nets.get(&owner).and_then(|wanted| network::current(wanted, &candidates).cloned());
            view.networks.insert(attachment.network.clone(), current);
        }
        for mount in &spec.mounts {
            if let MountSource::Volume(name) = &mount.source {
                view.volumes.insert(name.clone(), self.volumes.contains(name.as_str()));
            }
        }
        let attachments = view.containers.iter().flat_map(|c| c.networks.values());
        view.known_networks = attachments.map(|a| a.network_id.clone()).filter(|id| self.networks.contains_key(id)).collect();
        view.image = self.images.get(spec.image.as_str()).cloned();
        view.foreign_project = self.foreign_project(&key.namespace);
        view
    }

    pub(crate) fn network_view(&self, key: &ObjectKey) -> NetworkView {
        let networks = self.networks_of(key);
        let ids: BTreeSet<&Name> = networks.iter().map(|n| &n.id).collect();
        let ours = self.containers.values().flat_map(|c| c.networks.values().map(|a| &a.network_id));
        let others = self.others.values().flat_map(|o| &o.network_ids);
        let mut attached: BTreeMap<Name, usize> = BTreeMap::new();
        for id in ours.chain(others).filter(|id| ids.contains(id)) {
            *attached.entry(id.clone()).or_default() += 1;
        }
        let engine_name = qm_plan::desired::engine_name(&key.namespace, &key.name);
        let name_taken = self.networks.values().find(|n| n.name == engine_name.as_str() && !ids.contains(&n.id)).map(|n| n.id.clone());
        // A service that is not being deleted still wants its networks; one that is, until its containers are gone.
        let wanted_by = self
            .users_of_network(key)
            .into_iter()
            .filter(|user| {
                self.by_owner.get(user).is_some_and(|ids| !ids.is_empty()) || self.services.get(user).is_some_and(|s| !s.deleting)
            })
            .collect();
        NetworkView {
            attached,
            name_taken,
            wanted_by,
            foreign_project: self.foreign_project(&key.namespace),
            gaps: self.engine_gap().into_iter().collect(),
            was_there: false,
            networks,
        }
    }

    /// Containers and networks stamped by this instance whose owner is not wanted.
    pub(crate) fn orphans(&self, owner: &ObjectKey) -> (Vec<Arc<Container>>, Vec<Arc<Network>>) {
        (self.containers_of(owner), self.networks_of(owner))
    }

    /// Owners that stamps name and that nothing wants.
    pub(crate) fn orphan_owners(&self) -> BTreeSet<ObjectKey> {
        let live = |index: &std::collections::BTreeMap<ObjectKey, BTreeSet<Name>>| {
            index.iter().filter(|(_, ids)| !ids.is_empty()).map(|(key, _)| key.clone()).collect::<Vec<_>>()
        };
        live(&self.by_owner)
            .into_iter()
            .chain(live(&self.networks_by_owner))
            .filter(|key| !self.services.contains_key(key) && !self.nets.contains_key(key))
            .collect()
    }
}

impl World {
    /// What must be probed for a service now.
    pub fn probe_targets(&self, key: &ObjectKey) -> Vec<ProbeTarget> {
        let inner = self.lock();
        let Some(desired) = inner.services.get(key) else { return Vec::new() };
        let Some(check) = desired.health().filter(|c| c.kind != HealthKind::Image) else { return Vec::new() };
        if desired.off.is_some() {
            return Vec::new();
        }
        match &desired.form {
            Form::External(_) => vec![ProbeTarget { container: None, addresses: Vec::new(), check: check.clone() }],
            Form::Container(_) => inner
                .containers_of(key)
                .into_iter()
                .filter(|c| c.state == RunState::Running)
                .map(|c| ProbeTarget {
                    addresses: c.networks.values().filter_map(|a| a.ipv4.clone()).collect(),
                    container: Some((c.id.clone(), c.started_at)),
                    check: check.clone(),
                })
                .collect(),
        }
    }
}
