//! Images: those of the world, and what registries would give.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::event::{Event, Kind};
use super::filter::{Filters, glob};
use super::reply::{Failure, PullFeed, Reply, Request, Stream};
use super::{Engine, text, time};
use crate::Now;
use crate::behaviour::{ImageSpec, Presence};

/// An image that the engine has.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) id: Arc<str>,
    pub(crate) created_ns: i64,
    pub(crate) spec: ImageSpec,
    pub(crate) labels: Arc<BTreeMap<String, String>>,
}

impl Image {
    /// `Config` as it is shown.
    fn config(&self) -> Value {
        let list = |l: &Vec<String>| if l.is_empty() { Value::Null } else { json!(l) };
        let set = |l: &Vec<String>| {
            let map: serde_json::Map<String, Value> = l.iter().map(|k| (k.clone(), json!({}))).collect();
            if map.is_empty() { Value::Null } else { Value::Object(map) }
        };
        let mut config = json!({
            "Hostname": "", "Domainname": "", "User": self.spec.user, "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
            "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": list(&self.spec.env), "Cmd": list(&self.spec.cmd), "Image": "",
            "Volumes": set(&self.spec.volumes), "WorkingDir": self.spec.working_dir, "Entrypoint": list(&self.spec.entrypoint),
            "OnBuild": null, "Labels": if self.spec.labels.is_empty() { Value::Null } else { json!(self.spec.labels) },
        });
        if !self.spec.exposed.is_empty() {
            config["ExposedPorts"] = set(&self.spec.exposed);
        }
        if let Some(health) = &self.spec.healthcheck {
            config["Healthcheck"] = health.json();
        }
        config
    }
}

/// A reference with its tag, as the engine keeps it.
pub(super) fn normal(reference: &str) -> String {
    let bare = reference.strip_prefix("docker.io/library/").or_else(|| reference.strip_prefix("docker.io/")).unwrap_or(reference);
    let has_tag = bare.contains('@') || bare.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'));
    if has_tag { bare.to_owned() } else { format!("{bare}:latest") }
}

impl Engine {
    pub(super) fn provide_images(&mut self, now: Now) {
        let local: Vec<(String, ImageSpec)> = self
            .world
            .images
            .iter()
            .filter(|(_, spec)| spec.presence == Presence::Local)
            .map(|(name, spec)| (name.clone(), spec.clone()))
            .collect();
        for (name, spec) in local {
            self.put_image(&name, spec, now);
        }
    }

