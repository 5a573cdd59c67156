//! Processes that die in the middle of their work, and the ones that come after them.
//!
//! A child is this test binary again, running [`child`] alone. It writes down what it submits and
//! what was acknowledged, and its parent kills it when it has written enough.
#![expect(clippy::unwrap_used, reason = "a test fails where its helper does")]

mod retiring;
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::time::Duration;

use message_queue_sqlite::TaskResult;
use message_queue_sqlite::prelude::*;

use scene::{Called, DIR, Journal, LONGEST, PART, Scene, all, lines, until_all_ended};

#[task(name = "crash.step", backoff = "1ms..5ms", max_attempts = 50)]
async fn step(number: u64, ctx: TaskContext) -> Result<u64, io::Error> {
    tokio::task::yield_now().await;
    // some are between two attempts when the process dies
    if number.is_multiple_of(5) && ctx.failures() < 2 {
        return Err(io::Error::other("not yet"));
    }
    Ok(number)
}

#[callback(name = "crash.stepped", max_attempts = 50, backoff = "1ms..5ms")]
async fn stepped(result: TaskResult, called: Data<Called>) -> Result<(), io::Error> {
    called.0.line(&result.id().to_string())
}

#[task(name = "crash.poison")]
async fn poison() -> Result<(), io::Error> {
    std::process::abort()
}

/// Some are running when the poison is taken for the first time, however long that takes.
#[task(name = "crash.neighbour")]
async fn neighbour(number: u64, ctx: TaskContext) -> Result<u64, io::Error> {
    if number < 8 && ctx.claim_no() == 1 {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(number)
}

/// Not a test: what a child does.
#[test]
fn child() {
    let (Ok(part), Some(dir)) = (std::env::var(PART), std::env::var_os(DIR)) else { return };
    let scene = Scene(dir.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match part.as_str() {
            // more deaths than there are rounds: those that die here aren't to blame
            "submit" => submit_for_ever(&scene, scene.queue(100).await).await,
            "grow to 2" => submit_for_ever(&scene, scene.queue_that_grows(1).await).await,
            "grow to 3" => submit_for_ever(&scene, scene.queue_that_grows(2).await).await,
            "breathe" => retiring::breathe(&scene).await,
            "poison" => submit_poison(&scene).await,
            _ => {
                let queue = scene.queue(3).await;
                until_all_ended(&queue).await;
                queue.shutdown(LONGEST).await.unwrap();
            }
        }
    });
}

/// Writes a number down, submits it, and writes its id down when it is acknowledged.
async fn submit_for_ever(scene: &Scene, queue: Queue) {
    let journal = Journal::open(&scene.journal());
    let first = u64::from(std::process::id()) << 32;
    let submitter = async |lane: u64| {
        for number in (first + lane..).step_by(8) {
            journal.line(&format!("try {number}")).unwrap();
            let submission = step::task(number).priority((number % 3) as i16);
            let handle = queue.submit(submission.then(stepped::callback())).await.unwrap();
            journal.line(&format!("ack {number} {}", handle.id())).unwrap();
        }
    };
    tokio::join!(
        submitter(0),
        submitter(1),
        submitter(2),
        submitter(3),
        submitter(4),
        submitter(5),
        submitter(6),
        submitter(7)
    );
}

async fn submit_poison(scene: &Scene) {
    let queue = scene.queue(3).await;
    let journal = Journal::open(&scene.journal());
    let neighbours = (0..40).map(neighbour::task);
    let handles = queue.submit_all(neighbours).await.unwrap();
    for handle in handles {
        journal.line(&format!("good {}", handle.id())).unwrap();
    }
    // so that the parent knows its id before it is taken
    let later = poison::task().priority(9).delay(Duration::from_millis(5));
    let handle = queue.submit(later).await.unwrap();
    journal.line(&format!("poison {}", handle.id())).unwrap();
    until_all_ended(&queue).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_however_often_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene(dir.path().to_path_buf());
    for lines in [40, 7, 260, 1, 113] {
        scene.kill_after("submit", lines);
    }
    nothing_is_lost(&scene, 0).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed_while_it_adds_a_shard() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene(dir.path().to_path_buf());
    let queue = |scene: &Scene| scene.0.join("queue");
    let names = |scene: &Scene, what: &str| {
        let manifest = fs::read_to_string(queue(scene).join("manifest.json")).unwrap_or_default();
        manifest.contains(what)
    };
    // the manifest names it, the file is being made, it is complete, it has tasks
    scene.kill_when("grow to 2", |scene| names(scene, "shard-001.db"));
    scene.kill_when("grow to 2", |scene| queue(scene).join("shard-001.db").exists());
    scene.kill_when("grow to 2", |scene| {
        names(scene, "shard-001.db") && !names(scene, "\"creating\"")
    });
    scene.kill_when("grow to 3", |scene| queue(scene).join("shard-002.db").exists());
    scene.kill_when("grow to 3", |scene| {
        lines(&scene.journal()).iter().any(|line| line.contains(" 2-"))
    });
    nothing_is_lost(&scene, 0).await;
    let files = fs::read_dir(queue(&scene)).unwrap().map(|entry| entry.unwrap().file_name());
    let shards = files.filter(|name| name.to_string_lossy().ends_with(".db")).count();
    assert_eq!(shards, 3);
}

