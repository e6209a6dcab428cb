//! Owns the check of one document by itself: header, metadata, spec against its schema, the rules of its kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::tree::{Content, Node, Span};
use super::walk::{Findings, list_words, suggest, walk};
use super::{Document, template};
use crate::admit::facts;
use crate::codes::Code;
use crate::field::{FieldPath, Problem, Severity};
use crate::meta::{API_VERSION, DEFAULT_NAMESPACE, GROUP, ObjectKey};
use crate::name::Name;
use crate::registry::{self, AnySpec, Face};
use crate::schema::{Shape, TextShape};
use crate::spec::names;

/// Annotations of ours that a manifest may set.
const OUR_ANNOTATIONS: [&str; 1] = ["quaymaster.dev/adopt"];
/// As in Kubernetes.
const MAX_ANNOTATIONS_BYTES: usize = 256 << 10;
/// Metadata that the operator writes.
const SYSTEM_FIELDS: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// Where a document comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// A manifest.
    File,
    /// The API, where system metadata is part of every object.
    Api,
}

/// What was found of a document.
pub(super) struct Checked {
    /// Its address, as far as it could be read; `None` when not even the namespace could be.
    pub(super) key: Option<ObjectKey>,
    /// What is wrong with it.
    pub(super) problems: Vec<(Problem, Span)>,
    /// The document, when nothing is an error.
    pub(super) document: Option<Document>,
    /// What it makes, where it has a template.
    pub(super) children: Vec<Document>,
}

/// The document that is being checked.
pub(super) struct Checking<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) node: &'a Node,
    pub(super) manifest: Option<&'a Name>,
}

/// The documents that one YAML document stands for: itself, or the items of a list.
pub(super) fn items(root: &Node) -> Vec<&Node> {
    let kind = root.get("kind").and_then(Node::text).unwrap_or_default();
    let version = root.get("apiVersion").and_then(Node::text).unwrap_or_default();
    let is_list = (kind == "List" && version == "v1") || (kind.ends_with("List") && group_of(version) == GROUP);
    match root.get("items") {
        Some(items) if is_list && matches!(items.content, Content::List(_)) => items.items().iter().collect(),
        _ => vec![root],
    }
}

fn group_of(version: &str) -> &str {
    version.split_once('/').map_or(version, |(group, _)| group)
}

/// Whether a document means us: it names our group, or one of our kinds with no group or nearly ours.
pub(super) fn is_ours(node: &Node) -> bool {
    let kind = node.get("kind").and_then(Node::text).unwrap_or_default();
    match node.get("apiVersion").and_then(Node::text) {
        Some(version) if group_of(version) == GROUP => true,
        Some(version) => {
            registry::user_kinds().any(|ours| ours.kind == kind)
                && strsim::damerau_levenshtein(&group_of(version).chars().take(40).collect::<String>(), GROUP) <= 2
        }
        None => registry::user_kinds().any(|ours| ours.kind == kind) && node.get("metadata").is_some() && node.get("spec").is_some(),
    }
}

/// Checks a document of the manifest at `path`.
pub(super) fn check_file(node: &Node, path: &Name) -> Checked {
    check(node, Origin::File, Some(path))
}

/// Checks an object that came in over the API.
pub(crate) fn check_object(node: &Node) -> (Option<ObjectKey>, Vec<Problem>, Option<Document>) {
    let checked = check(node, Origin::Api, None);
    (checked.key, checked.problems.into_iter().map(|(problem, _)| problem).collect(), checked.document)
}

