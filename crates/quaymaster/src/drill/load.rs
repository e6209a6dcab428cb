//! Finds drills and reads the manifests that they are played on: from folders, or as a running operator has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use qm_api::admit::{Admission, FileInput, Known, LastGood, Set, admit_set};
use qm_api::field::Severity;
use qm_api::manifest;
use qm_api::name::Name;
use qm_apiserver::CandidateSource;
use qm_controller::apply::SourceInput;
use qm_source::scan_once;
use serde_json::{Value, json};

use crate::intake::{self, Intake, references};

/// How a drill's file is called at its end.
pub(crate) const ENDING: &str = ".drill.yaml";
/// How deep the made-up file of a live object lies, so that what it refers to lies within the source, however far up it reaches.
const DEPTH: usize = 16;

/// Manifests, read and admitted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifests {
    pub(crate) inputs: Vec<SourceInput>,
    pub(crate) admission: Admission,
}

impl Manifests {
    /// Reads folders as sources.
    ///
    /// # Errors
    /// Which folder cannot be read, or that there are no manifests: then every expectation of nobody would hold.
    pub(crate) fn of_folders(dirs: &[PathBuf]) -> Result<Self, String> {
        let input = |dir: &PathBuf| {
            let snapshot = scan_once(dir, &qm_source::Options::default(), &references());
            SourceInput { absence_counts: true, ..Intake::default().input(&snapshot, dir.display().to_string()) }
        };
        let inputs: Vec<SourceInput> = dirs.iter().map(input).collect();
        if let Some((dir, problem)) = dirs.iter().zip(&inputs).find_map(|(dir, input)| Some((dir, input.problem.as_ref()?))) {
            return Err(format!("{} cannot be read: {problem}", dir.display()));
        }
        let manifests = Self::admit(inputs);
        if manifests.admission.objects.is_empty() && !manifests.admission.has_errors() {
            let names: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
            return Err(format!("there are no manifests in {}", names.join(", ")));
        }
        Ok(manifests)
    }

    fn admit(inputs: Vec<SourceInput>) -> Self {
        let files: Vec<FileInput> = inputs
            .iter()
            .flat_map(|input| input.files.iter().map(|parsed| FileInput { source: input.id.clone(), parsed: Arc::clone(parsed) }))
            .collect();
        let attachments: BTreeMap<_, _> = inputs
            .iter()
            .flat_map(|input| input.attachments.iter().map(|(file, attached)| ((input.id.clone(), file.clone()), attached.clone())))
            .collect();
        let unreadable: Vec<_> = inputs.iter().flat_map(|input| input.unreadable.iter().cloned()).collect();
        let set = Set { files: &files, attachments: &attachments, existing: &Known::default(), unreadable: &unreadable };
        let admission = admit_set(&set, &LastGood::new());
        Self { inputs, admission }
    }

    /// What a running operator has, as it lists it; files that are referred to are empty ones, and named.
    ///
    /// # Errors
    /// What this program cannot read of it.
    pub(crate) fn of_objects(objects: &[Value]) -> Result<(Self, Vec<String>), String> {
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut emptied: Vec<String> = Vec::new();
        let makers: BTreeSet<&str> = objects
            .iter()
            .filter(|object| object["spec"]["template"].is_object())
            .filter_map(|object| object["metadata"]["uid"].as_str())
            .collect();
        for object in objects.iter().filter(|object| is_declared(object, &makers)) {
            let (path, bytes) = document(object);
            for file in manifest::references(&Name::from(path.as_str()), &bytes) {
                files.entry(file.to_string()).or_default();
            }
            emptied.extend(referred(&object["spec"]));
            files.insert(path, bytes);
        }
        emptied.sort();
        emptied.dedup();
        let source = CandidateSource { id: "operator".to_owned(), files };
        let manifests = Self::admit(vec![intake::candidate(&source)]);
        let wrong = manifests.admission.violations.iter().find(|violation| violation.severity == Severity::Error);
        match wrong {
            Some(wrong) => Err(format!("what the operator has cannot be read here: {}", wrong.message)),
            None => Ok((manifests, emptied)),
        }
    }
}

