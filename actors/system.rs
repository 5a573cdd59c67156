//! The queue's own actix System: its threads, what they share, and how they end.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, Addr};
use actix_rt::{Arbiter, System};
use tokio::sync::{Notify, Semaphore, oneshot, watch};

use super::blocking::BlockingPool;
use super::callback::CallbackActor;
use super::dispatcher::Dispatcher;
use super::ending;
use super::feeder::Deliveries;
use super::ledger::{DeliverBatch, Link, ShardLedger, WorkerLedger};
use super::messages::{Deliver, Run, Wake};
use super::outbox::{Once, Outbox};
use super::shard::ShardChild;
use super::slots::Slots;
use super::subscriptions::Subscriptions;
use super::supervision::{Child, supervise};
use super::worker::Worker;
use crate::clock::Clock;
use crate::error::{Error, Result, StartError, StoreError};
use crate::order::Ageing;
use crate::queue::ShutdownReport;
use crate::record::ShardId;
use crate::registry::{Registry, Role};
use crate::settings::{Durability, Settings};
use crate::store::{Directory, OpenKind, OpenOptions, Recovered, SqliteStore, StoreOptions};
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
    /// Absent after the end: then another process, or this one, may have it.
    directory: Mutex<Option<Directory>>,
    pub(crate) shards: Vec<Arc<ShardLedger>>,
    pub(crate) workers: Vec<Arc<WorkerLedger>>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) callback: Arc<CallbackLink>,
    pub(crate) deliveries: Outbox<Once<DeliverBatch>>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) pool: BlockingPool,
    /// Permits for submissions that wait for their commit.
    pub(crate) admission: Arc<Semaphore>,
    /// Permits for tasks whose arguments are kept in memory.
    pub(crate) cached_room: Arc<Semaphore>,
    phase: AtomicU8,
    /// Told whenever something was stored, for those who wait for silence.
    moved: Notify,
    /// Attempts that were given back.
    released: AtomicU64,
    /// Whether a full disk has had the ballast.
    ballast_freed: AtomicBool,
}

/// The way to the CallbackActor.
#[derive(Debug)]
pub(crate) struct CallbackLink(Link<CallbackActor>);

impl CallbackLink {
    pub(crate) fn send(&self, message: Deliver) {
        self.0.send(message);
    }
}

impl AsRef<Link<CallbackActor>> for CallbackLink {
    fn as_ref(&self) -> &Link<CallbackActor> {
        &self.0
    }
}

impl AsRef<Link<Worker>> for WorkerLedger {
    fn as_ref(&self) -> &Link<Worker> {
        &self.link
    }
}

