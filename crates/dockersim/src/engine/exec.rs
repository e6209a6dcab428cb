//! Commands in containers, and files put into and taken out of them.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Value, json};

use super::Engine;
use super::container::{Exec, ExecState, MountKind, Phase};
use super::create::strings;
use super::reply::{Channel, Echo, Failure, Output, Reply, Request, Stream, frame};
use crate::Now;
use crate::behaviour::shell::{FileEntry, Files, Shell, exists, file, is_directory, normal};

/// What a command printed, in order.
type Printed = Vec<(Channel, String)>;

impl Engine {
    pub(crate) fn exec_create(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let body = request.json()?;
        let command = strings(body.get("Cmd"));
        if command.is_empty() {
            return Err(Failure::new(400, "No exec command specified"));
        }
        let id = self.find(reference)?;
        match self.containers[&id].phase {
            Phase::Running => {}
            Phase::Paused => return Err(Failure::new(409, format!("Container {id} is paused, unpause the container before exec"))),
            Phase::Restarting => {
                return Err(Failure::new(409, format!("Container {id} is restarting, wait until the container is running")));
            }
            Phase::Created | Phase::Exited | Phase::Starting => {
                return Err(Failure::new(409, format!("Container {id} is not running")));
            }
        }
        let exec = Exec { id: self.hex_id(), container: id.clone(), command, body, state: ExecState::Created, pid: 0 };
        let (exec_id, line) = (exec.id.clone(), exec_line("exec_create", &exec.command));
        if let Some(container) = self.containers.get_mut(&id) {
            container.execs.push(exec_id.clone());
        }
        self.execs.insert(exec_id.clone(), exec);
        self.forget_execs(&id);
        self.container_event(&id, &line, vec![("execID", exec_id.clone())], now);
        Ok(Reply::Json { status: 201, body: json!({ "Id": &*exec_id }) })
    }

    /// The daemon forgets old ones after a while; here, all but the last few of a container.
    fn forget_execs(&mut self, id: &str) {
        let old: Vec<Arc<str>> = match self.containers.get_mut(id) {
            Some(container) if container.execs.len() > 16 => {
                let extra = container.execs.len() - 16;
                container.execs.drain(..extra).collect()
            }
            _ => return,
        };
        for exec in old {
            self.execs.remove(&exec);
        }
    }

    fn exec(&self, reference: &str) -> Result<&Exec, Failure> {
        let missing = || Failure::new(404, format!("No such exec instance: {reference}"));
        self.execs.get(reference).ok_or_else(missing)
    }

