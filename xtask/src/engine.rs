//! Owns the Docker that tests and measurements run against: the one that answers, else one of our own, which ends with us.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::docker::Docker;
use crate::steps::{root, run};

/// The environment variable by which tests are told of a shared engine: a socket's path.
pub(crate) const SHARED: &str = "QM_TEST_DOCKER_HOST";

/// How long a new dockerd may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine that answers.
#[derive(Debug)]
pub(crate) struct Engine {
    /// Its socket.
    pub(crate) socket: PathBuf,
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    child: Child,
    dir: tempfile::TempDir,
}

impl Engine {
    /// The engine of [`SHARED`], of `DOCKER_HOST`, or at the usual socket, if it answers; else a dockerd of our own.
    ///
    /// # Errors
    /// When none answers and none can be started.
    pub(crate) fn find_or_start() -> Result<Self> {
        let candidates = [
            std::env::var(SHARED).ok(),
            std::env::var("DOCKER_HOST").ok().and_then(|host| host.strip_prefix("unix://").map(str::to_owned)),
            Some("/var/run/docker.sock".to_owned()),
        ];
        for socket in candidates.into_iter().flatten().map(PathBuf::from) {
            if Docker::at(&socket).answers() {
                println!("    Docker answers at {}", socket.display());
                return Ok(Self { socket, own: None });
            }
        }
        Self::start()
    }

    fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("qm-engine-").tempdir()?;
        let at = |name: &str| dir.path().join(name);
        let (socket, log_path) = (at("docker.sock"), at("dockerd.log"));
        let log = std::fs::File::create(&log_path)?;
        let child = Command::new("dockerd")
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C for us must not end it before we have cleaned up.
            .process_group(0)
            .spawn()
            .context("no Docker answers and `dockerd` cannot be started: apt-get install docker.io iptables, and run this as root")?;
        println!("    no Docker answers; started dockerd, pid {}", child.id());
        let mut engine = Self { socket, own: Some(Own { child, dir }) };
        let began = Instant::now();
        while !Docker::at(&engine.socket).answers() {
            let ended = engine.own.as_mut().and_then(|own| own.child.try_wait().ok().flatten());
            if ended.is_some() || began.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(15).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                bail!("dockerd does not answer ({ended:?}); its last words:\n{}", last.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(engine)
    }

    /// Makes the image that tests and examples run from, unless it is there.
    ///
    /// # Errors
    /// When it cannot be made: it needs a static busybox and the docker CLI.
    pub(crate) fn import_busybox(&self) -> Result<()> {
        if Docker::at(&self.socket).has_image("busybox:local") {
            return Ok(());
        }
        let mut script = Command::new("bash");
        script.arg(root().join("examples/busybox-image.sh")).env("DOCKER_HOST", self.host());
        run(&mut script).context("busybox:local cannot be made: apt-get install busybox-static docker.io")
    }

    /// Its address as Docker's clients take it.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Whether it was started by us.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(own) = &mut self.own else { return };
        println!("    stopping the dockerd that was started, pid {}", own.child.id());
        terminate(&mut own.child, Duration::from_secs(30));
        unmount_under(own.dir.path());
    }
}

/// Ends a child of ours: SIGTERM, and SIGKILL when it takes too long.
pub(crate) fn terminate(child: &mut Child, patience: Duration) {
    // `kill` is in every shell's reach and spares a dependency for one system call.
    drop(Command::new("kill").arg(child.id().to_string()).status());
    let began = Instant::now();
    while began.elapsed() < patience {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(child.kill());
    drop(child.wait());
}

/// A dockerd that was killed leaves mounts behind, which keep its folder from being removed.
fn unmount_under(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let prefix = dir.to_string_lossy().into_owned();
    for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|path| path.starts_with(&prefix)) {
        drop(Command::new("umount").args(["-l", mount]).status());
    }
}
