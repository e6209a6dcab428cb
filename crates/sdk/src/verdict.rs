//! Owns the verdict: what is made of the picture that was last told, of its age, and of the choice for the time without an operator. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::blocked::Blocked;
use crate::wire::{Answer, Availability, Reload};

/// When to ask again for what may heal by itself, in seconds; the operator says the same.
const RETRY_AFTER_SECONDS: u64 = 5;

/// What is answered when last known answers have become too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Everything may be used.
    Open,
    /// Nothing may be used.
    Closed,
}

/// What holds while the operator is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WhenAway {
    /// For so long what was known last goes on holding.
    pub last_known_for: Duration,
    /// What holds afterwards, and before anything was known at all.
    pub then: Then,
}

impl Default for WhenAway {
    /// 30 s, which is longer than a restart takes and no longer than the operator itself believes what it cannot see; then closed.
    fn default() -> Self {
        Self { last_known_for: Duration::from_secs(30), then: Then::Closed }
    }
}

/// What a verdict stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The operator says so.
    Told,
    /// It said so before it went away.
    LastKnown,
    /// Nobody says so: it is what was chosen for that.
    Chosen,
}

/// Whether a service, or one operation of it, may be used.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The answer; `usable` says it.
    pub answer: Arc<Answer>,
    /// What it stands on.
    pub basis: Basis,
}

impl Verdict {
    /// Whether it may be used.
    pub fn is_usable(&self) -> bool {
        self.answer.usable
    }

    /// The same as something to be propagated with `?`.
    ///
    /// # Errors
    /// When it may not be used.
    pub fn check(self) -> Result<(), Blocked> {
        if self.answer.usable { Ok(()) } else { Err(Blocked::new(self.answer)) }
    }
}

/// How it stands with the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contact {
    /// It was never heard.
    Never,
    /// It is there.
    Now,
    /// It was there until then.
    Lost(Instant),
}

/// What was told last.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) namespace: String,
    pub(crate) services: BTreeMap<String, Arc<Answer>>,
    /// What parts are to reload, by part.
    pub(crate) reloads: BTreeMap<String, Reload>,
    pub(crate) contact: Contact,
    /// Why there is no contact.
    pub(crate) trouble: Option<String>,
}

impl Picture {
    pub(crate) fn empty(namespace: &str) -> Self {
        let namespace = namespace.to_owned();
        Self { namespace, services: BTreeMap::new(), reloads: BTreeMap::new(), contact: Contact::Never, trouble: None }
    }

    pub(crate) fn verdict(&self, service: &str, operation: Option<&str>, away: WhenAway, now: Instant) -> Verdict {
        match self.contact {
            Contact::Now => Verdict { answer: self.told(service, operation), basis: Basis::Told },
            Contact::Lost(since) if now.saturating_duration_since(since) < away.last_known_for => {
                let mut answer = self.told(service, operation);
                Arc::make_mut(&mut answer).stale = true;
                Verdict { answer, basis: Basis::LastKnown }
            }
            Contact::Lost(_) | Contact::Never => Verdict { answer: Arc::new(self.chosen(service, away.then)), basis: Basis::Chosen },
        }
    }

    fn told(&self, service: &str, operation: Option<&str>) -> Arc<Answer> {
        let Some(answer) = self.services.get(service) else { return Arc::new(self.not_found(service)) };
        match operation.filter(|o| answer.usable && answer.blocked_operations.iter().any(|b| b == o)) {
            None => Arc::clone(answer),
            Some(operation) => Arc::new(Answer {
                usable: false,
                reason: "OperationBlocked".to_owned(),
                message: format!("the app says that `{operation}` cannot be done now"),
                retry_after: Some(RETRY_AFTER_SECONDS),
                ..Answer::clone(answer)
            }),
        }
    }

    fn made_up(&self, service: &str, availability: Availability, reason: &str, message: String) -> Answer {
        Answer {
            namespace: self.namespace.clone(),
            service: service.to_owned(),
            usable: availability <= Availability::PartiallyAvailable,
            availability: Some(availability),
            severity: availability.severity(),
            reason: reason.to_owned(),
            message,
            stale: true,
            blocked_by: Vec::new(),
            blocked_operations: Vec::new(),
            retry_after: (availability == Availability::TemporarilyUnavailable).then_some(RETRY_AFTER_SECONDS),
            version: String::new(),
        }
    }