impl AsRef<Link<super::shard::ShardActor<SqliteStore>>> for ShardLedger {
    fn as_ref(&self) -> &Link<super::shard::ShardActor<SqliteStore>> {
        &self.link
    }
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
        let (concurrency, prefetch) = (settings.workers.concurrency, settings.workers.prefetch);
        Arc::new(Shared {
            shards: shards.iter().map(|shard| ShardLedger::new(*shard)).collect(),
            workers: (0..workers).map(WorkerLedger::new).collect(),
            slots: Slots::new(workers, concurrency, prefetch),
            callback: Arc::new(CallbackLink(Link::new())),
            deliveries: Outbox::new(),
            subscriptions: Subscriptions::new(registry.clone()),
            pool: BlockingPool::new(settings.workers.blocking_threads),
            admission: Arc::new(Semaphore::new(settings.limits.pending_submissions)),
            cached_room: Arc::new(Semaphore::new(settings.limits.cached_arguments)),
            phase: AtomicU8::new(Phase::Starting as u8),
            moved: Notify::new(),
            registry,
            data,
            settings,
            clock,
            directory: Mutex::new(Some(directory)),
            released: AtomicU64::new(0),
            ballast_freed: AtomicBool::new(false),
        })
    }

    pub(crate) fn shard(&self, id: ShardId) -> Option<&Arc<ShardLedger>> {
        self.shards.get(id.index())
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

    pub(crate) fn is_claiming(&self) -> bool {
        self.phase() == Phase::Running
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
        directory.clone().ok_or_else(|| {
            StoreError::new(crate::error::StoreErrorKind::Other, "the queue has ended")
        })
    }

    /// Lets others have the directory.
    fn release_directory(&self) {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Counts attempts that were given back.
    pub(crate) fn add_released(&self, attempts: u64) {
        self.released.fetch_add(attempts, Ordering::Relaxed);
    }

    pub(crate) fn released(&self) -> u64 {
        self.released.load(Ordering::Relaxed)
    }

    /// Takes the ballast again once there is room for it.
    pub(crate) fn restore_ballast(&self) {
        if !self.ballast_freed.load(Ordering::Acquire) {
            return;
        }
        match self.directory().and_then(|directory| directory.restore_ballast()) {
            Ok(true) => self.ballast_freed.store(false, Ordering::Release),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the ballast file cannot be restored"),
        }
    }

    /// Gives the ballast back to a full disk, so that ends can be stored.
    pub(crate) fn free_ballast(&self) {
        self.ballast_freed.store(true, Ordering::Release);
        match self.directory().and_then(|directory| directory.free_ballast()) {
            Ok(true) => tracing::warn!("the disk is full; the ballast file is freed"),
            Ok(false) => {}
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
            names: definitions.iter().map(|definition| definition.name.clone()).collect(),
            subscribers: definitions.iter().map(|of| subscribers_of(of.role)).collect(),
            ageing: Ageing::new(settings.tasks.ageing_per_level),
            max_crashes: settings.tasks.max_crashes,
            window: settings.limits.window,
            keep_results: settings.retention.results,
            keep_dead: settings.retention.dead,
            sweep: settings.retention.sweep,
        }
    }
}

/// A running system, as the queue's owner sees it.
pub(crate) struct Running {
    pub(crate) dispatcher: Addr<Dispatcher>,
    pub(crate) recovered: BTreeMap<ShardId, Recovered>,
    /// Tells the system's thread to end everything, within this time.
    pub(crate) stop: oneshot::Sender<Duration>,
    /// Has the report when all threads have ended.
    pub(crate) ended: watch::Receiver<Option<ShutdownReport>>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Running")
    }
}

type Started = Result<(Addr<Dispatcher>, BTreeMap<ShardId, Recovered>)>;

/// Starts the threads and the actors, opens every shard and recovers it.
///
/// # Errors
///
/// Every shard that can't be opened, together. Then every thread has ended again.
pub(crate) async fn start(shared: Arc<Shared>) -> Result<Running> {
    let (started, starting) = oneshot::channel::<Started>();
    let (stop, stopped) = oneshot::channel::<Duration>();
    let (report, ended) = watch::channel(None);
    let run = move || {
        let runner = System::new();
        let (arbiters, outcome) = runner.block_on(run(&shared, started, stopped));
        for arbiter in &arbiters {
            arbiter.stop();
        }
        for arbiter in arbiters {
            if arbiter.join().is_err() {
                tracing::error!("a thread of the queue ended in a panic");
            }
        }
        drop(runner);
        // not earlier: until their threads have ended, shards may write
        shared.release_directory();
        report.send_replace(Some(outcome));
    };
    let spawned = std::thread::Builder::new().name("mqs-system".into()).spawn(run);
    let no_thread =
        |message: String| Error::Start { reasons: vec![StartError::Thread { message }] };
    let thread = spawned.map_err(|error| no_thread(error.to_string()))?;
    match starting.await {
        Ok(Ok((dispatcher, recovered))) => Ok(Running { dispatcher, recovered, stop, ended }),
        Ok(Err(error)) => {
            // its threads end at once: none has run a task
            drop(thread.join());
            Err(error)
        }
        Err(_) => Err(no_thread("the queue's own thread ended in a panic".into())),
    }
}

/// The life of the system's own thread: start, wait, end.
async fn run(
    shared: &Arc<Shared>,
    started: oneshot::Sender<Started>,
    stopped: oneshot::Receiver<Duration>,
) -> (Vec<Arbiter>, ShutdownReport) {
    let mut arbiters = Vec::new();
    let outcome = boot(shared, &mut arbiters).await;
    let running = outcome.is_ok();
    let mut report = ShutdownReport::default();
    if started.send(outcome).is_ok() && running {
        match stopped.await {
            Ok(deadline) => report = ending::drain(shared, deadline).await,
            // every handle was dropped: end as a crash would
            Err(_) => {
                shared.enter(Phase::Ended);
            }
        }
    }
    shared.pool.close();
    (ending::responsive(arbiters).await, report)
}

