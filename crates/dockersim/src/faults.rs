//! What can go wrong between a client and the engine, and what was said between them.

use serde_json::Value;

use crate::Now;
use crate::engine::event::Event;

/// One call, as faults and observers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The number of the connection, from 1.
    pub conn: u64,
    /// The method.
    pub method: String,
    /// The path, without version and query.
    pub path: String,
    /// The query in canonical form: sorted, JSON values with sorted keys.
    pub query: String,
    /// The how-manieth call this is with the same method, path, query and body, from 1. Counted while faults
    /// or an observer are set.
    pub occurrence: u64,
    /// Whether it may change the engine: POST, PUT and DELETE, without those of `exec`, `wait` and `attach`.
    pub is_write: bool,
    /// The container that a body names: of those that join or leave a network. Empty elsewhere.
    pub container: String,
}

/// What happens to a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It takes this long before anything happens; then comes the other fault.
    Delay {
        /// How long.
        ms: u64,
        /// And then?
        then: Box<Fault>,
    },
    /// It is answered like this, and has no effect.
    Status {
        /// The status code.
        code: u16,
        /// The message.
        message: String,
    },
    /// It has its effect, and is answered like this.
    StatusAfter {
        /// The status code.
        code: u16,
        /// The message.
        message: String,
    },
    /// The connection is cut, without an effect.
    CutBefore,
    /// The connection is cut after the effect.
    CutAfter,
    /// The connection is cut within the body of the answer, after the effect.
    CutMidBody,
    /// No answer ever comes, and there is no effect.
    Silent,
    /// No answer ever comes, but there is an effect.
    SilentAfter,
    /// The head comes, the body never.
    SilentBody,
}

impl Fault {
    /// A delay and nothing else.
    pub fn delay(ms: u64) -> Self {
        Self::Delay { ms, then: Box::default() }
    }

    /// All delays together, and what comes after them.
    pub(crate) fn split(&self) -> (u64, &Self) {
        let (mut total, mut fault) = (0_u64, self);
        while let Self::Delay { ms, then } = fault {
            total = total.saturating_add(*ms);
            fault = then;
        }
        (total, fault)
    }
}

/// What happens to an event on its way to one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFault {
    /// It arrives.
    Pass,
    /// It is lost.
    Drop,
    /// It arrives twice.
    Double,
    /// It, and all that follow, arrive later.
    DelayMs(u64),
    /// It arrives after the one that follows it.
    Swap,
    /// The stream breaks instead.
    Cut,
}

/// Decides about an event; the number is the subscriber's connection.
pub type EventFaults = dyn Fn(&Event, u64) -> EventFault + Send + Sync;

/// One exchange, told after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When the answer was ready.
    pub now: Now,
    /// The call.
    pub call: Call,
    /// The body, as JSON with sorted keys; the length where it is no JSON.
    pub body: String,
    /// The status code; 0 = none was sent.
    pub status: u16,
    /// The answer in the same form; empty for streams.
    pub answer: String,
    /// Whether it changed the engine.
    pub changed: bool,
    /// What went wrong.
    pub fault: Fault,
}

/// Bytes in a form that does not depend on the order of maps.
pub(crate) fn canonical(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return String::new();
    }
    match serde_json::from_slice::<Value>(bytes) {
        // Maps of serde_json are sorted; sorted again in case somebody turned that off.
        Ok(value) => sorted(&value).to_string(),
        Err(_) => match std::str::from_utf8(bytes) {
            Ok(text) if bytes.len() <= 256 => text.to_owned(),
            _ => format!("{} bytes", bytes.len()),
        },
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        // Lists of ports and volumes come from maps of the client.
        Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
