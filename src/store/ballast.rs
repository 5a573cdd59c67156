//! Disk space kept in reserve: what a full disk needs to finish its tasks and to checkpoint.

use std::fs::File;
use std::path::Path;

use super::fault::Fault;
use super::files;
use crate::error::StoreError;

pub(crate) const BALLAST_FILE: &str = "ballast";

/// Free space that must be left beside a ballast, in bytes; as much again does for a smaller one. On a
/// disk that was full, submissions have that until it is full again.
const BESIDE: u64 = 8 * STEP;

/// A ballast that is a part of what it should be has at least so many bytes: enough to store a few
/// thousand ends. Its size is a multiple of a step.
const LEAST: u64 = 4 * STEP;
const STEP: u64 = 1024 * 1024;

/// Gives the ballast's space back to the disk. Returns how many bytes that was.
pub(crate) fn free(directory: &Path) -> Result<u64, StoreError> {
    let path = directory.join(BALLAST_FILE);
    match files::look_at(&path)? {
        Some(found) if found.len() > 0 => {
            files::require_plain(&path, &found)?;
            files::remove_if_there(&path)?;
            Ok(found.len())
        }
        _ => Ok(0),
    }
}

/// What there is of the ballast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ballast {
    Missing,
    /// A smaller one, as the disk has no room for more.
    Part,
    Whole,
}

/// Makes the ballast `bytes` large if there is room for that and for [`BESIDE`]. If not, it is a part:
/// half of the room that there is, if that is no less than [`LEAST`]; after it was freed for a full disk
/// as much as it `freed`, as that isn't for submissions. One that is there only grows.
pub(crate) fn restore(
    directory: &Path,
    bytes: u64,
    freed: Option<u64>,
) -> Result<Ballast, StoreError> {
    let path = directory.join(BALLAST_FILE);
    let found = files::look_at(&path)?;
    if let Some(found) = &found {
        files::require_plain(&path, found)?;
    }
    let mut there = found.map_or(0, |found| found.len());
    if there > bytes || bytes == 0 {
        files::remove_if_there(&path)?;
        there = 0;
    }
    let room = available_bytes(directory)?.saturating_add(there);
    let wanted = size(bytes, room, freed).max(there);
    if wanted == 0 {
        return Ok(Ballast::Missing);
    }
    if wanted > there {
        let file = match there {
            // an empty one may be left of a crash
            0 => {
                files::remove_if_there(&path)?;
                files::create_private(&path)?
            }
            _ => files::open_private(&path)?,
        };
        if let Err(error) = allocate(&file, there, wanted - there) {
            if there == 0 {
                files::remove_if_there(&path)?;
                return Err(error);
            }
            // what there was stays
            file.set_len(there).fault("shorten the ballast")?;
            return Ok(Ballast::Part);
        }
    }
    Ok(if wanted == bytes { Ballast::Whole } else { Ballast::Part })
}

/// How large a ballast may be that should have `bytes`, in so much room; 0 if there is to be none.
fn size(bytes: u64, room: u64, freed: Option<u64>) -> u64 {
    let has_room = |bytes: u64| room >= bytes.saturating_add(BESIDE.min(bytes));
    let half = room / 2 - room / 2 % STEP;
    match freed {
        _ if has_room(bytes) => bytes,
        Some(freed) if freed < bytes && has_room(freed) => freed,
        None if (LEAST..bytes).contains(&half) => half,
        _ => 0,
    }
}

/// How many bytes the ballast has. An error counts as none.
pub(crate) fn bytes(directory: &Path) -> u64 {
    let found = files::look_at(&directory.join(BALLAST_FILE)).ok().flatten();
    found.map_or(0, |found| found.len())
}

/// How many bytes the file system of `directory` still has for this user.
pub(crate) fn available_bytes(directory: &Path) -> Result<u64, StoreError> {
    let space = rustix::fs::statvfs(directory).fault("look at the free disk space")?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Takes the space from `at` on for good, not as a hole.
fn allocate(mut file: &File, at: u64, bytes: u64) -> Result<(), StoreError> {
    use std::io::{Seek, SeekFrom, Write};

    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;

    static CHUNK: [u8; 65_536] = [0; 65_536];
    match fallocate(file, FallocateFlags::empty(), at, bytes) {
        // Not every file system can; zeros do as well, only slower.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        other => return other.fault("allocate the ballast"),
    }
    file.seek(SeekFrom::Start(at)).fault("find the ballast's end")?;
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK.len());
        file.write_all(&CHUNK[..part]).fault("write the ballast")?;
        left -= part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{child_argument, run_in_narrow_child};

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_ballast_is_whole_or_half_of_what_there_is_or_none() {
        let begins = |bytes, room| size(bytes * MIB, room * MIB, None) / MIB;
        assert_eq!([136, 135, 51, 8, 7].map(|room| begins(128, room)), [128, 67, 25, 4, 0]);
        assert_eq!(
            [4, 3].map(|room| begins(2, room)),
            [2, 0],
            "as much again does for a small one"
        );
        assert_eq!(begins(0, 1_000), 0);
    }

    #[test]
    fn a_part_that_cannot_grow_stays() {
        const NAME: &str = "store::ballast::tests::a_part_that_cannot_grow_stays";
        let part = 100 * 512;
        if let Some(directory) = child_argument() {
            assert_eq!(restore(&directory, part, None).unwrap(), Ballast::Whole);
            assert_eq!(restore(&directory, MIB, None).unwrap(), Ballast::Part);
            assert_eq!(bytes(&directory), part);
            restore(&directory.join("none"), MIB, None).unwrap_err();
            println!("it stays");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let output = run_in_narrow_child(NAME, place.path(), 200);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("it stays"), "{output:?}");
    }

    #[test]
    fn what_was_freed_for_a_full_disk_comes_back_whole_with_a_little_beside_it() {
        let again = |freed, room| size(128 * MIB, room * MIB, Some(freed * MIB)) / MIB;
        assert_eq!([136, 135, 128].map(|room| again(128, room)), [128, 0, 0]);
        assert_eq!([136, 135, 48, 47].map(|room| again(40, room)), [128, 40, 40, 0]);
    }
}
