//! What a caller does when the queue is full, and how long a refused one should wait.

use std::time::Duration;

use crate::load::ShardLoad;

/// What submissions of a [`Queue`](crate::Queue) handle do while the queue is full.
///
/// Full means that `limits.pending_submissions`, `limits.pending_bytes` or `limits.ready_tasks` is
/// reached; for tasks whose arguments stay in memory (`use_cache`), `limits.cached_arguments`, too.
/// Each handle has its own; [`Queue::with_backpressure`](crate::Queue::with_backpressure)
/// makes one with another. It is about room only: what was let in is waited for until it is
/// committed, however long that takes, because nobody could say then that nothing was stored. A bulk
/// is let in as a whole, also one with ordering keys that several shards will store.
///
/// Room for starts and for cached arguments comes when other tasks start or end. A task that waits for
/// it keeps its own slot meanwhile: where tasks submit so many that they reach these limits, let them
/// do it by a handle that doesn't wait for ever.
///
/// A bare [`Submit`](crate::actors::Submit) or [`SubmitAll`](crate::actors::SubmitAll), sent to the
/// Dispatcher's address, has no handle: it is always refused at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backpressure {
    /// Wait until there is room, however long it takes; for each of the limits in order of arrival.
    #[default]
    Wait,
    /// Wait this long at most, then give [`Error::Busy`](crate::Error::Busy). Nothing is stored
    /// then. The wait needs tokio's or actix's runtime.
    WaitFor(Duration),
    /// Give [`Error::Busy`](crate::Error::Busy) at once. Nothing is stored then.
    Reject,
}

/// The bounds of what a refused caller is told, and what it is told where nothing was measured.
const SHORTEST_S: f64 = 1e-3;
const LONGEST_S: f64 = 10.0;
const UNMEASURED_S: f64 = 50e-3;

/// How many tasks have to start, and how many with arguments in memory to end, before there is room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needed {
    pub(crate) starts: usize,
    pub(crate) ends: usize,
}

/// When it is worth to try again, from 1 ms to 10 s: when half of what waits for its commit will
/// have been stored, at the pace of the last commits or of the one that is under way, if that is
/// slower; and when as many tasks as have to will have started and ended.
pub(crate) fn retry_after(
    loads: impl Iterator<Item = ShardLoad>,
    slots: usize,
    needed: Needed,
) -> Duration {
    let (mut waiting, mut rows_per_s, mut service_s, mut shards) = (0.0, 0.0, 0.0, 0.0);
    for load in loads.filter(|load| load.commit_s > 0.0) {
        waiting += load.incoming_rows();
        rows_per_s += load.commit_rows.max(1.0) / load.commit_s;
        service_s += load.service_s;
        shards += 1.0;
    }
    if shards == 0.0 {
        return Duration::from_secs_f64(UNMEASURED_S);
    }
    let stored = waiting / 2.0 / rows_per_s;
    let passed = |tasks: usize| match tasks {
        0 => 0.0,
        _ if service_s == 0.0 => UNMEASURED_S,
        _ => tasks as f64 * service_s / shards / slots.max(1) as f64,
    };
    // they may be few that last, or wait for their time, beside many others that don't
    let ended = if needed.ends > 0 { passed(needed.ends).max(UNMEASURED_S) } else { 0.0 };
    let after_s = stored.max(passed(needed.starts)).max(ended);
    Duration::from_secs_f64(after_s.clamp(SHORTEST_S, LONGEST_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(incoming: usize, commit_s: f64) -> ShardLoad {
        ShardLoad {
            failing: false,
            incoming,
            incoming_kib: 0,
            ready: 0,
            running: 0,
            commit_s,
            sync_s: 0.0,
            commit_rows: 100.0,
            age_s: 0.0,
            service_s: 0.0,
        }
    }

    fn after(loads: &[ShardLoad], starts: usize) -> f64 {
        let needed = Needed { starts, ends: 0 };
        retry_after(loads.iter().copied(), 4, needed).as_secs_f64()
    }

    fn after_ends(load: ShardLoad, ends: usize) -> f64 {
        retry_after([load].into_iter(), 4, Needed { starts: 0, ends }).as_secs_f64()
    }

    #[test]
    fn a_caller_comes_back_when_half_of_what_waits_is_stored() {
        assert_eq!(after(&[load(10_000, 0.01)], 0), 0.5);
        assert_eq!(after(&[load(10_000, 0.02)], 0), 1.0);
        let large = ShardLoad { incoming_kib: 40_000, ..load(0, 0.01) };
        assert_eq!(after(&[large], 0), 0.5, "as much to write as 10,000 rows");
        assert_eq!(after(&[load(10_000, 0.01), load(10_000, 0.01)], 0), 0.5);
    }

    #[test]
    fn a_caller_comes_back_when_tasks_have_started() {
        let slow = ShardLoad { service_s: 2.0, ..load(0, 0.01) };
        assert_eq!(after(&[slow], 2), 1.0);
        assert_eq!(after(&[load(0, 0.01)], 2), UNMEASURED_S);
    }

    #[test]
    fn a_caller_comes_back_when_tasks_have_ended_but_not_at_once() {
        let lasting = |service_s| ShardLoad { service_s, ..load(0, 0.01) };
        assert_eq!(after_ends(lasting(2.0), 4), 2.0);
        assert_eq!(after_ends(lasting(1e-5), 4), UNMEASURED_S, "their own may last longer");
        assert_eq!(after_ends(lasting(0.0), 4), UNMEASURED_S);
    }

    #[test]
    fn what_a_caller_is_told_has_bounds() {
        assert_eq!(after(&[], 0), UNMEASURED_S);
        assert_eq!(after(&[load(0, 0.01)], 0), SHORTEST_S);
        assert_eq!(after(&[load(usize::MAX, 10.0)], usize::MAX), LONGEST_S);
        assert_eq!(after(&[load(1, f64::MAX)], 0), LONGEST_S);
    }
}
