//! One flush: everything that waits becomes one transaction, and then its answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{AsyncContext, Context};
use tokio::time::Instant;

use super::collect::InFlight;
use super::unsent::Unsent;
use super::{Asked, Inbox, ShardActor};
use crate::actors::incoming::Incoming;
use crate::actors::ledger::{DeliverBatch, DeliverItem, ResultsWeight};
use crate::actors::messages::{Answered, Deliver, Recheck, Wake, Watch};
use crate::actors::outbox::Once;
use crate::actors::slots::{Ahead, MayClaim, Wanted, kept_for};
use crate::attempt::{Attempt, CachedInput, Input};
use crate::error::StoreError;
use crate::lifecycle::Next;
use crate::panic_message::OneByOne;
use crate::proof::{self, Point, Points};
use crate::record::{Encoded, Outcome, ShardId, TaskId, TaskRecord, TaskStatus};
use crate::result::{ResultParts, TaskResult};
use crate::store::{
    Batch, BatchError, BatchResult, CancelOutcome, Runnable, Settled, Settlement, ShardStore,
};

/// How many callers a shard tells itself what became of their tasks.
const ANSWER_HERE: usize = 32;

impl<S: ShardStore> ShardActor<S> {
    /// Does everything that waits in one transaction.
    pub(super) fn flush(&mut self, context: &mut Context<Self>) {
        if self.store.is_none() || self.pausing {
            return;
        }
        self.refuse_without_space();
        self.flushed = Instant::now();
        self.ledger.set_asleep(false);
        self.ledger.flush_begins();
        let flight = self.collect();
        let nothing = flight.batch.items() == 0
            && flight.batch.claim.slots + flight.batch.claim.prefetch == 0
            && !flight.batch.claim.suspect
            && !self.has_due_or_undelivered();
        if nothing {
            // it may have places of limited queues, without a slot for them
            if let Some(grant) = flight.grant {
                self.shared.wake(grant.give_back(false));
            }
            self.ledger.flush_is_over();
            if self.is_maintenance_due() {
                self.maintain(context);
            } else {
                let runnable = self.store.as_ref().map(S::runnable).unwrap_or_default();
                self.look_again(&runnable, false, context);
                self.set_timer(context);
            }
            return;
        }
        self.ledger.gauges.commit_begins();
        let (points, shard) = (self.shared.points.clone(), self.ledger.id);
        self.with_store(
            context,
            move |mut store| async move {
                let (mut flight, began) = (flight, Instant::now());
                let result = write(&mut store, &mut flight, shard, &points).await;
                (store, (flight, result, began.elapsed()))
            },
            |actor, (flight, result, took), context| {
                actor.ledger.gauges.commit_is_over();
                actor.measure(&flight, result.as_ref().ok(), took);
                actor.publish_not_started();
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

    /// Keeps what routing and the number of shards go by.
    fn measure(&mut self, flight: &InFlight, stored: Option<&BatchResult>, took: Duration) {
        let (gauges, batch) = (&self.ledger.gauges, &flight.batch);
        let Some(stored) = stored else {
            gauges.failed();
            return;
        };
        let incoming = &flight.inbox.asked.incoming;
        if let Some(synced_in) = stored.synced_in {
            let waited = incoming.waited(Instant::now());
            gauges.add_commit((took, synced_in), incoming.len() as u64, waited);
            self.commit.add(took, synced_in, batch.items(), batch.kib());
        }
        gauges.set_commit(&self.commit);
        let ends = batch.settlements.iter();
        let took: Duration = ends.map(|end| end.ended_at.since(end.started_at)).sum();
        if !batch.settlements.is_empty() {
            self.service.add(took.as_secs_f64() / batch.settlements.len() as f64);
            gauges.set_service(self.service.get().unwrap_or(0.0));
        }
    }

    /// Tells admission how many tasks haven't started: before those who submitted them are answered.
    pub(super) fn publish_not_started(&self) {
        let Some(store) = &self.store else { return };
        let now = store.outlook().not_started;
        let before = self.ledger.gauges.not_started.swap(now, Ordering::AcqRel);
        self.shared.admission.not_started_moved(before, now);
    }

    fn has_due_or_undelivered(&self) -> bool {
        let Some(store) = &self.store else { return false };
        let outlook = store.outlook();
        let due = outlook.next_due.is_some_and(|due| due <= self.shared.clock.now());
        due || outlook.undelivered && self.delivery_credits(0) > 0
    }

    /// The batch is durable: now answer, hand out and deliver.
    fn applied(&mut self, flight: InFlight, result: BatchResult, context: &mut Context<Self>) {
        // what was spared has had its second try, unless ends went alone
        self.second_try &= self.ends_only;
        self.ends_only = false;
        let InFlight { batch, inbox, grant } = flight;
        let mut deliver = Unsent::new(&self.ledger);
        let spent = self.settled(&batch, &inbox, &result.settled, &mut deliver.items);
        self.shared.points.pass_in(self.ledger.id, Point::ShardSettled);
        let Inbox { asked: Asked { incoming, cancels, redrives }, finishes, delivered } = inbox;
        for parcel in &finishes {
            self.ledger.finishes.confirm(parcel);
        }
        if !spent.is_empty() {
            // the attempts hold the arguments, too
            self.shared.callback.discard((finishes, OneByOne(spent)));
        }
        if !batch.deliveries.is_empty() {
            self.delivered_at = Instant::now();
            let mut delivering = self.ledger.delivering();
            for end in &batch.deliveries {
                delivering.remove(&end.id.sequence());
            }
        }
        for parcel in &delivered {
            self.ledger.delivered.confirm(parcel);
        }
        self.answer_submissions(incoming, result.submitted, context);
        for (cancel, outcome) in cancels.into_iter().zip(result.cancelled) {
            self.cancelled(cancel.id, outcome, context);
            drop(cancel.answer.send(Ok(outcome)));
        }
        for (redrive, outcome) in redrives.into_iter().zip(result.redriven) {
            drop(redrive.answer.send(Ok(outcome)));
        }
        deliver.items.extend(result.deliver.iter().filter_map(|record| self.item_of(record)));
        let now = batch.now;
        // attempts are to be the only ones that have their arguments
        drop(batch);
        self.hand_out(result.claims, grant, now);
        self.shared.points.pass_in(self.ledger.id, Point::ShardHandedOut);
        self.send_deliveries(deliver.take());
        self.after(context);
    }

    /// Takes from memory what ended tasks held there, answers who watched them, and collects
    /// results to deliver. Gives back the cached arguments that nobody needs any more.
    fn settled(
        &self,
        batch: &Batch,
        inbox: &Inbox,
        settled: &[Settled],
        deliver: &mut Vec<DeliverItem>,
    ) -> Vec<Arc<dyn CachedInput>> {
        let mut spent = Vec::new();
        let mut attempts = self.ledger.attempts();
        let mut cached = self.ledger.cached();
        let mut targets = self.ledger.targets();
        let mut watchers = self.ledger.watchers();
        for ((settlement, done), settled) in batch.settlements.iter().zip(inbox.done()).zip(settled)
        {
            let sequence = settlement.id.sequence();
            let ours = attempts
                .get(&sequence)
                .is_some_and(|attempt| attempt.counters.claim_no == settlement.claim_no);
            if ours {
                attempts.remove(&sequence);
                if let Some(run) = done.attempt.alone {
                    self.shared.wake(self.shared.slots.alone_is_over(run));
                }
            }
            let Settled::Recorded { deliver: send } = *settled else {
                if ours {
                    tracing::warn!(task = %settlement.id, "a stale attempt's end was refused");
                }
                continue;
            };
            let Next::Ended(outcome) = settlement.transition.next else { continue };
            if let (Outcome::Failed, Some(failure)) = (outcome, &settlement.transition.failure) {
                let (name, kind) = (&done.attempt.definition.name, failure.kind);
                tracing::warn!(task = %settlement.id, %name, %kind, "a task failed for good");
            }
            spent.extend(cached.remove(&sequence));
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
                let lost = done.attempt.volatile && targets.is_empty();
                let claim_no = settlement.claim_no;
                deliver.push(DeliverItem { result, claim_no, targets, lost });
            }
        }
        spent
    }

    fn item_of(&self, record: &TaskRecord) -> Option<DeliverItem> {
        let result = self.result_of(record)?;
        let targets = self.ledger.targets().remove(&record.id.sequence()).unwrap_or_default();
        let claim_no = record.counters.claim_no;
        Some(DeliverItem { result, claim_no, targets, lost: false })
    }

    /// Sends results to the CallbackActor.
    fn send_deliveries(&self, items: Vec<DeliverItem>) {
        if items.is_empty() {
            return;
        }
        let ids = items.iter().map(|item| item.result.id().sequence());
        self.ledger.delivering().extend(ids);
        let weight = ResultsWeight::new(&self.ledger, &items);
        let batch = DeliverBatch { shard: self.ledger.id, items: items.into(), weight };
        self.shared.callback.send(Deliver(self.shared.deliveries.post(Once::new(batch))));
    }

    /// Few callers are told here, which is sooner; waking many takes longer than storing their
    /// tasks, so the Dispatcher does that.
    fn answer_submissions(
        &self,
        mut incoming: Incoming,
        submitted: Vec<Result<TaskId, StoreError>>,
        context: &mut Context<Self>,
    ) {
        let known = incoming.keep(&submitted);
        if !known.spare.0.is_empty() {
            self.shared.callback.discard(known.spare);
        }
        for id in known.ids {
            context.address().do_send(Recheck(id));
        }
        if incoming.answers() > ANSWER_HERE {
            self.shared.dispatcher.send(Answered { incoming, submitted });
        } else {
            incoming.answer(&submitted);
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
                let spent = self.ledger.cached().remove(&id.sequence());
                if let Some(spent) = spent {
                    self.shared.callback.discard(spent);
                }
                let watching = self.ledger.watchers().remove(&id.sequence());
                for answer in watching.into_iter().flatten() {
                    context.address().do_send(Watch { id, answer });
                }
            }
            CancelOutcome::AlreadyFinished(_) | CancelOutcome::NotFound => {}
        }
    }

    /// Has another batch made if there is something for it, or if ready rows could be claimed; else
    /// sees to it that this shard is woken when they can. Rows may have become ready in a batch that
    /// took no credits, and free slots may be kept for another shard.
    fn look_again(&mut self, runnable: &[Runnable], again: bool, context: &mut Context<Self>) {
        let ready = runnable.iter().map(|one| self.may_run(one)).sum();
        self.ledger.gauges.ready.store(ready, Ordering::Release);
        let wanted = Wanted::of(runnable, &self.shared.queues, 1, self.ahead())
            .kept_for(kept_for(self.commit_time()));
        let may_claim = !wanted.is_empty() && !self.ends_only && self.shared.is_claiming();
        let claims = match may_claim {
            true => self.shared.slots.free_or_wait(self.ledger.id, &wanted),
            false => MayClaim::WhenWoken,
        };
        match claims {
            _ if again => self.arm_later(context),
            MayClaim::Now => self.arm_later(context),
            MayClaim::Soon(after) => {
                let at = Instant::now() + after;
                if self.looks_at.is_none_or(|earlier| at < earlier) {
                    self.looks_at = Some(at);
                    context.run_later(after, move |actor, context| {
                        actor.looks_at = actor.looks_at.filter(|other| *other != at);
                        context.address().do_send(Wake);
                    });
                }
            }
            // a thread came free between the look at the pool and the credits, and woke nobody
            MayClaim::WhenWoken
                if may_claim && self.lacked_thread && wanted.ahead() == Ahead::Quick =>
            {
                self.arm_later(context);
            }
            MayClaim::WhenWoken => {}
        }
    }

    /// How many of these may run: none of a paused queue, of a limited one as many as its limit. What
    /// may not is in nobody's way.
    fn may_run(&self, one: &Runnable) -> usize {
        let queues = &self.shared.queues;
        if !queues.any_restrained() {
            return one.ready;
        }
        let queue = queues.get(one.queue);
        let limit = if queue.is_paused() { Some(0) } else { queue.limit() };
        limit.map_or(one.ready, |limit| one.ready.min(limit))
    }

    /// Looks at what there is to do next.
    fn after(&mut self, context: &mut Context<Self>) {
        let Some(store) = &self.store else { return };
        let outlook = store.outlook();
        let runnable = store.runnable();
        self.ledger.gauges.running.store(self.ledger.attempts().len(), Ordering::Release);
        self.ledger.row_writes.store(outlook.row_writes, Ordering::Release);
        self.ledger.commits.store(outlook.commits, Ordering::Release);
        self.shared.moved();
        self.ledger.set_undelivered(outlook.undelivered);
        let deliver = outlook.undelivered && self.delivery_credits(0) > 0;
        let again = deliver || !self.inbox.asked.is_empty() || !self.inbox.finishes.is_empty();
        self.look_again(&runnable, again, context);
        if outlook.log_is_long {
            self.checkpoint(context);
        } else {
            self.maintain_or_rest(context);
        }
    }
}

/// Stores a batch. Who isn't answered, because this panics or its commit fails, is told the ids that
/// the tasks may have: they are this shard's for good before that.
async fn write<S: ShardStore>(
    store: &mut S,
    flight: &mut InFlight,
    shard: ShardId,
    points: &Points,
) -> Result<BatchResult, BatchError> {
    store.reserve(&flight.batch).await.map_err(BatchError::Refused)?;
    let ids = flight.batch.ids(shard, store.outlook().next);
    flight.inbox.asked.incoming.expect_ids(ids);
    points.pass_in(shard, Point::ShardCommit);
    proof::dawdle().await;
    let result = store.apply(&flight.batch).await;
    proof::dawdle().await;
    points.pass_in(shard, Point::ShardCommitted);
    result
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
