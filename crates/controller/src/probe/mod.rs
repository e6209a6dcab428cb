//! Owns health probes: one task a running container (or external service) with a declared check. Quick while it starts, at the declared
//! pace afterwards (DESIGN 3.6). A probe never changes anything; it only tells the world what it found.

mod servers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::desired::{HealthCheck, HealthKind};
use qm_plan::observed::Health;
use tokio::task::JoinHandle;

use crate::controller::Controller;
use crate::dial::{Address, Dial, Stream};
use crate::docker::errand::{Errand, Ran};
use crate::docker::{Docker, DockerError};
use crate::world::ProbeTarget;

pub use servers::Passwords;

/// The pace while something starts: from here ..
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// .. to here, or the declared interval where that is shorter.
const LAST_PAUSE: Duration = Duration::from_millis(200);
/// The same for commands, which cost three calls each.
const FIRST_COMMAND_PAUSE: Duration = Duration::from_millis(50);
const LAST_COMMAND_PAUSE: Duration = Duration::from_secs(1);
/// A probe that cannot be made is tried again no later than this, or than its interval.
const LONGEST_UNASKED_PAUSE: Duration = Duration::from_secs(60);
/// An answer's body is read no further than this.
const BODY_LIMIT: usize = 64 * 1024;

type Key = (ObjectKey, Option<Name>);

/// What probes are made with.
#[derive(Clone)]
struct Desk {
    controller: Arc<Controller>,
    dial: Dial,
    passwords: Passwords,
}

/// Keeps one task for each thing that is to be probed. Ends with its future; its tasks end with it.
pub async fn run(controller: Arc<Controller>, dial: Dial, passwords: Passwords) {
    let world = controller.world.clone();
    let desk = Desk { controller, dial, passwords };
    let mut tasks: BTreeMap<Key, Task> = BTreeMap::new();
    loop {
        for key in world.next_probe_batch().await {
            let targets: BTreeMap<Key, ProbeTarget> =
                world.probe_targets(&key).into_iter().map(|t| ((key.clone(), t.container.as_ref().map(|(id, _)| id.clone())), t)).collect();
            let mine: Vec<Key> = tasks.range((key.clone(), None)..).map(|(k, _)| k.clone()).take_while(|(k, _)| *k == key).collect();
            for old in mine {
                if tasks.get(&old).map(|t| &t.target) != targets.get(&old) {
                    tasks.remove(&old);
                }
            }
            for (name, target) in targets {
                tasks.entry(name).or_insert_with(|| {
                    let probe = probe(desk.clone(), key.clone(), target.clone());
                    Task { target, handle: tokio::spawn(probe) }
                });
            }
        }
    }
}

struct Task {
    target: ProbeTarget,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Probes one target for ever.
async fn probe(desk: Desk, key: ObjectKey, target: ProbeTarget) {
    let world = desk.controller.world.clone();
    let started = world.clock.mono_ms();
    let mut state = Judge::default();
    let mut pause = first_pause(&target.check);
    let mut unasked = 0;
    loop {
        let limit = Duration::from_millis(target.check.timeout_ms);
        let outcome = match &target.check.kind {
            HealthKind::Command(command) => run_command(&desk.controller.docker, &target, command, limit).await,
            HealthKind::Run { image, command } => run_beside(&desk.controller, &key, image, command, limit).await,
            _ => match tokio::time::timeout(limit, check(&desk, &target)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Miss::Failed(format!("no answer within {} ms", target.check.timeout_ms))),
            },
        };
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(Miss::Failed(message)) => Err(message),
            Err(Miss::Unasked(message)) => {
                if target.container.is_some() {
                    // What is known of a container is told by the engine.
                    tokio::time::sleep(LAST_COMMAND_PAUSE).await;
                    continue;
                }
                // Of this nobody tells anything any more.
                state = Judge::default();
                world.put_unasked(&key, message);
                // It may be a registry that is asked for an image each time.
                tokio::time::sleep(unasked_pause(target.check.interval_ms, unasked)).await;
                unasked += 1;
                continue;
            }
        };
        unasked = 0;
        let age_ms = world.clock.mono_ms().saturating_sub(started);
        if let Some(health) = state.judge(&target.check, outcome, age_ms, world.clock.wall()) {
            let container = target.container.as_ref().map(|(id, at)| (id, *at));
            world.put_health(&key, container, health);
        }
        let interval = Duration::from_millis(target.check.interval_ms);
        // Only what was started by us is waited for: servers elsewhere are asked as often as the manifest says, also when they are down.
        if state.is_settled() || target.container.is_none() {
            tokio::time::sleep(interval).await;
        } else {
            tokio::time::sleep(pause.min(interval)).await;
            pause = (pause * 3 / 2).min(last_pause(&target.check));
        }
    }
}

