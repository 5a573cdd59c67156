//! Which shard a submission goes to.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::super::ledger::{ShardLedger, ShardState};
use super::super::messages::MoveSlots;
use super::Dispatcher;
use crate::error::{Error, Result};
use crate::load::{self, Common};
use crate::record::{ShardId, TaskId};

/// Where a task without a place of its own goes: to an active shard that is open; to one that is being
/// rebuilt, which will be back in a moment; to a retired one, which is better than a refusal.
const CANDIDATES: [(ShardState, bool); 3] =
    [(ShardState::Open, true), (ShardState::Opening, true), (ShardState::Open, false)];

impl Dispatcher {
    /// The shard for a submission: the one that its id names, or that of its key, or the one where it
    /// costs least.
    pub(super) fn route(&self, wanted: Option<TaskId>, key: Option<&str>) -> Result<usize> {
        let mut outgoing = self.outgoing.borrow_mut();
        if let Some(id) = wanted {
            let shard = id.shard();
            let ledger = self.shared.shard(shard);
            let ledger = ledger.ok_or(Error::NotFound { id })?;
            if key.is_some_and(|key| self.shared.shard_of_key(key) != shard) {
                return Err(Error::InvalidOption {
                    option: "with_id",
                    given: format!("{id}, in another shard than its key's tasks by now"),
                    allowed: "an id of the key's shard; look it up, and submit anew what isn't stored",
                });
            }
            return usable(ledger).map(|()| shard.index());
        }
        if let Some(key) = key {
            let shard = self.shared.shard_of_key(key);
            let ledger = self.shared.shard(shard).ok_or(Error::ShardUnavailable { shard })?;
            let astray = !ledger.is_active() || !self.keys.are_even();
            if astray && self.keys.may_ask_again() {
                self.shared.dispatcher.send(MoveSlots);
            }
            return usable(ledger).map(|()| shard.index());
        }
        let (shards, now) = (&self.shared.shards, Instant::now());
        let common = Common {
            shards: shards.len(),
            active: self.shared.active(),
            slots: self.shared.slots.all(),
            batch: self.shared.settings.limits.batch,
        };
        let chosen = CANDIDATES.into_iter().find_map(|(state, active)| {
            let load = |index: usize| {
                let ledger: &ShardLedger = &shards[index];
                let candidate = ledger.state() == state && ledger.is_active() == active;
                candidate.then(|| ledger.gauges.load(now))
            };
            load::choose(common, outgoing.last, load)
        });
        let Some(index) = chosen else {
            // the scaler may find another one
            self.shared.traffic.stir();
            return Err(Error::ShardUnavailable { shard: ShardId(0) });
        };
        outgoing.last = index;
        Ok(index)
    }

    /// Has the shard that a lone submission will go to wake up, if it sleeps: that of its id or its key,
    /// or the next one, because an idle queue spreads its tasks. A hint: nothing depends on it.
    pub(super) fn rouse_for(&self, wanted: Option<TaskId>, key: Option<&str>) {
        let outgoing = self.outgoing.borrow();
        let (shards, last) = (&self.shared.shards, outgoing.last);
        let on_the_way = |ledger: &ShardLedger| ledger.gauges.incoming.load(Ordering::Relaxed);
        if outgoing.armed || shards.get(last).is_none_or(|ledger| on_the_way(ledger) > 0) {
            // it isn't alone
            return;
        }
        let own =
            wanted.map(TaskId::shard).or_else(|| key.map(|key| self.shared.shard_of_key(key)));
        let shard = match own {
            Some(shard) => self.shared.shard(shard),
            None => shards
                .iter()
                .cycle()
                .skip(last + 1)
                .take(shards.len())
                .find(|ledger| ledger.is_active() && ledger.state() == ShardState::Open),
        };
        if let Some(ledger) = shard {
            ledger.rouse();
        }
    }
}

fn usable(ledger: &ShardLedger) -> Result<()> {
    match ledger.state() {
        ShardState::Open | ShardState::Opening => Ok(()),
        _ => Err(Error::ShardUnavailable { shard: ledger.id }),
    }
}
