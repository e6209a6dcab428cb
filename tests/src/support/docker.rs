//! What is really there: the engine's own word, read past operator and proxy, and the acts of a careless colleague.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{self, Answer, Place};

/// A client of one engine.
#[derive(Clone, Debug)]
pub struct Docker {
    socket: PathBuf,
}

/// A container as the engine shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// The reference that it was made from.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// `running`, `exited`, ..
    pub state: String,
    /// When it last started.
    pub started_at: String,
    /// How often the engine started it again by itself.
    pub restarts: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Names of its networks.
    pub networks: BTreeSet<String>,
    /// Memory limit.
    pub memory: i64,
}

impl Container {
    /// What must not change while nothing is to be done: id, start, restarts.
    pub fn life(&self) -> (String, String, u64) {
        (self.id.clone(), self.started_at.clone(), self.restarts)
    }
}

impl Docker {
    /// A client of the engine behind a socket.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_path_buf() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends a request; panics when the engine does not answer.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bytes = body.map(|b| b.to_string().into_bytes());
        let body = bytes.as_deref().map(|b| ("application/json", b));
        http::call(&Place::Unix(self.socket.clone()), method, &format!("/v1.41{path}"), body)
            .unwrap_or_else(|e| panic!("{method} {path}: the engine at {} does not answer: {e}", self.socket.display()))
    }

    /// Sends a request that must succeed.
    pub fn must(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.call(method, path, body);
        assert!(answer.is_ok() || answer.code == 304, "{method} {path} answered {}: {}", answer.code, answer.text());
        answer.json()
    }

    /// Runs a command in a container and gives what it prints.
    pub fn exec(&self, container: &str, command: &[&str]) -> String {
        let body = serde_json::json!({ "Cmd": command, "AttachStdout": true, "AttachStderr": true, "Tty": true });
        let made = self.must("POST", &format!("/containers/{container}/exec"), Some(&body));
        let path = format!("/exec/{}/start", made["Id"].as_str().unwrap_or_default());
        let answer = self.call("POST", &path, Some(&serde_json::json!({ "Detach": false, "Tty": true })));
        answer.text()
    }

    /// Whether the engine answers. One that is just starting may take a connection and forget it, so this has little patience.
    pub fn is_up(&self) -> bool {
        let place = Place::Unix(self.socket.clone());
        http::call_within(Duration::from_secs(1), &place, "GET", "/_ping", None).is_ok_and(|a| a.is_ok())
    }

    /// The containers that have this label, by name.
    pub fn labelled(&self, label: &str) -> BTreeMap<String, Container> {
        let filters = json!({ "label": [label] }).to_string();
        let list = self.must("GET", &format!("/containers/json?all=true&filters={}", percent(&filters)), None);
        let ids = list.as_array().into_iter().flatten().filter_map(|c| c["Id"].as_str().map(str::to_owned));
        ids.filter_map(|id| self.inspect(&id)).map(|c| (c.name.clone(), c)).collect()
    }

    /// The containers of an instance, by name.
    pub fn containers(&self, instance: &str) -> BTreeMap<String, Container> {
        self.labelled(&format!("quaymaster.dev/instance={instance}"))
    }

    /// One container, by id or name.
    pub fn inspect(&self, id: &str) -> Option<Container> {
        let answer = self.call("GET", &format!("/containers/{id}/json"), None);
        if answer.code == 404 {
            return None;
        }
        let c = answer.json();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let map = |v: &Value| v.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), text(v))).collect();
        Some(Container {
            id: text(&c["Id"]),
            name: text(&c["Name"]).trim_start_matches('/').to_owned(),
            image: text(&c["Config"]["Image"]),
            image_id: text(&c["Image"]),
            state: text(&c["State"]["Status"]),
            started_at: text(&c["State"]["StartedAt"]),
            restarts: c["RestartCount"].as_u64().unwrap_or(0),
            labels: map(&c["Config"]["Labels"]),
            networks: c["NetworkSettings"]["Networks"].as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect(),
            memory: c["HostConfig"]["Memory"].as_i64().unwrap_or(0),
        })
    }

    /// The names of the networks with this label, by id.
    pub fn networks(&self, label: &str) -> BTreeMap<String, String> {
        let filters = json!({ "label": [label] }).to_string();
        let list = self.must("GET", &format!("/networks?filters={}", percent(&filters)), None);
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        list.as_array().into_iter().flatten().map(|n| (text(&n["Id"]), text(&n["Name"]))).collect()
    }

    /// Makes and starts a container that is none of ours; gives its id.
    pub fn run_foreign(&self, name: &str, labels: &Value) -> String {
        let body = json!({
            "Image": "busybox:local", "Cmd": ["sleep", "86400"], "Labels": labels,
            "HostConfig": { "NetworkMode": "none", "Init": true },
        });
        let made = self.must("POST", &format!("/containers/create?name={name}"), Some(&body));
        let id = made["Id"].as_str().expect("a new container has an id").to_owned();
        self.must("POST", &format!("/containers/{id}/start"), None);
        id
    }

    /// `docker rm -f`.
    pub fn remove(&self, id: &str) {
        let answer = self.call("DELETE", &format!("/containers/{id}?force=true&v=true"), None);
        // Somebody else may be removing it already.
        assert!(answer.is_ok() || matches!(answer.code, 404 | 409), "removing {id}: {}", answer.text());
    }

    /// Removes whatever has this label: containers, networks, volumes.
    pub fn sweep(&self, label: &str) {
        let filters = json!({ "label": [label] }).to_string();
        let list = self.must("GET", &format!("/containers/json?all=true&filters={}", percent(&filters)), None);
        for id in list.as_array().into_iter().flatten().filter_map(|c| c["Id"].as_str()) {
            self.remove(id);
        }
        for id in self.networks(label).keys() {
            // A network in use stays; whoever uses it is foreign.
            self.call("DELETE", &format!("/networks/{id}"), None);
        }
        let volumes = self.must("GET", &format!("/volumes?filters={}", percent(&filters)), None);
        for name in volumes["Volumes"].as_array().into_iter().flatten().filter_map(|v| v["Name"].as_str()) {
            self.call("DELETE", &format!("/volumes/{name}?force=true"), None);
        }
    }

    /// The id of an image, if it is there.
    pub fn image(&self, reference: &str) -> Option<String> {
        let answer = self.call("GET", &format!("/images/{reference}/json"), None);
        answer.is_ok().then(|| answer.json()["Id"].as_str().unwrap_or_default().to_owned())
    }

    /// The names of an image in registries on this machine: its tags, and then its digests.
    pub fn names_on_loopback(&self, reference: &str) -> Vec<String> {
        let answer = self.call("GET", &format!("/images/{reference}/json"), None);
        let found = if answer.is_ok() { answer.json() } else { Value::Null };
        let names = ["RepoTags", "RepoDigests"].into_iter().flat_map(|list| found[list].as_array().cloned().unwrap_or_default());
        names.filter_map(|name| name.as_str().map(str::to_owned)).filter(|name| name.starts_with("127.0.0.1:")).collect()
    }

    /// Takes a name of an image away, and the image with the last one.
    pub fn forget_image(&self, reference: &str) {
        let answer = self.call("DELETE", &format!("/images/{reference}"), None);
        assert!(answer.is_ok() || answer.code == 404, "removing {reference}: {}", answer.text());
    }

    /// Makes an image from a root file system in a tar archive.
    pub fn import(&self, repository: &str, tag: &str, archive: &[u8]) {
        let path = format!("/v1.41/images/create?fromSrc=-&repo={repository}&tag={tag}");
        let answer = http::call(&Place::Unix(self.socket.clone()), "POST", &path, Some(("application/x-tar", archive)));
        let answer = answer.unwrap_or_else(|e| panic!("{repository}:{tag} cannot be imported: {e}"));
        assert!(answer.is_ok() && !answer.text().contains("errorDetail"), "{repository}:{tag} cannot be imported: {}", answer.text());
    }
}

/// A text as part of a query.
pub fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
