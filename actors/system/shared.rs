//! What all actors of a queue share, and where the queue is in its life.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::actors::blocking::BlockingPool;
use crate::actors::dispatcher::Dispatcher;
use crate::actors::ledger::{DeliverBatch, Link, ShardLedger, ShardState, WorkerLedger};
use crate::actors::messages::Wake;
use crate::actors::outbox::{Once, Outbox};
use crate::actors::scaler::Traffic;
use crate::actors::slots::Slots;
use crate::actors::subscriptions::Subscriptions;
use crate::actors::system::links::{CallbackLink, ClosuresLink};
use crate::actors::system::start::Start;
use crate::admission::{Admission, AdmissionLimits, Demand};
use crate::attempt::Attempt;
use crate::backpressure::{self, Needed};
use crate::clock::Clock;
use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::keys;
use crate::order::Ageing;
use crate::proof::Points;
use crate::queues::{QueueIndex, Queues};
use crate::record::ShardId;
use crate::registry::{Registry, Role};
use crate::settings::{Durability, Settings};
use crate::store::{Ballast, Directory, OpenOptions, StoreOptions};
use crate::submission::QueuesOf;
use crate::task::DataMap;

/// The largest row that can be read: SQLite's own limit, in bytes. What may be stored is limited by
/// the settings; a limit that was lowered since must not make stored rows unreadable.
const ROW_BYTES_MAX: u64 = 1_000_000_000;

/// Where the queue is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Files are open; nothing is claimed yet.
    Starting = 0,
    Running = 1,
    /// Nothing more is accepted or claimed.
    Draining = 2,
    Ended = 3,
}

/// What all actors of a queue share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registry: Arc<Registry>,
    pub(crate) data: Arc<DataMap>,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    /// Of the queue: a shard that is rebuilt knows of clocks that jumped before.
    pub(crate) start: Start,
    /// Absent after the end: then another process, or this one, may have it.
    directory: Mutex<Option<Directory>>,
    /// By number; for shards that are absent yet, too, as many as there may be.
    pub(crate) shards: Vec<Arc<ShardLedger>>,
    /// How many of them take new tasks.
    active: AtomicUsize,
    pub(crate) traffic: Traffic,
    pub(crate) workers: Vec<Arc<WorkerLedger>>,
    pub(crate) slots: Arc<Slots>,
    /// The named queues.
    pub(crate) queues: Arc<Queues>,
    /// The queue of each definition's tasks.
    queue_of: Arc<[QueueIndex]>,
    /// Held while one of them is changed, in memory and in the directory.
    pub(crate) changing_queues: Arc<tokio::sync::Mutex<()>>,
    /// For each slot of ordering keys, its shard's number.
    shard_of_slot: RwLock<Vec<u16>>,
    /// Held by each backup that is under way: it copies one shard after another, so no key's tasks may
    /// go to another one meanwhile.
    pub(crate) copying: Arc<()>,
    pub(crate) dispatcher: Link<Dispatcher>,
    pub(crate) callback: Arc<CallbackLink>,
    pub(crate) closures: Arc<ClosuresLink>,
    pub(crate) deliveries: Outbox<Once<DeliverBatch>>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) points: Points,
    pub(crate) pool: BlockingPool,
    /// Permits for submissions.
    pub(crate) admission: Admission,
    phase: AtomicU8,
    /// Told whenever something was stored, for those who wait for silence.
    moved: Notify,
    /// Attempts that were given back.
    released: AtomicU64,
    /// Taken to free the ballast or to make it, and to note that.
    ballast: Mutex<()>,
    /// Whether a full disk has had the ballast, or there was none or only a part of it.
    ballast_freed: AtomicBool,
    /// How many bytes it had.
    freed_bytes: AtomicU64,
    /// Whether what is left of the ballast's space is for ends only.
    short_of_space: AtomicBool,
}

