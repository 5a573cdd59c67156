//! What becomes of a task that doesn't end well at once.

use message_queue_sqlite::RedriveOutcome;
use message_queue_sqlite::prelude::*;

use crate::tasks::{deaf, double, fatal, flaky, gated_blocking, mendable, panicking};
use crate::world::{World, end, in_time, standing_clock, start, until_record, until_status};

mod own {
    use message_queue_sqlite::prelude::*;

    use crate::probe::Probe;

    pub(super) const PATH: &str = module_path!();
    pub(super) const HOUR: Duration = Duration::from_secs(3_600);

    #[task(name = "own.always", backoff = "1h..1h", max_attempts = 3)]
    pub(super) async fn always(probe: Data<Probe>) -> Result<(), std::io::Error> {
        probe.note("always");
        Err(std::io::Error::other("no such luck"))
    }

    /// Says in its first attempt when it wants the next one.
    #[task(name = "own.wishes")]
    pub(super) async fn wishes(snooze: bool, ctx: TaskContext) -> Result<u32, TaskError> {
        match (ctx.claim_no(), snooze) {
            (1, true) => Err(TaskError::snooze(HOUR)),
            (1, false) => Err(TaskError::retry_in(HOUR, "in an hour")),
            _ => Ok(ctx.failures()),
        }
    }

    #[task(name = "own.thread", blocking)]
    pub(super) fn thread() -> Result<String, TaskError> {
        Ok(std::thread::current().name().unwrap_or_default().to_string())
    }

    #[task(name = "own.blocking.panic", blocking, max_attempts = 1)]
    pub(super) fn blocking_panic() -> Result<(), TaskError> {
        panic!("out of {}", "luck")
    }

    /// Panics when its future is dropped after the timeout.
    #[task(name = "own.drops.badly", max_attempts = 1, timeout = "1ms")]
    pub(super) async fn drops_badly() -> Result<(), TaskError> {
        struct Bad;
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let _bad = Bad;
        std::future::pending().await
    }

    #[task(name = "own.large", max_attempts = 5)]
    pub(super) async fn large(bytes: usize) -> Result<Vec<u8>, TaskError> {
        Ok(vec![0; bytes])
    }
}

#[actix::test]
async fn a_failing_task_is_tried_again_until_it_succeeds() {
    let world = World::new();
    let queue = world.start().await;
    let handle = in_time(queue.submit(flaky::task(2))).await.unwrap();
    let id = handle.id();
    assert_eq!(in_time(handle).await.unwrap(), 2);
    let record = queue.record(id).await.unwrap();
    assert_eq!((record.counters.failures, record.counters.claim_no), (2, 3));
    assert_eq!((record.outcome, record.counters.crashes), (Some(Outcome::Finished), 0));
    end(queue).await;
}

#[actix::test]
async fn the_last_allowed_failure_ends_a_task_with_its_text_and_counters() {
    let world = World::new();
    let queue = world.start().await;
    let handle = in_time(queue.submit(flaky::task(9).max_attempts(3))).await.unwrap();
    let id = handle.id();
    let failed = in_time(handle).await.unwrap_err();
    let Error::TaskFailed { id: of, name, kind, message } = failed else { panic!("{failed}") };
    assert_eq!((of, &*name, kind, &*message), (id, "flaky", FailureKind::Error, "not yet"));
    let record = queue.record(id).await.unwrap();
    assert_eq!((record.counters.failures, record.counters.claim_no), (3, 3));
    assert_eq!((record.status, record.delivery), (TaskStatus::Failed, Delivery::None));
    assert_eq!(world.probe.count("flaky"), 3);
    end(queue).await;
}

