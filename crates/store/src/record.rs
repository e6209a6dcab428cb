//! Owns how objects and the store's own records look as keys and values on disk. Nothing else knows these bytes.
//!
//! An object's key is `o` KIND NUL NAMESPACE NUL NAME, so that records sort as [`ObjectKey`] does; its value is JSON without the key.
//! The store's own records are `i` NAME.

use std::collections::BTreeSet;
use std::sync::Arc;

use qm_api::meta::{Meta, Object, ObjectKey};
use qm_api::name::Name;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backend::Records;

/// The format this release writes.
pub const FORMAT_VERSION: u64 = 1;

const OBJECT: u8 = b'o';
const INTERNAL: u8 = b'i';
const LEASE: &str = "lease/";

/// The address of one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RecordKey {
    /// The format version of all others.
    Format,
    /// The highest resource version that may have been given out.
    Ceiling,
    /// The last fencing token given out.
    Fence,
    /// One held lease.
    Lease(Name),
    /// One object.
    Object(ObjectKey),
}

/// A held lease as it is stored; when its term ends is known only to the process that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LeaseRecord {
    pub(crate) holder: Name,
    pub(crate) token: u64,
    pub(crate) term_ms: u64,
}

/// Everything that was stored, decoded.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) ceiling: u64,
    pub(crate) fence: u64,
    pub(crate) leases: Vec<(Name, LeaseRecord)>,
    pub(crate) objects: Vec<Arc<Object>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectOut<'a> {
    api_version: &'a Name,
    meta: &'a Meta,
    spec: &'a Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    status: &'a Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectIn {
    api_version: Name,
    meta: Meta,
    spec: Value,
    #[serde(default)]
    status: Value,
}

impl RecordKey {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Format => internal("format"),
            Self::Ceiling => internal("ceiling"),
            Self::Fence => internal("fence"),
            Self::Lease(name) => internal(&format!("{LEASE}{name}")),
            Self::Object(key) => {
                let mut bytes = Vec::with_capacity(3 + key.kind.len() + key.namespace.len() + key.name.len());
                bytes.push(OBJECT);
                bytes.extend_from_slice(key.kind.as_bytes());
                bytes.push(0);
                bytes.extend_from_slice(key.namespace.as_bytes());
                bytes.push(0);
                bytes.extend_from_slice(key.name.as_bytes());
                bytes
            }
        }
    }

    /// `None` when these are not the bytes of a key of this format.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&first, rest) = bytes.split_first()?;
        let text = std::str::from_utf8(rest).ok()?;
        match first {
            INTERNAL => match text {
                "format" => Some(Self::Format),
                "ceiling" => Some(Self::Ceiling),
                "fence" => Some(Self::Fence),
                _ => text.strip_prefix(LEASE).map(|name| Self::Lease(name.into())),
            },
            OBJECT => {
                let mut parts = text.split('\0');
                let key = ObjectKey::new(parts.next()?, parts.next()?, parts.next()?);
                (parts.next().is_none() && is_valid(&key)).then_some(Self::Object(key))
            }
            _ => None,
        }
    }
}

