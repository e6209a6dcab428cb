//! The lock of one service: a small state machine that is settled after every change.

use std::collections::{BTreeMap, VecDeque};

use qm_api::lock::LockMode;
use qm_api::meta::ObjectKey;
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;

use super::{
    Ask, ChangeView, Denied, Effect, Grant, MOST_USERS, MOST_WAITERS, OPERATOR, Patience, Refusal, Stale, Standing, Token, USE_TERM_MS,
    View, WaiterId,
};

/// How long a service without users keeps the mark that it has some, in milliseconds: who uses it now and then must not cost a write a time.
const MARK_KEPT_MS: u64 = 60_000;
/// How long to leave the store alone that could not give a lease back, in milliseconds.
const RETURN_AGAIN_MS: u64 = 1_000;
/// How many names are told of those in the way.
const NAMED: usize = 5;
/// When asking again makes sense, in milliseconds, where nothing better is known.
const RETRY_MS: u64 = 5_000;

#[derive(Clone, Debug)]
struct User {
    token: Token,
    term_ms: u64,
    until: u64,
}

#[derive(Clone, Debug)]
struct Hold {
    holder: Name,
    token: Token,
    term_ms: u64,
    since: u64,
    /// `None` for the operator's own: it lives as long as this process.
    until: Option<u64>,
}

#[derive(Clone, Debug, Default)]
enum Change {
    #[default]
    Free,
    /// The store takes it; for whom, if he still waits.
    Taking {
        waiter: Option<WaiterId>,
        holder: Name,
        term_ms: u64,
        begun: u64,
    },
    Held(Hold),
    /// The store gives it back; `Some` = it could not, and is asked again then.
    Returning {
        hold: Hold,
        again_at: Option<u64>,
    },
}

/// Whether it is durable that the service has users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mark {
    #[default]
    Absent,
    Writing,
    /// Since when there are no users, where there are none.
    There {
        empty_since: Option<u64>,
    },
    Clearing,
}

#[derive(Clone, Debug)]
struct Waiter {
    id: WaiterId,
    ask: Ask,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    users: BTreeMap<Name, User>,
    change: Change,
    mark: Mark,
    /// Until when there may be users of a former process.
    unknown_until: Option<u64>,
    waiters: VecDeque<Waiter>,
}

/// What a status shows; it is told when it changes.
#[derive(PartialEq, Eq)]
pub(super) struct Shown {
    change: Option<Token>,
    is_used: bool,
    next: Option<Name>,
}

impl Entry {
    pub(super) fn restore_change(&mut self, holder: Name, token: Token, term_ms: u64, now: u64) {
        let until = until(&holder, now, term_ms);
        self.change = Change::Held(Hold { holder, token, term_ms, since: now, until });
    }

    pub(super) fn restore_users(&mut self, now: u64) {
        self.unknown_until = Some(now.saturating_add(USE_TERM_MS));
        self.mark = Mark::There { empty_since: None };
    }

    pub(super) fn ask(&mut self, id: WaiterId, ask: Ask, now: u64, effects: &mut Vec<Effect>) {
        if ask.mode == LockMode::Use
            && let Some(user) = self.users.get_mut(&ask.holder).filter(|user| now < user.until)
        {
            // The same process again: it goes on with what it has, whoever waits.
            (user.term_ms, user.until) = (ask.term_ms, now.saturating_add(ask.term_ms));
            let grant = Grant { mode: LockMode::Use, holder: ask.holder, token: user.token, term_ms: ask.term_ms };
            effects.push(Effect::Granted { key: ask.key, waiter: id, grant });
            return;
        }
        let is_full = self.waiters.len() >= MOST_WAITERS || (ask.mode == LockMode::Use && self.users.len() >= MOST_USERS);
        if is_full {
            let refusal = Refusal { why: Denied::TooMany, by: Vec::new(), retry_after_ms: RETRY_MS };
            effects.push(Effect::Refused { waiter: id, refusal });
            return;
        }
        self.waiters.push_back(Waiter { id, ask });
    }

