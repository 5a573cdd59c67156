//! Opening and closing a shard's file: nothing is written before the file is known to be ours, and
//! nothing is accepted before its log is in the database and synced.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, named_params};

use super::check::{self, APPLICATION_ID, Checked};
use super::directory::{self, Directory};
use super::fault::Fault;
use super::files::{self, FileIdentity};
use super::manifest::{ShardEntry, ShardState};
use super::migrate::{self, MIGRATIONS, Migration};
use super::{backup, configure};
use crate::error::{StoreError, StoreErrorKind};
use crate::proof::{self, Safeguard};
use crate::record::{SEQUENCE_MAX, ShardId};

/// The oldest SQLite in which a reset of the write-ahead log can't lose commits.
const SQLITE_MIN: i32 = 3_051_003;

/// Where the copies go that are made before a migration.
const BACKUPS: &str = "backups";

/// How a shard's connection is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenOptions {
    /// True syncs each commit (`synchronous = FULL`); false loses the last ones in a power cut.
    pub(crate) synced_commits: bool,
    /// How long a statement waits for another connection's lock.
    pub(crate) busy_timeout: Duration,
    /// The page cache, in bytes.
    pub(crate) cache_bytes: u64,
    /// What is left of the log after a checkpoint, at most, in bytes.
    pub(crate) wal_limit_bytes: u64,
    /// The largest row that can be read or written, in bytes. Rows that were stored under a larger
    /// limit can't be read under a smaller one.
    pub(crate) row_bytes_max: u64,
    /// Whether a file that wasn't closed by its last owner is checked for damage.
    pub(crate) quick_check: bool,
}

/// Who opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenKind {
    /// A process that just took the directory: a new epoch begins.
    First,
    /// The same process, after an actor's end or an I/O error: the epoch goes on.
    Rebuild,
}

/// A shard's file, checked and configured.
#[derive(Debug)]
pub(crate) struct OpenedShard {
    /// The one connection that writes to the file.
    pub(crate) connection: Connection,
    /// The current epoch, from 1.
    pub(crate) epoch: u64,
    /// Sequence numbers up to this one may have been given out.
    pub(crate) reserved: u64,
    /// Whether the last owner closed the file; always false at a rebuild.
    pub(crate) was_clean: bool,
    /// Whether the file was created just now.
    pub(crate) created: bool,
    /// Tells whether process and file are still the ones that were opened.
    pub(crate) guard: FileGuard,
}

/// Remembers by which process and as which files a shard was opened: the file itself, its log, and the
/// directory's lock.
#[derive(Clone, Debug)]
pub(crate) struct FileGuard {
    files: Vec<(PathBuf, FileIdentity)>,
    pid: u32,
}

impl FileGuard {
    /// Refuses to go on in a forked child: SQLite's locks aren't inherited, its state is.
    pub(crate) fn ensure_same_process(&self) -> Result<(), StoreError> {
        if self.pid == std::process::id() {
            return Ok(());
        }
        let why = format!("the shard was opened by process {} and this is a fork of it", self.pid);
        Err(StoreError::new(StoreErrorKind::Forked, why))
    }

    /// Refuses to go on when one of the files was removed, renamed or replaced: what is written to the
    /// shard now would be gone at the next start, and without the lock's another process could own it.
    pub(crate) fn ensure_same_files(&self) -> Result<(), StoreError> {
        for (path, identity) in &self.files {
            let found = files::look_at(path)?.map(|metadata| FileIdentity::of(&metadata));
            if found != Some(*identity) {
                let why = format!(
                    "{} was removed or replaced while it was open; put it back and start again",
                    files::name_of(path)
                );
                return Err(StoreError::new(StoreErrorKind::Missing, why));
            }
        }
        Ok(())
    }

    /// Watches over one more file from now on. One that isn't there needs no watching.
    fn add(&mut self, path: PathBuf) -> Result<(), StoreError> {
        if let Some(found) = files::look_at(&path)? {
            self.files.push((path, FileIdentity::of(&found)));
        }
        Ok(())
    }
}

/// Opens `shard`'s file of `directory`, creating it if its entry says that it is new. On a full
/// disk the ballast is freed and the file opened once more, unless it is new: the space is for tasks
/// that are there, to end.
///
/// # Errors
///
/// The file isn't the one that the manifest names, isn't ours, is newer or damaged: then none of
/// its bytes was changed. Or it can't be read or written, or another connection is at it.
pub(crate) fn open_shard(
    directory: &Directory,
    shard: ShardId,
    options: &OpenOptions,
    kind: OpenKind,
) -> Result<OpenedShard, StoreError> {
    let is_new = directory.entry(shard)?.state == ShardState::Creating;
    // another shard may free it meanwhile
    let had_ballast = directory.ballast_bytes() > 0;
    match open_with(directory, shard, options, kind, MIGRATIONS) {
        Err(error)
            if error.kind() == StoreErrorKind::Full
                && !is_new
                && (directory.free_ballast()? > 0 || had_ballast) =>
        {
            open_with(directory, shard, options, kind, MIGRATIONS)
        }
        opened => opened,
    }
}

