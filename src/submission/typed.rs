//! A submission that knows its definition's types.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::Recipient;
use serde::Serialize;

use super::{Arguments, CallbackRef, Name, Submit};
use crate::attempt::CachedInput;
use crate::codec;
use crate::panic_message::OneByOne;
use crate::record::TaskId;
use crate::result::TaskResult;
use crate::task::Task;

/// The most that is encoded before the queue's own limit is known, in bytes: the largest that the
/// settings allow it to be.
const ENCODE_MAX: usize = 512 * 1024 * 1024;

/// One task of a known definition to submit. Made by the `task` function that `#[task]` generates.
pub struct Submission<T: Task> {
    pub(crate) submit: Submit,
    definition: PhantomData<fn() -> T>,
}

impl<T: Task> Submission<T> {
    /// A submission with serialisable arguments: one bare, several as a tuple, none as `()`.
    ///
    /// Arguments that don't encode are reported when it is submitted.
    #[must_use]
    pub fn new(args: T::Args) -> Self
    where
        T::Args: Serialize,
    {
        let codec = T::options().codec;
        let arguments = match codec::encode(codec, &args, ENCODE_MAX) {
            Ok(bytes) => Arguments::Encoded { codec, bytes },
            Err(error) => Arguments::Failed(error.into()),
        };
        Submission::with(arguments)
    }

    #[doc(hidden)]
    #[must_use]
    pub fn cached(input: Arc<dyn CachedInput>) -> Self {
        Submission::with(Arguments::Cached(OneByOne(vec![input])))
    }

    fn with(arguments: Arguments) -> Self {
        Submission {
            submit: Submit::with(Name::Static(T::NAME), arguments),
            definition: PhantomData,
        }
    }
}

/// Forwards an option to the untyped submission, with its documentation.
macro_rules! forward {
    ($($method:ident($($arg:ident: $type:ty),*)),* $(,)?) => {
        impl<T: Task> Submission<T> {
            $(
                #[doc = concat!("See [`Submit::", stringify!($method), "`].")]
                #[must_use]
                pub fn $method(mut self, $($arg: $type),*) -> Self {
                    self.submit = self.submit.$method($($arg),*);
                    self
                }
            )*
        }
    };
}

forward! {
    queue(name: impl Into<Arc<str>>),
    key(key: impl Into<Arc<str>>),
    priority(priority: i16),
    delay(delay: Duration),
    at(time: SystemTime),
    max_attempts(attempts: u32),
    timeout(timeout: Duration),
    backoff(min: Duration, max: Duration),
    reply_to(mailbox: Recipient<TaskResult>),
    on_result(closure: impl FnOnce(TaskResult) + Send + 'static),
    then(callback: CallbackRef),
    with_id(id: TaskId),
}

impl<T: Task> fmt::Debug for Submission<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.submit.fmt(f)
    }
}
