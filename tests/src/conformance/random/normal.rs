//! Gives one name to what two engines must call differently.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// Fields of which only counts whether they are set: times, paths of the host, numbers of processes.
const SET_OR_NOT: &[&str] = &[
    "Created",
    "CreatedAt",
    "StartedAt",
    "FinishedAt",
    "Pid",
    "SandboxID",
    "SandboxKey",
    "EndpointID",
    "ResolvConfPath",
    "HostnamePath",
    "HostsPath",
    "LogPath",
];
/// Fields that are the machine's.
const FOREIGN: &[&str] = &["GraphDriver", "CgroupnsMode"];

/// The ids of one engine, and what they stand for.
pub(super) struct Names {
    prefix: String,
    ids: BTreeMap<String, String>,
    /// Containers whose networks' events are left to chance.
    blurred: BTreeSet<String>,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), ids: BTreeMap::new(), blurred: BTreeSet::new() }
    }

    /// An id that was there before.
    pub(super) fn call(&mut self, id: &str, name: &str) {
        self.ids.insert(id.to_owned(), format!("<{name}>"));
    }

    /// An id that was given: things of one kind are counted in the order in which they were made.
    pub(super) fn learn(&mut self, id: &str, path: &str, body: Option<&Value>) {
        let kind = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let kind = if path.ends_with("/exec") { "exec" } else { kind };
        let number = self.ids.values().filter(|n| n.starts_with(&format!("<{kind} "))).count();
        let named = body.and_then(|b| b["Name"].as_str()).unwrap_or_default();
        self.ids.insert(id.to_owned(), format!("<{kind} {number}{named}>"));
    }

    /// From now on, nothing is told of the networks of this container.
    pub(super) fn blur(&mut self, container: Option<String>) {
        self.blurred.extend(container);
    }

    /// A document in shared words.
    pub(super) fn shared(&self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let pairs = fields.iter().filter(|(key, _)| !FOREIGN.contains(&key.as_str()));
                let shared: Map<String, Value> = pairs.map(|(key, value)| (self.text(key), self.field(key, value))).collect();
                Value::Object(shared)
            }
            Value::Array(items) => {
                let mut items: Vec<Value> = items.iter().map(|item| self.shared(item)).collect();
                // The engine keeps these in no order.
                for key in ["Destination", "Driver"] {
                    if items.iter().all(|item| item[key].is_string()) {
                        items.sort_by_key(|item| format!("{}{}", item["Destination"], item["Name"]));
                    }
                }
                Value::Array(items)
            }
            Value::String(text) => json!(self.text(text)),
            other => other.clone(),
        }
    }

    fn field(&self, key: &str, value: &Value) -> Value {
        if SET_OR_NOT.contains(&key) && !value.is_object() {
            let empty = [json!(""), json!(0), json!("0001-01-01T00:00:00Z"), Value::Null].contains(value);
            return json!(if empty { "unset" } else { "set" });
        }
        match (key, value.as_str()) {
            ("Mountpoint" | "Source", Some(path)) => json!(path.rsplit_once("/volumes/").map_or(path, |(_, rest)| rest)),
            ("Image" | "ImageID", Some(id)) if id.starts_with("sha256:") => json!("<image>"),
            ("Status", Some(words)) if words.starts_with("Up ") || words.starts_with("Exited ") => json!(without_time(words)),
            _ => self.shared(value),
        }
    }

    /// A text with ids replaced.
    fn text(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id, name).replace(&id[..12], name))
    }

    /// Events in shared words: of each container in order, of networks and volumes counted, as the engine says them beside each other.
    pub(super) fn events(&self, all: &[Value]) -> Value {
        let mut containers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut others: BTreeMap<String, u64> = BTreeMap::new();
        for event in all {
            let (id, attributes) = (event["Actor"]["ID"].as_str().unwrap_or_default(), &event["Actor"]["Attributes"]);
            let name = self.ids.get(id).cloned().unwrap_or_else(|| id.to_owned());
            let ours = self.ids.contains_key(id) || id.starts_with(&self.prefix);
            let inside = attributes["container"].as_str().and_then(|c| self.ids.get(c));
            if event["Type"] == "network" && attributes["container"].as_str().is_some_and(|c| self.blurred.contains(c)) {
                continue;
            }
            let said = format!("{} {}", event["Action"].as_str().unwrap_or_default(), self.shared(attributes));
            if event["Type"] == "container" && ours {
                containers.entry(name).or_default().push(said);
            } else if ours || inside.is_some() {
                // Predefined networks have ids that nobody gave us.
                let name = if ours { name } else { attributes["name"].as_str().unwrap_or_default().to_owned() };
                *others.entry(format!("{} {name} {said}", event["Type"].as_str().unwrap_or_default())).or_default() += 1;
            }
        }
        // A signal and the end that it brings are said by two threads of the engine.
        for said in containers.values_mut() {
            for at in 1..said.len() {
                if said[at].starts_with("kill ") && said[at - 1].starts_with("die ") {
                    said.swap(at - 1, at);
                }
            }
        }
        json!({ "containers": containers, "others": others })
    }
}

/// `Up 3 seconds (healthy)` is `Up (healthy)`, `Exited (1) 3 seconds ago` is `Exited (1)`.
fn without_time(words: &str) -> String {
    let first = words.split(' ').next().unwrap_or_default();
    let rest: Vec<&str> = words.split(' ').filter(|w| w.starts_with('(')).collect();
    format!("{first} {}", rest.join(" "))
}
