//! Containers, first half: what a new one looks like, how it is found, renamed, changed and removed.

use serde_json::{Value, json};

use super::subject::{Subject, has, is_id, text};
use super::{Area, Case};

pub(super) const CASES: &[Case] = &[
    Case { area: Area::Containers, name: "create-minimal", run: create_minimal },
    Case { area: Area::Containers, name: "create-full", run: create_full },
    Case { area: Area::Containers, name: "create-mounts", run: create_mounts },
    Case { area: Area::Containers, name: "create-on-network", run: create_on_network },
    Case { area: Area::Containers, name: "create-refused", run: create_refused },
    Case { area: Area::Containers, name: "list", run: list },
    Case { area: Area::Containers, name: "list-filters", run: list_filters },
    Case { area: Area::Containers, name: "ids", run: ids },
    Case { area: Area::Containers, name: "rename", run: rename },
    Case { area: Area::Containers, name: "update", run: update },
    Case { area: Area::Containers, name: "remove", run: remove },
    Case { area: Area::Containers, name: "missing", run: missing },
];

/// The first instant of the year 1, by which the engine says "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

fn create_minimal(s: &Subject) {
    let name = s.name("a");
    let made = s.send(&format!("/containers/create?name={name}"), &json!({ "Image": "busybox:local", "Cmd": ["true"] }));
    let body = made.ok(201);
    assert_eq!(body["Warnings"], json!([]));
    let id = text(&body["Id"]);
    assert!(is_id(&id), "{id}");
    let shown = s.inspect(&id);
    has(
        &shown,
        &json!({
            "Id": id, "Name": format!("/{name}"), "Path": "true", "Args": [], "RestartCount": 0, "Driver": "overlay2", "Platform": "linux",
            "Image": s.get("/images/busybox:local/json").ok(200)["Id"], "Mounts": [], "ExecIDs": null, "LogPath": "",
            "State": {
                "Status": "created", "Running": false, "Paused": false, "Restarting": false, "OOMKilled": false, "Dead": false,
                "Pid": 0, "ExitCode": 0, "Error": "", "StartedAt": NEVER, "FinishedAt": NEVER,
            },
            "Config": {
                "Hostname": &id[..12], "User": "", "Cmd": ["true"], "Image": "busybox:local", "WorkingDir": "", "Entrypoint": null, "Labels": {}, "Tty": false,
            },
            "HostConfig": {
                "NetworkMode": "default", "RestartPolicy": { "Name": "", "MaximumRetryCount": 0 }, "AutoRemove": false, "Memory": 0,
                "MemorySwap": 0, "NanoCpus": 0, "PidsLimit": null, "CpuShares": 0, "ReadonlyRootfs": false, "CapAdd": null,
                "LogConfig": { "Type": "json-file", "Config": {} }, "ShmSize": 67_108_864, "PortBindings": null, "Privileged": false,
                "IpcMode": "private", "Binds": null,
            },
        }),
    );
    assert!(shown["HostConfig"].get("Init").is_none() && shown["HostConfig"].get("Mounts").is_none(), "{shown}");
    assert!(shown["State"].get("Health").is_none(), "{shown}");
    assert!(shown["Created"].as_str().is_some_and(|c| c.ends_with('Z') && c > "2020"), "{shown}");
}

