//! One shard's file as a [`ShardStore`]: what is kept in memory about it, and the transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::fault::store_error;
use super::kinds::{KindId, Kinds};
use super::log::Log;
use super::maintain::Sweep;
use super::open::{self, FileGuard, OpenKind, OpenedShard};
use super::steps::Standing;
use super::transaction::Transaction;
use super::windows::Windows;
use super::work::{CALLBACKS_MAX, Work};
use super::{
    Batch, BatchError, BatchResult, ListFilter, ListPage, Lookup, Maintained, Outlook, Runnable,
    ShardStore,
};
use crate::clock::{Clock, Timestamp};
use crate::error::{StoreError, StoreErrorKind};
use crate::order::{Ageing, Place};
use crate::proof::{self, Safeguard};
use crate::queues::{QueueBudget, QueueIndex, Queues};
use crate::record::{ShardId, TaskId, TaskStatus};

/// How many sequence numbers one durable reservation makes available.
const RESERVATION: u64 = 65_536;

/// How often a busy store looks whether its file is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many ready rows a window keeps beyond those that the next batch may claim: what is known to be
/// ready is what credits are asked for.
const READ_AHEAD: usize = 1_024;

/// How many stretches of ready rows a refill of a kind's window looks at, at most: a batch isn't held
/// up by what was cancelled before.
const STRETCHES_MAX: usize = 256;

/// What a store needs to know of the queue that uses it.
#[derive(Clone, Debug)]
pub(crate) struct StoreOptions {
    /// By it a commit is timed.
    pub(crate) clock: Clock,
    /// Whether each commit is synced.
    pub(crate) syncs: bool,
    /// Every registered definition, by index.
    pub(crate) names: Arc<[Arc<str>]>,
    /// For each definition, the named queue of its tasks.
    pub(crate) queue_of: Arc<[QueueIndex]>,
    /// The queues that the process knows.
    pub(crate) queues: Arc<Queues>,
    /// For each definition, the named subscribers of its results.
    pub(crate) subscribers: Arc<[Vec<Arc<str>>]>,
    pub(crate) ageing: Ageing,
    pub(crate) max_crashes: u32,
    /// How many ready rows are kept in memory.
    pub(crate) window: usize,
    /// How long records are kept after their end, and after an end without success.
    pub(crate) keep_results: Duration,
    pub(crate) keep_dead: Duration,
    pub(crate) sweep: Duration,
}

/// Watches that process and file are still the ones that were opened.
#[derive(Debug)]
struct Guard {
    file: FileGuard,
    looked: Instant,
}

impl Guard {
    /// Looks at the process each time, and at the file at most once a second.
    fn look(&mut self) -> Result<(), StoreError> {
        self.file.ensure_same_process()?;
        if self.looked.elapsed() >= LOOK_EVERY && proof::stands(Safeguard::FilesWatched) {
            self.file.ensure_same_files()?;
            self.looked = Instant::now();
        }
        Ok(())
    }
}

/// One shard's file, open and owned.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    pub(super) connection: Connection,
    pub(super) shard: ShardId,
    pub(super) next: u64,
    pub(super) reserved: u64,
    pub(super) kinds: Kinds,
    pub(super) windows: Windows,
    pub(super) suspects: BTreeMap<Place, KindId>,
    /// The kinds whose head has moved on since its stretches were last cleaned up.
    pub(super) passed: BTreeSet<KindId>,
    pub(super) standing: Standing,
    pub(super) next_due: Option<Timestamp>,
    pub(super) undelivered: u64,
    pub(super) sweep: Sweep,
    /// Transactions that wrote something, since the file was opened. At `FULL` each is one sync of
    /// the log.
    pub(super) commits: u64,
    log: Log,
    guard: Guard,
    pub(super) options: StoreOptions,
}

impl SqliteStore {
    /// Takes over a file that was opened and checked.
    pub(crate) fn new(
        opened: OpenedShard,
        shard: ShardId,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let OpenedShard { created, was_clean, .. } = opened;
        let mut connection = opened.connection;
        tracing::debug!(%shard, created, was_clean, epoch = opened.epoch, "shard opened");
        let mut store = SqliteStore {
            shard,
            next: opened.reserved + 1,
            reserved: opened.reserved,
            kinds: Kinds::default(),
            windows: Windows::new(options.window),
            standing: Standing::read(&connection)?,
            suspects: BTreeMap::new(),
            passed: BTreeSet::new(),
            next_due: None,
            undelivered: 0,
            sweep: Sweep::default(),
            commits: 0,
            log: Log::watch(&mut connection)?,
            guard: Guard { file: opened.guard, looked: Instant::now() },
            connection,
            options,
        };
        store.connection.set_prepared_statement_cache_capacity(64);
        store.load_kinds().map_err(store_error)?;
        store.read_next_due().map_err(store_error)?;
        Ok(store)
    }

