//! What the ledger of credits holds, under its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::PLACES_KEPT;
use super::wanted::{Ahead, First, OfQueue};
use crate::queues::QueueIndex;
use crate::record::ShardId;

#[derive(Debug)]
pub(super) struct State {
    /// Per worker: how many attempts it has, running or waiting in it.
    pub(super) used: Vec<usize>,
    /// Per worker: how long those take in all, as far as is known, in nanoseconds.
    pub(super) load_ns: Vec<u64>,
    /// Shards that wanted more than they got.
    pub(super) waiting: BTreeMap<ShardId, Want>,
    /// Shards that were woken for that.
    pub(super) called: BTreeMap<ShardId, Called>,
    /// Per shard: the ranks of what other shards have claimed that stands after its first task.
    pub(super) passed: BTreeMap<ShardId, Vec<i64>>,
    /// How many attempts all workers together may have now, places behind slots included.
    pub(super) batch: usize,
    /// The places of queues that had attempts or were limited.
    pub(super) queues: BTreeMap<QueueIndex, Places>,
    /// Who wants to run, or runs, an attempt with nothing beside it.
    pub(super) alone: Option<Alone>,
    /// How many such runs there were.
    pub(super) runs_alone: u64,
}

/// What a shard waits for: slots for so many tasks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) tasks: usize,
    pub(super) first: First,
    /// How long that is kept for it once it was woken.
    pub(super) kept_for: Duration,
}

/// A shard that was woken, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Called {
    pub(super) want: Want,
    at: Instant,
}

impl Called {
    /// Until when slots are kept for it.
    pub(super) fn slots_until(&self) -> Instant {
        self.at + self.want.kept_for
    }

    /// Until when it isn't forgotten: nothing that stands after its tasks gets places behind slots.
    fn until(&self) -> Instant {
        self.at + self.want.kept_for * PLACES_KEPT
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Alone {
    pub(super) shard: ShardId,
    /// Its number, if it isn't waiting any more.
    pub(super) run: Option<u64>,
}

/// The places of a queue. Each attempt holds one, whether the queue is limited or not: it may be before
/// the attempt ends.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Of attempts, and of grants for some.
    pub(super) used: usize,
    /// Shards that wanted more of them.
    pub(super) waiting: BTreeSet<ShardId>,
}

impl State {
    /// The shard that waits to run a suspect alone, if nothing runs any more.
    pub(super) fn silence(&self) -> Option<ShardId> {
        let silent = self.used.iter().all(|used| *used == 0);
        self.alone.filter(|alone| silent && alone.run.is_none()).map(|alone| alone.shard)
    }

    /// Wakes all that wait. What they want is kept for them for a moment.
    pub(super) fn call(&mut self, now: Instant) -> BTreeSet<ShardId> {
        let waiting = std::mem::take(&mut self.waiting);
        let woken = waiting.keys().copied().collect();
        let called = |(shard, want)| (shard, Called { want, at: now });
        self.called.extend(waiting.into_iter().map(called));
        woken
    }

    /// How many slots are kept for other shards whose tasks stand before this rank.
    pub(super) fn kept_before(&mut self, shard: ShardId, rank: i64, now: Instant) -> usize {
        self.called.retain(|_, called| called.until() > now);
        self.called_before(shard, rank, now).map(|called| called.want.tasks).sum()
    }

    /// When the first slot that is kept for another shard isn't any longer.
    pub(super) fn kept_until(&self, shard: ShardId, now: Instant) -> Option<Instant> {
        self.called_before(shard, i64::MAX, now).map(Called::slots_until).min()
    }

    /// The other shards that have slots kept for them and whose tasks stand before this rank.
    fn called_before(
        &self,
        shard: ShardId,
        rank: i64,
        now: Instant,
    ) -> impl Iterator<Item = &Called> {
        let others = self.called.iter().filter(move |(other, _)| **other != shard);
        let before = others.filter(move |(_, called)| called.want.first.rank < rank);
        before.map(|(_, called)| called).filter(move |called| called.slots_until() > now)
    }

    /// How many tasks other shards wait to claim that stand before this rank; `None` if one of them
    /// needs a slot that is free, as it may not wait behind one.
    pub(super) fn wanted_before(&self, shard: ShardId, rank: i64) -> Option<usize> {
        let called = self.called.iter().map(|(other, called)| (other, &called.want));
        let called = called.filter(|(other, _)| !self.waiting.contains_key(other));
        let others = self.waiting.iter().chain(called).filter(|(other, _)| **other != shard);
        let mut before = others.map(|(_, want)| want);
        before.try_fold(0, |sum, want| match want.first.rank < rank && want.tasks > 0 {
            true => (want.first.ahead == Ahead::Quick).then_some(sum + want.tasks),
            false => Some(sum),
        })
    }

    /// How many places of a limited queue are free.
    pub(super) fn places_left(&self, wanted: &OfQueue) -> usize {
        let used = self.queues.get(&wanted.queue).map_or(0, |places| places.used);
        wanted.limit.saturating_sub(used)
    }

    /// Takes places of a limited queue; too few are noted if there are tasks for more.
    pub(super) fn take_places(&mut self, shard: ShardId, wanted: &OfQueue) -> usize {
        let granted = wanted.tasks.min(self.places_left(wanted));
        let places = self.queues.entry(wanted.queue).or_default();
        places.used += granted;
        if granted < wanted.tasks && wanted.certain {
            places.waiting.insert(shard);
        }
        granted
    }

    /// Takes places for attempts of a queue that had no limit when they were claimed.
    pub(super) fn hold_places(&mut self, queue: QueueIndex, count: usize) {
        self.queues.entry(queue).or_default().used += count;
    }

    /// Gives places back. Returns who waits for them.
    pub(super) fn give_places(&mut self, queue: QueueIndex, count: usize) -> BTreeSet<ShardId> {
        let Some(places) = self.queues.get_mut(&queue) else { return BTreeSet::new() };
        places.used = places.used.saturating_sub(count);
        std::mem::take(&mut places.waiting)
    }
}
