//! Owns a running source: the thread that turns events into looks, and looks into snapshots. It decides nothing: see [`crate::settle`].

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::look::{Concern, Looker, Trust};
use crate::path::RelPath;
use crate::settle::{Hint, Input, Key, Millis, Scan, Settler, Timing, Watching};
use crate::snapshot::{Absence, Snapshot};
use crate::spec::{SourceId, Spec};
use crate::watch::{Sign, Watch};

/// How a source is read.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long what looks unfinished, and absence, have to last.
    pub settle: Duration,
    /// How long what looks finished has to be quiet.
    pub quiet: Duration,
    /// How often everything is looked at, whatever the events say.
    pub rescan: Duration,
    /// The largest file that is read.
    pub max_file_bytes: u64,
    /// The most manifests a source may have.
    pub max_files: usize,
    /// The most bytes that all files of a source may have together.
    pub max_total_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(2),
            quiet: Duration::from_millis(25),
            rescan: Duration::from_secs(60),
            max_file_bytes: 4 << 20,
            max_files: 10_000,
            max_total_bytes: 256 << 20,
        }
    }
}

/// Which files of the source a manifest refers to: `(the manifest's path, its bytes) -> paths`. Pure, and called once per new content.
pub type References = Arc<dyn Fn(&RelPath, &[u8]) -> Vec<RelPath> + Send + Sync>;

/// Why a source could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The system gave no thread.
    #[error("cannot start the thread that reads a source")]
    Thread(#[source] io::Error),
}

/// A source that is being read; dropping it ends that.
#[derive(Debug)]
pub struct Directory {
    sender: mpsc::Sender<Message>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Where a source's snapshots arrive.
#[derive(Debug)]
pub struct Receiver {
    channel: watch::Receiver<Option<Arc<Snapshot>>>,
}

/// What the thread is told.
pub(crate) enum Message {
    Sign(Sign),
    Rescan,
    Stop,
}

impl Directory {
    /// Starts reading the folder. That it is missing or unreadable is no error: the snapshots say so, and tell when it comes.
    ///
    /// # Errors
    /// [`SpawnError`] when there is no thread to be had.
    pub fn spawn(spec: Spec, options: Options, references: References) -> Result<(Self, Receiver), SpawnError> {
        let (sender, messages) = mpsc::channel();
        let (snapshots, channel) = watch::channel(None);
        let runner = Runner::new(spec, options, references, sender.clone(), messages, snapshots);
        let thread = thread::Builder::new().name("source".to_owned()).spawn(move || runner.run()).map_err(SpawnError::Thread)?;
        Ok((Self { sender, thread: Some(thread) }, Receiver { channel }))
    }

