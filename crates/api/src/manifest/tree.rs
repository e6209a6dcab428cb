//! Owns the positioned tree: what a document says, each value with the place it stands at. YAML and JSON both become this tree, so
//! that there is one admission.

use serde_json::Value;

use crate::field::{FieldPath, Place};
use crate::name::Name;

/// A place within one file. Line 0 means that there is no text, as for input over the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Span {
    /// The same place with the file's name; `None` for input without a text.
    pub fn place(self, source: &Name, file: &Name) -> Option<Place> {
        (self.line > 0).then(|| Place {
            source: source.clone(),
            file: file.clone(),
            line: self.line,
            column: self.column,
            start: self.start as usize,
            end: self.end as usize,
        })
    }
}

/// One value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands; for a list or map, its first key or element.
    pub span: Span,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A single value, as its source text.
    Scalar(Box<str>, ScalarKind),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the text; keys are unique.
    Map(Vec<Entry>),
}

/// The type of a scalar in the core schema of YAML 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarKind {
    /// No value.
    Null,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// Any other number.
    Float,
    /// A text.
    Text,
}

/// One key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Box<str>,
    /// Where the key stands.
    pub span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The tree of a JSON value, without places.
    pub fn from_json(value: &Value) -> Self {
        let content = match value {
            Value::Null => Content::Scalar("null".into(), ScalarKind::Null),
            Value::Bool(value) => Content::Scalar(value.to_string().into(), ScalarKind::Bool),
            Value::Number(number) => {
                let kind = if number.is_f64() { ScalarKind::Float } else { ScalarKind::Integer };
                Content::Scalar(number.to_string().into(), kind)
            }
            Value::String(text) => Content::Scalar(text.as_str().into(), ScalarKind::Text),
            Value::Array(items) => Content::List(items.iter().map(Self::from_json).collect()),
            Value::Object(map) => Content::Map(
                map.iter()
                    .map(|(key, value)| Entry { key: key.as_str().into(), span: Span::default(), value: Self::from_json(value) })
                    .collect(),
            ),
        };
        Self { span: Span::default(), content }
    }

    /// The entry of `key`, when this is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|entry| &*entry.key == key),
            _ => None,
        }
    }

    /// The value of `key`, when this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The source text of a scalar with a value.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(text, kind) if *kind != ScalarKind::Null => Some(text),
            _ => None,
        }
    }

    /// Whether there is no value.
    pub fn is_null(&self) -> bool {
        matches!(self.content, Content::Scalar(_, ScalarKind::Null))
    }

    /// The elements, when this is a list.
    pub fn items(&self) -> &[Node] {
        match &self.content {
            Content::List(items) => items,
            _ => &[],
        }
    }

    /// What it is, in words.
    pub fn describe(&self) -> &'static str {
        match &self.content {
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
            Content::Scalar(_, ScalarKind::Null) => "no value",
            Content::Scalar(_, ScalarKind::Bool) => "true or false",
            Content::Scalar(_, ScalarKind::Integer | ScalarKind::Float) => "a number",
            Content::Scalar(_, ScalarKind::Text) => "a text",
        }
    }

    /// Where the field at `path` stands, or the nearest thing above it that is there. A list or map is pointed at by its key.
    pub fn locate(&self, path: &FieldPath) -> Span {
        let (mut node, mut span, mut rest) = (self, self.span, path.as_str());
        while let Some((segment, tail)) = next_segment(rest) {
            let below = match (segment, &node.content) {
                (Segment::Key(key), Content::Map(_)) => node.entry(key).map(|entry| (&entry.value, entry.span)),
                (Segment::Index(at), Content::List(items)) => items.get(at).map(|item| (item, item.span)),
                _ => None,
            };
            let Some((value, at)) = below else { break };
            span = if matches!(value.content, Content::Scalar(..)) && !value.is_null() { value.span } else { at };
            (node, rest) = (value, tail);
        }
        span
    }
}

enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

fn next_segment(path: &str) -> Option<(Segment<'_>, &str)> {
    let path = path.strip_prefix('.').unwrap_or(path);
    if let Some(quoted) = path.strip_prefix("[\"") {
        let (key, rest) = quoted.split_once("\"]")?;
        return Some((Segment::Key(key), rest));
    }
    if let Some(bracket) = path.strip_prefix('[') {
        let (index, rest) = bracket.split_once(']')?;
        return Some((Segment::Index(index.parse().ok()?), rest));
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    (end > 0).then(|| (Segment::Key(&path[..end]), &path[end..]))
}

/// The type of an unquoted scalar in the core schema of YAML 1.2. `yes`, `no`, `on` and `off` are texts.
pub fn classify(text: &str) -> ScalarKind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return ScalarKind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return ScalarKind::Bool,
        ".nan" | ".NaN" | ".NAN" => return ScalarKind::Float,
        _ => {}
    }
    if parse_integer(text).is_some() {
        return ScalarKind::Integer;
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return ScalarKind::Integer; // too long to count, still a number
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || is_float(unsigned) { ScalarKind::Float } else { ScalarKind::Text }
}

fn is_float(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let some = !whole.is_empty() || !fraction.is_empty();
    some && digits(whole) && digits(fraction) && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

/// Reads a whole number of the core schema: decimal, `0o17` or `0xff`.
pub fn parse_integer(text: &str) -> Option<i128> {
    let digits_only = |digits: &str| digits.bytes().all(|b| b.is_ascii_alphanumeric());
    if let Some(octal) = text.strip_prefix("0o") {
        return i128::from_str_radix(octal, 8).ok().filter(|_| digits_only(octal));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return i128::from_str_radix(hex, 16).ok().filter(|_| digits_only(hex));
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_have_the_types_of_the_core_schema() {
        use ScalarKind::*;
        let table = [
            ("", Null),
            ("~", Null),
            ("null", Null),
            ("true", Bool),
            ("False", Bool),
            ("yes", Text),
            ("no", Text),
            ("on", Text),
            ("off", Text),
            ("0", Integer),
            ("-12", Integer),
            ("+3", Integer),
            ("0o17", Integer),
            ("0xFF", Integer),
            ("0x-1", Text),
            ("99999999999999999999999999999999999999999999", Integer),
            ("1.10", Float),
            (".5", Float),
            ("5.", Float),
            ("1e3", Float),
            ("1e", Text),
            (".", Text),
            ("-", Text),
            ("e3", Text),
            (".inf", Float),
            ("-.inf", Float),
            (".nan", Float),
            ("1.2.3", Text),
            ("12:30", Text),
            ("1_000", Text),
        ];
        for (text, kind) in table {
            assert_eq!(classify(text), kind, "{text:?}");
        }
    }
}
