//! After a commit of which nobody knows whether it worked: those who wait in memory.

use std::collections::HashSet;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use message_queue_sqlite::Outcome;
use message_queue_sqlite::prelude::*;
use message_queue_sqlite_faults::{File, Operation, Plan};

use crate::runs::{held_cached, work};
use crate::world::{LIMIT, World, all, block_on, in_time, is_there, retry, turn};

/// Lets commits be written and not synced: reopened, the file has them all the same.
fn unsynced() -> Plan {
    Plan::fail(Operation::Sync).on(File::Log).for_ever()
}

/// Waits for a task's end as a handle does, from a moment on at which its shard knows of it.
async fn wait(queue: &Queue, id: TaskId) -> impl Future<Output = TaskResult> + use<> {
    let handle = queue.handle::<work::Task>(id);
    let waiting = tokio::task::spawn_local(async move { handle.result().await.unwrap() });
    tokio::task::yield_now().await;
    // one question after the other
    in_time(queue.status(id)).await.unwrap();
    let waited = in_time(waiting);
    async { waited.await.unwrap() }
}

#[test]
fn who_waits_for_a_task_hears_of_an_end_whose_commit_failed() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let sent = world.hold(&queue, 1..2).await;
        let end = wait(&queue, sent[0].id()).await;
        world.faults.arm(unsynced());
        world.runs.open_gate();
        turn(|| world.faults.fired() >= 3).await;
        world.faults.heal();
        // who asks now knows it
        world.judge(&queue, &sent).await;
        assert_eq!(end.await.outcome(), Outcome::Finished);
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}

#[test]
fn an_end_whose_commit_failed_lets_go_of_cached_arguments() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let first = in_time(queue.submit(held_cached::task(1))).await.unwrap();
        world.runs.until_begun(1).await;
        world.faults.arm(unsynced());
        world.runs.open_gate();
        turn(|| world.faults.fired() >= 3).await;
        world.faults.heal();
        assert_eq!(in_time(first).await.unwrap(), 1);
        // one set of arguments may be kept at a time
        let second = retry(|| queue.submit(held_cached::task(2))).await;
        assert_eq!(in_time(second).await.unwrap(), 2);
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}

#[test]
fn who_waits_for_a_task_hears_of_a_cancellation_whose_commit_failed() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let task = work::task(1, Vec::new()).delay(Duration::from_secs(3_600));
        let handle = in_time(queue.submit(task)).await.unwrap();
        let end = wait(&queue, handle.id()).await;
        world.faults.arm(unsynced());
        in_time(handle.cancel()).await.unwrap_err();
        turn(|| world.faults.fired() >= 3).await;
        world.faults.heal();
        retry(|| handle.cancel()).await;
        // who asks now knows it
        assert_eq!(handle.result().await.unwrap().outcome(), Outcome::Cancelled);
        assert_eq!(end.await.outcome(), Outcome::Cancelled);
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}

#[test]
fn what_was_not_stored_lets_go_of_its_closure() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let first = all(world.begin(&queue, 1..2)).await;
        world.judge(&queue, &first).await;
        let held = Arc::new(());
        let closure = held.clone();
        let task = work::task(2, Vec::new()).on_result(move |_| drop(closure));
        world.faults.arm(Plan::fail_any().for_ever());
        let answer = in_time(queue.submit(task)).await;
        let Err(Error::Unknown { id }) = answer else { panic!("{answer:?}") };
        world.faults.heal();
        assert!(!is_there(&queue, id).await);
        turn(|| Arc::strong_count(&held) == 1).await;
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}

/// Submits tasks, each when the last one has ended, until both shards have got one.
async fn until_both(world: &World, queue: &Queue, numbers: &mut Range<u64>) {
    let both = async {
        let mut shards = HashSet::new();
        for number in numbers {
            let sent = [world.send(queue, number).await];
            shards.insert(sent[0].id().shard());
            world.judge_these(queue, &sent).await;
            if shards.len() == 2 {
                return;
            }
        }
    };
    in_time(both).await;
}

#[test]
fn a_shard_that_lost_what_waited_gets_its_share_again() {
    block_on(async {
        let world = World::of_shards(2);
        let queue = world.start().await;
        until_both(&world, &queue, &mut (1_000..u64::MAX)).await;
        // more than a batch: the rest waits in the actor that ends
        world.faults.arm(Plan::fail(Operation::Sync).on(File::Log));
        let sent = all(world.begin(&queue, 101..141)).await;
        assert!(world.faults.fired() > 0);
        world.judge_these(&queue, &sent).await;
        until_both(&world, &queue, &mut (1_000_000..u64::MAX)).await;
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}

#[test]
fn a_shard_that_cannot_be_opened_again_refuses_submissions() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let mut sent = all(world.begin(&queue, 1..2)).await;
        world.judge(&queue, &sent).await;
        world.faults.arm(Plan::fail_any().for_ever());
        sent.extend(all(world.begin(&queue, 2..3)).await);
        sent.extend(all(world.begin(&queue, 3..6)).await);
        for sent in &sent[2..] {
            assert!(matches!(sent.answer, Err(Error::ShardUnavailable { .. })), "{sent:?}");
        }
        world.faults.heal();
        sent.extend(world.until_taken(&queue, &mut (6..)).await);
        world.judge(&queue, &sent).await;
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}

/// The first of them was stored before, so it used to be taken for a sign that all are.
#[test]
fn a_bulk_with_a_task_that_was_stored_before_is_not_said_to_be_stored() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let first = in_time(queue.submit(work::task(1, Vec::new()))).await.unwrap();
        in_time(first.wait(LIMIT)).await.unwrap();
        let bulk = || [work::task(1, Vec::new()).with_id(first.id()), work::task(2, Vec::new())];
        // the commit isn't written, and the error doesn't say so
        world.faults.arm(Plan::fail(Operation::Write).on(File::Log));
        let refused = in_time(queue.submit_all(bulk())).await;
        assert!(world.faults.fired() > 0);
        assert!(refused.is_err(), "{refused:?}");
        world.faults.heal();
        let handles = retry(|| queue.submit_all(bulk())).await;
        in_time(handles[1].wait(LIMIT)).await.unwrap();
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}
