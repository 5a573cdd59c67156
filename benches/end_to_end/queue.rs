//! The queue, as a program would use it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use actix::Handler;
use message_queue_sqlite::Submission;
use message_queue_sqlite::prelude::*;
use message_queue_sqlite::settings::Durability;
use tokio::sync::{Notify, Semaphore};

use crate::AnyError;

/// How many submissions wait for their commit at once.
const IN_FLIGHT: usize = 2048;

/// 150 bytes on disk: a length byte or three and the rest.
const PAYLOAD: usize = 147;

#[task(name = "bench.noop")]
async fn noop(payload: String) -> Result<u64, std::io::Error> {
    Ok(payload.len() as u64)
}

/// A subscribed mailbox that counts.
struct Counter {
    seen: Arc<AtomicUsize>,
    expected: usize,
    all: Arc<Notify>,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<TaskResult> for Counter {
    type Result = ();

    fn handle(&mut self, result: TaskResult, _: &mut Context<Self>) {
        assert!(result.is_finished(), "a no-op task finishes");
        if self.seen.fetch_add(1, Ordering::AcqRel) + 1 == self.expected {
            self.all.notify_one();
        }
    }
}

/// What a round gave.
pub(crate) struct Ran {
    pub(crate) tasks_per_s: f64,
    pub(crate) row_writes_per_task: f64,
}

/// Runs `tasks` tasks over `shards` shards.
pub(crate) fn run(
    dir: &Path,
    durability: &str,
    shards: usize,
    tasks: usize,
) -> Result<Ran, AnyError> {
    actix_rt::System::new().block_on(round(dir, durability, shards, tasks))
}

async fn round(dir: &Path, durability: &str, shards: usize, tasks: usize) -> Result<Ran, AnyError> {
    let mut settings = Settings::default();
    settings.storage.dir = dir.to_path_buf();
    settings.storage.durability =
        if durability == "FULL" { Durability::Full } else { Durability::Normal };
    settings.shards.count = shards;
    let queue = Queue::builder().settings(settings).register::<noop::Task>().start().await?;
    let all = Arc::new(Notify::new());
    let counter = Counter { seen: Arc::default(), expected: tasks, all: all.clone() }.start();
    let _guard = queue.subscribe::<noop::Task>(counter.recipient()).await?;
    let dispatcher = queue.dispatcher();
    let window = Arc::new(Semaphore::new(IN_FLIGHT));
    let payload = "x".repeat(PAYLOAD);

    let started = Instant::now();
    for _ in 0..tasks {
        let permit = window.clone().acquire_owned().await?;
        let submission: Submission<noop::Task> = noop::task(payload.clone());
        let request = dispatcher.send(Submit::new(submission));
        actix_rt::spawn(async move {
            let stored = request.await;
            assert!(matches!(stored, Ok(Ok(_))), "a submission failed: {stored:?}");
            drop(permit);
        });
    }
    all.notified().await;
    while queue.counts().await?.get(&TaskStatus::Callbacked) != Some(&(tasks as u64)) {
        tokio::task::yield_now().await;
    }
    let took = started.elapsed().as_secs_f64();
    let row_writes = queue.row_writes();
    queue.shutdown(Duration::from_secs(60)).await?;
    Ok(Ran {
        tasks_per_s: tasks as f64 / took,
        row_writes_per_task: row_writes as f64 / tasks as f64,
    })
}
