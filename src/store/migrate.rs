//! The schema's versions: a file's `user_version` counts the migrations that it has had.
//!
//! A migration is never changed once it was released; a new one is added. Every one keeps the
//! table `meta` with the columns of the first, by which a file is recognised before it is migrated.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::fault::Fault;
use crate::error::StoreError;

/// One step of the schema: migration N, counted from 1, makes version N out of N − 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    /// For messages.
    pub(crate) name: &'static str,
    /// The statements, run in one transaction.
    pub(crate) sql: &'static str,
}

/// All of them, in order.
pub(crate) const MIGRATIONS: &[Migration] =
    &[Migration { name: "0001_tasks", sql: include_str!("schema/0001_tasks.sql") }];

/// The version that `migrations` lead to.
pub(crate) fn newest(migrations: &[Migration]) -> u32 {
    u32::try_from(migrations.len()).expect("there are fewer migrations than a u32 counts")
}

/// Runs what a database of version `from` still lacks, each migration in its own transaction.
/// A crash in between leaves an older version whole.
pub(crate) fn apply(
    connection: &Connection,
    migrations: &[Migration],
    from: u32,
) -> Result<(), StoreError> {
    for (version, migration) in (1u32..).zip(migrations).skip(from as usize) {
        let action = format!("migrate to {}", migration.name);
        let tx = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
            .fault(&action)?;
        run(&tx, version, migration)?;
        tx.commit().fault(&action)?;
    }
    Ok(())
}

/// Runs one migration inside the caller's transaction.
pub(crate) fn run(tx: &Connection, version: u32, migration: &Migration) -> Result<(), StoreError> {
    let action = format!("migrate to {}", migration.name);
    tx.execute_batch(migration.sql).fault(&action)?;
    tx.pragma_update(None, "user_version", version).fault(&action)
}

#[cfg(test)]
mod tests;
