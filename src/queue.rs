//! The queue as a program embeds it.

mod builder;
mod bulk;
mod handle;
mod named;
mod off_thread;
mod shards;
mod shutdown;
mod stream;
mod subscription;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Addr, Recipient};
use tokio::sync::oneshot;

pub use builder::QueueBuilder;
pub use handle::TaskHandle;
pub use named::NamedQueueInfo;
pub use shards::ShardCounts;
pub use shutdown::{ShutdownReport, shutdown_signal};
pub use stream::SubmitStream;
pub use subscription::SubscriptionGuard;

use self::off_thread::off_thread;
use crate::actors::dispatcher::{Dispatcher, check_size};
use crate::actors::messages::{
    BackupTo, Cancel, CountTasks, GetTask, ListTasks, Redrive, Submit, Subscribe, TaskPage,
};
use crate::actors::system::{Running, Shared};
use crate::admission::{Demand, Permit};
use crate::backpressure::Backpressure;
use crate::error::{Error, Result, StoreError};
use crate::proof::{self, Safeguard};
use crate::record::{ShardId, TaskId, TaskRecord, TaskStatus};
use crate::result::TaskResult;
use crate::store::{
    BackupTarget, CancelOutcome, DirectoryOptions, Recovered, RedriveOutcome, restore,
};
use crate::submission::Submission;
use crate::task::Task;

/// A running task queue. Clones are handles to the same one.
///
/// It runs an actix System of its own on its own threads, so it works under `#[actix::main]` and
/// in a plain tokio program, and never blocks the caller's thread. A [`TaskHandle`] holds a clone.
/// Dropping the last one ends the queue without waiting, as a crash would: nothing acknowledged is
/// lost, and what ran runs again. Call [`Queue::shutdown`] to end it in order.
///
/// A process that forks takes none of the queue's threads with it: in the child, what would wait for
/// them returns [`Error::Forked`]. Messages sent to [`Queue::dispatcher`] there aren't answered. As
/// long as a child lives that was forked and runs no other program, the directory stays locked.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
    backpressure: Backpressure,
}

struct Inner {
    shared: Arc<Shared>,
    dispatcher: Addr<Dispatcher>,
    recovered: BTreeMap<ShardId, Recovered>,
    ending: shutdown::Ending,
    /// The process whose threads these actors are on.
    pid: u32,
}

/// What a start found of the process before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Tasks that were running and are ready again.
    pub restarted: u64,
    /// Tasks that were running and have reached the limit of crashes: failed.
    pub failed: u64,
    /// Ended tasks whose durable callbacks go on.
    pub callbacks: u64,
    /// Ended tasks whose targets lived in memory: their delivery is dead.
    pub subscribers_gone: u64,
    /// Ready tasks whose names aren't registered in this process. They wait. At most the first
    /// 10,000 ready tasks of each shard are looked at.
    pub unregistered: u64,
}

impl Queue {
    /// Describes a queue to start.
    pub fn builder() -> QueueBuilder {
        QueueBuilder::new()
    }

    fn over(shared: Arc<Shared>, running: Running) -> Self {
        let Running { dispatcher, recovered, stop, ended, .. } = running;
        let ending = shutdown::Ending::new(stop, ended);
        let pid = std::process::id();
        let inner = Arc::new(Inner { shared, dispatcher, recovered, ending, pid });
        Queue { inner, backpressure: Backpressure::default() }
    }

    /// A handle to the same queue whose submissions do this while the queue is full, as do those of
    /// its clones and its [`submit_stream`](Queue::submit_stream). This one stays as it is; a queue
    /// begins with [`Backpressure::Wait`].
    #[must_use]
    pub fn with_backpressure(&self, backpressure: Backpressure) -> Self {
        Queue { inner: self.inner.clone(), backpressure }
    }

