//! Owns looking at a folder: what is there, bounded in every way, and re-reading only what changed. It decides nothing about time.
//!
//! It must never open what is not a regular file, nor anything outside the root. Start at [`Looker::whole`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, Metadata};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::directory::{Options, References};
use crate::path::RelPath;
use crate::resolve::{End, Hop, follow};
use crate::rules::{IGNORE_FILE, Rules, is_hidden, is_manifest_name};
use crate::settle::{Hint, Key, Scan, Seen, Settler, Slot, Text};
use crate::snapshot::{File, Problem};
use crate::watch::{Happened, Watch};

/// Whether a file whose metadata is as before may be taken to be as before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    Stamps,
    Nothing,
}

/// What an event means for the next look.
pub(crate) enum Concern {
    /// These files, with what to tell the settler.
    Files(Vec<(Key, Hint)>),
    /// These files may look different; nobody wrote to them as far as is known.
    Touched(Vec<Key>),
    /// The folders themselves changed.
    Everything,
    Nothing,
}

#[derive(Clone, PartialEq, Eq)]
struct Stamp([i64; 7]);

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self([
            meta.dev().cast_signed(),
            meta.ino().cast_signed(),
            meta.size().cast_signed(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        ])
    }
}

struct Root {
    real: PathBuf,
    handle: OwnedFd,
    id: (u64, u64),
}

struct Folder {
    path: RelPath,
    rules: Arc<Rules>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Concerned {
    File(Key),
    Everything,
}

pub(crate) struct Looker {
    dir: PathBuf,
    options: Options,
    references: References,
    pub(crate) watch: Watch,
    root: Option<Root>,
    folders: BTreeMap<PathBuf, Folder>,
    ways: BTreeMap<Hop, BTreeSet<Concerned>>,
    known: BTreeMap<Key, (Stamp, Text)>,
    total_bytes: u64,
}

/// One walk through the folders.
#[derive(Default)]
struct Walk {
    seen: BTreeMap<Key, Seen>,
    unreadable: BTreeSet<RelPath>,
    problems: BTreeMap<String, Problem>,
    visited: BTreeSet<(u64, u64)>,
    todo: VecDeque<(RelPath, PathBuf, Arc<Rules>)>,
    /// Folders reached by a symlink: walked only if no plain way leads there, so that a circle of links ends.
    links: BTreeMap<RelPath, (PathBuf, Arc<Rules>)>,
    manifests: usize,
    entries: usize,
}

impl Looker {
    pub(crate) fn new(dir: PathBuf, options: Options, references: References, watch: Watch) -> Self {
        Self {
            dir,
            options,
            references,
            watch,
            root: None,
            folders: BTreeMap::new(),
            ways: BTreeMap::new(),
            known: BTreeMap::new(),
            total_bytes: 0,
        }
    }

    /// Looks at everything.
    pub(crate) fn whole(&mut self, settler: &Settler, trust: Trust) -> Scan {
        self.ways.clear();
        self.folders.clear();
        self.watch.begin();
        let scan = match self.enter().and_then(|()| self.walk(settler, trust)) {
            Ok(mut walk) => {
                let mut wanted = settler.references();
                wanted.extend(walk.seen.values().flat_map(refs_of).cloned());
                for path in wanted {
                    let key = Key::new(Slot::Attachment, path);
                    let seen = self.examine(&key, trust);
                    walk.seen.insert(key, seen);
                }
                self.known.retain(|key, _| walk.seen.contains_key(key));
                self.total_bytes = self.known.values().map(|(_, text)| text.file.bytes.len() as u64).sum();
                Scan::Whole { seen: walk.seen, unreadable: walk.unreadable, problems: walk.problems }
            }
            Err(reason) => {
                self.root = None;
                Scan::Unreadable { reason }
            }
        };
        self.watch.finish();
        scan
    }

