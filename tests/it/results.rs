//! How results come back, to those who live in memory.

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{DeadReason, TaskRecord};
use tokio::sync::mpsc;

use crate::tasks::{add, double, fatal, gated, log, unwritable};
use crate::world::{
    LIMIT, Received, World, count, end, in_time, start, until_count, until_record, until_status,
};

#[actix::test]
async fn a_handle_is_awaited_waited_for_and_made_from_an_id() {
    let world = World::new();
    let queue = world.start().await;
    let handle = in_time(queue.submit(gated::task("one".into()))).await.unwrap();
    let id = handle.id();
    let waited = in_time(handle.wait(Duration::from_millis(1))).await;
    assert!(matches!(waited, Err(Error::WaitTimedOut { id: of, .. }) if of == id), "{waited:?}");
    world.probe.open(1);
    assert_eq!(in_time(handle.wait(LIMIT)).await.unwrap(), "one");
    assert_eq!(in_time(handle.clone()).await.unwrap(), "one");
    assert_eq!(in_time(queue.handle::<gated::Task>(id)).await.unwrap(), "one");
    let result = in_time(handle.result()).await.unwrap();
    assert_eq!((result.id(), result.name(), result.is_finished()), (id, "gated", true));
    // who only waits with a handle is no target
    let record = handle.record().await.unwrap();
    assert_eq!((record.status, record.delivery), (TaskStatus::Finished, Delivery::None));
    end(queue).await;
}

/// What its panic was made of panicked again where nobody expected it, and every result that came
/// after it in its batch was lost.
#[actix::test]
async fn a_closure_whose_panic_panics_when_it_is_dropped_hurts_no_other() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("in a Drop");
            }
        }
    }
    let world = World::new();
    let queue = world.start().await;
    let (sender, mut told) = mpsc::unbounded_channel();
    let task = double::task(3)
        .on_result(|_| std::panic::panic_any(Bomb))
        .on_result(move |result| sender.send(result.id()).unwrap());
    let id = in_time(queue.submit(task)).await.unwrap().id();
    assert_eq!(in_time(told.recv()).await, Some(id), "it shares a batch with the one that panics");
    until_status(&queue, id, TaskStatus::Finished).await;
    let delivery = in_time(queue.record(id)).await.unwrap().delivery;
    assert_eq!(delivery, Delivery::Dead(DeadReason::SubscriberPanicked));
    end(queue).await;
}

#[actix::test]
async fn many_wait_for_one_task() {
    let world = World::new();
    let queue = world.start().await;
    let handle = in_time(queue.submit(gated::task("one".into()))).await.unwrap();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let handle = handle.clone();
            actix::spawn(async move { handle.await })
        })
        .collect();
    world.probe.until("one started", 1).await;
    world.probe.open(1);
    for waiting in waiting {
        assert_eq!(in_time(waiting).await.unwrap().unwrap(), "one");
    }
    end(queue).await;
}

#[actix::test]
async fn a_handle_to_what_never_was_or_of_another_type_says_so() {
    let world = World::new();
    let queue = world.start().await;
    for id in ["0-999999999", "77-1"] {
        let id: TaskId = id.parse().unwrap();
        let unheard = in_time(queue.handle::<double::Task>(id)).await;
        assert!(matches!(unheard, Err(Error::NotFound { id: of }) if of == id), "{unheard:?}");
        assert!(matches!(queue.record(id).await, Err(Error::NotFound { .. })));
    }
    let text = in_time(queue.submit(log::task("text".into()))).await.unwrap();
    let wrong = queue.handle::<gated::Task>(text.id());
    let result = in_time(text.result()).await.unwrap();
    let wrong = in_time(wrong).await;
    assert!(matches!(wrong, Err(Error::OtherTask { .. })), "{wrong:?}");
    let wrong = result.decode::<String>();
    assert!(matches!(wrong, Err(Error::Decode { .. })), "{wrong:?}");
    end(queue).await;
}

