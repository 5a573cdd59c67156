//! What a run can be told.

use std::path::PathBuf;

use clap::Parser;
use peers::{Durability, Scenario};

use super::contenders::CONTENDERS;

/// Runs the same work through message_queue_sqlite and through other queues over SQLite
///
/// Each round is a process of its own; rounds alternate; medians are reported. README.md has the
/// settings of each peer. Read the ratios: the figures follow the machine and its disk.
///
/// A task that never ran or ran twice, and a round without a figure, are failures of that peer: the
/// run goes on, and its exit code is 1.
#[derive(Clone, Debug, Parser)]
#[command(name = "peers")]
pub(crate) struct Options {
    /// Prints one JSON object a line instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// About how many seconds a round takes; 0.1 to 600
    #[arg(long, value_name = "N", default_value = "1", value_parser = seconds)]
    pub(crate) seconds: f64,
    /// How many rounds the medians are of: an odd number from 1 to 99
    #[arg(long, value_name = "N", default_value = "3", value_parser = rounds)]
    pub(crate) rounds: usize,
    /// Runs these only; may be given several times [default: all of them]
    #[arg(long = "peer", value_name = "NAME", value_parser = peer)]
    pub(crate) peers: Vec<String>,
    /// Runs this work only; may be given several times [default: all of it]
    #[arg(long = "scenario", value_name = "NAME", value_enum)]
    pub(crate) scenarios: Vec<Scenario>,
    /// Runs at this durability only [default: both]
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) durability: Option<Durability>,
    /// How many finished tasks lie in the file in `history`, from 1 to 100000000; of fang at most
    /// 100000
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = rows)]
    pub(crate) rows: usize,
    /// Where the databases go, in a directory of their own that is removed; must exist. A disk in
    /// memory, such as /tmp may be, syncs nothing [default: the system's temporary directory]
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<PathBuf>,
    /// How many submit at once, instead of what each peer is fastest with; from 1 to 4096
    #[arg(long, value_name = "N", value_parser = many)]
    pub(crate) submitters: Option<usize>,
    /// How many tasks run at once (honker, fang: workers), instead of what each peer is fastest
    /// with; from 1 to 4096
    #[arg(long, value_name = "N", value_parser = many)]
    pub(crate) concurrency: Option<usize>,
    /// Ends with exit code 1 if something that is aimed at is missed
    #[arg(long)]
    pub(crate) check: bool,
    /// Lists the peers and ends
    #[arg(long)]
    pub(crate) list: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_string())?;
    let fits = (0.1..=600.0).contains(&seconds);
    fits.then_some(seconds).ok_or_else(|| "it must be from 0.1 to 600 seconds".to_string())
}

fn rounds(text: &str) -> Result<usize, String> {
    let rounds = count(text, 1..=99)?;
    // so that the median is one of them
    (rounds % 2 == 1).then_some(rounds).ok_or_else(|| "it must be an odd number".to_string())
}

fn rows(text: &str) -> Result<usize, String> {
    count(text, 1..=100_000_000)
}

fn many(text: &str) -> Result<usize, String> {
    count(text, 1..=4_096)
}

fn peer(text: &str) -> Result<String, String> {
    let names: Vec<&str> = CONTENDERS.iter().map(|contender| contender.name).collect();
    let known = names.contains(&text).then(|| text.to_string());
    known.ok_or_else(|| format!("it must be one of {}", names.join(", ")))
}

fn count(text: &str, range: std::ops::RangeInclusive<usize>) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "not a whole number".to_string())?;
    let error = || format!("it must be from {} to {}", range.start(), range.end());
    range.contains(&number).then_some(number).ok_or_else(error)
}
