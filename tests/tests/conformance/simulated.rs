//! The simulator as a subject: served over a unix socket by a thread of the test's own, so that the cases ask it as they ask the daemon.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use qm_dockersim::{Engine, Now, Options, Sim};
use qm_tests::conformance::{Area, random, run};
use qm_tests::support::http::Place;
use qm_tests::support::{engine, wait};

/// A simulated engine in the time of the machine; one for all tests of this process.
fn place() -> Place {
    static SOCKET: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, socket) = SOCKET.get_or_init(|| {
        let dir = tempfile::tempdir().expect("the temporary folder can be written");
        let socket = dir.path().join("docker.sock");
        let listens = socket.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
            runtime.block_on(async {
                let started = Instant::now();
                let clock = Arc::new(move || Now {
                    mono_ms: started.elapsed().as_millis() as u64,
                    wall_ns: SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_nanos() as i64,
                });
                let sim = Sim::new(Engine::new(Options::default(), clock()), clock);
                let ((), served) = tokio::join!(sim.run(), sim.serve_unix(&listens));
                served.expect("the simulator serves");
            });
        });
        let up = wait::until(Duration::from_secs(10), || if socket.exists() { Ok(()) } else { Err("it does not listen".to_owned()) });
        up.expect("the simulator comes up");
        (dir, socket)
    });
    Place::from(socket.as_path())
}

fn sim(area: Area) {
    run(&place(), area);
}

#[test]
fn sim_system() {
    sim(Area::System);
}

#[test]
fn sim_containers() {
    sim(Area::Containers);
}

#[test]
fn sim_networks() {
    sim(Area::Networks);
}

#[test]
fn sim_volumes() {
    sim(Area::Volumes);
}

#[test]
fn sim_images() {
    sim(Area::Images);
}

#[test]
fn sim_events() {
    sim(Area::Events);
}

#[test]
fn real_against_sim() {
    let real = Place::from(engine::shared().socket());
    for seed in 1..=20 {
        random::compare(&real, &place(), seed, 40).unwrap_or_else(|difference| panic!("{difference}"));
    }
}
