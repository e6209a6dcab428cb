//! Whether services may be used: answered from the published snapshot, with the version that the answer holds for. Apps, gateways and
//! people ask this; nothing here waits for anything.

use std::borrow::Cow;
use std::collections::BTreeSet;

use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::kinds::mini_container;
use qm_api::kinds::mini_service::KIND as SERVICE;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_plan::availability::NodeView;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::records;
use crate::run::Operator;

/// What a caller is told to wait before asking again, in seconds.
const RETRY_AFTER_SECONDS: u64 = 5;

/// Whether a service may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsableAnswer {
    /// Which service.
    pub service: Name,
    /// All that is told of it, as the text of a JSON object, but for the version.
    pub facts: String,
    /// The version that the facts hold for.
    pub version: String,
    /// Whether it may.
    pub usable: bool,
    /// After how long asking again makes sense; `None` when only a change can help.
    pub retry_after_seconds: Option<u64>,
}

/// The facts as they go over the wire. Written without a detour: this is what apps ask all day.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts<'a> {
    availability: Option<Availability>,
    blocked_by: Vec<Culprit<'a>>,
    blocked_operations: &'a BTreeSet<String>,
    message: &'a str,
    namespace: &'a Name,
    reason: Reason,
    retry_after: Option<u64>,
    service: &'a Name,
    severity: u8,
    stale: bool,
    usable: bool,
}

#[derive(Serialize)]
struct Culprit<'a> {
    availability: Availability,
    kind: &'a Name,
    name: &'a Name,
    namespace: &'a Name,
    path: Vec<&'a Name>,
    reason: Reason,
}

impl Operator {
    /// Whether a service may be used, or one operation of it; `None` = there is no such service.
    pub fn usable(&self, namespace: &str, name: &str, operation: Option<&str>) -> Option<UsableAnswer> {
        // A mini container answers for its children where no service has the name.
        let keys = [SERVICE, mini_container::KIND].map(|kind| ObjectKey::new(kind, namespace, name));
        let (node, blocked, version) = self.controller.world.told_of(keys)?;
        Some(answer(&node, operation, &blocked, self.is_changing(&node), &version))
    }

    /// Whether somebody holds the `change` of a service: what needs a change by a person says more.
    fn is_changing(&self, node: &NodeView) -> bool {
        node.off.is_none() && node.severity() <= 4 && self.controller.locks.is_changing(&node.key)
    }

    /// Whether each service of a namespace may be used, and each mini container whose name no service has, with the version that all of it
    /// holds for.
    pub fn usable_all(&self, namespace: &str) -> (String, Vec<UsableAnswer>) {
        let (snapshot, version) = self.controller.world.published();
        let answer = |node: &NodeView| {
            let blocked = self.controller.world.blocked_operations(&node.key);
            answer(node, None, &blocked, self.is_changing(node), &version)
        };
        let namespace = Name::from(namespace);
        let is_a_service = |name: &Name| snapshot.get(&ObjectKey::new(SERVICE, namespace.clone(), name.clone())).is_some();
        let parents = snapshot.of_namespace(mini_container::KIND, &namespace).filter(|node| !is_a_service(&node.key.name));
        let answers = snapshot.of_namespace(SERVICE, &namespace).chain(parents).map(|node| answer(node)).collect();
        (version, answers)
    }

    /// Tells whenever an answer of [`Operator::usable`] may be another one, or an app has something to do.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.controller.world.changes()
    }

    /// The reloads that apps of a namespace are to carry out for their parts.
    pub fn reloads(&self, namespace: &str) -> Vec<Value> {
        let snapshot = self.controller.store.snapshot();
        let namespace = Name::from(namespace);
        let records = snapshot.list(records::PENDING_RELOAD, Some(&namespace));
        let pending = |object: &std::sync::Arc<qm_api::meta::Object>| {
            let record = object.decode_spec::<records::PendingReloadRecord>().ok()?;
            let id = record.id?;
            Some(json!({ "service": object.key.name, "id": id, "verb": record.verb, "because": record.triggers }))
        };
        records.filter_map(pending).collect()
    }

    /// Namespaces in which somebody wants the app face.
    pub fn namespaces_with_faces(&self) -> std::collections::BTreeSet<Name> {
        self.controller.world.namespaces_with_faces()
    }
}

fn answer(node: &NodeView, operation: Option<&str>, blocked: &BTreeSet<String>, is_changing: bool, version: &str) -> UsableAnswer {
    let blocked_operation = operation.filter(|operation| blocked.contains(*operation));
    let usable = node.usable() && blocked_operation.is_none() && !is_changing;
    let hopeless = |a: Availability| a.severity() >= 5;
    let helps = !hopeless(node.availability) && !node.blocked_by.iter().any(|b| hopeless(b.availability)) && node.off.is_none();
    let retry_after_seconds = (!usable && helps).then_some(RETRY_AFTER_SECONDS);
    let blocked_by = node.blocked_by.iter().map(|b| Culprit {
        availability: b.availability,
        kind: &b.key.kind,
        name: &b.key.name,
        namespace: &b.key.namespace,
        path: b.path.iter().map(|hop| &hop.name).collect(),
        reason: b.reason,
    });
    let (reason, message) = match blocked_operation.filter(|_| node.usable()) {
        _ if is_changing => (Reason::Changing, Cow::Borrowed(node.message.as_str())),
        Some(operation) => (Reason::OperationBlocked, Cow::Owned(format!("the app says that `{operation}` cannot be done now"))),
        None => (node.off.unwrap_or(node.reason), Cow::Borrowed(node.message.as_str())),
    };
    let facts = Facts {
        availability: node.off.is_none().then_some(node.availability),
        blocked_by: blocked_by.collect(),
        blocked_operations: blocked,
        message: &message,
        namespace: &node.key.namespace,
        reason,
        retry_after: retry_after_seconds,
        service: &node.key.name,
        severity: node.severity(),
        stale: node.stale,
        usable,
    };
    let facts = serde_json::to_string(&facts).expect("facts are plain data");
    UsableAnswer { service: node.key.name.clone(), facts, version: version.to_owned(), usable, retry_after_seconds }
}
