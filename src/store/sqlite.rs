//! One shard's file as a [`ShardStore`]: what is kept in memory about it, and the transaction.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::fault::store_error;
use super::maintain::Sweep;
use super::open::{self, FileGuard, OpenKind, OpenedShard};
use super::window::Window;
use super::work::{CALLBACKS_MAX, Work};
use super::{
    Batch, BatchError, BatchResult, ListFilter, ListPage, Lookup, Maintained, Outlook, ShardStore,
};
use crate::clock::Timestamp;
use crate::error::{StoreError, StoreErrorKind};
use crate::order::{Ageing, Place};
use crate::record::{ShardId, TaskId, TaskStatus};

/// How many sequence numbers one durable reservation makes available.
const RESERVATION: u64 = 65_536;

/// How often a busy store looks whether its file is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many ready rows a refill of the window reads at a time.
const REFILL: usize = 2_048;

/// What a store needs to know of the queue that uses it.
#[derive(Clone, Debug)]
pub(crate) struct StoreOptions {
    /// Every registered definition, by index.
    pub(crate) names: Arc<[Arc<str>]>,
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

/// Definitions' names and the small numbers that rows carry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    ids: HashMap<Arc<str>, i64>,
    by_id: HashMap<i64, (Arc<str>, Option<usize>)>,
    registered: Vec<(i64, crc32fast::Hasher)>,
}

impl Names {
    pub(crate) fn add(&mut self, id: i64, name: &Arc<str>, definition: Option<usize>) {
        self.ids.insert(name.clone(), id);
        self.by_id.insert(id, (name.clone(), definition));
    }

    /// Fixes the numbers of the registered definitions.
    pub(crate) fn register(&mut self, names: &[Arc<str>]) {
        self.registered =
            names.iter().map(|name| (self.ids[name], super::row::name_hasher(name))).collect();
    }

    /// The number of a registered definition's name, and the start of its checksums.
    pub(crate) fn of(&self, definition: usize) -> (i64, &crc32fast::Hasher) {
        let (id, hasher) = &self.registered[definition];
        (*id, hasher)
    }

    pub(crate) fn id(&self, name: &str) -> Option<i64> {
        self.ids.get(name).copied()
    }

    pub(crate) fn name(&self, id: i64) -> Option<&Arc<str>> {
        self.by_id.get(&id).map(|(name, _)| name)
    }

    pub(crate) fn definition(&self, id: i64) -> Option<usize> {
        self.by_id.get(&id).and_then(|(_, definition)| *definition)
    }

    pub(crate) fn unregistered(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_id.values().filter(|(_, definition)| definition.is_none()).map(|(name, _)| name)
    }
}

/// How the number of tasks of each status changes, by the status's number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally([i64; 9]);

impl Tally {
    pub(crate) fn add(&mut self, status: TaskStatus) {
        self.0[usize::from(status.code())] += 1;
    }

    pub(crate) fn remove(&mut self, status: TaskStatus) {
        self.0[usize::from(status.code())] -= 1;
    }

    /// By how much the tasks of a status have become more.
    pub(crate) fn by(&self, status: TaskStatus) -> i64 {
        self.0[usize::from(status.code())]
    }

    pub(crate) fn changed(&self) -> impl Iterator<Item = (usize, i64)> + '_ {
        self.0.iter().copied().enumerate().filter(|(_, by)| *by != 0)
    }
}

/// A row that became ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) place: Place,
    /// `None` if its name isn't registered in this process.
    pub(crate) definition: Option<usize>,
    pub(crate) suspect: bool,
}

/// What a transaction changes in memory, once it is committed and not before.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) next: u64,
    pub(crate) tally: Tally,
    /// Rows that are ready now and weren't claimed.
    pub(crate) arrivals: Vec<Arrival>,
    /// Places that were ready and aren't.
    pub(crate) departures: Vec<Place>,
    /// The earliest due time among rows that began to wait.
    pub(crate) waits: Option<Timestamp>,
    /// Due rows were promoted, so the next due time must be read again.
    pub(crate) promoted: bool,
    /// How many results began (or ceased) to wait for delivery credits.
    pub(crate) undelivered: i64,
    /// Names that were stored for the first time.
    pub(crate) names: Vec<(i64, Arc<str>)>,
}

