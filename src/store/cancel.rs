//! Ending tasks that haven't started, and sending ended ones round again.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use super::changes::Arrival;
use super::kinds::KindId;
use super::row::{self, Details, Targets};
use super::settle::Ended;
use super::work::Work;
use super::{CancelOutcome, Cancellation, Parent, RedriveOutcome};
use crate::clock::Timestamp;
use crate::keys::slot_of;
use crate::lifecycle::{self, Cancel, State};
use crate::order::Place;
use crate::record::{DeadReason, Delivery, Outcome, TaskStatus};

/// Served by the primary key.
pub(super) const HEAD: &str = "
    select kind, state, delivery, undelivered, priority, rank, targets, details, claim_no,
           due_or_ended_at
      from task
     where id = ?1";

/// Ends a task that hasn't started. Served by the primary key.
pub(super) const CANCEL: &str = "
    update task
       set state = 7, due_or_ended_at = ?2, delivery = ?3, targets = ?4
     where id = ?1 and state in (0, 1, 10)";

/// Lets an ended task run again as if it were new; its claims go on being counted. Its targets in
/// memory had their answer. Served by the primary key.
pub(super) const REDRIVE: &str = "
    update task
       set state = ?3, delivery = 0, targets = 0, undelivered = null, failures = 0, crashes = 0,
           rank = ?2, started_at = null, due_or_ended_at = submitted_at
     where id = ?1 and state in (4, 7, 8) and delivery in (0, 5, 9)";

/// The parent of a callback that runs again waits for that one once more; what became of its other
/// targets stays. Served by the primary key.
pub(super) const REOPEN_PARENT: &str = "
    update task
       set delivery = iif(delivery = 9, 6, delivery), targets = targets + 2, undelivered = ?2
     where id = ?1";

/// What deciding about a row takes.
struct Head {
    kind: KindId,
    definition: Option<usize>,
    state: State,
    delivery: Delivery,
    priority: i16,
    place: Place,
    /// Whether a target in memory waits for its end.
    memory: bool,
    key: Option<Arc<str>>,
    parent: Option<Parent>,
    callbacks: Option<Arc<[Arc<str>]>>,
    claim_no: u32,
    /// Why targets will never have its result, one each.
    reasons: Vec<DeadReason>,
    due_or_ended_at: Option<Timestamp>,
}

impl Head {
    fn status(&self) -> TaskStatus {
        lifecycle::status(self.state, &self.delivery)
    }
}

