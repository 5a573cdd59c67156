//! When a failed attempt is tried again.
//!
//! Exponential backoff with full jitter: the pause after the n-th failure is drawn evenly from
//! zero to `min(backoff_max, backoff_min × 2ⁿ⁻¹)`. It spreads retries better than a fixed pause
//! with some noise; see M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

use std::time::Duration;

use crate::record::RetryPolicy;

/// The pause before the next attempt, after `failures` failures (from 1).
///
/// `random` is spread evenly over all of `u64`; the same input gives the same pause.
pub(crate) fn pause(policy: &RetryPolicy, failures: u32, random: u64) -> Duration {
    let ceiling = ceiling(policy, failures);
    let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
    let drawn = (u128::from(micros) * u128::from(random)) >> 64;
    Duration::from_micros(drawn as u64)
}

/// The longest that [`pause`] can return.
fn ceiling(policy: &RetryPolicy, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(62);
    let factor = 1u64 << doublings;
    let min = u64::try_from(policy.backoff_min.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(min.saturating_mul(factor)).min(policy.backoff_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        max_attempts: 5,
        backoff_min: Duration::from_secs(1),
        backoff_max: Duration::from_secs(600),
    };

    #[test]
    fn the_ceiling_doubles_with_each_failure_up_to_the_cap() {
        let ceilings = [1, 2, 3, 10, 11, 64, u32::MAX].map(|n| ceiling(&POLICY, n).as_secs());
        assert_eq!(ceilings, [1, 2, 4, 512, 600, 600, 600]);
    }

    #[test]
    fn jitter_spreads_over_the_whole_range_from_zero() {
        assert_eq!(pause(&POLICY, 3, 0), Duration::ZERO);
        assert_eq!(pause(&POLICY, 3, 1 << 63), Duration::from_secs(2));
        let most = pause(&POLICY, 3, u64::MAX);
        assert!(most < Duration::from_secs(4) && most > Duration::from_millis(3999));
    }

    #[test]
    fn the_longest_possible_backoff_does_not_overflow() {
        let policy = RetryPolicy { backoff_max: Duration::MAX, ..POLICY };
        assert!(pause(&policy, u32::MAX, u64::MAX) <= Duration::from_micros(u64::MAX));
    }
}
