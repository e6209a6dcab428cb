//! What can go wrong with the engine, and whether trying again can help.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use qm_api::conditions::Reason;
use qm_plan::own::Trouble;

use super::credentials::{Access, CredentialsError};

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Later, yes.
    Transient,
    /// After looking again: our picture of the world was old.
    Conflict,
    /// Not without a change.
    Terminal,
}

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// The engine cannot be reached.
    #[error("the Docker engine cannot be reached")]
    Unreachable(#[source] io::Error),
    /// The engine took too long.
    #[error("the Docker engine gave no answer within {seconds} s")]
    Timeout {
        /// The limit.
        seconds: u64,
    },
    /// The engine is too old for us.
    #[error("the Docker engine speaks API {}.{} at most, and 1.41 is needed: use Docker 20.10 or newer", found.0, found.1)]
    TooOld {
        /// Its newest API.
        found: (u32, u32),
    },
    /// The engine is too new for us.
    #[error("the Docker engine speaks API {}.{} and newer only, which this release does not know: use a newer Quaymaster", oldest.0, oldest.1)]
    TooNew {
        /// Its oldest API.
        oldest: (u32, u32),
    },
    /// The engine refused.
    #[error("the Docker engine answered {code}: {message}")]
    Answer {
        /// The status code.
        code: u16,
        /// What it said.
        message: String,
    },
    /// A file for a container could not be kept on the host.
    #[error("the files of the container cannot be kept in {dir}")]
    HostFile {
        /// Where.
        dir: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file with what registries want to see cannot be used.
    #[error("the registry credentials file {} cannot be used", file.display())]
    Credentials {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: CredentialsError,
    },
    /// An image could not be pulled.
    #[error("{0}")]
    Pull(PullFailure),
    /// The answer could not be read.
    #[error("the Docker engine's answer could not be read")]
    Decode(#[source] Box<bollard::errors::Error>),
}

/// Why an image could not be pulled: everybody who waited for the one pull gets the same.
#[derive(Clone, Debug)]
pub struct PullFailure {
    /// The image as the manifest names it.
    pub reference: String,
    /// Where it was to come from.
    pub registry: String,
    /// What the registry was shown.
    pub access: Access,
    /// What went wrong.
    pub cause: Arc<DockerError>,
}

impl fmt::Display for PullFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be pulled: {}", self.reference, self.cause.line())?;
        match self.denial() {
            None => Ok(()),
            Some(Denial::Plain) => write!(f, "; {}", self.access.advice(&self.registry)),
            Some(Denial::OrAbsent) => write!(f, "; if it is private, {}", self.access.advice(&self.registry)),
        }
    }
}

/// How a registry says that it wants to know who asks.
enum Denial {
    /// In so many words.
    Plain,
    /// In the words that it also has for what does not exist.
    OrAbsent,
}

impl PullFailure {
    /// The texts are those of registries and of the engine, in their long-standing parts.
    fn denial(&self) -> Option<Denial> {
        let DockerError::Answer { message, .. } = &*self.cause else { return None };
        let text = message.to_ascii_lowercase();
        let says = |needles: &[&str]| needles.iter().any(|needle| text.contains(needle));
        if says(&["pull access denied", "repository does not exist"]) {
            return Some(Denial::OrAbsent);
        }
        const WORDS: [&str; 6] = [
            "no basic auth credentials",
            "unauthorized",
            "authentication required",
            "incorrect username or password",
            "access forbidden",
            "403 forbidden",
        ];
        let is_denied = says(&WORDS) || text.starts_with("denied: ") || text.contains(": denied: ");
        is_denied.then_some(Denial::Plain)
    }

    fn trouble(&self) -> Trouble {
        let Trouble { reason, terminal, .. } = self.cause.trouble();
        let (reason, terminal) = if let Some(Denial::Plain) = self.denial() { (Reason::RegistryDenied, true) } else { (reason, terminal) };
        Trouble { reason, message: self.to_string(), terminal }
    }
}

