//! Every key, where its value goes and what it may be.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::sections::{AUTO, Durability};
use super::units::{self, NONE};
use super::{Settings, SettingsMistake};

/// A value as a file or a variable gives it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Given {
    Text(String),
    Whole(i128),
    Switch(bool),
    /// Nothing that any key takes; shown in messages.
    Other(&'static str),
}

impl Given {
    /// The value in a message: one line, not too long.
    pub(super) fn show(&self) -> String {
        match self {
            Given::Text(text) => {
                let short: String = text.chars().take(80).collect();
                let more = if short.len() < text.len() { "…" } else { "" };
                format!("{short:?}{more}")
            }
            Given::Whole(number) => number.to_string(),
            Given::Switch(switch) => switch.to_string(),
            Given::Other(what) => (*what).to_owned(),
        }
    }

    /// The text that a variable would hold for this value.
    pub(super) fn as_variable(&self) -> String {
        match self {
            Given::Text(text) => text.clone(),
            _ => self.show(),
        }
    }

    fn whole<T: TryFrom<i128>>(&self) -> Option<T> {
        let number = match self {
            Given::Whole(number) => *number,
            Given::Text(text) => text.trim().parse().ok()?,
            Given::Switch(_) | Given::Other(_) => return None,
        };
        T::try_from(number).ok()
    }

    fn duration(&self) -> Option<Duration> {
        match self {
            Given::Text(text) => units::parse_duration(text).ok(),
            Given::Whole(0) => Some(Duration::ZERO),
            _ => None,
        }
    }

    fn bytes(&self) -> Option<u64> {
        match self {
            Given::Text(text) => units::parse_bytes(text).ok(),
            Given::Whole(0) => Some(0),
            _ => None,
        }
    }

    fn is(&self, word: &str) -> bool {
        matches!(self, Given::Text(text) if text == word)
    }
}

