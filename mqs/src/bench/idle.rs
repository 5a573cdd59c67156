//! `idle`: what a queue without work costs.

use std::path::Path;
use std::time::{Duration, Instant};

use super::hold::Gate;
use super::measure::Measured;
use super::process::{Sleeps, cpu, rss_mb};
use super::report::Row;
use super::scenario::Case;
use super::world;
use super::{AnyError, Bench};

/// How long a started queue gets to come to rest.
const SETTLE: Duration = Duration::from_millis(500);

/// What an idle queue has nothing of: the fields of that.
const NOTHING: [&str; 3] = ["commits", "row_writes", "wakeups"];

fn run(dir: &Path, case: Case, seconds: f64) -> Result<Measured, AnyError> {
    world::block_on(async {
        let queue = world::start(dir, case, &Gate::open()).await?;
        actix_rt::time::sleep(SETTLE).await;
        let written = (queue.row_writes(), queue.commits());
        let slept = Sleeps::of_others();
        let (spent, began) = (cpu(), Instant::now());
        actix_rt::time::sleep(Duration::from_secs_f64(seconds)).await;
        let (spent, took) = ((cpu() - spent).as_secs_f64(), began.elapsed().as_secs_f64());
        let woken = Sleeps::of_others().zip(slept).map(|(now, before)| now.woken_since(&before));
        let mut measured = Measured { rss_mb: rss_mb(), cpu_s: Some(spent), ..Measured::default() };
        measured.extra.insert("cpu_percent", spent / took * 100.0);
        measured.extra.insert("row_writes", (queue.row_writes() - written.0) as f64);
        measured.extra.insert("commits", (queue.commits() - written.1) as f64);
        if let Some(woken) = woken {
            measured.extra.insert("wakeups", woken as f64);
        }
        world::end(queue).await?;
        Ok(measured)
    })
}

/// A started queue that nobody uses.
pub(crate) fn measure(bench: &Bench, case: Case) -> Result<Vec<Row>, AnyError> {
    let seconds = bench.options.seconds;
    let mut rounds = Vec::new();
    bench.rounds(case, || {
        rounds.push(bench.in_fresh(|dir| run(&dir.join("queue"), case, seconds))?);
        Ok(())
    })?;
    // nothing may happen in any round: a median would hide one
    let most = |field| {
        let figures = rounds.iter().filter_map(|round| round.extra.get(field).copied());
        figures.reduce(f64::max)
    };
    let row = Row::of(case, &[], &rounds);
    Ok(vec![NOTHING.iter().fold(row, |row, field| row.with(field, most(field)))])
}
