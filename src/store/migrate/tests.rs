use std::fs;

use super::*;
use crate::error::StoreErrorKind;
use crate::record::ShardId;
use crate::store::open::{self, OpenKind, OpenedShard};
use crate::store::testing::{Place, first, mode, options, stranger};

/// What the next release could bring.
const SECOND: Migration =
    Migration { name: "0002_colour", sql: "alter table kind add column colour text" };
const BROKEN: Migration =
    Migration { name: "0002_broken", sql: "create table extra (x); create table extra (x)" };

/// A shard of version 1 with one row, opened twice.
fn version_1() -> Place {
    let place = Place::with_shards(1);
    let opened = first(&place.open(), 0).unwrap();
    opened
        .connection
        .execute("insert into kind (name, queue, codec) values ('old', 'default', 1)", [])
        .unwrap();
    open::close_clean(opened.connection, 7).unwrap();
    place
}

fn open_as(place: &Place, last: Migration) -> Result<OpenedShard, StoreError> {
    let directory = place.open();
    let migrations = [MIGRATIONS, &[last]].concat();
    open::open_with(&directory, ShardId(0), &options(), OpenKind::First, &migrations)
}

fn version(connection: &Connection) -> u32 {
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

#[test]
fn an_older_file_is_migrated_after_a_copy_was_made() {
    let place = version_1();
    let opened = open_as(&place, SECOND).unwrap();
    assert_eq!((version(&opened.connection), opened.epoch, opened.reserved), (2, 3, 7));
    let row = "select name, colour from kind where colour is null";
    let name: String = opened.connection.query_row(row, [], |row| row.get(0)).unwrap();
    assert_eq!(name, "old");
    let copy = place.path().join("backups/shard-000-v1-2.db");
    assert_eq!((mode(&copy), mode(copy.parent().unwrap())), (0o600, 0o700));
    let copy = stranger(&copy);
    assert_eq!(version(&copy), 1);
    let name: String = copy.query_row("select name from kind", [], |row| row.get(0)).unwrap();
    assert_eq!(name, "old");
}

#[test]
fn a_migrated_file_is_opened_again_without_another_copy() {
    let place = version_1();
    drop(open_as(&place, SECOND).unwrap());
    assert_eq!(open_as(&place, SECOND).unwrap().epoch, 4);
    assert_eq!(fs::read_dir(place.path().join("backups")).unwrap().count(), 1);
}

#[test]
fn a_new_file_has_the_newest_version_and_no_copy() {
    let place = Place::new();
    let directory = place.open();
    directory.ensure_shards(1).unwrap();
    drop(directory);
    let opened = open_as(&place, SECOND).unwrap();
    assert_eq!((version(&opened.connection), opened.created), (2, true));
    assert!(!place.path().join("backups").exists());
}

#[test]
fn a_migration_that_fails_leaves_the_older_version_whole() {
    let place = version_1();
    let error = open_as(&place, BROKEN).unwrap_err();
    assert!(error.to_string().contains("0002_broken"), "{error}");
    let opened = first(&place.open(), 0).unwrap();
    assert_eq!((version(&opened.connection), opened.epoch), (1, 3));
}

#[test]
fn an_older_program_refuses_the_migrated_file_and_a_changed_migration_is_noticed() {
    let place = version_1();
    drop(open_as(&place, SECOND).unwrap());
    let error = first(&place.open(), 0).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NewerSchema);
    let changed = Migration { sql: "alter table kind add column size text", ..SECOND };
    let error = open_as(&place, changed).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::SchemaMismatch);
}

#[test]
fn an_older_file_with_a_planted_trigger_is_not_migrated() {
    let place = version_1();
    let trigger = "create trigger evil after insert on kind begin delete from task; end";
    stranger(&place.shard(0)).execute_batch(trigger).unwrap();
    let before = place.bytes();
    let error = open_as(&place, SECOND).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::SchemaMismatch);
    assert_eq!(place.bytes(), before);
    assert!(!place.path().join("backups").exists());
}
