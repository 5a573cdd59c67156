//! Rows as records, and the checksum that ties a row's parts together.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Row;

use serde::{Deserialize, Serialize};

use super::kinds::KindId;
use super::sqlite::SqliteStore;
use super::{NewTask, Overrides, Parent};
use crate::clock::Timestamp;
use crate::codec::Codec;
use crate::lifecycle::{self, State};
use crate::record::{
    Counters, DeadReason, Delivery, Encoded, FailureKind, SEQUENCE_MAX, ShardId, TaskFailure,
    TaskId, TaskRecord,
};

/// The columns that [`record`] reads, in its order.
macro_rules! record_columns {
    () => {
        "id, kind, state, delivery, undelivered, priority, claim_no, failures, crashes, \
         submitted_at, started_at, due_or_ended_at, details, error, payload, output"
    };
}
pub(super) use record_columns;

/// Reads a whole record.
pub(super) fn record(store: &SqliteStore, row: &Row<'_>) -> rusqlite::Result<TaskRecord> {
    let kind = store.kinds.get(KindId(row.get(1)?));
    let unknown = || Arc::from("?");
    let state = state(row.get(2)?);
    let sequence: i64 = row.get(0)?;
    let delivery = store.delivery_of(sequence as u64, row.get(3)?, first_reason(row, 4)?);
    let codec = kind.and_then(|kind| kind.codec).unwrap_or_default();
    let encoded = |bytes: Vec<u8>| Encoded { codec, bytes: bytes.into() };
    let due_or_ended_at = row.get::<_, Option<i64>>(11)?.map(Timestamp::from_micros);
    let submitted_at = Timestamp::from_micros(row.get(9)?);
    let counters = counters(row, 6)?;
    let details = Details::read(text(row, 12)?).unwrap_or_default();
    Ok(TaskRecord {
        id: store.id(sequence),
        name: kind.map_or_else(unknown, |kind| kind.name.clone()),
        queue: kind.map_or_else(unknown, |kind| store.options.queues.get(kind.queue).name.clone()),
        key: details.key(),
        status: lifecycle::status(state, &delivery),
        outcome: state.outcome(),
        delivery,
        priority: priority(row, 5)?,
        counters,
        submitted_at,
        // what hasn't come yet was filled in
        started_at: row
            .get::<_, Option<i64>>(10)?
            .filter(|_| counters.claim_no > 0)
            .map(Timestamp::from_micros),
        ended_at: due_or_ended_at.filter(|_| state.outcome().is_some()),
        due_at: due_or_ended_at.filter(|due| match state {
            State::Waiting => true,
            State::Held => *due > submitted_at,
            State::Ready | State::Running | State::Ended(_) => false,
        }),
        parent: details.parent(store.shard).map(|parent| parent.id),
        error: failure(text(row, 13)?),
        payload: row.get::<_, Option<Vec<u8>>>(14)?.map(encoded),
        output: row.get::<_, Option<Vec<u8>>>(15)?.map(encoded),
    })
}

/// A text column. One that damage left unreadable is empty, which isn't the same as none.
pub(super) fn text<'r>(row: &'r Row<'_>, at: usize) -> rusqlite::Result<Option<&'r str>> {
    Ok(row.get_ref(at)?.as_str_or_null().unwrap_or(Some("")))
}

/// A counter. One that damage left out of range counts as the most there can be: a row that can't be
/// read would stop every batch that comes upon it.
pub(super) fn count(row: &Row<'_>, at: usize) -> rusqlite::Result<u32> {
    Ok(u32::try_from(row.get::<_, i64>(at)?).unwrap_or(u32::MAX))
}

/// The columns `claim_no`, `failures` and `crashes`, from this one on.
pub(super) fn counters(row: &Row<'_>, from: usize) -> rusqlite::Result<Counters> {
    Ok(Counters {
        claim_no: count(row, from)?,
        failures: count(row, from + 1)?,
        crashes: count(row, from + 2)?,
    })
}

/// A priority; the nearest there is, if damage left it out of range.
pub(super) fn priority(row: &Row<'_>, at: usize) -> rusqlite::Result<i16> {
    let stored: i64 = row.get(at)?;
    Ok(stored.clamp(i16::MIN.into(), i16::MAX.into()) as i16)
}

/// The codec of a `codec` column, which can hold any number.
pub(super) fn codec(code: i64) -> Option<Codec> {
    Codec::from_code(u8::try_from(code).ok()?)
}

/// The state of a `state` column; the CHECK constraint allows no other numbers.
pub(super) fn state(code: u8) -> State {
    State::from_code(code).unwrap_or(State::Waiting)
}

/// The delivery of the column `delivery`, and why its first target will never have the result.
pub(super) fn delivery(code: u8, reason: Option<DeadReason>) -> Delivery {
    match code {
        1 => Delivery::Pending,
        5 => Delivery::Callbacked,
        6 => Delivery::Callbacking,
        9 => Delivery::Dead(reason.unwrap_or(DeadReason::SubscriberGone)),
        _ => Delivery::None,
    }
}

/// Why targets will never have the result: the column `undelivered`.
pub(super) fn reasons(text: Option<&str>) -> Vec<DeadReason> {
    let Some(text) = text else { return Vec::new() };
    // unreadable is not the same as none
    serde_json::from_str(text).unwrap_or_else(|_| vec![DeadReason::SubscriberGone])
}

