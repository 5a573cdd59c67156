//! P3: any single I/O error. One operation of the files fails, the Nth for every N, once or from then
//! on, as the error that SQLite has for it, as a broken disk or as a full one.

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use message_queue_sqlite::QueueBuilder;
use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Safeguard, Without};
use message_queue_sqlite_faults::{Faults, Operation, Plan};

use crate::case::{Case, Failure, Outcome, Seen};
use crate::history::{History, number_of};
use crate::image;
use crate::panics;
use crate::row::{Control, Goal, Row};
use crate::scene::{
    self, Called, all, block_on, harness, in_time, lock, simulate, start_when_free, started,
    until_all_ended,
};

pub(crate) const ERRORS: Row = Row {
    name: "P3",
    promise: "any single I/O error is safe",
    test: "the Nth open, write, sync, truncation or deletion fails, once or for ever, as IOERR, EIO or FULL, while files are made, used, recovered after a crash, or closed",
    goals: &[
        Goal::new("injections", 20_000),
        Goal::new("failed opens", 100),
        Goal::new("failed writes", 1_000),
        Goal::new("failed syncs", 1_000),
        Goal::new("failed truncations", 100),
        Goal::new("failed deletions", 100),
        Goal::new("while files are made", 1_000),
        Goal::new("while they are used", 1_000),
        Goal::new("while they are recovered", 1_000),
        Goal::new("while they are closed", 500),
    ],
    never: &["lost", "panics", "errors without a type", "unknown outcomes answered wrongly"],
    case: |case| one_error(case, case.seed.is_multiple_of(ON_THREADS)),
    controls: &[Control {
        without: "the answer of a COMMIT",
        fails: "lost or stuck",
        within: 400,
        case: |case| {
            let _without = Without::the(Safeguard::FailedCommit);
            one_error(case, false).map_err(|failure| match failure.kind {
                "lost" | "stuck" => Failure::new("lost or stuck", failure.what),
                _ => failure,
            })
        },
    }],
    // those on threads mostly wait until a disk that was full is looked at again
    side_by_side: 24,
};

/// A kind of fault.
struct Fault {
    plan: fn() -> Plan,
    counted: &'static str,
    /// Up to which operation the sweep goes.
    most: u64,
}

const FAULTS: [Fault; 7] = [
    Fault { plan: || Plan::fail(Operation::Write), counted: "failed writes", most: WRITES },
    Fault { plan: Plan::broken_disk, counted: "failed writes", most: WRITES },
    Fault { plan: Plan::disk_full, counted: "failed writes", most: WRITES },
    Fault { plan: || Plan::fail(Operation::Sync), counted: "failed syncs", most: SYNCS },
    Fault { plan: || Plan::fail(Operation::Truncate), counted: "failed truncations", most: FEW },
    Fault { plan: || Plan::fail(Operation::Delete), counted: "failed deletions", most: FEW },
    Fault { plan: || Plan::fail(Operation::Open), counted: "failed opens", most: FEW },
];

/// There aren't more of them in a phase, or not many more.
const WRITES: u64 = 150;
const SYNCS: u64 = 50;
const FEW: u64 = 6;

/// When the fault comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Made,
    Used,
    Recovered,
    Closed,
}

const PHASES: [(Phase, &str); 4] = [
    (Phase::Made, "while files are made"),
    (Phase::Used, "while they are used"),
    (Phase::Recovered, "while they are recovered"),
    (Phase::Closed, "while they are closed"),
];

/// Of so many cases one has its actors on threads and takes the time it takes; the others are
/// simulated, so that the same seed makes the same operation fail again.
const ON_THREADS: u64 = 16;

/// How often it is tried whether the queue takes tasks again.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

const CLIENTS: u64 = 3;
const TASKS: u64 = 8;
const ROUND: u64 = CLIENTS * TASKS;

