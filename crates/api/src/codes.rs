//! Owns the codes of violations; each has a page in docs/errors.

use serde::{Deserialize, Serialize};

/// A code of a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Code {
    /// The text is no YAML.
    #[serde(rename = "QM0001")]
    Syntax,
}
