//! The engine under test as one case sees it: requests, what nearly every case makes, and the clearing away.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::Recorder;
use crate::support::docker::{Docker, percent};
use crate::support::http::{self, Answer, Place};
use crate::support::registry::Registry;
use crate::support::{simulator, wait};

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);
/// The image that cases use.
pub(super) const IMAGE: &str = "busybox:local";

/// An engine, and the names that one case uses on it. What the case made goes when this is dropped.
#[derive(Debug)]
pub struct Subject {
    place: Place,
    prefix: String,
    began: String,
}

/// An answer, together with what was asked.
#[derive(Clone, Debug)]
pub struct Reply {
    request: String,
    answer: Answer,
}

impl Reply {
    /// The answer must have this code; gives its JSON, null where it has none.
    #[track_caller]
    pub fn ok(&self, code: u16) -> Value {
        assert_eq!(self.answer.code, code, "{self}");
        self.answer.json()
    }

    /// The answer must have this code and no body.
    #[track_caller]
    pub fn empty(&self, code: u16) {
        self.ok(code);
        assert!(self.answer.body.is_empty(), "{self}");
    }

    /// The answer must be a refusal in exactly these words.
    #[track_caller]
    pub fn refused(&self, code: u16, message: &str) {
        let body = self.ok(code);
        assert_eq!(body, json!({ "message": message }), "{}", self.request);
        assert_eq!(self.header("content-type").as_deref(), Some("application/json"), "{self}");
    }

    /// The answer must be a refusal with these words in it, in this order.
    #[track_caller]
    pub fn refused_like(&self, code: u16, parts: &[&str]) {
        let message = text(&self.ok(code)["message"]);
        let mut rest = message.as_str();
        for part in parts {
            let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is missing: {self}"));
            rest = &rest[at + part.len()..];
        }
    }

    /// A header, in lower case.
    pub fn header(&self, name: &str) -> Option<String> {
        http::header(&self.answer.head, name)
    }

    /// A header as it was sent.
    pub fn raw_header(&self, name: &str) -> Option<String> {
        let mut pairs = self.answer.head.lines().filter_map(|l| l.split_once(':'));
        pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    }

    /// The code.
    pub fn code(&self) -> u16 {
        self.answer.code
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.answer.body
    }

    /// The body as text.
    pub fn text(&self) -> String {
        self.answer.text()
    }

    /// The body as JSON, one value a line.
    pub fn lines(&self) -> Vec<Value> {
        self.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The frames of a multiplexed stream, as channel and payload; neighbours of one channel are put together.
    #[track_caller]
    pub fn frames(&self) -> Vec<(u8, String)> {
        let mut frames: Vec<(u8, String)> = Vec::new();
        let mut rest = self.bytes();
        while let Some((head, tail)) = rest.split_at_checked(8) {
            let size = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            assert!(head[1..4] == [0; 3] && tail.len() >= size, "a broken frame: {:?}", self.bytes());
            let payload = String::from_utf8_lossy(&tail[..size]).into_owned();
            match frames.last_mut() {
                Some((channel, text)) if *channel == head[0] => text.push_str(&payload),
                _ => frames.push((head[0], payload)),
            }
            rest = &tail[size..];
        }
        assert!(rest.is_empty(), "bytes after the last frame: {rest:?}");
        frames
    }

    /// What came on one channel of a multiplexed stream.
    #[track_caller]
    pub fn channel(&self, which: u8) -> String {
        self.frames().into_iter().filter(|(channel, _)| *channel == which).map(|(_, text)| text).collect()
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered {}: {}", self.request, self.answer.code, self.answer.text())
    }
}

/// Everything in `wanted` must be in `actual`: of an object the named fields, of a list all elements in order.
#[track_caller]
pub(super) fn has(actual: &Value, wanted: &Value) {
    let mut differences = Vec::new();
    compare("", actual, wanted, &mut differences);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn compare(path: &str, actual: &Value, wanted: &Value, out: &mut Vec<String>) {
    match (actual, wanted) {
        (Value::Object(a), Value::Object(w)) => {
            for (key, wanted) in w {
                match a.get(key) {
                    Some(actual) => compare(&format!("{path}.{key}"), actual, wanted, out),
                    None => out.push(format!("{path}.{key} is not there, wanted {wanted}")),
                }
            }
        }
        (Value::Array(a), Value::Array(w)) if a.len() == w.len() => {
            for (at, (actual, wanted)) in a.iter().zip(w).enumerate() {
                compare(&format!("{path}[{at}]"), actual, wanted, out);
            }
        }
        (actual, wanted) if actual == wanted => {}
        (actual, wanted) => out.push(format!("{path} is {actual}, wanted {wanted}")),
    }
}

/// Lays one value over another, object by object.
pub(super) fn merge(base: &mut Value, patch: Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, patch) => *base = patch,
    }
}

