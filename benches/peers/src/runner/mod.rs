//! The program that runs the peers.

mod contenders;
mod goals;
mod options;
mod programs;
mod row;

use std::path::Path;

use clap::ValueEnum;
use peers::{AnyError, Durability, LATENCY_MAX, Order, Report, Scenario};

pub(crate) use options::Options;

use contenders::{CONTENDERS, Contender};
use row::Row;

/// How many tasks a calibration begins with.
const FIRST_GUESS: usize = 256;

/// The fewest tasks of a round; of fewer a rate says nothing.
const TASKS_MIN: usize = 64;

/// A round is given up after so many times its length, and half a minute.
const PATIENCE: f64 = 10.0;

/// One scenario at one durability.
#[derive(Clone, Copy, Debug)]
struct Case {
    scenario: Scenario,
    durability: Durability,
}

/// Measures what the options say. True unless something went wrong, or a goal was missed that they
/// ask to check.
pub(crate) fn run(options: &Options) -> Result<bool, AnyError> {
    let chosen: Vec<&Contender> = CONTENDERS
        .iter()
        .filter(|one| options.peers.is_empty() || options.peers.iter().any(|name| name == one.name))
        .collect();
    if options.list {
        chosen.iter().for_each(|one| println!("{:<19} {}", one.name, one.what));
        return Ok(true);
    }
    let mut built = Vec::new();
    for contender in &chosen {
        if !built.contains(&contender.package) {
            eprintln!("building {}", contender.package);
            programs::build(contender.package)?;
            built.push(contender.package);
        }
    }
    let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("mqs-peers-").tempdir_in(&parent);
    let dir = dir.map_err(|error| format!("cannot write to {}: {error}", parent.display()))?;
    let mut all = Vec::new();
    let cases = cases(options);
    for (nth, case) in cases.iter().enumerate() {
        let place = format!("[{}/{}]", nth + 1, cases.len());
        let rows = measure(options, *case, &chosen, dir.path(), &place)?;
        match options.json {
            true => rows.iter().for_each(|row| println!("{}", row.json())),
            false => println!("{}", row::table(*case, options, &rows)),
        }
        all.extend(rows);
    }
    let summary = row::summary(&all);
    match options.json {
        // each line there is a row, which says it too
        _ if summary.is_empty() => {}
        true => eprintln!("{summary}"),
        false => println!("{summary}"),
    }
    Ok(passes(&all, options.check))
}

/// A benchmark measures: that a goal was missed is a failure only if it is asked to check. That a
/// task didn't run exactly once always is one.
fn passes(rows: &[Row], check: bool) -> bool {
    !rows.iter().any(|row| row.went_wrong() || check && row.missed())
}

fn cases(options: &Options) -> Vec<Case> {
    let scenarios = match &options.scenarios[..] {
        [] => Scenario::value_variants(),
        some => some,
    };
    let durabilities = [Durability::Normal, Durability::Full].into_iter();
    let durabilities: Vec<Durability> = durabilities
        .filter(|durability| options.durability.is_none_or(|only| only == *durability))
        .collect();
    let of = |scenario: &Scenario| {
        let scenario = *scenario;
        durabilities.iter().map(move |durability| Case { scenario, durability: *durability })
    };
    scenarios.iter().flat_map(of).collect()
}

