//! What others do to the engine by hand: to our things, and with things of their own that look like ours. All of it goes past the faults.

use std::collections::BTreeSet;

use qm_dockersim::{Engine, Now};
use serde_json::{Value, json};

use super::judge::{Real, ask, containers};
use super::rng::Rng;
use super::town::{IMAGE, OTHER_IMAGE, VOLUME_IMAGE};

/// Label of what a stranger put in our way, and takes away again before the calm.
const IN_THE_WAY: &str = "sim.in-the-way";

/// Makes strangers that look like family; gives their ids.
pub fn strangers(engine: &mut Engine, now: Now, namespaces: &BTreeSet<String>) -> Vec<String> {
    let mut ids = Vec::new();
    for namespace in namespaces {
        // Another instance's, for the same owner; one with a name like ours; an orphan that nothing remembers.
        let stamp = |instance: &str, name: &str, uid: &str| {
            json!({
                "quaymaster.dev/instance": instance, "quaymaster.dev/kind": "MiniService", "quaymaster.dev/namespace": namespace,
                "quaymaster.dev/name": name, "quaymaster.dev/uid": uid, "quaymaster.dev/slot": "1", "quaymaster.dev/revision": "1",
            })
        };
        for name in ["store", "app", "web"] {
            ids.extend(run(engine, now, &format!("theirs-{namespace}-{name}"), &stamp("another", name, "other")));
        }
        ids.extend(run(engine, now, &format!("{namespace}_app_1"), &json!({ "app": "app" })));
        // Not foreign: ours by its stamp, remembered by nobody. It stays until somebody approves.
        run(engine, now, &format!("left-{namespace}"), &stamp(super::judge::INSTANCE, "forgotten", "orphan"));
    }
    let (status, network) = ask(engine, now, "POST", "/networks/create", &[], &json!({ "Name": "theirs", "Labels": { "a": "b" } }));
    if status == 201 {
        ids.push(network["Id"].as_str().unwrap_or_default().to_owned());
    }
    ids
}

fn run(engine: &mut Engine, now: Now, name: &str, labels: &Value) -> Option<String> {
    let body = json!({ "Image": IMAGE, "Labels": labels });
    let (status, made) = ask(engine, now, "POST", "/containers/create", &[("name", name)], &body);
    let id = made["Id"].as_str().filter(|_| status == 201)?.to_owned();
    ask(engine, now, "POST", &format!("/containers/{id}/start"), &[], &Value::Null);
    Some(id)
}

/// Does one thing by hand; says what, and gives the ids of new strangers.
pub fn meddle(engine: &mut Engine, now: Now, rng: &mut Rng) -> (String, Vec<String>) {
    let ours: Vec<Real> = containers(engine, now).into_iter().filter(|c| c.is_ours() && c.label("uid") != "orphan").collect();
    let Some(victim) = rng.pick(&ours).cloned() else { return ("nothing to meddle with".to_owned(), Vec::new()) };
    let path = |verb: &str| format!("/containers/{}/{verb}", victim.id);
    let mut post = |verb: &str, query: &[(&str, &str)], body: Value| ask(engine, now, "POST", &path(verb), query, &body).0;
    let (what, status) = match rng.below(13) {
        0 | 1 => ("rm -f", ask(engine, now, "DELETE", &format!("/containers/{}", victim.id), &[("force", "1")], &Value::Null).0),
        2 => ("stop", post("stop", &[("t", "0")], Value::Null)),
        3 => ("kill", post("kill", &[], Value::Null)),
        // What was only just created may not have its files yet, and nothing at the engine would tell. A known gap.
        4 if victim.state == "created" => ("nothing", 0),
        4 => ("restart", post("restart", &[("t", "0")], Value::Null)),
        5 => ("rename", post("rename", &[("name", &format!("odd-{}", rng.below(1_000_000)))], Value::Null)),
        6 => ("update", post("update", &[], json!({ "Memory": 777 << 20, "MemorySwap": -1 }))),
        7 => ("pause", post("pause", &[], Value::Null)),
        8 => {
            let networks: Vec<&String> = victim.networks.keys().collect();
            let Some(network) = rng.pick(&networks) else { return ("no network".to_owned(), Vec::new()) };
            let body = json!({ "Container": victim.id, "Force": true });
            ("disconnect", ask(engine, now, "POST", &format!("/networks/{network}/disconnect"), &[], &body).0)
        }
        9 => ("network rm", remove_network(engine, now, rng)),
        10 => {
            // Somebody else takes a name that we will want.
            let name = format!("{}-{}-{}", victim.label("namespace"), victim.label("name"), victim.slot() + 1);
            let id = run(engine, now, &name, &json!({ IN_THE_WAY: "yes" }));
            return (format!("a stranger called {name}: {}", id.is_some()), id.into_iter().collect());
        }
        11 => ("compose down", compose_down(engine, now, victim.label("namespace"))),
        _ => {
            let query = [("repo", "busybox"), ("tag", "two")];
            let from = if rng.chance(50) { IMAGE } else { VOLUME_IMAGE };
            ("tag", ask(engine, now, "POST", &format!("/images/{from}/tag"), &query, &Value::Null).0)
        }
    };
    (format!("{what} {} ({}): {status}", victim.name, OTHER_IMAGE.len()), Vec::new())
}

fn remove_network(engine: &mut Engine, now: Now, rng: &mut Rng) -> u16 {
    let (_, networks) = ask(engine, now, "GET", "/networks", &[], &Value::Null);
    let is_ours = |n: &&Value| n["Labels"]["quaymaster.dev/instance"] == super::judge::INSTANCE;
    let ours: Vec<Value> = networks.as_array().into_iter().flatten().filter(is_ours).cloned().collect();
    let Some(network) = rng.pick(&ours) else { return 0 };
    let id = network["Id"].as_str().unwrap_or_default();
    let name = network["Name"].as_str().unwrap_or_default();
    for container in containers(engine, now).iter().filter(|c| c.networks.contains_key(name)) {
        let body = json!({ "Container": container.id, "Force": true });
        ask(engine, now, "POST", &format!("/networks/{id}/disconnect"), &[], &body);
    }
    ask(engine, now, "DELETE", &format!("/networks/{id}"), &[], &Value::Null).0
}

/// `docker compose -p NS down`: everything with the project's label goes.
fn compose_down(engine: &mut Engine, now: Now, namespace: &str) -> u16 {
    let of_project = |c: &&Real| c.is_ours() && c.labels.get("com.docker.compose.project").is_some_and(|p| p == namespace);
    let mut status = 0;
    for container in containers(engine, now).iter().filter(of_project) {
        status = ask(engine, now, "DELETE", &format!("/containers/{}", container.id), &[("force", "1")], &Value::Null).0;
    }
    status
}

/// The tag that most services name means another image from now on; who runs stays on the one it was made from.
pub fn move_tag(engine: &mut Engine, now: Now) {
    let (repo, tag) = IMAGE.split_once(':').unwrap_or((IMAGE, "latest"));
    ask(engine, now, "POST", &format!("/images/{VOLUME_IMAGE}/tag"), &[("repo", repo), ("tag", tag)], &Value::Null);
}

/// Takes away what strangers put in our way.
pub fn clear_the_way(engine: &mut Engine, now: Now) {
    for container in containers(engine, now).iter().filter(|c| c.labels.contains_key(IN_THE_WAY)) {
        ask(engine, now, "DELETE", &format!("/containers/{}", container.id), &[("force", "1")], &Value::Null);
    }
}
