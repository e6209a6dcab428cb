//! Owns a socket in front of the engine's that sees when the operator writes and when it hears of an event. It changes nothing.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A call that changes something: its request line.
    Write(String),
    /// The engine told that a container died.
    Died,
}

type Log = Arc<Mutex<Vec<(Instant, Seen)>>>;

/// The proxy. Its threads end with the process: a bench has only a handful.
#[derive(Debug)]
pub(crate) struct Proxy {
    dir: tempfile::TempDir,
    log: Log,
}

impl Proxy {
    /// A proxy in front of the engine at this socket.
    pub(crate) fn start(engine: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let listener = UnixListener::bind(dir.path().join("docker.sock"))?;
        let log: Log = Arc::default();
        let (seen, engine) = (Arc::clone(&log), engine.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (seen, engine) = (Arc::clone(&seen), engine.clone());
                std::thread::spawn(move || drop(carry(client, &engine, &seen)));
            }
        });
        Ok(Self { dir, log })
    }

    /// Its address.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Forgets what was seen.
    pub(crate) fn clear(&self) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits for the first thing seen that fits, and when that was.
    pub(crate) fn first(&self, patience: Duration, fits: impl Fn(&Seen) -> bool) -> Result<Instant> {
        let began = Instant::now();
        loop {
            let found = self.log.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|(_, seen)| fits(seen)).map(|(at, _)| *at);
            if let Some(at) = found {
                return Ok(at);
            }
            if began.elapsed() > patience {
                return Err(anyhow::anyhow!("not seen within {patience:?}")).context("the operator did not act");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn note(log: &Log, seen: Seen) {
    log.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), seen));
}

fn carry(client: UnixStream, engine: &Path, log: &Log) -> Result<()> {
    let server = UnixStream::connect(engine)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let requests = Arc::clone(log);
    let up = std::thread::spawn(move || {
        let mut buffer = [0_u8; 16 * 1024];
        while let Ok(count @ 1..) = from_client.read(&mut buffer) {
            let line = buffer[..count].split(|b| *b == b'\r').next().unwrap_or_default();
            if [&b"POST "[..], b"PUT ", b"DELETE "].iter().any(|method| line.starts_with(method)) && !contains(line, b"/exec") {
                note(&requests, Seen::Write(String::from_utf8_lossy(line).into_owned()));
            }
            if to_server.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // A client that is gone is told to the engine; if the engine is gone too there is nobody to tell.
        drop(to_server.shutdown(Shutdown::Write));
    });
    let (mut from_server, mut to_client) = (server, client);
    let mut buffer = [0_u8; 16 * 1024];
    while let Ok(count @ 1..) = from_server.read(&mut buffer) {
        if contains(&buffer[..count], b"\"Action\":\"die\"") {
            note(log, Seen::Died);
        }
        if to_client.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    drop(to_client.shutdown(Shutdown::Both));
    drop(from_server.shutdown(Shutdown::Both));
    drop(up.join());
    Ok(())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
