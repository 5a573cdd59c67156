//! Lets the file operations of SQLite fail on purpose, to test what `message_queue_sqlite` does then.
//!
//! SQLite reaches its files through a VFS, a table of functions. [`Faults::below`] registers one of
//! our own as the process's default. It passes everything on to the one that was the default before,
//! counts it, and fails what a [`Plan`] says. Plans hold for one directory each, so tests that run
//! side by side in one process don't meet each other's faults.
//!
//! This crate is the only place of the project with `unsafe` in it, all of it in `vfs.rs`: a VFS is
//! a table of C functions that are given raw pointers.

mod plan;
mod scope;
#[allow(unsafe_code, reason = "a VFS is made of C functions that take raw pointers")]
mod vfs;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use plan::{File, Operation, Plan};

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
