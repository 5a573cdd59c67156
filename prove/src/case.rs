//! One case of a row: what it is given, and what it says.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::{TempDir, tempdir, tempdir_in};

use crate::panics;

/// What a case counted: tasks acknowledged, faults injected, and so on.
pub(crate) type Counts = BTreeMap<String, u64>;

/// What came of a case.
pub(crate) type Outcome = Result<Seen, Failure>;

/// What a case that passed has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Adds to the row's figures.
    pub(crate) counts: Counts,
    /// Durations that the row reports as a histogram, each under its name.
    pub(crate) times: Vec<(&'static str, Duration)>,
}

impl Seen {
    /// Adds to a figure.
    pub(crate) fn count(mut self, what: &str, number: u64) -> Self {
        *self.counts.entry(what.into()).or_default() += number;
        self
    }

    /// Without the counts of anything else.
    pub(crate) fn only(mut self, what: &[&str]) -> Self {
        self.counts.retain(|name, _| what.contains(&name.as_str()));
        self
    }

    /// Adds to a histogram.
    pub(crate) fn time(mut self, what: &'static str, took: Duration) -> Self {
        self.times.push((what, took));
        self
    }
}

/// A promise that wasn't kept.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// In a word, for control arms: "lost", "stuck", "corrupt", "stale", "missed", "panicked", …
    pub(crate) kind: &'static str,
    /// What happened, and at which operation.
    pub(crate) what: String,
}

impl Failure {
    pub(crate) fn new(kind: &'static str, what: impl fmt::Display) -> Self {
        Failure { kind, what: what.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.what)
    }
}

/// What a case is given.
pub(crate) struct Case {
    /// All its randomness comes from this, so it can be run again.
    pub(crate) seed: u64,
    scratch: PathBuf,
}

impl Case {
    /// Runs `case` with a directory of its own. A panic in it is a failure.
    pub(crate) fn run(seed: u64, case: fn(&Case) -> Outcome) -> Outcome {
        let place = tempdir().map_err(|error| Failure::new("harness", error))?;
        let given = Case { seed, scratch: place.path().to_path_buf() };
        catch_unwind(AssertUnwindSafe(|| case(&given))).unwrap_or_else(|panic| {
            Err(Failure::new("panicked", panics::text(&*panic).unwrap_or("a value")))
        })
    }

    /// A directory in memory, where there is such a place: for what waits for no disk.
    pub(crate) fn in_memory(&self) -> Result<TempDir, Failure> {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { tempdir_in(memory) } else { tempdir_in(&self.scratch) };
        place.map_err(|error| Failure::new("harness", error))
    }

    /// A source of random numbers; another `stream`, other numbers.
    pub(crate) fn random(&self, stream: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream)
    }

    /// An empty directory that is removed after the case.
    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }
}
