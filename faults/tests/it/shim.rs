//! Control: the faults fire, and a plain connection sees the error that SQLite has for each.

use message_queue_sqlite_faults::{Faults, File, Operation, Plan};
use rusqlite::{Connection, ffi};
use tempfile::TempDir;

/// A connection to a file with a log, in a directory with faults.
struct Plain {
    place: TempDir,
    faults: Faults,
}

impl Plain {
    fn new() -> Self {
        let place = TempDir::new().unwrap();
        let faults = Faults::below(place.path());
        Plain { place, faults }
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(self.place.path().join("plain.db"))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", 2)?;
        connection.execute_batch("create table if not exists number (number integer)")?;
        Ok(connection)
    }
}

fn insert(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute("insert into number values (1)", [])
}

fn count(connection: &Connection) -> i64 {
    connection.query_row("select count(*) from number", [], |row| row.get(0)).unwrap()
}

#[track_caller]
fn code<T: std::fmt::Debug>(result: rusqlite::Result<T>) -> i32 {
    result.unwrap_err().sqlite_error().unwrap().extended_code
}

#[test]
fn a_failed_write_is_seen_once() {
    let plain = Plain::new();
    let connection = plain.connect().unwrap();
    plain.faults.arm(Plan::fail(Operation::Write).on(File::Log));
    assert_eq!(code(insert(&connection)), ffi::SQLITE_IOERR_WRITE);
    insert(&connection).unwrap();
    assert_eq!((count(&connection), plain.faults.fired()), (1, 1));
}

#[test]
fn a_full_disk_stays_full_until_it_is_healed() {
    let plain = Plain::new();
    let connection = plain.connect().unwrap();
    plain.faults.arm(Plan::disk_full().on(File::Log).for_ever());
    assert_eq!(code(insert(&connection)), ffi::SQLITE_FULL);
    assert_eq!(code(insert(&connection)), ffi::SQLITE_FULL);
    plain.faults.heal();
    insert(&connection).unwrap();
    assert_eq!((count(&connection), plain.faults.fired()), (1, 2));
}

#[test]
fn a_failed_sync_fails_the_commit() {
    let plain = Plain::new();
    let connection = plain.connect().unwrap();
    plain.faults.arm(Plan::fail(Operation::Sync).on(File::Log));
    assert_eq!(code(insert(&connection)), ffi::SQLITE_IOERR_FSYNC);
    assert_eq!(plain.faults.fired(), 1);
}

#[test]
fn a_failed_read_fails_the_query() {
    let plain = Plain::new();
    insert(&plain.connect().unwrap()).unwrap();
    let connection = plain.connect().unwrap();
    plain.faults.arm(Plan::fail(Operation::Read).on(File::Database).for_ever());
    connection.pragma_update(None, "cache_size", 0).unwrap();
    connection.execute_batch("pragma shrink_memory").unwrap();
    let counted =
        connection.query_row("select count(*) from number", [], |row| row.get::<_, i64>(0));
    assert_eq!(code(counted), ffi::SQLITE_IOERR_READ);
    assert!(plain.faults.fired() > 0);
}

#[test]
fn a_file_that_cannot_be_opened_is_no_connection() {
    let plain = Plain::new();
    plain.faults.arm(Plan::fail(Operation::Open).on(File::Database));
    assert_eq!(code(plain.connect()), ffi::SQLITE_CANTOPEN);
    assert_eq!(plain.faults.fired(), 1);
    plain.connect().unwrap();
}

#[test]
fn a_log_that_cannot_be_cut_fails_the_checkpoint() {
    let plain = Plain::new();
    let connection = plain.connect().unwrap();
    insert(&connection).unwrap();
    plain.faults.arm(Plan::fail(Operation::Truncate).on(File::Log));
    let cut = connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()));
    assert_eq!(code(cut), ffi::SQLITE_IOERR_TRUNCATE);
    assert_eq!(plain.faults.fired(), 1);
}

#[test]
fn a_journal_that_cannot_be_deleted_fails_the_commit() {
    let plain = Plain::new();
    let connection = plain.connect().unwrap();
    connection.pragma_update(None, "journal_mode", "delete").unwrap();
    plain.faults.arm(Plan::fail(Operation::Delete).on(File::Journal));
    assert_eq!(code(insert(&connection)), ffi::SQLITE_IOERR_DELETE);
    assert_eq!(plain.faults.fired(), 1);
}

#[test]
fn what_isnt_watched_works() {
    let (plain, other) = (Plain::new(), Plain::new());
    plain.faults.arm(Plan::fail_any().for_ever());
    insert(&other.connect().unwrap()).unwrap();
    assert_eq!(plain.faults.fired(), 0);
    plain.connect().unwrap_err();
    drop(plain.faults);
    Connection::open(plain.place.path().join("plain.db")).unwrap();
}

#[test]
fn everything_is_counted() {
    let plain = Plain::new();
    insert(&plain.connect().unwrap()).unwrap();
    for (operation, file) in [
        (Operation::Open, File::Database),
        (Operation::Open, File::Log),
        (Operation::Read, File::Database),
        (Operation::Write, File::Log),
        (Operation::Sync, File::Log),
        (Operation::Delete, File::Log),
    ] {
        assert!(plain.faults.seen(operation, file) > 0, "{operation:?} of the {file:?}");
    }
}
