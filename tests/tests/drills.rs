//! Drills through the real binary, without Docker: those of the examples, wrong ones, bad ones, and `what-if` on folders and on an operator.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use qm_tests::support::operator::binary;
use qm_tests::support::wait;
use serde_json::Value;
use tempfile::TempDir;

fn examples() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is")).join("../examples")
}

/// How a run ended.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn command(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env("NO_COLOR", "1").env_remove("QUAYMASTER_SOCKET");
    command
}

fn run(arguments: &[&str], folder: &Path) -> Ran {
    let output = command(arguments, folder).output().expect("the operator's binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("its output is UTF-8");
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// The example of Vault and Redis, with one more drill.
fn with_drill(drill: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    fs::copy(examples().join("drills/app.yaml"), folder.path().join("app.yaml")).expect("the example is there");
    fs::write(folder.path().join("my.drill.yaml"), drill).expect("a file can be written");
    folder
}

/// Tags that are closed in their order, attributes in quotes, and no bare `&` or `<`.
fn assert_well_formed(xml: &str) {
    let body = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").expect("it begins like XML");
    let mut open: Vec<&str> = Vec::new();
    for part in body.split('<').skip(1) {
        let (tag, text) = part.split_once('>').expect("a tag ends");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        for after in tag.split('&').skip(1).chain(text.split('&').skip(1)) {
            assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|entity| after.starts_with(entity)), "&{after}");
        }
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{xml}"),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap_or_default()),
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[test]
fn the_drills_of_the_platform_pass() {
    let ran = run(&["test", "platform"], &examples());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    let verdicts: Vec<&str> = ran.out.lines().filter_map(|line| line.strip_prefix("ok      ")?.split("  (").next()).collect();
    assert_eq!(
        verdicts,
        [
            "one database cannot start, and everything else does what its edges say",
            "Redis crashes once and is started again",
            "Redis dies, each dependent follows its edge, and those that must reload do so once",
            "Vault is away for ten minutes, and returns",
        ]
    );
    assert!(ran.out.lines().last().is_some_and(|line| line.starts_with("4 drills: all ok; ")), "{}", ran.out);
}

#[test]
fn the_same_drills_give_the_same_bytes_and_reports_for_machines() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let runs = ["a.xml", "b.xml"].map(|file| {
        let junit = folder.path().join(file);
        let ran = run(&["test", "drills", "--format", "json", "--junit", junit.to_str().expect("a plain path")], &examples());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
        (ran.out, fs::read_to_string(junit).expect("the report was written"))
    });
    assert!(runs[0] == runs[1], "two runs differ");
    let (json, xml) = &runs[0];
    let json: Value = serde_json::from_str(json).expect("it is JSON");
    assert_eq!((&json["summary"]["drills"], &json["summary"]["failed"]), (&7.into(), &0.into()));
    let vault = json["drills"].as_array().into_iter().flatten().find(|d| d["drill"] == "Vault is away for ten minutes").expect("it ran");
    let flips: Vec<(u64, &Value)> = vault["timeline"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["service"] == "notify/app-db" && entry["stands"].is_object())
        .map(|entry| (entry["at"].as_f64().expect("a time") as u64, &entry["stands"]["severity"]))
        .collect();
    // Two failed probes five seconds apart, then two minutes of tolerance; and the return at once.
    assert_eq!(flips, [(125, &4.into()), (600, &1.into())]);
    assert_well_formed(xml);
    assert!(xml.contains("<testsuite name=\"drills/vault.drill.yaml\" tests=\"4\" failures=\"0\""), "{xml}");
}

#[test]
fn a_wrong_expectation_fails_and_says_why() {
    let folder = with_drill(
        "drill: wrong\nsteps:\n  - {at: 0s, do: down vault for 10m}\n  - {at: 9m, expect: {jwt: {availability: 4}, app-db: {usable: false}}}\n  - {at: end, expect: {reloads: 0}}\n",
    );
    let ran = run(&["test", "--junit", "r.xml"], folder.path());
    assert_eq!((ran.code, ran.err.as_str()), (1, ""), "{}", ran.out);
    for part in [
        "FAILED  wrong  (10m",
        "        at 9m00.0s my.drill.yaml:4:43\n          expected  notify/jwt: availability 4 TemporarilyUnavailable\n          found     1 Available Reported\n",
        "        what happened\n          +0.0s      notify/vault  <- down vault for 10m\n",
        "        at the end, 10m",
        "          expected  reloads 0\n          found     1, of notify/app-db\n",
        "  +10m02.0s  notify/app-db   reloads (restart): notify/vault returned\n",
        "1 drill: 1 failed; ",
    ] {
        assert!(ran.out.contains(part), "no `{part}` in:\n{}", ran.out);
    }
    let xml = fs::read_to_string(folder.path().join("r.xml")).expect("the report was written");
    assert_well_formed(&xml);
    assert_eq!(xml.matches("<failure ").count(), 2, "{xml}");
}

#[test]
fn bad_drills_and_manifests_are_refused_at_their_place() {
    for (drill, parts) in [
        (
            "drill: d\nsteps:\n  - {at: 0s, do: down vualt}\n  - {at: end, expect: {app: {usble: true}}}\n",
            &["my.drill.yaml:4:", "there is no field `usble`", "did you mean `usable`?"][..],
        ),
        (
            "drill: d\nsteps:\n  - {at: 0s, do: down vualt}\n",
            &["my.drill.yaml:3:18", "there is no service `vualt`", "did you mean `vault`?"],
        ),
        (
            "drill: d\nsteps:\n  - {at: 0s, do: crash vault}\n",
            &["notify/vault has no container that could crash", "`down SERVICE for TIME`"],
        ),
        (
            "drill: d\ngiven: {manifests: nowhere}\nsteps: [{at: end, expect: {all: usable}}]\n",
            &["my.drill.yaml:2:20", "nowhere is no folder"],
        ),
    ] {
        let folder = with_drill(drill);
        let ran = run(&["test"], folder.path());
        assert_eq!((ran.code, ran.err.as_str()), (2, ""), "{}", ran.out);
        parts.iter().for_each(|part| assert!(ran.out.contains(part), "no `{part}` in:\n{}", ran.out));
    }
    let folder = with_drill("drill: d\nsteps: [{at: end, expect: {all: usable}}]\n");
    let manifest = folder.path().join("app.yaml");
    let text = fs::read_to_string(&manifest).expect("it was copied").replace("failureThreshold", "failureTreshold");
    fs::write(&manifest, text).expect("it can be written");
    let ran = run(&["test"], folder.path());
    assert_eq!(ran.code, 2, "{}", ran.out);
    assert!(ran.out.contains("app.yaml:11:5") && ran.out.contains("did you mean `failureThreshold`?"), "{}", ran.out);
}

#[test]
fn who_has_no_drill_is_told_how_to_write_one() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let ran = run(&["test", "."], folder.path());
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{}", ran.err);
    let (_, example) = ran.err.split_once("beside your manifests:\n").expect("an example");
    let example: String =
        example.lines().take_while(|line| !line.starts_with("docs/")).map(|l| format!("{}\n", l.trim_start_matches("  "))).collect();
    // What is told works.
    let folder = with_drill(&example);
    let ran = run(&["test"], folder.path());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}\n{example}", ran.out);
}

