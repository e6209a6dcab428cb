//! A model of the engine that is just good enough to carry out plans: what a step does to a [`ServiceView`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::check::check;
use qm_plan::desired::{DesiredService, Files, MountSource, Rollout};
use qm_plan::job::Results;
use qm_plan::kinds::mini_service::{Context, DriftMemory, Gate, Held, JobContext, Others, PendingReload, plan_service};
use qm_plan::leaf::spec_hash;
use qm_plan::locks::Standing;
use qm_plan::observed::{Attachment, Container, EngineHealth, Health, Image, Network, Place, RunState, ServiceView};
use qm_plan::own::is_healthy;
use qm_plan::plan::{Plan, Revision};
use qm_plan::stamp::Stamp;
use qm_plan::step::{Action, ContainerRef, ImageRef, Join, Step, Wait};

/// A service from the YAML of its container and its edges.
pub(crate) fn service(container: &str, edges: &str) -> DesiredService {
    let yaml = |text: &str| -> serde_json::Value { serde_saphyr::from_str(text).expect("a test's own manifest is readable") };
    let mut spec = serde_json::json!({ "container": yaml(container) });
    if !edges.is_empty() {
        spec["dependsOn"] = yaml(edges);
    }
    let object = Object::new(ObjectKey::new("MiniService", "n", "app"), "uid-1", Timestamp::default(), spec);
    DesiredService::from_object(&object, &Files::new()).expect("a test's own manifest is good")
}

pub(crate) struct Model {
    pub(crate) desired: DesiredService,
    pub(crate) view: ServiceView,
    pub(crate) gates: BTreeMap<ObjectKey, Gate>,
    pub(crate) revisions: Vec<Revision>,
    pub(crate) proven: BTreeSet<u64>,
    pub(crate) brake: Option<Wait>,
    pub(crate) settled_generation: u64,
    pub(crate) settled_networks: BTreeSet<Name>,
    pub(crate) not_adoptable: Vec<String>,
    pub(crate) drift: DriftMemory,
    pub(crate) suspended: Option<String>,
    pub(crate) reload: Option<PendingReload>,
    pub(crate) stopped_for: Option<ObjectKey>,
    pub(crate) skipped_for: Option<ObjectKey>,
    pub(crate) stopped: BTreeMap<Name, Option<Timestamp>>,
    pub(crate) lock: Standing,
    pub(crate) last: Plan,
    pub(crate) images: BTreeSet<Name>,
    pub(crate) healthy: bool,
    pub(crate) new_are_healthy: bool,
    pub(crate) carried: Vec<(String, String)>,
    pub(crate) results: Option<Results>,
    pub(crate) others: Others,
    pub(crate) approved: BTreeSet<String>,
    next_id: u32,
    pub(crate) clock: i64,
}

fn attachment(join: &Join) -> Attachment {
    Attachment { network_id: join.network_id.clone(), aliases: join.aliases.clone(), fixed_ipv4: join.ipv4.clone(), ipv4: None }
}

impl Model {
    pub(crate) fn new(desired: DesiredService) -> Self {
        let networks = ["data", "edge"].map(|n| {
            let network = Network {
                id: format!("net-{n}").into(),
                name: format!("n_{n}").into(),
                stamp: None,
                project: None,
                driver: "bridge".into(),
                options: BTreeMap::new(),
                subnets: Vec::new(),
                gateway: None,
                internal: false,
                attachable: false,
                created_at: Timestamp::default(),
            };
            (Name::from(n), Place { current: Some(Arc::new(network)), ..Place::default() })
        });
        let mut model = Self {
            view: ServiceView { networks: networks.into_iter().collect(), ..ServiceView::default() },
            desired,
            gates: BTreeMap::new(),
            revisions: Vec::new(),
            proven: BTreeSet::new(),
            brake: None,
            settled_generation: 0,
            settled_networks: BTreeSet::new(),
            not_adoptable: Vec::new(),
            drift: DriftMemory::default(),
            reload: None,
            stopped_for: None,
            skipped_for: None,
            stopped: BTreeMap::new(),
            suspended: None,
            lock: Standing::Free,
            last: Plan::default(),
            images: BTreeSet::new(),
            healthy: true,
            new_are_healthy: true,
            carried: Vec::new(),
            results: None,
            others: Others::None,
            approved: BTreeSet::new(),
            next_id: 0,
            clock: 0,
        };
        model.look();
        model
    }

