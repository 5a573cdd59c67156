//! The threads that run blocking attempts.
//!
//! A pool of our own: its size is bounded, a panic costs it no thread, and a shutdown can leave a
//! thread behind that doesn't come back, which a runtime's pool would wait for without limit.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::queues::QueueIndex;
use crate::store::Threads;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A bounded pool of threads, started as they are needed.
pub(crate) struct BlockingPool {
    shared: Arc<Shared>,
    threads_max: usize,
    claimed: Mutex<Claimed>,
}

/// Blocking attempts that were claimed and aren't over, whether they have a thread or wait for one.
#[derive(Debug, Default)]
struct Claimed {
    attempts: usize,
    /// How long they take in all, as far as is known, in nanoseconds.
    load_ns: u64,
}

/// Why a job wasn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no thread to run it, and none can be started.
    NoThread,
    /// It was no longer wanted.
    NotWanted,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    /// Each with the queue of its task.
    jobs: VecDeque<(QueueIndex, Job)>,
    idle: usize,
    threads: Vec<Thread>,
    closed: bool,
    /// How many starts of threads are to fail, for tests.
    #[cfg(test)]
    failures: usize,
}

struct Thread {
    handle: JoinHandle<()>,
    /// Whether it runs a job, and so may not come back.
    busy: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // jobs run outside the lock
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockingPool {
    pub(crate) fn new(threads_max: usize) -> Self {
        let shared = Shared { state: Mutex::default(), work: Condvar::new() };
        BlockingPool { shared: Arc::new(shared), threads_max, claimed: Mutex::default() }
    }

    fn lock_claimed(&self) -> MutexGuard<'_, Claimed> {
        // every critical section below leaves the counts consistent
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many attempts are on their way here, which take so long in all.
    pub(crate) fn add_claimed(&self, attempts: usize, load_ns: u64) {
        let mut claimed = self.lock_claimed();
        claimed.attempts += attempts;
        claimed.load_ns = claimed.load_ns.saturating_add(load_ns);
    }

    /// So many attempts are over.
    pub(crate) fn remove_claimed(&self, attempts: usize, load_ns: u64) {
        let mut claimed = self.lock_claimed();
        claimed.attempts = claimed.attempts.saturating_sub(attempts);
        claimed.load_ns = claimed.load_ns.saturating_sub(load_ns);
    }

    /// What more may be claimed that has a thread within so many nanoseconds: what waits for one, with
    /// the next, is to be no more than the threads get through in that time (Little's law). An attempt
    /// that holds its thread for long counts with the others' mean.
    pub(crate) fn within(&self, within_ns: u64) -> Threads {
        let claimed = self.lock_claimed();
        let free = self.threads_max.saturating_sub(claimed.attempts);
        let next = (claimed.attempts + 1).saturating_sub(self.threads_max).max(1);
        let mean_ns = claimed.load_ns / (claimed.attempts as u64).max(1);
        let all_ns = within_ns.saturating_mul(self.threads_max as u64);
        let behind_ns = all_ns.saturating_sub(mean_ns.saturating_mul(next as u64));
        Threads { free, behind_ns }
    }

    /// Runs a job on one of the threads, for a task of this queue, if it is still wanted when it is to
    /// stand in line: so a [`take`](Self::take) after that has changed misses none. The job must not
    /// panic: it catches what it calls.
    ///
    /// # Errors
    ///
    /// It isn't wanted; or there is no thread and none can be started: nobody would take it up before
    /// the next job comes. The job is dropped.
    pub(crate) fn run(
        &self,
        queue: QueueIndex,
        is_wanted: impl FnOnce() -> bool,
        job: impl FnOnce() + Send + 'static,
    ) -> Result<(), Refusal> {
        let mut state = self.shared.lock();
        if !is_wanted() {
            drop(state);
            return Err(Refusal::NotWanted);
        }
        state.jobs.push_back((queue, Box::new(job)));
        if state.idle >= state.jobs.len() || state.threads.len() >= self.threads_max {
            self.shared.work.notify_one();
            return Ok(());
        }
        match self.start_thread(&mut state) {
            Ok(handle) => state.threads.push(Thread { handle, busy: false }),
            Err(error) if state.threads.is_empty() => {
                let refused = state.jobs.pop_back();
                drop(state);
                // outside the lock: it owns values of the program's
                drop(refused);
                tracing::error!(%error, "cannot start a thread for blocking tasks");
                return Err(Refusal::NoThread);
            }
            Err(error) => tracing::warn!(%error, "cannot start another thread"),
        }
        Ok(())
    }

    /// Takes out those jobs of a queue's tasks that wait for a thread.
    pub(crate) fn take(&self, queue: QueueIndex) -> impl Iterator<Item = Job> + use<> {
        let mut state = self.shared.lock();
        let all = std::mem::take(&mut state.jobs).into_iter();
        let (taken, left): (VecDeque<_>, _) = all.partition(|(of, _)| *of == queue);
        state.jobs = left;
        taken.into_iter().map(|(_, job)| job)
    }

    fn start_thread(&self, state: &mut State) -> io::Result<JoinHandle<()>> {
        #[cfg(test)]
        if let Some(left) = state.failures.checked_sub(1) {
            state.failures = left;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (shared, number) = (self.shared.clone(), state.threads.len());
        thread::Builder::new()
            .name(format!("mqs-blocking-{number}"))
            .spawn(move || work(&shared, number))
    }

    /// Ends the threads that have nothing to do and returns whether all have ended. A thread that
    /// still runs a job ends after it.
    pub(crate) fn close(&self) -> bool {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.work.notify_all();
        let jobs = std::mem::take(&mut state.jobs);
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        drop(jobs);
        let (busy, others): (Vec<_>, Vec<_>) = threads.into_iter().partition(|thread| thread.busy);
        let joined =
            others.into_iter().filter_map(|thread| thread.handle.join().err()).count() == 0;
        joined && busy.is_empty()
    }
}

fn work(shared: &Shared, number: usize) {
    let mut state = shared.lock();
    loop {
        if let Some((_, job)) = state.jobs.pop_front() {
            state.mark(number, true);
            drop(state);
            job();
            state = shared.lock();
            state.mark(number, false);
        } else if state.closed {
            return;
        } else {
            state.idle += 1;
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl State {
    fn mark(&mut self, number: usize, busy: bool) {
        // after a close nobody asks any more
        if let Some(thread) = self.threads.get_mut(number) {
            thread.busy = busy;
        }
    }
}

impl fmt::Debug for BlockingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        write!(f, "BlockingPool({} threads, {} idle)", state.threads.len(), state.idle)
    }
}

#[cfg(test)]
impl BlockingPool {
    pub(crate) fn claimed(&self) -> (usize, u64) {
        let claimed = self.lock_claimed();
        (claimed.attempts, claimed.load_ns)
    }

    /// How many jobs wait for a thread.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.lock().jobs.len()
    }

    /// Makes the next starts of threads fail.
    pub(crate) fn fail_to_start(&self, times: usize) {
        self.shared.lock().failures = times;
    }
}

#[cfg(test)]
mod tests;
