//! Proves what the queue promises, row by row, and writes the table in docs/reliability.md.
//!
//!     scripts/prove                  every row with its full figures; goes on where it was stopped
//!     scripts/prove P1 P7            these rows
//!     scripts/prove --tenth          a tenth of each figure, as in .ci/run
//!     scripts/prove P2 --seed 1234   one case again: what a failure printed
//!     scripts/prove P2 --seed 5 --control 1   one of its first control arm
//!
//! A row is a promise, a case that tests it with a seed, and control arms: the same case with a
//! safeguard taken out or on a disk that lies, which must fail. A row whose control arm passes proves
//! nothing, so it counts as failed.

mod case;
mod child;
mod command;
mod control;
mod history;
mod image;
mod journal;
mod panics;
mod report;
mod row;
mod rows;
mod runner;
mod running;
mod scene;
mod simulation;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::run()
}
