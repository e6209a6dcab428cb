//! Owns the sockets: who may connect, for how long, how many at once, and how it all ends.
//!
//! A unix socket file left behind by a dead process is replaced, a live one is refused, and any other file is left alone.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_service::Service;

use crate::app::{Closing, Peer};

/// What the kernel takes for the path of a socket, in bytes.
const LONGEST_PATH: usize = 107;
/// The most connections at once; more wait to be accepted.
const MOST_CONNECTIONS: usize = 1_024;
/// The same over a socket that anybody in a container may use.
const MOST_OF_A_FACE: usize = 64;
/// How long the head of a request may take, also the first byte of the next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest head of a request; what came with the same read may be over it.
const MOST_HEAD: usize = 64 * 1024;
/// How long requests under way may take when the server closes.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a live process may take to accept before its socket counts as alive anyway.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const BACKLOG: u32 = 1_024;

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The kernel takes no such path.
    #[error("the socket path {path} has {length} bytes, and at most {LONGEST_PATH} are possible: choose a shorter one", path = path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Another process listens there.
    #[error("another process listens on {place}")]
    InUse {
        /// The path or address.
        place: String,
    },
    /// Something that is no socket is there.
    #[error("{path} is not a socket, and is left alone: choose another path", path = path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot listen on {place}")]
    Io {
        /// The path or address.
        place: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A socket that listens.
#[derive(Debug)]
pub struct Listener(Kind, usize);

#[derive(Debug)]
enum Kind {
    Unix { listener: UnixListener, _file: SocketFile },
    Tcp(TcpListener),
}

/// The file of our socket, known by its inode: a successor's is not ours to remove.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // A file that stays behind is replaced by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Listens on a unix socket that only its owner can use.
    ///
    /// # Errors
    /// When the path is too long, taken by a live process or by another file, or refused by the system.
    pub async fn unix(path: &Path) -> Result<Self, ServeError> {
        Self::unix_for(path, 0o600, MOST_CONNECTIONS).await
    }

    /// Listens on a unix socket that everybody who sees the file may use: who may, the mount decides. It takes few connections at once, so
    /// that nobody there can take from the operator what it needs to see its engine.
    ///
    /// # Errors
    /// As for [`Listener::unix`].
    pub async fn unix_for_all(path: &Path) -> Result<Self, ServeError> {
        Self::unix_for(path, 0o666, MOST_OF_A_FACE).await
    }

    async fn unix_for(path: &Path, mode: u32, most: usize) -> Result<Self, ServeError> {
        let length = path.as_os_str().as_bytes().len();
        if length > LONGEST_PATH {
            return Err(ServeError::PathTooLong { path: path.to_owned(), length });
        }
        remove_stale(path).await?;
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ServeError::InUse { place: path.display().to_string() },
            _ => ServeError::Io { place: path.display().to_string(), source },
        };
        let socket = UnixSocket::new_stream().map_err(refused)?;
        socket.bind(path).map_err(refused)?;
        let file = SocketFile { path: path.to_owned(), identity: identity(path) };
        // Before it listens nobody can connect, so that no one slips in under the wider mode.
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(refused)?;
        let listener = socket.listen(BACKLOG).map_err(refused)?;
        Ok(Self(Kind::Unix { listener, _file: file }, most))
    }

    /// Listens on a TCP address.
    ///
    /// # Errors
    /// When the address is taken or refused by the system.
    pub async fn tcp(address: SocketAddr) -> Result<Self, ServeError> {
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ServeError::InUse { place: address.to_string() },
            _ => ServeError::Io { place: address.to_string(), source },
        })?;
        Ok(Self(Kind::Tcp(listener), MOST_CONNECTIONS))
    }

    /// The TCP address, e.g. to learn the port that the system chose; `None` for unix sockets.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().ok(),
            Kind::Unix { .. } => None,
        }
    }

    /// Serves until `shutdown`; then watches and logs end at once, other requests within a few seconds, and the socket file is removed.
    pub async fn serve(self, router: Router, shutdown: impl Future<Output = ()>) {
        let closing = Closing::default();
        let places = Arc::new(Semaphore::new(self.1));
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.as_mut() => break,
                Some(_) = connections.join_next() => continue,
                // The place first: a connection that was accepted must not be lost when another branch wins.
                accepted = async {
                    let place = Arc::clone(&places).acquire_owned().await;
                    (self.accept().await, place)
                } => accepted,
            };
            match accepted {
                (Ok(stream), place) => {
                    let connection = stream.serve(router.clone(), closing.clone());
                    connections.spawn(async move {
                        let _place = place;
                        connection.await;
                    });
                }
                (Err(error), _) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self);
        closing.0.cancel();
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(GRACE, all_ended).await.is_err() {
            tracing::warn!(open = connections.len(), "connections were cut");
            connections.shutdown().await;
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match &self.0 {
            Kind::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream))
            }
        }
    }
}

enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Accepted {
    async fn serve(self, router: Router, closing: Closing) {
        match self {
            Self::Unix(stream) => {
                let peer = stream.peer_cred().ok().map(|user| Peer { uid: user.uid() });
                serve_connection(stream, router, closing, peer).await;
            }
            Self::Tcp(stream) => serve_connection(stream, router, closing, None).await,
        }
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    closing: Closing,
    peer: Option<Peer>,
) {
    let for_requests = closing.clone();
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(for_requests.clone());
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MOST_HEAD)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = closing.0.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// Makes way for a new socket where a dead process left its file.
async fn remove_stale(path: &Path) -> Result<(), ServeError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ServeError::Io { place: path.display().to_string(), source }),
    };
    if !metadata.file_type().is_socket() {
        return Err(ServeError::NotASocket { path: path.to_owned() });
    }
    match timeout(PROBE_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| ServeError::Io { place: path.display().to_string(), source })
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(source)) => Err(ServeError::Io { place: path.display().to_string(), source }),
        Ok(Ok(_)) | Err(_) => Err(ServeError::InUse { place: path.display().to_string() }),
    }
}

/// Serves on a unix socket, mode 0600, until `shutdown`.
///
/// # Errors
/// As [`Listener::unix`].
pub async fn serve_unix(path: &Path, router: Router, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    Listener::unix(path).await?.serve(router, shutdown).await;
    Ok(())
}

/// Serves on a TCP address until `shutdown`.
///
/// # Errors
/// As [`Listener::tcp`].
pub async fn serve_tcp(address: SocketAddr, router: Router, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    Listener::tcp(address).await?.serve(router, shutdown).await;
    Ok(())
}
