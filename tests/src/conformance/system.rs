//! Version, info, ping, and what paths mean.

use serde_json::{Value, json};

use super::subject::{Subject, has};
use super::{Area, Case};

pub(super) const CASES: &[Case] = &[
    Case { area: Area::System, name: "ping", run: ping },
    Case { area: Area::System, name: "version", run: version },
    Case { area: Area::System, name: "info", run: info },
    Case { area: Area::System, name: "paths-have-versions", run: paths_have_versions },
    Case { area: Area::System, name: "unknown-paths", run: unknown_paths },
    Case { area: Area::System, name: "bad-filters", run: bad_filters },
];

fn ping(s: &Subject) {
    for (method, body) in [("GET", "OK"), ("HEAD", "")] {
        for path in ["/_ping", "/v1.41/_ping", "/v1.24/_ping"] {
            let reply = s.raw(method, path, None);
            reply.ok(200);
            assert_eq!(reply.text(), body);
            // Clients negotiate their version with these.
            assert_eq!(reply.header("api-version").as_deref(), Some("1.41"));
            assert_eq!(reply.header("ostype").as_deref(), Some("linux"));
            assert_eq!(reply.header("docker-experimental").as_deref(), Some("false"));
            assert_eq!(reply.header("cache-control").as_deref(), Some("no-cache, no-store, must-revalidate"));
            assert_eq!(reply.header("pragma").as_deref(), Some("no-cache"));
            assert!(reply.header("server").is_some_and(|s| s.starts_with("docker/20.10.24") && s.ends_with("(linux)")));
            assert_eq!(reply.header("content-type").as_deref(), Some("text/plain; charset=utf-8"));
        }
    }
}

fn version(s: &Subject) {
    let reply = s.get("/version");
    let version = reply.ok(200);
    assert_eq!(reply.header("content-type").as_deref(), Some("application/json"));
    assert_eq!(reply.header("api-version").as_deref(), Some("1.41"));
    has(&version, &json!({ "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64" }));
    assert!(version["Version"].as_str().is_some_and(|v| v.starts_with("20.10.24")), "{version}");
    has(&version["Components"][0], &json!({ "Name": "Engine", "Version": version["Version"], "Details": { "ApiVersion": "1.41" } }));
}

fn info(s: &Subject) {
    let before = s.get("/info").ok(200);
    has(&before, &json!({ "OSType": "linux", "Architecture": "x86_64", "LoggingDriver": "json-file", "MemoryLimit": true, "Labels": [] }));
    has(&before, &json!({ "Swarm": { "LocalNodeState": "inactive" }, "LiveRestoreEnabled": false, "ExperimentalBuild": false }));
    for field in ["ID", "Name", "ServerVersion", "OperatingSystem", "KernelVersion", "DockerRootDir", "Driver", "SystemTime"] {
        assert!(before[field].as_str().is_some_and(|t| !t.is_empty()), "{field}: {}", before[field]);
    }
    for field in ["NCPU", "MemTotal", "Images"] {
        assert!(before[field].as_u64().is_some_and(|n| n > 0), "{field}: {}", before[field]);
    }
    let count = |info: &Value, field: &str| info[field].as_u64().unwrap_or_default();
    let sum = |info: &Value| ["ContainersRunning", "ContainersPaused", "ContainersStopped"].iter().map(|f| count(info, f)).sum::<u64>();
    assert_eq!(count(&before, "Containers"), sum(&before));
    s.create("a", json!({}));
    let after = s.get("/info").ok(200);
    assert_eq!(count(&after, "Containers"), sum(&after));
}

fn paths_have_versions(s: &Subject) {
    s.raw("GET", "/version", None).ok(200);
    s.raw("GET", "/v1.24/version", None).ok(200);
    s.raw("GET", "/v1.42/version", None).refused(400, "client version 1.42 is too new. Maximum supported API version is 1.41");
    let old = s.raw("GET", "/v1.11/version", None);
    old.ok(400);
    let text = old.text();
    let wanted = "client version 1.11 is too old. Minimum supported API version is 1.12, please upgrade your client to a newer version";
    assert_eq!(text.trim_end(), wanted);
}

fn unknown_paths(s: &Subject) {
    s.get("/nonsense").refused(404, "page not found");
    s.raw("GET", "/nonsense", None).refused(404, "page not found");
    s.raw("GET", "/v1.41/", None).refused(404, "page not found");
    s.delete("/version").refused(404, "page not found");
    s.post("/containers/json").refused(404, "page not found");
}

fn bad_filters(s: &Subject) {
    s.get("/containers/json?filters=nonsense").refused(500, "invalid character 'o' in literal null (expecting 'u')");
    s.filtered("/containers/json", &json!({ "nonsense": ["x"] })).refused(400, "Invalid filter 'nonsense'");
    s.filtered("/containers/json", &json!({ "status": ["asleep"] })).refused(400, "Invalid filter 'status=asleep'");
    s.filtered("/networks", &json!({ "nonsense": ["x"] })).refused(400, "Invalid filter 'nonsense'");
    s.filtered("/volumes", &json!({ "nonsense": ["x"] })).refused(400, "Invalid filter 'nonsense'");
}
