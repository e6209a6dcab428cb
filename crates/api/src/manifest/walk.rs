//! Owns the walk of a positioned tree against a compiled schema. It gives the JSON value as the user wrote it and everything that is
//! wrong, at once; a bad part is left out of the value.

use serde_json::{Map, Number, Value};

use super::tree::{Content, Entry, Node, ScalarKind, Span, parse_integer};
use super::yaml::shorten;
use crate::codes::Code;
use crate::field::{FieldPath, Problem};
use crate::schema::{Field, Shape, TextShape};
use crate::spec::quantity::check_format;

/// What a walk found, each with its place.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<(Problem, Span)>);

impl Findings {
    /// Nobody reads more; finding near words for all of them would only cost time.
    fn is_full(&self) -> bool {
        self.0.len() >= super::MAX_VIOLATIONS
    }

    fn error(&mut self, code: Code, path: &FieldPath, span: Span, message: String, help: String) {
        self.0.push((Problem::error(code, path.clone(), message).help(help), span));
    }
}

/// Walks `node` at `path`; `at` is where a list or map is pointed at. `None` when nothing usable is there.
pub fn walk(shape: &Shape, node: &Node, at: Span, path: &FieldPath, findings: &mut Findings) -> Option<Value> {
    let span = if matches!(node.content, Content::Scalar(..)) && !node.is_null() { node.span } else { at };
    if node.is_null() {
        let help = if matches!(shape, Shape::Text(_) | Shape::Scalar(_)) {
            "write \"\" for an empty text"
        } else {
            "give it a value, or remove it"
        };
        findings.error(Code::WrongType, path, span, format!("`{path}` has no value"), help.to_owned());
        return None;
    }
    let value = match (shape, &node.content) {
        (Shape::Object(fields), Content::Map(entries)) => return Some(walk_object(fields, entries, at, path, findings)),
        (Shape::Map(shape), Content::Map(entries)) => {
            let mut map = Map::new();
            for entry in entries {
                if let Some(value) = walk(shape, &entry.value, entry.span, &path.key(&entry.key), findings) {
                    map.insert(entry.key.to_string(), value);
                }
            }
            Some(Value::Object(map))
        }
        (Shape::List(shape), Content::List(items)) => {
            let walked = items.iter().enumerate().filter_map(|(i, item)| walk(shape, item, item.span, &path.index(i), findings));
            Some(Value::Array(walked.collect()))
        }
        (Shape::Any, _) => to_json(node),
        (Shape::Text(limits), Content::Scalar(text, kind)) if *kind == ScalarKind::Text || is_zero_duration(limits, text) => {
            return check_text(limits, text, path, span, findings).then(|| Value::from(&**text));
        }
        (Shape::Scalar(limits), Content::Scalar(text, _)) => {
            return check_text(limits, text, path, span, findings).then(|| Value::from(&**text));
        }
        (Shape::Enum(words), Content::Scalar(text, _)) => return check_word(words, text, path, span, findings),
        (Shape::Integer(min, max), Content::Scalar(text, ScalarKind::Integer)) => {
            return check_integer(*min, *max, text, path, span, findings);
        }
        (Shape::Number, Content::Scalar(_, ScalarKind::Integer | ScalarKind::Float))
        | (Shape::Bool, Content::Scalar(_, ScalarKind::Bool)) => to_json(node),
        _ => None,
    };
    if value.is_none() {
        let message = format!("`{path}` must be {}, not {}", wanted(shape), node.describe());
        findings.error(Code::WrongType, path, span, message, type_help(shape, node));
    }
    value
}

fn is_zero_duration(limits: &TextShape, text: &str) -> bool {
    text == "0" && &*limits.format == "quaymaster-duration"
}

