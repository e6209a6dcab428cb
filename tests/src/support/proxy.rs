//! A proxy before the engine's socket: counts calls, and makes the engine slow, silent, wrong, old, or gone.
//!
//! It relies on what the operator does: one connection a request. A *write* is whatever may change the engine: POST, PUT and DELETE,
//! without those of `exec`.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::http::{self, Place, head_end, header, status_code};

/// A call as it came by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub method: String,
    /// The path, without version and query.
    pub path: String,
    /// The path with its ids taken out.
    pub route: String,
    /// The code of the answer; `None` while there is none, 0 when there never was one.
    pub code: Option<u16>,
}

impl Call {
    /// Whether it may change the engine.
    pub fn is_write(&self) -> bool {
        self.method != "GET" && self.method != "HEAD" && !self.path.contains("/exec")
    }
}

/// On which side of a write's effect it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The engine never hears of it.
    Before,
    /// The engine has done it, and nobody hears of that.
    After,
}

/// How the engine misbehaves.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Every call takes this much longer.
    pub delay: Duration,
    /// Every call is answered 500.
    pub failing: bool,
    /// What the engine says of its API: newest and oldest.
    pub version: Option<(String, String)>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    writes: usize,
    faults: Faults,
    trap: Option<(usize, Side)>,
    /// The trapped write has come; it and all later ones are held until the trap is taken away.
    sprung: bool,
    /// Counts traps, so that a held call knows that its own is gone.
    epoch: u64,
    open: Vec<(String, UnixStream)>,
}

#[derive(Debug)]
struct Shared {
    upstream: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

/// A proxy; it ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    dir: TempDir,
}