/// A text in an answer.
#[track_caller]
pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// The names of an object's fields.
pub(super) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().into_iter().flat_map(|o| o.keys()).map(String::as_str).collect()
}

/// Whether it looks like the id of a container or a network.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A registry for one case.
#[derive(Debug)]
pub struct Private {
    /// Its address.
    pub host: String,
    /// The real one ends with this.
    #[expect(dead_code, reason = "held for its end")]
    real: Option<Registry>,
}

impl Subject {
    /// An engine, for one case.
    pub fn new(place: Place, case: &str) -> Self {
        let prefix = format!("conf-{case}-{}-", std::process::id());
        let mut subject = Self { place, prefix, began: String::new() };
        subject.began = subject.now();
        subject
    }

    /// A name that only this case has.
    pub fn name(&self, part: &str) -> String {
        format!("{}{part}", self.prefix)
    }

    /// What all names of this case start with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Sends a request; the path has its version already.
    #[track_caller]
    pub fn raw(&self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> Reply {
        let request = match body {
            Some((kind, bytes)) if kind.contains("json") => format!("{method} {path} {}", String::from_utf8_lossy(bytes)),
            _ => format!("{method} {path}"),
        };
        match http::call(&self.place, method, path, body) {
            Ok(answer) => Reply { request, answer },
            Err(error) => panic!("{request}: no answer: {error}"),
        }
    }

    /// Reads.
    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.raw("GET", &format!("/v1.41{path}"), None)
    }

    /// Reads with filters.
    #[track_caller]
    pub fn filtered(&self, path: &str, filters: &Value) -> Reply {
        let glue = if path.contains('?') { '&' } else { '?' };
        self.get(&format!("{path}{glue}filters={}", percent(&filters.to_string())))
    }

    /// Posts nothing.
    #[track_caller]
    pub fn post(&self, path: &str) -> Reply {
        self.raw("POST", &format!("/v1.41{path}"), None)
    }

    /// Posts JSON.
    #[track_caller]
    pub fn send(&self, path: &str, body: &Value) -> Reply {
        self.send_text(path, &body.to_string())
    }

    /// Posts something that may be no JSON at all.
    #[track_caller]
    pub fn send_text(&self, path: &str, body: &str) -> Reply {
        self.raw("POST", &format!("/v1.41{path}"), Some(("application/json", body.as_bytes())))
    }

