//! What else is asked of a queue whose file fails: it is done or refused, and can be asked again.

use message_queue_sqlite::prelude::*;
use message_queue_sqlite_faults::{File, Operation, Plan};

use crate::runs::work;
use crate::sweep::sweep;
use crate::world::{LIMIT, World, all, block_on, in_time, output, retry, turn};

/// Whether the error says that the same call can succeed later, and why it didn't.
fn is_typed<T>(answer: &Result<T, Error>) -> bool {
    match answer {
        Ok(_) => true,
        Err(error) => {
            let of_a_shard = matches!(
                error,
                Error::DiskFull { .. } | Error::ShardUnavailable { .. } | Error::Store { .. }
            );
            of_a_shard && error.is_retryable()
        }
    }
}

/// Cancels a waiting task and lets it run again, with a fault before each. True if it was met.
async fn cancel_and_redrive(plan: Plan) -> bool {
    let world = World::new();
    let queue = world.start().await;
    let task = work::task(1, Vec::new()).delay(Duration::from_secs(3_600));
    let handle = in_time(queue.submit(task)).await.unwrap();
    world.faults.arm(plan);
    let cancelled = in_time(handle.cancel()).await;
    let met = world.faults.fired() > 0;
    assert!(is_typed(&cancelled), "{cancelled:?}");
    if cancelled.is_err() {
        retry(|| handle.cancel()).await;
    }
    assert_eq!(handle.status().await.unwrap(), TaskStatus::Cancelled);
    world.faults.arm(plan);
    let redriven = in_time(queue.redrive(handle.id())).await;
    assert!(is_typed(&redriven), "{redriven:?}");
    if redriven.is_err() {
        retry(|| queue.redrive(handle.id())).await;
    }
    world.faults.heal();
    assert_eq!(output(&queue, handle.id()).await, 1);
    in_time(queue.shutdown(LIMIT)).await.unwrap();
    met
}

#[test]
fn a_cancellation_that_is_not_stored_is_refused() {
    sweep(1..=10, |nth| cancel_and_redrive(Plan::fail(Operation::Write).at(nth)));
    sweep(1..=10, |nth| cancel_and_redrive(Plan::disk_full().at(nth)));
    sweep(1..=10, |nth| cancel_and_redrive(Plan::fail(Operation::Sync).at(nth)));
}

#[test]
fn a_record_that_cannot_be_read_is_an_error_of_the_store() {
    block_on(async {
        let world = World::cold();
        let queue = world.start().await;
        let held = world.hold(&queue, 1..2).await;
        let sent = all(world.begin(&queue, 2..32)).await;
        // answered behind the checkpoint that this much is followed by, which reads as well
        in_time(queue.counts()).await.unwrap();
        world.faults.arm(Plan::fail(Operation::Read).for_ever());
        // one of them isn't in the cache
        let mut failed = None;
        for task in &sent {
            if let Err(error) = in_time(queue.record(task.id())).await {
                failed = Some(error);
                break;
            }
        }
        assert!(world.faults.fired() > 0);
        let Some(Error::Store { source, .. }) = failed else { panic!("{failed:?}") };
        assert_eq!(source.kind(), message_queue_sqlite::StoreErrorKind::Io, "{source}");
        world.faults.heal();
        world.runs.open_gate();
        world.judge(&queue, &held.into_iter().chain(sent).collect::<Vec<_>>()).await;
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}

/// Submits while commits fail, and again under every id that was or may have been given out.
async fn submit_again(plan: Plan) {
    let world = World::new();
    let queue = world.start().await;
    // so that nothing else is written than what comes next
    let mut sent = all(world.begin(&queue, 1..2)).await;
    world.judge(&queue, &sent).await;
    world.faults.arm(plan.for_ever());
    let begun = world.begin(&queue, 2..4);
    turn(|| world.faults.fired() >= 6).await;
    world.faults.heal();
    sent.extend(all(begun).await);
    for sent in &sent {
        let (Ok(id) | Err(Error::Unknown { id })) = sent.answer else { continue };
        let again = || queue.submit(work::task(sent.number, Vec::new()).with_id(id));
        assert_eq!(retry(again).await.id(), id);
        // stored by the first submission or by this one, whose targets are its own
        assert_eq!(output(&queue, id).await, sent.number);
        world.runs.ran_once(sent.number);
    }
    sent.retain(|sent| !matches!(sent.answer, Err(Error::Unknown { .. })));
    world.judge_these(&queue, &sent).await;
    in_time(queue.shutdown(LIMIT)).await.unwrap();
}

#[test]
fn what_may_be_stored_can_be_submitted_again() {
    block_on(async {
        submit_again(Plan::fail_any()).await;
        submit_again(Plan::fail(Operation::Sync)).await;
    });
}

/// Makes a backup with a fault, and one without. True if the fault was met.
async fn backup(plan: Plan) -> bool {
    let world = World::new();
    let queue = world.start().await;
    let sent = all(world.begin(&queue, 1..7)).await;
    world.judge(&queue, &sent).await;
    let (first, second, restored) =
        (world.path("first"), world.path("second"), world.path("restored"));
    world.faults.arm(plan);
    let copied = in_time(queue.backup(&first)).await;
    let met = world.faults.fired() > 0;
    world.faults.heal();
    if copied.is_err() {
        Queue::restore(&first, &restored).unwrap_err();
        in_time(queue.backup(&second)).await.unwrap();
    }
    let good = if copied.is_ok() { first } else { second };
    Queue::restore(&good, &restored).unwrap();
    world.judge_restart(queue, &sent).await;
    let queue = world.start_in(restored).await;
    world.judge(&queue, &sent).await;
    in_time(queue.shutdown(LIMIT)).await.unwrap();
    met
}

#[test]
fn a_backup_that_fails_is_none() {
    sweep(5..=40, |nth| backup(Plan::fail_any().at(nth)));
    sweep(4..=40, |nth| backup(Plan::fail(Operation::Write).on(File::Database).at(nth).for_ever()));
}
