//! The conformance suite on the real daemon, and on the simulator that must pass it too.
//!
//! `QM_CONFORMANCE_CASE=name` runs one case; `QM_TEST_DOCKER_HOST` names the engine.

mod simulated;

use qm_tests::conformance::{Area, random, run};
use qm_tests::support::engine;
use qm_tests::support::http::Place;

fn real(area: Area) {
    run(&Place::from(engine::shared().socket()), area);
}

#[test]
fn real_system() {
    real(Area::System);
}

#[test]
fn real_containers() {
    real(Area::Containers);
}

#[test]
fn real_networks() {
    real(Area::Networks);
}

#[test]
fn real_volumes() {
    real(Area::Volumes);
}

#[test]
fn real_images() {
    real(Area::Images);
}

#[test]
fn real_events() {
    real(Area::Events);
}

/// The comparison of random requests takes one engine under two sets of names for the same.
#[test]
fn real_against_real() {
    let place = Place::from(engine::shared().socket());
    for seed in 1..=3 {
        random::compare(&place, &place, seed, 40).unwrap_or_else(|difference| panic!("{difference}"));
    }
}
