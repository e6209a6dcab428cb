//! Jobs on a real engine: an initialisation job runs once, resumes at the step that failed, and never repeats after success unless its
//! input changes (MISSION, scenario 20); what is known of it survives the death of the operator at any point.

use std::fs;
use std::path::PathBuf;

use qm_tests::support::manifests::{Service, sleeper};
use qm_tests::support::proxy::Side;
use qm_tests::support::world::World;
use serde_json::{Value, json};

/// A folder of the host that jobs write to, and are told things through.
struct Outside(PathBuf);

impl Outside {
    fn of(world: &World) -> Self {
        let path = world.operator.home().join("outside");
        fs::create_dir_all(&path).expect("the operator's home can be written");
        Self(path)
    }

    /// A job without steps that says what it does, and does it.
    fn job(&self, name: &str, command: &str, fields: Value) -> Service {
        self.mounted(sleeper(name)).set("command", json!(["sh", "-c", command])).job(fields)
    }

    /// A job with steps, each with its own line for the shell.
    fn steps(&self, name: &str, version: &str, steps: &[(&str, &str)], retries: u32) -> Service {
        let steps: Vec<Value> = steps.iter().map(|(step, command)| json!({ "name": step, "command": ["sh", "-c", command] })).collect();
        self.mounted(sleeper(name)).set("env", json!({ "VERSION": version })).job(json!({ "steps": steps, "retries": retries }))
    }

    fn mounted(&self, service: Service) -> Service {
        service.set("volumes", json!([{ "bind": self.0, "target": "/out" }]))
    }

