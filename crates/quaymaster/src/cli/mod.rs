//! The command line: the tree of commands, what they share, and the way from a result to an exit code.
//!
//! One file a group of commands. Each asks the operator through [`crate::client`], and draws with pure functions from values to text,
//! which the tests snapshot. Commands decide nothing about services: that is the operator's. Start at [`Command`].

mod cause;
pub(crate) mod demo;
pub(crate) mod describe;
pub(crate) mod drill;
pub(crate) mod events;
mod explain;
pub(crate) mod get;
pub(crate) mod graph;
pub(crate) mod init;
pub(crate) mod intents;
pub(crate) mod job;
pub(crate) mod lock;
pub(crate) mod markdown;
mod misc;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod sim;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod target;
pub(crate) mod validate;
pub(crate) mod wait;

mod docs;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use qm_api::spec::quantity::Duration;

use crate::client::{Client, ClientError, DEFAULT_SOCKET};
use crate::{output, wiring};

/// Keeps Docker in agreement with YAML manifests, and every service's usable status true along its dependency graph.
#[derive(Debug, Parser)]
#[command(name = "quaymaster", version, max_term_width = 120, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  fine
  1  differs, not ready, or a check failed
  2  usage or invalid input
  3  cannot reach the operator or the engine
  4  timed out";

/// Everything the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::DemoArgs),
    Run(run::RunArgs),
    Init(init::InitArgs),
    Sim(sim::SimArgs),
    Validate(validate::ValidateArgs),
    Plan(plan::PlanArgs),
    Test(drill::TestArgs),
    WhatIf(drill::WhatIfArgs),
    Get(get::GetArgs),
    Describe(describe::DescribeArgs),
    Status(status::StatusArgs),
    Graph(graph::GraphArgs),
    Wait(wait::WaitArgs),
    Events(events::EventsArgs),
    Logs(events::LogsArgs),
    Reconcile(intents::ReconcileArgs),
    Suspend(intents::SuspendArgs),
    Resume(intents::ResumeArgs),
    Block(intents::BlockArgs),
    Unblock(intents::UnblockArgs),
    Approve(intents::ApproveArgs),
    Retry(intents::RetryArgs),
    Restart(intents::RestartArgs),
    Rollback(intents::RollbackArgs),
    Lock(lock::LockArgs),
    Job(job::JobArgs),
    Backup(store::BackupArgs),
    Restore(store::RestoreArgs),
    Explain(explain::ExplainArgs),
    Schema(misc::SchemaArgs),
    Completions(misc::CompletionsArgs),
    Version(misc::VersionArgs),
    /// Prints the reference of the command line as Markdown.
    #[command(hide = true)]
    Docs,
}

/// How a command reaches the operator.
#[derive(Clone, Debug, Args)]
pub(crate) struct Connect {
    /// The operator's socket
    #[arg(long, value_name = "PATH", env = "QUAYMASTER_SOCKET", default_value = DEFAULT_SOCKET, help_heading = "Connection")]
    socket: PathBuf,
}

impl Connect {
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.socket)
    }
}

/// How a command ends that did not break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// 0.
    Fine,
    /// 1: differs, not ready, a check failed.
    Differs,
    /// 2: invalid input, already reported.
    Invalid,
    /// 3: the engine cannot be reached, already reported.
    Unreachable,
    /// 4: timed out, already reported.
    TimedOut,
    /// The code of a command that was run.
    Command(u8),
}

impl End {
    const fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Differs => 1,
            Self::Invalid => 2,
            Self::Unreachable => 3,
            Self::TimedOut => 4,
            Self::Command(code) => code,
        }
    }
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The operator did not answer, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The engine, or what stands for it, cannot be reached.
    #[error("{message}")]
    Unreachable { message: String, source: anyhow::Error },
    /// It was tried and did not work.
    #[error("{message}")]
    Failed { message: String, source: Option<anyhow::Error> },
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

impl CliError {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), source: None }
    }

    pub(crate) fn because(message: impl Into<String>, source: impl Into<anyhow::Error>) -> Self {
        Self::Failed { message: message.into(), source: Some(source.into()) }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::Failed { .. } | Self::Output(_) => 1,
            Self::Client(error) => match error.refusal() {
                Some(refusal) if matches!(refusal.code, 400 | 422) => 2,
                // The operator is there; what it needs for an answer is not.
                Some(refusal) if refusal.code == 503 => 3,
                Some(refusal) if refusal.code == 504 => 4,
                Some(_) => 1,
                None if matches!(error, ClientError::TooLong { .. }) => 2,
                None => 3,
            },
        }
    }

    /// The reader of our output has gone: `quaymaster get .. | head`.
    fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

pub(crate) type Done = Result<End, CliError>;

/// The program.
pub(crate) fn main() -> ExitCode {
    let command = match Cli::parse().command {
        Command::Run(args) => return operate(args),
        command => command,
    };
    match dispatch(command) {
        Ok(end) => ExitCode::from(end.code()),
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(error.code())
        }
    }
}

