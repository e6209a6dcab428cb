//! The engine about itself.

use serde_json::{Value, json};

use super::Engine;
use super::container::Phase;
use super::reply::{Failure, Reply, Request};
use super::time;
use crate::Now;

pub(crate) const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
                                     node to swarm and try again.";

impl Engine {
    pub(crate) fn version_json(&self) -> Value {
        let options = &self.options;
        let api = |(major, minor): (u32, u32)| format!("{major}.{minor}");
        let built = "2026-05-07T21:09:36.000000000+00:00";
        json!({
            "Platform": { "Name": "" },
            "Components": [{
                "Name": "Engine",
                "Version": options.version,
                "Details": {
                    "ApiVersion": api(options.max_api), "Arch": "amd64", "BuildTime": built, "Experimental": "false",
                    "GitCommit": "dockersim", "GoVersion": "go1.19.8", "KernelVersion": "6.1.0-dockersim",
                    "MinAPIVersion": api(options.min_api), "Os": "linux",
                },
            }],
            "Version": options.version,
            "ApiVersion": api(options.max_api),
            "MinAPIVersion": api(options.min_api),
            "GitCommit": "dockersim",
            "GoVersion": "go1.19.8",
            "Os": "linux",
            "Arch": "amd64",
            "KernelVersion": "6.1.0-dockersim",
            "BuildTime": built,
        })
    }

    pub(crate) fn info(&self, now: Now) -> Value {
        let count = |phases: &[Phase]| self.containers.values().filter(|c| phases.contains(&c.phase)).count();
        let options = &self.options;
        let runtime = json!({ "path": "runc" });
        json!({
            "ID": self.id,
            "Containers": self.containers.len(),
            "ContainersRunning": count(&[Phase::Running, Phase::Restarting]),
            "ContainersPaused": count(&[Phase::Paused]),
            "ContainersStopped": count(&[Phase::Created, Phase::Starting, Phase::Exited]),
            "Images": self.images.len(),
            "Driver": "overlay2",
            "DriverStatus": [["Backing Filesystem", "extfs"], ["Supports d_type", "true"], ["Native Overlay Diff", "true"], ["userxattr", "false"]],
            "Plugins": {
                "Volume": ["local"], "Network": ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"], "Authorization": null,
                "Log": ["awslogs", "fluentd", "gcplogs", "gelf", "journald", "json-file", "local", "logentries", "splunk", "syslog"],
            },
            "MemoryLimit": true, "SwapLimit": true, "KernelMemory": true, "KernelMemoryTCP": true, "CpuCfsPeriod": true,
            "CpuCfsQuota": true, "CPUShares": true, "CPUSet": true, "PidsLimit": true, "IPv4Forwarding": true,
            "BridgeNfIptables": true, "BridgeNfIp6tables": true, "Debug": false, "NFd": 26, "OomKillDisable": true, "NGoroutines": 39,
            "SystemTime": time::nano(now.wall_ns),
            "LoggingDriver": options.logging_driver,
            "CgroupDriver": "cgroupfs", "CgroupVersion": "1", "NEventsListener": 0, "KernelVersion": "6.1.0-dockersim",
            "OperatingSystem": "dockersim", "OSVersion": "1", "OSType": "linux", "Architecture": "x86_64",
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {
                "AllowNondistributableArtifactsCIDRs": [], "AllowNondistributableArtifactsHostnames": [],
                "InsecureRegistryCIDRs": ["127.0.0.0/8"],
                "IndexConfigs": { "docker.io": { "Name": "docker.io", "Mirrors": [], "Secure": true, "Official": true } }, "Mirrors": [],
            },
            "NCPU": options.world.cpus,
            "MemTotal": options.world.memory_bytes,
            "GenericResources": null, "DockerRootDir": "/var/lib/docker", "HttpProxy": "", "HttpsProxy": "", "NoProxy": "",
            "Name": "vm", "Labels": [], "ExperimentalBuild": false, "ServerVersion": options.version,
            "Runtimes": { "io.containerd.runc.v2": runtime, "io.containerd.runtime.v1.linux": runtime, "runc": runtime },
            "DefaultRuntime": "runc",
            "Swarm": { "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null },
            "LiveRestoreEnabled": options.live_restore,
            "Isolation": "", "InitBinary": "docker-init",
            "ContainerdCommit": { "ID": "dockersim", "Expected": "dockersim" },
            "RuncCommit": { "ID": "dockersim", "Expected": "dockersim" },
            "InitCommit": { "ID": "", "Expected": "" },
            "SecurityOptions": ["name=seccomp,profile=default"],
            "Warnings": null,
        })
    }

    pub(crate) fn disk_usage(&self, now: Now) -> Value {
        let images: Vec<Value> = self
            .images
            .values()
            .map(|i| {
                let users = self.containers.values().filter(|c| c.image_id == i.id).count();
                json!({
                    "Containers": users, "Created": i.created_ns.div_euclid(1_000_000_000), "Id": &*i.id, "Labels": null, "ParentId": "",
                    "RepoDigests": null, "RepoTags": i.references, "SharedSize": 0, "Size": i.spec.size, "VirtualSize": i.spec.size,
                })
            })
            .collect();
        let volumes: Vec<Value> = self
            .volumes
            .values()
            .map(|v| {
                let mut row = v.json();
                row["UsageData"] = json!({ "RefCount": v.users.len(), "Size": 0 });
                row
            })
            .collect();
        json!({
            "LayersSize": self.images.values().map(|i| i.spec.size).sum::<u64>(),
            "Images": images,
            "Containers": self.ages.values().rev().filter_map(|id| self.containers.get(id)).map(|c| self.row(c, true, now)).collect::<Vec<_>>(),
            "Volumes": volumes,
            "BuildCache": [],
            "BuilderSize": 0,
        })
    }

    pub(crate) fn auth(&self, request: &Request) -> Result<Reply, Failure> {
        request.json()?;
        let server = "registry-1.docker.io";
        Err(Failure::new(500, format!("Get \"https://{server}/v2/\": dial tcp: lookup {server}: no such host")))
    }

    /// What a registry would say of an image.
    pub(crate) fn distribution(&self, reference: &str) -> Result<Reply, Failure> {
        let normal = super::image::normal_reference(reference);
        let world = &self.options.world;
        match world.images.iter().find(|(name, _)| super::image::normal_reference(name) == normal) {
            Some((_, spec)) if spec.presence == crate::behaviour::Presence::Remote => {
                let id = self.references.get(&normal).map_or_else(|| format!("sha256:{:064x}", spec.size), |id| id.to_string());
                Ok(Reply::ok(json!({
                    "Descriptor": { "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "digest": id, "size": 527 },
                    "Platforms": [{ "architecture": "amd64", "os": "linux" }],
                })))
            }
            _ => {
                let server = "registry-1.docker.io";
                Err(Failure::new(500, format!("Get \"https://{server}/v2/\": dial tcp: lookup {server}: no such host")))
            }
        }
    }
}
