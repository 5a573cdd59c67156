//! What each transaction left: which rows a process has in hand, and how many tasks there are of each
//! status.
//!
//! A log in the file, read when it is opened. Each transaction adds one step: the rows that it laid
//! down, those that it took up, and all counts as they are from then on; after some steps, all of them
//! are folded into one. So most transactions write one page for this, however many tasks they have.

use rusqlite::{Connection, params};

use super::fault::{store_error, wrong_counts};
use super::in_hand::InHand;
use super::tally::Counts;
use super::work::Work;
use crate::error::{StoreError, StoreErrorKind};

/// How many steps the log has at most: enough that folding costs little, and all fit in a few pages.
const STEPS_MAX: i64 = 64;

const LOG: &str = "select number, laid, taken, counts from step order by number";

const ADD: &str = "insert into step (number, laid, taken, counts) values (?1, ?2, ?3, ?4)";

const CLEAR: &str = "delete from step";

const HAS_TASKS: &str = "select exists (select 1 from task)";

/// How things stand, as the last commit left them.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) in_hand: InHand,
    pub(super) counts: Counts,
    /// The number of the next step.
    next_step: i64,
}

/// The step that a transaction wrote.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    counts: Counts,
    next: i64,
}

impl Standing {
    /// Reads a file's log.
    pub(super) fn read(connection: &Connection) -> Result<Self, StoreError> {
        let mut select = connection.prepare(LOG).map_err(store_error)?;
        let mut steps = select.query([]).map_err(store_error)?;
        let (mut number, mut counts) = (0, None);
        // the first transaction folds what was read
        let mut standing = Standing { next_step: STEPS_MAX, ..Standing::default() };
        while let Some(step) = steps.next().map_err(store_error)? {
            let blob = |column| step.get::<_, Vec<u8>>(column).map_err(store_error);
            if step.get::<_, i64>(0).map_err(store_error)? != number {
                return Err(damaged("a step of the log is missing"));
            }
            number += 1;
            standing.in_hand.replay(read_runs(&blob(1)?)?, read_runs(&blob(2)?)?);
            counts = Some(blob(3)?);
        }
        // the last step's hold
        if let Some(counts) = counts {
            standing.counts = read_counts(&counts)?;
        } else if connection.query_row(HAS_TASKS, [], |row| row.get(0)).map_err(store_error)? {
            return Err(damaged("the log of steps is missing"));
        }
        Ok(standing)
    }

    /// Takes over a committed transaction's step.
    pub(super) fn adopt(&mut self, Step { counts, next }: Step) {
        (self.counts, self.next_step) = (counts, next);
    }
}

impl Work<'_> {
    /// Adds this transaction's step to the log, if it changed anything of that.
    pub(super) fn write_step(&mut self) -> rusqlite::Result<()> {
        let (standing, handled) = (&self.store.standing, &self.changes.handled);
        let tally = &self.changes.tally;
        if handled.laid.is_empty() && handled.taken.is_empty() && !tally.is_changed() {
            return Ok(());
        }
        let counts = standing.counts.after(tally).ok_or_else(wrong_counts)?;
        let connection = self.connection();
        let (number, laid, taken) = if standing.next_step >= STEPS_MAX {
            connection.prepare_cached(CLEAR)?.execute([])?;
            (0, Vec::new(), runs(standing.in_hand.after(handled)))
        } else {
            (standing.next_step, runs(handled.laid.clone()), runs(handled.taken.clone()))
        };
        let written = counts_bytes(&counts);
        connection.prepare_cached(ADD)?.execute(params![number, laid, taken, written])?;
        self.changes.step = Some(Step { counts, next: number + 1 });
        Ok(())
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, what)
}

/// The counts in the order of the statuses' numbers, each in LEB128.
fn counts_bytes(counts: &Counts) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (_, tasks) in counts.all() {
        write_number(&mut bytes, tasks);
    }
    bytes
}

fn read_counts(bytes: &[u8]) -> Result<Counts, StoreError> {
    let damaged = || damaged("the counts of tasks are damaged");
    let (mut rest, mut numbers) = (bytes.iter(), Vec::new());
    while !rest.as_slice().is_empty() {
        numbers.push(read_number(&mut rest).ok_or_else(damaged)?);
    }
    Counts::of(&numbers).ok_or_else(damaged)
}

/// Numbers as runs of consecutive ones: the distance from the end of the run before and the length,
/// each in LEB128. Rows are mostly taken up and laid down in stretches.
fn runs(mut rows: Vec<u64>) -> Vec<u8> {
    rows.sort_unstable();
    rows.dedup();
    let mut bytes = Vec::new();
    let mut end = 0;
    for run in rows.chunk_by(|one, next| one + 1 == *next) {
        write_number(&mut bytes, run[0] - end);
        write_number(&mut bytes, run.len() as u64);
        end = run[0] + run.len() as u64;
    }
    bytes
}

fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// How many rows one step may name: more can't be in hand, so damage can't fill the memory.
const ROWS_MAX: u64 = 1 << 24;

fn read_runs(bytes: &[u8]) -> Result<Vec<u64>, StoreError> {
    let damaged = || damaged("the log of rows in hand is damaged");
    let (mut rest, mut rows, mut end) = (bytes.iter(), Vec::new(), 0_u64);
    while !rest.as_slice().is_empty() {
        let distance = read_number(&mut rest).ok_or_else(damaged)?;
        let length = read_number(&mut rest).ok_or_else(damaged)?;
        let first = end.checked_add(distance).ok_or_else(damaged)?;
        let sane = length > 0 && length <= ROWS_MAX - rows.len() as u64;
        end = first.checked_add(length).filter(|_| sane).ok_or_else(damaged)?;
        rows.extend(first..end);
    }
    Ok(rows)
}

fn read_number(bytes: &mut std::slice::Iter<'_, u8>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let byte = *bytes.next()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::TaskStatus;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(rows in prop::collection::vec(1..1_u64 << 48, 0..200)) {
            let mut sorted = rows.clone();
            sorted.sort_unstable();
            sorted.dedup();
            prop_assert_eq!(read_runs(&runs(rows)).unwrap(), sorted);
        }

        #[test]
        fn damage_is_an_error_or_other_rows_and_never_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            let _ = (read_runs(&bytes), read_counts(&bytes));
        }

        #[test]
        fn counts_that_are_written_are_read_again(
            tasks in prop::collection::vec(0..1_u64 << 62, TaskStatus::ALL.len())
        ) {
            let counts = Counts::of(&tasks).unwrap();
            prop_assert_eq!(read_counts(&counts_bytes(&counts)).unwrap(), counts);
        }
    }

    #[test]
    fn a_stretch_of_rows_takes_a_few_bytes() {
        assert!(runs((100_000..110_000).collect()).len() <= 6);
    }

    #[test]
    fn more_rows_than_there_can_be_are_damage() {
        let mut bytes = Vec::new();
        write_number(&mut bytes, 1);
        write_number(&mut bytes, ROWS_MAX + 1);
        assert!(read_runs(&bytes).is_err());
    }
}
