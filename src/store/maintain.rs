//! Removing records whose time is over.
//!
//! There is no index over history: it would cost every task a write. A sweep walks the table in
//! order of ids instead, a bounded stretch at a time, and rests between passes. It remembers when
//! the next record expires, so an idle queue is looked at no more often than needed.

use rusqlite::{Transaction, TransactionBehavior, params};

use super::sqlite::SqliteStore;
use super::work::Work;
use super::{Batch, Maintained, row};
use crate::clock::Timestamp;
use crate::lifecycle::{self, State};
use crate::record::{Delivery, Outcome, TaskStatus};

/// How many rows one step looks at.
const STEP: usize = 500;

/// Served by the primary key.
pub(super) const STRETCH: &str = "
    select id, state, delivery, undelivered, due_or_ended_at
      from task
     where id > ?1
     order by id
     limit ?2";

/// Served by the primary key.
pub(super) const REMOVE: &str =
    "delete from task where id = ?1 and state in (3, 4, 7, 8) and delivery in (0, 5, 9)";

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
        let (expired, seen) = self.look(now)?;
        let purged = expired.len();
        if purged > 0 {
            let batch = Batch { now, ..Batch::default() };
            let begun =
                Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
            let mut work = Work::new(self, &batch);
            {
                let mut remove = begun.prepare_cached(REMOVE)?;
                for (sequence, status) in expired {
                    if remove.execute([sequence])? == 1 {
                        work.changes.tally.remove(status);
                    }
                }
            }
            work.write_counts()?;
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
    fn look(&mut self, now: Timestamp) -> rusqlite::Result<(Vec<(i64, TaskStatus)>, usize)> {
        let mut expired = Vec::new();
        let mut seen = 0;
        self.sweep.began.get_or_insert(now);
        let mut select = self.connection.prepare_cached(STRETCH)?;
        let mut rows = select.query(params![self.sweep.after, STEP])?;
        while let Some(found) = rows.next()? {
            seen += 1;
            let sequence: i64 = found.get(0)?;
            self.sweep.after = sequence;
            let state = row::state(found.get(1)?);
            let delivery = row::delivery(found.get(2)?, row::first_reason(found, 3)?);
            let ended_at: Option<i64> = found.get(4)?;
            let open = matches!(delivery, Delivery::Pending | Delivery::Callbacking);
            let (State::Ended(outcome), Some(ended_at)) = (state, ended_at) else { continue };
            let dead = outcome != Outcome::Finished || matches!(delivery, Delivery::Dead(_));
            let keep = if dead { self.options.keep_dead } else { self.options.keep_results };
            let expires = Timestamp::from_micros(ended_at).saturating_add(keep);
            if expires <= now && !open {
                expired.push((sequence, lifecycle::status(state, &delivery)));
            } else {
                let next = self.sweep.next.map_or(expires, |earlier| earlier.min(expires));
                self.sweep.next = Some(next);
            }
        }
        Ok((expired, seen))
    }
}