fn walk_object(
    fields: &std::collections::BTreeMap<Box<str>, Field>,
    entries: &[Entry],
    at: Span,
    path: &FieldPath,
    findings: &mut Findings,
) -> Value {
    let mut map = Map::new();
    for entry in entries {
        let below = path.key(&entry.key);
        let Some(field) = fields.get(&entry.key) else {
            if findings.is_full() {
                continue;
            }
            let message = format!("there is no field `{}` {}", shorten(&entry.key), within(path));
            findings.error(Code::UnknownField, &below, entry.span, message, field_help(&entry.key, fields));
            continue;
        };
        // `key:` with nothing behind it is how people leave a field out.
        if entry.value.is_null() {
            continue;
        }
        if let Some(value) = walk(&field.shape, &entry.value, entry.span, &below, findings) {
            map.insert(entry.key.to_string(), value);
        }
    }
    let has = |name: &str| entries.iter().any(|entry| &*entry.key == name && !entry.value.is_null());
    for (name, _) in fields.iter().filter(|(name, field)| field.required && !has(name)) {
        let span = entries.iter().find(|entry| entry.key == *name).map_or(at, |entry| entry.span);
        findings.error(Code::Missing, &path.key(name), span, format!("`{name}` is missing {}", within(path)), format!("add `{name}`"));
    }
    Value::Object(map)
}

fn within(path: &FieldPath) -> String {
    if path.as_str().is_empty() { "in the document".to_owned() } else { format!("in `{path}`") }
}

fn field_help(key: &str, fields: &std::collections::BTreeMap<Box<str>, Field>) -> String {
    if let Some(name) = suggest(key, fields.keys().map(|name| &**name)) {
        return format!("did you mean `{name}`?");
    }
    match fields.len() {
        0 => "it has no fields".to_owned(),
        1..=12 => format!("its fields are {}", list_words(fields.keys().map(|name| &**name))),
        _ => String::new(),
    }
}

/// Whether the text can be decoded: one of a wrong length can, and then the rules of the kind see the rest.
fn check_text(limits: &TextShape, text: &str, path: &FieldPath, span: Span, findings: &mut Findings) -> bool {
    let length = text.chars().count();
    if length < limits.min {
        let message = if length == 0 { format!("`{path}` is empty") } else { format!("`{path}` has fewer than {} characters", limits.min) };
        findings.error(Code::OutOfRange, path, span, message, format!("at least {} are needed", limits.min));
        return true;
    }
    if let Some(max) = limits.max.filter(|max| length > *max) {
        findings.error(Code::OutOfRange, path, span, format!("`{path}` has {length} characters"), format!("at most {max} are allowed"));
        return true;
    }
    match check_format(&limits.format, text) {
        Ok(()) => true,
        Err(error) => {
            let text = error.to_string();
            let (message, help) = text.split_once(": ").unwrap_or((&text, ""));
            findings.error(Code::BadFormat, path, span, format!("`{path}`: {}", shorten_middle(message)), help.to_owned());
            false
        }
    }
}

/// A parser's message quotes its input, which may be long.
fn shorten_middle(message: &str) -> String {
    let count = message.chars().count();
    if count <= 160 {
        return message.to_owned();
    }
    let head: String = message.chars().take(80).collect();
    let tail: String = message.chars().skip(count - 40).collect();
    format!("{head}...{tail}")
}

fn check_word(words: &[Box<str>], text: &str, path: &FieldPath, span: Span, findings: &mut Findings) -> Option<Value> {
    if words.iter().any(|word| **word == *text) {
        return Some(Value::from(text));
    }
    let all = || words.iter().map(|word| &**word);
    let allowed = if words.len() == 1 { format!("it must be {}", list_words(all())) } else { format!("allowed are {}", list_words(all())) };
    let help = match suggest(text, all()) {
        Some(word) if words.len() > 1 => format!("did you mean `{word}`? {allowed}"),
        _ => allowed,
    };
    findings.error(Code::WrongValue, path, span, format!("`{path}` cannot be `{}`", shorten(text)), help);
    None
}

fn check_integer(min: i128, max: i128, text: &str, path: &FieldPath, span: Span, findings: &mut Findings) -> Option<Value> {
    match parse_integer(text).filter(|number| (min..=max).contains(number)) {
        Some(number) => u64::try_from(number).map(Value::from).or_else(|_| i64::try_from(number).map(Value::from)).ok(),
        None => {
            let range = if max == i64::MAX.into() || max >= u32::MAX.into() {
                format!("it must be at least {min}")
            } else {
                format!("it must be from {min} to {max}")
            };
            findings.error(Code::OutOfRange, path, span, format!("`{path}` cannot be {}", shorten(text)), range);
            None
        }
    }
}

