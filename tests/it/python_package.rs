//! What the Python package of the same name got wrong, one test for each.

use std::collections::HashSet;

use message_queue_sqlite::DeadReason;
use message_queue_sqlite::prelude::*;
use rusqlite::Connection;
use tokio::sync::mpsc;

use crate::tasks::{deaf, double, fatal, gated, heard, heard_late, log, mendable, unwritable};
use crate::world::{
    Captured, LIMIT, Received, World, count, end, in_time, standing_clock, start, until_count,
    until_status,
};

#[actix::test]
async fn every_submission_reaches_its_own_callback() {
    let world = World::new();
    let queue = world.start().await;
    let (sender, mut results) = mpsc::unbounded_channel();
    for number in 0..200u64 {
        let sender = sender.clone();
        let told = move |result: TaskResult| drop(sender.send((number, result)));
        in_time(queue.submit(double::task(number).on_result(told))).await.unwrap();
    }
    drop(sender);
    let mut told = HashSet::new();
    while let Some((number, result)) = in_time(results.recv()).await {
        assert_eq!(result.decode::<u64>().unwrap(), number * 2);
        assert!(told.insert(number), "{number} was told twice");
    }
    assert_eq!(told.len(), 200);
    until_count(&queue, TaskStatus::Callbacked, 200).await;
    end(queue).await;
}

#[actix::test]
async fn a_failed_task_notifies_its_callbacks() {
    let world = World::new();
    let queue = world.start().await;
    let mut mailbox = Received::new();
    let submission = fatal::task("broken".into()).reply_to(mailbox.recipient());
    let handle = in_time(queue.submit(submission.then(heard::callback()))).await.unwrap();
    let result = mailbox.next().await;
    assert_eq!((result.id(), result.outcome()), (handle.id(), Outcome::Failed));
    world.probe.until(&format!("heard {} Failed", handle.id()), 1).await;
    let record = until_status(&queue, handle.id(), TaskStatus::Callbacked).await;
    assert_eq!(record.outcome, Some(Outcome::Failed));
    end(queue).await;
}

#[actix::test]
async fn an_unknown_task_name_is_an_error_at_submission_and_leaves_no_row() {
    let world = World::new();
    let queue = world.start().await;
    let submitted = in_time(queue.submit_raw(Submit::raw("no.such", Codec::Json, *b"1"))).await;
    assert!(matches!(&submitted, Err(Error::UnknownTask { name }) if name == "no.such"));
    // a callback isn't a task
    let submitted = in_time(queue.submit_raw(Submit::raw("heard", Codec::Json, *b"1"))).await;
    assert!(matches!(submitted, Err(Error::UnknownTask { .. })), "{submitted:?}");
    let counts = in_time(queue.counts()).await.unwrap();
    assert!(counts.values().all(|tasks| *tasks == 0), "{counts:?}");
    end(queue).await;
}

#[actix::test]
async fn a_failing_callback_does_not_overwrite_the_outcome() {
    let world = World::new();
    let queue = world.start().await;
    let panics = |_: TaskResult| panic!("the callback is broken");
    let told = in_time(queue.submit(double::task(1).on_result(panics))).await.unwrap();
    let durable = double::task(2).then(deaf::callback());
    let durable = in_time(queue.submit(durable)).await.unwrap();
    for (handle, output, reason) in
        [(told, 2, DeadReason::SubscriberPanicked), (durable, 4, DeadReason::CallbackFailed)]
    {
        let id = handle.id();
        assert_eq!(in_time(handle).await.unwrap(), output);
        let dead =
            |record: &message_queue_sqlite::TaskRecord| record.delivery == Delivery::Dead(reason);
        let record = crate::world::until_record(&queue, id, dead).await;
        assert_eq!(
            (record.outcome, record.status),
            (Some(Outcome::Finished), TaskStatus::Finished)
        );
        assert!(record.output.is_some() && record.error.is_none());
    }
    // the queue is unharmed
    assert_eq!(in_time(in_time(queue.submit(double::task(3))).await.unwrap()).await.unwrap(), 6);
    end(queue).await;
}

