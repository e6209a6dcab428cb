//! HEALTHCHECK: probes in virtual time, and what follows from them.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use super::Engine;
use super::container::{Health, HealthStatus, Phase, Probe};
use super::create::{number, strings};
use super::life::Timer;
use crate::Now;

impl Engine {
    pub(crate) fn begin_health(&mut self, id: &Arc<str>, now: Now) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let check = container.config.get("Healthcheck").and_then(Value::as_object);
        let test = strings(check.and_then(|c| c.get("Test")));
        let Some(check) = check.filter(|_| test.first().is_some_and(|t| t == "CMD" || t == "CMD-SHELL")) else {
            container.health = None;
            return;
        };
        let ms = |key: &str, default: u64| match number(check, key) {
            ns if ns > 0 => ns.unsigned_abs() / 1_000_000,
            _ => default,
        };
        let log = container.health.take().map_or_else(VecDeque::new, |h| h.log);
        let health = Health {
            status: HealthStatus::Starting,
            streak: 0,
            log,
            interval_ms: ms("Interval", 30_000).max(1),
            start_period_ms: ms("StartPeriod", 0),
            retries: u64::try_from(number(check, "Retries")).ok().filter(|r| *r > 0).unwrap_or(3),
            test,
        };
        let (due, epoch) = (now.mono_ms.saturating_add(health.interval_ms), container.epoch);
        container.health = Some(Box::new(health));
        self.time(due, Timer::Probe { id: id.clone(), epoch });
    }

    /// One run of the HEALTHCHECK.
    pub(crate) fn probe(&mut self, id: &Arc<str>, now: Now) {
        let Some(container) = self.containers.get(id) else { return };
        let Some(health) = container.health.as_ref() else { return };
        let (epoch, interval) = (container.epoch, health.interval_ms);
        if container.phase == Phase::Running {
            let command = match health.test.first().map(String::as_str) {
                Some("CMD-SHELL") => ["/bin/sh", "-c"].into_iter().map(str::to_owned).chain(health.test.iter().skip(1).cloned()).collect(),
                _ => health.test.get(1..).unwrap_or(&[]).to_vec(),
            };
            let well = container.well(now.mono_ms);
            let exec = self.hex_id();
            self.exec_events(id, &exec, &command, now);
            let (code, output) = if well { self.run_in(id, &command) } else { (1, String::new()) };
            self.exec_died(id, &exec, code, now);
            self.judge_health(id, code, output, now);
        }
        self.time(now.mono_ms.saturating_add(interval), Timer::Probe { id: id.clone(), epoch });
    }

    fn judge_health(&mut self, id: &Arc<str>, code: i64, output: String, now: Now) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let age = now.mono_ms.saturating_sub(container.started_ms);
        let Some(health) = container.health.as_mut() else { return };
        health.log.push_back(Probe { at_ns: now.wall_ns, code, output });
        if health.log.len() > 5 {
            health.log.pop_front();
        }
        let before = health.status;
        if code == 0 {
            health.streak = 0;
            health.status = HealthStatus::Healthy;
        } else if !(before == HealthStatus::Starting && age < health.start_period_ms) {
            health.streak += 1;
            if health.streak >= health.retries {
                health.status = HealthStatus::Unhealthy;
            }
        }
        let after = health.status;
        self.version += 1;
        if before != after {
            self.container_event(id, &format!("health_status: {}", after.word()), Vec::new(), now);
        }
    }
}
