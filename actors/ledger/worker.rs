//! What outlives a Worker.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

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
    queue: Mutex<VecDeque<Arc<Attempt>>>,
    /// Async attempts in progress; blocking ones run on threads of the pool.
    pub(crate) running: AtomicUsize,
    /// Attempts that are over and aren't reported yet.
    done: Mutex<Vec<Done>>,
    /// Whether the worker has been told to report.
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

    pub(crate) fn queue(&self) -> MutexGuard<'_, VecDeque<Arc<Attempt>>> {
        lock(&self.queue)
    }

    /// Lets attempts wait for a slot: they start in the order in which tasks are claimed, so an urgent
    /// one doesn't wait for those that were claimed ahead of it.
    pub(crate) fn enqueue(&self, attempts: Vec<Arc<Attempt>>) {
        let Some(first) = attempts.first().map(|attempt| attempt.rank) else { return };
        let mut queue = self.queue();
        let from = queue.partition_point(|waiting| waiting.rank <= first);
        let passes = from < queue.len();
        queue.extend(attempts);
        if passes {
            // two stretches, each in order: the sort merges them, and keeps what is equal as it came
            queue.make_contiguous()[from..].sort_by_key(|attempt| attempt.rank);
        }
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

#[cfg(test)]
mod tests {
    use message_queue_sqlite_macros::task;

    use super::*;
    use crate::attempt::{Input, tests::attempt};
    use crate::record::ShardId;
    use crate::registry::{Definition, Place};
    use crate::task::TaskError;

    #[task]
    async fn nothing() -> Result<(), TaskError> {
        Ok(())
    }

    /// Attempts of these ranks, numbered from this one on.
    fn ranked(first: u64, ranks: &[i64]) -> Vec<Arc<Attempt>> {
        let place = Place { module_path: "", file: "worker.rs", line: 1 };
        let one = |(sequence, rank): (u64, &i64)| {
            let attempt = attempt(Definition::of_task::<nothing::Task>(place), Input::Cached(None));
            let id = TaskId::new(ShardId(0), sequence);
            Arc::new(Attempt { id, rank: *rank, ..attempt })
        };
        (first..).zip(ranks).map(one).collect()
    }

    #[test]
    fn what_waits_in_a_worker_starts_in_the_order_of_claims() {
        let worker = WorkerLedger::new(0);
        worker.enqueue(Vec::new());
        worker.enqueue(ranked(0, &[10, 20, 20, 30]));
        // in front of all, between two, behind an equal, and at the end
        worker.enqueue(ranked(4, &[5, 15, 20, 40]));
        worker.enqueue(ranked(8, &[1]));
        worker.enqueue(ranked(9, &[40]));
        let waiting: Vec<u64> = worker.queue().iter().map(|one| one.id.sequence()).collect();
        assert_eq!(waiting, [8, 4, 0, 5, 1, 2, 6, 3, 7, 9]);
    }
}
