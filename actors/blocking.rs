//! The threads that run blocking attempts.
//!
//! A pool of our own: its size is bounded, a panic costs it no thread, and a shutdown can leave a
//! thread behind that doesn't come back, which a runtime's pool would wait for without limit.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

type Job = Box<dyn FnOnce() + Send>;

/// A bounded pool of threads, started as they are needed.
pub(crate) struct BlockingPool {
    shared: Arc<Shared>,
    threads_max: usize,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
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
        BlockingPool { shared: Arc::new(shared), threads_max }
    }

    /// Runs a job on one of the threads. The job must not panic: it catches what it calls.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() || state.threads.len() >= self.threads_max {
            self.shared.work.notify_one();
            return;
        }
        let shared = self.shared.clone();
        let name = format!("mqs-blocking-{}", state.threads.len());
        match thread::Builder::new().name(name).spawn(move || work(&shared)) {
            Ok(thread) => state.threads.push(thread),
            Err(error) if state.threads.is_empty() => {
                tracing::error!(%error, "cannot start a thread; blocking tasks wait");
            }
            Err(error) => tracing::warn!(%error, "cannot start another thread"),
        }
    }

    /// Ends the threads that have nothing to do and returns whether all have ended. A thread that
    /// still runs a job ends after it.
    pub(crate) fn close(&self) -> bool {
        let threads = {
            let mut state = self.shared.lock();
            state.closed = true;
            state.jobs.clear();
            self.shared.work.notify_all();
            let busy = state.threads.len() - state.idle;
            if busy > 0 {
                return false;
            }
            std::mem::take(&mut state.threads)
        };
        threads.into_iter().all(|thread| thread.join().is_ok())
    }
}

fn work(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            state = shared.lock();
        } else if state.closed {
            // counted as idle, so that a close that comes now joins this thread
            state.idle += 1;
            return;
        } else {
            state.idle += 1;
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl fmt::Debug for BlockingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        write!(f, "BlockingPool({} threads, {} idle)", state.threads.len(), state.idle)
    }
}