/// The rounds of all who take part, in turns.
fn measure(
    options: &Options,
    case: Case,
    chosen: &[&'static Contender],
    dir: &Path,
    place: &str,
) -> Result<Vec<Row>, AnyError> {
    let name = format!("{place} {} {}", case.scenario.name(), case.durability.name());
    let mut rows = Vec::new();
    for contender in chosen.iter().filter(|one| one.can(case.scenario, case.durability)) {
        eprintln!("{name}: {}, calibrating", contender.name);
        let mut wrong = (0, 0);
        let round = |tasks| {
            let report = one_round(options, case, contender, dir, tasks)?;
            wrong = (wrong.0 + report.missing, wrong.1 + report.duplicates);
            Ok(report)
        };
        let tasks = match case.scenario {
            Scenario::Latency => Ok(LATENCY_MAX),
            _ => calibrate(options.seconds, contender.tasks_max(case.scenario), round),
        };
        let mut row = Row::new(contender, case, tasks, wrong);
        row.rows = (case.scenario == Scenario::History).then(|| contender.rows(options.rows));
        rows.push(row);
    }
    for nth in 1..=options.rounds {
        for row in rows.iter_mut().filter(|row| row.failure.is_none()) {
            eprintln!("{name}: round {nth} of {}, {}", options.rounds, row.contender.name);
            match one_round(options, case, row.contender, dir, row.tasks) {
                Ok(report) => row.reports.push(report),
                Err(error) => row.failure = Some(error.to_string()),
            }
        }
    }
    row::compare(&mut rows);
    Ok(rows)
}

fn one_round(
    options: &Options,
    case: Case,
    contender: &Contender,
    parent: &Path,
    tasks: usize,
) -> Result<Report, AnyError> {
    let dir = tempfile::tempdir_in(parent)?;
    let order = Order {
        scenario: case.scenario,
        durability: case.durability,
        variant: contender.variant.into(),
        tasks,
        rows: contender.rows(options.rows),
        seconds: options.seconds,
        limit_s: 30.0 + PATIENCE * options.seconds,
        dir: dir.path().to_path_buf(),
        submitters: options.submitters,
        concurrency: options.concurrency,
    };
    programs::run(contender.package, &order)
}

/// How many tasks take about `seconds`, by rounds of growing size.
fn calibrate(
    seconds: f64,
    most: usize,
    mut round: impl FnMut(usize) -> Result<Report, AnyError>,
) -> Result<usize, AnyError> {
    let mut tasks = FIRST_GUESS.min(most);
    loop {
        let report = round(tasks)?;
        let rate = report.tasks_per_s.ok_or_else(|| row::why_not(&report))?;
        let wanted = ((rate * seconds) as usize).clamp(TASKS_MIN.min(most), most);
        // a start takes its time, so a rate of too few tasks says little
        if tasks * 8 >= wanted {
            return Ok(wanted);
        }
        tasks = wanted / 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(rate: f64) -> impl FnMut(usize) -> Result<Report, AnyError> {
        move |tasks| Ok(Report { tasks, tasks_per_s: Some(rate), ..Report::default() })
    }

    #[test]
    fn a_calibration_takes_larger_steps_until_its_rate_says_enough() {
        let mut tried = Vec::new();
        let mut round = at(100_000.0);
        let tasks = calibrate(2.0, 1_000_000, |tasks| {
            tried.push(tasks);
            round(tasks)
        });
        assert_eq!(tasks.unwrap(), 200_000);
        assert_eq!(tried, [256, 50_000]);
    }

    #[test]
    fn a_calibration_keeps_to_the_most_that_is_allowed() {
        assert_eq!(calibrate(2.0, 20_000, at(100_000.0)).unwrap(), 20_000);
        assert_eq!(calibrate(2.0, 20_000, at(0.1)).unwrap(), 64);
    }

    #[test]
    fn a_calibration_ends_when_a_round_has_no_rate() {
        let report = Report { tasks: 256, missing: 3, ..Report::default() };
        let error = calibrate(2.0, 20_000, |_| Ok(report.clone())).unwrap_err();
        assert!(error.to_string().contains("3 of 256"), "{error}");
    }

    #[test]
    fn a_missed_goal_is_a_failure_only_if_that_is_checked_and_a_second_run_always() {
        let single = Scenario::Single;
        let mut rows = vec![
            row::tests::row("ours", single, &[Some(50.0)]),
            row::tests::row("effectum", single, &[Some(10.0)]),
        ];
        row::compare(&mut rows);
        assert!(passes(&rows, false) && !passes(&rows, true));
        rows[1].reports[0].duplicates = 1;
        assert!(!passes(&rows, false));
        assert!(passes(&[], true));
    }
}