impl Changes {
    pub(crate) fn wait_until(&mut self, due: Timestamp) {
        self.waits = Some(self.waits.map_or(due, |earlier| earlier.min(due)));
    }
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
        if self.looked.elapsed() >= LOOK_EVERY {
            self.file.ensure_same_file()?;
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
    pub(super) names: Names,
    pub(super) window: Window,
    pub(super) suspects: BTreeMap<Place, usize>,
    pub(super) next_due: Option<Timestamp>,
    pub(super) undelivered: u64,
    /// Tasks that haven't started.
    pub(super) not_started: u64,
    pub(super) sweep: Sweep,
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
        tracing::debug!(%shard, created, was_clean, epoch = opened.epoch, "shard opened");
        let mut store = SqliteStore {
            shard,
            next: opened.reserved + 1,
            reserved: opened.reserved,
            names: Names::default(),
            window: Window::new(options.window),
            suspects: BTreeMap::new(),
            next_due: None,
            undelivered: 0,
            not_started: 0,
            sweep: Sweep::default(),
            guard: Guard { file: opened.guard, looked: Instant::now() },
            connection: opened.connection,
            options,
        };
        store.connection.set_prepared_statement_cache_capacity(64);
        store.load_names().map_err(store_error)?;
        store.read_next_due().map_err(store_error)?;
        store.read_not_started().map_err(store_error)?;
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
        self.refill(wanted).map_err(|fault| BatchError::Refused(store_error(fault)))?;
        let begun = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate);
        let transaction = begun.map_err(|fault| BatchError::Refused(store_error(fault)))?;
        let mut work = Work::new(self, batch);
        // dropping the transaction rolls it back
        work.run().map_err(|fault| BatchError::Refused(store_error(fault)))?;
        let (changes, result) = work.finish();
        if let Err(fault) = transaction.commit() {
            return Err(after_commit(fault));
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
        self.reserved = upto;
        Ok(())
    }

    /// Takes over what a committed transaction changed.
    pub(super) fn adopt(&mut self, changes: Changes) {
        self.next = changes.next;
        for (id, name) in changes.names {
            self.names.add(id, &name, None);
        }
        for place in changes.departures {
            if !self.window.remove(place) {
                self.suspects.remove(&place);
            }
        }
        for arrival in changes.arrivals {
            match arrival.definition {
                Some(definition) if arrival.suspect => {
                    self.suspects.insert(arrival.place, definition);
                }
                Some(definition) => self.window.insert(arrival.place, definition),
                None => {}
            }
        }
        self.undelivered = self.undelivered.saturating_add_signed(changes.undelivered);
        let not_started = changes.tally.by(TaskStatus::NotStarted);
        self.not_started = self.not_started.saturating_add_signed(not_started);
        if let Some(due) = changes.waits {
            self.next_due = Some(self.next_due.map_or(due, |earlier| earlier.min(due)));
        }
        if changes.promoted && self.read_next_due().is_err() {
            // looked at again with the next batch: the time that stands has passed already
            tracing::warn!(shard = %self.shard, "cannot read the next due time");
        }
    }

    /// Fills the window from disk until it holds `wanted` rows or everything.
    fn refill(&mut self, wanted: usize) -> rusqlite::Result<()> {
        while self.window.may_refill() && self.window.len() < wanted && self.window.room() > 0 {
            let limit = self.window.room().min(REFILL);
            let rows = self.ready_after(self.window.refill_after(), limit)?;
            let last = rows.last().map(|arrival| arrival.place);
            let at_end = rows.len() < limit;
            let mut ready = Vec::with_capacity(rows.len());
            for arrival in rows {
                match arrival.definition {
                    Some(definition) if arrival.suspect => {
                        self.suspects.insert(arrival.place, definition);
                    }
                    Some(definition) => ready.push((arrival.place, definition)),
                    None => {}
                }
            }
            self.window.refilled(ready, last, at_end);
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
        self.read_tally().map_err(store_error)
    }

    async fn maintain(&mut self, now: Timestamp) -> Result<Maintained, StoreError> {
        self.sweep_some(now).map_err(store_error)
    }

    async fn backup(&mut self, file: &Path) -> Result<(), StoreError> {
        super::backup::backup_shard(&self.connection, file)
    }

    fn outlook(&self) -> Outlook {
        Outlook {
            ready: self.window.len(),
            more: self.window.may_refill(),
            suspects: !self.suspects.is_empty(),
            next_due: self.next_due,
            undelivered: self.undelivered > 0,
            not_started: usize::try_from(self.not_started).unwrap_or(usize::MAX),
            next: self.next,
            row_writes: self.connection.total_changes(),
        }
    }

    async fn close(self) -> Result<(), StoreError> {
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
        (OpenKind::Rebuild, Some(memory)) => store.reconcile(now, memory)?,
        _ => store.recover(now)?,
    };
    Ok((store, recovered))
}
