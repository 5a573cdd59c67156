//! How far the benchmark is, on a terminal and nowhere else.

use indicatif::{ProgressBar, ProgressStyle};

use super::scenario::Case;

/// A line on the terminal that is redrawn at each step. It has no clock of its own, which would
/// take processor time from what is measured.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(cases: usize) -> Self {
        // hidden by itself where standard error is no terminal
        let bar = ProgressBar::new(cases as u64);
        let style = ProgressStyle::with_template("{pos}/{len} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Progress { bar }
    }

    pub(crate) fn step(&self, case: Case, what: &str) {
        let (scenario, durability) = (case.scenario.name(), case.durability.name());
        self.bar.set_message(format!("{scenario} {durability}, {} shards: {what}", case.shards));
        self.bar.tick();
    }

    pub(crate) fn case_is_over(&self) {
        self.bar.inc(1);
    }

    /// Prints to standard output without tearing the line.
    pub(crate) fn print(&self, lines: &[String]) {
        #[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
        self.bar.suspend(|| lines.iter().for_each(|line| println!("{line}")));
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
