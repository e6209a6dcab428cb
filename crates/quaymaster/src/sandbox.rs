//! The simulated engine as this program runs it: on the machine's clocks, with a world out of a file, dialled in process. Wiring only.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use qm_api::time::Timestamp;
use qm_controller::dial::{Address, Dial, Stream};
use qm_dockersim::{AddressPool, Engine, Now, Options, Sim, World};
use tokio::time::Instant;

/// Reads the file of a world; the built-in one when none is named.
///
/// # Errors
/// What is wrong with the file, for its author.
pub(crate) fn read_world(file: Option<&Path>) -> Result<World, String> {
    let Some(file) = file else { return Ok(World::default()) };
    let text = fs::read_to_string(file).map_err(|error| format!("the world file {} cannot be read: {error}", file.display()))?;
    World::parse(&text).map_err(|error| format!("the world file {} is not right: {error}", file.display()))
}

/// A simulator on the machine's clocks. What it scripts happens only while [`Sim::run`] is polled.
pub(crate) fn simulator(world: World, pool: AddressPool, wall: impl Fn() -> Timestamp + Send + Sync + 'static) -> Sim {
    let started = Instant::now();
    let now = move || Now {
        mono_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        wall_ns: wall().as_micros().saturating_mul(1_000),
    };
    let engine = Engine::new(Options { pool, world, ..Options::default() }, now());
    Sim::new(engine, Arc::new(now))
}

/// The way to a simulated engine and into its containers; no connection leaves the process.
pub(crate) fn dial(sim: Sim) -> Dial {
    Arc::new(move |address| {
        let sim = sim.clone();
        Box::pin(async move {
            let stream: Box<dyn Stream> = match address {
                Address::InProcess | Address::Unix(_) => Box::new(sim.connect()?),
                Address::Tcp(host, port) => Box::new(sim.dial(&host, port)?),
            };
            Ok(stream)
        })
    })
}

/// A socket that is free to be listened on, and is removed again when this is dropped.
#[derive(Debug)]
pub(crate) struct Door(PathBuf);

impl Door {
    /// Makes way at `path`: a socket that nobody listens on any more is removed.
    ///
    /// # Errors
    /// When somebody listens there, or something lies there that is no socket.
    pub(crate) async fn at(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::FileTypeExt as _;
        let path = std::path::absolute(path)?;
        let refuse = |kind, why: &str| Err(io::Error::new(kind, format!("{} {why}", path.display())));
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(there) if !there.file_type().is_socket() => return refuse(io::ErrorKind::AlreadyExists, "is there and is no socket"),
            Ok(_) if tokio::net::UnixStream::connect(&path).await.is_ok() => {
                return refuse(io::ErrorKind::AddrInUse, "is a socket that somebody listens on: end that one, or name another path");
            }
            Ok(_) => fs::remove_file(&path)?,
        }
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // It may never have been made.
        drop(fs::remove_file(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_of_the_guide_can_be_read() {
        let guide = fs::read_to_string(
            std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is"))
                .join("../../docs/guide/sandbox.md"),
        )
        .unwrap();
        let world = guide.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let world = World::parse(world).unwrap();
        assert_eq!((world.images.len(), world.containers.len()), (3, 6));
    }

    #[tokio::test]
    async fn only_dead_sockets_make_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(Door::at(&path).await.unwrap());
        assert!(!path.exists());
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert_eq!(Door::at(&path).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert_eq!(Door::at(&path).await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(path.exists());
    }
}
