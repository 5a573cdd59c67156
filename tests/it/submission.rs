//! How tasks get in: typed, raw, as a message, in bulk, as a stream; and in which order they run.

use std::time::SystemTime;

use message_queue_sqlite::Submission;
use message_queue_sqlite::prelude::*;

use crate::tasks::{add, double, gated, log};
use crate::world::{
    Received, World, count, end, in_time, standing_clock, start, until_count, until_status,
};

#[actix::test]
async fn a_typed_submission_runs_and_its_handle_gives_the_output() {
    let world = World::new();
    let queue = world.start().await;
    let handle = in_time(queue.submit(add::task(-4, 46))).await.unwrap();
    assert_eq!(in_time(handle).await.unwrap(), 42);
    end(queue).await;
}

#[actix::test]
async fn raw_json_is_one_bare_argument_or_an_array_of_several() {
    let world = World::new();
    let queue = world.start().await;
    for (name, json, expected) in
        [("double", "21", "42"), ("add", "[2, 3]", "5"), ("concat", "[\"a\", \"b\"]", "\"ab\"")]
    {
        let raw = Submit::raw(name, Codec::Json, json.as_bytes());
        let id = in_time(queue.submit_raw(raw)).await.unwrap();
        let record = until_status(&queue, id, TaskStatus::Finished).await;
        let output = record.output.unwrap();
        // encoded as the arguments were, whatever the definition prefers
        assert_eq!((output.codec, &*output.bytes), (Codec::Json, expected.as_bytes()), "{name}");
    }
    end(queue).await;
}

#[actix::test]
async fn raw_bincode_is_read_like_typed_arguments() {
    let world = World::new();
    let queue = world.start().await;
    // a length and the text's bytes, twice
    let raw = Submit::raw("concat", Codec::Bincode, [1, b'x', 2, b'y', b'z']);
    let id = in_time(queue.submit_raw(raw)).await.unwrap();
    let text = in_time(queue.handle::<crate::tasks::concat::Task>(id)).await.unwrap();
    assert_eq!(text, "xyz");
    end(queue).await;
}

#[actix::test]
async fn the_dispatcher_takes_submissions_as_messages() {
    let world = World::new();
    let queue = world.start().await;
    let dispatcher: Addr<Dispatcher> = queue.dispatcher();
    let mut mailbox = Received::new();
    let submit = Submit::new(double::task(8)).reply_to(mailbox.recipient());
    let id = in_time(dispatcher.send(submit)).await.unwrap().unwrap();
    let result = mailbox.next().await;
    assert_eq!((result.id(), result.decode::<u64>().unwrap()), (id, 16));

    let all = vec![Submit::new(double::task(1)), Submit::new(log::task("mixed".into()))];
    let ids = in_time(dispatcher.send(SubmitAll::new(all))).await.unwrap().unwrap();
    assert_eq!(ids.len(), 2);
    world.probe.until("mixed", 1).await;
    let record = in_time(dispatcher.send(GetTask(ids[0]))).await.unwrap().unwrap();
    assert_eq!(&*record.name, "double");
    end(queue).await;
}

#[actix::test]
async fn a_submission_that_nobody_waits_for_runs() {
    let world = World::new();
    let queue = world.start().await;
    queue.dispatcher().do_send(Submit::new(log::task("unattended".into())));
    world.probe.until("unattended", 1).await;
    end(queue).await;
}

#[actix::test]
async fn a_bulk_submission_gives_handles_in_input_order_and_uses_one_shard() {
    let world = World::new();
    let queue = start(world.builder().shards(3)).await;
    let handles = in_time(queue.submit_all((0..5_000).map(double::task))).await.unwrap();
    assert!(handles.windows(2).all(|pair| {
        pair[0].id() < pair[1].id() && pair[0].id().shard() == pair[1].id().shard()
    }));
    for (number, handle) in (0..).zip(handles) {
        assert_eq!(in_time(handle).await.unwrap(), number * 2);
    }
    end(queue).await;
}

#[actix::test]
async fn an_empty_bulk_submission_is_fine() {
    let world = World::new();
    let queue = world.start().await;
    let none: Vec<Submission<double::Task>> = Vec::new();
    assert!(in_time(queue.submit_all(none)).await.unwrap().is_empty());
    let none = in_time(queue.dispatcher().send(SubmitAll::new(Vec::new()))).await;
    assert_eq!(none.unwrap().unwrap(), []);
    end(queue).await;
}

#[actix::test]
async fn a_bulk_submission_over_the_limit_is_refused_whole() {
    let world = World::new();
    let mut settings = world.settings();
    settings.limits.bulk = 10;
    let queue = start(world.builder_with(settings)).await;
    let refused = in_time(queue.submit_all((0..11).map(double::task))).await;
    assert!(matches!(refused, Err(Error::InvalidOption { .. })), "{refused:?}");
    let accepted = in_time(queue.submit_all((0..10).map(double::task))).await.unwrap();
    assert_eq!(accepted.len(), 10);
    for handle in accepted {
        in_time(handle).await.unwrap();
    }
    assert_eq!(count(&queue, TaskStatus::Finished).await, 10);
    end(queue).await;
}

