//! Owns [`Object`], the one shape in which everything durable is stored, watched and served, and [`ObjectKey`], its address.
//!
//! An object is `{key, meta, spec, status}` with spec and status as raw JSON: the store and the API server handle kinds they do not
//! know. Typed access goes through [`Object::decode_spec`]; admission alone decides what may become an object.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::name::Name;
use crate::time::Timestamp;

/// The API group of every user-facing kind.
pub const GROUP: &str = "quaymaster.dev";
/// The one version served now.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every user-facing kind.
pub const API_VERSION: &str = "quaymaster.dev/v1alpha1";
/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The address of one object: kind, namespace (empty for cluster-scoped kinds), name. Sorts in that order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// The kind in PascalCase, e.g. `MiniService`.
    pub kind: Name,
    /// The namespace; empty for cluster-scoped kinds.
    pub namespace: Name,
    /// The name, unique within kind and namespace.
    pub name: Name,
}

impl ObjectKey {
    /// A key from its three parts.
    pub fn new(kind: impl Into<Name>, namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    /// `Kind NS/NAME`, the form used in plans and messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names another object that owns this one; deletion of the owner reaches it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    /// `apiVersion` of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: Name,
    /// Name of the owner, in the same namespace.
    pub name: Name,
    /// Uid of the owner.
    pub uid: Name,
}

/// What the system keeps about an object besides its spec and status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// Unique over all time; given by the store's caller at creation.
    pub uid: Name,
    /// The store-wide version at which this object last changed; 0 before it is stored. Strictly increasing, also over restarts.
    pub resource_version: u64,
    /// Counts changes of the spec, from 1.
    pub generation: u64,
    /// When the object was created.
    pub creation_timestamp: Timestamp,
    /// When deletion was asked for; the object is gone when `finalizers` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Timestamp>,
    /// What must still happen before the object may go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<Name>,
    /// For selection.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Name, Name>,
    /// For everything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<Name, Name>,
    /// The objects that own this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

/// One stored object. Cloning copies the metadata and shares spec and status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// `quaymaster.dev/v1alpha1`, or `v1` for events.
    pub api_version: Name,
    /// Where it lives.
    pub key: ObjectKey,
    /// What the system keeps about it.
    pub meta: Meta,
    /// What is wanted, as the user wrote it. `Null` for kinds without a spec.
    pub spec: Arc<Value>,
    /// What is reported. `Null` when nothing was reported yet.
    #[serde(default)]
    pub status: Arc<Value>,
}

/// A stored spec or status that does not have the shape this release expects.
#[derive(Debug, thiserror::Error)]
#[error("the stored {part} of {key} cannot be read by this release")]
pub struct DecodeError {
    /// Which object.
    pub key: ObjectKey,
    /// `spec` or `status`.
    pub part: &'static str,
    /// What the decoder said.
    #[source]
    pub source: serde_json::Error,
}

impl Object {
    /// A new object of our own group with generation 1; uid and creation time are the caller's.
    pub fn new(key: ObjectKey, uid: impl Into<Name>, now: Timestamp, spec: Value) -> Self {
        Self {
            api_version: API_VERSION.into(),
            key,
            meta: Meta { uid: uid.into(), generation: 1, creation_timestamp: now, ..Meta::default() },
            spec: Arc::new(spec),
            status: Arc::new(Value::Null),
        }
    }

    /// Decodes the spec leniently: unknown keys are ignored, so that a release reads what its successor wrote.
    ///
    /// # Errors
    /// When the stored JSON does not fit `T`.
    pub fn decode_spec<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        T::deserialize(&*self.spec).map_err(|source| DecodeError { key: self.key.clone(), part: "spec", source })
    }

    /// Decodes the status leniently; `None` when nothing was reported yet.
    ///
    /// # Errors
    /// When the stored JSON does not fit `T`.
    pub fn decode_status<T: DeserializeOwned>(&self) -> Result<Option<T>, DecodeError> {
        if self.status.is_null() {
            return Ok(None);
        }
        T::deserialize(&*self.status).map(Some).map_err(|source| DecodeError { key: self.key.clone(), part: "status", source })
    }

    /// Whether deletion was asked for.
    pub fn is_deleting(&self) -> bool {
        self.meta.deletion_timestamp.is_some()
    }
}
