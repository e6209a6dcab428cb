//! What can go wrong with the engine, and whether trying again can help.

use std::io;

use qm_api::conditions::Reason;
use qm_plan::own::Trouble;

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
    /// The answer could not be read.
    #[error("the Docker engine's answer could not be read")]
    Decode(#[source] Box<bollard::errors::Error>),
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
            Self::Unreachable(_) | Self::Timeout { .. } | Self::Decode(_) | Self::HostFile { .. } => Retry::Transient,
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
            Self::HostFile { .. } => (Reason::StepFailed, false),
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
