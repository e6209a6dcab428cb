//! Keeps the picture of the engine fresh: lists once, then follows its events with targeted inspects; relists now and then and counts
//! what differed. On a lost event stream it relists and never guesses (DESIGN 4, "The Docker mirror").

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{EventMessage, EventMessageTypeEnum};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use tokio::sync::{mpsc, oneshot};

use crate::docker::convert::{Listed, as_listed};
use crate::docker::error::Retry;
use crate::docker::read::Events;
use crate::docker::{Docker, DockerError};
use crate::world::{Foreign, Listing, World};

/// Inspects under way at once.
const PARALLEL: usize = 16;
/// Silence on the event stream after which the engine is asked whether it still lives.
const WATCHDOG: Duration = Duration::from_secs(30);
/// Before a look that failed is repeated.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// The longest pause between two attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// One thing of the engine that can be looked at again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A container, by id.
    Container(Name),
    /// A network, by id.
    Network(Name),
    /// All networks: after a creation whose answer was lost nobody knows the id.
    Networks,
    /// All containers, for the same reason.
    Containers,
    /// A volume, by name.
    Volume(Name),
    /// An image, by reference or id.
    Image(Name),
}

type Ack = oneshot::Sender<()>;

/// Asks the mirror to look again. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Refresher(mpsc::UnboundedSender<(Thing, Ack)>);

impl Refresher {
    /// Looks at `things` again, beginning after this call; returns when the picture has them, or when the engine was lost meanwhile.
    pub async fn refresh(&self, things: impl IntoIterator<Item = Thing>) {
        let waits: Vec<oneshot::Receiver<()>> = things
            .into_iter()
            .filter_map(|thing| {
                let (ack, done) = oneshot::channel();
                self.0.send((thing, ack)).ok().map(|()| done)
            })
            .collect();
        for wait in waits {
            // A dropped acknowledgement means that the link was lost: the picture then says so by itself.
            let _ = wait.await;
        }
    }
}

/// The mirror's own end of a [`Refresher`].
pub struct Requests(mpsc::UnboundedReceiver<(Thing, Ack)>);

/// A refresher and its other end.
pub fn channel() -> (Refresher, Requests) {
    let (send, receive) = mpsc::unbounded_channel();
    (Refresher(send), Requests(receive))
}

