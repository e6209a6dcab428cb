//! Owns the lock table: who uses which service, who changes it, who waits, and what is granted when (DESIGN 3.3).
//!
//! Pure: time is an argument, in monotonic milliseconds, and everything that must happen outside comes out as an [`Effect`]: an answer to
//! somebody who waits, or a write that must be durable before an answer may be given. The rules:
//!
//! - `use` is shared, `change` excludes everything but the holder's own `use`, which ends with the grant.
//! - Whoever waits is served in order. While a `change` waits no new `use` is granted to others, so that writers do not starve; who
//!   holds a `use` may go on with it, and the writers' own order lets the users in between two of them.
//! - A `use` is granted when it is durable that the service has users; a `change` when it is durable itself. Its end is durable before
//!   anybody else is let in, so that its token never outlives it.
//! - A service that had users when the process began is not changed for one term of `use`: they are unknown, and believe to hold it.
//!
//! It must never read a clock, nor grant anything without an effect or an answer that says so. Start at [`Table::ask`].

mod entry;

use std::collections::BTreeMap;

use qm_api::lock::LockMode;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;

use entry::Entry;

/// The term of a `use`, in milliseconds. A process that ends without a word keeps a writer waiting for so long at most.
pub const USE_TERM_MS: u64 = 15_000;
/// The longest term of a `change`, in milliseconds.
pub const LONGEST_CHANGE_MS: u64 = 300_000;
/// The longest that a request may wait, in milliseconds.
pub const LONGEST_WAIT_MS: u64 = 60_000;
/// The most that may wait for one service.
pub const MOST_WAITERS: usize = 256;
/// The most processes that may use one service at once.
pub const MOST_USERS: usize = 4_096;
/// The operator itself, as a holder. Nobody else may have this name.
pub const OPERATOR: &str = "quaymaster";

/// A number that names one grant for ever: no other grant has it, also not after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Somebody who waits, or waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaiterId(u64);

/// How long somebody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until then; afterwards the request is refused. An instant that has passed asks for an answer at once.
    Until(u64),
    /// For as long as it takes. From that instant on it does not wait for users any more: they lose their leases.
    Drains(u64),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Which service.
    pub key: ObjectKey,
    /// How.
    pub mode: LockMode,
    /// For whom: one process.
    pub holder: Name,
    /// For how long it is held unless it is renewed, in milliseconds.
    pub term_ms: u64,
    /// How long it may take.
    pub patience: Patience,
}

/// A lease in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// How.
    pub mode: LockMode,
    /// Whose.
    pub holder: Name,
    /// Names it.
    pub token: Token,
    /// Its term, in milliseconds.
    pub term_ms: u64,
}

/// Why something is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A use met a change, or somebody who waits for one.
    Changing,
    /// A change met users or another change.
    InUse,
    /// More wait or use than is served.
    TooMany,
    /// The store could not take it.
    NotStored,
}

/// A request that is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub why: Denied,
    /// Who is in the way, at most a few names.
    pub by: Vec<Name>,
    /// When asking again makes sense, in milliseconds.
    pub retry_after_ms: u64,
}

/// A token that is not the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The token of the change that is held now.
    pub current: Option<Token>,
}

/// What must happen outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell who waited.
    Granted {
        /// For which service.
        key: ObjectKey,
        /// Who.
        waiter: WaiterId,
        /// What.
        grant: Grant,
    },
    /// Tell who waited.
    Refused {
        /// Who.
        waiter: WaiterId,
        /// Why.
        refusal: Refusal,
    },
    /// Make durable that the service has users, then call [`Table::marked`].
    Mark {
        /// Which.
        key: ObjectKey,
    },
    /// Make it known that it has none any more, then call [`Table::unmarked`]. It need not be durable at once.
    Unmark {
        /// Which.
        key: ObjectKey,
    },
    /// Take the durable lease, then call [`Table::taken`].
    Take {
        /// Which service.
        key: ObjectKey,
        /// For whom.
        holder: Name,
        /// Its term.
        term_ms: u64,
        /// The instant it begins, for the store.
        at: u64,
    },
    /// Give the durable lease back, then call [`Table::returned`].
    Return {
        /// Which service.
        key: ObjectKey,
        /// Its token.
        token: Token,
    },
    /// A change ended without its holder's word: its term has passed.
    Expired {
        /// Which service.
        key: ObjectKey,
        /// Who held it.
        holder: Name,
    },
    /// Users lost their leases: the operator has waited for them long enough.
    Ended {
        /// Which service.
        key: ObjectKey,
        /// Who.
        users: Vec<Name>,
    },
    /// What is shown of the lock has changed.
    Changed {
        /// Which service.
        key: ObjectKey,
    },
}

