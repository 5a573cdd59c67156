//! What the clients of a simulation do, each by itself, beside the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{Submission, TaskRecord};

use super::known::Known;
use super::model::{Answer, END, Model};
use super::tasks::{Plan, report, work};
use crate::case::Failure;

pub(crate) const QUEUES: [&str; 2] = ["a", "b"];

/// A client of one life of the queue.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) queue: Queue,
    pub(crate) known: Arc<Known>,
    pub(crate) model: Arc<Model>,
}

impl Client {
    fn wait(&self, what: String) -> u64 {
        self.model.wait(what, self.known.now())
    }

    /// Makes a task and notes that it is about to be submitted.
    pub(crate) fn prepare(&self, plan: Plan, reports: bool) -> (u64, Submission<work::Task>) {
        let number = self.model.send(plan, reports);
        (number, self.submission(number, plan, reports))
    }

    fn submission(&self, number: u64, plan: Plan, reports: bool) -> Submission<work::Task> {
        let mut task = work::task(number, plan).priority(plan.priority);
        let delay = plan.due - self.known.now();
        if delay > 0 {
            task = task.delay(Duration::from_micros(delay.unsigned_abs()));
        }
        if let Some(key) = plan.key {
            task = task.key(format!("key-{key}"));
        }
        if let Some(queue) = plan.queue {
            task = task.queue(QUEUES[usize::from(queue)]);
        }
        if reports {
            task = task.then(report::callback());
        }
        task
    }

    /// Submits a task, and once more if nobody knows what became of it; waits for its end.
    pub(crate) async fn submit(self, plan: Plan, reports: bool) {
        let (number, task) = self.prepare(plan, reports);
        let waits = self.wait(format!("an answer for number {number}"));
        let mut answer = self.queue.submit(task).await;
        self.note(number, answer.as_ref().map(TaskHandle::id).map_err(Clone::clone), false);
        if let Err(Error::Unknown { id }) = answer {
            let again = self.submission(number, plan, reports).with_id(id);
            answer = self.queue.submit(again).await;
            match &answer {
                Ok(handle) => self.note(number, Ok(handle.id()), true),
                // refused this time: nobody knows of the first
                Err(error) => {
                    self.refusal(number, error);
                }
            }
        }
        self.model.got(waits);
        if let Ok(handle) = answer
            && number.is_multiple_of(2)
        {
            let waits = self.wait(format!("{END} {}", handle.id()));
            let ended = handle.result().await.map(|result| result.status());
            self.known.trace(("the end", number, ended.is_ok()));
            self.expect("the end", &ended);
            self.model.got(waits);
        }
    }

    pub(crate) async fn submit_all(self, tasks: Vec<(u64, Submission<work::Task>)>) {
        let waits = self.wait("an answer for a bulk".into());
        let (numbers, tasks): (Vec<_>, Vec<_>) = tasks.into_iter().unzip();
        match self.queue.submit_all(tasks).await {
            Ok(handles) => {
                for (number, handle) in numbers.into_iter().zip(handles) {
                    self.note(number, Ok(handle.id()), false);
                }
            }
            Err(error) => {
                numbers.into_iter().for_each(|number| self.note(number, Err(error.clone()), false));
            }
        }
        self.model.got(waits);
    }

    fn note(&self, number: u64, answer: Result<TaskId, Error>, again: bool) {
        self.known.trace((number, &answer));
        let answer = match answer {
            Ok(id) => Answer::Stored(id),
            Err(error) => self.refusal(number, &error),
        };
        if let (Answer::Stored(id), Some(plan)) = (answer, self.model.plan(number)) {
            self.known.stored(id, plan, again);
        }
        self.model.answer(number, answer);
    }

