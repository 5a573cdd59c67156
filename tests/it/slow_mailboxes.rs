//! Mailboxes and closures that don't keep up: they slow no other, hold a bounded part of the results, and what
//! they miss can be seen.

use std::sync::Arc;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{DeadReason, TaskRecord};
use tokio::sync::Semaphore;

use crate::tasks::{concat, double};
use crate::world::{Captured, Received, World, end, in_time, start, until_count};

/// An actor that takes a result and keeps it until the gate opens.
struct Stuck(Arc<Semaphore>);

impl Actor for Stuck {
    type Context = Context<Self>;
}

impl actix::Handler<TaskResult> for Stuck {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: TaskResult, _: &mut Context<Self>) -> Self::Result {
        let gate = self.0.clone();
        Box::pin(async move { gate.acquire().await.unwrap().forget() })
    }
}

/// A mailbox that is stuck until the gate opens.
fn stuck() -> (Arc<Semaphore>, Recipient<TaskResult>) {
    let gate = Arc::new(Semaphore::new(0));
    (gate.clone(), Stuck(gate).start().recipient())
}

/// A queue that keeps ten results for a mailbox, more than it has on the way to all.
async fn start_short(world: &World) -> Queue {
    let mut settings = world.settings();
    settings.delivery.in_flight = 4;
    settings.delivery.window = 2;
    settings.delivery.backlog = 8;
    start(world.builder_with(settings)).await
}

fn missed(record: &TaskRecord) -> bool {
    record.delivery == Delivery::Dead(DeadReason::SubscriberFull)
}

/// Reads all tasks again and again until so many of them are as they should be.
async fn until_so_many(queue: &Queue, tasks: usize, are: impl Fn(&TaskRecord) -> bool) {
    in_time(async {
        loop {
            let list = ListTasks { limit: 1_000, ..ListTasks::default() };
            let page = queue.list(list).await.unwrap();
            if page.tasks.iter().filter(|record| are(record)).count() == tasks {
                return;
            }
        }
    })
    .await;
}

#[actix::test]
async fn a_stuck_mailbox_holds_up_no_other() {
    let logged = Captured::warnings();
    let world = World::new();
    let queue = start_short(&world).await;
    let (gate, stuck) = stuck();
    let guard = in_time(queue.subscribe::<double::Task>(stuck)).await.unwrap();
    let mut other = Received::new();
    for number in 0..100 {
        let task = double::task(number).reply_to(other.recipient());
        in_time(queue.submit(task)).await.unwrap();
        assert_eq!(other.next().await.decode::<u64>().unwrap(), number * 2);
    }
    until_so_many(&queue, 90, missed).await;
    assert!(logged.text().contains("results are dropped for mailboxes that are full"));
    gate.add_permits(10);
    until_count(&queue, TaskStatus::Callbacked, 10).await;
    drop(guard);
    end(queue).await;
}

#[actix::test]
async fn a_stuck_mailbox_that_is_named_by_submissions_holds_up_no_other() {
    let world = World::new();
    let queue = start_short(&world).await;
    let (gate, stuck) = stuck();
    let to_stuck = (0..50).map(|number| double::task(number).reply_to(stuck.clone()));
    in_time(queue.submit_all(to_stuck)).await.unwrap();
    let mut other = Received::new();
    let to_other = (0..8).map(|number| double::task(number).reply_to(other.recipient()));
    in_time(queue.submit_all(to_other)).await.unwrap();
    other.take(8).await;
    until_so_many(&queue, 40, missed).await;
    gate.add_permits(10);
    until_count(&queue, TaskStatus::Callbacked, 18).await;
    end(queue).await;
}

#[actix::test]
async fn a_slow_closure_holds_up_no_mailbox_and_a_bounded_number_of_closures() {
    let world = World::new();
    let queue = start_short(&world).await;
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (begun, mut began) = tokio::sync::mpsc::unbounded_channel();
    let waits = double::task(0).on_result(move |_| {
        begun.send(()).unwrap();
        gate.recv().unwrap();
    });
    in_time(queue.submit(waits)).await.unwrap();
    in_time(began.recv()).await.unwrap();
    let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let mut other = Received::new();
    for number in 1..50 {
        let called = called.clone();
        let task = double::task(number).on_result(move |_| called.send(number).unwrap());
        in_time(queue.submit(task.reply_to(other.recipient()))).await.unwrap();
        assert_eq!(other.next().await.decode::<u64>().unwrap(), number * 2);
    }
    until_so_many(&queue, 40, missed).await;
    open.send(()).unwrap();
    until_count(&queue, TaskStatus::Callbacked, 10).await;
    for number in 1..10 {
        assert_eq!(in_time(calls.recv()).await, Some(number), "in the order of their results");
    }
    end(queue).await;
}

#[actix::test]
async fn a_stuck_mailbox_keeps_so_many_bytes_and_a_larger_result_alone() {
    let world = World::new();
    let mut settings = world.settings();
    settings.delivery.mailbox_bytes = 10_000;
    let queue = start(world.builder_with(settings)).await;
    let (gate, stuck) = stuck();
    let guard = in_time(queue.subscribe::<concat::Task>(stuck)).await.unwrap();
    let large = |size| concat::task("x".repeat(size), String::new());
    let run =
        async |size| in_time(in_time(queue.submit(large(size))).await.unwrap()).await.unwrap();
    for size in [4_000, 4_000, 4_000] {
        run(size).await;
    }
    until_so_many(&queue, 1, missed).await;
    gate.add_permits(2);
    until_count(&queue, TaskStatus::Callbacked, 2).await;
    // the mailbox is empty: one that is too large goes, and none beside it
    run(40_000).await;
    run(1).await;
    until_so_many(&queue, 2, missed).await;
    gate.add_permits(1);
    until_count(&queue, TaskStatus::Callbacked, 3).await;
    drop(guard);
    end(queue).await;
}

#[actix::test]
async fn results_that_are_too_large_to_be_on_their_way_together_wait_in_the_file() {
    let world = World::new();
    let mut settings = world.settings();
    settings.delivery.in_flight = 2;
    settings.delivery.in_flight_bytes = 1 << 20;
    let queue = start(world.builder_with(settings)).await;
    let mut mailbox = Received::new();
    let guard = in_time(queue.subscribe::<concat::Task>(mailbox.recipient())).await.unwrap();
    let large = (0..40).map(|_| concat::task("x".repeat(500_000), String::new()));
    in_time(queue.submit_all(large)).await.unwrap();
    mailbox.take(40).await;
    until_count(&queue, TaskStatus::Callbacked, 40).await;
    drop(guard);
    end(queue).await;
}
