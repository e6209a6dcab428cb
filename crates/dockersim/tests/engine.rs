//! The pure engine: tables of requests and answers, and properties over arbitrary sequences.

use proptest::prelude::*;
use qm_dockersim::behaviour::{Behaviour, ImageSpec, Presence, Rule};
use qm_dockersim::engine::container::Phase;
use qm_dockersim::engine::reply::{Polled, Stream};
use qm_dockersim::{Engine, Listening, Now, Options, Reply, Request, World};
use serde_json::{Value, json};

const BEGIN: Now = Now { mono_ms: 0, wall_ns: 1_795_572_000_000_000_000 };

struct Bench {
    engine: Engine,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        Self::in_world(World::default())
    }

    fn in_world(world: World) -> Self {
        Self { engine: Engine::new(Options { world, ..Options::default() }, BEGIN), now: BEGIN }
    }

    fn ask(&mut self, request: &Request) -> (u16, Value) {
        let reply = self.engine.handle(request, self.now);
        match self.engine.settle(reply, &mut self.now) {
            Reply::Json { status, body } => (status, body),
            reply => (reply.status().unwrap_or(0), Value::Null),
        }
    }

    fn call(&mut self, method: &str, path: &str) -> (u16, Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut request = Request::new(method, path);
        for (key, value) in query.split('&').filter_map(|p| p.split_once('=')) {
            request = request.with_query(key, value);
        }
        self.ask(&request)
    }

    fn post(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut request = Request::new("POST", path).with_body(body);
        for (key, value) in query.split('&').filter_map(|p| p.split_once('=')) {
            request = request.with_query(key, value);
        }
        self.ask(&request)
    }

    fn run(&mut self, name: &str, body: &Value) -> String {
        let mut all = json!({ "Image": "busybox:local", "Cmd": ["sleep", "1000"], "HostConfig": { "Init": true } });
        if let (Some(all), Some(more)) = (all.as_object_mut(), body.as_object()) {
            all.extend(more.clone());
        }
        let (status, answer) = self.post(&format!("/containers/create?name={name}"), &all);
        assert_eq!(status, 201, "{answer}");
        let id = answer["Id"].as_str().expect("an id").to_owned();
        assert_eq!(self.call("POST", &format!("/containers/{id}/start")).0, 204);
        id
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ns += i64::try_from(ms).expect("small") * 1_000_000;
        self.engine.advance(self.now);
    }

    fn inspect(&mut self, name: &str) -> Value {
        self.call("GET", &format!("/containers/{name}/json")).1
    }

    fn actions(&self, from: u64) -> Vec<String> {
        self.engine.events_since(from).map(|e| format!("{} {}", e.kind.word(), e.action)).collect()
    }
}

#[test]
fn refusals_have_the_words_of_the_daemon() {
    let mut bench = Bench::new();
    let id = bench.run("web", &json!({}));
    let table: &[(&str, &str, u16, &str)] = &[
        ("GET", "/containers/none/json", 404, "No such container: none"),
        ("POST", "/containers/none/kill", 404, "Cannot kill container: none: No such container: none"),
        ("GET", "/images/none/json", 404, "no such image: none: No such image: none:latest"),
        ("GET", "/networks/nonet", 404, "network nonet not found"),
        ("GET", "/volumes/novol", 404, "get novol: no such volume"),
        ("DELETE", "/networks/bridge", 403, "bridge is a pre-defined network and cannot be removed"),
        ("POST", "/containers/web/rename?name=web", 400, "Renaming a container with the same name as its current name"),
        ("POST", "/containers/web/kill?signal=BOGUS", 400, "Invalid signal: BOGUS"),
        ("GET", "/containers/web/logs", 400, "Bad parameters: you must choose at least one stream"),
        ("GET", "/nosuch", 404, "page not found"),
    ];
    for (method, path, status, message) in table {
        assert_eq!(bench.call(method, path), (*status, json!({ "message": message })), "{method} {path}");
    }
    let (status, body) = bench.post("/containers/create?name=web", &json!({ "Image": "busybox:local" }));
    let conflict = format!(
        "Conflict. The container name \"/web\" is already in use by container \"{id}\". You have to remove (or rename) that container to be \
         able to reuse that name."
    );
    assert_eq!((status, body["message"].as_str()), (409, Some(conflict.as_str())));
    let (status, body) = bench.call("DELETE", "/containers/web");
    let running = format!("You cannot remove a running container {id}. Stop the container before attempting removal or force remove");
    assert_eq!((status, body["message"].as_str()), (409, Some(running.as_str())));
    assert_eq!(bench.call("POST", "/containers/web/start").0, 304);
    assert_eq!(bench.call("POST", "/containers/web/stop").0, 204);
    assert_eq!(bench.call("POST", "/containers/web/stop").0, 304);
}

