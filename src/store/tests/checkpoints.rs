//! When the log is copied back to the file.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A page of the log, with its header, and where a checkpoint is due (`configure.rs`).
const FRAME: u64 = 4096 + 24;
const LONG: u64 = 4000 * FRAME;

/// Stores a task of 1 MiB.
async fn store_much(store: &mut SqliteStore) {
    let payload = Some(Arc::from(vec![b'x'; 1 << 20]));
    let submissions = vec![NewTask { payload, ..task() }];
    store.apply(&Batch { submissions, ..batch() }).await.unwrap().submitted[0].as_ref().unwrap();
}

/// The lengths of the database file and of its log.
fn lengths(shard: &Shard) -> (u64, u64) {
    let file = shard.place.shard(0);
    let log = PathBuf::from(format!("{}-wal", file.display()));
    (fs::metadata(file).unwrap().len(), fs::metadata(log).unwrap().len())
}

#[tokio::test]
async fn a_commit_leaves_a_long_log_to_whoever_owns_the_store() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let (file, _) = lengths(&shard);
    while !store.outlook().log_is_long {
        store_much(&mut store).await;
    }
    let (now, log) = lengths(&shard);
    assert_eq!(now, file, "nothing is copied by a commit");
    assert!((LONG..LONG * 5 / 4).contains(&log), "{log}");

    store.checkpoint().await.unwrap();
    assert!(!store.outlook().log_is_long, "it was looked at");
    assert!(lengths(&shard).0 > LONG / 2, "all is in the file");
    store_much(&mut store).await;
    assert!(!store.outlook().log_is_long, "the log has begun anew");
    assert_eq!(lengths(&shard).1, log, "it has room for that");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_log_that_nobody_copies_back_is_bounded_none_the_less() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    for _ in 0..100 {
        store_much(&mut store).await;
    }
    let (file, log) = lengths(&shard);
    assert!(file > 3 * LONG, "{file}");
    assert!(log < LONG * 9 / 4, "{log}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_somebody_reads_of_a_log_is_not_lost_to_a_checkpoint() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    store_much(&mut store).await;
    let reader = testing::stranger(&shard.place.shard(0));
    let count = "select count(*) from task";
    let reading = reader.unchecked_transaction().unwrap();
    let tasks = || reading.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(tasks(), 1);
    while !store.outlook().log_is_long {
        store_much(&mut store).await;
    }
    store.checkpoint().await.unwrap();
    store_much(&mut store).await;
    assert_eq!(tasks(), 1, "it reads what it began with");
    assert!(store.outlook().log_is_long, "the log could not begin anew");
    drop(reading);
    store.checkpoint().await.unwrap();
    store_much(&mut store).await;
    assert!(!store.outlook().log_is_long);
    store.close().await.unwrap();
}
