//! Cancelling tasks, whatever they are doing.

use message_queue_sqlite::prelude::*;

use crate::tasks::{double, gated, heard, log, obedient};
use crate::world::{Received, World, end, in_time, start, until_status};

#[actix::test]
async fn a_task_that_has_not_started_is_removed_and_never_runs() {
    let world = World::new();
    let queue = world.start_narrow().await;
    let gate = in_time(queue.submit(gated::task("gate".into()))).await.unwrap();
    world.probe.until("gate started", 1).await;
    let ready = in_time(queue.submit(log::task("ready".into()))).await.unwrap();
    let delayed = log::task("delayed".into()).delay(Duration::from_secs(3_600));
    let delayed = in_time(queue.submit(delayed)).await.unwrap();
    for handle in [&ready, &delayed] {
        assert_eq!(in_time(handle.cancel()).await.unwrap(), CancelOutcome::Removed);
        // doing it again changes nothing
        let again = CancelOutcome::AlreadyFinished(TaskStatus::Cancelled);
        assert_eq!(in_time(handle.cancel()).await.unwrap(), again);
    }
    for handle in [ready, delayed] {
        let id = handle.id();
        let cancelled = in_time(handle).await;
        assert!(matches!(cancelled, Err(Error::Cancelled { id: of }) if of == id), "{cancelled:?}");
    }
    world.probe.open(1);
    in_time(gate).await.unwrap();
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    assert_eq!(world.probe.log(), ["gate started", "gate passed", "gate left"]);
    end(queue).await;
}

#[actix::test]
async fn those_who_wait_for_a_task_hear_of_its_cancellation() {
    let world = World::new();
    let queue = world.start().await;
    let mut mailbox = Received::new();
    let mut subscribed = Received::new();
    let _guard = in_time(queue.subscribe::<log::Task>(subscribed.recipient())).await.unwrap();
    let task = log::task("never".into()).delay(Duration::from_secs(3_600));
    let task = task.reply_to(mailbox.recipient()).then(heard::callback());
    let handle = in_time(queue.submit(task)).await.unwrap();
    let waiting = actix::spawn({
        let handle = handle.clone();
        async move { handle.result().await }
    });
    // the wait above is in the shard's hands before the cancellation is: one reads after the other
    handle.status().await.unwrap();
    assert_eq!(in_time(handle.cancel()).await.unwrap(), CancelOutcome::Removed);
    assert_eq!(in_time(waiting).await.unwrap().unwrap().outcome(), Outcome::Cancelled);
    for mailbox in [&mut mailbox, &mut subscribed] {
        let result = mailbox.next().await;
        assert_eq!((result.id(), result.outcome()), (handle.id(), Outcome::Cancelled));
        assert!(result.started_at().is_none() && result.failure().is_none());
    }
    world.probe.until(&format!("heard {} Cancelled", handle.id()), 1).await;
    let record = until_status(&queue, handle.id(), TaskStatus::Callbacked).await;
    assert_eq!(record.outcome, Some(Outcome::Cancelled));
    end(queue).await;
}

#[actix::test]
async fn a_running_task_is_told_and_ends_as_cancelled_if_it_obeys() {
    let world = World::new();
    let queue = world.start().await;
    let handle = in_time(queue.submit(obedient::task())).await.unwrap();
    let unsubmitted = handle.clone();
    world.probe.until("obedient started", 1).await;
    assert_eq!(in_time(handle.cancel()).await.unwrap(), CancelOutcome::Requested);
    let cancelled = in_time(handle).await;
    assert!(matches!(cancelled, Err(Error::Cancelled { .. })), "{cancelled:?}");
    let again = in_time(unsubmitted.cancel()).await.unwrap();
    assert_eq!(again, CancelOutcome::AlreadyFinished(TaskStatus::Cancelled));
    // one attempt, although more were allowed
    assert_eq!(world.probe.log(), ["obedient started", "obedient told"]);
    end(queue).await;
}

#[actix::test]
async fn a_running_task_that_ends_well_in_spite_of_it_is_finished() {
    let world = World::new();
    let queue = world.start().await;
    let handle = in_time(queue.submit(gated::task("deaf".into()))).await.unwrap();
    world.probe.until("deaf started", 1).await;
    for _ in 0..2 {
        assert_eq!(in_time(handle.cancel()).await.unwrap(), CancelOutcome::Requested);
    }
    world.probe.open(1);
    assert_eq!(in_time(handle.clone()).await.unwrap(), "deaf");
    let over = CancelOutcome::AlreadyFinished(TaskStatus::Finished);
    assert_eq!(in_time(handle.cancel()).await.unwrap(), over);
    end(queue).await;
}

#[actix::test]
async fn a_task_that_waits_in_a_worker_is_cancelled_without_running() {
    let world = World::new();
    let mut settings = world.narrow();
    settings.workers.prefetch = 10;
    let queue = start(world.builder_with(settings)).await;
    // quick ones, so that more of them are taken ahead
    for number in 0..50 {
        let line = format!("warm {number}");
        in_time(in_time(queue.submit(log::task(line))).await.unwrap()).await.unwrap();
    }
    let gate = in_time(queue.submit(gated::task("gate".into()))).await.unwrap();
    world.probe.until("gate started", 1).await;
    let behind = in_time(queue.submit(log::task("behind".into()))).await.unwrap();
    let cancelled = in_time(behind.cancel()).await.unwrap();
    assert!(matches!(cancelled, CancelOutcome::Requested | CancelOutcome::Removed));
    world.probe.open(1);
    in_time(gate).await.unwrap();
    let ended = in_time(behind).await;
    assert!(matches!(ended, Err(Error::Cancelled { .. })), "{ended:?}");
    assert_eq!(world.probe.count("behind"), 0);
    end(queue).await;
}

#[actix::test]
async fn a_cancelled_retry_does_not_come() {
    let world = World::new();
    let queue = world.start().await;
    let hour = Duration::from_secs(3_600);
    let task = crate::tasks::flaky::task(5).backoff(hour, hour);
    let handle = in_time(queue.submit(task)).await.unwrap();
    let waits = |record: &message_queue_sqlite::TaskRecord| record.due_at.is_some();
    crate::world::until_record(&queue, handle.id(), waits).await;
    assert_eq!(in_time(handle.cancel()).await.unwrap(), CancelOutcome::Removed);
    let record = queue.record(handle.id()).await.unwrap();
    assert_eq!((record.status, record.counters.failures), (TaskStatus::Cancelled, 1));
    end(queue).await;
}

#[actix::test]
async fn cancelling_what_does_not_exist_says_so() {
    let world = World::new();
    let queue = world.start().await;
    for id in ["0-999999999", "77-1", "0-0"] {
        let cancelled = in_time(queue.cancel(id.parse().unwrap())).await.unwrap();
        assert_eq!(cancelled, CancelOutcome::NotFound, "{id}");
    }
    end(queue).await;
}
