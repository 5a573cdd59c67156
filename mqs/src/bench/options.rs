//! What a run of the benchmark can be told.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use message_queue_sqlite::settings;

use super::scenario::Scenario;

/// What to measure, how long, and where.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Rows of the table and fields of the JSON are explained in docs/benchmarks.md. Read the ratios: the
figures themselves follow the machine and its disk.")]
pub(crate) struct Options {
    /// Prints one JSON object a line instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Measures this one only; may be given several times [default: all of them]
    #[arg(long = "scenario", value_name = "NAME", value_enum)]
    pub(crate) scenarios: Vec<Scenario>,
    /// About how many seconds the queue is measured in each round; 0.01 to 3600
    #[arg(long, value_name = "N", default_value = "3", value_parser = seconds)]
    pub(crate) seconds: f64,
    /// How many rounds the medians are of: an odd number from 1 to 99
    #[arg(long, value_name = "N", default_value = "3", value_parser = rounds)]
    pub(crate) rounds: usize,
    /// How many finished or ready tasks lie in the file in `history`, `backlog` and `reopen`, from 1
    /// to 100000000; a million take about 300 MB
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = rows)]
    pub(crate) rows: usize,
    /// Measures this durability only [default: what each scenario is about]
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) durability: Option<Durability>,
    /// Measures this number of shards only, 1 to 64; in `auto` all numbers up to it [default: what
    /// each scenario is about]
    #[arg(long, value_name = "N", value_parser = shards)]
    pub(crate) shards: Option<usize>,
    /// Where the databases go, in a directory of their own that is removed; must exist. A disk in
    /// memory, such as /tmp may be, syncs nothing [default: the system's temporary directory]
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<PathBuf>,
    /// Ends with exit code 1 if a figure that must be reached is missed
    #[arg(long)]
    pub(crate) check: bool,
    /// Lists the scenarios and ends
    #[arg(long)]
    pub(crate) list: bool,
}

/// When a commit is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// Each commit is synced
    Full,
    /// Only checkpoints are synced
    Normal,
}

impl Durability {
    /// As SQLite and the JSON have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        }
    }

    pub(crate) fn setting(self) -> settings::Durability {
        match self {
            Durability::Full => settings::Durability::Full,
            Durability::Normal => settings::Durability::Normal,
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_string())?;
    let fits = (0.01..=3600.0).contains(&seconds);
    fits.then_some(seconds).ok_or_else(|| "it must be from 0.01 to 3600 seconds".to_string())
}

fn rounds(text: &str) -> Result<usize, String> {
    let rounds = count(text, 1..=99)?;
    // so that the median is one of them
    (rounds % 2 == 1).then_some(rounds).ok_or_else(|| "it must be an odd number".to_string())
}

fn rows(text: &str) -> Result<usize, String> {
    count(text, 1..=100_000_000)
}

pub(super) fn shards(text: &str) -> Result<usize, String> {
    count(text, 1..=64)
}

fn count(text: &str, range: std::ops::RangeInclusive<usize>) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "not a whole number".to_string())?;
    let error = || format!("it must be from {} to {}", range.start(), range.end());
    range.contains(&number).then_some(number).ok_or_else(error)
}
