//! The daemon's own end and beginning.

use std::sync::Arc;

use super::Engine;
use super::container::{Phase, Policy};
use super::life::{Goal, KILL, stop_signal};
use crate::Now;
use crate::behaviour::OnTerm;

impl Engine {
    /// The daemon ends and begins again. With `live_restore` containers go on; without, they end as by a stop with a generous grace, and
    /// restart policies decide who comes back.
    pub fn restart_daemon(&mut self, live_restore: bool, now: Now) {
        self.advance(now);
        self.execs.clear();
        // What the daemon was doing for somebody is lost with it.
        self.tickets.clear();
        self.version += 1;
        if live_restore {
            return;
        }
        let ids: Vec<Arc<str>> = self.ages.values().cloned().collect();
        let mut again = Vec::new();
        for id in &ids {
            let Some(container) = self.containers.get_mut(id) else { continue };
            let code = match container.script.on_term {
                OnTerm::Ignores => 128 + KILL,
                OnTerm::Ends { code, .. } => code.unwrap_or(128 + stop_signal(&container.config)),
            };
            container.after_exit.clear();
            let told = container.told_to_end;
            let waited = container.phase == Phase::Restarting;
            container.told_to_end = true;
            if container.phase.lives() {
                self.die(id, code, now);
            } else if matches!(container.phase, Phase::Restarting | Phase::Starting) {
                container.phase = if container.starts == 0 { Phase::Created } else { Phase::Exited };
                container.epoch += 1;
            }
            let Some(container) = self.containers.get_mut(id) else { continue };
            container.told_to_end = told;
            let comes_back = container.starts > 0
                && match container.policy {
                    Policy::No => false,
                    Policy::Always => true,
                    Policy::UnlessStopped => !told,
                    Policy::OnFailure(max) => container.exit_code != 0 && (waited || !told) && (max == 0 || container.restart_count < max),
                };
            if comes_back {
                again.push(id.clone());
            }
        }
        for id in again {
            if let Some(container) = self.containers.get_mut(&id) {
                (container.told_to_end, container.backoff_ms) = (false, 0);
            }
            self.launch(&id, Goal::Policy, now);
        }
    }
}
