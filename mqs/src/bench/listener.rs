//! The subscribed mailbox of a round: it counts results, and times some of them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use actix::Handler;
use message_queue_sqlite::prelude::*;
use tokio::sync::watch;

use super::AnyError;
use super::measure::{Latency, micros};
use super::world::sample_of;

/// One task in so many is timed: timing takes time.
pub(crate) const SAMPLE_EVERY: usize = 64;

/// After how many results the time is noted.
pub(crate) const TICK: usize = 64;

/// A subscribed mailbox.
struct Mailbox {
    shared: Arc<Shared>,
}

impl Actor for Mailbox {
    type Context = Context<Self>;
}

impl Handler<TaskResult> for Mailbox {
    type Result = ();

    fn handle(&mut self, result: TaskResult, _: &mut Context<Self>) {
        if !result.is_finished() {
            self.shared.fail(format!("task {} ended as {:?}", result.id(), result.outcome()));
        }
        if let Some(sample) = sample_of(&result) {
            self.shared.arrived(sample);
        }
        let seen = self.shared.seen.fetch_add(1, Ordering::SeqCst) + 1;
        if seen.is_multiple_of(TICK) {
            lock(&self.shared.ticks).push(Instant::now());
        }
        if seen == self.shared.awaited.load(Ordering::SeqCst) {
            self.shared.all.send_replace(seen);
        }
    }
}

/// What the mailbox and its listener share.
struct Shared {
    seen: AtomicUsize,
    /// How many results are waited for.
    awaited: AtomicUsize,
    /// How many had come when that was waited for; the largest number after a failure.
    all: watch::Sender<usize>,
    failure: Mutex<Option<String>>,
    ticks: Mutex<Vec<Instant>>,
    began: Instant,
    /// When each timed task was sent, in nanoseconds since `began`.
    sent: Vec<AtomicU64>,
    submit_us: Mutex<Vec<f64>>,
    e2e_us: Mutex<Vec<f64>>,
}

impl Shared {
    /// Ends the waiting, for something will never come.
    fn fail(&self, why: String) {
        lock(&self.failure).get_or_insert(why);
        self.all.send_replace(usize::MAX);
    }

    fn arrived(&self, sample: usize) {
        if let Some(took) = self.since_sent(sample) {
            lock(&self.e2e_us).push(took);
        }
    }

    fn since_sent(&self, sample: usize) -> Option<f64> {
        let sent = std::time::Duration::from_nanos(self.sent.get(sample)?.load(Ordering::Acquire));
        Some(micros(self.began.elapsed().saturating_sub(sent)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears of results. Clones are the same.
#[derive(Clone)]
pub(crate) struct Listener {
    shared: Arc<Shared>,
}

impl Listener {
    /// For tasks of which up to so many are timed.
    pub(crate) fn new(samples: usize) -> Self {
        let shared = Shared {
            seen: AtomicUsize::new(0),
            awaited: AtomicUsize::new(usize::MAX),
            all: watch::Sender::new(0),
            failure: Mutex::default(),
            ticks: Mutex::default(),
            began: Instant::now(),
            sent: std::iter::repeat_with(AtomicU64::default).take(samples).collect(),
            submit_us: Mutex::default(),
            e2e_us: Mutex::default(),
        };
        Listener { shared: Arc::new(shared) }
    }

    /// Starts a mailbox on this thread.
    pub(crate) fn mailbox(&self) -> Recipient<TaskResult> {
        Mailbox { shared: self.shared.clone() }.start().recipient()
    }

    /// A timed task is sent now.
    pub(crate) fn sent(&self, sample: usize) {
        let now = self.shared.began.elapsed().as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.shared.sent[sample].store(now, Ordering::Release);
    }

    /// A timed task's id has come: it is stored.
    pub(crate) fn stored(&self, sample: usize) {
        if let Some(took) = self.shared.since_sent(sample) {
            lock(&self.shared.submit_us).push(took);
        }
    }

    /// How many results have come.
    pub(crate) fn seen(&self) -> usize {
        self.shared.seen.load(Ordering::SeqCst)
    }

    /// A submission failed, and nobody waits for it.
    pub(crate) fn fail(&self, why: String) {
        self.shared.fail(why);
    }

    /// Waits until so many results have come since the listener was made. One caller at a time.
    ///
    /// # Errors
    ///
    /// A submission or a task failed, so some would never come.
    pub(crate) async fn until(&self, results: usize) -> Result<(), AnyError> {
        let mut all = self.shared.all.subscribe();
        self.shared.awaited.store(results, Ordering::SeqCst);
        if self.seen() < results {
            // the sender is ours, so it lives
            let _ = all.wait_for(|seen| *seen >= results).await;
        }
        self.check()
    }

    /// Whether all went well so far.
    pub(crate) fn check(&self) -> Result<(), AnyError> {
        lock(&self.shared.failure).take().map_or(Ok(()), |why| Err(why.into()))
    }

    /// How many seconds lay between two results, whose numbers are multiples of [`TICK`].
    pub(crate) fn seconds_between(&self, first: usize, last: usize) -> Option<f64> {
        let ticks = lock(&self.shared.ticks);
        let at = |result: usize| ticks.get((result / TICK).checked_sub(1)?);
        Some(at(last)?.duration_since(*at(first)?).as_secs_f64())
    }

    /// From sending to the id, and from sending to the result's arrival.
    pub(crate) fn latencies(&self) -> (Option<Latency>, Option<Latency>) {
        let take = |micros: &Mutex<Vec<f64>>| Latency::of(std::mem::take(&mut *lock(micros)));
        (take(&self.shared.submit_us), take(&self.shared.e2e_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::world::block_on;

    #[test]
    fn whoever_waits_for_results_that_will_never_come_is_told() {
        let waited = block_on(async {
            let listener = Listener::new(0);
            let other = listener.clone();
            actix_rt::spawn(async move { other.fail("the disk is full".into()) });
            // a failing test ends, too
            actix_rt::time::timeout(Duration::from_secs(60), listener.until(1)).await?
        });
        assert_eq!(waited.unwrap_err().to_string(), "the disk is full");
    }

    #[test]
    fn a_timed_task_is_timed_from_its_sending() {
        let listener = Listener::new(2);
        listener.sent(1);
        listener.stored(1);
        let (submit, e2e) = listener.latencies();
        assert!(submit.unwrap().p50_us <= micros(listener.shared.began.elapsed()));
        assert_eq!(e2e, None);
    }
}
