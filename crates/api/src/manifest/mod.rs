//! Owns the way from the bytes of one file to checked documents: text, positioned tree, schema walk, the rules of the kind. All of
//! this is done once per content: callers keep a [`ParsedFile`] by the digest of its bytes, and admission ([`crate::admit`]) does only
//! what needs the whole set. Reads no file; start at [`parse_file`].

pub mod tree;
pub mod walk;
pub mod yaml;

mod document;
mod scan;
mod template;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::admit::facts::Facts;
use crate::codes::Code;
use crate::field::{FieldPath, Place, Severity, Violation};
use crate::meta::{GROUP, ObjectKey};
use crate::name::Name;
use tree::{Content, Node, Span};
use yaml::Fault;

pub(crate) use document::check_object;

/// At most so many errors, and so many warnings, of one file are kept.
pub(crate) const MAX_VIOLATIONS: usize = 1_000;

/// What the reader accepts. The defaults are the product's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file.
    pub max_bytes: usize,
    /// Levels of nesting.
    pub max_depth: usize,
    /// Documents of one file, the items of lists counted.
    pub max_documents: usize,
    /// Values of one file, aliases written out.
    pub max_nodes: usize,
    /// Bytes of text of one file, aliases written out.
    pub max_text_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 4 << 20, max_depth: 64, max_documents: 10_000, max_nodes: 1_000_000, max_text_bytes: 16 << 20 }
    }
}

/// One good document of our API group: checked by its schema and the rules of its kind.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its address.
    pub key: ObjectKey,
    /// Its labels.
    pub labels: BTreeMap<Name, Name>,
    /// Its annotations.
    pub annotations: BTreeMap<Name, Name>,
    /// Its spec as the user wrote it.
    pub spec: Arc<Value>,
    /// Where its name stands.
    pub span: Span,
    /// What the cross checks need to know of it.
    pub facts: Facts,
    /// The object that made it, where nobody wrote it.
    pub owner: Option<ObjectKey>,
}

/// Everything that can be said of one file by itself.
#[derive(Clone, Debug, Default)]
pub struct ParsedFile {
    /// Its path within its source.
    pub path: Name,
    /// Its good documents of our API group.
    pub documents: Vec<Document>,
    /// The keys of its bad documents, as far as they could be read.
    pub bad: Vec<ObjectKey>,
    /// What is wrong with it; places have no source yet.
    pub violations: Vec<Violation>,
    /// The namespaces that its documents speak of, the bad ones too.
    pub namespaces: BTreeSet<Name>,
    /// The namespaces that its bad documents speak of.
    pub bad_namespaces: BTreeSet<Name>,
    /// A bad document does not say of which namespace it speaks.
    pub is_unplaced: bool,
    /// The file as a whole cannot be read as YAML, or is over a limit; nothing of it is used.
    pub is_broken: bool,
    /// It has documents of our API group, or names the group although it cannot be read.
    pub is_ours: bool,
    /// How many documents of other API groups were skipped.
    pub skipped: usize,
    /// Where its first document stands that is no mapping, and what it is. Of another API group, or what a writer at work has left.
    pub shapeless: Option<(Span, &'static str)>,
    /// How many errors were found; the first 1,000 are kept.
    pub errors: usize,
    /// How many warnings were found; the first 1,000 are kept.
    pub warnings: usize,
}

impl ParsedFile {
    /// Whether something in it is an error.
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Keeps a violation within bounds. Errors and warnings are counted apart: no number of warnings may hide an error.
    fn add(&mut self, violation: Violation) {
        let count = match violation.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= MAX_VIOLATIONS {
            self.violations.push(violation);
        }
    }

