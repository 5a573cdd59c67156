//! Bytes that nobody of good will has made, at each place where the queue takes bytes in. Whatever
//! they are, it answers: a value or a typed error, soon, without a panic and without taking
//! memory on the bytes' word.
//!
//! Each function is a fuzz target and panics if a promise is broken. It is mounted by the tests of the
//! queue too, which replay what fuzzing has found.

mod database;
mod live;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::str::FromStr;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::settings::{Settings, parse_bytes, parse_duration};
use message_queue_sqlite::{Encoded, TaskFailure};
use serde::de::DeserializeOwned;

pub use database::databases;
pub use live::{names, submissions};

/// A type that holds itself: what hostile bytes overflow the stack with.
#[derive(Debug, Deserialize, Serialize)]
pub struct Tree(Vec<Tree>);

/// One of each kind of variant.
#[derive(Debug, Deserialize, Serialize)]
enum Shape {
    Unit,
    Tuple(u8, String),
    Struct { name: String, sides: Option<Vec<i64>> },
    Nested(Box<Shape>),
}

/// Decodes the bytes behind the first one, which chooses codec and type.
pub fn payloads(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let codec = if choice & 1 == 0 { Codec::Bincode } else { Codec::Json };
    match choice >> 1 {
        0 => decode::<u64>(codec, bytes),
        1 => decode::<String>(codec, bytes),
        2 => decode::<Vec<u8>>(codec, bytes),
        3 => decode::<(u64, String, Option<bool>)>(codec, bytes),
        4 => decode::<BTreeMap<String, Vec<i32>>>(codec, bytes),
        5 => decode::<HashMap<u32, ()>>(codec, bytes),
        6 => decode::<Tree>(codec, bytes),
        7 => decode::<Vec<()>>(codec, bytes),
        8 => decode::<Vec<Vec<Vec<()>>>>(codec, bytes),
        9 => decode::<Shape>(codec, bytes),
        10 => decode::<(i128, f64, char, [u16; 9])>(codec, bytes),
        11 => decode::<Result<Duration, TaskFailure>>(codec, bytes),
        12 => decode::<Option<Option<Box<str>>>>(codec, bytes),
        13 => decode::<(TaskId, TaskStatus, Outcome)>(codec, bytes),
        _ => decode::<()>(codec, bytes),
    }
}

fn decode<T: DeserializeOwned>(codec: Codec, bytes: &[u8]) {
    let encoded = |bytes: &[u8]| Encoded { codec, bytes: bytes.into() };
    if encoded(bytes).decode::<T>().is_ok() && codec == Codec::Bincode {
        let longer = [bytes, &[0]].concat();
        assert!(encoded(&longer).decode::<T>().is_err(), "bytes after a value are an error");
    }
}

/// Loads settings from a file and variables: the text up to the first zero byte is the file, each
/// line behind it a variable.
pub fn settings(bytes: &[u8]) {
    let split = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (file, variables) = bytes.split_at(split);
    let text = String::from_utf8_lossy(variables);
    let variables = text.lines().filter_map(|line| line.trim_matches('\0').split_once('='));
    let variables: HashMap<String, String> =
        variables.map(|(name, value)| (format!("MQS__{name}"), value.to_owned())).collect();
    let place = scratch();
    let path = place.path().join("hostile.toml");
    fs::write(&path, file).expect("a file can be written");
    match Settings::load_from(place.path(), Some(&path), variables) {
        Ok(settings) => settings.check().expect("what was loaded was checked"),
        Err(mistakes) => assert!(!mistakes.to_string().is_empty()),
    }
    units(&text);
}

/// Parses a text as everything that has a text form. What is printed is read as the same.
fn units(text: &str) {
    if let Ok(id) = TaskId::from_str(text) {
        assert_eq!(TaskId::from_str(&id.to_string()), Ok(id));
    }
    if let Ok(codec) = Codec::from_str(text) {
        assert_eq!(codec.name(), text);
    }
    let _ = (parse_duration(text), parse_bytes(text));
}

fn scratch() -> tempfile::TempDir {
    // in memory where there is such a place: a start writes and syncs
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    place.expect("a directory can be made")
}

/// Runs a target's future on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime can be made").block_on(future)
}
