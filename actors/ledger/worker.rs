//! What outlives a Worker.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::waiting::Waiting;
use super::{Done, Link, RunBatch, lock};
use crate::actors::messages::Wake;
use crate::actors::outbox::{Once, Outbox};
use crate::actors::worker::Worker;
use crate::attempt::Attempt;
use crate::record::TaskId;

/// A blocking attempt that was handed to the pool.
#[derive(Debug)]
pub(crate) struct Blocking {
    pub(crate) attempt: Arc<Attempt>,
    /// Whether it has got a thread.
    pub(crate) runs: bool,
}

/// What lives in memory about one worker.
#[derive(Debug)]
pub(crate) struct WorkerLedger {
    pub(crate) index: usize,
    pub(crate) link: Link<Worker>,
    pub(crate) runs: Outbox<Once<RunBatch>>,
    /// Attempts that wait for a slot of this worker.
    queue: Mutex<Waiting>,
    /// Async attempts in progress; blocking ones run on threads of the pool.
    pub(crate) running: AtomicUsize,
    /// Attempts that are over and aren't reported yet.
    done: Mutex<Vec<Done>>,
    /// Whether the worker has been told that there is something to do.
    pub(crate) armed: AtomicBool,
    /// How to end an async attempt that runs.
    aborts: Mutex<BTreeMap<TaskId, tokio::task::AbortHandle>>,
    /// Blocking attempts that were handed to the pool.
    blocking: Mutex<HashMap<TaskId, Blocking>>,
}

impl WorkerLedger {
    pub(crate) fn new(index: usize) -> Arc<Self> {
        Arc::new(WorkerLedger {
            index,
            link: Link::new(),
            runs: Outbox::new(),
            queue: Mutex::default(),
            running: AtomicUsize::new(0),
            done: Mutex::default(),
            armed: AtomicBool::new(false),
            aborts: Mutex::default(),
            blocking: Mutex::default(),
        })
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.queue)
    }

    /// Lets attempts wait for a slot; they are in the order of their ranks.
    pub(crate) fn enqueue(&self, attempts: Vec<Arc<Attempt>>) {
        self.queue().add(attempts, self.running.load(Ordering::Acquire));
    }

    pub(crate) fn aborts(&self) -> MutexGuard<'_, BTreeMap<TaskId, tokio::task::AbortHandle>> {
        lock(&self.aborts)
    }

    pub(crate) fn blocking(&self) -> MutexGuard<'_, HashMap<TaskId, Blocking>> {
        lock(&self.blocking)
    }

    /// Notes an attempt's end and tells the worker, unless it has been told.
    pub(crate) fn report(&self, done: Done) {
        lock(&self.done).push(done);
        self.wake();
    }

    /// Has the worker look at what there is to do, unless it has been told.
    pub(crate) fn wake(&self) {
        if !self.armed.swap(true, Ordering::AcqRel) {
            self.link.send(Wake);
        }
    }

    /// Notes the end of an attempt that the worker ran itself, and will report itself.
    pub(crate) fn keep(&self, done: Done) {
        lock(&self.done).push(done);
    }

    pub(crate) fn take_done(&self) -> Vec<Done> {
        std::mem::take(&mut *lock(&self.done))
    }
}