#[actix::test]
async fn closures_and_mailboxes_of_one_submission_all_hear_of_it() {
    let world = World::new();
    let queue = world.start().await;
    let (sender, mut told) = mpsc::unbounded_channel();
    let mut mailboxes = [Received::new(), Received::new()];
    let task = double::task(3)
        .reply_to(mailboxes[0].recipient())
        .on_result(move |result| sender.send(result.id()).unwrap())
        .reply_to(mailboxes[1].recipient());
    let id = in_time(queue.submit(task)).await.unwrap().id();
    assert_eq!(in_time(told.recv()).await, Some(id));
    for mailbox in &mut mailboxes {
        assert_eq!(mailbox.next().await.decode::<u64>().unwrap(), 6);
    }
    until_status(&queue, id, TaskStatus::Callbacked).await;
    end(queue).await;
}

#[actix::test]
async fn a_subscription_hears_of_its_definition_only_and_one_to_all_of_everything() {
    let world = World::new();
    let queue = world.start().await;
    let (mut doubles, mut all) = (Received::new(), Received::new());
    let doubled = in_time(queue.subscribe::<double::Task>(doubles.recipient())).await.unwrap();
    let everything = in_time(queue.subscribe_all(all.recipient())).await.unwrap();
    in_time(queue.submit(add::task(1, 2))).await.unwrap();
    in_time(queue.submit(double::task(1))).await.unwrap();
    in_time(queue.submit(fatal::task("no".into()))).await.unwrap();
    let mut names: Vec<String> =
        all.take(3).await.iter().map(|result| result.name().to_string()).collect();
    names.sort();
    assert_eq!(names, ["add", "double", "fatal"]);
    assert_eq!(doubles.next().await.name(), "double");
    until_count(&queue, TaskStatus::Callbacked, 3).await;
    assert!(doubles.rest().is_empty());
    drop((doubled, everything));
    end(queue).await;
}

#[actix::test]
async fn a_subscription_ends_by_unsubscribing_and_by_dropping_its_guard() {
    let world = World::new();
    let queue = world.start().await;
    let dispatcher = queue.dispatcher();
    let (mut by_message, mut by_guard) = (Received::new(), Received::new());
    let subscribe = Subscribe::to::<double::Task>(by_message.recipient());
    let id: SubscriptionId = in_time(dispatcher.send(subscribe)).await.unwrap().unwrap();
    let guard = in_time(queue.subscribe::<double::Task>(by_guard.recipient())).await.unwrap();
    in_time(queue.submit(double::task(1))).await.unwrap();
    by_message.next().await;
    by_guard.next().await;

    assert!(in_time(dispatcher.send(Unsubscribe(id))).await.unwrap());
    assert!(!in_time(dispatcher.send(Unsubscribe(id))).await.unwrap());
    drop(guard);
    let handle = in_time(queue.submit(double::task(2))).await.unwrap();
    let second = handle.id();
    in_time(handle).await.unwrap();
    // nobody asked for this one
    assert_eq!(queue.record(second).await.unwrap().delivery, Delivery::None);
    assert!(by_message.rest().is_empty() && by_guard.rest().is_empty());
    end(queue).await;
}

#[actix::test]
async fn subscribing_to_what_is_not_registered_is_an_error() {
    let world = World::new();
    let queue = start(Queue::builder().settings(world.settings())).await;
    let mailbox = Received::new();
    let refused = in_time(queue.subscribe::<double::Task>(mailbox.recipient())).await;
    assert!(matches!(refused, Err(Error::UnknownTask { .. })), "{refused:?}");
    end(queue).await;
}

