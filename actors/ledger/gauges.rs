//! What a shard's actors measure of it, for all to read: what routing goes by.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::load::{Commits, ShardLoad, Smoothed};

/// How long a refused batch counts against its shard, the first of several in a row; with each of them it
/// doubles, up to the second. Then it is tried again, and may take some submissions with it.
const FAILING_FOR: Duration = Duration::from_secs(1);
const FAILING_FOR_MAX: Duration = Duration::from_secs(16);

/// What a shard has done since the queue began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    /// Submissions that were stored, and how long all of them together had waited for that.
    pub(crate) stored: f64,
    pub(crate) waited_s: f64,
    /// How long it was in commits, how long of that in syncs, and how many commits those were.
    pub(crate) committing_s: f64,
    pub(crate) syncing_s: f64,
    pub(crate) commits: f64,
}

/// A shard's load as it was last measured.
#[derive(Debug)]
pub(crate) struct Gauges {
    /// Submissions that are on their way to it or not answered yet.
    pub(crate) incoming: AtomicUsize,
    /// The KiB of those among them that are large.
    pub(crate) incoming_kib: AtomicUsize,
    /// Rows that are ready and may run, as far as is known: those of paused queues don't count.
    pub(crate) ready: AtomicUsize,
    /// Tasks in the file that haven't started.
    pub(crate) not_started: AtomicUsize,
    /// Attempts that run or wait in a worker.
    pub(crate) running: AtomicUsize,
    /// Smoothed times in seconds and counts, as the bits of an `f64`.
    commit_s: AtomicU64,
    sync_s: AtomicU64,
    commit_rows: AtomicU64,
    service_s: AtomicU64,
    /// Since the queue began: submissions stored, how long all of them together waited for that, and
    /// how long commits and their syncs took, in microseconds, and how many there were.
    stored: AtomicU64,
    waited_us: AtomicU64,
    committing_us: AtomicU64,
    syncing_us: AtomicU64,
    commits: AtomicU64,
    since: Instant,
    /// When the last commit was measured, in microseconds after `since`.
    measured_at: AtomicU64,
    /// When the commit that is under way began, in microseconds after `since`; 0 is none.
    began_at: AtomicU64,
    /// Submissions that came this far and weren't stored, since the start.
    pub(crate) refused: AtomicU64,
    /// When a batch was refused last, in milliseconds after `since`; 0 is never.
    failed_at: AtomicU64,
    /// How many were refused in a row.
    failures: AtomicU32,
}

impl Gauges {
    pub(crate) fn new() -> Self {
        Gauges {
            incoming: AtomicUsize::new(0),
            incoming_kib: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            not_started: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            commit_s: AtomicU64::new(0),
            sync_s: AtomicU64::new(0),
            commit_rows: AtomicU64::new(0),
            service_s: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
            committing_us: AtomicU64::new(0),
            syncing_us: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            since: Instant::now(),
            measured_at: AtomicU64::new(0),
            began_at: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed_at: AtomicU64::new(0),
            failures: AtomicU32::new(0),
        }
    }

    /// A commit begins: from now on it counts for as long as it takes, so that a shard whose file
    /// hangs isn't taken for one that does nothing.
    pub(crate) fn commit_begins(&self) {
        let at = self.since.elapsed().as_micros() as u64;
        self.began_at.store(at.max(1), Ordering::Relaxed);
    }

    /// No commit is under way.
    pub(crate) fn commit_is_over(&self) {
        self.began_at.store(0, Ordering::Relaxed);
    }

