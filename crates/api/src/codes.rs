//! Owns the codes of violations; each has a page in docs/errors.
//!
//! A code is never given a new meaning, and never taken away: people and programs know it by its number. Start at [`Code::all`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// A code of a violation. Its serialized form is its number, e.g. `QM0001`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Code {
    /// The text is no YAML.
    #[serde(rename = "QM0001")]
    Syntax,
    /// Bytes that no manifest may have.
    #[serde(rename = "QM0002")]
    Encoding,
    /// A limit on size, nesting, nodes or documents.
    #[serde(rename = "QM0003")]
    TooLarge,
    /// The same key twice in one map.
    #[serde(rename = "QM0004")]
    DuplicateKey,
    /// Tags of applications, keys that are no text, and the like.
    #[serde(rename = "QM0005")]
    UnsupportedYaml,
    /// No such kind, or no such version of the API.
    #[serde(rename = "QM0006")]
    UnknownKind,
    /// A key that the schema does not have.
    #[serde(rename = "QM0007")]
    UnknownField,
    /// A text where a number is wanted, and so on.
    #[serde(rename = "QM0008")]
    WrongType,
    /// A word that is not in the list of allowed ones.
    #[serde(rename = "QM0009")]
    WrongValue,
    /// Too small, too large, too short, too long.
    #[serde(rename = "QM0010")]
    OutOfRange,
    /// A field that must be there is not.
    #[serde(rename = "QM0011")]
    Missing,
    /// A duration, size, signal, path, address or the like cannot be read.
    #[serde(rename = "QM0012")]
    BadFormat,
    /// A name, namespace, label or annotation with a bad form.
    #[serde(rename = "QM0013")]
    BadName,
    /// Status and system metadata in a file.
    #[serde(rename = "QM0014")]
    Ignored,
    /// Two documents with the same kind, namespace and name.
    #[serde(rename = "QM0015")]
    Duplicate,
    /// A service joins a network that no document declares.
    #[serde(rename = "QM0016")]
    UnknownNetwork,
    /// dependsOn names a node that does not exist.
    #[serde(rename = "QM0017")]
    UnknownDependency,
    /// Services that wait for each other.
    #[serde(rename = "QM0018")]
    Cycle,
    /// None or more than one of the alternatives is given.
    #[serde(rename = "QM0019")]
    OneOf,
    /// A form that this release does not have.
    #[serde(rename = "QM0020")]
    NotSupported,
    /// A setting that this release accepts and does not act on.
    #[serde(rename = "QM0021")]
    NotInEffect,
    /// One host port, two listeners.
    #[serde(rename = "QM0022")]
    PortConflict,
    /// StartFirst with something that only one container can have.
    #[serde(rename = "QM0023")]
    StartFirstConflict,
    /// A writable volume in several containers.
    #[serde(rename = "QM0024")]
    SharedVolume,
    /// The same target twice, or a target that cannot be.
    #[serde(rename = "QM0025")]
    MountConflict,
    /// A subnet, gateway or address that cannot be right.
    #[serde(rename = "QM0026")]
    BadAddress,
    /// Two networks of the set share addresses.
    #[serde(rename = "QM0027")]
    SubnetOverlap,
    /// A config or env file is missing or refused.
    #[serde(rename = "QM0028")]
    Attachment,
    /// Labels that the operator or Compose owns.
    #[serde(rename = "QM0029")]
    Reserved,
    /// Each is fine alone; together they have no meaning.
    #[serde(rename = "QM0030")]
    BadCombination,
    /// No valid image reference.
    #[serde(rename = "QM0031")]
    BadImage,
    /// A file of the source could not be read.
    #[serde(rename = "QM0032")]
    Unreadable,
}

/// What is fixed about a code.
struct Entry {
    code: Code,
    text: &'static str,
    title: &'static str,
    page: &'static str,
}

