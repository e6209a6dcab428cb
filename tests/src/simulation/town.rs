//! What the manifests of a run say, as data that chance can change and an oracle can read; and the files that say it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::annex::{Annex, INIT, OUTSIDE, PART};
use super::rng::Rng;

/// The image that is always there.
pub const IMAGE: &str = "busybox:local";
/// Another one.
pub const OTHER_IMAGE: &str = "busybox:two";
/// One that declares a volume without a name.
pub const VOLUME_IMAGE: &str = "busybox:volume";
/// One that must be pulled, slowly.
pub const REMOTE_IMAGE: &str = "registry.test/app:1";
/// One that no registry has.
pub const MISSING_IMAGE: &str = "registry.test/none:1";
/// The port that health checks ask.
pub const PORT: u16 = 8080;

/// How every range begins that a network may ask for; the engine picks others.
pub const RANGES: &str = "10.4";

/// Namespace and name.
pub type Id = (String, String);

/// How a service says that it is healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Running is healthy.
    None,
    /// A connection.
    Tcp,
    /// A GET.
    Http,
    /// A command in the container.
    Command,
}

/// What its containers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// They come up after so many milliseconds, and stay.
    Good {
        /// From the start to the first healthy moment.
        healthy_after_ms: u64,
    },
    /// They end again and again, so long after each start.
    Crashes {
        /// How long they live, in milliseconds.
        after_ms: u64,
    },
    /// They run and never get healthy.
    NeverHealthy,
}

/// An edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// On whom.
    pub on: Id,
    /// `Ignore`, `Degrade`, `Block` or `Stop`.
    pub on_down: &'static str,
    /// `Wait`, `Try` or `Skip`, where it is said.
    pub start: Option<&'static str>,
    /// `Signal`, `Restart`, or `Create` for a rebuild from there, when it returns.
    pub up: Option<&'static str>,
    /// The same when it changes.
    pub change: Option<&'static str>,
    /// How long its loss is tolerated, in seconds, where that is said.
    pub tolerate_s: Option<u64>,
}

impl Edge {
    /// How it gates a start.
    pub fn gate(&self) -> &'static str {
        self.start.unwrap_or(match self.on_down {
            "Block" | "Stop" => "Wait",
            "Degrade" => "Try",
            _ => "Skip",
        })
    }
}

/// A mini service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its image.
    pub image: &'static str,
    /// How many.
    pub replicas: u32,
    /// How many may be down for a replacement.
    pub parallelism: u32,
    /// The new container is started beside the old one.
    pub starts_first: bool,
    /// Declared networks; empty for the implicit one.
    pub networks: BTreeSet<String>,
    /// A limit, in MiB.
    pub memory_mib: Option<u64>,
    /// A value in the environment: a change of it takes a new container.
    pub env: u64,
    /// What it depends on.
    pub edges: Vec<Edge>,
    /// How it is checked.
    pub check: Check,
    /// What its containers do.
    pub conduct: Conduct,
    /// Whether it is on.
    pub enabled: bool,
    /// It mounts a volume with a name.
    pub has_volume: bool,
    /// It has a file.
    pub has_config: bool,
}

impl Service {
    /// How many containers are wanted.
    pub fn wanted(&self) -> u32 {
        if self.enabled { self.replicas } else { 0 }
    }

    /// Whether its containers come up and stay, given an image.
    pub fn is_good(&self) -> bool {
        matches!(self.conduct, Conduct::Good { .. }) && self.image != MISSING_IMAGE
    }
}

/// All that is declared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Town {
    /// Services.
    pub services: BTreeMap<Id, Service>,
    /// Declared networks, with the range of addresses that is asked for, if any.
    pub networks: BTreeMap<Id, Option<String>>,
    /// Namespaces whose file has a document that cannot be read, with a service that the file leaves out meanwhile.
    pub broken: BTreeMap<String, Option<String>>,
    /// The folder is empty, by mistake.
    pub emptied: bool,
    /// What a namespace has beside its services; it is there as long as there are any.
    pub annexes: BTreeMap<String, Annex>,
    /// Services that were removed at once, each with one that depended on it.
    pub pairs: Vec<(Id, Id)>,
}

const NAMES: [&str; 12] = ["store", "queue", "cache", "vault", "app", "worker", "beat", "edge", "mail", "push", "report", "web"];

