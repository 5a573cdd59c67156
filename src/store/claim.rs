//! Claiming what stands first in the order.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, params};

use super::changes::Arrival;
use super::kinds::KindId;
use super::row::{self, Details, Targets};
use super::sqlite::SqliteStore;
use super::windows::Next;
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
    select claim_no, failures, crashes, priority, targets, submitted_at, details, checksum, kind,
           payload
      from task
     where id = ?1 and state = 1";

/// Makes a row this process's own. Served by the primary key.
pub(super) const CLAIM: &str = "
    update task
       set state = 2, claim_no = ?3, started_at = ?2
     where id = ?1 and state = 1";

/// Rows whose time has come, earliest first. Served by task_due.
pub(super) const DUE: &str = "
    select id, rank, kind, crashes
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

/// Something that became ready in this transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) place: Place,
    pub(super) kind: KindId,
    pub(super) what: Pick,
}

/// A pick, and whether it goes to a place behind a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picked {
    pub(super) kind: KindId,
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
            self.changes.arrivals.push(Arrival {
                place: Place { rank: row.get(1)?, sequence: sequence as u64 },
                kind: KindId(row.get(2)?),
                suspect: self.store.is_suspect(crashes),
            });
        }
        for id in ids {
            promote.execute([id])?;
        }
        Ok(())
    }

    /// Chooses what to claim: the head of the one order, from the windows, the rows that became
    /// ready in this transaction, and the submissions.
    ///
    /// It stops where it isn't sure of the order: beyond a watermark something on disk may stand
    /// before. What the budget of its queue leaves out is passed over, with what isn't known of it.
    pub(super) fn pick(&self, fresh: Vec<Candidate>) -> Vec<Picked> {
        let claim = &self.batch.claim;
        if claim.suspect {
            return self.pick_suspect();
        }
        let mut picks = Vec::new();
        let (mut slots, mut prefetch) = (claim.slots, claim.prefetch);
        if slots + prefetch == 0 {
            return picks;
        }
        let mut queues = claim.queues.clone();
        let mut others = self.candidates(fresh).into_iter().peekable();
        let departed: HashSet<Place> = self.changes.departures.iter().map(|(_, at)| *at).collect();
        let mut windows = self.store.windows.merged(|kind| self.store.has_budget(kind, &queues));
        // nothing is to wait behind what may take long
        let (mut all_quick, mut behind_ns) = (true, 0_u64);
        while slots + prefetch > 0 {
            let stored = windows.peek();
            let first = match (stored, others.peek()) {
                (None, None) => break,
                (Some((place, _)), Some(other)) => place < Some(other.place),
                (stored, _) => stored.is_some(),
            };
            let next = match (first, stored) {
                (true, Some((_, Next::Row(_, place)))) if departed.contains(&place) => None,
                (true, Some((_, Next::Row(kind, place)))) => {
                    Some(Candidate { place, kind, what: Pick::Stored(place) })
                }
                (true, Some((_, Next::Unknown(kind)))) => {
                    if self.store.has_budget(kind, &queues) {
                        break;
                    }
                    None
                }
                _ => others.peek().copied(),
            };
            let kind = next.and_then(|next| self.kind(next.kind));
            if let (Some(Candidate { kind: id, what, .. }), Some(kind)) = (next, kind)
                && queues.left(kind.queue) > 0
                && let Some(definition) = kind.definition
            {
                let prefetched = slots == 0;
                let lasts_ns = claim.quick.get(definition).copied().flatten();
                all_quick &= lasts_ns.is_some();
                if !prefetched {
                    slots -= 1;
                } else if all_quick && behind_ns < claim.behind_ns {
                    prefetch -= 1;
                    behind_ns = behind_ns.saturating_add(lasts_ns.unwrap_or_default());
                } else {
                    break;
                }
                queues.take(kind.queue);
                picks.push(Picked { kind: id, what, prefetched });
            }
            if first {
                windows.pass();
            } else {
                others.next();
            }
        }
        picks
    }

    /// What became ready in this transaction and may run in this process, in order.
    fn candidates(&self, mut fresh: Vec<Candidate>) -> Vec<Candidate> {
        let arrivals = self.changes.arrivals.iter().filter(|arrival| !arrival.suspect);
        fresh.extend(arrivals.map(|&Arrival { place, kind, .. }| Candidate {
            place,
            kind,
            what: Pick::Stored(place),
        }));
        fresh.sort_unstable_by_key(|candidate| candidate.place);
        fresh
    }

    /// The first suspect, alone.
    fn pick_suspect(&self) -> Vec<Picked> {
        let may_run = |kind: &KindId| {
            let kind = self.kind(*kind).filter(|kind| kind.definition.is_some());
            kind.is_some_and(|kind| self.batch.claim.queues.left(kind.queue) > 0)
        };
        let departed = |place: &Place| self.changes.departures.iter().any(|(_, at)| at == place);
        let arrived = self.changes.arrivals.iter().filter(|arrival| arrival.suspect);
        let known = self.store.suspects.iter().map(|(place, kind)| (*place, *kind));
        let first = known
            .filter(|(place, _)| !departed(place))
            .chain(arrived.map(|arrival| (arrival.place, arrival.kind)))
            .filter(|(_, kind)| may_run(kind))
            .min();
        let picked = first.map(|(place, kind)| Picked {
            kind,
            what: Pick::Stored(place),
            prefetched: false,
        });
        picked.into_iter().collect()
    }

    /// Claims a row that is on disk.
    pub(super) fn claim_stored(
        &mut self,
        kind: KindId,
        place: Place,
        prefetched: bool,
    ) -> rusqlite::Result<()> {
        let now = self.now();
        let connection = self.connection();
        let mut look = self.statements.look.take();
        let read = prepared(&mut look, connection, LOOK)?
            .query_row([place.sequence as i64], |row| self.read_claim(place.sequence, row))
            .optional()?;
        self.statements.look = look;
        self.changes.departures.push((kind, place));
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
        self.changes.handled.taken.push(place.sequence);
        self.result.claims.push(read);
        Ok(())
    }

    /// Reads a row that is about to be claimed, as the claim.
    fn read_claim(&self, sequence: u64, row: &rusqlite::Row<'_>) -> rusqlite::Result<Claim> {
        let (store, id) = (self.store, KindId(row.get(8)?));
        let kind = self.kind(id);
        let (Some(kind), Some(definition)) = (kind, kind.and_then(|kind| kind.definition)) else {
            panic!("only rows of registered definitions are picked");
        };
        let text = row::text(row, 6)?;
        let payload = row.get_ref(9)?.as_blob_or_null()?;
        let known = kind.codec.zip(Details::read(text));
        let counters = row::counters(row, 0)?;
        let Counters { claim_no, failures, crashes } = counters;
        let intact = known.is_some() && claim_no.max(failures).max(crashes) < u32::MAX;
        let (codec, details) = known.unwrap_or_default();
        let sum = row::checksum(&kind.hasher, codec, sequence, payload, text);
        let parent = details.parent(store.shard);
        let input = if !intact || i64::from(sum) != row.get::<_, i64>(7)? {
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
            kind: id,
            queue: kind.queue,
            key: details.key(),
            counters: Counters { claim_no: counters.claim_no.saturating_add(1), ..counters },
            priority: row::priority(row, 3)?,
            submitted_at: Timestamp::from_micros(row.get(5)?),
            input,
            overrides: details.overrides(),
            callbacks: details.callbacks(),
            volatile: Targets::read(row::count(row, 4)?).memory,
            parent,
            prefetched: false,
        })
    }
}

impl SqliteStore {
    /// Whether a row with so many crashes runs alone.
    pub(super) fn is_suspect(&self, crashes: u32) -> bool {
        crashes >= lifecycle::suspect_at(self.options.max_crashes)
    }
}