/// [`open_shard`] with other migrations, for tests of upgrades.
pub(crate) fn open_with(
    directory: &Directory,
    shard: ShardId,
    options: &OpenOptions,
    kind: OpenKind,
    migrations: &[Migration],
) -> Result<OpenedShard, StoreError> {
    require_sqlite()?;
    directory.ensure_still_ours()?;
    let entry = directory.entry(shard)?;
    let path = directory.shard_path(shard);
    let is_new = entry.state == ShardState::Creating;
    let created = is_new && create_unless_complete(&path, &entry, options, migrations)?;
    let mut guard = guard(&path)?;
    let checked = check::check_file(&path, &entry, migrations)?;
    let connection = connect(&path, options)?;
    guard.ensure_same_files()?;
    configure::apply(&connection, options)?;
    // A shard that was never opened to its end has no epoch yet that a rebuild could go on with.
    let begins = kind == OpenKind::First || is_new;
    if begins && !checked.clean && options.quick_check {
        check::check_pages(&connection, &entry.file, "quick_check")?;
    }
    if proof::stands(Safeguard::CheckpointAtClose) {
        configure::accept(&connection)?;
    }
    if proof::stands(Safeguard::CheckpointAtOpen) {
        checkpoint(&connection, &entry.file)?;
    }
    if checked.version < migrate::newest(migrations) {
        migrate_file(directory, &connection, &entry, &checked, migrations)?;
    }
    let (epoch, reserved) = if begins {
        begin_epoch(&connection, &entry.file)?
    } else {
        (checked.epoch, checked.reserved)
    };
    if is_new {
        directory.mark_ready(shard)?;
    }
    guard.add(files::beside(&path, "-wal"))?;
    guard.files.push(directory.lock_file());
    let was_clean = begins && checked.clean;
    Ok(OpenedShard { connection, epoch, reserved, was_clean, created, guard })
}

fn require_sqlite() -> Result<(), StoreError> {
    let found = rusqlite::version_number();
    if found >= SQLITE_MIN {
        return Ok(());
    }
    let why = format!(
        "SQLite {} can lose commits; link 3.51.3 or newer, or the bundled one",
        rusqlite::version()
    );
    Err(StoreError::new(StoreErrorKind::Other, why))
}

fn guard(path: &Path) -> Result<FileGuard, StoreError> {
    let Some(found) = files::look_at(path)? else {
        return Err(directory::missing(&files::name_of(path)));
    };
    files::require_plain(path, &found)?;
    let files = vec![(path.to_owned(), FileIdentity::of(&found))];
    Ok(FileGuard { files, pid: std::process::id() })
}

/// Opens the writing connection. The path is absolute, so it is never taken for a `file:` URI.
fn connect(path: &Path, options: &OpenOptions) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)
        .fault(&format!("open {}", files::name_of(path)))?;
    configure::secure(&connection, options)?;
    Ok(connection)
}

/// The row by which the file is recognised.
const INSERT_META: &str = "
    insert into meta (one, shard, uuid, epoch, reserved, clean)
    values (1, :shard, :uuid, 0, 0, 1)";

/// Makes the file of a `creating` entry, unless an earlier process got that far. True if it did.
///
/// Everything is in one transaction with a rollback journal, so a crash leaves a file that is empty
/// to SQLite or complete.
fn create_unless_complete(
    path: &Path,
    entry: &ShardEntry,
    options: &OpenOptions,
    migrations: &[Migration],
) -> Result<bool, StoreError> {
    let journal = files::beside(path, "-journal");
    match files::look_at(path)? {
        None => drop(files::create_private(path)?),
        Some(found) => {
            files::require_plain(path, &found)?;
            if found.len() > 0 && files::look_at(&journal)?.is_none() {
                return Ok(false);
            }
        }
    }
    files::sync_directory(&files::parent_of(path))?;
    let action = format!("create {}", entry.file);
    let connection = connect(path, options)?;
    // Reading rolls back what a crash left in the journal.
    let pages: i64 =
        connection.pragma_query_value(None, "page_count", |row| row.get(0)).fault(&action)?;
    if pages > 0 {
        return Ok(false);
    }
    connection.pragma_update(None, "page_size", configure::PAGE_BYTES).fault(&action)?;
    configure::synced(&connection, || {
        let tx = begin(&connection, &action)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID).fault(&action)?;
        for (version, migration) in (1..).zip(migrations) {
            migrate::run(&tx, version, migration)?;
        }
        tx.execute(INSERT_META, named_params! {":shard": entry.index, ":uuid": entry.uuid})
            .fault(&action)?;
        tx.commit().fault(&action)
    })?;
    Ok(true)
}

