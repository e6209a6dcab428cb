//! The simulated engine as people meet it: `sim serve`, `run --engine sim`, `demo`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::{program, run};

/// A program that is still at work; killed when the test ends early.
struct Started(Child);

impl Started {
    fn start(arguments: &[&str], folder: &Path) -> Self {
        let mut command = program(arguments, folder);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts"))
    }

    fn first_line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().expect("its output is piped")).read_line(&mut line).expect("a line");
        line
    }

    /// Ends it with a signal; its exit code.
    fn end(&mut self, signal: &str) -> Option<i32> {
        let told = Command::new("kill").args([signal, &self.0.id().to_string()]).status().expect("kill starts");
        assert!(told.success());
        self.0.wait().expect("it ends").code()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It has ended already, as a rule.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// One request over a unix socket: the status and the body.
fn ask(socket: &Path, method: &str, path: &str, body: &Value) -> (u16, String) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn a_docker_for_tests_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let world = "images: {\"web:1\": {cmd: [serve], exposed: [8080/tcp]}}\ncontainers: [{name: web, behaviour: {httpStatus: 418}}]\n";
    fs::write(folder.path().join("world.yaml"), world).unwrap();
    let socket = folder.path().join("sim.sock");
    let mut sim = Started::start(&["sim", "serve", "--socket", "sim.sock", "--world", "world.yaml"], folder.path());
    assert_eq!(sim.first_line(), format!("export DOCKER_HOST=unix://{}\n", socket.display()));
    assert_eq!(ask(&socket, "GET", "/_ping", &Value::Null), (200, "OK".to_owned()));
    let (status, body) = ask(&socket, "POST", "/v1.41/containers/create?name=web", &json!({"Image": "web:1"}));
    assert_eq!(status, 201, "{body}");
    assert_eq!(ask(&socket, "POST", "/containers/web/start", &Value::Null).0, 204);
    let (_, body) = ask(&socket, "GET", "/containers/web/json", &Value::Null);
    let json: Value = serde_json::from_str(body.trim()).unwrap();
    let address = json["NetworkSettings"]["IPAddress"].as_str().unwrap();
    assert!(address.starts_with("127."), "{address}");
    assert!(probe(address, 8080).starts_with("HTTP/1.1 418 "));
    let second = run(&["sim", "serve", "--socket", "sim.sock"], folder.path());
    assert_eq!(second.code, 2);
    assert!(second.err.contains("somebody listens on"), "{}", second.err);
    assert_eq!(sim.end("-TERM"), Some(0));
    assert!(!socket.exists());
}

/// What a container's port answers, as soon as it is there.
fn probe(address: &str, port: u16) -> String {
    for _ in 0..200 {
        if let Ok(mut stream) = TcpStream::connect((address, port)) {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            return answer;
        }
        #[expect(clippy::disallowed_methods, reason = "another process is waited for")]
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nobody listens at {address}:{port}");
}

#[test]
fn a_bad_world_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("world.yaml"), "containers: [{nam: web}]\n").unwrap();
    for arguments in [
        vec!["sim", "serve", "--socket", "s", "--world", "world.yaml"],
        vec!["run", "--engine", "sim", "--manifests", ".", "--data-dir", "d", "--socket", "s", "--world", "world.yaml"],
    ] {
        let ran = run(&arguments, folder.path());
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}");
        assert!(ran.err.contains("world.yaml is not right") && ran.err.contains("nam"), "{}", ran.err);
    }
    let ran = run(&["run", "--manifests", ".", "--world", "world.yaml"], folder.path());
    assert_eq!((ran.code, ran.err.as_str()), (2, "error: --world is for the simulated engine: add --engine sim\n"));
}

/// A folder out of `examples`.
fn example(name: &str) -> String {
    format!("{}/../../examples/{name}", std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is"))
}

#[test]
fn the_examples_become_usable_in_the_sandbox() {
    for (name, namespace, services) in [
        ("quickstart", "quickstart", vec!["msvc/web"]),
        ("platform", "notify", vec!["msvc/status-page", "msvc/beat", "msvc/dashboard", "msvc/admin"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let manifests = example(name);
        let arguments = ["run", "--engine", "sim", "--manifests", &manifests, "--data-dir", "data", "--socket", "qm.sock"];
        let mut operator = Started::start(&arguments, folder.path());
        let socket = folder.path().join("qm.sock");
        while UnixStream::connect(&socket).is_err() {
            assert!(operator.0.try_wait().unwrap().is_none(), "the operator ended");
            std::thread::yield_now();
        }
        let wait = ["wait", "-n", namespace, "--for", "usable", "--timeout", "30s", "--socket", "qm.sock"];
        let ran = run(&[wait.as_slice(), &services].concat(), folder.path());
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        let (status, containers) = ask(&folder.path().join("data/docker.sock"), "GET", "/containers/json", &Value::Null);
        assert!(status == 200 && containers.contains(&format!("/{namespace}-")), "{containers}");
        assert_eq!(operator.end("-INT"), Some(0));
        assert!(!folder.path().join("data/docker.sock").exists());
    }
}

#[test]
fn the_demo_tells_its_story() {
    let folder = tempfile::tempdir().unwrap();
    let output = program(&["demo", "--fast"], folder.path()).env("TMPDIR", folder.path()).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{out}");
    let parts = [
        "  level 0  ",
        "  level 5  ",
        "22 services are usable after ",
        "$ docker rm -f notify-redis-1",
        "Normal Repaired miniservice/notify/redis create replica 1: missing",
        "Normal Repaired miniservice/notify/redis start replica 1: missing",
        "there is no field `onDwn` in `spec.dependsOn[1]`",
        "apps/apps.yaml:118:25",
        "help: did you mean `onDown`?",
        "$ bao operator seal",
        "vault      0       TemporarilyUnavailable   false    ProbeFailed",
        "secure/payments may not be used",
        "└─ needs (Block) secure/db-login",
        "└─ needs (Block) secure/vault",
        "it is",
        "No container was stopped or restarted.",
        "$ bao operator unseal",
        "restart replica 1: secure/vault",
        "db-login restarted once, as it asked for; jwt,",
    ];
    let mut rest = out.as_str();
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("no `{part}` in its place in:\n{out}"));
        rest = &rest[at + part.len()..];
    }
    // Paths of the test's own folder may be long.
    for line in out.lines().filter(|line| !line.contains("qm-demo-")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(!out.contains('\x1b'));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "its folder is removed");
}

#[test]
fn the_demo_cleans_up_when_it_is_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(&["demo"], folder.path());
    let child = command.env("TMPDIR", folder.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut demo = Started(child);
    let mut out = BufReader::new(demo.0.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("level 0") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the demo ended");
    }
    assert_eq!(demo.end("-INT"), Some(1));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "its folder is removed");
}
