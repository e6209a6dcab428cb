//! What every Docker Engine answers that Quaymaster talks to: one closed table of cases that the real daemon passes and that the
//! simulator has to pass too. A simulator is worth as much as this table covers.
//!
//! A case knows nothing of which engine it asks; what it expects was read from dockerd 20.10.24 (API 1.41). It asserts status codes,
//! the messages and fields that clients read, and never how long something takes. Start at [`run`]; a case is a `fn(&Subject)`.

mod containers;
mod events;
mod images;
mod lives;
mod networks;
pub mod random;
pub mod subject;
mod system;
mod volumes;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::support::http::Place;
use subject::Subject;

/// Runs the only case that is named so, of all areas.
pub const ONLY: &str = "QM_CONFORMANCE_CASE";

/// What a case is about; each area is one file of cases, or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Version, info, ping, paths.
    System,
    /// Containers: what they look like and how they live.
    Containers,
    /// Networks and who is on them.
    Networks,
    /// Volumes.
    Volumes,
    /// Images and pulls.
    Images,
    /// The stream of events.
    Events,
}

/// One promise of an engine.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is about.
    pub area: Area,
    /// Its name, which is part of the names of all that it makes.
    pub name: &'static str,
    /// Panics where the engine does not keep the promise.
    pub run: fn(&Subject),
}

/// All cases.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [system::CASES, containers::CASES, lives::CASES, networks::CASES, volumes::CASES, images::CASES, events::CASES].into_iter().flatten()
}

/// Runs all cases of an area, each to its own end, so that one failure does not hide the next.
///
/// # Panics
/// When a case failed; the message names all that did.
pub fn run(place: &Place, area: Area) {
    let only = std::env::var(ONLY).ok();
    let mut failed = Vec::new();
    for case in cases().filter(|c| c.area == area && only.as_ref().is_none_or(|name| c.name == name)) {
        let subject = Subject::new(place.clone(), case.name);
        if let Err(why) = catch_unwind(AssertUnwindSafe(|| (case.run)(&subject))) {
            let why = why.downcast_ref::<String>().cloned().or_else(|| why.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            failed.push(format!("{}: {}", case.name, why.unwrap_or_default()));
        }
    }
    assert!(failed.is_empty(), "{} cases of {area:?} failed:\n\n{}", failed.len(), failed.join("\n\n"));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_can_be_part_of_names() {
        let mut seen = BTreeSet::new();
        for case in cases() {
            assert!(seen.insert(case.name), "{} is there twice", case.name);
            assert!(case.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", case.name);
        }
    }
}