    pub(super) fn give_up(&mut self, id: WaiterId) {
        self.waiters.retain(|waiter| waiter.id != id);
        if let Change::Taking { waiter, .. } = &mut self.change
            && *waiter == Some(id)
        {
            *waiter = None;
        }
    }

    pub(super) fn renew(&mut self, holder: &Name, token: Token, mode: Option<LockMode>, now: u64) -> Result<Grant, Stale> {
        let grant = |mode, term_ms| Grant { mode, holder: holder.clone(), token, term_ms };
        if let Some(user) = self.users.get_mut(holder)
            && user.token == token
            && now < user.until
        {
            user.until = now.saturating_add(user.term_ms);
            return Ok(grant(LockMode::Use, user.term_ms));
        }
        if let Change::Held(hold) = &mut self.change
            && hold.token == token
            && hold.holder == *holder
            && hold.until.is_none_or(|until| now < until)
        {
            hold.until = until(holder, now, hold.term_ms);
            return Ok(grant(LockMode::Change, hold.term_ms));
        }
        let may_be_unknown = self.unknown_until.is_some_and(|until| now < until) && !self.users.contains_key(holder);
        if mode == Some(LockMode::Use) && may_be_unknown && matches!(self.change, Change::Free) && self.users.len() < MOST_USERS {
            let user = User { token, term_ms: USE_TERM_MS, until: now.saturating_add(USE_TERM_MS) };
            self.users.insert(holder.clone(), user);
            return Ok(grant(LockMode::Use, USE_TERM_MS));
        }
        Err(self.stale())
    }