    /// A new manifest.
    pub(crate) fn change(&mut self, mut desired: DesiredService) {
        desired.generation = self.desired.generation + 1;
        self.desired = desired;
        self.look();
    }

    fn image_of(&self, reference: &str) -> Name {
        format!("sha256:{reference}").into()
    }

    fn look(&mut self) {
        let spec = self.desired.container().expect("a container").clone();
        self.view.image = Some(Image::Present { id: self.image_of(&spec.image), has_healthcheck: false, volumes: vec![] });
        self.images.insert(self.image_of(&spec.image));
        for mount in &spec.mounts {
            if let MountSource::Volume(name) = &mount.source {
                self.view.volumes.entry(name.clone()).or_insert(false);
            }
        }
    }

    pub(crate) fn current(&self) -> Plan {
        let pinned: Option<Name> = match &self.desired.rollout {
            Rollout::RolledBack { image_id, .. } => Some(image_id.clone()),
            Rollout::Wanted | Rollout::Paused { .. } => self.revisions.first().map(|r| r.image_id.as_str().into()),
        };
        let pinned_image =
            pinned.filter(|id| self.images.contains(id)).map(|id| Image::Present { id, has_healthcheck: false, volumes: vec![] });
        let instance = Name::from("default");
        let context = Context {
            now: Timestamp::from_millis(self.clock),
            instance: &instance,
            view: &self.view,
            gates: &self.gates,
            revisions: &self.revisions,
            proven: &self.proven,
            pinned_image: pinned_image.as_ref(),
            files_dir: "/data/files",
            faces_dir: "/run/faces",
            settled_generation: self.settled_generation,
            settled_networks: &self.settled_networks,
            pulled_generation: None,
            default_log_grows: true,
            suspended: self.suspended.clone(),
            reload: self.reload.as_ref(),
            held: self.stopped_for.as_ref().map(Held::Lost).or(self.skipped_for.as_ref().map(Held::Skipped)),
            stopped: &self.stopped,
            flapping: None,
            brake: self.brake.clone(),
            dependents_leaving: Vec::new(),
            lock: self.lock.clone(),
            not_adoptable: self.not_adoptable.clone(),
            drift: &self.drift,
            job: JobContext { results: self.results.as_ref(), others: self.others, approved: &self.approved },
        };
        let plan = plan_service(&self.desired, &context);
        let ours: BTreeSet<Name> = self.view.containers.iter().map(|c| c.id.clone()).collect();
        check(&plan, &ours, &self.approved).expect("the checker accepts every plan");
        plan
    }

    pub(crate) fn plan(&self) -> String {
        self.current().to_string()
    }

    /// One pass: plan, record, take every step that can be taken.
    pub(crate) fn step(&mut self) -> bool {
        let plan = self.current();
        self.last = plan.clone();
        let now = Timestamp::from_millis(self.clock);
        self.drift.see(&plan, now);
        if plan.steps.is_empty() && !plan.held {
            self.settled_generation = self.desired.generation;
            self.settled_networks = self.view.networks.values().filter_map(|place| Some(place.current.as_ref()?.id.clone())).collect();
        }
        for note in &plan.notes {
            self.results.get_or_insert_default().apply(note, "some output\n");
        }
        if let Some(revision) = &plan.revision {
            self.revisions.retain(|r| r.number != revision.number);
            self.revisions.insert(0, revision.clone());
        }
        let mut made: BTreeMap<usize, Name> = BTreeMap::new();
        let mut done = BTreeSet::new();
        for index in plan.runnable() {
            let step = &plan.steps[index];
            let after_pull = matches!(step.action, Action::CreateContainer { image: ImageRef::AfterPull, .. });
            if after_pull || !step.after.iter().all(|b| done.contains(b)) {
                continue;
            }
            self.clock += 10;
            self.take(index, step, &mut made);
            self.drift.took(step);
            done.insert(index);
        }
        self.breathe();
        !done.is_empty() || !plan.notes.is_empty()
    }

