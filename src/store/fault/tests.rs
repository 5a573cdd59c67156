use rusqlite::{Connection, named_params};

use super::*;

#[test]
fn result_codes_have_the_kind_that_the_callers_decide_by() {
    for (code, kind) in [
        (ffi::SQLITE_FULL, StoreErrorKind::Full),
        (ffi::SQLITE_IOERR_WRITE, StoreErrorKind::Full),
        (ffi::SQLITE_IOERR_READ, StoreErrorKind::Io),
        (ffi::SQLITE_IOERR_FSYNC, StoreErrorKind::Io),
        (ffi::SQLITE_BUSY, StoreErrorKind::Busy),
        (ffi::SQLITE_BUSY_SNAPSHOT, StoreErrorKind::Busy),
        (ffi::SQLITE_LOCKED, StoreErrorKind::Busy),
        (ffi::SQLITE_CORRUPT, StoreErrorKind::Corrupt),
        (ffi::SQLITE_CORRUPT_INDEX, StoreErrorKind::Corrupt),
        (ffi::SQLITE_NOTADB, StoreErrorKind::NotADatabase),
        (ffi::SQLITE_CANTOPEN, StoreErrorKind::Permission),
        (ffi::SQLITE_CANTOPEN_SYMLINK, StoreErrorKind::NotAFile),
        (ffi::SQLITE_PERM, StoreErrorKind::Permission),
        (ffi::SQLITE_READONLY, StoreErrorKind::Permission),
        (ffi::SQLITE_READONLY_DBMOVED, StoreErrorKind::Missing),
        (ffi::SQLITE_AUTH, StoreErrorKind::Permission),
        (ffi::SQLITE_TOOBIG, StoreErrorKind::Other),
    ] {
        let error = SqliteError::SqliteFailure(ffi::Error::new(code), None);
        assert_eq!(from_sqlite("try", &error).kind(), kind, "code {code}");
    }
}

#[test]
fn system_errors_have_the_kind_that_the_callers_decide_by() {
    for (errno, kind) in [
        (Errno::NOSPC, StoreErrorKind::Full),
        (Errno::DQUOT, StoreErrorKind::Full),
        (Errno::ACCESS, StoreErrorKind::Permission),
        (Errno::ROFS, StoreErrorKind::Permission),
        (Errno::NOENT, StoreErrorKind::Missing),
        (Errno::LOOP, StoreErrorKind::NotAFile),
        (Errno::IO, StoreErrorKind::Io),
    ] {
        assert_eq!(kind_of_io(&errno.into()), kind, "{errno}");
    }
}

#[test]
fn a_full_database_is_full_and_can_be_tried_again() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("create table t (x); pragma max_page_count = 4").unwrap();
    let filled = connection.execute("insert into t values (zeroblob(100000))", []);
    let error = filled.fault("insert").unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Full);
    assert!(error.is_transient());
}

#[test]
fn no_message_contains_a_bound_value() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "create table t (n integer unique check (n <> 7), s text check (length(s) < 40)) strict;
             insert into t values (1, 'canary')",
        )
        .unwrap();
    let canary = "canary-".repeat(10);
    let insert = "insert into t values (:n, :s)";
    let errors = [
        connection.execute(insert, named_params! {":n": 2, ":s": canary}).unwrap_err(),
        connection.execute(insert, named_params! {":n": 1, ":s": "canary"}).unwrap_err(),
        connection.execute(insert, named_params! {":n": "canary", ":s": "x"}).unwrap_err(),
        connection
            .execute("select json_extract('{}', :p)", named_params! {":p": "canary"})
            .unwrap_err(),
        connection
            .query_row("select json_extract('{}', :p)", named_params! {":p": "canary"}, |_| Ok(()))
            .unwrap_err(),
        connection.query_row("select s from t", [], |row| row.get::<_, i64>(0)).unwrap_err(),
        connection.query_row("select 1 where 0", [], |_| Ok(())).unwrap_err(),
    ];
    for error in errors {
        let error = from_sqlite("insert a row", &error);
        let text = format!("{error} {error:?}");
        assert!(text.contains("cannot insert a row: "), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn a_broken_constraint_names_its_column() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("create table t (n unique); insert into t values (1)").unwrap();
    let error = connection.execute("insert into t values (1)", []).unwrap_err();
    assert_eq!(store_error(error).to_string(), "UNIQUE constraint failed: t.n (2067)");
}

#[test]
fn a_failed_write_is_a_broken_disk_or_one_without_space() {
    assert_eq!(kind_of_write(Some(Errno::IO)), StoreErrorKind::Io);
    for other in [Some(Errno::FBIG), Some(Errno::DQUOT), None] {
        assert_eq!(kind_of_write(other), StoreErrorKind::Full);
    }
}
