//! The rules of the workspace that no compiler holds: who may import whom, what every crate must have, which licences are taken.
//!
//! All of it is read from `cargo metadata --offline` and from the sources; nothing here needs the network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// What each crate of the product may import of ours (DESIGN 5), by directory under `crates/`. A crate that is not here fails the test:
/// decide what it may import first.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("plan", &["qm-api"]),
    ("store", &["qm-api"]),
    ("source", &["qm-api"]),
    ("controller", &["qm-api", "qm-plan", "qm-store"]),
    ("apiserver", &["qm-api", "qm-store"]),
    ("dockersim", &[]),
    ("sdk", &["qm-sdk-macros"]),
    ("sdk-macros", &[]),
    ("quaymaster", &["qm-api", "qm-plan", "qm-store", "qm-source", "qm-controller", "qm-apiserver", "qm-dockersim"]),
];

/// Dependencies of others that only one crate of the product may have.
const ONLY_IN: &[(&str, &str)] = &[
    ("bollard", "controller"),
    ("vaultrs", "controller"),
    ("notify", "source"),
    ("gix", "source"),
    ("redb", "store"),
    ("axum", "apiserver"),
    ("clap", "quaymaster"),
    ("comfy-table", "quaymaster"),
    ("indicatif", "quaymaster"),
    ("petgraph", "api"),
];

/// Crates that must not be in the tree at all, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl", "TLS is rustls"),
    ("openssl-sys", "TLS is rustls; it wants a system library"),
    ("native-tls", "TLS is rustls"),
    ("serde_yaml", "deprecated; YAML is serde-saphyr, with positions"),
    ("serde_yml", "YAML is serde-saphyr, with positions"),
    ("prost-build", "nothing may need protoc to build"),
    ("protobuf-src", "nothing may vendor protoc"),
    ("protoc-bin-vendored", "nothing may vendor protoc"),
    ("bindgen", "wants libclang"),
    ("rand", "randomness is injected"),
    ("chrono", "time is jiff, at the edge"),
];

/// Those of [`BANNED`] that only tests bring in.
const BANNED_IN_PRODUCT_ONLY: &[&str] = &["rand"];

/// Licences that a dependency may have; of an `OR` one is enough, of an `AND` all are needed.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Files over 900 lines, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

const MAX_LINES: usize = 900;

fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is"))
        .parent()
        .expect("tests/ lies in the workspace")
        .to_owned()
}

fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform"])
            // What only other systems need is not on this machine.
            .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
            .current_dir(root())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
    })
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

/// Our own packages by the directory of their manifest, relative to the root.
fn members() -> BTreeMap<String, &'static Value> {
    let ours: BTreeSet<&str> = list(metadata(), "workspace_members").filter_map(Value::as_str).collect();
    list(metadata(), "packages")
        .filter(|package| ours.contains(text(package, "id")))
        .map(|package| {
            let manifest = Path::new(text(package, "manifest_path"));
            let dir = manifest.parent().and_then(|dir| dir.strip_prefix(root()).ok()).expect("a member lies in the workspace");
            (dir.to_string_lossy().into_owned(), package)
        })
        .collect()
}

/// Names of the packages that a package declares as dependencies, without those of its tests.
fn declared(package: &Value) -> BTreeSet<&str> {
    list(package, "dependencies").filter(|d| d["kind"] != "dev").map(|d| text(d, "name")).collect()
}

fn sources_under(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("a source folder can be read").path();
        if path.is_dir() {
            sources_under(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// All Rust files of the workspace with their path relative to the root.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for dir in ["crates", "examples", "tests", "xtask", "fuzz/fuzz_targets"] {
        sources_under(&root().join(dir), &mut found);
    }
    found.sort();
    assert!(found.len() > 50, "the sources were not found");
    found
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(root()).expect("a source lies in the workspace").to_string_lossy().into_owned();
            let content = std::fs::read_to_string(&path).expect("a source can be read");
            (relative, content)
        })
        .collect()
}

/// A line without what stands behind `//`, nor in string literals.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut quoted = false;
    let mut before = ' ';
    for c in line.chars() {
        match c {
            '"' if before != '\\' && before != '\'' => quoted = !quoted,
            '/' if !quoted && before == '/' => {
                code.pop();
                break;
            }
            _ if !quoted => code.push(c),
            _ => {}
        }
        before = c;
    }
    code
}

