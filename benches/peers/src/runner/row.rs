//! What is reported of a contender in a case, and how it looks.

use std::fmt::Write;

use peers::{AnyError, Latency, Report, Scenario, median};
use serde_json::json;

use super::contenders::Contender;
use super::{Case, Options, programs};

/// The rounds of one contender.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) contender: &'static Contender,
    case: Case,
    pub(crate) tasks: usize,
    pub(crate) reports: Vec<Report>,
    /// Why there is no figure.
    pub(crate) failure: Option<String>,
    /// The rate of `ours` divided by its own.
    ours_of_it: Option<f64>,
}

/// Why a round has no rate.
pub(crate) fn why_not(report: &Report) -> String {
    match &report.error {
        Some(error) => format!("{} of {} refused: {error}", report.refused, report.tasks),
        None => format!("not over in time: {} of {} never ran", report.missing, report.tasks),
    }
}

impl Row {
    /// With the number of tasks that a calibration chose.
    pub(crate) fn new(
        contender: &'static Contender,
        case: Case,
        tasks: Result<usize, AnyError>,
    ) -> Row {
        let (tasks, failure) = match tasks {
            Ok(tasks) => (tasks, None),
            Err(error) => (0, Some(error.to_string())),
        };
        Row { contender, case, tasks, reports: Vec::new(), failure, ours_of_it: None }
    }

    fn median(&self, figure: impl Fn(&Report) -> Option<f64>) -> Option<f64> {
        median(self.reports.iter().filter_map(figure))
    }

    /// Only if each round has one: the median of those that went well would flatter.
    pub(crate) fn rate(&self) -> Option<f64> {
        let all = self.reports.iter().all(|report| report.tasks_per_s.is_some());
        all.then(|| self.median(|report| report.tasks_per_s)).flatten()
    }

    fn latency(&self, which: fn(&Report) -> Option<Latency>) -> Option<Latency> {
        let p50_us = self.median(|report| which(report).map(|latency| latency.p50_us))?;
        let p99_us = self.median(|report| which(report).map(|latency| latency.p99_us))?;
        Some(Latency { p50_us, p99_us })
    }

    fn duplicates(&self) -> u64 {
        self.reports.iter().map(|report| report.duplicates).sum()
    }

    fn missing(&self) -> usize {
        self.reports.iter().map(|report| report.missing).sum()
    }

    fn refused(&self) -> usize {
        self.reports.iter().map(|report| report.refused).sum()
    }

    /// What went wrong, in words.
    fn notes(&self) -> String {
        let mut notes = Vec::new();
        if let Some(failure) = &self.failure {
            notes.push(failure.replace('\n', " "));
        }
        let unfinished = self
            .reports
            .iter()
            .find(|report| self.case.scenario != Scenario::Latency && report.tasks_per_s.is_none());
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
        })
        .to_string()
    }
}

/// Sets each row beside the one of `ours`.
pub(crate) fn compare(rows: &mut [Row]) {
    let figure = |row: &Row| match row.case.scenario {
        // the shorter the better, so it is the other way round
        Scenario::Latency => row.latency(|report| report.start).map(|start| 1.0 / start.p50_us),
        _ => row.rate(),
    };
    let ours = rows.iter().find(|row| row.contender.name == "ours").and_then(figure);
    for row in rows {
        row.ours_of_it = ours.zip(figure(row)).map(|(ours, its)| ours / its);
    }
}

/// The rows of a case.
pub(crate) fn table(case: Case, options: &Options, rows: &[Row]) -> String {
    let mut text = String::new();
    let (scenario, durability) = (case.scenario.name(), case.durability.name());
    let history = match case.scenario {
        Scenario::History => format!(", {} finished tasks", options.rows),
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

/// What is aimed at, and what was found: 10 times the fastest end to end, a faster drain than
/// honker's batches, a lower latency than effectum's.
pub(crate) fn goals(rows: &[Row]) -> String {
    let mut lines = Vec::new();
    for row in rows.iter().filter(|row| row.contender.name == "ours") {
        let case = row.case;
        let same = |other: &&Row| {
            let (mine, its) = (case, other.case);
            mine.scenario == its.scenario && mine.durability == its.durability
        };
        let others = rows.iter().filter(same).filter(|other| !other.contender.is_ours());
        let (name, aim) = match case.scenario {
            Scenario::Single => (None, "at least 10"),
            Scenario::Drain => (Some("honker-batch"), "more than 1"),
            Scenario::Latency => (Some("effectum"), "more than 1"),
            _ => continue,
        };
        let others = others.filter(|other| name.is_none_or(|name| name == other.contender.name));
        let nearest = others.filter(|other| other.ours_of_it.is_some());
        let nearest = nearest.min_by(|a, b| {
            a.ours_of_it.unwrap_or(f64::MAX).total_cmp(&b.ours_of_it.unwrap_or(f64::MAX))
        });
        if let Some((other, ratio)) = nearest.and_then(|other| Some((other, other.ours_of_it?))) {
            let (scenario, durability) = (case.scenario.name(), case.durability.name());
            let than = other.contender.name;
            lines.push(format!("{scenario}, {durability}: {ratio:.2} of {than}; aim: {aim}"));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::contenders::CONTENDERS;
    use peers::Durability;

    fn row(name: &str, scenario: Scenario, rates: &[Option<f64>]) -> Row {
        let contender = CONTENDERS.iter().find(|one| one.name == name).unwrap();
        let case = Case { scenario, durability: Durability::Normal };
        let mut row = Row::new(contender, case, Ok(10));
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
    fn the_fastest_of_the_others_is_the_one_that_counts() {
        let single = Scenario::Single;
        let rows = ["ours", "ours-quiet", "effectum", "honker-batch"].into_iter();
        let rates = [100.0, 500.0, 5.0, 20.0].into_iter();
        let mut rows: Vec<Row> =
            rows.zip(rates).map(|(name, rate)| row(name, single, &[Some(rate)])).collect();
        compare(&mut rows);
        assert_eq!(goals(&rows), "single, NORMAL: 5.00 of honker-batch; aim: at least 10");
    }

    #[test]
    fn of_two_latencies_the_shorter_one_is_better() {
        let latency = Scenario::Latency;
        let mut rows =
            vec![row("ours", latency, &[Some(50.0)]), row("effectum", latency, &[Some(400.0)])];
        compare(&mut rows);
        assert_eq!(goals(&rows), "latency, NORMAL: 8.00 of effectum; aim: more than 1");
    }

    #[test]
    fn duplicates_and_missing_tasks_are_in_the_line_and_in_the_json() {
        let mut row = row("fang", Scenario::Single, &[Some(1.0)]);
        (row.reports[0].duplicates, row.reports[0].missing) = (7, 2);
        assert!(line(&row).ends_with("7 duplicate runs; 2 tasks missing"), "{}", line(&row));
        let json: serde_json::Value = serde_json::from_str(&row.json()).unwrap();
        assert_eq!((json["duplicates"].as_u64(), json["missing"].as_u64()), (Some(7), Some(2)));
    }
}
