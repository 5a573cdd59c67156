//! The bare loop: a fixed baseline. Its schema, statements and batch size don't change, or ratios
//! of different days couldn't be compared.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::AnyError;

const BATCH: usize = 1024;

const SCHEMA: &str = "
    CREATE TABLE tasks(
        id INTEGER PRIMARY KEY, name INTEGER NOT NULL, status INTEGER NOT NULL,
        priority INTEGER NOT NULL, run_at INTEGER NOT NULL, attempt INTEGER NOT NULL DEFAULT 0,
        payload BLOB NOT NULL, result BLOB) STRICT;
    CREATE INDEX ready ON tasks(priority DESC, run_at, id) WHERE status=0";

const STEPS: [&str; 4] = [
    "INSERT INTO tasks(id,name,status,priority,run_at,payload) VALUES(?1,1,0,0,?1,?2)",
    "UPDATE tasks SET status=1, attempt=attempt+1 WHERE id=?1",
    "UPDATE tasks SET status=2, result=?2 WHERE id=?1",
    "UPDATE tasks SET status=4 WHERE id=?1",
];

/// Which of the steps are insertion, and what comes after it.
const INSERTION: Range<usize> = 0..1;
const REST: Range<usize> = 1..STEPS.len();

/// Runs `tasks` tasks over `files` files and returns tasks per second.
pub(crate) fn run(dir: &Path, sync: &str, files: usize, tasks: usize) -> Result<f64, AnyError> {
    steps(dir, sync, files, tasks, 0..STEPS.len())
}

/// [`run`] with nothing but the insertion.
pub(crate) fn insert(dir: &Path, sync: &str, files: usize, tasks: usize) -> Result<f64, AnyError> {
    steps(dir, sync, files, tasks, INSERTION)
}

/// [`run`] without the time of the insertion, which is over before.
pub(crate) fn drain(dir: &Path, sync: &str, files: usize, tasks: usize) -> Result<f64, AnyError> {
    steps(dir, sync, files, tasks, INSERTION)?;
    steps(dir, sync, files, tasks, REST)
}

fn steps(
    dir: &Path,
    sync: &str,
    files: usize,
    tasks: usize,
    steps: Range<usize>,
) -> Result<f64, AnyError> {
    let each = tasks / files;
    let started = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..files)
            .map(|file| {
                let path = dir.join(format!("bare-{file}.db"));
                let steps = steps.clone();
                scope.spawn(move || one_file(&path, sync, each, steps))
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_| "a thread of the bare loop panicked")??;
        }
        Ok::<_, AnyError>(())
    })?;
    Ok((each * files) as f64 / started.elapsed().as_secs_f64())
}

fn one_file(path: &Path, sync: &str, tasks: usize, steps: Range<usize>) -> Result<(), String> {
    loop_over(path, sync, tasks, steps).map_err(|error| error.to_string())
}

fn open(path: &Path, sync: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", sync)?;
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    connection.pragma_update(None, "cache_size", -65536)?;
    Ok(connection)
}

fn loop_over(path: &Path, sync: &str, tasks: usize, steps: Range<usize>) -> rusqlite::Result<()> {
    let mut connection = open(path, sync)?;
    if steps.start == 0 {
        connection.execute_batch(SCHEMA)?;
    }
    let payload = vec![7u8; 150];
    let mut first = 0;
    while first < tasks {
        let end = (first + BATCH).min(tasks);
        for (step, sql) in STEPS.iter().enumerate().take(steps.end).skip(steps.start) {
            let transaction = connection.transaction()?;
            {
                let mut statement = transaction.prepare_cached(sql)?;
                for id in first as i64..end as i64 {
                    match step {
                        0 => statement.execute(params![id, &payload])?,
                        2 => statement.execute(params![id, &payload[..8]])?,
                        _ => statement.execute(params![id])?,
                    };
                }
            }
            transaction.commit()?;
        }
        first = end;
    }
    Ok(())
}

/// Inserts rows, each in a transaction of its own.
pub(crate) struct OneByOne {
    connection: Connection,
    next: i64,
    payload: Vec<u8>,
}

impl OneByOne {
    pub(crate) fn open(dir: &Path, sync: &str) -> Result<Self, AnyError> {
        let connection = open(&dir.join("bare.db"), sync)?;
        connection.execute_batch(SCHEMA)?;
        Ok(OneByOne { connection, next: 0, payload: vec![7u8; 150] })
    }

    /// Inserts the next row and returns how long that took, with its commit.
    pub(crate) fn insert(&mut self) -> Result<Duration, AnyError> {
        let began = Instant::now();
        let transaction = self.connection.transaction()?;
        transaction.prepare_cached(STEPS[0])?.execute(params![self.next, &self.payload])?;
        transaction.commit()?;
        self.next += 1;
        Ok(began.elapsed())
    }
}
