//! Named queues: pausing, resuming and limiting them.

use std::collections::BTreeMap;
use std::panic::Location;

use super::Queue;
use super::off_thread::off_thread;
use crate::actors::system::Shared;
use crate::error::{Error, Result, StartError};
use crate::queues::{NamedQueue, Queues};
use crate::registry::is_valid_name;
use crate::store::StoredQueue;

/// A named queue as it is at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedQueueInfo {
    /// Its name.
    pub name: String,
    /// Whether it is paused: its tasks are accepted and none of them starts.
    pub paused: bool,
    /// How many of its tasks run at a time at most, if that is limited.
    pub concurrency: Option<usize>,
}

impl From<&NamedQueue> for NamedQueueInfo {
    fn from(queue: &NamedQueue) -> Self {
        NamedQueueInfo {
            name: queue.name.to_string(),
            paused: queue.is_paused(),
            concurrency: queue.limit(),
        }
    }
}

impl Queue {
    /// Pauses a named queue: its tasks are accepted and stored, and none of them starts until
    /// [`resume_queue`](Queue::resume_queue), also after a restart. Attempts in progress go on, and so
    /// may one that a worker is just about to begin when this returns. Other queues aren't affected.
    /// Returns whether it wasn't paused before.
    ///
    /// A name that nobody has used yet is a queue as well, without tasks so far.
    ///
    /// Tasks that wait in a paused queue count in `limits.ready_tasks`, which bounds what waits on disk.
    /// Where that is set, a queue that is paused for long can stop submissions to all others: set it
    /// well above what comes meanwhile, or leave it out, as it is by default.
    ///
    /// Changes of queues are made one after another. Dropping the future before its turn has come
    /// changes nothing; from then on the change is made all the same, before the next.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`]; [`Error::InvalidOption`] for one name more than a process knows;
    /// [`Error::Directory`] if it can't be stored, then it isn't paused; [`Error::Start`] if no thread
    /// can be had for that.
    pub async fn pause_queue(&self, name: &str) -> Result<bool> {
        let store = |queue: &mut StoredQueue| queue.paused = true;
        self.change(name, "pause", store, |shared, queue| {
            let changed = shared.queues.set_paused(queue.index, true);
            // each finds that its queue is paused, which no other change ends meanwhile
            shared.pool.take(queue.index).for_each(|job| job());
            tracing::info!(queue = %queue.name, changed, "queue paused");
            changed
        })
        .await
    }

    /// Lets the tasks of a paused queue start again. Returns whether it was paused. Dropping the
    /// future means what it does for [`Queue::pause_queue`].
    ///
    /// # Errors
    ///
    /// As [`Queue::pause_queue`]; then it is still paused.
    pub async fn resume_queue(&self, name: &str) -> Result<bool> {
        let store = |queue: &mut StoredQueue| queue.paused = false;
        self.change(name, "resume", store, |shared, queue| {
            let changed = shared.queues.set_paused(queue.index, false);
            wake_all(shared);
            tracing::info!(queue = %queue.name, changed, "queue resumed");
            changed
        })
        .await
    }

    /// Limits how many tasks of a named queue run at a time, over all shards; `None` is without a
    /// limit. It is kept over restarts; what the builder says of the same queue wins at a start.
    /// Attempts in progress go on and count, whenever they began: no other begins before fewer run
    /// than this says. Dropping the future means what it does for [`Queue::pause_queue`].
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for 0 (pause the queue instead); else as [`Queue::pause_queue`], then
    /// the limit is what it was.
    pub async fn limit_queue(&self, name: &str, concurrency: Option<usize>) -> Result<()> {
        if concurrency == Some(0) {
            let (option, given) = ("concurrency", "0".into());
            return Err(Error::InvalidOption { option, given, allowed: "from 1 on, or none" });
        }
        let store = move |queue: &mut StoredQueue| queue.concurrency = concurrency;
        self.change(name, "limit", store, move |shared, queue| {
            shared.queues.set_limit(queue.index, concurrency);
            wake_all(shared);
        })
        .await
    }

    /// The named queues that this process knows: those that its definitions name, that submissions
    /// named, and that have had a task in the files. `"default"` is the first.
    #[must_use]
    pub fn named_queues(&self) -> Vec<NamedQueueInfo> {
        let queues = self.inner.shared.queues.all();
        queues.iter().map(|queue| NamedQueueInfo::from(&**queue)).collect()
    }

    /// Changes a queue in the directory, then in memory: so nothing has to be taken back. As long as a
    /// change goes on there is no other, also if nobody waits for it any more.
    async fn change<T: Send + 'static>(
        &self,
        name: &str,
        verb: &'static str,
        store: impl FnOnce(&mut StoredQueue) + Send + 'static,
        then: impl FnOnce(&Shared, &NamedQueue) -> T + Send + 'static,
    ) -> Result<T> {
        self.ensure_same_process()?;
        let shared = self.inner.shared.clone();
        let queue = shared.queues.get(shared.queues_of().find(name)?);
        let turn = shared.changing_queues.clone().lock_owned().await;
        let work = move || {
            let _one_at_a_time = turn;
            let directory = shared.directory();
            let stored = directory.and_then(|of| of.change_queue(&queue.name, store));
            stored.map_err(|source| {
                let action = format!("{verb} the queue {:?}", queue.name);
                Error::Directory { action, source }
            })?;
            Ok(then(&shared, &queue))
        };
        off_thread(work).await
    }
}

/// Lets all shards look whether something may run now.
fn wake_all(shared: &Shared) {
    shared.wake(shared.shards.iter().map(|ledger| ledger.id).collect());
}

/// What a builder says of a named queue.
#[derive(Clone, Debug)]
pub(super) struct DeclaredQueue {
    pub(super) name: String,
    pub(super) concurrency: usize,
    pub(super) place: &'static Location<'static>,
}

impl DeclaredQueue {
    /// What is wrong with it.
    pub(super) fn mistake(&self) -> Option<StartError> {
        let name: String = self.name.chars().take(80).collect();
        let place = format!("{}:{}", self.place.file(), self.place.line());
        if !is_valid_name(&self.name) {
            return Some(StartError::InvalidName { name, place });
        }
        let (option, given, allowed) = ("concurrency", self.concurrency.to_string(), "from 1 on");
        let mistake = StartError::InvalidOption { name, place, option, given, allowed };
        (self.concurrency == 0).then_some(mistake)
    }
}

/// Sets what is stored of queues, and over it what the builder says.
pub(super) fn set_queues(
    queues: &Queues,
    stored: &BTreeMap<String, StoredQueue>,
    declared: &[DeclaredQueue],
) {
    for (name, stored) in stored {
        let index = queues.get_or_add(name);
        queues.set_paused(index, stored.paused);
        queues.set_limit(index, stored.concurrency.filter(|limit| *limit > 0));
        if stored.paused {
            tracing::warn!(queue = name, "a queue is paused since before this start");
        }
    }
    for queue in declared {
        queues.set_limit(queues.get_or_add(&queue.name), Some(queue.concurrency));
    }
}

#[cfg(test)]
mod tests;
