//! Commands in running containers, and files that go in and out.

use std::io::Read;
use std::sync::Arc;

use base64::Engine as _;
use serde_json::json;

use super::container::Phase;
use super::reply::{Channel, Failure, Reply, Request, frame};
use super::{Engine, text_list, time};
use crate::Now;
use crate::behaviour::Program;
use crate::behaviour::shell::{FileEntry, Shell, exists, is_directory, normal};

/// A command that somebody wants run.
#[derive(Clone, Debug)]
pub(crate) struct Exec {
    pub(crate) container: Arc<str>,
    command: Vec<String>,
    streams: [bool; 3],
    tty: bool,
    /// Exit code and the end of its run, monotonic.
    ran: Option<(i64, u64)>,
}

impl Exec {
    pub(crate) fn is_running(&self, mono_ms: u64) -> bool {
        self.ran.is_some_and(|(_, until)| until > mono_ms)
    }
}

impl Engine {
    pub(super) fn create_exec(&mut self, request: &Request, reference: &str, now: Now) -> Result<Reply, Failure> {
        let body = request.json()?;
        let command = text_list(&body["Cmd"]);
        if command.is_empty() {
            return Err(Failure::new(400, "No exec command specified"));
        }
        let id = self.find_container(reference)?;
        match self.at(&id).phase {
            Phase::Running => {}
            Phase::Paused => return Err(Failure::new(409, format!("Container {id} is paused, unpause the container before exec"))),
            Phase::Restarting => {
                return Err(Failure::new(409, format!("Container {id} is restarting, wait until the container is running")));
            }
            Phase::Created | Phase::Exited => return Err(Failure::new(409, format!("Container {id} is not running"))),
        }
        self.changed();
        let exec_id = self.fresh_id().to_string();
        let flag = |key: &str| body[key] == true;
        let streams = [flag("AttachStdin"), flag("AttachStdout"), flag("AttachStderr")];
        self.tell_exec(&id, &format!("exec_create: {}", shown(&command)), &exec_id, now, None);
        self.execs.insert(exec_id.clone(), Exec { container: id, command, streams, tty: flag("Tty"), ran: None });
        Ok(Reply::created(json!({ "Id": exec_id })))
    }

    fn tell_exec(&mut self, id: &Arc<str>, action: &str, exec: &str, now: Now, code: Option<i64>) {
        let mut more = vec![("execID", exec.to_owned())];
        more.extend(code.map(|c| ("exitCode", c.to_string())));
        self.tell(id, action, now, &more);
    }

    pub(super) fn exec_request(&mut self, request: &Request, parts: &[&str], now: Now) -> Result<Reply, Failure> {
        let missing = |id: &str| Failure::new(404, format!("No such exec instance: {id}"));
        match (request.method.as_str(), parts) {
            ("GET", [id, "json"]) => {
                let exec = self.execs.get(*id).ok_or_else(|| missing(id))?;
                Ok(Reply::ok(json!({
                    "ID": id, "Running": exec.is_running(now.mono_ms),
                    "ExitCode": exec.ran.filter(|(_, until)| *until <= now.mono_ms).map(|(code, _)| code),
                    "ProcessConfig": {
                        "tty": exec.tty, "entrypoint": exec.command[0], "arguments": &exec.command[1..], "privileged": false,
                    },
                    "OpenStdin": exec.streams[0], "OpenStderr": exec.streams[2], "OpenStdout": exec.streams[1], "CanRemove": false,
                    "ContainerID": &*exec.container, "DetachKeys": "", "Pid": if exec.ran.is_some() { 4_000 } else { 0 },
                })))
            }
            ("POST", [id, "start"]) => self.start_exec(request, id, now),
            ("POST", [id, "resize"]) => self.execs.get(*id).map(|_| Reply::empty(200)).ok_or_else(|| missing(id)),
            _ => Err(Failure::new(404, "page not found")),
        }
    }

    fn start_exec(&mut self, request: &Request, exec_id: &str, now: Now) -> Result<Reply, Failure> {
        let body = request.json_or_empty()?;
        let exec = self.execs.get(exec_id).cloned().ok_or_else(|| Failure::new(404, format!("No such exec instance: {exec_id}")))?;
        let detached = body["Detach"] == true;
        let refuse = |message: String| match detached {
            true => Err(Failure::new(409, message)),
            false => Ok(Reply::Hijack { output: frame(Channel::Out, format!("{message}\r\n").as_bytes()), echo: false }),
        };
        if exec.ran.is_some() {
            return refuse(format!("Error: Exec command {exec_id} has already run"));
        }
        let id = exec.container.clone();
        if !self.containers.get(&id).is_some_and(|c| c.phase == Phase::Running) {
            return Err(Failure::new(409, format!("Container {id} is not running")));
        }
        self.changed();
        self.tell_exec(&id, &format!("exec_start: {}", shown(&exec.command)), exec_id, now, None);
        let (code, output, missing) = self.run_command(&id, &exec.command, now);
        if let Some(program) = missing {
            self.execs.get_mut(exec_id).expect("it was just found").ran = Some((126, now.mono_ms));
            return refuse(format!(
                "OCI runtime exec failed: exec failed: unable to start container process: exec: \"{program}\": executable file not found in $PATH: unknown"
            ));
        }
        self.execs.get_mut(exec_id).expect("it was just found").ran = Some((code, now.mono_ms));
        self.tell_exec(&id, "exec_die", exec_id, now, Some(code));
        if detached {
            return Ok(Reply::empty(200));
        }
        let output = match (exec.streams[1] || exec.streams[2], exec.tty) {
            (false, _) => Vec::new(),
            (true, true) => output,
            (true, false) if output.is_empty() => output,
            (true, false) => frame(Channel::Out, &output),
        };
        Ok(Reply::Hijack { output, echo: exec.streams[0] && exec.command.first().is_some_and(|c| c == "cat") })
    }

