//! Owns the decision when a change counts: [`Settler`], a pure state machine from looks and hints to snapshots.
//!
//! It must never read a clock or a file: time is an argument in milliseconds, and what a look found comes in as [`Input`]. Start at
//! [`Settler::advance`]. The rules:
//!
//! - Nothing is accepted from memory: a change becomes good only in an `advance` whose scan shows it again once it is due.
//! - Additions and changes are due `quiet` after the last sign of change; a burst of them becomes one snapshot (for at most
//!   [`BURST`] times `quiet`).
//! - A file that is open for writing, a text that is the beginning of the last good one, a refusal and an absence are due after `settle`.
//!   They hold up nobody else.
//! - A file that moved (its bytes are in another file that is good by then) need not wait for its absence: nothing is lost.
//! - What cannot be seen has not changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::path::RelPath;
use crate::snapshot::{Absence, Attachment, File, Health, Held, Manifest, Problem, Snapshot, Why};
use crate::spec::SourceId;

/// Milliseconds since any fixed moment.
pub type Millis = u64;

/// How many times `quiet` a burst of changes may put off what is ready.
pub const BURST: Millis = 20;

/// What a file is to the source. The order is the order of acceptance: what a manifest needs comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// A manifest refers to it.
    Attachment,
    /// It says which files are no manifests.
    Ignore,
    /// It is a manifest.
    Manifest,
}

/// One file in one role; a file that has two is tracked twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The role.
    pub slot: Slot,
    /// The file.
    pub path: RelPath,
}

impl Key {
    /// The file at `path` in the role `slot`.
    pub fn new(slot: Slot, path: RelPath) -> Self {
        Self { slot, path }
    }
}

/// A file's content and the files that it refers to.
#[derive(Clone, Debug)]
pub struct Text {
    /// The content.
    pub file: File,
    /// The files it refers to; empty unless it is a manifest.
    pub refs: Arc<[RelPath]>,
}

/// What one look at a file found.
#[derive(Clone, Debug)]
pub enum Seen {
    /// Nothing is there.
    Absent,
    /// This content.
    Text(Text),
    /// Something that cannot be had.
    Refused(Problem),
    /// It changed while it was read.
    Changing,
    /// The look itself failed (its folder cannot be entered): it may be there or not.
    Unknown,
}

/// What the file system told about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It was created or written to; somebody has it open.
    Written,
    /// A writer closed it.
    Closed,
    /// It was renamed or linked to this place, whole.
    Arrived,
    /// It was removed or renamed away.
    Gone,
}

/// What a look covered.
#[derive(Clone, Debug)]
pub enum Scan {
    /// The root cannot be seen, or not whole.
    Unreadable {
        /// Why.
        reason: String,
    },
    /// Everything: a tracked file that is not in `seen` is absent, unless it lies beneath one of `unreadable`.
    Whole {
        /// What was found.
        seen: BTreeMap<Key, Seen>,
        /// Folders that could not be listed.
        unreadable: BTreeSet<RelPath>,
        /// What is wrong with entries that are neither manifests nor attachments.
        problems: BTreeMap<String, Problem>,
    },
    /// These files only.
    Part {
        /// What was found.
        seen: BTreeMap<Key, Seen>,
    },
}

/// How changes become known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watching {
    /// By events; no event means no change.
    Events,
    /// By looking again, for this reason. A writer at work is seen only by its traces, so everything waits `settle`.
    Looks {
        /// Why.
        reason: String,
    },
}

/// One step's input: hints first, then the look that was made after them.
#[derive(Clone, Debug)]
pub struct Input {
    /// What the file system told, in its order.
    pub hints: Vec<(Key, Hint)>,
    /// What a look found.
    pub scan: Scan,
    /// How changes become known at present.
    pub watching: Watching,
}

/// What a step led to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// A new snapshot, when anything in it differs from the last.
    pub snapshot: Option<Snapshot>,
    /// An ignore file changed: what belongs to the source has to be looked up anew.
    pub rules_changed: bool,
}

/// The two waits.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For what looks unfinished, and for absence.
    pub settle: Millis,
    /// For what looks finished.
    pub quiet: Millis,
}

/// A tracked value that is there.
#[derive(Clone, Debug)]
enum Value {
    Text(Text),
    Refused(Problem),
}

