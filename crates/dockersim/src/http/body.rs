//! Bodies of answers: whole, or as they come.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// The connection is to be dropped.
#[derive(Debug)]
pub(crate) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is cut")
    }
}

impl std::error::Error for Cut {}

pub(crate) type AnyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Cut>;

pub(crate) fn whole(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body whose pieces come through a channel.
pub(crate) fn piecewise() -> (mpsc::Sender<Result<Bytes, Cut>>, AnyBody) {
    let (send, receive) = mpsc::channel(16);
    (send, Pieces(receive).boxed_unsync())
}

/// A body that never comes.
pub(crate) fn never() -> AnyBody {
    Never.boxed_unsync()
}

struct Pieces(mpsc::Receiver<Result<Bytes, Cut>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|p| p.map(Frame::data)))
    }
}

struct Never;

impl Body for Never {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        Poll::Pending
    }
}