    /// What an error says of a submission. One that can't come is a mistake, whatever it says.
    fn refusal(&self, number: u64, error: &Error) -> Answer {
        match error {
            Error::Busy { .. }
            | Error::ShuttingDown
            | Error::ShardUnavailable { .. }
            | Error::DiskFull { .. }
            | Error::Store { .. } => Answer::Refused,
            Error::Unknown { .. } => Answer::Unknown,
            other => {
                let what = format!("number {number} was answered with {other:?}");
                self.known.fail(Failure::new("untyped", what));
                Answer::Unknown
            }
        }
    }

    /// What is asked of a stored task may fail, but not with any error.
    fn expect<T>(&self, what: &str, answer: &Result<T, Error>) {
        match answer {
            Ok(_)
            | Err(
                Error::ShuttingDown
                | Error::ShardUnavailable { .. }
                | Error::DiskFull { .. }
                | Error::Store { .. }
                | Error::NotFound { .. }
                | Error::ResultExpired { .. },
            ) => {}
            Err(other) => {
                self.known
                    .fail(Failure::new("untyped", format!("{what} was answered with {other:?}")));
            }
        }
    }

    pub(crate) async fn cancel(self, id: TaskId) {
        let waits = self.wait(format!("the cancellation of {id}"));
        self.model.cancel(id);
        self.known.touch(id);
        let answer = self.queue.cancel(id).await;
        self.known.trace(("cancelled", id, answer.is_ok()));
        self.expect("a cancellation", &answer);
        self.model.got(waits);
    }

    pub(crate) async fn redrive(self, id: TaskId) {
        let waits = self.wait(format!("the redrive of {id}"));
        self.model.redrive(id);
        self.known.touch(id);
        let answer = self.queue.redrive(id).await;
        self.known.trace(("redriven", id, answer.is_ok()));
        self.expect("a redrive", &answer);
        self.model.got(waits);
    }

    pub(crate) async fn look_up(self, id: TaskId) {
        let waits = self.wait(format!("the record of {id}"));
        let record = self.queue.record(id).await;
        self.expect("a record", &record);
        self.known.trace(("found", id, record.map(|record| record.status).ok()));
        self.model.got(waits);
    }

    /// What is set of a named queue is in the directory, not in a shard.
    fn expect_directory<T>(&self, what: &str, answer: &Result<T, Error>) {
        if let Err(other) = answer
            && !matches!(other, Error::Directory { .. } | Error::ShuttingDown)
        {
            self.known.fail(Failure::new("untyped", format!("{what} was answered with {other:?}")));
        }
    }

    /// Limits a named queue.
    pub(crate) async fn limit(&self, index: u8, limit: Option<usize>) -> Result<(), Error> {
        self.known.limit(index, None);
        let answer = self.queue.limit_queue(QUEUES[usize::from(index)], limit).await;
        self.expect_directory("a limit", &answer);
        if answer.is_ok() {
            self.known.limit(index, limit);
        }
        answer
    }

    pub(crate) async fn pause(self, index: u8, pauses: bool) {
        let name = QUEUES[usize::from(index)];
        if pauses {
            let paused = self.queue.pause_queue(name).await;
            self.expect_directory("a pause", &paused);
            self.known.pause(index, paused.is_ok());
        } else {
            self.known.pause(index, false);
            // one that can't be stored leaves it paused, which the end of the case mends
            let resumed = self.queue.resume_queue(name).await;
            self.expect_directory("a resumption", &resumed);
        }
    }
}

/// The records of all tasks, unless a shard is out of service.
pub(crate) async fn records(queue: &Queue) -> Option<BTreeMap<TaskId, TaskRecord>> {
    let mut found = BTreeMap::new();
    let name = Some("sim.work".into());
    let mut list = ListTasks { name, limit: 1_000, ..ListTasks::default() };
    loop {
        let page = queue.list(list.clone()).await.ok()?;
        found.extend(page.tasks.into_iter().map(|record| (record.id, record)));
        match page.next {
            Some(next) => list.after = Some(next),
            None => return Some(found),
        }
    }
}
