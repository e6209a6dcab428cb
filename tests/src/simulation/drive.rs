//! Plays a script on the stage: acts at their time, ticks in between, then calm; and judges what has come of it.

use std::collections::BTreeSet;
use std::time::Duration;

use qm_api::meta::ObjectKey;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::annex;
use super::calm;
use super::judge::{Suspension, ask, containers};
use super::meddle;
use super::rng::Rng;
use super::script::{Act, Script, Timed, Trouble};
use super::stage::{Stage, because};
use super::town::{self, Id, Service, Town};
use super::users::Users;

/// Why a service is guarded while its file is cut.
const HALF_WRITTEN: &str = "its file is half written";
/// How long a part of a file that can be read may stay before it is believed, in milliseconds; the source settles for 2 s.
const WITHIN_SETTLE_MS: u64 = 1_900;
/// How often the rules that no call triggers are judged, in milliseconds.
const TICK_MS: u64 = 1_000;
/// How long the engine may be away before anybody's status may change; the grace is 30 s.
const WITHIN_GRACE_MS: u64 = 27_000;
/// How long after the loss a status must have changed: the grace, and some time for the news to be written.
const AFTER_GRACE_MS: u64 = 50_000;

/// What has come of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What was broken, if anything.
    pub violations: Vec<String>,
    /// The digest of the log.
    pub digest: String,
    /// Lines of the log.
    pub lines: u64,
    /// Calls to the engine.
    pub calls: u64,
    /// How long it took in virtual time, in milliseconds.
    pub virtual_ms: u64,
    /// The log, or its end.
    pub log: Vec<String>,
}

/// Something that is due.
#[derive(Clone, Debug)]
enum Due {
    Act(Act),
    /// A half-written file, a bad document, an emptied or hidden folder is put right.
    Mend,
    Boot,
    DaemonBack {
        live_restore: bool,
    },
    StoreHasRoom,
    /// What is outside of a namespace is there again.
    OutsideBack(String),
    Tick,
}

/// The agenda and the state of the play.
struct Play {
    stage: Stage,
    town: Town,
    agenda: Vec<(u64, u64, Due)>,
    counter: u64,
    /// How long the operator stays away after the trap, and whether the power goes.
    after_trap: Option<(u64, bool)>,
    /// Since when the engine has been away, with who was usable then.
    away: Option<(u64, BTreeSet<Id>)>,
    /// The daemon is away.
    is_away: bool,
    users: Users,
}

/// Plays a script.
pub async fn play(script: &Script, keep_log: bool) -> Verdict {
    let mut rng = Rng::new(script.seed).fork("town");
    let town = Town::draw(&mut rng);
    let stage = Stage::new(script.seed, keep_log);
    let engine = stage.sim.clone();
    let engine = tokio::spawn(async move { engine.run().await });
    let mut play =
        Play { stage, town, agenda: Vec::new(), counter: 0, after_trap: None, away: None, is_away: false, users: Users::default() };
    play.populate();
    play.stage.write(&play.town.files());
    play.tell_judge();
    play.stage.boot();
    for timed in &script.acts {
        play.at(timed.at_ms, Due::Act(timed.act.clone()));
    }
    play.at(TICK_MS, Due::Tick);
    play.run_until(script.calm_at_ms).await;
    play.make_calm().await;
    let lies = |timed: &Timed| matches!(timed.act, Act::Engine { trouble: Trouble::EventsLost, .. });
    calm::converge(&mut play.stage, &play.town, !script.acts.iter().any(lies)).await;
    engine.abort();
    let stage = play.stage;
    let violations = std::mem::take(&mut stage.judge().violations);
    let journal = stage.shared.journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Verdict {
        violations,
        digest: journal.digest(),
        lines: journal.count(),
        calls: stage.shared.calls.load(std::sync::atomic::Ordering::Relaxed),
        virtual_ms: stage.shared.now().mono_ms,
        log: journal.lines().cloned().collect(),
    }
}

impl Play {
    fn now_ms(&self) -> u64 {
        self.stage.shared.now().mono_ms
    }

    fn at(&mut self, at_ms: u64, due: Due) {
        self.counter += 1;
        self.agenda.push((at_ms, self.counter, due));
    }