impl Value {
    fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
        match (a, b) {
            (None, None) => true,
            (Some(Value::Text(a)), Some(Value::Text(b))) => a.file == b.file,
            (Some(Value::Refused(a)), Some(Value::Refused(b))) => a == b,
            _ => false,
        }
    }

    fn refs(value: Option<&Value>) -> &[RelPath] {
        match value {
            Some(Value::Text(text)) => &text.refs,
            _ => &[],
        }
    }
}

/// What is known about the file's writer, and whether `seen` is from before it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    None,
    /// Open, and looked at since its last write.
    Open,
    /// At work since the last look.
    Unseen,
}

#[derive(Clone, Debug)]
struct Track {
    good: Option<Value>,
    seen: Option<Value>,
    writer: Writer,
    /// The last sign of change.
    changed: Millis,
    /// The first sign of change after the last calm.
    since: Millis,
}

/// How a pending change waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// With the burst.
    Quiet,
    /// With the burst, provided that its bytes are good elsewhere by then.
    Moved,
    /// By itself.
    Held(Why),
}

#[derive(Clone, Debug)]
enum Root {
    Unseen,
    /// Seen since then; what it holds is not all good yet.
    Arriving {
        since: Millis,
    },
    Readable {
        since: Millis,
        absence: Absence,
    },
    Unreadable {
        since: Millis,
        reason: String,
    },
}

/// Decides when what was seen counts.
#[derive(Debug)]
pub struct Settler {
    source: SourceId,
    timing: Timing,
    tracks: BTreeMap<Key, Track>,
    pending: BTreeMap<Key, Pending>,
    root: Root,
    watching: Watching,
    problems: BTreeMap<String, Problem>,
    /// The last snapshot's parts that are not files.
    shown: Option<Shown>,
    version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    health: Health,
    absence: Absence,
    held: Vec<Held>,
    problems: BTreeMap<String, Problem>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    wait: Wait,
    due: Millis,
    since: Millis,
    /// From when on it is worth telling that it is held.
    told: Millis,
}

impl Settler {
    /// A settler that has seen nothing.
    pub fn new(source: SourceId, timing: Timing) -> Self {
        Self {
            source,
            timing,
            tracks: BTreeMap::new(),
            pending: BTreeMap::new(),
            root: Root::Unseen,
            watching: Watching::Events,
            problems: BTreeMap::new(),
            shown: None,
            version: 0,
        }
    }

    /// Takes in what happened and what was seen at `now`, which never goes back.
    ///
    /// # Guarantees
    /// A file that every look found with the same text is in every snapshot after the first that has it.
    pub fn advance(&mut self, now: Millis, input: Input) -> Outcome {
        self.watching = input.watching;
        for (key, hint) in input.hints {
            self.hint(now, key, hint);
        }
        let confirmed = self.take_in(now, input.scan);
        self.reckon();
        let (mut changed, mut rules_changed) = (false, false);
        for key in self.ripe(now) {
            if confirmed.contains(&key) && self.accept(now, &key) {
                match key.slot {
                    Slot::Ignore => rules_changed = true,
                    Slot::Attachment | Slot::Manifest => changed = true,
                }
            }
        }
        self.forget_unreferred();
        self.reckon();
        self.arrive(now);
        Outcome { snapshot: self.publish(now, changed), rules_changed }
    }

    /// When `advance` is next to be called with a look at [`Settler::due`], if nothing happens before.
    pub fn wake(&self) -> Option<Millis> {
        if let Root::Unreadable { since, .. } = &self.root {
            let to_be_shown = self.shown.as_ref().is_some_and(|shown| !matches!(shown.health, Health::Unreadable { .. }));
            return to_be_shown.then_some(since + self.timing.settle);
        }
        let held = self.pending.iter().filter_map(|(key, pending)| {
            let Wait::Held(why) = pending.wait else { return None };
            let shown = self.shown.as_ref().filter(|_| matches!(self.root, Root::Readable { .. }));
            let to_be_shown = shown.is_some_and(|shown| !shown.held.contains(&Held { path: key.path.clone(), why }));
            Some(if to_be_shown { pending.due.min(pending.told) } else { pending.due })
        });
        held.chain(self.burst_end()).min()
    }

    /// What the absence of a file means at present; while it means nothing yet, a whole look is due after another `settle`.
    pub fn absence(&self) -> Absence {
        match self.root {
            Root::Readable { absence, .. } => absence,
            Root::Unseen | Root::Arriving { .. } | Root::Unreadable { .. } => Absence::Unproven,
        }
    }

