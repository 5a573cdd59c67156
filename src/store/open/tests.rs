use std::fs;

use rusqlite::Connection;

use super::*;
use crate::store::directory::{Directory, DirectoryOptions};
use crate::store::testing::{
    Place, child_argument, directory_options, first, options, rebuild, run_in_child,
    run_in_narrow_child, stranger,
};

mod refusals;

/// Closes without a word, as a killed process would.
fn abandon(opened: OpenedShard) {
    drop(opened);
}

fn new_shard() -> (Place, Directory) {
    let place = Place::new();
    let directory = place.open();
    directory.ensure_shards(1).unwrap();
    (place, directory)
}

fn insert_name(connection: &Connection, name: &str) {
    connection
        .execute("insert into kind (name, queue, codec) values (?1, 'default', 1)", [name])
        .unwrap();
}

fn names(connection: &Connection) -> Vec<String> {
    let mut statement = connection.prepare("select name from kind order by id").unwrap();
    let names = statement.query_map([], |row| row.get(0)).unwrap();
    names.collect::<rusqlite::Result<_>>().unwrap()
}

fn pragma(connection: &Connection, name: &str) -> String {
    let value: rusqlite::types::Value =
        connection.pragma_query_value(None, name, |row| row.get(0)).unwrap();
    match value {
        rusqlite::types::Value::Integer(number) => number.to_string(),
        rusqlite::types::Value::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_epoch_goes_up_with_each_process_and_not_with_a_rebuild() {
    let (place, directory) = new_shard();
    let opened = first(&directory, 0).unwrap();
    assert_eq!((opened.epoch, opened.created), (1, true));
    abandon(opened);
    let rebuilt = rebuild(&directory, 0).unwrap();
    assert_eq!((rebuilt.epoch, rebuilt.created), (1, false));
    abandon(rebuilt);
    drop(directory);
    assert_eq!(first(&place.open(), 0).unwrap().epoch, 2);
}

#[test]
fn only_a_closed_file_is_clean_and_only_until_it_is_opened() {
    let (_place, directory) = new_shard();
    let opened = first(&directory, 0).unwrap();
    assert!(opened.was_clean, "a new file has nothing to recover");
    abandon(opened);
    let opened = first(&directory, 0).unwrap();
    assert!(!opened.was_clean);
    close_clean(opened.connection, 0).unwrap();
    let opened = first(&directory, 0).unwrap();
    assert!(opened.was_clean);
    abandon(opened);
    assert!(!first(&directory, 0).unwrap().was_clean);
}

#[test]
fn reserved_numbers_survive_a_crash_and_unused_ones_come_back_at_a_close() {
    let (_place, directory) = new_shard();
    let opened = first(&directory, 0).unwrap();
    assert_eq!(opened.reserved, 0);
    reserve(&opened.connection, 4096).unwrap();
    reserve(&opened.connection, 10).unwrap();
    abandon(opened);
    let opened = rebuild(&directory, 0).unwrap();
    assert_eq!(opened.reserved, 4096);
    close_clean(opened.connection, 17).unwrap();
    let opened = first(&directory, 0).unwrap();
    assert_eq!(opened.reserved, 17);
    let error = reserve(&opened.connection, SEQUENCE_MAX + 1).unwrap_err();
    assert!(error.to_string().contains("sequence"), "{error}");
}

#[test]
fn a_reservation_is_synced_and_the_durability_is_put_back() {
    let (_place, directory) = new_shard();
    let relaxed = OpenOptions { synced_commits: false, ..options() };
    let opened = open_shard(&directory, ShardId(0), &relaxed, OpenKind::First).unwrap();
    assert_eq!(pragma(&opened.connection, "synchronous"), "1");
    let during =
        configure::synced(&opened.connection, || Ok(pragma(&opened.connection, "synchronous")));
    assert_eq!(during.unwrap(), "2");
    reserve(&opened.connection, 5).unwrap();
    assert_eq!(pragma(&opened.connection, "synchronous"), "1");
    opened.connection.execute_batch("begin").unwrap();
    reserve(&opened.connection, 6).unwrap_err();
    opened.connection.execute_batch("rollback").unwrap();
    assert_eq!(pragma(&opened.connection, "synchronous"), "1");
}

#[test]
fn every_setting_is_in_force() {
    let (_place, directory) = new_shard();
    let opened = first(&directory, 0).unwrap();
    for (name, value) in [
        ("application_id", &APPLICATION_ID.to_string()[..]),
        ("user_version", "1"),
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("busy_timeout", "20"),
        ("page_size", "4096"),
        ("wal_autocheckpoint", "4000"),
        ("journal_size_limit", "67108864"),
        ("cache_size", "-1024"),
        ("temp_store", "2"),
        ("mmap_size", "0"),
        ("cell_size_check", "1"),
        ("secure_delete", "1"),
        ("foreign_keys", "0"),
        ("recursive_triggers", "0"),
        ("trusted_schema", "0"),
    ] {
        assert_eq!(pragma(&opened.connection, name), value, "{name}");
    }
}

#[test]
fn sql_can_neither_attach_nor_quote_wrongly_nor_plant_nor_store_too_much() {
    let (place, directory) = new_shard();
    let opened = first(&directory, 0).unwrap();
    let fails = |sql: &str| opened.connection.execute_batch(sql).unwrap_err();
    let other = place.beside("other.db");
    fails(&format!("attach '{}' as other", other.display()));
    assert!(!other.exists());
    fails("insert into kind (name, queue, codec) values (\"double\", 'default', 1)");
    fails("pragma writable_schema = 1; delete from sqlite_schema");
    fails("attach ':memory:' as other");
    fails("create view v as select 1; select * from v");
    let error = fails("select length(zeroblob(5000000))");
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::TooBig));
    // Triggers can be made and don't run; the next open refuses the file.
    opened
        .connection
        .execute_batch(
            "create trigger t after insert on kind begin delete from kind; end;
             insert into kind (name, queue, codec) values ('kept', 'default', 1)",
        )
        .unwrap();
    assert_eq!(names(&opened.connection), ["kept"]);
}

