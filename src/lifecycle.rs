//! A task's life, as a pure state machine.
//!
//! ```text
//!                      submit                         redrive
//!             ┌──────────┴──────────┐        ┌───────────────────────┐
//!             ▼                     ▼        ▼    release, crash,    │
//!         Waiting ──── due ────▶ Ready ◀─────┼─── again, now ───┐    │
//!             ▲                     │                           │    │
//!             │                   claim: claim_no + 1           │    │
//!             │                     ▼                           │    │
//!             └── again, later ── Running ──────────────────────┘    │
//!                (retry, snooze)    │  finish, fail, cancel,         │
//!                                   │  crash limit                   │
//!                                   ▼                                │
//!    cancel, from Waiting ───▶   Ended: Finished · Failed · Cancelled · Expired
//!    or Ready                       │
//!                                   ▼
//!    delivery:  None ─▶ Pending ─▶ Callbacking ─▶ Callbacked
//!                         └────────────┴────────▶ Dead (with a reason)
//! ```
//!
//! Delay, retry and snooze are one transition: ready again at a time, by which it stands in the order.
//! What was given back or hit by a crash is ready again where it stood before. Execution ends in an
//! [`Outcome`] and delivery never overwrites it. The CHECK constraints of
//! `store/schema/0001_tasks.sql` say the same to the database.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::record::{
    Counters, Delivery, FailureKind, Outcome, RetryPolicy, TaskFailure, TaskStatus,
};
use crate::retry;

/// Where a task's execution is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Waiting,
    Ready,
    Running,
    /// Behind another task of its key, which hasn't ended.
    Held,
    Ended(Outcome),
}

