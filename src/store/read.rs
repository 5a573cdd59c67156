//! Reading without changing anything.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::row;
use super::sqlite::{Arrival, SqliteStore};
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

/// Ready rows after a place, in order. Served by task_ready; equal ranks stand in order of id.
pub(super) const READY_AFTER: &str = "
    select id, rank, name, crashes
      from task
     where state = 1 and rank >= ?1 and (rank > ?1 or id > ?2)
     order by rank, id
     limit ?3";

/// Served by task_due.
pub(super) const NEXT_DUE: &str =
    "select due_or_ended_at from task where state = 0 order by due_or_ended_at limit 1";

const TALLY: &str = "select status, tasks from tally";

const NAMES: &str = "select id, name from name";

const INSERT_NAME: &str = "insert into name (name) values (?1)";

/// Stores a definition's name and returns its number.
pub(super) fn insert_name(connection: &Connection, name: &Arc<str>) -> rusqlite::Result<i64> {
    connection.prepare_cached(INSERT_NAME)?.execute([name.as_ref()])?;
    Ok(connection.last_insert_rowid())
}

impl SqliteStore {
    /// Reads the stored names and adds those of definitions that are new here.
    pub(super) fn load_names(&mut self) -> rusqlite::Result<()> {
        let registered = self.options.names.clone();
        let index_of = |name: &str| registered.iter().position(|known| known.as_ref() == name);
        let mut stored = Vec::new();
        let mut select = self.connection.prepare(NAMES)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            stored.push((row.get::<_, i64>(0)?, Arc::<str>::from(row.get::<_, String>(1)?)));
        }
        drop(rows);
        drop(select);
        for (id, name) in &stored {
            self.names.add(*id, name, index_of(name));
        }
        let fresh = registered.iter().enumerate().filter(|(_, name)| self.names.id(name).is_none());
        let fresh: Vec<_> = fresh.collect();
        if !fresh.is_empty() {
            let transaction = self.connection.unchecked_transaction()?;
            let mut ids = Vec::with_capacity(fresh.len());
            for (index, name) in &fresh {
                ids.push((insert_name(&transaction, name)?, (*name).clone(), *index));
            }
            transaction.commit()?;
            for (id, name, index) in ids {
                self.names.add(id, &name, Some(index));
            }
        }
        self.names.register(&registered);
        Ok(())
    }

    pub(super) fn read_next_due(&mut self) -> rusqlite::Result<()> {
        let mut select = self.connection.prepare_cached(NEXT_DUE)?;
        let due: Option<i64> = select.query_row([], |row| row.get(0)).optional()?;
        self.next_due = due.map(Timestamp::from_micros);
        Ok(())
    }

    pub(super) fn ready_after(
        &self,
        after: Option<Place>,
        limit: usize,
    ) -> rusqlite::Result<Vec<Arrival>> {
        let (rank, sequence) =
            after.map_or((i64::MIN, -1), |place| (place.rank, place.sequence as i64));
        let mut select = self.connection.prepare_cached(READY_AFTER)?;
        let rows = select.query_map(params![rank, sequence, limit], |row| {
            Ok(self.arrival(row.get(0)?, row.get(1)?, row.get(2)?, row::count(row, 3)?))
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
        let name = self.names.name(row.get(1)?);
        let status = lifecycle::status(row::state(row.get(2)?), &row::delivery(row.get(3)?, None));
        Ok(filter.status.is_none_or(|wanted| wanted == status)
            && filter.name.as_ref().is_none_or(|wanted| Some(wanted) == name))
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