    pub(crate) fn exec_start(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let body = if request.body.is_empty() { Value::Null } else { request.json()? };
        let flag = |key: &str| body.get(key).and_then(Value::as_bool).unwrap_or(false);
        let exec = self.exec(reference)?.clone();
        let of_exec = |key: &str| exec.body.get(key).and_then(Value::as_bool).unwrap_or(false);
        let raw = flag("Tty") || of_exec("Tty");
        let container = self.container(&exec.container)?;
        match container.phase {
            Phase::Running => {}
            Phase::Paused => {
                return Err(Failure::new(409, format!("Container {} is paused, unpause the container before exec", exec.container)));
            }
            _ => return Err(Failure::new(409, format!("Container {} is not running", exec.container))),
        }
        let error = |message: String| Output { bytes: framed(raw, Channel::Out, &format!("{message}\r\n")), echo: Echo::No };
        if exec.state != ExecState::Created {
            let message = format!("Error: Exec command {} has already run", exec.id);
            if flag("Detach") {
                return Err(Failure::new(409, message));
            }
            return Ok(Reply::Hijack(Stream::Done(error(message))));
        }
        let line = exec_line("exec_start", &exec.command);
        self.container_event(&exec.container, &line, vec![("execID", exec.id.clone())], now);
        let (code, printed, missing, echoes, forever) =
            self.run_printing(&exec.container, &exec.command, &strings(exec.body.get("Env")), now);
        let state = if forever { ExecState::Running } else { ExecState::Done(code) };
        let pid = self.count() + 1000;
        if let Some(stored) = self.execs.get_mut(&exec.id) {
            (stored.state, stored.pid) = (state, if missing.is_some() { 0 } else { pid });
        }
        self.changed();
        if let Some(program) = missing {
            let why = if program.contains('/') {
                format!("stat {program}: no such file or directory")
            } else {
                "executable file not found in $PATH".to_owned()
            };
            if let Some(stored) = self.execs.get_mut(&exec.id) {
                stored.state = ExecState::Done(126);
            }
            let message =
                format!("OCI runtime exec failed: exec failed: unable to start container process: exec: \"{program}\": {why}: unknown");
            if flag("Detach") {
                return Err(Failure::new(400, message));
            }
            return Ok(Reply::Hijack(Stream::Done(error(message))));
        }
        if !forever {
            self.exec_died(&exec.container, &exec.id, code, now);
        }
        if flag("Detach") {
            return Ok(Reply::Empty { status: 200 });
        }
        let wanted = |channel: Channel| of_exec(if channel == Channel::Out { "AttachStdout" } else { "AttachStderr" });
        let mut bytes = Vec::new();
        for (channel, text) in printed.iter().filter(|(channel, _)| raw || wanted(*channel)) {
            bytes.extend(framed(raw, *channel, text));
        }
        let echo = match (echoes && of_exec("AttachStdin"), raw) {
            (false, _) => Echo::No,
            (true, true) => Echo::Raw,
            (true, false) => Echo::Framed,
        };
        Ok(Reply::Hijack(Stream::Done(Output { bytes, echo })))
    }

    pub(crate) fn exec_inspect(&self, reference: &str) -> Result<Reply, Failure> {
        let exec = self.exec(reference)?;
        let flag = |key: &str| exec.body.get(key).and_then(Value::as_bool).unwrap_or(false);
        let code = match exec.state {
            ExecState::Done(code) => json!(code),
            ExecState::Created | ExecState::Running => Value::Null,
        };
        Ok(Reply::ok(json!({
            "ID": &*exec.id,
            "Running": exec.state == ExecState::Running,
            "ExitCode": code,
            "ProcessConfig": {
                "tty": flag("Tty"),
                "entrypoint": exec.command.first(),
                "arguments": exec.command.get(1..).unwrap_or(&[]),
                "privileged": flag("Privileged"),
            },
            "OpenStdin": flag("AttachStdin"),
            "OpenStderr": flag("AttachStderr"),
            "OpenStdout": flag("AttachStdout"),
            "CanRemove": false,
            "ContainerID": &*exec.container,
            "DetachKeys": "",
            "Pid": exec.pid,
        })))
    }

    pub(crate) fn exec_resize(&self, reference: &str, request: &Request) -> Result<Reply, Failure> {
        sizes(request)?;
        self.exec(reference)?;
        Ok(Reply::Empty { status: 200 })
    }

    pub(crate) fn exec_events(&mut self, id: &str, exec: &Arc<str>, command: &[String], now: Now) {
        for word in ["exec_create", "exec_start"] {
            self.container_event(id, &exec_line(word, command), vec![("execID", exec.clone())], now);
        }
    }

    pub(crate) fn exec_died(&mut self, id: &str, exec: &Arc<str>, code: i64, now: Now) {
        self.container_event(id, "exec_die", vec![("execID", exec.clone()), ("exitCode", code.to_string().into())], now);
    }

