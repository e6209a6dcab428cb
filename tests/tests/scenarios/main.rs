//! The real operator against a real Docker engine: what issue 2 promises, one test a promise.
//!
//! They need root, dockerd and a static busybox; see [`qm_tests::support::engine`]. `cargo xtask test` runs them.

mod adopting;
mod bad_input;
mod change;
mod edges;
mod engine_away;
mod faces;
mod faults;
mod folder;
mod jobs;
mod kill_points;
mod leaves;
mod locks;
mod mission;
mod monitoring;
mod moving;
mod platform;
mod probes;
mod pulls;
mod repairs;
mod sdk;
