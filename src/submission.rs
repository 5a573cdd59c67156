//! What a caller submits: a task's arguments, its options, and who is to hear of its end.

mod typed;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::Recipient;

pub use typed::Submission;

use crate::admission::{self, Demand, Permit};
use crate::attempt::CachedInput;
use crate::clock::Timestamp;
use crate::codec::{Codec, CodecError};
use crate::error::{Error, Result};
use crate::keys;
use crate::panic_message::OneByOne;
use crate::queues::{QueueIndex, Queues};
use crate::record::TaskId;
use crate::registry::{self, Registry, Role};
use crate::result::TaskResult;
use crate::store::{CALLBACKS_MAX, NewTask, Overrides};
use crate::task::{LONGEST, Task, TaskOptions};

/// A closure of the user's that wants a result.
pub(crate) type Closure = Box<dyn FnOnce(TaskResult) + Send>;

/// A target of a result that lives in memory only.
pub(crate) enum Target {
    Mailbox(Recipient<TaskResult>),
    Closure(Closure),
}

impl Target {
    /// Whether both are one mailbox.
    fn is_same_mailbox(&self, other: &Target) -> bool {
        matches!((self, other), (Target::Mailbox(one), Target::Mailbox(two)) if one == two)
    }

    /// Adds those that want a task's result, too; a mailbox gets it once.
    pub(crate) fn merge(there: &mut Vec<Target>, more: impl Iterator<Item = Target>) {
        for target in more {
            if !there.iter().any(|other| target.is_same_mailbox(other)) {
                there.push(target);
            }
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Mailbox(_) => "Mailbox",
            Target::Closure(_) => "Closure",
        })
    }
}

/// Names a `#[callback]`, for [`Submission::then`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallbackRef {
    name: &'static str,
}

impl CallbackRef {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        CallbackRef { name }
    }

    /// The callback's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }
}

/// A definition's name. That of a function is known when it is compiled, and isn't copied for each
/// task.
enum Name {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Name::Static(name) => name,
            Name::Shared(name) => name,
        }
    }
}

/// What the task gets.
enum Arguments {
    Encoded {
        codec: Codec,
        bytes: Arc<[u8]>,
    },
    /// One, which stays in memory.
    Cached(OneByOne<Arc<dyn CachedInput>>),
    Failed(Box<CodecError>),
}

/// One task to submit, as a message to the [`Dispatcher`](crate::actors::Dispatcher).
///
/// The reply is the task's id, once the task is committed at the queue's durability. Dropping the
/// request before the reply leaves it open whether the task was stored.
///
/// Its arguments don't show in Debug output.
pub struct Submit {
    name: Name,
    arguments: Arguments,
    priority: Option<i16>,
    /// Boxed, because few submissions have any, and all are moved from place to place.
    special: Option<Box<Special>>,
    pub(crate) permit: Option<Permit>,
}

/// What few submissions say.
#[derive(Debug, Default)]
struct Special {
    id: Option<TaskId>,
    queue: Option<Arc<str>>,
    key: Option<Arc<str>>,
    start: Start,
    overrides: Option<Box<Overrides>>,
    callbacks: Vec<Arc<str>>,
    targets: OneByOne<Target>,
}

/// When a task may start at the earliest.
#[derive(Clone, Copy, Debug, Default)]
enum Start {
    #[default]
    Now,
    After(Duration),
    At(Timestamp),
}

/// A checked submission: the row, and what stays in memory beside it.
pub(crate) struct Accepted {
    pub(crate) task: NewTask,
    /// How long after its submission it may start, counted from when it is stored.
    pub(crate) delay: Option<Duration>,
    /// One at most.
    pub(crate) cached: OneByOne<Arc<dyn CachedInput>>,
    pub(crate) targets: OneByOne<Target>,
}

/// The limits that a submission is checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SubmitLimits {
    pub(crate) payload_bytes: usize,
}

impl Submit {
    /// The message for a typed submission.
    #[must_use]
    pub fn new<T: Task>(submission: Submission<T>) -> Self {
        submission.submit
    }

    /// A submission by name, with arguments that are encoded already: for producers in this process
    /// that don't name the function.
    ///
    /// One argument is encoded bare, several as a tuple (in JSON: an array). `codec` says how; the
    /// result will be encoded the same way. The name must be registered, which is checked when the
    /// message arrives.
    #[must_use]
    pub fn raw(name: impl Into<Arc<str>>, codec: Codec, bytes: impl Into<Arc<[u8]>>) -> Self {
        Submit::with(Name::Shared(name.into()), Arguments::Encoded { codec, bytes: bytes.into() })
    }

    fn with(name: Name, arguments: Arguments) -> Self {
        Submit { name, arguments, priority: None, special: None, permit: None }
    }

    fn special(&mut self) -> &mut Special {
        self.special.get_or_insert_default()
    }

    fn overrides(&mut self) -> &mut Overrides {
        self.special().overrides.get_or_insert_default()
    }

    /// What it is ordered among.
    pub(crate) fn ordering_key(&self) -> Option<&str> {
        self.special.as_ref().and_then(|special| special.key.as_deref())
    }

