//! One planner a kind. A planner is a pure function from what is wanted and observed to a plan; none imports another.

pub mod mini_container;
pub mod mini_service;
pub mod network;
pub mod orphan;
