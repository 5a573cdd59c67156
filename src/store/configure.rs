//! Every setting of a shard's connection, each read back after it was set.

use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::Value;

use super::fault::Fault;
use super::open::OpenOptions;
use crate::error::{StoreError, StoreErrorKind};

/// The size of a database page, in bytes.
pub(crate) const PAGE_BYTES: u32 = 4096;

/// The most pages that the log has before a checkpoint is due, where a quarter of its limit isn't less:
/// 16 MiB.
const AUTOCHECKPOINT_PAGES: u64 = 4000;

/// The largest value that SQLite accepts as a length limit.
const LENGTH_MAX: u64 = 1_000_000_000;

/// One PRAGMA: its name, its value, and why that.
struct Setting {
    pragma: &'static str,
    value: Value,
    #[expect(dead_code, reason = "it is there to be read in the source")]
    why: &'static str,
}

fn setting(pragma: &'static str, value: impl Into<Value>, why: &'static str) -> Setting {
    Setting { pragma, value: value.into(), why }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn millis(value: Duration) -> i64 {
    i64::from(i32::try_from(value.as_millis()).unwrap_or(i32::MAX))
}

/// The PRAGMAs, in the order in which they are set.
fn settings(options: &OpenOptions) -> Vec<Setting> {
    let synchronous = if options.synced_commits { FULL } else { NORMAL };
    let autocheckpoint =
        (options.wal_limit_bytes / u64::from(PAGE_BYTES) / 4).clamp(1, AUTOCHECKPOINT_PAGES);
    vec![
        setting("busy_timeout", millis(options.busy_timeout), "only a backup tool competes"),
        setting(
            "page_size",
            i64::from(PAGE_BYTES),
            "set when the file is created, the disk's unit",
        ),
        setting("journal_mode", "wal".to_owned(), "one sync per commit, readers never wait"),
        setting("synchronous", synchronous, "NORMAL loses acknowledged tasks in a power cut"),
        setting("wal_autocheckpoint", number(autocheckpoint), "`log.rs` reads it and takes over"),
        setting(
            "journal_size_limit",
            number(options.wal_limit_bytes),
            "a long log gives space back",
        ),
        setting("cache_size", -number(options.cache_bytes / 1024), "negative is in KiB"),
        setting("temp_store", 2, "in memory: no payload in a temporary file"),
        setting("mmap_size", 0, "stray pointers don't reach the file, I/O errors are results"),
        setting("cell_size_check", 1, "a damaged page is noticed when it is read"),
        setting("secure_delete", 1, "what was deleted isn't left in the file"),
        setting("foreign_keys", 0, "the schema has none, so none is looked for"),
        setting("recursive_triggers", 0, "there are no triggers"),
    ]
}

/// Switches of the connection that no PRAGMA reaches, with the reason.
const SWITCHES: [(DbConfig, bool, &str); 9] = [
    (DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true, "a refused file keeps its bytes"),
    (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true, "SQL can't damage the file"),
    (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false, "a hostile schema calls no function"),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false, "a planted trigger copied payloads"),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false, "likewise"),
    (DbConfig::SQLITE_DBCONFIG_DQS_DML, false, "a misspelt column isn't a string"),
    (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false, "likewise"),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, false, "nothing is attached"),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, false, "likewise"),
];

/// `pragma synchronous` values.
const NORMAL: i64 = 1;
const FULL: i64 = 2;

/// Sets the switches and limits. Touches nothing but the connection.
///
/// # Errors
///
/// One of them doesn't read back as it was set.
pub(crate) fn secure(connection: &Connection, options: &OpenOptions) -> Result<(), StoreError> {
    for (config, on, _) in SWITCHES {
        switch(connection, config, on)?;
    }
    let length = options.row_bytes_max.clamp(1, LENGTH_MAX) as i32;
    for (limit, value) in [(Limit::SQLITE_LIMIT_LENGTH, length), (Limit::SQLITE_LIMIT_ATTACHED, 0)]
    {
        connection.set_limit(limit, value).fault("set a limit")?;
        let found = connection.limit(limit).fault("read a limit")?;
        if found != value {
            return Err(not_set(&format!("{limit:?}"), &found.to_string(), &value.to_string()));
        }
    }
    Ok(())
}

fn switch(connection: &Connection, config: DbConfig, on: bool) -> Result<(), StoreError> {
    let found = connection.set_db_config(config, on).fault("configure the connection")?;
    if found == on {
        return Ok(());
    }
    Err(not_set(&format!("{config:?}"), &found.to_string(), &on.to_string()))
}

/// Sets the PRAGMAs. Makes the file's journal a write-ahead log if it isn't yet.
///
/// # Errors
///
/// One of them doesn't read back as it was set.
pub(crate) fn apply(connection: &Connection, options: &OpenOptions) -> Result<(), StoreError> {
    settings(options).iter().try_for_each(|setting| set(connection, setting))
}

/// Lets the connection checkpoint when it is closed: the file has been accepted.
pub(crate) fn accept(connection: &Connection) -> Result<(), StoreError> {
    switch(connection, DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
}

fn set(connection: &Connection, setting: &Setting) -> Result<(), StoreError> {
    let Setting { pragma, value, .. } = setting;
    connection.pragma_update(None, pragma, value).fault(&format!("set {pragma}"))?;
    let found: Value = connection
        .pragma_query_value(None, pragma, |row| row.get(0))
        .fault(&format!("read {pragma}"))?;
    if found == *value {
        return Ok(());
    }
    Err(not_set(pragma, &format!("{found:?}"), &format!("{value:?}")))
}

fn not_set(what: &str, found: &str, wanted: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::Other,
        format!("{what} is {found} and cannot be set to {wanted}"),
    )
}

/// Runs `write` with every commit synced, whatever the durability, and puts that back.
///
/// # Errors
///
/// What `write` says; or a transaction is open, in which the setting can't change.
pub(crate) fn synced<T>(
    connection: &Connection,
    write: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let before: i64 = connection
        .pragma_query_value(None, "synchronous", |row| row.get(0))
        .fault("read synchronous")?;
    if before >= FULL {
        return write();
    }
    set(connection, &setting("synchronous", FULL, ""))?;
    let written = write();
    let restored = set(connection, &setting("synchronous", before, ""));
    let written = written?;
    restored.map(|()| written)
}