    fn put_image(&mut self, name: &str, spec: ImageSpec, now: Now) -> Arc<str> {
        // The id stands for the content: the same name and content is the same image in every run.
        let mut state = 0xcbf2_9ce4_8422_2325_u64;
        let mut digest = String::from("sha256:");
        let content = format!("{name} {spec:?}");
        for round in 0..4_u64 {
            for byte in content.bytes().chain(round.to_le_bytes()) {
                state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
            digest.push_str(&format!("{:016x}", state ^ (state >> 29)));
        }
        let id: Arc<str> = digest.into();
        let labels = Arc::new(spec.labels.clone());
        self.images.insert(id.clone(), Image { id: id.clone(), created_ns: now.wall_ns, spec, labels });
        self.tags.insert(normal(name), id.clone());
        id
    }

    /// An image by reference, id, or the beginning of its id.
    pub(super) fn find_image(&self, reference: &str) -> Option<&Image> {
        if let Some(id) = self.tags.get(&normal(reference)) {
            return self.images.get(id);
        }
        let wanted = reference.strip_prefix("sha256:").unwrap_or(reference);
        let is_hex = wanted.len() >= 4 && wanted.bytes().all(|b| b.is_ascii_hexdigit());
        let mut fits = self.images.values().filter(|i| is_hex && i.id["sha256:".len()..].starts_with(wanted));
        fits.next().filter(|_| fits.next().is_none())
    }

    fn tags_of(&self, id: &str) -> Vec<&String> {
        self.tags.iter().filter(|(_, i)| &***i == id).map(|(name, _)| name).collect()
    }

    pub(super) fn images_request(&mut self, request: &Request, parts: &[&str], now: Now) -> Result<Reply, Failure> {
        match (request.method.as_str(), parts) {
            ("GET", ["json"]) => self.list_images(request),
            ("POST", ["create"]) => self.create_image(request, now),
            ("POST", ["prune"]) => Ok(Reply::ok(json!({ "ImagesDeleted": null, "SpaceReclaimed": 0 }))),
            ("GET", [name @ .., "json"]) => {
                let name = name.join("/");
                let missing = || Failure::new(404, format!("no such image: {name}: No such image: {}", normal(&name)));
                let image = self.find_image(&name).ok_or_else(missing)?;
                Ok(Reply::ok(self.show_image(image)))
            }
            ("GET", [name @ .., "history"]) => {
                let name = name.join("/");
                let image = self.find_image(&name).ok_or_else(|| no_such(&name))?;
                Ok(Reply::ok(json!([{
                    "Comment": "Imported from -", "Created": image.created_ns / 1_000_000_000, "CreatedBy": "", "Id": &*image.id,
                    "Size": image.spec.size, "Tags": self.tags_of(&image.id),
                }])))
            }
            ("POST", [name @ .., "tag"]) => {
                let name = name.join("/");
                let id = self.find_image(&name).ok_or_else(|| no_such(&name))?.id.clone();
                let tag = request.get("tag").filter(|t| !t.is_empty()).unwrap_or("latest");
                let new = format!("{}:{tag}", request.get("repo").unwrap_or_default());
                self.changed();
                self.tags.insert(normal(&new), id.clone());
                self.image_event(&id, "tag", &new, now);
                Ok(Reply::empty(201))
            }
            ("DELETE", [name @ ..]) if !name.is_empty() => self.remove_image(&name.join("/"), request.flag("force"), now),
            _ => Err(Failure::new(501, "dockersim does not serve this")),
        }
    }

    fn show_image(&self, image: &Image) -> Value {
        json!({
            "Id": &*image.id, "RepoTags": self.tags_of(&image.id), "RepoDigests": [], "Parent": "", "Comment": "Imported from -",
            "Created": time::nano(image.created_ns), "Container": "",
            "ContainerConfig": {
                "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
                "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null, "Image": "", "Volumes": null,
                "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
            },
            "DockerVersion": super::system::VERSION, "Author": "", "Config": image.config(), "Architecture": "amd64", "Os": "linux",
            "Size": image.spec.size, "VirtualSize": image.spec.size,
            "GraphDriver": { "Data": { "MergedDir": "", "UpperDir": "", "WorkDir": "" }, "Name": "overlay2" },
            "RootFS": { "Type": "layers", "Layers": [&*image.id] }, "Metadata": { "LastTagTime": time::nano(image.created_ns) },
        })
    }

    fn list_images(&self, request: &Request) -> Result<Reply, Failure> {
        let filters = Filters::parse(request.get("filters"))?.only(&["dangling", "label", "before", "since", "reference"])?;
        let dangling = filters.boolean("dangling")?;
        let mut list: Vec<(i64, Value)> = Vec::new();
        for image in self.images.values() {
            let mut tags = self.tags_of(&image.id);
            if filters.has("reference") {
                tags.retain(|t| filters.any_of("reference", |p| glob(p, t) || t.rsplit_once(':').is_some_and(|(repo, _)| glob(p, repo))));
                if tags.is_empty() {
                    continue;
                }
            }
            if dangling.is_some_and(|wanted| wanted != tags.is_empty()) || !filters.labels(&image.labels) {
                continue;
            }
            let shown: Vec<Value> = if tags.is_empty() { vec![json!("<none>:<none>")] } else { tags.iter().map(|t| json!(t)).collect() };
            list.push((
                image.created_ns,
                json!({
                    "Containers": -1, "Created": image.created_ns / 1_000_000_000, "Id": &*image.id,
                    "Labels": if image.labels.is_empty() { Value::Null } else { json!(*image.labels) }, "ParentId": "", "RepoDigests": null,
                    "RepoTags": shown, "SharedSize": -1, "Size": image.spec.size, "VirtualSize": image.spec.size,
                }),
            ));
        }
        list.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
        Ok(Reply::ok(list.into_iter().map(|(_, v)| v).collect()))
    }

    /// A pull, or an import whose content is not looked at.
    fn create_image(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        if let Some(repo) = request.get("repo").filter(|_| request.query.contains_key("fromSrc")) {
            let name = format!("{repo}:{}", request.get("tag").filter(|t| !t.is_empty()).unwrap_or("latest"));
            self.changed();
            let busybox = self.world.images.get("busybox:local").cloned().unwrap_or_default();
            let id = self.put_image(&name, ImageSpec { size: request.body.len() as u64, ..busybox }, now);
            self.image_event(&id, "import", &name, now);
            return Ok(Reply::ok(json!({ "status": &*id })));
        }
        let from = request.get("fromImage").unwrap_or_default();
        let name = match request.get("tag").filter(|t| !t.is_empty()) {
            Some(tag) if tag.contains(':') => from.to_owned(),
            Some(tag) => format!("{from}:{tag}"),
            None => from.to_owned(),
        };
        let reference = normal(&name);
        let spec = self.world.images.get(&reference).or_else(|| self.world.images.get(&name)).cloned();
        match spec.as_ref().map(|s| s.presence) {
            None => {
                let repository = reference.rsplit_once(':').map_or(reference.as_str(), |(repository, _)| repository);
                Err(Failure::new(
                    404,
                    format!(
                        "pull access denied for {repository}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
                    ),
                ))
            }
            Some(Presence::Missing) => {
                let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
                Err(Failure::new(404, format!("manifest for {reference} not found: manifest unknown: manifest unknown: {tag}")))
            }
            Some(Presence::Unreachable) => {
                let host = reference.split('/').next().unwrap_or("registry");
                Err(Failure::new(500, format!("Get \"https://{host}/v2/\": dial tcp: lookup {host}: no such host")))
            }
            Some(Presence::Local | Presence::Remote) => {
                self.changed();
                let spec = spec.unwrap_or_default();
                Ok(Reply::Stream(Stream::Pull(pull_lines(&reference, &spec, now))))
            }
        }
    }

    /// The last line of a pull has come.
    pub(super) fn pulled(&mut self, reference: &str, now: Now) {
        let Some(spec) = self.world.images.get(reference).cloned() else { return };
        let id = self.put_image(reference, spec, now);
        self.image_event(&id, "pull", reference, now);
    }

    fn image_event(&mut self, id: &Arc<str>, action: &str, name: &str, now: Now) {
        let actor: Arc<str> = if action == "pull" { name.into() } else { id.clone() };
        self.events.push(Event {
            seq: 0,
            time_ns: now.wall_ns,
            kind: Kind::Image,
            action: action.into(),
            actor,
            labels: Arc::default(),
            attributes: vec![("name", name.into())],
        });
    }

    fn remove_image(&mut self, name: &str, force: bool, now: Now) -> Result<Reply, Failure> {
        let image = self.find_image(name).ok_or_else(|| no_such(name))?;
        let id = image.id.clone();
        let tags: Vec<String> = self.tags_of(&id).into_iter().cloned().collect();
        let by_tag = tags.contains(&normal(name));
        let user = self.containers.values().find(|c| c.image_id == id);
        if !(by_tag && tags.len() > 1) {
            if let Some(user) = user.filter(|_| !force) {
                let state = if user.phase.is_up() { "running" } else { "stopped" };
                let verb = if by_tag {
                    format!(
                        "unable to remove repository reference \"{name}\" (must force) - container {} is using its referenced image {}",
                        &user.id[..12],
                        &id[7..19]
                    )
                } else {
                    format!(
                        "unable to delete {} (must be forced) - image is being used by {state} container {}",
                        &id[7..19],
                        &user.id[..12]
                    )
                };
                return Err(Failure::new(409, format!("conflict: {verb}")));
            }
        }
        self.changed();
        let gone: Vec<String> = if by_tag { vec![normal(name)] } else { tags };
        let mut answer: Vec<Value> = Vec::new();
        for tag in gone {
            self.tags.remove(&tag);
            self.image_event(&id, "untag", &id.clone(), now);
            answer.push(json!({ "Untagged": tag }));
        }
        if self.tags_of(&id).is_empty() && !self.containers.values().any(|c| c.image_id == id) {
            self.images.remove(&id);
            self.image_event(&id, "delete", &id.clone(), now);
            answer.push(json!({ "Deleted": &*id }));
        }
        Ok(Reply::ok(Value::Array(answer)))
    }
}

fn no_such(name: &str) -> Failure {
    Failure::new(404, format!("No such image: {}", normal(name)))
}

fn pull_lines(reference: &str, spec: &ImageSpec, now: Now) -> PullFeed {
    let (repository, tag) = reference.rsplit_once(':').unwrap_or((reference, "latest"));
    let mut lines: Vec<(u64, Value)> = vec![(now.mono_ms, json!({ "status": format!("Pulling from {repository}"), "id": tag }))];
    let total: u64 = spec.layers.iter().sum::<u64>().max(1);
    let mut done = 0_u64;
    for (index, size) in spec.layers.iter().enumerate() {
        let layer = format!("{:012x}", (index as u64 + 1) * 0x1234_5678_9abc % 0xffff_ffff_ffff);
        for part in 1..=4_u64 {
            let at = now.mono_ms + spec.pull_ms * (done + size * part / 4) / total;
            let detail = json!({ "current": size * part / 4, "total": size });
            lines.push((at, json!({ "status": "Downloading", "progressDetail": detail, "id": layer })));
        }
        done += size;
        lines.push((now.mono_ms + spec.pull_ms * done / total, json!({ "status": "Pull complete", "progressDetail": {}, "id": layer })));
    }
    let end = now.mono_ms + spec.pull_ms;
    lines.push((end, json!({ "status": format!("Status: Downloaded newer image for {reference}") })));
    PullFeed { lines, next: 0, image: Some(reference.to_owned()) }
}

/// The words of `Env`, the image's first, without those that the container's replace.
pub(super) fn merged_env(image: &[String], given: &[String]) -> Vec<String> {
    let key = |e: &str| e.split('=').next().unwrap_or_default().to_owned();
    let mut env: Vec<String> = given.to_vec();
    env.extend(image.iter().filter(|e| !given.iter().any(|g| key(g) == key(e))).cloned());
    env
}

/// Paths or ports of both, as the keys of one object.
pub(super) fn merged_set(image: &[String], given: &Value) -> Value {
    let mut map: serde_json::Map<String, Value> = image.iter().map(|k| (k.clone(), json!({}))).collect();
    match given {
        Value::Object(given) => map.extend(given.iter().map(|(k, _)| (k.clone(), json!({})))),
        Value::Array(given) => map.extend(given.iter().map(|k| (text(k).to_owned(), json!({})))),
        _ => {}
    }
    if map.is_empty() { Value::Null } else { Value::Object(map) }
}