    /// The files whose waiting is over at `now`: the next look has to cover them.
    pub fn due(&self, now: Millis) -> Vec<Key> {
        match self.root {
            Root::Readable { .. } | Root::Arriving { .. } => self.ripe(now),
            Root::Unseen | Root::Unreadable { .. } => Vec::new(),
        }
    }

    /// Every file that manifests refer to, those that are about to count included.
    pub fn references(&self) -> BTreeSet<RelPath> {
        let manifests = self.tracks.iter().filter(|(key, _)| key.slot == Slot::Manifest).map(|(_, track)| track);
        manifests.flat_map(|track| Value::refs(track.good.as_ref()).iter().chain(Value::refs(track.seen.as_ref()))).cloned().collect()
    }

    /// Whether the file is tracked in this role.
    pub fn knows(&self, key: &Key) -> bool {
        self.tracks.contains_key(key)
    }

    /// The last good text of a file.
    pub fn good(&self, key: &Key) -> Option<&File> {
        match self.tracks.get(key)?.good.as_ref()? {
            Value::Text(text) => Some(&text.file),
            Value::Refused(_) => None,
        }
    }

    fn hint(&mut self, now: Millis, key: Key, hint: Hint) {
        let track = self.tracks.entry(key.clone()).or_insert_with(|| Track::new(now));
        track.stir(now, self.timing.quiet, self.pending.contains_key(&key));
        track.writer = match hint {
            Hint::Written => Writer::Unseen,
            Hint::Closed | Hint::Arrived | Hint::Gone => Writer::None,
        };
    }

    /// Takes in a look; answers which files it covered with a definite result.
    fn take_in(&mut self, now: Millis, scan: Scan) -> BTreeSet<Key> {
        let mut confirmed = BTreeSet::new();
        match scan {
            Scan::Unreadable { reason } => {
                let since = match self.root {
                    Root::Unreadable { since, .. } => since,
                    Root::Unseen | Root::Arriving { .. } | Root::Readable { .. } => now,
                };
                self.root = Root::Unreadable { since, reason };
            }
            Scan::Whole { mut seen, unreadable, problems } => {
                match &mut self.root {
                    Root::Unseen => self.root = Root::Arriving { since: now },
                    Root::Unreadable { .. } => {
                        self.restart_absences(now);
                        self.root = Root::Arriving { since: now };
                    }
                    Root::Readable { since, absence } if *since + self.timing.settle <= now => *absence = Absence::Counts,
                    Root::Arriving { .. } | Root::Readable { .. } => {}
                }
                self.problems = problems;
                for key in self.tracks.keys() {
                    if !seen.contains_key(key) {
                        let hidden = unreadable.iter().any(|folder| key.path.is_beneath(folder));
                        seen.insert(key.clone(), if hidden { Seen::Unknown } else { Seen::Absent });
                    }
                }
                self.observe_all(now, seen, &mut confirmed);
            }
            Scan::Part { seen } => self.observe_all(now, seen, &mut confirmed),
        }
        confirmed
    }

    /// The folder has arrived when everything in it is good, or has had its time to become so.
    fn arrive(&mut self, now: Millis) {
        let Root::Arriving { since } = self.root else { return };
        let new = self.pending.keys().any(|key| self.tracks.get(key).is_some_and(|track| track.good.is_none()));
        if !new || since + 2 * self.timing.settle < now {
            let absence = if self.timing.settle == 0 { Absence::Counts } else { Absence::Unproven };
            self.root = Root::Readable { since, absence };
        }
    }

    fn restart_absences(&mut self, now: Millis) {
        for track in self.tracks.values_mut() {
            if track.seen.is_none() {
                track.changed = now;
            }
        }
    }

    fn observe_all(&mut self, now: Millis, seen: BTreeMap<Key, Seen>, confirmed: &mut BTreeSet<Key>) {
        for (key, seen) in seen {
            let definite = !matches!(seen, Seen::Unknown | Seen::Changing);
            let pending = self.pending.contains_key(&key);
            let track = self.tracks.entry(key.clone()).or_insert_with(|| Track::new(now));
            track.observe(now, self.timing.quiet, seen, pending);
            if definite {
                confirmed.insert(key);
            }
        }
    }

