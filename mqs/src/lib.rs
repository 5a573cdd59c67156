//! The command `mqs` as a library, so that `cargo bench` runs what the command runs.
//!
//! It is a crate of its own: a program that embeds the queue needs no parser of arguments.

mod bench;
mod command;

pub use command::run;