    fn after(&mut self, ms: u64, due: Due) {
        let at = self.now_ms() + ms;
        self.at(at, due);
    }

    fn next(&mut self, limit_ms: u64) -> Option<(u64, Due)> {
        let index = (0..self.agenda.len()).min_by_key(|i| (self.agenda[*i].0, self.agenda[*i].1))?;
        if self.agenda[index].0 > limit_ms {
            return None;
        }
        let (at, _, due) = self.agenda.swap_remove(index);
        Some((at, due))
    }

    async fn run_until(&mut self, limit_ms: u64) {
        loop {
            let Some((at, due)) = self.next(limit_ms) else { return };
            if self.stage.shared.runaway.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            let pause = Duration::from_millis(at.saturating_sub(self.now_ms()));
            let deadline = Instant::now() + pause;
            loop {
                tokio::select! {
                    biased;
                    () = self.stage.crashed() => self.spring(),
                    () = tokio::time::sleep_until(deadline) => break,
                }
            }
            self.take(due).await;
        }
    }

    /// The operator has died in its trap.
    fn spring(&mut self) {
        let (down_ms, power) = self.after_trap.take().unwrap_or((1_000, false));
        self.stage.kill(power);
        self.after(down_ms, Due::Boot);
    }

    fn tell_judge(&mut self) {
        let now = self.stage.shared.now();
        let all = self.stage.sim.with(|engine| containers(engine, now));
        let mut judge = self.stage.judge();
        let is_back = |id: &Id| self.town.services.contains_key(id) && !judge.town.services.contains_key(id);
        let former: Vec<String> = all.into_iter().filter(|c| c.is_ours() && is_back(&c.owner())).map(|c| c.id).collect();
        judge.former.extend(former);
        judge.set_town(&self.town, now);
    }

    fn write(&mut self) {
        // A file that was half written is whole again.
        self.stage.judge().guarded.retain(|_, why| *why != HALF_WRITTEN);
        self.stage.write(&self.town.files());
        self.tell_judge();
    }

    /// Strangers that look like family: they stand by untouched.
    fn populate(&mut self) {
        let namespaces = self.town.namespaces();
        let now = self.stage.shared.now();
        let ids = self.stage.sim.with(|engine| meddle::strangers(engine, now, &namespaces));
        self.stage.judge().foreign.extend(ids);
    }

