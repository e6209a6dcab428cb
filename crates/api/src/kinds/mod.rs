//! One file a kind: its wire spec, its status, and what admission must check beyond the schema. No kind imports another.

pub mod intent;
pub mod mini_container;
pub mod mini_service;
pub mod network;
