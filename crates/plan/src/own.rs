//! Owns own health: how available a service is by itself, before its dependencies are counted in (DESIGN 3.2).

use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::name::Name;
use qm_api::time::Timestamp;

use crate::desired::{DesiredContainer, DesiredJob, DesiredService, Form, HealthKind};
use crate::job::Gates;
use crate::observed::{Container, EngineHealth, Gap, Health, Report, RunState, ServiceView};

/// What went wrong when we last acted for a service, while it still stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of thing.
    pub reason: Reason,
    /// In words.
    pub message: String,
    /// Only a change by a person can help.
    pub terminal: bool,
}

/// How available a service is by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// Off by configuration: off the scale.
    Off(Reason),
    /// It cannot be observed now; evidence of nothing.
    Unseen {
        /// `Unknown` or `EngineUnreachable`.
        reason: Reason,
        /// In words.
        message: String,
    },
    /// Never observed by this process.
    Pending,
    /// Observed.
    Seen {
        /// How available.
        availability: Availability,
        /// Why.
        reason: Reason,
        /// Why, for people.
        message: String,
    },
}

impl Own {
    /// A seen own health.
    pub fn seen(availability: Availability, reason: Reason, message: impl Into<String>) -> Self {
        Self::Seen { availability, reason, message: message.into() }
    }
}

/// Whether a container of a service is healthy.
pub fn is_healthy(desired: &DesiredContainer, container: &Container, health: Option<&Health>) -> bool {
    if container.state != RunState::Running {
        return false;
    }
    match desired.health.as_ref().map(|h| &h.kind) {
        None | Some(HealthKind::Image) => matches!(container.engine_health, EngineHealth::None | EngineHealth::Healthy),
        Some(_) => matches!(health, Some(Health::Healthy { .. })),
    }
}

/// The first healthy moment of a container since its last start, where it is known. Where running is healthy, it is the start.
pub fn healthy_at(desired: &DesiredContainer, container: &Container, health: Option<&Health>) -> Option<Timestamp> {
    match (desired.health.as_ref().map(|h| &h.kind), health) {
        (_, Some(Health::Healthy { since })) => Some(*since),
        (_, Some(Health::Unhealthy { healthy_at, .. })) => *healthy_at,
        (None, _) if container.engine_health == EngineHealth::None && container.state == RunState::Running => container.started_at,
        _ => None,
    }
}

/// Counts of replicas: wanted, running, healthy. Two containers of one slot count once.
pub fn replicas(desired: &DesiredService, view: &ServiceView) -> qm_api::kinds::mini_service::Replicas {
    let mut counts = qm_api::kinds::mini_service::Replicas { wanted: desired.wanted_replicas(), ..Default::default() };
    let Some(spec) = desired.replicated() else { return counts };
    for slot in 1..=counts.wanted {
        let mut of_slot = view.containers.iter().filter(|c| c.stamp.as_ref().is_some_and(|s| s.slot == slot)).peekable();
        if of_slot.peek().is_none() {
            continue;
        }
        let (mut running, mut healthy) = (false, false);
        for container in of_slot {
            running |= container.state == RunState::Running;
            healthy |= is_healthy(spec, container, view.health.get(&container.id));
        }
        counts.running += u32::from(running);
        counts.healthy += u32::from(healthy);
    }
    counts
}

/// Own health of a service, from what was observed of it.
pub fn own_health(desired: &DesiredService, view: &ServiceView, trouble: Option<&Trouble>) -> Own {
    if let Some(reason) = desired.off {
        return Own::Off(reason);
    }
    match &desired.form {
        Form::External(_) => match view.gaps.first() {
            Some(Gap::Thing { message, .. } | Gap::Engine { message, .. }) => {
                Own::Unseen { reason: Reason::Unknown, message: format!("it cannot be asked: {message}") }
            }
            None => external_health(view.health.get("")),
        },
        Form::Logical(logical) => reported_health(&logical.reported_by, view.report.as_ref()),
        Form::Job(job) => job_health(job, desired, view, trouble),
        Form::Container(spec) => container_health(desired, spec, view, trouble),
    }
}

/// The key under which an external service's probe result stands in [`ServiceView::health`].
pub fn external_probe_id() -> Name {
    Name::default()
}

fn reported_health(reporter: &Name, report: Option<&Report>) -> Own {
    match report {
        None => Own::Pending,
        Some(Report::Says { availability, message }) => Own::seen(*availability, Reason::Reported, message.clone()),
        Some(Report::Silent { patience_ms }) => {
            let message = format!("{reporter} has not reported for {} s", patience_ms / 1_000);
            Own::seen(Availability::TemporarilyUnavailable, Reason::Silent, message)
        }
    }
}

fn external_health(health: Option<&Health>) -> Own {
    match health {
        None | Some(Health::Starting | Health::Unprobed) => Own::Pending,
        Some(Health::Healthy { .. }) => Own::seen(Availability::Available, Reason::Healthy, "the probe succeeds"),
        Some(Health::Unhealthy { message, .. }) => Own::seen(Availability::TemporarilyUnavailable, Reason::ProbeFailed, message.clone()),
    }
}