fn internal(name: &str) -> Vec<u8> {
    let mut bytes = vec![INTERNAL];
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

/// Whether a key can be stored: its parts are separated by NUL, and kind and name are given.
pub(crate) fn is_valid(key: &ObjectKey) -> bool {
    !key.kind.is_empty() && !key.name.is_empty() && [&key.kind, &key.namespace, &key.name].iter().all(|part| !part.contains('\0'))
}

pub(crate) fn encode_object(object: &Object) -> Vec<u8> {
    let Object { api_version, key: _, meta, spec, status } = object;
    encode(&ObjectOut { api_version, meta, spec, status })
}

pub(crate) fn encode_lease(lease: &LeaseRecord) -> Vec<u8> {
    encode(lease)
}

pub(crate) fn encode_number(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings, numbers and JSON values with string keys always serialize")
}

/// The number in a record of the store's own.
pub(crate) fn decode_number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

impl Contents {
    /// Decodes every record; the kinds, namespaces and API versions that repeat are shared.
    ///
    /// # Errors
    /// What cannot be read, in words.
    pub(crate) fn decode(records: Records) -> Result<Self, String> {
        let mut contents = Self::default();
        let mut shared = Interner::default();
        for (key, value) in records {
            let unreadable = || format!("the record `{}` cannot be read", key.escape_ascii());
            match RecordKey::decode(&key).ok_or_else(unreadable)? {
                // Judged before anything else is decoded.
                RecordKey::Format => {}
                RecordKey::Ceiling => contents.ceiling = decode_number(&value).ok_or_else(unreadable)?,
                RecordKey::Fence => contents.fence = decode_number(&value).ok_or_else(unreadable)?,
                RecordKey::Lease(name) => {
                    let lease = serde_json::from_slice(&value).map_err(|error| format!("{}: {error}", unreadable()))?;
                    contents.leases.push((name, lease));
                }
                RecordKey::Object(key) => {
                    let stored: ObjectIn = serde_json::from_slice(&value).map_err(|error| format!("{}: {error}", unreadable()))?;
                    contents.objects.push(Arc::new(Object {
                        api_version: shared.share(stored.api_version),
                        key: ObjectKey { kind: shared.share(key.kind), namespace: shared.share(key.namespace), name: key.name },
                        meta: stored.meta,
                        spec: Arc::new(stored.spec),
                        status: Arc::new(stored.status),
                    }));
                }
            }
        }
        contents.check()?;
        Ok(contents)
    }

    /// No object can have a version that was never given out.
    fn check(&self) -> Result<(), String> {
        match self.objects.iter().find(|object| object.meta.resource_version > self.ceiling) {
            Some(object) => {
                Err(format!("{} has version {}, but only {} were given out", object.key, object.meta.resource_version, self.ceiling))
            }
            None => Ok(()),
        }
    }
}

#[derive(Default)]
struct Interner(BTreeSet<Name>);

impl Interner {
    fn share(&mut self, name: Name) -> Name {
        match self.0.get(&name) {
            Some(known) => known.clone(),
            None => {
                self.0.insert(name.clone());
                name
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_sort_as_the_keys_they_stand_for() {
        let keys = [
            RecordKey::Format,
            RecordKey::Ceiling,
            RecordKey::Fence,
            RecordKey::Lease("change/MiniService/ns/a".into()),
            RecordKey::Object(ObjectKey::new("Network", "", "edge")),
            RecordKey::Object(ObjectKey::new("Network", "a", "b")),
        ];
        for key in keys {
            assert_eq!(RecordKey::decode(&key.encode()).as_ref(), Some(&key));
        }
        let mut objects: Vec<ObjectKey> =
            [("B", "a", "c"), ("A", "", "z"), ("A", "a-b", "c"), ("A", "a", "d"), ("AB", "", "c"), ("A", "ab", "a")]
                .iter()
                .map(|(kind, namespace, name)| ObjectKey::new(*kind, *namespace, *name))
                .collect();
        let mut encoded: Vec<Vec<u8>> = objects.iter().cloned().map(|key| RecordKey::Object(key).encode()).collect();
        objects.sort();
        encoded.sort();
        let decoded: Vec<_> = encoded.iter().map(|bytes| RecordKey::decode(bytes).unwrap()).collect();
        assert_eq!(decoded, objects.into_iter().map(RecordKey::Object).collect::<Vec<_>>());
    }

    #[test]
    fn foreign_bytes_are_no_keys() {
        for bytes in [&b""[..], b"x", b"iunheard", b"oA", b"oA\0b", b"oA\0b\0c\0d", b"o\0b\0c", b"oA\0b\0", b"o\xff\0b\0c"] {
            assert_eq!(RecordKey::decode(bytes), None, "{}", bytes.escape_ascii());
        }
    }
}
