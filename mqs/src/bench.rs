//! The benchmark: the queue beside the bare loop, in one process, in alternating rounds.

mod auto;
mod backlog;
mod bare;
mod checkpoints;
mod client;
mod enqueue;
mod fill;
mod history;
mod hold;
mod idle;
mod latency;
mod listener;
mod measure;
mod mixed;
mod occupancy;
mod options;
mod process;
mod progress;
mod reopen;
mod report;
mod scenario;
mod throughput;
mod world;

use std::cell::Cell;
use std::path::PathBuf;

use clap::ValueEnum;
use tempfile::TempDir;

pub(crate) use fill::Fill;
pub(crate) use options::Options;

use progress::Progress;
use scenario::{Case, Scenario};

type AnyError = Box<dyn std::error::Error>;

/// A run of the benchmark.
pub(crate) struct Bench {
    options: Options,
    dir: TempDir,
    /// How many directories were made in it.
    made: Cell<u32>,
    progress: Progress,
}

impl Bench {
    /// The path of a new directory for the files of a round.
    fn fresh(&self) -> Result<PathBuf, AnyError> {
        self.made.set(self.made.get() + 1);
        let path = self.dir.path().join(self.made.get().to_string());
        std::fs::create_dir(&path)?;
        Ok(path)
    }

    /// Does `work` in a new directory, which is removed.
    fn in_fresh<T>(
        &self,
        work: impl FnOnce(PathBuf) -> Result<T, AnyError>,
    ) -> Result<T, AnyError> {
        let path = self.fresh()?;
        let done = work(path.clone())?;
        std::fs::remove_dir_all(path)?;
        Ok(done)
    }

    /// Runs each round, with the terminal told which.
    fn rounds(
        &self,
        case: Case,
        mut round: impl FnMut() -> Result<(), AnyError>,
    ) -> Result<(), AnyError> {
        for nth in 1..=self.options.rounds {
            self.progress.step(case, &format!("round {nth} of {}", self.options.rounds));
            round()?;
        }
        Ok(())
    }
}

/// Measures what the options say. True unless a figure was missed that they ask to check.
pub(crate) fn run(options: Options) -> Result<bool, AnyError> {
    if options.list {
        list();
        return Ok(true);
    }
    let scenarios = match &options.scenarios[..] {
        [] => Scenario::value_variants(),
        some => some,
    };
    let cases: Vec<Case> = scenarios.iter().flat_map(|scenario| scenario.cases(&options)).collect();
    let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("mqs-bench-").tempdir_in(&parent);
    let dir = dir.map_err(|error| format!("cannot write to {}: {error}", parent.display()))?;
    let progress = Progress::new(cases.len());
    let bench = Bench { options, dir, made: Cell::new(0), progress };
    if !bench.options.json {
        bench.progress.print(&heading(&bench));
    }
    let mut reached = true;
    for case in cases {
        for row in case.scenario.measure(&bench, case)? {
            let row = row.judged(case);
            reached &= row.reached();
            let lines = match bench.options.json {
                true => vec![row.json()],
                false => [vec![row.line()], row.notes()].concat(),
            };
            bench.progress.print(&lines);
        }
        bench.progress.case_is_over();
    }
    bench.progress.end();
    Ok(passes(reached, bench.options.check))
}

/// A benchmark measures; only if it is asked to check, a figure that is missed is a failure.
fn passes(reached: bool, check: bool) -> bool {
    reached || !check
}

fn heading(bench: &Bench) -> Vec<String> {
    let Options { rounds, seconds, .. } = bench.options;
    vec![
        format!("medians of {rounds} alternating rounds of about {seconds} s"),
        format!("{} workers, files in {}", world::workers(), bench.dir.path().display()),
        String::new(),
        report::heading(),
    ]
}

fn list() {
    for scenario in Scenario::value_variants() {
        #[expect(clippy::print_stdout, reason = "it was asked for the list")]
        {
            println!("{:<8}  {}", scenario.name(), scenario.about());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_figure_is_a_failure_only_if_that_is_checked() {
        assert!(passes(true, true) && passes(true, false) && passes(false, false));
        assert!(!passes(false, true));
    }

    #[test]
    fn each_scenario_has_a_name_as_the_options_have_it() {
        for scenario in Scenario::value_variants() {
            let option = scenario.to_possible_value().unwrap();
            assert_eq!(option.get_name(), scenario.name());
            assert!(!scenario.about().is_empty());
        }
    }
}
