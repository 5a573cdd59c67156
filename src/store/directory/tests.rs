use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use super::*;
use crate::store::testing::{
    Place, child_argument, directory_options, first, mode, run_in_child, run_in_narrow_child,
    stranger,
};

fn open(path: &Path) -> Result<Directory, StartFailure> {
    Directory::open(path, &directory_options())
}

/// The one reason for which `path` is refused.
fn refusal(path: &Path) -> (String, StoreError) {
    let mut reasons = refusals(path);
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    reasons.remove(0)
}

fn refusals(path: &Path) -> Vec<(String, StoreError)> {
    let Err(StartFailure::Refused(reasons)) = open(path) else { panic!("it was not refused") };
    reasons
        .into_iter()
        .map(|reason| match reason {
            StartError::Open { what, source } => (what, source),
            other => panic!("{other}"),
        })
        .collect()
}

#[test]
fn everything_is_for_the_owner_only_whatever_the_umask() {
    const NAME: &str =
        "store::directory::tests::everything_is_for_the_owner_only_whatever_the_umask";
    let Some(path) = child_argument() else {
        // The mask is the whole process's, so it is changed in one of its own.
        let place = Place::new();
        let output = run_in_child(NAME, &place.path());
        assert!(output.status.success(), "{output:?}");
        assert!(place.shard(0).exists(), "the child did nothing: {output:?}");
        return;
    };
    rustix::process::umask(rustix::fs::Mode::empty());
    let options = DirectoryOptions { ballast_bytes: 4096, ..directory_options() };
    let directory = Directory::open(&path, &options).unwrap();
    directory.ensure_shards(1).unwrap();
    let _opened = first(&directory, 0).unwrap();
    assert_eq!(mode(&path), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    let wanted = [
        "ballast",
        "manifest.json",
        "queue.lock",
        "shard-000.db",
        "shard-000.db-shm",
        "shard-000.db-wal",
    ];
    assert_eq!(names, wanted);
}

#[test]
fn a_missing_parent_is_named_and_not_created() {
    let place = Place::new();
    let (what, error) = refusal(&place.beside("nowhere").join("queue"));
    assert_eq!((what.as_str(), error.kind()), ("queue", StoreErrorKind::Missing));
    assert!(error.to_string().contains(&*place.beside("nowhere").to_string_lossy()), "{error}");
    assert!(!place.beside("nowhere").exists());
}

#[test]
fn a_path_where_nothing_can_be_created_is_refused() {
    let place = Place::new();
    fs::write(place.beside("file"), "").unwrap();
    let below_a_file = place.beside("file").join("queue");
    assert_eq!(refusal(&below_a_file).1.kind(), StoreErrorKind::Permission);
    assert_eq!(refusal(&place.beside("file")).1.kind(), StoreErrorKind::NotAFile);
    assert_eq!(refusal(&place.beside("nul\0")).1.kind(), StoreErrorKind::Permission);
    assert_eq!(refusal(&place.beside(&"x".repeat(300))).1.kind(), StoreErrorKind::Permission);
}

#[test]
#[cfg(target_os = "linux")]
fn a_read_only_directory_is_refused() {
    // Permission bits don't stop root, as which tests may run; sysfs stops everybody.
    assert_eq!(refusal(Path::new("/sys/queue")).1.kind(), StoreErrorKind::Permission);
    assert_eq!(refusal(Path::new("/sys")).1.kind(), StoreErrorKind::Permission);
}

#[test]
fn network_file_systems_are_known_by_their_numbers() {
    for magic in [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x6573_5546] {
        let error = refuse_magic(magic).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::NetworkFileSystem, "{magic:x}");
        assert!(error.to_string().contains("allow_network_filesystem"), "{error}");
    }
    // ext4, XFS, Btrfs, tmpfs, overlayfs, ZFS
    for magic in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1] {
        refuse_magic(magic).unwrap();
    }
}

#[test]
fn a_second_open_is_told_the_owner_at_once() {
    let place = Place::new();
    let before = crate::clock::Clock::system().now().as_micros() / 1_000_000;
    let owner = place.open();
    let Err(StartFailure::Locked { pid, since }) = open(&place.path()) else {
        panic!("it was opened twice")
    };
    assert_eq!(pid, std::process::id());
    assert!(since >= before as u64, "{since}");
    drop(owner);
    open(&place.path()).unwrap();
}

#[test]
fn a_second_process_is_refused_and_a_dead_one_is_not_in_the_way() {
    const NAME: &str =
        "store::directory::tests::a_second_process_is_refused_and_a_dead_one_is_not_in_the_way";
    if let Some(path) = child_argument() {
        match open(&path) {
            Err(StartFailure::Locked { pid, .. }) => println!("locked by {pid}"),
            // Nothing is dropped on this way out: the system has to clean up.
            Ok(_directory) => std::process::abort(),
            Err(other) => panic!("{other:?}"),
        }
        return;
    }
    let place = Place::new();
    let owner = place.open();
    let output = run_in_child(NAME, &place.path());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("locked by {}", std::process::id())), "{text}");
    drop(owner);
    let output = run_in_child(NAME, &place.path());
    assert!(!output.status.success(), "the child was to abort as the owner: {output:?}");
    open(&place.path()).unwrap();
}

