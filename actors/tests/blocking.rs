//! Attempts on the pool's threads.

use super::*;
use crate::clock::{Clock, Timestamp};

#[task(name = "blocking.double", blocking)]
fn double_blocking(number: u64) -> Result<u64, TaskError> {
    Ok(number * 2)
}

#[actix::test]
async fn a_blocking_attempt_for_which_no_thread_starts_is_put_off_and_tried_again() {
    let world = start(Clock::system(), |_| {}).await;
    world.shared().pool.fail_to_start(1);
    let handle = world.queue.submit(double_blocking::task(4)).await.unwrap();
    let output = timeout(Duration::from_secs(30), handle.clone().into_future()).await;
    assert_eq!(output.expect("the task ends").unwrap(), 8);
    let counters = handle.record().await.unwrap().counters;
    assert_eq!((counters.failures, counters.claim_no), (0, 2));
}

#[task(name = "blocking.gated", blocking, timeout = "1h")]
fn gated_blocking(gate: Data<Arc<Gate>>) -> Result<(), TaskError> {
    gate.runs.fetch_add(1, Ordering::SeqCst);
    while gate.open.try_acquire().is_err() {
        std::thread::yield_now();
    }
    Ok(())
}

/// A queue with both of them.
async fn start(clock: Clock, adapt: impl FnOnce(&mut Settings)) -> World {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate { runs: AtomicUsize::new(0), open: Semaphore::new(0) });
    let mut settings = Settings::default();
    settings.storage.dir = dir.path().join("queue");
    adapt(&mut settings);
    let builder = Queue::builder().settings(settings).data(gate.clone()).clock(clock);
    let builder = builder.register::<gated_blocking::Task>().register::<double_blocking::Task>();
    World { _dir: dir, queue: builder.start().await.unwrap(), gate }
}

#[actix::test]
async fn nothing_watches_the_time_of_a_blocking_attempt_that_is_over() {
    let world = start(Clock::system(), |_| {}).await;
    let handle = world.queue.submit(gated_blocking::task()).await.unwrap();
    world.until("it runs", |world| world.gate.runs.load(Ordering::SeqCst) == 1).await;
    let attempts = world.shared().shards[0].attempts().values().cloned().collect::<Vec<_>>();
    let [attempt] = attempts.try_into().unwrap();
    assert_eq!(Arc::weak_count(&attempt), 1, "its time is watched while it runs");
    world.gate.open.add_permits(1);
    timeout(Duration::from_secs(30), handle.into_future()).await.unwrap().unwrap();
    world.until("nobody watches", |_| Arc::weak_count(&attempt) == 0).await;
}

#[actix::test]
async fn blocking_tasks_are_claimed_ahead_only_if_they_have_a_thread_soon() {
    // under a clock that stands, an attempt that has ended took no time
    let clock = Clock::manual(Timestamp::from_micros(1_800_000_000_000_000));
    let narrow = |settings: &mut Settings| {
        (settings.workers.count, settings.workers.concurrency) = (Some(1), 1);
        settings.workers.blocking_threads = 2;
    };
    let world = start(clock, narrow).await;
    let double = |number| world.queue.submit(double_blocking::task(number));
    double(1).await.unwrap().into_future().await.unwrap();
    let gated = world.queue.submit(gated_blocking::task()).await.unwrap();
    world.until("it has the slot", |world| world.gate.runs.load(Ordering::SeqCst) == 1).await;
    assert_eq!(double(2).await.unwrap().into_future().await.unwrap(), 4);

    // as if other shards had claimed so many
    world.shared().pool.add_claimed(1_000_000, 1_000_000_000_000_000);
    let waits = double(3).await.unwrap();
    assert_eq!(waits.status().await.unwrap(), TaskStatus::NotStarted);
    world.shared().pool.remove_claimed(1_000_000, 1_000_000_000_000_000);
    let next = double(4).await.unwrap();
    for (handle, output) in [(waits, 6), (next, 8)] {
        let ended = timeout(Duration::from_secs(30), handle.into_future()).await;
        assert_eq!(ended.expect("the task ends").unwrap(), output);
    }
    world.gate.open.add_permits(1);
    gated.into_future().await.unwrap();
    world.until("none is left", |world| world.shared().pool.claimed() == (0, 0)).await;
}
