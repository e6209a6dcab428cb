//! The engine about itself.

use serde_json::{Value, json};

use super::container::Phase;
use super::event::EventFilter;
use super::reply::{EventFeed, Failure, Reply, Request, Stream};
use super::{Engine, time};
use crate::Now;

/// What it says of its version; the suffix tells it from a real one.
pub(crate) const VERSION: &str = "20.10.24+dockersim";

pub(super) fn no_swarm(_: &[&str]) -> Failure {
    Failure::new(
        503,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
    )
}

impl Engine {
    pub(super) fn system(&mut self, request: &Request, parts: &[&str], now: Now) -> Result<Reply, Failure> {
        match (request.method.as_str(), parts) {
            ("GET" | "HEAD", ["_ping"]) => {
                let headers = vec![("Cache-Control", "no-cache, no-store, must-revalidate".to_owned()), ("Pragma", "no-cache".to_owned())];
                let body = if request.method == "GET" { b"OK".to_vec() } else { Vec::new() };
                Ok(Reply::Bytes { status: 200, content_type: "text/plain; charset=utf-8", headers, body })
            }
            ("GET", ["version"]) => Ok(Reply::ok(self.version())),
            ("GET", ["info"]) => Ok(Reply::ok(self.info(now))),
            ("GET", ["events"]) => self.events_request(request, now),
            ("GET", ["system", "df"]) => Ok(Reply::ok(json!({
                "LayersSize": self.images.values().map(|i| i.spec.size).sum::<u64>(), "Images": [], "Containers": [], "Volumes": [],
                "BuildCache": null, "BuilderSize": 0,
            }))),
            ("GET", ["plugins"]) => Ok(Reply::ok(json!([]))),
            ("POST", ["auth"]) => {
                Err(Failure::new(500, "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host"))
            }
            ("GET", ["distribution", ..]) => {
                Err(Failure::new(500, "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host"))
            }
            ("GET" | "POST", ["session"]) => Err(Failure::new(404, "page not found")),
            _ => Err(Failure::new(501, "dockersim does not serve this")),
        }
    }

    fn api(version: (u32, u32)) -> String {
        format!("{}.{}", version.0, version.1)
    }

    fn version(&self) -> Value {
        let (newest, oldest) = (Self::api(self.options.max_api), Self::api(self.options.min_api));
        json!({
            "Platform": { "Name": "" },
            "Components": [{ "Name": "Engine", "Version": VERSION, "Details": {
                "ApiVersion": newest, "Arch": "amd64", "BuildTime": "2026-01-01T00:00:00.000000000+00:00", "Experimental": "false",
                "GitCommit": "dockersim", "GoVersion": "none", "KernelVersion": "simulated", "MinAPIVersion": oldest, "Os": "linux",
            } }],
            "Version": VERSION, "ApiVersion": newest, "MinAPIVersion": oldest, "GitCommit": "dockersim", "GoVersion": "none",
            "Os": "linux", "Arch": "amd64", "KernelVersion": "simulated", "BuildTime": "2026-01-01T00:00:00.000000000+00:00",
        })
    }

    fn info(&self, now: Now) -> Value {
        let count = |fits: &dyn Fn(Phase) -> bool| self.containers.values().filter(|c| fits(c.phase)).count();
        json!({
            "ID": self.id, "Containers": self.containers.len(), "ContainersRunning": count(&|p| p == Phase::Running || p == Phase::Restarting),
            "ContainersPaused": count(&|p| p == Phase::Paused), "ContainersStopped": count(&|p| matches!(p, Phase::Created | Phase::Exited)),
            "Images": self.images.len(), "Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "simulated"]],
            "Plugins": { "Volume": ["local"], "Network": ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"], "Authorization": null,
                         "Log": ["json-file", "local", "none"] },
            "MemoryLimit": true, "SwapLimit": true, "KernelMemory": true, "KernelMemoryTCP": true, "CpuCfsPeriod": true, "CpuCfsQuota": true,
            "CPUShares": true, "CPUSet": true, "PidsLimit": true, "IPv4Forwarding": true, "BridgeNfIptables": true, "BridgeNfIp6tables": true,
            "Debug": false, "NFd": 0, "OomKillDisable": true, "NGoroutines": 0, "SystemTime": time::nano(now.wall_ns),
            "LoggingDriver": "json-file", "CgroupDriver": "cgroupfs", "CgroupVersion": "1", "NEventsListener": 0,
            "KernelVersion": "simulated", "OperatingSystem": "dockersim", "OSVersion": "1", "OSType": "linux", "Architecture": "x86_64",
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": { "AllowNondistributableArtifactsCIDRs": [], "AllowNondistributableArtifactsHostnames": [],
                                "InsecureRegistryCIDRs": ["127.0.0.0/8"],
                                "IndexConfigs": { "docker.io": { "Name": "docker.io", "Mirrors": [], "Secure": true, "Official": true } },
                                "Mirrors": [] },
            "NCPU": self.world.cpus, "MemTotal": self.world.memory_bytes, "GenericResources": null, "DockerRootDir": "/var/lib/docker",
            "HttpProxy": "", "HttpsProxy": "", "NoProxy": "", "Name": "dockersim", "Labels": [], "ExperimentalBuild": false,
            "ServerVersion": VERSION, "Runtimes": { "runc": { "path": "runc" } }, "DefaultRuntime": "runc",
            "Swarm": { "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null },
            "LiveRestoreEnabled": false, "Isolation": "", "InitBinary": "docker-init", "ContainerdCommit": { "ID": "", "Expected": "" },
            "RuncCommit": { "ID": "", "Expected": "" }, "InitCommit": { "ID": "", "Expected": "" },
            "SecurityOptions": ["name=seccomp,profile=default"], "Warnings": null,
        })
    }

    fn events_request(&self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let instant = |key: &str| -> Result<Option<i64>, Failure> {
            let Some(text) = request.get(key).filter(|t| !t.is_empty()) else { return Ok(None) };
            let bad = || Failure::new(500, format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"));
            time::parse(text).map(Some).ok_or_else(bad)
        };
        let (since, until) = (instant("since")?, instant("until")?);
        if let (Some(since), Some(until)) = (since, until)
            && until < since
        {
            return Err(Failure::new(400, "`since` time cannot be after `until` time"));
        }
        let next = match since {
            Some(ns) => self.events.replay_from(ns),
            None if until.is_some_and(|u| u <= now.wall_ns) => self.events.replay_from(0),
            None => self.events.last(),
        };
        Ok(Reply::Stream(Stream::Events(EventFeed { next, filter: EventFilter::parse(request.get("filters"))?, until })))
    }
}
