//! Scenarios that the product's users judge by (MISSION), under simulation: the operator itself on a simulated engine, in virtual time, in fair
//! weather and with an engine that is slow, tells late, or loses its answers. On a real engine they are in `scenarios`.

use std::collections::BTreeMap;

use qm_tests::simulation::story::{Story, in_all_weathers};
use serde_json::json;

/// A service with a health check; `more` goes into its spec, `container` into its container.
fn web(name: &str, container: &str, more: &str) -> String {
    format!(
        "---\n{{apiVersion: quaymaster.dev/v1alpha1, kind: MiniService, metadata: {{name: {name}, namespace: s, labels: {{group: g}}}}, spec: {{\
         container: {{image: 'busybox:local', command: [serve], labels: {{dockersim.ports: '8080', dockersim.healthy-after-ms: '700'}}, \
         stopGracePeriod: 1s, health: {{tcp: {{port: 8080}}, interval: 2s, timeout: 1s}}{container}}}{more}}}}}\n"
    )
}

/// One that needs others.
fn needing(name: &str, edges: &str) -> String {
    web(name, "", &format!(", dependsOn: [{edges}]"))
}

fn other(kind: &str, name: &str, spec: &str) -> String {
    format!("---\n{{apiVersion: quaymaster.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}, namespace: s}}, spec: {spec}}}\n")
}

/// An image that nobody has: only a change can help.
const ABSENT: &str = ", image: 'registry.test/none:1', pullPolicy: Never";

fn absent(name: &str) -> String {
    web(name, "", "").replace("image: 'busybox:local'", &ABSENT[2..])
}

#[test]
fn scenario_1_nobody_starts_before_what_it_needs() {
    in_all_weathers(async |mut story| {
        let name = |level: usize, at: usize| format!("s{level}{}", at % 4);
        let services: String = (0..20)
            .map(|n| match (n / 4, n % 4) {
                (0, at) => web(&name(0, at), "", ""),
                (level, at) => {
                    let (one, two) = (name(level - 1, at), name(level - 1, at + 1));
                    needing(&name(level, at), &format!("{{service: {one}}}, {{service: {two}}}"))
                }
            })
            .collect();
        story.write(&services);
        story.until("all are usable", |s| s.names().len() == 20 && s.names().iter().all(|name| s.severity(name) == Some(1))).await;
        for name in story.names() {
            let status = story.status(&name);
            assert_eq!(status["level"].to_string(), name[1..2], "{name}");
            let started = status["slots"][0]["startedAt"].as_str().expect("it was started").to_owned();
            for dependency in status["dependencies"].as_array().into_iter().flatten() {
                let below = story.status(dependency["name"].as_str().expect("a name"));
                let healthy = below["slots"][0]["healthyAt"].as_str().expect("it was found healthy");
                assert!(*healthy <= *started, "{name} was started at {started}, and {dependency} healthy at {healthy}");
            }
        }
        assert_eq!(story.violations(), [""; 0]);
    });
}

#[test]
fn scenario_2_a_cycle_is_refused_before_anything_is_created() {
    in_all_weathers(async |mut story| {
        story.write(&[needing("a", "{service: b}"), needing("b", "{service: a}")].concat());
        story.pass(60).await;
        let (_, overview) = story.api("GET", "/quaymaster/v1/overview", None).await;
        let frozen = overview["frozen"].to_string();
        assert!(frozen.contains("s/a -> s/b -> s/a") || frozen.contains("s/b -> s/a -> s/b"), "{frozen}");
        assert_eq!(story.containers().len(), 0);
    });
}

#[test]
fn scenario_7_one_database_cannot_start_and_each_follows_its_edge() {
    in_all_weathers(async |mut story| {
        let manifests = [
            absent("db"),
            web("sibling", "", ""),
            needing("ignores", "{service: db, onDown: Ignore}"),
            needing("degrades", "{service: db, onDown: Degrade}"),
            needing("blocks", "{service: db}"),
            needing("far", "{service: blocks}"),
        ];
        story.write(&manifests.concat());
        story.until_severities(&[("db", 5), ("sibling", 1), ("ignores", 1), ("degrades", 3), ("blocks", 4), ("far", 4)]).await;
        for name in ["degrades", "blocks", "far"] {
            assert!(story.culprits(name).contains(&"db".to_owned()), "{name}: {:?}", story.culprits(name));
        }
        for name in ["sibling", "ignores"] {
            assert_eq!(story.culprits(name), [""; 0], "{name}");
        }
        let running: Vec<String> = story.containers().iter().filter(|c| c.state == "running").map(|c| c.owner().1).collect();
        assert!(["sibling", "ignores", "degrades"].iter().all(|name| running.contains(&(*name).to_owned())), "{running:?}");
        assert!(!running.contains(&"blocks".to_owned()) && !running.contains(&"far".to_owned()), "{running:?}");
    });
}

