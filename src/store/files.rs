//! Small things about files: private modes, syncing, names, identities.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::fault::Fault;
use crate::error::{StoreError, StoreErrorKind};

/// Read and write for the owner, nothing for anybody else.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The file's name for messages, without its parents.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Makes a directory that only its owner can enter, and syncs it and its parent. One that another
/// process has made in the meantime does as well.
pub(crate) fn create_directory(path: &Path) -> Result<(), StoreError> {
    let action = format!("create the directory {}", name_of(path));
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created.fault(&action)?,
    }
    sync_directory(path)?;
    sync_directory(&parent_of(path))
}

/// The directory in which `path` is; `.` for a bare name.
pub(crate) fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) => PathBuf::from("."),
        None => path.to_owned(),
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .fault(&format!("sync the directory {}", name_of(path)))
}

/// Creates a file that must not be there yet, readable by its owner only.
pub(crate) fn create_private(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .fault(&format!("create {}", name_of(path)))
}

/// Opens a file of ours for reading and writing, creating it if need be. Not for databases:
/// closing a second handle on one drops the locks that SQLite holds on it.
pub(crate) fn open_private(path: &Path) -> Result<File, StoreError> {
    if let Some(found) = look_at(path)? {
        require_plain(path, &found)?;
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .fault(&format!("open {}", name_of(path)))?;
    let opened = file.metadata().fault(&format!("look at {}", name_of(path)))?;
    require_plain(path, &opened)?;
    Ok(file)
}

/// What is at `path`, without following a symbolic link and without opening anything.
pub(crate) fn look_at(path: &Path) -> Result<Option<Metadata>, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).fault(&format!("look at {}", name_of(path))),
    }
}

/// Refuses everything but a plain file with one name.
pub(crate) fn require_plain(path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
    let kind = metadata.file_type();
    let refuse = |what: &str| {
        let name = name_of(path);
        Err(StoreError::new(
            StoreErrorKind::NotAFile,
            format!("{name} is {what}, not a plain file; put the file itself there"),
        ))
    };
    if kind.is_symlink() {
        refuse("a symbolic link")
    } else if kind.is_dir() {
        refuse("a directory")
    } else if !kind.is_file() {
        refuse("a FIFO, socket or device")
    } else if metadata.nlink() > 1 {
        // Under two names a database has two write-ahead logs, which ends in corruption.
        refuse("one of several hard links")
    } else {
        Ok(())
    }
}

/// Removes a file that may not be there.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).fault(&format!("remove {}", name_of(path)))
        }
        _ => Ok(()),
    }
}

/// The path of a companion file: `shard-000.db` and `-wal` make `shard-000.db-wal`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// 16 random bytes as 32 lowercase hexadecimal digits.
pub(crate) fn new_uuid() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .fault("read random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Which file a path names: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        FileIdentity { device: metadata.dev(), inode: metadata.ino() }
    }
}
