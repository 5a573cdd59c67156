//! How a queue ends.

use message_queue_sqlite::prelude::*;

use crate::probe::Probe;
use crate::tasks::{double, gated, gated_blocking, gated_borrowed, heard_late, log};
use crate::world::{LIMIT, Received, World, end, in_time, start, until_record, until_status};

const AT_ONCE: Duration = Duration::from_millis(1);

mod own {
    use super::*;

    pub(super) const PATH: &str = module_path!();

    /// Ends when it is told to.
    #[task(name = "own.attentive", blocking)]
    pub(super) fn attentive(probe: Data<Probe>, ctx: TaskContext) -> Result<(), TaskError> {
        probe.note("attentive started");
        while !ctx.is_cancelled() {
            std::thread::yield_now();
        }
        probe.note("attentive told");
        Ok(())
    }
}

#[actix::test]
async fn an_idle_queue_ends_with_nothing_left() {
    let world = World::new();
    let queue = start(world.builder().shards(2)).await;
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    let report = in_time(queue.shutdown(LIMIT)).await.unwrap();
    assert_eq!(report, message_queue_sqlite::ShutdownReport::default());
}

#[actix::test]
async fn attempts_may_end_until_the_deadline_and_submissions_are_refused_meanwhile() {
    let world = World::new();
    let mut mailbox = Received::new();
    let queue = world.start_narrow().await;
    let running = gated::task("one".into()).reply_to(mailbox.recipient());
    let running = in_time(queue.submit(running)).await.unwrap();
    world.probe.until("one started", 1).await;
    let behind = in_time(queue.submit(log::task("behind".into()))).await.unwrap().id();
    let ending = actix::spawn({
        let queue = queue.clone();
        async move { queue.shutdown(LIMIT).await }
    });
    // it has begun when submissions are refused
    in_time(async {
        while queue.submit(double::task(0).delay(LIMIT)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let refused = in_time(queue.submit(double::task(1))).await;
    assert!(matches!(refused, Err(Error::ShuttingDown)), "{refused:?}");
    let refused = in_time(queue.submit_all([double::task(1)])).await;
    assert!(matches!(refused, Err(Error::ShuttingDown)), "{refused:?}");
    let refused = in_time(queue.dispatcher().send(Submit::new(double::task(1)))).await.unwrap();
    assert!(matches!(refused, Err(Error::ShuttingDown)), "{refused:?}");
    // questions are answered
    assert_eq!(running.status().await.unwrap(), TaskStatus::Running);
    // a second call joins the first
    let joining = actix::spawn({
        let queue = queue.clone();
        async move { queue.shutdown(Duration::ZERO).await }
    });
    world.probe.open(1);
    let report = in_time(ending).await.unwrap().unwrap();
    assert_eq!(in_time(joining).await.unwrap().unwrap(), report);
    assert!(report.left_behind.is_empty() && report.unclosed.is_empty(), "{report:?}");
    assert_eq!((report.released, report.undelivered), (0, 0));
    assert!(report.waiting >= 1, "{report:?}");
    // the attempt ended well, and its result was delivered
    assert_eq!(mailbox.next().await.decode::<String>().unwrap(), "one");
    assert_eq!(in_time(queue.shutdown(LIMIT)).await.unwrap(), report);
    let id = running.id();
    drop((running, queue));

    let queue = world.start().await;
    assert_eq!(queue.status(id).await.unwrap(), TaskStatus::Callbacked);
    in_time(queue.handle::<log::Task>(behind)).await.unwrap();
    end(queue).await;
}

#[actix::test]
async fn async_attempts_past_the_deadline_are_given_back_at_no_cost() {
    let world = World::new();
    let queue = world.start().await;
    let handle = in_time(queue.submit(gated::task("one".into()))).await.unwrap();
    let id = handle.id();
    world.probe.until("one started", 1).await;
    let report = in_time(queue.shutdown(AT_ONCE)).await.unwrap();
    assert_eq!((report.released, report.waiting), (1, 1));
    assert!(report.left_behind.is_empty(), "{report:?}");
    // its future was dropped
    assert_eq!(world.probe.log(), ["one started", "one left"]);
    let waited = in_time(handle).await;
    assert!(matches!(waited, Err(Error::ShuttingDown)), "{waited:?}");
    drop(queue);

    world.probe.open(1);
    let queue = world.start().await;
    assert_eq!(queue.recovery().restarted, 0);
    assert_eq!(in_time(queue.handle::<gated::Task>(id)).await.unwrap(), "one");
    let counters = queue.record(id).await.unwrap().counters;
    assert_eq!((counters.failures, counters.crashes), (0, 0));
    end(queue).await;
}

#[actix::test]
async fn a_task_that_a_shutdown_gives_back_is_still_before_those_behind_it() {
    let world = World::new();
    let queue = world.start_narrow().await;
    let mut ids = vec![in_time(queue.submit(gated::task("one".into()))).await.unwrap().id()];
    world.probe.until("one started", 1).await;
    for line in ["two", "three"] {
        ids.push(in_time(queue.submit(log::task(line.into()))).await.unwrap().id());
    }
    assert_eq!(in_time(queue.shutdown(AT_ONCE)).await.unwrap().released, 1);
    drop(queue);

    world.probe.open(1);
    let queue = world.start_narrow().await;
    for id in ids {
        until_record(&queue, id, |record| record.status.is_ended()).await;
    }
    let again = ["one started", "one passed", "one left", "two", "three"];
    assert_eq!(world.probe.log()[2..], again);
    end(queue).await;
}

#[actix::test]
async fn a_blocking_attempt_past_the_deadline_is_named_and_given_back() {
    let world = World::new();
    let queue = world.start().await;
    let id = in_time(queue.submit(gated_blocking::task("stuck".into()))).await.unwrap().id();
    world.probe.until("stuck started", 1).await;
    let report = in_time(queue.shutdown(AT_ONCE)).await.unwrap();
    assert_eq!(report.left_behind, [(id, "gated.blocking".to_string())]);
    assert_eq!((report.released, report.waiting), (1, 1));
    drop(queue);
    // its first attempt still waits at the gate when it starts again
    let queue = world.start().await;
    world.probe.until("stuck started", 2).await;
    world.probe.open(2);
    in_time(queue.handle::<gated_blocking::Task>(id)).await.unwrap();
    let counters = queue.record(id).await.unwrap().counters;
    assert_eq!((counters.failures, counters.crashes), (0, 0));
    end(queue).await;
}

/// A runtime waits for such code without limit, and the queue's end used to.
#[actix::test]
async fn blocking_code_that_an_attempt_started_itself_does_not_keep_the_queue_from_ending() {
    let world = World::new();
    let queue = world.start().await;
    in_time(queue.submit(gated_borrowed::task("stuck".into()))).await.unwrap();
    world.probe.until("stuck started", 1).await;
    let report = in_time(queue.shutdown(AT_ONCE)).await.unwrap();
    assert_eq!((report.released, report.waiting), (1, 1));
    drop(queue);
    let queue = world.start().await;
    world.probe.until("stuck started", 2).await;
    world.probe.open(2);
    end(queue).await;
}

#[actix::test]
async fn a_blocking_attempt_past_the_deadline_is_told_to_end() {
    let world = World::new();
    let queue = start(world.builder().discover(own::PATH)).await;
    let id = in_time(queue.submit(own::attentive::task())).await.unwrap().id();
    world.probe.until("attentive started", 1).await;
    let report = in_time(queue.shutdown(AT_ONCE)).await.unwrap();
    assert_eq!(report.left_behind, [(id, "own.attentive".to_string())]);
    world.probe.until("attentive told", 1).await;
}

#[actix::test]
async fn durable_callbacks_that_had_no_time_left_wait_for_the_next_start() {
    let world = World::new();
    let queue = world.start().await;
    let id =
        in_time(queue.submit(double::task(1).then(heard_late::callback()))).await.unwrap().id();
    world.probe.until(&format!("hearing {id}"), 1).await;
    let report = in_time(queue.shutdown(AT_ONCE)).await.unwrap();
    assert_eq!((report.released, report.undelivered), (1, 0));
    drop(queue);
    world.probe.open(1);
    let queue = world.start().await;
    until_status(&queue, id, TaskStatus::Callbacked).await;
    end(queue).await;
}

#[actix::test]
async fn a_queue_that_has_ended_says_so_to_everybody() {
    let world = World::new();
    let queue = world.start().await;
    let handle = in_time(queue.submit(double::task(1))).await.unwrap();
    in_time(handle.clone()).await.unwrap();
    let (id, dispatcher) = (handle.id(), queue.dispatcher());
    in_time(queue.shutdown(LIMIT)).await.unwrap();
    assert!(matches!(in_time(queue.submit(double::task(1))).await, Err(Error::ShuttingDown)));
    assert!(matches!(in_time(handle).await, Err(Error::ShuttingDown)));
    assert!(matches!(in_time(queue.record(id)).await, Err(Error::ShuttingDown)));
    assert!(matches!(in_time(queue.cancel(id)).await, Err(Error::ShuttingDown)));
    assert!(matches!(in_time(queue.counts()).await, Err(Error::ShuttingDown)));
    let backup = world.place.path().join("backup");
    assert!(in_time(queue.backup(backup)).await.is_err());
    assert!(in_time(dispatcher.send(Submit::new(double::task(1)))).await.is_err());
}

#[actix::test]
async fn a_busy_queue_ends_consistently() {
    let world = World::new();
    let queue = start(world.builder().shards(2)).await;
    let mailbox = Received::new();
    let guard = in_time(queue.subscribe_all(mailbox.recipient())).await.unwrap();
    let mut submitted = 0;
    for _ in 0..5 {
        let handles = in_time(queue.submit_all((0..1_000).map(double::task))).await.unwrap();
        submitted += handles.len() as u64;
    }
    let report = in_time(queue.shutdown(LIMIT)).await.unwrap();
    assert!(report.left_behind.is_empty() && report.unclosed.is_empty(), "{report:?}");
    assert_eq!(report.undelivered, 0);
    drop((guard, queue));
    let queue = world.start().await;
    assert_eq!(queue.recovery(), message_queue_sqlite::Recovery::default());
    in_time(async {
        loop {
            let counts = queue.counts().await.unwrap();
            assert_eq!(counts.values().sum::<u64>(), submitted);
            let over = |status| counts.get(&status).copied().unwrap_or(0);
            if over(TaskStatus::Callbacked) + over(TaskStatus::Finished) == submitted {
                assert_eq!(over(TaskStatus::Callbacked), submitted - report.waiting);
                break;
            }
        }
    })
    .await;
    end(queue).await;
}
