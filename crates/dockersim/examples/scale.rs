//! How fast and how large: `scale [CONTAINERS]` creates and starts them over in-process connections, lists them, and prints figures.

use std::sync::Arc;

use qm_dockersim::{Engine, Now, Options, Sim};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

async fn call(sim: &Sim, method: &str, path: &str, body: &str) -> std::io::Result<usize> {
    let mut stream = sim.connect()?;
    let text = format!(
        "{method} /v1.41{path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: usize = std::env::args().nth(1).map_or(Ok(10_000), |n| n.parse())?;
    let start = tokio::time::Instant::now();
    let now = move || {
        let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono_ms: ms, wall_ns: 1_795_572_000_000_000_000 + i64::try_from(ms).unwrap_or(0) * 1_000_000 }
    };
    let sim = Sim::new(Engine::new(Options::default(), now()), Arc::new(now));
    let timer = sim.clone();
    tokio::spawn(async move { timer.run().await });
    call(&sim, "POST", "/networks/create", "{\"Name\":\"shop_default\"}").await?;
    let before = resident_kib();
    let begin = tokio::time::Instant::now();
    for index in 0..count {
        let body = format!(
            "{{\"Image\":\"busybox:local\",\"Cmd\":[\"sleep\",\"1000000\"],\"Labels\":{{\"quaymaster.dev/instance\":\"demo\",\
             \"quaymaster.dev/name\":\"svc-{index}\",\"quaymaster.dev/generation\":\"1\",\"com.docker.compose.project\":\"shop\"}},\
             \"HostConfig\":{{\"Init\":true,\"NetworkMode\":\"shop_default\",\"RestartPolicy\":{{\"Name\":\"unless-stopped\"}}}},\
             \"NetworkingConfig\":{{\"EndpointsConfig\":{{\"shop_default\":{{\"Aliases\":[\"svc-{index}\"]}}}}}}}}"
        );
        call(&sim, "POST", &format!("/containers/create?name=shop-svc-{index}-1"), &body).await?;
        call(&sim, "POST", &format!("/containers/shop-svc-{index}-1/start"), "").await?;
    }
    let took = begin.elapsed();
    let per_second = 2.0 * count as f64 / took.as_secs_f64();
    println!("create and start {count}: {took:.2?}, {per_second:.0} requests a second");
    println!("resident: {} bytes a container", resident_kib().saturating_sub(before) * 1024 / count.max(1) as u64);
    for path in ["/containers/json?all=1", "/containers/shop-svc-0-1/json", "/_ping"] {
        let begin = tokio::time::Instant::now();
        let bytes = call(&sim, "GET", path, "").await?;
        println!("GET {path}: {:.2?}, {bytes} bytes", begin.elapsed());
    }
    Ok(())
}
