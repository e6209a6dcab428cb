//! Owns [`Snapshot`], the immutable view that all readers use. Taking one costs the same whatever is in it.

use std::sync::Arc;

use imbl::OrdMap;
use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;

use crate::lease::{Known, LeaseState};

/// All objects as one commit left them. Cloning is cheap, and later commits do not change it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) objects: OrdMap<ObjectKey, Arc<Object>>,
    pub(crate) resource_version: u64,
    pub(crate) fence: u64,
    pub(crate) leases: OrdMap<Name, LeaseState>,
}

impl Snapshot {
    /// The version of the last change in this view; [`Store::watch`](crate::Store::watch) goes on from it without a gap.
    pub fn resource_version(&self) -> u64 {
        self.resource_version
    }

    /// The object of that key.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// All objects, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// The objects of one kind, in all namespaces or in one, in the order of their keys. Costs what it yields.
    pub fn list<'a>(&'a self, kind: &str, namespace: Option<&str>) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let kind = Name::from(kind);
        let namespace = namespace.map(Name::from);
        let first = ObjectKey { kind: kind.clone(), namespace: namespace.clone().unwrap_or_default(), name: Name::default() };
        self.objects
            .range(first..)
            .take_while(move |(key, _)| key.kind == kind && namespace.as_ref().is_none_or(|wanted| key.namespace == *wanted))
            .map(|(_, object)| object)
    }

    /// The leases that are on record, in the order of their names: held, or not asked for by anybody since their term passed.
    pub fn leases(&self) -> impl Iterator<Item = Known<'_>> {
        self.leases.iter().map(|(name, lease)| Known::of(name, &lease.record))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}
