//! Commands that ask an operator: what they ask, what they print, how they end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::fake::{Asked, Fake, Reply};
use crate::{program, ran, run};

const BASE: &str = "/apis/quaymaster.dev/v1alpha1";
const SERVICES: &str = "/apis/quaymaster.dev/v1alpha1/namespaces/notify/miniservices";

fn table(rows: &[(&str, &str)]) -> Value {
    let row =
        |(name, usable): &(&str, &str)| json!({"cells": [name, usable], "object": {"metadata": {"namespace": "notify", "name": name}}});
    let rows: Vec<Value> = rows.iter().map(row).collect();
    let columns = json!([{"name": "Name", "priority": 0}, {"name": "Usable", "priority": 0}]);
    json!({"kind": "Table", "metadata": {"resourceVersion": "7"}, "columnDefinitions": columns, "rows": rows})
}

#[test]
fn nobody_listens() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.sock");
    let left = folder.path().join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    let commands = [
        "get msvc",
        "describe msvc/app",
        "status",
        "graph",
        "wait msvc/app",
        "events",
        "logs app",
        "reconcile --all",
        "suspend -n x",
        "approve abcd",
        "retry msvc/app",
        "restart app",
        "backup -",
        "plan",
    ];
    for command in commands {
        for (socket, says) in [(&missing, "no operator listens at"), (&left, "left behind by one that has ended")] {
            let words: Vec<&str> = command.split(' ').chain(["--socket", socket.to_str().unwrap()]).collect();
            let ran = run(&words, folder.path());
            assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{command}");
            assert!(ran.err.starts_with("error: no operator listens at "), "{}", ran.err);
            assert!(ran.err.contains(says) && ran.err.contains("--socket") && ran.err.lines().count() == 1, "{}", ran.err);
        }
    }
    let long = format!("/{}", "x".repeat(120));
    let ran = run(&["status", "--socket", &long], folder.path());
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("longer than 107 bytes"), "{}", ran.err);
    let named = crate::ran(program(&["status"], folder.path()).env("QUAYMASTER_SOCKET", &missing).output().unwrap());
    assert!(named.code == 3 && named.err.contains("none.sock"), "{}", named.err);
}

#[test]
fn usage_is_2() {
    let folder = tempfile::tempdir().unwrap();
    let lines: [&[&str]; 8] =
        [&[], &["nope"], &["get"], &["get", "nope"], &["get", "msvc/a", "-A"], &["suspend"], &["explain", "QM9999"], &["schema", "lease"]];
    for line in lines {
        let ran = run(line, folder.path());
        assert_eq!(ran.code, 2, "{line:?}: {}", ran.err);
        assert!(!ran.err.is_empty());
    }
    assert!(run(&["suspend"], folder.path()).err.contains("say what to suspend: KIND/NAME, -n NS for a namespace, or --all"));
}

