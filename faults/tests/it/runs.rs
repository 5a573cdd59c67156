//! The tasks of the tests, and what is known of their attempts.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use message_queue_sqlite::prelude::*;
use tokio::sync::watch;

use crate::world::in_time;

pub(crate) const PATH: &str = module_path!();

/// What is known of the attempts of one number's task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    /// How many run now, and how many ever did at one time.
    pub(crate) now: u32,
    pub(crate) most: u32,
    pub(crate) total: u32,
    /// How often its callback ran, and its closure.
    pub(crate) reported: u32,
    pub(crate) heard: u32,
}

/// What the tasks and the test share: the attempts, and a gate. Clones are the same.
#[derive(Clone)]
pub(crate) struct Runs {
    runs: Arc<Mutex<HashMap<u64, Run>>>,
    changed: watch::Sender<()>,
    gate: watch::Sender<bool>,
}

impl Runs {
    pub(crate) fn new() -> Self {
        let (changed, gate) = (watch::Sender::new(()), watch::Sender::new(false));
        Runs { runs: Arc::default(), changed, gate }
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<u64, Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self, number: u64) -> Run {
        self.runs().get(&number).copied().unwrap_or_default()
    }

    pub(crate) fn change(&self, number: u64, change: impl FnOnce(&mut Run)) {
        change(self.runs().entry(number).or_default());
        self.changed.send_replace(());
    }

    fn begin(&self, number: u64) {
        self.change(number, |run| {
            run.now += 1;
            run.total += 1;
            run.most = run.most.max(run.now);
        });
    }

    fn end(&self, number: u64) {
        self.change(number, |run| run.now -= 1);
    }

    /// Checks that a number has had one attempt.
    pub(crate) fn ran_once(&self, number: u64) {
        let run = self.of(number);
        assert_eq!((run.now, run.total), (0, 1), "{number}");
    }

    /// Waits until an attempt of a number runs.
    #[track_caller]
    pub(crate) fn until_begun(&self, number: u64) -> impl Future<Output = ()> {
        in_time(self.until(number, |run| run.now == 1))
    }

    /// Waits until the attempts of a number are like that.
    pub(crate) async fn until(&self, number: u64, is: impl Fn(Run) -> bool) {
        let mut changed = self.changed.subscribe();
        changed.wait_for(|()| is(self.of(number))).await.unwrap();
    }

    /// Lets the held tasks end.
    pub(crate) fn open_gate(&self) {
        self.gate.send_replace(true);
    }
}

/// Notes its attempt. What else it is given is there to be large.
#[task(name = "work")]
pub(crate) async fn work(
    number: u64,
    filling: Vec<u8>,
    runs: Data<Runs>,
) -> Result<u64, TaskError> {
    drop(filling);
    runs.begin(number);
    tokio::task::yield_now().await;
    runs.end(number);
    Ok(number)
}

/// Notes its attempt, which lasts until the gate is open.
#[task(name = "held")]
pub(crate) async fn held(number: u64, runs: Data<Runs>) -> Result<u64, TaskError> {
    runs.begin(number);
    runs.gate.subscribe().wait_for(|open| *open).await.map_err(TaskError::fatal)?;
    runs.end(number);
    Ok(number)
}

/// As `held`, with arguments that are kept in memory only.
#[task(name = "held.cached", use_cache)]
pub(crate) async fn held_cached(number: u64, runs: Data<Runs>) -> Result<u64, TaskError> {
    runs.begin(number);
    runs.gate.subscribe().wait_for(|open| *open).await.map_err(TaskError::fatal)?;
    runs.end(number);
    Ok(number)
}

/// Notes a result.
#[callback(name = "report")]
pub(crate) async fn report(result: TaskResult, runs: Data<Runs>) -> Result<(), TaskError> {
    let number = result.decode::<u64>().map_err(TaskError::fatal)?;
    runs.change(number, |run| run.reported += 1);
    Ok(())
}
