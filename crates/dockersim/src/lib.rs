//! A Docker Engine that fits in a test: the Engine's HTTP API over a pure state machine.
//!
//! [`engine`] owns the whole state and knows no clock, no IO and no randomness of its own: every call is given the time, and ids come
//! from a generator seeded in [`Options`]. [`http`] puts hyper around it and carries out what takes time (streams, hijacked connections,
//! faults). [`behaviour`] says what the simulated containers and registries do; [`faults`] what goes wrong on the way.
//!
//! It must never do what a real daemon (20.10.24, API 1.41) was not seen doing; what is not served answers 501 and stands in
//! `NOT_SERVED.md`. Start at [`Sim`] or, without IO, at [`Engine::handle`].

// The long JSON documents of the daemon are written with one macro call each.
#![recursion_limit = "256"]

pub mod behaviour;
pub mod engine;
pub mod faults;
pub mod http;

pub use behaviour::World;
pub use engine::reply::{Reply, Request};
pub use engine::{AddressPool, Engine, Listening, Options};
pub use faults::{Call, EventFault, Exchange, Fault};
pub use http::Sim;

/// An instant, as two clocks show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds of a clock that never goes back: timers run by it.
    pub mono_ms: u64,
    /// Unix nanoseconds: what answers and events show.
    pub wall_ns: i64,
}