    /// Looks at `keys`, and at what they newly refer to; nothing when the root is no longer the one that was entered.
    pub(crate) fn part(&mut self, keys: &BTreeMap<Key, Trust>, settler: &Settler) -> Option<Scan> {
        let mut seen = BTreeMap::new();
        if keys.is_empty() {
            return Some(Scan::Part { seen });
        }
        if !self.is_in_place() {
            return None;
        }
        for (key, trust) in keys {
            let found = self.examine(key, *trust);
            seen.insert(key.clone(), found);
        }
        let newly: BTreeSet<RelPath> = seen.values().flat_map(refs_of).cloned().collect();
        for path in newly {
            let key = Key::new(Slot::Attachment, path);
            if !seen.contains_key(&key) && !settler.knows(&key) {
                let found = self.examine(&key, Trust::Stamps);
                seen.insert(key, found);
            }
        }
        let new_manifests =
            seen.iter().filter(|(key, seen)| key.slot == Slot::Manifest && !matches!(seen, Seen::Absent) && !settler.knows(key)).count();
        let manifests = self.known.keys().filter(|key| key.slot == Slot::Manifest).count();
        (new_manifests == 0 || manifests <= self.options.max_files).then_some(Scan::Part { seen })
    }

    /// What an event at `path` concerns.
    pub(crate) fn concern(&mut self, path: &Path, happened: Happened) -> Concern {
        let was_folder = self.watch.is_watched(path);
        if happened == Happened::Gone {
            self.watch.lost(path);
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Concern::Everything };
        let mut keys = BTreeSet::new();
        for concerned in self.ways.get(&(parent.to_owned(), name.to_owned())).into_iter().flatten() {
            match concerned {
                Concerned::File(key) => keys.insert(key.clone()),
                Concerned::Everything => return Concern::Everything,
            };
        }
        let mut happened = happened;
        if let Some(folder) = self.folders.get(parent) {
            let name = name.to_str().unwrap_or("");
            let is_new = matches!(happened, Happened::Created | Happened::Arrived | Happened::FolderMade);
            let visible = !name.is_empty() && !is_hidden(name);
            let meta = if is_new { fs::symlink_metadata(path).ok() } else { None };
            if was_folder || (visible && meta.as_ref().is_some_and(|meta| meta.is_dir() || (meta.is_symlink() && !is_manifest_name(name))))
            {
                return Concern::Everything;
            }
            // A symlink or a further hard link is born whole: nobody will close it.
            if happened == Happened::Created && meta.is_some_and(|meta| meta.is_symlink() || meta.nlink() > 1) {
                happened = Happened::Arrived;
            }
            let child = folder.path.child(name);
            if name == IGNORE_FILE {
                keys.insert(Key::new(Slot::Ignore, child));
            } else if is_manifest_name(name) && !folder.rules.leave_out(&child, false) {
                keys.insert(Key::new(Slot::Manifest, child));
            }
        } else if was_folder {
            return Concern::Everything;
        }
        if keys.is_empty() {
            return Concern::Nothing;
        }
        let hint = match happened {
            Happened::Touched => return Concern::Touched(keys.into_iter().collect()),
            Happened::Created | Happened::Written => Hint::Written,
            Happened::Closed => Hint::Closed,
            Happened::Arrived | Happened::FolderMade => Hint::Arrived,
            Happened::Gone => Hint::Gone,
        };
        Concern::Files(keys.into_iter().map(|key| (key, hint)).collect())
    }

    fn is_in_place(&self) -> bool {
        let meta = fs::metadata(&self.dir).ok();
        matches!((&self.root, meta), (Some(root), Some(meta)) if root.id == (meta.dev(), meta.ino()))
    }

