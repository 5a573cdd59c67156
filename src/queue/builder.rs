//! Describing a queue and starting it.

use std::fmt;
use std::panic::Location;
use std::path::PathBuf;
use std::sync::Arc;

use actix::Recipient;

use super::Queue;
use super::named::{DeclaredQueue, set_queues};
use super::off_thread::off_thread;
use crate::actors::system::{self, Shared};
use crate::clock::Clock;
use crate::error::{Error, Result, StartError};
use crate::registry::Registry;
use crate::result::TaskResult;
use crate::settings::{Settings, SettingsError};
use crate::store::{Directory, DirectoryOptions};
use crate::task::{CallbackTask, DataMap, Task};

/// Describes a queue; [`start`](QueueBuilder::start) checks everything and starts it.
///
/// Without settings it takes [`Settings::default`]: files and variables count only with
/// [`Settings::load`].
#[must_use = "nothing happens until it is started"]
pub struct QueueBuilder {
    settings: Settings,
    registry: Registry,
    queues: Vec<DeclaredQueue>,
    data: DataMap,
    clock: Clock,
}

impl QueueBuilder {
    pub(super) fn new() -> Self {
        QueueBuilder {
            settings: Settings::default(),
            registry: Registry::new(),
            queues: Vec::new(),
            data: DataMap::default(),
            clock: Clock::system(),
        }
    }

    /// Takes these settings instead of the defaults. What is set on the builder after it wins.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The directory of the queue's files; created if its parent exists.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.settings.storage.dir = dir.into();
        self
    }

    /// How many SQLite files take new tasks, from 1 to 64, whatever the load. Files that are there
    /// already are opened even if they are more, end their tasks and answer lookups.
    pub fn shards(mut self, shards: usize) -> Self {
        self.settings.shards.count = Some(shards);
        self
    }

    /// How few and how many SQLite files take new tasks, from 1 to 64: their number follows the
    /// load. Without this, and without [`shards`](QueueBuilder::shards), it is 1 to the number of
    /// cores, at most 8.
    pub fn shards_between(mut self, min: usize, max: usize) -> Self {
        let shards = &mut self.settings.shards;
        (shards.count, shards.min, shards.max) = (None, min, Some(max));
        self
    }

    /// How many worker threads, from 1 to 256; one per core if not set.
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers.count = Some(workers);
        self
    }

    /// How many attempts each worker runs at once, from 1 to 4,096.
    pub fn concurrency(mut self, attempts: usize) -> Self {
        self.settings.workers.concurrency = attempts;
        self
    }

    /// At most so many tasks of a named queue run at a time, over all shards; from 1 on. It wins over
    /// a limit that [`Queue::limit_queue`] has stored.
    #[track_caller]
    pub fn queue_concurrency(mut self, name: &str, tasks: usize) -> Self {
        let (name, place) = (name.to_owned(), Location::caller());
        self.queues.push(DeclaredQueue { name, concurrency: tasks, place });
        self
    }

    /// Mounts every `#[task]` and `#[callback]` in the module `path` and below it. Usually
    /// `discover(module_path!())`. If there is none, a warning says so.
    ///
    /// A path can lead into another crate, which must be linked as for
    /// [`discover_all`](QueueBuilder::discover_all).
    pub fn discover(mut self, path: &str) -> Self {
        self.registry.discover(path);
        self
    }

    /// Mounts every `#[task]` and `#[callback]` of the program.
    ///
    /// A crate that nothing refers to isn't linked, and contributes none. In the program,
    /// `use its_name as _;` is enough, with link-time optimization too.
    pub fn discover_all(mut self) -> Self {
        self.registry.discover_all();
        self
    }

    /// Mounts one task. Mounting it again changes nothing.
    #[track_caller]
    pub fn register<T: Task>(mut self) -> Self {
        self.registry.register::<T>();
        self
    }

    /// Mounts one durable callback. Mounting it again changes nothing.
    #[track_caller]
    pub fn register_callback<C: CallbackTask>(mut self) -> Self {
        self.registry.register_callback::<C>();
        self
    }

    /// Gives every task and callback that asks for `Data<T>` this value, in place of an earlier one
    /// of its type.
    pub fn data<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.data.insert(value);
        self
    }

    /// A durable, named mailbox: it gets the result of every task, at least once, also of those
    /// that ended before a restart, as long as each start declares it.
    ///
    /// Each delivery is a task of its own, stored with the end that it reports; a handler that has
    /// returned has it. While no mailbox of this name is declared, deliveries to it wait.
    #[track_caller]
    pub fn subscriber(mut self, name: &str, mailbox: Recipient<TaskResult>) -> Self {
        self.registry.subscriber(name, mailbox);
        self
    }

    /// Takes the time from this clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Checks everything, opens the files, recovers what the last process left, and starts.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] with everything that is wrong: first all mistakes in settings and
    /// definitions together, then, if there are none, what is wrong with the files.
    /// [`Error::Locked`] at once if another process has the directory. Then nothing runs, and no
    /// task was touched unless one of several files could be opened and recovered before another
    /// failed.
    pub async fn start(self) -> Result<Queue> {
        let reasons = self.mistakes();
        if !reasons.is_empty() {
            return Err(Error::Start { reasons });
        }
        let storage = &self.settings.storage;
        let options = DirectoryOptions {
            allow_network_filesystem: storage.allow_network_filesystem,
            ballast_bytes: storage.wal_limit.saturating_mul(2).min(128 * 1024 * 1024),
        };
        let dir = storage.dir.clone();
        let count = *self.settings.shards.resolved_range().start();
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        let opened = off_thread(move || {
            let directory = Directory::open(&dir, &options)?;
            let shards = directory.ensure_shards(count).map_err(|source| {
                let what = "manifest.json".to_string();
                Error::Start { reasons: vec![StartError::Open { what, source }] }
            })?;
            Ok((directory, shards))
        });
        let (directory, shards) = opened.await?;
        if self.registry.definitions().is_empty() {
            tracing::warn!("no task is registered: nothing will run");
        }
        let (registry, data) = (Arc::new(self.registry), Arc::new(self.data));
        let stored = directory.snapshot().queues;
        let shared = Shared::new(registry, data, self.settings, self.clock, directory, &shards);
        set_queues(&shared.queues, &stored, &self.queues);
        let running = system::start(shared.clone()).await?;
        let queue = Queue::over(shared, running);
        let recovery = queue.recovery();
        tracing::info!(
            restarted = recovery.restarted,
            failed = recovery.failed,
            callbacks = recovery.callbacks,
            subscribers_gone = recovery.subscribers_gone,
            unregistered = recovery.unregistered,
            "recovered"
        );
        if recovery.unregistered > 0 {
            tracing::warn!(
                tasks = recovery.unregistered,
                "stored tasks have names that this process doesn't know; they wait"
            );
        }
        Ok(queue)
    }

    /// Everything that can be seen to be wrong before a file is opened.
    fn mistakes(&self) -> Vec<StartError> {
        let settings = self.settings.check().err();
        let mistakes = settings.iter().flat_map(SettingsError::mistakes);
        let mut reasons: Vec<_> = mistakes.cloned().map(StartError::Settings).collect();
        reasons.extend(self.registry.check(&self.data));
        reasons.extend(self.queues.iter().filter_map(DeclaredQueue::mistake));
        if cfg!(panic = "abort") {
            reasons.push(StartError::PanicAborts);
        }
        reasons
    }
}

impl fmt::Debug for QueueBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueBuilder")
            .field("settings", &self.settings)
            .field("tasks", &self.registry.task_names())
            .finish_non_exhaustive()
    }
}
