//! Owns [`RelPath`]: a path inside a source, which by construction cannot leave it.

use std::borrow::Borrow;
use std::fmt;
use std::path::Path;

use qm_api::name::Name;

/// A normalised, `/`-separated path relative to a source's root; the root itself is the empty path.
///
/// # Guarantees
/// No empty, `.` or `..` component, no leading or trailing `/`, no NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Name);

/// Why a text is not a path inside a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelPathError {
    /// It starts at the root of the file system.
    #[error("the path is absolute; paths are relative to the file that names them")]
    Absolute,
    /// It climbs above the source's root.
    #[error("the path leaves the source's folder")]
    LeavesRoot,
    /// It contains a NUL byte.
    #[error("the path contains a NUL byte")]
    Nul,
}

impl RelPath {
    /// The source's root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Normalises `text`, taken relative to the source's root.
    ///
    /// # Errors
    /// [`RelPathError`] when the text does not stay inside the source.
    pub fn parse(text: &str) -> Result<Self, RelPathError> {
        Self::root().climb(text)
    }

    /// What `reference` means when the file at this path says it: relative to this file's folder.
    ///
    /// # Errors
    /// [`RelPathError`] when the reference does not stay inside the source.
    pub fn refer(&self, reference: &str) -> Result<Self, RelPathError> {
        self.parent().climb(reference)
    }

    fn climb(&self, text: &str) -> Result<Self, RelPathError> {
        if text.starts_with('/') {
            return Err(RelPathError::Absolute);
        }
        if text.contains('\0') {
            return Err(RelPathError::Nul);
        }
        let mut parts: Vec<&str> = self.0.split('/').filter(|part| !part.is_empty()).collect();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop().ok_or(RelPathError::LeavesRoot)?;
                }
                part => parts.push(part),
            }
        }
        Ok(Self(Name::from(parts.join("/"))))
    }

    /// The entry called `name` in the folder at this path; `name` is one component as a directory lists it.
    pub(crate) fn child(&self, name: &str) -> Self {
        if self.is_root() { Self(Name::from(name)) } else { Self(Name::from(format!("{}/{name}", self.0))) }
    }

    /// The folder that holds this path; the root's is the root.
    #[must_use]
    pub fn parent(&self) -> Self {
        match self.0.rsplit_once('/') {
            Some((folder, _)) => Self(Name::from(folder)),
            None => Self::root(),
        }
    }

    /// The last component; empty for the root.
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.as_str(), |(_, name)| name)
    }

    /// Whether this is the source's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this path lies in `folder`, at any depth.
    pub fn is_beneath(&self, folder: &RelPath) -> bool {
        folder.is_root() || self.0.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<Path> for RelPath {
    fn as_ref(&self) -> &Path {
        Path::new(self.as_str())
    }
}

impl Borrow<str> for RelPath {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_relative_to_the_file_and_stay_inside() {
        let from = RelPath::parse("shop/web.yaml").unwrap();
        let cases = [
            ("app.env", Ok("shop/app.env")),
            ("./conf//nginx.conf", Ok("shop/conf/nginx.conf")),
            ("../shared/app.env", Ok("shared/app.env")),
            ("../../etc/passwd", Err(RelPathError::LeavesRoot)),
            ("a/../../../x", Err(RelPathError::LeavesRoot)),
            ("/etc/passwd", Err(RelPathError::Absolute)),
            ("a\0b", Err(RelPathError::Nul)),
        ];
        for (reference, expected) in cases {
            assert_eq!(from.refer(reference).map(|p| p.as_str().to_owned()), expected.map(str::to_owned), "{reference:?}");
        }
    }

    #[test]
    fn beneath_is_by_component() {
        let path = |text| RelPath::parse(text).unwrap();
        assert!(path("a/b/c").is_beneath(&path("a")));
        assert!(path("a").is_beneath(&RelPath::root()));
        assert!(!path("ab/c").is_beneath(&path("a")));
        assert!(!path("a").is_beneath(&path("a")));
    }
}
