//! What a transaction changes in memory, once it is committed and not before.

use std::collections::BTreeSet;

use super::in_hand::Handled;
use super::kinds::{Kind, KindId};
use super::sqlite::SqliteStore;
use super::steps::Step;
use super::tally::Tally;
use crate::clock::Timestamp;
use crate::order::Place;

/// A row that became ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) place: Place,
    pub(super) kind: KindId,
    pub(super) suspect: bool,
}

/// The changes of one transaction.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) next: u64,
    pub(super) tally: Tally,
    /// Rows that are ready now and weren't claimed.
    pub(super) arrivals: Vec<Arrival>,
    /// Kinds of which the stretches that the head had passed were removed.
    pub(super) cleaned: BTreeSet<KindId>,
    /// Places that were ready and aren't.
    pub(super) departures: Vec<(KindId, Place)>,
    /// The earliest due time among rows that began to wait.
    pub(super) waits: Option<Timestamp>,
    /// Due rows were promoted, so the next due time must be read again.
    pub(super) promoted: bool,
    /// How many results began (or ceased) to wait for delivery credits.
    pub(super) undelivered: i64,
    /// Kinds that were stored for the first time.
    pub(super) kinds: Vec<(KindId, Kind)>,
    /// Rows that were taken up or laid down.
    pub(super) handled: Handled,
    /// What it added to the log of steps.
    pub(super) step: Option<Step>,
}

impl Changes {
    pub(super) fn wait_until(&mut self, due: Timestamp) {
        self.waits = Some(self.waits.map_or(due, |earlier| earlier.min(due)));
    }
}

impl SqliteStore {
    /// Takes over what a committed transaction changed.
    pub(super) fn adopt(&mut self, changes: Changes) {
        self.next = changes.next;
        for (id, kind) in changes.kinds {
            if kind.definition.is_some() {
                self.windows.add_new(id);
            }
            self.kinds.add(id, kind);
        }
        for kind in changes.cleaned {
            self.passed.remove(&kind);
        }
        for (kind, place) in changes.departures {
            self.passed.insert(kind);
            if !self.windows.remove(kind, place) {
                self.suspects.remove(&place);
            }
        }
        for Arrival { place, kind, suspect } in changes.arrivals {
            if !suspect {
                self.windows.insert(kind, place);
            } else if self.kinds.definition(kind).is_some() {
                self.suspects.insert(place, kind);
            }
        }
        self.standing.in_hand.adopt(changes.handled);
        if let Some(step) = changes.step {
            self.standing.adopt(step);
        }
        self.undelivered = self.undelivered.saturating_add_signed(changes.undelivered);
        if let Some(due) = changes.waits {
            self.next_due = Some(self.next_due.map_or(due, |earlier| earlier.min(due)));
        }
        if changes.promoted && self.read_next_due().is_err() {
            // looked at again with the next batch: the time that stands has passed already
            tracing::warn!(shard = %self.shard, "cannot read the next due time");
        }
    }
}
