//! What a task's end looks like to those who asked for it.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::clock::Timestamp;
use crate::codec;
use crate::error::{Error, Result};
use crate::record::{Counters, Encoded, Outcome, TaskFailure, TaskId, TaskRecord, TaskStatus};
use crate::registry::Definition;

/// How a task ended, with its output or its failure.
///
/// It is what mailboxes, closures, callbacks and handles receive; cloning it is cheap. As an actix
/// message its reply is `()`: a delivery is over when the handler has returned.
///
/// In JSON it has the Python package's keys: `task_id`, `task_name`, `start_time`, `end_time`
/// (seconds since the Unix epoch), `status` (the number) and `result` (the output, or the
/// failure's text).
#[derive(Clone)]
pub struct TaskResult {
    inner: Arc<Inner>,
}

struct Inner {
    id: TaskId,
    name: Arc<str>,
    definition: Option<Arc<Definition>>,
    status: TaskStatus,
    outcome: Outcome,
    output: Option<Encoded>,
    failure: Option<TaskFailure>,
    counters: Counters,
    priority: i16,
    submitted_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Timestamp,
}

/// What a result is made of.
#[derive(Clone, Debug)]
pub(crate) struct ResultParts {
    pub(crate) id: TaskId,
    pub(crate) name: Arc<str>,
    pub(crate) definition: Option<Arc<Definition>>,
    pub(crate) status: TaskStatus,
    pub(crate) outcome: Outcome,
    pub(crate) output: Option<Encoded>,
    pub(crate) failure: Option<TaskFailure>,
    pub(crate) counters: Counters,
    pub(crate) priority: i16,
    pub(crate) submitted_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Timestamp,
}

impl TaskResult {
    pub(crate) fn new(parts: ResultParts) -> Self {
        let ResultParts {
            id,
            name,
            definition,
            status,
            outcome,
            output,
            failure,
            counters,
            priority,
            submitted_at,
            started_at,
            ended_at,
        } = parts;
        let inner = Inner {
            id,
            name,
            definition,
            status,
            outcome,
            output,
            failure,
            counters,
            priority,
            submitted_at,
            started_at,
            ended_at,
        };
        TaskResult { inner: Arc::new(inner) }
    }

    /// The result of an ended task's record; `None` if the task hasn't ended.
    pub(crate) fn of_record(
        record: &TaskRecord,
        definition: Option<Arc<Definition>>,
    ) -> Option<Self> {
        Some(TaskResult::new(ResultParts {
            id: record.id,
            name: record.name.clone(),
            definition,
            status: record.status,
            outcome: record.outcome?,
            output: record.output.clone(),
            failure: record.error.clone(),
            counters: record.counters,
            priority: record.priority,
            submitted_at: record.submitted_at,
            started_at: record.started_at,
            ended_at: record.ended_at?,
        }))
    }

    /// How many bytes its output or its failure's text has.
    pub(crate) fn bytes(&self) -> usize {
        let output = self.inner.output.as_ref().map_or(0, |output| output.bytes.len());
        output + self.inner.failure.as_ref().map_or(0, |failure| failure.message.len())
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.inner.id
    }

    /// The name of its definition.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The task's status when this was made: `Callbacking` for a result on its way.
    #[must_use]
    pub fn status(&self) -> TaskStatus {
        self.inner.status
    }

    /// How execution ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.inner.outcome
    }

    /// Whether the task ended well.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.inner.outcome == Outcome::Finished
    }

    /// The output, decoded.
    ///
    /// # Errors
    ///
    /// [`Error::TaskFailed`], [`Error::Cancelled`] or [`Error::Expired`] if there is no output;
    /// [`Error::Decode`] if it isn't a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        let id = self.inner.id;
        let Some(output) = &self.inner.output else { return Err(self.as_error()) };
        codec::decode(output.codec, &output.bytes).map_err(|source| Error::Decode { id, source })
    }

    /// The output as it is stored.
    #[must_use]
    pub fn output(&self) -> Option<&Encoded> {
        self.inner.output.as_ref()
    }

    /// The failure that ended the task, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<&TaskFailure> {
        match self.inner.outcome {
            Outcome::Finished => None,
            _ => self.inner.failure.as_ref(),
        }
    }

    /// Claims, failures and crashes.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.inner.counters
    }

    /// The priority that it had.
    #[must_use]
    pub fn priority(&self) -> i16 {
        self.inner.priority
    }

    /// When it was submitted.
    #[must_use]
    pub fn submitted_at(&self) -> Timestamp {
        self.inner.submitted_at
    }

    /// When its last attempt started; `None` if it never did.
    #[must_use]
    pub fn started_at(&self) -> Option<Timestamp> {
        self.inner.started_at
    }

    /// When execution ended.
    #[must_use]
    pub fn ended_at(&self) -> Timestamp {
        self.inner.ended_at
    }

    /// The JSON form with the Python package's keys.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The error that a handle's wait ends with; only for results without an output.
    pub(crate) fn as_error(&self) -> Error {
        let id = self.inner.id;
        match self.inner.outcome {
            Outcome::Cancelled => Error::Cancelled { id },
            Outcome::Expired => Error::Expired { id },
            Outcome::Finished => Error::ResultExpired { id },
            Outcome::Failed => {
                let name = self.inner.name.to_string();
                let failure = self.inner.failure.clone();
                let failure = failure
                    .unwrap_or_else(|| TaskFailure::new(crate::record::FailureKind::Error, ""));
                Error::TaskFailed { id, name, kind: failure.kind, message: failure.message }
            }
        }
    }

    fn result_json(&self) -> serde_json::Value {
        let inner = &self.inner;
        match (&inner.output, self.failure()) {
            (Some(output), _) => {
                let transcoded = inner.definition.as_ref().and_then(|of| of.output_json(output));
                transcoded.unwrap_or_default()
            }
            (None, Some(failure)) => failure.to_string().into(),
            (None, None) => serde_json::Value::Null,
        }
    }
}

impl actix::Message for TaskResult {
    type Result = ();
}

impl Serialize for TaskResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("task_id", &self.inner.id.to_string())?;
        map.serialize_entry("task_name", self.name())?;
        map.serialize_entry("start_time", &self.started_at().map(Timestamp::as_secs_f64))?;
        map.serialize_entry("end_time", &self.ended_at().as_secs_f64())?;
        map.serialize_entry("status", &self.status().code())?;
        map.serialize_entry("result", &self.result_json())?;
        map.end()
    }
}

impl fmt::Debug for TaskResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskResult")
            .field("id", &self.inner.id)
            .field("name", &self.inner.name)
            .field("status", &self.inner.status)
            .field("outcome", &self.inner.outcome)
            .field("output", &self.inner.output)
            .field("failure", &self.failure().map(|failure| failure.kind))
            .field("counters", &self.inner.counters)
            .finish_non_exhaustive()
    }
}
