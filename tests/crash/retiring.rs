//! Processes that die while a shard is retired and taken back, and while the slots of ordering keys
//! move from shard to shard.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{ShardId, Submission};

use crate::scene::{Journal, Scene, all, lines, until_all_ended};
use crate::{nothing_is_lost, step, stepped};

const KEYS: u64 = 12;
const SLOW_KEYS: u64 = 4;

/// How many submissions wait at a time, so that a second shard is wanted.
const LANES: u64 = 32;

/// Where keyed tasks write when they begin and end.
pub(crate) struct Ran(pub(crate) Journal);

#[task(name = "crash.keyed", max_attempts = 50, backoff = "1ms..5ms")]
async fn keyed(key: u64, number: u64, ran: Data<Ran>) -> Result<u64, io::Error> {
    ran.0.line(&format!("begin {key} {number}"))?;
    // some keys' tasks are fewer than come, and their slots stay where they are
    if key >= KEYS - SLOW_KEYS {
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    ran.0.line(&format!("end {key} {number}"))?;
    Ok(number)
}

impl Scene {
    /// A queue that adds a second shard as soon as it has something to do, and retires it as soon as it
    /// hasn't.
    async fn queue_that_breathes(&self) -> Queue {
        let mut settings = Settings::default();
        settings.tasks.max_crashes = 100;
        (settings.shards.min, settings.shards.max) = (1, Some(2));
        settings.shards.target_wait = Duration::from_micros(10);
        settings.shards.retire_after = Duration::from_millis(100);
        settings.limits.batch = 1;
        self.start(settings).await
    }
}

/// What a child does: load until there are two shards, no load until there is one, over and over.
pub(crate) async fn breathe(scene: &Scene) {
    // later processes have higher numbers
    let processes = lines(&scene.ran()).iter().filter(|line| *line == "process").count() as u64;
    // before the queue starts, and with it what the last one left
    Journal::open(&scene.ran()).line("process").unwrap();
    let queue = scene.queue_that_breathes().await;
    let journal = Journal::open(&scene.journal());
    let (first, next, next_key) = (processes << 32, Cell::new(0), Cell::new(0));
    let number = || first + next.replace(next.get() + 1);
    let store = async |number: u64, late: bool| {
        journal.line(&format!("try {number}")).unwrap();
        let submission = step::task(number).then(stepped::callback());
        // some are left in a shard that is retired
        let submission =
            if late { submission.delay(Duration::from_millis(400)) } else { submission };
        let id = queue.submit(submission).await.unwrap().id();
        journal.line(&format!("ack {number} {id}")).unwrap();
    };
    let store_keyed = async |number: u64| {
        let key = next_key.replace(next_key.get() + 1) % KEYS;
        let task: Submission<keyed::Task> = keyed::task(key, number).key(format!("key-{key}"));
        let id = queue.submit(task).await.unwrap().id();
        journal.line(&format!("key {key} {number} {id}")).unwrap();
        id.shard()
    };
    let active = || queue.shard_counts().active;
    // the load may leave time for few of them, and each key is to have had one
    for _ in 0..KEYS {
        store_keyed(number()).await;
    }
    loop {
        let (grown, moved) = (Cell::new(false), Cell::new(false));
        let lane = async || {
            while !moved.get() {
                let number = number();
                store(number, number.is_multiple_of(7)).await;
                if active() == 2 && !grown.replace(true) {
                    journal.line("grown").unwrap();
                }
            }
        };
        let keys = async {
            while !moved.get() {
                moved.set(store_keyed(number()).await == ShardId(1));
            }
            journal.line("moved there").unwrap();
        };
        tokio::join!(all_of((0..LANES).map(|_| lane())), keys);
        while active() > 1 {
            tokio::task::yield_now().await;
        }
        journal.line("retired").unwrap();
        // without a load it stays retired, and the keys come back
        while store_keyed(number()).await != ShardId(0) {}
        journal.line("moved back").unwrap();
    }
}

/// Awaits all of them together.
async fn all_of<F: Future<Output = ()>>(lanes: impl Iterator<Item = F>) {
    let mut lanes: Vec<_> = lanes.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        lanes.retain_mut(|lane| lane.as_mut().poll(context).is_pending());
        if lanes.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_lost_or_out_of_order_when_the_process_is_killed_while_a_shard_is_retired() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene(dir.path().to_path_buf());
    // as keys have moved to a second shard, as that is retired, as keys have moved back
    for line in ["moved there", "retired", "moved back"] {
        kill_at(&scene, line, 0);
    }
    // while keys move and the shard, which is back, takes tasks; while it ends those that it has
    for line in ["grown", "retired", "moved back"] {
        kill_at(&scene, line, 6);
    }
    let mut submitted: BTreeMap<TaskId, (u64, u64)> = BTreeMap::new();
    for line in lines(&scene.journal()) {
        if let ["key", key, number, id] = line.split(' ').collect::<Vec<_>>()[..] {
            let known = submitted.insert(id.parse().unwrap(), (parsed(key), parsed(number)));
            assert_eq!(known, None, "{id} was given out twice");
        }
    }
    for shard in [0, 1] {
        assert!(submitted.keys().any(|id| id.shard() == ShardId(shard)), "none in shard {shard}");
    }
    let keyed_tasks = keyed_end(&scene, &submitted).await;
    in_order(&lines(&scene.ran()));
    nothing_is_lost(&scene, keyed_tasks).await;
}

fn parsed(number: &str) -> u64 {
    number.parse().unwrap()
}

/// Kills a child when it has written this line, and then so many others.
fn kill_at(scene: &Scene, line: &str, more: usize) {
    let before = lines(&scene.journal()).len();
    scene.kill_when("breathe", |scene| {
        let lines = lines(&scene.journal());
        let mut new = lines[before..].iter();
        new.any(|found| found == line) && new.count() >= more
    });
}

/// Has a process of fewer shards end the keyed tasks, of which no acknowledged one may be missing.
/// Returns how many there are.
async fn keyed_end(scene: &Scene, submitted: &BTreeMap<TaskId, (u64, u64)>) -> u64 {
    Journal::open(&scene.ran()).line("process").unwrap();
    let queue = scene.queue(100).await;
    until_all_ended(&queue).await;
    let tasks = all(&queue, "crash.keyed").await;
    queue.shutdown(crate::scene::LONGEST).await.unwrap();
    for (id, (key, number)) in submitted {
        let record = tasks.get(id).unwrap_or_else(|| panic!("{id} was acknowledged and is lost"));
        assert_eq!(record.outcome, Some(Outcome::Finished), "{id}: {:?}", record.error);
        let arguments: (u64, u64) = record.payload.as_ref().unwrap().decode().unwrap();
        assert_eq!(arguments, (*key, *number));
    }
    tasks.len() as u64
}

/// Tasks of one key ran one at a time, in the order of their numbers; one that a process didn't end
/// may have run again.
fn in_order(ran: &[String]) {
    // by key: the last number that began, and whether it runs
    let mut keys: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
    for line in ran {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["process"] => keys.values_mut().for_each(|(_, runs)| *runs = false),
            ["begin", key, number] => {
                let (key, number) = (parsed(key), parsed(number));
                let (last, runs) = keys.entry(key).or_default();
                assert!(!*runs, "{number} of key {key} runs beside {last}");
                assert!(number >= *last, "{number} of key {key} runs after {last}");
                (*last, *runs) = (number, true);
            }
            ["end", key, number] => {
                let of_key = keys.get_mut(&parsed(key)).unwrap();
                assert_eq!(*of_key, (parsed(number), true), "of key {key}");
                of_key.1 = false;
            }
            _ => panic!("{line:?}"),
        }
    }
    assert_eq!(keys.len() as u64, KEYS);
}
