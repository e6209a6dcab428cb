//! The rules that hold at every moment of a run, judged from what is really in the engine: before each call of the operator takes effect,
//! and at every tick. It knows what the manifests say and nothing of how the operator decides.

use std::collections::{BTreeMap, BTreeSet};

use qm_dockersim::{Call, Engine, Listening, Now, Reply, Request};
use serde_json::Value;

use super::annex::{Annexes, INIT, OUTSIDE, PART};
use super::reloads::Stirs;
use super::town::{Check, Conduct, Id, PORT, RANGES, Service, Town};

/// The instance under test.
pub const INSTANCE: &str = "sim";
/// How old the operator's picture of health may be, in milliseconds: three checks of 5 s with their time-outs, and the grace of 30 s.
const PICTURE_MS: u64 = 75_000;
/// How long what was begun before a suspension may take to its end, in milliseconds: a replacement is not left half done, and each of its
/// calls may be slow.
const BEGUN_MS: u64 = 120_000;
/// How old the operator's picture of who is in which network may be, in milliseconds.
const MOVE_MS: u64 = 10_000;
/// How long after something changed a rule about it does not count, in milliseconds: what was begun before may end.
const SETTLE_MS: u64 = 1_000;

/// A container as it really is.
#[derive(Clone, Debug, PartialEq)]
pub struct Real {
    /// Its id.
    pub id: String,
    /// Its name, without the slash.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `running`, `exited`, ...
    pub state: String,
    /// Its networks, by name.
    pub networks: BTreeMap<String, String>,
    /// Volumes without a name of their own, by target.
    pub anonymous: BTreeMap<String, String>,
    /// What it was made from. Only known after [`Real::inspect`], as what follows.
    pub image: String,
    /// Its environment.
    pub env: Vec<String>,
    /// Its limit of memory, in bytes; 0 = none.
    pub memory: u64,
    /// The id of its image, and the id that the name of its image has now.
    pub image_ids: (String, String),
    /// The file that some services have is in it.
    pub has_config: bool,
}

impl Real {
    /// Whether it is stamped by the instance under test.
    pub fn is_ours(&self) -> bool {
        self.label("instance") == INSTANCE
    }

    /// Looks closer.
    pub fn inspect(&mut self, engine: &mut Engine, now: Now) {
        let (_, found) = ask(engine, now, "GET", &format!("/containers/{}/json", self.id), &[], &Value::Null);
        self.image = found["Config"]["Image"].as_str().unwrap_or_default().to_owned();
        let env = found["Config"]["Env"].as_array().into_iter().flatten();
        self.env = env.filter_map(Value::as_str).map(str::to_owned).collect();
        self.memory = found["HostConfig"]["Memory"].as_u64().unwrap_or(0);
        let (status, _) = ask(engine, now, "HEAD", &format!("/containers/{}/archive", self.id), &[("path", "/etc/c")], &Value::Null);
        self.has_config = status == 200;
        self.image_ids.0 = found["Image"].as_str().unwrap_or_default().to_owned();
    }

    /// The owner that its stamp names.
    pub fn owner(&self) -> Id {
        (self.label("namespace").to_owned(), self.label("name").to_owned())
    }

    /// Its slot.
    pub fn slot(&self) -> u32 {
        self.label("slot").parse().unwrap_or(0)
    }

    /// A label of the stamp.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(&format!("quaymaster.dev/{name}")).map_or("", String::as_str)
    }
}

/// Asks the engine itself, past every fault.
pub fn ask(engine: &mut Engine, now: Now, method: &str, path: &str, query: &[(&str, &str)], body: &Value) -> (u16, Value) {
    let mut asked: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in query {
        asked.entry((*key).to_owned()).or_default().push((*value).to_owned());
    }
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request { method: method.to_owned(), path: path.to_owned(), query: asked, body, api: (1, 41), registry_auth: None };
    match engine.handle(&request, now) {
        Reply::Json { status, body } => (status, body),
        // What takes time is under way.
        other => (other.status().unwrap_or(202), Value::Null),
    }
}

