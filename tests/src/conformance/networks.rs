//! Networks: made, found, joined, left, removed; and who gets which address.

use serde_json::{Value, json};

use super::subject::{Subject, has, is_id, text};
use super::{Area, Case};

pub(super) const CASES: &[Case] = &[
    Case { area: Area::Networks, name: "network-create", run: create },
    Case { area: Area::Networks, name: "network-default-subnet", run: default_subnet },
    Case { area: Area::Networks, name: "network-refused", run: refused },
    Case { area: Area::Networks, name: "network-list", run: list },
    Case { area: Area::Networks, name: "network-remove", run: remove },
    Case { area: Area::Networks, name: "network-connect", run: connect },
    Case { area: Area::Networks, name: "network-connect-refused", run: connect_refused },
    Case { area: Area::Networks, name: "network-disconnect", run: disconnect },
    Case { area: Area::Networks, name: "network-addresses", run: addresses },
    Case { area: Area::Networks, name: "network-prune", run: prune },
    Case { area: Area::Networks, name: "network-modes", run: modes },
];

/// IPAM with one subnet.
fn subnet(subnet: &str) -> Value {
    json!({ "IPAM": { "Config": [{ "Subnet": subnet }] } })
}

/// A container on a network by its name.
fn on(network: &str) -> Value {
    json!({ "HostConfig": { "NetworkMode": network } })
}

fn create(s: &Subject) {
    let name = s.name("net");
    let body = json!({
        "Name": name, "CheckDuplicate": true, "Driver": "bridge", "Internal": true, "Attachable": true,
        "IPAM": { "Config": [{ "Subnet": "10.251.2.0/24", "Gateway": "10.251.2.9" }] },
        "Options": { "com.docker.network.driver.mtu": "1400" }, "Labels": { "a": "1" },
    });
    let made = s.send("/networks/create", &body).ok(201);
    assert_eq!(made["Warning"], "");
    let id = text(&made["Id"]);
    assert!(is_id(&id), "{id}");
    for by in [&name, &id, &id[..12]] {
        has(
            &s.get(&format!("/networks/{by}")).ok(200),
            &json!({
                "Name": name, "Id": id, "Scope": "local", "Driver": "bridge", "EnableIPv6": false, "Internal": true, "Attachable": true,
                "Ingress": false, "ConfigOnly": false, "ConfigFrom": { "Network": "" }, "Containers": {},
                "IPAM": { "Driver": "default", "Options": null, "Config": [{ "Subnet": "10.251.2.0/24", "Gateway": "10.251.2.9" }] },
                "Options": { "com.docker.network.driver.mtu": "1400" }, "Labels": { "a": "1" },
            }),
        );
    }
    let shown = s.get(&format!("/networks/{id}")).ok(200);
    assert!(shown["Created"].as_str().is_some_and(|c| c > "2020"), "{shown}");
}

fn default_subnet(s: &Subject) {
    let id = s.network("net", json!({}));
    let shown = s.get(&format!("/networks/{id}")).ok(200);
    has(&shown, &json!({ "Internal": false, "Attachable": false, "Options": {}, "Labels": {} }));
    // A subnet of the engine's own, and the first address in it for the gateway.
    let config = &shown["IPAM"]["Config"][0];
    let (address, _) = text(&config["Subnet"]).split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a subnet");
    let (stem, last) = address.rsplit_once('.').expect("an address");
    let first = format!("{stem}.{}", last.parse::<u8>().expect("a number") + 1);
    // Some engines show the gateway with the subnet's length; this one only after a start of the daemon.
    assert_eq!(text(&config["Gateway"]).split('/').next(), Some(first.as_str()), "{config}");
    // Two networks never share a subnet.
    let other = s.network("other", json!({}));
    assert_ne!(s.get(&format!("/networks/{other}")).ok(200)["IPAM"]["Config"][0]["Subnet"], config["Subnet"]);
}

