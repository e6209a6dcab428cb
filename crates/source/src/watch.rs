//! Owns the conversation with the operating system's file notifications: which folders are watched, and what an event says.
//!
//! Folders are watched one by one and always before they are listed, so that nothing falls between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use notify::event::{AccessKind, AccessMode, CreateKind, Event, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::directory::Message;
use crate::settle::Watching;

/// What happened to one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    FolderMade,
    Created,
    Written,
    Closed,
    Arrived,
    Gone,
    Touched,
}

/// An event, as far as a source cares.
#[derive(Debug)]
pub(crate) enum Sign {
    At {
        path: PathBuf,
        happened: Happened,
    },
    /// Events were lost.
    Overflow,
}

enum Mode {
    /// For a single look.
    Off,
    On(RecommendedWatcher),
    Failed(String),
}

pub(crate) struct Watch {
    mode: Mode,
    sender: Option<Sender<Message>>,
    held: BTreeMap<PathBuf, (u64, u64)>,
    wanted: BTreeSet<PathBuf>,
    trouble: Option<String>,
}

impl Watch {
    pub(crate) fn off() -> Self {
        Self { mode: Mode::Off, sender: None, held: BTreeMap::new(), wanted: BTreeSet::new(), trouble: None }
    }

    pub(crate) fn new(sender: Sender<Message>) -> Self {
        Self { mode: Mode::Failed("not started".to_owned()), sender: Some(sender), ..Self::off() }
    }

    /// Starts a new round of [`Watch::ensure`] calls, after which [`Watch::finish`] lets go of all other folders.
    pub(crate) fn begin(&mut self) {
        self.wanted.clear();
        self.trouble = None;
        if let (Mode::Failed(_), Some(sender)) = (&self.mode, &self.sender) {
            let sender = sender.clone();
            let handler = move |event: notify::Result<Event>| forward(&sender, event);
            self.mode = match notify::recommended_watcher(handler) {
                Ok(watcher) => Mode::On(watcher),
                Err(error) => Mode::Failed(format!("file notifications are not available ({error}); looking every so often instead")),
            };
            self.held.clear();
        }
    }

    pub(crate) fn finish(&mut self) {
        let (Mode::On(watcher), wanted) = (&mut self.mode, &self.wanted) else { return };
        self.held.retain(|path, _| {
            let keep = wanted.contains(path);
            if !keep && let Err(error) = watcher.unwatch(path) {
                tracing::trace!(%error, path = %path.display(), "watch was gone already");
            }
            keep
        });
    }

    /// Watches the folder `path`; true when it was not watched before. Where it is `vital`, a failure means looking instead of watching.
    pub(crate) fn ensure(&mut self, path: &Path, vital: bool) -> bool {
        let Mode::On(watcher) = &mut self.mode else { return false };
        let Ok(meta) = fs::metadata(path) else { return false };
        let id = (meta.dev(), meta.ino());
        self.wanted.insert(path.to_owned());
        match self.held.get(path) {
            Some(held) if *held == id => return false,
            Some(_) => {
                if let Err(error) = watcher.unwatch(path) {
                    tracing::trace!(%error, path = %path.display(), "watch was gone already");
                }
            }
            None => {}
        }
        match watcher.watch(path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.held.insert(path.to_owned(), id);
                true
            }
            Err(error) => {
                self.held.remove(path);
                if vital && !matches!(error.kind, notify::ErrorKind::PathNotFound) && path.exists() {
                    self.trouble.get_or_insert_with(|| trouble(path, &error));
                }
                false
            }
        }
    }

    /// Has every folder watched anew at the next [`Watch::ensure`]: a watch that silently ended is healed by it.
    pub(crate) fn distrust(&mut self) {
        for id in self.held.values_mut() {
            *id = (0, 0);
        }
    }

    /// The watches at and beneath `path` ended with it.
    pub(crate) fn lost(&mut self, path: &Path) {
        self.held.retain(|held, _| !held.starts_with(path));
    }

    pub(crate) fn is_watched(&self, path: &Path) -> bool {
        self.held.contains_key(path)
    }

    pub(crate) fn watching(&self) -> Watching {
        match (&self.mode, &self.trouble) {
            (Mode::Failed(reason), _) | (Mode::On(_), Some(reason)) => Watching::Looks { reason: reason.clone() },
            (Mode::Off | Mode::On(_), _) => Watching::Events,
        }
    }
}

fn trouble(path: &Path, error: &notify::Error) -> String {
    match error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            "the limit of file watches is reached (raise fs.inotify.max_user_watches, or ignore folders in \
             .quaymasterignore); looking every so often instead"
                .to_owned()
        }
        _ => format!("{} cannot be watched ({error}); looking every so often instead", path.display()),
    }
}

/// Runs on the notifier's thread: translates and passes on. Our own opening and reading of files is news to nobody.
fn forward(sender: &Sender<Message>, event: notify::Result<Event>) {
    let event = match event {
        Ok(event) if event.need_rescan() => return send(sender, Sign::Overflow),
        Ok(event) => event,
        Err(error) => {
            tracing::debug!(%error, "file notification failed");
            return send(sender, Sign::Overflow);
        }
    };
    let happened = match event.kind {
        EventKind::Create(CreateKind::Folder) => Happened::FolderMade,
        EventKind::Create(_) => Happened::Created,
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Happened::Arrived,
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => Happened::Gone,
        // Told as From and To already.
        EventKind::Modify(ModifyKind::Name(_)) => return,
        EventKind::Modify(ModifyKind::Metadata(_)) => Happened::Touched,
        EventKind::Modify(_) => Happened::Written,
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Happened::Closed,
        EventKind::Access(_) | EventKind::Any | EventKind::Other => return,
    };
    for path in event.paths {
        send(sender, Sign::At { path, happened });
    }
}

fn send(sender: &Sender<Message>, sign: Sign) {
    // The receiver is gone only while the source is being dropped.
    let _ = sender.send(Message::Sign(sign));
}
