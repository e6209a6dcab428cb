//! Owns the best effort on a text that cannot be read: does it mean us, and of which namespaces does it speak.

use std::collections::BTreeSet;

use crate::meta::{DEFAULT_NAMESPACE, GROUP};
use crate::name::Name;
use crate::spec::names;

/// Whether the bytes name our API group.
pub(super) fn names_group(bytes: &[u8]) -> bool {
    bytes.windows(GROUP.len()).any(|window| window == GROUP.as_bytes())
}

/// The namespaces of the documents that name our API group, read line by line.
pub(super) fn namespaces(bytes: &[u8]) -> BTreeSet<Name> {
    let text = String::from_utf8_lossy(bytes);
    let mut found = BTreeSet::new();
    let mut chunk: Vec<&str> = Vec::new();
    for line in text.lines().chain(["---"]) {
        if !line.starts_with("---") {
            chunk.push(line);
            continue;
        }
        if chunk.iter().any(|line| line.contains(GROUP)) {
            found.insert(namespace_of(&chunk));
        }
        chunk.clear();
    }
    found
}

/// The first `namespace` before `spec` begins; an edge has one too, but after it.
fn namespace_of(chunk: &[&str]) -> Name {
    for line in chunk {
        let (own, is_last) = match line.find("spec") {
            Some(at) if is_key(&line[at + 4..]) => (&line[..at], true),
            _ => (*line, false),
        };
        if let Some(at) = own.find("namespace")
            && let Some(value) = value_of(&own[at + "namespace".len()..])
        {
            return value;
        }
        if is_last {
            break;
        }
    }
    DEFAULT_NAMESPACE.into()
}

fn is_key(rest: &str) -> bool {
    rest.trim_start_matches(['"', '\'', ' ']).starts_with(':')
}

fn value_of(rest: &str) -> Option<Name> {
    let value = rest.trim_start_matches(['"', '\'', ' ']).strip_prefix(':')?;
    let value = value.trim_start_matches(['"', '\'', ' ']);
    let end = value.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(value.len());
    names::label_error(&value[..end]).is_none().then(|| value[..end].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_read_from_broken_texts() {
        let table: [(&str, &[&str]); 6] = [
            ("apiVersion: quaymaster.dev/v1alpha1\nmetadata:\n  namespace: shop\n  name: [\n", &["shop"]),
            ("apiVersion: quaymaster.dev/v1alpha1\nmetadata: {name: a, namespace: 'shop'\n", &["shop"]),
            ("{\"apiVersion\": \"quaymaster.dev/v1alpha1\", \"metadata\": {\"namespace\": \"b-1\"", &["b-1"]),
            ("apiVersion: quaymaster.dev/v1alpha1\nspec:\n  dependsOn: [{service: x, namespace: other}]\n  - [", &["default"]),
            ("a: quaymaster.dev\nnamespace: x\n---\nnamespace: foreign\n---\nb: quaymaster.dev\nnamespace: y", &["x", "y"]),
            ("nothing: [", &[]),
        ];
        for (text, expected) in table {
            let found = namespaces(text.as_bytes());
            assert_eq!(found.iter().map(Name::as_str).collect::<Vec<_>>(), expected, "{text}");
        }
    }
}
