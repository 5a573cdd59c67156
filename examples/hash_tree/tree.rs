//! Which files there are.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf, absolute};

use tokio::sync::mpsc;
use walkdir::{DirEntry, WalkDir};

/// How many files are found before they are submitted together.
const CHUNK: usize = 1_000;

/// A directory, but for what this program writes itself.
#[derive(Clone)]
pub(crate) struct Tree {
    root: PathBuf,
    own: Vec<PathBuf>,
}

/// A part of the tree.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) files: Vec<OsString>,
    /// Directories that can't be read, and why.
    pub(crate) unreadable: Vec<(OsString, String)>,
}

impl Tree {
    /// Paths are made absolute, so that the manifest can be checked from anywhere; links in them
    /// stay as they are.
    pub(crate) fn new(root: &Path, own: &[&Path]) -> io::Result<Self> {
        let own = own.iter().map(|path| real_place(path)).collect::<io::Result<_>>()?;
        std::fs::metadata(root)?;
        Ok(Tree { root: absolute(root)?, own })
    }

    pub(crate) fn contains(&self, path: &OsStr) -> bool {
        Path::new(path).starts_with(&self.root)
    }

    /// Finds every regular file, on a thread of its own. Links aren't followed, but for the root.
    pub(crate) fn walk(&self) -> mpsc::Receiver<Found> {
        let (chunks, receiver) = mpsc::channel(2);
        let tree = self.clone();
        std::thread::spawn(move || {
            let mut found = Found::default();
            for entry in WalkDir::new(&tree.root).into_iter().filter_entry(|at| !tree.is_own(at)) {
                found.add(entry);
                if found.files.len() >= CHUNK {
                    let Ok(()) = chunks.blocking_send(std::mem::take(&mut found)) else { return };
                }
            }
            // if nobody receives it, the program is about to end
            drop(chunks.blocking_send(found));
        });
        receiver
    }

    fn is_own(&self, entry: &DirEntry) -> bool {
        let mut named = self.own.iter().filter(|own| own.file_name() == Some(entry.file_name()));
        named.any(|own| real_place(entry.path()).is_ok_and(|place| place == *own))
    }
}

impl Found {
    fn add(&mut self, entry: walkdir::Result<DirEntry>) {
        match entry {
            Ok(entry) if entry.file_type().is_file() => {
                self.files.push(entry.into_path().into_os_string());
            }
            Ok(_) => {}
            Err(error) => {
                let path = error.path().unwrap_or(Path::new("")).as_os_str().to_owned();
                let reason = error.io_error().map_or("unreadable".into(), ToString::to_string);
                self.unreadable.push((path, reason));
            }
        }
    }
}

/// A path with all links resolved but for its last part, which need not exist.
fn real_place(path: &Path) -> io::Result<PathBuf> {
    let path = absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => path.canonicalize(),
    }
}
