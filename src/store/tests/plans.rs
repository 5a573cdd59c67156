//! By which key each statement finds its rows, and that history is in nothing that is looked through.

use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::params_from_iter;
use rusqlite::types::Null;

use super::*;
use crate::store::{cancel, claim, delivery, lane, maintain, read, ready, recover, settle, submit};

/// The steps of a statement's plan.
fn plan(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(&format!("explain query plan {sql}")).unwrap();
    let nothing = vec![Null; statement.parameter_count()];
    let steps = statement.query_map(params_from_iter(nothing), |row| row.get(3)).unwrap();
    steps.collect::<rusqlite::Result<_>>().unwrap()
}

/// Checks that each statement does nothing but search by primary keys, and read on in what holds
/// nothing but what is wanted.
fn check(statements: &[&str]) {
    let mut shard = Shard::new();
    let store = shard.open();
    for sql in statements {
        let steps = plan(&store.connection, sql);
        for step in &steps {
            let searches = step.starts_with("SEARCH ") && step.contains("PRIMARY KEY");
            let reads_on = ["SCAN due", "SCAN pending", "SCAN stretch"].contains(&step.as_str());
            let reads_ready = step == "CO-ROUTINE stretch";
            // its own steps follow
            let asks = step.starts_with("CORRELATED SCALAR SUBQUERY");
            assert!(searches || reads_on || reads_ready || asks, "{sql}\nhas the plan {steps:?}");
        }
    }
}

#[test]
fn what_runs_once_per_task_is_served_by_the_primary_key() {
    check(&[
        claim::LOOK,
        claim::CLAIM,
        claim::CLAIM_RUN,
        claim::PROMOTE_ONE,
        settle::FINISH,
        settle::END,
        settle::AGAIN,
        submit::RANK,
        delivery::UNDELIVERED,
        delivery::STATE,
        delivery::SEND_ALONE,
        delivery::OPEN_DELIVERY,
        delivery::CLOSE_ONE,
        delivery::SEND,
        cancel::HEAD,
        cancel::CANCEL,
        cancel::REDRIVE,
        cancel::REOPEN_PARENT,
        recover::BACK_TO_PENDING,
        recover::LIVE,
        lane::HEAD,
        lane::RELEASE,
        read::GET,
        read::EXISTS,
    ]);
}

#[test]
fn what_looks_for_work_finds_it_by_the_keys_of_that_work_in_its_order() {
    check(&[
        ready::NEXT,
        ready::ROWS,
        ready::REMOVE_BEFORE,
        read::NEXT_DUE,
        claim::DUE,
        claim::WAIT_NO_MORE,
        delivery::WAITING,
        delivery::WAIT_NO_MORE,
        recover::PENDING,
        recover::UNDELIVERED,
        recover::READY,
        maintain::IS_READY,
        maintain::IS_DUE,
        maintain::IS_PENDING,
    ]);
}

#[test]
fn what_walks_over_history_goes_by_the_primary_key_and_sorts_nothing() {
    check(&[read::LIST, maintain::STRETCH, maintain::REMOVE]);
}

/// How many rows there are of what is looked for: stretches of ready rows, due, pending.
fn listed(connection: &Connection) -> [i64; 3] {
    ["ready", "due", "pending"].map(|table| {
        let count = format!("select count(*) from {table}");
        connection.query_row(&count, [], |row| row.get(0)).unwrap()
    })
}