/// Runs for ever: connects, lists, follows, and begins again when the link is lost. `on_connect` is told of the engine's facts before
/// anything is listed and may refuse to go on with it.
pub async fn run(
    docker: Docker,
    world: Arc<World>,
    mut requests: Requests,
    relist_every: Duration,
    on_connect: impl Fn(&crate::docker::Facts) -> Result<(), String>,
) {
    let mut pause = Duration::from_millis(100);
    loop {
        match link(&docker, &world, &mut requests, relist_every, &on_connect).await {
            Ok(()) => pause = Duration::from_millis(100),
            Err(error) => {
                tracing::warn!(error, "the link to the engine is lost");
                world.lost(error);
            }
        }
        // Nobody may wait for a picture that cannot be drawn.
        while requests.0.try_recv().is_ok() {}
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// One life of the link. `Ok` = it had been up and was lost in an ordinary way.
async fn link(
    docker: &Docker,
    world: &World,
    requests: &mut Requests,
    relist_every: Duration,
    on_connect: &impl Fn(&crate::docker::Facts) -> Result<(), String>,
) -> Result<(), String> {
    let facts = docker.connect().await.map_err(|e| e.line())?;
    on_connect(&facts)?;
    // The stream begins where the list did: what happens in between is seen twice rather than never.
    let began_ns = facts.at.map(|at| at.as_micros().saturating_mul(1_000));
    let mut events = docker.events(began_ns);
    let mut follower = Follower {
        docker,
        world,
        seen_ns: began_ns,
        dirty: BTreeMap::new(),
        failed: BTreeSet::new(),
        in_flight: BTreeSet::new(),
        listings: BTreeMap::new(),
        work: FuturesUnordered::new(),
    };
    let (listing, early) = list_beside(docker, world, &mut events).await?;
    tracing::info!(engine = facts.version, api = format!("{}.{}", facts.api.0, facts.api.1), "connected to the engine");
    follower.look_again_at_failed(&listing);
    world.connected(facts, listing);
    early.iter().for_each(|event| follower.note(event));
    let ended = follower.follow(events, requests, relist_every).await;
    world.lost(ended);
    Ok(())
}

/// Lists while the event stream opens; gives what it brought meanwhile. The engine keeps only so many past events: a stream that is opened
/// after a long list might miss some.
async fn list_beside(docker: &Docker, world: &World, events: &mut Events) -> Result<(Listing, Vec<EventMessage>), String> {
    let mut early = Vec::new();
    let list = list(docker, world);
    tokio::pin!(list);
    loop {
        tokio::select! {
            biased;
            listing = &mut list => return Ok((listing.map_err(|e| e.line())?, early)),
            event = events.next() => match event {
                Some(Ok(event)) => early.push(event),
                Some(Err(error)) => return Err(error.line()),
                None => return Err("the engine ended its event stream".to_owned()),
            },
        }
    }
}

/// Whether the picture now shows what was looked at, or says that it does not know.
enum Picture {
    Fresh,
    /// The look failed and will be repeated: nobody may act on what was seen before it.
    Old,
}

enum Looked {
    Container(Name, Result<Option<qm_plan::observed::Container>, DockerError>),
    Network(Name, Result<Option<qm_plan::observed::Network>, DockerError>),
    Networks(Result<Vec<qm_plan::observed::Network>, DockerError>),
    Containers(Result<Listing, DockerError>),
    Volume(Name, Result<bool, DockerError>),
    Image(Name, Result<qm_plan::observed::Image, DockerError>),
}

type Work<'a> = Pin<Box<dyn Future<Output = (Thing, Vec<Ack>, Looked)> + Send + 'a>>;

struct Follower<'a> {
    docker: &'a Docker,
    world: &'a World,
    /// The engine's time up to which its events are known, in nanoseconds.
    seen_ns: Option<i64>,
    dirty: BTreeMap<Thing, Vec<Ack>>,
    /// Things whose last look failed: the next one waits a little.
    failed: BTreeSet<Thing>,
    in_flight: BTreeSet<Thing>,
    /// Listings under way, each with what was learned of single things meanwhile.
    listings: BTreeMap<Thing, BTreeSet<Thing>>,
    work: FuturesUnordered<Work<'a>>,
}

impl<'a> Follower<'a> {
    /// Follows events and requests until the link is lost; gives what ended it.
    async fn follow(&mut self, mut events: Events, requests: &mut Requests, relist_every: Duration) -> String {
        let mut relist = tokio::time::interval(relist_every);
        relist.reset();
        loop {
            self.start_work();
            tokio::select! {
                biased;
                Some((thing, acks, looked)) = self.work.next(), if !self.work.is_empty() => {
                    self.in_flight.remove(&thing);
                    let meanwhile = self.listings.remove(&thing).unwrap_or_default();
                    match self.apply(looked, &meanwhile) {
                        Err(lost) => return lost,
                        Ok(Picture::Old) => self.dirty.entry(thing).or_default().extend(acks),
                        Ok(Picture::Fresh) => {
                            self.learn(thing);
                            for ack in acks {
                                // Who asked may have gone meanwhile.
                                let _ = ack.send(());
                            }
                        }
                    }
                }
                event = events.next() => match event {
                    Some(Ok(event)) => self.note(&event),
                    Some(Err(_)) | None if planted(Mutant::NoRelist) => {
                        tokio::time::sleep(AFTER_FAILURE).await;
                        events = self.docker.events(None);
                    }
                    Some(Err(error)) => return error.line(),
                    None => return "the engine ended its event stream".to_owned(),
                },
                Some((thing, ack)) = requests.0.recv() => self.dirty.entry(thing).or_default().push(ack),
                _ = relist.tick(), if !planted(Mutant::TrustEvents) => {
                    self.dirty.entry(Thing::Containers).or_default();
                    self.dirty.entry(Thing::Networks).or_default();
                }
                () = tokio::time::sleep(WATCHDOG) => {
                    if let Err(error) = self.docker.ping().await {
                        return error.line();
                    }
                    // It lives, yet nothing tells a quiet engine from a stream that it never answered: what was missed comes now.
                    if !planted(Mutant::NoRelist) {
                        events = self.docker.events(self.seen_ns.map(|ns| ns.saturating_add(1)));
                    }
                }
            }
        }
    }

    /// Begins what is dirty and not under way; a thing that gets dirty while it is looked at is looked at again afterwards.
    fn start_work(&mut self) {
        while self.work.len() < PARALLEL {
            let Some(thing) = self.dirty.keys().find(|t| !self.in_flight.contains(t)).cloned() else { return };
            let acks = self.dirty.remove(&thing).unwrap_or_default();
            self.in_flight.insert(thing.clone());
            if matches!(thing, Thing::Containers | Thing::Networks) {
                self.listings.insert(thing.clone(), BTreeSet::new());
            }
            let (docker, world) = (self.docker, self.world);
            let pause = self.failed.remove(&thing).then_some(AFTER_FAILURE);
            self.work.push(Box::pin(async move {
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                }
                let looked = match thing.clone() {
                    Thing::Container(id) => Looked::Container(id.clone(), docker.inspect_container(&id).await),
                    Thing::Network(id) => Looked::Network(id.clone(), docker.inspect_network(&id).await),
                    Thing::Networks => Looked::Networks(docker.list_networks().await),
                    Thing::Containers => Looked::Containers(list(docker, world).await),
                    Thing::Volume(name) => Looked::Volume(name.clone(), docker.has_volume(&name).await),
                    Thing::Image(name) => Looked::Image(name.clone(), docker.inspect_image(&name).await),
                };
                (thing, acks, looked)
            }));
        }
    }

    /// A listing that is under way may not know this yet.
    fn learn(&mut self, thing: Thing) {
        for learned in self.listings.values_mut() {
            learned.insert(thing.clone());
        }
    }

    /// Takes what was found into the picture; `meanwhile` = what was learned of single things while a listing was made.
    ///
    /// # Errors
    /// When the engine did not answer at all: then the link is lost. An error about one thing is a gap in the picture, retried.
    fn apply(&mut self, looked: Looked, meanwhile: &BTreeSet<Thing>) -> Result<Picture, String> {
        let lost = |error: &DockerError| matches!(error, DockerError::Unreachable(_)).then(|| error.line());
        match looked {
            Looked::Container(id, Ok(container)) => {
                let found = container.map(|c| self.world.as_adopted(c)).map(|c| {
                    let listed: Listed = as_listed(&c, c.project.clone());
                    let ours = c.stamp.as_ref().is_some_and(|s| s.is_of(&self.world.instance));
                    (ours.then_some(c), listed)
                });
                self.world.put_container(&id, found);
            }
            Looked::Network(id, Ok(network)) => self.world.put_network(&id, network),
            Looked::Networks(Ok(networks)) => self.world.put_networks(networks, meanwhile),
            Looked::Containers(Ok(listing)) => {
                self.look_again_at_failed(&listing);
                self.world.replace(listing, meanwhile);
            }
            Looked::Volume(name, Ok(there)) => self.world.put_volume(&name, there),
            Looked::Image(name, Ok(image)) => self.world.put_image(&name, image),
            Looked::Container(id, Err(error)) => {
                if let Some(line) = lost(&error) {
                    return Err(line);
                }
                let is_known = self.world.container_unreadable(&id, error.line());
                if error.retry() == Retry::Transient {
                    self.look_again(Thing::Container(id));
                    // Nobody knows whose it is: who asked may have just made it, and must not take it for absent.
                    if !is_known {
                        return Ok(Picture::Old);
                    }
                }
            }
            Looked::Network(id, Err(e)) => return self.failed(Thing::Network(id), &e),
            Looked::Networks(Err(e)) => return self.failed(Thing::Networks, &e),
            Looked::Containers(Err(e)) => return self.failed(Thing::Containers, &e),
            Looked::Volume(name, Err(e)) => return self.failed(Thing::Volume(name), &e),
            Looked::Image(name, Err(e)) => return self.failed(Thing::Image(name), &e),
        }
        Ok(Picture::Fresh)
    }

    /// One look failed: it is repeated after a pause.
    ///
    /// # Errors
    /// When the engine did not answer at all.
    fn failed(&mut self, thing: Thing, error: &DockerError) -> Result<Picture, String> {
        if matches!(error, DockerError::Unreachable(_)) {
            return Err(error.line());
        }
        tracing::warn!(error = error.line(), ?thing, "the engine could not be read");
        if error.retry() == Retry::Transient {
            self.look_again(thing);
            return Ok(Picture::Old);
        }
        Ok(Picture::Fresh)
    }

    /// What a listing could not read is a gap: its owner waits, but not for the next listing.
    fn look_again_at_failed(&mut self, listing: &Listing) {
        for (id, ..) in &listing.failed {
            self.look_again(Thing::Container(id.clone()));
        }
    }

    fn look_again(&mut self, thing: Thing) {
        self.failed.insert(thing.clone());
        self.dirty.entry(thing).or_default();
    }

    /// Marks what an event speaks of. What it says of foreign containers is all that is needed of them: they cost no call.
    fn note(&mut self, event: &EventMessage) {
        self.seen_ns = event.time_nano.or(self.seen_ns);
        let action = event.action.as_deref().unwrap_or_default();
        let Some(actor) = &event.actor else { return };
        let id = Name::from(actor.id.as_deref().unwrap_or_default());
        let attributes: BTreeMap<String, String> = actor.attributes.clone().unwrap_or_default().into_iter().collect();
        match event.typ {
            Some(EventMessageTypeEnum::CONTAINER) => {
                let word = action.split(':').next().unwrap_or_default();
                const MATTERS: [&str; 10] =
                    ["create", "start", "die", "stop", "destroy", "rename", "update", "pause", "unpause", "health_status"];
                if !MATTERS.contains(&word) {
                    return;
                }
                match self.world.note_foreign(&id, word, &attributes) {
                    Foreign::Noted => self.learn(Thing::Container(id)),
                    Foreign::No => self.mark(Thing::Container(id)),
                }
            }
            Some(EventMessageTypeEnum::NETWORK) => match attributes.get("container").filter(|c| !c.is_empty()) {
                Some(container) => {
                    let container = Name::from(container.as_str());
                    match self.world.note_attachment(&container, &id, action == "connect") {
                        Foreign::Noted => self.learn(Thing::Container(container)),
                        Foreign::No => self.mark(Thing::Container(container)),
                    }
                }
                None => self.mark(Thing::Network(id)),
            },
            Some(EventMessageTypeEnum::VOLUME) if matches!(action, "create" | "destroy") => self.mark(Thing::Volume(id)),
            Some(EventMessageTypeEnum::IMAGE) => {
                for image in self.world.known_images() {
                    self.mark(Thing::Image(image));
                }
            }
            _ => {}
        }
    }

    fn mark(&mut self, thing: Thing) {
        self.dirty.entry(thing).or_default();
    }
}

