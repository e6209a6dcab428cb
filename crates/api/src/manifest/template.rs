//! Owns what a MiniContainer makes from its template: one mini service for each of its items, checked as if it had been written out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Document;
use super::document::{Checking, add};
use super::tree::{Node, Span};
use super::walk::Findings;
use crate::admit::facts;
use crate::codes::Code;
use crate::field::{FieldPath, Problem, Severity};
use crate::kinds::mini_container::{Item, MiniContainerSpec, Template, expand, fill};
use crate::kinds::mini_service;
use crate::meta::ObjectKey;
use crate::name::Name;
use crate::registry::AnySpec;
use crate::spec::names;

/// Where the spec of what is made stands.
const SPEC: &str = "spec.template.spec";

/// What the template makes. Problems of it are told once, with the item that has them first: the others mostly have them too.
pub(super) fn children(parent: &MiniContainerSpec, checking: &Checking<'_>, findings: &mut Findings) -> Vec<Document> {
    let Some(template) = &parent.template else { return Vec::new() };
    let mut made = Vec::new();
    for (index, item) in parent.items.iter().enumerate() {
        if names::label_error(&item.name).is_some() {
            continue;
        }
        let before = findings.0.len();
        if let Some(document) = child(template, item, index, checking, findings) {
            made.push(document);
        }
        if findings.0[before..].iter().any(|(problem, _)| problem.severity == Severity::Error) {
            break;
        }
    }
    made
}

fn child(template: &Template, item: &Item, index: usize, checking: &Checking<'_>, findings: &mut Findings) -> Option<Document> {
    let parent = checking.key;
    let name = format!("{}-{}", parent.name, item.name);
    let at_item = FieldPath::from("spec.items").index(index).key("name");
    let span = checking.node.locate(&at_item);
    if let Some(problem) = names::label_error(&name) {
        let message = format!("the mini service of the item `{}` cannot be called `{name}`", item.name);
        add(findings, Problem::error(Code::BadName, at_item, message).help(problem), span);
        return None;
    }
    let at = FieldPath::from(SPEC);
    let said = |problem: Problem| Problem { message: format!("{} (in the item `{}`)", problem.message, item.name), ..problem };
    let unknown = |word: String| {
        let keys: Vec<&str> = item.values.keys().map(String::as_str).collect();
        let has = if keys.is_empty() { "it has none".to_owned() } else { format!("it has {}", keys.join(", ")) };
        let message = format!("`{word}` is no value of the item `{}`", item.name);
        Problem::error(Code::BadFormat, at.clone(), message).help(format!("add it to the item's `values`; {has}"))
    };
    let spec = match expand(&template.spec, &parent.namespace, item) {
        Ok(spec) => spec,
        Err(word) => {
            add(findings, unknown(word), span);
            return None;
        }
    };
    let typed = match AnySpec::from_value(mini_service::KIND, &spec)? {
        Ok(typed) => typed,
        Err(error) => {
            let problem = Problem::error(Code::WrongType, at, format!("the template cannot be read: {error}"));
            add(findings, said(problem), span);
            return None;
        }
    };
    for problem in typed.validate(&at) {
        let place = checking.node.locate(&problem.path);
        add(findings, said(problem), place);
    }
    let labels = match labels(template, &parent.namespace, item) {
        Ok(labels) => labels,
        Err(problem) => {
            add(findings, said(problem), span);
            return None;
        }
    };
    Some(Document {
        key: ObjectKey::new(mini_service::KIND, parent.namespace.clone(), name),
        labels,
        annotations: BTreeMap::new(),
        spec: Arc::new(spec),
        span,
        facts: facts::of(&typed, &parent.namespace, checking.manifest, &|path| locate(checking.node, path)),
        owner: Some(parent.clone()),
    })
}

/// A place in what is made is one in the template.
fn locate(node: &Node, path: &FieldPath) -> Span {
    let rest = path.as_str().strip_prefix("spec").unwrap_or_default();
    node.locate(&FieldPath::from(format!("{SPEC}{rest}").as_str()))
}

fn labels(template: &Template, namespace: &str, item: &Item) -> Result<BTreeMap<Name, Name>, Problem> {
    let mut labels = BTreeMap::new();
    for (key, value) in &template.labels {
        let path = FieldPath::from("spec.template.labels").key(key);
        let bad = |message: String, help: &str| Problem::error(Code::BadName, path.clone(), message).help(help);
        let value = fill(value.as_str(), namespace, item).map_err(|word| bad(format!("`{word}` is no value of the item"), ""))?;
        if key.starts_with("quaymaster.dev/") {
            return Err(Problem::error(Code::Reserved, path, format!("`{key}` is reserved")).help("choose another one"));
        }
        if let Some(problem) = names::label_key_error(key).or_else(|| names::label_value_error(&value)) {
            return Err(bad(format!("`{key}: {value}` cannot be a label"), problem));
        }
        labels.insert(key.as_str().into(), value.into());
    }
    Ok(labels)
}

/// The paths that `written` stands for in a spec: itself or, in a template, one for each item.
pub(super) fn written_paths(spec: &Node, written: &str) -> Vec<String> {
    if spec.get("template").is_none() {
        return vec![written.to_owned()];
    }
    let items = spec.get("items").map_or(&[][..], Node::items);
    items.iter().filter_map(|node| fill(written, "", &item(node)).ok()).collect()
}

fn item(node: &Node) -> Item {
    let text = |node: Option<&Node>| node.and_then(Node::text).unwrap_or_default().to_owned();
    let values = match node.get("values").map(|values| &values.content) {
        Some(super::tree::Content::Map(entries)) => {
            entries.iter().filter_map(|entry| Some((entry.key.to_string(), entry.value.text()?.into()))).collect()
        }
        _ => BTreeMap::new(),
    };
    Item { name: text(node.get("name")), values }
}

/// The spec as a node's reader wants it: for a template, what it makes.
pub(super) fn made_spec(spec: &Node) -> &Node {
    spec.get("template").and_then(|template| template.get("spec")).unwrap_or(spec)
}