impl State {
    /// The number in the `state` column.
    pub(crate) const fn code(self) -> u8 {
        match self {
            State::Waiting => 0,
            State::Ready => 1,
            State::Running => 2,
            State::Held => 10,
            State::Ended(Outcome::Finished) => 3,
            State::Ended(Outcome::Failed) => 4,
            State::Ended(Outcome::Cancelled) => 7,
            State::Ended(Outcome::Expired) => 8,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<State> {
        Some(match code {
            0 => State::Waiting,
            1 => State::Ready,
            2 => State::Running,
            3 => State::Ended(Outcome::Finished),
            4 => State::Ended(Outcome::Failed),
            7 => State::Ended(Outcome::Cancelled),
            8 => State::Ended(Outcome::Expired),
            10 => State::Held,
            _ => return None,
        })
    }

    pub(crate) const fn outcome(self) -> Option<Outcome> {
        match self {
            State::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }
}

/// The number in the `delivery` column.
pub(crate) const fn delivery_code(delivery: &Delivery) -> u8 {
    match delivery {
        Delivery::None => 0,
        Delivery::Pending => 1,
        Delivery::Callbacking => 6,
        Delivery::Callbacked => 5,
        Delivery::Dead(_) => 9,
    }
}

/// The one-word view of both halves.
pub(crate) const fn status(state: State, delivery: &Delivery) -> TaskStatus {
    match (state, delivery) {
        (State::Waiting | State::Ready | State::Held, _) => TaskStatus::NotStarted,
        (State::Running, _) => TaskStatus::Running,
        (State::Ended(_), Delivery::Callbacking) => TaskStatus::Callbacking,
        (State::Ended(_), Delivery::Callbacked) => TaskStatus::Callbacked,
        (State::Ended(Outcome::Finished), _) => TaskStatus::Finished,
        (State::Ended(Outcome::Failed), _) => TaskStatus::Failed,
        (State::Ended(Outcome::Cancelled), _) => TaskStatus::Cancelled,
        (State::Ended(Outcome::Expired), _) => TaskStatus::Expired,
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AttemptEvent {
    /// It returned a value.
    Finished,
    /// It failed; `retry_in` is the task's own wish.
    Failed { failure: TaskFailure, retry_in: Option<Duration> },
    /// It asked to be run again later, and that isn't a failure.
    Snoozed(Duration),
    /// It was given back before it did anything, or at shutdown: costs nothing.
    Released,
    /// The process died during it.
    Crashed,
}

/// What becomes of a task after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It may run again at this time, and stands in the order as one that comes then.
    Again { at: Timestamp },
    /// It may run again at once, and stands where it stood: it isn't its fault that it didn't end.
    Back,
    /// Its execution is over.
    Ended(Outcome),
}

/// The state machine's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) next: Next,
    pub(crate) counters: Counters,
    /// The failure to keep with the task, if this attempt had one.
    pub(crate) failure: Option<TaskFailure>,
}

/// What a transition depends on besides the event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    pub(crate) now: Timestamp,
    pub(crate) counters: Counters,
    pub(crate) retry: RetryPolicy,
    /// How many counted crashes end a task.
    pub(crate) max_crashes: u32,
    /// Whether someone asked for the task's cancellation while it ran.
    pub(crate) cancel_requested: bool,
    /// An evenly spread random number, for the jitter.
    pub(crate) random: u64,
}

/// From how many crashes on a task runs alone.
///
/// A crash ends every attempt of the process, so the first ones prove nothing about this task. One
/// that died alone does: only such a crash leads on to the limit. With a limit of 1 nothing runs
/// again, alone or not.
pub(crate) fn suspect_at(max_crashes: u32) -> u32 {
    max_crashes.max(2) - 1
}

/// Moves a running task on after its attempt's end.
pub(crate) fn after_attempt(event: AttemptEvent, situation: &Situation) -> Transition {
    let Situation { now, mut counters, retry, cancel_requested, random, .. } = *situation;
    let cancelled = Next::Ended(Outcome::Cancelled);
    let (next, failure) = match event {
        AttemptEvent::Finished => (Next::Ended(Outcome::Finished), None),
        AttemptEvent::Failed { failure, .. } if cancel_requested => {
            counters.failures = counters.failures.saturating_add(1);
            (cancelled, Some(failure))
        }
        AttemptEvent::Failed { failure, retry_in } => {
            counters.failures = counters.failures.saturating_add(1);
            let over = counters.failures >= retry.max_attempts || !failure.kind.is_retryable();
            let next = if over {
                Next::Ended(Outcome::Failed)
            } else {
                let pause =
                    retry_in.unwrap_or_else(|| retry::pause(&retry, counters.failures, random));
                Next::Again { at: now.saturating_add(pause) }
            };
            (next, Some(failure))
        }
        AttemptEvent::Snoozed(_) | AttemptEvent::Released | AttemptEvent::Crashed
            if cancel_requested =>
        {
            (cancelled, None)
        }
        AttemptEvent::Snoozed(pause) => (Next::Again { at: now.saturating_add(pause) }, None),
        AttemptEvent::Released => (Next::Back, None),
        AttemptEvent::Crashed => {
            counters.crashes = counters.crashes.saturating_add(1);
            after_crash(counters, situation)
        }
    };
    Transition { next, counters, failure }
}

fn after_crash(counters: Counters, situation: &Situation) -> (Next, Option<TaskFailure>) {
    if counters.crashes < situation.max_crashes {
        return (Next::Back, None);
    }
    let message = format!("the process died during {} of its attempts", counters.crashes);
    let failure = TaskFailure::new(FailureKind::Crashed, message);
    (Next::Ended(Outcome::Failed), Some(failure))
}

/// What cancelling a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancel {
    /// It hasn't started: it ends now.
    End,
    /// It runs: its token is set, and it ends when the attempt does.
    Request,
    /// It is over.
    TooLate,
}

/// Decides on a cancellation.
pub(crate) fn cancel(state: State) -> Cancel {
    match state {
        State::Waiting | State::Ready | State::Held => Cancel::End,
        State::Running => Cancel::Request,
        State::Ended(_) => Cancel::TooLate,
    }
}

/// Whether a task may be sent round again: it ended without success and nothing of it is under way.
pub(crate) fn may_redrive(state: State, delivery: &Delivery) -> bool {
    let over = !matches!(delivery, Delivery::Pending | Delivery::Callbacking);
    over && matches!(state, State::Ended(outcome) if outcome != Outcome::Finished)
}

#[cfg(test)]
mod tests;