    /// The id under which it is submitted again.
    pub(crate) fn id(&self) -> Option<TaskId> {
        self.special.as_ref().and_then(|special| special.id)
    }

    /// The named queue that the task is in; the definition's if not given, `"default"` if that has
    /// none. A queue needs no declaration, and a process knows at most 1,000. The form of a name is
    /// that of tasks.
    #[must_use]
    pub fn queue(mut self, name: impl Into<Arc<str>>) -> Self {
        self.special().queue = Some(name.into());
        self
    }

    /// Orders the task among all those of this key, of whatever definition and queue: they run one
    /// at a time, in the order in which they were stored, whatever their priorities. One that waits
    /// for its time or for a retry keeps those behind it waiting. From 1 to 255 bytes.
    ///
    /// Tasks of one key that haven't ended are in one shard. [`Queue::submit_all`] stores tasks with
    /// keys of several shards in a transaction for each; one [`SubmitAll`](crate::actors::SubmitAll)
    /// is refused. The order holds over restarts; at the durability `normal`, a power cut that takes
    /// back the end of a task can let it run again beside a later one of its key.
    ///
    /// [`Queue::submit_all`]: crate::Queue::submit_all
    #[must_use]
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.special().key = Some(key.into());
        self
    }

    /// Higher goes first; the definition's if not given, 0 if that has none. One level outweighs
    /// `tasks.ageing_per_level` of waiting.
    #[must_use]
    pub fn priority(mut self, priority: i16) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Starts no earlier than this long after the submission; at most 365 days.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.special().start = Start::After(delay);
        self
    }

    /// Starts no earlier than at this time, which is before the year 10000; a time that has passed
    /// means now.
    #[must_use]
    pub fn at(mut self, time: SystemTime) -> Self {
        self.special().start = Start::At(Timestamp::from(time));
        self
    }

    /// How many failures end the task, from 1 to 1,000.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.overrides().max_attempts = Some(attempts);
        self
    }

    /// How long an attempt may take, from 1 ms to 365 days. The future of an async one is dropped
    /// then; a blocking one is told by its context and keeps its slot until it returns.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.overrides().timeout = Some(timeout);
        self
    }

    /// The upper bounds of the first and of the longest pause before a retry, at most 365 days;
    /// counted in whole milliseconds. The bound doubles with each failure; the pause is a random
    /// part of it.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.overrides().backoff = Some((min, max));
        self
    }

    /// Sends the result to a mailbox when the task has ended; at most once, and not after a
    /// restart. What bounds it is in [`Subscribe`](crate::actors::Subscribe).
    #[must_use]
    pub fn reply_to(mut self, mailbox: Recipient<TaskResult>) -> Self {
        self.special().targets.0.push(Target::Mailbox(mailbox));
        self
    }

    /// Calls a closure with the result when the task has ended; at most once, and not after a
    /// restart. All closures of a queue are called one after another, on a thread of their own: one that
    /// takes long holds up the others, and beyond what is kept for a mailbox they are never called. A
    /// panic in it is caught, and the delivery is dead.
    #[must_use]
    pub fn on_result(mut self, closure: impl FnOnce(TaskResult) + Send + 'static) -> Self {
        self.special().targets.0.push(Target::Closure(Box::new(closure)));
        self
    }

    /// Runs a durable callback when the task has ended: at least once, also after a restart. At
    /// most 16.
    #[must_use]
    pub fn then(mut self, callback: CallbackRef) -> Self {
        self.special().callbacks.push(callback.name.into());
        self
    }

    /// Submits again what ended in [`Error::Unknown`]: under the same id, so that it is stored at
    /// most once while its record is kept. An id that its shard never gave out is refused as
    /// [`Error::NotFound`].
    ///
    /// If it is stored, its arguments and options stay as they were submitted first. The mailbox and the
    /// closures of each submission are kept until its end and get its result; those of one that comes as
    /// it ends, or later, are dropped. The handle gets the result in any case.
    #[must_use]
    pub fn with_id(mut self, id: TaskId) -> Self {
        self.special().id = Some(id);
        self
    }

    /// What it takes of the queue's limits.
    pub(crate) fn demand(&self) -> Demand {
        let cached = usize::from(matches!(self.arguments, Arguments::Cached(_)));
        Demand { tasks: 1, weight: admission::weight(self.bytes()), cached }
    }

    /// How many bytes its encoded arguments have.
    pub(crate) fn bytes(&self) -> usize {
        match &self.arguments {
            Arguments::Encoded { bytes, .. } => bytes.len(),
            Arguments::Cached(_) | Arguments::Failed(_) => 0,
        }
    }

    /// Checks everything that can be checked before something is written.
    pub(crate) fn check(
        self,
        registry: &Registry,
        queues: &QueuesOf<'_>,
        limits: SubmitLimits,
    ) -> Result<Accepted> {
        if !registry::is_valid_name(&self.name) {
            let name = self.name.chars().take(80).collect();
            return Err(Error::InvalidName { name });
        }
        let unknown = || Error::UnknownTask { name: self.name.to_string() };
        let index = registry.index_of(&self.name).ok_or_else(unknown)?;
        let definition = registry.definition(index);
        if definition.role != Role::Task {
            return Err(unknown());
        }
        let special = self.special.map(|special| *special).unwrap_or_default();
        for callback in &special.callbacks {
            let found = registry.get(callback).filter(|found| found.role != Role::Task);
            found.ok_or_else(|| Error::UnknownTask { name: callback.to_string() })?;
        }
        check_overrides(special.overrides.as_deref(), special.callbacks.len())?;
        let queue = match &special.queue {
            None => queues.of_definition.get(index).copied().unwrap_or_default(),
            Some(name) => queues.find(name)?,
        };
        let key = special.key.map(checked_key).transpose()?;
        let (due_at, delay) = special.start.checked()?;
        let (codec, payload, cached) = match self.arguments {
            Arguments::Failed(error) => {
                return Err(match *error {
                    CodecError::TooLarge { actual, .. } => {
                        Error::PayloadTooLarge { limit: limits.payload_bytes, actual }
                    }
                    source => Error::Encode { name: self.name.to_string(), source },
                });
            }
            Arguments::Cached(input) => (definition.options.codec, None, input),
            Arguments::Encoded { .. } if definition.cached => {
                return Err(Error::InvalidOption {
                    option: "arguments",
                    given: "encoded bytes".into(),
                    allowed: "values kept in memory, for a task with use_cache",
                });
            }
            Arguments::Encoded { bytes, .. } if bytes.len() > limits.payload_bytes => {
                let (limit, actual) = (limits.payload_bytes, bytes.len());
                return Err(Error::PayloadTooLarge { limit, actual });
            }
            Arguments::Encoded { codec, bytes } => (codec, Some(bytes), OneByOne::default()),
        };
        let task = NewTask {
            id: special.id,
            definition: index,
            queue,
            key,
            codec,
            payload,
            priority: self.priority.unwrap_or(definition.options.priority),
            due_at,
            volatile: !special.targets.0.is_empty(),
            callbacks: (!special.callbacks.is_empty()).then(|| special.callbacks.into()),
            overrides: special.overrides,
        };
        Ok(Accepted { task, delay, cached, targets: special.targets })
    }
}

