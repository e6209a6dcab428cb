//! Owns the tower layer: a service that is not called while what it requires may not be used.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::time::{Instant, timeout_at};
use tower_layer::Layer;
use tower_service::Service;

use crate::blocked::Blocked;
use crate::client::Client;
use crate::locks::users::UseGuard;
use crate::verdict::{Verdict, WhenAway};

#[derive(Clone, Debug)]
struct Requirement {
    client: Client,
    service: String,
    operation: Option<String>,
    when_away: Option<WhenAway>,
    holding: Option<Duration>,
}

impl Requirement {
    async fn enter(&self) -> Result<Option<UseGuard>, Blocked> {
        let Some(wait) = self.holding else { return self.verdict().check().map(|()| None) };
        let deadline = Instant::now() + wait;
        let verdict = self.verdict();
        let was_changing = verdict.answer.is_changing();
        // A change is what the lease waits for; nothing else is worth to wait for.
        if !was_changing {
            verdict.check()?;
        }
        let guard = self.client.hold_use(&self.service, wait).await?;
        if was_changing {
            // Whatever it says then, or when the time is over, holds.
            drop(timeout_at(deadline, self.client.unchanged(&self.service)).await);
            self.verdict().check()?;
        }
        Ok(Some(guard))
    }

    fn verdict(&self) -> Verdict {
        let operation = self.operation.as_deref();
        match self.when_away {
            Some(when_away) => self.client.usable_with(&self.service, operation, when_away),
            None => self.client.usable(&self.service, operation),
        }
    }
}

/// Answers for the inner service while what it requires may not be used: 503, `Retry-After` where waiting helps, and the body of `/usable`.
#[derive(Clone, Debug)]
pub struct RequiresLayer {
    requirement: Requirement,
}

impl RequiresLayer {
    /// Requires a service.
    pub fn new(client: Client, service: impl Into<String>) -> Self {
        Self { requirement: Requirement { client, service: service.into(), operation: None, when_away: None, holding: None } }
    }

    /// Requires one operation of it.
    #[must_use]
    pub fn operation(mut self, operation: impl Into<String>) -> Self {
        self.requirement.operation = Some(operation.into());
        self
    }

    /// What holds here while the operator is away, where that is not what the client says.
    #[must_use]
    pub fn when_away(mut self, when_away: WhenAway) -> Self {
        self.requirement.when_away = Some(when_away);
        self
    }

    /// Keeps the service from being changed while a request is served. A request waits so long for one that is being changed.
    ///
    /// # Caveats
    /// It holds until the head of the answer is there. Whoever streams a body out of the service holds it with [`Client::hold_use`].
    #[must_use]
    pub fn holding_use(mut self, wait: Duration) -> Self {
        self.requirement.holding = Some(wait);
        self
    }
}

impl<S> Layer<S> for RequiresLayer {
    type Service = Requires<S>;

    fn layer(&self, inner: S) -> Requires<S> {
        Requires { inner, requirement: Arc::new(self.requirement.clone()) }
    }
}

/// A service behind a [`RequiresLayer`].
#[derive(Clone, Debug)]
pub struct Requires<S> {
    inner: S,
    requirement: Arc<Requirement>,
}

impl<S, B, R> Service<Request<B>> for Requires<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: From<String>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready is called; its clone need not be.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let requirement = Arc::clone(&self.requirement);
        Box::pin(async move {
            match requirement.enter().await {
                Ok(_held) => inner.call(request).await,
                Err(blocked) => Ok(blocked.into_response()),
            }
        })
    }
}
