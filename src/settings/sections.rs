//! The sections of the settings and their keys.
//!
//! Defaults and reasons are in `settings/default.toml`, ranges in `keys.rs`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Settings, units};

/// When a committed task survives what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Durability {
    /// A committed task survives a crash of the process, of the system and a power cut.
    #[default]
    Full,
    /// A committed task survives a crash of the process; a power cut or a crash of the system may
    /// lose the latest ones. The files stay intact.
    Normal,
}

/// Where the tasks are kept, and how safely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Storage {
    /// The queue's directory. One process owns it; its parent must exist.
    pub dir: PathBuf,
    /// What a committed task survives.
    pub durability: Durability,
    /// Whether the directory may be on a network file system, where locks and syncs can lie.
    pub allow_network_filesystem: bool,
    /// Whether each file is checked at the first open after an unclean end.
    pub quick_check: bool,
    /// How large a shard's write-ahead log may stay: 1 MiB to 16 GiB, in bytes. It is copied back to
    /// the file from a quarter of this on, at the latest from 16 MiB on.
    #[serde(with = "units::bytes")]
    pub wal_limit: u64,
    /// The page cache of each shard: 1 MiB to 64 GiB, in bytes.
    #[serde(with = "units::bytes")]
    pub cache: u64,
    /// How long a shard waits for a file that another connection holds: 1 ms to 10 min.
    #[serde(with = "units::duration")]
    pub busy_timeout: Duration,
}

/// How many files the tasks are spread over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Shards {
    /// The number of files that take new tasks, 1 to 64; `None` (`"auto"` in files) lets it follow
    /// the load between `min` and `max`. Files that exist are opened and end their tasks even if
    /// they are more.
    #[serde(with = "count_or_auto")]
    pub count: Option<usize>,
    /// The least number, 1 to 64, at most `max`. It means nothing where `count` is a number.
    pub min: usize,
    /// The largest number, 1 to 64; `None` (`"auto"`) is one per core, at most 8, but at least
    /// `min`. It means nothing where `count` is a number.
    #[serde(with = "count_or_auto")]
    pub max: Option<usize>,
    /// One file more is tried when submissions wait longer than this for their commit: 10 µs to
    /// 1 min.
    #[serde(with = "units::duration")]
    pub target_wait: Duration,
    /// One file less takes new tasks when the others have had much room for this long: 100 ms to
    /// 1 day.
    #[serde(with = "units::duration")]
    pub retire_after: Duration,
}

/// Who runs the tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Workers {
    /// The number of workers, 1 to 256; `None` (`"auto"` in files) is one per core.
    #[serde(with = "count_or_auto")]
    pub count: Option<usize>,
    /// How many attempts a worker has under way at a time, 1 to 4,096. A blocking one holds a slot
    /// as well, while it waits for its thread and runs.
    pub concurrency: usize,
    /// How many tasks may be claimed ahead for a worker whose slots are taken, 0 to 8,192.
    pub prefetch: usize,
    /// How many blocking tasks run at a time, each on a thread of its own: 1 to 512.
    pub blocking_threads: usize,
}

/// What tasks get that don't say otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Tasks {
    /// How many failures end a task, 1 to 1,000.
    pub max_attempts: u32,
    /// How many deaths of the process during its attempts end a task, 1 to 100. From 2 on, the last
    /// one counts only if the task ran alone.
    pub max_crashes: u32,
    /// How long an attempt may take: 1 ms to 365 days; `None` (`"none"`) is without limit.
    #[serde(with = "units::duration_or_none")]
    pub timeout: Option<Duration>,
    /// The upper bound of the pause after the first failure: 1 ms to 365 days, at most
    /// `backoff_max`. It doubles with each failure.
    #[serde(with = "units::duration")]
    pub backoff_min: Duration,
    /// The longest pause between attempts: 1 ms to 365 days.
    #[serde(with = "units::duration")]
    pub backoff_max: Duration,
    /// For how long a task must wait to overtake one of the next higher priority: up to 365
    /// days. Zero makes priority strict.
    #[serde(with = "units::duration")]
    pub ageing_per_level: Duration,
}

/// What one submission may take, and what is kept in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// The largest encoded arguments: 1 B to 512 MiB, in bytes.
    #[serde(with = "units::bytes_in_memory")]
    pub payload: usize,
    /// The largest encoded result: 1 B to 512 MiB, in bytes.
    #[serde(with = "units::bytes_in_memory")]
    pub result: usize,
    /// The most tasks in one `submit_all`: 1 to 1,000,000, at most `pending_submissions`.
    pub bulk: usize,
    /// The most submissions that wait for their commit: 1 to 16,777,216.
    pub pending_submissions: usize,
    /// The most arguments of submissions that wait for their commit: 1 MiB to 1 TiB, in bytes.
    /// Those of up to 256 B aren't counted.
    #[serde(with = "units::bytes_in_memory")]
    pub pending_bytes: usize,
    /// The most tasks that haven't started, in all shards together: 1 to 1,000,000,000,000; `None`
    /// (`"none"` in files) is without limit. Those of paused queues count, those that wait for their
    /// time and those held by an ordering key. Further submissions, to whatever queue, wait or are
    /// refused, as their handle's [`Backpressure`](crate::Backpressure) says.
    #[serde(with = "count_or_none")]
    pub ready_tasks: Option<usize>,
    /// How many ready tasks each shard keeps in memory: 1 to 1,048,576.
    pub window: usize,
    /// How many tasks' cached arguments are kept, 1 to 1,000,000,000. Further submissions wait or
    /// are refused, as their handle's [`Backpressure`](crate::Backpressure) says.
    pub cached_arguments: usize,
    /// The most writes in one transaction: 1 to 65,536.
    pub batch: usize,
}

