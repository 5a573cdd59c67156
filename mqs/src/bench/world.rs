//! A queue to measure, started as a program would start it.

use std::path::Path;
use std::time::Duration;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{QueueBuilder, Task};

use super::AnyError;
use super::hold::{Gate, hold_slot};
use super::options::Durability;
use super::scenario::Case;

/// How long a queue may take to end what runs; far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// 150 bytes on disk: a length byte or three and the rest.
pub(crate) const PAYLOAD: usize = 147;

/// What a no-op task returns that nobody times.
const UNTIMED: u64 = 0;

/// What a no-op task returns for the first one that is timed. It takes more bytes than
/// [`UNTIMED`], so that results needn't be decoded to be told apart.
const TIMED: u64 = 1_000;

/// Does nothing. It returns which of the timed tasks it is.
#[task(name = "bench.noop")]
pub(crate) async fn noop(payload: String) -> Result<u64, std::io::Error> {
    let timed = payload.parse::<u64>();
    Ok(timed.map_or(UNTIMED, |sample| TIMED + sample))
}

/// The task that the rates are of.
pub(crate) type Noop = noop::Task;

/// A no-op task; of the timed ones, the one of this number.
pub(crate) fn noop_task(sample: Option<usize>) -> message_queue_sqlite::Submission<Noop> {
    noop::task(match sample {
        None => "x".repeat(PAYLOAD),
        Some(sample) => format!("{sample:0>PAYLOAD$}"),
    })
}

/// Which of the timed tasks a result is of.
pub(crate) fn sample_of(result: &TaskResult) -> Option<usize> {
    // a small number is one byte
    let timed = result.output().is_some_and(|output| output.bytes.len() > 1);
    let number = timed.then(|| result.decode::<u64>().ok()).flatten()?;
    usize::try_from(number.checked_sub(TIMED)?).ok()
}

/// How many worker threads the queue has: what it takes by itself.
pub(crate) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(256)
}

/// How many attempts run at once.
pub(crate) fn slots() -> usize {
    workers() * Settings::default().workers.concurrency
}

/// A queue with the settings of the case.
pub(crate) fn builder(dir: &Path, durability: Durability, shards: usize) -> QueueBuilder {
    Queue::builder().settings(settings(dir, durability, shards))
}

/// The settings of a case, all others as they are by default.
fn settings(dir: &Path, durability: Durability, shards: usize) -> Settings {
    let mut settings = Settings::default();
    settings.storage.dir = dir.to_path_buf();
    settings.storage.durability = durability.setting();
    settings.shards.count = Some(shards);
    settings.workers.count = Some(workers());
    settings
}

/// Starts a queue for no-op tasks. They run unless the gate is used to hold them.
pub(crate) async fn start(dir: &Path, case: Case, gate: &Gate) -> Result<Queue, AnyError> {
    let builder = builder(dir, case.durability, case.shards).data(gate.clone());
    Ok(builder.register::<Noop>().register::<hold_slot::Task>().start().await?)
}

/// Starts a queue for no-op tasks whose number of shards adapts, between one and so many.
pub(crate) async fn start_adaptive(
    dir: &Path,
    case: Case,
    retire_after: Duration,
) -> Result<Queue, AnyError> {
    let mut settings = settings(dir, case.durability, 1);
    settings.shards.retire_after = retire_after;
    let builder = Queue::builder().settings(settings).shards_between(1, case.shards);
    Ok(builder.register::<Noop>().start().await?)
}

/// Ends a queue whose tasks are over.
pub(crate) async fn end(queue: Queue) -> Result<(), AnyError> {
    closed(queue.shutdown(DEADLINE).await?)
}

/// Ends a queue in spite of what waits and runs.
pub(crate) async fn leave(queue: Queue) -> Result<(), AnyError> {
    closed(queue.shutdown(Duration::ZERO).await?)
}

fn closed(report: message_queue_sqlite::ShutdownReport) -> Result<(), AnyError> {
    let unclosed = report.unclosed.first();
    unclosed.map_or(Ok(()), |(shard, why)| Err(format!("cannot close shard {shard}: {why}").into()))
}

/// Waits until so many tasks are over and their results' delivery is, too.
pub(crate) async fn until_called_back(queue: &Queue, tasks: u64) -> Result<(), AnyError> {
    while queue.counts().await?.get(&TaskStatus::Callbacked) < Some(&tasks) {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// How many tasks have ended and been called back so far.
pub(crate) async fn called_back(queue: &Queue) -> Result<u64, AnyError> {
    Ok(queue.counts().await?.get(&TaskStatus::Callbacked).copied().unwrap_or(0))
}

/// Lets results of a definition go to a mailbox for the queue's life.
pub(crate) async fn subscribe<T: Task>(
    queue: &Queue,
    mailbox: Recipient<TaskResult>,
) -> Result<(), AnyError> {
    queue.dispatcher().send(Subscribe::to::<T>(mailbox)).await??;
    Ok(())
}

/// Runs a future on an actix System of its own, as `#[actix::main]` does.
pub(crate) fn block_on<T>(
    future: impl Future<Output = Result<T, AnyError>>,
) -> Result<T, AnyError> {
    actix_rt::System::new().block_on(future)
}
