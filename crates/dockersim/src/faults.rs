//! What goes wrong between a client and the engine, decided from outside, call by call.

use serde_json::Value;

/// A call as it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The connection, counted from 1.
    pub conn: u64,
    /// The method.
    pub method: String,
    /// The path without version and query.
    pub path: String,
    /// The query, decoded and sorted: `a=1&b=2`.
    pub query: String,
    /// How many calls with this method and path came before it, plus 1: so that a fault does not depend on unrelated traffic.
    pub occurrence: u64,
    /// Whether it may change the engine.
    pub is_write: bool,
}

/// What goes wrong with a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It takes this much longer, before it takes effect.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// The engine answers this and does nothing.
    Status {
        /// The status code.
        code: u16,
        /// Its words.
        message: String,
    },
    /// The connection breaks; nothing was done.
    CutBefore,
    /// It is done, and the connection breaks before the answer.
    CutAfter,
    /// It is done, and the connection breaks in the middle of the answer.
    CutMidBody,
    /// It is done, and no answer ever comes.
    Silent,
    /// It is done, the answer begins and does not go on.
    SilentBody,
}

/// What happens to one event on its way to one follower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventFault {
    /// It arrives.
    #[default]
    Pass,
    /// It is lost.
    Drop,
    /// It arrives twice.
    Double,
    /// It arrives later, and others may overtake it.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
}

/// A call with what came of it, for logs. All of it is in canonical order.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The call.
    pub call: Call,
    /// Its body: JSON with sorted keys, or how many bytes it had.
    pub body: Value,
    /// The status code; 0 when there was none.
    pub status: u16,
    /// The answer: JSON with sorted keys, or what kind of stream it is.
    pub answer: Value,
    /// Whether it changed the engine.
    pub changed: bool,
    /// What went wrong.
    pub fault: Fault,
}