#[test]
fn scenario_8_redis_dies_each_follows_its_edge_and_each_reloads_once() {
    in_all_weathers(async |mut story| {
        let manifests = [
            web("redis", "", ""),
            needing("worker", "{service: redis, onUp: Restart}"),
            // A diamond: Redis reaches it twice.
            needing("api", "{service: redis, onUp: Restart}, {service: worker, onUp: Restart}"),
            needing("cache", "{service: redis, onDown: Ignore}"),
            needing("beat", "{service: redis, onDown: Degrade}"),
            needing("feed", "{service: redis, onDown: Stop, tolerate: 0s}"),
        ];
        story.write(&manifests.concat());
        let names = ["redis", "worker", "api", "cache", "beat", "feed"];
        story.until_severities(&names.map(|name| (name, 1))).await;
        // Whatever the weather was, it is over: what follows is about this loss alone.
        story.pass(180).await;
        let lives = |story: &Story| names.map(|name| (name, story.life(name))).into_iter().collect::<BTreeMap<_, _>>();
        let before = lives(&story);
        // Nobody repairs what is suspended.
        story.act("redis", "suspend").await;
        story.by_hand("redis", "POST", "/stop");
        story.until_severities(&[("redis", 4), ("worker", 4), ("api", 4), ("cache", 1), ("beat", 3), ("feed", 4)]).await;
        story.pass(30).await;
        assert_eq!(story.culprits("api"), ["redis"], "the culprit is named once");
        let stopped: Vec<String> = story.containers().into_iter().filter(|c| c.state == "exited").map(|c| c.owner().1).collect();
        assert!(stopped.contains(&"feed".to_owned()) && stopped.len() == 2, "{stopped:?}");
        story.act("redis", "resume").await;
        story.until_severities(&names.map(|name| (name, 1))).await;
        story.pass(120).await;
        let after = lives(&story);
        assert!(names.iter().all(|name| before[name].0 == after[name].0), "nobody has another container");
        let same: Vec<&str> = names.into_iter().filter(|name| before[name].1 == after[name].1).collect();
        assert_eq!(same, ["cache", "beat"], "these go on as they were");
        assert!(after["worker"].1 < after["api"].1, "level by level");
        for name in ["worker", "api"] {
            assert_eq!(story.events(name, "restart replica 1").len(), 1, "{name}: {:?}", story.events(name, "restart"));
        }
        // A restart of the operator fires nothing.
        story.kill();
        story.boot();
        story.until_severities(&names.map(|name| (name, 1))).await;
        story.pass(120).await;
        assert_eq!(lives(&story), after);
        assert_eq!(story.violations(), [""; 0]);
    });
}

#[test]
fn scenario_9_a_user_is_waited_for_and_then_hears_changing() {
    in_all_weathers(async |mut story| {
        let version = |env: &str| web("app", &format!(", env: {{V: '{env}'}}"), "");
        story.write(&version("1"));
        story.until_severities(&[("app", 1)]).await;
        story.pass(180).await;
        let first = story.life("app");
        let path = |verb: &str| format!("/apis/quaymaster.dev/v1alpha1/namespaces/s/miniservices/app/lock{verb}");
        let (code, lease) = story.api("POST", &path(""), Some(json!({"mode": "use", "holder": "web.1"}))).await;
        assert_eq!(code, 201, "{lease}");
        story.write(&version("2"));
        story.until("the replacement waits", |s| s.status("app")["lock"]["next"] == "quaymaster").await;
        let (code, refusal) = story.api("POST", &path(""), Some(json!({"mode": "use", "holder": "web.2"}))).await;
        assert_eq!((code, &refusal["reason"]), (409, &json!("Changing")), "nobody new gets in: {refusal}");
        for _ in 0..12 {
            let renewed = json!({"holder": "web.1", "token": lease["token"], "mode": "use"});
            assert_eq!(story.api("POST", &path("/renew"), Some(renewed)).await.0, 200, "who uses it goes on");
            story.pass(5).await;
        }
        let old = story.containers().into_iter().find(|c| c.id == first.0).expect("it is there");
        assert_eq!(old.state, "running", "nothing is done to it meanwhile");
        let released = json!({"holder": "web.1", "token": lease["token"]});
        assert_eq!(story.api("POST", &path("/release"), Some(released)).await.0, 200);
        // Who waits for long enough gets in, and finds the new one whole.
        let (code, answer) = story.api("POST", &path(""), Some(json!({"mode": "use", "holder": "web.2", "waitMs": 60_000}))).await;
        assert_eq!(code, 201, "{answer}");
        let status = story.status("app");
        assert_eq!((&status["severity"], &status["replicas"]["healthy"]), (&json!(1), &json!(1)), "{status:#}");
        assert_ne!(story.life("app").0, first.0);
        assert_eq!(story.violations(), [""; 0]);
    });
}

