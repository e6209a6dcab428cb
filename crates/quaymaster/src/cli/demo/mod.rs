//! `demo`: the real operator on a simulated engine, in a story of four acts. What is shown is what the commands print and what the
//! operator's API tells; the story only waits for it. The acts are in [`story`], what it brings along in [`files`].

mod files;
mod story;
mod terminal;
mod vault;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use qm_controller::dial::Address;
use qm_dockersim::{AddressPool, Sim};
use tokio::time::Instant;

use self::files::Folder;
use self::story::Story;
use self::vault::Vault;
use super::{CliError, Done, End};
use crate::wiring::{self, Parts, Running};
use crate::{output, sandbox};

/// Watch the operator at work for ten seconds, without Docker and without a network
///
/// Runs the real operator on a simulated engine in this process, with 22 services of an example, in a temporary folder that is removed
/// again. Nothing else on this machine is touched.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster demo
  quaymaster demo --fast")]
pub(crate) struct DemoArgs {
    /// Without pauses for reading
    #[arg(long)]
    fast: bool,
}

/// How soon a change of a file counts.
const SETTLE: Duration = Duration::from_millis(100);

pub(crate) fn demo(args: &DemoArgs) -> Done {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| CliError::because("the system gives this process no event loop", error))?;
    let end = runtime.block_on(play(args.fast));
    // After ^C the story's thread may be asleep; nobody waits for it.
    runtime.shutdown_background();
    end
}

async fn play(fast: bool) -> Done {
    let folder = Folder::make(&wiring::uid()).map_err(|error| CliError::because("no temporary folder can be made", error))?;
    let sim = sandbox::simulator(files::world(fast), AddressPool::Bridge, wiring::wall_clock);
    let engine = tokio::spawn({
        let sim = sim.clone();
        async move { sim.run().await }
    });
    terminal::opening(&folder.manifests())?;
    let started = Instant::now();
    let vault = Vault::default();
    let running = start(&folder, &sim, &vault).await.map_err(|error| CliError::because("the operator cannot start", error))?;
    let story = Story::new(&folder, sim, vault, started, fast);
    let told = tokio::task::spawn_blocking(move || story.tell());
    let end = tokio::select! {
        biased;
        signal = wiring::shutdown() => {
            signal.map_err(|error| CliError::because("signals cannot be heard", error))?;
            output::note("interrupted");
            Ok(End::Differs)
        }
        told = told => told.unwrap_or_else(|error| Err(CliError::because("the story broke off", error))),
    };
    let stopped = running.end().await;
    engine.abort();
    stopped.map_err(|error| CliError::because("the operator did not stop in order", error))?;
    end
}

async fn start(folder: &Folder, sim: &Sim, vault: &Vault) -> anyhow::Result<Running> {
    let manifests = super::run::source(&format!("platform={}", folder.manifests().display())).map_err(anyhow::Error::msg)?;
    Running::start(Parts {
        instance: "demo".to_owned(),
        engine: Address::InProcess,
        dial: vault.beside(sandbox::dial(sim.clone())),
        data_dir: folder.path().join("data"),
        socket: folder.path().join(story::SOCKET),
        manifests: vec![manifests],
        settle: SETTLE,
        metrics: None,
        observe: false,
        pulls: qm_controller::pulls::Settings::default(),
        probe_passwords: qm_controller::probe::Passwords::default(),
        // Nobody else can reach this engine.
        on_connect: Arc::new(|_| Ok(())),
    })
    .await
}