fn refused(s: &Subject) {
    let name = s.name("net");
    let id = s.network("net", subnet("10.251.3.0/24"));
    let make = |patch: Value| {
        let mut body = json!({ "Name": s.name("other"), "CheckDuplicate": true, "Driver": "bridge" });
        super::subject::merge(&mut body, patch);
        s.send("/networks/create", &body)
    };
    make(json!({ "Name": name })).refused(409, &format!("network with name {name} already exists"));
    make(json!({ "Driver": "nonsense" })).refused(404, "plugin \"nonsense\" not found");
    let overlap = make(subnet("10.251.3.128/25"));
    overlap.refused(403, "Pool overlaps with other one on this address space");
    make(subnet("nonsense")).refused(500, "Invalid subnet nonsense : invalid CIDR address: nonsense");
    make(json!({ "IPAM": { "Config": [{ "Subnet": "10.251.4.0/24", "Gateway": "10.251.5.1" }] } }))
        .refused(500, "failed to allocate gateway (10.251.5.1): Requested address is out of range");
    for reserved in ["bridge", "host", "none"] {
        make(json!({ "Name": reserved })).refused(403, &format!("operation is not permitted on predefined {reserved} network "));
    }
    // Without the check for duplicates a name can be there twice.
    let twice = make(json!({ "Name": name, "CheckDuplicate": false }));
    s.owes(&text(&twice.ok(201)["Id"]));
    s.get(&format!("/networks/{name}")).refused(400, &format!("2 matches found based on name: network {name} is ambiguous"));
    has(&s.get(&format!("/networks/{id}")).ok(200), &json!({ "Id": id }));
}

fn list(s: &Subject) {
    let label = s.name("label");
    let a = s.network("a", json!({ "Labels": { label.clone(): "x" } }));
    let b = s.network("b", json!({ "Labels": { label.clone(): "y" }, "Internal": true }));
    let found = |filters: Value| -> Vec<String> {
        let list = s.filtered("/networks", &filters).ok(200);
        let mut names: Vec<String> = list.as_array().into_iter().flatten().map(|n| text(&n["Name"])).collect();
        names.sort();
        names.into_iter().map(|n| n.trim_start_matches(s.prefix()).to_owned()).collect()
    };
    assert_eq!(found(json!({ "label": [label] })), ["a", "b"]);
    assert_eq!(found(json!({ "label": [format!("{label}=y")] })), ["b"]);
    assert_eq!(found(json!({ "name": [s.prefix()] })), ["a", "b"]);
    assert_eq!(found(json!({ "id": [a] })), ["a"]);
    assert_eq!(found(json!({ "driver": ["bridge"], "name": [s.name("a")] })), ["a"]);
    assert!(found(json!({ "driver": ["host"] })).contains(&"host".to_owned()));
    assert!(!found(json!({ "type": ["custom"] })).contains(&"host".to_owned()));
    assert!(found(json!({ "type": ["builtin"] })).contains(&"none".to_owned()));
    assert_eq!(found(json!({ "dangling": ["true"], "name": [s.prefix()] })), ["a", "b"]);
    // The list says nothing of containers.
    s.start("c", on(&s.name("b")));
    let list = s.filtered("/networks", &json!({ "id": [b] })).ok(200);
    has(&list, &json!([{ "Id": b, "Name": s.name("b"), "Internal": true, "Containers": {}, "Labels": { label: "y" } }]));
}

fn remove(s: &Subject) {
    let name = s.name("net");
    let id = s.network("net", json!({}));
    let c = s.start("c", on(&name));
    let endpoint = text(&s.inspect(&c)["NetworkSettings"]["Networks"][&name]["EndpointID"]);
    let shown = s.get(&format!("/networks/{id}")).ok(200);
    let address = text(&s.inspect(&c)["NetworkSettings"]["Networks"][&name]["IPAddress"]);
    has(&shown["Containers"][&c], &json!({ "Name": s.name("c"), "EndpointID": endpoint, "IPv6Address": "" }));
    assert!(text(&shown["Containers"][&c]["IPv4Address"]).starts_with(&format!("{address}/")), "{shown}");
    s.delete(&format!("/networks/{name}"))
        .refused(403, &format!("error while removing network: network {name} id {id} has active endpoints"));
    // A container that does not run holds nothing.
    s.post(&format!("/containers/{c}/stop?t=1")).empty(204);
    assert_eq!(s.get(&format!("/networks/{id}")).ok(200)["Containers"], json!({}));
    s.delete(&format!("/networks/{id}")).empty(204);
    s.get(&format!("/networks/{id}")).refused(404, &format!("network {id} not found"));
    s.delete(&format!("/networks/{name}")).refused(404, &format!("network {name} not found"));
    s.post(&format!("/containers/{c}/start")).refused(404, &format!("network {id} not found"));
    // Made anew, the name is not the same network to a container that knew the old one.
    s.network("net", json!({}));
    s.post(&format!("/containers/{c}/start")).refused(404, &format!("network {id} not found"));
    s.delete("/networks/none").refused(403, "none is a pre-defined network and cannot be removed");
}

