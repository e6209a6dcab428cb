//! Effects: makes the engine agree with what is wanted, and keeps status true.
//!
//! Owns the queue, the mirror of the engine, probes, the executor and the one status writer. It decides nothing that `plan` could
//! decide. Every clock, id and connection is injected. Start at [`run`].

pub mod clock;
pub mod dial;
pub mod docker;
pub mod mirror;
pub mod queue;
pub mod world;