    /// Passes until nothing is done any more: what is left to do waits for something.
    pub(crate) fn settle(&mut self) {
        for _ in 0..60 {
            if !self.step() {
                let once = self.current();
                assert!(once.runnable().is_empty(), "no fixpoint:\n{once}");
                return;
            }
        }
        panic!("it never comes to rest:\n{}\n{}", self.plan(), self.world());
    }

    /// Running containers get healthy, or not.
    fn breathe(&mut self) {
        let (healthy, new_are_healthy) = (self.healthy, self.new_are_healthy);
        let newest = self.revisions.first().map_or(0, |r| r.number);
        // The engine starts again by itself what it is about to start again.
        for container in self.view.containers.iter_mut().filter(|c| c.state == RunState::Restarting) {
            Arc::make_mut(container).state = RunState::Running;
        }
        let health = self.view.containers.iter().filter(|c| c.state == RunState::Running).map(|c| {
            let is_new = c.stamp.as_ref().is_some_and(|s| s.revision == newest);
            let is_healthy = healthy && (new_are_healthy || !is_new || newest <= 1);
            (c.id.clone(), if is_healthy { Health::Healthy { since: c.started_at.unwrap_or_default() } } else { Health::Starting })
        });
        self.view.health = health.collect();
    }

    pub(crate) fn is_healthy(&self, container: &Container) -> bool {
        is_healthy(self.desired.container().expect("a container"), container, self.view.health.get(&container.id))
    }

    fn at(&mut self, id: &Name) -> &mut Container {
        let container = self.view.containers.iter_mut().find(|c| c.id == *id).expect("a step names a container that exists");
        Arc::make_mut(container)
    }

    fn add(&mut self, id: Name, name: &str, stamp: Stamp, image_id: Name, state: RunState) -> &mut Container {
        self.view.containers.push(Arc::new(Container {
            id,
            name: name.into(),
            stamp: Some(stamp),
            project: None,
            image_id,
            state,
            exit_code: 0,
            error: String::new(),
            created_at: Timestamp::from_millis(self.clock + i64::from(self.next_id)),
            started_at: None,
            finished_at: None,
            restart_count: 0,
            engine_health: EngineHealth::None,
            networks: BTreeMap::new(),
            resources: Default::default(),
            restart_policy: "unless-stopped".into(),
            anonymous_volumes: BTreeMap::new(),
            adopted: false,
            inspected: true,
        }));
        Arc::make_mut(self.view.containers.last_mut().expect("just pushed"))
    }