fn create_full(s: &Subject) {
    let id = s.create(
        "a",
        json!({
            "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["sleep 1000"], "Env": ["A=1", "B=two words"], "User": "1000:1000",
            "WorkingDir": "/tmp", "Labels": { "b": "2", "a": "" }, "ExposedPorts": { "80/tcp": {}, "53/udp": {} },
            "StopSignal": "SIGINT", "StopTimeout": 7,
            "Healthcheck": { "Test": ["CMD-SHELL", "true"], "Interval": 1_000_000_000_i64, "Retries": 2 },
            "HostConfig": {
                "PortBindings": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "" }], "53/udp": [{ "HostIp": "", "HostPort": "5353" }] },
                "RestartPolicy": { "Name": "unless-stopped" }, "NanoCpus": 500_000_000, "Memory": 64 << 20, "MemoryReservation": 32 << 20,
                "PidsLimit": 50, "CpuShares": 512, "CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"], "ReadonlyRootfs": true, "Init": true,
                "ExtraHosts": ["db:10.0.0.1"], "Dns": ["10.0.0.2"], "Sysctls": { "net.core.somaxconn": "256" },
                "Ulimits": [{ "Name": "nofile", "Soft": 100, "Hard": 200 }],
                "LogConfig": { "Type": "local", "Config": { "max-size": "1m" } },
            },
        }),
    );
    has(
        &s.inspect(&id),
        &json!({
            "Path": "/bin/sh", "Args": ["-c", "sleep 1000"],
            "State": { "Status": "created" },
            "Config": {
                "Env": ["A=1", "B=two words"],
                "User": "1000:1000", "WorkingDir": "/tmp", "Labels": { "a": "", "b": "2" }, "StopSignal": "SIGINT", "StopTimeout": 7,
                "ExposedPorts": { "80/tcp": {}, "53/udp": {} }, "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["sleep 1000"],
                "Healthcheck": { "Test": ["CMD-SHELL", "true"], "Interval": 1_000_000_000_i64, "Retries": 2 },
            },
            "HostConfig": {
                "PortBindings": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "" }], "53/udp": [{ "HostIp": "", "HostPort": "5353" }] },
                "RestartPolicy": { "Name": "unless-stopped", "MaximumRetryCount": 0 }, "NanoCpus": 500_000_000, "Memory": 64 << 20,
                "MemorySwap": 128 << 20, "MemoryReservation": 32 << 20, "PidsLimit": 50, "CpuShares": 512, "CapAdd": ["NET_ADMIN"],
                "CapDrop": ["ALL"], "ReadonlyRootfs": true, "Init": true, "ExtraHosts": ["db:10.0.0.1"], "Dns": ["10.0.0.2"],
                "Sysctls": { "net.core.somaxconn": "256" }, "Ulimits": [{ "Name": "nofile", "Soft": 100, "Hard": 200 }],
                "LogConfig": { "Type": "local", "Config": { "max-size": "1m" } }, "NetworkMode": "none",
            },
        }),
    );
}

fn create_mounts(s: &Subject) {
    let volume = s.name("data");
    let id = s.create(
        "a",
        json!({
            "Volumes": { "/cache": {} },
            "HostConfig": { "Mounts": [
                { "Type": "volume", "Source": volume, "Target": "/data" },
                { "Type": "volume", "Target": "/nameless" },
                { "Type": "bind", "Source": "/usr", "Target": "/host", "ReadOnly": true },
                { "Type": "tmpfs", "Target": "/fast", "TmpfsOptions": { "SizeBytes": 1 << 20, "Mode": 0o700 } },
            ] },
        }),
    );
    let shown = s.inspect(&id);
    let at = |target: &str| {
        let mounts = shown["Mounts"].as_array().into_iter().flatten();
        mounts.clone().find(|m| m["Destination"] == target).cloned().unwrap_or_else(|| panic!("no {target} in {}", shown["Mounts"]))
    };
    has(&at("/data"), &json!({ "Type": "volume", "Name": volume, "Driver": "local", "Mode": "z", "RW": true, "Propagation": "" }));
    has(&at("/host"), &json!({ "Type": "bind", "Source": "/usr", "Mode": "", "RW": false, "Propagation": "rprivate" }));
    has(&at("/fast"), &json!({ "Type": "tmpfs", "Source": "", "Mode": "", "RW": true, "Propagation": "" }));
    assert_eq!(shown["Mounts"].as_array().map(Vec::len), Some(5));
    // The mounts come back as they were asked for, without the names that the engine gave.
    has(&shown["HostConfig"]["Mounts"][1], &json!({ "Type": "volume", "Target": "/nameless" }));
    has(&shown["HostConfig"]["Mounts"][3], &json!({ "TmpfsOptions": { "SizeBytes": 1 << 20, "Mode": 0o700 } }));
    for target in ["/cache", "/nameless"] {
        let mount = at(target);
        has(&mount, &json!({ "Type": "volume", "Driver": "local", "RW": true }));
        let name = text(&mount["Name"]);
        assert!(is_id(&name), "{name}");
        s.get(&format!("/volumes/{name}")).ok(200);
    }
    // Named volumes are made on the way, with no labels.
    has(&s.get(&format!("/volumes/{volume}")).ok(200), &json!({ "Name": volume, "Labels": null, "Scope": "local" }));
    let names: Vec<String> = ["/cache", "/nameless"].iter().map(|t| text(&at(t)["Name"])).collect();
    s.delete(&format!("/containers/{id}?v=1")).empty(204);
    for name in names {
        s.get(&format!("/volumes/{name}")).refused(404, &format!("get {name}: no such volume"));
    }
    s.get(&format!("/volumes/{volume}")).ok(200);
}

