//! message_queue_sqlite, with its default settings but for the durability.
//!
//! Variants: `mailbox` has a mailbox subscribed to the results, as the scenarios of `mqs bench` do,
//! so each task's result is delivered and the delivery is stored, too; `quiet` has none, as with the
//! other queues, which deliver nothing; `files` is quiet and has one file per core. The other two have
//! one, as the peers have: a number that follows the load would change within a round.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Handler;
use message_queue_sqlite::prelude::*;
use message_queue_sqlite::settings;
use peers::{AnyError, Durability, Order, Peer, Report, Runs, Scenario, answer, payload, work};
use tokio::sync::Semaphore;

/// How many submit at once per file, each of whom waits for the commit of one before the next.
const SUBMITTERS: usize = 2_048;

/// How many tasks a bulk is of, and how many bulks wait at once per file.
const BULK: usize = 256;
const BULKS: usize = 8;

/// How many tasks wait at once in all: more would be refused where they are sent.
const TASKS: usize = 4_096;

/// How many tasks of the history are submitted at once.
const FILL: usize = 1_024;

#[task(name = "peers.noop")]
async fn noop(payload: String) -> Result<(), std::io::Error> {
    Runs::here().ran(&payload);
    Ok(())
}

/// A task that was over before the round.
#[task(name = "peers.old")]
async fn old(payload: String) -> Result<(), std::io::Error> {
    drop(payload);
    Ok(())
}

/// The subscribed mailbox.
struct Mailbox;

impl Actor for Mailbox {
    type Context = Context<Self>;
}

impl Handler<TaskResult> for Mailbox {
    type Result = ();

    fn handle(&mut self, _: TaskResult, _: &mut Context<Self>) {
        Runs::here().done();
    }
}

struct Ours {
    queue: Queue,
    files: usize,
    order: Order,
    /// Tasks that were over before the round.
    before: Cell<u64>,
}

impl Ours {
    async fn open(order: &Order) -> Result<Ours, AnyError> {
        let mut settings = Settings::default();
        settings.storage.dir = order.dir.join("queue");
        settings.storage.durability = match order.durability {
            Durability::Normal => settings::Durability::Normal,
            Durability::Full => settings::Durability::Full,
        };
        let files = match order.variant.as_str() {
            "files" => std::thread::available_parallelism()?.get(),
            _ => 1,
        };
        settings.shards.count = Some(files);
        if let Some(concurrency) = order.concurrency {
            settings.workers.concurrency = concurrency;
        }
        let builder = Queue::builder().settings(settings).register::<noop::Task>();
        let queue = builder.register::<old::Task>().start().await?;
        let ours = Ours { queue, files, order: order.clone(), before: Cell::new(0) };
        if order.scenario == Scenario::History {
            ours.fill(order.rows).await?;
        }
        if order.scenario == Scenario::Drain {
            ours.queue.pause_queue("default").await?;
        }
        if order.variant == "mailbox" {
            let mailbox = Mailbox.start().recipient();
            ours.queue.dispatcher().send(Subscribe::to::<noop::Task>(mailbox)).await??;
        }
        Ok(ours)
    }

    async fn fill(&self, rows: usize) -> Result<(), AnyError> {
        for first in (0..rows).step_by(FILL) {
            let some = first..(first + FILL).min(rows);
            self.queue.submit_all(some.map(|task| old::task(payload(task)))).await?;
        }
        while self.over().await? < rows as u64 {
            actix_rt::time::sleep(Duration::from_millis(1)).await;
        }
        self.before.set(self.over().await?);
        Ok(())
    }

    /// How many bulks wait at once.
    fn bulks(&self) -> usize {
        (self.files * BULKS).min(TASKS / BULK)
    }

    /// How many tasks are over, and the delivery of their results, if there is one.
    async fn over(&self) -> Result<u64, AnyError> {
        let counts = self.queue.counts().await?;
        let over = [TaskStatus::Finished, TaskStatus::Callbacked];
        Ok(over.iter().filter_map(|status| counts.get(status)).sum())
    }
}

/// Counts a submission that failed.
fn answered<T>(answer: Result<Result<T, Error>, actix::MailboxError>, tasks: usize) {
    if let Err(error) = answer.map_err(Error::from).flatten() {
        (0..tasks).for_each(|_| Runs::here().refused(error.to_string()));
    }
}

/// The number of the task that is submitted next.
fn next(left: &RefCell<Range<usize>>) -> Option<usize> {
    left.borrow_mut().next()
}

impl Peer for Ours {
    const BULK: bool = true;

    async fn start(&self) -> Result<(), AnyError> {
        if self.order.scenario == Scenario::Drain {
            self.queue.resume_queue("default").await?;
        }
        Ok(())
    }

    async fn submit(&self, task: usize) -> Result<(), AnyError> {
        self.queue.dispatcher().send(Submit::new(noop::task(payload(task)))).await??;
        Ok(())
    }

    /// As `spread` does it, but on this thread's LocalSet, where tasks are woken together: the
    /// runtime's own tasks cost the thread that answers a system call each.
    async fn submit_each(&self, tasks: Range<usize>) -> Result<(), AnyError> {
        let left = Rc::new(RefCell::new(tasks));
        let submitters =
            0..self.order.submitters.unwrap_or((self.files * SUBMITTERS).min(TASKS)).max(1);
        let submitters: Vec<_> = submitters
            .map(|_| {
                let (left, dispatcher) = (left.clone(), self.queue.dispatcher());
                actix_rt::spawn(async move {
                    while let Some(task) = next(&left) {
                        answered(dispatcher.send(Submit::new(noop::task(payload(task)))).await, 1);
                    }
                })
            })
            .collect();
        for submitter in submitters {
            submitter.await?;
        }
        Ok(())
    }

    async fn submit_bulk(&self, tasks: Range<usize>) -> Result<(), AnyError> {
        let dispatcher = self.queue.dispatcher();
        let window = Arc::new(Semaphore::new(self.bulks()));
        for first in tasks.clone().step_by(BULK) {
            let permit = window.clone().acquire_owned().await?;
            let some = first..(first + BULK).min(tasks.end);
            let count = some.len();
            let submits = some.map(|task| Submit::new(noop::task(payload(task)))).collect();
            let request = dispatcher.send(SubmitAll::new(submits));
            actix_rt::spawn(async move {
                answered(request.await, count);
                drop(permit);
            });
        }
        // all are answered
        drop(window.acquire_many(u32::try_from(self.bulks())?).await?);
        Ok(())
    }

    async fn unrecorded(&self) -> Result<usize, AnyError> {
        let submitted = (self.order.tasks - Runs::here().refusals().0) as u64;
        let over = self.over().await? - self.before.get();
        Ok(usize::try_from(submitted.saturating_sub(over))?)
    }

    async fn until_done(&self, tasks: usize) -> Result<(), AnyError> {
        Runs::here().until_done(tasks).await;
        Ok(())
    }

    async fn describe(&self, report: &mut Report) -> Result<(), AnyError> {
        // both are read back by the queue when it opens a file
        report.journal = Some("wal".into());
        let full = self.order.durability == Durability::Full;
        report.synchronous = Some(if full { "2" } else { "1" }.into());
        Ok(())
    }
}

fn main() -> Result<(), AnyError> {
    let order = Order::given()?;
    Runs::set_up(order.tasks);
    actix_rt::System::new().block_on(async {
        let ours = Ours::open(&order).await?;
        answer(work(&order, &ours).await)
    })
}
