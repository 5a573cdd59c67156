//! Copies of a queue's directory, and a directory out of a copy.
//!
//! A backup is a directory of the same layout whose manifest is written last and says that it is a
//! backup. It is never opened as a queue: ids that were given out since would come again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags, named_params};

use super::directory::{self, Directory, DirectoryOptions};
use super::fault::Fault;
use super::lock::{DirectoryLock, LOCK_FILE, Locking};
use super::manifest::{MANIFEST_FILE, Manifest, ShardEntry, ShardState};
use super::migrate::MIGRATIONS;
use super::{check, files, open};
use crate::error::{StoreError, StoreErrorKind};
use crate::record::{SEQUENCE_MAX, ShardId};

/// How many pages are copied at a time.
const STEP_PAGES: i32 = 4096;

/// How many sequence numbers a restore skips: more than any shard gives out between a backup and
/// the loss of the original.
pub(crate) const RESTORE_SKIP: u64 = 1 << 32;

/// A backup in the making: a directory without a manifest.
#[derive(Clone, Debug)]
pub(crate) struct BackupTarget {
    path: PathBuf,
    manifest: Manifest,
}

impl BackupTarget {
    /// Makes the directory `to`, or takes it if it is empty.
    ///
    /// # Errors
    ///
    /// `to` isn't empty or can't be created, or `directory` is still being opened the first time.
    pub(crate) fn prepare(directory: &Directory, to: &Path) -> Result<Self, StoreError> {
        let mut manifest = directory.snapshot();
        // one that is being added at the end holds no task yet
        manifest.shards.truncate(manifest.complete());
        if let Some(entry) = manifest.shards.iter().find(|e| e.state == ShardState::Creating) {
            let why = format!("{} is still being created; try again", entry.file);
            return Err(StoreError::new(StoreErrorKind::Busy, why));
        }
        let options = DirectoryOptions { allow_network_filesystem: true, ballast_bytes: 0 };
        let path = directory::prepare(to, &options)?;
        require_empty(&path)?;
        manifest.backup = true;
        Ok(BackupTarget { path, manifest })
    }

    /// The shards that belong to the backup.
    pub(crate) fn shards(&self) -> Vec<ShardId> {
        self.manifest.shards.iter().map(ShardEntry::shard).collect()
    }

    /// Where [`backup_shard`] puts a shard's copy.
    pub(crate) fn shard_path(&self, shard: ShardId) -> PathBuf {
        self.path.join(super::manifest::shard_file(shard))
    }

    /// Writes the manifest: from now on the backup can be restored.
    ///
    /// # Errors
    ///
    /// A shard's copy is missing, or the manifest can't be written.
    pub(crate) fn finish(&self) -> Result<(), StoreError> {
        for entry in &self.manifest.shards {
            if files::look_at(&self.path.join(&entry.file))?.is_none() {
                let why = format!("the backup lacks {}", entry.file);
                return Err(StoreError::new(StoreErrorKind::Missing, why));
            }
        }
        self.manifest.write(&self.path)
    }
}

/// Copies a shard's file as of its last commit to the file `to`, synced. Call it on the shard's own
/// thread, outside of a transaction. An older copy of the same name is replaced when the new one
/// is complete.
///
/// # Errors
///
/// The file can't be read, or the copy can't be written.
pub(crate) fn backup_shard(connection: &Connection, to: &Path) -> Result<(), StoreError> {
    let draft = files::beside(to, ".tmp");
    files::remove_if_there(&draft)?;
    copy_pages(connection, &draft)?;
    let action = format!("write {}", files::name_of(to));
    fs::rename(&draft, to).fault(&action)?;
    files::sync_directory(&files::parent_of(to))
}

/// Copies a database page by page into a new file of our mode and syncs that.
fn copy_pages(from: &Connection, to: &Path) -> Result<(), StoreError> {
    let action = format!("copy a shard to {}", files::name_of(to));
    drop(files::create_private(to)?);
    let mut copy = connect(to).fault(&action)?;
    Backup::new(from, &mut copy)
        .and_then(|backup| backup.run_to_completion(STEP_PAGES, Duration::ZERO, None))
        .fault(&action)?;
    copy.close().map_err(|(_, error)| error).fault(&action)?;
    // SQLite has synced it already, if its defaults are what they are today. No connection is at
    // the copy, so closing this handle drops nobody's locks.
    fs::File::open(to).and_then(|file| file.sync_all()).fault(&action)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    Connection::open_with_flags(path, flags)
}

