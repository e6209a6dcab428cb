//! Networks, and containers in them.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::Case;
use super::subject::{Subject, has, is_id, keys, text};

pub(super) const CASES: &[Case] = &[
    ("network-shown", shown),
    ("network-settings", settings),
    ("network-double", double),
    ("network-overlap", overlap),
    ("network-refused", refused),
    ("network-list", list),
    ("network-named", named),
    ("network-remove", remove),
    ("network-in-use", in_use),
    ("network-join", join),
    ("network-late-join", late_join),
    ("network-connect", connect),
    ("network-connect-refused", connect_refused),
    ("network-disconnect", disconnect),
    ("network-fixed-address", fixed_address),
    ("network-addresses", addresses),
    ("network-stopped", stopped),
    ("network-gone", gone),
    ("network-prune", prune),
];

fn shown(s: &Subject) {
    let made = s.try_network("n", json!({})).ok(201);
    assert_eq!(keys(&made), ["Id", "Warning"]);
    assert_eq!(made["Warning"], "");
    let id = text(&made["Id"]);
    assert!(is_id(&id));
    let shown = s.get(&format!("/networks/{id}")).ok(200);
    let wanted = json!({
        "Name": s.name("n"), "Id": id, "Scope": "local", "Driver": "bridge", "EnableIPv6": false, "Internal": false,
        "Attachable": false, "Ingress": false, "ConfigFrom": { "Network": "" }, "ConfigOnly": false, "Containers": {}, "Options": {},
        "Labels": {}, "IPAM": { "Driver": "default", "Options": null },
    });
    has(&shown, &wanted);
    // A subnet that was not asked for comes with its gateway.
    let config = &shown["IPAM"]["Config"];
    assert_eq!((config.as_array().map(Vec::len), keys(&config[0])), (Some(1), vec!["Gateway", "Subnet"]));
    let subnet = text(&config[0]["Subnet"]);
    assert!(subnet.split_once('/').is_some_and(|(net, _)| net.parse::<Ipv4Addr>().is_ok()), "{config}");
    assert!(text(&config[0]["Gateway"]).parse::<Ipv4Addr>().is_ok(), "{config}");
    assert!(shown["Created"].is_string());
}

fn settings(s: &Subject) {
    let net = s.subnet(1);
    let patch = json!({
        "Internal": true, "Attachable": true, "Labels": { "a": "b" }, "Options": { "com.docker.network.bridge.enable_icc": "true" },
        "IPAM": { "Config": [{ "Subnet": format!("{net}.0/24"), "Gateway": format!("{net}.9") }] },
    });
    let shown = s.get(&format!("/networks/{}", s.network("n", patch.clone()))).ok(200);
    has(&shown, &patch);
    assert_eq!(shown["Labels"], patch["Labels"]);
    // A gateway that was not asked for is not shown, and there nevertheless.
    let net = s.subnet(2);
    let id = s.network("m", json!({ "IPAM": { "Config": [{ "Subnet": format!("{net}.0/24") }] } }));
    assert_eq!(s.get(&format!("/networks/{id}")).ok(200)["IPAM"]["Config"], json!([{ "Subnet": format!("{net}.0/24") }]));
    let container = s.start("a", json!({ "HostConfig": { "NetworkMode": s.name("m") } }));
    has(&endpoint(s, &container, "m"), &json!({ "Gateway": format!("{net}.1"), "IPAddress": format!("{net}.2") }));
}

fn double(s: &Subject) {
    let first = s.network("n", json!({}));
    s.try_network("n", json!({})).refused(409, &format!("network with name {} already exists", s.name("n")));
    assert_eq!(s.get(&format!("/networks/{}", s.name("n"))).ok(200)["Id"], json!(first));
}

fn overlap(s: &Subject) {
    let net = s.subnet(3);
    s.network("n", json!({ "IPAM": { "Config": [{ "Subnet": format!("{net}.0/24") }] } }));
    let other = s.try_network("m", json!({ "IPAM": { "Config": [{ "Subnet": format!("{net}.128/25") }] } }));
    other.refused(403, "Pool overlaps with other one on this address space");
    s.get(&format!("/networks/{}", s.name("m"))).ok(404);
}