fn check(node: &Node, origin: Origin, manifest: Option<&Name>) -> Checked {
    let mut findings = Findings::default();
    let root = FieldPath::root();
    let kind = check_header(node, &mut findings);
    check_top_level(node, origin, &mut findings);
    let meta = check_metadata(node, origin, &mut findings);
    let kind_name = node.get("kind").and_then(Node::text).unwrap_or("?");
    let key = meta.namespace.as_ref().map(|namespace| ObjectKey::new(kind_name, namespace.clone(), meta.name.clone()));
    let spec_path = root.key("spec");
    let spec = match (kind.and_then(registry::shape), node.entry("spec")) {
        (None, _) => None,
        (Some(_), None) => {
            add(
                &mut findings,
                Problem::error(Code::Missing, spec_path.clone(), "`spec` is missing in the document").help("add `spec`"),
                node.span,
            );
            None
        }
        (Some(shape), Some(entry)) => walk(shape, &entry.value, entry.span, &spec_path, &mut findings),
    };
    let mut typed = None;
    if let (Some(kind), Some(spec)) = (kind, &spec) {
        typed = check_rules(kind, spec, node, &spec_path, &mut findings);
    }
    let children = match (&key, &typed) {
        (Some(key), Some(AnySpec::MiniContainer(parent))) if findings.0.iter().all(|(problem, _)| problem.severity != Severity::Error) => {
            template::children(parent, &Checking { key, node, manifest }, &mut findings)
        }
        _ => Vec::new(),
    };
    let has_errors = findings.0.iter().any(|(problem, _)| problem.severity == Severity::Error);
    let document = match (&key, spec, typed) {
        (Some(key), Some(spec), Some(typed)) if !has_errors => {
            let locate = |path: &FieldPath| node.locate(path);
            Some(Document {
                key: key.clone(),
                labels: meta.labels,
                annotations: meta.annotations,
                spec: Arc::new(spec),
                span: node.locate(&root.key("metadata").key("name")),
                facts: facts::of(&typed, &key.namespace, manifest, &locate),
                owner: None,
            })
        }
        _ => None,
    };
    Checked { key, problems: findings.0, document, children }
}

pub(super) fn add(findings: &mut Findings, problem: Problem, span: Span) {
    findings.0.push((problem, span));
}

fn check_header(node: &Node, findings: &mut Findings) -> Option<&'static str> {
    let root = FieldPath::root();
    let kinds = || registry::user_kinds().map(|kind| kind.kind);
    let mut is_good = true;
    let version = node.get("apiVersion").and_then(Node::text);
    if version != Some(API_VERSION) {
        let path = root.key("apiVersion");
        let problem = match version {
            Some(version) => {
                Problem::error(Code::UnknownKind, path.clone(), format!("there is no API version `{}`", super::yaml::shorten(version)))
            }
            None => Problem::error(Code::Missing, path.clone(), "`apiVersion` is missing in the document"),
        };
        add(findings, problem.help(format!("write `apiVersion: {API_VERSION}`")), node.locate(&path));
        is_good = false;
    }
    let path = root.key("kind");
    let Some(kind) = node.get("kind").and_then(Node::text) else {
        let problem = Problem::error(Code::Missing, path.clone(), "`kind` is missing in the document");
        add(findings, problem.help(format!("the kinds are {}", list_words(kinds()))), node.locate(&path));
        return None;
    };
    match registry::by_kind(kind) {
        Some(known) if known.face == Face::User => is_good.then_some(known.kind),
        Some(known) => {
            let problem = Problem::error(Code::UnknownKind, path.clone(), format!("the kind `{}` cannot be declared", known.kind));
            add(findings, problem.help("the operator makes it"), node.locate(&path));
            None
        }
        None => {
            let help = match suggest(kind, kinds()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("the kinds are {}", list_words(kinds())),
            };
            let problem = Problem::error(Code::UnknownKind, path.clone(), format!("there is no kind `{}`", super::yaml::shorten(kind)));
            add(findings, problem.help(help), node.locate(&path));
            None
        }
    }
}

