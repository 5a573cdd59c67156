//! Credits: who may claim how many tasks.
//!
//! A credit is a free slot of a worker, or one of a bounded number of places behind its slots. A
//! shard takes credits for what it is about to claim and gives back what it didn't use; an attempt
//! holds its credit until it ends. A shard that got fewer than it wanted is woken when some come
//! back. All of it is one small ledger under one lock, taken once per batch: no actor's death loses
//! a credit, and no message has to travel for one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::record::ShardId;

/// The credits of all workers.
#[derive(Debug)]
pub(crate) struct Slots {
    workers: usize,
    concurrency: usize,
    prefetch: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Per worker: how many attempts it has, running or waiting in it.
    used: Vec<usize>,
    /// Per worker: how many of those may take long.
    slow: Vec<usize>,
    /// Shards that wanted more than they got.
    waiting: BTreeSet<ShardId>,
    /// Who wants to run, or runs, an attempt with nothing beside it.
    alone: Option<Alone>,
}

impl State {
    /// The shard that waits to run a suspect alone, if nothing runs any more.
    fn silence(&self) -> Option<ShardId> {
        let silent = self.used.iter().all(|used| *used == 0);
        self.alone.filter(|alone| silent && !alone.runs).map(|alone| alone.shard)
    }
}

#[derive(Clone, Copy, Debug)]
struct Alone {
    shard: ShardId,
    runs: bool,
}

/// Credits taken for a batch. What isn't used goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Grant {
    slots: Arc<Slots>,
    /// Worker → free slots granted.
    free: BTreeMap<usize, usize>,
    /// Worker → places behind its slots granted.
    behind: BTreeMap<usize, usize>,
    /// Worker → attempts assigned that may take long.
    slow: BTreeMap<usize, usize>,
    alone: bool,
}

impl Slots {
    pub(crate) fn new(workers: usize, concurrency: usize, prefetch: usize) -> Arc<Self> {
        let (used, slow) = (vec![0; workers], vec![0; workers]);
        let state = State { used, slow, waiting: BTreeSet::new(), alone: None };
        Arc::new(Slots { workers, concurrency, prefetch, state: Mutex::new(state) })
    }