/// Own health of a job: its record tells, and where it tells of success or failure nobody has to see the engine for it.
fn job_health(job: &DesiredJob, desired: &DesiredService, view: &ServiceView, trouble: Option<&Trouble>) -> Own {
    let Some(standing) = &view.job else { return Own::Pending };
    if desired.deleting {
        return Own::seen(Availability::TemporarilyUnavailable, Reason::Deleting, "it is being deleted");
    }
    let told = Own::seen(standing.availability, standing.reason, standing.message.clone());
    match (standing.gates, trouble) {
        (Gates::Nothing, _) | (Gates::Nobody, None) => told,
        // Nobody waits for a scheduled job; that its next run is in trouble is told all the same.
        (Gates::Nobody, Some(trouble)) => Own::seen(Availability::PartiallyAvailable, trouble.reason, trouble.message.clone()),
        (Gates::Running, _) if !view.gaps.is_empty() => container_health(desired, &job.container, view, None),
        (Gates::Running, Some(trouble)) => {
            let availability = if trouble.terminal { Availability::Unavailable } else { Availability::TemporarilyUnavailable };
            Own::seen(availability, trouble.reason, trouble.message.clone())
        }
        (Gates::Running, None) => told,
    }
}

fn container_health(desired: &DesiredService, spec: &DesiredContainer, view: &ServiceView, trouble: Option<&Trouble>) -> Own {
    if let Some(Gap::Engine { message, .. }) = view.gaps.iter().find(|g| matches!(g, Gap::Engine { .. })) {
        if message.is_empty() {
            return Own::Pending;
        }
        if let Some(message) = all_probes_fail(spec, view) {
            return Own::seen(Availability::TemporarilyUnavailable, Reason::Unhealthy, message);
        }
        return Own::Unseen { reason: Reason::EngineUnreachable, message: message.clone() };
    }
    if let Some(Gap::Thing { id, message }) = view.gaps.first() {
        return Own::Unseen { reason: Reason::Unknown, message: format!("{id}: {message}") };
    }
    let counts = replicas(desired, view);
    let of = format!("{} of {} replicas healthy", counts.healthy, counts.wanted);
    if desired.deleting {
        return Own::seen(Availability::TemporarilyUnavailable, Reason::Deleting, "it is being deleted");
    }
    if counts.healthy >= counts.wanted {
        return Own::seen(Availability::Available, Reason::Healthy, of);
    }
    // Containers that ran before this process and were not checked by it yet say nothing, good or bad.
    let is_probed_by_us = !matches!(spec.health.as_ref().map(|h| &h.kind), None | Some(HealthKind::Image));
    let is_unprobed = |c: &std::sync::Arc<Container>| is_probed_by_us && view.health.get(&c.id) == Some(&Health::Unprobed);
    if trouble.is_none() && view.containers.iter().any(is_unprobed) {
        return Own::Pending;
    }
    if counts.healthy > 0 {
        return Own::seen(Availability::PartiallyAvailable, Reason::SomeReplicasHealthy, of);
    }
    none_healthy(spec, view, trouble)
}

/// Our own direct probes go on counting while the engine is away: when they all fail, that is an observed loss.
fn all_probes_fail(spec: &DesiredContainer, view: &ServiceView) -> Option<String> {
    let is_direct = matches!(spec.health.as_ref().map(|h| &h.kind), Some(HealthKind::Tcp { .. } | HealthKind::Http { .. }));
    let failing = |c: &std::sync::Arc<Container>| match view.health.get(&c.id) {
        Some(Health::Unhealthy { message, .. }) => Some(message.clone()),
        _ => None,
    };
    let messages: Vec<String> = view.containers.iter().filter_map(failing).collect();
    (is_direct && !messages.is_empty() && messages.len() == view.containers.len()).then(|| messages[0].clone())
}

fn none_healthy(spec: &DesiredContainer, view: &ServiceView, trouble: Option<&Trouble>) -> Own {
    if let Some(trouble) = trouble {
        let availability = if trouble.terminal { Availability::Unavailable } else { Availability::TemporarilyUnavailable };
        return Own::seen(availability, trouble.reason, trouble.message.clone());
    }
    let four = |reason, message: String| Own::seen(Availability::TemporarilyUnavailable, reason, message);
    // The most advanced container tells most about why none is healthy.
    let rank = |c: &Container| match c.state {
        RunState::Running => 0,
        RunState::Restarting => 1,
        RunState::Paused => 2,
        RunState::Exited | RunState::Dead => 3,
        RunState::Created => 4,
        RunState::Removing => 5,
    };
    let Some(best) = view.containers.iter().min_by_key(|c| (rank(c), c.created_at, c.id.clone())) else {
        return four(Reason::Creating, "no container yet".to_owned());
    };
    match best.state {
        RunState::Running => match view.health.get(&best.id) {
            Some(Health::Unhealthy { message, .. }) => four(Reason::Unhealthy, message.clone()),
            _ if best.engine_health == EngineHealth::Unhealthy && declares_image_health(spec) => {
                four(Reason::Unhealthy, "the image's HEALTHCHECK fails".to_owned())
            }
            _ => four(Reason::Starting, "runs, not healthy yet".to_owned()),
        },
        RunState::Restarting => four(Reason::Exited, format!("ended with code {}, the engine restarts it", best.exit_code)),
        RunState::Paused => four(Reason::NotRunning, "it is paused".to_owned()),
        RunState::Exited | RunState::Dead => four(Reason::Exited, exit_message(best)),
        RunState::Created => four(Reason::Starting, "created, not started yet".to_owned()),
        RunState::Removing => four(Reason::Creating, "the old container is being removed".to_owned()),
    }
}

fn declares_image_health(spec: &DesiredContainer) -> bool {
    matches!(spec.health.as_ref().map(|h| &h.kind), None | Some(HealthKind::Image))
}

fn exit_message(container: &Container) -> String {
    match container.error.as_str() {
        "" => format!("ended with code {}", container.exit_code),
        error => format!("ended with code {}: {error}", container.exit_code),
    }
}
