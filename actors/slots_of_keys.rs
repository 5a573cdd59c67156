//! Which shard has which slot of ordering keys.

use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Handler, WrapFuture};
use tokio::sync::oneshot;

use super::dispatcher::{Dispatcher, DispatcherContext};
use super::ledger::ShardLedger;
use super::messages::{MoveSlots, SlotsInUse};
use super::system::Shared;
use crate::error::{Error, Result, StartError, StoreError, StoreErrorKind};
use crate::keys::{SLOTS, place_slots};
use crate::proof::Point;
use crate::record::ShardId;
use crate::store::shard_file;

/// What a shard says of its slots.
type Answer = (ShardId, Result<Vec<u16>>);

/// Asks shards of which slots they have tasks.
async fn ask(ledgers: &[Arc<ShardLedger>]) -> Vec<Answer> {
    let mut asked = Vec::new();
    for ledger in ledgers {
        let (answer, answered) = oneshot::channel();
        ledger.link.send(SlotsInUse { answer });
        asked.push((ledger.id, answered));
    }
    let mut answers = Vec::new();
    for (shard, answered) in asked {
        let slots = answered.await.unwrap_or(Err(Error::ShardUnavailable { shard }));
        answers.push((shard, slots));
    }
    answers
}

/// Notes that a shard has tasks of these slots.
fn note(used: &mut [Option<u16>], shard: ShardId, slots: &[u16]) {
    for slot in slots {
        let Some(slot) = used.get_mut(usize::from(*slot)) else { continue };
        match *slot {
            None => *slot = Some(shard.0),
            // a file that was put there by hand: its tasks keep their order among themselves
            Some(other) if other != shard.0 => {
                tracing::warn!(%shard, other, "two shards have tasks of one slot of keys");
            }
            Some(_) => {}
        }
    }
}

/// Places all slots when the queue starts, before the first submission.
///
/// # Errors
///
/// [`Error::Start`] if a shard can't say what it has.
pub(super) async fn place_at_start(shared: &Shared) -> Result<()> {
    let ledgers: Vec<_> = shared.present().cloned().collect();
    let mut used = vec![None; SLOTS];
    for (shard, slots) in ask(&ledgers).await {
        note(&mut used, shard, &slots.map_err(cannot_start)?);
    }
    shared.set_shard_of_slot(place_slots(&used, &[], &active(shared)));
    Ok(())
}

/// The numbers of the shards that take new tasks, without those that are out of service, if there are
/// others.
fn active(shared: &Shared) -> Vec<u16> {
    let active = shared.shards.iter().filter(|ledger| ledger.is_active());
    let (out, well): (Vec<_>, Vec<_>) = active.partition(|ledger| ledger.is_quarantined());
    let of = if well.is_empty() { out } else { well };
    of.iter().map(|ledger| ledger.id.0).collect()
}

fn cannot_start(error: Error) -> Error {
    let open = |shard, source| {
        let what = shard_file(shard);
        Error::Start { reasons: vec![StartError::Open { what, source }] }
    };
    let other = |kind, why: &str| StoreError::new(kind, why);
    match error {
        Error::Store { shard, source, .. } => open(shard, source),
        Error::DiskFull { shard } => open(shard, other(StoreErrorKind::Full, "the disk is full")),
        Error::ShardUnavailable { shard } => {
            open(shard, other(StoreErrorKind::Other, "its actor ended while the queue started"))
        }
        error => error,
    }
}

impl Dispatcher {
    /// Lets slots without tasks go to where they should be by now: the number of shards that take
    /// new tasks has changed.
    ///
    /// Only slots move of which nothing is stored, nothing was on its way when the shards were asked,
    /// and nothing has come since.
    ///
    /// What stays where it shouldn't be is looked at again when tasks with keys come.
    pub(super) fn move_slots(&mut self, context: &mut DispatcherContext) {
        // a disk that hangs answers late: what is placed then goes by the shards of that time
        if self.is_asking_for_slots(true) {
            return;
        }
        let before = (self.slots_sent(), self.redrives_sent());
        let ledgers: Vec<_> = self.shared.present().cloned().collect();
        let asking = async move { ask(&ledgers).await }.into_actor(self);
        let moving = asking.map(move |answers, dispatcher, _| {
            let moved = dispatcher.guarded(|dispatcher| {
                dispatcher.shared.points.pass(Point::DispatcherLookup);
                // a redriven task can have any key; and a backup copies one shard after another
                if dispatcher.redrives_sent() != before.1 || dispatcher.shared.is_backed_up() {
                    return Ok(false);
                }
                Ok(dispatcher.place_slots(&answers, &before.0))
            });
            dispatcher.slots_are_even(moved.unwrap_or(false));
            dispatcher.is_asking_for_slots(false);
        });
        context.spawn(moving);
    }

    /// Returns whether each shard has its part.
    fn place_slots(&self, answers: &[Answer], before: &[u32]) -> bool {
        let placed = self.shared.shards_of_slots();
        let mut used = vec![None; SLOTS];
        for (shard, slots) in answers {
            match slots {
                Ok(slots) => note(&mut used, *shard, slots),
                // it is being rebuilt or out of service: what is its own stays
                Err(_) => {
                    let own = (0..).zip(&placed).filter(|(_, of)| **of == shard.0);
                    note(&mut used, *shard, &own.map(|(slot, _)| slot).collect::<Vec<u16>>());
                }
            }
        }
        let moved_on = self.slots_sent();
        let waiting = self.slots_waiting();
        for (slot, used) in used.iter_mut().enumerate() {
            if moved_on[slot] != before[slot] || waiting.contains(&(slot as u16)) {
                used.get_or_insert(placed[slot]);
            }
        }
        let active = active(&self.shared);
        let now = place_slots(&used, &placed, &active);
        let moved = now.iter().zip(&placed).filter(|(now, before)| now != before).count();
        if moved > 0 {
            tracing::info!(moved, "slots of ordering keys have moved");
            self.shared.set_shard_of_slot(now.clone());
        }
        place_slots(&[None; SLOTS], &now, &active) == now
    }
}

impl Handler<MoveSlots> for Dispatcher {
    type Result = ();

    fn handle(&mut self, _: MoveSlots, context: &mut DispatcherContext) {
        // the buffers are made anew after a panic
        let _ = self.guarded(|dispatcher| {
            dispatcher.shared.points.pass(Point::DispatcherLookup);
            dispatcher.move_slots(context);
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests;
