//! The engine itself: all of its state, and the one way in, [`Engine::handle`]. Pure: the same state, requests and times give the same
//! answers, byte for byte.

pub(crate) mod container;
mod create;
pub(crate) mod event;
pub(crate) mod exec;
pub(crate) mod filter;
mod image;
mod network;
pub mod reply;
mod show;
mod stream;
mod system;
mod time;
mod verbs;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::Value;

use crate::Now;
use crate::behaviour::World;
use container::Container;
use event::Ring;
pub use event::{Event, EventFilter};
use exec::Exec;
use image::Image;
use network::Network;
pub use reply::Polled;
use reply::{Failure, Reply, Request, Ticket};
pub(crate) use system::VERSION;
use volume::Volume;

/// Where addresses of containers come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressPool {
    /// As dockerd's: 172.17/16 for the default bridge, then 172.18/16 and on.
    #[default]
    Bridge,
    /// Out of 127/8, so that real listeners can stand on them.
    Loopback,
}

/// How an engine is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its ids come from.
    pub seed: u64,
    /// The newest API that it speaks.
    pub max_api: (u32, u32),
    /// The oldest API that it speaks.
    pub min_api: (u32, u32),
    /// Where addresses come from.
    pub pool: AddressPool,
    /// Images and behaviour.
    pub world: World,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 1, max_api: (1, 41), min_api: (1, 12), pool: AddressPool::Bridge, world: World::default() }
    }
}

/// What a connection to a port meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// Nobody has that address.
    Unreachable,
    /// Nobody listens there.
    Refused,
    /// Somebody does.
    Accepts {
        /// What it answers to HTTP.
        http_status: u16,
    },
}

/// Something that is to happen at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Its start is over.
    Start,
    /// Its process ends.
    Exit { code: i64 },
    /// It is started again.
    Restart,
    /// The grace after a stop is over.
    Kill,
    /// Its health is checked.
    Probe,
    /// Something is worth another look: a log line, a port.
    Wake,
}

/// What a promised answer waits for.
#[derive(Clone, Debug)]
pub(crate) enum Pending {
    /// A start that takes time.
    Started { id: Arc<str> },
    /// A stop with a grace.
    Stopped { id: Arc<str>, restart: bool },
    /// It is there.
    Done(Box<Reply>),
}

/// A timer: when, of whom, which of its starts it belongs to, and what.
type Due = (u64, Arc<str>, u64, Timer);

/// The whole state.
#[derive(Clone, Debug)]
pub struct Engine {
    options: Options,
    world: Arc<World>,
    random: u64,
    id: String,
    order: u64,
    containers: BTreeMap<Arc<str>, Container>,
    names: BTreeMap<String, Arc<str>>,
    networks: BTreeMap<Arc<str>, Network>,
    volumes: BTreeMap<String, Volume>,
    images: BTreeMap<Arc<str>, Image>,
    tags: BTreeMap<String, Arc<str>>,
    execs: BTreeMap<String, Exec>,
    addresses: BTreeMap<Ipv4Addr, Arc<str>>,
    ports: BTreeMap<(u16, String), Arc<str>>,
    next_port: u16,
    timers: BTreeSet<Due>,
    pending: BTreeMap<Ticket, Pending>,
    tickets: u64,
    events: Ring,
    mutations: u64,
}

impl Engine {
    /// An engine with nothing in it but the images of its world.
    pub fn new(options: Options, now: Now) -> Self {
        let mut engine = Self {
            world: Arc::new(options.world.clone()),
            random: options.seed,
            options,
            id: String::new(),
            order: 0,
            containers: BTreeMap::new(),
            names: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            images: BTreeMap::new(),
            tags: BTreeMap::new(),
            execs: BTreeMap::new(),
            addresses: BTreeMap::new(),
            ports: BTreeMap::new(),
            next_port: 32_768,
            timers: BTreeSet::new(),
            pending: BTreeMap::new(),
            tickets: 0,
            events: Ring::default(),
            mutations: 0,
        };
        engine.id = engine.engine_id();
        engine.provide_networks(now);
        engine.provide_images(now);
        engine
    }

    /// Answers one request. Total: any input has an answer.
    pub fn handle(&mut self, request: &Request, now: Now) -> Reply {
        self.advance(now);
        match self.route(request, now) {
            Ok(reply) => reply,
            Err(failure) => failure.into(),
        }
    }