    /// Works out anew what waits, and for how long.
    fn reckon(&mut self) {
        let mut pending: BTreeMap<Key, Pending> =
            self.tracks.iter().filter_map(|(key, track)| Some((key.clone(), self.pending_of(key, track)?))).collect();
        let gone = |(key, track): &(&Key, &Track)| key.slot == Slot::Manifest && track.is_gone();
        if self.tracks.iter().any(|entry| gone(&entry)) {
            let twins = self.twins(&pending);
            for (key, track) in self.tracks.iter().filter(gone) {
                if let (Some(twin), Some(pending)) = (track.good_digest().and_then(|digest| twins.get(&digest)), pending.get_mut(key)) {
                    (pending.wait, pending.due) = (Wait::Moved, self.quiet_after(track).max(*twin));
                }
            }
        }
        self.pending = pending;
    }

    fn pending_of(&self, key: &Key, track: &Track) -> Option<Pending> {
        let wait = track.wait()?;
        let since = track.since;
        let told = (track.changed + self.timing.quiet).min(since + BURST * self.timing.quiet);
        Some(match wait {
            // Rules that cannot be read any more are kept: to drop them would let files in that were kept out.
            Wait::Held(Why::RefusalPending) if key.slot == Slot::Ignore => return None,
            Wait::Quiet => match self.unfinished_reference(track) {
                Some(due) => Pending { wait: Wait::Held(Why::Attachment), due, since, told },
                None => Pending { wait, due: self.quiet_after(track).max(self.references_quiet(track)), since, told },
            },
            Wait::Moved | Wait::Held(_) => Pending { wait, due: track.changed + self.timing.settle, since, told },
        })
    }

    fn quiet_after(&self, track: &Track) -> Millis {
        match self.watching {
            Watching::Events => (track.changed + self.timing.quiet).min(track.since + BURST * self.timing.quiet),
            Watching::Looks { .. } => track.changed + self.timing.settle,
        }
    }

    /// When the last of the files that `manifest` refers to, that was never good, comes with the burst.
    fn references_quiet(&self, manifest: &Track) -> Millis {
        let tracks =
            Value::refs(manifest.seen.as_ref()).iter().filter_map(|path| self.tracks.get(&Key::new(Slot::Attachment, path.clone())));
        let new = tracks.filter(|track| track.good.is_none() && track.wait() == Some(Wait::Quiet));
        new.map(|track| self.quiet_after(track)).max().unwrap_or(0)
    }

    /// The texts of the manifests that are good, or will be with the burst, and from when.
    fn twins(&self, pending: &BTreeMap<Key, Pending>) -> BTreeMap<[u8; 32], Millis> {
        let mut twins = BTreeMap::new();
        for (key, track) in self.tracks.iter().filter(|(key, _)| key.slot == Slot::Manifest) {
            let due = match pending.get(key) {
                None => 0,
                Some(Pending { wait: Wait::Quiet, due, .. }) => *due,
                Some(_) => continue,
            };
            if let Some(digest) = track.seen_digest() {
                let earliest = twins.entry(digest).or_insert(due);
                *earliest = due.min(*earliest);
            }
        }
        twins
    }

    /// When the last of the files that `manifest` refers to, that was never good and is being written, will be due.
    fn unfinished_reference(&self, manifest: &Track) -> Option<Millis> {
        let refs = Value::refs(manifest.seen.as_ref()).iter();
        refs.filter_map(|path| {
            let track = self.tracks.get(&Key::new(Slot::Attachment, path.clone()))?;
            let unfinished = track.good.is_none() && track.wait() == Some(Wait::Held(Why::Open));
            unfinished.then_some(track.changed + self.timing.settle)
        })
        .max()
    }

    /// When the present burst of changes ends, if there is one.
    fn burst_end(&self) -> Option<Millis> {
        let burst = || self.pending.values().filter(|pending| matches!(pending.wait, Wait::Quiet | Wait::Moved));
        let last = burst().map(|pending| pending.due).max()?;
        let patience = match self.watching {
            Watching::Events => BURST * self.timing.quiet,
            Watching::Looks { .. } => self.timing.settle.max(BURST * self.timing.quiet),
        };
        let cap = burst().map(|pending| pending.since.saturating_add(patience).max(pending.due)).min()?;
        Some(last.min(cap))
    }

