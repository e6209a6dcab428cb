//! The Kubernetes-shaped HTTP face of Quaymaster.
//!
//! Owns the wire form of objects, discovery, reading, watching, tables, errors and the sockets. What needs the world beyond the store
//! (acts, plans, logs) comes in as [`Ports`]. It must never write the spec of an object, reach for Docker, or read a clock: the time is
//! asked of [`Ports::now`]. Start at [`router`]; which URL means what is in `route`, and how a watch works is told in `watch`.

mod accept;
mod actions;
mod app;
mod discovery;
mod extra;
mod face;
mod locks;
mod metrics;
mod namespaces;
mod openapi;
mod page;
mod ports;
mod query;
mod resource;
mod route;
mod selector;
mod serve;
mod status;
mod table;
mod watch;
mod wire;

pub use app::{face_router, router};
pub use metrics::metrics_router;
pub use ports::{
    ActRequest, Answer, Ask, AskReloads, AskUsable, AskUsableAll, CandidateSource, HeartbeatRequest, LockAct, LockReason, LockRequest,
    LogRequest, LogStream, PlanAnswer, PlanRequest, PortError, Ports, Usable,
};
pub use serve::{Listener, ServeError, serve_tcp, serve_unix};
pub use wire::{FILE_ANNOTATION, SOURCE_ANNOTATION, to_wire};