fn create_on_network(s: &Subject) {
    let network = s.name("net");
    let network_id = s.network("net", json!({ "IPAM": { "Config": [{ "Subnet": "10.251.1.0/24" }] } }));
    let endpoint = json!({ "Aliases": ["web", "www"], "IPAMConfig": { "IPv4Address": "10.251.1.77" } });
    let id = s.create(
        "a",
        json!({ "HostConfig": { "NetworkMode": network }, "NetworkingConfig": { "EndpointsConfig": { network.clone(): endpoint } } }),
    );
    let of = |shown: &Value| shown["NetworkSettings"]["Networks"][&network].clone();
    let short = &id[..12];
    // The alias with the short id comes with the start, as the address does; it stays.
    let created = of(&s.inspect(&id));
    has(
        &created,
        &json!({
            "IPAMConfig": { "IPv4Address": "10.251.1.77" }, "Aliases": ["web", "www"], "NetworkID": "", "EndpointID": "",
            "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "MacAddress": "", "Links": null, "DriverOpts": null,
        }),
    );
    s.post(&format!("/containers/{id}/start")).empty(204);
    let running = of(&s.inspect(&id));
    has(
        &running,
        &json!({
            "IPAMConfig": { "IPv4Address": "10.251.1.77" }, "Aliases": ["web", "www", short], "NetworkID": network_id,
            "Gateway": "10.251.1.1", "IPAddress": "10.251.1.77", "IPPrefixLen": 24, "MacAddress": "02:42:0a:fb:01:4d",
        }),
    );
    assert!(is_id(&text(&running["EndpointID"])), "{running}");
    s.post(&format!("/containers/{id}/stop?t=1")).empty(204);
    let stopped = of(&s.inspect(&id));
    has(
        &stopped,
        &json!({ "NetworkID": network_id, "EndpointID": "", "IPAddress": "", "Gateway": "", "IPPrefixLen": 0, "MacAddress": "" }),
    );
    has(&stopped, &json!({ "Aliases": ["web", "www", short], "IPAMConfig": { "IPv4Address": "10.251.1.77" } }));
}