    pub(super) fn release(
        &mut self,
        key: &ObjectKey,
        holder: &Name,
        token: Token,
        now: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Stale> {
        if self.users.get(holder).is_some_and(|user| user.token == token && now < user.until) {
            self.users.remove(holder);
            return Ok(());
        }
        match &self.change {
            Change::Held(hold) if hold.token == token && hold.holder == *holder && hold.until.is_none_or(|until| now < until) => {
                self.give_back(key, effects);
                Ok(())
            }
            _ => Err(self.stale()),
        }
    }

    pub(super) fn check(&self, token: Token, now: u64) -> Result<LockMode, Stale> {
        if self.users.values().any(|user| user.token == token && now < user.until) {
            return Ok(LockMode::Use);
        }
        match &self.change {
            Change::Held(hold) if hold.token == token && hold.until.is_none_or(|until| now < until) => Ok(LockMode::Change),
            _ => Err(self.stale()),
        }
    }

    fn stale(&self) -> Stale {
        let current = match &self.change {
            Change::Held(hold) => Some(hold.token),
            Change::Free | Change::Taking { .. } | Change::Returning { .. } => None,
        };
        Stale { current }
    }

    pub(super) fn is_held(&self, token: Token) -> bool {
        matches!(&self.change, Change::Held(hold) | Change::Returning { hold, .. } if hold.token == token)
    }

    pub(super) fn taken(&mut self, key: &ObjectKey, token: Option<Token>, effects: &mut Vec<Effect>) {
        let Change::Taking { waiter, holder, term_ms, begun } = std::mem::take(&mut self.change) else { return };
        let Some(token) = token else {
            let refusal = Refusal { why: Denied::NotStored, by: Vec::new(), retry_after_ms: RETURN_AGAIN_MS };
            effects.extend(waiter.map(|waiter| Effect::Refused { waiter, refusal }));
            return;
        };
        let until = until(&holder, begun, term_ms);
        self.change = Change::Held(Hold { holder: holder.clone(), token, term_ms, since: begun, until });
        match waiter {
            Some(waiter) => {
                // The holder's own use ends with the grant, and not when nobody waits for that any more.
                self.users.remove(&holder);
                effects.push(Effect::Granted { key: key.clone(), waiter, grant: Grant { mode: LockMode::Change, holder, token, term_ms } });
            }
            None => self.give_back(key, effects),
        }
    }

    pub(super) fn returned(&mut self, is_stored: bool, now: u64) {
        if let Change::Returning { again_at, .. } = &mut self.change {
            if is_stored {
                self.change = Change::Free;
            } else {
                *again_at = Some(now.saturating_add(RETURN_AGAIN_MS));
            }
        }
    }

    pub(super) fn marked(&mut self, is_stored: bool, effects: &mut Vec<Effect>) {
        if is_stored {
            self.mark = Mark::There { empty_since: None };
            return;
        }
        self.mark = Mark::Absent;
        let (users, others) = std::mem::take(&mut self.waiters).into_iter().partition(|w| w.ask.mode == LockMode::Use);
        self.waiters = others;
        effects.extend(VecDeque::into_iter(users).map(|w| {
            let refusal = Refusal { why: Denied::NotStored, by: Vec::new(), retry_after_ms: RETURN_AGAIN_MS };
            Effect::Refused { waiter: w.id, refusal }
        }));
    }

    pub(super) fn unmarked(&mut self) {
        self.mark = Mark::Absent;
    }

    fn give_back(&mut self, key: &ObjectKey, effects: &mut Vec<Effect>) {
        if let Change::Held(hold) = std::mem::take(&mut self.change) {
            effects.push(Effect::Return { key: key.clone(), token: hold.token });
            self.change = Change::Returning { hold, again_at: None };
        }
    }

    /// Ends what has passed, serves who can be served, refuses who has waited for too long.
    pub(super) fn settle(&mut self, key: &ObjectKey, now: u64, next_token: &mut u64, effects: &mut Vec<Effect>) {
        self.users.retain(|_, user| now < user.until);
        self.unknown_until = self.unknown_until.filter(|until| now < *until);
        match &mut self.change {
            Change::Held(hold) if hold.until.is_some_and(|until| until <= now) => {
                effects.push(Effect::Expired { key: key.clone(), holder: hold.holder.clone() });
                self.give_back(key, effects);
            }
            Change::Returning { hold, again_at } if again_at.is_some_and(|at| at <= now) => {
                *again_at = None;
                effects.push(Effect::Return { key: key.clone(), token: hold.token });
            }
            _ => {}
        }
        self.serve(key, now, next_token, effects);
        self.refuse_late(now, effects);
        // Whoever was refused may have been in somebody's way.
        self.serve(key, now, next_token, effects);
        self.mind_mark(key, now, effects);
    }

    fn serve(&mut self, key: &ObjectKey, now: u64, next_token: &mut u64, effects: &mut Vec<Effect>) {
        while matches!(self.change, Change::Free)
            && let Some(first) = self.waiters.front()
        {
            match first.ask.mode {
                LockMode::Use => match self.mark {
                    Mark::There { .. } => self.serve_user(now, next_token, effects),
                    Mark::Absent => {
                        self.mark = Mark::Writing;
                        effects.push(Effect::Mark { key: key.clone() });
                        return;
                    }
                    Mark::Writing | Mark::Clearing => return,
                },
                LockMode::Change => {
                    self.drain(key, now, effects);
                    if !self.serve_writer(key, now, effects) {
                        return;
                    }
                }
            }
        }
    }

    fn serve_user(&mut self, now: u64, next_token: &mut u64, effects: &mut Vec<Effect>) {
        let Some(Waiter { id, ask }) = self.waiters.pop_front() else { return };
        let fresh = Token(*next_token);
        *next_token += 1;
        let user = User { token: fresh, term_ms: ask.term_ms, until: now.saturating_add(ask.term_ms) };
        // One lease a process: two requests of one that both waited have the same.
        let user = self.users.entry(ask.holder.clone()).and_modify(|u| u.until = user.until).or_insert(user);
        let grant = Grant { mode: LockMode::Use, holder: ask.holder, token: user.token, term_ms: ask.term_ms };
        effects.push(Effect::Granted { key: ask.key, waiter: id, grant });
    }

    /// The operator has waited for long enough: the users that it knows lose their leases.
    fn drain(&mut self, key: &ObjectKey, now: u64, effects: &mut Vec<Effect>) {
        let is_over = self.waiters.front().is_some_and(|first| matches!(first.ask.patience, Patience::Drains(from) if from <= now));
        if is_over && !self.users.is_empty() {
            let users = std::mem::take(&mut self.users).into_keys().collect();
            effects.push(Effect::Ended { key: key.clone(), users });
        }
    }

    fn serve_writer(&mut self, key: &ObjectKey, now: u64, effects: &mut Vec<Effect>) -> bool {
        let Some(first) = self.waiters.front() else { return false };
        let is_used = self.users.keys().any(|user| *user != first.ask.holder);
        if (is_used || self.unknown_until.is_some()) && !planted(Mutant::ChangeAmongUsers) {
            return false;
        }
        let Some(Waiter { id, ask }) = self.waiters.pop_front() else { return false };
        let Ask { holder, term_ms, .. } = ask;
        effects.push(Effect::Take { key: key.clone(), holder: holder.clone(), term_ms, at: now });
        self.change = Change::Taking { waiter: Some(id), holder, term_ms, begun: now };
        true
    }

    fn refuse_late(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let is_late = |waiter: &Waiter| matches!(waiter.ask.patience, Patience::Until(at) if at <= now);
        if !self.waiters.iter().any(is_late) {
            return;
        }
        let mut kept = VecDeque::new();
        let is_marking = self.is_marking();
        let is_free = matches!(self.change, Change::Free);
        for waiter in std::mem::take(&mut self.waiters) {
            // Only the store is still to answer, which it does in a moment.
            let is_granted = waiter.ask.mode == LockMode::Use && is_free && is_marking && kept.iter().all(is_use);
            if is_late(&waiter) && !is_granted {
                effects.push(Effect::Refused { waiter: waiter.id, refusal: self.refusal(&waiter.ask, &kept, now) });
            } else {
                kept.push_back(waiter);
            }
        }
        self.waiters = kept;
    }

    fn refusal(&self, ask: &Ask, ahead: &VecDeque<Waiter>, now: u64) -> Refusal {
        let why = match ask.mode {
            LockMode::Use => Denied::Changing,
            LockMode::Change => Denied::InUse,
        };
        let (by, ends) = self.in_the_way(&ask.holder, ahead.iter(), now);
        Refusal { why, by, retry_after_ms: ends.map_or(RETRY_MS, |at| at.saturating_sub(now).clamp(1, RETRY_MS)) }
    }

    /// Who keeps `holder` from changing it, and when the first of them may be gone.
    fn in_the_way<'a>(&'a self, holder: &Name, ahead: impl Iterator<Item = &'a Waiter>, now: u64) -> (Vec<Name>, Option<u64>) {
        let (mut by, mut ends) = (Vec::new(), None);
        match &self.change {
            Change::Free => {}
            Change::Taking { holder, .. } => by.push(holder.clone()),
            Change::Held(hold) | Change::Returning { hold, .. } => {
                by.push(hold.holder.clone());
                ends = hold.until;
            }
        }
        let users = self.users.iter().filter(|(user, lease)| *user != holder && now < lease.until);
        for (user, lease) in users {
            by.push(user.clone());
            ends = Some(ends.map_or(lease.until, |end| end.max(lease.until)));
        }
        if let Some(until) = self.unknown_until.filter(|until| now < *until) {
            by.push(Name::from("users from before the restart"));
            ends = Some(ends.map_or(until, |end| end.max(until)));
        }
        by.extend(ahead.filter(|w| w.ask.mode == LockMode::Change && w.ask.holder != *holder).map(|w| w.ask.holder.clone()));
        by.truncate(NAMED);
        (by, ends)
    }

