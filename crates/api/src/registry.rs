//! The one closed table of kinds: names, scope, columns, schemas, status. Whoever handles objects of any kind asks here; adding a
//! kind is a file in `kinds` and an entry in this table. Never put behaviour here that belongs to a single kind.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde::Deserialize;
use serde_json::Value;

use crate::field::{FieldPath, Problem};
use crate::kinds::mini_container::{MiniContainer, MiniContainerSpec, MiniContainerStatus};
use crate::kinds::mini_service::{MiniService, MiniServiceSpec, MiniServiceStatus};
use crate::kinds::network::{Network, NetworkSpec, NetworkStatus};
use crate::kinds::{intent, mini_container, mini_service, network};
use crate::meta::{DecodeError, GROUP, Object, VERSION};
use crate::schema::{self, Shape};

/// Who may see and write a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// Declared by users in manifests and over the API.
    User,
    /// Served, never written over the API as an object.
    ReadOnly,
    /// Kept in the store and served to nobody.
    Internal,
}

/// What a column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// An instant, shown as an age.
    Date,
}

impl ColumnType {
    /// The word of Kubernetes for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Date => "date",
        }
    }
}

/// One column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its heading.
    pub name: &'static str,
    /// Where its value is in the object, e.g. `.status.level`.
    pub path: &'static str,
    /// What it shows.
    pub kind: ColumnType,
    /// 0: always shown; 1: only in wide tables.
    pub priority: i32,
    /// What it means.
    pub description: &'static str,
}

/// What is fixed about a kind.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The kind in PascalCase.
    pub kind: &'static str,
    /// The plural in URLs.
    pub plural: &'static str,
    /// The singular on the command line.
    pub singular: &'static str,
    /// Short names on the command line.
    pub short_names: &'static [&'static str],
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The API version.
    pub version: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// The categories it is in.
    pub categories: &'static [&'static str],
    /// Who may see and write it.
    pub face: Face,
    /// What it is.
    pub description: &'static str,
    /// The columns of its tables, after NAME.
    pub columns: &'static [Column],
    /// The schema of its spec.
    pub schema: Option<fn() -> Value>,
    /// The schema of its status.
    pub status: Option<fn() -> Value>,
    /// Its CRD.
    pub crd: Option<fn() -> CustomResourceDefinition>,
}