#[test]
fn a_life_gives_the_events_of_the_daemon() {
    let mut bench = Bench::new();
    let from = bench.engine.last_event();
    bench.run("web", &json!({ "HostConfig": { "Init": true, "Binds": ["data:/data"] }, "Volumes": { "/anon": {} } }));
    bench.call("POST", "/containers/web/stop");
    bench.call("DELETE", "/containers/web?v=1");
    let wanted = [
        "volume create",
        "volume create",
        "container create",
        "network connect",
        "volume mount",
        "volume mount",
        "container start",
        "container kill",
        "container die",
        "network disconnect",
        "volume unmount",
        "volume unmount",
        "container stop",
        "volume destroy",
        "container destroy",
    ];
    assert_eq!(bench.actions(from), wanted);
    assert_eq!(bench.engine.volumes().collect::<Vec<_>>(), [("data", false)]);
}

#[test]
fn restart_policies_back_off_and_give_up() {
    let mut bench = Bench::new();
    let policy = json!({ "Name": "on-failure", "MaximumRetryCount": 2 });
    bench.run("crash", &json!({ "Cmd": ["sh", "-c", "exit 7"], "HostConfig": { "RestartPolicy": policy } }));
    bench.pass(10);
    assert_eq!(bench.inspect("crash")["State"]["Status"], "restarting");
    bench.pass(10_000);
    let inspect = bench.inspect("crash");
    assert_eq!(
        (&inspect["State"]["Status"], &inspect["State"]["ExitCode"], &inspect["RestartCount"]),
        (&json!("exited"), &json!(7), &json!(2))
    );
    bench.run("always", &json!({ "Cmd": ["false"], "HostConfig": { "RestartPolicy": { "Name": "always" } } }));
    bench.pass(100 + 200 + 400 + 50);
    assert_eq!(bench.inspect("always")["RestartCount"], 4);
    assert_eq!(bench.call("POST", "/containers/always/stop").0, 204);
    bench.pass(100_000);
    assert_eq!(bench.inspect("always")["State"]["Status"], "exited");
}

#[test]
fn a_stop_waits_for_its_grace_and_an_init_does_not_need_it() {
    let mut bench = Bench::new();
    bench.run("deaf", &json!({ "HostConfig": {} }));
    let before = bench.now.mono_ms;
    assert_eq!(bench.call("POST", "/containers/deaf/stop?t=3").0, 204);
    assert_eq!(bench.now.mono_ms - before, 3000);
    assert_eq!(bench.inspect("deaf")["State"]["ExitCode"], 137);
    bench.run("listens", &json!({}));
    assert_eq!(bench.call("POST", "/containers/listens/stop").0, 204);
    assert_eq!(bench.inspect("listens")["State"]["ExitCode"], 143);
}

#[test]
fn labels_script_a_container() {
    let mut bench = Bench::new();
    let labels = json!({
        "dockersim.start-ms": "500", "dockersim.healthy-after-ms": "1000", "dockersim.ports": "8080", "dockersim.http-status": "503",
        "dockersim.exit-after-ms": "5000", "dockersim.exit-code": "9",
    });
    bench.run("scripted", &json!({ "Labels": labels }));
    assert_eq!(bench.now.mono_ms, 500);
    let address = bench.inspect("scripted")["NetworkSettings"]["IPAddress"].as_str().expect("an address").to_owned();
    assert_eq!(bench.engine.listens(&address, 8080, bench.now), Listening::Refused);
    bench.pass(1000);
    assert!(matches!(bench.engine.listens(&address, 8080, bench.now), Listening::Accepts { http_status: 503, .. }));
    assert_eq!(bench.engine.listens(&address, 80, bench.now), Listening::Refused);
    bench.pass(4000);
    assert_eq!(bench.engine.listens(&address, 8080, bench.now), Listening::Unreachable);
    assert_eq!(bench.inspect("scripted")["State"]["ExitCode"], 9);
}

