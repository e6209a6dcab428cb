//! `lock`: holds a service while a command runs, or shows who does. The lease is renewed beside the command; a command that outlives its
//! lease is ended, since it would change, or use, what somebody else has by then.

use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration as StdDuration;

use clap::{Args, ValueEnum};
use qm_api::spec::quantity::Duration;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::target::{Target, namespace_name, namespace_or_default, object_path, service};
use super::{CliError, Connect, Done, End, duration};
use crate::client::{Client, ClientError};
use crate::output::{self, cell};
use crate::wiring;

/// The variable in which the command finds the token.
const TOKEN: &str = "QUAYMASTER_LOCK_TOKEN";
/// How long one request waits; the line is joined anew with the next one.
const LONGEST_WAIT: StdDuration = StdDuration::from_secs(60);
/// How long to leave a lost operator alone before looking for it again.
const LOOK_AGAIN: StdDuration = StdDuration::from_millis(500);
/// How long a command whose lease is lost may take to end by itself.
const GRACE: StdDuration = StdDuration::from_secs(10);

/// Hold a service while a command runs, or show who holds it
///
/// With --change (the default) nobody else uses or changes it meanwhile; with --use nobody changes it. The command finds its fencing
/// token in QUAYMASTER_LOCK_TOKEN, and its exit code is that of this one. If the lease is lost the command is ended and the exit code is
/// 1; if it is not granted in time nothing is run and the exit code is 4.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster lock msvc/db -n notify
  quaymaster lock msvc/db -n notify --wait 2m -- pg_dump -Fc -f /backup/db.dump notify
  quaymaster lock msvc/db -n notify --use -- ./report.sh")]
pub(crate) struct LockArgs {
    /// The mini service
    #[arg(value_name = "KIND/NAME", value_parser = service)]
    target: Target,
    /// The namespace [default: default]
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    /// Nobody else uses or changes it while the command runs
    #[arg(long, conflicts_with = "shared", requires = "command")]
    change: bool,
    /// Nobody changes it while the command runs
    #[arg(long = "use", id = "shared", requires = "command")]
    shared: bool,
    /// How long to wait for it
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    wait: Duration,
    /// Who holds it [default: HOST.PID]
    #[arg(long, value_name = "NAME", requires = "command")]
    holder: Option<String>,
    /// The form in which holders and waiters are shown
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table, conflicts_with = "command")]
    output: Format,
    /// What to run while it is held; without a command, holders and waiters are shown
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    connect: Connect,
}

/// The form of what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each holder and waiter.
    Table,
    /// As the operator gives it.
    Json,
}

pub(crate) async fn lock(args: &LockArgs) -> Done {
    let client = args.connect.client();
    let path = format!("{}/lock", object_path(&args.target, namespace_or_default(args.namespace.as_deref())));
    let Some((program, arguments)) = args.command.split_first() else {
        let lock = client.get(&path).await?;
        output::print(&match args.output {
            Format::Table => sheet(&lock),
            Format::Json => output::json(&lock),
        })?;
        return Ok(End::Fine);
    };
    let mode = if args.shared { "use" } else { "change" };
    let lease = Lease { client, path, holder: args.holder.clone().unwrap_or_else(holder), mode, label: args.target.label() };
    let Some(granted) = lease.acquire(args.wait.as_std()).await? else { return Ok(End::TimedOut) };
    let mut command = Command::new(program);
    command.args(arguments).env(TOKEN, granted.token.to_string());
    let mut child = match Running::start(&mut command) {
        Ok(child) => child,
        Err(error) => {
            lease.release(&granted).await;
            return Err(CliError::because(format!("`{program}` cannot be started"), error));
        }
    };
    let ran = lease.hold(&granted, &mut child).await;
    let (status, why) = match ran {
        Ran::Ended(status) => {
            lease.release(&granted).await;
            (status?, None)
        }
        Ran::Lost(why) => (child.end().await?, Some(why)),
    };
    match why {
        Some(why) => Err(CliError::failed(format!("the lock of {} was lost ({why}); `{program}` was ended", lease.label))),
        None => Ok(End::Command(code(status))),
    }
}