#[actix::test]
async fn one_definition_running_many_times_at_once_shares_no_state() {
    let world = World::new();
    let queue = world.start().await;
    let tags: Vec<String> = (0..20).map(|number| format!("task {number}")).collect();
    let tasks = tags.iter().map(|tag| gated::task(tag.clone()));
    let handles = in_time(queue.submit_all(tasks)).await.unwrap();
    for tag in &tags {
        world.probe.until(&format!("{tag} started"), 1).await;
    }
    // all of them are in the middle now
    assert_eq!(count(&queue, TaskStatus::Running).await, 20);
    world.probe.open(20);
    for (handle, tag) in handles.into_iter().zip(tags) {
        assert_eq!(in_time(handle).await.unwrap(), tag);
    }
    end(queue).await;
}

#[actix::test]
async fn submitting_from_many_threads_loses_nothing() {
    const THREADS: u64 = 8;
    const EACH: u64 = 100;
    let world = World::new();
    let queue = start(world.builder().shards(2)).await;
    let submitting: Vec<_> = (0..THREADS)
        .map(|thread| {
            let queue = queue.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    let mut ids = Vec::new();
                    for number in 0..EACH {
                        let handle = queue.submit(double::task(thread * EACH + number)).await;
                        ids.push((handle.unwrap().id(), thread * EACH + number));
                    }
                    ids
                })
            })
        })
        .collect();
    let joined = in_time(tokio::task::spawn_blocking(move || {
        submitting.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    }));
    let ids = joined.await.unwrap();
    let distinct: HashSet<TaskId> = ids.iter().map(|(id, _)| *id).collect();
    assert_eq!(distinct.len() as u64, THREADS * EACH);
    for (id, number) in ids {
        assert_eq!(in_time(queue.handle::<double::Task>(id)).await.unwrap(), number * 2);
    }
    until_count(&queue, TaskStatus::Finished, THREADS * EACH).await;
    end(queue).await;
}

#[actix::test]
async fn nothing_acknowledged_is_held_only_in_memory() {
    let world = World::new();
    let queue = world.start_narrow().await;
    let gate = in_time(queue.submit(gated::task("gate".into()))).await.unwrap();
    world.probe.until("gate started", 1).await;
    let tasks = (0..50).map(double::task);
    let ids: Vec<TaskId> =
        in_time(queue.submit_all(tasks)).await.unwrap().iter().map(TaskHandle::id).collect();
    // gone without a word, as a crash would end it
    drop((gate, queue));
    let queue = world.start_again(|| world.builder()).await;
    for (number, id) in (0..).zip(ids) {
        assert_eq!(in_time(queue.handle::<double::Task>(id)).await.unwrap(), number * 2);
    }
    world.probe.open(1);
    end(queue).await;
}

#[actix::test]
async fn the_last_results_of_a_burst_are_written_at_once() {
    let world = World::new();
    let queue = world.start().await;
    let handles = in_time(queue.submit_all((0..333).map(double::task))).await.unwrap();
    // nothing is submitted after them that could push them on
    for handle in handles {
        let id = handle.id();
        in_time(handle).await.unwrap();
        assert_eq!(queue.status(id).await.unwrap(), TaskStatus::Finished);
    }
    assert_eq!(count(&queue, TaskStatus::Finished).await, 333);
    end(queue).await;
}

#[actix::test]
async fn running_and_callbacking_rows_recover() {
    let world = World::new();
    let queue = world.start().await;
    let running = in_time(queue.submit(gated::task("first".into()))).await.unwrap().id();
    let told = double::task(4).then(heard_late::callback());
    let told = in_time(queue.submit(told)).await.unwrap().id();
    world.probe.until("first started", 1).await;
    world.probe.until(&format!("hearing {told}"), 1).await;
    assert_eq!(queue.status(running).await.unwrap(), TaskStatus::Running);
    assert_eq!(queue.status(told).await.unwrap(), TaskStatus::Callbacking);
    drop(queue);

    let queue = world.start_again(|| world.builder()).await;
    // the task itself, and the callback, which is one
    assert_eq!(queue.recovery().restarted, 2);
    world.probe.until("first started", 2).await;
    world.probe.until(&format!("hearing {told}"), 2).await;
    world.probe.open(2);
    assert_eq!(in_time(queue.handle::<gated::Task>(running)).await.unwrap(), "first");
    let record = until_status(&queue, told, TaskStatus::Callbacked).await;
    assert_eq!(record.outcome, Some(Outcome::Finished));
    let record = queue.record(running).await.unwrap();
    assert_eq!((record.counters.crashes, record.counters.failures), (1, 0));
    end(queue).await;
}