fn refused(s: &Subject) {
    let ipam = |config: Value| json!({ "IPAM": { "Config": [config] } });
    let bad = "Invalid subnet 10.211.0 : invalid CIDR address: 10.211.0";
    s.try_network("n", ipam(json!({ "Subnet": "10.211.0" }))).refused(500, bad);
    let net = s.subnet(4);
    let gateway = s.try_network("n", ipam(json!({ "Subnet": format!("{net}.0/24"), "Gateway": "10.99.0.1" })));
    gateway.refused(500, "failed to allocate gateway (10.99.0.1): Requested address is out of range");
    s.try_network("n", json!({ "Driver": "nonesuch" })).refused(404, "plugin \"nonesuch\" not found");
    s.try_network("n", json!({ "Driver": "host" })).refused(403, "only one instance of \"host\" network is allowed");
    s.send("/networks/create", &json!({})).refused(500, "invalid name: ");
    s.send("/networks/create", &json!({ "Name": "host" })).refused(403, "operation is not permitted on predefined host network ");
    s.get(&format!("/networks/{}", s.name("n"))).refused(404, &format!("network {} not found", s.name("n")));
}

/// The parts of the names of the case's networks that are listed.
#[track_caller]
fn parts(s: &Subject, filters: &Value) -> Vec<String> {
    let list = s.filtered("/networks", filters).ok(200);
    let names = list.as_array().into_iter().flatten().map(|n| text(&n["Name"]));
    let mut parts: Vec<String> = names.filter_map(|n| n.strip_prefix(s.prefix()).map(str::to_owned)).collect();
    parts.sort();
    parts
}

fn list(s: &Subject) {
    let key = s.name("key");
    let a = s.network("a", json!({ "Labels": { key.as_str(): "1" } }));
    s.network("b", json!({ "Labels": { key.as_str(): "2" }, "Internal": true }));
    s.start("c", json!({ "HostConfig": { "NetworkMode": s.name("a") } }));
    assert_eq!(parts(s, &json!({})), ["a", "b"]);
    assert_eq!(parts(s, &json!({ "label": [key] })), ["a", "b"]);
    assert_eq!(parts(s, &json!({ "label": [format!("{key}=2")] })), ["b"]);
    assert_eq!(parts(s, &json!({ "name": [s.name("a")] })), ["a"]);
    assert_eq!(parts(s, &json!({ "name": [s.prefix()] })), ["a", "b"]);
    assert_eq!(parts(s, &json!({ "id": [a] })), ["a"]);
    assert_eq!(parts(s, &json!({ "driver": ["bridge"] })), ["a", "b"]);
    assert_eq!(parts(s, &json!({ "driver": ["null"] })), [""; 0]);
    assert_eq!(parts(s, &json!({ "type": ["custom"] })), ["a", "b"]);
    assert_eq!(parts(s, &json!({ "type": ["builtin"] })), [""; 0]);
    assert_eq!(parts(s, &json!({ "scope": ["local"] })), ["a", "b"]);
    // The list is filtered before the containers in the networks are looked up: all of them are dangling.
    assert_eq!(parts(s, &json!({ "dangling": ["true"] })), ["a", "b"]);
    assert_eq!(parts(s, &json!({ "dangling": ["false"] })), [""; 0]);
    // The list does not say who is in them; only inspecting does.
    let entry = s.filtered("/networks", &json!({ "id": [a] })).ok(200);
    assert_eq!(entry[0]["Containers"], json!({}));
    let all = s.get("/networks").ok(200);
    let builtin = |name: &str, driver: &str| all.as_array().into_iter().flatten().any(|n| n["Name"] == name && n["Driver"] == driver);
    assert!(builtin("none", "null") && builtin("host", "host"), "{all}");
}

fn named(s: &Subject) {
    let id = s.network("n", json!({}));
    for reference in [&id[..], &id[..12], &s.name("n")] {
        assert_eq!(s.get(&format!("/networks/{reference}")).ok(200)["Id"], json!(id), "{reference}");
    }
    s.get("/networks/conf-nonesuch").refused(404, "network conf-nonesuch not found");
}

fn remove(s: &Subject) {
    for by in 0..3 {
        let id = s.network("n", json!({}));
        let name = s.name("n");
        s.delete(&format!("/networks/{}", [&id[..], &id[..12], &name][by])).empty(204);
        s.get(&format!("/networks/{id}")).refused(404, &format!("network {id} not found"));
    }
    s.delete("/networks/conf-nonesuch").refused(404, "network conf-nonesuch not found");
    s.delete("/networks/host").refused(403, "host is a pre-defined network and cannot be removed");
    s.delete("/networks/none").refused(403, "none is a pre-defined network and cannot be removed");
}

