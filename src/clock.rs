//! The only reader of the wall clock.
//!
//! Everything that is stored or compared in the queue is a [`Timestamp`]: microseconds since the
//! Unix epoch, UTC. Durations inside the process (timeouts, credits, drains) use tokio's monotonic
//! timers, which a step of the wall clock doesn't move. Only how long a commit is synced is measured by
//! this one, as the store knows no other; it is bounded by what the timers say.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The last instant that the queue accepts: the end of the year 9999, in microseconds.
const MAX_MICROS: i64 = 253_402_300_799_999_999;

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The end of the year 9999: nothing can be scheduled later.
    pub const MAX: Timestamp = Timestamp(MAX_MICROS);

    /// Makes a timestamp from microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Timestamp(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Seconds since the Unix epoch, with a fraction: the Python package's form.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// This point plus `delay`, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, delay: Duration) -> Self {
        let micros = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(micros).min(MAX_MICROS))
    }

    /// How long after `earlier` this is; zero if it isn't.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let micros = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros)
            }
        };
        Timestamp(micros)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000))
    }
}

/// Where the queue gets the time from: the system's clock, or one that a test moves by hand.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<AtomicI64>),
    #[cfg(feature = "proof")]
    Simulated(fn() -> Timestamp),
}

impl Clock {
    /// The system's wall clock.
    #[must_use]
    pub fn system() -> Self {
        Clock::default()
    }

    /// A clock that stands at `start` until [`Clock::advance`] or [`Clock::set`] moves it.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Clock(Source::Manual(Arc::new(AtomicI64::new(start.as_micros()))))
    }

    /// A clock that shows what this gives.
    #[cfg(feature = "proof")]
    pub(crate) fn simulated(now: fn() -> Timestamp) -> Self {
        Clock(Source::Simulated(now))
    }

    /// The time now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the wall clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::from(SystemTime::now()),
            Source::Manual(micros) => Timestamp(micros.load(Ordering::SeqCst)),
            #[cfg(feature = "proof")]
            Source::Simulated(now) => now(),
        }
    }

    /// Moves a manual clock forward; does nothing to the system's.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(micros) = &self.0 {
            let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            micros.fetch_add(by, Ordering::SeqCst);
        }
    }

    /// Sets a manual clock, backwards too; does nothing to the system's.
    pub fn set(&self, to: Timestamp) {
        if let Source::Manual(micros) = &self.0 {
            micros.store(to.as_micros(), Ordering::SeqCst);
        }
    }
}
