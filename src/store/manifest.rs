//! `manifest.json`: which shards belong to a directory, each by its own random identity.
//!
//! An entry is written before its file, as `creating`, and becomes `ready` once the file is
//! complete and synced. No task is accepted in between, so what a crash leaves of a `creating`
//! file is empty or complete, and nothing is lost by going on from there. A `ready` file must be
//! there: one that is missing, or that carries another identity, stops the start.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::files;
use crate::error::{StoreError, StoreErrorKind};
use crate::record::ShardId;
use crate::registry::is_valid_name;

pub(crate) const MANIFEST_FILE: &str = "manifest.json";

/// The format that this version writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// 32,768 entries need about 4 MB.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// How far a shard's file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ShardState {
    /// The file may be absent, empty or complete; it holds no task.
    Creating,
    /// The file is complete and must be there.
    Ready,
}

/// One shard's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardEntry {
    /// The shard's number.
    pub(crate) index: u16,
    /// What the file's `meta.uuid` must say.
    pub(crate) uuid: String,
    /// Always `shard-NNN.db`: it is there for people who read the manifest.
    pub(crate) file: String,
    /// How far the file has come.
    pub(crate) state: ShardState,
}

impl ShardEntry {
    pub(crate) fn shard(&self) -> ShardId {
        ShardId(self.index)
    }
}

/// The shards of one directory: entry N is shard N.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    uuid: String,
    /// True in a backup, which is restored and never opened: its ids have been given out since.
    #[serde(default)]
    pub(crate) backup: bool,
    pub(crate) shards: Vec<ShardEntry>,
    /// What was set of named queues while the queue was in use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) queues: BTreeMap<String, StoredQueue>,
}

/// What is stored of a named queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StoredQueue {
    pub(crate) paused: bool,
    /// How many of its tasks may run at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) concurrency: Option<usize>,
}

/// Enough to tell a newer manifest from a damaged one.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The name of a shard's file, made from its number only.
pub(crate) fn shard_file(shard: ShardId) -> String {
    format!("shard-{:03}.db", shard.0)
}

/// Whether a file of this name could be taken for a shard's.
pub(crate) fn is_shard_file(name: &str) -> bool {
    name.starts_with("shard-") && name.ends_with(".db")
}

impl Manifest {
    /// A directory without shards.
    pub(crate) fn new() -> Result<Self, StoreError> {
        let (shards, queues) = Default::default();
        Ok(Manifest { format: FORMAT, uuid: files::new_uuid()?, backup: false, shards, queues })
    }

    /// Adds an entry, as `creating`, for each shard below `count` that has none.
    /// True if there was one to add.
    pub(crate) fn extend_to(&mut self, count: u16) -> Result<bool, StoreError> {
        let before = self.shards.len();
        for index in before..usize::from(count) {
            let index = u16::try_from(index).expect("it is below a u16");
            self.shards.push(ShardEntry {
                index,
                uuid: files::new_uuid()?,
                file: shard_file(ShardId(index)),
                state: ShardState::Creating,
            });
        }
        Ok(self.shards.len() > before)
    }

    /// How many shards there are up to the last one whose file is complete. Those behind it hold no
    /// task.
    pub(crate) fn complete(&self) -> usize {
        let last = self.shards.iter().rposition(|entry| entry.state == ShardState::Ready);
        last.map_or(0, |last| last + 1)
    }

    /// The same shards, ready, under new identities; and the same queues.
    pub(crate) fn renewed(&self) -> Result<Self, StoreError> {
        let mut renewed = Manifest::new()?;
        renewed.extend_to(u16::try_from(self.shards.len()).unwrap_or(u16::MAX))?;
        for entry in &mut renewed.shards {
            entry.state = ShardState::Ready;
        }
        renewed.queues = self.queues.clone();
        Ok(renewed)
    }

    /// Reads `directory`'s manifest; `None` if it has none.
    ///
    /// # Errors
    ///
    /// It isn't a plain file, is damaged, or was written by a newer version.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, StoreError> {
        let path = directory.join(MANIFEST_FILE);
        let Some(found) = files::look_at(&path)? else { return Ok(None) };
        files::require_plain(&path, &found)?;
        let mut bytes = Vec::new();
        fs::File::open(&path)
            .and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes))
            .fault("read manifest.json")?;
        Manifest::parse(&bytes).map(Some)
    }

    /// Reads a manifest from its text.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = |why: String| {
            StoreError::new(
                StoreErrorKind::Corrupt,
                format!("manifest.json is damaged: {why}; restore a backup"),
            )
        };
        let json = |error: serde_json::Error| {
            damaged(format!("line {}, column {}", error.line(), error.column()))
        };
        let Format { format } = serde_json::from_slice(bytes).map_err(json)?;
        if format > FORMAT {
            return Err(StoreError::new(
                StoreErrorKind::NewerSchema,
                format!(
                    "manifest.json has format {format} and this version knows {FORMAT}; \
                     update this program"
                ),
            ));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(json)?;
        manifest.check().map_err(damaged)?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if self.format == 0 || !is_uuid(&self.uuid) {
            return Err("its format or uuid is not valid".to_owned());
        }
        if self.shards.len() > usize::from(ShardId::MAX.0) + 1 {
            return Err(format!("it has {} shards", self.shards.len()));
        }
        if let Some(name) = self.queues.keys().find(|name| !is_valid_name(name)) {
            return Err(format!("{name:?} is no name of a queue"));
        }
        let mut seen = HashSet::new();
        for (place, entry) in self.shards.iter().enumerate() {
            if usize::from(entry.index) != place || entry.file != shard_file(entry.shard()) {
                return Err(format!("entry {place} is not shard {place}'s"));
            }
            if !is_uuid(&entry.uuid) || !seen.insert(&entry.uuid) {
                return Err(format!("shard {place}'s uuid is not valid, or another shard's"));
            }
        }
        Ok(())
    }

    /// Replaces `directory`'s manifest: a crash leaves the old one or the new one.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), StoreError> {
        let path = directory.join(MANIFEST_FILE);
        let draft = files::beside(&path, ".tmp");
        let mut text = serde_json::to_vec_pretty(self)
            .expect("numbers and strings under fixed keys are always JSON");
        text.push(b'\n');
        files::remove_if_there(&draft)?;
        let mut file = files::create_private(&draft)?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&draft, &path))
            .fault("write manifest.json")?;
        files::sync_directory(directory)
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
