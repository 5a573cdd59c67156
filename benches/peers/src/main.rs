//! Builds the peers, runs each in a process of its own in alternating rounds, and prints medians.

mod runner;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match runner::run(&runner::Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}
