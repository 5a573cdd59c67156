//! Values of the program's whose `Drop` panics. Two at a time would end the process.

use super::*;

/// Panics when it is dropped, and counts that; not if it is dropped by the panic of another, at which
/// a program's own value wouldn't look.
struct Alone(Arc<AtomicUsize>);

impl Drop for Alone {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("a test's value panics in its drop");
        }
    }
}

#[task(name = "holding", use_cache)]
async fn holding(value: Cached<Alone>, gate: Data<Arc<Gate>>) -> Result<(), TaskError> {
    drop(value);
    gate.runs.fetch_add(1, Ordering::SeqCst);
    let permit = gate.open.acquire().await.map_err(|_| TaskError::fatal("closed"))?;
    permit.forget();
    Ok(())
}

#[actix::test]
async fn closures_of_refused_submissions_are_dropped_one_by_one() {
    let world = World::new(1, |_| {}).await;
    let dropped = Arc::new(AtomicUsize::new(0));
    let hold = || {
        let value = Alone(dropped.clone());
        move |_: TaskResult| std::mem::forget(value)
    };
    let refused = (0..2).map(|number| {
        let never = TaskId::new(ShardId(0), 1_000_000 + number);
        gated::task(number).with_id(never).on_result(hold()).on_result(hold())
    });
    let refused = world.queue.submit_all(refused).await;
    assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");
    world.until("four drops", |_| dropped.load(Ordering::SeqCst) == 4).await;
    world.gate.open.add_permits(1);
    let handles = world.submit(1).await;
    world.all_end(handles).await;
}

#[actix::test]
async fn cached_arguments_of_tasks_that_end_together_are_dropped_one_by_one() {
    const TASKS: usize = 16;
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new();
    let builder = Queue::builder().dir(dir.path().join("queue")).register::<holding::Task>();
    let queue = builder.data(gate.clone()).start().await.unwrap();
    let world = World { _dir: dir, queue, gate };
    let dropped = Arc::new(AtomicUsize::new(0));
    let tasks = (0..TASKS).map(|_| holding::task(Cached::new(Alone(dropped.clone()))));
    let handles = world.queue.submit_all(tasks).await.unwrap();
    world.gate.open.add_permits(TASKS);
    for handle in handles {
        timeout(Duration::from_secs(30), handle.into_future()).await.unwrap().unwrap();
    }
    world.until("all drops", |_| dropped.load(Ordering::SeqCst) == TASKS).await;
}

// They were dropped where the mistake was found, with a panic while the first one unwound.
#[actix::test]
async fn what_came_with_refused_tasks_is_dropped_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new();
    let builder = Queue::builder().dir(dir.path().join("queue")).shards(2);
    let builder = builder.register::<holding::Task>().register::<gated::Task>();
    let queue = builder.data(gate.clone()).start().await.unwrap();
    let world = World { _dir: dir, queue, gate };
    let dropped = Arc::new(AtomicUsize::new(0));
    // two values each
    let hold = || {
        let value = Alone(dropped.clone());
        let closure = move |_: TaskResult| std::mem::forget(value);
        holding::task(Cached::new(Alone(dropped.clone()))).on_result(closure)
    };
    let ids = [0, 1, 9].map(|shard| TaskId::new(ShardId(shard), 1_000_000));
    let bulks = [
        vec![hold(), hold(), hold().queue("not a name"), hold()],
        vec![hold().key("a"), hold(), hold().queue("not a name"), hold()],
        vec![hold().with_id(ids[0]), hold().with_id(ids[1])],
        vec![hold().key("a"), hold().with_id(ids[0]), hold().with_id(ids[1])],
    ];
    let all: usize = bulks.iter().map(Vec::len).sum();
    for bulk in bulks {
        let refused = world.queue.submit_all(bulk).await.unwrap_err();
        assert!(
            matches!(refused, Error::InvalidName { .. } | Error::InvalidOption { .. }),
            "{refused}"
        );
    }
    for one in [hold().queue("not a name"), hold().with_id(ids[2])] {
        let refused = world.queue.submit(one).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidName { .. } | Error::NotFound { .. }), "{refused}");
    }
    let all = (all + 2) * 2;
    world.until("all drops", |_| dropped.load(Ordering::SeqCst) == all).await;
    world.gate.open.add_permits(1);
    let handles = world.submit(1).await;
    world.all_end(handles).await;
}

// They were dropped in the middle of the shutdown: one panic ended it, with files that weren't closed, and
// two the process.
#[actix::test]
async fn what_waits_at_a_shutdown_is_dropped_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new();
    let builder = Queue::builder().dir(dir.path().join("queue")).register::<holding::Task>();
    let queue = builder.data(gate).start().await.unwrap();
    let dropped = Arc::new(AtomicUsize::new(0));
    let waits = |_| {
        let values = [(); 2].map(|()| Alone(dropped.clone()));
        let [one, two] = values.map(|value| move |_: TaskResult| std::mem::forget(value));
        let task = holding::task(Cached::new(Alone(dropped.clone())));
        task.on_result(one).on_result(two).delay(Duration::from_secs(3_600))
    };
    queue.submit_all((0..2).map(waits)).await.unwrap();
    let report = queue.shutdown(Duration::from_secs(30)).await.unwrap();
    assert!(report.unclosed.is_empty(), "{report:?}");
    assert_eq!((report.waiting, dropped.load(Ordering::SeqCst)), (2, 6));
}
