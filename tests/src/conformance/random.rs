//! Random requests, sent to two engines: the same must come back from both.
//!
//! A sequence is drawn from a seed over a few names, so that requests meet things that are there, were there, or never were. Both engines
//! get it request by request; answers are compared whole, after what must differ (ids, times, paths of the host) was given one name.
//! Start at [`compare`].

mod draw;
mod normal;

use std::fmt;

use serde_json::{Value, json};

use super::Subject;
use crate::support::http::Place;
use normal::Names;

/// How many requests a sequence has.
const LENGTH: usize = 25;
/// How often a shorter sequence is tried after a difference.
const SHRINKS: usize = 80;

/// One request. The path has its query and `@` where the names of the run begin.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    method: &'static str,
    path: String,
    body: Option<Value>,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        self.body.as_ref().map_or(Ok(()), |body| write!(f, " {body}"))
    }
}

/// Where two engines differ.
#[derive(Debug)]
struct Difference {
    /// The requests up to the one whose answer differs.
    requests: Vec<Request>,
    text: String,
}

/// Sends the sequence of a seed to both engines; gives how many requests were compared.
///
/// # Errors
/// Where they differ: the seed, and a shorter sequence that differs too.
pub fn compare(one: &Place, other: &Place, seed: u64) -> Result<usize, String> {
    let requests = draw::sequence(seed, LENGTH);
    let Some(first) = run(one, other, &requests) else { return Ok(requests.len()) };
    let small = shrink(one, other, first);
    let list: String = small.requests.iter().map(|r| format!("  {r}\n")).collect();
    Err(format!("seed {seed}: the engines differ after\n{list}{}\n", small.text))
}

/// Drops requests as long as the engines still differ.
fn shrink(one: &Place, other: &Place, mut found: Difference) -> Difference {
    let (mut at, mut tries) = (0, 0);
    // The last request is the one that shows it.
    while at + 1 < found.requests.len() && tries < SHRINKS {
        let mut fewer = found.requests.clone();
        fewer.remove(at);
        tries += 1;
        match run(one, other, &fewer) {
            Some(smaller) => found = smaller,
            None => at += 1,
        }
    }
    found
}

/// Sends requests to both engines, to the first difference.
fn run(one: &Place, other: &Place, requests: &[Request]) -> Option<Difference> {
    let mut sides = [Side::new(one), Side::new(other)];
    for (at, request) in requests.iter().enumerate() {
        let [a, b] = sides.each_mut().map(|side| side.send(request));
        if a != b {
            return Some(Difference { requests: requests[..=at].to_vec(), text: unequal(&a, &b) });
        }
    }
    let [a, b] = sides.each_ref().map(Side::events);
    (a != b).then(|| Difference { requests: requests.to_vec(), text: format!("in their events:\n{}", unequal(&a, &b)) })
}

/// The container that a path is about.
fn container_in(path: &str) -> &str {
    path.split_once("/containers/").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default()
}

/// The places where two documents differ.
fn unequal(a: &Value, b: &Value) -> String {
    let mut out = Vec::new();
    differ("", a, b, &mut out);
    out.join("\n")
}

fn differ(path: &str, a: &Value, b: &Value, out: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let keys: std::collections::BTreeSet<&String> = x.keys().chain(y.keys()).collect();
            for key in keys {
                let absent = Value::String("<absent>".to_owned());
                differ(&format!("{path}.{key}"), x.get(key).unwrap_or(&absent), y.get(key).unwrap_or(&absent), out);
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (at, (a, b)) in x.iter().zip(y).enumerate() {
                differ(&format!("{path}[{at}]"), a, b, out);
            }
        }
        _ if a == b => {}
        _ => out.push(format!("{path}: {a} and {b}")),
    }
}

/// One engine, in the course of one sequence.
struct Side {
    subject: Subject,
    names: Names,
}

impl Side {
    fn new(place: &Place) -> Self {
        let subject = Subject::new(place.clone(), "random");
        let mut names = Names::new(subject.prefix());
        for network in subject.get("/networks").ok(200).as_array().into_iter().flatten() {
            names.call(network["Id"].as_str().unwrap_or_default(), network["Name"].as_str().unwrap_or_default());
        }
        Self { subject, names }
    }

    /// Sends a request, waits until nothing moves any more, and gives what came back in words that both engines share.
    fn send(&mut self, request: &Request) -> Value {
        let s = &self.subject;
        let path = format!("/v1.41{}", request.path.replace('@', s.prefix()));
        let body = request.body.as_ref().map(|b| self.fill(b).to_string());
        let starts = request.path.ends_with("/start") || request.path.contains("/restart");
        // A start that fails may be the end of the container, so who it was is asked before.
        let before = if starts { self.id_of(&path) } else { None };
        let reply = s.raw(request.method, &path, body.as_deref().map(|b| ("application/json", b.as_bytes())));
        let answer: Value = serde_json::from_slice(reply.bytes()).unwrap_or_else(|_| json!(reply.text()));
        if reply.code() == 201
            && let Some(id) = answer["Id"].as_str()
        {
            self.names.learn(id, &request.path, request.body.as_ref());
        }
        if request.path.contains("/kill") && reply.code() == 204 {
            self.ended(&request.path);
        }
        // Of several networks, those that were joined before the missing one was missed are a matter of chance.
        let missed = answer["message"].as_str().is_some_and(|m| m.contains("network ") && m.ends_with(" not found"));
        if missed {
            self.names.blur(before);
        }
        self.settle();
        json!({ "code": reply.code(), "body": self.names.shared(&answer) })
    }

    /// The id of the container that a path is about.
    fn id_of(&self, path: &str) -> Option<String> {
        let reply = self.subject.get(&format!("/containers/{}/json", container_in(path)));
        let shown: Value = serde_json::from_slice(reply.bytes()).ok()?;
        shown["Id"].as_str().map(str::to_owned)
    }

    /// Puts the names and subnets of the run into a body.
    fn fill(&self, body: &Value) -> Value {
        let text = body.to_string().replace('@', self.subject.prefix());
        let text = (0..3).fold(text, |text, n| text.replace(&format!("<net{n}>"), &self.subject.subnet(200 + n)));
        serde_json::from_str(&text).expect("names and numbers break no JSON")
    }

    /// A signal is sent and not waited for: all containers here heed what they are sent.
    fn ended(&self, path: &str) {
        let name = container_in(path).replace('@', self.subject.prefix());
        self.subject.until(|| {
            let reply = self.subject.get(&format!("/containers/{name}/json"));
            let running = reply.code() == 200 && reply.ok(200)["State"]["Running"] == true;
            if running { Err(format!("{name} still runs")) } else { Ok(()) }
        });
    }

    /// Waits until short lives are over and what removes itself is gone.
    fn settle(&self) {
        let s = &self.subject;
        s.until(|| {
            let all = s.filtered("/containers/json?all=1", &json!({ "name": [s.prefix()] })).ok(200);
            for container in all.as_array().into_iter().flatten() {
                let (state, labels) = (&container["State"], &container["Labels"]);
                let moves = match state.as_str().unwrap_or_default() {
                    "running" | "restarting" => labels["brief"].is_string(),
                    "exited" => labels["gone"].is_string(),
                    "removing" | "dead" => true,
                    _ => false,
                };
                if moves {
                    return Err(format!("{} is {state}", container["Names"]));
                }
            }
            Ok(())
        });
    }

    /// What the engine said of the containers, each for itself, and of networks and volumes, counted.
    fn events(&self) -> Value {
        self.names.events(&self.subject.events(&json!({ "type": ["container", "network", "volume"] })))
    }
}
