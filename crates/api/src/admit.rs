//! The one admission, for files, the API and `validate`: what may become an object, and why not.
//!
//! The work on one document by itself is done by [`crate::manifest`] once per content. Here the set is put together: cross references,
//! cycles, what two objects cannot both have; and it is cut by namespace, so that a mistake freezes the namespaces it touches and
//! nothing else. Never applies defaults: the store keeps what the user wrote. Start at [`admit_set`] or [`admit_object`].

pub mod facts;

mod cross;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::codes::Code;
use crate::field::{FieldPath, Place, Severity, Violation};
use crate::manifest::tree::Node;
use crate::manifest::{Document, ParsedFile, check_object};
use crate::meta::{Object, ObjectKey};
use crate::name::Name;
use crate::registry;
use cross::{Found, Member};
use facts::Facts;

/// A file of a source.
#[derive(Clone, Debug)]
pub struct FileInput {
    /// The source's id.
    pub source: Name,
    /// What was read.
    pub parsed: Arc<ParsedFile>,
}

/// A file that a manifest refers to, as the source sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Its content.
    File {
        /// SHA-256 of the content.
        digest: [u8; 32],
        /// The content.
        bytes: Arc<[u8]>,
    },
    /// It is not there.
    Missing,
    /// It cannot be used: no regular file, too large, outside the root, not readable.
    Refused(String),
}

/// A manifest that could not be read at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The source's id.
    pub source: Name,
    /// The file's path within the source.
    pub file: Name,
    /// Why.
    pub reason: String,
}

/// What the cross checks know of objects that come from elsewhere. Build it once and keep it up to date.
#[derive(Clone, Debug, Default)]
pub struct Known(BTreeMap<ObjectKey, Facts>);

impl Known {
    /// Takes in all objects of user-facing kinds; what cannot be decoded counts as there, and nothing else.
    pub fn of<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Self {
        let mut known = Self::default();
        objects.into_iter().for_each(|object| known.insert(object));
        known
    }

    /// Takes in one object, or its new state.
    pub fn insert(&mut self, object: &Object) {
        if registry::shape(&object.key.kind).is_some() {
            let facts = registry::decode(object).map(|spec| facts::of(&spec, &object.key.namespace, None, &|_| Default::default()));
            let labels = object.meta.labels.clone();
            self.0.insert(object.key.clone(), Facts { labels, ..facts.unwrap_or_default() });
        }
    }

    /// Forgets one object.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.0.remove(key);
    }
}

/// Everything that is to be admitted together.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// The files of all sources.
    pub files: &'a [FileInput],
    /// The files that manifests refer to, by source and path within it.
    pub attachments: &'a BTreeMap<(Name, Name), Attached>,
    /// Objects that come from elsewhere (the API).
    pub existing: &'a Known,
    /// Manifests that could not be read.
    pub unreadable: &'a [Unreadable],
}

/// Of which namespaces each file spoke when it was last good, by source and path.
pub type LastGood = BTreeMap<(Name, Name), BTreeSet<Name>>;

/// An object that may be written to the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its address.
    pub key: ObjectKey,
    /// Its labels.
    pub labels: BTreeMap<Name, Name>,
    /// Its annotations.
    pub annotations: BTreeMap<Name, Name>,
    /// Its spec, as the user wrote it.
    pub spec: Arc<Value>,
    /// Where it is declared; absent for the API.
    pub place: Option<Place>,
    /// The source's id; empty for the API.
    pub source: Name,
    /// The files it refers to, by their path within the source, with the digests of their content.
    pub attachments: BTreeMap<Name, [u8; 32]>,
    /// The mini container that owns it.
    pub owner: Option<ObjectKey>,
    /// What its author should know.
    pub warnings: Vec<Violation>,
}

/// The answer for a set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admission {
    /// The objects of the namespaces that are not frozen, by key.
    pub objects: Vec<Candidate>,
    /// Everything that is wrong, and the warnings, by place.
    pub violations: Vec<Violation>,
    /// The namespaces that stay at their last good state, with the indexes of the violations that froze them.
    pub frozen: BTreeMap<Name, Vec<usize>>,
    /// The sources of which nothing may be pruned now, and why.
    pub prune_held: BTreeMap<Name, String>,
    /// How many documents of others were skipped.
    pub skipped: usize,
}

impl Admission {
    /// Whether anything is an error.
    pub fn has_errors(&self) -> bool {
        self.violations.iter().any(|violation| violation.severity == Severity::Error)
    }
}

