//! Disk space kept in reserve: what a full disk needs to finish its tasks and to checkpoint.

use std::fs::File;
use std::path::Path;

use super::fault::Fault;
use super::files;
use crate::error::StoreError;

pub(crate) const BALLAST_FILE: &str = "ballast";

/// Free space that must be left beside a new ballast, as a multiple of its size.
const HEADROOM: u64 = 2;

/// Gives the ballast's space back to the disk. True if there was any.
pub(crate) fn free(directory: &Path) -> Result<bool, StoreError> {
    let path = directory.join(BALLAST_FILE);
    match files::look_at(&path)? {
        Some(found) if found.len() > 0 => {
            files::require_plain(&path, &found)?;
            files::remove_if_there(&path)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Makes the ballast `bytes` large if the disk has room for it and as much again. True if it is
/// in place afterwards.
pub(crate) fn restore(directory: &Path, bytes: u64) -> Result<bool, StoreError> {
    let path = directory.join(BALLAST_FILE);
    let found = files::look_at(&path)?;
    if let Some(found) = &found {
        files::require_plain(&path, found)?;
        if found.len() == bytes {
            return Ok(true);
        }
    }
    files::remove_if_there(&path)?;
    if bytes == 0 || available_bytes(directory)? < bytes.saturating_mul(HEADROOM) {
        return Ok(false);
    }
    let file = files::create_private(&path)?;
    let made = allocate(&file, bytes);
    if made.is_err() {
        files::remove_if_there(&path)?;
    }
    made.map(|()| true)
}

/// Whether there is a ballast. An error counts as none.
pub(crate) fn is_there(directory: &Path) -> bool {
    files::look_at(&directory.join(BALLAST_FILE))
        .is_ok_and(|found| found.is_some_and(|found| found.len() > 0))
}

/// How many bytes the file system of `directory` still has for this user.
pub(crate) fn available_bytes(directory: &Path) -> Result<u64, StoreError> {
    let space = rustix::fs::statvfs(directory).fault("look at the free disk space")?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Takes the space for good, not as a hole.
fn allocate(mut file: &File, bytes: u64) -> Result<(), StoreError> {
    use std::io::Write;

    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;

    static CHUNK: [u8; 65_536] = [0; 65_536];
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        // Not every file system can; zeros do as well, only slower.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        other => return other.fault("allocate the ballast"),
    }
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK.len());
        file.write_all(&CHUNK[..part]).fault("write the ballast")?;
        left -= part as u64;
    }
    Ok(())
}
