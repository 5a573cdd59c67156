//! How long a queue has been up, whatever its clock says.

use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};

/// When a queue started: what its clock said then, and how long ago that is whatever it says since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    at: Timestamp,
    instant: Instant,
}

impl Start {
    /// It starts now.
    pub(crate) fn now(clock: &Clock) -> Self {
        Start { at: clock.now(), instant: Instant::now() }
    }

    /// What the clock says, unless it has run ahead of the time that the queue has been up for.
    pub(crate) fn confirm(&self, now: Timestamp) -> Timestamp {
        now.min(self.at.saturating_add(self.instant.elapsed()))
    }
}