/// All containers.
pub fn containers(engine: &mut Engine, now: Now) -> Vec<Real> {
    let (_, list) = ask(engine, now, "GET", "/containers/json", &[("all", "1")], &Value::Null);
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    list.as_array()
        .into_iter()
        .flatten()
        .map(|c| Real {
            id: text(&c["Id"]),
            name: text(&c["Names"][0]).trim_start_matches('/').to_owned(),
            labels: c["Labels"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), text(v))).collect(),
            state: text(&c["State"]),
            networks: c["NetworkSettings"]["Networks"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, e)| (name.clone(), text(&e["IPAddress"])))
                .collect(),
            anonymous: c["Mounts"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|m| m["Type"] == "volume" && m["Name"].as_str().is_some_and(|n| n.len() == 64))
                .map(|m| (text(&m["Destination"]), text(&m["Name"])))
                .collect(),
            image: String::new(),
            env: Vec::new(),
            memory: 0,
            image_ids: Default::default(),
            has_config: false,
        })
        .collect()
}

/// Whether a container of a service really is healthy.
pub fn is_healthy(engine: &mut Engine, now: Now, service: &Service, container: &Real) -> bool {
    if container.state != "running" {
        return false;
    }
    match service.check {
        Check::None => true,
        Check::Tcp | Check::Http | Check::Command => {
            let addresses: Vec<String> = container.networks.values().filter(|ip| !ip.is_empty()).cloned().collect();
            // A command is run inside: it needs no network, and without one nobody can ask from outside how it went.
            if addresses.is_empty() && service.check == Check::Command {
                return true;
            }
            addresses.iter().any(|ip| matches!(engine.listens(ip, PORT, now), Listening::Accepts { .. }))
        }
    }
}

/// The Network that a network of ours is for.
fn network_id(network: &Value) -> Id {
    let label = |key: &str| network["Labels"][format!("quaymaster.dev/{key}")].as_str().unwrap_or_default().to_owned();
    (label("namespace"), label("name"))
}

/// Whether a network of ours is as the manifests want it: nothing but the range ever changes here.
pub fn fits(town: &Town, network: &Value) -> bool {
    let range = network["IPAM"]["Config"][0]["Subnet"].as_str().unwrap_or_default();
    match town.networks.get(&network_id(network)) {
        Some(Some(wanted)) => range == wanted,
        Some(None) | None => !range.starts_with(RANGES),
    }
}

/// A suspension that was answered.
#[derive(Clone, Debug)]
pub struct Suspension {
    /// Its namespace; `None` = everything.
    pub namespace: Option<String>,
    /// Its service; `None` = the whole namespace.
    pub name: Option<String>,
    /// Since when, in milliseconds.
    pub since_ms: u64,
}

impl Suspension {
    fn covers(&self, id: &Id) -> bool {
        self.namespace.as_ref().is_none_or(|ns| *ns == id.0) && self.name.as_ref().is_none_or(|n| *n == id.1)
    }
}

/// What the judge remembers.
#[derive(Debug, Default)]
pub struct Judge {
    /// What the manifests say now.
    pub town: Town,
    /// Ids of containers, networks and volumes that nobody may touch.
    pub foreign: BTreeSet<String>,
    /// What was suspended, without an end, and not resumed.
    pub suspended: Vec<Suspension>,
    /// When what was suspended was resumed: reloads that had waited then come one after the other, each for what it waited for.
    pub resumed_at: Option<u64>,
    /// Services that must not lose a container, with why.
    pub guarded: BTreeMap<Id, &'static str>,
    /// What the engine had when a store was lost: containers and networks of services that nobody may want any more.
    pub left_over: BTreeSet<String>,
    /// Containers of services that were withdrawn and are wanted again since: they go with the service that was.
    pub former: BTreeSet<String>,
    /// Names of networks that two networks had; said once.
    twins: BTreeSet<String>,
    /// Services that nobody may write to until something happens: the store was lost while they were as wanted.
    pub still: BTreeSet<Id>,
    /// Networks that a person let break.
    pub approved_breaks: BTreeSet<Id>,
    /// What stirred.
    pub stirs: Stirs,
    /// What happened in the annexes.
    pub annexes: Annexes,
    /// How often somebody changed something at the engine by hand.
    pub by_hand: u32,
    /// Networks that were withdrawn at some time: those that are still there go with what was withdrawn.
    withdrawn: BTreeSet<Id>,
    /// Since when a running container has been in a network that is replaced and not in the one that takes its place: by the ids of the
    /// container and of the network.
    unmoved: BTreeMap<(String, String), u64>,
    /// What was found.
    pub violations: Vec<String>,
    changed_at: BTreeMap<Id, u64>,
    healthy_at: BTreeMap<Id, u64>,
    down_by_us: BTreeMap<Id, BTreeSet<u32>>,
    asked_restart: BTreeMap<Id, u64>,
    volumes: BTreeMap<(Id, u32, String), String>,
}

