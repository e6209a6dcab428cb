//! The rules of reloads and of stops for a lost dependency, judged from what really happened to containers: nobody reloads unless
//! something that he needs stirred since he was started or signalled, and nobody is stopped for a dependency that was well all along.

use std::collections::{BTreeMap, BTreeSet};

use qm_dockersim::{Engine, Now};
use serde_json::Value;

use super::annex::OUTSIDE;
use super::judge::{Real, ask, is_healthy};
use super::town::{Id, Town};

/// How old the operator's picture of health may be, in milliseconds.
const PICTURE_MS: u64 = 75_000;
/// How late the engine's events may come, in milliseconds.
const LATE_MS: u64 = 10_000;
/// What happens in the same moment has no order, in milliseconds.
const MOMENT_MS: u64 = 1_500;

/// One life of a container: from a start to the next.
type Life = (String, String);

/// What has been seen of everybody.
#[derive(Debug, Default)]
pub struct Stirs {
    /// The lives that were there at the last look, by service, with whether each ran.
    lives: BTreeMap<Id, BTreeSet<(Life, bool)>>,
    /// When each life was first seen running.
    began: BTreeMap<Life, u64>,
    /// When each service last changed in any way: a container came, went, started, stopped, fell ill or got well, or its manifest changed.
    stirred_at: BTreeMap<Id, u64>,
    /// When each service last had nobody healthy.
    unhealthy_at: BTreeMap<Id, u64>,
    healthy: BTreeSet<Id>,
    /// When each life was last sent a signal.
    signalled_at: BTreeMap<Life, u64>,
    /// When the operator last started: what it did a moment before may not have been recorded.
    pub booted_at: u64,
}

impl Stirs {
    /// Looks at everybody.
    pub fn look(&mut self, engine: &mut Engine, town: &Town, all: &[Real], now: Now) {
        let mut lives: BTreeMap<Id, BTreeSet<(Life, bool)>> = BTreeMap::new();
        let mut healthy = BTreeSet::new();
        for container in all.iter().filter(|c| c.is_ours()) {
            let life = life(engine, container, now);
            if container.state == "running" {
                self.began.entry(life.clone()).or_insert(now.mono_ms);
            }
            let id = container.owner();
            if town.services.get(&id).is_some_and(|service| is_healthy(engine, now, service, container)) {
                healthy.insert(id.clone());
            }
            lives.entry(id).or_default().insert((life, container.state == "running"));
        }
        let ids: BTreeSet<Id> = lives.keys().chain(self.lives.keys()).chain(town.services.keys()).cloned().collect();
        for id in ids {
            if lives.get(&id) != self.lives.get(&id) || healthy.contains(&id) != self.healthy.contains(&id) {
                self.stirred_at.insert(id.clone(), now.mono_ms);
            }
            if !healthy.contains(&id) {
                self.unhealthy_at.insert(id, now.mono_ms);
            }
        }
        (self.lives, self.healthy) = (lives, healthy);
    }

    /// The manifests say something else of a service.
    pub fn changed(&mut self, id: &Id, now: Now) {
        self.stirred_at.insert(id.clone(), now.mono_ms);
    }

    /// The answer to a signal did not come: it is sent once more.
    pub fn signal_lost(&mut self, path: &str) {
        self.signalled_at.retain(|(container, _), _| !path.contains(container.as_str()));
    }

    /// What has no containers is down.
    pub fn is_down(&mut self, id: &Id, now: Now) {
        self.unhealthy_at.insert(id.clone(), now.mono_ms);
    }

    /// Before a restart or a signal: what is wrong about it.
    pub fn before_reload(&mut self, engine: &mut Engine, town: &Town, container: &Real, verb: &str, now: Now) -> Option<String> {
        let owner = container.owner();
        let service = town.services.get(&owner)?;
        let of = format!("{}/{}", owner.0, owner.1);
        let reacting: Vec<&Id> = service.edges.iter().filter(|e| e.up.is_some() || e.change.is_some()).map(|e| &e.on).collect();
        let mut needed = reacting.clone();
        if needed.is_empty() {
            return Some(format!("{of} gets a {verb} and no edge asks for it"));
        }
        let life = life(engine, container, now);
        let began = self.began.get(&life).copied().unwrap_or(now.mono_ms);
        // Where the news of it comes late the operator does not know yet that it has been started since.
        let began = if began + LATE_MS > now.mono_ms { began.saturating_sub(LATE_MS) } else { began };
        let last = self.signalled_at.get(&life).copied().unwrap_or(began).max(began);
        if verb == "kill" {
            // One that was sent and not recorded is sent once more.
            let was_recorded = self.signalled_at.insert(life, now.mono_ms).is_none_or(|at| self.booted_at + MOMENT_MS < at);
            if !was_recorded {
                return None;
            }
        }
        let mut seen: BTreeSet<&Id> = needed.iter().copied().collect();
        while let Some(id) = needed.pop() {
            if self.stirred_at.get(id).is_some_and(|at| at + MOMENT_MS >= last) {
                return None;
            }
            let edges = town.services.get(id).map(|s| s.edges.as_slice()).unwrap_or_default();
            needed.extend(edges.iter().map(|e| &e.on).filter(|on| seen.insert(on)));
        }
        Some(format!("{of} gets a {verb} and nothing that it needs has stirred since {last} ms"))
    }

    /// Before a healthy container is stopped that nothing takes the place of: whether a lost dependency is the reason. `None` = no edge
    /// stops it; else what is wrong about it, if anything.
    pub fn before_stop(&self, town: &Town, owner: &Id, now: Now) -> Option<Result<(), String>> {
        let service = town.services.get(owner)?;
        let stops: Vec<&Id> = service.edges.iter().filter(|e| e.on_down == "Stop").map(|e| &e.on).collect();
        if stops.is_empty() {
            return None;
        }
        let mut needed = stops.clone();
        let mut seen: BTreeSet<&Id> = stops.iter().copied().collect();
        while let Some(id) = needed.pop() {
            let is_gone = id.1 != OUTSIDE && town.services.get(id).is_none_or(|s| s.wanted() == 0);
            if is_gone || self.unhealthy_at.get(id).is_some_and(|at| at + PICTURE_MS >= now.mono_ms) {
                return Some(Ok(()));
            }
            let edges = town.services.get(id).map(|s| s.edges.as_slice()).unwrap_or_default();
            needed.extend(edges.iter().filter(|e| e.on_down != "Ignore").map(|e| &e.on).filter(|on| seen.insert(on)));
        }
        Some(Err(format!("{}/{} is stopped for a dependency that was well all along", owner.0, owner.1)))
    }
}

fn life(engine: &mut Engine, container: &Real, now: Now) -> Life {
    let (_, found) = ask(engine, now, "GET", &format!("/containers/{}/json", container.id), &[], &Value::Null);
    (container.id.clone(), found["State"]["StartedAt"].as_str().unwrap_or_default().to_owned())
}