#[test]
fn a_drill_that_never_settles_and_one_that_never_begins_say_so() {
    let world = |behaviour: &str| {
        let rule = "{labels: {quaymaster.dev/name: redis}, behaviour: ";
        format!(
            "drill: d\ngiven: {{world: {{containers: [{rule}{behaviour}}}]}}, start: START}}\nsteps: [{{at: end, expect: {{restarts: 0}}}}]\n"
        )
    };
    let flapping = world("{flapMs: 15000}").replace("START", "Cold");
    let ran = run(&["test"], with_drill(&flapping).path());
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.out.contains("expected  nothing changes any more") && ran.out.contains("notify/redis"), "{}", ran.out);
    let crashing = world("{exitAfterMs: 1000, crashLoop: true}").replace("START", "Warm");
    let ran = run(&["test"], with_drill(&crashing).path());
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.out.contains("everything comes up before the drill begins") && ran.out.contains("notify/redis is "), "{}", ran.out);
}

#[test]
fn servers_outside_answer_in_their_own_protocol() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let probes = [
        ("tcp", "tcp: {host: t.example, port: 25}"),
        ("http", "http: {url: \"http://h.example/x\", status: 204}"),
        ("vault", "vault: {url: \"http://v.example:8200\"}"),
        ("redis", "redis: {url: \"redis://r.example\"}"),
        ("redis-login", "redis: {url: \"redis://l.example\", password: cache}"),
        ("postgres", "postgres: {url: \"postgres://p.example/app\"}"),
        ("postgres-login", "postgres: {url: \"postgres://q.example/app\", user: app, password: base}"),
    ];
    let manifests = probes.map(|(name, probe)| {
        format!("---\napiVersion: quaymaster.dev/v1alpha1\nkind: MiniService\nmetadata: {{name: {name}}}\nspec: {{external: {{probe: {{{probe}}}}}}}\n")
    });
    fs::write(folder.path().join("outside.yaml"), manifests.concat()).expect("it can be written");
    let acts: Vec<String> = probes.iter().map(|(name, _)| format!("down {name} for 5m")).collect();
    let lost: Vec<String> = probes.iter().map(|(name, _)| format!("{name}: {{reason: ProbeFailed}}")).collect();
    let drill = format!(
        "drill: d\nsteps:\n  - {{at: 0s, do: [{}]}}\n  - {{at: 4m, expect: {{{}}}}}\n  - {{at: end, expect: {{all: available}}}}\n",
        acts.join(", "),
        lost.join(", ")
    );
    fs::write(folder.path().join("d.drill.yaml"), drill).expect("it can be written");
    let ran = run(&["test"], folder.path());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
}

