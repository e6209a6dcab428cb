//! Containers, second half: how they start, stop, are killed, paused, waited for, restarted and looked into.

use serde_json::{Value, json};

use super::subject::{Subject, has, is_id, text};
use super::{Area, Case};

pub(super) const CASES: &[Case] = &[
    Case { area: Area::Containers, name: "start-stop", run: start_stop },
    Case { area: Area::Containers, name: "start-fails", run: start_fails },
    Case { area: Area::Containers, name: "restart", run: restart },
    Case { area: Area::Containers, name: "kill", run: kill },
    Case { area: Area::Containers, name: "pause", run: pause },
    Case { area: Area::Containers, name: "wait", run: wait },
    Case { area: Area::Containers, name: "auto-remove", run: auto_remove },
    Case { area: Area::Containers, name: "restart-policies", run: restart_policies },
    Case { area: Area::Containers, name: "health", run: health },
    Case { area: Area::Containers, name: "exec", run: exec },
    Case { area: Area::Containers, name: "logs", run: logs },
    Case { area: Area::Containers, name: "logs-follow", run: logs_follow },
    Case { area: Area::Containers, name: "top", run: top },
    Case { area: Area::Containers, name: "archive", run: archive },
    Case { area: Area::Containers, name: "archive-read-only", run: archive_read_only },
    Case { area: Area::Containers, name: "prune", run: prune },
];

/// A container that runs a line of shell.
fn shell(line: &str) -> Value {
    json!({ "Cmd": ["sh", "-c", line] })
}

fn start_stop(s: &Subject) {
    let id = s.create("a", json!({}));
    let act = |what: &str| s.post(&format!("/containers/{id}/{what}"));
    act("stop").empty(304);
    act("start").empty(204);
    act("start").empty(304);
    let runs = s.inspect(&id);
    has(&runs["State"], &json!({ "Status": "running", "Running": true, "ExitCode": 0, "Error": "", "FinishedAt": "0001-01-01T00:00:00Z" }));
    assert!(runs["State"]["Pid"].as_u64().is_some_and(|pid| pid > 0), "{runs}");
    let first = text(&runs["State"]["StartedAt"]);
    assert!(first > text(&runs["Created"]), "{runs}");
    act("stop?t=10").empty(204);
    // A `sleep` under an init ends by SIGTERM.
    let stopped = s.inspect(&id);
    has(&stopped["State"], &json!({ "Status": "exited", "Running": false, "Pid": 0, "ExitCode": 143, "Error": "", "StartedAt": first }));
    assert!(text(&stopped["State"]["FinishedAt"]) > first, "{stopped}");
    act("stop").empty(304);
    act("start").empty(204);
    let again = s.inspect(&id);
    has(&again, &json!({ "Id": id, "RestartCount": 0, "State": { "Status": "running", "ExitCode": 0 } }));
    assert!(text(&again["State"]["StartedAt"]) > first, "{again}");
    assert_eq!(again["State"]["FinishedAt"], stopped["State"]["FinishedAt"]);
}

fn start_fails(s: &Subject) {
    let id = s.create("a", json!({ "Cmd": ["/no/such/thing"], "HostConfig": { "Init": false } }));
    let refused = s.post(&format!("/containers/{id}/start"));
    refused.refused_with(400, "exec: \"/no/such/thing\": stat /no/such/thing: no such file or directory");
    let shown = s.inspect(&id);
    has(&shown["State"], &json!({ "Status": "created", "Running": false, "ExitCode": 127, "StartedAt": "0001-01-01T00:00:00Z" }));
    assert!(shown["State"]["Error"].as_str().is_some_and(|e| e.contains("no such file or directory")), "{shown}");
    let code = s.start("b", shell("exit 3"));
    has(&s.until_state(&code, "exited")["State"], &json!({ "ExitCode": 3, "Error": "" }));
}

