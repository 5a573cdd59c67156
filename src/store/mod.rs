//! Where tasks are kept: the boundary, and its implementation over SQLite.
//!
//! A ShardActor talks to its store through [`ShardStore`]: whole transitions in batches, no SQL and
//! no connection. This directory is the only place that names the database library.

mod backup;
mod ballast;
mod budget;
mod cancel;
mod changes;
mod check;
mod claim;
mod configure;
mod delivery;
mod directory;
mod fault;
mod files;
mod in_hand;
mod kinds;
mod lane;
mod lock;
mod log;
mod maintain;
mod manifest;
mod migrate;
mod open;
mod read;
mod ready;
mod recover;
mod row;
mod settle;
mod sqlite;
mod steps;
mod submit;
mod tally;
mod transaction;
mod window;
mod windows;
mod work;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use backup::{BackupTarget, restore};
pub(crate) use ballast::Ballast;
pub(crate) use budget::{ClaimBudget, Passing, Takes, Threads};
pub(crate) use directory::{Directory, DirectoryOptions, shard_file};
pub(crate) use kinds::KindId;
pub(crate) use manifest::StoredQueue;
pub(crate) use open::{OpenKind, OpenOptions, open_shard};
pub(crate) use sqlite::{SqliteStore, StoreOptions, open_store};
pub(crate) use work::CALLBACKS_MAX;

use crate::admission;
use crate::clock::Timestamp;
use crate::codec::Codec;
use crate::error::StoreError;
use crate::lifecycle::Transition;
use crate::queues::QueueIndex;
use crate::record::{Counters, DeadReason, Encoded, ShardId, TaskId, TaskRecord, TaskStatus};

/// What a submission may override of its definition's options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    pub(crate) max_attempts: Option<u32>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) backoff: Option<(Duration, Duration)>,
}

/// A task to store. Everything in it has been checked.
#[derive(Clone, Debug)]
pub(crate) struct NewTask {
    /// The id of an earlier submission whose outcome is unknown; storing it twice is once.
    pub(crate) id: Option<TaskId>,
    /// The index of its definition in the registry.
    pub(crate) definition: usize,
    pub(crate) queue: QueueIndex,
    /// Tasks of one key run one at a time, in order of submission.
    pub(crate) key: Option<Arc<str>>,
    pub(crate) codec: Codec,
    /// The arguments; `None` if they are cached in memory only.
    pub(crate) payload: Option<Arc<[u8]>>,
    pub(crate) priority: i16,
    /// Not before this time; `None` is now.
    pub(crate) due_at: Option<Timestamp>,
    /// Whether a target of the result lives in memory only.
    pub(crate) volatile: bool,
    /// Durable callbacks to insert when the task ends.
    pub(crate) callbacks: Option<Arc<[Arc<str>]>>,
    pub(crate) overrides: Option<Box<Overrides>>,
}

/// The task whose end a callback reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) id: TaskId,
    /// Which of its claims ended so; a parent that was redriven since has no place for the callback
    /// any more. `None` if the row doesn't say.
    pub(crate) claim_no: Option<u32>,
}

/// An attempt's end to store. Written only if the row still belongs to this claim.
#[derive(Clone, Debug)]
pub(crate) struct Settlement {
    pub(crate) id: TaskId,
    pub(crate) claim_no: u32,
    pub(crate) definition: usize,
    pub(crate) kind: KindId,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) priority: i16,
    pub(crate) transition: Transition,
    pub(crate) output: Option<Arc<[u8]>>,
    pub(crate) started_at: Timestamp,
    pub(crate) ended_at: Timestamp,
    /// Whether a target in memory waits for the result, should execution be over.
    pub(crate) notify: bool,
    /// Durable callbacks of the submission.
    pub(crate) callbacks: Option<Arc<[Arc<str>]>>,
    /// The task whose end this callback reported.
    pub(crate) parent: Option<Parent>,
}

/// A task that is to end if it hasn't started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cancellation {
    pub(crate) id: TaskId,
    /// Whether a target in memory waits for its end of which the row doesn't know.
    pub(crate) notify: bool,
}

/// The end of a delivery to targets in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryEnd {
    pub(crate) id: TaskId,
    pub(crate) claim_no: u32,
    /// Why one of the targets will never have it.
    pub(crate) dead: Option<DeadReason>,
}

/// Everything that one transaction does. Answers come item by item, in the same order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) now: Timestamp,
    pub(crate) settlements: Vec<Settlement>,
    pub(crate) deliveries: Vec<DeliveryEnd>,
    pub(crate) cancellations: Vec<Cancellation>,
    /// Which definitions have subscriptions in memory, by index; a missing entry hasn't.
    pub(crate) watched: Vec<bool>,
    pub(crate) redrives: Vec<TaskId>,
    /// With redrives: for each slot of ordering keys the number of its shard. If empty, all are this
    /// shard's.
    pub(crate) shards_of_slots: Vec<u16>,
    pub(crate) submissions: Vec<NewTask>,
    pub(crate) claim: ClaimBudget,
    /// How many results may be sent to targets in memory.
    pub(crate) deliver: usize,
}