impl Kind {
    /// `group/version`, or the version alone in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

const fn column(name: &'static str, path: &'static str, kind: ColumnType, priority: i32, description: &'static str) -> Column {
    Column { name, path, kind, priority, description }
}

const AGE: Column = column("AGE", ".metadata.creationTimestamp", ColumnType::Date, 0, "Time since it was created.");

const MINI_SERVICE_COLUMNS: &[Column] = &[
    column("LEVEL", ".status.level", ColumnType::Integer, 0, "Its level in the dependency graph; 0 needs nothing."),
    column("AVAILABILITY", ".status.availability", ColumnType::String, 0, "How available it is."),
    column("USABLE", ".status.usable", ColumnType::Boolean, 0, "Whether it may be used now."),
    column("REASON", ".status.reason", ColumnType::String, 0, "Why."),
    AGE,
    column("LOCK", ".status.lock.mode", ColumnType::String, 1, "Whether it is used or changed under a lock."),
    column("IMAGE", ".spec.container.image", ColumnType::String, 1, "The image."),
    column("REPLICAS", ".status.replicas.healthy", ColumnType::Integer, 1, "How many containers are healthy."),
    column("REVISION", ".status.revision", ColumnType::Integer, 1, "The revision that is wanted."),
    column("MESSAGE", ".status.message", ColumnType::String, 1, "Why, for people."),
];

const MINI_CONTAINER_COLUMNS: &[Column] = &[
    column("LEVEL", ".status.level", ColumnType::Integer, 0, "Its level in the dependency graph, above its children."),
    column("AVAILABILITY", ".status.availability", ColumnType::String, 0, "How available its children are together."),
    column("USABLE", ".status.usable", ColumnType::Boolean, 0, "Whether it may be used now."),
    column("CHILDREN", ".status.children.summary", ColumnType::String, 0, "How many of its enabled children may be used."),
    column("REASON", ".status.reason", ColumnType::String, 0, "Why."),
    AGE,
    column("MESSAGE", ".status.message", ColumnType::String, 1, "Why, for people."),
];

const NETWORK_COLUMNS: &[Column] = &[
    column("ZONE", ".spec.zone", ColumnType::String, 0, "The zone of its members."),
    column("SUBNET", ".spec.subnet", ColumnType::String, 0, "The address range, where one is fixed."),
    column("READY", ".status.conditions[?(@.type==\"Ready\")].status", ColumnType::String, 0, "Whether it is there as wanted."),
    AGE,
    column("ENGINE-NAME", ".status.engineName", ColumnType::String, 1, "Its name on the engine."),
    column("REVISION", ".status.revision", ColumnType::Integer, 1, "Its revision."),
];

const INTENT_COLUMNS: &[Column] = &[
    column("ACT", ".spec.act", ColumnType::String, 0, "What was asked for."),
    column("ACTOR", ".spec.actor", ColumnType::String, 0, "Who asked."),
    column("OBJECT", ".spec.scope.name", ColumnType::String, 0, "What it applies to."),
    column("UNTIL", ".spec.until", ColumnType::String, 0, "When it ends by itself."),
    AGE,
    column("REASON", ".spec.reason", ColumnType::String, 1, "Why, in the actor's words."),
];

const EVENT_COLUMNS: &[Column] = &[
    column("LAST SEEN", ".lastTimestamp", ColumnType::Date, 0, "When it was last seen."),
    column("TYPE", ".type", ColumnType::String, 0, "Normal or Warning."),
    column("REASON", ".reason", ColumnType::String, 0, "Why, for programs."),
    column("OBJECT", ".involvedObject.name", ColumnType::String, 0, "What it is about."),
    column("MESSAGE", ".message", ColumnType::String, 0, "What happened."),
];

const CATEGORY: &[&str] = &["quaymaster"];

const fn internal(kind: &'static str, plural: &'static str, singular: &'static str, description: &'static str) -> Kind {
    Kind {
        kind,
        plural,
        singular,
        short_names: &[],
        group: GROUP,
        version: VERSION,
        namespaced: true,
        categories: &[],
        face: Face::Internal,
        description,
        columns: &[AGE],
        schema: None,
        status: None,
        crd: None,
    }
}

const TABLE: &[Kind] = &[
    Kind {
        kind: mini_service::KIND,
        plural: "miniservices",
        singular: "miniservice",
        short_names: &["msvc"],
        group: GROUP,
        version: VERSION,
        namespaced: true,
        categories: CATEGORY,
        face: Face::User,
        description: "One node of the dependency graph: a container, an external service, a part of an app, or a job.",
        columns: MINI_SERVICE_COLUMNS,
        schema: Some(schema::of::<MiniServiceSpec>),
        status: Some(schema::of::<MiniServiceStatus>),
        crd: Some(MiniService::crd),
    },
    Kind {
        kind: mini_container::KIND,
        plural: "minicontainers",
        singular: "minicontainer",
        short_names: &["mctr"],
        group: GROUP,
        version: VERSION,
        namespaced: true,
        categories: CATEGORY,
        face: Face::User,
        description: "The parent of a set of mini services, chosen by labels or made from a template and a list.",
        columns: MINI_CONTAINER_COLUMNS,
        schema: Some(mini_container_schema),
        status: Some(schema::of::<MiniContainerStatus>),
        crd: Some(MiniContainer::crd),
    },
    Kind {
        kind: network::KIND,
        plural: "networks",
        singular: "network",
        short_names: &["qnet"],
        group: GROUP,
        version: VERSION,
        namespaced: true,
        categories: CATEGORY,
        face: Face::User,
        description: "A Docker network and its zone.",
        columns: NETWORK_COLUMNS,
        schema: Some(schema::of::<NetworkSpec>),
        status: Some(schema::of::<NetworkStatus>),
        crd: Some(Network::crd),
    },
    Kind {
        kind: intent::KIND,
        plural: "intents",
        singular: "intent",
        short_names: &[],
        group: GROUP,
        version: VERSION,
        namespaced: true,
        categories: &[],
        face: Face::ReadOnly,
        description: "An act of a person: suspend, resume, approve, retry, restart and the like. Made by actions.",
        columns: INTENT_COLUMNS,
        schema: Some(schema::of::<intent::IntentSpec>),
        status: None,
        crd: None,
    },
    Kind {
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        group: "",
        version: "v1",
        namespaced: true,
        categories: &[],
        face: Face::ReadOnly,
        description: "Something that happened to an object.",
        columns: EVENT_COLUMNS,
        schema: None,
        status: None,
        crd: None,
    },
    internal("Revision", "revisions", "revision", "A resolved create body of a service."),
    internal("Lease", "leases", "lease", "A lock with a fencing token."),
    internal("Epoch", "epochs", "epoch", "What a node has lived through: losses ended, revisions rolled out."),
    internal("PendingReload", "pendingreloads", "pendingreload", "A reload that was begun and is not seen to be done."),
    internal("Reloads", "reloadmemories", "reloadmemory", "What a service has reacted to of its dependencies."),
    internal("Stopped", "stoppedworkloads", "stoppedworkload", "Containers that were stopped for a lost dependency."),
    internal("JobResults", "jobrecords", "jobrecord", "What a job has run, and what came of it."),
    internal("Attachment", "attachments", "attachment", "The content of a file that a manifest refers to."),
];

/// The schema of a mini container, with that of what its template makes in its place.
fn mini_container_schema() -> Value {
    let mut own = schema::of::<MiniContainerSpec>();
    if let Some(spec) = own.pointer_mut("/properties/template/properties/spec") {
        *spec = schema::of::<MiniServiceSpec>();
    }
    own
}

/// All kinds, in a fixed order.
pub fn all() -> impl Iterator<Item = &'static Kind> {
    TABLE.iter()
}

