//! P1 and P7: kill -9. A child submits tasks and writes down what was acknowledged; its parent kills it
//! at random moments, again and again on the same files, then lets everything end and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Instant;

use message_queue_sqlite::TaskRecord;
use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Safeguard, Without};

use crate::case::{Case, Failure, Outcome, Seen};
use crate::child;
use crate::history::{History, Lines, number_of};
use crate::row::{Control, Goal, Row};
use crate::scene::{self, Called, LIMIT, all, harness, in_time, until_all_ended};

pub(crate) const KILLS: Row = Row {
    name: "P1",
    promise: "an acknowledged task survives kill -9",
    test: "a child is killed at random moments, some during its start, again and again on the same files",
    goals: &[
        Goal::new("kills", 2_000),
        Goal::new("acknowledged", 100_000),
        Goal::new("kills during a start", 100),
    ],
    never: &["lost", "stuck", "that nobody submitted"],
    case: |case| kills(case, ""),
    controls: &[Control {
        without: "COMMIT",
        fails: "lost",
        within: 3,
        case: |case| kills(case, "commit"),
    }],
    side_by_side: 2,
};

pub(crate) const CALLBACKS: Row = Row {
    name: "P7",
    promise: "durable callbacks and named subscribers are never missed",
    test: "P1's runs: what each task with a callback, and each named subscriber, has heard of",
    goals: &[Goal::new("kills", 2_000), Goal::new("callbacks heard", 50_000)],
    never: &["missed", "duplicate with another delivery id", "second deliveries to a subscriber"],
    case: |case| kills(case, ""),
    controls: &[Control {
        without: "the delivery's record",
        fails: "missed",
        within: 3,
        case: |case| kills(case, "delivery"),
    }],
    side_by_side: 2,
};

/// How often a directory's process is killed.
const KILLS_EACH: u64 = 10;

/// How many lines a child has written at most when it is killed; two for each task.
const LINES_MAX: u64 = 260;

/// A quarter of the kills come at most so long after the process was started: about as long as it
/// takes until it has opened what the one before left.
const START_MAX_US: u64 = 40_000;

const SHARDS: usize = 2;

type Records = BTreeMap<TaskId, TaskRecord>;

/// The files of a case.
#[derive(Clone)]
struct Scene(PathBuf);

impl Scene {
    fn queue(&self) -> PathBuf {
        self.0.join("queue")
    }

    fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// What callbacks have heard.
    fn called(&self) -> PathBuf {
        self.0.join("called")
    }

    /// What the named subscriber has heard.
    fn heard(&self) -> PathBuf {
        self.0.join("heard")
    }

    async fn start(&self) -> Result<Queue, Failure> {
        let calls = Lines::open(&self.called()).map_err(harness)?;
        let call =
            move |call: scene::Call| calls.add(&format!("{} {}", call.parent, call.delivery));
        let listener = Listener(Lines::open(&self.heard()).map_err(harness)?).start();
        let builder =
            scene::builder(scene::settings(SHARDS), &self.queue(), Called(Box::new(call)));
        let builder = builder.subscriber("prove.listener", listener.recipient());
        builder.start().await.map_err(|error| Failure::new("stuck", error))
    }

    fn spawn(&self, part: &str, without: &str) -> Result<Child, Failure> {
        child::command(part, &self.0, without)?.spawn().map_err(harness)
    }
}

/// Writes down every result that it is given.
struct Listener(Lines);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl actix::Handler<TaskResult> for Listener {
    type Result = ();

    fn handle(&mut self, result: TaskResult, _: &mut Context<Self>) {
        // a result that can't be written down is missed
        drop(self.0.add(&result.id().to_string()));
    }
}

/// What a child does: submits for ever.
pub(crate) fn child(dir: &Path) -> Result<(), Failure> {
    let without = child::without();
    let _without = match without.as_str() {
        "commit" => Some(Without::the(Safeguard::Commit)),
        "delivery" => Some(Without::the(Safeguard::DeliveryRecord)),
        _ => None,
    };
    let scene = Scene(dir.to_path_buf());
    actix_rt::System::new().block_on(async {
        let queue = scene.start().await?;
        let journal = Arc::new(Lines::open(&scene.journal()).map_err(harness)?);
        let first = u64::from(std::process::id()) << 24;
        let client = async |client: u64| {
            for number in (first + client..).step_by(8) {
                journal.add(&format!("try {number}")).map_err(harness)?;
                let handle = queue.submit(scene::submission(number)).await.map_err(harness)?;
                journal.add(&format!("ack {number} {}", handle.id())).map_err(harness)?;
            }
            Ok::<(), Failure>(())
        };
        let bulks = async |client: u64| {
            for from in (first + client..).step_by(8 * 8) {
                let numbers = (from..).step_by(8).take(8);
                let lines: Vec<String> =
                    numbers.clone().map(|number| format!("try {number}")).collect();
                journal.add(&lines.join("\n")).map_err(harness)?;
                let tasks = numbers.clone().map(scene::submission);
                let handles = queue.submit_all(tasks).await.map_err(harness)?;
                let acks = numbers.zip(&handles);
                let lines: Vec<String> =
                    acks.map(|(number, handle)| format!("ack {number} {}", handle.id())).collect();
                journal.add(&lines.join("\n")).map_err(harness)?;
            }
            Ok::<(), Failure>(())
        };
        let ended = tokio::join!(
            client(0),
            client(1),
            client(2),
            client(3),
            client(4),
            client(5),
            client(6),
            bulks(7)
        );
        ended.0
    })
}