/// How results travel to mailboxes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Delivery {
    /// How many sends to one mailbox are awaited at a time: 1 to 1,048,576.
    pub window: usize,
    /// How many results are kept for one mailbox whose window is full: 0 to 16,777,216.
    pub backlog: usize,
    /// How large the results may be that are kept for one mailbox, those on their way to it among
    /// them: 1 B to 1 TiB, in bytes. A larger one goes alone.
    #[serde(with = "units::bytes_in_memory")]
    pub mailbox_bytes: usize,
    /// How many results each shard has on their way to the mailboxes: 1 to 1,048,576. Those that
    /// are kept for a mailbox aren't among them.
    pub in_flight: usize,
    /// How large the results may be that each shard has on their way: 1 MiB to 1 TiB, in bytes. The
    /// last batch may exceed it.
    #[serde(with = "units::bytes_in_memory")]
    pub in_flight_bytes: usize,
}

/// How long the records of ended tasks are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Retention {
    /// For tasks whose notification is over, or that needed none: 0 to 3,650 days.
    #[serde(with = "units::duration")]
    pub results: Duration,
    /// For tasks that ended without success, and dead deliveries: 0 to 3,650 days.
    #[serde(with = "units::duration")]
    pub dead: Duration,
    /// How often old records are looked for: 1 s to 7 days.
    #[serde(with = "units::duration")]
    pub sweep: Duration,
}

/// What happens when an actor panics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Supervision {
    /// How many panics `within` are answered by a fresh actor: 0 to 1,000. One more
    /// quarantines a shard; any other actor then pauses for `probe`.
    pub restarts: u32,
    /// The time in which `restarts` are counted: 1 ms to 1 day.
    #[serde(with = "units::duration")]
    pub within: Duration,
    /// The pause before the first restart: 0 to 1 day, at most `backoff_max`. It doubles.
    #[serde(with = "units::duration")]
    pub backoff_min: Duration,
    /// The longest pause before a restart: 0 to 1 day.
    #[serde(with = "units::duration")]
    pub backoff_max: Duration,
    /// How often a quarantined shard is tried again: 1 ms to 1 day.
    #[serde(with = "units::duration")]
    pub probe: Duration,
}

/// How the queue ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Shutdown {
    /// How long running attempts may take to end by themselves: 0 to 1 day. For the program to
    /// give to [`Queue::shutdown`](crate::Queue::shutdown), which asks for it; the queue itself
    /// doesn't read it.
    #[serde(with = "units::duration")]
    pub deadline: Duration,
}

/// Takes each section's defaults from `settings/default.toml`.
macro_rules! default_sections {
    ($($section:ident: $field:ident),* $(,)?) => {
        $(
            impl Default for $section {
                fn default() -> Self {
                    Settings::default().$field
                }
            }
        )*
    };
}

default_sections! {
    Storage: storage,
    Shards: shards,
    Workers: workers,
    Tasks: tasks,
    Limits: limits,
    Delivery: delivery,
    Retention: retention,
    Supervision: supervision,
    Shutdown: shutdown,
}

/// Defines how an optional count is written: as a number, or as a word for `None`.
macro_rules! count_or_word {
    ($word:expr, $otherwise:literal) => {
        use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

        #[derive(Serialize, Deserialize)]
        #[serde(untagged)]
        enum Count {
            Fixed(usize),
            Word(String),
        }

        pub(super) fn serialize<S: Serializer>(
            count: &Option<usize>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            count.map_or_else(|| Count::Word($word.to_owned()), Count::Fixed).serialize(to)
        }

        pub(super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<usize>, D::Error> {
            match Count::deserialize(from)? {
                Count::Fixed(count) => Ok(Some(count)),
                Count::Word(word) if word == $word => Ok(None),
                Count::Word(_) => Err(D::Error::custom($otherwise)),
            }
        }
    };
}
use count_or_word;

/// A count that is a number or the word `"none"`.
mod count_or_none {
    super::count_or_word!(super::units::NONE, "a number of tasks is a number or none");
}

/// A number that may follow the machine or the load: `"auto"` or a number.
mod count_or_auto {
    super::count_or_word!(super::AUTO, "allowed is a number or auto");
}

/// How a number that follows the machine or the load is written.
pub(super) const AUTO: &str = "auto";

impl Shards {
    /// How few and how many files take new tasks: both [`Shards::count`] if that is a number, else
    /// [`Shards::min`] and [`Shards::max`], which may follow the number of cores.
    #[must_use]
    pub fn resolved_range(&self) -> RangeInclusive<usize> {
        if let Some(count) = self.count {
            return count..=count;
        }
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8));
        self.min..=self.max.unwrap_or_else(cores).max(self.min)
    }
}

impl Workers {
    /// How many workers there are: [`Workers::count`], or one per core of this machine, at most
    /// 256.
    #[must_use]
    pub fn resolved_count(&self) -> usize {
        self.count.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, |cores| cores.get().min(256))
        })
    }
}
