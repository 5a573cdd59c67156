//! The write-ahead log: how long it is, and when it is copied back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, MAIN_DB};

use super::fault::{Fault, store_error};
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
    seen: Arc<Seen>,
    long: usize,
}

/// What commits have said of it.
#[derive(Default)]
struct Seen {
    /// How many pages it has, as of the last commit; 0 when it was copied back.
    pages: AtomicUsize,
    /// Whether a checkpoint within a commit ended in an I/O error, which nobody has heard of yet.
    failed: AtomicBool,
}

impl Log {
    /// Watches a connection's commits from now on, instead of its automatic checkpoints. What counts
    /// as long is what they were set to.
    ///
    /// # Errors
    ///
    /// The setting can't be read, or there were none.
    pub(super) fn watch(connection: &mut Connection) -> Result<Log, StoreError> {
        let long: usize = connection
            .pragma_query_value(None, "wal_autocheckpoint", |row| row.get(0))
            .fault("read wal_autocheckpoint")?;
        if long == 0 {
            let why = "wal_autocheckpoint is off";
            return Err(StoreError::new(StoreErrorKind::Other, why));
        }
        let seen = Arc::new(Seen::default());
        let commits = seen.clone();
        let hook = move |wal: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            commits.committed(wal, usize::try_from(pages).unwrap_or(0), AT_ONCE * long);
            Ok(())
        };
        connection.wal_hook(Some(hook)).fault("watch the log")?;
        Ok(Log { seen, long })
    }

    /// Whether it is to be copied back, or wasn't when it should have been.
    pub(super) fn is_long(&self) -> bool {
        let Seen { pages, failed } = &*self.seen;
        pages.load(Ordering::Relaxed) >= self.long || failed.load(Ordering::Relaxed)
    }

    /// Copies to the file what the log has. The next commit begins the log anew, unless somebody
    /// reads it: then as much is copied as can be.
    ///
    /// # Errors
    ///
    /// What SQLite says, or said to a commit that tried it. The log is as it was, and the next commit
    /// says anew that it is long.
    pub(super) fn copy_back(&self, connection: &Connection) -> Result<(), StoreError> {
        self.seen.pages.store(0, Ordering::Relaxed);
        if self.seen.failed.swap(false, Ordering::Relaxed) {
            let why = "a checkpoint within a commit failed";
            return Err(StoreError::new(StoreErrorKind::Io, why));
        }
        let copied = connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE);
        match copied {
            // somebody else makes one
            Err(fault) if fault.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(()),
            other => other.map(|_| ()).fault("checkpoint"),
        }
    }
}

impl Seen {
    fn committed(&self, wal: &mut rusqlite::hooks::Wal, pages: usize, most: usize) {
        self.pages.store(pages, Ordering::Relaxed);
        if pages < most {
            return;
        }
        // the commit is durable, whatever becomes of this; and the next one tries again
        match wal.checkpoint().map_err(store_error) {
            Ok(()) => self.pages.store(0, Ordering::Relaxed),
            Err(error) if error.kind() == StoreErrorKind::Io => {
                self.failed.store(true, Ordering::Relaxed);
            }
            Err(_) => {}
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("pages", &self.seen.pages).finish_non_exhaustive()
    }
}
