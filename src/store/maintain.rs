//! Removing records whose time is over, and listing anew what damage has left unlisted.
//!
//! There is no index over history: it would cost every task a write. A sweep walks the table in
//! order of ids instead, a bounded stretch at a time, and rests between passes. It remembers when
//! the next record expires, so an idle queue is looked at no more often than needed.
//!
//! What may run, what waits for its time and what waits to be sent is listed in tables of its own. A
//! task that damage to the file took out of its list would never be found; the sweep comes by.

use rusqlite::{Row, params};

use super::changes::Arrival;
use super::kinds::KindId;
use super::sqlite::SqliteStore;
use super::transaction::Transaction;
use super::work::Work;
use super::{Batch, Maintained, row};
use crate::clock::Timestamp;
use crate::lifecycle::{self, State};
use crate::order::Place;
use crate::record::{Delivery, Outcome, TaskStatus};

/// How many rows one step looks at.
const STEP: usize = 500;

/// Served by the primary key.
pub(super) const STRETCH: &str = "
    select id, state, delivery, undelivered, due_or_ended_at, kind, rank, crashes
      from task
     where id > ?1
     order by id
     limit ?2";

/// Served by the primary key.
pub(super) const REMOVE: &str =
    "delete from task where id = ?1 and state in (3, 4, 7, 8) and delivery in (0, 5, 9)";

/// Served by the primary keys, as these three are.
pub(super) const IS_READY: &str = "
    select 1
      from ready
     where kind = ?1 and rank = ?2 and first between ?3 - 255 and ?3 and last >= ?3";

pub(super) const IS_DUE: &str = "select 1 from due where at = ?1 and task = ?2";

pub(super) const IS_PENDING: &str = "select 1 from pending where task = ?1";

/// What a sweep has found in a stretch.
#[derive(Debug, Default)]
struct Found {
    /// How many rows it looked at.
    seen: usize,
    expired: Vec<(i64, TaskStatus)>,
    /// What isn't listed where it would be looked for.
    ready: Vec<Arrival>,
    due: Vec<(u64, Timestamp)>,
    pending: Vec<u64>,
}

impl Found {
    fn unlisted(&self) -> usize {
        self.ready.len() + self.due.len() + self.pending.len()
    }
}

/// How far the present pass has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Sweep {
    after: i64,
    /// When the pass began.
    began: Option<Timestamp>,
    /// When the next record expires, as far as this pass has seen.
    next: Option<Timestamp>,
}

impl SqliteStore {
    /// Looks at the next stretch of the table and removes what has been kept long enough.
    pub(super) fn sweep_some(&mut self, now: Timestamp) -> rusqlite::Result<Maintained> {
        let before = self.sweep.clone();
        let swept = self.sweep_stretch(now);
        if swept.is_err() {
            // what wasn't removed is looked at again
            self.sweep = before;
        }
        swept
    }

    fn sweep_stretch(&mut self, now: Timestamp) -> rusqlite::Result<Maintained> {
        let found = self.look(now)?;
        let (seen, purged) = (found.seen, found.expired.len());
        if purged + found.unlisted() > 0 {
            let batch = Batch { now, ..Batch::default() };
            let begun = Transaction::begin(&self.connection)?;
            let mut work = Work::new(self, &batch);
            {
                let mut remove = self.connection.prepare_cached(REMOVE)?;
                for (sequence, status) in &found.expired {
                    if remove.execute([sequence])? == 1 {
                        work.changes.tally.remove(*status);
                    }
                }
            }
            work.list(found)?;
            work.write_standing()?;
            let (changes, _) = work.finish();
            begun.commit()?;
            self.commits += 1;
            self.adopt(changes);
        }
        if seen == STEP {
            return Ok(Maintained { purged, again_at: Some(now) });
        }
        let rested = now.saturating_add(self.options.sweep);
        let sweep = std::mem::take(&mut self.sweep);
        // what has ended since the pass began expires no sooner
        let began = sweep.began.unwrap_or(now);
        let kept = began.saturating_add(self.options.keep_results.min(self.options.keep_dead));
        let again_at = sweep.next.map_or(kept, |next| next.min(kept)).max(rested);
        Ok(Maintained { purged, again_at: Some(again_at) })
    }

    /// What of the next stretch has expired, and how many rows were looked at.
    fn look(&mut self, now: Timestamp) -> rusqlite::Result<Found> {
        let mut all = Found::default();
        self.sweep.began.get_or_insert(now);
        let mut select = self.connection.prepare_cached(STRETCH)?;
        let mut rows = select.query(params![self.sweep.after, STEP])?;
        while let Some(found) = rows.next()? {
            all.seen += 1;
            let sequence: i64 = found.get(0)?;
            self.sweep.after = sequence;
            let state = row::state(found.get(1)?);
            let reason = row::first_reason(found, 3)?;
            let delivery = self.delivery_of(sequence as u64, found.get(2)?, reason);
            let ended_at: Option<i64> = found.get(4)?;
            self.find_unlisted(found, state, &delivery, &mut all)?;
            let open = matches!(delivery, Delivery::Pending | Delivery::Callbacking);
            let (State::Ended(outcome), Some(ended_at)) = (state, ended_at) else { continue };
            let dead = outcome != Outcome::Finished || matches!(delivery, Delivery::Dead(_));
            let keep = if dead { self.options.keep_dead } else { self.options.keep_results };
            let expires = Timestamp::from_micros(ended_at).saturating_add(keep);
            if expires <= now && !open {
                all.expired.push((sequence, lifecycle::status(state, &delivery)));
            } else {
                let next = self.sweep.next.map_or(expires, |earlier| earlier.min(expires));
                self.sweep.next = Some(next);
            }
        }
        Ok(all)
    }

    /// Looks whether a row is listed where it would be looked for.
    fn find_unlisted(
        &self,
        found: &Row<'_>,
        state: State,
        delivery: &Delivery,
        all: &mut Found,
    ) -> rusqlite::Result<()> {
        let id: i64 = found.get(0)?;
        let sequence = id as u64;
        let listed = |sql, key: &[i64]| {
            let mut select = self.connection.prepare_cached(sql)?;
            select.exists(rusqlite::params_from_iter(key))
        };
        if state == State::Ready {
            let (kind, rank) = (found.get(5)?, found.get(6)?);
            if !listed(IS_READY, &[kind, rank, id])? {
                let suspect = self.is_suspect(row::count(found, 7)?);
                let place = Place { rank, sequence };
                all.ready.push(Arrival { place, kind: KindId(kind), suspect });
            }
        } else if state == State::Waiting
            && let Some(at) = found.get(4)?
            && !listed(IS_DUE, &[at, id])?
        {
            all.due.push((sequence, Timestamp::from_micros(at)));
        } else if *delivery == Delivery::Pending && !listed(IS_PENDING, &[id])? {
            all.pending.push(sequence);
        }
        Ok(())
    }
}

impl Work<'_> {
    /// Lists what wasn't.
    fn list(&mut self, found: Found) -> rusqlite::Result<()> {
        if found.unlisted() > 0 {
            let (shard, tasks) = (self.store.shard, found.unlisted());
            tracing::error!(%shard, tasks, "tasks were missing in the lists of a damaged file");
        }
        self.changes.arrivals.extend(found.ready);
        for (sequence, at) in found.due {
            self.wait(sequence, at)?;
        }
        for sequence in found.pending {
            self.pending(sequence)?;
        }
        Ok(())
    }
}
