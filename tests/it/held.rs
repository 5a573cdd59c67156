//! Tasks that hold what others need: a worker's thread, or its slots.

use std::time::Instant;

use message_queue_sqlite::prelude::*;

use crate::probe::Probe;
use crate::tasks::{double, gated, gated_blocking};
use crate::world::{World, end, in_time, standing_clock, start, until_record};

mod own {
    use super::*;

    pub(super) const PATH: &str = module_path!();

    /// Holds the thread: for a moment, or until the gate opens. A late one has given it back
    /// once before.
    #[task(name = "own.hold")]
    pub(super) async fn hold(gated: bool, late: bool, probe: Data<Probe>) -> Result<(), TaskError> {
        if late {
            tokio::task::yield_now().await;
        }
        if gated {
            probe.note("held");
            probe.pass_blocking();
            return Ok(());
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(5) {
            std::hint::spin_loop();
        }
        Ok(())
    }
}

/// A queue with one thread for async tasks.
async fn one_worker(world: &World) -> Queue {
    let mut settings = world.settings();
    settings.workers.count = Some(1);
    start(world.builder_with(settings).discover(own::PATH)).await
}

#[actix::test]
async fn the_result_of_an_attempt_does_not_wait_for_one_that_holds_the_thread() {
    for late in [false, true] {
        let world = World::new();
        let queue = one_worker(&world).await;
        // submitted together, so that the worker gets them together
        let tasks = [false, false, true].map(|gated| own::hold::task(gated, late));
        let handles = in_time(queue.submit_all(tasks)).await.unwrap();
        let [first, second, gated] = handles.try_into().unwrap();
        world.probe.until("held", 1).await;
        in_time(first).await.unwrap();
        in_time(second).await.unwrap();
        assert_eq!(gated.status().await.unwrap(), TaskStatus::Running);
        world.probe.open(1);
        in_time(gated).await.unwrap();
        end(queue).await;
    }
}

#[actix::test]
async fn attempts_that_hold_their_threads_past_the_deadline_are_named_and_all_is_given_back() {
    let world = World::new();
    let queue = start(world.builder().discover(own::PATH)).await;
    // on each thread one that waits, one that holds the thread, and one that never starts
    let mut ids = Vec::new();
    for tag in ["one", "two"] {
        ids.push(in_time(queue.submit(gated::task(tag.into()))).await.unwrap().id());
        world.probe.until(&format!("{tag} started"), 1).await;
    }
    let mut held = Vec::new();
    for (number, late) in [(1, false), (2, true)] {
        let id = in_time(queue.submit(own::hold::task(true, late))).await.unwrap().id();
        world.probe.until("held", number).await;
        held.push((id, "own.hold".to_string()));
        ids.push(id);
    }
    let behind = in_time(queue.submit_all([1, 2].map(double::task))).await.unwrap();
    ids.extend(behind.iter().map(|handle| handle.id()));

    let mut report = in_time(queue.shutdown(Duration::from_millis(1))).await.unwrap();
    report.left_behind.sort();
    assert_eq!(report.left_behind, held);
    assert_eq!((report.released, report.waiting), (6, 6));
    assert!(report.unclosed.is_empty(), "{report:?}");
    drop(queue);

    let queue = start(world.builder().discover(own::PATH)).await;
    // the first attempts of the two still stand at the gate
    world.probe.until("held", 4).await;
    world.probe.open(6);
    for id in ids {
        let record = until_record(&queue, id, |record| record.status.is_ended()).await;
        assert_eq!(record.outcome, Some(Outcome::Finished), "{record:?}");
        let counters = record.counters;
        assert_eq!((counters.failures, counters.crashes, counters.claim_no), (0, 0, 2));
    }
    end(queue).await;
}

#[actix::test]
async fn quick_async_tasks_run_while_blocking_ones_have_all_slots() {
    let world = World::new();
    let mut settings = world.narrow();
    settings.workers.prefetch = 8;
    // under a clock that stands, an attempt that has ended took no time
    let queue = start(world.builder_with(settings).clock(standing_clock().0)).await;
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    let blocking = in_time(queue.submit(gated_blocking::task("first".into()))).await.unwrap();
    world.probe.until("first started", 1).await;
    for number in 2..4 {
        let quick = in_time(queue.submit(double::task(number))).await.unwrap();
        assert_eq!(in_time(quick).await.unwrap(), 2 * number);
    }
    world.probe.open(1);
    in_time(blocking).await.unwrap();
    end(queue).await;
}
