//! P11: wall clocks that jump, forwards and back, by an hour, a day, ten years, while tasks wait for
//! their time and results are kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Panics, Point, Safeguard, Without};
use message_queue_sqlite::{Clock, Timestamp};

use crate::case::{Case, Failure, Outcome as CaseOutcome, Seen};
use crate::row::{Control, Goal, Row};
use crate::scene::{self, LIMIT, START, block_on, harness, in_time, lock, until_all_ended};

pub(crate) const CLOCKS: Row = Row {
    name: "P11",
    promise: "a clock that jumps makes no task run twice, early or never, and purges no result",
    test: "jumps of an hour, a day and ten years, both ways, and suspends, while tasks wait; shards rebuilt in between",
    goals: &[Goal::new("jumps", 2_000), Goal::new("shards rebuilt after a jump", 200)],
    never: &["twice", "lost", "early", "purged"],
    case: jumps,
    controls: &[Control {
        without: "the uptime that confirms what the clock says, before results are purged",
        fails: "purged",
        within: 20,
        case: |case| {
            let _without = Without::the(Safeguard::ConfirmedTime);
            jumps(case)
        },
    }],
    side_by_side: 4,
};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
const TEN_YEARS: i64 = 3_652 * DAY;

const JUMPS: u64 = 20;

/// After how many jumps a shard is rebuilt, in every second case.
const REBUILT_AFTER: u64 = 5;

/// What a task finds out: how often each ran, and which were early.
#[derive(Clone, Default)]
struct Known {
    runs: Arc<Mutex<BTreeMap<u64, u32>>>,
    /// For each task, by its number, the latest time that the clock has shown since its submission.
    latest: Arc<Mutex<BTreeMap<u64, i64>>>,
    early: Arc<Mutex<Vec<u64>>>,
}

#[task(name = "prove.timed", max_attempts = 3, backoff = "1m..5m")]
async fn timed(
    number: u64,
    due: i64,
    ctx: TaskContext,
    known: Data<Known>,
) -> Result<u64, std::io::Error> {
    if lock(&known.latest).get(&number).is_none_or(|latest| *latest < due) {
        lock(&known.early).push(number);
    }
    // every fourth waits for a retry as well
    if number.is_multiple_of(4) && ctx.failures() == 0 {
        return Err(std::io::Error::other("once more"));
    }
    *lock(&known.runs).entry(number).or_default() += 1;
    Ok(number)
}

struct World {
    queue: Queue,
    panics: Panics,
    /// How many shards were rebuilt after a jump.
    rebuilt: Mutex<u64>,
    clock: Clock,
    known: Known,
    submitted: Mutex<BTreeMap<TaskId, u64>>,
    next: Mutex<u64>,
}

fn jumps(case: &Case) -> CaseOutcome {
    let mut random = case.random(1);
    let clock = Clock::manual(Timestamp::from_micros(START));
    let known = Known::default();
    let dir = case.scratch().join("queue");
    let mut settings = scene::settings(1);
    settings.supervision.restarts = 1_000;
    settings.supervision.backoff_min = Duration::from_millis(1);
    let falls = !case.seed.is_multiple_of(2);
    // a rebuilt shard looks for old records: what ends before the start is old when the clock is back
    let earliest = if falls { START } else { START / 2 };
    block_on(async {
        let builder = Queue::builder().settings(settings).dir(&dir).discover(module_path!());
        let builder = builder.data(known.clone()).clock(clock.clone());
        let queue = builder.start().await.map_err(harness)?;
        let panics = Panics::in_directory(&dir);
        let (rebuilt, submitted, next) = Default::default();
        let world = World { queue, panics, rebuilt, clock, known, submitted, next };
        for jump in 1..=JUMPS {
            for delay in [0, random.i64(0..2 * HOUR), random.i64(0..2 * DAY)] {
                world.submit(delay).await?;
            }
            let far = [HOUR, DAY, TEN_YEARS, 90_000_000][random.usize(..4)];
            let back = random.bool() && world.now() - far >= earliest;
            world.jump(if back { -far } else { far });
            // wakes the shard, and has ended before the next jump
            let woken = world.submit(0).await?;
            let ended = in_time("stuck", "a task's end", world.queue.handle::<timed::Task>(woken));
            drop(ended.await?);
            if falls && jump.is_multiple_of(REBUILT_AFTER) {
                world.rebuild_shard().await?;
            }
        }
        world.end(falls).await?;
        let ended = in_time("stuck", "the shutdown", world.queue.shutdown(LIMIT)).await?;
        ended.map_err(harness)?;
        let seen = Seen::default().count("jumps", JUMPS).count("tasks", *lock(&world.next));
        Ok(seen.count("shards rebuilt after a jump", *lock(&world.rebuilt)))
    })
}

