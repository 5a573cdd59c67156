//! What a shard could claim, queue by queue.

use std::time::Duration;

use super::{KEPT_FOR_MIN, Want};
use crate::queues::{QueueIndex, Queues};
use crate::store::Runnable;

/// What stands first of some tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct First {
    /// Its rank; `i64::MAX` if that isn't known.
    pub(crate) rank: i64,
    pub(crate) ahead: Ahead,
}

/// Whether something may be claimed ahead, to wait behind a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// It is known to be over soon.
    Quick,
    /// It needs a free slot, but others may wait behind slots once it has one: it blocks, on a thread
    /// of its own.
    ButOthers,
    Never,
}

impl First {
    pub(super) const UNKNOWN: First = First { rank: i64::MAX, ahead: Ahead::Quick };

    fn or(self, other: First) -> First {
        if other.rank < self.rank { other } else { self }
    }
}

/// What a shard could claim.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Tasks of queues without a limit, and the first of them.
    pub(super) free: usize,
    pub(super) first: First,
    pub(super) limited: Vec<OfQueue>,
    pub(super) paused: Vec<QueueIndex>,
    /// How long slots are kept for it once it was woken for them.
    pub(super) kept_for: Duration,
}

/// Tasks of a limited queue.
#[derive(Debug)]
pub(super) struct OfQueue {
    pub(super) queue: QueueIndex,
    pub(super) limit: usize,
    pub(super) tasks: usize,
    pub(super) first: First,
    /// Whether any of them is known to be there.
    pub(super) certain: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        let (limited, paused) = Default::default();
        Wanted { free: 0, first: First::UNKNOWN, limited, paused, kept_for: KEPT_FOR_MIN }
    }
}

impl Wanted {
    /// What is known to be ready, of queues that aren't paused. `guess` is how many there may be of a
    /// queue of which more is on disk; `ahead` tells it of a definition.
    pub(crate) fn of(
        runnable: &[Runnable],
        queues: &Queues,
        guess: usize,
        ahead: impl Fn(usize) -> Ahead,
    ) -> Self {
        let mut wanted = Wanted::default();
        if queues.any_restrained() {
            for queue in queues.all() {
                if queue.is_paused() {
                    wanted.paused.push(queue.index);
                } else if let Some(limit) = queue.limit() {
                    let (queue, first) = (queue.index, First::UNKNOWN);
                    wanted.limited.push(OfQueue { queue, limit, tasks: 0, first, certain: false });
                }
            }
        }
        for one in runnable {
            let tasks = one.ready + if one.more { guess } else { 0 } + usize::from(one.suspects);
            let first = First { rank: one.head, ahead: one.first.map_or(Ahead::Quick, &ahead) };
            wanted.add(one.queue, tasks, first);
        }
        wanted
    }

    /// Has slots kept for so long.
    pub(crate) fn kept_for(self, kept_for: Duration) -> Self {
        Wanted { kept_for, ..self }
    }

    /// Adds tasks that are there.
    pub(crate) fn add(&mut self, queue: QueueIndex, tasks: usize, first: First) {
        if self.is_paused(queue) || tasks == 0 {
            return;
        }
        match self.limited.iter_mut().find(|limited| limited.queue == queue) {
            Some(limited) => {
                limited.tasks += tasks;
                limited.first = limited.first.or(first);
                limited.certain = true;
            }
            None => {
                self.free += tasks;
                self.first = self.first.or(first);
            }
        }
    }

    /// Adds as many to each queue as may become ready and nobody knows of.
    pub(crate) fn guess(&mut self, tasks: usize) {
        self.free += tasks;
        self.limited.iter_mut().for_each(|limited| limited.tasks += tasks);
    }

    /// Whether what stands first may be claimed ahead, in whatever queue it is.
    pub(crate) fn ahead(&self) -> Ahead {
        self.want(|of| of.tasks).first.ahead
    }

    pub(crate) fn is_paused(&self, queue: QueueIndex) -> bool {
        self.paused.contains(&queue)
    }

    /// Whether there is no bound but the slots.
    pub(crate) fn is_unrestrained(&self) -> bool {
        self.paused.is_empty() && self.limited.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free == 0 && self.limited.iter().all(|limited| limited.tasks == 0)
    }

    /// What is wanted, of limited queues as many as may run: what may not has no slots kept for it.
    pub(super) fn want(&self, may_run: impl Fn(&OfQueue) -> usize) -> Want {
        let mut want = Want { tasks: self.free, first: self.first, kept_for: self.kept_for };
        for limited in &self.limited {
            let tasks = may_run(limited).min(limited.tasks);
            if tasks > 0 {
                want.tasks += tasks;
                want.first = want.first.or(limited.first);
            }
        }
        want
    }
}
