//! What waits in a worker is started by another one if it can't be there.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::clock::{Clock, Timestamp};

const TASKS: usize = 8;

/// One gate for each task, and whether one that holds its thread may go on.
struct Gates {
    begun: [AtomicBool; TASKS],
    open: [Semaphore; TASKS],
    go_on: AtomicBool,
}

#[task(name = "stealing.step")]
async fn step(number: usize, gates: Data<Arc<Gates>>) -> Result<usize, std::io::Error> {
    gates.begun[number].store(true, Ordering::SeqCst);
    gates.open[number].acquire().await.map_err(std::io::Error::other)?.forget();
    Ok(number)
}

/// Doesn't leave its thread to others, as none should.
#[task(name = "stealing.holds")]
async fn holds(gates: Data<Arc<Gates>>) -> Result<(), TaskError> {
    gates.begun[0].store(true, Ordering::SeqCst);
    while !gates.go_on.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    Ok(())
}

struct Steps {
    _dir: tempfile::TempDir,
    queue: Queue,
    gates: Arc<Gates>,
    clock: Clock,
}

/// Two workers, and tasks that are known to be quick: under a clock that stands, they took no time.
async fn start(concurrency: usize) -> Steps {
    let dir = tempfile::tempdir().unwrap();
    let gates = Arc::new(Gates {
        begun: Default::default(),
        open: std::array::from_fn(|_| Semaphore::new(0)),
        go_on: AtomicBool::new(false),
    });
    let clock = Clock::manual(Timestamp::from_micros(1_800_000_000_000_000));
    let mut settings = Settings::default();
    settings.storage.dir = dir.path().join("queue");
    (settings.workers.count, settings.workers.concurrency) = (Some(2), concurrency);
    let builder = Queue::builder().settings(settings).shards(1).clock(clock.clone());
    let builder = builder.register::<step::Task>().register::<holds::Task>();
    let queue = builder.data(gates.clone()).start().await.unwrap();
    gates.open[0].add_permits(1);
    in_time(queue.submit(step::task(0)).await.unwrap()).await;
    Steps { _dir: dir, queue, gates, clock }
}

async fn in_time<T: Task>(handle: TaskHandle<T>) -> T::Output {
    let ended = timeout(Duration::from_secs(30), handle.into_future()).await;
    ended.expect("the task ends").unwrap()
}

#[actix::test]
async fn what_waits_behind_an_attempt_that_takes_long_is_run_by_a_worker_that_is_free() {
    let Steps { queue, gates, .. } = start(1).await;
    let handles = queue.submit_all((1..TASKS).map(step::task)).await.unwrap();
    let all = async { queue.counts().await.unwrap()[&TaskStatus::Running] == handles.len() as u64 };
    assert!(all.await, "two run, the others were claimed ahead");
    // the first of them goes on for long, the others are over as soon as they begin
    gates.open[2..].iter().for_each(|gate| gate.add_permits(1));
    let mut handles = handles.into_iter();
    let first = handles.next().unwrap();
    for (handle, number) in handles.zip(2..) {
        assert_eq!(in_time(handle).await, number);
    }
    gates.open[1].add_permits(1);
    assert_eq!(in_time(first).await, 1);
    // each worker has its slot again
    let handles = queue.submit_all([step::task(1), step::task(2)]).await.unwrap();
    gates.open[1].add_permits(1);
    gates.open[2].add_permits(1);
    for (handle, number) in handles.into_iter().zip(1..) {
        assert_eq!(in_time(handle).await, number);
    }
    let free = async {
        while !queue.shared().slots.are_all_free() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), free).await.expect("all credits come back");
}

#[actix::test]
async fn what_waits_in_a_worker_whose_thread_is_held_is_run_by_another_one() {
    let Steps { queue, gates, clock, .. } = start(4).await;
    gates.begun[0].store(false, Ordering::SeqCst);
    gates.open[1..].iter().for_each(|gate| gate.add_permits(1));
    // four go to each worker
    let held = Submit::new(holds::task());
    let steps = (1..TASKS).map(|number| Submit::new(step::task(number)));
    let tasks = std::iter::once(held).chain(steps).collect();
    let ids = queue.dispatcher().send(SubmitAll::new(tasks)).await.unwrap().unwrap();
    while !gates.begun[0].load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_millis(6));
    // the other one has something to do, and looks around then
    gates.open[0].add_permits(1);
    in_time(queue.submit(step::task(0)).await.unwrap()).await;
    for (id, number) in ids[1..].iter().zip(1..) {
        assert_eq!(in_time(queue.handle::<step::Task>(*id)).await, number);
    }
    gates.go_on.store(true, Ordering::SeqCst);
    in_time(queue.handle::<holds::Task>(ids[0])).await;
}
