//! `job`: runs a job again, and shows what it has run.

use clap::{Args, Subcommand, ValueEnum};
use qm_api::kinds::intent::Act;
use qm_api::time::Timestamp;
use serde_json::Value;

use super::intents::{Why, ask_for};
use super::target::{Target, namespace_name, namespace_or_default, object_path, service};
use super::{CliError, Connect, Done, End};
use crate::output::{self, cell};

/// Run a job again, or show what it has run
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster job run msvc/migrate -n notify --reason 'restored-backup'
  quaymaster job history msvc/migrate -n notify")]
pub(crate) struct JobArgs {
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum JobCommand {
    Run(RunArgs),
    History(HistoryArgs),
}

/// Run a job now, also when it has succeeded
///
/// A job without a schedule runs from its first step, for the same input, and stays usable meanwhile if it has succeeded before. A run that
/// is under way ends first, unless the job's schedule allows two at a time.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster job run msvc/migrate -n notify
  quaymaster job run migrate -n notify --reason 'restored-backup'")]
struct RunArgs {
    /// The job, msvc/NAME or NAME
    #[arg(value_name = "JOB", value_parser = service)]
    job: Target,
    /// The namespace [default: default]
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    connect: Connect,
}

/// How the history is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

/// Show the last runs of a job, newest first
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster job history msvc/migrate -n notify
  quaymaster job history nightly -n notify -o json")]
struct HistoryArgs {
    /// The job, msvc/NAME or NAME
    #[arg(value_name = "JOB", value_parser = service)]
    job: Target,
    /// The namespace [default: default]
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    /// How to print it; json has the end of the newest run's output too
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn job(args: &JobArgs) -> Done {
    match &args.command {
        JobCommand::Run(args) => ask_for(&args.connect, Act::Run, &args.job, args.namespace.as_deref(), &args.why, "runs again").await,
        JobCommand::History(args) => history(args).await,
    }
}

async fn history(args: &HistoryArgs) -> Done {
    let object = args.connect.client().get(&object_path(&args.job, namespace_or_default(args.namespace.as_deref()))).await?;
    if !object["spec"]["job"].is_object() {
        return Err(CliError::failed(format!("{} is no job", args.job.label())));
    }
    let runs = &object["status"]["job"]["lastRuns"];
    match args.output {
        Form::Json => output::print(&output::json(if runs.is_null() { const { &Value::Array(Vec::new()) } } else { runs }))?,
        Form::Table => {
            let drawn = table(runs, output::now());
            if drawn.is_empty() {
                output::note(&format!("{} has no run yet", args.job.label()));
            }
            output::print(&drawn)?;
        }
    }
    Ok(End::Fine)
}

/// The runs as a table; empty without runs.
pub(crate) fn table(runs: &Value, now: Timestamp) -> String {
    let row = |run: &Value| {
        let took = match (instant(&run["startedAt"]), instant(&run["finishedAt"])) {
            (Some(start), Some(end)) => output::span(end.millis_since(start)),
            _ => String::new(),
        };
        let message = match run["asked"].as_str() {
            Some(asked) => format!("{} (asked by {})", cell(&run["message"]), output::clean(asked)),
            None => cell(&run["message"]),
        };
        let started = output::age(&run["startedAt"], now);
        let text = |key: &str| cell(&run[key]);
        vec![text("run"), text("state"), text("attempt"), text("step"), text("exitCode"), started, took, message.trim_start().to_owned()]
    };
    let rows: Vec<Vec<String>> = runs.as_array().into_iter().flatten().map(row).collect();
    let headings = ["RUN", "STATE", "ATTEMPT", "STEP", "EXIT", "STARTED", "TOOK", "MESSAGE"].map(str::to_owned);
    if rows.is_empty() { String::new() } else { output::table(Some(&headings), &rows, &[]) }
}

fn instant(value: &Value) -> Option<Timestamp> {
    Timestamp::parse(value.as_str()?).ok()
}

/// What `describe` says of a job, beside its runs.
pub(crate) fn summary(status: &Value, now: Timestamp) -> String {
    let job = &status["job"];
    let mut words: Vec<String> = Vec::new();
    if job["state"].is_string() {
        words.push(cell(&job["state"]));
    }
    if job["attempt"].as_u64().is_some_and(|attempt| attempt > 0) {
        words.push(format!("attempt {}", cell(&job["attempt"])));
    }
    if job["step"].is_string() {
        words.push(format!("step {}", cell(&job["step"])));
    }
    if let Some(next) = instant(&job["nextRun"]) {
        words.push(format!("next run in {}", output::span(next.millis_since(now).max(0))));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn runs_and_their_summary() {
        let now = Timestamp::parse("2026-11-27T04:40:00Z").unwrap();
        let status = json!({ "job": {
            "digest": "3fa9c2d1e0b7", "state": "Running", "attempt": 2, "step": "load", "nextRun": "2026-11-28T04:30:00Z",
            "lastRuns": [
                { "run": "202611270430", "state": "Running", "attempt": 2, "step": "load", "exitCode": 3, "message": "ended with code 3",
                  "startedAt": "2026-11-27T04:30:00.000000Z", "due": "2026-11-27T04:30:00.000000Z" },
                { "run": "asked", "state": "Succeeded", "attempt": 1, "exitCode": 0, "message": "ended with code 0", "asked": "ann@host: why",
                  "startedAt": "2026-11-26T04:30:00.000000Z", "finishedAt": "2026-11-26T04:31:05.000000Z" },
            ],
        }});
        insta::assert_snapshot!("job_history", table(&status["job"]["lastRuns"], now));
        assert_eq!(summary(&status, now), "Running, attempt 2, step load, next run in 23h50m");
        assert_eq!(table(&Value::Null, now), "");
        assert_eq!(summary(&Value::Null, now), "");
    }
}
