//! A row of figures: as JSON, and as a line of the table.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::measure::{Measured, median, median_of};
use super::scenario::{Bound, Case, Scenario, goals};
use super::world::workers;

/// What a row of the benchmark says. `null` is what has no meaning in its scenario, or isn't known
/// on this system; docs/benchmarks.md says which.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    scenario: &'static str,
    durability: &'static str,
    shards: usize,
    tasks_per_s: Option<f64>,
    bare_tasks_per_s: Option<f64>,
    ratio: Option<f64>,
    row_writes_per_task: Option<f64>,
    fsyncs_per_task: Option<f64>,
    submit_p50_us: Option<f64>,
    submit_p99_us: Option<f64>,
    e2e_p50_us: Option<f64>,
    e2e_p99_us: Option<f64>,
    rss_mb: Option<f64>,
    cpu_s: Option<f64>,
    workers: usize,
    #[serde(flatten)]
    extra: BTreeMap<&'static str, Value>,
    #[serde(skip)]
    verdicts: Vec<Verdict>,
}

/// A figure that must be reached, and what became of it.
#[derive(Clone, Debug)]
struct Verdict {
    field: &'static str,
    bound: Bound,
    found: Option<f64>,
    reached: bool,
}

impl Row {
    /// The medians of the rounds; `bare` has the tasks per second of the bare loop, if there is one.
    pub(crate) fn of(case: Case, bare: &[f64], rounds: &[Measured]) -> Row {
        let tasks_per_s = median_of(rounds, |round| round.tasks_per_s);
        let bare_tasks_per_s = median(bare.iter().copied());
        let ratio = tasks_per_s.zip(bare_tasks_per_s).map(|(queue, bare)| queue / bare);
        let mut extra = BTreeMap::new();
        for name in rounds.iter().flat_map(|round| round.extra.keys()) {
            let figure = median_of(rounds, |round| round.extra.get(name).copied());
            extra.insert(*name, json!(figure.map(rounded)));
        }
        // where only checkpoints sync, thousands of tasks share one
        let syncs = median_of(rounds, |round| round.fsyncs_per_task);
        let of = |figure: fn(&Measured) -> Option<f64>| median_of(rounds, figure).map(rounded);
        Row {
            scenario: case.scenario.name(),
            durability: case.durability.name(),
            shards: case.shards,
            tasks_per_s: tasks_per_s.map(rounded),
            bare_tasks_per_s: bare_tasks_per_s.map(rounded),
            ratio: ratio.map(rounded),
            row_writes_per_task: of(|round| round.row_writes_per_task),
            fsyncs_per_task: syncs.map(|figure| (figure * 1e6).round() / 1e6),
            submit_p50_us: of(|round| round.submit.map(|submit| submit.p50_us)),
            submit_p99_us: of(|round| round.submit.map(|submit| submit.p99_us)),
            e2e_p50_us: of(|round| round.e2e.map(|e2e| e2e.p50_us)),
            e2e_p99_us: of(|round| round.e2e.map(|e2e| e2e.p99_us)),
            rss_mb: of(|round| round.rss_mb),
            cpu_s: of(|round| round.cpu_s),
            workers: workers(),
            extra,
            verdicts: Vec::new(),
        }
    }

    /// Adds a field of this scenario alone, or replaces it.
    pub(crate) fn with(mut self, field: &'static str, value: impl Into<Value>) -> Row {
        let value = value.into();
        let figure = value.as_f64().filter(|_| value.is_f64());
        self.extra.insert(field, figure.map_or(value, |figure| json!(rounded(figure))));
        self
    }

    /// Compares the row with what it must reach. Called once, when all fields are there.
    pub(crate) fn judged(mut self, case: Case) -> Row {
        let fields = json!(self);
        let end = fields["end"].as_str();
        // a number of shards that is fixed has nothing to reach
        let fixed = case.scenario == Scenario::Auto && fields["direction_changes"].is_null();
        let verdicts = goals(case, end).filter(|_| !fixed).map(|goal| {
            let found = fields[goal.field].as_f64();
            let reached = found.is_some_and(|found| match goal.bound {
                Bound::AtLeast(least) => found >= least,
                Bound::AtMost(most) => found <= most,
            });
            Verdict { field: goal.field, bound: goal.bound, found, reached }
        });
        self.verdicts = verdicts.collect();
        let must = self.verdicts.iter().map(|verdict| {
            let bound = match verdict.bound {
                Bound::AtLeast(least) => json!({ "at_least": least }),
                Bound::AtMost(most) => json!({ "at_most": most }),
            };
            (verdict.field.to_string(), bound)
        });
        let must: Map<String, Value> = must.collect();
        let reached = (!must.is_empty()).then(|| self.reached());
        self.with("must", must).with("reached", reached)
    }