#[test]
fn scenario_10_what_was_missed_is_made_up_for() {
    in_all_weathers(async |mut story| {
        let before = [
            web("kept", "", ""),
            web("changed", ", env: {V: '1'}", ""),
            web("scaled", "", ""),
            web("gone", "", ""),
            web("removed-by-hand", "", ""),
        ];
        story.write(&before.concat());
        story.until_severities(&["kept", "changed", "scaled", "gone", "removed-by-hand"].map(|name| (name, 1))).await;
        let kept = story.life("kept");
        story.kill();
        let after = [
            web("kept", "", ""),
            web("changed", ", env: {V: '2'}", ""),
            web("scaled", ", replicas: 3", ""),
            web("removed-by-hand", "", ""),
            web("new", "", ""),
        ];
        story.write(&after.concat());
        story.by_hand("removed-by-hand", "DELETE", "?force=1");
        story.pass(60).await;
        story.boot();
        story.until_severities(&["kept", "changed", "scaled", "removed-by-hand", "new"].map(|name| (name, 1))).await;
        story.until("the one that is withdrawn is gone", |s| !s.names().contains(&"gone".to_owned())).await;
        let count = |story: &Story, name: &str| story.containers().iter().filter(|c| c.owner().1 == name).count();
        let counts = ["kept", "changed", "scaled", "removed-by-hand", "new", "gone"].map(|name| count(&story, name));
        assert_eq!(counts, [1, 1, 3, 1, 1, 0]);
        assert_eq!(story.life("kept"), kept, "nothing restarts that should not");
    });
}

#[test]
fn scenario_11_a_mini_container_sums_up_its_children() {
    in_all_weathers(async |mut story| {
        let parent = |more: &str| other("MiniContainer", "all", &format!("{{selector: {{matchLabels: {{group: g}}}}{more}}}"));
        // 1, 3 and 5: well; without something optional; for want of an image.
        let limited = [absent("gap").replace("group: g", "group: none"), needing("three", "{service: gap, onDown: Degrade}")].concat();
        // Names of their own in each case: what runs would be kept while its new image is awaited.
        let cases: [(String, u64); 6] = [
            ([web("a0", "", ""), web("b0", "", ""), absent("c0")].concat(), 3),
            ([absent("a1"), absent("b1"), absent("c1")].concat(), 4),
            ([web("a2", "", ""), web("b2", "", ""), web("c2", "", "")].concat(), 1),
            ([web("a3", "", ""), limited, web("c3", "", "")].concat(), 2),
            (String::new(), 5),
            (String::new(), 3),
        ];
        for (at, (children, expected)) in cases.into_iter().enumerate() {
            let more = if at == 5 { ", allowEmpty: true" } else { "" };
            // Enough beside them that a withdrawal of all children is no loss of more than half.
            let beside: String = (0..5).map(|n| web(&format!("beside{n}"), "", "").replace("group: g", "group: none")).collect();
            story.write(&[parent(more), beside, children.clone()].concat());
            let what = format!("case {at} is {expected}");
            story.until(&what, |s| s.status_of("MiniContainer", "all")["severity"] == expected).await;
        }
    });
}

