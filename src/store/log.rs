//! The write-ahead log: how long it is, and when it is copied back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, MAIN_DB};

use super::fault::Fault;
use crate::error::{StoreError, StoreErrorKind};

/// From how many times its length on the log is checkpointed by the commit itself, as SQLite does it.
const AT_ONCE: usize = 2;

/// The log of an open file.
///
/// SQLite's own checkpoints are a part of the COMMIT that makes the log long: whoever waits for that
/// one waits for the copying and its two syncs, too, and so do slots that the batch is to fill. Here
/// the store only says that a checkpoint is due, and its owner has it made when the batch has been
/// answered and handed out. Where nobody does, a commit makes it after all.
pub(super) struct Log {
    /// How many pages it has, as of the last commit; 0 when it was looked at.
    pages: Arc<AtomicUsize>,
    long: usize,
}

impl Log {
    /// Watches a connection's commits from now on. What counts as long is what its automatic
    /// checkpoints were set to.
    ///
    /// # Errors
    ///
    /// The setting can't be read.
    pub(super) fn watch(connection: &mut Connection) -> Result<Log, StoreError> {
        let long: i64 = connection
            .pragma_query_value(None, "wal_autocheckpoint", |row| row.get(0))
            .fault("read wal_autocheckpoint")?;
        let long = usize::try_from(long).unwrap_or(0).max(1);
        let pages = Arc::new(AtomicUsize::new(0));
        let seen = pages.clone();
        connection
            .wal_hook(Some(move |wal: &mut rusqlite::hooks::Wal, now: std::ffi::c_int| {
                let now = usize::try_from(now).unwrap_or(0);
                seen.store(now, Ordering::Relaxed);
                if now >= AT_ONCE * long {
                    // the commit is none the less durable; the next one tries again
                    let _copied = wal.checkpoint();
                }
                Ok(())
            }))
            .fault("watch the log")?;
        Ok(Log { pages, long })
    }

    pub(super) fn is_long(&self) -> bool {
        self.pages.load(Ordering::Relaxed) >= self.long
    }

    /// Copies to the file what the log has. The next commit begins the log anew, unless somebody
    /// reads it: then as much is copied as can be.
    ///
    /// # Errors
    ///
    /// What SQLite says. The log is as it was, and the next commit says anew that it is long.
    pub(super) fn copy_back(&self, connection: &Connection) -> Result<(), StoreError> {
        self.pages.store(0, Ordering::Relaxed);
        let copied = connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE);
        match copied.fault("checkpoint") {
            Err(error) if error.kind() == StoreErrorKind::Busy => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("pages", &self.pages).finish_non_exhaustive()
    }
}
