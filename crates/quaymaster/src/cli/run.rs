//! The arguments of `run`. What they start is put together in [`crate::wiring`].

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use qm_api::spec::quantity::Duration;
use qm_controller::docker::credentials::CredentialsFile;
use qm_controller::pulls;
use qm_dockersim::World;

use super::duration;
use crate::client::DEFAULT_SOCKET;
use crate::sandbox;

/// Where Docker listens unless told otherwise.
pub(crate) const DEFAULT_DOCKER_HOST: &str = "unix:///var/run/docker.sock";

/// Run the operator: keep the engine in agreement with the manifests
///
/// Runs in the foreground until it gets SIGTERM or SIGINT. Containers go on running when it ends.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster run --manifests ./manifests --data-dir ./data --socket ./quaymaster.sock
  quaymaster run --manifests prod=/srv/manifests --metrics 127.0.0.1:9180
  quaymaster run --manifests /srv/manifests --observe --registry-credentials /etc/quaymaster/registries.json
  quaymaster run --engine sim --manifests ./manifests --data-dir ./data --socket ./quaymaster.sock")]
pub(crate) struct RunArgs {
    /// A folder of manifests, or NAME=DIR to give it a name; may be given several times
    #[arg(long, required = true, num_args = 1.., value_name = "DIR", value_parser = source)]
    pub(crate) manifests: Vec<qm_source::Spec>,
    /// Where the operator keeps its store [default: /var/lib/quaymaster; with --engine sim, /var/lib/quaymaster/sim]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The unix socket to serve the API on
    #[arg(long, value_name = "PATH", env = "QUAYMASTER_SOCKET", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// The address to serve Prometheus metrics on; none are served without it
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// What runs the containers; the simulated one is a sandbox in memory
    #[arg(long, value_name = "ENGINE", value_enum, default_value_t = EngineKind::Docker)]
    pub(crate) engine: EngineKind,
    /// What the images and containers of the simulated engine do
    #[arg(long, value_name = "FILE")]
    world: Option<PathBuf>,
    /// The Docker engine; the simulated one has no use for it
    #[arg(long, value_name = "URL", env = "DOCKER_HOST", default_value = DEFAULT_DOCKER_HOST)]
    pub(crate) docker_host: String,
    /// Tells this operator from others on the same engine
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) instance: String,
    /// What private registries want to see, in the form of Docker's own config.json; read anew at every pull
    #[arg(long, value_name = "FILE", env = "QUAYMASTER_REGISTRY_CREDENTIALS")]
    registry_credentials: Option<PathBuf>,
    /// How many images are pulled at once
    #[arg(long, value_name = "N", default_value = "3", value_parser = parallel)]
    parallel_pulls: NonZeroUsize,
    /// The folder with the passwords that probes of databases may use: one file each, named by `password` in the manifest, read at every probe
    #[arg(long, value_name = "DIR")]
    pub(crate) probe_credentials: Option<PathBuf>,
    /// Start with everything suspended: observe and report, write nothing
    #[arg(long)]
    pub(crate) observe: bool,
    /// How long an absence, or a text that looks unfinished, must last before it counts
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub(crate) settle: Duration,
    /// The form of the log
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

impl RunArgs {
    /// Where the store is. A sandbox that nobody gave a folder keeps off the real one's.
    pub(crate) fn data_dir(&self) -> PathBuf {
        let own = match self.engine {
            EngineKind::Docker => "/var/lib/quaymaster",
            EngineKind::Sim => "/var/lib/quaymaster/sim",
        };
        self.data_dir.clone().unwrap_or_else(|| PathBuf::from(own))
    }

    /// The world of the simulated engine; the built-in one when none is named.
    ///
    /// # Errors
    /// What is wrong with the file, or that nobody would look at it.
    pub(crate) fn world(&self) -> Result<World, String> {
        match (self.engine, &self.world) {
            (EngineKind::Docker, Some(_)) => Err("--world is for the simulated engine: add --engine sim".to_owned()),
            (_, file) => sandbox::read_world(file.as_deref()),
        }
    }
}

impl RunArgs {
    /// How images are pulled.
    ///
    /// # Errors
    /// Why the credentials file cannot be used, and what to do.
    pub(crate) fn pulls(&self) -> Result<pulls::Settings, String> {
        let credentials = self.registry_credentials.clone().map(|path| CredentialsFile { path });
        if let Some(file) = &credentials {
            file.read().map_err(|error| {
                format!(
                    "the registry credentials file {} cannot be used: {error}\n  \
                     `docker --config DIR login REGISTRY` writes one as DIR/config.json; without private registries, leave \
                     --registry-credentials out",
                    file.path.display()
                )
            })?;
        }
        Ok(pulls::Settings { parallel: self.parallel_pulls, credentials })
    }
}

/// What runs the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineKind {
    /// A Docker engine.
    Docker,
    /// A simulated one in this process, gone when it ends.
    Sim,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Reads a number of pulls for clap.
fn parallel(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse().ok().filter(|n| (1..=100).contains(n)).and_then(NonZeroUsize::new);
    number.ok_or_else(|| "a number from 1 to 100".to_owned())
}

/// Reads `DIR` or `NAME=DIR` for clap.
pub(crate) fn source(text: &str) -> Result<qm_source::Spec, String> {
    qm_source::parse_arg(text).map_err(|error| error.to_string())
}
