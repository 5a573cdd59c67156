//! The operator's command.
//!
//!     cargo run --release --bin mqs -- bench --help

use std::process::ExitCode;

fn main() -> ExitCode {
    mqs::run(std::env::args_os())
}
