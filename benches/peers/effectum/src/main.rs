//! effectum: one writer thread, up to 50 operations in a transaction, workers woken in the process.
//!
//! Variants: `wal` puts the file into WAL mode first, which effectum means to do itself and doesn't,
//! since it writes `pragma journal`; `published` leaves the rollback journal. Both keep what it
//! sets, `synchronous = NORMAL`, because its connection can't be reached.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use effectum::{Job, JobRunner, Queue, RunningJob, Worker};
use peers::{AnyError, Order, Peer, Report, Runs, Scenario, answer, payload, spread, work};
use rusqlite::Connection;

const NAME: &str = "noop";

/// How many tasks a bulk is of.
const BULK: usize = 256;

struct Effectum {
    queue: Arc<Queue>,
    file: PathBuf,
    worker: Mutex<Option<Worker>>,
    order: Order,
}

fn file(order: &Order) -> PathBuf {
    order.dir.join("effectum.db")
}

fn job(task: usize) -> Result<Job, AnyError> {
    Ok(Job::builder(NAME).json_payload(&payload(task))?.build())
}

impl Effectum {
    async fn open(order: &Order) -> Result<Effectum, AnyError> {
        let file = file(order);
        if order.variant == "wal" {
            let conn = Connection::open(&file)?;
            conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        }
        let queue = Arc::new(Queue::new(&file).await?);
        Ok(Effectum { queue, file, worker: Mutex::default(), order: order.clone() })
    }
}

/// Adds finished jobs as effectum leaves them.
async fn fill(order: &Order) -> Result<(), AnyError> {
    // its tables are made when it is opened
    let opened = Effectum::open(order).await?;
    opened.queue.close(std::time::Duration::from_secs(60)).await?;
    drop(opened);
    let conn = Connection::open(file(order))?;
    conn.execute(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1)
         insert into jobs (external_id, job_type, status, orig_run_at, payload, max_retries,
                backoff_multiplier, backoff_randomization, backoff_initial_interval, added_at,
                default_timeout, heartbeat_increment, started_at, finished_at, run_info)
         select randomblob(16), ?2, 'succeeded', unixepoch(), ?3, 3, 2, 0.2, 20, unixepoch(), 300,
                120, unixepoch(), unixepoch(), '[{\"success\":true,\"start\":0,\"end\":0,\"info\":null}]'
           from n",
        rusqlite::params![order.rows as i64, NAME, serde_text(0)],
    )?;
    Ok(())
}

/// A payload as it is stored.
fn serde_text(task: usize) -> Vec<u8> {
    format!("\"{}\"", payload(task)).into_bytes()
}

impl Peer for Effectum {
    const BULK: bool = true;

    async fn start(&self) -> Result<(), AnyError> {
        // in `latency` a task says itself that it is over, so that the moment is known
        let tells = self.order.scenario == Scenario::Latency;
        let run = move |job: RunningJob, _: ()| async move {
            Runs::here().ran(&job.json_payload::<String>()?);
            if tells {
                job.complete(()).await?;
                Runs::here().done();
            }
            Ok::<(), effectum::Error>(())
        };
        let worker = Worker::builder(&self.queue, ())
            .max_concurrency(u16::try_from(self.order.concurrency.unwrap_or(CONCURRENCY))?)
            .jobs([JobRunner::builder(NAME, run).build()])
            .build()
            .await?;
        *self.worker.lock().unwrap_or_else(PoisonError::into_inner) = Some(worker);
        Ok(())
    }

    async fn submit(&self, task: usize) -> Result<(), AnyError> {
        self.queue.add_job(job(task)?).await?;
        Ok(())
    }

    async fn submit_each(&self, tasks: Range<usize>) -> Result<(), AnyError> {
        let queue = self.queue.clone();
        spread(self.order.submitters.unwrap_or(SUBMITTERS), tasks, move |task| {
            let queue = queue.clone();
            async move {
                queue.add_job(job(task)?).await?;
                Ok(())
            }
        })
        .await;
        Ok(())
    }

    async fn submit_bulk(&self, tasks: Range<usize>) -> Result<(), AnyError> {
        for first in tasks.clone().step_by(BULK) {
            let jobs: Result<_, _> = (first..(first + BULK).min(tasks.end)).map(job).collect();
            self.queue.add_jobs(jobs?).await?;
        }
        Ok(())
    }

    async fn unrecorded(&self) -> Result<usize, AnyError> {
        let active = self.queue.num_active_jobs().await?;
        Ok(usize::try_from(active.pending + active.running)?)
    }

    async fn until_done(&self, tasks: usize) -> Result<(), AnyError> {
        Runs::here().until_done(tasks).await;
        Ok(())
    }

    async fn describe(&self, report: &mut Report) -> Result<(), AnyError> {
        report.sqlite = Some(rusqlite::version().to_string());
        let conn = Connection::open(&self.file)?;
        report.journal = Some(conn.query_row("pragma journal_mode", [], |row| row.get(0))?);
        report.synchronous = Some("1".into());
        Ok(())
    }
}

/// What it is fastest with here.
const CONCURRENCY: usize = 64;
const SUBMITTERS: usize = 64;

fn main() -> Result<(), AnyError> {
    let order = Order::given()?;
    Runs::set_up(order.tasks);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        if order.scenario == Scenario::History {
            fill(&order).await?;
        }
        let peer = Effectum::open(&order).await?;
        answer(work(&order, &peer).await)
    })
}
