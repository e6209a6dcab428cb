//! Parts that several kinds share: quantities as people write them, containers, health checks, dependency edges.
//!
//! These are wire types: every field is optional where the user may leave it out, nothing is defaulted here, and the doc comment of
//! a field is its user manual (it becomes the JSON Schema and editor help).

pub mod container;
pub mod cron;
pub mod edge;
pub mod env_file;
pub mod external;
pub mod health;
pub mod image;
pub mod job;
pub mod names;
pub mod quantity;
pub mod report;
pub mod rules;