#[test]
fn the_lock_is_held_until_the_last_clone_is_gone() {
    let place = Place::new();
    let directory = place.open();
    let clone = directory.clone();
    drop(directory);
    assert!(matches!(open(&place.path()), Err(StartFailure::Locked { .. })));
    drop(clone);
    open(&place.path()).unwrap();
}

#[test]
fn a_removed_lock_file_is_noticed() {
    let place = Place::new();
    let directory = place.open();
    directory.ensure_still_ours().unwrap();
    fs::remove_file(place.path().join("queue.lock")).unwrap();
    let error = directory.ensure_still_ours().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Missing);
}

#[test]
fn a_link_or_a_fifo_in_place_of_a_shard_is_refused() {
    let place = Place::with_shards(1);
    let (file, moved) = (place.shard(0), place.beside("moved.db"));
    fs::rename(&file, &moved).unwrap();
    let before = fs::read(&moved).unwrap();
    let refuse = |why: &str| {
        let (what, error) = refusal(&place.path());
        assert_eq!((what.as_str(), error.kind()), ("shard-000.db", StoreErrorKind::NotAFile));
        assert!(error.to_string().contains(why), "{error}");
        fs::remove_file(&file).unwrap();
        assert_eq!(fs::read(&moved).unwrap(), before);
    };
    symlink(&moved, &file).unwrap();
    refuse("symbolic link");
    fs::hard_link(&moved, &file).unwrap();
    refuse("hard link");
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    refuse("FIFO");
    fs::rename(&moved, &file).unwrap();
    open(&place.path()).unwrap();
}

#[test]
fn a_link_in_place_of_the_manifest_or_the_lock_is_refused() {
    for name in ["manifest.json", "queue.lock"] {
        let place = Place::with_shards(1);
        let (file, moved) = (place.path().join(name), place.beside("moved"));
        fs::rename(&file, &moved).unwrap();
        symlink(&moved, &file).unwrap();
        let (what, error) = refusal(&place.path());
        assert_eq!((what.as_str(), error.kind()), (name, StoreErrorKind::NotAFile));
    }
}

#[test]
fn all_that_is_wrong_with_the_files_is_reported_together_and_nothing_is_touched() {
    let place = Place::with_shards(3);
    fs::remove_file(place.shard(0)).unwrap();
    fs::copy(place.shard(1), place.shard(7)).unwrap();
    fs::remove_file(place.shard(2)).unwrap();
    fs::create_dir(place.shard(2)).unwrap();
    let before = place.bytes();
    let found: Vec<_> = refusals(&place.path())
        .into_iter()
        .map(|(what, error)| {
            assert!(error.to_string().contains(&what), "{error}");
            (what, error.kind())
        })
        .collect();
    let wanted = [
        ("shard-000.db".to_owned(), StoreErrorKind::Missing),
        ("shard-002.db".to_owned(), StoreErrorKind::NotAFile),
        ("shard-007.db".to_owned(), StoreErrorKind::Foreign),
    ];
    assert_eq!(found, wanted);
    assert_eq!(place.bytes(), before);
}

#[test]
fn shards_without_a_manifest_are_not_taken_for_a_new_queue() {
    let place = Place::with_shards(1);
    fs::remove_file(place.path().join("manifest.json")).unwrap();
    let before = place.bytes();
    let (what, error) = refusal(&place.path());
    assert_eq!((what.as_str(), error.kind()), ("manifest.json", StoreErrorKind::Missing));
    assert_eq!(place.bytes(), before);
}

#[test]
fn every_shard_of_the_manifest_is_listed_whatever_the_settings_ask_for() {
    let place = Place::with_shards(3);
    let directory = place.open();
    let shards = directory.ensure_shards(1).unwrap();
    assert_eq!(shards, [ShardId(0), ShardId(1), ShardId(2)]);
    assert_eq!(directory.ensure_shards(4).unwrap().len(), 4);
    drop(first(&directory, 3).unwrap());
    drop(directory);
    assert_eq!(place.open().ensure_shards(0).unwrap().len(), 4);
}

/// What a crash can leave of a shard that was being added.
fn half_added(state: &str) -> Place {
    let place = Place::with_shards(1);
    let directory = place.open();
    directory.ensure_shards(2).unwrap();
    let manifest = place.path().join("manifest.json");
    let before = fs::read(&manifest).unwrap();
    match state {
        "no file" => {}
        "an empty file" => fs::write(place.shard(1), "").unwrap(),
        "a complete file" => drop(first(&directory, 1).unwrap()),
        _ => unreachable!(),
    }
    fs::write(&manifest, before).unwrap();
    place
}

