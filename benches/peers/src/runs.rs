//! Which tasks ran, how often and when.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How many bytes a task's argument has, before a peer encodes it.
pub const PAYLOAD: usize = 150;

/// How many of them are its number.
const DIGITS: usize = 20;

/// The rest.
const FILLER: &str = {
    const BYTES: &[u8] = &[b'x'; PAYLOAD - DIGITS];
    match str::from_utf8(BYTES) {
        Ok(filler) => filler,
        Err(_) => unreachable!(),
    }
};

/// The argument of a task: its number, and what makes it as long as all others.
pub fn payload(index: usize) -> String {
    let mut text = String::with_capacity(PAYLOAD);
    // nothing can fail to be written there
    let _ = write!(text, "{index:0>DIGITS$}");
    text.push_str(FILLER);
    text
}

/// The number of the task that has this argument.
///
/// # Panics
///
/// Panics for an argument that [`payload`] didn't make: the peer changed it.
pub fn index(payload: &str) -> usize {
    payload[..DIGITS].parse().expect("a payload begins with the number of its task")
}

/// Counts what ran. There is one in a process, since some peers' tasks can't be given anything.
#[derive(Debug)]
pub struct Runs {
    began: Instant,
    times: Vec<AtomicU32>,
    /// When each first ran, in nanoseconds since `began`.
    started: Vec<AtomicU64>,
    /// Whether nothing more can run for the first time.
    all_ran: watch::Sender<bool>,
    /// How many ran at least once, or were refused.
    settled: AtomicUsize,
    refused: Mutex<(usize, Option<String>)>,
    expected: usize,
    done: watch::Sender<usize>,
}

static RUNS: OnceLock<Runs> = OnceLock::new();

impl Runs {
    /// For tasks with numbers below `expected`.
    pub fn new(expected: usize) -> Runs {
        Runs {
            began: Instant::now(),
            times: std::iter::repeat_with(AtomicU32::default).take(expected).collect(),
            started: std::iter::repeat_with(AtomicU64::default).take(expected).collect(),
            all_ran: watch::Sender::new(false),
            settled: AtomicUsize::new(0),
            refused: Mutex::default(),
            expected,
            done: watch::Sender::new(0),
        }
    }

    /// Sets up the process's own.
    ///
    /// # Panics
    ///
    /// Panics the second time.
    pub fn set_up(expected: usize) -> &'static Runs {
        assert!(RUNS.set(Runs::new(expected)).is_ok(), "a process runs one round");
        Runs::here()
    }

    /// The process's own.
    ///
    /// # Panics
    ///
    /// Panics before [`Runs::set_up`].
    pub fn here() -> &'static Runs {
        RUNS.get().expect("a round is set up before anything runs")
    }

    /// A task runs, with this argument.
    pub fn ran(&self, payload: &str) {
        let index = index(payload);
        if self.times[index].fetch_add(1, Ordering::SeqCst) > 0 {
            return;
        }
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.started[index].store(now, Ordering::SeqCst);
        self.settle();
    }

    /// A submission failed, so its task will never run.
    pub fn refused(&self, error: String) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.0 += 1;
        refused.1.get_or_insert(error);
        drop(refused);
        self.settle();
    }

    /// How many submissions failed, and the first error.
    pub fn refusals(&self) -> (usize, Option<String>) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn settle(&self) {
        if self.settled.fetch_add(1, Ordering::SeqCst) + 1 == self.expected {
            self.all_ran.send_replace(true);
        }
    }

    /// One more task is recorded as done. Only peers that tell call this, and only in `latency`.
    pub fn done(&self) {
        self.done.send_modify(|done| *done += 1);
    }

    /// Waits until so many are recorded as done.
    pub async fn until_done(&self, tasks: usize) {
        // the sender is our own
        let _ = self.done.subscribe().wait_for(|done| *done >= tasks).await;
    }

    /// Waits until each task that wasn't refused has run.
    pub async fn until_all_ran(&self) {
        let _ = self.all_ran.subscribe().wait_for(|all| *all).await;
    }

    /// When a task first ran.
    pub fn started(&self, index: usize) -> Instant {
        self.began + Duration::from_nanos(self.started[index].load(Ordering::SeqCst))
    }

    /// Of the first so many tasks: those that never ran, and the runs too many.
    pub fn missing_and_duplicates(&self, tasks: usize) -> (usize, u64) {
        let times = self.times[..tasks].iter().map(|times| times.load(Ordering::SeqCst));
        times.fold((0, 0), |(missing, duplicates), times| match times {
            0 => (missing + 1, duplicates),
            more => (missing, duplicates + u64::from(more - 1)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_length_and_its_number() {
        for number in [0, 1, 4_711, 5_000_000] {
            assert_eq!(payload(number).len(), PAYLOAD);
            assert_eq!(index(&payload(number)), number);
        }
    }

    #[test]
    fn a_task_that_runs_twice_and_one_that_never_runs_are_told_apart() {
        let runs = Runs::new(4);
        for index in [0, 1, 1, 1, 3] {
            runs.ran(&payload(index));
        }
        assert_eq!(runs.missing_and_duplicates(4), (1, 2));
        assert_eq!(runs.missing_and_duplicates(1), (0, 0));
    }

    #[tokio::test]
    async fn a_refused_task_is_not_waited_for_and_a_duplicate_is_not_the_last_one() {
        let runs = Runs::new(2);
        runs.ran(&payload(0));
        runs.ran(&payload(0));
        let soon = Duration::from_millis(1);
        assert!(tokio::time::timeout(soon, runs.until_all_ran()).await.is_err());
        runs.refused("full".into());
        tokio::time::timeout(Duration::from_secs(60), runs.until_all_ran()).await.unwrap();
    }
}
