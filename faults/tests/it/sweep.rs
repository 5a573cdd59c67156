//! The same case again and again, each time with the next operation as the one that fails.

use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::block_on;

/// How many cases run side by side: they mostly wait.
const SIDE_BY_SIDE: usize = 4;

/// How many cases may go by without their fault. Two runs differ a little in what they do.
const MISSED_MAX: u64 = 4;

/// Runs the case with 1, 2, … up to the end of `cases`, or until it has said often enough that its
/// fault wasn't met, because there aren't so many operations. As many as `cases` begins with must
/// have been, or the test tests nothing.
pub(crate) fn sweep<F>(cases: RangeInclusive<u64>, case: impl Fn(u64) -> F + Sync)
where
    F: Future<Output = bool>,
{
    let (next, met, missed) = (AtomicU64::new(1), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|threads| {
        for _ in 0..SIDE_BY_SIDE {
            threads.spawn(|| {
                while missed.load(Ordering::Acquire) < MISSED_MAX {
                    let nth = next.fetch_add(1, Ordering::AcqRel);
                    if nth > *cases.end() {
                        return;
                    }
                    let counter = if block_on(case(nth)) { &met } else { &missed };
                    counter.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
    });
    let met = met.into_inner();
    assert!(met >= *cases.start(), "only {met} faults were met");
}
