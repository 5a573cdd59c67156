//! What a row of the table is.

use crate::case::{Case, Outcome};

/// A promise and how it is tested.
pub(crate) struct Row {
    /// `P1`, …
    pub(crate) name: &'static str,
    pub(crate) promise: &'static str,
    pub(crate) test: &'static str,
    /// Cases run until each of these figures is reached.
    pub(crate) goals: &'static [Goal],
    /// What no case may see, for the report: a case that sees it fails.
    pub(crate) never: &'static [&'static str],
    pub(crate) case: fn(&Case) -> Outcome,
    pub(crate) controls: &'static [Control],
    /// How many cases run side by side. 1 if a case has the process or the machine for itself.
    pub(crate) side_by_side: usize,
}

/// A figure to reach.
pub(crate) struct Goal {
    /// What is counted.
    pub(crate) what: &'static str,
    /// As often as this.
    pub(crate) full: u64,
    /// As often in .ci/run, if that isn't a tenth.
    pub(crate) tenth: Option<u64>,
}

impl Goal {
    pub(crate) const fn new(what: &'static str, full: u64) -> Self {
        Goal { what, full, tenth: None }
    }

    pub(crate) fn at(&self, scale: Scale) -> u64 {
        match scale {
            Scale::Full => self.full,
            Scale::Tenth => self.tenth.unwrap_or(self.full.div_ceil(10)),
        }
    }
}

/// A case that must fail, or the row proves nothing.
pub(crate) struct Control {
    /// What is taken out, or what lies: "synchronous = NORMAL".
    pub(crate) without: &'static str,
    /// The failure that it must have.
    pub(crate) fails: &'static str,
    /// In this many cases at least one must fail so.
    pub(crate) within: u64,
    pub(crate) case: fn(&Case) -> Outcome,
}

/// How much of each figure is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Full,
    Tenth,
}

impl Scale {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scale::Full => "full",
            Scale::Tenth => "tenth",
        }
    }
}