fn restart(s: &Subject) {
    let id = s.create("a", json!({}));
    let act = |what: &str| s.post(&format!("/containers/{id}/{what}"));
    // What does not run is started.
    act("restart?t=1").empty(204);
    let first = s.inspect(&id);
    has(&first, &json!({ "RestartCount": 0, "State": { "Status": "running" } }));
    act("restart?t=1").empty(204);
    let second = s.inspect(&id);
    has(&second, &json!({ "Id": id, "RestartCount": 0, "State": { "Status": "running", "ExitCode": 0 } }));
    assert!(text(&second["State"]["StartedAt"]) > text(&first["State"]["StartedAt"]));
}

fn kill(s: &Subject) {
    let id = s.create("a", json!({}));
    let act = |what: &str| s.post(&format!("/containers/{id}/{what}"));
    act("kill").refused(409, &format!("Cannot kill container: {id}: Container {id} is not running"));
    act("start").empty(204);
    act("kill?signal=NONSENSE").refused(400, "Invalid signal: NONSENSE");
    act("kill").empty(204);
    has(&s.until_state(&id, "exited")["State"], &json!({ "ExitCode": 137, "OOMKilled": false, "Error": "" }));
    act("kill").refused(409, &format!("Cannot kill container: {id}: Container {id} is not running"));
    act("start").empty(204);
    act("kill?signal=SIGTERM").empty(204);
    has(&s.until_state(&id, "exited")["State"], &json!({ "ExitCode": 143 }));
}

fn pause(s: &Subject) {
    let id = s.create("a", json!({}));
    let act = |what: &str| s.post(&format!("/containers/{id}/{what}"));
    act("pause").refused(409, &format!("Container {id} is not running"));
    act("unpause").refused(500, &format!("Container {id} is not paused"));
    act("start").empty(204);
    act("unpause").refused(500, &format!("Container {id} is not paused"));
    act("pause").empty(204);
    has(&s.inspect(&id)["State"], &json!({ "Status": "paused", "Running": true, "Paused": true }));
    act("pause").refused(409, &format!("Container {id} is already paused"));
    act("start").refused(409, "cannot start a paused container, try unpause instead");
    act("unpause").empty(204);
    has(&s.inspect(&id)["State"], &json!({ "Status": "running", "Paused": false }));
    // A restart thaws; so do a stop and a kill.
    act("pause").empty(204);
    act("restart?t=1").empty(204);
    has(&s.inspect(&id)["State"], &json!({ "Status": "running", "Paused": false }));
    act("pause").empty(204);
    act("stop?t=1").empty(204);
    has(&s.inspect(&id)["State"], &json!({ "Status": "exited", "Paused": false, "ExitCode": 143 }));
    act("start").empty(204);
    act("pause").empty(204);
    act("kill").empty(204);
    has(&s.until_state(&id, "exited")["State"], &json!({ "Paused": false, "ExitCode": 137 }));
}

fn wait(s: &Subject) {
    let id = s.start("a", json!({}));
    let kill = || s.post(&format!("/containers/{id}/kill")).empty(204);
    let waits = s.post_while(&format!("/containers/{id}/wait"), kill);
    assert_eq!(waits.ok(200), json!({ "Error": null, "StatusCode": 137 }));
    // What has ended is answered at once; next-exit waits for another end.
    assert_eq!(s.post(&format!("/containers/{id}/wait?condition=not-running")).ok(200)["StatusCode"], 137);
    let waits = s.create("b", shell("exit 4"));
    s.post(&format!("/containers/{waits}/start")).empty(204);
    assert_eq!(s.post(&format!("/containers/{waits}/wait")).ok(200)["StatusCode"], 4);
    let next = s.post_while(&format!("/containers/{waits}/wait?condition=next-exit"), || {
        s.post(&format!("/containers/{waits}/start")).empty(204);
    });
    assert_eq!(next.ok(200)["StatusCode"], 4);
    let gone = s.start("c", json!({}));
    let removed = s.post_while(&format!("/containers/{gone}/wait?condition=removed"), || {
        s.delete(&format!("/containers/{gone}?force=1")).empty(204);
    });
    assert_eq!(removed.ok(200)["StatusCode"], 137);
}

