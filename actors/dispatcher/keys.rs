//! What the Dispatcher remembers of tasks with an ordering key: enough to tell of which slots none has
//! come since somebody looked.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::time::Instant;

use crate::keys::SLOTS;

/// How often slots that aren't where they should be are looked at again, at most.
const ASK_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Keys {
    /// By slot; empty before the first.
    counts: RefCell<Vec<u32>>,
    /// How often a task was redriven, whose key isn't known here.
    redriven: Cell<u32>,
    asked: Cell<Option<Instant>>,
    /// Whether shards have been asked of which slots they have tasks, and haven't answered yet.
    asking: Cell<bool>,
    /// Whether it is known that all are where they should be: none had tasks when it was to move.
    even: Cell<bool>,
}

impl Keys {
    /// A task of this slot has come, or been sent on.
    pub(super) fn came(&self, slot: u16) {
        let mut counts = self.counts.borrow_mut();
        if counts.is_empty() {
            counts.resize(SLOTS, 0);
        }
        let count = &mut counts[usize::from(slot)];
        *count = count.wrapping_add(1);
    }

    pub(super) fn redriven(&self) {
        self.redriven.set(self.redriven.get().wrapping_add(1));
    }

    pub(super) fn redrives(&self) -> u32 {
        self.redriven.get()
    }

    pub(super) fn any(&self) -> bool {
        !self.counts.borrow().is_empty()
    }

    pub(super) fn counts(&self) -> Vec<u32> {
        let counts = self.counts.borrow();
        if counts.is_empty() { vec![0; SLOTS] } else { counts.clone() }
    }

    pub(super) fn set_even(&self, even: bool) {
        self.even.set(even);
    }

    /// Sets whether shards are being asked, and tells whether they were.
    pub(super) fn set_asking(&self, asking: bool) -> bool {
        self.asking.replace(asking)
    }

    pub(super) fn are_even(&self) -> bool {
        self.even.get()
    }

    /// Whether it is some time since this was asked.
    pub(super) fn may_ask_again(&self) -> bool {
        let may = self.asked.get().is_none_or(|asked| asked.elapsed() >= ASK_EVERY);
        if may {
            self.asked.set(Some(Instant::now()));
        }
        may
    }
}
