//! A number of shards that follows the load.

use std::cell::{Cell, RefCell};

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::settings::Durability;
use message_queue_sqlite::{QueueBuilder, ShardCounts, ShardId};

use crate::tasks::{double, gated, log};
use crate::world::{Captured, World, end, in_time, start, until_count};

/// How many submissions wait at a time.
const LANES: u64 = 32;

/// A queue that soon adds a shard: each submission waits for a commit of its own, and none may wait.
/// The shard is retired when it has been idle for as short as may be.
fn eager(world: &World) -> QueueBuilder {
    let mut settings = world.settings();
    settings.storage.durability = Durability::Full;
    settings.limits.batch = 1;
    settings.shards.target_wait = Duration::from_micros(10);
    settings.shards.retire_after = Duration::from_millis(100);
    world.builder_with(settings).shards_between(1, 2)
}

/// Submits without a break until it is told to stop, or the queue ends. Returns the tasks' numbers
/// and ids.
async fn load(queue: &Queue, stop: impl Fn(TaskId) -> bool) -> Vec<(u64, TaskId)> {
    let (stored, next, enough) = (RefCell::new(Vec::new()), Cell::new(0), Cell::new(false));
    let lane = async || {
        while !enough.get() {
            let number = next.replace(next.get() + 1);
            match queue.submit(double::task(number)).await {
                Ok(handle) => {
                    stored.borrow_mut().push((number, handle.id()));
                    enough.set(enough.get() || stop(handle.id()));
                }
                Err(Error::ShuttingDown) => return,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let lanes: Vec<_> = (0..LANES).map(|_| Box::pin(lane())).collect();
    in_time(all(lanes)).await;
    stored.into_inner()
}

fn is_second(id: TaskId) -> bool {
    id.shard() == ShardId(1)
}

/// Awaits all of them together.
async fn all(mut lanes: Vec<std::pin::Pin<Box<impl Future<Output = ()>>>>) {
    std::future::poll_fn(|context| {
        lanes.retain_mut(|lane| lane.as_mut().poll(context).is_pending());
        if lanes.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[track_caller]
fn until_counts(queue: &Queue, active: usize, retired: usize) -> impl Future<Output = ()> {
    let wanted = move |counts: ShardCounts| (counts.active, counts.retired) == (active, retired);
    in_time(async move {
        while !wanted(queue.shard_counts()) {
            tokio::task::yield_now().await;
        }
    })
}

#[actix::test]
async fn a_shard_is_added_under_load_retired_when_idle_and_taken_back() {
    let world = World::new();
    let queue = start(eager(&world)).await;
    until_counts(&queue, 1, 0).await;
    let ids = load(&queue, is_second).await;
    assert_eq!(queue.shard_counts().total(), 2);
    until_count(&queue, TaskStatus::Finished, ids.len() as u64).await;
    until_counts(&queue, 1, 1).await;
    for number in 0..20 {
        let id = in_time(queue.submit(double::task(number))).await.unwrap().id();
        assert_eq!(id.shard(), ShardId(0), "a retired shard takes no new tasks");
    }
    until_counts(&queue, 1, 1).await;
    end(queue).await;
    // a queue that has just started has no reason to wait with a trial
    let queue = start(eager(&world)).await;
    until_counts(&queue, 1, 1).await;
    let more = load(&queue, |_| queue.shard_counts().active == 2).await;
    assert_eq!(queue.shard_counts().total(), 2, "the one that was there");
    until_count(&queue, TaskStatus::Finished, (ids.len() + 20 + more.len()) as u64).await;
    end(queue).await;
    let files = std::fs::read_dir(world.dir()).unwrap().map(|entry| entry.unwrap().file_name());
    let shards = files.filter(|name| name.to_string_lossy().ends_with(".db")).count();
    assert_eq!(shards, 2);
}

#[actix::test]
async fn ordering_keys_follow_the_number_of_shards_and_keep_their_order() {
    const KEYS: u64 = 40;
    let world = World::new();
    let queue = start(eager(&world)).await;
    let (moved, keyed) = (Cell::new(false), Cell::new(0));
    let keys = async {
        while !moved.get() {
            let number = keyed.replace(keyed.get() + 1);
            let key = format!("key-{}", number % KEYS);
            let task = log::task(format!("{key} {number}")).key(key);
            let handle = in_time(queue.submit(task)).await.unwrap();
            moved.set(is_second(handle.id()));
        }
    };
    let (others, ()) = tokio::join!(load(&queue, |_| moved.get()), keys);
    until_count(&queue, TaskStatus::Finished, others.len() as u64 + keyed.get()).await;
    // back to one shard, and the keys with it
    until_counts(&queue, 1, 1).await;
    let mut stays = true;
    while stays {
        let number = keyed.replace(keyed.get() + 1);
        let key = format!("key-{}", number % KEYS);
        let task = log::task(format!("{key} {number}")).key(key);
        stays = is_second(in_time(queue.submit(task)).await.unwrap().id());
    }
    until_count(&queue, TaskStatus::Finished, others.len() as u64 + keyed.get()).await;
    let ran = world.probe.log();
    for key in 0..KEYS {
        let key = format!("key-{key} ");
        let of_key = ran.iter().filter_map(|line| line.strip_prefix(&key)?.parse::<u64>().ok());
        assert!(of_key.is_sorted(), "of {key}: {ran:?}");
    }
    assert_eq!(ran.len() as u64, keyed.get());
    end(queue).await;
}

#[actix::test]
async fn a_retired_shard_answers_for_its_tasks() {
    let world = World::new();
    let queue = start(eager(&world)).await;
    let ids = load(&queue, is_second).await;
    until_count(&queue, TaskStatus::Finished, ids.len() as u64).await;
    until_counts(&queue, 1, 1).await;
    let (number, id) = ids.iter().copied().find(|(_, id)| is_second(*id)).unwrap();
    assert_eq!(in_time(queue.handle::<double::Task>(id)).await.unwrap(), number * 2);
    assert_eq!(queue.record(id).await.unwrap().outcome, Some(Outcome::Finished));
    let cancelled = queue.cancel(id).await.unwrap();
    assert_eq!(cancelled, CancelOutcome::AlreadyFinished(TaskStatus::Finished));
    let again = in_time(queue.submit(double::task(number).with_id(id))).await.unwrap();
    assert_eq!(again.id(), id, "it is stored already");
    let mut list = ListTasks { limit: 1_000, ..ListTasks::default() };
    let mut listed = Vec::new();
    loop {
        let page = queue.list(list.clone()).await.unwrap();
        listed.extend(page.tasks.into_iter().map(|task| task.id));
        match page.next {
            Some(next) => list.after = Some(next),
            None => break,
        }
    }
    let mut sorted: Vec<_> = ids.iter().map(|(_, id)| *id).collect();
    sorted.sort_unstable();
    assert_eq!(listed, sorted);
    let backup = world.place.path().join("backup");
    in_time(queue.backup(&backup)).await.unwrap();
    end(queue).await;
    let restored = world.place.path().join("restored");
    Queue::restore(&backup, &restored).unwrap();
    let queue = start(world.builder().dir(&restored)).await;
    assert_eq!(in_time(queue.handle::<double::Task>(id)).await.unwrap(), number * 2);
    end(queue).await;
}

#[actix::test]
async fn a_shard_that_there_is_not_is_not_waited_for() {
    let world = World::new();
    let queue = start(eager(&world)).await;
    let id = "1-1".parse::<TaskId>().unwrap();
    let result = in_time(queue.handle::<double::Task>(id).result()).await;
    assert!(matches!(result, Err(Error::NotFound { .. })), "{result:?}");
    let record = queue.record(id).await;
    assert!(matches!(record, Err(Error::NotFound { .. })), "{record:?}");
    let stored = in_time(queue.submit(double::task(1).with_id(id))).await;
    assert!(matches!(stored, Err(Error::NotFound { .. })), "{stored:?}");
    end(queue).await;
}

#[actix::test]
async fn files_that_the_settings_no_longer_ask_for_are_opened_and_drained() {
    let world = World::new();
    let queue = start(world.builder_with(world.narrow()).shards(3)).await;
    in_time(queue.submit(gated::task("gate".into()))).await.unwrap();
    world.probe.until("gate started", 1).await;
    let mut ids = Vec::new();
    let has = |ids: &[TaskId], shard| ids.iter().any(|id| id.shard() == ShardId(shard));
    while !(0..3).all(|shard| has(&ids, shard)) {
        ids.push(in_time(queue.submit(double::task(ids.len() as u64))).await.unwrap().id());
    }
    drop(queue);
    world.probe.open(1);
    for (fixed, retired) in [(true, 2), (false, 2)] {
        let builder = || match fixed {
            true => world.builder().shards(1),
            false => world.builder().shards_between(1, 2),
        };
        let queue = world.start_again(builder).await;
        let counts = queue.shard_counts();
        assert_eq!((counts.active, counts.retired), (1, retired));
        for (number, id) in (0..).zip(&ids) {
            assert_eq!(in_time(queue.handle::<double::Task>(*id)).await.unwrap(), number * 2);
        }
        for number in 0..10 {
            let id = in_time(queue.submit(double::task(number))).await.unwrap().id();
            assert_eq!(id.shard(), ShardId(0));
        }
        end(queue).await;
    }
}

#[actix::test]
async fn a_shard_that_cannot_be_added_is_reported_and_in_nobodys_way() {
    let world = World::new();
    let queue = start(eager(&world)).await;
    let captured = Captured::warnings();
    let obstacle = world.dir().join("shard-001.db");
    std::fs::create_dir(&obstacle).unwrap();
    let warned = || {
        let text = captured.text();
        text.lines().any(|line| line.contains("can be added") && line.contains("shard-001.db"))
    };
    let ids = load(&queue, |_| warned()).await;
    assert_eq!(queue.shard_counts().total(), 1);
    until_count(&queue, TaskStatus::Finished, ids.len() as u64).await;
    // it is no part of a backup
    in_time(queue.backup(world.place.path().join("backup"))).await.unwrap();
    end(queue).await;
    std::fs::remove_dir(&obstacle).unwrap();
    let queue = start(eager(&world)).await;
    assert_eq!(queue.shard_counts().total(), 1, "nobody needs it now");
    end(queue).await;
    let queue = start(world.builder().shards(2)).await;
    assert_eq!(queue.shard_counts().active, 2);
    end(queue).await;
}

#[actix::test]
async fn a_shutdown_while_a_shard_is_added_ends_in_order() {
    let world = World::new();
    let queue = start(eager(&world)).await;
    let manifest = world.dir().join("manifest.json");
    let adding = || std::fs::read_to_string(&manifest).unwrap().contains("shard-001.db");
    let ended = RefCell::new(None);
    let stored = load(&queue, |_| {
        if adding() && ended.borrow().is_none() {
            let queue = queue.clone();
            let shutdown = async move { queue.shutdown(crate::world::LIMIT).await };
            *ended.borrow_mut() = Some(actix::spawn(shutdown));
        }
        false
    })
    .await;
    let report = in_time(ended.into_inner().unwrap()).await.unwrap().unwrap();
    assert_eq!((report.unclosed, report.left_behind), (Vec::new(), Vec::new()));
    // the directory is free, and all that was acknowledged is there
    let queue = start(world.builder()).await;
    for (number, id) in stored {
        assert_eq!(in_time(queue.handle::<double::Task>(id)).await.unwrap(), number * 2);
    }
    end(queue).await;
}