    fn mind_mark(&mut self, key: &ObjectKey, now: u64, effects: &mut Vec<Effect>) {
        let Mark::There { empty_since } = &mut self.mark else { return };
        let is_used = !self.users.is_empty() || self.unknown_until.is_some() || self.waiters.iter().any(is_use);
        if is_used {
            *empty_since = None;
            return;
        }
        let since = *empty_since.get_or_insert(now);
        if now >= since.saturating_add(MARK_KEPT_MS) {
            self.mark = Mark::Clearing;
            effects.push(Effect::Unmark { key: key.clone() });
        }
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        let change = match &self.change {
            Change::Held(hold) => hold.until,
            Change::Returning { again_at, .. } => *again_at,
            Change::Free | Change::Taking { .. } => None,
        };
        let mark = match self.mark {
            Mark::There { empty_since: Some(since) } => Some(since.saturating_add(MARK_KEPT_MS)),
            _ => None,
        };
        let drains = self.waiters.front().and_then(|first| match first.ask.patience {
            Patience::Drains(from) if !self.users.is_empty() && matches!(self.change, Change::Free) => Some(from),
            _ => None,
        });
        // A user whose instant has come while the store still writes its mark is not late.
        let is_marking = self.is_marking() && matches!(self.change, Change::Free);
        let late = self.waiters.iter().skip_while(|w| is_marking && is_use(w)).filter_map(|w| match w.ask.patience {
            Patience::Until(at) => Some(at),
            Patience::Drains(_) => None,
        });
        let users = self.users.values().map(|user| user.until);
        change.into_iter().chain(mark).chain(drains).chain(late).chain(users).chain(self.unknown_until).min()
    }