impl Batch {
    /// How many items there are, the claim budget aside.
    pub(crate) fn items(&self) -> usize {
        self.settlements.len()
            + self.deliveries.len()
            + self.cancellations.len()
            + self.redrives.len()
            + self.submissions.len()
    }

    /// How many KiB its large arguments and results have.
    pub(crate) fn kib(&self) -> usize {
        let arguments = self.submissions.iter().filter_map(|task| task.payload.as_ref());
        let results = self.settlements.iter().filter_map(|end| end.output.as_ref());
        arguments.chain(results).map(|bytes| admission::weight(bytes.len())).sum()
    }
}

/// The answer to a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Written. `deliver` says that the result is to be sent to the targets in memory now.
    Recorded { deliver: bool },
    /// The row belongs to another claim, or is gone: nothing was written.
    Stale,
}

/// What cancelling a task did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelOutcome {
    /// The task hadn't started; it never will. Its end is notified.
    Removed,
    /// The task runs: its token is set. A task that ends well in spite of it is finished.
    Requested,
    /// The task was over already, with this status.
    AlreadyFinished(TaskStatus),
    /// There is no such task, or its record has been removed.
    NotFound,
}

/// What redriving a task did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedriveOutcome {
    /// It is ready again, with no failures and no crashes counted.
    Redriven,
    /// It hasn't ended, ended well, or its notification is still under way.
    NotDead(TaskStatus),
    /// It has an ordering key whose tasks are in another shard by now, where it can't stand in line
    /// with them. Nothing was changed; submit it anew.
    KeyMoved,
    /// There is no such task, or its record has been removed.
    NotFound,
}

/// What a claimed task starts from.
#[derive(Clone, Debug)]
pub(crate) enum ClaimInput {
    Encoded(Encoded),
    /// In memory, if it still is.
    Cached,
    /// The end of another task; `None` if its record is gone.
    Parent(Option<Box<TaskRecord>>),
    /// The row's checksum doesn't match its contents.
    Corrupt,
}

/// A task that now belongs to this process, committed.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) id: TaskId,
    pub(crate) definition: usize,
    pub(crate) kind: KindId,
    pub(crate) queue: QueueIndex,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) counters: Counters,
    pub(crate) priority: i16,
    pub(crate) submitted_at: Timestamp,
    pub(crate) input: ClaimInput,
    pub(crate) overrides: Option<Box<Overrides>>,
    pub(crate) callbacks: Option<Arc<[Arc<str>]>>,
    pub(crate) volatile: bool,
    pub(crate) parent: Option<Parent>,
    /// Its rank.
    pub(crate) rank: i64,
    /// Whether it was claimed against a place behind a slot.
    pub(crate) prefetched: bool,
}

impl Batch {
    /// The ids that the submissions will have, if the first of them gets the number `next`.
    pub(crate) fn ids(&self, shard: ShardId, mut next: u64) -> Vec<TaskId> {
        let numbers = self.submissions.iter().map(|task| {
            task.id.unwrap_or_else(|| {
                next += 1;
                TaskId::new(shard, next - 1)
            })
        });
        numbers.collect()
    }
}

/// What a batch did.
#[derive(Debug, Default)]
pub(crate) struct BatchResult {
    pub(crate) settled: Vec<Settled>,
    pub(crate) cancelled: Vec<CancelOutcome>,
    pub(crate) redriven: Vec<RedriveOutcome>,
    pub(crate) submitted: Vec<Result<TaskId, StoreError>>,
    pub(crate) claims: Vec<Claim>,
    /// Results that waited for their turn and are to be sent to targets in memory now.
    pub(crate) deliver: Vec<TaskRecord>,
    /// How long the transaction's COMMIT took, which is mostly the sync of the log; none where commits
    /// aren't synced, and nothing at all if nothing was written. By the queue's clock, so that it is the
    /// same again in a simulation.
    pub(crate) synced_in: Option<Duration>,
}

/// What a store says about itself between batches, without reading anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outlook {
    /// When the next waiting row becomes ready.
    pub(crate) next_due: Option<Timestamp>,
    /// Whether results wait for delivery credits.
    pub(crate) undelivered: bool,
    /// How many tasks haven't started: those that are ready and those that wait for their time.
    pub(crate) not_started: usize,
    /// The sequence number that the next batch's first submission gets.
    pub(crate) next: u64,
    /// How many rows were written since the store was opened.
    pub(crate) row_writes: u64,
    /// How many transactions that wrote something were committed since the store was opened.
    pub(crate) commits: u64,
    /// Whether the log is long enough to be copied back.
    pub(crate) log_is_long: bool,
}

