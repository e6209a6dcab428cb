//! dockersim in the test's own process, behind a unix socket: an engine like any other, as far as a client can tell.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use qm_dockersim::behaviour::{ImageSpec, Presence, Program};
use qm_dockersim::{Engine, Now, Options, Sim};
use tempfile::TempDir;

use super::docker::Docker;
use super::{registry, wait};

static SOCKET: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
/// Where its world has a registry.
pub const REGISTRY: &str = "127.0.0.1:5999";
/// What that gives to the user of [`super::registry`] alone.
pub const PRIVATE: &str = "conf/private:1";

/// The socket of the simulator that the tests of a process share: it has `busybox:local` and `busybox:two`.
pub fn shared() -> &'static Path {
    &SOCKET.get_or_init(start).1
}

/// Whether this is the socket of the shared simulator.
pub fn is_it(socket: &Path) -> bool {
    SOCKET.get().is_some_and(|(_, own)| own == socket)
}

fn options() -> Options {
    let mut options = Options::default();
    let private = ImageSpec {
        presence: Presence::Remote,
        program: Program::Busybox,
        credentials: Some(format!("{}:{}", registry::USER, registry::PASSWORD)),
        size: 1,
        ..ImageSpec::default()
    };
    options.world.images.insert(format!("{REGISTRY}/{PRIVATE}"), private);
    options
}

fn start() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let socket = dir.path().join("docker.sock");
    let began = Instant::now();
    let clock = move || Now { mono_ms: began.elapsed().as_millis() as u64, wall_ns: wall_ns() };
    let sim = Sim::new(Engine::new(options(), clock()), Arc::new(clock));
    let place = socket.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        runtime.block_on(async {
            tokio::select! {
                () = sim.run() => {}
                served = sim.serve_unix(&place) => panic!("the simulator serves no more: {served:?}"),
            }
        });
    });
    let docker = Docker::new(&socket);
    let up = wait::until(Duration::from_secs(10), || if docker.is_up() { Ok(()) } else { Err("the simulator does not answer".to_owned()) });
    up.unwrap_or_else(|why| panic!("{why}"));
    (dir, socket)
}

fn wall_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}
