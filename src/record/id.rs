//! What tasks and shards are called by: their numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many bits of a [`TaskId`] count tasks; the rest name the shard.
const SEQUENCE_BITS: u32 = 48;

/// The highest sequence number that a shard can give.
pub(crate) const SEQUENCE_MAX: u64 = (1 << SEQUENCE_BITS) - 1;

/// One SQLite file of the queue, by its number: `shard-003.db` is shard 3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The highest shard number that a [`TaskId`] can carry.
    pub const MAX: ShardId = ShardId(0x7fff);

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one task for ever: the shard that keeps it and its sequence number there.
///
/// Printed and parsed as `3-1842`; a string of that form in JSON, a number in binary codecs.
/// Ids of one shard go up with each submission; numbers may be skipped but are never used again,
/// not after a crash and not after a restore.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u64);

impl TaskId {
    pub(crate) fn new(shard: ShardId, sequence: u64) -> Self {
        debug_assert!(sequence <= SEQUENCE_MAX, "a sequence number has 48 bits");
        TaskId(u64::from(shard.0) << SEQUENCE_BITS | sequence)
    }

    /// The shard that keeps this task.
    #[must_use]
    pub fn shard(self) -> ShardId {
        ShardId((self.0 >> SEQUENCE_BITS) as u16)
    }

    /// The task's number within its shard, from 1.
    #[must_use]
    pub fn sequence(self) -> u64 {
        self.0 & SEQUENCE_MAX
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard(), self.sequence())
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text isn't a task id: one looks like `3-1842`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a task id; one looks like 3-1842")]
pub struct ParseTaskIdError;

impl FromStr for TaskId {
    type Err = ParseTaskIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let (shard, sequence) = text.split_once('-').ok_or(ParseTaskIdError)?;
        if !digits(shard) || !digits(sequence) {
            return Err(ParseTaskIdError);
        }
        let shard = shard.parse::<u16>().map_err(|_| ParseTaskIdError)?;
        let sequence = sequence.parse::<u64>().map_err(|_| ParseTaskIdError)?;
        if shard > ShardId::MAX.0 || sequence > SEQUENCE_MAX {
            return Err(ParseTaskIdError);
        }
        Ok(TaskId::new(ShardId(shard), sequence))
    }
}

impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            let bits = u64::deserialize(deserializer)?;
            if bits >> 63 != 0 {
                return Err(D::Error::custom(ParseTaskIdError));
            }
            Ok(TaskId(bits))
        }
    }
}
