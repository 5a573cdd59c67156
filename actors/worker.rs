//! A Worker: runs attempts, several at a time, on a thread of its own.
//!
//! Async attempts are futures on this thread; blocking ones run on the [pool](super::blocking).
//! Both are called under `catch_unwind`. What a worker has in hand lives in its ledger, so
//! the death of the actor stops no attempt.

use std::cell::Cell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::blocking::Refusal;
use super::ledger::{Blocking, Done, FinishBatch, WorkerLedger};
use super::messages::{Finish, Quiesce, Run, Wake};
use super::slots::Freed;
use super::system::Shared;
use crate::attempt::{Attempt, AttemptEnd};
use crate::clock::Timestamp;
use crate::panic_message;
use crate::proof::Point;
use crate::record::{FailureKind, ShardId, TaskFailure, TaskId};
use crate::task;

type AttemptFuture = Pin<Box<dyn Future<Output = AttemptEnd>>>;

/// How long an end waits to be reported at most, but for the attempt that holds the thread then.
const REPORT_WITHIN: Duration = Duration::from_millis(1);

/// How long a blocking attempt is put off for which no thread can be started.
const THREAD_PAUSE: Duration = Duration::from_secs(1);

/// Runs attempts against credits.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    ledger: Arc<WorkerLedger>,
    /// When an attempt on this thread first told it to report.
    told_at: Rc<Cell<Timestamp>>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, ledger: Arc<WorkerLedger>) -> Self {
        Worker { shared, ledger, told_at: Rc::default() }
    }

    /// Starts what waits, as far as slots are free, and reports what is over: at the end, and
    /// before that what has waited while others held the thread.
    fn work(&self) {
        let concurrency = self.shared.settings.workers.concurrency;
        let mut reported_at = None;
        while self.ledger.running.load(Ordering::Acquire) < concurrency {
            let started_at = self.shared.clock.now();
            if started_at.since(*reported_at.get_or_insert(started_at)) >= REPORT_WITHIN {
                report(&self.shared, &self.ledger);
                reported_at = Some(started_at);
            }
            self.shared.points.pass(Point::WorkerStart);
            // nothing is between this and its start: a panic there would lose it
            let own = self.ledger.queue().pop();
            let Some(attempt) = own.or_else(|| self.steal()) else { break };
            self.start(attempt, started_at);
        }
        // one that fills up meanwhile sees this, or is seen by the look after it
        self.ledger.armed.swap(false, Ordering::AcqRel);
        self.share();
        report(&self.shared, &self.ledger);
    }

    /// Takes what waits in another worker whose slots are all taken, as work stealing does (Blumofe and
    /// Leiserson, 1999): the first that waits where most wait. Its credit comes along.
    fn steal(&self) -> Option<Arc<Attempt>> {
        let from = self.others_that_are_full().max_by_key(|other| other.queue().len())?;
        let attempt = from.queue().pop()?;
        attempt.worker.store(self.ledger.index, Ordering::Release);
        let slots = &self.shared.slots;
        self.shared.wake(slots.moved(from.index, self.ledger.index, attempt.slot_ns()));
        Some(attempt)
    }

    fn others_that_are_full(&self) -> impl Iterator<Item = &Arc<WorkerLedger>> {
        // a shutdown gives back what waits
        let workers = if self.shared.is_claiming() { &*self.shared.workers } else { &[] };
        let others = workers.iter().filter(|other| other.index != self.ledger.index);
        others.filter(|other| !self.has_slot(other))
    }

    fn has_slot(&self, worker: &WorkerLedger) -> bool {
        worker.running.load(Ordering::Acquire) < self.shared.settings.workers.concurrency
    }

    /// Has others with free slots come for what waits here, if all slots are taken: they may have had
    /// nothing to do when there was nothing to take yet. And looks once more itself, if it has one.
    fn share(&self) {
        // of two of which one fills up as the other comes free, at least one sees both
        fence(Ordering::SeqCst);
        if self.has_slot(&self.ledger) {
            // what came to wait since it looked found it awake
            if self.others_that_are_full().any(|other| other.queue().len() > 0) {
                self.ledger.wake();
            }
        } else if self.ledger.queue().len() > 0 {
            // all of them: one may have its thread held, or find other work before it looks here
            let workers = self.shared.workers.iter();
            workers.filter(|other| self.has_slot(other)).for_each(|other| other.wake());
        }
    }

    fn start(&self, attempt: Arc<Attempt>, started_at: Timestamp) {
        if attempt.cancel.is_cancelled() || self.shared.holds_back(&attempt) {
            let done = Done { attempt, end: None, started_at, ended_at: started_at };
            self.ledger.keep(done);
            return;
        }
        let limit = self.shared.settings.limits.result;
        let data = self.shared.data.clone();
        let run = caught(|| attempt.definition.start(attempt.clone(), data, limit));
        match run {
            Err(end) => self.ended(attempt, end, started_at),
            Ok(task::Run::Ended(end)) => self.ended(attempt, end, started_at),
            Ok(task::Run::Future(mut future)) => match poll_once(future.as_mut()) {
                Poll::Ready(end) => self.ended(attempt, end, started_at),
                Poll::Pending => self.spawn(attempt, future, started_at),
            },
            Ok(task::Run::Blocking(call)) => self.run_blocking(attempt, call),
        }
    }

    fn ended(&self, attempt: Arc<Attempt>, end: AttemptEnd, started_at: Timestamp) {
        let ended_at = self.shared.clock.now();
        self.ledger.keep(Done { attempt, end: Some(end), started_at, ended_at });
    }

    /// Lets a future that isn't ready run on, with its timeout.
    fn spawn(&self, attempt: Arc<Attempt>, future: AttemptFuture, started_at: Timestamp) {
        let (shared, ledger) = (self.shared.clone(), self.ledger.clone());
        ledger.running.fetch_add(1, Ordering::AcqRel);
        let id = attempt.id;
        let told_at = self.told_at.clone();
        let attempt = Some(attempt);
        let handed = Handed { shared, ledger, attempt, started_at, end: None, told_at };
        let running = actix_rt::spawn(handed.run(id, future));
        self.ledger.aborts().insert(id, running.abort_handle());
        if running.is_finished() {
            self.ledger.aborts().remove(&id);
        }
    }

    /// Hands an attempt to the pool. It keeps its credit, but doesn't count as running here: async
    /// attempts that were claimed behind it needn't wait for a thread that they don't use.
    fn run_blocking(&self, attempt: Arc<Attempt>, call: Box<dyn FnOnce() -> AttemptEnd + Send>) {
        let (shared, ledger, queue) = (self.shared.clone(), self.ledger.clone(), attempt.queue);
        let waiting = Blocking { attempt: attempt.clone(), runs: false };
        ledger.blocking().insert(attempt.id, waiting);
        let watch = attempt.timeout.map(|timeout| watch(&attempt, timeout));
        let refused = attempt.clone();
        let queues = self.shared.queues.clone();
        let is_wanted = move || !queues.any_restrained() || !queues.get(queue).is_paused();
        let run = self.shared.pool.run(queue, is_wanted, move || {
            match ledger.blocking().get_mut(&attempt.id) {
                Some(blocking) => blocking.runs = true,
                // a shutdown gave it back while it waited for this thread
                None => return,
            }
            let started_at = shared.clock.now();
            let (over, ending) = oneshot::channel();
            if let Some(watch) = watch {
                // nobody listens any more if the worker's thread has ended
                let _ = watch.send(ending);
            }
            // while it waited for this thread, its queue may have been paused or limited
            let back = attempt.is_cancel_requested() || shared.holds_back(&attempt);
            let end = (!back).then(|| caught(call).unwrap_or_else(|end| end));
            let end = match attempt.timeout {
                Some(timeout) if !back && attempt.is_overdue() => Some(timed_out(timeout)),
                _ => end,
            };
            drop(over);
            let ended_at = shared.clock.now();
            // past the deadline of a shutdown it was given back already
            if ledger.blocking().remove(&attempt.id).is_some() {
                ledger.report(Done { attempt, end, started_at, ended_at });
            }
        });
        if let Err(refusal) = run {
            self.put_off(refused, refusal);
        }
    }

    /// Ends an attempt that the pool didn't take. Without a thread it isn't given back, because it would
    /// be claimed again at once.
    fn put_off(&self, attempt: Arc<Attempt>, refusal: Refusal) {
        self.ledger.blocking().remove(&attempt.id);
        let now = self.shared.clock.now();
        let end = match refusal {
            Refusal::NoThread => Some(AttemptEnd::Snoozed(THREAD_PAUSE)),
            Refusal::NotWanted => None,
        };
        self.ledger.keep(Done { attempt, end, started_at: now, ended_at: now });
    }
}