fn check_top_level(node: &Node, origin: Origin, findings: &mut Findings) {
    const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
    let Content::Map(entries) = &node.content else { return };
    for entry in entries {
        let path = FieldPath::root().key(&entry.key);
        if !FIELDS.contains(&&*entry.key) {
            let help = match suggest(&entry.key, FIELDS.into_iter()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("its fields are {}", list_words(FIELDS.into_iter())),
            };
            let message = format!("there is no field `{}` in the document", super::yaml::shorten(&entry.key));
            add(findings, Problem::error(Code::UnknownField, path, message).help(help), entry.span);
        } else if &*entry.key == "status" && origin == Origin::File && !entry.value.is_null() {
            let problem = Problem::warning(Code::Ignored, path, "`status` in a manifest is ignored");
            add(findings, problem.help("remove it; the operator reports the status"), entry.span);
        }
    }
}

#[derive(Default)]
struct Metadata {
    name: Name,
    namespace: Option<Name>,
    labels: BTreeMap<Name, Name>,
    annotations: BTreeMap<Name, Name>,
}

fn check_metadata(node: &Node, origin: Origin, findings: &mut Findings) -> Metadata {
    let mut meta = Metadata::default();
    let path = FieldPath::root().key("metadata");
    let Some(entry) = node.entry("metadata") else {
        add(
            findings,
            Problem::error(Code::Missing, path, "`metadata` is missing in the document").help("add `metadata: {name: NAME}`"),
            node.span,
        );
        return meta;
    };
    let Content::Map(entries) = &entry.value.content else {
        let message = format!("`metadata` must be a map, not {}", entry.value.describe());
        add(findings, Problem::error(Code::WrongType, path, message).help("write `metadata: {name: NAME}`"), entry.span);
        return meta;
    };
    meta.namespace = Some(DEFAULT_NAMESPACE.into());
    let mut has_name = false;
    for field in entries {
        let below = path.key(&field.key);
        match &*field.key {
            "name" => {
                has_name = true;
                meta.name = check_name(&field.value, field.span, &below, findings).unwrap_or_default();
            }
            "namespace" if field.value.is_null() => {}
            "namespace" => meta.namespace = check_name(&field.value, field.span, &below, findings),
            "labels" => meta.labels = check_texts(&field.value, field.span, &below, findings, Texts::Labels(origin)),
            "annotations" => meta.annotations = check_texts(&field.value, field.span, &below, findings, Texts::Annotations(origin)),
            name => check_other_metadata(name, &field.value, field.span, &below, origin, findings),
        }
    }
    if !has_name {
        add(findings, Problem::error(Code::Missing, path.key("name"), "`name` is missing in `metadata`").help("add `name`"), entry.span);
    }
    meta
}

fn check_other_metadata(name: &str, value: &Node, span: Span, path: &FieldPath, origin: Origin, findings: &mut Findings) {
    const FIELDS: [&str; 4] = ["name", "namespace", "labels", "annotations"];
    let is_system = SYSTEM_FIELDS.contains(&name) || matches!(name, "finalizers" | "ownerReferences" | "generateName");
    if value.is_null() && is_system {
        return;
    }
    let problem = match (origin, name) {
        (Origin::Api, _) if is_system => return,
        (Origin::File, "finalizers" | "ownerReferences" | "generateName") => {
            Problem::error(Code::UnknownField, path.clone(), format!("`{name}` cannot be set in a manifest"))
                .help("it can be set over the API only; remove it")
        }
        (Origin::File, _) if is_system => Problem::warning(Code::Ignored, path.clone(), format!("`{name}` in a manifest is ignored"))
            .help("remove it; the operator writes it"),
        _ => {
            let help = match suggest(name, FIELDS.into_iter()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("its fields are {}", list_words(FIELDS.into_iter())),
            };
            Problem::error(Code::UnknownField, path.clone(), format!("there is no field `{}` in `metadata`", super::yaml::shorten(name)))
                .help(help)
        }
    };
    add(findings, problem, span);
}