    /// How many submissions were refused since the start, each task of a bulk counted: because the
    /// queue was full, or by a shard that couldn't store them. Those that nobody waited for, sent
    /// by `do_send`, are among them; those with a mistake of their own, or that came during the
    /// shutdown, aren't.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.inner.shared.refused()
    }

    /// Stores a task and returns once it is committed at the queue's durability.
    ///
    /// Waits while the queue is full: while too many submissions, or too many bytes, wait for their
    /// commit (`limits.pending_submissions`, `limits.pending_bytes`), or too many tasks for their
    /// start (`limits.ready_tasks`); a task whose arguments stay in memory also while those of too
    /// many others do (`limits.cached_arguments`). [`Queue::with_backpressure`] makes a handle that
    /// waits for a limited time, or not at all. Dropping the future while it waits stores nothing;
    /// after that it leaves it open whether the task was stored.
    ///
    /// # Errors
    ///
    /// Anything wrong with the submission, before something is written; [`Error::ShuttingDown`];
    /// [`Error::Busy`], by a handle that doesn't wait or has waited long enough;
    /// [`Error::DiskFull`], [`Error::ShardUnavailable`], [`Error::Store`] or [`Error::Forked`], when
    /// nothing was stored; [`Error::Unknown`], when that isn't known.
    pub async fn submit<T: Task>(&self, submission: Submission<T>) -> Result<TaskHandle<T>> {
        let id = self.send(submission.submit).await?;
        Ok(self.handle(id))
    }

    /// Stores a task that is named at run time, and returns its id once it is committed at the
    /// queue's durability. See [`Submit::raw`].
    ///
    /// # Errors
    ///
    /// As [`Queue::submit`].
    pub async fn submit_raw(&self, submit: Submit) -> Result<TaskId> {
        self.send(submit).await
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    async fn send(&self, mut submit: Submit) -> Result<TaskId> {
        submit.permit = Some(self.enter(submit.demand()).await?);
        self.inner.dispatcher.send(submit).await?
    }

    /// Refuses to go on in a fork: a message would wait there for ever, and a lock that another thread
    /// held at that moment would never be free.
    fn ensure_same_process(&self) -> Result<()> {
        let pid = self.inner.pid;
        if pid == std::process::id() || !proof::stands(Safeguard::ForksRefused) {
            return Ok(());
        }
        Err(Error::Forked { pid })
    }

    /// The Dispatcher, to ask it something.
    fn asked(&self) -> Result<&Addr<Dispatcher>> {
        self.ensure_same_process().map(|()| &self.inner.dispatcher)
    }

    /// Leave to submit, as this handle's way to behave has it.
    async fn enter(&self, demand: Demand) -> Result<Permit> {
        self.ensure_same_process()?;
        let shared = &self.inner.shared;
        check_size(&shared.settings.limits, demand)?;
        let entered = match self.backpressure {
            Backpressure::Wait => shared.admission.enter(demand).await,
            Backpressure::WaitFor(limit) => {
                let entering = shared.admission.enter(demand);
                match tokio::time::timeout(limit, entering).await {
                    Ok(entered) => entered,
                    Err(_) => return Err(shared.busy(demand)),
                }
            }
            Backpressure::Reject => {
                let entered = shared.admission.try_enter(demand);
                return entered.ok_or_else(|| match shared.is_accepting() {
                    true => shared.busy(demand),
                    false => Error::ShuttingDown,
                });
            }
        };
        entered.map_err(|_| Error::ShuttingDown)
    }

    /// Stores any number of tasks, in chunks of 1,000 or what [`SubmitStream::chunk`] says, as the
    /// stream is advanced. Nothing is stored before its first [`next`](SubmitStream::next).
    #[must_use]
    pub fn submit_stream<T: Task, I: IntoIterator<Item = Submission<T>>>(
        &self,
        submissions: I,
    ) -> SubmitStream<T, I::IntoIter> {
        let chunk = self.inner.shared.settings.limits.bulk.min(1_000);
        SubmitStream::new(self.clone(), submissions.into_iter(), chunk)
    }

    /// The Dispatcher's address. It stays valid for the queue's life.
    #[must_use]
    pub fn dispatcher(&self) -> Addr<Dispatcher> {
        self.inner.dispatcher.clone()
    }

    /// A handle to a task by its id, also of an earlier process. Reads nothing: whether there is
    /// such a task, and whether it is a `T`, shows when the handle is used.
    #[must_use]
    pub fn handle<T: Task>(&self, id: TaskId) -> TaskHandle<T> {
        TaskHandle::new(self.clone(), id)
    }

    /// Sends the results of a definition's tasks to a mailbox, until the guard is dropped or the
    /// mailbox is closed. In memory, at most once. See [`Subscribe`] for what bounds it.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTask`] if the definition isn't registered; [`Error::ShuttingDown`] if the
    /// queue has ended.
    pub async fn subscribe<T: Task>(
        &self,
        mailbox: Recipient<TaskResult>,
    ) -> Result<SubscriptionGuard> {
        self.guard(Subscribe::to::<T>(mailbox)).await
    }

    /// Sends the results of all tasks to a mailbox. See [`Queue::subscribe`].
    ///
    /// # Errors
    ///
    /// [`Error::ShuttingDown`] if the queue has ended.
    pub async fn subscribe_all(&self, mailbox: Recipient<TaskResult>) -> Result<SubscriptionGuard> {
        self.guard(Subscribe::to_all(mailbox)).await
    }

    async fn guard(&self, subscribe: Subscribe) -> Result<SubscriptionGuard> {
        let id = self.asked()?.send(subscribe).await??;
        Ok(SubscriptionGuard { shared: self.inner.shared.clone(), id })
    }

    /// Where a task is.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], or [`Error::ResultExpired`] once its record has been removed;
    /// [`Error::ShardUnavailable`] or [`Error::Store`] if it can't be read;
    /// [`Error::ShuttingDown`] if the queue has ended.
    pub async fn status(&self, id: TaskId) -> Result<TaskStatus> {
        Ok(self.record(id).await?.status)
    }

    /// Everything that is stored of a task.
    ///
    /// # Errors
    ///
    /// As [`Queue::status`].
    pub async fn record(&self, id: TaskId) -> Result<TaskRecord> {
        self.asked()?.send(GetTask(id)).await?
    }

    /// A page of tasks by status and name, in order of their ids. It reads the rows one after
    /// another, at most 10,000 of each shard for a page, and holds up their shard meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a limit over 1,000; else as [`Queue::status`].
    pub async fn list(&self, list: ListTasks) -> Result<TaskPage> {
        self.asked()?.send(list).await?
    }

    /// How many tasks there are of each status, zeros included. Exact for each shard at one moment.
    ///
    /// # Errors
    ///
    /// [`Error::ShardUnavailable`] or [`Error::Store`] for a shard that can't be read;
    /// [`Error::ShuttingDown`] if the queue has ended.
    pub async fn counts(&self) -> Result<BTreeMap<TaskStatus, u64>> {
        let counts = self.asked()?.send(CountTasks).await??;
        Ok(counts.into_iter().collect())
    }

    /// Cancels a task: one that hasn't started never will; a running one is asked to end.
    ///
    /// A running attempt is told by [`TaskContext::is_cancelled`](crate::TaskContext::is_cancelled)
    /// and nothing else. If it returns a value all the same, the task is finished; if it fails or
    /// puts itself off, the task is cancelled. The request is kept in memory: a crash forgets it.
    /// Cancelling again changes nothing. Dropping the future leaves it open whether it was done.
    ///
    /// # Errors
    ///
    /// [`Error::ShardUnavailable`], [`Error::DiskFull`] or [`Error::Store`] for a shard that can't
    /// be written; [`Error::ShuttingDown`] if the queue has ended.
    pub async fn cancel(&self, id: TaskId) -> Result<CancelOutcome> {
        self.asked()?.send(Cancel(id)).await?
    }

    /// Lets a task that ended without success run again, as if it were new. A durable callback that
    /// failed is a task, too: redriving it delivers the result that its parent couldn't.
    /// Dropping the future leaves it open whether it was done.
    ///
    /// # Errors
    ///
    /// As [`Queue::cancel`].
    pub async fn redrive(&self, id: TaskId) -> Result<RedriveOutcome> {
        self.asked()?.send(Redrive(id)).await?
    }

    /// Copies every shard into a new directory while the queue is in use. Each shard's copy is
    /// consistent; the shards are copied one after the other. A shard stores nothing else while it
    /// is being copied. The directory is created, or must be empty.
    ///
    /// # Errors
    ///
    /// [`Error::Backup`], [`Error::ShardUnavailable`] or [`Error::Store`]; then the directory isn't
    /// a backup, and no restore takes it. Neither is it when the future is dropped.
    pub async fn backup(&self, to: impl AsRef<Path>) -> Result<()> {
        self.ensure_same_process()?;
        let to = to.as_ref().to_path_buf();
        let action = format!("back up to {}", to.display());
        let failed = move |source: StoreError| Error::Backup { action: action.clone(), source };
        let directory = self.inner.shared.directory().map_err(&failed)?;
        let prepare_failed = failed.clone();
        let prepare = move || BackupTarget::prepare(&directory, &to).map_err(prepare_failed);
        let target = off_thread(prepare).await?;
        let _copying = self.inner.shared.copying.clone();
        for shard in target.shards() {
            let ledger = self.complete_shard(shard).await?;
            let (answer, answered) = oneshot::channel();
            ledger.link.send(BackupTo { file: target.shard_path(shard), answer });
            answered.await.unwrap_or(Err(Error::ShardUnavailable { shard }))?;
        }
        off_thread(move || target.finish().map_err(failed)).await
    }

    /// Makes a queue directory out of a backup. The directory must not exist or be empty. It blocks
    /// while files are copied.
    ///
    /// Ids that the original may have given out after the backup aren't given out again: each
    /// shard skips 2³² numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Backup`]: the backup is incomplete or damaged, or the target isn't free.
    pub fn restore(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let options = DirectoryOptions::default();
        restore(from, to, &options).map_err(|source| Error::Backup {
            action: format!("restore {} into {}", from.display(), to.display()),
            source,
        })
    }

    /// The names of all registered tasks and callbacks, sorted.
    #[must_use]
    pub fn task_names(&self) -> Vec<String> {
        self.inner.shared.registry.task_names().into_iter().map(str::to_string).collect()
    }

    /// How many rows were written since the start, or since a shard's file was last opened again,
    /// over all shards.
    #[must_use]
    pub fn row_writes(&self) -> u64 {
        let shards = self.inner.shared.shards.iter();
        shards.map(|ledger| ledger.row_writes.load(std::sync::atomic::Ordering::Acquire)).sum()
    }

    /// How many transactions that wrote something were committed since the start, or since a
    /// shard's file was last opened again, over all shards.
    ///
    /// At durability `full` each of them syncs its file's log once, so this counts the syncs of
    /// commits. The two or three of a checkpoint, which folds a long log back into its file, aren't
    /// counted. At `normal` a commit isn't synced, but for the rare ones that reserve ids.
    #[must_use]
    pub fn commits(&self) -> u64 {
        let shards = self.inner.shared.shards.iter();
        shards.map(|ledger| ledger.commits.load(std::sync::atomic::Ordering::Acquire)).sum()
    }

    /// What this start found of the process before, over all shards.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        let mut sum = Recovery::default();
        for found in self.inner.recovered.values() {
            sum.restarted += found.restarted;
            sum.failed += found.failed;
            sum.callbacks += found.callbacks;
            sum.subscribers_gone += found.subscribers_gone;
            sum.unregistered += found.unregistered;
        }
        sum
    }

    /// Ends the queue in order.
    ///
    /// From now on submissions get [`Error::ShuttingDown`] and nothing is claimed. Attempts that
    /// wait in a worker are given back at once; those that run may end until the deadline, then
    /// async ones are dropped and given back, at no cost to their counters or their place in the
    /// order. A blocking one can't be stopped: it is given back too, named in the report, and its
    /// thread is left behind, as is one with blocking code that an async attempt started itself
    /// (`spawn_blocking`). Then deliveries are flushed, the files are checkpointed and closed, and
    /// the threads end.
    ///
    /// The end takes up to some seconds more than the deadline, per shard or thread that doesn't
    /// answer. What couldn't be closed is in the report, not an error.
    ///
    /// A second call waits for the first and returns the same report. Dropping the future stops
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error::ShuttingDown`] if the queue's own thread ended in a panic, so that there is no
    /// report.
    pub async fn shutdown(&self, deadline: Duration) -> Result<ShutdownReport> {
        self.ensure_same_process()?;
        self.inner.ending.run(deadline).await
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("phase", &self.inner.shared.phase())
            .field("shards", &self.shard_counts())
            .finish_non_exhaustive()
    }
}

/// A lock whose data stays usable after a panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