impl Shared {
    pub(crate) fn new(
        registry: Arc<Registry>,
        data: Arc<DataMap>,
        settings: Settings,
        clock: Clock,
        directory: Directory,
        shards: &[ShardId],
    ) -> Arc<Self> {
        let workers = settings.workers.resolved_count();
        let range = settings.shards.resolved_range();
        let places = shards.iter().map(|shard| shard.index() + 1).fold(*range.end(), usize::max);
        let ledger = |index: usize| {
            let id = ShardId(u16::try_from(index).expect("there are no more shards than ids"));
            let there = shards.contains(&id);
            let state = if there { ShardState::Opening } else { ShardState::Absent };
            ShardLedger::new(id, state, there && index < *range.start())
        };
        let ledgers: Vec<_> = (0..places).map(ledger).collect();
        let (concurrency, prefetch) = (settings.workers.concurrency, settings.workers.prefetch);
        let queues = Queues::new();
        let queue_of = registry.definitions().iter().map(|definition| {
            definition
                .options
                .queue
                .as_deref()
                .map_or(QueueIndex::DEFAULT, |name| queues.get_or_add(name))
        });
        Arc::new(Shared {
            queue_of: queue_of.collect(),
            queues: queues.clone(),
            changing_queues: Arc::default(),
            shard_of_slot: RwLock::default(),
            copying: Arc::default(),
            active: AtomicUsize::new(ledgers.iter().filter(|ledger| ledger.is_active()).count()),
            shards: ledgers,
            traffic: Traffic::default(),
            workers: (0..workers).map(WorkerLedger::new).collect(),
            slots: Slots::new(workers, concurrency, prefetch),
            dispatcher: Link::new(),
            callback: Arc::new(CallbackLink::new()),
            closures: Arc::new(ClosuresLink::new()),
            deliveries: Outbox::new(),
            subscriptions: Subscriptions::new(registry.clone()),
            points: Points::of(directory.path()),
            pool: BlockingPool::new(settings.workers.blocking_threads),
            admission: Admission::new(AdmissionLimits {
                tasks: settings.limits.pending_submissions,
                bytes: settings.limits.pending_bytes,
                ready: settings.limits.ready_tasks,
                cached: settings.limits.cached_arguments,
            }),
            phase: AtomicU8::new(Phase::Starting as u8),
            moved: Notify::new(),
            registry,
            data,
            settings,
            start: Start::now(&clock),
            clock,
            released: AtomicU64::new(0),
            ballast_freed: AtomicBool::new(directory.misses_ballast()),
            directory: Mutex::new(Some(directory)),
            ballast: Mutex::new(()),
            freed_bytes: AtomicU64::new(u64::MAX),
            short_of_space: AtomicBool::new(false),
        })
    }

    /// The shard of this number, if there is one.
    pub(crate) fn shard(&self, id: ShardId) -> Option<&Arc<ShardLedger>> {
        self.shards.get(id.index()).filter(|ledger| !ledger.is_absent())
    }