#[test]
fn a_drill_is_no_manifest() {
    let ran = run(&["validate", "drills"], &examples());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    assert!(ran.out.contains("8 objects in 1 file: all valid"), "{}", ran.out);
}

#[test]
fn what_would_come_of_a_failure_is_told() {
    let ran = run(&["what-if", "down vault 10m", "drills"], &examples());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    for part in [
        "what if: down vault 10m\n",
        "  +2m05.0s   notify/app-db   4 TemporarilyUnavailable DependencyUnavailable, because of notify/vault\n",
        "restarts  none\nreloads   notify/app-db\nafter 10m02.0s everything is as it was\n",
    ] {
        assert!(ran.out.contains(part), "no `{part}` in:\n{}", ran.out);
    }
    let ran = run(&["what-if", "down redis", "drills", "-n", "notify", "-o", "json"], &examples());
    assert_eq!((ran.code, ran.err.as_str()), (1, ""), "{}", ran.out);
    let json: Value = serde_json::from_str(&ran.out).expect("it is JSON");
    let unhealed: Vec<&Value> = json["unhealed"].as_array().into_iter().flatten().map(|one| &one["service"]).collect();
    assert_eq!(unhealed, ["notify/redis", "notify/sessions", "notify/push"]);
    for (act, code, words) in
        [("dwn redis", 2, "did you mean `down`?"), ("down rediss", 2, "did you mean `redis`?"), ("crash vault", 2, "has no container")]
    {
        let ran = run(&["what-if", act, "drills"], &examples());
        assert!(ran.code == code && ran.err.contains(words), "{act}: {}", ran.err);
    }
}

