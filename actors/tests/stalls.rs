//! Slots stay busy while the disk stalls.

use std::sync::Mutex;

use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::*;
use crate::clock::Timestamp;
use crate::proof::Simulation;

const TASKS: usize = 300;

/// When the disk begins to stall, by the number of tasks that have begun.
const STALLS_AT: usize = 100;

/// When each task began, and a permit for each.
struct Course {
    begun: Mutex<Vec<Instant>>,
    count: Semaphore,
}

#[task(name = "brief")]
async fn brief(lasts_ms: u64, course: Data<Arc<Course>>) -> Result<(), TaskError> {
    course.begun.lock().unwrap().push(Instant::now());
    course.count.add_permits(1);
    tokio::time::sleep(Duration::from_millis(lasts_ms)).await;
    Ok(())
}

/// Commits that took no time take up to 10 ms of a sudden, most of them less than 5. The slot has its next
/// task from memory meanwhile.
#[test]
fn no_slot_is_free_for_long_when_a_disk_begins_to_stall() {
    for (seed, lasts_ms) in (0..4).flat_map(|seed| [1, 2, 4].map(|lasts_ms| (seed, lasts_ms))) {
        let runtime =
            Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let _entered = runtime.enter();
        let simulation = Simulation::begin(Timestamp::from_micros(1_800_000_000_000_000), seed);
        LocalSet::new().block_on(&runtime, async {
            let dir = tempfile::tempdir().unwrap();
            let (begun, count) = (Mutex::default(), Semaphore::new(0));
            let course = Arc::new(Course { begun, count });
            let mut settings = Settings::default();
            (settings.workers.count, settings.workers.concurrency) = (Some(1), 1);
            let builder = Queue::builder().settings(settings).dir(dir.path().join("queue"));
            let builder = builder.shards(1).register::<brief::Task>().data(course.clone());
            let queue = builder.clock(simulation.clock()).start().await.unwrap();
            let handles =
                queue.submit_all((0..TASKS).map(|_| brief::task(lasts_ms))).await.unwrap();
            course.count.acquire_many(STALLS_AT as u32).await.unwrap().forget();
            // twice a commit
            simulation.slow_commits(Duration::from_millis(5));
            for handle in handles {
                handle.result().await.unwrap();
            }
            let begun = course.begun.lock().unwrap();
            let gaps = begun[STALLS_AT..].windows(2).map(|pair| pair[1] - pair[0]);
            let longest = gaps.max().unwrap();
            let free = longest - Duration::from_millis(lasts_ms);
            assert!(free <= Duration::from_millis(5), "seed {seed}, {lasts_ms} ms: {free:?}");
        });
    }
}