fn check_name(value: &Node, span: Span, path: &FieldPath, findings: &mut Findings) -> Option<Name> {
    let shape = Shape::Text(TextShape { min: 1, ..TextShape::default() });
    let text = walk(&shape, value, span, path, findings)?;
    let text = text.as_str()?;
    if let Some(problem) = names::label_error(text) {
        let message = format!("`{path}` cannot be `{}`: {problem}", super::yaml::shorten(text));
        let lower: String = text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
        let lower = lower.trim_matches('-');
        let help = if names::label_error(lower).is_none() { format!("write `{lower}`") } else { String::new() };
        add(findings, Problem::error(Code::BadName, path.clone(), message).help(help), value.span);
        return None;
    }
    Some(text.into())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Texts {
    Labels(Origin),
    Annotations(Origin),
}

fn check_texts(value: &Node, span: Span, path: &FieldPath, findings: &mut Findings, what: Texts) -> BTreeMap<Name, Name> {
    if value.is_null() {
        return BTreeMap::new();
    }
    let shape = Shape::Map(Box::new(Shape::Scalar(TextShape::default())));
    let Some(serde_json::Value::Object(map)) = walk(&shape, value, span, path, findings) else { return BTreeMap::new() };
    let key_span = |key: &str| value.entry(key).map_or(span, |entry| entry.span);
    let mut texts = BTreeMap::new();
    let mut bytes = 0;
    for (key, text) in &map {
        let below = path.key(key);
        let text = text.as_str().unwrap_or_default();
        bytes += key.len() + text.len();
        let key_error = names::label_key_error(key).map(|problem| format!("`{}` cannot be the key: {problem}", super::yaml::shorten(key)));
        let value_error = match what {
            Texts::Labels(_) => names::label_value_error(text)
                .map(|problem| format!("`{}` cannot be the value of a label: {problem}", super::yaml::shorten(text))),
            Texts::Annotations(_) => None,
        };
        if let Some(message) = key_error.or(value_error) {
            add(findings, Problem::error(Code::BadName, below, message), key_span(key));
            continue;
        }
        let is_reserved = match what {
            Texts::Labels(_) => key.starts_with("quaymaster.dev/"),
            Texts::Annotations(origin) => {
                origin == Origin::File && key.starts_with("quaymaster.dev/") && !OUR_ANNOTATIONS.contains(&key.as_str())
            }
        };
        if is_reserved {
            let problem = Problem::error(Code::Reserved, below, format!("`{key}` is reserved"));
            add(findings, problem.help("the operator sets it; choose another one"), key_span(key));
        }
        texts.insert(key.as_str().into(), text.into());
    }
    if bytes > MAX_ANNOTATIONS_BYTES {
        let problem = Problem::error(Code::TooLarge, path.clone(), format!("`{path}` has {bytes} bytes"));
        add(findings, problem.help(format!("at most {MAX_ANNOTATIONS_BYTES} are allowed")), span);
    }
    texts
}

/// The rules of the kind. Where the schema already found fault with a part, what the rules say of that part is left out: it would
/// only be an echo.
fn check_rules(kind: &str, spec: &serde_json::Value, node: &Node, at: &FieldPath, findings: &mut Findings) -> Option<AnySpec> {
    let is_error = |problem: &Problem| problem.severity == Severity::Error;
    let bad: Vec<FieldPath> = findings.0.iter().filter(|(problem, _)| is_error(problem)).map(|(problem, _)| problem.path.clone()).collect();
    match AnySpec::from_value(kind, spec) {
        Some(Ok(typed)) => {
            for problem in typed.validate(at) {
                let area = if problem.code == Code::OneOf { problem.path.clone() } else { problem.path.parent() };
                if !bad.iter().any(|path| area.contains(path)) {
                    let span = node.locate(&problem.path);
                    add(findings, problem, span);
                }
            }
            Some(typed)
        }
        Some(Err(error)) if bad.is_empty() => {
            add(findings, Problem::error(Code::WrongType, at.clone(), format!("the spec cannot be read: {error}")), node.locate(at));
            None
        }
        _ => None,
    }
}
