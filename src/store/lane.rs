//! Tasks with an ordering key: the first of each key may run, the others are held behind it.
//!
//! The holder of a key is the one of its tasks that isn't held. It keeps the key while it waits for a
//! retry, and gives it to the first of the others when it ends.

use rusqlite::{OptionalExtension, params};

use super::changes::Arrival;
use super::kinds::KindId;
use super::row;
use super::sqlite::SqliteStore;
use super::work::Work;
use crate::clock::Timestamp;
use crate::keys;
use crate::lifecycle::State;
use crate::order::Place;

/// Served by the primary key, as all of these are.
pub(super) const FIRST: &str =
    "select task from lane where slot = ?1 and key = ?2 order by task limit 1";

pub(super) const ENTER: &str = "insert into lane (slot, key, task) values (?1, ?2, ?3)";

pub(super) const LEAVE: &str = "delete from lane where slot = ?1 and key = ?2 and task = ?3";

/// Looks at all that wait: for a row whose key can't be read any more.
const FIND: &str = "select key from lane where task = ?1";

pub(super) const HEAD: &str =
    "select state, kind, rank, crashes, due_or_ended_at from task where id = ?1";

pub(super) const RELEASE: &str = "update task set state = ?2 where id = ?1 and state = 10";

/// The next slot that has a task: with each, the index is entered anew, however many tasks a slot
/// has.
pub(super) const NEXT_SLOT: &str = "select slot from lane where slot > ?1 order by slot limit 1";

impl SqliteStore {
    /// The slots of which a task waits or runs.
    pub(super) fn slots_in_use(&self) -> rusqlite::Result<Vec<u16>> {
        let mut select = self.connection.prepare_cached(NEXT_SLOT)?;
        let mut slots: Vec<u16> = Vec::new();
        loop {
            let after = slots.last().map_or(-1, |slot| i64::from(*slot));
            let next: Option<u16> = select.query_row([after], |row| row.get(0)).optional()?;
            match next {
                Some(slot) => slots.push(slot),
                None => return Ok(slots),
            }
        }
    }

    /// The first task of a key, if there is one that hasn't ended.
    pub(super) fn first_of(&self, key: &str) -> rusqlite::Result<Option<i64>> {
        let mut select = self.connection.prepare_cached(FIRST)?;
        select.query_row((keys::slot_of(key), key), |row| row.get(0)).optional()
    }
}

impl Work<'_> {
    /// Puts a task behind those of its key.
    pub(super) fn enter_lane(&self, key: &str, sequence: u64) -> rusqlite::Result<()> {
        let mut enter = self.connection().prepare_cached(ENTER)?;
        enter.execute(params![keys::slot_of(key), key, sequence as i64])?;
        Ok(())
    }

    /// Takes a task out that has ended. If it held its key, the next has it now.
    pub(super) fn leave_lane(
        &mut self,
        key: &str,
        sequence: u64,
        held: bool,
    ) -> rusqlite::Result<()> {
        let mut leave = self.connection().prepare_cached(LEAVE)?;
        leave.execute(params![keys::slot_of(key), key, sequence as i64])?;
        if held { Ok(()) } else { self.release_first(key) }
    }

    /// As [`leave_lane`](Work::leave_lane), of a row that damage left without its key.
    pub(super) fn leave_any_lane(&mut self, sequence: u64) -> rusqlite::Result<()> {
        let mut find = self.connection().prepare_cached(FIND)?;
        let key = find.query_row([sequence as i64], |row| row.get::<_, String>(0)).optional()?;
        key.map_or(Ok(()), |key| self.leave_lane(&key, sequence, false))
    }

    /// Lets the first of a key run, unless a task of it holds the key. One that has ended, or that
    /// damage left without a row, is passed over.
    pub(super) fn release_first(&mut self, key: &str) -> rusqlite::Result<()> {
        while let Some(sequence) = self.store.first_of(key)? {
            let mut head = self.connection().prepare_cached(HEAD)?;
            let found = head.query_row([sequence], |row| {
                let due = row.get::<_, Option<i64>>(4)?.map(Timestamp::from_micros);
                let kind = KindId(row.get(1)?);
                Ok((row::state(row.get(0)?), kind, row.get(2)?, row::count(row, 3)?, due))
            });
            match found.optional()? {
                Some((State::Held, kind, rank, crashes, due)) => {
                    let place = Place { rank, sequence: sequence as u64 };
                    let suspect = self.store.is_suspect(crashes);
                    return self.release(Arrival { place, kind, suspect }, due);
                }
                Some((State::Waiting | State::Ready | State::Running, ..)) => return Ok(()),
                Some((State::Ended(_), ..)) | None => {
                    let mut leave = self.connection().prepare_cached(LEAVE)?;
                    leave.execute(params![keys::slot_of(key), key, sequence])?;
                }
            }
        }
        Ok(())
    }

    fn release(&mut self, held: Arrival, due: Option<Timestamp>) -> rusqlite::Result<()> {
        let due = due.filter(|due| *due > self.now());
        let state = if due.is_some() { State::Waiting } else { State::Ready };
        let mut release = self.connection().prepare_cached(RELEASE)?;
        let sequence = held.place.sequence as i64;
        release.execute(params![sequence, state.code()])?;
        match due {
            Some(due) => self.wait(held.place.sequence, due)?,
            None => self.changes.arrivals.push(held),
        }
        Ok(())
    }
}