/// [`reasons`], to be stored.
pub(super) fn reasons_text(reasons: &[DeadReason]) -> Option<String> {
    if reasons.is_empty() {
        return None;
    }
    serde_json::to_string(reasons).ok()
}

/// The first of the [`reasons`] in a column.
pub(super) fn first_reason(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<DeadReason>> {
    Ok(reasons(text(row, at)?).first().copied())
}

/// The last failure: the column `error`.
fn failure(text: Option<&str>) -> Option<TaskFailure> {
    let text = text?;
    let unreadable = || TaskFailure { kind: FailureKind::Error, message: text.to_owned() };
    Some(serde_json::from_str(text).unwrap_or_else(|_| unreadable()))
}

/// A failure, to be stored.
pub(super) fn failure_text(failure: Option<&TaskFailure>) -> Option<String> {
    failure.and_then(|failure| serde_json::to_string(failure).ok())
}

/// For whom an end is: the column `targets`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    /// Whether a target in memory is among them.
    pub(super) memory: bool,
    /// How many durable callbacks are open.
    pub(super) callbacks: usize,
}

impl Targets {
    pub(super) fn read(code: u32) -> Self {
        Targets { memory: code & 1 == 1, callbacks: (code >> 1) as usize }
    }

    pub(super) fn code(self) -> i64 {
        i64::from(self.memory) + 2 * self.callbacks as i64
    }

    /// How many deliveries are open.
    pub(super) fn open(self) -> usize {
        usize::from(self.memory) + self.callbacks
    }
}

/// What few tasks have: the column `details`.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backoff_ms: Option<(u64, u64)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    callbacks: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Of a callback: the task whose end it reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<u64>,
    /// And which of its claims ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_claim_no: Option<u32>,
}

impl Details {
    /// The details of a submission, as they are stored.
    pub(super) fn of_task(task: &NewTask) -> Option<String> {
        if task.callbacks.is_none() && task.key.is_none() && task.overrides.is_none() {
            return None;
        }
        let overrides = task.overrides.as_deref().copied().unwrap_or_default();
        let millis = |duration: Duration| duration.as_millis() as u64;
        let names = task.callbacks.iter().flat_map(|names| names.iter());
        Details {
            max_attempts: overrides.max_attempts,
            timeout_ms: overrides.timeout.map(millis),
            backoff_ms: overrides.backoff.map(|(min, max)| (millis(min), millis(max))),
            callbacks: names.map(|name| name.to_string()).collect(),
            key: task.key.as_deref().map(str::to_owned),
            parent: None,
            parent_claim_no: None,
        }
        .text()
    }

    /// The details of a callback, as they are stored.
    pub(super) fn of_callback(parent: u64, claim_no: u32) -> Option<String> {
        let (parent, parent_claim_no) = (Some(parent), Some(claim_no));
        Details { parent, parent_claim_no, ..Details::default() }.text()
    }

    fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// Reads the column; `None` if it can't be read.
    pub(super) fn read(text: Option<&str>) -> Option<Details> {
        text.map_or_else(|| Some(Details::default()), |text| serde_json::from_str(text).ok())
    }

    pub(super) fn overrides(&self) -> Option<Box<Overrides>> {
        let millis = Duration::from_millis;
        let overrides = Overrides {
            max_attempts: self.max_attempts,
            timeout: self.timeout_ms.map(millis),
            backoff: self.backoff_ms.map(|(min, max)| (millis(min), millis(max))),
        };
        (overrides != Overrides::default()).then(|| Box::new(overrides))
    }

    /// The parent of the row that has these details.
    pub(super) fn parent(&self, shard: ShardId) -> Option<Parent> {
        let sequence = self.parent.filter(|sequence| *sequence <= SEQUENCE_MAX)?;
        Some(Parent { id: TaskId::new(shard, sequence), claim_no: self.parent_claim_no })
    }

    pub(super) fn key(&self) -> Option<Arc<str>> {
        self.key.as_deref().map(Arc::from)
    }

    pub(super) fn callbacks(&self) -> Option<Arc<[Arc<str>]>> {
        if self.callbacks.is_empty() {
            return None;
        }
        Some(self.callbacks.iter().map(|name| Arc::from(name.as_str())).collect())
    }
}

/// Starts the checksum of rows with this name.
pub(super) fn name_hasher(name: &str) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(name.as_bytes());
    hasher
}

/// CRC-32 over name, codec, id, payload and details: what decides which code runs with which bytes.
pub(super) fn checksum(
    name: &crc32fast::Hasher,
    codec: Codec,
    sequence: u64,
    payload: Option<&[u8]>,
    details: Option<&str>,
) -> u32 {
    let mut hasher = name.clone();
    let mut fixed = [0; 9];
    fixed[0] = codec.code();
    fixed[1..].copy_from_slice(&sequence.to_le_bytes());
    hasher.update(&fixed);
    if let Some(payload) = payload {
        hasher.update(payload);
    }
    if let Some(details) = details {
        hasher.update(&[0xff]);
        hasher.update(details.as_bytes());
    }
    hasher.finalize()
}
