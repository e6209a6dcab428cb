//! Draws sequences of requests.

use serde_json::{Value, json};

use super::Request;

/// Splitmix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// The sequence of a seed.
pub(super) fn sequence(seed: u64, length: usize) -> Vec<Request> {
    let mut dice = Dice(seed);
    (0..length).map(|_| request(&mut dice)).collect()
}

fn request(dice: &mut Dice) -> Request {
    match dice.below(100) {
        0..18 => create_container(dice),
        18..32 => on_container(dice, &["start"]),
        32..54 => on_container(dice, &["stop", "stop?t=1", "kill", "kill?signal=TERM", "restart?t=1", "pause", "unpause"]),
        54..58 => rename(dice),
        58..62 => update(dice),
        62..69 => remove_container(dice),
        69..75 => read(dice),
        75..81 => create_network(dice),
        81..89 => on_network(dice),
        89..96 => on_volume(dice),
        _ => nonsense(dice),
    }
}

fn container(dice: &mut Dice) -> &'static str {
    dice.of(&["c0", "c0", "c1", "c2"])
}

fn network(dice: &mut Dice) -> usize {
    dice.of(&[0, 0, 1, 2])
}

fn plain(method: &'static str, path: String) -> Request {
    Request { method, path, body: None }
}

fn post(path: String, body: Value) -> Request {
    Request { method: "POST", path, body: Some(body) }
}

/// A container that heeds signals, or one that ends at once by itself.
fn create_container(dice: &mut Dice) -> Request {
    let mut body = json!({ "Image": "busybox:local", "Cmd": ["sleep", "1000"], "HostConfig": { "NetworkMode": "none", "Init": true } });
    let host = |body: &mut Value, key: &str, value: Value| body["HostConfig"][key] = value;
    match dice.below(6) {
        0..3 => {
            let net = format!("@n{}", network(dice));
            host(&mut body, "NetworkMode", json!(net));
            if dice.below(2) == 0 {
                body["NetworkingConfig"] = json!({ "EndpointsConfig": { net.as_str(): { "Aliases": ["web"] } } });
            }
        }
        3 => {
            let volume = format!("@v{}", dice.below(2));
            host(&mut body, "Mounts", json!([{ "Type": "volume", "Source": volume, "Target": "/data", "ReadOnly": dice.below(2) == 0 }]));
        }
        _ => {}
    }
    match dice.below(8) {
        0 | 1 => {
            body["Cmd"] = json!(["sh", "-c", format!("echo said; exit {}", dice.below(3))]);
            body["Labels"] = json!({ "brief": "" });
            if dice.below(2) == 0 {
                host(&mut body, "RestartPolicy", json!({ "Name": "on-failure", "MaximumRetryCount": 1 }));
            }
        }
        2 => host(&mut body, "RestartPolicy", json!({ "Name": dice.of(&["always", "unless-stopped", "no"]) })),
        3 => {
            host(&mut body, "AutoRemove", json!(true));
            body["Labels"] = json!({ "gone": "" });
        }
        4 => host(&mut body, "Memory", json!(dice.of(&[1000, 67_108_864]))),
        5 => body["Labels"] = json!({ "a": "b" }),
        6 => body["Image"] = json!(dice.of(&["busybox:two", "conf-nonesuch", "conf-nonesuch:1"])),
        _ => body["Cmd"] = json!(["/nonesuch"]),
    }
    // Without an init process it is the engine that misses the program.
    if body["Cmd"] == json!(["/nonesuch"]) {
        host(&mut body, "Init", json!(false));
    }
    post(format!("/containers/create?name=@{}", container(dice)), body)
}

fn on_container(dice: &mut Dice, acts: &[&str]) -> Request {
    plain("POST", format!("/containers/@{}/{}", container(dice), dice.of(acts)))
}

fn rename(dice: &mut Dice) -> Request {
    plain("POST", format!("/containers/@{}/rename?name=@{}", container(dice), container(dice)))
}