/// Lists everything and inspects what is ours.
pub(crate) async fn list(docker: &Docker, world: &World) -> Result<Listing, DockerError> {
    let mut listing = Listing { networks: docker.list_networks().await?, volumes: docker.list_volumes().await?, ..Listing::default() };
    let all = docker.list_containers().await?;
    let (ours, others): (Vec<Listed>, Vec<Listed>) =
        all.into_iter().partition(|c| c.stamp.as_ref().is_some_and(|s| s.is_of(&world.instance)) || world.adopted(&c.id).is_some());
    listing.others = others;
    let inspects = ours.into_iter().map(|row| async move {
        let answer = docker.inspect_container(&row.id).await;
        (row, answer)
    });
    let mut inspects = futures_util::stream::iter(inspects).buffer_unordered(PARALLEL);
    while let Some((row, answer)) = inspects.next().await {
        match answer {
            Ok(Some(container)) => listing.ours.push(world.as_adopted(container)),
            Ok(None) => {}
            Err(error @ DockerError::Unreachable(_)) => return Err(error),
            Err(error) => {
                if let Some(stamp) = row.stamp.or_else(|| world.adopted(&row.id)) {
                    listing.failed.push((row.id, stamp.owner, error.line()));
                }
            }
        }
    }
    Ok(listing)
}
