//! Waiting on a condition with a deadline: the only way in which these tests let time pass.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is asked for.
const PAUSE: Duration = Duration::from_millis(25);

/// Asks until there is an answer.
///
/// # Errors
/// The last reason why not, when `limit` is over.
pub fn until<T>(limit: Duration, mut ask: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let end = Instant::now() + limit;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(why) if Instant::now() >= end => return Err(why),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Watches that something holds for the whole of `span`.
///
/// # Errors
/// The first reason why it does not.
pub fn throughout(span: Duration, mut holds: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        holds()?;
        thread::sleep(PAUSE);
    }
    Ok(())
}
