//! The order in which a queue ends.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_rt::Arbiter;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::ledger::{Done, WorkerLedger};
use super::messages::{Close, CountRows, Quiesce};
use super::system::{Phase, Shared};
use super::worker::report;
use crate::attempt::{Attempt, Input};
use crate::panic_message::{OneByOne, survive};
use crate::queue::ShutdownReport;
use crate::record::{ShardId, TaskId, TaskStatus};

/// How long things may take that need no user code: storing what was given back, closing a file,
/// ending an idle thread.
const GRACE: Duration = Duration::from_secs(5);

/// Stops claiming, lets attempts end until the deadline, gives back the rest, closes the files.
pub(super) async fn drain(shared: &Arc<Shared>, deadline: Duration) -> ShutdownReport {
    let started = Instant::now();
    shared.enter(Phase::Draining);
    // what was given back before belonged to paused queues
    let released_before = shared.released();
    shared.admission.close();
    quiesce(shared, false);
    let mut report = ShutdownReport::default();
    if timeout(deadline, shared.quiet()).await.is_err() {
        let running = shared.workers.iter().flat_map(|worker| {
            let blocking = worker.blocking();
            let running = blocking.values().filter(|blocking| blocking.runs);
            running.map(|blocking| named(&blocking.attempt)).collect::<Vec<_>>()
        });
        report.left_behind = running.collect();
        quiesce(shared, true);
        if timeout(GRACE, shared.quiet()).await.is_err() {
            for attempt in give_back_held(shared) {
                if !report.left_behind.contains(&attempt) {
                    report.left_behind.push(attempt);
                }
            }
            if timeout(GRACE, shared.quiet()).await.is_err() {
                tracing::warn!("not everything that was given back could be stored in time");
            }
        }
    }
    for (task, name) in &report.left_behind {
        tracing::warn!(%task, name, "an attempt did not end in time; its thread is left");
    }
    report.released = shared.released().saturating_sub(released_before);
    for ledger in &shared.shards {
        report.undelivered += ledger.delivering().len() as u64;
        report.waiting += waiting(shared, ledger.id).await;
        if let Err(why) = close(shared, ledger.id).await {
            tracing::warn!(shard = %ledger.id, why, "a shard was not closed in order");
            report.unclosed.push((ledger.id, why));
        }
    }
    shared.enter(Phase::Ended);
    shared.dispatcher.set(None);
    for ledger in &shared.shards {
        ledger.link.set(None);
        ledger.watchers().clear();
        let targets = std::mem::take(&mut *ledger.targets());
        drop(OneByOne(targets.into_values().flatten().collect()));
        let cached = std::mem::take(&mut *ledger.cached());
        drop(OneByOne(cached.into_values().collect()));
    }
    tracing::info!(took = ?started.elapsed(), released = report.released, "shut down");
    report
}

fn quiesce(shared: &Shared, abort: bool) {
    for worker in &shared.workers {
        worker.link.send(Quiesce { abort });
    }
}

fn named(attempt: &Attempt) -> (TaskId, String) {
    (attempt.id, attempt.definition.name.to_string())
}

/// Gives back what workers have in hand whose threads are held by an attempt, in their place.
/// Returns the attempts that still run.
fn give_back_held(shared: &Shared) -> Vec<(TaskId, String)> {
    let of_each = shared.workers.iter().filter_map(|worker| {
        // what made the worker panic would end this thread, and with it the shutdown
        survive(|| give_back_held_by(shared, worker))
    });
    of_each.flatten().collect()
}

fn give_back_held_by(shared: &Shared, worker: &WorkerLedger) -> Vec<(TaskId, String)> {
    let mut running = Vec::new();
    // what it couldn't report needn't run again
    report(shared, worker);
    let attempts = unreported(shared, worker.index);
    if attempts.is_empty() {
        return Vec::new();
    }
    let mut at_rest = HashSet::new();
    for parcel in worker.runs.open() {
        at_rest.extend(parcel.body().take().into_iter().flatten().map(|attempt| attempt.id));
        worker.runs.confirm(&parcel);
    }
    at_rest.extend(worker.queue().take().map(|attempt| attempt.id));
    at_rest.extend(std::mem::take(&mut *worker.aborts()).into_iter().map(|(id, suspended)| {
        suspended.abort();
        id
    }));
    let blocking = std::mem::take(&mut *worker.blocking());
    at_rest.extend(blocking.iter().filter(|(_, of)| !of.runs).map(|(id, _)| *id));
    let now = shared.clock.now();
    for attempt in attempts {
        if !at_rest.contains(&attempt.id) {
            attempt.cancel.cancel();
            running.push(named(&attempt));
        }
        worker.keep(Done { attempt, end: None, started_at: now, ended_at: now });
    }
    report(shared, worker);
    running
}

/// The attempts that this worker was given and hasn't reported. One that answers has none by now.
fn unreported(shared: &Shared, worker: usize) -> Vec<Arc<Attempt>> {
    let mut found = Vec::new();
    for ledger in &shared.shards {
        let attempts = ledger.attempts().values().cloned().collect::<Vec<_>>();
        let finishes = ledger.finishes.open();
        let reported: HashSet<TaskId> = finishes
            .iter()
            .flat_map(|parcel| &parcel.body().done)
            .map(|of| of.attempt.id)
            .collect();
        found.extend(attempts.into_iter().filter(|attempt| {
            // a claim that couldn't run stays with its shard
            let lost = matches!(attempt.input, Input::Cached(None));
            attempt.worker.load(Ordering::Acquire) == worker
                && !lost
                && !reported.contains(&attempt.id)
        }));
    }
    found
}

async fn waiting(shared: &Shared, shard: ShardId) -> u64 {
    let Some(ledger) = shared.shard(shard) else { return 0 };
    let (answer, answered) = oneshot::channel();
    ledger.link.send(CountRows { answer });
    let Ok(Ok(Ok(counts))) = timeout(GRACE, answered).await else { return 0 };
    let not_started = counts.iter().filter(|(status, _)| *status == TaskStatus::NotStarted);
    not_started.map(|(_, count)| count).sum()
}

async fn close(shared: &Shared, shard: ShardId) -> Result<(), String> {
    let Some(ledger) = shared.shard(shard) else { return Ok(()) };
    let (answer, answered) = oneshot::channel();
    ledger.link.send(Close { answer });
    match timeout(GRACE, answered).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(_)) => Err("its actor is being rebuilt".into()),
        Err(_) => Err("its thread doesn't answer".into()),
    }
}

/// Which threads still turn: those can be joined. One that user code holds can't, and is left.
pub(super) async fn responsive(arbiters: Vec<Arbiter>) -> Vec<Arbiter> {
    // all are asked at once, so that several held ones cost no more time than one
    let asked: Vec<_> = arbiters.into_iter().map(|arbiter| (ask(&arbiter), arbiter)).collect();
    let until = Instant::now() + GRACE;
    let mut joinable = Vec::new();
    for (answered, arbiter) in asked {
        if matches!(timeout_at(until, answered).await, Ok(Ok(()))) {
            joinable.push(arbiter);
        } else {
            tracing::warn!("a thread of the queue is held by a task and left behind");
            arbiter.stop();
        }
    }
    joinable
}

fn ask(arbiter: &Arbiter) -> oneshot::Receiver<()> {
    let (answer, answered) = oneshot::channel::<()>();
    arbiter.spawn(async move {
        // if nobody waits any more, it came too late
        let _ = answer.send(());
    });
    answered
}