/// Writes the log into the database, syncs it and empties the log.
///
/// After a failed sync the log can hold commits that only the page cache knows; until they are in
/// the database nothing may be acknowledged on top of them.
///
/// # Errors
///
/// [`StoreErrorKind::Busy`] if another connection still reads the log.
pub(crate) fn checkpoint(connection: &Connection, name: &str) -> Result<(), StoreError> {
    let mut busy = true;
    connection
        .pragma(None, "wal_checkpoint", "TRUNCATE", |row| {
            busy = row.get(0)?;
            Ok(())
        })
        .fault(&format!("checkpoint {name}"))?;
    if !busy {
        return Ok(());
    }
    let why = format!("cannot checkpoint {name}: another connection holds it");
    Err(StoreError::new(StoreErrorKind::Busy, why))
}

fn migrate_file(
    directory: &Directory,
    connection: &Connection,
    entry: &ShardEntry,
    checked: &Checked,
    migrations: &[Migration],
) -> Result<(), StoreError> {
    let backups = directory.path().join(BACKUPS);
    if files::look_at(&backups)?.is_none() {
        files::create_directory(&backups)?;
    }
    let stem = entry.file.trim_end_matches(".db");
    let copy = backups.join(format!("{stem}-v{}-{}.db", checked.version, checked.epoch));
    backup::backup_shard(connection, &copy)?;
    configure::synced(connection, || migrate::apply(connection, migrations, checked.version))?;
    check::check(connection, &entry.file, entry, migrations).map(|_| ())
}

fn begin<'c>(connection: &'c Connection, action: &str) -> Result<Transaction<'c>, StoreError> {
    Transaction::new_unchecked(connection, TransactionBehavior::Immediate).fault(action)
}

/// Begins an epoch. By the primary key.
const BEGIN_EPOCH: &str = "
       update meta
          set epoch = epoch + 1, clean = 0
        where one = 1
    returning epoch, reserved";

fn begin_epoch(connection: &Connection, name: &str) -> Result<(u64, u64), StoreError> {
    let action = format!("begin an epoch of {name}");
    configure::synced(connection, || {
        let tx = begin(connection, &action)?;
        let begun = tx
            .query_row(BEGIN_EPOCH, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
            .fault(&action)?;
        tx.commit().fault(&action)?;
        // A CHECK keeps both from being negative.
        Ok((begun.0.cast_unsigned(), begun.1.cast_unsigned()))
    })
}

/// Reserves sequence numbers; a smaller number changes nothing. By the primary key.
const RESERVE: &str = "
    update meta
       set reserved = max(reserved, :upto)
     where one = 1";

/// Makes it durable that sequence numbers up to `upto` may be given out, whatever the durability
/// of the tasks themselves. Must be called outside of a transaction.
///
/// # Errors
///
/// `upto` has more than 48 bits, or the file can't be written.
pub(crate) fn reserve(connection: &Connection, upto: u64) -> Result<(), StoreError> {
    write_synced(connection, "reserve ids", RESERVE, upto)
}

/// Marks the file as closed by its owner, with what it really gave out. By the primary key.
const CLOSE: &str = "
    update meta
       set clean = 1, reserved = :upto
     where one = 1";

/// Closes a shard for good: gives back the sequence numbers above `reserved_back_to`, marks the
/// file clean and empties its log.
///
/// # Errors
///
/// The file can't be written or another connection holds it. The connection is closed all the same.
pub(crate) fn close_clean(connection: Connection, reserved_back_to: u64) -> Result<(), StoreError> {
    write_synced(&connection, "mark the shard clean", CLOSE, reserved_back_to)?;
    checkpoint(&connection, "the shard")?;
    connection.close().map_err(|(_, error)| error).fault("close the shard")
}

fn write_synced(
    connection: &Connection,
    action: &str,
    statement: &str,
    upto: u64,
) -> Result<(), StoreError> {
    if upto > SEQUENCE_MAX {
        let why = "the shard has no sequence numbers left; add a shard";
        return Err(StoreError::new(StoreErrorKind::Other, why));
    }
    let upto = upto.cast_signed();
    configure::synced(connection, || {
        let tx = begin(connection, action)?;
        tx.execute(statement, named_params! {":upto": upto}).fault(action)?;
        tx.commit().fault(action)
    })
}

#[cfg(test)]
mod tests;
