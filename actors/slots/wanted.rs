//! What a shard could claim, queue by queue.

use super::Want;
use crate::queues::{QueueIndex, Queues};
use crate::store::Runnable;

/// What a shard could claim.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The rank of the first of them; `i64::MAX` if that isn't known.
    pub(super) head: i64,
    /// Tasks of queues without a limit.
    pub(super) free: usize,
    pub(super) limited: Vec<OfQueue>,
    pub(super) paused: Vec<QueueIndex>,
}

/// Tasks of a limited queue.
#[derive(Debug)]
pub(super) struct OfQueue {
    pub(super) queue: QueueIndex,
    pub(super) limit: usize,
    pub(super) tasks: usize,
    /// Whether any of them is known to be there.
    pub(super) certain: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        let (limited, paused) = Default::default();
        Wanted { head: i64::MAX, free: 0, limited, paused }
    }
}

impl Wanted {
    /// What is known to be ready, of queues that aren't paused. `guess` is how many there may be of a
    /// queue of which more is on disk.
    pub(crate) fn of(runnable: &[Runnable], queues: &Queues, guess: usize) -> Self {
        let mut wanted = Wanted::default();
        if queues.any_restrained() {
            for queue in queues.all() {
                if queue.is_paused() {
                    wanted.paused.push(queue.index);
                } else if let Some(limit) = queue.limit() {
                    let (queue, tasks, certain) = (queue.index, 0, false);
                    wanted.limited.push(OfQueue { queue, limit, tasks, certain });
                }
            }
        }
        for one in runnable {
            let tasks = one.ready + if one.more { guess } else { 0 } + usize::from(one.suspects);
            wanted.add(one.queue, tasks, one.head);
        }
        wanted
    }

    /// Adds tasks that are there, the first of which has this rank.
    pub(crate) fn add(&mut self, queue: QueueIndex, tasks: usize, head: i64) {
        if self.is_paused(queue) || tasks == 0 {
            return;
        }
        self.head = self.head.min(head);
        match self.limited.iter_mut().find(|limited| limited.queue == queue) {
            Some(limited) => {
                limited.tasks += tasks;
                limited.certain = true;
            }
            None => self.free += tasks,
        }
    }

    /// Adds as many to each queue as may become ready and nobody knows of.
    pub(crate) fn guess(&mut self, tasks: usize) {
        self.free += tasks;
        self.limited.iter_mut().for_each(|limited| limited.tasks += tasks);
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

    pub(super) fn want(&self) -> Want {
        let limited: usize = self.limited.iter().map(|limited| limited.tasks).sum();
        Want { tasks: self.free + limited, head: self.head }
    }
}
