//! A queue in a directory of its own, and ways to wait for what it does.

use std::panic::Location;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::settings::Durability;
use message_queue_sqlite::{Clock, QueueBuilder, TaskRecord, Timestamp};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::probe::Probe;

/// When a test that waits gives up. Only a failing one ever gets there.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

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

/// A directory that goes with the test, and what its tasks and the test share.
pub(crate) struct World {
    pub(crate) place: TempDir,
    pub(crate) probe: Probe,
}

impl World {
    pub(crate) fn new() -> Self {
        World { place: TempDir::new().unwrap(), probe: Probe::default() }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.place.path().join("queue")
    }

    /// Settings that keep a test small: no syncs for each commit, little ballast.
    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.storage.dir = self.dir();
        settings.storage.durability = Durability::Normal;
        settings.storage.wal_limit = 1 << 20;
        settings.storage.cache = 1 << 20;
        settings.workers.count = Some(2);
        // one order of all tasks, and a file that has a name
        settings.shards.count = Some(1);
        settings
    }

    /// A queue with the tasks of `tasks.rs`.
    pub(crate) fn builder(&self) -> QueueBuilder {
        self.builder_with(self.settings())
    }

    pub(crate) fn builder_with(&self, settings: Settings) -> QueueBuilder {
        Queue::builder().settings(settings).discover(crate::tasks::PATH).data(self.probe.clone())
    }

    pub(crate) async fn start(&self) -> Queue {
        start(self.builder()).await
    }

    /// A queue with one worker that runs one task at a time and takes none ahead.
    pub(crate) async fn start_narrow(&self) -> Queue {
        start(self.builder_with(self.narrow())).await
    }

    pub(crate) fn narrow(&self) -> Settings {
        let mut settings = self.settings();
        settings.workers.count = Some(1);
        settings.workers.concurrency = 1;
        settings.workers.prefetch = 0;
        settings
    }

    /// Starts on a directory whose owner was dropped a moment ago.
    pub(crate) async fn start_again(&self, builder: impl Fn() -> QueueBuilder) -> Queue {
        in_time(async {
            loop {
                match builder().start().await {
                    Err(Error::Locked { .. }) => tokio::task::yield_now().await,
                    other => break other.unwrap(),
                }
            }
        })
        .await
    }
}

pub(crate) async fn start(builder: QueueBuilder) -> Queue {
    in_time(builder.start()).await.unwrap()
}

pub(crate) async fn end(queue: Queue) {
    in_time(queue.shutdown(LIMIT)).await.unwrap();
}

/// A clock that stands until it is moved, and when it started.
pub(crate) fn standing_clock() -> (Clock, Timestamp) {
    let start = Clock::system().now();
    (Clock::manual(start), start)
}

/// Reads a task again and again until it is as it should be.
#[track_caller]
pub(crate) fn until_record(
    queue: &Queue,
    id: TaskId,
    what: impl Fn(&TaskRecord) -> bool,
) -> impl Future<Output = TaskRecord> {
    in_time(async move {
        loop {
            let record = queue.record(id).await.unwrap();
            if what(&record) {
                return record;
            }
        }
    })
}

#[track_caller]
pub(crate) fn until_status(
    queue: &Queue,
    id: TaskId,
    status: TaskStatus,
) -> impl Future<Output = TaskRecord> {
    until_record(queue, id, move |record| record.status == status)
}

/// How many tasks of a status there are.
pub(crate) async fn count(queue: &Queue, status: TaskStatus) -> u64 {
    in_time(queue.counts()).await.unwrap().get(&status).copied().unwrap_or(0)
}

/// Counts again and again until there are this many.
#[track_caller]
pub(crate) fn until_count(
    queue: &Queue,
    status: TaskStatus,
    tasks: u64,
) -> impl Future<Output = ()> {
    in_time(async move { while count(queue, status).await != tasks {} })
}

/// An actor that passes on what it receives.
pub(crate) struct Mailbox {
    received: mpsc::UnboundedSender<TaskResult>,
}

impl Actor for Mailbox {
    type Context = Context<Self>;
}

impl actix::Handler<TaskResult> for Mailbox {
    type Result = ();

    fn handle(&mut self, result: TaskResult, _: &mut Context<Self>) {
        self.received.send(result).ok();
    }
}

/// Ends the actor, so that its mailbox is closed.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

impl actix::Handler<Stop> for Mailbox {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Context<Self>) {
        actix::ActorContext::stop(context);
    }
}

/// What a mailbox has received.
pub(crate) struct Received {
    pub(crate) address: Addr<Mailbox>,
    results: mpsc::UnboundedReceiver<TaskResult>,
}

impl Received {
    /// Starts an actor on this thread's System.
    pub(crate) fn new() -> Self {
        let (received, results) = mpsc::unbounded_channel();
        Received { address: Mailbox { received }.start(), results }
    }

    pub(crate) fn recipient(&self) -> Recipient<TaskResult> {
        self.address.clone().recipient()
    }

    pub(crate) async fn next(&mut self) -> TaskResult {
        in_time(self.results.recv()).await.unwrap()
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<TaskResult> {
        let mut results = Vec::new();
        while results.len() < count {
            results.push(self.next().await);
        }
        results
    }

    /// What has arrived and wasn't looked at.
    pub(crate) fn rest(&mut self) -> Vec<TaskResult> {
        std::iter::from_fn(|| self.results.try_recv().ok()).collect()
    }

    /// Ends the actor and waits until it has ended.
    pub(crate) async fn close(self) {
        self.address.send(Stop).await.unwrap();
        in_time(async {
            while self.address.connected() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// Everything that was logged, by every thread.
#[derive(Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// The warnings of all threads of this process from now on, those of other tests among them.
    pub(crate) fn warnings() -> Self {
        static ALL: OnceLock<Captured> = OnceLock::new();
        let captured = ALL.get_or_init(|| {
            let captured = Captured::default();
            let writer = captured.clone();
            tracing_subscriber::fmt()
                .with_writer(move || writer.clone())
                .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
                .init();
            captured
        });
        captured.clone()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