    /// What has been done so far, in order.
    fn done(&self) -> Vec<String> {
        fs::read_to_string(self.0.join("done")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn allow(&self, file: &str) {
        fs::write(self.0.join(file), "").expect("the folder can be written");
    }
}

const STEPS: [(&str, &str); 3] = [
    ("prepare", "echo prepare $VERSION >>/out/done"),
    ("load", "echo load $VERSION >>/out/done; test -f /out/ready || { echo the data is not there; exit 3; }"),
    ("finish", "echo finish $VERSION >>/out/done; echo all is well"),
];

/// The containers of a job, by name.
fn containers_of(world: &World, job: &str) -> Vec<String> {
    let start = format!("{}-{job}-", world.namespace);
    world.containers().into_keys().filter(|name| name.starts_with(&start)).collect()
}

fn last_run(world: &World, job: &str) -> Value {
    world.status(job)["job"]["lastRuns"][0].clone()
}

fn cli(world: &World, arguments: &[&str]) -> String {
    let ns = world.namespace.clone();
    let done = world.operator.cli(&[arguments, &["-n", &ns]].concat());
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn scenario_20_an_initialisation_job_runs_once_and_resumes_at_the_step_that_failed() {
    let mut world = World::new();
    let outside = Outside::of(&world);
    let manifests = |version: &str| vec![outside.steps("init", version, &STEPS, 5), sleeper("app").needs("init")];
    world.write("all.yaml", &manifests("1"));
    world.operator.start();

    // The second step fails: the job says why, and what depends on it waits.
    let failed = world.until_status("init", "failed once", |s| s["message"].as_str().is_some_and(|m| m.contains("code 3")));
    assert_eq!((failed["severity"].clone(), failed["job"]["step"].clone()), (json!(4), json!("load")), "{failed:#}");
    assert_eq!(failed["job"]["lastRuns"][0]["output"], "the data is not there\n");
    assert_eq!(world.status("app")["reason"], "WaitingForDependency");
    assert_eq!(world.docker.inspect(&world.name("app")).expect("it is made already").state, "created");

    // The cause is mended; nobody has to wait for the pause to end.
    outside.allow("ready");
    cli(&world, &["retry", "msvc/init"]);
    world.settled(2);
    assert_eq!(outside.done(), ["prepare 1", "load 1", "load 1", "finish 1"], "it goes on where it failed");
    assert_eq!(containers_of(&world, "init"), Vec::<String>::new(), "what is recorded is taken away");
    let run = last_run(&world, "init");
    assert_eq!((&run["state"], &run["output"], &run["exitCode"]), (&json!("Succeeded"), &json!("all is well\n"), &json!(0)));
    let app = world.container("app");

    // Nothing brings it back: no pass, no restart of the operator, no restart of its dependent.
    assert_eq!(world.reconcile_all(3), 0, "a pass makes no call");
    world.operator.kill();
    world.operator.start();
    world.settled(2);
    world.quiet();
    assert_eq!((outside.done().len(), world.container("app").life()), (4, app.life()));

    // Another input is another run, from the first step on; the dependent is not restarted for it.
    world.write("all.yaml", &manifests("2"));
    world.until_status("init", "ran for the new input", |s| s["job"]["lastRuns"].as_array().is_some_and(|runs| runs.len() == 2));
    world.settled(2);
    assert_eq!(outside.done()[4..], ["prepare 2", "load 2", "finish 2"]);
    assert_eq!(world.container("app").life(), app.life());

    // An input that has succeeded has succeeded.
    world.write("all.yaml", &manifests("1"));
    world.until_status("init", "knows that input", |s| s["job"]["digest"] == run["run"]);
    world.settled(2);
    world.quiet();
    assert_eq!(outside.done().len(), 7);

    // A person may want it all the same.
    cli(&world, &["job", "run", "msvc/init", "--reason", "restored"]);
    world.until_status("init", "ran once more", |s| {
        let runs = &s["job"]["lastRuns"];
        runs.as_array().is_some_and(|runs| runs.len() == 3) && runs[0]["state"] == "Succeeded"
    });
    assert_eq!(outside.done()[7..], ["prepare 1", "load 1", "finish 1"]);
    let history = cli(&world, &["job", "history", "msvc/init"]);
    assert!(history.lines().count() == 4 && history.contains("restored"), "{history}");
    let runs: Value = serde_json::from_str(&cli(&world, &["job", "history", "init", "-o", "json"])).expect("that is JSON");
    assert_eq!(runs[0]["run"], format!("{}-2", run["run"].as_str().unwrap()));
}

#[test]
fn a_job_that_fails_as_often_as_it_may_says_why_and_keeps_its_last_container() {
    let mut world = World::new();
    let outside = Outside::of(&world);
    world.write("all.yaml", &[outside.job("init", "echo no such table; exit 9", json!({ "retries": 0 })), sleeper("app").needs("init")]);
    world.operator.start();
    let status = world.until_status("init", "failed", |s| s["severity"] == 5);
    assert_eq!((&status["reason"], &status["message"]), (&json!("JobFailed"), &json!("ended with code 9, after 1 attempt: no such table")));
    assert_eq!(world.status("app")["usable"], false);
    assert_eq!(cli(&world, &["logs", "init"]), "no such table\n", "its log can be read");
    assert_eq!(containers_of(&world, "init").len(), 1);
    world.quiet();
    assert_eq!(world.reconcile_all(3), 0, "nothing is tried again");
    // Its end: everything goes with it.
    world.write("all.yaml", &[sleeper("app")]);
    world.settled(1);
    assert_eq!(containers_of(&world, "init"), Vec::<String>::new());
}

#[test]
fn what_ended_while_nobody_looked_is_read_and_not_repeated() {
    let mut world = World::new();
    let outside = Outside::of(&world);
    let command = "echo begun >>/out/done; while ! test -f /out/end; do sleep 0.1; done; echo the end";
    world.write("all.yaml", &[outside.job("init", command, json!({})), sleeper("app").needs("init"), sleeper("other")]);
    world.operator.start();
    world.operator.until("the job runs", |_| if outside.done().len() == 1 { Ok(()) } else { Err(String::new()) });
    world.until_status("other", "is usable", |s| s["usable"] == true);

    // It ends while the operator is dead.
    world.operator.kill();
    outside.allow("end");
    let name = containers_of(&world, "init").remove(0);
    let docker = world.docker.clone();
    world.operator.until("the job has ended", |_| {
        let state = docker.inspect(&name).map(|c| c.state).unwrap_or_default();
        if state == "exited" { Ok(()) } else { Err(state) }
    });
    // And the store is lost too: the container proves the outcome.
    fs::remove_dir_all(&world.operator.setup.data_dir).expect("the store is there");
    world.operator.start();
    world.settled(3);
    assert_eq!((outside.done().len(), &last_run(&world, "init")["output"]), (1, &json!("the end\n")));

    // Now nothing proves it: the store is lost once more, and the container is gone.
    world.operator.kill();
    fs::remove_dir_all(&world.operator.setup.data_dir).expect("the store is there");
    world.operator.start();
    let status = world.until_status("init", "is unknown", |s| s["reason"] == "Unknown");
    world.quiet();
    assert_eq!((outside.done().len(), status["severity"].clone()), (1, json!(4)), "it does not run by itself");
    let plan = world.operator.post("/quaymaster/v1/plan", &json!({}))["plan"].clone();
    let steps = plan["steps"].as_array().cloned().unwrap_or_default();
    let hash = steps.iter().find(|s| s["needsApproval"] == true).map(|s| s["hash"].as_str().unwrap_or_default().to_owned());
    let hash = hash.unwrap_or_else(|| panic!("a step asks for approval: {plan:#}"));
    assert!(world.operator.cli(&["approve", &hash]).status.success());
    world.settled(3);
    assert_eq!(outside.done().len(), 2);
}

#[test]
fn a_job_whose_container_somebody_removed_asks_before_it_runs_again() {
    let mut world = World::new();
    let outside = Outside::of(&world);
    world.write("all.yaml", &[outside.job("init", "echo begun >>/out/done; sleep 600", json!({})), sleeper("other")]);
    world.operator.start();
    world.operator.until("the job runs", |_| if outside.done().len() == 1 { Ok(()) } else { Err(String::new()) });
    world.until_status("other", "is usable", |s| s["usable"] == true);
    let name = containers_of(&world, "init").remove(0);
    world.docker.remove(&name);
    world.until_status("init", "is unknown", |s| s["reason"] == "Unknown");
    world.quiet();
    assert_eq!((outside.done().len(), containers_of(&world, "init")), (1, vec![]));
    assert_eq!(world.reconcile_all(3), 0);
}

#[test]
fn a_job_is_stopped_when_its_time_is_over() {
    let mut world = World::new();
    let outside = Outside::of(&world);
    world.write("all.yaml", &[outside.job("init", "sleep 600", json!({ "retries": 0, "activeDeadline": "1s" }))]);
    world.operator.start();
    let status = world.until_status("init", "failed", |s| s["severity"] == 5);
    assert_eq!(status["message"], "was stopped after 1 s, as long as it may run, after 1 attempt");
}

#[test]
fn a_scheduled_job_runs_when_it_is_due_and_once_for_what_was_missed() {
    // On the simulated engine: nobody waits for an hour.
    let runs = qm_tests::simulation::run_scheduled_job().unwrap_or_else(|wrong| panic!("{wrong}"));
    let minute = |run: &Value| run["due"].as_str().unwrap_or_default()[11..16].to_owned();
    // The operator was dead from 00:25 to 00:52: one run for all that was missed.
    assert_eq!(runs.iter().map(minute).collect::<Vec<_>>(), ["01:00", "00:50", "00:20", "00:10"], "{runs:#?}");
    assert!(runs.iter().all(|run| run["state"] == "Succeeded" && run["attempt"] == 1), "{runs:#?}");
    assert_eq!(runs[0]["output"], "reported\n");
}

/// The operator killed on either side of every write in the life of a job with two steps: each step is done once, whatever happens.
fn every_kill_point(side: Side) {
    let mut world = World::new();
    let outside = Outside::of(&world);
    let steps = [("a", "echo a $VERSION >>/out/done"), ("b", "echo b $VERSION >>/out/done")];
    world.write("all.yaml", &[outside.steps("init", "0", &steps, 3), sleeper("app").needs("init")]);
    world.operator.start();
    world.settled(2);
    for n in 1..20 {
        let version = n.to_string();
        world.proxy.trap(n, side);
        world.write("all.yaml", &[outside.steps("init", &version, &steps, 3), sleeper("app").needs("init")]);
        let proxy = &world.proxy;
        let namespace = world.namespace.clone();
        let is_over = world.operator.until(&format!("write {n}, or the end"), |o| {
            let status = o.service(&namespace, "init")["status"].clone();
            let runs = status["job"]["lastRuns"].as_array().map_or(0, Vec::len);
            match (proxy.is_sprung(), runs > n.min(9) && status["job"]["state"] == "Succeeded" && status["usable"] == true) {
                (true, _) => Ok(false),
                (false, true) => Ok(true),
                (false, false) => Err(format!("{status:#}")),
            }
        });
        if is_over {
            // The last removal may still be under way.
            world.quiet();
        }
        let was_killed = world.proxy.is_sprung();
        world.operator.kill();
        world.proxy.release();
        world.operator.start();
        world.operator.until(&format!("both steps of run {n}"), |_| {
            let done = outside.done();
            if done.iter().any(|line| *line == format!("b {version}")) { Ok(()) } else { Err(format!("{done:?}")) }
        });
        world.settled(2);
        world.quiet();
        let of_run: Vec<String> = outside.done().into_iter().filter(|line| line.ends_with(&format!(" {version}"))).collect();
        assert_eq!(of_run, [format!("a {version}"), format!("b {version}")], "killed {side:?} write {n}\n{}", world.operator.log());
        assert_eq!(containers_of(&world, "init"), Vec::<String>::new(), "killed {side:?} write {n}");
        if !was_killed {
            println!("killed {side:?} the answer of every write of a job: {} points", n - 1);
            assert!(n > 6, "two steps are made, started and removed: {n}");
            return;
        }
    }
    panic!("a job with two steps takes more than 20 writes");
}

#[test]
fn killed_before_every_write_of_a_job() {
    every_kill_point(Side::Before);
}

#[test]
fn killed_after_every_write_of_a_job() {
    every_kill_point(Side::After);
}