/// Whether somebody wrote it, and it is to stay. What a parent makes from its template is made again.
fn is_declared(object: &Value, makers: &BTreeSet<&str>) -> bool {
    let meta = &object["metadata"];
    let owners = meta["ownerReferences"].as_array().into_iter().flatten().filter_map(|owner| owner["uid"].as_str());
    let is_made = owners.into_iter().any(|owner| makers.contains(owner));
    meta["deletionTimestamp"].is_null() && meta["annotations"]["quaymaster.dev/implicit"].is_null() && !is_made
}

/// An object as a manifest of its own.
fn document(object: &Value) -> (String, Vec<u8>) {
    let meta = &object["metadata"];
    let mut written = json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": { "name": meta["name"], "namespace": meta["namespace"] },
        "spec": object["spec"],
    });
    if meta["labels"].is_object() {
        written["metadata"]["labels"] = meta["labels"].clone();
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let folder = "d/".repeat(DEPTH);
    let path = format!("{folder}{}.{}.{}.json", text(&object["kind"]), text(&meta["namespace"]), text(&meta["name"]));
    (path, written.to_string().into_bytes())
}

/// The files that a spec refers to, as they are written.
fn referred(spec: &Value) -> Vec<String> {
    let containers = [&spec["container"], &spec["job"]["container"]];
    let of = |container: &&Value| {
        let env = container["envFile"].as_array().into_iter().flatten();
        let configs = container["configs"].as_array().into_iter().flatten().map(|config| &config["file"]);
        env.chain(configs).filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    containers.iter().flat_map(of).collect()
}

/// The drills below a folder, sorted; a file is taken as it is.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn find(path: &Path) -> io::Result<Vec<PathBuf>> {
    if fs::metadata(path)?.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut found, mut open) = (Vec::new(), vec![path.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if name.starts_with('.') {
                continue;
            }
            if kind.is_dir() {
                open.push(entry.path());
            } else if name.ends_with(ENDING) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// `path` seen from `folder`, without detours.
pub(crate) fn seen_from(folder: &Path, path: &str) -> PathBuf {
    let mut seen = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(seen.components().next_back(), Some(Component::Normal(_))) => drop(seen.pop()),
            part => seen.push(part),
        }
    }
    if seen.as_os_str().is_empty() { PathBuf::from(".") } else { seen }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_no_detours() {
        for (folder, path, seen) in [
            ("a/drills", "..", "a"),
            ("a/drills", ".", "a/drills"),
            ("drills", "..", "."),
            ("", "../x", "../x"),
            ("..", "..", "../.."),
            ("a", "/b/../c", "/c"),
        ] {
            assert_eq!(seen_from(Path::new(folder), path), PathBuf::from(seen), "{folder} {path}");
        }
    }

    #[test]
    fn live_objects_become_manifests_with_empty_files() {
        let service = json!({
            "apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniService",
            "metadata": {"name": "app", "namespace": "n", "uid": "x", "annotations": {"quaymaster.dev/source": "s"}},
            "spec": {"container": {"image": "x", "envFile": ["../common.env"], "configs": [{"name": "c", "target": "/c", "file": "c.conf"}]}},
            "status": {"usable": true},
        });
        let implicit = json!({
            "apiVersion": "quaymaster.dev/v1alpha1", "kind": "Network",
            "metadata": {"name": "default", "namespace": "n", "annotations": {"quaymaster.dev/implicit": "true"}}, "spec": {},
        });
        let parent = json!({
            "apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniContainer", "metadata": {"name": "w", "namespace": "n", "uid": "p"},
            "spec": {"template": {"spec": {"container": {"image": "x"}}}, "items": [{"name": "a"}]},
        });
        let made = json!({
            "apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniService",
            "metadata": {"name": "w-a", "namespace": "n", "uid": "c", "ownerReferences": [{"kind": "MiniContainer", "name": "w", "uid": "p"}]},
            "spec": {"container": {"image": "x"}},
        });
        let (manifests, emptied) = Manifests::of_objects(&[service, implicit, parent, made]).unwrap();
        assert_eq!(emptied, ["../common.env", "c.conf"]);
        let mut keys: Vec<String> = manifests.admission.objects.iter().map(|o| o.key.to_string()).collect();
        keys.sort();
        assert_eq!(keys, ["MiniContainer n/w", "MiniService n/app", "MiniService n/w-a"]);
    }
}
