//! The engine under test, seen by one case: requests, helpers for what nearly every case makes, and the clearing away.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use qm_api::time::Timestamp;
use serde_json::{Value, json};

use crate::support::docker::percent;
use crate::support::http::{self, Answer, Place};
use crate::support::wait;

/// How long a condition may take to come true; a case that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The image that cases use.
pub const IMAGE: &str = "busybox:local";

/// An engine and the names that one case uses on it. What it made goes when it is dropped.
#[derive(Debug)]
pub struct Subject {
    place: Place,
    prefix: String,
    /// When the case began, by the engine's clock.
    began: String,
    /// Ids of containers, volumes and networks whose names do not start with the prefix.
    nameless: RefCell<Vec<String>>,
}

/// An answer together with what was asked, for messages.
#[derive(Clone, Debug)]
pub struct Reply {
    request: String,
    answer: Answer,
}

impl Reply {
    /// The answer must have this code; gives its JSON, null where there is none.
    #[track_caller]
    pub fn ok(&self, code: u16) -> Value {
        assert_eq!(self.answer.code, code, "{self}");
        self.answer.json()
    }

    /// The answer must be a refusal with exactly this message.
    #[track_caller]
    pub fn refused(&self, code: u16, message: &str) {
        let body = self.ok(code);
        assert_eq!(body, json!({ "message": message }), "{}", self.request);
        assert_eq!(self.header("content-type").as_deref(), Some("application/json"), "{self}");
    }

    /// The answer must be a refusal whose message has this in it: for messages that quote what only this engine knows.
    #[track_caller]
    pub fn refused_with(&self, code: u16, part: &str) {
        let body = self.ok(code);
        assert!(body["message"].as_str().is_some_and(|m| m.contains(part)), "wanted {part:?} in it: {self}");
    }

    /// The answer must have no body.
    #[track_caller]
    pub fn empty(&self, code: u16) {
        self.ok(code);
        assert!(self.answer.body.is_empty(), "{self}");
    }

    /// A header in lower case.
    pub fn header(&self, name: &str) -> Option<String> {
        http::header(&self.answer.head, name)
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

    /// The body as JSON values, one a line.
    pub fn lines(&self) -> Vec<Value> {
        self.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered {}: {}", self.request, self.answer.code, self.answer.text())
    }
}

/// Everything in `wanted` must be in `actual`: of an object the named fields, of an array all elements. Says every difference.
#[track_caller]
pub fn has(actual: &Value, wanted: &Value) {
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

/// Lays `patch` over `base`, object by object.
pub fn merge(base: &mut Value, patch: Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, patch) => *base = patch,
    }
}

