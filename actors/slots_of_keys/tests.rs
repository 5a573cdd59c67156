use std::collections::HashSet;
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::actors::ledger::ShardState;
use crate::keys::slot_of;
use crate::prelude::*;

const LONGEST: Duration = Duration::from_secs(30);

#[task(name = "slots.nothing")]
async fn nothing() -> Result<(), TaskError> {
    Ok(())
}

/// A queue with two shards, the first of which has all slots.
async fn start(place: &tempfile::TempDir) -> Queue {
    let builder = Queue::builder().dir(place.path().join("queue")).shards(2);
    let queue = builder.register::<nothing::Task>().start().await.unwrap();
    queue.shared().set_shard_of_slot(vec![0; SLOTS]);
    queue
}

fn in_first(queue: &Queue) -> usize {
    queue.shared().shards_of_slots().iter().filter(|shard| **shard == 0).count()
}

/// Submits tasks with keys, one after the other, until the slots are spread.
async fn until_even(queue: &Queue) {
    let even = async {
        for number in 0_u64.. {
            if in_first(queue) == SLOTS / 2 {
                break;
            }
            queue.submit(nothing::task().key(number.to_string())).await.unwrap();
        }
    };
    timeout(LONGEST, even).await.expect("the slots are spread");
}

// They were looked at when the number of shards changed, and never again.
#[actix::test]
async fn slots_that_were_in_use_move_when_they_are_free() {
    let place = tempfile::tempdir().unwrap();
    let queue = start(&place).await;
    let keys: Vec<_> = (0..2_000).map(|number| number.to_string()).collect();
    let used: HashSet<u16> = keys.iter().map(|key| slot_of(key)).collect();
    assert!(used.len() > SLOTS / 2 && used.len() < SLOTS, "{}", used.len());
    let late = |key: &String| nothing::task().key(key.clone()).delay(LONGEST * 100);
    let waiting = queue.submit_all(keys.iter().map(late)).await.unwrap();
    let moved = async {
        while in_first(&queue) == SLOTS {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONGEST, moved).await.expect("those without tasks move");
    assert_eq!(in_first(&queue), used.len(), "those with tasks stay");
    for handle in &waiting {
        assert_eq!(handle.cancel().await.unwrap(), CancelOutcome::Removed);
    }
    until_even(&queue).await;
    queue.shutdown(LONGEST).await.unwrap();
}

// A copy of one shard from before and one of the other from after could both have tasks of one key.
#[actix::test]
async fn no_slot_moves_while_a_backup_is_under_way() {
    let place = tempfile::tempdir().unwrap();
    let queue = start(&place).await;
    let backup = queue.shared().copying.clone();
    for number in 0..100 {
        queue.shared().dispatcher.send(MoveSlots);
        // answered by the shards behind the question after their slots, and by the Dispatcher
        queue.submit(nothing::task().key(number.to_string())).await.unwrap();
        queue.counts().await.unwrap();
    }
    assert_eq!(in_first(&queue), SLOTS);
    drop(backup);
    until_even(&queue).await;
    queue.shutdown(LONGEST).await.unwrap();
}

// All keys were out of service then, although the other shard could have them.
#[actix::test]
async fn no_slot_goes_to_a_shard_that_is_out_of_service() {
    let place = tempfile::tempdir().unwrap();
    let queue = start(&place).await;
    let shards = &queue.shared().shards;
    queue.shared().set_shard_of_slot(vec![1; SLOTS]);
    shards[0].set_state(ShardState::Quarantined);
    for number in 0..100 {
        queue.shared().dispatcher.send(MoveSlots);
        queue.submit(nothing::task().key(number.to_string())).await.unwrap();
    }
    assert_eq!(in_first(&queue), 0);
    shards[0].set_state(ShardState::Open);
    queue.shared().dispatcher.send(MoveSlots);
    until_even(&queue).await;
    queue.shutdown(LONGEST).await.unwrap();
}

// It kept all slots, and got those of the other shard with their tasks.
#[cfg(feature = "proof")]
#[actix::test]
async fn a_shard_that_is_about_to_redrive_keeps_the_slots_that_it_has() {
    let place = tempfile::tempdir().unwrap();
    let queue = start(&place).await;
    let even = (0..SLOTS).map(|slot| (slot % 2) as u16);
    queue.shared().set_shard_of_slot(even.collect());
    let second = |slot: &u16| *slot % 2 == 1;
    let keys = (0_u64..).map(|number| number.to_string());
    let key = keys.into_iter().find(|key| second(&slot_of(key))).unwrap();
    let panics = crate::proof::Panics::in_directory(&place.path().join("queue"));
    let (commits, go_on) = panics.hold(crate::proof::Point::ShardCommit);
    let submitter = queue.clone();
    let submitted = tokio::task::spawn_local(async move {
        submitter.submit(nothing::task().key(key)).await.unwrap().id()
    });
    commits.await.unwrap();
    // both come while it commits
    let link = &queue.shared().shards[1].link;
    let (redriven, outcome) = oneshot::channel();
    let never = TaskId::new(queue.shared().shards[1].id, 1_000_000);
    link.send(crate::actors::messages::RedriveRow { id: never, answer: redriven });
    let (answer, asked) = oneshot::channel();
    link.send(SlotsInUse { answer });
    drop(go_on);
    let mut slots = timeout(LONGEST, asked).await.expect("it answers").unwrap().unwrap();
    slots.sort_unstable();
    slots.dedup();
    let own = (0..SLOTS as u16).filter(second);
    assert!(slots == own.collect::<Vec<_>>(), "{} slots, or others", slots.len());
    let outcome = timeout(LONGEST, outcome).await.expect("it is redriven").unwrap();
    assert!(matches!(outcome, Ok(crate::RedriveOutcome::NotFound)), "{outcome:?}");
    timeout(LONGEST, submitted).await.expect("it is stored").unwrap();
    queue.shutdown(LONGEST).await.unwrap();
}
