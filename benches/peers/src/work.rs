//! The work of a round, the same for every peer.

use std::time::{Duration, Instant};

use crate::meter::most_rss_mb;
use crate::{AnyError, Latency, Meter, Order, Peer, Report, Runs, Scenario};

/// The most tasks of a round of `latency`, the first of which aren't timed.
pub const LATENCY_MAX: usize = 20_000;

/// How many tasks of a round of `latency` aren't timed.
const WARM_UP: usize = 20;

/// How many are timed at least, however long a slow peer takes for them.
const TIMED_MIN: usize = 20;

/// The pause after a task in `latency`, so that the next finds an idle queue.
const PAUSE: Duration = Duration::from_millis(2);

/// How long workers may take to get idle after their start, and second runs of a task to come.
const SETTLE: Duration = Duration::from_millis(200);

/// How often it is asked whether all tasks are recorded, once each has run.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// Does what was ordered. The process's [`Runs`] are set up.
///
/// # Errors
///
/// The peer can't do it at all. A round that isn't over in time, or has refused submissions, is
/// reported without its rate.
pub async fn work(order: &Order, peer: &impl Peer) -> Result<Report, AnyError> {
    let mut report = match order.scenario {
        Scenario::Latency => latency(order, peer).await?,
        _ => throughput(order, peer).await?,
    };
    let runs = Runs::here();
    (report.missing, report.duplicates) = runs.missing_and_duplicates(report.tasks);
    (report.refused, report.error) = runs.refusals();
    report.missing -= report.refused.min(report.missing);
    report.rss_mb = most_rss_mb();
    peer.describe(&mut report).await?;
    Ok(report)
}

async fn throughput(order: &Order, peer: &impl Peer) -> Result<Report, AnyError> {
    if order.scenario == Scenario::Drain {
        submit_ahead(order, peer).await?;
    } else {
        peer.start().await?;
        tokio::time::sleep(SETTLE).await;
    }
    let meter = Meter::start();
    let limit = Duration::from_secs_f64(order.limit_s);
    let over = tokio::time::timeout(limit, until_over(order, peer)).await;
    let spent = meter.stop();
    let in_time = over.map_or(Ok(false), |over| over.map(|()| true))?;
    tokio::time::sleep(SETTLE).await;
    let tasks = order.tasks as f64;
    let whole = in_time && Runs::here().refusals().0 == 0;
    let took = whole.then_some(spent.took.as_secs_f64());
    Ok(Report {
        tasks: order.tasks,
        took_s: took,
        tasks_per_s: took.map(|took| tasks / took),
        cpu_us_per_task: whole.then_some(spent.cpu.as_secs_f64() * 1e6 / tasks),
        ..Report::default()
    })
}

async fn submit_ahead(order: &Order, peer: &impl Peer) -> Result<(), AnyError> {
    async fn all<P: Peer>(peer: &P, tasks: usize) -> Result<(), AnyError> {
        match P::BULK {
            true => peer.submit_bulk(0..tasks).await,
            false => peer.submit_each(0..tasks).await,
        }
    }
    all(peer, order.tasks).await
}

async fn until_over(order: &Order, peer: &impl Peer) -> Result<(), AnyError> {
    match order.scenario {
        Scenario::Bulk => peer.submit_bulk(0..order.tasks).await?,
        Scenario::Drain => peer.start().await?,
        _ => peer.submit_each(0..order.tasks).await?,
    }
    Runs::here().until_all_ran().await;
    while peer.unrecorded().await? > 0 {
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(())
}

/// One task after the other, each when the one before is recorded.
async fn latency(order: &Order, peer: &impl Peer) -> Result<Report, AnyError> {
    peer.start().await?;
    tokio::time::sleep(SETTLE).await;
    let runs = Runs::here();
    let (mut submit, mut start, mut done) = (Vec::new(), Vec::new(), Vec::new());
    let (began, mut task) = (Instant::now(), 0);
    while task < order.tasks.min(LATENCY_MAX)
        && (task < WARM_UP + TIMED_MIN || began.elapsed().as_secs_f64() < order.seconds)
    {
        let sent = Instant::now();
        peer.submit(task).await?;
        let stored = sent.elapsed();
        let limit = Duration::from_secs_f64(order.limit_s);
        if tokio::time::timeout(limit, peer.until_done(task + 1)).await.is_err() {
            return Ok(Report { tasks: task + 1, ..Report::default() });
        }
        let recorded = sent.elapsed();
        if task >= WARM_UP {
            let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
            submit.push(micros(stored));
            start.push(micros(runs.started(task).saturating_duration_since(sent)));
            done.push(micros(recorded));
        }
        task += 1;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Report {
        tasks: task,
        submit: Latency::of(submit),
        start: Latency::of(start),
        done: Latency::of(done),
        ..Report::default()
    })
}
