//! A simulated engine on a unix socket: `serve SOCKET [WORLD.yaml|-] [bridge]`. Containers get addresses out of
//! 127.0.0.0/8, with real listeners, unless `bridge` asks for the daemon's own.

use std::path::PathBuf;
use std::sync::Arc;

use qm_dockersim::{AddressPool, Engine, Now, Options, Sim, World};

#[expect(clippy::disallowed_methods, reason = "the real clock of a real server")]
fn wall_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let socket = PathBuf::from(arguments.next().ok_or("usage: serve SOCKET [WORLD.yaml]")?);
    let world = match arguments.next() {
        Some(path) if path != "-" => World::parse(&std::fs::read_to_string(path)?)?,
        _ => World::default(),
    };
    let start = tokio::time::Instant::now();
    let now = move || Now { mono_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX), wall_ns: wall_ns() };
    let seed = u64::from_ne_bytes(wall_ns().to_ne_bytes());
    let pool = if arguments.next().as_deref() == Some("bridge") { AddressPool::Bridge } else { AddressPool::Loopback };
    let options = Options { seed, pool, world, ..Options::default() };
    let sim = Sim::new(Engine::new(options, now()), Arc::new(now));
    tokio::select! {
        result = sim.serve_unix(&socket) => result?,
        () = sim.run() => {}
        () = sim.serve_ports(|text| eprintln!("{text}")) => {}
    }
    Ok(())
}