    /// What a command in a container would print and end with, and the program that is not there.
    pub(super) fn run_command(&mut self, id: &Arc<str>, command: &[String], now: Now) -> (i64, Vec<u8>, Option<String>) {
        let is_busybox = {
            let container = &self.containers[id];
            self.images.get(&container.image_id).is_none_or(|i| i.spec.program == Program::Busybox)
        };
        let container = self.at(id);
        let is_well = container.is_well(now.mono_ms);
        let env = text_list(&container.config["Env"]);
        let mut files = std::mem::take(&mut container.files);
        let mut shell = Shell::new(&mut files, &env, is_busybox);
        shell.unknown_code = Some(i64::from(!is_well));
        let code = shell.top(command);
        let lines = std::mem::take(&mut shell.lines);
        let missing = shell.missing.take().filter(|_| is_busybox);
        let output: String = lines.into_iter().map(|(_, _, line)| if line.ends_with('\n') { line } else { format!("{line}\n") }).collect();
        self.at(id).files = files;
        // What would go on for ever is taken for well.
        (code.unwrap_or(0), output.into_bytes(), missing)
    }

    pub(super) fn archive(&mut self, request: &Request, id: &Arc<str>) -> Result<Reply, Failure> {
        let path = request.get("path").unwrap_or_default().to_owned();
        if path.is_empty() {
            return Err(Failure::new(400, "bad parameter: pathcannot be empty"));
        }
        if request.method == "PUT" {
            return self.put_archive(request, id, &path);
        }
        let container = self.at(id);
        let place = normal(&path);
        let missing = || Failure::new(404, format!("Could not find the file {path} in container {id}"));
        if !exists(&container.files, &place) {
            return Err(missing());
        }
        let entry =
            container.files.get(&place).cloned().unwrap_or(FileEntry { mode: 0o755, content: Arc::from([]), directory: true, mtime: 0 });
        let name = place.rsplit('/').next().unwrap_or_default().to_owned();
        let mode = u64::from(entry.mode) | if entry.directory { 1 << 31 } else { 0 };
        let stat = json!({
            "name": name, "size": entry.content.len(), "mode": mode, "mtime": time::seconds(entry.mtime as i64 * 1_000_000_000), "linkTarget": "",
        });
        let header = base64::engine::general_purpose::STANDARD.encode(stat.to_string());
        let headers = vec![("X-Docker-Container-Path-Stat", header)];
        if request.method == "HEAD" {
            return Ok(Reply::Bytes { status: 200, content_type: "", headers, body: Vec::new() });
        }
        let mut archive = tar::Builder::new(Vec::new());
        let inside: Vec<(String, FileEntry)> = match entry.directory {
            false => vec![(name, entry)],
            true => {
                let prefix = format!("{}/", place.trim_end_matches('/'));
                let below = container.files.iter().filter(|(p, _)| p.starts_with(&prefix));
                below.map(|(p, e)| (format!("{name}/{}", &p[prefix.len()..]), e.clone())).collect()
            }
        };
        for (path, entry) in inside.iter().filter(|(_, e)| !e.directory) {
            let mut header = tar::Header::new_gnu();
            header.set_size(entry.content.len() as u64);
            header.set_mode(entry.mode);
            header.set_mtime(entry.mtime);
            archive.append_data(&mut header, path, &*entry.content).map_err(|e| Failure::new(500, e.to_string()))?;
        }
        let body = archive.into_inner().map_err(|e| Failure::new(500, e.to_string()))?;
        Ok(Reply::Bytes { status: 200, content_type: "application/x-tar", headers, body })
    }

    fn put_archive(&mut self, request: &Request, id: &Arc<str>, path: &str) -> Result<Reply, Failure> {
        let container = self.at(id);
        if container.host_flag("ReadonlyRootfs") {
            return Err(Failure::new(500, "container rootfs is marked read-only"));
        }
        let place = normal(path);
        if !is_directory(&container.files, &place) {
            return Err(Failure::new(404, format!("Could not find the file {path} in container {id}")));
        }
        let broken = || Failure::new(500, "Error processing tar file(exit status 1): unexpected EOF");
        let mut archive = tar::Archive::new(request.body.as_slice());
        let mut found = Vec::new();
        for entry in archive.entries().map_err(|_| broken())? {
            let mut entry = entry.map_err(|_| broken())?;
            let name = entry.path().map_err(|_| broken())?.to_string_lossy().into_owned();
            let (mode, mtime) = (entry.header().mode().unwrap_or(0o644), entry.header().mtime().unwrap_or(0));
            let directory = entry.header().entry_type().is_dir();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(|_| broken())?;
            let target = normal(&format!("{}/{name}", place.trim_end_matches('/')));
            found.push((target, FileEntry { mode, content: content.into(), directory, mtime }));
        }
        if found.is_empty() && !request.body.is_empty() && request.body.len() < 512 {
            return Err(broken());
        }
        self.changed();
        self.at(id).files.extend(found);
        Ok(Reply::empty(200))
    }
}

fn shown(command: &[String]) -> String {
    let arguments = command[1..].join(" ");
    format!("{} {arguments}", command[0])
}
