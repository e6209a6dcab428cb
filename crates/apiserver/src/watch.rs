//! Owns watches: one JSON line an event, over the store's change log.
//!
//! What clients rely on (each has a test): without a version, or with 0, the present state comes first as ADDED; with
//! `sendInitialEvents` a bookmark with the annotation `k8s.io/initial-events-end` follows it; bookmarks go only to who asked for them;
//! an object that enters the selection is ADDED and one that leaves it is DELETED; a version that is no longer known gets an ERROR with
//! code 410 *within* a stream that began with 200; the headers go out before any event.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use qm_api::meta::Object;
use qm_store::{Batch, Change, ChangeKind, Expired, Watch};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::accept::Form;
use crate::app::{App, with_type};
use crate::namespaces::{Census, NAMESPACE};
use crate::query::Query;
use crate::resource::Selection;
use crate::status::Failure;
use crate::table::{Include, Style};
use crate::wire::{ListMeta, Partial, Whole};

/// How often who asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How much of the present state goes out at once.
const CHUNK: usize = 64 * 1024;
/// The longest time limit that a client can set.
const LONGEST_SECONDS: u64 = 366 * 86_400;
/// The annotation of the bookmark after the present state.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Answers a watch.
///
/// # Errors
/// When a parameter cannot be read, or too many streams are open. A version that is not known is no such error: that comes in the stream.
pub(crate) fn start(
    app: &Arc<App>,
    selection: Selection,
    form: Form,
    query: &Query,
    closing: CancellationToken,
) -> Result<Response, Failure> {
    let wanted = Wanted::read(query)?;
    let encoder = Encoder::new(&selection, form, query)?;
    let place = app.stream_place()?;
    let now = Instant::now();
    let feed = Feed {
        phase: Phase::begin(app, &selection, &wanted),
        app: Arc::clone(app),
        selection,
        encoder,
        bookmarks: wanted.bookmarks,
        next_bookmark: now + BOOKMARK_EVERY,
        deadline: wanted.timeout.map(|timeout| now + timeout),
        closing,
        _place: place,
    };
    let lines =
        stream::unfold(feed, |mut feed| async move { feed.next().await.map(|chunk| (Ok::<_, std::convert::Infallible>(chunk), feed)) });
    let mut response = with_type(StatusCode::OK, "application/json", Body::from_stream(lines));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// What the parameters ask for.
struct Wanted {
    /// `None` for any version.
    version: Option<u64>,
    initial_events: Option<bool>,
    bookmarks: bool,
    timeout: Option<Duration>,
}

impl Wanted {
    fn read(query: &Query) -> Result<Self, Failure> {
        if let Some(other) = query.get("resourceVersionMatch").filter(|text| *text != "NotOlderThan") {
            return Err(Failure::invalid_option("resourceVersionMatch", format!("`{other}` is not for watches: only NotOlderThan is")));
        }
        let timeout = query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
        Ok(Self {
            version: query.number("resourceVersion")?.filter(|version| *version > 0),
            initial_events: query.flag("sendInitialEvents"),
            bookmarks: query.is_on("allowWatchBookmarks"),
            timeout: timeout.map(|seconds| Duration::from_secs(seconds.min(LONGEST_SECONDS))),
        })
    }
}

/// A watch on its way.
struct Feed {
    phase: Phase,
    app: Arc<App>,
    selection: Selection,
    encoder: Encoder,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Option<Instant>,
    closing: CancellationToken,
    _place: OwnedSemaphorePermit,
}

enum Phase {
    /// The present state goes out.
    Initial {
        rest: std::vec::IntoIter<Arc<Object>>,
        end: Option<u64>,
        then: Result<Live, Failure>,
    },
    /// Changes go out.
    Live(Live),
    /// An error goes out, and nothing after it.
    Failed(Failure),
    Done,
}

struct Live {
    watch: Watch,
    /// For watches on namespaces, which are no objects of the store.
    census: Option<Census>,
}

impl Phase {
    fn begin(app: &App, selection: &Selection, wanted: &Wanted) -> Self {
        let snapshot = app.store.snapshot();
        let newest = snapshot.resource_version();
        match (wanted.version, wanted.initial_events) {
            (Some(version), _) if version > newest => Self::Failed(too_large(version, newest)),
            (Some(version), None | Some(false)) => match Live::after(app, selection, version) {
                Ok(live) => Self::Live(live),
                Err(failure) => Self::Failed(failure),
            },
            (None, Some(false)) => match Live::after(app, selection, newest) {
                Ok(live) => Self::Live(live),
                Err(failure) => Self::Failed(failure),
            },
            (None, None) | (_, Some(true)) => {
                let objects: Vec<_> = selection.objects(&snapshot).collect();
                let asked_for_end = wanted.initial_events == Some(true) && wanted.bookmarks;
                Self::Initial { rest: objects.into_iter(), end: asked_for_end.then_some(newest), then: Live::after(app, selection, newest) }
            }
        }
    }
}

impl Live {
    fn after(app: &App, selection: &Selection, version: u64) -> Result<Self, Failure> {
        let watch = app.store.watch(version).map_err(expired)?;
        let is_namespaces = selection.kind.kind == NAMESPACE.kind;
        let census = if is_namespaces { Some(census_at(app, &watch)?) } else { None };
        Ok(Self { watch, census })
    }
}

/// The census at the version of `watch`: that of now, with all changes since then undone.
fn census_at(app: &App, watch: &Watch) -> Result<Census, Failure> {
    let snapshot = app.store.snapshot();
    let mut ahead = watch.clone();
    let mut since = Vec::new();
    while let Some(batch) = ahead.try_next().map_err(expired)? {
        if batch.resource_version > snapshot.resource_version() {
            break;
        }
        since.push(batch);
    }
    Ok(Census::of(&snapshot).before(since.iter().map(|batch: &Arc<Batch>| &**batch)))
}

fn expired(expired: Expired) -> Failure {
    if expired.after > expired.newest {
        return too_large(expired.after, expired.newest);
    }
    Failure::expired(format!("too old resource version: {} ({})", expired.after, expired.oldest))
}

fn too_large(version: u64, newest: u64) -> Failure {
    Failure::expired(format!("too large resource version: {version}, current: {newest}: list again without it"))
}

impl Feed {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match std::mem::replace(&mut self.phase, Phase::Done) {
                Phase::Done => return None,
                Phase::Failed(failure) => return Some(self.encoder.error(&failure)),
                Phase::Initial { rest, end, then } => {
                    if let Some(chunk) = self.initial(rest, end, then) {
                        return Some(chunk);
                    }
                }
                Phase::Live(live) => match self.live(live).await {
                    Some(chunk) if !chunk.is_empty() => return Some(chunk),
                    Some(_) => {}
                    None => return None,
                },
            }
        }
    }

    fn initial(&mut self, mut rest: std::vec::IntoIter<Arc<Object>>, end: Option<u64>, then: Result<Live, Failure>) -> Option<Bytes> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            let Some(object) = rest.next() else {
                if let Some(version) = end {
                    self.encoder.bookmark(&mut chunk, version, true);
                }
                self.phase = then.map_or_else(Phase::Failed, Phase::Live);
                return (!chunk.is_empty()).then(|| chunk.into());
            };
            self.encoder.event(&mut chunk, EventType::Added, &object, &self.app);
        }
        self.phase = Phase::Initial { rest, end, then };
        Some(chunk.into())
    }

    /// What comes next of changes, bookmarks and the end; an empty chunk when a change was not about the selection.
    async fn live(&mut self, mut live: Live) -> Option<Bytes> {
        let next = tokio::select! {
            biased;
            () = self.closing.cancelled() => return None,
            () = at(self.deadline) => Next::Deadline,
            () = sleep_until(self.next_bookmark), if self.bookmarks => Next::Bookmark,
            batch = live.watch.next() => Next::Batch(batch),
        };
        let mut chunk = Vec::new();
        match next {
            Next::Deadline => {
                if self.bookmarks {
                    self.encoder.bookmark(&mut chunk, live.watch.resource_version(), false);
                }
                return Some(chunk.into()).filter(|chunk: &Bytes| !chunk.is_empty());
            }
            Next::Bookmark => {
                self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                self.encoder.bookmark(&mut chunk, live.watch.resource_version(), false);
            }
            Next::Batch(Err(error)) => {
                self.phase = Phase::Failed(expired(error));
                return Some(Bytes::new());
            }
            Next::Batch(Ok(batch)) => {
                for change in &batch.changes {
                    let turn = Turn::of(change, live.census.as_mut());
                    if let Some((event, object)) = turn.and_then(|turn| turn.seen_by(&self.selection)) {
                        self.encoder.event(&mut chunk, event, &object, &self.app);
                    }
                }
            }
        }
        self.phase = Phase::Live(live);
        Some(chunk.into())
    }
}