    /// Those shards that there are.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Arc<ShardLedger>> {
        self.shards.iter().filter(|ledger| !ledger.is_absent())
    }

    /// How many shards take new tasks.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Has new tasks go to a shard from now on, or not. Only the scaler does.
    pub(crate) fn set_active(&self, ledger: &ShardLedger, active: bool) {
        ledger.set_active(active);
        let count = self.shards.iter().filter(|ledger| ledger.is_active()).count();
        self.active.store(count, Ordering::Relaxed);
    }

    /// The shard of an ordering key.
    pub(crate) fn shard_of_key(&self, key: &str) -> ShardId {
        let shards = self.shard_of_slot.read().unwrap_or_else(PoisonError::into_inner);
        ShardId(shards.get(usize::from(keys::slot_of(key))).copied().unwrap_or_default())
    }

    /// For each slot of ordering keys, its shard's number.
    pub(crate) fn shards_of_slots(&self) -> Vec<u16> {
        self.shard_of_slot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a backup is under way.
    pub(crate) fn is_backed_up(&self) -> bool {
        Arc::strong_count(&self.copying) > 1
    }

    /// Has keys go where this says from now on: for each slot the number of its shard.
    pub(crate) fn set_shard_of_slot(&self, shards: Vec<u16>) {
        *self.shard_of_slot.write().unwrap_or_else(PoisonError::into_inner) = shards;
    }

    pub(crate) fn queues_of(&self) -> QueuesOf<'_> {
        QueuesOf { known: &self.queues, of_definition: &self.queue_of }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Starting,
            1 => Phase::Running,
            2 => Phase::Draining,
            _ => Phase::Ended,
        }
    }

    /// Moves on to a later phase; never back.
    pub(crate) fn enter(&self, phase: Phase) -> bool {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst) < phase as u8
    }

    pub(crate) fn is_accepting(&self) -> bool {
        self.phase() <= Phase::Running
    }

    /// Counts submissions that there is no room for; the error for their caller.
    pub(crate) fn busy(&self, demand: Demand) -> Error {
        self.admission.count_refused(demand.tasks);
        let now = Instant::now();
        let open = self.shards.iter().filter(|ledger| ledger.state() == ShardState::Open);
        let loads = open.map(|ledger| ledger.gauges.load(now));
        let needed = Needed {
            starts: self.admission.starts_needed(demand.tasks),
            ends: self.admission.ends_needed(demand.cached),
        };
        Error::Busy { retry_after: backpressure::retry_after(loads, self.slots.all(), needed) }
    }

    /// How many submissions were refused since the start, whatever for.
    pub(crate) fn refused(&self) -> u64 {
        let shards = self.shards.iter();
        let by_shards = shards.map(|ledger| ledger.gauges.refused.load(Ordering::Relaxed));
        self.admission.refused() + by_shards.sum::<u64>()
    }

    pub(crate) fn is_claiming(&self) -> bool {
        self.phase() == Phase::Running
    }

    /// Whether a claimed task is to be given back instead of started: its queue has been paused since, or
    /// limited to fewer than are in hand.
    pub(crate) fn holds_back(&self, attempt: &Attempt) -> bool {
        if !self.queues.any_restrained() {
            return false;
        }
        let queue = self.queues.get(attempt.queue);
        let over = |limit| attempt.alone.is_none() && self.slots.exceeds(queue.index, limit);
        queue.is_paused() || queue.limit().is_some_and(over)
    }

    /// Tells shards that credits are free.
    pub(crate) fn wake(&self, shards: Vec<ShardId>) {
        for shard in shards {
            if let Some(ledger) = self.shard(shard) {
                ledger.link.send(Wake);
            }
        }
    }

    /// Something was stored.
    pub(crate) fn moved(&self) {
        self.moved.notify_waiters();
    }

    /// Waits until nothing is under way: no attempt, no unconfirmed message, no delivery.
    pub(crate) async fn quiet(&self) {
        loop {
            let moved = self.moved.notified();
            let quiet = self.shards.iter().all(|ledger| ledger.is_quiet());
            if quiet && self.deliveries.is_empty() {
                return;
            }
            // also looked at now and then: a rebuilt actor may have changed things silently
            let look = tokio::time::sleep(std::time::Duration::from_millis(20));
            tokio::select! {
                () = moved => {}
                () = look => {}
            }
        }
    }

    /// The directory, until the queue has ended.
    pub(crate) fn directory(&self) -> Result<Directory, StoreError> {
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        directory
            .clone()
            .ok_or_else(|| StoreError::new(StoreErrorKind::Other, "the queue has ended"))
    }

    /// Lets others have the directory.
    pub(super) fn release_directory(&self) {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Counts attempts that were given back.
    pub(crate) fn add_released(&self, attempts: u64) {
        self.released.fetch_add(attempts, Ordering::Relaxed);
    }

    pub(crate) fn released(&self) -> u64 {
        self.released.load(Ordering::Relaxed)
    }

    /// Takes the ballast again once there is room for it, or for a part of it.
    pub(crate) fn restore_ballast(&self) {
        let _one_by_one = self.ballast();
        if !self.ballast_freed.load(Ordering::Acquire) {
            return;
        }
        let short = self.short_of_space.load(Ordering::Acquire);
        let freed = short.then(|| self.freed_bytes.load(Ordering::Acquire));
        match self.directory().and_then(|directory| directory.restore_ballast(freed)) {
            Ok(Ballast::Missing) => {}
            Ok(there) => {
                self.ballast_freed.store(there == Ballast::Part, Ordering::Release);
                if self.short_of_space.swap(false, Ordering::AcqRel) {
                    tracing::info!(?there, "the disk has space again; the ballast file is back");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the ballast file cannot be restored");
                // nothing that space would help against
                let lasts = error.kind() == StoreErrorKind::Full;
                self.short_of_space.fetch_and(lasts, Ordering::AcqRel);
            }
        }
    }

    /// Whether the ballast, or a part of it, is to be restored.
    pub(crate) fn misses_ballast(&self) -> bool {
        self.ballast_freed.load(Ordering::Acquire)
    }

    /// Whether the disk is full, so that what the ballast has freed must be kept for ends. Looks
    /// first whether there is room for the ballast again.
    pub(crate) fn is_short_of_space(&self) -> bool {
        if self.short_of_space.load(Ordering::Acquire) {
            self.restore_ballast();
        }
        self.short_of_space.load(Ordering::Acquire)
    }

    /// The ballast was given back to a full disk.
    pub(crate) fn ballast_is_freed(&self, bytes: u64) {
        let _one_by_one = self.ballast();
        self.note_freed(bytes);
    }

    /// Shards find the disk full, or not any more, at the same time: the file and what is known of it are
    /// to agree.
    fn ballast(&self) -> MutexGuard<'_, ()> {
        self.ballast.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_freed(&self, bytes: u64) {
        self.ballast_freed.store(true, Ordering::Release);
        self.freed_bytes.store(bytes, Ordering::Release);
        self.short_of_space.store(true, Ordering::Release);
        tracing::warn!("the disk is full; the ballast file is freed");
    }

    /// Gives the ballast back to a full disk, so that ends can be stored.
    pub(crate) fn free_ballast(&self) {
        let _one_by_one = self.ballast();
        self.ballast_freed.store(true, Ordering::Release);
        match self.directory().and_then(|directory| directory.free_ballast()) {
            Ok(0) => {}
            Ok(bytes) => self.note_freed(bytes),
            Err(error) => tracing::warn!(%error, "the ballast file cannot be freed"),
        }
    }

    pub(crate) fn open_options(&self) -> OpenOptions {
        let storage = &self.settings.storage;
        OpenOptions {
            synced_commits: storage.durability == Durability::Full,
            busy_timeout: storage.busy_timeout,
            cache_bytes: storage.cache,
            wal_limit_bytes: storage.wal_limit,
            row_bytes_max: ROW_BYTES_MAX,
            quick_check: storage.quick_check,
        }
    }

    /// How priority and time make the order.
    pub(crate) fn ageing(&self) -> Ageing {
        Ageing::new(self.settings.tasks.ageing_per_level)
    }

    pub(crate) fn store_options(&self) -> StoreOptions {
        let definitions = self.registry.definitions();
        let subscribers: Vec<Arc<str>> = definitions
            .iter()
            .filter(|definition| definition.role == Role::Subscriber)
            .map(|definition| definition.name.clone())
            .collect();
        let subscribers_of = |role| match role {
            Role::Task => subscribers.clone(),
            Role::Callback | Role::Subscriber => Vec::new(),
        };
        let settings = &self.settings;
        StoreOptions {
            clock: self.clock.clone(),
            syncs: settings.storage.durability == Durability::Full,
            names: definitions.iter().map(|definition| definition.name.clone()).collect(),
            queue_of: self.queue_of.clone(),
            queues: self.queues.clone(),
            subscribers: definitions.iter().map(|of| subscribers_of(of.role)).collect(),
            ageing: self.ageing(),
            max_crashes: settings.tasks.max_crashes,
            window: settings.limits.window,
            keep_results: settings.retention.results,
            keep_dead: settings.retention.dead,
            sweep: settings.retention.sweep,
        }
    }
}
