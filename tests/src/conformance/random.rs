//! Random requests to two engines, whose answers must say the same: what the table of cases did not think of.
//!
//! A seed and a length give one sequence over a handful of names. Each side has names of its own, so both may be one engine. Answers
//! are compared after ids, times and addresses have been taken out: code, message, the paths and types of all fields, and the values
//! of the fields that clients read. Start at [`compare`].

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::subject::{Reply, Subject};
use crate::support::docker::percent;
use crate::support::http::Place;

/// Fields whose values must be the same, not only their types.
const READ: &[&str] = &[
    "Name",
    "Names",
    "Status",
    "State",
    "Running",
    "Paused",
    "Restarting",
    "ExitCode",
    "Error",
    "RestartCount",
    "Image",
    "Labels",
    "Cmd",
    "Memory",
    "PidsLimit",
    "RestartPolicy",
    "NetworkMode",
    "Aliases",
    "Driver",
    "Internal",
    "Scope",
    "message",
    "Warnings",
    "Health",
];

/// One request.
#[derive(Clone, Debug)]
enum Step {
    Create { container: usize, network: Option<usize>, volume: bool },
    Act { container: usize, what: &'static str },
    Rename { container: usize, to: usize },
    Update { container: usize, pids: u64 },
    Remove { container: usize, force: bool },
    Inspect { container: usize },
    List,
    NetworkCreate { network: usize, internal: bool },
    NetworkRemove { network: usize },
    NetworkInspect { network: usize },
    Connect { network: usize, container: usize },
    Disconnect { network: usize, container: usize, force: bool },
    VolumeCreate,
    VolumeRemove,
}

/// A small generator of numbers (splitmix64): the same numbers for the same seed everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn step(&mut self) -> Step {
        let (container, network, coin) = (self.below(3), self.below(2), self.below(2) == 0);
        match self.below(20) {
            0..=2 => Step::Create { container, network: coin.then_some(network), volume: self.below(2) == 0 },
            3..=5 => Step::Act { container, what: "start" },
            6..=9 => Step::Act { container, what: ["stop?t=5", "kill", "pause", "unpause", "restart?t=5"][self.below(5)] },
            10 => Step::Rename { container, to: self.below(3) },
            11 => Step::Update { container, pids: 10 + network as u64 },
            12 => Step::Remove { container, force: coin },
            13 => Step::Inspect { container },
            14 => Step::List,
            15 => Step::NetworkCreate { network, internal: coin },
            16 => {
                if coin {
                    Step::NetworkRemove { network }
                } else {
                    Step::NetworkInspect { network }
                }
            }
            17 => Step::Connect { network, container },
            18 => Step::Disconnect { network, container, force: coin },
            _ => {
                if coin {
                    Step::VolumeCreate
                } else {
                    Step::VolumeRemove
                }
            }
        }
    }
}

/// Sends the sequence of a seed to both and compares answer by answer.
///
/// # Errors
/// The seed, the shortest sequence that shows the difference, and both answers.
pub fn compare(left: &Place, right: &Place, seed: u64, length: usize) -> Result<(), String> {
    let sides = [Subject::new(left.clone(), &format!("left-{seed}")), Subject::new(right.clone(), &format!("right-{seed}"))];
    let mut random = Random(seed);
    let mut taken = Vec::new();
    for _ in 0..length {
        let step = random.step();
        taken.push(format!("{step:?}"));
        let replies = sides.each_ref().map(|side| send(side, &step));
        let [a, b] = [0, 1].map(|i| said(&sides[i], &replies[i]));
        if a != b {
            let only = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| {
                let lines: Vec<String> = a.iter().filter(|(k, v)| b.get(*k) != Some(v)).map(|(k, v)| format!("  {k}: {v}")).collect();
                lines.join("\n")
            };
            let (taken, left, right) = (taken.join("\n  "), only(&a, &b), only(&b, &a));
            return Err(format!("seed {seed}:\n  {taken}\nleft said\n{left}\nright said\n{right}\n{}\n{}", replies[0], replies[1]));
        }
        settle(&sides, &step, &replies[0]);
    }
    Ok(())
}

/// What was only begun is waited for: the next answer must not depend on how fast it goes.
fn settle(sides: &[Subject], step: &Step, reply: &Reply) {
    if let (Step::Act { container, what: "kill" }, 204) = (step, reply.code()) {
        for side in sides {
            side.post(&format!("/containers/{}/wait", side.name(&format!("c{container}"))));
        }
    }
}

