//! An operator's socket with canned answers. It writes down what it was asked.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

use crate::{Ran, run};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) accept: String,
    pub(crate) body: Value,
}

/// An answer.
pub(crate) enum Reply {
    Json(u16, Value),
    Text(u16, String),
    /// Lines, and then the end.
    Lines(Vec<Value>),
    /// Lines, and then nothing for ever.
    LinesAndHold(Vec<Value>),
    /// Bytes, and then the connection breaks.
    Broken(String),
}

impl Reply {
    /// A Kubernetes `Status`.
    pub(crate) fn status(code: u16, reason: &str, message: &str) -> Self {
        let status = serde_json::json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message});
        Self::Json(code, status)
    }
}

type Handler = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;
type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>;

/// A listening operator.
pub(crate) struct Fake {
    folder: TempDir,
    socket: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
    _runtime: Runtime,
}

impl Fake {
    pub(crate) fn new(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s.sock");
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(&socket).expect("the socket is free")
        };
        runtime.spawn(accept(listener, Arc::new(handler), asked.clone()));
        Self { folder, socket, asked, _runtime: runtime }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the program against this operator.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let socket = self.socket.to_str().expect("a plain path");
        run(&[arguments, &["--socket", socket]].concat(), self.folder())
    }

    /// Runs the program against this operator, with a command of its own behind `--`.
    pub(crate) fn run_before(&self, arguments: &[&str], command: &[&str]) -> Ran {
        let socket = self.socket.to_str().expect("a plain path");
        run(&[arguments, &["--socket", socket, "--"], command].concat(), self.folder())
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("nobody panics").clone()
    }

    /// What was asked, one request a line.
    pub(crate) fn log(&self) -> Vec<String> {
        self.asked().iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect()
    }
}

async fn accept(listener: UnixListener, handler: Handler, seen: Arc<Mutex<Vec<Asked>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (handler, seen) = (handler.clone(), seen.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (handler, seen) = (handler.clone(), seen.clone());
            async move { Ok::<_, Infallible>(answer(request, &handler, &seen).await) }
        });
        tokio::spawn(async move { hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await });
    }
}

async fn answer(request: Request<Incoming>, handler: &Handler, seen: &Mutex<Vec<Asked>>) -> Response<Body> {
    let method = request.method().to_string();
    let path = request.uri().to_string();
    let accept = request.headers().get("accept").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let bytes = request.into_body().collect().await.expect("the body arrives").to_bytes();
    let asked = Asked { method, path, accept, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) };
    seen.lock().expect("nobody panics").push(asked.clone());
    let frame = |text: String| Ok(Frame::data(Bytes::from(text)));
    let lines = |lines: Vec<Value>| stream::iter(lines.into_iter().map(move |line| frame(format!("{line}\n"))));
    let (code, body): (u16, BoxStream<'static, _>) = match handler(&asked) {
        Reply::Json(code, value) => (code, stream::iter([frame(value.to_string())]).boxed()),
        Reply::Text(code, text) => (code, stream::iter([frame(text)]).boxed()),
        Reply::Lines(all) => (200, lines(all).boxed()),
        Reply::LinesAndHold(all) => (200, lines(all).chain(stream::pending()).boxed()),
        Reply::Broken(text) => (200, stream::iter([frame(text), Err(std::io::Error::other("cut"))]).boxed()),
    };
    Response::builder().status(code).body(StreamBody::new(body)).expect("a plain answer")
}
