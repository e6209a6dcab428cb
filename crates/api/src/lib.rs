//! Quaymaster's vocabulary: what a manifest may say, what an object is, and the one admission that turns text into objects.
//!
//! Owns the kinds and their schemas, object metadata, field paths and violations, the manifest reader, the dependency graph and
//! admission. It is pure: no clock, randomness, environment, file or network. Start at [`registry`] for the table of kinds, or at
//! [`admit`] for the way from text to objects.

pub mod admit;
pub mod availability;
pub mod codes;
pub mod conditions;
pub mod field;
pub mod graph;
pub mod kinds;
pub mod lock;
pub mod manifest;
pub mod meta;
pub mod mutant;
pub mod name;
pub mod registry;
pub mod schema;
pub mod spec;
pub mod time;
