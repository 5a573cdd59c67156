//! P9: panics in actors. One is injected where an actor handles a message, in a queue that works;
//! everything goes on as if it hadn't been.

use std::collections::{BTreeMap, BTreeSet};
use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::Actor;
use message_queue_sqlite::ShardId;
use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Panics, Point, Safeguard, Without};

use crate::case::{Case, Failure, Outcome as CaseOutcome, Seen};
use crate::history::History;
use crate::row::{Control, Goal, Row};
use crate::scene::{self, LIMIT, block_on, harness, in_time, lock, until_all_ended};

/// The row; each point is one of its goals.
pub(crate) fn row() -> Row {
    let panics = Goal::new("panics of actors", 1_000);
    let points = Point::ALL.into_iter().map(|point| Goal::new(at(point).leak(), EACH_POINT));
    let goals: Vec<Goal> = [panics].into_iter().chain(points).collect();
    Row { goals: goals.leak(), ..ACTORS }
}

const ACTORS: Row = Row {
    name: "P9",
    promise: "actors recover from panics, and attempts in progress go on",
    test: "a panic at each message of each kind of actor, before and after a commit, in a working queue",
    goals: &[],
    never: &[
        "refused by a neighbour of a quarantined shard",
        "attempts that ran twice",
        "lost",
        "cached arguments lost",
        "closures that weren't called",
        "handles that hang",
    ],
    case: |case| panic_at(case, Panicking::of(case.seed)),
    controls: &[Control {
        without: "the reconciliation of a rebuilt shard with what lives in memory",
        fails: "twice",
        within: 60,
        case: |case| {
            let _without = Without::the(Safeguard::Reconcile);
            // where attempts are under way
            panic_at(case, Panicking::Once(Point::ShardFinish))
        },
    }],
    side_by_side: 2,
};

const CLIENTS: u64 = 4;
const TASKS: u64 = 12;

/// How many cases have a panic at each point.
const EACH_POINT: u64 = 20;

/// How many panics in a short time are answered by a fresh actor where one of two shards has more.
const BUDGET: u32 = 2;

/// So many refusals one after another, with no panic between them, are a quarantine's. What is
/// submitted to a shard that is being rebuilt waits for it.
const REFUSALS: u32 = 3;

/// What the panics at a point are counted as.
fn at(point: Point) -> String {
    format!("at {point:?}")
}

/// How often each number's task ran.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<BTreeMap<u64, u32>>>);

#[task(name = "prove.once", max_attempts = 2, backoff = "1ms..2ms")]
async fn once(number: u64, _filling: Vec<u8>, runs: Data<Runs>) -> Result<u64, TaskError> {
    *lock(&runs.0).entry(number).or_default() += 1;
    for _ in 0..number % 4 {
        tokio::task::yield_now().await;
    }
    Ok(number)
}

/// Its argument stays in memory; its end has it dropped.
#[task(name = "prove.kept", use_cache, max_attempts = 2, backoff = "1ms..2ms")]
async fn kept(value: Cached<u64>) -> Result<u64, TaskError> {
    Ok(*value)
}

/// Fails for good, so that it can be redriven.
#[task(name = "prove.fails", max_attempts = 1)]
async fn fails(number: u64) -> Result<u64, std::io::Error> {
    Err(std::io::Error::other(format!("{number} fails")))
}

struct Scene {
    queue: Queue,
    runs: Runs,
    /// The tasks whose closure was called.
    called: Arc<Mutex<BTreeSet<u64>>>,
    history: Mutex<History>,
    refused: Mutex<u64>,
}

/// What a case lets panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Panicking {
    /// One actor, once, at this point.
    Once(Point),
    /// One of two shards, at each of its commits, until it is in quarantine.
    Shard,
}

impl Panicking {
    /// Each point in turn.
    fn of(seed: u64) -> Self {
        let points = Point::ALL.get((seed % (Point::ALL.len() as u64 + 1)) as usize);
        points.map_or(Panicking::Shard, |point| Panicking::Once(*point))
    }

    fn point(self) -> Point {
        match self {
            Panicking::Once(point) => point,
            Panicking::Shard => Point::ShardCommit,
        }
    }
}