fn wanted(shape: &Shape) -> &'static str {
    match shape {
        Shape::Object(_) | Shape::Map(_) => "a map",
        Shape::List(_) => "a list",
        Shape::Enum(_) => "one word",
        Shape::Text(_) => "a text",
        Shape::Scalar(_) => "a text or a number",
        Shape::Integer(..) => "a whole number",
        Shape::Number => "a number",
        Shape::Bool => "true or false",
        Shape::Any => "a value",
    }
}

fn type_help(shape: &Shape, node: &Node) -> String {
    match (shape, &node.content) {
        (Shape::Text(limits), Content::Scalar(text, ScalarKind::Integer)) if &*limits.format == "quaymaster-duration" => {
            format!("write it with a unit: {text}s, {text}m or {text}h", text = shorten(text))
        }
        (Shape::Text(_), Content::Scalar(text, _)) => format!("write it in quotes: \"{}\"", shorten(text)),
        (Shape::Text(_), _) => "write a single text".to_owned(),
        (Shape::Integer(..) | Shape::Number, Content::Scalar(text, ScalarKind::Text)) if parse_integer(text.trim()).is_some() => {
            format!("write it without quotes: {}", text.trim())
        }
        (Shape::Integer(..), Content::Scalar(_, ScalarKind::Float)) => "write it without a fraction".to_owned(),
        (Shape::Bool, Content::Scalar(text, _)) => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" | "1" => "write true".to_owned(),
            "no" | "off" | "n" | "false" | "0" => "write false".to_owned(),
            _ => "write true or false".to_owned(),
        },
        (Shape::List(_), Content::Scalar(text, _)) if text.len() <= 60 => format!("write it as a list: [{}]", Value::from(&**text)),
        (Shape::List(_), Content::Map(_)) => "write each element on a line of its own that begins with `- `".to_owned(),
        (Shape::Map(_), Content::List(_)) => "write `key: value` lines instead of a list".to_owned(),
        (Shape::Object(fields), Content::Scalar(text, _)) if fields.contains_key("service") => {
            format!("write {{service: {}}}", shorten(text))
        }
        (Shape::Object(fields), _) if fields.len() <= 12 => format!("its fields are {}", list_words(fields.keys().map(|name| &**name))),
        _ => String::new(),
    }
}

/// The JSON of any tree; `None` when a number in it has no JSON form.
pub fn to_json(node: &Node) -> Option<Value> {
    match &node.content {
        Content::List(items) => items.iter().map(to_json).collect::<Option<Vec<_>>>().map(Value::Array),
        Content::Map(entries) => {
            let pairs = entries.iter().map(|entry| Some((entry.key.to_string(), to_json(&entry.value)?)));
            pairs.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        Content::Scalar(text, kind) => match kind {
            ScalarKind::Null => Some(Value::Null),
            ScalarKind::Bool => Some(Value::Bool(text.eq_ignore_ascii_case("true"))),
            ScalarKind::Text => Some(Value::from(&**text)),
            ScalarKind::Integer => match parse_integer(text) {
                Some(number) => u64::try_from(number)
                    .map(Value::from)
                    .or_else(|_| i64::try_from(number).map(Value::from))
                    .ok()
                    .or_else(|| Number::from_f64(number as f64).map(Value::Number)),
                None => text.parse().ok().and_then(Number::from_f64).map(Value::Number),
            },
            ScalarKind::Float => text.parse().ok().and_then(Number::from_f64).map(Value::Number),
        },
    }
}

/// The word among `options` that was most likely meant.
pub fn suggest<'a>(word: &str, options: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 80 {
        return None;
    }
    let plain = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let word = plain(word);
    let limit = (word.chars().count() / 3).clamp(1, 3);
    options
        .filter_map(|option| {
            let other = plain(option);
            let distance = strsim::damerau_levenshtein(&word, &other);
            let is_near = distance <= limit && distance < other.chars().count();
            // `restartPolicy` for `restart`.
            let is_longer = other.len() >= 5 && word.starts_with(&other);
            (is_near || is_longer).then_some((distance, option))
        })
        .min()
        .map(|(_, option)| option)
}

/// Words in a row: `a`, `b` and `c`.
pub fn list_words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    match words.as_slice() {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
