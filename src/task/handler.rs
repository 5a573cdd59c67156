//! From a function with typed arguments to one shape that a worker can run.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DataMap, Task, TaskContext, TaskError, TaskReturn};
use crate::attempt::{Attempt, AttemptEnd, Input};
use crate::codec::{self, Codec, CodecError};
use crate::record::{Encoded, FailureKind, TaskFailure};
use crate::result::TaskResult;

/// Starts an attempt; the number is the largest result that is stored, in bytes.
pub(crate) type Start = Arc<dyn Fn(Arc<Attempt>, Arc<DataMap>, usize) -> Run + Send + Sync>;

/// What a started attempt leaves to do. Panics of the function go through.
pub(crate) enum Run {
    /// Nothing: it couldn't start.
    Ended(AttemptEnd),
    /// Poll this, on the thread that started it.
    Future(Pin<Box<dyn Future<Output = AttemptEnd>>>),
    /// Call this, on a thread that may block.
    Blocking(Box<dyn FnOnce() -> AttemptEnd + Send>),
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Run::Ended(end) => end.fmt(f),
            Run::Future(_) => f.write_str("Future"),
            Run::Blocking(_) => f.write_str("Blocking"),
        }
    }
}

/// The code of a task, and how it wants to be run.
///
/// Futures run on the thread of the worker that took the attempt, so they need not be `Send`; they
/// are dropped when the attempt's time is over. Blocking functions run on a bounded pool of
/// threads; one that is past its time is told by [`TaskContext::is_cancelled`] and goes on.
pub struct Handler<T> {
    pub(super) start: Start,
    pub(super) blocking: bool,
    pub(super) cached: bool,
    task: PhantomData<fn() -> T>,
}

impl<T: Task> Handler<T> {
    /// Runs an async function with arguments that are stored in the file.
    pub fn future<F, Fut>(function: F) -> Self
    where
        T::Args: DeserializeOwned,
        F: Fn(T::Args, TaskContext) -> Fut + Send + Sync + 'static,
        Fut: Future + 'static,
        Fut::Output: TaskReturn<Output = T::Output>,
    {
        Handler::try_future(move |args, ctx| Ok(function(args, ctx)))
    }

    /// Runs a blocking function with arguments that are stored in the file.
    pub fn blocking<F, R>(function: F) -> Self
    where
        T::Args: DeserializeOwned,
        F: Fn(T::Args, TaskContext) -> R + Send + Sync + 'static,
        R: TaskReturn<Output = T::Output>,
    {
        let start = start_blocking(decode::<T::Args>, function);
        Handler { start, blocking: true, cached: false, task: PhantomData }
    }

    /// Runs an async function with arguments that are kept in memory only.
    pub fn cached_future<F, Fut>(function: F) -> Self
    where
        F: Fn(T::Args, TaskContext) -> Fut + Send + Sync + 'static,
        Fut: Future + 'static,
        Fut::Output: TaskReturn<Output = T::Output>,
    {
        Handler::try_cached_future(move |args, ctx| Ok(function(args, ctx)))
    }

    /// Runs a blocking function with arguments that are kept in memory only.
    pub fn cached_blocking<F, R>(function: F) -> Self
    where
        F: Fn(T::Args, TaskContext) -> R + Send + Sync + 'static,
        R: TaskReturn<Output = T::Output>,
    {
        let start = start_blocking(cached::<T::Args>, function);
        Handler { start, blocking: true, cached: true, task: PhantomData }
    }

    /// As [`future`](Handler::future), for a function that may not get as far as a future.
    #[doc(hidden)]
    pub fn try_future<F, Fut>(function: F) -> Self
    where
        T::Args: DeserializeOwned,
        F: Fn(T::Args, TaskContext) -> Result<Fut, TaskError> + Send + Sync + 'static,
        Fut: Future + 'static,
        Fut::Output: TaskReturn<Output = T::Output>,
    {
        let start = start_future(decode::<T::Args>, function);
        Handler { start, blocking: false, cached: false, task: PhantomData }
    }

    /// As [`cached_future`](Handler::cached_future), for a function that may not get as far as a
    /// future.
    #[doc(hidden)]
    pub fn try_cached_future<F, Fut>(function: F) -> Self
    where
        F: Fn(T::Args, TaskContext) -> Result<Fut, TaskError> + Send + Sync + 'static,
        Fut: Future + 'static,
        Fut::Output: TaskReturn<Output = T::Output>,
    {
        let start = start_future(cached::<T::Args>, function);
        Handler { start, blocking: false, cached: true, task: PhantomData }
    }
}

impl<T> Handler<T> {
    /// The erased start, whether it blocks, whether its arguments are cached.
    pub(crate) fn into_parts(self) -> (Start, bool, bool) {
        (self.start, self.blocking, self.cached)
    }
}

impl<T> fmt::Debug for Handler<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("blocking", &self.blocking)
            .field("cached", &self.cached)
            .finish_non_exhaustive()
    }
}

/// The code of a durable callback, and how it wants to be run. See [`Handler`].
pub struct CallbackHandler {
    start: Start,
    blocking: bool,
}

impl CallbackHandler {
    /// Runs an async function.
    pub fn future<F, Fut>(function: F) -> Self
    where
        F: Fn(TaskResult, TaskContext) -> Fut + Send + Sync + 'static,
        Fut: Future + 'static,
        Fut::Output: TaskReturn<Output = ()>,
    {
        CallbackHandler::try_future(move |result, ctx| Ok(function(result, ctx)))
    }

