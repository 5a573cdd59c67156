//! Writing attempts' ends, with the callbacks that they cause.

use std::borrow::Cow;
use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use super::changes::Arrival;
use super::delivery::Closing;
use super::row::{Targets, failure_text};
use super::submit::RANK;
use super::work::{Work, is_constraint, prepared};
use super::{Parent, Settled, Settlement};
use crate::clock::Timestamp;
use crate::lifecycle::{self, Next, State};
use crate::order::Place;
use crate::proof::{self, Safeguard};
use crate::record::{DeadReason, Delivery, FailureKind, Outcome, TaskStatus};

/// Records a success, if the row is still ours. Served by the primary key.
pub(super) const FINISH: &str = "
    update task
       set state = 3, delivery = ?3, targets = ?4, started_at = ?5, due_or_ended_at = ?6,
           output = ?7
     where id = ?1 and state = 2 and claim_no = ?2";

/// Records an end without success if the row is still ours. Served by the primary key.
pub(super) const END: &str = "
    update task
       set state = ?3, delivery = ?4, targets = ?5, started_at = ?6, due_or_ended_at = ?7,
           failures = ?8, crashes = ?9, error = coalesce(?10, error)
     where id = ?1 and state = 2 and claim_no = ?2";

/// Lets a row run again, now or later, if it is still ours. Served by the primary key.
pub(super) const AGAIN: &str = "
    update task
       set state = ?3, due_or_ended_at = ?4, rank = ?5, failures = ?6, crashes = ?7,
           error = coalesce(?8, error)
     where id = ?1 and state = 2 and claim_no = ?2";

/// One of these three, or what a proof has to notice: without its fence the end of an attempt that is
/// over is taken for that of a later one that runs, without the state an end is taken twice.
fn fenced(sql: &'static str) -> Cow<'static, str> {
    if !proof::stands(Safeguard::Fence) {
        Cow::Owned(sql.replace("claim_no = ?2", "?2 > 0"))
    } else if !proof::stands(Safeguard::EndedOnce) {
        Cow::Owned(sql.replace("state = 2 and ", ""))
    } else {
        Cow::Borrowed(sql)
    }
}

/// How a task's end is to be notified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) delivery: u8,
    pub(super) targets: Targets,
    /// Whether the result goes to targets in memory at once.
    pub(super) deliver: bool,
}

impl Opening {
    /// Whether it goes to memory alone, so that the row says already how the delivery will have ended.
    fn is_presumed(self) -> bool {
        self.deliver && self.targets.callbacks == 0
    }

    /// What the row says of it: the columns `delivery` and `targets`.
    fn stored(self) -> (u8, i64) {
        match self.is_presumed() {
            true => (lifecycle::delivery_code(&Delivery::Callbacked), Targets::default().code()),
            false => (self.delivery, self.targets.code()),
        }
    }
}

/// Whose end it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended<'a> {
    pub(super) sequence: u64,
    pub(super) claim_no: u32,
    pub(super) definition: Option<usize>,
    pub(super) priority: i16,
    pub(super) callbacks: Option<&'a Arc<[Arc<str>]>>,
    pub(super) parent: Option<Parent>,
    pub(super) outcome: Outcome,
}

