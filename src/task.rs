//! Task definitions: what a task takes, what it returns, and how it is run.
//!
//! [`#[task]`](crate::task) and [`#[callback]`](crate::callback) write implementations of [`Task`]
//! and [`CallbackTask`]; without the macros they are written by hand and mounted by
//! `register::<T>()`.

mod context;
mod failure;
mod handler;

use std::any::{TypeId, type_name};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use context::DataMap;
pub use context::{Data, FromContext, TaskContext};
pub use failure::{TaskError, TaskReturn};
pub use handler::{CallbackHandler, Handler};
pub(crate) use handler::{Run, Start};

use crate::codec::Codec;

/// The longest timeout and the longest pause between two attempts.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The highest `max_attempts`.
pub(crate) const ATTEMPTS_MAX: u32 = 1000;

/// A task definition: a name, the types of its arguments and its output, and a handler.
///
/// [`#[task]`](crate::task) implements it for the unit struct `Task` in the module that it puts
/// beside the function. By hand:
///
/// ```
/// use message_queue_sqlite::{Handler, Task, TaskError};
///
/// struct Add;
///
/// impl Task for Add {
///     type Args = (i64, i64);
///     type Output = i64;
///     const NAME: &'static str = "add";
///
///     fn handler() -> Handler<Self> {
///         Handler::future(|(a, b): (i64, i64), _| async move {
///             a.checked_add(b).ok_or_else(|| TaskError::fatal("the sum is too large"))
///         })
///     }
/// }
/// ```
pub trait Task: Sized + 'static {
    /// The arguments: one bare, several as a tuple (in JSON an array), none as `()`.
    type Args: 'static;
    /// What the task returns when it ends well; encoded with the codec of its arguments.
    type Output: Serialize + DeserializeOwned + 'static;
    /// Unique among everything that is mounted; matches `^[a-z0-9_][a-z0-9_.-]{0,62}$`.
    const NAME: &'static str;

    /// The options that a submission may override.
    #[must_use]
    fn options() -> TaskOptions {
        TaskOptions::default()
    }

    /// The `Data<T>` that the handler needs; what is missing fails the start of the queue.
    #[must_use]
    fn requires() -> Vec<Requirement> {
        Vec::new()
    }

    /// The code that runs for each attempt.
    #[must_use]
    fn handler() -> Handler<Self>;
}

/// A durable callback: a task whose one argument is another task's
/// [`TaskResult`](crate::TaskResult), and which returns nothing.
///
/// [`#[callback]`](crate::callback) implements it for the unit struct `Callback` in the module that
/// it puts beside the function.
pub trait CallbackTask: Sized + 'static {
    /// Unique among everything that is mounted; matches `^[a-z0-9_][a-z0-9_.-]{0,62}$`.
    const NAME: &'static str;

    /// How often and how fast the callback is tried again.
    #[must_use]
    fn options() -> TaskOptions {
        TaskOptions::default()
    }

    /// The `Data<T>` that the handler needs; what is missing fails the start of the queue.
    #[must_use]
    fn requires() -> Vec<Requirement> {
        Vec::new()
    }

    /// The code that runs for each attempt.
    #[must_use]
    fn handler() -> CallbackHandler;
}

/// The options of a definition. What isn't set comes from the queue's settings; a submission may
/// override all but the codec.
///
/// Values out of range are reported when the queue starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskOptions {
    pub(crate) queue: Option<Cow<'static, str>>,
    pub(crate) priority: i16,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) backoff: Option<(Duration, Duration)>,
    pub(crate) codec: Codec,
}

impl TaskOptions {
    /// No option is set: priority 0, bincode, and the queue's settings for the rest.
    #[must_use]
    pub fn new() -> Self {
        TaskOptions::default()
    }

    /// The named queue of its tasks, `"default"` if not set. Queues are paused and limited by name;
    /// the form of a name is that of tasks.
    #[must_use]
    pub fn queue(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.queue = Some(name.into());
        self
    }

    /// Higher goes first. The default is 0.
    #[must_use]
    pub fn priority(mut self, priority: i16) -> Self {
        self.priority = priority;
        self
    }

    /// How many failures end the task, from 1 to 1,000.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// How long one attempt may take, from 1 ms to 365 days.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The upper bounds of the first and of the longest pause before a retry, at most 365 days.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = Some((min, max));
        self
    }

    /// How typed submissions encode their arguments. A result is encoded as its task's arguments
    /// are; that of a task with cached arguments with this codec.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Every option that is out of its range: its name, what was given, what is allowed.
    pub(crate) fn mistakes(&self) -> Vec<(&'static str, String, &'static str)> {
        let mut mistakes = Vec::new();
        if let Some(queue) = self.queue.as_deref()
            && !crate::registry::is_valid_name(queue)
        {
            let given = format!("{:?}", queue.chars().take(80).collect::<String>());
            mistakes.push(("queue", given, "a name that matches ^[a-z0-9_][a-z0-9_.-]{0,62}$"));
        }
        if let Some(attempts) = self.max_attempts
            && !(1..=ATTEMPTS_MAX).contains(&attempts)
        {
            mistakes.push(("max_attempts", attempts.to_string(), "from 1 to 1000"));
        }
        if let Some(timeout) = self.timeout
            && !(Duration::from_millis(1)..=LONGEST).contains(&timeout)
        {
            mistakes.push(("timeout", format!("{timeout:?}"), "from 1 ms to 365 days"));
        }
        if let Some((min, max)) = self.backoff
            && (min > max || max > LONGEST)
        {
            let given = format!("{min:?}..{max:?}");
            mistakes.push(("backoff", given, "an ascending range up to 365 days"));
        }
        mistakes
    }
}

/// A type that a definition takes as `Data<T>`.
#[derive(Clone, Copy)]
pub struct Requirement {
    pub(crate) type_id: TypeId,
    pub(crate) type_name: &'static str,
}

impl Requirement {
    /// The definition takes `Data<T>`.
    #[must_use]
    pub fn of<T: Send + Sync + 'static>() -> Self {
        Requirement { type_id: TypeId::of::<T>(), type_name: type_name::<T>() }
    }
}

impl fmt::Debug for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data<{}>", self.type_name)
    }
}

#[cfg(test)]
mod tests;
