//! The same case again and again, each time with the next operation as the one that fails.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::world::block_on;

/// How many cases run side by side: they mostly wait.
const SIDE_BY_SIDE: usize = 4;

/// Runs the case with 1, 2, … until it says that its fault wasn't met, because there aren't so many
/// operations. At least `least` of them must have been, or the test tests nothing.
pub(crate) fn sweep<F: Future<Output = bool>>(least: u64, case: impl Fn(u64) -> F + Sync) {
    let (next, met, over) = (AtomicU64::new(1), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|threads| {
        for _ in 0..SIDE_BY_SIDE {
            threads.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    let nth = next.fetch_add(1, Ordering::AcqRel);
                    if block_on(case(nth)) {
                        met.fetch_add(1, Ordering::AcqRel);
                    } else {
                        over.store(true, Ordering::Release);
                    }
                }
            });
        }
    });
    let met = met.into_inner();
    assert!(met >= least, "only {met} faults were met");
}
