//! How a mini container is, from how its children are (DESIGN 3.1): the rollup.

use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::meta::ObjectKey;
use qm_api::mutant::{Mutant, planted};

use super::loss::DownCause;
use super::snapshot::NodeView;

/// What the manifest says of a mini container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollup {
    /// Without an enabled child it is PartiallyAvailable, not Unavailable.
    pub allow_empty: bool,
    /// It is being deleted.
    pub deleting: bool,
}

/// How many children there are of which kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub total: u32,
    /// Those that are not off by configuration.
    pub enabled: u32,
    /// Those that may be used.
    pub usable: u32,
    /// Those that work fully.
    pub available: u32,
}

/// Counts children.
pub fn counts<'a>(children: impl IntoIterator<Item = Option<&'a NodeView>>) -> Counts {
    let mut counts = Counts::default();
    for child in children {
        counts.total += 1;
        // What was never looked at is not usable, and not off.
        counts.enabled += u32::from(child.is_none_or(|child| child.off.is_none()));
        counts.usable += u32::from(child.is_some_and(|child| child.usable() || (child.off.is_none() && planted(Mutant::BlindParent))));
        counts.available += u32::from(child.is_some_and(|child| child.usable() && child.availability == Availability::Available));
    }
    counts
}

/// What children are together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) availability: Availability,
    pub(super) reason: Reason,
    pub(super) message: String,
    /// The worst of them that is not usable, and why it is not: among equals the one with the most evidence, then the first.
    pub(super) culprit: Option<(ObjectKey, DownCause)>,
}

/// Sums up children: all available 1; all usable 2; some usable 3; none usable 4; none enabled 5, or 3 where that is fine. A child at 6
/// makes it 4.
pub(super) fn sum_up<'a>(rollup: Rollup, children: impl Iterator<Item = Option<&'a NodeView>> + Clone) -> Sum {
    let Counts { enabled, usable, available, .. } = counts(children.clone());
    let mut culprit: Option<&NodeView> = None;
    for child in children.flatten().filter(|child| child.off.is_none() && !child.usable()) {
        if culprit.is_none_or(|worst| (child.availability, child.down) > (worst.availability, worst.down)) {
            culprit = Some(child);
        }
    }
    let has_failed = culprit.is_some_and(|child| child.availability == Availability::SystemFailure);
    let named = culprit.map(|child| format!(": {}/{} is {}", child.key.namespace, child.key.name, child.availability)).unwrap_or_default();
    let (availability, reason, message) = match (usable, enabled) {
        _ if rollup.deleting => (Availability::TemporarilyUnavailable, Reason::Deleting, "it is being deleted".to_owned()),
        (_, 0) if rollup.allow_empty => (Availability::PartiallyAvailable, Reason::NoChildren, "it has no enabled child".to_owned()),
        (_, 0) => (Availability::Unavailable, Reason::NoChildren, "it has no enabled child".to_owned()),
        _ if has_failed => {
            (Availability::TemporarilyUnavailable, Reason::ChildrenUnavailable, format!("{usable} of {enabled} children are usable{named}"))
        }
        (usable, enabled) if available == enabled => {
            (Availability::Available, Reason::Healthy, format!("{usable} of {enabled} children are usable"))
        }
        (usable, enabled) if usable == enabled => {
            let message = format!("all {enabled} children are usable, {available} of them fully");
            (Availability::AlmostAvailable, Reason::SomeChildrenUnavailable, message)
        }
        (0, enabled) => {
            (Availability::TemporarilyUnavailable, Reason::ChildrenUnavailable, format!("none of {enabled} children is usable{named}"))
        }
        (usable, enabled) => {
            (Availability::PartiallyAvailable, Reason::SomeChildrenUnavailable, format!("{usable} of {enabled} children are usable{named}"))
        }
    };
    let culprit = culprit.map(|child| (child.key.clone(), child.down.unwrap_or(DownCause::Unknown)));
    Sum { availability, reason, message, culprit }
}
