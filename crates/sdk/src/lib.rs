//! The Rust client of Quaymaster's app face: may I use it, and if not, who is to blame.
//!
//! A [`Client`] follows one namespace in the background and answers from memory. [`requires`] guards an async function, [`RequiresLayer`]
//! a route; both answer [`Blocked`], which is 503 with the chain. [`Reporter`] says how a part of the app is; [`LockGuard`] and [`UseGuard`]
//! hold a service. Where the operator is away, [`WhenAway`] says what holds.
//!
//! It owns no rule of the operator, only what is to be done without it: start at [`Client::builder`], and at `verdict.rs` for that rule.
//! It must never block a request on the network, except for a lock that was asked for.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use qm_sdk::{Blocked, Client, requires};
//!
//! #[requires(service = "postgres", operation = "write")]
//! async fn save(order: &str) -> Result<(), Blocked> {
//!     // Only gets here while postgres may be written to.
//!     Ok(())
//! }
//!
//! qm_sdk::install(Client::builder().namespace("notify").start()?)?;
//! save("one tea").await?;
//! # Ok(())
//! # }
//! ```

mod blocked;
mod client;
mod events;
mod follow;
mod layer;
mod link;
mod locks;
mod report;
mod verdict;
mod wire;

use std::sync::OnceLock;

pub use blocked::Blocked;
pub use client::{Builder, Client, StartError};
pub use layer::{Requires, RequiresLayer};
pub use link::Error;
pub use locks::users::UseGuard;
pub use locks::{AskChange, LockGuard, Lost};
pub use qm_sdk_macros::requires;
pub use report::{Report, Reporter};
pub use verdict::{Basis, Then, Verdict, WhenAway};
pub use wire::{Answer, Availability, Culprit, LockMode, Reload};

static INSTALLED: OnceLock<Client> = OnceLock::new();

/// There is one already.
#[derive(Debug, thiserror::Error)]
#[error("a client is installed already")]
pub struct AlreadyInstalled;

/// Makes a client the one that [`requires`] asks, for the whole process.
///
/// # Errors
/// When there is one already.
pub fn install(client: Client) -> Result<(), AlreadyInstalled> {
    INSTALLED.set(client).map_err(|_| AlreadyInstalled)
}

/// The client that [`install`] was given.
pub fn installed() -> Option<&'static Client> {
    INSTALLED.get()
}

/// What [`requires`] begins a function with.
#[doc(hidden)]
pub fn require_installed(service: &str, operation: Option<&str>) -> Result<(), Blocked> {
    installed().map_or_else(|| Err(Blocked::without_client(service)), |client| client.require(service, operation))
}
