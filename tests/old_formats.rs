//! Files that other versions have written open with this one.
//!
//! `tests/fixtures/vN` holds a directory of on-disk format N as a killed process left it, log and
//! all. `MQS_FIXTURE=tests/fixtures/vN cargo test --test old_formats` makes one anew: with the
//! release that begins a format, and never again. Of what it leaves keep the manifest, the database
//! and its log.
#![allow(clippy::unwrap_used, reason = "this is how a test fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{
    Clock, DeadReason, Delivery, FailureKind, TaskRecord, TaskResult, Timestamp,
};
use tokio::sync::Semaphore;

/// Longer than anything here takes on a slow machine; only a hang is longer.
const LONG: Duration = Duration::from_secs(60);

/// The time of each fixture and each test: in the year 2027.
const NOW: i64 = 1_800_000_000_000_000;

/// In the year 2100.
const LATE: Duration = Duration::from_secs(4_102_444_800);

#[task(name = "double")]
async fn double(number: u32) -> Result<u32, TaskError> {
    Ok(number * 2)
}

#[task(name = "refuse", codec = "json", max_attempts = 1)]
async fn refuse(why: String) -> Result<(), TaskError> {
    Err(TaskError::fatal(std::io::Error::other(why)))
}

/// Waits at the gate, so that it runs when the process "dies".
#[task(name = "gated")]
async fn gated(number: u32, gate: Data<Arc<Semaphore>>) -> Result<u32, TaskError> {
    gate.acquire().await.map_err(TaskError::fatal)?.forget();
    Ok(number)
}

#[callback(name = "heard")]
async fn heard(_: TaskResult) -> Result<(), TaskError> {
    Ok(())
}

#[callback(name = "deaf", max_attempts = 1)]
async fn deaf(_: TaskResult) -> Result<(), TaskError> {
    Err(TaskError::fatal(std::io::Error::other("it hears nothing")))
}

async fn open(dir: &Path, gate: &Arc<Semaphore>) -> Queue {
    let builder = Queue::builder().dir(dir).shards(1).workers(1).concurrency(2);
    // it stands: nothing in a fixture ever grows too old to be kept
    let builder = builder.clock(Clock::manual(Timestamp::from_micros(NOW)));
    let builder = builder.discover(module_path!()).data(gate.clone());
    builder.start().await.unwrap()
}

async fn until(queue: &Queue, id: TaskId, what: impl Fn(&TaskRecord) -> bool) -> TaskRecord {
    let met = async {
        loop {
            let record = queue.record(id).await.unwrap();
            if what(&record) {
                return record;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, met).await.unwrap_or_else(|_| panic!("{id} never gets there"))
}

fn id(sequence: u32) -> TaskId {
    format!("0-{sequence}").parse().unwrap()
}

/// Writes what the test below expects, and ends as a crash would.
async fn make(dir: &Path) {
    let gate = Arc::new(Semaphore::new(0));
    let queue = open(dir, &gate).await;
    queue.submit(double::task(21).then(heard::callback())).await.unwrap();
    until(&queue, id(1), |record| record.delivery == Delivery::Callbacked).await;
    queue.submit(refuse::task("no".into()).then(deaf::callback())).await.unwrap();
    until(&queue, id(3), |record| matches!(record.delivery, Delivery::Dead(_))).await;
    let late = || double::task(4).at(UNIX_EPOCH + LATE).priority(-3);
    queue.submit(late()).await.unwrap();
    queue.submit(late()).await.unwrap().cancel().await.unwrap();
    for number in 7..=10 {
        let task = gated::task(number).timeout(LONG).backoff(LONG, 2 * LONG);
        queue.submit(task.max_attempts(2)).await.unwrap();
    }
    until(&queue, id(8), |record| record.status == TaskStatus::Running).await;
    let keyed = || double::task(5).queue("mail").key("k");
    queue.submit(keyed().at(UNIX_EPOCH + LATE)).await.unwrap();
    queue.submit(keyed()).await.unwrap();
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        std::fs::copy(entry.path(), to.join(name)).unwrap();
    }
}

#[actix::test]
async fn format_1_opens_and_everything_in_it_goes_on() {
    if let Some(dir) = std::env::var_os("MQS_FIXTURE") {
        return make(Path::new(&dir)).await;
    }
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("queue");
    copy(&fixture("v1"), &dir);
    let gate = Arc::new(Semaphore::new(0));
    let queue = open(&dir, &gate).await;

    let finished = queue.record(id(1)).await.unwrap();
    assert_eq!((finished.status, finished.counters.claim_no), (TaskStatus::Callbacked, 1));
    assert_eq!(queue.handle::<double::Task>(id(1)).await.unwrap(), 42);
    assert!(finished.submitted_at <= finished.started_at.unwrap());
    assert!(finished.started_at.unwrap() <= finished.ended_at.unwrap());
    assert_eq!(queue.record(id(2)).await.unwrap().parent, Some(id(1)));

    let failed = queue.record(id(3)).await.unwrap();
    let error = failed.error.unwrap();
    assert_eq!((error.kind, &*error.message), (FailureKind::Fatal, "no"));
    assert_eq!(failed.delivery, Delivery::Dead(DeadReason::CallbackFailed));
    assert_eq!(failed.payload.unwrap().codec, Codec::Json);

    let late = queue.record(id(5)).await.unwrap();
    assert_eq!((late.priority, late.due_at), (-3, Some(Timestamp::from(UNIX_EPOCH + LATE))));
    assert_eq!(queue.status(id(6)).await.unwrap(), TaskStatus::Cancelled);

    let held = queue.record(id(12)).await.unwrap();
    assert_eq!((&*held.queue, held.key.as_deref()), ("mail", Some("k")));
    assert_eq!(held.status, TaskStatus::NotStarted);

    // the first two were running when the process ended
    gate.add_permits(4);
    for number in 7..=10 {
        let handle = queue.handle::<gated::Task>(id(number));
        let output = tokio::time::timeout(LONG, handle.into_future()).await;
        assert_eq!(output.expect("it ends").unwrap(), number);
        let counters = queue.record(id(number)).await.unwrap().counters;
        assert_eq!((counters.failures, counters.crashes), (0, u32::from(number < 9)));
    }
    queue.cancel(id(11)).await.unwrap();
    until(&queue, id(12), |record| record.status == TaskStatus::Finished).await;
    let next = queue.submit(double::task(1)).await.unwrap();
    assert!(next.id() > id(12), "no id is given out twice");
    queue.redrive(id(4)).await.unwrap();
    until(&queue, id(4), |record| record.status == TaskStatus::Failed).await;
    queue.shutdown(LONG).await.unwrap();
}
