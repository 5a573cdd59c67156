//! What a full queue does to those who submit: wait, wait for a while, or be told at once.

use std::collections::HashSet;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{Submission, SubmitStream, TaskHandle};
use tokio::task::JoinHandle;

use crate::tasks::{double, gated, heard, log};
use crate::world::{Captured, World, count, end, in_time, start, until_count};

const HOUR: Duration = Duration::from_secs(3_600);

/// A queue that takes this many tasks that haven't started, and runs one at a time.
async fn start_with_room_for(world: &World, tasks: usize) -> Queue {
    let mut settings = world.narrow();
    settings.limits.ready_tasks = Some(tasks);
    start(world.builder_with(settings)).await
}

/// Submits a task that stands at the gate, and waits until it runs.
async fn hold(world: &World, queue: &Queue) -> TaskHandle<gated::Task> {
    let held = in_time(queue.submit(gated::task("gate".into()))).await.unwrap();
    world.probe.until("gate started", 1).await;
    held
}

/// Submits, and lets others run until it waits.
async fn begin(queue: &Queue, number: u64) -> JoinHandle<Result<TaskHandle<double::Task>, Error>> {
    let queue = queue.clone();
    let submitting = actix::spawn(async move { queue.submit(double::task(number)).await });
    tokio::task::yield_now().await;
    submitting
}

fn is_busy<T>(answer: Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Busy { retry_after })
        if (Duration::from_millis(1)..=Duration::from_secs(10)).contains(&retry_after))
}

#[actix::test]
async fn a_handle_does_what_it_was_told_while_too_many_tasks_wait_for_their_start() {
    let world = World::new();
    let queue = start_with_room_for(&world, 2).await;
    let gate = hold(&world, &queue).await;
    for number in 0..2 {
        in_time(queue.submit(double::task(number))).await.unwrap();
    }
    let waiting = begin(&queue, 2).await;
    assert!(!waiting.is_finished());

    let rejecting = queue.with_backpressure(Backpressure::Reject);
    let patient = queue.with_backpressure(Backpressure::WaitFor(Duration::from_millis(1)));
    for handle in [&rejecting, &patient] {
        assert!(is_busy(in_time(handle.submit(double::task(3))).await));
        assert!(is_busy(in_time(handle.submit_all([double::task(3), double::task(4)])).await));
        let raw = || Submit::raw("double", Codec::Json, *b"3");
        assert!(is_busy(in_time(handle.submit_raw(raw())).await));
        assert!(is_busy(in_time(handle.clone().dispatcher().send(raw())).await.unwrap()));
        let mut stream = handle.submit_stream([double::task(3)]);
        assert!(is_busy(in_time(stream.next()).await.unwrap()));
    }
    // five times two, one of the calls with two tasks
    assert_eq!(queue.refused(), 12);
    assert_eq!(count(&queue, TaskStatus::NotStarted).await, 2, "nothing refused is stored");

    world.probe.open(1);
    in_time(gate).await.unwrap();
    assert_eq!(in_time(in_time(waiting).await.unwrap().unwrap()).await.unwrap(), 4);
    until_count(&queue, TaskStatus::Finished, 4).await;
    assert_eq!(
        in_time(in_time(rejecting.submit(double::task(5))).await.unwrap()).await.unwrap(),
        10
    );
    assert_eq!(queue.refused(), 12);
    end(queue).await;
}

#[actix::test]
async fn who_stops_waiting_for_room_stores_nothing_and_holds_up_nobody() {
    let world = World::new();
    let queue = start_with_room_for(&world, 1).await;
    let gate = hold(&world, &queue).await;
    in_time(queue.submit(double::task(1))).await.unwrap();
    let dropped = begin(&queue, 2).await;
    let waiting = begin(&queue, 3).await;
    dropped.abort();
    world.probe.open(1);
    in_time(gate).await.unwrap();
    in_time(waiting).await.unwrap().unwrap();
    until_count(&queue, TaskStatus::Finished, 3).await;
    assert_eq!(count(&queue, TaskStatus::NotStarted).await, 0);
    end(queue).await;
}

