//! Owns what each URL means: a path becomes a [`Route`] or nothing. Pure, and closed: the compiler names every route to its handler.

use percent_encoding::percent_decode_str;
use qm_api::meta::{GROUP, VERSION};
use qm_api::registry::{self, Face, Kind};

use crate::locks::Verb;
use crate::namespaces::NAMESPACE;

/// Everything that is served.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Route {
    Live,
    Ready,
    Version,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/quaymaster.dev`
    Group,
    /// `/api/v1`, `/apis/quaymaster.dev/v1alpha1`
    Resources(Api),
    OpenApiIndex,
    OpenApi(Api),
    OpenApiV2,
    Collection {
        kind: Served,
        namespace: Option<String>,
    },
    One {
        kind: Served,
        namespace: String,
        name: String,
    },
    Log {
        namespace: String,
        name: String,
    },
    Lock {
        namespace: String,
        name: String,
        verb: Verb,
    },
    ActOn {
        kind: Served,
        namespace: String,
        name: String,
        action: String,
    },
    ActWidely {
        action: String,
    },
    Plan,
    Graph,
    Overview,
    Backup,
    Usable {
        namespace: String,
        name: String,
    },
    UsableAll {
        namespace: String,
    },
    WatchUsable {
        namespace: String,
    },
    Heartbeat {
        namespace: String,
        name: String,
    },
}

/// The two group versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Api {
    Core,
    Ours,
}

impl Api {
    pub(crate) const fn group(self) -> &'static str {
        match self {
            Self::Core => "",
            Self::Ours => GROUP,
        }
    }

    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::Core => "v1",
            Self::Ours => VERSION,
        }
    }

    pub(crate) fn group_version(self) -> String {
        match self {
            Self::Core => "v1".to_owned(),
            Self::Ours => format!("{GROUP}/{VERSION}"),
        }
    }

    /// The path below `/`.
    pub(crate) fn path(self) -> String {
        match self {
            Self::Core => "api/v1".to_owned(),
            Self::Ours => format!("apis/{GROUP}/{VERSION}"),
        }
    }

    /// The kinds that it serves.
    pub(crate) fn kinds(self) -> impl Iterator<Item = &'static Kind> {
        let stored = registry::all().filter(move |kind| kind.group == self.group() && kind.face != Face::Internal);
        std::iter::once(&NAMESPACE).filter(move |_| self == Self::Core).chain(stored)
    }

    fn kind(self, plural: &str) -> Option<Served> {
        self.kinds().find(|kind| kind.plural == plural).map(Served)
    }
}

/// A kind that is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served(pub(crate) &'static Kind);

impl PartialEq for Served {
    fn eq(&self, other: &Self) -> bool {
        self.0.kind == other.0.kind
    }
}

impl std::ops::Deref for Served {
    type Target = Kind;
    fn deref(&self) -> &Kind {
        self.0
    }
}

/// The subresource of a service with its log.
pub(crate) const LOG: &str = "log";
/// The subresource of a service with its lock.
pub(crate) const LOCK: &str = "lock";
/// What stands in place of a plural in the URLs of wide actions.
const ACTIONS: &str = "actions";

/// What a path means; slashes at the end do not matter.
pub(crate) fn parse(path: &str) -> Option<Route> {
    let path = path.strip_prefix('/')?.trim_end_matches('/');
    let segments: Vec<String> =
        path.split('/').map(|segment| percent_decode_str(segment).decode_utf8().ok().map(String::from)).collect::<Option<_>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    Some(match segments.as_slice() {
        ["healthz" | "livez"] => Route::Live,
        ["readyz"] => Route::Ready,
        ["version"] => Route::Version,
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["apis", GROUP] => Route::Group,
        ["api", "v1", rest @ ..] => in_api(Api::Core, rest)?,
        ["apis", GROUP, VERSION, rest @ ..] => in_api(Api::Ours, rest)?,
        ["openapi", "v3"] => Route::OpenApiIndex,
        ["openapi", "v3", "api", "v1"] => Route::OpenApi(Api::Core),
        ["openapi", "v3", "apis", GROUP, VERSION] => Route::OpenApi(Api::Ours),
        ["openapi", "v2"] => Route::OpenApiV2,
        ["quaymaster", "v1", "plan"] => Route::Plan,
        ["quaymaster", "v1", "graph"] => Route::Graph,
        ["quaymaster", "v1", "overview"] => Route::Overview,
        ["quaymaster", "v1", "backup"] => Route::Backup,
        ["usable", namespace] => Route::UsableAll { namespace: (*namespace).to_owned() },
        ["watch", namespace] => Route::WatchUsable { namespace: (*namespace).to_owned() },
        ["heartbeat", namespace, name] => Route::Heartbeat { namespace: (*namespace).to_owned(), name: (*name).to_owned() },
        ["usable", namespace, name] => Route::Usable { namespace: (*namespace).to_owned(), name: (*name).to_owned() },
        _ => return None,
    })
}

fn in_api(api: Api, rest: &[&str]) -> Option<Route> {
    if rest.iter().any(|segment| segment.is_empty()) {
        return None;
    }
    let is_ours = api == Api::Ours;
    match *rest {
        [] => Some(Route::Resources(api)),
        [ACTIONS, action] if is_ours => Some(Route::ActWidely { action: action.to_owned() }),
        [plural] => Some(Route::Collection { kind: api.kind(plural)?, namespace: None }),
        [plural, name] => {
            let kind = api.kind(plural).filter(|kind| !kind.namespaced)?;
            Some(Route::One { kind, namespace: String::new(), name: name.to_owned() })
        }
        ["namespaces", namespace, plural] => {
            Some(Route::Collection { kind: namespaced(api, plural)?, namespace: Some(namespace.to_owned()) })
        }
        ["namespaces", namespace, plural, name] => {
            Some(Route::One { kind: namespaced(api, plural)?, namespace: namespace.to_owned(), name: name.to_owned() })
        }
        ["namespaces", namespace, plural, name, sub] if is_ours => {
            let kind = namespaced(api, plural)?;
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            match (kind.kind, sub) {
                (qm_api::kinds::mini_service::KIND, LOG) => Some(Route::Log { namespace, name }),
                (qm_api::kinds::mini_service::KIND, LOCK) => Some(Route::Lock { namespace, name, verb: Verb::Lock }),
                _ if kind.face == Face::User => Some(Route::ActOn { kind, namespace, name, action: sub.to_owned() }),
                _ => None,
            }
        }
        ["namespaces", namespace, plural, name, LOCK, word] if is_ours => {
            namespaced(api, plural).filter(|kind| kind.kind == qm_api::kinds::mini_service::KIND)?;
            Some(Route::Lock { namespace: namespace.to_owned(), name: name.to_owned(), verb: Verb::of(word)? })
        }
        _ => None,
    }
}

fn namespaced(api: Api, plural: &str) -> Option<Served> {
    api.kind(plural).filter(|kind| kind.namespaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_means_one_thing_or_nothing() {
        let served = |kind: &str| Served([&NAMESPACE].into_iter().chain(registry::all()).find(|entry| entry.kind == kind).unwrap());
        let service = served("MiniService");
        let b = "/apis/quaymaster.dev/v1alpha1";
        let one = |name: &str| Route::One { kind: service, namespace: "n".into(), name: name.into() };
        for (path, route) in [
            ("/version/".to_owned(), Some(Route::Version)),
            ("/livez".to_owned(), Some(Route::Live)),
            (format!("{b}/"), Some(Route::Resources(Api::Ours))),
            ("/api/v1".to_owned(), Some(Route::Resources(Api::Core))),
            (format!("{b}/miniservices"), Some(Route::Collection { kind: service, namespace: None })),
            (format!("{b}/namespaces/n/miniservices"), Some(Route::Collection { kind: service, namespace: Some("n".into()) })),
            (format!("{b}/namespaces/n/miniservices/a"), Some(one("a"))),
            (format!("{b}/namespaces/n/miniservices/a%2Fb"), Some(one("a/b"))),
            (format!("{b}/namespaces/n/miniservices/a/log"), Some(Route::Log { namespace: "n".into(), name: "a".into() })),
            (
                format!("{b}/namespaces/n/networks/a/log"),
                Some(Route::ActOn { kind: served("Network"), namespace: "n".into(), name: "a".into(), action: "log".into() }),
            ),
            (
                format!("{b}/namespaces/n/miniservices/a/lock"),
                Some(Route::Lock { namespace: "n".into(), name: "a".into(), verb: Verb::Lock }),
            ),
            (
                format!("{b}/namespaces/n/miniservices/a/lock/renew"),
                Some(Route::Lock { namespace: "n".into(), name: "a".into(), verb: Verb::Renew }),
            ),
            (format!("{b}/namespaces/n/miniservices/a/lock/break"), None),
            (format!("{b}/namespaces/n/networks/a/lock/renew"), None),
            (format!("{b}/actions/resume"), Some(Route::ActWidely { action: "resume".into() })),
            ("/api/v1/namespaces".to_owned(), Some(Route::Collection { kind: served("Namespace"), namespace: None })),
            ("/api/v1/namespaces/n".to_owned(), Some(Route::One { kind: served("Namespace"), namespace: "".into(), name: "n".into() })),
            ("/api/v1/namespaces/n/events".to_owned(), Some(Route::Collection { kind: served("Event"), namespace: Some("n".into()) })),
            ("/usable/n/a".to_owned(), Some(Route::Usable { namespace: "n".into(), name: "a".into() })),
            (format!("{b}/miniservices/a"), None),
            (format!("{b}/namespaces/n/intents/a/suspend"), None),
            (format!("{b}/namespaces//miniservices"), None),
            (format!("{b}/namespaces/n/miniservices/%ff"), None),
            (format!("{b}/leases"), None),
            ("/api/v1/namespaces/n/namespaces".to_owned(), None),
            ("/api/v1/pods".to_owned(), None),
            ("/".to_owned(), None),
            (String::new(), None),
            ("*".to_owned(), None),
            ("/apis/other.dev/v1".to_owned(), None),
        ] {
            assert_eq!(parse(&path), route, "{path}");
        }
    }
}
