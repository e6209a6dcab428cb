//! The second version: rolled out without losing a request, rolled back when it is bad, held, and never pushed again by repair.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use qm_tests::support::docker::Docker;
use qm_tests::support::manifests::{Service, sleeper, web};
use qm_tests::support::world::World;
use serde_json::{Value, json};

/// Serves, is healthy, and falls ill some seconds later.
const FALLS_ILL: &str = "mkdir -p /www; echo fine >/www/index.html; (sleep 2; rm /www/index.html) & exec httpd -f -p 8080 -h /www";

fn version(service: Service, version: &str) -> Service {
    service.set("env", json!({ "VERSION": version }))
}

fn falls_ill(service: Service) -> Service {
    service.set("command", json!(["sh", "-c", FALLS_ILL]))
}

/// Waits until a revision may be gone back to.
fn until_good(world: &mut World, revision: u64) {
    world.until_status("app", &format!("revision {revision} is good"), |s| {
        s["history"].as_array().is_some_and(|list| list.iter().any(|r| r["number"] == revision && r["provenAt"].is_string()))
    });
}

fn is_rolled_back(status: &Value) -> bool {
    let conditions = status["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|c| c["type"] == "RolledBack" && c["status"] == "True"))
}

/// A reverse proxy reduced to what matters here: each request goes to one running replica after the other, and to the next one when a
/// connection is refused or breaks off; it is lost when none of them answers.
struct Load {
    ends: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
    worker: Option<thread::JoinHandle<()>>,
}

impl Load {
    fn on(docker: Docker, label: String) -> Self {
        let (ends, sent, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let shared = (ends.clone(), sent.clone(), lost.clone());
        let worker = thread::spawn(move || {
            let (ends, sent, lost) = shared;
            // Bounded, whatever happens to the test.
            for turn in 0..20_000_usize {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let replicas = addresses(&docker, &label);
                let start = turn % replicas.len().max(1);
                let answered = replicas.iter().cycle().skip(start).take(replicas.len()).any(|at| answers(*at));
                sent.fetch_add(1, Ordering::Relaxed);
                lost.fetch_add(usize::from(!answered), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self { ends, sent, lost, worker: Some(worker) }
    }

    /// Ends it; gives how many requests were sent, and how many of them were lost.
    fn end(mut self) -> (usize, usize) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            worker.join().expect("the load runs to its end");
        }
        (self.sent.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }
}

/// Where the running replicas listen.
fn addresses(docker: &Docker, label: &str) -> Vec<SocketAddr> {
    let filters = json!({ "label": [label], "status": ["running"] }).to_string();
    let path = format!("/containers/json?filters={}", qm_tests::support::docker::percent(&filters));
    let list = docker.must("GET", &path, None);
    let networks = list.as_array().into_iter().flatten().filter_map(|c| c["NetworkSettings"]["Networks"].as_object());
    networks.flat_map(|n| n.values()).filter_map(|n| format!("{}:8080", n["IPAddress"].as_str()?).parse().ok()).collect()
}

fn answers(at: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.contains("fine"))
    };
    ask().unwrap_or(false)
}

#[test]
fn a_rollout_and_a_rollback_beside_the_old_replicas_lose_no_request() {
    let service = || web("app").set("replicas", json!(3)).set("update", json!({ "order": "StartFirst", "monitor": "6s" }));
    let mut world = World::up(&[version(service(), "1")]);
    let label = format!("quaymaster.dev/namespace={}", world.namespace);
    let load = Load::on(world.docker.clone(), label);
    let first = world.lives();
    world.write("all.yaml", &[version(service(), "2")]);
    world.until_status("app", "revision 2", |s| s["revision"] == 2);
    until_good(&mut world, 2);
    world.settled(1);
    let second = world.lives();
    assert!(first.values().all(|old| second.values().all(|new| new.0 != old.0)), "every replica was replaced");
    world.write("all.yaml", &[falls_ill(version(service(), "3"))]);
    world.until_event("app", "RolledBack", "revision 3 failed");
    world.until_status("app", "three of revision 2", |s| {
        s["reason"] == "Healthy"
            && s["slots"].as_array().is_some_and(|slots| slots.len() == 3 && slots.iter().all(|slot| slot["revision"] == 2))
    });
    let kept = world.lives().values().filter(|life| second.values().any(|old| old == *life)).count();
    assert!(kept >= 2, "no more than one replica was at stake: {kept} kept");
    let (sent, lost) = load.end();
    assert!(sent > 200, "{sent} requests are no load");
    assert_eq!(lost, 0, "of {sent} requests");
}

#[test]
fn a_version_that_falls_ill_is_rolled_back_and_held() {
    let mut world = World::up(&[version(web("app"), "1")]);
    until_good(&mut world, 1);
    world.write("all.yaml", &[falls_ill(version(web("app"), "2"))]);
    let status = world.until_status("app", "it is rolled back", |s| is_rolled_back(s) && s["reason"] == "Healthy" && s["usable"] == true);
    assert_eq!(status["revision"], 1);
    let ready = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("RolledBack")));
    let message = ready["message"].as_str().unwrap();
    assert!(message.contains("revision 2 failed") && message.contains("quaymaster retry msvc/app"), "{message}");
    // Drift repair makes the good one again, not the bad one; and so does an operator that was killed.
    let running = |status: &Value| status["slots"][0]["containerId"].as_str().unwrap_or_default().to_owned();
    world.docker.remove(&running(&status));
    world.until_event("app", "Repaired", "missing");
    let is_good = |s: &Value| is_rolled_back(s) && s["reason"] == "Healthy" && s["slots"][0]["revision"] == 1;
    world.until_status("app", "it is made again", is_good);
    let kept = world.container("app").life();
    world.operator.kill();
    world.operator.start();
    world.until_status("app", "it is held after a restart", is_good);
    assert_eq!(world.reconcile_all(2), 0, "there is nothing left to do");
    assert_eq!(world.container("app").life(), kept);
    // A person tries again, and it fails again.
    let events = |world: &World| world.operator.events(&world.namespace).iter().filter(|e| e.contains("RolledBack")).count();
    assert_eq!(events(&world), 1);
    assert!(world.operator.cli(&["retry", "msvc/app", "-n", &world.namespace.clone()]).status.success());
    let kept_id = kept.0;
    world.until_status("app", "it is rolled back again", |s| is_good(s) && s["slots"][0]["containerId"] != json!(kept_id));
    // A better version goes out by itself.
    world.write("all.yaml", &[version(web("app"), "3")]);
    world.settled(1);
    let status = world.status("app");
    assert!(!is_rolled_back(&status), "{status:#}");
    assert!(status["revision"].as_u64() > Some(2), "{status:#}");
}

#[test]
fn a_version_that_crashes_is_rolled_back_and_its_budget_does_not_brake_the_old_one() {
    let mut world = World::up(&[sleeper("app")]);
    until_good(&mut world, 1);
    world.write("all.yaml", &[sleeper("app").set("command", json!(["sh", "-c", "exit 3"]))]);
    let status = world.until_status("app", "it is rolled back", |s| is_rolled_back(s) && s["reason"] == "Healthy");
    assert!(status["findings"].to_string().contains("ended with code 3"), "{status:#}");
    // It may not have its final name yet.
    let all = world.containers();
    assert!(all.values().any(|c| c.state == "running" && c.restarts == 0), "{all:?}");
}

#[test]
fn a_person_goes_back_and_forth() {
    let mut world = World::up(&[version(sleeper("app"), "1")]);
    let ns = world.namespace.clone();
    let none = world.operator.cli(&["rollback", "msvc/app", "-n", &ns]);
    assert!(!none.status.success());
    assert!(String::from_utf8_lossy(&none.stderr).contains("no such revision"), "{none:?}");
    world.write("all.yaml", &[version(sleeper("app"), "2")]);
    world.until_status("app", "revision 2", |s| s["revision"] == 2);
    world.settled(1);
    until_good(&mut world, 2);
    let wrong = world.operator.cli(&["rollback", "msvc/app", "-n", &ns, "--to", "9"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("there are: 1"), "{wrong:?}");
    let done = world.operator.cli(&["rollback", "msvc/app", "-n", &ns, "--reason", "orders are lost"]);
    assert!(done.status.success(), "{done:?}");
    let status =
        world.until_status("app", "revision 1 runs", |s| is_rolled_back(s) && s["slots"][0]["revision"] == 1 && s["reason"] == "Healthy");
    assert!(status["findings"].to_string().contains("orders are lost"), "{status:#}");
    let sheet = world.operator.cli(&["describe", "msvc/app", "-n", &ns]);
    let sheet = String::from_utf8_lossy(&sheet.stdout).into_owned();
    assert!(sheet.contains("RolledBack") && sheet.contains("GOOD"), "{sheet}");
    assert!(world.operator.cli(&["retry", "msvc/app", "-n", &ns]).status.success());
    world
        .until_status("app", "revision 2 runs again", |s| !is_rolled_back(s) && s["slots"][0]["revision"] == 2 && s["reason"] == "Healthy");
    world.settled(1);
}

#[test]
fn a_followed_tag_is_rolled_out_when_it_moves() {
    let mut world = World::new();
    let repository = format!("qm-{}", world.namespace);
    let image = format!("{repository}:latest");
    world.docker.must("POST", &format!("/images/busybox:local/tag?repo={repository}&tag=latest"), None);
    let services = [sleeper("app").image(&image).set("follow", json!("Tag")), sleeper("pinned").image(&image)];
    world.write("all.yaml", &services);
    world.operator.start();
    world.settled(2);
    let (app, pinned) = (world.container("app"), world.container("pinned"));
    // An image of its own, from what is in a container.
    world.docker.must("POST", &format!("/commit?container={}&repo={repository}&tag=latest&pause=false", pinned.id), None);
    let moved = world.docker.image(&image).expect("the tag is there");
    assert_ne!(moved, app.image_id);
    world.until_status("app", "revision 2", |s| s["revision"] == 2);
    world.settled(2);
    assert_eq!(world.container("app").image_id, moved);
    assert_eq!(world.container("pinned").life(), pinned.life());
    let findings = world.status("pinned")["findings"].to_string();
    assert!(findings.contains("ImageOutdated") && findings.contains("now means another image"), "{findings}");
    let docker = world.docker.clone();
    drop(world);
    assert!(docker.call("DELETE", &format!("/images/{image}?force=1"), None).is_ok());
}