    /// Finds the root anew, for it may have been replaced, and watches the way to it.
    fn enter(&mut self) -> Result<(), String> {
        for _ in 0..3 {
            let way = follow(Path::new("/"), &self.dir);
            let mut newly = false;
            let last = way.hops.len().saturating_sub(1);
            for (index, (folder, name)) in way.hops.iter().enumerate() {
                let is_link = fs::symlink_metadata(folder.join(name)).is_ok_and(|meta| meta.is_symlink());
                if is_link || index == last {
                    newly |= self.watch.ensure(folder, false);
                    self.ways.entry((folder.clone(), name.clone())).or_default().insert(Concerned::Everything);
                }
            }
            if newly {
                continue;
            }
            break;
        }
        let cannot = |what: &dyn std::fmt::Display| format!("cannot read the folder {}: {what}", self.dir.display());
        let real = self.dir.canonicalize().map_err(|error| cannot(&error))?;
        let handle =
            rustix::fs::open(&real, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|error| cannot(&error))?;
        let stat = rustix::fs::fstat(&handle).map_err(|error| cannot(&error))?;
        self.root = Some(Root { real, handle, id: (stat.st_dev, stat.st_ino) });
        Ok(())
    }

    fn walk(&mut self, settler: &Settler, trust: Trust) -> Result<Walk, String> {
        let mut walk = Walk::default();
        let Some(root) = &self.root else { return Ok(walk) };
        walk.todo.push_back((RelPath::root(), root.real.clone(), Arc::default()));
        loop {
            let (path, real, rules) = match walk.todo.pop_front() {
                Some(next) => next,
                None => match walk.links.pop_first() {
                    Some((path, (real, rules))) => (path, real, rules),
                    None => return Ok(walk),
                },
            };
            let Ok(meta) = fs::metadata(&real) else {
                if path.is_root() {
                    return Err(format!("the folder {} is gone", self.dir.display()));
                }
                continue;
            };
            if walk.visited.insert((meta.dev(), meta.ino())) {
                self.list(settler, trust, &mut walk, (path, real, rules))?;
            }
        }
    }

