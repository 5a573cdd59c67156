//! `backlog`: how fast ready tasks are drained with many more behind them, and of a short queue.

use std::path::Path;

use message_queue_sqlite::Queue;

use super::client::submit_bulks;
use super::enqueue::BULK;
use super::hold::{Gate, hold, release};
use super::listener::{Listener, SAMPLE_EVERY, TICK};
use super::measure::{Measured, Meter, median};
use super::process::rss_mb;
use super::report::Row;
use super::scenario::Case;
use super::throughput::rate;
use super::world::{self, Noop};
use super::{AnyError, Bench, bare};

/// How many tasks wait in a short queue, which is drained again and again: several times as many as are
/// claimed before the first of them ends, or the timed part would begin with half of the work done.
const SHORT: usize = 65_536;

/// How many times at most.
const DRAINS_MAX: usize = 64;

/// The most tasks whose drain is timed: far fewer than lie behind them.
const TIMED_MAX: usize = 500_000;

/// A queue, and what came of it so far.
struct Drained<'q> {
    queue: &'q Queue,
    gate: &'q Gate,
    listener: Listener,
}

impl Drained<'_> {
    async fn fill(&self, tasks: usize) -> Result<(), AnyError> {
        hold(self.queue, self.gate).await?;
        // nobody asks how long their submission took
        let unheard = Listener::new(tasks.div_ceil(SAMPLE_EVERY));
        submit_bulks(self.queue, &unheard, tasks, BULK).await
    }

    /// Lets the next `tasks` of those that wait run.
    async fn drain(&self, tasks: usize) -> Result<Drain, AnyError> {
        let before = self.listener.seen();
        release(self.gate);
        self.listener.until(before + tasks).await?;
        let at = |tenths: usize| (before + tasks * tenths / 10).next_multiple_of(TICK);
        let (first, last) = (at(1), at(9));
        let seconds = self.listener.seconds_between(first, last);
        let seconds = seconds.ok_or("a drain was too short to be timed")?;
        Ok(Drain { tasks: last - first, seconds })
    }
}

/// What was timed of a drain: all but the first and the last tenth, in which it begins, or ends.
#[derive(Clone, Copy, Default)]
struct Drain {
    tasks: usize,
    seconds: f64,
}

impl Drain {
    /// Both together. Results come in bursts, so one short drain says little.
    fn and(self, other: Drain) -> Drain {
        Drain { tasks: self.tasks + other.tasks, seconds: self.seconds + other.seconds }
    }

    fn rate(self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.tasks as f64 / self.seconds)
    }
}

/// Drains a short queue for about `seconds`, then `tasks` tasks with `rows` behind them.
fn run(
    dir: &Path,
    case: Case,
    seconds: f64,
    tasks: usize,
    rows: usize,
) -> Result<Measured, AnyError> {
    world::block_on(async {
        let at_first = rss_mb();
        let gate = Gate::open();
        let queue = world::start(dir, case, &gate).await?;
        let listener = Listener::new(0);
        world::subscribe::<Noop>(&queue, listener.mailbox()).await?;
        let drained = Drained { queue: &queue, gate: &gate, listener };
        let mut short = Drain::default();
        for _ in 0..DRAINS_MAX {
            drained.fill(SHORT).await?;
            short = short.and(drained.drain(SHORT).await?);
            if short.seconds >= seconds {
                break;
            }
        }
        let meter = Meter::start(&queue, dir).await?;
        drained.fill(tasks + rows).await?;
        let filled = meter.stop(&queue, case.durability, tasks + rows).await?;
        let meter = Meter::start(&queue, dir).await?;
        let long = drained.drain(tasks).await?;
        let mut measured = meter.stop(&queue, case.durability, tasks).await?;
        measured.tasks_per_s = long.rate();
        if let Some(short) = short.rate() {
            measured.extra.insert("short_tasks_per_s", short);
        }
        let most = filled.rss_mb.zip(measured.rss_mb).map(|(fill, drain)| fill.max(drain));
        if let Some((at_first, most)) = at_first.zip(most) {
            measured.extra.insert("rss_growth_mb", most - at_first);
        }
        world::leave(queue).await?;
        Ok(measured)
    })
}

/// A drain with a backlog, of a short queue, and of the bare loop's rows.
pub(crate) fn measure(bench: &Bench, case: Case) -> Result<Vec<Row>, AnyError> {
    let (seconds, rows) = (bench.options.seconds, bench.options.rows);
    bench.progress.step(case, "calibrating");
    let tried = bench.in_fresh(|dir| run(&dir.join("queue"), case, 0.0, 2 * SHORT, 0))?;
    let tasks = (rate(&tried)? * seconds) as usize;
    let tasks = tasks.clamp(BULK, TIMED_MAX).next_multiple_of(BULK);
    let (mut bares, mut rounds) = (Vec::new(), Vec::new());
    bench.rounds(case, || {
        // first, so that the memory of the first round is the queue's own
        let round = |dir: std::path::PathBuf| run(&dir.join("queue"), case, seconds, tasks, rows);
        rounds.push(bench.in_fresh(round)?);
        let bare =
            |dir: std::path::PathBuf| bare::drain(&dir, case.durability.name(), case.shards, tasks);
        bares.push(bench.in_fresh(bare)?);
        Ok(())
    })?;
    let figure = |name| rounds.iter().filter_map(move |round| round.extra.get(name).copied());
    let short = median(figure("short_tasks_per_s"));
    let long = median(rounds.iter().filter_map(|round| round.tasks_per_s));
    // what an earlier round has given back may not have gone back to the system
    let growth = figure("rss_growth_mb").max_by(f64::total_cmp);
    let row = Row::of(case, &bares, &rounds).with("tasks", tasks).with("rows", rows);
    let row = row.with("rss_growth_mb", growth);
    Ok(vec![row.with("of_short", long.zip(short).map(|(long, short)| long / short))])
}