/// One line a code, in the order of the enum.
const TABLE: [Entry; 32] = [
    Entry { code: Code::Syntax, text: "QM0001", title: "The text is not YAML", page: include_str!("../../../docs/errors/QM0001.md") },
    Entry {
        code: Code::Encoding,
        text: "QM0002",
        title: "The file is not clean UTF-8 text",
        page: include_str!("../../../docs/errors/QM0002.md"),
    },
    Entry {
        code: Code::TooLarge,
        text: "QM0003",
        title: "A limit of the manifest reader is exceeded",
        page: include_str!("../../../docs/errors/QM0003.md"),
    },
    Entry {
        code: Code::DuplicateKey,
        text: "QM0004",
        title: "A key stands twice in one map",
        page: include_str!("../../../docs/errors/QM0004.md"),
    },
    Entry {
        code: Code::UnsupportedYaml,
        text: "QM0005",
        title: "A YAML feature that manifests do not use",
        page: include_str!("../../../docs/errors/QM0005.md"),
    },
    Entry {
        code: Code::UnknownKind,
        text: "QM0006",
        title: "The kind or API version is not known",
        page: include_str!("../../../docs/errors/QM0006.md"),
    },
    Entry {
        code: Code::UnknownField,
        text: "QM0007",
        title: "The field does not exist",
        page: include_str!("../../../docs/errors/QM0007.md"),
    },
    Entry {
        code: Code::WrongType,
        text: "QM0008",
        title: "The value has the wrong type",
        page: include_str!("../../../docs/errors/QM0008.md"),
    },
    Entry {
        code: Code::WrongValue,
        text: "QM0009",
        title: "The value is not one of those allowed",
        page: include_str!("../../../docs/errors/QM0009.md"),
    },
    Entry {
        code: Code::OutOfRange,
        text: "QM0010",
        title: "The number or length is out of range",
        page: include_str!("../../../docs/errors/QM0010.md"),
    },
    Entry {
        code: Code::Missing,
        text: "QM0011",
        title: "A required field is missing",
        page: include_str!("../../../docs/errors/QM0011.md"),
    },
    Entry {
        code: Code::BadFormat,
        text: "QM0012",
        title: "The text does not have the form it must have",
        page: include_str!("../../../docs/errors/QM0012.md"),
    },
    Entry { code: Code::BadName, text: "QM0013", title: "The name is not allowed", page: include_str!("../../../docs/errors/QM0013.md") },
    Entry {
        code: Code::Ignored,
        text: "QM0014",
        title: "The field has no place in a manifest and is ignored",
        page: include_str!("../../../docs/errors/QM0014.md"),
    },
    Entry {
        code: Code::Duplicate,
        text: "QM0015",
        title: "The object is declared twice",
        page: include_str!("../../../docs/errors/QM0015.md"),
    },
    Entry {
        code: Code::UnknownNetwork,
        text: "QM0016",
        title: "The network is not declared",
        page: include_str!("../../../docs/errors/QM0016.md"),
    },
    Entry {
        code: Code::UnknownDependency,
        text: "QM0017",
        title: "The dependency does not exist",
        page: include_str!("../../../docs/errors/QM0017.md"),
    },
    Entry {
        code: Code::Cycle,
        text: "QM0018",
        title: "The dependencies form a cycle",
        page: include_str!("../../../docs/errors/QM0018.md"),
    },
    Entry {
        code: Code::OneOf,
        text: "QM0019",
        title: "Exactly one of several fields is wanted",
        page: include_str!("../../../docs/errors/QM0019.md"),
    },
    Entry { code: Code::NotSupported, text: "QM0020", title: "Not supported yet", page: include_str!("../../../docs/errors/QM0020.md") },
    Entry {
        code: Code::NotInEffect,
        text: "QM0021",
        title: "Valid, but not in effect yet",
        page: include_str!("../../../docs/errors/QM0021.md"),
    },
    Entry {
        code: Code::PortConflict,
        text: "QM0022",
        title: "A host port is published twice",
        page: include_str!("../../../docs/errors/QM0022.md"),
    },
    Entry {
        code: Code::StartFirstConflict,
        text: "QM0023",
        title: "StartFirst cannot work here",
        page: include_str!("../../../docs/errors/QM0023.md"),
    },
    Entry {
        code: Code::SharedVolume,
        text: "QM0024",
        title: "Several containers write one volume",
        page: include_str!("../../../docs/errors/QM0024.md"),
    },
    Entry {
        code: Code::MountConflict,
        text: "QM0025",
        title: "Two things are mounted at one place",
        page: include_str!("../../../docs/errors/QM0025.md"),
    },
    Entry {
        code: Code::BadAddress,
        text: "QM0026",
        title: "The address does not fit",
        page: include_str!("../../../docs/errors/QM0026.md"),
    },
    Entry { code: Code::SubnetOverlap, text: "QM0027", title: "Two subnets overlap", page: include_str!("../../../docs/errors/QM0027.md") },
    Entry {
        code: Code::Attachment,
        text: "QM0028",
        title: "A file that the manifest refers to cannot be used",
        page: include_str!("../../../docs/errors/QM0028.md"),
    },
    Entry {
        code: Code::Reserved,
        text: "QM0029",
        title: "The label or name is reserved",
        page: include_str!("../../../docs/errors/QM0029.md"),
    },
    Entry {
        code: Code::BadCombination,
        text: "QM0030",
        title: "These settings do not go together",
        page: include_str!("../../../docs/errors/QM0030.md"),
    },
    Entry {
        code: Code::BadImage,
        text: "QM0031",
        title: "The image reference cannot be read",
        page: include_str!("../../../docs/errors/QM0031.md"),
    },
    Entry {
        code: Code::Unreadable,
        text: "QM0032",
        title: "The file cannot be read",
        page: include_str!("../../../docs/errors/QM0032.md"),
    },
];

impl Code {
    /// All codes, in order.
    pub fn all() -> impl Iterator<Item = Code> {
        TABLE.iter().map(|entry| entry.code)
    }

    /// The code with this number, in upper or lower case.
    pub fn parse(text: &str) -> Option<Self> {
        TABLE.iter().find(|entry| entry.text.eq_ignore_ascii_case(text)).map(|entry| entry.code)
    }

    /// Its number, e.g. `QM0001`.
    pub fn as_str(self) -> &'static str {
        self.entry().text
    }

    /// What it means, in a few words.
    pub fn title(self) -> &'static str {
        self.entry().title
    }

    /// Its page, in Markdown.
    pub fn page(self) -> &'static str {
        self.entry().page
    }

    fn entry(self) -> &'static Entry {
        &TABLE[self as usize]
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_every_page_has_its_title() {
        for (at, entry) in TABLE.iter().enumerate() {
            assert_eq!(entry.code as usize, at);
            assert_eq!(entry.text, format!("QM{:04}", at + 1));
            assert_eq!(serde_json::to_value(entry.code).unwrap(), entry.text);
            assert_eq!(Code::parse(&entry.text.to_lowercase()), Some(entry.code));
            assert_eq!(entry.page.lines().next(), Some(format!("# {}: {}", entry.text, entry.title).as_str()));
            for part in ["## What it means", "## Example", "## What to do"] {
                assert!(entry.page.contains(part), "{}: {part}", entry.text);
            }
        }
    }
}
