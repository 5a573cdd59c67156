//! What one transaction does, in which order.

use rusqlite::{CachedStatement, Connection, ErrorCode};

use super::changes::Changes;
use super::sqlite::SqliteStore;
use super::{Batch, BatchResult};
use crate::clock::Timestamp;
use crate::order::Place;
use crate::proof::{self, Safeguard};
use crate::record::TaskId;

/// How many durable callbacks one submission can name.
pub(crate) const CALLBACKS_MAX: usize = 16;

/// A transaction in progress. It reads the store's memory and collects what to change there.
pub(super) struct Work<'a> {
    pub(super) store: &'a SqliteStore,
    pub(super) batch: &'a Batch,
    pub(super) changes: Changes,
    pub(super) result: BatchResult,
    pub(super) next_submission: u64,
    /// How many more results may be sent to targets in memory.
    pub(super) credits: usize,
    pub(super) statements: Statements<'a>,
}

/// The statements that run once per task, looked up once per transaction.
#[derive(Default)]
pub(super) struct Statements<'a> {
    pub(super) insert: Option<CachedStatement<'a>>,
    pub(super) insert_claimed: Option<CachedStatement<'a>>,
    pub(super) look: Option<CachedStatement<'a>>,
    pub(super) claim: Option<CachedStatement<'a>>,
    pub(super) finish: Option<CachedStatement<'a>>,
}

/// The statement in `slot`, prepared if this is the first time.
pub(super) fn prepared<'s, 'a>(
    slot: &'s mut Option<CachedStatement<'a>>,
    connection: &'a Connection,
    sql: &str,
) -> rusqlite::Result<&'s mut CachedStatement<'a>> {
    match slot {
        Some(statement) => Ok(statement),
        None => Ok(slot.insert(connection.prepare_cached(sql)?)),
    }
}

impl<'a> Work<'a> {
    pub(super) fn new(store: &'a SqliteStore, batch: &'a Batch) -> Self {
        // the submissions' numbers come first, so that their ids are known before the batch is
        let fresh = batch.submissions.iter().filter(|task| task.id.is_none()).count();
        Work {
            store,
            batch,
            changes: Changes { next: store.next + fresh as u64, ..Changes::default() },
            next_submission: store.next,
            result: BatchResult::default(),
            credits: batch.deliver,
            statements: Statements::default(),
        }
    }

    /// Ends go first: they free what others wait for, and on a full disk they come alone.
    pub(super) fn run(&mut self) -> rusqlite::Result<()> {
        self.settle_all()?;
        self.end_deliveries()?;
        self.cancel_all()?;
        self.redrive_all()?;
        self.promote_due()?;
        self.submit_and_claim()?;
        self.deliver_waiting()?;
        self.write_standing()
    }

    /// What each transaction writes once: what may run, what is in hand, and the counts.
    pub(super) fn write_standing(&mut self) -> rusqlite::Result<()> {
        self.write_ready()?;
        self.write_step()
    }

    /// What the transaction changes in memory, and its answers.
    pub(super) fn finish(self) -> (Changes, BatchResult) {
        (self.changes, self.result)
    }

    pub(super) fn connection(&self) -> &'a Connection {
        &self.store.connection
    }

    pub(super) fn now(&self) -> Timestamp {
        self.batch.now
    }

    /// The next sequence number. The batch's numbers were reserved before it began.
    pub(super) fn next_sequence(&mut self) -> u64 {
        let sequence = self.changes.next;
        assert!(sequence <= self.store.reserved, "a sequence number is reserved before it is used");
        self.changes.next += 1;
        sequence
    }

    /// The next of the numbers that belong to the batch's submissions.
    pub(super) fn next_submission(&mut self) -> u64 {
        let sequence = self.next_submission;
        self.next_submission += 1;
        sequence
    }

    pub(super) fn id(&self, sequence: u64) -> TaskId {
        TaskId::new(self.store.shard, sequence)
    }

    pub(super) fn place(&self, due: Timestamp, priority: i16, sequence: u64) -> Place {
        let priority = if proof::stands(Safeguard::Priority) { priority } else { 0 };
        Place { rank: self.store.options.ageing.rank(due, priority), sequence }
    }

    /// Whether a subscription in memory waits for results of this definition.
    pub(super) fn is_watched(&self, definition: Option<usize>) -> bool {
        definition.is_some_and(|index| self.batch.watched.get(index).copied().unwrap_or(false))
    }
}

/// Whether the fault concerns one item only: the statement was undone, the transaction stands.
pub(super) fn is_constraint(fault: &rusqlite::Error) -> bool {
    matches!(fault.sqlite_error_code(), Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig))
}