impl Town {
    /// The first town of a run.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut town = Self::default();
        let namespaces = rng.between(1, 2);
        for n in 0..namespaces {
            let namespace = format!("ns{n}");
            // Drawn apart, so that what else a seed draws stays.
            let mut apart = rng.fork("annex");
            if apart.chance(35) {
                town.annexes.insert(namespace.clone(), Annex::draw(&mut apart, &namespace));
            }
            for network in ["back", "front"] {
                if rng.chance(50) {
                    town.networks.insert((namespace.clone(), network.to_owned()), None);
                }
            }
            for _ in 0..rng.between(1, 5) {
                town.add_service(rng, &namespace);
            }
        }
        town
    }

    /// Adds a service that depends on some that are there.
    pub fn add_service(&mut self, rng: &mut Rng, namespace: &str) -> Option<Id> {
        let free: Vec<&str> =
            NAMES.iter().copied().filter(|n| !self.services.contains_key(&(namespace.to_owned(), (*n).to_owned()))).collect();
        let name = rng.pick(&free)?;
        let id = (namespace.to_owned(), (*name).to_owned());
        // Only on those before it in the order of names, so that no cycle can come about.
        let before: Vec<Id> = self.services.keys().filter(|other| rank(other) < rank(&id)).cloned().collect();
        let mut edges = Vec::new();
        for other in before {
            if rng.chance(35) {
                edges.push(draw_edge(rng, other));
            }
        }
        let networks = self.networks.keys().filter(|(ns, _)| ns == namespace).map(|(_, n)| n.clone()).filter(|_| rng.chance(60)).collect();
        // Drawn apart, so that what else a seed draws stays.
        let mut order = rng.fork("order");
        if self.annexes.contains_key(namespace) {
            edges.extend(draw_annex_edge(&mut rng.fork("annex"), namespace));
        }
        let mut service = Service {
            image: draw_image(rng),
            replicas: rng.between(1, 3) as u32,
            parallelism: 1,
            starts_first: order.chance(40),
            networks,
            memory_mib: rng.chance(40).then(|| 32 * rng.between(1, 4)),
            env: rng.below(5),
            edges,
            check: *rng.pick(&[Check::None, Check::Tcp, Check::Http, Check::Command]).expect("there are some"),
            conduct: draw_conduct(rng),
            enabled: !rng.chance(5),
            has_volume: rng.chance(30),
            has_config: rng.chance(25),
        };
        // Two would write it.
        service.starts_first &= !service.has_volume;
        self.services.insert(id.clone(), service);
        Some(id)
    }

    /// Takes a service away, and every edge to it.
    pub fn remove_service(&mut self, id: &Id) {
        self.services.remove(id);
        for service in self.services.values_mut() {
            service.edges.retain(|e| e.on != *id);
        }
    }

    /// Another range for a network. Drawn apart, so that what else a seed draws stays; says what.
    pub fn change_range(&mut self, rng: &Rng) -> Option<String> {
        let mut rng = rng.fork("range");
        if !rng.chance(25) {
            return None;
        }
        let ids: Vec<Id> = self.networks.keys().cloned().collect();
        let id = rng.pick(&ids)?.clone();
        let space = u64::from(id.0.as_bytes().last().copied().unwrap_or(b'0') - b'0');
        let base = if id.1 == "back" { 0 } else { 64 };
        // The last one has all addresses of the first: the two cannot be there at once.
        let ranges = [(base, 24), (base + 8, 24), (base, 22)].map(|(third, bits)| format!("{RANGES}{space}.{third}.0/{bits}"));
        let range = rng.pick(&ranges)?.clone();
        self.networks.insert(id.clone(), Some(range.clone()));
        Some(format!("range of {}/{}: {range}", id.0, id.1))
    }

    /// Another input for a job, or another edge for a part. Drawn apart, so that what else a seed draws stays; says what.
    pub fn change_annex(&mut self, rng: &Rng) -> Option<String> {
        let mut rng = rng.fork("annex");
        if !rng.chance(25) {
            return None;
        }
        let namespaces: Vec<String> = self.annexes.keys().cloned().collect();
        let namespace = rng.pick(&namespaces)?;
        let what = self.annexes.get_mut(namespace)?.change(&mut rng);
        Some(format!("annex of {namespace}: {what}"))
    }

    /// Whether a namespace has services of its own.
    pub fn has_services(&self, namespace: &str) -> bool {
        self.services.keys().any(|(ns, _)| ns == namespace)
    }

    /// The service whose app reports for the part of a namespace.
    pub fn reporter(&self, namespace: &str) -> Option<&str> {
        self.services.iter().find(|((ns, _), s)| ns == namespace && s.wanted() > 0).map(|((_, name), _)| name.as_str())
    }

    /// Whether this is a node of an annex that is declared.
    pub fn is_in_annex(&self, id: &Id) -> bool {
        let is_there = match id.1.as_str() {
            OUTSIDE | INIT => self.has_services(&id.0),
            PART => self.reporter(&id.0).is_some(),
            _ => false,
        };
        is_there && self.annexes.contains_key(&id.0)
    }

    /// Changes something; says what.
    pub fn change(&mut self, rng: &mut Rng) -> String {
        let ids: Vec<Id> = self.services.keys().cloned().collect();
        let Some(id) = rng.pick(&ids).cloned() else {
            let added = self.add_service(rng, "ns0");
            return format!("add {added:?}");
        };
        match rng.below(13) {
            0 | 1 => {
                self.service(&id).env += 1;
                format!("env of {}/{}", id.0, id.1)
            }
            2 => {
                let image = draw_image(rng);
                self.service(&id).image = image;
                format!("image of {}/{}: {image}", id.0, id.1)
            }
            3 => {
                let replicas = rng.between(1, 3) as u32;
                self.service(&id).replicas = replicas;
                format!("replicas of {}/{}: {replicas}", id.0, id.1)
            }
            4 => {
                let memory = rng.chance(70).then(|| 32 * rng.between(1, 4));
                self.service(&id).memory_mib = memory;
                format!("memory of {}/{}: {memory:?}", id.0, id.1)
            }
            5 => {
                let on = !self.service(&id).enabled;
                self.service(&id).enabled = on;
                format!("enabled of {}/{}: {on}", id.0, id.1)
            }
            6 => {
                self.remove_service(&id);
                format!("remove {}/{}", id.0, id.1)
            }
            7 => format!("add {:?}", self.add_service(rng, &id.0)),
            8 => {
                let conduct = draw_conduct(rng);
                self.service(&id).conduct = conduct;
                format!("conduct of {}/{}: {conduct:?}", id.0, id.1)
            }
            9 => {
                let before: Vec<Id> = self.services.keys().filter(|other| rank(other) < rank(&id)).cloned().collect();
                let edge = rng.pick(&before).cloned().map(|on| draw_edge(rng, on));
                self.service(&id).edges = edge.clone().into_iter().collect();
                format!("edges of {}/{}: {edge:?}", id.0, id.1)
            }
            10 => {
                let network = rng.pick(&["back", "front"]).copied().unwrap_or("back").to_owned();
                let declared = (id.0.clone(), network.clone());
                let is_declared = self.networks.contains_key(&declared);
                self.networks.entry(declared).or_default();
                if is_declared {
                    let service = self.service(&id);
                    if !service.networks.remove(&network) {
                        service.networks.insert(network.clone());
                    }
                }
                format!("network {network} of {}/{}", id.0, id.1)
            }
            11 => {
                // A service together with one that depends on it: they go in an order.
                let dependent =
                    self.services.iter().find(|(_, s)| s.edges.iter().any(|e| e.on == id && matches!(e.on_down, "Block" | "Stop")));
                let dependent = dependent.map(|(id, _)| id.clone());
                if let Some(dependent) = &dependent {
                    self.remove_service(dependent);
                    // Files of two namespaces settle each by itself.
                    if dependent.0 == id.0 {
                        self.pairs.push((id.clone(), dependent.clone()));
                    }
                }
                self.remove_service(&id);
                format!("remove {}/{} with {dependent:?}", id.0, id.1)
            }
            _ => {
                let service = self.service(&id);
                service.has_config = !service.has_config;
                format!("config of {}/{}", id.0, id.1)
            }
        }
    }

    fn service(&mut self, id: &Id) -> &mut Service {
        self.services.get_mut(id).expect("it was just listed")
    }

    /// The mini containers with their children: one for each half of a namespace. A change of the environment moves a service to the other
    /// half, and the second half comes and goes with its children.
    pub fn parents(&self) -> BTreeMap<Id, BTreeSet<Id>> {
        let mut parents: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
        for namespace in self.services.keys().map(|(namespace, _)| namespace) {
            parents.entry((namespace.clone(), "even".to_owned())).or_default();
        }
        for (id, service) in &self.services {
            parents.entry((id.0.clone(), half(id, service).to_owned())).or_default().insert(id.clone());
        }
        parents
    }

    /// The namespaces in use.
    pub fn namespaces(&self) -> BTreeSet<String> {
        let declared = self.services.keys().chain(self.networks.keys()).map(|(ns, _)| ns);
        // A document that cannot be read is in the file however little else there is.
        declared.chain(self.broken.keys()).cloned().collect()
    }

    /// The files that say all this.
    pub fn files(&self) -> BTreeMap<String, String> {
        if self.emptied {
            return BTreeMap::new();
        }
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for namespace in self.namespaces() {
            let left_out = self.broken.get(&namespace);
            let mut text = String::new();
            for ((_, name), range) in self.networks.iter().filter(|((ns, _), _)| *ns == namespace) {
                let spec = range.as_ref().map_or_else(|| json!({}), |range| json!({ "subnet": range }));
                text.push_str(&document("Network", &namespace, name, None, &spec));
            }
            for ((_, name), service) in self.services.iter().filter(|((ns, _), _)| *ns == namespace) {
                if left_out.is_some_and(|l| l.as_deref() == Some(name.as_str())) {
                    continue;
                }
                let half = half(&(namespace.clone(), name.clone()), service);
                text.push_str(&document("MiniService", &namespace, name, Some(half), &spec(&namespace, service)));
            }
            for (name, spec) in self.annexes.get(&namespace).into_iter().flat_map(|a| a.documents(self.reporter(&namespace))) {
                if self.is_in_annex(&(namespace.clone(), name.to_owned())) {
                    text.push_str(&document("MiniService", &namespace, name, None, &spec));
                }
            }
            for ((_, half), _) in self.parents().iter().filter(|((ns, _), _)| *ns == namespace) {
                let spec = json!({ "selector": { "matchLabels": { "half": half } }, "allowEmpty": true });
                text.push_str(&document("MiniContainer", &namespace, half, None, &spec));
            }
            if left_out.is_some() {
                text.push_str(&document("MiniService", &namespace, "broken", None, &json!({ "contianer": {} })));
            }
            files.insert(format!("{namespace}.yaml"), text);
        }
        files
    }
}

