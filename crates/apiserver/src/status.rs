//! Owns [`Failure`], the one shape of every refusal: a Kubernetes `Status` whose code is the HTTP status. Clients decide by its reason.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use qm_api::field::Violation;
use qm_api::registry::Kind;
use serde_json::{Map, Value, json};

use crate::ports::{LockReason, PortError};

/// Why a request was refused; the words are those of Kubernetes, and those of locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    BadRequest,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    Conflict,
    Changing,
    InUse,
    Stale,
    Expired,
    TooLarge,
    Invalid,
    TooManyRequests,
    InternalError,
    NotImplemented,
    ServiceUnavailable,
    Timeout,
}

impl Reason {
    const fn code(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            // Never 408: proxies would ask again by themselves.
            Self::Conflict | Self::Changing | Self::InUse | Self::Stale => StatusCode::CONFLICT,
            Self::Expired => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::Conflict => "Conflict",
            Self::Changing => "Changing",
            Self::InUse => "InUse",
            Self::Stale => "Stale",
            Self::Expired => "Expired",
            Self::TooLarge => "RequestEntityTooLarge",
            Self::Invalid => "Invalid",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::NotImplemented => "NotImplemented",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
        }
    }
}

/// A refusal on its way to the client.
#[derive(Debug)]
pub(crate) struct Failure(Box<Parts>);

#[derive(Debug)]
struct Parts {
    reason: Reason,
    message: String,
    details: Map<String, Value>,
    violations: Option<Value>,
    retry_after_seconds: Option<u64>,
    allow: Option<&'static str>,
}

impl Failure {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            reason,
            message: message.into(),
            details: Map::new(),
            violations: None,
            retry_after_seconds: None,
            allow: None,
        }))
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// A URL that means nothing here.
    pub(crate) fn no_such_url() -> Self {
        Self::new(Reason::NotFound, "the server could not find the requested resource")
    }

    /// An object that is not there.
    pub(crate) fn no_such_object(kind: &Kind, name: &str) -> Self {
        let resource = if kind.group.is_empty() { kind.plural.to_owned() } else { format!("{}.{}", kind.plural, kind.group) };
        Self::new(Reason::NotFound, format!("{resource} \"{name}\" not found")).about(kind.group, kind.plural, name)
    }

    /// A verb that the URL does not have.
    pub(crate) fn wrong_method(allow: &'static str, message: impl Into<String>) -> Self {
        let mut failure = Self::new(Reason::MethodNotAllowed, message);
        failure.0.allow = Some(allow);
        failure
    }

    /// A state that is no longer, or not yet, known here.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// One field of the input is wrong.
    pub(crate) fn invalid_field(field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::new(Reason::Invalid, format!("{field}: {message}")).causes(vec![cause("FieldValueInvalid", &message, field)])
    }

    /// A parameter of a list or watch is wrong.
    pub(crate) fn invalid_option(name: &str, message: impl Into<String>) -> Self {
        Self::invalid_field(name, message).about("meta.k8s.io", "ListOptions", "")
    }

    /// More at once than is served.
    pub(crate) fn too_many(message: impl Into<String>) -> Self {
        Self::new(Reason::TooManyRequests, message).retry_after(1)
    }

    /// Names what the refusal is about. For `Invalid`, `kind` is the kind; in all other cases it is the plural.
    #[must_use]
    pub(crate) fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        for (key, text) in [("name", name), ("group", group), ("kind", kind)] {
            if !text.is_empty() {
                self.0.details.insert(key.to_owned(), text.into());
            }
        }
        self
    }

    #[must_use]
    fn causes(mut self, causes: Vec<Value>) -> Self {
        if !causes.is_empty() {
            self.0.details.insert("causes".to_owned(), Value::Array(causes));
        }
        self
    }

    #[must_use]
    fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_seconds = Some(seconds);
        self.0.details.insert("retryAfterSeconds".to_owned(), seconds.into());
        self
    }

    fn code(&self) -> StatusCode {
        self.0.reason.code()
    }

    /// The `Status`, as it is also sent within a watch.
    pub(crate) fn to_value(&self) -> Value {
        let Parts { reason, message, details, violations, .. } = &*self.0;
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason.word(), "code": reason.code().as_u16(),
        });
        if !details.is_empty() {
            status["details"] = Value::Object(details.clone());
        }
        if let Some(violations) = violations {
            status["violations"] = violations.clone();
        }
        status
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_value().to_string()));
        *response.status_mut() = self.code();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.0.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.0.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        match error {
            PortError::NotFound(message) => Self::new(Reason::NotFound, message),
            PortError::Invalid { message, violations } => {
                let mut failure = Self::new(Reason::Invalid, message).causes(violations.iter().map(violation_cause).collect());
                failure.0.violations = serde_json::to_value(&violations).ok();
                failure
            }
            PortError::Conflict(message) => Self::new(Reason::Conflict, message),
            PortError::Locked { reason, message, retry_after_seconds } => {
                let reason = match reason {
                    LockReason::Changing => Reason::Changing,
                    LockReason::InUse => Reason::InUse,
                    LockReason::Stale => Reason::Stale,
                };
                let failure = Self::new(reason, message);
                match retry_after_seconds {
                    Some(seconds) => failure.retry_after(seconds),
                    None => failure,
                }
            }
            PortError::NotSupported(message) => Self::new(Reason::NotImplemented, message),
            PortError::Unavailable { message, retry_after_seconds } => {
                let failure = Self::new(Reason::ServiceUnavailable, message);
                match retry_after_seconds {
                    Some(seconds) => failure.retry_after(seconds),
                    None => failure,
                }
            }
            PortError::Internal(message) => Self::new(Reason::InternalError, message),
        }
    }
}

fn cause(reason: &str, message: &str, field: &str) -> Value {
    json!({"reason": reason, "message": message, "field": field})
}

fn violation_cause(violation: &Violation) -> Value {
    let mut message = violation.message.clone();
    if !violation.help.is_empty() {
        message = format!("{message}; {}", violation.help);
    }
    if let Some(place) = &violation.place {
        message = format!("{message} ({place})");
    }
    cause(&violation.code.to_string(), &message, violation.path.as_str())
}
