//! Puts the parts of the operator together. Wiring only: every decision is somebody else's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use qm_api::kinds::intent::{Act, Scope};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_apiserver::Listener;
use qm_controller::clock::Clock;
use qm_controller::dial::{self, Address, Dial};
use qm_controller::docker::{Docker, Facts};
use qm_controller::instance::InstanceLock;
use qm_controller::ports::ActRequest;
use qm_controller::probe::Passwords;
use qm_controller::pulls;
use qm_controller::run::{Config, OnConnect, Operator};
use qm_controller::shadow::plan_offline;
use qm_dockersim::{AddressPool, World};
use qm_source::Directory;
use qm_store::backend::Redb;
use qm_store::{Options, Store};
use serde_json::Value;

use crate::cli::run::{EngineKind, LogFormat, RunArgs};
use crate::faces;
use crate::intake::{Intake, references};
use crate::ports::ports;
use crate::sandbox::{self, Door};

/// How often the mirror lists everything again.
const RELIST_EVERY: Duration = Duration::from_secs(300);

/// Runs the operator until it gets SIGTERM or SIGINT. Containers go on running.
///
/// # Errors
/// When it cannot start: the store, the socket, the metrics address, the engine's address, the lock.
pub(crate) fn run(args: RunArgs, world: World, pulls: pulls::Settings) -> anyhow::Result<ExitCode> {
    start_log(args.log_format);
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(args, world, pulls))
}

fn start_log(format: LogFormat) {
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("QUAYMASTER_LOG").unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let is_coloured = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).with_ansi(is_coloured);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// As many descriptors as the system allows: each container that is probed, each watch and each app takes one, and shells give 1,024.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the number of descriptors cannot be raised");
    }
}

fn clock() -> Clock {
    Clock::new(Arc::new(wall_clock), Arc::new(uid))
}

/// The machine's wall clock.
pub(crate) fn wall_clock() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is where the injected wall clock comes from")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Sixteen random bytes in the form of a UUID.
pub(crate) fn uid() -> Name {
    let mut bytes = [0_u8; 16];
    // The kernel's generator does not fail once the machine is up; zeros would be seen as a conflict by the store.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]).into()
}

fn open_store(data_dir: &Path) -> anyhow::Result<Store> {
    std::fs::create_dir_all(data_dir).with_context(|| format!("the data directory {} cannot be made", data_dir.display()))?;
    let path = data_dir.join("store.redb");
    let backend = Redb::at(&path);
    // Watchers that fall behind list again; a long log would only cost memory.
    let options = Options { log_batches: 2_048, ..Options::default() };
    Store::open(Box::new(backend), options).with_context(|| format!("the store {} cannot be opened", path.display()))
}

/// What an operator is put together from.
pub(crate) struct Parts {
    pub(crate) instance: String,
    pub(crate) engine: Address,
    /// How that engine and its containers are reached.
    pub(crate) dial: Dial,
    pub(crate) data_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) manifests: Vec<qm_source::Spec>,
    pub(crate) settle: Duration,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) observe: bool,
    pub(crate) on_connect: OnConnect,
    pub(crate) pulls: pulls::Settings,
    pub(crate) probe_passwords: Passwords,
}

