//! What ends an operator process: from one instant on nothing that it does reaches the world, as after a `kill -9`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qm_store::backend::{Backend, BackendError, Flush, Memory, Records, Write};

/// Whether one process is alive, and whether its disk takes anything.
#[derive(Debug)]
pub struct Fate {
    alive: AtomicBool,
    full: Arc<AtomicBool>,
}

impl Fate {
    /// A living process on a disk whose state outlives it.
    pub fn new(full: Arc<AtomicBool>) -> Self {
        Self { alive: AtomicBool::new(true), full }
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Ends it. True when it lived until now.
    pub fn end(&self) -> bool {
        self.alive.swap(false, Ordering::Relaxed)
    }
}

/// The disk as one process sees it.
#[derive(Debug)]
pub struct Disk {
    memory: Memory,
    fate: Arc<Fate>,
}

impl Disk {
    /// The disk of a process.
    pub fn new(memory: Memory, fate: Arc<Fate>) -> Self {
        Self { memory, fate }
    }
}

impl Backend for Disk {
    fn load(&mut self) -> Result<Records, BackendError> {
        self.memory.load()
    }

    fn apply(&mut self, writes: &[Write], flush: Flush) -> Result<(), BackendError> {
        if !self.fate.is_alive() {
            return Err(io::Error::other("the process is dead").into());
        }
        if self.fate.full.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        self.memory.apply(writes, flush)
    }

    fn preserve(&mut self, label: &str) -> Result<(), BackendError> {
        self.memory.preserve(label)
    }
}
