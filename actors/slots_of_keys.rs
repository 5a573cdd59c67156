//! Which shard has which slot of ordering keys.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::ledger::ShardLedger;
use super::messages::SlotsInUse;
use super::system::Shared;
use crate::error::{Error, Result};
use crate::keys::{SLOTS, place_slots};

/// For each slot the shard that has tasks of it.
///
/// # Errors
///
/// If one of the shards doesn't answer: then nobody knows which slots may move.
pub(super) async fn slots_in_use(ledgers: &[Arc<ShardLedger>]) -> Result<Vec<Option<u16>>> {
    let mut asked = Vec::new();
    for ledger in ledgers {
        let (answer, answered) = oneshot::channel();
        ledger.link.send(SlotsInUse { answer });
        asked.push((ledger.id, answered));
    }
    let mut used = vec![None; SLOTS];
    for (shard, answered) in asked {
        let slots = answered.await.unwrap_or(Err(Error::ShardUnavailable { shard }))?;
        for slot in slots {
            let Some(slot) = used.get_mut(usize::from(slot)) else { continue };
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
    Ok(used)
}

/// Places all slots when the queue starts, before the first submission.
///
/// # Errors
///
/// As [`slots_in_use`].
pub(super) async fn place_at_start(shared: &Shared, active: &[u16]) -> Result<()> {
    let ledgers: Vec<_> = shared.present().cloned().collect();
    let used = slots_in_use(&ledgers).await?;
    shared.set_shard_of_slot(place_slots(&used, &[], active));
    Ok(())
}
