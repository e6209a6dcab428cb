//! What others may ask of locks: by namespace and name, in plain values, so that every face of the API can serve it.

use qm_api::kinds::mini_service::KIND as SERVICE;
use qm_api::lock::LockMode;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_plan::locks::{Ask, Denied, Grant, LONGEST_CHANGE_MS, LONGEST_WAIT_MS, OPERATOR, Patience, Refusal, Stale, Token, USE_TERM_MS};
use serde_json::{Value, json};

use super::Released;
use crate::ports::AskError;
use crate::run::Operator;

/// The shortest term, in milliseconds: a shorter one could not be renewed over a busy machine.
const SHORTEST_TERM_MS: u64 = 1_000;
/// The longest name of a holder, in bytes.
const MOST_HOLDER: usize = 253;

/// Something asked of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockRequest {
    /// Take it.
    Acquire {
        /// How.
        mode: LockMode,
        /// For which process.
        holder: String,
        /// How long it may take.
        wait_ms: u64,
        /// Its term; one `use` term unless it is given.
        term_ms: Option<u64>,
    },
    /// Begin a new term.
    Renew {
        /// Which process.
        holder: String,
        /// The token of its lease.
        token: u64,
        /// What it is; a `use` that says so goes on over a restart of the operator.
        mode: Option<LockMode>,
    },
    /// Give it back.
    Release {
        /// Which process.
        holder: String,
        /// The token of its lease.
        token: u64,
    },
    /// Ask whether a token is the current one.
    Check {
        /// The token.
        token: u64,
    },
    /// Who holds it, who waits.
    Show,
}

/// Why a lock request was refused: 409, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockReason {
    /// A use met a change.
    Changing,
    /// A change met users, or another change.
    InUse,
    /// The token is not the current one.
    Stale,
}

impl Operator {
    /// Does what is asked of the lock of one service.
    ///
    /// # Errors
    /// When there is no such service, the request makes no sense, or it is not granted.
    pub async fn lock(&self, namespace: &str, name: &str, request: LockRequest) -> Result<Value, AskError> {
        let key = ObjectKey::new(SERVICE, namespace, name);
        if self.controller.store.snapshot().get(&key).is_none() {
            return Err(AskError::NotFound(format!("there is no mini service {namespace}/{name}")));
        }
        let locks = &self.controller.locks;
        match request {
            LockRequest::Acquire { mode, holder, wait_ms, term_ms } => {
                let ask = checked(key.clone(), mode, &holder, wait_ms, term_ms, self.controller.clock.mono_ms())?;
                locks.acquire(ask).await.map(|grant| granted(&grant)).map_err(|refusal| refused(&key, mode, &refusal))
            }
            LockRequest::Renew { holder, token, mode } => {
                check_holder(&holder)?;
                let grant = locks.renew(&key, &Name::from(holder), Token(token), mode).map_err(|s| stale(&key, token, s))?;
                let mut answer = granted(&grant);
                // Who uses it can let a writer in, instead of renewing until the writer's patience ends.
                answer["changeWaits"] = locks.view(&key).waiters.iter().any(|(mode, _)| *mode == LockMode::Change).into();
                Ok(answer)
            }
            LockRequest::Release { holder, token } => {
                if holder == OPERATOR {
                    return Err(reserved());
                }
                let released = locks.release(&key, &Name::from(holder.as_str()), Token(token)).await;
                match released.map_err(|s| stale(&key, token, s))? {
                    Released::Done => Ok(json!({ "holder": holder, "token": token, "released": true })),
                    Released::NotStored => {
                        Err(AskError::Unavailable("the store could not take the end of the lock; it ends as soon as it can".to_owned()))
                    }
                }
            }
            LockRequest::Check { token } => {
                let mode = locks.check(&key, Token(token)).map_err(|s| stale(&key, token, s))?;
                Ok(json!({ "token": token, "mode": mode, "current": true }))
            }
            LockRequest::Show => Ok(self.show(&key)),
        }
    }

