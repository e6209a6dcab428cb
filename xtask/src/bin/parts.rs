//! Parts of the bench that must be built as the product is: a bare hyper server to measure against, and the availability engine by itself.
//!
//! `parts echo SOCKET` answers every request with the same few bytes until it is ended; `parts graph NODES CHANGES` prints one JSON line.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::graph::{Dependency, Graph};
use qm_api::meta::ObjectKey;
use qm_api::spec::edge::Edge;
use qm_api::time::Timestamp;
use qm_plan::availability::{Engine, Now, Settings};
use qm_plan::own::Own;
use serde_json::{Value, json};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["echo", socket] => echo(socket),
        ["graph", nodes, changes] => {
            println!("{}", graph(nodes.parse()?, changes.parse()?)?);
            Ok(())
        }
        _ => bail!("usage: parts echo SOCKET | parts graph NODES CHANGES"),
    }
}

/// As bare as it gets: the same runtime as the operator's, the connection handling of hyper, and an answer of about the same size.
fn echo(socket: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::bind(socket).context("the socket cannot be listened on")?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                let answer = service_fn(|_| async {
                    let body = Full::new(Bytes::from_static(&[b'x'; 256]));
                    Ok::<_, Infallible>(hyper::Response::new(body))
                });
                // Whoever is measured against it has gone when this fails.
                drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
            });
        }
    })
}

/// A generator of numbers that is the same in every run.
struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

fn key(n: usize) -> ObjectKey {
    ObjectKey::new("MiniService", "bench", format!("s{n:05}"))
}

/// What each node of a shape depends on.
fn shape(name: &str, nodes: usize, draws: &mut Draws) -> Vec<Vec<usize>> {
    (0..nodes)
        .map(|n| match name {
            "chain" => n.checked_sub(1).into_iter().collect(),
            "star" => {
                if n == 0 {
                    Vec::new()
                } else {
                    vec![0]
                }
            }
            // A hundred a level, each on three of the level below.
            "layered" => {
                if n < 100 {
                    Vec::new()
                } else {
                    (0..3).map(|_| (n / 100 - 1) * 100 + draws.below(100)).collect()
                }
            }
            _ => {
                if n == 0 {
                    Vec::new()
                } else {
                    (0..2).map(|_| draws.below(n)).collect()
                }
            }
        })
        .collect()
}

/// One node after the other fails and comes back; how long it takes until everybody's state is published.
fn graph(nodes: usize, changes: usize) -> Result<Value> {
    let mut shapes: BTreeMap<&str, Value> = BTreeMap::new();
    for name in ["chain", "star", "layered", "random"] {
        let mut draws = Draws(7);
        let edges = shape(name, nodes, &mut draws);
        let resolve = |on: &usize| Dependency::resolve(&"bench".into(), &Edge { service: Some(format!("s{on:05}")), ..Edge::default() });
        let graph = Graph::build(edges.iter().enumerate().map(|(n, on)| (key(n), on.iter().filter_map(resolve).collect())));
        let mut engine = Engine::default();
        let began = Instant::now();
        let now = || {
            let ms = began.elapsed().as_millis() as u64;
            Now { wall: Timestamp::from_millis(ms as i64), mono_ms: ms }
        };
        engine.set_graph(&graph, &|_| Settings { grace_ms: 30_000, critical: false, rollup: None }, now());
        for n in 0..nodes {
            engine.observe(&key(n), Own::seen(Availability::Available, Reason::Healthy, ""), now());
        }
        let mut published = engine.snapshot();
        let (mut micros, mut worst_excess, mut affected_most) = (Vec::new(), 0.0_f64, 0);
        for _ in 0..changes {
            let node = key(draws.below(nodes));
            for own in [
                Own::seen(Availability::TemporarilyUnavailable, Reason::Exited, "ended"),
                Own::seen(Availability::Available, Reason::Healthy, ""),
            ] {
                let before = engine.stats();
                let at = Instant::now();
                let affected = engine.observe(&node, own, now());
                published = engine.snapshot();
                micros.push(at.elapsed().as_secs_f64() * 1e6);
                let visited = engine.stats().nodes - before.nodes;
                let edges: usize = affected.iter().map(|key| graph.dependents(key).len()).sum();
                worst_excess = worst_excess.max(visited as f64 / (1 + affected.len() + edges) as f64);
                affected_most = affected_most.max(affected.len());
            }
        }
        micros.sort_by(f64::total_cmp);
        let quantile = |share: f64| micros[((micros.len() as f64 * share).ceil() as usize).clamp(1, micros.len()) - 1];
        let row = json!({
            "p50": quantile(0.5), "p99": quantile(0.99), "most": affected_most, "visitedOfAllowed": worst_excess, "version": published.version(),
        });
        shapes.insert(name, row);
    }
    Ok(json!(shapes))
}
