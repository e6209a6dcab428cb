//! Owns [`Blocked`]: that a service may not be used now, as an error and as an HTTP answer.

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};

use crate::wire::{Answer, Availability, Culprit};

/// A service, or one operation of it, may not be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    answer: Arc<Answer>,
}

impl Blocked {
    pub(crate) fn new(answer: Arc<Answer>) -> Self {
        Self { answer }
    }

    /// Nobody has said which client answers.
    pub(crate) fn without_client(service: &str) -> Self {
        let availability = Availability::Unavailable;
        Self::new(Arc::new(Answer {
            namespace: String::new(),
            service: service.to_owned(),
            usable: false,
            availability: Some(availability),
            severity: availability.severity(),
            reason: "NoClient".to_owned(),
            message: "this app has not called `qm_sdk::install`".to_owned(),
            stale: false,
            blocked_by: Vec::new(),
            blocked_operations: Vec::new(),
            retry_after: None,
            version: String::new(),
        }))
    }

    /// Everything about it.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The service that was asked for.
    pub fn service(&self) -> &str {
        &self.answer.service
    }

    /// How available it is; nothing for one that is switched off.
    pub fn availability(&self) -> Option<Availability> {
        self.answer.availability
    }

    /// Why, in one word.
    pub fn reason(&self) -> &str {
        &self.answer.reason
    }

    /// Who is to blame, where that is somebody else.
    pub fn blocked_by(&self) -> &[Culprit] {
        &self.answer.blocked_by
    }

    /// After how many seconds asking again makes sense; nothing where only a change can help.
    pub fn retry_after(&self) -> Option<u64> {
        self.answer.retry_after
    }

    /// What a caller is told: 503, `Retry-After` where waiting helps, and the body of `/usable`.
    pub fn into_response<B: From<String>>(self) -> Response<B> {
        // Text, numbers and lists of them: always JSON.
        let body = serde_json::to_string(&*self.answer).unwrap_or_default();
        let mut response = Response::new(B::from(body));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.answer.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { service, reason, message, .. } = &*self.answer;
        write!(f, "{service} is not to be used now: {reason}")?;
        if !message.is_empty() {
            write!(f, ", {message}")?;
        }
        for culprit in &self.answer.blocked_by {
            write!(f, "; because of {} ({})", culprit.path.join(" -> "), culprit.reason)?;
        }
        Ok(())
    }
}

impl std::error::Error for Blocked {}

#[cfg(feature = "axum")]
impl axum_core::response::IntoResponse for Blocked {
    fn into_response(self) -> axum_core::response::Response {
        Blocked::into_response(self)
    }
}
