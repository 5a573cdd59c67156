//! One flush: everything that waits becomes one transaction, and then its answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{ActorContext, AsyncContext, Context};

use super::collect::InFlight;
use super::{Inbox, ShardActor};
use crate::actors::ledger::{DeliverBatch, DeliverItem, Done};
use crate::actors::messages::{Deliver, Group, Wake, Watch};
use crate::actors::outbox::Once;
use crate::actors::supervision::ChildEnd;
use crate::attempt::{Attempt, Input};
use crate::error::{StoreError, StoreErrorKind};
use crate::lifecycle::Next;
use crate::record::{Encoded, Outcome, TaskId, TaskRecord, TaskStatus};
use crate::result::{ResultParts, TaskResult};
use crate::store::{
    Batch, BatchError, BatchResult, CancelOutcome, Settled, Settlement, ShardStore,
};

/// How long a shard waits before it tries again to store what was refused.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

impl<S: ShardStore> ShardActor<S> {
    /// Does everything that waits in one transaction.
    pub(super) fn flush(&mut self, context: &mut Context<Self>) {
        if self.store.is_none() {
            return;
        }
        self.ledger.flush_begins();
        let flight = self.collect();
        let nothing = flight.batch.items() == 0
            && flight.batch.claim.slots + flight.batch.claim.prefetch == 0
            && !flight.batch.claim.suspect
            && !self.has_due_or_undelivered();
        if nothing {
            self.ledger.flush_is_over();
            if self.shared.clock.now() >= self.maintain_at {
                self.maintain(context);
            } else {
                self.set_timer(context);
            }
            return;
        }
        self.with_store(
            context,
            move |mut store| async move {
                let result = store.apply(&flight.batch).await;
                (store, (flight, result))
            },
            |actor, (flight, result), context| {
                match result {
                    Ok(result) => actor.applied(flight, result, context),
                    Err(BatchError::Refused(error)) => actor.refused(flight, &error, context),
                    Err(BatchError::Unknown(error)) => actor.unknown(flight, &error, context),
                }
                actor.ledger.flush_is_over();
                actor.shared.moved();
            },
        );
    }

    fn has_due_or_undelivered(&self) -> bool {
        let Some(store) = &self.store else { return false };
        let outlook = store.outlook();
        let due = outlook.next_due.is_some_and(|due| due <= self.shared.clock.now());
        due || outlook.undelivered && self.delivery_credits(0) > 0
    }

    /// The batch is durable: now answer, hand out and deliver.
    fn applied(&mut self, flight: InFlight, result: BatchResult, context: &mut Context<Self>) {
        self.ends_only = false;
        let InFlight { batch, inbox, grant, done } = flight;
        let Inbox { groups, finishes, delivered, cancels, redrives, .. } = inbox;
        let mut deliver = Vec::new();
        self.settled(&batch, &done, &result.settled, &mut deliver);
        for parcel in &finishes {
            self.ledger.finishes.confirm(parcel);
        }
        {
            let mut delivering = self.ledger.delivering();
            for end in &batch.deliveries {
                delivering.remove(&end.id.sequence());
            }
        }
        for parcel in &delivered {
            self.ledger.delivered.confirm(parcel);
        }
        self.answer_submissions(groups, &result.submitted);
        for (cancel, outcome) in cancels.into_iter().zip(result.cancelled) {
            self.cancelled(cancel.id, outcome, context);
            drop(cancel.answer.send(Ok(outcome)));
        }
        for (redrive, outcome) in redrives.into_iter().zip(result.redriven) {
            drop(redrive.answer.send(Ok(outcome)));
        }
        deliver.extend(result.deliver.iter().filter_map(|record| self.item_of(record)));
        self.hand_out(result.claims, grant, batch.now);
        self.send_deliveries(deliver);
        self.after(context);
    }

