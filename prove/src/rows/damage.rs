//! P15: a damaged directory. Bits are flipped, files cut, logs exchanged; then a queue opens what is
//! left and runs what it will. It may refuse, and it may lose what was damaged, but it says so, and
//! nothing runs with what nobody submitted.

mod stored;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Safeguard, Without};

use crate::case::{Case, Failure, Outcome as CaseOutcome, Seen};
use crate::panics;
use crate::row::{Control, Goal, Row};
use crate::scene::{self, LIMIT, block_on, harness, lock};

pub(crate) const DAMAGE: Row = Row {
    name: "P15",
    promise: "damage to the files never makes a task run with other arguments",
    test: "bit flips anywhere and in arguments, names, codecs and ids, truncations and exchanged logs, then a \
           queue runs what is there",
    goals: &[Goal::new("damaged directories", 10_000)],
    never: &[
        "wrong arguments or tasks that ran",
        "damaged rows that weren't reported",
        "panics",
        "hangs",
    ],
    case: |case| damage(case, Where::Anywhere),
    controls: &[
        Control {
            without: "the checksum over name, codec, id and arguments",
            fails: "wrong",
            within: 40,
            case: |case| {
                let _without = Without::the(Safeguard::Checksum);
                damage(case, Where::Arguments)
            },
        },
        Control {
            without: "the checksum, in rows of sound files",
            fails: "wrong or unreported",
            within: 5,
            case: |case| {
                let _without = Without::the(Safeguard::Checksum);
                damage(case, Where::Stored).map_err(|failure| match failure.kind {
                    "wrong" | "unreported" => Failure::new("wrong or unreported", failure.what),
                    _ => failure,
                })
            },
        },
    ],
    // a queue that can't store what ends waits for its deadline
    side_by_side: 8,
};

/// What is damaged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Anywhere,
    /// The bytes of arguments, in whatever file they are.
    Arguments,
    /// What sound files say of tasks.
    Stored,
}

/// How often each case's directory is damaged, each time from its sound state.
const DAMAGES: u64 = 40;

/// The directory in which no task has run yet.
const WAITING: &str = "waiting";

/// The directory whose log is exchanged for another one's. The ids are the same, so its tasks have
/// other numbers.
const OTHER: &str = "other";
const OTHERS_FIRST: u64 = 1_000;

/// Which of them are of rows in sound files.
const STORED_EVERY: u64 = 3;

const TASKS: u64 = 30;

/// How long a queue has to end.
const DEADLINE: Duration = Duration::from_secs(1);

/// What ran: the id, the number and the mark that came with it.
#[derive(Clone, Default)]
struct Ran(Arc<Mutex<Vec<(TaskId, u64, u64)>>>);

