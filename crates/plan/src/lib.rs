//! Decisions: what should be done about the difference between what is wanted and what is observed.
//!
//! Pure: time, ids, limits and observations are arguments, nothing here reads a clock, a file or the network, and no order is
//! random. Start at [`plan`] for what a plan is, at [`kinds`] for the planners, at [`availability`] for the engine that keeps every
//! service's status true along the graph.

pub mod availability;
pub mod budget;
pub mod check;
pub mod desired;
pub mod job;
pub mod kinds;
pub mod leaf;
pub mod locks;
pub mod observed;
pub mod own;
pub mod plan;
pub mod reload;
pub mod stamp;
pub mod step;
