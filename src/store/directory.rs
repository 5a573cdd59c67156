//! The queue's directory: its owner, its manifest, its ballast.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ballast::{self, Ballast};
use super::fault::Fault;
use super::files::{self, FileIdentity};
use super::lock::{DirectoryLock, Locking};
use super::manifest::{self, Manifest, ShardEntry, ShardState, StoredQueue};
use crate::error::{Error, StartError, StoreError, StoreErrorKind};
use crate::proof::{self, Safeguard};
use crate::record::ShardId;

pub(crate) use super::manifest::shard_file;

/// How a directory is opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DirectoryOptions {
    /// Opens on a network file system too. SQLite's locks and shared memory don't work there
    /// between machines.
    pub(crate) allow_network_filesystem: bool,
    /// The size of the ballast file, in bytes; 0 for none. Twice the limit of the write-ahead log
    /// is what a checkpoint on a full disk can need.
    pub(crate) ballast_bytes: u64,
}

/// Why a directory can't be opened.
#[derive(Clone, Debug)]
pub(crate) enum StartFailure {
    /// Another process owns it, or this one already.
    Locked {
        /// The owner's process id, 0 if it couldn't be read.
        pid: u32,
        /// When it took the directory: seconds since the Unix epoch.
        since: u64,
    },
    /// Everything else that is wrong with it.
    Refused(Vec<StartError>),
}

impl StartFailure {
    fn one(what: impl Into<String>, source: StoreError) -> Self {
        StartFailure::Refused(vec![StartError::Open { what: what.into(), source }])
    }
}

impl From<StartFailure> for Error {
    fn from(failure: StartFailure) -> Self {
        match failure {
            StartFailure::Locked { pid, since } => Error::Locked { pid, since },
            StartFailure::Refused(reasons) => Error::Start { reasons },
        }
    }
}

/// An owned directory. Clones share the ownership, which ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    ballast_bytes: u64,
    /// Taken to free the ballast or to make it.
    ballast: Mutex<()>,
    manifest: Mutex<Known>,
    lock: DirectoryLock,
}

/// What the manifest says.
#[derive(Debug)]
struct Known {
    manifest: Manifest,
    /// Whether the file may say something else, because a write failed and couldn't be taken back.
    unsure: bool,
}

impl Known {
    /// Replaces the file, then what is known of it. A write that fails may have replaced it: then what it
    /// said before is put back.
    fn replace(&mut self, directory: &Path, changed: Manifest) -> Result<(), StoreError> {
        if let Err(error) = changed.write(directory) {
            self.unsure = self.manifest.write(directory).is_err();
            return Err(error);
        }
        *self = Known { manifest: changed, unsure: false };
        Ok(())
    }
}

impl Directory {
    /// Takes the directory at `path`, which is created if only its last part is missing.
    ///
    /// # Errors
    ///
    /// [`StartFailure::Locked`] at once if another process has it; otherwise everything that is
    /// wrong with the directory, its manifest and the kinds of its files. No file that was there
    /// before is changed but the lock's.
    pub(crate) fn open(path: &Path, options: &DirectoryOptions) -> Result<Self, StartFailure> {
        let name = files::name_of(path);
        let path = prepare(path, options).map_err(|source| StartFailure::one(&name, source))?;
        let lock = match DirectoryLock::take(&path) {
            Ok(Locking::Ours(lock)) => lock,
            Ok(Locking::Theirs { pid, since }) => {
                return Err(StartFailure::Locked { pid, since });
            }
            Err(source) => return Err(StartFailure::one(super::lock::LOCK_FILE, source)),
        };
        let lock = sign(lock, &path).map_err(|source| StartFailure::one(&name, source))?;
        let manifest = read_or_create(&path)?;
        let reasons = mistakes(&path, &manifest);
        if !reasons.is_empty() {
            return Err(StartFailure::Refused(reasons));
        }
        let ballast_bytes = options.ballast_bytes;
        let (ballast, manifest) = (Mutex::new(()), Mutex::new(Known { manifest, unsure: false }));
        let inner = Inner { path, ballast_bytes, ballast, manifest, lock };
        let directory = Directory { inner: Arc::new(inner) };
        if let Err(error) = directory.restore_ballast(None) {
            tracing::warn!(%error, "no ballast: a full disk will stop completions too");
        }
        Ok(directory)
    }

    /// Its canonical, absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Where a shard's file is.
    pub(crate) fn shard_path(&self, shard: ShardId) -> PathBuf {
        self.inner.path.join(manifest::shard_file(shard))
    }

    /// Makes sure that the manifest names at least `count` shards, and returns those to open.
    /// Shards are never removed: each that may hold a task is opened, whatever the settings say.
    /// Above `count`, what comes behind the last complete file doesn't: it was being added when the
    /// process ended or the disk was full, and waits until it is wanted.
    ///
    /// # Errors
    ///
    /// The manifest can't be written.
    pub(crate) fn ensure_shards(&self, count: u16) -> Result<Vec<ShardId>, StoreError> {
        let mut known = self.manifest();
        let mut extended = known.manifest.clone();
        if extended.extend_to(count.min(ShardId::MAX.0 + 1))? {
            known.replace(&self.inner.path, extended)?;
        }
        let manifest = &known.manifest;
        let opened = manifest.complete().max(usize::from(count));
        Ok(manifest.shards.iter().take(opened).map(ShardEntry::shard).collect())
    }