impl Work<'_> {
    pub(super) fn cancel_all(&mut self) -> rusqlite::Result<()> {
        for cancellation in &self.batch.cancellations {
            let outcome = self.cancel(*cancellation)?;
            self.result.cancelled.push(outcome);
        }
        Ok(())
    }

    fn cancel(&mut self, cancellation: Cancellation) -> rusqlite::Result<CancelOutcome> {
        let sequence = cancellation.id.sequence();
        let Some(head) = self.head(sequence)? else { return Ok(CancelOutcome::NotFound) };
        match lifecycle::cancel(head.state) {
            Cancel::Request => return Ok(CancelOutcome::Requested),
            Cancel::TooLate => return Ok(CancelOutcome::AlreadyFinished(head.status())),
            Cancel::End => {}
        }
        let watched = head.parent.is_none() && self.is_watched(head.definition);
        let notify = head.memory || watched || cancellation.notify;
        let ended = Ended {
            sequence,
            claim_no: head.claim_no,
            definition: head.definition,
            priority: head.priority,
            callbacks: head.callbacks.as_ref(),
            parent: head.parent,
            outcome: Outcome::Cancelled,
        };
        let mut opening = self.open_delivery(&ended, notify);
        if notify {
            // read back and sent at the end of this transaction, or when there are credits
            opening.deliver = false;
            opening.delivery = lifecycle::delivery_code(&Delivery::Pending);
        }
        self.connection().prepare_cached(CANCEL)?.execute(params![
            sequence as i64,
            self.now().as_micros(),
            opening.delivery,
            opening.targets.code(),
        ])?;
        self.changes.tally.remove(TaskStatus::NotStarted);
        self.changes.departures.push((head.kind, head.place));
        self.changes.arrivals.retain(|arrival| arrival.place != head.place);
        if let (State::Waiting, Some(due)) = (head.state, head.due_or_ended_at) {
            self.wait_no_more(sequence, due)?;
        }
        self.announce(&ended, opening)?;
        if let Some(key) = &head.key {
            self.leave_lane(key, sequence, head.state == State::Held)?;
        }
        Ok(CancelOutcome::Removed)
    }

    pub(super) fn redrive_all(&mut self) -> rusqlite::Result<()> {
        for id in &self.batch.redrives {
            let outcome = self.redrive(id.sequence())?;
            self.result.redriven.push(outcome);
        }
        Ok(())
    }

    fn redrive(&mut self, sequence: u64) -> rusqlite::Result<RedriveOutcome> {
        let Some(head) = self.head(sequence)? else { return Ok(RedriveOutcome::NotFound) };
        if !lifecycle::may_redrive(head.state, &head.delivery) {
            return Ok(RedriveOutcome::NotDead(head.status()));
        }
        let elsewhere = |key: &Arc<str>| {
            let placed = self.batch.shards_of_slots.get(usize::from(slot_of(key)));
            placed.is_some_and(|shard| *shard != self.store.shard.0)
        };
        if head.key.as_ref().is_some_and(elsewhere) {
            return Ok(RedriveOutcome::KeyMoved);
        }
        let place = self.place(self.now(), head.priority, sequence);
        let held = match &head.key {
            Some(key) => self.store.first_of(key)?.is_some(),
            None => false,
        };
        let state = if held { State::Held } else { State::Ready };
        let mut redrive = self.connection().prepare_cached(REDRIVE)?;
        redrive.execute(params![sequence as i64, place.rank, state.code()])?;
        self.changes.tally.remove(head.status());
        self.changes.tally.add(TaskStatus::NotStarted);
        if let Some(key) = &head.key {
            self.enter_lane(key, sequence)?;
        }
        if !held {
            self.changes.arrivals.push(Arrival { place, kind: head.kind, suspect: false });
        }
        if let Some(parent) = head.parent {
            self.reopen(parent)?;
        }
        Ok(RedriveOutcome::Redriven)
    }

    fn reopen(&mut self, parent: Parent) -> rusqlite::Result<()> {
        let sequence = parent.id.sequence();
        let Some(mut head) = self.head(sequence)? else { return Ok(()) };
        let of_this_run = parent.claim_no.is_none_or(|claim_no| claim_no == head.claim_no);
        let failed = head.reasons.iter().position(|reason| *reason == DeadReason::CallbackFailed);
        let (Some(failed), true) = (failed, of_this_run) else { return Ok(()) };
        head.reasons.remove(failed);
        let undelivered = row::reasons_text(&head.reasons);
        let mut reopen = self.connection().prepare_cached(REOPEN_PARENT)?;
        reopen.execute(params![sequence as i64, undelivered])?;
        let after = match &head.delivery {
            Delivery::Dead(_) => Delivery::Callbacking,
            open => open.clone(),
        };
        self.changes.tally.remove(head.status());
        self.changes.tally.add(lifecycle::status(head.state, &after));
        Ok(())
    }
}

impl Work<'_> {
    fn head(&self, sequence: u64) -> rusqlite::Result<Option<Head>> {
        let store = self.store;
        let mut select = store.connection.prepare_cached(HEAD)?;
        select
            .query_row([sequence as i64], |row| {
                let reasons = row::reasons(row::text(row, 3)?);
                let details = Details::read(row::text(row, 7)?).unwrap_or_default();
                let kind = KindId(row.get(0)?);
                Ok(Head {
                    kind,
                    definition: store.kinds.definition(kind),
                    state: row::state(row.get(1)?),
                    delivery: self.delivery_of(sequence, row.get(2)?, reasons.first().copied()),
                    priority: row::priority(row, 4)?,
                    place: Place { rank: row.get(5)?, sequence },
                    memory: Targets::read(row::count(row, 6)?).memory,
                    key: details.key(),
                    parent: details.parent(store.shard),
                    callbacks: details.callbacks(),
                    claim_no: row::count(row, 8)?,
                    reasons,
                    due_or_ended_at: row.get::<_, Option<i64>>(9)?.map(Timestamp::from_micros),
                })
            })
            .optional()
    }
}