fn connect(s: &Subject) {
    let (first, second) = (s.name("first"), s.name("second"));
    s.network("first", json!({}));
    let second_id = s.network("second", subnet("10.251.6.0/24"));
    let id = s.start("c", on(&first));
    let short = &id[..12];
    let endpoint = json!({ "Aliases": ["db"], "IPAMConfig": { "IPv4Address": "10.251.6.66" } });
    s.send(&format!("/networks/{second_id}/connect"), &json!({ "Container": id, "EndpointConfig": endpoint })).empty(200);
    let shown = s.inspect(&id);
    has(
        &shown["NetworkSettings"]["Networks"][&second],
        &json!({
            "NetworkID": second_id, "Aliases": ["db", short], "IPAMConfig": { "IPv4Address": "10.251.6.66" }, "IPAddress": "10.251.6.66",
            "IPPrefixLen": 24, "Gateway": "10.251.6.1", "MacAddress": "02:42:0a:fb:06:42",
        }),
    );
    has(&shown["NetworkSettings"]["Networks"][&first], &json!({ "Aliases": [short], "IPAMConfig": null }));
    assert_eq!(shown["HostConfig"]["NetworkMode"], first);
    has(&s.get(&format!("/networks/{second}")).ok(200)["Containers"][&id], &json!({ "IPv4Address": "10.251.6.66/24" }));
    // One that does not run can join too; the endpoint comes with its start.
    let later = s.create("later", on(&first));
    s.send(&format!("/networks/{second}/connect"), &json!({ "Container": s.name("later"), "EndpointConfig": { "Aliases": ["late"] } }))
        .empty(200);
    let of = |id: &str| s.inspect(id)["NetworkSettings"]["Networks"][&second].clone();
    has(&of(&later), &json!({ "EndpointID": "", "IPAddress": "", "Aliases": ["late", &later[..12]] }));
    s.post(&format!("/containers/{later}/start")).empty(204);
    has(&of(&later), &json!({ "NetworkID": second_id, "IPAddress": "10.251.6.2", "Aliases": ["late", &later[..12]] }));
    s.post(&format!("/containers/{later}/restart?t=1")).empty(204);
    has(&of(&later), &json!({ "Aliases": ["late", &later[..12]] }));
}

fn connect_refused(s: &Subject) {
    let (first, second) = (s.name("first"), s.name("second"));
    s.network("first", json!({}));
    s.network("second", subnet("10.251.7.0/24"));
    let id = s.start("c", on(&first));
    let join = |network: &str, container: &str, endpoint: Value| {
        s.send(&format!("/networks/{network}/connect"), &json!({ "Container": container, "EndpointConfig": endpoint }))
    };
    join(&first, &id, json!({})).refused(403, &format!("endpoint with name {} already exists in network {first}", s.name("c")));
    join(&s.name("no"), &id, json!({})).refused(404, &format!("network {} not found", s.name("no")));
    join(&second, &s.name("no"), json!({})).refused(404, &format!("No such container: {}", s.name("no")));
    let outside = json!({ "IPAMConfig": { "IPv4Address": "10.9.9.9" } });
    let other = s.start("d", on(&first));
    join(&second, &other, outside.clone()).refused(500, "Invalid address 10.9.9.9: It does not belong to any of this network's subnets");
    join(&first, &id, outside)
        .refused(400, "user specified IP address is supported only when connecting to networks with user configured subnets");
    s.start(
        "owner",
        json!({
            "HostConfig": { "NetworkMode": second },
            "NetworkingConfig": { "EndpointsConfig": { second.clone(): { "IPAMConfig": { "IPv4Address": "10.251.7.40" } } } },
        }),
    );
    join(&second, &id, json!({ "IPAMConfig": { "IPv4Address": "10.251.7.40" } })).refused(403, "Address already in use");
    // What was refused by the network leaves an endpoint that is none; joining once more mends it.
    let of = || s.inspect(&id)["NetworkSettings"]["Networks"][&second].clone();
    has(&of(), &json!({ "NetworkID": "", "EndpointID": "", "IPAddress": "", "IPAMConfig": { "IPv4Address": "10.251.7.40" } }));
    join(&second, &id, json!({})).empty(200);
    has(&of(), &json!({ "IPAddress": "10.251.7.2", "IPAMConfig": null }));
    let lonely = s.start("lonely", json!({}));
    join(&second, &lonely, json!({}))
        .refused(400, "container cannot be connected to multiple networks with one of the networks in private (none) mode");
}