/// One process on one machine.
fn holder() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')).take(200).collect();
    format!("{host}.{}", std::process::id())
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}

/// What was granted, and until when it is surely held.
struct Granted {
    token: u64,
    term: StdDuration,
    ends: Instant,
}

enum Ran {
    Ended(std::io::Result<ExitStatus>),
    Lost(String),
}

struct Lease {
    client: Client,
    path: String,
    holder: String,
    mode: &'static str,
    label: String,
}

impl Lease {
    /// Asks until it is granted; `None` when the time is up, after saying who has it.
    async fn acquire(&self, wait: StdDuration) -> Result<Option<Granted>, CliError> {
        let deadline = Instant::now() + wait;
        let mut was_there = false;
        loop {
            let asked = Instant::now();
            let wait = deadline.saturating_duration_since(asked).min(LONGEST_WAIT);
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let body = json!({ "mode": self.mode, "holder": self.holder, "waitMs": wait_ms });
            match self.client.post_within(&self.path, &body, wait).await {
                Ok(answer) => {
                    let (Some(token), Some(term)) = (answer["token"].as_u64(), answer["termMs"].as_u64()) else {
                        return Err(ClientError::BadAnswer("a lock without a token".to_owned()).into());
                    };
                    let mut granted = Granted { token, term: StdDuration::from_millis(term), ends: asked };
                    granted.ends += granted.term;
                    // It began some time between our question and now; after a long wait only a renewal tells until when it lasts.
                    if asked.elapsed() < granted.term / 3 {
                        return Ok(Some(granted));
                    }
                    let asked = Instant::now();
                    if self.renew(token).await.is_ok() {
                        granted.ends = asked + granted.term;
                        return Ok(Some(granted));
                    }
                }
                Err(error) if error.refusal().is_some_and(|refusal| refusal.code == 409) => {
                    was_there = true;
                    if Instant::now() >= deadline {
                        output::note(&format!("not granted in time: {error}"));
                        return Ok(None);
                    }
                }
                // Whoever was there once may come back; somebody who never was is an error at once.
                Err(error) if error.is_passing() && (was_there || !error.is_absent()) => {
                    was_there = true;
                    if timeout_at(deadline, sleep(LOOK_AGAIN)).await.is_err() {
                        output::note(&format!("not granted in time: {error}"));
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Renews while the command runs.
    async fn hold(&self, granted: &Granted, child: &mut Running) -> Ran {
        let mut ends = granted.ends;
        let mut next = Instant::now() + granted.term / 3;
        let mut told = false;
        let signal = wiring::shutdown();
        tokio::pin!(signal);
        loop {
            tokio::select! {
                biased;
                status = child.process.wait() => return Ran::Ended(status),
                told_to_end = &mut signal, if !told => {
                    told = true;
                    if told_to_end.is_ok() {
                        child.send(Signal::TERM);
                    }
                }
                () = sleep_until(next.min(ends)) => {
                    let asked = Instant::now();
                    if asked >= ends {
                        return Ran::Lost("it could not be renewed within its term".to_owned());
                    }
                    match timeout_at(ends, self.renew(granted.token)).await {
                        Ok(Ok(())) => {
                            ends = asked + granted.term;
                            next = asked + granted.term / 3;
                        }
                        Ok(Err(error)) if error.is_passing() => next = Instant::now() + LOOK_AGAIN,
                        Ok(Err(error)) => return Ran::Lost(error.to_string()),
                        Err(_) => {}
                    }
                }
            }
        }
    }

    async fn renew(&self, token: u64) -> Result<(), ClientError> {
        let body = json!({ "holder": self.holder, "token": token, "mode": self.mode });
        self.client.post(&format!("{}/renew", self.path), &body).await.map(drop)
    }

    /// Gives it back. When that does not work its term ends it.
    async fn release(&self, granted: &Granted) {
        let body = json!({ "holder": self.holder, "token": granted.token });
        if let Err(error) = self.client.post(&format!("{}/release", self.path), &body).await {
            let seconds = granted.term.as_secs();
            output::note(&format!("the lock of {} could not be given back and ends by itself within {seconds} s: {error}", self.label));
        }
    }
}

/// The command while it runs, with all that it started.
struct Running {
    process: Child,
    pid: Option<Pid>,
    is_group: bool,
}

impl Running {
    fn start(command: &mut Command) -> std::io::Result<Self> {
        // What the command has started must not go on either when the lease is lost, so it gets a group of its own. At a terminal it would
        // lose that by it; there a person sees what goes on.
        let is_group = !std::io::stdin().is_terminal();
        if is_group {
            command.process_group(0);
        }
        let process = command.spawn()?;
        let pid = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { process, pid, is_group })
    }

    fn send(&self, signal: Signal) {
        let Some(pid) = self.pid else { return };
        // One that has just ended needs no signal.
        let _ = if self.is_group { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
    }

    /// Ends what must not go on.
    async fn end(&mut self) -> std::io::Result<ExitStatus> {
        self.send(Signal::TERM);
        let status = match tokio::time::timeout(GRACE, self.process.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.send(Signal::KILL);
                return self.process.wait().await;
            }
        };
        if self.is_group {
            // The first of them may have gone before the others.
            self.send(Signal::KILL);
        }
        status
    }
}

/// Holders and waiters, one a line.
fn sheet(lock: &Value) -> String {
    let span = |value: &Value| value.as_i64().map_or_else(|| "until it is done".to_owned(), |ms| format!("{} left", output::span(ms)));
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut push = |state: &str, mode: &str, holder: String, token: String, term: String| {
        rows.push(vec![state.to_owned(), mode.to_owned(), holder, token, term]);
    };
    if lock["change"].is_object() {
        let change = &lock["change"];
        push("holds", "change", cell(&change["holder"]), cell(&change["token"]), span(&change["remainingMs"]));
    }
    for user in lock["users"].as_array().into_iter().flatten() {
        push("holds", "use", cell(&user["holder"]), String::new(), span(&user["remainingMs"]));
    }
    if lock["unknownUsersMs"].is_number() {
        let words = "users from before the restart of the operator";
        push("may hold", "use", words.to_owned(), String::new(), span(&lock["unknownUsersMs"]));
    }
    for waiter in lock["waiters"].as_array().into_iter().flatten() {
        push("waits", &cell(&waiter["mode"]), cell(&waiter["holder"]), String::new(), String::new());
    }
    if rows.is_empty() {
        return format!("nobody holds {}/{} or waits for it\n", cell(&lock["namespace"]), cell(&lock["service"]));
    }
    let headings = ["STATE", "MODE", "HOLDER", "TOKEN", "TERM"].map(str::to_owned);
    output::table(Some(&headings), &rows, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_in_words() {
        let lock = json!({
            "namespace": "shop", "service": "db", "change": {"holder": "host.7", "token": 3, "remainingMs": 14_000},
            "users": [], "unknownUsersMs": null, "waiters": [{"mode": "use", "holder": "web.1"}, {"mode": "change", "holder": "quaymaster"}],
        });
        insta::assert_snapshot!("lock_changed", sheet(&lock));
        let lock = json!({
            "namespace": "shop", "service": "db", "change": null, "unknownUsersMs": 9_000,
            "users": [{"holder": "web.1", "remainingMs": 12_000}], "waiters": [],
        });
        insta::assert_snapshot!("lock_used", sheet(&lock));
        insta::assert_snapshot!("lock_free", sheet(&json!({"namespace": "shop", "service": "db", "users": [], "waiters": []})));
    }

    #[test]
    fn this_process_has_a_name() {
        let name = holder();
        assert!(name.ends_with(&format!(".{}", std::process::id())) && !name.contains(' '), "{name}");
    }
}
