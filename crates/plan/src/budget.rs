//! The one brake for everything that can run away: so many tries in so long per object and cause (DESIGN 4).

use std::collections::VecDeque;

use qm_api::time::Timestamp;

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// So many tries ..
    pub tries: u32,
    /// .. in this time, in milliseconds.
    pub window_ms: u64,
}

/// What was spent, oldest first; never longer than the budget's tries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    at: VecDeque<Timestamp>,
    evidence: String,
}

impl Spent {
    /// Records one try and what came of it.
    pub fn record(&mut self, budget: Budget, now: Timestamp, evidence: impl Into<String>) {
        self.at.push_back(now);
        while self.at.len() > budget.tries as usize {
            self.at.pop_front();
        }
        self.evidence = evidence.into();
    }

    /// Forgets everything: the input changed, or a person said `retry`.
    pub fn clear(&mut self) {
        self.at.clear();
        self.evidence.clear();
    }

    /// Whether any try still lies in the window; if none does, this can be forgotten.
    pub fn is_recent(&self, budget: Budget, now: Timestamp) -> bool {
        self.at.back().is_some_and(|at| is_within(*at, budget, now))
    }

    /// When the budget is spent: the instant at which the oldest try leaves the window, and what the last try brought.
    pub fn is_spent(&self, budget: Budget, now: Timestamp) -> Option<(Timestamp, &str)> {
        if self.at.len() < budget.tries as usize {
            return None;
        }
        let oldest = *self.at.front()?;
        let free_at = oldest.plus_millis(budget.window_ms as i64);
        is_within(oldest, budget, now).then_some((free_at, self.evidence.as_str()))
    }
}

/// A try in the future was made before the clock went back: it must not brake until that future has come.
fn is_within(at: Timestamp, budget: Budget, now: Timestamp) -> bool {
    at <= now && at.plus_millis(budget.window_ms as i64) > now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_frees_what_was_spent() {
        let budget = Budget { tries: 2, window_ms: 1_000 };
        let at = Timestamp::from_millis;
        let mut spent = Spent::default();
        spent.record(budget, at(0), "a");
        assert_eq!(spent.is_spent(budget, at(0)), None);
        spent.record(budget, at(400), "b");
        assert_eq!(spent.is_spent(budget, at(500)), Some((at(1_000), "b")));
        assert_eq!(spent.is_spent(budget, at(1_000)), None);
        spent.record(budget, at(1_100), "c");
        assert_eq!(spent.is_spent(budget, at(1_200)), Some((at(1_400), "c")));
        assert_eq!(spent.is_spent(budget, at(-5_000)), None, "the clock went back");
        assert!(!spent.is_recent(budget, at(-5_000)));
        spent.clear();
        assert_eq!(spent.is_spent(budget, at(1_200)), None);
    }
}
