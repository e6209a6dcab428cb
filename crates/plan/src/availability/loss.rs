//! What has been lost, since when, and by whose fault: what tolerances, stops and reloads are decided from (DESIGN 3.2).

use super::Now;

/// Why a node may not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DownCause {
    /// Nobody can see it: evidence of nothing. It stops nobody, and its end is no return.
    Unknown,
    /// A planned change of ours, or a person's, keeps it or one that it needs down: it stops nobody, and its end is no return.
    Changing,
    /// It was seen to fail, or one that it needs was.
    Failed,
}

/// The loss of a node that was usable before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When it began, in monotonic milliseconds; before this process where it is negative.
    pub since_ms: i64,
    /// Why. What began as a failure stays one, whatever is done about it.
    pub cause: DownCause,
    /// Since when it is known to have failed, in monotonic milliseconds: what nobody saw before stops nobody.
    pub failed_since_ms: Option<i64>,
    /// The planned change is its own, not that of one that it needs.
    pub own_change: bool,
}

/// What has happened to a node that its dependents may have to react to, counted for ever: the store keeps it over restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    /// Failures that were seen and have ended.
    pub losses_ended: u64,
    /// Planned changes that took it down and are done.
    pub changes_ended: u64,
}

/// What a node has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// It was usable once. One that never was is not lost, and its absence is not tolerated.
    pub was_usable: bool,
    /// It may not be used now and could before.
    pub loss: Option<Loss>,
    /// Since when it has been usable without a break, in monotonic milliseconds; before this process where it is negative.
    pub usable_since_ms: Option<i64>,
    /// What has been counted.
    pub epoch: Epoch,
}

/// How a node stands at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Usable,
    /// Off by configuration: that is no loss.
    Off,
    Down {
        cause: DownCause,
        own_change: bool,
    },
}

impl History {
    /// The history after a look at the node.
    pub(super) fn after(self, standing: Standing, now: Now) -> Self {
        let now_ms = i64::try_from(now.mono_ms).unwrap_or(i64::MAX);
        match standing {
            Standing::Usable => {
                let mut epoch = self.epoch;
                match self.loss {
                    Some(Loss { cause: DownCause::Failed, .. }) => epoch.losses_ended += 1,
                    Some(Loss { cause: DownCause::Changing, own_change: true, .. }) => epoch.changes_ended += 1,
                    Some(Loss { cause: DownCause::Changing | DownCause::Unknown, .. }) | None => {}
                }
                Self { was_usable: true, loss: None, usable_since_ms: self.usable_since_ms.or(Some(now_ms)), epoch }
            }
            // What is switched on again is on its way up, and has lost nothing.
            Standing::Off => Self { was_usable: false, loss: None, usable_since_ms: None, ..self },
            Standing::Down { .. } if !self.was_usable => Self { usable_since_ms: None, ..self },
            Standing::Down { cause, own_change } => {
                let failed_now = (cause == DownCause::Failed).then_some(now_ms);
                let loss = match self.loss {
                    None => Loss { since_ms: now_ms, cause, own_change, failed_since_ms: failed_now },
                    // A failure is healed by its end only; a change that is not one any more, and left it down, has failed. What cannot
                    // be seen is evidence of nothing: it takes nothing back.
                    Some(old) => {
                        let cause = match (old.cause, cause) {
                            (DownCause::Failed, _) => DownCause::Failed,
                            (known, DownCause::Unknown) => known,
                            (_, seen) => seen,
                        };
                        let failed_since_ms = old.failed_since_ms.or(failed_now);
                        Loss { cause, own_change: own_change || old.own_change, failed_since_ms, ..old }
                    }
                };
                Self { loss: Some(loss), usable_since_ms: None, ..self }
            }
        }
    }
}