fn rank(id: &Id) -> (usize, &str) {
    (NAMES.iter().position(|n| *n == id.1).unwrap_or(NAMES.len()), &id.0)
}

/// An edge to something in the annex, for some.
fn draw_annex_edge(rng: &mut Rng, namespace: &str) -> Option<Edge> {
    if !rng.chance(50) {
        return None;
    }
    let on = *rng.pick(&[OUTSIDE, INIT])?;
    let mut edge = draw_edge(rng, (namespace.to_owned(), on.to_owned()));
    // When a job counts as lost is a matter of its own.
    if on == INIT && edge.on_down == "Stop" {
        edge.on_down = "Block";
    }
    Some(edge)
}

/// Draws an edge.
pub fn draw_edge(rng: &mut Rng, on: Id) -> Edge {
    let on_down = rng.pick(&["Block", "Block", "Degrade", "Ignore"]).copied().expect("there are some");
    let start = rng.chance(20).then(|| *rng.pick(&["Wait", "Try", "Skip"]).expect("there are some"));
    // Drawn apart, so that what else a seed draws stays.
    let mut rng = rng.fork("reload");
    let mut verb = |percent| rng.chance(percent).then(|| *rng.pick(&["Signal", "Restart", "Restart", "Create"]).expect("there are some"));
    let (up, change) = (verb(30), verb(20));
    let on_down = if on_down == "Block" && rng.chance(20) { "Stop" } else { on_down };
    let tolerate_s = rng.chance(30).then(|| rng.below(40));
    Edge { on, on_down, start, up, change, tolerate_s }
}

