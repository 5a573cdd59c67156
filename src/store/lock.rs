//! One owner per directory: an flock on `queue.lock`, and who holds it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::fault::Fault;
use super::files::{self, FileIdentity};
use crate::clock::Clock;
use crate::error::{StoreError, StoreErrorKind};
use crate::proof::{self, Safeguard};

pub(crate) const LOCK_FILE: &str = "queue.lock";

/// What came of asking for the lock.
#[derive(Debug)]
pub(crate) enum Locking {
    /// We have it.
    Ours(DirectoryLock),
    /// Another process has it, or this one already.
    Theirs {
        /// The owner's process id, 0 if it couldn't be read.
        pid: u32,
        /// When it took the lock: seconds since the Unix epoch.
        since: u64,
    },
}

/// The directory is ours until this is dropped.
///
/// The system gives the lock back when the process dies, however it dies. The file itself stays:
/// removing it would let two processes lock two files of the same name.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    file: File,
    path: PathBuf,
    identity: FileIdentity,
    pid: u32,
}

impl DirectoryLock {
    /// Asks for the lock of `directory` and doesn't wait for it.
    ///
    /// # Errors
    ///
    /// The file can't be opened or written, or it isn't a plain file.
    pub(crate) fn take(directory: &Path) -> Result<Locking, StoreError> {
        let path = directory.join(LOCK_FILE);
        let mut file = files::open_private(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) if !proof::stands(Safeguard::Lock) => {}
            Err(Errno::WOULDBLOCK) => return Ok(owner(&mut file)),
            Err(errno) => return Err(errno).fault("lock queue.lock"),
        }
        let metadata = file.metadata().fault("look at queue.lock")?;
        let identity = FileIdentity::of(&metadata);
        let lock = DirectoryLock { file, path, identity, pid: std::process::id() };
        lock.ensure_same_file()?;
        Ok(Locking::Ours(lock))
    }

    /// Writes who we are into the file, for those who come second.
    ///
    /// # Errors
    ///
    /// The file can't be written: the disk is full, for one. The lock holds all the same.
    pub(crate) fn sign(&mut self) -> Result<(), StoreError> {
        let since = Clock::system().now().as_micros() / 1_000_000;
        let text = format!("{} {since}\n", self.pid);
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .and_then(|()| self.file.write_all(text.as_bytes()))
            .fault("write queue.lock")
    }

    /// Where it is, and which file it was when it was taken.
    pub(crate) fn file(&self) -> (PathBuf, FileIdentity) {
        (self.path.clone(), self.identity)
    }

    /// Refuses to go on in a forked child: the lock and the connections are its parent's.
    pub(crate) fn ensure_same_process(&self) -> Result<(), StoreError> {
        if self.pid == std::process::id() {
            return Ok(());
        }
        Err(StoreError::new(
            StoreErrorKind::Forked,
            format!("the queue was opened by process {} and this is a fork of it", self.pid),
        ))
    }

    /// Refuses to go on when `queue.lock` was removed or replaced: another process could own the
    /// directory as well.
    pub(crate) fn ensure_same_file(&self) -> Result<(), StoreError> {
        let found = files::look_at(&self.path)?.map(|metadata| FileIdentity::of(&metadata));
        if found == Some(self.identity) {
            return Ok(());
        }
        Err(StoreError::new(
            StoreErrorKind::Missing,
            "queue.lock was removed or replaced; stop the queue and start it again",
        ))
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // A forked child shares the lock; it must not give its parent's away.
        if self.pid == std::process::id() {
            // Both are courtesies: the system unlocks when the last handle is closed.
            let _ = self.file.set_len(0);
            let _ = flock(&self.file, FlockOperation::Unlock);
        }
    }
}

/// Reads who holds the lock.
fn owner(file: &mut File) -> Locking {
    let mut text = String::new();
    // What can't be read or isn't ours shows as process 0.
    let _ = file.take(64).read_to_string(&mut text);
    let mut words = text.split_whitespace();
    let pid = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let since = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    Locking::Theirs { pid, since }
}
