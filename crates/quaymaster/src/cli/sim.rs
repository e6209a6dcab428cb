//! `sim serve`: a Docker for tests that is none. The engine is `qm-dockersim`; here it gets a socket, addresses, and an end.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use qm_dockersim::{AddressPool, Sim};

use super::{CliError, Done, End, block_on};
use crate::sandbox::{self, Door};
use crate::{output, wiring};

/// Serve a simulated Docker engine, for tests of your own
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster sim serve --socket /tmp/sim.sock
  quaymaster sim serve --socket /tmp/sim.sock --tcp 127.0.0.1:2375 --world world.yaml")]
pub(crate) struct SimArgs {
    #[command(subcommand)]
    command: SimCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum SimCommand {
    Serve(ServeArgs),
}

/// Serve the Docker Engine API on a socket until SIGTERM or SIGINT
///
/// Nothing runs: containers are simulated, as their labels, their command lines and the world file say. They get addresses within 127/8
/// with real listeners, so that health checks of other processes reach them. All of it is gone at the end.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster sim serve --socket /tmp/sim.sock
  quaymaster sim serve --socket /tmp/sim.sock --tcp 127.0.0.1:2375 --world world.yaml")]
pub(crate) struct ServeArgs {
    /// The unix socket to serve on
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Serve on this address too
    #[arg(long, value_name = "ADDR")]
    tcp: Option<SocketAddr>,
    /// What images there are and what containers do; without it, busybox
    #[arg(long, value_name = "FILE")]
    world: Option<PathBuf>,
}

/// How long the socket may take to be there.
const SOON: Duration = Duration::from_secs(5);

pub(crate) fn sim(args: &SimArgs) -> Done {
    let SimCommand::Serve(args) = &args.command;
    let world = sandbox::read_world(args.world.as_deref()).map_err(CliError::Usage)?;
    block_on(async {
        let door = Door::at(&args.socket).await.map_err(|error| CliError::Usage(format!("cannot serve there: {error}")))?;
        let sim = sandbox::simulator(world, AddressPool::Loopback, wiring::wall_clock);
        tokio::select! {
            biased;
            signal = wiring::shutdown() => signal.map_err(|error| CliError::because("signals cannot be heard", error))?,
            () = sim.run() => {}
            () = sim.serve_ports(output::note) => {}
            served = sim.serve_unix(door.path()) => served.map_err(|error| refused(&args.socket.display().to_string(), error))?,
            served = tcp(&sim, args.tcp) => served?,
            announced = announce(&door) => match announced? {},
        }
        Ok(End::Fine)
    })
}

async fn tcp(sim: &Sim, address: Option<SocketAddr>) -> Result<(), CliError> {
    match address {
        Some(address) => {
            let because = |error| refused(&address.to_string(), error);
            let listener = tokio::net::TcpListener::bind(address).await.map_err(because)?;
            sim.serve_tcp(listener).await.map_err(because)
        }
        None => std::future::pending().await,
    }
}

fn refused(place: &str, error: io::Error) -> CliError {
    CliError::because(format!("cannot serve on {place}"), error)
}

/// Prints where it is, once somebody can connect: whoever reads the line may go on.
async fn announce(door: &Door) -> Result<std::convert::Infallible, CliError> {
    let look = async {
        while tokio::net::UnixStream::connect(door.path()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(SOON, look).await.is_err() {
        return Err(CliError::failed(format!("nobody can connect to {}", door.path().display())));
    }
    output::print(&format!("export DOCKER_HOST=unix://{}\n", door.path().display()))?;
    std::future::pending().await
}
