//! A real dockerd: the one that `QM_TEST_DOCKER_HOST` names, or one of this process's own.
//!
//! An own engine lives in a temporary folder, with no bridge and no firewall rules of its own, so that it leaves the machine's engine
//! alone. It is watched by a shell that ends it when this process ends, however that happens. A machine on which dockerd cannot run
//! fails the test; nothing is skipped.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::docker::Docker;
use super::wait;

/// What the operator says when an engine counts endpoints of a network that it does not show. Docker 20.10 does so now and then when a
/// request is cancelled half-way; only its restart mends that.
pub const MISCOUNTS: &str = "the engine still counts containers in the network";
/// Names a shared engine: `unix:///path` or a path.
pub const SHARED: &str = "QM_TEST_DOCKER_HOST";
/// How long a dockerd may take to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps a dockerd until its input ends (the test process is gone: everything is cleared away) or it reads a word (only the daemon ends).
const KEEPER: &str = r#"
dir=$1 pool=$2; shift 2
"$@" >>"$dir/dockerd.log" 2>&1 </dev/null &
daemon=$!
word=
read -r word || true
kill -TERM $daemon 2>/dev/null
wait $daemon
[ -n "$word" ] && exit 0
# The process is gone: what outlived the daemon ends too, each by the id that the engine wrote down for it.
for file in $(find "$dir/exec" -name init.pid 2>/dev/null); do kill -KILL "$(cat "$file")" 2>/dev/null; done
if [ -s "$dir/exec/containerd/containerd.pid" ]; then kill -TERM "$(cat "$dir/exec/containerd/containerd.pid")" 2>/dev/null; fi
awk -v dir="$dir/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | while read -r at; do umount -l "$at" 2>/dev/null; done
ip -o -4 addr show | awk -v of="10.$pool." 'index($4, of) == 1 { print $2 }' | while read -r bridge; do ip link delete "$bridge"; done
rm -rf "$dir"
"#;

/// How an own engine is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Containers go on while the engine is away.
    pub live_restore: bool,
}

/// An own dockerd.
#[derive(Debug)]
pub struct Engine {
    dir: PathBuf,
    options: Options,
    pool: u32,
    pool_lock: File,
    running: Option<(Child, ChildStdin)>,
}

/// The engine that tests share: it has `busybox:local` and `busybox:two`.
pub fn shared() -> Docker {
    static ENGINE: OnceLock<(Docker, Option<Engine>)> = OnceLock::new();
    let (docker, _) = ENGINE.get_or_init(|| match std::env::var(SHARED) {
        Ok(host) => {
            let docker = Docker::new(Path::new(host.strip_prefix("unix://").unwrap_or(&host)));
            assert!(docker.is_up(), "{SHARED} names {host}, and no engine answers there");
            provide_images(&docker);
            (docker, None)
        }
        Err(_) => {
            let engine = Engine::start(Options::default());
            (engine.docker(), Some(engine))
        }
    });
    docker.clone()
}

impl Engine {
    /// Starts a dockerd and waits until it answers and has the images.
    pub fn start(options: Options) -> Self {
        let (pool, lock) = take_pool();
        let dir = std::env::temp_dir().join(format!("qm-engine-{}-{pool}", std::process::id()));
        fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{} cannot be made: {e}", dir.display()));
        let mut engine = Self { dir, options, pool, pool_lock: lock, running: None };
        engine.launch();
        provide_images(&engine.docker());
        engine
    }

