//! Ordering keys: tasks of one key run one at a time, in order of submission.

use std::collections::{HashMap, HashSet};

use message_queue_sqlite::prelude::*;

use crate::probe::Probe;
use crate::tasks::{double, gated};
use crate::world::{World, count, end, in_time, start, until_record, until_status};

mod own {
    use super::*;

    pub(super) const PATH: &str = module_path!();

    /// Notes its number, fails as often as it is told, and notes its end.
    #[task(name = "own.step", backoff = "0ms..1ms", max_attempts = 3)]
    pub(super) async fn step(
        key: String,
        number: u32,
        failures: u32,
        ctx: TaskContext,
        probe: Data<Probe>,
    ) -> Result<u32, TaskError> {
        probe.note(format!("{key}: {number} begins"));
        tokio::task::yield_now().await;
        probe.note(format!("{key}: {number} stops"));
        if ctx.failures() < failures { Err(TaskError::retry("once more")) } else { Ok(number) }
    }
}

async fn own(world: &World) -> Queue {
    start(world.builder().discover(own::PATH).shards(2)).await
}

/// What was noted of each key, in order.
fn notes(world: &World) -> HashMap<String, Vec<String>> {
    let mut notes: HashMap<String, Vec<String>> = HashMap::new();
    for line in world.probe.log() {
        if let Some((key, note)) = line.split_once(": ") {
            notes.entry(key.to_owned()).or_default().push(note.to_owned());
        }
    }
    notes
}

#[actix::test]
async fn tasks_of_a_key_run_one_at_a_time_in_order_whatever_their_priorities_and_failures() {
    let world = World::new();
    let queue = own(&world).await;
    let mut handles = Vec::new();
    for number in 0..20_u32 {
        for key in ["a", "b", "c", "d"] {
            let failures = u32::from(number % 5 == 2);
            let task = own::step::task(key.into(), number, failures);
            let task = task.key(key).priority(number as i16);
            handles.push((number, in_time(queue.submit(task)).await.unwrap()));
        }
    }
    for (number, handle) in handles {
        assert_eq!(in_time(handle).await.unwrap(), number);
    }
    let mut expected = Vec::new();
    for number in 0..20 {
        for _ in 0..if number % 5 == 2 { 2 } else { 1 } {
            expected.push(format!("{number} begins"));
            expected.push(format!("{number} stops"));
        }
    }
    let notes = notes(&world);
    for key in ["a", "b", "c", "d"] {
        assert_eq!(notes[key], expected, "of {key}");
    }
    end(queue).await;
}

#[actix::test]
async fn a_key_that_waits_stops_neither_other_keys_nor_tasks_without_one() {
    let world = World::new();
    let queue = own(&world).await;
    let first = in_time(queue.submit(gated::task("first".into()).key("slow"))).await.unwrap();
    world.probe.until("first started", 1).await;
    let behind = (0..3_000).map(|number| double::task(number).key("slow").priority(99));
    let mut behind = in_time(queue.submit_all(behind)).await.unwrap();
    for number in 0..20 {
        let other = double::task(number).key(format!("key-{number}"));
        assert_eq!(in_time(in_time(queue.submit(other)).await.unwrap()).await.unwrap(), 2 * number);
        let plain = in_time(queue.submit(double::task(number))).await.unwrap();
        assert_eq!(in_time(plain).await.unwrap(), 2 * number);
    }
    assert_eq!(count(&queue, TaskStatus::NotStarted).await, 3_000);
    world.probe.open(1);
    in_time(first).await.unwrap();
    in_time(behind.pop().unwrap()).await.unwrap();
    for handle in behind {
        assert_eq!(handle.status().await.unwrap(), TaskStatus::Finished);
    }
    end(queue).await;
}

#[actix::test]
async fn one_that_waits_for_its_time_holds_its_key_until_it_has_run_or_is_cancelled() {
    let world = World::new();
    let queue = own(&world).await;
    let hour = Duration::from_secs(3_600);
    let first = in_time(queue.submit(double::task(1).key("k").delay(hour))).await.unwrap();
    let second = in_time(queue.submit(double::task(2).key("k").delay(hour))).await.unwrap();
    let third = in_time(queue.submit(double::task(3).key("k"))).await.unwrap();
    let record = in_time(queue.record(third.id())).await.unwrap();
    assert_eq!((record.status, record.key.as_deref()), (TaskStatus::NotStarted, Some("k")));
    // one in the middle leaves the order as it is
    assert_eq!(in_time(second.cancel()).await.unwrap(), CancelOutcome::Removed);
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    assert_eq!(third.status().await.unwrap(), TaskStatus::NotStarted);
    assert_eq!(in_time(first.cancel()).await.unwrap(), CancelOutcome::Removed);
    assert_eq!(in_time(third).await.unwrap(), 6);
    end(queue).await;
}

