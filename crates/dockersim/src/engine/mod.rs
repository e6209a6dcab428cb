//! The whole state of a simulated engine, and what requests and time do to it.
//!
//! Pure: no clock, no IO, no randomness of its own. Start at [`Engine::handle`]; [`life`] has the life of a container.

mod address;
pub mod container;
mod create;
mod daemon;
pub mod event;
mod exec;
mod feed;
pub(crate) mod filter;
mod health;
mod image;
mod life;
mod list;
mod look;
mod network;
mod render;
pub mod reply;
mod route;
mod system;
mod time;
mod update;
mod volume;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;

pub use address::AddressPool;
pub use look::{Answers, ContainerView, Listening, NetworkView};

use crate::behaviour::World;
use crate::{Now, Reply, Request};
use container::{Container, Exec, LogLine};
use event::{Event, Kind, Ring};
use image::Image;
use life::Timer;
use network::Network;
use reply::{Failure, Ticket};
use volume::Volume;

/// What kind of engine it is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where ids come from.
    pub seed: u64,
    /// The newest API version served.
    pub max_api: (u32, u32),
    /// The oldest.
    pub min_api: (u32, u32),
    /// Where networks get their subnets from.
    pub pool: AddressPool,
    /// The world around it.
    pub world: World,
    /// What it calls its version.
    pub version: String,
    /// Whether it says that containers survive its restart.
    pub live_restore: bool,
    /// The default logging driver.
    pub logging_driver: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            max_api: (1, 41),
            min_api: (1, 12),
            pool: AddressPool::default(),
            world: World::default(),
            version: "20.10.24".to_owned(),
            live_restore: false,
            logging_driver: "json-file".to_owned(),
        }
    }
}

/// Who holds a port of the host.
#[derive(Clone, Debug)]
struct Holder {
    /// On which address of the host.
    address: String,
    container: Arc<str>,
    /// Where it leads to in the container.
    port: u16,
}

/// What is left of a container that is gone.
#[derive(Clone, Debug)]
struct Grave {
    code: i64,
    /// What it said, where it went by itself: whoever is attached hears the end.
    logs: VecDeque<LogLine>,
    log_base: u64,
}

/// The whole state.
#[derive(Clone, Debug)]
pub struct Engine {
    options: Options,
    id: String,
    random: u64,
    /// Creation numbers, pids.
    counter: u64,
    containers: BTreeMap<Arc<str>, Container>,
    /// Containers by age.
    ages: BTreeMap<u64, Arc<str>>,
    names: BTreeMap<Arc<str>, Arc<str>>,
    networks: BTreeMap<Arc<str>, Network>,
    network_names: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    network_ages: BTreeMap<u64, Arc<str>>,
    next_pool: usize,
    /// Who has an address.
    addresses: BTreeMap<u32, Arc<str>>,
    /// Who has a port of the host: by protocol and port.
    ports: BTreeMap<(String, u16), Vec<Holder>>,
    next_port: u16,
    volumes: BTreeMap<Arc<str>, Volume>,
    images: BTreeMap<Arc<str>, Image>,
    references: BTreeMap<String, Arc<str>>,
    execs: BTreeMap<Arc<str>, Exec>,
    events: Ring,
    timers: BTreeMap<(u64, u64), Timer>,
    timer_count: u64,
    tickets: BTreeMap<Ticket, Option<Reply>>,
    ticket_count: u64,
    /// What is left of containers that are gone, for those who wait.
    graves: BTreeMap<Arc<str>, Grave>,
    mutations: u64,
    /// Rises with everything that somebody may wait for.
    version: u64,
}

impl Engine {
    /// A fresh engine with its predefined networks and the world's local images.
    pub fn new(options: Options, now: Now) -> Self {
        let mut engine = Self {
            id: String::new(),
            random: options.seed,
            counter: 1000,
            containers: BTreeMap::new(),
            ages: BTreeMap::new(),
            names: BTreeMap::new(),
            networks: BTreeMap::new(),
            network_names: BTreeMap::new(),
            network_ages: BTreeMap::new(),
            next_pool: 0,
            addresses: BTreeMap::new(),
            ports: BTreeMap::new(),
            next_port: 32_768,
            volumes: BTreeMap::new(),
            images: BTreeMap::new(),
            references: BTreeMap::new(),
            execs: BTreeMap::new(),
            events: Ring::default(),
            timers: BTreeMap::new(),
            timer_count: 0,
            tickets: BTreeMap::new(),
            ticket_count: 0,
            graves: BTreeMap::new(),
            mutations: 0,
            version: 0,
            options,
        };
        engine.id = engine.daemon_id();
        engine.predefined_networks(now);
        engine.local_images(now);
        engine
    }

    /// Answers one request. Total: any input has an answer.
    pub fn handle(&mut self, request: &Request, now: Now) -> Reply {
        self.advance(now);
        self.route(request, now).unwrap_or_else(Reply::from)
    }

    /// When the next scripted happening is due, on the monotonic clock.
    pub fn next_due(&self) -> Option<u64> {
        self.timers.first_key_value().map(|((due, _), _)| *due)
    }

