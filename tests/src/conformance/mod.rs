//! What a Docker Engine promises: cases that the real daemon (20.10.24, API 1.41) passes and that the simulator has to pass too.
//!
//! A case knows nothing of the engine that it asks. What it expects was read from the real daemon, never remembered: status codes, the
//! messages and fields that clients read, the order of events; never how long something takes. A case makes only things whose names
//! start with its own prefix, and all of them are gone when it ends. Start at [`AREAS`].

mod archive;
mod change;
mod create;
mod events;
mod exec;
mod health;
mod images;
mod life;
mod list;
mod logs;
mod names;
mod networks;
mod policy;
pub mod random;
mod recorder;
mod subject;
mod system;
mod volumes;
mod wait;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::support::http::Place;
pub use recorder::Recorder;
pub use subject::{Reply, Subject};

/// Runs only the cases whose names have this in them.
pub const ONLY: &str = "QM_CONFORMANCE_CASE";

/// A name, which becomes a part of all names that the case makes, and what is to be shown.
pub type Case = (&'static str, fn(&Subject));

/// Cases about one thing.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// What they are about.
    pub name: &'static str,
    /// The cases, in the order in which they run.
    pub cases: &'static [Case],
}

/// All cases there are.
pub const AREAS: &[Area] = &[
    Area { name: "system", cases: system::CASES },
    Area { name: "create", cases: create::CASES },
    Area { name: "life", cases: life::CASES },
    Area { name: "change", cases: change::CASES },
    Area { name: "list", cases: list::CASES },
    Area { name: "names", cases: names::CASES },
    Area { name: "wait", cases: wait::CASES },
    Area { name: "logs", cases: logs::CASES },
    Area { name: "exec", cases: exec::CASES },
    Area { name: "archive", cases: archive::CASES },
    Area { name: "policy", cases: policy::CASES },
    Area { name: "health", cases: health::CASES },
    Area { name: "networks", cases: networks::CASES },
    Area { name: "volumes", cases: volumes::CASES },
    Area { name: "images", cases: images::CASES },
    Area { name: "events", cases: events::CASES },
];

/// Runs the cases of an area, each to its own end, so that one failure hides no other.
///
/// # Panics
/// When a case failed; the message has all that did.
pub fn run(place: &Place, area: &str) {
    let cases = AREAS.iter().find(|a| a.name == area).unwrap_or_else(|| panic!("there is no area {area}")).cases;
    let only = std::env::var(ONLY).unwrap_or_default();
    let mut failed = Vec::new();
    for (name, case) in cases.iter().filter(|(name, _)| name.contains(&only)) {
        let subject = Subject::new(place.clone(), name);
        if let Err(cause) = catch_unwind(AssertUnwindSafe(|| case(&subject))) {
            let text = cause.downcast_ref::<String>().cloned();
            let text = text.or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
            failed.push(format!("{name}: {text}"));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases of {area} failed:\n\n{}", failed.len(), cases.len(), failed.join("\n\n"));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_there_once_and_can_be_part_of_names() {
        let mut seen = BTreeSet::new();
        for (name, _) in AREAS.iter().flat_map(|a| a.cases) {
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name} cannot be part of a name");
        }
    }
}
