//! The part of a kind's order that is kept in memory: an exact prefix of it.
//!
//! Every row that may run and whose place isn't beyond the watermark is in the window. Rows
//! beyond it are only on disk; when the window runs low it is refilled from there in order, and
//! when it grows over its capacity its tail goes and the watermark moves back. So memory is bounded
//! however long the backlog is, and the head of the window is the head of the whole order.

use std::collections::BTreeSet;

use crate::order::Place;

/// How far down the order the window reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watermark {
    /// To this place, itself included; `None` is before the first one.
    UpTo(Option<Place>),
    /// To the end: there is nothing on disk that the window doesn't have.
    End,
}

/// An exact prefix of the order of a kind's ready tasks.
#[derive(Debug)]
pub(crate) struct Window {
    rows: BTreeSet<Place>,
    watermark: Watermark,
}

impl Window {
    /// A window that knows nothing yet: everything may be on disk.
    pub(crate) fn new() -> Self {
        Window { rows: BTreeSet::new(), watermark: Watermark::UpTo(None) }
    }

    /// A window over nothing: all that becomes ready from now on will be in it.
    pub(crate) fn complete() -> Self {
        Window { rows: BTreeSet::new(), watermark: Watermark::End }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether rows beyond the window may be on disk.
    pub(crate) fn may_refill(&self) -> bool {
        self.watermark != Watermark::End
    }

    /// After which place a refill reads on.
    pub(crate) fn refill_after(&self) -> Option<Place> {
        match self.watermark {
            Watermark::UpTo(place) => place,
            Watermark::End => None,
        }
    }

    /// Whether `place` lies within the prefix that the window knows exactly.
    fn covers(&self, place: Place) -> bool {
        match self.watermark {
            Watermark::End => true,
            Watermark::UpTo(None) => false,
            Watermark::UpTo(Some(last)) => place <= last,
        }
    }

    /// The head of the order, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Place> + '_ {
        self.rows.iter().copied()
    }

    /// Takes note of a row that became ready. A place beyond the watermark stays on disk; what goes
    /// beyond `capacity` goes from the end.
    pub(crate) fn insert(&mut self, place: Place, capacity: usize) {
        if !self.covers(place) {
            return;
        }
        self.rows.insert(place);
        while self.rows.len() > capacity {
            self.rows.pop_last();
            self.watermark = Watermark::UpTo(self.rows.last().copied());
        }
    }

    /// Forgets a row that is ready no longer.
    pub(crate) fn remove(&mut self, place: Place) -> bool {
        self.rows.remove(&place)
    }

    /// Adds what a refill read: the rows that may run, and up to which place it looked; `None` if it
    /// looked to the end.
    pub(crate) fn refilled(&mut self, rows: impl IntoIterator<Item = Place>, end: Option<Place>) {
        self.rows.extend(rows);
        self.watermark = end.map_or(Watermark::End, |last| Watermark::UpTo(Some(last)));
    }
}

#[cfg(test)]
mod tests;
