//! What a peer is told to do, as one argument in JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::AnyError;

/// The work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Tasks submitted one by one while they run, until all are recorded as done
    Single,
    /// The same by the peer's interface for many tasks at once
    Bulk,
    /// Tasks that were submitted before, from the start of the workers until all are recorded
    Drain,
    /// One task at a time in an idle queue
    Latency,
    /// `single` in a file with finished tasks
    History,
}

impl Scenario {
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Single => "single",
            Scenario::Bulk => "bulk",
            Scenario::Drain => "drain",
            Scenario::Latency => "latency",
            Scenario::History => "history",
        }
    }
}

/// When a commit is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(clap::ValueEnum))]
#[serde(rename_all = "UPPERCASE")]
pub enum Durability {
    /// Only checkpoints are synced
    Normal,
    /// Each commit is synced
    Full,
}

impl Durability {
    /// As SQLite has it.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Normal => "NORMAL",
            Durability::Full => "FULL",
        }
    }
}

/// One round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub scenario: Scenario,
    pub durability: Durability,
    /// Which way of using this peer; each names its own.
    pub variant: String,
    /// How many tasks; in `latency` the most.
    pub tasks: usize,
    /// How many finished tasks lie in the file in `history`.
    pub rows: usize,
    /// How long `latency` goes on, in seconds.
    pub seconds: f64,
    /// After how many seconds a round that isn't over is given up.
    pub limit_s: f64,
    /// Where the files go.
    pub dir: PathBuf,
    /// How many submit at once, if not what the peer takes.
    pub submitters: Option<usize>,
    /// How many tasks run at once, if not what the peer takes.
    pub concurrency: Option<usize>,
}

impl Order {
    /// The order that this process was given.
    ///
    /// # Errors
    ///
    /// There is no argument, or it isn't an order.
    pub fn given() -> Result<Order, AnyError> {
        let text = std::env::args().nth(1).ok_or("run this by the program `peers`")?;
        Ok(serde_json::from_str(&text)?)
    }
}
