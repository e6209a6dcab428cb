//! Parts of a test: [`engine`] runs a dockerd, [`simulator`] stands in for one, [`proxy`] stands before it, [`registry`] has images for one user alone, [`operator`] runs the binary, [`docker`] looks at what is
//! really there, [`manifests`] writes what is wanted, [`world`] puts them together. All of it blocks; a test is a plain function.

pub mod docker;
pub mod engine;
pub mod http;
pub mod manifests;
pub mod operator;
pub mod proxy;
pub mod registry;
pub mod simulator;
pub mod wait;
pub mod world;
