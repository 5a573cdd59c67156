//! Claiming what stands first in the order.

use std::collections::HashSet;

use rusqlite::params;

use super::changes::Arrival;
use super::fault::damaged_page;
use super::kinds::KindId;
use super::row::{self, Details, Targets};
use super::sqlite::SqliteStore;
use super::windows::Next;
use super::work::{Work, prepared};
use super::{Claim, ClaimInput, Passing, Takes};
use crate::clock::Timestamp;
use crate::lifecycle;
use crate::order::Place;
use crate::proof::{self, Safeguard};
use crate::record::{Counters, Encoded, TaskStatus};

/// How many due rows one transaction makes ready at most.
const PROMOTE: usize = 1_024;

/// What attempts start from. Served by the primary key. Read before they are claimed: `returning`
/// would build a temporary table for each row, and has no order.
pub(super) const LOOK: &str = "
    select claim_no, failures, crashes, priority, targets, submitted_at, details, checksum, kind,
           payload, id
      from task
     where id between ?1 and ?2 and state = 1
     order by id";

/// Makes rows this process's own that were all looked at. Served by the primary key.
pub(super) const CLAIM_RUN: &str = "
    update task
       set state = 2, claim_no = claim_no + 1, started_at = ?3
     where id between ?1 and ?2 and state = 1";

/// Makes a row this process's own. Served by the primary key.
pub(super) const CLAIM: &str = "
    update task
       set state = 2, claim_no = ?3, started_at = ?2
     where id = ?1 and state = 1";

/// Rows whose time has come, earliest first; without a rank if damage left nothing that waits there.
/// Served by the primary keys.
pub(super) const DUE: &str = "
    select due.at, due.task, task.rank, task.kind, task.crashes
      from due left join task on task.id = due.task and task.state = 0
     where due.at <= ?1
     order by due.at, due.task
     limit ?2";

/// Begins to wait for its time.
const WAIT: &str = "insert or ignore into due (at, task) values (?1, ?2)";

/// Served by the primary key.
pub(super) const WAIT_NO_MORE: &str = "delete from due where at = ?1 and task = ?2";

/// Served by the primary key.
pub(super) const PROMOTE_ONE: &str = "update task set state = 1 where id = ?1 and state = 0";

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
    pub(super) rank: i64,
    pub(super) prefetched: bool,
}