    fn list(&mut self, settler: &Settler, trust: Trust, walk: &mut Walk, folder: (RelPath, PathBuf, Arc<Rules>)) -> Result<(), String> {
        let (path, real, above) = folder;
        self.watch.ensure(&real, true);
        let listing = fs::read_dir(&real).and_then(|entries| {
            entries.map(|entry| entry.and_then(|e| Ok((e.file_name(), e.file_type()?)))).collect::<Result<BTreeMap<_, _>, _>>()
        });
        let entries = match listing {
            Ok(entries) => entries,
            Err(error) if path.is_root() => return Err(format!("cannot list the folder {}: {error}", self.dir.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                walk.problems.insert(path.to_string(), Problem::Unreadable { reason: error.to_string() });
                walk.unreadable.insert(path);
                return Ok(());
            }
        };
        walk.entries += entries.len();
        if walk.entries > self.options.max_files.saturating_mul(100) {
            return Err(format!(
                "the folder has more than {} entries; ignore some in {IGNORE_FILE}",
                self.options.max_files.saturating_mul(100)
            ));
        }
        let rules = self.rules_of(settler, trust, walk, &path, &above);
        self.folders.insert(real.clone(), Folder { path: path.clone(), rules: Arc::clone(&rules) });
        for (name, kind) in entries {
            let Some(text) = name.to_str() else {
                let bytes = name.as_bytes();
                if !bytes.starts_with(b".") && (kind.is_dir() || [&b".yaml"[..], b".yml", b".json"].iter().any(|end| bytes.ends_with(end)))
                {
                    walk.problems.insert(path.child(&name.to_string_lossy()).to_string(), Problem::NameNotUtf8);
                }
                continue;
            };
            let child = path.child(text);
            if is_hidden(text) || rules.leave_out(&child, kind.is_dir()) {
                continue;
            }
            if kind.is_dir() {
                walk.todo.push_back((child, real.join(&name), Arc::clone(&rules)));
            } else if kind.is_symlink() && self.link(walk, &child, &rules) {
                // Taken care of.
            } else if is_manifest_name(text) {
                walk.manifests += 1;
                if walk.manifests > self.options.max_files {
                    return Err(format!(
                        "the folder has more than {} manifests; split it, or ignore some in {IGNORE_FILE}",
                        self.options.max_files
                    ));
                }
                let key = Key::new(Slot::Manifest, child);
                let seen = self.examine(&key, trust);
                walk.seen.insert(key, seen);
            }
        }
        Ok(())
    }

    /// Notes what a symlink that names no manifest leads to; false when it is to be treated as a file.
    fn link(&mut self, walk: &mut Walk, path: &RelPath, rules: &Arc<Rules>) -> bool {
        let Some(root) = &self.root else { return false };
        let way = follow(&root.real, path.as_ref());
        let is_folder = matches!(&way.end, End::Found { meta, .. } if meta.is_dir());
        if is_manifest_name(path.file_name()) && !is_folder {
            return false;
        }
        for (folder, name) in &way.hops {
            self.watch.ensure(folder, true);
            self.ways.entry((folder.clone(), name.clone())).or_default().insert(Concerned::Everything);
        }
        match way.end {
            End::Found { real, .. } if is_folder && !rules.leave_out(path, true) => {
                walk.links.insert(path.clone(), (real, Arc::clone(rules)));
            }
            End::Outside => {
                walk.problems.insert(path.to_string(), Problem::LeavesRoot);
            }
            End::Loop => {
                walk.problems.insert(path.to_string(), Problem::LinkLoop);
            }
            End::Found { .. } | End::Missing | End::Dangling | End::Unknown => {}
        }
        true
    }

    fn rules_of(&mut self, settler: &Settler, trust: Trust, walk: &mut Walk, folder: &RelPath, above: &Arc<Rules>) -> Arc<Rules> {
        let key = Key::new(Slot::Ignore, folder.child(IGNORE_FILE));
        let seen = self.examine(&key, trust);
        // The last good rules hold until the new ones have settled: rules half written would let files in.
        let text = match (settler.good(&key), &seen) {
            (Some(good), _) => Some(good.clone()),
            (None, Seen::Text(text)) => Some(text.file.clone()),
            (None, _) => None,
        };
        if let Seen::Refused(problem) = &seen {
            walk.problems.insert(key.path.to_string(), problem.clone());
        }
        if !matches!(seen, Seen::Absent) || settler.knows(&key) {
            walk.seen.insert(key.clone(), seen);
        }
        let Some(text) = text else { return Arc::clone(above) };
        let (rules, wrong) = above.with(folder, &text.bytes);
        if !wrong.is_empty() {
            walk.problems.insert(key.path.to_string(), Problem::BadPattern { reason: wrong.join("; ") });
        }
        rules
    }

    fn examine(&mut self, key: &Key, trust: Trust) -> Seen {
        let Some(boundary) = self.root.as_ref().map(|root| root.real.clone()) else { return Seen::Unknown };
        let mut way = follow(&boundary, key.path.as_ref());
        // Followed again when a folder on the way was not watched until now: it may have changed in between.
        for _ in 0..3 {
            let mut newly = false;
            if way.links > 0 || key.slot == Slot::Attachment {
                for (folder, name) in &way.hops {
                    newly |= self.watch.ensure(folder, true);
                    self.ways.entry((folder.clone(), name.clone())).or_default().insert(Concerned::File(key.clone()));
                }
            }
            if !newly {
                break;
            }
            way = follow(&boundary, key.path.as_ref());
        }
        let seen = match way.end {
            End::Missing => Seen::Absent,
            End::Dangling if key.slot == Slot::Attachment => Seen::Absent,
            End::Dangling => Seen::Refused(Problem::Dangling),
            End::Outside => Seen::Refused(Problem::LeavesRoot),
            End::Loop => Seen::Refused(Problem::LinkLoop),
            End::Unknown => return Seen::Unknown,
            End::Found { real, meta } => self.load(key, &real, &meta, trust),
        };
        if matches!(seen, Seen::Absent | Seen::Refused(_)) {
            self.drop_known(key);
        }
        seen
    }

    fn load(&mut self, key: &Key, real: &Path, meta: &Metadata, trust: Trust) -> Seen {
        if meta.is_dir() && key.slot != Slot::Attachment {
            return Seen::Absent;
        }
        if let Some(what) = irregular(meta) {
            return Seen::Refused(Problem::NotRegular { what });
        }
        let stamp = Stamp::of(meta);
        let old = self.known.get(key);
        if let Some((known, text)) = old
            && trust == Trust::Stamps
            && *known == stamp
        {
            return Seen::Text(text.clone());
        }
        let (bytes, max) = (meta.size(), self.options.max_file_bytes);
        if bytes > max {
            return Seen::Refused(Problem::TooLarge { bytes, max });
        }
        let others = self.total_bytes - old.map_or(0, |(_, text)| text.file.bytes.len() as u64);
        if others + bytes > self.options.max_total_bytes {
            return Seen::Refused(Problem::SourceTooLarge { max: self.options.max_total_bytes });
        }
        let content = match self.read(real, &stamp) {
            Ok(content) => content,
            Err(ReadError::Changed) => return Seen::Changing,
            Err(ReadError::Refused(error)) => return Seen::Refused(Problem::Unreadable { reason: error.to_string() }),
        };
        let file = File::new(content);
        let text = match old {
            Some((_, text)) if text.file == file => text.clone(),
            _ => {
                let mut refs = if key.slot == Slot::Manifest { (self.references)(&key.path, &file.bytes) } else { Vec::new() };
                refs.sort();
                refs.dedup();
                Text { file, refs: refs.into() }
            }
        };
        self.total_bytes = others + text.file.bytes.len() as u64;
        self.known.insert(key.clone(), (stamp, text.clone()));
        Seen::Text(text)
    }

    /// Reads the regular file at `real`, a path without symlinks; what is swapped under our hands is not followed.
    fn read(&self, real: &Path, expected: &Stamp) -> Result<Vec<u8>, ReadError> {
        let Some(root) = &self.root else { return Err(ReadError::Changed) };
        let path = real.strip_prefix(&root.real).map_err(|_| ReadError::Changed)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let opened = match rustix::fs::openat2(&root.handle, path, flags, Mode::empty(), beneath) {
            // Kernels and sandboxes without it; the path was found to be free of symlinks a moment ago.
            Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(&root.handle, path, flags, Mode::empty()),
            opened => opened,
        };
        let handle = opened.map_err(ReadError::from)?;
        let mut file = fs::File::from(handle);
        let same = |file: &fs::File| file.metadata().is_ok_and(|meta| meta.is_file() && Stamp::of(&meta) == *expected);
        if !same(&file) {
            return Err(ReadError::Changed);
        }
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(self.options.max_file_bytes + 1).read_to_end(&mut bytes).map_err(ReadError::Refused)?;
        if same(&file) { Ok(bytes) } else { Err(ReadError::Changed) }
    }

    fn drop_known(&mut self, key: &Key) {
        if let Some((_, text)) = self.known.remove(key) {
            self.total_bytes -= text.file.bytes.len() as u64;
        }
    }
}

enum ReadError {
    Changed,
    Refused(std::io::Error),
}

impl From<Errno> for ReadError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::AGAIN => Self::Changed,
            other => Self::Refused(other.into()),
        }
    }
}

fn refs_of(seen: &Seen) -> &[RelPath] {
    match seen {
        Seen::Text(text) => &text.refs,
        Seen::Absent | Seen::Refused(_) | Seen::Changing | Seen::Unknown => &[],
    }
}

fn irregular(meta: &Metadata) -> Option<&'static str> {
    let kind = meta.file_type();
    if kind.is_file() {
        return None;
    }
    Some(if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    })
}
