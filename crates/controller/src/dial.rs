//! Owns the one way out: every outbound connection is made by the injected [`Dial`], so that a simulation can answer from its world.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// Host name or address, and port.
    Tcp(String, u16),
    /// A simulated engine in this process: only a [`Dial`] made for it gets there.
    InProcess,
}

impl Address {
    /// Reads `unix:///path`, `tcp://host:port` or `http://host:port`.
    ///
    /// # Errors
    /// What is wrong with the text, for its author.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let Some(rest) = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://")) else {
            return Err(format!("`{text}` is not an engine's address: write unix:///var/run/docker.sock or tcp://HOST:PORT"));
        };
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').unwrap_or((rest.trim_end_matches('/'), "2375"));
        let port = port.parse().map_err(|_| format!("`{port}` is not a port number"))?;
        Ok(Self::Tcp(host.to_owned(), port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host, port) => write!(f, "tcp://{host}:{port}"),
            Self::InProcess => f.write_str("sim://"),
        }
    }
}

/// A byte stream to somewhere.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection attempt under way.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Makes every outbound connection.
pub type Dial = Arc<dyn Fn(Address) -> Dialing + Send + Sync>;

/// The system's own sockets: what production uses.
pub fn system() -> Dial {
    Arc::new(|address| {
        Box::pin(async move {
            let stream: Box<dyn Stream> = match address {
                Address::Unix(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
                Address::Tcp(host, port) => {
                    let stream = tokio::net::TcpStream::connect((host.as_str(), port)).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
                Address::InProcess => return Err(io::ErrorKind::Unsupported.into()),
            };
            Ok(stream)
        })
    })
}