impl From<bollard::errors::Error> for DockerError {
    fn from(error: bollard::errors::Error) -> Self {
        use bollard::errors::Error as E;
        match error {
            E::DockerResponseServerError { status_code, message } => Self::Answer { code: status_code, message },
            E::RequestTimeoutError => Self::Timeout { seconds: super::CALL_TIMEOUT.as_secs() * 10 },
            E::DockerStreamError { error } => Self::Answer { code: 500, message: error },
            E::IOError { err } => Self::Unreachable(err),
            E::HyperLegacyError { err } => Self::Unreachable(io::Error::other(root_text(&err))),
            E::HyperResponseError { err } => Self::Unreachable(io::Error::other(root_text(&err))),
            other => Self::Decode(Box::new(other)),
        }
    }
}

/// The innermost message: hyper wraps "connection refused" in "client error (Connect)".
fn root_text(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

impl DockerError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable(_) | Self::Timeout { .. } | Self::Decode(_) | Self::HostFile { .. } | Self::Credentials { .. } => {
                Retry::Transient
            }
            Self::Pull(failure) => failure.cause.retry(),
            Self::TooOld { .. } | Self::TooNew { .. } => Retry::Terminal,
            Self::Answer { code: 404 | 409 | 304, .. } => Retry::Conflict,
            _ if self.is_in_use() => Retry::Transient,
            Self::Answer { code: 400..=499, .. } => Retry::Terminal,
            Self::Answer { .. } => Retry::Transient,
        }
    }

    /// Whether a network cannot go because the engine still counts endpoints in it: those of containers that are just ending, or of one
    /// that somebody has attached meanwhile. Its text is the same since Docker 1.9.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Answer { code: 403, message } if message.contains("has active endpoints"))
    }

    /// Whether the thing is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Answer { code: 404, .. })
    }

    /// The whole chain in one line.
    pub fn line(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }

    /// What it means for the service it happened to. The engine's texts are matched in their long-standing parts.
    pub fn trouble(&self) -> Trouble {
        if let Self::Pull(failure) = self {
            return failure.trouble();
        }
        if self.is_in_use() {
            let message = "the engine still counts containers in the network; it is tried again, and where none is left only a restart of the engine helps".to_owned();
            return Trouble { reason: Reason::NetworkInUse, message, terminal: false };
        }
        let message = self.line();
        let text = message.to_ascii_lowercase();
        let has = |needle: &str| text.contains(needle);
        let (reason, terminal) = match self {
            Self::Unreachable(_) | Self::Timeout { .. } => (Reason::EngineUnreachable, false),
            Self::TooOld { .. } | Self::TooNew { .. } => (Reason::EngineUnreachable, true),
            Self::Decode(_) => (Reason::Unknown, false),
            Self::HostFile { source, .. } if source.kind() == io::ErrorKind::StorageFull => (Reason::DiskFull, false),
            Self::HostFile { .. } | Self::Credentials { .. } | Self::Pull(_) => (Reason::StepFailed, false),
            Self::Answer { .. } if has("port is already allocated") || has("address already in use") => (Reason::PortTaken, false),
            Self::Answer { .. } if has("no space left on device") => (Reason::DiskFull, false),
            Self::Answer { .. }
                if has("no such image") || has("manifest unknown") || has("pull access denied") || has("repository does not exist") =>
            {
                (Reason::ImageMissing, true)
            }
            Self::Answer { .. }
                if has("no such host") || has("connection refused") || has("i/o timeout") || has("network is unreachable") =>
            {
                (Reason::RegistryUnreachable, false)
            }
            Self::Answer { .. } if has("is already in use by container") => (Reason::NameConflict, false),
            Self::Answer { .. } if has("no such network") || (has("network") && has("not found")) => (Reason::NetworkMissing, false),
            Self::Answer { code: 400, .. } => (Reason::ConfigurationRefused, true),
            // The runtime cannot start what the manifest asks for: only another manifest helps.
            Self::Answer { .. } if has("oci runtime create failed") || has("executable file not found") || has("error mounting") => {
                (Reason::ConfigurationRefused, true)
            }
            Self::Answer { .. } => (Reason::StepFailed, false),
        };
        Trouble { reason, message, terminal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull(cause: DockerError, access: Access) -> Trouble {
        let failure = PullFailure { reference: "r.x/app:1".into(), registry: "r.x".into(), access, cause: Arc::new(cause) };
        DockerError::Pull(failure).trouble()
    }

    fn answer(code: u16, message: &str) -> DockerError {
        DockerError::Answer { code, message: message.to_owned() }
    }

    /// The messages are those of a real dockerd 20.10 with a registry 2.8, and those that bigger registries are known for.
    #[test]
    fn a_registry_that_wants_to_know_who_asks_is_told_apart() {
        let hub = "pull access denied for acme/app, repository does not exist or may require 'docker login': denied: requested access to the \
                   resource is denied";
        for (code, message, reason, terminal, advice) in [
            (
                500,
                "Head \"http://r.x/v2/app/manifests/1\": no basic auth credentials",
                Reason::RegistryDenied,
                true,
                "; give credentials for r.x",
            ),
            (500, "unauthorized: authentication required", Reason::RegistryDenied, true, "; give credentials for r.x"),
            (
                500,
                "Get \"https://r.x/v2/\": unauthorized: incorrect username or password",
                Reason::RegistryDenied,
                true,
                "; give credentials",
            ),
            (500, "error parsing HTTP 403 response body: denied: no pull right", Reason::RegistryDenied, true, "; give credentials"),
            (500, "failed with status code [manifests 1]: 403 Forbidden", Reason::RegistryDenied, true, "; give credentials"),
            (404, hub, Reason::ImageMissing, true, "; if it is private, give credentials for r.x with --registry-credentials"),
            (404, "manifest for r.x/app:1 not found: manifest unknown: manifest unknown", Reason::ImageMissing, true, ""),
            (500, "Get \"https://r.x/v2/\": dial tcp: lookup r.x: no such host", Reason::RegistryUnreachable, false, ""),
            (500, "write /var/lib/docker/tmp/x: permission denied", Reason::StepFailed, false, ""),
        ] {
            let trouble = pull(answer(code, message), Access::NoFile);
            assert_eq!((trouble.reason, trouble.terminal), (reason, terminal), "{message}");
            assert!(trouble.message.starts_with("r.x/app:1 cannot be pulled: "), "{}", trouble.message);
            assert_eq!(trouble.message.contains("credentials for"), !advice.is_empty(), "{}", trouble.message);
            assert!(trouble.message.contains(advice), "{}", trouble.message);
        }
    }

    #[test]
    fn the_advice_follows_from_what_was_shown() {
        let denied = || answer(500, "unauthorized: authentication required");
        let file = || PathBuf::from("/etc/q.json");
        for (access, advice) in [
            (Access::NoFile, "give credentials for r.x with --registry-credentials FILE"),
            (Access::NoEntry { file: file() }, "put credentials for r.x into /etc/q.json"),
            (Access::Shown { file: file() }, "r.x does not take the credentials that /etc/q.json has for it: renew them there"),
        ] {
            assert!(pull(denied(), access).message.ends_with(advice), "{advice}");
        }
    }

    #[test]
    fn a_credentials_file_that_cannot_be_used_is_named_and_tried_again() {
        let error = DockerError::Credentials { file: "/etc/q.json".into(), source: CredentialsError::NotJson { line: 3, column: 4 } };
        assert_eq!(error.retry(), Retry::Transient);
        let trouble = pull(error, Access::NoFile);
        assert!(!trouble.terminal);
        let wanted =
            "r.x/app:1 cannot be pulled: the registry credentials file /etc/q.json cannot be used: it is no JSON: line 3, column 4";
        assert_eq!(trouble.message, wanted);
    }
}