    /// All files that a container sees: its own, and those of its volumes.
    pub(crate) fn gather(&self, id: &str) -> Files {
        let Some(container) = self.containers.get(id) else { return Files::new() };
        let mut files = container.files.clone();
        for mount in container.mounts.iter().filter(|m| m.kind == MountKind::Volume) {
            let Some(volume) = self.volumes.get(mount.source.as_str()) else { continue };
            let base = normal(&mount.target);
            files.entry(base.clone()).or_insert_with(|| file(b"", true));
            files.extend(volume.files.iter().map(|(path, entry)| (normal(&format!("{base}/{path}")), entry.clone())));
        }
        files
    }

    /// Puts the files back to where they belong.
    pub(crate) fn scatter(&mut self, id: &str, mut files: Files) {
        let Some(container) = self.containers.get_mut(id) else { return };
        for mount in container.mounts.iter().filter(|m| m.kind == MountKind::Volume) {
            let base = normal(&mount.target);
            let below = format!("{base}/");
            let inside: Vec<String> =
                files.range(below.clone()..).map(|(path, _)| path.clone()).take_while(|p| p.starts_with(&below)).collect();
            let moved: Files = inside.into_iter().filter_map(|p| files.remove(&p).map(|f| (p[base.len()..].to_owned(), f))).collect();
            files.remove(&base);
            if let Some(volume) = self.volumes.get_mut(mount.source.as_str()).filter(|_| mount.writable) {
                volume.files = moved;
            }
        }
        container.files = files;
    }

    fn run_printing(&mut self, id: &str, command: &[String], more: &[String], now: Now) -> (i64, Printed, Option<String>, bool, bool) {
        let Some(container) = self.containers.get_mut(id) else { return (1, Vec::new(), None, false, false) };
        let well = container.well(now.mono_ms);
        if container.script.opaque {
            return (i64::from(!well), Vec::new(), None, false, false);
        }
        let mut env = strings(container.config.get("Env"));
        env.extend(more.iter().cloned());
        env.push(format!("HOSTNAME={}", container.config.get("Hostname").and_then(Value::as_str).unwrap_or_default()));
        let busybox = self.images.get(&container.image_id).is_some_and(|i| i.spec.program == crate::behaviour::Program::Busybox);
        let mut files = self.gather(id);
        let mut shell = Shell::new(&mut files, &env, busybox);
        shell.unknown_code = Some(i64::from(!well));
        let code = shell.top(command);
        let printed: Printed = shell.lines.drain(..).map(|(_, channel, line)| (channel, line + "\n")).collect();
        let (missing, echoes) = (shell.missing.take(), shell.echoes);
        self.scatter(id, files);
        (code.unwrap_or(0), printed, missing, echoes, code.is_none())
    }

    /// Runs a command for the HEALTHCHECK: its code and what it printed.
    pub(crate) fn run_in(&mut self, id: &str, command: &[String]) -> (i64, String) {
        // The caller looked at the health already.
        let at = self.containers.get(id).map_or(0, |c| c.started_ms.saturating_add(c.script.healthy_after_ms));
        let (code, printed, missing, _, forever) = self.run_printing(id, command, &[], Now { mono_ms: at, wall_ns: 0 });
        let output = printed.into_iter().map(|(_, text)| text).collect();
        (if forever || missing.is_some() { -1 } else { code }, output)
    }

    /// The volumes are mounted for as long as files are looked at, whatever comes of it.
    pub(crate) fn archive(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let path = request.get("path").filter(|p| !p.is_empty()).ok_or_else(|| Failure::new(400, "bad parameter: pathcannot be empty"))?;
        let id = self.find(reference)?;
        self.mount_events(&id, now);
        let (result, word) = match request.method.as_str() {
            "PUT" => (self.archive_put(&id, reference, path, request), Some("extract-to-dir")),
            "HEAD" => (self.archive_get(&id, reference, path, request), None),
            _ => (self.archive_get(&id, reference, path, request), Some("archive-path")),
        };
        if let (Ok(_), Some(word)) = (&result, word) {
            self.container_event(&id, word, Vec::new(), now);
        }
        self.unmount_events(&id, now);
        result
    }

