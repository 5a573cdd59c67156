//! `latency`: how long one task takes when nothing else is under way.

use std::path::Path;
use std::time::{Duration, Instant};

use message_queue_sqlite::prelude::*;

use super::bare::OneByOne;
use super::hold::Gate;
use super::listener::Listener;
use super::measure::{Latency, Measured, Meter, median, median_of, micros};
use super::report::Row;
use super::scenario::Case;
use super::world::{self, Noop, noop_task};
use super::{AnyError, Bench};

/// The pause after each task and each bare commit, which take turns. In it the queue stores the end of
/// the delivery, and both begin from the same rest: threads that sleep, a disk without work.
const PAUSE: Duration = Duration::from_millis(2);

/// How many tasks are done before any is timed.
const WARM_UP: usize = 8;

/// The fewest that are timed, however short a round is to be.
const TIMED_MIN: usize = 16;

/// The most, for which there is room for times.
const TIMED_MAX: usize = 1_000_000;

/// Whether a round that has done so many goes on.
fn goes_on(done: usize, began: Instant, seconds: f64) -> bool {
    let short = done < WARM_UP + TIMED_MIN;
    done < TIMED_MAX && (short || began.elapsed().as_secs_f64() < seconds)
}

/// A round: the queue's figures, and the latency of the bare commits between its tasks.
fn run(dir: &Path, case: Case, seconds: f64) -> Result<(Latency, Measured), AnyError> {
    world::block_on(async {
        let mut rows = OneByOne::open(dir, case.durability.name())?;
        let files = dir.join("queue");
        let queue = world::start(&files, case, &Gate::open()).await?;
        let listener = Listener::new(TIMED_MAX);
        world::subscribe::<Noop>(&queue, listener.mailbox()).await?;
        let dispatcher = queue.dispatcher();
        let meter = Meter::start(&queue, &files).await?;
        let (mut done, mut bare, began) = (0, Vec::new(), Instant::now());
        while goes_on(done, began, seconds) {
            let sample = done.checked_sub(WARM_UP);
            let one = rows.insert()?;
            actix_rt::time::sleep(PAUSE).await;
            let submit = Submit::new(noop_task(sample));
            if let Some(sample) = sample {
                bare.push(micros(one));
                listener.sent(sample);
            }
            dispatcher.send(submit).await??;
            if let Some(sample) = sample {
                listener.stored(sample);
            }
            done += 1;
            listener.until(done).await?;
            actix_rt::time::sleep(PAUSE).await;
        }
        let mut measured = meter.stop(&queue, case.durability, done).await?;
        (measured.submit, measured.e2e) = listener.latencies();
        // the pauses and the bare commits are in what was metered
        measured.tasks_per_s = measured.submit.map(|submit| 1e6 / submit.p50_us);
        measured.cpu_s = None;
        world::end(queue).await?;
        Ok((Latency::of(bare).ok_or("no commit was timed")?, measured))
    })
}

/// One row and one task in turns.
pub(crate) fn measure(bench: &Bench, case: Case) -> Result<Vec<Row>, AnyError> {
    let (mut bares, mut rounds) = (Vec::new(), Vec::new());
    bench.rounds(case, || {
        let (bare, round) = bench.in_fresh(|dir| run(&dir, case, bench.options.seconds))?;
        bares.push(bare.p50_us);
        rounds.push(round);
        Ok(())
    })?;
    let per_s: Vec<f64> = bares.iter().map(|bare| 1e6 / bare).collect();
    let bare = median(bares);
    let of_bare = |latency: fn(&Measured) -> Option<Latency>| {
        let p50 = median_of(&rounds, |round| latency(round).map(|latency| latency.p50_us));
        p50.zip(bare).map(|(p50, bare)| p50 / bare)
    };
    let row = Row::of(case, &per_s, &rounds).with("bare_commit_p50_us", bare);
    let row = row.with("submit_of_bare", of_bare(|round| round.submit));
    Ok(vec![row.with("e2e_of_bare", of_bare(|round| round.e2e))])
}
