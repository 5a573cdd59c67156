//! What outlives the actors: attempts in progress, waiters, closures, cached arguments, and what
//! was sent and isn't confirmed.
//!
//! A rebuilt actor finds here what its predecessor had in hand. Locks are taken once per batch and
//! never held while user code runs or anything is awaited.

mod answer;
mod gauges;
mod waiting;
mod worker;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use tokio::sync::oneshot;

pub(crate) use answer::{Answer, Waiter};
use gauges::Gauges;
pub(crate) use gauges::Sums;
pub(crate) use worker::{Blocking, WorkerLedger};

use super::outbox::Outbox;
use super::shard::ShardActor;
use crate::attempt::{Attempt, AttemptEnd, CachedInput};
use crate::clock::Timestamp;
use crate::error::{Result, StoreError};
use crate::record::{BySequence, Sequences, ShardId, TaskId};
use crate::result::TaskResult;
use crate::store::{DeliveryEnd, Memory, SqliteStore};
use crate::submission::Target;

/// The address of an actor that may be rebuilt: it always leads to the newest one.
pub(crate) struct Link<A: Actor> {
    address: RwLock<Option<Addr<A>>>,
}

impl<A: Actor> Link<A> {
    pub(crate) fn new() -> Self {
        Link { address: RwLock::new(None) }
    }

    pub(crate) fn set(&self, address: Option<Addr<A>>) {
        *self.address.write().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// The present actor's, if there is one.
    pub(crate) fn address(&self) -> Option<Addr<A>> {
        self.address.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends to the present actor. If there is none the message is dropped: what must not be lost
    /// is in an outbox, and what is asked is answered by its drop.
    pub(crate) fn send<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        if let Some(address) = &*self.address.read().unwrap_or_else(PoisonError::into_inner) {
            address.do_send(message);
        }
    }
}

impl<A: Actor> fmt::Debug for Link<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

/// An attempt that is over.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) attempt: Arc<Attempt>,
    /// `None`: it was given back before it did anything.
    pub(crate) end: Option<AttemptEnd>,
    pub(crate) started_at: Timestamp,
    pub(crate) ended_at: Timestamp,
}

/// Attempts of one shard that are over.
#[derive(Debug)]
pub(crate) struct FinishBatch {
    pub(crate) done: Vec<Done>,
}

/// Attempts for one worker.
pub(crate) type RunBatch = Vec<Arc<Attempt>>;

/// A result and those in memory who asked for it.
#[derive(Debug)]
pub(crate) struct DeliverItem {
    pub(crate) result: TaskResult,
    pub(crate) claim_no: u32,
    pub(crate) targets: Vec<Target>,
    /// Whether the submission had targets of which none is left: they lived in a process that has ended.
    pub(crate) lost: bool,
}

/// Results of one shard for the CallbackActor.
#[derive(Debug)]
pub(crate) struct DeliverBatch {
    pub(crate) shard: ShardId,
    pub(crate) items: VecDeque<DeliverItem>,
    pub(crate) weight: ResultsWeight,
}

/// What results on their way weigh in their shard's ledger, until this is dropped.
#[derive(Debug)]
pub(crate) struct ResultsWeight {
    ledger: Arc<ShardLedger>,
    bytes: usize,
}

impl ResultsWeight {
    pub(crate) fn new(ledger: &Arc<ShardLedger>, items: &[DeliverItem]) -> Self {
        let bytes = items.iter().map(|item| item.result.bytes()).sum();
        ledger.result_bytes.fetch_add(bytes, Ordering::SeqCst);
        ResultsWeight { ledger: ledger.clone(), bytes }
    }
}