/// How a service stands for the operator, which may want to change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nobody is in the way.
    #[default]
    Free,
    /// The operator holds the change.
    Ours,
    /// Others are in the way, at most a few names.
    Taken {
        /// Who.
        by: Vec<Name>,
    },
}

/// A change that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeView {
    /// By whom.
    pub holder: Name,
    /// Its token.
    pub token: Token,
    /// When it was granted or, if that was before the process began, when that was.
    pub since_ms: u64,
    /// When it ends unless it is renewed; `None` for the operator's own, which ends when its work does.
    pub until_ms: Option<u64>,
}

/// A lock as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The change.
    pub change: Option<ChangeView>,
    /// The users with the end of their terms.
    pub users: Vec<(Name, u64)>,
    /// Until when there may be users that are not known.
    pub unknown_until_ms: Option<u64>,
    /// Who waits, in order.
    pub waiters: Vec<(LockMode, Name)>,
}

/// All locks.
#[derive(Clone, Debug)]
pub struct Table {
    services: BTreeMap<ObjectKey, Entry>,
    /// Where a waiter's request lies.
    waiting: BTreeMap<WaiterId, ObjectKey>,
    next_waiter: u64,
    next_token: u64,
    /// Tokens of `use` from here on are of this process.
    first_token: u64,
}

impl Table {
    /// An empty table. Tokens of `use` begin at `first_token`, which must be higher than every one of a former process.
    pub fn new(first_token: u64) -> Self {
        Self { services: BTreeMap::new(), waiting: BTreeMap::new(), next_waiter: 1, next_token: first_token, first_token }
    }

    /// A change that was held when the former process ended: it is held for one fresh term.
    pub fn restore_change(&mut self, key: ObjectKey, holder: Name, token: Token, term_ms: u64, now: u64) {
        self.services.entry(key).or_default().restore_change(holder, token, term_ms, now);
    }

    /// There were users when the former process ended.
    pub fn restore_users(&mut self, key: ObjectKey, now: u64) {
        self.services.entry(key).or_default().restore_users(now);
    }

    /// Asks for a lease. The answer comes as an effect, at once or later.
    pub fn ask(&mut self, ask: Ask, now: u64) -> (WaiterId, Vec<Effect>) {
        let waiter = WaiterId(self.next_waiter);
        self.next_waiter += 1;
        self.waiting.insert(waiter, ask.key.clone());
        let key = ask.key.clone();
        let effects = self.on(&key, now, |entry, _, effects| entry.ask(waiter, ask, now, effects));
        (waiter, effects)
    }

    /// Somebody does not wait any more. What was granted already is not taken back by that.
    pub fn give_up(&mut self, waiter: WaiterId, now: u64) -> Vec<Effect> {
        let Some(key) = self.waiting.remove(&waiter) else { return Vec::new() };
        self.on(&key, now, |entry, _, _| entry.give_up(waiter))
    }

    /// Begins a new term. A `use` from before the process began goes on if it says that it is one. Time passes by that too: the effects
    /// are to be carried out also where the token is not the current one.
    pub fn renew(
        &mut self,
        key: &ObjectKey,
        holder: &Name,
        token: Token,
        mode: Option<LockMode>,
        now: u64,
    ) -> (Result<Grant, Stale>, Vec<Effect>) {
        if !self.services.contains_key(key) {
            return (Err(Stale { current: None }), Vec::new());
        }
        // Nobody of this process can have a token of a former one.
        let mode = mode.filter(|_| token.0 < self.first_token);
        let mut result = Err(Stale { current: None });
        let effects = self.on(key, now, |entry, _, _| result = entry.renew(holder, token, mode, now));
        // The operator's patience may have ended in the same moment: who is told of an end must not hear that it goes on.
        let result = result.and_then(|grant| self.check(key, grant.token, now).map(|_| grant));
        (result, effects)
    }

