//! A scenario on the simulated engine: manifests as people write them, weather, and what must come of it, in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use qm_api::meta::ObjectKey;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::judge::{Real, ask, containers};
use super::script::Trouble;
use super::stage::{Stage, because};
use super::{annex, in_virtual_time};

/// How long anything may take, in virtual seconds: pauses after failures and budgets take minutes.
const PATIENCE_S: u64 = 3_600;
/// How long the weather lasts, in milliseconds.
const WEATHER_MS: u64 = 120_000;

/// What goes wrong meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing.
    Fair,
    /// The engine is slow.
    Slow,
    /// Its events come late, and out of order.
    EventsLate,
    /// Its answers are lost after their effect.
    AnswersLost,
}

impl Weather {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fair, Self::Slow, Self::EventsLate, Self::AnswersLost];
}

/// A scenario while it is played. Its namespace is `s`.
pub struct Story {
    stage: Stage,
    engine: JoinHandle<()>,
}

/// Plays a scenario in each weather.
///
/// # Panics
/// When it does not end as it should.
pub fn in_all_weathers<F: AsyncFnOnce(Story) + Send + Copy + 'static>(play: F) {
    for (seed, weather) in (1..).zip(Weather::ALL) {
        let played = in_virtual_time(async move || {
            let story = Story::begin(seed, weather);
            play(story).await;
        });
        played.unwrap_or_else(|why| panic!("{weather:?}: {why}"));
    }
}

impl Story {
    fn begin(seed: u64, weather: Weather) -> Self {
        let mut stage = Stage::new(seed, false);
        let engine = stage.sim.clone();
        let engine = tokio::spawn(async move { engine.run().await });
        let trouble = match weather {
            Weather::Fair => None,
            Weather::Slow => Some(Trouble::Slow),
            Weather::EventsLate => Some(Trouble::EventsLate),
            Weather::AnswersLost => Some(Trouble::CutAfter),
        };
        if let Some(trouble) = trouble {
            stage.trouble(trouble, WEATHER_MS);
        }
        stage.boot();
        Self { stage, engine }
    }

    /// Puts manifests into the folder in place of what is there.
    pub fn write(&mut self, manifests: &str) {
        self.stage.write(&BTreeMap::from([("all.yaml".to_owned(), manifests.to_owned())]));
    }

    /// The operator dies.
    pub fn kill(&mut self) {
        self.stage.kill(false);
    }

    /// It is started again.
    pub fn boot(&mut self) {
        self.stage.boot();
    }

    /// What is outside of the namespace goes, or comes back.
    pub fn turn_outside(&mut self, is_down: bool) {
        annex::turn(&mut self.stage, "s", is_down);
    }

    /// Time passes.
    pub async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Waits until something is so.
    ///
    /// # Panics
    /// When it never is.
    pub async fn until(&mut self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        for _ in 0..PATIENCE_S * 10 {
            if is(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let statuses: Vec<String> = self.names().iter().map(|name| format!("{name}: {:#}", self.status(name))).collect();
        panic!("it never came to this: {what}\n{}", statuses.join("\n"));
    }

    /// Waits until these services have these severities; 0 = off.
    ///
    /// # Panics
    /// When they never do.
    pub async fn until_severities(&mut self, wanted: &[(&str, u64)]) {
        let what = format!("{wanted:?}");
        self.until(&what, |story| wanted.iter().all(|(name, severity)| story.severity(name) == Some(*severity))).await;
    }

    /// The names of all services.
    pub fn names(&self) -> Vec<String> {
        let Some(store) = self.stage.store() else { return Vec::new() };
        store.snapshot().list("MiniService", None).map(|object| object.key.name.to_string()).collect()
    }

    /// The status of a service, or of another kind.
    pub fn status_of(&self, kind: &str, name: &str) -> Value {
        let Some(store) = self.stage.store() else { return Value::Null };
        let object = store.snapshot().get(&ObjectKey::new(kind, "s", name)).cloned();
        object.filter(|o| o.status["observedGeneration"] == o.meta.generation).map(|o| (*o.status).clone()).unwrap_or_default()
    }

    /// The status of a service, once it is that of its newest generation.
    pub fn status(&self, name: &str) -> Value {
        self.status_of("MiniService", name)
    }

    /// The severity of a service.
    pub fn severity(&self, name: &str) -> Option<u64> {
        self.status(name)["severity"].as_u64()
    }

    /// The services that are to blame for how one is.
    pub fn culprits(&self, name: &str) -> Vec<String> {
        let status = self.status(name);
        let culprits = status["blockedBy"].as_array().into_iter().flatten();
        culprits.map(|culprit| culprit["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The containers of ours.
    pub fn containers(&self) -> Vec<Real> {
        let now = self.stage.shared.now();
        self.stage.sim.with(|engine| containers(engine, now)).into_iter().filter(Real::is_ours).collect()
    }

    /// The one container of a service, and when it was started.
    ///
    /// # Panics
    /// When there is none, or more than one.
    pub fn life(&self, name: &str) -> (String, String) {
        let now = self.stage.shared.now();
        let mine: Vec<Real> = self.containers().into_iter().filter(|c| c.owner().1 == name).collect();
        let [container] = mine.as_slice() else { panic!("{name} has {} containers", mine.len()) };
        let path = format!("/containers/{}/json", container.id);
        let (_, found) = self.stage.sim.with(|engine| ask(engine, now, "GET", &path, &[], &Value::Null));
        (container.id.clone(), found["State"]["StartedAt"].as_str().unwrap_or_default().to_owned())
    }

    /// Something is done to the container of a service by hand.
    pub fn by_hand(&self, name: &str, method: &str, verb: &str) {
        let (now, id) = (self.stage.shared.now(), self.life(name).0);
        self.stage.sim.with(|engine| ask(engine, now, method, &format!("/containers/{id}{verb}"), &[], &Value::Null));
    }

    /// The messages of the events of a service that have these words.
    pub fn events(&self, name: &str, words: &str) -> Vec<String> {
        let Some(store) = self.stage.store() else { return Vec::new() };
        let snapshot = store.snapshot();
        let of_it = snapshot.list("Event", None).filter(|event| event.spec["involvedObject"]["name"] == name);
        let messages = of_it.filter_map(|event| event.spec["message"].as_str()).filter(|message| message.contains(words));
        messages.map(str::to_owned).collect()
    }

    /// Asks the API.
    pub async fn api(&mut self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.stage.api(method, path, body).await
    }

    /// A person's act on a service.
    pub async fn act(&mut self, name: &str, act: &str) {
        let (status, answer) = self.stage.act(&format!("/namespaces/s/miniservices/{name}/{act}"), because("the scenario")).await;
        assert_eq!(status, 201, "{act}: {answer}");
    }

    /// What the rules of every moment had against what was done.
    pub fn violations(&self) -> Vec<String> {
        self.stage.judge().violations.clone()
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        self.engine.abort();
    }
}
