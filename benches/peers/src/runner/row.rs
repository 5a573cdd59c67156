//! What is reported of a contender in a case, and how it looks.

use std::fmt::Write;

use peers::{AnyError, Latency, Report, Scenario, median};
use serde_json::json;

use super::contenders::Contender;
use super::goals::Verdict;
use super::{Case, Options, programs};

/// The rounds of one contender.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) contender: &'static Contender,
    case: Case,
    pub(crate) tasks: usize,
    pub(crate) reports: Vec<Report>,
    /// How many finished tasks lay in the file, in `history`.
    pub(crate) rows: Option<usize>,
    /// Why there is no figure.
    pub(crate) failure: Option<String>,
    /// Tasks of the calibration that never ran, and runs of one beyond its first.
    calibrated: (usize, u64),
    /// The rate of `ours` divided by its own.
    ours_of_it: Option<f64>,
    /// What became of the case's goal; in the row of `ours`.
    verdict: Option<Verdict>,
}

/// Why a round has no rate.
pub(crate) fn why_not(report: &Report) -> String {
    match &report.error {
        Some(error) => format!("{} of {} refused: {error}", report.refused, report.tasks),
        None => format!("not over in time: {} of {} never ran", report.missing, report.tasks),
    }
}

impl Row {
    /// With the number of tasks that a calibration chose, and its tasks that never ran and runs too
    /// many.
    pub(crate) fn new(
        contender: &'static Contender,
        case: Case,
        tasks: Result<usize, AnyError>,
        calibrated: (usize, u64),
    ) -> Row {
        let (tasks, failure) = match tasks {
            Ok(tasks) => (tasks, None),
            Err(error) => (0, Some(error.to_string())),
        };
        Row {
            contender,
            case,
            tasks,
            reports: Vec::new(),
            rows: None,
            failure,
            calibrated,
            ours_of_it: None,
            verdict: None,
        }
    }

    fn median(&self, figure: impl Fn(&Report) -> Option<f64>) -> Option<f64> {
        median(self.reports.iter().filter_map(figure))
    }

    /// Whether each round has its figure: the median of those that went well would flatter.
    fn is_whole(&self) -> bool {
        self.failure.is_none() && self.reports.iter().all(|report| self.figured(report))
    }

    /// Whether a round has the figure that its scenario is about.
    fn figured(&self, report: &Report) -> bool {
        match self.case.scenario {
            Scenario::Latency => report.start.is_some(),
            _ => report.tasks_per_s.is_some(),
        }
    }

    pub(crate) fn rate(&self) -> Option<f64> {
        self.is_whole().then(|| self.median(|report| report.tasks_per_s)).flatten()
    }

    /// How many times as fast `ours` is.
    pub(crate) fn ours_of_it(&self) -> Option<f64> {
        self.ours_of_it
    }

    fn latency(&self, which: fn(&Report) -> Option<Latency>) -> Option<Latency> {
        if !self.is_whole() {
            return None;
        }
        let p50_us = self.median(|report| which(report).map(|latency| latency.p50_us))?;
        let p99_us = self.median(|report| which(report).map(|latency| latency.p99_us))?;
        Some(Latency { p50_us, p99_us })
    }

    /// In all rounds and the calibration.
    fn duplicates(&self) -> u64 {
        self.reports.iter().map(|report| report.duplicates).sum::<u64>() + self.calibrated.1
    }

    fn missing(&self) -> usize {
        self.reports.iter().map(|report| report.missing).sum::<usize>() + self.calibrated.0
    }

    fn refused(&self) -> usize {
        self.reports.iter().map(|report| report.refused).sum()
    }

    /// Whether a task didn't run exactly once, or a round has no figure.
    pub(crate) fn went_wrong(&self) -> bool {
        !self.notes().is_empty()
    }

