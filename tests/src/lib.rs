//! What the tests of the whole need: a real Docker engine, a proxy that makes it misbehave, the real `quaymaster`, small manifests.
//!
//! Nothing here decides whether something is right; that is the business of the scenarios. Start at [`support::world::World`].

pub mod conformance;
pub mod linear;
pub mod simulation;
pub mod support;
