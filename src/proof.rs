//! What only this project's own proofs use: safeguards that can be taken out, to see that a test
//! notices, places where actors can be made to panic, and simulations on one thread. Without the
//! feature `proof` the safeguards stand, nothing panics here, and this costs nothing.

#[cfg(feature = "proof")]
mod fences;
mod points;
#[cfg(feature = "proof")]
mod simulation;

#[cfg(feature = "proof")]
pub use fences::{Fences, throw_stale_ends};
#[cfg(not(feature = "proof"))]
pub(crate) use points::Point;
pub(crate) use points::Points;
#[cfg(feature = "proof")]
pub use points::{Panics, Point};
#[cfg(feature = "proof")]
pub use simulation::Simulation;
#[cfg(feature = "proof")]
pub(crate) use simulation::{dawdle, on_one_thread};

#[cfg(feature = "proof")]
use std::sync::atomic::{AtomicUsize, Ordering};

/// Something without which a promise isn't kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safeguard {
    /// Opening a file moves its log into it and syncs it before anything is acknowledged.
    CheckpointAtOpen,
    /// Closing a file moves its log into it. A process that is killed doesn't get to that.
    CheckpointAtClose,
    /// Nothing is acknowledged before it is committed.
    Commit,
    /// A durable callback is recorded by the transaction that ends its task.
    DeliveryRecord,
    /// A COMMIT that fails isn't taken for one that didn't.
    FailedCommit,
    /// A process that died during an attempt is counted.
    CrashCount,
    /// What a task is given is checked against its checksum.
    Checksum,
    /// An actor that is rebuilt leaves alone what lives outside of it.
    Reconcile,
    /// What the wall clock says counts for purging only when the process has been up for as long.
    ConfirmedTime,
    /// A full disk has a reserve for ends.
    Ballast,
    /// One process owns a directory.
    Lock,
    /// Panics of closures and of what is dropped for a task end there.
    CaughtPanics,
    /// What an attempt writes is fenced by the number of its claim.
    Fence,
    /// An attempt's end is written only to a task that runs, so that it is written once.
    EndedOnce,
    /// A shard's file is the one that the manifest names.
    ShardIdentity,
    /// Files that are removed or replaced while they are open are noticed.
    FilesWatched,
    /// A fork of the queue's process is told that the queue isn't its own.
    ForksRefused,
    /// What was running when the process died is ready again.
    InHand,
    /// A task of a higher priority has a lower rank.
    Priority,
}

impl Safeguard {
    /// How many there are.
    #[cfg(feature = "proof")]
    const ALL: usize = Safeguard::Priority as usize + 1;
}

#[cfg(feature = "proof")]
static TAKEN_OUT: [AtomicUsize; Safeguard::ALL] = [const { AtomicUsize::new(0) }; Safeguard::ALL];

/// Whether the safeguard stands.
pub(crate) fn stands(safeguard: Safeguard) -> bool {
    #[cfg(feature = "proof")]
    return TAKEN_OUT[safeguard as usize].load(Ordering::Acquire) == 0;
    #[cfg(not(feature = "proof"))]
    {
        let _ = safeguard;
        true
    }
}

/// Whether queues that are started on this thread have all their actors on it.
#[cfg(not(feature = "proof"))]
pub(crate) fn on_one_thread() -> bool {
    false
}

/// Lets a commit take its time, if it is to.
#[cfg(not(feature = "proof"))]
pub(crate) async fn dawdle() {}

/// A safeguard that is taken out in the whole process, until this is dropped.
#[cfg(feature = "proof")]
#[derive(Debug)]
#[must_use = "it stands again when this is dropped"]
pub struct Without(Safeguard);

#[cfg(feature = "proof")]
impl Without {
    /// Takes a safeguard out.
    pub fn the(safeguard: Safeguard) -> Self {
        TAKEN_OUT[safeguard as usize].fetch_add(1, Ordering::AcqRel);
        Without(safeguard)
    }
}

#[cfg(feature = "proof")]
impl Drop for Without {
    fn drop(&mut self) {
        TAKEN_OUT[self.0 as usize].fetch_sub(1, Ordering::AcqRel);
    }
}
