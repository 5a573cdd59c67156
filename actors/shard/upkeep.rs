//! What a shard does for its file beside batches.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::Context;

use super::ShardActor;
use crate::clock::Timestamp;
use crate::error::{StoreError, StoreErrorKind};
use crate::proof::{self, Safeguard};
use crate::store::ShardStore;

/// How often a shard that has always something to do takes a step of maintenance.
const MAINTAIN_EVERY: Duration = Duration::from_millis(50);

impl<S: ShardStore> ShardActor<S> {
    /// The time that maintenance goes by: a wall clock that jumped ahead doesn't count until the
    /// queue has been up for as long.
    pub(super) fn confirmed_now(&self) -> Timestamp {
        let now = self.shared.clock.now();
        if !proof::stands(Safeguard::ConfirmedTime) {
            return now;
        }
        self.shared.start.confirm(now)
    }

    pub(super) fn is_maintenance_due(&self) -> bool {
        self.confirmed_now() >= self.maintain_at
    }

    /// Lets the store remove what has been kept long enough.
    pub(super) fn maintain(&mut self, context: &mut Context<Self>) {
        self.shared.restore_ballast();
        self.maintained = tokio::time::Instant::now();
        self.ledger.sweeps.fetch_add(1, Ordering::Relaxed);
        let now = self.confirmed_now();
        self.with_store(
            context,
            move |mut store| async move {
                let maintained = store.maintain(now).await;
                (store, maintained)
            },
            move |actor, maintained, context| {
                let later = actor.shared.settings.retention.sweep;
                let failed = maintained.as_ref().err().map(StoreError::kind);
                actor.maintain_at = match maintained {
                    Ok(maintained) => maintained.again_at.unwrap_or(now.saturating_add(later)),
                    Err(error) => {
                        tracing::warn!(shard = %actor.ledger.id, %error, "cannot remove old tasks");
                        now.saturating_add(later)
                    }
                };
                let log_is_long = actor.store.as_ref().is_some_and(|of| of.outlook().log_is_long);
                if failed == Some(StoreErrorKind::Io) {
                    actor.give_up_file(context);
                } else if log_is_long {
                    actor.checkpoint(context);
                } else {
                    actor.set_timer(context);
                }
            },
        );
    }

    /// Has the log copied back to the file: after a batch has been answered and handed out, so that
    /// nobody who waits for that one waits for this, and workers have something to do meanwhile.
    pub(super) fn checkpoint(&mut self, context: &mut Context<Self>) {
        if self.store.is_none() {
            return;
        }
        // who ends the queue waits for it, and what is sent here will wait for it as for a commit
        self.ledger.flush_begins();
        self.ledger.gauges.commit_begins();
        self.with_store(
            context,
            |mut store| async move {
                proof::dawdle().await;
                let copied = store.checkpoint().await;
                (store, copied)
            },
            |actor, copied, context| {
                actor.ledger.gauges.commit_is_over();
                actor.ledger.flush_is_over();
                match copied {
                    Err(error) if error.kind() == StoreErrorKind::Io => {
                        tracing::error!(shard = %actor.ledger.id, %error, "a checkpoint failed");
                        actor.give_up_file(context);
                    }
                    copied => {
                        actor.say_if_new(copied.err());
                        actor.maintain_or_rest(context);
                    }
                }
                actor.shared.moved();
            },
        );
    }

    /// Says why the log goes on growing: once, because each commit has it tried again.
    fn say_if_new(&mut self, failed: Option<StoreError>) {
        let kind = failed.as_ref().map(StoreError::kind);
        if let Some(error) = failed
            && self.checkpoint_fails != kind
        {
            tracing::warn!(shard = %self.ledger.id, %error, "a checkpoint failed");
        }
        self.checkpoint_fails = kind;
    }

    /// Takes a step of maintenance if one is due, else sees to it that it wakes up when there is
    /// something to do.
    pub(super) fn maintain_or_rest(&mut self, context: &mut Context<Self>) {
        if self.is_maintenance_due() && self.maintained.elapsed() >= MAINTAIN_EVERY {
            self.maintain(context);
        } else {
            self.set_timer(context);
        }
    }
}
