//! A Vault that the story can seal: it tells its health as a real one does, to who dials its name, within this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qm_controller::dial::{Address, Dial, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The name under which the manifest knows it.
pub(super) const HOST: &str = "vault.demo";
/// A request is not longer than this.
const REQUEST_LIMIT: usize = 4_096;

/// The Vault of the story.
#[derive(Clone, Debug, Default)]
pub(super) struct Vault {
    sealed: Arc<AtomicBool>,
}

impl Vault {
    pub(super) fn seal(&self, sealed: bool) {
        self.sealed.store(sealed, Ordering::Relaxed);
    }

    /// The same way out as `others`, with this Vault on it.
    pub(super) fn beside(&self, others: Dial) -> Dial {
        let vault = self.clone();
        Arc::new(move |address| match address {
            Address::Tcp(host, _) if host == HOST => {
                let vault = vault.clone();
                Box::pin(async move {
                    let (ours, theirs) = tokio::io::duplex(REQUEST_LIMIT);
                    tokio::spawn(vault.answer(theirs));
                    let stream: Box<dyn Stream> = Box::new(ours);
                    Ok(stream)
                })
            }
            address => others(address),
        })
    }

    /// Answers one request; whoever asks has gone if it cannot.
    async fn answer(self, mut stream: tokio::io::DuplexStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && request.len() < REQUEST_LIMIT {
            let Ok(byte) = stream.read_u8().await else { return };
            request.push(byte);
        }
        let (status, sealed) = if self.sealed.load(Ordering::Relaxed) { ("503 Service Unavailable", true) } else { ("200 OK", false) };
        let body = format!("{{\"initialized\":true,\"sealed\":{sealed}}}");
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        drop(stream.write_all(answer.as_bytes()).await);
    }
}
