//! A queue in a directory with faults, its tasks, and what must be true of them whatever fails.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::Location;
use std::path::PathBuf;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{QueueBuilder, Recovery};
use message_queue_sqlite_faults::Faults;
use tempfile::TempDir;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::Instant;

use crate::panics;
use crate::runs::{Run, Runs, held, report, work};

/// When a test that waits gives up. Only a failing one ever gets there.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Runs a test's future on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, future)
}

/// Awaits something that must happen.
#[track_caller]
pub(crate) fn in_time<T>(future: impl IntoFuture<Output = T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    let waited = tokio::time::timeout(LIMIT, future.into_future());
    async move {
        let waited = waited.await;
        waited.unwrap_or_else(|_| panic!("what {caller} waits for doesn't happen"))
    }
}

/// Lets other tasks and threads run until it is so.
#[track_caller]
pub(crate) fn turn(is: impl Fn() -> bool) -> impl Future<Output = ()> {
    in_time(async move {
        while !is() {
            std::thread::yield_now();
            tokio::task::yield_now().await;
        }
    })
}

/// How many tasks there are of each status.
pub(crate) type Counts = BTreeMap<TaskStatus, u64>;

/// What became of the submission of a number.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) number: u64,
    /// Whether it has a durable callback, and a closure.
    reports: bool,
    heard: bool,
    pub(crate) answer: Result<TaskId, Error>,
}

impl Sent {
    /// The id of a task that was taken.
    pub(crate) fn id(&self) -> TaskId {
        *self.answer.as_ref().unwrap()
    }

    /// Whether the error says that nothing was stored.
    fn is_refused(&self) -> bool {
        let refusal = |error: &Error| {
            matches!(
                error,
                Error::DiskFull { .. } | Error::ShardUnavailable { .. } | Error::Store { .. }
            )
        };
        self.answer.as_ref().is_err_and(refusal)
    }
}

/// A directory that goes with the test, its faults, and what its tasks and the test share.
pub(crate) struct World {
    pub(crate) faults: Faults,
    pub(crate) runs: Runs,
    /// How many bytes the arguments of its tasks have beside the number.
    filling: usize,
    shards: usize,
    place: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        panics::watch();
        let place = TempDir::new().unwrap();
        let faults = Faults::below(place.path());
        World { faults, runs: Runs::new(), filling: 0, shards: 1, place }
    }

    /// With this many files.
    pub(crate) fn of_shards(shards: usize) -> Self {
        World { shards, ..World::new() }
    }

    /// With one task at a time, and tasks so large that those that wait don't fit into the cache.
    pub(crate) fn cold() -> Self {
        World { filling: 64 * 1024, ..World::new() }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.path("queue")
    }

    /// A path in the directory with the faults.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Settings that keep a test small. Each commit is synced, a few submissions make more than one
    /// batch, and a shard that is taken out of service is soon tried again.
    fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.storage.wal_limit = 1 << 20;
        settings.storage.cache = 1 << 20;
        settings.shards.count = Some(self.shards);
        settings.limits.batch = 4;
        settings.limits.cached_arguments = 1;
        settings.workers.count = Some(2);
        settings.supervision.probe = Duration::from_millis(20);
        if self.filling > 0 {
            settings.workers.count = Some(1);
            settings.workers.concurrency = 1;
            settings.workers.prefetch = 0;
        }
        settings
    }

    fn builder(&self) -> QueueBuilder {
        let builder = Queue::builder().settings(self.settings()).dir(self.dir());
        builder.data(self.runs.clone()).discover(crate::runs::PATH)
    }

    pub(crate) async fn try_start(&self) -> Result<Queue, Error> {
        in_time(self.builder().start()).await
    }

    /// Starts a queue in another directory than its own.
    pub(crate) async fn start_in(&self, dir: PathBuf) -> Queue {
        in_time(self.builder().dir(dir).start()).await.unwrap()
    }

    pub(crate) async fn start(&self) -> Queue {
        self.try_start().await.unwrap()
    }

    /// Starts after a queue that was dropped a moment ago.
    pub(crate) async fn start_when_free(&self) -> Queue {
        in_time(async {
            loop {
                match self.try_start().await {
                    Err(Error::Locked { .. }) => tokio::task::yield_now().await,
                    started => return started.unwrap(),
                }
            }
        })
        .await
    }

    /// Starts `numbers` of held tasks and waits until each runs.
    pub(crate) async fn hold(
        &self,
        queue: &Queue,
        numbers: impl Iterator<Item = u64>,
    ) -> Vec<Sent> {
        let mut sent = Vec::new();
        for number in numbers {
            let handle = in_time(queue.submit(held::task(number))).await.unwrap();
            self.runs.until_begun(number).await;
            sent.push(Sent { number, reports: false, heard: false, answer: Ok(handle.id()) });
        }
        sent
    }

    /// Submits a task.
    pub(crate) async fn send(&self, queue: &Queue, number: u64) -> Sent {
        send(self.runs.clone(), queue.clone(), number, self.filling).await
    }

    /// Submits tasks all at once; gives back what becomes of each.
    pub(crate) fn begin(
        &self,
        queue: &Queue,
        numbers: impl Iterator<Item = u64>,
    ) -> Vec<JoinHandle<Sent>> {
        let one =
            |number| spawn_local(send(self.runs.clone(), queue.clone(), number, self.filling));
        numbers.map(one).collect()
    }

    /// Submits tasks until one is taken: the queue goes on by itself. Gives back all of them.
    pub(crate) async fn until_taken(
        &self,
        queue: &Queue,
        numbers: &mut impl Iterator<Item = u64>,
    ) -> Vec<Sent> {
        let mut sent = Vec::new();
        in_time(async {
            while sent.last().is_none_or(|sent: &Sent| sent.answer.is_err()) {
                sent.push(self.send(queue, numbers.next().unwrap()).await);
            }
        })
        .await;
        sent
    }

    /// Checks what must be true of these submissions once nothing fails any more, and that there
    /// were no others.
    pub(crate) async fn judge(&self, queue: &Queue, sent: &[Sent]) {
        let expected = self.judge_these(queue, sent).await;
        until_counts(queue, expected).await;
    }

    /// Checks that of these submissions what was stored ends Finished after one attempt, that its
    /// callback runs and its closure hears of it, and that what was refused is nowhere. Gives back
    /// how many tasks of each status that makes.
    pub(crate) async fn judge_these(&self, queue: &Queue, sent: &[Sent]) -> Counts {
        let (mut finished, mut callbacked) = (0, 0);
        for Sent { number, reports, heard, answer } in sent {
            let id = match answer {
                Ok(id) => Some(*id),
                Err(Error::Unknown { id }) => is_there(queue, *id).await.then_some(*id),
                Err(_) => None,
            };
            let stored = id.is_some();
            if let Some(id) = id {
                assert_eq!(output(queue, id).await, *number, "{answer:?}");
            }
            let expected = Run {
                now: 0,
                most: stored.into(),
                total: stored.into(),
                reported: (stored && *reports).into(),
                heard: (stored && *heard).into(),
            };
            // a task's end is known before those who are told of it have been
            let told = self.runs.until(*number, |run| run == expected);
            let told = tokio::time::timeout(LIMIT, told).await;
            assert!(told.is_ok(), "{number} with {answer:?}: {:?}", self.runs.of(*number));
            // callbacks are tasks, too
            finished += u64::from(stored && !reports && !heard) + u64::from(stored && *reports);
            callbacked += u64::from(stored && (*reports || *heard));
        }
        [(TaskStatus::Finished, finished), (TaskStatus::Callbacked, callbacked)].into()
    }

    /// Ends the queue in order, starts it again and looks that nothing has changed.
    pub(crate) async fn judge_restart(&self, queue: Queue, sent: &[Sent]) {
        panics::none();
        let counts = in_time(queue.counts()).await.unwrap();
        let report = in_time(queue.shutdown(LIMIT)).await.unwrap();
        assert!(report.unclosed.is_empty() && report.left_behind.is_empty(), "{report:?}");
        let queue = self.start().await;
        assert_eq!(queue.recovery(), Recovery::default());
        assert_eq!(in_time(queue.counts()).await.unwrap(), counts);
        for sent in sent {
            if let Ok(id) = sent.answer {
                assert_eq!(output(&queue, id).await, sent.number);
            }
        }
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    }
}

