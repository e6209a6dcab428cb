//! Owns acts of a person as requests: reads them, checks what can be checked without the world, and hands them to the port.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use qm_api::kinds::intent::{self, Act, Scope};
use qm_api::meta::GROUP;
use qm_api::registry::{self, Kind};
use qm_api::spec::quantity::Duration;
use qm_api::time::Timestamp;
use serde::Deserialize;

use crate::app::{App, MOST_WORDS, Peer, ask, json, parse_object, read_body};
use crate::ports::ActRequest;
use crate::query::Query;
use crate::resource;
use crate::status::{Failure, Reason};
use crate::wire::Whole;

/// The longest text in an intent, in bytes.
const MOST_TEXT: usize = 4_096;

/// What the URL says an act is on.
pub(crate) enum Target {
    Object { kind: &'static Kind, namespace: String, name: String },
    Wide,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    reason: Option<String>,
    until: Option<Timestamp>,
    r#for: Option<Duration>,
    step_hash: Option<String>,
    to: Option<u64>,
    actor: Option<String>,
    scope: Option<Scope>,
}

/// Answers a POST on an action: 201 with the intent.
pub(crate) async fn act(app: &App, target: Target, action: &str, parts: &Parts, query: &Query, body: Body) -> Result<Response, Failure> {
    let act = supported(action)?;
    if query.get("dryRun").is_some() {
        return Err(Failure::bad_request("an action cannot be tried out with dryRun: see POST /quaymaster/v1/plan"));
    }
    if let Target::Object { kind, namespace, name } = &target {
        resource::find(&app.store.snapshot(), kind, namespace, name).ok_or_else(|| Failure::no_such_object(kind, name))?;
    }
    let asked: Asked = parse_object(&read_body(body, MOST_WORDS).await?, "an action")?;
    let about = |failure: Failure| failure.about(GROUP, intent::KIND, act.word());
    let request = asked.into_request(act, target, parts, (app.ports.now)()).map_err(about)?;
    let intent = ask((app.ports.act)(request)).await?;
    Ok(json(StatusCode::CREATED, &Whole(&intent)))
}

fn supported(action: &str) -> Result<Act, Failure> {
    let words = || Act::ALL.iter().filter(|act| act.is_supported()).map(|act| act.word()).collect::<Vec<_>>().join(", ");
    let act = Act::ALL.into_iter().find(|act| act.word() == action);
    let act = act.ok_or_else(|| Failure::new(Reason::NotFound, format!("there is no action `{action}`: there are {}", words())))?;
    if !act.is_supported() {
        return Err(Failure::new(Reason::NotImplemented, format!("`{action}` is not supported yet: there are {}", words())));
    }
    Ok(act)
}

impl Asked {
    fn into_request(self, act: Act, target: Target, parts: &Parts, now: Timestamp) -> Result<ActRequest, Failure> {
        let until = end(self.until, self.r#for, now)?;
        let scope = scope(target, self.scope)?;
        if act == Act::Approve && self.step_hash.as_deref().unwrap_or_default().is_empty() {
            return Err(Failure::invalid_field("stepHash", "an approval names the step by its hash, which the plan shows"));
        }
        let peer = || parts.extensions.get::<Peer>().map_or_else(|| "anonymous".to_owned(), |peer| format!("uid {}", peer.uid));
        let actor = self.actor.filter(|actor| !actor.is_empty()).unwrap_or_else(peer);
        let reason = self.reason.unwrap_or_default();
        for (field, text) in [("reason", &reason), ("actor", &actor), ("stepHash", self.step_hash.as_ref().unwrap_or(&String::new()))] {
            if text.len() > MOST_TEXT {
                return Err(Failure::invalid_field(field, format!("longer than {MOST_TEXT} bytes")));
            }
        }
        Ok(ActRequest { act, scope, actor, reason, until, step_hash: self.step_hash, to: self.to })
    }
}

fn end(until: Option<Timestamp>, lasting: Option<Duration>, now: Timestamp) -> Result<Option<Timestamp>, Failure> {
    let after = |lasting: Duration| now.plus_millis(i64::try_from(lasting.as_millis()).unwrap_or(i64::MAX));
    match (until, lasting) {
        (Some(_), Some(_)) => Err(Failure::invalid_field("until", "give `until` or `for`, not both")),
        (Some(until), None) if until <= now => Err(Failure::invalid_field("until", format!("{until} is in the past"))),
        (None, Some(lasting)) if lasting.as_millis() == 0 => Err(Failure::invalid_field("for", "must be longer than nothing")),
        (until, lasting) => Ok(until.or_else(|| lasting.map(after))),
    }
}

fn scope(target: Target, asked: Option<Scope>) -> Result<Scope, Failure> {
    match (target, asked) {
        (Target::Object { .. }, Some(_)) => Err(Failure::invalid_field("scope", "the URL says what the act is on")),
        (Target::Object { kind, namespace, name }, None) => {
            Ok(Scope { kind: Some(kind.kind.to_owned()), namespace: Some(namespace), name: Some(name), source: None })
        }
        (Target::Wide, asked) => {
            let mut scope = asked.unwrap_or_default();
            if let Some(word) = &scope.kind {
                let unknown = || Failure::invalid_field("scope.kind", format!("there is no kind `{word}`"));
                scope.kind = Some(registry::by_short(word).ok_or_else(unknown)?.kind.to_owned());
            }
            Ok(scope)
        }
    }
}
