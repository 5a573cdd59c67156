//! The command line.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use clap::Parser;

use crate::case::Case;
use crate::child;
use crate::control;
use crate::journal::Journal;
use crate::panics;
use crate::report;
use crate::row::{Row, Scale};
use crate::rows;
use crate::runner::{CHANGES, Runner};
use crate::running::Running;

const TABLE_LEFT_OUT: &str = ":!docs/reliability.md";

/// Proves what message_queue_sqlite promises, and writes the table in docs/reliability.md
#[derive(Parser)]
#[command(name = "prove")]
struct Arguments {
    /// Only these rows: P1, P2, …
    rows: Vec<String>,
    /// A tenth of each figure, and no change to the table
    #[arg(long)]
    tenth: bool,
    /// Run the one case with this seed, of one row
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: run it with what the row's control arm of this number does, from 1 on
    #[arg(long, requires = "seed")]
    control: Option<usize>,
    /// The seed of each row's first case
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Where it is noted how far each row is [default: target/prove.json, target/prove-tenth.json]
    #[arg(long)]
    journal: Option<PathBuf>,
    /// List the rows
    #[arg(long)]
    list: bool,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command says what it found")]
pub(crate) fn run() -> ExitCode {
    panics::hide_those_on_purpose();
    let own: Vec<_> = std::env::args_os().skip(1).collect();
    if let [child, part, dir] = &own[..]
        && child == "child"
    {
        return child_process(part, Path::new(dir));
    }
    let arguments = Arguments::parse();
    let rows = match chosen(&arguments.rows) {
        Ok(rows) => rows,
        Err(unknown) => {
            eprintln!("error: there is no row {unknown}; --list names them");
            return ExitCode::from(2);
        }
    };
    if arguments.list {
        rows.iter().for_each(|row| println!("{:4} {}", row.name, row.promise));
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = arguments.seed {
        return replay(&rows, seed, arguments.control);
    }
    match prove(&arguments, &rows) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a process does that a row has started.
#[expect(clippy::print_stderr, reason = "a child says why it can't go on")]
fn child_process(part: &OsStr, dir: &Path) -> ExitCode {
    match rows::child(part, dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("the child: {failure}");
            ExitCode::from(child::BROKEN)
        }
    }
}

fn chosen(names: &[String]) -> Result<Vec<Row>, String> {
    let mut rows = rows::all();
    for name in names {
        if !rows.iter().any(|row| row.name.eq_ignore_ascii_case(name)) {
            return Err(name.clone());
        }
    }
    let is_named = |row: &Row| names.iter().any(|name| row.name.eq_ignore_ascii_case(name));
    rows.retain(|row| names.is_empty() || is_named(row));
    Ok(rows)
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command says what it found")]
fn replay(rows: &[Row], seed: u64, arm: Option<usize>) -> ExitCode {
    let [row] = rows else {
        eprintln!("error: --seed is about one row: name it");
        return ExitCode::from(2);
    };
    let case = match arm {
        None => Some(row.case),
        Some(number) => control::of(row, number).map(|control| control.case),
    };
    let Some(case) = case else {
        eprintln!("error: {} has {} control arms", row.name, row.controls.len());
        return ExitCode::from(2);
    };
    match Case::run(seed, case) {
        Ok(seen) => {
            println!("{} --seed {seed}: passed, {:?}", row.name, seen.counts);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{} --seed {seed}: {failure}", row.name);
            ExitCode::FAILURE
        }
    }
}

/// Runs the rows; tells whether all of them hold.
#[expect(clippy::print_stdout, reason = "a command says what it found")]
fn prove(arguments: &Arguments, rows: &[Row]) -> std::io::Result<bool> {
    let scale = if arguments.tenth { Scale::Tenth } else { Scale::Full };
    let usual = if arguments.tenth { "target/prove-tenth.json" } else { "target/prove.json" };
    let journal = arguments.journal.clone().unwrap_or_else(|| usual.into());
    let mut runner = Runner {
        scale,
        first_seed: arguments.first_seed,
        commit: commit(),
        date: said("date", &["--utc", "+%Y-%m-%d"]),
        journal: Journal::read(&journal)?,
        running: Arc::new(Running::beside(&journal)),
    };
    if let Some(left) = runner.running.left() {
        println!("these were under way when a run before this one was ended:\n{left}");
    }
    let mut all_hold = true;
    for row in rows {
        match runner.run(row) {
            Ok(progress) => {
                let took = progress.took().as_secs_f64();
                println!("{} holds: {} ({took:.1} s)", row.name, report::figures(row, &progress));
                if scale == Scale::Full {
                    report::write(Path::new("docs/reliability.md"), &[(row, &progress)])?;
                }
            }
            Err(broken) => {
                all_hold = false;
                println!("{} FAILED: {}", row.name, broken.failure);
                if let Some(seed) = broken.seed {
                    println!("{} again: scripts/prove {} --seed {seed}", row.name, row.name);
                }
            }
        }
    }
    Ok(all_hold)
}

/// The commit that is tested. The table, which every row changes, is no change to it.
fn commit() -> String {
    let head = said("git", &["rev-parse", "--short=7", "HEAD"]);
    let others = ["status", "--porcelain", "--untracked-files=no", "--", ".", TABLE_LEFT_OUT];
    let changed = said("git", &others);
    if changed.is_empty() { head } else { format!("{head} {CHANGES}") }
}

/// What a command prints, or "unknown".
fn said(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    let said = output.ok().filter(|output| output.status.success());
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    said.unwrap_or_else(|| "unknown".into())
}