#[actix::test]
async fn one_result_that_cannot_be_encoded_harms_only_its_task() {
    let world = World::new();
    let queue = world.start().await;
    let before = in_time(queue.submit(double::task(1))).await.unwrap();
    let unwritten = in_time(queue.submit(unwritable::task())).await.unwrap();
    let after = in_time(queue.submit(double::task(2))).await.unwrap();
    let failed = in_time(unwritten).await;
    assert!(
        matches!(failed, Err(Error::TaskFailed { kind: FailureKind::Encode, .. })),
        "{failed:?}"
    );
    assert_eq!(in_time(before).await.unwrap(), 2);
    assert_eq!(in_time(after).await.unwrap(), 4);
    end(queue).await;
}

#[actix::test]
async fn nothing_grows_for_ever() {
    let world = World::new();
    let (clock, now) = standing_clock();
    let queue = start(world.builder().clock(clock.clone())).await;
    let handles = in_time(queue.submit_all((0..1_200).map(double::task))).await.unwrap();
    let first = handles[0].id();
    for handle in handles {
        in_time(handle).await.unwrap();
    }
    let dead = in_time(queue.submit(mendable::task())).await.unwrap();
    let waiting = double::task(1).delay(Duration::from_secs(300 * 24 * 60 * 60));
    let waiting = in_time(queue.submit(waiting)).await.unwrap().id();
    let dead = {
        let id = dead.id();
        in_time(dead).await.unwrap_err();
        id
    };
    assert_eq!(count(&queue, TaskStatus::Finished).await, 1_200);
    end(queue).await;

    // results are kept for a day, those without success for thirty
    clock.set(now.saturating_add(Duration::from_secs(2 * 24 * 60 * 60)));
    let queue = start(world.builder().clock(clock.clone())).await;
    until_count(&queue, TaskStatus::Finished, 0).await;
    assert!(matches!(queue.record(first).await, Err(Error::ResultExpired { id }) if id == first));
    let expired = in_time(queue.handle::<double::Task>(first)).await;
    assert!(matches!(expired, Err(Error::ResultExpired { .. })), "{expired:?}");
    assert_eq!(queue.status(dead).await.unwrap(), TaskStatus::Failed);
    assert_eq!(queue.status(waiting).await.unwrap(), TaskStatus::NotStarted);
    end(queue).await;

    clock.set(now.saturating_add(Duration::from_secs(31 * 24 * 60 * 60)));
    let queue = start(world.builder().clock(clock)).await;
    until_count(&queue, TaskStatus::Failed, 0).await;
    assert!(matches!(queue.record(dead).await, Err(Error::ResultExpired { .. })));
    assert_eq!(queue.status(waiting).await.unwrap(), TaskStatus::NotStarted);
    end(queue).await;
}

#[actix::test]
async fn contention_for_a_file_never_reaches_the_caller() {
    let world = World::new();
    let mut settings = world.settings();
    settings.storage.busy_timeout = Duration::from_millis(1);
    let queue = start(world.builder_with(settings)).await;
    let warnings = Captured::warnings();
    let refusals = || warnings.text().matches("a batch was refused").count();
    let other = Connection::open(world.dir().join("shard-000.db")).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let before = refusals();
    let mut submitting = Box::pin(queue.submit(double::task(21)));
    // an answer would come with a refusal, so after several it is seen that none came; those of
    // other tests, if there are any, only shorten the look
    let tried = async { while refusals() < before + 3 && queue.counts().await.is_ok() {} };
    tokio::select! {
        biased;
        early = &mut submitting => panic!("answered while another program has the file: {early:?}"),
        () = in_time(tried) => {}
    }
    other.execute_batch("commit").unwrap();
    let handle = in_time(submitting).await.unwrap();
    assert_eq!(in_time(handle).await.unwrap(), 42);
    drop(other);
    end(queue).await;
}

#[actix::test]
async fn one_lone_task_does_not_wait_for_others() {
    let world = World::new();
    let queue = world.start().await;
    let mut mailbox = Received::new();
    let lone = log::task("ran".into()).reply_to(mailbox.recipient());
    let id = in_time(queue.submit(lone)).await.unwrap().id();
    assert_eq!(mailbox.next().await.id(), id);
    assert_eq!(world.probe.log(), ["ran"]);
    until_status(&queue, id, TaskStatus::Callbacked).await;
    let report = in_time(queue.shutdown(LIMIT)).await.unwrap();
    assert_eq!((report.waiting, report.undelivered), (0, 0));
}
