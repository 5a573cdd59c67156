//! Rows that were changed behind the queue's back.

use super::*;
use crate::error::StoreErrorKind;

/// Stores a task of the first definition, alters the file, and says with what the task would run.
async fn input_after(alteration: &str) -> ClaimInput {
    let mut shard = Shard::new();
    let mut store = shard.open();
    // both names are known to the file
    let submissions = vec![task()];
    store.apply(&Batch { submissions, ..batch() }).await.unwrap();
    store.close().await.unwrap();
    shard.alter(alteration);
    let mut store = shard.open();
    // finds what is listed no more
    store.maintain(NOW).await.unwrap();
    let mut claims = store.apply(&Batch { claim: claim(1), ..batch() }).await.unwrap().claims;
    if claims.is_empty() {
        let claim = ClaimBudget { suspect: true, ..claim(0) };
        claims = store.apply(&Batch { claim, ..batch() }).await.unwrap().claims;
    }
    assert_eq!(claims.len(), 1, "it is claimed, and ends there");
    claims.remove(0).input
}

#[tokio::test]
async fn a_row_whose_parts_were_exchanged_never_runs() {
    let alterations = [
        "update task set payload = x'7061796c6f6164ff'",
        "update task set payload = x'7061796c6f6165'",
        "update task set payload = x''",
        "update kind set codec = codec % 2 + 1",
        "update kind set codec = 77",
        "update kind set codec = 300",
        "update kind set codec = -1",
        "update kind set name = 'on_end'",
        "update task set id = id + 1",
        "update task set checksum = checksum + 1",
        "update task set checksum = -1",
        "update task set checksum = 1 << 40",
        "update task set payload = null",
        "update task set failures = 1 << 32",
        "update task set claim_no = 4294967295",
        "update task set crashes = 1 << 60",
        "update task set payload = null, details = '{\"parent\":1}'",
        "update task set details = '{}'",
        "update task set details = '{\"max_attempts\":99}'",
        "update task set details = '[]'",
        "pragma ignore_check_constraints = on; update task set details = cast(x'ff' as text)",
    ];
    for alteration in alterations {
        let input = input_after(alteration).await;
        assert!(matches!(input, ClaimInput::Corrupt), "after {alteration}: {input:?}");
    }
}

#[tokio::test]
async fn a_row_that_was_left_alone_runs_with_its_payload() {
    let input = input_after("update task set rank = rank - 1, submitted_at = 7").await;
    let ClaimInput::Encoded(encoded) = input else { panic!("{input:?}") };
    assert_eq!(encoded.bytes[..], b"payload"[..]);
}

#[tokio::test]
async fn a_row_with_an_unknown_codec_can_still_be_looked_at() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let submissions = vec![task()];
    let result = store.apply(&Batch { submissions, ..batch() }).await.unwrap();
    let id = *result.submitted[0].as_ref().unwrap();
    store.close().await.unwrap();
    shard.alter("update kind set codec = 300");
    let Lookup::Found(record) = shard.open().get(id).await.unwrap() else { panic!("no {id}") };
    assert_eq!(record.payload.unwrap().bytes[..], b"payload"[..]);
}

/// Whoever holds the row of an earlier claim writes nothing.
#[tokio::test]
async fn a_running_row_of_another_claim_is_not_settled() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let submissions = vec![task()];
    let result = store.apply(&Batch { submissions, claim: claim(1), ..batch() }).await.unwrap();
    let mut ended = finished(&result.claims[0]);
    store.connection.execute("update task set claim_no = claim_no + 1", []).unwrap();
    let counters = ended.transition.counters;
    let (finish, cancel) = (Next::Ended(Outcome::Finished), Next::Ended(Outcome::Cancelled));
    for next in [finish, cancel, Next::Again { at: NOW }, Next::Back] {
        ended.output = None;
        ended.transition = Transition { next, counters, failure: None };
        for callbacks in [None, Some(Arc::from([Arc::from("on_end")]))] {
            let settlements = vec![Settlement { callbacks, ..ended.clone() }];
            let result = store.apply(&Batch { settlements, ..batch() }).await.unwrap();
            assert_eq!(result.settled, [Settled::Stale]);
        }
    }
    store.connection.execute("update task set claim_no = claim_no - 1", []).unwrap();
    let settlements = vec![ended];
    let result = store.apply(&Batch { settlements, ..batch() }).await.unwrap();
    assert_ne!(result.settled, [Settled::Stale]);
}

/// It once said that all was well.
#[tokio::test]
async fn a_file_that_was_removed_is_not_closed_in_order() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    store.apply(&Batch { submissions: vec![task()], ..batch() }).await.unwrap();
    std::fs::remove_file(shard.place.shard(0)).unwrap();
    assert_eq!(store.close().await.unwrap_err().kind(), crate::error::StoreErrorKind::Missing);
}

#[tokio::test]
async fn the_time_of_a_commit_is_told_if_something_was_written_and_commits_are_synced() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let written = Batch { submissions: vec![task(); 100], ..batch() };
    let synced_in = store.apply(&written).await.unwrap().synced_in;
    assert!(synced_in.is_some_and(|took| took > Duration::ZERO), "{synced_in:?}");
    assert_eq!(store.apply(&batch()).await.unwrap().synced_in, None);
    store.options.syncs = false;
    assert_eq!(store.apply(&written).await.unwrap().synced_in, Some(Duration::ZERO));
}

/// As flipped bits in a page do.
#[tokio::test]
async fn a_row_that_changes_its_kind_once_it_is_listed_is_refused_as_damage() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let submissions = vec![task()];
    store.apply(&Batch { submissions, ..batch() }).await.unwrap();
    store.connection.execute_batch("update task set kind = 77").unwrap();
    let refused = store.apply(&Batch { claim: claim(1), ..batch() }).await;
    let Err(BatchError::Refused(error)) = refused else { panic!("{refused:?}") };
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}
