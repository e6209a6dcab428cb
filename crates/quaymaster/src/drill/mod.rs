//! Drills: what becomes of one's own manifests when something fails, played on the real operator in virtual time and judged.
//!
//! [`format`] reads a drill, [`load`] its manifests, [`bind`] finds its services, [`cast`] says who plays what, [`stage`] holds operator and engine, [`play`] walks
//! the steps, [`timeline`] has what happened, [`expect`] judges it, [`report`] shows it. The commands are in `cli/drill.rs`.

pub(crate) mod bind;
pub(crate) mod cast;
pub(crate) mod expect;
pub(crate) mod format;
pub(crate) mod load;
pub(crate) mod play;
pub(crate) mod report;
pub(crate) mod stage;
pub(crate) mod timeline;