    /// Frees what ended tasks held in memory, answers who watched them, and collects results to
    /// deliver.
    fn settled(
        &self,
        batch: &Batch,
        done: &[Done],
        settled: &[Settled],
        deliver: &mut Vec<DeliverItem>,
    ) {
        let mut attempts = self.ledger.attempts();
        let mut cached = self.ledger.cached();
        let mut targets = self.ledger.targets();
        let mut watchers = self.ledger.watchers();
        for ((settlement, done), settled) in batch.settlements.iter().zip(done).zip(settled) {
            let sequence = settlement.id.sequence();
            let ours = attempts
                .get(&sequence)
                .is_some_and(|attempt| attempt.counters.claim_no == settlement.claim_no);
            if ours {
                attempts.remove(&sequence);
            }
            let Settled::Recorded { deliver: send } = *settled else {
                if ours {
                    tracing::warn!(task = %settlement.id, "a stale attempt's end was refused");
                }
                continue;
            };
            let Next::Ended(outcome) = settlement.transition.next else { continue };
            cached.remove(&sequence);
            let watching = watchers.remove(&sequence);
            if !send && watching.is_none() {
                continue;
            }
            let result = result_of_settlement(settlement, &done.attempt, outcome, send);
            for watcher in watching.into_iter().flatten() {
                drop(watcher.send(Ok(result.clone())));
            }
            if send {
                let targets = targets.remove(&sequence).unwrap_or_default();
                deliver.push(DeliverItem { result, claim_no: settlement.claim_no, targets });
            }
        }
    }

    fn item_of(&self, record: &TaskRecord) -> Option<DeliverItem> {
        let result = self.result_of(record)?;
        let targets = self.ledger.targets().remove(&record.id.sequence()).unwrap_or_default();
        Some(DeliverItem { result, claim_no: record.counters.claim_no, targets })
    }

    /// Sends results to the CallbackActor.
    fn send_deliveries(&self, items: Vec<DeliverItem>) {
        if items.is_empty() {
            return;
        }
        let ids = items.iter().map(|item| item.result.id().sequence());
        self.ledger.delivering().extend(ids);
        let batch = Once::new(DeliverBatch { shard: self.ledger.id, items });
        self.shared.callback.send(Deliver(self.shared.deliveries.post(batch)));
    }

    fn answer_submissions(&self, groups: Vec<Group>, submitted: &[Result<TaskId, StoreError>]) {
        let mut answers = submitted.iter();
        let mut targets = self.ledger.targets();
        let mut cached = self.ledger.cached();
        for group in groups {
            let mut ids = Vec::with_capacity(group.pending.len());
            let mut refused = None;
            for pending in group.pending {
                self.ledger.incoming.fetch_sub(1, Ordering::AcqRel);
                match answers.next() {
                    Some(Ok(id)) => {
                        if !pending.targets.is_empty() {
                            targets.insert(id.sequence(), pending.targets);
                        }
                        if let Some(input) = pending.cached {
                            cached.insert(id.sequence(), input);
                        }
                        ids.push(*id);
                    }
                    Some(Err(error)) => refused = Some(error.clone()),
                    None => {}
                }
            }
            group.answer.give(match refused {
                None => Ok(ids),
                Some(error) => Err(self.error(error, "store a task")),
            });
        }
    }

    /// After a cancellation: the token of a running attempt, the end of one that hadn't started.
    fn cancelled(&mut self, id: TaskId, outcome: CancelOutcome, context: &mut Context<Self>) {
        match outcome {
            CancelOutcome::Requested => {
                if let Some(attempt) = self.ledger.attempts().get(&id.sequence()) {
                    attempt.request_cancel();
                }
            }
            CancelOutcome::Removed => {
                self.ledger.cached().remove(&id.sequence());
                let watching = self.ledger.watchers().remove(&id.sequence());
                for answer in watching.into_iter().flatten() {
                    context.address().do_send(Watch { id, answer });
                }
            }
            CancelOutcome::AlreadyFinished(_) | CancelOutcome::NotFound => {}
        }
    }

    /// Looks at what there is to do next.
    fn after(&mut self, context: &mut Context<Self>) {
        let Some(store) = &self.store else { return };
        let outlook = store.outlook();
        self.ledger.ready.store(outlook.ready, Ordering::Release);
        self.ledger.row_writes.store(outlook.row_writes, Ordering::Release);
        self.shared.moved();
        let again = !self.inbox.stillborn.is_empty() || !self.inbox.groups.is_empty();
        let runnable = outlook.ready > 0 || outlook.more || outlook.suspects;
        let claims = runnable && self.shared.is_claiming();
        // rows may have become ready in a batch that took no credits
        if again || claims && self.shared.slots.free_or_wait(self.ledger.id) {
            self.arm(context);
        }
        self.set_timer(context);
    }

