//! Checks histories for linearizability: whether what concurrent callers saw can be explained by one order of all calls in which each
//! takes effect at one instant between its beginning and its end.
//!
//! The search is that of Wing and Gong with Lowe's memory of what was tried: a call may come next if no other call that is still to come
//! had ended before it began. Calls whose answer nobody heard may have taken effect, or not. Start at [`check`].

pub mod lock;
pub mod play;

use std::collections::BTreeSet;
use std::fmt;

/// One call of a history. Instants are positions in the order in which everything was seen to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<O> {
    /// When it began.
    pub began: u64,
    /// When it ended; for one without an answer, when it can have taken effect at the latest.
    pub ended: u64,
    /// What was called, and what came of it.
    pub what: O,
}

/// What the calls are on.
pub trait Object {
    /// A call with its answer.
    type Op: fmt::Debug;
    /// The state.
    type State: Clone + Ord + fmt::Debug;

    /// The state at the beginning.
    fn initial() -> Self::State;

    /// The states in which the call may leave `state`, given what came of it; none when it cannot have come here. A call without an
    /// answer gives `state` too.
    fn after(state: &Self::State, op: &Self::Op) -> Vec<Self::State>;
}

/// A history that no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inexplicable {
    /// How many calls could be explained.
    pub explained: usize,
    /// The calls of which none can come next, in words.
    pub stuck_at: Vec<String>,
    /// The state before them, in words.
    pub state: String,
}

impl fmt::Display for Inexplicable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} calls can be explained, then in {} none of these can come next:", self.explained, self.state)?;
        self.stuck_at.iter().try_for_each(|call| writeln!(f, "  {call}"))
    }
}

/// What was put in order so far: all calls before `first`, and those in `beyond`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Node<S> {
    first: usize,
    beyond: BTreeSet<usize>,
    state: S,
}

/// Looks for an order that explains the history; calls may come in any order.
///
/// # Errors
/// When there is none: with the furthest that any order came.
pub fn check<T: Object>(mut history: Vec<Call<T::Op>>) -> Result<(), Inexplicable> {
    history.sort_by_key(|call| (call.began, call.ended));
    let mut tried = BTreeSet::new();
    let mut open = vec![Node { first: 0, beyond: BTreeSet::new(), state: T::initial() }];
    let mut furthest = Inexplicable { explained: 0, stuck_at: Vec::new(), state: format!("{:?}", T::initial()) };
    while let Some(node) = open.pop() {
        if node.first == history.len() {
            return Ok(());
        }
        let next = candidates(&history, &node);
        let explained = node.first + node.beyond.len();
        if explained >= furthest.explained {
            let stuck_at = next.iter().map(|at| format!("{:?}", history[*at])).collect();
            furthest = Inexplicable { explained, stuck_at, state: format!("{:?}", node.state) };
        }
        // The one that ended first is tried first: it is pushed last.
        for at in next.into_iter().rev() {
            for state in T::after(&node.state, &history[at].what) {
                let child = advance(&node, at, state);
                if tried.insert(child.clone()) {
                    open.push(child);
                }
            }
        }
    }
    Err(furthest)
}

/// The calls that may come next, the one that ended first before the others.
fn candidates<O, S>(history: &[Call<O>], node: &Node<S>) -> Vec<usize> {
    let mut next: Vec<usize> = Vec::new();
    let mut first_end = u64::MAX;
    for (at, call) in history.iter().enumerate().skip(node.first) {
        if call.began > first_end {
            break;
        }
        if !node.beyond.contains(&at) {
            next.push(at);
            first_end = first_end.min(call.ended);
        }
    }
    next.retain(|at| history[*at].began <= first_end);
    next.sort_by_key(|at| (history[*at].ended, *at));
    next
}

fn advance<S: Clone>(node: &Node<S>, at: usize, state: S) -> Node<S> {
    let mut beyond = node.beyond.clone();
    beyond.insert(at);
    let mut first = node.first;
    while beyond.remove(&first) {
        first += 1;
    }
    Node { first, beyond, state }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register that is read and written; a write without an answer may have happened.
    struct Register;

    #[derive(Debug)]
    enum Op {
        Write(u8),
        Lost(u8),
        Read(u8),
    }

    impl Object for Register {
        type Op = Op;
        type State = u8;

        fn initial() -> u8 {
            0
        }

        fn after(state: &u8, op: &Op) -> Vec<u8> {
            match op {
                Op::Write(value) => vec![*value],
                Op::Lost(value) => vec![*state, *value],
                Op::Read(value) if value == state => vec![*state],
                Op::Read(_) => Vec::new(),
            }
        }
    }

    fn history(calls: Vec<(u64, u64, Op)>) -> Result<(), Inexplicable> {
        check::<Register>(calls.into_iter().map(|(began, ended, what)| Call { began, ended, what }).collect())
    }

    #[test]
    fn known_good_histories_are_accepted() {
        use Op::{Lost, Read, Write};
        for calls in [
            vec![],
            vec![(1, 2, Write(1)), (3, 4, Read(1))],
            // While a write is under way both values may be read, in this order.
            vec![(1, 8, Write(1)), (2, 3, Read(0)), (4, 5, Read(1)), (6, 7, Read(1))],
            vec![(1, 6, Write(1)), (2, 7, Write(2)), (3, 8, Read(1)), (9, 10, Read(2))],
            vec![(1, 6, Write(1)), (2, 7, Write(2)), (3, 8, Read(2)), (9, 10, Read(1))],
            // What nobody heard of may have happened, or not.
            vec![(1, 2, Lost(1)), (3, 4, Read(1))],
            vec![(1, 2, Lost(1)), (3, 4, Read(0)), (5, 6, Read(0))],
        ] {
            assert_eq!(history(calls), Ok(()));
        }
    }

    #[test]
    fn known_bad_histories_are_refused() {
        use Op::{Lost, Read, Write};
        for (calls, explained) in [
            (vec![(1, 2, Write(1)), (3, 4, Read(0))], 1),
            // A value does not come and go.
            (vec![(1, 9, Write(1)), (2, 3, Read(1)), (4, 5, Read(0))], 2),
            (vec![(1, 2, Write(1)), (3, 8, Write(2)), (4, 5, Read(2)), (6, 7, Read(1))], 3),
            // Two readers do not see two writes in two orders.
            (vec![(1, 9, Write(1)), (1, 9, Write(2)), (10, 11, Read(1)), (12, 13, Read(2))], 3),
            // What was lost cannot happen later.
            (vec![(1, 2, Lost(1)), (3, 4, Read(0)), (5, 6, Read(1))], 2),
        ] {
            let wrong = history(calls).expect_err("a bad history");
            assert_eq!(wrong.explained, explained, "{wrong}");
        }
    }

    #[test]
    fn what_was_tried_is_not_tried_again() {
        // Without memory this would be 12! orders.
        let mut calls: Vec<(u64, u64, Op)> = (0..12).map(|n| (n, 100 + n, Op::Write(1))).collect();
        calls.push((200, 201, Op::Read(2)));
        assert!(history(calls).is_err());
    }

    #[test]
    fn long_histories_are_checked_in_a_moment() {
        let calls = (0..5_000_u64).map(|n| {
            let value = u8::try_from(n / 2 % 200).expect("small");
            (n * 10, n * 10 + 12, if n % 2 == 0 { Op::Write(value) } else { Op::Read(value) })
        });
        assert_eq!(history(calls.collect()), Ok(()));
    }
}
