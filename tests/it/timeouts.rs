//! Attempts that take too long.

use message_queue_sqlite::prelude::*;

use crate::probe::Probe;
use crate::tasks::{gated, log};
use crate::world::{World, end, in_time, start};

mod own {
    use super::*;

    pub(super) const PATH: &str = module_path!();

    /// Takes longer than it may, notices, and goes on all the same until the gate opens. Succeeds
    /// in its second attempt.
    #[task(name = "own.stubborn", blocking, timeout = "5ms", backoff = "0ms..1ms")]
    pub(super) fn stubborn(probe: Data<Probe>, ctx: TaskContext) -> Result<u32, TaskError> {
        probe.note("stubborn started");
        if ctx.failures() > 0 {
            return Ok(ctx.failures());
        }
        while !ctx.is_cancelled() {
            std::thread::yield_now();
        }
        probe.note("stubborn told");
        probe.pass_blocking();
        probe.note("stubborn returned");
        Ok(0)
    }
}

#[actix::test]
async fn an_async_attempt_past_its_timeout_is_dropped() {
    let world = World::new();
    let queue = world.start().await;
    let task = gated::task("slow".into()).timeout(Duration::from_millis(5)).max_attempts(1);
    let handle = in_time(queue.submit(task)).await.unwrap();
    let failed = in_time(handle).await.unwrap_err();
    assert!(matches!(failed, Error::TaskFailed { kind: FailureKind::TimedOut, .. }), "{failed:?}");
    assert_eq!(world.probe.log(), ["slow started", "slow left"]);
    end(queue).await;
}

#[actix::test]
async fn a_timeout_is_a_failure_that_is_tried_again() {
    let world = World::new();
    let queue = world.start().await;
    let backoff = (Duration::ZERO, Duration::from_millis(1));
    let task = gated::task("slow".into()).timeout(Duration::from_millis(5)).max_attempts(3);
    let handle = in_time(queue.submit(task.backoff(backoff.0, backoff.1))).await.unwrap();
    let id = handle.id();
    in_time(handle).await.unwrap_err();
    assert_eq!(queue.record(id).await.unwrap().counters.failures, 3);
    assert_eq!(world.probe.count("slow left"), 3);
    end(queue).await;
}

#[actix::test]
async fn the_definitions_timeout_and_the_queues_apply_where_nothing_else_is_said() {
    let world = World::new();
    let mut settings = world.settings();
    settings.tasks.timeout = Some(Duration::from_millis(5));
    settings.tasks.max_attempts = 1;
    let queue = start(world.builder_with(settings)).await;
    let handle = in_time(queue.submit(gated::task("slow".into()))).await.unwrap();
    let failed = in_time(handle).await.unwrap_err();
    assert!(matches!(failed, Error::TaskFailed { kind: FailureKind::TimedOut, .. }), "{failed:?}");
    let patient = gated::task("patient".into()).timeout(Duration::from_secs(3_600));
    let patient = in_time(queue.submit(patient)).await.unwrap();
    world.probe.until("patient started", 1).await;
    world.probe.open(1);
    assert_eq!(in_time(patient).await.unwrap(), "patient");
    end(queue).await;
}

#[actix::test]
async fn an_overdue_blocking_attempt_keeps_its_slot_and_no_retry_starts_before_it_returns() {
    let world = World::new();
    let queue = start(world.builder_with(world.narrow()).discover(own::PATH)).await;
    let overdue = in_time(queue.submit(own::stubborn::task())).await.unwrap();
    // its token was set when its time was over
    world.probe.until("stubborn told", 1).await;
    let behind = in_time(queue.submit(log::task("behind".into()))).await.unwrap();
    assert_eq!(overdue.status().await.unwrap(), TaskStatus::Running);
    assert_eq!(behind.status().await.unwrap(), TaskStatus::NotStarted);
    world.probe.open(1);
    let id = overdue.id();
    assert_eq!(in_time(overdue).await.unwrap(), 1);
    in_time(behind).await.unwrap();
    let log = world.probe.log();
    let returned = world.probe.position("stubborn returned");
    assert!(world.probe.position("behind") > returned, "{log:?}");
    let again = log.iter().rposition(|line| line == "stubborn started").unwrap();
    assert!(again > returned, "{log:?}");
    // what it returned came too late: it counts as timed out
    let record = queue.record(id).await.unwrap();
    assert_eq!((record.counters.failures, record.counters.claim_no), (1, 2));
    assert_eq!(record.error.unwrap().kind, FailureKind::TimedOut);
    end(queue).await;
}
