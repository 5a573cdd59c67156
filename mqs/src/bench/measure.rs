//! Medians and percentiles, and what a round measures of the process and the queue.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use message_queue_sqlite::Queue;

use super::AnyError;
use super::checkpoints::{SYNCS, checkpoints};
use super::options::Durability;
use super::process::{self, Watch};

/// What one round of the queue gave. What has no meaning in a scenario isn't set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) tasks_per_s: Option<f64>,
    pub(crate) row_writes_per_task: Option<f64>,
    pub(crate) fsyncs_per_task: Option<f64>,
    pub(crate) submit: Option<Latency>,
    pub(crate) e2e: Option<Latency>,
    pub(crate) rss_mb: Option<f64>,
    pub(crate) cpu_s: Option<f64>,
    /// Figures of this scenario alone, by the names of their fields.
    pub(crate) extra: BTreeMap<&'static str, f64>,
}

/// Two percentiles of durations, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Latency {
    /// Of any number of durations in any order; `None` of none.
    pub(crate) fn of(mut micros: Vec<f64>) -> Option<Latency> {
        micros.sort_by(f64::total_cmp);
        Some(Latency { p50_us: percentile(&micros, 50.0)?, p99_us: percentile(&micros, 99.0)? })
    }
}

/// The value that `percent` percent of the sorted values don't exceed (the nearest rank).
pub(crate) fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// The middle value; of an even number the upper one. `None` of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The median of what the rounds have of a figure; `None` if none has it.
pub(crate) fn median_of<R>(rounds: &[R], figure: impl Fn(&R) -> Option<f64>) -> Option<f64> {
    median(rounds.iter().filter_map(figure))
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Measures a stretch of a round.
pub(crate) struct Meter {
    dir: PathBuf,
    checkpoints: u64,
    row_writes: u64,
    commits: u64,
    cpu: Duration,
    watch: Watch,
    began: Instant,
}

impl Meter {
    /// For a queue whose files are in `dir`.
    pub(crate) async fn start(queue: &Queue, dir: &Path) -> Result<Self, AnyError> {
        settle(queue).await?;
        Ok(Meter {
            dir: dir.to_path_buf(),
            checkpoints: checkpoints(dir)?,
            row_writes: queue.row_writes(),
            commits: queue.commits(),
            watch: Watch::start(),
            cpu: process::cpu(),
            began: Instant::now(),
        })
    }

    /// What was measured while so many tasks went through.
    pub(crate) async fn stop(
        self,
        queue: &Queue,
        durability: Durability,
        tasks: usize,
    ) -> Result<Measured, AnyError> {
        let took = self.began.elapsed();
        let cpu = process::cpu().saturating_sub(self.cpu);
        settle(queue).await?;
        let per_task = |count: u64| count as f64 / tasks as f64;
        let copied = checkpoints(&self.dir)? - self.checkpoints;
        // at NORMAL only checkpoints sync
        let commits = match durability {
            Durability::Full => queue.commits() - self.commits,
            Durability::Normal => 0,
        };
        Ok(Measured {
            tasks_per_s: Some(tasks as f64 / took.as_secs_f64()),
            row_writes_per_task: Some(per_task(queue.row_writes() - self.row_writes)),
            fsyncs_per_task: Some(per_task(commits + SYNCS * copied)),
            rss_mb: self.watch.stop(),
            cpu_s: Some(cpu.as_secs_f64()),
            ..Measured::default()
        })
    }
}

/// Waits until the batches that were answered are counted, which comes after the answers.
async fn settle(queue: &Queue) -> Result<(), AnyError> {
    // each shard answers when it has done with the batch before
    queue.counts().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_smallest_value_that_enough_do_not_exceed() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 50.0), Some(100.0));
        assert_eq!(percentile(&values, 99.0), Some(198.0));
        assert_eq!(percentile(&values, 100.0), Some(200.0));
        assert_eq!(percentile(&values, 0.0), Some(1.0));
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
        assert_eq!(median([5.0]), Some(5.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn rounds_without_a_figure_are_left_out_of_its_median() {
        let rounds = [Some(4.0), None, Some(1.0), Some(2.0)];
        assert_eq!(median_of(&rounds, |round| *round), Some(2.0));
        assert_eq!(median_of(&[None, None], |round: &Option<f64>| *round), None);
    }
}