/// What of a named queue could run now, as far as a store knows without looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Runnable {
    pub(crate) queue: QueueIndex,
    /// The rank of the first, and its definition; `i64::MAX` if there is none in memory.
    pub(crate) head: i64,
    pub(crate) first: Option<usize>,
    /// How many rows are known to be ready.
    pub(crate) ready: usize,
    /// Whether there may be more of them on disk.
    pub(crate) more: bool,
    /// Whether a suspect is ready.
    pub(crate) suspects: bool,
}

impl Runnable {
    /// A queue of which nothing is known.
    pub(crate) fn nothing(queue: QueueIndex) -> Self {
        Runnable { queue, head: i64::MAX, first: None, ready: 0, more: false, suspects: false }
    }
}

/// Why a batch as a whole failed.
#[derive(Debug)]
pub(crate) enum BatchError {
    /// Nothing of it was stored.
    Refused(StoreError),
    /// The commit failed: the batch was stored or it wasn't. The store must be reopened before it
    /// is used again.
    Unknown(StoreError),
}

/// What a lookup found.
#[derive(Debug)]
pub(crate) enum Lookup {
    Found(Box<TaskRecord>),
    /// It existed, or its number was skipped; no record is kept.
    Gone,
    /// The number was never given out.
    Never,
}

/// Which tasks a list shows, and from where on.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListFilter {
    pub(crate) status: Option<TaskStatus>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) after: u64,
    pub(crate) limit: usize,
}

/// A page of a list; `next` continues it.
#[derive(Debug, Default)]
pub(crate) struct ListPage {
    pub(crate) tasks: Vec<TaskRecord>,
    pub(crate) next: Option<u64>,
}

/// What maintenance did, and when it wants to be called again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Maintained {
    pub(crate) purged: usize,
    pub(crate) again_at: Option<Timestamp>,
}

/// What recovery found at the start of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Running tasks that are ready again.
    pub(crate) restarted: u64,
    /// Running tasks that reached the limit of crashes.
    pub(crate) failed: u64,
    /// Deliveries to durable callbacks that go on.
    pub(crate) callbacks: u64,
    /// Deliveries to targets in memory that are dead.
    pub(crate) subscribers_gone: u64,
    /// Tasks whose name isn't registered in this process; they wait.
    pub(crate) unregistered: u64,
}

/// What lives in memory about a shard's rows, for a store that is opened again.
pub(crate) trait Memory {
    /// Whether this attempt is in progress or its end is yet to be confirmed.
    fn attempt_lives(&self, id: TaskId, claim_no: u32) -> bool;
    /// Whether the task's result is on its way to targets in memory.
    fn delivery_lives(&self, id: TaskId) -> bool;
}

/// One shard's storage.
///
/// Methods are called one at a time by the ShardActor that owns the store. They are async for
/// stores across a network; this crate's own never waits.
pub(crate) trait ShardStore: Unpin + 'static {
    /// Makes sure that the ids that a batch can need are given out to nothing else, whatever becomes
    /// of it. `apply` does so, too; who wants to tell them before asks here.
    fn reserve(&mut self, batch: &Batch) -> impl Future<Output = Result<(), StoreError>>;

    /// Stores a batch in one go: all of it is durable when this returns, or none of it.
    fn apply(&mut self, batch: &Batch) -> impl Future<Output = Result<BatchResult, BatchError>>;

    /// Reads one task.
    fn get(&mut self, id: TaskId) -> impl Future<Output = Result<Lookup, StoreError>>;

    /// Reads a page of tasks in order of their ids; looks at a bounded number of rows.
    fn list(&mut self, filter: &ListFilter) -> impl Future<Output = Result<ListPage, StoreError>>;

    /// How many tasks have each status.
    fn counts(&mut self) -> impl Future<Output = Result<Vec<(TaskStatus, u64)>, StoreError>>;

    /// The slots of ordering keys of which a task waits or runs, ascending.
    fn slots_in_use(&mut self) -> impl Future<Output = Result<Vec<u16>, StoreError>>;

    /// Removes a bounded number of records whose time is over.
    fn maintain(&mut self, now: Timestamp) -> impl Future<Output = Result<Maintained, StoreError>>;

    /// Copies the log back to the file: what its owner does when the outlook says that the log is long.
    fn checkpoint(&mut self) -> impl Future<Output = Result<(), StoreError>>;

    /// Copies the shard to `file` while it is in use.
    fn backup(&mut self, file: &std::path::Path) -> impl Future<Output = Result<(), StoreError>>;

    /// What there is to do, without looking at the disk.
    fn outlook(&self) -> Outlook;

    /// What could run now, by named queue, without looking at the disk. A queue of which nothing
    /// could isn't in it.
    fn runnable(&self) -> Vec<Runnable>;

    /// Ends cleanly.
    fn close(self) -> impl Future<Output = Result<(), StoreError>>;
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
