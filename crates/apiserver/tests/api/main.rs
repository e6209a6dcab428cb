//! The API as its clients see it, driven in process over a store in memory.

mod acting;
mod discovering;
mod face;
mod properties;
mod reading;
mod sockets;
mod support;
mod watching;