/// An operator at work, with everything around it.
pub(crate) struct Running {
    operator: Arc<Operator>,
    directories: Vec<Directory>,
    servers: Vec<tokio::task::JoinHandle<()>>,
    faces: tokio::task::JoinHandle<()>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Running {
    /// Starts the operator, its servers and its sources.
    ///
    /// # Errors
    /// When the store, a socket or a folder cannot be had.
    pub(crate) async fn start(parts: Parts) -> anyhow::Result<Self> {
        let clock = clock();
        let beside = parts.socket.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let faces_dir = std::path::absolute(beside.join("faces"))?;
        let registry = prometheus::Registry::new();
        let store = open_store(&parts.data_dir)?;
        let operator = Arc::new(Operator::start(Config {
            instance: parts.instance.as_str().into(),
            docker_host: parts.engine,
            dial: parts.dial,
            clock: clock.clone(),
            store: store.clone(),
            // Binds are made from what lies in it, and the engine takes absolute paths only.
            data_dir: std::path::absolute(&parts.data_dir)?,
            faces_dir: faces_dir.clone(),
            registry: registry.clone(),
            relist_every: RELIST_EVERY,
            sources: parts.manifests.iter().map(|s| Name::from(s.id.as_str())).collect(),
            on_connect: parts.on_connect,
            pulls: parts.pulls,
            probe_passwords: parts.probe_passwords,
        })?);
        if parts.observe {
            observe(&operator).await?;
        }
        let ports = ports(&operator, &clock);
        let faces = tokio::spawn(faces::run(faces_dir, operator.clone(), store.clone(), ports.clone()));
        let router = qm_apiserver::router(store, ports);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let listener = Listener::unix(&parts.socket).await?;
        let mut servers = vec![tokio::spawn(listener.serve(router, until(stopped.clone())))];
        if let Some(address) = parts.metrics {
            let listener = Listener::tcp(address).await?;
            servers.push(tokio::spawn(listener.serve(qm_apiserver::metrics_router(registry), until(stopped))));
        }
        let mut directories = Vec::new();
        for spec in parts.manifests {
            directories.push(follow(spec, parts.settle, operator.clone())?);
        }
        Ok(Self { operator, directories, servers, faces, stop })
    }

    /// Ends all of it; containers go on running.
    ///
    /// # Errors
    /// When the store cannot be closed, or a server broke.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        // Nobody listening any more is what is wanted.
        let _ = self.stop.send(true);
        self.faces.abort();
        drop(self.directories);
        self.operator.stop().await?;
        for server in self.servers {
            server.await.context("a server ended badly")?;
        }
        Ok(())
    }
}

