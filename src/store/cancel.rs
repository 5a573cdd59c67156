//! Ending tasks that haven't started, and sending ended ones round again.

use rusqlite::{OptionalExtension, params};

use super::row::{self, Details};
use super::settle::Ended;
use super::sqlite::{Arrival, SqliteStore};
use super::work::Work;
use super::{CancelOutcome, Parent, RedriveOutcome};
use crate::lifecycle::{self, Cancel, State};
use crate::order::Place;
use crate::record::{DeadReason, Delivery, Outcome, TaskStatus};

/// Served by the primary key.
pub(super) const HEAD: &str = "
    select name, state, delivery, undelivered, priority, rank, volatile, parent, details, claim_no
      from task
     where id = ?1";

/// Ends a task that hasn't started. Served by the primary key.
pub(super) const CANCEL: &str = "
    update task
       set state = 7, due_or_ended_at = ?2, live = ?3, delivery = ?4, delivery_left = ?5,
           volatile = ?6
     where id = ?1 and state in (0, 1)";

/// Lets an ended task run again as if it were new; its claims go on being counted. Its targets in
/// memory had their answer. Served by the primary key.
pub(super) const REDRIVE: &str = "
    update task
       set state = 1, live = 0, delivery = 0, delivery_left = 0, undelivered = null, volatile = 0,
           failures = 0, crashes = 0, rank = ?2, due_or_ended_at = null, started_at = null
     where id = ?1 and state in (4, 7, 8) and live = 0";

/// The parent of a callback that runs again waits for that one once more; what became of its other
/// targets stays. Served by the primary key.
pub(super) const REOPEN_PARENT: &str = "
    update task
       set delivery = iif(delivery = 9, 6, delivery), delivery_left = delivery_left + 1,
           undelivered = ?2, live = 1
     where id = ?1";

/// What deciding about a row takes.
struct Head {
    definition: Option<usize>,
    state: State,
    delivery: Delivery,
    priority: i16,
    place: Place,
    volatile: bool,
    parent: Option<Parent>,
    callbacks: Option<std::sync::Arc<[std::sync::Arc<str>]>>,
    claim_no: u32,
    /// Why targets will never have its result, one each.
    reasons: Vec<DeadReason>,
}

impl Head {
    fn status(&self) -> TaskStatus {
        lifecycle::status(self.state, &self.delivery)
    }
}

impl Work<'_> {
    pub(super) fn cancel_all(&mut self) -> rusqlite::Result<()> {
        for id in &self.batch.cancellations {
            let outcome = self.cancel(id.sequence())?;
            self.result.cancelled.push(outcome);
        }
        Ok(())
    }

    fn cancel(&mut self, sequence: u64) -> rusqlite::Result<CancelOutcome> {
        let Some(head) = self.store.head(sequence)? else { return Ok(CancelOutcome::NotFound) };
        match lifecycle::cancel(head.state) {
            Cancel::Request => return Ok(CancelOutcome::Requested),
            Cancel::TooLate => return Ok(CancelOutcome::AlreadyFinished(head.status())),
            Cancel::End => {}
        }
        let watched = head.parent.is_none() && self.is_watched(head.definition);
        let notify = head.volatile || watched;
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
            opening.left > 0,
            opening.delivery,
            opening.left,
            notify,
        ])?;
        self.changes.tally.remove(TaskStatus::NotStarted);
        self.changes.departures.push(head.place);
        self.changes.arrivals.retain(|arrival| arrival.place != head.place);
        self.announce(&ended, opening)?;
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
        let Some(head) = self.store.head(sequence)? else { return Ok(RedriveOutcome::NotFound) };
        if !lifecycle::may_redrive(head.state, &head.delivery) {
            return Ok(RedriveOutcome::NotDead(head.status()));
        }
        let place = self.place(self.now(), head.priority, sequence);
        self.connection().prepare_cached(REDRIVE)?.execute(params![sequence as i64, place.rank])?;
        self.changes.tally.remove(head.status());
        self.changes.tally.add(TaskStatus::NotStarted);
        let definition = head.definition;
        self.changes.arrivals.push(Arrival { place, definition, suspect: false });
        if let Some(parent) = head.parent {
            self.reopen(parent)?;
        }
        Ok(RedriveOutcome::Redriven)
    }

    fn reopen(&mut self, parent: Parent) -> rusqlite::Result<()> {
        let sequence = parent.id.sequence();
        let Some(mut head) = self.store.head(sequence)? else { return Ok(()) };
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

impl SqliteStore {
    fn head(&self, sequence: u64) -> rusqlite::Result<Option<Head>> {
        let mut select = self.connection.prepare_cached(HEAD)?;
        select
            .query_row([sequence as i64], |row| {
                let reasons = row::reasons(row::text(row, 3)?);
                let details = row::text(row, 8)?;
                let details = Details::read(details).unwrap_or_default();
                let parent = row.get::<_, Option<i64>>(7)?.map(|parent| self.id(parent));
                Ok(Head {
                    definition: self.names.definition(row.get(0)?),
                    state: row::state(row.get(1)?),
                    delivery: row::delivery(row.get(2)?, reasons.first().copied()),
                    priority: row::priority(row, 4)?,
                    place: Place { rank: row.get(5)?, sequence },
                    volatile: row.get(6)?,
                    parent: details.parent(parent),
                    callbacks: details.callbacks(),
                    claim_no: row::count(row, 9)?,
                    reasons,
                })
            })
            .optional()
    }
}
