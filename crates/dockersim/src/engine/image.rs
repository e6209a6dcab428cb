//! Images: what is here, what can be had, and what cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Value, json};

use super::Engine;
use super::container::Phase;
use super::event::Kind;
use super::filter::{Filters, glob};
use super::life::Timer;
use super::render;
use super::reply::{Failure, PullFeed, Reply, Request, Stream};
use super::time;
use crate::Now;
use crate::behaviour::{ImageSpec, Presence, Program};

/// An image that is here.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) id: Arc<str>,
    pub(crate) created_ns: i64,
    pub(crate) tagged_ns: i64,
    pub(crate) references: BTreeSet<String>,
    pub(crate) spec: Arc<ImageSpec>,
}

/// A reference with its tag, without the default registry.
pub(crate) fn normal_reference(reference: &str) -> String {
    let short = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let last = short.rsplit('/').next().unwrap_or(short);
    if last.contains(':') || last.contains('@') { short.to_owned() } else { format!("{short}:latest") }
}

impl Engine {
    pub(crate) fn local_images(&mut self, now: Now) {
        let specs: Vec<(String, ImageSpec)> = self.options.world.images.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        for (reference, spec) in specs {
            if spec.presence == Presence::Local {
                self.keep_image(&normal_reference(&reference), spec, now);
            }
        }
    }

    /// An image under a reference; its id follows from what it is.
    fn keep_image(&mut self, reference: &str, spec: ImageSpec, now: Now) -> Arc<str> {
        let text = format!("{reference} {}", serde_json::to_string(&spec).unwrap_or_default());
        let id: Arc<str> = format!("sha256:{}", digest(&text)).into();
        if !self.images.contains_key(&id) {
            let image = Image {
                id: id.clone(),
                created_ns: now.wall_ns,
                tagged_ns: now.wall_ns,
                references: BTreeSet::new(),
                spec: Arc::new(spec),
            };
            self.images.insert(id.clone(), image);
        }
        self.point(reference, &id, now);
        id
    }

    fn point(&mut self, reference: &str, id: &Arc<str>, now: Now) {
        if let Some(old) = self.references.insert(reference.to_owned(), id.clone())
            && let Some(image) = self.images.get_mut(&old)
        {
            image.references.remove(reference);
        }
        if let Some(image) = self.images.get_mut(id) {
            image.references.insert(reference.to_owned());
            image.tagged_ns = now.wall_ns;
        }
        self.changed();
    }

    /// An image by reference, id, or beginning of its id.
    pub(crate) fn find_image(&self, reference: &str) -> Result<Arc<str>, Failure> {
        let normal = normal_reference(reference);
        let missing = || Failure::new(404, format!("No such image: {normal}"));
        if reference.is_empty() {
            return Err(missing());
        }
        if let Some((_, digest)) = reference.split_once('@')
            && let Some((id, _)) = self.images.get_key_value(digest)
        {
            return Ok(id.clone());
        }
        if let Some(id) = self.references.get(&normal) {
            return Ok(id.clone());
        }
        let bare = reference.strip_prefix("sha256:").unwrap_or(reference);
        if bare.len() >= 4 && bare.bytes().all(|b| b.is_ascii_hexdigit()) {
            let from = format!("sha256:{bare}");
            if let Some((id, _)) = self.images.range::<str, _>((Included(from.as_str()), Unbounded)).next()
                && id.starts_with(&from)
            {
                return Ok(id.clone());
            }
        }
        Err(missing())
    }

