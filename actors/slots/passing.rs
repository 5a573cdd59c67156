//! How often what stands first in a shard may be passed by what other shards claim.
//!
//! A batch that is headed by an urgent task takes others along which may stand after the first of
//! another shard. Of those, no more are claimed than make one batch, until that shard has had its
//! turn: the ranks of those that passed are kept, and forgotten as its first task comes after them.

use tokio::time::Instant;

use super::state::State;
use crate::record::ShardId;
use crate::store::Passing;

impl State {
    /// `shard` is about to claim, and its first task has this rank: what stands before it now has
    /// passed nothing.
    pub(super) fn begins_at(&mut self, shard: ShardId, rank: i64) {
        if let Some(passed) = self.passed.get_mut(&shard) {
            passed.retain(|other| *other > rank);
        }
    }

    /// What `shard` may claim of what stands after each of the others' first tasks. `open` is how many
    /// slots are free for it: they don't stay so for a shard that has had time to take them.
    pub(super) fn passing(&self, shard: ShardId, open: usize, now: Instant) -> Vec<Passing> {
        let left = |other: ShardId, open: usize| {
            let passed = self.passed.get(&other).map_or(0, Vec::len);
            self.batch.saturating_sub(passed).max(open)
        };
        let waiting = self.waiting.iter();
        let waiting = waiting.map(|(other, want)| (*other, *want, left(*other, open)));
        let called = self.called.iter().filter(|(other, _)| !self.waiting.contains_key(other));
        let called = called.map(|(other, called)| {
            let open = if called.slots_until() > now { 0 } else { open };
            (*other, called.want, left(*other, open))
        });
        let others = waiting.chain(called);
        let others = others.filter(|(other, want, _)| *other != shard && want.tasks > 0);
        let known = others.filter(|(_, want, _)| want.first.rank < i64::MAX);
        known.map(|(_, want, tasks)| Passing { rank: want.first.rank, tasks }).collect()
    }

    /// `shard` has claimed tasks of these ranks.
    pub(super) fn has_claimed(&mut self, shard: ShardId, ranks: &[i64]) {
        // one that was woken and looked again may be in both
        let called = self.called.iter().filter(|(other, _)| !self.waiting.contains_key(other));
        let called = called.map(|(other, called)| (*other, called.want.first.rank));
        let waiting = self.waiting.iter().map(|(other, want)| (*other, want.first.rank));
        for (other, first) in called.chain(waiting).filter(|(other, _)| *other != shard) {
            let passed = self.passed.entry(other).or_default();
            passed.extend(ranks.iter().filter(|rank| **rank > first));
            // more than a batch of them say no more
            if passed.len() > self.batch {
                passed.sort_unstable();
                passed.drain(..passed.len() - self.batch);
            }
        }
    }
}
