//! The windows of all kinds, and the order across them.
//!
//! Each kind has a window of its own, an exact prefix of the order of its ready rows. Merged, they
//! are the one order of the shard, and a kind that may not run now (its queue is paused, or full)
//! is left out without being in the way of the others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::kinds::KindId;
use super::window::Window;
use crate::order::Place;

/// However many kinds share the capacity, each may keep so many rows.
const EACH: usize = 256;

/// The windows of a store.
#[derive(Debug)]
pub(super) struct Windows {
    of_kind: BTreeMap<KindId, Window>,
    /// How many rows all windows have.
    len: usize,
    capacity: usize,
}

/// The next in the merged order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Row(KindId, Place),
    /// Behind this, rows of the kind may stand on disk that nobody has seen.
    Unknown(KindId),
}

impl Windows {
    pub(super) fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "the windows hold at least one task");
        Windows { of_kind: BTreeMap::new(), len: 0, capacity }
    }

    /// A kind that the file had before: nobody knows what there is of it.
    pub(super) fn add_stored(&mut self, kind: KindId) {
        self.of_kind.entry(kind).or_insert_with(Window::new);
    }

    /// A kind that was stored just now: nothing of it is on disk.
    pub(super) fn add_new(&mut self, kind: KindId) {
        self.of_kind.entry(kind).or_insert_with(Window::complete);
    }

    pub(super) fn get(&self, kind: KindId) -> Option<&Window> {
        self.of_kind.get(&kind)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (KindId, &Window)> {
        self.of_kind.iter().map(|(kind, window)| (*kind, window))
    }

    /// Takes note of a row that became ready. One beyond its kind's watermark stays on disk.
    pub(super) fn insert(&mut self, kind: KindId, place: Place) {
        let room = self.room(kind);
        let Some(window) = self.of_kind.get_mut(&kind) else { return };
        let before = window.len();
        window.insert(place, before + room);
        self.len = self.len + window.len() - before;
    }

    /// Forgets a row that is ready no longer. Tells whether it was there.
    pub(super) fn remove(&mut self, kind: KindId, place: Place) -> bool {
        let removed = self.of_kind.get_mut(&kind).is_some_and(|window| window.remove(place));
        self.len -= usize::from(removed);
        removed
    }

    /// How many more rows a kind's window may take.
    pub(super) fn room(&self, kind: KindId) -> usize {
        let own = self.of_kind.get(&kind).map_or(0, Window::len);
        let each = EACH.min(self.capacity);
        self.capacity.saturating_sub(self.len).max(each.saturating_sub(own))
    }

    /// Adds what a refill read. See [`Window::refilled`].
    pub(super) fn refilled(&mut self, kind: KindId, rows: Vec<Place>, end: Option<Place>) {
        let Some(window) = self.of_kind.get_mut(&kind) else { return };
        let before = window.len();
        window.refilled(rows, end);
        self.len = self.len + window.len() - before;
    }

    /// The merged order of the kinds that `may_run`.
    pub(super) fn merged(&self, may_run: impl Fn(KindId) -> bool) -> Merged<'_> {
        let mut heads = BinaryHeap::new();
        let mut sources = Vec::new();
        let worth = |window: &Window| window.len() > 0 || window.may_refill();
        for (kind, window) in &self.of_kind {
            if !worth(window) || !may_run(*kind) {
                continue;
            }
            let source = Source { kind: *kind, window, rows: Box::new(window.iter()) };
            sources.push(source);
        }
        for (index, source) in sources.iter_mut().enumerate() {
            heads.extend(source.head().map(|head| Reverse((head, index))));
        }
        Merged { heads, sources }
    }
}

/// A place in the merged order; after an equal row comes what isn't known behind it.
type Head = (Option<Place>, bool);

struct Source<'w> {
    kind: KindId,
    window: &'w Window,
    rows: Box<dyn Iterator<Item = Place> + 'w>,
}

