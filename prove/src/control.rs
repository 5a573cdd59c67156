//! Control arms: cases that must fail.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::case::{Case, Failure};
use crate::row::{Control, Row};
use crate::running::Running;
use crate::scene::{harness, lock};

/// The control arm that has this number, from 1 on.
pub(crate) fn of(row: &Row, number: usize) -> Option<&'static Control> {
    row.controls.get(number.checked_sub(1)?)
}

/// Runs the arm of this number, as many cases beside each other as of the row itself, until one fails
/// as it must; tells how many cases that took.
///
/// # Errors
///
/// None did, or one failed in another way: the row's harness is broken.
pub(crate) fn must_fail(
    row: &Row,
    number: usize,
    seeds: impl Iterator<Item = u64> + Send,
    running: &Running,
) -> Result<u64, Failure> {
    let control = of(row, number).ok_or_else(|| harness("there is no such arm"))?;
    let seeds = Mutex::new(seeds.take(control.within as usize));
    let (cases, ended) = (AtomicU64::new(0), Mutex::new(None));
    let run = |seed| {
        let case = format!("{} --control {number} --seed {seed}", row.name);
        let _under_way = running.begin(case.clone()).map_err(harness)?;
        let outcome = Case::run(seed, control.case);
        let cases = cases.fetch_add(1, Ordering::AcqRel) + 1;
        match outcome {
            Ok(_) => Ok(None),
            Err(failure) if failure.kind == control.fails => Ok(Some(cases)),
            Err(failure) => Err(harness(format!("control arm, {case}: {failure}"))),
        }
    };
    thread::scope(|threads| {
        for _ in 0..row.side_by_side {
            threads.spawn(|| {
                while lock(&ended).is_none() {
                    let Some(seed) = lock(&seeds).next() else { return };
                    if let Some(outcome) = run(seed).transpose() {
                        lock(&ended).get_or_insert(outcome);
                    }
                }
            });
        }
    });
    let ended = ended.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    ended.unwrap_or_else(|| {
        let (without, within, fails) = (control.without, control.within, control.fails);
        Err(harness(format!(
            "control arm \"{without}\" passed {within} cases: none was \"{fails}\""
        )))
    })
}