fn in_use(s: &Subject) {
    let id = s.network("n", json!({}));
    s.start("a", json!({ "HostConfig": { "NetworkMode": s.name("n") } }));
    let message = format!("error while removing network: network {} id {id} has active endpoints", s.name("n"));
    s.delete(&format!("/networks/{id}")).refused(403, &message);
    s.act(&s.name("a"), "kill").empty(204);
    s.until_state(&s.name("a"), "exited");
    // Who does not run does not hold it.
    s.delete(&format!("/networks/{id}")).empty(204);
}

/// What a container shows of its place in one of the case's networks.
#[track_caller]
fn endpoint(s: &Subject, container: &str, network: &str) -> Value {
    let shown = s.inspect(container);
    let found = &shown["NetworkSettings"]["Networks"][&s.name(network)];
    assert!(found.is_object(), "{}", shown["NetworkSettings"]["Networks"]);
    found.clone()
}

fn join(s: &Subject) {
    let net = s.subnet(5);
    let id = s.network("n", json!({ "IPAM": { "Config": [{ "Subnet": format!("{net}.0/24"), "Gateway": format!("{net}.1") }] } }));
    let name = s.name("n");
    let patch = json!({
        "HostConfig": { "NetworkMode": name },
        "NetworkingConfig": { "EndpointsConfig": { name.as_str(): { "Aliases": ["web", "www"], "IPAMConfig": { "IPv4Address": format!("{net}.40") } } } },
    });
    let container = s.create("a", patch);
    let before = endpoint(s, &container, "n");
    let wanted = json!({
        "Aliases": ["web", "www"], "IPAMConfig": { "IPv4Address": format!("{net}.40") }, "NetworkID": "", "EndpointID": "",
        "IPAddress": "", "Gateway": "", "IPPrefixLen": 0, "MacAddress": "",
    });
    has(&before, &wanted);
    assert_eq!(s.get(&format!("/networks/{id}")).ok(200)["Containers"], json!({}));
    s.act(&container, "start").empty(204);
    let during = endpoint(s, &container, "n");
    let mac = format!("02:42:0a:{:02x}:05:28", 100 + std::process::id() % 50);
    let wanted = json!({
        "Aliases": ["web", "www", container[..12]], "IPAMConfig": { "IPv4Address": format!("{net}.40") }, "NetworkID": id,
        "IPAddress": format!("{net}.40"), "Gateway": format!("{net}.1"), "IPPrefixLen": 24, "MacAddress": mac, "Links": null,
    });
    has(&during, &wanted);
    assert!(is_id(&text(&during["EndpointID"])));
    let inside = s.get(&format!("/networks/{id}")).ok(200)["Containers"].take();
    let wanted = json!({ container.as_str(): {
        "Name": s.name("a"), "EndpointID": during["EndpointID"], "MacAddress": mac, "IPv4Address": format!("{net}.40/24"), "IPv6Address": "",
    } });
    assert_eq!(inside, wanted);
    // Networks of one's own leave the old fields empty.
    has(&s.inspect(&container)["NetworkSettings"], &json!({ "IPAddress": "", "Gateway": "", "EndpointID": "", "MacAddress": "" }));
}

/// A container may name a network that is not there: it is looked for at the start.
fn late_join(s: &Subject) {
    let id = s.create("a", json!({ "HostConfig": { "NetworkMode": s.name("n") } }));
    let message = format!("network {} not found", s.name("n"));
    s.act(&id, "start").refused(404, &message);
    has(&s.inspect(&id)["State"], &json!({ "Status": "created", "ExitCode": 128, "Error": message }));
    s.network("n", json!({}));
    s.act(&id, "start").empty(204);
    has(&s.inspect(&id)["State"], &json!({ "Status": "running", "ExitCode": 0, "Error": "" }));
}

