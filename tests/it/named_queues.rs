//! Named queues: limits, pauses, and what they leave alone.

use std::task::Poll;

use message_queue_sqlite::StartError;
use message_queue_sqlite::prelude::*;

use crate::probe::Probe;
use crate::tasks::{double, flaky, gated};
use crate::world::{World, count, end, in_time, standing_clock, start, until_count, until_record};

mod own {
    use super::*;

    pub(super) const PATH: &str = module_path!();

    #[task(name = "own.mail", queue = "mail")]
    pub(super) async fn mail(number: u64) -> Result<u64, TaskError> {
        Ok(number)
    }

    /// Holds its thread until the gate opens, or is over at once.
    #[task(name = "own.post", queue = "mail")]
    pub(super) async fn post(gated: bool, probe: Data<Probe>) -> Result<(), TaskError> {
        probe.note("posting");
        if gated {
            probe.pass_blocking();
        }
        Ok(())
    }

    #[callback(name = "own.sent", queue = "mail")]
    pub(super) async fn sent(_: TaskResult, probe: Data<Probe>) -> Result<(), TaskError> {
        probe.note("sent");
        Ok(())
    }
}

async fn own(world: &World) -> Queue {
    start(world.builder().discover(own::PATH)).await
}

#[actix::test]
async fn a_task_is_in_the_queue_that_its_submission_or_definition_names() {
    let world = World::new();
    let queue = own(&world).await;
    let mail = in_time(queue.submit(own::mail::task(1))).await.unwrap();
    let report = in_time(queue.submit(own::mail::task(1).queue("reports"))).await.unwrap();
    let plain = in_time(queue.submit(double::task(1))).await.unwrap();
    for (id, expected) in [(mail.id(), "mail"), (report.id(), "reports"), (plain.id(), "default")] {
        let record = until_record(&queue, id, |record| record.status.is_ended()).await;
        assert_eq!(&*record.queue, expected);
    }
    let names: Vec<String> = queue.named_queues().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["default", "mail", "reports"]);
    end(queue).await;
}

#[actix::test]
async fn a_paused_queue_accepts_and_starts_nothing_and_the_others_go_on() {
    let world = World::new();
    let queue = own(&world).await;
    assert!(in_time(queue.pause_queue("mail")).await.unwrap());
    assert!(!in_time(queue.pause_queue("mail")).await.unwrap(), "it is paused already");
    let mut mail = Vec::new();
    for number in 0..50 {
        mail.push(in_time(queue.submit(own::mail::task(number).priority(9))).await.unwrap());
        let other = in_time(queue.submit(double::task(number))).await.unwrap();
        assert_eq!(in_time(other).await.unwrap(), 2 * number);
    }
    assert_eq!(count(&queue, TaskStatus::NotStarted).await, 50);
    assert!(in_time(queue.resume_queue("mail")).await.unwrap());
    for (number, handle) in mail.into_iter().enumerate() {
        assert_eq!(in_time(handle).await.unwrap(), number as u64);
    }
    end(queue).await;
}

#[actix::test]
async fn a_pause_survives_restarts_until_it_is_over() {
    let world = World::new();
    let queue = own(&world).await;
    in_time(queue.pause_queue("mail")).await.unwrap();
    let id = in_time(queue.submit(own::mail::task(7))).await.unwrap().id();
    // as a crash
    drop(queue);
    for _ in 0..2 {
        let queue = world.start_again(|| world.builder().discover(own::PATH)).await;
        let mail = queue.named_queues().into_iter().find(|one| one.name == "mail").unwrap();
        assert!(mail.paused);
        in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
        assert_eq!(queue.status(id).await.unwrap(), TaskStatus::NotStarted);
        end(queue).await;
    }
    let queue = own(&world).await;
    assert!(in_time(queue.resume_queue("mail")).await.unwrap());
    assert_eq!(in_time(queue.handle::<own::mail::Task>(id)).await.unwrap(), 7);
    end(queue).await;
    let queue = own(&world).await;
    assert!(queue.named_queues().iter().all(|one| !one.paused));
    end(queue).await;
}

#[actix::test]
async fn what_waits_in_a_worker_when_its_queue_is_paused_is_given_back_at_no_cost() {
    let world = World::new();
    let mut settings = world.narrow();
    settings.workers.prefetch = 8;
    // under a clock that stands an attempt that has ended took no time, so some are claimed ahead
    let builder = world.builder_with(settings).discover(own::PATH).clock(standing_clock().0);
    let queue = start(builder).await;
    in_time(in_time(queue.submit(own::post::task(false))).await.unwrap()).await.unwrap();
    let gated = [true, false, false, false].map(own::post::task);
    let mut handles = in_time(queue.submit_all(gated)).await.unwrap();
    world.probe.until("posting", 2).await;
    let held = handles.remove(0);
    until_count(&queue, TaskStatus::Running, 4).await;
    in_time(queue.pause_queue("mail")).await.unwrap();
    world.probe.open(1);
    in_time(held).await.unwrap();
    until_count(&queue, TaskStatus::Running, 0).await;
    assert_eq!(world.probe.count("posting"), 2);
    for handle in &handles {
        let record = queue.record(handle.id()).await.unwrap();
        assert_eq!(record.status, TaskStatus::NotStarted);
        assert_eq!((record.counters.failures, record.counters.crashes), (0, 0));
    }
    in_time(queue.resume_queue("mail")).await.unwrap();
    for handle in handles {
        in_time(handle).await.unwrap();
    }
    end(queue).await;
}

