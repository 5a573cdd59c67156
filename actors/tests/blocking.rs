//! Attempts on the pool's threads.

use super::*;
use crate::clock::{Clock, Timestamp};
#[cfg(feature = "proof")]
use crate::proof::{Panics, Point};

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

type Gated = TaskHandle<gated_blocking::Task>;

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

/// A queue with one thread for two blocking attempts of a named queue: one has it.
async fn one_that_waits_for_a_thread() -> (World, Gated, Gated) {
    let one_thread = |settings: &mut Settings| settings.workers.blocking_threads = 1;
    let world = start(Clock::system(), one_thread).await;
    let submit = || world.queue.submit(gated_blocking::task().queue("mail"));
    let first = submit().await.unwrap();
    world.until("it runs", |world| world.gate.runs.load(Ordering::SeqCst) == 1).await;
    let second = submit().await.unwrap();
    world.until("the other one waits", |world| world.shared().pool.waiting() == 1).await;
    (world, first, second)
}

#[actix::test]
async fn a_blocking_attempt_that_waits_for_a_thread_when_its_queue_is_paused_is_given_back() {
    let (world, first, second) = one_that_waits_for_a_thread().await;
    let paused = timeout(Duration::from_secs(30), world.queue.pause_queue("mail")).await;
    assert!(paused.expect("it waits for no thread").unwrap());
    world.until("it is given back", |world| world.shared().shards[0].attempts().len() == 1).await;
    assert_eq!(second.status().await.unwrap(), TaskStatus::NotStarted);
    assert_eq!(first.status().await.unwrap(), TaskStatus::Running);
    assert!(world.queue.resume_queue("mail").await.unwrap());
    world.gate.open.add_permits(1);
    for handle in [first, second] {
        timeout(Duration::from_secs(30), handle.into_future()).await.unwrap().unwrap();
    }
    assert_eq!(world.gate.runs.load(Ordering::SeqCst), 2);
}

#[actix::test]
async fn a_blocking_attempt_whose_queue_is_paused_is_given_back_when_it_gets_a_thread() {
    let (world, first, second) = one_that_waits_for_a_thread().await;
    let shared = world.shared();
    // as if it came to the pool after the pause had looked there
    assert!(shared.queues.set_paused(shared.queues.find("mail").unwrap(), true));
    world.gate.open.add_permits(1);
    timeout(Duration::from_secs(30), first.into_future()).await.unwrap().unwrap();
    world.until("it is given back", |_| shared.shards[0].attempts().is_empty()).await;
    let record = second.record().await.unwrap();
    assert_eq!(record.status, TaskStatus::NotStarted);
    assert_eq!((record.counters.failures, record.counters.crashes), (0, 0));
    assert_eq!(world.gate.runs.load(Ordering::SeqCst), 1);
    assert!(world.queue.resume_queue("mail").await.unwrap());
    timeout(Duration::from_secs(30), second.into_future()).await.unwrap().unwrap();
    assert_eq!(world.gate.runs.load(Ordering::SeqCst), 2);
}

/// So many that other shards have claimed, and how long they take in all.
const OF_OTHERS: (usize, u64) = (1_000_000, 1_000_000_000_000_000);

/// A queue with one slot, which a blocking task holds, and two threads. It knows that `double` is quick.
async fn with_its_slot_held() -> (World, TaskHandle<gated_blocking::Task>) {
    // under a clock that stands, an attempt that has ended took no time
    let clock = Clock::manual(Timestamp::from_micros(1_800_000_000_000_000));
    let narrow = |settings: &mut Settings| {
        (settings.workers.count, settings.workers.concurrency) = (Some(1), 1);
        settings.workers.blocking_threads = 2;
    };
    let world = start(clock, narrow).await;
    world.queue.submit(double_blocking::task(1)).await.unwrap().into_future().await.unwrap();
    let gated = world.queue.submit(gated_blocking::task()).await.unwrap();
    world.until("it has the slot", |world| world.gate.runs.load(Ordering::SeqCst) == 1).await;
    (world, gated)
}

async fn all_are_over(world: World, gated: TaskHandle<gated_blocking::Task>) {
    world.gate.open.add_permits(1);
    gated.into_future().await.unwrap();
    world.until("none is left", |world| world.shared().pool.claimed() == (0, 0)).await;
}

#[actix::test]
async fn blocking_tasks_are_claimed_ahead_only_if_they_have_a_thread_soon() {
    let (world, gated) = with_its_slot_held().await;
    let double = |number| world.queue.submit(double_blocking::task(number));
    assert_eq!(double(2).await.unwrap().into_future().await.unwrap(), 4);

    world.shared().pool.add_claimed(OF_OTHERS.0, OF_OTHERS.1);
    let waits = double(3).await.unwrap();
    assert_eq!(waits.status().await.unwrap(), TaskStatus::NotStarted);
    world.shared().pool.remove_claimed(OF_OTHERS.0, OF_OTHERS.1);
    let next = double(4).await.unwrap();
    for (handle, output) in [(waits, 6), (next, 8)] {
        let ended = timeout(Duration::from_secs(30), handle.into_future()).await;
        assert_eq!(ended.expect("the task ends").unwrap(), output);
    }
    all_are_over(world, gated).await;
}

// Nothing ends after that which would wake the shard.
#[cfg(feature = "proof")]
#[actix::test]
async fn a_blocking_task_is_claimed_ahead_if_a_thread_comes_free_while_its_shard_commits() {
    let (world, gated) = with_its_slot_held().await;
    let panics = Panics::in_directory(&world.shared().settings.storage.dir);
    world.shared().pool.add_claimed(OF_OTHERS.0, OF_OTHERS.1);
    let (commits, go_on) = panics.hold(Point::ShardCommit);
    let queue = world.queue.clone();
    let submitted = actix_rt::spawn(async move { queue.submit(double_blocking::task(5)).await });
    commits.await.unwrap();
    world.shared().pool.remove_claimed(OF_OTHERS.0, OF_OTHERS.1);
    drop(go_on);
    let handle = submitted.await.unwrap().unwrap();
    let ended = timeout(Duration::from_secs(30), handle.into_future()).await;
    assert_eq!(ended.expect("the task ends").unwrap(), 10);
    all_are_over(world, gated).await;
}