fn panic_at(case: &Case, what: Panicking) -> CaseOutcome {
    let dir = case.scratch().join("queue");
    let panics = Panics::in_directory(&dir);
    // one actor of each kind, or another one would seem to be the one that is back
    let mut settings = scene::settings(1);
    settings.supervision.probe = Duration::from_millis(20);
    if what == Panicking::Shard {
        settings.shards.count = Some(2);
        settings.workers.count = Some(2);
        settings.supervision.restarts = BUDGET;
    }
    block_on(async {
        let runs = Runs::default();
        let builder = Queue::builder().settings(settings).dir(&dir).discover(module_path!());
        let queue = builder.data(runs.clone()).start().await.map_err(harness)?;
        let (called, history, refused) = Default::default();
        let scene = Scene { queue, runs, called, history, refused };
        match what {
            Panicking::Once(point) => {
                panics.arm(point, case.random(1).u64(1..=6), 1);
                scene.work().await?;
                scene.until_back(&panics).await?;
            }
            Panicking::Shard => {
                let keys = scene.keys().await?;
                panics.arm_shard(ShardId(0), Point::ShardCommit);
                let (worked, seen) = tokio::join!(scene.work(), scene.quarantine(&keys, &panics));
                worked.and(seen)?;
            }
        }
        until_all_ended(&scene.queue).await?;
        scene.judge().await?;
        let ended = in_time("stuck", "the shutdown", scene.queue.shutdown(LIMIT)).await?;
        let report = ended.map_err(harness)?;
        if !report.unclosed.is_empty() {
            return Err(Failure::new("stuck", format!("{report:?}")));
        }
        let refused = *lock(&scene.refused);
        let mut seen = Seen::default().count("panics of actors", panics.fired());
        seen = seen.count("submissions refused meanwhile", refused);
        match (what, panics.back_after()) {
            (Panicking::Shard, _) => seen = seen.count("quarantined shards", 1),
            (Panicking::Once(point), Some(back)) => {
                seen = seen.count(&at(point), panics.fired()).time("until the actor is back", back);
            }
            (Panicking::Once(_), None) => return Err(Failure::new("stuck", "no actor came back")),
        }
        Ok(seen)
    })
    .map_err(|failure| Failure::new(failure.kind, format!("{:?}: {}", what.point(), failure.what)))
}

impl Scene {
    /// Lets several clients do all that there is to do.
    async fn work(&self) -> Result<(), Failure> {
        let (a, b, c, d, e) = tokio::join!(
            self.client(0),
            self.client(1),
            self.client(2),
            self.client(3),
            self.others()
        );
        a.and(b).and(c).and(d).and(e)
    }

    async fn client(&self, client: u64) -> Result<(), Failure> {
        for number in (client..).step_by(CLIENTS as usize).take(TASKS as usize) {
            self.submit(number).await?;
        }
        Ok(())
    }

    async fn submit(&self, number: u64) -> Result<(), Failure> {
        self.submit_with(number, None).await.map(drop)
    }

    /// Submits a task, perhaps with a key, and awaits its end; tells its id if it was taken, and why it
    /// wasn't.
    async fn submit_with(
        &self,
        number: u64,
        key: Option<&str>,
    ) -> Result<Result<TaskId, Error>, Failure> {
        lock(&self.history).tried.insert(number);
        let called = self.called.clone();
        let mut task = once::task(number, Vec::new()).on_result(move |_| {
            lock(&called).insert(number);
        });
        if let Some(key) = key {
            task = task.key(key);
        }
        match in_time("stuck", "an answer", self.queue.submit(task)).await? {
            Ok(handle) => {
                let id = handle.id();
                lock(&self.history).acknowledged.insert(id, number);
                self.end_of(handle).await?;
                Ok(Ok(id))
            }
            Err(
                error @ (Error::ShardUnavailable { .. }
                | Error::Unknown { .. }
                | Error::Store { .. }),
            ) => {
                *lock(&self.refused) += 1;
                Ok(Err(error))
            }
            Err(error) => Err(Failure::new("untyped", error)),
        }
    }

    async fn end_of(
        &self,
        handle: impl IntoFuture<Output = Result<u64, Error>>,
    ) -> Result<(), Failure> {
        let answer = in_time("stuck", "a handle's answer", handle).await?;
        // the shard is away at that moment
        match answer {
            Err(error) if !error.is_retryable() => Err(Failure::new("stuck", error)),
            _ => Ok(()),
        }
    }

