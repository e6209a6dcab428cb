//! Owns pulls under way: so many at once, one for all who want the same image, and how far each is.
//!
//! Start at [`Controller::pull`]. A pull belongs to all who wait for it: it goes on while one of them is left, and its end is told to all.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use qm_api::meta::ObjectKey;
use qm_api::spec::image::ImageReference;
use tokio::sync::{Notify, Semaphore};

use crate::controller::Controller;
use crate::docker::DockerError;
use crate::docker::act::Done;
use crate::docker::credentials::{Access, Credentials, CredentialsFile};
use crate::docker::error::PullFailure;
use crate::docker::progress::PullProgress;
use crate::mirror::Thing;

/// How images are pulled.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Pulls under way at once. dockerd fetches no more layers than three at once by itself.
    pub parallel: NonZeroUsize,
    /// What private registries want to see.
    pub credentials: Option<CredentialsFile>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { parallel: const { NonZeroUsize::new(3).unwrap() }, credentials: None }
    }
}

type Outcome = Result<(), PullFailure>;
type Work = BoxFuture<'static, Outcome>;

/// Pulls under way and those that wait for their turn.
#[derive(Debug)]
pub(crate) struct Pulls {
    settings: Settings,
    turns: Semaphore,
    /// By the full form of the reference.
    flights: Mutex<BTreeMap<String, Flight>>,
    /// Passes that wait here: they do nothing else, so they take no place from others.
    waiting: AtomicUsize,
    pub(crate) waiting_changed: Notify,
    /// What was said of the credentials file the last time.
    told: Mutex<Vec<String>>,
}

/// One pull, and who waits for it.
#[derive(Debug)]
struct Flight {
    /// Weak: when nobody waits any more (the operator ends), it ends.
    work: WeakShared<Work>,
    /// Tells it from an earlier one of the same image.
    number: u64,
    keys: BTreeSet<ObjectKey>,
    stage: Stage,
}

/// Where a pull is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// As many as may be are under way.
    Waits,
    /// Under way, so many per cent of it where that is known.
    Runs(Option<u8>),
}

