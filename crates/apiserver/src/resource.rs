//! Owns reading: which objects a request selects, get, and lists in pages that are pinned to one state of the store.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use qm_api::meta::{Object, ObjectKey};
use qm_api::registry::Kind;
use qm_store::Snapshot;
use tokio::time::Instant;

use crate::accept::Form;
use crate::app::{App, json};
use crate::namespaces::{self, NAMESPACE};
use crate::page::Token;
use crate::query::Query;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::{Failure, Reason};
use crate::table::{Include, Style};
use crate::wire::{List, ListMeta, Partial, Whole};

/// Which objects are meant.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// # Errors
    /// When a selector cannot be read, or names a field that nothing is selected by.
    pub(crate) fn read(kind: &'static Kind, namespace: Option<String>, query: &Query) -> Result<Self, Failure> {
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default());
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default(), kind);
        let bad = |error: crate::selector::SelectorError| Failure::bad_request(error.to_string());
        Ok(Self { kind, namespace, labels: labels.map_err(bad)?, fields: fields.map_err(bad)? })
    }

    /// Of those, the one with this name.
    #[must_use]
    pub(crate) fn with_name(mut self, name: &str) -> Self {
        self.fields = self.fields.with_name(name);
        self
    }

    /// Whether every object of the kind and namespace is meant.
    fn is_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        object.key.kind == self.kind.kind
            && self.namespace.as_ref().is_none_or(|namespace| object.key.namespace == namespace.as_str())
            && self.fields.matches(object)
            && self.labels.matches(&object.meta.labels)
    }

    /// The objects that are meant, by namespace and name.
    pub(crate) fn objects<'a>(&'a self, snapshot: &'a Snapshot) -> Box<dyn Iterator<Item = Arc<Object>> + 'a> {
        if self.kind.kind == NAMESPACE.kind {
            return Box::new(namespaces::all(snapshot).into_iter().filter(|object| self.matches(object)));
        }
        let objects = snapshot.list(self.kind.kind, self.namespace.as_deref());
        Box::new(objects.filter(|object| self.matches(object)).cloned())
    }
}

