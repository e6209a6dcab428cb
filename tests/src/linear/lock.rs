//! What a lock with a fenced resource may do, as simple as it can be said: one holder at a time, for his term at least; tokens that only
//! rise; and no write by anybody but who holds it.

use super::Object;

/// How late the end of a term may be acted on, in milliseconds: timers have a resolution.
const SLACK_MS: u64 = 5;

/// What came of a call that needs the current token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// The token is not the current one.
    Stale,
    /// Nobody heard of it.
    Lost,
}

/// A call on the lock, with what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Asks for the change.
    Acquire {
        /// The token; `None` when nobody heard of it.
        token: Option<u64>,
    },
    /// Begins a new term.
    Renew {
        /// The token.
        token: u64,
        /// What came of it.
        answer: Answer,
    },
    /// Gives it back.
    Release {
        /// The token.
        token: u64,
        /// What came of it.
        answer: Answer,
    },
    /// Gives it back, and is told that the store will do that as soon as it can.
    ReleaseLater {
        /// The token.
        token: u64,
    },
    /// Asks whether the token is the current one.
    Check {
        /// The token.
        token: u64,
        /// What came of it.
        answer: Answer,
    },
    /// Writes the resource behind the fence.
    Write {
        /// The token.
        token: u64,
        /// What is written.
        value: u64,
        /// What came of it.
        answer: Answer,
    },
    /// Reads the resource.
    Read {
        /// What was read.
        value: u64,
    },
    /// The operator is there again.
    Restart,
}

/// A call with the true time of its beginning and its end, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed {
    /// The call.
    pub what: What,
    /// When it began.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
}

/// The lock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    hold: Option<Hold>,
    /// The highest token that anybody was given.
    highest: u64,
    /// What the resource holds.
    value: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hold {
    /// `None` when whoever asked never heard of it.
    token: Option<u64>,
    /// Its term ends no earlier ..
    earliest_ms: u64,
    /// .. and no later.
    latest_ms: u64,
}

/// The term of every change in these histories, in milliseconds.
pub const TERM_MS: u64 = 15_000;

/// The lock as an object of histories.
#[derive(Debug)]
pub struct Lock;

impl Hold {
    fn of(token: Option<u64>, call: &Timed) -> Self {
        Self { token, earliest_ms: call.began_ms + TERM_MS, latest_ms: call.ended_ms + TERM_MS }
    }
}

impl State {
    /// The hold with this token, if a call that began then can have met it.
    fn current(&self, token: u64, call: &Timed) -> Option<&Hold> {
        self.hold.as_ref().filter(|hold| hold.token == Some(token) && call.began_ms <= hold.latest_ms + SLACK_MS)
    }

    /// Whether that token need not be current any more.
    fn may_be_stale(&self, token: u64, call: &Timed) -> bool {
        self.hold.as_ref().is_none_or(|hold| hold.token != Some(token) || call.ended_ms >= hold.earliest_ms)
    }

    fn held_by(&self, hold: Option<Hold>) -> Self {
        Self { hold, ..self.clone() }
    }
}

impl Object for Lock {
    type Op = Timed;
    type State = State;

    fn initial() -> State {
        State { hold: None, highest: 0, value: 0 }
    }