    /// Runs a blocking function.
    pub fn blocking<F, R>(function: F) -> Self
    where
        F: Fn(TaskResult, TaskContext) -> R + Send + Sync + 'static,
        R: TaskReturn<Output = ()>,
    {
        CallbackHandler { start: start_blocking(parent, function), blocking: true }
    }

    /// As [`future`](CallbackHandler::future), for a function that may not get as far as a future.
    #[doc(hidden)]
    pub fn try_future<F, Fut>(function: F) -> Self
    where
        F: Fn(TaskResult, TaskContext) -> Result<Fut, TaskError> + Send + Sync + 'static,
        Fut: Future + 'static,
        Fut::Output: TaskReturn<Output = ()>,
    {
        CallbackHandler { start: start_future(parent, function), blocking: false }
    }

    /// The erased start, and whether it blocks.
    pub(crate) fn into_parts(self) -> (Start, bool) {
        (self.start, self.blocking)
    }
}

impl fmt::Debug for CallbackHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackHandler").field("blocking", &self.blocking).finish_non_exhaustive()
    }
}

/// Where a function's arguments come from.
type Read<A> = fn(&Attempt) -> Result<A, AttemptEnd>;

fn start_future<A, F, Fut, R>(read: Read<A>, function: F) -> Start
where
    A: 'static,
    F: Fn(A, TaskContext) -> Result<Fut, TaskError> + Send + Sync + 'static,
    Fut: Future<Output = R> + 'static,
    R: TaskReturn<Output: Serialize>,
{
    Arc::new(move |attempt, data, result_limit| {
        let args = match read(&attempt) {
            Ok(args) => args,
            Err(end) => return Run::Ended(end),
        };
        let codec = output_codec(&attempt);
        match function(args, TaskContext::new(attempt, data)) {
            Ok(future) => Run::Future(Box::pin(async move {
                let returned = future.await;
                end(returned, codec, result_limit)
            })),
            Err(error) => Run::Ended(error.into_end()),
        }
    })
}

fn start_blocking<A, F, R>(read: Read<A>, function: F) -> Start
where
    A: 'static,
    F: Fn(A, TaskContext) -> R + Send + Sync + 'static,
    R: TaskReturn<Output: Serialize>,
{
    let function = Arc::new(function);
    Arc::new(move |attempt, data, result_limit| {
        let function = Arc::clone(&function);
        Run::Blocking(Box::new(move || match read(&attempt) {
            Ok(args) => {
                let codec = output_codec(&attempt);
                end(function(args, TaskContext::new(attempt, data)), codec, result_limit)
            }
            Err(end) => end,
        }))
    })
}

fn decode<A: DeserializeOwned>(attempt: &Attempt) -> Result<A, AttemptEnd> {
    match &attempt.input {
        Input::Encoded(encoded) => {
            let Some(bytes) = encoded.take() else {
                return Err(failed(FailureKind::LostArguments, "the arguments were read before"));
            };
            codec::decode(encoded.codec, &bytes)
                .map_err(|error| failed(FailureKind::Decode, error.to_string()))
        }
        Input::Cached(_) | Input::Parent(_) => {
            Err(failed(FailureKind::LostArguments, "the task was stored without arguments"))
        }
    }
}

fn cached<A: 'static>(attempt: &Attempt) -> Result<A, AttemptEnd> {
    let Input::Cached(input) = &attempt.input else {
        return Err(failed(FailureKind::Decode, "the task takes arguments kept in memory only"));
    };
    let Some(input) = input else {
        return Err(failed(FailureKind::LostArguments, "the process that kept them has ended"));
    };
    let Some(arguments) = input.arguments() else {
        return Err(failed(FailureKind::LostArguments, "an earlier attempt took one"));
    };
    match arguments.downcast() {
        Ok(arguments) => Ok(*arguments),
        Err(_) => Err(failed(FailureKind::Decode, "the cached arguments are of another type")),
    }
}

fn parent(attempt: &Attempt) -> Result<TaskResult, AttemptEnd> {
    match &attempt.input {
        Input::Parent(result) => Ok(result.clone()),
        Input::Encoded(_) | Input::Cached(_) => {
            Err(failed(FailureKind::Decode, "a callback takes another task's result"))
        }
    }
}

/// A result is encoded as the arguments were; where there are none, as the definition says.
fn output_codec(attempt: &Attempt) -> Codec {
    match &attempt.input {
        Input::Encoded(encoded) => encoded.codec,
        Input::Cached(_) | Input::Parent(_) => attempt.definition.options.codec,
    }
}

fn end<R: TaskReturn<Output: Serialize>>(
    returned: R,
    codec: Codec,
    result_limit: usize,
) -> AttemptEnd {
    let output = match returned.into_result() {
        Ok(output) => output,
        Err(error) => return error.into_end(),
    };
    match codec::encode(codec, &output, result_limit) {
        Ok(bytes) => AttemptEnd::Finished(Encoded { codec, bytes }),
        Err(error @ CodecError::TooLarge { .. }) => {
            failed(FailureKind::ResultTooLarge, error.to_string())
        }
        Err(error) => failed(FailureKind::Encode, error.to_string()),
    }
}

fn failed(kind: FailureKind, message: impl Into<String>) -> AttemptEnd {
    AttemptEnd::Failed { failure: TaskFailure::new(kind, message), retry_in: None }
}