    fn route(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let path = request.path.trim_matches('/').to_owned();
        let parts: Vec<&str> = path.split('/').collect();
        let method = request.method.as_str();
        match (method, parts.as_slice()) {
            (
                _,
                [
                    "_ping" | "version" | "info" | "events" | "auth" | "system" | "distribution" | "plugins" | "build" | "commit"
                    | "session",
                    ..,
                ],
            ) => self.system(request, &parts, now),
            (_, ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", ..]) => Err(system::no_swarm(&parts)),
            (_, ["containers", ..]) => self.containers_request(request, &parts[1..], now),
            (_, ["exec", ..]) => self.exec_request(request, &parts[1..], now),
            (_, ["networks", ..]) => self.networks_request(request, &parts[1..], now),
            (_, ["volumes", ..]) => self.volumes_request(request, &parts[1..], now),
            (_, ["images", ..]) => self.images_request(request, &parts[1..], now),
            _ => Err(Failure::new(404, "page not found")),
        }
    }

    /// When something happens by itself next, monotonic.
    pub fn next_due(&self) -> Option<u64> {
        self.timers.first().map(|(at, ..)| *at)
    }

    /// Lets everything happen that is due.
    pub fn advance(&mut self, now: Now) {
        while let Some(due) = self.timers.first().filter(|(at, ..)| *at <= now.mono_ms).cloned() {
            self.timers.remove(&due);
            let (at, id, starts, timer) = due;
            // What happens late is shown at the instant at which it was due.
            let late_ms = now.mono_ms - at;
            let then = Now { mono_ms: at, wall_ns: now.wall_ns - late_ms as i64 * 1_000_000 };
            let Some(container) = self.containers.get(&id).filter(|c| c.starts == starts) else { continue };
            let phase = container.phase;
            match timer {
                Timer::Wake => {}
                Timer::Start => {
                    let reply = match self.do_start(&id, then) {
                        Ok(()) => Reply::empty(204),
                        Err(failure) => failure.into(),
                    };
                    self.resolve(|p| matches!(p, Pending::Started { id: waiting } if *waiting == id), &reply);
                }
                Timer::Exit { code } => self.exit(&id, code, then),
                Timer::Restart if phase == container::Phase::Restarting => {
                    // A start that fails ends the attempts; the error is kept in the state.
                    drop(self.do_start(&id, then));
                }
                Timer::Restart => {}
                Timer::Kill => self.signal(&id, 9, then),
                Timer::Probe => self.probe(&id, then),
            }
            self.settle_stops(then);
        }
    }

    /// Stops whose container has ended are answered.
    fn settle_stops(&mut self, now: Now) {
        let ended: Vec<(Ticket, Arc<str>, bool)> = self
            .pending
            .iter()
            .filter_map(|(ticket, pending)| match pending {
                Pending::Stopped { id, restart } if !self.is_up(id) => Some((*ticket, id.clone(), *restart)),
                _ => None,
            })
            .collect();
        for (ticket, id, restart) in ended {
            self.tell(&id, "stop", now, &[]);
            let reply = self.stopped(&id, restart, now);
            self.pending.insert(ticket, Pending::Done(Box::new(reply)));
        }
    }

    fn resolve(&mut self, is_meant: impl Fn(&Pending) -> bool, reply: &Reply) {
        for pending in self.pending.values_mut().filter(|p| is_meant(p)) {
            *pending = Pending::Done(Box::new(reply.clone()));
        }
    }

    fn promise(&mut self, pending: Pending) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.pending.insert(ticket, pending);
        ticket
    }

    /// The answer that was promised, once it is there.
    pub fn take(&mut self, ticket: Ticket) -> Option<Reply> {
        match self.pending.get(&ticket) {
            Some(Pending::Done(_)) => {}
            Some(_) => return None,
            None => return Some(Failure::new(500, "the answer was taken already").into()),
        }
        match self.pending.remove(&ticket) {
            Some(Pending::Done(reply)) => Some(*reply),
            _ => None,
        }
    }

    /// The oldest and the newest API that it speaks.
    pub(crate) fn api_range(&self) -> ((u32, u32), (u32, u32)) {
        (self.options.min_api, self.options.max_api)
    }

    /// How often anything was changed by a request.
    pub fn mutations(&self) -> u64 {
        self.mutations
    }

    /// How many containers there are.
    pub fn container_count(&self) -> usize {
        self.containers.len()
    }

    /// Events after a sequence number, as many as are still kept.
    pub fn events_since(&self, seq: u64) -> impl Iterator<Item = &Event> {
        self.events.since(seq)
    }

    /// The daemon ends and starts again. Without `live_restore` its containers end with it, and those come back whose policy says so.
    pub fn restart_daemon(&mut self, live_restore: bool, now: Now) {
        self.advance(now);
        self.execs.clear();
        self.pending.clear();
        if live_restore {
            return;
        }
        let ids: Vec<Arc<str>> = self.containers.keys().cloned().collect();
        let mut again = Vec::new();
        for id in ids {
            let container = self.at(&id);
            let was_up = container.phase.is_up() || container.phase == container::Phase::Restarting;
            let (policy, _) = container.policy();
            let comes_back = match policy {
                "always" => was_up || container.phase == container::Phase::Exited,
                "unless-stopped" => was_up && !container.stopped_by_hand,
                "on-failure" => was_up,
                _ => false,
            };
            if was_up {
                // The daemon stops them itself: that is nobody's hand.
                let code = match container.script.on_term {
                    crate::behaviour::OnTerm::Ignores => 137,
                    crate::behaviour::OnTerm::Ends { code, .. } => code.unwrap_or(143),
                };
                container.stopped_by_hand = true;
                if container.phase == container::Phase::Restarting {
                    container.phase = container::Phase::Exited;
                } else {
                    self.exit(&id, code, now);
                }
            }
            if comes_back && self.containers.contains_key(&id) {
                again.push(id);
            }
        }
        for id in again {
            self.at(&id).stopped_by_hand = false;
            // One that cannot start any more stays down.
            drop(self.do_start(&id, now));
        }
    }

