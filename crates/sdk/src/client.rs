//! Owns [`Client`]: the picture of one namespace, and everything that is asked of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::blocked::Blocked;
use crate::follow::follow;
use crate::link::{Error, Link};
use crate::locks::lease::{Lease, process_name};
use crate::locks::users::{Denied, UseGuard, Users};
use crate::locks::{AskChange, LockGuard};
use crate::report::Reporter;
use crate::verdict::{Contact, Picture, Verdict, WhenAway};
use crate::wire::{Answer, LockMode};

/// Where the app face is mounted.
const DEFAULT_SOCKET: &str = "/run/quaymaster/app.sock";
const SOCKET: &str = "QUAYMASTER_SOCKET";
const NAMESPACE: &str = "QUAYMASTER_NAMESPACE";

/// How a client is made.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    socket: Option<PathBuf>,
    namespace: Option<String>,
    when_away: WhenAway,
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Nobody said of which namespace.
    #[error("no namespace: give one to the builder, or set {NAMESPACE}")]
    NoNamespace,
    /// It is no name.
    #[error("`{0}` is no namespace")]
    BadNamespace(String),
    /// There is nothing that could run its task.
    #[error("a client is started within a tokio runtime")]
    NoRuntime,
}

impl Builder {
    /// The socket, where it is neither `QUAYMASTER_SOCKET` nor `/run/quaymaster/app.sock`.
    #[must_use]
    pub fn socket(mut self, socket: impl Into<PathBuf>) -> Self {
        self.socket = Some(socket.into());
        self
    }

    /// The namespace, where it is not that of `QUAYMASTER_NAMESPACE`.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// What holds while the operator is away.
    #[must_use]
    pub fn when_away(mut self, when_away: WhenAway) -> Self {
        self.when_away = when_away;
        self
    }

    /// Starts to follow the operator; it need not be there yet.
    ///
    /// # Errors
    /// When there is no namespace, or no runtime.
    pub fn start(self) -> Result<Client, StartError> {
        let socket = self.socket.or_else(|| std::env::var_os(SOCKET).map(PathBuf::from)).unwrap_or_else(|| DEFAULT_SOCKET.into());
        let namespace = self.namespace.or_else(|| std::env::var(NAMESPACE).ok()).ok_or(StartError::NoNamespace)?;
        if namespace.is_empty() || !namespace.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')) {
            return Err(StartError::BadNamespace(namespace));
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let link = Link::new(socket, namespace);
        let (sender, picture) = watch::channel(Picture::empty(link.namespace()));
        let task = runtime.spawn(follow(link.clone(), sender));
        let (when_away, users, process) = (self.when_away, Mutex::default(), process_name());
        Ok(Client { inner: Arc::new(Inner { link, picture, when_away, users, process, task }) })
    }
}

/// The operator as an app sees it: its picture of one namespace, kept by one task in the background. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: Link,
    picture: watch::Receiver<Picture>,
    when_away: WhenAway,
    /// Those that this process uses, with its count of them.
    users: Mutex<BTreeMap<String, Arc<Users>>>,
    process: String,
    task: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// A client in the making.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.inner.link.namespace()
    }

    /// Whether a service, or one operation of it, may be used now. Answered from memory.
    pub fn usable(&self, service: &str, operation: Option<&str>) -> Verdict {
        self.usable_with(service, operation, self.inner.when_away)
    }

    /// Like [`Client::usable`], with a choice of its own for the time without an operator.
    pub fn usable_with(&self, service: &str, operation: Option<&str>, when_away: WhenAway) -> Verdict {
        self.inner.picture.borrow().verdict(service, operation, when_away, Instant::now())
    }

    /// That a service, or one operation of it, may be used now. Answered from memory.
    ///
    /// # Errors
    /// When it may not.
    pub fn require(&self, service: &str, operation: Option<&str>) -> Result<(), Blocked> {
        self.usable(service, operation).check()
    }

    /// Whether the operator was heard and is heard no more, or was never heard; and what the connection had against it.
    pub fn away(&self) -> Option<String> {
        let picture = self.inner.picture.borrow();
        (picture.contact != Contact::Now).then(|| picture.trouble.clone().unwrap_or_else(|| "it was not heard yet".to_owned()))
    }

    /// Waits until the operator is there.
    pub async fn contact(&self) {
        self.until(|picture| picture.contact == Contact::Now).await;
    }

    /// Waits until the operator says that a service may be used.
    pub async fn wait_usable(&self, service: &str) {
        let is_usable = |picture: &Picture| picture.services.get(service).is_some_and(|answer| answer.usable);
        self.until(|picture| picture.contact == Contact::Now && is_usable(picture)).await;
    }

    /// Waits until the picture does not say any more that a service is being changed: it follows a grant within moments.
    pub(crate) async fn unchanged(&self, service: &str) {
        let is_changing = |picture: &Picture| picture.services.get(service).is_some_and(|answer| answer.is_changing());
        self.until(|picture| picture.contact != Contact::Now || !is_changing(picture)).await;
    }

    async fn until(&self, is_so: impl FnMut(&Picture) -> bool) {
        if self.inner.picture.clone().wait_for(is_so).await.is_err() {
            // The task that tells has ended with its runtime: it never will be so.
            std::future::pending().await
        }
    }

    /// Begins to report for a part of this app (a mini service of the form `logical`), for as long as the reporter lives.
    pub fn reporter(&self, part: &str) -> Reporter {
        Reporter::start(self.inner.link.clone(), part, self.inner.picture.clone())
    }

    /// Uses a service for a while: it is not changed meanwhile. This process has one lease of it, however many guards there are; while
    /// somebody waits to change it, nobody new gets in.
    ///
    /// Where the operator is away there is no lease: it changes nothing then, and lets nobody else do so. What it last said was being changed
    /// may still be, and is not used before it says otherwise.
    ///
    /// # Errors
    /// When it is being changed, or is going to be, for longer than `wait`.
    pub async fn hold_use(&self, service: &str, wait: Duration) -> Result<UseGuard, Blocked> {
        let users = {
            let mut all = self.inner.users.lock().unwrap_or_else(PoisonError::into_inner);
            let make = || Arc::new(Users::new(Lease::new(self.inner.link.clone(), service, LockMode::Use, self.inner.process.clone())));
            Arc::clone(all.entry(service.to_owned()).or_insert_with(make))
        };
        let guard = users.enter(wait).await.map_err(|denied| self.changing(service, denied))?;
        let was_changing = {
            let picture = self.inner.picture.borrow();
            picture.contact != Contact::Now && picture.services.get(service).is_some_and(|answer| answer.is_changing())
        };
        if was_changing {
            let message = "somebody was changing it when the operator was last heard".to_owned();
            let denied = Denied { reason: "Changing".to_owned(), message, retry_after: Some(5), is_final: false };
            return Err(self.changing(service, denied));
        }
        Ok(guard)
    }

    /// What `/usable` says of a service that is being changed.
    fn changing(&self, service: &str, denied: Denied) -> Blocked {
        let answer = self.usable(service, None).answer;
        let (reason, message, retry_after) = (denied.reason, denied.message, denied.retry_after);
        Blocked::new(Arc::new(Answer { usable: false, reason, message, retry_after, ..Answer::clone(&answer) }))
    }

    /// Takes the change of a service: nobody uses it meanwhile, nor does this process; nobody else changes it.
    ///
    /// # Errors
    /// When it is not granted in time.
    pub async fn lock_change(&self, service: &str, ask: AskChange) -> Result<LockGuard, Error> {
        LockGuard::acquire(self.inner.link.clone(), service, &self.inner.process, ask).await
    }
}
