//! HTTP in process, in virtual time: the same run gives the same log, faults do what they say, and a client that gave up undoes nothing.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use qm_dockersim::{Engine, EventFault, Exchange, Fault, Now, Options, Sim};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const WALL: i64 = 1_795_572_000_000_000_000;

/// A simulation with its timer task, on a runtime of its own.
fn simulate<F: Future>(scenario: impl FnOnce(Sim) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let start = tokio::time::Instant::now();
        let now = move || {
            let ms = u64::try_from(start.elapsed().as_millis()).expect("short");
            Now { mono_ms: ms, wall_ns: WALL + i64::try_from(ms).expect("short") * 1_000_000 }
        };
        let sim = Sim::new(Engine::new(Options::default(), now()), Arc::new(now));
        let timer = sim.clone();
        tokio::spawn(async move { timer.run().await });
        tokio::time::timeout(Duration::from_secs(3600), scenario(sim)).await.expect("no deadlock")
    })
}

async fn send(stream: &mut DuplexStream, method: &str, path: &str, body: &str) {
    let text = format!(
        "{method} /v1.41{path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.expect("a request can be sent");
}

/// The whole answer as text; what was there before a cut, if there is one.
async fn call(sim: &Sim, method: &str, path: &str, body: &str) -> String {
    let mut stream = sim.connect().expect("the daemon is there");
    send(&mut stream, method, path, body).await;
    let mut answer = Vec::new();
    // A cut shows as an early end.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or("")
}

const BODY: &str = "{\"Image\":\"busybox:local\",\"Cmd\":[\"sleep\",\"100\"],\"Labels\":{\"b\":\"1\",\"a\":\"2\"}}";

fn log_of_a_run() -> Vec<String> {
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = log.clone();
    simulate(|sim| async move {
        sim.set_observer(Arc::new(move |exchange: &Exchange| seen.lock().expect("a log").push(format!("{exchange:?}"))));
        sim.set_faults(Arc::new(|call| if call.path.ends_with("/start") && call.occurrence == 1 { Fault::delay(37) } else { Fault::None }));
        let mut clients = Vec::new();
        for client in 0..4_u64 {
            let sim = sim.clone();
            clients.push(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(client * 3)).await;
                for round in 0..5 {
                    let name = format!("c{client}-{round}");
                    call(&sim, "POST", &format!("/containers/create?name={name}"), BODY).await;
                    call(&sim, "POST", &format!("/containers/{name}/start"), "").await;
                    call(&sim, "POST", &format!("/containers/{name}/stop?t=2"), "").await;
                    call(&sim, "GET", "/containers/json?all=1", "").await;
                }
            }));
        }
        for client in clients {
            client.await.expect("a client ends");
        }
    });
    Arc::try_unwrap(log).expect("nobody else").into_inner().expect("a log")
}

#[test]
fn two_runs_give_the_same_log() {
    let first = log_of_a_run();
    assert_eq!(first.len(), 80);
    assert_eq!(first, log_of_a_run());
}

#[test]
fn faults_do_what_they_say() {
    simulate(|sim| async move {
        let fault = |fault: Fault| {
            sim.set_faults(Arc::new(move |call| if call.is_write { fault.clone() } else { Fault::None }));
        };
        let count = || sim.with(|engine| engine.containers().count());
        fault(Fault::CutBefore);
        assert_eq!(call(&sim, "POST", "/containers/create?name=f1", BODY).await, "");
        assert_eq!(count(), 0);
        fault(Fault::CutAfter);
        assert_eq!(call(&sim, "POST", "/containers/create?name=f1", BODY).await, "");
        assert_eq!(count(), 1);
        fault(Fault::Status { code: 500, message: "no space left on device".to_owned() });
        let answer = call(&sim, "POST", "/containers/create?name=f2", BODY).await;
        assert!(status(&answer) == "500" && answer.contains("no space left on device"));
        assert_eq!(count(), 1);
        fault(Fault::CutMidBody);
        let answer = call(&sim, "POST", "/containers/create?name=f3", BODY).await;
        assert!(status(&answer) == "201" && !answer.contains("Warnings\":[]}"), "{answer}");
        assert_eq!(count(), 2);
        fault(Fault::Silent);
        let silent = tokio::time::timeout(Duration::from_secs(100), call(&sim, "POST", "/containers/create?name=f4", BODY)).await;
        assert!(silent.is_err() && count() == 2);
        sim.clear_faults();
        sim.set_away(true);
        assert!(sim.connect().is_err());
    });
}

#[test]
fn a_client_that_gave_up_undoes_nothing() {
    simulate(|sim| async move {
        call(&sim, "POST", "/containers/create?name=slow", &BODY.replace("\"b\":\"1\"", "\"dockersim.start-ms\":\"5000\"")).await;
        let gave_up = tokio::time::timeout(Duration::from_secs(1), call(&sim, "POST", "/containers/slow/start", "")).await;
        assert!(gave_up.is_err());
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(sim.with(|engine| engine.container_view("slow").is_some_and(|c| c.phase().runs())));
    });
}

#[test]
fn events_flow_are_doubled_and_end_with_a_cut() {
    simulate(|sim| async move {
        sim.set_event_faults(Arc::new(|event, _| match &*event.action {
            "create" => EventFault::Double,
            "start" => EventFault::Drop,
            _ => EventFault::Pass,
        }));
        let mut stream = sim.connect().expect("the daemon is there");
        send(&mut stream, "GET", "/events", "").await;
        let read = tokio::spawn(async move {
            let mut text = Vec::new();
            let _ = stream.read_to_end(&mut text).await;
            String::from_utf8_lossy(&text).into_owned()
        });
        tokio::time::sleep(Duration::from_secs(200)).await;
        call(&sim, "POST", "/containers/create?name=e1", BODY).await;
        call(&sim, "POST", "/containers/e1/start", "").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        sim.cut_all();
        let text = read.await.expect("a reader ends");
        let count = |word: &str| text.matches(&format!("\"Action\":\"{word}\"")).count();
        assert_eq!((count("create"), count("start"), count("connect")), (2, 0, 1), "{text}");
    });
}

#[test]
fn containers_can_be_dialled() {
    simulate(|sim| async move {
        let body =
            "{\"Image\":\"busybox:local\",\"Cmd\":[\"httpd\",\"-f\",\"-p\",\"8080\"],\"Labels\":{\"dockersim.http-status\":\"204\"}}";
        call(&sim, "POST", "/containers/create?name=web", body).await;
        assert!(sim.dial("172.17.0.2", 8080).is_err());
        call(&sim, "POST", "/containers/web/start", "").await;
        assert!(sim.dial("172.17.0.2", 80).is_err());
        let mut stream = sim.dial("172.17.0.2", 8080).expect("it listens");
        send(&mut stream, "GET", "/", "").await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        assert_eq!(status(&String::from_utf8_lossy(&answer)), "204");
    });
}
