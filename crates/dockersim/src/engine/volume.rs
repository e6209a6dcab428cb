//! Volumes: they hold nothing, but somebody may be using them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Engine;
use super::event::Kind;
use super::filter::{Filters, name_fits};
use super::reply::{Failure, Reply, Request};
use crate::Now;
use crate::behaviour::shell::Files;

/// A volume.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) name: Arc<str>,
    pub(crate) created_ns: i64,
    /// `None` where nobody gave any.
    pub(crate) labels: Option<Arc<BTreeMap<String, String>>>,
    pub(crate) options: Option<Value>,
    /// The containers that mount it.
    pub(crate) users: BTreeSet<Arc<str>>,
    /// Whether the engine made it up for one container.
    pub(crate) anonymous: bool,
    /// What containers wrote into it, by path from its root.
    pub(crate) files: Files,
}

pub(crate) fn mountpoint(name: &str) -> String {
    format!("/var/lib/docker/volumes/{name}/_data")
}

impl Volume {
    pub(crate) fn json(&self) -> Value {
        json!({
            "CreatedAt": super::time::seconds(self.created_ns),
            "Driver": "local",
            "Labels": self.labels.as_deref(),
            "Mountpoint": mountpoint(&self.name),
            "Name": &*self.name,
            "Options": self.options,
            "Scope": "local",
        })
    }
}

pub(crate) fn valid_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphanumeric()) && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

pub(crate) fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_owned))).collect()
}

impl Engine {
    /// The volume of that name, made if there is none. Says so in an event in any case, as the daemon does.
    pub(crate) fn need_volume(
        &mut self,
        name: &str,
        labels: Option<Arc<BTreeMap<String, String>>>,
        options: Option<Value>,
        anonymous: bool,
        now: Now,
    ) -> Result<Arc<str>, Failure> {
        if name.len() < 2 && !name.is_empty() {
            let message = format!("create {name}: volume name is too short, names should be at least two alphanumeric characters");
            return Err(Failure::new(400, message));
        }
        if !valid_name(name) {
            let message = format!(
                "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
                 allowed. If you intended to pass a host directory, use absolute path"
            );
            return Err(Failure::new(400, message));
        }
        let name: Arc<str> = name.into();
        if !self.volumes.contains_key(&name) {
            let volume = Volume {
                name: name.clone(),
                created_ns: now.wall_ns,
                labels,
                options,
                users: BTreeSet::new(),
                anonymous,
                files: Files::new(),
            };
            self.volumes.insert(name.clone(), volume);
        }
        self.emit(now, Kind::Volume, "create", &name, Arc::default(), vec![("driver", "local".into())]);
        Ok(name)
    }

    pub(crate) fn volume_create(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let body = request.json()?;
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
        let (name, driver) = (text("Name").to_owned(), text("Driver"));
        if !matches!(driver, "" | "local") {
            let name = if name.is_empty() { self.hex_id().to_string() } else { name };
            let message = format!("create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found");
            return Err(Failure::new(404, message));
        }
        let labels = body.get("Labels").filter(|l| l.is_object()).map(|l| Arc::new(string_map(Some(l))));
        let options = body.get("DriverOpts").filter(|o| o.as_object().is_some_and(|o| !o.is_empty())).cloned();
        for key in options.as_ref().and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            if !matches!(key.as_str(), "type" | "o" | "device" | "size") {
                return Err(Failure::new(400, format!("create {name}: invalid option: \"{key}\"")));
            }
        }
        let anonymous = name.is_empty();
        let name = if anonymous { self.hex_id().to_string() } else { name };
        let name = self.need_volume(&name, labels, options, false, now)?;
        Ok(Reply::Json { status: 201, body: self.volumes[&name].json() })
    }

    fn volume(&self, name: &str) -> Result<&Volume, Failure> {
        self.volumes.get(name).ok_or_else(|| Failure::new(404, format!("get {name}: no such volume")))
    }

    pub(crate) fn volume_inspect(&self, name: &str) -> Result<Reply, Failure> {
        Ok(Reply::ok(self.volume(name)?.json()))
    }

    pub(crate) fn volume_list(&self, request: &Request) -> Result<Reply, Failure> {
        let filters = Filters::parse(request.get("filters"))?.only(&["dangling", "name", "driver", "label"])?;
        let dangling = filters.boolean("dangling")?;
        let wanted = |v: &&Volume| {
            filters.any_of("name", |n| name_fits(n, &v.name))
                && filters.any_of("driver", |d| d == "local")
                && filters.labels(v.labels.as_deref().unwrap_or(&BTreeMap::new()))
                && dangling.is_none_or(|d| d == v.users.is_empty())
        };
        let volumes: Vec<Value> = self.volumes.values().filter(wanted).map(Volume::json).collect();
        Ok(Reply::ok(json!({ "Volumes": volumes, "Warnings": null })))
    }

    pub(crate) fn volume_remove(&mut self, name: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let volume = match self.volume(name) {
            Ok(volume) => volume,
            Err(_) if request.flag("force") => return Ok(Reply::Empty { status: 204 }),
            Err(missing) => return Err(missing),
        };
        if !volume.users.is_empty() {
            let users: Vec<&str> = volume.users.iter().map(|u| &**u).collect();
            return Err(Failure::new(409, format!("remove {name}: volume is in use - [{}]", users.join(", "))));
        }
        self.drop_volume(name, now);
        Ok(Reply::Empty { status: 204 })
    }

    pub(crate) fn drop_volume(&mut self, name: &str, now: Now) {
        if let Some(volume) = self.volumes.remove(name) {
            self.emit(now, Kind::Volume, "destroy", &volume.name, Arc::default(), vec![("driver", "local".into())]);
        }
    }

    pub(crate) fn volume_prune(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let filters = Filters::parse(request.get("filters"))?.only(&["label", "label!", "all"])?;
        let empty = BTreeMap::new();
        let gone: Vec<Arc<str>> = self
            .volumes
            .values()
            .filter(|v| v.users.is_empty() && filters.labels(v.labels.as_deref().unwrap_or(&empty)))
            .map(|v| v.name.clone())
            .collect();
        for name in &gone {
            self.drop_volume(name, now);
        }
        let names: Vec<&str> = gone.iter().map(|n| &**n).collect();
        let body: Map<String, Value> = [
            ("VolumesDeleted".to_owned(), if names.is_empty() { Value::Null } else { json!(names) }),
            ("SpaceReclaimed".to_owned(), json!(0)),
        ]
        .into_iter()
        .collect();
        Ok(Reply::ok(body.into()))
    }
}