    /// Whether everything that must be reached is.
    pub(crate) fn reached(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.reached)
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("a row is texts, numbers and maps with texts as keys")
    }

    /// A line of the table.
    pub(crate) fn line(&self) -> String {
        let whole = |figure: Option<f64>| figure.map(|figure| format!("{figure:.0}"));
        let fine = |figure: Option<f64>| figure.map(|figure| format!("{figure:.2}"));
        let finest = |figure: Option<f64>| figure.map(|figure| format!("{figure:.6}"));
        let cells = [
            Some(self.scenario.to_string()),
            Some(self.durability.to_string()),
            Some(self.shards.to_string()),
            whole(self.tasks_per_s),
            whole(self.bare_tasks_per_s),
            fine(self.ratio),
            fine(self.row_writes_per_task),
            finest(self.fsyncs_per_task),
            whole(self.submit_p50_us),
            whole(self.submit_p99_us),
            whole(self.e2e_p50_us),
            whole(self.e2e_p99_us),
            whole(self.rss_mb),
            fine(self.cpu_s),
        ];
        aligned(cells.map(|cell| cell.unwrap_or_else(|| "-".to_string())))
    }

    /// The scenario's own figures, and what must be reached: lines below that of the table.
    pub(crate) fn notes(&self) -> Vec<String> {
        let own = self.extra.iter().filter(|(name, _)| !["must", "reached"].contains(*name));
        let own: Vec<String> = own
            .map(|(name, value)| match value.as_str() {
                Some(text) => format!("{name} {text}"),
                None => format!("{name} {value}"),
            })
            .collect();
        let mut notes = Vec::new();
        if !own.is_empty() {
            notes.push(format!("  {}", own.join(", ")));
        }
        for Verdict { field, bound, found, reached } in &self.verdicts {
            let (side, figure) = match bound {
                Bound::AtLeast(least) => ("at least", least),
                Bound::AtMost(most) => ("at most", most),
            };
            let found = found.map_or_else(|| "not known".to_string(), |found| found.to_string());
            let verdict = if *reached { "reached" } else { "MISSED" };
            notes.push(format!("  must reach {field} {side} {figure}: {verdict}, it is {found}"));
        }
        notes
    }
}

/// The heads of the table's columns.
pub(crate) fn heading() -> String {
    aligned(
        [
            "scenario",
            "sync",
            "shards",
            "tasks/s",
            "bare/s",
            "ratio",
            "rows/task",
            "syncs/task",
            "submit p50",
            "p99 us",
            "e2e p50",
            "p99 us",
            "rss MB",
            "cpu s",
        ]
        .map(str::to_string),
    )
}

/// Texts to the left, figures to the right.
fn aligned(cells: [String; 14]) -> String {
    const WIDTHS: [usize; 14] = [8, 6, 6, 9, 9, 6, 9, 10, 10, 9, 9, 9, 7, 7];
    let columns = cells.iter().zip(WIDTHS).enumerate().map(|(column, (cell, width))| {
        if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    });
    columns.collect::<Vec<_>>().join(" ").trim_end().to_string()
}

/// To four figures behind the point: the rest is noise.
fn rounded(figure: f64) -> f64 {
    (figure * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::options::Durability;
    use crate::bench::scenario::Scenario;

    const CASE: Case = Case { scenario: Scenario::Single, durability: Durability::Full, shards: 1 };

    fn round(tasks_per_s: f64) -> Measured {
        let extra = BTreeMap::from([("own", tasks_per_s / 10.0)]);
        Measured { tasks_per_s: Some(tasks_per_s), extra, ..Measured::default() }
    }

    #[test]
    fn a_row_has_the_medians_and_their_ratio() {
        let rounds = [round(50.0), round(80.0), round(60.0)];
        let row = json!(Row::of(CASE, &[100.0, 90.0, 120.0], &rounds));
        assert_eq!(row["tasks_per_s"], 60.0);
        assert_eq!(row["bare_tasks_per_s"], 100.0);
        assert_eq!(row["ratio"], 0.6);
        assert_eq!(row["own"], 6.0);
        assert!(row["e2e_p50_us"].is_null());
    }

    #[test]
    fn a_sync_that_many_tasks_share_is_not_rounded_away() {
        let round = Measured { fsyncs_per_task: Some(24.0 / 227_328.0), ..Measured::default() };
        let row = Row::of(CASE, &[], &[round]);
        assert_eq!(json!(row)["fsyncs_per_task"], 0.000106);
        assert!(row.line().contains("0.000106"), "{}", row.line());
    }

    #[test]
    fn a_row_says_whether_it_reached_its_figure() {
        for (tasks_per_s, reached) in [(65.0, true), (64.0, false)] {
            let row = Row::of(CASE, &[100.0], &[round(tasks_per_s)]).judged(CASE);
            assert_eq!(row.reached(), reached);
            assert_eq!(json!(row)["reached"], reached);
            assert_eq!(json!(row)["must"], json!({ "ratio": { "at_least": 0.65 } }));
        }
    }

    #[test]
    fn a_figure_that_is_not_there_is_not_reached() {
        assert!(!Row::of(CASE, &[], &[round(1.0)]).judged(CASE).reached());
    }

    #[test]
    fn a_row_that_must_reach_nothing_says_so() {
        let case = Case { shards: 3, ..CASE };
        let row = Row::of(case, &[100.0], &[round(1.0)]).judged(case);
        assert!(row.reached());
        assert_eq!(json!(row)["must"], json!({}));
        assert!(json!(row)["reached"].is_null());
    }

    #[test]
    fn what_must_be_reached_after_an_end_is_of_that_end() {
        let case = Case { scenario: Scenario::Reopen, ..CASE };
        for (end, most) in [("clean", 1000.0), ("unclean", 2000.0)] {
            let row = Row::of(case, &[], &[]).with("end", end).with("first_task_ms", 1500.0);
            let row = row.judged(case);
            assert_eq!(json!(row)["must"], json!({ "first_task_ms": { "at_most": most } }));
            assert_eq!(row.reached(), end == "unclean");
        }
    }
}
