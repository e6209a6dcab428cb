//! The lock table against what its holders believe: they know only what they were told, and must never believe two things that exclude
//! each other, whatever the store does and however often the operator is restarted.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use qm_api::lock::LockMode;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_plan::locks::{Ask, Denied, Effect, Grant, OPERATOR, Patience, Refusal, Stale, Standing, Table, Token, USE_TERM_MS, WaiterId};

const TERM_MS: u64 = 15_000;

fn key() -> ObjectKey {
    ObjectKey::new("MiniService", "shop", "db")
}

fn who(n: u8) -> Name {
    match n {
        0 => Name::from(OPERATOR),
        n => Name::from(format!("p{n}")),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Ask {
        holder: u8,
        mode: LockMode,
        wait_ms: u64,
    },
    Renew {
        holder: u8,
    },
    Release {
        holder: u8,
    },
    GiveUp {
        at: usize,
    },
    Pass {
        ms: u64,
    },
    /// The store answers the n-th of its open requests.
    Store {
        at: usize,
        ok: bool,
    },
    Restart {
        ok: bool,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let mode = prop_oneof![Just(LockMode::Use), Just(LockMode::Change)];
    let wait = prop_oneof![Just(0), 1..40_000_u64];
    let op = prop_oneof![
        6 => (0..6_u8, mode, wait).prop_map(|(holder, mode, wait_ms)| Op::Ask { holder, mode, wait_ms }),
        4 => (0..6_u8).prop_map(|holder| Op::Renew { holder }),
        4 => (0..6_u8).prop_map(|holder| Op::Release { holder }),
        1 => (0..4_usize).prop_map(|at| Op::GiveUp { at }),
        4 => prop_oneof![1..500_u64, 500..16_000_u64, Just(61_000)].prop_map(|ms| Op::Pass { ms }),
        8 => (0..3_usize, prop::bool::weighted(0.9)).prop_map(|(at, ok)| Op::Store { at, ok }),
        1 => any::<bool>().prop_map(|ok| Op::Restart { ok }),
    ];
    prop::collection::vec(op, 1..160)
}

/// What one holder believes to have.
#[derive(Clone, Debug)]
struct Belief {
    grant: Grant,
    until: u64,
}

struct Model {
    table: Table,
    now: u64,
    first_token: u64,
    /// By mode and holder.
    beliefs: BTreeMap<(LockMode, Name), Belief>,
    waiting: BTreeMap<WaiterId, Ask>,
    open: Vec<Effect>,
    /// What is durable.
    marked: bool,
    lease: Option<(Name, Token, u64)>,
    fence: u64,
    /// When the change that the store takes now began.
    begun: u64,
    tokens: BTreeSet<u64>,
    no_change_before: u64,
}

impl Model {
    fn new() -> Self {
        Self {
            table: Table::new(1_000_000),
            now: 0,
            first_token: 1_000_000,
            beliefs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            open: Vec::new(),
            marked: false,
            lease: None,
            fence: 0,
            begun: 0,
            tokens: BTreeSet::new(),
            no_change_before: 0,
        }
    }

    fn live(&self, mode: LockMode) -> Vec<&Name> {
        let live = self.beliefs.iter().filter(|((m, _), belief)| *m == mode && self.now < belief.until);
        live.map(|((_, holder), _)| holder).collect()
    }

    fn heard(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Granted { waiter, grant, .. } => {
                    let ask = self.waiting.remove(&waiter).expect("only who waits is granted something");
                    self.granted(waiter, &ask, grant);
                }
                Effect::Refused { waiter, refusal } => {
                    let ask = self.waiting.remove(&waiter).expect("only who waits is refused");
                    let fits = matches!(
                        (refusal.why, ask.mode),
                        (Denied::NotStored, _) | (Denied::Changing, LockMode::Use) | (Denied::InUse, LockMode::Change)
                    );
                    assert!(fits, "{refusal:?} for {ask:?}");
                    assert!(refusal.retry_after_ms > 0);
                }
                Effect::Mark { .. } | Effect::Unmark { .. } | Effect::Take { .. } | Effect::Return { .. } => self.open.push(effect),
                Effect::Expired { holder, .. } => {
                    let belief = self.beliefs.remove(&(LockMode::Change, holder));
                    assert!(belief.is_none_or(|b| b.until <= self.now), "a change expired before its time");
                }
                Effect::Ended { users, .. } => users.into_iter().for_each(|user| drop(self.beliefs.remove(&(LockMode::Use, user)))),
                Effect::Changed { .. } => {}
            }
        }
    }

    fn granted(&mut self, waiter: WaiterId, ask: &Ask, grant: Grant) {
        assert_eq!((ask.mode, &ask.holder), (grant.mode, &grant.holder));
        let again = self.beliefs.get(&(grant.mode, grant.holder.clone())).filter(|b| self.now < b.until).cloned();
        let others: Vec<&Name> = self.live(LockMode::Use).into_iter().filter(|user| **user != grant.holder).collect();
        assert_eq!(self.live(LockMode::Change), Vec::<&Name>::new(), "{grant:?} beside a change");
        match grant.mode {
            LockMode::Use => {
                assert!(self.marked, "a use that a restart would not know of");
                let is_late = self.waiting.iter().any(|(id, w)| *id < waiter && w.mode == LockMode::Change);
                assert!(!is_late || again.is_some(), "{grant:?} overtakes a writer");
                let is_same = again.as_ref().is_some_and(|b| b.grant.token == grant.token);
                assert!(is_same || self.tokens.insert(grant.token.0), "a token is given out twice");
            }
            LockMode::Change => {
                assert_eq!(others, Vec::<&Name>::new(), "{grant:?} beside users");
                assert!(self.now >= self.no_change_before, "a change so soon after a restart");
                assert_eq!(self.lease.as_ref().map(|l| l.1), Some(grant.token), "a change that is not durable");
                let earlier = self.waiting.iter().any(|(id, w)| *id < waiter && w.mode == LockMode::Change);
                assert!(!earlier, "{grant:?} overtakes another writer");
                self.beliefs.remove(&(LockMode::Use, grant.holder.clone()));
            }
        }
        let until = match grant.mode {
            LockMode::Change if grant.holder == OPERATOR => u64::MAX,
            LockMode::Change => self.begun + grant.term_ms,
            LockMode::Use => self.now + grant.term_ms,
        };
        self.beliefs.insert((grant.mode, grant.holder.clone()), Belief { grant, until });
    }

    fn store(&mut self, effect: Effect, ok: bool) {
        let (key, now) = (key(), self.now);
        let effects = match effect {
            Effect::Mark { .. } => {
                self.marked |= ok;
                self.table.marked(&key, ok, now)
            }
            Effect::Unmark { .. } => {
                assert_eq!(self.live(LockMode::Use), Vec::<&Name>::new(), "the mark goes while there are users");
                self.marked = !ok;
                self.table.unmarked(&key, now)
            }
            Effect::Take { holder, term_ms, at, .. } => {
                let token = ok.then(|| {
                    assert!(self.lease.is_none(), "the store has one lease a service");
                    self.fence += 1;
                    self.lease = Some((holder.clone(), Token(self.fence), term_ms));
                    Token(self.fence)
                });
                // The term began when it was asked for.
                self.begun = at;
                self.table.taken(&key, token, now)
            }
            Effect::Return { token, .. } => {
                if ok {
                    assert_eq!(self.lease.take().map(|l| l.1), Some(token));
                }
                self.table.returned(&key, ok, now)
            }
            other => panic!("{other:?} is nothing for the store"),
        };
        self.heard(effects);
    }

    fn told_stale(&mut self, mode: LockMode, holder: &Name) {
        let belief = self.beliefs.remove(&(mode, holder.clone()));
        // Only who may have lost it is told so; a change that it asked for and never heard of is in the way of its own use.
        let is_own = self.lease.as_ref().is_some_and(|lease| lease.0 == *holder);
        assert!(is_own || belief.is_none_or(|b| self.now >= b.until), "{holder} has lost a {mode} before its time");
    }

    fn run(&mut self, op: Op) {
        let (key, now) = (key(), self.now);
        match op {
            Op::Ask { holder, mode, wait_ms } => {
                // The operator never uses, and waits for as long as it takes, but for its first try.
                let mode = if holder == 0 { LockMode::Change } else { mode };
                let patience = if holder == 0 && wait_ms > 0 { Patience::Drains(now + wait_ms) } else { Patience::Until(now + wait_ms) };
                let ask = Ask { key, mode, holder: who(holder), term_ms: TERM_MS, patience };
                let (waiter, effects) = self.table.ask(ask.clone(), now);
                self.waiting.insert(waiter, ask);
                self.heard(effects);
            }
            Op::Renew { holder } => {
                for mode in [LockMode::Use, LockMode::Change] {
                    let Some(belief) = self.beliefs.get(&(mode, who(holder))).cloned() else { continue };
                    let (renewed, effects) = self.table.renew(&key, &who(holder), belief.grant.token, Some(mode), now);
                    self.heard(effects);
                    match renewed {
                        Ok(grant) => {
                            assert_eq!(grant.mode, mode);
                            let others = self.live(LockMode::Change).into_iter().any(|other| *other != who(holder));
                            assert!(!others, "a {mode} is renewed beside a change");
                            if mode == LockMode::Change {
                                let others = self.live(LockMode::Use).into_iter().any(|user| *user != who(holder));
                                assert!(!others, "a change is renewed beside users");
                            }
                            let until = if holder == 0 { u64::MAX } else { now + grant.term_ms };
                            self.beliefs.insert((mode, who(holder)), Belief { until, ..belief });
                        }
                        Err(Stale { .. }) => self.told_stale(mode, &who(holder)),
                    }
                }
            }
            Op::Release { holder } => {
                for mode in [LockMode::Use, LockMode::Change] {
                    let Some(belief) = self.beliefs.get(&(mode, who(holder))).cloned() else { continue };
                    let (released, effects) = self.table.release(&key, &who(holder), belief.grant.token, now);
                    match released.map(|()| effects.clone()) {
                        Ok(effects) => {
                            // It is not believed any more from the moment it is given back.
                            self.beliefs.remove(&(mode, who(holder)));
                            assert_eq!(self.table.check(&key, belief.grant.token, now).ok(), None);
                            self.heard(effects);
                        }
                        // A user of a former process has nothing to give back.
                        Err(Stale { .. }) if mode == LockMode::Use => drop(self.beliefs.remove(&(mode, who(holder)))),
                        Err(Stale { .. }) => self.told_stale(mode, &who(holder)),
                    }
                }
            }
            Op::GiveUp { at } => {
                let Some(waiter) = self.waiting.keys().nth(at).copied() else { return };
                self.waiting.remove(&waiter);
                let effects = self.table.give_up(waiter, now);
                self.heard(effects);
            }
            Op::Pass { ms } => {
                let end = now + ms;
                while let Some(at) = self.table.deadline().filter(|at| *at <= end) {
                    assert!(at > self.now || self.now == now, "time stands still at {at}");
                    self.now = self.now.max(at);
                    let effects = self.table.advance(self.now);
                    self.heard(effects);
                }
                self.now = end;
                let effects = self.table.advance(end);
                self.heard(effects);
            }
            Op::Store { at, ok } => {
                if at < self.open.len() {
                    let effect = self.open.remove(at);
                    self.store(effect, ok);
                }
            }
            Op::Restart { ok } => self.restart(ok),
        }
        self.in_agreement();
    }

    /// The process ends: requests to the store that were under way did happen or not, and nobody hears of them.
    fn restart(&mut self, ok: bool) {
        for effect in std::mem::take(&mut self.open) {
            match effect {
                Effect::Mark { .. } => self.marked |= ok,
                Effect::Unmark { .. } if ok => self.marked = false,
                Effect::Take { holder, term_ms, .. } if ok => {
                    self.fence += 1;
                    self.lease = Some((holder, Token(self.fence), term_ms));
                }
                Effect::Return { .. } if ok => self.lease = None,
                _ => {}
            }
        }
        self.waiting.clear();
        self.first_token += 1_000_000;
        self.table = Table::new(self.first_token);
        if let Some((holder, token, term_ms)) = self.lease.clone() {
            self.table.restore_change(key(), holder, token, term_ms, self.now);
        }
        if self.marked {
            self.table.restore_users(key(), self.now);
            self.no_change_before = self.now + USE_TERM_MS;
        }
    }

    /// A fence lets through whoever holds a change, and nobody else's token.
    fn in_agreement(&self) {
        for ((mode, holder), belief) in self.beliefs.iter().filter(|((mode, _), b)| *mode == LockMode::Change && self.now < b.until) {
            assert_eq!(self.table.check(&key(), belief.grant.token, self.now), Ok(*mode), "{holder} is fenced off");
        }
        for stale in (1..=self.fence).filter(|token| self.lease.as_ref().is_none_or(|lease| lease.1.0 != *token)) {
            assert!(self.table.check(&key(), Token(stale), self.now).is_err(), "the stale token {stale} goes through");
        }
    }

    /// Nobody renews any more, and the store works: everybody gets an answer, and at the end nothing is left.
    fn comes_to_rest(&mut self) {
        for _ in 0..2_000 {
            while let Some(effect) = self.open.pop() {
                self.store(effect, true);
            }
            if let Some(at) = self.table.deadline() {
                self.now = self.now.max(at);
                let effects = self.table.advance(self.now);
                self.heard(effects);
            }
            if self.table.standing(&key(), self.now) == Standing::Ours {
                // What it finds of its own after a restart it ends like what it has just taken.
                let token = self.table.view(&key(), self.now).change.map(|change| change.token).expect("ours is held");
                self.beliefs.remove(&(LockMode::Change, who(0)));
                let (released, effects) = self.table.release(&key(), &who(0), token, self.now);
                released.expect("ours is ours");
                self.heard(effects);
            }
        }
        assert_eq!(self.waiting, BTreeMap::new(), "somebody waits for ever");
        assert_eq!(self.table.keys().next(), None, "something is left");
        // A mark that could not be cleared stays, and costs the next process its patience.
        assert_eq!(self.lease, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn holders_never_believe_what_excludes_each_other(ops in ops()) {
        let mut model = Model::new();
        for op in ops {
            model.run(op);
        }
        model.comes_to_rest();
    }

    /// Users that come and go without a pause do not keep a writer out, as long as each of them ends at some time.
    #[test]
    fn a_writer_does_not_starve(turns in prop::collection::vec((1..6_u8, 1..4_000_u64), 200)) {
        let mut model = Model::new();
        let answer = |model: &mut Model| while let Some(effect) = model.open.pop() { model.store(effect, true) };
        model.run(Op::Ask { holder: 1, mode: LockMode::Use, wait_ms: 0 });
        answer(&mut model);
        model.run(Op::Ask { holder: 9, mode: LockMode::Change, wait_ms: 1_000_000 });
        let asked = model.now;
        for (holder, ms) in turns {
            // Whoever holds a use goes on with it for some time.
            if model.now < asked + 60_000 {
                model.run(Op::Renew { holder });
            }
            model.run(Op::Ask { holder, mode: LockMode::Use, wait_ms: 3_000 });
            answer(&mut model);
            model.run(Op::Pass { ms });
            answer(&mut model);
            if model.live(LockMode::Change) == [&who(9)] {
                return Ok(());
            }
        }
        prop_assert!(false, "the writer never had its turn");
    }
}

fn ask(table: &mut Table, holder: &str, mode: LockMode, patience: Patience, now: u64) -> (WaiterId, Vec<Effect>) {
    table.ask(Ask { key: key(), mode, holder: holder.into(), term_ms: TERM_MS, patience }, now)
}

fn used(table: &mut Table, holder: &str, now: u64) {
    ask(table, holder, LockMode::Use, Patience::Until(now), now);
    table.marked(&key(), true, now);
    assert!(table.view(&key(), now).users.iter().any(|(user, _)| user == holder));
}

#[test]
fn refusals_say_who_is_in_the_way_and_when_to_ask_again() {
    let mut table = Table::new(1);
    used(&mut table, "web.1", 0);
    let (_, effects) = ask(&mut table, "batch", LockMode::Change, Patience::Until(12_000), 12_000);
    let Some(Effect::Refused { refusal, .. }) = effects.first() else { panic!("{effects:?}") };
    assert_eq!(*refusal, Refusal { why: Denied::InUse, by: vec!["web.1".into()], retry_after_ms: 3_000 });
    // A writer that waits closes the door to new users, not to those who are in.
    let (waiter, _) = ask(&mut table, "batch", LockMode::Change, Patience::Until(60_000), 12_000);
    let (_, effects) = ask(&mut table, "web.2", LockMode::Use, Patience::Until(12_000), 12_000);
    let Some(Effect::Refused { refusal, .. }) = effects.first() else { panic!("{effects:?}") };
    assert_eq!((refusal.why, &refusal.by), (Denied::Changing, &vec!["web.1".into(), "batch".into()]));
    let (_, effects) = ask(&mut table, "web.1", LockMode::Use, Patience::Until(12_000), 12_000);
    assert!(matches!(effects.as_slice(), [Effect::Granted { .. }]), "{effects:?}");
    // It gives up, and the door is open again.
    table.give_up(waiter, 12_000);
    used(&mut table, "web.2", 12_000);
}

#[test]
fn the_operator_waits_for_users_and_then_not_any_more() {
    let mut table = Table::new(1);
    used(&mut table, "web.1", 0);
    assert_eq!(table.standing(&key(), 0), Standing::Taken { by: vec!["web.1".into()] });
    let (_, effects) = ask(&mut table, OPERATOR, LockMode::Change, Patience::Drains(10_000), 0);
    assert!(!effects.iter().any(|e| matches!(e, Effect::Take { .. })));
    assert_eq!(table.deadline(), Some(10_000));
    let effects = table.advance(10_000);
    assert!(matches!(&effects[..], [Effect::Ended { users, .. }, Effect::Take { .. }, ..] if users == &["web.1"]), "{effects:?}");
    table.taken(&key(), Some(Token(7)), 10_000);
    assert_eq!(table.standing(&key(), 10_000), Standing::Ours);
    // Its own change ends with its work, not with a term.
    assert!(table.advance(10_000_000).is_empty() || table.is_changing(&key()));
    assert_eq!(table.renew(&key(), &"web.1".into(), Token(1), Some(LockMode::Use), 10_001).0, Err(Stale { current: Some(Token(7)) }));
}

#[test]
fn the_change_of_somebody_else_is_never_broken() {
    let mut table = Table::new(1);
    ask(&mut table, "backup", LockMode::Change, Patience::Until(0), 0);
    table.taken(&key(), Some(Token(1)), 0);
    ask(&mut table, OPERATOR, LockMode::Change, Patience::Drains(1_000), 0);
    for now in [5_000, 10_000, 15_000, 20_000] {
        table.advance(now);
        table.renew(&key(), &"backup".into(), Token(1), None, now).0.unwrap();
    }
    assert_eq!(table.check(&key(), Token(1), 20_001), Ok(LockMode::Change));
    let effects = table.release(&key(), &"backup".into(), Token(1), 20_002).1;
    assert_eq!(effects.first(), Some(&Effect::Return { key: key(), token: Token(1) }));
    let effects = table.returned(&key(), true, 20_003);
    assert!(effects.iter().any(|e| matches!(e, Effect::Take { .. })), "{effects:?}");
}

#[test]
fn users_of_a_former_process_go_on_and_are_waited_for() {
    let mut table = Table::new(1_000);
    table.restore_users(key(), 0);
    ask(&mut table, "batch", LockMode::Change, Patience::Until(60_000), 100);
    let old = Token(17);
    assert_eq!(
        table.renew(&key(), &"web.1".into(), old, None, 5_000).0,
        Err(Stale { current: None }),
        "a change does not come back as a use"
    );
    table.renew(&key(), &"web.1".into(), old, Some(LockMode::Use), 14_000).0.unwrap();
    assert!(table.advance(15_000).iter().all(|e| !matches!(e, Effect::Take { .. })), "web.1 uses it");
    assert_eq!(table.renew(&key(), &"web.2".into(), Token(18), Some(LockMode::Use), 15_001).0, Err(Stale { current: None }));
    assert!(table.advance(29_000).iter().any(|e| matches!(e, Effect::Take { .. })));
}

#[test]
fn a_stale_word_lets_time_pass_and_loses_nothing_of_what_follows() {
    for stale_release in [true, false] {
        let mut table = Table::new(1_000);
        ask(&mut table, "backup", LockMode::Change, Patience::Until(0), 0);
        table.taken(&key(), Some(Token(1)), 0);
        let who: Name = "other".into();
        let effects = match stale_release {
            true => table.release(&key(), &who, Token(9), USE_TERM_MS + 1).1,
            false => table.renew(&key(), &who, Token(9), None, USE_TERM_MS + 1).1,
        };
        assert!(effects.iter().any(|e| matches!(e, Effect::Return { .. })), "the term had passed: {effects:?}");
    }
}

#[test]
fn who_comes_back_after_the_operators_patience_is_not_renewed() {
    let mut table = Table::new(1_000);
    table.restore_users(key(), 0);
    ask(&mut table, OPERATOR, LockMode::Change, Patience::Drains(1_000), 0);
    let (renewed, effects) = table.renew(&key(), &"web.1".into(), Token(17), Some(LockMode::Use), 2_000);
    assert_eq!(renewed, Err(Stale { current: None }));
    assert!(matches!(effects.as_slice(), [Effect::Ended { users, .. }, ..] if users == &["web.1"]), "{effects:?}");
}

#[test]
fn a_token_of_this_process_is_no_use_from_before_it() {
    let mut table = Table::new(1_000);
    table.restore_users(key(), 0);
    let renewed = table.renew(&key(), &"web.1".into(), Token(1_000), Some(LockMode::Use), 5_000);
    assert_eq!(renewed.0, Err(Stale { current: None }));
}