fn auto_remove(s: &Subject) {
    let id = s.create("a", json!({ "Cmd": ["true"], "Volumes": { "/data": {} }, "HostConfig": { "AutoRemove": true } }));
    let volume = text(&s.inspect(&id)["Mounts"][0]["Name"]);
    s.post(&format!("/containers/{id}/start")).empty(204);
    s.until(|| if s.get(&format!("/containers/{id}/json")).code() == 404 { Ok(()) } else { Err("it is still there".to_owned()) });
    // Its nameless volumes go with it.
    s.get(&format!("/volumes/{volume}")).refused(404, &format!("get {volume}: no such volume"));
}

fn restart_policies(s: &Subject) {
    let policy = |name: &str, line: &str, times: u64| {
        let mut patch = shell(line);
        patch["HostConfig"] = json!({ "RestartPolicy": { "Name": name, "MaximumRetryCount": times } });
        patch
    };
    // Enough is enough.
    let twice = s.start("twice", policy("on-failure", "exit 5", 2));
    let shown = s.until_state(&twice, "exited");
    has(&shown, &json!({ "RestartCount": 2, "State": { "ExitCode": 5, "Restarting": false } }));
    // What went well is not tried again.
    let well = s.start("well", policy("on-failure", "exit 0", 0));
    has(&s.until_state(&well, "exited"), &json!({ "RestartCount": 0, "State": { "ExitCode": 0 } }));
    // Killed by a person from outside counts as failed, stopped does not count at all.
    let always = s.start("always", policy("always", "sleep 1000", 0));
    let first = text(&s.inspect(&always)["State"]["StartedAt"]);
    s.post(&format!("/containers/{always}/stop?t=1")).empty(204);
    has(&s.inspect(&always), &json!({ "RestartCount": 0, "State": { "Status": "exited" } }));
    s.post(&format!("/containers/{always}/start")).empty(204);
    assert!(text(&s.inspect(&always)["State"]["StartedAt"]) > first);
    // The engine counts its own restarts, and forgets them when somebody else starts the container.
    let fails = s.start("fails", policy("unless-stopped", "sleep 0.1; exit 6", 0));
    s.until(|| {
        let shown = s.inspect(&fails);
        if shown["RestartCount"].as_u64() >= Some(2) { Ok(()) } else { Err(shown["RestartCount"].to_string()) }
    });
    let between = s.until(|| {
        let shown = s.inspect(&fails);
        if shown["State"]["Status"] == "restarting" { Ok(shown) } else { Err(shown["State"].to_string()) }
    });
    has(&between["State"], &json!({ "Status": "restarting", "Running": true, "Restarting": true, "ExitCode": 6, "Pid": 0 }));
    s.post(&format!("/containers/{fails}/stop?t=1")).empty(204);
    has(&s.inspect(&fails)["State"], &json!({ "Status": "exited", "Restarting": false, "Running": false }));
    s.post(&format!("/containers/{fails}/start")).empty(204);
    assert!(s.inspect(&fails)["RestartCount"].as_u64() < Some(2));
}