/// The pause after a probe that could not be made for the n-th time in a row: the interval, doubled up to a minute.
fn unasked_pause(interval_ms: u64, times: u32) -> Duration {
    let interval = Duration::from_millis(interval_ms);
    (interval * 2_u32.pow(times.min(10))).min(LONGEST_UNASKED_PAUSE).max(interval)
}

fn first_pause(check: &HealthCheck) -> Duration {
    if matches!(check.kind, HealthKind::Command(_)) { FIRST_COMMAND_PAUSE } else { FIRST_PAUSE }
}

fn last_pause(check: &HealthCheck) -> Duration {
    if matches!(check.kind, HealthKind::Command(_)) { LAST_COMMAND_PAUSE } else { LAST_PAUSE }
}

/// Turns single outcomes into health: thresholds, the start period, the first healthy moment.
#[derive(Debug, Default)]
struct Judge {
    successes: u32,
    failures: u32,
    healthy_at: Option<Timestamp>,
    told: Option<Health>,
}

impl Judge {
    /// Whether it is known how it is: then the declared pace is enough.
    fn is_settled(&self) -> bool {
        self.told.is_some()
    }

    /// Takes one outcome; gives the health when it changed.
    fn judge(&mut self, check: &HealthCheck, outcome: Result<(), String>, age_ms: u64, now: Timestamp) -> Option<Health> {
        let new = match outcome {
            Ok(()) => {
                self.failures = 0;
                self.successes = self.successes.saturating_add(1);
                if self.successes < check.successes {
                    return None;
                }
                let since = match &self.told {
                    Some(Health::Healthy { since }) => *since,
                    _ => now,
                };
                self.healthy_at.get_or_insert(since);
                Health::Healthy { since: self.healthy_at.unwrap_or(since) }
            }
            Err(message) => {
                self.successes = 0;
                self.failures = self.failures.saturating_add(1);
                // Before the first success checks come quickly, so time decides, not their number.
                let patience_ms = check.start_period_ms + u64::from(check.failures) * check.interval_ms;
                let is_unhealthy = if self.healthy_at.is_some() { self.failures >= check.failures } else { age_ms >= patience_ms };
                if !is_unhealthy {
                    return None;
                }
                Health::Unhealthy { message, healthy_at: self.healthy_at }
            }
        };
        if self.told.as_ref() == Some(&new) {
            return None;
        }
        self.told = Some(new.clone());
        Some(new)
    }
}

/// What a check found.
type Outcome = Result<(), Miss>;

/// Why a check did not go well, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Miss {
    /// The other side did not answer, or not as it should.
    Failed(String),
    /// We could not even ask, which is no evidence about the other side.
    Unasked(String),
}

