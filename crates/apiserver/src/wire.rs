//! Owns the way from a stored [`Object`] to Kubernetes JSON. Objects are written without copying their spec or status.

use std::collections::BTreeMap;

use qm_api::meta::{Object, OwnerReference};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::accept::MetaVersion;

/// The annotation with the id of the source that an object comes from; who admits files sets it.
pub const SOURCE_ANNOTATION: &str = "quaymaster.dev/source";
/// The annotation with the path of the file, within its source, that an object comes from.
pub const FILE_ANNOTATION: &str = "quaymaster.dev/source-path";

/// The kind of events, whose fields stand at the top.
pub(crate) const EVENT: &str = "Event";

/// An object as Kubernetes clients know it.
pub fn to_wire(object: &Object) -> Value {
    serde_json::to_value(Whole(object)).unwrap_or_default()
}

/// Writes `metadata`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    resource_version: String,
    #[serde(skip_serializing_if = "is_zero")]
    generation: u64,
    creation_timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_timestamp: Option<String>,
    #[serde(skip_serializing_if = "<[Name]>::is_empty")]
    finalizers: &'a [Name],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<Name, Name>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<Name, Name>,
    #[serde(skip_serializing_if = "<[OwnerReference]>::is_empty")]
    owner_references: &'a [OwnerReference],
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> Metadata<'a> {
    pub(crate) fn of(object: &'a Object) -> Self {
        let meta = &object.meta;
        Self {
            name: &object.key.name,
            namespace: &object.key.namespace,
            uid: &meta.uid,
            resource_version: meta.resource_version.to_string(),
            generation: meta.generation,
            creation_timestamp: meta.creation_timestamp.to_seconds_string(),
            deletion_timestamp: meta.deletion_timestamp.map(Timestamp::to_seconds_string),
            finalizers: &meta.finalizers,
            labels: &meta.labels,
            annotations: &meta.annotations,
            owner_references: &meta.owner_references,
        }
    }
}

/// Writes a whole object.
pub(crate) struct Whole<'a>(pub(crate) &'a Object);

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("apiVersion", &object.api_version)?;
        map.serialize_entry("kind", &object.key.kind)?;
        map.serialize_entry("metadata", &Metadata::of(object))?;
        if object.key.kind == EVENT {
            for (key, value) in object.spec.as_object().into_iter().flatten() {
                if let Some(value) = event_field(key, value) {
                    map.serialize_entry(key, &value)?;
                }
            }
            return map.end();
        }
        if !object.spec.is_null() {
            map.serialize_entry("spec", &*object.spec)?;
        }
        if !object.status.is_null() {
            map.serialize_entry("status", &*object.status)?;
        }
        map.end()
    }
}

/// A field of an event as clients can read it: one time in the wrong form makes all events vanish in kubectl.
fn event_field(key: &str, value: &Value) -> Option<Value> {
    match key {
        "apiVersion" | "kind" | "metadata" => None,
        "firstTimestamp" | "lastTimestamp" => time(value).map(|time| time.to_seconds_string().into()),
        "eventTime" => time(value).map(|time| time.to_string().into()),
        "series" => {
            let mut series = value.as_object()?.clone();
            if let Some(last) = series.remove("lastObservedTime").as_ref().and_then(time) {
                series.insert("lastObservedTime".to_owned(), last.to_string().into());
            }
            Some(series.into())
        }
        _ => Some(value.clone()),
    }
}

fn time(value: &Value) -> Option<Timestamp> {
    Timestamp::parse(value.as_str()?).ok()
}

/// Writes the metadata of an object alone.
pub(crate) struct Partial<'a>(pub(crate) &'a Object, pub(crate) MetaVersion);

impl Serialize for Partial<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("kind", "PartialObjectMetadata")?;
        map.serialize_entry("apiVersion", self.1.api_version())?;
        map.serialize_entry("metadata", &Metadata::of(self.0))?;
        map.end()
    }
}

/// Writes the `metadata` of a list or table.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListMeta {
    pub(crate) resource_version: String,
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remaining_item_count: Option<usize>,
}

/// Writes a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List<T> {
    pub(crate) kind: String,
    pub(crate) api_version: String,
    pub(crate) metadata: ListMeta,
    pub(crate) items: Vec<T>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use qm_api::meta::ObjectKey;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn an_object_has_all_of_its_metadata_and_no_null_parts() {
        let now = Timestamp::parse("2026-11-22T10:00:00.123456Z").unwrap();
        let mut object = Object::new(ObjectKey::new("MiniService", "shop", "db"), "u-1", now, json!({"a": null}));
        object.meta.resource_version = 7;
        object.meta.deletion_timestamp = Some(now);
        object.meta.finalizers = vec!["quaymaster.dev/cleanup".into()];
        object.meta.labels = [("tier".into(), "data".into())].into();
        object.meta.owner_references =
            vec![OwnerReference { api_version: "v1".into(), kind: "MiniContainer".into(), name: "x".into(), uid: "u".into() }];
        assert_eq!(
            to_wire(&object),
            json!({
                "apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniService",
                "metadata": {
                    "name": "db", "namespace": "shop", "uid": "u-1", "resourceVersion": "7", "generation": 1,
                    "creationTimestamp": "2026-11-22T10:00:00Z", "deletionTimestamp": "2026-11-22T10:00:00Z",
                    "finalizers": ["quaymaster.dev/cleanup"], "labels": {"tier": "data"},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "MiniContainer", "name": "x", "uid": "u"}],
                },
                "spec": {"a": null},
            })
        );
    }

    #[test]
    fn the_fields_of_an_event_stand_at_the_top_with_times_that_clients_can_read() {
        let spec = json!({
            "reason": "Started", "type": "Normal", "kind": "Lie", "metadata": {"name": "lie"}, "count": 2,
            "firstTimestamp": "2026-11-22T10:00:00.5Z", "lastTimestamp": "yesterday", "eventTime": "2026-11-22T10:00:00Z",
            "series": {"count": 2, "lastObservedTime": "2026-11-22T10:00:00.123456789Z"},
        });
        let mut event = Object::new(ObjectKey::new("Event", "shop", "e"), "u", Timestamp::default(), spec);
        event.api_version = "v1".into();
        event.status = Arc::new(json!({"never": "shown"}));
        assert_eq!(
            to_wire(&event),
            json!({
                "apiVersion": "v1", "kind": "Event",
                "metadata": {"name": "e", "namespace": "shop", "uid": "u", "resourceVersion": "0", "generation": 1, "creationTimestamp": "1970-01-01T00:00:00Z"},
                "reason": "Started", "type": "Normal", "count": 2, "firstTimestamp": "2026-11-22T10:00:00Z",
                "eventTime": "2026-11-22T10:00:00.000000Z", "series": {"count": 2, "lastObservedTime": "2026-11-22T10:00:00.123456Z"},
            })
        );
    }
}
