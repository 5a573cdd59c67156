//! Which index serves which statement, and that history is in none of them.

use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::params_from_iter;
use rusqlite::types::Null;

use super::*;
use crate::store::{cancel, claim, delivery, lane, maintain, read, recover, settle, submit};

const PRIMARY: &str = "INTEGER PRIMARY KEY";

/// The steps of a statement's plan.
fn plan(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(&format!("explain query plan {sql}")).unwrap();
    let nothing = vec![Null; statement.parameter_count()];
    let steps = statement.query_map(params_from_iter(nothing), |row| row.get(3)).unwrap();
    steps.collect::<rusqlite::Result<_>>().unwrap()
}

fn check(statements: &[(&str, &str)]) {
    let mut shard = Shard::new();
    let store = shard.open();
    for (sql, index) in statements {
        let steps = plan(&store.connection, sql);
        let [step] = &steps[..] else { panic!("{sql}\nhas the plan {steps:?}") };
        let searches = step.starts_with("SEARCH task") && step.contains(index);
        // an index that holds nothing but the rows that are wanted may be read from its start
        let reads_on = *step == format!("SCAN task USING INDEX {index}")
            || *step == format!("SCAN task USING COVERING INDEX {index}");
        assert!(searches || reads_on, "{sql}\nhas the plan {step}, not by {index}");
    }
}

#[test]
fn what_runs_once_per_task_is_served_by_the_primary_key() {
    check(&[
        (claim::LOOK, PRIMARY),
        (claim::CLAIM, PRIMARY),
        (claim::PROMOTE_ONE, PRIMARY),
        (settle::FINISH, PRIMARY),
        (settle::END, PRIMARY),
        (settle::AGAIN, PRIMARY),
        (submit::RANK, PRIMARY),
        (delivery::CALLBACKED, PRIMARY),
        (delivery::OPEN_DELIVERY, PRIMARY),
        (delivery::CLOSE_ONE, PRIMARY),
        (delivery::SEND, PRIMARY),
        (cancel::HEAD, PRIMARY),
        (cancel::CANCEL, PRIMARY),
        (cancel::REDRIVE, PRIMARY),
        (cancel::REOPEN_PARENT, PRIMARY),
        (recover::BACK_TO_PENDING, PRIMARY),
        (recover::LIVE, PRIMARY),
        (lane::HEAD, PRIMARY),
        (lane::RELEASE, PRIMARY),
        (read::GET, PRIMARY),
        (read::EXISTS, PRIMARY),
    ]);
}

#[test]
fn what_looks_for_work_is_served_by_the_index_of_that_work_in_its_order() {
    check(&[
        (read::READY_AFTER, "task_ready"),
        (read::NEXT_DUE, "task_due"),
        (claim::DUE, "task_due"),
        (delivery::WAITING, "task_pending"),
        (recover::PENDING, "task_pending"),
        (recover::UNDELIVERED, "task_pending"),
    ]);
}

#[test]
fn what_walks_over_history_goes_by_the_primary_key_and_sorts_nothing() {
    check(&[(read::LIST, PRIMARY), (maintain::STRETCH, PRIMARY), (maintain::REMOVE, PRIMARY)]);
}

/// How many rows each partial index holds: ready, due, pending.
fn indexed(connection: &Connection) -> [i64; 3] {
    let count = |sql| connection.query_row(sql, [], |row| row.get(0)).unwrap();
    [
        count("select count(*) from task indexed by task_ready where state = 1"),
        count("select count(*) from task indexed by task_due where state = 0"),
        count("select count(*) from task indexed by task_pending where delivery = 1"),
    ]
}

#[tokio::test]
async fn a_row_is_in_the_one_index_of_its_state_and_in_none_when_it_is_over() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let later = NOW.saturating_add(Duration::from_secs(1));
    let waiting = NewTask { due_at: Some(later), volatile: true, ..task() };
    store.apply(&Batch { submissions: vec![waiting], ..batch() }).await.unwrap();
    assert_eq!(indexed(&store.connection), [0, 1, 0]);
    store.apply(&Batch { now: later, ..batch() }).await.unwrap();
    assert_eq!(indexed(&store.connection), [1, 0, 0]);
    let claimed = store.apply(&Batch { claim: claim(1), ..batch() }).await.unwrap().claims;
    assert_eq!(indexed(&store.connection), [0, 0, 0]);
    let settlements = vec![finished(&claimed[0])];
    store.apply(&Batch { settlements, ..batch() }).await.unwrap();
    assert_eq!(indexed(&store.connection), [0, 0, 0]);
    let end = DeliveryEnd { id: claimed[0].id, claim_no: 1, dead: None };
    store.apply(&Batch { deliveries: vec![end], ..batch() }).await.unwrap();
    assert_eq!(indexed(&store.connection), [0, 0, 0]);
    let rows: i64 =
        store.connection.query_row("select count(*) from task", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn a_fresh_task_that_is_claimed_at_once_writes_its_row_and_no_index_entry() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let submissions = vec![task()];
    // the counts' first row is inserted once and updated from then on
    store.apply(&Batch { submissions, claim: claim(1), ..batch() }).await.unwrap();
    let before = store.outlook().row_writes;
    let submissions = vec![task()];
    store.apply(&Batch { submissions, claim: claim(1), ..batch() }).await.unwrap();
    let written = store.outlook().row_writes - before;
    assert_eq!(written, 3, "the task, the count of what runs and the log of what is in hand");
    assert_eq!(indexed(&store.connection), [0, 0, 0]);
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
    let steps = Arc::new(AtomicU64::new(0));
    let counted = steps.clone();
    let count = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        false
    };
    store.connection.progress_handler(1, Some(count)).unwrap();
    // not claimed with its insertion, so that it is looked for
    store.apply(&Batch { submissions: vec![task()], ..batch() }).await.unwrap();
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
