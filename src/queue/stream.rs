//! Submitting any number of tasks in bounded memory.

use std::fmt;
use std::mem;

use super::Queue;
use crate::actors::messages::Submit;
use crate::error::{Error, Result};
use crate::queue::TaskHandle;
use crate::submission::Submission;
use crate::task::Task;

/// Submits what an iterator yields, a chunk at a time.
///
/// Each call of [`next`](SubmitStream::next) takes the next chunk, stores it as
/// [`Queue::submit_all`] does (all of it or none, but for ordering keys of several shards) and
/// returns its handles. Nothing is read ahead, so memory is bounded by one chunk.
pub struct SubmitStream<T: Task, I: Iterator<Item = Submission<T>>> {
    queue: Queue,
    submissions: I,
    chunk: usize,
    /// A chunk that isn't let in yet.
    waiting: Vec<Submit>,
}

impl<T: Task, I: Iterator<Item = Submission<T>>> SubmitStream<T, I> {
    pub(super) fn new(queue: Queue, submissions: I, chunk: usize) -> Self {
        SubmitStream { queue, submissions, chunk, waiting: Vec::new() }
    }

    /// How many tasks a chunk has, from 1 to `limits.bulk`; 1,000 if not set. Values beyond are
    /// brought into that range. Of tasks whose arguments stay in memory, let it have no more than
    /// `limits.cached_arguments`: a chunk with more is refused.
    #[must_use]
    pub fn chunk(mut self, tasks: usize) -> Self {
        self.chunk = tasks.clamp(1, self.queue.inner.shared.settings.limits.bulk.max(1));
        self
    }

    /// Submits the next chunk; `None` when there is nothing left.
    ///
    /// After [`Error::Busy`] nothing of the chunk is stored, and the next call offers it again:
    /// wait as long as the error says before that. Any other error concerns this chunk only, and
    /// the next call goes on with the one after. What is stored of the chunk then is in
    /// [`Queue::submit_all`]: nothing, in most cases.
    ///
    /// Dropping the future while it waits for room stores nothing, and the next call offers the
    /// same chunk. After that it leaves it open whether the chunk was stored.
    pub async fn next(&mut self) -> Option<Result<Vec<TaskHandle<T>>>> {
        if self.waiting.is_empty() {
            let next = self.submissions.by_ref().take(self.chunk);
            self.waiting.extend(next.map(|submission| submission.submit));
        }
        if self.waiting.is_empty() { None } else { Some(self.submit().await) }
    }

    async fn submit(&mut self) -> Result<Vec<TaskHandle<T>>> {
        let demand = self.waiting.iter().map(Submit::demand).sum();
        let entered = match self.queue.enter(demand).await {
            Err(busy @ Error::Busy { .. }) => return Err(busy),
            entered => entered,
        };
        let tasks = mem::take(&mut self.waiting);
        self.queue.send_all(tasks, entered?).await
    }
}

impl<T: Task, I: Iterator<Item = Submission<T>>> fmt::Debug for SubmitStream<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubmitStream({}, chunks of {})", T::NAME, self.chunk)
    }
}
