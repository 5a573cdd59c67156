//! What `mqs` can be asked to do.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::bench::{self, Fill, Options};

/// Looks after the queues of message_queue_sqlite
#[derive(Parser)]
#[command(name = "mqs", version, arg_required_else_help = true)]
struct Mqs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures the queue beside a bare loop of SQL, in this process and on this machine
    Bench(Options),
    /// Fills a directory for the scenario `reopen`, in a process that may end badly
    #[command(hide = true)]
    BenchFill(Fill),
}

/// Does what these arguments ask for; the first is the program's name.
///
/// The exit code is 0, or 1 if it couldn't be done or, with `--check`, a figure was missed.
/// Arguments that make no sense end the process with 2 and an explanation.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let done = match Mqs::parse_from(arguments).command {
        Command::Bench(options) => bench::run(options),
        Command::BenchFill(fill) => fill.run().map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a command says why it failed")]
            {
                eprintln!("error: {error}");
            }
            ExitCode::FAILURE
        }
    }
}
