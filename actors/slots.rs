//! Credits: who may claim how many tasks.
//!
//! A credit is a free slot of a worker, or one of a bounded number of places behind its slots. A
//! shard takes credits for what it is about to claim and gives back what it didn't use; an attempt
//! holds its credit until it ends. A shard that got fewer than it wanted is woken when some come
//! back. All of it is one small ledger under one lock, taken once per batch: no actor's death loses
//! a credit, and no message has to travel for one.
//!
//! Of several shards that wait for slots, the one whose first task stands before the others' has
//! them: what it wants is kept for it for a moment after it was woken. The others get only such places
//! behind slots as it leaves over, and none if that task may not wait behind a slot, which would never
//! come free. What an urgent task takes along passes others' first tasks only until it makes a batch
//! (`passing`). So a task waits for no more than a batch of lower tasks: those that were claimed before
//! it was there, or while its shard was busy with a commit.

mod grant;
mod passing;
mod state;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use grant::Grant;
use state::{Alone, State, Want};
pub(crate) use wanted::{Ahead, First, Wanted};

use crate::queues::{QueueIndex, QueueTally};
use crate::record::ShardId;
use crate::store::Passing;

/// How long free slots are kept for a shard that was woken for them, at least and at most. One that
/// doesn't take them by then is busy with something else, and no slot is to stay free for long.
const KEPT_FOR_MIN: Duration = Duration::from_millis(2);
const KEPT_FOR_MAX: Duration = Duration::from_millis(50);

/// For how many times as long no places behind slots are given to what stands after its tasks.
const PLACES_KEPT: u32 = 4;

/// How long slots are kept for a shard that takes so long to commit: until it is over with the commit
/// that it may be in, and half as long again. A slot that another shard would have instead stays free
/// for a commit, too.
pub(crate) fn kept_for(commit: Duration) -> Duration {
    (commit * 3 / 2).clamp(KEPT_FOR_MIN, KEPT_FOR_MAX)
}

/// What an attempt is taken to last of which nobody knows, in nanoseconds: too long for anything to
/// wait behind it.
pub(crate) const UNKNOWN_NS: u64 = 1_000_000_000;

/// The credits of all workers.
#[derive(Debug)]
pub(crate) struct Slots {
    workers: usize,
    concurrency: usize,
    prefetch: usize,
    state: Mutex<State>,
}

/// What may wait behind slots that are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    /// For how long slots are to stay busy with it, in nanoseconds: until another task is claimed and with
    /// its worker.
    pub(crate) covered_ns: u64,
    /// How many attempts at most.
    pub(crate) max: usize,
}

/// Whether a shard with ready tasks may claim one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MayClaim {
    Now,
    /// Free slots are kept for another shard, for no longer than this.
    Soon(Duration),
    /// It is woken when it may.
    WhenWoken,
}

/// What comes back of a worker's credits.
#[derive(Debug, Default)]
pub(crate) struct Freed {
    pub(crate) attempts: usize,
    /// What was added to the worker's load for them.
    pub(crate) load_ns: u64,
    /// The queues whose places they held.
    pub(crate) places: QueueTally,
}

