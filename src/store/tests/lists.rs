//! Tasks that damage took out of the lists of what may run, waits for its time or waits to be sent.

use super::*;

/// Empties a list between two openings, sweeps, and gives back the store.
async fn swept(shard: &mut Shard, store: SqliteStore, list: &str) -> SqliteStore {
    store.close().await.unwrap();
    shard.alter(&format!("delete from {list}"));
    let mut store = shard.open();
    let lost = store.apply(&Batch { now: LATER, claim: claim(9), ..batch() }).await.unwrap();
    assert!(lost.claims.is_empty() && lost.deliver.is_empty(), "it isn't looked for elsewhere");
    store.maintain(NOW).await.unwrap();
    store
}

const LATER: Timestamp = Timestamp::from_micros(NOW.as_micros() + 1_000_000);

#[tokio::test]
async fn a_ready_task_that_is_in_no_stretch_is_found_by_a_sweep() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let submissions = vec![task(); 3];
    store.apply(&Batch { submissions, ..batch() }).await.unwrap();
    let mut store = swept(&mut shard, store, "ready").await;
    assert_eq!(store.apply(&Batch { claim: claim(9), ..batch() }).await.unwrap().claims.len(), 3);
}

#[tokio::test]
async fn a_waiting_task_that_is_not_among_the_due_is_found_by_a_sweep() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let submissions = vec![NewTask { due_at: Some(LATER), ..task() }];
    store.apply(&Batch { submissions, ..batch() }).await.unwrap();
    let mut store = swept(&mut shard, store, "due").await;
    let due = Batch { now: LATER, claim: claim(9), ..batch() };
    assert_eq!(store.apply(&due).await.unwrap().claims.len(), 1);
}

#[tokio::test]
async fn what_is_listed_is_not_listed_again() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let submissions = vec![task(), NewTask { due_at: Some(LATER), ..task() }];
    store.apply(&Batch { submissions, ..batch() }).await.unwrap();
    let before = store.outlook().row_writes;
    store.maintain(NOW).await.unwrap();
    assert_eq!(store.outlook().row_writes, before);
}

#[tokio::test]
async fn a_stretch_is_removed_when_the_head_has_passed_it_and_not_before() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let submissions = vec![task(); 600];
    let claims = Batch { submissions, claim: claim(1), ..batch() };
    store.apply(&claims).await.unwrap();
    let stretches = |store: &SqliteStore| -> i64 {
        store.connection.query_row("select count(*) from ready", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(stretches(&store), 3);
    // that of a batch is removed with the next one
    for left in [3, 3, 3, 2, 2, 2] {
        let claims = store.apply(&Batch { claim: claim(100), ..batch() }).await.unwrap().claims;
        assert!(claims.len() >= 99, "{}", claims.len());
        assert_eq!(stretches(&store), left);
    }
    store.apply(&Batch { submissions: vec![task()], ..batch() }).await.unwrap();
    assert_eq!(stretches(&store), 1, "that of the new one");
}

/// It once did: what is known of suspects says nothing about the rows before them.
#[tokio::test]
async fn a_suspect_behind_what_has_been_read_does_not_hide_what_stands_before_it() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let running = Batch { submissions: vec![task()], claim: claim(1), ..batch() };
    store.apply(&running).await.unwrap();
    let submissions = vec![NewTask { priority: 1, ..task() }, task()];
    let stored = store.apply(&Batch { submissions, ..batch() }).await.unwrap().submitted;
    let [first, last] = [0, 1].map(|index: usize| *stored[index].as_ref().unwrap());
    store.close().await.unwrap();
    shard.alter("update task set crashes = 1 where state = 2");
    let mut store = shard.open();
    store
        .apply(&Batch { cancellations: vec![Cancellation { id: last, notify: false }], ..batch() })
        .await
        .unwrap();
    let other = NewTask { definition: 1, ..task() };
    store.apply(&Batch { submissions: vec![other], ..batch() }).await.unwrap();
    let claims = store.apply(&Batch { claim: claim(1), ..batch() }).await.unwrap().claims;
    assert_eq!(claims[0].id, first);
}

#[tokio::test]
async fn a_result_that_is_not_among_the_pending_is_found_by_a_sweep() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let submissions = vec![NewTask { volatile: true, ..task() }];
    let claims = Batch { submissions, claim: claim(1), ..batch() };
    let claims = store.apply(&claims).await.unwrap().claims;
    let settlements = claims.iter().map(finished).collect();
    store.apply(&Batch { settlements, deliver: 0, ..batch() }).await.unwrap();
    store.connection.execute("delete from pending", []).unwrap();
    assert!(store.apply(&batch()).await.unwrap().deliver.is_empty());
    store.maintain(NOW).await.unwrap();
    assert_eq!(store.apply(&batch()).await.unwrap().deliver.len(), 1);
}

/// The row of a delivery that fails is gone: the batch goes on without it.
#[tokio::test]
async fn the_end_of_a_delivery_without_a_row_refuses_no_batch() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let submissions = vec![NewTask { volatile: true, ..task() }];
    let claims = Batch { submissions, claim: claim(1), ..batch() };
    let claims = store.apply(&claims).await.unwrap().claims;
    let settlements = claims.iter().map(finished).collect();
    store.apply(&Batch { settlements, ..batch() }).await.unwrap();
    store.connection.execute("delete from task", []).unwrap();
    let dead = Some(crate::record::DeadReason::SubscriberGone);
    let end = DeliveryEnd { id: claims[0].id, claim_no: 1, dead };
    let submissions = vec![task()];
    let ended = Batch { deliveries: vec![end], submissions, ..batch() };
    assert!(store.apply(&ended).await.unwrap().submitted[0].is_ok());
}
