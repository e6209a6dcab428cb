//! Many tasks on many threads: no update is lost, no watcher sees a gap.

use std::sync::Arc;

use qm_api::meta::Object;
use qm_store::{CommitMode, Durability, Store, StoreError};
use serde_json::json;

use crate::place::{Place, commit, contents, create, everywhere, key, object};

const TASKS: u64 = 16;
const ROUNDS: u64 = 25;

async fn increment(store: &Store, durability: Durability) {
    loop {
        let mut counter = Object::clone(store.snapshot().get(&key("counter")).unwrap());
        let count = counter.spec["count"].as_u64().unwrap();
        counter.spec = Arc::new(json!({ "count": count + 1 }));
        match commit(store, durability, |tx| tx.put(counter)).await {
            Ok(_) => return,
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn compare_and_set_loses_no_increment_and_watchers_see_every_one() {
    for (place, mode) in everywhere() {
        let store = place.open(mode);
        commit(&store, Durability::Durable, |tx| tx.create(object("counter", json!({"count": 0})))).await.unwrap();
        let mut watch = store.watch(store.resource_version()).unwrap();
        let watcher = tokio::spawn(async move {
            let mut counts = Vec::new();
            while counts.last() != Some(&(TASKS * ROUNDS)) {
                let batch = watch.next().await.unwrap();
                counts.extend(batch.changes.iter().map(|change| change.object.spec["count"].as_u64().unwrap()));
            }
            counts
        });
        let tasks: Vec<_> = (0..TASKS)
            .map(|number| {
                let store = store.clone();
                let durability = if number % 4 == 0 { Durability::Durable } else { Durability::Soon };
                tokio::spawn(async move {
                    for _ in 0..ROUNDS {
                        increment(&store, durability).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(watcher.await.unwrap(), (1..=TASKS * ROUNDS).collect::<Vec<_>>());
        let counter = store.snapshot().get(&key("counter")).cloned().unwrap();
        assert_eq!((counter.spec["count"].as_u64(), counter.meta.generation), (Some(TASKS * ROUNDS), TASKS * ROUNDS + 1));
        store.sync().await.unwrap();
        let before = contents(&store);
        drop(store);
        assert_eq!(contents(&place.open(mode)), before, "{}", place.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_whose_caller_went_away_is_whole() {
    let place = Place::File(tempfile::tempdir().unwrap());
    let store = place.open(CommitMode::Thread);
    create(&store, "first").await;
    for number in 0..50 {
        let store = store.clone();
        let task = tokio::spawn(async move {
            commit(&store, Durability::Durable, |tx| {
                tx.create(object(&format!("a-{number}"), json!({})));
                tx.create(object(&format!("b-{number}"), json!({})))
            })
            .await
        });
        task.abort();
    }
    store.sync().await.unwrap();
    for number in 0..50 {
        let snapshot = store.snapshot();
        let pair = ["a", "b"].map(|half| snapshot.get(&key(&format!("{half}-{number}"))).is_some());
        assert_eq!(pair[0], pair[1]);
    }
}