impl Picked {
    /// Whether both are on disk and this one's id comes next.
    pub(super) fn follows(&self, other: &Picked) -> bool {
        match (other.what, self.what) {
            (Pick::Stored(one), Pick::Stored(next)) => one.sequence + 1 == next.sequence,
            _ => false,
        }
    }
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
        let mut no_more = self.connection().prepare_cached(WAIT_NO_MORE)?;
        let mut rows = due.query(params![now.as_micros(), PROMOTE])?;
        let mut over = Vec::new();
        while let Some(row) = rows.next()? {
            let (at, sequence): (i64, i64) = (row.get(0)?, row.get(1)?);
            over.push((at, sequence));
            if let Some(rank) = row.get(2)? {
                self.changes.arrivals.push(Arrival {
                    place: Place { rank, sequence: sequence as u64 },
                    kind: KindId(row.get(3)?),
                    suspect: self.store.is_suspect(row::count(row, 4)?),
                });
            }
        }
        for (at, sequence) in over {
            promote.execute([sequence])?;
            no_more.execute([at, sequence])?;
        }
        Ok(())
    }

    /// Lets a row wait for its time.
    pub(super) fn wait(&mut self, sequence: u64, due: Timestamp) -> rusqlite::Result<()> {
        let mut wait = self.connection().prepare_cached(WAIT)?;
        wait.execute(params![due.as_micros(), sequence as i64])?;
        self.changes.wait_until(due);
        Ok(())
    }

    /// Takes a row back that waits for its time.
    pub(super) fn wait_no_more(&self, sequence: u64, due: Timestamp) -> rusqlite::Result<()> {
        let mut no_more = self.connection().prepare_cached(WAIT_NO_MORE)?;
        no_more.execute(params![due.as_micros(), sequence as i64])?;
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
        let (mut all_quick, mut behind_ns, mut threads) = (true, 0_u64, claim.threads);
        let mut passed = vec![0; claim.passing.len()];
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
            if let (Some(Candidate { kind: id, what, place }), Some(kind)) = (next, kind)
                && queues.left(kind.queue) > 0
                && let Some(definition) = kind.definition
            {
                if !may_pass(place.rank, &claim.passing, &mut passed) {
                    break;
                }
                let prefetched = slots == 0;
                let Takes { quick_ns, blocking } =
                    claim.takes.get(definition).copied().unwrap_or_default();
                all_quick &= blocking || quick_ns.is_some();
                let has_thread = !blocking || threads.take(quick_ns.unwrap_or(u64::MAX));
                if !prefetched {
                    slots -= 1;
                } else if let Some(lasts_ns) = quick_ns
                    && all_quick
                    && has_thread
                    && (blocking || behind_ns < claim.behind_ns)
                {
                    prefetch -= 1;
                    behind_ns += if blocking { 0 } else { lasts_ns };
                } else {
                    break;
                }
                queues.take(kind.queue);
                picks.push(Picked { kind: id, what, rank: place.rank, prefetched });
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
            rank: place.rank,
            prefetched: false,
        });
        picked.into_iter().collect()
    }

    /// Claims rows that are on disk, with ids that follow each other from this one on.
    pub(super) fn claim_stored(&mut self, first: Place, run: &[Picked]) -> rusqlite::Result<()> {
        let (first, now) = (first.sequence as i64, self.now().as_micros());
        let last = first + run.len() as i64 - 1;
        let connection = self.connection();
        let mut look = self.statements.look.take();
        let mut found = Vec::with_capacity(run.len());
        let mut rows = prepared(&mut look, connection, LOOK)?.query([first, last])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(10)?;
            let mut claim = self.read_claim(id as u64, row)?;
            // a damaged page holds ids in the wrong order, and SQLite finds others than it was asked for
            let asked = usize::try_from(id - first).ok().and_then(|at| run.get(at));
            let Picked { rank, prefetched, .. } = *asked.ok_or_else(damaged_page)?;
            (claim.rank, claim.prefetched) = (rank, prefetched);
            found.push(claim);
        }
        drop(rows);
        self.statements.look = look;
        for pick in run {
            if let Pick::Stored(place) = pick.what {
                self.changes.departures.push((pick.kind, place));
            }
        }
        // a damaged counter isn't counted on
        if found.iter().any(|claim| matches!(claim.input, ClaimInput::Corrupt)) {
            for claim in &found {
                let id = claim.id.sequence() as i64;
                let mut update = connection.prepare_cached(CLAIM)?;
                update.execute(params![id, now, claim.counters.claim_no])?;
            }
        } else {
            let update = prepared(&mut self.statements.claim, connection, CLAIM_RUN)?;
            update.execute([first, last, now])?;
        }
        for mut claim in found {
            if let (Some(parent), ClaimInput::Parent(input)) = (claim.parent, &mut claim.input) {
                *input = self.store.read_record(parent.id.sequence())?.map(Box::new);
            }
            self.changes.tally.remove(TaskStatus::NotStarted);
            self.changes.tally.add(TaskStatus::Running);
            self.changes.handled.taken.push(claim.id.sequence());
            self.result.claims.push(claim);
        }
        Ok(())
    }

    /// Reads a row that is about to be claimed, as the claim.
    fn read_claim(&self, sequence: u64, row: &rusqlite::Row<'_>) -> rusqlite::Result<Claim> {
        let (store, id) = (self.store, KindId(row.get(8)?));
        let kind = self.kind(id);
        let (Some(kind), Some(definition)) = (kind, kind.and_then(|kind| kind.definition)) else {
            // only rows of registered definitions are picked
            return Err(damaged_page());
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
        let matches = i64::from(sum) == row.get::<_, i64>(7)?;
        let input = if !intact || !matches && proof::stands(Safeguard::Checksum) {
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
            rank: i64::MAX,
            prefetched: false,
        })
    }
}

/// Whether a task of this rank may pass the first tasks of other shards that stand before it, which so
/// many have passed already. It counts as one more then.
fn may_pass(rank: i64, passing: &[Passing], passed: &mut [usize]) -> bool {
    let mut before = passing.iter().zip(&*passed).filter(|(other, _)| rank > other.rank);
    if before.any(|(other, passed)| *passed >= other.tasks) {
        return false;
    }
    for (other, passed) in passing.iter().zip(passed) {
        *passed += usize::from(rank > other.rank);
    }
    true
}

impl SqliteStore {
    /// Whether a row with so many crashes runs alone.
    pub(super) fn is_suspect(&self, crashes: u32) -> bool {
        crashes >= lifecycle::suspect_at(self.options.max_crashes)
    }
}
