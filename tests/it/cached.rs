//! Arguments that live in memory only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use message_queue_sqlite::TaskHandle;
use message_queue_sqlite::prelude::*;

use crate::tasks::{double, gated, heard};
use crate::world::{Received, World, end, in_time, start, until_record, until_status};

const HOUR: Duration = Duration::from_secs(3_600);

mod own {
    use super::*;
    use crate::probe::Probe;

    pub(super) const PATH: &str = module_path!();

    /// Counts how many of it are alive.
    pub(super) struct Counted(pub(super) Arc<AtomicUsize>);

    impl Counted {
        pub(super) fn new(alive: &Arc<AtomicUsize>) -> Self {
            alive.fetch_add(1, Ordering::SeqCst);
            Counted(alive.clone())
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// What it is given can be neither cloned nor encoded.
    #[task(name = "own.shares", use_cache, backoff = "0ms..1ms")]
    pub(super) async fn shares(
        value: Cached<Counted>,
        times: u32,
        ctx: TaskContext,
    ) -> Result<usize, TaskError> {
        if ctx.failures() < times {
            return Err(TaskError::retry("not yet"));
        }
        Ok(value.0.load(Ordering::SeqCst))
    }

    #[task(name = "own.takes", use_cache, backoff = "0ms..1ms")]
    pub(super) async fn takes(value: Cached<String>, fail: bool) -> Result<String, TaskError> {
        let taken = value.take().map_err(|_| TaskError::fatal("somebody else has it"))?;
        if fail { Err(TaskError::retry("after taking it")) } else { Ok(taken) }
    }

    #[task(name = "own.clones", use_cache, blocking)]
    pub(super) fn clones(text: String, numbers: Vec<u8>) -> Result<String, TaskError> {
        Ok(format!("{text} {numbers:?}"))
    }

    #[task(name = "own.waits", use_cache)]
    pub(super) async fn waits(value: Cached<Counted>, probe: Data<Probe>) -> Result<(), TaskError> {
        probe.note("waits started");
        probe.pass().await;
        drop(value);
        Ok(())
    }
}

#[actix::test]
async fn a_cached_value_is_shared_between_attempts_and_dropped_at_the_end() {
    let world = World::new();
    let queue = start(world.builder().discover(own::PATH)).await;
    let alive = Arc::new(AtomicUsize::new(0));
    let task = own::shares::task(own::Counted::new(&alive), 2);
    let handle = in_time(queue.submit(task)).await.unwrap();
    let id = handle.id();
    assert_eq!(in_time(handle).await.unwrap(), 1);
    in_time(async {
        while alive.load(Ordering::SeqCst) > 0 {
            queue.status(id).await.unwrap();
        }
    })
    .await;
    let record = queue.record(id).await.unwrap();
    assert_eq!((record.counters.failures, record.payload), (2, None));
    end(queue).await;
}

#[actix::test]
async fn arguments_of_a_cached_definition_are_cloned_for_each_attempt() {
    let world = World::new();
    let queue = start(world.builder().discover(own::PATH)).await;
    let handle = in_time(queue.submit(own::clones::task("a".into(), vec![1, 2]))).await.unwrap();
    assert_eq!(in_time(handle).await.unwrap(), "a [1, 2]");
    end(queue).await;
}

#[actix::test]
async fn a_value_that_was_taken_is_lost_to_the_retry() {
    let world = World::new();
    let queue = start(world.builder().discover(own::PATH)).await;
    let taken = in_time(queue.submit(own::takes::task("gold".to_string(), false))).await.unwrap();
    assert_eq!(in_time(taken).await.unwrap(), "gold");
    let lost = in_time(queue.submit(own::takes::task("gold".to_string(), true))).await.unwrap();
    let id = lost.id();
    let lost = in_time(lost).await;
    assert!(
        matches!(lost, Err(Error::TaskFailed { kind: FailureKind::LostArguments, .. })),
        "{lost:?}"
    );
    assert_eq!(queue.record(id).await.unwrap().counters.failures, 2);
    end(queue).await;
}

#[actix::test]
async fn a_task_whose_arguments_a_restart_lost_fails_and_notifies() {
    let world = World::new();
    let builder = || world.builder_with(world.narrow()).discover(own::PATH);
    let queue = start(builder()).await;
    let alive = Arc::new(AtomicUsize::new(0));
    let gate = in_time(queue.submit(gated::task("gate".into()))).await.unwrap();
    world.probe.until("gate started", 1).await;
    let task = own::shares::task(own::Counted::new(&alive), 0).then(heard::callback());
    let id = in_time(queue.submit(task)).await.unwrap().id();
    drop((gate, queue));

    let queue = world.start_again(builder).await;
    assert_eq!(alive.load(Ordering::SeqCst), 0, "they went with their queue");
    world.probe.open(1);
    let record = until_status(&queue, id, TaskStatus::Callbacked).await;
    assert_eq!(record.outcome, Some(Outcome::Failed));
    assert_eq!(record.error.unwrap().kind, FailureKind::LostArguments);
    assert_eq!(world.probe.count(&format!("heard {id} Failed")), 1);
    end(queue).await;
}

#[actix::test]
async fn a_running_task_with_lost_arguments_fails_after_a_restart() {
    let world = World::new();
    let builder = || world.builder().discover(own::PATH);
    let queue = start(builder()).await;
    let alive = Arc::new(AtomicUsize::new(0));
    let handle = in_time(queue.submit(own::waits::task(own::Counted::new(&alive)))).await.unwrap();
    let id = handle.id();
    world.probe.until("waits started", 1).await;
    drop((handle, queue));
    let queue = world.start_again(builder).await;
    let record = until_record(&queue, id, |record| record.status.is_ended()).await;
    assert_eq!(record.error.unwrap().kind, FailureKind::LostArguments);
    assert_eq!(record.counters.crashes, 1);
    end(queue).await;
}

#[actix::test]
async fn the_arguments_of_a_cancelled_task_are_freed() {
    let world = World::new();
    let queue = start(world.builder().discover(own::PATH)).await;
    let alive = Arc::new(AtomicUsize::new(0));
    let task = own::shares::task(own::Counted::new(&alive), 0).delay(Duration::from_secs(3_600));
    let handle = in_time(queue.submit(task)).await.unwrap();
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    assert_eq!(in_time(handle.cancel()).await.unwrap(), CancelOutcome::Removed);
    in_time(async {
        while alive.load(Ordering::SeqCst) > 0 {
            handle.status().await.unwrap();
        }
    })
    .await;
    end(queue).await;
}

#[actix::test]
async fn a_refused_submission_keeps_no_arguments() {
    let world = World::new();
    let queue = start(world.builder().discover(own::PATH)).await;
    let alive = Arc::new(AtomicUsize::new(0));
    let task = own::shares::task(own::Counted::new(&alive), 0).max_attempts(0);
    in_time(queue.submit(task)).await.unwrap_err();
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    let raw = Submit::raw("own.shares", Codec::Json, *b"[1, 0]");
    let refused = in_time(queue.submit_raw(raw)).await;
    assert!(matches!(refused, Err(Error::InvalidOption { .. })), "{refused:?}");
    end(queue).await;
}

/// A queue that keeps the arguments of three tasks, and as many tasks that wait for their time.
async fn full(world: &World) -> (Queue, Arc<AtomicUsize>, Vec<TaskHandle<own::shares::Task>>) {
    let mut settings = world.settings();
    settings.limits.cached_arguments = 3;
    let queue = start(world.builder_with(settings).discover(own::PATH)).await;
    let alive = Arc::new(AtomicUsize::new(0));
    let later = || own::shares::task(own::Counted::new(&alive), 0).delay(HOUR);
    let kept = in_time(queue.submit_all((0..3).map(|_| later()))).await.unwrap();
    (queue, alive, kept)
}

/// Refused as busy, and not to come back before a task may have ended.
fn is_busy_for_long<T>(answer: &Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Busy { retry_after })
        if (Duration::from_millis(50)..=Duration::from_secs(10)).contains(retry_after))
}

