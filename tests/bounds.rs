//! What is bounded, and what waiting for a bound costs: nothing.

use std::sync::{Arc, Mutex, mpsc};

use message_queue_sqlite::actors::SubmitAll;
use message_queue_sqlite::prelude::*;

const LONG: Duration = Duration::from_secs(30);

/// Holds a cached task until the test lets it go.
#[task(use_cache)]
async fn hold(gate: Cached<tokio::sync::Semaphore>) -> Result<(), TaskError> {
    drop(gate.acquire().await?);
    Ok(())
}

/// What the first blocking task says and waits for.
struct Gate {
    reached: tokio::sync::Semaphore,
    closed: Mutex<mpsc::Receiver<()>>,
}

/// Makes a gate that is closed until the other end is dropped.
fn gate() -> (mpsc::Sender<()>, Arc<Gate>) {
    let (open, closed) = mpsc::channel();
    let reached = tokio::sync::Semaphore::new(0);
    (open, Arc::new(Gate { reached, closed: Mutex::new(closed) }))
}

/// The first one stands at the gate until it opens.
#[task(blocking, timeout = "250ms", max_attempts = 1)]
fn block(name: String, gate: Data<Arc<Gate>>) -> Result<String, TaskError> {
    if name == "first" {
        gate.reached.add_permits(1);
        drop(gate.closed.lock().map(|closed| closed.recv()));
    }
    Ok(name)
}

fn settings(dir: &tempfile::TempDir) -> Settings {
    let mut settings = Settings::default();
    settings.storage.dir = dir.path().join("queue");
    settings.workers.count = Some(1);
    settings
}

#[actix::test]
async fn cached_arguments_over_the_limit_are_refused_until_others_are_freed() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&dir);
    settings.limits.cached_arguments = 1;
    let queue = Queue::builder().settings(settings).register::<hold::Task>().start().await.unwrap();
    let queue = queue.with_backpressure(Backpressure::Reject);
    let gate = Arc::new(Cached::new(tokio::sync::Semaphore::new(0)));

    let first = queue.submit(hold::task((*gate).clone())).await.unwrap();
    let refused = queue.submit(hold::task((*gate).clone())).await.unwrap_err();
    assert!(matches!(refused, Error::Busy { .. }), "{refused:?}");

    gate.add_permits(1);
    first.wait(LONG).await.unwrap();
    let second = tokio::time::timeout(LONG, async {
        loop {
            match queue.submit(hold::task((*gate).clone())).await {
                Err(Error::Busy { .. }) => tokio::task::yield_now().await,
                other => return other,
            }
        }
    });
    second.await.unwrap().unwrap().wait(LONG).await.unwrap();
    queue.shutdown(LONG).await.unwrap();
}

#[actix::test]
async fn a_blocking_task_that_waits_for_a_thread_does_not_use_up_its_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&dir);
    settings.workers.blocking_threads = 1;
    let (open, gate) = gate();
    let builder = Queue::builder().settings(settings).register::<block::Task>();
    let queue = builder.data(gate.clone()).start().await.unwrap();

    let first = block::task("first".into());
    let first = queue.submit(first.timeout(Duration::from_millis(1))).await.unwrap();
    let second = queue.submit(block::task("second".into())).await.unwrap();
    // longer than the second's timeout; it can only fail if waiting counted
    let early = second.wait(Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(early, Error::WaitTimedOut { .. }), "{early:?}");
    drop(open);

    let late = first.wait(LONG).await.unwrap_err();
    assert!(matches!(late, Error::TaskFailed { kind: FailureKind::TimedOut, .. }), "{late:?}");
    assert_eq!(second.wait(LONG).await.unwrap(), "second");
    queue.shutdown(LONG).await.unwrap();
}

#[actix::test]
async fn ids_of_different_shards_in_one_bulk_submission_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_open, gate) = gate();
    let builder = Queue::builder().settings(settings(&dir)).shards(2).register::<block::Task>();
    let queue = builder.data(gate.clone()).start().await.unwrap();
    let at = |id: &str| Submit::new(block::task("x".into())).with_id(id.parse().unwrap());

    let both = SubmitAll::new(vec![at("0-1"), at("1-1")]);
    let refused = queue.dispatcher().send(both).await.unwrap().unwrap_err();
    assert!(matches!(refused, Error::InvalidOption { option: "with_id", .. }), "{refused:?}");
    queue.shutdown(LONG).await.unwrap();
}

#[actix::test]
async fn an_id_that_was_never_given_refuses_the_whole_bulk_submission() {
    let dir = tempfile::tempdir().unwrap();
    let (_open, gate) = gate();
    let builder = Queue::builder().settings(settings(&dir)).register::<block::Task>();
    let queue = builder.data(gate.clone()).start().await.unwrap();

    let good = || Submit::new(block::task("x".into()));
    let stranger = "0-99999999".parse().unwrap();
    let tasks = vec![good(), good().with_id(stranger), good()];
    let refused = queue.dispatcher().send(SubmitAll::new(tasks)).await.unwrap().unwrap_err();
    assert!(matches!(refused, Error::NotFound { id } if id == stranger), "{refused:?}");
    assert_eq!(queue.counts().await.unwrap().values().sum::<u64>(), 0);

    let handle = queue.submit(block::task("y".into())).await.unwrap();
    assert_eq!(handle.wait(LONG).await.unwrap(), "y");
    queue.shutdown(LONG).await.unwrap();
}

#[actix::test]
async fn a_shutdown_gives_back_blocking_tasks_that_wait_for_a_thread() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&dir);
    settings.workers.blocking_threads = 1;
    let (open, gate) = gate();
    let builder = Queue::builder().settings(settings).register::<block::Task>();
    let queue = builder.data(gate.clone()).start().await.unwrap();

    let first = queue.submit(block::task("first".into())).await.unwrap();
    let second = queue.submit(block::task("second".into())).await.unwrap();
    drop(tokio::time::timeout(LONG, gate.reached.acquire()).await.unwrap());
    let running = tokio::time::timeout(LONG, async {
        while second.status().await.unwrap() != TaskStatus::Running {
            tokio::task::yield_now().await;
        }
    });
    running.await.unwrap();

    let report = queue.shutdown(Duration::ZERO).await.unwrap();
    assert_eq!(report.left_behind, [(first.id(), "block".to_string())]);
    assert_eq!(report.waiting, 2);
    drop(open);
}
