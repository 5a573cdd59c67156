//! What is known of each file while the program runs.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;
use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{CodecError, TaskFailure, TaskRecord};
use tokio::sync::Notify;

use crate::manifest::Hash;

/// Files and the ends of their tasks, by the tasks' ids. Everything may be entered twice.
pub(crate) struct Ledger {
    pub(crate) progress: ProgressBar,
    entries: Mutex<Entries>,
    ended: Notify,
}

#[derive(Default)]
struct Entries {
    files: HashMap<TaskId, OsString>,
    paths: HashSet<OsString>,
    /// A result can come before the submission that waits for its id goes on.
    hashes: HashMap<TaskId, Hash>,
    /// How many of the files have no hash yet.
    open: usize,
}

impl Ledger {
    pub(crate) fn new(progress: ProgressBar) -> Self {
        Ledger { progress, entries: Mutex::default(), ended: Notify::new() }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn knows(&self, path: &OsStr) -> bool {
        self.entries().paths.contains(path)
    }

    pub(crate) fn enter_file(&self, id: TaskId, path: OsString) {
        let mut entries = self.entries();
        entries.paths.insert(path.clone());
        if entries.files.insert(id, path).is_none() {
            self.progress.inc_length(1);
            match entries.hashes.contains_key(&id) {
                true => self.progress.inc(1),
                false => entries.open += 1,
            }
        }
    }

    pub(crate) fn enter_result(&self, result: &TaskResult) {
        if killed(result.failure()) {
            return;
        }
        let hash = match result.failure() {
            None => result.decode().map_err(|error| error.to_string()),
            Some(failure) => Err(failure.message.clone()),
        };
        self.enter_hash(result.id(), hash);
    }

    /// Takes up what is stored of a task of an earlier process.
    pub(crate) fn enter_record(
        &self,
        record: &TaskRecord,
        path: OsString,
    ) -> Result<(), CodecError> {
        let failure = record.error.as_ref().filter(|_| record.outcome == Some(Outcome::Failed));
        if killed(failure) {
            // as if it had never been: the file is submitted again
            return Ok(());
        }
        self.enter_file(record.id, path);
        match (record.outcome, &record.output, failure) {
            (None, ..) => {}
            (Some(_), Some(hash), _) => self.enter_hash(record.id, Ok(hash.decode()?)),
            (Some(_), None, Some(failure)) => {
                self.enter_hash(record.id, Err(failure.message.clone()));
            }
            (Some(outcome), None, None) => {
                self.enter_hash(record.id, Err(format!("the task is {outcome:?}")));
            }
        }
        Ok(())
    }

    fn enter_hash(&self, id: TaskId, hash: Hash) {
        let mut entries = self.entries();
        if entries.hashes.insert(id, hash).is_none() && entries.files.contains_key(&id) {
            self.progress.inc(1);
            entries.open -= 1;
            if entries.open == 0 {
                self.ended.notify_one();
            }
        }
    }

    /// Waits until every file that was entered has its hash, or a reason why not.
    pub(crate) async fn until_all_ended(&self) {
        while self.entries().open > 0 {
            self.ended.notified().await;
        }
    }

    /// Every file that was entered, with its hash.
    pub(crate) fn take_files(&self) -> Vec<(OsString, Hash)> {
        let Entries { files, mut hashes, .. } = std::mem::take(&mut *self.entries());
        let with_hash = |(id, path)| hashes.remove(&id).map(|hash| (path, hash));
        files.into_iter().filter_map(with_hash).collect()
    }
}

/// Whether a task failed only because its process was killed too often.
fn killed(failure: Option<&TaskFailure>) -> bool {
    failure.is_some_and(|failure| failure.kind == FailureKind::Crashed)
}