#[actix::test]
async fn the_cache_is_bounded() {
    let world = World::new();
    let (queue, alive, kept) = full(&world).await;
    // by what is measured of others there would be room in a moment
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    let one_more = || own::shares::task(own::Counted::new(&alive), 0);
    let rejecting = queue.with_backpressure(Backpressure::Reject);
    let patient = queue.with_backpressure(Backpressure::WaitFor(Duration::from_millis(1)));
    for handle in [&rejecting, &patient] {
        let refused = in_time(handle.submit(one_more())).await;
        assert!(is_busy_for_long(&refused), "{refused:?}");
        let bulk = [one_more(), one_more()];
        let refused = in_time(handle.submit_all(bulk)).await;
        assert!(is_busy_for_long(&refused), "{refused:?}");
    }
    let bare = in_time(queue.dispatcher().send(Submit::new(one_more()))).await.unwrap();
    assert!(is_busy_for_long(&bare), "{bare:?}");
    assert_eq!((alive.load(Ordering::SeqCst), queue.refused()), (3, 7));
    // tasks with stored arguments are no concern of it
    in_time(in_time(rejecting.submit(double::task(1))).await.unwrap()).await.unwrap();
    // room again
    in_time(kept[0].cancel()).await.unwrap();
    let mut mailbox = Received::new();
    in_time(async {
        loop {
            match rejecting.submit(one_more().reply_to(mailbox.recipient())).await {
                // the value is dropped where user code may run, so a moment later
                Err(Error::Busy { .. }) => tokio::task::yield_now().await,
                accepted => break accepted.unwrap(),
            }
        }
    })
    .await;
    assert!(mailbox.next().await.is_finished());
    end(queue).await;
}

