//! Histories of `change` and of fenced writes on the real locks and the real store can be explained by one order of all calls, whatever
//! happens to holders, operators, machines and wall clocks.

use qm_tests::linear::play::{Place, Played, check, play};

fn enough(played: &Played, calls: usize) {
    let (done, fenced) = played.writes;
    println!("{} calls, {done} writes, {fenced} fenced off, {} restarts", played.calls.len(), played.restarts);
    assert!(played.calls.len() >= calls, "{} calls show little", played.calls.len());
    assert!(done > 100 && fenced > 20 && played.restarts > 10, "{:?} writes and {} restarts show little", played.writes, played.restarts);
}

#[test]
fn histories_in_memory_are_linearizable() {
    enough(&check(1..41, Place::Memory).unwrap(), 5_000);
}

#[test]
fn histories_in_a_file_are_linearizable() {
    enough(&check(101..113, Place::File).unwrap(), 1_500);
}

#[test]
fn a_seed_plays_the_same_history_again() {
    let (once, again) = (play(7, Place::Memory).unwrap(), play(7, Place::Memory).unwrap());
    assert_eq!(once.calls, again.calls);
}