/// Each used to hold a part of the permits while it waited for the rest.
#[actix::test]
async fn bulk_submissions_at_the_same_time_do_not_wait_for_each_other_for_ever() {
    let world = World::new();
    let mut settings = world.settings();
    settings.limits.pending_submissions = 1_000;
    settings.limits.bulk = 1_000;
    let queue = start(world.builder_with(settings)).await;
    let bulks: Vec<_> = (0..8)
        .map(|_| {
            let queue = queue.clone();
            actix::spawn(async move { queue.submit_all((0..900).map(double::task)).await })
        })
        .collect();
    for bulk in bulks {
        assert_eq!(in_time(bulk).await.unwrap().unwrap().len(), 900);
    }
    end(queue).await;
}

#[actix::test]
async fn one_bad_item_refuses_a_bulk_submission_whole() {
    let world = World::new();
    let queue = world.start().await;
    let mixed = (0..10).map(|number| match number {
        7 => double::task(number).max_attempts(0),
        _ => double::task(number),
    });
    let refused = in_time(queue.submit_all(mixed)).await;
    assert!(
        matches!(refused, Err(Error::InvalidOption { option: "max_attempts", .. })),
        "{refused:?}"
    );
    let counts = in_time(queue.counts()).await.unwrap();
    assert_eq!(counts.values().sum::<u64>(), 0);
    end(queue).await;
}

#[actix::test]
async fn a_stream_is_submitted_in_chunks_each_with_its_result() {
    let world = World::new();
    let queue = world.start().await;
    let tasks = (0..25u64).map(|number| match number {
        12 => double::task(number).timeout(Duration::ZERO),
        _ => double::task(number),
    });
    let mut stream = queue.submit_stream(tasks).chunk(10);
    let mut chunks = Vec::new();
    while let Some(chunk) = in_time(stream.next()).await {
        chunks.push(chunk);
    }
    let lengths: Vec<_> = chunks.iter().map(|chunk| chunk.as_ref().map(Vec::len).ok()).collect();
    assert_eq!(lengths, [Some(10), None, Some(5)]);
    for handle in chunks.into_iter().flatten().flatten() {
        in_time(handle).await.unwrap();
    }
    assert_eq!(count(&queue, TaskStatus::Finished).await, 15);
    end(queue).await;
}

#[actix::test]
async fn more_than_a_batch_of_single_submissions_at_once_all_arrive() {
    let world = World::new();
    let mut settings = world.settings();
    settings.limits.batch = 7;
    settings.limits.window = 16;
    settings.limits.pending_submissions = 64;
    settings.limits.bulk = 64;
    let queue = start(world.builder_with(settings)).await;
    let submitting: Vec<_> = (0..500u64)
        .map(|number| {
            let queue = queue.clone();
            actix::spawn(async move { queue.submit(double::task(number)).await })
        })
        .collect();
    for (number, submitted) in (0..).zip(submitting) {
        let handle = in_time(submitted).await.unwrap().unwrap();
        assert_eq!(in_time(handle).await.unwrap(), number * 2);
    }
    end(queue).await;
}

/// Sends all of them at once, as messages: some are stored, and how many; the others are refused.
async fn stored_of(queue: &Queue, tasks: impl Iterator<Item = Submit>) -> u64 {
    let dispatcher = queue.dispatcher();
    let sent: Vec<_> = tasks.map(|task| dispatcher.send(task)).collect();
    let (mut stored, mut busy) = (0, 0);
    for request in sent {
        match in_time(request).await.unwrap() {
            Ok(_) => stored += 1,
            Err(Error::Busy { .. }) => busy += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(stored >= 1 && busy >= 1, "{stored} stored, {busy} refused");
    stored
}

/// Memory must not grow with what producers bring, however large each of it is.
#[actix::test]
async fn large_submissions_wait_for_room_or_are_refused_as_busy() {
    let world = World::new();
    let mut settings = world.settings();
    settings.limits.pending_bytes = 1 << 20;
    let queue = start(world.builder_with(settings)).await;
    let large = || log::task("x".repeat(700 << 10));
    let stored = stored_of(&queue, (0..20).map(|_| Submit::new(large()))).await;
    // these wait, the last for more room than there is
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            let task = large();
            actix::spawn(async move { queue.submit(task).await.map(|handle| handle.id()) })
        })
        .collect();
    for submitted in waiting {
        in_time(submitted).await.unwrap().unwrap();
    }
    assert_eq!(in_time(queue.submit_all((0..8).map(|_| large()))).await.unwrap().len(), 8);
    until_count(&queue, TaskStatus::Finished, stored + 12).await;
    end(queue).await;
}

