//! How far each row is, kept in a file so that a run that was stopped goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::case::{Counts, Seen};

/// What is known of all rows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Journal {
    #[serde(skip)]
    path: PathBuf,
    rows: BTreeMap<String, Progress>,
}

/// How far a row is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The commit that it tests: with another one it begins anew.
    pub(crate) commit: String,
    /// `full` or `tenth`.
    pub(crate) scale: String,
    /// With which seed it began.
    pub(crate) first_seed: u64,
    /// How many cases have passed.
    pub(crate) cases: u64,
    pub(crate) counts: Counts,
    /// Microseconds, as many as there were of each name.
    pub(crate) times: BTreeMap<String, Vec<u64>>,
    pub(crate) seconds: f64,
    /// The day on which it was completed.
    pub(crate) date: Option<String>,
}

impl Progress {
    pub(crate) fn add(&mut self, seen: Seen) {
        self.cases += 1;
        for (what, number) in seen.counts {
            *self.counts.entry(what).or_default() += number;
        }
        for (what, took) in seen.times {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.times.entry(what.into()).or_default().push(micros);
        }
    }

    pub(crate) fn took(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

impl Journal {
    /// Reads a journal; one that isn't there is empty.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut journal = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Journal::default(),
            Err(error) => return Err(error),
        };
        journal.path = path.into();
        Ok(journal)
    }

    pub(crate) fn row(&self, name: &str) -> Option<&Progress> {
        self.rows.get(name)
    }

    /// Keeps a row's progress. A stop in the middle leaves the old file.
    pub(crate) fn keep(&mut self, name: &str, progress: Progress) -> io::Result<()> {
        self.rows.insert(name.into(), progress);
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(new, &self.path)
    }
}
