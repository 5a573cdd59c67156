//! Looks at a shard's file before anything is written to it, its write-ahead log included.
//!
//! The looking connection is read-only and never checkpoints, so a file that is refused keeps
//! every byte. What a killed process left in the log is read through the log.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::fault::Fault;
use super::files;
use super::manifest::ShardEntry;
use super::migrate::{self, Migration};
use crate::error::{StoreError, StoreErrorKind};
use crate::proof::{self, Safeguard};

/// "mqsq" in the file's header.
pub(crate) const APPLICATION_ID: i32 = 0x6d71_7371;

/// What a file of ours says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// How many migrations it has had.
    pub(crate) version: u32,
    /// How often it was opened by a process.
    pub(crate) epoch: u64,
    /// Up to which sequence number ids may have been given out.
    pub(crate) reserved: u64,
    /// Whether its last owner closed it.
    pub(crate) clean: bool,
}

/// Opens `path` for looking only.
pub(crate) fn open_to_look(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let action = format!("open {}", files::name_of(path));
    let alone = ["-wal", "-shm", "-journal"]
        .iter()
        .all(|suffix| matches!(files::look_at(&files::beside(path, suffix)), Ok(None)));
    // Nobody has it open and everything is in the file itself: then no companion needs to be
    // created for reading it, next to a file that may not be ours.
    let connection = if alone {
        let flags = flags | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(immutable_uri(path), flags).fault(&action)?
    } else {
        Connection::open_with_flags(path, flags).fault(&action)?
    };
    // A read-only connection doesn't checkpoint as it is; the first line says so once more.
    for (config, on) in [
        (DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true),
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    ] {
        connection.set_db_config(config, on).fault(&action)?;
    }
    connection.pragma_update(None, "cell_size_check", true).fault(&action)?;
    Ok(connection)
}

