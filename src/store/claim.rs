//! Claiming what stands first in the order.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, params};

use super::row::{self, Details};
use super::sqlite::{Arrival, SqliteStore};
use super::work::{Work, prepared};
use super::{Claim, ClaimInput};
use crate::clock::Timestamp;
use crate::lifecycle;
use crate::order::Place;
use crate::record::{Counters, Encoded, TaskStatus};

/// How many due rows one transaction makes ready at most.
const PROMOTE: usize = 1_024;

/// What an attempt starts from. Served by the primary key. Read before it is claimed: `returning`
/// would build a temporary table for each row.
pub(super) const LOOK: &str = "
    select claim_no, failures, crashes, priority, codec, volatile, submitted_at, parent, details,
           checksum, name, payload
      from task
     where id = ?1 and state = 1";

/// Makes a row this process's own. Served by the primary key.
pub(super) const CLAIM: &str = "
    update task
       set state = 2, live = 1, claim_no = ?3, started_at = ?2
     where id = ?1 and state = 1";

/// Rows whose time has come, earliest first. Served by task_due.
pub(super) const DUE: &str = "
    select id, rank, name, crashes
      from task
     where state = 0 and due_or_ended_at <= ?1
     order by due_or_ended_at, id
     limit ?2";

/// Served by the primary key.
pub(super) const PROMOTE_ONE: &str =
    "update task set state = 1, due_or_ended_at = null where id = ?1 and state = 0";

/// Something that may be claimed: an index into the submissions, or a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pick {
    Fresh(usize),
    Stored(Place),
}

/// A pick, and whether it goes to a place behind a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picked {
    pub(super) what: Pick,
    pub(super) prefetched: bool,
}

impl Work<'_> {
    /// Makes rows ready whose time has come.
    pub(super) fn promote_due(&mut self) -> rusqlite::Result<()> {
        let now = self.now();
        if self.store.next_due.is_none_or(|due| due > now) {
            return Ok(());
        }
        self.changes.promoted = true;
        let mut due = self.connection().prepare_cached(DUE)?;
        let mut promote = self.connection().prepare_cached(PROMOTE_ONE)?;
        let mut rows = due.query(params![now.as_micros(), PROMOTE])?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next()? {
            let sequence: i64 = row.get(0)?;
            ids.push(sequence);
            let crashes = row::count(row, 3)?;
            let arrival = self.store.arrival(sequence, row.get(1)?, row.get(2)?, crashes);
            self.changes.arrivals.push(arrival);
        }
        for id in ids {
            promote.execute([id])?;
        }
        Ok(())
    }

    /// Chooses what to claim: the head of the one order, from the window, the rows that became
    /// ready in this transaction, and the submissions.
    ///
    /// It stops where it isn't sure of the order: beyond the watermark something on disk may stand
    /// before.
    pub(super) fn pick(&self, fresh: Vec<(Place, Pick, usize)>) -> Vec<Picked> {
        let budget = &self.batch.claim;
        if budget.suspect {
            return self.pick_suspect();
        }
        let (mut slots, mut prefetch) = (budget.slots, budget.prefetch);
        let mut others = fresh;
        others.extend(self.changes.arrivals.iter().filter(|arrival| !arrival.suspect).filter_map(
            |arrival| {
                let definition = arrival.definition?;
                Some((arrival.place, Pick::Stored(arrival.place), definition))
            },
        ));
        others.sort_unstable_by_key(|(place, ..)| *place);
        let departed: HashSet<Place> = self.changes.departures.iter().copied().collect();
        let mut others = others.into_iter().peekable();
        let window = self.store.window.iter();
        let mut window = window.filter(|(place, _)| !departed.contains(place)).peekable();
        let mut picks = Vec::new();
        // nothing is to wait behind what may take long
        let mut all_quick = true;
        while slots + prefetch > 0 {
            let from_window = match (window.peek(), others.peek()) {
                (None, None) => break,
                (Some(_), None) => true,
                (None, Some((place, ..))) if !self.store.window.covers(*place) => break,
                (None, Some(_)) => false,
                (Some((mine, _)), Some((theirs, ..))) => mine < theirs,
            };
            let next = if from_window {
                window.peek().map(|(place, definition)| (Pick::Stored(*place), *definition))
            } else {
                others.peek().map(|(_, what, definition)| (*what, *definition))
            };
            let Some((what, definition)) = next else { break };
            let prefetched = slots == 0;
            all_quick &= budget.quick.get(definition).copied().unwrap_or(false);
            if !prefetched {
                slots -= 1;
            } else if all_quick {
                prefetch -= 1;
            } else {
                break;
            }
            if from_window {
                window.next();
            } else {
                others.next();
            }
            picks.push(Picked { what, prefetched });
        }
        picks
    }

    /// The first suspect, alone.
    fn pick_suspect(&self) -> Vec<Picked> {
        let arrived = self.changes.arrivals.iter();
        let arrived = arrived.filter(|arrival| arrival.suspect && arrival.definition.is_some());
        let known = self.store.suspects.keys().copied();
        let first = known
            .filter(|place| !self.changes.departures.contains(place))
            .chain(arrived.map(|arrival| arrival.place))
            .min();
        first
            .map(|place| Picked { what: Pick::Stored(place), prefetched: false })
            .into_iter()
            .collect()
    }

    /// Claims a row that is on disk.
    pub(super) fn claim_stored(&mut self, place: Place, prefetched: bool) -> rusqlite::Result<()> {
        let now = self.now();
        let (connection, store) = (self.connection(), self.store);
        let read = prepared(&mut self.statements.look, connection, LOOK)?
            .query_row([place.sequence as i64], |row| read_claim(store, place.sequence, row))
            .optional()?;
        self.changes.departures.push(place);
        let Some(mut read) = read else { return Ok(()) };
        prepared(&mut self.statements.claim, connection, CLAIM)?.execute(params![
            place.sequence as i64,
            now.as_micros(),
            read.counters.claim_no,
        ])?;
        read.prefetched = prefetched;
        if let (Some(parent), ClaimInput::Parent(input)) = (read.parent, &mut read.input) {
            *input = self.store.read_record(parent.id.sequence())?.map(Box::new);
        }
        self.changes.tally.remove(TaskStatus::NotStarted);
        self.changes.tally.add(TaskStatus::Running);
        self.result.claims.push(read);
        Ok(())
    }
}

