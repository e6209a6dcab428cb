//! `GET /containers/json`.

use serde_json::{Map, Value, json};
use std::sync::Arc;

use super::Engine;
use super::container::{Container, HealthStatus, Phase};
use super::filter::{Filters, name_fits};
use super::network::endpoint_json;
use super::render::mount_json;
use super::reply::{Failure, Reply, Request};
use super::time::human;
use crate::Now;

const KNOWN: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

fn quoted(word: &str) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word.to_owned() }
}

fn status_line(container: &Container, now: Now) -> String {
    let since = |ns: Option<i64>| human(now.wall_ns - ns.unwrap_or(now.wall_ns));
    match container.word() {
        "running" => {
            let health = match container.health.as_ref().map(|h| h.status) {
                None => "",
                Some(HealthStatus::Starting) => " (health: starting)",
                Some(HealthStatus::Healthy) => " (healthy)",
                Some(HealthStatus::Unhealthy) => " (unhealthy)",
            };
            format!("Up {}{health}", since(container.started_ns))
        }
        "paused" => format!("Up {} (Paused)", since(container.started_ns)),
        "restarting" => format!("Restarting ({}) {} ago", container.exit_code, since(container.finished_ns)),
        "created" => "Created".to_owned(),
        _ => format!("Exited ({}) {} ago", container.exit_code, since(container.finished_ns)),
    }
}

fn ports(container: &Container) -> Vec<Value> {
    let mut out: Vec<(u16, Value)> = Vec::new();
    if container.pid == 0 {
        return Vec::new();
    }
    for target in container.config.get("ExposedPorts").and_then(Value::as_object).into_iter().flatten().map(|(k, _)| k) {
        let (port, kind) = target.split_once('/').unwrap_or((target, "tcp"));
        let Ok(port) = port.parse::<u16>() else { continue };
        let bound: Vec<_> = container.published.iter().filter(|p| p.target == *target).collect();
        if bound.is_empty() {
            out.push((port, json!({ "PrivatePort": port, "Type": kind })));
        }
        let row = |p: &&super::container::Published| {
            (port, json!({ "IP": p.host_ip, "PrivatePort": port, "PublicPort": p.host_port, "Type": kind }))
        };
        out.extend(bound.iter().map(row));
    }
    out.sort_by_key(|(port, _)| *port);
    out.into_iter().map(|(_, value)| value).collect()
}

impl Engine {
    pub(crate) fn container_list(&self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let number = |key: &str| match request.get(key).filter(|t| !t.is_empty()) {
            None => Ok(0_i64),
            Some(text) => text.parse::<i64>().map_err(|_| Failure::new(500, format!("strconv.Atoi: parsing \"{text}\": invalid syntax"))),
        };
        let limit = number("limit")?;
        let filters = Filters::parse(request.get("filters"))?.only(KNOWN)?;
        for status in filters.values("status") {
            if !matches!(status.as_str(), "created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead") {
                return Err(Failure::new(400, format!("Invalid filter 'status={status}'")));
            }
        }
        for health in filters.values("health") {
            if !matches!(health.as_str(), "starting" | "healthy" | "unhealthy" | "none") {
                return Err(Failure::new(400, format!("Unrecognised filter value for health: {health}")));
            }
        }
        for code in filters.values("exited") {
            if code.parse::<i64>().is_err() {
                return Err(Failure::new(500, format!("strconv.Atoi: parsing \"{code}\": invalid syntax")));
            }
        }
        let border = |key: &str| filters.values(key).first().map(|r| self.find(r).map(|id| self.containers[&id].serial)).transpose();
        let (before, since) = (border("before")?, border("since")?);
        let all = request.flag("all") || limit > 0 || ["status", "exited", "before", "since"].iter().any(|k| filters.has(k));
        let networks: Vec<Option<Arc<str>>> = filters.values("network").iter().map(|n| self.find_network(n).ok()).collect();
        let wanted = |c: &&Container| {
            (all || c.phase.runs())
                && before.is_none_or(|b| c.serial < b)
                && since.is_none_or(|s| c.serial > s)
                && filters.labels(&c.labels)
                && filters.any_of("id", |v| c.id.starts_with(v))
                && filters.any_of("name", |v| name_fits(v, &c.name))
                && filters.any_of("status", |v| v == c.word())
                && filters.any_of("health", |v| v == c.health.as_ref().map_or("none", |h| h.status.word()))
                && filters.any_of("exited", |v| matches!(c.phase, Phase::Exited) && v.parse::<i64>().is_ok_and(|code| code == c.exit_code))
                && filters.any_of("is-task", |v| matches!(v, "false" | "0"))
                && filters.any_of("ancestor", |v| self.find_image(v).is_ok_and(|id| id == c.image_id) || *c.image == *v)
                && filters.any_of("volume", |v| c.mounts.iter().any(|m| m.source == v || m.target == v))
                && (networks.is_empty()
                    || c.networks.iter().any(|(name, a)| {
                        filters.values("network").iter().any(|n| **n == **name) || networks.iter().flatten().any(|id| *id == a.network_id)
                    }))
                && filters.any_of("expose", |v| has_port(c.config.get("ExposedPorts"), v))
                && filters.any_of("publish", |v| c.published.iter().any(|p| p.target.starts_with(v) || p.host_port.to_string() == v))
        };
        let take = if limit > 0 { usize::try_from(limit).unwrap_or(usize::MAX) } else { usize::MAX };
        let size = request.flag("size");
        let rows = self.ages.values().rev().filter_map(|id| self.containers.get(id)).filter(wanted).take(take);
        Ok(Reply::ok(rows.map(|c| self.row(c, size, now)).collect::<Vec<_>>().into()))
    }