/// One check.
async fn check(Desk { dial, passwords, .. }: &Desk, target: &ProbeTarget) -> Outcome {
    match &target.check.kind {
        HealthKind::Tcp { host, port } => each_address(target, host, |host| tcp(dial, host, *port)).await,
        HealthKind::Http { host, port, path, status, headers } => {
            let judge = |code: u16| match status.map_or((200..400).contains(&code), |wanted| wanted == code) {
                true => Ok(()),
                false => Err(format!("GET {path} answered {code}")),
            };
            each_address(target, host, |host| http(dial, host, *port, path, &judge, headers)).await
        }
        HealthKind::Redis { at, login } => servers::redis(dial, passwords, at, login).await,
        HealthKind::Postgres { at, login, database } => servers::postgres(dial, passwords, at, login, database.as_deref()).await,
        HealthKind::Vault { at } => {
            let path = "/v1/sys/health?standbyok=true&perfstandbyok=true";
            http(dial, at.host.clone(), at.port, path, &servers::vault_answer, &BTreeMap::new()).await
        }
        HealthKind::Command(_) | HealthKind::Run { .. } | HealthKind::Image => Ok(()),
    }
}

/// Runs a command check. When the engine could not run it, that is no evidence about the container.
async fn run_command(docker: &Docker, target: &ProbeTarget, command: &[String], limit: Duration) -> Outcome {
    let Some((id, _)) = &target.container else { return Err(Miss::Failed("a command needs a container".to_owned())) };
    match docker.exec(id, command, limit).await {
        Ok(Some(0)) => Ok(()),
        Ok(Some(code)) => Err(Miss::Failed(format!("the command ended with code {code}"))),
        Ok(None) => Err(too_late(limit)),
        Err(error) => Err(not_run(&error)),
    }
}

/// Runs a command in a container of its own, with its image pulled where it is not there.
async fn run_beside(controller: &Arc<Controller>, key: &ObjectKey, image: &str, command: &[String], limit: Duration) -> Outcome {
    let errand = Errand { instance: &controller.world.instance, owner: key, image, command, limit };
    let mut ran = controller.docker.run_errand(&errand).await;
    if matches!(ran, Ok(Ran::NoImage)) {
        // Nobody can ask without it: that says nothing about the other side.
        controller.pull(key, image).await.map_err(|error| Miss::Unasked(error.line()))?;
        ran = controller.docker.run_errand(&errand).await;
    }
    match ran {
        Ok(Ran::Ended { code: 0, .. }) => Ok(()),
        Ok(Ran::Ended { code, words }) if words.is_empty() => Err(Miss::Failed(format!("the command ended with code {code}"))),
        Ok(Ran::Ended { code, words }) => Err(Miss::Failed(format!("the command ended with code {code}: {words}"))),
        Ok(Ran::TooLate) => Err(too_late(limit)),
        Ok(Ran::NoImage) => Err(Miss::Unasked(format!("the engine does not have {image}"))),
        Err(error) => Err(not_run(&error)),
    }
}

fn too_late(limit: Duration) -> Miss {
    Miss::Failed(format!("the command was not done within {} ms", limit.as_millis()))
}

fn not_run(error: &DockerError) -> Miss {
    match error {
        // The engine's own way of saying that the command is not there.
        DockerError::Answer { code: 400..=499, .. } if !error.is_not_found() => Miss::Failed(error.line()),
        error => {
            tracing::debug!(error = error.line(), "a command check could not be run");
            Miss::Unasked(error.line())
        }
    }
}

/// Tries the declared host or each of the container's addresses; the first success counts.
async fn each_address<F, R>(target: &ProbeTarget, host: &str, check: F) -> Outcome
where
    F: Fn(String) -> R,
    R: Future<Output = Outcome>,
{
    if !host.is_empty() {
        return check(host.to_owned()).await;
    }
    let mut last = Err(Miss::Failed("the container has no address that can be reached from here".to_owned()));
    for address in &target.addresses {
        last = check(address.clone()).await;
        if !matches!(last, Err(Miss::Failed(_))) {
            break;
        }
    }
    last
}

/// Whether it is this process that has no descriptor left, and not the other side that does not answer.
fn is_our_own(error: &std::io::Error) -> bool {
    // EMFILE and ENFILE, which have no kind of their own.
    matches!(error.raw_os_error(), Some(23 | 24))
}

