//! Owns the count of who uses a service in this process, and what is to be done with the process's one lease of it. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::lease::Granted;

/// For so long a lease that nobody needs is kept, for the next one.
const LINGER: Duration = Duration::from_secs(1);
/// When an operator that does not answer is asked again.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Why nobody gets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) retry_after: Option<u64>,
    /// It makes no sense to wait.
    pub(crate) is_final: bool,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Ask for the lease.
    Ask,
    /// Renew it.
    Renew(u64),
    /// Give it back.
    Release(u64),
    /// Nothing until then, or until somebody comes or goes.
    Rest(Instant),
    /// Nothing any more.
    End,
}

/// Who is inside, who waits, and the lease.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    inside: usize,
    waiting: usize,
    lease: Option<Granted>,
    /// Somebody waits to change it: whoever is inside goes on, nobody else gets in.
    drains: bool,
    /// The operator does not answer: it changes nothing, and grants nothing to anybody.
    is_away: bool,
    /// When to try again what failed.
    again_at: Option<Instant>,
    empty_since: Option<Instant>,
    pub(crate) denied: Option<Denied>,
    /// A task does what is to be done.
    pub(crate) is_kept: bool,
}

impl Tally {
    /// Lets somebody in, if that can be now.
    pub(crate) fn enter(&mut self, now: Instant) -> bool {
        let is_held = self.is_held(now);
        let enters = if is_held { !self.drains } else { self.is_away };
        if enters {
            self.inside += 1;
            self.empty_since = None;
        }
        enters
    }

    /// Somebody is done; gives whether nobody is left inside.
    pub(crate) fn leave(&mut self, now: Instant) -> bool {
        self.inside = self.inside.saturating_sub(1);
        if self.inside == 0 {
            self.empty_since = Some(now);
        }
        self.inside == 0
    }

    pub(crate) fn begin_to_wait(&mut self) {
        self.waiting += 1;
    }