fn draw_image(rng: &mut Rng) -> &'static str {
    match rng.below(20) {
        0..=9 => IMAGE,
        10..=13 => OTHER_IMAGE,
        14..=16 => VOLUME_IMAGE,
        17 | 18 => REMOTE_IMAGE,
        _ => MISSING_IMAGE,
    }
}

fn draw_conduct(rng: &mut Rng) -> Conduct {
    match rng.below(20) {
        0 => Conduct::Crashes { after_ms: 200 * rng.between(1, 20) },
        1 => Conduct::NeverHealthy,
        _ => Conduct::Good { healthy_after_ms: 100 * rng.below(40) },
    }
}

/// To which half of its namespace a service belongs.
fn half(id: &Id, service: &Service) -> &'static str {
    if (rank(id).0 as u64 + service.env).is_multiple_of(2) { "even" } else { "odd" }
}

fn document(kind: &str, namespace: &str, name: &str, half: Option<&str>, spec: &Value) -> String {
    let mut metadata = json!({ "name": name, "namespace": namespace });
    if let Some(half) = half {
        metadata["labels"] = json!({ "half": half });
    }
    let object = json!({ "apiVersion": "quaymaster.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec });
    // JSON is YAML; a document a line is easy to cut anywhere.
    format!("---\n{object}\n")
}

/// Whether a part of such a file can be read: it ends between two documents.
pub fn reads(text: &str) -> bool {
    let last = text.lines().last().unwrap_or_default();
    matches!(last, "" | "---") || serde_json::from_str::<Value>(last).is_ok()
}

fn spec(namespace: &str, service: &Service) -> Value {
    let mut labels = json!({ "dockersim.ports": PORT.to_string() });
    match service.conduct {
        Conduct::Good { healthy_after_ms } => labels["dockersim.healthy-after-ms"] = healthy_after_ms.to_string().into(),
        Conduct::Crashes { after_ms } => {
            labels["dockersim.exit-after-ms"] = after_ms.to_string().into();
            labels["dockersim.exit-code"] = "1".into();
            labels["dockersim.crash-loop"] = "true".into();
        }
        Conduct::NeverHealthy => labels["dockersim.healthy-after-ms"] = "1000000000".into(),
    }
    let mut container = json!({
        "image": service.image,
        "replicas": service.replicas,
        "command": ["serve"],
        "env": { "V": service.env.to_string() },
        "labels": labels,
        "stopGracePeriod": "2s",
        "update": { "parallelism": service.parallelism },
    });
    if service.starts_first {
        container["update"]["order"] = "StartFirst".into();
    }
    if !service.networks.is_empty() {
        container["networks"] = json!(service.networks);
    }
    if let Some(mib) = service.memory_mib {
        container["resources"] = json!({ "memory": format!("{mib}Mi") });
    }
    if service.has_volume {
        container["volumes"] = json!([{ "name": "data", "target": "/data" }]);
    }
    if service.has_config {
        container["configs"] = json!([{ "name": "c", "target": "/etc/c", "content": "hello" }]);
    }
    let timing = |check: Value| {
        let mut health = check;
        health["interval"] = "5s".into();
        health["timeout"] = "2s".into();
        health["startPeriod"] = "10s".into();
        health
    };
    match service.check {
        Check::None => {}
        Check::Tcp => container["health"] = timing(json!({ "tcp": { "port": PORT } })),
        Check::Http => container["health"] = timing(json!({ "http": { "port": PORT, "path": "/" } })),
        Check::Command => container["health"] = timing(json!({ "command": ["check"] })),
    }
    let edges: Vec<Value> = service.edges.iter().map(|e| edge_json(e, namespace)).collect();
    let mut spec = json!({ "container": container, "enabled": service.enabled });
    if !edges.is_empty() {
        spec["dependsOn"] = json!(edges);
    }
    spec
}

/// An edge as a manifest of this namespace says it.
pub fn edge_json(e: &Edge, namespace: &str) -> Value {
    let mut edge = json!({ "service": e.on.1, "onDown": e.on_down });
    if e.on.0 != namespace {
        edge["namespace"] = e.on.0.clone().into();
    }
    if let Some(start) = e.start {
        edge["start"] = start.into();
    }
    for (field, verb) in [("onUp", e.up), ("onChange", e.change)] {
        match verb {
            Some("Create") => {
                edge[field] = "Rebuild".into();
                edge["stage"] = "Create".into();
            }
            Some(verb) => edge[field] = verb.into(),
            None => {}
        }
    }
    if let Some(seconds) = e.tolerate_s {
        edge["tolerate"] = format!("{seconds}s").into();
    }
    edge
}
