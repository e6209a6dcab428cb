//! The whole operator, unmodified, against the simulated engine, in virtual time on one thread: a seed and a commit reproduce every run,
//! byte for byte.
//!
//! [`script`] draws what happens, [`stage`] is where it happens, [`drive`] lets it happen, [`judge`] knows the rules of every moment and
//! [`calm`] those of the end. Nothing here reads a clock, a file or a random number of the machine.

pub mod annex;
pub mod calm;
pub mod drive;
pub mod fate;
pub mod folder;
pub mod jobs;
pub mod journal;
pub mod judge;
pub mod meddle;
pub mod points;
pub mod reloads;
pub mod rng;
pub mod script;
pub mod stage;
pub mod story;
pub mod town;
pub mod users;

use std::time::Duration;

pub use drive::Verdict;
pub use script::Script;

/// The longest run, in virtual time. A deadlock ends here at once, since nothing is left to wait for.
const HORIZON: Duration = Duration::from_secs(4 * 3_600);

/// Plays a script on a fresh thread and a runtime of its own.
pub fn run(script: &Script, keep_log: bool) -> Verdict {
    let script = script.clone();
    let played = in_virtual_time(async move || drive::play(&script, keep_log).await);
    played.unwrap_or_else(|text| Verdict { violations: vec![text], ..Verdict::default() })
}

/// Plays a transition of a platform with the operator killed at a point, or at none.
///
/// # Errors
/// What is wrong at the end, in words.
pub fn run_point(transition: &points::Transition, point: Option<points::Point>) -> Result<u64, String> {
    let transition = transition.clone();
    in_virtual_time(async move || points::play(&transition, point).await).flatten()
}

/// Plays an hour of a scheduled job; gives its runs.
///
/// # Errors
/// What is wrong, in words.
pub fn run_scheduled_job() -> Result<Vec<serde_json::Value>, String> {
    in_virtual_time(jobs::play).flatten()
}

/// Runs something on a fresh thread and a runtime of its own, whose clock jumps whenever nothing is left to do.
pub(crate) fn in_virtual_time<T: Send + 'static>(play: impl AsyncFnOnce() -> T + Send + 'static) -> Result<T, String> {
    let thread = std::thread::Builder::new().name("sim".to_owned()).stack_size(16 << 20).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let local = tokio::task::LocalSet::new();
        let played = local.block_on(&runtime, async { tokio::time::timeout(HORIZON, play()).await });
        played.map_err(|_| "the run never ended: something waits for ever".to_owned())
    });
    thread.expect("a thread").join().unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    })
}

/// Leaves out what is not needed for a script to fail. `fails` judges a candidate.
pub fn shrink(script: &Script, mut fails: impl FnMut(&Script) -> bool) -> Script {
    let mut best = script.clone();
    let mut size = best.acts.len() / 2;
    while size >= 1 {
        let mut at = 0;
        while at < best.acts.len() {
            let mut candidate = best.clone();
            candidate.acts.drain(at..(at + size).min(best.acts.len()));
            if fails(&candidate) {
                best = candidate;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    best
}
