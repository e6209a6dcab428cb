//! Puts the parts of the operator together. Not wired yet.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use crate::cli::run::RunArgs;

/// Runs the operator until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub(crate) fn run(_args: RunArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not wired")
}

/// Plans the folders against the engine alone, without an operator; writes nothing. Gives the plan as JSON and as text.
///
/// # Errors
/// When the engine cannot be reached.
pub(crate) fn offline_plan(_dirs: &[PathBuf], _docker_host: &str) -> anyhow::Result<(Value, String)> {
    anyhow::bail!("not wired")
}
