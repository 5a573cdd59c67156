//! Rows that can't be: the schema refuses each of them.

use rusqlite::ErrorCode;

use super::*;

/// A row of each state that may be, by the columns that differ from a ready row's.
const POSSIBLE: [(&str, &str); 9] = [
    ("ready", "state = 1"),
    ("waiting", "state = 0, due_or_ended_at = 9"),
    ("held", "state = 10"),
    ("running", "state = 2, started_at = 5"),
    ("finished", "state = 3, due_or_ended_at = 6, output = x'01'"),
    ("failed", "state = 4, due_or_ended_at = 6, error = '{}'"),
    ("callbacking", "state = 3, due_or_ended_at = 6, delivery = 6, targets = 3"),
    ("callbacked", "state = 7, due_or_ended_at = 6, delivery = 5"),
    ("dead", "state = 3, due_or_ended_at = 6, delivery = 9, undelivered = '[]'"),
];

/// What no row may become, from which of the rows above.
const IMPOSSIBLE: [(&str, &str); 18] = [
    ("ready", "state = 5"),
    ("ready", "state = 9"),
    ("ready", "state = 11"),
    ("ready", "state = -1"),
    ("ready", "delivery = 6, targets = 1"),
    ("ready", "delivery = 5"),
    ("ready", "output = x'01'"),
    ("ready", "details = 'max'"),
    ("ready", "kind = null"),
    ("ready", "rank = 'first'"),
    ("held", "delivery = 5"),
    ("held", "output = x'01'"),
    ("running", "delivery = 1, targets = 1"),
    ("finished", "delivery = 10"),
    ("finished", "delivery = 1"),
    ("finished", "delivery = 6"),
    ("failed", "output = x'01'"),
    ("callbacking", "targets = 0"),
];

const READY: &str = "
    insert or replace into task (id, kind, state, delivery, targets, priority, rank, claim_no,
        failures, crashes, checksum, submitted_at, payload)
    values (1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, x'00')";

fn change(connection: &Connection, columns: &str) -> rusqlite::Result<usize> {
    connection.execute(&format!("update task set {columns} where id = 1"), [])
}

#[test]
fn every_impossible_row_is_refused_by_the_database() {
    let mut shard = Shard::new();
    let store = shard.open();
    for (from, columns) in IMPOSSIBLE {
        store.connection.execute(READY, []).unwrap();
        let possible = POSSIBLE.iter().find(|(name, _)| *name == from).unwrap().1;
        change(&store.connection, possible).unwrap();
        let refused = change(&store.connection, columns).expect_err(columns);
        let code = refused.sqlite_error_code();
        assert_eq!(code, Some(ErrorCode::ConstraintViolation), "a {from} row with {columns}");
    }
}

#[test]
fn every_possible_row_is_accepted() {
    let mut shard = Shard::new();
    let store = shard.open();
    for (name, columns) in POSSIBLE {
        store.connection.execute(READY, []).unwrap();
        assert_eq!(change(&store.connection, columns), Ok(1), "{name}");
    }
    store.connection.execute(READY, []).unwrap();
    assert_eq!(change(&store.connection, "payload = null"), Ok(1), "cached arguments");
    assert_eq!(change(&store.connection, "payload = null, details = '{}'"), Ok(1), "a callback");
}
