//! Which request is for whom.

use super::Engine;
use super::reply::{Failure, Reply, Request};
use super::system::NO_MANAGER;
use crate::Now;

/// What is known and not served: method, first part of the path, and a word that the path must end with (empty = any).
const NOT_SERVED: &[(&str, &str, &str)] = &[
    ("POST", "build", ""),
    ("POST", "commit", ""),
    ("POST", "session", ""),
    ("POST", "grpc", ""),
    ("GET", "plugins", "privileges"),
    ("POST", "plugins", ""),
    ("DELETE", "plugins", ""),
    ("GET", "images", "search"),
    ("GET", "images", "get"),
    ("POST", "images", "load"),
    ("POST", "images", "push"),
    ("GET", "containers", "ws"),
    ("GET", "containers", "checkpoints"),
    ("POST", "containers", "checkpoints"),
    ("DELETE", "containers", "checkpoints"),
    ("POST", "swarm", "init"),
    ("POST", "swarm", "join"),
];

impl Engine {
    pub(crate) fn route(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        self.check_version(request)?;
        let path = request.path.trim_matches('/');
        let parts: Vec<&str> = path.split('/').collect();
        let method = if request.method == "HEAD" { "GET" } else { request.method.as_str() };
        match (method, parts.as_slice()) {
            ("GET", ["_ping"]) => {
                Ok(Reply::Bytes { status: 200, content_type: "text/plain; charset=utf-8", headers: ping_headers(), body: b"OK".to_vec() })
            }
            ("GET", ["version"]) => Ok(Reply::ok(self.version_json())),
            ("GET", ["info"]) => Ok(Reply::ok(self.info(now))),
            ("GET", ["events"]) => self.events_feed(request, now),
            ("GET", ["system", "df"]) => Ok(Reply::ok(self.disk_usage(now))),
            ("POST", ["auth"]) => self.auth(request),
            ("POST", ["build", "prune"]) => Ok(Reply::ok(serde_json::json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }))),
            ("GET", ["plugins", name, "json"]) => Err(Failure::new(404, format!("plugin \"{name}\" not found"))),
            ("GET", ["plugins"]) => Ok(Reply::ok(serde_json::json!([]))),
            (_, ["containers" | "exec", ..]) => self.route_containers(method, &parts[..], request, now),
            (_, ["images" | "distribution", ..]) => self.route_images(method, path, request, now),
            (_, ["networks", ..]) => self.route_networks(method, &parts[1..], request, now),
            (_, ["volumes", ..]) => self.route_volumes(method, &parts[1..], request, now),
            _ => Err(elsewhere(method, path, &parts)),
        }
    }

    fn check_version(&self, request: &Request) -> Result<(), Failure> {
        let (asked, min, max) = (request.api, self.options.min_api, self.options.max_api);
        let show = |(major, minor): (u32, u32)| if minor == u32::MAX { major.to_string() } else { format!("{major}.{minor}") };
        if asked < min {
            let message = format!(
                "client version {} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
                show(asked),
                show(min)
            );
            return Err(Failure::new(400, message));
        }
        if asked > max {
            let message = format!("client version {} is too new. Maximum supported API version is {}", show(asked), show(max));
            return Err(Failure::new(400, message));
        }
        Ok(())
    }

    fn route_containers(&mut self, method: &str, parts: &[&str], request: &Request, now: Now) -> Result<Reply, Failure> {
        let head = request.method == "HEAD";
        match (method, parts) {
            ("GET", ["containers", "json"]) => self.container_list(request, now),
            ("POST", ["containers", "create"]) => self.container_create(request, now),
            ("POST", ["containers", "prune"]) => self.container_prune(request, now),
            ("DELETE", ["containers", id]) => self.container_remove(id, request, now),
            ("GET", ["containers", id, "json"]) => self.container_inspect(id, request),
            ("POST", ["containers", id, "start"]) => self.container_start(id, request, now),
            ("POST", ["containers", id, "stop"]) => self.container_stop(id, request, now),
            ("POST", ["containers", id, "restart"]) => self.container_restart(id, request, now),
            ("POST", ["containers", id, "kill"]) => self.container_kill(id, request, now),
            ("POST", ["containers", id, "pause"]) => self.container_pause(id, now),
            ("POST", ["containers", id, "unpause"]) => self.container_unpause(id, now),
            ("POST", ["containers", id, "rename"]) => self.container_rename(id, request, now),
            ("POST", ["containers", id, "update"]) => self.container_update(id, request, now),
            ("POST", ["containers", id, "wait"]) => self.wait_feed(id, request),
            ("POST", ["containers", id, "attach"]) => self.attach(id, request),
            ("POST", ["containers", id, "resize"]) => self.container_resize(id, request),
            ("POST", ["containers", id, "exec"]) => self.exec_create(id, request, now),
            ("GET", ["containers", id, "logs"]) => self.logs_feed(id, request, now),
            ("GET", ["containers", id, "top"]) => self.container_top(id),
            ("GET", ["containers", id, "stats"]) => self.container_stats(id, now),
            ("GET", ["containers", id, "export"]) => self.container_export(id, now),
            ("GET", ["containers", id, "changes"]) => self.container_changes(id),
            ("GET" | "PUT", ["containers", id, "archive"]) => match self.archive(id, request, now) {
                // There is no room for words in the answer to a HEAD.
                Err(failure) if head => Ok(Reply::Empty { status: failure.status }),
                result => result,
            },
            ("GET", ["exec", id, "json"]) => self.exec_inspect(id),
            ("POST", ["exec", id, "start"]) => self.exec_start(id, request, now),
            ("POST", ["exec", id, "resize"]) => self.exec_resize(id, request),
            _ => Err(elsewhere(method, &parts.join("/"), parts)),
        }
    }

    fn route_images(&mut self, method: &str, path: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        // Names of images have slashes in them.
        let name = |prefix: &str, suffix: &str| -> Option<String> {
            let inner = path.strip_prefix(prefix)?.strip_suffix(suffix)?;
            (!inner.is_empty()).then(|| inner.to_owned())
        };
        match (method, path) {
            ("GET", "images/json") => return self.image_list(request),
            ("POST", "images/create") => return self.image_create(request, now),
            ("POST", "images/prune") => return self.image_prune(request, now),
            _ => {}
        }
        if let Some(missing) = not_served(method, &path.split('/').collect::<Vec<_>>()) {
            return Err(missing);
        }
        match method {
            "GET" => {
                if let Some(name) = name("images/", "/json") {
                    return self.image_inspect(&name);
                }
                if let Some(name) = name("images/", "/history") {
                    return self.image_history(&name);
                }
                if let Some(name) = name("distribution/", "/json") {
                    return self.distribution(&name);
                }
            }
            "POST" => {
                if let Some(name) = name("images/", "/tag") {
                    return self.image_tag(&name, request, now);
                }
            }
            "DELETE" => {
                if let Some(name) = name("images/", "") {
                    return self.image_remove(&name, request, now);
                }
            }
            _ => {}
        }
        Err(page_not_found())
    }

    fn route_networks(&mut self, method: &str, parts: &[&str], request: &Request, now: Now) -> Result<Reply, Failure> {
        match (method, parts) {
            ("GET", [] | [""]) => self.network_list(request),
            ("POST", ["create"]) => self.network_create(request, now),
            ("POST", ["prune"]) => self.network_prune(request, now),
            ("GET", [id]) => self.network_inspect(id, request),
            ("DELETE", [id]) => self.network_remove(id, now),
            ("POST", [id, "connect"]) => self.network_connect(id, request, now),
            ("POST", [id, "disconnect"]) => self.network_disconnect(id, request, now),
            _ => Err(page_not_found()),
        }
    }

    fn route_volumes(&mut self, method: &str, parts: &[&str], request: &Request, now: Now) -> Result<Reply, Failure> {
        match (method, parts) {
            ("GET", [] | [""]) => self.volume_list(request),
            ("POST", ["create"]) => self.volume_create(request, now),
            ("POST", ["prune"]) => self.volume_prune(request, now),
            ("GET", [name]) => self.volume_inspect(name),
            ("DELETE", [name]) => self.volume_remove(name, request, now),
            _ => Err(page_not_found()),
        }
    }
}

