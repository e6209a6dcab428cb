//! From what sources deliver to what the controller applies: parses manifests and hands on the files that they refer to. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use qm_api::admit::{Attached, Unreadable};
use qm_api::manifest::{self, Limits, ParsedFile};
use qm_api::name::Name;
use qm_apiserver as api;
use qm_controller::apply::SourceInput;
use qm_source::{Absence, Attachment, Health, Manifest, References, RelPath, Snapshot};

/// Which files a manifest refers to.
pub fn references() -> References {
    Arc::new(|path: &RelPath, bytes: &[u8]| {
        manifest::references(&path.as_str().into(), bytes).iter().filter_map(|name| RelPath::parse(name).ok()).collect()
    })
}

/// Parses what a source delivers; a file that did not change is not parsed again.
#[derive(Debug, Default)]
pub struct Intake {
    parsed: BTreeMap<(Name, [u8; 32]), Arc<ParsedFile>>,
}

impl Intake {
    /// One snapshot of a source at `place`, as the controller applies it.
    pub fn input(&mut self, snapshot: &Snapshot, place: String) -> SourceInput {
        let id = Name::from(snapshot.source.as_str());
        let mut input = SourceInput { id: id.clone(), place, ..SourceInput::default() };
        let limits = Limits::default();
        let mut next = BTreeMap::new();
        for (path, manifest) in &snapshot.manifests {
            let name = Name::from(path.as_str());
            match manifest {
                Manifest::File(file) => {
                    let key = (name.clone(), file.digest);
                    let parsed = self.parsed.remove(&key).unwrap_or_else(|| Arc::new(manifest::parse_file(&name, &file.bytes, &limits)));
                    input.files.push(parsed.clone());
                    next.insert(key, parsed);
                }
                Manifest::Refused(problem) => {
                    input.unreadable.push(Unreadable { source: id.clone(), file: name, reason: problem.to_string() });
                }
            }
        }
        self.parsed = next;
        input.attachments = snapshot.attachments.iter().map(|(path, a)| (path.as_str().into(), attached(a))).collect();
        input.absence_counts = snapshot.absence == Absence::Counts;
        input.problem = match &snapshot.health {
            Health::Ready => None,
            Health::Degraded { reason } => {
                tracing::debug!(source = %id, reason, "the source is watched in a slower way");
                None
            }
            Health::Unreadable { reason } => Some(reason.clone()),
        };
        input.held = snapshot.held.iter().map(|h| (h.path.as_str().to_owned(), format!("{:?}", h.why))).collect();
        input
    }
}

fn attached(attachment: &Attachment) -> Attached {
    match attachment {
        Attachment::File(file) => Attached::File { digest: file.digest, bytes: file.bytes.clone() },
        Attachment::Missing => Attached::Missing,
        Attachment::Refused(problem) => Attached::Refused(problem.to_string()),
    }
}

/// Manifests that a person sent for a plan, as a source of their own.
pub(crate) fn candidate(source: &api::CandidateSource) -> SourceInput {
    let root: BTreeMap<RelPath, &Vec<u8>> = source.files.iter().filter_map(|(path, b)| Some((RelPath::parse(path).ok()?, b))).collect();
    let id = Name::from(source.id.as_str());
    let mut input = SourceInput { id: id.clone(), place: source.id.clone(), absence_counts: true, ..SourceInput::default() };
    for (path, bytes) in root.iter().filter(|(path, _)| qm_source::is_manifest_name(path.file_name())) {
        let name = Name::from(path.as_str());
        input.files.push(Arc::new(manifest::parse_file(&name, bytes, &Limits::default())));
        for reference in manifest::references(&name, bytes) {
            let found = RelPath::parse(&reference).ok().and_then(|r| root.get(&r).copied());
            let attached = match found {
                Some(bytes) => {
                    let file = qm_source::File::new(bytes.as_slice());
                    Attached::File { digest: file.digest, bytes: file.bytes }
                }
                None => Attached::Missing,
            };
            input.attachments.insert(reference, attached);
        }
    }
    input
}