impl Drop for ResultsWeight {
    fn drop(&mut self) {
        self.ledger.result_bytes.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// Deliveries of one shard that are over.
#[derive(Debug)]
pub(crate) struct DeliveredBatch {
    pub(crate) ends: Vec<DeliveryEnd>,
}

/// Whether a shard takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShardState {
    /// Being opened or rebuilt: what is sent to it waits or is refused.
    Opening = 0,
    Open = 1,
    /// Panicked too often; probed now and then.
    Quarantined = 2,
    Closed = 3,
    /// There is no such shard yet: its place is kept for when one more is wanted.
    Absent = 4,
}

/// What lives in memory about one shard.
#[derive(Debug)]
pub(crate) struct ShardLedger {
    pub(crate) id: ShardId,
    pub(crate) link: Link<ShardActor<SqliteStore>>,
    pub(crate) finishes: Outbox<FinishBatch>,
    pub(crate) delivered: Outbox<DeliveredBatch>,
    /// Claimed and not settled, by sequence number.
    attempts: Mutex<BySequence<Arc<Attempt>>>,
    /// Results on their way to targets in memory.
    delivering: Mutex<Sequences>,
    /// How many of those are kept for mailboxes, whose own limits bound them.
    kept_results: AtomicUsize,
    /// Bytes of the results that the CallbackActor hasn't taken over yet.
    result_bytes: AtomicUsize,
    /// Whether results wait in the file for others to have got on.
    undelivered: AtomicBool,
    targets: Mutex<BySequence<Vec<Target>>>,
    cached: Mutex<BySequence<Arc<dyn CachedInput>>>,
    watchers: Mutex<Watchers>,
    unanswered: Mutex<Vec<(Answer, StoreError)>>,
    state: AtomicU8,
    /// Whether it has nothing to do and hasn't been roused.
    sleeps: AtomicBool,
    /// How often it was roused.
    #[cfg(test)]
    pub(crate) roused: AtomicUsize,
    /// Whether new tasks go to it; a retired one ends those that it has.
    active: AtomicBool,
    /// Batches that are being made or stored: what they claim isn't among the attempts yet.
    flushing: AtomicUsize,
    pub(crate) gauges: Gauges,
    /// Rows written since its file was opened.
    pub(crate) row_writes: AtomicU64,
    /// Transactions committed since its file was opened.
    pub(crate) commits: AtomicU64,
    /// Steps of maintenance since the queue began.
    pub(crate) sweeps: AtomicU64,
}

type Watchers = BySequence<Vec<oneshot::Sender<Result<TaskResult>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // plain maps: a panic under the lock leaves them usable
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ShardLedger {
    pub(crate) fn new(id: ShardId, state: ShardState, active: bool) -> Arc<Self> {
        Arc::new(ShardLedger {
            id,
            link: Link::new(),
            finishes: Outbox::new(),
            delivered: Outbox::new(),
            attempts: Mutex::default(),
            delivering: Mutex::default(),
            kept_results: AtomicUsize::new(0),
            result_bytes: AtomicUsize::new(0),
            undelivered: AtomicBool::new(false),
            targets: Mutex::default(),
            cached: Mutex::default(),
            watchers: Mutex::default(),
            unanswered: Mutex::default(),
            state: AtomicU8::new(state as u8),
            sleeps: AtomicBool::new(false),
            #[cfg(test)]
            roused: AtomicUsize::new(0),
            active: AtomicBool::new(active),
            flushing: AtomicUsize::new(0),
            gauges: Gauges::new(),
            row_writes: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            sweeps: AtomicU64::new(0),
        })
    }

    pub(crate) fn state(&self) -> ShardState {
        match self.state.load(Ordering::Acquire) {
            0 => ShardState::Opening,
            1 => ShardState::Open,
            2 => ShardState::Quarantined,
            3 => ShardState::Closed,
            _ => ShardState::Absent,
        }
    }

    /// Whether it is out of service.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.state() == ShardState::Quarantined
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.state() == ShardState::Absent
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Has new tasks go to it from now on, or not.
    pub(crate) fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }

