//! Programs that submit as fast as they are answered.

use std::sync::Arc;

use message_queue_sqlite::prelude::*;
use tokio::sync::Semaphore;

use super::AnyError;
use super::listener::{Listener, SAMPLE_EVERY};
use super::world::noop_task;

/// How many single submissions wait for their commit at once.
pub(crate) const IN_FLIGHT: usize = 2_048;

/// How many tasks one of the `bulk` scenario's submissions has.
pub(crate) const BULK: usize = 256;

/// How many bulk submissions wait for their commit at once: eight, and fewer of large ones. Messages
/// to the Dispatcher beyond a few thousand tasks are refused where they are sent.
const fn bulks_in_flight(bulk: usize) -> usize {
    match 3_072 / bulk {
        0 => 1,
        few @ 1..8 => few,
        _ => 8,
    }
}

/// The number among the timed tasks of the task of this number.
fn sample(index: usize) -> Option<usize> {
    index.is_multiple_of(SAMPLE_EVERY).then_some(index / SAMPLE_EVERY)
}

/// Sends one `Submit` a task, each from a future of its own, until `next` has none left. Returns
/// when the last has been sent.
pub(crate) async fn submit_each(
    queue: &Queue,
    listener: &Listener,
    in_flight: usize,
    mut next: impl FnMut() -> Option<usize>,
) -> Result<Arc<Semaphore>, AnyError> {
    let dispatcher = queue.dispatcher();
    let window = Arc::new(Semaphore::new(in_flight));
    while let Some(index) = next() {
        let permit = window.clone().acquire_owned().await?;
        let sample = sample(index);
        let submit = Submit::new(noop_task(sample));
        if let Some(sample) = sample {
            listener.sent(sample);
        }
        let request = dispatcher.send(submit);
        let listener = listener.clone();
        actix_rt::spawn(async move {
            answered(request.await, sample, &listener);
            drop(permit);
        });
    }
    Ok(window)
}

/// Stores so many tasks in bulk and returns when all are stored. How long each bulk took is timed
/// with its first task.
pub(crate) async fn submit_bulks(
    queue: &Queue,
    listener: &Listener,
    tasks: usize,
    bulk: usize,
) -> Result<(), AnyError> {
    let dispatcher = queue.dispatcher();
    let window = Arc::new(Semaphore::new(bulks_in_flight(bulk)));
    let mut first = 0;
    while first < tasks {
        let permit = window.clone().acquire_owned().await?;
        let end = (first + bulk).min(tasks);
        let submits = (first..end).map(|index| Submit::new(noop_task(sample(index)))).collect();
        let samples: Vec<usize> = (first..end).filter_map(sample).collect();
        samples.iter().for_each(|sample| listener.sent(*sample));
        let request = dispatcher.send(SubmitAll::new(submits));
        let listener = listener.clone();
        actix_rt::spawn(async move {
            answered(request.await, samples.first().copied(), &listener);
            drop(permit);
        });
        first = end;
    }
    all_answered(&window, bulks_in_flight(bulk)).await?;
    listener.check()
}

/// A submission's answer has come.
fn answered<T>(
    answer: Result<Result<T, Error>, actix::MailboxError>,
    sample: Option<usize>,
    listener: &Listener,
) {
    match (answer.map_err(Error::from).flatten(), sample) {
        (Ok(_), Some(sample)) => listener.stored(sample),
        (Ok(_), None) => {}
        (Err(error), _) => listener.fail(format!("a submission failed: {error}")),
    }
}

/// Waits until every submission of a window has been answered.
pub(crate) async fn all_answered(window: &Semaphore, in_flight: usize) -> Result<(), AnyError> {
    let all = u32::try_from(in_flight)?;
    drop(window.acquire_many(all).await?);
    Ok(())
}