#[tokio::test]
async fn a_row_is_listed_where_its_state_is_looked_for_and_nowhere_when_it_is_over() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let later = NOW.saturating_add(Duration::from_secs(1));
    let waiting = NewTask { due_at: Some(later), volatile: true, ..task() };
    store.apply(&Batch { submissions: vec![waiting], ..batch() }).await.unwrap();
    assert_eq!(listed(&store.connection), [0, 1, 0]);
    store.apply(&Batch { now: later, ..batch() }).await.unwrap();
    assert_eq!(listed(&store.connection), [1, 0, 0]);
    let claimed = store.apply(&Batch { claim: claim(1), ..batch() }).await.unwrap().claims;
    assert_eq!(listed(&store.connection), [1, 0, 0], "until the head is known to have passed it");
    let settlements = vec![finished(&claimed[0])];
    store.apply(&Batch { settlements, ..batch() }).await.unwrap();
    assert_eq!(listed(&store.connection), [0, 0, 0]);
    let end = DeliveryEnd { id: claimed[0].id, claim_no: 1, dead: None };
    store.apply(&Batch { deliveries: vec![end], ..batch() }).await.unwrap();
    assert_eq!(listed(&store.connection), [0, 0, 0]);
    let rows: i64 =
        store.connection.query_row("select count(*) from task", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn a_fresh_task_that_is_claimed_at_once_writes_its_row_and_is_listed_nowhere() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let submissions = vec![task()];
    // the first batch folds the log that it found
    store.apply(&Batch { submissions, claim: claim(1), ..batch() }).await.unwrap();
    let before = store.outlook().row_writes;
    let submissions = vec![task()];
    store.apply(&Batch { submissions, claim: claim(1), ..batch() }).await.unwrap();
    let written = store.outlook().row_writes - before;
    assert_eq!(written, 2, "the task, and the step of the log");
    assert_eq!(listed(&store.connection), [0, 0, 0]);
}

#[tokio::test]
async fn a_batch_that_writes_is_one_commit_and_one_that_does_not_is_none() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    // the first batch also reserves ids
    store.apply(&Batch { submissions: vec![task()], ..batch() }).await.unwrap();
    let before = store.outlook().commits;
    store.apply(&Batch { submissions: vec![task(), task()], ..batch() }).await.unwrap();
    assert_eq!(store.outlook().commits - before, 1);
    store.apply(&batch()).await.unwrap();
    assert_eq!(store.outlook().commits - before, 1);
}

/// How many steps SQLite's machine takes for one task's whole life, beside this many that are over.
async fn steps_beside(history: usize) -> u64 {
    let mut shard = Shard::new();
    let mut store = shard.open();
    for _ in 0..history / 500 {
        let submissions = vec![task(); 500];
        let claims = Batch { submissions, claim: claim(500), ..batch() };
        let claims = store.apply(&claims).await.unwrap().claims;
        let settlements = claims.iter().map(finished).collect();
        store.apply(&Batch { settlements, ..batch() }).await.unwrap();
    }
    steps_of(&mut store, task()).await
}

/// The same beside this many that wait for the first of their key, for a task of another key.
async fn steps_beside_key(held: usize) -> u64 {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let of_key = |key: &str| NewTask { key: Some(key.into()), ..task() };
    store.apply(&Batch { submissions: vec![of_key("one")], ..batch() }).await.unwrap();
    let first = store.apply(&Batch { claim: claim(1), ..batch() }).await.unwrap().claims;
    assert_eq!(first.len(), 1);
    for _ in 0..held / 500 {
        let submissions = vec![of_key("one"); 500];
        store.apply(&Batch { submissions, ..batch() }).await.unwrap();
    }
    steps_of(&mut store, of_key("two")).await
}

async fn steps_of(store: &mut SqliteStore, task: NewTask) -> u64 {
    let steps = Arc::new(AtomicU64::new(0));
    let counted = steps.clone();
    let count = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        false
    };
    store.connection.progress_handler(1, Some(count)).unwrap();
    // not claimed with its insertion, so that it is looked for
    store.apply(&Batch { submissions: vec![task], ..batch() }).await.unwrap();
    let claims = store.apply(&Batch { claim: claim(1), ..batch() }).await.unwrap().claims;
    let settlements = vec![Settlement { notify: true, ..finished(&claims[0]) }];
    store.apply(&Batch { settlements, ..batch() }).await.unwrap();
    let end = DeliveryEnd { id: claims[0].id, claim_no: 1, dead: None };
    store.apply(&Batch { deliveries: vec![end], ..batch() }).await.unwrap();
    steps.load(Ordering::Relaxed)
}

/// Counted, not timed.
#[tokio::test]
async fn the_work_for_a_task_does_not_grow_with_history() {
    let (few, many) = (steps_beside(500).await, steps_beside(20_000).await);
    assert!(few > 100, "{few} steps");
    assert_eq!(few, many);
}

#[tokio::test]
async fn the_work_for_a_task_does_not_grow_with_those_that_another_key_holds() {
    let (few, many) = (steps_beside_key(500).await, steps_beside_key(20_000).await);
    assert!(few > 100, "{few} steps");
    assert_eq!(few, many);
}
