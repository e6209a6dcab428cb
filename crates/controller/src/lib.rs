//! Effects: makes the engine agree with what is wanted, and keeps status true.
//!
//! Owns the queue, the mirror of the engine, probes, the executor and the one status writer. It decides nothing that `plan` could
//! decide. Every clock, id and connection is injected. Start at [`run`].

mod adopt;
pub mod apply;
pub mod clock;
pub mod controller;
pub mod dial;
pub mod docker;
pub mod events;
mod execute;
pub mod feed;
pub mod instance;
pub mod intents;
mod jobs;
pub mod locks;
pub mod metrics;
pub mod mirror;
mod pass;
pub mod ports;
pub mod probe;
pub mod pulls;
pub mod queue;
pub mod records;
mod reloads;
pub mod reports;
pub mod run;
pub mod shadow;
pub mod status;
pub mod usable;
pub mod world;
