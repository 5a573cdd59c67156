//! The order in which a queue ends.

use std::sync::Arc;
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::messages::{Close, CountRows, Quiesce};
use super::system::{Phase, Shared};
use crate::queue::ShutdownReport;
use crate::record::{ShardId, TaskStatus};

/// How long things may take that need no user code: storing what was given back, closing a file,
/// ending an idle thread.
const GRACE: Duration = Duration::from_secs(5);

/// Stops claiming, lets attempts end until the deadline, gives back the rest, closes the files.
pub(super) async fn drain(shared: &Arc<Shared>, deadline: Duration) -> ShutdownReport {
    let started = Instant::now();
    shared.enter(Phase::Draining);
    shared.admission.close();
    quiesce(shared, false);
    let mut report = ShutdownReport::default();
    if timeout(deadline, shared.quiet()).await.is_err() {
        report.left_behind = shared
            .workers
            .iter()
            .flat_map(|worker| {
                let blocking = worker.blocking();
                let running = blocking.values().filter(|blocking| blocking.runs);
                let attempts = running.map(|blocking| &blocking.attempt);
                attempts.map(|a| (a.id, a.definition.name.to_string())).collect::<Vec<_>>()
            })
            .collect();
        quiesce(shared, true);
        if timeout(GRACE, shared.quiet()).await.is_err() {
            tracing::warn!("not everything that was given back could be stored in time");
        }
    }
    for (task, name) in &report.left_behind {
        tracing::warn!(%task, name, "a blocking attempt did not end in time; its thread is left");
    }
    report.released = shared.released();
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
        ledger.targets().clear();
        ledger.cached().clear();
    }
    tracing::info!(took = ?started.elapsed(), released = report.released, "shut down");
    report
}

fn quiesce(shared: &Shared, abort: bool) {
    for worker in &shared.workers {
        worker.link.send(Quiesce { abort });
    }
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
    let mut joinable = Vec::new();
    for arbiter in arbiters {
        if turns(&arbiter.handle()).await {
            joinable.push(arbiter);
        } else {
            tracing::warn!("a thread of the queue is held by a task and left behind");
            arbiter.stop();
        }
    }
    joinable
}

async fn turns(arbiter: &ArbiterHandle) -> bool {
    let (answer, answered) = oneshot::channel::<()>();
    arbiter.spawn(async move {
        // if nobody waits any more, it came too late
        let _ = answer.send(());
    });
    matches!(timeout(GRACE, answered).await, Ok(Ok(())))
}
