//! Commands that need nobody: `validate`, `explain`, `schema`, `completions`, help.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::{program, ran, run};

fn write(folder: &Path, path: &str, text: &str) {
    let file = folder.join(path);
    fs::create_dir_all(file.parent().expect("a folder")).expect("it can be made");
    fs::write(file, text).expect("it can be written");
}

fn service(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: quaymaster.dev/v1alpha1\nkind: MiniService\nmetadata: {{name: {name}, namespace: notify}}\nspec:\n  container:\n    image: busybox:1\n{rest}"
    )
}

#[test]
fn everything_wrong_is_shown_at_once() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "m/app.yaml", &service("app", "    imge: x\n    replicas: many\n  dependsOn: [{service: postgrs}]\n"));
    write(folder.path(), "m/cycle/a.yaml", &service("a", "  dependsOn: [{service: b}]\n"));
    write(folder.path(), "m/cycle/b.yaml", &service("b", "  dependsOn: [{service: a}]\n"));
    write(folder.path(), "m/twice.yaml", &format!("{}---\n{}", service("db", ""), service("db", "")));
    write(folder.path(), "m/half.yaml", "apiVersion: quaymaster.dev/v1alpha1\nkind: Network\nmetadata: {name: x\n");
    write(folder.path(), "m/files.yaml", &service("files", "    envFile: [missing.env]\n    networks: [nowhere]\n"));
    write(folder.path(), "m/compose.yaml", "services: {x: {image: y}}\n");
    let ran = run(&["validate", "m"], folder.path());
    assert_eq!((ran.code, ran.err.as_str()), (2, ""));
    insta::assert_snapshot!("validate_report", ran.out);
    let json: Value = serde_json::from_str(&run(&["validate", "m", "--format", "json"], folder.path()).out).unwrap();
    let told = json["violations"].as_array().map(Vec::len);
    assert_eq!(told, json["summary"]["errors"].as_u64().map(|n| usize::try_from(n).unwrap()));
    assert_eq!(json["violations"][0]["place"]["source"], "m");
}

#[test]
fn what_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "m/app.yaml", &service("app", "    envFile: [app.env]\n"));
    write(folder.path(), "m/app.env", "A=1\n");
    for path in ["m", ".", "m/app.yaml"] {
        let ran = run(&["validate", path], folder.path());
        assert_eq!((ran.code, ran.out.as_str()), (0, "1 object in 1 file: all valid\n"), "{path}");
    }
    write(folder.path(), "w/warn.yaml", &service("warn", "    secrets: [{name: s}]\n"));
    let ran = run(&["validate", "w", "m"], folder.path());
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!("validate_warning", ran.out);
    fs::create_dir(folder.path().join("empty")).unwrap();
    assert_eq!(run(&["validate", "empty"], folder.path()).out, "0 objects in 0 files: nothing of quaymaster.dev was found\n");
}

#[test]
fn what_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(&["validate", "missing"], folder.path());
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.starts_with("error: missing cannot be read"), "{}", ran.err);
    std::os::unix::fs::symlink("/etc/hostname", folder.path().join("out.yaml")).unwrap();
    let mut bytes = b"apiVersion: quaymaster.dev/v1alpha1\nkind: ".to_vec();
    bytes.extend([0xff, 0xfe, b'\n']);
    fs::write(folder.path().join("latin.yaml"), bytes).unwrap();
    let ran = run(&["validate"], folder.path());
    assert_eq!(ran.code, 2);
    insta::assert_snapshot!("validate_unreadable", ran.out);
}

#[test]
fn standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(&["validate", "-"], folder.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(service("app", "    imge: x\n").as_bytes()).unwrap();
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 2);
    assert!(ran.out.contains("<stdin>:7:5"), "{}", ran.out);
}

#[test]
fn codes_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(&["explain", "qm0007"], folder.path());
    assert_eq!(ran.code, 0);
    assert!(ran.out.starts_with("# QM0007: "), "{}", ran.out);
    assert!(run(&["explain"], folder.path()).out.lines().count() > 30);
}

#[test]
fn schemas_and_completions() {
    let folder = tempfile::tempdir().unwrap();
    let json = |arguments: &[&str]| serde_json::from_str::<Value>(&run(arguments, folder.path()).out).unwrap();
    assert!(json(&["schema"]).is_object());
    assert_eq!(json(&["schema", "msvc"])["properties"]["kind"]["enum"][0], "MiniService");
    let crds = run(&["schema", "--crd"], folder.path()).out;
    assert_eq!(crds.matches("kind: CustomResourceDefinition").count(), 3);
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&["completions", shell], folder.path());
        assert!(ran.code == 0 && ran.out.contains("validate"), "{shell}");
    }
}

#[test]
fn help_has_examples_and_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    assert!(run(&["--help"], folder.path()).out.contains("Exit codes:"));
    let ran = run(&["wait", "--help"], folder.path());
    assert!(ran.code == 0 && ran.out.contains("Examples:"), "{}", ran.out);
}
