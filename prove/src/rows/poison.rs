//! P6: tasks that end their process, in each way there is, beside tasks that do nothing wrong.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Instant;

use message_queue_sqlite::FailureKind;
use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Safeguard, Without};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::case::{Case, Failure, Outcome as CaseOutcome, Seen};
use crate::child;
use crate::row::{Control, Goal, Row};
use crate::scene::{self, LIMIT, block_on, harness, in_time, until_all_ended};

pub(crate) const POISON: Row = Row {
    name: "P6",
    promise: "a task that ends its process can't do so for ever, and its neighbours don't pay",
    test: "abort, stack overflow, exit(1) and exhausted memory beside 100 good tasks, 50 times each",
    goals: &[Goal::new("poison tasks", 200)],
    never: &["more than 3 counted crashes", "good tasks that failed"],
    case: |case| poison(case, ""),
    controls: &[Control {
        without: "the count of crashes",
        fails: "endless",
        within: 1,
        case: |case| poison(case, "crashes"),
    }],
    side_by_side: 2,
};

/// How many crashes are counted before a task is given up.
const CRASHES_MAX: u32 = 3;

const GOOD: u64 = 100;

/// How often a process is started for one poison task, at most.
const STARTS_MAX: u32 = 12;

/// What a child may allocate, in bytes of address space.
const MEMORY: u64 = 4 << 30;

const KINDS: [&str; 4] = ["abort", "overflow", "exit", "memory"];

#[task(name = "prove.poison")]
async fn drink(kind: u8) -> Result<(), std::io::Error> {
    match KINDS[usize::from(kind)] {
        "abort" => std::process::abort(),
        "overflow" => drop(std::hint::black_box(deeper(u64::MAX))),
        "exit" => std::process::exit(1),
        _ => exhaust(),
    }
    Ok(())
}

/// Calls itself until the stack is used up.
fn deeper(left: u64) -> u64 {
    let here = std::hint::black_box([left; 64]);
    if left == 0 { here[0] } else { here[1] ^ deeper(left - 1) }
}

/// Allocates until there is nothing left, which ends a Rust process.
fn exhaust() {
    let mut held = Vec::new();
    loop {
        held.push(std::hint::black_box(Vec::<u8>::with_capacity(256 << 20)));
    }
}

#[task(name = "prove.good")]
async fn good(number: u64) -> Result<u64, TaskError> {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    Ok(number)
}

async fn start(dir: &Path) -> Result<Queue, Failure> {
    let mut settings = scene::settings(2);
    settings.tasks.max_crashes = CRASHES_MAX;
    let builder = Queue::builder().settings(settings).dir(dir).discover(module_path!());
    builder.start().await.map_err(|error| Failure::new("stuck", error))
}

/// What a child does: runs what is there until everything has ended. The first one submits.
pub(crate) fn child(dir: &Path) -> Result<(), Failure> {
    let memory = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    setrlimit(Resource::As, memory).map_err(harness)?;
    // whoever comes after it starts no dump
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(harness)?;
    let without = child::without();
    let _without = (without == "crashes").then(|| Without::the(Safeguard::CrashCount));
    block_on(async {
        let queue = start(&dir.join("queue")).await?;
        if let Ok(kind) = std::fs::read_to_string(dir.join("kind")) {
            let kind: u8 = kind.parse().map_err(harness)?;
            // the poison may be quicker than the others' submission
            queue.pause_queue("default").await.map_err(harness)?;
            let (some, others) = (0..GOOD / 2, GOOD / 2..GOOD);
            queue.submit_all(some.map(good::task)).await.map_err(harness)?;
            queue.submit_all([drink::task(kind)]).await.map_err(harness)?;
            queue.submit_all(others.map(good::task)).await.map_err(harness)?;
            std::fs::remove_file(dir.join("kind")).map_err(harness)?;
        }
        queue.resume_queue("default").await.map_err(harness)?;
        until_all_ended(&queue).await?;
        let ended = in_time("stuck", "the shutdown", queue.shutdown(LIMIT)).await?;
        ended.map(drop).map_err(harness)
    })
}

fn poison(case: &Case, without: &str) -> CaseOutcome {
    let dir = case.scratch().to_path_buf();
    let kind = (case.seed % KINDS.len() as u64) as u8;
    std::fs::write(dir.join("kind"), kind.to_string()).map_err(harness)?;
    let mut deaths = 0;
    while run(&dir, kind, without)? == End::Death {
        deaths += 1;
        if deaths > STARTS_MAX {
            return Err(Failure::new("endless", format!("{} again", KINDS[usize::from(kind)])));
        }
    }
    let (poisoned, good) = block_on(async {
        let queue = start(&dir.join("queue")).await?;
        let poisoned = scene::all(&queue, "prove.poison").await?;
        let good = scene::all(&queue, "prove.good").await?;
        let ended = in_time("stuck", "the shutdown", queue.shutdown(LIMIT)).await?;
        ended.map_err(harness)?;
        Ok::<_, Failure>((poisoned, good))
    })?;
    for record in poisoned.values() {
        let (crashes, error) = (record.counters.crashes, record.error.as_ref());
        let given_up = error.is_some_and(|error| error.kind == FailureKind::Crashed);
        let counted = (1..=CRASHES_MAX).contains(&crashes) && crashes <= deaths;
        if record.outcome != Some(Outcome::Failed) || !given_up || !counted {
            let name = KINDS[usize::from(kind)];
            let what = format!("{name}: {error:?}, {crashes} crashes counted of {deaths} deaths");
            return Err(Failure::new("poison", what));
        }
    }
    for record in good.values() {
        if record.outcome != Some(Outcome::Finished) {
            return Err(Failure::new("paid", format!("{}: {:?}", record.id, record.error)));
        }
    }
    if good.len() as u64 != GOOD || poisoned.len() != 1 {
        let what = format!("{} good and {} poison tasks are there", good.len(), poisoned.len());
        return Err(Failure::new("lost", what));
    }
    Ok(Seen::default()
        .count("poison tasks", 1)
        .count("deaths of a process", deaths.into())
        .count("good tasks finished", good.len() as u64))
}

/// How a child ended.
#[derive(PartialEq, Eq)]
enum End {
    Good,
    /// Its task ended it.
    Death,
}

/// Runs a child to its end. One that ends otherwise than its task would end it, proves nothing.
fn run(dir: &Path, kind: u8, without: &str) -> Result<End, Failure> {
    let mut child = child::command("poison", dir, without)?;
    let mut child = child.stderr(Stdio::null()).spawn().map_err(harness)?;
    let status = wait(&mut child)?;
    let killed = match KINDS[usize::from(kind)] {
        "exit" => status.code() == Some(1),
        _ => status.signal().is_some(),
    };
    match (status.success(), killed) {
        (true, _) => Ok(End::Good),
        (false, true) => Ok(End::Death),
        (false, false) => Err(harness(format!("no task ends a child so: {status}"))),
    }
}

fn wait(child: &mut Child) -> Result<ExitStatus, Failure> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(harness)? {
            return Ok(status);
        }
        if began.elapsed() > LIMIT {
            child.kill().map_err(harness)?;
            return Err(Failure::new("stuck", "the child never ends"));
        }
        std::thread::yield_now();
    }
}