#[test]
fn health_follows_the_check() {
    let mut bench = Bench::new();
    let check = json!({ "Test": ["CMD-SHELL", "test -e /tmp/ok"], "Interval": 1_000_000_000, "Retries": 2 });
    bench.run("checked", &json!({ "Healthcheck": check }));
    let status = |bench: &mut Bench| bench.inspect("checked")["State"]["Health"]["Status"].as_str().map(str::to_owned);
    assert_eq!(status(&mut bench).as_deref(), Some("starting"));
    bench.pass(2000);
    assert_eq!(status(&mut bench).as_deref(), Some("unhealthy"));
    let (_, exec) = bench.post("/containers/checked/exec", &json!({ "Cmd": ["touch", "/tmp/ok"] }));
    bench.post(&format!("/exec/{}/start", exec["Id"].as_str().expect("an id")), &json!({ "Detach": true }));
    let from = bench.engine.last_event();
    bench.pass(1000);
    assert_eq!(status(&mut bench).as_deref(), Some("healthy"));
    assert!(bench.actions(from).contains(&"container health_status: healthy".to_owned()));
}

#[test]
fn addresses_are_the_lowest_free_ones() {
    let mut bench = Bench::new();
    let ip = |bench: &mut Bench, name: &str| bench.inspect(name)["NetworkSettings"]["IPAddress"].as_str().map(str::to_owned);
    for name in ["c1", "c2", "c3"] {
        bench.run(name, &json!({}));
    }
    assert_eq!(ip(&mut bench, "c2").as_deref(), Some("172.17.0.3"));
    bench.call("DELETE", "/containers/c2?force=1");
    bench.run("c4", &json!({}));
    assert_eq!(ip(&mut bench, "c4").as_deref(), Some("172.17.0.3"));
    let overlap = json!({ "Name": "o", "IPAM": { "Config": [{ "Subnet": "172.17.3.0/24" }] } });
    assert_eq!(bench.post("/networks/create", &overlap).0, 403);
}

#[test]
fn a_pull_takes_its_time_and_then_the_image_is_there() {
    let image = ImageSpec { presence: Presence::Remote, pull_ms: 4000, layers: vec![100, 200], ..ImageSpec::default() };
    let world = World { images: [("shop/api:1".to_owned(), image)].into(), ..World::default() };
    let mut bench = Bench::in_world(world);
    let pull = Request::new("POST", "/images/create").with_query("fromImage", "shop/api").with_query("tag", "1");
    let Reply::Stream(mut stream) = bench.engine.handle(&pull, bench.now) else { panic!("a pull is a stream") };
    let drain = |bench: &Bench, stream: &mut Stream| {
        let mut text = Vec::new();
        loop {
            match bench.engine.poll(stream, bench.now) {
                Polled::Data(bytes) => text.extend(bytes),
                Polled::End => return (String::from_utf8(text).expect("text"), true),
                _ => return (String::from_utf8(text).expect("text"), false),
            }
        }
    };
    bench.pass(2000);
    let (text, ended) = drain(&bench, &mut stream);
    assert!(text.contains("Pulling from shop/api") && text.contains("Downloading") && !ended);
    assert_eq!(bench.call("GET", "/images/shop/api:1/json").0, 404);
    bench.pass(2000);
    let (text, ended) = drain(&bench, &mut stream);
    assert!(text.contains("Downloaded newer image for shop/api:1") && ended);
    assert_eq!(bench.call("GET", "/images/shop/api:1/json").0, 200);
    let missing = Request::new("POST", "/images/create").with_query("fromImage", "nope").with_query("tag", "1");
    assert_eq!(bench.ask(&missing).0, 404);
}