fn connect(s: &Subject) {
    s.network("n", json!({}));
    let second = s.network("m", json!({}));
    let id = s.start("a", json!({ "HostConfig": { "NetworkMode": s.name("n") } }));
    s.send(&format!("/networks/{second}/connect"), &json!({ "Container": id, "EndpointConfig": { "Aliases": ["q"] } })).empty(200);
    has(&endpoint(s, &id, "m"), &json!({ "Aliases": ["q", id[..12]], "NetworkID": second, "IPAMConfig": null }));
    assert_eq!(keys(&s.inspect(&id)["NetworkSettings"]["Networks"]).len(), 2);
    assert!(s.get(&format!("/networks/{second}")).ok(200)["Containers"][&id].is_object());
    // One that does not run is connected when it starts.
    let idle = s.create("b", json!({ "HostConfig": { "NetworkMode": s.name("n") } }));
    s.send(&format!("/networks/{}/connect", s.name("m")), &json!({ "Container": s.name("b") })).empty(200);
    assert_eq!(keys(&s.inspect(&idle)["NetworkSettings"]["Networks"]).len(), 2);
    assert_eq!(s.get(&format!("/networks/{second}")).ok(200)["Containers"].get(&idle), None);
    s.act(&idle, "start").empty(204);
    assert!(s.get(&format!("/networks/{second}")).ok(200)["Containers"][&idle].is_object());
}

fn connect_refused(s: &Subject) {
    let id = s.network("n", json!({}));
    let container = s.start("a", json!({ "HostConfig": { "NetworkMode": s.name("n") } }));
    let path = format!("/networks/{id}/connect");
    let already = format!("endpoint with name {} already exists in network {}", s.name("a"), s.name("n"));
    s.send(&path, &json!({ "Container": container })).refused(403, &already);
    s.send(&path, &json!({ "Container": "conf-nonesuch" })).refused(404, "No such container: conf-nonesuch");
    // The container is looked for first, and one that does not run may be promised a network that is not there.
    s.send("/networks/conf-none/connect", &json!({ "Container": "conf-nonesuch" })).refused(404, "No such container: conf-nonesuch");
    let idle = s.create("b", json!({}));
    s.send("/networks/conf-nonesuch/connect", &json!({ "Container": idle })).empty(200);
    s.act(&idle, "start").refused(404, "network conf-nonesuch not found");
    let reply = s.send("/networks/conf-nonesuch/connect", &json!({ "Container": container }));
    reply.refused(404, "network conf-nonesuch not found");
    let host = "container cannot be disconnected from host network or connected to host network";
    s.send("/networks/host/connect", &json!({ "Container": container })).refused(400, host);
    let none = "container cannot be connected to multiple networks with one of the networks in private (none) mode";
    s.send("/networks/none/connect", &json!({ "Container": container })).refused(400, none);
}

fn disconnect(s: &Subject) {
    let id = s.network("n", json!({}));
    let container = s.start("a", json!({ "HostConfig": { "NetworkMode": s.name("n") } }));
    let path = format!("/networks/{id}/disconnect");
    s.send(&path, &json!({ "Container": container })).empty(200);
    assert_eq!(s.inspect(&container)["NetworkSettings"]["Networks"], json!({}));
    assert_eq!(s.get(&format!("/networks/{id}")).ok(200)["Containers"], json!({}));
    let not = format!("container {container} is not connected to network {}", s.name("n"));
    s.send(&path, &json!({ "Container": container })).refused(500, &not);
    s.send(&path, &json!({ "Container": container, "Force": true })).refused(500, &not);
    s.send(&path, &json!({ "Container": "conf-nonesuch" })).refused(404, "No such container: conf-nonesuch");
    s.send(&path, &json!({ "Container": "conf-nonesuch", "Force": true })).refused(404, "endpoint conf-nonesuch not found");
    let reply = s.send("/networks/conf-nonesuch/disconnect", &json!({ "Container": container }));
    reply.refused(404, "network conf-nonesuch not found");
    s.delete(&format!("/networks/{id}")).empty(204);
    // It runs on without any.
    assert_eq!(s.inspect(&container)["State"]["Status"], "running");
}