impl Proxy {
    /// Stands before the engine behind `upstream`.
    pub fn before(upstream: &Path) -> Self {
        let dir = TempDir::with_prefix("qm-proxy-").expect("the temporary folder can be written");
        let listener = UnixListener::bind(dir.path().join("docker.sock")).expect("a socket can be made");
        let shared = Arc::new(Shared { upstream: upstream.to_path_buf(), state: Mutex::default(), changed: Condvar::new() });
        let serving = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let serving = serving.clone();
                thread::spawn(move || {
                    let Ok(mine) = client.try_clone() else { return };
                    // A connection that broke is what its two ends make of it.
                    drop(serving.serve(client));
                    // Other handles of it are kept for cutting: only this ends it.
                    drop(mine.shutdown(Shutdown::Both));
                });
            }
        });
        Self { shared, dir }
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Changes how the engine misbehaves, from the next call on.
    pub fn set(&self, faults: Faults) {
        self.shared.lock().faults = faults;
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }

    /// The calls since a mark that [`Proxy::mark`] gave, without pings: a watchdog may ask whether the engine lives.
    pub fn since(&self, mark: usize) -> Vec<Call> {
        self.shared.lock().calls[mark..].iter().filter(|c| c.route != "/_ping").cloned().collect()
    }

    /// The writes since a mark.
    pub fn writes_since(&self, mark: usize) -> Vec<Call> {
        self.since(mark).into_iter().filter(Call::is_write).collect()
    }

    /// Marks this moment.
    pub fn mark(&self) -> usize {
        self.shared.lock().calls.len()
    }

    /// Calls without an answer so far, but for streams of events.
    pub fn under_way(&self) -> usize {
        self.shared.lock().calls.iter().filter(|c| c.code.is_none() && c.route != "/events").count()
    }

    /// How often a route was called.
    pub fn count(&self, route: &str) -> usize {
        self.shared.lock().calls.iter().filter(|c| c.route == route).count()
    }

    /// Holds the `nth` write from now (counted from 1) on one side of its effect, and every write that comes after it.
    pub fn trap(&self, nth: usize, side: Side) {
        let mut state = self.shared.lock();
        state.writes = 0;
        state.sprung = false;
        state.trap = Some((nth, side));
    }

    /// Whether the trapped write has come.
    pub fn is_sprung(&self) -> bool {
        self.shared.lock().sprung
    }

    /// Takes the trap away: what is held is dropped without an answer.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.trap = None;
        state.sprung = false;
        state.epoch += 1;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Cuts every connection that waits for events.
    pub fn cut_events(&self) {
        self.cut(|path| path == "/events");
    }

    /// Takes the socket away, and cuts every connection: nobody answers any more.
    pub fn vanish(&self) {
        fs::rename(self.socket(), self.dir.path().join("hidden.sock")).expect("the proxy's socket can be moved");
        self.cut(|_| true);
    }

    /// Puts the socket back.
    pub fn come_back(&self) {
        fs::rename(self.dir.path().join("hidden.sock"), self.socket()).expect("the proxy's socket can be moved");
    }

    fn cut(&self, which: impl Fn(&str) -> bool) {
        let mut state = self.shared.lock();
        state.open.retain(|(path, stream)| {
            let hit = which(path);
            if hit {
                // One that is closed already is as cut as it can be.
                drop(stream.shutdown(Shutdown::Both));
            }
            !hit
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.release();
        self.cut(|_| true);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut client: UnixStream) -> io::Result<()> {
        let Some((head, rest)) = read_head(&mut client)? else { return Ok(()) };
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut words = text.split_ascii_whitespace();
        let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let path = plain_path(&target);
        let call = Call { route: route(&path), method, path, code: None };
        let (index, faults, turn) = self.note(&call, &client)?;
        let done = self.carry(index, &call, (&head, &rest), client, &faults, &turn);
        let mut state = self.lock();
        let code = &mut state.calls[index].code;
        *code = code.or(Some(0));
        drop(state);
        done
    }

    /// Carries a call to the engine and its answer back, or makes of it what the test wants.
    fn carry(
        &self,
        index: usize,
        call: &Call,
        (head, rest): (&[u8], &[u8]),
        mut client: UnixStream,
        faults: &Faults,
        turn: &Turn,
    ) -> io::Result<()> {
        let text = String::from_utf8_lossy(head).into_owned();
        thread::sleep(faults.delay);
        if faults.failing {
            drain(&mut client, &text, rest.len())?;
            self.answered(index, 500);
            return respond(&mut client, "500 Internal Server Error", br#"{"message":"injected by a test"}"#);
        }
        if let Some(epoch) = turn.before {
            self.hold(epoch);
            return client.shutdown(Shutdown::Both);
        }
        if let (Some((newest, oldest)), "/version") = (&faults.version, call.path.as_str()) {
            let answer = http::call(&Place::Unix(self.upstream.clone()), "GET", "/version", None)?;
            let mut body: Value = answer.json();
            body["ApiVersion"] = newest.as_str().into();
            body["MinAPIVersion"] = oldest.as_str().into();
            self.answered(index, 200);
            return respond(&mut client, "200 OK", body.to_string().as_bytes());
        }
        let mut upstream = UnixStream::connect(&self.upstream)?;
        upstream.write_all(head)?;
        upstream.write_all(rest)?;
        let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
        thread::spawn(move || {
            // Either end closing is the end.
            drop(io::copy(&mut from, &mut to));
            drop(to.shutdown(Shutdown::Write));
        });
        let Some((answer, begun)) = read_head(&mut upstream)? else { return client.shutdown(Shutdown::Both) };
        self.answered(index, status_code(&String::from_utf8_lossy(&answer)).unwrap_or(0));
        if let Some(epoch) = turn.after {
            self.spring();
            self.hold(epoch);
            upstream.shutdown(Shutdown::Both)?;
            return client.shutdown(Shutdown::Both);
        }
        client.write_all(&answer)?;
        client.write_all(&begun)?;
        let copied = io::copy(&mut upstream, &mut client);
        // Both ends are told; one that is gone needs no telling.
        drop(client.shutdown(Shutdown::Both));
        drop(upstream.shutdown(Shutdown::Both));
        copied.map(drop)
    }

    /// Writes a call down and says what is to become of it.
    fn note(&self, call: &Call, client: &UnixStream) -> io::Result<(usize, Faults, Turn)> {
        let mut state = self.lock();
        state.calls.push(call.clone());
        state.open.push((call.path.clone(), client.try_clone()?));
        if state.open.len() > 256 {
            // Closed ones are forgotten: what was shut down has no peer any more.
            state.open.retain(|(_, stream)| stream.peer_addr().is_ok());
        }
        let mut turn = Turn::default();
        if call.is_write() {
            state.writes += 1;
            let (n, epoch) = (state.writes, state.epoch);
            match state.trap {
                Some((nth, Side::Before)) if n >= nth => {
                    turn.before = Some(epoch);
                    state.sprung = true;
                }
                Some((nth, Side::After)) if n == nth => turn.after = Some(epoch),
                Some((nth, Side::After)) if n > nth => turn.before = Some(epoch),
                _ => {}
            }
        }
        Ok((state.calls.len() - 1, state.faults.clone(), turn))
    }

    fn answered(&self, index: usize, code: u16) {
        self.lock().calls[index].code = Some(code);
    }

    fn spring(&self) {
        self.lock().sprung = true;
    }

    fn hold(&self, epoch: u64) {
        let state = self.lock();
        let waiting = self.changed.wait_while(state, |s| s.epoch == epoch);
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Where a call is held: the trap's number, if it is.
#[derive(Debug, Default)]
struct Turn {
    before: Option<u64>,
    after: Option<u64>,
}

fn read_head(stream: &mut UnixStream) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = [0_u8; 16 * 1024];
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..n]);
        if let Some(end) = head_end(&bytes) {
            let rest = bytes.split_off(end);
            return Ok(Some((bytes, rest)));
        }
    }
}

