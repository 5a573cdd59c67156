//! `auto`: a load that rises and falls, for each number of shards, and for one that adapts.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use message_queue_sqlite::Queue;
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

/// How often the number of shards is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A shard is retired when the others would have had much room for this part of a phase. By default
/// it takes longer than the phases in which the load falls.
const RETIRE_AFTER: f64 = 1.0 / 3.0;

/// The shortest that the setting may be.
const RETIRE_AFTER_MIN: Duration = Duration::from_millis(100);

/// After the phases comes a rest, until one shard is left or so many times as long has passed as the
/// retirement of the others should take.
const PATIENCE: u32 = 3;

/// What takes part: a number of shards that is fixed, or one that adapts and may become this.
#[derive(Clone, Copy)]
struct Arm {
    case: Case,
    adapts: bool,
}

/// What one round gave: as a whole, and of each phase the tasks per second.
struct Phased {
    tasks: usize,
    whole: Measured,
    phases: [f64; PHASES.len()],
    /// How often the number of shards went the other way, in the phase in which it did so most.
    turns: usize,
    /// How many began to take tasks, and how many ceased to.
    added: usize,
    retired: usize,
}

fn run(dir: &Path, arm: Arm, seconds: f64) -> Result<Phased, AnyError> {
    let case = arm.case;
    let phase = Duration::from_secs_f64(seconds);
    world::block_on(async {
        let queue = match arm.adapts {
            true => world::start_adaptive(dir, case, retire_after(phase)).await?,
            false => world::start(dir, case, &Gate::open()).await?,
        };
        let listener = Listener::new(TIMED_MAX);
        world::subscribe::<Noop>(&queue, listener.mailbox()).await?;
        let meter = Meter::start(&queue, dir).await?;
        let (mut sent, mut phases, mut turns) = (0, [0.0; PHASES.len()], 0);
        let watched = Watched::start(&queue);
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
            let looked = watched.looked();
            let window = submit_each(&queue, &listener, in_flight, next).await?;
            all_answered(&window, in_flight).await?;
            turns = turns.max(watched.turns_since(looked));
            *rate = (listener.seen() - before) as f64 / began.elapsed().as_secs_f64();
        }
        listener.until(sent).await?;
        until_called_back(&queue, sent as u64).await?;
        let mut whole = meter.stop(&queue, case.durability, sent).await?;
        (whole.submit, whole.e2e) = listener.latencies();
        if arm.adapts {
            rest(&queue, retire_after(phase)).await;
        }
        let (added, retired) = watched.steps(&queue);
        world::end(queue).await?;
        Ok(Phased { tasks: sent, whole, phases, turns, added, retired })
    })
}

/// The setting for phases of this length.
fn retire_after(phase: Duration) -> Duration {
    phase.mul_f64(RETIRE_AFTER).max(RETIRE_AFTER_MIN)
}