/// Has another process of fewer shards end what the killed ones left, and compares that with what
/// they wrote down.
///
/// `others` is how many tasks are finished that nobody waits for.
async fn nothing_is_lost(scene: &Scene, others: u64) {
    let queue = scene.queue(100).await;
    until_all_ended(&queue).await;
    let tasks = all(&queue, "crash.step").await;
    let callbacks = all(&queue, "crash.stepped").await;
    let counts = queue.counts().await.unwrap();
    queue.shutdown(LONGEST).await.unwrap();

    let (mut tried, mut acknowledged) = (BTreeSet::new(), BTreeMap::new());
    for line in lines(&scene.journal()) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["try", number] => drop(tried.insert(number.parse::<u64>().unwrap())),
            ["ack", number, id] => {
                let known = acknowledged.insert(id.parse::<TaskId>().unwrap(), number.to_string());
                assert_eq!(known, None, "{id} was given out twice");
            }
            ["key", ..] | ["grown" | "retired"] | ["moved", _] => {}
            _ => panic!("{line:?}"),
        }
    }
    assert!(acknowledged.len() > 150, "the children got somewhere");
    for (id, number) in &acknowledged {
        let number: u64 = number.parse().unwrap();
        let record = tasks.get(id).unwrap_or_else(|| panic!("{id} was acknowledged and is lost"));
        assert_eq!(record.payload.as_ref().unwrap().decode::<u64>().unwrap(), number);
    }
    let called: BTreeSet<String> = lines(&scene.called()).into_iter().collect();
    let mut stored = BTreeSet::new();
    for (id, record) in &tasks {
        let number: u64 = record.payload.as_ref().unwrap().decode().unwrap();
        assert!(tried.contains(&number), "nobody submitted {number}");
        assert!(stored.insert(number), "{number} was stored twice");
        assert_eq!(record.outcome, Some(Outcome::Finished), "{id}: {:?}", record.error);
        assert_eq!(record.delivery, Delivery::Callbacked);
        assert_eq!(record.output.as_ref().unwrap().decode::<u64>().unwrap(), number);
        assert!(called.contains(&id.to_string()), "the callback of {id} never came");
    }
    let reported: BTreeSet<TaskId> =
        callbacks.values().filter_map(|record| record.parent).collect();
    assert_eq!((reported.len(), callbacks.len()), (tasks.len(), tasks.len()), "one each");
    let total = tasks.len() as u64;
    let kept: Vec<_> = counts.into_iter().filter(|(_, tasks)| *tasks > 0).collect();
    assert_eq!(kept, [(TaskStatus::Finished, total + others), (TaskStatus::Callbacked, total)]);
}

#[tokio::test]
async fn a_poison_task_ends_failed_and_its_neighbours_do_not_pay() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene(dir.path().to_path_buf());
    let mut deaths = usize::from(!scene.run("poison").success());
    while !scene.run("go on").success() {
        deaths += 1;
        assert!(deaths < 10, "the poison is taken again and again");
    }
    assert_eq!(deaths, 3);
    let queue = scene.queue(3).await;
    let journal = lines(&scene.journal());
    assert_eq!(journal.len(), 41);
    let mut hurt = 0;
    for line in journal {
        let (kind, id) = line.split_once(' ').unwrap();
        let record = queue.record(id.parse().unwrap()).await.unwrap();
        if kind == "good" {
            assert_eq!(record.outcome, Some(Outcome::Finished), "{id}: {:?}", record.error);
            hurt += usize::from(record.counters.crashes > 0);
        } else {
            assert_eq!(record.outcome, Some(Outcome::Failed));
            assert_eq!(record.error.unwrap().kind, FailureKind::Crashed);
            assert_eq!((record.counters.crashes, record.counters.failures), (3, 0));
        }
    }
    assert!(hurt >= 8, "{hurt} of them ran beside it");
    queue.shutdown(LONGEST).await.unwrap();
}
