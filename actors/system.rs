//! The queue's own actix System: its threads, how they start, and how they end.

mod links;
mod shared;
mod start;

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actix_rt::{Arbiter, ArbiterHandle, System};
use tokio::sync::{oneshot, watch};

pub(crate) use shared::{Phase, Shared};

use super::callback::CallbackActor;
use super::closures::Closures;
use super::dispatcher::Dispatcher;
use super::ending;
use super::feeder::Deliveries;
use super::ledger::{Link, ShardLedger, WorkerLedger};
use super::messages::{Deliver, Run, Wake};
use super::scaler::{self, Scaler, Scaling, ShardThreads};
use super::supervision::{Child, supervise};
use super::worker::Worker;
use crate::error::{Error, Result, StartError};
use crate::proof::{self, Points};
use crate::queue::ShutdownReport;
use crate::record::ShardId;
use crate::store::{Recovered, SqliteStore};

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
    if proof::on_one_thread() {
        actix_rt::spawn(async move {
            let (_, outcome) = run(&shared, started, stopped).await;
            shared.release_directory();
            report.send_replace(Some(outcome));
        });
        let (dispatcher, recovered) = starting.await.map_err(no_thread)??;
        return Ok(Running { dispatcher, recovered, stop, ended });
    }
    let run = move || {
        let runner = System::new();
        let (threads, outcome) = runner.block_on(run(&shared, started, stopped));
        let all_shards = threads.join();
        drop(runner);
        // not earlier, or not at all: until their threads have ended, shards may write
        if all_shards {
            shared.release_directory();
        }
        report.send_replace(Some(outcome));
    };
    let spawned = std::thread::Builder::new().name("mqs-system".into()).spawn(run);
    let thread = spawned.map_err(no_thread)?;
    match starting.await {
        Ok(Ok((dispatcher, recovered))) => Ok(Running { dispatcher, recovered, stop, ended }),
        Ok(Err(error)) => {
            // its threads end at once: none has run a task
            drop(thread.join());
            Err(error)
        }
        Err(_) => Err(no_thread("the queue's own thread ended in a panic")),
    }
}

fn no_thread(why: impl fmt::Display) -> Error {
    Error::Start { reasons: vec![StartError::Thread { message: why.to_string() }] }
}

/// Where an actor lives.
pub(super) enum Thread {
    Own(ArbiterHandle),
    /// On the caller's: only in a simulation.
    Here,
}

impl Thread {
    /// Starts a thread; its Arbiter is added to these, to be joined in the end.
    pub(super) fn start(arbiters: &mut Vec<Arbiter>) -> std::io::Result<Self> {
        if proof::on_one_thread() {
            return Ok(Thread::Here);
        }
        let arbiter = Arbiter::try_new()?;
        let handle = arbiter.handle();
        arbiters.push(arbiter);
        Ok(Thread::Own(handle))
    }

    /// Calls this there, soon.
    pub(super) fn spawn_fn(&self, call: impl FnOnce() + Send + 'static) {
        match self {
            // one that has ended drops what it is given, and with it the way to answer
            Thread::Own(handle) => drop(handle.spawn_fn(call)),
            Thread::Here => drop(actix_rt::spawn(async { call() })),
        }
    }
}

/// How long the threads that user code may hold have to end.
const JOIN_GRACE: Duration = Duration::from_secs(2);

/// The threads to wait for in the end.
struct Threads {
    /// Those of shards: only our own code runs there.
    shards: Vec<Arbiter>,
    others: Vec<Arbiter>,
    /// Whether a shard's thread doesn't answer, and is left behind.
    lost_shard: bool,
}

impl Threads {
    /// Waits for the threads; tells whether those of all shards have ended.
    fn join(self) -> bool {
        for arbiter in self.others.iter().chain(&self.shards) {
            arbiter.stop();
        }
        // a runtime waits without limit for what a task gave to `spawn_blocking`
        let (done, joined) = std::sync::mpsc::channel();
        let others = self.others;
        let joining = move || {
            join_all(others);
            // if nobody waits any more, it came too late
            let _ = done.send(());
        };
        let joiner = std::thread::Builder::new().name("mqs-join".into()).spawn(joining);
        if joiner.is_ok() && joined.recv_timeout(JOIN_GRACE).is_err() {
            tracing::warn!("blocking code that a task started holds a thread; it is left behind");
        }
        join_all(self.shards);
        if self.lost_shard {
            tracing::error!("a shard's thread doesn't answer; its directory stays locked");
        }
        !self.lost_shard
    }
}

fn join_all(arbiters: Vec<Arbiter>) {
    for arbiter in arbiters {
        if arbiter.join().is_err() {
            tracing::error!("a thread of the queue ended in a panic");
        }
    }
}

