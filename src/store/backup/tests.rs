use super::*;
use crate::store::directory::StartFailure;
use crate::store::testing::{Place, directory_options, first, mode, rebuild, stranger};

/// Two shards with a committed row each, and a backup of both made while they are open.
fn backed_up() -> (Place, PathBuf) {
    let place = Place::with_shards(2);
    let directory = place.open();
    let target = BackupTarget::prepare(&directory, &place.beside("backup")).unwrap();
    for shard in target.shards() {
        let opened = first(&directory, shard.0).unwrap();
        open::reserve(&opened.connection, 100).unwrap();
        let insert = "insert into kind (name, queue, codec) values (?1, 'default', 1)";
        opened.connection.execute(insert, [format!("row.of.{shard}")]).unwrap();
        backup_shard(&opened.connection, &target.shard_path(shard)).unwrap();
        opened.connection.execute(insert, ["too.late"]).unwrap();
    }
    target.finish().unwrap();
    let backup = place.beside("backup");
    (place, backup)
}

fn restored(place: &Place, backup: &Path) -> Result<PathBuf, StoreError> {
    let to = place.beside("restored");
    restore(backup, &to, &directory_options()).map(|()| to)
}

fn names(connection: &Connection) -> Vec<String> {
    let mut statement = connection.prepare("select name from kind order by id").unwrap();
    let names = statement.query_map([], |row| row.get(0)).unwrap();
    names.collect::<rusqlite::Result<_>>().unwrap()
}

fn bytes(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_restored_queue_has_the_rows_of_the_backup_and_ids_that_were_never_given_out() {
    let (place, backup) = backed_up();
    let before = bytes(&backup);
    let to = restored(&place, &backup).unwrap();
    assert_eq!(bytes(&backup), before);
    let directory = Directory::open(&to, &directory_options()).unwrap();
    for shard in directory.ensure_shards(1).unwrap() {
        let opened = first(&directory, shard.0).unwrap();
        assert_eq!(names(&opened.connection), [format!("row.of.{shard}")]);
        assert_eq!(opened.reserved, 100 + RESTORE_SKIP);
        assert!(!opened.was_clean, "what ran during the backup has to be recovered");
        assert!(!opened.created);
        assert_eq!(opened.epoch, 3);
    }
    assert_eq!(directory.ensure_shards(1).unwrap().len(), 2);
}

#[test]
fn a_restored_queue_has_identities_of_its_own() {
    let (place, backup) = backed_up();
    let to = restored(&place, &backup).unwrap();
    let uuids = |path: &Path| -> Vec<String> {
        let manifest = Manifest::read(path).unwrap().unwrap();
        manifest.shards.into_iter().map(|entry| entry.uuid).collect()
    };
    let (old, new) = (uuids(&place.path()), uuids(&to));
    assert_eq!(old, uuids(&backup));
    assert!(old.iter().all(|uuid| !new.contains(uuid)));
    // So files of the one don't pass for files of the other.
    fs::copy(to.join("shard-000.db"), place.shard(0)).unwrap();
    let error = first(&place.open(), 0).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Foreign);
}

#[test]
fn backups_and_restored_files_are_for_the_owner_only() {
    let (place, backup) = backed_up();
    let to = restored(&place, &backup).unwrap();
    for directory in [&backup, &to] {
        assert_eq!(mode(directory), 0o700);
        for (path, _) in bytes(directory) {
            assert_eq!(mode(&path), 0o600, "{path:?}");
        }
    }
    let files: Vec<_> = bytes(&to).into_iter().map(|(path, _)| files::name_of(&path)).collect();
    assert_eq!(files, ["manifest.json", "queue.lock", "shard-000.db", "shard-001.db"]);
}

#[test]
fn a_backup_is_never_opened_as_a_queue() {
    let (_place, backup) = backed_up();
    let Err(StartFailure::Refused(reasons)) = Directory::open(&backup, &directory_options()) else {
        panic!("it was opened")
    };
    assert!(reasons[0].to_string().contains("restore"), "{reasons:?}");
}

#[test]
fn the_original_goes_on_after_a_backup() {
    let (place, _backup) = backed_up();
    let directory = place.open();
    let opened = rebuild(&directory, 1).unwrap();
    assert_eq!(names(&opened.connection), ["row.of.1", "too.late"]);
    assert_eq!(opened.reserved, 100);
}