impl Pulls {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            turns: Semaphore::new(settings.parallel.get()),
            settings,
            flights: Mutex::default(),
            waiting: AtomicUsize::new(0),
            waiting_changed: Notify::new(),
            told: Mutex::default(),
        }
    }

    /// How many passes wait for a pull.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// What a status says of a pull: `image` is how the manifest names it.
    pub(crate) fn words(&self, image: &str) -> String {
        let flights = self.lock();
        let others = flights.values().filter(|f| matches!(f.stage, Stage::Runs(_))).count();
        match flights.get(&ImageReference::parse(image).to_string()).map(|f| f.stage) {
            Some(Stage::Waits) => {
                let are = if others == 1 { "pull is" } else { "pulls are" };
                format!("pulling {image}: waits for its turn, {others} other {are} under way")
            }
            Some(Stage::Runs(Some(percent))) => format!("pulling {image}: {percent} %"),
            Some(Stage::Runs(None)) | None => format!("pulling {image}"),
        }
    }

    /// Reads the credentials as they are now, and tells what in them has no effect, once.
    pub(crate) fn credentials(&self) -> Result<Credentials, DockerError> {
        let Some(file) = &self.settings.credentials else { return Ok(Credentials::default()) };
        let path = || file.path.clone();
        let credentials = file.read().map_err(|source| DockerError::Credentials { file: path(), source })?;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != credentials.warnings {
            for warning in &credentials.warnings {
                tracing::warn!("the registry credentials file {}: {warning}", file.path.display());
            }
            told.clone_from(&credentials.warnings);
        }
        Ok(credentials)
    }

    fn access(&self, credentials: &Credentials, image: &ImageReference) -> Access {
        match &self.settings.credentials {
            None => Access::NoFile,
            Some(file) if credentials.has(image) => Access::Shown { file: file.path.clone() },
            Some(file) => Access::NoEntry { file: file.path.clone() },
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a pass that waits, for as long as it does.
struct Waiting<'a>(&'a Pulls);

impl<'a> Waiting<'a> {
    fn begin(pulls: &'a Pulls) -> Self {
        pulls.waiting.fetch_add(1, Ordering::Relaxed);
        pulls.waiting_changed.notify_one();
        Self(pulls)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Controller {
    /// Pulls an image for a service, or waits for the pull of it that is under way already. The picture has it afterwards.
    ///
    /// # Errors
    /// Why there is none; the same for all who waited.
    pub(crate) async fn pull(self: &Arc<Self>, key: &ObjectKey, reference: &str) -> Result<Done, DockerError> {
        let waiting = Waiting::begin(&self.pulls);
        let shared = self.board(key, reference);
        self.remember(key, |m| m.pulling = Some(reference.to_owned()));
        self.world.mark_status([key.clone()]);
        let outcome = shared.await;
        drop(waiting);
        self.remember(key, |m| m.pulling = None);
        self.world.mark_status([key.clone()]);
        outcome.map_err(DockerError::Pull)?;
        Ok(Done { image: Some(reference.into()), ..Done::default() })
    }

    /// The pull of an image: the one that is there already, or a new one.
    fn board(self: &Arc<Self>, key: &ObjectKey, reference: &str) -> Shared<Work> {
        let image = ImageReference::parse(reference);
        let name = image.to_string();
        let mut flights = self.pulls.lock();
        if let Some(flight) = flights.get_mut(&name)
            && let Some(work) = flight.work.upgrade()
        {
            flight.keys.insert(key.clone());
            return work;
        }
        let number = flights.get(&name).map_or(0, |old| old.number + 1);
        let work = self.clone().fly(name.clone(), number, reference.to_owned(), image).boxed().shared();
        let weak = work.downgrade().expect("it was not polled yet");
        flights.insert(name, Flight { work: weak, number, keys: BTreeSet::from([key.clone()]), stage: Stage::Waits });
        work
    }

    async fn fly(self: Arc<Self>, name: String, number: u64, reference: String, image: ImageReference) -> Outcome {
        let _turn = self.pulls.turns.acquire().await.expect("the semaphore is never closed");
        self.stage(&name, Stage::Runs(None));
        let outcome = self.fetch(&name, &reference, &image).await;
        if outcome.is_ok() {
            // Before anybody can think that nothing is under way: a plan made from now on sees the image.
            self.refresher.refresh([Thing::Image(reference.as_str().into())]).await;
        }
        let mut flights = self.pulls.lock();
        if flights.get(&name).is_some_and(|f| f.number == number) {
            flights.remove(&name);
        }
        drop(flights);
        outcome
    }

    async fn fetch(&self, name: &str, reference: &str, image: &ImageReference) -> Outcome {
        let failure = |access: Access| {
            let (reference, registry) = (reference.to_owned(), image.registry.clone());
            move |cause: DockerError| PullFailure { reference, registry, access, cause: Arc::new(cause) }
        };
        let credentials = self.pulls.credentials().map_err(failure(Access::NoFile))?;
        let progress = Mutex::new(PullProgress::default());
        let see = |line: crate::docker::progress::Line<'_>| {
            let told = progress.lock().unwrap_or_else(PoisonError::into_inner).see(line, self.clock.mono_ms());
            if let Some(percent) = told {
                self.stage(name, Stage::Runs(Some(percent)));
            }
        };
        let access = self.pulls.access(&credentials, image);
        self.docker.pull(reference, &credentials, &see).await.map_err(failure(access))
    }

    /// Says where a pull is, to all who wait for it.
    fn stage(&self, name: &str, stage: Stage) {
        let mut flights = self.pulls.lock();
        let Some(flight) = flights.get_mut(name) else { return };
        flight.stage = stage;
        let keys: Vec<ObjectKey> = flight.keys.iter().cloned().collect();
        drop(flights);
        self.world.mark_status(keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(stage: Stage) -> Flight {
        let work: Shared<Work> = std::future::pending().boxed().shared();
        Flight { work: work.downgrade().expect("it was not polled yet"), number: 0, keys: BTreeSet::new(), stage }
    }

    #[test]
    fn a_status_says_how_far_a_pull_is_or_what_it_waits_for() {
        let pulls = Pulls::new(Settings::default());
        let put = |image: &str, stage: Stage| drop(pulls.lock().insert(ImageReference::parse(image).to_string(), flight(stage)));
        assert_eq!(pulls.words("app:1"), "pulling app:1", "one that has just ended");
        put("app:1", Stage::Waits);
        put("one", Stage::Runs(None));
        assert_eq!(pulls.words("app:1"), "pulling app:1: waits for its turn, 1 other pull is under way");
        put("two:2", Stage::Runs(Some(0)));
        put("r.x:5000/three", Stage::Runs(Some(43)));
        assert_eq!(pulls.words("app:1"), "pulling app:1: waits for its turn, 3 other pulls are under way");
        // However a manifest names it, it is the same pull.
        assert_eq!(
            pulls.words("docker.io/library/app:1"),
            "pulling docker.io/library/app:1: waits for its turn, 3 other pulls are under way"
        );
        assert_eq!(pulls.words("one"), "pulling one");
        assert_eq!(pulls.words("two:2"), "pulling two:2: 0 %");
        assert_eq!(pulls.words("r.x:5000/three:latest"), "pulling r.x:5000/three:latest: 43 %");
    }
}