/// What each task knows of its number: a wrong bit in either shows.
fn mark(number: u64, of: &str) -> u64 {
    let salt = of.bytes().fold(7_u64, |salt, byte| salt.rotate_left(9) ^ u64::from(byte));
    (number ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[task(name = "prove.one", max_attempts = 1)]
async fn one(number: u64, marked: u64, ctx: TaskContext, ran: Data<Ran>) -> Result<(), TaskError> {
    lock(&ran.0).push((ctx.id(), number, marked ^ mark(number, "one")));
    Ok(())
}

#[task(name = "prove.two", max_attempts = 1)]
async fn two(number: u64, marked: u64, ctx: TaskContext, ran: Data<Ran>) -> Result<(), TaskError> {
    lock(&ran.0).push((ctx.id(), number, marked ^ mark(number, "two")));
    Ok(())
}

fn builder(dir: &Path, ran: &Ran) -> message_queue_sqlite::QueueBuilder {
    let builder = Queue::builder().settings(scene::settings(1)).dir(dir);
    builder.discover(module_path!()).data(ran.clone())
}

/// A sound directory with tasks that wait, and what each of them is.
struct Sound {
    files: BTreeMap<String, Vec<u8>>,
    numbers: BTreeMap<TaskId, u64>,
}

/// Makes a directory; half of them end in order, the others as a killed process leaves them.
fn sound(case: &Case, stage: &str) -> Result<Sound, Failure> {
    let dir = case.scratch().join(stage);
    let numbers = block_on(async {
        let queue = builder(&dir, &Ran::default()).start().await.map_err(harness)?;
        queue.pause_queue("default").await.map_err(harness)?;
        let mut numbers = BTreeMap::new();
        let first = if stage == OTHER { OTHERS_FIRST } else { 0 };
        for number in first..first + TASKS {
            let (name, marked) = match number.is_multiple_of(2) {
                true => ("prove.one", mark(number, "one")),
                false => ("prove.two", mark(number, "two")),
            };
            let id = if number.is_multiple_of(4) {
                let json = format!("[{number},{marked}]").into_bytes();
                let submit = Submit::raw(name, Codec::Json, json);
                queue.submit_raw(submit).await.map_err(harness)?
            } else if name == "prove.one" {
                queue.submit(one::task(number, marked)).await.map_err(harness)?.id()
            } else {
                queue.submit(two::task(number, marked)).await.map_err(harness)?.id()
            };
            numbers.insert(id, number);
        }
        if stage != WAITING {
            // some run, and some are under way
            queue.resume_queue("default").await.ok();
            queue.pause_queue("default").await.map_err(harness)?;
        }
        if case.seed.is_multiple_of(2) {
            queue.shutdown(LIMIT).await.map_err(harness)?;
        }
        Ok::<_, Failure>(numbers)
    })?;
    wait_until_free(&dir)?;
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&dir).map_err(harness)? {
        let entry = entry.map_err(harness)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().map_err(harness)?.is_file()
            && name != "ballast"
            && name != "queue.lock"
        {
            files.insert(name, fs::read(entry.path()).map_err(harness)?);
        }
    }
    fs::remove_dir_all(&dir).map_err(harness)?;
    Ok(Sound { files, numbers })
}

/// A queue that was dropped lets go of its files a moment later.
fn wait_until_free(dir: &Path) -> Result<(), Failure> {
    let began = Instant::now();
    let file = fs::File::open(dir.join("queue.lock")).map_err(harness)?;
    while rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        if began.elapsed() > LIMIT {
            return Err(Failure::new("stuck", "a queue doesn't let go of its directory"));
        }
        std::thread::yield_now();
    }
    Ok(())
}

fn damage(case: &Case, at: Where) -> CaseOutcome {
    let (waiting, other) = (sound(case, WAITING)?, sound(case, OTHER)?);
    let sound = sound(case, "one")?;
    let (mut random, panics) = (case.random(1), panics::count());
    let mut seen = Seen::default();
    for index in 0..DAMAGES {
        let mut files = sound.files.clone();
        let dir = case.scratch().join("damaged");
        let is_stored = at == Where::Stored || at == Where::Anywhere && index % STORED_EVERY == 0;
        let (what, outcome) = if is_stored {
            lay_out(&dir, &waiting.files)?;
            let damaged = stored::damage(&dir, &waiting.numbers, &mut random)?;
            (damaged.what.clone(), stored::run(&dir, &waiting.numbers, &damaged))
        } else {
            let what = if at == Where::Arguments {
                flip_arguments(&mut files, &mut random)
            } else {
                harm(&mut files, &other.files, &mut random)
            };
            lay_out(&dir, &files)?;
            (what, run(&dir, &sound.numbers))
        };
        let outcome = outcome
            .map_err(|failure| Failure::new(failure.kind, format!("{index}: {what}: {failure}")))?;
        seen = seen.count("damaged directories", 1).count(outcome, 1);
        if panics::count() > panics {
            return Err(Failure::new("panicked", format!("{index}: {what}")));
        }
        fs::remove_dir_all(&dir).map_err(harness)?;
    }
    Ok(seen)
}

fn lay_out(dir: &PathBuf, files: &BTreeMap<String, Vec<u8>>) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir(dir).map_err(harness)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(harness)?;
    files.iter().try_for_each(|(name, bytes)| fs::write(dir.join(name), bytes).map_err(harness))
}

type Files = BTreeMap<String, Vec<u8>>;

