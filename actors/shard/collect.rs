//! From what waits to a batch.

use super::{Inbox, ShardActor};
use crate::actors::ledger::Done;
use crate::actors::slots::Grant;
use crate::attempt::AttemptEnd;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::lifecycle::{self, AttemptEvent, Situation};
use crate::record::TaskId;
use crate::store::{Batch, Cancellation, DeliveryEnd, Settlement, ShardStore};

/// A batch on its way, and everything that waits for its answer.
pub(super) struct InFlight {
    pub(super) batch: Batch,
    pub(super) inbox: Inbox,
    pub(super) grant: Option<Grant>,
}

impl<S: ShardStore> ShardActor<S> {
    /// How many more results may be on their way, once this many have arrived.
    pub(super) fn delivery_credits(&self, arriving: usize) -> usize {
        let limits = &self.shared.settings.delivery;
        if self.ledger.result_bytes() >= limits.in_flight_bytes {
            return 0;
        }
        let on_their_way = self.ledger.results_on_their_way().saturating_sub(arriving);
        limits.in_flight.saturating_sub(on_their_way)
    }

    /// Turns what waits into a batch.
    pub(super) fn collect(&mut self) -> InFlight {
        let mut inbox = self.take_inbox();
        let grant = self.take_credits_for(&inbox);
        let snapshot = self.shared.subscriptions.snapshot();
        let now = self.shared.clock.now();
        let targets = self.ledger.targets();
        // of those of a later submission by the id, neither row nor attempt knows
        let awaited = |id: TaskId| targets.contains_key(&id.sequence());
        let settlements = inbox.done().map(|done| {
            let settlement = self.settlement(done, &snapshot.watched, now);
            Settlement { notify: settlement.notify || awaited(settlement.id), ..settlement }
        });
        let settlements = settlements.collect();
        let cancels = inbox.asked.cancels.iter().map(|cancel| cancel.id);
        let cancellation = |id| Cancellation { id, notify: awaited(id) };
        let cancellations = cancels.map(cancellation).collect();
        drop(targets);
        let deliveries: Vec<DeliveryEnd> =
            inbox.delivered.iter().flat_map(|parcel| parcel.body().ends.iter().copied()).collect();
        let deliver = self.delivery_credits(deliveries.len());
        let batch = Batch {
            now,
            settlements,
            deliveries,
            cancellations,
            watched: snapshot.watched.clone(),
            shards_of_slots: match inbox.asked.redrives.is_empty() {
                true => Vec::new(),
                false => self.shared.shards_of_slots(),
            },
            redrives: inbox.asked.redrives.iter().map(|redrive| redrive.id).collect(),
            submissions: inbox.asked.incoming.take_tasks(now),
            claim: self.budget(grant.as_ref()),
            deliver,
        };
        InFlight { batch, inbox, grant }
    }

    /// What goes into the next batch: all of it, but for a bound on submissions. While ends go
    /// alone, nothing that callers asked for.
    fn take_inbox(&mut self) -> Inbox {
        let mut inbox = std::mem::replace(&mut self.inbox, Inbox::new(&self.ledger));
        if self.ends_only {
            std::mem::swap(&mut self.inbox.asked, &mut inbox.asked);
            return inbox;
        }
        let incoming = &mut inbox.asked.incoming;
        let first = incoming.take_first(self.shared.settings.limits.batch);
        self.inbox.asked.incoming = std::mem::replace(incoming, first);
        if let Some(store) = &self.store {
            for (incoming, id) in incoming.take_strangers(store.outlook().next) {
                self.shared.callback.refuse(incoming, || Error::NotFound { id });
            }
        }
        inbox
    }

    fn take_credits_for(&mut self, inbox: &Inbox) -> Option<Grant> {
        let moved = !inbox.finishes.is_empty() || !inbox.asked.redrives.is_empty();
        self.take_credits(&inbox.asked.incoming, moved)
    }

    /// What an attempt's end means for its row.
    fn settlement(&self, done: &Done, watched: &[bool], now: Timestamp) -> Settlement {
        let attempt = &done.attempt;
        let (event, output) = match &done.end {
            None => (AttemptEvent::Released, None),
            Some(AttemptEnd::Finished(output)) => {
                (AttemptEvent::Finished, Some(output.bytes.clone()))
            }
            Some(AttemptEnd::Failed { failure, retry_in }) => {
                let (failure, retry_in) = (failure.clone(), *retry_in);
                (AttemptEvent::Failed { failure, retry_in }, None)
            }
            Some(AttemptEnd::Snoozed(pause)) => (AttemptEvent::Snoozed(*pause), None),
        };
        let situation = Situation {
            now,
            counters: attempt.counters,
            retry: attempt.retry,
            max_crashes: self.shared.settings.tasks.max_crashes,
            cancel_requested: attempt.is_cancel_requested(),
            random: fastrand::u64(..),
        };
        let definition = attempt.index;
        let subscribed = attempt.parent.is_none() && watched.get(definition).is_some_and(|on| *on);
        Settlement {
            id: attempt.id,
            claim_no: attempt.counters.claim_no,
            definition,
            kind: attempt.kind,
            key: attempt.key.clone(),
            priority: attempt.priority,
            transition: lifecycle::after_attempt(event, &situation),
            output,
            started_at: done.started_at,
            ended_at: done.ended_at,
            notify: attempt.volatile || subscribed,
            callbacks: attempt.callbacks.clone(),
            parent: attempt.parent,
        }
    }
}
