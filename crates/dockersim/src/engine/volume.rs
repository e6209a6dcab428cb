//! Volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::event::{Event, Kind};
use super::filter::{Filters, name_fits};
use super::reply::{Failure, Reply, Request};
use super::{Engine, text, text_map, time};
use crate::Now;

/// A volume.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    created_ns: i64,
    labels: Option<BTreeMap<String, String>>,
    options: Value,
    /// Containers that mount it.
    users: BTreeSet<Arc<str>>,
}

impl Volume {
    fn show(&self, name: &str) -> Value {
        json!({
            "CreatedAt": time::seconds(self.created_ns), "Driver": "local", "Labels": self.labels,
            "Mountpoint": format!("/var/lib/docker/volumes/{name}/_data"), "Name": name, "Options": self.options, "Scope": "local",
        })
    }
}

impl Engine {
    pub(super) fn volumes_request(&mut self, request: &Request, parts: &[&str], now: Now) -> Result<Reply, Failure> {
        match (request.method.as_str(), parts) {
            ("GET", []) => self.list_volumes(request),
            ("POST", ["create"]) => self.create_volume(&request.json()?, now),
            ("POST", ["prune"]) => self.prune_volumes(request, now),
            ("GET", [name]) => match self.volumes.get(*name) {
                Some(volume) => Ok(Reply::ok(volume.show(name))),
                None => Err(Failure::new(404, format!("get {name}: no such volume"))),
            },
            ("DELETE", [name]) => self.remove_volume(name, now),
            _ => Err(Failure::new(404, "page not found")),
        }
    }

    fn list_volumes(&self, request: &Request) -> Result<Reply, Failure> {
        let filters = Filters::parse(request.get("filters"))?.only(&["dangling", "name", "driver", "label"])?;
        let dangling = filters.boolean("dangling")?;
        let empty = BTreeMap::new();
        let list: Vec<Value> = self
            .volumes
            .iter()
            .filter(|(name, v)| {
                filters.any_of("name", |p| name_fits(p, name))
                    && filters.any_of("driver", |d| d == "local")
                    && filters.labels(v.labels.as_ref().unwrap_or(&empty))
                    && dangling.is_none_or(|wanted| wanted == v.users.is_empty())
            })
            .map(|(name, v)| v.show(name))
            .collect();
        Ok(Reply::ok(json!({ "Volumes": list, "Warnings": null })))
    }

    fn create_volume(&mut self, body: &Value, now: Now) -> Result<Reply, Failure> {
        let driver = text(&body["Driver"]);
        let name = match text(&body["Name"]) {
            "" => self.fresh_id().to_string(),
            name => name.to_owned(),
        };
        if !matches!(driver, "" | "local") {
            return Err(Failure::new(
                404,
                format!("create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"),
            ));
        }
        check_volume_name(&name)?;
        let labels = (!body["Labels"].is_null()).then(|| text_map(&body["Labels"]));
        self.provide_volume(&name, labels, &body["DriverOpts"], now);
        Ok(Reply::created(self.volumes[&name].show(&name)))
    }

    /// Makes a volume where there is none of that name.
    pub(super) fn provide_volume(&mut self, name: &str, labels: Option<BTreeMap<String, String>>, options: &Value, now: Now) {
        if !self.volumes.contains_key(name) {
            self.changed();
            let options = if options.as_object().is_some_and(|o| !o.is_empty()) { options.clone() } else { Value::Null };
            self.volumes.insert(name.to_owned(), Volume { created_ns: now.wall_ns, labels, options, users: BTreeSet::new() });
        }
        // The daemon tells of every call, also of one that finds it there.
        self.volume_event(name, "create", now);
    }

    fn volume_event(&mut self, name: &str, action: &str, now: Now) {
        self.events.push(Event {
            seq: 0,
            time_ns: now.wall_ns,
            kind: Kind::Volume,
            action: action.into(),
            actor: name.into(),
            labels: Arc::default(),
            attributes: vec![("driver", "local".into())],
        });
    }

    pub(super) fn volume_used(&mut self, name: &str, by: &Arc<str>) {
        if let Some(volume) = self.volumes.get_mut(name) {
            volume.users.insert(by.clone());
        }
    }

    pub(super) fn volume_left(&mut self, name: &str, by: &Arc<str>) {
        if let Some(volume) = self.volumes.get_mut(name) {
            volume.users.remove(by);
        }
    }

    /// Takes a volume away where nobody else uses it.
    pub(super) fn drop_volume(&mut self, name: &str, now: Now) {
        if self.volumes.get(name).is_some_and(|v| v.users.is_empty()) {
            self.volumes.remove(name);
            self.volume_event(name, "destroy", now);
        }
    }

    fn remove_volume(&mut self, name: &str, now: Now) -> Result<Reply, Failure> {
        let Some(volume) = self.volumes.get(name) else { return Err(Failure::new(404, format!("get {name}: no such volume"))) };
        if !volume.users.is_empty() {
            let users: Vec<&str> = volume.users.iter().map(|id| &**id).collect();
            return Err(Failure::new(409, format!("remove {name}: volume is in use - [{}]", users.join(", "))));
        }
        self.changed();
        self.drop_volume(name, now);
        Ok(Reply::empty(204))
    }

    fn prune_volumes(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let filters = Filters::parse(request.get("filters"))?.only(&["label", "label!", "all"])?;
        let empty = BTreeMap::new();
        let unused = self.volumes.iter().filter(|(_, v)| v.users.is_empty() && filters.labels(v.labels.as_ref().unwrap_or(&empty)));
        let names: Vec<String> = unused.map(|(name, _)| name.clone()).collect();
        for name in &names {
            self.changed();
            self.drop_volume(name, now);
        }
        Ok(Reply::ok(json!({ "VolumesDeleted": if names.is_empty() { Value::Null } else { json!(names) }, "SpaceReclaimed": 0 })))
    }
}

pub(super) fn check_volume_name(name: &str) -> Result<(), Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() == 1 {
        return Err(Failure::new(
            400,
            format!("create {name}: volume name is too short, names should be at least two alphanumeric characters"),
        ));
    }
    if !name.chars().all(fits) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(Failure::new(
            400,
            format!(
                "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
            ),
        ));
    }
    Ok(())
}