/// Damages a file in one way; says which.
fn harm(files: &mut Files, other: &Files, random: &mut fastrand::Rng) -> String {
    let names: Vec<String> = files.keys().filter(|name| name.contains(".db")).cloned().collect();
    let name = names[random.usize(..names.len())].clone();
    let bytes = files.get_mut(&name).expect("the file was just named");
    if bytes.is_empty() {
        return format!("{name} is empty anyway");
    }
    match random.u8(..10) {
        0 => {
            let length = random.usize(..bytes.len());
            bytes.truncate(length);
            format!("{name} cut to {length}")
        }
        1 => {
            let from = random.usize(..bytes.len());
            let to = bytes.len().min(from + random.usize(1..2_000));
            bytes[from..to].fill(0);
            format!("{name} zeroed from {from} to {to}")
        }
        2 if other.contains_key("shard-000.db-wal") => {
            files.insert("shard-000.db-wal".into(), other["shard-000.db-wal"].clone());
            "the log of another shard".into()
        }
        _ => {
            let flips = 1 + random.usize(..3);
            let at: Vec<usize> = (0..flips).map(|_| random.usize(..bytes.len() * 8)).collect();
            at.iter().for_each(|bit| bytes[bit / 8] ^= 1 << (bit % 8));
            format!("{name} with the bits {at:?} flipped")
        }
    }
}

/// Flips a bit in the arguments of a task, which nothing else looks at: those in JSON are text that
/// can be found.
fn flip_arguments(files: &mut Files, random: &mut fastrand::Rng) -> String {
    for (name, bytes) in files.iter_mut() {
        let json = mark(4 * random.u64(..TASKS / 4), "one").to_string().into_bytes();
        let found = bytes.windows(json.len()).position(|window| window == json);
        if let Some(at) = found {
            // another digit
            bytes[at + json.len() - 1] ^= 1;
            return format!("{name} with another digit at {at}");
        }
    }
    "nothing".into()
}

/// Opens a damaged directory and lets run what will; tells what it came to.
fn run(dir: &Path, numbers: &BTreeMap<TaskId, u64>) -> Result<&'static str, Failure> {
    let ran = Ran::default();
    let outcome = block_on(async {
        let starting = scene::in_time("stuck", "the start", builder(dir, &ran).start()).await?;
        let Ok(queue) = starting else { return Ok("refused at the start") };
        // the pause is part of the manifest
        let resumed = queue.resume_queue("default").await.is_ok();
        let ended = resumed && settled(&queue).await;
        // what a damaged file can't store is waited for to the end
        scene::in_time("stuck", "the shutdown", queue.shutdown(DEADLINE)).await?.ok();
        Ok(if ended { "run to the end" } else { "given up with an error" })
    })?;
    check_arguments(&ran, numbers)?;
    Ok(outcome)
}

/// Looks that each task that ran had its own arguments.
fn check_arguments(ran: &Ran, numbers: &BTreeMap<TaskId, u64>) -> Result<(), Failure> {
    for (id, number, wrong) in &*lock(&ran.0) {
        let expected = numbers.get(id);
        if *wrong != 0 || expected != Some(number) {
            let what = format!("{id} ran with {number} and {wrong:x}, submitted was {expected:?}");
            return Err(Failure::new("wrong", what));
        }
    }
    Ok(())
}

/// Waits until nothing is left to do, or the shard says that it can't.
async fn settled(queue: &Queue) -> bool {
    let began = Instant::now();
    let mut before = None;
    let mut same = 0;
    loop {
        let Ok(counts) = queue.counts().await else { return false };
        let open = |status| counts.get(&status).copied().unwrap_or(0);
        if open(TaskStatus::NotStarted) + open(TaskStatus::Running) == 0 {
            return true;
        }
        // damaged counts and lists may name what isn't there: as long as something moves it goes on
        same = if before.as_ref() == Some(&counts) { same + 1 } else { 0 };
        if same > 100 || began.elapsed() > LIMIT {
            return false;
        }
        before = Some(counts);
        scene::pause().await;
    }
}
