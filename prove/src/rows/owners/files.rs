//! Files that are not the queue's: found at a start, or put in the place of those that it has open.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Safeguard, Without};
use message_queue_sqlite::{StartError, StoreErrorKind};

use super::races;
use crate::case::{Case, Failure, Outcome, Seen};
use crate::history::History;
use crate::scene::{self, Called, LIMIT, block_on, harness, in_time, pause};

const TASKS: u64 = 6;

/// When a removal counts as unnoticed, where it is to be.
const SHORT: Duration = Duration::from_secs(4);

/// When a queue ends that has ends which it can't store. It tries for some seconds more.
const DEADLINE: Duration = Duration::from_millis(100);

async fn start(dir: &Path, shards: usize) -> Result<Queue, Error> {
    scene::builder(scene::settings(shards), &dir.join("queue"), Called::nobody()).start().await
}

/// Submits some tasks, from this number on.
async fn submit(queue: &Queue, history: &mut History, first: u64) -> Result<(), Error> {
    for number in first..first + TASKS {
        history.tried.insert(number);
        let handle = queue.submit(scene::submission(number)).await?;
        history.acknowledged.insert(handle.id(), number);
    }
    Ok(())
}

/// Makes a queue with some tasks, at rest.
fn at_rest(dir: &Path) -> Result<History, Failure> {
    fs::create_dir_all(dir).map_err(harness)?;
    let mut history = History::default();
    block_on(async {
        let queue = start(dir, 2).await.map_err(harness)?;
        submit(&queue, &mut history, 0).await.map_err(harness)?;
        let ended = in_time("stuck", "the shutdown", queue.shutdown(LIMIT)).await?;
        ended.map_err(harness)
    })?;
    Ok(history)
}

/// What is done to the files, by name, and what the start must say.
const WRONGS: [(&str, StoreErrorKind); 8] = [
    ("a shard is missing", StoreErrorKind::Missing),
    ("the manifest is missing", StoreErrorKind::Missing),
    ("a shard is a copy of the other", StoreErrorKind::Foreign),
    ("a shard is another queue's", StoreErrorKind::Foreign),
    ("the manifest is another queue's", StoreErrorKind::Foreign),
    ("a copy has the next number", StoreErrorKind::Foreign),
    ("a shard is a symbolic link", StoreErrorKind::NotAFile),
    ("a shard has two names", StoreErrorKind::NotAFile),
];

/// Does the wrong to the queue in `dir`, with what is in the directory of another queue.
fn wrong(what: &str, dir: &Path, other: &Path) -> io::Result<()> {
    let (first, second) = (dir.join("shard-000.db"), dir.join("shard-001.db"));
    let aside = dir.with_file_name("aside.db");
    match what {
        "a shard is missing" => fs::remove_file(second),
        "the manifest is missing" => fs::remove_file(dir.join("manifest.json")),
        "a shard is a copy of the other" => fs::copy(first, second).map(drop),
        "a shard is another queue's" => fs::copy(other.join("shard-000.db"), first).map(drop),
        "the manifest is another queue's" => {
            fs::copy(other.join("manifest.json"), dir.join("manifest.json")).map(drop)
        }
        "a copy has the next number" => fs::copy(first, dir.join("shard-002.db")).map(drop),
        "a shard is a symbolic link" => {
            fs::rename(&first, &aside).and_then(|()| symlink(aside, first))
        }
        _ => fs::hard_link(first, aside),
    }
}

/// The contents of the files of a directory, but the lock's: each start signs it.
fn contents(dir: &Path) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "db" || ending == "json") {
            found.insert(path.clone(), fs::read(path)?);
        }
    }
    Ok(found)
}

/// Puts a queue at rest back as it was.
fn put_back(files: &BTreeMap<PathBuf, Vec<u8>>, dir: &Path) -> io::Result<()> {
    for path in contents(dir)?.into_keys() {
        fs::remove_file(path)?;
    }
    let aside = dir.with_file_name("aside.db");
    if aside.exists() {
        fs::remove_file(aside)?;
    }
    files.iter().try_for_each(|(path, bytes)| fs::write(path, bytes))
}