    pub(crate) fn take(&mut self, index: usize, step: &Step, made: &mut BTreeMap<usize, Name>) {
        let resolve = |r: &ContainerRef| match r {
            ContainerRef::Id(id) => id.clone(),
            ContainerRef::Made(i) => made[i].clone(),
        };
        match &step.action {
            Action::Pull { reference } => {
                let id = self.image_of(reference);
                self.images.insert(id.clone());
                self.view.image = Some(Image::Present { id, has_healthcheck: false, volumes: vec![] });
            }
            Action::CreateVolume { name, .. } => {
                assert_eq!(self.view.volumes.insert(name.clone(), true), Some(false), "a volume is made once");
            }
            Action::CreateContainer { name, image, body } => {
                assert!(self.view.containers.iter().all(|c| c.name != name.as_str()), "the name {name} is taken");
                let ImageRef::Id(image_id) = image else { panic!("made before its image is known") };
                self.next_id += 1;
                let id: Name = format!("c{}", self.next_id).into();
                let carried = body.mounts.iter().filter_map(|mount| match &mount.source {
                    MountSource::Volume(volume) if volume.len() == 64 => Some((mount.target.clone(), volume.clone())),
                    _ => None,
                });
                self.carried.extend(carried);
                let join = body.network.clone().expect("a first network");
                let stamp = Stamp::read(&body.labels).expect("it is stamped");
                let container = self.add(id.clone(), name, stamp, image_id.clone(), RunState::Created);
                container.networks.insert(join.network_name.clone(), attachment(&join));
                container.resources = body.resources;
                container.restart_policy = body.restart_policy.as_str().into();
                made.insert(index, id);
            }
            Action::PlaceFiles { .. } | Action::WriteFiles { .. } => {}
            Action::Connect { container, join } => {
                let id = resolve(container);
                let old = self.at(&id).networks.insert(join.network_name.clone(), attachment(join));
                assert!(old.is_none(), "connected twice");
            }
            Action::Disconnect { container, name: network, .. } => {
                assert!(self.at(container).networks.remove(network).is_some());
            }
            Action::Start { container } => {
                let clock = self.clock;
                let container = resolve(container);
                let at = self.at(&container);
                at.state = RunState::Running;
                at.started_at = Some(Timestamp::from_millis(clock));
            }
            Action::Stop { container, .. } => self.at(container).state = RunState::Exited,
            Action::Unpause { container } => self.at(container).state = RunState::Running,
            Action::Restart { container, .. } => {
                let clock = self.clock;
                self.at(container).started_at = Some(Timestamp::from_millis(clock));
            }
            Action::Signal { container, .. } => {
                let pending = self.reload.as_mut().expect("only a reload sends signals");
                assert!(pending.containers.remove(container).is_some(), "signalled twice");
            }
            Action::Rename { container, to } => {
                assert!(self.view.containers.iter().all(|c| c.name != to.as_str()), "the name {to} is taken");
                self.at(container).name = to.as_str().into();
            }
            Action::Update { container, resources, restart_policy } => {
                let at = self.at(container);
                at.resources = *resources;
                at.restart_policy = restart_policy.as_str().into();
            }
            Action::RemoveContainer { container } => {
                let state = self.at(container).state;
                assert!(!matches!(state, RunState::Running | RunState::Paused | RunState::Restarting), "removed while it runs");
                self.view.containers.retain(|c| c.id != *container);
            }
            Action::CreateNetwork { .. } | Action::RemoveNetwork { .. } => panic!("not a service's step"),
        }
    }

    /// Puts a container there as a crash, or a person, may have left it.
    pub(crate) fn plant(&mut self, slot: u32, is_new: bool, state: RunState, connected: bool, name: u8) {
        let spec = self.desired.container().expect("a container").clone();
        self.next_id += 1;
        let (image_id, revision) = if is_new { (self.image_of(&spec.image), 2) } else { (self.image_of("a:1"), 1) };
        let hash = if is_new { spec_hash(&spec, &image_id) } else { "old".to_owned() };
        let canonical = format!("n-app-{slot}");
        let name = match name {
            0 => canonical,
            1 => format!("{canonical}-r{revision}"),
            _ => format!("odd-{}", self.next_id),
        };
        if self.view.containers.iter().any(|c| c.name == name.as_str()) {
            return;
        }
        let stamp = Stamp {
            instance: "default".into(),
            owner: self.desired.key.clone(),
            uid: "uid-1".into(),
            spec_hash: hash.into(),
            revision,
            slot,
            image: spec.image.as_str().into(),
            job: None,
        };
        let id = format!("p{}", self.next_id).into();
        let container = self.add(id, &name, stamp, image_id, state);
        if connected {
            let join = Join { network_id: "net-data".into(), network_name: "n_data".into(), aliases: vec!["app".into()], ipv4: None };
            container.networks.insert("n_data".into(), attachment(&join));
        }
        self.breathe();
    }

    pub(crate) fn world(&self) -> String {
        let mut lines: Vec<String> = self
            .view
            .containers
            .iter()
            .map(|c| {
                let networks: Vec<&str> = c.networks.keys().map(Name::as_str).collect();
                let stamp = c.stamp.as_ref().expect("stamped");
                format!("{} {} {} r{} on {}", c.name, c.state.word(), c.image_id, stamp.revision, networks.join(","))
            })
            .collect();
        lines.sort();
        lines.join("\n")
    }
}