/// Submits one task. Every second one has a durable callback, every third one a closure.
async fn send(runs: Runs, queue: Queue, number: u64, filling: usize) -> Sent {
    let (reports, heard) = (number.is_multiple_of(2), number.is_multiple_of(3));
    let mut task = work::task(number, vec![0; filling]);
    if reports {
        task = task.then(report::callback());
    }
    if heard {
        task = task.on_result(move |_| runs.change(number, |run| run.heard += 1));
    }
    let answer = in_time(queue.submit(task)).await.map(|handle| handle.id());
    let sent = Sent { number, reports, heard, answer };
    let unknown = matches!(sent.answer, Err(Error::Unknown { .. }));
    assert!(sent.answer.is_ok() || unknown || sent.is_refused(), "{sent:?}");
    sent
}

/// Waits until there are this many tasks of each status and no others.
pub(crate) async fn until_counts(queue: &Queue, expected: Counts) {
    let asked = Instant::now();
    loop {
        let mut counts = retry(|| queue.counts()).await;
        counts.retain(|status, tasks| *tasks > 0 || expected.contains_key(status));
        if counts == expected {
            return;
        }
        assert!(asked.elapsed() < LIMIT, "there are {counts:?} instead of {expected:?}");
        tokio::task::yield_now().await;
    }
}

/// What became of submissions.
pub(crate) async fn all(begun: Vec<JoinHandle<Sent>>) -> Vec<Sent> {
    let mut sent = Vec::new();
    for one in begun {
        sent.push(one.await.unwrap());
    }
    sent
}

/// Asks again as long as the shard is being rebuilt.
pub(crate) async fn retry<T, F>(ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, Error>>,
{
    in_time(async {
        loop {
            match ask().await {
                Err(error) if error.is_retryable() => tokio::task::yield_now().await,
                answer => break answer.unwrap(),
            }
        }
    })
    .await
}

pub(crate) async fn is_there(queue: &Queue, id: TaskId) -> bool {
    retry(|| async {
        match queue.record(id).await {
            // the number was given out, and nothing says whether it was ever used
            Err(Error::NotFound { .. } | Error::ResultExpired { .. }) => Ok(false),
            found => found.map(|_| true),
        }
    })
    .await
}

/// Waits for a task's end, whose ever it is.
pub(crate) async fn output(queue: &Queue, id: TaskId) -> u64 {
    let handle = queue.handle::<work::Task>(id);
    retry(|| handle.result()).await.decode().unwrap()
}
