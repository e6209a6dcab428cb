//! Plays a drill on the stage: what is done at its time, what is expected judged at its time, and the end when nothing changes any more.

use std::time::Duration;

use qm_api::kinds::intent;
use qm_api::meta::ObjectKey;

use super::bind::shown;
use super::expect::{Unmet, judge};
use super::format::{Act, At, Drill, Spot, Start, Verb, What};
use super::stage::Stage;
use super::timeline::{Happened, Timeline, clock};
use qm_controller::apply::SourceInput;

/// How long everything may take to come up, in milliseconds.
const COMES_UP_MS: u64 = 1_800_000;
/// How long it must have been up before the drill begins, in milliseconds: until then a failure would be that of a rollout.
const PROVEN_MS: u64 = 65_000;
/// When nothing has changed for so long, in milliseconds, nothing will: longer than any pause between two tries, and than the windows of
/// budgets, which are ten minutes.
const SETTLED_MS: u64 = 660_000;
/// How long it may take after the last act until nothing changes, in milliseconds.
const SETTLES_MS: u64 = 3_600_000;
/// How much is waited at once, in milliseconds.
const STEP_MS: u64 = 1_000;

/// What has come of a drill.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) failures: Vec<Failure>,
    pub(crate) timeline: Timeline,
    /// How long it took in virtual time, in milliseconds.
    pub(crate) lasted_ms: u64,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) at_ms: u64,
    /// It was expected of the end.
    pub(crate) at_end: bool,
    pub(crate) unmet: Unmet,
    /// Where in the drill it is expected.
    pub(crate) spot: Option<Spot>,
}

/// Plays it. `inputs` = the manifests.
pub(crate) async fn play(stage: Stage, drill: &Drill<ObjectKey>, inputs: Vec<SourceInput>) -> Outcome {
    let mut play = Play { stage, failures: Vec::new(), agenda: Vec::new(), quiet_since_ms: None };
    match drill.given.start {
        Start::Warm => {
            play.stage.want(inputs);
            if play.come_up().await {
                play.stage.begin(false);
                play.steps(drill, None).await;
            }
        }
        Start::Cold => {
            play.stage.begin(true);
            play.steps(drill, Some(inputs)).await;
        }
    }
    let lasted_ms = play.quiet_since_ms.unwrap_or_else(|| play.stage.at_ms());
    Outcome { failures: play.failures, timeline: play.stage.into_timeline(), lasted_ms }
}

struct Play {
    stage: Stage,
    failures: Vec<Failure>,
    /// What ends by itself, and when, in milliseconds since the beginning.
    agenda: Vec<(u64, ObjectKey, Ends)>,
    /// Since when nothing has changed any more, in milliseconds since the beginning.
    quiet_since_ms: Option<u64>,
}

/// What ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Down,
    Slow,
    Block,
}

impl Play {
    fn fail(&mut self, at_end: bool, on: Vec<ObjectKey>, expected: String, found: String) {
        // The end is when nothing changed any more, not when that was sure.
        let at_ms = self.quiet_since_ms.filter(|_| at_end).unwrap_or_else(|| self.stage.at_ms());
        self.failures.push(Failure { at_ms, at_end, unmet: Unmet { on, expected, found }, spot: None });
    }

    /// Waits until everything has been usable for long enough; says what is not.
    async fn come_up(&mut self) -> bool {
        loop {
            let now = self.stage.at_ms();
            let down = self.not_usable();
            if down.is_empty() && !self.stage.timeline().nodes().is_empty() && now >= self.stage.changed_ms() + PROVEN_MS {
                return true;
            }
            if now >= COMES_UP_MS {
                let found: Vec<String> = down.iter().map(|(key, words)| format!("{} is {words}", shown(key))).collect();
                let found = if found.is_empty() { format!("it still changes after {}", clock(now)) } else { found.join("; ") };
                let on = down.into_iter().map(|(key, _)| key).collect();
                self.fail(false, on, "everything comes up before the drill begins".to_owned(), found);
                return false;
            }
            self.stage.pass_until(now + STEP_MS).await;
        }
    }

    fn not_usable(&self) -> Vec<(ObjectKey, String)> {
        let timeline = self.stage.timeline();
        let standings = timeline.nodes().into_iter().filter_map(|key| Some((key, timeline.standing(key)?)));
        standings.filter(|(_, s)| s.availability.is_some() && !s.usable).map(|(key, s)| (key.clone(), s.words())).collect()
    }

    async fn steps(&mut self, drill: &Drill<ObjectKey>, mut inputs: Option<Vec<SourceInput>>) {
        let (mut settled, mut last_ms) = (false, 0);
        for step in &drill.steps {
            match step.at {
                At::Ms(at_ms) => {
                    // What is done at the very beginning is done before anything is there.
                    if at_ms > 0 || matches!(step.what, What::Expect(_)) {
                        inputs.take().into_iter().for_each(|inputs| self.stage.want(inputs));
                    }
                    self.pass_until(at_ms).await;
                    last_ms = at_ms;
                }
                At::End => {
                    inputs.take().into_iter().for_each(|inputs| self.stage.want(inputs));
                    if !settled {
                        self.settle(last_ms).await;
                    }
                    settled = true;
                }
            }
            match &step.what {
                What::Do(acts) => {
                    for act in acts {
                        self.act(act).await;
                    }
                }
                What::Expect(expected) => {
                    self.stage.look();
                    let at_ms = self.stage.at_ms();
                    for one in expected {
                        if let Err(unmet) = judge(&one.what, self.stage.timeline(), at_ms) {
                            let spot = Some(one.at.clone());
                            let at_ms = self.quiet_since_ms.filter(|_| step.at == At::End).unwrap_or(at_ms);
                            self.failures.push(Failure { at_ms, at_end: step.at == At::End, unmet, spot });
                        }
                    }
                }
            }
        }
    }