#[actix::test]
async fn no_more_tasks_of_a_limited_queue_run_at_a_time_than_it_says_over_all_shards() {
    let world = World::new();
    let builder = || world.builder().shards(2).queue_concurrency("narrow", 2);
    let queue = start(builder()).await;
    let mut handles = Vec::new();
    for _ in 0..20 {
        let task = gated::task("n".into()).queue("narrow");
        handles.push(in_time(queue.submit(task)).await.unwrap());
    }
    for done in 0..20 {
        // never more than two have started beyond those that are over
        world.probe.until("n started", (done + 2).min(20)).await;
        in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
        assert_eq!(world.probe.count("n started"), (done + 2).min(20));
        // the end of the last one that is over may not be stored yet
        until_count(&queue, TaskStatus::Running, (20 - done).min(2) as u64).await;
        world.probe.open(1);
        world.probe.until("n passed", done + 1).await;
    }
    for handle in handles {
        in_time(handle).await.unwrap();
    }
    end(queue).await;
}

#[actix::test]
async fn a_limit_that_is_raised_lets_more_run_at_once_and_is_kept() {
    let world = World::new();
    let queue = own(&world).await;
    in_time(queue.limit_queue("narrow", Some(1))).await.unwrap();
    let tasks = (0..4).map(|_| gated::task("n".into()).queue("narrow"));
    let handles = in_time(queue.submit_all(tasks)).await.unwrap();
    world.probe.until("n started", 1).await;
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    assert_eq!(world.probe.count("n started"), 1);
    in_time(queue.limit_queue("narrow", Some(3))).await.unwrap();
    world.probe.until("n started", 3).await;
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    assert_eq!(world.probe.count("n started"), 3);
    world.probe.open(4);
    for handle in handles {
        in_time(handle).await.unwrap();
    }
    end(queue).await;
    let limit = |queue: &Queue| {
        let narrow = queue.named_queues().into_iter().find(|one| one.name == "narrow");
        narrow.and_then(|one| one.concurrency)
    };
    let queue = own(&world).await;
    assert_eq!(limit(&queue), Some(3));
    in_time(queue.limit_queue("narrow", None)).await.unwrap();
    end(queue).await;
    let queue = start(world.builder().queue_concurrency("narrow", 5)).await;
    assert_eq!(limit(&queue), Some(5), "the builder's word, with nothing stored");
    end(queue).await;
}

#[actix::test]
async fn attempts_that_began_without_a_limit_count_in_one_that_is_set_while_they_run() {
    let world = World::new();
    let queue = own(&world).await;
    let submit = || queue.submit(gated::task("n".into()).queue("narrow"));
    let mut handles = Vec::new();
    for number in 1..=3 {
        handles.push(in_time(submit()).await.unwrap());
        world.probe.until("n started", number).await;
    }
    for limit in [Some(2), None, Some(2)] {
        in_time(queue.limit_queue("narrow", limit)).await.unwrap();
    }
    for _ in 0..3 {
        handles.push(in_time(submit()).await.unwrap());
    }
    // three run, then two: no other begins before one runs
    for (passed, started) in [(0, 3), (1, 3), (2, 4), (3, 5), (4, 6)] {
        world.probe.until("n passed", passed).await;
        // and as many of the other queue
        until_count(&queue, TaskStatus::Finished, 2 * passed as u64).await;
        world.probe.until("n started", started).await;
        in_time(in_time(queue.submit(double::task(1).queue("other"))).await.unwrap())
            .await
            .unwrap();
        assert_eq!(world.probe.count("n started"), started);
        world.probe.open(1);
    }
    world.probe.open(1);
    for handle in handles {
        in_time(handle).await.unwrap();
    }
    end(queue).await;
}