    pub(crate) fn image_for_create(&self, reference: &str) -> Result<Arc<str>, Failure> {
        let repository = reference.split(['@']).next().unwrap_or(reference);
        let path = repository.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(repository, |(path, _)| path);
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Failure::new(400, "invalid reference format: repository name must be lowercase"));
        }
        if path.is_empty() || path.bytes().any(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':'))) {
            return Err(Failure::new(400, "invalid reference format"));
        }
        self.find_image(reference)
    }

    pub(crate) fn image_list(&self, request: &Request) -> Result<Reply, Failure> {
        let known = ["dangling", "label", "label!", "before", "since", "reference", "until"];
        let filters = Filters::parse(request.get("filters"))?.only(&known)?;
        let dangling = filters.boolean("dangling")?;
        let row = |image: &Image| {
            let fits = |r: &&String| {
                filters.any_of("reference", |p| {
                    let repository = r.rsplit_once(':').map_or(r.as_str(), |(repository, _)| repository);
                    glob(p, r) || glob(p, repository)
                })
            };
            let tags: Vec<&String> = image.references.iter().filter(|r| !r.contains('@')).filter(fits).collect();
            if filters.has("reference") && tags.is_empty()
                || !filters.labels(&image.spec.labels)
                || dangling.is_some_and(|d| d != image.references.is_empty())
            {
                return None;
            }
            let labels = &image.spec.labels;
            Some(json!({
                "Containers": -1,
                "Created": image.created_ns.div_euclid(1_000_000_000),
                "Id": &*image.id,
                "Labels": if labels.is_empty() { Value::Null } else { json!(labels) },
                "ParentId": "",
                "RepoDigests": null,
                "RepoTags": if tags.is_empty() { json!(["<none>:<none>"]) } else { json!(tags) },
                "SharedSize": -1,
                "Size": image.spec.size,
                "VirtualSize": image.spec.size,
            }))
        };
        Ok(Reply::ok(self.images.values().filter_map(row).collect::<Vec<_>>().into()))
    }

    pub(crate) fn image_inspect(&self, reference: &str) -> Result<Reply, Failure> {
        let id =
            self.image_for_create(reference).map_err(|f| Failure::new(f.status, format!("no such image: {reference}: {}", f.message)))?;
        let image = &self.images[&id];
        let spec = &image.spec;
        let none = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
        let set = |list: &[String]| -> Value {
            if list.is_empty() {
                Value::Null
            } else {
                list.iter().map(|k| (k.clone(), json!({}))).collect::<serde_json::Map<_, _>>().into()
            }
        };
        let mut config = render::config_defaults().clone();
        config.insert("Labels".to_owned(), Value::Null);
        let container_config = config.clone();
        config.insert("Cmd".to_owned(), none(&spec.cmd));
        config.insert("Entrypoint".to_owned(), none(&spec.entrypoint));
        config.insert("Env".to_owned(), none(&spec.env));
        config.insert("User".to_owned(), json!(spec.user));
        config.insert("WorkingDir".to_owned(), json!(spec.working_dir));
        config.insert("Volumes".to_owned(), set(&spec.volumes));
        if !spec.labels.is_empty() {
            config.insert("Labels".to_owned(), json!(spec.labels));
        }
        if !spec.exposed.is_empty() {
            config.insert("ExposedPorts".to_owned(), set(&spec.exposed));
        }
        if let Some(check) = &spec.healthcheck {
            config.insert("Healthcheck".to_owned(), check.json());
        }
        let layer = format!("sha256:{}", digest(&format!("layer {id}")));
        Ok(Reply::ok(json!({
            "Id": &*id,
            "RepoTags": image.references.iter().filter(|r| !r.contains('@')).collect::<Vec<_>>(),
            "RepoDigests": image.references.iter().filter(|r| r.contains('@')).collect::<Vec<_>>(),
            "Parent": "",
            "Comment": "Imported from -",
            "Created": time::nano(image.created_ns),
            "Container": "",
            "ContainerConfig": container_config,
            "DockerVersion": self.options.version,
            "Author": "",
            "Config": config,
            "Architecture": "amd64",
            "Os": "linux",
            "Size": spec.size,
            "VirtualSize": spec.size,
            "GraphDriver": { "Data": { "MergedDir": "", "UpperDir": "", "WorkDir": "" }, "Name": "overlay2" },
            "RootFS": { "Type": "layers", "Layers": [layer] },
            "Metadata": { "LastTagTime": time::nano(image.tagged_ns) },
        })))
    }

    pub(crate) fn image_history(&self, reference: &str) -> Result<Reply, Failure> {
        let id = self.find_image(reference)?;
        let image = &self.images[&id];
        Ok(Reply::ok(json!([{
            "Comment": "Imported from -", "Created": image.created_ns.div_euclid(1_000_000_000), "CreatedBy": "", "Id": &*id,
            "Size": image.spec.size, "Tags": image.references,
        }])))
    }

    fn image_event(&mut self, id: &Arc<str>, action: &str, name: &str, now: Now) {
        let labels = self.images.get(id).map(|i| Arc::new(i.spec.labels.clone())).unwrap_or_default();
        self.emit(now, Kind::Image, action, id, labels, vec![("name", name.into())]);
    }

    pub(crate) fn image_tag(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let id = self.find_image(reference)?;
        let (repository, tag) = (request.get("repo").unwrap_or_default(), request.get("tag").filter(|t| !t.is_empty()).unwrap_or("latest"));
        if repository.is_empty() || repository.bytes().any(|b| b.is_ascii_uppercase()) {
            let why = if repository.is_empty() { "" } else { ": repository name must be lowercase" };
            return Err(Failure::new(500, format!("invalid reference format{why}")));
        }
        let new = normal_reference(&format!("{repository}:{tag}"));
        self.point(&new, &id, now);
        self.image_event(&id, "tag", &new, now);
        Ok(Reply::Empty { status: 201 })
    }

    pub(crate) fn image_remove(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let id = self.find_image(reference)?;
        let force = request.flag("force");
        let normal = normal_reference(reference);
        let by_reference = self.references.contains_key(&normal);
        let last = self.images[&id].references.len() <= 1;
        let users: Vec<(Arc<str>, Phase)> =
            self.containers.values().filter(|c| c.image_id == id).map(|c| (c.id.clone(), c.phase)).collect();
        let short = |id: &str| id.trim_start_matches("sha256:").get(..12).unwrap_or_default().to_owned();
        if !by_reference && !last && !force {
            let message =
                format!("conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories", short(&id));
            return Err(Failure::new(409, message));
        }
        if last || !by_reference {
            if let Some((user, _)) = users.iter().find(|(_, phase)| phase.runs()) {
                let kind = if by_reference { "unable to remove repository reference" } else { "unable to delete" };
                let what = if by_reference { format!("\"{reference}\"") } else { short(&id) };
                let message = if by_reference {
                    format!("conflict: {kind} {what} (must force) - container {} is using its referenced image {}", short(user), short(&id))
                } else {
                    format!("conflict: {kind} {what} (cannot be forced) - image is being used by running container {}", short(user))
                };
                if !(by_reference && force) {
                    return Err(Failure::new(409, message));
                }
            } else if let Some((user, _)) = users.first()
                && !force
            {
                let message = if by_reference {
                    format!(
                        "conflict: unable to remove repository reference \"{reference}\" (must force) - container {} is using its referenced \
                         image {}",
                        short(user),
                        short(&id)
                    )
                } else {
                    format!(
                        "conflict: unable to delete {} (must be forced) - image is being used by stopped container {}",
                        short(&id),
                        short(user)
                    )
                };
                return Err(Failure::new(409, message));
            }
        }
        let mut done = Vec::new();
        let gone: Vec<String> = if by_reference { vec![normal] } else { self.images[&id].references.iter().cloned().collect() };
        for reference in gone {
            self.references.remove(&reference);
            if let Some(image) = self.images.get_mut(&id) {
                image.references.remove(&reference);
            }
            self.image_event(&id, "untag", &id.clone(), now);
            done.push(json!({ "Untagged": reference }));
        }
        if self.images[&id].references.is_empty() && users.is_empty() {
            self.image_event(&id, "delete", &id.clone(), now);
            self.images.remove(&id);
            done.push(json!({ "Deleted": &*id }));
        }
        Ok(Reply::ok(done.into()))
    }

    pub(crate) fn image_prune(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let filters = Filters::parse(request.get("filters"))?.only(&["dangling", "label", "label!", "until"])?;
        let only_dangling = filters.boolean("dangling")?.unwrap_or(true);
        let used: BTreeSet<Arc<str>> = self.containers.values().map(|c| c.image_id.clone()).collect();
        let gone: Vec<Arc<str>> = self
            .images
            .values()
            .filter(|i| !used.contains(&i.id) && (i.references.is_empty() || !only_dangling))
            .map(|i| i.id.clone())
            .collect();
        let mut rows = Vec::new();
        for id in gone {
            for reference in self.images[&id].references.clone() {
                self.references.remove(&reference);
                rows.push(json!({ "Untagged": reference }));
            }
            self.image_event(&id, "delete", &id.clone(), now);
            self.images.remove(&id);
            rows.push(json!({ "Deleted": &*id }));
        }
        Ok(Reply::ok(json!({ "ImagesDeleted": if rows.is_empty() { Value::Null } else { rows.into() }, "SpaceReclaimed": 0 })))
    }

    pub(crate) fn image_create(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let tag = request.get("tag").filter(|t| !t.is_empty());
        if request.get("fromSrc").is_some_and(|s| !s.is_empty()) {
            return Ok(self.image_import(request, now));
        }
        let from = request.get("fromImage").unwrap_or_default();
        let reference = match tag {
            Some(digest) if digest.contains(':') => format!("{from}@{digest}"),
            Some(tag) => format!("{from}:{tag}"),
            None => from.to_owned(),
        };
        let path = from.split('@').next().unwrap_or_default();
        if path.is_empty() || path.bytes().any(|b| b.is_ascii_uppercase()) {
            let why = if path.is_empty() { "" } else { ": repository name must be lowercase" };
            return Err(Failure::new(400, format!("invalid reference format{why}")));
        }
        let normal = normal_reference(&reference);
        let spec = self.options.world.images.iter().find(|(name, _)| normal_reference(name) == normal).map(|(_, s)| s);
        let registry = path.split_once('/').map(|(host, _)| host).filter(|h| is_registry(h));
        let repository = normal.split(['@']).next().and_then(|r| r.rsplit_once(':')).map_or(normal.as_str(), |(r, _)| r);
        match spec {
            None if registry.is_some_and(|r| r.starts_with("localhost") || r.starts_with("127.")) => {
                let host = registry.unwrap_or_default();
                let port = host.rsplit_once(':').map_or("80", |(_, port)| port);
                Err(Failure::new(500, format!("Get \"http://{host}/v2/\": dial tcp 127.0.0.1:{port}: connect: connection refused")))
            }
            None => Err(no_such_repository(repository)),
            Some(ImageSpec { presence: Presence::Local | Presence::Remote | Presence::Missing, credentials: Some(wanted), .. })
                if shown_credentials(request).as_deref() != Some(wanted) =>
            {
                Err(denied(&normal, registry, request))
            }
            Some(spec) if spec.presence == Presence::Missing => {
                Err(Failure::new(404, format!("manifest for {normal} not found: manifest unknown: manifest unknown")))
            }
            Some(spec) if spec.presence == Presence::Unreachable => {
                let host = registry.unwrap_or("registry-1.docker.io");
                Err(Failure::new(500, format!("Get \"https://{host}/v2/\": dial tcp: lookup {host}: no such host")))
            }
            Some(spec) => {
                let spec = spec.clone();
                Ok(self.pull(&normal, &spec, now))
            }
        }
    }

    fn pull(&mut self, reference: &str, spec: &ImageSpec, now: Now) -> Reply {
        let (repository, tag) = reference.rsplit_once(':').unwrap_or((reference, "latest"));
        let end = now.mono_ms.saturating_add(spec.pull_ms);
        let here = self.references.contains_key(reference);
        let family = match repository.split_once('/') {
            Some((host, path)) if is_registry(host) => path.to_owned(),
            Some(_) => repository.to_owned(),
            None => format!("library/{repository}"),
        };
        let mut lines = vec![(now.mono_ms, json!({ "status": format!("Pulling from {family}"), "id": tag }))];
        let layers: Vec<u64> = if spec.layers.is_empty() { vec![spec.size.max(1)] } else { spec.layers.clone() };
        if !here {
            self.pull_lines(reference, &layers, now.mono_ms, end, &mut lines);
        }
        let sha = digest(&format!("manifest {reference}"));
        lines.push((end, json!({ "status": format!("Digest: sha256:{sha}") })));
        let word = if here { "Image is up to date for" } else { "Downloaded newer image for" };
        lines.push((end, json!({ "status": format!("Status: {word} {reference}") })));
        for (due, _) in lines.iter().filter(|(due, _)| *due > now.mono_ms) {
            self.time(*due, Timer::Nudge);
        }
        if spec.pull_ms == 0 {
            self.pulled(reference, now);
        } else {
            self.time(end, Timer::Pulled { reference: reference.to_owned() });
        }
        Reply::Stream(Stream::Pull(PullFeed { lines, next: 0, image: Some(reference.to_owned()) }))
    }

    fn pull_lines(&self, reference: &str, layers: &[u64], begin: u64, end: u64, lines: &mut Vec<(u64, Value)>) {
        let names: Vec<String> = (0..layers.len()).map(|i| digest(&format!("{reference} {i}"))[..12].to_owned()).collect();
        for name in &names {
            lines.push((begin, json!({ "status": "Pulling fs layer", "progressDetail": {}, "id": name })));
        }
        let parts = layers.len() as u64;
        for (index, (name, size)) in names.iter().zip(layers).enumerate() {
            for step in 1..=4_u64 {
                let due = begin + (end - begin) * (index as u64 * 4 + step) / (parts * 4);
                let current = size * step / 4;
                let detail = json!({ "current": current, "total": size });
                let bar = format!("[{:<50}]  {current}B/{size}B", "=".repeat((step * 12) as usize) + ">");
                lines.push((due, json!({ "status": "Downloading", "progressDetail": detail, "progress": bar, "id": name })));
            }
        }
        for name in &names {
            lines.push((end, json!({ "status": "Pull complete", "progressDetail": {}, "id": name })));
        }
    }

    /// A pull is through.
    pub(crate) fn pulled(&mut self, reference: &str, now: Now) {
        let Some(spec) = self.options.world.images.iter().find(|(name, _)| normal_reference(name) == reference).map(|(_, s)| s.clone())
        else {
            return;
        };
        let id = self.keep_image(reference, ImageSpec { presence: Presence::Local, ..spec }, now);
        let labels = Arc::new(self.images[&id].spec.labels.clone());
        let repository = reference.rsplit_once(':').map_or(reference, |(r, _)| r);
        self.emit(now, Kind::Image, "pull", &reference.into(), labels, vec![("name", repository.into())]);
    }

    fn image_import(&mut self, request: &Request, now: Now) -> Reply {
        let repository = request.get("repo").unwrap_or_default();
        let tag = request.get("tag").filter(|t| !t.is_empty()).unwrap_or("latest");
        let spec =
            ImageSpec { program: Program::Busybox, size: request.body.len() as u64, cmd: import_command(request), ..ImageSpec::default() };
        let reference = normal_reference(&format!("{repository}:{tag}"));
        let id = self.keep_image(&reference, spec, now);
        self.image_event(&id, "import", &id.clone(), now);
        let line = (now.mono_ms, json!({ "status": &*id }));
        Reply::Stream(Stream::Pull(PullFeed { lines: vec![line], next: 0, image: None }))
    }

    /// What a rescan of the world would give: images by reference.
    pub fn image_references(&self) -> BTreeMap<&str, &str> {
        self.references.iter().map(|(k, v)| (k.as_str(), &**v)).collect()
    }
}

