//! What concerns one object, cut out of the whole picture for a planner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::desired::{DesiredNetwork, DesiredService, Form, HealthCheck, HealthKind, MountSource};
use qm_plan::kinds::mini_service::Others;
use qm_plan::kinds::network::{self, NetworkView, Stand, User};
use qm_plan::observed::{Container, Gap, Network, Place, RunState, ServiceView};
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

    pub(crate) fn containers_of(&self, owner: &ObjectKey) -> Vec<Arc<Container>> {
        self.by_owner.get(owner).into_iter().flatten().filter_map(|id| self.containers.get(id).cloned()).collect()
    }

    fn networks_of(&self, owner: &ObjectKey) -> Vec<Arc<Network>> {
        self.networks_by_owner.get(owner).into_iter().flatten().filter_map(|id| self.networks.get(id).cloned()).collect()
    }

    fn foreign_project(&self, namespace: &Name) -> Option<String> {
        // Whoever adopts a part of a project knows that it is there.
        let adopts = || {
            self.services_of(namespace).any(|(_, s)| !s.adopt.is_empty())
                || self.nets.iter().any(|(key, n)| key.namespace == *namespace && n.adopt.is_some())
        };
        self.foreign_projects.get(namespace).filter(|ids| !ids.is_empty() && !adopts()).map(|_| namespace.to_string())
    }

    /// What concerns a service; `approved` = the step hashes that people approved, which matter to its plan alone.
    pub(crate) fn service_view(&self, desired: &DesiredService, approved: &BTreeSet<String>) -> ServiceView {
        let key = &desired.key;
        let mut view = ServiceView { containers: self.containers_of(key), ..ServiceView::default() };
        view.health = view.containers.iter().filter_map(|c| Some((c.id.clone(), self.health.get(&c.id)?.clone()))).collect();
        if let Some(health) = self.external_health.get(key) {
            view.health.insert(external_probe_id(), health.clone());
        }
        // What has become something else since is not asked any more.
        let unasked = self.unasked.get(key).filter(|_| matches!(desired.form, Form::External(_)));
        view.gaps.extend(unasked.map(|message| Gap::Thing { id: external_probe_id(), message: message.clone() }));
        view.report = self.reports.get(key).map(|said| said.report.clone());
        let Some(spec) = desired.container() else { return view };
        view.job = self.jobs.get(key).cloned();
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
            view.networks.insert(attachment.network.clone(), self.place(&owner, key, approved));
        }
        for mount in &spec.mounts {
            if let MountSource::Volume(name) = &mount.source {
                view.volumes.insert(name.clone(), self.volumes.contains(name.as_str()));
            }
        }
        let attachments = view.containers.iter().flat_map(|c| c.networks.values());
        view.known_networks = attachments.map(|a| a.network_id.clone()).filter(|id| self.networks.contains_key(id)).collect();
        let is_ours = |id: &Name| self.networks.get(id).and_then(|n| n.stamp.as_ref()).is_some_and(|s| self.nets.contains_key(&s.owner));
        view.our_networks = view.known_networks.iter().filter(|id| is_ours(id)).cloned().collect();
        view.image = self.images.get(spec.image.as_str()).cloned();
        view.foreign_project = self.foreign_project(&key.namespace);
        view
    }

    /// Where the containers of a service are to be for one Network.
    fn place(&self, key: &ObjectKey, service: &ObjectKey, approved: &BTreeSet<String>) -> Place {
        let Some(desired) = self.nets.get(key) else { return Place::default() };
        let users = || {
            let user = |user: ObjectKey| User { level: self.graph.level(&user), containers: self.containers_of(&user) };
            self.users_of_network(key).into_iter().map(user).collect()
        };
        network::place(desired, &self.networks_of(key), approved, self.graph.level(service), users)
    }

    /// Who may go on when somebody joined or left this network: its owner and, when it is replaced and the last one has joined its
    /// successor, all who are in it: one after the other they leave.
    pub(crate) fn movers(&self, network: &Name) -> Vec<ObjectKey> {
        let owner = self.networks.get(network).and_then(|n| n.stamp.as_ref()).map(|s| &s.owner);
        let Some((owner, desired)) = owner.and_then(|owner| self.nets.get_key_value(owner)) else { return Vec::new() };
        if desired.deleting || matches!(network::stand(desired, &self.networks_of(owner)), Stand::InTheWay(_)) {
            return vec![owner.clone()];
        }
        let place = self.place(owner, owner, &BTreeSet::new());
        if place.older.is_empty() {
            return Vec::new();
        }
        let mut movers = vec![owner.clone()];
        if place.older.values().all(|older| older.to_join.is_empty()) {
            movers.extend(self.users_of_network(owner));
        }
        movers
    }

    /// Networks that may wait for an address range that this one had, and that are not there yet themselves.
    pub(crate) fn waiting_for_range(&self, gone: &Network) -> Vec<ObjectKey> {
        let waits = |desired: &DesiredNetwork| {
            network::overlaps(desired.subnet.as_deref(), gone)
                && !matches!(network::stand(desired, &self.networks_of(&desired.key)), Stand::There(_))
        };
        self.nets.iter().filter(|(_, desired)| waits(desired)).map(|(key, _)| key.clone()).collect()
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
        let names = self.networks.values().map(|n| &n.name).filter(|name| name.starts_with(&engine_name)).cloned().collect();
        let subnet = self.nets.get(key).and_then(|n| n.subnet.as_deref());
        let strangers = self.networks.values().filter(|n| !ids.contains(&n.id) && network::overlaps(subnet, n));
        let is_ours = |n: &Network| n.stamp.as_ref().is_some_and(|s| self.networks_by_owner.contains_key(&s.owner));
        let in_range = strangers.map(|n| (n.name.clone(), is_ours(n))).collect();
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
            names,
            in_range,
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

    /// What else of ours there is in the namespace of a job, and whether this store remembers it: what it does not know by its uid was
    /// made before it, or is an orphan.
    pub(crate) fn others_of(&self, job: &ObjectKey, uid_of: impl Fn(&ObjectKey) -> Option<Name>) -> Others {
        let containers = self.containers.values().filter_map(|c| c.stamp.as_ref());
        let networks = self.networks.values().filter_map(|n| n.stamp.as_ref());
        let stamps = containers.chain(networks.filter(|s| self.networks_by_owner.contains_key(&s.owner)));
        let others = || stamps.clone().filter(|s| s.owner.namespace == job.namespace && s.owner != *job);
        if others().any(|s| uid_of(&s.owner).is_none_or(|uid| uid != s.uid)) {
            return Others::Forgotten;
        }
        // A network that is there for the job alone is nothing else.
        let joined: BTreeSet<ObjectKey> = self.needed_by(job).into_iter().filter(|key| key.kind == "Network").collect();
        if others().any(|s| !joined.contains(&s.owner)) { Others::Remembered } else { Others::None }
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
            // An app says how its parts are.
            Form::Logical(_) => Vec::new(),
            // How a job ends says how it was.
            Form::Job(_) => Vec::new(),
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
