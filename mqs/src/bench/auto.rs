//! `auto`: a load that rises and falls, for each number of shards.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{all_answered, submit_each};
use super::hold::Gate;
use super::listener::{Listener, SAMPLE_EVERY};
use super::measure::{Measured, Meter, median};
use super::report::Row;
use super::scenario::Case;
use super::world::{self, Noop, until_called_back};
use super::{AnyError, Bench, bare};

/// The load of each phase: how many submissions wait for their commit at once.
const PHASES: [usize; 5] = [16, 256, 2_048, 256, 16];

/// The most tasks of a round that are timed.
const TIMED_MAX: usize = 1 << 20;

/// What one round gave: as a whole, and the tasks per second of each phase.
struct Phased {
    tasks: usize,
    whole: Measured,
    phases: [f64; PHASES.len()],
}

fn run(dir: &Path, case: Case, seconds: f64) -> Result<Phased, AnyError> {
    world::block_on(async {
        let queue = world::start(dir, case, &Gate::open()).await?;
        let listener = Listener::new(TIMED_MAX);
        world::subscribe::<Noop>(&queue, listener.mailbox()).await?;
        let phase = Duration::from_secs_f64(seconds / PHASES.len() as f64);
        let meter = Meter::start(&queue).await?;
        let (mut sent, mut phases) = (0, [0.0; PHASES.len()]);
        for (rate, in_flight) in phases.iter_mut().zip(PHASES) {
            let (before, began) = (listener.seen(), Instant::now());
            let next = || {
                let index = sent;
                let goes_on = began.elapsed() < phase && index < TIMED_MAX * SAMPLE_EVERY;
                goes_on.then(|| {
                    sent += 1;
                    index
                })
            };
            let window = submit_each(&queue, &listener, in_flight, next).await?;
            all_answered(&window, in_flight).await?;
            *rate = (listener.seen() - before) as f64 / began.elapsed().as_secs_f64();
        }
        listener.until(sent).await?;
        until_called_back(&queue, sent as u64).await?;
        let mut whole = meter.stop(&queue, case.durability, sent).await?;
        (whole.submit, whole.e2e) = listener.latencies();
        world::end(queue).await?;
        Ok(Phased { tasks: sent, whole, phases })
    })
}

/// A row for each number of shards from 1 on.
///
/// The numbers are fixed while the queue runs. A queue that adapts its number is one more arm: it
/// takes part in the same rounds, and must reach 0.9 of the best fixed number in each phase.
pub(crate) fn measure(bench: &Bench, case: Case) -> Result<Vec<Row>, AnyError> {
    let most = bench.options.shards.unwrap_or_else(|| world::workers().clamp(2, 8));
    let cases: Vec<Case> = (1..=most).map(|shards| Case { shards, ..case }).collect();
    let mut rounds: Vec<(Vec<f64>, Vec<Phased>)> =
        cases.iter().map(|_| (Vec::new(), Vec::new())).collect();
    bench.rounds(case, || {
        for (case, (bares, phased)) in cases.iter().zip(&mut rounds) {
            let run =
                |dir: std::path::PathBuf| run(&dir.join("queue"), *case, bench.options.seconds);
            let ran = bench.in_fresh(run)?;
            let tasks = ran.tasks.max(case.shards);
            let bare = |dir: std::path::PathBuf| {
                bare::run(&dir, case.durability.name(), case.shards, tasks)
            };
            bares.push(bench.in_fresh(bare)?);
            phased.push(ran);
        }
        Ok(())
    })?;
    let phases: Vec<[f64; PHASES.len()]> =
        rounds.iter().map(|(_, phased)| medians(phased)).collect();
    let best = best(&phases);
    let rows = cases.iter().zip(&rounds).zip(&phases).map(|((case, (bares, phased)), phases)| {
        let whole: Vec<Measured> = phased.iter().map(|phased| phased.whole.clone()).collect();
        let of_best: Vec<f64> = phases.iter().zip(best).map(|(rate, best)| rate / best).collect();
        let row = Row::of(*case, bares, &whole);
        row.with("phases", figures(phases)).with("of_best", figures(&of_best))
    });
    Ok(rows.collect())
}

/// The median of each phase.
fn medians(rounds: &[Phased]) -> [f64; PHASES.len()] {
    std::array::from_fn(|phase| {
        median(rounds.iter().map(|round| round.phases[phase])).unwrap_or_default()
    })
}

/// The best rate of each phase over all numbers of shards.
fn best(phases: &[[f64; PHASES.len()]]) -> [f64; PHASES.len()] {
    std::array::from_fn(|phase| phases.iter().map(|rates| rates[phase]).fold(0.0, f64::max))
}

fn figures(rates: &[f64]) -> Value {
    json!(rates.iter().map(|rate| (rate * 100.0).round() / 100.0).collect::<Vec<f64>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_each_phase_may_be_of_different_numbers_of_shards() {
        let phases = [[5.0, 4.0, 1.0, 4.0, 5.0], [2.0, 4.5, 9.0, 3.0, 2.0]];
        assert_eq!(best(&phases), [5.0, 4.5, 9.0, 4.0, 5.0]);
    }
}
