//! Deliveries: from an end that someone waits for to the last target that has it.

use rusqlite::{OptionalExtension, params};

use super::row::{self, Targets};
use super::sqlite::SqliteStore;
use super::work::Work;
use crate::lifecycle::{self, State};
use crate::record::{DeadReason, Delivery, TaskStatus};

/// The one delivery of a task, to memory, didn't end well. Served by the primary key.
pub(super) const UNDELIVERED: &str =
    "update task set delivery = 9, undelivered = ?2 where id = ?1 and delivery = 5";

/// Served by the primary key.
pub(super) const STATE: &str = "select state from task where id = ?1";

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

/// Results that wait for credits, oldest task first. Served by the primary keys.
pub(super) const WAITING: &str = concat!(
    "select ",
    row::record_columns!(),
    " from pending cross join task on task.id = pending.task and task.delivery = 1
     order by pending.task limit ?1"
);

/// Begins to wait for credits.
const WAIT: &str = "insert or ignore into pending (task) values (?1)";

/// Served by the primary key.
pub(super) const WAIT_NO_MORE: &str = "delete from pending where task = ?1";

/// Begins a delivery to memory alone. Served by the primary key.
pub(super) const SEND_ALONE: &str = "
    update task
       set delivery = 5, targets = 0
     where id = ?1 and delivery = 1 and targets = 1 and undelivered is null";

/// Served by the primary key.
pub(super) const SEND: &str = "update task set delivery = 6 where id = ?1 and delivery = 1";

/// How large the results may be that one batch reads to be sent, in bytes, but for the last of them.
const DELIVER_BYTES: usize = 16 << 20;

impl Work<'_> {
    /// Writes the ends of deliveries to targets in memory.
    pub(super) fn end_deliveries(&mut self) -> rusqlite::Result<()> {
        for end in &self.batch.deliveries {
            let closing = Closing::Memory { claim_no: end.claim_no };
            self.close_one(end.id.sequence(), closing, end.dead)?;
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
        if let Closing::Memory { claim_no } = which
            && self.store.standing.in_hand.sent(sequence) == Some(claim_no)
        {
            return self.close_sent(sequence, dead);
        }
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
            self.pending_no_more(sequence)?;
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

    /// As [`SqliteStore::delivery_of`], as far as this transaction has come.
    pub(super) fn delivery_of(
        &self,
        sequence: u64,
        code: u8,
        reason: Option<DeadReason>,
    ) -> Delivery {
        let handled = &self.changes.handled;
        let sent = match self.store.standing.in_hand.sent(sequence) {
            Some(_) => !handled.unsent.contains(&sequence),
            None => handled.sent.iter().any(|(row, _)| *row == sequence),
        };
        presumed(row::delivery(code, reason), sent)
    }

    /// Ends a delivery to memory alone. If it ended well the row says so already.
    fn close_sent(&mut self, sequence: u64, dead: Option<DeadReason>) -> rusqlite::Result<()> {
        // its end may come twice
        if !self.changes.handled.unsent.insert(sequence) {
            return Ok(());
        }
        self.changes.handled.laid.push(sequence);
        self.changes.tally.remove(TaskStatus::Callbacking);
        let Some(reason) = dead else {
            self.changes.tally.add(TaskStatus::Callbacked);
            return Ok(());
        };
        let (row, reasons) = (sequence as i64, row::reasons_text(&[reason]));
        let mut update = self.connection().prepare_cached(UNDELIVERED)?;
        update.execute(params![row, reasons])?;
        let mut state = self.connection().prepare_cached(STATE)?;
        let state = state.query_row([row], |row| row.get::<_, u8>(0)).optional()?;
        // damage may have left no row
        if let Some(state) = state.map(row::state) {
            self.changes.tally.add(lifecycle::status(state, &Delivery::Dead(reason)));
        }
        Ok(())
    }

    /// Lets a result wait for credits.
    pub(super) fn pending(&mut self, sequence: u64) -> rusqlite::Result<()> {
        let listed = self.connection().prepare_cached(WAIT)?.execute([sequence as i64])?;
        self.changes.undelivered += listed as i64;
        Ok(())
    }

    fn pending_no_more(&mut self, sequence: u64) -> rusqlite::Result<()> {
        let gone = self.connection().prepare_cached(WAIT_NO_MORE)?.execute([sequence as i64])?;
        self.changes.undelivered -= gone as i64;
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
        let mut send_alone = self.connection().prepare_cached(SEND_ALONE)?;
        let mut send = self.connection().prepare_cached(SEND)?;
        for record in &mut records {
            let sequence = record.id.sequence();
            if send_alone.execute([sequence as i64])? == 1 {
                self.changes.handled.sent.push((sequence, record.counters.claim_no));
            } else {
                send.execute([sequence as i64])?;
            }
            self.changes.tally.remove(record.status);
            self.changes.tally.add(TaskStatus::Callbacking);
            self.changes.handled.taken.push(sequence);
            self.pending_no_more(sequence)?;
            record.status = TaskStatus::Callbacking;
            record.delivery = Delivery::Callbacking;
        }
        self.credits -= records.len();
        self.result.deliver = records;
        Ok(())
    }
}

/// What a delivery is that says of itself that it ended well, while it is being sent.
fn presumed(delivery: Delivery, sent: bool) -> Delivery {
    match delivery {
        Delivery::Callbacked if sent => Delivery::Callbacking,
        delivery => delivery,
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
    /// The delivery of a row with this in its column `delivery`, and why its first target will never
    /// have the result. What is being sent to memory alone isn't over.
    pub(super) fn delivery_of(
        &self,
        sequence: u64,
        code: u8,
        reason: Option<DeadReason>,
    ) -> Delivery {
        presumed(row::delivery(code, reason), self.standing.in_hand.sent(sequence).is_some())
    }

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