    /// What may be accepted at `now`: in the order of acceptance, moves last, because they need their twin.
    fn ripe(&self, now: Millis) -> Vec<Key> {
        let burst_over = self.burst_end().is_some_and(|end| end <= now);
        let ripe = |wanted: fn(Wait) -> bool| {
            let due = self.pending.iter().filter(move |(_, pending)| pending.due <= now && wanted(pending.wait));
            due.map(|(key, _)| key.clone())
        };
        let mut keys: Vec<Key> = ripe(|wait| matches!(wait, Wait::Held(_))).collect();
        if burst_over {
            keys.extend(ripe(|wait| wait == Wait::Quiet));
        }
        keys.sort();
        if burst_over {
            keys.extend(ripe(|wait| wait == Wait::Moved));
        }
        keys
    }

    /// Makes what was last seen of `key` good; false when it has to wait on.
    fn accept(&mut self, now: Millis, key: &Key) -> bool {
        let Some(pending) = self.pending.get(key).copied() else { return false };
        let Some(track) = self.tracks.get(key) else { return false };
        let allowed = match pending.wait {
            Wait::Quiet | Wait::Held(Why::Open | Why::StrictPrefix | Why::AbsencePending | Why::RefusalPending) => true,
            Wait::Moved => self.has_good_twin(key, track),
            Wait::Held(Why::Attachment) => self.unfinished_reference(track).is_none_or(|until| until <= now),
        };
        let Some(track) = self.tracks.get_mut(key) else { return false };
        if !allowed || track.writer == Writer::Unseen {
            return false;
        }
        let differs = !Value::same(track.good.as_ref(), track.seen.as_ref());
        track.good = track.seen.clone();
        if track.good.is_none() && key.slot != Slot::Attachment {
            self.tracks.remove(key);
        }
        differs
    }

    fn has_good_twin(&self, key: &Key, track: &Track) -> bool {
        let Some(digest) = track.good_digest() else { return false };
        self.tracks.iter().any(|(other, twin)| {
            other.slot == Slot::Manifest && other != key && twin.good_digest() == Some(digest) && twin.seen_digest() == Some(digest)
        })
    }

    fn forget_unreferred(&mut self) {
        let wanted = self.references();
        self.tracks.retain(|key, track| match key.slot {
            Slot::Attachment => wanted.contains(&key.path),
            Slot::Ignore | Slot::Manifest => track.good.is_some() || track.seen.is_some() || track.writer != Writer::None,
        });
    }

    fn health(&self, now: Millis) -> Health {
        let before = self.shown.as_ref().map(|shown| &shown.health);
        match (&self.root, before) {
            (Root::Unreadable { since, .. }, Some(before))
                if now < since + self.timing.settle && !matches!(before, Health::Unreadable { .. }) =>
            {
                before.clone()
            }
            (Root::Unreadable { reason, .. }, _) => Health::Unreadable { reason: reason.clone() },
            (Root::Arriving { .. }, Some(before)) => before.clone(),
            (Root::Readable { .. } | Root::Arriving { .. } | Root::Unseen, _) => match &self.watching {
                Watching::Events => Health::Ready,
                Watching::Looks { reason } => Health::Degraded { reason: reason.clone() },
            },
        }
    }

    fn held(&self, now: Millis) -> Vec<Held> {
        let ripe = self.pending.iter().filter(|(_, pending)| pending.told <= now);
        let mut held: Vec<Held> = ripe
            .filter_map(|(key, pending)| match pending.wait {
                Wait::Held(why) => Some(Held { path: key.path.clone(), why }),
                Wait::Quiet | Wait::Moved => None,
            })
            .collect();
        held.sort();
        held.dedup();
        held
    }

    fn publish(&mut self, now: Millis, changed: bool) -> Option<Snapshot> {
        match (&self.root, &self.shown) {
            // The first snapshot is the whole folder's, not that of a burst's beginning.
            (Root::Unseen, _) | (Root::Arriving { .. }, None) => return None,
            _ => {}
        }
        // A root that is out of sight for a moment (it is being replaced) is not news yet.
        if matches!(self.root, Root::Unreadable { .. }) && !matches!(self.health(now), Health::Unreadable { .. }) {
            return None;
        }
        let shown = Shown { health: self.health(now), absence: self.absence(), held: self.held(now), problems: self.problems.clone() };
        if !changed && self.shown.as_ref() == Some(&shown) {
            return None;
        }
        // Between the two looks of an arrival only what is worth acting on is worth saying.
        if matches!(self.root, Root::Arriving { .. }) && !changed {
            return None;
        }
        self.shown = Some(shown.clone());
        self.version += 1;
        let Shown { health, absence, held, problems } = shown;
        let (manifests, attachments) = self.good_files();
        Some(Snapshot { source: self.source.clone(), version: self.version, health, absence, manifests, attachments, held, problems })
    }