/// Attempts that are over, between the ledger and the outbox of their shard: what isn't there yet
/// goes back if the worker panics meanwhile.
struct Unreported<'w> {
    ledger: &'w WorkerLedger,
    done: Vec<Done>,
}

impl Drop for Unreported<'_> {
    fn drop(&mut self) {
        self.done.drain(..).for_each(|done| self.ledger.keep(done));
    }
}

/// Sends what is over to its shards and gives back the credits.
pub(super) fn report(shared: &Shared, worker: &WorkerLedger) {
    let mut unreported = Unreported { ledger: worker, done: worker.take_done() };
    let done = &mut unreported.done;
    if done.is_empty() {
        return;
    }
    shared.points.pass(Point::WorkerReport);
    let released = done.iter().filter(|done| done.end.is_none()).count();
    shared.add_released(released as u64);
    let freed = Freed {
        attempts: done.len(),
        load_ns: done.iter().map(|done| done.attempt.slot_ns()).sum(),
        places: done.iter().map(|done| done.attempt.queue).collect(),
    };
    let blocking: Vec<u64> = done.iter().filter_map(|done| done.attempt.thread_ns()).collect();
    let alone = done.iter().find(|done| done.attempt.alone.is_some());
    let alone = alone.map(|done| done.attempt.id.shard());
    for done in &*done {
        measure(done);
    }
    for ledger in &shared.shards {
        if done.is_empty() {
            break;
        }
        let mine = |done: &mut Done| done.attempt.id.shard() == ledger.id;
        let mut batch = Vec::new();
        if done.iter_mut().all(mine) {
            batch = std::mem::take(done);
        } else {
            batch.extend(done.extract_if(.., mine));
        }
        if !batch.is_empty() {
            ledger.link.send(Finish(ledger.finishes.post(FinishBatch { done: batch })));
        }
    }
    if !blocking.is_empty() {
        shared.pool.remove_claimed(blocking.len(), blocking.iter().sum());
    }
    let wake = shared.slots.release(worker.index, &freed);
    shared.wake(wake);
    // the others wait until the end of what ran alone is stored, unless that takes long
    let quarantined =
        |shard: &ShardId| shared.shard(*shard).is_some_and(|shard| shard.is_quarantined());
    if let Some(shard) = alone.filter(quarantined) {
        shared.wake(shared.slots.stores_nothing(shard));
    }
}