#[test]
fn what_a_killed_process_committed_is_there_and_no_longer_in_the_log_only() {
    const NAME: &str = "store::open::tests::\
        what_a_killed_process_committed_is_there_and_no_longer_in_the_log_only";
    if let Some(path) = child_argument() {
        let options = directory_options();
        let directory = Directory::open(&path, &options).unwrap();
        directory.ensure_shards(1).unwrap();
        let opened = first(&directory, 0).unwrap();
        insert_name(&opened.connection, "written.by.the.child");
        std::process::abort();
    }
    let place = Place::new();
    let output = run_in_child(NAME, &place.path());
    assert!(!output.status.success(), "{output:?}");
    let in_file = || {
        let bytes = fs::read(place.shard(0)).unwrap();
        bytes.windows(20).any(|window| window == b"written.by.the.child")
    };
    assert!(!in_file(), "the child's commit was to be in the log only");
    let directory = place.open();
    let opened = first(&directory, 0).unwrap();
    assert!(in_file());
    assert_eq!(names(&opened.connection), ["written.by.the.child"]);
    assert_eq!((opened.epoch, opened.was_clean, opened.created), (2, false, false));
}

#[test]
fn a_rebuild_checkpoints_too() {
    let (place, directory) = new_shard();
    let opened = first(&directory, 0).unwrap();
    // A second connection keeps the log alive when the first one closes.
    let _other = stranger(&place.shard(0));
    _other.query_row("select count(*) from kind", [], |_| Ok(())).unwrap();
    insert_name(&opened.connection, "in.the.log");
    abandon(opened);
    let log = place.path().join("shard-000.db-wal");
    assert!(fs::metadata(&log).unwrap().len() > 0);
    let _rebuilt = rebuild(&directory, 0).unwrap();
    assert_eq!(fs::metadata(&log).unwrap().len(), 0);
}

