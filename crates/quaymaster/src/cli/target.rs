//! What a command is about: kinds and names as people write them, and the URLs that they stand for.

use qm_api::meta::DEFAULT_NAMESPACE;
use qm_api::registry::{self, Face, Kind};

use super::CliError;

/// Below this everything of our group is found.
pub(crate) const BASE: &str = "/apis/quaymaster.dev/v1alpha1";

/// A kind that is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KindArg(pub(crate) &'static Kind);

impl PartialEq for KindArg {
    fn eq(&self, other: &Self) -> bool {
        self.0.kind == other.0.kind
    }
}

/// One object, `KIND/NAME`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) kind: KindArg,
    pub(crate) name: String,
}

impl Target {
    /// `miniservice/app`, as results are printed.
    pub(crate) fn label(&self) -> String {
        format!("{}/{}", self.kind.0.singular, self.name)
    }
}

/// The kind that is served under this name.
pub(crate) fn kind(word: &str) -> Result<KindArg, String> {
    let served = || registry::all().filter(|kind| kind.face != Face::Internal);
    match registry::by_short(word).filter(|kind| kind.face != Face::Internal) {
        Some(kind) => Ok(KindArg(kind)),
        None => {
            let names: Vec<String> =
                served().map(|kind| [kind.plural].iter().chain(kind.short_names).copied().collect::<Vec<_>>().join(" or ")).collect();
            Err(format!("there is no kind `{word}`; the kinds are {}", names.join(", ")))
        }
    }
}

/// Reads `KIND/NAME` for clap.
pub(crate) fn target(text: &str) -> Result<Target, String> {
    let Some((word, name)) = text.split_once('/') else {
        return Err(format!("write KIND/NAME, such as msvc/{text}"));
    };
    Ok(Target { kind: kind(word)?, name: object_name(name)? })
}

/// Reads the name of a service, with or without its kind.
pub(crate) fn service(text: &str) -> Result<Target, String> {
    let target = if text.contains('/') { target(text)? } else { self::target(&format!("msvc/{text}"))? };
    if target.kind.0.kind == qm_api::kinds::mini_service::KIND { Ok(target) } else { Err(format!("`{text}` is no mini service")) }
}

/// Names go into URLs, so that only what a name can have may pass.
pub(crate) fn object_name(name: &str) -> Result<String, String> {
    let fits = !name.is_empty() && name.len() <= 253 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    if fits && name != "." && name != ".." { Ok(name.to_owned()) } else { Err(format!("`{name}` is no name of an object")) }
}

/// Reads the name of a namespace for clap.
pub(crate) fn namespace_name(name: &str) -> Result<String, String> {
    object_name(name).map_err(|_| format!("`{name}` is no name of a namespace"))
}

/// Where the objects of a kind are: of one namespace, or of all.
pub(crate) fn list_path(kind: KindArg, namespace: Option<&str>) -> String {
    let base = if kind.0.group.is_empty() { format!("/api/{}", kind.0.version) } else { BASE.to_owned() };
    match namespace {
        Some(namespace) => format!("{base}/namespaces/{namespace}/{}", kind.0.plural),
        None => format!("{base}/{}", kind.0.plural),
    }
}

/// Where one object is.
pub(crate) fn object_path(target: &Target, namespace: &str) -> String {
    format!("{}/{}", list_path(target.kind, Some(namespace)), target.name)
}

/// The path with its query; values are escaped, pairs with an empty value left out.
pub(crate) fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let query: Vec<String> =
        pairs.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| format!("{key}={}", escape(value))).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
        out
    })
}

/// The namespace asked for, or the default one.
pub(crate) fn namespace_or_default(namespace: Option<&str>) -> &str {
    namespace.unwrap_or(DEFAULT_NAMESPACE)
}

/// `KIND NAME..`, `KIND/NAME..` or `KIND[,KIND..]`: what `get` and `describe` take.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Selection {
    /// All objects of these kinds.
    Kinds(Vec<KindArg>),
    /// These objects.
    Objects(Vec<Target>),
}

/// Reads a selection.
///
/// # Errors
/// When the words mean no kind, or mix both ways of writing.
pub(crate) fn selection(words: &[String]) -> Result<Selection, CliError> {
    let usage = CliError::Usage;
    let (first, rest) = words.split_first().ok_or_else(|| usage("name a kind, such as msvc".to_owned()))?;
    if words.iter().any(|word| word.contains('/')) {
        let targets: Result<Vec<Target>, String> = words.iter().map(|word| target(word)).collect();
        return targets.map(Selection::Objects).map_err(usage);
    }
    if !rest.is_empty() {
        let kind = kind(first).map_err(usage)?;
        let targets: Result<Vec<Target>, String> = rest.iter().map(|name| Ok(Target { kind, name: object_name(name)? })).collect();
        return targets.map(Selection::Objects).map_err(usage);
    }
    if first.eq_ignore_ascii_case("all") {
        return Ok(Selection::Kinds(registry::user_kinds().map(KindArg).collect()));
    }
    let kinds: Result<Vec<KindArg>, String> = first.split(',').map(kind).collect();
    kinds.map(Selection::Kinds).map_err(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_many_names() {
        for word in ["msvc", "MiniService", "miniservices", "MINISERVICE"] {
            assert_eq!(kind(word).unwrap().0.kind, "MiniService");
        }
        for word in ["qnet", "networks", "Network"] {
            assert_eq!(kind(word).unwrap().0.kind, "Network");
        }
        assert_eq!(kind("ev").unwrap().0.kind, "Event");
        assert!(kind("lease").unwrap_err().contains("miniservices or msvc, minicontainers or mctr, networks or qnet"));
    }

    #[test]
    fn targets_and_paths() {
        let app = target("MSVC/app").unwrap();
        assert_eq!(app.label(), "miniservice/app");
        assert_eq!(object_path(&app, "notify"), "/apis/quaymaster.dev/v1alpha1/namespaces/notify/miniservices/app");
        assert_eq!(list_path(kind("events").unwrap(), None), "/api/v1/events");
        assert_eq!(list_path(kind("qnet").unwrap(), Some("n")), "/apis/quaymaster.dev/v1alpha1/namespaces/n/networks");
        assert_eq!(with_query("/x", &[("a", ""), ("b", "k=v,c d")]), "/x?b=k%3Dv%2Cc%20d");
        for bad in ["app", "msvc/", "msvc/a/b", "msvc/..", "nope/a", "msvc/a?b"] {
            assert!(target(bad).is_err(), "{bad}");
        }
        assert_eq!(service("app").unwrap(), app);
        assert!(service("qnet/data").is_err());
    }

    #[test]
    fn selections() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (svc, parent, net) = (kind("msvc").unwrap(), kind("mctr").unwrap(), kind("qnet").unwrap());
        let named = |kind, name: &str| Target { kind, name: name.to_owned() };
        let table = [
            ("msvc", Selection::Kinds(vec![svc])),
            ("msvc,qnet", Selection::Kinds(vec![svc, net])),
            ("all", Selection::Kinds(vec![svc, parent, net])),
            ("msvc a b", Selection::Objects(vec![named(svc, "a"), named(svc, "b")])),
            ("msvc/a qnet/b", Selection::Objects(vec![named(svc, "a"), named(net, "b")])),
        ];
        for (text, expected) in table {
            assert_eq!(selection(&words(text)).unwrap(), expected, "{text}");
        }
        for bad in ["nope", "msvc/a b", "msvc a/b"] {
            assert!(selection(&words(bad)).is_err(), "{bad}");
        }
    }
}