#[actix::test]
async fn a_crash_leaves_a_key_its_order_and_its_shard() {
    let world = World::new();
    let queue = own(&world).await;
    let mut ids = Vec::new();
    for number in 0..10 {
        let key = format!("key-{number}");
        let task = gated::task(format!("{key} first")).key(key.as_str());
        ids.push((in_time(queue.submit(task)).await.unwrap().id(), key.clone()));
        world.probe.until(&format!("{key} first started"), 1).await;
        let task = own::step::task(key.clone(), 2, 0).key(key.as_str());
        ids.push((in_time(queue.submit(task)).await.unwrap().id(), key));
    }
    drop(queue);
    // with other numbers of shards, slots with tasks stay where they are
    let builder = || world.builder().discover(own::PATH).shards(3);
    let queue = world.start_again(builder).await;
    for (id, key) in ids.clone() {
        let task = own::step::task(key.clone(), 3, 0).key(key.as_str());
        let last = in_time(queue.submit(task)).await.unwrap().id();
        assert_eq!(last.shard(), id.shard(), "{key}");
        assert_eq!(queue.status(last).await.unwrap(), TaskStatus::NotStarted);
    }
    world.probe.open(100);
    for (id, _) in ids {
        until_record(&queue, id, |record| record.status == TaskStatus::Finished).await;
    }
    for number in 0..10 {
        let key = format!("key-{number}");
        world.probe.until(&format!("{key}: 3 stops"), 2).await;
        let steps = ["2 begins", "2 stops", "3 begins", "3 stops", "3 begins", "3 stops"];
        assert_eq!(notes(&world)[&key], steps);
    }
    end(queue).await;
}

/// Once the first has run, what is next of that key stands before all others, by its priority.
#[actix::test]
async fn a_key_with_a_hundred_thousand_tasks_stops_no_other() {
    const MANY: u64 = 100_000;
    let world = World::new();
    let queue = own(&world).await;
    let first = in_time(queue.submit(gated::task("first".into()).key("slow"))).await.unwrap();
    world.probe.until("first started", 1).await;
    for from in (0..MANY).step_by(10_000) {
        let behind =
            (from..from + 10_000).map(|number| double::task(number).key("slow").priority(99));
        in_time(queue.submit_all(behind)).await.unwrap();
    }
    let others = async |stored: u64| {
        for number in 0..20 {
            let other = double::task(number).key(format!("key-{number}"));
            let other = in_time(queue.submit(other)).await.unwrap();
            assert_eq!(in_time(other).await.unwrap(), 2 * number);
        }
        assert!(count(&queue, TaskStatus::NotStarted).await <= stored);
    };
    others(MANY).await;
    world.probe.open(1);
    in_time(first).await.unwrap();
    others(MANY - 1).await;
    assert!(count(&queue, TaskStatus::NotStarted).await > MANY / 2, "it goes on meanwhile");
    end(queue).await;
}

#[actix::test]
async fn a_redriven_task_runs_behind_the_one_that_has_its_key() {
    let world = World::new();
    let queue = own(&world).await;
    let failing = own::step::task("k".into(), 1, 9).key("k").max_attempts(1);
    let failing = in_time(queue.submit(failing)).await.unwrap();
    until_status(&queue, failing.id(), TaskStatus::Failed).await;
    let gate = in_time(queue.submit(gated::task("gate".into()).key("k"))).await.unwrap();
    world.probe.until("gate started", 1).await;
    let last = in_time(queue.submit(own::step::task("k".into(), 3, 0).key("k"))).await.unwrap();
    in_time(queue.redrive(failing.id())).await.unwrap();
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    assert_eq!(queue.status(failing.id()).await.unwrap(), TaskStatus::NotStarted);
    world.probe.open(1);
    in_time(gate).await.unwrap();
    in_time(last).await.unwrap();
    let expected = ["1 begins", "1 stops", "1 begins", "1 stops", "3 begins", "3 stops"];
    assert_eq!(notes(&world)["k"], expected);
    end(queue).await;
}

#[actix::test]
async fn keys_that_cannot_be_are_refused() {
    let world = World::new();
    let queue = own(&world).await;
    for key in ["".to_owned(), "k".repeat(256)] {
        let refused = in_time(queue.submit(double::task(1).key(key))).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidOption { option: "key", .. }), "{refused}");
    }
    let keyed = |number: u64| Submit::new(double::task(number).key(format!("key-{number}")));
    let many = SubmitAll::new((0..50).map(keyed).collect());
    let refused = in_time(queue.dispatcher().send(many)).await.unwrap().unwrap_err();
    assert!(matches!(refused, Error::InvalidOption { option: "key", .. }), "{refused}");
    assert_eq!(count(&queue, TaskStatus::NotStarted).await, 0);
    end(queue).await;
}

#[actix::test]
async fn a_bulk_with_keys_of_several_shards_is_stored_shard_by_shard() {
    let world = World::new();
    let queue = own(&world).await;
    let many = (0..50).map(|number| {
        let task = double::task(number);
        if number % 5 == 0 { task } else { task.key(format!("key-{number}")) }
    });
    let handles = in_time(queue.submit_all(many)).await.unwrap();
    let shards: HashSet<_> = handles.iter().map(|handle| handle.id().shard()).collect();
    assert_eq!(shards.len(), 2);
    for (number, handle) in (0..).zip(handles) {
        assert_eq!(in_time(handle).await.unwrap(), 2 * number, "in the order of submission");
    }
    end(queue).await;
}

#[actix::test]
async fn one_bad_item_refuses_a_bulk_with_keys_of_several_shards_whole() {
    let world = World::new();
    let queue = own(&world).await;
    // some of them are in the one shard, some in the other
    for bad in 0..10 {
        let many = (0..10).map(|number| {
            let task = double::task(number).key(format!("key-{number}"));
            if number == bad { task.max_attempts(0) } else { task }
        });
        let refused = in_time(queue.submit_all(many)).await;
        let mistake = matches!(refused, Err(Error::InvalidOption { option: "max_attempts", .. }));
        assert!(mistake, "{refused:?}");
    }
    let counts = in_time(queue.counts()).await.unwrap();
    assert_eq!(counts.values().sum::<u64>(), 0);
    end(queue).await;
}
