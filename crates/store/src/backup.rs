//! Owns backups: one consistent view of the store as JSON lines, and the way back into an empty store.
//!
//! The first line is `{"format":"quaymaster-backup/1","resourceVersion":N,"fence":N}`, then one object a line, and the last line is
//! `{"objects":N,"sha256":HEX}` over all bytes before it. Leases are not in it: nobody holds one over a restore, and the fence number
//! sees to it that old tokens stay stale. Must never write before everything was verified, nor into a store that holds something.

use std::io::{self, BufRead, Write as _};
use std::sync::Arc;

use qm_api::meta::{Object, ObjectKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::backend::{Backend, Flush};
use crate::error::{OpenError, Retry};
use crate::record;
use crate::snapshot::Snapshot;
use crate::store;
use crate::writer;

/// The format of the backups that this release writes and reads.
pub const BACKUP_FORMAT: &str = "quaymaster-backup/1";

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// How many objects.
    pub objects: u64,
    /// The version of the last change in it.
    pub resource_version: u64,
    /// The digest in its last line.
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    format: String,
    resource_version: u64,
    #[serde(default)]
    fence: u64,
}

#[derive(Serialize, Deserialize)]
struct Trailer {
    objects: u64,
    sha256: String,
}

/// Why a backup was not restored. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup could not be read.
    #[error("the backup could not be read")]
    Read(#[source] io::Error),
    /// The first line is not the header of a backup this release knows.
    #[error("this is not a backup of format {BACKUP_FORMAT}: its first line says `{found}`")]
    Format {
        /// The start of the first line.
        found: String,
    },
    /// A line is not what it should be.
    #[error("line {line} of the backup cannot be used: {detail}")]
    Line {
        /// Which line, from 1.
        line: u64,
        /// Why.
        detail: String,
    },
    /// The last line is missing, or there is more after it: the backup is not whole.
    #[error("the backup is not whole: its last line is not `{{\"objects\":..,\"sha256\":..}}`")]
    Cut,
    /// The number of objects is not the one that was written.
    #[error("the backup is damaged: it holds {found} objects, and its last line says {expected}")]
    Count {
        /// As the last line says.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// The bytes are not the ones that were written.
    #[error("the backup is damaged: its digest is {found}, and its last line says {expected}")]
    Digest {
        /// As the last line says.
        expected: String,
        /// As found.
        found: String,
    },
    /// The store to restore into holds something.
    #[error("the store is not empty: it holds {objects} objects and {leases} leases; move it away first")]
    NotEmpty {
        /// How many objects it holds.
        objects: usize,
        /// How many leases it holds.
        leases: usize,
    },
    /// The store to restore into cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
}

impl RestoreError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Read(_) => Retry::Transient,
            Self::Store(error) => error.retry(),
            _ => Retry::Terminal,
        }
    }
}

impl Snapshot {
    /// Writes this view as a backup.
    ///
    /// # Errors
    /// When `out` refuses.
    pub fn write_backup(&self, out: impl io::Write) -> io::Result<Backup> {
        let mut out = Hashing { out: io::BufWriter::new(out), digest: Sha256::new() };
        out.line(&Header { format: BACKUP_FORMAT.to_owned(), resource_version: self.resource_version(), fence: self.fence })?;
        for object in self.iter() {
            out.line(&**object)?;
        }
        let Hashing { mut out, digest } = out;
        let trailer = Trailer { objects: self.len() as u64, sha256: hex(digest) };
        out.write_all(&to_line(&trailer)?)?;
        out.flush()?;
        Ok(Backup { objects: trailer.objects, resource_version: self.resource_version(), sha256: trailer.sha256 })
    }
}

struct Hashing<W: io::Write> {
    out: W,
    digest: Sha256,
}

impl<W: io::Write> Hashing<W> {
    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let line = to_line(value)?;
        self.digest.update(&line);
        self.out.write_all(&line)
    }
}

fn to_line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fills an empty store from a backup. Open it afterwards with [`Store::open`](crate::Store::open).
///
/// # Errors
/// When the backup is not whole and unharmed, or the store holds something.
///
/// # Guarantees
/// Nothing is written before the whole backup was verified, and then all of it at once. Objects keep their versions; the store goes on
/// above the greatest version and fencing token that the backup, or the store itself, had given out.
pub fn restore(reader: impl BufRead, backend: &mut dyn Backend) -> Result<Backup, RestoreError> {
    let (header, objects, sha256) = read(reader)?;
    let mut state = store::read(backend)?.state;
    if !state.objects.is_empty() || !state.leases.is_empty() {
        return Err(RestoreError::NotEmpty { objects: state.objects.len(), leases: state.leases.len() });
    }
    let backup = Backup { objects: objects.len() as u64, resource_version: header.resource_version, sha256 };
    state.ceiling = state.ceiling.max(header.resource_version);
    state.version = state.ceiling;
    state.fence = state.fence.max(header.fence);
    state.objects = objects;
    backend.apply(&writer::all_records(&state), Flush::Now).map_err(OpenError::from)?;
    Ok(backup)
}

type Objects = imbl::OrdMap<ObjectKey, Arc<Object>>;

fn read(mut reader: impl BufRead) -> Result<(Header, Objects, String), RestoreError> {
    let mut digest = Sha256::new();
    let mut line = Vec::new();
    next_line(&mut reader, &mut line)?;
    let header: Header = serde_json::from_slice(&line).map_err(|_| foreign(&line))?;
    if header.format != BACKUP_FORMAT {
        return Err(foreign(header.format.as_bytes()));
    }
    digest.update(&line);
    next_line(&mut reader, &mut line)?;
    let mut objects = Objects::new();
    let mut number = 2;
    loop {
        let mut following = Vec::new();
        next_line(&mut reader, &mut following)?;
        if following.is_empty() {
            break;
        }
        let object = object(&line, &header, &objects).map_err(|detail| RestoreError::Line { line: number, detail })?;
        objects.insert(object.key.clone(), Arc::new(object));
        digest.update(&line);
        line = following;
        number += 1;
    }
    let trailer: Trailer = serde_json::from_slice(&line).map_err(|_| RestoreError::Cut)?;
    let (found, sha256) = (objects.len() as u64, hex(digest));
    if trailer.objects != found {
        return Err(RestoreError::Count { expected: trailer.objects, found });
    }
    if trailer.sha256 != sha256 {
        return Err(RestoreError::Digest { expected: trailer.sha256, found: sha256 });
    }
    Ok((header, objects, sha256))
}

fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> Result<(), RestoreError> {
    line.clear();
    reader.read_until(b'\n', line).map(drop).map_err(RestoreError::Read)
}

fn foreign(line: &[u8]) -> RestoreError {
    RestoreError::Format { found: String::from_utf8_lossy(&line[..line.len().min(80)]).trim_end().to_owned() }
}

fn object(line: &[u8], header: &Header, known: &Objects) -> Result<Object, String> {
    let object: Object = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if !record::is_valid(&object.key) {
        return Err(format!("`{}` is no valid key", object.key));
    }
    if known.contains_key(&object.key) {
        return Err(format!("{} is there twice", object.key));
    }
    if object.meta.resource_version > header.resource_version {
        return Err(format!("{} is newer than the backup", object.key));
    }
    Ok(object)
}
