//! Tasks that run alone, because the process died during them before.

use std::path::Path;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

use super::*;
use crate::clock::Timestamp;
use crate::proof::{Panics, Point, Simulation};

/// What the tasks of one life of the process have in common.
struct Life {
    begun: AtomicUsize,
    /// How many of those that begin end; the process dies during the next one.
    end: usize,
    looks: AtomicUsize,
}

#[task(name = "suspect")]
async fn suspect(number: u64, life: Data<Arc<Life>>) -> Result<u64, std::io::Error> {
    if life.begun.fetch_add(1, Ordering::SeqCst) >= life.end {
        std::future::pending::<()>().await;
    }
    // its shard is in the middle of some batch when it ends
    while life.looks.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    Ok(number)
}

const TASKS: usize = 2;

/// One life of a process, until it `is_over`. What isn't stored then is lost, as by a crash.
fn live<T>(
    dir: &Path,
    seed: u64,
    end: usize,
    is_over: impl AsyncFn(&Life, &Queue) -> Option<T>,
) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let simulation = Simulation::begin(Timestamp::from_micros(1_800_000_000_000_000), seed);
    simulation.slow_commits(Duration::from_millis(5));
    LocalSet::new().block_on(&runtime, async {
        let life = Arc::new(Life { begun: AtomicUsize::new(0), end, looks: AtomicUsize::new(0) });
        let mut settings = Settings::default();
        settings.tasks.max_crashes = 2;
        settings.supervision.restarts = 1_000;
        let builder = Queue::builder().settings(settings).dir(dir).shards(2);
        let builder = builder.register::<suspect::Task>().data(life.clone());
        let queue = builder.clock(simulation.clock()).start().await.unwrap();
        if queue.counts().await.unwrap().values().all(|tasks| *tasks == 0) {
            // by their keys they are of different shards
            let task = |number: u64| suspect::task(number).key((number * 7).to_string());
            let handles = queue.submit_all((0..TASKS as u64).map(task)).await.unwrap();
            assert_ne!(handles[0].id().shard(), handles[1].id().shard());
        }
        let over = async {
            loop {
                if let Some(over) = is_over(&life, &queue).await {
                    return over;
                }
                // a batch in the shard that is opened first
                drop(queue.cancel(TaskId::new(ShardId(0), 1_000)).await);
                life.looks.fetch_add(1, Ordering::SeqCst);
            }
        };
        timeout(Duration::from_secs(30), over).await.expect("the life of the process is over")
    })
}

/// The process dies when so many have begun, of which all but the first `end` still run.
fn crash(dir: &Path, seed: u64, end: usize, begun: usize) {
    live(dir, seed, end, async |life, _| {
        (life.begun.load(Ordering::SeqCst) == begun).then_some(())
    });
}

/// Its end wasn't stored yet when the next one began, in another shard: a crash by that one was its
/// own second, too, and it failed although it had done nothing wrong.
#[test]
fn the_end_of_a_task_that_ran_alone_is_stored_before_the_next_one_begins() {
    for seed in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("queue");
        crash(&dir, seed, 0, TASKS);
        // each runs alone now: one ends, and the process dies during the second
        crash(&dir, seed, 1, 2);
        let counts = live(&dir, seed, TASKS, async |_, queue| {
            let counts = queue.counts().await.unwrap();
            let ended = |status| counts.get(&status).copied().unwrap_or(0);
            let (finished, failed) = (ended(TaskStatus::Finished), ended(TaskStatus::Failed));
            (finished + failed == TASKS as u64).then_some((finished, failed))
        });
        assert_eq!(counts, (TASKS as u64 - 1, 1), "of seed {seed}");
    }
}

/// The others waited for that end for ever.
#[test]
fn a_shard_that_can_store_no_end_does_not_keep_the_others_from_running() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("queue");
    crash(&dir, 1, 0, TASKS);
    let panics = Panics::in_directory(&dir);
    live(&dir, 1, 1, async |life, _| {
        let begun = life.begun.load(Ordering::SeqCst);
        if begun == 1 && life.looks.load(Ordering::SeqCst) == 1 {
            panics.arm_shard(ShardId(0), Point::ShardCommit);
        }
        (begun == 2).then_some(())
    });
    assert!(panics.fired() > 0);
}
