//! The order of tasks that are in different shards.

use std::sync::Mutex;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

use super::*;
use crate::Submission;
use crate::clock::Timestamp;
use crate::proof::Simulation;

/// Places behind the one slot that there is: a batch is one more.
const PREFETCH: usize = 8;

const LOW: u64 = 400;

/// The tasks in the order in which they began, a permit for each, and what holds the first of them.
struct Course {
    begun: Mutex<Vec<u64>>,
    count: Semaphore,
    gate: Semaphore,
}

impl Course {
    fn begun(&self) -> usize {
        self.begun.lock().unwrap().len()
    }
}

#[task(name = "step")]
async fn step(number: u64, course: Data<Arc<Course>>) -> Result<(), std::io::Error> {
    course.begun.lock().unwrap().push(number);
    course.count.add_permits(1);
    if number == 0 {
        course.gate.acquire().await.map_err(std::io::Error::other)?.forget();
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok(())
}

/// Takes too long for anything to wait behind it, and may wait behind nothing.
#[task(name = "long")]
async fn long(number: u64, course: Data<Arc<Course>>) -> Result<(), std::io::Error> {
    course.begun.lock().unwrap().push(number);
    course.count.add_permits(1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

/// By its key it is in either shard.
async fn submit<T: Task>(queue: &Queue, task: Submission<T>, number: u64) -> TaskHandle<T> {
    queue.submit(task.key(number.to_string())).await.unwrap()
}

/// Submits tasks of both shards, and while they run others that stand before them. Returns all in the
/// order in which they began, and how many had begun when each of the others was acknowledged.
async fn run(queue: &Queue, course: &Course) -> (Vec<u64>, Vec<usize>) {
    let mut handles = Vec::new();
    for number in 0..LOW {
        handles.push(submit(queue, step::task(number), number).await);
        // so that no two have the same rank
        tokio::time::advance(Duration::from_micros(10)).await;
    }
    let in_first = handles.iter().filter(|handle| handle.id().shard() == ShardId(0)).count();
    assert!((100..300).contains(&in_first), "{in_first}");
    course.gate.add_permits(1);
    let mut acknowledged = Vec::new();
    // until few are left; some run before each
    for number in (LOW..).take_while(|_| course.begun() < 350) {
        course.count.forget_permits(usize::MAX);
        course.count.acquire_many(3).await.unwrap().forget();
        match number % 2 {
            0 => handles.push(submit(queue, step::task(number).priority(9), number).await),
            _ => drop(submit(queue, long::task(number).priority(9), number).await),
        }
        acknowledged.push(course.begun());
    }
    for handle in handles {
        handle.result().await.unwrap();
    }
    (course.begun.lock().unwrap().clone(), acknowledged)
}

/// The most tasks of lower rank that any of these had to wait for.
fn longest(begun: &[u64], acknowledged: &[usize]) -> usize {
    let waits = begun.iter().enumerate().map(|(at, number)| match number.checked_sub(LOW) {
        None => begun[..at].iter().filter(|other| (number + 1..LOW).contains(*other)).count(),
        Some(high) => {
            let from = acknowledged[high as usize].min(at);
            begun[from..at].iter().filter(|other| **other < LOW).count()
        }
    });
    waits.max().unwrap()
}

#[test]
fn across_shards_a_task_waits_for_at_most_one_batch_of_lower_rank() {
    for (seed, commit_ms) in [(0, 1), (1, 1), (2, 1), (3, 5), (4, 20)] {
        let runtime =
            Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let _entered = runtime.enter();
        let simulation = Simulation::begin(Timestamp::from_micros(1_800_000_000_000_000), seed);
        simulation.slow_commits(Duration::from_millis(commit_ms));
        LocalSet::new().block_on(&runtime, async {
            let dir = tempfile::tempdir().unwrap();
            let (count, gate) = (Semaphore::new(0), Semaphore::new(0));
            let course = Arc::new(Course { begun: Mutex::default(), count, gate });
            let mut settings = Settings::default();
            (settings.workers.count, settings.workers.concurrency) = (Some(1), 1);
            settings.workers.prefetch = PREFETCH;
            let builder = Queue::builder().settings(settings).dir(dir.path().join("queue"));
            let builder = builder
                .shards(2)
                .register::<step::Task>()
                .register::<long::Task>()
                .data(course.clone());
            let queue = builder.clock(simulation.clock()).start().await.unwrap();
            let (begun, acknowledged) = run(&queue, &course).await;
            let longest = longest(&begun, &acknowledged);
            assert!(longest <= PREFETCH + 1, "commits of {commit_ms} ms: {longest} in {begun:?}");
        });
    }
}
