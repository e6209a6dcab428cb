//! Owns the lock that keeps the same instance from running twice on one engine (DESIGN 3.4, DETAILS "Names").

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another Quaymaster runs instance `{instance}` on this engine ({holder}): stop it, or give this one another --instance")]
    Held {
        /// The instance.
        instance: String,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// The file cannot be used.
    #[error("the lock file {path} cannot be used")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The lock; it is free again when this is dropped or the process ends.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    /// Takes the lock of `instance` on the engine with this id. The file names its holder.
    ///
    /// # Errors
    /// When another process has it, or the file cannot be used.
    pub fn take(dir: &Path, engine_id: &str, instance: &str, data_dir: &Path) -> Result<Self, LockError> {
        let safe: String = engine_id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let path = dir.join(format!("{safe}.{instance}.lock"));
        let io = |source| LockError::Io { path: path.clone(), source };
        std::fs::create_dir_all(dir).map_err(io)?;
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            // Who holds it is a help, not a need.
            if file.read_to_string(&mut holder).is_err() || holder.trim().is_empty() {
                holder = "holder unknown".to_owned();
            }
            return Err(LockError::Held { instance: instance.to_owned(), holder: holder.trim().replace('\n', ", ") });
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        writeln!(file, "pid {}\ndata directory {}", std::process::id(), data_dir.display()).map_err(io)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = InstanceLock::take(dir.path(), "AB:CD", "default", Path::new("/data/one")).unwrap();
        let error = InstanceLock::take(dir.path(), "AB:CD", "default", Path::new("/data/two")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("pid {}", std::process::id())) && text.contains("/data/one"), "{text}");
        InstanceLock::take(dir.path(), "AB:CD", "other", Path::new("/data/two")).unwrap();
        drop(first);
        InstanceLock::take(dir.path(), "AB:CD", "default", Path::new("/data/two")).unwrap();
    }
}
