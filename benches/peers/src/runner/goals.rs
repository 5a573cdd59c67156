//! What is aimed at, and whether it was reached.

use std::fmt;

use peers::Scenario;
use serde_json::{Value, json};

use super::row::Row;

/// What `ours` is to be beside the others in a scenario.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Goal {
    /// Whom it is compared with; the fastest of the others where nobody is named.
    beside: Option<&'static str>,
    bound: Bound,
}

/// Which ratios are good.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtLeast(f64),
    MoreThan(f64),
}

/// 10 times the fastest end to end, a faster drain than honker's batches, a lower latency than
/// effectum's.
fn goal(scenario: Scenario) -> Goal {
    let more = |beside| Goal { beside: Some(beside), bound: Bound::MoreThan(1.0) };
    match scenario {
        Scenario::Single | Scenario::Bulk | Scenario::History => {
            Goal { beside: None, bound: Bound::AtLeast(10.0) }
        }
        Scenario::Drain => more("honker-batch"),
        Scenario::Latency => more("effectum"),
    }
}

/// What became of a goal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    bound: Bound,
    /// Whom `ours` was compared with.
    beside: &'static str,
    /// Its figure divided by theirs; in `latency` theirs by its.
    found: f64,
    reached: bool,
}

impl Verdict {
    /// Of the rows of one case, which were compared; `None` if nobody whom the goal is about has a
    /// figure.
    pub(crate) fn of(scenario: Scenario, rows: &[Row]) -> Option<Verdict> {
        let Goal { beside, bound } = goal(scenario);
        let others = rows.iter().filter(|row| !row.contender.is_ours());
        let others = others.filter(|row| beside.is_none_or(|name| name == row.contender.name));
        let ratios = others.filter_map(|row| Some((row.contender.name, row.ours_of_it()?)));
        let (beside, found) = ratios.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let reached = match bound {
            Bound::AtLeast(least) => found >= least,
            Bound::MoreThan(less) => found > less,
        };
        Some(Verdict { bound, beside, found, reached })
    }

    pub(crate) fn reached(&self) -> bool {
        self.reached
    }

    /// The goal, as `mqs bench` has it.
    pub(crate) fn must(&self) -> Value {
        let bound = match self.bound {
            Bound::AtLeast(least) => json!({ "at_least": least }),
            Bound::MoreThan(less) => json!({ "more_than": less }),
        };
        json!({ self.beside: bound })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = match self.bound {
            Bound::AtLeast(least) => format!("at least {least}"),
            Bound::MoreThan(less) => format!("more than {less}"),
        };
        let verdict = if self.reached { "reached" } else { "MISSED" };
        let Verdict { beside, found, .. } = self;
        write!(f, "must reach {bound} times {beside}: {verdict}, it is {found:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::row::compare;
    use crate::runner::row::tests::row;

    /// What becomes of the goal if these have these figures.
    fn verdict(scenario: Scenario, figures: &[(&str, f64)]) -> Option<Verdict> {
        let rows = figures.iter().map(|(name, figure)| row(name, scenario, &[Some(*figure)]));
        let mut rows: Vec<Row> = rows.collect();
        compare(&mut rows);
        Verdict::of(scenario, &rows)
    }

    #[test]
    fn the_fastest_of_the_others_is_the_one_that_counts() {
        for scenario in [Scenario::Single, Scenario::Bulk, Scenario::History] {
            let others = [("ours-quiet", 500.0), ("effectum", 5.0), ("honker-batch", 20.0)];
            let missed = verdict(scenario, &[&[("ours", 199.0)], &others[..]].concat()).unwrap();
            let line = "must reach at least 10 times honker-batch: MISSED, it is 9.95";
            assert_eq!((missed.to_string().as_str(), missed.reached()), (line, false));
            let reached = verdict(scenario, &[&[("ours", 200.0)], &others[..]].concat()).unwrap();
            let line = "must reach at least 10 times honker-batch: reached, it is 10.00";
            assert_eq!((reached.to_string().as_str(), reached.reached()), (line, true));
        }
    }

    #[test]
    fn a_drain_must_be_faster_than_that_of_honker_in_batches_whoever_else_is() {
        let others = [("honker-batch", 100.0), ("effectum", 900.0)];
        let of = |ours| verdict(Scenario::Drain, &[&[("ours", ours)], &others[..]].concat());
        assert!(!of(100.0).unwrap().reached(), "as fast isn't faster");
        assert!(of(101.0).unwrap().reached());
        assert_eq!(of(101.0).unwrap().must(), json!({ "honker-batch": { "more_than": 1.0 } }));
    }

    #[test]
    fn a_latency_must_be_shorter_than_that_of_effectum_whoever_else_is() {
        let others = [("honker-batch", 10.0), ("effectum", 400.0)];
        let of = |ours| verdict(Scenario::Latency, &[&[("ours", ours)], &others[..]].concat());
        let line = "must reach more than 1 times effectum: reached, it is 8.00";
        assert_eq!(of(50.0).unwrap().to_string(), line);
        assert!(!of(400.0).unwrap().reached(), "as short isn't shorter");
    }

    #[test]
    fn without_those_whom_a_goal_is_about_there_is_nothing_to_say() {
        assert_eq!(verdict(Scenario::Drain, &[("ours", 9.0), ("effectum", 1.0)]), None);
        assert_eq!(verdict(Scenario::Single, &[("ours", 9.0), ("ours-quiet", 9.0)]), None);
        assert_eq!(verdict(Scenario::Single, &[("effectum", 9.0)]), None);
    }
}