/// An operator on a simulated engine; ended when dropped.
struct Sandbox(Child);

impl Drop for Sandbox {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_running_operator_is_asked_for_what_it_has() {
    let folder = with_drill("drill: d\nsteps: []\n");
    let manifests = folder.path().join("manifests");
    fs::create_dir(&manifests).expect("a folder can be made");
    let app = fs::read_to_string(examples().join("platform/stores/stores.yaml")).expect("the example is there");
    fs::write(manifests.join("stores.yaml"), app).expect("it can be written");
    fs::copy(examples().join("platform/networks.yaml"), manifests.join("networks.yaml")).expect("the example is there");
    let nobody = run(&["what-if", "crash redis", "--socket", "s"], folder.path());
    assert_eq!(nobody.code, 3, "{}", nobody.err);
    assert!(nobody.err.contains("name the folder of the manifests"), "{}", nobody.err);
    let arguments = ["run", "--engine", "sim", "--manifests", "manifests", "--data-dir", "d", "--socket", "s"];
    let started = command(&arguments, folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
    let _sandbox = Sandbox(started);
    let known = wait::until(Duration::from_secs(30), || {
        let ran = run(&["get", "msvc/redis", "-n", "notify", "--socket", "s"], folder.path());
        if ran.code == 0 { Ok(()) } else { Err(ran.err) }
    });
    assert_eq!(known, Ok(()));
    let ran = run(&["what-if", "crash redis", "--socket", "s"], folder.path());
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("restarts  notify/redis\n") && ran.out.contains("everything is as it was"), "{}", ran.out);
}

#[test]
fn what_is_probed_by_a_command_goes_and_comes_back() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let manifests = "\
apiVersion: quaymaster.dev/v1alpha1
kind: MiniService
metadata: {name: db, namespace: n}
spec: {external: {probe: {command: {image: 'postgres:16', command: [pg_isready]}}, interval: 10s, failureThreshold: 2}}
---
apiVersion: quaymaster.dev/v1alpha1
kind: MiniService
metadata: {name: app, namespace: n}
spec: {container: {image: 'example/app:1'}, dependsOn: [{service: db, onUp: Restart}]}
";
    fs::write(folder.path().join("app.yaml"), manifests).expect("a file can be written");
    let drill = "\
drill: the database is away
given: {manifests: .}
steps:
  - {at: 0s, do: down db for 5m}
  - {at: 1m, expect: {db: {usable: false, reason: ProbeFailed}, app: {usable: false, because: db}, restarts: 0}}
  - {at: end, expect: {all: available, app: {reloads: 1, restarts: 1}}}
";
    fs::write(folder.path().join("my.drill.yaml"), drill).expect("a file can be written");
    let ran = run(&["test", "."], folder.path());
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
}

#[test]
fn what_can_never_fail_is_refused() {
    for (expectation, says) in
        [("{app: {because: []}}", "is an empty list"), ("{app: {}}", "is an empty map"), ("{order: []}", "is an empty list")]
    {
        let folder = with_drill(&format!("drill: d\ngiven: {{manifests: .}}\nsteps:\n  - {{at: 0s, expect: {expectation}}}\n"));
        let ran = run(&["test", "."], folder.path());
        assert_eq!(ran.code, 2, "{}{}", ran.out, ran.err);
        assert!(format!("{}{}", ran.out, ran.err).contains(says), "{}{}", ran.out, ran.err);
    }
    let empty = tempfile::tempdir().expect("a folder can be made");
    fs::write(empty.path().join("my.drill.yaml"), "drill: d\nsteps:\n  - {at: 0s, expect: {all: usable}}\n").expect("a file");
    let ran = run(&["test", "."], empty.path());
    assert_eq!(ran.code, 2, "{}{}", ran.out, ran.err);
    assert!(format!("{}{}", ran.out, ran.err).contains("there are no manifests"), "{}{}", ran.out, ran.err);
}