#[actix::test]
async fn a_handle_that_waits_waits_for_room_in_the_cache() {
    let world = World::new();
    let (queue, alive, kept) = full(&world).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let (queue, task) = (queue.clone(), own::shares::task(own::Counted::new(&alive), 0));
        waiting.push(actix::spawn(async move { queue.submit(task).await }));
    }
    tokio::task::yield_now().await;
    // they hold up no others
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    assert!(waiting.iter().all(|submitting| !submitting.is_finished()));
    // one after the other has the room of one
    in_time(kept[0].cancel()).await.unwrap();
    for submitting in waiting {
        in_time(in_time(submitting).await.unwrap().unwrap()).await.unwrap();
    }
    assert_eq!(queue.refused(), 0);
    // a shutdown waits for nobody who waits so
    let refill = own::shares::task(own::Counted::new(&alive), 0).delay(HOUR);
    in_time(queue.submit(refill)).await.unwrap();
    let (last, task) = (queue.clone(), own::shares::task(own::Counted::new(&alive), 0));
    let last = actix::spawn(async move { last.submit(task).await });
    tokio::task::yield_now().await;
    end(queue).await;
    let refused = in_time(last).await.unwrap();
    assert!(matches!(refused, Err(Error::ShuttingDown)), "{refused:?}");
}

/// Nobody would ever have the room. Each task of it took what there was, and the rest was refused as busy.
#[actix::test]
async fn a_bulk_that_the_cache_can_never_hold_is_a_mistake() {
    let world = World::new();
    let (queue, alive, _) = full(&world).await;
    let bulk = || (0..4).map(|_| own::shares::task(own::Counted::new(&alive), 0));
    let bare = SubmitAll::new(bulk().map(Submit::new).collect());
    let bare = in_time(queue.dispatcher().send(bare)).await.unwrap().map(drop);
    let typed = in_time(queue.submit_all(bulk())).await.map(drop);
    let stream = in_time(queue.submit_stream(bulk()).next()).await.unwrap().map(drop);
    for refused in [bare, typed, stream] {
        let mistake = matches!(refused, Err(Error::InvalidOption { option: "tasks", .. }));
        assert!(mistake, "{refused:?}");
    }
    assert_eq!((alive.load(Ordering::SeqCst), queue.refused()), (3, 0));
    end(queue).await;
}

#[actix::test]
async fn a_stream_keeps_the_chunk_that_the_cache_had_no_room_for() {
    let world = World::new();
    let (queue, alive, kept) = full(&world).await;
    let tasks = (0..2).map(|_| own::shares::task(own::Counted::new(&alive), 0));
    let mut stream = queue.with_backpressure(Backpressure::Reject).submit_stream(tasks).chunk(2);
    let refused = in_time(stream.next()).await.unwrap();
    assert!(is_busy_for_long(&refused), "{refused:?}");
    for handle in kept {
        in_time(handle.cancel()).await.unwrap();
    }
    let stored = in_time(async {
        loop {
            match stream.next().await.unwrap() {
                Err(Error::Busy { .. }) => tokio::task::yield_now().await,
                stored => break stored.unwrap(),
            }
        }
    });
    for handle in stored.await {
        in_time(handle).await.unwrap();
    }
    assert!(in_time(stream.next()).await.is_none());
    end(queue).await;
}

// Nothing let go of them: the room was taken for good, and handles that wait waited for ever.
#[actix::test]
async fn the_arguments_of_a_task_that_has_ended_are_freed_if_it_is_submitted_again() {
    let world = World::new();
    let mut settings = world.settings();
    settings.limits.cached_arguments = 1;
    let queue = start(world.builder_with(settings).discover(own::PATH)).await;
    let alive = Arc::new(AtomicUsize::new(0));
    let shares = |times| own::shares::task(own::Counted::new(&alive), times);
    let first = in_time(queue.submit(shares(0))).await.unwrap();
    let id = first.id();
    in_time(first).await.unwrap();
    for _ in 0..3 {
        let value = own::Counted::new(&alive);
        let again = shares(0).with_id(id).on_result(move |_| drop(value));
        assert_eq!(in_time(queue.submit(again)).await.unwrap().id(), id);
    }
    in_time(in_time(queue.submit(shares(0))).await.unwrap()).await.unwrap();
    let freed = async {
        while alive.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    };
    in_time(freed).await;
    end(queue).await;
}
