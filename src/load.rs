//! Where a submission goes: the load of each shard, and the wait that it means.
//!
//! Pure, from what the actors measure; the one place where that is decided. A submission waits for
//! two things: for the commit that stores it, together with all that came before it, and for its
//! turn among what is ready in the same shard. Both are estimated from smoothed measurements, as
//! TCP smooths its round-trip time (RFC 6298): an eighth of each new one.
//!
//! Its own wait isn't all. Files of one disk wait for each other's syncs, so a few submissions that
//! spread over several files are all stored later than if one commit had taken them all. A shard
//! that would need a commit for this submission alone is dearer by the time of a sync; it is used
//! where another one's rows take longer than that.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A measurement that follows its changes slowly. It begins as the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Smoothed(Option<f64>);

impl Smoothed {
    /// An eighth of each new measurement.
    const GAIN: f64 = 0.125;

    pub(crate) fn add(&mut self, measured: f64) {
        let smoothed = self.0.unwrap_or(measured);
        self.0 = Some(smoothed + Self::GAIN * (measured - smoothed));
    }

    pub(crate) fn get(self) -> Option<f64> {
        self.0
    }
}

/// What an attempt of a definition takes, smoothed. Shared by the workers, which add to it.
#[derive(Debug, Default)]
pub(crate) struct ServiceTime(AtomicU64);

impl ServiceTime {
    /// An attempt took so long.
    pub(crate) fn add(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let before = self.0.load(Ordering::Relaxed);
        let after = if before == 0 { took } else { before - before / 8 + took / 8 };
        self.0.store(after.max(1), Ordering::Relaxed);
    }

    /// In nanoseconds; `None` before the first attempt has ended.
    pub(crate) fn ns(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.0.load(Ordering::Relaxed))
    }
}

/// So many KiB of arguments or results take about as long to write as one row more: a page of the file.
const KIB_OF_A_ROW: f64 = 4.0;

/// Rows and what is in them, in rows.
fn in_rows(rows: usize, kib: usize) -> f64 {
    rows as f64 + kib as f64 / KIB_OF_A_ROW
}

/// A deviation is smoothed by a quarter of each new one, and four of it are as much as hardly a batch
/// takes more (RFC 6298).
const DEVIATION_GAIN: f64 = 0.25;
const DEVIATIONS: f64 = 4.0;

/// What a shard's batches take, smoothed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Commits {
    pub(crate) commit_s: Smoothed,
    /// By how much a batch takes more or less than that.
    deviation_s: f64,
    pub(crate) sync_s: Smoothed,
    /// How much a batch writes, in rows.
    pub(crate) rows: Smoothed,
}

impl Commits {
    /// A batch of so many rows, with so many KiB in those that are large.
    pub(crate) fn add(&mut self, took: Duration, synced_in: Duration, rows: usize, kib: usize) {
        let took_s = took.as_secs_f64();
        let off_s = (took_s - self.commit_s.get().unwrap_or(took_s)).abs();
        self.deviation_s += DEVIATION_GAIN * (off_s - self.deviation_s);
        self.commit_s.add(took_s);
        self.sync_s.add(synced_in.min(took).as_secs_f64());
        self.rows.add(in_rows(rows, kib));
    }

    /// How long hardly a batch takes longer than, at most a second.
    pub(crate) fn most(&self) -> Duration {
        let most_s = self.commit_s.get().unwrap_or(0.0) + DEVIATIONS * self.deviation_s;
        Duration::from_secs_f64(most_s.clamp(0.0, 1.0))
    }
}

/// In so many seconds half of what was measured is forgotten: a shard that was slow once and has
/// had nothing to do since is tried again.
const FORGOTTEN_S: f64 = 1.0;

/// Waits that differ by less are equal: by this part, or by so many seconds.
const EQUAL_PART: f64 = 0.1;
const EQUAL_S: f64 = 200e-6;

/// Attempts that take no longer than so many commits will need one in a moment.
const ENDS_SOON: f64 = 2.0;

