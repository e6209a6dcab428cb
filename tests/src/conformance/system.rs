//! Ping, version, info, and what paths mean.

use serde_json::{Value, json};

use super::subject::{Subject, has};
use super::{Case, Reply};

pub(super) const CASES: &[Case] = &[
    ("ping", ping),
    ("ping-head", ping_head),
    ("version", version),
    ("info", info),
    ("info-counts", info_counts),
    ("versioned-paths", versioned_paths),
    ("unknown-paths", unknown_paths),
    ("too-new", too_new),
    ("too-old", too_old),
    ("broken-bodies", broken_bodies),
];

/// What every answer of the engine says of it, and clients negotiate with.
#[track_caller]
fn introduces(reply: &Reply) {
    assert_eq!(reply.header("api-version").as_deref(), Some("1.41"));
    assert_eq!(reply.header("ostype").as_deref(), Some("linux"));
    assert_eq!(reply.header("docker-experimental").as_deref(), Some("false"));
    assert!(reply.header("server").is_some_and(|s| s.starts_with("docker/20.10.24") && s.ends_with("(linux)")), "{reply}");
}

fn ping(s: &Subject) {
    for path in ["/_ping", "/v1.41/_ping", "/v1.24/_ping"] {
        let reply = s.raw("GET", path, None);
        reply.ok(200);
        assert_eq!(reply.text(), "OK");
        assert_eq!(reply.header("content-type").as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(reply.header("cache-control").as_deref(), Some("no-cache, no-store, must-revalidate"));
        assert_eq!(reply.header("pragma").as_deref(), Some("no-cache"));
        introduces(&reply);
    }
}

fn ping_head(s: &Subject) {
    let reply = s.raw("HEAD", "/_ping", None);
    reply.empty(200);
    introduces(&reply);
}

fn version(s: &Subject) {
    let reply = s.get("/version");
    let shown = reply.ok(200);
    introduces(&reply);
    assert_eq!(reply.header("content-type").as_deref(), Some("application/json"));
    has(&shown, &json!({ "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64", "Platform": { "Name": "" } }));
    assert!(shown["Version"].as_str().is_some_and(|v| v.starts_with("20.10.24")), "{shown}");
    for field in ["GitCommit", "GoVersion", "KernelVersion", "BuildTime"] {
        assert!(shown[field].is_string(), "{field}: {shown}");
    }
    let engine = json!({
        "Name": "Engine", "Version": shown["Version"],
        "Details": { "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64", "Experimental": "false" },
    });
    has(&shown["Components"][0], &engine);
}

fn info(s: &Subject) {
    let shown = s.get("/info").ok(200);
    has(&shown, &json!({ "OSType": "linux", "Architecture": "x86_64", "LoggingDriver": "json-file", "MemoryLimit": true, "Labels": [] }));
    has(
        &shown,
        &json!({ "Swarm": { "LocalNodeState": "inactive", "NodeID": "", "ControlAvailable": false }, "LiveRestoreEnabled": false }),
    );
    has(&shown, &json!({ "DefaultRuntime": "runc", "InitBinary": "docker-init", "ExperimentalBuild": false, "PidsLimit": true }));
    for field in ["ID", "Name", "ServerVersion", "OperatingSystem", "KernelVersion", "DockerRootDir", "Driver", "SystemTime"] {
        assert!(shown[field].as_str().is_some_and(|t| !t.is_empty()), "{field}: {}", shown[field]);
    }
    for field in ["NCPU", "MemTotal", "Images"] {
        assert!(shown[field].as_u64().is_some_and(|n| n > 0), "{field}: {}", shown[field]);
    }
    for (kind, driver) in [("Volume", "local"), ("Network", "bridge"), ("Log", "json-file")] {
        assert!(shown["Plugins"][kind].as_array().is_some_and(|p| p.contains(&driver.into())), "{kind}: {}", shown["Plugins"]);
    }
}

/// Others may come and go meanwhile, so only what must hold of any one answer is asked for.
fn info_counts(s: &Subject) {
    s.create("made", json!({}));
    s.start("runs", json!({}));
    let paused = s.start("paused", json!({}));
    s.act(&paused, "pause").empty(204);
    let shown = s.get("/info").ok(200);
    let count = |field: &str| shown[field].as_u64().unwrap_or_default();
    assert_eq!(count("Containers"), count("ContainersRunning") + count("ContainersPaused") + count("ContainersStopped"), "{shown}");
    assert!(count("ContainersRunning") >= 1 && count("ContainersPaused") >= 1 && count("ContainersStopped") >= 1, "{shown}");
}

fn versioned_paths(s: &Subject) {
    for path in ["/version", "/v1.24/version", "/v1.41/version"] {
        assert_eq!(s.raw("GET", path, None).ok(200)["ApiVersion"], "1.41");
    }
    let list = |path: &str| matches!(s.raw("GET", path, None).ok(200), Value::Array(_));
    assert!(list("/containers/json") && list("/v1.41/containers/json"));
}

fn unknown_paths(s: &Subject) {
    for (method, path) in [("GET", "/nonsense"), ("GET", "/v1.41/nonsense"), ("GET", "/v1.41/containers"), ("DELETE", "/v1.41/info")] {
        s.raw(method, path, None).refused(404, "page not found");
    }
}

fn too_new(s: &Subject) {
    let reply = s.raw("GET", "/v1.99/version", None);
    reply.refused(400, "client version 1.99 is too new. Maximum supported API version is 1.41");
    assert_eq!(reply.header("api-version").as_deref(), Some("1.41"));
}

/// A client this old gets plain text.
fn too_old(s: &Subject) {
    let reply = s.raw("GET", "/v1.11/version", None);
    reply.ok(400);
    let text = "client version 1.11 is too old. Minimum supported API version is 1.12, please upgrade your client to a newer version";
    assert_eq!(reply.text().trim_end(), text);
    assert_eq!(reply.header("content-type").as_deref(), Some("text/plain; charset=utf-8"));
}

fn broken_bodies(s: &Subject) {
    let path = format!("/containers/create?name={}", s.name("a"));
    s.send_text(&path, "{\"Image\":\"x").refused(500, "unexpected EOF");
    s.post(&path).refused(500, "EOF");
    s.send_text(&path, "{}").refused(400, "Config cannot be empty in order to create a container");
}
