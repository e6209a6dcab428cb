//! A folder of manifests without a file system: the real settling rules and the real parser over files in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use qm_controller::apply::SourceInput;
use qm_source::settle::{Hint, Input, Key, Scan, Seen, Settler, Slot, Text, Timing, Watching};
use qm_source::{Absence, File, RelPath, SourceId};
use quaymaster::intake::{Intake, references};

/// Where the source says it is.
pub const PLACE: &str = "/sim/manifests";
/// How long an absence must last, in milliseconds.
const SETTLE: u64 = 2_000;
/// How long a finished file must be quiet, in milliseconds.
const QUIET: u64 = 25;

/// What lies in the folder; it outlives every operator.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: BTreeMap<RelPath, File>,
    /// The folder cannot be entered.
    pub hidden: bool,
}

impl Disk {
    /// Makes the folder hold exactly these files; gives what the file system tells of it.
    pub fn replace(&mut self, files: &BTreeMap<String, String>) -> Vec<(Key, Hint)> {
        let new: BTreeMap<RelPath, File> =
            files.iter().filter_map(|(p, t)| Some((RelPath::parse(p).ok()?, File::new(t.as_bytes())))).collect();
        let paths: BTreeSet<RelPath> = new.keys().chain(self.files.keys()).cloned().collect();
        let mut hints = Vec::new();
        for path in paths {
            if new.get(&path) != self.files.get(&path) {
                let hint = if new.contains_key(&path) { Hint::Closed } else { Hint::Gone };
                if is_manifest(&path) {
                    hints.push((Key::new(Slot::Manifest, path.clone()), hint));
                }
                hints.push((Key::new(Slot::Attachment, path), hint));
            }
        }
        self.files = new;
        hints
    }

    /// Cuts one file short, as a writer at work leaves it.
    pub fn cut(&mut self, path: &str, keep: usize) -> Vec<(Key, Hint)> {
        let Ok(path) = RelPath::parse(path) else { return Vec::new() };
        let Some(file) = self.files.get_mut(&path) else { return Vec::new() };
        *file = File::new(&file.bytes[..keep.min(file.bytes.len())]);
        vec![(Key::new(Slot::Manifest, path), Hint::Written)]
    }

    /// The files as texts.
    pub fn texts(&self) -> BTreeMap<String, String> {
        let text = |f: &File| String::from_utf8_lossy(&f.bytes).into_owned();
        self.files.iter().map(|(path, file)| (path.as_str().to_owned(), text(file))).collect()
    }

    fn look(&self) -> Scan {
        if self.hidden {
            return Scan::Unreadable { reason: "permission denied".to_owned() };
        }
        let refs = references();
        let mut seen = BTreeMap::new();
        for (path, file) in self.files.iter().filter(|(path, _)| is_manifest(path)) {
            let text = Text { file: file.clone(), refs: refs(path, &file.bytes).into() };
            for attached in text.refs.iter() {
                let found = match self.files.get(attached) {
                    Some(file) => Seen::Text(Text { file: file.clone(), refs: Arc::default() }),
                    None => Seen::Absent,
                };
                seen.insert(Key::new(Slot::Attachment, attached.clone()), found);
            }
            seen.insert(Key::new(Slot::Manifest, path.clone()), Seen::Text(text));
        }
        Scan::Whole { seen, unreadable: BTreeSet::new(), problems: BTreeMap::new() }
    }
}

fn is_manifest(path: &RelPath) -> bool {
    qm_source::is_manifest_name(path.file_name())
}

/// What one operator process knows of the folder.
#[derive(Debug)]
pub struct Reader {
    settler: Settler,
    intake: Intake,
    proven_at: Option<u64>,
}

impl Default for Reader {
    fn default() -> Self {
        let settler = Settler::new(SourceId::new(PLACE.to_owned()), Timing { settle: SETTLE, quiet: QUIET });
        Self { settler, intake: Intake::default(), proven_at: None }
    }
}

impl Reader {
    /// Looks at the folder at `now` (milliseconds); gives what the source delivers, when that is new.
    pub fn step(&mut self, disk: &Disk, hints: Vec<(Key, Hint)>, now: u64) -> Option<SourceInput> {
        let outcome = self.settler.advance(now, Input { hints, scan: disk.look(), watching: Watching::Events });
        self.proven_at = (self.settler.absence() == Absence::Unproven).then_some(now + SETTLE);
        outcome.snapshot.map(|snapshot| self.intake.input(&Arc::new(snapshot), PLACE.to_owned()))
    }

    /// When to look again, if nothing happens before.
    pub fn wake(&self) -> Option<u64> {
        self.settler.wake().into_iter().chain(self.proven_at).min()
    }
}
