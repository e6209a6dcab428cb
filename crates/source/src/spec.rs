//! Owns what a person writes to name a source: `DIR` or `NAME=DIR`.

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use qm_api::name::Name;

/// The identity of a source over restarts: its canonical path, or the name given to it.
///
/// # Caveats
/// Where the path leads through a symlink that is swapped (git-sync's `current`), the canonical path differs after every swap and restart:
/// give such a source a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SourceId(Name);

impl SourceId {
    /// An identity with this text.
    pub fn new(text: impl Into<Name>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A source as it is asked for: who it is and which folder it reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spec {
    /// Its identity.
    pub id: SourceId,
    /// The folder, absolute but with its symlinks as written, so that swapping one of them is followed.
    pub dir: PathBuf,
}

/// Why an argument names no source.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// There is no path in it.
    #[error("a source is written DIR or NAME=DIR, and DIR is missing in {argument:?}")]
    NoDirectory {
        /// The argument as given.
        argument: String,
    },
    /// The name could be taken for a path, or is unprintable.
    #[error("the source name {name:?} may only have letters, digits, '.', '_' and '-'")]
    BadName {
        /// The name as given.
        name: String,
    },
    /// The current directory, which a relative path starts from, is gone.
    #[error("cannot make {argument:?} absolute")]
    NotAbsolute {
        /// The argument as given.
        argument: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads `DIR` or `NAME=DIR`. A path with `=` in its first component is written `./a=b`.
///
/// # Errors
/// [`SpecError`] when there is no folder in the text or the name is unusable. A folder that does not exist is no error here.
pub fn parse_arg(argument: &str) -> Result<Spec, SpecError> {
    let (name, dir) = match argument.split_once('=') {
        Some((name, dir)) if !name.contains('/') => (Some(name), dir),
        _ => (None, argument),
    };
    if dir.is_empty() {
        return Err(SpecError::NoDirectory { argument: argument.to_owned() });
    }
    let absolute = std::path::absolute(dir).map_err(|source| SpecError::NotAbsolute { argument: argument.to_owned(), source })?;
    let id = match name {
        None => SourceId::new(canonical(&absolute).to_string_lossy().into_owned()),
        Some(name) if is_source_name(name) => SourceId::new(name),
        Some(name) => return Err(SpecError::BadName { name: name.to_owned() }),
    };
    Ok(Spec { id, dir: absolute })
}

fn is_source_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// The canonical form of as much of `path` as exists, so that a folder has one identity before and after it is made.
fn canonical(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(mut real) = ancestor.canonicalize() {
            for part in path.strip_prefix(ancestor).unwrap_or(Path::new("")).components() {
                match part {
                    Component::ParentDir => {
                        real.pop();
                    }
                    Component::Normal(name) => real.push(name),
                    Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
                }
            }
            return real;
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let temp = tempfile::tempdir().unwrap();
        let real = temp.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        let text = |p: &Path| p.to_str().unwrap().to_owned();

        let plain = parse_arg(&text(&real)).unwrap();
        assert_eq!((plain.id.as_str(), &plain.dir), (text(&real).as_str(), &real));
        let linked = parse_arg(&text(&real.join("link"))).unwrap();
        assert_eq!((linked.id.as_str(), linked.dir), (text(&real).as_str(), real.join("link")));
        let later = parse_arg(&text(&real.join("link/later/x"))).unwrap();
        assert_eq!(later.id.as_str(), text(&real.join("later/x")));
        let named = parse_arg(&format!("prod={}", text(&real))).unwrap();
        assert_eq!((named.id.as_str(), named.dir), ("prod", real.clone()));
        let odd = parse_arg(&text(&real.join("a=b"))).unwrap();
        assert_eq!(odd.dir, real.join("a=b"));

        for (bad, says) in [("", "DIR is missing"), ("prod=", "DIR is missing"), ("=x", "letters, digits"), ("a b=x", "letters, digits")] {
            let error = parse_arg(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad:?}: {error}");
        }
    }
}
