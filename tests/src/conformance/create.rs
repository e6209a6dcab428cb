//! Making containers: what is shown back, what the engine adds, what it refuses.

use serde_json::{Value, json};

use super::Case;
use super::subject::{IMAGE, Subject, has, is_id, keys, merge, text};

pub(super) const CASES: &[Case] = &[
    ("create-defaults", defaults),
    ("create-host-defaults", host_defaults),
    ("create-settings", settings),
    ("create-host-settings", host_settings),
    ("create-mounts", mounts),
    ("create-nameless", nameless),
    ("create-conflict", conflict),
    ("create-bad-names", bad_names),
    ("create-no-image", no_image),
    ("create-refused", refused),
    ("create-refused-mounts", refused_mounts),
    ("create-ports", ports),
    ("create-image-by-id", image_by_id),
    ("running-shown", running_shown),
];

fn defaults(s: &Subject) {
    let made = s.try_create("a", json!({})).ok(201);
    assert_eq!(keys(&made), ["Id", "Warnings"]);
    assert_eq!(made["Warnings"], json!([]));
    let id = text(&made["Id"]);
    assert!(is_id(&id));
    let shown = s.inspect(&id);
    let fresh = json!({
        "Status": "created", "Running": false, "Paused": false, "Restarting": false, "OOMKilled": false, "Dead": false, "Pid": 0,
        "ExitCode": 0, "Error": "", "StartedAt": "0001-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z",
    });
    assert_eq!(shown["State"], fresh);
    let around = json!({
        "Id": id, "Name": format!("/{}", s.name("a")), "Path": "sleep", "Args": ["1000"], "RestartCount": 0, "Platform": "linux",
        "ExecIDs": null, "Mounts": [], "ResolvConfPath": "", "LogPath": "",
    });
    has(&shown, &around);
    let image = s.get(&format!("/images/{IMAGE}/json")).ok(200);
    assert_eq!(shown["Image"], image["Id"]);
    let config = json!({
        "Hostname": id[..12], "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
        "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": ["sleep", "1000"], "Image": IMAGE, "Volumes": null,
        "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": {},
    });
    assert_eq!(shown["Config"], config);
    let network = json!({
        "IPAMConfig": null, "Links": null, "Aliases": null, "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "",
        "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "MacAddress": "", "DriverOpts": null,
    });
    let settings = json!({
        "Bridge": "", "SandboxID": "", "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0, "Ports": {},
        "SandboxKey": "", "SecondaryIPAddresses": null, "SecondaryIPv6Addresses": null, "EndpointID": "", "Gateway": "",
        "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "MacAddress": "",
        "Networks": { "none": network },
    });
    assert_eq!(shown["NetworkSettings"], settings);
}

