//! A fork of the queue's process. It has a program of its own: a fork holds the directories of all
//! other tests of its program, too.
#![expect(clippy::unwrap_used, reason = "a test fails where its helper does")]

use std::future::Future;
use std::pin::Pin;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite_faults::in_a_fork;
use tempfile::TempDir;

/// When a call that must return at once counts as one that hangs.
const LIMIT: Duration = Duration::from_secs(10);

#[task(name = "forks.double")]
async fn double(number: u64) -> Result<u64, TaskError> {
    Ok(2 * number)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

type Call<'q> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'q>>;

/// Everything that a program may ask of a queue.
fn calls<'q>(queue: &'q Queue, handle: &'q TaskHandle<double::Task>) -> Vec<Call<'q>> {
    let (id, bytes) = (handle.id(), vec![1]);
    vec![
        Box::pin(async { queue.submit(double::task(2)).await.map(drop) }),
        Box::pin(async {
            let queue = queue.with_backpressure(Backpressure::Reject);
            queue.submit(double::task(2)).await.map(drop)
        }),
        Box::pin(async { queue.submit_all([double::task(2), double::task(3)]).await.map(drop) }),
        Box::pin(async { queue.submit_all::<double::Task>([]).await.map(drop) }),
        Box::pin(async {
            let raw = Submit::raw("forks.double", Codec::Bincode, bytes);
            queue.submit_raw(raw).await.map(drop)
        }),
        Box::pin(async { handle.result().await.map(drop) }),
        Box::pin(async { handle.status().await.map(drop) }),
        Box::pin(async move { queue.record(id).await.map(drop) }),
        Box::pin(async { queue.counts().await.map(drop) }),
        Box::pin(async { queue.list(ListTasks::default()).await.map(drop) }),
        Box::pin(async move { queue.cancel(id).await.map(drop) }),
        Box::pin(async move { queue.redrive(id).await.map(drop) }),
        Box::pin(async { queue.pause_queue("default").await.map(drop) }),
        Box::pin(async { queue.resume_queue("default").await.map(drop) }),
        Box::pin(async { queue.limit_queue("default", Some(1)).await }),
        Box::pin(async { queue.backup("never").await }),
        Box::pin(async { queue.shutdown(LIMIT).await.map(drop) }),
    ]
}

/// Calls hung for ever in a fork: what they sent was for threads that aren't there.
#[test]
fn a_fork_is_told_that_the_queue_is_not_its_own() {
    let place = TempDir::new().unwrap();
    let queue = Queue::builder().dir(place.path().join("queue")).discover(module_path!()).start();
    let queue = block_on(queue).unwrap();
    let handle = block_on(queue.submit(double::task(1))).unwrap();
    assert_eq!(block_on(handle.result()).unwrap().decode::<u64>().unwrap(), 2);
    let owner = std::process::id();
    let wrong = in_a_fork(|| {
        let told = calls(&queue, &handle).into_iter().map(|call| {
            let answer = block_on(async { tokio::time::timeout(LIMIT, call).await });
            matches!(answer, Ok(Err(Error::Forked { pid })) if pid == owner)
        });
        // which call wasn't, from 1
        told.zip(1..).find(|(told, _)| !told).map_or(0, |(_, call)| call)
    });
    assert_eq!(wrong.unwrap(), Some(0));
    // the fork's end has taken nothing from its parent
    let more = block_on(queue.submit(double::task(4))).unwrap();
    assert_eq!(block_on(more.result()).unwrap().decode::<u64>().unwrap(), 8);
    let another = Queue::builder().dir(place.path().join("queue")).discover(module_path!()).start();
    assert!(matches!(block_on(another), Err(Error::Locked { pid, .. }) if pid == owner));
    block_on(queue.shutdown(LIMIT)).unwrap();
}