    fn add_fault(&mut self, fault: Fault, object: Option<ObjectKey>) {
        let source = Name::default();
        let place = fault.span.place(&source, &self.path).unwrap_or_else(|| Place { file: self.path.clone(), ..Place::default() });
        let related = fault.related.iter().filter_map(|(span, text)| Some((span.place(&source, &self.path)?, text.clone()))).collect();
        self.add(Violation {
            severity: Severity::Error,
            code: fault.code,
            object,
            path: FieldPath::root(),
            message: fault.message,
            help: fault.help,
            place: Some(place),
            related,
        });
    }
}

/// Reads and checks one file by itself. Never fails: what is wrong is in the result.
pub fn parse_file(path: &Name, bytes: &[u8], limits: &Limits) -> ParsedFile {
    let mut file = ParsedFile { path: path.clone(), ..ParsedFile::default() };
    if bytes.len() > limits.max_bytes {
        let message = format!("the file has {} bytes, more than the allowed {}", bytes.len(), limits.max_bytes);
        let help = "split it, or move long texts into files of their own".to_owned();
        let fault = Fault { code: Code::TooLarge, message, help, span: Span::default(), related: None };
        return broken(file, fault, &bytes[..limits.max_bytes]);
    }
    let stream = match yaml::check_text(bytes) {
        Ok(text) => yaml::parse(text, limits),
        Err(fault) => return broken(file, fault, bytes),
    };
    if let Some(fault) = stream.fatal {
        return broken(file, fault, bytes);
    }
    let mut faults = stream.faults.into_iter().peekable();
    for (at, root) in stream.documents.iter().enumerate() {
        let mut own = Vec::new();
        while let Some((_, fault)) = faults.next_if(|(of, _)| *of == at) {
            own.push(fault);
        }
        if let Err(fault) = read_document(&mut file, root, own, limits) {
            return broken(ParsedFile { path: path.clone(), ..ParsedFile::default() }, fault, bytes);
        }
    }
    file
}

/// A file of which nothing is used.
fn broken(mut file: ParsedFile, fault: Fault, bytes: &[u8]) -> ParsedFile {
    file.is_broken = true;
    file.is_ours = scan::names_group(bytes);
    if file.is_ours {
        file.namespaces = scan::namespaces(bytes);
        file.bad_namespaces.clone_from(&file.namespaces);
    }
    file.is_unplaced = true;
    file.add_fault(fault, None);
    file
}

fn read_document(file: &mut ParsedFile, root: &Node, faults: Vec<Fault>, limits: &Limits) -> Result<(), Fault> {
    let items = document::items(root);
    if items.len() + file.documents.len() + file.bad.len() + file.skipped > limits.max_documents {
        let message = format!("the file has more than {} documents", limits.max_documents);
        return Err(Fault { code: Code::TooLarge, message, help: "split the file".to_owned(), span: root.span, related: None });
    }
    // Faults of a list count for all of its items: which one they belong to matters to nobody.
    let has_faults = !faults.is_empty();
    let mut any = false;
    for item in &items {
        if item.is_null() {
            continue;
        }
        if !document::is_ours(item) {
            file.skipped += 1;
            if !matches!(item.content, Content::Map(..)) {
                file.shapeless.get_or_insert((item.span, item.describe()));
            }
            continue;
        }
        any = true;
        file.is_ours = true;
        read_object(file, item, has_faults);
    }
    if any {
        let object = file.bad.last().cloned();
        faults.into_iter().for_each(|fault| file.add_fault(fault, object.clone()));
    }
    Ok(())
}

fn read_object(file: &mut ParsedFile, item: &Node, has_faults: bool) {
    let checked = document::check_file(item, &file.path);
    let source = Name::default();
    let object = checked.key.clone().filter(|key| !key.name.is_empty());
    for (problem, span) in checked.problems {
        let violation = problem.placed(object.clone(), span.place(&source, &file.path));
        file.add(violation);
    }
    match &checked.key {
        Some(key) => drop(file.namespaces.insert(key.namespace.clone())),
        None => file.is_unplaced = true,
    }
    match checked.document {
        Some(document) if !has_faults => {
            file.documents.push(document);
            file.documents.extend(checked.children);
        }
        _ => {
            if let Some(key) = checked.key {
                file.bad_namespaces.insert(key.namespace.clone());
                file.bad.push(key);
            }
        }
    }
}

/// The files that a manifest refers to (configs and env files), as paths within the source. Those that leave the source's root are
/// left out here; admission refuses them.
pub fn references(path: &Name, bytes: &[u8]) -> Vec<Name> {
    let names_any = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
    let limits = Limits::default();
    if bytes.len() > limits.max_bytes || !names_any(GROUP.as_bytes()) || !(names_any(b"envFile") || names_any(b"configs")) {
        return Vec::new();
    }
    let Ok(text) = yaml::check_text(bytes) else { return Vec::new() };
    let stream = yaml::parse(text, &limits);
    let mut files = BTreeSet::new();
    for item in stream.documents.iter().flat_map(document::items).filter(|item| document::is_ours(item)) {
        let Some(written_spec) = item.get("spec") else { continue };
        let spec = Some(template::made_spec(written_spec));
        let containers = [spec.and_then(|spec| spec.get("container")), spec.and_then(|spec| spec.get("job")?.get("container"))];
        for container in containers.into_iter().flatten() {
            let env = container.get("envFile").map_or(&[][..], Node::items).iter();
            let configs = container.get("configs").map_or(&[][..], Node::items).iter().filter_map(|config| config.get("file"));
            let written = env.chain(configs).filter_map(Node::text).flat_map(|written| template::written_paths(written_spec, written));
            files.extend(written.filter_map(|written| resolve(path, &written)));
        }
    }
    files.into_iter().collect()
}

/// The path within the source that `written` means in the manifest at `manifest`; `None` when it is absolute or leaves the root.
pub fn resolve(manifest: &str, written: &str) -> Option<Name> {
    if written.is_empty() || written.starts_with('/') || written.contains(['\0', '\\']) {
        return None;
    }
    let mut parts: Vec<&str> = manifest.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    parts.pop();
    for part in written.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| Name::from(parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_manifest_and_stay_in_the_root() {
        let table = [
            ("a.yaml", "x.env", Some("x.env")),
            ("sub/a.yaml", "./x.env", Some("sub/x.env")),
            ("sub/a.yaml", "../x/y.conf", Some("x/y.conf")),
            ("sub/deep/a.yaml", "../../x", Some("x")),
            ("sub/a.yaml", "../../x", None),
            ("a.yaml", "../x", None),
            ("a.yaml", "/etc/passwd", None),
            ("a.yaml", "", None),
            ("a.yaml", ".", None),
            ("a.yaml", "a\\b", None),
        ];
        for (manifest, written, expected) in table {
            assert_eq!(resolve(manifest, written).as_deref(), expected, "{manifest} {written}");
        }
    }

    #[test]
    fn references_are_found_in_every_document() {
        let text = b"apiVersion: quaymaster.dev/v1alpha1\nkind: MiniService\nspec: {container: {envFile: [a.env, ../../b], configs: [{file: c/d}]}}\n---\nx: 1\n";
        assert_eq!(references(&"sub/m.yaml".into(), text), [Name::from("sub/a.env"), Name::from("sub/c/d")]);
        assert!(references(&"m.yaml".into(), b"envFile: [a]").is_empty());
    }
}
