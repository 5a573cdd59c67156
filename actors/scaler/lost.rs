//! Shards that are out of service, and those that stand in.
//!
//! A quarantined shard takes no more tasks as soon as another one does, and counts nowhere: what the
//! controller decides is about those that work. When it is well again it can be had like one that was
//! retired.

use std::time::Duration;

use tokio::time::Instant;

use super::{MoveSlots, Scaler};

/// How long it takes until another shard is looked for after there was none: at first, and at most; it
/// doubles in between.
const LOOK_AGAIN_MIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(300);

/// When the next look for a shard that stands in is due, after one that found none.
#[derive(Debug, Default)]
pub(super) struct Lost {
    not_before: Option<Instant>,
    pause: Duration,
}

impl Lost {
    fn found_none(&mut self) -> Duration {
        self.pause = (self.pause * 2).clamp(LOOK_AGAIN_MIN, LOOK_AGAIN_MAX);
        self.not_before = Some(Instant::now() + self.pause);
        self.pause
    }
}

impl Scaler {
    /// How many shards take tasks and can.
    fn well(&self) -> usize {
        self.active().filter(|ledger| !ledger.is_quarantined()).count()
    }

    /// Has others take tasks in the place of shards that are out of service, at least `shards.min` of
    /// them. Tells whether anything has changed.
    pub(super) async fn replace_lost(&mut self) -> bool {
        let mut changed = false;
        if self.well() >= *self.controller.range().start() {
            self.lost = Lost::default();
        }
        let may_look = self.lost.not_before.is_none_or(|at| at <= Instant::now());
        let all = self.shared.shards.len();
        while self.well() < *self.controller.range().start()
            && self.shared.active() < all
            && may_look
        {
            match self.find_one_more().await {
                Ok((ledger, how)) => {
                    self.lost = Lost::default();
                    self.shared.set_active(&ledger, true);
                    changed = true;
                    tracing::warn!(shard = %ledger.id, how, "a shard takes tasks for one out of service");
                }
                Err(error) => {
                    let pause = self.lost.found_none();
                    tracing::warn!(error, ?pause, "no shard can stand in; that is tried again");
                    break;
                }
            }
        }
        if self.well() > 0 {
            for ledger in
                self.active().filter(|ledger| ledger.is_quarantined()).cloned().collect::<Vec<_>>()
            {
                self.shared.set_active(&ledger, false);
                changed = true;
                let (shard, shards) = (ledger.id, self.shared.active());
                tracing::warn!(%shard, shards, "a shard is out of service, and takes no new tasks");
            }
        }
        if changed {
            self.controller.watch_anew();
            self.shared.dispatcher.send(MoveSlots);
        }
        changed
    }

    /// For how long there is nothing to decide, because no shard that takes tasks can.
    pub(super) fn waits_for_shards(&self) -> Option<Duration> {
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        // traffic has it look again sooner, at no cost
        let wait = self.lost.not_before.map(left).filter(|left| !left.is_zero());
        (self.well() == 0).then(|| wait.unwrap_or(LOOK_AGAIN_MIN).max(super::TICK))
    }
}
