//! Every message, in the order of the flow.
//!
//! Public ones are for callers of the [`Dispatcher`](super::Dispatcher); the others travel between
//! the actors, in batches.

use std::any::Any;
use std::sync::Arc;

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use super::incoming::Incoming;
use super::ledger::{DeliverBatch, DeliveredBatch, FinishBatch, RunBatch};
use super::outbox::{Once, Parcel};
use super::subscriptions::SubscriptionId;
use crate::admission::Permit;
use crate::error::{Result, StoreError};
use crate::record::{ShardId, TaskId, TaskRecord, TaskStatus};
use crate::result::TaskResult;
use crate::store::{CancelOutcome, ListFilter, ListPage, RedriveOutcome};
pub use crate::submission::Submit;
use crate::task::Task;

/// Caller -> Dispatcher: store all of these tasks in one shard, or none. Reply: their ids, in
/// order, once they are committed at the queue's durability.
///
/// At most `limits.bulk` tasks, and `limits.cached_arguments` whose arguments stay in memory: with more
/// the reply is [`Error::InvalidOption`](crate::Error::InvalidOption). An empty one is answered with an
/// empty list. Each task takes a permit of `limits.pending_submissions`, and of the other limits: where
/// too few are free the reply is [`Error::Busy`](crate::Error::Busy). Dropping the request before the
/// reply leaves it open whether the tasks were stored.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<TaskId>>")]
pub struct SubmitAll {
    pub(crate) tasks: Vec<Submit>,
    /// For all of them.
    pub(crate) permit: Option<Permit>,
}

impl SubmitAll {
    /// A bulk submission.
    #[must_use]
    pub fn new(tasks: Vec<Submit>) -> Self {
        SubmitAll { tasks, permit: None }
    }
}

/// Queue -> Dispatcher: store these tasks, each with an ordering key in its key's shard. Reply: the
/// parts that are on their way, or an error, and nothing is. The permit bounds it.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<Part>>")]
pub(crate) struct SubmitKeyed {
    pub(crate) tasks: Vec<Submit>,
    /// For all of them.
    pub(crate) permit: Permit,
}

/// Those tasks of a [`SubmitKeyed`] that one transaction of one shard stores.
#[derive(Debug)]
pub(crate) struct Part {
    /// Where they stand in the submission.
    pub(crate) places: Vec<usize>,
    pub(crate) shard: ShardId,
    /// Their ids, once they are committed.
    pub(crate) stored: oneshot::Receiver<Result<Vec<TaskId>>>,
}

/// Caller -> Dispatcher: send results to a mailbox from now on. Reply: the subscription's id, or
/// [`Error::UnknownTask`](crate::Error::UnknownTask) if the definition isn't registered.
///
/// In memory, at most once; it ends by [`Unsubscribe`] or when the mailbox is closed. The ends of
/// durable callbacks aren't sent. At most `delivery.window` results are on their way to the mailbox
/// and `delivery.backlog` wait behind them, `delivery.mailbox_bytes` in all, whatever the ways by
/// which it asked for them; beyond that the mailbox misses results, with a warning, and their
/// delivery is dead (`SubscriberFull`). Other mailboxes aren't slowed.
#[derive(Debug, Message)]
#[rtype(result = "Result<SubscriptionId>")]
pub struct Subscribe {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) mailbox: Recipient<TaskResult>,
}

impl Subscribe {
    /// The results of every task of one definition.
    #[must_use]
    pub fn to<T: Task>(mailbox: Recipient<TaskResult>) -> Self {
        Subscribe { name: Some(T::NAME.into()), mailbox }
    }

    /// The results of every task.
    #[must_use]
    pub fn to_all(mailbox: Recipient<TaskResult>) -> Self {
        Subscribe { name: None, mailbox }
    }
}

/// Caller -> Dispatcher: end a subscription. Reply: whether it was there.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "bool")]
pub struct Unsubscribe(pub SubscriptionId);

/// Caller -> Dispatcher: cancel a task. Reply: what that did, once it is committed. Doing it again
/// changes nothing.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<CancelOutcome>")]
pub struct Cancel(pub TaskId);

/// Caller -> Dispatcher: let a task that ended without success run again, with its failures and
/// crashes forgotten. Reply: what that did, once it is committed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<RedriveOutcome>")]
pub struct Redrive(pub TaskId);

/// Caller -> Dispatcher: read a task. Reply: its record, or
/// [`Error::ResultExpired`](crate::Error::ResultExpired) or
/// [`Error::NotFound`](crate::Error::NotFound).
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<TaskRecord>")]
pub struct GetTask(pub TaskId);