/// One object by name.
pub(crate) fn find(snapshot: &Snapshot, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Object>> {
    if kind.kind == NAMESPACE.kind {
        return namespaces::all(snapshot).into_iter().find(|object| object.key.name == name);
    }
    snapshot.get(&ObjectKey::new(kind.kind, namespace, name)).cloned()
}

/// Answers a GET of one object.
pub(crate) fn get(app: &App, kind: &'static Kind, namespace: &str, name: &str, form: Form, query: &Query) -> Result<Response, Failure> {
    let object = find(&app.store.snapshot(), kind, namespace, name).ok_or_else(|| Failure::no_such_object(kind, name))?;
    Ok(match form {
        Form::Object => json(StatusCode::OK, &Whole(&object)),
        Form::Partial(version) => json(StatusCode::OK, &Partial(&object, version)),
        Form::Table(version) => {
            let style = Style { kind, version, include: Include::parse(query.get("includeObject"))? };
            let metadata = ListMeta { resource_version: object.meta.resource_version.to_string(), ..ListMeta::default() };
            json(StatusCode::OK, &style.table(metadata, [&*object], (app.ports.now)()))
        }
    })
}

/// Answers a GET of a collection.
pub(crate) fn list(app: &App, selection: &Selection, form: Form, query: &Query) -> Result<Response, Failure> {
    let limit = query.number("limit")?.filter(|limit| *limit > 0).map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let token = query.get("continue").map(Token::decode).transpose()?;
    let view = view(app, token.as_ref(), query)?;
    let page = page(app, selection, &view, token.as_ref(), limit);
    let metadata = page.metadata;
    Ok(match form {
        Form::Object => {
            let kind = format!("{}List", selection.kind.kind);
            let items = page.objects.iter().map(|object| Whole(object)).collect();
            json(StatusCode::OK, &List { kind, api_version: selection.kind.api_version(), metadata, items })
        }
        Form::Partial(version) => {
            let items = page.objects.iter().map(|object| Partial(object, version)).collect();
            let (kind, api_version) = ("PartialObjectMetadataList".to_owned(), version.api_version().to_owned());
            json(StatusCode::OK, &List { kind, api_version, metadata, items })
        }
        Form::Table(version) => {
            let style = Style { kind: selection.kind, version, include: Include::parse(query.get("includeObject"))? };
            json(StatusCode::OK, &style.table(metadata, page.objects.iter().map(|object| &**object), (app.ports.now)()))
        }
    })
}

struct Page {
    objects: Vec<Arc<Object>>,
    metadata: ListMeta,
}

fn page(app: &App, selection: &Selection, view: &Snapshot, token: Option<&Token>, limit: Option<usize>) -> Page {
    let version = view.resource_version();
    let mut rest = selection.objects(view).skip_while(|object| token.is_some_and(|token| !token.is_before(&object.key)));
    let objects: Vec<_> = rest.by_ref().take(limit.unwrap_or(usize::MAX)).collect();
    let mut metadata = ListMeta { resource_version: version.to_string(), ..ListMeta::default() };
    if let (Some(_), Some(last)) = (rest.next(), objects.last()) {
        app.views.keep(view, Instant::now());
        metadata.next = Some(Token::after(version, &last.key).encode());
        metadata.remaining_item_count = selection.is_all().then(|| rest.count() + 1);
    }
    Page { objects, metadata }
}

/// The state that a list shows.
fn view(app: &App, token: Option<&Token>, query: &Query) -> Result<Snapshot, Failure> {
    let wanted = query.number("resourceVersion")?;
    let matching = query.get("resourceVersionMatch");
    let current = app.store.snapshot();
    if let Some(token) = token {
        if wanted.is_some_and(|version| version != 0) || matching.is_some() {
            return Err(Failure::bad_request("specifying resource version is not allowed when using continue"));
        }
        return exactly(app, current, token.version());
    }
    match (matching, wanted) {
        (None | Some("NotOlderThan"), Some(version)) if version > current.resource_version() => Err(too_new(version, &current)),
        (None, _) | (Some("NotOlderThan"), Some(_)) => Ok(current),
        (Some("Exact"), Some(version)) if version != 0 => exactly(app, current, version),
        (Some("Exact"), Some(_)) => Err(Failure::invalid_option("resourceVersionMatch", "Exact needs a resourceVersion that is not 0")),
        (Some(_), None) => Err(Failure::invalid_option("resourceVersionMatch", "forbidden unless resourceVersion is given")),
        (Some(other), _) => Err(Failure::invalid_option("resourceVersionMatch", format!("`{other}` is neither Exact nor NotOlderThan"))),
    }
}

fn exactly(app: &App, current: Snapshot, version: u64) -> Result<Snapshot, Failure> {
    if version == current.resource_version() {
        return Ok(current);
    }
    let gone = || Failure::expired(format!("the state of resource version {version} is not kept any more: list again without it"));
    app.views.find(version, Instant::now()).ok_or_else(gone)
}

fn too_new(version: u64, current: &Snapshot) -> Failure {
    let newest = current.resource_version();
    Failure::expired(format!("too large resource version: {version}, current: {newest}: list again without it"))
}

/// Answers everything that would write an object of a kind that is not written over the API.
pub(crate) fn refuse_write(app: &App, kind: &'static Kind, namespace: &str, name: Option<&str>) -> Failure {
    use qm_api::registry::Face;
    if kind.face != Face::User {
        let how = match kind.kind {
            "Intent" => "intents are made by actions: POST .../miniservices/NAME/ACTION or .../actions/ACTION",
            "Namespace" => "a namespace is there while an object is in it",
            _ => "objects of this kind are made by the operator",
        };
        return Failure::wrong_method("GET", format!("{} cannot be written: {how}", kind.plural)).about(kind.group, kind.plural, "");
    }
    let object = name.and_then(|name| find(&app.store.snapshot(), kind, namespace, name));
    let annotation = |object: &Object, key: &str| object.meta.annotations.get(key).map(|text| text.as_str().to_owned());
    let place = object.as_ref().and_then(|object| {
        let (source, file) = (annotation(object, crate::wire::SOURCE_ANNOTATION)?, annotation(object, crate::wire::FILE_ANNOTATION)?);
        Some((object, source, file))
    });
    match place {
        Some((object, source, file)) => {
            let (plural, name) = (kind.plural, &object.key.name);
            let message = format!(
                "specs of objects come from files: `{plural}/{name}` of namespace `{namespace}` stands in {source}: {file}; change it there"
            );
            Failure::new(Reason::Forbidden, message).about(kind.group, plural, name)
        }
        None => {
            let message = "specs of objects come from files: write a manifest into a folder that the operator reads";
            Failure::wrong_method("GET", message).about(kind.group, kind.plural, name.unwrap_or_default())
        }
    }
}