/// The life of the system's own thread: start, wait, end.
async fn run(
    shared: &Arc<Shared>,
    started: oneshot::Sender<Started>,
    stopped: oneshot::Receiver<Duration>,
) -> (Threads, ShutdownReport) {
    let (threads, mut others) = (ShardThreads::default(), Vec::new());
    let outcome = boot(shared, &threads, &mut others).await;
    let running = outcome.is_ok();
    let scaler = running.then(|| Scaler::spawn(shared, &threads));
    let mut report = ShutdownReport::default();
    if started.send(outcome).is_ok() && running {
        let deadline = stopped.await;
        shared.enter(if deadline.is_ok() { Phase::Draining } else { Phase::Ended });
        // first, so that no shard is added to those that are closed
        end_scaler(scaler).await;
        // without a deadline every handle was dropped: end as a crash would
        if let Ok(deadline) = deadline {
            report = ending::drain(shared, deadline).await;
        }
    } else {
        end_scaler(scaler).await;
    }
    shared.pool.close();
    let others = ending::responsive(others).await;
    let shards = threads.take();
    let started = shards.len();
    let shards = ending::responsive(shards).await;
    let lost_shard = shards.len() < started;
    (Threads { shards, others, lost_shard }, report)
}

async fn end_scaler(scaler: Option<Scaling>) {
    if let Some(scaler) = scaler {
        scaler.end().await;
    }
}

async fn boot(shared: &Arc<Shared>, shards: &ShardThreads, arbiters: &mut Vec<Arbiter>) -> Started {
    let recovered = open_shards(shared, shards).await?;
    super::slots_of_keys::place_at_start(shared).await?;
    let callback = Thread::start(arbiters).map_err(no_thread)?;
    let for_callback = shared.clone();
    callback.spawn_fn(move || {
        let link = for_callback.callback.clone();
        let budget = for_callback.settings.supervision.clone();
        let deliveries = Deliveries::new(for_callback);
        actix_rt::spawn(supervise(CallbackChild { deliveries }, link, budget));
    });
    let (up, is_up) = oneshot::channel();
    let closures = ClosuresChild { shared: shared.clone(), up: Some(up) };
    Thread::start(arbiters).map_err(no_thread)?.spawn_fn(move || {
        let link = closures.shared.closures.clone();
        let budget = closures.shared.settings.supervision.clone();
        actix_rt::spawn(supervise(closures, link, budget));
    });
    is_up.await.map_err(|_| no_thread("the closures' thread ended in a panic"))?;
    for ledger in &shared.workers {
        let (shared, ledger) = (shared.clone(), ledger.clone());
        Thread::start(arbiters).map_err(no_thread)?.spawn_fn(move || {
            let budget = shared.settings.supervision.clone();
            let link = ledger.clone();
            actix_rt::spawn(supervise(WorkerChild { shared, ledger }, link, budget));
        });
    }
    let dispatcher = Dispatcher::new(shared.clone()).start_here();
    shared.dispatcher.set(Some(dispatcher.clone()));
    shared.enter(Phase::Running);
    shared.wake(shared.present().map(|ledger| ledger.id).collect());
    Ok((dispatcher, recovered))
}

/// Opens all shards at once, each on its own thread.
async fn open_shards(
    shared: &Arc<Shared>,
    threads: &ShardThreads,
) -> Result<BTreeMap<ShardId, Recovered>> {
    let mut opening = Vec::new();
    for ledger in shared.present() {
        let thread = threads.start().map_err(no_thread)?;
        opening.push((ledger.id, scaler::open_on(&thread, shared, ledger)));
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

/// Builds CallbackActors around the deliveries in hand.
struct CallbackChild {
    deliveries: Rc<Deliveries>,
}

impl Child for CallbackChild {
    type Actor = CallbackActor;

    fn points(&self) -> &Points {
        &self.deliveries.shared.points
    }

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

/// Builds those who call closures.
struct ClosuresChild {
    shared: Arc<Shared>,
    /// Told when the first is up.
    up: Option<oneshot::Sender<()>>,
}

impl Child for ClosuresChild {
    type Actor = Closures;

    fn points(&self) -> &Points {
        &self.shared.points
    }

    fn name(&self) -> String {
        "closures".into()
    }

    async fn build(&mut self) -> Result<Closures> {
        Ok(Closures(self.shared.clone()))
    }

    fn started(&mut self, _: &Addr<Closures>) {
        if let Some(up) = self.up.take() {
            // if nobody waits any more, the start has failed
            let _ = up.send(());
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

    fn points(&self) -> &Points {
        &self.shared.points
    }

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
