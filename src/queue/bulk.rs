//! Storing many tasks at once.

use std::collections::BTreeMap;

use super::Queue;
use crate::actors::dispatcher::{KEYS_APART, too_many};
use crate::actors::messages::{Submit, SubmitAll};
use crate::error::{Error, Result};
use crate::queue::TaskHandle;
use crate::record::{ShardId, TaskId};
use crate::submission::Submission;
use crate::task::Task;

impl Queue {
    /// Stores up to `limits.bulk` tasks in one transaction of one shard: all of them or none.
    /// The handles come in the order of the submissions; of none, none. Waits and can be dropped
    /// as [`Queue::submit`].
    ///
    /// Tasks with ordering keys are in the shards of their keys. If these are several, it is one
    /// transaction for each, one after the other: after an error, some of them may be stored.
    ///
    /// # Errors
    ///
    /// As [`Queue::submit`]; the first thing wrong with any of them. [`Error::InvalidOption`] for
    /// more than `limits.bulk`. [`Error::Unknown`] names the first task's id.
    pub async fn submit_all<T: Task>(
        &self,
        submissions: impl IntoIterator<Item = Submission<T>>,
    ) -> Result<Vec<TaskHandle<T>>> {
        self.ensure_same_process()?;
        let tasks: Vec<Submit> =
            submissions.into_iter().map(|submission| submission.submit).collect();
        let limit = self.inner.shared.settings.limits.bulk;
        if tasks.len() > limit {
            return Err(too_many(tasks.len()));
        }
        let mut shards = tasks.iter().filter_map(|task| self.shard_of(task));
        let first = shards.next();
        let ids = match shards.all(|shard| Some(shard) == first) {
            true => self.send_all(tasks).await?,
            false => self.send_parts(tasks).await?,
        };
        Ok(ids.into_iter().map(|id| self.handle(id)).collect())
    }

    /// The shard of a task's key, if it has one.
    fn shard_of(&self, task: &Submit) -> Option<ShardId> {
        task.ordering_key().map(|key| self.inner.shared.shard_of_key(key))
    }

    async fn send_all(&self, tasks: Vec<Submit>) -> Result<Vec<TaskId>> {
        let mut message = SubmitAll::new(tasks);
        if !message.tasks.is_empty() {
            let weight = message.tasks.iter().map(Submit::weight).sum();
            message.permit = Some(self.enter(message.tasks.len(), weight).await?);
        }
        self.inner.dispatcher.send(message).await?
    }

    /// Stores the tasks of each shard's keys, and those without a key, by themselves.
    async fn send_parts(&self, tasks: Vec<Submit>) -> Result<Vec<TaskId>> {
        let count = tasks.len();
        let mut parts: BTreeMap<Option<ShardId>, (Vec<usize>, Vec<Submit>)> = BTreeMap::new();
        for (place, task) in tasks.into_iter().enumerate() {
            let (places, part) = parts.entry(self.shard_of(&task)).or_default();
            places.push(place);
            part.push(task);
        }
        let mut ids = vec![None; count];
        for (places, part) in parts.into_values() {
            let stored = self.send_all(part).await.map_err(|error| match error {
                // a slot of keys has moved meanwhile
                Error::InvalidOption { given, .. } if given == KEYS_APART => {
                    self.inner.shared.busy(places.len())
                }
                error => error,
            })?;
            for (place, id) in places.into_iter().zip(stored) {
                ids[place] = Some(id);
            }
        }
        Ok(ids.into_iter().flatten().collect())
    }
}