    /// Nothing was stored: submissions are told, ends are tried again by themselves. While another
    /// program holds the file, nobody is told anything: all of it waits.
    fn refused(&mut self, flight: InFlight, error: &StoreError, context: &mut Context<Self>) {
        tracing::warn!(shard = %self.ledger.id, %error, "a batch was refused");
        let InFlight { mut inbox, grant, done, batch } = flight;
        if let Some(grant) = grant {
            self.shared.wake(grant.give_back(false));
        }
        match error.kind() {
            StoreErrorKind::Full => self.shared.free_ballast(),
            StoreErrorKind::Busy => self.keep_asked(&mut inbox),
            _ => {}
        }
        let refuse = |action| error.clone().on(self.ledger.id, action);
        for group in inbox.groups {
            self.ledger.incoming.fetch_sub(group.pending.len(), Ordering::AcqRel);
            group.answer.give(Err(refuse("store tasks")));
        }
        for cancel in inbox.cancels {
            drop(cancel.answer.send(Err(refuse("cancel a task"))));
        }
        for redrive in inbox.redrives {
            drop(redrive.answer.send(Err(refuse("redrive a task"))));
        }
        let from_workers: usize =
            inbox.finishes.iter().map(|parcel| parcel.body().done.len()).sum();
        let stillborn = done.len() - from_workers;
        self.inbox.stillborn.extend(done.into_iter().take(stillborn));
        self.inbox.finishes.extend(inbox.finishes);
        self.inbox.delivered.extend(inbox.delivered);
        if error.kind() == StoreErrorKind::Busy {
            context.run_later(RETRY_PAUSE, |_, context| context.address().do_send(Wake));
            return;
        }
        let first = !std::mem::replace(&mut self.ends_only, true);
        let mixed = !batch.submissions.is_empty() || batch.claim.slots > 0;
        if first && mixed && !batch.settlements.is_empty() {
            self.arm(context);
        } else {
            context.run_later(RETRY_PAUSE, |actor, context| {
                // a batch without ends says whether the trouble is over
                actor.ends_only = !actor.inbox.finishes.is_empty();
                context.address().do_send(Wake);
            });
        }
    }

    /// Puts what callers asked for back at the head of what waits.
    fn keep_asked(&mut self, inbox: &mut Inbox) {
        inbox.groups.append(&mut self.inbox.groups);
        self.inbox.groups = std::mem::take(&mut inbox.groups);
        self.inbox.submissions += inbox.submissions;
        self.inbox.cancels.append(&mut inbox.cancels);
        self.inbox.redrives.append(&mut inbox.redrives);
    }

    /// The commit failed: whether it worked is on the disk only. The actor ends and is rebuilt from
    /// there, and answers then.
    fn unknown(&mut self, flight: InFlight, error: &StoreError, context: &mut Context<Self>) {
        tracing::error!(shard = %self.ledger.id, %error, "a commit's outcome is unknown");
        if let Some(grant) = flight.grant {
            self.shared.wake(grant.give_back(false));
        }
        let mut unanswered = self.ledger.unanswered();
        for group in flight.inbox.groups {
            let Group { pending, answer } = group;
            self.ledger.incoming.fetch_sub(pending.len(), Ordering::AcqRel);
            let mut targets = self.ledger.targets();
            let mut cached = self.ledger.cached();
            for (pending, id) in pending.into_iter().zip(answer.ids()) {
                if !pending.targets.is_empty() {
                    targets.insert(id.sequence(), pending.targets);
                }
                if let Some(input) = pending.cached {
                    cached.insert(id.sequence(), input);
                }
            }
            unanswered.push(answer);
        }
        drop(unanswered);
        self.end.set(ChildEnd::Faulted);
        context.stop();
    }
}

/// What those who asked for it get to see of an end.
fn result_of_settlement(
    settlement: &Settlement,
    attempt: &Arc<Attempt>,
    outcome: Outcome,
    sent: bool,
) -> TaskResult {
    let status = match outcome {
        _ if sent => TaskStatus::Callbacking,
        Outcome::Finished => TaskStatus::Finished,
        Outcome::Failed => TaskStatus::Failed,
        Outcome::Cancelled => TaskStatus::Cancelled,
        Outcome::Expired => TaskStatus::Expired,
    };
    let codec = match &attempt.input {
        Input::Encoded(encoded) => encoded.codec,
        Input::Cached(_) | Input::Parent(_) => attempt.definition.options.codec,
    };
    TaskResult::new(ResultParts {
        id: settlement.id,
        name: attempt.definition.name.clone(),
        definition: Some(attempt.definition.clone()),
        status,
        outcome,
        output: settlement.output.clone().map(|bytes| Encoded { codec, bytes }),
        failure: settlement.transition.failure.clone(),
        counters: settlement.transition.counters,
        priority: attempt.priority,
        submitted_at: attempt.submitted_at,
        started_at: Some(settlement.started_at),
        ended_at: settlement.ended_at,
    })
}