    pub(super) fn id(&self, sequence: i64) -> TaskId {
        TaskId::new(self.shard, sequence as u64)
    }

    /// Does a batch in one transaction. Memory changes only after the commit.
    fn apply_now(&mut self, batch: &Batch) -> Result<BatchResult, BatchError> {
        self.guard.look().map_err(BatchError::Refused)?;
        self.reserve_for(batch).map_err(BatchError::Refused)?;
        let wanted = batch.claim.slots + batch.claim.prefetch + usize::from(batch.claim.suspect);
        self.refill(wanted, &batch.claim.queues)
            .map_err(|fault| BatchError::Refused(store_error(fault)))?;
        let written = self.connection.total_changes();
        let begun = Transaction::begin(&self.connection);
        let transaction = begun.map_err(|fault| BatchError::Refused(store_error(fault)))?;
        let mut work = Work::new(self, batch);
        // dropping the transaction rolls it back
        work.run().map_err(|fault| BatchError::Refused(store_error(fault)))?;
        let (changes, mut result) = work.finish();
        let began = self.options.clock.now();
        let commits = proof::stands(Safeguard::Commit);
        let ended = if commits { transaction.commit() } else { transaction.rollback() };
        if let Err(fault) = ended
            && proof::stands(Safeguard::FailedCommit)
        {
            return Err(after_commit(fault));
        }
        if self.connection.total_changes() > written {
            self.commits += 1;
            let took = self.options.clock.now().since(began);
            result.synced_in = Some(if self.options.syncs { took } else { Duration::ZERO });
        }
        self.adopt(changes);
        Ok(result)
    }

    /// Makes sure that every sequence number that the batch can need is reserved durably.
    fn reserve_for(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let ends = batch.settlements.iter().map(|settlement| settlement.callbacks.as_ref());
        let cancellations = batch.cancellations.len() * (CALLBACKS_MAX + self.subscribers_max());
        let numbers = self.numbers_for_ends(ends) + cancellations + batch.submissions.len();
        self.reserve_numbers(numbers)
    }

    fn subscribers_max(&self) -> usize {
        self.options.subscribers.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// How many numbers the durable callbacks of these ends can need.
    pub(super) fn numbers_for_ends<'c>(
        &self,
        ends: impl Iterator<Item = Option<&'c Arc<[Arc<str>]>>>,
    ) -> usize {
        let subscribers = self.subscribers_max();
        ends.map(|callbacks| callbacks.map_or(0, |names| names.len()) + subscribers).sum()
    }

    /// Reserves the next `need` sequence numbers, synced whatever the durability.
    pub(super) fn reserve_numbers(&mut self, need: usize) -> Result<(), StoreError> {
        let need = need as u64;
        if self.next + need <= self.reserved + 1 {
            return Ok(());
        }
        let upto = self.next + need.max(RESERVATION);
        if upto > crate::record::SEQUENCE_MAX {
            let message = "the shard has given out all of its sequence numbers";
            return Err(StoreError::new(StoreErrorKind::Other, message));
        }
        open::reserve(&self.connection, upto)?;
        self.commits += 1;
        self.reserved = upto;
        Ok(())
    }

    /// Fills the windows of what may run from disk, until each holds `wanted` rows and some more, or
    /// everything.
    fn refill(&mut self, wanted: usize, may_run: &QueueBudget) -> rusqlite::Result<()> {
        if wanted == 0 {
            return Ok(());
        }
        let wanted = wanted.saturating_add(READ_AHEAD);
        let low = self.windows.iter().filter(|(kind, window)| {
            window.may_refill() && window.len() < wanted && self.has_budget(*kind, may_run)
        });
        let low: Vec<KindId> = low.map(|(kind, _)| kind).collect();
        for kind in low {
            self.refill_one(kind, wanted)?;
        }
        Ok(())
    }

    /// Whether rows of this kind may be claimed against the budget.
    pub(super) fn has_budget(&self, kind: KindId, budget: &QueueBudget) -> bool {
        self.kinds.get(kind).is_some_and(|kind| budget.left(kind.queue) > 0)
    }

    fn refill_one(&mut self, kind: KindId, wanted: usize) -> rusqlite::Result<()> {
        for _ in 0..STRETCHES_MAX {
            let Some(window) = self.windows.get(kind) else { return Ok(()) };
            if !window.may_refill() || window.len() >= wanted || self.windows.room(kind) == 0 {
                return Ok(());
            }
            let found = self.next_ready(kind, window.refill_after())?;
            let mut ready = Vec::with_capacity(found.rows.len());
            for arrival in found.rows {
                if arrival.suspect {
                    self.suspects.insert(arrival.place, kind);
                } else {
                    ready.push(arrival.place);
                }
            }
            self.windows.refilled(kind, ready, found.end);
            // what the window has passed without a row is cleaned up, too
            self.passed.insert(kind);
        }
        Ok(())
    }
}