    fn after(state: &State, call: &Timed) -> Vec<State> {
        let stale = |token: u64| if state.may_be_stale(token, call) { vec![state.clone()] } else { Vec::new() };
        let is_free = state.hold.as_ref().is_none_or(|hold| call.ended_ms >= hold.earliest_ms);
        match &call.what {
            What::Acquire { token: Some(token) } if is_free && *token > state.highest => {
                vec![State { hold: Some(Hold::of(Some(*token), call)), highest: *token, value: state.value }]
            }
            What::Acquire { token: Some(_) } => Vec::new(),
            What::Acquire { token: None } if is_free => vec![state.clone(), state.held_by(Some(Hold::of(None, call)))],
            What::Acquire { token: None } => vec![state.clone()],
            What::Renew { token, answer } | What::Release { token, answer } | What::Check { token, answer } => {
                let current = state.current(*token, call);
                let after = current.map(|hold| match &call.what {
                    What::Renew { .. } => state.held_by(Some(Hold::of(Some(*token), call))),
                    What::Release { .. } => state.held_by(None),
                    _ => state.held_by(Some(hold.clone())),
                });
                match answer {
                    Answer::Done => after.into_iter().collect(),
                    Answer::Stale => stale(*token),
                    Answer::Lost => after.into_iter().chain([state.clone()]).collect(),
                }
            }
            What::ReleaseLater { token } => {
                let ending = |hold: &Hold| Hold { earliest_ms: 0, ..hold.clone() };
                state.current(*token, call).map(|hold| state.held_by(Some(ending(hold)))).into_iter().collect()
            }
            What::Write { token, value, answer } => {
                let written = state.current(*token, call).map(|_| State { value: *value, ..state.clone() });
                match answer {
                    Answer::Done => written.into_iter().collect(),
                    Answer::Stale => stale(*token),
                    Answer::Lost => written.into_iter().chain([state.clone()]).collect(),
                }
            }
            What::Read { value } if *value == state.value => vec![state.clone()],
            What::Read { .. } => Vec::new(),
            What::Restart => {
                // One fresh full term, from now.
                let fresh =
                    |hold: &Hold| Hold { token: hold.token, earliest_ms: call.began_ms + TERM_MS, latest_ms: call.ended_ms + TERM_MS };
                // Whose term had passed may be forgotten, or still be on record.
                let forgotten = is_free.then(|| state.held_by(None));
                [state.held_by(state.hold.as_ref().map(fresh))].into_iter().chain(forgotten).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Call, Inexplicable, check};
    use super::*;

    /// Calls one after the other, each at one instant.
    fn one_by_one(calls: Vec<(u64, What)>) -> Result<(), Inexplicable> {
        let timed = calls.into_iter().enumerate().map(|(at, (ms, what))| {
            let at = 2 * at as u64;
            Call { began: at, ended: at + 1, what: Timed { what, began_ms: ms, ended_ms: ms } }
        });
        check::<Lock>(timed.collect())
    }

    fn acquired(token: u64) -> What {
        What::Acquire { token: Some(token) }
    }

    fn wrote(token: u64, value: u64) -> What {
        What::Write { token, value, answer: Answer::Done }
    }

    #[test]
    fn a_holder_that_was_paused_is_fenced_off() {
        let fenced = What::Write { token: 1, value: 9, answer: Answer::Stale };
        let good = vec![(0, acquired(1)), (1, wrote(1, 5)), (15_000, acquired(2)), (15_001, wrote(2, 6)), (15_002, fenced)];
        assert_eq!(one_by_one([good, vec![(15_003, What::Read { value: 6 })]].concat()), Ok(()));
        let bad = vec![(0, acquired(1)), (15_000, acquired(2)), (15_002, wrote(1, 9))];
        assert!(one_by_one(bad).is_err(), "a lost fence");
    }

    #[test]
    fn known_bad_histories_of_locks_are_refused() {
        let renewed = |answer| What::Renew { token: 1, answer };
        let released = What::Release { token: 1, answer: Answer::Done };
        for (what, calls) in [
            ("two holders", vec![(0, acquired(1)), (14_999, acquired(2))]),
            ("a token twice", vec![(0, acquired(1)), (1, released.clone()), (2, acquired(1))]),
            ("a token that falls", vec![(0, acquired(2)), (20_000, acquired(1))]),
            ("a holder who lost it before its time", vec![(0, acquired(1)), (14_999, renewed(Answer::Stale))]),
            ("a term without an end", vec![(0, acquired(1)), (15_100, renewed(Answer::Done))]),
            ("a write after the release", vec![(0, acquired(1)), (1, released.clone()), (2, wrote(1, 9))]),
            ("a write that was lost", vec![(0, acquired(1)), (1, wrote(1, 5)), (2, What::Read { value: 0 })]),
            ("a lease that a restart forgot", vec![(0, acquired(1)), (14_000, What::Restart), (28_000, acquired(2))]),
        ] {
            assert!(one_by_one(calls).is_err(), "{what}");
        }
        for (what, calls) in [
            ("the next in turn", vec![(0, acquired(1)), (1, released), (2, acquired(2))]),
            ("a fresh term after a restart", vec![(0, acquired(1)), (14_000, What::Restart), (29_000, acquired(2))]),
            ("a renewal", vec![(0, acquired(1)), (14_999, renewed(Answer::Done)), (29_999, acquired(2)), (30_000, renewed(Answer::Stale))]),
            ("one that nobody heard of", vec![(0, What::Acquire { token: None }), (15_000, acquired(2))]),
        ] {
            assert_eq!(one_by_one(calls), Ok(()), "{what}");
        }
    }
}