    /// Has everything looked at now.
    pub fn rescan(&self) {
        // The thread ends before this does only if it panicked, which the receiver learns.
        let _ = self.sender.send(Message::Rescan);
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = self.sender.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Receiver {
    /// The newest snapshot that was not handed out yet; those that it overtook are skipped. `None` when the source has ended.
    pub async fn next(&mut self) -> Option<Arc<Snapshot>> {
        self.channel.changed().await.ok()?;
        self.channel.borrow_and_update().clone()
    }
}

/// Looks at a folder once, without waiting for anything to settle.
pub fn scan_once(dir: &Path, options: &Options, references: &References) -> Snapshot {
    let source = SourceId::new(dir.to_string_lossy().into_owned());
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let mut settler = Settler::new(source, Timing { settle: 0, quiet: 0 });
    let mut looker = Looker::new(absolute, options.clone(), Arc::clone(references), Watch::off());
    let mut now = 0;
    loop {
        let scan = looker.whole(&settler, Trust::Stamps);
        let outcome = settler.advance(now, Input { hints: Vec::new(), scan, watching: Watching::Events });
        // Files that change while they are read are looked at again; `settle` being 0, this ends when they pause.
        if let Some(snapshot) = outcome.snapshot {
            return snapshot;
        }
        now += 1;
    }
}

struct Runner {
    options: Options,
    started: Instant,
    looker: Looker,
    settler: Settler,
    messages: mpsc::Receiver<Message>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    hints: Vec<(Key, Hint)>,
    dirty: BTreeMap<Key, Trust>,
    whole: Whole,
}

/// The next look at everything.
struct Whole {
    at: Millis,
    trust: Trust,
    last: Millis,
}

enum Next {
    Look,
    Stop,
}

impl Runner {
    fn new(
        spec: Spec,
        options: Options,
        references: References,
        sender: mpsc::Sender<Message>,
        messages: mpsc::Receiver<Message>,
        snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    ) -> Self {
        let timing = Timing { settle: millis(options.settle), quiet: millis(options.quiet) };
        Self {
            started: Instant::now(),
            looker: Looker::new(spec.dir, options.clone(), references, Watch::new(sender)),
            settler: Settler::new(spec.id, timing),
            options,
            messages,
            snapshots,
            hints: Vec::new(),
            dirty: BTreeMap::new(),
            whole: Whole { at: 0, trust: Trust::Stamps, last: 0 },
        }
    }

    fn run(mut self) {
        loop {
            self.step();
            match self.wait() {
                Next::Look => {}
                Next::Stop => return,
            }
        }
    }

    fn now(&self) -> Millis {
        millis(self.started.elapsed())
    }

    fn step(&mut self) {
        let now = self.now();
        let confirm = match self.looker.watch.watching() {
            Watching::Events => Trust::Stamps,
            // Two writes within one tick of the file system's clock look alike; without events only the bytes tell.
            Watching::Looks { .. } => Trust::Nothing,
        };
        for key in self.settler.due(now) {
            self.dirty.entry(key).or_insert(confirm);
        }
        let dirty = std::mem::take(&mut self.dirty);
        let part = if now >= self.whole.at { None } else { self.looker.part(&dirty, &self.settler) };
        let scan = part.unwrap_or_else(|| self.look_at_everything(now, dirty));
        let input = Input { hints: std::mem::take(&mut self.hints), scan, watching: self.looker.watch.watching() };
        let outcome = self.settler.advance(now, input);
        if outcome.rules_changed {
            self.whole.at = now;
        }
        if let Some(snapshot) = outcome.snapshot {
            self.snapshots.send_replace(Some(Arc::new(snapshot)));
        }
    }

    fn look_at_everything(&mut self, now: Millis, dirty: BTreeMap<Key, Trust>) -> Scan {
        let mut scan = self.looker.whole(&self.settler, self.whole.trust);
        // What an event spoke of is read even if its metadata looks as before.
        let distrusted: BTreeMap<Key, Trust> = dirty.into_iter().filter(|(_, trust)| *trust == Trust::Nothing).collect();
        if self.whole.trust == Trust::Stamps
            && let Scan::Whole { seen, .. } = &mut scan
            && let Some(Scan::Part { seen: again }) = self.looker.part(&distrusted, &self.settler)
        {
            let again = again.into_iter().filter(|(key, _)| seen.contains_key(key)).collect::<Vec<_>>();
            seen.extend(again);
        }
        let soon = matches!(self.looker.watch.watching(), Watching::Looks { .. }) || self.settler.absence() == Absence::Unproven;
        let pause = if soon { self.options.settle } else { self.options.rescan };
        self.whole = Whole { at: now + millis(pause).max(1), trust: Trust::Stamps, last: now };
        scan
    }

    fn wait(&mut self) -> Next {
        let until = self.settler.wake().map_or(self.whole.at, |wake| wake.min(self.whole.at));
        let patience = Duration::from_millis(until.saturating_sub(self.now()).max(1));
        let mut message = match self.messages.recv_timeout(patience) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => return Next::Look,
            Err(RecvTimeoutError::Disconnected) => return Next::Stop,
        };
        loop {
            match message {
                Message::Stop => return Next::Stop,
                Message::Rescan => self.whole.at = 0,
                Message::Sign(sign) => self.take_in(sign),
            }
            match self.messages.try_recv() {
                Ok(next) => message = next,
                Err(_) => return Next::Look,
            }
        }
    }

    fn take_in(&mut self, sign: Sign) {
        let (path, happened) = match sign {
            Sign::At { path, happened } => (path, happened),
            Sign::Overflow => {
                self.looker.watch.distrust();
                (self.whole.at, self.whole.trust) = (0, Trust::Nothing);
                return;
            }
        };
        match self.looker.concern(&path, happened) {
            Concern::Nothing => {}
            // A storm of folder events costs one look per `quiet`, not one each.
            Concern::Everything => self.whole.at = self.whole.at.min(self.whole.last + millis(self.options.quiet)),
            Concern::Touched(keys) => {
                for key in keys {
                    self.dirty.insert(key, Trust::Nothing);
                }
            }
            Concern::Files(hints) => {
                for (key, hint) in hints {
                    match hint {
                        // It is read when it is closed, or has been left alone for long enough.
                        Hint::Written => self.dirty.remove(&key),
                        Hint::Closed | Hint::Arrived | Hint::Gone => self.dirty.insert(key.clone(), Trust::Nothing),
                    };
                    self.hints.push((key, hint));
                }
            }
        }
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