impl Start {
    /// The time, or how long after the submission.
    fn checked(self) -> Result<(Option<Timestamp>, Option<Duration>)> {
        match self {
            Start::Now => Ok((None, None)),
            Start::After(delay) if delay > LONGEST => Err(Error::InvalidOption {
                option: "delay",
                given: format!("{delay:?}"),
                allowed: "at most 365 days",
            }),
            Start::After(delay) => Ok((None, (!delay.is_zero()).then_some(delay))),
            Start::At(time) if time > Timestamp::MAX => Err(Error::InvalidOption {
                option: "at",
                given: format!("{time:?}"),
                allowed: "a time before the year 10000",
            }),
            Start::At(time) => Ok((Some(time), None)),
        }
    }
}

fn checked_key(key: Arc<str>) -> Result<Arc<str>> {
    if keys::is_valid_key(&key) {
        return Ok(key);
    }
    let given = format!("{} bytes", key.len());
    Err(Error::InvalidOption { option: "key", given, allowed: "from 1 to 255 bytes" })
}

/// The named queues that submissions can name.
pub(crate) struct QueuesOf<'q> {
    pub(crate) known: &'q Queues,
    /// The queue of each definition's tasks.
    pub(crate) of_definition: &'q [QueueIndex],
}

impl QueuesOf<'_> {
    /// The queue of this name, which is known from now on.
    pub(crate) fn find(&self, name: &str) -> Result<QueueIndex> {
        if !registry::is_valid_name(name) {
            return Err(Error::InvalidName { name: name.chars().take(80).collect() });
        }
        self.known.get_or_add_one(name).ok_or_else(|| Error::InvalidOption {
            option: "queue",
            given: format!("{name:?}, a new name"),
            allowed: "one of the 1000 queues that this process knows",
        })
    }
}

/// A submission's overrides have the ranges of a definition's options.
fn check_overrides(overrides: Option<&Overrides>, callbacks: usize) -> Result<()> {
    if let Some(&Overrides { max_attempts, timeout, backoff }) = overrides {
        let options = TaskOptions { max_attempts, timeout, backoff, ..TaskOptions::default() };
        if let Some((option, given, allowed)) = options.mistakes().into_iter().next() {
            return Err(Error::InvalidOption { option, given, allowed });
        }
    }
    if callbacks > CALLBACKS_MAX {
        let (option, given) = ("callbacks", callbacks.to_string());
        return Err(Error::InvalidOption { option, given, allowed: "at most 16" });
    }
    Ok(())
}

impl actix::Message for Submit {
    type Result = Result<TaskId>;
}

impl fmt::Debug for Submit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments = match &self.arguments {
            Arguments::Encoded { codec, bytes } => format!("{codec:?}({} bytes)", bytes.len()),
            Arguments::Cached(_) => "cached".into(),
            Arguments::Failed(error) => error.to_string(),
        };
        f.debug_struct("Submit")
            .field("name", &&*self.name)
            .field("arguments", &arguments)
            .field("priority", &self.priority)
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}
