//! Many services on the simulated engine, which is a process of its own: what is measured is the operator alone.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::footprint::resident_mib;
use super::operator::{Operator, Setup, service};
use super::report::{Report, Samples};
use crate::docker::Docker;
use crate::engine::terminate;

const PATIENCE: Duration = Duration::from_secs(300);
/// Services in one file.
const A_FILE: usize = 100;

/// A simulated engine behind a socket.
pub(crate) struct Simulator {
    child: Child,
    dir: tempfile::TempDir,
}

impl Simulator {
    pub(crate) fn start(setup: &Setup) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("qm-sim-").tempdir()?;
        let child = Command::new(&setup.binary)
            .args(["sim", "serve", "--socket"])
            .arg(dir.path().join("docker.sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("the simulator cannot be started")?;
        let simulator = Self { child, dir };
        let began = Instant::now();
        while !simulator.docker().answers() {
            if began.elapsed() > Duration::from_secs(20) {
                bail!("the simulator does not answer");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(simulator)
    }

    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("docker.sock")
    }

    fn docker(&self) -> Docker {
        Docker::at(&self.socket())
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        terminate(&mut self.child, Duration::from_secs(10));
    }
}

fn manifests(count: usize, first_env: usize) -> BTreeMap<String, String> {
    let one = |n: usize| {
        let env = if n == 0 { first_env } else { 0 };
        let container = json!({ "image": "busybox:local", "pullPolicy": "Never", "command": ["sleep", "1000000"], "init": true, "env": { "N": env.to_string() } });
        let mut spec = json!({ "container": container });
        // Chains of ten: each waits for the one before it.
        if !n.is_multiple_of(10) {
            spec["dependsOn"] = json!([{ "service": format!("s{:05}", n - 1) }]);
        }
        service("scale", &format!("s{n:05}"), &spec)
    };
    (0..count.div_ceil(A_FILE))
        .map(|file| {
            let documents: Vec<String> = (file * A_FILE..((file + 1) * A_FILE).min(count)).map(one).collect();
            (format!("f{file:03}.yaml"), documents.join("---\n"))
        })
        .collect()
}

/// Cold convergence, a pass of everything, a change of one, and a restart with a warm store.
pub(crate) fn scale(setup: &Setup, counts: &[usize], report: &mut Report) -> Result<()> {
    for count in counts {
        let simulator = Simulator::start(setup)?;
        let host = format!("unix://{}", simulator.socket().display());
        let began = Instant::now();
        let operator = Operator::start(setup, &host, &manifests(*count, 0))?;
        operator.until_usable(*count as u64, PATIENCE)?;
        let cold = began.elapsed().as_secs_f64();
        let calls = operator.docker_calls()?;
        let resident = resident_mib(operator.pid())?;
        report.row(
            &format!("{count} services from nothing, simulated engine"),
            format!("{cold:.1} s, {calls:.0} calls ({:.1} a service), {resident:.0} MiB resident", calls / *count as f64),
            String::new(),
            "10,000: <= 10 s, <= 200 MiB",
            (*count == 10_000).then_some(cold <= 10.0 && resident <= 200.0),
        );
        let passes = |o: &Operator| o.metric("controller_runtime_reconcile_total", &[]);
        std::thread::sleep(Duration::from_secs(3));
        let mut idle = Samples::default();
        let mut extra = Samples::default();
        for _ in 0..5 {
            let (before, calls_before) = (passes(&operator)?, operator.docker_calls()?);
            let began = Instant::now();
            operator.reconcile_all()?;
            operator.until("reconciled", PATIENCE, |o| Ok(passes(o)? >= before + *count as f64))?;
            idle.push(began.elapsed().as_secs_f64() * 1_000.0);
            extra.push(operator.docker_calls()? - calls_before);
        }
        let measured = format!("{:.0} ms until seen done, {:.0} calls", idle.median(), extra.median());
        report.row(&format!("no-op pass, {count} services, simulated"), measured, String::new(), "0 calls", Some(extra.median() == 0.0));
        let calls_before = operator.docker_calls()?;
        let file = manifests(A_FILE.min(*count), 1).remove("f000.yaml").context("there is a first file")?;
        let began = operator.drop_in("f000.yaml", &file)?;
        let wanted = "N=1";
        operator.until("changed", PATIENCE, |_| {
            let ids = simulator.docker().labelled("quaymaster.dev/name=s00000")?;
            let inspect = simulator.docker().json("GET", &format!("/containers/{}/json", ids.first().context("it is there")?), None)?;
            Ok(ids.len() == 1 && inspect["Config"]["Env"].to_string().contains(wanted) && inspect["State"]["Running"] == true)
        })?;
        let one = began.elapsed().as_secs_f64() * 1_000.0;
        std::thread::sleep(Duration::from_secs(1));
        let calls = operator.docker_calls()? - calls_before;
        report.row(&format!("one of {count} changes, simulated"), format!("{one:.0} ms, {calls:.0} calls"), String::new(), "", None);
        drop(operator);
        drop(simulator);
    }
    Ok(())
}
