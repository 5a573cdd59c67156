//! Rows as records, and the checksum that ties a row's parts together.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Row;

use super::Overrides;
use super::sqlite::SqliteStore;
use crate::clock::Timestamp;
use crate::codec::Codec;
use crate::lifecycle::{self, State};
use crate::record::{
    Counters, DeadReason, Delivery, Encoded, FailureKind, TaskFailure, TaskRecord,
};

/// The columns that [`record`] reads, in its order.
macro_rules! record_columns {
    () => {
        "id, name, state, delivery, delivery_error, priority, claim_no, failures, crashes, \
         codec, submitted_at, started_at, ended_at, due_at, parent, error_kind, error, \
         payload, output"
    };
}
pub(super) use record_columns;

/// Reads a whole record.
pub(super) fn record(store: &SqliteStore, row: &Row<'_>) -> rusqlite::Result<TaskRecord> {
    let name: i64 = row.get(1)?;
    let state = state(row.get(2)?);
    let delivery = delivery(row.get(3)?, row.get(4)?);
    let codec = self::codec(row.get(9)?).unwrap_or_default();
    let encoded = |bytes: Vec<u8>| Encoded { codec, bytes: bytes.into() };
    let error_kind: Option<u8> = row.get(15)?;
    let error: Option<String> = row.get(16)?;
    Ok(TaskRecord {
        id: store.id(row.get(0)?),
        name: store.names.name(name).cloned().unwrap_or_else(|| Arc::from("?")),
        status: lifecycle::status(state, &delivery),
        outcome: state.outcome(),
        delivery,
        priority: row.get(5)?,
        counters: Counters { claim_no: row.get(6)?, failures: row.get(7)?, crashes: row.get(8)? },
        submitted_at: Timestamp::from_micros(row.get(10)?),
        started_at: row.get::<_, Option<i64>>(11)?.map(Timestamp::from_micros),
        ended_at: row.get::<_, Option<i64>>(12)?.map(Timestamp::from_micros),
        due_at: row.get::<_, Option<i64>>(13)?.map(Timestamp::from_micros),
        parent: row.get::<_, Option<i64>>(14)?.map(|sequence| store.id(sequence)),
        error: error_kind
            .and_then(FailureKind::from_code)
            .map(|kind| TaskFailure { kind, message: error.unwrap_or_default() }),
        payload: row.get::<_, Option<Vec<u8>>>(17)?.map(encoded),
        output: row.get::<_, Option<Vec<u8>>>(18)?.map(encoded),
    })
}

/// The codec of a `codec` column, which can hold any number.
pub(super) fn codec(code: i64) -> Option<Codec> {
    Codec::from_code(u8::try_from(code).ok()?)
}

/// The state of a `state` column; the CHECK constraint allows no other numbers.
pub(super) fn state(code: u8) -> State {
    State::from_code(code).unwrap_or(State::Waiting)
}

/// The delivery of the columns `delivery` and `delivery_error`.
pub(super) fn delivery(code: u8, error: Option<u8>) -> Delivery {
    match code {
        1 => Delivery::Pending,
        5 => Delivery::Callbacked,
        6 => Delivery::Callbacking,
        9 => Delivery::Dead(
            error.and_then(DeadReason::from_code).unwrap_or(DeadReason::SubscriberGone),
        ),
        _ => Delivery::None,
    }
}

/// The columns that [`overrides`] reads, in its order.
pub(super) fn overrides(row: &Row<'_>, first: usize) -> rusqlite::Result<Overrides> {
    let millis = |at: usize| -> rusqlite::Result<Option<Duration>> {
        Ok(row.get::<_, Option<i64>>(at)?.map(|ms| Duration::from_millis(ms as u64)))
    };
    let backoff_min = millis(first + 2)?;
    let backoff_max = millis(first + 3)?;
    Ok(Overrides {
        max_attempts: row.get(first)?,
        timeout: millis(first + 1)?,
        backoff: backoff_min.zip(backoff_max),
    })
}

/// The `callbacks` column: names as a JSON array.
pub(super) fn callbacks(text: Option<String>) -> Option<Arc<[Arc<str>]>> {
    let names: Vec<Arc<str>> =
        serde_json::from_str::<Vec<String>>(&text?).ok()?.into_iter().map(Arc::from).collect();
    Some(names.into())
}

/// Starts the checksum of rows with this name.
pub(super) fn name_hasher(name: &str) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(name.as_bytes());
    hasher
}

/// CRC-32 over name, codec, id and payload: what decides which code runs with which bytes.
pub(super) fn checksum(
    name: &crc32fast::Hasher,
    codec: Codec,
    sequence: u64,
    payload: Option<&[u8]>,
) -> u32 {
    let mut hasher = name.clone();
    let mut fixed = [0; 9];
    fixed[0] = codec.code();
    fixed[1..].copy_from_slice(&sequence.to_le_bytes());
    hasher.update(&fixed);
    if let Some(payload) = payload {
        hasher.update(payload);
    }
    hasher.finalize()
}
