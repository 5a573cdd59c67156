//! A transaction whose beginning and end are prepared statements that are kept. rusqlite's own has
//! SQLite parse their text each time, which a transaction of one task notices.

use rusqlite::Connection;

const BEGIN: &str = "begin immediate";
const COMMIT: &str = "commit";
const ROLLBACK: &str = "rollback";

/// A write transaction in progress. Dropped, it is rolled back.
#[derive(Debug)]
pub(super) struct Transaction<'c> {
    connection: &'c Connection,
}

impl<'c> Transaction<'c> {
    /// Takes the write lock at once: one that becomes a writer later can fail for good.
    pub(super) fn begin(connection: &'c Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached(BEGIN)?.execute([])?;
        Ok(Transaction { connection })
    }

    /// After an error nothing says whether it is committed; if it isn't, it is rolled back.
    pub(super) fn commit(self) -> rusqlite::Result<()> {
        self.connection.prepare_cached(COMMIT)?.execute([]).map(drop)
    }

    pub(super) fn rollback(self) -> rusqlite::Result<()> {
        self.connection.prepare_cached(ROLLBACK)?.execute([]).map(drop)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SQLite has ended it by itself after some errors
        if !self.connection.is_autocommit()
            && let Ok(mut rollback) = self.connection.prepare_cached(ROLLBACK)
        {
            // there is nothing to be done about one that fails: the next transaction will, too
            let _ = rollback.execute([]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(connection: &Connection) -> i64 {
        connection.query_row("select count(*) from t", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn what_is_committed_stays_and_what_is_dropped_or_rolled_back_does_not() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("create table t (x)").unwrap();
        let insert = |transaction: &Transaction<'_>| {
            transaction.connection.execute("insert into t values (1)", []).unwrap();
        };
        for _ in 0..2 {
            let dropped = Transaction::begin(&connection).unwrap();
            insert(&dropped);
            drop(dropped);
            assert!(connection.is_autocommit() && rows(&connection) == 0);
            let rolled_back = Transaction::begin(&connection).unwrap();
            insert(&rolled_back);
            rolled_back.rollback().unwrap();
            assert!(connection.is_autocommit() && rows(&connection) == 0);
        }
        let committed = Transaction::begin(&connection).unwrap();
        insert(&committed);
        committed.commit().unwrap();
        assert!(connection.is_autocommit() && rows(&connection) == 1);
    }

    #[test]
    fn one_that_cannot_commit_is_rolled_back() {
        let connection = Connection::open_in_memory().unwrap();
        let schema = "create table t (x primary key);
            create table u (x references t (x) deferrable initially deferred);
            pragma foreign_keys = on";
        connection.execute_batch(schema).unwrap();
        let transaction = Transaction::begin(&connection).unwrap();
        connection.execute("insert into u values (1)", []).unwrap();
        transaction.commit().unwrap_err();
        assert!(connection.is_autocommit());
        // and another can begin
        Transaction::begin(&connection).unwrap().commit().unwrap();
    }

    #[test]
    fn one_has_the_write_lock_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Connection::open(dir.path().join("a.db")).unwrap();
        let (one, other) = (open(), open());
        other.busy_timeout(std::time::Duration::ZERO).unwrap();
        let _first = Transaction::begin(&one).unwrap();
        let refused = Transaction::begin(&other).unwrap_err();
        assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy));
    }
}
