//! Owns the bare calls to Docker: HTTP over its unix socket, one connection a call, nothing decided. The floor to measure against.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A Docker, or anything else that speaks HTTP on a unix socket.
#[derive(Clone, Debug)]
pub(crate) struct Docker {
    socket: PathBuf,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: u16,
    /// The body, without its chunks.
    pub(crate) body: Vec<u8>,
}

impl Docker {
    /// The server at this socket.
    pub(crate) fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// One call.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply> {
        let mut stream = UnixStream::connect(&self.socket).with_context(|| format!("{} cannot be reached", self.socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        let text = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_some() { "Content-Type: application/json\r\n" } else { "" };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: local\r\nConnection: close\r\n{kind}Content-Length: {}\r\n\r\n{text}",
            text.len()
        )?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        parse(&bytes).with_context(|| format!("{method} {path}"))
    }

    /// One call that must succeed, and its JSON.
    pub(crate) fn json(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let reply = self.call(method, path, body)?;
        if reply.status >= 400 {
            bail!("{method} {path}: {} {}", reply.status, String::from_utf8_lossy(&reply.body));
        }
        Ok(if reply.body.is_empty() { Value::Null } else { serde_json::from_slice(&reply.body).unwrap_or(Value::Null) })
    }

    /// Whether anybody answers.
    pub(crate) fn answers(&self) -> bool {
        self.call("GET", "/_ping", None).is_ok_and(|reply| reply.status == 200)
    }

    /// Whether it has an image.
    pub(crate) fn has_image(&self, image: &str) -> bool {
        self.call("GET", &format!("/images/{image}/json"), None).is_ok_and(|reply| reply.status == 200)
    }

    /// The ids of all containers with a label.
    pub(crate) fn labelled(&self, label: &str) -> Result<Vec<String>> {
        let filters = json!({ "label": [label] }).to_string().replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
        let list = self.json("GET", &format!("/containers/json?all=1&filters={filters}"), None)?;
        Ok(list.as_array().into_iter().flatten().filter_map(|c| c["Id"].as_str().map(str::to_owned)).collect())
    }

    /// Removes all containers, networks and volumes of a Compose project, whoever made them.
    pub(crate) fn remove_project(&self, project: &str) -> Result<()> {
        let label = format!("com.docker.compose.project={project}");
        let ids = self.labelled(&label)?;
        in_parallel(8, &ids, |id| {
            self.call("DELETE", &format!("/containers/{id}?force=1&v=1"), None)?;
            Ok(())
        })?;
        let networks = self.json("GET", "/networks", None)?;
        for network in networks.as_array().into_iter().flatten().filter(|n| n["Labels"]["com.docker.compose.project"] == project) {
            self.call("DELETE", &format!("/networks/{}", network["Id"].as_str().unwrap_or_default()), None)?;
        }
        let volumes = self.json("GET", "/volumes", None)?;
        for volume in volumes["Volumes"].as_array().into_iter().flatten().filter(|v| v["Labels"]["com.docker.compose.project"] == project) {
            self.call("DELETE", &format!("/volumes/{}", volume["Name"].as_str().unwrap_or_default()), None)?;
        }
        Ok(())
    }
}

/// Does something to each of many, so many at a time; ends with the first failure.
pub(crate) fn in_parallel<T: Sync>(width: usize, items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..width.min(items.len()))
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while let Some(item) = items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                        work(item)?;
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })
}

fn parse(bytes: &[u8]) -> Result<Reply> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").context("the answer has no head")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("the answer has no status")?;
    let body = &bytes[end + 4..];
    let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_vec() };
    Ok(Reply { status, body })
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| usize::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
        let from = end + 2;
        if size == 0 || bytes.len() < from + size {
            break;
        }
        body.extend_from_slice(&bytes[from..from + size]);
        bytes = bytes.get(from + size + 2..).unwrap_or_default();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        for (bytes, status, body) in [
            (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], 204, &b""[..]),
            (&b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"[..], 404, &b"{}"[..]),
            (&chunked[..], 200, &b"abcd"[..]),
        ] {
            let reply = parse(bytes).unwrap();
            assert_eq!((reply.status, reply.body.as_slice()), (status, body));
        }
        assert!(parse(b"HTTP/1.1 200").is_err());
    }
}