    fn good_files(&self) -> (BTreeMap<RelPath, Manifest>, BTreeMap<RelPath, Attachment>) {
        let mut manifests = BTreeMap::new();
        let mut attachments = BTreeMap::new();
        for (key, track) in self.tracks.iter().filter(|(key, _)| key.slot == Slot::Manifest) {
            let manifest = match &track.good {
                None => continue,
                Some(Value::Refused(problem)) => Manifest::Refused(problem.clone()),
                Some(Value::Text(text)) => {
                    for path in text.refs.iter() {
                        attachments.entry(path.clone()).or_insert_with(|| self.attachment(path));
                    }
                    Manifest::File(text.file.clone())
                }
            };
            manifests.insert(key.path.clone(), manifest);
        }
        (manifests, attachments)
    }

    fn attachment(&self, path: &RelPath) -> Attachment {
        match self.tracks.get(&Key::new(Slot::Attachment, path.clone())).and_then(|track| track.good.as_ref()) {
            None => Attachment::Missing,
            Some(Value::Text(text)) => Attachment::File(text.file.clone()),
            Some(Value::Refused(problem)) => Attachment::Refused(problem.clone()),
        }
    }
}

impl Track {
    fn new(now: Millis) -> Self {
        Self { good: None, seen: None, writer: Writer::None, changed: now, since: now }
    }

    /// Notes a sign of change; the first one after a calm begins a burst.
    fn stir(&mut self, now: Millis, quiet: Millis, pending: bool) {
        if !pending || self.changed + quiet <= now {
            self.since = now;
        }
        self.changed = now;
    }

    fn observe(&mut self, now: Millis, quiet: Millis, seen: Seen, pending: bool) {
        let seen = match seen {
            Seen::Absent => None,
            Seen::Text(text) => Some(Value::Text(text)),
            Seen::Refused(problem) => Some(Value::Refused(problem)),
            Seen::Changing => {
                self.stir(now, quiet, pending);
                self.writer = Writer::Unseen;
                return;
            }
            Seen::Unknown => {
                if pending {
                    self.changed = now;
                }
                return;
            }
        };
        let told = self.writer == Writer::Unseen;
        match (&seen, told) {
            (None, _) => self.writer = Writer::None,
            (Some(_), true) => self.writer = Writer::Open,
            (Some(_), false) => {}
        }
        if Value::same(self.seen.as_ref(), seen.as_ref()) {
            return;
        }
        // A change that was told counts from when it was told; one that was found counts from now.
        if !told {
            self.stir(now, quiet, pending);
        }
        // Equal bytes keep their allocation, so that callers can tell by it.
        self.seen = if Value::same(self.good.as_ref(), seen.as_ref()) { self.good.clone() } else { seen };
    }

    fn wait(&self) -> Option<Wait> {
        if self.writer == Writer::Unseen {
            return Some(Wait::Held(Why::Open));
        }
        if Value::same(self.good.as_ref(), self.seen.as_ref()) {
            return None;
        }
        Some(match (&self.good, &self.seen) {
            (Some(_), None) => Wait::Held(Why::AbsencePending),
            (Some(_), Some(Value::Refused(_))) => Wait::Held(Why::RefusalPending),
            _ if self.writer == Writer::Open => Wait::Held(Why::Open),
            (Some(Value::Text(good)), Some(Value::Text(seen))) if is_strict_prefix(&seen.file.bytes, &good.file.bytes) => {
                Wait::Held(Why::StrictPrefix)
            }
            _ => Wait::Quiet,
        })
    }

    fn is_gone(&self) -> bool {
        self.good.is_some() && self.seen.is_none()
    }

    fn good_digest(&self) -> Option<[u8; 32]> {
        match &self.good {
            Some(Value::Text(text)) => Some(text.file.digest),
            _ => None,
        }
    }

    fn seen_digest(&self) -> Option<[u8; 32]> {
        match &self.seen {
            Some(Value::Text(text)) => Some(text.file.digest),
            _ => None,
        }
    }
}

fn is_strict_prefix(shorter: &[u8], longer: &[u8]) -> bool {
    shorter.len() < longer.len() && longer.starts_with(shorter)
}