#[test]
fn a_daemon_restart_ends_containers_and_policies_bring_them_back() {
    let mut bench = Bench::new();
    bench.run("gone", &json!({}));
    for (name, policy) in [("back", "always"), ("stopped", "unless-stopped")] {
        bench.run(name, &json!({ "HostConfig": { "Init": true, "RestartPolicy": { "Name": policy } } }));
    }
    bench.call("POST", "/containers/stopped/stop");
    let phases = |bench: &Bench| bench.engine.containers().map(|c| c.phase()).collect::<Vec<_>>();
    bench.engine.restart_daemon(true, bench.now);
    assert_eq!(phases(&bench), [Phase::Running, Phase::Running, Phase::Exited]);
    bench.engine.restart_daemon(false, bench.now);
    assert_eq!(phases(&bench), [Phase::Exited, Phase::Running, Phase::Exited]);
}

#[test]
fn rules_of_the_world_apply_by_name() {
    let behaviour = Behaviour { exit_after_ms: Some(100), exit_code: Some(3), crash_loop: Some(true), ..Behaviour::default() };
    let world = World { containers: vec![Rule { name: Some("bad-*".to_owned()), behaviour, ..Rule::default() }], ..World::default() };
    let text = serde_json::to_string(&world).expect("a world is JSON");
    assert_eq!(World::parse(&text), Ok(world.clone()));
    let mut bench = Bench::in_world(world);
    bench.run("bad-1", &json!({}));
    bench.run("good", &json!({}));
    bench.pass(200);
    assert_eq!(bench.inspect("bad-1")["State"]["ExitCode"], 3);
    assert_eq!(bench.inspect("good")["State"]["Status"], "running");
}

#[test]
fn a_container_that_nobody_looks_into_runs_answers_and_can_be_meddled_with() {
    let opaque = Behaviour { opaque: Some(true), ..Behaviour::default() };
    let labels = std::collections::BTreeMap::from([("who".to_owned(), "app".to_owned())]);
    let world = World { containers: vec![Rule { labels: labels.clone(), behaviour: opaque, ..Rule::default() }], ..World::default() };
    let mut bench = Bench::in_world(world);
    let app = bench.run("app", &json!({ "Cmd": ["sh", "/nowhere.sh"], "Labels": { "who": "app" } }));
    bench.run("other", &json!({ "Cmd": ["sh", "/nowhere.sh"] }));
    bench.pass(10);
    let states = |bench: &mut Bench| ["app", "other"].map(|name| bench.inspect(name)["State"]["Status"].as_str().map(str::to_owned));
    assert_eq!(states(&mut bench), [Some("running".to_owned()), Some("exited".to_owned())]);
    let address = bench.inspect("app")["NetworkSettings"]["IPAddress"].as_str().expect("an address").to_owned();
    let checked = |bench: &mut Bench| {
        let (_, exec) = bench.post(&format!("/containers/{app}/exec"), &json!({ "Cmd": ["test", "-f", "/nowhere"] }));
        let exec = exec["Id"].as_str().expect("an id").to_owned();
        bench.post(&format!("/exec/{exec}/start"), &json!({ "Detach": true }));
        let code = bench.call("GET", &format!("/exec/{exec}/json")).1["ExitCode"].as_i64();
        (bench.engine.listens(&address, 4711, bench.now), code)
    };
    assert!(matches!(checked(&mut bench), (Listening::Accepts { .. }, Some(0))));
    // What is forced wins over everything, and at once.
    let force = |bench: &mut Bench, behaviour: Option<Behaviour>| {
        let rule = |behaviour| Rule { labels: labels.clone(), behaviour, ..Rule::default() };
        bench.engine.change_world(|world| world.forced = behaviour.into_iter().map(rule).collect(), bench.now);
    };
    force(&mut bench, Some(Behaviour { healthy_after_ms: Some(1 << 40), ..Behaviour::default() }));
    assert!(matches!(checked(&mut bench), (Listening::Refused, Some(1))));
    force(&mut bench, None);
    assert!(matches!(checked(&mut bench), (Listening::Accepts { .. }, Some(0))));
    force(&mut bench, Some(Behaviour { start_error: Some("the disk is on fire".to_owned()), ..Behaviour::default() }));
    assert!(bench.engine.crash("app", 9, bench.now) && !bench.engine.crash("app", 9, bench.now));
    assert_eq!(bench.call("POST", "/containers/app/start"), (500, json!({ "message": "the disk is on fire" })));
    assert_eq!(
        (bench.inspect("app")["State"]["Status"].clone(), bench.inspect("app")["State"]["Error"].clone()),
        (json!("exited"), json!("the disk is on fire"))
    );
    force(&mut bench, None);
    assert_eq!(bench.call("POST", "/containers/app/start").0, 204);
}

