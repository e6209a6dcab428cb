//! A disk in memory that fails on demand, runs full, and forgets what was not synced.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

/// What the failing call leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    /// Nothing.
    NotDone,
    /// The first half of what it was to write.
    HalfDone,
    /// Everything: only the answer is lost.
    Done,
}

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    calls: u64,
    fail_at: Option<(u64, Failing)>,
    capacity: u64,
}

#[derive(Debug)]
pub(crate) struct Disk(Mutex<State>);

impl Disk {
    pub(crate) fn new() -> Arc<Self> {
        Self::holding(Vec::new())
    }

    pub(crate) fn holding(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { synced: bytes.clone(), bytes, calls: 0, fail_at: None, capacity: u64::MAX })))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    /// The machine stops: what was not synced is gone.
    pub(crate) fn crash(&self) {
        let mut state = self.state();
        state.bytes = state.synced.clone();
    }

    /// The `n`th call from now fails, once.
    pub(crate) fn fail_nth(&self, n: u64, failing: Failing) {
        let mut state = self.state();
        state.fail_at = Some((state.calls + n, failing));
    }

    /// Whether the failure that was asked for is still to come.
    pub(crate) fn is_armed(&self) -> bool {
        self.state().fail_at.is_some()
    }

    pub(crate) fn disarm(&self) {
        self.state().fail_at = None;
    }

    pub(crate) fn set_capacity(&self, capacity: u64) {
        self.state().capacity = capacity;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn called(&mut self) -> Option<Failing> {
        self.calls += 1;
        let (at, failing) = self.fail_at?;
        (at == self.calls).then(|| {
            self.fail_at = None;
            failing
        })
    }
}

fn broken() -> io::Error {
    io::Error::other("the disk broke")
}

fn answer(failing: Option<Failing>) -> io::Result<()> {
    failing.map_or(Ok(()), |_| Err(broken()))
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state();
        answer(state.called())?;
        Ok(state.bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        answer(state.called())?;
        let offset = usize::try_from(offset).unwrap();
        let bytes = state.bytes.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let failing = state.called();
        if len > state.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if failing != Some(Failing::NotDone) {
            state.bytes.resize(usize::try_from(len).unwrap(), 0);
        }
        answer(failing)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        let failing = state.called();
        if matches!(failing, None | Some(Failing::Done)) {
            state.synced = state.bytes.clone();
        }
        answer(failing)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let failing = state.called();
        let done = match failing {
            None | Some(Failing::Done) => data.len(),
            Some(Failing::HalfDone) => data.len() / 2,
            Some(Failing::NotDone) => 0,
        };
        let offset = usize::try_from(offset).unwrap();
        state.bytes[offset..offset + done].copy_from_slice(&data[..done]);
        answer(failing)
    }
}