    /// Whether the case's goal was missed.
    pub(crate) fn missed(&self) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| !verdict.reached())
    }

    /// What went wrong, in words.
    fn notes(&self) -> String {
        let mut notes = Vec::new();
        if let Some(failure) = &self.failure {
            notes.push(failure.replace('\n', " "));
        }
        let unfinished = self.reports.iter().find(|report| !self.figured(report));
        notes.extend(unfinished.map(why_not));
        let count = |number: u64, what: &str| (number > 0).then(|| format!("{number} {what}"));
        notes.extend(count(self.duplicates(), "duplicate runs"));
        notes.extend(count(self.missing() as u64, "tasks missing"));
        notes.join("; ")
    }

    /// One line.
    pub(crate) fn json(&self) -> String {
        let last = self.reports.last();
        let whole = |figure: Option<f64>| figure.map(|figure| (figure * 100.0).round() / 100.0);
        let submit = self.latency(|report| report.submit);
        let start = self.latency(|report| report.start);
        let done = self.latency(|report| report.done);
        json!({
            "scenario": self.case.scenario.name(),
            "durability": self.case.durability.name(),
            "peer": self.contender.name,
            "version": programs::version(self.contender.package),
            "sqlite": last.and_then(|report| report.sqlite.clone()),
            "journal": last.and_then(|report| report.journal.clone()),
            "synchronous": last.and_then(|report| report.synchronous.clone()),
            "rounds": self.reports.len(),
            "tasks": last.map(|report| report.tasks),
            "rows": self.rows,
            "tasks_per_s": whole(self.rate()),
            "ours_of_it": whole(self.ours_of_it),
            "submit_p50_us": whole(submit.map(|latency| latency.p50_us)),
            "submit_p99_us": whole(submit.map(|latency| latency.p99_us)),
            "start_p50_us": whole(start.map(|latency| latency.p50_us)),
            "start_p99_us": whole(start.map(|latency| latency.p99_us)),
            "done_p50_us": whole(done.map(|latency| latency.p50_us)),
            "done_p99_us": whole(done.map(|latency| latency.p99_us)),
            "cpu_us_per_task": whole(self.median(|report| report.cpu_us_per_task)),
            "rss_mb": whole(self.median(|report| report.rss_mb)),
            "duplicates": self.duplicates(),
            "missing": self.missing(),
            "refused": self.refused(),
            "failure": self.failure,
            "failed": self.went_wrong(),
            "must": self.verdict.as_ref().map(Verdict::must),
            "reached": self.verdict.as_ref().map(Verdict::reached),
        })
        .to_string()
    }
}

/// Sets each row of a case beside the one of `ours`, and that one beside the case's goal.
pub(crate) fn compare(rows: &mut [Row]) {
    let figure = |row: &Row| match row.case.scenario {
        // the shorter the better, so it is the other way round
        Scenario::Latency => row.latency(|report| report.start).map(|start| 1.0 / start.p50_us),
        _ => row.rate(),
    };
    let ours = rows.iter().find(|row| row.contender.name == "ours").and_then(figure);
    for row in rows.iter_mut() {
        row.ours_of_it = ours.zip(figure(row)).map(|(ours, its)| ours / its);
    }
    let verdict = rows.first().and_then(|row| Verdict::of(row.case.scenario, rows));
    for row in rows.iter_mut().filter(|row| row.contender.name == "ours") {
        row.verdict.clone_from(&verdict);
    }
}