#[actix::test]
async fn a_closed_mailbox_ends_its_subscription_and_leaves_the_delivery_dead() {
    let world = World::new();
    let queue = world.start().await;
    let mailbox = Received::new();
    let subscribe = Subscribe::to::<double::Task>(mailbox.recipient());
    let id = in_time(queue.dispatcher().send(subscribe)).await.unwrap().unwrap();
    let reply_to = mailbox.recipient();
    mailbox.close().await;

    let gone = |record: &TaskRecord| record.delivery == Delivery::Dead(DeadReason::SubscriberGone);
    let first = in_time(queue.submit(double::task(1))).await.unwrap();
    let record = until_record(&queue, first.id(), gone).await;
    assert_eq!((record.outcome, record.status), (Some(Outcome::Finished), TaskStatus::Finished));
    assert_eq!(in_time(first).await.unwrap(), 2);
    // the subscription is over
    assert!(!in_time(queue.dispatcher().send(Unsubscribe(id))).await.unwrap());
    let second = in_time(queue.submit(double::task(2))).await.unwrap();
    let id = second.id();
    in_time(second).await.unwrap();
    assert_eq!(queue.record(id).await.unwrap().delivery, Delivery::None);

    let replied = in_time(queue.submit(double::task(3).reply_to(reply_to))).await.unwrap();
    until_record(&queue, replied.id(), gone).await;
    end(queue).await;
}

#[actix::test]
async fn a_mailbox_gets_no_more_at_once_than_its_window_and_loses_nothing_within_its_backlog() {
    let world = World::new();
    let mut settings = world.settings();
    settings.delivery.window = 2;
    settings.delivery.backlog = 1_000;
    let queue = start(world.builder_with(settings)).await;
    let mut mailbox = Received::new();
    let guard = in_time(queue.subscribe::<double::Task>(mailbox.recipient())).await.unwrap();
    in_time(queue.submit_all((0..300).map(double::task))).await.unwrap();
    let mut got: Vec<u64> =
        mailbox.take(300).await.iter().map(|result| result.decode().unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, (0..300).map(|number| number * 2).collect::<Vec<u64>>());
    until_count(&queue, TaskStatus::Callbacked, 300).await;
    drop(guard);
    end(queue).await;
}

#[actix::test]
async fn results_wait_in_the_file_when_too_many_are_on_their_way() {
    let world = World::new();
    let mut settings = world.settings();
    settings.delivery.in_flight = 3;
    let queue = start(world.builder_with(settings)).await;
    let mut mailbox = Received::new();
    let guard = in_time(queue.subscribe_all(mailbox.recipient())).await.unwrap();
    let handles = in_time(queue.submit_all((0..100).map(double::task))).await.unwrap();
    let mut ids: Vec<TaskId> = mailbox.take(100).await.iter().map(TaskResult::id).collect();
    ids.sort_unstable();
    assert_eq!(ids, handles.iter().map(TaskHandle::id).collect::<Vec<_>>());
    until_count(&queue, TaskStatus::Callbacked, 100).await;
    assert!(mailbox.rest().is_empty());
    drop(guard);
    end(queue).await;
}

#[actix::test]
async fn a_mailbox_that_is_too_slow_loses_what_exceeds_its_backlog_and_the_record_says_so() {
    let world = World::new();
    let mut settings = world.settings();
    settings.delivery.window = 1;
    settings.delivery.backlog = 0;
    let queue = start(world.builder_with(settings)).await;
    let mailbox = Received::new();
    let guard = in_time(queue.subscribe::<double::Task>(mailbox.recipient())).await.unwrap();
    in_time(queue.submit_all((0..50).map(double::task))).await.unwrap();
    // one batch of results, one place: all the others are dropped, or wait for nothing
    let full = |record: &TaskRecord| record.delivery == Delivery::Dead(DeadReason::SubscriberFull);
    in_time(async {
        loop {
            let list = ListTasks { limit: 1_000, ..ListTasks::default() };
            let page = queue.list(list).await.unwrap();
            let over = |record: &TaskRecord| {
                matches!(record.delivery, Delivery::Dead(_) | Delivery::Callbacked)
            };
            if page.tasks.iter().filter(|record| over(record)).count() == 50 {
                assert!(page.tasks.iter().any(full));
                break;
            }
        }
    })
    .await;
    drop(guard);
    end(queue).await;
}

