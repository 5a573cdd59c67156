//! How many shards a queue has, and waiting for one that is being added.

use std::sync::Arc;
use std::time::Duration;

use super::Queue;
use crate::actors::ledger::ShardLedger;
use crate::error::{Error, Result};
use crate::record::ShardId;

/// How long a backup waits for a shard whose file is complete and whose actor isn't up yet, and how
/// often it looks.
const UP_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How many shards a queue has at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardCounts {
    /// Those that take new tasks, one on trial among them.
    pub active: usize,
    /// Those that take no new tasks now: they end the ones that they have, answer lookups, and are
    /// taken back when they are needed.
    pub retired: usize,
}

impl ShardCounts {
    /// All shards, each of them a file.
    #[must_use]
    pub fn total(&self) -> usize {
        self.active + self.retired
    }
}

impl Queue {
    /// How many shards take new tasks now, and how many don't. Costs next to nothing.
    ///
    /// With `shards.count = "auto"`, the default, the number follows the load between `shards.min`
    /// and `shards.max`; each change is a `tracing` event with the figures behind it.
    #[must_use]
    pub fn shard_counts(&self) -> ShardCounts {
        let there = self.inner.shared.present();
        let (mut active, mut retired) = (0, 0);
        for ledger in there {
            if ledger.is_active() {
                active += 1;
            } else {
                retired += 1;
            }
        }
        ShardCounts { active, retired }
    }

    /// A shard that the manifest names as complete. One that is being added is up in a moment.
    pub(super) async fn complete_shard(&self, shard: ShardId) -> Result<Arc<ShardLedger>> {
        let look = async {
            loop {
                if let Some(ledger) = self.inner.shared.shard(shard) {
                    return ledger.clone();
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let found = tokio::time::timeout(UP_WITHIN, look).await;
        found.map_err(|_| Error::ShardUnavailable { shard })
    }
}
