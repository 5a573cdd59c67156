//! The answer that submissions are owed, and who waits for it.

use std::fmt;

use actix::dev::OneshotSender;

use crate::error::{Error, Result};
use crate::record::{ShardId, TaskId};

/// Who waits for the ids of a group of submissions.
pub(crate) enum Waiter {
    /// The caller of one `Submit`; nobody, if it was sent without waiting.
    One(Option<OneshotSender<Result<TaskId>>>),
    /// The caller of a `SubmitAll`; nobody, likewise.
    All(Option<OneshotSender<Result<Vec<TaskId>>>>),
    /// It was told.
    Told,
}

/// The answer that a submission is owed. If it is dropped unanswered, the caller is told what is
/// true then: nothing was stored, or it isn't known.
pub(crate) struct Answer {
    shard: ShardId,
    waiter: Waiter,
    ids: Ids,
}

/// The ids that a commit is to store. One submission costs no allocation for its one.
enum Ids {
    None,
    One(TaskId),
    Many(Vec<TaskId>),
}

impl Answer {
    pub(crate) fn new(shard: ShardId, waiter: Waiter) -> Self {
        Answer { shard, waiter, ids: Ids::None }
    }

    pub(crate) fn set_waiter(&mut self, waiter: Waiter) {
        self.waiter = waiter;
    }

    /// A commit is about to store these.
    pub(crate) fn expect(&mut self, mut ids: impl Iterator<Item = TaskId>) {
        self.ids = match self.waiter {
            Waiter::One(_) => ids.next().map_or(Ids::None, Ids::One),
            Waiter::All(_) | Waiter::Told => Ids::Many(ids.collect()),
        };
    }

    /// No commit stored anything.
    pub(crate) fn expect_none(&mut self) {
        self.ids = Ids::None;
    }

    pub(crate) fn ids(&self) -> &[TaskId] {
        match &self.ids {
            Ids::None => &[],
            Ids::One(id) => std::slice::from_ref(id),
            Ids::Many(ids) => ids,
        }
    }

    /// The ids that were expected are stored.
    pub(crate) fn stored(mut self) {
        let unknown = Error::ShardUnavailable { shard: self.shard };
        match (&mut self.waiter, std::mem::replace(&mut self.ids, Ids::None)) {
            (Waiter::One(waiter), ids) => {
                let one = match ids {
                    Ids::One(id) => Ok(id),
                    Ids::None | Ids::Many(_) => Err(unknown),
                };
                if let Some(waiter) = waiter.take() {
                    drop(waiter.send(one));
                }
            }
            (Waiter::All(waiter), ids) => {
                let ids = if let Ids::Many(ids) = ids { ids } else { Vec::new() };
                if let Some(waiter) = waiter.take() {
                    drop(waiter.send(Ok(ids)));
                }
            }
            (Waiter::Told, _) => {}
        }
        self.waiter = Waiter::Told;
    }

    /// Nothing is stored. False if nobody waits for the answer: then it is for the log.
    pub(crate) fn refuse(mut self, error: Error) -> bool {
        self.tell(error)
    }

    fn tell(&mut self, error: Error) -> bool {
        match std::mem::replace(&mut self.waiter, Waiter::Told) {
            Waiter::One(Some(waiter)) => drop(waiter.send(Err(error))),
            Waiter::All(Some(waiter)) => drop(waiter.send(Err(error))),
            Waiter::One(None) | Waiter::All(None) => return false,
            Waiter::Told => {}
        }
        true
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Waiter::Told = self.waiter {
            return;
        }
        let error = match self.ids().first() {
            Some(id) => Error::Unknown { id: *id },
            None => Error::ShardUnavailable { shard: self.shard },
        };
        if !self.tell(error.clone()) {
            tracing::warn!(%error, "a submission that nobody waits for is lost");
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer(shard {}, ids {:?})", self.shard, self.ids())
    }
}
