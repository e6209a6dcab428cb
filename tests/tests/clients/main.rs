//! Unmodified clients against the simulator: `docker`, and Compose v2.
//!
//! They are looked for, never installed. One that is not there is a failure: a promise that nobody checked is none.

mod compose;
mod docker;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use qm_tests::support::simulator;
use tempfile::TempDir;

/// A client, with a home of its own.
struct Client {
    program: PathBuf,
    home: TempDir,
}

/// What it did.
struct Done {
    command: String,
    code: Option<i32>,
    out: String,
    err: String,
}

impl Client {
    /// Looks for a program: the one that a variable names, else on the path.
    fn find(name: &str, variable: &str, advice: &str) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let named = std::env::var_os(variable).map(PathBuf::from);
        let program = named.or_else(|| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()));
        let program = program
            .unwrap_or_else(|| panic!("{name} is not on the path, so nothing shows that it works: {advice}, or name it with {variable}"));
        Self { program, home: tempfile::tempdir().expect("the temporary folder can be written") }
    }

    /// A file in its home.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).expect("the temporary folder can be written");
        path
    }

    /// Runs it to its end.
    fn run(&self, args: &[&str]) -> Done {
        let output = Command::new(&self.program)
            .args(args)
            .current_dir(self.home.path())
            .env("HOME", self.home.path())
            .env("DOCKER_CONFIG", self.home.path().join("config"))
            .env("DOCKER_HOST", format!("unix://{}", simulator::shared().display()))
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("{} cannot be run: {e}", self.program.display()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        Done { command: args.join(" "), code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Runs it, and it must be content; gives what it said.
    #[track_caller]
    fn must(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(0), "{} failed:\n{}\n{}", done.command, done.out, done.err);
        done.out
    }

    /// Runs it, and it must refuse with these words.
    #[track_caller]
    fn refused(&self, args: &[&str], words: &str) {
        let done = self.run(args);
        assert!(done.code != Some(0) && done.err.contains(words), "{} said {:?}:\n{}\n{}", done.command, done.code, done.out, done.err);
    }
}

/// A path as an argument.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
