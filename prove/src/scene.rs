//! A small queue, its tasks, and how tests wait for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Actor, Context, Handler};
use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::Simulation;
use message_queue_sqlite::{Clock, QueueBuilder, TaskRecord, Timestamp};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::case::Failure;

/// When a case that waits gives up. Only one that fails ever gets there.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

const PATH: &str = module_path!();

/// The number of the task, and something to make its row larger. Every fifth fails twice first.
#[task(name = "prove.step", backoff = "1ms..3ms", max_attempts = 50)]
pub(crate) async fn step(
    number: u64,
    filling: Vec<u8>,
    ctx: TaskContext,
) -> Result<u64, io::Error> {
    drop(filling);
    tokio::task::yield_now().await;
    if number.is_multiple_of(5) && ctx.failures() < 2 {
        return Err(io::Error::other("not yet"));
    }
    Ok(number)
}

/// What is told of the end of a `step`.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) parent: TaskId,
    pub(crate) delivery: TaskId,
}

/// Who is told of each call of the durable callback.
pub(crate) struct Called(pub(crate) Box<dyn Fn(Call) -> io::Result<()> + Send + Sync>);

impl Called {
    pub(crate) fn nobody() -> Self {
        Called(Box::new(|_| Ok(())))
    }
}

#[callback(name = "prove.stepped", backoff = "1ms..3ms", max_attempts = 50)]
async fn stepped(
    result: TaskResult,
    ctx: TaskContext,
    called: Data<Called>,
) -> Result<(), io::Error> {
    (called.0)(Call { parent: result.id(), delivery: ctx.id() })
}

/// A mailbox that does this with each result.
pub(crate) struct Listener<F>(pub(crate) F);

impl<F: FnMut(TaskResult) + Unpin + 'static> Actor for Listener<F> {
    type Context = Context<Self>;
}

impl<F: FnMut(TaskResult) + Unpin + 'static> Handler<TaskResult> for Listener<F> {
    type Result = ();

    fn handle(&mut self, result: TaskResult, _: &mut Context<Self>) {
        (self.0)(result);
    }
}

/// Makes a `step`. What it is like depends on its number: priority, delay, key, callback.
pub(crate) fn submission(number: u64) -> message_queue_sqlite::Submission<step::Task> {
    let filling = vec![0; (number * 37 % 400) as usize];
    let mut task = step::task(number, filling).priority((number % 3) as i16);
    if number.is_multiple_of(7) {
        task = task.delay(Duration::from_millis(number % 4));
    }
    if number.is_multiple_of(3) {
        task = task.key(format!("key-{}", number % 4));
    }
    if reports(number) {
        task = task.then(stepped::callback());
    }
    task
}

/// Whether the task of this number has a durable callback.
pub(crate) fn reports(number: u64) -> bool {
    (number / 8).is_multiple_of(2)
}

/// Settings that keep a case small. Each commit is synced, and the log is soon folded back.
pub(crate) fn settings(shards: usize) -> Settings {
    let mut settings = Settings::default();
    settings.storage.wal_limit = 1 << 20;
    settings.storage.cache = 1 << 20;
    settings.shards.count = Some(shards);
    settings.workers.count = Some(1);
    // more deaths than there are in a case: those that die here aren't to blame
    settings.tasks.max_crashes = 100;
    settings
}

pub(crate) fn builder(settings: Settings, dir: &Path, called: Called) -> QueueBuilder {
    Queue::builder().settings(settings).dir(dir).discover(PATH).data(called)
}

/// When simulations begin: in the year 2027, and so that ten years back are still after the epoch.
pub(crate) const START: i64 = 1_800_000_000_000_000;

/// Runs a case's future on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    LocalSet::new().block_on(&runtime(&mut Builder::new_current_thread()), future)
}

/// Runs a case's future and all actors of its queues on this thread, under a clock that jumps from
/// event to event. What they do follows from the seed.
pub(crate) fn simulate<T>(seed: u64, case: impl AsyncFnOnce(Clock) -> T) -> T {
    let runtime = runtime(Builder::new_current_thread().start_paused(true));
    let _entered = runtime.enter();
    let simulation = Simulation::begin(Timestamp::from_micros(START), seed);
    LocalSet::new().block_on(&runtime, case(simulation.clock()))
}

pub(crate) fn runtime(builder: &mut Builder) -> Runtime {
    builder.enable_all().build().expect("a runtime can be made")
}

/// Starts a queue after another one that was dropped a moment ago.
pub(crate) async fn start_when_free(
    builder: impl Fn() -> QueueBuilder,
) -> Result<Result<Queue, Error>, Failure> {
    let starting = async {
        loop {
            match builder().start().await {
                Err(Error::Locked { .. }) => pause().await,
                started => return started,
            }
        }
    };
    in_time("stuck", "the start", starting).await
}

/// A start that must succeed.
pub(crate) fn started(start: Result<Queue, Error>) -> Result<Queue, Failure> {
    start.map_err(|error| Failure::new("stuck", error))
}

/// Awaits something that must happen; a failure `kind` if it doesn't.
pub(crate) async fn in_time<T>(
    kind: &'static str,
    what: &str,
    future: impl IntoFuture<Output = T>,
) -> Result<T, Failure> {
    let waited = tokio::time::timeout(LIMIT, future.into_future()).await;
    waited.map_err(|_| Failure::new(kind, format!("{what} doesn't happen")))
}

/// An error that isn't part of the case.
pub(crate) fn harness(error: impl std::fmt::Display) -> Failure {
    Failure::new("harness", error)
}

/// Waits until nothing is left to do.
pub(crate) async fn until_all_ended(queue: &Queue) -> Result<(), Failure> {
    let open = [TaskStatus::NotStarted, TaskStatus::Running, TaskStatus::Callbacking];
    let began = Instant::now();
    loop {
        match queue.counts().await {
            Ok(counts) => {
                let left = |status| counts.get(status).is_some_and(|tasks| *tasks > 0);
                if !open.iter().any(left) {
                    return Ok(());
                }
                if began.elapsed() > LIMIT {
                    return Err(Failure::new("stuck", format!("tasks don't end: {counts:?}")));
                }
            }
            // a shard that is being rebuilt
            Err(error) if error.is_retryable() && began.elapsed() < LIMIT => {}
            Err(error) => return Err(Failure::new("stuck", error)),
        }
        pause().await;
    }
}

/// Lets others work between two looks.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_micros(500)).await;
}

/// Every record of a definition.
pub(crate) async fn all(
    queue: &Queue,
    name: &str,
) -> Result<BTreeMap<TaskId, TaskRecord>, Failure> {
    let mut found = BTreeMap::new();
    let mut list = ListTasks { name: Some(name.into()), limit: 500, ..ListTasks::default() };
    loop {
        let page = queue.list(list.clone()).await.map_err(|error| Failure::new("lost", error))?;
        found.extend(page.tasks.into_iter().map(|record| (record.id, record)));
        match page.next {
            Some(next) => list.after = Some(next),
            None => return Ok(found),
        }
    }
}

/// A panic under the lock fails its case anyway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
