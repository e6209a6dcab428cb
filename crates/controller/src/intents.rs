//! Owns the acts of persons (DESIGN 3.8): records in the store, never edits of a spec.

use std::collections::BTreeSet;

use qm_api::kinds::intent::{Act, IntentSpec, KIND, Scope};
use qm_api::meta::{Object, ObjectKey, OwnerReference};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_store::Snapshot;

use crate::records::SOURCE;

/// How long an approval counts when it says nothing itself, in milliseconds.
pub const APPROVAL_TERM_MS: i64 = 3_600_000;

/// Every intent that counts at `now`.
pub fn active(snapshot: &Snapshot, now: Timestamp) -> Vec<(ObjectKey, IntentSpec)> {
    snapshot
        .list(KIND, None)
        .filter_map(|object| match object.decode_spec::<IntentSpec>() {
            Ok(spec) => Some((object.key.clone(), spec)),
            Err(error) => {
                tracing::warn!(key = %object.key, error = %error, "an intent cannot be read and is left out");
                None
            }
        })
        .filter(|(_, intent)| ends_at(intent).is_none_or(|until| until > now))
        .collect()
}

/// When an intent ends by itself.
pub fn ends_at(intent: &IntentSpec) -> Option<Timestamp> {
    match (intent.until, intent.act) {
        (Some(until), _) => Some(until),
        (None, Act::Suspend | Act::Block) => None,
        (None, _) => Some(intent.at.plus_millis(APPROVAL_TERM_MS)),
    }
}

/// Finished acts that are kept for people to look at.
pub const FINISHED_KEPT: usize = 20;

/// Records that say nothing any more: those that have ended, and finished acts beyond the newest.
pub fn outdated(snapshot: &Snapshot, now: Timestamp) -> Vec<ObjectKey> {
    let mut finished: Vec<(Timestamp, ObjectKey)> = Vec::new();
    let mut outdated = Vec::new();
    for object in snapshot.list(KIND, None) {
        let Ok(intent) = object.decode_spec::<IntentSpec>() else { continue };
        if ends_at(&intent).is_some_and(|until| until <= now) {
            outdated.push(object.key.clone());
        } else if !matches!(intent.act, Act::Suspend | Act::Approve | Act::Block) {
            finished.push((intent.at, object.key.clone()));
        }
    }
    finished.sort();
    let excess = finished.len().saturating_sub(FINISHED_KEPT);
    outdated.extend(finished.into_iter().take(excess).map(|(_, key)| key));
    outdated
}

/// Whether a scope covers an object.
pub fn covers(scope: &Scope, object: &Object) -> bool {
    let source = object.meta.annotations.get(SOURCE).map(Name::as_str);
    // An act on a mini container is one on each of its children.
    let is_child = || {
        let named = |owner: &OwnerReference| scope.kind.as_deref() == Some(&owner.kind) && scope.name.as_deref() == Some(&owner.name);
        let fits = |wanted: &Option<String>| wanted.as_deref().is_none_or(|namespace| object.key.namespace == *namespace);
        object.meta.owner_references.iter().any(named) && fits(&scope.namespace)
    };
    (covers_key(scope, &object.key) || is_child()) && scope.source.as_deref().is_none_or(|wanted| source == Some(wanted))
}

/// Whether a scope covers a key, sources left aside.
pub fn covers_key(scope: &Scope, key: &ObjectKey) -> bool {
    let fits = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w == found);
    fits(&scope.kind, &key.kind) && fits(&scope.namespace, &key.namespace) && fits(&scope.name, &key.name)
}

/// Who suspended an object, in words, if anybody did.
pub fn suspension(snapshot: &Snapshot, object: &Object, now: Timestamp) -> Option<String> {
    let (_, intent) = active(snapshot, now).into_iter().find(|(_, i)| i.act == Act::Suspend && covers(&i.scope, object))?;
    let mut words = intent.actor.clone();
    if let Some(until) = intent.until {
        words.push_str(&format!(" until {}", until.to_seconds_string()));
    }
    if !intent.reason.is_empty() {
        words.push_str(&format!(": {}", intent.reason));
    }
    Some(words)
}

/// Who blocked an object, in words, and until when, if anybody did.
pub fn block(snapshot: &Snapshot, object: &Object, now: Timestamp) -> Option<(String, Option<Timestamp>)> {
    let (_, intent) = active(snapshot, now).into_iter().find(|(_, i)| i.act == Act::Block && covers(&i.scope, object))?;
    let words = match intent.reason.as_str() {
        "" => format!("blocked by {}", intent.actor),
        reason => format!("blocked by {}: {reason}", intent.actor),
    };
    Some((words, intent.until))
}

/// The hashes of steps that people approved.
pub fn approvals(snapshot: &Snapshot, now: Timestamp) -> BTreeSet<String> {
    active(snapshot, now).into_iter().filter(|(_, i)| i.act == Act::Approve).filter_map(|(_, i)| i.step_hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_without_parts_covers_all() {
        let key = ObjectKey::new("MiniService", "n", "a");
        assert!(covers_key(&Scope::default(), &key));
        assert!(covers_key(&Scope { namespace: Some("n".into()), ..Scope::default() }, &key));
        assert!(!covers_key(&Scope { namespace: Some("m".into()), ..Scope::default() }, &key));
        assert!(!covers_key(&Scope { name: Some("b".into()), ..Scope::default() }, &key));
    }
}