impl Judge {
    /// Notes what is wrong.
    pub fn violation(&mut self, text: String) {
        if self.violations.len() < 20 {
            self.violations.push(text);
        }
    }

    /// The manifests say something else from now on.
    pub fn set_town(&mut self, town: &Town, now: Now) {
        let ids: BTreeSet<Id> = self.town.services.keys().chain(town.services.keys()).cloned().collect();
        for id in ids {
            if self.town.services.get(&id) != town.services.get(&id) {
                // What the manifests say of a frozen namespace does not count yet.
                if !town.broken.contains_key(&id.0) {
                    self.guarded.remove(&id);
                }
                self.stirs.changed(&id, now);
                self.changed_at.insert(id, now.mono_ms);
            }
        }
        for (id, range) in &self.town.networks {
            if !town.networks.contains_key(id) {
                self.withdrawn.insert(id.clone());
            }
            if town.networks.get(id) != Some(range) {
                self.changed_at.insert(id.clone(), now.mono_ms);
            }
        }
        for namespace in town.annexes.keys().filter(|ns| self.town.annexes.get(*ns) != town.annexes.get(*ns)) {
            for name in [INIT, PART] {
                let id = (namespace.clone(), name.to_owned());
                self.stirs.changed(&id, now);
                self.changed_at.insert(id, now.mono_ms);
            }
        }
        self.town = town.clone();
        self.still.clear();
    }

    /// Somebody asked for a restart.
    pub fn note_restart(&mut self, ids: impl IntoIterator<Item = Id>, now: Now) {
        self.asked_restart.extend(ids.into_iter().map(|id| (id, now.mono_ms)));
        self.still.clear();
    }

    /// Nothing is suspended any more.
    pub fn resume(&mut self, now: Now) {
        if !self.suspended.is_empty() {
            self.resumed_at = Some(now.mono_ms);
        }
        self.suspended.clear();
    }

    /// How long a service has been wanted as it is now, in milliseconds.
    pub fn unchanged_for(&self, id: &Id, now: Now) -> u64 {
        now.mono_ms - self.changed_at.get(id).copied().unwrap_or(0).min(now.mono_ms)
    }

    /// Looks at who really is healthy, and who is where.
    pub fn look(&mut self, engine: &mut Engine, now: Now) {
        let all = containers(engine, now);
        self.stirs.look(engine, &self.town, &all, now);
        self.annexes.look(engine, &all, now);
        for namespace in self.annexes.gone() {
            self.stirs.is_down(&(namespace, OUTSIDE.to_owned()), now);
        }
        self.look_at_moves(engine, &all, now);
        for container in all.iter().filter(|c| c.is_ours()) {
            let id = container.owner();
            let Some(service) = self.town.services.get(&id).cloned() else { continue };
            if is_healthy(engine, now, &service, container) {
                self.healthy_at.insert(id.clone(), now.mono_ms);
                if let Some(slots) = self.down_by_us.get_mut(&id) {
                    slots.remove(&container.slot());
                }
            }
            for (target, volume) in &container.anonymous {
                self.volumes.insert((id.clone(), container.slot(), target.clone()), volume.clone());
            }
        }
    }

