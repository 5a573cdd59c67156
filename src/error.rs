//! The one public error.

use std::time::Duration;

use crate::codec::CodecError;
use crate::record::{FailureKind, ShardId, TaskId};
use crate::settings::{SettingsError, SettingsMistake};

/// What the queue's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong for a caller of the queue.
///
/// Messages name what could not be done, and to what; payload bytes appear in none.
/// [`Error::is_retryable`] tells whether the same call can succeed later. What a shard says is true of
/// that shard: [`Queue::submit_all`](crate::Queue::submit_all) tells what may be stored in others.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No task, callback or subscriber of this name is registered in this process.
    #[error("no task named {name:?} is registered")]
    UnknownTask {
        /// The name that was asked for.
        name: String,
    },

    /// A name isn't of the form `^[a-z0-9_][a-z0-9_.-]{0,62}$`.
    #[error("{name:?} is not a valid name; names match ^[a-z0-9_][a-z0-9_.-]{{0,62}}$")]
    InvalidName {
        /// The name, at most its first 80 characters.
        name: String,
    },

    /// The arguments of a submission don't encode.
    #[error("cannot encode the arguments of {name}")]
    Encode {
        /// The task's name.
        name: String,
        /// What the codec said.
        source: CodecError,
    },

    /// The task is another definition's than the handle's, or that has another name since. What it came
    /// to is in [`TaskHandle::result`](crate::TaskHandle::result) all the same.
    #[error("task {id} is a {name:?}, not a {expected:?}")]
    OtherTask {
        /// The task.
        id: TaskId,
        /// The name of its definition.
        name: String,
        /// The name of the handle's.
        expected: &'static str,
    },

    /// A stored result doesn't decode into the type that was asked for.
    #[error("cannot decode the output of task {id}")]
    Decode {
        /// The task.
        id: TaskId,
        /// What the codec said.
        source: CodecError,
    },

    /// The encoded arguments are larger than `limits.payload`.
    #[error("the payload has {actual} bytes, over the limit of {limit}")]
    PayloadTooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// What was submitted, in bytes; at least, if that is more than 512 MiB.
        actual: usize,
    },

    /// An option of a submission, definition or query is out of its range.
    #[error("{option} is {given}; allowed is {allowed}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What was given.
        given: String,
        /// What would have been allowed.
        allowed: &'static str,
    },

    /// Too many submissions wait for their commit (`limits.pending_submissions`,
    /// `limits.pending_bytes`), or too many tasks for their start (`limits.ready_tasks`), or the
    /// arguments of too many stay in memory (`limits.cached_arguments`), where
    /// [`Queue::submit`](crate::Queue::submit) waits by default. Nothing was stored.
    #[error("the queue is busy; try again after {retry_after:?}")]
    Busy {
        /// When it is worth to try again, from 1 ms to 10 s: an estimate of when half of what waits
        /// will have been stored, or enough tasks have started, by what the last commits and attempts
        /// took. If tasks with arguments in memory have to end, 50 ms at least. There may be no room
        /// then.
        retry_after: Duration,
    },

    /// The queue is shutting down or has ended; nothing was stored.
    #[error("the queue is shutting down")]
    ShuttingDown,

    /// The shard doesn't answer: it is being rebuilt, or it is quarantined after too many panics.
    #[error("shard {shard} is unavailable")]
    ShardUnavailable {
        /// The shard.
        shard: ShardId,
    },

    /// There is no space left on the disk; nothing was stored in this shard.
    #[error("no space is left for shard {shard}")]
    DiskFull {
        /// The shard.
        shard: ShardId,
    },

    /// The commit failed and the file couldn't be read back: the task may or may not be stored.
    /// Submitting it again with [`with_id`](crate::Submission::with_id) stores it at most once.
    #[error("it is unknown whether task {id} was stored")]
    Unknown {
        /// The id that the task has, if it was stored.
        id: TaskId,
    },

    /// Another process owns the directory.
    #[error("the queue directory is locked by process {pid} since {since}")]
    Locked {
        /// The owner's process id, or 0 if it couldn't be read.
        pid: u32,
        /// When the owner took it: seconds since the Unix epoch.
        since: u64,
    },

    /// This process is a fork of the one that started the queue. The queue's threads aren't in it, and
    /// its files aren't its own; nothing was done.
    #[error("the queue belongs to process {pid}, and this is a fork of it")]
    Forked {
        /// The queue's process.
        pid: u32,
    },

    /// The settings have mistakes: all that loading or checking them found. A start reports those as
    /// [`StartError::Settings`], beside what else is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),

    /// The queue can't start: every reason that was found.
    #[error("the queue cannot start: {}", join(reasons))]
    Start {
        /// Every mistake, in the order in which it was found.
        reasons: Vec<StartError>,
    },

    /// The task failed for good.
    #[error("task {id} ({name}) failed, {kind}: {message}")]
    TaskFailed {
        /// The task.
        id: TaskId,
        /// Its definition's name.
        name: String,
        /// What kind of failure the last attempt's was.
        kind: FailureKind,
        /// What the task itself said.
        message: String,
    },

    /// The task was cancelled.
    #[error("task {id} was cancelled")]
    Cancelled {
        /// The task.
        id: TaskId,
    },

    /// The task's time ran out before it started. Reserved: no task expires yet.
    #[error("task {id} expired before it started")]
    Expired {
        /// The task.
        id: TaskId,
    },

    /// The task ended and its record has been removed since.
    #[error("the result of task {id} is no longer kept")]
    ResultExpired {
        /// The task.
        id: TaskId,
    },

    /// No task ever had this id.
    #[error("there is no task {id}")]
    NotFound {
        /// The id.
        id: TaskId,
    },

    /// The wait was over before the task was. The task goes on.
    #[error("task {id} has not ended within {waited:?}")]
    WaitTimedOut {
        /// The task.
        id: TaskId,
        /// How long was waited.
        waited: Duration,
    },

    /// A shard's file can't be read or written.
    #[error("shard {shard} cannot {action}")]
    Store {
        /// The shard.
        shard: ShardId,
        /// What it was doing.
        action: &'static str,
        /// What went wrong.
        source: StoreError,
    },

    /// What was set of a named queue can't be stored; nothing was changed.
    #[error("cannot {action}")]
    Directory {
        /// What was being done, and to what.
        action: String,
        /// What went wrong.
        source: StoreError,
    },

    /// A backup or a restore failed.
    #[error("cannot {action}")]
    Backup {
        /// What was being done, and to what.
        action: String,
        /// What went wrong.
        source: StoreError,
    },
}

