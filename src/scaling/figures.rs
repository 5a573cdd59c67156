//! What is measured, and the load that follows from it.

/// Fewer intervals say nothing of how much they differ.
const INTERVALS_MIN: f64 = 5.0;

/// Before the longest pause is over, a trial is repeated only under another load: one whose
/// throughput differs by this part. Of the same load the answer is known; where more comes than can
/// be stored, the waits grow, and another shard is of as little use as before.
const DIFFERENT: f64 = 0.2;

/// What was measured in an interval, of the shards that took tasks in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// How long it was.
    pub(crate) seconds: f64,
    /// Submissions that were stored, and how long all of them together had waited for that.
    pub(crate) stored: f64,
    pub(crate) waited_s: f64,
    /// How long all shards together were in commits, how long of that in syncs, and how many commits
    /// those were.
    pub(crate) committing_s: f64,
    pub(crate) syncing_s: f64,
    pub(crate) commits: f64,
    /// Submissions that wait at its end.
    pub(crate) pending: usize,
    /// Whether a batch was refused a moment ago.
    pub(crate) failing: bool,
    /// How many shards take tasks, and the one of them that would be retired.
    pub(crate) active: usize,
    pub(crate) last: usize,
}

impl Figures {
    /// The same without what no clock can have measured.
    pub(super) fn sane(&self) -> Self {
        let sane = |value: f64| if value > 0.0 { value.min(1e12) } else { 0.0 };
        Figures {
            seconds: sane(self.seconds).min(1e6),
            stored: sane(self.stored),
            waited_s: sane(self.waited_s),
            committing_s: sane(self.committing_s),
            syncing_s: sane(self.syncing_s),
            commits: sane(self.commits),
            active: self.active.max(1),
            ..*self
        }
    }

    /// This interval and the one before it, in which nothing was stored, as one.
    pub(super) fn after(&self, silence: &Figures) -> Self {
        Figures {
            seconds: self.seconds + silence.seconds,
            stored: self.stored + silence.stored,
            waited_s: self.waited_s + silence.waited_s,
            committing_s: self.committing_s + silence.committing_s,
            syncing_s: self.syncing_s + silence.syncing_s,
            commits: self.commits + silence.commits,
            ..*self
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.stored == 0.0 && self.pending == 0
    }

    /// Whether it says nothing: a commit takes longer than the interval.
    pub(super) fn is_no_news(&self) -> bool {
        self.stored == 0.0 && self.pending > 0
    }
}

/// The load over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// Submissions stored per second, and the standard error of that by the intervals that it is the
    /// mean of; infinite where they are too few to tell.
    pub(crate) per_s: f64,
    pub(crate) error_per_s: f64,
    /// How long one waited for its commit; 0 where none was stored.
    pub(crate) wait_s: f64,
    /// How many shards' threads were busy with commits at a time, not counting when they waited for a
    /// sync; how many if that counts; and how long one commit took, with its sync.
    pub(crate) busy: f64,
    pub(crate) committing: f64,
    pub(crate) commit_s: f64,
}

impl Load {
    pub(super) fn differs_from(&self, other: &Load) -> bool {
        (self.per_s - other.per_s).abs() > DIFFERENT * self.per_s.max(other.per_s)
    }

    /// How many submissions waited at a time: what is stored per second times how long each waited
    /// (Little, 1961).
    pub(super) fn waiting(&self) -> f64 {
        self.per_s * self.wait_s
    }
}

/// The sums of some intervals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub(super) seconds: f64,
    pub(super) stored: f64,
    waited_s: f64,
    committing_s: f64,
    syncing_s: f64,
    commits: f64,
    rates: Rates,
}

impl Span {
    pub(super) fn add(&mut self, figures: &Figures) {
        self.seconds += figures.seconds;
        self.stored += figures.stored;
        self.waited_s += figures.waited_s;
        self.committing_s += figures.committing_s;
        self.syncing_s += figures.syncing_s;
        self.commits += figures.commits;
        self.rates.add(part(figures.stored, figures.seconds));
    }

    pub(super) fn of(figures: &Figures) -> Load {
        let mut span = Span::default();
        span.add(figures);
        span.load()
    }

    pub(super) fn load(&self) -> Load {
        Load {
            per_s: part(self.stored, self.seconds),
            error_per_s: self.rates.error(),
            wait_s: part(self.waited_s, self.stored),
            busy: part((self.committing_s - self.syncing_s).max(0.0), self.seconds),
            committing: part(self.committing_s, self.seconds),
            commit_s: part(self.committing_s, self.commits),
        }
    }
}

fn part(of: f64, by: f64) -> f64 {
    if by >= 1e-3 { of / by } else { 0.0 }
}

/// How much the throughput differs from interval to interval, by Welford's method of 1962.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Rates {
    fn add(&mut self, rate: f64) {
        self.count += 1.0;
        let off = rate - self.mean;
        self.mean += off / self.count;
        self.squares += off * (rate - self.mean);
    }

    /// The standard error of the mean.
    fn error(&self) -> f64 {
        if self.count < INTERVALS_MIN {
            return f64::INFINITY;
        }
        (self.squares / (self.count - 1.0) / self.count).max(0.0).sqrt()
    }
}