fn kills(case: &Case, without: &str) -> Outcome {
    let scene = Scene(case.scratch().to_path_buf());
    let (mut random, mut early) = (case.random(1), 0);
    for kill in 0..KILLS_EACH {
        let before = Lines::read(&scene.journal()).len() as u64;
        let mut child = scene.spawn("kills", without)?;
        let reached = if kill > 0 && random.u8(..4) == 0 {
            wait(Duration::from_micros(random.u64(..START_MAX_US)));
            early += u64::from(Lines::read(&scene.journal()).len() as u64 == before);
            Ok(())
        } else {
            wait_for(&mut child, &scene, before + random.u64(1..LINES_MAX))
        };
        // at any instruction, not just after a line
        let spin = random.u32(0..200_000);
        (0..spin).for_each(|_| std::hint::spin_loop());
        child.kill().map_err(harness)?;
        child.wait().map_err(harness)?;
        reached?;
    }
    compare(&scene, without).map(|seen| seen.count("kills during a start", early))
}

/// Lets so much time pass, to the microsecond.
fn wait(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::thread::yield_now();
    }
}

/// Waits until the journal is so long.
fn wait_for(child: &mut Child, scene: &Scene, lines: u64) -> Result<(), Failure> {
    let (began, journal) = (Instant::now(), scene.journal());
    let (mut read, mut seen) = (0, 0);
    loop {
        // only what is new is read
        let length = fs::metadata(&journal).map_or(0, |found| found.len());
        if length > read {
            seen = Lines::read(&journal).len() as u64;
            read = length;
        }
        if seen >= lines {
            return Ok(());
        }
        if let Some(status) = child.try_wait().map_err(harness)? {
            return Err(Failure::new("stuck", format!("the child ended by itself: {status}")));
        }
        if began.elapsed() > LIMIT {
            return Err(Failure::new("stuck", "the child doesn't get there"));
        }
        std::thread::yield_now();
    }
}

/// Lets everything end and compares it with what the children wrote down.
fn compare(scene: &Scene, without: &str) -> Outcome {
    let (tasks, deliveries) = actix_rt::System::new().block_on(async {
        let queue = scene.start().await?;
        if without == "delivery" {
            // what was never recorded never ends
            let _without = Without::the(Safeguard::DeliveryRecord);
            until_all_ended(&queue).await?;
        } else {
            until_all_ended(&queue).await?;
        }
        let tasks = all(&queue, "prove.step").await?;
        let deliveries = all(&queue, "prove.listener").await?;
        let report = in_time("stuck", "the shutdown", queue.shutdown(LIMIT)).await?;
        report.map_err(harness)?;
        Ok::<_, Failure>((tasks, deliveries))
    })?;
    let history = History::read(&scene.journal())?;
    history.check(&tasks)?;
    let lines = Lines::read(&scene.heard());
    let heard = lines.iter().cloned().collect::<BTreeSet<String>>();
    check_deliveries(&tasks, &deliveries)?;
    let mut calls: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut repeated = 0;
    for line in Lines::read(&scene.called()) {
        let (parent, delivery) = line.split_once(' ').ok_or_else(|| harness(&line))?;
        let known = !calls.entry(parent.into()).or_default().insert(delivery.into());
        repeated += u64::from(known);
    }
    for (id, record) in &tasks {
        let reports = scene::reports(number_of(record)?);
        let called = calls.get(&id.to_string()).map_or(0, BTreeSet::len);
        if called == 0 && reports {
            return Err(Failure::new("missed", format!("the callback of {id}")));
        }
        if called > 1 {
            return Err(Failure::new("another delivery id", format!("callbacks of {id}")));
        }
        if !heard.contains(&id.to_string()) {
            return Err(Failure::new("missed", format!("the named subscriber hears of {id}")));
        }
    }
    Ok(Seen::default()
        .count("kills", KILLS_EACH)
        .count("acknowledged", history.acknowledged.len() as u64)
        .count("stored", tasks.len() as u64)
        .count("callbacks heard", calls.len() as u64)
        .count("repeated callbacks, with the same delivery id", repeated)
        .count("repeated results of a subscriber's", (lines.len() - heard.len()) as u64))
}

/// A subscriber isn't told which delivery a result is of. The files say that each task has one, so one
/// that is heard twice is of the same.
fn check_deliveries(tasks: &Records, deliveries: &Records) -> Result<(), Failure> {
    let mut of = BTreeMap::new();
    for (delivery, record) in deliveries {
        let parent = record.parent.ok_or_else(|| harness(format!("{delivery} has no parent")))?;
        if let Some(first) = of.insert(parent, delivery) {
            let what = format!("{first} and {delivery} tell a subscriber of {parent}");
            return Err(Failure::new("another delivery id", what));
        }
    }
    match tasks.keys().find(|task| !of.contains_key(task)) {
        Some(task) => Err(Failure::new("missed", format!("no delivery tells of {task}"))),
        None => Ok(()),
    }
}
