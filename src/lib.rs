//! An embedded task queue: supervised actix actors over SQLite files.
#![doc = include_str!("../README.md")]

extern crate self as message_queue_sqlite;

mod queue;
pub mod settings;

mod admission;
mod attempt;
mod backpressure;
mod cached;
mod registry;
mod result;
mod submission;
mod task;

mod clock;
mod codec;
mod error;
mod keys;
mod lifecycle;
mod load;
mod order;
mod panic_message;
mod queues;
mod record;
mod retry;
mod scaling;
mod store;

// The actors live beside `src/`, not in it, so that the tree shows the two halves: `src/` decides
// and stores, `actors/` moves. It is one crate; ARCHITECTURE.md says why.
#[path = "../actors/mod.rs"]
pub mod actors;

#[cfg(feature = "proof")]
#[doc(hidden)]
pub mod proof;
#[cfg(not(feature = "proof"))]
#[allow(unreachable_pub, reason = "it can be reached with the feature")]
mod proof;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

pub use actors::messages::TaskPage;
pub use backpressure::Backpressure;
pub use cached::{Cached, CachedArguments};
pub use clock::{Clock, Timestamp};
pub use codec::{Codec, CodecError, ParseCodecError};
pub use error::{Error, Result, StartError, StoreError, StoreErrorKind};
pub use message_queue_sqlite_macros::{callback, task};
pub use queue::{
    NamedQueueInfo, Queue, QueueBuilder, Recovery, ShardCounts, ShutdownReport, SubmitStream,
    SubscriptionGuard, TaskHandle, shutdown_signal,
};
pub use record::{
    Counters, DeadReason, Delivery, Encoded, FailureKind, Outcome, ParseTaskIdError, ShardId,
    TaskFailure, TaskId, TaskRecord, TaskStatus,
};
pub use result::TaskResult;
pub use store::{CancelOutcome, RedriveOutcome};
pub use submission::{CallbackRef, Submission};
pub use task::{
    CallbackHandler, CallbackTask, Data, Handler, Requirement, Task, TaskContext, TaskError,
    TaskOptions, TaskReturn,
};

/// What most programs need: `use message_queue_sqlite::prelude::*;`.
pub mod prelude {
    pub use std::time::Duration;

    pub use actix::{Actor, Addr, Context, Recipient};
    pub use serde::{Deserialize, Serialize};

    pub use crate::actors::{
        Cancel, CountTasks, Dispatcher, GetTask, ListTasks, Redrive, Submit, SubmitAll, Subscribe,
        SubscriptionId, Unsubscribe,
    };
    pub use crate::settings::Settings;
    pub use crate::{
        Backpressure, Cached, CancelOutcome, Codec, Data, Delivery, Error, FailureKind, Outcome,
        Queue, Task, TaskContext, TaskError, TaskHandle, TaskId, TaskResult, TaskStatus, callback,
        shutdown_signal, task,
    };
}
