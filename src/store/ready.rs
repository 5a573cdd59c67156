//! Which rows may run, on disk: stretches of rows that became ready together.
//!
//! An index over ready rows would cost each of them two writes, one when it becomes ready and one
//! when it is claimed. A stretch covers up to [`SPAN`] ids of one kind and one rank and costs one
//! write for all of them: of the rows in it, those that are ready, of this kind and of this rank, are
//! the ones that it is about. So claiming one writes nothing here; a stretch of which nothing is left
//! is removed when the head of the order has passed it.

use rusqlite::{OptionalExtension, params};

use super::changes::Arrival;
use super::kinds::KindId;
use super::row;
use super::sqlite::SqliteStore;
use super::work::Work;
use crate::order::Place;

/// How many ids a stretch covers at most: what one look at it reads. The schema says so, too, and
/// `recover::READY` relies on it.
const SPAN: u64 = 256;

/// How many ids of others may stand between two rows of a stretch.
const GAP_MAX: u64 = 8;

/// The next stretch of a kind that reaches beyond a place. Served by the primary key.
pub(super) const NEXT: &str = "
    select rank, first, last
      from ready
     where kind = ?1 and rank >= ?2 and (rank > ?2 or last > ?3)
     order by rank, first
     limit 1";

/// The ready rows of a stretch. Served by the primary key.
pub(super) const ROWS: &str = "
    select id, crashes
      from task
     where id between ?1 and ?2 and state = 1 and kind = ?3 and rank = ?4
     order by id";

/// A row that comes back to its place has a stretch of its own within the one that it came with, if
/// that is still there: who reads on from the end of a stretch finds it once.
const ADD: &str = "
    insert into ready (kind, rank, first, last) values (?1, ?2, ?3, ?4)
        on conflict (kind, rank, first) do update set last = max(last, excluded.last)";

/// Removes the stretches of a kind that end before a place. Served by the primary key.
pub(super) const REMOVE_BEFORE: &str = "
    delete from ready where kind = ?1 and rank <= ?2 and (rank < ?2 or last < ?3)";

/// What a look at a kind's next stretch has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its ready rows, in order.
    pub(super) rows: Vec<Arrival>,
    /// How far it reaches; `None` if there is none.
    pub(super) end: Option<Place>,
}

impl SqliteStore {
    /// The next stretch of a kind with something after a place, and its rows after it.
    pub(super) fn next_ready(&self, kind: KindId, after: Option<Place>) -> rusqlite::Result<Found> {
        let (from, behind) =
            after.map_or((i64::MIN, -1), |place| (place.rank, place.sequence as i64));
        let mut next = self.connection.prepare_cached(NEXT)?;
        let stretch = next.query_row(params![kind.0, from, behind], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        let Some((rank, first, last)) = stretch.optional()? else { return Ok(Found::default()) };
        let first = if rank == from { first.max(behind + 1) } else { first };
        let mut rows = self.connection.prepare_cached(ROWS)?;
        let rows = rows.query_map(params![first, last, kind.0, rank], |row| {
            let place = Place { rank, sequence: row.get::<_, i64>(0)? as u64 };
            Ok(Arrival { place, kind, suspect: self.is_suspect(row::count(row, 1)?) })
        })?;
        let rows = rows.collect::<rusqlite::Result<_>>()?;
        Ok(Found { rows, end: Some(Place { rank, sequence: last as u64 }) })
    }

    /// Before which place no row of a kind is ready; `None` if nothing is known of it.
    fn head_of(&self, kind: KindId) -> Option<Place> {
        let window = self.windows.get(kind)?;
        let unknown = match window.may_refill() {
            // beyond it rows may be on disk, whatever is known of suspects there
            true => {
                window.refill_after().map(|last| Place { sequence: last.sequence + 1, ..last })?
            }
            false => Place { rank: i64::MAX, sequence: i64::MAX as u64 },
        };
        let suspect = self.suspects.iter().find(|(_, of)| **of == kind).map(|(place, _)| *place);
        window.iter().next().into_iter().chain(suspect).chain([unknown]).min()
    }
}

impl Work<'_> {
    /// Writes down what became ready in this transaction and wasn't claimed, and removes what the
    /// head has passed.
    pub(super) fn write_ready(&mut self) -> rusqlite::Result<()> {
        // first: what became ready now can stand before that head
        if self.changes.tally.is_changed() {
            self.changes.cleaned = self.store.passed.clone();
            for kind in &self.changes.cleaned {
                let Some(head) = self.store.head_of(*kind) else { continue };
                let mut remove = self.connection().prepare_cached(REMOVE_BEFORE)?;
                remove.execute(params![kind.0, head.rank, head.sequence as i64])?;
            }
        }
        if self.changes.arrivals.is_empty() {
            return Ok(());
        }
        let arrivals = self.changes.arrivals.iter();
        let mut rows: Vec<_> = arrivals.map(|arrival| (arrival.kind, arrival.place)).collect();
        rows.sort_unstable();
        let mut add = self.connection().prepare_cached(ADD)?;
        for (kind, first, last) in stretches(&rows) {
            add.execute(params![kind.0, first.rank, first.sequence as i64, last as i64])?;
        }
        Ok(())
    }
}

/// Sorted rows as stretches: their kind, their first place and their last id.
fn stretches(rows: &[(KindId, Place)]) -> Vec<(KindId, Place, u64)> {
    let mut found: Vec<(KindId, Place, u64)> = Vec::new();
    for (kind, place) in rows {
        let id = place.sequence;
        match found.last_mut() {
            Some((of, first, last))
                if (*of, first.rank) == (*kind, place.rank)
                    && id - *last <= GAP_MAX + 1
                    && id - first.sequence < SPAN =>
            {
                *last = id;
            }
            _ => found.push((*kind, *place, id)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: i64, rank: i64, ids: impl IntoIterator<Item = u64>) -> Vec<(KindId, Place)> {
        ids.into_iter().map(|sequence| (KindId(kind), Place { rank, sequence })).collect()
    }

    fn shown(rows: &[(KindId, Place)]) -> Vec<(i64, i64, u64, u64)> {
        let shown = stretches(rows).into_iter();
        shown.map(|(kind, first, last)| (kind.0, first.rank, first.sequence, last)).collect()
    }

    #[test]
    fn rows_of_one_kind_and_rank_that_stand_near_each_other_are_one_stretch() {
        assert_eq!(shown(&of(1, 5, [3, 4, 9, 18])), [(1, 5, 3, 18)]);
        assert_eq!(shown(&of(1, 5, [3, 13])), [(1, 5, 3, 3), (1, 5, 13, 13)]);
    }

    #[test]
    fn another_kind_or_rank_is_another_stretch() {
        let rows = [of(1, 5, [3, 4]), of(1, 6, [5]), of(2, 6, [6])].concat();
        assert_eq!(shown(&rows), [(1, 5, 3, 4), (1, 6, 5, 5), (2, 6, 6, 6)]);
    }

    #[test]
    fn a_stretch_covers_so_many_ids_and_no_more() {
        let rows = of(1, 5, 1..=600);
        assert_eq!(shown(&rows), [(1, 5, 1, 256), (1, 5, 257, 512), (1, 5, 513, 600)]);
    }
}