fn host_defaults(s: &Subject) {
    let id = s.create("a", json!({}));
    let mut shown = s.inspect(&id)["HostConfig"].take();
    // It depends on the machine's cgroups.
    shown.as_object_mut().and_then(|o| o.remove("CgroupnsMode")).expect("CgroupnsMode is there");
    let mut wanted = json!({
        "Binds": null, "ContainerIDFile": "", "LogConfig": { "Type": "json-file", "Config": {} }, "NetworkMode": "none",
        "PortBindings": null, "RestartPolicy": { "Name": "", "MaximumRetryCount": 0 }, "AutoRemove": false, "VolumeDriver": "",
        "VolumesFrom": null, "CapAdd": null, "CapDrop": null, "Dns": null, "DnsOptions": null, "DnsSearch": null, "ExtraHosts": null,
        "GroupAdd": null, "IpcMode": "private", "Cgroup": "", "Links": null, "OomScoreAdj": 0, "PidMode": "", "Privileged": false,
        "PublishAllPorts": false, "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "", "ShmSize": 67_108_864,
    });
    let resources = json!({
        "Runtime": "runc", "ConsoleSize": [0, 0], "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "",
        "BlkioWeight": 0, "BlkioWeightDevice": null, "BlkioDeviceReadBps": null, "BlkioDeviceWriteBps": null,
        "BlkioDeviceReadIOps": null, "BlkioDeviceWriteIOps": null, "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": null, "DeviceCgroupRules": null,
        "DeviceRequests": null, "KernelMemory": 0, "KernelMemoryTCP": 0, "MemoryReservation": 0, "MemorySwap": 0,
    });
    let rest = json!({
        "MemorySwappiness": null, "OomKillDisable": false, "PidsLimit": null, "Ulimits": null, "CpuCount": 0, "CpuPercent": 0,
        "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "Init": true,
        "MaskedPaths": [
            "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
            "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
        ],
        "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    });
    merge(&mut wanted, resources);
    merge(&mut wanted, rest);
    assert_eq!(shown, wanted);
}

/// All that Quaymaster sends beside the host's part.
fn settings(s: &Subject) {
    let patch = json!({
        "Entrypoint": ["sh", "-c"], "Cmd": ["sleep 1000"], "Env": ["A=1", "B=x y", "EMPTY="], "User": "0:0", "WorkingDir": "/tmp",
        "Labels": { "a": "b", "quaymaster.dev/x": "" }, "ExposedPorts": { "8080/tcp": {} }, "StopSignal": "SIGINT", "StopTimeout": 3,
        "Hostname": "host", "Domainname": "example.org",
        "Healthcheck": { "Test": ["CMD", "true"], "Interval": 1_000_000_000, "Timeout": 2_000_000_000, "StartPeriod": 3_000_000_000_i64, "Retries": 4 },
    });
    let shown = s.inspect(&s.create("a", patch.clone()));
    has(&shown["Config"], &patch);
    has(&shown, &json!({ "Path": "sh", "Args": ["-c", "sleep 1000"] }));
    assert_eq!(shown["Config"]["Labels"], patch["Labels"]);
}

/// All that Quaymaster sends in the host's part.
fn host_settings(s: &Subject) {
    let host = json!({
        "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 5 }, "NanoCpus": 500_000_000, "Memory": 67_108_864,
        "MemoryReservation": 33_554_432, "PidsLimit": 100, "CpuShares": 512, "CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"],
        "ReadonlyRootfs": true, "ExtraHosts": ["db:10.0.0.1"], "Dns": ["10.0.0.2"], "Sysctls": { "net.core.somaxconn": "100" },
        "Ulimits": [{ "Name": "nofile", "Soft": 1024, "Hard": 2048 }],
        "LogConfig": { "Type": "json-file", "Config": { "max-size": "1m" } },
    });
    let shown = s.inspect(&s.create("a", json!({ "HostConfig": host.clone() })));
    has(&shown["HostConfig"], &json!({ "MemorySwap": 134_217_728, "DnsOptions": null }));
    has(&shown["HostConfig"], &host);
}

fn mounts(s: &Subject) {
    let data = s.name("data");
    let asked = json!([
        { "Type": "volume", "Source": data, "Target": "/data", "ReadOnly": true },
        { "Type": "tmpfs", "Target": "/scratch", "TmpfsOptions": { "SizeBytes": 1_048_576, "Mode": 448 } },
        { "Type": "bind", "Source": "/etc", "Target": "/host" },
        { "Type": "volume", "Target": "/nameless" },
    ]);
    let binds = json!([format!("{}:/bound:ro", s.name("bound")), "/etc:/etc2"]);
    let id = s.create(
        "a",
        json!({ "Volumes": { "/declared": {} }, "HostConfig": { "Mounts": asked, "Binds": binds, "Tmpfs": { "/t": "size=1m" } } }),
    );
    let shown = s.inspect(&id);
    assert_eq!(shown["HostConfig"]["Mounts"], asked);
    assert_eq!(shown["HostConfig"]["Binds"], binds);
    assert_eq!(shown["HostConfig"]["Tmpfs"], json!({ "/t": "size=1m" }));
    assert_eq!(shown["Config"]["Volumes"], json!({ "/declared": {} }));
    let at = |target: &str| {
        let all = shown["Mounts"].as_array().into_iter().flatten();
        all.clone().find(|m| m["Destination"] == target).unwrap_or_else(|| panic!("{target} is not there: {}", shown["Mounts"])).clone()
    };
    assert_eq!(shown["Mounts"].as_array().map(Vec::len), Some(7));
    let volume = at("/data");
    has(&volume, &json!({ "Type": "volume", "Name": data, "Driver": "local", "Mode": "z", "RW": false, "Propagation": "" }));
    assert!(text(&volume["Source"]).ends_with(&format!("/volumes/{data}/_data")), "{volume}");
    let bound = json!({ "Type": "volume", "Name": s.name("bound"), "Driver": "local", "Mode": "ro", "RW": false, "Propagation": "" });
    has(&at("/bound"), &bound);
    let tmpfs = json!({ "Type": "tmpfs", "Source": "", "Destination": "/scratch", "Mode": "", "RW": true, "Propagation": "" });
    assert_eq!(at("/scratch"), tmpfs);
    let host = json!({ "Type": "bind", "Source": "/etc", "Destination": "/host", "Mode": "", "RW": true, "Propagation": "rprivate" });
    assert_eq!(at("/host"), host);
    assert_eq!(at("/etc2")["Type"], "bind");
    for (target, mode) in [("/declared", ""), ("/nameless", "z")] {
        let mount = at(target);
        assert!(is_id(&text(&mount["Name"])), "{mount}");
        has(&mount, &json!({ "Type": "volume", "Driver": "local", "Mode": mode, "RW": true, "Propagation": "" }));
    }
    // The volumes that it names are made with it.
    s.get(&format!("/volumes/{data}")).ok(200);
    s.get(&format!("/volumes/{}", s.name("bound"))).ok(200);
}

fn nameless(s: &Subject) {
    let made = s.send("/containers/create", &s.body(json!({}))).ok(201);
    let id = text(&made["Id"]);
    let name = text(&s.inspect(&id)["Name"]);
    s.delete(&format!("/containers/{id}")).empty(204);
    let words: Vec<&str> = name.trim_start_matches('/').split('_').collect();
    assert!(words.len() == 2 && words.iter().all(|w| !w.is_empty()), "{name}");
}

fn conflict(s: &Subject) {
    let id = s.create("a", json!({}));
    let again = s.try_create("a", json!({}));
    let message = format!(
        "Conflict. The container name \"/{}\" is already in use by container \"{id}\". You have to remove (or rename) that container \
         to be able to reuse that name.",
        s.name("a")
    );
    again.refused(409, &message);
    s.delete(&format!("/containers/{id}")).empty(204);
    s.create("a", json!({}));
}

fn bad_names(s: &Subject) {
    for (sent, name) in [("-bad", "-bad"), ("a", "a"), ("b%20c", "b c"), ("a%2Fb", "a/b")] {
        let reply = s.send(&format!("/containers/create?name={sent}"), &s.body(json!({})));
        reply.refused(400, &format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"));
    }
}

fn no_image(s: &Subject) {
    for (image, message) in [
        ("conf-nonesuch:1", "No such image: conf-nonesuch:1"),
        ("conf-nonesuch", "No such image: conf-nonesuch:latest"),
        ("example.org/conf/nonesuch:2", "No such image: example.org/conf/nonesuch:2"),
    ] {
        s.try_create("a", json!({ "Image": image })).refused(404, message);
    }
    s.get(&format!("/containers/{}/json", s.name("a"))).ok(404);
}

fn refused(s: &Subject) {
    let cpus = s.get("/info").ok(200)["NCPU"].as_u64().unwrap_or_default();
    let range = format!("Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available");
    let host = |patch: Value, message: &str| s.try_create("a", json!({ "HostConfig": patch })).refused(400, message);
    host(json!({ "Memory": 1000 }), "Minimum memory limit allowed is 6MB");
    let swap = "Minimum memoryswap limit should be larger than memory limit, see usage";
    host(json!({ "Memory": 10_000_000, "MemorySwap": 5_000_000 }), swap);
    host(json!({ "NanoCpus": 1_000_000_000_000_i64 }), &range);
    host(json!({ "RestartPolicy": { "Name": "sometimes" } }), "invalid restart policy 'sometimes'");
    let count = "maximum retry count cannot be used with restart policy 'always'";
    host(json!({ "RestartPolicy": { "Name": "always", "MaximumRetryCount": 3 } }), count);
    let auto = "can't create 'AutoRemove' container with restart policy";
    host(json!({ "AutoRemove": true, "RestartPolicy": { "Name": "always" } }), auto);
    host(json!({ "PortBindings": { "80/tcp": [{ "HostPort": "999999" }] } }), "invalid port specification: \"999999\"");
    host(json!({ "CapAdd": ["NOPE"] }), "invalid CapAdd: unknown capability: \"CAP_NOPE\"");
    host(json!({ "ExtraHosts": ["nope"] }), "bad format for add-host: \"nope\"");
    let config = |patch: Value, message: &str| s.try_create("a", patch).refused(400, message);
    config(json!({ "StopSignal": "SIGNOPE" }), "Invalid signal: SIGNOPE");
    config(json!({ "Env": ["=x"] }), "invalid environment variable: =x");
    config(json!({ "WorkingDir": "rel" }), "the working directory 'rel' is invalid, it needs to be an absolute path");
    let interval = "Interval in Healthcheck cannot be less than 1ms";
    config(json!({ "Healthcheck": { "Test": ["CMD", "true"], "Interval": 100 } }), interval);
}

fn refused_mounts(s: &Subject) {
    let mounts = |mounts: Value, message: &str| s.try_create("a", json!({ "HostConfig": { "Mounts": mounts } })).refused(400, message);
    let missing = "invalid mount config for type \"bind\": bind source path does not exist: /nonexistent-conf";
    mounts(json!([{ "Type": "bind", "Source": "/nonexistent-conf", "Target": "/host" }]), missing);
    let relative = "invalid mount config for type \"volume\": invalid mount path: 'rel' mount path must be absolute";
    mounts(json!([{ "Type": "volume", "Source": s.name("v"), "Target": "rel" }]), relative);
    let same = json!({ "Type": "volume", "Source": s.name("v"), "Target": "/x" });
    mounts(json!([same, same]), "Duplicate mount point: /x");
}

fn ports(s: &Subject) {
    s.network("n", json!({}));
    let bindings = json!({ "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "" }] });
    let id = s.start(
        "a",
        json!({ "ExposedPorts": { "80/tcp": {}, "81/udp": {} }, "HostConfig": { "NetworkMode": s.name("n"), "PortBindings": bindings } }),
    );
    let shown = s.inspect(&id);
    assert_eq!(shown["HostConfig"]["PortBindings"], bindings);
    let given = shown["NetworkSettings"]["Ports"]["80/tcp"][0].clone();
    assert_eq!(given["HostIp"], "127.0.0.1");
    let port: u16 = text(&given["HostPort"]).parse().expect("a port is a number");
    assert!(port > 0);
    assert_eq!(shown["NetworkSettings"]["Ports"]["81/udp"], Value::Null);
    let list = s.filtered("/containers/json", &json!({ "id": [id] })).ok(200);
    let all = list[0]["Ports"].as_array().cloned().unwrap_or_default();
    let published = json!({ "IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": port, "Type": "tcp" });
    assert!(all.contains(&published) && all.contains(&json!({ "PrivatePort": 81, "Type": "udp" })), "{list}");
    // Stopped, it has none.
    s.act(&id, "kill").empty(204);
    s.until_state(&id, "exited");
    assert_eq!(s.inspect(&id)["NetworkSettings"]["Ports"], json!({}));
}

fn image_by_id(s: &Subject) {
    let image = text(&s.get(&format!("/images/{IMAGE}/json")).ok(200)["Id"]);
    let shown = s.inspect(&s.create("a", json!({ "Image": image })));
    assert_eq!((&shown["Image"], &shown["Config"]["Image"]), (&json!(image), &json!(image)));
    let list = s.filtered("/containers/json?all=1", &json!({ "name": [s.name("a")] })).ok(200);
    assert_eq!(list[0]["Image"], json!(image));
    let short = &image["sha256:".len()..][..12];
    let shown = s.inspect(&s.create("b", json!({ "Image": short })));
    assert_eq!((&shown["Image"], &shown["Config"]["Image"]), (&json!(image), &json!(short)));
}

fn running_shown(s: &Subject) {
    let id = s.start("a", json!({}));
    let shown = s.inspect(&id);
    has(
        &shown["State"],
        &json!({ "Status": "running", "Running": true, "Paused": false, "Restarting": false, "Dead": false, "ExitCode": 0 }),
    );
    assert!(shown["State"]["Pid"].as_u64().is_some_and(|p| p > 0));
    assert_ne!(shown["State"]["StartedAt"], "0001-01-01T00:00:00Z");
    assert_eq!(shown["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
    for (field, end) in [("ResolvConfPath", "resolv.conf"), ("HostnamePath", "hostname"), ("HostsPath", "hosts")] {
        assert!(text(&shown[field]).ends_with(&format!("/containers/{id}/{end}")), "{field}: {}", shown[field]);
    }
    assert!(text(&shown["LogPath"]).ends_with(&format!("/containers/{id}/{id}-json.log")));
    assert!(is_id(&text(&shown["NetworkSettings"]["SandboxID"])));
    let none = &shown["NetworkSettings"]["Networks"]["none"];
    assert!(is_id(&text(&none["EndpointID"])) && is_id(&text(&none["NetworkID"])), "{none}");
}