/// `file:/path?immutable=1`, with every unusual byte of the path escaped.
fn immutable_uri(path: &Path) -> PathBuf {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                uri.push(char::from(byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    PathBuf::from(uri)
}

/// Checks that `path` is the file that `entry` describes, and reads what it says about itself.
///
/// # Errors
///
/// The file isn't a database, belongs to another application, queue or shard, is newer than
/// `migrations`, or has other tables, indexes, triggers or views than they make.
pub(crate) fn check_file(
    path: &Path,
    entry: &ShardEntry,
    migrations: &[Migration],
) -> Result<Checked, StoreError> {
    let connection = open_to_look(path)?;
    check(&connection, &files::name_of(path), entry, migrations)
}

/// Its shard, identity, epoch, reserved sequence numbers and clean flag. By the primary key.
const READ_META: &str = "
    select shard, uuid, epoch, reserved, clean
      from meta
     where one = 1";

/// [`check_file`] on an open connection.
pub(crate) fn check(
    connection: &Connection,
    name: &str,
    entry: &ShardEntry,
    migrations: &[Migration],
) -> Result<Checked, StoreError> {
    let action = format!("read {name}");
    let refuse = |kind, why: String| Err(StoreError::new(kind, format!("{name} {why}")));
    let version = check_header(connection, name, migrations)?;
    check_schema(connection, name, &migrations[..version as usize])?;
    // CHECKs keep epoch and reserved from being negative.
    let (shard, uuid, epoch, reserved, clean) = connection
        .query_row(READ_META, [], |row| {
            Ok((
                row.get::<_, u16>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, i64>(2)?.cast_unsigned(),
                row.get::<_, i64>(3)?.cast_unsigned(),
                row.get::<_, bool>(4)?,
            ))
        })
        .fault(&action)?;
    if shard != entry.index {
        let why = format!(
            "holds shard {shard}: it is a copy or was renamed; put the right file back, or restore \
             a backup into an empty directory"
        );
        return refuse(StoreErrorKind::Foreign, why);
    }
    if uuid != entry.uuid && proof::stands(Safeguard::ShardIdentity) {
        let why = "belongs to another queue directory, or is an older copy; put the right file \
                   back, or restore a backup into an empty directory";
        return refuse(StoreErrorKind::Foreign, why.to_owned());
    }
    Ok(Checked { version, epoch, reserved, clean })
}

/// Checks whose file it is and how new, by the header alone, and returns its version.
fn check_header(
    connection: &Connection,
    name: &str,
    migrations: &[Migration],
) -> Result<u32, StoreError> {
    let refuse = |kind, why: String| Err(StoreError::new(kind, format!("{name} {why}")));
    let number = |pragma| {
        connection
            .pragma_query_value(None, pragma, |row| row.get::<_, i32>(0))
            .fault(&format!("read {name}"))
    };
    if number("page_count")? == 0 {
        return refuse(StoreErrorKind::NotADatabase, "is empty; restore a backup".to_owned());
    }
    let application = number("application_id")?;
    if application != APPLICATION_ID {
        let why = format!("is another application's (id {application}); move it away");
        return refuse(StoreErrorKind::WrongApplication, why);
    }
    let version = number("user_version")?;
    let newest = migrate::newest(migrations);
    match u32::try_from(version) {
        Ok(version) if version > newest => {
            let why = format!("has schema {version} and this version knows {newest}; update it");
            refuse(StoreErrorKind::NewerSchema, why)
        }
        Ok(version) if version > 0 => Ok(version),
        _ => refuse(StoreErrorKind::SchemaMismatch, format!("has schema {version}")),
    }
}

/// Everything that a schema consists of. Sorted in Rust.
const READ_SCHEMA: &str = "
    select type, name, tbl_name, sql
      from sqlite_schema";

/// One object of a schema: type, name, table, definition.
type Object = (String, String, String, Option<String>);

/// Compares the file's schema with the one that `migrations` make in an empty database: a planted
/// trigger or view would run with our statements.
fn check_schema(
    connection: &Connection,
    name: &str,
    migrations: &[Migration],
) -> Result<(), StoreError> {
    let found = schema(connection, &format!("read the schema of {name}"))?;
    let model = Connection::open_in_memory().fault("open a database in memory")?;
    migrate::apply(&model, migrations, 0)?;
    let wanted = schema(&model, "read the schema of a new database")?;
    let surplus = found.iter().find(|object| !wanted.contains(object));
    let lacking = wanted.iter().find(|object| !found.contains(object));
    let (what, object) = match (surplus, lacking) {
        (Some(object), _) => ("has an unknown", object),
        (None, Some(object)) => ("lacks the", object),
        (None, None) => return Ok(()),
    };
    let (kind, object) = (&object.0, object.1.chars().take(80).collect::<String>());
    Err(StoreError::new(
        StoreErrorKind::SchemaMismatch,
        format!("{name} {what} {kind} {object:?}; restore a backup"),
    ))
}

fn schema(connection: &Connection, action: &str) -> Result<Vec<Object>, StoreError> {
    let mut statement = connection.prepare(READ_SCHEMA).fault(action)?;
    let objects = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .and_then(|rows| rows.collect::<rusqlite::Result<Vec<Object>>>())
        .fault(action)?;
    Ok(objects)
}

/// Runs `quick_check` or `integrity_check` and reports the first problem.
pub(crate) fn check_pages(
    connection: &Connection,
    name: &str,
    pragma: &'static str,
) -> Result<(), StoreError> {
    let mut found = String::new();
    connection
        .pragma(None, pragma, 1, |row| {
            found = row.get(0)?;
            Ok(())
        })
        .fault(&format!("check {name}"))?;
    if found == "ok" {
        return Ok(());
    }
    let found: String = found.chars().take(200).collect();
    Err(StoreError::new(
        StoreErrorKind::Corrupt,
        format!("{name} is damaged ({pragma}: {found}); restore a backup"),
    ))
}