#[test]
fn crates_import_only_what_they_may() {
    let rules: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    for (dir, package) in members() {
        let Some(name) = dir.strip_prefix("crates/") else { continue };
        let Some(may) = rules.get(name) else {
            wrong.push(format!("{dir} is not in MAY_IMPORT"));
            continue;
        };
        for dependency in declared(package).into_iter().filter(|d| d.starts_with("qm-")) {
            if !may.contains(&dependency) {
                wrong.push(format!("{dir} imports {dependency}"));
            }
        }
        for (dependency, home) in ONLY_IN {
            if declared(package).contains(dependency) && name != *home {
                wrong.push(format!("{dir} imports {dependency}, which belongs to crates/{home}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn only_the_controller_names_bollard_and_vaultrs() {
    let mut wrong = Vec::new();
    for (path, content) in sources().iter().filter(|(path, _)| path.starts_with("crates/") && !path.starts_with("crates/controller/")) {
        for (number, line) in content.lines().enumerate() {
            let code = code_of(line);
            if code.contains("bollard") || code.contains("vaultrs") {
                wrong.push(format!("{path}:{}: {line}", number + 1));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_kind_imports_another() {
    let kinds = |path: &str| -> Option<(String, String)> {
        let (base, rest) = path.split_once("/src/kinds/")?;
        let name = rest.split('/').next()?.trim_end_matches(".rs").to_owned();
        (name != "mod").then(|| (base.to_owned(), name))
    };
    let all: BTreeSet<(String, String)> = sources().iter().filter_map(|(path, _)| kinds(path)).collect();
    assert!(all.len() >= 5, "the kinds were not found: {all:?}");
    let mut wrong = Vec::new();
    for (path, content) in sources() {
        let Some((base, own)) = kinds(&path) else { continue };
        for (_, other) in all.iter().filter(|(b, name)| *b == base && *name != own) {
            for (number, line) in content.lines().enumerate() {
                let code = code_of(line);
                let names_it = [format!("crate::kinds::{other}"), format!("super::{other}"), format!("kinds::{other}::")];
                // `plan` may name a kind of `api`, where the path begins with the crate's name.
                if names_it.iter().any(|n| code.contains(n)) && !code.contains("qm_api::kinds") {
                    wrong.push(format!("{path}:{}: {line}", number + 1));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_crate_has_the_workspace_lints_and_a_module_doc() {
    let mut wrong = Vec::new();
    for (dir, package) in members() {
        let manifest = std::fs::read_to_string(root().join(&dir).join("Cargo.toml")).expect("a manifest can be read");
        if !manifest.contains("[lints]\nworkspace = true") {
            wrong.push(format!("{dir}/Cargo.toml has no workspace lints"));
        }
        for key in ["license", "rust_version", "edition"] {
            if package[key].is_null() {
                wrong.push(format!("{dir}/Cargo.toml has no {key}"));
            }
        }
        for target in list(package, "targets") {
            let file = PathBuf::from(text(target, "src_path"));
            let content = std::fs::read_to_string(&file).expect("a target can be read");
            if !content.trim_start().starts_with("//!") {
                wrong.push(format!("{} has no module doc", file.strip_prefix(root()).unwrap_or(&file).display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_file_is_long_without_a_reason() {
    let allowed: BTreeMap<&str, &str> = LONG_FILES.iter().copied().collect();
    let mut long = BTreeMap::new();
    for (path, content) in sources() {
        let lines = content.lines().count();
        if lines > MAX_LINES {
            long.insert(path, lines);
        }
    }
    let unexplained: Vec<_> = long.iter().filter(|(path, _)| !allowed.contains_key(path.as_str())).collect();
    assert!(unexplained.is_empty(), "split these, or give a reason in LONG_FILES: {unexplained:?}");
    let stale: Vec<_> = allowed.keys().filter(|path| !long.contains_key(**path)).collect();
    assert!(stale.is_empty(), "these are not long any more, remove them from LONG_FILES: {stale:?}");
}

#[test]
fn nothing_is_allowed_left_to_do_or_left_unsaid() {
    // Put together so that this file does not find itself.
    let banned: Vec<String> = [("#[allow", "("), ("#![allow", "("), ("todo", "!("), ("unimplemented", "!("), ("dbg", "!(")]
        .iter()
        .map(|(a, b)| format!("{a}{b}"))
        .collect();
    let mut wrong = Vec::new();
    for (path, content) in sources() {
        for (number, line) in content.lines().enumerate() {
            let code = code_of(line);
            // An allow with a reason stands where an expect cannot: a file that several test binaries include.
            for word in banned.iter().filter(|word| code.contains(*word) && !(word.contains("allow") && code.contains("reason ="))) {
                wrong.push(format!("{path}:{}: {word}..) (use #[expect(lint, reason = ..)], or finish it)", number + 1));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Banned crates that one other crate may use: whose, which, why.
const EXCUSED: &[(&str, &str, &str)] = &[
    ("postgres-protocol", "rand", "the nonce of a login must not be guessed; nothing that the operator decides depends on it"),
    ("tokio-postgres", "rand", "it would choose among several hosts; a probe has one"),
];

/// The packages that the product's binary is built from, by the ids of `cargo metadata`.
fn built_into_the_product() -> BTreeSet<String> {
    let nodes: BTreeMap<&str, &Value> = list(&metadata()["resolve"], "nodes").map(|node| (text(node, "id"), node)).collect();
    let members = members();
    let mut open = vec![text(members["crates/quaymaster"], "id")];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id.to_owned()) {
            continue;
        }
        for dependency in list(nodes[id], "deps") {
            let is_excused = EXCUSED.iter().any(|(of, name, _)| id.contains(of) && dependency["name"] == *name);
            if !is_excused && list(dependency, "dep_kinds").any(|kind| kind["kind"] != "dev") {
                open.push(text(dependency, "pkg"));
            }
        }
    }
    seen
}

#[test]
fn banned_crates_are_absent() {
    let product = built_into_the_product();
    assert!(product.len() > 50, "the dependency tree was not found");
    let locked = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock can be read");
    let mut wrong = Vec::new();
    for (name, why) in BANNED {
        let in_product = product.iter().any(|id| id.contains(&format!("#{name}@")) || id.contains(&format!("/{name}#")));
        let anywhere = locked.contains(&format!("name = \"{name}\"\n"));
        if in_product || (anywhere && !BANNED_IN_PRODUCT_ONLY.contains(name)) {
            wrong.push(format!("{name}: {why}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Whether an SPDX expression can be fulfilled with the licences of the list.
fn acceptable(expression: &str) -> bool {
    let expression = expression.trim();
    let mut depth = 0_usize;
    // Split at the weakest operator outside brackets first.
    for operator in [" OR ", " AND "] {
        let mut parts = Vec::new();
        let mut from = 0;
        for (at, c) in expression.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                ' ' if depth == 0 && expression[at..].starts_with(operator) => {
                    parts.push(&expression[from..at]);
                    from = at + operator.len();
                }
                _ => {}
            }
        }
        if !parts.is_empty() {
            parts.push(&expression[from..]);
            return if operator == " OR " { parts.into_iter().any(acceptable) } else { parts.into_iter().all(acceptable) };
        }
    }
    match expression.strip_prefix('(').and_then(|e| e.strip_suffix(')')) {
        Some(inner) => acceptable(inner),
        // A plus stands for "or any later version".
        None => LICENCES.contains(&expression.trim_end_matches('+')),
    }
}

#[test]
fn licence_expressions_are_read_right() {
    for (expression, wanted) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
        ("GPL-2.0 OR (MIT AND Apache-2.0)", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("MPL-2.0+", true),
        ("", false),
    ] {
        assert_eq!(acceptable(expression), wanted, "{expression}");
    }
}

#[test]
fn every_dependency_has_a_licence_that_we_take() {
    let mut wrong = Vec::new();
    for package in list(metadata(), "packages") {
        // Before SPDX expressions, a slash stood for OR.
        let licence = text(package, "license").replace('/', " OR ").replace("  ", " ");
        if !acceptable(&licence) {
            wrong.push(format!("{} {}: {licence:?}", text(package, "name"), text(package, "version")));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_documents_that_are_promised_exist() {
    for path in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "deny.toml", ".ci/run", "manifests/quaymaster.service"] {
        assert!(root().join(path).is_file(), "{path} is missing");
    }
    let architecture = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md can be read");
    for (name, _) in MAY_IMPORT {
        assert!(architecture.contains(&format!("`crates/{name}`")), "ARCHITECTURE.md says nothing of crates/{name}");
    }
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md can be read");
    let ci = std::fs::read_to_string(root().join(".ci/run")).expect(".ci/run can be read");
    let command = "cargo xtask ci";
    assert!(readme.contains(command) && ci.contains(command), "README.md and .ci/run must name the same command, `{command}`");
}