    /// The smoothed measurements of the last commit.
    pub(crate) fn set_commit(&self, commits: &Commits) {
        let set = |bits: &AtomicU64, value: Smoothed| {
            bits.store(value.get().unwrap_or(0.0).to_bits(), Ordering::Relaxed);
        };
        set(&self.commit_s, commits.commit_s);
        set(&self.sync_s, commits.sync_s);
        set(&self.commit_rows, commits.rows);
        self.measured_at.store(self.since.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.failed_at.store(0, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
    }

    /// The smoothed time that attempts take.
    pub(crate) fn set_service(&self, seconds: f64) {
        self.service_s.store(seconds.to_bits(), Ordering::Relaxed);
    }

    /// A commit took so long, of that so long for its sync, and stored so many submissions, which had
    /// waited so long together.
    pub(crate) fn add_commit(&self, took: (Duration, Duration), stored: u64, waited: Duration) {
        let (took, synced_in) = took;
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.committing_us.fetch_add(micros(took), Ordering::Relaxed);
        self.syncing_us.fetch_add(micros(synced_in.min(took)), Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.waited_us.fetch_add(micros(waited), Ordering::Relaxed);
        self.stored.fetch_add(stored, Ordering::Relaxed);
    }

    /// What is added up so far.
    pub(crate) fn sums(&self) -> Sums {
        let seconds = |micros: &AtomicU64| micros.load(Ordering::Relaxed) as f64 / 1e6;
        Sums {
            stored: self.stored.load(Ordering::Relaxed) as f64,
            waited_s: seconds(&self.waited_us),
            committing_s: seconds(&self.committing_us),
            syncing_s: seconds(&self.syncing_us),
            commits: self.commits.load(Ordering::Relaxed) as f64,
        }
    }

    /// Whether a batch was refused a moment ago.
    pub(crate) fn is_failing(&self, now: Instant) -> bool {
        let failed_at = self.failed_at.load(Ordering::Relaxed);
        let now = now.saturating_duration_since(self.since);
        let doublings = self.failures.load(Ordering::Relaxed).saturating_sub(1).min(16);
        let counts_for = (FAILING_FOR * (1 << doublings)).min(FAILING_FOR_MAX);
        failed_at > 0 && now < Duration::from_millis(failed_at) + counts_for
    }

    /// A batch was refused.
    pub(crate) fn failed(&self) {
        let at = self.since.elapsed().as_millis() as u64;
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failed_at.store(at.max(1), Ordering::Relaxed);
    }

    pub(crate) fn load(&self, now: Instant) -> ShardLoad {
        let failing = self.is_failing(now);
        let now = now.saturating_duration_since(self.since);
        let measured_at = Duration::from_micros(self.measured_at.load(Ordering::Relaxed));
        let float = |bits: &AtomicU64| f64::from_bits(bits.load(Ordering::Relaxed));
        let (mut commit_s, mut age_s) =
            (float(&self.commit_s), now.saturating_sub(measured_at).as_secs_f64());
        let began_at = self.began_at.load(Ordering::Relaxed);
        let under_way_s = now.saturating_sub(Duration::from_micros(began_at)).as_secs_f64();
        if began_at > 0 && under_way_s > commit_s {
            (commit_s, age_s) = (under_way_s, 0.0);
        }
        ShardLoad {
            failing,
            incoming: self.incoming.load(Ordering::Relaxed),
            incoming_kib: self.incoming_kib.load(Ordering::Relaxed),
            ready: self.ready.load(Ordering::Relaxed),
            running: self.running.load(Ordering::Relaxed),
            commit_s,
            sync_s: float(&self.sync_s),
            commit_rows: float(&self.commit_rows),
            age_s,
            service_s: float(&self.service_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_and_their_syncs_are_added_up() {
        let (gauges, ms) = (Gauges::new(), Duration::from_millis);
        gauges.add_commit((ms(10), ms(8)), 3, ms(30));
        gauges.add_commit((ms(10), ms(20)), 1, ms(5));
        let sums = gauges.sums();
        assert_eq!((sums.stored, sums.commits, sums.waited_s), (4.0, 2.0, 0.035));
        // a step of the wall clock is no longer than the commit
        assert_eq!((sums.committing_s, sums.syncing_s), (0.02, 0.018));
    }

    // A shard without a way to store anything took a batch each second.
    #[test]
    fn a_shard_that_fails_again_and_again_is_tried_more_and_more_rarely() {
        let gauges = Gauges::new();
        let counts_for = || {
            // half a second after each
            let failing = |s: &u64| {
                gauges.is_failing(Instant::now() + Duration::from_millis(s * 1_000 + 500))
            };
            (0..100).take_while(failing).last().map_or(0, |s| s + 1)
        };
        assert_eq!(counts_for(), 0);
        let mut lasts = Vec::new();
        for _ in 0..7 {
            gauges.failed();
            lasts.push(counts_for());
        }
        assert_eq!(lasts, [1, 2, 4, 8, 16, 16, 16]);
        (0..100).for_each(|_| gauges.failed());
        assert_eq!(counts_for(), 16);
        gauges.set_commit(&Commits::default());
        assert_eq!(counts_for(), 0, "something was stored");
        gauges.failed();
        assert_eq!(counts_for(), 1);
    }

    #[test]
    fn a_commit_that_is_under_way_counts_for_as_long_as_it_takes() {
        let gauges = Gauges::new();
        let mut commits = Commits::default();
        commits.add(Duration::from_millis(10), Duration::from_millis(8), 100, 0);
        gauges.set_commit(&commits);
        let later = Instant::now() + Duration::from_secs(4);
        let load = gauges.load(later);
        assert!(load.commit_s == 0.01 && load.age_s > 3.0, "{load:?}");
        gauges.commit_begins();
        let load = gauges.load(later);
        assert!(load.commit_s > 3.0 && load.age_s == 0.0, "{load:?}");
        assert_eq!(gauges.load(Instant::now()).commit_s, 0.01, "it has just begun");
        gauges.commit_is_over();
        assert_eq!(gauges.load(later).commit_s, 0.01);
    }
}
