//! Lets the file operations of SQLite fail on purpose, to test what `message_queue_sqlite` does then.
//!
//! SQLite reaches its files through a VFS, a table of functions. [`Faults::below`] registers one of
//! our own as the process's default. It passes everything on to the one that was the default before,
//! counts it, and fails what a [`Plan`] says. Plans hold for one directory each, so tests that run
//! side by side in one process don't meet each other's faults.
//!
//! [`in_a_fork`] runs something in a fork of the process.
//!
//! This crate is the only place of the project with `unsafe` in it, all of it in `vfs.rs` and
//! `fork.rs`: a VFS is a table of C functions that are given raw pointers, and forking is one call.

mod disk;
#[allow(unsafe_code, reason = "no safe function forks")]
mod fork;
mod plan;
mod scope;
#[allow(unsafe_code, reason = "a VFS is made of C functions that take raw pointers")]
mod vfs;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use disk::{Image, Recording};
pub use fork::in_a_fork;
pub use plan::{File, Operation, Plan};

use disk::Disk;
use scope::Scope;

/// The faults of the SQLite files below one directory, for as long as it lives.
///
/// Dropping it lets everything work again. If that happens in a panic, it says first what the plan
/// was and whether it was met, so a failed test names its fault.
#[must_use = "nothing fails any more once it is dropped"]
pub struct Faults {
    scope: Arc<Scope>,
}

impl Faults {
    /// Watches the files below `directory` that are opened from now on.
    ///
    /// # Panics
    ///
    /// The directory isn't there, or SQLite doesn't take the VFS.
    pub fn below(directory: &Path) -> Self {
        vfs::install();
        Faults { scope: scope::add(directory) }
    }

    /// Follows `plan` from now on, in place of any before it. It counts from here.
    pub fn arm(&self, plan: Plan) {
        self.scope.arm(plan);
    }

    /// Lets everything work again, also what hangs. What [`fired`](Faults::fired) says stays.
    pub fn heal(&self) {
        self.scope.heal();
    }

    /// Records from now on what a disk would hold of the files, which must not be there yet. Nothing
    /// is really synced meanwhile. A sync that a plan fails loses its bytes.
    pub fn record(&self, recording: Recording) {
        *self.scope.disk() = Some(Disk::new(recording));
    }

    /// Gives `taken` what a power cut would leave, `images` times, with 1 to `apart` operations
    /// between each two. It is called in the middle of an operation: it must not touch a database.
    pub fn take_images(&self, images: u64, apart: u64, taken: impl FnMut(Image) + Send + 'static) {
        if let Some(disk) = &mut *self.scope.disk() {
            disk.take(images, apart, Box::new(taken));
        }
    }

    /// What a power cut would leave now, if the disk is recorded.
    #[must_use]
    pub fn image(&self) -> Option<Image> {
        self.scope.disk().as_mut().map(Disk::image)
    }

    /// How many operations the last plan has failed, or let hang, so far.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.scope.state().fired()
    }

    /// How often SQLite asked for this operation on files of this kind so far, whatever came of it.
    #[must_use]
    pub fn seen(&self, operation: Operation, file: File) -> u64 {
        self.scope.state().seen(operation, file)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        #[expect(clippy::print_stderr, reason = "a failing test says which fault it was about")]
        if std::thread::panicking() {
            eprintln!("it failed with {self:?}");
        }
        self.heal();
        scope::remove(&self.scope);
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scope.state().fmt(f)
    }
}
