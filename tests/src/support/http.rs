//! A small HTTP/1.1 client, one request a connection: for the engine's API and the operator's, so that no client under test is used to
//! test it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// The longest silence of a server.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Place {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(SocketAddr),
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_path_buf())
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// Status line and headers.
    pub head: String,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether the code says that it went well.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// What the connection had against it.
pub fn call(place: &Place, method: &str, path: &str, body: Option<(&str, &[u8])>) -> io::Result<Answer> {
    call_within(PATIENCE, place, method, path, body)
}

/// Like [`call`], with a patience of its own.
///
/// # Errors
/// What the connection had against it.
pub fn call_within(patience: Duration, place: &Place, method: &str, path: &str, body: Option<(&str, &[u8])>) -> io::Result<Answer> {
    begin_within(patience, place, method, path, None, body)?.rest()
}

/// Posts nothing, with a header of its own.
///
/// # Errors
/// What the connection had against it.
pub fn post_with(place: &Place, path: &str, header: (&str, &str)) -> io::Result<Answer> {
    begin_within(PATIENCE, place, "POST", path, Some(header), None)?.rest()
}

/// An answer whose body is still to come.
pub struct Begun {
    /// The status code.
    pub code: u16,
    head: String,
    raw: Vec<u8>,
    stream: Box<dyn Read + Send>,
}

impl Begun {
    /// Reads the rest, until the server ends it.
    ///
    /// # Errors
    /// What the connection had against it.
    pub fn rest(mut self) -> io::Result<Answer> {
        match self.stream.read_to_end(&mut self.raw) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => return Err(error),
            _ => {}
        }
        let body = match header(&self.head, "transfer-encoding") {
            Some(coding) if coding.contains("chunked") => unchunk(&self.raw),
            _ => self.raw,
        };
        Ok(Answer { code: self.code, head: self.head, body })
    }
}

/// Sends a request and reads no more than the head of the answer: with that, some servers say that they have begun to listen.
///
/// # Errors
/// What the connection had against it.
pub fn begin(place: &Place, method: &str, path: &str, body: Option<(&str, &[u8])>) -> io::Result<Begun> {
    begin_within(PATIENCE, place, method, path, None, body)
}

fn begin_within(
    patience: Duration,
    place: &Place,
    method: &str,
    path: &str,
    header: Option<(&str, &str)>,
    body: Option<(&str, &[u8])>,
) -> io::Result<Begun> {
    match place {
        Place::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(patience))?;
            exchange(stream, method, path, header, body)
        }
        Place::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, patience)?;
            stream.set_read_timeout(Some(patience))?;
            exchange(stream, method, path, header, body)
        }
    }
}

fn exchange(
    mut stream: impl Read + Write + Send + 'static,
    method: &str,
    path: &str,
    header: Option<(&str, &str)>,
    body: Option<(&str, &[u8])>,
) -> io::Result<Begun> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    if let Some((name, value)) = header {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some((kind, bytes)) = body {
        head.push_str(&format!("content-type: {kind}\r\ncontent-length: {}\r\n", bytes.len()));
    } else if method == "POST" {
        head.push_str("content-length: 0\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    // A server that refuses a request may answer and close before it has read the body.
    let sent = body.map_or(Ok(()), |(_, bytes)| stream.write_all(bytes));
    let mut raw = Vec::new();
    let end = loop {
        if let Some(end) = head_end(&raw) {
            break end;
        }
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) => return Err(io::Error::other("the server closed without an answer")),
            Ok(n) => raw.extend_from_slice(&part[..n]),
            Err(error) => return Err(sent.err().unwrap_or(error)),
        }
    };
    let rest = raw.split_off(end);
    let head = String::from_utf8_lossy(&raw).into_owned();
    let code = status_code(&head).ok_or_else(|| io::Error::other("the answer has no status code"))?;
    Ok(Begun { code, head, raw: rest, stream: Box::new(stream) })
}

/// Where the head of a message ends, the empty line included.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// The code in a status line.
pub fn status_code(head: &str) -> Option<u16> {
    head.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The value of a header, in lower case.
pub fn header(head: &str, name: &str) -> Option<String> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
    })
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line_end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = String::from_utf8_lossy(&rest[..line_end]);
        let Ok(size) = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16) else { break };
        let from = line_end + 2;
        let Some(chunk) = rest.get(from..from + size).filter(|_| size > 0) else { break };
        body.extend_from_slice(chunk);
        rest = rest.get(from + size + 2..).unwrap_or_default();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(unchunk(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"), b"abcde");
        assert_eq!(unchunk(b"3\r\nab"), b"");
    }
}