/// What a seed stands for: each phase, each fault, once and for ever, at each operation; then again, with
/// other tasks.
struct Sweep {
    phase: Phase,
    plan: Plan,
    counted: [&'static str; 2],
    /// The number of the first task.
    first: u64,
}

impl Sweep {
    fn of(seed: u64) -> Self {
        let mut rest = seed;
        let mut digit = |of: u64| {
            let digit = rest % of;
            rest /= of;
            digit
        };
        let (phase, when) = PHASES[digit(PHASES.len() as u64) as usize];
        let Fault { plan, counted, most } = FAULTS[digit(FAULTS.len() as u64) as usize];
        let for_ever = digit(2) == 0;
        let plan = plan().at(1 + digit(most));
        let plan = if for_ever { plan.for_ever() } else { plan };
        Sweep { phase, plan, counted: [counted, when], first: seed % 1_000 * 10_000 }
    }
}

/// What became of the submissions.
#[derive(Default)]
struct Answers {
    history: History,
    /// Of unknown outcome, with their numbers.
    unknown: Vec<(TaskId, u64)>,
}

fn one_error(case: &Case, on_threads: bool) -> Outcome {
    let memory = case.in_memory()?;
    let dir = if on_threads { case.scratch() } else { memory.path() }.join("disk");
    fs::create_dir(&dir).map_err(harness)?;
    let faults = Faults::below(&dir);
    let (queue, answers) = (dir.join("queue"), Mutex::new(Answers::default()));
    let panics = panics::count();
    let sweep = Sweep::of(case.seed);
    let builder = || scene::builder(scene::settings(1), &queue, Called::nobody());
    let lived = if on_threads {
        block_on(live(&sweep, &faults, &answers, builder))
    } else {
        simulate(case.seed, async |clock| {
            live(&sweep, &faults, &answers, || builder().clock(clock.clone())).await
        })
    };
    let fired = lived
        .map_err(|failure| Failure::new(failure.kind, format!("{faults:?}: {}", failure.what)))?;
    image::integrity(&queue)?;
    if panics::count() > panics {
        return Err(Failure::new("panicked", format!("{faults:?}: something panicked")));
    }
    let (answers, fired) = (lock(&answers), u64::from(fired));
    let [what, when] = sweep.counted;
    Ok(Seen::default()
        .count("injections", fired)
        .count(what, fired)
        .count(when, fired)
        .count("acknowledged", answers.history.acknowledged.len() as u64)
        .count("refused", answers.history.refused.len() as u64)
        .count("of unknown outcome", answers.unknown.len() as u64))
}

/// Lets the fault come, and everything end; tells whether it came.
async fn live(
    sweep: &Sweep,
    faults: &Faults,
    answers: &Mutex<Answers>,
    builder: impl Fn() -> QueueBuilder,
) -> Result<bool, Failure> {
    let Sweep { phase, plan, first, .. } = sweep;
    if *phase == Phase::Recovered {
        let before = started(builder().start().await)?;
        submit(&before, answers, first + 2 * ROUND).await?;
        crash(before, faults, &builder).await?;
    }
    if matches!(phase, Phase::Made | Phase::Recovered) {
        faults.arm(*plan);
    }
    let running = match builder().start().await {
        Ok(running) => running,
        Err(Error::Start { .. } | Error::Store { .. } | Error::DiskFull { .. }) => {
            faults.heal();
            started(start_when_free(&builder).await?)?
        }
        Err(error) => return Err(Failure::new("untyped", error)),
    };
    if *phase == Phase::Used {
        faults.arm(*plan);
    }
    submit(&running, answers, *first).await?;
    if *phase == Phase::Closed {
        faults.arm(*plan);
        // its report says what couldn't be closed
        drop(in_time("stuck", "the shutdown", running.shutdown(scene::LIMIT)).await?);
    }
    let fired = faults.fired() > 0;
    faults.heal();
    let running = match phase {
        Phase::Closed => started(start_when_free(&builder).await?)?,
        _ => running,
    };
    until_taken(&running, answers, first + 4 * ROUND).await?;
    submit(&running, answers, first + ROUND).await?;
    until_all_ended(&running).await?;
    judge(&running, answers).await?;
    end(running).await?;
    // what the files say, and not what a process remembers
    let again = started(start_when_free(&builder).await?)?;
    judge(&again, answers).await?;
    end(again).await?;
    Ok(fired)
}

async fn end(queue: Queue) -> Result<(), Failure> {
    let ended = in_time("stuck", "the shutdown", queue.shutdown(scene::LIMIT)).await?;
    ended.map(drop).map_err(|error| Failure::new("stuck", error))
}

/// Drops a queue at work, without anything written after that.
async fn crash(
    queue: Queue,
    faults: &Faults,
    builder: impl Fn() -> QueueBuilder,
) -> Result<(), Failure> {
    faults.arm(Plan::broken_disk().for_ever());
    drop(queue);
    match start_when_free(builder).await? {
        Ok(_) => return Err(harness("a queue starts on a disk that fails every write")),
        Err(_) => faults.heal(),
    }
    Ok(())
}

/// Submits numbers from `first` on.
async fn submit(queue: &Queue, answers: &Mutex<Answers>, first: u64) -> Result<(), Failure> {
    let client = async |client: u64| {
        for number in (first + client..).step_by(CLIENTS as usize).take(TASKS as usize) {
            submit_one(queue, answers, number).await?;
        }
        Ok::<(), Failure>(())
    };
    let (a, b, c) = tokio::join!(client(0), client(1), client(2));
    a.and(b).and(c)
}

/// Submits a number; its answer must be one that says what happened.
async fn submit_one(queue: &Queue, answers: &Mutex<Answers>, number: u64) -> Result<(), Failure> {
    lock(answers).history.tried.insert(number);
    let submitting = queue.submit(scene::submission(number));
    let answer = in_time("stuck", "an answer", submitting).await?;
    let mut answers = lock(answers);
    match answer {
        Ok(handle) => drop(answers.history.acknowledged.insert(handle.id(), number)),
        Err(Error::Unknown { id }) => answers.unknown.push((id, number)),
        Err(Error::DiskFull { .. } | Error::ShardUnavailable { .. } | Error::Store { .. }) => {
            answers.history.refused.insert(number);
        }
        Err(error) => return Err(Failure::new("untyped", error)),
    }
    Ok(())
}

/// Submits until one is taken: the queue goes on by itself.
async fn until_taken(queue: &Queue, answers: &Mutex<Answers>, first: u64) -> Result<(), Failure> {
    for number in first.. {
        let before = lock(answers).history.acknowledged.len();
        submit_one(queue, answers, number).await?;
        if lock(answers).history.acknowledged.len() > before {
            break;
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
    Ok(())
}

/// Compares what is stored with what was answered.
async fn judge(queue: &Queue, answers: &Mutex<Answers>) -> Result<(), Failure> {
    let tasks = all(queue, "prove.step").await?;
    let answers = lock(answers);
    answers.history.check(&tasks)?;
    for (id, record) in &tasks {
        let number = number_of(record)?;
        let unknown = answers.unknown.iter().find(|(_, of)| *of == number);
        if unknown.is_some_and(|(known, _)| known != id) {
            let what = format!("number {number} is {id}, and its answer named another id");
            return Err(Failure::new("untruthful", what));
        }
    }
    Ok(())
}
