//! How many shards take new tasks: when one more is tried, when it is kept, when one less will do.
//!
//! Pure, from what the actors measure. Whether another file helps can't be computed: it depends on
//! the disk, on the free cores and on what else the tasks do. So it is found out, by hill climbing
//! with a trial: when submissions wait longer than the target, one shard more is tried, and it is
//! kept only if throughput or wait got better by a measured margin. A trial that failed is taken
//! back, and the pause before the next one doubles, as TCP backs off (RFC 6298, 5.5). Going down has
//! a threshold far from that for going up, and takes longer; a shard that was missed soon after it
//! was retired makes the next retirement take twice as long. So the number doesn't flap.

use std::ops::RangeInclusive;
use std::time::Duration;

use figures::Span;
pub(crate) use figures::{Figures, Load};

mod figures;

/// How often figures are wanted while there is traffic: often enough to follow a load within some
/// seconds, rarely enough to cost nothing beside it.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// So many ticks in a row must be over the target before a shard is tried. Together they are what the
/// trial is compared with, so they must be enough to even out single slow commits.
const HOT_TICKS: u32 = 10;

/// Shards whose threads are busy for less of the time than this mostly stand still: what waits there
/// waits for one commit or for the disk, and more files don't make those faster. Only where it waits
/// for so many commits, batches are full, and it isn't known whether the disk could do more.
const BUSY_TO_GROW: f64 = 0.2;
const BATCHES: f64 = 4.0;

/// A new shard has nothing in memory and no measurements yet; this long isn't counted.
const SETTLE_S: f64 = 0.5;

/// How long a trial is measured: about as long as what it is compared with, and once more and again
/// while it isn't clear. Where nothing is stored, because commits take seconds, it is waited for so
/// many times as long.
const TRIAL_S: f64 = 1.0;
const UNCLEAR_MAX: f64 = 3.0;
const TRIALS_MAX: f64 = 10.0;

/// What makes a trial a success: twice the standard error of the difference, which comes by chance
/// once in forty times that one looks. A shard costs a thread and a file and should bring more than
/// the first part; the second is enough however much throughput differs from one tick to the next.
const FASTER_MIN: f64 = 0.05;
const FASTER_MAX: f64 = 0.10;
const ERRORS: f64 = 2.0;

/// Waits differ more. They count only if about as much is stored as before: where less comes, all
/// waits get shorter.
const SOONER: f64 = 0.80;
const NO_LOSS: f64 = 0.95;

/// The pause after the first failed trial; it doubles up to the second one. Trials cost little, so
/// the longest is short enough for a machine whose other work changes with the hours. When
/// the last failure is longer ago than the third, the next one is taken for the first.
const PAUSE_MIN_S: f64 = 30.0;
const PAUSE_MAX_S: f64 = 3_600.0;
const FORGOTTEN_AFTER_S: f64 = 7_200.0;

/// The next trial isn't paused for where so many times as much waits as at the one that failed, and so
/// much more is stored: from a few submissions, for which another file was of no use, nothing follows
/// for many. Where only more waits, more comes than can be stored.
const MANY_WAIT: f64 = 4.0;
const MORE_STORED: f64 = 1.1;

/// The pause after a shard that couldn't be opened, or failed on trial. A full disk or a missing
/// thread may be over soon.
const RETRY_MIN_S: f64 = 5.0;

/// The load fits into one shard less with much room if the others would be busy for less than this
/// part of the time, or if it is less than this part of what was once too much for them; and if the
/// waits are below this part of the target. Where commits take longer than that, waits of so many
/// commits will do, if the others would mostly stand still: one that comes during a commit waits for
/// the rest of that and for its own.
const ROOM: f64 = 0.5;
const COMMITS: f64 = 2.0;

/// A load that fits must have been seen in so many ticks in which something was stored, unless nothing
/// comes at all: the tick that ends a stall of the disk is as long as the stall, and says nothing of
/// the load.
const QUIET_TICKS: f64 = 10.0;

