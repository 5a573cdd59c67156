//! What holds a subscription.

use std::fmt;
use std::sync::Arc;

use crate::actors::subscriptions::SubscriptionId;
use crate::actors::system::Shared;

/// A subscription that ends when this is dropped.
#[must_use = "the subscription ends when its guard is dropped"]
pub struct SubscriptionGuard {
    pub(super) shared: Arc<Shared>,
    pub(super) id: SubscriptionId,
}

impl SubscriptionGuard {
    /// The subscription's id.
    #[must_use]
    pub fn id(&self) -> SubscriptionId {
        self.id
    }
}

impl Drop for SubscriptionGuard {
    fn drop(&mut self) {
        self.shared.subscriptions.remove(self.id);
    }
}

impl fmt::Debug for SubscriptionGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubscriptionGuard({:?})", self.id)
    }
}