    fn not_found(&self, service: &str) -> Answer {
        let message = format!("there is no service `{service}` in namespace `{}`", self.namespace);
        Answer { stale: false, ..self.made_up(service, Availability::Unavailable, "NotFound", message) }
    }

    fn chosen(&self, service: &str, then: Then) -> Answer {
        let (reason, message) = match self.contact {
            Contact::Never => ("Pending", "the operator was not heard yet".to_owned()),
            _ => ("OperatorAway", "the operator is away for longer than what was known last is to be believed".to_owned()),
        };
        let availability = match then {
            Then::Open => Availability::PartiallyAvailable,
            Then::Closed => Availability::TemporarilyUnavailable,
        };
        self.made_up(service, availability, reason, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(contact: Contact) -> Picture {
        let mut picture = Picture { contact, ..Picture::empty("shop") };
        let well = Answer {
            blocked_operations: vec!["write".to_owned()],
            stale: false,
            version: "7".to_owned(),
            ..picture.made_up("db", Availability::Available, "Healthy", String::new())
        };
        let down = Answer { stale: false, ..picture.made_up("cache", Availability::TemporarilyUnavailable, "Exited", "code 1".to_owned()) };
        picture.services.insert("db".to_owned(), Arc::new(well));
        picture.services.insert("cache".to_owned(), Arc::new(down));
        picture
    }

    fn line(picture: &Picture, asked: (&str, Option<&str>), then: Then, now: Instant) -> String {
        let away = WhenAway { last_known_for: Duration::from_secs(30), then };
        let verdict = picture.verdict(asked.0, asked.1, away, now);
        let answer = &verdict.answer;
        let word = if answer.usable { "usable" } else { "blocked" };
        format!("{word} {} {} stale={} retry={:?} {:?}", answer.severity, answer.reason, answer.stale, answer.retry_after, verdict.basis)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_answered_while_the_operator_is_there_and_while_it_is_not() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let (db, write, cache, nobody) = (("db", None), ("db", Some("write")), ("cache", None), ("nobody", None));
        let (now, lost) = (picture(Contact::Now), picture(Contact::Lost(began)));
        let never = Picture::empty("shop");
        let table = [
            (&now, db, Then::Closed, 900, "usable 1 Healthy stale=false retry=None Told"),
            (&now, ("db", Some("read")), Then::Closed, 0, "usable 1 Healthy stale=false retry=None Told"),
            (&now, write, Then::Closed, 0, "blocked 1 OperationBlocked stale=false retry=Some(5) Told"),
            (&now, cache, Then::Open, 0, "blocked 4 Exited stale=false retry=Some(5) Told"),
            (&now, ("cache", Some("write")), Then::Open, 0, "blocked 4 Exited stale=false retry=Some(5) Told"),
            (&now, nobody, Then::Open, 0, "blocked 5 NotFound stale=false retry=None Told"),
            (&lost, db, Then::Closed, 29, "usable 1 Healthy stale=true retry=None LastKnown"),
            (&lost, write, Then::Open, 29, "blocked 1 OperationBlocked stale=true retry=Some(5) LastKnown"),
            (&lost, cache, Then::Open, 29, "blocked 4 Exited stale=true retry=Some(5) LastKnown"),
            (&lost, db, Then::Closed, 30, "blocked 4 OperatorAway stale=true retry=Some(5) Chosen"),
            (&lost, db, Then::Open, 30, "usable 3 OperatorAway stale=true retry=None Chosen"),
            (&lost, cache, Then::Open, 30, "usable 3 OperatorAway stale=true retry=None Chosen"),
            (&never, db, Then::Closed, 0, "blocked 4 Pending stale=true retry=Some(5) Chosen"),
            (&never, db, Then::Open, 0, "usable 3 Pending stale=true retry=None Chosen"),
        ];
        for (picture, asked, then, seconds, wanted) in table {
            assert_eq!(line(picture, asked, then, at(seconds)), wanted, "{asked:?} {then:?} after {seconds} s");
        }
    }
}