/// Makes a queue's directory `to` out of the backup `from`: the same tasks under new identities of
/// directory and files, with sequence numbers that continue far above the backup's.
///
/// A crash in between leaves a directory without a manifest, which can be removed.
///
/// # Errors
///
/// `from` isn't a complete, undamaged backup that this version knows; `to` isn't empty, has an
/// owner, can't be created or is on a network file system.
pub(crate) fn restore(
    from: &Path,
    to: &Path,
    options: &DirectoryOptions,
) -> Result<(), StoreError> {
    let Some(manifest) = Manifest::read(from)? else {
        let why = "manifest.json is missing: not a backup, or one that was not finished";
        return Err(StoreError::new(StoreErrorKind::Missing, why));
    };
    if !manifest.backup {
        let why = "the directory is a queue's, not a backup; make a backup of it first";
        return Err(StoreError::new(StoreErrorKind::Foreign, why));
    }
    let sources =
        manifest.shards.iter().map(|entry| verify(from, entry)).collect::<Result<Vec<_>, _>>()?;
    let to = directory::prepare(to, options)?;
    require_empty(&to)?;
    let lock = DirectoryLock::take(&to)?;
    let Locking::Ours(_lock) = lock else { return Err(owned(&lock)) };
    let renewed = manifest.renewed()?;
    for (source, entry) in sources.iter().zip(&renewed.shards) {
        let path = to.join(&entry.file);
        copy_pages(source, &path)?;
        renew(&path, entry)?;
    }
    renewed.write(&to)
}

/// Opens a shard of a backup for reading, once it is known to be whole.
fn verify(from: &Path, entry: &ShardEntry) -> Result<Connection, StoreError> {
    let path = from.join(&entry.file);
    let path = match files::look_at(&path)? {
        Some(found) => files::require_plain(&path, &found)
            .and_then(|()| path.canonicalize().fault(&format!("open {}", entry.file)))?,
        None => {
            let why = format!("the backup lacks {}", entry.file);
            return Err(StoreError::new(StoreErrorKind::Missing, why));
        }
    };
    let connection = check::open_to_look(&path)?;
    let checked = check::check(&connection, &entry.file, entry, MIGRATIONS)?;
    if checked.reserved > SEQUENCE_MAX - RESTORE_SKIP {
        let why = format!("{} has no sequence numbers left for a restore", entry.file);
        return Err(StoreError::new(StoreErrorKind::Other, why));
    }
    check::check_pages(&connection, &entry.file, "integrity_check")?;
    Ok(connection)
}

/// A new identity and ids far above the old ones. `clean` is 0 already, as the original was open:
/// what ran then is recovered at the first start. By the primary key.
const RENEW: &str = "
    update meta
       set uuid = :uuid, reserved = reserved + :skip
     where one = 1";

fn renew(path: &Path, entry: &ShardEntry) -> Result<(), StoreError> {
    let action = format!("renew {}", entry.file);
    let connection = connect(path).fault(&action)?;
    connection
        .execute(RENEW, named_params! {":uuid": entry.uuid, ":skip": RESTORE_SKIP.cast_signed()})
        .fault(&action)?;
    open::checkpoint(&connection, &entry.file)?;
    connection.close().map_err(|(_, error)| error).fault(&action)
}

/// Refuses a directory with anything in it, and says so if it has an owner.
fn require_empty(path: &Path) -> Result<(), StoreError> {
    let name = files::name_of(path);
    let mut entries = fs::read_dir(path).fault(&format!("list {name}"))?;
    if entries.next().is_none() {
        return Ok(());
    }
    if files::look_at(&path.join(LOCK_FILE))?.is_some() {
        let locking = DirectoryLock::take(path)?;
        if matches!(locking, Locking::Theirs { .. }) {
            return Err(owned(&locking));
        }
    }
    let what = if files::look_at(&path.join(MANIFEST_FILE))?.is_some() {
        "is a queue's directory or a backup"
    } else {
        "is not empty"
    };
    let why = format!("{name} {what}; name an empty or a new directory");
    Err(StoreError::new(StoreErrorKind::Other, why))
}

fn owned(locking: &Locking) -> StoreError {
    let pid = match locking {
        Locking::Theirs { pid, .. } => *pid,
        Locking::Ours(_) => 0,
    };
    StoreError::new(StoreErrorKind::Busy, format!("the directory is owned by process {pid}"))
}

#[cfg(test)]
mod tests;
