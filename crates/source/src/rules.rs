//! Owns which entries of a folder belong to a source: names of manifests, hidden entries, `.quaymasterignore`.

use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::path::RelPath;

/// The file with patterns, in gitignore's syntax, of what in its folder and below is no part of the source.
pub const IGNORE_FILE: &str = ".quaymasterignore";

/// Whether a file of this name is a manifest, unless a pattern says otherwise.
///
/// Editors' files (`.#x.yaml`, `#x.yaml#`, `x.yaml~`, `.x.yaml.swp`, `4913`) are hidden or do not end like a manifest.
pub fn is_manifest_name(name: &str) -> bool {
    let ends = [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end));
    ends && !is_hidden(name) && !name.ends_with(".drill.yaml")
}

/// Whether an entry of this name is passed over, whatever it is.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// The patterns in force in a folder: its own and those of the folders above it.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    above: Option<Arc<Rules>>,
    folder: RelPath,
    own: Option<Gitignore>,
}

impl Rules {
    /// These rules with those of `folder` on top; also the patterns that mean nothing.
    pub(crate) fn with(self: &Arc<Self>, folder: &RelPath, text: &[u8]) -> (Arc<Self>, Vec<String>) {
        let mut builder = GitignoreBuilder::new("");
        let mut wrong = Vec::new();
        for line in String::from_utf8_lossy(text).lines() {
            if let Err(error) = builder.add_line(None, line) {
                wrong.push(error.to_string());
            }
        }
        match builder.build() {
            Ok(own) => (Arc::new(Self { above: Some(Arc::clone(self)), folder: folder.clone(), own: Some(own) }), wrong),
            Err(error) => {
                wrong.push(error.to_string());
                (Arc::clone(self), wrong)
            }
        }
    }

    /// Whether the entry at `path` is left out; nearer rules win over farther ones.
    pub(crate) fn leave_out(&self, path: &RelPath, is_folder: bool) -> bool {
        if let Some(own) = &self.own {
            let local = path.as_str().strip_prefix(self.folder.as_str()).unwrap_or(path.as_str()).trim_start_matches('/');
            match own.matched(local, is_folder) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        self.above.as_ref().is_some_and(|above| above.leave_out(path, is_folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["web.yaml", "web.yml", "web.json", "drill.yaml"] {
            assert!(is_manifest_name(name), "{name}");
        }
        for name in
            [".web.yaml", ".#web.yaml", "#web.yaml#", "web.yaml~", ".web.yaml.swp", "4913", "a.drill.yaml", "web.yaml.bak", "README.md"]
        {
            assert!(!is_manifest_name(name), "{name}");
        }
    }

    #[test]
    fn nearer_rules_win() {
        let path = |text| RelPath::parse(text).unwrap();
        let (top, wrong) = Arc::new(Rules::default()).with(&RelPath::root(), b"# a comment\nvendor/\n*.tmp.yaml\n/only-top.yaml\n\n");
        assert_eq!(wrong, Vec::<String>::new());
        let (below, _) = top.with(&path("sub"), b"!keep.tmp.yaml\nx.yaml\n");
        let cases = [
            (&top, "vendor", true, true),
            (&top, "vendor", false, false),
            (&top, "deep/vendor", true, true),
            (&top, "a.tmp.yaml", false, true),
            (&top, "only-top.yaml", false, true),
            (&top, "sub/only-top.yaml", false, false),
            (&below, "sub/keep.tmp.yaml", false, false),
            (&below, "sub/other.tmp.yaml", false, true),
            (&below, "sub/x.yaml", false, true),
            (&below, "sub/y.yaml", false, false),
        ];
        for (rules, text, is_folder, out) in cases {
            assert_eq!(rules.leave_out(&path(text), is_folder), out, "{text}");
        }
    }
}