    fn look_at_moves(&mut self, engine: &mut Engine, all: &[Real], now: Now) {
        let (_, networks) = ask(engine, now, "GET", "/networks", &[], &Value::Null);
        let ours: Vec<&Value> =
            networks.as_array().into_iter().flatten().filter(|n| n["Labels"]["quaymaster.dev/instance"] == INSTANCE).collect();
        let mut unmoved = BTreeMap::new();
        for old in ours.iter().filter(|n| !fits(&self.town, n)) {
            let id = network_id(old);
            let Some(new) = ours.iter().find(|n| network_id(n) == id && fits(&self.town, n)) else { continue };
            let name = |n: &Value| n["Name"].as_str().unwrap_or_default().to_owned();
            let is_unmoved = |c: &&Real| {
                let uses = self.town.services.get(&c.owner()).is_some_and(|s| c.owner().0 == id.0 && s.networks.contains(&id.1));
                uses && c.state == "running" && c.networks.contains_key(&name(old)) && !c.networks.contains_key(&name(new))
            };
            for container in all.iter().filter(|c| c.is_ours()).filter(is_unmoved) {
                let key = (container.id.clone(), old["Id"].as_str().unwrap_or_default().to_owned());
                let since = self.unmoved.get(&key).copied().unwrap_or(now.mono_ms);
                unmoved.insert(key, since);
            }
        }
        self.unmoved = unmoved;
    }

    /// Whoever leaves a network that is replaced is not found any more by those who have not joined the next one.
    fn before_leaving(&mut self, engine: &mut Engine, network: &Value, call: &Call, what: &str, now: Now) {
        let id = network_id(network);
        let leaver = call.container.as_str();
        let network_id = network["Id"].as_str().unwrap_or_default();
        let is_new = |owner: &Id| self.unchanged_for(owner, now) < MOVE_MS;
        if fits(&self.town, network) || is_new(&id) || self.withdrawn.contains(&id) || self.town.broken.contains_key(&id.0) {
            return;
        }
        let all = containers(engine, now);
        let owner_of = |id: &str| all.iter().find(|c| c.id == id).map(Real::owner).unwrap_or_default();
        let left: Vec<String> = self
            .unmoved
            .iter()
            .filter(|((container, of), since)| {
                of == network_id && container != leaver && !is_new(&owner_of(container)) && **since + MOVE_MS < now.mono_ms
            })
            .map(|((container, _), _)| container[..12].to_owned())
            .collect();
        let owner = all.iter().find(|c| c.id == leaver && c.state == "running").map(Real::owner);
        // Who has no business in it goes whenever he wants.
        let moves = owner.is_some_and(|owner| {
            self.unchanged_for(&owner, now) >= MOVE_MS && self.town.services.get(&owner).is_some_and(|s| s.networks.contains(&id.1))
        });
        if moves && !left.is_empty() {
            self.violation(format!("a container leaves {}/{} while {} have not joined its successor: {what}", id.0, id.1, left.join(", ")));
        }
    }

    /// Judges a call of the operator before it takes effect.
    pub fn before(&mut self, engine: &mut Engine, call: &Call, now: Now) {
        if !call.is_write || call.path.starts_with("/images") || call.path.contains("/exec") {
            return;
        }
        self.look(engine, now);
        self.no_twins(engine, now);
        let parts: Vec<&str> = call.path.trim_matches('/').split('/').collect();
        let what = format!("{} {} at {} ms", call.method, call.path, now.mono_ms);
        match (call.method.as_str(), parts.as_slice()) {
            ("POST", ["containers" | "networks" | "volumes", "create"]) => {}
            ("DELETE", ["volumes", name]) => self.violation(format!("a volume is removed: {name} ({what})")),
            ("DELETE", ["networks", id]) => {
                if let Some(network) = self.before_network(engine, id, &what, now) {
                    self.before_breaking(engine, &network, &what, now);
                }
            }
            ("POST", ["networks", id, "connect"]) => drop(self.before_network(engine, id, &what, now)),
            ("POST", ["networks", id, "disconnect"]) => {
                if let Some(network) = self.before_network(engine, id, &what, now) {
                    self.before_leaving(engine, &network, call, &what, now);
                }
            }
            (method, ["containers", id, rest @ ..]) => {
                let verb = if method == "DELETE" { "remove" } else { rest.first().copied().unwrap_or_default() };
                self.before_container(engine, id, verb, call, &what, now);
            }
            _ => self.violation(format!("a call that nobody expects: {what}")),
        }
    }

