//! The command `mqs` as a library, so that `cargo bench` runs what the command runs.
//!
//! It is a crate of its own: a program that embeds the queue needs no parser of arguments.

mod bench;
mod command;

pub use command::run;

/// Values travel between threads here, and glibc's allocator is slow at freeing what another thread
/// allocated. SQLite's own memory isn't affected, so the bare loop gains nothing by it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
