//! What listens on containers' ports.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};

use super::Sim;

type Answer = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

/// Answers every HTTP request on a connection with one status.
pub(crate) async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, status: u16) {
    let respond = move |_: Request<Incoming>| -> Answer {
        let mut response = Response::new(Full::new(Bytes::from_static(b"dockersim\n")));
        *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::OK);
        Box::pin(std::future::ready(Ok(response)))
    };
    // What the other side does wrong is its own affair.
    let _ = hyper::server::conn::http1::Builder::new()
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service_fn(respond))
        .await;
}

/// Ends its task when it is dropped.
struct Open(tokio::task::JoinHandle<()>, u16);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) async fn serve(sim: &Sim, problem: impl Fn(&str)) {
    let mut told: BTreeSet<SocketAddr> = BTreeSet::new();
    let mut open: BTreeMap<SocketAddr, Open> = BTreeMap::new();
    let mut seen: Option<u64> = None;
    loop {
        let (version, wanted) = sim
            .until(|engine, now| {
                let version = engine.version();
                (seen != Some(version)).then(|| (version, engine.listeners(now)))
            })
            .await;
        seen = Some(version);
        open.retain(|address, held| wanted.get(address) == Some(&held.1));
        for (address, status) in wanted {
            if open.contains_key(&address) {
                continue;
            }
            match bind(address) {
                Ok(listener) => drop(open.insert(address, Open(tokio::spawn(accept(listener, status)), status))),
                // The port may belong to somebody else on this machine; then nobody answers there for us.
                Err(error) if told.insert(address) => problem(&format!("{address} cannot be listened on: {error}")),
                Err(_) => {}
            }
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(128)
}

async fn accept(listener: TcpListener, status: u16) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, status));
    }
}
