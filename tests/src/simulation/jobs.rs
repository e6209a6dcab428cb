//! A scheduled job on the simulated engine, in virtual time: an hour is a moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::stage::Stage;
use super::town::IMAGE;

/// The namespace and name of the job.
const JOB: (&str, &str) = ("jobs", "report");

/// Plays a job that is due every ten minutes for an hour, with the operator dead for half of it; gives its runs, newest first.
///
/// # Errors
/// What is wrong, in words.
pub async fn play() -> Result<Vec<Value>, String> {
    let mut stage = Stage::new(1, false);
    let engine = stage.sim.clone();
    let engine = tokio::spawn(async move { engine.run().await });
    let manifest = json!({
        "apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniService", "metadata": { "namespace": JOB.0, "name": JOB.1 },
        "spec": { "job": {
            "container": { "image": IMAGE, "command": ["sh", "-c", "echo reported"] },
            "schedule": "*/10 * * * *", "timeZone": "Europe/Zurich", "missedRuns": "RunOnce",
        }},
    });
    stage.write(&BTreeMap::from([("job.yaml".to_owned(), manifest.to_string())]));
    stage.boot();
    tokio::time::sleep(Duration::from_secs(25 * 60)).await;
    stage.kill(false);
    tokio::time::sleep(Duration::from_secs(27 * 60)).await;
    stage.boot();
    tokio::time::sleep(Duration::from_secs(10 * 60)).await;
    let store = stage.store().ok_or("no operator")?;
    let key = qm_api::meta::ObjectKey::new("MiniService", JOB.0, JOB.1);
    let status = store.snapshot().get(&key).map(|o| (*o.status).clone()).ok_or("no job")?;
    engine.abort();
    if status["usable"] != true {
        return Err(format!("it gates somebody: {status:#}"));
    }
    Ok(status["job"]["lastRuns"].as_array().cloned().unwrap_or_default())
}
