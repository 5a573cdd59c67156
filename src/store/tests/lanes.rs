//! Ordering keys where something unusual happens to those who wait.

use super::*;
use crate::keys::SLOTS;
use crate::record::{FailureKind, TaskFailure};

fn keyed(key: &str) -> NewTask {
    NewTask { key: Some(Arc::from(key)), ..task() }
}

async fn submit(store: &mut SqliteStore, submissions: Vec<NewTask>) -> Vec<TaskId> {
    let result = store.apply(&Batch { submissions, ..batch() }).await.unwrap();
    result.submitted.into_iter().map(|stored| stored.unwrap()).collect()
}

async fn claim_all(store: &mut SqliteStore) -> Vec<Claim> {
    store.apply(&Batch { claim: claim(9), ..batch() }).await.unwrap().claims
}

fn failed(claim: &Claim, kind: FailureKind) -> Settlement {
    let failure = Some(TaskFailure::new(kind, "so it is"));
    let next = Next::Ended(Outcome::Failed);
    let transition = Transition { next, counters: claim.counters, failure };
    Settlement { transition, output: None, ..finished(claim) }
}

fn ids(claims: &[Claim]) -> Vec<TaskId> {
    claims.iter().map(|claim| claim.id).collect()
}

#[tokio::test]
async fn a_task_whose_key_is_in_another_shard_by_now_is_not_redriven() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let id = submit(&mut store, vec![keyed("k")]).await[0];
    let claims = claim_all(&mut store).await;
    let settlements = vec![failed(&claims[0], FailureKind::Fatal)];
    store.apply(&Batch { settlements, ..batch() }).await.unwrap();
    for (of, outcome) in [(7, RedriveOutcome::KeyMoved), (0, RedriveOutcome::Redriven)] {
        let redrive = Batch { redrives: vec![id], shards_of_slots: vec![of; SLOTS], ..batch() };
        assert_eq!(store.apply(&redrive).await.unwrap().redriven, [outcome]);
    }
    assert_eq!(ids(&claim_all(&mut store).await), [id]);
}

#[tokio::test]
async fn a_row_whose_key_was_exchanged_lets_its_own_successor_run_and_no_other() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let all = vec![keyed("j"), keyed("j"), keyed("k"), keyed("k")];
    let stored = submit(&mut store, all).await;
    store.close().await.unwrap();
    shard.alter("update task set details = '{\"key\":\"j\"}' where id = 3");
    let mut store = shard.open();
    let claims = claim_all(&mut store).await;
    assert_eq!(ids(&claims), [stored[0], stored[2]]);
    assert!(matches!(claims[1].input, ClaimInput::Corrupt));
    let settlements = vec![failed(&claims[1], FailureKind::Corrupt)];
    store.apply(&Batch { settlements, ..batch() }).await.unwrap();
    assert_eq!(ids(&claim_all(&mut store).await), [stored[3]], "the first of j runs still");
}

#[tokio::test]
async fn an_id_that_comes_twice_in_a_batch_takes_one_key_only() {
    let mut shard = Shard::new();
    let mut store = shard.open();
    let id = submit(&mut store, vec![task()]).await[0];
    // given out, and not stored
    store.connection.execute("delete from task", []).unwrap();
    store.connection.execute("delete from step", []).unwrap();
    store.close().await.unwrap();
    let mut store = shard.open();
    let again = |key| NewTask { id: Some(id), ..keyed(key) };
    let stored = submit(&mut store, vec![again("k"), again("j"), keyed("j")]).await;
    assert_eq!(ids(&claim_all(&mut store).await), [id, stored[2]]);
}