    pub(crate) fn set_state(&self, state: ShardState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Says whether it has nothing to do. What comes next wakes it up, whatever this says.
    pub(crate) fn set_asleep(&self, sleeps: bool) {
        self.sleeps.store(sleeps, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn is_asleep(&self) -> bool {
        self.sleeps.load(Ordering::Relaxed)
    }

    /// Wakes its thread up before there is something for it, if it sleeps, and tells whether it did:
    /// an idle core takes longer to wake up than a submission to be checked. Until it sleeps again it
    /// isn't told once more.
    pub(crate) fn rouse(&self) -> bool {
        let slept =
            self.sleeps.load(Ordering::Relaxed) && self.sleeps.swap(false, Ordering::Relaxed);
        if slept {
            #[cfg(test)]
            self.roused.fetch_add(1, Ordering::SeqCst);
            self.link.send(super::messages::Rouse);
        }
        slept
    }

    /// A batch begins. It hasn't asked yet whether it may claim, so whoever ends claiming and then
    /// sees no batch has seen the last claim.
    pub(crate) fn flush_begins(&self) {
        self.flushing.fetch_add(1, Ordering::SeqCst);
    }

    /// A batch is over, and what it did is in this ledger.
    pub(crate) fn flush_is_over(&self) {
        self.flushing.fetch_sub(1, Ordering::SeqCst);
    }

    /// The actor has ended, in a batch or not.
    pub(crate) fn no_flush(&self) {
        self.flushing.store(0, Ordering::SeqCst);
        self.gauges.commit_is_over();
    }

    pub(crate) fn attempts(&self) -> MutexGuard<'_, BySequence<Arc<Attempt>>> {
        lock(&self.attempts)
    }

    pub(crate) fn delivering(&self) -> MutexGuard<'_, Sequences> {
        lock(&self.delivering)
    }

    /// How many results are between the shard and the mailboxes that keep them.
    pub(crate) fn results_on_their_way(&self) -> usize {
        self.delivering().len().saturating_sub(self.kept_results.load(Ordering::SeqCst))
    }

    /// Bytes of results that the CallbackActor hasn't taken over yet.
    pub(crate) fn result_bytes(&self) -> usize {
        self.result_bytes.load(Ordering::SeqCst)
    }

    /// So many results more, or less, are kept for mailboxes.
    pub(crate) fn results_kept(&self, by: isize) {
        let change = |kept: usize| Some(kept.saturating_add_signed(by));
        // the closure always gives a number
        let _ = self.kept_results.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
    }

    /// Says whether results wait in the file. Whoever makes room for them looks, and wakes the
    /// shard; the shard looks for room once more after it has said so.
    pub(crate) fn set_undelivered(&self, undelivered: bool) {
        self.undelivered.store(undelivered, Ordering::SeqCst);
    }

    pub(crate) fn has_undelivered(&self) -> bool {
        self.undelivered.load(Ordering::SeqCst)
    }

    pub(crate) fn targets(&self) -> MutexGuard<'_, BySequence<Vec<Target>>> {
        lock(&self.targets)
    }

    pub(crate) fn cached(&self) -> MutexGuard<'_, BySequence<Arc<dyn CachedInput>>> {
        lock(&self.cached)
    }

    pub(crate) fn watchers(&self) -> MutexGuard<'_, Watchers> {
        lock(&self.watchers)
    }

    /// Submissions whose commit's outcome is unknown, and why.
    pub(crate) fn unanswered(&self) -> MutexGuard<'_, Vec<(Answer, StoreError)>> {
        lock(&self.unanswered)
    }

    /// Whether nothing of the shard is under way in this process.
    pub(crate) fn is_quiet(&self) -> bool {
        self.flushing.load(Ordering::SeqCst) == 0
            && self.gauges.incoming.load(Ordering::SeqCst) == 0
            && self.attempts().is_empty()
            && self.finishes.is_empty()
            && self.delivered.is_empty()
            && self.delivering().is_empty()
    }
}

impl Memory for ShardLedger {
    fn attempt_lives(&self, id: TaskId, claim_no: u32) -> bool {
        let attempts = self.attempts();
        let attempt = attempts.get(&id.sequence());
        attempt.is_some_and(|attempt| attempt.counters.claim_no == claim_no)
    }

    fn delivery_lives(&self, id: TaskId) -> bool {
        self.delivering().contains(&id.sequence())
    }
}
