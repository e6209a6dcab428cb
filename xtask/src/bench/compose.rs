//! Owns the peer: Compose v2, found or named, never installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::operator::{Setup, is_program};

/// The Compose v2 binary: of the variable `COMPOSE`, else `docker-compose` on the path, if its version is 2 or later.
pub(crate) fn find() -> Option<PathBuf> {
    let named = std::env::var_os("COMPOSE").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("docker-compose")).find(|file| is_program(file));
    named.into_iter().chain(on_path).find(|program| {
        let output = Command::new(program).args(["version", "--short"]).stdin(Stdio::null()).output();
        output.is_ok_and(|o| o.status.success() && !String::from_utf8_lossy(&o.stdout).trim_start_matches('v').starts_with("1."))
    })
}

/// `docker-compose up -d` of a file's text.
pub(crate) fn up(program: &Path, setup: &Setup, project: &str, text: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("compose.yaml");
    std::fs::write(&file, text)?;
    let output = Command::new(program)
        .args(["--project-name", project, "--progress", "quiet", "--file"])
        .arg(&file)
        .args(["up", "--detach"])
        .env("DOCKER_HOST", &setup.docker_host)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} cannot be run", program.display()))?;
    if !output.status.success() {
        bail!("compose up: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
