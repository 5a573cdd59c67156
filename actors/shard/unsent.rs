//! Results on their way from a commit to the CallbackActor.

use std::sync::Arc;

use crate::actors::ledger::{DeliverItem, ShardLedger};
use crate::submission::Target;

/// Results whose targets are out of the ledger. If the shard panics with them, the targets go back:
/// the next actor finds the deliveries in its file, and needs to know who waits for them.
pub(super) struct Unsent {
    ledger: Arc<ShardLedger>,
    pub(super) items: Vec<DeliverItem>,
}

impl Unsent {
    pub(super) fn new(ledger: &Arc<ShardLedger>) -> Self {
        Unsent { ledger: ledger.clone(), items: Vec::new() }
    }

    pub(super) fn take(mut self) -> Vec<DeliverItem> {
        std::mem::take(&mut self.items)
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if self.items.is_empty() {
            return;
        }
        let mut targets = self.ledger.targets();
        for mut item in self.items.drain(..).filter(|item| !item.targets.is_empty()) {
            let there = targets.entry(item.result.id().sequence()).or_default();
            Target::merge(there, item.targets.drain(..));
        }
    }
}