/// Keeps the definition's service time.
fn measure(done: &Done) {
    // what was put off or given back says nothing about the time
    if !matches!(done.end, Some(AttemptEnd::Finished(_) | AttemptEnd::Failed { .. })) {
        return;
    }
    done.attempt.definition.service.add(done.ended_at.since(done.started_at));
}

/// An async attempt in progress. If its future is dropped before it is over, because the deadline
/// of a shutdown has come, the attempt counts as given back.
struct Handed {
    shared: Arc<Shared>,
    ledger: Arc<WorkerLedger>,
    attempt: Option<Arc<Attempt>>,
    started_at: Timestamp,
    end: Option<AttemptEnd>,
    told_at: Rc<Cell<Timestamp>>,
}

impl Handed {
    async fn run(mut self, id: TaskId, future: AttemptFuture) {
        let limit = self.attempt.as_ref().and_then(|attempt| attempt.timeout);
        let caught = CatchUnwind { future: Some(future), ledger: self.ledger.clone(), id };
        let end = match limit {
            None => caught.await,
            Some(limit) => match timeout(limit, caught).await {
                Ok(end) => end,
                Err(_) => timed_out(limit),
            },
        };
        self.end = Some(end);
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let Some(attempt) = self.attempt.take() else { return };
        let known = self.ledger.aborts().remove(&attempt.id).is_some();
        self.ledger.running.fetch_sub(1, Ordering::AcqRel);
        if self.end.is_none() && !known {
            // a shutdown gave it back while another attempt held this thread
            return;
        }
        let ended_at = self.shared.clock.now();
        let (end, started_at) = (self.end.take(), self.started_at);
        if !self.ledger.armed.load(Ordering::Acquire) {
            self.told_at.set(ended_at);
        }
        self.ledger.report(Done { attempt, end, started_at, ended_at });
        // the worker was told, but attempts that hold the thread come before it
        if ended_at.since(self.told_at.get()) >= REPORT_WITHIN {
            report(&self.shared, &self.ledger);
            self.told_at.set(ended_at);
        }
    }
}

fn timed_out(timeout: Duration) -> AttemptEnd {
    let message = format!("the attempt took longer than its timeout of {timeout:?}");
    let failure = TaskFailure::new(FailureKind::TimedOut, message);
    AttemptEnd::Failed { failure, retry_in: None }
}