#[test]
fn scenario_20_a_job_runs_once_and_resumes_at_the_step_that_failed() {
    in_all_weathers(async |mut story| {
        let job = |second: &str| {
            let steps = format!("[{{name: load, command: [sh, -c, 'echo loaded']}}, {{name: check, command: [sh, -c, '{second}']}}]");
            other("MiniService", "init", &format!("{{job: {{container: {{image: 'busybox:local'}}, steps: {steps}, retries: 2}}}}"))
        };
        let app = needing("app", "{service: init}");
        story.write(&[job("exit 3"), app.clone()].concat());
        story.until_severities(&[("init", 5), ("app", 4)]).await;
        let run = |story: &Story| story.status("init")["job"]["lastRuns"][0].clone();
        let failed = run(&story);
        assert_eq!(failed["state"], "Failed", "{failed:#}");
        assert_eq!(story.culprits("app"), ["init"]);
        // Another input is another run, and after its success there is none.
        story.write(&[job("exit 0"), app].concat());
        story.until_severities(&[("init", 1), ("app", 1)]).await;
        assert_eq!(run(&story)["state"], "Succeeded");
        let runs = |story: &Story| story.status("init")["job"]["lastRuns"].as_array().map_or(0, Vec::len);
        assert_eq!(runs(&story), 2);
        let app = story.life("app");
        for _ in 0..3 {
            story.kill();
            story.boot();
            story.pass(120).await;
        }
        story.until_severities(&[("init", 1), ("app", 1)]).await;
        assert_eq!((runs(&story), story.life("app")), (2, app), "nothing is run, and nobody restarted, for a restart of the operator");
        assert_eq!(story.violations(), [""; 0]);
    });
}

#[test]
fn scenario_21_scale_features_and_what_runs_elsewhere() {
    in_all_weathers(async |mut story| {
        let outside = other(
            "MiniService",
            "mailhost",
            "{external: {probe: {tcp: {host: outside-s, port: 7000}}, interval: 2s, failureThreshold: 2}}",
        );
        let manifests = |replicas: u32, feature: bool| {
            [
                outside.clone(),
                web("queue", "", ""),
                web("worker", &format!(", replicas: {replicas}"), ", dependsOn: [{service: queue}, {service: mailhost}]"),
                web("search", "", &format!(", enabled: {feature}")),
                needing("page", "{service: search}"),
                needing("shop", "{service: search, onDown: Degrade}"),
            ]
            .concat()
        };
        story.write(&manifests(0, false));
        story.until_severities(&[("queue", 1), ("worker", 0), ("search", 0), ("page", 0), ("shop", 1), ("mailhost", 1)]).await;
        assert_eq!((&story.status("page")["reason"], &story.status("worker")["reason"]), (&json!("Skipped"), &json!("ScaledToZero")));
        let owners = |story: &Story| story.containers().into_iter().map(|c| c.owner().1).collect::<Vec<_>>();
        assert!(owners(&story).iter().all(|name| ["queue", "shop"].contains(&name.as_str())), "{:?}", owners(&story));
        let shop = story.life("shop");
        story.write(&manifests(2, true));
        let all = ["queue", "worker", "search", "page", "shop", "mailhost"];
        story.until_severities(&all.map(|name| (name, 1))).await;
        let level = |story: &Story, name: &str| story.status(name)["level"].as_u64();
        assert_eq!((level(&story, "mailhost"), level(&story, "worker")), (Some(0), Some(1)), "its place in the graph is like any other's");
        let page = story.life("page");
        // What runs elsewhere goes: who needs it is blocked, and nobody is touched.
        story.turn_outside(true);
        story.until_severities(&[("mailhost", 4), ("worker", 4), ("queue", 1)]).await;
        story.turn_outside(false);
        story.until_severities(&[("mailhost", 1), ("worker", 1)]).await;
        // The feature is off again: who cannot do without it is stopped, and goes on later in the same container.
        story.write(&manifests(2, false));
        story.until_severities(&[("search", 0), ("page", 0)]).await;
        story.until("the page is stopped", |s| s.containers().iter().any(|c| c.owner().1 == "page" && c.state == "exited")).await;
        story.write(&manifests(2, true));
        story.until_severities(&[("search", 1), ("page", 1)]).await;
        assert_eq!(story.life("page").0, page.0);
        assert_eq!(story.life("shop"), shop, "who can do without it goes on");
        assert_eq!(story.violations(), [""; 0]);
    });
}