enum Next {
    Deadline,
    Bookmark,
    Batch(Result<Arc<Batch>, Expired>),
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What a change did to one object, whether it is stored or made up.
struct Turn {
    before: Option<Arc<Object>>,
    now: Arc<Object>,
    is_gone: bool,
}

impl Turn {
    fn of(change: &Change, census: Option<&mut Census>) -> Option<Self> {
        let Some(census) = census else {
            let is_gone = change.kind == ChangeKind::Delete;
            return Some(Self { before: change.previous.clone(), now: Arc::clone(&change.object), is_gone });
        };
        let turn = census.apply(change)?;
        let now = Arc::new(turn.namespace);
        Some(Self { before: turn.is_gone.then(|| Arc::clone(&now)), now, is_gone: turn.is_gone })
    }

    fn seen_by(self, selection: &Selection) -> Option<(EventType, Arc<Object>)> {
        let Self { before, now, is_gone } = self;
        let was_in = before.as_ref().is_some_and(|before| selection.matches(before));
        let is_in = !is_gone && selection.matches(&now);
        match (was_in, is_in) {
            (false, false) => None,
            (false, true) => Some((EventType::Added, now)),
            (true, true) => Some((EventType::Modified, now)),
            (true, false) if is_gone => Some((EventType::Deleted, now)),
            (true, false) => {
                // It lives on outside: who watches the selection sees it as it was last in it, at the version of its leaving.
                let mut last = Object::clone(before.as_ref()?);
                last.meta.resource_version = now.meta.resource_version;
                Some((EventType::Deleted, Arc::new(last)))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum EventType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

#[derive(Serialize)]
struct Line<T> {
    r#type: EventType,
    object: T,
}

/// Writes events in the form that the client asked for.
struct Encoder {
    form: Form,
    style: Option<Style>,
    kind: &'static str,
    api_version: String,
    /// Clients take the columns from the first table.
    wants_columns: bool,
}

impl Encoder {
    fn new(selection: &Selection, form: Form, query: &Query) -> Result<Self, Failure> {
        let style = match form {
            Form::Table(version) => Some(Style { kind: selection.kind, version, include: Include::parse(query.get("includeObject"))? }),
            Form::Object | Form::Partial(_) => None,
        };
        Ok(Self { form, style, kind: selection.kind.kind, api_version: selection.kind.api_version(), wants_columns: true })
    }

    fn event(&mut self, out: &mut Vec<u8>, event: EventType, object: &Object, app: &App) {
        match (self.form, self.style) {
            (Form::Partial(version), _) => write(out, event, Partial(object, version)),
            (_, Some(style)) => {
                let metadata = ListMeta { resource_version: object.meta.resource_version.to_string(), ..ListMeta::default() };
                let now = (app.ports.now)();
                let has_columns = std::mem::replace(&mut self.wants_columns, false);
                let table = if has_columns { style.table(metadata, [object], now) } else { style.frame(metadata, [object], now) };
                write(out, event, table);
            }
            (_, None) => write(out, event, Whole(object)),
        }
    }

    fn bookmark(&self, out: &mut Vec<u8>, version: u64, is_end_of_initial: bool) {
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if is_end_of_initial {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = match self.form {
            Form::Object => json!({"kind": self.kind, "apiVersion": self.api_version, "metadata": metadata}),
            Form::Partial(version) => json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": metadata}),
            Form::Table(version) => json!({"kind": "Table", "apiVersion": version.api_version(), "metadata": metadata, "rows": []}),
        };
        write(out, EventType::Bookmark, object);
    }

    fn error(&self, failure: &Failure) -> Bytes {
        let mut out = Vec::new();
        write::<Value>(&mut out, EventType::Error, failure.to_value());
        out.into()
    }
}

fn write<T: Serialize>(out: &mut Vec<u8>, event: EventType, object: T) {
    let start = out.len();
    match serde_json::to_writer(&mut *out, &Line { r#type: event, object }) {
        Ok(()) => out.push(b'\n'),
        Err(error) => {
            // Half a line would spoil the next one.
            out.truncate(start);
            tracing::error!(%error, "an event could not be written as JSON");
        }
    }
}