/// Marks a blocking attempt as overdue and sets its token when its time is over. The time runs
/// from when it is called, which is told with what says that it is over: waiting for a thread isn't
/// part of the attempt, and nothing must stay for the rest of its time.
fn watch(attempt: &Arc<Attempt>, limit: Duration) -> oneshot::Sender<oneshot::Receiver<()>> {
    let (called, calling) = oneshot::channel::<oneshot::Receiver<()>>();
    let watched = Arc::downgrade(attempt);
    actix_rt::spawn(async move {
        let Ok(over) = calling.await else { return };
        if timeout(limit, over).await.is_ok() {
            return;
        }
        if let Some(attempt) = watched.upgrade() {
            attempt.set_overdue();
            attempt.cancel.cancel();
            tracing::warn!(
                task = %attempt.id,
                name = %attempt.definition.name,
                "a blocking attempt is overdue; its slot is busy until it returns"
            );
        }
    });
    called
}

/// Calls user code; a panic becomes the attempt's end.
fn caught<T>(call: impl FnOnce() -> T) -> Result<T, AttemptEnd> {
    panic_message::catch(AssertUnwindSafe(call)).map_err(panicked)
}

fn panicked(message: String) -> AttemptEnd {
    let failure = TaskFailure::new(FailureKind::Panicked, message);
    AttemptEnd::Failed { failure, retry_in: None }
}

/// Polls a future that may well be ready: then it needs no task of its own. If it isn't, the
/// spawned task polls it again with a waker that counts.
fn poll_once(future: Pin<&mut dyn Future<Output = AttemptEnd>>) -> Poll<AttemptEnd> {
    let mut context = TaskContext::from_waker(Waker::noop());
    match caught(|| future.poll(&mut context)) {
        Ok(poll) => poll,
        Err(end) => Poll::Ready(end),
    }
}

/// A future whose panic is its end. It is dropped under `catch_unwind` too.
struct CatchUnwind {
    future: Option<AttemptFuture>,
    ledger: Arc<WorkerLedger>,
    id: TaskId,
}

impl Future for CatchUnwind {
    type Output = AttemptEnd;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<AttemptEnd> {
        let this = &mut *self;
        let Some(future) = &mut this.future else { return Poll::Pending };
        // not among those that can be aborted meanwhile: by that a shutdown knows which of a
        // worker's attempts holds the thread
        let abort = this.ledger.aborts().remove(&this.id);
        let polled = match caught(|| future.as_mut().poll(context)) {
            Ok(Poll::Pending) => {
                if let Some(abort) = abort {
                    this.ledger.aborts().insert(this.id, abort);
                }
                return Poll::Pending;
            }
            Ok(Poll::Ready(end)) => end,
            Err(end) => end,
        };
        let future = this.future.take();
        match caught(|| drop(future)) {
            Ok(()) => Poll::Ready(polled),
            Err(end) => Poll::Ready(end),
        }
    }
}

impl Drop for CatchUnwind {
    fn drop(&mut self) {
        let future = self.future.take();
        if let Err(end) = caught(|| drop(future)) {
            tracing::warn!(?end, "a task's future panicked when it was dropped");
        }
    }
}

impl Actor for Worker {
    type Context = Context<Self>;
}

impl Handler<Run> for Worker {
    type Result = ();

    fn handle(&mut self, Run(parcel): Run, _: &mut Context<Self>) {
        self.shared.points.pass(Point::WorkerRun);
        if let Some(attempts) = parcel.body().take() {
            self.ledger.enqueue(attempts);
            self.ledger.runs.confirm(&parcel);
        }
        self.work();
    }
}

impl Handler<Wake> for Worker {
    type Result = ();

    fn handle(&mut self, _: Wake, _: &mut Context<Self>) {
        self.shared.points.pass(Point::WorkerWake);
        self.work();
    }
}

impl Handler<Quiesce> for Worker {
    type Result = ();

    fn handle(&mut self, Quiesce { abort }: Quiesce, context: &mut Context<Self>) {
        let mut given_back: Vec<Arc<Attempt>> = self.ledger.queue().take().collect();
        if abort {
            let running: Vec<_> = self.ledger.aborts().values().cloned().collect();
            for attempt in running {
                attempt.abort();
            }
        }
        let not_running = |_: &TaskId, blocking: &mut Blocking| abort || !blocking.runs;
        let blocking: Vec<_> = self.ledger.blocking().extract_if(not_running).collect();
        for (_, Blocking { attempt, runs }) in blocking {
            if runs {
                // what it returns no longer counts, so it may as well stop
                attempt.cancel.cancel();
            }
            given_back.push(attempt);
        }
        let now = self.shared.clock.now();
        for attempt in given_back {
            self.ledger.keep(Done { attempt, end: None, started_at: now, ended_at: now });
        }
        context.address().do_send(Wake);
    }
}