impl Work<'_> {
    pub(super) fn settle_all(&mut self) -> rusqlite::Result<()> {
        for settlement in &self.batch.settlements {
            let settled = match self.settle_row(settlement, Some(settlement.definition)) {
                Err(fault) if is_constraint(&fault) => {
                    let id = settlement.id;
                    tracing::error!(task = %id, %fault, "an attempt's end breaks a constraint");
                    Settled::Stale
                }
                other => other?,
            };
            self.result.settled.push(settled);
        }
        Ok(())
    }

    /// Writes one attempt's end; `definition` is `None` if its name isn't registered here.
    pub(super) fn settle_row(
        &mut self,
        settlement: &Settlement,
        definition: Option<usize>,
    ) -> rusqlite::Result<Settled> {
        match settlement.transition.next {
            Next::Ended(outcome) => self.settle_end(settlement, definition, outcome),
            Next::Again { at } => self.settle_again(settlement, at),
            Next::Back => self.settle_back(settlement),
        }
    }

    fn settle_end(
        &mut self,
        settlement: &Settlement,
        definition: Option<usize>,
        outcome: Outcome,
    ) -> rusqlite::Result<Settled> {
        let ended = Ended {
            sequence: settlement.id.sequence(),
            claim_no: settlement.claim_no,
            definition,
            priority: settlement.priority,
            callbacks: settlement.callbacks.as_ref(),
            parent: settlement.parent,
            outcome,
        };
        let opening = self.open_delivery(&ended, settlement.notify);
        let (delivery, targets) = opening.stored();
        let started_at = settlement.started_at.as_micros();
        let ended_at = settlement.ended_at.as_micros();
        let id = ended.sequence as i64;
        let connection = self.connection();
        let changed = if outcome == Outcome::Finished {
            let finish = fenced(FINISH);
            prepared(&mut self.statements.finish, connection, &finish)?.execute(params![
                id,
                settlement.claim_no,
                delivery,
                targets,
                started_at,
                ended_at,
                settlement.output.as_deref(),
            ])?
        } else {
            let transition = &settlement.transition;
            self.connection().prepare_cached(&fenced(END))?.execute(params![
                id,
                settlement.claim_no,
                State::Ended(outcome).code(),
                delivery,
                targets,
                started_at,
                ended_at,
                transition.counters.failures,
                transition.counters.crashes,
                failure_text(transition.failure.as_ref()),
            ])?
        };
        if changed == 0 {
            return Ok(Settled::Stale);
        }
        self.changes.tally.remove(TaskStatus::Running);
        if !opening.deliver {
            self.changes.handled.laid.push(ended.sequence);
        } else if opening.is_presumed() {
            self.changes.handled.sent.push((ended.sequence, ended.claim_no));
        }
        self.announce(&ended, opening)?;
        let failure = settlement.transition.failure.as_ref();
        let corrupt = failure.is_some_and(|failure| failure.kind == FailureKind::Corrupt);
        match &settlement.key {
            // nor can its key be trusted
            _ if corrupt => self.leave_any_lane(ended.sequence)?,
            Some(key) => self.leave_lane(key, ended.sequence, false)?,
            None => {}
        }
        Ok(Settled::Recorded { deliver: opening.deliver })
    }

    fn settle_again(
        &mut self,
        settlement: &Settlement,
        at: Timestamp,
    ) -> rusqlite::Result<Settled> {
        let due = at.max(self.now());
        let place = self.place(due, settlement.priority, settlement.id.sequence());
        self.run_again(settlement, at, place)
    }

    /// Lets a row run again where it stood before it was claimed.
    fn settle_back(&mut self, settlement: &Settlement) -> rusqlite::Result<Settled> {
        let sequence = settlement.id.sequence();
        let mut select = self.connection().prepare_cached(RANK)?;
        let rank = select.query_row([sequence as i64], |row| row.get(0)).optional()?;
        let Some(rank) = rank else { return Ok(Settled::Stale) };
        self.run_again(settlement, self.now(), Place { rank, sequence })
    }

    fn run_again(
        &mut self,
        settlement: &Settlement,
        at: Timestamp,
        place: Place,
    ) -> rusqlite::Result<Settled> {
        let (transition, sequence) = (&settlement.transition, place.sequence);
        let later = at > self.now();
        let state = if later { State::Waiting } else { State::Ready };
        let changed = self.connection().prepare_cached(&fenced(AGAIN))?.execute(params![
            sequence as i64,
            settlement.claim_no,
            state.code(),
            at.as_micros(),
            place.rank,
            transition.counters.failures,
            transition.counters.crashes,
            failure_text(transition.failure.as_ref()),
        ])?;
        if changed == 0 {
            return Ok(Settled::Stale);
        }
        self.changes.tally.remove(TaskStatus::Running);
        self.changes.tally.add(TaskStatus::NotStarted);
        self.changes.handled.laid.push(sequence);
        if later {
            self.wait(sequence, at)?;
        } else {
            let suspect = self.store.is_suspect(transition.counters.crashes);
            self.changes.arrivals.push(Arrival { place, kind: settlement.kind, suspect });
        }
        Ok(Settled::Recorded { deliver: false })
    }

    /// Decides how an end is notified: how many deliveries it opens, and whether one goes out now.
    pub(super) fn open_delivery(&self, ended: &Ended<'_>, notify: bool) -> Opening {
        let recorded = proof::stands(Safeguard::DeliveryRecord);
        let callbacks = if recorded { self.callbacks_of(ended).count() } else { 0 };
        let targets = Targets { memory: notify, callbacks };
        // credits that older results wait for aren't for this one
        let deliver = notify && self.credits as u64 > self.undelivered();
        let delivery = match (targets.open(), notify, deliver) {
            (0, ..) => Delivery::None,
            (_, true, false) => Delivery::Pending,
            _ => Delivery::Callbacking,
        };
        Opening { delivery: lifecycle::delivery_code(&delivery), targets, deliver }
    }

    /// The durable callbacks of an end: the submission's, then the named subscribers of its
    /// definition. The end of a callback itself has none.
    fn callbacks_of<'e>(&'e self, ended: &'e Ended<'_>) -> impl Iterator<Item = &'e Arc<str>> {
        let own = ended.callbacks.into_iter().flat_map(|names| names.iter());
        let subscribers = ended
            .definition
            .filter(|_| ended.parent.is_none())
            .and_then(|index| self.store.options.subscribers.get(index));
        own.chain(subscribers.into_iter().flatten())
    }

    /// Counts a task's end, inserts its durable callbacks and tells its parent.
    pub(super) fn announce(&mut self, ended: &Ended<'_>, opening: Opening) -> rusqlite::Result<()> {
        let delivery = super::row::delivery(opening.delivery, None);
        let state = State::Ended(ended.outcome);
        self.changes.tally.add(lifecycle::status(state, &delivery));
        if opening.deliver {
            self.credits -= 1;
        } else if delivery == Delivery::Pending {
            self.pending(ended.sequence)?;
        }
        if opening.targets.callbacks > 0 {
            let names: Vec<Arc<str>> = self.callbacks_of(ended).cloned().collect();
            for name in &names {
                self.insert_callback(name, ended.sequence, ended.claim_no, ended.priority)?;
            }
        }
        if let Some(parent) = ended.parent {
            let well = ended.outcome == Outcome::Finished;
            let dead = (!well).then_some(DeadReason::CallbackFailed);
            let closing = Closing::Callback { claim_no: parent.claim_no };
            self.close_one(parent.id.sequence(), closing, dead)?;
        }
        Ok(())
    }
}
