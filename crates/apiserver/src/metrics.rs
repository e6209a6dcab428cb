//! Owns the router of the metrics' own address. It knows no metric: the registry is passed in.

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};
use prometheus::{Registry, TextEncoder};

/// `GET /metrics` in the text format 0.0.4, and `GET /healthz`.
pub fn metrics_router(registry: Registry) -> Router {
    Router::new().route("/metrics", get(move || async move { metrics(&registry) })).route("/healthz", get(async || "ok"))
}

fn metrics(registry: &Registry) -> Response {
    let (status, body) = match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n".to_owned())
        }
    };
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(prometheus::TEXT_FORMAT));
    response
}
