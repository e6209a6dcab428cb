//! What the demo brings along: the manifests of `examples/platform`, and a world in which their stand-ins take a moment to start.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use qm_dockersim::World;
use qm_dockersim::behaviour::{Behaviour, Rule};

macro_rules! platform {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../../examples/platform/", $path)))),*]
    };
}

/// Every file of `examples/platform`; a test compares them.
pub(super) const PLATFORM: &[(&str, &str)] = platform![
    "README.md",
    "apps/apps.yaml",
    "apps/foundation.yaml",
    "apps/init.sh",
    "common.env",
    "edge/edge.conf",
    "edge/edge.yaml",
    "monitoring/monitor.yml",
    "monitoring/monitoring.yaml",
    "networks.yaml",
    "stores/stores.yaml",
];

/// How long services take until they answer, by pattern of the container's name; the last that fits counts.
const PACE_MS: &[(&str, u64)] = &[
    ("notify-*", 250),
    ("notify-postgres-*", 500),
    ("notify-mongo-*", 400),
    ("notify-rabbitmq-*", 450),
    ("notify-init-*", 350),
    ("notify-api-*", 400),
    ("notify-postgres-exporter-*", 200),
];

/// The world of the demo: real services are not ready at once; with `fast` they are.
pub(super) fn world(fast: bool) -> World {
    let rule = |(name, ms): &(&str, u64)| Rule {
        name: Some((*name).to_owned()),
        behaviour: Behaviour { healthy_after_ms: Some(*ms), ..Behaviour::default() },
        ..Rule::default()
    };
    World { containers: if fast { Vec::new() } else { PACE_MS.iter().map(rule).collect() }, ..World::default() }
}

/// A folder of the demo's own, removed with everything in it when this is dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder with the manifests in `platform/`.
    ///
    /// # Errors
    /// When the temporary directory takes no files.
    pub(super) fn make(id: &str) -> io::Result<Self> {
        let folder = Self(std::env::temp_dir().join(format!("qm-demo-{}", id.get(..6).unwrap_or(id))));
        fs::DirBuilder::new().mode(0o700).create(&folder.0)?;
        for (path, text) in PLATFORM {
            let file = folder.manifests().join(path);
            file.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(file, text)?;
        }
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn manifests(&self) -> PathBuf {
        self.0.join("platform")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder in the temporary directory may have been swept away already.
        drop(fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_is_the_example() {
        let root = std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is"))
            .join("../../examples/platform");
        let (mut found, mut open) = (BTreeSet::new(), vec![root.clone()]);
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if !path.to_string_lossy().ends_with(".drill.yaml") {
                    found.insert(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        assert_eq!(PLATFORM.iter().map(|(path, _)| (*path).to_owned()).collect::<BTreeSet<_>>(), found);
    }

    #[test]
    fn nothing_stays_behind() {
        let folder = Folder::make("test00-of-the-demo").unwrap();
        let path = folder.path().to_owned();
        assert!(path.join("platform/apps/init.sh").is_file());
        drop(folder);
        assert!(!path.exists());
    }
}