/// A shard that is wanted again within so many times the delay of its retirement was retired too
/// soon. Then the delay doubles, up to this many times the setting.
const MISSED_WITHIN: f64 = 4.0;
const DELAYS_MAX: f64 = 16.0;

/// What to do now, and the figures behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Decision {
    /// Have one more shard take tasks; then say which, or that there is none.
    Grow { load: Load },
    /// The trial was a success: keep it.
    Keep { shard: usize, before: Load, after: Load },
    /// The trial made nothing better: retire it.
    GiveUp { shard: usize, before: Load, after: Load },
    /// The others have much room.
    Retire { shard: usize, load: Load },
}

/// A decision, if there is one, and when figures are wanted again; not before there is traffic, if
/// that is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Advice {
    pub(crate) decision: Option<Decision>,
    pub(crate) again: Option<Duration>,
}

/// Follows the load. It measures time by the lengths of the intervals that it is told of.
#[derive(Debug)]
pub(crate) struct Controller {
    range: RangeInclusive<usize>,
    target_s: f64,
    retire_after_s: f64,
    now_s: f64,
    phase: Phase,
    /// What was over the target without a break, and in how many ticks.
    hot: Span,
    hot_ticks: u32,
    /// What would have fitted into one shard less without a break, and how much of that time counts.
    quiet: Span,
    quiet_s: f64,
    /// Ticks in which nothing was stored, because the commit goes on: a part of the next one.
    silence: Figures,
    setback: Option<Setback>,
    /// When a shard may be opened again after that failed, and the pause if it fails once more.
    retry_at_s: f64,
    retry_pause_s: f64,
    /// By number of shards: the throughput at which they were too few.
    outgrown: Vec<f64>,
    retired_at_s: Option<f64>,
    /// How long the others must have room: a multiple of the setting.
    delay_s: f64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Watching,
    /// One more was asked for.
    Growing {
        before: Load,
        from: usize,
    },
    Trial {
        shard: usize,
        before: Load,
        from: usize,
        settled_s: f64,
        after: Span,
        /// For how long it is measured.
        until_s: f64,
    },
}

/// A trial that failed.
#[derive(Clone, Copy, Debug)]
struct Setback {
    /// How many shards there were before it.
    from: usize,
    at_s: f64,
    pause_s: f64,
    /// The load before it, and whether it stayed the same: then another shard is of no use under it.
    load: Load,
    stayed: bool,
}

impl Setback {
    /// Whether a trial from the same number of shards would be too soon after this one.
    fn forbids(&self, load: &Load, now_s: f64) -> bool {
        let since_s = now_s - self.at_s;
        let known = self.stayed && !self.load.differs_from(load);
        let many_wait = load.waiting() >= MANY_WAIT * self.load.waiting();
        let outgrown = many_wait && load.per_s >= MORE_STORED * self.load.per_s;
        !outgrown && since_s < PAUSE_MAX_S && (known || since_s < self.pause_s)
    }
}

impl Controller {
    /// `range` is not empty and begins at 1 or above.
    pub(crate) fn new(
        range: RangeInclusive<usize>,
        target: Duration,
        retire_after: Duration,
    ) -> Self {
        let retire_after_s = retire_after.as_secs_f64();
        Controller {
            outgrown: vec![0.0; range.end() + 1],
            range,
            target_s: target.as_secs_f64(),
            retire_after_s,
            now_s: 0.0,
            phase: Phase::Watching,
            hot: Span::default(),
            hot_ticks: 0,
            quiet: Span::default(),
            quiet_s: 0.0,
            silence: Figures::default(),
            setback: None,
            retry_at_s: 0.0,
            retry_pause_s: RETRY_MIN_S,
            retired_at_s: None,
            delay_s: retire_after_s,
        }
    }

