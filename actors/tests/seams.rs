//! Actors that panic between two steps of a handler. What the first had in hand must not be lost.

use super::*;
use crate::actors::messages::MoveSlots;
use crate::proof::{Panics, Point};

/// A queue with one shard, and the panics that it can be given.
async fn world() -> (World, Panics) {
    let mut panics = None;
    let world = World::new(1, |settings| {
        panics = Some(Panics::in_directory(&settings.storage.dir));
    })
    .await;
    (world, panics.unwrap())
}

// Handlers that only ask a shard weren't guarded: a panic in one ended the Dispatcher for good.
#[actix::test]
async fn a_dispatcher_survives_a_panic_in_any_handler() {
    let (world, panics) = world().await;
    let id = world.submit(1).await[0].id();
    let dispatcher = world.queue.dispatcher();
    let subscribe = || Subscribe::to_all(Counter(Arc::default()).start().recipient());
    let subscription = dispatcher.send(subscribe()).await.unwrap().unwrap();
    panics.arm(Point::DispatcherLookup, 1, 5);
    dispatcher.send(Cancel(id)).await.unwrap().unwrap_err();
    dispatcher.send(Redrive(id)).await.unwrap().unwrap_err();
    dispatcher.send(GetTask(id)).await.unwrap().unwrap_err();
    dispatcher.send(ListTasks::default()).await.unwrap().unwrap_err();
    dispatcher.send(CountTasks).await.unwrap().unwrap_err();
    assert_eq!(panics.fired(), 5);
    panics.arm(Point::DispatcherSubscribe, 1, 1);
    dispatcher.send(subscribe()).await.unwrap().unwrap_err();
    panics.arm(Point::DispatcherUnsubscribe, 1, 1);
    assert!(!dispatcher.send(Unsubscribe(subscription)).await.unwrap());
    assert!(dispatcher.send(Unsubscribe(subscription)).await.unwrap());
    assert_eq!(dispatcher.send(GetTask(id)).await.unwrap().unwrap().id, id);
    // as it asks the shards, and as they answer
    for nth in 1..=2 {
        panics.arm(Point::DispatcherLookup, nth, 1);
        dispatcher.send(MoveSlots).await.unwrap();
        world.until("it panics", |_| panics.fired() == 1).await;
    }
    assert_eq!(dispatcher.send(GetTask(id)).await.unwrap().unwrap().id, id);
}

/// A task ends, after one run, although its worker panics there.
async fn ends_after_one_run_with_a_panic_at(point: Point) {
    let (world, panics) = world().await;
    world.gate.open.add_permits(1);
    panics.arm(point, 1, 1);
    let handles = world.submit(1).await;
    world.all_end(handles).await;
    assert_eq!((panics.fired(), world.gate.runs.load(Ordering::SeqCst)), (1, 1));
}

// Once taken from the queue it was nowhere, so it was waited for until the process ended.
#[actix::test]
async fn an_attempt_that_a_worker_was_about_to_start_still_runs() {
    ends_after_one_run_with_a_panic_at(Point::WorkerStart).await;
}

// The ends that the worker had taken from its ledger went with it.
#[actix::test]
async fn an_end_that_a_worker_was_about_to_report_is_stored() {
    ends_after_one_run_with_a_panic_at(Point::WorkerReport).await;
}

// The shutdown reports in the place of workers that don't answer. What made a worker panic each time
// ended the queue's own thread then, and there was no report and no shard that was closed.
#[actix::test]
async fn a_shutdown_survives_what_a_worker_panics_at() {
    let (world, panics) = world().await;
    world.gate.open.add_permits(1);
    panics.arm(Point::WorkerReport, 1, 1_000);
    world.submit(1).await;
    while panics.fired() == 0 {
        tokio::task::yield_now().await;
    }
    world.queue.shutdown(Duration::ZERO).await.unwrap();
}

// The rest of a batch went with the actor, and its deliveries were never over.
#[actix::test]
async fn results_that_a_callback_actor_has_taken_over_still_arrive() {
    const TASKS: u64 = 8;
    for nth in [2, TASKS] {
        let (world, panics) = world().await;
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Counter(seen.clone()).start();
        let _guard = world.queue.subscribe::<gated::Task>(counter.recipient()).await.unwrap();
        panics.arm(Point::CallbackItem, nth, 1);
        let handles = world.submit(TASKS).await;
        world.gate.open.add_permits(TASKS as usize);
        world.all_end(handles).await;
        let quiet = timeout(Duration::from_secs(30), world.shared().quiet()).await;
        quiet.expect("all deliveries are over");
        assert_eq!((panics.fired(), seen.load(Ordering::SeqCst)), (1, TASKS as usize));
    }
}

// A closure was dropped with the actor that was about to send the result on.
#[actix::test]
async fn a_closure_is_called_although_the_shard_panics_between_its_commit_and_the_delivery() {
    for point in [Point::ShardSettled, Point::ShardHandedOut] {
        let (world, panics) = world().await;
        let (called, calling) = oneshot::channel();
        let call = move |result: TaskResult| drop(called.send(result.decode::<u64>()));
        let handle = world.queue.submit(gated::task(3).on_result(call)).await.unwrap();
        world.until("it runs", |world| world.gate.runs.load(Ordering::SeqCst) == 1).await;
        // the first batch from now on is that of its end
        panics.arm(point, 1, 1);
        world.gate.open.add_permits(1);
        let called = timeout(Duration::from_secs(30), calling).await;
        let called = called.expect("the closure is called").expect("it isn't dropped");
        assert_eq!((called.unwrap(), handle.await.unwrap()), (3, 3));
        assert_eq!(panics.fired(), 1, "{point:?}");
    }
}

// The caller was told that nobody knows, and its closure and cached arguments were dropped.
#[actix::test]
async fn a_submission_is_answered_truthfully_although_the_shard_panics_around_its_commit() {
    for (point, stored) in [(Point::ShardCommitted, true), (Point::ShardCommit, false)] {
        let (world, panics) = world().await;
        world.gate.open.add_permits(1);
        let (called, calling) = oneshot::channel();
        let task = gated::task(3).on_result(move |_| called.send(()).unwrap());
        world.until("the shard rests", |world| world.shared().shards[0].is_quiet()).await;
        panics.arm(point, 1, 1);
        let answer = timeout(Duration::from_secs(30), world.queue.submit(task)).await.unwrap();
        world.until("the panic", |_| panics.fired() == 1).await;
        let called = timeout(Duration::from_secs(30), calling).await;
        let called = called.expect("the closure is called or dropped");
        match answer {
            Ok(handle) => assert_eq!((stored, handle.await.unwrap()), (true, 3)),
            Err(error) => assert!(!stored && error.is_retryable(), "{error}"),
        }
        assert_eq!(called.is_ok(), stored, "{point:?}");
    }
}

// They were noted before they were reserved. If the file couldn't be opened again at once, the caller
// was told that its task may be stored under an id that another task got then.
#[actix::test]
async fn ids_that_a_caller_may_have_been_told_are_given_to_no_other_task() {
    let (world, panics) = world().await;
    panics.arm(Point::ShardCommit, 1, 1);
    world.queue.submit(gated::task(0)).await.unwrap_err();
    assert_eq!(panics.fired(), 1);
    let next = world.submit(1).await[0].id();
    assert!(next.sequence() > 1, "{next}");
}
