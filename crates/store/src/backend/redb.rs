//! Owns [`Redb`], the backend that keeps everything in one file.
//!
//! Writes that may wait are kept in a buffer here, where later ones replace earlier ones, and go to the file in one transaction with the
//! next flush: a file transaction that is not flushed would live in this process' memory just the same. After any error the file is
//! closed and opened again by the next call, because redb refuses to go on after a failed read or write. Must never create a file over
//! an existing one, not even over an empty one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageBackend, StorageError, TableDefinition};

use super::{Backend, BackendError, Flush, Records, Write};

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");

/// All objects are in memory anyway, so that the file is only ever read once: its cache can be small.
const CACHE_BYTES: usize = 4 << 20;

/// How many copies of one label may lie beside a store.
const MOST_COPIES: u32 = 100;

/// A backend in one redb file.
#[derive(Debug)]
pub struct Redb {
    place: Place,
    database: Option<Database>,
    unsynced: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Storage(Arc<dyn StorageBackend>),
}

impl Redb {
    /// The file at `path`; it is opened, or created, when the store is opened.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self::new(Place::File(path.into()))
    }

    /// Any storage that redb can use, for tests that fail calls or drop writes. An empty storage becomes a new store; unlike a file,
    /// one whose making was interrupted is damaged.
    pub fn over(storage: Arc<dyn StorageBackend>) -> Self {
        Self::new(Place::Storage(storage))
    }

    fn new(place: Place) -> Self {
        Self { place, database: None, unsynced: BTreeMap::new() }
    }

    fn database(&mut self) -> Result<&Database, BackendError> {
        let database = match self.database.take() {
            Some(open) => open,
            None => self.place.open()?,
        };
        Ok(self.database.insert(database))
    }

    fn read(&mut self) -> Result<Records, Failure> {
        let transaction = self.database()?.begin_read()?;
        let table = match transaction.open_table(RECORDS) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            opened => opened?,
        };
        table.iter()?.map(|entry| entry.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).map_err(Failure::from)).collect()
    }

    fn write(&mut self, writes: &[Write]) -> Result<(), Failure> {
        let unsynced = std::mem::take(&mut self.unsynced);
        let result = self.write_all(&unsynced, writes);
        if result.is_err() {
            self.unsynced = unsynced;
        }
        result
    }

    fn write_all(&mut self, unsynced: &BTreeMap<Vec<u8>, Option<Vec<u8>>>, writes: &[Write]) -> Result<(), Failure> {
        let mut transaction = self.database()?.begin_write()?;
        transaction.set_durability(Durability::Immediate).map_err(|error| Failure::Redb(error.into()))?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for (key, value) in unsynced.iter().chain(writes.iter().map(|write| (&write.key, &write.value))) {
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                    None => table.remove(key.as_slice())?,
                };
            }
        }
        Ok(transaction.commit()?)
    }

    fn failed(&mut self, failure: Failure) -> BackendError {
        self.database = None;
        failure.describe(&self.place)
    }
}

impl Backend for Redb {
    fn load(&mut self) -> Result<Records, BackendError> {
        self.read().map_err(|failure| self.failed(failure))
    }

    fn apply(&mut self, writes: &[Write], flush: Flush) -> Result<(), BackendError> {
        match flush {
            Flush::Later => {
                self.unsynced.extend(writes.iter().cloned().map(|write| (write.key, write.value)));
                Ok(())
            }
            Flush::Now if writes.is_empty() && self.unsynced.is_empty() => Ok(()),
            Flush::Now => self.write(writes).map_err(|failure| self.failed(failure)),
        }
    }

    fn preserve(&mut self, label: &str) -> Result<(), BackendError> {
        match &self.place {
            Place::File(path) => copy_beside(path, label).map_err(BackendError::from),
            Place::Storage(_) => Ok(()),
        }
    }
}

impl Place {
    fn open(&self) -> Result<Database, BackendError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        // All of it is read at once anyway, and a damaged page must be an error here, not a surprise later.
        builder.set_check_integrity_on_open(true);
        let opened = match self {
            Self::File(path) => {
                if !fs::exists(path)? {
                    create(path).map_err(|failure| failure.describe(self))?;
                }
                builder.open(path)
            }
            Self::Storage(storage) => builder.create_with_backend(Shared(Arc::clone(storage))),
        };
        opened.map_err(|error| Failure::from(error).describe(self))
    }

    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Storage(_) => "in an injected storage".to_owned(),
        }
    }
}

/// Makes a whole new file beside `path` and then links it there: a crash leaves either nothing or a store, so that an empty or partial
/// file at `path` is always damage. The link fails when another process was faster; its store is then the one to open.
fn create(path: &Path) -> Result<(), Failure> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let fresh = with_suffix(path, "new");
    remove_if_there(&fresh)?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&fresh)?;
    let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(redb::backends::FileBackend::new(file)?)?;
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.commit()?;
    database.close()?;
    match fs::hard_link(&fresh, path) {
        Ok(()) => fs::remove_file(&fresh)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(&fresh)?,
        // A file system without links; renaming replaces, so look once more.
        Err(_) if !fs::exists(path)? => fs::rename(&fresh, path)?,
        Err(error) => return Err(error.into()),
    }
    Ok(File::open(directory)?.sync_all()?)
}

fn copy_beside(path: &Path, label: &str) -> io::Result<()> {
    for number in 0..MOST_COPIES {
        let copy = if number == 0 { with_suffix(path, label) } else { with_suffix(path, &format!("{label}.{number}")) };
        let mut target = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => opened?,
        };
        io::copy(&mut File::open(path)?, &mut target)?;
        return target.sync_all();
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many copies of this store are beside it"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A failure inside this module, before it is told in the words of [`BackendError`].
enum Failure {
    Told(BackendError),
    Redb(redb::Error),
}

impl Failure {
    fn describe(self, place: &Place) -> BackendError {
        let damaged = |what: String| BackendError::Damaged { detail: format!("{what} ({})", place.name()) };
        match self {
            Self::Told(error) => error,
            Self::Redb(redb::Error::Corrupted(what)) => damaged(what),
            Self::Redb(redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch) => BackendError::InUse { place: place.name() },
            // These kinds say that the content, not the disk, is at fault: not a database, or shorter than its header says.
            Self::Redb(redb::Error::Io(error))
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) =>
            {
                damaged(error.to_string())
            }
            Self::Redb(redb::Error::Io(error)) => error.into(),
            Self::Redb(error @ (redb::Error::UpgradeRequired(_) | redb::Error::RepairAborted | redb::Error::TableTypeMismatch { .. })) => {
                damaged(error.to_string())
            }
            Self::Redb(error) => BackendError::Io { source: Arc::new(error) },
        }
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        Self::Told(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Told(error.into())
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Self::Redb(error.into())
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Redb(error.into())
    }
}

impl From<redb::TransactionError> for Failure {
    fn from(error: redb::TransactionError) -> Self {
        Self::Redb(error.into())
    }
}

impl From<redb::TableError> for Failure {
    fn from(error: redb::TableError) -> Self {
        Self::Redb(error.into())
    }
}

impl From<redb::CommitError> for Failure {
    fn from(error: redb::CommitError) -> Self {
        Self::Redb(error.into())
    }
}

impl From<redb::BackendError> for Failure {
    fn from(error: redb::BackendError) -> Self {
        Self::Redb(StorageError::from(error).into())
    }
}

/// One storage, opened again and again: redb owns the backend it opens.
#[derive(Debug)]
struct Shared(Arc<dyn StorageBackend>);

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}
