//! `single` and `bulk`: how many tasks go through, from submission to the end of the delivery.

use std::path::Path;

use super::client::{BULK, IN_FLIGHT, submit_bulks, submit_each};
use super::hold::Gate;
use super::listener::{Listener, SAMPLE_EVERY};
use super::measure::{Measured, Meter};
use super::report::Row;
use super::scenario::{Case, Scenario};
use super::world::{self, Noop, called_back, until_called_back};
use super::{AnyError, Bench, bare};

/// How many tasks a calibration begins with.
const FIRST_GUESS: usize = 2_048;

/// The most tasks of a round, so that its files stay below some gigabytes.
const TASKS_MAX: usize = 5_000_000;

/// How many tasks take about `seconds`, by what `rate` says of the tasks per second of so many.
/// A multiple of [`BULK`].
pub(crate) fn calibrate(
    seconds: f64,
    mut rate: impl FnMut(usize) -> Result<f64, AnyError>,
) -> Result<usize, AnyError> {
    let whole = |tasks: f64| (tasks / BULK as f64).ceil().max(1.0) as usize * BULK;
    let mut tasks = FIRST_GUESS;
    loop {
        let rate = rate(tasks)?;
        let wanted = whole(rate * seconds).min(TASKS_MAX);
        // a start takes its time, so a rate of too few tasks says little
        if tasks * 8 >= wanted {
            return Ok(wanted);
        }
        tasks = whole(wanted as f64 / 4.0);
    }
}

/// How a round's tasks are submitted.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    Each,
    Bulks,
}

/// Runs `tasks` tasks in a queue of its own, whose directory may hold others that are over.
pub(crate) fn run(dir: &Path, case: Case, way: Way, tasks: usize) -> Result<Measured, AnyError> {
    world::block_on(async {
        let queue = world::start(dir, case, &Gate::open()).await?;
        let listener = Listener::new(tasks.div_ceil(SAMPLE_EVERY));
        world::subscribe::<Noop>(&queue, listener.mailbox()).await?;
        let before = called_back(&queue).await?;
        let meter = Meter::start(&queue, dir).await?;
        match way {
            Way::Each => {
                let mut left = 0..tasks;
                submit_each(&queue, &listener, IN_FLIGHT, || left.next()).await?;
            }
            Way::Bulks => submit_bulks(&queue, &listener, tasks, BULK).await?,
        }
        listener.until(tasks).await?;
        until_called_back(&queue, before + tasks as u64).await?;
        let mut measured = meter.stop(&queue, case.durability, tasks).await?;
        (measured.submit, measured.e2e) = listener.latencies();
        world::end(queue).await?;
        Ok(measured)
    })
}

/// How many tasks per second went through.
pub(crate) fn rate(measured: &Measured) -> Result<f64, AnyError> {
    measured.tasks_per_s.ok_or_else(|| "a round of the queue has no rate".into())
}

/// `single` and `bulk`.
pub(crate) fn measure(bench: &Bench, case: Case) -> Result<Vec<Row>, AnyError> {
    let way = match case.scenario {
        Scenario::Bulk => Way::Bulks,
        _ => Way::Each,
    };
    let round = |tasks| bench.in_fresh(|dir| run(&dir.join("queue"), case, way, tasks));
    bench.progress.step(case, "calibrating");
    let tasks = calibrate(bench.options.seconds, |tasks| rate(&round(tasks)?))?;
    let (mut bares, mut rounds) = (Vec::new(), Vec::new());
    bench.rounds(case, || {
        bares.push(
            bench.in_fresh(|dir| bare::run(&dir, case.durability.name(), case.shards, tasks))?,
        );
        rounds.push(round(tasks)?);
        Ok(())
    })?;
    Ok(vec![Row::of(case, &bares, &rounds).with("tasks", tasks)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calibration_takes_larger_steps_until_its_rate_says_enough() {
        let mut tried = Vec::new();
        let tasks = calibrate(3.0, |tasks| {
            tried.push(tasks);
            Ok(100_000.0)
        });
        assert_eq!(tasks.unwrap(), 300_032);
        assert_eq!(tried, [2_048, 75_008]);
    }

    #[test]
    fn a_calibration_of_a_slow_queue_is_one_step() {
        assert_eq!(calibrate(0.01, |_| Ok(1_000.0)).unwrap(), BULK);
        assert_eq!(calibrate(3.0, |_| Ok(5_000.0)).unwrap(), 15_104);
    }

    #[test]
    fn a_calibration_ends_with_the_error_of_its_run() {
        assert!(calibrate(1.0, |_| Err("broken".into())).is_err());
    }
}