#[actix::test]
async fn tasks_that_wait_for_their_time_count_also_after_a_restart() {
    let world = World::new();
    let queue = start_with_room_for(&world, 2).await;
    let later: Vec<_> = (0..2).map(|number| double::task(number).delay(HOUR)).collect();
    let later = in_time(queue.submit_all(later)).await.unwrap();
    end(queue).await;

    let queue = start_with_room_for(&world, 2).await;
    let rejecting = queue.with_backpressure(Backpressure::Reject);
    assert!(is_busy(in_time(rejecting.submit(double::task(2))).await));
    in_time(queue.cancel(later[0].id())).await.unwrap();
    in_time(in_time(rejecting.submit(double::task(2))).await.unwrap()).await.unwrap();
    end(queue).await;
}

/// The limit bounds the files, so whatever waits in them counts.
#[actix::test]
async fn tasks_of_a_paused_queue_and_those_that_a_key_holds_count_and_stop_those_of_others() {
    let world = World::new();
    let mut settings = world.settings();
    settings.limits.ready_tasks = Some(2);
    let queue = start(world.builder_with(settings)).await;
    let rejecting = queue.with_backpressure(Backpressure::Reject);
    in_time(queue.pause_queue("mail")).await.unwrap();
    let first = in_time(queue.submit(gated::task("gate".into()).key("one"))).await.unwrap();
    world.probe.until("gate started", 1).await;
    let mail = in_time(queue.submit(double::task(1).queue("mail"))).await.unwrap();
    let held = in_time(queue.submit(double::task(2).key("one"))).await.unwrap();
    assert!(is_busy(in_time(rejecting.submit(double::task(3))).await));

    world.probe.open(1);
    in_time(first).await.unwrap();
    assert_eq!(in_time(held).await.unwrap(), 4);
    let more = in_time(queue.submit(double::task(4).queue("mail"))).await.unwrap();
    assert!(is_busy(in_time(rejecting.submit(double::task(5))).await));

    in_time(queue.resume_queue("mail")).await.unwrap();
    assert_eq!((in_time(mail).await.unwrap(), in_time(more).await.unwrap()), (2, 8));
    in_time(in_time(queue.submit(double::task(6))).await.unwrap()).await.unwrap();
    end(queue).await;
}

#[actix::test]
async fn a_bulk_over_the_limit_of_ready_tasks_goes_when_nothing_waits() {
    let world = World::new();
    let queue = start_with_room_for(&world, 2).await;
    let rejecting = queue.with_backpressure(Backpressure::Reject);
    let one = in_time(rejecting.submit(double::task(1).delay(HOUR))).await.unwrap();
    let bulk = || (0..10).map(double::task);
    assert!(is_busy(in_time(rejecting.submit_all(bulk())).await));
    in_time(one.cancel()).await.unwrap();
    for handle in in_time(rejecting.submit_all(bulk())).await.unwrap() {
        in_time(handle).await.unwrap();
    }
    end(queue).await;
}

/// What the rest of a stream gives, by chunk.
async fn outputs<I>(mut stream: SubmitStream<double::Task, I>) -> Vec<Vec<u64>>
where
    I: Iterator<Item = Submission<double::Task>>,
{
    let mut outputs = Vec::new();
    while let Some(chunk) = in_time(stream.next()).await {
        let mut of_chunk = Vec::new();
        for handle in chunk.unwrap() {
            of_chunk.push(in_time(handle).await.unwrap());
        }
        outputs.push(of_chunk);
    }
    outputs
}

#[actix::test]
async fn a_stream_keeps_the_chunk_that_there_was_no_room_for() {
    let world = World::new();
    let queue = start_with_room_for(&world, 10).await;
    let later = (0..9).map(|number| double::task(number).delay(HOUR));
    let later = in_time(queue.submit_all(later)).await.unwrap();
    let tasks = || (0..5).map(double::task);
    let mut refused = queue.with_backpressure(Backpressure::Reject).submit_stream(tasks()).chunk(2);
    assert!(is_busy(in_time(refused.next()).await.unwrap()));
    assert!(is_busy(in_time(refused.next()).await.unwrap()));
    let mut dropped = queue.submit_stream(tasks()).chunk(2);
    let waiting = tokio::time::timeout(Duration::from_millis(1), dropped.next());
    waiting.await.expect_err("there is no room");
    for handle in later {
        in_time(handle.cancel()).await.unwrap();
    }
    for stream in [refused, dropped] {
        assert_eq!(outputs(stream).await, [vec![0, 2], vec![4, 6], vec![8]]);
    }
    end(queue).await;
}

