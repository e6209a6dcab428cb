//! What the API server may ask of a running operator, put together. Mapping only.

use std::sync::Arc;

use qm_api::meta::ObjectKey;
use qm_apiserver as api;
use qm_controller::clock::Clock;
use qm_controller::locks::face::{LockReason, LockRequest};
use qm_controller::ports::{ActRequest, AskError};
use qm_controller::reports::Heartbeat;
use qm_controller::run::Operator;
use qm_controller::usable::UsableAnswer;
use serde_json::Value;

use crate::intake::candidate;

/// The ports of the API server onto `operator`.
pub fn ports(operator: &Arc<Operator>, clock: &Clock) -> api::Ports {
    let acting = operator.clone();
    let (planning, locking) = (operator.clone(), operator.clone());
    let (usable_all, changes, reloads, beating) = (operator.clone(), operator.clone(), operator.clone(), operator.clone());
    let (graph, overview, usable, logs, ready) = (operator.clone(), operator.clone(), operator.clone(), operator.clone(), operator.clone());
    let (now, version) = (clock.clone(), env!("CARGO_PKG_VERSION").to_owned());
    let started = clock.wall();
    let shown = version.clone();
    api::Ports {
        act: Arc::new(move |r: api::ActRequest| {
            let operator = acting.clone();
            Box::pin(async move {
                let request = ActRequest {
                    act: r.act,
                    scope: r.scope,
                    actor: r.actor,
                    reason: r.reason,
                    until: r.until,
                    step_hash: r.step_hash,
                    to: r.to,
                };
                operator.act(request).await.map_err(port_error)
            })
        }),
        plan: Arc::new(move |request: api::PlanRequest| {
            let operator = planning.clone();
            Box::pin(async move {
                let plan = match request.sources.is_empty() {
                    true => operator.plan(),
                    false => operator.plan_with(request.sources.iter().map(candidate).collect()).await.map_err(port_error)?,
                };
                Ok(api::PlanAnswer { plan: plan.to_json(), text: plan.to_string() })
            })
        }),
        graph: Arc::new(move || graph.graph()),
        overview: Arc::new(move || {
            let mut overview = overview.overview();
            overview["version"] = shown.clone().into();
            overview["startedAt"] = Value::String(started.to_string());
            overview
        }),
        usable: Arc::new(move |namespace: &str, name: &str, operation: Option<&str>| {
            Some(usable_answer(usable.usable(namespace, name, operation)?))
        }),
        usable_all: Arc::new(move |namespace: &str| {
            let (version, answers) = usable_all.usable_all(namespace);
            (version, answers.into_iter().map(usable_answer).collect())
        }),
        changes: Arc::new(move || changes.changes()),
        reloads: Arc::new(move |namespace: &str| reloads.reloads(namespace)),
        heartbeat: Arc::new(move |r: api::HeartbeatRequest| {
            let operator = beating.clone();
            Box::pin(async move {
                let key = ObjectKey::new("MiniService", r.namespace.as_str(), r.name.as_str());
                let heartbeat = Heartbeat {
                    availability: r.availability,
                    reason: r.reason,
                    blocked_operations: r.blocked_operations.into_iter().collect(),
                    ack: r.ack,
                };
                operator.controller.heartbeat(&key, heartbeat).await.map_err(port_error)
            })
        }),
        lock: Arc::new(move |r: api::LockRequest| {
            let operator = locking.clone();
            Box::pin(async move { operator.lock(&r.namespace, &r.name, lock_request(r.act)).await.map_err(port_error) })
        }),
        logs: Arc::new(move |r: api::LogRequest| {
            let key = ObjectKey::new("MiniService", r.namespace.as_str(), r.name.as_str());
            let opened = logs.logs(&key, r.slot, r.follow, r.tail_lines, r.timestamps).map_err(port_error);
            Box::pin(async move { opened })
        }),
        ready: Arc::new(move || {
            let reasons = ready.unready();
            if reasons.is_empty() { Ok(()) } else { Err(reasons) }
        }),
        now: Arc::new(move || now.wall()),
        version,
    }
}

fn usable_answer(answer: UsableAnswer) -> api::Usable {
    let UsableAnswer { service, facts, version, usable, retry_after_seconds } = answer;
    api::Usable { service: service.to_string(), facts, version, usable, retry_after_seconds }
}

fn lock_request(act: api::LockAct) -> LockRequest {
    match act {
        api::LockAct::Acquire { mode, holder, wait_ms, term_ms } => LockRequest::Acquire { mode, holder, wait_ms, term_ms },
        api::LockAct::Renew { holder, token, mode } => LockRequest::Renew { holder, token, mode },
        api::LockAct::Release { holder, token } => LockRequest::Release { holder, token },
        api::LockAct::Check { token } => LockRequest::Check { token },
        api::LockAct::Show => LockRequest::Show,
    }
}

fn port_error(error: AskError) -> api::PortError {
    match error {
        AskError::NotFound(text) => api::PortError::NotFound(text),
        AskError::Invalid(message) => api::PortError::Invalid { message, violations: Vec::new() },
        AskError::NotSupported(text) => api::PortError::NotSupported(text),
        AskError::Locked { reason, message, retry_after_seconds } => {
            let reason = match reason {
                LockReason::Changing => api::LockReason::Changing,
                LockReason::InUse => api::LockReason::InUse,
                LockReason::Stale => api::LockReason::Stale,
            };
            api::PortError::Locked { reason, message, retry_after_seconds }
        }
        AskError::Unavailable(message) => api::PortError::Unavailable { message, retry_after_seconds: Some(5) },
        AskError::Violations(violations) => api::PortError::Invalid { message: "the manifests are not valid".to_owned(), violations },
        AskError::Store(error) => api::PortError::Unavailable { message: error.to_string(), retry_after_seconds: Some(1) },
    }
}
