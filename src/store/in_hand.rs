//! Which rows a process has in hand: running, or on their way to targets in memory.
//!
//! A log in the file, read when it is opened. Each transaction that takes rows up or lays them down
//! adds one step; after some steps, all of them are folded into one. So a task costs no write of its
//! own for this, and a recovery looks at no row that nobody had in hand.
//!
//! A row whose result is sent to targets in memory and to nobody else says at once that it was
//! called back, and that is true as soon as the row is laid down: as long as it is in hand, it is
//! being called back. So the end of such a delivery, which most tasks have, writes no row. (In a
//! two-phase commit this is called presumed commit: C. Mohan, B. Lindsay, R. Obermarck, "Transaction
//! management in the R* distributed database management system", 1986.)

use rusqlite::{Connection, params};

use super::work::Work;
use crate::error::{StoreError, StoreErrorKind};
use crate::record::{BySequence, Sequences};

/// How many steps the log has at most: enough that folding costs little, and all fit in a few pages.
const STEPS_MAX: i64 = 64;

const LOG: &str = "select laid, taken from in_hand order by step";

const ADD: &str = "insert into in_hand (step, laid, taken) values (?1, ?2, ?3)";

const CLEAR: &str = "delete from in_hand";

/// What a row is in hand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// An attempt, or a delivery to several targets.
    Live,
    /// A delivery to memory alone, of the result of this claim.
    Sent(u32),
}

/// The rows in hand, as the last commit left them.
#[derive(Debug, Default)]
pub(super) struct InHand {
    rows: BySequence<Held>,
    /// The number of the next step.
    step: i64,
}

/// What a transaction changes: first rows are laid down, then others taken up.
#[derive(Debug, Default)]
pub(super) struct Handled {
    pub(super) laid: Vec<u64>,
    pub(super) taken: Vec<u64>,
    /// Those in hand, or taken, that are sent to memory alone, each with the claim that ended so.
    pub(super) sent: Vec<(u64, u32)>,
    /// Those that were sent and aren't any more.
    pub(super) unsent: Sequences,
    /// The number of the step after this transaction's, if it wrote one.
    next_step: Option<i64>,
}

impl InHand {
    /// Reads a file's log.
    pub(super) fn read(connection: &Connection) -> Result<Self, StoreError> {
        let fault = super::fault::store_error;
        let mut select = connection.prepare(LOG).map_err(fault)?;
        let mut steps = select.query([]).map_err(fault)?;
        let mut rows = BySequence::default();
        while let Some(step) = steps.next().map_err(fault)? {
            for row in read_runs(&step.get::<_, Vec<u8>>(0).map_err(fault)?)? {
                rows.remove(&row);
            }
            let taken = read_runs(&step.get::<_, Vec<u8>>(1).map_err(fault)?)?;
            rows.extend(taken.into_iter().map(|row| (row, Held::Live)));
        }
        // the first transaction folds what was read
        Ok(InHand { rows, step: STEPS_MAX })
    }

    /// All of them, in order.
    pub(super) fn sorted(&self) -> Vec<u64> {
        let mut rows: Vec<u64> = self.rows.keys().copied().collect();
        rows.sort_unstable();
        rows
    }

    /// Which claim's result is being sent to memory alone.
    pub(super) fn sent(&self, row: u64) -> Option<u32> {
        match self.rows.get(&row)? {
            Held::Live => None,
            Held::Sent(claim_no) => Some(*claim_no),
        }
    }

    /// Takes note of a delivery that an earlier opening of the file began.
    pub(super) fn found_sent(&mut self, row: u64, claim_no: u32) {
        self.rows.insert(row, Held::Sent(claim_no));
    }

    /// Takes over what a committed transaction changed.
    pub(super) fn adopt(&mut self, handled: Handled) {
        for row in handled.laid {
            self.rows.remove(&row);
        }
        self.rows.extend(handled.taken.into_iter().map(|row| (row, Held::Live)));
        self.rows.extend(handled.sent.into_iter().map(|(row, no)| (row, Held::Sent(no))));
        self.step = handled.next_step.unwrap_or(self.step);
    }
}

impl Work<'_> {
    /// Adds this transaction's step to the log.
    pub(super) fn write_in_hand(&mut self) -> rusqlite::Result<()> {
        let store = self.store;
        let connection = self.connection();
        let handled = &mut self.changes.handled;
        if handled.laid.is_empty() && handled.taken.is_empty() {
            return Ok(());
        }
        let mut step = store.in_hand.step;
        let (laid, taken) = if step >= STEPS_MAX {
            let laid: Sequences = handled.laid.iter().copied().collect();
            let held = store.in_hand.rows.keys().filter(|row| !laid.contains(row));
            let rows = held.chain(&handled.taken).copied().collect();
            connection.prepare_cached(CLEAR)?.execute([])?;
            step = 0;
            (Vec::new(), runs(rows))
        } else {
            (runs(handled.laid.clone()), runs(handled.taken.clone()))
        };
        connection.prepare_cached(ADD)?.execute(params![step, laid, taken])?;
        handled.next_step = Some(step + 1);
        Ok(())
    }
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
    let damaged = || StoreError::new(StoreErrorKind::Corrupt, "the log of rows in hand is damaged");
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
            let _ = read_runs(&bytes);
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
