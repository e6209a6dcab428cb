//! Owns locks as requests: reads them, checks what can be checked without the world, and hands them to the port.
//!
//! Each handler is a function over namespace and name, so that a face of one namespace alone can serve it too.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use qm_api::kinds::mini_service;
use qm_api::lock::LockMode;
use qm_api::meta::GROUP;
use qm_api::registry;
use serde::Deserialize;

use crate::app::{App, MOST_WORDS, OnFace, ask, json, parse_object, read_body};
use crate::ports::{LockAct, LockRequest};
use crate::resource;
use crate::status::Failure;

/// What a URL below `lock` is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// The lock itself: GET shows it, POST takes it.
    Lock,
    Renew,
    Release,
    Check,
}

impl Verb {
    /// The verb of what stands behind `lock/`.
    pub(crate) fn of(word: &str) -> Option<Self> {
        [("renew", Self::Renew), ("release", Self::Release), ("check", Self::Check)].into_iter().find(|(w, _)| *w == word).map(|(_, v)| v)
    }
}

/// `LockMode` without a default of its own: a request must say it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    mode: Option<LockMode>,
    holder: Option<String>,
    wait_ms: Option<u64>,
    term_ms: Option<u64>,
    token: Option<u64>,
}

/// Answers everything below `miniservices/NAME/lock`.
pub(crate) async fn lock(app: &App, namespace: String, name: String, verb: Verb, parts: &Parts, body: Body) -> Result<Response, Failure> {
    let is_read = matches!(parts.method, http::Method::GET | http::Method::HEAD);
    let is_post = parts.method == http::Method::POST;
    match verb {
        Verb::Lock if !is_read && !is_post => {
            return Err(Failure::wrong_method("GET, POST", "a lock is shown with GET and taken with POST"));
        }
        Verb::Renew | Verb::Release | Verb::Check if !is_post => return Err(Failure::wrong_method("POST", "this URL takes POST only")),
        _ => {}
    }
    let kind = registry::by_kind(mini_service::KIND).ok_or_else(Failure::no_such_url)?;
    resource::find(&app.store.snapshot(), kind, &namespace, &name).ok_or_else(|| Failure::no_such_object(kind, &name))?;
    let about = |failure: Failure| failure.about(GROUP, "miniservices", &name);
    let (act, status) = match verb {
        Verb::Lock if is_read => (LockAct::Show, StatusCode::OK),
        verb => {
            let asked: Asked = parse_object(&read_body(body, MOST_WORDS).await?, "a lock")?;
            let status = if verb == Verb::Lock { StatusCode::CREATED } else { StatusCode::OK };
            (asked.into_act(verb).map_err(about)?, status)
        }
    };
    let request = LockRequest { namespace: namespace.clone(), name: name.clone(), act };
    let mut answer = ask((app.ports.lock)(request)).await.map_err(about)?;
    // With the token anybody in a container could end what somebody else does.
    if is_read && parts.extensions.get::<OnFace>().is_some() && answer["change"].is_object() {
        answer["change"]["token"] = serde_json::Value::Null;
    }
    Ok(json(status, &answer))
}

impl Asked {
    fn into_act(self, verb: Verb) -> Result<LockAct, Failure> {
        let holder = || self.holder.clone().ok_or_else(|| Failure::invalid_field("holder", "a lock is held by one process: say which"));
        let token = || self.token.ok_or_else(|| Failure::invalid_field("token", "give the token that the lock was granted with"));
        let unwanted = |fields: &[(&str, bool)]| match fields.iter().find(|(_, is_given)| *is_given) {
            Some((field, _)) => Err(Failure::invalid_field(field, "this means nothing here")),
            None => Ok(()),
        };
        let (waits, has_term) = (("waitMs", self.wait_ms.is_some()), ("termMs", self.term_ms.is_some()));
        match verb {
            Verb::Lock => {
                unwanted(&[("token", self.token.is_some())])?;
                let mode = self.mode.ok_or_else(|| Failure::invalid_field("mode", "`use` or `change`"))?;
                Ok(LockAct::Acquire { mode, holder: holder()?, wait_ms: self.wait_ms.unwrap_or(0), term_ms: self.term_ms })
            }
            Verb::Renew => {
                unwanted(&[waits, has_term])?;
                Ok(LockAct::Renew { holder: holder()?, token: token()?, mode: self.mode })
            }
            Verb::Release => {
                unwanted(&[waits, has_term])?;
                Ok(LockAct::Release { holder: holder()?, token: token()? })
            }
            Verb::Check => {
                unwanted(&[waits, has_term])?;
                Ok(LockAct::Check { token: token()? })
            }
        }
    }
}