#[test]
fn nothing_is_accepted_while_another_connection_holds_the_log() {
    let (place, directory) = new_shard();
    let opened = first(&directory, 0).unwrap();
    let reader = stranger(&place.shard(0));
    insert_name(&opened.connection, "seen");
    reader.execute_batch("begin; select count(*) from kind").unwrap();
    insert_name(&opened.connection, "unseen");
    abandon(opened);
    assert_eq!(rebuild(&directory, 0).unwrap_err().kind(), StoreErrorKind::Busy);
    assert_eq!(first(&directory, 0).unwrap_err().kind(), StoreErrorKind::Busy);
    reader.execute_batch("commit").unwrap();
    let opened = rebuild(&directory, 0).unwrap();
    assert_eq!(opened.epoch, 1);
    assert_eq!(names(&opened.connection), ["seen", "unseen"]);
}

#[test]
fn a_clean_close_leaves_one_file() {
    let (place, directory) = new_shard();
    close_clean(first(&directory, 0).unwrap().connection, 0).unwrap();
    let files: Vec<_> = place.bytes().into_keys().collect();
    assert_eq!(files, ["manifest.json", "shard-000.db"]);
}

#[test]
fn a_crash_while_a_shard_is_created_loses_nothing_at_any_step() {
    // After the entry and after the empty file.
    let (place, directory) = new_shard();
    fs::write(place.shard(0), "").unwrap();
    drop(directory);
    let directory = place.open();
    let opened = first(&directory, 0).unwrap();
    assert!(opened.created);
    insert_name(&opened.connection, "kept");
    abandon(opened);
    drop(directory);
    // After the file, before its entry says so.
    let path = place.path().join("manifest.json");
    let manifest = fs::read_to_string(&path).unwrap();
    assert!(manifest.contains("ready"));
    let mut epoch = 1;
    for journal in [None, Some("")] {
        if let Some(text) = journal {
            fs::write(place.path().join("shard-000.db-journal"), text).unwrap();
        }
        fs::write(&path, manifest.replace("ready", "creating")).unwrap();
        let directory = place.open();
        let opened = rebuild(&directory, 0).unwrap();
        epoch += 1;
        assert!(!opened.created);
        assert_eq!(opened.epoch, epoch, "an unfinished first open is done again, by whomever");
        assert_eq!(names(&opened.connection), ["kept"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), manifest);
    }
}

#[test]
fn a_crash_in_the_transaction_that_creates_a_shard_is_rolled_back() {
    let (place, directory) = new_shard();
    // A database and its journal in the middle of a first transaction that spilled to disk.
    let half = place.beside("half.db");
    let connection = stranger(&half);
    connection
        .execute_batch(
            "pragma cache_size = 1; begin; create table t (x);
             insert into t select zeroblob(3000) from json_each('[1,2,3,4,5,6,7,8,9]')",
        )
        .unwrap();
    fs::copy(&half, place.shard(0)).unwrap();
    fs::copy(place.beside("half.db-journal"), place.path().join("shard-000.db-journal")).unwrap();
    assert!(fs::metadata(place.shard(0)).unwrap().len() > 0, "nothing was spilled");
    assert!(first(&directory, 0).unwrap().created);
}