    /// Gives a lease back. A change is held until its end is durable: until [`Table::is_held`] says no. Time passes by that too: the
    /// effects are to be carried out also where the token is not the current one.
    pub fn release(&mut self, key: &ObjectKey, holder: &Name, token: Token, now: u64) -> (Result<(), Stale>, Vec<Effect>) {
        if !self.services.contains_key(key) {
            return (Err(Stale { current: None }), Vec::new());
        }
        let mut result = Ok(());
        let effects = self.on(key, now, |entry, key, effects| result = entry.release(key, holder, token, now, effects));
        (result, effects)
    }

    /// Whether that token still names a lease: the fence in front of every write.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, key: &ObjectKey, token: Token, now: u64) -> Result<LockMode, Stale> {
        self.services.get(key).ok_or(Stale { current: None }).and_then(|entry| entry.check(token, now))
    }

    /// Whether a change with this token is held, or on its way to its end.
    pub fn is_held(&self, key: &ObjectKey, token: Token) -> bool {
        self.services.get(key).is_some_and(|entry| entry.is_held(token))
    }

    /// The store has taken the lease, or could not.
    pub fn taken(&mut self, key: &ObjectKey, token: Option<Token>, now: u64) -> Vec<Effect> {
        self.on(key, now, |entry, key, effects| entry.taken(key, token, effects))
    }

    /// The store has given the lease back, or could not.
    pub fn returned(&mut self, key: &ObjectKey, is_stored: bool, now: u64) -> Vec<Effect> {
        self.on(key, now, |entry, _, _| entry.returned(is_stored, now))
    }

    /// It is durable that the service has users, or could not be made so.
    pub fn marked(&mut self, key: &ObjectKey, is_stored: bool, now: u64) -> Vec<Effect> {
        self.on(key, now, |entry, _, effects| entry.marked(is_stored, effects))
    }

    /// It is written that the service has no users.
    pub fn unmarked(&mut self, key: &ObjectKey, now: u64) -> Vec<Effect> {
        self.on(key, now, |entry, _, _| entry.unmarked())
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: u64) -> Vec<Effect> {
        let due: Vec<ObjectKey> =
            self.services.iter().filter(|(_, entry)| entry.deadline().is_some_and(|at| at <= now)).map(|(key, _)| key.clone()).collect();
        due.iter().flat_map(|key| self.on(key, now, |_, _, _| ())).collect()
    }

    /// When [`Table::advance`] has something to do.
    pub fn deadline(&self) -> Option<u64> {
        self.services.values().filter_map(Entry::deadline).min()
    }

    /// Whether somebody changes the service: it must not be used then.
    pub fn is_changing(&self, key: &ObjectKey) -> bool {
        self.services.get(key).is_some_and(Entry::is_changing)
    }

    /// How it stands for the operator.
    pub fn standing(&self, key: &ObjectKey, now: u64) -> Standing {
        self.services.get(key).map_or(Standing::Free, |entry| entry.standing(now))
    }

    /// One lock; nothing where nobody holds it or waits for it.
    pub fn view(&self, key: &ObjectKey, now: u64) -> View {
        self.services.get(key).map(|entry| entry.view(now)).unwrap_or_default()
    }

    /// The services that have a lock, or had users lately.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.services.keys()
    }

    /// Changes one entry, lets it settle, and forgets it when nothing is left of it.
    fn on(&mut self, key: &ObjectKey, now: u64, change: impl FnOnce(&mut Entry, &ObjectKey, &mut Vec<Effect>)) -> Vec<Effect> {
        let mut effects = Vec::new();
        let entry = self.services.entry(key.clone()).or_default();
        let before = entry.shown();
        change(entry, key, &mut effects);
        entry.settle(key, now, &mut self.next_token, &mut effects);
        if entry.shown() != before {
            effects.push(Effect::Changed { key: key.clone() });
        }
        if entry.is_idle() {
            self.services.remove(key);
        }
        for effect in &effects {
            if let Effect::Granted { waiter, .. } | Effect::Refused { waiter, .. } = effect {
                self.waiting.remove(waiter);
            }
        }
        effects
    }
}
