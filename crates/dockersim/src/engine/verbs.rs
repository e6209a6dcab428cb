//! What is done to containers.

use std::sync::Arc;

use serde_json::{Value, json};

use super::container::{Phase, parse_signal};
use super::create::{check_name, check_policy};
use super::filter::Filters;
use super::reply::{Failure, LogFeed, Reply, Request, Stream, WaitFeed, WaitFor};
use super::{Engine, text};
use crate::Now;

impl Engine {
    pub(super) fn containers_request(&mut self, request: &Request, parts: &[&str], now: Now) -> Result<Reply, Failure> {
        match (request.method.as_str(), parts) {
            ("GET", ["json"]) => self.list_containers(request, now),
            ("POST", ["create"]) => self.create_container(request, now),
            ("POST", ["prune"]) => self.prune_containers(request, now),
            ("DELETE", [reference]) => self.delete_container(request, reference, now),
            ("POST", [reference, "kill"]) => self.kill_container(request, reference, now),
            ("POST", [_, "exec"]) => self.create_exec(request, parts[0], now),
            (method, [reference, rest @ ..]) if !rest.is_empty() => {
                let id = self.find_container(reference)?;
                self.one_container(request, method, &id, rest, now)
            }
            _ => Err(Failure::new(404, "page not found")),
        }
    }

    fn one_container(&mut self, request: &Request, method: &str, id: &Arc<str>, rest: &[&str], now: Now) -> Result<Reply, Failure> {
        let not_running = || Failure::new(409, format!("Container {id} is not running"));
        match (method, rest) {
            ("GET", ["json"]) => Ok(Reply::ok(self.inspect(id, now))),
            ("POST", ["start"]) => self.start(id, now),
            ("POST", ["stop"]) => {
                if matches!(self.at(id).phase, Phase::Created | Phase::Exited) {
                    return Ok(Reply::empty(304));
                }
                let grace = grace(request)?;
                Ok(self.stop(id, grace, false, now))
            }
            ("POST", ["restart"]) => {
                let grace = grace(request)?;
                if matches!(self.at(id).phase, Phase::Created | Phase::Exited) {
                    self.changed();
                    return Ok(self.stopped(id, true, now));
                }
                Ok(self.stop(id, grace, true, now))
            }
            ("POST", ["pause"]) => match self.at(id).phase {
                Phase::Running => self.set_phase(id, Phase::Paused, "pause", now),
                Phase::Paused => Err(Failure::new(409, format!("Container {id} is already paused"))),
                Phase::Restarting => Err(Failure::new(409, format!("Container {id} is restarting, wait until the container is running"))),
                Phase::Created | Phase::Exited => Err(not_running()),
            },
            ("POST", ["unpause"]) => match self.at(id).phase {
                Phase::Paused => self.set_phase(id, Phase::Running, "unpause", now),
                _ => Err(Failure::new(500, format!("Container {id} is not paused"))),
            },
            ("POST", ["rename"]) => self.rename(request, id, now),
            ("POST", ["update"]) => self.update(&request.json()?, id, now),
            ("POST", ["wait"]) => {
                let condition = match request.get("condition").unwrap_or_default() {
                    "next-exit" => WaitFor::NextExit(self.at(id).exits),
                    "removed" => WaitFor::Removed,
                    _ => WaitFor::NotRunning,
                };
                Ok(Reply::Stream(Stream::Wait(WaitFeed { container: id.clone(), condition })))
            }
            ("GET", ["logs"]) => self.logs(request, id, now),
            ("POST", ["resize"]) => {
                for side in ["h", "w"] {
                    let value = request.get(side).unwrap_or_default();
                    if value.parse::<u32>().is_err() {
                        return Err(Failure::new(400, format!("strconv.Atoi: parsing \"{value}\": invalid syntax")));
                    }
                }
                Ok(Reply::empty(200))
            }
            ("GET", ["top"]) if !self.is_up(id) => Err(not_running()),
            ("GET", ["top"]) => {
                let container = self.at(id);
                let (pid, command) = (1_000 + container.order, container.command.join(" "));
                Ok(Reply::ok(json!({
                    "Titles": ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"],
                    "Processes": [["root", pid.to_string(), "1", "0", "00:00", "?", "00:00:00", command]],
                })))
            }
            ("GET", ["changes"]) => {
                let changes: Vec<Value> = self.at(id).files.keys().map(|path| json!({ "Path": path, "Kind": 1 })).collect();
                Ok(Reply::ok(if changes.is_empty() { Value::Null } else { Value::Array(changes) }))
            }
            ("PUT" | "GET" | "HEAD", ["archive"]) => self.archive(request, id),
            ("POST", ["attach"]) => Ok(Reply::Hijack { output: Vec::new(), echo: false }),
            _ => Err(Failure::new(501, "dockersim does not serve this")),
        }
    }

