//! What is left of a change that nobody waits for.

use std::pin::pin;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::prelude::Settings;

/// Begins something and gives it up.
async fn begin(future: impl Future) {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        drop(future.as_mut().poll(context));
        Poll::Ready(())
    })
    .await;
}

#[actix::test]
async fn a_change_that_nobody_waits_for_any_more_is_over_before_the_next() {
    let place = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.storage.dir = place.path().join("queue");
    let queue = Queue::builder().settings(settings).start().await.unwrap();
    let (open, gate) = mpsc::channel::<()>();
    let held = move |queue: &mut StoredQueue| {
        gate.recv().ok();
        queue.paused = true;
    };
    begin(queue.change("mail", "pause", held, |shared, queue| {
        shared.queues.set_paused(queue.index, true)
    }))
    .await;
    let turn = queue.shared().changing_queues.clone();
    assert!(turn.try_lock().is_err(), "it goes on");
    drop(open);
    let resumed = timeout(Duration::from_secs(30), queue.resume_queue("mail")).await;
    assert!(resumed.expect("its turn comes").unwrap(), "it was paused");
    let stored = queue.shared().directory().unwrap().snapshot().queues;
    assert!(!stored.contains_key("mail"), "nothing is set any more");
}
