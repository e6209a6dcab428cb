//! The verbs of the `docker` client that people and scripts use most.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Client, shown};

fn docker() -> Client {
    Client::find("docker", "DOCKER", "install docker-cli or docker.io")
}

/// The first document of what `inspect` says.
#[track_caller]
fn inspect(docker: &Client, args: &[&str]) -> Value {
    let out = docker.must(args);
    let all: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"));
    all[0].clone()
}

#[test]
fn version_and_info() {
    let docker = docker();
    assert_eq!(docker.must(&["version", "--format", "{{.Server.APIVersion}}"]), "1.41");
    assert!(docker.must(&["version"]).contains("Server:"));
    assert!(docker.must(&["version", "--format", "{{.Server.Version}}"]).starts_with("20.10.24"));
    assert_eq!(docker.must(&["info", "--format", "{{.OSType}} {{.LoggingDriver}} {{.Swarm.LocalNodeState}}"]), "linux json-file inactive");
    assert!(docker.must(&["info"]).contains("Server Version: 20.10.24"));
}

#[test]
fn run_ps_inspect() {
    let docker = docker();
    let id = docker.must(&["run", "-d", "--name", "cli-run", "--label", "a=b", "-e", "X=1", "--init", "busybox:local", "sleep", "1000"]);
    assert_eq!(id.len(), 64, "{id}");
    let line = docker.must(&["ps", "--no-trunc", "--filter", "name=cli-run", "--format", "{{.ID}} {{.Names}} {{.Image}} {{.State}}"]);
    assert_eq!(line, format!("{id} cli-run busybox:local running"));
    assert!(docker.must(&["ps"]).contains("cli-run"));
    assert!(docker.must(&["ps", "-a", "--format", "json"]).contains("\"Names\":\"cli-run\""));
    let whole = inspect(&docker, &["inspect", "cli-run"]);
    assert_eq!((&whole["Id"], &whole["State"]["Status"], &whole["Config"]["Env"][0]), (&json!(id), &json!("running"), &json!("X=1")));
    assert_eq!(docker.must(&["inspect", "--format", "{{.State.Running}} {{.HostConfig.Init}}", &id[..12]]), "true true");
    docker.refused(&["run", "-d", "--name", "cli-run", "busybox:local", "true"], "is already in use by container");
    docker.refused(&["inspect", "cli-nonesuch"], "No such object: cli-nonesuch");
    assert_eq!(docker.must(&["rm", "-f", "cli-run"]), "cli-run");
    assert_eq!(docker.must(&["ps", "-aq", "--filter", "name=cli-run"]), "");
}

#[test]
fn run_in_the_foreground() {
    let docker = docker();
    assert_eq!(docker.must(&["run", "--rm", "--name", "cli-front", "busybox:local", "echo", "hello"]), "hello");
    let done = docker.run(&["run", "--rm", "busybox:local", "sh", "-c", "exit 7"]);
    assert_eq!(done.code, Some(7), "{} {}", done.out, done.err);
    assert_eq!(docker.must(&["ps", "-aq", "--filter", "name=cli-front"]), "");
}

#[test]
fn logs_exec_and_files() {
    let docker = docker();
    docker.must(&["run", "-d", "--name", "cli-logs", "--init", "busybox:local", "sh", "-c", "echo one; echo two >&2; sleep 1000"]);
    let logs = docker.run(&["logs", "cli-logs"]);
    assert_eq!((logs.out.as_str(), logs.err.as_str()), ("one", "two"));
    assert!(docker.must(&["logs", "--tail", "2", "--timestamps", "cli-logs"]).ends_with("Z one"));
    assert_eq!(docker.must(&["exec", "cli-logs", "echo", "there"]), "there");
    assert_eq!(docker.run(&["exec", "cli-logs", "sh", "-c", "exit 3"]).code, Some(3));
    assert_eq!(docker.must(&["exec", "-e", "X=4", "cli-logs", "sh", "-c", "echo $X"]), "4");
    docker.must(&["exec", "-d", "cli-logs", "sleep", "5"]);
    let into = docker.file("in.txt", "content\n");
    docker.must(&["cp", &shown(&into), "cli-logs:/tmp/in.txt"]);
    assert_eq!(docker.must(&["exec", "cli-logs", "cat", "/tmp/in.txt"]), "content");
    let out = docker.home.path().join("out.txt");
    docker.must(&["cp", "cli-logs:/tmp/in.txt", &shown(&out)]);
    assert_eq!(std::fs::read_to_string(out).ok().as_deref(), Some("content\n"));
    docker.refused(&["cp", "cli-logs:/nonesuch", "x"], "Could not find the file /nonesuch in container cli-logs");
    assert!(docker.must(&["top", "cli-logs"]).contains("sleep 1000"));
    docker.must(&["rm", "-f", "cli-logs"]);
}