/// What is known of a shard that takes submissions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ShardLoad {
    /// Whether its last batch was refused, a moment ago. Such a shard does nothing quickly.
    pub(crate) failing: bool,
    /// Submissions on their way to it, and the KiB of those that are large.
    pub(crate) incoming: usize,
    pub(crate) incoming_kib: usize,
    /// Tasks that are ready in it and may run.
    pub(crate) ready: usize,
    /// Attempts of its tasks that run or wait in a worker.
    pub(crate) running: usize,
    /// Seconds that a batch takes; those of them that are for its COMMIT, mostly for a sync, if commits
    /// are synced; and how much it writes, in rows.
    pub(crate) commit_s: f64,
    pub(crate) sync_s: f64,
    pub(crate) commit_rows: f64,
    /// Seconds since it was measured.
    pub(crate) age_s: f64,
    /// Seconds that an attempt of one of its tasks takes.
    pub(crate) service_s: f64,
}

impl ShardLoad {
    /// How many seconds a submission would wait there until it runs, as far as one can tell.
    ///
    /// `slots` is the part of the workers' slots that this shard can count on, `batch` the most rows of
    /// a transaction.
    #[cfg(test)]
    pub(crate) fn expected_wait_s(&self, slots: f64, batch: usize) -> f64 {
        self.wait_s(self.remembered(), slots, batch)
    }

    /// How much is on its way to it, in rows.
    pub(crate) fn incoming_rows(&self) -> f64 {
        in_rows(self.incoming, self.incoming_kib)
    }

    fn wait_s(&self, (commit_s, sync_s): (f64, f64), slots: f64, batch: usize) -> f64 {
        // more rows make the batch larger, and another one where it is full
        let work_s = (commit_s - sync_s).max(0.0) / self.commit_rows.max(1.0);
        let per_row = work_s + sync_s / batch.max(1) as f64;
        let stored = commit_s + per_row * self.incoming_rows();
        // what is on its way will be ready before it, and what runs beyond the slots waits already
        let before = (self.incoming + self.ready + self.running) as f64 - slots;
        let turn = self.service_s * before.max(0.0) / slots.max(1.0);
        stored + turn
    }

    /// What a submission costs there in seconds of waiting, its own and the others'.
    fn cost_s(&self, slots: f64, batch: usize) -> f64 {
        let remembered = self.remembered();
        self.wait_s(remembered, slots, batch) + self.toll_s(remembered.1)
    }

    /// How many seconds all others would wait longer for it: for one more sync, unless this shard has
    /// something to commit anyway.
    fn toll_s(&self, sync_s: f64) -> f64 {
        let ends_soon = self.running > 0 && self.service_s <= self.commit_s * ENDS_SOON;
        if self.incoming > 0 || ends_soon { 0.0 } else { sync_s }
    }

    /// What is left of the measurements: the seconds of a batch, and those of its sync.
    fn remembered(&self) -> (f64, f64) {
        let part = (-self.age_s / FORGOTTEN_S).exp2();
        (self.commit_s * part, self.sync_s * part)
    }
}

/// What the shards have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Common {
    /// How many there are.
    pub(crate) shards: usize,
    /// How many of them share the workers' slots.
    pub(crate) active: usize,
    pub(crate) slots: usize,
    /// The most rows of a transaction.
    pub(crate) batch: usize,
}

/// The open shard where a submission costs least: where it waits least itself, and makes the others
/// wait least, as a toll of what it costs them would have it choose (Pigou, 1920).
///
/// Among equals it is `last`, if something is on its way there: what comes together is stored
/// together. Otherwise it is the first after `last`, so that an idle queue spreads its tasks. A failing
/// shard is chosen only where all open ones are.
pub(crate) fn choose(
    common: Common,
    last: usize,
    load: impl Fn(usize) -> Option<ShardLoad>,
) -> Option<usize> {
    let Common { shards, active, slots, batch } = common;
    let share = slots as f64 / active.max(1) as f64;
    let of_last = if last < shards { load(last) } else { None };
    let stays = of_last.is_some_and(|load| load.incoming > 0);
    let first = usize::from(!stays);
    let mut chosen: Option<(usize, bool, f64)> = None;
    for index in (first..first + shards).map(|step| (last + step) % shards) {
        let Some(load) = (if index == last { of_last } else { load(index) }) else { continue };
        let cost = load.cost_s(share, batch);
        let better = chosen.is_none_or(|(_, failing, least)| match (load.failing, failing) {
            (false, true) => true,
            (true, false) => false,
            _ => cost < least * (1.0 - EQUAL_PART) && cost < least - EQUAL_S,
        });
        if better {
            chosen = Some((index, load.failing, cost));
        }
    }
    chosen.map(|(index, ..)| index)
}

#[cfg(test)]
mod tests;