    /// A key of each shard's.
    async fn keys(&self) -> Result<[String; 2], Failure> {
        let mut keys = [None, None];
        for number in 20_000.. {
            let key = format!("key-{number}");
            let id = self.submit_with(number, Some(&key)).await?.map_err(harness)?;
            keys[usize::from(id.shard().0)] = Some(key);
            if let [Some(bad), Some(good)] = &keys {
                return Ok([bad.clone(), good.clone()]);
            }
        }
        Err(harness("one shard has all keys"))
    }

    /// Submits to the shard that panics until it is in quarantine, and to the other one, which takes
    /// everything; then until the first one is back.
    async fn quarantine(&self, keys: &[String; 2], panics: &Panics) -> Result<(), Failure> {
        let mut numbers = 30_000..;
        let mut next = || numbers.next().unwrap_or_default();
        let mut in_a_row = 0;
        let quarantine = async {
            while in_a_row < REFUSALS {
                let before = panics.fired();
                let bad = self.submit_with(next(), Some(&keys[0])).await?;
                let unavailable = matches!(bad, Err(Error::ShardUnavailable { shard: ShardId(0) }));
                let counts = unavailable && before > u64::from(BUDGET) && before == panics.fired();
                in_a_row = if counts { in_a_row + 1 } else { 0 };
                let good = self.submit_with(next(), Some(&keys[1])).await?;
                good.map_err(|error| Failure::new("not alone", error))?;
            }
            Ok::<_, Failure>(())
        };
        in_time("unquarantined", "a quarantine", quarantine).await??;
        panics.rest();
        let back = async {
            while self.submit_with(next(), Some(&keys[0])).await?.is_err() {
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        in_time("stuck", "the shard's return", back).await?
    }

    /// Bulks, cancellations, redrives, lookups, subscriptions. What each comes to is no matter: it has
    /// an answer.
    async fn others(&self) -> Result<(), Failure> {
        for round in 0..6 {
            let ended = async {
                drop(self.queue.list(ListTasks::default()).await);
                drop(self.queue.counts().await);
                let listener = scene::Listener(drop).start().recipient();
                let subscribed = self.queue.subscribe_all(listener).await;
                if let Ok(subscription) = &subscribed {
                    let _ = self.queue.dispatcher().send(Unsubscribe(subscription.id())).await;
                }
                let bulk = [fails::task(round), fails::task(round)];
                let Ok(handles) = self.queue.submit_all(bulk).await else { return };
                for handle in handles {
                    let id = handle.id();
                    drop(handle.await);
                    drop(self.queue.redrive(id).await);
                    drop(self.queue.record(id).await);
                }
                if let Ok(handle) = self.queue.submit(kept::task(Cached::new(round))).await {
                    drop(handle.await);
                }
                let late = fails::task(round).delay(Duration::from_secs(3_600));
                if let Ok(handle) = self.queue.submit(late).await {
                    // one that isn't cancelled would be left over
                    while self.queue.cancel(handle.id()).await.is_err() {
                        tokio::task::yield_now().await;
                    }
                }
            };
            in_time("stuck", "an answer", ended).await?;
        }
        Ok(())
    }

    /// Submits until an actor has panicked and done something again.
    async fn until_back(&self, panics: &Panics) -> Result<(), Failure> {
        let back = async {
            let mut number = 10_000;
            while panics.back_after().is_none() {
                number += 1;
                self.submit(number).await?;
                self.others().await?;
            }
            Ok(())
        };
        in_time("stuck", "a panic and the actor's return", back).await?
    }

    async fn judge(&self) -> Result<(), Failure> {
        let tasks = scene::all(&self.queue, "prove.once").await?;
        let history = lock(&self.history).clone();
        history.check(&tasks)?;
        for record in scene::all(&self.queue, "prove.kept").await?.values() {
            if record.outcome != Some(Outcome::Finished) {
                let what = format!("{} ended with {:?}", record.id, record.error);
                return Err(Failure::new("lost arguments", what));
            }
        }
        let called = lock(&self.called);
        if let Some(id) = history.acknowledged.iter().find(|task| !called.contains(task.1)) {
            return Err(Failure::new("uncalled", format!("the closure of {id:?} wasn't called")));
        }
        let runs = lock(&self.runs.0);
        for record in tasks.values() {
            let number = crate::history::number_of(record)?;
            let ran = runs.get(&number).copied().unwrap_or(0);
            if ran != 1 {
                return Err(Failure::new("twice", format!("{number} ran {ran} times")));
            }
        }
        Ok(())
    }
}