#[test]
fn stop_start_wait() {
    let docker = docker();
    docker.must(&["create", "--name", "cli-life", "--init", "busybox:local", "sleep", "1000"]);
    assert_eq!(docker.must(&["start", "cli-life"]), "cli-life");
    assert_eq!(docker.must(&["stop", "-t", "1", "cli-life"]), "cli-life");
    assert_eq!(docker.must(&["wait", "cli-life"]), "143");
    docker.must(&["restart", "cli-life"]);
    docker.must(&["pause", "cli-life"]);
    assert!(docker.must(&["ps", "--filter", "name=cli-life", "--format", "{{.Status}}"]).ends_with("(Paused)"));
    docker.must(&["unpause", "cli-life"]);
    docker.refused(&["rm", "cli-life"], "You cannot remove a running container");
    docker.must(&["kill", "cli-life"]);
    assert_eq!(docker.must(&["wait", "cli-life"]), "137");
    assert_eq!(docker.must(&["rm", "cli-life"]), "cli-life");
    docker.refused(&["start", "cli-life"], "No such container: cli-life");
}

#[test]
fn rename_and_update() {
    let docker = docker();
    docker.must(&["run", "-d", "--name", "cli-old", "--init", "busybox:local", "sleep", "1000"]);
    docker.must(&["rename", "cli-old", "cli-new"]);
    assert_eq!(
        docker.must(&["update", "--cpus", "0.5", "--memory", "64m", "--memory-swap", "128m", "--restart", "always", "cli-new"]),
        "cli-new"
    );
    let format = "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}";
    assert_eq!(docker.must(&["inspect", "--format", format, "cli-new"]), "500000000 67108864 always");
    docker.must(&["rm", "-f", "cli-new"]);
}

#[test]
fn networks() {
    let docker = docker();
    let id = docker.must(&["network", "create", "--label", "a=b", "--subnet", "10.77.0.0/24", "cli-net"]);
    assert_eq!(
        docker.must(&["network", "ls", "--filter", "name=cli-net", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]),
        "cli-net bridge local"
    );
    docker.must(&["run", "-d", "--name", "cli-net-a", "--init", "busybox:local", "sleep", "1000"]);
    docker.must(&["network", "connect", "--alias", "web", "--ip", "10.77.0.9", "cli-net", "cli-net-a"]);
    let shown = inspect(&docker, &["network", "inspect", "cli-net"]);
    assert_eq!(shown["Id"], json!(id));
    let inside: Vec<&Value> = shown["Containers"].as_object().into_iter().flat_map(|o| o.values()).collect();
    assert_eq!((inside.len(), &inside[0]["Name"], &inside[0]["IPv4Address"]), (1, &json!("cli-net-a"), &json!("10.77.0.9/24")));
    docker.refused(&["network", "rm", "cli-net"], "has active endpoints");
    docker.must(&["network", "disconnect", "cli-net", "cli-net-a"]);
    assert_eq!(docker.must(&["network", "rm", "cli-net"]), "cli-net");
    docker.refused(&["network", "inspect", "cli-net"], "network cli-net not found");
    docker.must(&["rm", "-f", "cli-net-a"]);
}

#[test]
fn volumes() {
    let docker = docker();
    assert_eq!(docker.must(&["volume", "create", "--label", "a=b", "cli-vol"]), "cli-vol");
    assert_eq!(docker.must(&["volume", "ls", "--filter", "name=cli-vol", "--format", "{{.Name}} {{.Driver}}"]), "cli-vol local");
    docker.must(&["run", "-d", "--name", "cli-vol-a", "--init", "-v", "cli-vol:/data", "busybox:local", "sleep", "1000"]);
    docker.refused(&["volume", "rm", "cli-vol"], "volume is in use");
    assert_eq!(inspect(&docker, &["volume", "inspect", "cli-vol"])["Labels"], json!({ "a": "b" }));
    docker.must(&["rm", "-f", "cli-vol-a"]);
    assert_eq!(docker.must(&["volume", "rm", "cli-vol"]), "cli-vol");
}

#[test]
fn events() {
    let docker = docker();
    docker.must(&["run", "-d", "--name", "cli-events", "--init", "busybox:local", "sleep", "1000"]);
    docker.must(&["rm", "-f", "cli-events"]);
    // The client counts in seconds: this one has to be over.
    let until = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs() + 1;
    let until = until.to_string();
    let out = docker.must(&["events", "--since", "1h", "--until", &until, "--filter", "container=cli-events", "--format", "{{.Action}}"]);
    assert_eq!(out.lines().collect::<Vec<_>>(), ["create", "start", "kill", "die", "destroy"]);
    assert!(docker.must(&["events", "--since", "1h", "--until", &until]).contains("name=cli-events"));
}

#[test]
fn images() {
    let docker = docker();
    let list = docker.must(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(list.lines().any(|l| l == "busybox:local"), "{list}");
    docker.must(&["tag", "busybox:local", "cli-image:one"]);
    assert_eq!(docker.must(&["rmi", "cli-image:one"]), "Untagged: cli-image:one");
    docker.refused(&["image", "inspect", "cli-image:one"], "cli-image:one");
    assert!(docker.must(&["history", "busybox:local"]).contains("IMAGE"));
    docker.refused(&["pull", "localhost:1/cli-nonesuch"], "connection refused");
    docker.refused(&["run", "--pull", "never", "cli-nonesuch"], "No such image: cli-nonesuch:latest");
}
