//! `plan`: what the operator would do. Asks the running operator, and without one reads the engine; writes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use qm_source::Spec;
use serde_json::{Value, json};

use super::run::{DEFAULT_DOCKER_HOST, source};
use super::validate::Texts;
use super::{CliError, Connect, Done, End, block_on, validate};
use crate::client::ClientError;
use crate::output::{self, Style};
use crate::{report, wiring};

/// Show every step that would be taken, and take none
///
/// A DIR stands for the running operator's source of that path; another DIR only for the namespaces that it names. Exits 0 when there is
/// nothing to do, 1 when something differs, 2 when the manifests are invalid, 3 when nobody can be asked.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster plan
  quaymaster plan ./manifests
  quaymaster plan ./manifests --format json
  quaymaster plan ./manifests --format markdown")]
pub(crate) struct PlanArgs {
    /// Folders of manifests to plan, DIR or NAME=DIR; without one, what the operator has
    #[arg(value_name = "DIR", value_parser = source)]
    dirs: Vec<Spec>,
    /// The form of the output
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
    /// The Docker engine to read where no operator runs
    #[arg(long, value_name = "URL", env = "DOCKER_HOST", default_value = DEFAULT_DOCKER_HOST, help_heading = "Connection")]
    docker_host: String,
    /// Whose containers are ours, where no operator runs
    #[arg(long, value_name = "NAME", default_value = "default", help_heading = "Connection")]
    instance: String,
    #[command(flatten)]
    connect: Connect,
}

/// The form of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line a step.
    Text,
    /// Steps, findings and summary.
    Json,
    /// For the comment of a pull request: a row an object, what needs approval, every step folded away.
    Markdown,
}

pub(crate) fn plan(args: &PlanArgs) -> Done {
    let candidates = candidates(&args.dirs)?;
    let asked = block_on(async { Ok(args.connect.client().post("/quaymaster/v1/plan", &candidates.body).await) })?;
    match asked {
        Ok(answer) => show(args, &answer["plan"], answer["text"].as_str().unwrap_or_default()),
        Err(error) if error.is_absent() && !args.dirs.is_empty() => offline(args, &error),
        Err(ClientError::Refusal(refusal)) if !refusal.violations.is_empty() => {
            output::print(&report::render(&refusal.violations, &candidates.texts, Style::of_stdout()))?;
            output::note(&refusal.message);
            Ok(End::Invalid)
        }
        Err(error) => Err(error.into()),
    }
}

/// The folders as they are sent, and their texts for the report.
struct Candidates {
    body: Value,
    texts: Texts,
}

fn candidates(dirs: &[Spec]) -> Result<Candidates, CliError> {
    let mut sources = Vec::new();
    let mut texts = Texts::new();
    for spec in dirs {
        let read = validate::read_folder(&spec.dir);
        if let Some(problem) = read.unreadable.first() {
            return Err(CliError::Usage(format!("{} cannot be read: {}", spec.dir.join(problem.file.as_str()).display(), problem.reason)));
        }
        let files: BTreeMap<&str, String> = read.files.iter().map(|(path, bytes)| (path.as_str(), STANDARD.encode(bytes))).collect();
        sources.push(json!({"id": spec.id.as_str(), "files": files}));
        texts.add(spec.id.as_str(), &spec.dir, &read.files);
    }
    let body = if dirs.is_empty() { json!({}) } else { json!({"sources": sources}) };
    Ok(Candidates { body, texts })
}

fn offline(args: &PlanArgs, absent: &ClientError) -> Done {
    let checked = validate::check(&args.dirs.iter().map(|spec| spec.dir.clone()).collect::<Vec<_>>())?;
    if checked.admission.has_errors() {
        output::print(&checked.text(Style::of_stdout()))?;
        return Ok(End::Invalid);
    }
    output::note(&format!("note: {absent}; planning from the engine at {} alone", args.docker_host));
    let dirs: Vec<PathBuf> = args.dirs.iter().map(|spec| spec.dir.clone()).collect();
    let (plan, text) = wiring::offline_plan(&dirs, &args.docker_host, &args.instance)
        .map_err(|source| CliError::Unreachable { message: format!("cannot plan from the engine at {}", args.docker_host), source })?;
    show(args, &plan, &text)
}

fn show(args: &PlanArgs, plan: &Value, text: &str) -> Done {
    match args.format {
        Format::Json => output::print(&output::json(plan))?,
        Format::Markdown => output::print(&super::markdown::markdown(plan, text))?,
        Format::Text => output::print(&format!("{}\n", text.trim_end()))?,
    }
    let is_blind = plan["findings"].as_array().into_iter().flatten().any(|finding| finding["reason"] == "EngineUnreachable");
    let is_empty = plan["steps"].as_array().is_none_or(Vec::is_empty);
    Ok(match (is_blind, is_empty) {
        // Nothing to do as far as can be seen, and nothing can be seen.
        (true, _) => End::Unreachable,
        (false, true) => End::Fine,
        (false, false) => End::Differs,
    })
}
