//! The nouns that are stored: ids, statuses, outcomes, records.

mod id;
mod sequences;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use id::SEQUENCE_MAX;
pub use id::{ParseTaskIdError, ShardId, TaskId};
pub(crate) use sequences::{BySequence, Sequences};

use crate::clock::Timestamp;
use crate::codec::{self, Codec, CodecError};

/// One word for where a task is, with the Python package's numbers for the first six.
///
/// It is a view of two things that are kept apart: how execution ended ([`Outcome`]) and what
/// became of the notification ([`Delivery`]). A failed task whose callback was called shows
/// `Callbacked`; its outcome still says `Failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TaskStatus {
    /// Submitted; waits for its time, its turn or its next attempt.
    NotStarted = 1,
    /// An attempt is claimed: it runs or waits in a worker.
    Running = 2,
    /// Ended well, and nobody has been notified (yet).
    Finished = 3,
    /// Ended badly for good, and nobody has been notified (yet).
    Failed = 4,
    /// Ended, and every target of the result has it.
    Callbacked = 5,
    /// Ended, and the result is on its way to its targets.
    Callbacking = 6,
    /// Cancelled before it ended.
    Cancelled = 7,
    /// Not started before its time ran out. Reserved: nothing sets it yet.
    Expired = 8,
}

impl TaskStatus {
    /// Every status, in the order of their numbers.
    pub const ALL: [TaskStatus; 8] = [
        TaskStatus::NotStarted,
        TaskStatus::Running,
        TaskStatus::Finished,
        TaskStatus::Failed,
        TaskStatus::Callbacked,
        TaskStatus::Callbacking,
        TaskStatus::Cancelled,
        TaskStatus::Expired,
    ];

    /// The number: 1 to 6 as in the Python package, our own from 7.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The status with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        TaskStatus::ALL.into_iter().find(|status| status.code() == code)
    }

    /// Whether the task's execution is over.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        !matches!(self, TaskStatus::NotStarted | TaskStatus::Running)
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskStatus::NotStarted => "not_started",
            TaskStatus::Running => "running",
            TaskStatus::Finished => "finished",
            TaskStatus::Failed => "failed",
            TaskStatus::Callbacked => "callbacked",
            TaskStatus::Callbacking => "callbacking",
            TaskStatus::Cancelled => "cancelled",
            TaskStatus::Expired => "expired",
        })
    }
}

/// How a task's execution ended. Never overwritten by what happens to the callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Outcome {
    /// It returned a value.
    Finished,
    /// It failed for good: no attempt is left, or the failure was fatal.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Its time ran out before it started. Reserved: nothing sets it yet.
    Expired,
}

/// What became of the notification of a task's end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// Nobody asked for the result, or the task hasn't ended.
    None,
    /// Someone asked for it; it waits for its turn.
    Pending,
    /// It is on its way.
    Callbacking,
    /// Every target has it.
    Callbacked,
    /// At least one target will never get it, and why.
    Dead(DeadReason),
}

/// Why a result will never reach one of its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DeadReason {
    /// The target lived in memory, and its process or mailbox is gone.
    SubscriberGone,
    /// The target was too slow: its window and its backlog were full.
    SubscriberFull,
    /// The target panicked.
    SubscriberPanicked,
    /// A durable callback failed for good, or was cancelled.
    CallbackFailed,
}

/// What kind of failure ended an attempt or a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FailureKind {
    /// The task returned an error.
    Error,
    /// The task returned an error that must not be retried.
    Fatal,
    /// The task panicked.
    Panicked,
    /// The attempt took longer than its timeout.
    TimedOut,
    /// The stored arguments don't decode; their bytes are kept.
    Decode,
    /// The result could not be encoded.
    Encode,
    /// The result is larger than the limit.
    ResultTooLarge,
    /// The cached arguments are gone: the process ended, or an earlier attempt took them.
    LostArguments,
    /// The process died during this task's attempts too often.
    Crashed,
    /// The stored row's checksum doesn't match; the task never ran with it.
    Corrupt,
}