#[actix::test]
async fn what_waits_in_a_worker_when_its_queue_is_limited_to_fewer_is_given_back_at_no_cost() {
    let world = World::new();
    let mut settings = world.narrow();
    (settings.workers.concurrency, settings.workers.prefetch) = (2, 8);
    // under a clock that stands an attempt that has ended took no time, so some are claimed ahead
    let queue = start(world.builder_with(settings).clock(standing_clock().0)).await;
    let task = || gated::task("n".into()).queue("narrow");
    world.probe.open(1);
    in_time(in_time(queue.submit(task())).await.unwrap()).await.unwrap();
    let handles = in_time(queue.submit_all((0..4).map(|_| task()))).await.unwrap();
    until_count(&queue, TaskStatus::Running, 4).await;
    world.probe.until("n started", 3).await;
    in_time(queue.limit_queue("narrow", Some(1))).await.unwrap();
    // one ends, the other runs on, and the two behind them go back
    world.probe.open(1);
    until_count(&queue, TaskStatus::Running, 1).await;
    assert_eq!(world.probe.count("n started"), 3);
    world.probe.open(1);
    world.probe.until("n started", 4).await;
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    assert_eq!(world.probe.count("n started"), 4);
    world.probe.open(2);
    for handle in handles {
        in_time(handle.clone()).await.unwrap();
        let counters = queue.record(handle.id()).await.unwrap().counters;
        assert_eq!((counters.failures, counters.crashes), (0, 0));
    }
    end(queue).await;
}

/// Begins something and gives it up.
async fn begin(future: impl Future) {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        drop(future.as_mut().poll(context));
        Poll::Ready(())
    })
    .await;
}

#[actix::test]
async fn what_was_begun_with_a_queue_is_done_though_nobody_waits_for_it() {
    let world = World::new();
    let queue = own(&world).await;
    begin(queue.pause_queue("mail")).await;
    assert!(!in_time(queue.pause_queue("mail")).await.unwrap(), "it is paused already");
    let mail = in_time(queue.submit(own::mail::task(7))).await.unwrap();
    begin(queue.resume_queue("mail")).await;
    assert_eq!(in_time(mail).await.unwrap(), 7);
    begin(queue.limit_queue("narrow", Some(1))).await;
    assert!(!in_time(queue.resume_queue("mail")).await.unwrap(), "it is resumed already");
    let tasks = (0..2).map(|_| gated::task("n".into()).queue("narrow"));
    let handles = in_time(queue.submit_all(tasks)).await.unwrap();
    until_count(&queue, TaskStatus::Running, 1).await;
    begin(queue.limit_queue("narrow", None)).await;
    world.probe.until("n started", 2).await;
    world.probe.open(2);
    for handle in handles {
        in_time(handle).await.unwrap();
    }
    end(queue).await;
    let queue = own(&world).await;
    assert!(queue.named_queues().iter().all(|one| !one.paused && one.concurrency.is_none()));
    end(queue).await;
}

#[actix::test]
async fn a_retry_in_a_limited_queue_finds_its_place_again() {
    let world = World::new();
    let queue = start(world.builder().queue_concurrency("narrow", 1)).await;
    let mut handles = Vec::new();
    for _ in 0..10 {
        handles.push(in_time(queue.submit(flaky::task(3).queue("narrow"))).await.unwrap());
    }
    for handle in handles {
        assert_eq!(in_time(handle).await.unwrap(), 3);
    }
    end(queue).await;
}

#[actix::test]
async fn a_callback_is_in_the_queue_of_its_definition() {
    let world = World::new();
    let queue = own(&world).await;
    in_time(queue.pause_queue("mail")).await.unwrap();
    let parent = double::task(1).then(own::sent::callback());
    let parent = in_time(queue.submit(parent)).await.unwrap();
    let open = |record: &message_queue_sqlite::TaskRecord| record.delivery == Delivery::Callbacking;
    until_record(&queue, parent.id(), open).await;
    assert_eq!(world.probe.count("sent"), 0);
    in_time(queue.resume_queue("mail")).await.unwrap();
    world.probe.until("sent", 1).await;
    end(queue).await;
}

#[actix::test]
async fn names_and_limits_that_cannot_be_are_refused() {
    let world = World::new();
    let queue = own(&world).await;
    let refused = in_time(queue.submit(double::task(1).queue("No Queue"))).await.unwrap_err();
    assert!(matches!(refused, Error::InvalidName { name } if name == "No Queue"));
    let refused = in_time(queue.pause_queue("")).await.unwrap_err();
    assert!(matches!(refused, Error::InvalidName { .. }));
    let refused = in_time(queue.limit_queue("mail", Some(0))).await.unwrap_err();
    assert!(matches!(refused, Error::InvalidOption { option: "concurrency", .. }));
    for number in 0..998 {
        queue.submit(double::task(1).queue(format!("q{number}"))).await.unwrap();
    }
    let refused = in_time(queue.submit(double::task(1).queue("one-more"))).await.unwrap_err();
    assert!(matches!(refused, Error::InvalidOption { option: "queue", .. }), "{refused}");
    in_time(queue.submit(double::task(1).queue("q7"))).await.unwrap();
    end(queue).await;
    let builder = world.builder().queue_concurrency("Mail", 1).queue_concurrency("mail", 0);
    let Err(Error::Start { reasons }) = builder.start().await else { panic!("it starts") };
    assert!(matches!(
        &reasons[..],
        [StartError::InvalidName { .. }, StartError::InvalidOption { .. }]
    ));
}