fn disconnect(s: &Subject) {
    let (first, second) = (s.name("first"), s.name("second"));
    s.network("first", json!({}));
    let second_id = s.network("second", json!({}));
    let id = s.start("c", on(&first));
    let leave =
        |network: &str, force: bool| s.send(&format!("/networks/{network}/disconnect"), &json!({ "Container": id, "Force": force }));
    leave(&s.name("no"), false).refused(404, &format!("network {} not found", s.name("no")));
    leave(&second, false).refused(500, &format!("container {id} is not connected to network {second}"));
    leave(&second, true).refused(500, &format!("container {id} is not connected to network {second}"));
    s.send(&format!("/networks/{second}/connect"), &json!({ "Container": id })).empty(200);
    leave(&second_id, false).empty(200);
    assert!(s.inspect(&id)["NetworkSettings"]["Networks"].get(&second).is_none());
    assert_eq!(s.get(&format!("/networks/{second}")).ok(200)["Containers"], json!({}));
    // The first network can be left as well.
    leave(&first, true).empty(200);
    assert_eq!(s.inspect(&id)["NetworkSettings"]["Networks"], json!({}));
    leave(&first, true).refused(500, &format!("container {id} is not connected to network {first}"));
    s.send(&format!("/networks/{second}/connect"), &json!({ "Container": id })).empty(200);
    s.post(&format!("/containers/{id}/stop?t=1")).empty(204);
    leave(&second, true).empty(200);
    assert_eq!(s.inspect(&id)["NetworkSettings"]["Networks"], json!({}));
    // Of a stopped container, what it remembers counts and not whether the network is there.
    leave(&s.name("no"), true).refused(500, &format!("container {id} is not connected to the network {}", s.name("no")));
    s.send(&format!("/networks/{second}/disconnect"), &json!({ "Container": s.name("no"), "Force": false }))
        .refused(404, &format!("No such container: {}", s.name("no")));
}

fn addresses(s: &Subject) {
    let network = s.name("net");
    s.network("net", subnet("10.251.8.0/29"));
    let address = |id: &str| text(&s.inspect(id)["NetworkSettings"]["Networks"][&network]["IPAddress"]);
    let started: Vec<String> = ["a", "b", "c"].iter().map(|part| s.start(part, on(&network))).collect();
    assert_eq!(started.iter().map(|id| address(id)).collect::<Vec<_>>(), ["10.251.8.2", "10.251.8.3", "10.251.8.4"]);
    // The lowest free address is given next, and who stops gives its address back.
    s.post(&format!("/containers/{}/kill", started[0])).empty(204);
    s.until_state(&started[0], "exited");
    s.post(&format!("/containers/{}/kill", started[1])).empty(204);
    s.until_state(&started[1], "exited");
    let d = s.start("d", on(&network));
    assert_eq!(address(&d), "10.251.8.2");
    s.post(&format!("/containers/{}/start", started[0])).empty(204);
    assert_eq!(address(&started[0]), "10.251.8.3");
    // When there is none left, a start fails.
    for part in ["e", "f"] {
        s.start(part, on(&network));
    }
    let late = s.create("late", on(&network));
    s.post(&format!("/containers/{late}/start")).refused_with(500, "no available IPv4 addresses on this network's address pools");
    has(&s.inspect(&late), &json!({ "State": { "Status": "created", "ExitCode": 128 } }));
}

fn prune(s: &Subject) {
    let label = s.name("label");
    s.network("idle", json!({ "Labels": { label.clone(): "" } }));
    s.network("busy", json!({ "Labels": { label.clone(): "" } }));
    s.start("c", on(&s.name("busy")));
    let filters = crate::support::docker::percent(&json!({ "label": [label] }).to_string());
    assert_eq!(s.post(&format!("/networks/prune?filters={filters}")).ok(200), json!({ "NetworksDeleted": [s.name("idle")] }));
    assert_eq!(s.post(&format!("/networks/prune?filters={filters}")).ok(200), json!({ "NetworksDeleted": null }));
}

fn modes(s: &Subject) {
    let none = s.start("none", json!({}));
    let shown = s.inspect(&none);
    has(&shown["NetworkSettings"]["Networks"]["none"], &json!({ "IPAddress": "", "Gateway": "", "Aliases": null }));
    let host = s.start("host", on("host"));
    let shown = s.inspect(&host);
    has(&shown["NetworkSettings"]["Networks"]["host"], &json!({ "IPAddress": "" }));
    let shares = s.start("shares", on(&format!("container:{none}")));
    let shown = s.inspect(&shares);
    has(&shown, &json!({ "HostConfig": { "NetworkMode": format!("container:{none}") }, "NetworkSettings": { "Networks": {} } }));
    // One that is not there is missed at the start only.
    let lost = s.create("lost", on(&format!("container:{}", s.name("no"))));
    s.post(&format!("/containers/{lost}/start")).refused(404, &format!("No such container: {}", s.name("no")));
}