fn operate(args: run::RunArgs) -> ExitCode {
    let (world, pulls) = match args.world().and_then(|world| Ok((world, args.pulls()?))) {
        Ok(read) => read,
        Err(message) => {
            output::note(&format!("error: {message}"));
            return ExitCode::from(End::Invalid.code());
        }
    };
    match wiring::run(args, world, pulls) {
        Ok(code) => code,
        Err(error) => {
            output::note(&format!("quaymaster: {}", chain(error.chain())));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Done {
    match command {
        Command::Run(_) => Err(CliError::failed("`run` does not come this way")),
        Command::Init(args) => init::init(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Sim(args) => sim::sim(&args),
        Command::Validate(args) => validate::validate(&args),
        Command::Plan(args) => plan::plan(&args),
        Command::Test(args) => drill::test(&args),
        Command::WhatIf(args) => drill::what_if(&args),
        Command::Get(args) => block_on(get::get(&args)),
        Command::Describe(args) => block_on(describe::describe(&args)),
        Command::Status(args) => block_on(status::status(&args)),
        Command::Graph(args) => block_on(graph::graph(&args)),
        Command::Wait(args) => block_on(wait::wait(&args)),
        Command::Events(args) => block_on(events::events(&args)),
        Command::Logs(args) => block_on(events::logs(&args)),
        Command::Reconcile(args) => block_on(intents::reconcile(&args)),
        Command::Suspend(args) => block_on(intents::suspend(&args)),
        Command::Resume(args) => block_on(intents::resume(&args)),
        Command::Block(args) => block_on(intents::block(&args)),
        Command::Unblock(args) => block_on(intents::unblock(&args)),
        Command::Approve(args) => block_on(intents::approve(&args)),
        Command::Retry(args) => block_on(intents::retry(&args)),
        Command::Restart(args) => block_on(intents::restart(&args)),
        Command::Rollback(args) => block_on(intents::rollback(&args)),
        Command::Lock(args) => block_on(lock::lock(&args)),
        Command::Job(args) => block_on(job::job(&args)),
        Command::Backup(args) => block_on(store::backup(&args)),
        Command::Restore(args) => store::restore(&args),
        Command::Explain(args) => block_on(explain::explain(&args)),
        Command::Schema(args) => misc::schema(&args),
        Command::Completions(args) => misc::completions(&args, &mut Cli::command()),
        Command::Version(args) => block_on(misc::version(&args)),
        Command::Docs => {
            output::print(&docs::markdown(&Cli::command()))?;
            Ok(End::Fine)
        }
    }
}

/// Runs a client command on this thread alone.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::because("the system gives this process no event loop", error))?;
    runtime.block_on(work)
}

/// Tells why, once: the error with its causes on one line, and the violations it carries.
fn report(error: &CliError) {
    let mut causes: Vec<&dyn std::error::Error> = Vec::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = next {
        causes.push(cause);
        next = match cause.downcast_ref::<CliError>() {
            Some(CliError::Failed { source: Some(source), .. } | CliError::Unreachable { source, .. }) => Some(source.as_ref()),
            _ => cause.source(),
        };
    }
    output::note(&format!("error: {}", chain(causes)));
    if let CliError::Client(error) = error
        && let Some(refusal) = error.refusal()
    {
        for violation in &refusal.violations {
            let place = violation.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
            output::note(&format!("  {place}{} {}", violation.code, violation.message));
        }
    }
}

fn chain<'a>(causes: impl IntoIterator<Item = &'a (dyn std::error::Error + 'static)>) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in causes {
        let text = cause.to_string();
        if texts.last().is_none_or(|last| !last.ends_with(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

/// Reads a duration for clap.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    text.parse().map_err(|error: qm_api::spec::quantity::QuantityError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_about_and_an_example() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} says what it does");
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = after.lines().filter(|line| line.trim_start().starts_with("quaymaster ")).count();
            assert!((1..=4).contains(&examples), "{name} has {examples} examples");
        }
    }

    #[test]
    fn the_examples_are_valid_command_lines() {
        for command in Cli::command().get_subcommands() {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in after.lines().map(str::trim).filter(|line| line.starts_with("quaymaster ")) {
                let words = line.split(" | ").next().unwrap_or(line).split(" > ").next().unwrap_or(line).split_whitespace();
                let parsed = Cli::try_parse_from(words.map(|word| word.trim_matches('\'')));
                assert!(parsed.is_ok(), "{line}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
            }
        }
    }

    #[test]
    fn the_fixed_spellings_are_read() {
        let lines = [
            "quaymaster run --manifests /a --manifests b=/b --data-dir /d --socket /s --metrics 127.0.0.1:9100 --docker-host unix:///x --instance two --observe --settle 2s --log-format json",
            "quaymaster wait msvc/app -n notify --for usable --timeout 60s --socket /s",
            "quaymaster wait msvc/app qnet/data --for ready",
            "quaymaster plan dir --format json",
            "quaymaster suspend -n notify --for 1h --reason upgrade",
            "quaymaster logs app -f --tail 10 --slot 1 --timestamps -n notify",
            "quaymaster restore file --data-dir /d",
            "quaymaster events --for MSVC/app -w",
            "quaymaster schema --crd",
            "quaymaster lock msvc/db -n notify --change --wait 30s -- pg_dump -f x",
            "quaymaster lock db -o json",
        ];
        for line in lines {
            if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
        for line in [
            "quaymaster wait",
            "quaymaster wait msvc/a --for gone",
            "quaymaster run --settle 2",
            "quaymaster reconcile --all msvc/a",
            "quaymaster lock msvc/a --use",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