    fn show(&self, key: &ObjectKey) -> Value {
        let clock = &self.controller.clock;
        let view = self.controller.locks.view(key);
        let now = clock.mono_ms();
        let left = |until: u64| until.saturating_sub(now);
        let since = self.controller.locks.status(key).and_then(|status| status.since);
        let change = view.change.map(
            |change| json!({ "holder": change.holder, "token": change.token.0, "since": since, "remainingMs": change.until_ms.map(left) }),
        );
        let users: Vec<Value> = view.users.iter().map(|(holder, until)| json!({ "holder": holder, "remainingMs": left(*until) })).collect();
        let waiters: Vec<Value> = view.waiters.iter().map(|(mode, holder)| json!({ "mode": mode, "holder": holder })).collect();
        json!({
            "namespace": key.namespace, "service": key.name, "change": change, "users": users,
            "unknownUsersMs": view.unknown_until_ms.map(left), "waiters": waiters,
        })
    }
}

fn granted(grant: &Grant) -> Value {
    json!({ "mode": grant.mode, "holder": grant.holder, "token": grant.token.0, "termMs": grant.term_ms })
}

fn reserved() -> AskError {
    AskError::Invalid(format!("the holder `{OPERATOR}` is the operator itself: choose another name"))
}

fn checked(key: ObjectKey, mode: LockMode, holder: &str, wait_ms: u64, term_ms: Option<u64>, now: u64) -> Result<Ask, AskError> {
    check_holder(holder)?;
    if wait_ms > LONGEST_WAIT_MS {
        return Err(AskError::Invalid(format!("`waitMs` is at most {LONGEST_WAIT_MS}: ask again when the time is up")));
    }
    let longest = match mode {
        LockMode::Use => USE_TERM_MS,
        LockMode::Change => LONGEST_CHANGE_MS,
    };
    let term_ms = term_ms.unwrap_or(USE_TERM_MS);
    if !(SHORTEST_TERM_MS..=longest).contains(&term_ms) {
        return Err(AskError::Invalid(format!("`termMs` of a {mode} is {SHORTEST_TERM_MS} to {longest}: renew it to hold it for longer")));
    }
    Ok(Ask { key, mode, holder: Name::from(holder), term_ms, patience: Patience::Until(now.saturating_add(wait_ms)) })
}

fn check_holder(holder: &str) -> Result<(), AskError> {
    if holder == OPERATOR {
        return Err(reserved());
    }
    let is_plain = holder.chars().all(|c| !c.is_control() && !c.is_whitespace());
    if holder.is_empty() || holder.len() > MOST_HOLDER || !is_plain {
        return Err(AskError::Invalid(format!(
            "`holder` names one process: 1 to {MOST_HOLDER} bytes without spaces, such as host-name.process-id"
        )));
    }
    Ok(())
}

fn refused(key: &ObjectKey, mode: LockMode, refusal: &Refusal) -> AskError {
    let (reason, what) = match (refusal.why, mode) {
        (Denied::Changing, _) => (LockReason::Changing, "is being changed"),
        (Denied::InUse, _) => (LockReason::InUse, "is in use"),
        (Denied::TooMany, LockMode::Use) => (LockReason::Changing, "has too many users or waiters"),
        (Denied::TooMany, LockMode::Change) => (LockReason::InUse, "has too many waiters"),
        (Denied::NotStored, _) => return AskError::Unavailable("the store cannot take the lock now".to_owned()),
    };
    let names: Vec<&str> = refusal.by.iter().map(Name::as_str).collect();
    let by = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
    AskError::Locked {
        reason,
        message: format!("{}/{} {what}{by}", key.namespace, key.name),
        retry_after_seconds: Some(refusal.retry_after_ms.div_ceil(1_000).max(1)),
    }
}

fn stale(key: &ObjectKey, token: u64, stale: Stale) -> AskError {
    let now = stale.current.map_or_else(|| "nobody changes it", |_| "another one is");
    AskError::Locked {
        reason: LockReason::Stale,
        message: format!(
            "token {token} of {}/{} is not current any more ({now}): do not write; ask for the lock again",
            key.namespace, key.name
        ),
        retry_after_seconds: None,
    }
}