/// Requests that hit what is there as well as what is not.
fn requests() -> impl Strategy<Value = Vec<(Request, u64)>> {
    let name = prop::sample::select(vec!["alpha", "beta", "gamma", "", "a b", "é", "0"]);
    let action = prop::sample::select(vec![
        "start",
        "stop",
        "restart",
        "kill",
        "pause",
        "unpause",
        "rename",
        "update",
        "wait",
        "logs",
        "json",
        "exec",
        "archive",
        "attach",
        "top",
        "stats",
        "resize",
        "changes",
        "connect",
        "disconnect",
        "tag",
        "history",
        "",
    ]);
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"]);
    let area = prop::sample::select(vec!["containers", "networks", "volumes", "images", "exec", "events", "swarm", "x"]);
    let query = prop::collection::vec(
        (
            prop::sample::select(vec![
                "name",
                "t",
                "signal",
                "force",
                "v",
                "filters",
                "since",
                "until",
                "path",
                "tail",
                "fromImage",
                "limit",
                "all",
            ]),
            prop::sample::select(vec![
                "1",
                "0",
                "-1",
                "alpha",
                "beta",
                "{\"status\":[\"running\"]}",
                "{",
                "9223372036854775807",
                "/tmp",
                "KILL",
            ]),
        ),
        0..3,
    );
    let body = prop::sample::select(vec![
        "".to_owned(),
        "{}".to_owned(),
        "[1]".to_owned(),
        "{\"Container\":\"alpha\"}".to_owned(),
        "{\"Cmd\":[\"sh\",\"-c\",\"while true; do sleep 1; done\"]}".to_owned(),
        json!({ "Image": "busybox:local", "Cmd": ["sleep", "5"], "HostConfig": { "RestartPolicy": { "Name": "always" }, "Binds": ["data:/d"], "PortBindings": { "80/tcp": [{ "HostPort": "80" }] } }, "ExposedPorts": { "80/tcp": {} } }).to_string(),
        json!({ "Image": "busybox:local", "HostConfig": { "AutoRemove": true, "NetworkMode": "gamma" }, "Healthcheck": { "Test": ["CMD", "false"], "Interval": 1_000_000 } }).to_string(),
        json!({ "Name": "gamma", "IPAM": { "Config": [{ "Subnet": "10.0.0.0/30" }] } }).to_string(),
        json!({ "Name": "gamma", "Memory": 1, "NanoCpus": i64::MIN, "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": i64::MAX } }).to_string(),
    ]);
    let one = prop_oneof![
        3 => (method, area, name.clone(), action, query.clone(), body.clone()).prop_map(|(m, a, n, x, q, b)| (m, format!("/{a}/{n}/{x}"), q, b)),
        2 => (prop::sample::select(vec!["/containers/create", "/networks/create", "/volumes/create", "/images/create"]), name, query, body)
            .prop_map(|(p, n, mut q, b)| {
                q.push(("name", n));
                ("POST", p.to_owned(), q, b)
            }),
    ];
    let request = (one, 0..20_000_u64).prop_map(|((method, path, query, body), ms)| {
        let mut request = Request::new(method, path.trim_end_matches('/'));
        for (key, value) in query {
            request = request.with_query(key, value);
        }
        request.body = body.into_bytes();
        (request, ms)
    });
    prop::collection::vec(request, 1..60)
}

fn transcript(requests: &[(Request, u64)]) -> String {
    let mut bench = Bench::new();
    let mut out = String::new();
    for (request, ms) in requests {
        bench.pass(*ms);
        let mut reply = bench.engine.handle(request, bench.now);
        if let Reply::Stream(stream) | Reply::Hijack(stream) = &mut reply {
            for _ in 0..10 {
                out.push_str(&format!("{:?}\n", bench.engine.poll(stream, bench.now)));
            }
        }
        let mutations = bench.engine.mutations();
        out.push_str(&format!("{reply:?} {mutations}\n"));
    }
    for event in bench.engine.events_since(0) {
        out.push_str(&String::from_utf8_lossy(&event.line()));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_the_same_requests_give_the_same_bytes(requests in requests()) {
        prop_assert_eq!(transcript(&requests), transcript(&requests));
    }
}
