//! The tasks of a simulation.

use std::sync::Arc;

use message_queue_sqlite::prelude::*;

use super::known::Known;

/// How many failures end a task.
pub(crate) const MAX_ATTEMPTS: u32 = 4;

/// By how much a level of priority makes a task older, in microseconds.
const AGEING: i64 = 60_000_000;

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Succeeds,
    /// After so many failures.
    Recovers(u32),
    /// After so many panics.
    Panics(u32),
    Fails,
    FailsForGood,
    /// Puts itself off so many times first.
    Snoozes(u32),
    /// For so many milliseconds.
    Takes(u64),
}

impl Kind {
    pub(crate) fn ends_well(self) -> bool {
        !matches!(self, Kind::Fails | Kind::FailsForGood)
    }

    /// How many failures it has when it ends.
    pub(crate) fn failures(self) -> u32 {
        match self {
            Kind::Recovers(times) | Kind::Panics(times) => times,
            Kind::Fails => MAX_ATTEMPTS,
            Kind::FailsForGood => 1,
            Kind::Succeeds | Kind::Snoozes(_) | Kind::Takes(_) => 0,
        }
    }
}

/// What a task is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    /// In microseconds: it may not start before.
    pub(crate) due: i64,
    pub(crate) key: Option<u8>,
    pub(crate) queue: Option<u8>,
    pub(crate) priority: i16,
}

impl Plan {
    /// The rank of such a task that was submitted then: the queue's order is by rank.
    pub(super) fn rank(self, submitted_at: i64) -> i64 {
        submitted_at.max(self.due) - i64::from(self.priority) * AGEING
    }
}

#[task(name = "sim.work", max_attempts = 4, backoff = "1s..1h")]
pub(crate) async fn work(
    number: u64,
    plan: Plan,
    ctx: TaskContext,
    known: Data<Arc<Known>>,
) -> Result<u64, TaskError> {
    let attempt = known.begin(&ctx, plan);
    for _ in 0..number % 3 {
        tokio::task::yield_now().await;
    }
    match plan.kind {
        Kind::Recovers(times) if ctx.failures() < times => Err(TaskError::retry("not yet")),
        Kind::Panics(times) if ctx.failures() < times => panic!("a task panics, on purpose"),
        Kind::Snoozes(times) if attempt.snoozes() < times => {
            let pause = Duration::from_secs(1 + number % 7_200);
            attempt.again_in(i64::try_from(pause.as_micros()).unwrap_or(i64::MAX));
            Err(TaskError::snooze(pause))
        }
        Kind::Fails => {
            if ctx.failures() + 1 >= MAX_ATTEMPTS {
                attempt.is_over();
            }
            Err(TaskError::retry("never"))
        }
        Kind::FailsForGood => {
            attempt.is_over();
            Err(TaskError::fatal("for good"))
        }
        Kind::Takes(millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            attempt.is_over();
            Ok(number)
        }
        _ => {
            attempt.is_over();
            Ok(number)
        }
    }
}

/// Every third of them fails first.
#[callback(name = "sim.report", max_attempts = 4, backoff = "1s..1m")]
pub(crate) async fn report(
    result: TaskResult,
    ctx: TaskContext,
    known: Data<Arc<Known>>,
) -> Result<(), TaskError> {
    known.trace(("hears of", result.id(), ctx.id()));
    if ctx.failures() == 0 && result.id().sequence().is_multiple_of(3) {
        return Err(TaskError::retry("not yet"));
    }
    known.hears(result.id(), ctx.id());
    Ok(())
}