    /// A client of it.
    pub fn docker(&self) -> Docker {
        Docker::new(&self.socket())
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Ends the daemon as `systemctl stop docker` does. Without live-restore its containers end with it.
    pub fn stop(&mut self) {
        let Some((mut keeper, mut input)) = self.running.take() else { return };
        input.write_all(b"stop\n").expect("the keeper of an engine listens");
        keeper.wait().expect("the keeper of an engine can be waited for");
    }

    /// Starts the daemon again and waits until it answers.
    pub fn launch(&mut self) {
        assert!(self.running.is_none(), "the engine runs already");
        let dir = |name: &str| self.dir.join(name).display().to_string();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&self.dir).arg(self.pool.to_string());
        keeper.args(["dockerd", "--data-root", &dir("data"), "--exec-root", &dir("exec"), "--pidfile", &dir("docker.pid")]);
        keeper.args(["-H", &format!("unix://{}", self.socket().display()), "--config-file", &dir("daemon.json")]);
        keeper.args(["--bridge", "none", "--iptables=false", "--ip-masq=false", "--ip-forward=false"]);
        keeper.args(["--default-address-pool", &format!("base=10.{}.0.0/16,size=26", self.pool)]);
        // Where the machine has a containerd of its own, dockerd uses it: then only the namespace keeps engines apart.
        keeper.args(["--containerd-namespace", &format!("qm-test-{}", self.pool)]);
        keeper.args(["--containerd-plugins-namespace", &format!("qm-test-plugins-{}", self.pool)]);
        if self.options.live_restore {
            keeper.arg("--live-restore");
        }
        fs::write(self.dir.join("daemon.json"), "{}").expect("the engine's folder can be written");
        // The keeper holds the pool with us: while it clears away after a process that is gone, nobody else may have bridges there.
        let lock = self.pool_lock.try_clone().expect("a file can be shared");
        let default_bridge = address_of_docker0();
        let mut keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(lock).spawn().expect("sh is there");
        let input = keeper.stdin.take().expect("the keeper's input is a pipe");
        let docker = self.docker();
        self.running = Some((keeper, input));
        let up = wait::until(PATIENCE, || if docker.is_up() { Ok(()) } else { Err(String::new()) });
        assert!(up.is_ok(), "dockerd does not come up (these tests need root, docker.io and iptables):\n{}", self.log());
        if let Some(address) = default_bridge {
            put_back_docker0(&address);
        }
    }

    /// The end of the daemon's log.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.join("dockerd.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.running.is_none() && !std::thread::panicking() {
            self.launch();
        }
        if self.docker().is_up() {
            self.docker().sweep("quaymaster.dev/instance");
        }
        if let Some((mut keeper, input)) = self.running.take() {
            drop(input);
            // It clears everything away; that it cannot be waited for changes nothing.
            drop(keeper.wait());
        }
    }
}

/// The address of the default bridge of the machine's own engine, where there is one.
fn address_of_docker0() -> Option<String> {
    let shown = Command::new("ip").args(["-o", "-4", "addr", "show", "docker0"]).stderr(Stdio::null()).output().expect("ip is there");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    text.split_whitespace().skip_while(|word| *word != "inet").nth(1).map(str::to_owned)
}

/// A dockerd without a bridge removes `docker0` when it starts, whoever's it is: the machine's engine would start nothing on it any more.
fn put_back_docker0(address: &str) {
    for arguments in ["link add name docker0 type bridge", &format!("addr replace {address} dev docker0"), "link set docker0 up"] {
        let done = Command::new("ip").args(arguments.split(' ')).stderr(Stdio::null()).status().expect("ip is there");
        // Another test may have put it back in the same moment.
        assert!(done.success() || arguments.starts_with("link add"), "ip {arguments}");
    }
}

/// A part of 10/8 that no other test's engine has.
fn take_pool() -> (u32, File) {
    let dir = std::env::temp_dir().join("qm-test-pools");
    fs::create_dir_all(&dir).expect("the temporary folder can be written");
    for pool in 160..250 {
        let file = File::create(dir.join(pool.to_string())).expect("the temporary folder can be written");
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return (pool, file);
        }
    }
    panic!("90 engines run for tests already: something leaves them behind (see {})", dir.display());
}

/// Makes `busybox:local` and `busybox:two` from the machine's static busybox, where they are not there.
pub fn provide_images(docker: &Docker) {
    let lock = File::create(std::env::temp_dir().join("qm-test-images.lock")).expect("the temporary folder can be written");
    flock(&lock, FlockOperation::LockExclusive).expect("a file can be locked");
    for tag in ["local", "two"] {
        if docker.image(&format!("busybox:{tag}")).is_none() {
            docker.import("busybox", tag, &root_file_system(tag));
        }
        // A run that was killed leaves the names under which it pushed the image to a registry of its own, which is gone.
        docker.names_on_loopback(&format!("busybox:{tag}")).iter().for_each(|name| docker.forget_image(name));
    }
}

fn root_file_system(tag: &str) -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed (apt-get install busybox-static)");
    let mut archive = tar::Builder::new(Vec::new());
    let mut put = |path: &str, mode: u32, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        archive.append_data(&mut header, path, bytes).expect("an archive in memory can be written");
    };
    put("bin/busybox", 0o755, &busybox);
    put("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n");
    put("etc/image", 0o644, tag.as_bytes());
    for applet in ["sh", "sleep", "httpd", "nc", "wget", "cat", "echo", "ls", "true", "false", "touch", "kill", "test", "mkdir"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("an archive in memory can be written");
    }
    archive.into_inner().expect("an archive in memory can be written")
}
