//! Starts everything and keeps it running: the mirror, the probes, the workers, the writers. Start here to see how the parts hang
//! together; [`Operator`] is what wiring and simulations hold.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::Registry;
use qm_api::name::Name;
use qm_store::{Store, StoreError};
use tokio::task::JoinSet;

use crate::apply::{self, Sources};
use crate::clock::Clock;
use crate::controller::{Controller, Places};
use crate::dial::{Address, Dial};
use crate::docker::{Docker, DockerError, Facts};
use crate::metrics::Metrics;
use crate::mirror;
use crate::pass::Next;
use crate::probe;
use crate::pulls;
use crate::status;
use crate::world::World;

/// Passes under way at once. They wait for the engine most of the time; calls that change it have a limit of their own.
const PARALLEL_PASSES: usize = 64;
/// How often old events are swept away.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// How often figures that no event brings are set.
const GAUGES_EVERY: Duration = Duration::from_secs(5);

/// Told of the engine's facts at every connection; an error is a reason not to go on with it.
pub type OnConnect = Arc<dyn Fn(&Facts) -> Result<(), String> + Send + Sync>;

/// What an operator is made of.
pub struct Config {
    /// Which Quaymaster.
    pub instance: Name,
    /// The engine.
    pub docker_host: Address,
    /// Every outbound connection.
    pub dial: Dial,
    /// The clocks and ids.
    pub clock: Clock,
    /// The durable state.
    pub store: Store,
    /// Where files may be put.
    pub data_dir: PathBuf,
    /// Where the app faces are.
    pub faces_dir: PathBuf,
    /// Where metrics are registered.
    pub registry: Registry,
    /// How often the mirror relists.
    pub relist_every: Duration,
    /// The ids of the sources that will deliver.
    pub sources: Vec<Name>,
    /// Told of the engine's facts at every connection; an error is a reason not to go on with it.
    pub on_connect: OnConnect,
    /// How images are pulled.
    pub pulls: pulls::Settings,
    /// Where probes find passwords.
    pub probe_passwords: probe::Passwords,
}

/// Why an operator cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine's address.
    #[error("the engine's address cannot be used")]
    Docker(#[from] DockerError),
    /// The metrics.
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// A running operator. Dropping it ends all of its tasks; nothing that was acknowledged is lost.
pub struct Operator {
    /// Everything a pass needs.
    pub controller: Arc<Controller>,
    /// The sources.
    pub sources: Arc<Sources>,
    tasks: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Operator")
    }
}

impl Operator {
    /// Starts all tasks. Must be called within a runtime.
    ///
    /// # Errors
    /// When the engine's address cannot be used or the metrics cannot be registered.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let metrics = Metrics::new(&config.registry)?;
        let calls = metrics.docker_calls.clone();
        let observer: crate::docker::CallObserver = Arc::new(move |method: &str, route: &str, code: u16| {
            calls.with_label_values(&[method, route, &code.to_string()]).inc();
        });
        let docker = Docker::new(config.docker_host.clone(), config.dial.clone(), observer)?;
        let world = Arc::new(World::new(config.clock.clone(), config.instance.clone()));
        let (refresher, requests) = mirror::channel();
        let controller = Controller::new(
            world.clone(),
            config.store.clone(),
            docker.clone(),
            refresher,
            config.clock.clone(),
            metrics,
            Places { files: config.data_dir.join("files").display().to_string(), faces: config.faces_dir.display().to_string() },
        );
        let controller = Arc::new(controller.pulling(config.pulls));
        // What has no effect in them is told at once; whether they can be read at all, at the first pull that wants them.
        drop(controller.pulls.credentials());
        let sources = Arc::new(Sources::new(config.sources));
        controller.feed_all();
        controller.seed();

        let mut tasks = JoinSet::new();
        let on_connect = config.on_connect;
        tasks.spawn(mirror::run(docker.clone(), world.clone(), requests, config.relist_every, move |facts| on_connect(facts)));
        tasks.spawn(probe::run(controller.clone(), config.dial, config.probe_passwords));
        tasks.spawn(controller.clone().feed(sources.clone()));
        tasks.spawn(apply::run(controller.clone(), sources.clone()));
        tasks.spawn(status::run(controller.clone()));
        tasks.spawn(work(controller.clone()));
        tasks.spawn(controller.locks.clone().run());
        let events = controller.events.clone();
        tasks.spawn(async move { events.run().await });
        let deadlines = world;
        tasks.spawn(async move {
            loop {
                deadlines.deadline().await;
                deadlines.advance();
            }
        });
        let sweeper = controller.clone();
        tasks.spawn(async move {
            loop {
                if let Err(error) = sweeper.events.sweep().await {
                    tracing::warn!(error = %error, "old events could not be removed");
                }
                tokio::time::sleep(SWEEP_EVERY).await;
            }
        });
        let gauged = controller.clone();
        tasks.spawn(async move {
            loop {
                gauged.set_gauges();
                tokio::time::sleep(GAUGES_EVERY).await;
            }
        });
        Ok(Self { controller, sources, tasks: Mutex::new(tasks) })
    }

    /// Ends all tasks and makes everything durable. Containers go on running.
    ///
    /// # Errors
    /// When the store could not write its last changes.
    pub async fn stop(&self) -> Result<(), StoreError> {
        self.controller.world.queue.close();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.controller.events.flush().await;
        self.controller.store.sync().await
    }
}

impl Controller {
    fn set_gauges(&self) {
        let (depth, adds) = self.world.queue.depth();
        self.metrics.queue_depth.set(depth as i64);
        self.metrics.queue_adds.inc_by(adds.saturating_sub(self.metrics.queue_adds.get()));
        self.metrics.engine_up.set(i64::from(self.world.facts().is_some()));
        let inner = self.world.lock();
        self.metrics.mirror_differences.set(inner.mirror_differences as i64);
        self.metrics.orphans.set(inner.orphan_owners().len() as i64);
    }
}

/// Takes keys from the queue and passes them, many at a time, one a key.
async fn work(controller: Arc<Controller>) {
    let mut passes: JoinSet<()> = JoinSet::new();
    let queue = &controller.world.queue;
    loop {
        // A pass that waits for a pull does so for minutes: it must not keep repairs from being made.
        while passes.len().saturating_sub(controller.pulls.waiting()) >= PARALLEL_PASSES {
            tokio::select! {
                biased;
                _ = passes.join_next() => {}
                () = controller.pulls.waiting_changed.notified() => {}
            }
        }
        let key = tokio::select! {
            biased;
            key = queue.next() => key,
            Some(_) = passes.join_next(), if !passes.is_empty() => continue,
        };
        let Some(key) = key else { return };
        let controller = controller.clone();
        passes.spawn(async move {
            let next = controller.pass(&key).await;
            let queue = &controller.world.queue;
            match next {
                Next::Now => queue.add(&key),
                Next::At(at) => queue.add_at(&key, at),
                Next::Never => {}
            }
            queue.done(&key);
        });
    }
}