    fn is_marking(&self) -> bool {
        matches!(self.mark, Mark::Writing | Mark::Clearing)
    }

    pub(super) fn is_changing(&self) -> bool {
        matches!(self.change, Change::Held(_) | Change::Returning { .. })
    }

    pub(super) fn standing(&self, now: u64) -> Standing {
        if let Change::Held(hold) = &self.change
            && hold.holder == OPERATOR
        {
            return Standing::Ours;
        }
        let ahead = self.waiters.iter().take_while(|w| w.ask.holder != OPERATOR);
        let (by, _) = self.in_the_way(&Name::from(OPERATOR), ahead, now);
        // What the store takes or gives back for the operator itself is settled in a moment.
        if by.iter().all(|name| name == OPERATOR) { Standing::Free } else { Standing::Taken { by } }
    }

    pub(super) fn view(&self, now: u64) -> View {
        let change = match &self.change {
            Change::Held(hold) | Change::Returning { hold, .. } => {
                Some(ChangeView { holder: hold.holder.clone(), token: hold.token, since_ms: hold.since, until_ms: hold.until })
            }
            Change::Free | Change::Taking { .. } => None,
        };
        View {
            change,
            users: self.users.iter().filter(|(_, user)| now < user.until).map(|(name, user)| (name.clone(), user.until)).collect(),
            unknown_until_ms: self.unknown_until.filter(|until| now < *until),
            waiters: self.waiters.iter().map(|w| (w.ask.mode, w.ask.holder.clone())).collect(),
        }
    }

    pub(super) fn shown(&self) -> Shown {
        let change = match &self.change {
            Change::Held(hold) | Change::Returning { hold, .. } => Some(hold.token),
            Change::Free | Change::Taking { .. } => None,
        };
        let next = self.waiters.iter().find(|w| !is_use(w)).map(|w| w.ask.holder.clone());
        Shown { change, is_used: !self.users.is_empty(), next }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.users.is_empty()
            && self.waiters.is_empty()
            && self.unknown_until.is_none()
            && matches!(self.change, Change::Free)
            && self.mark == Mark::Absent
    }
}

fn is_use(waiter: &Waiter) -> bool {
    waiter.ask.mode == LockMode::Use
}

/// When a change ends. The operator's own lives as long as this process.
fn until(holder: &Name, begun: u64, term_ms: u64) -> Option<u64> {
    (holder != OPERATOR).then(|| begun.saturating_add(term_ms))
}