/// Reads a row that is about to be claimed, as the claim.
fn read_claim(
    store: &SqliteStore,
    sequence: u64,
    row: &rusqlite::Row<'_>,
) -> rusqlite::Result<Claim> {
    let definition = store.names.definition(row.get(10)?);
    let definition = definition.expect("only rows of registered definitions are picked");
    let text = row::text(row, 8)?;
    let payload = row.get_ref(11)?.as_blob_or_null()?;
    let known = row::codec(row.get(4)?).zip(Details::read(text));
    let counters = row::counters(row, 0)?;
    let Counters { claim_no, failures, crashes } = counters;
    let intact = known.is_some() && claim_no.max(failures).max(crashes) < u32::MAX;
    let (codec, details) = known.unwrap_or_default();
    let sum = row::checksum(store.names.of(definition).1, codec, sequence, payload, text);
    let parent = row.get::<_, Option<i64>>(7)?.map(|parent| store.id(parent));
    let input = if !intact || i64::from(sum) != row.get::<_, i64>(9)? {
        ClaimInput::Corrupt
    } else if parent.is_some() {
        ClaimInput::Parent(None)
    } else if let Some(bytes) = payload {
        ClaimInput::Encoded(Encoded { codec, bytes: bytes.into() })
    } else {
        ClaimInput::Cached
    };
    Ok(Claim {
        id: store.id(sequence as i64),
        definition,
        counters: Counters { claim_no: counters.claim_no.saturating_add(1), ..counters },
        priority: row::priority(row, 3)?,
        submitted_at: Timestamp::from_micros(row.get(6)?),
        input,
        overrides: details.overrides(),
        callbacks: details.callbacks(),
        volatile: row.get(5)?,
        parent: details.parent(parent),
        prefetched: false,
    })
}

impl SqliteStore {
    /// A row that is ready, as the window wants it.
    pub(super) fn arrival(&self, sequence: i64, rank: i64, name: i64, crashes: u32) -> Arrival {
        Arrival {
            place: Place { rank, sequence: sequence as u64 },
            definition: self.names.definition(name),
            suspect: crashes >= lifecycle::suspect_at(self.options.max_crashes),
        }
    }
}