fn update(dice: &mut Dice) -> Request {
    let body = match dice.below(6) {
        0 => json!({ "Memory": 134_217_728 }),
        1 => json!({ "Memory": 134_217_728, "MemorySwap": 268_435_456 }),
        2 => json!({ "RestartPolicy": { "Name": "no" } }),
        3 => json!({ "RestartPolicy": { "Name": "sometimes" } }),
        4 => json!({ "CpuShares": 512, "PidsLimit": 100 }),
        _ => json!({}),
    };
    post(format!("/containers/@{}/update", container(dice)), body)
}

fn remove_container(dice: &mut Dice) -> Request {
    plain("DELETE", format!("/containers/@{}{}", container(dice), dice.of(&["", "?v=1", "?force=1", "?force=1&v=1"])))
}

fn read(dice: &mut Dice) -> Request {
    let path = match dice.below(7) {
        0 | 1 => format!("/containers/@{}/json", container(dice)),
        2 => format!("/containers/@{}/logs?stdout=1&stderr=1", container(dice)),
        3 => list("/containers/json?all=1", &json!({ "name": ["@"] })),
        4 => list("/containers/json", &json!({ "name": ["@"] })),
        5 => list("/containers/json?all=1", &json!({ "network": [format!("@n{}", network(dice))] })),
        _ => list("/networks", &json!({ "name": ["@"] })),
    };
    plain("GET", path)
}

/// A list that is filtered. The mark for the run's names is not percent-encoded.
fn list(path: &str, filters: &Value) -> String {
    let text = crate::support::docker::percent(&filters.to_string()).replace("%40", "@");
    let glue = if path.contains('?') { '&' } else { '?' };
    format!("{path}{glue}filters={text}")
}

/// Networks 0 and 2 have the same subnet.
fn create_network(dice: &mut Dice) -> Request {
    let n = network(dice);
    let mut config = json!({ "Subnet": format!("<net{}>.0/24", n % 2) });
    if dice.below(2) == 0 {
        config["Gateway"] = json!(format!("<net{}>.1", n % 2));
    }
    let mut body = json!({ "Name": format!("@n{n}"), "CheckDuplicate": true, "Driver": "bridge", "IPAM": { "Config": [config] } });
    match dice.below(3) {
        0 => body["Internal"] = json!(true),
        1 => body["Labels"] = json!({ "a": "b" }),
        _ => {}
    }
    post("/networks/create".to_owned(), body)
}

fn on_network(dice: &mut Dice) -> Request {
    let path = format!("/networks/@n{}", network(dice));
    let who = format!("@{}", container(dice));
    match dice.below(8) {
        0 | 1 => plain("GET", path),
        2 => plain("DELETE", path),
        3 => post(format!("{path}/connect"), json!({ "Container": who })),
        4 => post(format!("{path}/connect"), json!({ "Container": who, "EndpointConfig": { "Aliases": ["x"] } })),
        5 => {
            let ip = format!("<net{}>.{}", dice.below(2), dice.of(&[2, 77]));
            post(format!("{path}/connect"), json!({ "Container": who, "EndpointConfig": { "IPAMConfig": { "IPv4Address": ip } } }))
        }
        6 => post(format!("{path}/disconnect"), json!({ "Container": who })),
        _ => post(format!("{path}/disconnect"), json!({ "Container": who, "Force": true })),
    }
}

fn on_volume(dice: &mut Dice) -> Request {
    let name = format!("@v{}", dice.below(2));
    match dice.below(5) {
        0 => post("/volumes/create".to_owned(), json!({ "Name": name })),
        1 => post("/volumes/create".to_owned(), json!({ "Name": name, "Labels": { "a": "b" } })),
        2 => plain("GET", format!("/volumes/{name}")),
        3 => plain("DELETE", format!("/volumes/{name}")),
        _ => plain("DELETE", format!("/volumes/{name}?force=1")),
    }
}

fn nonsense(dice: &mut Dice) -> Request {
    match dice.below(5) {
        0 => post(format!("/containers/create?name=@{}", container(dice)), json!({})),
        1 => post(format!("/containers/@{}/exec", container(dice)), json!({ "Cmd": [] })),
        2 => post(format!("/containers/@{}/exec", container(dice)), json!({ "Cmd": ["true"] })),
        3 => on_container(dice, &["kill?signal=NOPE", "dance"]),
        _ => plain("GET", "/conf-nonesuch".to_owned()),
    }
}
