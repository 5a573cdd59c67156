//! Storing many tasks at once.

use super::Queue;
use crate::actors::messages::{Part, Submit, SubmitAll, SubmitKeyed};
use crate::admission::Permit;
use crate::error::{Error, Result};
use crate::queue::TaskHandle;
use crate::record::TaskId;
use crate::submission::Submission;
use crate::task::Task;

impl Queue {
    /// Stores up to `limits.bulk` tasks in one transaction of one shard: all of them or none.
    /// The handles come in the order of the submissions; of none, none. Waits and can be dropped
    /// as [`Queue::submit`].
    ///
    /// Tasks with ordering keys are in the shards of their keys. If these are several, it is a
    /// transaction in each of them, and one more for the tasks without a key. Room is taken for
    /// all of them, and each is checked, before any is stored. What can go wrong after that is a
    /// shard's own: see below.
    ///
    /// # Errors
    ///
    /// As [`Queue::submit`]; the first thing wrong with any of them. [`Error::InvalidOption`] for
    /// more than `limits.bulk`, or more than `limits.cached_arguments` whose arguments stay in
    /// memory. [`Error::Unknown`] names the id of the first task of its
    /// transaction.
    ///
    /// With keys of several shards, nothing is stored after a mistake, [`Error::Busy`],
    /// [`Error::ShuttingDown`] or [`Error::Forked`]. After [`Error::DiskFull`],
    /// [`Error::ShardUnavailable`], [`Error::Store`], [`Error::NotFound`] or [`Error::Unknown`],
    /// which one shard gave, the tasks of the others may be stored: submitting all of them again
    /// would store those twice. The error comes when all shards have answered.
    pub async fn submit_all<T: Task>(
        &self,
        submissions: impl IntoIterator<Item = Submission<T>>,
    ) -> Result<Vec<TaskHandle<T>>> {
        self.ensure_same_process()?;
        let tasks: Vec<Submit> =
            submissions.into_iter().map(|submission| submission.submit).collect();
        if tasks.is_empty() {
            self.inner.dispatcher.send(SubmitAll::new(tasks)).await??;
            return Ok(Vec::new());
        }
        let demand = tasks.iter().map(Submit::demand).sum();
        let permit = self.enter(demand).await?;
        self.send_all(tasks, permit).await
    }

    /// Sends tasks that were let in.
    pub(super) async fn send_all<T: Task>(
        &self,
        tasks: Vec<Submit>,
        permit: Permit,
    ) -> Result<Vec<TaskHandle<T>>> {
        let ids = match tasks.iter().any(|task| task.ordering_key().is_some()) {
            true => self.send_keyed(SubmitKeyed { tasks, permit }).await?,
            false => {
                let message = SubmitAll { tasks, permit: Some(permit) };
                self.inner.dispatcher.send(message).await??
            }
        };
        Ok(ids.into_iter().map(|id| self.handle(id)).collect())
    }

    /// Waits for the answers of all shards, so that nothing is on its way after an error.
    async fn send_keyed(&self, message: SubmitKeyed) -> Result<Vec<TaskId>> {
        let mut ids = vec![None; message.tasks.len()];
        let mut refused = None;
        for Part { places, shard, stored } in self.inner.dispatcher.send(message).await?? {
            match stored.await.unwrap_or(Err(Error::ShardUnavailable { shard })) {
                Ok(stored) => {
                    for (place, id) in places.into_iter().zip(stored) {
                        ids[place] = Some(id);
                    }
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            Some(error) => Err(error),
            None => Ok(ids.into_iter().flatten().collect()),
        }
    }
}
