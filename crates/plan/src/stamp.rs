//! Owns the stamp: the labels that say a thing of the engine is ours, and whose (DESIGN 3.4).

use std::collections::BTreeMap;

use qm_api::meta::ObjectKey;
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use qm_api::time::Timestamp;

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
/// Label: the run of a job that a container belongs to.
pub const RUN: &str = "quaymaster.dev/run";
/// Label: the attempt at it, from 1.
pub const ATTEMPT: &str = "quaymaster.dev/attempt";
/// Label: the step of it, where it has steps.
pub const STEP: &str = "quaymaster.dev/step";
/// Label: when the run was due, where it has a schedule.
pub const DUE: &str = "quaymaster.dev/due";
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
    /// What it is of a job.
    pub job: Option<JobStamp>,
}

/// Which part of a job a container is: there is never a second one with the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobStamp {
    /// The run.
    pub run: Name,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The step; empty for a job without steps.
    pub step: Name,
    /// When the run was due.
    pub due: Option<Timestamp>,
}

impl JobStamp {
    fn read(labels: &BTreeMap<String, String>) -> Option<Self> {
        Some(Self {
            run: labels.get(RUN).map(Name::from)?,
            attempt: labels.get(ATTEMPT)?.parse().ok()?,
            step: labels.get(STEP).map(Name::from).unwrap_or_default(),
            due: labels.get(DUE).and_then(|due| Timestamp::parse(due).ok()),
        })
    }
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
            job: JobStamp::read(labels),
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
            put("com.docker.compose.oneoff", if self.job.is_some() { "True" } else { "False" }.to_owned());
        }
        if let Some(job) = &self.job {
            put(RUN, job.run.to_string());
            put(ATTEMPT, job.attempt.to_string());
            if !job.step.is_empty() {
                put(STEP, job.step.to_string());
            }
            if let Some(due) = job.due {
                put(DUE, due.to_string());
            }
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
            job: None,
        };
        let due = Some(Timestamp::from_millis(1_764_000_000_000));
        let of_job = Stamp { job: Some(JobStamp { run: "3fa9".into(), attempt: 2, step: "load".into(), due }), ..stamp.clone() };
        assert_eq!(Stamp::read(&of_job.labels(7)), Some(of_job));
        assert_eq!(Stamp::read(&stamp.labels(7)), Some(stamp.clone()));
        for needed in [INSTANCE, KIND, NAME, NAMESPACE] {
            let mut labels = stamp.labels(7);
            labels.remove(needed);
            assert_eq!(Stamp::read(&labels), None, "{needed}");
        }
    }
}
