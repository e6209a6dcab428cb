//! Owns chunked lists: the token that goes on where a page ended, and the views that such tokens are pinned to.
//!
//! All pages of one list show one state of the store. A view is kept for a few minutes, and only so many; a token whose view is gone
//! gets 410, and the client lists anew.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use qm_api::meta::ObjectKey;
use qm_store::Snapshot;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::status::Failure;

const MOST_VIEWS: usize = 32;
const KEPT_FOR: Duration = Duration::from_secs(300);

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    /// The version of the view.
    v: u64,
    /// The namespace of the last object that was given out.
    ns: String,
    /// Its name.
    n: String,
}

impl Token {
    pub(crate) fn after(version: u64, key: &ObjectKey) -> Self {
        Self { v: version, ns: key.namespace.as_str().to_owned(), n: key.name.as_str().to_owned() }
    }

    pub(crate) fn version(&self) -> u64 {
        self.v
    }

    /// Whether the object of this key comes after the last one given out.
    pub(crate) fn is_before(&self, key: &ObjectKey) -> bool {
        (&*key.namespace, &*key.name) > (self.ns.as_str(), self.n.as_str())
    }

    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// # Errors
    /// When the text was not made by [`Token::encode`].
    pub(crate) fn decode(text: &str) -> Result<Self, Failure> {
        let token = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        token.ok_or_else(|| Failure::bad_request("continue key is not valid"))
    }
}

/// The views that tokens are pinned to.
#[derive(Debug, Default)]
pub(crate) struct Views(Mutex<VecDeque<(Instant, Snapshot)>>);

impl Views {
    /// Keeps a view for the next pages.
    pub(crate) fn keep(&self, snapshot: &Snapshot, now: Instant) {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forget_old(&mut views, now);
        if views.iter().any(|(_, view)| view.resource_version() == snapshot.resource_version()) {
            return;
        }
        if views.len() == MOST_VIEWS {
            views.pop_front();
        }
        views.push_back((now, snapshot.clone()));
    }

    /// The view of that version, if it is still known.
    pub(crate) fn find(&self, version: u64, now: Instant) -> Option<Snapshot> {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forget_old(&mut views, now);
        views.iter().find(|(_, view)| view.resource_version() == version).map(|(_, view)| view.clone())
    }
}

fn forget_old(views: &mut VecDeque<(Instant, Snapshot)>, now: Instant) {
    while views.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) > KEPT_FOR) {
        views.pop_front();
    }
}
