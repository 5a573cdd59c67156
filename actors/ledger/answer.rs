//! The answer that submissions are owed, and who waits for it.

use std::fmt;

use actix::dev::OneshotSender;

use crate::error::{Error, Result};
use crate::record::{ShardId, TaskId};

/// Who waits for the ids of a group of submissions.
pub(crate) enum Waiter {
    /// The caller of one `Submit`; nobody, if it was sent without waiting.
    One(Option<OneshotSender<Result<TaskId>>>),
    /// The caller of a `SubmitAll`.
    All(Option<OneshotSender<Result<Vec<TaskId>>>>),
}

/// The answer that a submission is owed. If it is dropped unanswered, the caller is told what is
/// true then: nothing was stored, or it isn't known.
pub(crate) struct Answer {
    shard: ShardId,
    waiter: Waiter,
    /// The ids that a commit of unknown outcome was to store.
    ids: Vec<TaskId>,
    given: bool,
}

impl Answer {
    pub(crate) fn new(shard: ShardId, waiter: Waiter) -> Self {
        Answer { shard, waiter, ids: Vec::new(), given: false }
    }

    pub(crate) fn set_waiter(&mut self, waiter: Waiter) {
        self.waiter = waiter;
    }

    /// The commit's outcome is unknown; these are the ids, if it worked.
    pub(crate) fn expect_ids(&mut self, ids: Vec<TaskId>) {
        self.ids = ids;
    }

    pub(crate) fn ids(&self) -> &[TaskId] {
        &self.ids
    }

    pub(crate) fn give(mut self, result: Result<Vec<TaskId>>) {
        self.send(result);
    }

    fn send(&mut self, result: Result<Vec<TaskId>>) {
        if std::mem::replace(&mut self.given, true) {
            return;
        }
        match &mut self.waiter {
            Waiter::One(waiter) => {
                let unknown = Error::ShardUnavailable { shard: self.shard };
                let one = result.and_then(|ids| ids.first().copied().ok_or(unknown));
                match waiter.take() {
                    Some(waiter) => drop(waiter.send(one)),
                    None => {
                        if let Err(error) = one {
                            tracing::warn!(%error, "a submission that nobody waits for is refused");
                        }
                    }
                }
            }
            Waiter::All(waiter) => {
                if let Some(waiter) = waiter.take() {
                    drop(waiter.send(result));
                }
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let error = match self.ids.first() {
            Some(id) => Error::Unknown { id: *id },
            None => Error::ShardUnavailable { shard: self.shard },
        };
        self.send(Err(error));
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer(shard {}, given {})", self.shard, self.given)
    }
}