    fn set_phase(&mut self, id: &Arc<str>, phase: Phase, word: &str, now: Now) -> Result<Reply, Failure> {
        self.changed();
        self.at(id).phase = phase;
        self.tell(id, word, now, &[]);
        Ok(Reply::empty(204))
    }

    fn kill_container(&mut self, request: &Request, reference: &str, now: Now) -> Result<Reply, Failure> {
        let word = request.get("signal").filter(|s| !s.is_empty()).unwrap_or("KILL");
        let Some(signal) = parse_signal(word) else { return Err(Failure::new(400, format!("Invalid signal: {word}"))) };
        let id = self.find_container(reference).map_err(|f| match f.status {
            404 => Failure::new(404, format!("Cannot kill container: {reference}: {}", f.message)),
            _ => f,
        })?;
        if !self.is_up(&id) && self.at(&id).phase != Phase::Restarting {
            return Err(Failure::new(409, format!("Cannot kill container: {reference}: Container {id} is not running")));
        }
        if self.at(&id).phase == Phase::Paused && signal == 9 {
            self.at(&id).phase = Phase::Running;
        }
        self.signal(&id, signal, now);
        Ok(Reply::empty(204))
    }

    fn delete_container(&mut self, request: &Request, reference: &str, now: Now) -> Result<Reply, Failure> {
        let id = self.find_container(reference)?;
        if request.flag("link") {
            return Err(Failure::new(500, "Conflict, cannot remove the default link name of the container"));
        }
        let force = request.flag("force");
        let refusal = match self.at(&id).phase {
            _ if force => None,
            Phase::Running => Some(("running", "Stop the container before attempting removal or force remove")),
            Phase::Paused => Some(("paused", "Unpause and then stop the container before attempting removal or force remove")),
            Phase::Restarting => Some(("restarting", "Stop the container before attempting removal or force remove")),
            Phase::Created | Phase::Exited => None,
        };
        if let Some((state, advice)) = refusal {
            return Err(Failure::new(409, format!("You cannot remove a {state} container {id}. {advice}")));
        }
        if self.at(&id).phase == Phase::Paused {
            self.at(&id).phase = Phase::Running;
        }
        if self.is_up(&id) {
            self.signal(&id, 9, now);
            self.settle_stops(now);
        }
        // One that removes itself is gone by now.
        if self.containers.contains_key(&id) {
            self.remove(&id, request.flag("v"), now);
        }
        Ok(Reply::empty(204))
    }

    fn prune_containers(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let filters = Filters::parse(request.get("filters"))?.only(&["label", "label!", "until"])?;
        let idle = |p: Phase| matches!(p, Phase::Created | Phase::Exited);
        let ids: Vec<Arc<str>> =
            self.containers.values().filter(|c| idle(c.phase) && filters.labels(&c.labels)).map(|c| c.id.clone()).collect();
        for id in &ids {
            self.remove(id, false, now);
        }
        let gone: Vec<&str> = ids.iter().map(|id| &**id).collect();
        Ok(Reply::ok(json!({ "ContainersDeleted": if gone.is_empty() { Value::Null } else { json!(gone) }, "SpaceReclaimed": 0 })))
    }