#[test]
fn a_shard_that_was_being_added_waits_until_it_is_wanted() {
    for state in ["no file", "an empty file", "a complete file"] {
        let place = half_added(state);
        let before = place.bytes();
        let directory = place.open();
        assert_eq!(directory.ensure_shards(1).unwrap(), [ShardId(0)], "{state}");
        assert_eq!(place.bytes(), before, "{state}");
        assert_eq!(directory.ensure_shards(2).unwrap(), [ShardId(0), ShardId(1)], "{state}");
        let opened = first(&directory, 1).unwrap();
        assert_eq!(opened.created, state != "a complete file");
        drop((opened, directory));
        assert_eq!(
            place.open().ensure_shards(1).unwrap().len(),
            2,
            "{state}: now it may have tasks"
        );
    }
}

#[test]
fn a_shard_before_a_complete_one_is_opened_however_far_it_has_come() {
    let place = Place::with_shards(1);
    let directory = place.open();
    directory.ensure_shards(3).unwrap();
    drop(first(&directory, 2).unwrap());
    drop(directory);
    let directory = place.open();
    assert_eq!(directory.ensure_shards(1).unwrap().len(), 3);
    assert!(first(&directory, 1).unwrap().created);
}

#[test]
fn files_of_others_in_the_directory_are_left_alone() {
    let place = Place::with_shards(1);
    let note = place.path().join("README.txt");
    fs::write(&note, "mine").unwrap();
    drop(stranger(&place.path().join("other.db")));
    open(&place.path()).unwrap();
    assert_eq!(fs::read_to_string(&note).unwrap(), "mine");
}

#[test]
fn the_ballast_takes_real_space_and_gives_it_back() {
    let place = Place::new();
    let options = DirectoryOptions { ballast_bytes: 1 << 20, ..directory_options() };
    let directory = Directory::open(&place.path(), &options).unwrap();
    let taken = || {
        let found = fs::metadata(place.path().join("ballast"));
        found.map_or(0, |found| found.blocks() * 512)
    };
    assert!(taken() >= 1 << 20);
    assert_eq!(directory.free_ballast().unwrap(), 1 << 20);
    assert_eq!(taken(), 0);
    assert_eq!(directory.free_ballast().unwrap(), 0);
    assert!(directory.misses_ballast());
    assert_eq!(directory.restore_ballast(Some(1 << 20)).unwrap(), Ballast::Whole);
    assert!(taken() >= 1 << 20);
    // a crash, or a smaller disk, has left a part of it
    fs::File::options().write(true).open(place.path().join("ballast")).unwrap().set_len(9).unwrap();
    assert!(directory.misses_ballast());
    assert_eq!(directory.restore_ballast(None).unwrap(), Ballast::Whole);
    assert!(taken() >= 1 << 20 && !directory.misses_ballast());
}

#[test]
fn a_full_disk_is_a_typed_error() {
    const NAME: &str = "store::directory::tests::a_full_disk_is_a_typed_error";
    if let Some(path) = child_argument() {
        assert_eq!(refusal(&path).1.kind(), StoreErrorKind::Full);
        println!("refused");
        return;
    }
    let place = Place::new();
    let output = run_in_narrow_child(NAME, &place.path(), 0);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("refused"), "{output:?}");
    open(&place.path()).unwrap();
}

/// Of processes that started at the same moment, before there was a directory, one was told that the
/// directory exists and not who owns it.
#[test]
fn a_directory_that_another_start_makes_first_will_do() {
    let place = Place::new();
    files::create_directory(&place.path()).unwrap();
    files::create_directory(&place.path()).unwrap();
    let file = place.beside("a file");
    fs::write(&file, "").unwrap();
    files::create_directory(&file).unwrap_err();
}

// Memory said what the file didn't, so nothing was written by the change that would have mended it.
#[test]
fn a_change_that_may_have_been_written_is_taken_back_by_the_next_one() {
    let place = Place::new();
    let path = place.path();
    let directory = open(&path).unwrap();
    let pause = |paused| directory.change_queue("mail", |queue| queue.paused = paused);
    let paused = || Manifest::read(&path).unwrap().unwrap().queues.contains_key("mail");
    pause(true).unwrap();
    let written = fs::read(path.join("manifest.json")).unwrap();
    pause(false).unwrap();
    let in_the_way = path.join("manifest.json.tmp");
    fs::create_dir(&in_the_way).unwrap();
    pause(true).unwrap_err();
    // as if that had failed after the file was replaced
    fs::write(path.join("manifest.json"), written).unwrap();
    fs::remove_dir(&in_the_way).unwrap();
    assert!(paused());
    pause(false).unwrap();
    assert!(!paused());
}
