//! What an attempt can see of itself and of the program around it.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Requirement, TaskError};
use crate::attempt::Attempt;
use crate::clock::Timestamp;
use crate::record::TaskId;

/// The attempt that a function runs for. Cheap to clone; doesn't keep the task running.
#[derive(Clone)]
pub struct TaskContext {
    attempt: Arc<Attempt>,
    data: Arc<DataMap>,
    deadline: Option<Instant>,
}

impl TaskContext {
    pub(crate) fn new(attempt: Arc<Attempt>, data: Arc<DataMap>) -> Self {
        let deadline = attempt
            .timeout
            .and_then(|timeout| tokio::time::Instant::now().into_std().checked_add(timeout));
        TaskContext { attempt, data, deadline }
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.attempt.id
    }

    /// The name of its definition.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.attempt.definition.name
    }

    /// Higher goes first.
    #[must_use]
    pub fn priority(&self) -> i16 {
        self.attempt.priority
    }

    /// How many attempts have failed so far: errors, panics and timeouts. 0 in the first.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.attempt.counters.failures
    }

    /// How often the process has died during this task so far.
    #[must_use]
    pub fn crashes(&self) -> u32 {
        self.attempt.counters.crashes
    }

    /// The number of this claim, from 1. It goes up with each, so it can fence what an attempt
    /// writes elsewhere.
    #[must_use]
    pub fn claim_no(&self) -> u32 {
        self.attempt.counters.claim_no
    }

    /// When the task was submitted.
    #[must_use]
    pub fn submitted_at(&self) -> Timestamp {
        self.attempt.submitted_at
    }

    /// The task whose result this is the durable callback for.
    #[must_use]
    pub fn parent(&self) -> Option<TaskId> {
        self.attempt.parent.map(|parent| parent.id)
    }

    /// Whether the attempt should end early: the task was cancelled, or, of a blocking attempt, its time is
    /// over, or a shutdown couldn't wait for it. A blocking function that takes long checks this now and
    /// then; an async one is dropped in both cases.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.attempt.cancel.is_cancelled()
    }

    /// Waits until [`is_cancelled`](Self::is_cancelled) is true. Dropping the future is harmless.
    pub async fn cancelled(&self) {
        self.attempt.cancel.cancelled().await;
    }

    /// When the attempt's time is over; `None` without a timeout.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How much of the attempt's time is left, zero when it is over; `None` without a timeout.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let now = tokio::time::Instant::now().into_std();
        self.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    /// The value of this type that was given to the builder.
    #[must_use]
    pub fn data<T: Send + Sync + 'static>(&self) -> Option<Data<T>> {
        self.data.get()
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

/// A value of the program's, shared by all attempts: a connection pool, a client, a configuration.
///
/// It is given to the builder once, by `.data(value)`, and derefs to the value. There is one for
/// each type.
pub struct Data<T>(Arc<T>);

impl<T> Data<T> {
    /// Wraps a value: for calling a task's function in a test, for example.
    pub fn new(value: T) -> Self {
        Data(Arc::new(value))
    }

    /// The shared value.
    #[must_use]
    pub fn into_inner(self) -> Arc<T> {
        self.0
    }
}

impl<T> Deref for Data<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for Data<T> {
    fn clone(&self) -> Self {
        Data(Arc::clone(&self.0))
    }
}

impl<T> From<Arc<T>> for Data<T> {
    fn from(value: Arc<T>) -> Self {
        Data(value)
    }
}

impl<T: fmt::Debug> fmt::Debug for Data<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The values that the builder was given, by their types.
#[derive(Clone, Default)]
pub(crate) struct DataMap {
    values: HashMap<TypeId, (&'static str, Arc<dyn Any + Send + Sync>)>,
}

impl DataMap {
    /// Adds a value, in place of an earlier one of the same type.
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.insert_shared(Data::new(value));
    }

    /// Adds a value that is shared already, in place of an earlier one of the same type.
    pub(crate) fn insert_shared<T: Send + Sync + 'static>(&mut self, value: Data<T>) {
        self.values.insert(TypeId::of::<T>(), (type_name::<T>(), value.0));
    }

    /// The value of this type.
    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<Data<T>> {
        let (_, value) = self.values.get(&TypeId::of::<T>())?;
        Arc::clone(value).downcast().ok().map(Data)
    }

    pub(crate) fn contains(&self, requirement: &Requirement) -> bool {
        self.values.contains_key(&requirement.type_id)
    }
}

impl fmt::Debug for DataMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<_> = self.values.values().map(|(name, _)| name).collect();
        names.sort_unstable();
        f.debug_set().entries(names).finish()
    }
}

/// A parameter of a task's function that isn't an argument: `Data<T>` or `TaskContext`.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of a task",
    label = "neither `message_queue_sqlite::Data` nor `message_queue_sqlite::TaskContext`",
    note = "a parameter whose type is called `Data` or `TaskContext` is the queue's, not an argument"
)]
pub trait FromContext: Sized {
    /// What the builder must have been given.
    fn requirement() -> Option<Requirement>;

    /// The parameter's value for one attempt.
    ///
    /// # Errors
    ///
    /// The builder wasn't given the value.
    fn from_context(ctx: &TaskContext) -> Result<Self, TaskError>;
}

impl<T: Send + Sync + 'static> FromContext for Data<T> {
    fn requirement() -> Option<Requirement> {
        Some(Requirement::of::<T>())
    }

    fn from_context(ctx: &TaskContext) -> Result<Self, TaskError> {
        ctx.data().ok_or_else(|| {
            let type_name = type_name::<T>();
            TaskError::fatal(format_args!("the queue has no Data<{type_name}>"))
        })
    }
}

impl FromContext for TaskContext {
    fn requirement() -> Option<Requirement> {
        None
    }

    fn from_context(ctx: &TaskContext) -> Result<Self, TaskError> {
        Ok(ctx.clone())
    }
}