fn health(s: &Subject) {
    let probe =
        |test: Value| json!({ "Healthcheck": { "Test": test, "Interval": 100_000_000, "Timeout": 5_000_000_000_i64, "Retries": 2 } });
    let id = s.create("a", probe(json!(["CMD-SHELL", "test -e /tmp/ready"])));
    assert!(s.inspect(&id)["State"].get("Health").is_none());
    s.put(&format!("/containers/{id}/archive?path=/"), &tar(&[("tmp/ready", "")])).empty(200);
    s.post(&format!("/containers/{id}/start")).empty(204);
    has(&s.inspect(&id)["State"]["Health"], &json!({ "Status": "starting", "FailingStreak": 0 }));
    let status = |id: &str, wanted: &str| {
        s.until(|| {
            let health = s.inspect(id)["State"]["Health"].clone();
            if health["Status"] == wanted { Ok(health) } else { Err(health.to_string()) }
        })
    };
    let healthy = status(&id, "healthy");
    has(&healthy, &json!({ "FailingStreak": 0 }));
    has(&healthy["Log"][0], &json!({ "ExitCode": 0, "Output": "" }));
    let listed = s.filtered("/containers/json", &json!({ "id": [id] })).ok(200);
    assert!(listed[0]["Status"].as_str().is_some_and(|t| t.ends_with(" (healthy)")), "{listed}");
    let ill = s.start("b", probe(json!(["CMD", "false"])));
    let unhealthy = status(&ill, "unhealthy");
    assert!(unhealthy["FailingStreak"].as_u64() >= Some(2), "{unhealthy}");
    has(&s.filtered("/containers/json", &json!({ "health": ["unhealthy"], "name": [s.prefix()] })).ok(200), &json!([{ "Id": ill }]));
    // An end leaves the last word.
    s.post(&format!("/containers/{ill}/kill")).empty(204);
    has(&s.until_state(&ill, "exited")["State"]["Health"], &json!({ "Status": "unhealthy" }));
    // NONE is no check.
    let none = s.start("c", json!({ "Healthcheck": { "Test": ["NONE"] } }));
    assert!(s.inspect(&none)["State"].get("Health").is_none());
}

fn exec(s: &Subject) {
    let id = s.create("a", json!({}));
    let path = format!("/containers/{id}/exec");
    let ask = |command: Value| json!({ "Cmd": command, "AttachStdout": true, "AttachStderr": true });
    s.send(&path, &ask(json!(["true"]))).refused(409, &format!("Container {id} is not running"));
    s.post(&format!("/containers/{id}/start")).empty(204);
    let run = |command: Value| {
        let exec = text(&s.send(&path, &ask(command)).ok(201)["Id"]);
        assert!(is_id(&exec), "{exec}");
        has(&s.get(&format!("/exec/{exec}/json")).ok(200), &json!({ "ID": exec, "Running": false, "ExitCode": null, "ContainerID": id }));
        let reply = s.send(&format!("/exec/{exec}/start"), &json!({ "Detach": false, "Tty": false }));
        reply.ok(200);
        let shown = s.get(&format!("/exec/{exec}/json")).ok(200);
        has(&shown, &json!({ "ID": exec, "Running": false, "ContainerID": id }));
        (exec, frames(reply.bytes()), shown["ExitCode"].clone())
    };
    assert_eq!(run(json!(["true"])).2, 0);
    let (exec, output, code) = run(json!(["sh", "-c", "echo out; exit 7"]));
    assert_eq!((output, code), (vec![(1, "out\n".to_owned())], json!(7)));
    // It cannot be run twice; the stream has begun already when that is found out.
    s.send(&format!("/exec/{exec}/start"), &json!({ "Detach": true })).refused(409, &format!("Error: Exec command {exec} has already run"));
    let twice = s.send(&format!("/exec/{exec}/start"), &json!({}));
    assert_eq!((twice.code(), frames(twice.bytes())), (200, vec![(1, format!("Error: Exec command {exec} has already run\r\n"))]));
    let (_, output, code) = run(json!(["sh", "-c", "echo wrong >&2"]));
    assert_eq!((output, code), (vec![(2, "wrong\n".to_owned())], json!(0)));
    let (_, output, code) = run(json!(["/no/such/thing"]));
    assert_eq!(code, 126);
    assert!(output.iter().any(|(_, line)| line.contains("no such file or directory")), "{output:?}");
    s.send(&path, &json!({ "Cmd": [] })).refused(400, "No exec command specified");
    s.get("/exec/nonsense/json").refused(404, "No such exec instance: nonsense");
    s.send("/exec/nonsense/start", &json!({})).refused(404, "No such exec instance: nonsense");
    s.post(&format!("/containers/{id}/pause")).empty(204);
    s.send(&path, &ask(json!(["true"]))).refused(409, &format!("Container {id} is paused, unpause the container before exec"));
}

