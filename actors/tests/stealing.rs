//! What waits in a worker is started by another one if it can't be there.

use super::*;
use crate::clock::{Clock, Timestamp};
#[cfg(feature = "proof")]
use crate::proof::{Panics, Point};

const TASKS: usize = 8;

/// One for each task.
struct Gates([Semaphore; TASKS]);

#[task(name = "stealing.step")]
async fn step(number: usize, gates: Data<Arc<Gates>>) -> Result<usize, std::io::Error> {
    gates.0[number].acquire().await.map_err(std::io::Error::other)?.forget();
    Ok(number)
}

fn stands() -> Clock {
    Clock::manual(Timestamp::from_micros(1_800_000_000_000_000))
}

struct Steps {
    _dir: tempfile::TempDir,
    queue: Queue,
    gates: Arc<Gates>,
}

/// Two workers with a slot each, and tasks that are known to be quick: under a clock that stands, they took no time.
async fn start() -> Steps {
    let dir = tempfile::tempdir().unwrap();
    let gates = Arc::new(Gates(std::array::from_fn(|_| Semaphore::new(0))));
    let mut settings = Settings::default();
    settings.storage.dir = dir.path().join("queue");
    (settings.workers.count, settings.workers.concurrency) = (Some(2), 1);
    let builder = Queue::builder().settings(settings).shards(1).clock(stands());
    let builder = builder.register::<step::Task>();
    let queue = builder.data(gates.clone()).start().await.unwrap();
    gates.0[0].add_permits(1);
    in_time(queue.submit(step::task(0)).await.unwrap()).await;
    Steps { _dir: dir, queue, gates }
}

async fn in_time<T: Task>(handle: TaskHandle<T>) -> T::Output {
    let ended = timeout(Duration::from_secs(30), handle.into_future()).await;
    ended.expect("the task ends").unwrap()
}

#[actix::test]
async fn what_waits_behind_an_attempt_that_takes_long_is_run_by_a_worker_that_is_free() {
    let Steps { queue, gates, .. } = start().await;
    let handles = queue.submit_all((1..TASKS).map(step::task)).await.unwrap();
    let all = async { queue.counts().await.unwrap()[&TaskStatus::Running] == handles.len() as u64 };
    assert!(all.await, "two run, the others were claimed ahead");
    // the first of them goes on for long, the others are over as soon as they begin
    gates.0[2..].iter().for_each(|gate| gate.add_permits(1));
    let mut handles = handles.into_iter();
    let first = handles.next().unwrap();
    for (handle, number) in handles.zip(2..) {
        assert_eq!(in_time(handle).await, number);
    }
    gates.0[1].add_permits(1);
    assert_eq!(in_time(first).await, 1);
    // each worker has its slot again
    let handles = queue.submit_all([step::task(1), step::task(2)]).await.unwrap();
    gates.0[1].add_permits(1);
    gates.0[2].add_permits(1);
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

// Only as many were told as there was to take. One that couldn't come took the place of one that could.
#[cfg(feature = "proof")]
#[actix::test]
async fn what_waits_is_run_by_a_worker_that_is_free_although_another_cannot_come() {
    let mut dir = std::path::PathBuf::new();
    let adjust = |settings: &mut Settings| {
        (settings.workers.count, settings.workers.concurrency) = (Some(3), 1);
        dir.clone_from(&settings.storage.dir);
    };
    let world = World::with(1, adjust, |builder| builder.clock(stands())).await;
    let runs = |runs| {
        let enough = move |world: &World| world.gate.runs.load(Ordering::SeqCst) == runs;
        world.until("so many have been started", enough)
    };
    // they are known to be quick
    world.gate.open.add_permits(1);
    world.all_end(world.submit(1).await).await;
    let panics = Panics::in_directory(&dir);
    let (held, let_go) = panics.hold(Point::WorkerWake);
    world.shared().workers[0].link.send(Wake);
    held.await.unwrap();
    // each of the three gets one that waits, and one of the two that can come does so late
    let (late, go_on) = panics.hold(Point::WorkerRun);
    world.gate.open.add_permits(2);
    let handles = world.submit(6).await;
    late.await.unwrap();
    // the other one does its own, and rests
    runs(3).await;
    let rests = async { while world.queue.counts().await.unwrap()[&TaskStatus::Running] != 4 {} };
    timeout(Duration::from_secs(30), rests).await.expect("its tasks end");
    drop(go_on);
    // the first of the late one's goes on for long, so the second is for the one that rests
    runs(5).await;
    drop(let_go);
    world.gate.open.add_permits(4);
    world.all_end(handles).await;
}
