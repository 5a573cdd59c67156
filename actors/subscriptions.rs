//! Who wants results as they come: mailboxes by definition, or for all.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use actix::Recipient;

use crate::registry::{Registry, Role};
use crate::result::TaskResult;

/// Names one subscription of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(u64);

/// One mailbox and what it wants.
#[derive(Clone)]
pub(crate) struct Subscription {
    pub(crate) id: SubscriptionId,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) mailbox: Recipient<TaskResult>,
}

/// All subscriptions at one moment.
#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) subscriptions: Vec<Subscription>,
    /// Which definitions somebody subscribes to, by index.
    pub(crate) watched: Vec<bool>,
}

/// The subscriptions of a queue.
pub(crate) struct Subscriptions {
    registry: Arc<Registry>,
    next: AtomicU64,
    now: RwLock<Arc<Snapshot>>,
}

impl Subscriptions {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Subscriptions { registry, next: AtomicU64::new(1), now: RwLock::default() }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn add(
        &self,
        name: Option<Arc<str>>,
        mailbox: Recipient<TaskResult>,
    ) -> SubscriptionId {
        let id = SubscriptionId(self.next.fetch_add(1, Ordering::Relaxed));
        self.change(|subscriptions| subscriptions.push(Subscription { id, name, mailbox }));
        id
    }

    /// Ends a subscription; tells whether it was there.
    pub(crate) fn remove(&self, id: SubscriptionId) -> bool {
        let mut found = false;
        self.change(|subscriptions| {
            let before = subscriptions.len();
            subscriptions.retain(|subscription| subscription.id != id);
            found = subscriptions.len() < before;
        });
        found
    }

    /// Ends all subscriptions of a mailbox that is closed.
    pub(crate) fn remove_mailbox(&self, mailbox: &Recipient<TaskResult>) {
        self.change(|subscriptions| {
            subscriptions.retain(|subscription| subscription.mailbox != *mailbox);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Subscription>)) {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let mut subscriptions = now.subscriptions.clone();
        change(&mut subscriptions);
        let definitions = self.registry.definitions().iter();
        let watched = definitions
            .map(|definition| {
                definition.role == Role::Task
                    && subscriptions.iter().any(|subscription| subscription.wants(&definition.name))
            })
            .collect();
        *now = Arc::new(Snapshot { subscriptions, watched });
    }
}

impl Subscription {
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.name.as_deref().is_none_or(|wanted| wanted == name)
    }
}

impl fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscriptions({})", self.snapshot().subscriptions.len())
    }
}