#[test]
fn a_backup_that_was_not_finished_is_refused() {
    let (place, backup) = backed_up();
    fs::remove_file(backup.join("manifest.json")).unwrap();
    let error = restored(&place, &backup).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Missing);
    assert!(!place.beside("restored").exists());
    // And one that lacks a file can't be finished.
    let directory = place.open();
    let target = BackupTarget::prepare(&directory, &place.beside("second")).unwrap();
    assert_eq!(target.finish().unwrap_err().kind(), StoreErrorKind::Missing);
}

#[test]
fn a_queue_is_not_taken_for_a_backup() {
    let (place, _backup) = backed_up();
    let error = restored(&place, &place.path()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Foreign);
}

#[test]
fn a_backup_whose_files_are_damaged_mixed_up_or_missing_is_refused_before_anything_is_written() {
    let (place, backup) = backed_up();
    let (zero, one) = (backup.join("shard-000.db"), backup.join("shard-001.db"));
    let whole = fs::read(&zero).unwrap();
    let refuse = |kind| {
        assert_eq!(restored(&place, &backup).unwrap_err().kind(), kind);
        assert!(!place.beside("restored").exists());
        let _ = fs::remove_file(&zero);
        fs::write(&zero, &whole).unwrap();
    };
    fs::copy(&one, &zero).unwrap();
    refuse(StoreErrorKind::Foreign);
    fs::write(&zero, "nothing").unwrap();
    refuse(StoreErrorKind::NotADatabase);
    stranger(&zero).execute_batch("pragma user_version = 99").unwrap();
    refuse(StoreErrorKind::NewerSchema);
    // The index over `name.name` no longer agrees with the table.
    let mut damaged = whole.clone();
    let name = damaged.windows(8).position(|window| window == b"row.of.0").unwrap();
    damaged[name] = b'x';
    fs::write(&zero, damaged).unwrap();
    refuse(StoreErrorKind::Corrupt);
    fs::remove_file(&zero).unwrap();
    refuse(StoreErrorKind::Missing);
    restored(&place, &backup).unwrap();
}

#[test]
fn nothing_is_written_into_a_directory_that_is_owned_or_not_empty() {
    let (place, backup) = backed_up();
    let owner = place.open();
    let before = place.bytes();
    let refuse = |kind| {
        let error = restore(&backup, &place.path(), &directory_options()).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(place.bytes(), before);
    };
    refuse(StoreErrorKind::Busy);
    let error = BackupTarget::prepare(&owner, &place.path()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Busy);
    let error = BackupTarget::prepare(&owner, &backup).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Other);
    drop(owner);
    refuse(StoreErrorKind::Other);
}

#[test]
fn a_copy_replaces_an_older_one_of_its_name_and_a_draft() {
    let place = Place::with_shards(1);
    let opened = first(&place.open(), 0).unwrap();
    let to = place.beside("copy.db");
    backup_shard(&opened.connection, &to).unwrap();
    fs::write(place.beside("copy.db.tmp"), "half of").unwrap();
    opened
        .connection
        .execute("insert into kind (name, queue, codec) values ('new', 'default', 1)", [])
        .unwrap();
    backup_shard(&opened.connection, &to).unwrap();
    assert!(!place.beside("copy.db.tmp").exists());
    drop(opened);
    assert_eq!(names(&stranger(&to)), ["new"]);
}

#[test]
fn a_shard_that_is_being_added_is_not_in_the_way_of_a_backup() {
    let place = Place::with_shards(1);
    let directory = place.open();
    directory.ensure_shards(3).unwrap();
    let to = place.beside("backup");
    let target = BackupTarget::prepare(&directory, &to).unwrap();
    assert_eq!(target.shards(), [ShardId(0)]);
    let opened = rebuild(&directory, 0).unwrap();
    backup_shard(&opened.connection, &target.shard_path(ShardId(0))).unwrap();
    target.finish().unwrap();
    let to = restored(&place, &to).unwrap();
    let directory = Directory::open(&to, &directory_options()).unwrap();
    assert_eq!(directory.ensure_shards(0).unwrap(), [ShardId(0)]);
}