    /// An engine lets two networks have one name: whoever does not know whether his creation took effect must look before he repeats it.
    fn no_twins(&mut self, engine: &mut Engine, now: Now) {
        let (_, networks) = ask(engine, now, "GET", "/networks", &[], &Value::Null);
        let ours = networks.as_array().into_iter().flatten().filter(|n| n["Labels"]["quaymaster.dev/instance"] == INSTANCE);
        let mut names = BTreeSet::new();
        for name in ours.filter_map(|n| n["Name"].as_str()) {
            if !names.insert(name.to_owned()) && self.twins.insert(name.to_owned()) {
                self.violation(format!("there are two networks {name} at {} ms", now.mono_ms));
            }
        }
    }

    /// Gives the network, where it is there and ours.
    fn before_network(&mut self, engine: &mut Engine, id: &str, what: &str, now: Now) -> Option<Value> {
        let (status, network) = ask(engine, now, "GET", &format!("/networks/{id}"), &[], &Value::Null);
        if status != 200 {
            return None;
        }
        if network["Labels"]["quaymaster.dev/instance"] != INSTANCE {
            self.violation(format!("a foreign network is touched: {what}"));
            return None;
        }
        Some(network)
    }

    /// A network goes when its successor is there, or when a person let it break.
    fn before_breaking(&mut self, engine: &mut Engine, network: &Value, what: &str, now: Now) {
        let id = network_id(network);
        if !self.town.networks.contains_key(&id) || self.withdrawn.contains(&id) || self.approved_breaks.contains(&id) {
            return;
        }
        let (_, all) = ask(engine, now, "GET", "/networks", &[], &Value::Null);
        let is_other = |n: &&Value| n["Labels"]["quaymaster.dev/instance"] == INSTANCE && network_id(n) == id && n["Id"] != network["Id"];
        if !all.as_array().into_iter().flatten().any(|n| is_other(&n)) {
            self.violation(format!("{}/{} is broken and nobody approved: {what}", id.0, id.1));
        }
    }

    fn before_container(&mut self, engine: &mut Engine, id: &str, verb: &str, call: &Call, what: &str, now: Now) {
        let all = containers(engine, now);
        let Some(container) = all.iter().find(|c| c.id == id) else {
            if id.len() != 64 && all.iter().any(|c| c.name == id) {
                self.violation(format!("a container is named, not addressed by its id: {what}"));
            }
            return;
        };
        if !container.is_ours() || self.foreign.contains(id) {
            return self.violation(format!("a foreign container is touched: {what}"));
        }
        let owner = container.owner();
        if verb == "remove" && call.query.contains("v=true") | call.query.contains("v=1") {
            self.violation(format!("a container is removed with its volumes: {what}"));
        }
        if self.suspended.iter().any(|s| s.covers(&owner) && s.since_ms + BEGUN_MS < now.mono_ms) {
            self.violation(format!("a suspended service is written to: {}/{} by {what}", owner.0, owner.1));
        }
        if self.still.contains(&owner) {
            self.violation(format!("the store was lost, and {}/{} was as wanted: {what}", owner.0, owner.1));
        }
        let others: Vec<&Real> = all.iter().filter(|c| c.is_ours() && c.owner() == owner && c.id != container.id).collect();
        if let Some(wrong) = self.annexes.before_start(container, &all).filter(|_| verb == "start") {
            self.violation(format!("{wrong}: {what}"));
        }
        match verb {
            "start" => self.before_start(&owner, container, what, now),
            "stop" => self.before_stop(engine, &owner, container, &others, what, now),
            "restart" | "kill" => self.before_reload(engine, container, verb, what, now),
            "remove" => self.before_remove(&owner, container, &others, what),
            _ => {}
        }
        let is_replaced = others.iter().any(|o| o.slot() == container.slot());
        if matches!(verb, "stop" | "remove") && !is_replaced {
            self.in_order(&owner, &all, what);
        }
    }