    /// One row of the list.
    pub(crate) fn row(&self, c: &Container, size: bool, now: Now) -> Value {
        // The list leaves out what only the container itself needs.
        let brief = |a| {
            let mut end = endpoint_json(a);
            for key in ["Aliases", "Links", "DriverOpts"] {
                end[key] = Value::Null;
            }
            end
        };
        let networks: Map<String, Value> = c.networks.iter().map(|(name, a)| (name.to_string(), brief(a))).collect();
        // The daemon shows the id where the reference means another image by now.
        let image = match self.references.get(&super::image::normal_reference(&c.image)) {
            Some(id) if *id != c.image_id => &*c.image_id,
            None if !c.image.is_empty() && self.find_image(&c.image).is_err() => &*c.image_id,
            _ => &*c.image,
        };
        let command: Vec<String> = c.command.iter().map(|w| quoted(w)).collect();
        let mode = c.host.get("NetworkMode").cloned().unwrap_or_else(|| json!("default"));
        let mut mounts: Vec<&super::container::MountPoint> = c.mounts.iter().collect();
        mounts.sort_by(|a, b| a.target.cmp(&b.target));
        let mut row = json!({
            "Id": &*c.id,
            "Names": [format!("/{}", c.name)],
            "Image": image,
            "ImageID": &*c.image_id,
            "Command": command.join(" "),
            "Created": c.created_ns.div_euclid(1_000_000_000),
            "Ports": ports(c),
            "Labels": &*c.labels,
            "State": c.word(),
            "Status": status_line(c, now),
            "HostConfig": { "NetworkMode": mode },
            "NetworkSettings": { "Networks": networks },
            "Mounts": mounts.into_iter().map(mount_json).collect::<Vec<_>>(),
        });
        if size {
            row["SizeRootFs"] = json!(self.images.get(&c.image_id).map_or(0, |i| i.spec.size));
        }
        row
    }

    pub(crate) fn container_prune(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let filters = Filters::parse(request.get("filters"))?.only(&["label", "label!", "until"])?;
        let dead = |c: &&Container| matches!(c.phase, Phase::Created | Phase::Exited) && filters.labels(&c.labels);
        let gone: Vec<Arc<str>> = self.containers.values().filter(dead).map(|c| c.id.clone()).collect();
        for id in &gone {
            self.bury(id, super::container::Volumes::Keep, now);
        }
        let names: Vec<&str> = gone.iter().map(|n| &**n).collect();
        Ok(Reply::ok(json!({ "ContainersDeleted": if names.is_empty() { Value::Null } else { json!(names) }, "SpaceReclaimed": 0 })))
    }
}

fn has_port(exposed: Option<&Value>, wanted: &str) -> bool {
    let full = if wanted.contains('/') { wanted.to_owned() } else { format!("{wanted}/tcp") };
    exposed.and_then(|e| e.get(&full)).is_some()
}
