//! Puts the parts of the operator together. Wiring only: every decision is somebody else's.

use std::collections::BTreeMap;
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
use qm_controller::dial::{self, Address};
use qm_controller::docker::{Docker, Facts};
use qm_controller::instance::InstanceLock;
use qm_controller::ports::ActRequest;
use qm_controller::run::{Config, OnConnect, Operator};
use qm_controller::shadow::plan_offline;
use qm_source::Directory;
use qm_store::backend::Redb;
use qm_store::{Options, Store};
use serde_json::Value;

use crate::cli::run::{LogFormat, RunArgs};
use crate::intake::{Intake, references};
use crate::ports::ports;

/// How often the mirror lists everything again.
const RELIST_EVERY: Duration = Duration::from_secs(300);

/// Runs the operator until it gets SIGTERM or SIGINT. Containers go on running.
///
/// # Errors
/// When it cannot start: the store, the socket, the metrics address, the engine's address, the lock.
pub(crate) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    start_log(args.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(args))
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

fn clock() -> Clock {
    let wall = || {
        #[expect(clippy::disallowed_methods, reason = "this is where the injected wall clock comes from")]
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    };
    Clock::new(Arc::new(wall), Arc::new(uid))
}

/// Sixteen random bytes in the form of a UUID.
fn uid() -> Name {
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

async fn serve(args: RunArgs) -> anyhow::Result<ExitCode> {
    let mut ids: Vec<&str> = args.manifests.iter().map(|s| s.id.as_str()).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|w| w[0] == w[1]) {
        bail!("two --manifests have the same id: give them names with NAME=DIR");
    }
    let clock = clock();
    let registry = prometheus::Registry::new();
    let docker_host = Address::parse(&args.docker_host).map_err(anyhow::Error::msg)?;
    let store = open_store(&args.data_dir)?;
    let run_dir = args.socket.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    let (fatal, mut fatal_heard) = tokio::sync::mpsc::unbounded_channel::<String>();
    let operator = Arc::new(Operator::start(Config {
        instance: args.instance.as_str().into(),
        docker_host,
        dial: dial::system(),
        clock: clock.clone(),
        store: store.clone(),
        // Binds are made from what lies in it, and the engine takes absolute paths only.
        data_dir: std::path::absolute(&args.data_dir)?,
        registry: registry.clone(),
        relist_every: RELIST_EVERY,
        sources: args.manifests.iter().map(|s| Name::from(s.id.as_str())).collect(),
        on_connect: instance_guard(run_dir, &args, fatal),
    })?);
    if args.observe {
        observe(&operator).await?;
    }
    let router = qm_apiserver::router(store.clone(), ports(&operator, &clock));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let listener = Listener::unix(&args.socket).await?;
    let api = tokio::spawn(listener.serve(router, until(stopped.clone())));
    let metrics = match args.metrics {
        Some(address) => {
            let listener = Listener::tcp(address).await?;
            Some(tokio::spawn(listener.serve(qm_apiserver::metrics_router(registry), until(stopped))))
        }
        None => None,
    };
    let mut directories = Vec::new();
    for spec in &args.manifests {
        directories.push(follow(spec.clone(), &args, operator.clone())?);
    }
    tracing::info!(socket = %args.socket.display(), instance = args.instance, "running");
    let fatal = tokio::select! {
        biased;
        message = fatal_heard.recv() => message,
        signal = shutdown() => { signal?; None }
    };
    tracing::info!("stopping; containers go on running");
    // Nobody listening any more is what is wanted.
    let _ = stop.send(true);
    drop(directories);
    operator.stop().await?;
    api.await.context("the API server ended badly")?;
    if let Some(metrics) = metrics {
        metrics.await.context("the metrics server ended badly")?;
    }
    match fatal {
        Some(message) => bail!(message),
        None => Ok(ExitCode::SUCCESS),
    }
}

async fn until(mut stopped: tokio::sync::watch::Receiver<bool>) {
    // The sender going away means the same as its word.
    drop(stopped.wait_for(|stop| *stop).await);
}

async fn shutdown() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        biased;
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// Takes the instance's lock at the first connection to an engine, before anything is listed; a second operator ends here.
fn instance_guard(run_dir: PathBuf, args: &RunArgs, fatal: tokio::sync::mpsc::UnboundedSender<String>) -> OnConnect {
    let locks: Mutex<BTreeMap<String, InstanceLock>> = Mutex::default();
    let (instance, data_dir) = (args.instance.clone(), args.data_dir.clone());
    // The lock must be found by operators with other sockets too.
    let shared = Path::new("/run/quaymaster");
    let dir = if std::fs::create_dir_all(shared).is_ok() { shared.to_path_buf() } else { run_dir };
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

fn follow(spec: qm_source::Spec, args: &RunArgs, operator: Arc<Operator>) -> anyhow::Result<Directory> {
    let place = spec.dir.display().to_string();
    let (directory, mut receiver) = Directory::spawn(spec, source_options(args.settle.as_std()), references())?;
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
pub(crate) fn offline_plan(dirs: &[PathBuf], docker_host: &str) -> anyhow::Result<(Value, String)> {
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
        let plan = plan_offline(docker, clock(), "default".into(), inputs).await?;
        Ok((plan.to_json(), plan.to_string()))
    })
}