impl World {
    fn now(&self) -> i64 {
        self.clock.now().as_micros()
    }

    fn jump(&self, by: i64) {
        let to = self.now() + by;
        // first: who reads the clock may read the new time already
        for latest in lock(&self.known.latest).values_mut() {
            *latest = to.max(*latest);
        }
        self.clock.set(Timestamp::from_micros(to));
    }

    /// Submits a task that may run so many microseconds from now.
    async fn submit(&self, delay: i64) -> Result<TaskId, Failure> {
        let number = {
            let mut next = lock(&self.next);
            *next += 1;
            *next
        };
        // one that is awaited at once ends at its first attempt, of the others every second one doesn't
        let number = if delay == 0 { number * 4 + 1 } else { number * 4 + number % 4 / 3 * 2 };
        let now = self.now();
        let due = now + delay;
        lock(&self.known.latest).insert(number, now);
        let time = UNIX_EPOCH + Duration::from_micros(due.unsigned_abs());
        let task = timed::task(number, due).at(time);
        let handle = self.queue.submit(task).await.map_err(|error| Failure::new("stuck", error))?;
        lock(&self.submitted).insert(handle.id(), number);
        Ok(handle.id())
    }

    /// Has the shard panic, and waits until it is back. It panics at a lookup: while nothing is being
    /// submitted.
    async fn rebuild_shard(&self) -> Result<(), Failure> {
        let id = lock(&self.submitted).keys().next().copied();
        let id = id.ok_or_else(|| harness("nothing is submitted"))?;
        self.panics.arm(Point::ShardLookup, 1, 1);
        let back = async {
            while self.panics.back_after().is_none() {
                // what it says is looked at in the end
                drop(self.queue.record(id).await);
            }
        };
        in_time("stuck", "the shard's return", back).await?;
        *lock(&self.rebuilt) += 1;
        Ok(())
    }

    /// Lets everything come due and end, and compares.
    async fn end(&self, falls: bool) -> Result<(), Failure> {
        for _ in 0..6 {
            self.jump(TEN_YEARS);
            let woken = self.submit(0).await?;
            let ended = in_time("stuck", "a task's end", self.queue.handle::<timed::Task>(woken));
            drop(ended.await?);
        }
        until_all_ended(&self.queue).await?;
        if falls {
            self.rebuild_shard().await?;
        }
        if let Some(number) = lock(&self.known.early).first() {
            return Err(Failure::new("early", format!("number {number}")));
        }
        let submitted = lock(&self.submitted).clone();
        for (id, number) in submitted {
            match self.queue.record(id).await {
                Ok(record) if record.outcome == Some(Outcome::Finished) => {}
                Ok(record) => {
                    return Err(Failure::new(
                        "lost",
                        format!("{id} ended as {:?}", record.outcome),
                    ));
                }
                Err(Error::ResultExpired { .. }) => {
                    return Err(Failure::new("purged", format!("{id}, number {number}")));
                }
                Err(error) => return Err(Failure::new("lost", format!("{id}: {error}"))),
            }
            let ran = lock(&self.known.runs).get(&number).copied().unwrap_or(0);
            if ran != 1 {
                return Err(Failure::new("twice", format!("number {number} ran {ran} times")));
            }
        }
        Ok(())
    }
}
