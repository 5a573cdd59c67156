//! From what waits to a batch.

use std::sync::atomic::Ordering;

use super::{Inbox, ShardActor};
use crate::actors::ledger::Done;
use crate::actors::messages::{Group, Pending};
use crate::actors::slots::Grant;
use crate::attempt::AttemptEnd;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::lifecycle::{self, AttemptEvent, Situation};
use crate::store::{Batch, DeliveryEnd, NewTask, Settlement, ShardStore};

/// A batch on its way, and everything that waits for its answer.
pub(super) struct InFlight {
    pub(super) batch: Batch,
    pub(super) inbox: Inbox,
    pub(super) grant: Option<Grant>,
    /// The attempts whose ends the batch settles, in its order.
    pub(super) done: Vec<Done>,
}

impl<S: ShardStore> ShardActor<S> {
    /// How many more results may be on their way, once this many have arrived.
    pub(super) fn delivery_credits(&self, arriving: usize) -> usize {
        let on_their_way = self.ledger.delivering().len().saturating_sub(arriving);
        self.shared.settings.delivery.in_flight.saturating_sub(on_their_way)
    }

    /// Turns what waits into a batch.
    pub(super) fn collect(&mut self) -> InFlight {
        let mut inbox = std::mem::take(&mut self.inbox);
        let batch_max = self.shared.settings.limits.batch;
        if inbox.submissions > batch_max {
            let mut kept = 0;
            let fits = |group: &Group| {
                kept += group.pending.len();
                kept <= batch_max
            };
            // whole groups only, and at least one: a bulk submission is stored at once
            let fitting = inbox.groups.iter().take_while({
                let mut fits = fits;
                move |group| fits(group)
            });
            let count = fitting.count().max(1);
            self.inbox.groups = inbox.groups.split_off(count);
            let left = self.inbox.groups.iter().map(|group| group.pending.len()).sum();
            self.inbox.submissions = left;
            inbox.submissions -= left;
        }
        self.refuse_strangers(&mut inbox);
        let grant = self.take_credits_for(&inbox);
        let snapshot = self.shared.subscriptions.snapshot();
        let mut done = std::mem::take(&mut inbox.stillborn);
        for parcel in &inbox.finishes {
            done.extend(parcel.body().done.iter().cloned());
        }
        let now = self.shared.clock.now();
        let settlements =
            done.iter().map(|done| self.settlement(done, &snapshot.watched, now)).collect();
        let deliveries: Vec<DeliveryEnd> =
            inbox.delivered.iter().flat_map(|parcel| parcel.body().ends.iter().copied()).collect();
        let tasks = inbox.groups.iter().flat_map(|group| &group.pending);
        let submissions = tasks.map(|pending| task_at(pending, now)).collect();
        let deliver = self.delivery_credits(deliveries.len());
        let batch = Batch {
            now,
            settlements,
            deliveries,
            cancellations: inbox.cancels.iter().map(|cancel| cancel.id).collect(),
            watched: snapshot.watched.clone(),
            redrives: inbox.redrives.iter().map(|redrive| redrive.id).collect(),
            submissions,
            claim: self.budget(grant.as_ref()),
            deliver,
        };
        self.expect_ids(&batch, &mut inbox.groups);
        InFlight { batch, inbox, grant, done }
    }

    /// Notes in each answer which ids its tasks will have: should this actor die before it answers,
    /// the caller is told that they may be stored.
    fn expect_ids(&self, batch: &Batch, groups: &mut [Group]) {
        let Some(store) = &self.store else { return };
        let mut ids = batch.ids(self.ledger.id, store.outlook().next).into_iter();
        for group in groups {
            let expected = ids.by_ref().take(group.pending.len()).collect();
            group.answer.expect_ids(expected);
        }
    }

    /// Refuses groups with an id that the shard never gave out: whole, because the store refuses
    /// single tasks.
    fn refuse_strangers(&self, inbox: &mut Inbox) {
        let Some(store) = &self.store else { return };
        let next = store.outlook().next;
        let stranger = |group: &Group| {
            let ids = group.pending.iter().filter_map(|pending| pending.task.id);
            ids.filter(|id| id.sequence() >= next).min()
        };
        for group in inbox.groups.extract_if(.., |group| stranger(group).is_some()) {
            let Some(id) = stranger(&group) else { continue };
            inbox.submissions -= group.pending.len();
            self.ledger.incoming.fetch_sub(group.pending.len(), Ordering::AcqRel);
            group.answer.give(Err(Error::NotFound { id }));
        }
    }

    fn take_credits_for(&mut self, inbox: &Inbox) -> Option<Grant> {
        let moved = !inbox.finishes.is_empty() || !inbox.redrives.is_empty();
        self.take_credits(inbox.submissions, moved)
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

/// The task to store now. A delay counts from its submission time as it is stored, so that no
/// record shows a start that was early.
fn task_at(pending: &Pending, now: Timestamp) -> NewTask {
    let mut task = pending.task.clone();
    if let Some(delay) = pending.delay {
        task.due_at = Some(now.saturating_add(delay));
    }
    task
}