impl Source<'_> {
    /// The next row, or the end of what is known.
    fn head(&mut self) -> Option<Head> {
        match self.rows.next() {
            Some(place) => Some((Some(place), false)),
            None if self.window.may_refill() => Some((self.window.refill_after(), true)),
            None => None,
        }
    }
}

/// Walks over the windows in the one order.
pub(super) struct Merged<'w> {
    heads: BinaryHeap<Reverse<(Head, usize)>>,
    sources: Vec<Source<'w>>,
}

impl Merged<'_> {
    /// The next, which stays.
    pub(super) fn peek(&self) -> Option<(Option<Place>, Next)> {
        let Reverse(((place, unknown), index)) = *self.heads.peek()?;
        let kind = self.sources[index].kind;
        Some(match place {
            Some(row) if !unknown => (place, Next::Row(kind, row)),
            _ => (place, Next::Unknown(kind)),
        })
    }

    /// Passes over the next. What isn't known behind it comes after it.
    pub(super) fn pass(&mut self) {
        let Some(Reverse(((_, unknown), index))) = self.heads.pop() else { return };
        if !unknown {
            self.heads.extend(self.sources[index].head().map(|head| Reverse((head, index))));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(rank: i64) -> Place {
        Place { rank, sequence: 1 }
    }

    fn kind(id: i64) -> KindId {
        KindId(id)
    }

    /// Everything that is known, in order.
    fn walk(windows: &Windows, without: i64) -> Vec<(i64, i64)> {
        let mut merged = windows.merged(|of| of != kind(without));
        let mut seen = Vec::new();
        while let Some((_, Next::Row(of, place))) = merged.peek() {
            seen.push((of.0, place.rank));
            merged.pass();
        }
        seen
    }

    #[test]
    fn the_order_across_kinds_stops_where_one_of_them_is_not_known_further() {
        let mut windows = Windows::new(1_000);
        windows.add_new(kind(1));
        windows.add_stored(kind(2));
        windows.refilled(kind(2), vec![at(2), at(4)], Some(at(4)));
        for rank in [1, 3, 5, 7] {
            windows.insert(kind(1), at(rank));
        }
        assert_eq!(walk(&windows, 0), [(1, 1), (2, 2), (1, 3), (2, 4)]);
        assert_eq!(walk(&windows, 2), [(1, 1), (1, 3), (1, 5), (1, 7)], "it isn't in the way");
    }

    #[test]
    fn a_kind_that_nobody_has_looked_at_comes_before_all_that_is_known() {
        let mut windows = Windows::new(1_000);
        windows.add_new(kind(1));
        windows.insert(kind(1), at(i64::MIN));
        windows.add_stored(kind(2));
        assert_eq!(windows.merged(|_| true).peek(), Some((None, Next::Unknown(kind(2)))));
    }

    #[test]
    fn one_kind_takes_all_the_room_and_leaves_the_others_a_little() {
        let mut windows = Windows::new(1_000);
        windows.add_new(kind(1));
        windows.add_new(kind(2));
        (0..2_000).for_each(|rank| windows.insert(kind(1), at(rank)));
        assert_eq!(windows.room(kind(2)), EACH);
        (0..2_000).for_each(|rank| windows.insert(kind(2), at(rank)));
        let lengths: Vec<usize> = windows.iter().map(|(_, window)| window.len()).collect();
        assert_eq!(lengths, [1_000, EACH]);
        assert_eq!(windows.len, 1_000 + EACH);
    }

    proptest! {
        #[test]
        fn merged_windows_are_the_order_of_all_their_rows(
            rows in prop::collection::vec((1..4_i64, -50..50_i64), 0..60)
        ) {
            let mut windows = Windows::new(1_000);
            (1..4).for_each(|id| windows.add_new(kind(id)));
            let mut expected = rows;
            expected.sort_unstable_by_key(|(of, rank)| (*rank, *of));
            expected.dedup();
            expected.iter().for_each(|(of, rank)| windows.insert(kind(*of), at(*rank)));
            prop_assert_eq!(walk(&windows, 0), expected);
        }
    }
}
