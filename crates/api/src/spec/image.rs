//! An image reference taken apart as Docker does it: which registry is asked, and whether two references mean the same.

use std::fmt;

/// The registry of references that name none.
pub const HUB: &str = "docker.io";
/// The tag of references that name neither tag nor digest.
const LATEST: &str = "latest";

/// A reference in its parts. What no reference could be (admission refuses it) gives parts all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageReference {
    /// The registry: `host` or `host:port`, in lower case; [`HUB`] where none is named.
    pub registry: String,
    /// The path in it, with the Hub's `library/` where that is left out.
    pub path: String,
    /// The digest where there is one, else the tag.
    pub version: String,
}

impl ImageReference {
    /// Takes a reference apart.
    ///
    /// The part before the first `/` is a registry when it has a `.` or a `:` in it or is `localhost`; else the whole is a path on the Hub.
    pub fn parse(text: &str) -> Self {
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (text, None),
        };
        let (named, tag) = match named.rsplit_once(':') {
            Some((named, tag)) if !tag.contains('/') => (named, Some(tag)),
            _ => (named, None),
        };
        let (registry, path) = match named.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host.to_ascii_lowercase(), path),
            _ => (HUB.to_owned(), named),
        };
        let registry = if registry == "index.docker.io" { HUB.to_owned() } else { registry };
        let path = if registry == HUB && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        Self { registry, path, version: digest.or(tag).unwrap_or(LATEST).to_owned() }
    }
}

/// The full form, the same for all references that mean the same.
impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let glue = if self.version.contains(':') { '@' } else { ':' };
        write!(f, "{}/{}{glue}{}", self.registry, self.path, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_found_as_docker_finds_it() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, registry, path, version) in [
            ("busybox", HUB, "library/busybox", "latest"),
            ("busybox:1.36", HUB, "library/busybox", "1.36"),
            ("grafana/grafana:11", HUB, "grafana/grafana", "11"),
            ("docker.io/busybox", HUB, "library/busybox", "latest"),
            ("index.docker.io/library/busybox:1", HUB, "library/busybox", "1"),
            ("reg.example.org/acme/app:1.4", "reg.example.org", "acme/app", "1.4"),
            ("Reg.Example.ORG/acme/app", "reg.example.org", "acme/app", "latest"),
            ("registry:5000/app", "registry:5000", "app", "latest"),
            ("registry:5000/app:2", "registry:5000", "app", "2"),
            ("localhost/app", "localhost", "app", "latest"),
            ("localhost:5000/a/b/c:x", "localhost:5000", "a/b/c", "x"),
            ("127.0.0.1:5000/app:1", "127.0.0.1:5000", "app", "1"),
            ("[::1]:5000/app:1", "[::1]:5000", "app", "1"),
            // A word without a dot is the first part of a path, not a host.
            ("registry/app", HUB, "registry/app", "latest"),
            ("localhostess/app", HUB, "localhostess/app", "latest"),
            // `name:5000` without a path is a tag.
            ("registry:5000", HUB, "library/registry", "5000"),
            (&format!("reg.example.org/app@{digest}"), "reg.example.org", "app", &digest),
            // With a digest the tag says nothing.
            (&format!("reg.example.org:443/app:1@{digest}"), "reg.example.org:443", "app", &digest),
            (&format!("app@{digest}"), HUB, "library/app", &digest),
        ] {
            let parts = ImageReference { registry: registry.into(), path: path.into(), version: version.into() };
            assert_eq!(ImageReference::parse(text), parts, "{text}");
            assert_eq!(ImageReference::parse(&parts.to_string()), parts, "the full form of {text} is the same");
        }
    }

    #[test]
    fn what_is_no_reference_does_no_harm() {
        for text in ["", "/", ":", "@", "a@", "/a", "a//b", "host.x/", "ä/ö", "::/::@::"] {
            drop(ImageReference::parse(text));
        }
    }
}
