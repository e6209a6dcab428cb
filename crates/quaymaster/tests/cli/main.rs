//! The program as people run it: its output, its exit codes, and what it asks an operator that is played by [`fake`].

mod commands;
mod fake;
mod lock;
mod offline;
mod sandbox;
mod wait;

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program, in a quiet environment.
pub(crate) fn program(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quaymaster"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env("NO_COLOR", "1").env("USER", "ann");
    for key in ["QUAYMASTER_SOCKET", "DOCKER_HOST", "SUDO_USER"] {
        command.env_remove(key);
    }
    command
}

/// How a run ended, as text for assertions.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str], folder: &Path) -> Ran {
    ran(program(arguments, folder).output().expect("the program starts"))
}

pub(crate) fn ran(output: Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the output is UTF-8");
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}