    /// Takes an interval's figures and says what to do.
    pub(crate) fn advise(&mut self, figures: &Figures) -> Advice {
        let figures = figures.sane();
        self.now_s += figures.seconds;
        let figures = figures.after(&std::mem::take(&mut self.silence));
        if figures.is_no_news() && figures.seconds < TRIAL_S * TRIALS_MAX {
            self.silence = figures;
            return Advice { decision: None, again: Some(TICK) };
        }
        let decision = match self.phase {
            Phase::Watching => self.watch(&figures),
            Phase::Growing { .. } => None,
            Phase::Trial { .. } => self.weigh(&figures),
        };
        Advice { decision, again: self.again(&figures) }
    }

    /// How many shards there may be.
    pub(crate) fn range(&self) -> &RangeInclusive<usize> {
        &self.range
    }

    /// Other shards take tasks than before, without a decision: what was measured says nothing of them.
    /// If one was on trial, the next waits as after one that couldn't be opened.
    pub(crate) fn watch_anew(&mut self) {
        if matches!(self.phase, Phase::Trial { .. }) {
            self.put_off();
        }
        self.phase = Phase::Watching;
        self.cool_down();
        self.is_not_quiet();
    }

    /// The shard that was asked for takes tasks from now on.
    pub(crate) fn grew(&mut self, shard: usize) {
        if let Phase::Growing { before, from } = self.phase {
            let (settled_s, after, until_s) = (0.0, Span::default(), TRIAL_S);
            self.phase = Phase::Trial { shard, before, from, settled_s, after, until_s };
        }
    }

    /// There is no shard that could be had now, as those that take no tasks are out of service.
    pub(crate) fn none_there(&mut self) {
        self.phase = Phase::Watching;
        self.retry_at_s = self.now_s + RETRY_MIN_S;
    }

    /// The shard that was asked for can't be had. Returns how long no other is asked for.
    pub(crate) fn could_not_grow(&mut self) -> Duration {
        self.phase = Phase::Watching;
        Duration::from_secs_f64(self.put_off())
    }

    /// Asks for no other for a while, which doubles until one is through its trial.
    fn put_off(&mut self) -> f64 {
        let pause_s = self.retry_pause_s;
        self.retry_at_s = self.now_s + pause_s;
        self.retry_pause_s = (pause_s * 2.0).min(PAUSE_MAX_S);
        pause_s
    }

    fn watch(&mut self, figures: &Figures) -> Option<Decision> {
        if figures.is_no_news() {
            return None;
        }
        let load = Span::of(figures);
        let behind = load.commit_s > 0.0 && load.wait_s >= BATCHES * load.commit_s;
        let busy = if behind { load.committing } else { load.busy };
        let busy = busy >= BUSY_TO_GROW * figures.active as f64;
        if load.wait_s > self.target_s && busy && !figures.failing {
            self.hot.add(figures);
            self.hot_ticks += 1;
        } else {
            self.cool_down();
        }
        if self.hot_ticks >= HOT_TICKS {
            let load = self.hot.load();
            self.cool_down();
            if self.may_try(figures.active, &load) {
                self.is_not_quiet();
                self.phase = Phase::Growing { before: load, from: figures.active };
                return Some(Decision::Grow { load });
            }
        }
        self.retire(figures, &load)
    }

    fn cool_down(&mut self) {
        (self.hot, self.hot_ticks) = (Span::default(), 0);
    }

    fn may_try(&self, active: usize, load: &Load) -> bool {
        if active >= *self.range.end() || self.now_s < self.retry_at_s {
            return false;
        }
        let setback = self.setback.filter(|setback| setback.from == active);
        setback.is_none_or(|setback| !setback.forbids(load, self.now_s))
    }

    fn retire(&mut self, figures: &Figures, load: &Load) -> Option<Decision> {
        let fits = figures.active > *self.range.start()
            && !figures.failing
            && (figures.is_idle() || self.fits(load, figures.active - 1));
        if !fits {
            self.is_not_quiet();
            return None;
        }
        self.quiet.add(figures);
        let most_s = if figures.is_idle() { f64::INFINITY } else { self.delay_s / QUIET_TICKS };
        self.quiet_s += figures.seconds.min(most_s);
        if self.quiet_s < self.delay_s {
            return None;
        }
        let load = self.quiet.load();
        self.is_not_quiet();
        self.retired_at_s = Some(self.now_s);
        Some(Decision::Retire { shard: figures.last, load })
    }