/// Reads what is left of a request's body: closing before would cut the answer off.
fn drain(client: &mut UnixStream, head: &str, had: usize) -> io::Result<()> {
    let length: usize = header(head, "content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    io::copy(&mut client.take(length.saturating_sub(had) as u64), &mut io::sink()).map(drop)
}

fn respond(client: &mut UnixStream, status: &str, body: &[u8]) -> io::Result<()> {
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    client.write_all(head.as_bytes())?;
    client.write_all(body)?;
    client.shutdown(Shutdown::Both)
}

fn plain_path(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let version = path.strip_prefix("/v").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    version.and_then(|rest| rest.find('/').map(|at| rest[at..].to_owned())).unwrap_or_else(|| path.to_owned())
}

fn route(path: &str) -> String {
    let words: Vec<&str> = path.split('/').filter(|w| !w.is_empty()).collect();
    match words.as_slice() {
        ["images", .., "json"] if words.len() > 2 => "/images/{id}/json".to_owned(),
        [kind, word] if matches!(*word, "json" | "create" | "prune") => format!("/{kind}/{word}"),
        [kind @ ("containers" | "networks" | "volumes" | "exec"), _] => format!("/{kind}/{{id}}"),
        [kind, _, verb] => format!("/{kind}/{{id}}/{verb}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_have_no_ids_and_writes_are_known() {
        for (method, target, wanted, write) in [
            ("GET", "/v1.41/containers/json?all=true", "/containers/json", false),
            ("GET", "/containers/abc/json", "/containers/{id}/json", false),
            ("POST", "/v1.41/containers/create?name=x", "/containers/create", true),
            ("POST", "/v1.41/containers/abc/start", "/containers/{id}/start", true),
            ("DELETE", "/v1.41/containers/abc", "/containers/{id}", true),
            ("PUT", "/v1.41/containers/abc/archive?path=/", "/containers/{id}/archive", true),
            ("POST", "/v1.41/containers/abc/exec", "/containers/{id}/exec", false),
            ("POST", "/v1.41/exec/abc/start", "/exec/{id}/start", false),
            ("GET", "/v1.41/images/library/busybox:local/json", "/images/{id}/json", false),
            ("POST", "/v1.41/images/create?fromImage=x", "/images/create", true),
            ("GET", "/_ping", "/_ping", false),
        ] {
            let path = plain_path(target);
            let call = Call { method: method.to_owned(), route: route(&path), path, code: None };
            assert_eq!((call.route.as_str(), call.is_write()), (wanted, write), "{target}");
        }
    }
}
