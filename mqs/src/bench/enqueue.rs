//! `enqueue`: how fast tasks are stored that nobody claims meanwhile.

use std::path::Path;

use super::client::submit_bulks;
use super::hold::{Gate, hold};
use super::listener::{Listener, SAMPLE_EVERY};
use super::measure::{Measured, Meter};
use super::report::Row;
use super::scenario::Case;
use super::throughput::{calibrate, rate};
use super::{AnyError, Bench, bare, world};

/// How many tasks a submission has: as many as the bare loop's transactions.
pub(crate) const BULK: usize = 1_024;

fn run(dir: &Path, case: Case, tasks: usize) -> Result<Measured, AnyError> {
    world::block_on(async {
        let gate = Gate::open();
        let queue = world::start(dir, case, &gate).await?;
        hold(&queue, &gate).await?;
        let listener = Listener::new(tasks.div_ceil(SAMPLE_EVERY));
        let meter = Meter::start(&queue, dir).await?;
        submit_bulks(&queue, &listener, tasks, BULK).await?;
        let mut measured = meter.stop(&queue, case.durability, tasks).await?;
        (measured.submit, _) = listener.latencies();
        world::leave(queue).await?;
        Ok(measured)
    })
}

/// Bulk submission beside the bare loop's insertions.
pub(crate) fn measure(bench: &Bench, case: Case) -> Result<Vec<Row>, AnyError> {
    let round = |tasks| bench.in_fresh(|dir| run(&dir.join("queue"), case, tasks));
    bench.progress.step(case, "calibrating");
    let tasks = calibrate(bench.options.seconds, |tasks| rate(&round(tasks)?))?;
    let (mut bares, mut rounds) = (Vec::new(), Vec::new());
    bench.rounds(case, || {
        let bare = |dir: std::path::PathBuf| {
            bare::insert(&dir, case.durability.name(), case.shards, tasks)
        };
        bares.push(bench.in_fresh(bare)?);
        rounds.push(round(tasks)?);
        Ok(())
    })?;
    Ok(vec![Row::of(case, &bares, &rounds).with("tasks", tasks)])
}