#[actix::test]
async fn a_direct_message_over_the_limit_of_pending_submissions_is_refused_as_busy() {
    let world = World::new();
    let mut settings = world.settings();
    settings.limits.pending_submissions = 1;
    settings.limits.bulk = 1;
    let queue = start(world.builder_with(settings)).await;
    let stored = stored_of(&queue, (0..200).map(|n| Submit::new(double::task(n)))).await;
    let counts = in_time(queue.counts()).await.unwrap();
    assert_eq!(counts.values().sum::<u64>(), stored);
    end(queue).await;
}

#[actix::test]
async fn a_higher_priority_goes_first_and_equals_in_order_of_submission() {
    let world = World::new();
    let queue = world.start_narrow().await;
    let gate = in_time(queue.submit(gated::task("gate".into()))).await.unwrap();
    world.probe.until("gate started", 1).await;
    for (line, priority) in
        [("low", -5), ("normal 1", 0), ("high", 9), ("normal 2", 0), ("highest", i16::MAX)]
    {
        let task = log::task(line.into()).priority(priority);
        in_time(queue.submit(task)).await.unwrap();
    }
    world.probe.open(1);
    in_time(gate).await.unwrap();
    world.probe.until("low", 1).await;
    let ran: Vec<String> =
        world.probe.log().into_iter().filter(|line| !line.starts_with("gate")).collect();
    assert_eq!(ran, ["highest", "high", "normal 1", "normal 2", "low"]);
    end(queue).await;
}

#[actix::test]
async fn a_delayed_task_starts_neither_early_nor_never() {
    let world = World::new();
    let (clock, now) = standing_clock();
    let queue = start(world.builder().clock(clock.clone())).await;
    let hour = Duration::from_secs(3_600);
    let delayed = in_time(queue.submit(log::task("late".into()).delay(hour))).await.unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(now.as_micros() as u64) + 2 * hour;
    let later = in_time(queue.submit(log::task("later".into()).at(at))).await.unwrap();
    assert_eq!(queue.record(delayed.id()).await.unwrap().due_at, Some(now.saturating_add(hour)));

    clock.advance(hour - Duration::from_micros(1));
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    assert_eq!(delayed.status().await.unwrap(), TaskStatus::NotStarted);

    clock.advance(Duration::from_micros(1));
    // a standing clock wakes nobody; any submission does
    in_time(in_time(queue.submit(double::task(2))).await.unwrap()).await.unwrap();
    in_time(delayed).await.unwrap();
    assert_eq!(later.status().await.unwrap(), TaskStatus::NotStarted);

    clock.advance(hour);
    in_time(in_time(queue.submit(double::task(3))).await.unwrap()).await.unwrap();
    in_time(later).await.unwrap();
    assert_eq!(world.probe.log(), ["late", "later"]);
    end(queue).await;
}

#[actix::test]
async fn a_delay_passes_by_itself() {
    let world = World::new();
    let queue = world.start().await;
    let delay = Duration::from_millis(40);
    let handle = in_time(queue.submit(double::task(5).delay(delay))).await.unwrap();
    let id = handle.id();
    assert_eq!(in_time(handle).await.unwrap(), 10);
    let record = queue.record(id).await.unwrap();
    assert!(record.started_at.unwrap().since(record.submitted_at) >= delay, "{record:?}");
    end(queue).await;
}

#[actix::test]
async fn a_time_in_the_past_means_now() {
    let world = World::new();
    let (clock, _) = standing_clock();
    let queue = start(world.builder().clock(clock)).await;
    for past in [SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH - Duration::from_secs(1 << 40)] {
        let handle = in_time(queue.submit(double::task(2).at(past))).await.unwrap();
        assert_eq!(in_time(handle).await.unwrap(), 4);
    }
    end(queue).await;
}

#[actix::test]
async fn submitting_again_under_the_same_id_stores_and_runs_it_once() {
    let world = World::new();
    let queue = world.start().await;
    let first = in_time(queue.submit(log::task("once".into()))).await.unwrap();
    let id = first.id();
    in_time(first).await.unwrap();
    let again = in_time(queue.submit(log::task("once".into()).with_id(id))).await.unwrap();
    assert_eq!(again.id(), id);
    in_time(again).await.unwrap();
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    assert_eq!(world.probe.log(), ["once"]);
    let counts = in_time(queue.counts()).await.unwrap();
    assert_eq!(counts.values().sum::<u64>(), 2);
    // an id that was never given out is no way in
    let unheard: TaskId = "0-999999999".parse().unwrap();
    let refused = in_time(queue.submit(log::task("once".into()).with_id(unheard))).await;
    assert!(refused.is_err());
    end(queue).await;
}

#[test]
fn a_queue_works_in_a_plain_tokio_program() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let worker = queue.clone();
        let doubled = tokio::spawn(async move {
            let handle = worker.submit(double::task(21)).await?;
            handle.await
        });
        assert_eq!(in_time(doubled).await.unwrap().unwrap(), 42);
        end(queue).await;
    });
}