    fn is_not_quiet(&mut self) {
        (self.quiet, self.quiet_s) = (Span::default(), 0.0);
    }

    /// Whether so many shards would have much room under this load.
    fn fits(&self, load: &Load, shards: usize) -> bool {
        let outgrown = self.outgrown.get(shards).copied().unwrap_or(0.0);
        let room = load.busy <= ROOM * shards as f64 || load.per_s <= ROOM * outgrown;
        let still = load.busy <= ROOM * BUSY_TO_GROW * shards as f64;
        let own = still && load.wait_s <= COMMITS * load.commit_s;
        room && (load.wait_s <= ROOM * self.target_s || own)
    }

    fn weigh(&mut self, figures: &Figures) -> Option<Decision> {
        let Phase::Trial { shard, before, from, settled_s, after, until_s } = &mut self.phase
        else {
            return None;
        };
        if *settled_s < SETTLE_S {
            *settled_s += figures.seconds;
            return None;
        }
        after.add(figures);
        if after.seconds < *until_s {
            return None;
        }
        let (shard, before, from, after) = (*shard, *before, *from, after.load());
        let gain = after.per_s - before.per_s;
        let noise = ERRORS * before.error_per_s.hypot(after.error_per_s);
        let (least, enough) = (before.per_s * FASTER_MIN, before.per_s * FASTER_MAX);
        let faster = gain >= noise.clamp(least, enough);
        let sooner = after.wait_s <= before.wait_s * SOONER;
        let success = faster || sooner && after.per_s >= before.per_s * NO_LOSS;
        let unclear = !success && gain + noise >= least;
        if unclear && *until_s < TRIAL_S * UNCLEAR_MAX && !figures.failing {
            *until_s += TRIAL_S;
            return None;
        }
        self.phase = Phase::Watching;
        self.retry_pause_s = RETRY_MIN_S;
        if success {
            self.keep(from, &before);
            return Some(Decision::Keep { shard, before, after });
        }
        let less = after.per_s < before.per_s * NO_LOSS && after.wait_s <= self.target_s;
        let went_away = less || figures.failing;
        let recent = self.setback.filter(|last| self.now_s - last.at_s < FORGOTTEN_AFTER_S);
        let pause_s = recent.map_or(PAUSE_MIN_S, |setback| setback.pause_s * 2.0).min(PAUSE_MAX_S);
        let (at_s, stayed) = (self.now_s, !went_away);
        self.setback = Some(Setback { from, at_s, pause_s, load: before, stayed });
        Some(Decision::GiveUp { shard, before, after })
    }

    fn keep(&mut self, from: usize, before: &Load) {
        if let Some(outgrown) = self.outgrown.get_mut(from) {
            *outgrown = before.per_s;
        }
        if let Some(retired_at_s) = self.retired_at_s.take() {
            let missed = self.now_s - retired_at_s < self.delay_s * MISSED_WITHIN;
            let delays = if missed { self.delay_s / self.retire_after_s * 2.0 } else { 1.0 };
            self.delay_s = self.retire_after_s * delays.min(DELAYS_MAX);
        }
    }

    fn again(&self, figures: &Figures) -> Option<Duration> {
        let watching = matches!(self.phase, Phase::Watching);
        if !watching || !figures.is_idle() {
            return Some(TICK);
        }
        // in an idle queue nothing changes until a retirement is due
        (figures.active > *self.range.start()).then(|| {
            let left_s = (self.delay_s - self.quiet_s).clamp(0.0, 1e6);
            Duration::from_secs_f64(left_s).max(TICK)
        })
    }
}

#[cfg(test)]
mod tests;
