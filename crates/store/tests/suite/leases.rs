//! Leases: one holder at a time, tokens that only rise, terms on the caller's clock.

use std::time::Duration;

use qm_api::name::Name;
use qm_store::{Lease, LeaseError, MonoMillis, Store};

use crate::place::everywhere;

const TERM: Duration = Duration::from_secs(15);

async fn acquire(store: &Store, holder: &str, now: u64) -> Result<Lease, LeaseError> {
    store.leases().acquire(&Name::from("change/app"), &holder.into(), TERM, MonoMillis(now)).await
}

fn held_for(result: Result<Lease, LeaseError>) -> (Name, u64) {
    match result {
        Err(LeaseError::Held(held)) => (held.holder, u64::try_from(held.remaining.as_millis()).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_holder_at_a_time_and_tokens_rise() {
    for (place, mode) in everywhere() {
        let store = place.open(mode);
        let first = acquire(&store, "one", 0).await.unwrap();
        assert_eq!(held_for(acquire(&store, "two", 14_999).await), ("one".into(), 1));
        assert_eq!(held_for(acquire(&store, "one", 100).await), ("one".into(), 14_900));
        store.leases().renew(&first, TERM, MonoMillis(14_000)).await.unwrap();
        assert_eq!(held_for(acquire(&store, "two", 15_000).await), ("one".into(), 14_000));
        let second = acquire(&store, "two", 29_000).await.unwrap();
        assert!(second.token > first.token);
        for stale in [store.leases().renew(&first, TERM, MonoMillis(29_000)).await, store.leases().release(&first).await] {
            assert!(matches!(stale, Err(LeaseError::Lost { current: Some(token), .. }) if token == second.token));
        }
        store.leases().release(&second).await.unwrap();
        let third = acquire(&store, "three", 29_001).await.unwrap();
        assert!(third.token > second.token);
    }
}

#[tokio::test]
async fn after_a_restart_a_held_lease_is_held_for_one_fresh_term_and_tokens_go_on() {
    for (place, mode) in everywhere() {
        let store = place.open(mode);
        let first = acquire(&store, "one", 1_000_000).await.unwrap();
        place.crash();
        drop(store);
        place.crash();
        let store = place.open(mode);
        assert_eq!(held_for(acquire(&store, "two", 7).await), ("one".into(), 15_000));
        assert_eq!(held_for(acquire(&store, "two", 15_006).await), ("one".into(), 1));
        // The old holder may have outlived the store, and then goes on.
        store.leases().renew(&first, TERM, MonoMillis(15_006)).await.unwrap();
        let second = acquire(&store, "two", 30_006).await.unwrap();
        assert!(second.token > first.token);
        store.leases().release(&second).await.unwrap();
        place.crash();
        drop(store);
        place.crash();
        let store = place.open(mode);
        let third = acquire(&store, "three", 0).await.unwrap();
        assert!(third.token > second.token, "{}", place.name());
    }
}
