//! A small shop over HTTP whose routes are there while its database is. It owns nothing but an example: start at [`router`].

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::routing::get;
use qm_sdk::{Blocked, Client, Report, Reporter, RequiresLayer, Then, WhenAway, requires};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

/// The part of this app that uses the database; a mini service of the form `logical`.
const PART: &str = "shop-db";
/// How long a request waits for a database that is being changed.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the database is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often the pool of connections was opened. A real shop would have the pool here.
static OPENED: AtomicU32 = AtomicU32::new(1);

#[tokio::main]
async fn main() -> Result<()> {
    let listen = std::env::var("LISTEN").unwrap_or_else(|_| "0.0.0.0:8080".to_owned());
    let database = std::env::var("DATABASE").context("DATABASE is where the database is: HOST:PORT")?;
    let client = Client::builder().when_away(when_away()?).start()?;
    qm_sdk::install(client.clone())?;
    let reporter = client.reporter(PART);
    let listener = TcpListener::bind(&listen).await.with_context(|| format!("cannot listen at {listen}"))?;
    let mut end = signal(SignalKind::terminate())?;
    let server = axum::serve(listener, router(&client)).with_graceful_shutdown(async move {
        end.recv().await;
    });
    tokio::select! {
        served = async { server.await } => served?,
        () = look_after(&reporter, &database) => {}
    }
    Ok(())
}

fn router(client: &Client) -> Router {
    // A layer: every route before it asks before it is called, and the connection is not remade while it runs. Locks do not follow edges: who
    // wants the database itself left alone holds the use of that.
    let orders = RequiresLayer::new(client.clone(), PART).operation("read").holding_use(PATIENCE);
    let pool = || async { format!("opened {} times\n", OPENED.load(Ordering::Relaxed)) };
    Router::new()
        .route("/orders", get(|| async { "two teas\n" }))
        .layer(orders)
        .route("/save", get(save))
        .route("/pool", get(pool))
        .route("/healthz", get(|| async { "ok\n" }))
}

/// An attribute: the function asks by itself.
#[requires(service = "shop-db", operation = "write")]
async fn save() -> Result<&'static str, Blocked> {
    Ok("saved\n")
}

/// Says how the part is that uses the database, and opens it anew when it is told to.
async fn look_after(reporter: &Reporter, database: &str) {
    loop {
        // Names and addresses can take a minute to fail; the operator must hear of this part meanwhile, and be heard.
        let trouble = match timeout(LOOK, TcpStream::connect(database)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("{database} does not answer")),
        };
        // Whether the database is up is for the operator to say, and it says so of this part too. What the shop knows is that it cannot write.
        let blocked = |reason| Report { reason, blocked_operations: vec!["write".to_owned()], ..Report::default() };
        reporter.set(trouble.map_or_else(Report::default, blocked));
        tokio::select! {
            () = sleep(LOOK) => {}
            reload = reporter.reload() => {
                OPENED.fetch_add(1, Ordering::Relaxed);
                reporter.done(&reload);
            }
        }
    }
}

/// What holds while the operator is away: `AWAY_LAST_KNOWN_SECONDS` and `AWAY_THEN`.
fn when_away() -> Result<WhenAway> {
    let mut away = WhenAway::default();
    if let Ok(seconds) = std::env::var("AWAY_LAST_KNOWN_SECONDS") {
        away.last_known_for = Duration::from_secs(seconds.parse().context("AWAY_LAST_KNOWN_SECONDS")?);
    }
    away.then = match std::env::var("AWAY_THEN").as_deref() {
        Ok("open") => Then::Open,
        Ok("closed") | Err(_) => Then::Closed,
        Ok(other) => bail!("AWAY_THEN is `open` or `closed`, not `{other}`"),
    };
    Ok(away)
}
