//! All of a queue on one thread, under tokio's clock: with a paused one, the same again each time.

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};

thread_local! {
    /// When the simulation of this thread began, by tokio's clock and by the queue's.
    static BEGAN: Cell<Option<(Instant, Timestamp)>> = const { Cell::new(None) };
    /// How long a commit may wait, in milliseconds, before and after it is done.
    static DAWDLES_MS: Cell<u64> = const { Cell::new(0) };
}

/// Whether queues that are started on this thread have all their actors on it.
pub(crate) fn on_one_thread() -> bool {
    BEGAN.get().is_some()
}

/// Lets a commit take its time, if it is to.
pub(crate) async fn dawdle() {
    if on_one_thread() && DAWDLES_MS.get() > 0 && fastrand::bool() {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=DAWDLES_MS.get()))).await;
    }
}

/// As long as it lives, queues that are started on this thread have all their actors on it, as tasks
/// of its `LocalSet`, and no thread of their own. Dropping that set ends them as a crash would.
///
/// Blocking tasks still have their threads.
#[derive(Debug)]
#[must_use = "the simulation ends when this is dropped"]
pub struct Simulation {
    /// It is about its thread.
    _not_send: PhantomData<*const ()>,
}

impl Simulation {
    /// Begins one at this time. Retries have the pauses that follow from `seed`.
    pub fn begin(at: Timestamp, seed: u64) -> Self {
        BEGAN.set(Some((Instant::now(), at)));
        fastrand::seed(seed);
        Simulation { _not_send: PhantomData }
    }

    /// Lets every second commit wait for up to this long before it is done, and after that before
    /// anybody knows.
    pub fn slow_commits(&self, most: Duration) {
        DAWDLES_MS.set(u64::try_from(most.as_millis()).unwrap_or(u64::MAX));
    }

    /// A clock that goes with tokio's.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock::simulated(now)
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        BEGAN.set(None);
        DAWDLES_MS.set(0);
    }
}

fn now() -> Timestamp {
    let (began, at) = BEGAN.get().expect("the clock is of a simulation of this thread");
    at.saturating_add(began.elapsed())
}
