//! One execution of a task, from its claim to its end.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

pub(crate) use crate::cached::CachedInput;
use crate::clock::Timestamp;
use crate::codec::Codec;
use crate::queues::QueueIndex;
use crate::record::{Counters, Encoded, RetryPolicy, TaskFailure, TaskId};
use crate::registry::Definition;
use crate::result::TaskResult;
use crate::store::{KindId, Parent};

/// A claimed task: everything that running it and settling it needs.
pub(crate) struct Attempt {
    pub(crate) id: TaskId,
    pub(crate) definition: Arc<Definition>,
    /// As they were at the claim: `failures` doesn't count this attempt yet.
    pub(crate) counters: Counters,
    pub(crate) priority: i16,
    /// Where it stands in the order in which tasks are claimed.
    pub(crate) rank: i64,
    pub(crate) submitted_at: Timestamp,
    pub(crate) retry: RetryPolicy,
    pub(crate) timeout: Option<Duration>,
    pub(crate) input: Input,
    /// The durable callbacks to insert when the task ends.
    pub(crate) callbacks: Option<Arc<[Arc<str>]>>,
    /// Whether a target of the result lives in memory only.
    pub(crate) volatile: bool,
    /// The task whose result this durable callback is for.
    pub(crate) parent: Option<Parent>,
    /// What the store knows its row's kind by.
    pub(crate) kind: KindId,
    /// It holds a place of it until it ends.
    pub(crate) queue: QueueIndex,
    /// Its ordering key.
    pub(crate) key: Option<Arc<str>>,
    pub(crate) cancel: CancelToken,
    /// How long it was taken to last when it was claimed, in nanoseconds.
    pub(crate) lasts_ns: u64,
    /// The definition's index in the registry.
    pub(crate) index: usize,
    /// The worker whose credit it holds.
    pub(crate) worker: AtomicUsize,
    /// Whether it runs with nothing beside it, because the process died during it before.
    pub(crate) alone: Option<u64>,
    /// Somebody asked for the task's cancellation.
    pub(crate) cancel_requested: AtomicBool,
    /// A blocking attempt whose time is over.
    pub(crate) overdue: AtomicBool,
}

impl Attempt {
    /// For how long it keeps a slot from those that are claimed behind it, as far as is known, in
    /// nanoseconds: a blocking one runs elsewhere.
    pub(crate) fn slot_ns(&self) -> u64 {
        if self.definition.blocking { 0 } else { self.lasts_ns }
    }

    /// For how long a blocking one keeps a thread of the pool, as far as is known, in nanoseconds.
    pub(crate) fn thread_ns(&self) -> Option<u64> {
        self.definition.blocking.then_some(self.lasts_ns)
    }

    /// Asks the attempt to end: the task is to be cancelled.
    pub(crate) fn request_cancel(&self) {
        self.cancel_requested.store(true, Ordering::Release);
        self.cancel.cancel();
    }

    pub(crate) fn is_cancel_requested(&self) -> bool {
        self.cancel_requested.load(Ordering::Acquire)
    }

    /// Its time is over, and it can't be stopped.
    pub(crate) fn set_overdue(&self) {
        self.overdue.store(true, Ordering::Release);
        self.cancel.cancel();
    }

    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("id", &self.id)
            .field("name", &self.definition.name)
            .field("counters", &self.counters)
            .field("priority", &self.priority)
            .field("input", &self.input)
            .field("cancelled", &self.cancel.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// Encoded arguments, until the attempt takes them.
///
/// They needn't be kept while it runs. And who reads them is the one to free them: the thread of a
/// shard would wait for other threads that have the allocator allocate.
pub(crate) struct EncodedInput {
    pub(crate) codec: Codec,
    bytes: Mutex<Option<Arc<[u8]>>>,
}

impl EncodedInput {
    /// The bytes, once.
    pub(crate) fn take(&self) -> Option<Arc<[u8]>> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<[u8]>>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Encoded> for EncodedInput {
    fn from(Encoded { codec, bytes }: Encoded) -> EncodedInput {
        EncodedInput { codec, bytes: Mutex::new(Some(bytes)) }
    }
}

/// What an attempt is given. Its Debug output shows no values.
pub(crate) enum Input {
    /// The arguments as they are stored.
    Encoded(EncodedInput),
    /// Arguments that are kept in memory; `None` if they were lost.
    Cached(Option<Arc<dyn CachedInput>>),
    /// The result that a durable callback is for.
    Parent(TaskResult),
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Encoded(encoded) => match &*encoded.lock() {
                Some(bytes) => write!(f, "{:?}({} bytes)", encoded.codec, bytes.len()),
                None => write!(f, "{:?}(taken)", encoded.codec),
            },
            Input::Cached(Some(_)) => f.write_str("cached"),
            Input::Cached(None) => f.write_str("lost"),
            Input::Parent(result) => write!(f, "result of {}", result.id()),
        }
    }
}

/// How an attempt ended, if it wasn't stopped from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AttemptEnd {
    /// It returned a value.
    Finished(Encoded),
    /// It failed; the pause before the next attempt, if it asked for one.
    Failed { failure: TaskFailure, retry_in: Option<Duration> },
    /// It put itself off.
    Snoozed(Duration),
}

/// Tells a running attempt that it should end. Set once, never unset.
#[derive(Debug, Default)]
pub(crate) struct CancelToken {
    cancelled: AtomicBool,
    changed: Notify,
}

impl CancelToken {
    pub(crate) fn new() -> Self {
        CancelToken::default()
    }

    /// Sets the token and wakes all who wait for it.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Waits until the token is set; at once if it is.
    pub(crate) async fn cancelled(&self) {
        let mut changed = pin!(self.changed.notified());
        // Enlisted before the flag is read, so that a `cancel` between the two isn't missed.
        changed.as_mut().enable();
        if !self.is_cancelled() {
            changed.await;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