    /// How many slots all workers have together.
    pub(crate) fn all(&self) -> usize {
        self.workers * self.concurrency
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // every critical section below leaves the counts consistent
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up to `wanted` credits for `shard`: free slots first, spread over the workers.
    pub(crate) fn take(self: &Arc<Self>, shard: ShardId, wanted: usize) -> Grant {
        let mut grant = Grant {
            slots: self.clone(),
            free: BTreeMap::new(),
            behind: BTreeMap::new(),
            slow: BTreeMap::new(),
            alone: false,
        };
        if wanted == 0 {
            return grant;
        }
        let mut state = self.lock();
        if state.alone.is_some() {
            state.waiting.insert(shard);
            return grant;
        }
        let state = &mut *state;
        let left = spread(&mut state.used, wanted, |_| self.concurrency, &mut grant.free);
        // a place behind a slot is no promise: only quick tasks may have it
        if left > 0 {
            state.waiting.insert(shard);
        } else {
            state.waiting.remove(&shard);
        }
        // nor may they wait behind a worker that is full of tasks that take long
        let full = |worker: usize| match state.slow[worker] < self.concurrency {
            true => self.concurrency + self.prefetch,
            false => 0,
        };
        spread(&mut state.used, left, full, &mut grant.behind);
        grant
    }

    /// Asks for the whole queue, to run one suspect of `shard` alone. While somebody waits for
    /// that, nothing else is claimed; it is granted when nothing runs.
    pub(crate) fn take_alone(self: &Arc<Self>, shard: ShardId) -> Option<Grant> {
        let mut state = self.lock();
        let alone = state.alone.get_or_insert(Alone { shard, runs: false });
        let mine = alone.shard == shard && !alone.runs;
        if !mine || state.used.iter().any(|used| *used > 0) {
            state.waiting.insert(shard);
            return None;
        }
        state.alone = Some(Alone { shard, runs: true });
        state.used[0] += 1;
        let free = BTreeMap::from([(0, 1)]);
        let (behind, slow) = Default::default();
        Some(Grant { slots: self.clone(), free, behind, slow, alone: true })
    }

    /// Gives up waiting for the whole queue: there is no suspect left.
    #[must_use = "these shards wait for credits"]
    pub(crate) fn give_up_alone(&self, shard: ShardId) -> Vec<ShardId> {
        let mut state = self.lock();
        if state.alone.is_some_and(|alone| alone.shard == shard && !alone.runs) {
            state.alone = None;
            return std::mem::take(&mut state.waiting).into_iter().collect();
        }
        Vec::new()
    }

    /// Gives back `count` credits of a worker, `slow` of them of attempts that could take long.
    /// Returns the shards to wake.
    #[must_use = "these shards wait for credits"]
    pub(crate) fn release(
        &self,
        worker: usize,
        count: usize,
        slow: usize,
        alone: bool,
    ) -> Vec<ShardId> {
        let mut state = self.lock();
        state.used[worker] = state.used[worker].saturating_sub(count);
        state.slow[worker] = state.slow[worker].saturating_sub(slow);
        if alone {
            state.alone = None;
        }
        if state.alone.is_some() {
            return state.silence().into_iter().collect();
        }
        std::mem::take(&mut state.waiting).into_iter().collect()
    }

    /// Whether a worker has a free slot that `shard`, which has ready tasks left, may claim
    /// against now. If none has, it is woken when one comes back: another shard may hold them all
    /// only until its batch is stored.
    pub(crate) fn free_or_wait(&self, shard: ShardId) -> bool {
        let mut state = self.lock();
        let free = state.alone.is_none() && state.used.iter().any(|used| *used < self.concurrency);
        if !free {
            state.waiting.insert(shard);
        }
        free
    }
}

/// Fills each worker up to its `level`, all with an equal part of what there is to give.
fn spread(
    used: &mut [usize],
    mut wanted: usize,
    level: impl Fn(usize) -> usize,
    granted: &mut BTreeMap<usize, usize>,
) -> usize {
    let workers = used.len();
    let mut share = wanted.div_ceil(workers.max(1));
    while wanted > 0 && share > 0 {
        let before = wanted;
        let mut order: Vec<usize> = (0..workers).collect();
        order.sort_by_key(|worker| used[*worker]);
        for worker in order {
            let room = level(worker).saturating_sub(used[worker]);
            let part = room.min(share).min(wanted);
            if part > 0 {
                used[worker] += part;
                wanted -= part;
                *granted.entry(worker).or_default() += part;
            }
        }
        if wanted == before {
            break;
        }
        share = wanted.div_ceil(workers);
    }
    wanted
}

impl Grant {
    pub(crate) fn slots(&self) -> usize {
        self.free.values().sum()
    }

    pub(crate) fn places_behind(&self) -> usize {
        self.behind.values().sum()
    }

    /// The worker for the next claim; its credit now belongs to the attempt.
    pub(crate) fn assign(&mut self, prefetched: bool, slow: bool) -> Option<usize> {
        let from = if prefetched { &mut self.behind } else { &mut self.free };
        let worker = *from.iter().max_by_key(|(_, count)| **count)?.0;
        let count = from.get_mut(&worker)?;
        *count -= 1;
        if *count == 0 {
            from.remove(&worker);
        }
        if slow {
            *self.slow.entry(worker).or_default() += 1;
        }
        Some(worker)
    }

    /// Whether this is the grant of a suspect's run.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Gives back what wasn't used. Returns the shards to wake.
    #[must_use = "these shards wait for credits"]
    pub(crate) fn give_back(mut self, assigned: bool) -> Vec<ShardId> {
        let alone = self.alone && !assigned;
        self.alone = false;
        self.return_unused(alone)
    }

    /// What comes back wakes those who wait, a place behind slots only if it leaves one of them
    /// free: the places of a shard that guessed can be what kept another from a slot. Were they to
    /// wake while all slots are taken, two shards that can't use them would wake each other for
    /// ever.
    fn return_unused(&mut self, alone: bool) -> Vec<ShardId> {
        let mut wake = Vec::new();
        for (worker, count) in std::mem::take(&mut self.slow) {
            self.slots.lock().slow[worker] += count;
        }
        for (worker, count) in std::mem::take(&mut self.behind) {
            let mut state = self.slots.lock();
            state.used[worker] = state.used[worker].saturating_sub(count);
            if state.alone.is_some() {
                wake.extend(state.silence());
            } else if state.used[worker] < self.slots.concurrency {
                wake.extend(std::mem::take(&mut state.waiting));
            }
        }
        if alone && self.free.is_empty() {
            wake.extend(self.slots.release(0, 0, 0, true));
        }
        for (worker, count) in std::mem::take(&mut self.free) {
            wake.extend(self.slots.release(worker, count, 0, alone));
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

#[cfg(test)]
mod tests;
