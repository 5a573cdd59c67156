//! The one order in which tasks run.
//!
//! `rank = due time − priority × ageing`, then the id. A task that is `n` levels more urgent
//! overtakes those that became due up to `n × ageing` before it; older ones go first, so nothing
//! starves and no row is ever rewritten to age. With ageing 0 priority is strict: lower levels wait
//! for as long as a higher one has work.

use std::time::Duration;

use crate::clock::Timestamp;

/// With strict priority a level is this wide, and the time within it counts in milliseconds.
const STRICT_LEVEL: i64 = 1 << 47;

/// A place in the order of a shard: the lower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) rank: i64,
    pub(crate) sequence: u64,
}

/// How priority and time make a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ageing {
    per_level_micros: i64,
}

impl Ageing {
    /// `per_level` is how much waiting time one level of priority outweighs; zero means strict.
    pub(crate) fn new(per_level: Duration) -> Self {
        let micros = i64::try_from(per_level.as_micros()).unwrap_or(i64::MAX);
        Ageing { per_level_micros: micros }
    }

    /// The rank of a task that is due at `due` with `priority`.
    pub(crate) fn rank(self, due: Timestamp, priority: i16) -> i64 {
        let priority = i64::from(priority);
        if self.per_level_micros == 0 {
            let within = due.as_micros().div_euclid(1000).clamp(0, STRICT_LEVEL - 1);
            within - priority * STRICT_LEVEL
        } else {
            due.as_micros().saturating_sub(priority.saturating_mul(self.per_level_micros))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_level_outweighs_the_ageing_time_and_no_more() {
        let ageing = Ageing::new(Duration::from_secs(60));
        assert!(ageing.rank(at(1059), 1) < ageing.rank(at(1000), 0));
        assert!(ageing.rank(at(1061), 1) > ageing.rank(at(1000), 0));
    }

    #[test]
    fn strict_priority_never_yields_to_age() {
        let strict = Ageing::new(Duration::ZERO);
        assert!(strict.rank(Timestamp::MAX, 1) < strict.rank(at(0), 0));
        assert!(strict.rank(at(5), 0) < strict.rank(at(6), 0));
        assert!(strict.rank(at(5), i16::MAX) < strict.rank(at(5), i16::MIN));
    }
}
