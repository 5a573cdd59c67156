//! The log of what each transaction left.

use super::*;
use crate::error::StoreErrorKind;
use crate::store::steps::Standing;

fn steps(store: &SqliteStore) -> i64 {
    store.connection.query_row("select count(*) from step", [], |row| row.get(0)).unwrap()
}

/// What is read from the file is what the store keeps in memory.
fn check(store: &SqliteStore) {
    let (kept, read) = (&store.standing, Standing::read(&store.connection).unwrap());
    assert_eq!((read.counts, read.in_hand.sorted()), (kept.counts, kept.in_hand.sorted()));
}

#[tokio::test]
async fn the_log_is_folded_and_says_the_same_afterwards() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let (mut longest, mut claims) = (0, Vec::new());
    for number in 0..300 {
        // five steps in three rounds, so that each of them folds the log at some time
        let slots = usize::from(number % 3 > 0);
        let claim = Batch { submissions: vec![task()], claim: claim(slots), ..batch() };
        claims.extend(store.apply(&claim).await.unwrap().claims);
        check(&store);
        if number % 3 > 0 && !claims.is_empty() {
            let settlements = vec![finished(&claims.remove(claims.len() / 2))];
            let fresh = vec![task(); number % 2];
            store.apply(&Batch { settlements, submissions: fresh, ..batch() }).await.unwrap();
            check(&store);
        }
        if number % 7 == 0 {
            claims.extend(
                store.apply(&Batch { claim: super::claim(3), ..batch() }).await.unwrap().claims,
            );
            check(&store);
        }
        longest = longest.max(steps(&store));
    }
    assert!(longest == 64 && claims.len() > 50, "{longest}, {}", claims.len());
    let mut held: Vec<u64> = claims.iter().map(|claim| claim.id.sequence()).collect();
    held.sort_unstable();
    assert_eq!(store.standing.in_hand.sorted(), held);
    let counted = store.standing.counts.all().map(|(_, tasks)| tasks).sum::<u64>();
    assert_eq!(counted, store.outlook().next - 1, "one for each number that was given out");
}

#[tokio::test]
async fn a_batch_that_would_leave_fewer_tasks_than_none_is_refused_and_changes_nothing() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    store.apply(&Batch { submissions: vec![task()], ..batch() }).await.unwrap();
    store.close().await.unwrap();
    shard.alter("update step set counts = zeroblob(8)");
    let mut store = shard.open();
    for _ in 0..2 {
        let refused = store.apply(&Batch { claim: claim(1), ..batch() }).await.unwrap_err();
        let BatchError::Refused(error) = refused else { panic!("{refused:?}") };
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        assert!(error.to_string().contains("more tasks leave a status"), "{error}");
        let state: i64 =
            store.connection.query_row("select state from task", [], |row| row.get(0)).unwrap();
        assert_eq!((state, steps(&store)), (1, 1));
    }
}

#[tokio::test]
async fn a_log_that_is_damaged_stops_the_opening() {
    for damage in [
        "update step set laid = x'ff'",
        "update step set taken = x'0100'",
        "update step set counts = x'80'",
        "update step set counts = x''",
        "update step set counts = zeroblob(7)",
        "update step set counts = zeroblob(9)",
        "update step set number = 1",
        "delete from step",
    ] {
        let mut shard = Shard::new();
        let mut store = shard.open();
        store.apply(&Batch { submissions: vec![task()], ..batch() }).await.unwrap();
        store.close().await.unwrap();
        shard.alter(damage);
        let stranger = testing::stranger(&shard.place.shard(0));
        let read = Standing::read(&stranger);
        assert_eq!(read.unwrap_err().kind(), StoreErrorKind::Corrupt, "{damage}");
    }
}