    async fn take(&mut self, due: Due) {
        match due {
            Due::Tick => {
                self.tick();
                self.stage.take_lease().await;
                annex::report(&mut self.stage, &self.town).await;
                self.users.act(&mut self.stage, &self.town).await;
                self.judge_what_is_told();
                self.after(TICK_MS, Due::Tick);
            }
            Due::Act(act) => {
                self.stage.shared.log(&format!("== {act:?}"));
                self.stage.judge().still.clear();
                self.turn_outside();
                self.act(act).await;
            }
            Due::Mend => {
                self.town.broken.clear();
                self.town.emptied = false;
                self.stage.folder.borrow_mut().hidden = false;
                self.stage.judge().guarded.clear();
                self.stage.shared.log("== the folder is mended");
                self.write();
            }
            Due::Boot => {
                if !self.stage.runs() {
                    self.stage.boot();
                    if !self.stage.runs() {
                        self.after(1_000, Due::Boot);
                    }
                }
            }
            Due::DaemonBack { live_restore } => {
                let now = self.stage.shared.now();
                self.stage.sim.with(|engine| engine.restart_daemon(live_restore, now));
                self.stage.sim.set_away(false);
                self.is_away = false;
                self.away = None;
                self.stage.shared.log("== the daemon is back");
            }
            Due::StoreHasRoom => self.stage.set_full(false),
            Due::OutsideBack(namespace) => annex::turn(&mut self.stage, &namespace, false),
        }
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Change(choice) => {
                if self.town.emptied {
                    return;
                }
                let mut rng = Rng::new(choice);
                let range = self.town.change_range(&rng);
                let beside = self.town.change_annex(&rng);
                let what = self.town.change(&mut rng);
                self.stage.shared.log(&format!("   {what} {} {}", range.unwrap_or_default(), beside.unwrap_or_default()));
                self.write();
            }
            // Nobody reaches an engine that is away.
            Act::Meddle(_) if self.is_away => {}
            Act::Meddle(choice) => {
                let now = self.stage.shared.now();
                let (what, strangers) = self.stage.sim.with(|engine| meddle::meddle(engine, now, &mut Rng::new(choice)));
                self.stage.shared.log(&format!("   {what}"));
                let mut judge = self.stage.judge();
                judge.foreign.extend(strangers);
                judge.by_hand += 1;
                // Whose container was touched may have to run again.
                if what.contains(&format!("-{}-", annex::INIT)) || what.contains("compose down") {
                    judge.annexes.may_run_again(None);
                }
            }
            Act::Person(choice) => {
                let mut rng = Rng::new(choice);
                self.person(&mut rng).await;
                // What was answered holds, whatever comes right after.
                if rng.chance(15) && self.stage.runs() {
                    self.stage.shared.log("   the power fails right after the answer");
                    self.stage.kill(true);
                    self.after(1_000, Due::Boot);
                }
            }
            Act::HalfWritten { for_ms, choice } => {
                let files = self.town.files();
                let mut rng = Rng::new(choice);
                let names: Vec<&String> = files.keys().collect();
                let Some(name) = rng.pick(&names) else { return };
                let text = &files[*name];
                let ends: Vec<usize> = text.match_indices("---").map(|(at, _)| at).collect();
                let keep = match rng.pick(&ends) {
                    Some(end) if rng.chance(40) => *end,
                    _ => rng.below(text.len() as u64) as usize,
                };
                // What can be read is believed once it has been quiet for long enough.
                let for_ms = if town::reads(&text[..keep]) { for_ms.min(WITHIN_SETTLE_MS) } else { for_ms };
                self.stage.shared.log(&format!("   {name} is cut after {keep} of {} bytes, for {for_ms} ms", text.len()));
                let hints = self.stage.folder.borrow_mut().cut(name, keep);
                self.stage.tell_folder(hints);
                self.guard(HALF_WRITTEN, |_| true);
                self.after(for_ms, Due::Mend);
            }
            Act::BadDocument { for_ms, choice } => {
                let mut rng = Rng::new(choice);
                let namespaces: Vec<String> = self.town.namespaces().into_iter().collect();
                let Some(namespace) = rng.pick(&namespaces).cloned() else { return };
                let inside: Vec<String> = self.town.services.keys().filter(|(ns, _)| *ns == namespace).map(|(_, n)| n.clone()).collect();
                let left_out = rng.pick(&inside).cloned();
                self.town.broken.insert(namespace.clone(), left_out);
                self.write();
                self.guard("its namespace is frozen", |id| id.0 == namespace);
                self.after(for_ms, Due::Mend);
            }
            Act::Emptied { for_ms } => {
                self.town.emptied = true;
                self.stage.write(&self.town.files());
                self.guard("the folder was emptied by mistake", |_| true);
                self.after(for_ms, Due::Mend);
            }
            Act::Hidden { for_ms } => {
                self.stage.folder.borrow_mut().hidden = true;
                self.stage.tell_folder(Vec::new());
                self.guard("the folder cannot be entered", |_| true);
                self.after(for_ms, Due::Mend);
            }
            Act::Engine { for_ms, trouble } => {
                self.stage.trouble(trouble, for_ms);
                // What breaks connections often delays the news too: then no event tells of the effect before the call is repeated.
                if trouble == Trouble::CutAfter && Rng::new(self.now_ms()).chance(50) {
                    self.stage.trouble(Trouble::EventsLate, for_ms);
                }
            }
            Act::Daemon { live_restore, away_ms } => {
                if self.is_away {
                    return;
                }
                self.is_away = true;
                let usable = self.usable();
                self.stage.sim.set_away(true);
                self.stage.sim.cut_all();
                if live_restore {
                    self.away = Some((self.now_ms(), usable));
                }
                self.after(away_ms, Due::DaemonBack { live_restore });
            }
            Act::Cut => self.stage.sim.cut_all(),
            Act::BootWithoutFile { choice } => {
                let mut files = self.town.files();
                let names: Vec<String> = files.keys().cloned().collect();
                let Some(name) = Rng::new(choice).pick(&names).cloned() else { return };
                files.remove(&name);
                self.stage.kill(false);
                self.stage.write(&files);
                self.guard("its file was only away for a moment", |_| true);
                self.after(50, Due::Boot);
                self.after(1_000, Due::Mend);
            }
            Act::StoreFull { for_ms } => {
                self.stage.set_full(true);
                self.after(for_ms, Due::StoreHasRoom);
            }
            Act::Crash { at_write: 0, down_ms, power, .. } => {
                self.stage.kill(power);
                self.after(down_ms, Due::Boot);
            }
            Act::Crash { at_write, after, down_ms, power } => {
                self.after_trap = Some((down_ms, power));
                self.stage.set_trap(at_write, after);
            }
            Act::StoreLost { down_ms } => {
                let now = self.stage.shared.now();
                let ready = self.ready();
                let really = self.stage.sim.with(|engine| self.stage.judge().settled(engine, now));
                self.stage.kill(false);
                self.stage.lose_store();
                // Who was usable, and who held what, is among what only the store knew.
                self.away = None;
                self.users.forget();
                let mut judge = self.stage.judge();
                judge.suspended.clear();
                judge.guarded.clear();
                let settled: BTreeSet<Id> = ready.intersection(&really).cloned().collect();
                judge.still = settled.iter().filter(|id| stays(&self.town, &settled, id)).cloned().collect();
                judge.annexes.may_run_again(None);
                // What is withdrawn before the new store knows of it is remembered by nobody: it stays until a person approves.
                let (all, networks) =
                    self.stage.sim.with(|engine| (containers(engine, now), ask(engine, now, "GET", "/networks", &[], &Value::Null).1));
                judge.left_over.extend(all.into_iter().map(|c| c.id));
                judge
                    .left_over
                    .extend(networks.as_array().into_iter().flatten().map(|n| n["Name"].as_str().unwrap_or_default().to_owned()));
                drop(judge);
                if Rng::new(now.mono_ms).chance(50) {
                    self.stage.shared.log("   meanwhile the tag of the image moves");
                    self.stage.sim.with(|engine| meddle::move_tag(engine, now));
                }
                self.after(down_ms, Due::Boot);
            }
            Act::ClockJump { by_ms } => {
                self.stage.shared.jump(by_ms);
            }
        }
    }

    /// Services that the manifests want and that nobody may take away meanwhile.
    fn guard(&self, why: &'static str, concerns: impl Fn(&Id) -> bool) {
        let now = self.stage.shared.now();
        let mut judge = self.stage.judge();
        let stable: Vec<Id> = self
            .town
            .services
            .iter()
            .filter(|(id, s)| concerns(id) && s.wanted() > 0 && judge.unchanged_for(id, now) > 5_000)
            .map(|(id, _)| id.clone())
            .collect();
        for id in stable {
            judge.guarded.insert(id, why);
        }
    }

    async fn person(&mut self, rng: &mut Rng) {
        let ids: Vec<Id> = self.town.services.keys().cloned().collect();
        let Some(id) = rng.pick(&ids).cloned() else { return };
        let on = format!("/namespaces/{}/miniservices/{}", id.0, id.1);
        let since_ms = self.now_ms();
        match rng.below(10) {
            0..=2 => {
                let (path, namespace, name) = match rng.below(4) {
                    0 => ("/actions/suspend".to_owned(), None, None),
                    1 => ("/actions/suspend".to_owned(), Some(id.0.clone()), None),
                    _ => (format!("{on}/suspend"), Some(id.0.clone()), Some(id.1.clone())),
                };
                let mut body = because("hands off");
                if name.is_none() {
                    body["scope"] = namespace.as_ref().map_or(json!({}), |ns| json!({ "namespace": ns }));
                }
                let (status, intent) = self.stage.act(&path, body).await;
                if status == 201 {
                    self.acknowledge(&intent);
                    self.stage.judge().suspended.push(Suspension { namespace, name, since_ms });
                }
            }
            3 => {
                let mut body = because("for a while");
                body["for"] = format!("{}s", rng.between(1, 60)).into();
                self.stage.act(&format!("{on}/suspend"), body).await;
            }
            4..=6 => {
                let (status, _) = self.stage.act("/actions/resume", because("go on")).await;
                if status == 201 {
                    let now = self.stage.shared.now();
                    self.stage.judge().resume(now);
                    self.stage.acknowledged.clear();
                }
            }
            7 => {
                let now = self.stage.shared.now();
                let (status, _) = self.stage.act(&format!("{on}/restart"), because("to be sure")).await;
                if status == 201 || status >= 500 {
                    self.stage.judge().note_restart([id], now);
                }
            }
            8 => {
                self.stage.act(&format!("{on}/retry"), because("again")).await;
                calm::approve_breaks(&mut self.stage).await;
            }
            _ => drop(self.stage.act(&format!("{on}/reconcile"), because("look")).await),
        }
    }

    fn acknowledge(&mut self, intent: &Value) {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        self.stage.acknowledged.insert((text(&intent["metadata"]["namespace"]), text(&intent["metadata"]["name"])));
    }

    /// Services whose published status says, from what is seen now, that they are usable. Who changes them is another matter.
    fn usable(&self) -> BTreeSet<Id> {
        self.with_status(|status| is_usable(status) && status["stale"] != true)
    }

    fn ready(&self) -> BTreeSet<Id> {
        self.with_status(|status| {
            status["conditions"].as_array().is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
        })
    }

    fn with_status(&self, holds: impl Fn(&Value) -> bool) -> BTreeSet<Id> {
        let Some(store) = self.stage.store() else { return BTreeSet::new() };
        let snapshot = store.snapshot();
        snapshot
            .list("MiniService", None)
            .filter(|o| holds(&o.status))
            .map(|o| (o.key.namespace.to_string(), o.key.name.to_string()))
            .collect()
    }

    fn tick(&mut self) {
        let now = self.stage.shared.now();
        self.stage.sim.with(|engine| {
            let mut judge = self.stage.judge();
            judge.look(engine, now);
        });
        self.judge_unknown(now.mono_ms);
        self.log_statuses();
    }

    /// Losing the engine changes nobody's status within the grace, and everybody's that only the engine can tell of after it.
    fn judge_unknown(&mut self, now_ms: u64) {
        let Some((since, usable_then)) = &self.away else { return };
        if !self.stage.runs() || self.stage.shared.now().mono_ms < since + 2_000 {
            return;
        }
        let usable_now = self.with_status(is_usable);
        let now = self.stage.shared.now();
        let away_for = now_ms - since;
        // An operator trusts what is recorded for the grace, from its start on.
        let unseen_for = now_ms - since.max(&self.stage.booted_ms);
        let really = self.stage.sim.with(|engine| self.stage.judge().settled(engine, now));
        let mut judge = self.stage.judge();
        let mut found = Vec::new();
        for (id, service) in self.town.services.iter().filter(|(id, _)| really.contains(*id)) {
            if judge.unchanged_for(id, now) < away_for + 5_000 || service.wanted() == 0 {
                continue;
            }
            let good_edges = service.edges.is_empty();
            if away_for < WITHIN_GRACE_MS && usable_then.contains(id) && !usable_now.contains(id) && good_edges && service.is_good() {
                found.push(format!("{}/{} is not usable {away_for} ms after the engine was lost", id.0, id.1));
            }
            // On a full disk nobody's status can be written.
            let is_seen_by_engine_only = matches!(service.check, super::town::Check::None | super::town::Check::Command);
            if unseen_for > AFTER_GRACE_MS && usable_now.contains(id) && is_seen_by_engine_only && !self.stage.is_full() {
                found.push(format!("{}/{} is still usable {unseen_for} ms after the engine was lost", id.0, id.1));
            }
        }
        for text in found {
            judge.violation(text);
        }
    }

    /// What is outside goes now and then, for a while.
    fn turn_outside(&mut self) {
        let mut rng = Rng::new(self.now_ms()).fork("outside");
        let namespaces: Vec<String> = self.town.annexes.keys().cloned().collect();
        if let Some(namespace) = rng.pick(&namespaces).filter(|_| rng.clone().chance(25)) {
            annex::turn(&mut self.stage, namespace, true);
            let for_ms = rng.below(70_000);
            self.after(for_ms, Due::OutsideBack(namespace.clone()));
        }
    }

    /// What callers are told now must fit together, and what is really so outside.
    fn judge_what_is_told(&mut self) {
        let told = annex::told(&self.stage);
        let (now, booted_ms) = (self.stage.shared.now(), self.stage.booted_ms);
        let mut wrong = self.users.wrong(&told, booted_ms, now.mono_ms);
        let mut judge = self.stage.judge();
        wrong.extend(judge.annexes.judge(&told, &self.town, booted_ms, now));
        for text in wrong {
            judge.violation(format!("{text}, at {} ms", now.mono_ms));
        }
    }

    fn log_statuses(&self) {
        let Some(store) = self.stage.store() else { return };
        let snapshot = store.snapshot();
        let mut line = String::from("status");
        for object in snapshot.list("MiniService", None) {
            let status = &object.status;
            line.push_str(&format!(" {}/{}={}:{}", object.key.namespace, object.key.name, status["severity"], status["reason"]));
        }
        self.stage.shared.log(&line);
    }

    /// Everything that goes wrong ends; what a person may have to say is said.
    async fn make_calm(&mut self) {
        self.stage.shared.log("== calm");
        self.stage.calm();
        self.stage.sim.set_away(false);
        self.away = None;
        self.agenda.clear();
        self.town.broken.clear();
        self.town.emptied = false;
        self.stage.is_calm = true;
        let gone: Vec<String> = self.stage.judge().annexes.gone();
        for namespace in gone {
            annex::turn(&mut self.stage, &namespace, false);
        }
        {
            let mut judge = self.stage.judge();
            judge.guarded.clear();
            judge.still.clear();
        }
        self.write();
        let now = self.stage.shared.now();
        self.stage.sim.with(|engine| meddle::clear_the_way(engine, now));
        if self.stage.runs() && self.stage.operator().is_none() {
            self.stage.kill(false);
        }
        // A process that died in its trap a moment ago is started again.
        tokio::select! {
            biased;
            () = self.stage.crashed() => self.stage.kill(false),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
        while !self.stage.runs() {
            self.stage.boot();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.stage.act("/actions/resume", because("calm")).await;
        let now = self.stage.shared.now();
        self.stage.judge().resume(now);
        self.stage.acknowledged.clear();
        self.users.leave(&mut self.stage).await;
    }
}

fn is_usable(status: &Value) -> bool {
    status["availability"].is_string() && status["severity"].as_u64().is_some_and(|severity| severity <= 3)
}

/// Whether nothing that a service reloads for, or is stopped for, may be about to change.
fn stays(town: &Town, settled: &BTreeSet<Id>, id: &Id) -> bool {
    let edges = |id: &Id| town.services.get(id).map(|s: &Service| s.edges.as_slice()).unwrap_or_default();
    let reacting = edges(id).iter().filter(|e| e.up.is_some() || e.change.is_some() || e.on_down == "Stop");
    let mut needed: Vec<&Id> = reacting.map(|e| &e.on).collect();
    while let Some(on) = needed.pop() {
        if !settled.contains(on) {
            return false;
        }
        needed.extend(edges(on).iter().map(|e| &e.on));
    }
    true
}

/// The ids of services as the store has them.
pub fn key(id: &Id) -> ObjectKey {
    ObjectKey::new("MiniService", id.0.as_str(), id.1.as_str())
}

/// Whether there is anything of ours under an owner.
pub fn has_containers(stage: &Stage, id: &Id) -> bool {
    let now = stage.shared.now();
    stage.sim.with(|engine| containers(engine, now).iter().any(|c| c.is_ours() && c.owner() == *id))
}

/// Asks the engine about its networks.
pub fn networks(stage: &Stage) -> Value {
    let now = stage.shared.now();
    stage.sim.with(|engine| ask(engine, now, "GET", "/networks", &[], &Value::Null).1)
}