fn fixed_address(s: &Subject) {
    let net = s.subnet(6);
    let id = s.network("n", json!({ "IPAM": { "Config": [{ "Subnet": format!("{net}.0/24") }] } }));
    let plain = s.network("m", json!({}));
    let with = |ip: &str| json!({ "Container": s.name("b"), "EndpointConfig": { "IPAMConfig": { "IPv4Address": ip } } });
    s.start("a", json!({ "HostConfig": { "NetworkMode": s.name("n") } }));
    s.start("b", json!({ "HostConfig": { "NetworkMode": s.name("m") } }));
    let path = format!("/networks/{id}/connect");
    s.send(&path, &with("10.99.1.1")).refused(500, "Invalid address 10.99.1.1: It does not belong to any of this network's subnets");
    s.send(&path, &with(&format!("{net}.2"))).refused(403, "Address already in use");
    s.send(&path, &with(&format!("{net}.77"))).empty(200);
    let wanted = json!({ "IPAddress": format!("{net}.77"), "IPAMConfig": { "IPv4Address": format!("{net}.77") } });
    has(&endpoint(s, &s.name("b"), "n"), &wanted);
    let user = "user specified IP address is supported only when connecting to networks with user configured subnets";
    let body = json!({ "Container": s.name("a"), "EndpointConfig": { "IPAMConfig": { "IPv4Address": "10.99.1.1" } } });
    s.send(&format!("/networks/{plain}/connect"), &body).refused(400, user);
}

/// The engine gives the lowest free one; one that is freed is given again.
fn addresses(s: &Subject) {
    let net = s.subnet(7);
    s.network("n", json!({ "IPAM": { "Config": [{ "Subnet": format!("{net}.0/24") }] } }));
    let start = |part: &str| {
        let id = s.start(part, json!({ "HostConfig": { "NetworkMode": s.name("n") } }));
        (endpoint(s, &id, "n")["IPAddress"].take(), id)
    };
    let (first, id) = start("a");
    let (second, _) = start("b");
    let wanted = |n: u8| json!(format!("{net}.{n}"));
    assert_eq!((first, second), (wanted(2), wanted(3)));
    s.delete(&format!("/containers/{id}?force=1")).empty(204);
    assert_eq!(start("c").0, wanted(2));
    assert_eq!(start("d").0, wanted(4));
    // Started again, it takes what is free then.
    s.act(&s.name("b"), "stop").empty(204);
    assert_eq!(start("e").0, wanted(3));
    s.act(&s.name("b"), "start").empty(204);
    assert_eq!(endpoint(s, &s.name("b"), "n")["IPAddress"], wanted(5));
}

/// A stopped container is still in its networks, without an address.
fn stopped(s: &Subject) {
    let id = s.network("n", json!({}));
    let container = s.start("a", json!({ "HostConfig": { "NetworkMode": s.name("n") } }));
    s.act(&container, "stop").empty(204);
    let wanted = json!({ "NetworkID": id, "EndpointID": "", "IPAddress": "", "Gateway": "", "IPPrefixLen": 0, "MacAddress": "" });
    has(&endpoint(s, &container, "n"), &wanted);
    assert_eq!(s.get(&format!("/networks/{id}")).ok(200)["Containers"], json!({}));
    let list = s.filtered("/containers/json?all=1", &json!({ "network": [s.name("n")] })).ok(200);
    assert_eq!(list[0]["Id"], json!(container));
}

/// A container whose network was made anew has to be made anew too.
fn gone(s: &Subject) {
    let id = s.network("n", json!({}));
    let container = s.start("a", json!({ "HostConfig": { "NetworkMode": s.name("n") } }));
    s.act(&container, "stop").empty(204);
    s.delete(&format!("/networks/{id}")).empty(204);
    s.network("n", json!({}));
    let message = format!("network {id} not found");
    s.act(&container, "start").refused(404, &message);
    has(&s.inspect(&container)["State"], &json!({ "Status": "exited", "Error": message }));
    s.delete(&format!("/containers/{container}")).empty(204);
    s.start("a", json!({ "HostConfig": { "NetworkMode": s.name("n") } }));
}

fn prune(s: &Subject) {
    let key = s.name("key");
    let labels = json!({ "Labels": { key.as_str(): "" } });
    s.network("used", labels.clone());
    s.network("unused", labels);
    s.start("a", json!({ "HostConfig": { "NetworkMode": s.name("used") } }));
    let filters = crate::support::docker::percent(&json!({ "label": [key] }).to_string());
    let pruned = s.post(&format!("/networks/prune?filters={filters}")).ok(200);
    assert_eq!(pruned, json!({ "NetworksDeleted": [s.name("unused")] }));
    assert_eq!(parts(s, &json!({})), ["used"]);
}
