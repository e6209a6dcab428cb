//! The log of a run: every exchange with the engine, every plan and status, every act. Its digest is what two runs are compared by.

use sha2::{Digest, Sha256};

/// Lines kept for people, from the end.
const KEPT: usize = 4_000;

/// A log and its digest.
#[derive(Debug, Default)]
pub struct Journal {
    hasher: Sha256,
    lines: std::collections::VecDeque<String>,
    count: u64,
    all: bool,
}

impl Journal {
    /// A journal that keeps every line, or the last ones.
    pub fn new(all: bool) -> Self {
        Self { all, ..Self::default() }
    }

    /// Writes a line.
    pub fn line(&mut self, at_ms: u64, text: &str) {
        let line = format!("{:>9.3} {text}", at_ms as f64 / 1_000.0);
        self.hasher.update(line.as_bytes());
        self.hasher.update(b"\n");
        self.count += 1;
        self.lines.push_back(line);
        if !self.all && self.lines.len() > KEPT {
            self.lines.pop_front();
        }
    }

    /// The digest so far, in hex.
    pub fn digest(&self) -> String {
        self.hasher.clone().finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// How many lines there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The lines that were kept.
    pub fn lines(&self) -> impl Iterator<Item = &String> {
        self.lines.iter()
    }
}