    fn before_start(&mut self, owner: &Id, container: &Real, what: &str, now: Now) {
        let Some(service) = self.town.services.get(owner).cloned() else { return };
        if self.unchanged_for(owner, now) < PICTURE_MS || !container.label("spec-hash").is_empty() && service.wanted() == 0 {
            return;
        }
        for edge in service.edges.iter().filter(|e| e.gate() == "Wait") {
            if let Some(false) = self.annexes.is_there(&self.town, &edge.on, PICTURE_MS, now)
                && self.unchanged_for(&edge.on, now) >= PICTURE_MS
            {
                self.violation(format!("{}/{} is started before {}/{} is usable: {what}", owner.0, owner.1, edge.on.0, edge.on.1));
            }
            let Some(dependency) = self.town.services.get(&edge.on) else { continue };
            let is_old = self.unchanged_for(&edge.on, now) >= PICTURE_MS && dependency.wanted() > 0;
            let healthy_lately = self.healthy_at.get(&edge.on).is_some_and(|at| at + PICTURE_MS >= now.mono_ms);
            if is_old && !healthy_lately {
                self.violation(format!("{}/{} is started before {}/{} is usable: {what}", owner.0, owner.1, edge.on.0, edge.on.1));
            }
        }
        self.carries_volumes(owner, container, what);
    }

    /// What an older container of the slot had in a volume without a name is there for the new one.
    fn carries_volumes(&mut self, owner: &Id, container: &Real, what: &str) {
        let mut lost = Vec::new();
        for (target, volume) in &container.anonymous {
            let key = (owner.clone(), container.slot(), target.clone());
            if self.volumes.get(&key).is_some_and(|known| known != volume) {
                lost.push(target.clone());
            }
        }
        for target in lost {
            self.violation(format!("{}/{} loses what it had in {target}: {what}", owner.0, owner.1));
        }
    }

    fn before_stop(&mut self, engine: &mut Engine, owner: &Id, container: &Real, others: &[&Real], what: &str, now: Now) {
        let Some(service) = self.town.services.get(owner).cloned() else { return };
        let slot = container.slot();
        let is_settled_change = self.unchanged_for(owner, now) > SETTLE_MS;
        if self.former.contains(&container.id)
            || service.wanted() < slot
            || !is_healthy(engine, now, &service, container)
            || !is_settled_change
        {
            return;
        }
        let twin_is_healthy = others.iter().any(|o| o.slot() == slot && is_healthy(engine, now, &service, o));
        if twin_is_healthy {
            return;
        }
        let has_successor = others.iter().any(|o| o.slot() == slot);
        // Of one that is replaced it is not enough that something it needs may have been off a moment ago.
        if self.is_or_was_skipped(owner, if has_successor { 0 } else { PICTURE_MS }, now) {
            return;
        }
        match self.stirs.before_stop(&self.town, owner, now) {
            Some(Ok(())) => return,
            // With a successor it may be a replacement like any other.
            Some(Err(wrong)) if !has_successor => return self.violation(format!("{wrong}: {what}")),
            Some(Err(_)) | None => {}
        }
        // A volume without a name that is carried along must not have two writers: there the old one ends first all the same.
        let carries = others.iter().filter(|o| o.slot() == slot).any(|o| !o.anonymous.is_empty()) || !container.anonymous.is_empty();
        if service.starts_first && !carries {
            let text =
                format!("{}/{} starts first, and an old container is stopped before the new one is healthy: {what}", owner.0, owner.1);
            self.violation(text);
        }
        let down = self.down_by_us.entry(owner.clone()).or_default();
        down.retain(|s| *s <= service.wanted());
        let already = down.iter().filter(|s| **s != slot).count();
        down.insert(slot);
        if already >= service.parallelism as usize {
            self.violation(format!("{}/{} has {already} replicas down for a replacement already: {what}", owner.0, owner.1));
        }
    }