#[test]
fn refusals_have_codes() {
    let table = [(404, 1), (403, 1), (409, 1), (400, 2), (422, 2), (500, 1), (501, 1), (503, 3), (504, 4)];
    for (status, code) in table {
        let fake = Fake::new(move |_| Reply::status(status, "X", "no, because\u{1b}[31m of that"));
        let ran = fake.run(&["graph"]);
        assert_eq!((ran.code, ran.err.as_str()), (code, "error: no, because [31m of that\n"), "{status}");
    }
    let fake = Fake::new(|_| Reply::Text(502, String::new()));
    assert_eq!(fake.run(&["graph"]).err, "error: the operator answered 502 Bad Gateway\n");
    let fake = Fake::new(|_| Reply::Text(200, "<html>".to_owned()));
    let ran = fake.run(&["graph"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("cannot be read"), "{}", ran.err);
}

#[test]
fn get_in_all_forms() {
    let fake = Fake::new(|asked| {
        let object = |name: &str| json!({"kind": "MiniService", "metadata": {"name": name}});
        match (asked.accept.contains("as=Table"), asked.path.ends_with("/app"), asked.path.ends_with("/gone")) {
            (_, _, true) => Reply::status(404, "NotFound", "miniservices \"gone\" not found"),
            (true, true, _) => Reply::Json(200, table(&[("app", "true")])),
            (true, false, _) => Reply::Json(200, table(&[("app", "true"), ("web", "false")])),
            (false, true, _) => Reply::Json(200, object("app")),
            (false, false, _) => Reply::Json(200, json!({"kind": "List", "items": [object("app"), object("web")]})),
        }
    });
    let get = |more: &[&str]| fake.run(&[&["get"], more].concat());
    assert_eq!(get(&["msvc", "-n", "notify", "-l", "tier=web"]).out, "NAME   USABLE\napp    true\nweb    false\n");
    assert_eq!(fake.log(), [format!("GET {SERVICES}?labelSelector=tier%3Dweb")]);
    assert_eq!(get(&["msvc", "-A"]).out, "NAMESPACE   NAME   USABLE\nnotify      app    true\nnotify      web    false\n");
    assert_eq!(get(&["msvc", "-o", "name"]).out, "miniservice/app\nminiservice/web\n");
    assert_eq!(get(&["MiniService/app", "-o", "yaml"]).out, "kind: MiniService\nmetadata:\n  name: app\n");
    assert_eq!(serde_json::from_str::<Value>(&get(&["msvc", "app", "-o", "json"]).out).unwrap()["metadata"]["name"], "app");
    assert_eq!(get(&["msvc", "app", "app"]).out, "NAME   USABLE\napp    true\napp    true\n");
    let both = get(&["msvc,qnet"]).out;
    assert!(both.starts_with("NAME              USABLE\nminiservice/app   true\n"), "{both}");
    assert!(both.ends_with("\n\nNAME          USABLE\nnetwork/app   true\nnetwork/web   false\n"), "{both}");
    let ran = get(&["msvc", "app", "gone", "-o", "name"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (1, "miniservice/app\n", "error: miniservices \"gone\" not found\n"));
    let empty = Fake::new(|_| Reply::Json(200, table(&[])));
    let ran = empty.run(&["get", "msvc"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert_eq!(ran.err, "no msvc in namespace default (-A looks into all namespaces)\n");
}

#[test]
fn get_and_events_watch_until_the_operator_ends_it() {
    let fake = Fake::new(|asked| {
        let of = json!({"kind": "MiniService", "namespace": "notify", "name": "app"});
        let happening = json!({"type": "Normal", "reason": "Started", "message": "started", "involvedObject": of});
        let event = |kind: &str, object: Value| json!({"type": kind, "object": object});
        match (asked.path.contains("/events"), asked.path.contains("watch=true")) {
            (false, false) => Reply::Json(200, table(&[("app", "false")])),
            (false, true) => Reply::Lines(vec![event("MODIFIED", table(&[("app", "true")])), event("BOOKMARK", json!({}))]),
            (true, false) => Reply::Json(200, json!({"metadata": {"resourceVersion": "3"}, "items": []})),
            (true, true) => Reply::Lines(vec![event("ADDED", happening)]),
        }
    });
    assert_eq!(fake.run(&["get", "msvc/app", "-n", "notify", "-w"]).out, "NAME   USABLE\napp    false\napp    true\n");
    assert_eq!(fake.log()[1], format!("GET {SERVICES}?fieldSelector=metadata.name%3Dapp&resourceVersion=7&watch=true"));
    let ran = fake.run(&["events", "--for", "msvc/app", "-n", "notify", "-w"]);
    assert!(ran.out.contains("Started") && ran.out.contains("miniservice/notify/app"), "{}", ran.out);
    let filter = "fieldSelector=involvedObject.kind%3DMiniService%2CinvolvedObject.name%3Dapp";
    assert_eq!(fake.log()[2], format!("GET /api/v1/namespaces/notify/events?{filter}"));
    assert_eq!(fake.log()[3], format!("GET /api/v1/namespaces/notify/events?{filter}&resourceVersion=3&watch=true"));
}

#[test]
fn describe_shows_the_object_even_without_events() {
    let fake = Fake::new(|asked| match asked.path.starts_with("/api/v1") {
        true => Reply::status(503, "ServiceUnavailable", "not now"),
        false => {
            Reply::Json(200, json!({"kind": "Network", "metadata": {"name": "data", "namespace": "notify"}, "spec": {"zone": "data"}}))
        }
    });
    let ran = fake.run(&["describe", "qnet/data", "-n", "notify"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("zone: data") && ran.err.contains("not now"), "{}{}", ran.out, ran.err);
}

#[test]
fn status_says_by_its_code_whether_all_is_well() {
    for (usable, code) in [(true, 0), (false, 1)] {
        let fake = Fake::new(move |asked| {
            let status = json!({"usable": usable, "severity": 1, "availability": "Unavailable", "reason": "CrashLoop"});
            match asked.path.as_str() {
                "/quaymaster/v1/overview" => {
                    Reply::Json(200, json!({"engine": {"reachable": true}, "counts": {"services": 1, "usable": u8::from(usable)}}))
                }
                _ => Reply::Json(200, json!({"items": [{"metadata": {"name": "app", "namespace": "n"}, "status": status}]})),
            }
        });
        let ran = fake.run(&["status"]);
        assert_eq!((ran.code, ran.out.contains("All is well.")), (code, usable), "{}", ran.out);
        let lists = ["miniservices", "networks", "minicontainers"].map(|list| format!("GET {BASE}/{list}"));
        let asked = ["GET /quaymaster/v1/overview".to_owned()].into_iter().chain(lists).chain(["POST /quaymaster/v1/plan".to_owned()]);
        assert_eq!(fake.log(), asked.collect::<Vec<_>>());
    }
}

#[test]
fn logs_pass_through() {
    let fake = Fake::new(|asked| match asked.path.contains("slot=9") {
        true => Reply::Broken("half".to_owned()),
        false => Reply::Text(200, "[1] a\n[2] b\n".to_owned()),
    });
    let ran = fake.run(&["logs", "app", "-n", "notify", "-f", "--tail", "5", "--timestamps"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "[1] a\n[2] b\n"));
    assert_eq!(fake.log(), [format!("GET {SERVICES}/app/log?follow=true&tailLines=5&timestamps=true")]);
    let ran = fake.run(&["logs", "app", "--slot", "9"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("connection to the operator was lost"), "{}", ran.err);
}

/// The one POST to the API that was made.
fn posted(fake: &Fake) -> Asked {
    let posts: Vec<Asked> = fake.asked().into_iter().filter(|asked| asked.path.starts_with("/apis")).collect();
    assert_eq!(posts.len(), 1, "{posts:?}");
    posts[0].clone()
}

#[test]
fn acts_of_a_person() {
    let until = "2026-11-22T11:00:00Z";
    let lasting = json!({"scope": {"namespace": "notify"}, "for": "1h30m", "reason": "why"});
    let one = "miniservice/app in namespace notify";
    let table: [(&str, String, Value, String); 7] = [
        ("reconcile msvc/app -n notify", format!("{SERVICES}/app/reconcile"), json!({}), format!("{one} is planned again")),
        ("reconcile --all", format!("{BASE}/actions/reconcile"), json!({"scope": {}}), "everything is planned again".to_owned()),
        (
            "suspend -n notify --for 90m --reason why",
            format!("{BASE}/actions/suspend"),
            lasting,
            format!("namespace notify is suspended until {until}"),
        ),
        (
            "resume --source /srv",
            format!("{BASE}/actions/resume"),
            json!({"scope": {"source": "/srv"}}),
            "source /srv is resumed".to_owned(),
        ),
        (
            "suspend qnet/data",
            format!("{BASE}/namespaces/default/networks/data/suspend"),
            json!({}),
            format!("network/data in namespace default is suspended until {until}"),
        ),
        ("retry msvc/app -n notify", format!("{SERVICES}/app/retry"), json!({}), format!("{one} is tried again")),
        ("restart app -n notify", format!("{SERVICES}/app/restart"), json!({}), format!("{one} is restarted")),
    ];
    for (command, path, expected, out) in table {
        let fake = Fake::new(move |asked| {
            let until = if asked.path.ends_with("suspend") { json!(until) } else { Value::Null };
            Reply::Json(201, json!({"kind": "Intent", "spec": {"until": until}}))
        });
        let ran = fake.run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!((ran.code, ran.out.trim_end()), (0, out.as_str()), "{command} {}", ran.err);
        let mut asked = posted(&fake);
        let actor = asked.body.as_object_mut().and_then(|body| body.remove("actor")).unwrap_or_default();
        assert!(actor.as_str().unwrap_or_default().starts_with("ann@"), "{actor}");
        assert_eq!((asked.method.as_str(), asked.path, asked.body), ("POST", path, expected));
    }
}

fn approvals(asked: &Asked) -> Reply {
    let step = |hash: &str, name: &str| {
        let object = json!({"kind": "Network", "namespace": "n", "name": name});
        json!({"hash": hash, "verb": "remove", "needsApproval": true, "object": object, "causeText": "orphan"})
    };
    match asked.path.as_str() {
        "/quaymaster/v1/plan" => Reply::Json(200, json!({"text": "", "plan": {"steps": [step("abcd1111", "x"), step("abcd2222", "y")]}})),
        "/quaymaster/v1/overview" => {
            Reply::Json(200, json!({"sources": [{"id": "s", "pruneHeld": {"stepHash": "ffff0000", "message": "all is gone"}}]}))
        }
        _ => Reply::Json(201, json!({"kind": "Intent"})),
    }
}

#[test]
fn approve_finds_the_step() {
    let table = [("ABCD1", "abcd1111", "remove Network n/x  orphan"), ("ffff", "ffff0000", "removal held for source s: all is gone")];
    for (hash, full, text) in table {
        let fake = Fake::new(approvals);
        let ran = fake.run(&["approve", hash, "--reason", "ok"]);
        assert_eq!((ran.code, ran.out), (0, format!("approved {full}: {text}\n")), "{}", ran.err);
        let asked = posted(&fake);
        assert_eq!(asked.path, format!("{BASE}/actions/approve"));
        assert_eq!((&asked.body["stepHash"], &asked.body["reason"]), (&json!(full), &json!("ok")));
    }
    let fake = Fake::new(approvals);
    let ran = fake.run(&["approve", "abcd"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("is the beginning of 2 hashes"), "{}", ran.err);
    assert_eq!(fake.asked().len(), 2, "nothing was approved");
}

#[test]
fn plans() {
    let step = json!({"hash": "h", "verb": "create", "object": {"kind": "MiniService", "namespace": "n", "name": "app"}});
    let answer = |steps: Value, text: &str| json!({"plan": {"steps": steps, "findings": [], "summary": text}, "text": text});
    let differs = answer(json!([step]), "create MiniService n/app.1  new\nPlan: 1 to create.");
    let nothing = answer(json!([]), "Nothing to do.");
    let mut blind = nothing.clone();
    blind["plan"]["findings"] = json!([{"reason": "EngineUnreachable", "message": "the engine cannot be observed"}]);
    for (given, code) in [(differs, 1), (nothing, 0), (blind, 3)] {
        let expected = given.clone();
        let fake = Fake::new(move |_| Reply::Json(200, given.clone()));
        let ran = fake.run(&["plan"]);
        assert_eq!((ran.code, ran.out), (code, format!("{}\n", expected["text"].as_str().unwrap())));
        assert_eq!(fake.asked()[0].body, json!({}));
        let ran = fake.run(&["plan", "--format", "json"]);
        assert_eq!((ran.code, serde_json::from_str::<Value>(&ran.out).unwrap()), (code, expected["plan"].clone()));
    }
}

const MANIFEST: &str = "apiVersion: quaymaster.dev/v1alpha1\nkind: MiniService\nmetadata: {name: app, namespace: n}\n\
spec:\n  container:\n    image: busybox:1\n    envFile: [conf/app.env]\n";

fn manifests(folder: &Path) {
    fs::create_dir_all(folder.join("m/conf")).unwrap();
    fs::write(folder.join("m/app.yaml"), MANIFEST).unwrap();
    fs::write(folder.join("m/conf/app.env"), "A=1\n").unwrap();
}

#[test]
fn a_plan_of_a_folder_sends_its_files_and_shows_what_is_wrong() {
    let fake = Fake::new(|asked| {
        let start = MANIFEST.find("busybox").unwrap();
        let place = json!({"source": asked.body["sources"][0]["id"], "file": "app.yaml", "line": 6, "column": 12, "start": start, "end": start + 9});
        let violation = json!({"severity": "Error", "code": "QM0031", "path": "spec.container.image", "message": "it will not do", "help": "take another", "place": place});
        Reply::Json(422, json!({"kind": "Status", "code": 422, "message": "the manifests are not valid", "violations": [violation]}))
    });
    manifests(fake.folder());
    let ran = fake.run(&["plan", "m"]);
    assert_eq!((ran.code, ran.err.as_str()), (2, "the manifests are not valid\n"), "{}", ran.out);
    let real = fake.folder().canonicalize().unwrap();
    insta::assert_snapshot!("plan_violations", ran.out.replace(real.to_str().unwrap(), "FOLDER"));
    let source = &fake.asked()[0].body["sources"][0];
    assert_eq!(source["id"].as_str(), real.join("m").to_str());
    let files: Vec<&String> = source["files"].as_object().unwrap().keys().collect();
    assert_eq!(files, ["app.yaml", "conf/app.env"]);
    assert_eq!(source["files"]["conf/app.env"], "QT0xCg==");
    fake.run(&["plan", "prod=m"]);
    assert_eq!(fake.asked()[1].body["sources"][0]["id"], "prod");
}

#[test]
fn a_plan_without_operator_and_engine_is_3_and_of_bad_manifests_2() {
    let folder = tempfile::tempdir().unwrap();
    manifests(folder.path());
    let plan = |dir: &str| run(&["plan", dir, "--socket", "none.sock", "--docker-host", "unix:///nowhere/docker.sock"], folder.path());
    let ran = plan("m");
    assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{}", ran.err);
    assert!(ran.err.contains("no operator listens at none.sock") && ran.err.contains("unix:///nowhere/docker.sock"), "{}", ran.err);
    fs::write(folder.path().join("m/bad.yaml"), "apiVersion: quaymaster.dev/v1alpha1\nkind: MiniServce\n").unwrap();
    let ran = plan("m");
    assert_eq!(ran.code, 2);
    assert!(ran.out.contains("QM0006"), "{}", ran.out);
    assert_eq!(plan("missing").code, 2);
}

#[test]
fn backup_and_restore() {
    let made = tempfile::tempdir().unwrap();
    let backend = qm_store::backend::Redb::at(made.path().join("store.redb"));
    let store = qm_store::Store::open(Box::new(backend), qm_store::Options::default()).unwrap();
    let mut bytes = Vec::new();
    store.backup(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let whole = text.clone();
    let fake = Fake::new(move |_| Reply::Text(200, whole.clone()));
    let ran = fake.run(&["backup", "b"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, "0 objects written to b\n"));
    let file = fake.folder().join("b");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fake.run(&["backup", "-"]).out, text);
    let ran = fake.run(&["backup", "b"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("b exists"), "{}", ran.err);

    let ran = run(&["restore", "b", "--data-dir", "new/data"], fake.folder());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(fake.folder().join("new/data/store.redb").exists());
    fs::write(fake.folder().join("odd"), "hello\n").unwrap();
    let ran = run(&["restore", "odd", "--data-dir", "other"], fake.folder());
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("error: nothing was restored from odd: this is not a backup"), "{}", ran.err);
    assert_eq!(run(&["restore", "missing", "--data-dir", "other"], fake.folder()).code, 2);
}

#[test]
fn a_backup_that_is_cut_off_leaves_no_file() {
    let cuts: [fn() -> Reply; 2] =
        [|| Reply::Text(200, "{\"format\":\"quaymaster-backup/1\"}\n".to_owned()), || Reply::Broken("{\"format\"".to_owned())];
    for cut in cuts {
        let fake = Fake::new(move |_| cut());
        let ran = fake.run(&["backup", "b"]);
        assert_ne!(ran.code, 0);
        let left: Vec<_> = fs::read_dir(fake.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["s.sock"], "{}", ran.err);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = program(&["explain"], folder.path());
    let ran = ran(command.stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn versions() {
    let fake = Fake::new(|_| Reply::Json(200, json!({"gitVersion": "v9.9.9"})));
    assert!(fake.run(&["version"]).out.contains("operator   v9.9.9 at "));
    let value: Value = serde_json::from_str(&fake.run(&["version", "-o", "json"]).out).unwrap();
    assert_eq!((&value["operator"]["gitVersion"], &value["apiVersion"]), (&json!("v9.9.9"), &json!("quaymaster.dev/v1alpha1")));
    let ran = run(&["version", "--socket", "none"], fake.folder());
    assert_eq!((ran.code, ran.out.lines().count()), (0, 1));
}