async fn boot(shared: &Arc<Shared>, arbiters: &mut Vec<Arbiter>) -> Started {
    let thread = |arbiters: &mut Vec<Arbiter>| -> Result<actix_rt::ArbiterHandle> {
        let arbiter = Arbiter::try_new().map_err(|error| Error::Start {
            reasons: vec![StartError::Thread { message: error.to_string() }],
        })?;
        let handle = arbiter.handle();
        arbiters.push(arbiter);
        Ok(handle)
    };
    let recovered = open_shards(shared, arbiters, &thread).await?;
    let callback = thread(arbiters)?;
    let for_callback = shared.clone();
    callback.spawn_fn(move || {
        let link = for_callback.callback.clone();
        let budget = for_callback.settings.supervision.clone();
        let deliveries = Deliveries::new(for_callback);
        actix_rt::spawn(supervise(CallbackChild { deliveries }, link, budget));
    });
    for ledger in &shared.workers {
        let (shared, ledger) = (shared.clone(), ledger.clone());
        thread(arbiters)?.spawn_fn(move || {
            let budget = shared.settings.supervision.clone();
            let link = ledger.clone();
            actix_rt::spawn(supervise(WorkerChild { shared, ledger }, link, budget));
        });
    }
    let dispatcher = Dispatcher::new(shared.clone()).start();
    shared.enter(Phase::Running);
    shared.wake(shared.shards.iter().map(|ledger| ledger.id).collect());
    Ok((dispatcher, recovered))
}

/// Opens all shards at once, each on its own thread.
async fn open_shards(
    shared: &Arc<Shared>,
    arbiters: &mut Vec<Arbiter>,
    thread: &impl Fn(&mut Vec<Arbiter>) -> Result<actix_rt::ArbiterHandle>,
) -> Result<BTreeMap<ShardId, Recovered>> {
    let mut opening = Vec::new();
    for ledger in &shared.shards {
        let (answer, answered) = oneshot::channel::<Result<Recovered, StoreError>>();
        let (shared, ledger) = (shared.clone(), ledger.clone());
        opening.push((ledger.id, answered));
        thread(arbiters)?.spawn_fn(move || {
            match super::shard::open(&shared, &ledger, OpenKind::First) {
                Ok((store, recovered)) => {
                    let budget = shared.settings.supervision.clone();
                    // answered once the actor is up: what is sent to it before would be refused
                    let up = move || drop(answer.send(Ok(recovered)));
                    let child = ShardChild::new(ledger.clone(), shared, store, up);
                    actix_rt::spawn(supervise(child, ledger, budget));
                }
                Err(error) => drop(answer.send(Err(error))),
            }
        });
    }
    let mut recovered = BTreeMap::new();
    let mut reasons = Vec::new();
    for (shard, answered) in opening {
        let what = crate::store::shard_file(shard);
        match answered.await {
            Ok(Ok(found)) => {
                recovered.insert(shard, found);
            }
            Ok(Err(source)) => reasons.push(StartError::Open { what, source }),
            Err(_) => {
                let message = format!("the thread of {what} ended in a panic");
                reasons.push(StartError::Thread { message });
            }
        }
    }
    if reasons.is_empty() { Ok(recovered) } else { Err(Error::Start { reasons }) }
}

/// Builds CallbackActors around the deliveries in hand.
struct CallbackChild {
    deliveries: Rc<Deliveries>,
}

impl Child for CallbackChild {
    type Actor = CallbackActor;

    fn name(&self) -> String {
        "callback".into()
    }

    async fn build(&mut self) -> Result<CallbackActor> {
        Ok(CallbackActor::new(self.deliveries.clone()))
    }

    fn started(&mut self, address: &Addr<CallbackActor>) {
        for parcel in self.deliveries.shared.deliveries.open() {
            address.do_send(Deliver(parcel));
        }
    }
}

/// Builds the Workers of one thread.
struct WorkerChild {
    shared: Arc<Shared>,
    ledger: Arc<WorkerLedger>,
}

impl Child for WorkerChild {
    type Actor = Worker;

    fn name(&self) -> String {
        format!("worker {}", self.ledger.index)
    }

    async fn build(&mut self) -> Result<Worker> {
        Ok(Worker::new(self.shared.clone(), self.ledger.clone()))
    }

    fn started(&mut self, address: &Addr<Worker>) {
        for parcel in self.ledger.runs.open() {
            address.do_send(Run(parcel));
        }
        address.do_send(Wake);
    }
}
