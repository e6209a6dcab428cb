//! Where manifests come from: a folder, turned into a stream of consistent, settled snapshots `path -> bytes`.
//!
//! Owns watching, looking, settling and all limits on what is read. It must never parse a manifest (a callback tells what a manifest
//! refers to), decide what absence leads to, or hand over a file that is half written. Start at [`Directory::spawn`] for the stream, at
//! [`settle`] for the rules of when a change counts, and at [`scan_once`] for a single look.

mod directory;
mod look;
mod path;
mod resolve;
mod rules;
pub mod settle;
mod snapshot;
mod spec;
mod watch;

pub use directory::{Directory, Options, Receiver, References, SpawnError, scan_once};
pub use path::{RelPath, RelPathError};
pub use rules::{IGNORE_FILE, is_manifest_name};
pub use snapshot::{Absence, Attachment, File, Health, Held, Manifest, Problem, Snapshot, Why};
pub use spec::{SourceId, Spec, SpecError, parse_arg};