    fn archive_put(&mut self, id: &str, reference: &str, path: &str, request: &Request) -> Result<Reply, Failure> {
        let container = self.containers.get_mut(id).ok_or_else(|| Failure::new(404, "gone"))?;
        if !is_directory(&container.files, path) && !container.mounts.iter().any(|m| normal(path).starts_with(&m.target)) {
            if exists(&container.files, path) {
                return Err(Failure::new(500, "extraction point is not a directory"));
            }
            return Err(Failure::new(404, format!("Could not find the file {path} in container {reference}")));
        }
        let in_volume = container.mounts.iter().any(|m| m.writable && (normal(path) + "/").starts_with(&format!("{}/", normal(&m.target))));
        if !in_volume && container.host.get("ReadonlyRootfs").and_then(Value::as_bool) == Some(true) {
            return Err(Failure::new(500, "container rootfs is marked read-only"));
        }
        let files = unpack(path, &request.body)?;
        let mut all = self.gather(id);
        all.extend(files);
        self.scatter(id, all);
        self.changed();
        Ok(Reply::Empty { status: 200 })
    }

    fn archive_get(&self, id: &str, reference: &str, path: &str, request: &Request) -> Result<Reply, Failure> {
        let files = &self.gather(id);
        if !exists(files, path) {
            return Err(Failure::new(404, format!("Could not find the file {path} in container {reference}")));
        }
        let path = normal(path);
        let name = path.rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or("/").to_owned();
        let directory = is_directory(files, &path);
        let entry = files.get(&path).cloned().unwrap_or_else(|| file(b"", directory));
        let mode: u64 = if directory { u64::from(entry.mode) | 1 << 31 } else { u64::from(entry.mode) };
        let size = if directory { 4096 } else { entry.content.len() as u64 };
        let mtime = super::time::seconds(i64::try_from(entry.mtime).unwrap_or(0).saturating_mul(1_000_000_000));
        let stat = json!({ "name": name, "size": size, "mode": mode, "mtime": mtime, "linkTarget": "" });
        let stat = base64::engine::general_purpose::STANDARD.encode(stat.to_string());
        let body = if request.method == "HEAD" { Vec::new() } else { pack(files, &path, &name, &entry) };
        Ok(Reply::Bytes { status: 200, content_type: "application/x-tar", headers: vec![("X-Docker-Container-Path-Stat", stat)], body })
    }

    /// All of its own files as an archive.
    pub(crate) fn container_export(&mut self, reference: &str, now: Now) -> Result<Reply, Failure> {
        let id = self.find(reference)?;
        let body = pack(&self.containers[&id].files, "/", "/", &file(b"", true));
        self.container_event(&id, "export", Vec::new(), now);
        Ok(Reply::Bytes { status: 200, content_type: "application/octet-stream", headers: Vec::new(), body })
    }

    pub(crate) fn container_changes(&self, reference: &str) -> Result<Reply, Failure> {
        let id = self.find(reference)?;
        let rows: Vec<Value> = self.containers[&id].files.keys().map(|path| json!({ "Path": path, "Kind": 1 })).collect();
        Ok(Reply::ok(if rows.is_empty() { Value::Null } else { rows.into() }))
    }

    pub(crate) fn container_resize(&self, reference: &str, request: &Request) -> Result<Reply, Failure> {
        sizes(request)?;
        let id = self.find(reference)?;
        if !self.containers[&id].phase.lives() {
            return Err(Failure::new(409, format!("Container {id} is not running")));
        }
        Ok(Reply::Empty { status: 200 })
    }
}

fn sizes(request: &Request) -> Result<(), Failure> {
    for key in ["h", "w"] {
        let text = request.get(key).unwrap_or_default();
        if text.parse::<i64>().is_err() {
            return Err(Failure::new(400, format!("strconv.Atoi: parsing \"{text}\": invalid syntax")));
        }
    }
    Ok(())
}