/// What a failed COMMIT means. Without space the log's last frame, which makes it a commit, was not
/// written whole, and nothing is synced before it is: the transaction was rolled back. After any
/// other error nobody knows.
fn after_commit(fault: rusqlite::Error) -> BatchError {
    let full = fault.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
    let error = store_error(fault);
    if full { BatchError::Refused(error) } else { BatchError::Unknown(error) }
}

impl ShardStore for SqliteStore {
    async fn reserve(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.guard.look()?;
        self.reserve_for(batch)
    }

    async fn apply(&mut self, batch: &Batch) -> Result<BatchResult, BatchError> {
        self.apply_now(batch)
    }

    async fn get(&mut self, id: TaskId) -> Result<Lookup, StoreError> {
        self.lookup(id).map_err(store_error)
    }

    async fn list(&mut self, filter: &ListFilter) -> Result<ListPage, StoreError> {
        self.page(filter).map_err(store_error)
    }

    async fn counts(&mut self) -> Result<Vec<(TaskStatus, u64)>, StoreError> {
        let counts = self.standing.counts;
        Ok(counts.all().filter(|(_, tasks)| *tasks > 0).collect())
    }

    async fn slots_in_use(&mut self) -> Result<Vec<u16>, StoreError> {
        SqliteStore::slots_in_use(self).map_err(store_error)
    }

    async fn maintain(&mut self, now: Timestamp) -> Result<Maintained, StoreError> {
        self.sweep_some(now).map_err(store_error)
    }

    async fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.guard.look()?;
        self.log.copy_back(&self.connection)
    }

    async fn backup(&mut self, file: &Path) -> Result<(), StoreError> {
        super::backup::backup_shard(&self.connection, file)
    }

    fn outlook(&self) -> Outlook {
        Outlook {
            next_due: self.next_due,
            undelivered: self.undelivered > 0,
            not_started: usize::try_from(self.standing.counts.get(TaskStatus::NotStarted))
                .unwrap_or(usize::MAX),
            next: self.next,
            row_writes: self.connection.total_changes(),
            commits: self.commits,
            log_is_long: self.log.is_long(),
        }
    }

    fn runnable(&self) -> Vec<Runnable> {
        let mut found: Vec<Runnable> = Vec::new();
        let mut of = |kind: KindId, head: i64, add: &dyn Fn(&mut Runnable)| {
            let Some(kind) = self.kinds.get(kind) else { return };
            let queue = kind.queue;
            let known = found.iter().position(|one| one.queue == queue);
            let at = known.unwrap_or_else(|| {
                found.push(Runnable::nothing(queue));
                found.len() - 1
            });
            if head < found[at].head {
                (found[at].head, found[at].first) = (head, kind.definition);
            }
            add(&mut found[at]);
        };
        for (kind, window) in self.windows.iter() {
            if window.len() > 0 || window.may_refill() {
                let head = window.iter().next().map_or(i64::MAX, |place| place.rank);
                of(kind, head, &|one| {
                    one.ready += window.len();
                    one.more |= window.may_refill();
                });
            }
        }
        for (place, kind) in &self.suspects {
            of(*kind, place.rank, &|one| one.suspects = true);
        }
        found
    }

    async fn close(self) -> Result<(), StoreError> {
        // what is written to a file that isn't there any more is gone
        self.guard.file.ensure_same_process()?;
        self.guard.file.ensure_same_files()?;
        open::close_clean(self.connection, self.next.saturating_sub(1))
    }
}

/// Opens a shard's file and makes it ready for its first batch.
///
/// A first open recovers what the last process left; a rebuild reconciles the file with what is in
/// `memory`, and no attempt that lives there is touched.
pub(crate) fn open_store(
    opened: OpenedShard,
    shard: ShardId,
    options: StoreOptions,
    now: Timestamp,
    kind: OpenKind,
    memory: Option<&dyn super::Memory>,
) -> Result<(SqliteStore, super::Recovered), StoreError> {
    let mut store = SqliteStore::new(opened, shard, options)?;
    let recovered = match (kind, memory) {
        (OpenKind::Rebuild, Some(memory)) if proof::stands(Safeguard::Reconcile) => {
            store.reconcile(now, memory)?
        }
        _ => store.recover(now)?,
    };
    Ok((store, recovered))
}
