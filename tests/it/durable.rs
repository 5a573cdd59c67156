//! Durable callbacks and named subscribers: at least once, whatever happens.

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{DeadReason, TaskRecord};

use crate::tasks::{double, fatal, heard, heard_late};
use crate::world::{Received, World, end, in_time, start, until_status};

mod own {
    use message_queue_sqlite::prelude::*;

    use crate::probe::Probe;

    pub(super) const PATH: &str = module_path!();

    /// Decodes what it is told, and looks at itself.
    #[callback(name = "own.reads", blocking)]
    pub(super) fn reads(
        result: TaskResult,
        ctx: TaskContext,
        probe: Data<Probe>,
    ) -> Result<(), Error> {
        assert_eq!(ctx.parent(), Some(result.id()));
        probe.note(format!("{} gave {}", result.name(), result.decode::<u64>()?));
        Ok(())
    }

    /// Wants to be told in an hour.
    #[callback(name = "own.later")]
    pub(super) async fn later(_: TaskResult) -> Result<(), TaskError> {
        Err(TaskError::retry_in(Duration::from_secs(3_600), "not now"))
    }
}

#[actix::test]
async fn a_durable_callback_gets_the_result_and_its_task_is_callbacked_after_it() {
    let world = World::new();
    let queue = start(world.builder().discover(own::PATH)).await;
    let handle = in_time(queue.submit(double::task(5).then(own::reads::callback()))).await.unwrap();
    until_status(&queue, handle.id(), TaskStatus::Callbacked).await;
    assert_eq!(world.probe.log(), ["double gave 10"]);
    end(queue).await;
}

#[actix::test]
async fn a_task_is_callbacking_until_its_last_callback_has_ended() {
    let world = World::new();
    let queue = world.start().await;
    let task = double::task(5).then(heard::callback()).then(heard_late::callback());
    let id = in_time(queue.submit(task)).await.unwrap().id();
    world.probe.until(&format!("hearing {id}"), 1).await;
    world.probe.until(&format!("heard {id} Finished"), 1).await;
    // what the first callback did is stored
    let list = ListTasks { name: Some("heard".into()), ..ListTasks::default() };
    let first = in_time(queue.list(list)).await.unwrap().tasks.remove(0);
    until_status(&queue, first.id, TaskStatus::Finished).await;
    assert_eq!(queue.status(id).await.unwrap(), TaskStatus::Callbacking);
    world.probe.open(1);
    until_status(&queue, id, TaskStatus::Callbacked).await;
    assert_eq!(world.probe.count(&format!("heard {id} Finished")), 2);
    end(queue).await;
}

#[actix::test]
async fn durable_callbacks_hear_of_failure_and_cancellation() {
    let world = World::new();
    let queue = world.start().await;
    let failed = fatal::task("no".into()).then(heard::callback());
    let failed = in_time(queue.submit(failed)).await.unwrap();
    let cancelled = double::task(1).delay(Duration::from_secs(3_600)).then(heard::callback());
    let cancelled = in_time(queue.submit(cancelled)).await.unwrap();
    in_time(cancelled.cancel()).await.unwrap();
    for (id, outcome) in [(failed.id(), Outcome::Failed), (cancelled.id(), Outcome::Cancelled)] {
        let record = until_status(&queue, id, TaskStatus::Callbacked).await;
        assert_eq!(record.outcome, Some(outcome));
        assert_eq!(world.probe.count(&format!("heard {id} {outcome:?}")), 1);
    }
    end(queue).await;
}

#[actix::test]
async fn a_cancelled_callback_leaves_the_delivery_dead_and_the_outcome_as_it_was() {
    let world = World::new();
    let queue = start(world.builder().discover(own::PATH)).await;
    let handle = in_time(queue.submit(double::task(1).then(own::later::callback()))).await.unwrap();
    let callback = until_failed_once(&queue, "own.later").await;
    assert_eq!(in_time(queue.cancel(callback)).await.unwrap(), CancelOutcome::Removed);
    let record = queue.record(handle.id()).await.unwrap();
    assert_eq!(record.delivery, Delivery::Dead(DeadReason::CallbackFailed));
    assert_eq!((record.outcome, record.status), (Some(Outcome::Finished), TaskStatus::Finished));
    end(queue).await;
}