/// Caller -> Dispatcher: read a page of tasks, shard by shard in order of their ids. Reply: the
/// page, or [`Error::InvalidOption`](crate::Error::InvalidOption) for a limit over 1,000.
#[derive(Clone, Debug, Default, Message)]
#[rtype(result = "Result<TaskPage>")]
pub struct ListTasks {
    /// Only tasks with this status.
    pub status: Option<TaskStatus>,
    /// Only tasks of this definition.
    pub name: Option<String>,
    /// Only tasks after this one: the `next` of the page before. `None` begins with the first.
    pub after: Option<TaskId>,
    /// How many tasks the page has at most, from 1 to 1,000; 0 means 100.
    pub limit: usize,
}

/// A page of tasks.
#[derive(Clone, Debug, Default)]
pub struct TaskPage {
    /// The tasks. A page can be short, even empty, and still have a `next`: one page looks at a
    /// bounded number of rows.
    pub tasks: Vec<TaskRecord>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<TaskId>,
}

/// Caller -> Dispatcher: count. Reply: how many tasks there are of each status, over all shards,
/// zeros included. The counts are kept with each transaction; nothing is scanned.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<(TaskStatus, u64)>>")]
pub struct CountTasks;

/// Dispatcher -> ShardActor: store these.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Insert(pub(crate) Incoming);

/// ShardActor -> Dispatcher: these are stored or refused, durably; tell those who wait.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Answered {
    pub(crate) incoming: Incoming,
    pub(crate) submitted: Vec<Result<TaskId, StoreError>>,
}

/// ShardActor -> Worker: run these; their claims are committed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Run(pub(crate) Parcel<Once<RunBatch>>);

/// Worker -> ShardActor: these attempts are over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Finish(pub(crate) Parcel<FinishBatch>);

/// ShardActor -> CallbackActor: bring these results to their targets.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Deliver(pub(crate) Parcel<Once<DeliverBatch>>);

/// To the CallbackActor: drop this. It is the user's, and so is the code that its `Drop` runs.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Discard(pub(crate) Box<dyn Any + Send>);

/// CallbackActor -> ShardActor: these deliveries are over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Delivered(pub(crate) Parcel<DeliveredBatch>);

/// To itself, or from anyone who freed what it waits for: look at what there is to do.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Wake;

/// Dispatcher -> ShardActor: wake up, something is about to come.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Rouse;

/// Dispatcher -> ShardActor: cancel a task.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct CancelRow {
    pub(crate) id: TaskId,
    pub(crate) answer: oneshot::Sender<Result<CancelOutcome>>,
}

/// Dispatcher -> ShardActor: redrive a task.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct RedriveRow {
    pub(crate) id: TaskId,
    pub(crate) answer: oneshot::Sender<Result<RedriveOutcome>>,
}

/// Dispatcher -> ShardActor: read a task.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct GetRow {
    pub(crate) id: TaskId,
    pub(crate) answer: oneshot::Sender<Result<TaskRecord>>,
}

/// Handle -> ShardActor: answer when this task has ended, or at once if it has.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Watch {
    pub(crate) id: TaskId,
    pub(crate) answer: oneshot::Sender<Result<TaskResult>>,
}

/// To a rebuilt ShardActor: see whether this task has ended without those who wait being told.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Recheck(pub(crate) TaskId);

/// Dispatcher -> ShardActor: read a page.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ListRows {
    pub(crate) filter: ListFilter,
    pub(crate) answer: oneshot::Sender<Result<ListPage>>,
}

/// Dispatcher -> ShardActor: count.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct CountRows {
    pub(crate) answer: oneshot::Sender<Result<Vec<(TaskStatus, u64)>>>,
}

/// Scaler -> Dispatcher: other shards take new tasks now; let ordering keys follow.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct MoveSlots;

/// To a ShardActor: of which slots of ordering keys does a task wait or run, or is on its way to the
/// file?
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct SlotsInUse {
    pub(crate) answer: oneshot::Sender<Result<Vec<u16>>>,
}

/// Queue -> ShardActor: copy the shard to this file while it is in use.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct BackupTo {
    pub(crate) file: std::path::PathBuf,
    pub(crate) answer: oneshot::Sender<Result<()>>,
}

/// Shutdown -> ShardActor: close the file and end.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Close {
    pub(crate) answer: oneshot::Sender<Result<()>>,
}

/// Shutdown -> Worker: give back what hasn't started; past the deadline (`abort`) also what runs.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Quiesce {
    pub(crate) abort: bool,
}
