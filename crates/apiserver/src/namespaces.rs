//! Owns namespaces as objects: one is there while a declared object is in it. They are made from the store's objects, never stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use qm_api::meta::{Meta, Object, ObjectKey};
use qm_api::name::Name;
use qm_api::registry::{self, Column, ColumnType, Face, Kind};
use qm_api::time::Timestamp;
use qm_store::{Batch, Change, ChangeKind, Snapshot};
use serde_json::{Value, json};

/// The kind of namespaces.
pub(crate) static NAMESPACE: Kind = Kind {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    group: "",
    version: "v1",
    namespaced: false,
    categories: &[],
    face: Face::ReadOnly,
    description: "A Docker stack or Compose project; it is there while an object is in it.",
    columns: &[
        Column { name: "STATUS", path: ".status.phase", kind: ColumnType::String, priority: 0, description: "Always Active." },
        Column {
            name: "AGE",
            path: ".metadata.creationTimestamp",
            kind: ColumnType::Date,
            priority: 0,
            description: "Time since its oldest object was created.",
        },
    ],
    schema: None,
    status: None,
    crd: None,
};

/// All namespaces of a view, by name.
pub(crate) fn all(snapshot: &Snapshot) -> Vec<Arc<Object>> {
    let mut since: BTreeMap<&Name, Timestamp> = BTreeMap::new();
    for object in declared(snapshot) {
        let created = object.meta.creation_timestamp;
        since.entry(&object.key.namespace).and_modify(|oldest| *oldest = created.min(*oldest)).or_insert(created);
    }
    since.into_iter().map(|(name, created)| Arc::new(namespace(name, created, snapshot.resource_version()))).collect()
}

fn declared(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Object>> {
    registry::user_kinds().flat_map(|kind| snapshot.list(kind.kind, None)).filter(|object| !object.key.namespace.is_empty())
}

fn namespace(name: &Name, created: Timestamp, resource_version: u64) -> Object {
    Object {
        api_version: "v1".into(),
        key: ObjectKey { kind: NAMESPACE.kind.into(), namespace: Name::default(), name: name.clone() },
        meta: Meta { uid: format!("namespace-{name}").into(), resource_version, creation_timestamp: created, ..Meta::default() },
        spec: Arc::new(Value::Null),
        status: Arc::new(json!({"phase": "Active"})),
    }
}

/// How many objects each namespace has, as a watch goes on: tells when one appears and when one is gone.
#[derive(Debug)]
pub(crate) struct Census(BTreeMap<Name, usize>);

/// A namespace that appeared or is gone.
pub(crate) struct Turn {
    pub(crate) namespace: Object,
    pub(crate) is_gone: bool,
}

impl Census {
    /// The census of a view.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mut counts = BTreeMap::new();
        for object in declared(snapshot) {
            *counts.entry(object.key.namespace.clone()).or_default() += 1;
        }
        Self(counts)
    }

    /// The census before `batches`, which lead up to this one.
    #[must_use]
    pub(crate) fn before<'a>(mut self, batches: impl DoubleEndedIterator<Item = &'a Batch>) -> Self {
        for change in batches.rev().flat_map(|batch| batch.changes.iter().rev()) {
            match difference(change) {
                Difference::One => self.less(&change.object.key.namespace),
                Difference::MinusOne => self.more(&change.object.key.namespace),
                Difference::None => {}
            }
        }
        self
    }

    /// Goes on by one change.
    pub(crate) fn apply(&mut self, change: &Change) -> Option<Turn> {
        let name = &change.object.key.namespace;
        let was_there = self.0.contains_key(name);
        match difference(change) {
            Difference::One => self.more(name),
            Difference::MinusOne => self.less(name),
            Difference::None => {}
        }
        let is_there = self.0.contains_key(name);
        let meta = &change.object.meta;
        let turn = || Turn { namespace: namespace(name, meta.creation_timestamp, meta.resource_version), is_gone: !is_there };
        (was_there != is_there).then(turn)
    }

    fn more(&mut self, name: &Name) {
        *self.0.entry(name.clone()).or_default() += 1;
    }

    fn less(&mut self, name: &Name) {
        if let Some(count) = self.0.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(name);
            }
        }
    }
}

enum Difference {
    None,
    One,
    MinusOne,
}

fn difference(change: &Change) -> Difference {
    let key = &change.object.key;
    let is_declared = registry::by_kind(&key.kind).is_some_and(|kind| kind.face == Face::User) && !key.namespace.is_empty();
    match (change.kind, &change.previous) {
        _ if !is_declared => Difference::None,
        (ChangeKind::Put, None) => Difference::One,
        (ChangeKind::Delete, _) => Difference::MinusOne,
        (ChangeKind::Put, Some(_)) => Difference::None,
    }
}