    /// Whether something that a service cannot do without is off, or has become another within so many milliseconds.
    fn is_or_was_skipped(&self, id: &Id, within_ms: u64, now: Now) -> bool {
        let needs = self.town.services.get(id).into_iter().flat_map(|s| &s.edges).filter(|e| matches!(e.on_down, "Block" | "Stop"));
        let mut needed = needs.map(|e| &e.on);
        needed.any(|on| {
            let is_off = self.town.services.get(on).is_some_and(|s| s.wanted() == 0);
            is_off || self.unchanged_for(on, now) < within_ms || self.is_or_was_skipped(on, within_ms, now)
        })
    }

    fn before_reload(&mut self, engine: &mut Engine, container: &Real, verb: &str, what: &str, now: Now) {
        let asked = self.asked_restart.get(&container.owner()).is_some_and(|at| at + 1_800_000 >= now.mono_ms);
        if verb == "restart" && asked {
            return;
        }
        if self.resumed_at.is_some_and(|at| at + MOVE_MS >= now.mono_ms) {
            return;
        }
        // What was decided before the manifest changed, or is decided by the last good one, is carried through.
        let owner = container.owner();
        if self.unchanged_for(&owner, now) < MOVE_MS || self.town.broken.contains_key(&owner.0) {
            return;
        }
        if let Some(wrong) = self.stirs.before_reload(engine, &self.town, container, verb, now) {
            self.violation(format!("{wrong}: {what}"));
        }
    }

    fn before_remove(&mut self, owner: &Id, container: &Real, others: &[&Real], what: &str) {
        let replaced = others.iter().any(|o| o.slot() == container.slot());
        if let Some(why) = self.guarded.get(owner).copied().filter(|_| !replaced) {
            let text = format!("{}/{} loses a container although {why}: {what}", owner.0, owner.1);
            self.violation(text);
        }
        if container.label("uid") == "orphan" {
            self.violation(format!("an orphan is removed and nobody approved: {what}"));
        }
    }

    /// Of two that were removed at once, the one on which the other depends goes last.
    fn in_order(&mut self, owner: &Id, all: &[Real], what: &str) {
        let gone = |id: &Id| !self.town.services.contains_key(id);
        let late: Vec<Id> = self
            .town
            .pairs
            .iter()
            .filter(|(dependency, dependent)| dependency == owner && gone(dependency) && gone(dependent))
            .filter(|(_, dependent)| all.iter().any(|c| c.is_ours() && c.owner() == *dependent))
            .map(|(_, dependent)| dependent.clone())
            .collect();
        for dependent in late {
            self.violation(format!("{}/{} goes before {}/{} that depends on it: {what}", owner.0, owner.1, dependent.0, dependent.1));
        }
    }

    /// Services that really are as wanted and have been for a while.
    pub fn settled(&self, engine: &mut Engine, now: Now) -> BTreeSet<Id> {
        let all = containers(engine, now);
        let mut is_settled = |id: &Id, service: &Service| {
            let mine: Vec<&Real> = all.iter().filter(|c| c.is_ours() && c.owner() == *id).collect();
            matches!(service.conduct, Conduct::Good { .. })
                && mine.len() == service.wanted() as usize
                // Somebody may have taken its network, and with it the address that is dialled.
                && mine.iter().all(|c| c.state == "running" && is_healthy(engine, now, service, c))
                && self.unchanged_for(id, now) > 20_000
        };
        self.town.services.iter().filter(|(id, s)| is_settled(id, s)).map(|(id, _)| id.clone()).collect()
    }
}
