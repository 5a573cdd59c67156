//! `mixed`: how busy the workers' slots are with short and long tasks.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use message_queue_sqlite::prelude::*;

use super::measure::{Measured, Meter, percentile};
use super::occupancy::{Occupancy, Span, occupancy};
use super::report::Row;
use super::scenario::Case;
use super::world::{self, slots, workers};
use super::{AnyError, Bench};

/// How long a task takes: every other one is short.
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(50);

/// Every other pair of tasks has the higher priority.
const PRIORITIES: [i16; 2] = [0, 5];

/// One task in so many is delayed, by up to half of the round.
const DELAYED: usize = 10;

/// How many tasks a submission has.
const BULK: usize = 256;

/// The longest that a slot may be free while a task could run.
const IDLE_MAX: Duration = Duration::from_millis(5);

/// The fields that are of all rounds together.
const LONGEST: &str = "longest_idle_ms";
const OVER: &str = "idle_over_5ms";

/// When attempts began and ended. Clones are the same.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Entry>>>);

struct Entry {
    index: usize,
    thread: ThreadId,
    started_at: Instant,
    ended_at: Instant,
}

impl Log {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn during(&self, index: usize, time: Duration) {
        let (thread, started_at) = (std::thread::current().id(), Instant::now());
        actix_rt::time::sleep(time).await;
        self.entries().push(Entry { index, thread, started_at, ended_at: Instant::now() });
    }
}

#[task(name = "bench.short")]
async fn short(index: usize, log: Data<Log>) -> Result<(), std::io::Error> {
    log.during(index, SHORT).await;
    Ok(())
}

#[task(name = "bench.long")]
async fn long(index: usize, log: Data<Log>) -> Result<(), std::io::Error> {
    log.during(index, LONG).await;
    Ok(())
}

/// The delay of the task of this number; of most none.
fn delay(index: usize, seconds: f64) -> Option<Duration> {
    // a multiple of a prime spreads them over the time
    let part = (index / DELAYED * 7_919 % 1_000) as f64 / 1_000.0;
    index.is_multiple_of(DELAYED).then(|| Duration::from_secs_f64(part * seconds / 2.0))
}

fn submit(index: usize, seconds: f64) -> Submit {
    let priority = PRIORITIES[index / 2 % 2];
    let submit = if index.is_multiple_of(2) {
        Submit::new::<short::Task>(short::task(index))
    } else {
        Submit::new::<long::Task>(long::task(index))
    };
    let submit = submit.priority(priority);
    match delay(index, seconds) {
        Some(delay) => submit.delay(delay),
        None => submit,
    }
}

/// As many tasks as keep the slots busy for so long, in whole submissions.
fn enough(seconds: f64) -> usize {
    let each = (SHORT + LONG).as_secs_f64() / 2.0;
    ((seconds * slots() as f64 / each) as usize).next_multiple_of(BULK)
}

fn run(dir: &Path, case: Case, seconds: f64) -> Result<Measured, AnyError> {
    world::block_on(async {
        let log = Log::default();
        let builder = world::builder(dir, case.durability, case.shards).data(log.clone());
        let queue = builder.register::<short::Task>().register::<long::Task>().start().await?;
        let tasks = enough(seconds);
        let dispatcher = queue.dispatcher();
        let meter = Meter::start(&queue, dir).await?;
        let began = Instant::now();
        let mut ready_at = Vec::with_capacity(tasks);
        for first in (0..tasks).step_by(BULK) {
            let indexes = first..first + BULK;
            let bulk = indexes.clone().map(|index| submit(index, seconds)).collect();
            let sent = Instant::now();
            dispatcher.send(SubmitAll::new(bulk)).await??;
            let stored = Instant::now();
            ready_at.extend(indexes.map(|index| {
                delay(index, seconds).map_or(stored, |delay| stored.max(sent + delay))
            }));
        }
        while queue.counts().await?.get(&TaskStatus::Finished) != Some(&(tasks as u64)) {
            actix_rt::time::sleep(Duration::from_millis(5)).await;
        }
        let mut measured = meter.stop(&queue, case.durability, tasks).await?;
        let spans = spans(&log.entries(), &ready_at, began)?;
        let found = occupancy(&spans, workers(), slots() / workers());
        let found = found.ok_or("no task had to wait, so the round says nothing")?;
        measured.extra.extend(figures(&found));
        world::end(queue).await?;
        Ok(measured)
    })
}

/// The attempts with times since `began`, and their threads as workers' numbers.
fn spans(log: &[Entry], ready_at: &[Instant], began: Instant) -> Result<Vec<Span>, AnyError> {
    if log.len() != ready_at.len() {
        return Err(format!("{} tasks had {} attempts", ready_at.len(), log.len()).into());
    }
    let since = |at: Instant| u64::try_from(at.duration_since(began).as_nanos());
    let mut numbers = HashMap::new();
    let mut spans = Vec::with_capacity(log.len());
    for entry in log {
        let next = numbers.len();
        let worker = *numbers.entry(entry.thread).or_insert(next);
        if worker >= workers() {
            return Err("attempts ran on more threads than there are workers".into());
        }
        spans.push(Span {
            worker,
            ready_at: since(ready_at[entry.index])?,
            started_at: since(entry.started_at)?,
            ended_at: since(entry.ended_at)?,
        });
    }
    Ok(spans)
}

/// The figures of a round, by the names of their fields.
fn figures(found: &Occupancy) -> [(&'static str, f64); 5] {
    let idle: Vec<f64> = found.idle.iter().map(|idle| *idle as f64 / 1e6).collect();
    let limit = u64::try_from(IDLE_MAX.as_nanos()).unwrap_or(u64::MAX);
    [
        ("busy_ratio", found.busy_ratio),
        (LONGEST, found.longest_idle() as f64 / 1e6),
        ("idle_p999_ms", percentile(&idle, 99.9).unwrap_or_default()),
        (OVER, found.idle_over(limit) as f64),
        ("ready_s", found.ready as f64 / 1e9),
    ]
}

/// What each of the rounds has of a figure.
fn each<'r>(rounds: &'r [Measured], field: &'r str) -> impl Iterator<Item = f64> {
    rounds.iter().filter_map(move |round| round.extra.get(field).copied())
}

/// Tasks that wait, more than there are slots.
pub(crate) fn measure(bench: &Bench, case: Case) -> Result<Vec<Row>, AnyError> {
    let seconds = bench.options.seconds;
    let mut rounds = Vec::new();
    bench.rounds(case, || {
        rounds.push(bench.in_fresh(|dir| run(&dir.join("queue"), case, seconds))?);
        Ok(())
    })?;
    // no slot may be free for long, in no round: a median would hide one
    let longest = each(&rounds, LONGEST).fold(0.0, f64::max);
    let over: f64 = each(&rounds, OVER).sum();
    let row = Row::of(case, &[], &rounds).with("tasks", enough(seconds));
    Ok(vec![row.with(LONGEST, longest).with(OVER, over as u64)])
}
