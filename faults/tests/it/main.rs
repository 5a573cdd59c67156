//! What the queue does when its files fail. Each test has faults in a directory of its own, so they
//! run side by side.
#![expect(clippy::unwrap_used, reason = "a test fails where its helper does")]

mod checkpoints;
mod ends;
mod full_disk;
mod panics;
mod reads;
mod requests;
mod running;
mod runs;
mod shim;
mod slow_disk;
mod sweep;
mod syncs;
mod unknown;
mod world;
