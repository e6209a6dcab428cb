//! Follows an answer that comes line by line, `/events` above all, in a thread as a client does, and keeps what came.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::support::http::Place;
use crate::support::wait;

/// How long an event may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that can be ended from outside while a thread reads from it.
enum Line {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A follower of a stream of JSON documents.
pub struct Recorder {
    seen: Arc<Mutex<Vec<Value>>>,
    line: Line,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Sends a request and follows the answer; returns when the engine has begun it.
    ///
    /// # Panics
    /// When there is no engine.
    pub fn start(place: &Place, method: &str, path: &str) -> Self {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n");
        let opened = match place {
            Place::Unix(socket) => UnixStream::connect(socket).and_then(|s| Ok((Line::Unix(s.try_clone()?), follow(s, &request)?))),
            Place::Tcp(address) => TcpStream::connect(address).and_then(|s| Ok((Line::Tcp(s.try_clone()?), follow(s, &request)?))),
        };
        let (line, reader) = opened.unwrap_or_else(|e| panic!("{path} cannot be followed: {e}"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let thread = std::thread::spawn(move || keep(reader, &into));
        Self { seen, line, thread: Some(thread) }
    }

    /// How many came until now.
    pub fn mark(&self) -> usize {
        self.lock().len()
    }

    /// What came since a mark.
    pub fn since(&self, mark: usize) -> Vec<Value> {
        self.lock().get(mark..).unwrap_or_default().to_vec()
    }

    /// Waits for an event, and gives all up to it since a mark.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn until(&self, mark: usize, is: impl Fn(&Value) -> bool) -> Vec<Value> {
        let found = wait::until(PATIENCE, || {
            let seen = self.since(mark);
            match seen.iter().position(&is) {
                Some(at) => Ok(seen[..=at].to_vec()),
                None => Err(seen.iter().map(|e| format!("{e}\n")).collect::<String>()),
            }
        });
        found.unwrap_or_else(|seen| panic!("the event did not come; these did:\n{seen}"))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Value>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // The engine may have closed it already.
        drop(match &self.line {
            Line::Unix(stream) => stream.shutdown(Shutdown::Both),
            Line::Tcp(stream) => stream.shutdown(Shutdown::Both),
        });
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

type Reader = BufReader<Box<dyn Read + Send>>;

fn follow(mut stream: impl Read + Write + Send + 'static, request: &str) -> io::Result<Reader> {
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(Box::new(stream) as Box<dyn Read + Send>);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::Error::other("the engine closed the connection"));
        }
    }
    Ok(reader)
}

/// Events come one a line, each in a chunk of its own: what is no object is the chunk's frame.
fn keep(reader: Reader, into: &Mutex<Vec<Value>>) {
    for line in reader.lines().map_while(Result::ok) {
        if let Ok(event @ Value::Object(_)) = serde_json::from_str(&line) {
            into.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        }
    }
}
