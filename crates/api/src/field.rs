//! Owns where and what is wrong in user input: [`FieldPath`], [`Place`] and [`Violation`]. Problems in input are values, all at once.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::meta::ObjectKey;
use crate::name::Name;

/// A path to a field, in the form `spec.container.ports[0].target`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FieldPath(String);

impl FieldPath {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }
    /// The path of a key below this one.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        match (self.0.is_empty(), plain) {
            (true, true) => Self(key.to_owned()),
            (false, true) => Self(format!("{}.{key}", self.0)),
            (_, false) => Self(format!("{}[\"{key}\"]", self.0)),
        }
    }
    /// The path of an element below this one.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
    /// The path of the object or list that this field is part of; the root's is the root.
    #[must_use]
    pub fn parent(&self) -> Self {
        let end = match self.0.strip_suffix("\"]") {
            Some(quoted) => quoted.rfind("[\"").unwrap_or(0),
            None => self.0.rfind(['.', '[']).unwrap_or(0),
        };
        Self(self.0[..end].to_owned())
    }
    /// Whether `other` is this field or lies below it.
    pub fn contains(&self, other: &Self) -> bool {
        match other.0.strip_prefix(&self.0) {
            Some(rest) => self.0.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']),
            None => false,
        }
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for FieldPath {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A range of bytes in one file, with its first line and column.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The source's id; empty for input that is no source.
    pub source: Name,
    /// The file's path within the source.
    pub file: Name,
    /// The line, from 1; 0 when the whole file is meant.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// How bad a violation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// The document is not admitted.
    Error,
    /// The document is admitted; its author should know.
    Warning,
}

/// One thing that is wrong with a value, before it is known in which file it stands. Rules give these; the reader places them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The code, which has a page of its own.
    pub code: crate::codes::Code,
    /// Which field.
    pub path: FieldPath,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it; may be empty.
    pub help: String,
}

impl Problem {
    /// An error without help.
    pub fn error(code: crate::codes::Code, path: FieldPath, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, path, message: message.into(), help: String::new() }
    }

    /// A warning without help.
    pub fn warning(code: crate::codes::Code, path: FieldPath, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, path, message) }
    }

    /// The same with help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// The same as a violation of `object` at `place`.
    pub fn placed(self, object: Option<ObjectKey>, place: Option<Place>) -> Violation {
        let Self { severity, code, path, message, help } = self;
        Violation { severity, code, object, path, message, help, place, related: Vec::new() }
    }
}

/// One thing that is wrong with user input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// How bad it is.
    pub severity: Severity,
    /// The code, which has a page of its own.
    pub code: crate::codes::Code,
    /// Which object, where that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectKey>,
    /// Which field.
    pub path: FieldPath,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// Where it stands; absent for input without a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Other places that belong to it (the first of two duplicates, the edges of a cycle), each with what it shows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<(Place, String)>,
}
