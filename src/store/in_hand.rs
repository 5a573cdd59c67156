//! Which rows a process has in hand: running, or on their way to targets in memory.
//!
//! They are in the log of [`steps`](super::steps). So a task costs no write of its own for this, and a
//! recovery looks at no row that nobody had in hand.
//!
//! A row whose result is sent to targets in memory and to nobody else says at once that it was
//! called back, and that is true as soon as the row is laid down: as long as it is in hand, it is
//! being called back. So the end of such a delivery, which most tasks have, writes no row. (In a
//! two-phase commit this is called presumed commit: C. Mohan, B. Lindsay, R. Obermarck, "Transaction
//! management in the R* distributed database management system", 1986.)

use crate::record::{BySequence, Sequences};

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
}

impl InHand {
    /// Takes over a step of the log.
    pub(super) fn replay(&mut self, laid: Vec<u64>, taken: Vec<u64>) {
        for row in laid {
            self.rows.remove(&row);
        }
        self.rows.extend(taken.into_iter().map(|row| (row, Held::Live)));
    }

    /// Those that will be in hand after a transaction.
    pub(super) fn after(&self, handled: &Handled) -> Vec<u64> {
        let laid: Sequences = handled.laid.iter().copied().collect();
        let held = self.rows.keys().filter(|row| !laid.contains(row));
        held.chain(&handled.taken).copied().collect()
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
        self.replay(handled.laid, handled.taken);
        self.rows.extend(handled.sent.into_iter().map(|(row, no)| (row, Held::Sent(no))));
    }
}