/// Admits a whole set. The order of files does not matter.
pub fn admit_set(set: &Set<'_>, last: &LastGood) -> Admission {
    let mut files: Vec<&FileInput> = set.files.iter().collect();
    files.sort_by(|a, b| (&a.source, &a.parsed.path).cmp(&(&b.source, &b.parsed.path)));
    let mut admission = Admission::default();
    let mut found: Vec<Found> = Vec::new();
    let mut members: Vec<Member<'_>> = Vec::new();
    let mut bad_keys: BTreeSet<ObjectKey> = BTreeSet::new();
    let left: Vec<BTreeSet<Name>> = files.iter().map(|input| left_namespaces(input, last)).collect();
    for (input, left) in files.iter().zip(&left) {
        let file = &*input.parsed;
        let spoke_of = last.get(&(input.source.clone(), file.path.clone()));
        if file.is_broken && !file.is_ours && spoke_of.is_none_or(BTreeSet::is_empty) {
            admission.skipped += 1;
            continue;
        }
        admission.skipped += file.skipped;
        if file.is_broken {
            admission.prune_held.entry(input.source.clone()).or_insert_with(|| format!("{} cannot be read as YAML", file.path));
        } else if file.is_unplaced && spoke_of.is_none_or(BTreeSet::is_empty) {
            // It may be what another file held until now: nobody can tell of which objects it speaks.
            let reason = || format!("{} has a document of ours that does not say what it is", file.path);
            admission.prune_held.entry(input.source.clone()).or_insert_with(reason);
        }
        bad_keys.extend(file.bad.iter().cloned());
        found.extend(file_violations(input, spoke_of, left));
        found.extend(shapeless(input, spoke_of));
        members.extend(file.documents.iter().map(|document| Member {
            source: &input.source,
            file: &file.path,
            document: Some(document),
            key: &document.key,
            facts: &document.facts,
            left,
        }));
    }
    for unreadable in set.unreadable {
        let reason = format!("{} cannot be read: {}", unreadable.file, unreadable.reason);
        admission.prune_held.entry(unreadable.source.clone()).or_insert(reason);
        found.push(unreadable_violation(unreadable, last));
    }
    let frozen: BTreeSet<Name> = found.iter().flat_map(|found| found.freezes.iter().cloned()).collect();
    let own: BTreeSet<&ObjectKey> = members.iter().map(|member| member.key).collect();
    let mut others: Vec<Member<'_>> = Vec::new();
    for (key, facts) in &set.existing.0 {
        if own.contains(key) {
            found.extend(members.iter().filter(|member| member.key == key).map(|member| cross::declared_elsewhere(member)));
        } else {
            others.push(Member::stored(key, facts));
        }
    }
    drop(own);
    let world = cross::World { members: &members, others: &others, bad: &bad_keys, frozen: &frozen, attachments: set.attachments };
    found.extend(cross::check(&world));
    finish(admission, found, &members, set.attachments)
}

/// The namespaces that a file last spoke of and now does not.
fn left_namespaces(input: &FileInput, last: &LastGood) -> BTreeSet<Name> {
    let spoke_of = last.get(&(input.source.clone(), input.parsed.path.clone()));
    spoke_of.into_iter().flatten().filter(|name| !input.parsed.namespaces.contains(*name)).cloned().collect()
}

/// The next [`LastGood`]: what each file speaks of when nothing it speaks of is frozen, else what it spoke of before. Files that are
/// gone are forgotten, unreadable ones are not.
pub fn last_good(set: &Set<'_>, admission: &Admission, last: &LastGood) -> LastGood {
    let old = |key: &(Name, Name)| last.get(key).cloned().unwrap_or_default();
    let files = set.files.iter().map(|input| {
        let file = &*input.parsed;
        let key = (input.source.clone(), file.path.clone());
        let is_good = !file.has_errors()
            && shapeless(input, last.get(&key)).is_none()
            && !file.namespaces.iter().any(|name| admission.frozen.contains_key(name));
        let names = if is_good { file.namespaces.clone() } else { old(&key) };
        (key, names)
    });
    let unreadable = set.unreadable.iter().map(|unreadable| {
        let key = (unreadable.source.clone(), unreadable.file.clone());
        let names = old(&key);
        (key, names)
    });
    files.chain(unreadable).filter(|(_, names)| !names.is_empty()).collect()
}

/// The violations of a file by itself, with the namespaces that they freeze.
fn file_violations(input: &FileInput, spoke_of: Option<&BTreeSet<Name>>, left: &BTreeSet<Name>) -> Vec<Found> {
    let file = &*input.parsed;
    let mut freezes: BTreeSet<Name> = file.bad_namespaces.clone();
    if file.has_errors() {
        freezes.extend(left.iter().cloned());
        // Nothing tells of which namespace the bad part speaks.
        if file.is_unplaced {
            freezes.extend(spoke_of.into_iter().flatten().cloned());
        }
    }
    let place_in = |mut violation: Violation| {
        violation.place.iter_mut().for_each(|place| place.source = input.source.clone());
        violation.related.iter_mut().for_each(|(place, _)| place.source = input.source.clone());
        violation
    };
    let of = |violation: &Violation| match violation.severity {
        Severity::Warning => BTreeSet::new(),
        Severity::Error => freezes.clone(),
    };
    file.violations
        .iter()
        .map(|violation| Found {
            freezes: of(violation),
            about: violation.object.iter().cloned().collect(),
            violation: place_in(violation.clone()),
        })
        .collect()
}