async fn serve(args: RunArgs, world: World, pulls: pulls::Settings) -> anyhow::Result<ExitCode> {
    let mut ids: Vec<&str> = args.manifests.iter().map(|s| s.id.as_str()).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|w| w[0] == w[1]) {
        bail!("two --manifests have the same id: give them names with NAME=DIR");
    }
    let data_dir = args.data_dir();
    let (engine, dial, door) = match args.engine {
        EngineKind::Docker => {
            let engine = Address::parse(&args.docker_host).map_err(anyhow::Error::msg)?;
            warn_of_no_docker(engine.clone());
            (engine, dial::system(), None)
        }
        EngineKind::Sim => {
            let (dial, door) = start_sandbox(world, &data_dir).await?;
            (Address::InProcess, dial, Some(door))
        }
    };
    let (fatal, mut fatal_heard) = tokio::sync::mpsc::unbounded_channel::<String>();
    let running = Running::start(Parts {
        instance: args.instance.clone(),
        engine,
        dial,
        on_connect: instance_guard(lock_dir(&args, &data_dir), &args, &data_dir, fatal),
        data_dir,
        socket: args.socket.clone(),
        manifests: args.manifests.clone(),
        settle: args.settle.as_std(),
        metrics: args.metrics,
        observe: args.observe,
        pulls,
        probe_passwords: Passwords::of(args.probe_credentials.clone()),
    })
    .await?;
    tracing::info!(socket = %args.socket.display(), instance = args.instance, "running");
    let fatal = tokio::select! {
        biased;
        message = fatal_heard.recv() => message,
        signal = shutdown() => { signal?; None }
    };
    tracing::info!("stopping; {}", if args.engine == EngineKind::Sim { "the sandbox goes with it" } else { "containers go on running" });
    running.end().await?;
    drop(door);
    match fatal {
        Some(message) => bail!(message),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Says both ways out when there is no Docker at the start. The operator itself goes on looking for it.
fn warn_of_no_docker(engine: Address) {
    tokio::spawn(async move {
        if let Err(error) = dial::system()(engine.clone()).await {
            tracing::warn!(
                "no Docker answers at {engine} ({error}): start Docker, or try things out without it on a simulated engine, with --engine sim"
            );
        }
    });
}

/// The engine of `--engine sim`. Its API is served beside the store too, so that `docker` can look into it and meddle.
async fn start_sandbox(world: World, data_dir: &Path) -> anyhow::Result<(Dial, Door)> {
    std::fs::create_dir_all(data_dir).with_context(|| format!("the data directory {} cannot be made", data_dir.display()))?;
    let door = Door::at(&data_dir.join("docker.sock")).await?;
    let sim = sandbox::simulator(world, AddressPool::Bridge, wall_clock);
    let (running, served, socket) = (sim.clone(), sim.clone(), door.path().to_owned());
    tokio::spawn(async move { running.run().await });
    tracing::info!("a sandbox in memory, no Docker; to look into it: docker -H unix://{} ps", socket.display());
    tokio::spawn(async move {
        if let Err(error) = served.serve_unix(&socket).await {
            tracing::warn!("the sandbox has no socket for `docker`: {error}");
        }
    });
    Ok((sandbox::dial(sim), door))
}

async fn until(mut stopped: tokio::sync::watch::Receiver<bool>) {
    // The sender going away means the same as its word.
    drop(stopped.wait_for(|stop| *stop).await);
}

pub(crate) async fn shutdown() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        biased;
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// Where the instance's lock lies: operators of one Docker must find it whatever their sockets; a sandbox is nobody else's.
fn lock_dir(args: &RunArgs, data_dir: &Path) -> PathBuf {
    if args.engine == EngineKind::Sim {
        return data_dir.to_path_buf();
    }
    let shared = Path::new("/run/quaymaster");
    let beside = args.socket.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if std::fs::create_dir_all(shared).is_ok() { shared.to_path_buf() } else { beside.to_path_buf() }
}

/// Takes the instance's lock at the first connection to an engine, before anything is listed; a second operator ends here.
fn instance_guard(dir: PathBuf, args: &RunArgs, data_dir: &Path, fatal: tokio::sync::mpsc::UnboundedSender<String>) -> OnConnect {
    let locks: Mutex<BTreeMap<String, InstanceLock>> = Mutex::default();
    let (instance, data_dir) = (args.instance.clone(), data_dir.to_path_buf());
    Arc::new(move |facts: &Facts| {
        let mut locks = locks.lock().unwrap_or_else(PoisonError::into_inner);
        if locks.contains_key(&facts.id) {
            return Ok(());
        }
        match InstanceLock::take(&dir, &facts.id, &instance, &data_dir) {
            Ok(lock) => {
                locks.insert(facts.id.clone(), lock);
                Ok(())
            }
            Err(error) => {
                // If nobody listens any more the operator is ending already.
                drop(fatal.send(error.to_string()));
                Err(error.to_string())
            }
        }
    })
}

/// `--observe`: everything is suspended until somebody resumes it.
async fn observe(operator: &Operator) -> anyhow::Result<()> {
    let request = ActRequest {
        act: Act::Suspend,
        scope: Scope::default(),
        actor: "run --observe".to_owned(),
        reason: "started to observe; `quaymaster resume --all` lets it act".to_owned(),
        until: None,
        step_hash: None,
        to: None,
    };
    operator.act(request).await?;
    Ok(())
}

fn source_options(settle: Duration) -> qm_source::Options {
    qm_source::Options { settle, ..qm_source::Options::default() }
}

fn follow(spec: qm_source::Spec, settle: Duration, operator: Arc<Operator>) -> anyhow::Result<Directory> {
    let place = spec.dir.display().to_string();
    let (directory, mut receiver) = Directory::spawn(spec, source_options(settle), references())?;
    tokio::spawn(async move {
        let mut intake = Intake::default();
        while let Some(snapshot) = receiver.next().await {
            operator.sources.set(intake.input(&snapshot, place.clone()));
        }
    });
    Ok(directory)
}

/// Plans folders against the engine alone, without an operator; writes nothing. Gives the plan as JSON and as text.
///
/// # Errors
/// When the engine cannot be reached or the manifests are bad.
pub(crate) fn offline_plan(dirs: &[PathBuf], docker_host: &str, instance: &str) -> anyhow::Result<(Value, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let address = Address::parse(docker_host).map_err(anyhow::Error::msg)?;
        let docker = Docker::new(address, dial::system(), Arc::new(|_, _, _| {}))?;
        let inputs = dirs
            .iter()
            .map(|dir| {
                let snapshot = qm_source::scan_once(dir, &source_options(Duration::ZERO), &references());
                Intake::default().input(&snapshot, dir.display().to_string())
            })
            .collect();
        let plan = plan_offline(docker, clock(), instance.into(), inputs).await?;
        Ok((plan.to_json(), plan.to_string()))
    })
}
