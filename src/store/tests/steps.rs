//! The log of what each transaction left.

use super::*;
use crate::error::StoreErrorKind;

fn steps(store: &SqliteStore) -> i64 {
    store.connection.query_row("select count(*) from step", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn the_log_is_folded_and_says_the_same_afterwards() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let (mut longest, mut claims) = (0, Vec::new());
    for number in 0..300 {
        // every third one stays ready, every third one runs when the file is closed
        let slots = usize::from(number % 3 > 0);
        let submissions = vec![NewTask { priority: -1, ..task() }];
        let result = Batch { submissions, claim: claim(slots), ..batch() };
        claims.extend(store.apply(&result).await.unwrap().claims);
        if number % 3 == 1 {
            let settlements = vec![finished(&claims.pop().unwrap())];
            store.apply(&Batch { settlements, ..batch() }).await.unwrap();
        }
        longest = longest.max(steps(&store));
    }
    assert_eq!(longest, 64);
    let (counts, in_hand) = (store.standing.counts, store.standing.in_hand.sorted());
    assert_eq!(counts.all().map(|(_, tasks)| tasks).sum::<u64>(), 300);
    assert_eq!(in_hand.len(), 100);
    let read = super::super::steps::Standing::read(&store.connection).unwrap();
    assert_eq!((read.counts, read.in_hand.sorted()), (counts, in_hand));
}

#[tokio::test]
async fn a_batch_that_would_leave_fewer_tasks_than_none_is_refused_and_changes_nothing() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    store.apply(&Batch { submissions: vec![task()], ..batch() }).await.unwrap();
    store.close().await.unwrap();
    shard.alter("delete from step");
    let mut store = shard.open();
    for _ in 0..2 {
        let refused = store.apply(&Batch { claim: claim(1), ..batch() }).await.unwrap_err();
        let BatchError::Refused(error) = refused else { panic!("{refused:?}") };
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        let state: i64 =
            store.connection.query_row("select state from task", [], |row| row.get(0)).unwrap();
        assert_eq!((state, steps(&store)), (1, 0));
    }
}

#[tokio::test]
async fn a_log_that_is_damaged_stops_the_opening() {
    for damage in ["laid = x'ff'", "taken = x'0100'", "tally = x'80'", "tally = zeroblob(9)"] {
        let mut shard = Shard::new();
        let mut store = shard.open();
        store.apply(&Batch { submissions: vec![task()], ..batch() }).await.unwrap();
        store.close().await.unwrap();
        shard.alter(&format!("update step set {damage}"));
        let stranger = testing::stranger(&shard.place.shard(0));
        let read = super::super::steps::Standing::read(&stranger);
        assert_eq!(read.unwrap_err().kind(), StoreErrorKind::Corrupt, "{damage}");
    }
}
