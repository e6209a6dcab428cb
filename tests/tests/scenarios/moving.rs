//! Networks are replaced while everything runs: beside the old one where both fit, broken first where a person approves it.

use std::collections::{BTreeMap, BTreeSet};

use qm_tests::support::docker::Docker;
use qm_tests::support::engine::{Engine, MISCOUNTS, Options};
use qm_tests::support::manifests::{self, Service, sleeper, web};
use qm_tests::support::proxy::Side;
use qm_tests::support::world::{LONG, World};
use serde_json::{Value, json};

/// Asks the service `web` by its name for ever, each time with one retry after a fifth of a second, and says what came of it.
const ASK: &str = r#"
ask() {
  ip=$(nslookup web 2>/dev/null | awk '/^Address: / {print $2}' | grep -v 127.0.0.11 | head -n1)
  [ -n "$ip" ] && timeout 1 wget -qO- http://$ip:8080/index.html >/dev/null 2>&1
}
while :; do
  if ask; then echo ok; elif sleep 0.2; ask; then echo again; else echo LOST; fi
  sleep 0.02
done
"#;

/// Ranges of this process's own: engines of other tests run on the same host.
fn range(third: usize, bits: u32) -> String {
    format!("10.{}.{third}.0/{bits}", 100 + std::process::id() % 50)
}

/// Lets the containers of this test's ranges talk to each other, also where another engine of the host has closed its bridges.
struct Open(Vec<String>);

impl Open {
    fn ranges() -> Self {
        let all = format!("10.{}.0.0/16", 100 + std::process::id() % 50);
        let rule: Vec<String> = ["FORWARD", "-s", &all, "-d", &all, "-j", "ACCEPT"].iter().map(|s| (*s).to_owned()).collect();
        Self::change("-I", &rule);
        Self(rule)
    }

    /// Where the program is missing nothing was closed by it.
    fn change(verb: &str, rule: &[String]) {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let done = std::process::Command::new("iptables").env("PATH", path).arg(verb).args(rule).status();
        println!("iptables {verb}: {done:?}");
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        Self::change("-D", &self.0);
    }
}

/// More writes than the move of five services needs: the enumeration ends by itself, or something runs away.
const MOST: usize = 40;

fn in_data(service: Service) -> Service {
    service.set("networks", json!(["data"]))
}

/// Writes the network `data` with this range, and the services.
fn write(world: &World, range: &str, services: &[Service]) {
    let mut data = manifests::network(&world.namespace, "data");
    data["spec"] = json!({ "subnet": range });
    let documents: Vec<Value> = std::iter::once(data).chain(services.iter().map(|s| s.document(&world.namespace))).collect();
    manifests::put(&world.file("all.yaml"), &manifests::text(&documents));
}