#[test]
fn a_fork_and_a_replaced_file_are_noticed() {
    let (place, directory) = new_shard();
    let opened = first(&directory, 0).unwrap();
    opened.guard.ensure_same_process().unwrap();
    opened.guard.ensure_same_files().unwrap();
    // What a forked child would have: the parent's number.
    let forked = FileGuard { pid: std::process::id() + 1, ..opened.guard.clone() };
    assert_eq!(forked.ensure_same_process().unwrap_err().kind(), StoreErrorKind::Forked);
    let moved = place.beside("moved.db");
    fs::rename(place.shard(0), &moved).unwrap();
    assert_eq!(opened.guard.ensure_same_files().unwrap_err().kind(), StoreErrorKind::Missing);
    fs::copy(&moved, place.shard(0)).unwrap();
    assert_eq!(opened.guard.ensure_same_files().unwrap_err().kind(), StoreErrorKind::Missing);
    fs::rename(&moved, place.shard(0)).unwrap();
    opened.guard.ensure_same_files().unwrap();
}

/// Only the database itself was looked at: what was acknowledged after its log was removed went into a
/// file without a name, and without queue.lock a second process could have the directory as well.
#[test]
fn a_log_and_a_lock_that_are_removed_while_the_shard_is_open_are_noticed() {
    for name in ["shard-000.db-wal", "queue.lock"] {
        let (place, directory) = new_shard();
        let opened = first(&directory, 0).unwrap();
        opened.guard.ensure_same_files().unwrap();
        fs::remove_file(place.path().join(name)).unwrap();
        let error = opened.guard.ensure_same_files().unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Missing);
        assert!(error.to_string().starts_with(name), "{error}");
    }
}

#[test]
fn a_path_that_looks_like_a_uri_is_a_path() {
    let place = Place::new();
    let path = place.beside("file:queue?mode=memory&x=%41#é");
    let directory = Directory::open(&path, &directory_options()).unwrap();
    directory.ensure_shards(1).unwrap();
    close_clean(first(&directory, 0).unwrap().connection, 3).unwrap();
    assert!(path.join("shard-000.db").exists());
    assert_eq!(first(&directory, 0).unwrap().reserved, 3);
}

/// Opens a shard on a full disk, in a process of its own; tells whether the ballast is left.
fn open_on_a_full_disk(test: &str, create: bool) -> bool {
    let options = DirectoryOptions { ballast_bytes: 1 << 16, ..directory_options() };
    if let Some(path) = child_argument() {
        let directory = Directory::open(&path, &options).unwrap();
        assert!(path.join("ballast").exists());
        let error = first(&directory, 0).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Full, "{error}");
        assert!(error.is_transient());
        println!("refused: {error}");
        return path.join("ballast").exists();
    }
    let place = Place::new();
    let directory = Directory::open(&place.path(), &options).unwrap();
    directory.ensure_shards(1).unwrap();
    if !create {
        let opened = first(&directory, 0).unwrap();
        opened.connection.execute_batch("begin").unwrap();
        for number in 0..2_000 {
            insert_name(&opened.connection, &format!("kept.{number}"));
        }
        opened.connection.execute_batch("commit").unwrap();
        // its end would write into the file what is in the log, for which there is no room later
        std::mem::forget(opened);
    }
    drop(directory);
    assert!(place.path().join("ballast").exists());
    let output = run_in_narrow_child(test, &place.path(), if create { 16 } else { 64 });
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("refused: "), "{output:?}");
    let left = place.path().join("ballast").exists();
    let opened = first(&place.open(), 0).unwrap();
    assert_eq!(opened.created, create);
    assert_eq!(names(&opened.connection).len(), if create { 0 } else { 2_000 });
    left
}

#[test]
fn a_full_disk_is_a_typed_error_and_costs_the_ballast_but_no_data() {
    const NAME: &str =
        "store::open::tests::a_full_disk_is_a_typed_error_and_costs_the_ballast_but_no_data";
    assert!(!open_on_a_full_disk(NAME, false));
}

#[test]
fn a_shard_that_is_added_on_a_full_disk_leaves_the_ballast_to_the_others() {
    const NAME: &str =
        "store::open::tests::a_shard_that_is_added_on_a_full_disk_leaves_the_ballast_to_the_others";
    assert!(open_on_a_full_disk(NAME, true));
}