async fn tcp(dial: &Dial, host: String, port: u16) -> Outcome {
    match dial(Address::Tcp(host, port)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(no_way(&error, port)),
    }
}

fn no_way(error: &std::io::Error, port: u16) -> Miss {
    if is_our_own(error) { Miss::Unasked(error.to_string()) } else { Miss::Failed(format!("port {port}: {error}")) }
}

/// What a status of an answer means.
type Meaning<'a> = &'a (dyn Fn(u16) -> Result<(), String> + Send + Sync);

async fn http(dial: &Dial, host: String, port: u16, path: &str, meaning: Meaning<'_>, headers: &BTreeMap<String, String>) -> Outcome {
    match dial(Address::Tcp(host.clone(), port)).await {
        Ok(stream) => get(stream, &host, port, path, meaning, headers).await.map_err(Miss::Failed),
        Err(error) => Err(no_way(&error, port)),
    }
}

async fn get(
    stream: Box<dyn Stream>,
    host: &str,
    port: u16,
    path: &str,
    meaning: Meaning<'_>,
    headers: &BTreeMap<String, String>,
) -> Result<(), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| format!("port {port}: {e}"))?;
    let mut request = http::Request::get(path).header(http::header::HOST, format!("{host}:{port}")).header("user-agent", "quaymaster");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|e| e.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|e| format!("port {port}: {e}"))?;
        let code = answer.status().as_u16();
        let mut body = answer.into_body();
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, bytes::Bytes::len);
            if read > BODY_LIMIT {
                break;
            }
        }
        meaning(code)
    };
    // The connection must be driven for the exchange to go on, and ends with it.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        outcome = &mut exchange => outcome,
        ended = &mut connection => match ended {
            Err(error) => Err(format!("port {port}: {error}")),
            Ok(()) => exchange.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_of(failures: u32, interval_ms: u64, start_period_ms: u64) -> HealthCheck {
        let kind = HealthKind::Tcp { host: String::new(), port: 1 };
        HealthCheck { kind, interval_ms, timeout_ms: 100, failures, successes: 1, start_period_ms }
    }

    #[test]
    fn who_cannot_be_asked_is_asked_less_and_less_often() {
        let seconds = |interval_s: u64| [0, 1, 2, 5, 40].map(|times| unasked_pause(interval_s * 1_000, times).as_secs());
        assert_eq!(seconds(10), [10, 20, 40, 60, 60]);
        assert_eq!(seconds(300), [300; 5], "never more often than the manifest says");
    }

    #[test]
    fn health_follows_thresholds_and_the_start_period() {
        let check = check_of(2, 1_000, 3_000);
        let at = Timestamp::from_millis;
        let bad = || Err("no".to_owned());
        let mut judge = Judge::default();
        assert_eq!(judge.judge(&check, bad(), 100, at(100)), None, "failures while starting do not count");
        assert_eq!(judge.judge(&check, bad(), 4_999, at(4_999)), None);
        assert_eq!(judge.judge(&check, bad(), 5_000, at(5_000)), Some(Health::Unhealthy { message: "no".into(), healthy_at: None }));
        assert_eq!(judge.judge(&check, Ok(()), 5_100, at(5_100)), Some(Health::Healthy { since: at(5_100) }));
        assert_eq!(judge.judge(&check, Ok(()), 5_200, at(5_200)), None, "nothing new is not told again");
        assert_eq!(judge.judge(&check, bad(), 5_300, at(5_300)), None, "one failure is not two");
        assert_eq!(
            judge.judge(&check, bad(), 5_400, at(5_400)),
            Some(Health::Unhealthy { message: "no".into(), healthy_at: Some(at(5_100)) })
        );
        assert_eq!(judge.judge(&check, Ok(()), 9_000, at(9_000)), Some(Health::Healthy { since: at(5_100) }));
    }
}