#[actix::test]
async fn a_retry_waits_for_its_backoff() {
    let world = World::new();
    let (clock, now) = standing_clock();
    let queue = start(world.builder().discover(own::PATH).clock(clock.clone())).await;
    let handle = in_time(queue.submit(own::always::task())).await.unwrap();
    let failed = |failures| {
        move |record: &message_queue_sqlite::TaskRecord| {
            record.counters.failures == failures && record.status != TaskStatus::Running
        }
    };
    let record = until_record(&queue, handle.id(), failed(1)).await;
    assert_eq!(record.status, TaskStatus::NotStarted);
    let due = record.due_at.unwrap();
    assert!(due > now && due <= now.saturating_add(own::HOUR), "{due:?}");
    assert_eq!(record.error.unwrap().message, "no such luck");
    for failures in 2..=3 {
        clock.advance(own::HOUR);
        in_time(in_time(queue.submit(double::task(0))).await.unwrap()).await.unwrap();
        until_record(&queue, handle.id(), failed(failures)).await;
    }
    in_time(handle).await.unwrap_err();
    assert_eq!(world.probe.count("always"), 3);
    end(queue).await;
}

#[actix::test]
async fn a_fatal_error_is_not_tried_again() {
    let world = World::new();
    let queue = world.start().await;
    let handle = in_time(queue.submit(fatal::task("for ever".into()))).await.unwrap();
    let failed = in_time(handle).await.unwrap_err();
    assert!(matches!(failed, Error::TaskFailed { kind: FailureKind::Fatal, .. }), "{failed:?}");
    assert_eq!(world.probe.log(), ["fatal"]);
    end(queue).await;
}

#[actix::test]
async fn a_task_says_when_it_wants_to_be_tried_again_and_a_snooze_is_no_failure() {
    let world = World::new();
    let (clock, now) = standing_clock();
    let queue = start(world.builder().discover(own::PATH).clock(clock.clone())).await;
    let retried = in_time(queue.submit(own::wishes::task(false))).await.unwrap();
    // with one attempt allowed, a failure would end it
    let snoozed = own::wishes::task(true).max_attempts(1);
    let snoozed = in_time(queue.submit(snoozed)).await.unwrap();
    for (handle, failures) in [(&retried, 1), (&snoozed, 0)] {
        let waits = |record: &message_queue_sqlite::TaskRecord| record.due_at.is_some();
        let record = until_record(&queue, handle.id(), waits).await;
        assert_eq!(record.due_at, Some(now.saturating_add(own::HOUR)));
        assert_eq!(record.counters.failures, failures);
    }
    clock.advance(own::HOUR);
    in_time(in_time(queue.submit(double::task(0))).await.unwrap()).await.unwrap();
    assert_eq!(in_time(retried).await.unwrap(), 1);
    assert_eq!(in_time(snoozed).await.unwrap(), 0);
    end(queue).await;
}

#[actix::test]
async fn a_panic_is_recorded_with_its_message_and_place() {
    let world = World::new();
    let queue = start(world.builder().discover(own::PATH)).await;
    let tasks = [
        (
            in_time(queue.submit(panicking::task("boom".into()))).await.unwrap().id(),
            "boom",
            "tasks.rs:",
        ),
        (
            in_time(queue.submit(own::blocking_panic::task())).await.unwrap().id(),
            "out of luck",
            "lifecycle.rs:",
        ),
    ];
    for (id, message, place) in tasks {
        let record = until_status(&queue, id, TaskStatus::Failed).await;
        let error = record.error.unwrap();
        assert_eq!(error.kind, FailureKind::Panicked);
        assert!(error.message.contains(message) && error.message.contains(place), "{error}");
    }
    // neither worker nor pool has lost a thread
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    in_time(in_time(queue.submit(own::thread::task())).await.unwrap()).await.unwrap();
    end(queue).await;
}

#[actix::test]
async fn a_future_that_panics_when_it_is_dropped_harms_nobody() {
    let world = World::new();
    let queue = start(world.builder().discover(own::PATH)).await;
    let handle = in_time(queue.submit(own::drops_badly::task())).await.unwrap();
    let failed = in_time(handle).await.unwrap_err();
    assert!(matches!(failed, Error::TaskFailed { kind: FailureKind::TimedOut, .. }), "{failed:?}");
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    end(queue).await;
}

#[actix::test]
async fn blocking_tasks_run_on_threads_of_their_own() {
    let world = World::new();
    let queue = start(world.builder_with(world.narrow()).discover(own::PATH)).await;
    let name = in_time(in_time(queue.submit(own::thread::task())).await.unwrap()).await.unwrap();
    assert!(name.starts_with("mqs-blocking"), "{name}");
    end(queue).await;
}

