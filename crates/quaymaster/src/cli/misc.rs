//! `schema`, `completions`, `version`: what the program knows by itself.

use clap::{Args, ValueEnum};
use clap_complete::Shell;
use qm_api::meta::API_VERSION;
use qm_api::{registry, schema as schemas};
use serde_json::{Value, json};

use super::{CliError, Connect, Done, End};
use crate::output;

/// Print the JSON Schema or the CRD of a kind
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster schema > quaymaster.json
  quaymaster schema msvc
  quaymaster schema msvc --crd
  quaymaster schema --drill > drill.json")]
pub(crate) struct SchemaArgs {
    /// The kind; without one, all that manifests declare
    #[arg(value_name = "KIND")]
    kind: Option<String>,
    /// The CustomResourceDefinition as YAML, in place of the JSON Schema
    #[arg(long)]
    crd: bool,
    /// The JSON Schema of drills
    #[arg(long, conflicts_with_all = ["kind", "crd"])]
    drill: bool,
}

pub(crate) fn schema(args: &SchemaArgs) -> Done {
    if args.drill {
        output::print(&output::json(&crate::drill::format::schema()))?;
        return Ok(End::Fine);
    }
    let kind = match &args.kind {
        None => None,
        Some(word) => Some(super::target::kind(word).map_err(CliError::Usage)?.0),
    };
    let none = |what: &str| CliError::Usage(format!("{} has no {what}", args.kind.as_deref().unwrap_or("that")));
    let text = match (kind, args.crd) {
        (Some(kind), true) => output::yaml(&schemas::crd(kind).ok_or_else(|| none("CRD"))?),
        (Some(kind), false) => output::json(&schemas::editor(kind).ok_or_else(|| none("schema"))?),
        (None, true) => registry::user_kinds().filter_map(schemas::crd).map(|crd| format!("---\n{}", output::yaml(&crd))).collect(),
        (None, false) => schemas::generated().remove("schemas/quaymaster.json").ok_or_else(|| none("schema"))?,
    };
    output::print(&text)?;
    Ok(End::Fine)
}

/// Print a completion script for a shell
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster completions bash > /etc/bash_completion.d/quaymaster
  quaymaster completions zsh > _quaymaster")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn completions(args: &CompletionsArgs, command: &mut clap::Command) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "quaymaster", &mut script);
    output::print_bytes(&script)?;
    Ok(End::Fine)
}

/// Print the version of this program, and of the operator where one runs
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster version
  quaymaster version -o json")]
pub(crate) struct VersionArgs {
    /// The form of the output
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

pub(crate) async fn version(args: &VersionArgs) -> Done {
    let client = args.connect.client();
    // No operator is no error: the version of this program was asked for.
    let operator = client.get("/version").await;
    let own = env!("CARGO_PKG_VERSION");
    let text = match (&operator, args.output) {
        (operator, Output::Json) => {
            let operator = operator.as_ref().map_or(Value::Null, Value::clone);
            output::json(&json!({"version": own, "apiVersion": API_VERSION, "operator": operator}))
        }
        (Ok(operator), Output::Text) => {
            let theirs = operator["gitVersion"].as_str().unwrap_or("unknown");
            format!("quaymaster {own} ({API_VERSION})\noperator   {} at {}\n", output::clean(theirs), client.socket().display())
        }
        (Err(error), Output::Text) if error.is_absent() => format!("quaymaster {own} ({API_VERSION})\n"),
        (Err(error), Output::Text) => format!("quaymaster {own} ({API_VERSION})\noperator   cannot be asked: {error}\n"),
    };
    output::print(&text)?;
    Ok(End::Fine)
}