/// The networks of an instance with their ranges.
fn ranges(docker: &Docker, instance: &str) -> BTreeMap<String, String> {
    let networks = docker.networks(&format!("quaymaster.dev/instance={instance}"));
    networks
        .into_iter()
        .map(|(id, name)| {
            // It may be gone by now.
            let found = docker.call("GET", &format!("/networks/{id}"), None).json();
            (name, found["IPAM"]["Config"][0]["Subnet"].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

/// Waits until there is one network, with this range, and every container is in it and in nothing else.
fn until_moved(world: &mut World, range: &str, containers: usize) {
    let (docker, ns) = (world.docker.clone(), world.namespace.clone());
    world.operator.until_within(LONG, &format!("all in {range}"), |o| {
        let networks = ranges(&docker, &o.setup.instance);
        let inside: Vec<BTreeSet<String>> = docker.containers(&ns).into_values().map(|c| c.networks).collect();
        let is_there = networks.len() == 1 && networks.values().all(|found| found == range);
        let is_moved = inside.len() == containers && inside.iter().all(|of| of.iter().eq(networks.keys()));
        if is_there && is_moved { Ok(()) } else { Err(format!("{networks:?}, containers in {inside:?}")) }
    });
}

fn problems(log: &str) -> Vec<String> {
    log.lines().filter(|l| l.contains(" WARN ") || l.contains(" ERROR ")).map(str::to_owned).collect()
}

#[test]
fn a_network_is_replaced_twenty_times_under_traffic() {
    let _open = Open::ranges();
    let mut world = World::new();
    let services =
        [in_data(web("web").set("replicas", json!(2))), in_data(sleeper("asks").set("command", json!(["sh", "-c", ASK])).needs("web"))];
    write(&world, &range(0, 24), &services);
    world.operator.start();
    world.settled(2);
    let before = world.lives();
    for n in 1..=20 {
        let range = range(n, 24);
        write(&world, &range, &services);
        until_moved(&mut world, &range, 3);
    }
    world.settled(2);
    assert_eq!(world.lives(), before, "nothing was restarted");
    assert_eq!(world.reconcile_all(3), 0, "nothing is left to do");
    let said = world.docker.call("GET", &format!("/containers/{}/logs?stdout=1", world.container("asks").id), None).text();
    let count = |word: &str| said.lines().filter(|l| l.contains(word)).count();
    println!("{} answered at once, {} at the second try", count("ok"), count("again"));
    assert!(count("ok") > 100, "that is no traffic: {said}");
    assert_eq!(count("LOST"), 0, "{said}");
    assert_eq!(problems(&world.operator.log()), Vec::<String>::new());
    let warnings: Vec<String> = world.operator.events(&world.namespace).into_iter().filter(|e| e.contains("StepFailed")).collect();
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn a_range_that_overlaps_is_broken_when_a_person_approves() {
    let mut world = World::new();
    let services = [in_data(web("web")), in_data(sleeper("last").needs("web"))];
    write(&world, &range(0, 24), &services);
    world.operator.start();
    world.settled(2);
    let before = world.lives();
    write(&world, &range(0, 22), &services);
    let hash = approval(&mut world);
    let plan = world.operator.cli(&["plan"]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("2 containers are cut off meanwhile") && plan.contains(&hash), "{plan}");
    assert_eq!(
        ranges(&world.docker, &world.namespace).into_values().collect::<Vec<_>>(),
        [range(0, 24)],
        "nothing happens without approval"
    );
    assert!(world.operator.cli(&["approve", &hash]).status.success());
    until_moved(&mut world, &range(0, 22), 2);
    world.settled(2);
    assert_eq!(world.lives(), before, "nothing was restarted");
    assert_eq!(world.reconcile_all(3), 0, "nothing is left to do");
    assert_eq!(problems(&world.operator.log()), Vec::<String>::new());
}

#[test]
fn a_published_port_and_a_fixed_address_move_along() {
    let mut world = World::new();
    let service = |ipv4: &str| {
        in_data(web("web"))
            .set("ports", json!([{ "target": 8080, "published": 18457, "host": "127.0.0.1" }]))
            .set("networkOptions", json!({ "data": { "ipv4": ipv4, "aliases": ["front"] } }))
    };
    let address = |third: usize| range(third, 24).replace("0/24", "9");
    write(&world, &range(0, 24), &[service(&address(0))]);
    world.operator.start();
    world.settled(1);
    let before = world.lives();
    write(&world, &range(1, 24), &[service(&address(1))]);
    until_moved(&mut world, &range(1, 24), 1);
    world.settled(1);
    let inspected = world.docker.must("GET", &format!("/containers/{}/json", world.name("web")), None);
    let networks = inspected["NetworkSettings"]["Networks"].as_object().unwrap();
    let attachment = networks.values().next().unwrap();
    assert_eq!(attachment["IPAddress"], address(1));
    assert!(attachment["Aliases"].to_string().contains("front"), "{attachment}");
    let page =
        qm_tests::support::http::call(&qm_tests::support::http::Place::Tcp("127.0.0.1:18457".parse().unwrap()), "GET", "/index.html", None);
    assert!(page.as_ref().is_ok_and(|a| a.text().contains("fine")), "{page:?}");
    assert_eq!(world.lives(), before);
    // And it comes up by itself in its new network.
    world.docker.must("POST", &format!("/containers/{}/restart?t=1", world.name("web")), None);
    world.until_status("web", "healthy again", |s| s["usable"] == true && s["reason"] == "Healthy");
    until_moved(&mut world, &range(1, 24), 1);
}

/// Waits until the replacement of the network asks; gives the step's hash.
fn approval(world: &mut World) -> String {
    let ns = world.namespace.clone();
    world.operator.until("the network asks for approval", |o| {
        let network = o.list("networks", &ns).into_iter().find(|n| n["metadata"]["name"] == "data").unwrap_or_default();
        asked_hash(&network).ok_or_else(|| format!("{:#}", network["status"]))
    })
}

fn asked_hash(network: &Value) -> Option<String> {
    let conditions = network["status"]["conditions"].as_array()?;
    let asking = conditions.iter().find(|c| c["type"] == "Ready" && c["reason"] == "ApprovalNeeded")?;
    let (_, after) = asking["message"].as_str()?.split_once("quaymaster approve ")?;
    Some(after.chars().take_while(char::is_ascii_hexdigit).collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Beside,
    Broken,
}

fn five() -> Vec<Service> {
    let all =
        [sleeper("store"), web("app").needs("store"), sleeper("queue"), sleeper("worker").needs("queue"), sleeper("last").needs("worker")];
    all.into_iter().map(in_data).collect()
}

/// Moves five services to another network with the operator killed at the n-th write, for n = 1, 2, 3, .. until a move has no more.
fn every_kill_point(way: Way, side: Side) {
    let mut engine = Engine::start(Options::default());
    let mut world = World::on(engine.docker());
    let range = |n: usize| match way {
        Way::Beside => range(n, 24),
        Way::Broken => range(0, if n.is_multiple_of(2) { 24 } else { 23 }),
    };
    write(&world, &range(0), &five());
    world.operator.start();
    world.settled(5);
    let mut before = world.lives();
    for n in 1..=MOST {
        let wanted = range(n);
        world.proxy.trap(n, side);
        write(&world, &wanted, &five());
        let is_over = move_until_killed(&mut world, &wanted);
        if !is_over {
            world.operator.kill();
        }
        world.proxy.release();
        if !is_over {
            world.operator.start();
            if approve_if_asked(&mut world, &mut engine, &wanted) {
                // Its containers went down with it.
                world.settled(5);
                before = world.lives();
            }
        }
        until_moved(&mut world, &wanted, 5);
        world.settled(5);
        assert_eq!(world.lives(), before, "nothing was restarted");
        assert_eq!(world.reconcile_all(6), 0, "something is left to do");
        if is_over {
            println!("killed {side:?} the answer of every write of a move ({way:?}): {} points", n - 1);
            return;
        }
    }
    panic!("a move of five services takes more than {MOST} writes");
}

/// Whether the network is the wanted one and ready in its present generation.
fn is_there(operator: &qm_tests::support::operator::Operator, wanted: &str) -> Result<bool, String> {
    let ns = operator.setup.instance.clone();
    let Some(network) = operator.list("networks", &ns).into_iter().next() else { return Ok(false) };
    if network["spec"]["subnet"] != wanted {
        return Ok(false);
    }
    if let Some(hash) = asked_hash(&network) {
        let done = operator.cli(&["approve", &hash]);
        return Err(format!("approving: {}", String::from_utf8_lossy(&done.stderr)));
    }
    let generation = &network["metadata"]["generation"];
    let ready = network["status"]["conditions"]
        .as_array()
        .is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True" && c["observedGeneration"] == *generation));
    Ok(ready)
}

/// Gives whether the move came to its end without reaching the trap.
fn move_until_killed(world: &mut World, wanted: &str) -> bool {
    let proxy = &world.proxy;
    world.operator.until_within(LONG, "the trap, or the end of the move", |o| {
        if proxy.is_sprung() {
            return Ok(false);
        }
        match is_there(o, wanted) {
            // What the network's end sets going may still reach the trap.
            Ok(true) if proxy.under_way() == 0 => Ok(true),
            Ok(_) => Err("under way".to_owned()),
            Err(text) => Err(text),
        }
    })
}

/// Gives whether the engine had to be restarted.
fn approve_if_asked(world: &mut World, engine: &mut Engine, wanted: &str) -> bool {
    let mut restarts = 0;
    world.operator.until_within(LONG, "the move to go on", |o| {
        if restarts == 0 && o.log().contains(MISCOUNTS) {
            println!("the engine counts endpoints that are not there; it is restarted");
            restarts += 1;
            engine.stop();
            engine.launch();
        }
        match is_there(o, wanted) {
            Ok(true) => Ok(()),
            Ok(false) => Err("under way".to_owned()),
            Err(text) => Err(text),
        }
    });
    restarts > 0
}

#[test]
fn killed_before_every_write_beside() {
    every_kill_point(Way::Beside, Side::Before);
}

#[test]
fn killed_after_every_write_beside() {
    every_kill_point(Way::Beside, Side::After);
}

#[test]
fn killed_before_every_write_broken() {
    every_kill_point(Way::Broken, Side::Before);
}

#[test]
fn killed_after_every_write_broken() {
    every_kill_point(Way::Broken, Side::After);
}
