//! P8: panics of user code, wherever the queue calls it, beside tasks that do nothing wrong.

use message_queue_sqlite::FailureKind;
use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Panics, Safeguard, Without};
use serde::{Deserializer, Serializer};

use crate::case::{Case, Failure, Outcome as CaseOutcome, Seen};
use crate::row::{Control, Goal, Row};
use crate::scene::{self, LIMIT, block_on, harness, in_time, until_all_ended};

pub(crate) const PANICS: Row = Row {
    name: "P8",
    promise: "a panic hurts only its task",
    test: "async, blocking, with odd payloads, in callbacks, closures, Drop, decoding and encoding",
    goals: &[Goal::new("panics", 10_000)],
    never: &["actors lost", "good tasks that failed"],
    case: panics,
    controls: &[Control {
        without: "the catching of panics in closures",
        fails: "an actor lost",
        within: 1,
        case: |case| {
            let _without = Without::the(Safeguard::CaughtPanics);
            panics(case)
        },
    }],
    side_by_side: 2,
};

/// How many tasks of each kind a case has.
const EACH: u64 = 12;

#[task(name = "prove.innocent", max_attempts = 1)]
async fn innocent(number: u64) -> Result<u64, TaskError> {
    tokio::task::yield_now().await;
    Ok(number)
}

/// Panics with a text, a String, a number, or a value whose Drop panics as well.
fn burst(number: u64) -> ! {
    match number % 4 {
        0 => panic!("a text, on purpose"),
        1 => std::panic::panic_any(format!("a String, on purpose: {number}")),
        2 => std::panic::panic_any(number),
        _ => std::panic::panic_any(Bomb),
    }
}

/// Panics when it is dropped, unless that would be the second panic at a time.
#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("in a Drop, on purpose");
        }
    }
}

#[task(name = "prove.bursts", max_attempts = 1)]
async fn bursts(number: u64) -> Result<u64, TaskError> {
    if number.is_multiple_of(2) {
        tokio::task::yield_now().await;
    }
    burst(number)
}

#[task(name = "prove.bursts_blocking", blocking, max_attempts = 1)]
fn bursts_blocking(number: u64) -> Result<u64, TaskError> {
    burst(number)
}

/// Ends well; what it leaves behind doesn't.
#[task(name = "prove.bursts_in_drop", max_attempts = 1)]
async fn bursts_in_drop(number: u64) -> Result<u64, TaskError> {
    let bomb = Bomb;
    tokio::task::yield_now().await;
    drop(bomb);
    Ok(number)
}

/// Can't be decoded, or encoded, without a panic.
#[derive(Debug)]
struct Odd;

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(7)
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("in decoding, on purpose")
    }
}

#[task(name = "prove.bursts_in_decoding", max_attempts = 1)]
async fn bursts_in_decoding(odd: Odd) -> Result<(), TaskError> {
    Err(TaskError::fatal(format!("{odd:?} was decoded")))
}

#[derive(Debug, Deserialize)]
struct OddResult;

impl Serialize for OddResult {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("in encoding, on purpose")
    }
}

#[task(name = "prove.bursts_in_encoding", max_attempts = 1)]
async fn bursts_in_encoding(number: u64) -> Result<OddResult, TaskError> {
    let _ = number;
    Ok(OddResult)
}

#[callback(name = "prove.bursting_callback", max_attempts = 1)]
async fn bursting_callback(result: TaskResult) -> Result<(), TaskError> {
    burst(result.id().sequence())
}

/// Every panic is of a task's code: no actor may die of it.
fn check_actors(actors: &Panics) -> Result<(), Failure> {
    match actors.lost() {
        0 => Ok(()),
        lost => Err(Failure::new("an actor lost", format!("{lost} actors were made anew"))),
    }
}

/// Waits until an actor dies.
async fn lost(actors: &Panics) -> Failure {
    loop {
        if let Err(failure) = check_actors(actors) {
            return failure;
        }
        scene::pause().await;
    }
}

fn panics(case: &Case) -> CaseOutcome {
    let mut settings = scene::settings(1 + (case.seed % 2) as usize);
    settings.workers.count = Some(2);
    let dir = case.scratch().join("queue");
    let actors = Panics::in_directory(&dir);
    block_on(async {
        let builder = Queue::builder().settings(settings).dir(&dir).discover(module_path!());
        let queue = builder.start().await.map_err(harness)?;
        let mut good = Vec::new();
        for number in 0..EACH {
            good.push(queue.submit(innocent::task(number)).await.map_err(harness)?);
            queue.submit(bursts::task(number)).await.map_err(harness)?;
            queue.submit(bursts_blocking::task(number)).await.map_err(harness)?;
            queue.submit(bursts_in_drop::task(number)).await.map_err(harness)?;
            queue.submit(bursts_in_decoding::task(Odd)).await.map_err(harness)?;
            queue.submit(bursts_in_encoding::task(number)).await.map_err(harness)?;
            let calls = innocent::task(number).then(bursting_callback::callback());
            good.push(queue.submit(calls).await.map_err(harness)?);
            let closes = innocent::task(number).on_result(move |_| burst(number));
            good.push(queue.submit(closes).await.map_err(harness)?);
            // dropped unused or after its call, it panics again
            let bomb = Bomb;
            let drops = innocent::task(number).on_result(move |_| drop(bomb));
            good.push(queue.submit(drops).await.map_err(harness)?);
        }
        for handle in good {
            let (id, ended) = (handle.id(), in_time("hurt", "a good task's end", handle).await?);
            ended.map_err(|error| Failure::new("hurt", format!("{id}: {error}")))?;
        }
        tokio::select! {
            ended = until_all_ended(&queue) => ended?,
            // what it had in hand may never end
            failure = lost(&actors) => return Err(failure),
        }
        let bad = ["prove.bursts", "prove.bursts_blocking", "prove.bursts_in_drop"];
        let bad = bad.iter().chain(&["prove.bursts_in_decoding", "prove.bursts_in_encoding"]);
        let mut counted = 0;
        for name in bad.chain(&["prove.bursting_callback"]) {
            for record in scene::all(&queue, name).await?.values() {
                let kind = record.error.as_ref().map(|error| error.kind);
                if record.outcome != Some(Outcome::Failed) || kind != Some(FailureKind::Panicked) {
                    let what = format!("{name} ended as {:?}, {kind:?}", record.outcome);
                    return Err(Failure::new("ended otherwise", what));
                }
                counted += 1;
            }
        }
        let ended = in_time("stuck", "the shutdown", queue.shutdown(LIMIT)).await?;
        ended.map_err(|error| Failure::new("stuck", error))?;
        check_actors(&actors)?;
        let closures = 2 * EACH;
        Ok(Seen::default().count("panics", counted + closures).count("good tasks", 4 * EACH))
    })
}