/// Where a key's value goes, and its range.
enum Slot<'s> {
    Path(&'s mut PathBuf),
    Durability(&'s mut Durability),
    Switch(&'s mut bool),
    Small(&'s mut u32, RangeInclusive<u32>),
    Count(&'s mut usize, RangeInclusive<usize>),
    /// A number, or this word for none.
    CountOr(&'s mut Option<usize>, RangeInclusive<usize>, &'static str),
    Bytes(&'s mut u64, RangeInclusive<u64>),
    BytesInMemory(&'s mut usize, RangeInclusive<u64>),
    Pause(&'s mut Duration, RangeInclusive<Duration>),
    PauseOrNone(&'s mut Option<Duration>, RangeInclusive<Duration>),
}

impl Slot<'_> {
    /// Stores the value, whether or not it is in range. `None` if it is of another kind.
    fn set(&mut self, given: &Given) -> Option<()> {
        match self {
            Slot::Path(path) => match given {
                Given::Text(text) => **path = PathBuf::from(text),
                _ => return None,
            },
            Slot::Durability(durability) => match given {
                given if given.is("full") => **durability = Durability::Full,
                given if given.is("normal") => **durability = Durability::Normal,
                _ => return None,
            },
            Slot::Switch(switch) => match given {
                Given::Switch(on) => **switch = *on,
                given if given.is("true") => **switch = true,
                given if given.is("false") => **switch = false,
                _ => return None,
            },
            Slot::Small(number, _) => **number = given.whole()?,
            Slot::Count(number, _) => **number = given.whole()?,
            Slot::CountOr(number, _, word) => {
                **number = if given.is(word) { None } else { Some(given.whole()?) };
            }
            Slot::Bytes(bytes, _) => **bytes = given.bytes()?,
            Slot::BytesInMemory(bytes, _) => **bytes = usize::try_from(given.bytes()?).ok()?,
            Slot::Pause(pause, _) => **pause = given.duration()?,
            Slot::PauseOrNone(pause, _) => {
                **pause = if given.is(NONE) { None } else { Some(given.duration()?) };
            }
        }
        Some(())
    }

    fn is_in_range(&self) -> bool {
        match self {
            Slot::Path(path) => {
                let bytes = path.as_os_str().as_encoded_bytes();
                !bytes.is_empty() && !bytes.contains(&0)
            }
            Slot::Durability(_) | Slot::Switch(_) => true,
            Slot::Small(number, range) => range.contains(number),
            Slot::Count(number, range) => range.contains(number),
            Slot::CountOr(number, range, _) => number.is_none_or(|number| range.contains(&number)),
            Slot::Bytes(bytes, range) => range.contains(bytes),
            Slot::BytesInMemory(bytes, range) => range.contains(&(**bytes as u64)),
            Slot::Pause(pause, range) => range.contains(pause),
            Slot::PauseOrNone(pause, range) => pause.is_none_or(|pause| range.contains(&pause)),
        }
    }

    /// What the slot takes, in words.
    fn allowed(&self) -> String {
        match self {
            Slot::Path(_) => "a path that is not empty".to_owned(),
            Slot::Durability(_) => "\"full\" or \"normal\"".to_owned(),
            Slot::Switch(_) => "true or false".to_owned(),
            Slot::Small(_, range) => format!("{} to {}", range.start(), range.end()),
            Slot::Count(_, range) => format!("{} to {}", range.start(), range.end()),
            Slot::CountOr(_, range, word) => {
                format!("\"{word}\" or {} to {}", range.start(), range.end())
            }
            Slot::Bytes(_, range) | Slot::BytesInMemory(_, range) => {
                let (least, most) = (*range.start(), *range.end());
                let (least, most) = (units::show_bytes(least), units::show_bytes(most));
                format!("a size with its unit, \"{least}\" to \"{most}\"")
            }
            Slot::Pause(_, range) => {
                let (least, most) = shown(range);
                format!("a duration with its unit, \"{least}\" to \"{most}\"")
            }
            Slot::PauseOrNone(_, range) => {
                let (least, most) = shown(range);
                format!("\"{NONE}\" or a duration with its unit, \"{least}\" to \"{most}\"")
            }
        }
    }

    /// The stored value, as a file would give it.
    fn get(&self) -> Given {
        match self {
            Slot::Path(path) => Given::Text(path.display().to_string()),
            Slot::Durability(Durability::Full) => Given::Text("full".to_owned()),
            Slot::Durability(Durability::Normal) => Given::Text("normal".to_owned()),
            Slot::Switch(switch) => Given::Switch(**switch),
            Slot::Small(number, _) => Given::Whole(i128::from(**number)),
            Slot::Count(number, _) => Given::Whole(**number as i128),
            Slot::CountOr(number, _, word) => number
                .map_or(Given::Text((*word).to_owned()), |number| Given::Whole(number as i128)),
            Slot::Bytes(bytes, _) => Given::Text(units::show_bytes(**bytes)),
            Slot::BytesInMemory(bytes, _) => Given::Text(units::show_bytes(**bytes as u64)),
            Slot::Pause(pause, _) => Given::Text(units::show_duration(**pause)),
            Slot::PauseOrNone(pause, _) => {
                Given::Text(pause.map_or_else(|| NONE.to_owned(), units::show_duration))
            }
        }
    }
}

fn shown(range: &RangeInclusive<Duration>) -> (String, String) {
    (units::show_duration(*range.start()), units::show_duration(*range.end()))
}

/// One key of the settings.
pub(super) struct Key {
    /// Section and key, with a dot between them.
    pub(super) name: &'static str,
    slot: for<'s> fn(&'s mut Settings) -> Slot<'s>,
}

impl Key {
    /// The key with this name.
    pub(super) fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Stores a value from a file or a variable, or says why it can't be; then nothing changes.
    pub(super) fn set(
        &self,
        settings: &mut Settings,
        given: &Given,
        origin: &str,
    ) -> Result<(), SettingsMistake> {
        let mut trial = settings.clone();
        let mut slot = (self.slot)(&mut trial);
        if slot.set(given).is_some() && slot.is_in_range() {
            *settings = trial;
            return Ok(());
        }
        Err(SettingsMistake::Invalid {
            key: self.name.to_owned(),
            origin: Some(origin.to_owned()),
            given: given.show(),
            allowed: slot.allowed(),
        })
    }

    /// Whether the stored value is in range.
    pub(super) fn check(&self, settings: &mut Settings) -> Result<(), SettingsMistake> {
        let slot = (self.slot)(settings);
        if slot.is_in_range() {
            return Ok(());
        }
        Err(SettingsMistake::Invalid {
            key: self.name.to_owned(),
            origin: None,
            given: slot.get().show(),
            allowed: slot.allowed(),
        })
    }

    /// The stored value, as a file would give it.
    pub(super) fn get(&self, settings: &mut Settings) -> Given {
        (self.slot)(settings).get()
    }
}

/// The Python package's names, and the keys that they stand for.
pub(super) const ALIASES: [(&str, &str); 3] = [
    ("middleware_path", "storage.dir"),
    ("max_workers", "workers.count"),
    ("middleware_num", "shards.count"),
];

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Names a key after the field that it sets, and gives its kind and range.
macro_rules! keys {
    ($($section:ident.$field:ident: $kind:ident $(($($range:expr),+))?,)*) => {
        &[$(
            Key {
                name: concat!(stringify!($section), ".", stringify!($field)),
                slot: |settings| Slot::$kind(&mut settings.$section.$field $($(, $range)+)?),
            },
        )*]
    };
}

/// Every key, in the order of `settings/default.toml`.
pub(super) const KEYS: &[Key] = keys! {
    storage.dir: Path,
    storage.durability: Durability,
    storage.allow_network_filesystem: Switch,
    storage.quick_check: Switch,
    storage.wal_limit: Bytes(MIB..=16 * GIB),
    storage.cache: Bytes(MIB..=64 * GIB),
    storage.busy_timeout: Pause(MS..=600 * SECOND),
    shards.count: CountOr(1..=64, AUTO),
    shards.min: Count(1..=64),
    shards.max: CountOr(1..=64, AUTO),
    shards.target_wait: Pause(MS / 100..=60 * SECOND),
    shards.retire_after: Pause(100 * MS..=DAY),
    workers.count: CountOr(1..=256, AUTO),
    workers.concurrency: Count(1..=4096),
    workers.prefetch: Count(0..=8192),
    workers.blocking_threads: Count(1..=512),
    tasks.max_attempts: Small(1..=1000),
    tasks.max_crashes: Small(1..=100),
    tasks.timeout: PauseOrNone(MS..=YEAR),
    tasks.backoff_min: Pause(MS..=YEAR),
    tasks.backoff_max: Pause(MS..=YEAR),
    tasks.ageing_per_level: Pause(Duration::ZERO..=YEAR),
    limits.payload: BytesInMemory(1..=512 * MIB),
    limits.result: BytesInMemory(1..=512 * MIB),
    limits.bulk: Count(1..=1_000_000),
    limits.pending_submissions: Count(1..=1 << 24),
    limits.pending_bytes: BytesInMemory(MIB..=1 << 40),
    limits.ready_tasks: CountOr(1..=1_000_000_000_000, NONE),
    limits.window: Count(1..=1 << 20),
    limits.cached_arguments: Count(1..=1_000_000_000),
    limits.batch: Count(1..=1 << 16),
    delivery.window: Count(1..=1 << 20),
    delivery.backlog: Count(0..=1 << 24),
    delivery.mailbox_bytes: BytesInMemory(1..=1 << 40),
    delivery.in_flight: Count(1..=1 << 20),
    delivery.in_flight_bytes: BytesInMemory(MIB..=1 << 40),
    retention.results: Pause(Duration::ZERO..=10 * YEAR),
    retention.dead: Pause(Duration::ZERO..=10 * YEAR),
    retention.sweep: Pause(SECOND..=7 * DAY),
    supervision.restarts: Small(0..=1000),
    supervision.within: Pause(MS..=DAY),
    supervision.backoff_min: Pause(Duration::ZERO..=DAY),
    supervision.backoff_max: Pause(Duration::ZERO..=DAY),
    supervision.probe: Pause(MS..=DAY),
    shutdown.deadline: Pause(Duration::ZERO..=DAY),
};
