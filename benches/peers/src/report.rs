//! What a peer reports of a round, as one line of JSON.

use serde::{Deserialize, Serialize};

/// Two percentiles of durations, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Latency {
    /// Of any number of durations in any order; `None` of none.
    pub fn of(mut micros: Vec<f64>) -> Option<Latency> {
        micros.sort_by(f64::total_cmp);
        Some(Latency { p50_us: percentile(&micros, 50.0)?, p99_us: percentile(&micros, 99.0)? })
    }
}

/// The value that `percent` percent of the sorted values don't exceed (the nearest rank).
pub fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// The middle value; of an even number the upper one. `None` of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// What one round gave. What has no meaning in a scenario, or wasn't reached, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How many tasks were submitted.
    pub tasks: usize,
    /// From the first submission (in `drain`: the start of the workers) until all were recorded as
    /// done.
    pub took_s: Option<f64>,
    pub tasks_per_s: Option<f64>,
    /// Tasks that never ran.
    pub missing: usize,
    /// Runs of a task beyond its first.
    pub duplicates: u64,
    /// Submissions that ended with an error, and what the first one said.
    pub refused: usize,
    pub error: Option<String>,
    /// From the call that submits to its return.
    pub submit: Option<Latency>,
    /// From the call that submits to the start of the task.
    pub start: Option<Latency>,
    /// From the call that submits until the task is recorded as done.
    pub done: Option<Latency>,
    pub cpu_us_per_task: Option<f64>,
    pub rss_mb: Option<f64>,
    /// What the connection says of itself; `None` of a peer that can't be asked.
    pub sqlite: Option<String>,
    pub journal: Option<String>,
    pub synchronous: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_smallest_value_that_enough_do_not_exceed() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 50.0), Some(100.0));
        assert_eq!(percentile(&values, 99.0), Some(198.0));
        assert_eq!(percentile(&[7.0], 99.0), Some(7.0));
        assert_eq!(percentile(&[], 50.0), None);
    }

    #[test]
    fn a_latency_sorts_what_it_is_given() {
        let latency = Latency::of(vec![30.0, 10.0, 20.0]);
        assert_eq!(latency, Some(Latency { p50_us: 20.0, p99_us: 30.0 }));
        assert_eq!(Latency::of(Vec::new()), None);
    }

    #[test]
    fn a_median_is_the_middle_value() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn a_report_comes_back_from_its_line() {
        let report =
            Report { tasks: 3, duplicates: 1, tasks_per_s: Some(1.5), ..Report::default() };
        let line = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
    }
}