/// Submits nothing, so that shards are retired.
async fn rest(queue: &Queue, each: Duration) {
    let others = u32::try_from(queue.shard_counts().active).unwrap_or(u32::MAX).saturating_sub(1);
    let (began, limit) = (Instant::now(), each * others * PATIENCE);
    while queue.shard_counts().active > 1 && began.elapsed() < limit {
        actix_rt::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks at the number of active shards for as long as it lives.
struct Watched {
    looking: tokio::task::JoinHandle<()>,
    seen: Rc<RefCell<Vec<usize>>>,
}

impl Watched {
    fn start(queue: &Queue) -> Self {
        let (queue, seen) = (queue.clone(), Rc::new(RefCell::new(Vec::new())));
        let noted = seen.clone();
        let looking = actix_rt::spawn(async move {
            loop {
                noted.borrow_mut().push(queue.shard_counts().active);
                actix_rt::time::sleep(LOOK_EVERY).await;
            }
        });
        Watched { looking, seen }
    }

    /// How often it looked so far.
    fn looked(&self) -> usize {
        self.seen.borrow().len()
    }

    /// How often the number turned since the look of this number: up after down, or down after up.
    fn turns_since(&self, look: usize) -> usize {
        turns(&self.seen.borrow()[look.saturating_sub(1)..])
    }

    /// How many shards were added, and how many retired.
    fn steps(&self, queue: &Queue) -> (usize, usize) {
        self.seen.borrow_mut().push(queue.shard_counts().active);
        steps(&self.seen.borrow())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

fn turns(numbers: &[usize]) -> usize {
    let steps = numbers.windows(2).map(|pair| pair[1].cmp(&pair[0]));
    let steps: Vec<_> = steps.filter(|step| step.is_ne()).collect();
    steps.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

fn steps(numbers: &[usize]) -> (usize, usize) {
    numbers.windows(2).fold((0, 0), |(up, down), pair| {
        (up + pair[1].saturating_sub(pair[0]), down + pair[0].saturating_sub(pair[1]))
    })
}

/// A row for each number of shards from 1 on, and one for a queue that adapts its number.
pub(crate) fn measure(bench: &Bench, case: Case) -> Result<Vec<Row>, AnyError> {
    let most = bench.options.shards.unwrap_or_else(|| world::workers().clamp(2, 8));
    let fixed = (1..=most).map(|shards| Arm { case: Case { shards, ..case }, adapts: false });
    let adaptive = Arm { case: Case { shards: most, ..case }, adapts: true };
    let arms: Vec<Arm> = fixed.chain([adaptive]).collect();
    let mut rounds: Vec<(Vec<f64>, Vec<Phased>)> =
        arms.iter().map(|_| (Vec::new(), Vec::new())).collect();
    bench.rounds(case, || {
        for (arm, (bares, phased)) in arms.iter().zip(&mut rounds) {
            let run =
                |dir: std::path::PathBuf| run(&dir.join("queue"), *arm, bench.options.seconds);
            let ran = bench.in_fresh(run)?;
            let tasks = ran.tasks.max(arm.case.shards);
            let bare = |dir: std::path::PathBuf| {
                bare::run(&dir, arm.case.durability.name(), arm.case.shards, tasks)
            };
            bares.push(bench.in_fresh(bare)?);
            phased.push(ran);
        }
        Ok(())
    })?;
    let phases: Vec<[f64; PHASES.len()]> =
        rounds.iter().map(|(_, phased)| medians(phased)).collect();
    let best = best(&phases[..most]);
    let rows = arms.iter().zip(&rounds).zip(&phases).map(|((arm, (bares, phased)), phases)| {
        let whole: Vec<Measured> = phased.iter().map(|phased| phased.whole.clone()).collect();
        let of_best: Vec<f64> = phases.iter().zip(best).map(|(rate, best)| rate / best).collect();
        let row = Row::of(arm.case, bares, &whole).with("adapts", arm.adapts);
        let row = row.with("phases", figures(phases)).with("of_best", figures(&of_best));
        if !arm.adapts {
            return row;
        }
        let worst = of_best.iter().copied().fold(f64::INFINITY, f64::min);
        let turns = phased.iter().map(|phased| phased.turns).max().unwrap_or_default();
        let row = row.with("worst_of_best", worst).with("direction_changes", turns);
        let row = row.with("shards_added", of_rounds(phased, |round| round.added));
        row.with("shards_retired", of_rounds(phased, |round| round.retired))
    });
    Ok(rows.collect())
}

/// The median of the rounds.
fn of_rounds(rounds: &[Phased], number: fn(&Phased) -> usize) -> usize {
    median(rounds.iter().map(|round| number(round) as f64)).unwrap_or_default() as usize
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
    fn a_turn_is_a_step_the_other_way() {
        assert_eq!(turns(&[]), 0);
        assert_eq!(turns(&[1, 1, 2, 2, 3]), 0);
        assert_eq!(turns(&[1, 2, 1, 1, 2, 3]), 2);
    }

    #[test]
    fn each_shard_that_begins_to_take_tasks_or_ceases_to_counts() {
        assert_eq!(steps(&[]), (0, 0));
        assert_eq!(steps(&[1, 1, 2, 4, 4]), (3, 0));
        assert_eq!(steps(&[1, 2, 1, 1, 3, 2]), (3, 2));
    }

    #[test]
    fn a_shard_is_retired_within_a_phase_and_no_sooner_than_the_setting_allows() {
        assert_eq!(retire_after(Duration::from_secs(3)), Duration::from_secs(1));
        assert_eq!(retire_after(Duration::from_millis(20)), Duration::from_millis(100));
    }

    #[test]
    fn the_best_of_each_phase_may_be_of_different_numbers_of_shards() {
        let phases = [[5.0, 4.0, 1.0, 4.0, 5.0], [2.0, 4.5, 9.0, 3.0, 2.0]];
        assert_eq!(best(&phases), [5.0, 4.5, 9.0, 4.0, 5.0]);
    }
}
