//! Owns the stamp: the labels that say a thing of the engine is ours, and whose (DESIGN 3.4).

use std::collections::BTreeMap;

use qm_api::meta::ObjectKey;
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;

/// Prefix of every label of ours.
pub const PREFIX: &str = "quaymaster.dev/";
/// Label: which Quaymaster.
pub const INSTANCE: &str = "quaymaster.dev/instance";
/// Label: kind of the owner.
pub const KIND: &str = "quaymaster.dev/kind";
/// Label: name of the owner.
pub const NAME: &str = "quaymaster.dev/name";
/// Label: namespace of the owner.
pub const NAMESPACE: &str = "quaymaster.dev/namespace";
/// Label: uid of the owner.
pub const UID: &str = "quaymaster.dev/uid";
/// Label: generation of the owner when the thing was made; information only.
pub const GENERATION: &str = "quaymaster.dev/generation";
/// Label: hash of what cannot be changed in place.
pub const SPEC_HASH: &str = "quaymaster.dev/spec-hash";
/// Label: revision number.
pub const REVISION: &str = "quaymaster.dev/revision";
/// Label: slot of a container, from 1.
pub const SLOT: &str = "quaymaster.dev/slot";
/// Label: the image reference that the revision was made from.
pub const IMAGE: &str = "quaymaster.dev/image";
/// The ecosystem's own: the Compose project.
pub const COMPOSE_PROJECT: &str = "com.docker.compose.project";

/// A stamp as read from labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which Quaymaster.
    pub instance: Name,
    /// The owner.
    pub owner: ObjectKey,
    /// The owner's uid.
    pub uid: Name,
    /// Hash of what cannot be changed in place; empty for volumes.
    pub spec_hash: Name,
    /// Revision number, 0 when unreadable.
    pub revision: u64,
    /// Slot, 0 for things without slots.
    pub slot: u32,
    /// The image reference; empty for things without images.
    pub image: Name,
}

impl Stamp {
    /// Reads a stamp; `None` when a label that names the owner is missing: then the thing is foreign.
    pub fn read(labels: &BTreeMap<String, String>) -> Option<Self> {
        let get = |key: &str| labels.get(key).map(Name::from);
        Some(Self {
            instance: get(INSTANCE)?,
            owner: ObjectKey { kind: get(KIND)?, namespace: get(NAMESPACE)?, name: get(NAME)? },
            uid: get(UID).unwrap_or_default(),
            spec_hash: get(SPEC_HASH).unwrap_or_default(),
            revision: labels.get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0),
            slot: labels.get(SLOT).and_then(|s| s.parse().ok()).unwrap_or(0),
            image: get(IMAGE).unwrap_or_default(),
        })
    }

    /// Whether the thing is this instance's.
    pub fn is_of(&self, instance: &Name) -> bool {
        self.instance == *instance || planted(Mutant::ForeignIsOurs)
    }

    /// The labels, with those that other tools look for: Compose's project, service, number, hash and one-off mark.
    pub fn labels(&self, generation: u64) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            (INSTANCE.to_owned(), self.instance.to_string()),
            (KIND.to_owned(), self.owner.kind.to_string()),
            (NAMESPACE.to_owned(), self.owner.namespace.to_string()),
            (NAME.to_owned(), self.owner.name.to_string()),
            (UID.to_owned(), self.uid.to_string()),
            (GENERATION.to_owned(), generation.to_string()),
            (COMPOSE_PROJECT.to_owned(), self.owner.namespace.to_string()),
        ]);
        let mut put = |key: &str, value: String| {
            labels.insert(key.to_owned(), value);
        };
        if !self.spec_hash.is_empty() {
            put(SPEC_HASH, self.spec_hash.to_string());
        }
        if self.revision > 0 {
            put(REVISION, self.revision.to_string());
        }
        if self.slot > 0 {
            put(SLOT, self.slot.to_string());
            put(IMAGE, self.image.to_string());
            put("com.docker.compose.service", self.owner.name.to_string());
            put("com.docker.compose.container-number", self.slot.to_string());
            put("com.docker.compose.config-hash", self.spec_hash.to_string());
            put("com.docker.compose.oneoff", "False".to_owned());
        }
        match self.owner.kind.as_str() {
            "Network" => put("com.docker.compose.network", self.owner.name.to_string()),
            _ if self.slot == 0 => put("com.docker.compose.volume", self.owner.name.to_string()),
            _ => {}
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_its_labels() {
        let stamp = Stamp {
            instance: "default".into(),
            owner: ObjectKey::new("MiniService", "n", "app"),
            uid: "u1".into(),
            spec_hash: "abc".into(),
            revision: 3,
            slot: 2,
            image: "busybox:local".into(),
        };
        assert_eq!(Stamp::read(&stamp.labels(7)), Some(stamp.clone()));
        for needed in [INSTANCE, KIND, NAME, NAMESPACE] {
            let mut labels = stamp.labels(7);
            labels.remove(needed);
            assert_eq!(Stamp::read(&labels), None, "{needed}");
        }
    }
}