/// A text field of an answer.
#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// Whether it looks like the id of a container, a network or a nameless volume.
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl Subject {
    /// An engine, for one case.
    pub fn new(place: Place, case: &str) -> Self {
        let prefix = format!("conf-{case}-{}-", std::process::id());
        let mut subject = Self { place, prefix, began: String::new(), nameless: RefCell::default() };
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

    /// Something that this case made without giving it a name: it goes with the rest.
    pub fn owes(&self, id: &str) {
        self.nameless.borrow_mut().push(id.to_owned());
    }

    /// Sends a request whose path has its version already.
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
    pub fn get(&self, path: &str) -> Reply {
        self.raw("GET", &format!("/v1.41{path}"), None)
    }

    /// Reads with filters, which are a JSON object in the query.
    pub fn filtered(&self, path: &str, filters: &Value) -> Reply {
        let glue = if path.contains('?') { '&' } else { '?' };
        self.get(&format!("{path}{glue}filters={}", percent(&filters.to_string())))
    }

    /// Posts nothing.
    pub fn post(&self, path: &str) -> Reply {
        self.raw("POST", &format!("/v1.41{path}"), None)
    }

    /// Posts nothing, and while the engine has only begun to answer does something else.
    #[track_caller]
    pub fn post_while(&self, path: &str, meanwhile: impl FnOnce()) -> Reply {
        self.answered_while("POST", path, meanwhile)
    }

    /// Reads, and while the engine has only begun to answer does something else.
    #[track_caller]
    pub fn get_while(&self, path: &str, meanwhile: impl FnOnce()) -> Reply {
        self.answered_while("GET", path, meanwhile)
    }

    #[track_caller]
    fn answered_while(&self, method: &str, path: &str, meanwhile: impl FnOnce()) -> Reply {
        let request = format!("{method} {path}");
        let begun = http::begin(&self.place, method, &format!("/v1.41{path}"), None);
        meanwhile();
        match begun.and_then(http::Begun::rest) {
            Ok(answer) => Reply { request, answer },
            Err(error) => panic!("{request}: no answer: {error}"),
        }
    }

    /// Posts JSON.
    pub fn send(&self, path: &str, body: &Value) -> Reply {
        self.raw("POST", &format!("/v1.41{path}"), Some(("application/json", body.to_string().as_bytes())))
    }

    /// Puts an archive.
    pub fn put(&self, path: &str, archive: &[u8]) -> Reply {
        self.raw("PUT", &format!("/v1.41{path}"), Some(("application/x-tar", archive)))
    }

    /// Deletes.
    pub fn delete(&self, path: &str) -> Reply {
        self.raw("DELETE", &format!("/v1.41{path}"), None)
    }

    /// The engine's clock, in seconds with nine digits after the point.
    pub fn now(&self) -> String {
        let time = text(&self.get("/info").ok(200)["SystemTime"]);
        let (whole, fraction) = time.trim_end_matches('Z').split_once('.').unwrap_or((time.trim_end_matches('Z'), "0"));
        let seconds = Timestamp::parse(&format!("{whole}Z")).unwrap_or_else(|e| panic!("{time}: {e}")).as_seconds();
        format!("{seconds}.{fraction:0<9}")
    }

    /// What is laid over the body of a container that sleeps, without a network.
    pub fn body(&self, patch: Value) -> Value {
        let mut body = json!({ "Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": { "NetworkMode": "none", "Init": true } });
        merge(&mut body, patch);
        body
    }

    /// Makes a container; gives its id.
    #[track_caller]
    pub fn create(&self, part: &str, patch: Value) -> String {
        let made = self.send(&format!("/containers/create?name={}", self.name(part)), &self.body(patch)).ok(201);
        text(&made["Id"])
    }

    /// Makes and starts a container; gives its id.
    #[track_caller]
    pub fn start(&self, part: &str, patch: Value) -> String {
        let id = self.create(part, patch);
        self.post(&format!("/containers/{id}/start")).empty(204);
        id
    }

    /// A container as the engine shows it.
    #[track_caller]
    pub fn inspect(&self, id: &str) -> Value {
        self.get(&format!("/containers/{id}/json")).ok(200)
    }

    /// Makes a network; gives its id.
    #[track_caller]
    pub fn network(&self, part: &str, patch: Value) -> String {
        let mut body = json!({ "Name": self.name(part), "Driver": "bridge", "CheckDuplicate": true });
        merge(&mut body, patch);
        text(&self.send("/networks/create", &body).ok(201)["Id"])
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

    /// All events since the case began that pass the filters: a closed interval, which ends by itself.
    pub fn events(&self, filters: &Value) -> Vec<Value> {
        self.filtered(&format!("/events?since={}&until={}", self.began, self.now()), filters).lines()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let ours = |name: &Value| name.as_str().is_some_and(|n| n.trim_start_matches('/').starts_with(&self.prefix));
        let list = self.get("/containers/json?all=1").answer.json();
        let named = list.as_array().into_iter().flatten().filter(|c| c["Names"].as_array().is_some_and(|n| n.iter().any(ours)));
        let nameless = self.nameless.borrow();
        // What is gone already, or never was, answers 404: nothing here is worth a panic.
        for id in named.filter_map(|c| c["Id"].as_str()).chain(nameless.iter().map(String::as_str)) {
            self.delete(&format!("/containers/{id}?force=1&v=1"));
        }
        let networks = self.get("/networks").answer.json();
        let ids = networks.as_array().into_iter().flatten().filter(|n| ours(&n["Name"])).filter_map(|n| n["Id"].as_str());
        for id in ids.chain(nameless.iter().map(String::as_str)) {
            self.delete(&format!("/networks/{id}"));
        }
        let volumes = self.get("/volumes").answer.json();
        let names = volumes["Volumes"].as_array().into_iter().flatten().filter(|v| ours(&v["Name"])).filter_map(|v| v["Name"].as_str());
        for name in names.chain(nameless.iter().map(String::as_str)) {
            self.delete(&format!("/volumes/{name}?force=1"));
        }
        let images = self.get("/images/json").answer.json();
        let tags = images.as_array().into_iter().flatten().filter_map(|i| i["RepoTags"].as_array()).flatten();
        for tag in tags.filter(|t| ours(t)).filter_map(Value::as_str) {
            self.delete(&format!("/images/{tag}"));
        }
    }
}