#[actix::test]
async fn a_result_in_json_has_the_python_packages_keys() {
    let world = World::new();
    let queue = world.start().await;
    let mut mailbox = Received::new();
    let guard = in_time(queue.subscribe_all(mailbox.recipient())).await.unwrap();
    let id = in_time(queue.submit(double::task(21))).await.unwrap().id();
    let json = mailbox.next().await.to_json();
    let mut keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["end_time", "result", "start_time", "status", "task_id", "task_name"]);
    assert_eq!(json["task_id"], id.to_string());
    assert_eq!((&json["task_name"], &json["result"]), (&"double".into(), &42.into()));
    assert_eq!(json["status"], TaskStatus::Callbacking.code());
    let seconds = |key: &str| json[key].as_f64().unwrap();
    assert!(seconds("start_time") > 1e9 && seconds("end_time") >= seconds("start_time"));

    in_time(queue.submit(fatal::task("no luck".into()))).await.unwrap();
    let json = mailbox.next().await.to_json();
    assert_eq!(json["result"], "fatal error: no luck");
    in_time(queue.submit(unwritable::task())).await.unwrap();
    assert!(mailbox.next().await.to_json()["result"].as_str().unwrap().contains("encode"));
    drop(guard);
    end(queue).await;
}

#[actix::test]
async fn a_record_tells_the_whole_story() {
    let world = World::new();
    let queue = world.start().await;
    let task = add::task(1, 2).priority(7);
    let handle = in_time(queue.submit(task)).await.unwrap();
    let id = handle.id();
    in_time(handle).await.unwrap();
    let record = queue.record(id).await.unwrap();
    assert_eq!((record.id, &*record.name, record.priority), (id, "add", 7));
    assert_eq!((record.outcome, record.due_at), (Some(Outcome::Finished), None));
    let payload = record.payload.unwrap();
    assert_eq!((payload.codec, &*payload.bytes), (Codec::Json, &b"[1,2]"[..]));
    assert_eq!(&*record.output.unwrap().bytes, b"3");
    assert!(record.submitted_at <= record.started_at.unwrap());
    assert!(record.started_at <= record.ended_at);
    assert_eq!((record.parent, record.error), (None, None));
    end(queue).await;
}

#[actix::test]
async fn tasks_are_listed_in_pages_by_status_and_name_over_all_shards() {
    let world = World::new();
    let queue = start(world.builder().shards(3)).await;
    let mut expected = Vec::new();
    for number in 0..30 {
        let handle = in_time(queue.submit(double::task(number))).await.unwrap();
        expected.push(handle.id());
        in_time(handle).await.unwrap();
        in_time(in_time(queue.submit(log::task("other".into()))).await.unwrap()).await.unwrap();
    }
    let failed = in_time(queue.submit(fatal::task("no".into()))).await.unwrap();
    let failed_id = failed.id();
    in_time(failed).await.unwrap_err();

    let mut list = ListTasks { name: Some("double".into()), limit: 7, ..ListTasks::default() };
    let mut listed = Vec::new();
    loop {
        let page = in_time(queue.list(list.clone())).await.unwrap();
        assert!(page.tasks.len() <= 7);
        listed.extend(page.tasks.iter().map(|record| record.id));
        let Some(next) = page.next else { break };
        list.after = Some(next);
    }
    expected.sort_unstable();
    assert_eq!(listed, expected);

    let list = ListTasks { status: Some(TaskStatus::Failed), ..ListTasks::default() };
    let page = in_time(queue.list(list)).await.unwrap();
    assert_eq!(page.tasks.iter().map(|record| record.id).collect::<Vec<_>>(), [failed_id]);
    let refused = in_time(queue.list(ListTasks { limit: 1_001, ..ListTasks::default() })).await;
    assert!(matches!(refused, Err(Error::InvalidOption { option: "limit", .. })), "{refused:?}");
    assert_eq!(count(&queue, TaskStatus::Finished).await, 60);
    assert_eq!(count(&queue, TaskStatus::Failed).await, 1);
    end(queue).await;
}
