//! Where a submission goes: the load of each shard, and the wait that it means.
//!
//! Pure, from what the actors measure; the one place where that is decided. A submission waits for
//! two things: for the commit that stores it, together with all that came before it, and for its
//! turn among what is ready in the same shard. Both are estimated from smoothed measurements, as
//! TCP smooths its round-trip time (RFC 6298): an eighth of each new one.

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

/// In so many seconds half of what was measured is forgotten: a shard that was slow once and has
/// had nothing to do since is tried again.
const FORGOTTEN_S: f64 = 1.0;

/// Waits that differ by less are equal: by this part, or by so many seconds.
const EQUAL_PART: f64 = 0.1;
const EQUAL_S: f64 = 200e-6;

/// What is known of a shard that takes submissions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ShardLoad {
    /// Whether its last batch was refused, a moment ago. Such a shard does nothing quickly.
    pub(crate) failing: bool,
    /// Submissions on their way to it.
    pub(crate) incoming: usize,
    /// Tasks that are ready in it.
    pub(crate) ready: usize,
    /// Attempts of its tasks that run or wait in a worker.
    pub(crate) running: usize,
    /// Seconds that a commit takes, and rows that it stores.
    pub(crate) commit_s: f64,
    pub(crate) commit_rows: f64,
    /// Seconds since it was measured.
    pub(crate) age_s: f64,
    /// Seconds that an attempt of one of its tasks takes.
    pub(crate) service_s: f64,
}

impl ShardLoad {
    /// How many seconds a submission would wait there until it runs, as far as one can tell.
    ///
    /// `slots` is the part of the workers' slots that this shard can count on.
    pub(crate) fn expected_wait_s(&self, slots: f64) -> f64 {
        let commit_s = self.commit_s * (-self.age_s / FORGOTTEN_S).exp2();
        let per_row = commit_s / self.commit_rows.max(1.0);
        let stored = commit_s + per_row * self.incoming as f64;
        // what is on its way will be ready before it, and what runs beyond the slots waits already
        let before = (self.incoming + self.ready + self.running) as f64 - slots;
        let turn = self.service_s * before.max(0.0) / slots.max(1.0);
        stored + turn
    }
}

/// The open shard where a submission waits least; the first after `last` among equals, so that an
/// idle queue spreads its tasks. A failing shard is chosen only where all open ones are. `active` of
/// the shards share the slots.
pub(crate) fn choose(
    shards: usize,
    active: usize,
    slots: usize,
    last: usize,
    load: impl Fn(usize) -> Option<ShardLoad>,
) -> Option<usize> {
    let share = slots as f64 / active.max(1) as f64;
    let mut chosen: Option<(usize, bool, f64)> = None;
    for index in (1..=shards).map(|step| (last + step) % shards) {
        let Some(load) = load(index) else { continue };
        let wait = load.expected_wait_s(share);
        let better = chosen.is_none_or(|(_, failing, least)| match (load.failing, failing) {
            (false, true) => true,
            (true, false) => false,
            _ => wait < least * (1.0 - EQUAL_PART) && wait < least - EQUAL_S,
        });
        if better {
            chosen = Some((index, load.failing, wait));
        }
    }
    chosen.map(|(index, ..)| index)
}

#[cfg(test)]
mod tests;