/// Whether the first part of a reference is a registry.
fn is_registry(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

/// The `user:password` of a request. What cannot be read counts as none at all, as with the daemon.
fn shown_credentials(request: &Request) -> Option<String> {
    let bytes = URL_SAFE.decode(request.registry_auth.as_deref()?).ok()?;
    let shown: Value = serde_json::from_slice(&bytes).ok()?;
    let part = |key: &str| shown[key].as_str().unwrap_or_default();
    let (user, password) = (part("username"), part("password"));
    (!user.is_empty() || !password.is_empty()).then(|| format!("{user}:{password}"))
}

/// What a registry that keeps an image for others says, in the daemon's words.
fn denied(reference: &str, registry: Option<&str>, request: &Request) -> Failure {
    let (repository, tag) = reference.rsplit_once(':').unwrap_or((reference, "latest"));
    let Some(host) = registry else { return no_such_repository(repository) };
    if shown_credentials(request).is_some() {
        return Failure::new(500, "unauthorized: authentication required");
    }
    let scheme = if host.starts_with("localhost") || host.starts_with("127.") { "http" } else { "https" };
    let path = repository.split_once('/').map_or(repository, |(_, path)| path);
    Failure::new(500, format!("Head \"{scheme}://{host}/v2/{path}/manifests/{tag}\": no basic auth credentials"))
}

fn no_such_repository(repository: &str) -> Failure {
    let message = format!(
        "pull access denied for {repository}, repository does not exist or may require 'docker login': denied: requested access to the \
         resource is denied"
    );
    Failure::new(404, message)
}

/// `changes=CMD [..]`.
fn import_command(request: &Request) -> Vec<String> {
    let changes = request.query.get("changes").map_or(&[][..], Vec::as_slice);
    changes.iter().filter_map(|c| c.strip_prefix("CMD ")).filter_map(|c| serde_json::from_str(c).ok()).next().unwrap_or_default()
}

/// 64 hexadecimal digits that follow from a text; not cryptographic.
fn digest(text: &str) -> String {
    (0..4_u64)
        .map(|lane| {
            let mut hash = 0xcbf2_9ce4_8422_2325 ^ lane.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for byte in text.bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
            hash ^= hash >> 29;
            format!("{:016x}", hash.wrapping_mul(0xbf58_476d_1ce4_e5b9))
        })
        .collect()
}