fn send(s: &Subject, step: &Step) -> Reply {
    let c = |n: usize| s.name(&format!("c{n}"));
    let n = |n: usize| s.name(&format!("n{n}"));
    match step {
        Step::Create { container, network, volume } => {
            let mounts = volume.then(|| json!([{ "Type": "volume", "Source": s.name("v"), "Target": "/data" }]));
            let mode = network.map_or_else(|| "none".to_owned(), n);
            let body = s.body(json!({ "Labels": { s.name("set"): "" }, "HostConfig": { "NetworkMode": mode, "Mounts": mounts } }));
            s.send(&format!("/containers/create?name={}", c(*container)), &body)
        }
        Step::Act { container, what } => s.post(&format!("/containers/{}/{what}", c(*container))),
        Step::Rename { container, to } => s.post(&format!("/containers/{}/rename?name={}", c(*container), c(*to))),
        Step::Update { container, pids } => s.send(&format!("/containers/{}/update", c(*container)), &json!({ "PidsLimit": pids })),
        Step::Remove { container, force } => s.delete(&format!("/containers/{}?force={force}&v=1", c(*container))),
        Step::Inspect { container } => s.get(&format!("/containers/{}/json", c(*container))),
        Step::List => s.get(&format!("/containers/json?all=1&filters={}", percent(&json!({ "label": [s.name("set")] }).to_string()))),
        Step::NetworkCreate { network, internal } => {
            s.send("/networks/create", &json!({ "Name": n(*network), "CheckDuplicate": true, "Internal": internal }))
        }
        Step::NetworkRemove { network } => s.delete(&format!("/networks/{}", n(*network))),
        Step::NetworkInspect { network } => s.get(&format!("/networks/{}", n(*network))),
        Step::Connect { network, container } => {
            let endpoint = json!({ "Container": c(*container), "EndpointConfig": { "Aliases": ["also"] } });
            s.send(&format!("/networks/{}/connect", n(*network)), &endpoint)
        }
        Step::Disconnect { network, container, force } => {
            s.send(&format!("/networks/{}/disconnect", n(*network)), &json!({ "Container": c(*container), "Force": force }))
        }
        Step::VolumeCreate => s.send("/volumes/create", &json!({ "Name": s.name("v"), "Labels": { "a": "1" } })),
        Step::VolumeRemove => s.delete(&format!("/volumes/{}", s.name("v"))),
    }
}

/// What an answer says, by path, without what is different on every engine and in every run.
fn said(s: &Subject, reply: &Reply) -> BTreeMap<String, String> {
    let mut said = BTreeMap::from([("code".to_owned(), reply.code().to_string())]);
    match serde_json::from_slice::<Value>(reply.bytes()) {
        Ok(value) => walk(s, "", false, &value, &mut said),
        Err(_) => drop(said.insert("text".to_owned(), plain(s, &reply.text()))),
    }
    said
}

fn walk(s: &Subject, path: &str, read: bool, value: &Value, said: &mut BTreeMap<String, String>) {
    let kind = match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                // Of a process id only counts that there is one.
                let value = if key == "Pid" { &json!(value != &json!(0)) } else { value };
                walk(s, &format!("{path}.{}", plain(s, key)), read || READ.contains(&key.as_str()), value, said);
            }
            "object".to_owned()
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                // The fields of Docker's lists are alike; only where order means something is it compared.
                let path = if read || list.len() == 1 { format!("{path}[{at}]") } else { format!("{path}[]") };
                walk(s, &path, read, value, said);
            }
            "array".to_owned()
        }
        Value::String(text) if read => plain(s, text),
        Value::Number(number) if read => number.to_string(),
        Value::Bool(flag) if read => flag.to_string(),
        Value::String(_) => "string".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Null => "null".to_owned(),
    };
    said.insert(path.to_owned(), kind);
}

/// A text with the names of the case made short, and ids, times and addresses made one.
fn plain(s: &Subject, text: &str) -> String {
    let text = text.replace(s.prefix(), "");
    let mut plain = String::new();
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '/');
    for part in text.split_inclusive(|c: char| !word(c)) {
        let (body, tail) = part.strip_suffix(|c: char| !word(c)).map_or((part, ""), |body| (body, &part[body.len()..]));
        plain.push_str(kind_of(body).unwrap_or(body));
        plain.push_str(tail);
    }
    if let Some(rest) = plain.strip_prefix("Up ") {
        return format!("Up {}", rest.rsplit_once(" (").map_or("", |(_, health)| health));
    }
    match plain.split_once(") ") {
        Some((code, _)) if code.starts_with("Exited (") => format!("{code})"),
        _ => plain,
    }
}

fn kind_of(word: &str) -> Option<&'static str> {
    let bare = word.trim_start_matches("sha256:");
    let digits = |word: &str| word.bytes().all(|b| b.is_ascii_hexdigit());
    if digits(bare) && matches!(bare.len(), 12 | 64) {
        return Some("<id>");
    }
    let address = word.split('/').next().unwrap_or_default();
    if address.split('.').count() == 4 && address.split('.').all(|n| n.parse::<u8>().is_ok()) {
        return Some("<address>");
    }
    (word.len() >= 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T').then_some("<time>")
}
