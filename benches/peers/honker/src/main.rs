//! honker: one connection behind a mutex, claims and acknowledgements by SQL functions.
//!
//! Variants: `batch` claims and acknowledges 64 at a time on one thread and waits for updates when
//! nothing is there; `waker` is the documented loop, `claim_waker` and `ack`, one task at a time.
//! Finished tasks are deleted, so `history` has none.

use std::ops::Range;
use std::time::Duration;

use honker::{Database, EnqueueOpts, Queue, QueueOpts};
use peers::{AnyError, Durability, Order, Peer, Report, Runs, answer, payload, work};
use rusqlite::types::FromSql;

/// How many tasks a claim, an acknowledgement and a bulk are of.
const CLAIM: usize = 64;
const BULK: usize = 256;

const WORKER: &str = "worker-1";

struct Honker {
    db: Database,
    order: Order,
}

impl Honker {
    fn open(order: &Order) -> Result<Honker, AnyError> {
        let db = Database::open(order.dir.join("honker.db"))?;
        if order.durability == Durability::Full {
            // it sets NORMAL itself
            db.with_conn(|conn| conn.pragma_update(None, "synchronous", "FULL"))?;
        }
        Ok(Honker { db, order: order.clone() })
    }

    fn queue(&self) -> Queue {
        self.db.queue("noop", QueueOpts::default())
    }

    fn ask<T: FromSql>(&self, sql: &str) -> Result<T, AnyError> {
        Ok(self.db.with_conn(|conn| conn.query_row(sql, [], |row| row.get(0)))?)
    }
}

/// Runs what is claimed and acknowledges it, for ever.
fn run_batches(db: &Database, queue: &Queue) -> Result<(), AnyError> {
    let updates = db.update_events();
    loop {
        let tasks = queue.claim_batch(WORKER, CLAIM as i64)?;
        if tasks.is_empty() {
            updates.recv_timeout(Duration::from_secs(1))?;
            continue;
        }
        for task in &tasks {
            Runs::here().ran(&task.payload_as::<String>()?);
        }
        let ids: Vec<i64> = tasks.iter().map(|task| task.id).collect();
        let acknowledged = queue.ack_batch(&ids, WORKER)?;
        (0..acknowledged).for_each(|_| Runs::here().done());
    }
}

/// The documented loop.
fn run_waker(queue: &Queue) -> Result<(), AnyError> {
    let waker = queue.claim_waker();
    while let Some(task) = waker.next(WORKER)? {
        Runs::here().ran(&task.payload_as::<String>()?);
        if task.ack()? {
            Runs::here().done();
        }
    }
    Ok(())
}

impl Peer for Honker {
    const BULK: bool = true;

    async fn start(&self) -> Result<(), AnyError> {
        for _ in 0..self.order.concurrency.unwrap_or(1) {
            let (db, queue, batch) = (self.db.clone(), self.queue(), self.order.variant == "batch");
            std::thread::spawn(move || {
                let ended = if batch { run_batches(&db, &queue) } else { run_waker(&queue) };
                // without it the round ends at its limit, and this says why
                if let Err(error) = ended {
                    eprintln!("a worker ended: {error}");
                }
            });
        }
        Ok(())
    }

    async fn submit(&self, task: usize) -> Result<(), AnyError> {
        self.queue().enqueue(&payload(task), EnqueueOpts::default())?;
        Ok(())
    }

    async fn submit_each(&self, tasks: Range<usize>) -> Result<(), AnyError> {
        let submitters = self.order.submitters.unwrap_or(SUBMITTERS);
        let threads: Vec<_> = (0..submitters)
            .map(|first| {
                let (queue, tasks) = (self.queue(), tasks.clone());
                tokio::task::spawn_blocking(move || {
                    for task in tasks.skip(first).step_by(submitters) {
                        if let Err(error) = queue.enqueue(&payload(task), EnqueueOpts::default()) {
                            Runs::here().refused(error.to_string());
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.await?;
        }
        Ok(())
    }

    async fn submit_bulk(&self, tasks: Range<usize>) -> Result<(), AnyError> {
        let (db, queue) = (self.db.clone(), self.queue());
        let bulks = tokio::task::spawn_blocking(move || -> Result<(), AnyError> {
            for first in tasks.clone().step_by(BULK) {
                let tx = db.transaction()?;
                for task in first..(first + BULK).min(tasks.end) {
                    queue.enqueue_tx(&tx, &payload(task), EnqueueOpts::default())?;
                }
                tx.commit()?;
            }
            Ok(())
        });
        bulks.await?
    }

    async fn unrecorded(&self) -> Result<usize, AnyError> {
        Ok(usize::try_from(self.ask::<i64>("select count(*) from _honker_live")?)?)
    }

    async fn until_done(&self, tasks: usize) -> Result<(), AnyError> {
        Runs::here().until_done(tasks).await;
        Ok(())
    }

    async fn describe(&self, report: &mut Report) -> Result<(), AnyError> {
        report.sqlite = Some(self.ask("select sqlite_version()")?);
        report.journal = Some(self.ask("pragma journal_mode")?);
        report.synchronous = Some(self.ask::<i64>("pragma synchronous")?.to_string());
        Ok(())
    }
}

/// What it is fastest with here.
const SUBMITTERS: usize = 4;

fn main() -> Result<(), AnyError> {
    let order = Order::given()?;
    Runs::set_up(order.tasks);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let peer = Honker::open(&order)?;
        answer(work(&order, &peer).await)
    })
}
