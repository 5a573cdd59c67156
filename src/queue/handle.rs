//! Waiting for one task.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Queue;
use crate::actors::ledger::ShardState;
use crate::actors::messages::Watch;
use crate::actors::system::Phase;
use crate::error::{Error, Result};
use crate::record::{TaskId, TaskRecord, TaskStatus};
use crate::result::TaskResult;
use crate::store::CancelOutcome;
use crate::task::Task;

/// How long a wait pauses while its shard is being rebuilt.
const REBUILD_PAUSE: Duration = Duration::from_millis(20);

/// A submitted task. Awaiting it gives its output, or the error that says how else it ended.
///
/// It reads: it is no target of the result, so a task that only handles wait for ends at
/// `Finished` or `Failed` with no delivery. It can be made again from the id, in a later process
/// too. Dropping it changes nothing for the task.
pub struct TaskHandle<T: Task> {
    queue: Queue,
    id: TaskId,
    definition: PhantomData<fn() -> T>,
}

impl<T: Task> TaskHandle<T> {
    pub(super) fn new(queue: Queue, id: TaskId) -> Self {
        TaskHandle { queue, id, definition: PhantomData }
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Waits until the task has ended, however it does, and returns how. While its shard is being
    /// rebuilt it goes on waiting. Dropping the future is harmless.
    ///
    /// # Errors
    ///
    /// [`Error::ResultExpired`] if its record is gone, [`Error::NotFound`] if it never was,
    /// [`Error::Store`] if it can't be read, [`Error::ShuttingDown`] if the queue ends first.
    pub async fn result(&self) -> Result<TaskResult> {
        self.queue.ensure_same_process()?;
        let shared = &self.queue.inner.shared;
        let id = self.id;
        let ledger = shared.shard(id.shard()).ok_or(Error::NotFound { id })?;
        loop {
            let (answer, answered) = oneshot::channel();
            ledger.link.send(Watch { id, answer });
            match answered.await {
                Ok(answer) => return answer,
                Err(_) if shared.phase() == Phase::Ended => return Err(Error::ShuttingDown),
                Err(_) if ledger.state() == ShardState::Quarantined => {
                    return Err(Error::ShardUnavailable { shard: ledger.id });
                }
                // the shard is being rebuilt and will answer
                Err(_) => tokio::time::sleep(REBUILD_PAUSE).await,
            }
        }
    }

    /// Waits until the task has ended, but not longer than `limit`. The task goes on either way.
    ///
    /// # Errors
    ///
    /// [`Error::WaitTimedOut`]; [`Error::OtherTask`] if the task isn't a `T`; [`Error::TaskFailed`],
    /// [`Error::Cancelled`] or [`Error::Expired`] if it ended without success; [`Error::Decode`] if its
    /// output isn't a `T::Output`, as if that has changed; else as [`TaskHandle::result`]. Awaiting the
    /// handle itself has the same errors but the first.
    pub async fn wait(&self, limit: Duration) -> Result<T::Output> {
        match tokio::time::timeout(limit, self.result()).await {
            Ok(result) => output::<T>(&result?),
            Err(_) => Err(Error::WaitTimedOut { id: self.id, waited: limit }),
        }
    }

    /// Cancels the task. See [`Queue::cancel`].
    ///
    /// # Errors
    ///
    /// As [`Queue::cancel`].
    pub async fn cancel(&self) -> Result<CancelOutcome> {
        self.queue.cancel(self.id).await
    }

    /// Where the task is.
    ///
    /// # Errors
    ///
    /// As [`Queue::status`].
    pub async fn status(&self) -> Result<TaskStatus> {
        self.queue.status(self.id).await
    }

    /// Everything that is stored of the task.
    ///
    /// # Errors
    ///
    /// As [`Queue::status`].
    pub async fn record(&self) -> Result<TaskRecord> {
        self.queue.record(self.id).await
    }
}

fn output<T: Task>(result: &TaskResult) -> Result<T::Output> {
    if result.name() != T::NAME {
        let (id, name) = (result.id(), result.name().to_owned());
        return Err(Error::OtherTask { id, name, expected: T::NAME });
    }
    result.decode()
}

impl<T: Task> Clone for TaskHandle<T> {
    fn clone(&self) -> Self {
        TaskHandle::new(self.queue.clone(), self.id)
    }
}

impl<T: Task> IntoFuture for TaskHandle<T> {
    type Output = Result<T::Output>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { output::<T>(&self.result().await?) })
    }
}

impl<T: Task> fmt::Debug for TaskHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskHandle({} {})", T::NAME, self.id)
    }
}
