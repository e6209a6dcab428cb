//! One test's world: an engine, a proxy before it, an operator behind the proxy, a namespace that nobody else has.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::docker::{Container, Docker};
use super::engine;
use super::manifests::{self, Service};
use super::operator::Operator;
use super::proxy::Proxy;

/// How long a set of services may take to come up on a busy machine.
pub const LONG: Duration = Duration::from_secs(120);

/// How long nothing must happen for what happened before to count as dealt with.
const CALM: Duration = Duration::from_millis(700);
/// Counts passes.
const PASSES: &str = "controller_runtime_reconcile_total";

/// A test's world. Dropping it takes away everything that it brought.
#[derive(Debug)]
pub struct World {
    /// The operator; started by [`World::up`].
    pub operator: Operator,
    /// The proxy between operator and engine.
    pub proxy: Proxy,
    /// The engine as it really is.
    pub docker: Docker,
    /// The namespace of this test; the instance has the same name.
    pub namespace: String,
}

impl World {
    /// A world on the shared engine.
    pub fn new() -> Self {
        Self::on(engine::shared())
    }

    /// A world on an engine.
    pub fn on(docker: Docker) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() % 100_000_000;
        let namespace = format!("q{:x}{:x}{}", std::process::id(), millis, COUNT.fetch_add(1, Ordering::Relaxed));
        let proxy = Proxy::before(docker.socket());
        let operator = Operator::prepare(&proxy.socket(), &namespace);
        Self { operator, proxy, docker, namespace }
    }

    /// A file in the manifests folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.operator.setup.manifests.join(name)
    }

    /// Writes services to one file of this name.
    pub fn write(&self, file: &str, services: &[Service]) {
        let documents: Vec<Value> = services.iter().map(|s| s.document(&self.namespace)).collect();
        manifests::put(&self.file(file), &manifests::text(&documents));
    }

    /// Writes services, starts the operator, waits until all is as wanted.
    pub fn up(services: &[Service]) -> Self {
        let mut world = Self::new();
        world.write("all.yaml", services);
        world.operator.start();
        world.settled(services.len());
        world
    }

    /// The name of the container of a service's only replica.
    pub fn name(&self, service: &str) -> String {
        format!("{}-{service}-1", self.namespace)
    }

    /// The containers of this namespace, by name.
    pub fn containers(&self) -> BTreeMap<String, Container> {
        self.docker.containers(&self.namespace)
    }

    /// The container of a service's only replica.
    pub fn container(&self, service: &str) -> Container {
        let name = self.name(service);
        self.docker.inspect(&name).unwrap_or_else(|| panic!("there is no container {name}\n{}", self.operator.log()))
    }

    /// Waits until `services` mini services exist, each is ready and usable in its present generation, and the networks are ready.
    pub fn settled(&mut self, services: usize) {
        let namespace = self.namespace.clone();
        self.operator.until_within(LONG, "everything as wanted", |o| settled(o, &namespace, services));
    }

    /// The status of a service.
    pub fn status(&self, service: &str) -> Value {
        self.operator.service(&self.namespace, service)["status"].clone()
    }

    /// Waits until a service's status is as wanted.
    pub fn until_status(&mut self, service: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let namespace = self.namespace.clone();
        self.operator.until_within(LONG, &format!("{service}: {what}"), |o| {
            let status = o.service(&namespace, service)["status"].clone();
            if is(&status) { Ok(status) } else { Err(format!("{status:#}")) }
        })
    }

    /// Waits for an event about an object with this reason and with these words.
    pub fn until_event(&mut self, object: &str, reason: &str, words: &str) {
        let namespace = self.namespace.clone();
        let start = format!("{object} {reason} ");
        self.operator.until(&format!("the event `{start}..{words}..`"), |o| {
            let events = o.events(&namespace);
            match events.iter().any(|e| e.starts_with(&start) && e.contains(words)) {
                true => Ok(()),
                false => Err(events.join("\n")),
            }
        });
    }

    /// Asks for a pass of every object and waits until `objects` were made; gives the calls that it took.
    pub fn reconcile_all(&mut self, objects: usize) -> usize {
        let before = self.quiet();
        let mark = self.proxy.mark();
        let done = self.operator.cli(&["reconcile", "--all"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.operator.until("a pass of every object", |o| {
            let made = o.metric(PASSES, &[]) - before;
            if made >= objects as f64 { Ok(()) } else { Err(format!("{made} of {objects}")) }
        });
        let made = self.operator.metric(PASSES, &[]) - before;
        assert_eq!(made as usize, objects, "one pass an object");
        self.proxy.since(mark).len()
    }

    /// Waits until what happened has been looked at: no call and no pass for a while. Gives the number of passes.
    pub fn quiet(&mut self) -> f64 {
        let proxy = &self.proxy;
        let mut last = (usize::MAX, f64::NAN);
        let mut since = Instant::now();
        self.operator.until("quiet", |o| {
            let now = (proxy.mark(), o.metric(PASSES, &[]));
            if now != last || proxy.under_way() > 0 {
                (last, since) = (now, Instant::now());
            }
            let calm = since.elapsed();
            if calm >= CALM { Ok(now.1) } else { Err(format!("{last:?} for {calm:?}")) }
        })
    }

    /// What must not change while nothing is to be done: the lives of all containers.
    pub fn lives(&self) -> BTreeMap<String, (String, String, u64)> {
        self.containers().into_iter().map(|(name, c)| (name, c.life())).collect()
    }

    /// What must not change in statuses while nothing is to be done.
    pub fn standing(&self, service: &str) -> Value {
        let s = self.status(service);
        json!([s["availability"], s["reason"], s["usable"], s["since"], s["replicas"], s["slots"], s["revision"]])
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.operator.kill();
        if self.docker.is_up() {
            self.docker.sweep(&format!("quaymaster.dev/instance={}", self.namespace));
            self.docker.sweep(&format!("test={}", self.namespace));
        }
    }
}

fn settled(operator: &Operator, namespace: &str, services: usize) -> Result<(), String> {
    let list = operator.list("miniservices", namespace);
    if list.len() != services {
        return Err(format!("{} of {services} services exist", list.len()));
    }
    let networks = operator.list("networks", namespace);
    match list.iter().chain(&networks).find(|o| !is_settled(o)) {
        Some(object) => Err(format!("{} is not as wanted: {:#}", object["metadata"]["name"], object["status"])),
        None => Ok(()),
    }
}

fn is_settled(object: &Value) -> bool {
    let generation = &object["metadata"]["generation"];
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True" && &c["observedGeneration"] == generation);
    ready && (object["kind"] != "MiniService" || (object["status"]["usable"] == true && object["status"]["stale"] != true))
}
