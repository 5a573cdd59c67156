//! Reading without changing anything.

use rusqlite::{OptionalExtension, params};

use super::changes::Arrival;
use super::kinds::KindId;
use super::row;
use super::sqlite::SqliteStore;
use super::{ListFilter, ListPage, Lookup};
use crate::clock::Timestamp;
use crate::lifecycle;
use crate::order::Place;
use crate::record::{TaskId, TaskRecord, TaskStatus};

/// How many rows one page of a list looks at, at most.
const LIST_SCAN: usize = 10_000;

/// Served by the primary key.
pub(super) const GET: &str = concat!("select ", row::record_columns!(), " from task where id = ?1");

/// Served by the primary key.
pub(super) const EXISTS: &str = "select 1 from task where id = ?1";

/// A stretch of the table in order of ids. Served by the primary key.
pub(super) const LIST: &str =
    concat!("select ", row::record_columns!(), " from task where id > ?1 order by id limit ?2");

/// Ready rows of a kind after a place, in order. Served by task_ready; equal ranks stand in order of id.
pub(super) const READY_AFTER: &str = "
    select id, rank, crashes
      from task
     where state = 1 and kind = ?1 and rank >= ?2 and (rank > ?2 or id > ?3)
     order by rank, id
     limit ?4";

/// Served by task_due.
pub(super) const NEXT_DUE: &str =
    "select due_or_ended_at from task where state = 0 order by due_or_ended_at limit 1";

const TALLY: &str = "select status, tasks from tally";

impl SqliteStore {
    pub(super) fn read_next_due(&mut self) -> rusqlite::Result<()> {
        let mut select = self.connection.prepare_cached(NEXT_DUE)?;
        let due: Option<i64> = select.query_row([], |row| row.get(0)).optional()?;
        self.next_due = due.map(Timestamp::from_micros);
        Ok(())
    }

    pub(super) fn ready_after(
        &self,
        kind: KindId,
        after: Option<Place>,
        limit: usize,
    ) -> rusqlite::Result<Vec<Arrival>> {
        let (rank, sequence) =
            after.map_or((i64::MIN, -1), |place| (place.rank, place.sequence as i64));
        let mut select = self.connection.prepare_cached(READY_AFTER)?;
        let rows = select.query_map(params![kind.0, rank, sequence, limit], |row| {
            let sequence = row.get::<_, i64>(0)? as u64;
            let place = Place { rank: row.get(1)?, sequence };
            Ok(Arrival { place, kind, suspect: self.is_suspect(row::count(row, 2)?) })
        })?;
        rows.collect()
    }

    pub(super) fn exists(&self, sequence: u64) -> rusqlite::Result<bool> {
        self.connection.prepare_cached(EXISTS)?.exists([sequence as i64])
    }

    pub(super) fn read_record(&self, sequence: u64) -> rusqlite::Result<Option<TaskRecord>> {
        let mut select = self.connection.prepare_cached(GET)?;
        select.query_row([sequence as i64], |row| row::record(self, row)).optional()
    }

    pub(super) fn lookup(&self, id: TaskId) -> rusqlite::Result<Lookup> {
        if let Some(record) = self.read_record(id.sequence())? {
            return Ok(Lookup::Found(Box::new(record)));
        }
        let given = id.sequence() > 0 && id.sequence() < self.next;
        Ok(if given { Lookup::Gone } else { Lookup::Never })
    }

    /// A page of the list: short, with a `next`, if few of the rows looked at match.
    pub(super) fn page(&self, filter: &ListFilter) -> rusqlite::Result<ListPage> {
        let mut page = ListPage::default();
        let mut select = self.connection.prepare_cached(LIST)?;
        let mut rows = select.query(params![filter.after as i64, LIST_SCAN])?;
        let mut looked_at = 0;
        while let Some(row) = rows.next()? {
            looked_at += 1;
            let sequence = row.get(0)?;
            // payloads are read of the rows that match only
            if self.matches(filter, row)? {
                page.tasks.push(row::record(self, row)?);
            }
            if page.tasks.len() >= filter.limit || looked_at == LIST_SCAN {
                page.next = Some(sequence);
                break;
            }
        }
        Ok(page)
    }

    fn matches(&self, filter: &ListFilter, row: &rusqlite::Row<'_>) -> rusqlite::Result<bool> {
        let kind = self.kinds.get(KindId(row.get(1)?));
        let status = lifecycle::status(row::state(row.get(2)?), &row::delivery(row.get(3)?, None));
        Ok(filter.status.is_none_or(|wanted| wanted == status)
            && filter.name.as_ref().is_none_or(|wanted| kind.is_some_and(|of| of.name == *wanted)))
    }

    /// From the tally: nothing is scanned.
    pub(super) fn read_not_started(&mut self) -> rusqlite::Result<()> {
        let counts = self.read_tally()?;
        let mut counts = counts.iter().filter(|(status, _)| *status == TaskStatus::NotStarted);
        self.not_started = counts.next().map_or(0, |(_, tasks)| *tasks);
        Ok(())
    }

    pub(super) fn read_tally(&self) -> rusqlite::Result<Vec<(TaskStatus, u64)>> {
        let mut select = self.connection.prepare_cached(TALLY)?;
        let rows = select.query_map([], |row| Ok((row.get::<_, u8>(0)?, row.get::<_, i64>(1)?)))?;
        let mut counts = Vec::new();
        for row in rows {
            let (code, tasks) = row?;
            if let Some(status) = TaskStatus::from_code(code) {
                counts.push((status, u64::try_from(tasks).unwrap_or(0)));
            }
        }
        Ok(counts)
    }
}
