//! Reading without changing anything.

use rusqlite::{OptionalExtension, params};

use super::kinds::KindId;
use super::row;
use super::sqlite::SqliteStore;
use super::{ListFilter, ListPage, Lookup};
use crate::clock::Timestamp;
use crate::lifecycle;
use crate::record::{TaskId, TaskRecord};

/// How many rows one page of a list looks at, at most.
const LIST_SCAN: usize = 10_000;

/// Served by the primary key.
pub(super) const GET: &str = concat!("select ", row::record_columns!(), " from task where id = ?1");

/// Served by the primary key.
pub(super) const EXISTS: &str = "select 1 from task where id = ?1";

/// A stretch of the table in order of ids. Served by the primary key.
pub(super) const LIST: &str =
    concat!("select ", row::record_columns!(), " from task where id > ?1 order by id limit ?2");

/// Served by the primary key.
pub(super) const NEXT_DUE: &str = "select at from due order by at limit 1";

impl SqliteStore {
    pub(super) fn read_next_due(&mut self) -> rusqlite::Result<()> {
        let mut select = self.connection.prepare_cached(NEXT_DUE)?;
        let due: Option<i64> = select.query_row([], |row| row.get(0)).optional()?;
        self.next_due = due.map(Timestamp::from_micros);
        Ok(())
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
        let delivery = self.delivery_of(row.get::<_, i64>(0)? as u64, row.get(3)?, None);
        let status = lifecycle::status(row::state(row.get(2)?), &delivery);
        Ok(filter.status.is_none_or(|wanted| wanted == status)
            && filter.name.as_ref().is_none_or(|wanted| kind.is_some_and(|of| of.name == *wanted)))
    }
}