impl FailureKind {
    /// Whether another attempt could end better.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, FailureKind::Error | FailureKind::Panicked | FailureKind::TimedOut)
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailureKind::Error => "error",
            FailureKind::Fatal => "fatal error",
            FailureKind::Panicked => "panicked",
            FailureKind::TimedOut => "timed out",
            FailureKind::Decode => "arguments do not decode",
            FailureKind::Encode => "result does not encode",
            FailureKind::ResultTooLarge => "result too large",
            FailureKind::LostArguments => "cached arguments lost",
            FailureKind::Crashed => "crashed the process",
            FailureKind::Corrupt => "stored row is corrupt",
        })
    }
}

/// Why an attempt or a task failed: the kind, and what the task itself said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskFailure {
    /// What kind of failure it was.
    pub kind: FailureKind,
    /// The error's text with its causes, or the panic's message and place; at most 4 KiB.
    pub message: String,
}

/// The longest error text that is kept, in bytes.
const MESSAGE_MAX: usize = 4096;

impl TaskFailure {
    /// Makes a failure; the message is cut at 4 KiB.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_MAX {
            let cut = (0..=MESSAGE_MAX).rev().find(|at| message.is_char_boundary(*at));
            message.truncate(cut.unwrap_or(0));
        }
        TaskFailure { kind, message }
    }
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            self.kind.fmt(f)
        } else {
            write!(f, "{}: {}", self.kind, self.message)
        }
    }
}

/// Encoded bytes and the codec that reads them. Its Debug output shows the length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Which codec wrote the bytes.
    pub codec: Codec,
    /// The bytes.
    pub bytes: Arc<[u8]>,
}

impl Encoded {
    /// The value that the bytes stand for: of a record's payload the arguments, one bare, several
    /// as a tuple; of its output what the task returned.
    ///
    /// # Errors
    ///
    /// The bytes aren't a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        codec::decode(self.codec, &self.bytes)
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({} bytes)", self.codec, self.bytes.len())
    }
}

/// The three counters of a task's attempts, never mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Goes up at each claim, never down: the fence of everything that an attempt writes.
    pub claim_no: u32,
    /// Errors, panics and timeouts: what `max_attempts` limits.
    pub failures: u32,
    /// How often the process died while the task was claimed.
    pub crashes: u32,
}

/// How often and how fast a failing task is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// How many failures end the task, from 1.
    pub(crate) max_attempts: u32,
    /// The upper bound of the first pause; it doubles with each failure.
    pub(crate) backoff_min: Duration,
    /// The longest pause.
    pub(crate) backoff_max: Duration,
}

/// A task as it is stored, read at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskRecord {
    /// The task's id.
    pub id: TaskId,
    /// The name of its definition.
    pub name: Arc<str>,
    /// The named queue that it is in.
    pub queue: Arc<str>,
    /// Its ordering key, if it has one.
    pub key: Option<Arc<str>>,
    /// The one-word view of outcome and delivery.
    pub status: TaskStatus,
    /// How execution ended, if it did.
    pub outcome: Option<Outcome>,
    /// What became of the notification.
    pub delivery: Delivery,
    /// Higher first.
    pub priority: i16,
    /// Claims, failures and crashes.
    pub counters: Counters,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// Before when it won't start, if it waits for a time.
    pub due_at: Option<Timestamp>,
    /// When its latest attempt was claimed.
    pub started_at: Option<Timestamp>,
    /// When execution ended.
    pub ended_at: Option<Timestamp>,
    /// The task whose end this durable callback reports.
    pub parent: Option<TaskId>,
    /// The arguments; absent while they are cached in memory only, and for callbacks.
    pub payload: Option<Encoded>,
    /// What the task returned.
    pub output: Option<Encoded>,
    /// The latest failure.
    pub error: Option<TaskFailure>,
}
