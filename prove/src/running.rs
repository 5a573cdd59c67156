//! Which cases are under way, in a file beside the journal: a case that hangs, or that ends the process,
//! leaves its name there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{fs, io};

use crate::scene::lock;

/// The cases that are under way.
pub(crate) struct Running {
    path: PathBuf,
    cases: Mutex<BTreeSet<String>>,
}

/// A case that is under way until this is dropped.
pub(crate) struct UnderWay<'r> {
    running: &'r Running,
    case: String,
}

impl Running {
    /// Beside this journal.
    pub(crate) fn beside(journal: &Path) -> Self {
        Running { path: journal.with_extension("running"), cases: Mutex::default() }
    }

    /// What a run that didn't come to its end has left.
    pub(crate) fn left(&self) -> Option<String> {
        fs::read_to_string(&self.path).ok().filter(|left| !left.is_empty())
    }

    /// Begins a case; `case` is what runs it again.
    pub(crate) fn begin(&self, case: String) -> io::Result<UnderWay<'_>> {
        let mut cases = lock(&self.cases);
        cases.insert(case.clone());
        self.write(&cases)?;
        Ok(UnderWay { running: self, case })
    }

    fn write(&self, cases: &BTreeSet<String>) -> io::Result<()> {
        let lines: String = cases.iter().map(|case| format!("{case}\n")).collect();
        fs::write(&self.path, lines)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut cases = lock(&self.running.cases);
        cases.remove(&self.case);
        // the next one is written in any case
        drop(self.running.write(&cases));
    }
}
