//! Files that are refused, with every byte of the directory as it was.

use super::*;

/// Opens shard 0 and expects to be refused with nothing changed and nothing left behind.
fn refused(place: &Place) -> StoreError {
    let directory = place.open();
    let before = place.bytes();
    let error = first(&directory, 0).expect_err("it was to be refused");
    assert_eq!(place.bytes(), before, "{error}");
    assert!(error.to_string().contains("shard-000.db"), "{error}");
    let rebuilt = rebuild(&directory, 0).expect_err("it was to be refused");
    assert_eq!(rebuilt.kind(), error.kind());
    error
}

/// Lets another program change shard 0.
fn planted(sql: &str) -> Place {
    let place = Place::with_shards(1);
    stranger(&place.shard(0)).execute_batch(sql).unwrap();
    place
}

fn replaced(bytes: &[u8]) -> Place {
    let place = Place::with_shards(1);
    fs::write(place.shard(0), bytes).unwrap();
    place
}

#[test]
fn a_file_that_is_not_a_database() {
    let noise: Vec<u8> =
        (0..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for bytes in [&noise[..], b"short", b"SQLite format 3\0 and then something else", b""] {
        let error = refused(&replaced(bytes));
        assert_eq!(error.kind(), StoreErrorKind::NotADatabase, "{error}");
    }
}

#[test]
fn a_database_of_another_application() {
    for journal in ["delete", "wal"] {
        let place = replaced(b"");
        let other = stranger(&place.shard(0));
        let sql = format!("pragma journal_mode = {journal}; create table theirs (x)");
        other.execute_batch(&sql).unwrap();
        drop(other);
        assert_eq!(refused(&place).kind(), StoreErrorKind::WrongApplication);
    }
}

#[test]
fn a_database_of_another_application_that_is_in_use() {
    let place = replaced(b"");
    let other = stranger(&place.shard(0));
    other.execute_batch("pragma journal_mode = wal; create table theirs (x)").unwrap();
    let log = place.path().join("shard-000.db-wal");
    let read = || (fs::read(place.shard(0)).unwrap(), fs::read(&log).unwrap());
    let before = read();
    assert!(!before.1.is_empty());
    let error = first(&place.open(), 0).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::WrongApplication);
    assert_eq!(read(), before);
    drop(other);
}

#[test]
fn a_file_of_a_newer_version() {
    let error = refused(&planted("pragma user_version = 2"));
    assert_eq!(error.kind(), StoreErrorKind::NewerSchema);
    assert!(error.to_string().contains("update"), "{error}");
}

#[test]
fn a_planted_or_missing_part_of_the_schema() {
    for (sql, name) in [
        ("create trigger evil after update on task begin delete from task; end", "evil"),
        ("create view spy as select payload from task", "spy"),
        ("create table loot (payload)", "loot"),
        ("create index slow on task (payload)", "slow"),
        ("drop table ready", "ready"),
        ("alter table kind add column extra text", "kind"),
        (
            "pragma writable_schema = 1;
             update sqlite_schema set sql = replace(sql, '32767', '3276') where name = 'meta'",
            "meta",
        ),
        ("pragma user_version = 0", "schema 0"),
    ] {
        let error = refused(&planted(sql));
        assert_eq!(error.kind(), StoreErrorKind::SchemaMismatch, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_copy_of_another_shard() {
    let place = Place::with_shards(2);
    fs::copy(place.shard(1), place.shard(0)).unwrap();
    let error = refused(&place);
    assert_eq!(error.kind(), StoreErrorKind::Foreign);
    assert!(error.to_string().contains("shard 1"), "{error}");
}

#[test]
fn a_file_of_another_queue() {
    let (place, other) = (Place::with_shards(1), Place::with_shards(1));
    fs::copy(other.shard(0), place.shard(0)).unwrap();
    assert_eq!(refused(&place).kind(), StoreErrorKind::Foreign);
}

#[test]
fn a_foreign_file_where_a_new_shard_is_to_be() {
    let other = Place::with_shards(1);
    let theirs = fs::read(other.shard(0)).unwrap();
    for (bytes, kind) in
        [(&b"not a database"[..], StoreErrorKind::NotADatabase), (&theirs, StoreErrorKind::Foreign)]
    {
        let (place, directory) = new_shard();
        fs::write(place.shard(0), bytes).unwrap();
        let before = place.bytes();
        assert_eq!(first(&directory, 0).unwrap_err().kind(), kind);
        assert_eq!(place.bytes(), before);
    }
}

#[test]
fn a_file_that_vanished_after_the_directory_was_opened() {
    let place = Place::with_shards(1);
    let directory = place.open();
    fs::remove_file(place.shard(0)).unwrap();
    let error = first(&directory, 0).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Missing);
    assert!(error.to_string().contains("backup"), "{error}");
    assert!(!place.shard(0).exists());
}

#[test]
fn a_link_that_replaced_a_file_after_the_directory_was_opened() {
    let place = Place::with_shards(1);
    let directory = place.open();
    let moved = place.beside("moved.db");
    fs::rename(place.shard(0), &moved).unwrap();
    std::os::unix::fs::symlink(&moved, place.shard(0)).unwrap();
    assert_eq!(first(&directory, 0).unwrap_err().kind(), StoreErrorKind::NotAFile);
}

#[test]
fn a_shard_that_the_manifest_does_not_name() {
    let place = Place::with_shards(1);
    let error = first(&place.open(), 1).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Missing);
    assert!(error.to_string().contains("manifest.json"), "{error}");
}

#[test]
fn a_damaged_file_that_nobody_closed() {
    let place = Place::with_shards(1);
    let directory = place.open();
    let opened = first(&directory, 0).unwrap();
    for number in 0..2000 {
        insert_name(&opened.connection, &format!("a.name.to.fill.a.page.{number}"));
    }
    checkpoint(&opened.connection, "shard-000.db").unwrap();
    insert_name(&opened.connection, "in.the.log");
    let log = place.path().join("shard-000.db-wal");
    let crashed = (fs::read(place.shard(0)).unwrap(), fs::read(&log).unwrap());
    abandon(opened);
    drop(directory);
    // The bytes that say where the cells are, in a page of which the log has no newer copy.
    let (mut bytes, log_bytes) = crashed;
    let row = bytes.windows(14).position(|window| window == b"fill.a.page.10").unwrap();
    let page = row / 4096 * 4096;
    bytes[page + 8..page + 40].fill(0xee);
    fs::write(place.shard(0), &bytes).unwrap();
    fs::write(&log, &log_bytes).unwrap();
    let directory = place.open();
    let error = first(&directory, 0).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
    assert!(fs::read(place.shard(0)).unwrap() == bytes, "the refused file was changed");
    assert!(fs::read(&log).unwrap() == log_bytes, "the refused file's log was changed");
    let trusting = OpenOptions { quick_check: false, ..options() };
    open_shard(&directory, ShardId(0), &trusting, OpenKind::First).unwrap();
}
