//! The scenarios by name, in which settings each is run, and what it must reach.

use clap::ValueEnum;

use super::Bench;
use super::options::{Durability, Options};
use super::report::Row;
use super::{AnyError, auto, backlog, enqueue, history, idle, latency, mixed, reopen, throughput};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// one `Submit` a task, 2,048 in flight
    Single,
    /// `SubmitAll` with 256 tasks each, 8 in flight
    Bulk,
    /// bulk submission alone, 1,024 tasks each; no task runs
    Enqueue,
    /// one task at a time in an idle queue
    Latency,
    /// `single` beside finished tasks, and in an empty database
    History,
    /// a drain with ready tasks behind, and of a short queue
    Backlog,
    /// a start with ready tasks in the file, after a clean and an unclean end
    Reopen,
    /// 1 ms and 50 ms tasks, two priorities, delays: how busy the slots are
    Mixed,
    /// a load that rises and falls, for each number of shards and for one that adapts
    Auto,
    /// a queue without work
    Idle,
}

/// One row to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) scenario: Scenario,
    pub(crate) durability: Durability,
    pub(crate) shards: usize,
}

/// A figure that must be reached, of the rows that it says.
#[derive(Debug)]
pub(crate) struct Goal {
    scenario: Scenario,
    durability: Option<Durability>,
    shards: Option<usize>,
    end: Option<&'static str>,
    /// The field of the row.
    pub(crate) field: &'static str,
    pub(crate) bound: Bound,
}

/// Which side of the figure is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};
use Durability::{Full, Normal};
use Scenario::{Auto, Backlog, Bulk, Enqueue, History, Idle, Latency, Mixed, Reopen, Single};

const fn of_all(scenario: Scenario, field: &'static str, bound: Bound) -> Goal {
    Goal { scenario, durability: None, shards: None, end: None, field, bound }
}

const fn of(
    scenario: Scenario,
    durability: Durability,
    shards: usize,
    field: &'static str,
    bound: Bound,
) -> Goal {
    let (durability, shards) = (Some(durability), Some(shards));
    Goal { durability, shards, ..of_all(scenario, field, bound) }
}

const fn after(end: &'static str, bound: Bound) -> Goal {
    Goal { end: Some(end), ..of_all(Reopen, "first_task_ms", bound) }
}

/// What must be reached, on any machine: all but the times of `reopen` and `mixed` are ratios.
const GOALS: [Goal; 25] = [
    of(Single, Normal, 1, "ratio", AtLeast(0.60)),
    of(Single, Normal, 2, "ratio", AtLeast(0.50)),
    of(Single, Full, 1, "ratio", AtLeast(0.65)),
    of(Single, Full, 2, "ratio", AtLeast(0.60)),
    of(Bulk, Normal, 1, "ratio", AtLeast(0.65)),
    of(Bulk, Normal, 2, "ratio", AtLeast(0.75)),
    of(Bulk, Full, 1, "ratio", AtLeast(0.70)),
    of(Bulk, Full, 2, "ratio", AtLeast(0.80)),
    of_all(Enqueue, "ratio", AtLeast(0.80)),
    of(Latency, Full, 1, "submit_of_bare", AtMost(2.0)),
    of(Latency, Normal, 1, "submit_of_bare", AtMost(4.0)),
    of(Latency, Full, 1, "e2e_of_bare", AtMost(4.0)),
    of_all(History, "of_empty", AtLeast(0.90)),
    of_all(Backlog, "of_short", AtLeast(0.90)),
    of_all(Backlog, "rss_growth_mb", AtMost(100.0)),
    after("clean", AtMost(1000.0)),
    after("unclean", AtMost(2000.0)),
    of_all(Mixed, "busy_ratio", AtLeast(0.95)),
    of_all(Mixed, "longest_idle_ms", AtMost(5.0)),
    of_all(Auto, "worst_of_best", AtLeast(0.90)),
    of_all(Auto, "direction_changes", AtMost(1.0)),
    of_all(Idle, "cpu_percent", AtMost(0.1)),
    of_all(Idle, "row_writes", AtMost(0.0)),
    of_all(Idle, "commits", AtMost(0.0)),
    of_all(Idle, "wakeups", AtMost(0.0)),
];

/// What a row must reach.
pub(crate) fn goals(case: Case, end: Option<&str>) -> impl Iterator<Item = &'static Goal> {
    GOALS.iter().filter(move |goal| {
        goal.scenario == case.scenario
            && goal.durability.is_none_or(|durability| durability == case.durability)
            && goal.shards.is_none_or(|shards| shards == case.shards)
            && (goal.end.is_none() || goal.end == end)
    })
}

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Single => "single",
            Bulk => "bulk",
            Enqueue => "enqueue",
            Latency => "latency",
            History => "history",
            Backlog => "backlog",
            Reopen => "reopen",
            Mixed => "mixed",
            Auto => "auto",
            Idle => "idle",
        }
    }

    /// What it measures.
    pub(crate) fn about(self) -> String {
        let value = self.to_possible_value();
        let about = value.as_ref().and_then(|value| value.get_help().map(ToString::to_string));
        about.unwrap_or_default()
    }

    /// The rows that it is about, unless the options say otherwise.
    pub(crate) fn cases(self, options: &Options) -> Vec<Case> {
        let durabilities: &[Durability] = match self {
            Single | Bulk | Enqueue | Latency | History | Backlog => &[Normal, Full],
            Reopen | Mixed | Auto | Idle => &[Full],
        };
        let shards: &[usize] = match self {
            Single | Bulk | Mixed => &[1, 2],
            _ => &[1],
        };
        let (durability, one) = (options.durability, options.shards);
        let durabilities = durability.as_ref().map_or(durabilities, std::slice::from_ref);
        let shards = match self {
            // it goes through all of them
            Auto => &[1],
            _ => one.as_ref().map_or(shards, std::slice::from_ref),
        };
        let each = durabilities.iter().flat_map(|durability| {
            shards.iter().map(|shards| Case {
                scenario: self,
                durability: *durability,
                shards: *shards,
            })
        });
        each.collect()
    }

    /// Measures one case; a scenario may make several rows of it.
    pub(crate) fn measure(self, bench: &Bench, case: Case) -> Result<Vec<Row>, AnyError> {
        match self {
            Single | Bulk => throughput::measure(bench, case),
            History => history::measure(bench, case),
            Enqueue => enqueue::measure(bench, case),
            Latency => latency::measure(bench, case),
            Backlog => backlog::measure(bench, case),
            Reopen => reopen::measure(bench, case),
            Mixed => mixed::measure(bench, case),
            Auto => auto::measure(bench, case),
            Idle => idle::measure(bench, case),
        }
    }
}
