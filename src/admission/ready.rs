//! A limit on tasks that haven't started, over all shards.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{AcquireError, Notify, Semaphore};

/// Counts what is stored and hasn't started, and what is coming. Those who wait for room stand in a
/// line; only its head looks, whenever something has changed.
#[derive(Debug)]
pub(super) struct Ready {
    limit: usize,
    /// Tasks in the files that haven't started, as the shards said last.
    stored: AtomicUsize,
    /// Submissions that were let in and may not be among the stored yet.
    coming: Mutex<usize>,
    /// How many stand in the line, the head among them.
    waiting: AtomicUsize,
    line: Semaphore,
    changed: Notify,
}

/// Submissions on their way. They leave the count when this is dropped.
#[derive(Debug)]
pub(super) struct Coming {
    ready: Arc<Ready>,
    tasks: usize,
}

/// A place in the line.
struct Place<'a>(&'a Ready);

impl Ready {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Ready {
            limit,
            stored: AtomicUsize::new(0),
            coming: Mutex::new(0),
            waiting: AtomicUsize::new(0),
            line: Semaphore::new(1),
            changed: Notify::new(),
        })
    }

    fn coming(&self) -> MutexGuard<'_, usize> {
        // a plain number: a panic under the lock leaves it usable
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `tasks` in if they fit. More than the limit fit where nothing else is: else they never
    /// would.
    fn take(self: &Arc<Self>, tasks: usize) -> Option<Coming> {
        let mut coming = self.coming();
        let there = self.stored.load(Ordering::Acquire) + *coming;
        if there > 0 && there.saturating_add(tasks) > self.limit {
            return None;
        }
        *coming += tasks;
        Some(Coming { ready: self.clone(), tasks })
    }

    /// Lets `tasks` in at once or not at all. Nobody overtakes those who wait.
    pub(super) fn try_enter(self: &Arc<Self>, tasks: usize) -> Option<Coming> {
        if self.waiting.load(Ordering::Acquire) > 0 { None } else { self.take(tasks) }
    }

    pub(super) async fn enter(self: &Arc<Self>, tasks: usize) -> Result<Coming, AcquireError> {
        if let Some(coming) = self.try_enter(tasks) {
            return Ok(coming);
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _place = Place(self);
        let _head = self.line.acquire().await?;
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // from here on no change is missed
            changed.as_mut().enable();
            if self.line.is_closed() {
                // gives the error of a line that is closed
                let _closed = self.line.acquire().await?;
            }
            if let Some(coming) = self.take(tasks) {
                return Ok(coming);
            }
            changed.await;
        }
    }

    pub(super) fn moved(&self, before: usize, now: usize) {
        if now > before {
            self.stored.fetch_add(now - before, Ordering::AcqRel);
        } else if now < before {
            self.stored.fetch_sub(before - now, Ordering::AcqRel);
            self.changed.notify_waiters();
        }
    }

    /// By how many tasks too many there would be with so many more: one at least where others wait in
    /// line, whom nobody overtakes.
    pub(super) fn excess(&self, tasks: usize) -> usize {
        let there = self.stored.load(Ordering::Acquire) + *self.coming();
        let waits = usize::from(self.waiting.load(Ordering::Acquire) > 0);
        there.saturating_add(tasks).saturating_sub(self.limit).min(there).max(waits)
    }

    pub(super) fn close(&self) {
        self.line.close();
        self.changed.notify_waiters();
    }
}

impl Coming {
    pub(super) fn merge(&mut self, mut other: Coming) {
        self.tasks += std::mem::take(&mut other.tasks);
    }

    pub(super) fn split(&mut self, tasks: usize) -> Coming {
        let tasks = tasks.min(self.tasks);
        self.tasks -= tasks;
        Coming { ready: self.ready.clone(), tasks }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if self.tasks > 0 {
            *self.ready.coming() -= self.tasks;
            self.ready.changed.notify_waiters();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
