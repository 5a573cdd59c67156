//! Deliveries: from an end that someone waits for to the last target that has it.

use rusqlite::{OptionalExtension, params};

use super::row::{self, Targets};
use super::sqlite::SqliteStore;
use super::work::{Work, prepared};
use crate::lifecycle::{self, State};
use crate::record::{DeadReason, Delivery, TaskStatus};

/// The one delivery of a task ended well: the common case. Served by the primary key.
pub(super) const CALLBACKED: &str = "
    update task
       set delivery = 5, targets = 0
     where id = ?1 and claim_no = ?2 and delivery = 6 and targets = 1 and undelivered is null";

/// Served by the primary key.
pub(super) const OPEN_DELIVERY: &str = "
    select state, delivery, targets, undelivered, claim_no
      from task
     where id = ?1 and delivery in (1, 6)";

/// Served by the primary key.
pub(super) const CLOSE_ONE: &str = "
    update task
       set delivery = ?2, targets = ?3, undelivered = ?4
     where id = ?1";

/// Results that wait for credits, oldest task first. Served by task_pending.
pub(super) const WAITING: &str = concat!(
    "select ",
    row::record_columns!(),
    " from task where delivery = 1 order by id limit ?1"
);

/// Served by the primary key.
pub(super) const SEND: &str = "update task set delivery = 6 where id = ?1 and delivery = 1";

/// How large the results may be that one batch reads to be sent, in bytes, but for the last of them.
const DELIVER_BYTES: usize = 16 << 20;

impl Work<'_> {
    /// Writes the ends of deliveries to targets in memory.
    pub(super) fn end_deliveries(&mut self) -> rusqlite::Result<()> {
        for end in &self.batch.deliveries {
            let sequence = end.id.sequence();
            if end.dead.is_none() {
                let connection = self.connection();
                let update = prepared(&mut self.statements.callbacked, connection, CALLBACKED)?;
                if update.execute(params![sequence as i64, end.claim_no])? == 1 {
                    self.changes.tally.remove(TaskStatus::Callbacking);
                    self.changes.tally.add(TaskStatus::Callbacked);
                    self.changes.handled.laid.push(sequence);
                    continue;
                }
            }
            self.close_one(sequence, Closing::Memory { claim_no: end.claim_no }, end.dead)?;
        }
        Ok(())
    }

    /// Closes one of a task's open deliveries. One of an earlier run of a task that was redriven
    /// since is closed no more.
    pub(super) fn close_one(
        &mut self,
        sequence: u64,
        which: Closing,
        dead: Option<DeadReason>,
    ) -> rusqlite::Result<()> {
        let Some(mut open) = self.store.open_delivery_of(sequence)? else { return Ok(()) };
        let in_memory = matches!(which, Closing::Memory { .. });
        let is_open = match which {
            Closing::Memory { claim_no } => claim_no == open.claim_no && open.targets.memory,
            Closing::Callback { claim_no } => claim_no.is_none_or(|no| no == open.claim_no),
        };
        if !is_open {
            return Ok(());
        }
        open.reasons.extend(dead);
        if in_memory {
            open.targets.memory = false;
            self.changes.handled.laid.push(sequence);
        } else {
            open.targets.callbacks = open.targets.callbacks.saturating_sub(1);
        }
        let after = match (open.targets.open(), open.reasons.first()) {
            (0, None) => Delivery::Callbacked,
            (0, Some(reason)) => Delivery::Dead(*reason),
            // only durable callbacks are left, and those never wait for credits
            _ if in_memory => Delivery::Callbacking,
            _ => open.delivery.clone(),
        };
        if open.delivery == Delivery::Pending && after != Delivery::Pending {
            self.changes.undelivered -= 1;
        }
        self.connection().prepare_cached(CLOSE_ONE)?.execute(params![
            sequence as i64,
            lifecycle::delivery_code(&after),
            open.targets.code(),
            row::reasons_text(&open.reasons),
        ])?;
        self.changes.tally.remove(lifecycle::status(open.state, &open.delivery));
        self.changes.tally.add(lifecycle::status(open.state, &after));
        Ok(())
    }

    /// How many results wait for credits, as far as this transaction has come.
    pub(super) fn undelivered(&self) -> u64 {
        self.store.undelivered.saturating_add_signed(self.changes.undelivered)
    }

    /// Sends results that waited for credits, as far as they go now.
    pub(super) fn deliver_waiting(&mut self) -> rusqlite::Result<()> {
        if self.credits == 0 || self.undelivered() == 0 {
            return Ok(());
        }
        let mut waiting = self.connection().prepare_cached(WAITING)?;
        let rows = waiting.query_map([self.credits], |row| row::record(self.store, row))?;
        let (mut records, mut bytes) = (Vec::new(), 0);
        for record in rows {
            let record = record?;
            let parts = [&record.payload, &record.output];
            bytes += parts
                .iter()
                .filter_map(|part| part.as_ref())
                .map(|part| part.bytes.len())
                .sum::<usize>();
            records.push(record);
            // the others come with the next batch
            if bytes >= DELIVER_BYTES {
                break;
            }
        }
        let mut send = self.connection().prepare_cached(SEND)?;
        for record in &mut records {
            send.execute([record.id.sequence() as i64])?;
            self.changes.tally.remove(record.status);
            self.changes.tally.add(TaskStatus::Callbacking);
            self.changes.handled.taken.push(record.id.sequence());
            self.changes.undelivered -= 1;
            record.status = TaskStatus::Callbacking;
            record.delivery = Delivery::Callbacking;
        }
        self.credits -= records.len();
        self.result.deliver = records;
        Ok(())
    }
}

/// Which of a task's deliveries ends, and of which of its claims.
#[derive(Clone, Copy, Debug)]
pub(super) enum Closing {
    /// That to targets in memory.
    Memory { claim_no: u32 },
    /// That of a durable callback; it may not know of which claim.
    Callback { claim_no: Option<u32> },
}

/// A task whose notification is under way.
pub(super) struct OpenDelivery {
    pub(super) state: State,
    pub(super) delivery: Delivery,
    pub(super) targets: Targets,
    /// Why targets will never have the result, one each.
    pub(super) reasons: Vec<DeadReason>,
    pub(super) claim_no: u32,
}

impl SqliteStore {
    fn open_delivery_of(&self, sequence: u64) -> rusqlite::Result<Option<OpenDelivery>> {
        let mut select = self.connection.prepare_cached(OPEN_DELIVERY)?;
        select
            .query_row([sequence as i64], |row| {
                Ok(OpenDelivery {
                    state: row::state(row.get(0)?),
                    delivery: row::delivery(row.get(1)?, None),
                    targets: Targets::read(row::count(row, 2)?),
                    reasons: row::reasons(row::text(row, 3)?),
                    claim_no: row::count(row, 4)?,
                })
            })
            .optional()
    }
}