fn create_refused(s: &Subject) {
    let id = s.create("a", json!({}));
    let name = s.name("a");
    let again = s.send(&format!("/containers/create?name={name}"), &s.body(json!({})));
    again.refused(
        409,
        &format!(
            "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". \
             You have to remove (or rename) that container to be able to reuse that name."
        ),
    );
    let create = |part: &str, patch: Value| s.send(&format!("/containers/create?name={}", s.name(part)), &s.body(patch));
    create("b", json!({ "Image": "nowhere/nothing:1" })).refused(404, "No such image: nowhere/nothing:1");
    create("b", json!({ "Image": "nothing" })).refused(404, "No such image: nothing:latest");
    create("b", json!({ "HostConfig": { "Memory": 1 << 20 } })).refused(400, "Minimum memory limit allowed is 6MB");
    create("b", json!({ "HostConfig": { "Mounts": [{ "Type": "bind", "Source": "/not/there", "Target": "/x" }] } }))
        .refused(400, "invalid mount config for type \"bind\": bind source path does not exist: /not/there");
    create("b", json!({ "HostConfig": { "RestartPolicy": { "Name": "sometimes" } } })).refused(400, "invalid restart policy 'sometimes'");
    create("b", json!({ "HostConfig": { "AutoRemove": true, "RestartPolicy": { "Name": "always" } } }))
        .refused(400, "can't create 'AutoRemove' container with restart policy");
    s.send("/containers/create?name=-x", &s.body(json!({})))
        .refused(400, "Invalid container name (-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
    // A network that is not there is missed at the start only.
    let lost = s.create("lost", json!({ "HostConfig": { "NetworkMode": s.name("no-net") } }));
    s.post(&format!("/containers/{lost}/start")).refused(404, &format!("network {} not found", s.name("no-net")));
    has(
        &s.inspect(&lost)["State"],
        &json!({ "Status": "created", "ExitCode": 128, "Error": format!("network {} not found", s.name("no-net")) }),
    );
}

fn list(s: &Subject) {
    let label = s.name("label");
    let made = s.create("made", json!({ "Labels": { label.clone(): "1", "other": "x" } }));
    let runs = s.start("runs", json!({ "Labels": { label.clone(): "2" } }));
    let filter = json!({ "label": [label] });
    let all = s.filtered("/containers/json?all=1", &filter).ok(200);
    // The newest comes first.
    has(
        &all,
        &json!([
            {
                "Id": runs, "Names": [format!("/{}", s.name("runs"))], "Image": "busybox:local", "State": "running",
                "Command": "sleep 1000", "Labels": { label.clone(): "2" }, "Ports": [], "HostConfig": { "NetworkMode": "none" }, "Mounts": [],
            },
            {
                "Id": made, "Names": [format!("/{}", s.name("made"))], "Image": "busybox:local", "State": "created", "Status": "Created",
                "ImageID": s.inspect(&made)["Image"], "Labels": { label: "1", "other": "x" },
            },
        ]),
    );
    assert!(all[0]["Created"].as_i64().is_some_and(|t| t > 1_600_000_000), "{all}");
    assert!(all[0]["Status"].as_str().is_some_and(|t| t.starts_with("Up ")), "{all}");
    assert_eq!(all[0]["NetworkSettings"]["Networks"].as_object().map(|n| n.keys().cloned().collect()), Some(vec!["none".to_owned()]));
    // Without `all` only what runs.
    has(&s.filtered("/containers/json", &filter).ok(200), &json!([{ "Id": runs }]));
    has(&s.filtered("/containers/json?all=1&limit=1", &filter).ok(200), &json!([{ "Id": runs }]));
    s.post(&format!("/containers/{runs}/kill")).empty(204);
    s.until_state(&runs, "exited");
    let all = s.filtered("/containers/json?all=1", &filter).ok(200);
    has(&all[0], &json!({ "Id": runs, "State": "exited" }));
    assert!(all[0]["Status"].as_str().is_some_and(|t| t.starts_with("Exited (137) ") && t.ends_with(" ago")), "{all}");
}

fn list_filters(s: &Subject) {
    let network = s.name("net");
    let network_id = s.network("net", json!({}));
    let a = s.create("a", json!({ "Labels": { "conf.role": "x", "conf.set": s.name("set") } }));
    let b = s.start("b", json!({ "Labels": { "conf.role": "y", "conf.set": s.name("set") }, "HostConfig": { "NetworkMode": network } }));
    let found = |filters: Value| -> Vec<String> {
        let list = s.filtered("/containers/json?all=1", &filters).ok(200);
        let mut names: Vec<String> = list.as_array().into_iter().flatten().map(|c| text(&c["Names"][0])).collect();
        names.sort();
        names.into_iter().map(|n| n.trim_start_matches(&format!("/{}", s.prefix())).to_owned()).collect()
    };
    let set = format!("conf.set={}", s.name("set"));
    assert_eq!(found(json!({ "label": [set] })), ["a", "b"]);
    // Several labels must all fit; a label without a value fits any.
    assert_eq!(found(json!({ "label": [set, "conf.role=x"] })), ["a"]);
    assert_eq!(found(json!({ "label": [set, "conf.role"] })), ["a", "b"]);
    assert!(found(json!({ "label": [set, "conf.no"] })).is_empty());
    // The older form of filters.
    assert_eq!(found(json!({ "label": { set.clone(): true, "conf.role=y": true } })), ["b"]);
    // Names are searched; several of them are alternatives.
    assert_eq!(found(json!({ "name": [s.prefix()] })), ["a", "b"]);
    assert_eq!(found(json!({ "name": [s.name("b")] })), ["b"]);
    assert_eq!(found(json!({ "name": [format!("^/{}$", s.name("a"))] })), ["a"]);
    assert_eq!(found(json!({ "name": [s.name("a"), s.name("b")] })), ["a", "b"]);
    assert_eq!(found(json!({ "id": [a] })), ["a"]);
    assert_eq!(found(json!({ "id": [&a[..20]] })), ["a"]);
    assert_eq!(found(json!({ "status": ["created"], "name": [s.prefix()] })), ["a"]);
    assert_eq!(found(json!({ "status": ["running", "created"], "name": [s.prefix()] })), ["a", "b"]);
    assert!(found(json!({ "status": ["paused"], "name": [s.prefix()] })).is_empty());
    assert_eq!(found(json!({ "network": [network] })), ["b"]);
    assert_eq!(found(json!({ "network": [network_id] })), ["b"]);
    assert_eq!(found(json!({ "ancestor": ["busybox:local"], "name": [s.prefix()] })), ["a", "b"]);
    // Filters by status show what does not run even without `all`.
    has(&s.filtered("/containers/json", &json!({ "status": ["created"], "name": [s.prefix()] })).ok(200), &json!([{ "Id": a }]));
    assert!(s.filtered("/containers/json", &json!({ "name": [s.prefix()] })).ok(200)[0]["Id"] == b);
}

fn ids(s: &Subject) {
    let name = s.name("a");
    let id = s.create("a", json!({}));
    for by in [id.as_str(), &id[..12], &id[..30], &name, &format!("/{name}")[1..]] {
        has(&s.inspect(by), &json!({ "Id": id }));
    }
    s.get(&format!("/containers/{}/json", &name[..name.len() - 1]))
        .refused(404, &format!("No such container: {}", &name[..name.len() - 1]));
    // A name that is the prefix of another's id wins over the prefix.
    let shadow = s.send(&format!("/containers/create?name={}", &id[..12]), &s.body(json!({}))).ok(201);
    s.owes(&text(&shadow["Id"]));
    has(&s.inspect(&id[..12]), &json!({ "Id": shadow["Id"] }));
    has(&s.inspect(&id[..13]), &json!({ "Id": id }));
    // Of more than sixteen ids two begin with the same digit.
    let mut all = vec![id];
    let twice = loop {
        let digit = |id: &String| id.as_bytes()[0];
        if let Some(twice) = all.iter().find(|a| all.iter().any(|b| a != &b && digit(a) == digit(b))) {
            break twice[..1].to_owned();
        }
        all.push(s.create(&format!("n{}", all.len()), json!({})));
    };
    s.get(&format!("/containers/{twice}/json")).refused(500, &format!("Multiple IDs found with provided prefix: {twice}"));
}

fn rename(s: &Subject) {
    let (a, b) = (s.create("a", json!({})), s.create("b", json!({})));
    s.post(&format!("/containers/{a}/rename?name={}", s.name("b"))).refused(
        409,
        &format!(
            "Error when allocating new name: Conflict. The container name \"/{0}\" is already in use by container \"{b}\". \
             You have to remove (or rename) that container to be able to reuse that name.",
            s.name("b")
        ),
    );
    s.post(&format!("/containers/{a}/rename?name={}", s.name("a")))
        .refused(400, "Renaming a container with the same name as its current name");
    s.post(&format!("/containers/{a}/rename?name=")).refused(400, "Neither old nor new names may be empty");
    s.post(&format!("/containers/{}/rename?name={}", s.name("no"), s.name("c")))
        .refused(404, &format!("No such container: {}", s.name("no")));
    s.post(&format!("/containers/{a}/rename?name={}", s.name("c"))).empty(204);
    has(&s.inspect(&a), &json!({ "Name": format!("/{}", s.name("c")) }));
    s.get(&format!("/containers/{}/json", s.name("a"))).refused(404, &format!("No such container: {}", s.name("a")));
    // The old name is free at once; a running container can be renamed too.
    s.create("a", json!({}));
    s.post(&format!("/containers/{b}/start")).empty(204);
    s.post(&format!("/containers/{}/rename?name={}", s.name("b"), s.name("d"))).empty(204);
    has(&s.inspect(&s.name("d")), &json!({ "Id": b, "State": { "Status": "running" } }));
}

fn update(s: &Subject) {
    let id = s.start("a", json!({ "HostConfig": { "Memory": 64 << 20 } }));
    let path = format!("/containers/{id}/update");
    let host = || s.inspect(&id)["HostConfig"].clone();
    has(&host(), &json!({ "Memory": 64 << 20, "MemorySwap": 128 << 20 }));
    let started = s.inspect(&id)["State"]["StartedAt"].clone();
    let all = json!({
        "NanoCpus": 250_000_000, "Memory": 96 << 20, "MemorySwap": 192 << 20, "MemoryReservation": 16 << 20, "PidsLimit": 33,
        "CpuShares": 256, "RestartPolicy": { "Name": "unless-stopped" },
    });
    assert_eq!(s.send(&path, &all).ok(200), json!({ "Warnings": null }));
    has(&host(), &all);
    // Nothing means no change.
    assert_eq!(s.send(&path, &json!({})).ok(200), json!({ "Warnings": null }));
    has(&host(), &all);
    // What lifts limits; pids of 0 is said as none.
    s.send(&path, &json!({ "MemoryReservation": -1, "PidsLimit": 0, "CpuShares": 1024, "RestartPolicy": { "Name": "no" } })).ok(200);
    has(&host(), &json!({ "MemoryReservation": -1, "CpuShares": 1024, "Memory": 96 << 20, "RestartPolicy": { "Name": "no" } }));
    has(&host(), &json!({ "PidsLimit": 0 }));
    // More memory than the swap that is there.
    s.send(&path, &json!({ "Memory": 512 << 20 })).refused(
        409,
        &format!(
            "Cannot update container {id}: Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        ),
    );
    has(&host(), &json!({ "Memory": 96 << 20 }));
    assert_eq!(s.inspect(&id)["State"]["StartedAt"], started);
    s.send(&format!("/containers/{}/update", s.name("no")), &json!({})).refused(404, &format!("No such container: {}", s.name("no")));
    s.send(&path, &json!({ "RestartPolicy": { "Name": "sometimes" } })).refused(400, "invalid restart policy 'sometimes'");
}

fn remove(s: &Subject) {
    let made = s.create("made", json!({}));
    s.delete(&format!("/containers/{made}")).empty(204);
    s.delete(&format!("/containers/{made}")).refused(404, &format!("No such container: {made}"));
    let runs = s.start("runs", json!({}));
    s.delete(&format!("/containers/{runs}")).refused(
        409,
        &format!("You cannot remove a running container {runs}. Stop the container before attempting removal or force remove"),
    );
    s.post(&format!("/containers/{runs}/pause")).empty(204);
    s.delete(&format!("/containers/{runs}")).refused(
        409,
        &format!(
            "You cannot remove a paused container {runs}. Unpause and then stop the container before attempting removal or force remove"
        ),
    );
    s.delete(&format!("/containers/{runs}?force=1")).empty(204);
    s.get(&format!("/containers/{runs}/json")).refused(404, &format!("No such container: {runs}"));
    // The name is free again.
    s.create("runs", json!({}));
    // Without `v` the volumes stay.
    let keeps = s.create("keeps", json!({ "Volumes": { "/data": {} } }));
    let volume = text(&s.inspect(&keeps)["Mounts"][0]["Name"]);
    s.owes(&volume);
    s.delete(&format!("/containers/{keeps}")).empty(204);
    s.get(&format!("/volumes/{volume}")).ok(200);
}

fn missing(s: &Subject) {
    let no = s.name("no");
    let text = format!("No such container: {no}");
    for path in ["json", "logs?stdout=1", "top", "changes", "archive?path=/", "export", "stats?stream=0"] {
        s.get(&format!("/containers/{no}/{path}")).refused(404, &text);
    }
    s.post(&format!("/containers/{no}/kill")).refused(404, &format!("Cannot kill container: {no}: {text}"));
    for path in ["start", "stop", "restart", "pause", "unpause", "wait"] {
        s.post(&format!("/containers/{no}/{path}")).refused(404, &text);
    }
    s.delete(&format!("/containers/{no}")).refused(404, &text);
    s.delete(&format!("/containers/{no}?force=1")).refused(404, &text);
    s.send(&format!("/containers/{no}/exec"), &json!({ "Cmd": ["true"] })).refused(404, &text);
    s.put(&format!("/containers/{no}/archive?path=/"), &[0; 1024]).refused(404, &text);
}