/// The frames of a multiplexed stream: channel and text.
fn frames(mut bytes: &[u8]) -> Vec<(u8, String)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        assert_eq!(head[1..4], [0, 0, 0], "a frame's head is channel, three zeros, length");
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        frames.push((head[0], String::from_utf8_lossy(&rest[..length]).into_owned()));
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "half a frame at the end");
    frames
}

fn logs(s: &Subject) {
    let id = s.create("a", shell("echo one; echo two; echo three"));
    let read = |query: &str| {
        let reply = s.get(&format!("/containers/{id}/logs?{query}"));
        reply.ok(200);
        frames(reply.bytes())
    };
    assert!(read("stdout=1&stderr=1").is_empty());
    s.post(&format!("/containers/{id}/start")).empty(204);
    s.until_state(&id, "exited");
    let line = |text: &str| (1, format!("{text}\n"));
    assert_eq!(read("stdout=1&stderr=1"), [line("one"), line("two"), line("three")]);
    assert_eq!(read("stdout=1&tail=all"), [line("one"), line("two"), line("three")]);
    assert_eq!(read("stdout=1&stderr=1&tail=2"), [line("two"), line("three")]);
    assert!(read("stdout=1&tail=0").is_empty());
    assert!(read("stderr=1").is_empty());
    s.get(&format!("/containers/{id}/logs")).refused(400, "Bad parameters: you must choose at least one stream");
    let stamped = read("stdout=1&tail=1&timestamps=1");
    let (when, what) = stamped[0].1.split_once(' ').expect("a time before the line");
    assert!(when.len() == 30 && when.ends_with('Z') && what == "three\n", "{stamped:?}");
    // A second run adds to the log.
    s.post(&format!("/containers/{id}/start")).empty(204);
    s.post(&format!("/containers/{id}/wait")).ok(200);
    assert_eq!(read("stdout=1&tail=4"), [line("three"), line("one"), line("two"), line("three")]);
    let wrong = s.start("b", shell("echo wrong >&2"));
    s.until_state(&wrong, "exited");
    let reply = s.get(&format!("/containers/{wrong}/logs?stdout=1&stderr=1"));
    assert_eq!(frames(reply.bytes()), [(2, "wrong\n".to_owned())]);
    // A terminal has one channel and no frames.
    let tty = s.create("c", json!({ "Cmd": ["echo", "plain"], "Tty": true }));
    s.post(&format!("/containers/{tty}/start")).empty(204);
    s.until_state(&tty, "exited");
    assert_eq!(s.get(&format!("/containers/{tty}/logs?stdout=1")).text(), "plain\r\n");
}

fn logs_follow(s: &Subject) {
    let id = s.start("a", shell("echo first; sleep 1; echo last"));
    // Following ends with the container.
    let reply = s.get(&format!("/containers/{id}/logs?stdout=1&stderr=1&follow=1"));
    reply.ok(200);
    assert_eq!(frames(reply.bytes()), [(1, "first\n".to_owned()), (1, "last\n".to_owned())]);
    s.until_state(&id, "exited");
    let reply = s.get(&format!("/containers/{id}/logs?stdout=1&follow=1&tail=1"));
    assert_eq!(frames(reply.bytes()), [(1, "last\n".to_owned())]);
}