    fn rename(&mut self, request: &Request, id: &Arc<str>, now: Now) -> Result<Reply, Failure> {
        let new = request.get("name").unwrap_or_default().trim_start_matches('/').to_owned();
        if new.is_empty() {
            return Err(Failure::new(400, "Neither old nor new names may be empty"));
        }
        let old = self.at(id).name.clone();
        if new == old {
            return Err(Failure::new(400, "Renaming a container with the same name as its current name"));
        }
        let slashed = request.get("name").unwrap_or_default().to_owned();
        check_name(&new).map_err(|_| {
            let shown = if slashed.contains('/') { format!("/{}", slashed.trim_start_matches('/')) } else { format!("/{new}") };
            let shown = if slashed.contains('/') { shown } else { new.clone() };
            Failure::new(
                400,
                format!("Error when allocating new name: Invalid container name ({shown}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
            )
        })?;
        if let Some(holder) = self.names.get(&new) {
            return Err(Failure::new(
                409,
                format!(
                    "Error when allocating new name: Conflict. The container name \"/{new}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
                ),
            ));
        }
        self.changed();
        self.names.remove(&old);
        self.names.insert(new.clone(), id.clone());
        self.at(id).name = new;
        self.tell(id, "rename", now, &[("oldName", format!("/{old}"))]);
        Ok(Reply::empty(204))
    }

    fn update(&mut self, body: &Value, id: &Arc<str>, now: Now) -> Result<Reply, Failure> {
        check_policy(&body["RestartPolicy"])?;
        self.check_resources(body)?;
        let conflict = |text: &str| Failure::new(409, format!("Cannot update container {id}: {text}"));
        let host = &self.at(id).host;
        let number = |v: &Value| v.as_i64().unwrap_or(0);
        let memory_now = number(&host["Memory"]);
        let swap_now = match number(&host["MemorySwap"]) {
            0 => memory_now * 2,
            swap => swap,
        };
        let (memory, swap) = (number(&body["Memory"]), number(&body["MemorySwap"]));
        if number(&body["CpuQuota"]) > 0 && number(&host["NanoCpus"]) > 0 {
            return Err(conflict("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"));
        }
        if memory > 0 && swap == 0 && swap_now > 0 && memory > swap_now {
            return Err(conflict(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            ));
        }
        if memory > 0 && swap > 0 && swap < memory {
            return Err(Failure::new(400, "Minimum memoryswap limit should be larger than memory limit, see usage"));
        }
        self.changed();
        let container = self.at(id);
        for key in ["Memory", "MemorySwap", "MemoryReservation", "NanoCpus", "CpuShares", "CpuQuota", "CpuPeriod", "BlkioWeight"] {
            if number(&body[key]) != 0 {
                let value = number(&body[key]);
                container.host[key] = json!(if key == "MemoryReservation" && value < 0 { 0 } else { value });
            }
        }
        if !body["PidsLimit"].is_null() {
            container.host["PidsLimit"] = body["PidsLimit"].clone();
        }
        if !text(&body["RestartPolicy"]["Name"]).is_empty() {
            container.host["RestartPolicy"] = body["RestartPolicy"].clone();
        }
        self.tell(id, "update", now, &[]);
        Ok(Reply::ok(json!({ "Warnings": null })))
    }

    fn logs(&mut self, request: &Request, id: &Arc<str>, now: Now) -> Result<Reply, Failure> {
        let (stdout, stderr) = (request.flag("stdout"), request.flag("stderr"));
        if !stdout && !stderr {
            return Err(Failure::new(400, "Bad parameters: you must choose at least one stream"));
        }
        let since = match request.get("since").filter(|s| !s.is_empty()) {
            Some(text) => super::time::parse(text)
                .ok_or_else(|| Failure::new(500, format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))?,
            None => i64::MIN,
        };
        let container = self.at(id);
        let shown: Vec<usize> = container
            .logs
            .iter()
            .enumerate()
            .filter(|(_, (ns, ms, channel, _))| {
                *ns >= since && *ms <= now.mono_ms && if *channel == super::reply::Channel::Out { stdout } else { stderr }
            })
            .map(|(index, _)| index)
            .collect();
        let tail = request.get("tail").and_then(|t| t.parse::<usize>().ok());
        let next = match tail {
            Some(0) => container.logs.len(),
            Some(n) => shown.get(shown.len().saturating_sub(n)).copied().unwrap_or(container.logs.len()),
            None => shown.first().copied().unwrap_or(0),
        };
        let follow = (request.flag("follow") && container.phase.is_up()).then_some(container.exits);
        let raw = container.config["Tty"] == true;
        Ok(Reply::Stream(Stream::Logs(LogFeed {
            container: id.clone(),
            next,
            follow,
            stdout,
            stderr,
            timestamps: request.flag("timestamps"),
            raw,
        })))
    }
}

fn grace(request: &Request) -> Result<Option<i64>, Failure> {
    match request.get("t").filter(|t| !t.is_empty()) {
        None => Ok(None),
        Some(t) => t.parse::<i64>().map(Some).map_err(|_| Failure::new(500, format!("strconv.Atoi: parsing \"{t}\": invalid syntax"))),
    }
}