/// There is room for the tasks of each shard, and not for those of both: a part used to be stored.
#[actix::test]
async fn a_bulk_with_keys_of_several_shards_is_refused_whole() {
    let world = World::new();
    let mut settings = world.narrow();
    settings.limits.ready_tasks = Some(40);
    let queue = start(world.builder_with(settings).shards(2)).await;
    let one = in_time(queue.submit(double::task(0).delay(HOUR))).await.unwrap();
    let bulk = || {
        let tasks = (0..50).map(|number| (number, double::task(number).delay(HOUR)));
        tasks.map(|(number, task)| task.key(format!("key-{number}")))
    };
    let rejecting = queue.with_backpressure(Backpressure::Reject);
    let patient = queue.with_backpressure(Backpressure::WaitFor(Duration::from_millis(1)));
    for handle in [&rejecting, &patient] {
        assert!(is_busy(in_time(handle.submit_all(bulk())).await));
    }
    assert_eq!(queue.refused(), 100);
    assert_eq!(count(&queue, TaskStatus::NotStarted).await, 1, "nothing refused is stored");
    in_time(one.cancel()).await.unwrap();
    let handles = in_time(rejecting.submit_all(bulk())).await.unwrap();
    let shards: HashSet<_> = handles.iter().map(|handle| handle.id().shard()).collect();
    assert_eq!((handles.len(), shards.len()), (50, 2));
    end(queue).await;
}

#[actix::test]
async fn durable_callbacks_are_never_refused() {
    let world = World::new();
    let queue = start_with_room_for(&world, 1).await;
    let reporting = gated::task("gate".into()).then(heard::callback());
    let reporting = in_time(queue.submit(reporting)).await.unwrap();
    world.probe.until("gate started", 1).await;
    in_time(queue.submit(double::task(1).delay(HOUR))).await.unwrap();
    let rejecting = queue.with_backpressure(Backpressure::Reject);
    assert!(is_busy(in_time(rejecting.submit(double::task(1))).await));
    world.probe.open(1);
    in_time(reporting).await.unwrap();
    until_count(&queue, TaskStatus::Callbacked, 1).await;
    end(queue).await;
}

#[actix::test]
async fn what_is_refused_of_messages_that_nobody_waits_for_is_said_in_the_log() {
    let logged = Captured::warnings();
    let world = World::new();
    let queue = start_with_room_for(&world, 1).await;
    in_time(queue.submit(log::task("later".into()).delay(HOUR))).await.unwrap();
    let dispatcher = queue.dispatcher();
    for number in 0..1_000 {
        dispatcher.do_send(Submit::new(double::task(number)));
    }
    let bulk = (0..7).map(|number| Submit::new(double::task(number))).collect();
    dispatcher.do_send(SubmitAll::new(bulk));
    // behind all of them
    in_time(dispatcher.send(SubmitAll::new(Vec::new()))).await.unwrap().unwrap();
    assert_eq!(queue.refused(), 1_007);
    end(queue).await;
    drop(dispatcher);
    // the first by itself, the others together, at the latest when the Dispatcher ends
    let said = |text: &str| {
        let lines = text.lines().filter(|line| line.contains("nobody waits for"));
        let tasks =
            lines.filter_map(|line| line.split("tasks=").nth(1)?.split(' ').next()?.parse().ok());
        tasks.collect::<Vec<usize>>()
    };
    in_time(async {
        while said(&logged.text()).iter().sum::<usize>() < 1_007 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let said = said(&logged.text());
    assert!(said.len() <= 20, "{said:?}");
}