fn top(s: &Subject) {
    let id = s.create("a", json!({ "HostConfig": { "Init": false } }));
    s.get(&format!("/containers/{id}/top")).refused(409, &format!("Container {id} is not running"));
    s.post(&format!("/containers/{id}/start")).empty(204);
    let top = s.get(&format!("/containers/{id}/top")).ok(200);
    assert_eq!(top["Titles"], json!(["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]));
    assert_eq!(top["Processes"].as_array().map(Vec::len), Some(1));
    assert_eq!(top["Processes"][0][7], "sleep 1000");
    assert_eq!(text(&top["Processes"][0][1]), s.inspect(&id)["State"]["Pid"].to_string());
}

/// An archive of small files.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        archive.append_data(&mut header, path, content.as_bytes()).expect("an archive in memory can be written");
    }
    archive.into_inner().expect("an archive in memory can be written")
}

fn archive(s: &Subject) {
    let id = s.create("a", shell("cat /etc/conf/a.conf"));
    let path = format!("/containers/{id}/archive");
    // Folders on the way are made.
    s.put(&format!("{path}?path=/"), &tar(&[("etc/conf/a.conf", "hello\n")])).empty(200);
    let read = s.get(&format!("{path}?path=/etc/conf/a.conf"));
    read.ok(200);
    assert_eq!(read.header("content-type").as_deref(), Some("application/x-tar"));
    assert!(read.header("x-docker-container-path-stat").is_some());
    let mut back = tar::Archive::new(read.bytes());
    let mut entry = back.entries().expect("an archive").next().expect("one file").expect("a file");
    assert_eq!(
        (entry.path().expect("a path").display().to_string(), entry.header().mode().map(|m| m & 0o777).ok()),
        ("a.conf".to_owned(), Some(0o640))
    );
    assert_eq!(std::io::read_to_string(&mut entry).expect("a text"), "hello\n");
    s.put(&format!("{path}?path=/no/such"), &tar(&[("a", "")]))
        .refused(404, &format!("Could not find the file /no/such in container {id}"));
    s.get(&format!("{path}?path=/no/such")).refused(404, &format!("Could not find the file /no/such in container {id}"));
    s.put(&format!("{path}?path=/etc/conf/a.conf"), &tar(&[("a", "")])).refused(500, "extraction point is not a directory");
    s.put(&path, &tar(&[("a", "")])).refused(400, "bad parameter: pathcannot be empty");
    s.post(&format!("/containers/{id}/start")).empty(204);
    s.until_state(&id, "exited");
    assert_eq!(frames(s.get(&format!("/containers/{id}/logs?stdout=1")).bytes()), [(1, "hello\n".to_owned())]);
}

fn archive_read_only(s: &Subject) {
    let volume = s.name("data");
    let mounts = json!([{ "Type": "volume", "Source": volume, "Target": "/data" }]);
    let id = s.create("a", json!({ "HostConfig": { "ReadonlyRootfs": true, "Mounts": mounts } }));
    let path = format!("/containers/{id}/archive");
    let refusal = "container rootfs is marked read-only";
    s.put(&format!("{path}?path=/"), &tar(&[("etc/a.conf", "x")])).refused(500, refusal);
    s.put(&format!("{path}?path=/etc"), &tar(&[("a.conf", "x")])).refused(500, refusal);
    // A volume in it can be written.
    s.put(&format!("{path}?path=/data"), &tar(&[("a.conf", "x")])).empty(200);
    s.get(&format!("{path}?path=/data/a.conf")).ok(200);
}

fn prune(s: &Subject) {
    let label = s.name("label");
    let made = s.create("made", json!({ "Labels": { label.clone(): "" } }));
    let runs = s.start("runs", json!({ "Labels": { label.clone(): "" } }));
    let filters = crate::support::docker::percent(&json!({ "label": [label] }).to_string());
    has(&s.post(&format!("/containers/prune?filters={filters}")).ok(200), &json!({ "ContainersDeleted": [made], "SpaceReclaimed": 0 }));
    has(&s.inspect(&runs), &json!({ "State": { "Status": "running" } }));
    has(&s.post(&format!("/containers/prune?filters={filters}")).ok(200), &json!({ "ContainersDeleted": null, "SpaceReclaimed": 0 }));
}