    pub(crate) fn end_to_wait(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Whether it is held for those inside.
    pub(crate) fn is_held(&self, now: Instant) -> bool {
        self.lease.is_some_and(|lease| now < lease.ends)
    }

    /// Why somebody who waited did not get in.
    pub(crate) fn why_not(&self) -> Denied {
        let message = if self.drains { "somebody waits to change it" } else { "its use was not granted in time" };
        let unsaid = || Denied { reason: "Changing".to_owned(), message: message.to_owned(), retry_after: Some(1), is_final: false };
        self.denied.clone().unwrap_or_else(unsaid)
    }

    /// What is to be done next.
    pub(crate) fn next(&mut self, now: Instant) -> Act {
        if self.lease.is_some_and(|lease| now >= lease.ends) {
            self.gone();
        }
        if let Some(at) = self.again_at.filter(|at| now < *at) {
            // Nobody waits for an operator that is away for the sake of nobody.
            return if self.lease.is_none() && self.is_unneeded() { self.end() } else { Act::Rest(at) };
        }
        let Some(lease) = self.lease else {
            return if self.is_unneeded() { self.end() } else { Act::Ask };
        };
        let lingers_until = self.empty_since.map(|since| since + LINGER);
        let is_over = self.drains || (self.waiting == 0 && lingers_until.is_none_or(|until| now >= until));
        match self.inside {
            0 if is_over => Act::Release(lease.token),
            _ if now >= lease.renew_at() => Act::Renew(lease.token),
            0 => Act::Rest(lingers_until.map_or(lease.renew_at(), |until| until.min(lease.renew_at()))),
            _ => Act::Rest(lease.renew_at()),
        }
    }

    fn is_unneeded(&self) -> bool {
        self.inside == 0 && self.waiting == 0
    }

    fn end(&mut self) -> Act {
        self.is_kept = false;
        self.is_away = false;
        self.again_at = None;
        Act::End
    }

    /// It was granted, or renewed.
    pub(crate) fn granted(&mut self, granted: Granted, now: Instant) {
        self.drains = granted.change_waits;
        self.lease = Some(granted);
        (self.is_away, self.again_at, self.denied) = (false, None, None);
        if self.inside == 0 && self.empty_since.is_none() {
            self.empty_since = Some(now);
        }
    }

    /// It is not held any more: given back, expired, or refused.
    pub(crate) fn gone(&mut self) {
        (self.lease, self.drains, self.empty_since) = (None, false, None);
    }

    /// Nobody answered.
    pub(crate) fn unanswered(&mut self, now: Instant) {
        self.is_away = true;
        self.again_at = Some(now + TRY_AGAIN);
    }

    /// It was not granted.
    pub(crate) fn refused(&mut self, denied: Denied, now: Instant) {
        self.is_away = false;
        // The operator has waited already, where waiting makes sense.
        self.again_at = denied.is_final.then_some(now + TRY_AGAIN);
        self.denied = Some(denied);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Duration = Duration::from_secs(15);

    fn granted(at: Instant, change_waits: bool) -> Granted {
        Granted { token: 7, term: TERM, ends: at + TERM, change_waits }
    }

    /// Someone who is inside, with a lease from `at` on.
    fn used(at: Instant) -> Tally {
        let mut tally = Tally::default();
        tally.begin_to_wait();
        assert!(!tally.enter(at), "there is no lease yet");
        assert_eq!(tally.next(at), Act::Ask);
        tally.granted(granted(at, false), at);
        assert!(tally.enter(at));
        tally.end_to_wait();
        tally
    }

    #[tokio::test(start_paused = true)]
    async fn one_lease_however_many_are_inside() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut tally = used(began);
        assert!(tally.enter(at(10)));
        assert_eq!(tally.next(at(10)), Act::Rest(at(5_000)), "it is renewed at a third of its term");
        assert!(!tally.leave(at(20)));
        assert_eq!(tally.next(at(5_000)), Act::Renew(7));
        tally.granted(granted(at(5_000), false), at(5_001));
        assert!(tally.leave(at(6_000)), "nobody is left");
        assert_eq!(tally.next(at(6_000)), Act::Rest(at(7_000)), "it is kept for the next one");
        assert!(tally.enter(at(6_500)) && tally.leave(at(6_600)));
        assert_eq!(tally.next(at(7_000)), Act::Rest(at(7_600)));
        assert_eq!(tally.next(at(7_600)), Act::Release(7));
        tally.gone();
        assert_eq!(tally.next(at(7_601)), Act::End);
    }

    #[tokio::test(start_paused = true)]
    async fn it_drains_while_a_writer_waits() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut tally = used(began);
        tally.granted(granted(at(5_000), true), at(5_000));
        assert!(!tally.enter(at(5_001)), "nobody new gets in");
        tally.begin_to_wait();
        assert_eq!(tally.next(at(5_001)), Act::Rest(at(10_000)), "who is inside goes on, under the lease");
        assert_eq!(tally.next(at(10_000)), Act::Renew(7));
        tally.granted(granted(at(10_000), true), at(10_000));
        assert!(tally.leave(at(10_100)));
        assert_eq!(tally.next(at(10_100)), Act::Release(7), "at once");
        tally.gone();
        assert_eq!(tally.next(at(10_100)), Act::Ask, "behind the writer, for those who wait");
        // A writer that gives up lets everybody in again.
        let mut tally = used(began);
        tally.granted(granted(at(5_000), true), at(5_000));
        tally.granted(granted(at(10_000), false), at(10_000));
        assert!(tally.enter(at(10_001)));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_operator_nobody_is_held_up_and_the_lease_is_taken_anew() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut tally = used(began);
        tally.unanswered(at(5_000));
        assert_eq!(tally.next(at(5_000)), Act::Rest(at(5_500)));
        assert_eq!(tally.next(at(5_500)), Act::Renew(7));
        tally.unanswered(at(14_900));
        assert!(tally.enter(at(14_999)), "the term is not over");
        assert!(tally.is_held(at(14_999)) && !tally.is_held(at(15_000)), "counted from before the question");
        assert!(tally.enter(at(15_000)), "nobody can grant a change");
        assert_eq!(tally.next(at(15_000)), Act::Rest(at(15_400)));
        assert_eq!(tally.next(at(15_400)), Act::Ask);
        tally.refused(Denied { reason: "Changing".into(), message: String::new(), retry_after: Some(1), is_final: false }, at(16_000));
        assert!(!tally.enter(at(16_001)), "it is back, and somebody else was faster");
        assert_eq!(tally.next(at(16_001)), Act::Ask, "for those who are still inside");
        tally.granted(granted(at(17_000), false), at(17_000));
        assert!(tally.enter(at(17_001)) && tally.denied.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_for_the_sake_of_nobody() {
        let began = Instant::now();
        let mut tally = Tally::default();
        tally.begin_to_wait();
        assert_eq!(tally.next(began), Act::Ask);
        tally.end_to_wait();
        tally.granted(granted(began, false), began);
        assert_eq!(tally.next(began), Act::Rest(began + LINGER));
        assert_eq!(tally.next(began + LINGER), Act::Release(7));
        let mut tally = Tally::default();
        tally.unanswered(began);
        assert_eq!(tally.next(began), Act::End);
    }
}