    /// Lets everything happen that is due, each thing at its own time.
    pub fn advance(&mut self, now: Now) {
        while let Some((&(due, seq), _)) = self.timers.first_key_value() {
            if due > now.mono_ms {
                return;
            }
            let Some(timer) = self.timers.remove(&(due, seq)) else { return };
            let late_ns = i64::try_from(now.mono_ms - due).unwrap_or(0).saturating_mul(1_000_000);
            self.fire(timer, Now { mono_ms: due, wall_ns: now.wall_ns.saturating_sub(late_ns) });
        }
    }

    /// The answer that was promised, once it is there.
    pub fn take(&mut self, ticket: Ticket) -> Option<Reply> {
        match self.tickets.get_mut(&ticket)?.take() {
            Some(reply) => {
                self.tickets.remove(&ticket);
                Some(reply)
            }
            None => None,
        }
    }

    /// Whether that answer is still to come, or to be taken.
    pub fn promised(&self, ticket: Ticket) -> bool {
        self.tickets.contains_key(&ticket)
    }

    /// Answers at once what [`Reply::Later`] promised, by letting time pass as far as is needed; for tests without a clock.
    pub fn settle(&mut self, reply: Reply, now: &mut Now) -> Reply {
        let Reply::Later(ticket) = reply else { return reply };
        loop {
            if let Some(reply) = self.take(ticket) {
                return reply;
            }
            let Some(due) = self.next_due() else { return Reply::Later(ticket) };
            let step = due.saturating_sub(now.mono_ms);
            now.mono_ms += step;
            now.wall_ns = now.wall_ns.saturating_add(i64::try_from(step).unwrap_or(i64::MAX).saturating_mul(1_000_000));
            self.advance(*now);
        }
    }

    /// Events after a sequence number; those older than the ring are gone.
    pub fn events_since(&self, seq: u64) -> impl Iterator<Item = &Event> {
        self.events.since(seq)
    }

    /// The number of the last event.
    pub fn last_event(&self) -> u64 {
        self.events.last()
    }

    /// Counts effects: it stands still while nothing is changed.
    pub fn mutations(&self) -> u64 {
        self.mutations
    }

    /// Rises with everything that somebody may wait for.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What kind of engine it is.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The world around it, to be changed.
    pub fn world_mut(&mut self) -> &mut World {
        &mut self.options.world
    }

    /// The next number of splitmix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 64 hexadecimal digits.
    fn hex_id(&mut self) -> Arc<str> {
        let text: String = (0..4).map(|_| format!("{:016x}", self.random())).collect();
        text.into()
    }

    /// As the daemon names itself: twelve groups of four.
    fn daemon_id(&mut self) -> String {
        const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let groups: Vec<String> = (0..12)
            .map(|_| {
                let bits = self.random();
                (0..4).map(|i| char::from(LETTERS[(bits >> (i * 5)) as usize % 32])).collect()
            })
            .collect();
        groups.join(":")
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Something was changed.
    fn changed(&mut self) {
        self.mutations += 1;
        self.version += 1;
    }

    fn promise(&mut self) -> Ticket {
        self.ticket_count += 1;
        let ticket = Ticket(self.ticket_count);
        self.tickets.insert(ticket, None);
        ticket
    }

    fn fulfil(&mut self, ticket: Ticket, reply: Reply) {
        if let Some(slot) = self.tickets.get_mut(&ticket) {
            *slot = Some(reply);
        }
        self.version += 1;
    }

    fn time(&mut self, due: u64, timer: Timer) {
        self.timer_count += 1;
        self.timers.insert((due, self.timer_count), timer);
    }

    fn emit(
        &mut self,
        now: Now,
        kind: Kind,
        action: &str,
        actor: &Arc<str>,
        labels: Arc<BTreeMap<String, String>>,
        attributes: Vec<(&'static str, Arc<str>)>,
    ) {
        let event = Event { seq: 0, time_ns: now.wall_ns, kind, action: action.into(), actor: actor.clone(), labels, attributes };
        self.events.push(event);
        self.changed();
    }

    /// A container by id, name or unambiguous beginning of the id.
    fn find(&self, reference: &str) -> Result<Arc<str>, Failure> {
        let missing = || Failure::new(404, format!("No such container: {reference}"));
        if let Some((id, _)) = self.containers.get_key_value(reference) {
            return Ok(id.clone());
        }
        if let Some(id) = self.names.get(reference.trim_start_matches('/')) {
            return Ok(id.clone());
        }
        if reference.is_empty() {
            return Err(missing());
        }
        let mut matches = self.containers.range::<str, _>((Included(reference), Unbounded)).take_while(|(id, _)| id.starts_with(reference));
        let first = matches.next().ok_or_else(missing)?;
        if matches.next().is_some() {
            return Err(Failure::new(500, format!("Multiple IDs found with provided prefix: {reference}")));
        }
        Ok(first.0.clone())
    }

    fn container(&self, id: &str) -> Result<&Container, Failure> {
        self.containers.get(id).ok_or_else(|| Failure::new(404, format!("No such container: {id}")))
    }
}