#[actix::test]
async fn blocking_tasks_run_at_the_same_time_up_to_the_limit_of_threads() {
    let world = World::new();
    let mut settings = world.settings();
    settings.workers.blocking_threads = 3;
    let queue = start(world.builder_with(settings)).await;
    let tasks = [(); 4].map(|()| gated_blocking::task("one".into()));
    let handles = in_time(queue.submit_all(tasks)).await.unwrap();
    world.probe.until("one started", 3).await;
    world.probe.open(1);
    world.probe.until("one started", 4).await;
    // the fourth had to wait for a thread
    assert_eq!(world.probe.log()[3], "one passed");
    world.probe.open(3);
    for handle in handles {
        in_time(handle).await.unwrap();
    }
    end(queue).await;
}

#[actix::test]
async fn a_result_over_the_limit_fails_the_task_at_once() {
    let world = World::new();
    let mut settings = world.settings();
    settings.limits.result = 1_000;
    let queue = start(world.builder_with(settings).discover(own::PATH)).await;
    let fits = in_time(queue.submit(own::large::task(900))).await.unwrap();
    let large = in_time(queue.submit(own::large::task(1_000))).await.unwrap();
    assert_eq!(in_time(fits).await.unwrap().len(), 900);
    let id = large.id();
    let failed = in_time(large).await.unwrap_err();
    assert!(
        matches!(failed, Error::TaskFailed { kind: FailureKind::ResultTooLarge, .. }),
        "{failed:?}"
    );
    assert_eq!(queue.record(id).await.unwrap().counters.failures, 1);
    end(queue).await;
}

#[actix::test]
async fn a_dead_task_is_redriven_as_if_it_were_new() {
    let world = World::new();
    let queue = world.start().await;
    let handle = in_time(queue.submit(mendable::task())).await.unwrap();
    let id = handle.id();
    in_time(handle).await.unwrap_err();
    world.probe.note("mended");
    assert_eq!(in_time(queue.redrive(id)).await.unwrap(), RedriveOutcome::Redriven);
    assert_eq!(in_time(queue.handle::<mendable::Task>(id)).await.unwrap(), 7);
    let record = queue.record(id).await.unwrap();
    // its claims go on being counted: they are the fence
    assert_eq!((record.counters.failures, record.counters.claim_no), (0, 2));
    assert_eq!(
        in_time(queue.redrive(id)).await.unwrap(),
        RedriveOutcome::NotDead(TaskStatus::Finished)
    );
    let unheard: TaskId = "0-999999999".parse().unwrap();
    assert_eq!(in_time(queue.redrive(unheard)).await.unwrap(), RedriveOutcome::NotFound);
    let elsewhere: TaskId = "77-1".parse().unwrap();
    assert_eq!(in_time(queue.redrive(elsewhere)).await.unwrap(), RedriveOutcome::NotFound);
    end(queue).await;
}

#[actix::test]
async fn a_dead_callback_is_redriven_and_its_task_is_callbacked_then() {
    let world = World::new();
    let queue = world.start().await;
    let handle = in_time(queue.submit(double::task(1).then(deaf::callback()))).await.unwrap();
    let dead =
        |record: &message_queue_sqlite::TaskRecord| matches!(record.delivery, Delivery::Dead(_));
    until_record(&queue, handle.id(), dead).await;
    assert_eq!(world.probe.count("deaf"), 2);
    let list = ListTasks { name: Some("deaf".into()), ..ListTasks::default() };
    let page = in_time(queue.list(list)).await.unwrap();
    let [callback] = &page.tasks[..] else { panic!("{page:?}") };
    assert_eq!((callback.parent, callback.status), (Some(handle.id()), TaskStatus::Failed));
    world.probe.note("mended");
    let redriven = in_time(queue.redrive(callback.id)).await.unwrap();
    assert_eq!(redriven, RedriveOutcome::Redriven);
    let record = until_status(&queue, handle.id(), TaskStatus::Callbacked).await;
    assert_eq!((record.outcome, record.delivery), (Some(Outcome::Finished), Delivery::Callbacked));
    end(queue).await;
}