/// The kind with this name in PascalCase.
pub fn by_kind(kind: &str) -> Option<&'static Kind> {
    TABLE.iter().find(|entry| entry.kind == kind)
}

/// The kind with this plural.
pub fn by_plural(plural: &str) -> Option<&'static Kind> {
    TABLE.iter().find(|entry| entry.plural == plural)
}

/// The kind that a person means by `word`: plural, singular or short name, or the kind in any case.
pub fn by_short(word: &str) -> Option<&'static Kind> {
    TABLE.iter().find(|entry| {
        [entry.plural, entry.singular, entry.kind].iter().chain(entry.short_names).any(|name| name.eq_ignore_ascii_case(word))
    })
}

/// The kinds that users declare.
pub fn user_kinds() -> impl Iterator<Item = &'static Kind> {
    TABLE.iter().filter(|entry| entry.face == Face::User)
}

/// The compiled schema of the spec of a user's kind.
pub fn shape(kind: &str) -> Option<&'static Shape> {
    static SHAPES: LazyLock<BTreeMap<&'static str, Shape>> =
        LazyLock::new(|| user_kinds().filter_map(|kind| Some((kind.kind, Shape::compile(&(kind.schema?)())))).collect());
    SHAPES.get(kind)
}

/// The typed spec of an object of a user's kind.
#[derive(Clone, Debug, PartialEq)]
pub enum AnySpec {
    /// Of a mini service.
    MiniService(Box<MiniServiceSpec>),
    /// Of a mini container.
    MiniContainer(Box<MiniContainerSpec>),
    /// Of a network.
    Network(Box<NetworkSpec>),
}

impl AnySpec {
    /// Decodes the spec of a user's kind; `None` for all other kinds.
    pub fn from_value(kind: &str, spec: &Value) -> Option<Result<Self, serde_json::Error>> {
        match kind {
            mini_service::KIND => Some(MiniServiceSpec::deserialize(spec).map(|spec| Self::MiniService(Box::new(spec)))),
            mini_container::KIND => Some(MiniContainerSpec::deserialize(spec).map(|spec| Self::MiniContainer(Box::new(spec)))),
            network::KIND => Some(NetworkSpec::deserialize(spec).map(|spec| Self::Network(Box::new(spec)))),
            _ => None,
        }
    }

    /// What is wrong with it beyond its schema.
    pub fn validate(&self, at: &FieldPath) -> Vec<Problem> {
        match self {
            Self::MiniService(spec) => mini_service::validate(spec, at),
            Self::MiniContainer(spec) => mini_container::validate(spec, at),
            Self::Network(spec) => network::validate(spec, at),
        }
    }
}

/// Decodes the spec of a stored object, leniently.
///
/// # Errors
/// When the kind has no typed spec, or the stored JSON does not fit it.
pub fn decode(object: &Object) -> Result<AnySpec, DecodeError> {
    let result = AnySpec::from_value(&object.key.kind, &object.spec)
        .unwrap_or_else(|| Err(serde::de::Error::custom(format!("{} has no typed spec", object.key.kind))));
    result.map_err(|source| DecodeError { key: object.key.clone(), part: "spec", source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_agree_with_the_derived_ones() {
        let mut seen = BTreeSet::new();
        for kind in all() {
            for name in [kind.plural, kind.kind].iter().chain(kind.short_names) {
                assert!(seen.insert(name.to_lowercase()) || *name == kind.singular, "{name}");
                assert_eq!(by_short(name).map(|found| found.kind), Some(kind.kind));
            }
            let Some(crd) = kind.crd.map(|crd| crd()) else { continue };
            assert_eq!(crd.spec.names.kind, kind.kind);
            assert_eq!(crd.spec.names.plural, kind.plural);
            assert_eq!(crd.spec.names.singular.as_deref(), Some(kind.singular));
            assert_eq!(crd.spec.names.short_names.unwrap_or_default(), kind.short_names);
            assert_eq!(crd.spec.names.categories.unwrap_or_default(), kind.categories);
            assert_eq!((crd.spec.group.as_str(), crd.spec.versions[0].name.as_str()), (kind.group, kind.version));
            assert_eq!(crd.spec.scope == "Namespaced", kind.namespaced);
        }
    }
}