/// The rows of a case.
pub(crate) fn table(case: Case, options: &Options, rows: &[Row]) -> String {
    let mut text = String::new();
    let (scenario, durability) = (case.scenario.name(), case.durability.name());
    let history = match case.scenario {
        Scenario::History => {
            format!(", {} finished tasks{}", options.rows, with_fewer(options, rows))
        }
        _ => String::new(),
    };
    let _ = writeln!(text, "{scenario}, {durability}{history}; medians of {}", options.rounds);
    let _ = match case.scenario {
        Scenario::Latency => writeln!(
            text,
            "{:<20}{:>8}{:>17}{:>17}{:>17}{:>9}",
            "", "tasks", "stored", "started", "recorded", "it/ours"
        ),
        _ => writeln!(
            text,
            "{:<20}{:>8}{:>10}{:>9}{:>13}{:>7}",
            "", "tasks", "tasks/s", "ours/it", "CPU us/task", "MB"
        ),
    };
    for row in rows {
        let _ = writeln!(text, "{}", line(row).trim_end());
    }
    if case.scenario == Scenario::Latency {
        text.push_str("microseconds from the call that submits, p50 and p99\n");
    }
    text
}

/// Those whose file had fewer finished tasks than the others'.
fn with_fewer(options: &Options, rows: &[Row]) -> String {
    let own = rows.iter().filter_map(|row| Some((row.contender.name, row.rows?)));
    let fewer = own.filter(|(_, own)| *own < options.rows);
    fewer.map(|(name, own)| format!(", {name} {own}")).collect()
}

fn line(row: &Row) -> String {
    let number = |figure: Option<f64>, digits: usize| match figure {
        Some(figure) => format!("{figure:.digits$}"),
        None => "-".into(),
    };
    let pair = |latency: Option<Latency>| match latency {
        Some(latency) => format!("{:.0} {:.0}", latency.p50_us, latency.p99_us),
        None => "-".into(),
    };
    let tasks = row.reports.last().map_or("-".into(), |report| report.tasks.to_string());
    let name = row.contender.name;
    let figures = match row.case.scenario {
        Scenario::Latency => format!(
            "{:>17}{:>17}{:>17}{:>9}",
            pair(row.latency(|report| report.submit)),
            pair(row.latency(|report| report.start)),
            pair(row.latency(|report| report.done)),
            number(row.ours_of_it, 2)
        ),
        _ => format!(
            "{:>10}{:>9}{:>13}{:>7}",
            number(row.rate(), 0),
            number(row.ours_of_it, 2),
            number(row.median(|report| report.cpu_us_per_task), 1),
            number(row.median(|report| report.rss_mb), 0)
        ),
    };
    format!("{name:<20}{tasks:>8}{figures}  {}", row.notes())
}