/// A lone text or list beside documents of ours, or where they were: readable YAML, yet what a writer at work leaves when it is cut off
/// in its first bytes. In a file that has nothing of ours and never had, it is a document of others.
fn shapeless(input: &FileInput, spoke_of: Option<&BTreeSet<Name>>) -> Option<Found> {
    let (span, what) = input.parsed.shapeless?;
    let freezes: BTreeSet<Name> = spoke_of.into_iter().flatten().chain(&input.parsed.namespaces).cloned().collect();
    if freezes.is_empty() {
        return None;
    }
    let violation = Violation {
        severity: Severity::Error,
        code: Code::WrongType,
        object: None,
        path: FieldPath::root(),
        message: format!("a document is {what}, not an object, in a file of objects"),
        help: "finish the file; if its objects are to go, remove this document too".to_owned(),
        place: span.place(&input.source, &input.parsed.path),
        related: Vec::new(),
    };
    Some(Found { violation, freezes, about: Vec::new() })
}

fn unreadable_violation(unreadable: &Unreadable, last: &LastGood) -> Found {
    let place = Place { source: unreadable.source.clone(), file: unreadable.file.clone(), ..Place::default() };
    let freezes = last.get(&(unreadable.source.clone(), unreadable.file.clone())).cloned().unwrap_or_default();
    let violation = Violation {
        severity: Severity::Error,
        code: Code::Unreadable,
        object: None,
        path: FieldPath::root(),
        message: format!("the file cannot be read: {}", unreadable.reason),
        help: "make it readable, or list it in .quaymasterignore".to_owned(),
        place: Some(place),
        related: Vec::new(),
    };
    Found { violation, freezes, about: Vec::new() }
}

fn finish(
    mut admission: Admission,
    mut found: Vec<Found>,
    members: &[Member<'_>],
    attachments: &BTreeMap<(Name, Name), Attached>,
) -> Admission {
    found.sort_by(|a, b| {
        let (a, b) = (&a.violation, &b.violation);
        let place = || a.place.cmp(&b.place);
        let field = || a.code.cmp(&b.code).then_with(|| a.path.cmp(&b.path));
        place().then_with(field).then_with(|| a.object.cmp(&b.object)).then_with(|| a.message.cmp(&b.message))
    });
    let mut warnings: BTreeMap<ObjectKey, Vec<Violation>> = BTreeMap::new();
    for (index, found) in found.iter().enumerate() {
        for namespace in &found.freezes {
            admission.frozen.entry(namespace.clone()).or_default().push(index);
        }
        if found.violation.severity == Severity::Warning
            && let Some(key) = &found.violation.object
        {
            warnings.entry(key.clone()).or_default().push(found.violation.clone());
        }
    }
    admission.violations = found.into_iter().map(|found| found.violation).collect();
    let owners = cross::owners(members);
    for member in members {
        let Some(document) = member.document else { continue };
        if !admission.frozen.contains_key(&member.key.namespace) {
            let warnings = warnings.remove(member.key).unwrap_or_default();
            let owner = owners.get(member.key).and_then(|parents| parents.first()).map(|parent| parent.key.clone());
            admission.objects.push(Candidate { owner, ..candidate(document, member, attachments, warnings) });
        }
    }
    admission.objects.sort_by(|a, b| a.key.cmp(&b.key));
    admission
}

fn candidate(
    document: &Document,
    member: &Member<'_>,
    attachments: &BTreeMap<(Name, Name), Attached>,
    warnings: Vec<Violation>,
) -> Candidate {
    let digests = document.facts.files.iter().filter_map(|used| {
        let file = used.file.clone()?;
        match attachments.get(&(member.source.clone(), file.clone())) {
            Some(Attached::File { digest, .. }) => Some((file, *digest)),
            _ => None,
        }
    });
    Candidate {
        key: document.key.clone(),
        labels: document.labels.clone(),
        annotations: document.annotations.clone(),
        spec: document.spec.clone(),
        place: document.span.place(member.source, member.file),
        source: member.source.clone(),
        attachments: digests.collect(),
        owner: None,
        warnings,
    }
}

/// Admits one object that comes in over the API, against all objects that are there (its own old state is left out).
///
/// # Errors
/// Everything that is wrong with it. Warnings alone do not refuse it; they are in the candidate.
pub fn admit_object(value: &Value, existing: &Known) -> Result<Candidate, Vec<Violation>> {
    let (key, problems, document) = check_object(&Node::from_json(value));
    let mut violations: Vec<Violation> = problems.into_iter().map(|problem| problem.placed(key.clone(), None)).collect();
    let Some(document) = document else { return Err(violations) };
    let others: Vec<Member<'_>> =
        existing.0.iter().filter(|(key, _)| **key != document.key).map(|(key, facts)| Member::stored(key, facts)).collect();
    let member = Member { document: Some(&document), ..Member::stored(&document.key, &document.facts) };
    let (bad, frozen, attachments) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    let members = [member];
    let world = cross::World { members: &members, others: &others, bad: &bad, frozen: &frozen, attachments: &attachments };
    violations.extend(cross::check(&world).into_iter().filter(|found| found.about.contains(&document.key)).map(|found| found.violation));
    if violations.iter().any(|violation| violation.severity == Severity::Error) {
        return Err(violations);
    }
    Ok(candidate(&document, &members[0], &attachments, violations))
}