    /// What the manifest says about a shard.
    pub(crate) fn entry(&self, shard: ShardId) -> Result<ShardEntry, StoreError> {
        self.manifest().manifest.shards.get(shard.index()).cloned().ok_or_else(|| {
            StoreError::new(
                StoreErrorKind::Missing,
                format!("manifest.json names no shard {shard}"),
            )
        })
    }

    /// Notes that a shard's file is complete: from now on it must be there.
    pub(crate) fn mark_ready(&self, shard: ShardId) -> Result<(), StoreError> {
        let mut known = self.manifest();
        let mut marked = known.manifest.clone();
        if let Some(entry) = marked.shards.get_mut(shard.index()) {
            entry.state = ShardState::Ready;
        }
        known.replace(&self.inner.path, marked)
    }

    /// Changes what is stored of a named queue. Nothing is written if nothing changes.
    ///
    /// # Errors
    ///
    /// The manifest can't be written. Then it says what it said before, unless that can't be written
    /// either; the next change of any queue sees to it again.
    pub(crate) fn change_queue(
        &self,
        name: &str,
        change: impl FnOnce(&mut StoredQueue),
    ) -> Result<(), StoreError> {
        let mut known = self.manifest();
        let mut changed = known.manifest.clone();
        let queue = changed.queues.entry(name.to_owned()).or_default();
        change(queue);
        if *queue == StoredQueue::default() {
            changed.queues.remove(name);
        }
        if changed != known.manifest || known.unsure {
            known.replace(&self.inner.path, changed)?;
        }
        Ok(())
    }

    /// A copy of the manifest as it is now.
    pub(crate) fn snapshot(&self) -> Manifest {
        self.manifest().manifest.clone()
    }

    /// Gives the ballast's space back to the disk, for settlements and checkpoints; to be called
    /// at the first [`StoreErrorKind::Full`]. Returns how many bytes that was.
    pub(crate) fn free_ballast(&self) -> Result<u64, StoreError> {
        if !proof::stands(Safeguard::Ballast) {
            return Ok(0);
        }
        let _taken = self.ballast();
        ballast::free(&self.inner.path)
    }

    /// How many bytes the ballast has.
    pub(crate) fn ballast_bytes(&self) -> u64 {
        ballast::bytes(&self.inner.path)
    }

    /// Whether it has fewer than it should have.
    pub(crate) fn misses_ballast(&self) -> bool {
        self.ballast_bytes() < self.inner.ballast_bytes
    }

    /// Takes the ballast, or a part of it, as far as there is room; after it was freed for a full disk
    /// no less than it `freed`.
    pub(crate) fn restore_ballast(&self, freed: Option<u64>) -> Result<Ballast, StoreError> {
        let _taken = self.ballast();
        ballast::restore(&self.inner.path, self.inner.ballast_bytes, freed)
    }

    /// Shards find the disk full, or not any more, at the same time.
    fn ballast(&self) -> MutexGuard<'_, ()> {
        self.inner.ballast.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses to go on in a forked child, or after `queue.lock` was removed or replaced.
    pub(crate) fn ensure_still_ours(&self) -> Result<(), StoreError> {
        self.inner.lock.ensure_same_process()?;
        self.inner.lock.ensure_same_file()
    }

    /// The file by which the directory is owned, as it was when it was taken.
    pub(crate) fn lock_file(&self) -> (PathBuf, FileIdentity) {
        self.inner.lock.file()
    }

    fn manifest(&self) -> MutexGuard<'_, Known> {
        // It is only ever replaced as a whole, so a panic can't leave half of one.
        self.inner.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds or makes the directory and returns its canonical path.
pub(crate) fn prepare(path: &Path, options: &DirectoryOptions) -> Result<PathBuf, StoreError> {
    let (existing, missing) = match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            warn_if_shared(path, &found);
            (path.to_owned(), None)
        }
        Ok(_) => return Err(refused(StoreErrorKind::NotAFile, path, "is not a directory")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let Some(name) = path.file_name() else {
                return Err(refused(StoreErrorKind::Missing, path, "does not exist"));
            };
            (files::parent_of(path), Some(name))
        }
        Err(error) => return Err(error).fault(&format!("look at {}", files::name_of(path))),
    };
    let Ok(existing) = existing.canonicalize() else {
        let absolute = std::path::absolute(&existing).unwrap_or(existing);
        let parent = absolute.display();
        let why = format!("cannot be created: there is no {parent}; create that first");
        return Err(refused(StoreErrorKind::Missing, path, &why));
    };
    if !options.allow_network_filesystem {
        refuse_network_filesystem(&existing)?;
    }
    let Some(name) = missing else { return Ok(existing) };
    let path = existing.join(name);
    files::create_directory(&path)?;
    Ok(path)
}