/// What must be reached in these cases and what became of it, and what went wrong: a line each.
pub(crate) fn summary(rows: &[Row]) -> String {
    let case = |row: &Row| format!("{}, {}", row.case.scenario.name(), row.case.durability.name());
    let judged = rows
        .iter()
        .filter_map(|row| row.verdict.as_ref().map(|verdict| format!("{}: {verdict}", case(row))));
    let wrong = rows.iter().filter(|row| row.went_wrong());
    let wrong =
        wrong.map(|row| format!("{}: {} FAILED: {}", case(row), row.contender.name, row.notes()));
    judged.chain(wrong).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::runner::contenders::CONTENDERS;
    use clap::Parser;
    use peers::Durability;

    pub(crate) fn row(name: &str, scenario: Scenario, rates: &[Option<f64>]) -> Row {
        let contender = CONTENDERS.iter().find(|one| one.name == name).unwrap();
        let case = Case { scenario, durability: Durability::Normal };
        let mut row = Row::new(contender, case, Ok(10), (0, 0));
        row.reports.extend(rates.iter().map(|rate| Report {
            tasks: 10,
            tasks_per_s: *rate,
            start: rate.map(|rate| Latency { p50_us: rate, p99_us: rate }),
            ..Report::default()
        }));
        row
    }

    #[test]
    fn a_round_that_was_not_over_leaves_its_row_without_a_rate() {
        let good = row("fang", Scenario::Single, &[Some(3.0), Some(1.0), Some(2.0)]);
        assert_eq!(good.rate(), Some(2.0));
        let bad = row("fang", Scenario::Single, &[Some(3.0), None, Some(2.0)]);
        assert_eq!(bad.rate(), None);
        assert!(bad.notes().contains("not over in time"), "{}", bad.notes());
    }

    #[test]
    fn a_shorter_history_is_told() {
        let case = Case { scenario: Scenario::History, durability: Durability::Full };
        let options = Options::parse_from(["peers"]);
        let mut rows = ["ours", "fang"].map(|name| row(name, case.scenario, &[Some(1.0)]));
        rows.iter_mut().for_each(|row| row.rows = Some(row.contender.rows(options.rows)));
        let head = "history, FULL, 1000000 finished tasks, fang 100000; medians of 3\n";
        assert!(table(case, &options, &rows).starts_with(head), "{}", table(case, &options, &rows));
        assert!(rows[1].json().contains(r#""rows":100000"#), "{}", rows[1].json());
    }

    #[test]
    fn duplicates_and_missing_tasks_are_in_the_line_and_in_the_json() {
        let mut row = row("fang", Scenario::Single, &[Some(1.0)]);
        (row.reports[0].duplicates, row.reports[0].missing) = (7, 2);
        assert!(line(&row).ends_with("7 duplicate runs; 2 tasks missing"), "{}", line(&row));
        let json: serde_json::Value = serde_json::from_str(&row.json()).unwrap();
        assert_eq!((json["duplicates"].as_u64(), json["missing"].as_u64()), (Some(7), Some(2)));
    }

    #[test]
    fn a_task_that_did_not_run_exactly_once_is_a_failure_of_its_contender_alone() {
        let mut rows = [
            row("fang", Scenario::Single, &[Some(1.0), Some(1.0)]),
            row("apalis-hook", Scenario::Single, &[Some(1.0)]),
            row("effectum", Scenario::Single, &[Some(1.0)]),
        ];
        rows[0].reports[1].duplicates = 1;
        rows[1].reports[0].missing = 2;
        assert_eq!(rows.each_ref().map(Row::went_wrong), [true, true, false]);
        let lines = "single, NORMAL: fang FAILED: 1 duplicate runs\n\
                     single, NORMAL: apalis-hook FAILED: 2 tasks missing";
        assert_eq!(summary(&rows), lines);
        assert!(rows[0].json().contains(r#""failed":true"#), "{}", rows[0].json());
    }

    #[test]
    fn a_calibration_counts_as_well() {
        let contender = &CONTENDERS[0];
        let case = Case { scenario: Scenario::Bulk, durability: Durability::Full };
        assert!(!Row::new(contender, case, Ok(10), (0, 0)).went_wrong());
        let row = Row::new(contender, case, Ok(10), (3, 4));
        assert_eq!(row.notes(), "4 duplicate runs; 3 tasks missing");
    }

    #[test]
    fn a_contender_that_could_not_be_measured_has_failed_and_has_no_figure() {
        let mut broken = row("fang", Scenario::Single, &[Some(1.0)]);
        broken.failure = Some("it crashed".into());
        assert!(broken.went_wrong() && broken.rate().is_none());
        let late = row("effectum", Scenario::Latency, &[Some(1.0), None]);
        assert!(late.went_wrong() && late.latency(|report| report.start).is_none());
    }

    #[test]
    fn the_goal_of_a_case_is_judged_in_the_row_of_ours() {
        let single = Scenario::Single;
        let mut rows = [row("ours", single, &[Some(50.0)]), row("effectum", single, &[Some(10.0)])];
        compare(&mut rows);
        assert_eq!(rows.each_ref().map(Row::missed), [true, false]);
        let line = "single, NORMAL: must reach at least 10 times effectum: MISSED, it is 5.00";
        assert_eq!(summary(&rows), line);
        let json: serde_json::Value = serde_json::from_str(&rows[0].json()).unwrap();
        assert_eq!(json["must"], json!({ "effectum": { "at_least": 10.0 } }));
        assert_eq!(json["reached"], false);
    }
}