    /// What a connection to a port meets.
    pub fn listens(&mut self, host: &str, port: u16, now: Now) -> Listening {
        self.advance(now);
        let Ok(address) = host.parse::<Ipv4Addr>() else { return Listening::Unreachable };
        let (id, port) = match self.addresses.get(&address) {
            Some(id) => (id.clone(), port),
            None => {
                let bound = ["0.0.0.0", host].iter().find_map(|ip| self.ports.get(&(port, (*ip).to_owned())));
                let Some(id) = bound.filter(|_| address.is_loopback()).cloned() else {
                    return if address.is_loopback() { Listening::Refused } else { Listening::Unreachable };
                };
                let inside = self.containers.get(&id).and_then(|c| c.published.iter().find(|(_, _, p)| *p == port));
                let inside = inside.and_then(|(inside, _, _)| inside.split('/').next()?.parse().ok()).unwrap_or(port);
                (id, inside)
            }
        };
        let Some(container) = self.containers.get(&id) else { return Listening::Unreachable };
        let script = &container.script;
        let is_open = if script.ports.is_empty() && !script.ports_are_all { true } else { script.ports.contains(&port) };
        match container.is_well(now.mono_ms) && is_open {
            true => Listening::Accepts { http_status: script.http_status },
            false => Listening::Refused,
        }
    }

    /// The places on which somebody listens now: addresses and ports of running containers, and published ports.
    pub fn open_ports(&self, mono_ms: u64) -> BTreeSet<(Ipv4Addr, u16)> {
        let mut open = BTreeSet::new();
        for (address, id) in &self.addresses {
            if let Some(container) = self.containers.get(id).filter(|c| c.is_well(mono_ms)) {
                open.extend(container.script.ports.iter().map(|port| (*address, *port)));
            }
        }
        for ((port, ip), id) in &self.ports {
            if self.containers.get(id).is_some_and(|c| c.is_well(mono_ms)) {
                let ip = ip.parse().unwrap_or(Ipv4Addr::LOCALHOST);
                open.insert((if ip == Ipv4Addr::UNSPECIFIED { Ipv4Addr::LOCALHOST } else { ip }, *port));
            }
        }
        open
    }

    fn changed(&mut self) {
        self.mutations += 1;
    }

    fn timer(&mut self, at: u64, id: &Arc<str>, timer: Timer) {
        let starts = self.containers.get(id).map_or(0, |c| c.starts);
        self.timers.insert((at, id.clone(), starts, timer));
    }

    /// A container that is known to be there.
    fn at(&mut self, id: &Arc<str>) -> &mut Container {
        self.containers.get_mut(id).expect("its id was just looked up")
    }

    fn at_if(&mut self, id: &str) -> Option<&mut Container> {
        self.containers.get_mut(id)
    }

    /// Sixty-four hexadecimal digits that nobody has had.
    fn fresh_id(&mut self) -> Arc<str> {
        let mut text = String::with_capacity(64);
        for _ in 0..4 {
            text.push_str(&format!("{:016x}", self.next_random()));
        }
        text.into()
    }

    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn engine_id(&mut self) -> String {
        const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let mut groups = Vec::new();
        for _ in 0..12 {
            let number = self.next_random();
            let group: String = (0..4).map(|i| char::from(ALPHABET[(number >> (i * 5)) as usize & 31])).collect();
            groups.push(group);
        }
        groups.join(":")
    }

    /// A container by id, name, or the beginning of its id.
    fn find_container(&self, reference: &str) -> Result<Arc<str>, Failure> {
        let missing = || Failure::new(404, format!("No such container: {reference}"));
        if reference.is_empty() {
            return Err(missing());
        }
        if let Some((id, _)) = self.containers.get_key_value(reference) {
            return Ok(id.clone());
        }
        if let Some(id) = self.names.get(reference.trim_start_matches('/')) {
            return Ok(id.clone());
        }
        let from = std::ops::Bound::Included(reference);
        let mut fits = self.containers.range::<str, _>((from, std::ops::Bound::Unbounded)).take_while(|(id, _)| id.starts_with(reference));
        match (fits.next(), fits.next()) {
            (Some((id, _)), None) => Ok(id.clone()),
            (Some(_), Some(_)) => Err(Failure::new(400, format!("multiple IDs found with provided prefix: {reference}"))),
            (None, _) => Err(missing()),
        }
    }
}

/// One frame of standard output.
pub(crate) fn frame_out(bytes: &[u8]) -> Vec<u8> {
    reply::frame(reply::Channel::Out, bytes)
}

/// Text of a JSON value; empty when it is none.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A JSON object of texts as a map.
fn text_map(value: &Value) -> BTreeMap<String, String> {
    value.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), text(v).to_owned())).collect()
}

/// A JSON list of texts.
fn text_list(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        other => other.as_array().into_iter().flatten().map(|v| text(v).to_owned()).collect(),
    }
}