pub(super) fn wrong_at_a_start(case: &Case) -> Outcome {
    let (dir, other) = (case.scratch().to_path_buf(), case.scratch().join("other"));
    let (queue, others) = (dir.join("queue"), other.join("queue"));
    let history = at_rest(&dir)?;
    at_rest(&other)?;
    let before = contents(&queue).map_err(harness)?;
    for (what, kind) in WRONGS {
        wrong(what, &queue, &others).map_err(harness)?;
        let wronged = contents(&queue).map_err(harness)?;
        match block_on(start(&dir, 2)) {
            Ok(_) => return Err(Failure::new("taken", what)),
            Err(Error::Start { reasons }) => {
                let is_said = |reason: &StartError| matches!(reason, StartError::Open { source, .. } if source.kind() == kind);
                if !reasons.iter().any(is_said) {
                    return Err(Failure::new("untold", format!("{what}: {reasons:?}")));
                }
            }
            Err(error) => return Err(Failure::new("untold", format!("{what}: {error}"))),
        }
        let after = contents(&queue).map_err(harness)?;
        if after.keys().ne(wronged.keys()) {
            return Err(Failure::new("changed", format!("{what}: other files are there")));
        }
        // a file that fits may have been opened before another one was found that doesn't
        let mut strangers =
            wronged.iter().filter(|(path, bytes)| before.get(*path) != Some(*bytes));
        if let Some((path, _)) = strangers.find(|(path, bytes)| after.get(*path) != Some(*bytes)) {
            return Err(Failure::new("changed", format!("{what}: {}", path.display())));
        }
        put_back(&before, &queue).map_err(harness)?;
    }
    races::check(&dir, &history)?;
    Ok(Seen::default().count("wrong files at a start", WRONGS.len() as u64))
}

/// The control arm: whose file it is isn't asked.
pub(super) fn wrong_without_identity(case: &Case) -> Outcome {
    let _without = Without::the(Safeguard::ShardIdentity);
    wrong_at_a_start(case)
}

/// What is taken away, and whether a copy is put in its place.
const GONE: [&str; 3] = ["shard-000.db", "shard-000.db-wal", "queue.lock"];

pub(super) fn gone_while_open(case: &Case) -> Outcome {
    gone(case, LIMIT)
}

/// The control arm: nobody looks whether the files are still there.
pub(super) fn gone_without_watch(case: &Case) -> Outcome {
    let _without = Without::the(Safeguard::FilesWatched);
    gone(case, SHORT)
}

fn gone(case: &Case, limit: Duration) -> Outcome {
    let mut random = case.random(1);
    let dir = case.scratch();
    let name = GONE[random.usize(..GONE.len())];
    let copied = random.bool();
    let (path, aside) = (dir.join("queue").join(name), dir.join("aside"));
    let mut history = History::default();
    block_on(async {
        let queue = start(dir, 1).await.map_err(harness)?;
        submit(&queue, &mut history, 0).await.map_err(harness)?;
        fs::rename(&path, &aside).map_err(harness)?;
        if copied {
            fs::copy(&aside, &path).map_err(harness)?;
        }
        noticed(&queue, &mut history, limit, name).await?;
        // from now on nothing is acknowledged
        for number in 10_000_000..10_000_003 {
            history.tried.insert(number);
            if queue.submit(scene::submission(number)).await.is_ok() {
                return Err(Failure::new("unnoticed", format!("{name}, after it was noticed")));
            }
        }
        if name == "queue.lock" {
            // another process finds the directory without an owner
            let second = start(dir, 1).await.map_err(|error| Failure::new("stuck", error))?;
            submit(&second, &mut history, 20_000_000).await.map_err(harness)?;
            drop(queue);
            in_time("stuck", "the shutdown", second.shutdown(LIMIT)).await?.map_err(harness)?;
        } else if random.u8(..4) == 0 {
            // it can't be closed in order, and says so
            let ended = in_time("stuck", "the shutdown", queue.shutdown(DEADLINE)).await?;
            let report = ended.map_err(harness)?;
            if report.unclosed.is_empty() {
                return Err(Failure::new("unnoticed", format!("{name} is gone: {report:?}")));
            }
            fs::rename(&aside, &path).map_err(harness)?;
        } else {
            // a queue that is dropped is as one whose process was killed
            fs::rename(&aside, &path).map_err(harness)?;
            drop(queue);
        }
        Ok::<(), Failure>(())
    })?;
    races::check(dir, &history)?;
    Ok(Seen::default().count("files removed or replaced while open", 1))
}

/// Submits until it is refused for the file that isn't there.
async fn noticed(
    queue: &Queue,
    history: &mut History,
    limit: Duration,
    name: &str,
) -> Result<(), Failure> {
    let began = Instant::now();
    for number in TASKS.. {
        history.tried.insert(number);
        match queue.submit(scene::submission(number)).await {
            Ok(handle) => drop(history.acknowledged.insert(handle.id(), number)),
            Err(Error::Store { source, .. }) if source.kind() == StoreErrorKind::Missing => break,
            Err(error) => return Err(Failure::new("untold", format!("{name}: {error}"))),
        }
        if began.elapsed() > limit {
            return Err(Failure::new("unnoticed", format!("{name} is gone")));
        }
        pause().await;
    }
    Ok(())
}