impl Slots {
    pub(crate) fn new(workers: usize, concurrency: usize, prefetch: usize) -> Arc<Self> {
        let (used, load_ns) = (vec![0; workers], vec![0; workers]);
        let (waiting, called, passed, queues) = Default::default();
        let (batch, alone, runs_alone) = (workers * concurrency, None, 0);
        let state =
            State { used, load_ns, waiting, called, passed, batch, queues, alone, runs_alone };
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
    pub(crate) fn take(self: &Arc<Self>, shard: ShardId, wanted: &Wanted, behind: Behind) -> Grant {
        self.take_at(shard, wanted, behind, Instant::now())
    }

    fn take_at(
        self: &Arc<Self>,
        shard: ShardId,
        wanted: &Wanted,
        behind: Behind,
        now: Instant,
    ) -> Grant {
        let mut grant = self.nothing(shard, wanted.paused.clone());
        let mut state = self.lock();
        let was_called = state.called.remove(&shard).is_some();
        if wanted.is_empty() {
            // it has nothing any more, so nothing is to be kept for it
            state.waiting.remove(&shard);
            state.passed.remove(&shard);
            if was_called && state.alone.is_none() {
                grant.wake = state.call(now);
            }
            return grant;
        }
        if state.alone.is_some() {
            state.waiting.insert(shard, wanted.want(|of| of.tasks));
            return grant;
        }
        let state = &mut *state;
        for limited in &wanted.limited {
            let granted = state.take_places(shard, limited);
            grant.places.insert(limited.queue, granted);
        }
        let want = wanted.want(|of| grant.places.get(&of.queue).copied().unwrap_or(0));
        let levels = self.levels_behind(state, behind.covered_ns);
        state.batch = levels.iter().sum();
        state.begins_at(shard, want.first.rank);
        let free = self.free(state);
        let kept = state.kept_before(shard, want.first.rank, now).min(free);
        grant.passing = state.passing(shard, free - kept, now);
        let open = may_take(&grant.passing, want.first.rank, free - kept);
        let allowed = want.tasks.min(open);
        let short = spread(&mut state.used, allowed, |_| self.concurrency, &mut grant.free);
        debug_assert_eq!(short, 0, "what is free can be taken");
        let left = want.tasks - allowed;
        // nobody waits behind a worker that has slots kept free
        let used = state.used.clone();
        let level = |worker: usize| match used[worker] < self.concurrency {
            true => 0,
            false => levels[worker],
        };
        let room =
            used.iter().enumerate().map(|(worker, used)| level(worker).saturating_sub(*used));
        // nor where it would keep a slot from what stands first in another shard
        let room = match state.wanted_before(shard, want.first.rank) {
            Some(others) => room.sum::<usize>().saturating_sub(others.saturating_sub(kept)),
            None => 0,
        };
        let may_follow = match want.first.ahead {
            Ahead::Quick => true,
            Ahead::ButOthers => allowed > 0,
            Ahead::Never => false,
        };
        let wanted_behind = if may_follow { left.min(behind.max).min(room) } else { 0 };
        let refused = spread(&mut state.used, wanted_behind, level, &mut grant.behind);
        let unmet = left - wanted_behind + refused;
        if left > 0 {
            // a place behind a slot is no promise: only quick tasks may have it
            state.waiting.insert(shard, Want { tasks: unmet, ..want });
        } else {
            state.waiting.remove(&shard);
            state.passed.remove(&shard);
            if free > allowed {
                grant.wake = state.call(now);
            }
        }
        grant
    }

    /// How many slots no attempt has.
    fn free(&self, state: &State) -> usize {
        state.used.iter().map(|used| self.concurrency.saturating_sub(*used)).sum()
    }

    /// Up to how many attempts each worker may have, places behind its slots included: as many as
    /// its slots get through in the time to be covered (Little's law), by what it has now.
    fn levels_behind(&self, state: &State, covered_ns: u64) -> Vec<usize> {
        let level = |(used, load_ns): (&usize, &u64)| {
            let slots = self.concurrency as u64;
            let mean_ns = load_ns / (*used).max(1) as u64;
            let places = match mean_ns {
                0 => self.prefetch,
                mean_ns => {
                    let through = (slots.saturating_mul(covered_ns) + mean_ns / 2) / mean_ns;
                    usize::try_from(through).unwrap_or(usize::MAX).min(self.prefetch)
                }
            };
            self.concurrency + places
        };
        state.used.iter().zip(&state.load_ns).map(level).collect()
    }

    fn nothing(self: &Arc<Self>, shard: ShardId, paused: Vec<QueueIndex>) -> Grant {
        let (free, behind, load_ns, places, begun) = Default::default();
        let (slots, wake, passing, alone) = (self.clone(), BTreeSet::new(), Vec::new(), None);
        Grant { slots, shard, free, behind, load_ns, wake, places, begun, paused, passing, alone }
    }

    /// Asks for the whole queue, to run one suspect of `shard` alone. While somebody waits for
    /// that, nothing else is claimed; it is granted when nothing runs.
    pub(crate) fn take_alone(self: &Arc<Self>, shard: ShardId, wanted: Wanted) -> Option<Grant> {
        let mut state = self.lock();
        let alone = state.alone.get_or_insert(Alone { shard, run: None });
        let mine = alone.shard == shard && alone.run.is_none();
        if !mine || state.used.iter().any(|used| *used > 0) {
            state.waiting.insert(shard, wanted.want(|of| of.tasks));
            return None;
        }
        state.runs_alone += 1;
        let run = Some(state.runs_alone);
        state.alone = Some(Alone { shard, run });
        state.used[0] += 1;
        let mut grant = self.nothing(shard, wanted.paused);
        grant.free.insert(0, 1);
        grant.alone = run;
        Some(grant)
    }

    /// Gives up waiting for the whole queue: there is no suspect left.
    #[must_use = "these shards wait for credits"]
    pub(crate) fn give_up_alone(&self, shard: ShardId) -> Vec<ShardId> {
        self.end_alone(|alone| alone.shard == shard && alone.run.is_none())
    }

    /// The end of the attempt that ran alone is stored: others may run. Nothing happens if that was
    /// another run.
    #[must_use = "these shards wait for credits"]
    pub(crate) fn alone_is_over(&self, run: u64) -> Vec<ShardId> {
        self.end_alone(|alone| alone.run == Some(run))
    }

    /// This shard can store nothing for the time being. If an attempt of it ran alone and is over,
    /// the others don't wait for its end to be stored.
    #[must_use = "these shards wait for credits"]
    pub(crate) fn stores_nothing(&self, shard: ShardId) -> Vec<ShardId> {
        let silent = self.lock().used.iter().all(|used| *used == 0);
        self.end_alone(|alone| silent && alone.shard == shard && alone.run.is_some())
    }

    fn end_alone(&self, which: impl FnOnce(&Alone) -> bool) -> Vec<ShardId> {
        let mut state = self.lock();
        if state.alone.as_ref().is_some_and(which) {
            state.alone = None;
            return state.call(Instant::now()).into_iter().collect();
        }
        Vec::new()
    }

    /// Gives back credits of a worker. Returns the shards to wake.
    #[must_use = "these shards wait for credits"]
    pub(crate) fn release(&self, worker: usize, freed: &Freed) -> Vec<ShardId> {
        let mut state = self.lock();
        state.used[worker] = state.used[worker].saturating_sub(freed.attempts);
        state.load_ns[worker] = state.load_ns[worker].saturating_sub(freed.load_ns);
        let mut wake = BTreeSet::new();
        for (queue, places) in freed.places.iter() {
            wake.append(&mut state.give_places(queue, places));
        }
        if state.alone.is_some() {
            wake.extend(state.silence());
        } else {
            wake.append(&mut state.call(Instant::now()));
        }
        wake.into_iter().collect()
    }

    /// An attempt that waited in one worker is started by another: its credit, and what was added to the
    /// load for it, go with it. Returns the shards to wake: the first may have a free slot now, and the
    /// other none less, because it has been given another attempt meanwhile.
    #[must_use = "these shards wait for credits"]
    pub(crate) fn moved(&self, from: usize, to: usize, load_ns: u64) -> Vec<ShardId> {
        let mut state = self.lock();
        let free = self.free(&state);
        state.used[from] = state.used[from].saturating_sub(1);
        state.load_ns[from] = state.load_ns[from].saturating_sub(load_ns);
        state.used[to] += 1;
        state.load_ns[to] = state.load_ns[to].saturating_add(load_ns);
        if state.alone.is_none() && self.free(&state) > free {
            return state.call(Instant::now()).into_iter().collect();
        }
        Vec::new()
    }

    /// Gives back places of a limited queue that a shard had no use for. Returns the shards to wake,
    /// without the one that looks again by itself.
    ///
    /// Without a free slot nobody could use a place: they would give it back and wake each other for
    /// ever, so they wait for a slot instead.
    fn give_unused_places(
        &self,
        looks_again: Option<ShardId>,
        queue: QueueIndex,
        count: usize,
    ) -> BTreeSet<ShardId> {
        let mut state = self.lock();
        let mut waiting = state.give_places(queue, count);
        waiting.retain(|shard| Some(*shard) != looks_again);
        if state.alone.is_none() && self.free(&state) > 0 {
            return waiting;
        }
        for other in waiting {
            let kept_for = KEPT_FOR_MIN;
            let want = Want { tasks: 1, first: First::UNKNOWN, kept_for };
            state.waiting.entry(other).or_insert(want);
        }
        BTreeSet::new()
    }

    /// Whether more attempts of a queue are in hand than these, whether they run or wait in workers.
    pub(crate) fn exceeds(&self, queue: QueueIndex, attempts: usize) -> bool {
        self.lock().queues.get(&queue).is_some_and(|places| places.used > attempts)
    }

    /// Whether `shard`, which has these tasks ready, may claim one of them now. If not, it is woken
    /// when that may have changed: another shard may hold all credits only until its batch is stored.
    pub(crate) fn free_or_wait(&self, shard: ShardId, wanted: &Wanted) -> MayClaim {
        self.free_or_wait_at(shard, wanted, Instant::now())
    }

    fn free_or_wait_at(&self, shard: ShardId, wanted: &Wanted, now: Instant) -> MayClaim {
        let mut state = self.lock();
        let state = &mut *state;
        let mut may_run = wanted.free > 0;
        for limited in wanted.limited.iter().filter(|limited| limited.certain) {
            let places = state.queues.entry(limited.queue).or_default();
            if places.used < limited.limit {
                may_run = true;
            } else {
                places.waiting.insert(shard);
            }
        }
        if !may_run {
            return MayClaim::WhenWoken;
        }
        let free = if state.alone.is_none() { self.free(state) } else { 0 };
        let want = wanted.want(|of| state.places_left(of));
        let open = free.saturating_sub(state.kept_before(shard, want.first.rank, now));
        if may_take(&state.passing(shard, open, now), want.first.rank, open) > 0 {
            return MayClaim::Now;
        }
        state.waiting.insert(shard, want);
        match state.kept_until(shard, now).filter(|_| free > 0) {
            Some(until) => MayClaim::Soon(until - now),
            None => MayClaim::WhenWoken,
        }
    }
}

/// How many of the open slots tasks may take that begin at this rank.
fn may_take(passing: &[Passing], rank: i64, open: usize) -> usize {
    let before = passing.iter().filter(|passing| passing.rank < rank);
    before.fold(open, |open, passing| open.min(passing.tasks))
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

#[cfg(test)]
mod tests;