#[actix::test]
async fn a_named_subscriber_gets_every_result_but_no_callbacks_end() {
    let world = World::new();
    let mut mailbox = Received::new();
    let builder = world.builder().subscriber("manifest", mailbox.recipient());
    let queue = start(builder).await;
    let plain = in_time(queue.submit(double::task(1))).await.unwrap().id();
    let both = double::task(2).then(heard::callback());
    let both = in_time(queue.submit(both)).await.unwrap().id();
    let failed = in_time(queue.submit(fatal::task("no".into()))).await.unwrap().id();
    for id in [plain, both, failed] {
        until_status(&queue, id, TaskStatus::Callbacked).await;
    }
    let mut got: Vec<TaskId> = mailbox.rest().iter().map(TaskResult::id).collect();
    got.sort_unstable();
    assert_eq!(got, [plain, both, failed]);
    end(queue).await;
}

#[actix::test]
async fn a_named_subscriber_hears_after_a_restart_of_what_ended_before() {
    let world = World::new();
    let gone = Received::new();
    let recipient = gone.recipient();
    gone.close().await;
    let queue = start(world.builder().subscriber("manifest", recipient)).await;
    let id = in_time(queue.submit(double::task(21))).await.unwrap().id();
    // its first delivery fails: nobody is there
    until_failed_once(&queue, "manifest").await;
    assert_eq!(queue.status(id).await.unwrap(), TaskStatus::Callbacking);
    end(queue).await;

    let mut mailbox = Received::new();
    let queue = start(world.builder().subscriber("manifest", mailbox.recipient())).await;
    let result = mailbox.next().await;
    assert_eq!((result.id(), result.decode::<u64>().unwrap()), (id, 42));
    until_status(&queue, id, TaskStatus::Callbacked).await;
    end(queue).await;
}

#[actix::test]
async fn deliveries_wait_while_their_subscriber_is_not_declared() {
    let world = World::new();
    let gone = Received::new();
    let recipient = gone.recipient();
    gone.close().await;
    let queue = start(world.builder().subscriber("manifest", recipient)).await;
    let id = in_time(queue.submit(double::task(1))).await.unwrap().id();
    let delivery = until_failed_once(&queue, "manifest").await;
    drop(queue);

    // this process doesn't declare it: what waits goes on waiting, and nothing new is added
    let queue = world.start_again(|| world.builder()).await;
    let handle = in_time(queue.submit(double::task(2))).await.unwrap();
    let second = handle.id();
    in_time(handle).await.unwrap();
    assert_eq!(queue.record(second).await.unwrap().delivery, Delivery::None);
    assert_eq!(queue.status(id).await.unwrap(), TaskStatus::Callbacking);
    assert_eq!(queue.status(delivery).await.unwrap(), TaskStatus::NotStarted);
    end(queue).await;

    let mut mailbox = Received::new();
    let queue = start(world.builder().subscriber("manifest", mailbox.recipient())).await;
    assert_eq!(mailbox.next().await.id(), id);
    until_status(&queue, id, TaskStatus::Callbacked).await;
    assert!(mailbox.rest().is_empty());
    end(queue).await;
}

/// Waits until the one task of this name has failed once and waits for its retry.
async fn until_failed_once(queue: &Queue, name: &str) -> TaskId {
    let list = ListTasks { name: Some(name.into()), ..ListTasks::default() };
    in_time(async {
        loop {
            let page = queue.list(list.clone()).await.unwrap();
            let failed = |record: &&TaskRecord| {
                record.counters.failures > 0 && record.status == TaskStatus::NotStarted
            };
            if let Some(record) = page.tasks.iter().find(failed) {
                return record.id;
            }
        }
    })
    .await
}
