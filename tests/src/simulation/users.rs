//! Processes that use services and change them: they hold leases, renew them or forget to, and are never let in together with whom they
//! exclude.

use std::collections::BTreeMap;

use serde_json::json;

use super::annex::Told;
use super::rng::Rng;
use super::stage::Stage;
use super::town::{Id, Town};

/// The term of a `use`, and the one that is asked for with a `change`, in milliseconds.
const TERM_MS: u64 = 15_000;
/// So often one renews what it holds; then it gives it back. Less than what the operator waits for users.
const MOST_RENEWALS: u32 = 8;

/// What one holds.
#[derive(Clone, Debug)]
struct Held {
    on: Id,
    mode: &'static str,
    token: u64,
    /// Until then nobody may have been let in who is excluded, in milliseconds.
    until_ms: u64,
    /// Since when it is held.
    since_ms: u64,
    renewals: u32,
}

/// Some processes.
#[derive(Debug, Default)]
pub struct Users {
    held: [Option<Held>; 3],
    /// The highest token of a change of each service.
    highest: BTreeMap<Id, u64>,
}

impl Users {
    /// The store that knew of leases is lost.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Everybody gives back what it holds.
    pub async fn leave(&mut self, stage: &mut Stage) {
        for n in 0..self.held.len() {
            self.release(stage, n).await;
        }
    }

    /// Each does something, or nothing.
    pub async fn act(&mut self, stage: &mut Stage, town: &Town) {
        let mut rng = Rng::new(stage.shared.now().mono_ms).fork("users");
        for n in 0..self.held.len() {
            let now = stage.shared.now().mono_ms;
            let Some(held) = self.held[n].clone() else {
                if rng.chance(20) {
                    self.acquire(stage, town, n, &mut rng).await;
                }
                continue;
            };
            if held.until_ms <= now {
                self.held[n] = None;
            } else if held.renewals >= MOST_RENEWALS || rng.chance(20) {
                self.release(stage, n).await;
            } else if rng.chance(40) {
                self.renew(stage, n, held).await;
            }
        }
    }

    async fn acquire(&mut self, stage: &mut Stage, town: &Town, n: usize, rng: &mut Rng) {
        let ids: Vec<&Id> = town.services.keys().collect();
        let Some(on) = rng.pick(&ids).map(|id| (*id).clone()) else { return };
        let mode = if rng.chance(70) { "use" } else { "change" };
        let mut body = json!({ "mode": mode, "holder": format!("user-{n}"), "waitMs": if rng.chance(70) { 0 } else { 1_500 } });
        if mode == "change" {
            body["termMs"] = TERM_MS.into();
        }
        let asked_ms = stage.shared.now().mono_ms;
        let (status, answer) = stage.api("POST", &path(&on, ""), Some(body)).await;
        let Some(token) = answer["token"].as_u64().filter(|_| status == 201) else { return };
        let now = stage.shared.now().mono_ms;
        let excluded = self.held.iter().flatten().find(|h| h.on == on && (h.mode == "change" || mode == "change") && h.until_ms > now);
        if let Some(other) = excluded {
            let text = format!(
                "{}/{}: a {mode} is granted at {now} ms while somebody has a {} until {} ms",
                on.0, on.1, other.mode, other.until_ms
            );
            stage.judge().violation(text);
        }
        if mode == "change" {
            let highest = self.highest.entry(on.clone()).or_default();
            if token <= *highest {
                stage.judge().violation(format!("{}/{}: the token {token} comes after {highest}", on.0, on.1));
            }
            *highest = token;
        }
        self.held[n] = Some(Held { on, mode, token, until_ms: asked_ms + TERM_MS, since_ms: now, renewals: 0 });
    }

    async fn renew(&mut self, stage: &mut Stage, n: usize, held: Held) {
        let asked_ms = stage.shared.now().mono_ms;
        let body = json!({ "holder": format!("user-{n}"), "token": held.token });
        let (status, _) = stage.api("POST", &path(&held.on, "/renew"), Some(body)).await;
        match status {
            200 => self.held[n] = Some(Held { until_ms: asked_ms + TERM_MS, renewals: held.renewals + 1, ..held }),
            // It is told that it holds it no more.
            404 | 409 => self.held[n] = None,
            // Nobody heard of it: it holds it as long as it knew before.
            _ => {}
        }
    }

    async fn release(&mut self, stage: &mut Stage, n: usize) {
        if let Some(held) = self.held[n].take() {
            let body = json!({ "holder": format!("user-{n}"), "token": held.token });
            stage.api("POST", &path(&held.on, "/release"), Some(body)).await;
        }
    }

    /// What somebody changes is not used.
    pub fn wrong(&self, told: &BTreeMap<Id, Told>, booted_ms: u64, now_ms: u64) -> Vec<String> {
        let is_changed = |held: &&Held| held.mode == "change" && held.until_ms > now_ms && held.since_ms.max(booted_ms) < now_ms;
        let held = self.held.iter().flatten().filter(is_changed);
        held.filter(|held| told.get(&held.on).is_some_and(|of| of.may_be_used()))
            .map(|held| format!("{}/{} is usable while user holds its change until {} ms", held.on.0, held.on.1, held.until_ms))
            .collect()
    }
}

fn path(on: &Id, verb: &str) -> String {
    format!("/apis/quaymaster.dev/v1alpha1/namespaces/{}/miniservices/{}/lock{verb}", on.0, on.1)
}