fn exec_line(word: &str, command: &[String]) -> String {
    // The daemon writes the program, a space, and the arguments, of which there may be none.
    let (program, rest) = command.split_first().map_or(("", &[][..]), |(p, r)| (p.as_str(), r));
    format!("{word}: {program} {}", rest.join(" "))
}

fn framed(raw: bool, channel: Channel, text: &str) -> Vec<u8> {
    if raw { text.replace('\n', "\r\n").replace("\r\r", "\r").into_bytes() } else { frame(channel, text.as_bytes()) }
}

/// The files of a tar archive, by their whole paths.
fn unpack(base: &str, body: &[u8]) -> Result<Files, Failure> {
    let bad = |why: &str| Failure::new(500, format!("Error processing tar file(exit status 1): {why}"));
    let mut files = Files::new();
    let mut rest = body;
    let mut long_name: Option<String> = None;
    while !rest.is_empty() {
        let (block, after) = rest.split_at_checked(512).ok_or_else(|| bad("unexpected EOF"))?;
        if block.iter().all(|b| *b == 0) {
            break;
        }
        let header = TarHeader::read(block).ok_or_else(|| bad("archive/tar: invalid tar header"))?;
        let size = usize::try_from(header.size).map_err(|_| bad("archive/tar: invalid tar header"))?;
        let content = after.get(..size).ok_or_else(|| bad("unexpected EOF"))?;
        rest = after.get(size.div_ceil(512) * 512..).unwrap_or(&[]);
        match header.kind {
            b'L' => long_name = Some(text_of(content)),
            b'x' => long_name = pax_path(content).or(long_name),
            b'g' => {}
            kind => {
                let path = long_name.take().unwrap_or(header.name);
                let entry = FileEntry { mode: header.mode, content: content.into(), directory: kind == b'5', mtime: header.mtime };
                files.insert(normal(&format!("{base}/{path}")), entry);
            }
        }
    }
    Ok(files)
}

/// What is read of a tar header. Empty numbers are 0, as Go has it.
struct TarHeader {
    name: String,
    mode: u32,
    size: u64,
    mtime: u64,
    kind: u8,
}

impl TarHeader {
    fn read(block: &[u8]) -> Option<Self> {
        let number = |range: std::ops::Range<usize>| -> Option<u64> {
            let text = text_of(block.get(range)?);
            let text = text.trim();
            if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
        };
        let sum: u64 = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum();
        if number(148..156)? != sum {
            return None;
        }
        let prefix = if block.get(257..263)? == b"ustar\0" { text_of(block.get(345..500)?) } else { String::new() };
        let name = text_of(block.get(..100)?);
        Some(Self {
            name: if prefix.is_empty() { name } else { format!("{prefix}/{name}") },
            mode: u32::try_from(number(100..108)? & 0o7777).ok()?,
            size: number(124..136)?,
            mtime: number(136..148)?,
            kind: *block.get(156)?,
        })
    }
}

/// Text up to the first zero.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// The path in a header of the newer format.
fn pax_path(content: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    text.lines().find_map(|line| line.split_once(' ')?.1.strip_prefix("path=").map(str::to_owned))
}

fn pack(files: &Files, path: &str, name: &str, own: &FileEntry) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, entry: &FileEntry| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(entry.mode);
        header.set_mtime(entry.mtime);
        header.set_entry_type(if entry.directory { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_size(entry.content.len() as u64);
        // A name that a tar header cannot hold is left out.
        let _ = builder.append_data(&mut header, name, &*entry.content);
    };
    let below = if path == "/" { "/".to_owned() } else { format!("{path}/") };
    if name != "/" {
        add(name, own);
    }
    for (full, entry) in files.range(below.clone()..).take_while(|(full, _)| full.starts_with(&below)) {
        add(format!("{name}/{}", &full[below.len()..]).trim_start_matches('/'), entry);
    }
    builder.into_inner().unwrap_or_default()
}