    /// Deletes.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Reply {
        self.raw("DELETE", &format!("/v1.41{path}"), None)
    }

    /// What is laid over the body of a container that sleeps, heeds SIGTERM and has no network.
    pub fn body(&self, patch: Value) -> Value {
        let mut body = json!({ "Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": { "NetworkMode": "none", "Init": true } });
        merge(&mut body, patch);
        body
    }

    /// Asks for a container; `patch` is laid over [`Subject::body`].
    #[track_caller]
    pub fn try_create(&self, part: &str, patch: Value) -> Reply {
        self.send(&format!("/containers/create?name={}", self.name(part)), &self.body(patch))
    }

    /// Makes a container; gives its id.
    #[track_caller]
    pub fn create(&self, part: &str, patch: Value) -> String {
        let id = text(&self.try_create(part, patch).ok(201)["Id"]);
        assert!(is_id(&id), "{id}");
        id
    }

    /// Makes and starts a container; gives its id.
    #[track_caller]
    pub fn start(&self, part: &str, patch: Value) -> String {
        let id = self.create(part, patch);
        self.post(&format!("/containers/{id}/start")).empty(204);
        id
    }

    /// Does something with a container: `act` is what follows its id in the path.
    #[track_caller]
    pub fn act(&self, id: &str, act: &str) -> Reply {
        self.post(&format!("/containers/{id}/{act}"))
    }

    /// A container as the engine shows it.
    #[track_caller]
    pub fn inspect(&self, id: &str) -> Value {
        self.get(&format!("/containers/{id}/json")).ok(200)
    }

    /// A registry that has [`simulator::PRIVATE`] for one user alone.
    pub fn private_registry(&self) -> Private {
        match &self.place {
            Place::Unix(socket) if simulator::is_it(socket) => Private { host: simulator::REGISTRY.to_owned(), real: None },
            Place::Unix(socket) => {
                let real = Registry::start();
                let (repository, tag) = simulator::PRIVATE.split_once(':').expect("it has a tag");
                real.push(&Docker::new(socket), IMAGE, repository, tag);
                Private { host: real.host().to_owned(), real: Some(real) }
            }
            Place::Tcp(_) => panic!("an engine over TCP is none of this machine's"),
        }
    }

    /// Pulls an image, and shows its registry what the header says.
    #[track_caller]
    pub fn pull(&self, image: &str, tag: &str, auth: Option<&str>) -> Reply {
        let path = format!("/v1.41/images/create?fromImage={image}&tag={tag}");
        let Some(auth) = auth else { return self.raw("POST", &path, None) };
        let request = format!("POST {path} with {auth}");
        let answer = http::post_with(&self.place, &path, ("X-Registry-Auth", auth));
        Reply { answer: answer.unwrap_or_else(|error| panic!("{request}: no answer: {error}")), request }
    }

    /// Makes a network; `patch` is laid over the body. Gives its id.
    #[track_caller]
    pub fn network(&self, part: &str, patch: Value) -> String {
        text(&self.try_network(part, patch).ok(201)["Id"])
    }

    /// Asks for a network.
    #[track_caller]
    pub fn try_network(&self, part: &str, patch: Value) -> Reply {
        let mut body = json!({ "Name": self.name(part), "Driver": "bridge", "CheckDuplicate": true });
        merge(&mut body, patch);
        self.send("/networks/create", &body)
    }

    /// A subnet that no other process takes, as its first two or three numbers: `10.a.b`.
    pub fn subnet(&self, number: u8) -> String {
        format!("10.{}.{number}", 100 + std::process::id() % 50)
    }

    /// Makes a volume; gives its name.
    #[track_caller]
    pub fn volume(&self, part: &str, patch: Value) -> String {
        let mut body = json!({ "Name": self.name(part) });
        merge(&mut body, patch);
        text(&self.send("/volumes/create", &body).ok(201)["Name"])
    }

    /// Asks until there is an answer.
    #[track_caller]
    pub fn until<T>(&self, ask: impl FnMut() -> Result<T, String>) -> T {
        wait::until(PATIENCE, ask).unwrap_or_else(|why| panic!("waited in vain: {why}"))
    }

    /// Waits until a container is in a state; gives it.
    #[track_caller]
    pub fn until_state(&self, id: &str, state: &str) -> Value {
        self.until(|| {
            let shown = self.inspect(id);
            if shown["State"]["Status"] == state { Ok(shown) } else { Err(format!("{id} is {}", shown["State"])) }
        })
    }

    /// The engine's clock: seconds with nine digits after the point.
    pub fn now(&self) -> String {
        let time = text(&self.get("/info").ok(200)["SystemTime"]);
        let (whole, fraction) = time.trim_end_matches('Z').split_once('.').unwrap_or((time.trim_end_matches('Z'), "0"));
        let seconds = qm_api::time::Timestamp::parse(&format!("{whole}Z")).unwrap_or_else(|e| panic!("{time}: {e}")).as_seconds();
        format!("{seconds}.{fraction:0<9}")
    }

    /// The events since the case began that pass the filters; the answer ends by itself.
    #[track_caller]
    pub fn events(&self, filters: &Value) -> Vec<Value> {
        self.filtered(&format!("/events?since={}&until={}", self.began, self.now()), filters).lines()
    }

    /// Follows events from now on.
    pub fn record(&self) -> Recorder {
        Recorder::start(&self.place, "GET", "/v1.41/events")
    }

    /// Where the engine listens.
    pub fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let ours = |name: &Value| name.as_str().is_some_and(|n| n.trim_start_matches('/').starts_with(&self.prefix));
        let list = |path: &str| self.get(path).answer.json();
        // What is gone already answers 404, and nothing here is worth a second panic.
        for container in list("/containers/json?all=1").as_array().into_iter().flatten() {
            if container["Names"].as_array().is_some_and(|names| names.iter().any(ours)) {
                self.delete(&format!("/containers/{}?force=1&v=1", container["Id"].as_str().unwrap_or_default()));
            }
        }
        for network in list("/networks").as_array().into_iter().flatten().filter(|n| ours(&n["Name"])) {
            self.delete(&format!("/networks/{}", network["Id"].as_str().unwrap_or_default()));
        }
        for volume in list("/volumes")["Volumes"].as_array().into_iter().flatten().filter(|v| ours(&v["Name"])) {
            self.delete(&format!("/volumes/{}?force=1", volume["Name"].as_str().unwrap_or_default()));
        }
        for image in list("/images/json").as_array().into_iter().flatten() {
            for tag in image["RepoTags"].as_array().into_iter().flatten().filter(|t| ours(t)) {
                self.delete(&format!("/images/{}", tag.as_str().unwrap_or_default()));
            }
        }
    }
}
