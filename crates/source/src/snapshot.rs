//! Owns what a source hands over: [`Snapshot`] and its parts. Data only; nothing here decides or reads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::path::RelPath;
use crate::spec::SourceId;

/// A settled view of a source.
///
/// # Guarantees
/// Every file's bytes were complete and unmoving when they were taken. A file that is there and does not change is in every snapshot, in
/// the same allocation. Where `absence` counts, a file that is missing was missing in two looks `settle` apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Whose view.
    pub source: SourceId,
    /// Grows with every snapshot of one source in one process.
    pub version: u64,
    /// Whether the source can be seen, and how well.
    pub health: Health,
    /// What it means that a file is in none of the maps below.
    pub absence: Absence,
    /// The manifests by path.
    pub manifests: BTreeMap<RelPath, Manifest>,
    /// Every file that the manifests refer to.
    pub attachments: BTreeMap<RelPath, Attachment>,
    /// Changes that were seen and are waiting to settle; the last good state is what `manifests` and `attachments` hold.
    pub held: Vec<Held>,
    /// What is wrong with entries that are neither, by their path as text (it may not be UTF-8 on disk).
    pub problems: BTreeMap<String, Problem>,
}

/// A file's content.
#[derive(Clone)]
pub struct File {
    /// The bytes.
    pub bytes: Arc<[u8]>,
    /// Their SHA-256.
    pub digest: [u8; 32],
}

impl File {
    /// A file with these bytes.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self { digest: Sha256::digest(&bytes).into(), bytes }
    }
}

impl PartialEq for File {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for File {}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({} bytes, {:02x}{:02x}{:02x}..)", self.bytes.len(), self.digest[0], self.digest[1], self.digest[2])
    }
}

/// One manifest file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// Its content.
    File(File),
    /// It is there and cannot be had. Never to be taken for absence.
    Refused(Problem),
}

/// A file that a manifest refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// Its content.
    File(File),
    /// It does not exist (yet); a snapshot follows when it appears.
    Missing,
    /// It is there and cannot be had.
    Refused(Problem),
}

/// How well the source can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Changes are seen as they happen.
    Ready,
    /// Changes are seen by looking every so often only.
    Degraded {
        /// Why.
        reason: String,
    },
    /// The source cannot be seen at all, or not whole: the snapshot holds its last good files and says nothing of absence.
    Unreadable {
        /// Why.
        reason: String,
    },
}

/// What a file's absence from a snapshot means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Nothing yet: the source was seen once since it came into sight (start, root replaced), and a file may just be on its way.
    Unproven,
    /// The file was missing in two looks `settle` apart.
    Counts,
}

/// A change that waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The file.
    pub path: RelPath,
    /// What it waits for.
    pub why: Why,
}

/// Why a change waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It is being written, or was written and not closed.
    Open,
    /// Its text is the beginning of its last good text (or nothing), as of a file half written.
    StrictPrefix,
    /// It is gone; a second look has to agree.
    AbsencePending,
    /// It was readable and now is not; a second look has to agree.
    RefusalPending,
    /// A file that it newly refers to is still being written.
    Attachment,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "still open for writing",
            Self::StrictPrefix => "only the beginning of its last text; perhaps half written",
            Self::AbsencePending => "gone; waiting whether it comes back",
            Self::RefusalPending => "no longer readable; waiting whether that lasts",
            Self::Attachment => "a file that it refers to is still being written",
        })
    }
}

/// What is wrong with an entry of the source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A folder where a file should be, a FIFO, a socket or a device; it was not opened.
    #[error("is {what}, not a regular file")]
    NotRegular {
        /// What it is.
        what: &'static str,
    },
    /// Larger than one file may be; it was not read.
    #[error("has {bytes} bytes; at most {max} are read")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// All files together are larger than a source may be; this one was not read.
    #[error("the files of this source have more than {max} bytes together; this one was left out")]
    SourceTooLarge {
        /// The limit.
        max: u64,
    },
    /// A symlink that ends outside the source's root.
    #[error("is a symlink that leaves the source's folder; it was not followed")]
    LeavesRoot,
    /// A symlink to nothing.
    #[error("is a symlink to nothing")]
    Dangling,
    /// Symlinks that lead round in a circle, or too many of them.
    #[error("is a chain of symlinks without an end")]
    LinkLoop,
    /// The system refuses to read it.
    #[error("cannot be read: {reason}")]
    Unreadable {
        /// What the system said.
        reason: String,
    },
    /// Its name is not UTF-8; nothing can refer to it.
    #[error("has a name that is not UTF-8; rename it")]
    NameNotUtf8,
    /// A pattern in an ignore file means nothing; it was skipped.
    #[error("has a pattern that cannot be used: {reason}")]
    BadPattern {
        /// What the matcher said.
        reason: String,
    },
}
