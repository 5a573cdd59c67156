//! What a task's function may return.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::attempt::AttemptEnd;
use crate::record::{FailureKind, TaskFailure};

/// How many causes of an error are kept.
const SOURCES_MAX: usize = 16;

/// Why an attempt failed, and what is to become of the task.
///
/// Any [`std::error::Error`] turns into one that is retried, with the texts of its sources; so `?`
/// works in a function that returns `Result<_, TaskError>`. It isn't a `std::error::Error` itself.
/// An error of another kind, a text for example, is wrapped: `.map_err(TaskError::retry)`.
#[derive(Clone, PartialEq, Eq)]
pub struct TaskError {
    verdict: Verdict,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Retry,
    RetryIn(Duration),
    Fatal,
    Snooze(Duration),
}

impl TaskError {
    /// Ends the task as failed, whatever attempts are left.
    pub fn fatal(message: impl fmt::Display) -> Self {
        TaskError::new(Verdict::Fatal, message)
    }

    /// Fails this attempt. The next one starts after the task's backoff; if this was the last, the
    /// task ends as failed.
    pub fn retry(message: impl fmt::Display) -> Self {
        TaskError::new(Verdict::Retry, message)
    }

    /// Fails this attempt. The next one starts after `pause` instead of the backoff; at most 365
    /// days.
    pub fn retry_in(pause: Duration, message: impl fmt::Display) -> Self {
        TaskError::new(Verdict::RetryIn(pause), message)
    }

    /// Puts the task off: it runs again after `pause`, at most 365 days, and this doesn't count as
    /// a failure.
    #[must_use]
    pub fn snooze(pause: Duration) -> Self {
        TaskError { verdict: Verdict::Snooze(pause), message: String::new() }
    }

    /// The alternate form is the one with the causes, for errors that aren't `std::error::Error`.
    fn new(verdict: Verdict, message: impl fmt::Display) -> Self {
        TaskError { verdict, message: format!("{message:#}") }
    }

    pub(crate) fn into_end(self) -> AttemptEnd {
        let (kind, retry_in) = match self.verdict {
            Verdict::Snooze(pause) => return AttemptEnd::Snoozed(pause.min(super::LONGEST)),
            Verdict::Fatal => (FailureKind::Fatal, None),
            Verdict::Retry => (FailureKind::Error, None),
            Verdict::RetryIn(pause) => (FailureKind::Error, Some(pause.min(super::LONGEST))),
        };
        AttemptEnd::Failed { failure: TaskFailure::new(kind, self.message), retry_in }
    }
}

impl<E: Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        for _ in 0..SOURCES_MAX {
            let Some(cause) = source else { break };
            let text = cause.to_string();
            // Many errors repeat their source's text, against the convention.
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        TaskError { verdict: Verdict::Retry, message }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict {
            Verdict::Snooze(pause) => write!(f, "snoozed for {pause:?}"),
            _ => f.write_str(&self.message),
        }
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskError").field(&self.verdict).field(&self.message).finish()
    }
}

/// What a task's function may return: `Result<T, E>` where `E` is a `std::error::Error` or a
/// [`TaskError`], or nothing.
#[diagnostic::on_unimplemented(
    message = "a task cannot return `{Self}`",
    label = "a task returns `Result<T, E>`, or nothing",
    note = "`E` is any `std::error::Error`, or `TaskError`; for others use `.map_err(TaskError::retry)`"
)]
pub trait TaskReturn {
    /// What the task returns when it ends well.
    type Output;

    /// The output, or why the attempt failed.
    ///
    /// # Errors
    ///
    /// The attempt failed.
    fn into_result(self) -> Result<Self::Output, TaskError>;
}

impl<T, E: Into<TaskError>> TaskReturn for Result<T, E> {
    type Output = T;

    fn into_result(self) -> Result<T, TaskError> {
        self.map_err(Into::into)
    }
}

impl TaskReturn for () {
    type Output = ();

    fn into_result(self) -> Result<(), TaskError> {
        Ok(())
    }
}