    /// Lets time pass, and ends what ends by itself on the way.
    async fn pass_until(&mut self, at_ms: u64) {
        loop {
            let next = (0..self.agenda.len()).min_by_key(|i| self.agenda[*i].0).filter(|i| self.agenda[*i].0 <= at_ms);
            let Some(next) = next else { break };
            let (due, key, ends) = self.agenda.remove(next);
            self.stage.pass_until(due).await;
            self.end(&key, ends);
        }
        self.stage.pass_until(at_ms).await;
    }

    /// Waits until all that was done has ended and nothing has changed for a while.
    async fn settle(&mut self, last_ms: u64) {
        let last_ms = self.agenda.iter().map(|(at, ..)| *at).max().unwrap_or_default().max(last_ms);
        self.pass_until(last_ms).await;
        loop {
            let now = self.stage.at_ms();
            let quiet_since_ms = self.stage.changed_ms().max(last_ms);
            let quiet_ms = quiet_since_ms + SETTLED_MS;
            if self.stage.pending().is_none() && now >= quiet_ms {
                self.quiet_since_ms = Some(quiet_since_ms);
                return;
            }
            if now >= last_ms + SETTLES_MS {
                let recent = self.stage.timeline().entries().iter().rev().filter_map(|e| Some(format!("{} {}", shown(&e.on), e.words()?)));
                let recent: Vec<String> = recent.take(4).collect();
                let found = format!("after {} there is still: {}", clock(SETTLES_MS), recent.join("; "));
                self.fail(true, Vec::new(), "nothing changes any more".to_owned(), found);
                return;
            }
            let wake = self.stage.pending().unwrap_or(quiet_ms).clamp(now + 1, now + SETTLED_MS);
            self.pass_until(wake).await;
        }
    }

    async fn act(&mut self, act: &Act<ObjectKey>) {
        let now = self.stage.at_ms();
        self.stage.note(&act.on, &act.text);
        let mut ends = |for_ms: Option<u64>, what| {
            // What is done anew lasts as long as it says, not as long as what it takes the place of.
            self.agenda.retain(|(_, key, old)| *key != act.on || *old != what);
            self.agenda.extend(for_ms.map(|ms| (now + ms, act.on.clone(), what)));
        };
        match act.verb {
            Verb::Down { for_ms } => {
                ends(for_ms, Ends::Down);
                self.stage.afflict(&act.on, |ill| ill.down = true);
            }
            Verb::Slow { takes_ms, for_ms } => {
                ends(for_ms, Ends::Slow);
                self.stage.afflict(&act.on, |ill| ill.slow_ms = Some(takes_ms));
            }
            Verb::Crash => {
                if self.stage.crash(&act.on, 1).is_empty() {
                    self.fail(false, vec![act.on.clone()], act.text.clone(), "it has no container that runs".to_owned());
                }
            }
            Verb::Block { for_ms } => {
                // The operator ends it; that it is over is noted all the same.
                ends(for_ms, Ends::Block);
                self.ask(act, intent::Act::Block, for_ms).await;
            }
            Verb::Unblock => {
                ends(None, Ends::Block);
                self.ask(act, intent::Act::Unblock, None).await;
            }
            Verb::Up => {
                self.agenda.retain(|(_, key, what)| *key != act.on || *what == Ends::Block);
                self.stage.afflict(&act.on, |ill| *ill = super::cast::Ill::default());
            }
        }
    }

    async fn ask(&mut self, act: &Act<ObjectKey>, asked: intent::Act, for_ms: Option<u64>) {
        if let Err(refusal) = self.stage.act(asked, &act.on, for_ms).await {
            self.fail(false, vec![act.on.clone()], act.text.clone(), refusal);
        }
    }

    fn end(&mut self, key: &ObjectKey, ends: Ends) {
        let word = match ends {
            Ends::Down => "down",
            Ends::Slow => "slow",
            Ends::Block => "block",
        };
        self.stage.note(key, &format!("end of {word}"));
        match ends {
            Ends::Down => self.stage.afflict(key, |ill| ill.down = false),
            Ends::Slow => self.stage.afflict(key, |ill| ill.slow_ms = None),
            Ends::Block => {}
        }
    }
}

/// Whether an entry is about what the drill did.
pub(crate) fn is_act(what: &Happened) -> bool {
    matches!(what, Happened::Act(_))
}

/// Runs a play on a runtime of its own, in virtual time.
///
/// # Errors
/// When the system gives no event loop, or the stage cannot be set.
pub(crate) fn on_stage(cast: super::cast::Cast, drill: &Drill<ObjectKey>, inputs: Vec<SourceInput>) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let outcome = runtime.block_on(async {
        let stage = Stage::open(cast, inputs.iter().map(|input| input.id.clone()).collect())?;
        Ok(play(stage, drill, inputs).await)
    });
    runtime.shutdown_timeout(Duration::ZERO);
    outcome
}
