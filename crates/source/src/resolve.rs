//! Owns the way from a path with symlinks to the real place, without ever leaving a boundary, and what has to be watched to notice that the
//! way changed. It reads links and metadata; it opens nothing.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows.
const MAX_LINKS: usize = 40;

/// A folder's entry on the way: when it changes, the way may have changed.
pub(crate) type Hop = (PathBuf, OsString);

pub(crate) enum End {
    /// The real place; its metadata is not a symlink's.
    Found {
        real: PathBuf,
        meta: Metadata,
    },
    Missing,
    /// A symlink on the way points at nothing.
    Dangling,
    Outside,
    Loop,
    /// A folder on the way cannot be entered.
    Unknown,
}

pub(crate) struct Way {
    pub(crate) end: End,
    pub(crate) hops: Vec<Hop>,
    /// Which of `hops` are symlinks; a way without any needs no watching beyond its last folder.
    pub(crate) links: usize,
}

/// Follows `path` (taken relative to `boundary`, a real path) to its end.
pub(crate) fn follow(boundary: &Path, path: &Path) -> Way {
    let mut way = Way { end: End::Missing, hops: Vec::new(), links: 0 };
    let mut here = boundary.to_owned();
    let mut rest: VecDeque<OsString> = VecDeque::new();
    push_front(&mut rest, path);
    let mut at: Option<Metadata> = None;
    while let Some(name) = rest.pop_front() {
        if name == OsStr::new("..") {
            if here == boundary || !here.pop() {
                way.end = End::Outside;
                return way;
            }
            at = None;
            continue;
        }
        if at.as_ref().is_some_and(|meta| !meta.is_dir()) {
            return way.missing();
        }
        way.hops.push((here.clone(), name.clone()));
        let next = here.join(&name);
        let meta = match fs::symlink_metadata(&next) {
            Ok(meta) => meta,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return way.missing(),
            Err(_) => {
                way.end = End::Unknown;
                return way;
            }
        };
        if !meta.is_symlink() {
            here = next;
            at = Some(meta);
            continue;
        }
        way.links += 1;
        if way.links > MAX_LINKS {
            way.end = End::Loop;
            return way;
        }
        let target = match fs::read_link(&next) {
            Ok(target) => target,
            Err(_) => return way.missing(),
        };
        if target.is_absolute() {
            let Ok(inside) = target.strip_prefix(boundary) else {
                way.end = End::Outside;
                return way;
            };
            push_front(&mut rest, inside);
            here = boundary.to_owned();
        } else {
            push_front(&mut rest, &target);
        }
        at = None;
    }
    way.end = match at.map_or_else(|| fs::symlink_metadata(&here), Ok) {
        Ok(meta) => End::Found { real: here, meta },
        Err(_) => return way.missing(),
    };
    way
}

impl Way {
    fn missing(mut self) -> Self {
        self.end = if self.links == 0 { End::Missing } else { End::Dangling };
        self
    }
}

fn push_front(rest: &mut VecDeque<OsString>, path: &Path) {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => rest.push_front(name.to_owned()),
            Component::ParentDir => rest.push_front(OsString::from("..")),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
}