impl Error {
    /// Whether the same call can succeed later without a change. What it has stored already is stored
    /// once more then, unless its tasks have ids: that is so after [`Error::Unknown`], and may be after
    /// any error but [`Error::Busy`] of a bulk whose ordering keys are in several files.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Busy { .. }
            | Error::ShardUnavailable { .. }
            | Error::DiskFull { .. }
            | Error::Unknown { .. }
            | Error::Locked { .. }
            | Error::WaitTimedOut { .. } => true,
            Error::Store { source, .. }
            | Error::Directory { source, .. }
            | Error::Backup { source, .. } => source.is_transient(),
            _ => false,
        }
    }
}

impl From<actix::MailboxError> for Error {
    fn from(_: actix::MailboxError) -> Self {
        Error::ShuttingDown
    }
}

/// One reason why a queue can't start.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting isn't allowed, by itself or beside another.
    #[error(transparent)]
    Settings(SettingsMistake),

    /// Two definitions have one name.
    #[error("two definitions are named {name:?}: {first} and {second}")]
    DuplicateName {
        /// The name.
        name: String,
        /// Where the first one is: file and line.
        first: String,
        /// Where the second one is.
        second: String,
    },

    /// A definition's or a subscriber's name isn't valid.
    #[error("{name:?} ({place}) is not a valid name; names match ^[a-z0-9_][a-z0-9_.-]{{0,62}}$")]
    InvalidName {
        /// The name.
        name: String,
        /// Where it is defined.
        place: String,
    },

    /// A definition's option is out of its range.
    #[error("{name} ({place}): {option} is {given}; allowed is {allowed}")]
    InvalidOption {
        /// The definition's name.
        name: String,
        /// Where it is defined.
        place: String,
        /// The option.
        option: &'static str,
        /// What was given.
        given: String,
        /// What would have been allowed.
        allowed: &'static str,
    },

    /// A definition takes `Data<T>`, and the builder was given no such value.
    #[error("{name} ({place}) needs Data<{type_name}>, and the builder has none")]
    MissingData {
        /// The definition's name.
        name: String,
        /// Where it is defined.
        place: String,
        /// The type that is missing.
        type_name: &'static str,
    },

    /// A shard's file, the manifest or the directory can't be opened.
    #[error("{what}: {source}")]
    Open {
        /// Which file or directory, without its path's parents.
        what: String,
        /// Why not.
        source: StoreError,
    },

    /// The program was built with `panic = "abort"`, which no queue survives.
    #[error("the program is built with panic = \"abort\": a panicking task would end it")]
    PanicAborts,

    /// A thread couldn't be started.
    #[error("cannot start a thread: {message}")]
    Thread {
        /// What the system said.
        message: String,
    },
}

fn join(reasons: &[StartError]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What kind of trouble the store had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The disk or a quota is full.
    Full,
    /// Reading or writing failed.
    Io,
    /// Another connection held the file for too long.
    Busy,
    /// The file isn't a database.
    NotADatabase,
    /// The file belongs to another application.
    WrongApplication,
    /// The file was written by a newer version.
    NewerSchema,
    /// The file's tables, indexes, triggers or views aren't the ones that this version makes.
    SchemaMismatch,
    /// The file's contents are damaged.
    Corrupt,
    /// The file is a symbolic link, a FIFO or something else that isn't a plain file.
    NotAFile,
    /// A file or directory that should be there is missing.
    Missing,
    /// The file is a copy, or it belongs to another queue directory.
    Foreign,
    /// The directory or file can't be created, or access is denied.
    Permission,
    /// The directory is on a network file system.
    NetworkFileSystem,
    /// The process forked after the file was opened.
    Forked,
    /// Anything else.
    Other,
}

/// The store's own error. It names no type of the database library.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
}

impl StoreError {
    pub(crate) fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        StoreError { kind, message: message.into() }
    }

    /// What kind of trouble it was.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same operation can succeed later without a change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Full | StoreErrorKind::Io | StoreErrorKind::Busy)
    }
}

impl StoreError {
    /// The error that a caller of `shard` sees.
    pub(crate) fn on(self, shard: ShardId, action: &'static str) -> Error {
        match self.kind {
            StoreErrorKind::Full => Error::DiskFull { shard },
            _ => Error::Store { shard, action, source: self },
        }
    }
}