fn ping_headers() -> Vec<(&'static str, String)> {
    vec![("Cache-Control", "no-cache, no-store, must-revalidate".to_owned()), ("Pragma", "no-cache".to_owned())]
}

fn page_not_found() -> Failure {
    Failure::new(404, "page not found")
}

fn not_served(method: &str, parts: &[&str]) -> Option<Failure> {
    let (first, last) = (parts.first()?, parts.last()?);
    let known =
        NOT_SERVED.iter().any(|(m, head, tail)| *m == method && head == first && (tail.is_empty() || tail == last || parts.contains(tail)));
    known.then(|| Failure::new(501, format!("{method} /{} is not served by dockersim", parts.join("/"))))
}

/// Answers to paths that lead to nothing that is served.
fn elsewhere(method: &str, path: &str, parts: &[&str]) -> Failure {
    if let Some(failure) = not_served(method, parts) {
        return failure;
    }
    match (method, parts) {
        ("POST", ["swarm", "leave"]) => Failure::new(503, "This node is not part of a swarm"),
        ("GET", ["swarm"] | ["swarm", "unlockkey"]) | ("POST", ["swarm", "update" | "unlock"]) => Failure::new(503, NO_MANAGER),
        ("GET" | "POST" | "DELETE", ["nodes" | "services" | "tasks" | "secrets" | "configs", ..]) => Failure::new(503, NO_MANAGER),
        _ => {
            let _ = path;
            page_not_found()
        }
    }
}