/// A directory that was there keeps its mode: it may have other uses. The files in it are private.
fn warn_if_shared(path: &Path, found: &fs::Metadata) {
    if found.mode() & 0o022 != 0 {
        let directory = path.display();
        tracing::warn!(%directory, "other users can write to the queue's directory");
    }
}

fn refused(kind: StoreErrorKind, path: &Path, why: &str) -> StoreError {
    StoreError::new(kind, format!("{} {why}", files::name_of(path)))
}

/// Writes the owner into the lock file, from the ballast's space if there is no other.
fn sign(mut lock: DirectoryLock, path: &Path) -> Result<DirectoryLock, StoreError> {
    let signed = match lock.sign() {
        Err(error) if error.kind() == StoreErrorKind::Full && ballast::free(path)? > 0 => {
            lock.sign()
        }
        other => other,
    };
    signed.map(|()| lock)
}

fn read_or_create(path: &Path) -> Result<Manifest, StartFailure> {
    let failed = |source| StartFailure::one(manifest::MANIFEST_FILE, source);
    if let Some(manifest) = Manifest::read(path).map_err(failed)? {
        if manifest.backup {
            let why = "the directory is a backup; restore it into an empty directory";
            return Err(failed(StoreError::new(StoreErrorKind::Foreign, why)));
        }
        return Ok(manifest);
    }
    let orphans = shard_files(path).map_err(failed)?;
    if !orphans.is_empty() {
        let why = format!(
            "manifest.json is missing, but {} is there; put the manifest back, or restore a backup \
             into an empty directory",
            orphans.join(", ")
        );
        return Err(failed(StoreError::new(StoreErrorKind::Missing, why)));
    }
    let manifest = Manifest::new().map_err(failed)?;
    manifest.write(path).map_err(failed)?;
    Ok(manifest)
}

/// Everything in the directory that doesn't fit the manifest, found without opening a file.
fn mistakes(path: &Path, manifest: &Manifest) -> Vec<StartError> {
    let mut reasons = Vec::new();
    let mut refuse = |what: &str, source| {
        reasons.push(StartError::Open { what: what.to_owned(), source });
    };
    for entry in &manifest.shards {
        let file = path.join(&entry.file);
        match files::look_at(&file) {
            Ok(Some(found)) => {
                if let Err(source) = files::require_plain(&file, &found) {
                    refuse(&entry.file, source);
                }
            }
            Ok(None) if entry.state == ShardState::Ready => {
                refuse(&entry.file, missing(&entry.file));
            }
            Ok(None) => {}
            Err(source) => refuse(&entry.file, source),
        }
    }
    match shard_files(path) {
        Ok(names) => {
            for name in names {
                if manifest.shards.iter().all(|entry| entry.file != name) {
                    let why = format!(
                        "{name} is not in manifest.json: it is a copy or another queue's; move it \
                         out of the directory"
                    );
                    refuse(&name, StoreError::new(StoreErrorKind::Foreign, why));
                }
            }
        }
        Err(source) => refuse("the directory", source),
    }
    reasons
}

/// The error for a file that must be there.
pub(crate) fn missing(file: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::Missing,
        format!(
            "{file} is named by manifest.json but is not there; put it back, or restore a backup \
             into an empty directory"
        ),
    )
}

/// The names in `path` that look like a shard's file, sorted.
fn shard_files(path: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).fault("list the directory")? {
        let name = entry.fault("list the directory")?.file_name();
        let name = name.to_string_lossy().into_owned();
        if manifest::is_shard_file(&name) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The name of the network or user-space file system with this statfs number, if it is one.
/// Locks and shared memory of different machines, or of a bridge, don't meet there.
#[cfg(any(target_os = "linux", test))]
fn network_filesystem(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 => "SMB",
        0xfe53_4d42 => "SMB2",
        0x0102_1997 => "9p",
        0x6573_5546 => "FUSE",
        0x5346_414f => "AFS",
        0x00c3_6400 => "Ceph",
        0x7375_7245 => "Coda",
        0x0bd0_0bd0 => "Lustre",
        0x786f_4256 => "a virtual machine's shared folder",
        _ => return None,
    })
}

#[cfg(target_os = "linux")]
fn refuse_network_filesystem(path: &Path) -> Result<(), StoreError> {
    let found = rustix::fs::statfs(path).fault("look at the file system")?;
    // The field's type differs between processors; the number always has 32 bits.
    let magic = (i128::from(found.f_type) & 0xffff_ffff) as u32;
    refuse_magic(magic)
}

#[cfg(not(target_os = "linux"))]
fn refuse_network_filesystem(_: &Path) -> Result<(), StoreError> {
    Ok(())
}

#[cfg(any(target_os = "linux", test))]
fn refuse_magic(magic: u32) -> Result<(), StoreError> {
    let Some(name) = network_filesystem(magic) else { return Ok(()) };
    Err(StoreError::new(
        StoreErrorKind::NetworkFileSystem,
        format!(
            "the directory is on {name}, where SQLite's locks cannot be trusted; use a local disk, \
             or set storage.allow_network_filesystem if one machine only ever uses it"
        ),
    ))
}

#[cfg(test)]
mod tests;
