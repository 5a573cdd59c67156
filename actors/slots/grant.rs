//! Credits taken for a batch, and what becomes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::{First, Freed, Slots};
use crate::queues::{QueueBudget, QueueIndex, QueueTally};
use crate::record::ShardId;
use crate::store::Passing;

/// Credits taken for a batch. What isn't used goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(super) slots: Arc<Slots>,
    pub(super) shard: ShardId,
    /// Worker → free slots granted.
    pub(super) free: BTreeMap<usize, usize>,
    /// Worker → places behind its slots granted.
    pub(super) behind: BTreeMap<usize, usize>,
    /// Worker → how long the attempts assigned take, in nanoseconds.
    pub(super) load_ns: BTreeMap<usize, u64>,
    /// Shards that may have what this one left.
    pub(super) wake: BTreeSet<ShardId>,
    /// Places of limited queues granted.
    pub(super) places: BTreeMap<QueueIndex, usize>,
    /// What was assigned of queues without a limit.
    pub(super) begun: QueueTally,
    pub(super) paused: Vec<QueueIndex>,
    /// What may be claimed of what stands after other shards' tasks.
    pub(super) passing: Vec<Passing>,
    /// The number of the run alone that this is for.
    pub(super) alone: Option<u64>,
}

impl Grant {
    pub(crate) fn slots(&self) -> usize {
        self.free.values().sum()
    }

    pub(crate) fn places_behind(&self) -> usize {
        self.behind.values().sum()
    }

    /// How many of each queue may be claimed.
    pub(crate) fn queues(&self) -> QueueBudget {
        let mut budget = QueueBudget::default();
        self.paused.iter().for_each(|queue| budget.limit(*queue, 0));
        self.places.iter().for_each(|(queue, places)| budget.limit(*queue, *places));
        budget
    }

    /// What may be claimed of what stands after other shards' tasks.
    pub(crate) fn passing(&self) -> &[Passing] {
        &self.passing
    }

    /// Tasks of these ranks were claimed.
    pub(crate) fn claimed(&self, ranks: impl Iterator<Item = i64>) {
        let Some(first) = self.passing.iter().map(|passing| passing.rank).min() else { return };
        let ranks: Vec<i64> = ranks.filter(|rank| *rank > first).collect();
        if !ranks.is_empty() {
            self.slots.lock().has_claimed(self.shard, &ranks);
        }
    }

    /// Takes a place for a claim of this queue; it now belongs to the attempt. Of a queue without a
    /// limit it counts once the rest is given back, before the attempt is with its worker.
    pub(crate) fn assign_place(&mut self, queue: QueueIndex) {
        match self.places.get_mut(&queue) {
            Some(left) if *left > 0 => *left -= 1,
            _ => self.begun.add(queue),
        }
    }

    /// The worker for the next claim; its credit now belongs to the attempt.
    /// `lasts_ns` is how long it takes, as far as is known.
    pub(crate) fn assign(&mut self, prefetched: bool, lasts_ns: u64) -> Option<usize> {
        let from = if prefetched { &mut self.behind } else { &mut self.free };
        let worker = *from.iter().max_by_key(|(_, count)| **count)?.0;
        let count = from.get_mut(&worker)?;
        *count -= 1;
        if *count == 0 {
            from.remove(&worker);
        }
        *self.load_ns.entry(worker).or_default() += lasts_ns;
        Some(worker)
    }

    /// Whether this is the grant of a suspect's run.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// The number of that run.
    pub(crate) fn run_alone(&self) -> Option<u64> {
        self.alone
    }

    /// Gives back what wasn't used. Returns the shards to wake.
    #[must_use = "these shards wait for credits"]
    pub(crate) fn give_back(mut self, assigned: bool) -> Vec<ShardId> {
        let alone = self.alone.take().filter(|_| !assigned);
        self.return_unused(alone)
    }

    /// What comes back wakes those who wait, a place behind slots only if it leaves one of them
    /// free: the places of a shard that guessed can be what kept another from a slot. Were they to
    /// wake while all slots are taken, two shards that can't use them would wake each other for
    /// ever.
    fn return_unused(&mut self, alone: Option<u64>) -> Vec<ShardId> {
        let mut wake: Vec<ShardId> = std::mem::take(&mut self.wake).into_iter().collect();
        let unused = !(self.free.is_empty() && self.behind.is_empty());
        if unused && self.alone.is_none() {
            // it had more credits than tasks: what it said that it wants was a guess
            let mut state = self.slots.lock();
            state.called.remove(&self.shard);
            if !self.free.is_empty() {
                state.waiting.remove(&self.shard);
            } else if let Some(want) = state.waiting.get_mut(&self.shard) {
                // it still waits for a slot, and looks again by itself for what
                want.first = First::UNKNOWN;
            }
        }
        // one that got no slot looks again by itself: woken, it would come here again at once
        let looks = self.free.is_empty().then_some(self.shard);
        for (queue, count) in std::mem::take(&mut self.places) {
            if count > 0 {
                wake.extend(self.slots.give_unused_places(looks, queue, count));
            }
        }
        let (load_ns, begun) = (std::mem::take(&mut self.load_ns), std::mem::take(&mut self.begun));
        if !load_ns.is_empty() {
            let mut state = self.slots.lock();
            load_ns.into_iter().for_each(|(worker, load_ns)| state.load_ns[worker] += load_ns);
            begun.iter().for_each(|(queue, places)| state.hold_places(queue, places));
        }
        for (worker, count) in std::mem::take(&mut self.behind) {
            let mut state = self.slots.lock();
            state.used[worker] = state.used[worker].saturating_sub(count);
            if state.alone.is_some() {
                wake.extend(state.silence());
            } else if state.used[worker] < self.slots.concurrency {
                wake.extend(state.call(Instant::now()));
            }
        }
        for (worker, count) in std::mem::take(&mut self.free) {
            let freed = Freed { attempts: count, ..Freed::default() };
            wake.extend(self.slots.release(worker, &freed));
        }
        if let Some(run) = alone {
            wake.extend(self.slots.alone_is_over(run));
        }
        wake
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        // only after a panic: a rebuilt shard wakes all that wait
        let alone = self.alone;
        let _ = self.return_unused(alone);
    }
}
