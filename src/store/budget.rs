//! What a batch may claim.

use crate::queues::QueueBudget;

/// How many tasks a batch may claim, and of which kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClaimBudget {
    /// Free worker slots: any task.
    pub(crate) slots: usize,
    /// Places behind busy slots: only definitions that are known to be quick.
    pub(crate) prefetch: usize,
    /// What attempts take, by the index of their definition.
    pub(crate) takes: Vec<Takes>,
    /// Up to how long those behind slots take in all, but for the last of them and for blocking ones,
    /// in nanoseconds.
    pub(crate) behind_ns: u64,
    /// What blocking ones behind slots may take.
    pub(crate) threads: Threads,
    /// How many of each named queue.
    pub(crate) queues: QueueBudget,
    /// The first tasks of other shards, which these may pass only so often.
    pub(crate) passing: Vec<Passing>,
    /// Claim one suspect and nothing else.
    pub(crate) suspect: bool,
}

/// What an attempt takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Takes {
    /// How long, in nanoseconds, if it is known to be quick.
    pub(crate) quick_ns: Option<u64>,
    /// Whether that is a thread of the pool: nothing in its worker waits for it.
    pub(crate) blocking: bool,
}

/// Threads for blocking attempts that come free soon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Threads {
    /// How many are free now.
    pub(crate) free: usize,
    /// Up to how long attempts take in all that wait for one, but for the last of them, in
    /// nanoseconds.
    pub(crate) behind_ns: u64,
}

impl Threads {
    /// Whether an attempt has a thread soon.
    pub(crate) fn any(self) -> bool {
        self.free > 0 || self.behind_ns > 0
    }

    /// Takes a thread for so long; tells whether the attempt has it soon.
    pub(crate) fn take(&mut self, lasts_ns: u64) -> bool {
        let soon = self.any();
        match self.free.checked_sub(1) {
            Some(left) => self.free = left,
            None => self.behind_ns = self.behind_ns.saturating_sub(lasts_ns),
        }
        soon
    }

    /// The part of one of so many that take at the same time.
    pub(crate) fn share(self, among: usize) -> Threads {
        let among = among.max(1);
        Threads {
            free: self.free.div_ceil(among),
            behind_ns: self.behind_ns.div_ceil(among as u64),
        }
    }
}

/// A rank, and how many of what stands after it may be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passing {
    pub(crate) rank: i64,
    pub(crate) tasks: usize,
}
